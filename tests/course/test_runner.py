"""What `make test` makes of files that fail in unusual ways, here and on systems that lack what Linux has."""

import faulthandler
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from course.core import limits, workspace
from course.core.contract import differences
from course.core.stages import ROOT, STAGES
from course.feedback.mistakes import mistakes_of, wrong_text
from course.learn import board, hints, testing, workshop
from course.learn.runner import LONGEST_TEST, run_all

pytestmark = pytest.mark.limit(300)  # starts processes that import torch

# Put in place of what it stands on, at the start of Python, it leaves what there is on Windows.
ELSEWHERE = """
import os, signal, sys
for name in ("fork", "forkpty", "sched_getaffinity"):
    delattr(os, name)
for name in ("SIGALRM", "SIGVTALRM", "SIGPROF", "setitimer", "getitimer"):
    delattr(signal, name)
import huggingface_hub.utils._terminal  # which asks for termios everywhere but on Windows
for name in ("fcntl", "termios", "tty"):
    sys.modules[name] = None
"""
# A plugin of pytest's, with which a test of a stage counts as an endless loop sooner.
HURRIED = """
from course.learn import plugin
plugin.LIMIT = 2.0
"""
TEST = """
import pathlib, sys
from course.learn import testing
code = testing.test_in_order(pathlib.Path(sys.argv[1]))
assert "torch" not in sys.modules, "this process only shows what another one does"
sys.exit(code)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A learner's folder of its own, with ten stubs."""
    monkeypatch.setenv("COURSE_EXERCISES", str(tmp_path / "exercises"))
    monkeypatch.delenv("STAGE", raising=False)
    monkeypatch.setenv("NO_VENV", "1")  # the interpreter that runs these tests
    workspace.write_stubs()
    return tmp_path.resolve() / "exercises"


@pytest.fixture(params=["here", "elsewhere"])
def environment(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> dict[str, str]:
    """That of a process on this system, or on one that has neither forks nor timers."""
    if request.param == "here":
        return dict(os.environ)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "sitecustomize.py").write_text(ELSEWHERE, encoding="utf-8")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "elsewhere"), str(ROOT)])}


def write(number: int, old: str = "", new: str = "") -> None:
    """The learner's file becomes the solution with one change."""
    text = STAGES[number - 1].solution.read_text(encoding="utf-8")
    assert text.count(old) == 1 or not old
    STAGES[number - 1].exercise.write_text(text.replace(old, new) if old else text, encoding="utf-8")


def write_mistake(number: int, name: str) -> str:
    """The learner's file becomes a wrong version; returns the catalogue's hint."""
    mistake = next(mistake for mistake in mistakes_of(number) if mistake.name == name)
    STAGES[number - 1].exercise.write_text(wrong_text(number, mistake), encoding="utf-8")
    return mistake.hint


def run(environment: dict[str, str], tmp_path: Path) -> tuple[int, str, dict]:
    """Exit code, screen and result of `make test`."""
    command = [sys.executable, "-c", TEST, str(tmp_path / "result.json")]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.stderr == ""
    return ran.returncode, ran.stdout, json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))


