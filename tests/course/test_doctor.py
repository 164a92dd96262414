"""`make doctor`: knows the checkpoint's files by their hashes, which the export writes; and who sends one there."""

import subprocess
import sys
from pathlib import Path

import pytest

from course import cli
from course.core.config import tiny_config
from course.core.stages import ROOT
from course.learn import doctor
from course.training.export import exported_files, write_untrained

TINY = ROOT / "checkpoints" / "tiny"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An export in the place where the doctor looks."""
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    write_untrained(tiny_config(), tmp_path / "checkpoints" / "tiny")
    return tmp_path / "checkpoints" / "tiny"


def sick() -> list[str]:
    return [what for well, what, _ in doctor.checkpoint() if not well]


def test_the_shipped_checkpoint_is_the_one_whose_hashes_are_listed():
    assert not sick(), "export writes SHA256SUMS beside the model: copy it along"
    listed = [line.split()[1] for line in (TINY / "SHA256SUMS").read_text().splitlines()]
    assert listed == [path.relative_to(TINY).as_posix() for path in exported_files(TINY)]
    assert {"model.safetensors", "config.json", "vocab.json", "merges.txt"} < set(listed)


def test_an_export_comes_with_its_hashes(folder):
    assert next(what for _, what, _ in doctor.checkpoint()).endswith("files, all with the right sha256")


def test_a_changed_and_a_missing_file_are_named(folder):
    model = folder / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    (folder / "diffusers" / "unet" / "config.json").unlink()
    names = sick()
    assert len(names) == 2
    assert "model.safetensors is not what it was" in names[0] and "unet/config.json is missing" in names[1]


def test_without_the_list_of_hashes_a_model_is_not_known(folder):
    (folder / "SHA256SUMS").unlink()
    assert sick() == [f"{doctor.short_path(folder)}: no SHA256SUMS to compare with"]


@pytest.mark.parametrize("content", [b"one", b"a b c", b"\xff\xfe"])
def test_a_list_of_hashes_that_is_none(folder, content):
    (folder / "SHA256SUMS").write_bytes(content)
    assert sick()[0].endswith("SHA256SUMS is not what it was")


def test_the_doctor_looks_on_after_something_that_cannot_be_read(folder, monkeypatch, capsys):
    (folder / "SHA256SUMS").unlink()
    (folder / "SHA256SUMS").mkdir()
    monkeypatch.setenv("COURSE_EXERCISES", str(folder / "nowhere"))
    assert cli.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("checkpoint: " in line and "SHA256SUMS: Is a directory." in line for line in lines)
    assert any("There is no folder" in line and "nowhere" in line for line in lines)
    assert lines[-1].endswith(" to look at.")


@pytest.mark.parametrize(("what", "says"), [("free", "exercises: full"), ("rights", "cannot be written to")])
def test_a_place_where_nothing_can_be_written(folder, monkeypatch, what, says):
    monkeypatch.setenv("COURSE_EXERCISES", str(folder / "exercises"))
    (folder / "exercises").mkdir()
    usage, access = doctor.shutil.disk_usage, doctor.os.access
    if what == "free":
        full = usage(folder)._replace(free=0)
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda p: full if p.name == "exercises" else usage(p))
    else:
        monkeypatch.setattr(doctor.os, "access", lambda path, mode: mode != doctor.os.W_OK and access(path, mode))
    found = [what for well, what, _ in [*doctor.disk(), *doctor.learners_files()] if not well]
    assert any(text.endswith(says) for text in found)


def test_without_torch_a_command_sends_to_the_doctor(monkeypatch, capsys):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    for command in ("test", "watch", "generate", "show", "check"):
        assert cli.main([command]) == 2
        shown = capsys.readouterr().err
        assert "torch is not installed for " in shown and "make doctor" in shown and len(shown.splitlines()) == 1
    assert cli.main(["help"]) == 0


def test_without_another_package_a_command_sends_to_the_doctor():
    hidden = "import sys; sys.modules['watchfiles'] = None; from course import cli; sys.exit(cli.main(['watch']))"
    done = subprocess.run([sys.executable, "-c", hidden], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"watchfiles is not installed for {sys.executable}. `make doctor` says what to do.\n"
