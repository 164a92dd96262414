"""Counts suns and moons: a small network marks the pixels of one, and marked pixels that touch are one light.

It is trained on the illustrator's pictures. Which of their pixels are the light's is known exactly: those that differ
when the same picture is drawn without it. The network sees but a neighbourhood of each pixel, so it finds a second sun
although the illustrator never draws one.
"""

import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from course.scenes.scenes import Scene, draw_scene, sample_scene
from course.studio.judge import as_tensor
from course.studio.learning import kept, learned, spoiled

SIZE = 64  # pixels; larger pictures are made smaller
SMALLEST = 12  # pixels; a light in full view has about 60
IN_VIEW = ("day", "night")  # when the sun or moon stands high; at sunset mountains and houses may hide it


class LightFinder(nn.Sequential):
    """(batch, 3, 64, 64) in [-1, 1] -> for each pixel (batch, 64, 64), above zero if it belongs to a sun or moon."""

    def __init__(self, width: int = 24):
        layers: list[nn.Module] = []
        before = 3
        for reach in (1, 2, 4, 8):
            layers += [nn.Conv2d(before, width, 3, padding=reach, dilation=reach), nn.GroupNorm(4, width), nn.SiLU()]
            before = width
        last = nn.Conv2d(width, 1, 1)
        nn.init.constant_(last.bias, -4.0)  # pyrefly: ignore  # one pixel in fifty is a light's
        super().__init__(*layers, last, nn.Flatten(1, 2))

    @torch.no_grad()
    def count(self, images: Tensor) -> Tensor:
        """How many lights each picture has: (batch, 3, height, width) -> (batch,), int64."""
        return count_blobs(self(F.interpolate(images, (SIZE, SIZE), mode="area")) > 0, SMALLEST)


def count_blobs(mask: Tensor, smallest: int) -> Tensor:
    """How many groups of marked pixels each mask has, of at least `smallest` pixels: (batch, H, W) -> (batch,), int64.

    Pixels that touch, or have one pixel between them, are of one group. Every pixel begins with a number of its own and
    takes over the largest one near it, until nothing changes.
    """
    _, height, width = mask.shape
    numbers = (torch.arange(height * width).reshape(1, height, width) + 1.0) * mask
    while True:
        largest = F.max_pool2d(numbers, 5, stride=1, padding=2) * mask
        if torch.equal(largest, numbers):
            break
        numbers = largest
    sizes = [one[one > 0].unique(return_counts=True)[1] for one in numbers]
    return torch.tensor([int((size >= smallest).sum()) for size in sizes])


def draw_with_mask(scene: Scene, seed: str, light: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """A picture, (64, 64, 3) uint8, and which pixels are the sun's or moon's, (64, 64) bool: none if not `light`."""
    lit, dark = (np.asarray(draw_scene(scene, random.Random(seed), SIZE, one)) for one in (True, False))
    picture = lit if light else dark
    return picture, np.abs(picture.astype(int) - dark).max(axis=2) > 8


def train_light_finder(seed: int = 0, pictures: int = 800, epochs: int = 4, batch: int = 20) -> LightFinder:
    """A finder trained from nothing, on pictures of which every fourth has no light; a minute on a processor."""
    rng = random.Random(f"lights {seed}")
    drawn = [
        draw_with_mask(sample_scene(rng), f"lights {seed} {i}", light=i % 4 > 0)
        for i in tqdm(range(pictures), "drawing for the finder")
    ]
    images, masks = as_tensor([picture for picture, _ in drawn]), torch.tensor(np.stack([mask for _, mask in drawn]))
    torch.manual_seed(seed)
    finder = LightFinder()

    def loss_of(chosen: Tensor, generator: torch.Generator) -> Tensor:
        marks = finder(spoiled(images[chosen], rng, (32, 48), 0.03, generator))
        return F.binary_cross_entropy_with_logits(marks, masks[chosen].float())

    return learned(finder, pictures, loss_of, seed, epochs, batch, 1e-2, "the finder")


def load_light_finder(path: Path) -> LightFinder:
    """The finder in a file; it is trained now, and kept there, if there is none."""
    return kept(path, LightFinder(), train_light_finder)
