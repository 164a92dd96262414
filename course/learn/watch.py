"""`make watch`: a verdict after each save.

This process draws the screen. Threads bring it the saves, the keys, and what the workshop (course/learn/workshop.py) says;
it imports neither torch nor the learner's code.
"""

import contextlib
import io
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import watchfiles

from course.core.assemble import StageError
from course.core.stages import ROOT, STAGES, Stage, exercises_folder, short_path
from course.learn import hints, testing
from course.learn.testing import DONE, Verdict

KEYS = "n next stage   h hint   s show a picture   l list of stages   r run again   q quit"
QUIET = 20  # milliseconds without a change after which a save counts as over
LONGEST_RUN = 120  # seconds, where a run cannot be forked; forks have limits for each test
CAN_FORK = sys.platform == "linux" and os.environ.get("COURSE_FORK") != "0"
Event = tuple[str, Any]


def main(stage: Stage | None) -> int:
    """Watches until the learner quits."""
    if not exercises_folder().is_dir():
        raise ValueError(f"There is no folder {short_path(exercises_folder())}: `make stubs` makes it.")
    testing.check_tests_exist(list(STAGES))
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    watch = Watch(stage)
    stop = threading.Event()
    files = in_background(watch_files, watch.events, stop)
    try:
        with keys_one_by_one():
            in_background(read_keys, watch.events)
            watch.start()
            while watch.handle(watch.events.get()):
                pass
    except KeyboardInterrupt:
        pass
    finally:
        stop.set()
        watch.workshops.close()
        files.join(timeout=2)  # it is not Python alone, and must not be in the middle of something when Python ends
    print()
    return 0


