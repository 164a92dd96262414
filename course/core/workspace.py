"""Writes the learner's files, and never loses what was in them."""

import difflib
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from course.core.options import OneStage, Options, option
from course.core.screen import fancy
from course.core.stages import ROOT, STAGES, Stage, short_path
from course.core.stubs import stub_text
from course.core.writing import whole_file

DIFF_COLOURS = {"-": "31", "+": "32", "@": "36"}


def stub(stage: Stage) -> str:
    """The text with which the learner's file of a stage begins."""
    return stub_text(stage.solution.read_text(encoding="utf-8"))


def write_stubs() -> list[Path]:
    """Writes all learner's files anew; returns the backups of those that were changed."""
    return [backup for stage in STAGES if (backup := replace(stage, stub(stage)))]


def stale_stubs() -> list[str]:
    """The learner's files that are not what the solutions say they should be.

    A file is in step if it, or git's copy of it, equals the generated one: so work in progress is no fault.
    """
    return [
        short_path(stage.exercise)
        for stage in STAGES
        if stub(stage).encode() not in (_bytes(stage.exercise), _git_copy(stage.exercise))
    ]


def replace(stage: Stage, text: str) -> Path | None:
    """Writes `text` to the learner's file. What was there, if it is not to be had again, is kept under a dated name.

    Returns:
        The backup, or None if there was nothing to keep.
    """
    path, backup = stage.exercise, None
    old, new = _bytes(path), text.encode()
    if old is None:
        if os.path.lexists(path):  # a folder, a pipe, a link that leads nowhere
            backup = path.rename(_free_name(path))
    elif old not in (new, stub(stage).encode(), _bytes(stage.solution), _git_copy(path)):
        backup = _free_name(path)
        with whole_file(backup) as temporary:
            temporary.write_bytes(old)
    with whole_file(path) as temporary:
        temporary.write_bytes(new)
    return backup


def solution_beside(stage: Stage, coloured: bool = False) -> str:
    """The solution's text, and how the learner's file would have to change to become it."""
    solution = stage.solution.read_text(encoding="utf-8")
    theirs, ours = short_path(stage.exercise), short_path(stage.solution)
    own = (_bytes(stage.exercise) or b"").decode("utf-8", errors="replace")
    changes = list(difflib.unified_diff(own.splitlines(), solution.splitlines(), theirs, ours, lineterm=""))
    if coloured:
        changes = [
            f"\033[{DIFF_COLOURS[line[0]]}m{line}\033[0m" if line[0] in DIFF_COLOURS else line for line in changes
        ]
    between = [f"From {theirs} to {ours}:", ""] if changes else [f"{theirs} is the same."]
    advice = ["", f"Nothing was changed. To take it over: make solution STAGE={stage.number} COPY=1"] if changes else []
    return "\n".join([f"{ours}:", "", solution, *between, *changes, *advice])


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _git_copy(path: Path) -> bytes | None:
    """A file as git last staged it, or None if git does not have it."""
    try:
        name = path.relative_to(ROOT).as_posix()
        return subprocess.run(["git", "show", f":{name}"], cwd=ROOT, capture_output=True, check=True).stdout
    except (ValueError, OSError, subprocess.CalledProcessError):
        return None


def _free_name(path: Path) -> Path:
    """A dated name that is still free, in the same folder."""
    moment = f"{datetime.now():%Y%m%d-%H%M%S}"
    number = 1
    while os.path.lexists(name := path.with_name(f"{path.stem}.{moment}{f'-{number}' if number > 1 else ''}.bak.py")):
        number += 1
    return name


# --- commands --------------------------------------------------------------------------------------------------------


@dataclass
class SolutionOptions(OneStage):
    copy: bool = option(False, "put it in place of your file, which is backed up")


@dataclass
class StubsOptions(Options):
    check: bool = option(False, "only say which files are not up to date")


def solution(options: SolutionOptions) -> int:
    """`make solution`."""
    stage = options.chosen()
    if options.copy:
        return put(stage, stage.solution.read_text(encoding="utf-8"), "is now the solution")
    print(solution_beside(stage, fancy()))
    return 0


def reset(options: OneStage) -> int:
    """`make reset`."""
    stage = options.chosen()
    return put(stage, stub(stage), "is now the stub again")


def stubs(options: StubsOptions) -> int:
    """`make stubs`."""
    if not options.check:
        tell_backups(write_stubs())
        return 0
    stale = stale_stubs()
    if stale:
        print(f"Not what solutions/ says: {', '.join(stale)}. `make stubs` writes them anew.", file=sys.stderr)
    return int(bool(stale))


def put(stage: Stage, text: str, what: str) -> int:
    backup = replace(stage, text)
    print(f"{short_path(stage.exercise)} {what}.")
    tell_backups([backup] if backup else [])
    return 0


def tell_backups(backups: list[Path]) -> None:
    for backup in backups:
        print(f"Your version is kept as {short_path(backup)}.")
