"""A learner's first hour, typed into a terminal: in a fresh copy of the repo, with the screens checked."""

import codecs
import os
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from course import cli
from course.core.options import OneStage
from course.core.stages import ROOT, STAGES
from course.core.stubs import stub_text
from course.learn.board import DONE, FAILING
from tools import latency

pty = pytest.importorskip("pty", reason="there is no pseudo-terminal here")
pytestmark = [
    pytest.mark.limit(400),  # starts Python and imports torch, several times
    pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed"),
]

STAGE = STAGES[0]
FILE = f"exercises/{STAGE.module}.py"
SOLUTION = STAGE.solution.read_text(encoding="utf-8")
WRONG = SOLUTION.replace("unbiased=False", "unbiased=True")
KEYS = "q quit"
LEFT_OUT = (".git", ".venv", ".course", ".hypothesis", "__pycache__", "runs", "outputs", "*.bak.py")
MODEL = ROOT / "checkpoints" / "tiny" / "model.safetensors"


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, folder: Path, *command: str, **variables: str):
        hidden = ("MAKE", "MFLAGS", "COURSE_", "STAGE", "EXERCISE", "NO_COLOR", "PYTEST")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        environment |= {"TERM": "xterm", "OMP_NUM_THREADS": "1"} | variables
        self.process, self.screen = pty.fork()
        if self.process == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # in case that the tests run in a shell's background
            os.chdir(folder)
            os.execvpe(command[0], command, environment)
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def until(self, text: str | None, seconds: float = 180, cleared: bool = False) -> str:
        """What is shown up to a text (None: up to the end), without colours and cursor movements.

        cleared: whether only what was shown since the screen was cleared counts, which it must have been.
        """
        shown, end = "", time.monotonic() + seconds
        while text is None or text not in plain(shown):
            assert time.monotonic() < end, f"{text!r} did not come: {plain(shown)}"
            if select.select([self.screen], [], [], 0.5)[0]:
                try:
                    data = os.read(self.screen, 1 << 16)
                except OSError:  # Linux: the other side is closed
                    data = b""
                if not data:
                    assert text is None, f"{text!r} did not come: {plain(shown)}"
                    break
                shown += self.decoder.decode(data)
        if cleared:
            assert "\033[2J" in shown
            shown = shown.rpartition("\033[2J")[2]
        return plain(shown)

    def press(self, keys: str) -> None:
        os.write(self.screen, keys.encode())

    def exit_code(self) -> int:
        os.close(self.screen)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def plain(text: str) -> str:
    """The text without colours, and of each line what was written over the rest."""
    text = re.sub(r"\033\[[\d;?]*[A-Za-z]", "", text).replace("\r\n", "\n")
    return re.sub(r"[^\n]*\r", "", text)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A fresh copy of the repo, with stubs as the learner's files."""
    folder = tmp_path / "repo"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for stage in STAGES:
        stub = stub_text(stage.solution.read_text(encoding="utf-8"))
        (folder / "exercises" / f"{stage.module}.py").write_text(stub, encoding="utf-8")
    return folder.resolve()


def make(folder: Path, *words: str) -> tuple[int, str]:
    """The exit code of a make command, and its screen."""
    terminal = Terminal(folder, "make", "-s", *words, "NO_VENV=1", f"PYTHON={sys.executable}")
    shown = terminal.until(None)
    return terminal.exit_code(), shown


