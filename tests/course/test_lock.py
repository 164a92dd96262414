"""The lock satisfies the ranges of pyproject.toml, and tools/lock.py, which makes it, notices when it does not."""

import tomllib

import pytest
from packaging.requirements import Requirement

from tools import lock

PROJECT = tomllib.loads(lock.PROJECT.read_text(encoding="utf-8"))


def test_the_lock_satisfies_the_ranges():
    pinned = lock.pins(lock.LOCK.read_text(encoding="utf-8"))
    assert list(lock.disagreements(lock.everything(PROJECT), pinned)) == []


def test_the_lock_is_in_order():
    text = lock.LOCK.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == sorted(lines, key=str.lower) and all(line.count("==") == 1 for line in lines)
    assert not any(lock.GPU_ONLY.match(name) for name in lock.pins(text))


def test_the_extra_all_holds_every_other():
    names = {requirement.name for requirement in lock.ranges(PROJECT, "all")}
    for extra in PROJECT["project"]["optional-dependencies"]:
        assert names >= {requirement.name for requirement in lock.ranges(PROJECT, extra)}, extra


@pytest.mark.parametrize(
    ("pinned", "problems"),
    [
        ({"some-package": "1.5"}, []),
        ({"some-package": "2.0"}, ["Some_Package<2,>=1.2 is asked for and 2.0 is pinned."]),
        ({"other": "1.5"}, ["Some_Package<2,>=1.2 is asked for and not pinned."]),
    ],
)
def test_disagreements(pinned, problems):
    asked = [Requirement("Some_Package>=1.2,<2"), Requirement("old-only; python_version < '3'")]
    assert list(lock.disagreements(asked, pinned)) == problems


def test_pins_of_a_text():
    text = "# a comment, made by x==1\n\nJinja2==3.1.6\nhuggingface_hub==2.4.0\r\n"
    assert lock.pins(text) == {"jinja2": "3.1.6", "huggingface-hub": "2.4.0"}


def test_lines_out_of_what_pip_lists():
    assert lock.pinned_lines("torch==2.13.0+cpu\nJinja2==3.1.6\npip==24.0\n") == ["Jinja2==3.1.6", "torch==2.13.0"]
    with pytest.raises(ValueError, match=r"nvidia-nccl-cu12 came along: set TORCH_INDEX"):
        lock.pinned_lines("torch==2.13.0\nnvidia-nccl-cu12==2.27\n")


def test_check_says_what_disagrees(tmp_path, monkeypatch, capsys):
    text = lock.LOCK.read_text(encoding="utf-8")
    monkeypatch.setattr(lock, "LOCK", tmp_path / "requirements.lock")
    lock.LOCK.write_text(text, encoding="utf-8")
    assert lock.main(["--check"]) == 0
    assert "satisfies all" in capsys.readouterr().out
    lock.LOCK.write_text(text.replace("tqdm==", "tqdm==1"), encoding="utf-8")
    assert lock.main(["--check"]) == 1
    assert capsys.readouterr().out.startswith("tqdm<5,>=4.70 is asked for and 14.")


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """A lock of its own, and in place of pip's work a list of what would be installed, with what was asked of it."""
    calls = []

    def resolved(requirements, torch, constraints):
        calls.append((torch, constraints))
        return ["numpy==2.9.0", f"torch=={torch}"]

    monkeypatch.setattr(lock, "LOCK", tmp_path / "requirements.lock")
    monkeypatch.setattr(lock, "OLDEST", lock.sys.version_info[:2])
    monkeypatch.setattr(lock, "resolved", resolved)
    lock.LOCK.write_text("numpy==2.4.6\ntorch==2.13.0\ntqdm==3.0\n", encoding="utf-8")
    return calls


@pytest.mark.parametrize(
    ("flags", "torch", "constraints"),
    [
        ([], "2.13.0", "numpy==2.4.6\ntorch==2.13.0\n"),  # tqdm's range asks for another one
        (["--upgrade"], "2.13.0", "torch==2.13.0\n"),
        (["--torch=2.14.0"], "2.14.0", "numpy==2.4.6\ntorch==2.14.0\n"),
    ],
)
def test_which_pins_stay(pip, capsys, flags, torch, constraints):
    assert lock.main(flags) == 0
    assert pip == [(torch, constraints)]
    assert lock.pins(lock.LOCK.read_text(encoding="utf-8")) == {"numpy": "2.9.0", "torch": torch}
    assert "numpy: 2.4.6 -> 2.9.0\n" in capsys.readouterr().out


def test_a_torch_outside_of_its_range_is_refused(pip):
    with pytest.raises(ValueError, match=r"torch<3,>=2.13 is asked for and 1.0 is pinned"):
        lock.main(["--torch=1.0"])
    assert not pip


def test_another_python_is_refused(pip, monkeypatch):
    monkeypatch.setattr(lock, "OLDEST", (3, 1))
    with pytest.raises(ValueError, match=r"The lock is made with Python 3\.1, the oldest"):
        lock.main([])
    assert not pip


def test_the_oldest_python_is_the_one_that_pyproject_names():
    assert PROJECT["project"]["requires-python"] == f">={'.'.join(map(str, lock.OLDEST))}"
