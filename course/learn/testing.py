"""Runs the tests of stages and says where the learner stands."""

import contextlib
import io
import os
import sys
from dataclasses import dataclass, field
from typing import TextIO

from course.core.assemble import StageError, stage_to_do
from course.core.stages import ROOT, STAGES, Stage, short_path
from course.core.stubs import exercise_numbers, exercises, to_do_lines
from course.core.workspace import fancy
from course.learn import hints

DONE, FAILING, TO_DO, WRITTEN = "done", "failing", "to do", "written"
COLOURS = {DONE: "32", FAILING: "31", TO_DO: "33", WRITTEN: "36"}


@dataclass
class Verdict:
    """Where one stage stands.

    Attributes:
        open: numbers of the exercises that are still stubs.
        passed, failed, to_do: numbers of tests; all 0 if none were run.
        failing: numbers of the exercises that failed tests are about.
        failure: the text of the first failing test, or why the file cannot be read.
    """

    stage: Stage
    open: list[str] = field(default_factory=list)
    passed: int = 0
    failed: int = 0
    to_do: int = 0
    failing: set[str] = field(default_factory=set)
    failure: str | None = None

    @property
    def state(self) -> str:
        if self.failure is not None:
            return FAILING
        if self.open or self.to_do:
            return TO_DO
        return DONE if self.passed else WRITTEN

    @property
    def untouched(self) -> bool:
        return len(self.open) == len(exercises(self.stage))

    @property
    def solved(self) -> int:
        """How many exercises are written and have no failing test; 0 if no test was run."""
        if not self.passed:
            return 0
        return sum(e.number not in self.open and e.number not in self.failing for e in exercises(self.stage))

    def add(self, outcome: str, text: str, numbers: list[str]) -> None:
        """Counts one test: "passed", "failed" or "to do"; what it says; and the exercises that it is about.

        A failure counts against the last of its exercises, which builds on the others.
        """
        if outcome == "failed":
            self.failed += 1
            self.failing |= set(numbers[-1:] or [exercise.number for exercise in exercises(self.stage)])
            self.failure = self.failure if self.failure is not None else text
        elif outcome == "to do":
            self.to_do += 1
        else:
            self.passed += 1


def test_in_order() -> int:
    """Tests every stage that was begun. Exit code 1 only if something that was tried fails."""
    verdicts = [read(stage) for stage in STAGES]
    with Board(verdicts) as board:
        run_tests([verdict for verdict in verdicts if not verdict.untouched and verdict.failure is None], board)
    done = sum(verdict.state == DONE for verdict in verdicts)
    solved = sum(verdict.solved for verdict in verdicts)
    total = sum(len(exercises(stage)) for stage in STAGES)
    print(f"{done} of {len(STAGES)} stages and {solved} of {total} exercises are done.")
    if done == len(STAGES):
        print("\nAll ten stages are yours: `make generate` now draws with your code alone.")
        return 0
    failing = [verdict for verdict in verdicts if verdict.state == FAILING]
    explain(failing[0] if failing else next(verdict for verdict in verdicts if verdict.state != DONE))
    return int(bool(failing))


def test_one(stage: Stage) -> int:
    """Tests one stage. Exit code 0 only if it is done."""
    verdict = read(stage)
    with Board([verdict]) as board:
        if not verdict.untouched and verdict.failure is None:
            run_tests([verdict], board)
    if verdict.state != DONE:
        explain(verdict)
        return 1
    if texts := hints.reading_once(stage):
        print(texts)
        print(f"\na picture of it: make show STAGE={stage.number}")
    print()
    name_next(left_after(stage))
    return 0


def left_after(stage: Stage) -> Verdict | None:
    """The first stage after a finished one, or else before it, that is known not to be done without testing it."""
    for other in [*STAGES[stage.number :], *STAGES[: stage.number - 1]]:
        verdict = read(other)
        verdict.failing = set(hints.read_state()["failing"].get(str(other.number), []))
        if verdict.open or verdict.failing or verdict.failure is not None:
            return verdict
    return None


def read(stage: Stage) -> Verdict:
    """What can be said of a stage without running it."""
    try:
        return Verdict(stage, open=stage_to_do(stage))
    except StageError as error:
        return Verdict(stage, failure=str(error))


def run_tests(verdicts: list[Verdict], board: "Board") -> None:
    """Runs the tests of these stages in one go and fills in the verdicts.

    Raises:
        RuntimeError: if the tests could not be run at all.
    """
    check_tests_exist([verdict.stage for verdict in verdicts])
    if not verdicts:
        return
    import pytest

    collector = Collector(verdicts, board)
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = pytest.main(pytest_arguments([verdict.stage for verdict in verdicts]), plugins=[collector])
    if code == pytest.ExitCode.INTERRUPTED and not collector.broken:
        raise KeyboardInterrupt
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"The tests could not be run:\n{output.getvalue().strip()}")
    for verdict in verdicts:
        hints.note_failing(verdict.stage, sorted(verdict.failing))


def check_tests_exist(stages: list[Stage]) -> None:
    missing = [short_path(stage.test) for stage in stages if not stage.test.exists()]
    if missing:
        raise RuntimeError(f"There are no tests in {', '.join(missing)}.")


def pytest_arguments(stages: list[Stage]) -> list[str]:
    """What makes pytest test the learner's files of these stages, and explain the first failure: no other is shown."""
    options = ["--blocks=exercises", "--diagnose=1", "--tb=native"]
    options += [f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}"]
    return options + [str(stage.test) for stage in stages]


