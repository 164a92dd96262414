"""`make show`: pictures of what a stage does, made with the learner's block where that stage is finished."""

import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from course.core.assemble import Blocks, for_generating
from course.core.messages import Refusal
from course.core.options import OneStage, like, option
from course.core.stages import ENCORE, ROOT, Stage, short_path
from course.core.threads import waiting
from course.core.writing import check_writable
from course.draw.blame import explain
from course.draw.settings import Settings


@dataclass
class ShowOptions(OneStage):
    all: bool = option(False, "also the pictures that take longer")
    out: Path | None = option(
        None, "PNG file for the first picture (default: outputs/show-NN-name.png); others beside it"
    )
    blocks: str = like(Settings, "blocks", "auto")
    checkpoint: str | None = like(Settings, "checkpoint", None)
    tokenizer: str | None = like(Settings, "tokenizer", None)
    steps: int = option(20, "how many steps a generated picture takes", least=2, most=500)
    device: str = like(Settings, "device", "cpu")


def show(options: ShowOptions) -> int:
    """Runs the command; returns its exit code: 0 done, 1 the blocks failed. A Refusal is the caller's."""
    stage = options.chosen()
    if options.out is not None and options.out.suffix.lower() != ".png":
        raise Refusal(f"OUT={options.out} does not end in .png.")
    os.environ.update(waiting())
    blocks = None
    try:
        encore = [other.number for other in ENCORE if other.number <= stage.number]
        blocks = for_generating(options.blocks, fused=True, encore=encore)
        draw(blocks, stage, options)
        return 0
    except (Exception, SystemExit, GeneratorExit) as error:
        return explain(error, blocks)


def draw(blocks: Blocks, stage: Stage, options: ShowOptions) -> None:
    """Draws a stage's pictures and names each of them on the screen."""
    from course.draw.checkpoint import TINY
    from course.show.questions import QUESTIONS
    from course.studio.page import write
    from course.studio.question import ask, verdict
    from course.studio.studio import Studio

    first = options.out or ROOT / "outputs" / f"show-{stage.number:02d}-{stage.name}.png"
    check_writable(first)  # before anything is asked or drawn
    studio = Studio(blocks, options.checkpoint or TINY, options.tokenizer, options.device, options.steps)
    print(*studio.notes(stage), flush=True)
    blocks.load()
    module = importlib.import_module(f"course.show.{stage.module}")
    told = ""
    if stage.number in QUESTIONS:
        question, answer = QUESTIONS[stage.number]
        told = "\n" + verdict(question, ask(question), answer)
    for picture in module.PICTURES + (module.MORE if options.all else ()):
        started = time.perf_counter()
        path = first if picture is module.PICTURES[0] else first.with_name(f"{first.stem}-{slug(picture)}.png")
        try:
            page = picture(studio)
        except Refusal as missing:  # a file that does not come with every checkpoint
            print(f"No picture {slug(picture)}: {missing}", flush=True)
            continue
        if picture is module.PICTURES[0]:
            page.caption += told
        write(page, studio.notes(stage), path)
        print(f"{short_path(path)}  {page.title}  {time.perf_counter() - started:.1f} s", flush=True)
    print(told.strip())
    for note in studio.notes(stage)[1:]:
        print(f"Note: {note}")
    if module.MORE and not options.all:
        print(f"ALL=1 draws {len(module.MORE)} more: {', '.join(map(slug, module.MORE))}.")


def slug(picture: Callable) -> str:
    return picture.__name__.replace("_", "-")
