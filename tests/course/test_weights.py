"""`make weights` against a small hub on this machine."""

import hashlib
import http.server
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from course.core.stages import ROOT
from course.draw.weights import WeightsOptions

pytestmark = pytest.mark.limit(120)

MODEL = b"model" * 5_000_000  # 25 MB: the client keeps what arrived in pieces of 10 MB
FILES = {
    "v1-5-pruned-emaonly.safetensors": MODEL,
    "tokenizer/vocab.json": b'{"a": 0}',
    "tokenizer/merges.txt": b"#version: 0.2\n",
}


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does: HEAD with hash and size, GET with ranges."""

    protocol_version = "HTTP/1.1"

    def answer(self, with_body: bool) -> None:
        found = re.fullmatch(r"/someone/model/resolve/main/(.+)", self.path.split("?")[0])
        content = FILES.get(found[1]) if found else None
        self.server.requests.append((self.command, found[1] if found else self.path, self.headers.get("Range")))
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        stated = hashlib.sha256(content).hexdigest() if content is MODEL else hashlib.sha1(content).hexdigest()
        if self.server.damage and content is MODEL:
            content = b"x" + content[1:]
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        body = content[int(wanted[1]) :] if wanted else content
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{stated}"')
        self.send_header("X-Linked-Etag", f'"{stated}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {wanted[1]}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            if self.server.cut_after and content is MODEL:
                self.wfile.write(body[: self.server.cut_after])
                self.wfile.flush()
                self.connection.shutdown(2)
                self.close_connection = True
                return
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.requests, server.damage, server.cut_after = [], False, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def weights(hub, folder: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(folder / "cache")}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "HF_HUB_DOWNLOAD_TIMEOUT": "5"}
    command = [sys.executable, "-m", "course", "weights", "--repository=someone/model", f"--out={folder / 'sd15'}"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_everything_arrives_and_is_checked(hub, tmp_path):
    done = weights(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("RAIL") < done.stdout.index("sha256 ok")
    assert (tmp_path / "sd15" / "v1-5-pruned-emaonly.safetensors").read_bytes() == MODEL
    assert sorted(p.name for p in (tmp_path / "sd15").iterdir()) == [
        "merges.txt", "v1-5-pruned-emaonly.safetensors", "vocab.json"
    ]
    assert "CHECKPOINT=" in done.stdout


def test_what_is_there_is_not_fetched_again(hub, tmp_path):
    weights(hub, tmp_path)
    hub.requests.clear()
    done = weights(hub, tmp_path)
    assert done.returncode == 0 and "there already" in done.stdout
    assert not [request for request in hub.requests if request[0] == "GET"]


def test_a_damaged_file_is_not_kept(hub, tmp_path):
    hub.damage = True
    done = weights(hub, tmp_path)
    assert done.returncode == 2 and "damaged" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "sd15").rglob("*.safetensors"))


def test_a_cut_download_goes_on(hub, tmp_path):
    hub.cut_after = 15_000_000
    first = weights(hub, tmp_path)
    got = [request for request in hub.requests if request[0] == "GET" and "safetensors" in request[1]]
    if first.returncode:  # the client gave up; otherwise it went on by itself
        assert "Traceback" not in first.stderr and len(first.stderr.strip().splitlines()[-1]) < 400
        hub.cut_after = 0
        assert weights(hub, tmp_path).returncode == 0
        got = [request for request in hub.requests if request[0] == "GET" and "safetensors" in request[1]]
    assert any(request[2] for request in got), "no request asked for the rest only"
    assert (tmp_path / "sd15" / "v1-5-pruned-emaonly.safetensors").read_bytes() == MODEL


def test_a_missing_file_is_one_sentence(hub, tmp_path, monkeypatch):
    monkeypatch.setitem(FILES, "tokenizer/vocab.json", None)
    done = weights(hub, tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "vocab.json" in done.stderr


def test_no_hub_is_one_sentence(hub, tmp_path):
    hub.shutdown()
    hub.server_close()
    done = weights(hub, tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "could not be fetched" in done.stderr


def test_another_choice_fetches_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("WHICH", "half")
    monkeypatch.setenv("OUT", str(tmp_path / "sd15"))
    monkeypatch.setattr("course.draw.weights.fetch", lambda *args: pytest.fail("it fetched before it refused"))
    with pytest.raises(ValueError, match=r"^WHICH=half is not possible: choose ema or full\.$"):
        WeightsOptions.parse([], "weights", "")