class Watch:
    """What the learner sees, and which stage it is about.

    Attributes:
        events: everything that happens: ("saved", stages), ("key", letter), ("workshop", what it says).
        stage: the current one.
        verdicts: stage number -> the latest verdict.
    """

    def __init__(self, stage: Stage | None):
        self.events: queue.Queue[Event] = queue.Queue()
        self.workshops = Workshops(self.events)
        self.looking = stage is None  # for the first stage that is not done
        self.stage = stage or STAGES[0]
        self.verdicts: dict[int, Verdict] = {}
        self.tested = {stage.number: content(stage) for stage in STAGES}  # what is in the files, as far as is known
        self.first: dict[int, str] = {}  # stage number -> the test that failed last, with which to begin
        self.began = 0.0

    def start(self) -> None:
        self.line("Importing torch, diffusers and transformers, once.")
        self.run(self.stage)

    def handle(self, event: Event) -> bool:
        """Reacts to an event. False: quit."""
        kind, value = event
        if kind == "saved":
            changed = [stage for stage in value if content(stage) != self.tested[stage.number]]
            if changed:
                self.looking = False
                self.run(changed[-1])
        elif kind == "key":
            return self.press(value)
        elif kind == "problem":
            print(value, file=sys.stderr)
            return False
        elif kind == "workshop" and value.get("run") == self.workshops.number:
            self.hear(value)
        return True

    def run(self, stage: Stage) -> None:
        """Has a stage tested; it is the current one from now on."""
        self.stage = stage
        self.tested[stage.number] = content(stage)
        self.began = time.monotonic()
        self.workshops.run(stage, self.first.get(stage.number, ""))

    def hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "progress" and testing.fancy():
            self.over(f"{self.stage.number:2d} {self.stage.name}  {event['count']} of {event['total']} tests pass")
        elif event["event"] == "failing":
            numbers = " ".join(f"exercise {number}" for number in event["exercises"])
            self.on_failing()
            if testing.fancy():
                self.over(f"{self.stage.number:2d} {self.stage.name}  failing  {numbers}  {event['test']}")
        elif event["event"] == "verdict":
            self.first[self.stage.number] = event["first"]
            found = event["verdict"]
            verdict = Verdict(self.stage, **(found | {"failing": set(found["failing"])}))
            self.verdicts[self.stage.number] = verdict
            self.on_verdict(verdict)

    def on_failing(self) -> None:
        """Called as soon as a test fails, before there is a text about it."""

    def on_verdict(self, verdict: Verdict) -> None:
        hints.note_failing(verdict.stage, sorted(verdict.failing))
        if self.looking and verdict.state == DONE and verdict.stage is not STAGES[-1]:
            self.over(testing.board_line(verdict) + "\n")
            self.run(STAGES[verdict.stage.number])
            return
        self.looking = False
        self.show(verdict)

    def show(self, verdict: Verdict) -> None:
        """The verdict, what it means, and the keys."""
        seconds = time.monotonic() - self.began
        if testing.fancy():
            print("\033[2J\033[H", end="")
        before = f"a test fails, {verdict.passed} passed before it"
        self.line(f"{testing.board_line(verdict, before)}  ({seconds:.1f} s)")
        self.line()
        if verdict.failure is not None:
            self.line(verdict.failure)
        elif verdict.state == DONE:
            texts = hints.reading_once(verdict.stage)
            self.line(f"Stage {verdict.stage.number} is done.{texts and chr(10)}{texts}")
        else:
            self.line("\n".join(testing.next_lines(verdict)[:2]))
        self.line()
        self.line(KEYS)

    def press(self, key: str) -> bool:
        """Does what a key asks for. False: quit."""
        match key.lower():
            case "q":
                return False
            case "n":
                self.go_on()
            case "h":
                self.hint()
            case "s":
                self.picture()
            case "l":
                self.line()
                for stage in STAGES:
                    self.line(testing.board_line(self.verdicts.get(stage.number) or testing.read(stage)))
            case "r":
                self.run(self.stage)
            case "?":
                self.line(KEYS)
        return True

    def go_on(self) -> None:
        """To the next stage that is not known to be done."""
        number = self.stage.number
        others = [*STAGES[number:], *STAGES[: number - 1]]
        left = [stage for stage in others if stage.number not in self.verdicts or self.verdicts[stage.number].state != DONE]
        if not left:
            self.line("There is no other stage left to do.")
            return
        self.looking = True
        self.run(left[0])

    def hint(self) -> None:
        self.line()
        try:
            exercise = hints.first_not_done(self.stage)
            if exercise is None:
                self.line(f"No exercise of {short_path(self.stage.exercise)} is left to do.")
            else:
                self.line(hints.next_hint(self.stage, exercise))
        except (StageError, ValueError) as error:
            self.line(str(error))

    def picture(self) -> None:
        """Has `make show` draw, in a process of its own, which says where the picture is."""
        self.line(f"\nDrawing what stage {self.stage.number} does ...")
        command = [sys.executable, "-m", "course", "show", "--stage", str(self.stage.number)]
        in_background(lambda: subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL))

    def line(self, text: str = "") -> None:
        print(text, flush=True)

    def over(self, text: str) -> None:
        """Text in place of the last line, where the screen can do that."""
        print(f"\r{text}\033[K" if testing.fancy() else text, end="", flush=True)


