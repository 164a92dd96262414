"""What a learner sees when a test fails.

The screens of ten wrong versions are kept in tests/golden/, their measured numbers replaced by #. After a deliberate
change of the texts, UPDATE_GOLDEN=1 writes them anew.
"""

import os
import re
from functools import cache

import pytest

from course.stages import STAGES, TESTS
from course.stubs import exercises
from mistakes import exercise_of, mistakes_of, wrong_text
from reading import READING
from warm import Outcome, Version, run_versions

GOLDEN = TESTS / "golden"
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
    (3, "3.1", "math.sqrt(d)", "math.sqrt(d + 1)"),
    (4, "4.3", "stride=2,", "stride=3,"),
    (6, "6.4", "-math.inf", "-1.0"),
    (8, "8.8", "return scaled * math.sqrt(abar_next)", "return scaled * abar_next"),
]


@cache
def outcomes() -> dict[object, Outcome]:
    """What the tests say to all versions below, found in one go."""
    versions = {}
    for number, name in SCREENS:
        mistake = next(mistake for mistake in mistakes_of(number) if mistake.name == name)
        versions[number, name] = Version(number, wrong_text(number, mistake), exercise_of(number, mistake))
    for number, exercise, find, replace in UNKNOWN:
        solution = STAGES[number - 1].solution.read_text(encoding="utf-8")
        before, mark, after = solution.partition(f"Exercise {exercise}:")
        assert find in after
        versions[number, exercise] = Version(number, before + mark + after.replace(find, replace, 1), exercise)
    return dict(zip(versions, run_versions(list(versions.values()))))


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
    for harness in ("support.py", "diagnosis.py", "conftest.py", "blocks_", "site-packages"):
        assert harness not in "\n".join(lines)


@pytest.mark.limit(600)
@pytest.mark.parametrize(("number", "exercise"), [entry[:2] for entry in UNKNOWN], ids=lambda value: str(value))
def test_unknown_mistake_points_at_its_exercise(number, exercise):
    lines = outcomes()[number, exercise].failure.splitlines()
    assert f"exercise {exercise}" in lines[0]
    assert "This is exactly what you get" not in "\n".join(lines)


@pytest.mark.limit(600)
def test_a_missing_return_is_named():
    assert "is there a return?" in " ".join(outcomes()[1, "1.2"].failure.split())


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.module)
def test_reading_is_named_by_the_docstring(stage):
    docstring = stage.solution.read_text(encoding="utf-8").split('"""')[1]
    for exercise in exercises(stage):
        for source in re.findall(r"arXiv:[\d.]+\d|doi:[\d./a-z]+\d|github\S+[a-z]", READING[exercise.number]):
            assert source in docstring, exercise.number
