"""What a hidden mistake does to a picture: drawn with the right version and with the suspect, beside each other."""

import contextlib
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy import ndarray

from course.core.assemble import assemble
from course.core.messages import first_line
from course.core.stages import PIPELINE, Stage
from course.draw import checkpoint as ckpt
from course.draw.generate import draw_one
from course.draw.settings import SAMPLERS, Settings
from course.feedback.mistakes import Mistake, wrong_text
from course.studio.page import Page, difference, labelled_figure, write

SETTINGS = Settings(prompt="a red house in a green meadow by day", seed=2, steps=8, width=128, height=128, device="cpu")
GAIN = 4  # of the difference
OF_SAMPLERS = (8, 9)  # the stages in which a mistake may show with another sampler alone


def draw_both(stage: Stage, mistake: Mistake, path: Path) -> dict[str, Any]:
    """Draws both pictures and their difference into a PNG file.

    Returns:
        {"said": one sentence about what is seen}, or {"problem": one sentence} if the suspect draws nothing; then there
        is no file.
    """
    opened = ckpt.open_checkpoint()
    for sampler in SAMPLERS if stage.number in OF_SAMPLERS else SAMPLERS[:1]:
        settings = dataclasses.replace(SETTINGS, sampler=sampler, scale=opened.config.guidance_scale)
        right = drawn(opened, settings, {})
        try:
            suspect = drawn(opened, settings, {stage.number: wrong_text(stage.number, mistake)})
        except Exception as error:
            return {"problem": f"The suspect draws nothing: {type(error).__name__}: {first_line(error, 150)}."}
        if not numpy.array_equal(right, suspect):
            break
    changed = float((right != suspect).any(axis=-1).mean())
    far = float(numpy.abs(right.astype(float) - suspect).mean())
    said = f"{changed:.0%} of the pixels differ, by {far:.3g} of 255 levels on average."
    if not changed:
        said = "Not one pixel differs: this picture does not need what is wrong."
    cells = {"right": right, "suspect": suspect, f"difference x {GAIN}": difference(right, suspect, GAIN)}
    title = f"What does the mistake in stage {stage.number} do to a picture?"
    note = f"{settings.prompt}; seed {settings.seed}, {settings.sampler}, {settings.steps} steps; the small model"
    write(Page(title, said, labelled_figure(cells, columns=3)), [note], path)
    return {"said": said}


def drawn(opened: ckpt.Checkpoint, settings: Settings, overrides: dict[int, str]) -> ndarray:
    """The picture that the solutions draw, one stage perhaps with other text: (height, width, 3), uint8."""
    blocks = assemble({stage.number: stage.solution for stage in PIPELINE}, overrides, fused=True).load()
    with contextlib.redirect_stderr(io.StringIO()):  # the bar
        picture, _ = draw_one(blocks, ckpt.build(blocks, opened), settings, torch.device("cpu"), None, None, False)
    return numpy.asarray(picture)