class Workshops:
    """The process that tests. Where it cannot fork it tests only once, and another one waits for the next run."""

    def __init__(self, events: queue.Queue[Event]):
        self.events = events
        self.number = 0  # of the latest run
        self.log = tempfile.TemporaryFile("w+")
        self.current: subprocess.Popen | None = None
        self.spare: subprocess.Popen | None = None
        self.timer: threading.Timer | None = None

    def run(self, stage: Stage, first: str) -> None:
        """Has a stage tested, beginning with the test of this name; what was running is stopped."""
        self.number += 1
        if not CAN_FORK:
            self.stop()
            self.current, self.spare = self.spare, None
        if self.current is None:
            self.current = self.open()
        request = {"run": self.number, "stage": stage.number, "first": first}
        with contextlib.suppress(BrokenPipeError):  # it ended, and says so itself
            self.current.stdin.write(json.dumps(request).encode() + b"\n")
        if not CAN_FORK:
            self.spare = self.open()
            self.timer = threading.Timer(LONGEST_RUN, self.current.kill)
            self.timer.daemon = True
            self.timer.start()

    def open(self) -> subprocess.Popen:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-m", "course.learn.workshop"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            bufsize=0,
            env=environment,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C is for the watch alone
        )
        in_background(self.listen, process)
        return process

    def listen(self, process: subprocess.Popen) -> None:
        """Passes on what a process says, and if it ends without an answer, that."""
        answered = False
        for line in io.BufferedReader(process.stdout):
            event = json.loads(line)
            answered = event["event"] in ("verdict", "broken")
            self.events.put(("workshop", event) if event["event"] != "broken" else ("problem", event["text"]))
        if process is not self.current or answered:
            return
        if CAN_FORK:
            self.log.seek(0)
            self.events.put(("problem", f"The tests cannot be run:\n{self.log.read()[-3000:].strip()}"))
        else:
            failure = f"The tests ended their process, or took longer than {LONGEST_RUN} seconds."
            verdict = {"open": [], "passed": 0, "failed": 1, "to_do": 0, "failing": [], "failure": failure}
            event = {"event": "verdict", "run": self.number, "first": "", "verdict": verdict}
            self.events.put(("workshop", event))

    def stop(self) -> None:
        """Ends the current process."""
        process, self.current = self.current, None
        if self.timer:
            self.timer.cancel()
        if process:
            process.kill()
            process.wait()

    def close(self) -> None:
        """Ends all processes; at the end of its input a workshop also ends its forks."""
        for process in filter(None, [self.spare, self.current]):
            self.spare = self.current = None
            process.stdin.close()
            try:
                process.wait(timeout=2 if CAN_FORK else 0)
            except subprocess.TimeoutExpired:
                process.kill()


# --- keys and files --------------------------------------------------------------------------------------------------


def in_background(function: Callable[..., Any], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


@contextlib.contextmanager
def keys_one_by_one() -> Iterator[None]:
    """Makes the terminal hand over each key as it is pressed, without showing it."""
    if not sys.stdin.isatty() or os.name != "posix":
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def read_keys(events: queue.Queue[Event]) -> None:
    """Keys of the terminal; if the input is none, the first letter of each line."""
    if sys.stdin.isatty() and os.name == "nt":
        import msvcrt

        while True:
            events.put(("key", msvcrt.getwch()))
    if sys.stdin.isatty():
        while key := os.read(sys.stdin.fileno(), 1):
            events.put(("key", key.decode("ascii", errors="ignore")))
    else:
        for line in sys.stdin:
            events.put(("key", line[:1]))


def watch_files(events: queue.Queue[Event], stop: threading.Event) -> None:
    """Stages whose files were perhaps saved, also where that is done by renaming; until it is to stop.

    Every second all of them are looked at: some network folders send no notifications, and polling (which
    WATCHFILES_FORCE_POLLING=1 asks for) takes two saves within a second for one.
    """
    stages = {stage.exercise.name: stage for stage in STAGES}
    options = dict(watch_filter=None, step=QUIET, debounce=200, poll_delay_ms=100, recursive=False)
    options |= dict(rust_timeout=1000, yield_on_timeout=True, raise_interrupt=False, stop_event=stop)
    for polling in (None, True):
        try:
            for changes in watchfiles.watch(exercises_folder(), force_polling=polling, **options):
                names = {Path(path).name for _, path in changes} or set(stages)
                events.put(("saved", [stages[name] for name in sorted(names & set(stages))]))
            return
        except (OSError, RuntimeError) as error:
            if polling:
                events.put(("problem", f"{short_path(exercises_folder())} cannot be watched: {error}"))


def content(stage: Stage) -> bytes | None:
    """What is in the learner's file; None if it is missing."""
    try:
        return stage.exercise.read_bytes()
    except OSError:
        return None
