"""What is written to the terminal, whatever the terminal is: closed, a pipe, without Unicode, without colours."""

import os
import sys

from course.core.messages import Refusal, printable
from course.core.stages import short_path


def prepare() -> None:
    """Opens those of the three standard streams that are closed, on nothing. What cannot be encoded is escaped.

    A file that is opened while they are closed would get the number of one of them, and with it what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 (it stays open)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # pyrefly: ignore  # they are text files


def closed_early() -> int:
    """Says that nobody read the output to its end; returns the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left of it must not fail once more at the end of Python
    print("The output was closed before all of it was written.", file=sys.stderr)
    return 141  # as of a program that a broken pipe ends


def fancy() -> bool:
    """Whether standard output is a terminal where colours and a moving cursor are welcome."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def sentence(error: BaseException) -> str:
    """An exception as one sentence for the person at the terminal; Python's own errors are not meant for them."""
    if isinstance(error, OSError) and not isinstance(error, Refusal) and error.strerror:
        place = f"{short_path(error.filename)}: " if isinstance(error.filename, str) else ""
        return printable(f"{place}{error.strerror}.")
    if isinstance(error, RecursionError):
        return "Something here is nested too deeply to be read."
    return printable(str(error)) or type(error).__name__
