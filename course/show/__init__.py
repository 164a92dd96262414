"""`make show`: pictures of what a stage does, made with the learner's block where that stage is finished."""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from course.core.stages import ROOT, Stage, find_stage, short_path


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code: 0 done, 1 the blocks failed, 2 refused."""
    options = parse(arguments)
    from course.core.assemble import StageError, for_generating
    from course.draw.generate import explain

    try:
        stage, everything, out = checked(options)
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        blocks = for_generating(options.blocks, fused=True)
    except StageError as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        show(blocks, stage, everything, out, options)
        return 0
    except StageError as error:
        print(error, file=sys.stderr)
        return 1
    except (Exception, SystemExit, GeneratorExit) as error:
        return explain(error, blocks)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Flags, each with the make variable of the same name as its default."""
    parser = argparse.ArgumentParser(prog="python -m course show", description="Draws what a stage does.")

    def option(name: str, default: str | None, text: str, **others) -> None:
        parser.add_argument(f"--{name}", default=os.environ.get(name.upper()) or default, help=text, **others)

    option("stage", None, "number or name of the stage")
    option("all", "", "also the pictures that take longer", nargs="?", const="1")
    option("out", None, "PNG file for the first picture (default: outputs/show-NN-name.png); the others lie beside it")
    option("blocks", "auto", "auto: your finished stages, exercises: only yours, solutions: only the reference")
    option("checkpoint", None, "SD 1.x file (default: the small one that comes with the course)")
    option("tokenizer", None, "folder with vocab.json and merges.txt (default: beside the checkpoint)")
    option("steps", "20", "how many steps a generated picture takes (default 20)")
    option("device", "cpu", "cpu, cuda or mps")
    return parser.parse_args(arguments)


def checked(options: argparse.Namespace) -> tuple[Stage, bool, Path | None]:
    """The stage, whether all of its pictures are wanted, and where the first one goes; converts the number of steps.

    Raises:
        ValueError: in one sentence, for options that make no sense.
    """
    from course.draw.generate import on_or_off

    if not options.stage:
        raise ValueError("Which stage? Say for example STAGE=3 (python -m course: show --stage 3).")
    out = Path(options.out) if options.out else None
    if out is not None and out.suffix.lower() != ".png":
        raise ValueError(f"OUT={out} does not end in .png.")
    if not options.steps.isdecimal() or not 2 <= int(options.steps) <= 500:
        raise ValueError(f"STEPS={options.steps} is not possible: choose 2 to 500.")
    options.steps = int(options.steps)
    return find_stage(options.stage), on_or_off("all", options.all), out


def show(blocks, stage: Stage, everything: bool, out: Path | None, options: argparse.Namespace) -> None:
    """Draws a stage's pictures and names each of them on the screen."""
    from course.draw.checkpoint import TINY
    from course.show.page import write
    from course.show.studio import Studio

    studio = Studio(blocks, options.checkpoint or TINY, options.tokenizer, options.device, options.steps)
    print(*studio.notes(stage), flush=True)
    blocks.load()
    module = importlib.import_module(f"course.show.{stage.module}")
    first = out or ROOT / "outputs" / f"show-{stage.number:02d}-{stage.name}.png"
    for draw in module.PICTURES + (module.MORE if everything else ()):
        started = time.perf_counter()
        path = first if draw is module.PICTURES[0] else first.with_name(f"{first.stem}-{slug(draw)}.png")
        page = draw(studio)
        write(page, studio.notes(stage), path)
        print(f"{short_path(path)}  {page.title}  {time.perf_counter() - started:.1f} s", flush=True)
    for note in studio.notes(stage)[1:]:
        print(f"Note: {note}")
    if module.MORE and not everything:
        print(f"ALL=1 draws {len(module.MORE)} more: {', '.join(map(slug, module.MORE))}.")


def slug(draw: Callable) -> str:
    return draw.__name__.replace("_", "-")
