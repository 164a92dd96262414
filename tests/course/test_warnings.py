"""Warnings fail the course's own tests, and never a learner's."""

import os
import subprocess
import sys

import pytest

from course.core.stages import ROOT, STAGES

STAGE = STAGES[0]
LINE = "    batch, channels = x.shape[:2]"


def test_a_warning_fails_a_test_of_the_course(request):
    if request.config.getoption("--blocks") == "exercises":
        pytest.skip("these are the rules of make check")
    assert request.config.getini("filterwarnings")[0] == "error"


@pytest.mark.limit(120)
def test_a_learners_file_may_warn(tmp_path):
    solution = STAGE.solution.read_text(encoding="utf-8")
    assert solution.count(LINE) == 1
    warnings = [f"    __import__('warnings').warn('mine', {kind})\n" for kind in ("UserWarning", "DeprecationWarning")]
    text = solution.replace(LINE, "".join([*warnings, LINE]))
    (tmp_path / f"{STAGE.module}.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", str(STAGE.test)]
    environment = os.environ | {"COURSE_EXERCISES": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
