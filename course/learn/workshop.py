"""The process that tests for `make watch`: everything is imported and collected once, and each run is a fork of that.

It reads requests and writes events, one JSON object per line: {"run": 7, "stage": 3, "first": "test_name"} is answered
by {"event": "progress", ...}, then perhaps {"event": "failing", ...} as soon as a test fails, and in the end
{"event": "verdict", ...}, each with the number of the run. A new request ends the run before it; the end of the input
ends everything.

This process never computes with torch and never runs the learner's code: its forks do, with one thread each, and share
the tests of the run among them. Where processes cannot be forked safely it runs one request itself, and then ends.
"""

import contextlib
import gc
import io
import json
import os
import selectors
import signal
import sys
import time
import traceback
from typing import Any, BinaryIO

import pytest

from course.core.stages import STAGES, Stage, find_stage, short_path
from course.core.stubs import exercise_numbers, exercises, stub_text
from course.learn import testing
from course.learn.watch import CAN_FORK

MOST_WORKERS = 8
COMPUTING_LIMIT = 20  # seconds of computing for one test; the tests' own limits come first, unless C code is stuck
WAITING_LIMIT = 120  # seconds without a sign of life
PATIENCE = 0.3  # seconds that a failure waits for an earlier test, which may say more


def main() -> int:
    requests, events = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    import torch

    torch.set_num_threads(1)
    stages = [stage for stage in STAGES if stage.test.exists()]
    # Captured in memory: forks would share a file.
    arguments = ["--capture=sys", "-q", *testing.pytest_arguments(stages)]
    workshop = Workshop(requests, events)
    with contextlib.redirect_stdout(io.StringIO()):
        code = pytest.main(arguments, plugins=[workshop])
    if workshop.problem:
        workshop.say(event="broken", text=workshop.problem)
    return int(code)


class Workshop:
    """A pytest plugin that, in place of running all tests, runs those that it is asked for."""

    def __init__(self, requests: BinaryIO, events: BinaryIO):
        self.requests, self.events = requests, events
        self.run: Run | None = None
        self.problem = ""
        self.warmed: set[int] = set()
        self.passed: dict[str, str] = {}  # test -> what it saw of the learner's file when it passed

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.problem:
            self.problem = report.longreprtext

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if self.problem:
            return True
        gc.collect()
        gc.freeze()  # else the first garbage collection of a fork copies the memory that it shares with this process
        self.say(event="ready")
        while self.step(session):
            pass
        if self.run:
            self.run.end()
        return True

    def step(self, session: pytest.Session) -> bool:
        """Waits for a request or for news of the workers. False at the end of the requests."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.requests, selectors.EVENT_READ)
            for worker in self.run.workers if self.run else ():
                selector.register(worker.news, selectors.EVENT_READ, worker)
            ready = selector.select(0.1 if self.run else None)
        for key, _ in ready:
            if key.data is None:
                line = self.requests.readline()
                if not line:
                    return False
                return self.start(session, json.loads(line))
        if self.run:
            for key, _ in ready:
                self.run.read(key.data)
            if self.run.is_over():
                self.finish()
        return True

    def start(self, session: pytest.Session, request: dict[str, Any]) -> bool:
        if self.run:
            self.run.end()
        stage = find_stage(request["stage"])
        items = [item for item in session.items if item.path == stage.test]
        items.sort(key=lambda item: item.name != request["first"])
        self.run = Run(self, request["run"], stage, items)
        verdict = self.run.verdict
        if verdict.failure is not None or verdict.untouched:
            self.finish()
        elif CAN_FORK:
            self.run.put_off(self.passed)
            self.run.fork_workers()
        else:
            self.run.work_alone()
            self.finish()
        return CAN_FORK

    def finish(self) -> None:
        """Says the verdict; then, while nobody waits, gets ready for this stage's next run."""
        run, self.run = self.run, None
        run.end()
        self.passed |= run.passed
        verdict = {name: value for name, value in vars(run.verdict).items() if name != "stage"}
        self.say(event="verdict", run=run.number, first=run.first, verdict=verdict | {"failing": sorted(run.verdict.failing)})
        if CAN_FORK and run.stage.number not in self.warmed:
            self.warmed.add(run.stage.number)
            warm_up(run.stage)

    def say(self, **event: Any) -> None:
        self.events.write(json.dumps(event).encode() + b"\n")


