"""Firefox, driven by WebDriver BiDi, https://www.w3.org/TR/webdriver-bidi/."""

import base64
import json
import re
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.page.browser import Browser, first_program

NAMES = ("firefox", "firefox-esr")
KEYS = {"Tab": "\ue004", "Escape": "\ue00c", "ArrowLeft": "\ue012"}  # the names of keys in JavaScript -> WebDriver's
PREFERENCES = {
    "browser.download.folderList": 2,  # the folder is the one of browser.download.dir
    "browser.download.alwaysOpenPanel": False,
    "layout.css.prefers-color-scheme.content-override": 1,  # light
}


def plain(value: dict) -> Any:
    """What a value of BiDi is in Python."""
    kind, content = value["type"], value.get("value")
    if kind == "array":
        return [plain(one) for one in content]
    if kind == "object":
        return {name: plain(one) for name, one in content}
    if kind == "number":
        return float(content) if isinstance(content, str) else content  # "NaN", "Infinity", "-0"
    return content if kind in ("string", "boolean") else None


class Firefox(Browser):
    def __init__(self) -> None:
        super().__init__()
        self.downloads = self.profile / "downloads"
        self.downloads.mkdir()
        preferences = PREFERENCES | {"browser.download.dir": str(self.downloads)}
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items()]
        (self.profile / "user.js").write_text("".join(lines), encoding="utf-8")
        program = self.find()
        assert program is not None
        said = self.profile / "said.txt"
        arguments = ["--headless", "--no-remote", "--remote-debugging-port=0", "--profile", str(self.profile)]
        with said.open("wb") as out:
            self.process = subprocess.Popen([program, *arguments, "about:blank"], stdout=out, stderr=out)
        self.stack = ExitStack()
        self.socket: ClientConnection | None = None
        try:
            deadline = time.monotonic() + 120
            while not (found := re.search(r"BiDi listening on (ws://\S+)", said.read_text("utf-8", "replace"))):
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError(f"Firefox does not listen; it said {said.read_text('utf-8', 'replace')[-1000:]}")
                time.sleep(0.1)
            connection = connect(f"{found[1]}/session", max_size=None, ping_interval=None, compression=None, proxy=None)
            self.socket = self.stack.enter_context(connection)
            self.send("session.new", capabilities={})
            # In the tab that is there from the start nothing has the focus.
            self.tab = self.send("browsingContext.create", type="tab")["context"]
            self.send("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        except BaseException:
            self.close()
            raise

    @staticmethod
    def find() -> str | None:
        return first_program("FIREFOX", NAMES)

    def send(self, method: str, **parameters: object) -> dict:
        """Calls a method of the protocol and waits for its result."""
        answer = self.answer(method, parameters)
        if answer["type"] == "error":
            raise RuntimeError(f"{method}: {answer['error']}, {answer['message']}")
        return answer["result"]

    def write(self, message: dict) -> None:
        assert self.socket is not None
        self.socket.send(json.dumps(message))

    def read(self, seconds: float) -> list[dict]:
        assert self.socket is not None
        try:
            return [json.loads(self.socket.recv(timeout=seconds))]
        except TimeoutError:
            return []
        except ConnectionClosed:
            raise RuntimeError(f"the browser has ended; it said {self.complaints}") from None

    def hear(self, message: dict) -> None:
        given = message["params"]
        if message["method"] == "network.beforeRequestSent":
            self.requests.append(given["request"]["url"])
        elif message["method"] == "log.entryAdded" and given["level"] in ("error", "warn"):
            self.complaints.append(given["text"])

    def open(self, address: str) -> None:
        self.send("browsingContext.navigate", context=self.tab, url=address, wait="complete")

    def reload(self) -> None:
        self.send("browsingContext.reload", context=self.tab, wait="complete")

    def run(self, script: str) -> Any:
        target = {"context": self.tab}
        result = self.send("script.evaluate", expression=script, target=target, awaitPromise=True, userActivation=True)
        if result["type"] == "exception":
            raise RuntimeError(result["exceptionDetails"]["text"])
        return plain(result["result"])

    def perform(self, kind: str, actions: list[dict]) -> None:
        """Does with a device, "key" or "pointer", what a person would do."""
        source = {"type": kind, "id": kind, "actions": actions}
        self.send("input.performActions", context=self.tab, actions=[source])

    def press(self, key: str) -> None:
        self.perform("key", [{"type": kind, "value": KEYS.get(key, key)} for kind in ("keyDown", "keyUp")])

    def drag(self, *points: tuple[float, float]) -> None:
        first, *others = [{"type": "pointerMove", "x": x, "y": y} for x, y in points]
        down, up = [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        self.perform("pointer", [first, down, *others, up])

    def prepare_download(self, folder: Path) -> Path:
        return self.downloads  # the profile says so: the protocol has no word for it in Firefox 140

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height}
        self.send("browsingContext.setViewport", context=self.tab, viewport=size, devicePixelRatio=1)

    def screenshot(self, path: Path) -> None:
        data = self.send("browsingContext.captureScreenshot", context=self.tab, origin="document")["data"]
        path.write_bytes(base64.b64decode(data))

    def ask_to_end(self) -> None:
        try:
            self.post("browser.close", {})
        except (AssertionError, ConnectionClosed):  # there is no connection
            self.process.terminate()

    def close(self) -> None:
        super().close()
        self.stack.close()
