"""What a learner sees when a test fails.

The screens of ten wrong versions are kept in tests/course/golden/, their measured numbers replaced by #. After a
deliberate change of the texts, UPDATE_GOLDEN=1 writes them anew.
"""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from course.core.stages import ROOT, STAGES
from course.core.stubs import exercises
from course.feedback.mistakes import exercise_of, mistakes_of, wrong_text
from course.feedback.reading import READING
from course.learn.board import Verdict
from course.learn.runner import run_all
from tools.versions import Version, run_versions

GOLDEN = Path(__file__).with_name("golden")
LONGEST = 24  # lines

SCREENS = [
    (1, "variance-divided-by-n-minus-1"),
    (1, "weight-is-no-parameter"),
    (2, "time-per-column"),
    (3, "heads-without-transpose"),
    (4, "tiled"),
    (5, "mean-and-log-variance-exchanged"),
    (6, "padded-with-zeros"),
    (7, "half-minus-one"),
    (8, "timesteps-from-zero"),
    (10, "ema-names-with-dots"),
]

# Mistakes that the catalogue does not know: stage, exercise, find, replace.
UNKNOWN = [
    (1, "1.1", "torch.sqrt(variance + eps)", "torch.sqrt(variance + 3 * eps)"),
    (1, "1.2", "return group_norm(", "group_norm("),
    (2, "2.1", "torch.sigmoid(x)", "torch.sigmoid(0.5 * x)"),
    (3, "3.1", "math.sqrt(d)", "math.sqrt(d + 1)"),
    (4, "4.3", "stride=2,", "stride=3,"),
    (5, "5.5", "+ 1.0) * 127.5", "+ 1.0) * 120.0"),
    (6, "6.4", "-math.inf", "-1.0"),
    (7, "7.1", "device=timesteps.device) / half", "device=timesteps.device) / (half + 1)"),
    (8, "8.8", "return scaled * math.sqrt(abar_next)", "return scaled * abar_next"),
    (9, "9.1", "return unconditional + scale", "return 0.5 * unconditional + scale"),
    (10, "10.3", '(side == "down"), period)', '(side == "down"), period + 1)'),
]


def unknown_text(number: int, exercise: str, find: str, replace: str) -> str:
    """The solution's text with a mistake in this exercise."""
    solution = STAGES[number - 1].solution.read_text(encoding="utf-8")
    before, mark, after = solution.partition(f"Exercise {exercise}:")
    assert find in after
    return before + mark + after.replace(find, replace, 1)


@cache
def outcomes() -> dict[object, Verdict]:
    """What the tests say to all versions below, found in one go."""
    versions = {}
    for number, name in SCREENS:
        mistake = next(mistake for mistake in mistakes_of(number) if mistake.name == name)
        versions[number, name] = Version(number, wrong_text(number, mistake), exercise_of(number, mistake))
    for entry in UNKNOWN:
        versions[entry[:2]] = Version(entry[0], unknown_text(*entry), entry[1])
    return dict(zip(versions, run_versions(list(versions.values()), seconds=10.0)))


def masked(text: str) -> str:
    """The text without measured numbers and without the folder that the file was in."""
    text = re.sub(r"^\S*/(stage\d\d_)", r"exercises/\1", text, flags=re.MULTILINE)
    return re.sub(r"\b(error|got|wanted) -?\d[\d.]*(e[+-]?\d+)?", r"\1 #", text)


@pytest.mark.limit(600)
@pytest.mark.parametrize(("number", "name"), SCREENS, ids=lambda value: str(value))
def test_screen(number, name):
    text = masked(outcomes()[number, name].failure) + "\n"
    path = GOLDEN / f"stage{number:02d}_{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.limit(600)
@pytest.mark.parametrize(("number", "name"), SCREENS, ids=lambda value: str(value))
def test_screen_is_short_and_to_the_point(number, name):
    lines = outcomes()[number, name].failure.splitlines()
    assert len(lines) <= LONGEST
    assert f"exercise {number}." in lines[0]
    assert lines[2].startswith("This is exactly what you get when ")
    assert lines[-1].startswith("Read on: ")
    for harness in ("compare.py", "diagnosis.py", "plugin.py", "blocks_", "site-packages"):
        assert harness not in "\n".join(lines)


@pytest.mark.limit(600)
@pytest.mark.parametrize(("number", "exercise"), [entry[:2] for entry in UNKNOWN], ids=lambda value: str(value))
def test_unknown_mistake_points_at_its_exercise(number, exercise):
    lines = outcomes()[number, exercise].failure.splitlines()
    assert f"exercise {exercise}" in lines[0]
    assert "This is exactly what you get" not in "\n".join(lines)


@pytest.mark.parametrize("entry", UNKNOWN, ids=lambda entry: f"exercise {entry[1]}")
def test_unknown_mistakes_are_not_in_the_catalogue(entry):
    assert unknown_text(*entry) not in [wrong_text(entry[0], mistake) for mistake in mistakes_of(entry[0])]


WHOLE = [next(entry for entry in UNKNOWN if entry[0] == number) for number in (1, 2, 3, 4, 8)]


@pytest.mark.limit(300)
def test_an_unknown_mistake_is_found_by_all_tests_of_its_stage(tmp_path):
    """In their own order, as `make test` runs them; nothing tells them which exercise is wrong."""
    for entry in WHOLE:
        (tmp_path / f"{STAGES[entry[0] - 1].module}.py").write_text(unknown_text(*entry), encoding="utf-8")
    verdicts = [Verdict(STAGES[number - 1]) for number, *_ in WHOLE]
    requests = [{"stage": number, "folder": str(tmp_path), "whole": True} for number, *_ in WHOLE]
    for news in run_all(requests, [verdict.stage for verdict in verdicts]):
        verdicts[news["run"]].add(news)
    for (number, exercise, *_), verdict in zip(WHOLE, verdicts, strict=True):
        assert verdict.failed and verdict.passed and verdict.exercise == exercise, number
        assert re.match(rf"\S*stage{number:02d}_\w+\.py  exercise {exercise}  test_\w+", verdict.failure)
        assert "This is exactly what you get" not in verdict.failure, verdict.failure


@pytest.mark.limit(300)
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_test_points_at_the_exercise_of_an_unknown_mistake(tmp_path):
    entry = WHOLE[0]
    path = tmp_path / "exercises" / f"{STAGES[0].module}.py"
    path.parent.mkdir()
    path.write_text(unknown_text(*entry), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment |= {"COURSE_EXERCISES": str(path.parent), "OMP_NUM_THREADS": "1"}
    command = ["make", "-s", "test", "STAGE=1", "NO_VENV=1", f"PYTHON={sys.executable}"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode != 0
    assert re.search(r"^ 1 group_norm +failing +\d+ of \d+ tests fail", ran.stdout)
    assert re.search(rf"^\S*{path.name}  exercise {entry[1]}  test_\w+", ran.stdout, re.MULTILINE), ran.stdout
    assert "This is exactly what you get" not in ran.stdout, ran.stdout


@pytest.mark.limit(600)
def test_a_missing_return_is_named():
    assert "is there a return?" in " ".join(outcomes()[1, "1.2"].failure.split())


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.module)
def test_reading_is_named_by_the_docstring(stage):
    docstring = stage.solution.read_text(encoding="utf-8").split('"""')[1]
    for exercise in exercises(stage):
        for source in re.findall(r"arXiv:[\d.]+\d|doi:[\d./a-z]+\d|github\S+[a-z]", READING[exercise.number]):
            assert source in docstring, exercise.number
