"""`make check`: the repo's own tests, the whole of tests/, against solutions/."""

import os
import subprocess
import sys

from course.core.stages import ROOT


def main(slow: bool) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "--blocks=solutions", *(["--slow"] if slow else [])]
    environment = {name: value for name, value in os.environ.items() if name != "COURSE_EXERCISES"}
    return subprocess.run(command, cwd=ROOT, env=environment).returncode
