"""`make experiment`: questions about the model, each answered by a measurement and a picture of it.

An experiment is a module of this room: its docstring explains, TITLE is the question that it answers, QUESTION is what
is asked before it draws, and `run` takes the lab and returns a Result.
"""

import importlib
import os
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from course.core.assemble import for_generating
from course.core.messages import Refusal
from course.core.options import Options, like, option
from course.core.stages import ENCORE, ROOT, short_path
from course.core.writing import check_writable
from course.draw.blame import explain
from course.draw.settings import Settings

# In the order of the stages that they are about.
EXPERIMENTS = {
    "groups": 1,
    "preactivation": 2,
    "attention": 3,
    "vae": 5,
    "tokens": 6,
    "blocks": 7,
    "betas": 8,
    "jump": 8,
    "steps": 8,
    "change": 8,
    "decided": 9,
    "guidance": 9,
    "negative": 9,
    "strength": 9,
    "latents": 9,
    "ema": 10,
    "motion": 13,
}


@dataclass
class ExperimentOptions(Options):
    name: str | None = option(None, "which one (default: list them); all: every one, into docs/gallery.md")
    gallery: bool = option(False, "into docs/gallery.md instead of outputs/")
    train: bool = option(False, "NAME=blocks: also train its small U-Nets again, for some minutes")
    out: Path | None = option(None, "folder for the pictures (default: outputs/)")
    blocks: str = like(Settings, "blocks", "auto")
    checkpoint: str | None = like(Settings, "checkpoint", None)
    tokenizer: str | None = like(Settings, "tokenizer", None)
    device: str = like(Settings, "device", "cpu")
    short: bool = option(False, "as little computing as possible: the figures then mean nothing", hidden=True)


def experiment(options: ExperimentOptions) -> int:
    """Runs the command; returns its exit code: 0 done, 1 the blocks failed. A Refusal is the caller's."""
    if options.name is None:
        print(listing())
        return 0
    if options.name not in (*EXPERIMENTS, "all"):
        raise Refusal(f"There is no experiment {options.name!r}: choose {', '.join(EXPERIMENTS)} or all.")
    if options.train and options.name != "blocks":
        raise Refusal("TRAIN=1 belongs to NAME=blocks: no other experiment trains again what ships.")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    blocks = None
    try:
        names = EXPERIMENTS if options.name == "all" else [options.name]
        encore = [stage.number for stage in ENCORE if stage.number in {EXPERIMENTS[name] for name in names}]
        blocks = for_generating(options.blocks, fused=True, encore=encore).load()
        carry_out(blocks, options)
        return 0
    except (Exception, SystemExit, GeneratorExit) as error:
        return explain(error, blocks)


def listing() -> str:
    """All experiments with their questions."""
    lines = ["make experiment NAME=...", ""]
    lines += [f"  {name:<15}{module(name).TITLE}  (stage {stage})" for name, stage in EXPERIMENTS.items()]
    return "\n".join([*lines, "", "NAME=all runs all of them, which takes up to an hour, and writes docs/gallery.md."])


def module(name: str) -> ModuleType:
    return importlib.import_module(f"course.experiments.{name}")


def carry_out(blocks: Any, options: ExperimentOptions) -> None:
    """Runs one experiment or all of them, and says what came out."""
    from course.draw.checkpoint import TINY
    from course.experiments import gallery
    from course.experiments.lab import Lab
    from course.studio.question import ask

    everything = options.name == "all"
    folder = options.out or (gallery.FOLDER if everything or options.gallery else ROOT / "outputs")
    check_writable(folder / "picture.png")  # before minutes of computing
    lab = Lab(blocks, options.checkpoint or TINY, options.tokenizer, options.device, short=options.short)
    if options.train:
        from course.experiments import small_unets

        small_unets.train(lab)
    for name in EXPERIMENTS if everything else [str(options.name)]:
        found = module(name)
        guess = None if everything else ask(found.QUESTION)
        print(f"{name}: {found.TITLE}", flush=True)
        started = time.perf_counter()
        try:
            result = found.run(lab)
        except Refusal as missing:  # a file that does not come with every checkpoint
            if not everything:
                raise
            print(f"{missing}\n", flush=True)
            continue
        if everything or options.gallery:
            path = gallery.write_entry(lab, name, found, result, folder)
        else:
            path = gallery.write_page(lab, name, found, result, guess, folder)
        for line in gallery.words(found, result, guess).splitlines():
            print(textwrap.fill(line, 110))
        print(f"{short_path(path)}  {time.perf_counter() - started:.0f} s\n", flush=True)
    if everything or options.gallery:
        print(short_path(gallery.write_text(folder)))
