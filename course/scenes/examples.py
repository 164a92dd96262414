"""Training examples: a random scene's picture with its captions."""

import random

import numpy as np

from course.scenes.captions import caption
from course.scenes.scenes import draw_scene, sample_scene

CAPTIONS_EACH = 4


def draw_example(seed: int, index: int, size: int) -> tuple[np.ndarray, list[str]]:
    """Draws picture number `index`: ((size, size, 3) uint8, captions). The same arguments give the same example."""
    rng = random.Random(f"{seed} {index}")
    scene = sample_scene(rng)
    captions = [caption(scene, rng) for _ in range(CAPTIONS_EACH)]
    return np.asarray(draw_scene(scene, rng, size)), captions
