"""How tests find the file under test, and how they talk to the person who wrote it.

A test of stage 3 lives in test_stage03_attention.py and takes the fixture `stage`: the learner's stage 3 on top of the
reference for all other stages (or, with --blocks=solutions, the reference). Its result is one of three: passed, failed,
or "to do" where an exercise is still a stub. Failures show what a learner can use, without the harness; --full-trace
shows all.
"""

import os

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
}
os.environ.update(QUIET)
os.environ.setdefault("NO_VENV", "1")  # commands that tests start run with this interpreter

import contextlib
import functools
import re
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
import torch
from _pytest.runner import runtestprotocol

from course.core.assemble import Blocks, StageError, for_testing, stage_to_do
from course.core.limits import Stuck, is_out_of_memory, limited, make_room
from course.core.stages import Stage, find_stage
from course.core.stubs import exercise_numbers, exercises
from course.feedback import diagnosis
from course.feedback.mistakes import exercise_of
from course.feedback.report import FEW, failure_text, passes_through

LIMIT = 10.0  # seconds for one test
SETUP_LIMIT = 120.0  # seconds for its fixtures, which may build large reference models

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background; there are tests of Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "course",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=30,
    print_blob=False,
    report_multiple_bugs=False,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("course")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--blocks", choices=("exercises", "solutions"), default="exercises", help="whose stages to test")
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--diagnose", type=int, default=diagnosis.left, help="how many failures to explain at length")


def pytest_configure(config: pytest.Config) -> None:
    diagnosis.left = config.getoption("--diagnose")
    diagnosis.off = diagnosis.left == 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


# --- the file under test ---------------------------------------------------------------------------------------------


def stage_of(path: Path) -> Stage | None:
    """The stage that a test file is about, or None: test_stage03_attention.py is about stage 3."""
    match = re.fullmatch(r"test_(stage\d\d_\w+)\.py", path.name)
    return find_stage(match[1]) if match else None


def file_under_test(item: pytest.Item | pytest.Collector) -> Path | None:
    stage = stage_of(item.path)
    if stage is None:
        return None
    return stage.exercise if item.config.getoption("--blocks") == "exercises" else stage.solution


@pytest.fixture(scope="module")
def blocks(request: pytest.FixtureRequest) -> Blocks:
    """The assembled package of this test file: the stage under test from --blocks, the reference for all others."""
    stage = stage_of(request.path)
    if stage is None:
        return for_testing(1, "solutions")
    return for_testing(stage.number, request.config.getoption("--blocks"))


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, blocks: Blocks) -> ModuleType:
    """The module under test."""
    number, before = stage_of(request.path).number, diagnosis.settings()
    with limited(LIMIT, blocks.paths[number]):
        module = blocks[number]
    setting = diagnosis.restored(before)
    assert not setting, f"When it is loaded, this file changes a setting of the whole program: {setting}."
    return module


# --- to do -----------------------------------------------------------------------------------------------------------


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test whose exercise is still a stub is not run: whatever it would say, it is to do."""
    stage = stage_of(item.path)
    if stage is None or diagnosis.comparison or item.config.getoption("--blocks") == "solutions":
        return
    with contextlib.suppress(StageError):  # the fixture `stage` reports it
        still_open = stage_to_do(stage)
        titles = {exercise.number: exercise.title for exercise in exercises(stage)}
        for number in exercise_numbers(item) or (titles if set(titles) == set(still_open) else ()):
            if number in still_open:
                raise NotImplementedError(f"exercise {number}: {titles.get(number, '')}")


def is_to_do(error: BaseException) -> bool:
    return isinstance(error, NotImplementedError) and str(error).startswith("exercise ")


# --- endless loops ---------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    marker = item.get_closest_marker("limit")
    with limited(marker.args[0] if marker else LIMIT, file_under_test(item)):
        try:
            return (yield)
        except Exception as error:
            if is_out_of_memory(error):
                make_room(error)
            raise


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest):
    with limited(SETUP_LIMIT, file_under_test(request.node)):
        return (yield)


# --- what a failure looks like ---------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    error = call.excinfo.value if call.excinfo else None  # before pytest makes one of its own out of unittest.SkipTest
    report: pytest.TestReport = yield
    if diagnosis.comparison:
        return report
    path = file_under_test(item)
    if error is None or path is None or not (report.failed or passes_through(path, error)):
        return report
    if is_to_do(error):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: to do: {error}")
        return report
    report.outcome = "failed"  # also where the file under test skips the test
    vars(report).pop("wasxfail", None)
    kind = "stuck" if isinstance(error, Stuck) else "not loaded" if isinstance(error, StageError) else ""
    kind = "no memory" if is_out_of_memory(error) else kind
    vars(report).update(kind=kind)
    if not item.config.getoption("fulltrace"):
        report.longrepr, found = failure_text(item, path, error, functools.partial(run_others, item))
        mistakes = [{"name": mistake.name, "hint": mistake.hint} for mistake in found.mistakes]
        vars(report).update(mistakes=mistakes, exercise=found.exercise)
    return report


def run_others(item: pytest.Item, comparison: diagnosis.Comparison) -> None:
    """Runs the other tests of the file without a word, so that their checks show their trials to the comparison.

    Those of the exercises that are suspected come first, and last those of the whole stage, which take long. `item` is
    in the middle of its run: it is torn down before.
    """
    module: Any = item.getparent(pytest.Module)  # as the next item: so it is not torn down
    item.session._setupstate.teardown_exact(module)
    suspected = {exercise_of(comparison.stage.number, mistake) for mistake in comparison.mistakes}
    others = [other for other in item.session.items if other.path == item.path and other is not item]

    def rank(other: pytest.Item) -> tuple[bool, bool]:
        numbers = exercise_numbers(other)
        return len(numbers) > FEW, not suspected & set(numbers)

    for other in sorted(others, key=rank):
        if comparison.over:
            break
        runtestprotocol(other, log=False, nextitem=module)
