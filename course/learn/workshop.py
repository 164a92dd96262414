"""The process that runs tests: everything is imported and collected once, and each run is a fork of that.

It reads requests and writes news, one JSON object per line. A request may hold

    {"run": 7, "stage": 3, "folder": "/..."}    runs the stage's tests on the file in this folder. Also, if wanted:
        "first": "3.2"    tests of this name, or of this exercise, come first
        "last": [...]     tests of these names come last
        "without": [...]  tests of these names are left out
        "whole": true     goes on after a failure, unless that can be said of every other test as well
        "workers": 1      how many forks share the tests (otherwise one per processor)
        "diagnose": 0     how many failures each of them explains at length (otherwise 1); 0: nothing is said of any
        "seconds": 0.5    how long it may run other tests for that; then the search itself has no hurry
        "memory": 1 << 30    how many bytes a fork may take at most (otherwise 4 GB)
    {"warm": 3}           gets ready to diagnose failures of this stage
    {"stop": true}        ends all runs, without a word

It says {"event": "ready"} once all is imported; and the news of a run are, each with "run" and "event",

    "tests"     "tests": {name: exercises} in their order
    "begun"     "test": its name
    "failing"   of a test, before there is a text about it
    "passed", "failed", "to do", "skipped"    of a test; a failure has "text", "mistakes", "exercise" (the one that is
                wrong; "" if that is not known) and "kind" ("stuck", "no memory", "not loaded" or ""), or instead
                "cause", if the test ended its process
    "over"      there is nothing more to come

This process never computes with torch and never runs the learner's code: its forks do, with one thread each. Where
processes cannot be forked safely it runs one request after the other itself.
"""

import contextlib
import faulthandler
import gc
import io
import json
import os
import selectors
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import pytest

from course.core import limits
from course.core.stages import ROOT, find_stage
from course.core.stubs import exercise_numbers
from course.learn.runner import CAN_FORK, CATCHES_ALL, LONGEST_TEST, News, cause_of_death

MOST_WORKERS = 8
UNHURRIED = 10.0  # seconds for finding the mistakes that explain a failure, where no learner waits for it
LONGEST_SEARCH = 900  # seconds for that in all, on a machine on which many things run at once
PATIENCE = 0.3  # seconds that a failure waits for an earlier test, which may say more
OUTCOMES = ("passed", "failed", "to do", "skipped")
Say = Callable[[News], object]


def main() -> int:
    requests, news = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    gc.disable()  # until all is imported: looking for garbage, of which there is hardly any, takes a sixth of the time
    import torch

    torch.set_num_threads(1)
    options = ["--blocks=exercises", "--tb=native", f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}"]
    options += ["-q", "-p", "no:faulthandler", "--capture=sys"]  # captured in memory: forks would share a file
    workshop, output = Workshop(requests, news), io.StringIO()
    with contextlib.redirect_stdout(output):
        code = pytest.main([*options, *sys.argv[1:]], plugins=[workshop])
    if code or workshop.problem:
        print(workshop.problem or output.getvalue(), file=sys.stderr)
    return int(bool(code or workshop.problem))


