"""Chromium, driven by the DevTools protocol over a pipe."""

import base64
import json
import os
import select
import subprocess
from pathlib import Path
from typing import Any

from tests.page.browser import Browser, first_program

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
KEYS = {"Tab": 9, "Escape": 27, " ": 32, "ArrowLeft": 37}  # the names of keys in JavaScript -> Windows' numbers


class Chromium(Browser):
    def __init__(self, arguments: tuple[str, ...] = ()):
        super().__init__()
        self.rest = b""
        to_browser, self.write_end = os.pipe()
        self.read_end, from_browser = os.pipe()
        program = self.find()
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

    @staticmethod
    def find() -> str | None:
        if os.name == "nt":  # there a program cannot be handed pipes by their numbers
            return None
        return first_program("CHROME", NAMES)

    def send(self, method: str, parameters: dict | None = None, session: str | None = "") -> Any:
        """Calls a method of the protocol and waits for its result."""
        of_session = {} if session is None else {"sessionId": session or self.session}
        answer = self.answer(method, parameters or {}, **of_session)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def write(self, message: dict) -> None:
        os.write(self.write_end, json.dumps(message).encode() + b"\0")

    def read(self, seconds: float) -> list[dict]:
        if not select.select([self.read_end], [], [], seconds)[0]:
            return []
        piece = os.read(self.read_end, 1 << 20)
        if not piece:
            raise RuntimeError(f"the browser has ended; it said {self.complaints}")
        *messages, self.rest = (self.rest + piece).split(b"\0")
        return [json.loads(message) for message in messages]

    def hear(self, message: dict) -> None:
        method, given = message["method"], message["params"]
        if method == "Target.attachedToTarget":
            session = given["sessionId"]
            for domain in ("Network", "Runtime"):
                self.post(f"{domain}.enable", {}, sessionId=session)
            everything = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
            self.post("Target.setAutoAttach", everything, sessionId=session)
            self.post("Runtime.runIfWaitingForDebugger", {}, sessionId=session)
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

    def reload(self) -> None:
        self.send("Page.reload", {"ignoreCache": False})

    def run(self, script: str) -> Any:
        parameters = {"expression": script, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        result = self.send("Runtime.evaluate", parameters)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"].get("exception", {}).get("description", result))
        return result["result"].get("value")

    def press(self, key: str) -> None:
        event = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        self.send("Input.dispatchKeyEvent", event | {"type": "keyDown"} | ({"text": key} if len(key) == 1 else {}))
        self.send("Input.dispatchKeyEvent", event | {"type": "keyUp"})

    def drag(self, *points: tuple[float, float]) -> None:
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

    def prepare_download(self, folder: Path) -> Path:
        self.send("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)}, session=None)
        return folder

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, colours: str) -> None:
        """Says that the person prefers "light" or "dark" colours."""
        self.send("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": colours}]})

    def screenshot(self, path: Path) -> None:
        data = self.send("Page.captureScreenshot", {"captureBeyondViewport": True})["data"]
        path.write_bytes(base64.b64decode(data))

    def ask_to_end(self) -> None:
        self.post("Browser.close", {})

    def close(self) -> None:
        super().close()
        os.close(self.write_end)
        os.close(self.read_end)
