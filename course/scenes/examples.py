"""Training examples: a random scene's picture, or film, with its captions."""

import random
from dataclasses import replace

import numpy as np

from course.scenes.captions import caption
from course.scenes.motion import WITH_FRONT
from course.scenes.scenes import draw_clip, draw_scene, sample_scene

CAPTIONS_EACH = 4


def draw_example(seed: int, index: int, size: int) -> tuple[np.ndarray, list[str]]:
    """Draws picture number `index`: ((size, size, 3) uint8, captions). The same arguments give the same example."""
    rng = random.Random(f"{seed} {index}")
    scene = sample_scene(rng)
    captions = [caption(scene, rng) for _ in range(CAPTIONS_EACH)]
    return np.asarray(draw_scene(scene, rng, size)), captions


def draw_film(seed: int, index: int, size: int, frames: int) -> tuple[np.ndarray, list[str]]:
    """Draws film number `index`: ((frames, size, size, 3) uint8, captions). One thing, so large that it can move.

    Two films in five show a thing with a front: that it goes where its front is takes the longest to learn.
    """
    rng = random.Random(f"film {seed} {index}")
    with_front = rng.random() < 0.4
    while len((scene := sample_scene(rng)).things) > 1 or (scene.things[0].object in WITH_FRONT) != with_front:
        pass
    scene = replace(scene, size="medium", position="centre")
    captions = [caption(scene, rng) for _ in range(CAPTIONS_EACH)]
    return np.stack([np.asarray(frame) for frame in draw_clip(scene, f"{seed} {index}", frames, size)]), captions
