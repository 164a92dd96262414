"""What the commands write to, when it is no usual terminal: closed, full, without Unicode."""

import os
import subprocess
import sys

import pytest

from course.core import workspace
from course.core.messages import first_line, printable
from course.core.screen import sentence
from course.core.stages import ROOT, STAGES

pytestmark = [
    pytest.mark.limit(120),
    pytest.mark.skipif(os.name == "nt", reason="there is no way to close a descriptor for a new process"),
]
TEST = ["test", "--stage=1"]
DRAW = ["generate", "--steps=1", "--width=32", "--height=32", "--blocks=solutions"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_EXERCISES", str(tmp_path / "exercises"))
    monkeypatch.delenv("STAGE", raising=False)
    workspace.write_stubs()
    STAGES[0].exercise.write_text("def group_norm(:\n")


def run(arguments: list[str], closed: tuple[int, ...] = (), **options) -> subprocess.CompletedProcess:
    def close() -> None:
        for number in closed:
            os.close(number)

    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run([sys.executable, "-m", "course", *arguments], cwd=ROOT, preexec_fn=close, **streams)


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_closed_streams(closed, tmp_path):
    assert run(TEST, closed).returncode == 1, "a stage that cannot be loaded counted as done"
    for arguments in (["help"], ["hint", "--stage=3"], ["solution", "--stage=1"], ["reset", "--stage=2"]):
        done = run(arguments, closed)
        assert done.returncode == 0 and done.stderr == b"", arguments
        assert (done.stdout == b"") == (1 in closed), arguments
    done = run([*DRAW, f"--out={tmp_path / 'out.png'}"], closed)
    assert done.returncode == 0 and (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["help"], TEST, ["hint", "--stage=3"], DRAW], ids=" ".join)
def test_nobody_reads_the_output(arguments):
    reads, writes = os.pipe()
    os.close(reads)
    done = run(arguments, stdout=writes)
    os.close(writes)
    assert done.returncode == 141
    assert done.stderr == b"The output was closed before all of it was written.\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
@pytest.mark.parametrize("arguments", [["help"], TEST, ["hint", "--stage=3"], DRAW], ids=" ".join)
def test_the_output_is_on_a_full_disk(arguments):
    with open("/dev/full", "wb") as full:
        done = run(arguments, stdout=full)
    assert done.returncode == 2 and done.stderr == b"No space left on device.\n"


def test_a_terminal_without_unicode(tmp_path):
    STAGES[0].exercise.write_text("def group_norm(x): return 'ä' +\n", encoding="utf-8")
    for arguments in (TEST, ["solution", "--stage=1"]):
        done = run(arguments, env=os.environ | {"PYTHONIOENCODING": "ascii"})
        assert rb"return '\xe4' +" in done.stdout and b"Traceback" not in done.stderr
    prompt = "--prompt=日本 " * 50
    done = run([*DRAW, f"--out={tmp_path / 'x.png'}", prompt], env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr


def test_control_characters_are_shown_and_not_obeyed():
    assert first_line(KeyError("\x1b[2J")) == r"'\x1b[2J'" and first_line(ValueError("\x07\nb")) == r"\x07"
    assert printable("a\x1b[2Jb\r\x07\u202ec\nd\té") == r"a\x1b[2Jb\r\x07\u202ec" + "\nd\té"


def test_pythons_own_errors_become_sentences():
    missing = FileNotFoundError(2, "No such file or directory", str(ROOT / "x"))
    assert sentence(missing) == "x: No such file or directory."
    assert sentence(OSError(28, "No space left on device")) == "No space left on device."
    assert sentence(RecursionError("maximum ...")) == "Something here is nested too deeply to be read."
