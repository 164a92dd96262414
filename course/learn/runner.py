"""How tests are run, for `make test`, `make watch` and `make mutants` alike: by another process, which tells of each.

That process is course/learn/workshop.py; it imports torch and the tests once. This side imports neither.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

from course.core.stages import ROOT, Stage, exercises_folder, short_path

CAN_FORK = sys.platform == "linux" and hasattr(os, "fork") and os.environ.get("COURSE_FORK") != "0"
CATCHES_ALL = 86  # the exit code after a test whose code catches what is raised to end it
LONGEST_TEST = 120  # seconds; the tests' own limits come first, unless code that is not Python's is stuck
News = dict[str, Any]


class Runner:
    """A process that runs the tests of some stages. What it is asked and what it says: see course/learn/workshop.py.

    Where it cannot fork it does one thing after the other, and learners' code can end it.

    Args:
        stages: those whose tests it imports.

    Raises:
        RuntimeError: if there are no tests of a stage.
    """

    def __init__(self, stages: Sequence[Stage]):
        missing = [short_path(stage.test) for stage in stages if not stage.test.exists()]
        if missing:
            raise RuntimeError(f"There are no tests in {', '.join(missing)}.")
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.ready = threading.Event()
        self.closed = False
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (`news` closes it)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "course.learn.workshop", *(str(s.test) for s in stages)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for this process alone
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
        )
        assert self.process.stdin and self.process.stdout
        self.requests, self.lines = self.process.stdin, self.process.stdout

    def ask(self, **request: Any) -> None:
        """Asks for something; a run is of the learner's folder unless the request names another one."""
        with contextlib.suppress(OSError):  # it ended, and `news` says so
            self.requests.write(json.dumps({"folder": str(exercises_folder())} | request).encode() + b"\n")
            self.requests.flush()

    def news(self) -> Generator[News, None, None]:
        """What it says. If it ends without having been closed, that ends its run, or is "broken"."""
        run, test, began = None, None, 0.0
        with self.lines as lines, self.log as log:
            for line in lines:
                found = json.loads(line)
                if found["event"] == "ready":
                    self.ready.set()
                    continue
                run = found["run"] if found["event"] != "over" else None
                test, began = (found["test"], time.monotonic()) if found["event"] == "begun" else (test, began)
                test = test if found["event"] in ("begun", "failing") else None
                yield found
            code = self.process.wait()
            log.seek(0)
            said = log.read()[-3000:].strip()
        if self.closed:
            return
        if run is None or CAN_FORK:
            yield {"event": "broken", "text": f"The tests could not be run:\n{said}"}
            return
        if test:
            yield {"run": run, "event": "failed", "test": test, "cause": cause_of_death(code, time.monotonic() - began)}
        yield {"run": run, "event": "over"}

    def close(self) -> None:
        """Ends the process; at the end of its input it also ends its forks."""
        self.closed = True
        with contextlib.suppress(OSError):
            self.requests.close()
        try:
            self.process.wait(timeout=2 if CAN_FORK else 0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run_all(requests: Iterable[dict[str, Any]], stages: Sequence[Stage], at_once: int = 1) -> Iterator[News]:
    """The news of several runs, each with the index of its request as "run".

    Raises:
        RuntimeError: if the tests could not be run.
    """
    if not stages:
        return
    asked, running = enumerate(requests), 0
    runner = Runner(stages)
    news = runner.news()
    try:
        while True:
            while running < (at_once if CAN_FORK else 1) and (following := next(asked, None)):
                runner.ask(run=following[0], **following[1])
                running += 1
            if not running:
                return
            found = next(news)
            if found["event"] == "broken":
                raise RuntimeError(found["text"])
            yield found
            if found["event"] == "over":
                running -= 1
                if runner.process.poll() is not None:
                    runner.close()
                    runner = Runner(stages)
                    news = runner.news()
    finally:
        runner.close()
        news.close()


def cause_of_death(code: int, seconds: float) -> str:
    """Why a process ended in the middle of a test, which took so long."""
    if seconds >= LONGEST_TEST:
        return f"The test was stopped after {LONGEST_TEST} seconds: is there a loop that never ends?"
    if code == CATCHES_ALL:
        return "The test never ended: is there a loop that never ends, in a `try` that catches every exception?"
    how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    return f"The test ended its process ({how})." + (" Was there no memory left?" if how == "SIGKILL" else "")