def test_the_first_hour(repo):
    code, shown = make(repo, "test")
    assert code == 0 and f" 1 group_norm   to do    -> {FILE}\n" in shown and "\n10 key_remapper to do" in shown
    assert "0 of 10 stages and 0 of 47 exercises are done; encore 0/" in shown
    assert re.search(rf"next: exercise 1\.1: .+\n +{FILE}:\d+\nthen: make test STAGE=1\n", shown)

    (repo / FILE).write_text("def (")
    code, shown = make(repo, "hint")
    assert code != 0 and f"{FILE}:1: SyntaxError" in shown and "make hint EXERCISE=1.1" in shown

    (repo / FILE).write_text(stub_text(WRONG, ["1.1"]))
    code, shown = make(repo, "test", "STAGE=1")
    assert code != 0 and f"{FILE}  exercise 1.1  test_" in shown and "divides by n - 1" in shown
    assert " 1 group_norm   failing  " in shown and "make hint STAGE=1" in shown

    for level in (1, 2, 3, 3):
        code, shown = make(repo, "hint", "STAGE=1")
        assert code == 0 and "exercise 1.1: " in shown and FILE in shown
        assert [f"level {i} of 3:" in shown for i in (1, 2, 3)] == [i <= level for i in (1, 2, 3)]
    assert "make solution STAGE=1" in shown

    (repo / FILE).write_text(SOLUTION + "\n# mine\n")
    code, shown = make(repo, "test", "STAGE=1")
    assert code == 0 and " 1 group_norm   done     " in shown and "further reading:" in shown
    assert re.search(r"next: exercise 2\.1: .+\n +exercises/stage02_residual\.py:\d+\n", shown)

    if MODEL.exists():
        make_show = ("make", "-s", "show", "STAGE=1", "OUT=picture.png", "NO_VENV=1", f"PYTHON={sys.executable}")
        terminal = Terminal(repo, *make_show)
        assert "Before you look: " in terminal.until("(Enter: just show me): ")
        terminal.press("a\n")
        shown = terminal.until(None)
        assert terminal.exit_code() == 0 and "picture.png" in shown, shown
        assert "Answer: one group per channel. You said: one group for all channels." in shown, shown
        assert (repo / "picture.png").read_bytes().startswith(b"\x89PNG")

    code, shown = make(repo, "solution", "STAGE=1")
    assert code == 0 and "\n-# mine\n" in shown and "Nothing was changed." in shown
    code, shown = make(repo, "reset", "STAGE=1")
    assert code == 0 and f"{FILE} is now the stub again." in shown
    backup = re.search(r"kept as (\S+\.bak\.py)", shown)[1]
    assert (repo / backup).read_text() == SOLUTION + "\n# mine\n" and (repo / FILE).read_text() == stub_text(SOLUTION)


@pytest.mark.parametrize("way", ["forks, notifications", pytest.param("processes, polling", marks=pytest.mark.slow)])
def test_watching(repo, way):
    variables = {} if way.startswith("forks") else {"COURSE_FORK": "0", "WATCHFILES_FORCE_POLLING": "1"}
    terminal = Terminal(repo, sys.executable, "-m", "course", "watch", **variables)
    shown = terminal.until(KEYS)
    assert " 1 group_norm   to do " in shown and "next: exercise 1.1: " in shown

    (repo / FILE).write_text("def (")
    shown = terminal.until(KEYS)
    assert f"{FILE}:1: SyntaxError" in shown and "Traceback" not in shown

    temporary = (repo / FILE).with_suffix(".tmp")  # as editors do that save by renaming
    temporary.write_text(stub_text(WRONG, ["1.1"]))
    temporary.replace(repo / FILE)
    shown = terminal.until(KEYS)
    assert f"{FILE}  exercise 1.1  test_" in shown and "divides by n - 1" in shown
    for level in (1, 2):  # each time one hint, and the verdict above it
        terminal.press("h")
        shown = terminal.until(KEYS)
        assert "divides by n - 1" in shown and [f"level {i} of 3:" in shown for i in (1, 2)] == [level == 1, level == 2]
    terminal.press("l")
    shown = terminal.until(KEYS)
    assert " 1 group_norm   failing  " in shown and "10 key_remapper to do " in shown
    terminal.press("r")
    shown = terminal.until("is being tested", cleared=True)  # what the last run said is gone
    assert "divides by n - 1" not in shown
    assert "divides by n - 1" in terminal.until(KEYS)

    (repo / FILE).write_text(SOLUTION.replace("    batch, channels = x.shape[:2]", "    while True: pass"))
    time.sleep(1)  # it is running; the next save ends it
    (repo / FILE).write_text(SOLUTION)
    shown = terminal.until(KEYS)
    assert " 1 group_norm   done     " in shown and "Stage 1 is done." in shown and "further reading:" in shown
    terminal.press("n")
    assert "next: exercise 2.1: " in terminal.until(KEYS)
    terminal.press("\x03" if way.startswith("forks") else "q")
    terminal.until(None, 20)
    assert terminal.exit_code() == 0


