"""What experiments share: scenes with prompts, the judge's verdict on pictures, and latents of training pictures."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from course.core.stages import STAGES
from course.draw.checkpoint import TINY
from course.scenes.captions import plain_prompt
from course.scenes.examples import draw_example
from course.scenes.scenes import Scene, draw_scene
from course.studio.judge import ATTRIBUTES, Judge, as_tensor, load_judge, sample_single, truth
from course.studio.studio import Studio

AT_ONCE = 16  # pictures that are decoded or encoded together
NAMES = {"time": "time of day", "ground": "ground", "colour": "colour", "object": "thing"}  # of the judge's attributes


@dataclass
class Result:
    """What an experiment found.

    Attributes:
        figure: what is to be seen.
        text: two or three sentences; each number in them was computed in this run.
        answer: which choice of the experiment's question turned out to be right.
        film: pictures that make a film, for an experiment that has one.
    """

    figure: Figure
    text: str
    answer: int
    film: list[Image.Image] | None = None


@dataclass
class Lab(Studio):
    """A studio that also counts what pictures show.

    Attributes:
        short: whether an experiment makes do with as little as possible. Its figures then mean nothing.
    """

    short: bool = False

    def pick(self, usual: Any, short: Any) -> Any:
        """The usual amount of something, or the smallest."""
        return short if self.short else usual

    @cached_property
    def judge(self) -> Judge:
        """Reads thing, colour, ground and time of day off a picture."""
        return load_judge(TINY.with_name("judge.safetensors"))

    def scenes_to_draw(self, count: int, seed: int = 0) -> list[Scene]:
        """Random scenes with one thing, of combinations that the small model was trained on."""
        rng = random.Random(f"experiment {seed}")
        return [sample_single(rng, held_out=False) for _ in range(count)]

    def different_pairs(self, count: int) -> list[tuple[Scene, Scene]]:
        """Pairs of scenes that have no attribute in common."""
        scenes = self.scenes_to_draw(40 * count + 40)
        pairs = [
            (first, second)
            for first, second in zip(scenes[0::2], scenes[1::2])
            if not any(bool(a == b) for a, b in zip(truth([first]).values(), truth([second]).values()))
        ]
        return pairs[:count]

    def illustrated(self, scenes: Sequence[Scene]) -> Tensor:
        """The illustrator's pictures of scenes: (batch, 3, height, width) in [-1, 1]."""
        size = self.opened.config.image_size
        return as_tensor([numpy.asarray(draw_scene(scene, random.Random(i), size)) for i, scene in enumerate(scenes)])

    def prompts(self, scenes: Sequence[Scene]) -> list[str]:
        return [plain_prompt(scene) for scene in scenes]

    def read(self, images: Tensor) -> dict[str, Tensor]:
        """What the judge sees in pictures in [-1, 1]: for each attribute (batch,) indices into ATTRIBUTES."""
        images = torch.nan_to_num(images.float().cpu()).clamp(-1, 1)
        parts = [self.judge.read(some) for some in images.split(AT_ONCE)]
        return {name: torch.cat([part[name] for part in parts]) for name in ATTRIBUTES}

    def hits(self, images: Tensor, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        """Which pictures show what their scenes say: for each attribute and for "all four" (batch,) of 0.0 or 1.0."""
        read, wanted = self.read(images), truth(list(scenes))
        hits = {name: (read[name] == wanted[name]).float() for name in ATTRIBUTES}
        return hits | {"all four": torch.stack(list(hits.values())).amin(0)}

    def right(self, images: Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
        """The share of pictures that show what their scenes say."""
        return {name: float(some.mean()) for name, some in self.hits(images, scenes).items()}

    def decoded(self, latents: Tensor) -> Tensor:
        """Latents to pictures in about [-1, 1], a few at a time: (batch, 3, height, width) on the processor."""
        return torch.cat([self.model.vae.decode(some).float().cpu() for some in latents.split(AT_ONCE)])

    def encoded(self, images: Tensor) -> Tensor:
        """Pictures to the means of their latents, a few at a time."""
        return torch.cat([self.model.vae.encode(some.to(self.torch_device)) for some in images.split(AT_ONCE)])

    def examples(self, first: int, count: int) -> tuple[Tensor, list[str]]:
        """Pictures of the kind that the small model was trained on, in [-1, 1], and a caption of each."""
        drawn = [draw_example(0, first + i, self.opened.config.image_size) for i in range(count)]
        return as_tensor([image for image, _ in drawn]), [captions[0] for _, captions in drawn]

    @property
    def whose(self) -> str:
        """Whose blocks a result was made with, in one sentence."""
        loaded = [stage for stage in STAGES if stage.number in self.blocks.origin]
        yours = [stage for stage in loaded if self.blocks.origin[stage.number] == "exercises"]
        if len(yours) == len(loaded):
            return "All blocks are yours."
        if not yours:
            return "All blocks are the reference."
        names = ", ".join(f"{stage.number} {stage.name}" for stage in yours)
        return f"Yours: {names}. All other blocks are the reference."
