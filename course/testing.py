"""Runs the tests of stages and says where the learner stands."""

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass, field

from course.assemble import StageError, stage_to_do
from course.stages import ROOT, STAGES, Stage, short_path
from course.stubs import exercises, to_do_lines

DONE, FAILING, TO_DO, WRITTEN = "done", "failing", "to do", "written"
COLOURS = {DONE: "32", FAILING: "31", TO_DO: "33", WRITTEN: "36"}


@dataclass
class Verdict:
    """Where one stage stands.

    Attributes:
        open: numbers of the exercises that are still stubs.
        passed, failed, to_do: numbers of tests; all 0 if none were run.
        failure: the text of the first failing test, or why the file cannot be read.
    """

    stage: Stage
    open: list[str] = field(default_factory=list)
    passed: int = 0
    failed: int = 0
    to_do: int = 0
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


def test_in_order() -> int:
    """Tests stage by stage until the first that is not done. Exit code 1 only if something that was tried fails."""
    verdicts = [read(stage) for stage in STAGES]
    first_idle = next((i for i, verdict in enumerate(verdicts) if verdict.untouched or verdict.failure), len(STAGES))
    run_tests(verdicts[:first_idle])
    current = next((i for i, verdict in enumerate(verdicts) if verdict.state != DONE), len(STAGES))
    for verdict in verdicts[: current + 1]:
        print(board_line(verdict))
    later = verdicts[current + 1 :]
    if later:
        names = ", ".join(verdict.stage.name + (" (written)" if not verdict.open else "") for verdict in later)
        print(f"   then: {names}")
    print(f"{current}/{len(STAGES)} stages")
    if current == len(STAGES):
        print("\nAll ten stages are yours: `make generate` now draws with your code alone.")
        return 0
    explain(verdicts[current])
    return int(verdicts[current].state == FAILING)


def test_one(stage: Stage) -> int:
    """Tests one stage. Exit code 0 only if it is done."""
    verdict = read(stage)
    if not verdict.untouched and not verdict.failure:
        run_tests([verdict])
    print(board_line(verdict))
    if verdict.state != DONE:
        explain(verdict)
    return int(verdict.state != DONE)


def read(stage: Stage) -> Verdict:
    """What can be said of a stage without running it."""
    try:
        return Verdict(stage, open=stage_to_do(stage))
    except StageError as error:
        return Verdict(stage, failure=str(error))


def run_tests(verdicts: list[Verdict]) -> None:
    """Runs the tests of these stages in one go, up to the first stage that is not done, and fills in the verdicts.

    Raises:
        RuntimeError: if the tests could not be run at all.
    """
    missing = [short_path(verdict.stage.test) for verdict in verdicts if not verdict.stage.test.exists()]
    if missing:
        raise RuntimeError(f"There are no tests in {', '.join(missing)}.")
    if not verdicts:
        return
    import pytest

    collector = Collector(verdicts)
    output = io.StringIO()
    arguments = ["--blocks=exercises", f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}"]
    arguments += [str(verdict.stage.test) for verdict in verdicts]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = pytest.main(arguments, plugins=[collector])
    if code == pytest.ExitCode.INTERRUPTED and not collector.broken:
        raise KeyboardInterrupt
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"The tests could not be run:\n{output.getvalue().strip()}")


class Collector:
    """A pytest plugin that sorts test results by stage and leaves out what comes after the first stage not done."""

    def __init__(self, verdicts: list[Verdict]):
        self.verdicts = {verdict.stage.test.name: verdict for verdict in verdicts}
        self.broken = False

    def pytest_collectreport(self, report) -> None:
        self.broken = self.broken or report.failed

    def pytest_runtest_protocol(self, item) -> bool | None:
        for verdict in self.verdicts.values():
            if verdict is self.verdicts.get(item.path.name):
                return None
            if verdict.state != DONE:
                return True  # handled: an earlier stage comes first
        return None

    def pytest_runtest_logreport(self, report) -> None:
        verdict = self.verdicts[report.nodeid.split("::")[0].split("/")[-1]]
        if report.failed:
            verdict.failed += 1
            if verdict.failure is None:
                verdict.failure = report.longreprtext + printed(report.capstdout)
        elif report.skipped and "to do:" in str(report.longrepr):
            verdict.to_do += 1
        elif report.passed and report.when == "call":
            verdict.passed += 1


def printed(text: str, lines: int = 10) -> str:
    """What the code under test printed: the last lines of it."""
    shown = text.rstrip().splitlines()[-lines:]
    return "\n".join(["", "", "printed:", *(f"    {line}" for line in shown)]) if shown else ""


def board_line(verdict: Verdict) -> str:
    """One line: number, name, state, and what the state rests on."""
    stage, state = verdict.stage, verdict.state
    total = verdict.passed + verdict.failed + verdict.to_do
    parts = len(exercises(stage))
    details = {
        DONE: f"{total} tests pass",
        FAILING: f"{verdict.failed} of {total} tests fail" if total else "cannot be loaded",
        TO_DO: "" if verdict.untouched else f"{parts - len(verdict.open)} of {parts} exercises written",
        WRITTEN: "no test was run",
    }
    arrow = f"-> {short_path(stage.exercise)}"
    return f"{stage.number:2d} {stage.name:12s} {coloured(state)}  " + "  ".join(filter(None, [details[state], arrow]))


def explain(verdict: Verdict) -> None:
    """The first failure in full, or the next exercise; then the command for that."""
    stage = verdict.stage
    print()
    if verdict.failure is not None:
        print(verdict.failure)
        print(f"\nagain: make test STAGE={stage.number}")
        return
    lines = to_do_lines(stage.exercise)
    if not lines:
        print(f"{verdict.to_do} tests are to do: an exercise still raises NotImplementedError.")
        return
    number = min(lines, key=lines.get)
    exercise = next((e for e in exercises(stage) if e.number == number), None)
    title = f": {exercise.title}" if exercise else ""
    print(f"next: exercise {number}{title}")
    print(f"      {short_path(stage.exercise)}:{lines[number]}")
    print(f"then: make test STAGE={stage.number}")


def coloured(state: str) -> str:
    """The state, padded, and in colour on a terminal that wants it."""
    padded = f"{state:7s}"
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\033[{COLOURS[state]}m{padded}\033[0m" if wanted else padded


def check(slow: bool) -> int:
    """The repo's own tests: the whole of tests/, against solutions/."""
    command = [sys.executable, "-m", "pytest", "-q", "--blocks=solutions", *(["--slow"] if slow else [])]
    environment = {name: value for name, value in os.environ.items() if name != "COURSE_EXERCISES"}
    return subprocess.run(command, cwd=ROOT, env=environment).returncode
