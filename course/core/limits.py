"""Time limits for code that may never end."""

import contextlib
import signal
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from course.core.stages import short_path


class Stuck(BaseException):
    """Out of time. Not an Exception, so that neither a learner's `except Exception` nor hypothesis holds it up."""


@contextlib.contextmanager
def limited(seconds: float, path: Path | None) -> Iterator[None]:
    """Raises Stuck in the code below after so many seconds, naming the line of `path` that was running.

    On a busy machine there is patience: code that hardly got to run may take six times as long.
    """
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    started, computed = time.monotonic(), time.process_time()

    def stop(signum: int, frame: FrameType | None) -> None:
        if time.process_time() - computed < seconds / 2 and time.monotonic() - started < 6 * seconds:
            return  # the timer rings again in a second
        inside = (f for f, _ in traceback.walk_stack(frame) if path and f.f_code.co_filename == str(path))
        here = next(inside, None)
        place = f"{short_path(path)}:{here.f_lineno}: " if here else ""
        raise Stuck(f"{place}still running after {seconds:g} seconds: is there a loop that never ends?")

    before = signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, 1.0 if left else 0.0)
        signal.signal(signal.SIGALRM, before)
