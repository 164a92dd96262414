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

import contextlib
import re
import signal
import textwrap
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType

import hypothesis
import pytest
import torch

import diagnosis
from course.assemble import Blocks, StageError, for_testing, stage_to_do
from course.stages import TESTS, Stage, find_stage, short_path
from course.stubs import exercises
from reading import READING

LIMIT = 10.0  # seconds for one test
SETUP_LIMIT = 120.0  # seconds for its fixtures, which may build large reference models
LONGEST_FAILURE = 24  # lines
WIDTH = 120  # characters of a line
LONGEST_MESSAGE = 8  # lines, of an exception that is not ours

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
    number = stage_of(request.path).number
    with limited(LIMIT, blocks.paths[number]):
        return blocks[number]


# --- to do -----------------------------------------------------------------------------------------------------------


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test whose exercise is still a stub is not run: whatever it would say, it is to do."""
    stage = stage_of(item.path)
    if stage is None or item.config.getoption("--blocks") == "solutions":
        return
    with contextlib.suppress(StageError):  # the fixture `stage` reports it
        still_open = stage_to_do(stage)
        titles = {exercise.number: exercise.title for exercise in exercises(stage)}
        for number in exercise_numbers(item) or (titles if set(titles) == set(still_open) else ()):
            if number in still_open:
                raise NotImplementedError(f"exercise {number}: {titles.get(number, '')}")


def exercise_numbers(item: pytest.Item) -> list[str]:
    return [number for marker in item.iter_markers("exercise") for number in marker.args]


def is_to_do(error: BaseException) -> bool:
    return isinstance(error, NotImplementedError) and str(error).startswith("exercise ")


# --- endless loops ---------------------------------------------------------------------------------------------------


class Stuck(BaseException):
    """Out of time. Not an Exception, so that neither a learner's `except Exception` nor hypothesis holds it up."""


@contextlib.contextmanager
def limited(seconds: float, path: Path | None) -> Iterator[None]:
    """Raises Stuck in the code below after so many seconds, naming the line of `path` that was running.

    On a busy machine there is patience: code that hardly got to run may take six times as long.
    """
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    started, computed = time.monotonic(), time.process_time()

    def stop(signum: int, frame: FrameType | None) -> None:
        if time.process_time() - computed < seconds / 2 and time.monotonic() - started < 6 * seconds:
            return  # the timer rings again in a second
        inside = (f for f, _ in traceback.walk_stack(frame) if path and f.f_code.co_filename == str(path))
        here = next(inside, None)
        place = f"{short_path(path)}:{here.f_lineno}: " if here else ""
        raise Stuck(f"{place}still running after {seconds:g} seconds: is there a loop that never ends?")

    before = signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, 1.0 if left else 0.0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    marker = item.get_closest_marker("limit")
    with limited(marker.args[0] if marker else LIMIT, file_under_test(item)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest):
    with limited(SETUP_LIMIT, file_under_test(request.node)):
        return (yield)


# --- what a failure looks like ---------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report: pytest.TestReport = yield
    error = call.excinfo.value if call.excinfo else None
    if error is None or not report.failed:
        return report
    path = file_under_test(item)
    if is_to_do(error):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: to do: {error}")
    elif path is not None and not item.config.getoption("fulltrace"):
        report.longrepr = failure_text(item, path, error)
    return report


def failure_text(item: pytest.Item, path: Path, error: BaseException) -> str:
    """What a learner needs of a failure: the file, the exercise, the test, and what went wrong."""
    numbers = " ".join(f"exercise {number}" for number in exercise_numbers(item))
    header = "  ".join(filter(None, [short_path(path), numbers, item.name]))
    if isinstance(error, StageError | Stuck):
        body = str(error)
    else:
        body = explanation(path, error, exercise_numbers(item))
    last = [READING[number] for number in exercise_numbers(item) if number in READING][:1]
    footer = ["", f"Read on: {last[0]}."] if last else []
    lines = [header, "", *(part for line in body.splitlines() for part in wrapped(line))]
    room = LONGEST_FAILURE - len(footer)
    if len(lines) > room:
        lines = [*lines[: room - 1], "..."]
    return "\n".join([*lines, *footer])


def wrapped(line: str) -> list[str]:
    """A line in pieces that fit on a screen."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]


def explanation(path: Path, error: BaseException, numbers: list[str]) -> str:
    """The message of a failed check; for any other exception also the lines that it came through."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = frames_of(error)
    if isinstance(error, AssertionError | pytest.fail.Exception) and not raised_in(path, frames):
        shown = [frame for frame in frames_of(error.__cause__) if frame.filename == str(path)]
        lines = (own_message(error) or frames[-1].line).splitlines()
    else:
        theirs = [frame for frame in frames if frame.filename == str(path)]
        in_tests = [frame for frame in frames if Path(frame.filename).name.startswith("test_")]
        shown = theirs or in_tests[-1:]
        lines = f"{type(error).__name__}: {error}".splitlines()[:LONGEST_MESSAGE]
        if not theirs and "'NoneType'" in str(error):
            lines += ["None came back where a result was expected: is there a return?"]
    lines += [""] if shown else []
    for frame in shown[-5:]:
        lines += [f"{short_path(frame.filename)}:{frame.lineno}, in {frame.name}", f"    {frame.line}"]
    lines = [*diagnosed(error, numbers), *lines, *notes(error)]
    return re.sub(r"blocks_\d+\.", "", "\n".join(lines))  # the assembled package's name


def diagnosed(error: BaseException, numbers: list[str]) -> list[str]:
    """The name of the mistake, for the first failures of a run."""
    diagnosis.left -= 1
    return diagnosis.sentences(error, numbers) if diagnosis.left >= 0 else []


def own_message(error: BaseException) -> str:
    """The message that the test gives, without pytest's repetition of the assertion; if it gives none, that."""
    return re.split(r"\nassert ", str(error), maxsplit=1)[0]


def frames_of(error: BaseException | None) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__)) if error else []


def raised_in(path: Path, frames: list[traceback.FrameSummary]) -> bool:
    """Whether the exception was raised by a line of the file under test itself."""
    return bool(frames) and frames[-1].filename == str(path)


def notes(error: BaseException) -> list[str]:
    """The inputs that hypothesis found, without the fixtures."""
    lines = "\n".join(getattr(error, "__notes__", [])).splitlines()
    found = [line for line in lines if not re.match(r"\s*(stage|blocks|self)=|Explanation:|You can reproduce", line)]
    return ["", *found] if found else []
