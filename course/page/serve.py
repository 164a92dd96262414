"""`make play`: shows the page in the browser, from this machine alone."""

import functools
import webbrowser
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from course.core.messages import Refusal
from course.core.options import like, option
from course.core.stages import short_path
from course.page.build import PageOptions, is_up_to_date, page

HEADERS = {
    # Only a page that no other page can look into gets shared memory, and with it threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # the browser asks whether a file is still the same
}


class Handler(SimpleHTTPRequestHandler):
    """Sends the files of one folder."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".json": "application/json",
        ".onnx": "application/octet-stream",
        ".gz": "application/octet-stream",
    }
    headers_sent = HEADERS

    def end_headers(self) -> None:
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        super().end_headers()

    def list_directory(self, path: object) -> None:
        self.send_error(404, "There is no such file")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server for a folder that only this machine reaches; port 0 takes any that is free.

    Raises:
        Refusal: if the port is taken.
    """
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=str(folder)))
    except OSError as error:
        raise Refusal(f"PORT={port} cannot be used here ({error.strerror}): choose another, or 0 for any.") from None


@dataclass
class PlayOptions(PageOptions):
    port: int = option(8017, "of this machine, where the page is; 0 for any that is free", least=0, most=65535)
    nobrowser: bool = option(False, "only say the address")
    out: Path = like(PageOptions, "out", PageOptions.out, "folder of the page")


def play(options: PlayOptions) -> int:
    """Runs the command, until Ctrl-C."""
    if not is_up_to_date(options) and page(options):
        return 1
    with server(options.out, options.port) as running:
        address = f"http://127.0.0.1:{running.server_port}/"
        print(f"{short_path(options.out)} is at {address} until you press Ctrl-C.", flush=True)
        if not options.nobrowser:
            webbrowser.open(address)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