def test_the_result_for_a_program(folder, tmp_path, environment):
    write(1)
    hint = write_mistake(2, "time-per-column")
    write(3, "class MultiHeadAttention(nn.Module)", "class MultiHeadAttention(nn.Modul)")
    STAGES[3].exercise.write_text("def f(:\n")
    text = workspace.stub(STAGES[7]).replace('raise NotImplementedError("exercise 8.1', 'return 3  # ("exercise 8.1')
    STAGES[7].exercise.write_text(text)
    code, shown, result = run(environment, tmp_path)
    assert code == 1 and result["version"] == 1
    assert list(tmp_path.glob("result.json*")) == [tmp_path / "result.json"]
    stages = {stage["number"]: stage for stage in result["stages"]}
    states = ["done", "failing", "cannot be loaded", "cannot be loaded", *["to do"] * 3, "failing"]
    states += ["to do"] * (len(STAGES) - 8)
    assert [stage["state"] for stage in stages.values()] == states
    assert [stage["name"] for stage in stages.values()] == [stage.name for stage in STAGES]

    assert stages[1]["failure"] is None and stages[1]["tests"]["passed"] > 20
    assert stages[1]["tests"]["failed"] == stages[1]["tests"]["to do"] == 0
    assert [(e["number"], e["state"]) for e in stages[1]["exercises"]] == [("1.1", "done"), ("1.2", "done")]
    assert all(exercise["title"] for exercise in stages[1]["exercises"])

    assert [e["state"] for e in stages[2]["exercises"]] == ["done", "failing"] and stages[2]["tests"]["failed"] > 0
    failure = stages[2]["failure"]
    assert failure["test"].startswith("test_") and failure["exercise"] == "2.2" and failure["or"] is None
    assert failure["mistake"] == {"name": "time-per-column", "hint": hint}
    assert failure["message"].startswith(f"{folder / 'stage02_residual.py'}  exercise 2.2  {failure['test']}\n")

    assert "AttributeError: module 'torch.nn' has no attribute" in " ".join(stages[3]["failure"]["message"].split())
    assert "stage04_upsample.py:1: SyntaxError" in stages[4]["failure"]["message"]
    for number in (3, 4):
        assert [stages[number]["failure"][name] for name in ("test", "exercise", "mistake", "or")] == [None] * 4
        assert " failing  cannot be loaded " in shown.splitlines()[number - 1]
    assert {exercise["state"] for exercise in stages[3]["exercises"]} == {"not tested"}

    assert stages[5]["tests"] == {"passed": 0, "failed": 0, "to do": 0} and stages[5]["failure"] is None
    assert [e["state"] for e in stages[8]["exercises"]][:2] == ["failing", "to do"]
    assert stages[8]["tests"]["to do"] > 20 and stages[8]["failure"]["mistake"] is None


@pytest.fixture
def hurried(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "hurried.py").write_text(HURRIED, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "plugins"), environment.get("PYTHONPATH", "")])
    return environment | {"PYTHONPATH": path, "PYTEST_PLUGINS": "hurried"}


@pytest.mark.parametrize("environment", ["here", pytest.param("elsewhere", marks=pytest.mark.slow)], indirect=True)
def test_what_ends_the_tests_is_a_failure(folder, tmp_path, hurried):
    """A loop, the end of the process while it is loaded, in a test, or between tests, and tests that are skipped."""
    write(1, "    batch, channels = x.shape[:2]\n", "    while True: pass\n")
    write(2, "import torch\n", "import os, torch\nos._exit(0)\n")
    write(3, "    d = query.shape[-1]\n", "    import os; os.kill(os.getpid(), 9)\n")
    write(4, "    return x.repeat", "    import pytest; pytest.skip('no time')\n    return x.repeat")
    write(5, "    return mean + std", "    import pytest; pytest.xfail('no luck')\n    return mean + std")
    write(6, "    return x * torch.sigmoid", "    import unittest; raise unittest.SkipTest('later')\n    torch.sigmoid")
    caught = "    while True:\n        try: sum(range(10_000))\n        except BaseException: pass\n"
    write(9, "    return unconditional + scale", caught + "    return unconditional + scale")
    later = "import os, threading\nthreading.Timer(0.1, os._exit, [0]).start()\n"
    write(8, "import torch\n", f"import torch\n{later}")
    code, shown, result = run(hurried, tmp_path)
    stages = {stage["number"]: stage for stage in result["stages"]}
    assert code == 1 and [stages[number]["state"] for number in (1, 2, 3, 4, 5, 6, 8, 9)] == ["failing"] * 8
    assert "0 of 10 stages" in shown
    failures = {number: stage["failure"] for number, stage in stages.items() if stage["failure"]}
    messages = {number: " ".join(failure["message"].split()) for number, failure in failures.items()}
    assert "still running after 2 seconds: is there a loop that never ends?" in messages[1]
    assert " 1 group_norm   failing  stopped at test_" in shown and stages[1]["tests"]["failed"] <= 2
    assert "in a `try` that catches every exception?" in messages[9]
    assert "stage02_residual.py exercise 2.1 test_" in messages[2] and "process (exit code 0)." in messages[2]
    assert "The test ended its process (SIGKILL)." in messages[3]
    assert "exercise 3.1 test_" in messages[3] and stages[3]["exercises"][0]["state"] == "failing"
    for number, reason in ((4, "Skipped: no time"), (5, "no luck"), (6, "SkipTest: later")):
        assert reason in messages[number] and "A test that the file under test skips has failed." in messages[number]
    assert "ended its process" in messages[8] or "The process of the tests ended" in messages[8]


