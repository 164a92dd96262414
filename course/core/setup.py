"""The virtual environment .venv: made when it is missing or out of date, and every command runs in it.

Standard library only. NO_VENV=1 takes the interpreter that runs, as it is; TORCH_INDEX and PIP_ARGS are for pip.
"""

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

from course.core.messages import Refusal
from course.core.stages import ROOT

VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
READY = VENV / ".installed"  # holds the hash of the lock file that was installed
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def wanted() -> bool:
    """Whether commands are to run in .venv, and this process does not."""
    return os.environ.get("NO_VENV", "0") in ("", "0") and Path(sys.prefix).resolve() != VENV.resolve()


def is_ready() -> bool:
    return READY.is_file() and READY.read_text(encoding="utf-8").strip() == fingerprint() and PYTHON.exists()


def fingerprint() -> str:
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


def pins() -> dict[str, str]:
    """What requirements.lock names: package -> version."""
    lines = (line.partition("#")[0].strip() for line in LOCK.read_text(encoding="utf-8").splitlines())
    return dict(line.split("==") for line in lines if line)


def set_up() -> None:
    """Makes .venv out of requirements.lock.

    torch comes first and alone: an index of its own may hold nothing else, and with torch there, nothing that is
    installed after it brings another one.

    Raises:
        Refusal: if that failed.
    """
    print(
        f"Setting up {VENV.name}, once: PyTorch and what the tests need "
        "(a download of 0.3 to 3 GB, depending on the system).",
        flush=True,
    )
    index = ["--index-url", os.environ["TORCH_INDEX"]] if os.environ.get("TORCH_INDEX") else []
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += shlex.split(os.environ.get("PIP_ARGS", ""))
    commands = [
        [sys.executable, "-m", "venv", str(VENV)],
        [*pip, *index, f"torch=={pins()['torch']}"],
        [*pip, "-r", str(LOCK)],
    ]
    for command in commands:
        if subprocess.run(command).returncode:
            raise Refusal(f"{VENV.name} could not be set up; the lines above say why. The same command tries again.")
    READY.write_text(fingerprint(), encoding="utf-8")


def run_inside(arguments: list[str]) -> int:
    """Runs this command again with the interpreter of .venv, in the place of this process where that is possible."""
    command = [str(PYTHON), "-m", "course", *arguments]
    sys.stdout.flush()
    if os.name != "nt":  # there the new process would not be waited for
        os.execv(command[0], command)
    return subprocess.run(command).returncode
