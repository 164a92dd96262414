"""`make latency`: how long a verdict takes after a save, with `make watch` and with a cold `make test`.

For each stage it saves what a learner would: exercise after exercise, first with a mistake of the catalogue, then
right. It works in a folder of its own. Beside each figure stands how many times as long it is as a bare `import torch`,
measured with each stage, which says more than seconds where the machine is another one or has other things to do.
"""

import io
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

from course.core import workspace
from course.core.options import OneStage
from course.core.stages import ROOT, STAGES, Stage
from course.core.stubs import exercises, stub_text
from course.learn.board import DONE, FAILING, TO_DO, Verdict
from course.learn.watch import Watch, in_background, watch_files

PATIENCE = 300  # seconds for one verdict


class Stopwatch(Watch):
    """A watch that notes when the verdict was known."""

    def __init__(self, stage: Stage):
        super().__init__(stage)
        self.known: float | None = None
        self.state = ""
        self.settled = False

    def on_failing(self) -> None:
        self.known = self.known or time.perf_counter()

    def on_verdict(self, verdict: Verdict) -> None:
        self.on_failing()
        self.state, self.settled = verdict.state, True

    def seconds_for(self, stage: Stage, text: str) -> float:
        """Saves a file; the seconds until it is known whether the stage fails, is done or is to do."""
        self.known, self.settled = None, False
        began = time.perf_counter()
        stage.exercise.write_text(text, encoding="utf-8")
        self.wait()
        return (self.known or began) - began

    def wait(self) -> None:
        """Until there is a whole verdict."""
        while not self.settled:
            if not self.handle(self.events.get(timeout=PATIENCE)):
                raise RuntimeError("The tests could not be run.")


def latency(options: OneStage) -> int:
    """Prints a line per stage: seconds, and in brackets the ratio to `import torch`.

    Exit code 1 if a median with `make watch` is not below a second.
    """
    slow = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COURSE_EXERCISES"] = str(Path(folder, "exercises"))
        workspace.write_stubs()
        print(
            f"{'':16s}{'import torch':>12s}{'make test':>15s}{'wrong':>15s}{'watch: median of':>26s}"
            f"{'slowest':>17s}{'all right':>15s}"
        )
        watch = Stopwatch(STAGES[0])
        stop = threading.Event()
        watching = in_background(watch_files, watch.events, stop)
        try:
            for stage in [options.stage] if options.stage else STAGES:
                times, whole = watch_stage(watch, stage)
                median = statistics.median(times)
                slow += median >= 1
                torch = import_torch()
                right, wrong, median, slowest, whole = (
                    f"{seconds:.2f} s ({seconds / torch:.1f})"
                    for seconds in (cold(stage, DONE), cold(stage, FAILING), median, max(times), whole)
                )
                print(
                    f"{stage.number:2d} {stage.name:13s}{torch:10.2f} s{right:>15s}{wrong:>15s}"
                    f"{median:>15s}{len(times):5d} saves{slowest:>17s}{whole:>15s}",
                    flush=True,
                )
        except queue.Empty:
            raise RuntimeError(f"No verdict within {PATIENCE} seconds.") from None
        finally:
            stop.set()
            watch.close()
            watching.join(timeout=2)
    return int(bool(slow))


def watch_stage(watch: Stopwatch, stage: Stage) -> tuple[list[float], float]:
    """Seconds for each save on the way to the whole stage, and for the last of them."""
    times = []
    with redirect_stdout(io.StringIO()):
        watch.runner.ready.wait(PATIENCE)
        watch.settled = False
        watch.run(stage)  # compiles, which a watch does only once
        watch.wait()
        for text, wanted in saves(stage):
            times.append(watch.seconds_for(stage, text))
            if watch.state != wanted:
                raise RuntimeError(f"Stage {stage.number} is {watch.state!r} where it should be {wanted!r}.")
    return times, times[-1]


def saves(stage: Stage) -> Iterator[tuple[str, str]]:
    """(file content, state) of each save of a learner who writes one exercise after the other."""
    from course.feedback.mistakes import exercise_of, mistakes_of, wrong_text

    solution = stage.solution.read_text(encoding="utf-8")
    numbers = [exercise.number for exercise in exercises(stage)]
    for i, number in enumerate(numbers, start=1):
        mistake = next((m for m in mistakes_of(stage.number) if exercise_of(stage.number, m) == number), None)
        if mistake:
            yield stub_text(wrong_text(stage.number, mistake), numbers[:i]), FAILING
        yield stub_text(solution, numbers[:i]), DONE if i == len(numbers) else TO_DO


def import_torch() -> float:
    """Seconds of a process that only imports torch."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], cwd=ROOT, check=True)
    return time.perf_counter() - began


def cold(stage: Stage, state: str) -> float:
    """Seconds of `make test STAGE=n` for a stage that is done, or failing because of its last mistake."""
    from course.feedback.mistakes import mistakes_of, wrong_text

    right = state == DONE
    wrong = wrong_text(stage.number, mistakes_of(stage.number)[-1])
    text = stage.solution.read_text(encoding="utf-8") if right else wrong
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, stage.exercise.name).write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "course", "test", "--stage", str(stage.number)]
        environment = os.environ | {"COURSE_EXERCISES": folder}
        began = time.perf_counter()
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL).returncode
    if code != (0 if right else 1):
        raise RuntimeError(f"Stage {stage.number} is not {state!r} with `make test`.")
    return time.perf_counter() - began
