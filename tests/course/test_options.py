"""The one declaration of each option, and what follows from it; and the set-up of .venv."""

import subprocess
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from course import cli
from course.core import setup
from course.core.messages import Refusal
from course.core.options import Options, option, variable
from course.core.stages import STAGES, Stage


@dataclass
class Some(Options):
    text: str = option("", "a text", empty=True)
    number: float | None = option(None, "a number", above=0, most=1)
    count: int = option(3, "a count", least=1, most=9)
    on: bool = option(False, "on or off")
    kind: str = option("a", "one of three", choices=("a", "b", "c"))
    stage: Stage | None = option(None, "a stage")
    out: Path | None = option(None, "a file")
    from_: str | None = option(None, "a word of Python")


def parse(*flags: str) -> Some:
    return Some.parse(flags, "some", "Does something.")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in Some.rules():
        monkeypatch.delenv(variable(name), raising=False)


def test_a_flag_comes_before_a_variable_and_a_variable_before_the_default(monkeypatch):
    monkeypatch.setenv("COUNT", "4")
    monkeypatch.setenv("FROM", "here.png")
    assert parse().count == 4 and parse("--count=5").count == 5 and parse().from_ == "here.png"
    assert parse("--count=5", "--stage=vae").given == {"count": 5, "stage": STAGES[4], "from_": "here.png"}


@pytest.mark.parametrize("text", ["1", "yes", "True", "on"])
def test_every_way_to_say_yes(monkeypatch, text):
    assert parse(f"--on={text}").on and parse("--on").on
    monkeypatch.setenv("ON", text)
    assert parse().on and not parse("--on=no").on


def test_nothing_is_not_given_unless_that_is_a_value(monkeypatch):
    monkeypatch.setenv("COUNT", "")
    monkeypatch.setenv("TEXT", "")
    assert parse().count == 3 and parse().given == {"text": ""}


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--count=0", "COUNT=0 is not possible: choose 1 to 9."), ("--count=x", "COUNT=x is not a whole number."),
        ("--number=0", "NUMBER=0 is not possible: choose a number above 0, up to 1."),
        ("--number=nan", "NUMBER=nan is not possible: choose a number above 0, up to 1."),
        ("--kind=d", "KIND=d is not possible: choose a, b or c."), ("--on=perhaps", "ON=perhaps is neither 1 nor 0."),
        ("--text=\ud800", "TEXT is not UTF-8: it holds bytes that are no characters."),
    ],
    ids=ascii,
)
def test_what_is_not_possible_is_refused_in_a_sentence(flag, says):
    with pytest.raises(Refusal) as refused:
        parse(flag)
    assert str(refused.value) == says


def test_values_of_another_kind_are_no_options():
    assert Some.from_values({"count": 4, "number": 1}) == Some(count=4, number=1)
    for values in ({"count": 4.0}, {"count": True}, {"on": 1}, {"text": None}, {"number": "1"}):
        with pytest.raises(TypeError):
            Some.from_values(values)


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.name)
def test_every_command_describes_all_of_its_options(command, capsys):
    _, kind = command.load()
    with pytest.raises(SystemExit):
        kind.parse(["--help"], command.name, command.does)
    shown = capsys.readouterr().out
    for field in fields(kind):
        if "rule" in field.metadata and not field.metadata["rule"].hidden:
            assert f"--{field.name.strip('_').replace('_', '-')}" in shown


def test_a_misspelt_name_gets_a_question_back(monkeypatch, capsys):
    assert cli.main(["genrate"]) == 2
    assert "did you mean generate?" in capsys.readouterr().err
    monkeypatch.setenv("COURSE_GIVEN", "STAGA PYTHON CXX")
    assert cli.main(["hint"]) == 2
    assert capsys.readouterr().err == "STAGA is no variable of make hint: did you mean STAGE?\n"


# --- set-up ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def venv(tmp_path, monkeypatch) -> list[list[str]]:
    """The commands that set-up would run for a .venv in an empty folder."""
    commands: list[list[str]] = []

    def run(command: list[str]) -> subprocess.CompletedProcess:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    folder = tmp_path / ".venv"
    for name, value in {"VENV": folder, "READY": folder / ".installed", "PYTHON": python}.items():
        monkeypatch.setattr(setup, name, value)
    monkeypatch.setattr(setup.subprocess, "run", run)
    monkeypatch.delenv("NO_VENV", raising=False)
    return commands


def test_torch_is_installed_first_and_from_its_own_index(venv, monkeypatch):
    monkeypatch.setenv("TORCH_INDEX", "https://example.org/cpu")
    assert setup.wanted() and not setup.is_ready()
    setup.set_up()
    assert setup.is_ready()
    make, torch, rest = venv
    assert make[1:3] == ["-m", "venv"]
    assert torch[-3:] == ["--index-url", "https://example.org/cpu", f"torch=={setup.pins()['torch']}"]
    assert rest[-2:] == ["-r", str(setup.LOCK)] and "--index-url" not in rest


def test_another_lock_file_means_another_set_up(venv, tmp_path, monkeypatch):
    setup.set_up()
    (tmp_path / "lock").write_text("torch==0.0.1  # a comment\n")
    monkeypatch.setattr(setup, "LOCK", tmp_path / "lock")
    assert not setup.is_ready() and setup.pins() == {"torch": "0.0.1"}


def test_a_set_up_that_failed_is_tried_again(venv, monkeypatch):
    monkeypatch.setattr(setup.subprocess, "run", lambda command: subprocess.CompletedProcess(command, 1))
    with pytest.raises(Refusal, match="could not be set up"):
        setup.set_up()
    assert not setup.is_ready()


def test_without_a_virtual_environment_if_that_is_asked_for(venv, monkeypatch):
    monkeypatch.setenv("NO_VENV", "1")
    assert not setup.wanted()
    monkeypatch.setenv("NO_VENV", "0")
    assert setup.wanted()
