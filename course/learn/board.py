"""What is known of a stage, and how it is shown."""

import textwrap
from dataclasses import dataclass, field

from course.core.assemble import StageError, stage_to_do
from course.core.contract import differences
from course.core.screen import fancy
from course.core.stages import Stage, short_path
from course.core.stubs import exercises, to_do_lines
from course.learn.runner import News

DONE, FAILING, TO_DO, WRITTEN, NOT_LOADED = "done", "failing", "to do", "written", "cannot be loaded"
WIDTH = 120  # characters of a line
COLOURS = {DONE: "32", FAILING: "31", TO_DO: "33", WRITTEN: "36"}


@dataclass
class Verdict:
    """Where one stage stands.

    Attributes:
        open: numbers of the exercises that are still stubs.
        tests: name -> exercises of the tests that are run, in their order.
        waiting: names of those that came to no end (yet).
        passed, failed, to_do: numbers of tests.
        failing: numbers of the exercises that are wrong, as far as failed tests tell.
        loads: whether the file can be loaded, as far as is known.
        failure: the text of the first failing test, or why the file cannot be loaded.
        test: the name of that test; None where there is none.
        exercise: the one that it is filed under; None where there is none.
        mistakes: {"name": ..., "hint": ...} of what explains that failure: one, two that cannot be told apart, or none.
    """

    stage: Stage
    open: list[str] = field(default_factory=list)
    tests: dict[str, list[str]] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    passed: int = 0
    failed: int = 0
    to_do: int = 0
    failing: set[str] = field(default_factory=set)
    loads: bool = True
    failure: str | None = None
    test: str | None = None
    exercise: str | None = None
    mistakes: list[dict[str, str]] = field(default_factory=list)

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
    def solved(self) -> list[str]:
        """The exercises that are written, and whose tests were all run and did not fail."""
        left = {*self.open, *self.failing, *(number for test in self.waiting for number in self.tests[test])}
        return [e.number for e in exercises(self.stage) if e.number not in left] if self.passed else []

    def add(self, news: News) -> None:
        """Takes in what the runner says of a run of this stage.

        A failure counts against the exercise that is wrong. Where that is not known, it is the last one of the test,
        which builds on the others.
        """
        event = news["event"]
        if event == "tests":
            self.tests = news["tests"]
            self.waiting = set(self.tests)
        elif event in ("passed", "to do", "skipped"):
            self.waiting.discard(news["test"])
            self.passed += event == "passed"
            self.to_do += event == "to do"
        elif event == "failed":
            self.fail(news)
        elif event == "over" and self.waiting and self.failure is None:
            self.failure = self.ended("", "The process of the tests ended between two of them.")

    def fail(self, news: News) -> None:
        test, order = news["test"], list(self.tests)
        numbers = [news["exercise"]] if news.get("exercise") else self.tests[test]
        self.waiting.discard(test)
        self.failed += 1
        self.failing |= set(numbers[-1:] or [exercise.number for exercise in exercises(self.stage)])
        self.loads = self.loads and news.get("kind") != "not loaded"
        if self.test is None or order.index(test) < order.index(self.test):
            self.test, self.exercise, self.mistakes = test, "".join(numbers[-1:]) or None, news.get("mistakes", [])
            self.failure = news["text"] if "text" in news else self.ended(test, news["cause"])

    def ended(self, test: str, cause: str) -> str:
        """The text of a failure that its test could not tell itself."""
        numbers = [f"exercise {number}" for number in self.tests.get(test, [])]
        return "  ".join([short_path(self.stage.exercise), *numbers, test]).rstrip() + f"\n\n{cause}"


def read(stage: Stage) -> Verdict:
    """What can be said of a stage without running it."""
    try:
        return Verdict(stage, open=stage_to_do(stage))
    except StageError as error:
        return Verdict(stage, loads=False, failure=str(error))


class Board:
    """Prints one line per stage, each as soon as it is known; on a terminal, also what is being tested."""

    def __init__(self, verdicts: list[Verdict]):
        self.waiting = list(verdicts)
        self.live = fancy()

    def testing(self, verdict: Verdict) -> None:
        """Says that another test of this stage begins: all stages before it are known."""
        while self.waiting and self.waiting[0] is not verdict:
            self.next_line()
        if self.live:
            stage, count = verdict.stage, len(verdict.tests) - len(verdict.waiting) + 1
            text = f"{stage.number:2d} {stage.name:12s} test {count} of {len(verdict.tests)}"
            print(f"\r{text}\033[K", end="", flush=True)

    def known(self, verdict: Verdict | None = None) -> None:
        """Says that all is known of this stage and those before it; None: of all."""
        while self.waiting and self.next_line() is not verdict:
            pass

    def next_line(self) -> Verdict:
        verdict = self.waiting.pop(0)
        print(f"\r{board_line(verdict)}\033[K" if self.live else board_line(verdict), flush=True)
        return verdict


def board_line(verdict: Verdict, failing: str = "") -> str:
    """One line: number, name, state, and what the state rests on (of a failing stage: `failing`, if given)."""
    stage, state = verdict.stage, verdict.state
    total = verdict.passed + verdict.failed + verdict.to_do
    count = len(exercises(stage))
    stopped = f"stopped at {verdict.test}" if verdict.waiting else f"{verdict.failed} of {total} tests fail"
    details = {
        DONE: f"{total} tests pass",
        FAILING: failing or stopped if verdict.loads else NOT_LOADED,
        TO_DO: "" if verdict.untouched else f"{count - len(verdict.open)} of {count} exercises written",
        WRITTEN: "no test was run",
    }
    arrow = f"-> {short_path(stage.exercise)}"
    parts = filter(None, ["encore" if stage.encore else "", details[state], arrow])
    return f"{stage.number:2d} {stage.name:12s} {coloured(state)}  " + "  ".join(parts)


def failure_text(verdict: Verdict) -> str:
    """The first failure in full, and what in the file differs from the stub's contract."""
    differing = differences(verdict.stage)
    if not differing:
        return verdict.failure or ""
    more = [f"... and {len(differing) - 2} more of this kind."] if len(differing) > 2 else []
    number = verdict.stage.number
    advice = f"If you did not change that, the course has: `make solution STAGE={number}` shows how it is now."
    lines = [textwrap.fill(line, WIDTH, subsequent_indent="  ", break_long_words=False) for line in differing[:2]]
    return "\n".join([verdict.failure or "", "", *lines, *more, advice])


def next_lines(verdict: Verdict) -> list[str]:
    """The next thing to do in a stage."""
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
