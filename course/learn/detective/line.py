"""The line to the witness: starts its process, asks, and starts another one if it comes to an end."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any

from course.core.stages import ROOT

PATIENCE = 120.0  # seconds for one answer, with the import of torch; the witness's own limits come first


class Line:
    """A running witness. Close it, or use it in a `with`."""

    program: tuple[str, ...] = ("-m", "course.learn.detective.witness")

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> "Line":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (`close` closes it)
        self.process = subprocess.Popen(
            [sys.executable, *self.program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for this process alone
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
        )
        self.answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self.listen, args=(self.process.stdout, self.answers), daemon=True).start()

    @staticmethod
    def listen(stream: Any, answers: queue.SimpleQueue) -> None:
        with stream:
            for line in stream:
                answers.put(line)
        answers.put(b"")

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer; {"problem": one sentence} if there is none.

        Raises:
            RuntimeError: if the witness ends before it has answered anything.
        """
        if self.process is None:
            self.start()
        assert self.process and self.process.stdin
        with contextlib.suppress(OSError):  # it ended, and that is seen below
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        try:
            line = self.answers.get(timeout=PATIENCE)
        except queue.Empty:
            self.close()
            return {"problem": f"There was no answer for {PATIENCE:g} seconds: is there a loop that never ends?"}
        if line:
            return json.loads(line)
        self.log.seek(0)
        said = self.log.read()[-2000:].strip()
        self.close()
        if request["do"] == "open":
            raise RuntimeError(f"The process that runs both versions ended:\n{said}")
        return {"problem": "That ended the process in which it ran."}

    def close(self) -> None:
        """Ends the process and its forks."""
        if self.process is None:
            return
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.log.close()
        self.process = None
