"""Finds the thing of a picture: a small network marks its pixels and says to which side it faces.

It is trained on the illustrator's pictures. How much of a pixel the thing covers is known exactly: a thing that is
drawn alone, once on black and once on white, has the same colour in both. Which side a car, a boat or a fish faces is
the side to which the illustrator moves it. The network has seen no picture of the diffusion model; a part of what it
sees is blurred, as a VAE's pictures are.
"""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from course.scenes.motion import WITH_FRONT
from course.scenes.scenes import OBJECTS, Scene, Thing, draw_matte, draw_scene
from course.studio.judge import as_tensor, sample_single
from course.studio.learning import kept, learned, spoiled

SIZE = 64  # pixels; larger pictures are made smaller
SIDE = SIZE // 2  # of a mask
AROUND = 2  # places around a thing that are not counted as background: its edge


class ThingFinder(nn.Module):
    """(batch, 3, 64, 64) in [-1, 1] -> (batch, 2, 32, 32): two numbers for each place.

    The first is above zero if the place is the thing's, the second if that thing faces right.
    """

    def __init__(self, widths: tuple[int, ...] = (24, 32, 48, 64)):
        super().__init__()

        def layer(before: int, after: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(8, after), nn.SiLU())

        self.first = nn.Sequential(layer(3, widths[0], stride=2), layer(widths[0], widths[0]))
        self.down = nn.ModuleList(nn.Sequential(layer(a, b, stride=2), layer(b, b)) for a, b in zip(widths, widths[1:]))
        self.up = nn.ModuleList(layer(a + b, a) for a, b in zip(widths, widths[1:]))
        self.last = nn.Conv2d(widths[0], 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        seen = [self.first(images)]
        for down in self.down:
            seen.append(down(seen[-1]))
        x = seen.pop()
        for up in reversed(self.up):
            x = up(torch.cat([F.interpolate(x, scale_factor=2.0), seen.pop()], dim=1))
        return self.last(x)

    @torch.no_grad()
    def find(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            images: (batch, 3, height, width) in [-1, 1].

        Returns:
            masks: (batch, 32, 32), from 0 to 1, how much of each place is the thing's.
            centres: (batch, 2), see `centres`.
            facing: (batch,), from -1, left, to 1, right.
        """
        marks = torch.cat([self(F.interpolate(some, (SIZE, SIZE), mode="area")) for some in images.split(64)])
        masks = marks[:, 0].sigmoid()
        sure = inside(masks)
        right = (sure * marks[:, 1].tanh()).sum(dim=(1, 2)) / sure.sum(dim=(1, 2)).clamp(min=1e-6)
        return masks, centres(masks), right


def inside(masks: Tensor) -> Tensor:
    """What is more than half the thing's, from 0 at one half to 1: so faint marks all over the picture do not count."""
    return (2.0 * masks - 1.0).clamp(min=0.0)


def centres(masks: Tensor) -> Tensor:
    """The mean place of what is inside: (batch, side, side) -> (batch, 2), from 0 to 1: across, and from the top down.

    The middle of the picture where nothing is.
    """
    weights = inside(masks) + 1e-9
    places = (torch.arange(masks.shape[-1]) + 0.5) / masks.shape[-1]
    across, down = ((weights.sum(dim=dim) * places).sum(dim=1) / weights.sum(dim=(1, 2)) for dim in (1, 2))
    return torch.stack([across, down], dim=1)


def way(scene: Scene, seed: int | str, frames: int, size: int = SIZE) -> Tensor:
    """The centre of the thing in each picture of the illustrator's film (draw_clip): (frames, 2), from 0 to 1."""
    mattes = [draw_matte(scene, seed, size, i / (frames - 1)) for i in range(frames)]
    return centres(torch.from_numpy(np.stack(mattes)))


def side_of(scene: Scene, seed: int | str) -> int:
    """To which side the thing of this picture faces: 1 right, -1 left, 0 it has no front."""
    if scene.things[0].object not in WITH_FRONT:
        return 0
    first, last = way(scene, seed, frames=2)[:, 0].tolist()
    return 1 if last > first else -1


def along(path: Tensor, wanted: Tensor) -> tuple[float, float]:
    """How far a way goes along another one, as a share of it, and what else it does: twice (frames, 2) -> two numbers.

    With both ways around their means:

        share = <path, wanted> / <wanted, wanted>            rest = |path - share * wanted| / |wanted|
    """
    path, wanted = path - path.mean(dim=0), wanted - wanted.mean(dim=0)
    share = (path * wanted).sum() / wanted.square().sum()
    return float(share), float((path - share * wanted).norm() / wanted.norm())


def background_change(film: Tensor, masks: Tensor) -> float:
    """How much the pixels around the thing change from frame to frame: the mean of |difference|, of a range of 2."""
    thing = F.max_pool2d((masks > 0.5).float()[:, None], 2 * AROUND + 1, stride=1, padding=AROUND)
    thing = F.interpolate(thing, film.shape[2:])
    around = 1.0 - torch.maximum(thing[1:], thing[:-1])
    return float((film.diff(dim=0).abs().mean(dim=1, keepdim=True) * around).sum() / around.sum().clamp(min=1.0))


def train_thing_finder(seed: int = 0, pictures: int = 4800, epochs: int = 8, batch: int = 32) -> ThingFinder:
    """A finder trained from nothing, on pictures of films, half of which show a thing with a front; a few minutes."""
    rng = random.Random(f"things {seed}")
    drawn, mattes, sides = [], [], []
    for i in tqdm(range(pictures), desc="drawing for the finder"):
        scene, details, moment = sample_single(rng, held_out=False), f"things {seed} {i}", rng.random()
        name = rng.choice(WITH_FRONT if i % 2 == 0 else OBJECTS)
        scene = replace(scene, things=(Thing(name, scene.things[0].colour),), size="medium")
        drawn.append(np.asarray(draw_scene(scene, random.Random(details), SIZE, moment=moment)))
        mattes.append(draw_matte(scene, details, SIDE, moment))
        sides.append(side_of(scene, details))
    images, masks, facing = as_tensor(drawn), torch.from_numpy(np.stack(mattes)), torch.tensor(sides)
    torch.manual_seed(seed)
    finder = ThingFinder()

    def loss_of(chosen: Tensor, generator: torch.Generator) -> Tensor:
        some, wanted, side = images[chosen], masks[chosen], facing[chosen]
        if rng.random() < 0.5:
            some, wanted, side = some.flip(3), wanted.flip(2), -side
        marks = finder(spoiled(some, rng, (32, 48), 0.03, generator))
        with_front = wanted * side.abs()[:, None, None]
        right = (side > 0).float()[:, None, None].expand_as(wanted)
        errors = F.binary_cross_entropy_with_logits(marks[:, 1], right, weight=with_front, reduction="sum")
        loss = F.binary_cross_entropy_with_logits(marks[:, 0], wanted)
        return loss + 0.3 * errors / with_front.sum().clamp(min=1.0)

    return learned(finder, pictures, loss_of, seed, epochs, batch, 4e-3, "the finder")


def load_thing_finder(path: Path) -> ThingFinder:
    """The finder in a file; it is trained now, and kept there, if there is none."""
    return kept(path, ThingFinder(), train_thing_finder)
