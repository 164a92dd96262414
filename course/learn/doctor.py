"""`make doctor`: looks at everything that the course needs, and says what to do about what is missing.

It imports none of the large packages, so that it is quick and works where they are missing.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from course.core import setup
from course.core.assemble import StageError, stage_to_do
from course.core.options import NoOptions
from course.core.screen import fancy, sentence
from course.core.stages import ROOT, STAGES, exercises_folder, short_path

GIB = 2**30
SMALLEST_ROOM = 2**20  # bytes, for what is written into the learner's folder
Finding = tuple[bool, str, str]  # whether it is well, what was looked at, and what to do about it
SET_UP = "`make test` sets up .venv; with NO_VENV=1: python3 -m pip install -r requirements.lock"


def doctor(options: NoOptions) -> int:
    """Prints a line per thing, and what to do below those that are not well. Exit code 1 if there is one."""
    sick = 0
    for look in (python, packages, device, memory, disk, checkpoint, git, learners_files):
        try:
            findings = list(look())
        except OSError as error:  # an unreadable file, a disk that is gone
            findings = [(False, f"{look.__name__}: {sentence(error)}", "")]
        for well, what, remedy in findings:
            sick += not well
            print(f"{mark(well)}  {what}")
            if remedy:
                print(f"      {remedy}")
    print("All is well." if not sick else f"{sick} to look at.")
    return int(bool(sick))


def mark(well: bool) -> str:
    text = "ok  " if well else "look"
    return f"\033[{'32' if well else '31'}m{text}\033[0m" if fancy() else text


def python() -> Iterator[Finding]:
    recent = sys.version_info >= (3, 11)
    what = f"Python {platform.python_version()}, {sys.executable}"
    yield recent, what, "" if recent else "Python 3.11 or newer is needed: make doctor PYTHON=python3.12, for example."


def packages() -> Iterator[Finding]:
    wanted = setup.pins()
    installed = {name: version_of(name) for name in wanted}
    missing = [name for name, version in installed.items() if version is None]
    other = [
        f"{name} {version} (pinned: {wanted[name]})"
        for name, version in installed.items()
        if version is not None and version.split("+")[0] != wanted[name]
    ]
    right = len(wanted) - len(missing) - len(other)
    yield not missing and not other, f"{right} of {len(wanted)} packages as in requirements.lock", ""
    if missing:
        yield False, f"missing: {shortened(missing)}", SET_UP
    if other:
        yield False, f"other versions: {shortened(other)}", "They may do; if tests fail: rm -r .venv, then make test."


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def shortened(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def device() -> Iterator[Finding]:
    """What the tests and pictures run on. torch is read about, not imported."""
    cores = f"{os.cpu_count()} processor cores"
    if sys.platform == "darwin" and platform.machine() == "arm64":
        yield True, f"device: {cores}, and Apple's GPU (mps) for pictures", ""
        return
    card = graphics_card()
    if not card:
        yield True, f"device: {cores}, no NVIDIA GPU (none is needed)", ""
    elif torch_has_cuda():
        yield True, f"device: {cores}, {card}", ""
    else:
        remedy = "For the GPU: rm -r .venv, then make generate without TORCH_INDEX."
        yield True, f"device: {cores}; {card} is there, but this torch is without CUDA", remedy


def graphics_card() -> str:
    """The name and memory of the first NVIDIA GPU, or "" if there is none."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return shown.stdout.splitlines()[0] if shown.returncode == 0 and shown.stdout else ""


def torch_has_cuda() -> bool:
    spec = importlib.util.find_spec("torch")
    path = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    text = path.read_text(encoding="utf-8") if path and path.exists() else ""
    return bool(re.search(r"^cuda\b.*=\s*['\"]\d", text, re.MULTILINE))


def memory() -> Iterator[Finding]:
    try:
        import psutil
    except ImportError:
        return
    free, total = psutil.virtual_memory().available / GIB, psutil.virtual_memory().total / GIB
    what = f"memory: {free:.1f} of {total:.1f} GiB free"
    yield free >= 2, what, "" if free >= 2 else "Tests and pictures need about 2 GiB: close something large."


def disk() -> Iterator[Finding]:
    free = shutil.disk_usage(ROOT).free / GIB
    needed = 0.5 if version_of("torch") else 8
    what = f"disk: {free:.1f} GiB free"
    yield free >= needed, what, "" if free >= needed else f"About {needed:g} GiB are needed: make some room."
    theirs = exercises_folder()
    if theirs.is_dir() and shutil.disk_usage(theirs).free < SMALLEST_ROOM:
        yield False, f"disk of {short_path(theirs)}: full", "What you write there is not kept: make some room."


def checkpoint() -> Iterator[Finding]:
    folder = ROOT / "checkpoints" / "tiny"
    sums = folder / "SHA256SUMS"
    remedy = f"git checkout -- {short_path(folder)} brings it back."
    if not sums.exists():
        yield False, f"{short_path(folder)}: no SHA256SUMS to compare with", remedy
        return
    expected = [
        line.split() for line in sums.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
    ]
    wrong = [f"{short_path(sums)} is not what it was"] if any(len(entry) != 2 for entry in expected) else []
    for digest, name in [] if wrong else expected:
        path = folder / name.removeprefix("*")
        if not path.is_file():
            wrong.append(f"{short_path(path)} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            wrong.append(f"{short_path(path)} is not what it was")
    for what in wrong:
        yield False, what, remedy
    if not wrong:
        yield True, f"{short_path(folder)}: {len(expected)} files, all with the right sha256", ""


def git() -> Iterator[Finding]:
    command = ["git", "status", "--porcelain", "--", str(exercises_folder())]
    try:
        shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        yield True, "git is not installed (nothing here needs it)", ""
        return
    if shown.returncode:
        yield True, "exercises/ is not in a git repository (nothing here needs it)", ""
        return
    states = [line[:2] for line in shown.stdout.splitlines()]
    conflicts = [line[3:] for line in shown.stdout.splitlines() if "U" in line[:2] or line[:2] in ("AA", "DD")]
    if conflicts:
        yield False, f"git: unfinished merge in {shortened(conflicts)}", "Settle it, then git add the files."
    else:
        changed = sum(state != "??" for state in states)
        what = "as in the last commit" if not changed else f"{changed} changed since the last commit"
        yield True, f"git: files in {short_path(exercises_folder())}: {what}", ""


def learners_files() -> Iterator[Finding]:
    broken = []
    for stage in STAGES:
        try:
            stage_to_do(stage)
        except StageError as error:
            broken.append(str(error))
    folder = exercises_folder()
    if not folder.is_dir():
        yield False, f"There is no folder {short_path(folder)}", "`make stubs` makes it."
        return
    if not os.access(folder, os.W_OK):
        yield False, f"{short_path(folder)} cannot be written to", "Nothing that you write there is kept."
    for text in broken:
        first, *rest = text.splitlines()
        yield False, first, "\n      ".join(rest)
    if not broken:
        yield True, f"{short_path(exercises_folder())}: all files can be read", ""