CALLED = "    batch, channels = x.shape[:2]\n"
TAKES = "This takes more than 0.12 GB of memory: is there a loop that never stops adding to something?"


GREEDY = {  # find, replace, what is said
    "numbers": (CALLED, f"    k = []\n    while True: k.append([0] * 1000)\n{CALLED}", TAKES),
    "tensors": (CALLED, f"    k = []\n    while True: k.append(torch.ones(10**6))\n{CALLED}", TAKES),
    "while it is loaded": (
        "import torch\n", "import torch\nk = []\nwhile True: k.append(' ' * 10_000)\n", TAKES
    ),
    "a single tensor": (CALLED, f"    torch.ones(10**12)\n{CALLED}", "This asks for 3,725.3 GB of memory at once"),
}


@pytest.fixture(scope="module")
def news_of_greedy(tmp_path_factory) -> dict[str, list[dict]]:
    """What is said of each of them, all run by one process."""
    text, requests = STAGES[0].solution.read_text(encoding="utf-8"), []
    for old, new, _ in GREEDY.values():
        folder = tmp_path_factory.mktemp("greedy")
        assert text.count(old) == 1
        (folder / STAGES[0].exercise.name).write_text(text.replace(old, new), encoding="utf-8")
        requests.append({"stage": 1, "folder": str(folder), "whole": True, "memory": 1 << 27})
    news = list(run_all(requests, STAGES[:1]))
    return {name: [one for one in news if one["run"] == run] for run, name in enumerate(GREEDY)}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit the memory of a process")
@pytest.mark.parametrize("name", GREEDY)
def test_code_that_takes_all_memory(news_of_greedy, name):
    news, wanted = news_of_greedy[name], GREEDY[name][2]
    failures = [found for found in news if found["event"] == "failed"]
    assert len(failures) <= 2 and news[-1]["event"] == "over"  # the stage stops there
    assert wanted in " ".join(failures[0]["text"].split())
    assert ".append(" in failures[0]["text"] or "ones(10**12)" in failures[0]["text"]  # the line
    assert "Traceback" not in failures[0]["text"] and not failures[0]["mistakes"]


@pytest.mark.parametrize(
    ("wish", "longest"), [({}, LONGEST_TEST), ({"seconds": 2.0}, workshop.LONGEST_SEARCH)], ids=["learner", "mutants"]
)
def test_the_search_for_a_reason_has_time_of_its_own(monkeypatch, wish, longest):
    """On a busy machine, the limit of the test that failed could else end it, and no mistake would be named."""
    recorders: list[workshop.Recorder] = []
    plugins = SimpleNamespace(register=recorders.append, unregister=recorders.remove)

    def protocol(item, nextitem):
        recorders[0].tell("failing")

    hook = SimpleNamespace(pytest_runtest_protocol=protocol)
    config = SimpleNamespace(pluginmanager=plugins, hook=hook)
    item = SimpleNamespace(name="test_it", config=config, getparent=lambda kind: None)
    armed, said = [], []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, **_: armed.append(seconds))
    workshop.run_test({"run": 1} | wish, item, said.append)
    assert [news["event"] for news in said] == ["begun", "failing", "skipped"] and armed == [longest]


def test_code_that_is_about_to_end_is_not_given_up(monkeypatch):
    """A diagnosis may have hardly any time left, and its process is not to be ended for that."""
    given_up = []
    monkeypatch.setattr(limits, "give_up", lambda: given_up.append(True))

    def runs_on(depth: int) -> None:
        try:
            while not depth:
                pass
            runs_on(depth - 1)
        finally:
            sum(range(50_000))  # some time, at each of many steps on the way out

    with pytest.raises(limits.Stuck), limits.limited(0.001):
        runs_on(20)
    assert not given_up