class Collector:
    """A pytest plugin that sorts test results by stage."""

    def __init__(self, verdicts: list[Verdict], board: "Board"):
        self.verdicts = {verdict.stage.test.name: verdict for verdict in verdicts}
        self.board = board
        self.broken = False
        self.totals: dict[str, int] = {}
        self.numbers: list[str] = []

    def pytest_collectreport(self, report) -> None:
        self.broken = self.broken or report.failed

    def pytest_collection_finish(self, session) -> None:
        for item in session.items:
            self.totals[item.path.name] = self.totals.get(item.path.name, 0) + 1

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        name = file_of(nodeid)
        self.board.testing(self.verdicts[name], self.totals[name])

    def pytest_runtest_protocol(self, item) -> None:
        self.numbers = exercise_numbers(item)

    def pytest_runtest_logreport(self, report) -> None:
        if outcome := outcome_of(report):
            text = report.longreprtext + printed(report.capstdout) if outcome == "failed" else ""
            self.verdicts[file_of(report.nodeid)].add(outcome, text, self.numbers)


def file_of(nodeid: str) -> str:
    return nodeid.split("::")[0].split("/")[-1]


def outcome_of(report) -> str | None:
    """What one report of a test means: "passed", "failed", "to do", or None: nothing yet."""
    if report.failed:
        return "failed"
    if report.skipped and "to do:" in str(report.longrepr):
        return "to do"
    return "passed" if report.passed and report.when == "call" else None


def printed(text: str, lines: int = 10) -> str:
    """What the code under test printed: the last lines of it."""
    shown = text.rstrip().splitlines()[-lines:]
    return "\n".join(["", "", "printed:", *(f"    {line}" for line in shown)]) if shown else ""


def board_line(verdict: Verdict, failing: str = "") -> str:
    """One line: number, name, state, and what the state rests on (of a failing stage: `failing`, if given)."""
    stage, state = verdict.stage, verdict.state
    total = verdict.passed + verdict.failed + verdict.to_do
    parts = len(exercises(stage))
    details = {
        DONE: f"{total} tests pass",
        FAILING: (failing or f"{verdict.failed} of {total} tests fail") if total else "cannot be loaded",
        TO_DO: "" if verdict.untouched else f"{parts - len(verdict.open)} of {parts} exercises written",
        WRITTEN: "no test was run",
    }
    arrow = f"-> {short_path(stage.exercise)}"
    return f"{stage.number:2d} {stage.name:12s} {coloured(state)}  " + "  ".join(filter(None, [details[state], arrow]))


class Board:
    """Prints one line per stage, each as soon as it is known; on a terminal, also what is being tested.

    While tests run, what they print is captured; so this writes to a copy of standard output.
    """

    def __init__(self, verdicts: list[Verdict]):
        self.waiting = list(verdicts)
        self.screen: TextIO = sys.stdout
        self.live = fancy()

    def __enter__(self) -> "Board":
        sys.stdout.flush()
        with contextlib.suppress(OSError):  # not a file: then nothing is captured below it
            self.screen = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        while self.waiting and kind is None:
            self._print(board_line(self.waiting.pop(0)))
        self.screen.write("\r\033[K" if self.live else "")
        self.screen.flush()
        if self.screen is not sys.stdout:
            self.screen.close()

    def testing(self, verdict: Verdict, total: int) -> None:
        """Says that another test of this stage begins: all stages before it are known."""
        while self.waiting and self.waiting[0] is not verdict:
            self._print(board_line(self.waiting.pop(0)))
        if self.live:
            count = verdict.passed + verdict.failed + verdict.to_do
            self.screen.write(f"\r{verdict.stage.number:2d} {verdict.stage.name:12s} test {count + 1} of {total}\033[K")
            self.screen.flush()

    def _print(self, line: str) -> None:
        self.screen.write(f"\r{line}\033[K\n" if self.live else f"{line}\n")
        self.screen.flush()


def explain(verdict: Verdict) -> None:
    """The first failure in full, or the next exercise; then the commands for that."""
    print()
    if verdict.failure is None:
        name_next(verdict)
        return
    number = verdict.stage.number
    print(verdict.failure)
    print(f"\nagain: make test STAGE={number}     a hint: make hint STAGE={number}")


def name_next(verdict: Verdict | None) -> None:
    """The next thing to do in a stage without a failure; None: in none."""
    print("\n".join(next_lines(verdict) if verdict else ["All ten stages are written: `make test` tests them together."]))


def next_lines(verdict: Verdict) -> list[str]:
    stage = verdict.stage
    if verdict.failure is not None:
        return [f"next: {short_path(stage.exercise)} cannot be loaded", f"then: make test STAGE={stage.number}"]
    lines = to_do_lines(stage.exercise)
    where = short_path(stage.exercise)
    for exercise in exercises(stage):
        number = exercise.number
        if number in lines or number in verdict.failing:
            failed = "" if number in lines else " (a test of it failed when it was last run)"
            return [
                f"next: exercise {number}: {exercise.title}{failed}",
                f"      {where}:{lines[number]}" if number in lines else f"      {where}",
                f"then: make test STAGE={stage.number}",
            ]
    return [f"{verdict.to_do} tests are to do: an exercise of {where} still raises NotImplementedError."]


def coloured(state: str) -> str:
    """The state, padded, and in colour on a terminal that wants it."""
    padded = f"{state:7s}"
    return f"\033[{COLOURS[state]}m{padded}\033[0m" if fancy() else padded
