"""`make weights` against a small hub on this machine."""

import hashlib
import http.server
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from course.core.messages import Refusal
from course.core.stages import ROOT
from course.draw.weights import SPARE, WeightsOptions
from course.draw.weights import weights as run_weights

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
        of_git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        stated = hashlib.sha256(content).hexdigest() if content is MODEL else of_git
        if self.server.damage and found[1].endswith(self.server.damage):
            content = b"x" + content[1:]
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        body = content[int(wanted[1]) :] if wanted else content
        self.send_response(206 if wanted else 200)
        if self.server.portal:
            self.send_header("ETag", '"5f3-60a"')
        else:
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
                if self.server.hang:
                    self.server.closing.wait()
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
    server.requests, server.damage, server.cut_after, server.hang = [], "", 0, False
    server.portal = False
    server.closing = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


def start(hub, folder: Path) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(folder / "cache")}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "HF_HUB_DOWNLOAD_TIMEOUT": "5"}
    command = [sys.executable, "-m", "course", "weights", "--repository=someone/model", f"--out={folder / 'sd15'}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def weights(hub, folder: Path) -> subprocess.CompletedProcess:
    with start(hub, folder) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def asked_for_the_model(hub) -> list[str | None]:
    """The ranges of the requests for the model."""
    return [wanted for command, name, wanted in hub.requests if command == "GET" and "safetensors" in name]


def killed(hub, folder: Path) -> int:
    """Has a download killed after 15 MB; returns how many bytes were kept."""

    def kept() -> int:
        return sum(p.stat().st_size for p in (folder / "sd15").rglob("*.safetensors.*"))

    hub.cut_after, hub.hang = 15_000_000, True
    with start(hub, folder) as process:
        deadline = time.monotonic() + 60
        while not kept():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.communicate()
    hub.cut_after = 0
    return kept()


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


@pytest.mark.parametrize("name", ["safetensors", "vocab.json", "merges.txt"])
def test_a_damaged_file_is_not_kept(hub, tmp_path, name):
    hub.damage = name
    done = weights(hub, tmp_path)
    assert done.returncode == 2 and "damaged" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "sd15").rglob(f"*{name}*"))


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_file_of_the_right_size_that_is_another_one_is_fetched_again(hub, tmp_path, name):
    weights(hub, tmp_path)
    path = tmp_path / "sd15" / name
    right = path.read_bytes()
    path.write_bytes(b"y" + right[1:])
    assert weights(hub, tmp_path).returncode == 0 and path.read_bytes() == right


def test_a_cut_download_goes_on(hub, tmp_path):
    hub.cut_after = 15_000_000
    first = weights(hub, tmp_path)
    if first.returncode:  # the client gave up; otherwise it went on by itself
        assert "Traceback" not in first.stderr and len(first.stderr.strip().splitlines()[-1]) < 400
        hub.cut_after = 0
        assert weights(hub, tmp_path).returncode == 0
    assert any(asked_for_the_model(hub)), "no request asked for the rest only"
    assert (tmp_path / "sd15" / "v1-5-pruned-emaonly.safetensors").read_bytes() == MODEL


def test_a_killed_download_goes_on(hub, tmp_path):
    kept = killed(hub, tmp_path)
    done = weights(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert asked_for_the_model(hub) == [None, f"bytes={kept}-"], "it did not ask for the rest only"
    assert (tmp_path / "sd15" / "v1-5-pruned-emaonly.safetensors").read_bytes() == MODEL
    assert len(list((tmp_path / "sd15").iterdir())) == 3, "it left something behind"


def test_the_beginning_of_another_file_is_not_gone_on_with(hub, tmp_path, monkeypatch):
    killed(hub, tmp_path)
    other = MODEL[::-1]
    monkeypatch.setitem(globals(), "MODEL", other)
    monkeypatch.setitem(FILES, "v1-5-pruned-emaonly.safetensors", other)
    done = weights(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert asked_for_the_model(hub) == [None, None]
    assert (tmp_path / "sd15" / "v1-5-pruned-emaonly.safetensors").read_bytes() == other


def test_what_is_of_no_use_does_not_count_as_arrived(hub, tmp_path, monkeypatch, capsys):
    old = tmp_path / "sd15" / ".download" / ".cache" / "huggingface" / "x.incomplete"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"z" * len(MODEL))
    other = tmp_path / "sd15" / ".download" / f"v1-5-pruned-emaonly.safetensors.{64 * 'a'}.part"
    other.write_bytes(b"z" * len(MODEL))
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    address = f"http://127.0.0.1:{hub.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    free = SPARE + len(MODEL) - 1
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(Refusal, match=r"safetensors needs 0\.0 GB more and the disk has 0\.2 GB left\.$"):
        run_weights(WeightsOptions(repository="someone/model", out=tmp_path / "sd15"))
    assert not old.exists() and not other.exists()


def test_two_at_once(hub, tmp_path):
    hub.cut_after, hub.hang = 15_000_000, True
    with start(hub, tmp_path) as first:
        while not asked_for_the_model(hub):
            time.sleep(0.05)
        second = weights(hub, tmp_path)
        first.kill()
        first.communicate()
    assert second.returncode == 2 and second.stderr.count("\n") == 1
    assert second.stderr.startswith("Another `make weights` is fetching to ")


@pytest.mark.parametrize("place", ["a file", "a folder of the file's name"])
def test_a_place_that_cannot_be_written_to(hub, tmp_path, place):
    if place == "a file":
        (tmp_path / "sd15").write_text("mine")
    else:
        (tmp_path / "sd15" / "vocab.json").mkdir(parents=True)
    done = weights(hub, tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "cannot be written: " in done.stderr


def test_a_missing_file_is_one_sentence(hub, tmp_path, monkeypatch):
    monkeypatch.setitem(FILES, "tokenizer/vocab.json", None)
    done = weights(hub, tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "vocab.json" in done.stderr


def test_a_server_that_is_no_hub(hub, tmp_path):
    """Such as the page of a network that wants a password first: it answers whatever is asked for."""
    hub.portal = True
    done = weights(hub, tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"127.0.0.1:{hub.server_port} states no hash of v1-5-pruned-emaonly.safetensors" in done.stderr
    assert asked_for_the_model(hub) == [] and not list((tmp_path / "sd15").rglob("*.safetensors*"))
    hub.portal = False
    assert weights(hub, tmp_path).returncode == 0


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