def warm_up(stage: Stage) -> None:
    """Compiles what a diagnosis needs: the stage's wrong versions. None of it is the learner's."""
    with contextlib.suppress(ImportError):
        from course.feedback import diagnosis
        from course.feedback.mistakes import mistakes_of

        for mistake in mistakes_of(stage.number):
            diagnosis.wrong_version(stage, mistake)
        gc.freeze()


class Run:
    """One run of a stage's tests, up to the first that fails."""

    def __init__(self, workshop: Workshop, number: int, stage: Stage, items: list[pytest.Item]):
        self.workshop, self.number, self.stage, self.items = workshop, number, stage, items
        self.verdict = testing.read(stage)
        self.source = stage.exercise.read_text(encoding="utf-8") if self.verdict.failure is None else ""
        self.total = len(items)
        self.workers: list[Worker] = []
        self.failures: dict[int, tuple[str, list[str]]] = {}  # index of a test -> its text and its exercises
        self.passed: dict[str, str] = {}
        self.failing: set[int] = set()  # indices of tests that failed and whose text is to come
        self.first = ""  # the name of the test to begin with next time
        self.deadline = float("inf")
        self.told = 0.0

    def put_off(self, passed: dict[str, str]) -> None:
        """Puts tests that passed before, and see nothing new, last; as long as the stage has exercises to do, out."""
        old = [item for item in self.items if passed.get(item.nodeid) == self.text_for(item)]
        new = [item for item in self.items if item not in old]
        if self.verdict.open:
            self.items = new
            self.verdict.passed += len(old)
        else:
            self.items = new + old

    def text_for(self, item: pytest.Item) -> str:
        """What a test sees of the learner's file: everything but the bodies of the exercises that come after its own."""
        numbers = [exercise.number for exercise in exercises(self.stage)]
        last = max((numbers.index(n) for n in exercise_numbers(item) if n in numbers), default=len(numbers))
        return stub_text(self.source, numbers[: last + 1])

    def fork_workers(self) -> None:
        """Puts the tests in a queue, a pipe that holds their indices, and forks the workers that take them from it."""
        self.queue, entrance = os.pipe()
        os.set_blocking(self.queue, False)
        with open(entrance, "wb") as file:
            file.write(b"".join(index.to_bytes(2, "big") for index in range(len(self.items))))
        count = min(len(os.sched_getaffinity(0)), MOST_WORKERS, len(self.items))
        self.workers = [Worker(self) for _ in range(count)]

    def work_alone(self) -> None:
        """Runs the tests in this very process."""
        with contextlib.suppress(StopIteration):
            for index in range(len(self.items)):
                run_test(self.items, index, self.take)
                if self.failures:
                    break

    def take(self, news: dict[str, Any]) -> None:
        """Takes in what a worker says."""
        index = news["test"]
        if news["outcome"] == "begun":
            return
        if news["outcome"] == "failing":
            self.failing.add(index)
            self.say("failing", test=self.items[index].name, exercises=exercise_numbers(self.items[index]))
            return
        self.failing.discard(index)
        if news["outcome"] == "failed":
            self.failures.setdefault(index, (news["text"], exercise_numbers(self.items[index])))
            self.deadline = min(self.deadline, time.monotonic() + PATIENCE)
        else:
            self.verdict.add(news["outcome"], "", [])
            if news["outcome"] == "passed":
                self.passed[self.items[index].nodeid] = self.text_for(self.items[index])
        if time.monotonic() > self.told + 0.05:
            self.told = time.monotonic()
            self.say("progress", count=self.verdict.passed + self.verdict.to_do, total=self.total)

    def say(self, event: str, **details: Any) -> None:
        self.workshop.say(event=event, run=self.number, **details)

    def read(self, worker: "Worker") -> None:
        for news in worker.read():
            self.take(news)
        if worker.ended:
            self.workers.remove(worker)
            if worker.test is not None and (cause := worker.cause_of_death()):
                item = self.items[worker.test]
                text = f"{short_path(self.stage.exercise)}  {item.name}\n\n{cause}"
                self.take({"test": worker.test, "outcome": "failed", "text": text})

    def is_over(self) -> bool:
        """Whether there is a verdict: all tests were run, or one failed and no earlier one is about to."""
        now = time.monotonic()
        for worker in self.workers:
            if now > worker.heard + WAITING_LIMIT:
                worker.kill()
        if self.failures:
            first = min(self.failures)
            earlier = [w for w in self.workers if w.test is not None and w.test < first]
            late = now > self.deadline and not any(index < first for index in self.failing)
            return not earlier or late
        return not self.workers

    def end(self) -> None:
        """Stops the workers, and puts the first failure into the verdict."""
        for worker in self.workers:
            worker.kill()
            worker.wait()
        if self.workers or hasattr(self, "queue"):
            with contextlib.suppress(OSError):
                os.close(self.queue)
        self.workers = []
        if self.failures and self.verdict.failure is None:
            index = min(self.failures)
            self.first = self.items[index].name
            self.verdict.add("failed", *self.failures[index])