class Workshop:
    """A pytest plugin that, in place of running all tests, runs those that it is asked for."""

    def __init__(self, requests: BinaryIO, news: BinaryIO):
        self.requests, self.news = requests, news
        self.runs: dict[int, Run] = {}
        self.warmed: set[int] = set()
        self.problem = ""

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.problem:
            self.problem = report.longreprtext

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if self.problem:
            return True
        gc.freeze()  # else the first garbage collection of a fork copies the memory that it shares with this process
        gc.enable()
        self.say({"event": "ready"})
        while self.step(session) if CAN_FORK else self.take(session, self.requests.readline()):
            pass
        self.stop()
        return True

    def step(self, session: pytest.Session) -> bool:
        """Waits for a request or for news of the workers. False at the end of the requests."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.requests, selectors.EVENT_READ)
            for run in self.runs.values():
                for worker in run.workers:
                    selector.register(worker.news, selectors.EVENT_READ, (run, worker))
            ready = [key.data for key, _ in selector.select(0.1 if self.runs else None)]
        for run, worker in filter(None, ready):
            run.read(worker)
        for run in [run for run in self.runs.values() if run.is_over()]:
            del self.runs[run.number]
            run.end()
            self.say({"run": run.number, "event": "over"})
        return None not in ready or self.take(session, self.requests.readline())

    def take(self, session: pytest.Session, line: bytes) -> bool:
        """Does what is asked for. False at the end of the requests."""
        request = json.loads(line) if line else {}
        if request.get("stop"):
            self.stop()
        if request.get("warm"):
            self.warm(request["warm"])
        if "run" in request:
            items = chosen([item for item in session.items if item.path == find_stage(request["stage"]).test], request)
            self.say({"run": request["run"], "event": "tests", "tests": {i.name: exercise_numbers(i) for i in items}})
            if CAN_FORK:
                self.runs[request["run"]] = Run(request, items, self.say)
            else:
                work(request, items, range(len(items)), self.say)
                session._setupstate.teardown_exact(None)  # so that the next run loads the file anew
                self.say({"run": request["run"], "event": "over"})
        return bool(line)

    def warm(self, number: int) -> None:
        """Compiles what a diagnosis needs: the stage's wrong versions. None of it is the learner's."""
        if number not in self.warmed:
            from course.feedback.mistakes import mistakes_of
            from course.feedback.versions import wrong_version

            self.warmed.add(number)
            for mistake in mistakes_of(number):
                wrong_version(find_stage(number), mistake)
            gc.freeze()

    def stop(self) -> None:
        while self.runs:
            self.runs.popitem()[1].end()

    def say(self, news: News) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody listens any more; the requests are over, too
            self.news.write(as_line(news))


def as_line(news: News) -> bytes:
    return json.dumps(news).encode() + b"\n"


def chosen(items: list[pytest.Item], request: dict[str, Any]) -> list[pytest.Item]:
    """The tests that are asked for, in the order of the request."""
    first, last, without = request.get("first"), request.get("last", ()), request.get("without", ())
    items = [item for item in items if item.name not in without]
    return sorted(items, key=lambda i: (i.name != first and first not in exercise_numbers(i), i.name in last))


class Run:
    """One run of a stage's tests, shared among forks that take them from a queue: a pipe that holds their indices."""

    def __init__(self, request: dict[str, Any], items: list[pytest.Item], say: Say):
        self.request, self.items, self.say = request, items, say
        self.number = request["run"]
        self.indices = {item.name: index for index, item in enumerate(items)}
        self.failing: set[int] = set()  # tests that failed and whose text is to come
        self.failed: set[int] = set()  # tests that failed and end the run
        self.deadline = float("inf")
        self.queue, entrance = os.pipe()
        os.set_blocking(self.queue, False)
        with open(entrance, "wb") as file:
            file.write(b"".join(index.to_bytes(2, "big") for index in range(len(items))))
        count = request.get("workers") or min(len(os.sched_getaffinity(0)), MOST_WORKERS)
        self.workers = [Worker(self) for _ in range(min(count, len(items)))]

    def waiting(self) -> Iterator[int]:
        """Indices from the queue, until it is empty."""
        with contextlib.suppress(BlockingIOError):
            while taken := os.read(self.queue, 2):
                yield int.from_bytes(taken, "big")

    def read(self, worker: "Worker") -> None:
        for news in worker.read():
            self.hear(news)
        if worker.ended:
            self.workers.remove(worker)
            if worker.test and worker.explains and self.indices[worker.test] in self.failing:
                self.workers.append(Worker(self, self.indices[worker.test]))  # its end was that of another test
            elif worker.test:
                cause = cause_of_death(worker.code, time.monotonic() - worker.began)
                self.hear({"run": self.number, "event": "failed", "test": worker.test, "cause": cause, "ends": True})

    def hear(self, news: News) -> None:
        """Passes on what a worker says, and notes what may end the run."""
        index = self.indices[news["test"]]
        if news["event"] == "failing":
            self.failing.add(index)
        elif news["event"] == "failed":
            self.failing.discard(index)
            if news["ends"]:
                self.failed.add(index)
                self.deadline = min(self.deadline, time.monotonic() + PATIENCE)
        self.say(news)

    def is_over(self) -> bool:
        """Whether all tests were run, or one ended the run and no earlier one is about to."""
        if not self.failed:
            return not self.workers
        first = min(self.failed)
        earlier = [worker for worker in self.workers if worker.test and self.indices[worker.test] < first]
        late = time.monotonic() > self.deadline and not any(index < first for index in self.failing)
        return not earlier or late

    def end(self) -> None:
        for worker in self.workers:
            worker.kill()
        os.close(self.queue)


