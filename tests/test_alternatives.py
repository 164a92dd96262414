"""Right is right, however it is written: the alternatives pass all tests of their stage."""

import pytest

from alternatives import alternatives
from course.stages import STAGES
from warm import Version, run_versions

LEAST = 3  # alternatives for a stage


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.module)
def test_there_are_enough(stage):
    assert sum(number == stage.number for number, _ in alternatives().values()) >= LEAST


@pytest.mark.limit(600)
def test_every_alternative_passes():
    found = alternatives()
    outcomes = run_versions([Version(number, text) for number, text in found.values()])
    failures = [f"{name}, {o.test}:\n{o.failure}" for name, o in zip(found, outcomes) if o.failure or not o.passed]
    assert not failures, "\n\n".join(failures)
