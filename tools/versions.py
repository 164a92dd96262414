"""Runs the tests of a stage on many versions of it, each up to the first failure."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course.core.stages import STAGES, find_stage
from course.learn.board import Verdict
from course.learn.runner import run_all

AT_ONCE = 2


@dataclass
class Version:
    """One version of a stage.

    Attributes:
        stage: its number.
        text: the whole file.
        exercise: the one whose tests are run first, such as "3.2".
    """

    stage: int
    text: str
    exercise: str = ""


def run_versions(
    versions: Sequence[Version],
    report: Callable[[int, Verdict], None] = lambda index, verdict: None,
    diagnose: bool = True,
    seconds: float | None = None,
) -> list[Verdict]:
    """The verdict on each version, in the same order.

    Args:
        report: called with each version's index and verdict as soon as it is there.
        diagnose: whether the failures name the mistake, which takes most of the time.
        seconds: how long a diagnosis may run other tests; None: as long as for a learner. In less time it sees fewer
            tests, and so it rules out fewer mistakes.

    Raises:
        RuntimeError: if the tests could not be run.
    """
    verdicts = [Verdict(find_stage(version.stage)) for version in versions]
    stages = [stage for stage in STAGES if any(version.stage == stage.number for version in versions)]
    with tempfile.TemporaryDirectory() as folder:
        for news in run_all(requests(versions, Path(folder), diagnose, seconds), stages, AT_ONCE):
            verdicts[news["run"]].add(news)
            if news["event"] == "over":
                report(news["run"], verdicts[news["run"]])
    return verdicts


def requests(
    versions: Sequence[Version], folder: Path, diagnose: bool, seconds: float | None
) -> Iterator[dict[str, Any]]:
    """Writes each version into a folder of its own, as the learner's file, and asks for its tests."""
    for index, version in enumerate(versions):
        place = folder / str(index)
        place.mkdir()
        (place / find_stage(version.stage).exercise.name).write_text(version.text, encoding="utf-8")
        request = {"stage": version.stage, "folder": str(place), "first": version.exercise, "workers": 1}
        request |= {"seconds": seconds} if seconds is not None else {}
        yield request | ({"warm": version.stage} if diagnose else {"diagnose": 0})
