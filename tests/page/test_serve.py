"""`make play` serves the page to this machine alone, with the headers that threads need."""

import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer

import pytest

from course import cli
from course.page import serve

pytestmark = pytest.mark.limit(60)


@pytest.fixture
def address(tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("index.html", "app.js", "sub.mjs", "runtime.wasm.gz", "model/unet.onnx", "about.json"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    with serve.server(tmp_path) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        assert running.server_address[0] == "127.0.0.1"
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("", "text/html"),
        ("app.js", "text/javascript"),
        ("sub.mjs", "text/javascript"),
        ("runtime.wasm.gz", "application/octet-stream"),
        ("model/unet.onnx", "application/octet-stream"),
        ("about.json", "application/json"),
    ],
)
def test_each_file_comes_with_its_kind_and_the_headers_of_threads(address, name, kind):
    with urllib.request.urlopen(address + name) as answer:
        assert answer.headers.get_content_type() == kind
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert answer.headers["Content-Encoding"] is None


@pytest.mark.parametrize("name", ["model/", "missing.js", "../secret.txt", "%2e%2e/secret.txt"])
def test_what_is_no_file_of_the_page_is_not_sent(address, tmp_path, name):
    (tmp_path.parent / "secret.txt").write_text("secret", encoding="utf-8")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address + name)


def test_a_port_that_is_taken_is_refused_in_a_sentence(address, monkeypatch, capsys):
    monkeypatch.setattr(serve, "is_up_to_date", lambda options: True)
    port = address.split(":")[2].strip("/")
    assert cli.main(["play", f"--port={port}", "--nobrowser"]) == 2
    assert capsys.readouterr().err.startswith(f"PORT={port} cannot be used here (")


@pytest.mark.parametrize("nobrowser", [False, True])
@pytest.mark.parametrize("ready", [False, True])
def test_play_makes_the_page_if_it_is_not_up_to_date_and_opens_it(tmp_path, monkeypatch, capsys, nobrowser, ready):
    made, opened = [], []

    def interrupted(self) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serve, "is_up_to_date", lambda options: ready)
    monkeypatch.setattr(serve, "page", lambda options: made.append(options.out))
    monkeypatch.setattr(serve.webbrowser, "open", opened.append)
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupted)
    assert cli.main(["play", f"--out={tmp_path}", "--port=0", *(["--nobrowser"] if nobrowser else [])]) == 0
    assert made == ([] if ready else [tmp_path])
    said = capsys.readouterr().out
    assert " until you press Ctrl-C." in said
    assert [address in said for address in opened] == ([] if nobrowser else [True])
