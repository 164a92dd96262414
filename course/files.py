"""Writes the learner's files, and never loses what was in them."""

import subprocess
from datetime import datetime
from pathlib import Path

from course.stages import ROOT, STAGES, Stage, exercises_folder, short_path
from course.stubs import stub_text


def stub(stage: Stage) -> str:
    """The text with which the learner's file of a stage begins."""
    return stub_text(stage.solution.read_text(encoding="utf-8"))


def write_stubs() -> list[Path]:
    """Writes all ten learner's files anew; returns the backups of those that were changed."""
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
    """Writes `text` to the learner's file. What was in it, if it is not to be had again, is kept under a dated name.

    Returns:
        The backup, or None if there was nothing to keep.
    """
    path, backup = stage.exercise, None
    old, new = _bytes(path), text.encode()
    if old not in (None, new, stub(stage).encode(), _bytes(stage.solution), _git_copy(path)):
        backup = _free_name(path)
        backup.write_bytes(old)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(new)
    return backup


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


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
    while (name := path.with_name(f"{path.stem}.{moment}{f'-{number}' if number > 1 else ''}.bak.py")).exists():
        number += 1
    return name
