"""An independent eye: a small network that reads object, colour, ground and time of day off a picture.

It is trained on the illustrator's own pictures and has never seen one of the diffusion model's. A part of what it sees is
blurred, so that soft edges alone do not confuse it.
"""

import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from course.core.writing import whole_file
from course.scenes.scenes import COLOURS, GROUNDS, OBJECTS, TIMES, Scene, draw_scene, sample_scene

ATTRIBUTES = {"object": OBJECTS, "colour": COLOURS, "ground": GROUNDS, "time": TIMES}
SIZE = 64  # pixels; larger pictures are made smaller


class Judge(nn.Module):
    """(batch, 3, height, width) in [-1, 1] -> for each attribute (batch, number of its values), unnormalised."""

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = []
        channels = (3, 32, 64, 96, 128)
        for before, after in zip(channels, channels[1:]):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.heads = nn.ModuleDict(
            {name: nn.Linear(channels[-1] * (SIZE // 16) ** 2, len(values)) for name, values in ATTRIBUTES.items()}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(F.interpolate(images, size=(SIZE, SIZE), mode="area"))
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def read(self, images: Tensor) -> dict[str, Tensor]:
        """The index of the likeliest value of each attribute: (batch,), int64."""
        return {name: scores.argmax(dim=1) for name, scores in self(images).items()}


def truth(scenes: list[Scene]) -> dict[str, Tensor]:
    """What the scenes show, as indices into ATTRIBUTES; of single-object scenes."""
    rows = [(s.things[0].object, s.things[0].colour, s.ground, s.time) for s in scenes]
    return {
        name: torch.tensor([values.index(row[i]) for row in rows])
        for i, (name, values) in enumerate(ATTRIBUTES.items())
    }


def sample_single(rng: random.Random, held_out: bool) -> Scene:
    """A scene with one object, of a held-out combination or of a seen one."""
    while True:
        scene = sample_scene(rng, held_out)
        if len(scene.things) == 1:
            return scene


def draw_single(rng: random.Random, held_out: bool, size: int) -> tuple[Scene, np.ndarray]:
    """Such a scene and its picture, (size, size, 3) uint8."""
    scene = sample_single(rng, held_out)
    return scene, np.asarray(draw_scene(scene, rng, size))


def train_judge(seed: int = 0, pictures: int = 5000, epochs: int = 5, batch: int = 50) -> Judge:
    """A judge trained from nothing, on seen and held-out combinations in equal parts; one or two minutes on a processor."""
    rng = random.Random(f"judge {seed}")
    drawn = [draw_single(rng, held_out=i % 2 == 1, size=SIZE) for i in tqdm(range(pictures), "drawing for the judge")]
    labels = truth([scene for scene, _ in drawn])
    images = torch.from_numpy(np.stack([image for _, image in drawn])).permute(0, 3, 1, 2).float() / 127.5 - 1.0

    torch.manual_seed(seed)
    judge = Judge()
    steps = epochs * (pictures // batch)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    bar = tqdm(total=steps, desc="training the judge")
    for _ in range(epochs):
        for chosen in torch.randperm(pictures, generator=generator).split(batch)[: pictures // batch]:
            some = images[chosen]
            if rng.random() < 0.5:
                smaller = rng.choice((24, 32, 48))
                some = F.interpolate(F.interpolate(some, smaller, mode="area"), SIZE, mode="bilinear")
            some = some + 0.05 * torch.randn(some.shape, generator=generator)
            loss = sum(F.cross_entropy(scores, labels[name][chosen]) for name, scores in judge(some).items())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    bar.close()
    return judge.eval()


def load_judge(path: Path) -> Judge:
    """The judge in a file; it is trained now, and kept there, if there is none."""
    judge = Judge().eval()
    if path.is_file():
        judge.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
        return judge
    judge = train_judge()
    with whole_file(path) as temporary:
        save_file({name: tensor.half() for name, tensor in judge.state_dict().items()}, temporary)
    return load_judge(path)
