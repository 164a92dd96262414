"""The last test of every stage: `make generate` draws with it what it draws with the reference.

A checkpoint file is opened, filled into the blocks and made fast by the calls of course/draw/ that `make generate`
makes; then one and the same model draws two prompts at two sizes. The wanted pictures are drawn by the formulas of
solutions/ in float32, without torch's kernels, packed convolutions and channels last.
"""

import contextlib
import functools
import io
import traceback
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from course.core.assemble import Blocks, for_generating, with_version
from course.core.stages import short_path
from course.core.stubs import TO_DO
from course.draw import generate
from course.draw.checkpoint import DTYPES, build, open_checkpoint
from course.draw.settings import Settings
from course.feedback.compare import check

CPU = torch.device("cpu")
TWO = (
    {"prompt": "the dog on the road by the old tree " * 4, "width": 16, "height": 24, "seed": 1},  # 100 tokens
    {"prompt": "a red cat on a mat", "width": 24, "height": 16, "seed": 2},
)
TOLERANCES = {  # of whole grey levels; three to ten times what rounding makes
    "float32": 2e-3, "bfloat16": 3e-2, "float16": 1e-2,
}


@dataclass(frozen=True)
class Drawing:
    """What is drawn twice, with another prompt and at another size each.

    Attributes:
        settings: all others.
        film: whether the guesses of every step are drawn, too.
    """

    settings: Settings
    film: bool = False

    def __str__(self) -> str:
        given = [f.name for f in fields(Settings) if getattr(self.settings, f.name) != f.default]
        options = " ".join(f"{name.upper()}={getattr(self.settings, name)}" for name in given)
        return f"make generate {options.replace('True', '1').replace('False', '0')}{' FILM=1' if self.film else ''}"

    def orders(self, folder: Path) -> list[Settings]:
        """The settings of both pictures, with the checkpoint and the pictures of this folder."""
        files = {name: str(folder / file) for name in ("init", "mask") if (file := getattr(self.settings, name))}
        return [replace(self.settings, checkpoint=str(folder), device="cpu", **files, **more) for more in TWO]


DRAWINGS = {
    "text to image": Drawing(Settings(steps=2, scale=4.0, dtype="float32")),
    "into a mask": Drawing(
        Settings(
            steps=4, scale=0.0, sampler="dpm++2m", negative="ugly", strength=0.58, init="init.png", mask="mask.png",
            ema=False, dtype="bfloat16",
        ),
        film=True,
    ),
    "image to image": Drawing(
        Settings(steps=5, scale=1.0, sampler="euler", strength=0.2, init="init.png", dtype="float16")
    ),
    "with fresh noise": Drawing(Settings(steps=2, scale=3.0, sampler="ddpm", dtype="float32")),
}


def each_drawing(*names: str) -> pytest.MarkDecorator:
    """Some of DRAWINGS, or all, as parameters of a test."""
    return pytest.mark.parametrize("drawing", [pytest.param(DRAWINGS[name], id=name) for name in names or DRAWINGS])


def check_drawing(stage: ModuleType, drawing: Drawing, folder: Path) -> None:
    """Asserts that the two pictures are the reference's.

    Args:
        folder: with the files of small_model.write_checkpoint.
    """
    dtype = drawing.settings.dtype
    check(
        stage, lambda module: ours(module, drawing, folder), wanted(drawing, folder),
        f"{drawing}, twice with one model", tolerance=TOLERANCES[dtype],
        hint=f"`make generate` differs from the tests above: the parameters are {dtype} and need no gradients, the "
        "other stages use torch's kernels, and two prompts are drawn at two sizes.",
    )


def ours(module: ModuleType, drawing: Drawing, folder: Path) -> dict[str, Tensor]:
    """The pictures that this version of a stage draws, the reference standing in for all others."""
    blocks, orders = with_version(module).load(), drawing.orders(folder)
    dtype = DTYPES[drawing.settings.dtype]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            model = generate.build_model(blocks, open_checkpoint(folder), CPU, dtype, orders[0])
        return pictures(blocks, model, orders, drawing.film)
    except Exception as error:
        if isinstance(error, NotImplementedError) and TO_DO.match(str(error)):
            raise
        # A class of its own: another version that stops with the same words need not have the same mistake.
        stopped = type("Stopped", (AssertionError,), {})
        raise stopped(f"{drawing}, twice with one model, stops: {cause(error, module, blocks)}") from error


def cause(error: Exception, module: ModuleType, blocks: Blocks) -> str:
    """The error, and where it came to light if that is not in the file under test, whose lines are shown anyway."""
    text = f"{type(error).__name__}: {error}"
    name = module.__name__.rpartition(".")[2]
    frames = traceback.extract_tb(error.__traceback__)
    if any(frame.filename == getattr(blocks, name).__file__ for frame in frames):
        return text
    in_blocks = [frame for frame in frames if frame.filename in map(str, blocks.paths.values())]
    place = (in_blocks or frames)[-1]
    return (
        f"{text}\n  {short_path(place.filename)}:{place.lineno}, in {place.name}\n      {place.line}\n"
        "  No line of your file was running: something that it has made or handed over before does not work there."
    )


@functools.cache
def reference(folder: Path, ema: bool) -> tuple[Blocks, Any]:
    blocks = for_generating("solutions").load()
    return blocks, build(blocks, open_checkpoint(folder), CPU, torch.float32, ema)


def wanted(drawing: Drawing, folder: Path) -> dict[str, Tensor]:
    """The reference's pictures."""
    return pictures(*reference(folder, drawing.settings.ema), drawing.orders(folder), drawing.film)


def pictures(blocks: Blocks, model: Any, orders: list[Settings], film: bool) -> dict[str, Tensor]:
    """What one model draws, by name."""
    found = {}
    for which, order in zip(("first", "second"), orders):
        images, mask = generate.read_inputs(blocks, order, order.width, order.height)
        with contextlib.redirect_stderr(io.StringIO()):  # the progress bar
            picture, frames = generate.draw_one(blocks, model, order, CPU, images, mask, film)
        names = [f"the {which} picture", *(f"frame {i} of the {which} film" for i in range(len(frames)))]
        found |= {name: torch.from_numpy(numpy.array(each)).float() for name, each in zip(names, (picture, *frames))}
    return found
