"""Runs the tests of a stage on many versions of it, with everything imported and collected only once.

One process imports the test files; for each version it forks a child that runs the tests of that stage up to the first
failure. Where a process cannot fork, the versions are run one after the other.
"""

import contextlib
import gc
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from course.core.stages import ROOT, STAGES, find_stage
from course.feedback import diagnosis
from course.feedback.mistakes import mistakes_of

with contextlib.suppress(ImportError):  # only where processes fork
    import resource

CHILDREN = 2  # at once
LIMIT = 120  # seconds of computing for one version


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


@dataclass
class Outcome:
    """What the tests say: how many passed before the first failure, and its text ("" if there is none)."""

    passed: int = 0
    test: str = ""
    failure: str = ""


def run_versions(
    versions: Sequence[Version],
    report: Callable[[int, Outcome], None] = lambda index, outcome: None,
    diagnose: bool = True,
) -> list[Outcome]:
    """The outcome of each version, in the same order.

    Args:
        report: called with each version's index and outcome as soon as it is there.
        diagnose: whether the failures name the mistake, which takes most of the time.

    Raises:
        RuntimeError: if the tests could not be run.
    """
    outcomes = {}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as errors:
        json.dump([asdict(version) for version in versions], given)
        given.seek(0)
        command = [sys.executable, "-m", "tools.warm", f"--diagnose={int(diagnose)}"]
        pipes = {"stdin": given, "stdout": subprocess.PIPE, "stderr": errors}
        with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) as process:
            for line in process.stdout:
                index, outcome = json.loads(line)
                outcomes[index] = Outcome(**outcome)
                report(index, outcomes[index])
        errors.seek(0)
        if process.returncode or len(outcomes) < len(versions):
            raise RuntimeError(f"The tests could not be run:\n{errors.read()}")
    return [outcomes[index] for index in range(len(versions))]


def main() -> int:
    versions = [Version(**version) for version in json.load(sys.stdin)]
    stages = [stage for stage in STAGES if any(version.stage == stage.number for version in versions)]
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as channel:  # pytest captures the other one

        def report(index: int, outcome: Outcome) -> None:
            print(json.dumps([index, asdict(outcome)]), file=channel, flush=True)

        if hasattr(os, "fork"):
            run_pytest([str(stage.test) for stage in stages], Fork(versions, report))
        else:
            for index, version in enumerate(versions):
                report(index, alone(version))
    return 0


class Recorder:
    """A pytest plugin that notes how many tests passed, and the first failure."""

    def __init__(self) -> None:
        self.outcome = Outcome()

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed and not self.outcome.test:
            self.outcome.test = report.nodeid.split("::")[-1]
            self.outcome.failure = report.longreprtext
        elif report.passed and report.when == "call":
            self.outcome.passed += 1

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            raise RuntimeError(report.longreprtext)


@contextlib.contextmanager
def handed_in(version: Version) -> Iterator[None]:
    """Makes this version the learner's file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{find_stage(version.stage).module}.py").write_text(version.text, encoding="utf-8")
        os.environ["COURSE_EXERCISES"] = folder
        try:
            yield
        finally:
            del os.environ["COURSE_EXERCISES"]


def run_pytest(arguments: list[str], plugin: object) -> None:
    """The options of this command itself (--diagnose) are pytest's."""
    import pytest

    shared = ["--blocks=exercises", "--tb=native", f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}"]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = pytest.main([*shared, *sys.argv[1:], *arguments], plugins=[plugin])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(output.getvalue())


def alone(version: Version) -> Outcome:
    """Runs the tests of one version in this process."""
    recorder = Recorder()
    with handed_in(version):
        run_pytest(["-x", str(find_stage(version.stage).test)], recorder)
    return recorder.outcome


class Fork:
    """A pytest plugin that, once all tests are collected, runs them in one child per version."""

    def __init__(self, versions: Sequence[Version], report: Callable[[int, Outcome], None]) -> None:
        self.versions = versions
        self.report = report

    def pytest_runtestloop(self, session) -> bool:
        for number in {version.stage for version in self.versions}:
            for mistake in mistakes_of(number):
                diagnosis.wrong_version(find_stage(number), mistake)
        gc.freeze()  # else every child's first garbage collection copies the memory that it shares with this process
        waiting, running = list(enumerate(self.versions)), {}
        while waiting or running:
            if waiting and len(running) < CHILDREN:
                index, version = waiting.pop(0)
                child = Child(session, version)
                running[child.process] = index, child
            else:
                process, _ = os.wait()
                index, child = running.pop(process)
                self.report(index, child.outcome())
        return True


class Child:
    """A process that runs the tests of one version and writes the outcome into a file."""

    def __init__(self, session, version: Version) -> None:
        self.file = tempfile.NamedTemporaryFile(mode="w+", encoding="utf-8")
        self.process = os.fork()
        if self.process == 0:
            try:
                resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 1))
                json.dump(asdict(run_items(session, version)), self.file)
                self.file.flush()
            finally:
                os._exit(0)

    def outcome(self) -> Outcome:
        text = Path(self.file.name).read_text(encoding="utf-8")
        self.file.close()
        return Outcome(**json.loads(text)) if text else Outcome(test="?", failure="The tests came to no end.")


def run_items(session, version: Version) -> Outcome:
    """Runs the collected tests of this version's stage up to the first failure, those of its exercise first."""
    recorder = Recorder()
    session.config.pluginmanager.register(recorder)
    items = [item for item in session.items if item.path == find_stage(version.stage).test]
    items.sort(key=lambda item: not is_about(item, version.exercise))
    with handed_in(version):
        for i, item in enumerate(items):
            following = items[i + 1] if i + 1 < len(items) else None
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if recorder.outcome.test:
                break
    return recorder.outcome


def is_about(item, exercise: str) -> bool:
    return any(exercise in marker.args for marker in item.iter_markers("exercise"))


if __name__ == "__main__":
    sys.exit(main())
