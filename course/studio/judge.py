"""An independent eye: a small network that reads object, colour, ground and time of day off a picture.

It is trained on the illustrator's own pictures and has never seen one of the diffusion model's. A part of what it sees
is blurred, so that soft edges alone do not confuse it.

A second one reads halves of pictures: of two things the first stands in the left half and the second in the right one.
It also knows halves in which no thing stands, or but a part of one.

A third one reads the frames of films, in which things are in other places and poses than in a still picture.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from course.scenes.objects import UNKNOWN
from course.scenes.scenes import COLOURS, GROUNDS, OBJECTS, TIMES, Scene, draw_scene, sample_scene
from course.studio.learning import kept, learned, spoiled

ATTRIBUTES = {"object": OBJECTS, "colour": COLOURS, "ground": GROUNDS, "time": TIMES}
SIZE = 64  # pixels; larger pictures are made smaller
NOTHING = "nothing"  # in a half of a picture: not one whole thing
NEW_ATTRIBUTES = ATTRIBUTES | {"object": (*OBJECTS, *UNKNOWN)}
HALF_ATTRIBUTES = ATTRIBUTES | {"object": (*OBJECTS, NOTHING)}
IGNORED = -100  # the colour of nothing; torch's cross-entropy leaves it out


class Judge(nn.Module):
    """(batch, 3, height, width) in [-1, 1] -> for each attribute (batch, number of its values), unnormalised."""

    def __init__(self, attributes: dict[str, tuple[str, ...]] = ATTRIBUTES, shape: tuple[int, int] = (SIZE, SIZE)):
        super().__init__()
        self.shape = shape
        layers: list[nn.Module] = []
        channels = (3, 32, 64, 96, 128)
        for before, after in zip(channels, channels[1:]):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.heads = nn.ModuleDict(
            {
                name: nn.Linear(channels[-1] * (shape[0] // 16) * (shape[1] // 16), len(values))
                for name, values in attributes.items()
            }
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(F.interpolate(images, size=self.shape, mode="area"))
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def read(self, images: Tensor) -> dict[str, Tensor]:
        """The index of the likeliest value of each attribute: (batch,), int64."""
        return {name: scores.argmax(dim=1) for name, scores in self(images).items()}


def truth(scenes: list[Scene], attributes: dict[str, tuple[str, ...]] = ATTRIBUTES) -> dict[str, Tensor]:
    """What the scenes show, as indices into the attributes; of single-object scenes."""
    rows = [(s.things[0].object, s.things[0].colour, s.ground, s.time) for s in scenes]
    return {
        name: torch.tensor([values.index(row[i]) for row in rows])
        for i, (name, values) in enumerate(attributes.items())
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
    """A judge trained from nothing, on seen and held-out combinations in equal parts; one or two minutes on a CPU."""
    rng = random.Random(f"judge {seed}")
    drawn = [draw_single(rng, held_out=i % 2 == 1, size=SIZE) for i in tqdm(range(pictures), "drawing for the judge")]
    labels = truth([scene for scene, _ in drawn])
    torch.manual_seed(seed)
    return fit(Judge(), as_tensor([image for _, image in drawn]), labels, rng, seed, epochs, batch)


def train_film_judge(seed: int = 0, pictures: int = 6000, epochs: int = 6, batch: int = 50) -> Judge:
    """A judge trained as the first one is, but on frames of films: each shows its scene at a moment of its own."""
    rng = random.Random(f"judge of films {seed}")
    scenes = [replace(sample_single(rng, i % 2 == 1), size="medium", position="centre") for i in range(pictures)]
    drawn = [
        np.asarray(draw_scene(scene, rng, SIZE, moment=rng.random()))
        for scene in tqdm(scenes, "drawing for the judge of films")
    ]
    torch.manual_seed(seed)
    return fit(Judge(), as_tensor(drawn), truth(scenes), rng, seed, epochs, batch)


def sample_new(rng: random.Random) -> Scene:
    """A scene with one of the things that the model was not trained on."""
    scene = sample_single(rng, held_out=False)
    return replace(scene, things=(replace(scene.things[0], object=rng.choice([*UNKNOWN])),))


def train_new_judge(seed: int = 0, pictures: int = 5000, epochs: int = 5, batch: int = 50) -> Judge:
    """A judge of pictures of which every eighth shows a thing that the model was not trained on."""
    rng = random.Random(f"judge of new things {seed}")
    scenes = [sample_new(rng) if i % 8 == 0 else sample_single(rng, held_out=i % 2 == 1) for i in range(pictures)]
    drawn = [np.asarray(draw_scene(scene, rng, SIZE)) for scene in tqdm(scenes, "drawing for the judge of new things")]
    torch.manual_seed(seed)
    return fit(Judge(NEW_ATTRIBUTES), as_tensor(drawn), truth(scenes, NEW_ATTRIBUTES), rng, seed, epochs, batch)


def halves(images: Tensor) -> Tensor:
    """(batch, 3, height, width) -> (2 * batch, 3, height, width / 2): of each picture left, then right."""
    return torch.stack(images.chunk(2, dim=3), dim=1).flatten(0, 1)


def truth_of_halves(scenes: list[Scene]) -> dict[str, Tensor]:
    """What the halves of pictures of these scenes show, in the order of `halves`, as indices into HALF_ATTRIBUTES.

    Of a scene with one thing, no half shows a whole one.
    """
    rows = []
    for scene in scenes:
        for thing in scene.things if len(scene.things) == 2 else (None, None):
            name = HALF_ATTRIBUTES["object"].index(thing.object if thing else NOTHING)
            colour = COLOURS.index(thing.colour) if thing else IGNORED
            rows.append((name, colour, GROUNDS.index(scene.ground), TIMES.index(scene.time)))
    return {name: torch.tensor([row[i] for row in rows]) for i, name in enumerate(HALF_ATTRIBUTES)}


def sample_pair(rng: random.Random) -> Scene:
    """A scene with two things."""
    while True:
        scene = sample_scene(rng)
        if len(scene.things) == 2:
            return scene


def train_half_judge(seed: int = 0, pictures: int = 4000, epochs: int = 5, batch: int = 100) -> Judge:
    """A judge of halves trained from nothing; of its pictures every fifth shows one thing only."""
    rng = random.Random(f"judge of halves {seed}")
    scenes = [sample_single(rng, held_out=False) if i % 5 == 0 else sample_pair(rng) for i in range(pictures)]
    drawn = [np.asarray(draw_scene(scene, rng, SIZE)) for scene in tqdm(scenes, "drawing for the judge of halves")]
    torch.manual_seed(seed)
    judge = Judge(HALF_ATTRIBUTES, (SIZE, SIZE // 2))
    return fit(judge, halves(as_tensor(drawn)), truth_of_halves(scenes), rng, seed, epochs, batch)


def as_tensor(pictures: list[np.ndarray]) -> Tensor:
    """(height, width, 3) uint8 each -> (batch, 3, height, width) in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def fit(
    judge: Judge, images: Tensor, labels: dict[str, Tensor], rng: random.Random, seed: int, epochs: int, batch: int
) -> Judge:
    """Trains a judge on pictures and what they show."""

    def loss_of(chosen: Tensor, generator: torch.Generator) -> Tensor:
        scores = judge(spoiled(images[chosen], rng, (24, 32, 48), 0.05, generator))
        return torch.stack([F.cross_entropy(scores[name], labels[name][chosen]) for name in scores]).sum()

    return learned(judge, len(images), loss_of, seed, epochs, batch, 2e-3, "the judge")


def load_new_judge(path: Path) -> Judge:
    """The judge of new things in a file; it is trained now, and kept there, if there is none."""
    return load_judge(path, Judge(NEW_ATTRIBUTES), train_new_judge)


def load_half_judge(path: Path) -> Judge:
    """The judge of halves in a file; it is trained now, and kept there, if there is none."""
    return load_judge(path, Judge(HALF_ATTRIBUTES, (SIZE, SIZE // 2)), train_half_judge)


def load_film_judge(path: Path) -> Judge:
    """The judge of films in a file; it is trained now, and kept there, if there is none."""
    return load_judge(path, Judge(), train_film_judge)


def load_judge(path: Path, judge: Judge | None = None, train: Callable[[], Judge] = train_judge) -> Judge:
    """The judge in a file; it is trained now, and kept there, if there is none."""
    return kept(path, judge or Judge(), train)
