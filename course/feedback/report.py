"""What a learner reads of a failed test: the file, the exercise, the mistake if it is known, and where it came from."""

import re
import textwrap
import traceback
import unittest
from collections.abc import Callable
from pathlib import Path

import pytest

from course.core.assemble import StageError
from course.core.limits import Stuck, is_out_of_memory, out_of_memory
from course.core.stages import short_path
from course.core.stubs import exercise_numbers
from course.feedback import diagnosis
from course.feedback.mistakes import Mistake
from course.feedback.reading import READING

LONGEST_FAILURE = 24  # lines
WIDTH = 120  # characters of a line
FEW = 3  # exercises that a test is about; one of more is about the whole stage
LONGEST_MESSAGE = 8  # lines, of an exception that is not ours


def failure_text(
    item: pytest.Item, path: Path, error: BaseException, run_others: Callable[[diagnosis.Comparison], object]
) -> tuple[str, diagnosis.Finding]:
    """What a learner needs of a failure: file, exercise, test, and what went wrong; and what is known of it.

    run_others: runs the other tests of the stage, see diagnosis.finding.
    """
    numbers = exercise_numbers(item)
    found = diagnosis.Finding()
    if isinstance(error, StageError | Stuck):
        body = str(error)
    else:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not is_out_of_memory(error):  # else other versions, too, might take all that there is
            found = diagnosed(error, numbers, run_others)
        body = explanation(path, error, found.mistakes)
    if found.exercise:
        if numbers and found.exercise not in numbers:
            own = found.exercise
            body += f"\n\nThis test is about exercise {numbers[-1]}. It passes with the solution's {own}: look there."
        numbers = [found.exercise]
    header = "  ".join(filter(None, [short_path(path), named(numbers), item.name]))
    last = [READING[number] for number in numbers if number in READING][:1] if len(numbers) <= FEW else []
    footer = ["", f"Read on: {last[0]}."] if last else []
    lines = [header, "", *(part for line in body.splitlines() for part in wrapped(line))]
    room = LONGEST_FAILURE - len(footer)
    if len(lines) > room:
        lines = [*lines[: room - 1], "..."]
    return "\n".join([*lines, *footer]), found


def named(numbers: list[str]) -> str:
    """ "exercise 3.2 exercise 3.3", or "exercises 3.1 to 3.6" of a test that is about more than a few."""
    if len(numbers) > FEW:
        return f"exercises {numbers[0]} to {numbers[-1]}"
    return " ".join(f"exercise {number}" for number in numbers)


def wrapped(line: str) -> list[str]:
    """A line in pieces that fit on a screen."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]


def explanation(path: Path, error: BaseException, mistakes: list[Mistake]) -> str:
    """The message of a failed check; for any other exception also the lines that it came through."""
    frames = frames_of(error)
    if isinstance(error, AssertionError | pytest.fail.Exception) and not raised_in(path, frames):
        shown = [frame for frame in frames_of(error.__cause__) if frame.filename == str(path)]
        lines = (own_message(error) or frames[-1].line).splitlines()
    else:
        theirs = [frame for frame in frames if frame.filename == str(path)]
        in_tests = [frame for frame in frames if Path(frame.filename).name.startswith("test_")]
        shown = theirs or in_tests[-1:]
        lines = f"{type(error).__name__}: {error}".splitlines()[:LONGEST_MESSAGE]
        lines = [out_of_memory(error)] if is_out_of_memory(error) else lines
        if not theirs and "'NoneType'" in str(error):
            lines += ["None came back where a result was expected: is there a return?"]
    if isinstance(error, pytest.skip.Exception | pytest.xfail.Exception | unittest.SkipTest):
        lines = ["A test that the file under test skips has failed.", *lines]
    lines += [""] if shown else []
    for frame in shown[-5:]:
        lines += [f"{short_path(frame.filename)}:{frame.lineno}, in {frame.name}", f"    {frame.line}"]
    lines = [*diagnosis.sentences(mistakes), *lines, *notes(error)]
    return re.sub(r"blocks_\d+\.", "", "\n".join(lines))  # the assembled package's name


def diagnosed(
    error: BaseException, numbers: list[str], run_others: Callable[[diagnosis.Comparison], object]
) -> diagnosis.Finding:
    """The exercise that is wrong; of the first failures of a run also the mistake, or two that give the same result."""
    diagnosis.left -= 1
    if diagnosis.off:
        return diagnosis.Finding()
    if diagnosis.left >= 0:
        return diagnosis.finding(error, numbers, run_others)
    if len(numbers) > FEW:  # as a rule it fails for the reason for which an earlier test failed
        return diagnosis.Finding(diagnosis.blamed)
    return diagnosis.Finding(diagnosis.wrong_exercise(error, numbers))


def own_message(error: BaseException) -> str:
    """The message that the test gives, without pytest's repetition of the assertion; if it gives none, that."""
    return re.split(r"\nassert ", str(error), maxsplit=1)[0]


def frames_of(error: BaseException | None) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__)) if error else []


def passes_through(path: Path, error: BaseException) -> bool:
    return any(frame.filename == str(path) for frame in frames_of(error))


def raised_in(path: Path, frames: list[traceback.FrameSummary]) -> bool:
    """Whether the exception was raised by a line of the file under test itself."""
    return bool(frames) and frames[-1].filename == str(path)


def notes(error: BaseException) -> list[str]:
    """The inputs that hypothesis found, without the fixtures."""
    lines = "\n".join(getattr(error, "__notes__", [])).splitlines()
    found = [line for line in lines if not re.match(r"\s*(stage|blocks|self)=|Explanation:|You can reproduce", line)]
    return ["", *found] if found else []