@pytest.mark.parametrize("environment", ["elsewhere"], indirect=True)
def test_watching(folder, environment):
    """In test_walkthrough.py it is watched here."""
    write_mistake(1, "variance-divided-by-n-minus-1")
    command = [sys.executable, "-u", "-m", "course", "watch", "--stage", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=lambda: [lines.put(line) for line in process.stdout], daemon=True).start()

        def until(text: str) -> str:
            shown = ""
            while text not in shown:
                shown += lines.get(timeout=100)
            return shown

        assert "divides by n - 1" in until("q quit")
        write(1)
        assert "Stage 1 is done." in until("q quit")
        process.stdin.write("q\n")
        process.stdin.flush()
        assert process.wait(timeout=20) == 0


def test_an_old_result_does_not_stay(folder, tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.write_text("old")
    write(1)
    monkeypatch.setattr(testing, "run_all", lambda *arguments: (_ for _ in ()).throw(RuntimeError("no tests")))
    with pytest.raises(RuntimeError, match="no tests"):
        testing.test_one(STAGES[0], path)
    assert not path.exists()


# --- what differs from the stub --------------------------------------------------------------------------------------


def test_other_parameters_are_named(folder):
    for stage in STAGES:
        assert differences(stage) == []
    write(8, "    next_timestep: int,\n    eta: float = 0.0,\n", "    eta: float = 0.5,\n")
    (text,) = differences(STAGES[7])
    path = folder / "stage08_scheduler.py"
    line = path.read_text().splitlines().index("def ddim_step(") + 1
    assert " ".join(text.split()) == (
        f"{path}, line {line}: ddim_step takes (schedule, latents, predicted_noise, timestep, eta=0.5, noise=None); "
        "the stub has (schedule, latents, predicted_noise, timestep, next_timestep, eta=0.0, noise=None)."
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("class GroupNorm: pass", ["group_norm(x, num_", "GroupNorm.__init__(self, num", "GroupNorm.forward(self, x)"]),
        ("def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5): ...", ["GroupNorm;"]),
        ("from torch.nn.functional import group_norm\nGroupNorm = 3", []),
        ("from course.old import group_norm\nGroupNorm = 3", ["group_norm(x, num_"]),
        ("from elsewhere import *", []),
        ("if True:\n    def group_norm(y): ...\n    class GroupNorm: ...", []),
        ("from .other import group_norm\nclass GroupNorm:\n    __init__ = forward = None", []),
        ("def f(:", []),
    ],
)
def test_what_is_missing_is_named(folder, text, wanted):
    STAGES[0].exercise.write_text(text)
    found = differences(STAGES[0])
    assert len(found) == len(wanted)
    for line, start in zip(found, wanted, strict=True):
        assert line.startswith(f"{folder / 'stage01_group_norm.py'} does not define {start}")


def test_fields_of_a_dataclass_are_parameters(folder):
    write(9, "    timestep: int\n", "")
    (text,) = differences(STAGES[8])
    assert "Step takes (index, count, latents, original); the stub has (index, count, timestep, " in text


def test_what_differs_stands_beside_a_failure_alone(folder):
    verdict = board.read(STAGES[0])
    write(1, "def forward(self, x: Tensor)", "def forward(self, x: Tensor, more=None)")
    verdict.failure = "It fails."
    shown = " ".join(board.failure_text(verdict).split())
    assert shown.startswith("It fails. ") and "forward takes (self, x, more=None); the stub has (self, x). If " in shown
    assert "make solution STAGE=1" in shown
    STAGES[0].exercise.write_text("class GroupNorm: pass\n")
    shown = board.failure_text(verdict)
    assert " ".join(shown.split()).count("does not define") == 2 and "\n... and 1 more of this kind.\n" in shown
    write(1)
    assert board.failure_text(verdict) == "It fails." and hints.read_state()["failing"] == {}
