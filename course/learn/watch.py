"""`make watch`: a verdict after each save.

This process draws the screen. Threads bring it the saves, the keys, and what the runner says; it imports neither torch
nor the learner's code.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import watchfiles

from course.core.assemble import StageError
from course.core.options import OneStage
from course.core.screen import fancy
from course.core.stages import ROOT, STAGES, Stage, exercises_folder, others, short_path, source_of
from course.core.stubs import exercises, stub_text
from course.learn import board, hints
from course.learn.board import DONE, Verdict
from course.learn.runner import CAN_FORK, News, Runner

KEYS = "n next stage   h hint   s show a picture   l list of stages   r run again   q quit"
CLEAR = "\033[2J\033[H"
QUIET = 20  # milliseconds without a change after which a save counts as over
Event = tuple[str, Any]


def watch(options: OneStage) -> int:
    """Watches until the learner quits."""
    if not exercises_folder().is_dir():
        raise ValueError(f"There is no folder {short_path(exercises_folder())}: `make stubs` makes it.")
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    screen = Watch(options.stage)
    stop = threading.Event()
    files = in_background(watch_files, screen.events, stop)
    try:
        with keys_one_by_one():
            in_background(read_keys, screen.events)
            screen.start()
            while screen.handle(screen.events.get()):
                pass
    except KeyboardInterrupt:
        pass
    finally:
        stop.set()
        screen.close()
        files.join(timeout=2)  # it is not Python alone, and must not be in the middle of something when Python ends
    print()
    return 0


class Watch:
    """What the learner sees, and which stage it is about.

    Attributes:
        events: everything that happens: ("saved", stages), ("key", letter), ("news", what the runner says).
        stage: the current one.
        verdict: the one that its run is about to give.
        verdicts: stage number -> the latest verdict.
    """

    def __init__(self, stage: Stage | None):
        self.events: queue.Queue[Event] = queue.Queue()
        self.looking = stage is None  # for the first stage that is not done
        self.stage = stage or STAGES[0]
        self.verdict = Verdict(self.stage)
        self.verdicts: dict[int, Verdict] = {}
        self.tested = {stage.number: content(stage) for stage in STAGES}  # what is in the files, as far as is known
        self.first: dict[int, str | None] = {}  # stage number -> the test that failed last, with which to begin
        self.passed: dict[int, dict[str, tuple[list[str], str]]] = {}  # test -> its exercises, what it saw as it passed
        self.source = ""  # of the current run
        self.number = 0  # of the latest run
        self.began = self.told = 0.0
        self.shown = ""  # the latest verdict, as it is on the screen
        self.runner = self.open_runner()
        self.spare: Runner | None = None

    def open_runner(self) -> Runner:
        runner = Runner(STAGES)
        in_background(lambda: [self.events.put(("news", news)) for news in runner.news()])
        return runner

    def start(self) -> None:
        self.line("Importing torch, diffusers and transformers, once.")
        self.run(self.stage)

    def close(self) -> None:
        for runner in filter(None, [self.runner, self.spare]):
            runner.close()

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
        elif kind == "problem" or value["event"] == "broken":
            print(value if kind == "problem" else value["text"], file=sys.stderr)
            return False
        elif value["run"] == self.number:
            self.hear(value)
        return True

    def run(self, stage: Stage) -> None:
        """Has a stage tested; it is the current one from now on. Whatever is running ends."""
        self.stage, self.verdict = stage, board.read(stage)
        self.tested[stage.number] = content(stage)
        self.began = time.monotonic()
        self.number += 1
        if fancy() and not self.looking:  # what is shown is about an older file
            self.over(f"{CLEAR}{stage.number:2d} {stage.name}  is being tested")
        if CAN_FORK:
            self.runner.ask(stop=True)
        elif self.spare:  # the other one is in use
            self.runner.close()
            self.runner, self.spare = self.spare, None
        if self.verdict.untouched or self.verdict.failure is not None:
            self.finish()
            return
        self.source = source_of(stage.exercise)
        before = self.passed.get(stage.number, {})
        known = [test for test, (numbers, seen) in before.items() if seen == self.seen_by(numbers)]
        self.verdict.passed = len(known) if self.verdict.open else 0
        put_off = {"without" if self.verdict.open else "last": known}
        self.runner.ask(run=self.number, stage=stage.number, first=self.first.get(stage.number), **put_off)
        if not CAN_FORK:
            self.spare = self.open_runner()

    def seen_by(self, numbers: list[str]) -> str:
        """What a test sees of the learner's file: all but the bodies of the exercises that come after its own."""
        order = [exercise.number for exercise in exercises(self.stage)]
        last = max((order.index(number) for number in numbers if number in order), default=len(order))
        return stub_text(self.source, order[: last + 1])

    def hear(self, news: News) -> None:
        """Takes in what the runner says about the current run."""
        event, test, verdict = news["event"], news.get("test", ""), self.verdict
        verdict.add(news)
        if event == "passed":
            numbers = verdict.tests[test]
            self.passed.setdefault(self.stage.number, {})[test] = numbers, self.seen_by(numbers)
        elif event == "failing":
            self.on_failing()
            numbers = " ".join(f"exercise {number}" for number in verdict.tests[test])
            self.tell(f"failing  {numbers}  {test}")
        elif event == "over":
            self.finish()
            return
        if event in ("passed", "to do") and not verdict.failure and time.monotonic() > self.told + 0.05:
            self.told = time.monotonic()
            self.tell(f"{len(verdict.tests) - len(verdict.waiting)} of {len(verdict.tests)} tests pass")

    def tell(self, text: str) -> None:
        if fancy():
            self.over(f"{self.stage.number:2d} {self.stage.name}  {text}")

    def finish(self) -> None:
        """There is a verdict. While nobody waits, the runner gets ready for this stage's next one."""
        stage, self.verdicts[self.stage.number] = self.stage, self.verdict
        self.first[stage.number] = self.verdict.test
        self.on_verdict(self.verdict)
        if self.stage is stage:
            (self.spare or self.runner).ask(warm=stage.number)

    def on_failing(self) -> None:
        """Called as soon as a test fails, before there is a text about it."""

    def on_verdict(self, verdict: Verdict) -> None:
        hints.note_failing(verdict.stage, sorted(verdict.failing))
        if self.looking and verdict.state == DONE and verdict.stage is not STAGES[-1]:
            self.over(board.board_line(verdict) + "\n")
            self.run(STAGES[verdict.stage.number])
            return
        self.looking = False
        self.show(verdict)

    def show(self, verdict: Verdict) -> None:
        """The verdict, what it means, and the keys."""
        seconds = time.monotonic() - self.began
        before = f"a test fails, {verdict.passed} passed before it"
        if verdict.failure is not None:
            meaning = board.failure_text(verdict)
        elif verdict.state == DONE:
            texts = hints.reading_once(verdict.stage)
            meaning = f"Stage {verdict.stage.number} is done.{texts and chr(10)}{texts}"
        else:
            meaning = "\n".join(board.next_lines(verdict)[:2])
        self.shown = f"{board.board_line(verdict, before)}  ({seconds:.1f} s)\n\n{meaning}"
        self.line(f"{CLEAR if fancy() else ''}{self.shown}\n\n{KEYS}")

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
                    self.line(board.board_line(self.verdicts.get(stage.number) or board.read(stage)))
                self.line(f"\n{KEYS}")
            case "r":
                self.run(self.stage)
            case "?":
                self.line(KEYS)
        return True

    def go_on(self) -> None:
        """To the next stage that is not known to be done."""
        done = [number for number, verdict in self.verdicts.items() if verdict.state == DONE]
        left = [stage for stage in others(self.stage) if stage.number not in done]
        if not left:
            self.line("There is no other stage left to do.")
            return
        self.looking = True
        self.run(left[0])

    def hint(self) -> None:
        """Shows the next hint, below the verdict."""
        try:
            exercise = hints.first_not_done(self.stage)
            left = f"No exercise of {short_path(self.stage.exercise)} is left to do."
            text = hints.next_hint(self.stage, exercise, "h") if exercise else left
        except (StageError, ValueError) as error:
            text = str(error)
        self.line(f"{f'{CLEAR}{self.shown}' if fancy() else ''}\n\n{text}\n\n{KEYS}")

    def picture(self) -> None:
        """Has `make show` draw, in a process of its own, which says where the picture is."""
        self.line(f"\nDrawing what stage {self.stage.number} does ...")
        command = [sys.executable, "-m", "course", "show", "--stage", str(self.stage.number)]
        in_background(lambda: subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL))

    def line(self, text: str = "") -> None:
        print(text, flush=True)

    def over(self, text: str) -> None:
        """Text in place of the last line, where the screen can do that."""
        print(f"\r{text}\033[K" if fancy() else text, end="", flush=True)


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
    options: dict[str, Any] = dict(watch_filter=None, step=QUIET, debounce=200, poll_delay_ms=100, recursive=False)
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
        return stage.exercise.read_bytes() if stage.exercise.is_file() else None
    except OSError:
        return None
