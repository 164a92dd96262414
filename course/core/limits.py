"""Limits of time and memory for code that may never end."""

import _thread
import contextlib
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from course.core.stages import short_path

MEMORY = 4 << 30  # bytes that code may take, if three quarters of what is free are not less
LEAST_MEMORY = 1 << 30  # but so many it may always ask for
ROOM = 256 << 20  # bytes more, once that was too little
BELL = getattr(signal, "SIGALRM", signal.SIGTERM)  # what a timer sends, or a thread where the system has no timers
PATIENCE = 6  # code that hardly gets to run, on a busy machine or because it waits, may take so many times as long


SHORTEST = 0.1  # seconds from bell to bell: in less, the end of some code counts as its going on
MOST_RAISED = 3  # code that still runs after so many Stuck catches them
give_up: Callable[[], object] | None = None  # what is then done about it, if anything can be
memory: int | None = None  # bytes that this process may still take since limit_memory; None: no such limit


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
        with ringing(max(seconds / 10, SHORTEST)):
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


# --- memory ----------------------------------------------------------------------------------------------------------


def limit_memory(most: int = MEMORY) -> None:
    """Lets this process take so many bytes of memory more than it has, or fewer if the machine has fewer to give.

    Whoever asks for more gets a MemoryError, or torch's RuntimeError, and the machine goes on. Only Linux can do that;
    elsewhere nothing happens.
    """
    global memory
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        free = int(lines["MemAvailable"].split()[0]) << 10
    except (ImportError, OSError, KeyError):
        return
    memory = min(most, max(LEAST_MEMORY, free // 4 * 3))
    limit, hard = pages * resource.getpagesize() + memory, resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an exception says that a processor's memory is not enough: Python's, or torch's."""
    return isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def out_of_memory(error: BaseException) -> str:
    """What is to be said of such an exception, in one sentence."""
    asked = re.search(r"you tried to allocate (\d+) bytes", str(error))
    if asked and int(asked[1]) > (memory or MEMORY):
        return f"This asks for {int(asked[1]) / 2**30:,.1f} GB of memory at once: is a tensor far too large?"
    much = "more memory than there is" if memory is None else f"more than {memory / 2**30:.2g} GB of memory"
    return f"This takes {much}: is there a loop that never stops adding to something?"


def make_room(error: BaseException) -> None:
    """Frees what the functions hold that such an exception has ended, and moves the limit, so that it can be told."""
    traceback.clear_frames(error.__traceback__)
    if memory is not None:
        import resource

        limit, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit + ROOM if hard == resource.RLIM_INFINITY else hard, hard))
