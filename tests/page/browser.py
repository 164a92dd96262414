"""A browser that tests drive: what chromium.py and firefox.py have in common."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def first_program(variable: str, names: tuple[str, ...]) -> str | None:
    """The program that a variable of the environment names, or else the first of these names that is there."""
    return next((path for name in (os.environ.get(variable), *names) if name and (path := shutil.which(name))), None)


class Browser:
    """One tab of a headless browser with a profile of its own.

    Attributes:
        requests: the address of every request that the tab made, its workers included, but not its service worker.
        complaints: what its console said in warnings and errors, and exceptions that nothing caught.
    """

    process: subprocess.Popen

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.answers: dict[int, dict] = {}
        self.count = 0
        self.profile = Path(tempfile.mkdtemp(prefix="browser-"))

    @staticmethod
    def find() -> str | None:
        """The program, if it is there."""
        raise NotImplementedError

    def write(self, message: dict) -> None:
        """Sends a message to the browser."""
        raise NotImplementedError

    def read(self, seconds: float) -> list[dict]:
        """The messages that the browser has sent: none if it sends nothing for so long."""
        raise NotImplementedError

    def hear(self, message: dict) -> None:
        """Takes in a message that is no answer."""
        raise NotImplementedError

    def post(self, method: str, parameters: dict, **more: object) -> int:
        """Calls a method of the protocol without waiting for its result; the number of the call."""
        self.count += 1
        self.write({"id": self.count, "method": method, "params": parameters, **more})
        return self.count

    def answer(self, method: str, parameters: dict, **more: object) -> dict:
        """Calls a method of the protocol and waits for what the browser answers."""
        number = self.post(method, parameters, **more)
        self.until(lambda: number in self.answers, f"an answer to {method}")
        return self.answers.pop(number)

    def until(self, done: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        """Reads what the browser says until something is the case."""
        deadline = time.monotonic() + seconds
        while not done():
            messages = self.read(max(deadline - time.monotonic(), 0))
            if not messages and time.monotonic() >= deadline:
                raise TimeoutError(f"the browser gave no {what} within {seconds:g} seconds; it said {self.complaints}")
            for message in messages:
                if "id" in message:
                    self.answers[message["id"]] = message
                else:
                    self.hear(message)

    def open(self, address: str) -> None:
        """Goes to an address."""
        raise NotImplementedError

    def reload(self) -> None:
        """Loads the page again."""
        raise NotImplementedError

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is waited for."""
        raise NotImplementedError

    def wait(self, condition: str, seconds: float = 120.0) -> None:
        """Waits until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{condition} was not true within {seconds:g} seconds; complaints: {self.complaints}"
                )
            time.sleep(0.1)

    def press(self, key: str) -> None:
        """Presses and releases a key, by its name in JavaScript."""
        raise NotImplementedError

    def drag(self, *points: tuple[float, float]) -> None:
        """Presses the mouse at the first point, moves it along the others, and releases it at the last."""
        raise NotImplementedError

    def prepare_download(self, folder: Path) -> Path:
        """Has the browser put files into a folder without asking; which one that is."""
        raise NotImplementedError

    def download(self, link: str, folder: Path) -> Path:
        """Clicks a link that offers a file; returns the file, once all of it is in the folder."""
        place = self.prepare_download(folder)
        name = self.run(f"document.querySelector('{link}').download")
        self.run(f"document.querySelector('{link}').click()")
        for _ in range(300):
            unfinished = [path for path in place.iterdir() if path.suffix in (".crdownload", ".part")]
            if not unfinished and (place / name).is_file() and (place / name).stat().st_size > 0:
                return Path(shutil.move(place / name, folder / name))
            self.run("true")
            time.sleep(0.1)
        raise TimeoutError(f"{name} did not come; there is {[path.name for path in place.iterdir()]}")

    def resize(self, width: int, height: int) -> None:
        """The size of the window."""
        raise NotImplementedError

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG file."""
        raise NotImplementedError

    def ask_to_end(self) -> None:
        """Tells the browser to end."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the browser and all that it started."""
        try:
            if self.process.poll() is None:
                self.ask_to_end()
                self.process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)
