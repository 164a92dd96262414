"""A browser that tests drive: Chromium, by the DevTools protocol over a pipe."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_browser() -> str | None:
    """The program: the one that CHROME names, or the first of the usual names that is there. Not on Windows."""
    if os.name == "nt":  # there a program cannot be handed pipes by their numbers
        return None
    return next((path for name in (os.environ.get("CHROME"), *NAMES) if name and (path := shutil.which(name))), None)


class Browser:
    """One tab of a headless browser with a profile of its own.

    Attributes:
        requests: the address of every request that it made, workers included.
        complaints: what its console said in warnings and errors, and exceptions that nothing caught.
    """

    def __init__(self, arguments: tuple[str, ...] = ()):
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.answers: dict[int, Any] = {}
        self.count = 0
        self.rest = b""
        self.profile = tempfile.mkdtemp(prefix="browser-")
        to_browser, self.write_end = os.pipe()
        self.read_end, from_browser = os.pipe()
        program = find_browser()
        assert program is not None
        command = [
            program,
            "--headless=new",
            "--no-first-run",
            "--no-default-browser-check",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--mute-audio",
            "--remote-debugging-pipe",
            f"--user-data-dir={self.profile}",
            *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
            *arguments,
            "about:blank",
        ]

        def take_pipes() -> None:  # the protocol reads from file 3 and writes to file 4
            high = os.dup(to_browser), os.dup(from_browser)
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        kept = tuple({3, 4, to_browser, from_browser})
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=take_pipes, pass_fds=kept
        )
        os.close(to_browser)
        os.close(from_browser)
        try:
            target = self.send("Target.createTarget", {"url": "about:blank"}, session=None)["targetId"]
            attach = {"targetId": target, "flatten": True}
            self.session = self.send("Target.attachToTarget", attach, session=None)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.send(f"{domain}.enable")
            everything = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
            self.send("Target.setAutoAttach", everything)
        except BaseException:
            self.close()
            raise

    def send(self, method: str, parameters: dict | None = None, session: str | None = "") -> Any:
        """Calls a method of the protocol and waits for its result."""
        self.count += 1
        number = self.count
        message = {"id": number, "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = session or self.session
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        self.until(lambda: number in self.answers, f"an answer to {method}")
        answer = self.answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def post(self, method: str, parameters: dict, session: str) -> None:
        """Calls a method without waiting for its result."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters, "sessionId": session}
        os.write(self.write_end, json.dumps(message).encode() + b"\0")

    def until(self, done: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        """Reads what the browser says until something is the case."""
        deadline = time.monotonic() + seconds
        while not done():
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.read_end], [], [], left)[0]:
                raise TimeoutError(f"the browser gave no {what} within {seconds:g} seconds; it said {self.complaints}")
            piece = os.read(self.read_end, 1 << 20)
            if not piece:
                raise RuntimeError(f"the browser ended while there was to be {what}")
            *messages, self.rest = (self.rest + piece).split(b"\0")
            for message in messages:
                self.hear(json.loads(message))

    def hear(self, message: dict) -> None:
        if "id" in message:
            self.answers[message["id"]] = message
            return
        method, given = message["method"], message["params"]
        if method == "Target.attachedToTarget":
            session = given["sessionId"]
            for domain in ("Network", "Runtime"):
                self.post(f"{domain}.enable", {}, session)
            everything = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
            self.post("Target.setAutoAttach", everything, session)
            self.post("Runtime.runIfWaitingForDebugger", {}, session)
        elif method == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = given["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(one.get("value", one.get("description"))) for one in given["args"]))
        elif method == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")

    def open(self, address: str) -> None:
        self.send("Page.navigate", {"url": address})

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is waited for."""
        parameters = {"expression": script, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        result = self.send("Runtime.evaluate", parameters)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"].get("exception", {}).get("description", result))
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = 120.0) -> None:
        """Waits until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{condition} was not true within {seconds:g} seconds; complaints: {self.complaints}"
                )
            time.sleep(0.1)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Presses and releases a key."""
        for kind in ("keyDown", "keyUp"):
            key_event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            self.send("Input.dispatchKeyEvent", key_event | ({"text": text} if text and kind == "keyDown" else {}))

    def drag(self, *points: tuple[float, float]) -> None:
        """Presses the mouse at the first point, moves it along the others, and releases it at the last."""
        for i, (x, y) in enumerate(points):
            kind = "mousePressed" if i == 0 else "mouseMoved"
            self.send(
                "Input.dispatchMouseEvent",
                {"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1},
            )
        x, y = points[-1]
        self.send(
            "Input.dispatchMouseEvent", {"type": "mouseReleased", "x": x, "y": y, "button": "left", "clickCount": 1}
        )

    def download(self, link: str, folder: Path) -> Path:
        """Clicks a link that offers a file; returns the file, once all of it is in the folder."""
        self.send("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)}, session=None)
        path = folder / self.run(f"document.querySelector('{link}').download")
        self.run(f"document.querySelector('{link}').click()")
        for _ in range(300):
            if path.is_file() and path.stat().st_size > 0 and not list(folder.glob("*.crdownload")):
                return path
            self.run("true")
            time.sleep(0.1)
        raise TimeoutError(f"{path.name} did not come; there is {[p.name for p in folder.iterdir()]}")

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        """The size of the window, and whether the person prefers dark colours."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", {"features": [feature]})

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG file."""
        data = self.send("Page.captureScreenshot", {"captureBeyondViewport": True})["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """Ends the browser and all that it started."""
        try:
            if self.process.poll() is None:
                os.write(self.write_end, b'{"id": 0, "method": "Browser.close"}\0')
                self.process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.write_end)
        os.close(self.read_end)
        shutil.rmtree(self.profile, ignore_errors=True)
