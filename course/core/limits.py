"""Time limits for code that may never end."""

import _thread
import contextlib
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from course.core.stages import short_path

BELL = getattr(signal, "SIGALRM", signal.SIGTERM)  # what a timer sends, or a thread where the system has no timers
PATIENCE = 6  # code that hardly gets to run, on a busy machine or because it waits, may take so many times as long


MOST_RAISED = 3  # code that still runs after so many Stuck catches them
give_up: Callable[[], object] | None = None  # what is then done about it, if anything can be


class Stuck(BaseException):
    """Out of time. Not an Exception, so that neither a learner's `except Exception` nor hypothesis holds it up."""


@contextlib.contextmanager
def limited(seconds: float, path: Path | None = None, patience: float = PATIENCE) -> Iterator[None]:
    """Raises Stuck in the code below after so many seconds of computing, naming the line of `path` that was running.

    With waiting it may take `patience` times as long.
    """
    started, computed = time.monotonic(), time.process_time()
    raised = 0

    def stop(signum: int, frame: FrameType | None) -> None:
        if time.process_time() - computed < seconds and time.monotonic() - started < patience * seconds:
            return  # the bell rings again
        nonlocal raised
        raised += 1
        if raised > MOST_RAISED and give_up:
            give_up()
        inside = (f for f, _ in traceback.walk_stack(frame) if path and f.f_code.co_filename == str(path))
        here = next(inside, None)
        place = f"{short_path(path)}:{here.f_lineno}: " if path and here else ""
        raise Stuck(f"{place}still running after {seconds:g} seconds: is there a loop that never ends?")

    before = signal.signal(BELL, stop)
    try:
        with ringing(seconds / 10):
            yield
    finally:
        signal.signal(BELL, before)


@contextlib.contextmanager
def ringing(interval: float) -> Iterator[None]:
    """Sends the bell to this process again and again, until the code below is done."""
    if hasattr(signal, "setitimer"):
        before = signal.setitimer(signal.ITIMER_REAL, interval, interval)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, *before)
        return
    over = threading.Event()

    def ring() -> None:
        while not over.wait(interval):
            _thread.interrupt_main(BELL)

    thread = threading.Thread(target=ring, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
