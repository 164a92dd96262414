"""`make check`: the repo's own tests, against solutions/."""

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass

from course.core import workspace
from course.core.options import Options, option
from course.core.stages import ROOT


@dataclass
class CheckOptions(Options):
    slow: bool = option(False, "also the slow ones")


# A file's tests run in one process, one after the other: they share models that take long to build. The files are
# handed out in the order of tests/conftest.py, not by how many tests they have.
PARALLEL = ("-n", "logical", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder")
STATIC = {
    "style": ("ruff", "check", "--quiet"),
    "format": ("ruff", "format", "--check", "--quiet"),
    "types": ("pyrefly", "check", "--summary=none", f"--python-interpreter-path={sys.executable}"),
    "rooms": ("lint-imports", "--no-logo"),
}


def check(options: CheckOptions) -> int:
    """Exit code 0 if the stubs are in step with the solutions, nothing static is wrong and all tests pass."""
    wrong = workspace.stubs(workspace.StubsOptions(check=True))
    for what, command in STATIC.items():
        done = subprocess.run([tool(command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            wrong = 1
            print(f"{what} ({' '.join(command)}):\n{done.stdout}{done.stderr}", flush=True)
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--blocks=solutions",
        *(["--slow"] if options.slow else []),
        *PARALLEL,
    ]
    environment = {name: value for name, value in os.environ.items() if name != "COURSE_EXERCISES"}
    environment["OMP_NUM_THREADS"] = "1"  # for what the tests start: each processor has a process already
    return subprocess.run(tests, cwd=ROOT, env=environment).returncode or wrong


def tool(name: str) -> str:
    """A program that was installed with this interpreter. A ModuleNotFoundError if it was not."""
    found = shutil.which(name, path=sysconfig.get_path("scripts"))
    if found is None:
        raise ModuleNotFoundError(f"No program {name}", name=name)
    return found
