"""`make check`: the repo's own tests, against solutions/."""

import os
import subprocess
import sys
from dataclasses import dataclass

from course.core import workspace
from course.core.options import Options, option
from course.core.stages import ROOT


@dataclass
class CheckOptions(Options):
    slow: bool = option(False, "also the slow ones")


def check(options: CheckOptions) -> int:
    """Exit code 0 if the stubs are in step with the solutions and all tests pass."""
    stale = workspace.stubs(workspace.StubsOptions(check=True))
    command = [sys.executable, "-m", "pytest", "-q", "--blocks=solutions", *(["--slow"] if options.slow else [])]
    environment = {name: value for name, value in os.environ.items() if name != "COURSE_EXERCISES"}
    return subprocess.run(command, cwd=ROOT, env=environment).returncode or stale