@pytest.mark.slow
def test_an_endless_loop_is_stopped_and_named(repo):
    if sys.platform != "linux":
        pytest.skip("processes are not forked here")
    (repo / FILE).write_text(SOLUTION.replace("    batch, channels = x.shape[:2]", "    while True: pass"))
    terminal = Terminal(repo, sys.executable, "-m", "course", "watch", "--stage", "1")
    shown = terminal.until(KEYS)
    assert re.search(rf"{FILE}:\d+: still running after \d+ seconds", shown)
    (repo / FILE).write_text(SOLUTION.replace("    batch, channels = x.shape[:2]", "    import os; os.abort()"))
    assert "The test ended its process (SIGABRT)." in terminal.until(KEYS)
    os.kill(terminal.process, signal.SIGTERM)
    terminal.until(None, 20)
    assert terminal.exit_code() == 0


def test_every_command_of_make_help(repo, capsys):
    code, shown = make(repo, "help")
    assert code == 0 and shown.strip() == cli.help_text().strip()
    assert max(map(len, shown.splitlines())) <= 120
    commands = dict.fromkeys(re.findall(r"^  make ([\w-]+)", shown, re.MULTILINE))
    assert list(commands) == [command.name for command in cli.COMMANDS]
    for command in commands:
        code, shown = make(repo, "-n", command)
        assert code == 0 and f" -m course {command}\n" in shown
        with pytest.raises(SystemExit, match=r"^0$"):
            cli.main([command, "--help"])
        assert capsys.readouterr().out.startswith(f"usage: python -m course {command} ")
    for words, wanted in {"doctor": "ok    Python 3", "stubs": "", "hint EXERCISE=3.2": "level 1 of 3:"}.items():
        assert wanted in make(repo, *words.split())[1]


def test_the_table_of_latencies(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_EXERCISES", "")  # it sets that, and it is put back afterwards
    monkeypatch.setattr(latency, "cold", lambda stage, state: 1.0)
    latency.latency(OneStage(stage=STAGE))  # its exit code depends on how busy the machine is
    shown = capsys.readouterr().out
    figure = r" +\d+\.\d\d s \(\d+\.\d\)"
    line = rf"^ 1 group_norm +(\d+\.\d\d) s +1\.00 s \((\d+\.\d)\){figure}{figure} +4 saves{figure}{figure}$"
    found = re.search(line, shown, re.MULTILINE)
    assert found, shown
    torch, ratio = map(float, found.groups())
    assert abs(ratio - 1 / torch) < 0.1


def test_a_cold_start_is_timed_if_it_ends_as_it_should(monkeypatch):
    assert 0 < latency.cold(STAGE, DONE) < 400
    monkeypatch.setattr(latency.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0))
    with pytest.raises(RuntimeError, match=r"Stage 1 is not 'failing' with `make test`\."):
        latency.cold(STAGE, FAILING)


def test_wrong_words_get_one_sentence(repo):
    for words, wanted in {
        "hint EXERCISE=3.9": "There is no exercise '3.9'",
        "hint STAGE=2 EXERCISE=3.1": "There is no exercise '3.1' in stage 2: choose one, 2.1, 2.2.",
        "solution": "Which stage?",
        "watch STAGE=99": "There is no stage '99'",
    }.items():
        code, shown = make(repo, *words.split())
        assert code != 0 and wanted in shown and "Traceback" not in shown and len(shown.splitlines()) <= 2


def test_a_detective_case(repo):
    (repo / FILE).write_text(SOLUTION)
    terminal = Terminal(repo, "make", "-s", "detective", "STAGE=1", "SEED=1", "NO_VENV=1", f"PYTHON={sys.executable}")
    shown = terminal.until("\n> ")
    assert "A mistake hides in stage 1, exercise 1." in shown and ">>> " in shown and "You get the second when" in shown
    terminal.press("? group_norm(ones(1, 4, 2, 2), 2)\n")
    assert re.search(r"  right +\(1, 4, 2, 2\) float64", terminal.until("\n> "))
    terminal.press("1\n2\n3\n4\nquit\n")  # one of them is right; what comes after it belongs to another case
    shown = terminal.until(None)
    assert "Case closed: stage01/" in shown and "1 case solved, " in shown and "Until next time." in shown
    assert terminal.exit_code() == 0
    assert (repo / ".course" / "detective.json").is_file() and (repo / FILE).read_text() == SOLUTION
