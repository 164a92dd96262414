"""Runs the tests of a stage on many versions of it, with everything imported and collected only once.

One process imports the test files; for each version it forks a child that runs the tests of that stage up to the first
failure. Where a process cannot fork, the versions are run one after the other.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from course.stages import ROOT, STAGES, find_stage

CHILDREN = 2  # at once
LIMIT = 180.0  # seconds for one version


@dataclass
class Version:
    """One version of a stage: its number and its text."""

    stage: int
    text: str


@dataclass
class Outcome:
    """What the tests say: how many passed before the first failure, and its text ("" if there is none)."""

    passed: int = 0
    test: str = ""
    failure: str = ""


def run_versions(versions: Sequence[Version]) -> list[Outcome]:
    """The outcome of each version, in the same order.

    Raises:
        RuntimeError: if the tests could not be run.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "versions.json"
        path.write_text(json.dumps([asdict(version) for version in versions]), encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "warm", str(path)], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"The tests could not be run:\n{done.stdout}\n{done.stderr}")
        return [Outcome(**outcome) for outcome in json.loads(path.read_text(encoding="utf-8"))]


def main() -> int:
    path = Path(sys.argv[1])
    versions = [Version(**version) for version in json.loads(path.read_text(encoding="utf-8"))]
    outcomes = forked(versions) if hasattr(os, "fork") else [alone(version) for version in versions]
    path.write_text(json.dumps([asdict(outcome) for outcome in outcomes]), encoding="utf-8")
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


def run_pytest(arguments: list[str], plugins: list[object]) -> None:
    import pytest

    shared = ["--blocks=exercises", f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}"]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = pytest.main([*shared, *arguments], plugins=plugins)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(output.getvalue())


def alone(version: Version) -> Outcome:
    recorder = Recorder()
    with handed_in(version):
        run_pytest(["-x", str(find_stage(version.stage).test)], [recorder])
    return recorder.outcome


def forked(versions: Sequence[Version]) -> list[Outcome]:
    stages = [stage for stage in STAGES if any(version.stage == stage.number for version in versions)]
    fork = Fork(versions)
    run_pytest([str(stage.test) for stage in stages], [fork])
    return fork.outcomes


class Fork:
    """A pytest plugin that, once all tests are collected, runs them in one child per version."""

    def __init__(self, versions: Sequence[Version]) -> None:
        self.versions = versions
        self.outcomes = [Outcome() for _ in versions]

    def pytest_runtestloop(self, session) -> bool:
        import diagnosis
        from mistakes import mistakes_of

        for number in {version.stage for version in self.versions}:
            for mistake in mistakes_of(number):
                diagnosis.wrong_version(find_stage(number), mistake)
        waiting, running = list(enumerate(self.versions)), {}
        while waiting or running:
            while waiting and len(running) < CHILDREN:
                index, version = waiting.pop(0)
                running[index] = Child(session, version)
            for index, child in list(running.items()):
                if child.ended():
                    self.outcomes[index] = child.outcome
                    del running[index]
            time.sleep(0.005)
        return True


class Child:
    """A process that runs the tests of one version and writes the outcome into a file."""

    def __init__(self, session, version: Version) -> None:
        self.file = tempfile.NamedTemporaryFile(mode="w+", encoding="utf-8")
        self.started = time.monotonic()
        self.outcome: Outcome | None = None
        self.process = os.fork()
        if self.process == 0:
            try:
                json.dump(asdict(run_items(session, version)), self.file)
                self.file.flush()
            finally:
                os._exit(0)

    def ended(self) -> bool:
        process, status = os.waitpid(self.process, os.WNOHANG)
        if process == 0:
            if time.monotonic() - self.started < LIMIT:
                return False
            os.kill(self.process, 9)
            os.waitpid(self.process, 0)
        text = Path(self.file.name).read_text(encoding="utf-8")
        self.file.close()
        self.outcome = Outcome(**json.loads(text)) if text else Outcome(test="?", failure="The tests came to no end.")
        return True


def run_items(session, version: Version) -> Outcome:
    """Runs the collected tests of this version's stage up to the first failure."""
    recorder = Recorder()
    session.config.pluginmanager.register(recorder)
    items = [item for item in session.items if item.path == find_stage(version.stage).test]
    with handed_in(version):
        for i, item in enumerate(items):
            following = items[i + 1] if i + 1 < len(items) else None
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if recorder.outcome.test:
                break
    return recorder.outcome


if __name__ == "__main__":
    sys.exit(main())