class Worker:
    """A fork that runs tests from the run's queue and tells of them through a pipe."""

    def __init__(self, run: Run):
        self.news, tell = os.pipe()
        self.buffer = b""
        self.test: int | None = None
        self.heard = time.monotonic()
        self.ended = False
        self.status = 0
        self.process = os.fork()
        if self.process == 0:
            code = 1
            try:
                work(run, tell)
                code = 0
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(code)
        os.close(tell)

    def read(self) -> list[dict[str, Any]]:
        """What there is to hear. At the end of it, `ended`."""
        data = os.read(self.news, 1 << 16)
        self.heard = time.monotonic()
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        found = [json.loads(line) for line in lines]
        for news in found:
            self.test = None if news["outcome"] in ("passed", "failed", "to do") else news["test"]
        if not data:
            self.wait()
        return found

    def wait(self) -> None:
        if not self.ended:
            os.close(self.news)
            _, self.status = os.waitpid(self.process, 0)
            self.ended = True

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)

    def cause_of_death(self) -> str:
        code = os.waitstatus_to_exitcode(self.status)
        if -code == signal.SIGXCPU:
            return f"Still computing after {COMPUTING_LIMIT} seconds: is there a loop that never ends?"
        if -code == signal.SIGKILL:
            return f"No sign of life for {WAITING_LIMIT} seconds, or no memory left: the test was stopped."
        return f"The test ended its process ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})."


def work(run: Run, tell: int) -> None:
    """Runs tests until the queue is empty or one fails."""
    import resource

    failed = False

    def send(news: dict[str, Any]) -> None:
        nonlocal failed
        failed = failed or news["outcome"] == "failed"
        os.write(tell, json.dumps(news).encode() + b"\n")

    while not failed:
        try:
            taken = os.read(run.queue, 2)
        except BlockingIOError:
            return
        if not taken:
            return
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + COMPUTING_LIMIT, hard))
        run_test(run.items, int.from_bytes(taken, "big"), send)


def run_test(items: list[pytest.Item], index: int, send) -> None:
    """Runs one test and tells what happens."""
    item = items[index]
    reporter = Reporter(index, send)
    item.config.pluginmanager.register(reporter)
    send({"test": index, "outcome": "begun"})
    try:
        # What is named as the next test decides what is torn down: here everything but the module.
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=item.getparent(pytest.Module))
    finally:
        item.config.pluginmanager.unregister(reporter)
    send({"test": index, "outcome": reporter.outcome, "text": reporter.text})


class Reporter:
    """A pytest plugin that hears how one test goes."""

    def __init__(self, index: int, send):
        self.index, self.send = index, send
        self.outcome, self.text = "passed", ""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo):
        """Tells of a failure before its text is made, which takes a while."""
        if call.excinfo and not call.excinfo.errisinstance((NotImplementedError, pytest.skip.Exception)):
            self.send({"test": self.index, "outcome": "failing"})
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome = testing.outcome_of(report)
        if outcome == "failed" and self.outcome != "failed":
            self.outcome, self.text = outcome, report.longreprtext + testing.printed(report.capstdout)
        elif outcome == "to do" and self.outcome != "failed":
            self.outcome = outcome


if __name__ == "__main__":
    sys.exit(main())
