"""course.ipynb: its cells run in order, offline, in a copy of the repo. Left out are those tagged online or long."""

import json
import os
import re
import shutil
import subprocess
import sys
import types
from importlib.metadata import version
from pathlib import Path

import pytest

from course.cli import COMMANDS
from course.core.stages import ROOT, STAGES
from course.core.stubs import stub_text

LEFT_OUT = (".*", "__pycache__", "runs", "outputs", "*.bak.py")
CELLS = [
    cell
    for cell in json.loads((ROOT / "course.ipynb").read_text(encoding="utf-8"))["cells"]
    if cell["cell_type"] == "code"
]


def source(cell: dict) -> str:
    """The cell as Python: `!command {name}` becomes a call of shell()."""
    return re.sub(r"^( *)!(.*)$", r"\1shell(rf'''\2''')", "".join(cell["source"]), flags=re.MULTILINE)


def tags(cell: dict) -> set[str]:
    return set(cell["metadata"].get("tags", ()))


@pytest.fixture
def repo(tmp_path, monkeypatch) -> Path:
    """A copy of the repo, with stubs as the learner's files, as the current folder."""
    folder = tmp_path / "repo"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for stage in STAGES:
        stub = stub_text(stage.solution.read_text(encoding="utf-8"))
        (folder / "exercises" / f"{stage.module}.py").write_text(stub, encoding="utf-8")
    monkeypatch.chdir(folder)
    for name in [*os.environ]:
        if name.startswith(("MAKE", "MFLAGS", "COURSE_", "STAGE", "OUT", "NO_VENV", "PYTHON")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_VENV", "")  # the notebook sets both; they are put back afterwards
    monkeypatch.setenv("PYTHON", "")
    return folder


@pytest.mark.limit(120)
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_cells_run_in_order(repo, monkeypatch):
    outputs: dict[str, str] = {}
    shown: list[Path] = []

    def shell(command: str) -> None:
        done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        outputs[" ".join(command.split()[:2])] = done.stdout
        assert done.returncode == 0 or command == "make doctor", f"{command}\n{done.stdout}"

    display = types.ModuleType("IPython.display")
    display.Image = lambda path, width=None: Path(path).read_bytes()
    display.display = shown.append
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)

    names = {"shell": shell, "os": os}
    for cell in CELLS:
        if not tags(cell):
            exec(compile(source(cell), cell["id"], "exec"), names)

    assert names["wanted"].split()[0] == f"torch=={version('torch')}", "the torch that is there is not replaced"
    assert {word.split("==")[0] for word in names["wanted"].split()} >= {"diffusers", "transformers"}
    assert "Python 3" in outputs["make doctor"] and "checkpoints/tiny" in outputs["make doctor"]
    assert "0 of 10 stages" in outputs["make test"] and "next: exercise 1.1" in outputs["make test"]
    assert len(shown) == 2 and all(picture.startswith(b"\x89PNG") for picture in shown)


def test_the_notebook_is_clean():
    assert set().union(*map(tags, CELLS)) <= {"online", "long"}
    assert "".join(CELLS[0]["source"]).startswith("REPOSITORY = ")
    for cell in CELLS:
        assert not cell["outputs"] and cell["execution_count"] is None
        compile(source(cell), cell["id"], "exec")
    targets = [command.name for command in COMMANDS]
    used = {word for cell in CELLS for word in re.findall(r"!make (\w+)", "".join(cell["source"]))}
    assert used and used <= set(targets)