class Worker:
    """A fork that runs tests from a run's queue and tells of them through a pipe.

    only: the index of a test that it runs instead. Its failure is not explained, for which others would be run.
    """

    def __init__(self, run: Run, only: int | None = None):
        self.explains = only is None
        request = run.request if only is None else run.request | {"diagnose": 0}
        indices = run.waiting() if only is None else iter([only])
        self.news, tell = os.pipe()
        self.buffer = b""
        self.test = ""  # the one that it is in the middle of
        self.began = 0.0
        self.ended = False
        self.process = os.fork()
        if self.process == 0:
            try:
                work(request, run.items, indices, lambda news: os.write(tell, as_line(news)))
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(0)
        os.close(tell)

    def read(self) -> list[News]:
        """What there is to hear. At the end of it, `ended`."""
        data = os.read(self.news, 1 << 16)
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        found = [json.loads(line) for line in lines]
        for news in found:
            self.began = time.monotonic() if news["event"] == "begun" else self.began
            self.test = "" if news["event"] in OUTCOMES else news["test"]
        if not data:
            self.wait()
        return found

    def wait(self) -> None:
        os.close(self.news)
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        self.ended = True

    def kill(self) -> None:
        os.kill(self.process, 9)
        self.wait()


# --- in the fork -----------------------------------------------------------------------------------------------------


def work(request: dict[str, Any], items: list[pytest.Item], indices: Iterable[int], say: Say) -> None:
    """Runs tests, until a failure ends the run."""
    from course.feedback import diagnosis

    limits.give_up = lambda: os._exit(CATCHES_ALL)
    if CAN_FORK:
        limits.limit_memory(request.get("memory", limits.MEMORY))
    os.environ["COURSE_EXERCISES"] = request["folder"]
    diagnosis.left = request.get("diagnose", 1)
    diagnosis.off = diagnosis.left == 0
    if "seconds" in request:
        diagnosis.LIMIT_OF_OTHERS = request["seconds"]
        diagnosis.LIMIT = UNHURRIED + request["seconds"]
    for index in indices:
        faulthandler.dump_traceback_later(LONGEST_TEST, exit=True, file=2)
        if run_test(request, items[index], say):
            break
    faulthandler.cancel_dump_traceback_later()


def run_test(request: dict[str, Any], item: pytest.Item, say: Say) -> bool:
    """Runs one test and tells how it goes. True if that ends the run."""
    longest = LONGEST_SEARCH if "seconds" in request else LONGEST_TEST

    def tell(event: str, **details: Any) -> None:
        if event == "failing":  # what follows is the search for its reason, which has time of its own
            faulthandler.dump_traceback_later(longest, exit=True, file=2)
        say({"run": request["run"], "event": event, "test": item.name} | details)

    recorder = Recorder(item, tell)
    item.config.pluginmanager.register(recorder)
    tell("begun")
    try:
        # What is named as the next test decides what is torn down: here everything but the module.
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=item.getparent(pytest.Module))
    finally:
        item.config.pluginmanager.unregister(recorder)
    report = recorder.failure
    if report is None:
        tell(recorder.outcome)
        return False
    kind = getattr(report, "kind", "")
    ends = bool(kind) or not request.get("whole")
    text = report.longreprtext + printed(report.capstdout)
    known = {name: getattr(report, name) for name in ("mistakes", "exercise") if hasattr(report, name)}
    tell("failed", text=text, kind=kind, ends=ends, **known)
    return ends


class Recorder:
    """A pytest plugin that hears how one test goes. To explain its failure, others may be run meanwhile."""

    def __init__(self, item: pytest.Item, tell: Callable[[str], None]):
        self.item, self.tell = item, tell
        self.outcome = "skipped"
        self.failure: pytest.TestReport | None = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo):
        """Tells of a failure before its text is made, which takes a while."""
        known = item is not self.item or call.excinfo is None
        if not known and not call.excinfo.errisinstance((NotImplementedError, pytest.skip.Exception)):
            self.tell("failing")
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failure = self.failure or report
        elif report.skipped and "to do:" in str(report.longrepr):
            self.outcome = "to do"
        elif report.passed and report.when == "call":
            self.outcome = "passed"


def printed(text: str, lines: int = 10) -> str:
    """What the code under test printed: the last lines of it."""
    shown = text.rstrip().splitlines()[-lines:]
    return "\n".join(["", "", "printed:", *(f"    {line}" for line in shown)]) if shown else ""


if __name__ == "__main__":
    exit_code = main()
    sys.stderr.flush()
    os._exit(exit_code)  # without the time that it takes to clear up what was imported
