"""Tests of the machinery: stubs, assembling, commands, and how results are shown."""

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course.cli import main
from course.core import assemble, workspace
from course.core.stages import ENCORE, PIPELINE, ROOT, STAGES, Stage, find_stage
from course.core.stubs import exercises, stub_text, todo
from course.learn import board, hints, testing
from tests.conftest import LONGEST

pytestmark = pytest.mark.limit(100)  # some tests start Python and import torch

# One learner's file per kind of trouble, small tests that run into it, and what the learner reads then.
TROUBLE = {
    1: ("batch, channels = x.shape[:2]", "batch, channels = = x.shape[:2]"),
    2: ("return x * torch.sigmoid(x)", "return x\n\n\nHALF = sigmoidd(1)"),
    3: ("class MultiHeadAttention(nn.Module)", "class MultiHead(nn.Module)"),
    4: ("return x.repeat_interleave(scale, dim=-2)", "while True: pass\n    return x"),
    5: ("return mean + std * noise", "return (mean + std) @ noise"),
    6: ("return x * torch.sigmoid(1.702 * x)", 'raise NotImplementedError("exercise 6.4: x")'),
    7: ("from .stage01_group_norm import GroupNorm", "from .stage01_group_norm import GroupNorms"),
    8: ("import torch\n", "from .stage09_sampler import denoise\n"),
}
TESTS_OF_TROUBLE = """
# 1
def test_loads(stage): pass
# 2
def test_loads(stage): pass
# 3
def test_name(stage): stage.MultiHeadAttention
# 4
import pytest
@pytest.mark.limit(0.5)
@pytest.mark.exercise("4.1")
def test_loop(stage): stage.upsample_nearest(None)
# 5
import torch
def test_shape(stage): stage.sample_latents(torch.zeros(1, 2, 3, 4), torch.zeros(1, 1, 3, 5))
def test_message(stage): assert 1 + 1 == 3, "two ones gave 2: was one forgotten?"
def test_chained(stage):
    try:
        stage.sample_latents(None, None)
    except AttributeError as error:
        raise AssertionError("sample_latents(None, None) raised AttributeError") from error
def test_signature(stage): stage.sample_latents(1, 2, 3)
# 6
import pytest
from hypothesis import given, strategies as st
@pytest.fixture
def broken(stage): return stage.quick_gelu(1)
def test_in_fixture(broken): pass
@given(x=st.integers())
def test_in_hypothesis(stage, x): stage.quick_gelu(x)
@pytest.mark.exercise("6.4")
def test_signature_alone(stage): pass
@given(x=st.integers(0, 9))
def test_falsified(stage, x): assert x < 5, "too large"
def test_passes(stage, blocks): assert blocks[6] is stage
# 7
def test_loads(stage): pass
# 8
def test_loads(stage): pass
"""
WANTED = {
    1: "exercises/stage01_group_norm.py  test_loads\n\n"
    "exercises/stage01_group_norm.py:LINE: SyntaxError: invalid syntax\n"
    "    batch, channels = = x.shape[:2]\n                      ^\n",
    2: "exercises/stage02_residual.py:LINE: NameError: name 'sigmoidd' is not defined\n    HALF = sigmoidd(1)\n",
    3: "exercises/stage03_attention.py  test_name\n\n"
    "AttributeError: module 'stage03_attention' has no attribute 'MultiHeadAttention'\n\n"
    "tests/test_stage03_attention.py:LINE, in test_name\n    def test_name(stage): stage.MultiHeadAttention\n",
    4: "exercises/stage04_upsample.py  exercise 4.1  test_loop\n\n"
    "exercises/stage04_upsample.py:LINE: still running after 0.5 seconds: is there a loop that never ends?\n",
    5: "exercises/stage05_vae.py:LINE, in sample_latents\n    return (mean + std) @ noise\n|"
    "exercises/stage05_vae.py  test_message\n\ntwo ones gave 2: was one forgotten?\n___|"
    "sample_latents(None, None) raised AttributeError\n\nexercises/stage05_vae.py:LINE, in sample_latents\n    mean, |"
    "exercises/stage05_vae.py  test_signature\n\n"
    "TypeError: sample_latents() takes 2 positional arguments but 3 were given",
    6: "exercises/stage06_clip.py  test_falsified\n\ntoo large\n\nFailing test case: test_falsified(\n    x=5,\n)\n|"
    "SKIPPED [1] tests/test_stage06_clip.py:LINE: to do: exercise 6.4: x\nSKIPPED",
    7: "exercises/stage07_unet.py:LINE: ImportError: cannot import name 'GroupNorms' from 'stage01_group_norm'",
    8: "exercises/stage08_scheduler.py:LINE: "
    "ModuleNotFoundError: No module named 'stage09_sampler'\n    from .stage09_sampler",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A learner's folder of its own, with all stubs."""
    monkeypatch.setenv("COURSE_EXERCISES", str(tmp_path / "exercises"))
    monkeypatch.delenv("STAGE", raising=False)
    assert workspace.write_stubs() == []
    return tmp_path.resolve() / "exercises"


def solve(upto: int) -> None:
    for stage in STAGES[:upto]:
        shutil.copyfile(stage.solution, stage.exercise)


def rewrite(stage: Stage, old: str, new: str) -> None:
    """The learner's file becomes the solution with one change."""
    text = stage.solution.read_text(encoding="utf-8")
    assert text.count(old) == 1
    stage.exercise.write_text(text.replace(old, new), encoding="utf-8")


def course(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "course", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_files_that_are_tested_first_are_there():
    assert [file for file in LONGEST if not (ROOT / "tests" / file).is_file()] == []


# --- stages and stubs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["3", "03", 3, "attention", "stage03_attention", "stage03_attention.py"])
def test_a_stage_has_several_names(text):
    assert find_stage(text).module == "stage03_attention"


@pytest.mark.parametrize("text", ["0", "99", "", "attend", "3.5", "-1"])
def test_an_unknown_stage_gets_the_list(text):
    with pytest.raises(ValueError, match=r"choose one of 1 group_norm, 2 residual, .* 10 key_remapper"):
        find_stage(text)


def test_exercises_are_in_step_with_solutions():
    assert workspace.stale_stubs() == []


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_exercises_are_numbered_in_order(stage):
    numbers = [exercise.number for exercise in exercises(stage)]
    assert numbers == [f"{stage.number}.{i}" for i in range(1, len(numbers) + 1)]
    assert len(numbers) > 0


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stub_is_the_solution_without_the_bodies(stage):
    solution = stage.solution.read_text(encoding="utf-8")
    stub = stub_text(solution)
    written = dict(functions(solution))
    to_write = {name for exercise in exercises(stage) for name in exercise.names}
    removed: set[int] = set()
    for name, function in functions(stub):
        if name in to_write:
            *docstring, statement = function.body
            assert isinstance(statement, ast.Raise) and len(docstring) == (ast.get_docstring(function) is not None)
            removed |= set(range(statement.lineno, statement.end_lineno + 1))
        else:
            assert ast.unparse(function) == ast.unparse(written[name])
    assert to_write <= set(dict(functions(stub))) and len(removed) >= len(to_write)
    kept = [line for number, line in enumerate(stub.splitlines(), 1) if number not in removed]
    lines = iter(solution.splitlines())
    assert all(line in lines for line in kept), "the stub holds a line that the solution does not have there"
    assert stub_text(stub) == stub


def functions(source: str) -> list[tuple[str, ast.FunctionDef]]:
    """(qualified name, function) for functions and methods, not for functions inside of functions."""
    found = []
    for node in ast.parse(source).body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        found += [(prefix + member.name, member) for member in members if isinstance(member, ast.FunctionDef)]
    return found


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_stub_raises_its_number(stage, folder):
    module = assemble.for_testing(stage.number)[stage.number]
    for exercise in exercises(stage):
        for name in exercise.names:
            target = module
            for part in name.split("."):
                target = inspect.getattr_static(target, part)
            target = getattr(target, "fget", None) or getattr(target, "__func__", target)
            required = [p for p in inspect.signature(target).parameters.values() if p.default is p.empty]
            positional = [None for p in required if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
            keywords = {p.name: None for p in required if p.kind is p.KEYWORD_ONLY}
            with pytest.raises(NotImplementedError, match=f"^exercise {exercise.number}: {exercise.title[:10]}"):
                target(*positional, **keywords)


def test_bodies_go_and_everything_else_stays():
    solution = '''"""Stage."""

LIMIT = 3  # stays


class Thing(Base):
    """Exercise 1.1: a thing: with "quotes"."""

    size: int = 4  # stays

    def __init__(
        self,
        size: dict[str, int] = {"a": 1},  # stays
    ):  # stays too
        # goes
        super().__init__()

    @property
    def both(self) -> int:
        """Twice.

        Even so.
        """
        def inner():
            return 2
        return inner() * self.size
        # goes as well

    def helper(self):
        """Given: one."""
        return 1  # stays

    def own(self):
        """Exercise 1.2: one more (with a remark)."""
        return LIMIT


# stays
def free(x): return x
'''
    expected = '''"""Stage."""

LIMIT = 3  # stays


class Thing(Base):
    """Exercise 1.1: a thing: with "quotes"."""

    size: int = 4  # stays

    def __init__(
        self,
        size: dict[str, int] = {"a": 1},  # stays
    ):  # stays too
        raise NotImplementedError("exercise 1.1: a thing")

    @property
    def both(self) -> int:
        """Twice.

        Even so.
        """
        raise NotImplementedError("exercise 1.1: a thing")

    def helper(self):
        """Given: one."""
        return 1  # stays

    def own(self):
        """Exercise 1.2: one more (with a remark)."""
        raise NotImplementedError("exercise 1.2: one more")


# stays
def free(x): return x
'''
    assert stub_text(solution) == expected


def test_what_is_to_do_is_read_without_running(tmp_path):
    path = tmp_path / "stage.py"
    path.write_text(
        'raise NotImplementedError("exercise 2.2: x")\n'
        'raise NotImplementedError("exercise 2.10: y")\n'
        'raise NotImplementedError("exercise 2.2: x")\n'
        'raise NotImplementedError\nraise ValueError("exercise 2.1: z")\n'
    )
    assert todo(path) == ["2.2", "2.10"]


# --- assembling ------------------------------------------------------------------------------------------------------


def test_stages_find_the_stages_that_they_were_assembled_with():
    marked = STAGES[0].solution.read_text(encoding="utf-8") + "\nMARK = 1\n"
    blocks = assemble.for_testing(2, "solutions", overrides={1: marked})
    other = assemble.for_testing(2, "solutions")
    assert blocks[2].GroupNorm is blocks[1].GroupNorm is not other[1].GroupNorm
    assert blocks.stage01_group_norm.MARK == 1 and not hasattr(other[1], "MARK")
    assert blocks[2].__file__ == str(STAGES[1].solution)


def test_all_stages_load(folder):
    assert len(assemble.for_generating("solutions").load().origin) == 10
    assert set(assemble.for_generating("solutions", fused=True).load().origin.values()) == {"solutions"}
    assert len(assemble.for_testing(11, "solutions").load().origin) == len(STAGES)
    with pytest.raises(AttributeError):
        _ = assemble.for_generating("solutions").stage11_more


def test_fused_kernels_replace_the_reference_only(folder):
    solve(1)
    blocks = assemble.for_generating("auto", fused=True)
    plain = assemble.for_generating("auto")
    assert blocks[1].group_norm.__code__.co_filename == str(STAGES[0].exercise)
    for number, name in ((2, "silu"), (3, "scaled_dot_product_attention"), (3, "image_to_tokens")):
        fused, written = getattr(blocks[number], name), getattr(plain[number], name)
        assert "kernels.py" in fused.__code__.co_filename
        assert list(inspect.signature(fused).parameters) == list(inspect.signature(written).parameters)
    assert blocks[5].silu is blocks[2].silu


@pytest.mark.parametrize("upto", range(len(STAGES) + 1))
def test_staircase(folder, upto):
    """With 1..k solved: those are the learner's, the rest is to do, and every test sees one learner's file at most."""
    solve(upto)
    rest = len(STAGES) - upto
    verdicts = [board.read(stage) for stage in STAGES]
    assert [v.state for v in verdicts] == [board.WRITTEN] * upto + [board.TO_DO] * rest
    assert [v.untouched for v in verdicts] == [False] * upto + [True] * rest
    everything = assemble.for_generating("auto", encore=[stage.number for stage in ENCORE]).load()
    assert list(everything.origin.values()) == ["exercises"] * upto + ["solutions"] * rest
    generating = assemble.for_generating("auto").load()
    assert generating.origin == {stage.number: everything.origin[stage.number] for stage in PIPELINE}
    for stage in STAGES:
        blocks = assemble.for_testing(stage.number)
        theirs = [number for number, origin in blocks.origin.items() if origin == "exercises"]
        assert theirs == [stage.number] and blocks[stage.number].__file__ == str(stage.exercise)
    if upto < 10:
        message = rf"needs all ten stages, and {10 - upto} are to do, from exercise {upto + 1}\.1 on"
        with pytest.raises(assemble.StageError, match=message):
            assemble.for_generating("exercises")
    else:
        assert set(assemble.for_generating("exercises").load().origin.values()) == {"exercises"}


@pytest.mark.slow
@pytest.mark.limit(900)
def test_staircase_for_real(folder):
    """As a stage's tests see no other file of the learner's, one run with all of them solved stands for every k."""
    solve(len(STAGES))
    result = course("test")
    assert result.returncode == 0, result.stdout + result.stderr
    assert [line[16:20] for line in result.stdout.splitlines()[: len(STAGES)]] == ["done"] * len(STAGES)
    encore = f"encore {len(ENCORE)}/{len(ENCORE)}"
    assert f"10 of 10 stages and 47 of 47 exercises are done; {encore}." in result.stdout
    assert result.stdout.endswith("All ten stages are yours: `make generate` now draws with your code alone.\n")


# --- what the learner sees -------------------------------------------------------------------------------------------


def test_each_kind_of_failure_is_short_and_names_its_file(folder, tmp_path):
    for number, (old, new) in TROUBLE.items():
        rewrite(STAGES[number - 1], old, new)
    tests = tmp_path / "tests"
    tests.mkdir()
    for number, text in re.findall(r"# (\d)\n([^#]+)", TESTS_OF_TROUBLE):
        (tests / STAGES[int(number) - 1].test.name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "course.learn.plugin"]
    command += ["-c", str(ROOT / "pyproject.toml")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run([*command, str(tests)], cwd=tmp_path, capture_output=True, text=True, env=environment)
    shown = re.sub(r"(?<=\.py:)\d+", "LINE", result.stdout)
    for wanted in "|".join(WANTED.values()).split("|"):
        assert wanted in shown, result.stdout
    assert "7 failed, 1 passed, 3 skipped, 4 errors" in shown
    failures = re.split(r"\n_+ .* _+\n", result.stdout.partition("= short test summary info")[0])[1:]
    assert len(failures) == 11 and all(len(failure.splitlines()) < 25 for failure in failures)
    assert "plugin.py" not in shown and "site-packages" not in shown


def test_a_fresh_clone_is_all_to_do(folder):
    result = course("test")
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.startswith(f" 1 group_norm   to do    -> {folder / 'stage01_group_norm.py'}\n")
    assert "\n10 key_remapper to do    ->" in result.stdout
    assert "\n11 training     to do    encore  ->" in result.stdout
    encore = f"encore 0/{len(ENCORE)}"
    assert f"0 of 10 stages and 0 of 47 exercises are done; {encore}.\n\nnext: exercise 1.1: " in result.stdout
    assert "make test STAGE=1" in result.stdout and len(result.stdout.splitlines()) == len(STAGES) + 5
    assert course("test", "--stage", "attention").returncode == 1


def start_stage_2(silu: str) -> None:
    """The learner's stage 2: exercise 2.1 written, 2.2 still to do."""
    text = workspace.stub(STAGES[1])
    start, end = text.index('    raise NotImplementedError("exercise 2.1'), text.index("class ResidualBlock")
    STAGES[1].exercise.write_text(f"{text[:start]}    print('seen')\n    return {silu}\n\n\n{text[end:]}")


def test_a_done_stage_then_a_failing_one(folder):
    solve(1)
    start_stage_2("x * torch.sigmoid(x) + 1")
    result = course("test")
    assert (result.returncode, result.stderr) == (1, ""), result.stdout
    done, failing, *later, count = result.stdout.splitlines()[: len(STAGES) + 1]
    failure = result.stdout.splitlines()[len(STAGES) + 1 :]
    assert done.startswith(" 1 group_norm   done     ") and done.endswith(str(folder / "stage01_group_norm.py"))
    assert failing.startswith(" 2 residual     failing  ") and failing.endswith(str(folder / "stage02_residual.py"))
    assert len(later) == len(STAGES) - 2 and all(" to do    " in line and "-> " in line for line in later)
    assert count == f"1 of 10 stages and 2 of 47 exercises are done; encore 0/{len(ENCORE)}."
    assert failure[1].startswith(f"{folder / 'stage02_residual.py'}  exercise 2.1  test_")
    assert "printed:" in failure and "    seen" in failure and failure[-1].startswith("again: make test STAGE=2 ")
    assert sum("  exercise 2.1  test_" in line for line in failure) == 1 and len(failure) < 40


def test_what_comes_after_a_finished_stage(folder):
    def after(number: int) -> str:
        return "\n".join(board.next_lines(testing.left_after(STAGES[number - 1])))

    solve(2)
    assert "next: exercise 3.1: " in after(2)
    solve(10)
    assert "next: exercise 11.1: " in after(2) and "next: exercise 11.1: " in after(10)
    STAGES[4].exercise.write_text(workspace.stub(STAGES[4]))
    assert "next: exercise 5.1: " in after(10) and "next: exercise 5.1: " in after(len(STAGES))
    solve(len(STAGES))
    assert testing.left_after(STAGES[2]) is None and testing.left_after(STAGES[9]) is None
    hints.note_failing(STAGES[4], ["5.2", "5.3"])  # written, but wrong
    for number in (3, 4, 6, 10):
        assert "next: exercise 5.2: " in after(number) and after(number).endswith("make test STAGE=5")
    assert testing.left_after(STAGES[4]) is None  # that very stage has just been tested
    STAGES[1].exercise.write_text(workspace.stub(STAGES[1]))
    assert "next: exercise 5.2: " in after(4) and "next: exercise 2.1: " in after(5)
    STAGES[6].exercise.write_text("def f(:\n")
    assert "stage07_unet.py cannot be loaded" in after(5)


def test_a_started_stage_tells_how_far_it_is(folder, capsys):
    start_stage_2("x * torch.sigmoid(x)")
    verdict = board.read(STAGES[1])
    verdict.passed, verdict.to_do = 5, 20
    assert "to do    1 of 2 exercises written" in board.board_line(verdict)
    testing.explain(verdict)
    shown = capsys.readouterr().out
    assert "next: exercise 2.2: " in shown and "make test STAGE=2" in shown
    line = int(re.search(r"stage02_residual.py:(\d+)", shown)[1])
    assert "exercise 2.2" in "".join(STAGES[1].exercise.read_text().splitlines()[line - 1 : line + 1])


def test_a_file_that_cannot_be_read_is_named(folder):
    STAGES[0].exercise.write_text("def f(:\n")
    result = course("test")
    assert result.returncode == 1
    assert f"{folder / 'stage01_group_norm.py'}:1: SyntaxError" in result.stdout and "Traceback" not in result.stdout
    with pytest.raises(assemble.StageError, match=r"stage01_group_norm.py:1: SyntaxError"):
        assemble.for_generating("auto")
    STAGES[0].exercise.unlink()
    assert "is missing: `make reset STAGE=1` brings the stub back." in course("test").stdout


# --- commands --------------------------------------------------------------------------------------------------------


def test_solution_and_reset_keep_the_learners_file(folder, capsys):
    stage = STAGES[2]
    stub = stage.exercise.read_text()
    assert main(["solution", "--stage", "3", "--copy"]) == 0
    assert stage.exercise.read_text() == stage.solution.read_text() and backups(folder) == []  # a stub is no work
    stage.exercise.write_text("# my work\n")
    assert main(["reset", "--stage", "attention"]) == 0
    assert stage.exercise.read_text() == stub
    stage.exercise.write_bytes(b"\xff more work")
    assert main(["reset", "--stage", "3"]) == 0
    assert [backup.read_bytes() for backup in backups(folder)] == [b"# my work\n", b"\xff more work"]
    stage.exercise.write_text(stub + "\n\ndef helper(): pass\n")
    assert main(["stubs"]) == 0 and len(backups(folder)) == 3
    shown = capsys.readouterr().out
    assert shown.count("Your version is kept as ") == 3 and str(backups(folder)[0]) in shown
    assert main(["reset", "--stage", "3"]) == 0 and len(backups(folder)) == 3


IN_THE_WAY = {
    "a folder": lambda path: path.mkdir(),
    "a folder that is not empty": lambda path: (path.mkdir(), (path / "notes").write_text("mine")),
    "a link that leads nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a pipe": lambda path: os.mkfifo(path),
    "a huge file": lambda path: path.write_text("x = 1\n" * 500_000),
}


@pytest.mark.skipif(os.name == "nt", reason="there are neither pipes nor, as a rule, links")
@pytest.mark.parametrize("put", IN_THE_WAY.values(), ids=IN_THE_WAY)
@pytest.mark.limit(20)
def test_something_else_in_the_place_of_an_exercise(folder, put, capsys):
    stage = STAGES[2]
    stage.exercise.unlink()
    put(stage.exercise)
    before = stage.exercise.lstat().st_ino
    for command in ("hint", "solution", "test"):
        main([command, "--stage=3"])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err and str(stage.exercise) in shown.out + shown.err
    assert main(["generate", "--steps=1", "--out=x.png"]) == 1
    assert "stage03_attention.py" in capsys.readouterr().err
    assert main(["stubs", "--check"]) == 1
    assert main(["reset", "--stage=3"]) == 0
    assert stage.exercise.read_text() == workspace.stub(stage)
    (backup,) = [path for path in folder.iterdir() if path.name.endswith(".bak.py")]
    kept_as_it_was = backup.lstat().st_ino == before or backup.read_text() == "x = 1\n" * 500_000
    assert kept_as_it_was, "what was there is not kept"
    assert f"kept as {backup}" in capsys.readouterr().out


def test_a_link_in_the_place_of_an_exercise_is_not_written_through(folder, tmp_path):
    stage, elsewhere = STAGES[2], tmp_path / "elsewhere.py"
    elsewhere.write_text("# mine\n")
    stage.exercise.unlink()
    stage.exercise.symlink_to(elsewhere)
    assert main(["reset", "--stage=3"]) == 0 and elsewhere.read_text() == "# mine\n"
    assert stage.exercise.read_text() == workspace.stub(stage) and backups(folder)[0].read_text() == "# mine\n"


def test_a_full_disk_loses_nothing(folder, monkeypatch, capsys):
    stage = STAGES[2]
    stage.exercise.write_text("# my work\n")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["reset", "--stage=3"]) == 2
    assert stage.exercise.read_text() == "# my work\n"
    assert [path for path in folder.iterdir() if path.suffix != ".py" or ".bak" in path.name] == []
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and shown.endswith(" cannot be written: No space left on device.\n")


@pytest.mark.parametrize("text", ["x = " + "-" * 100_000 + "1", "x = " + "(" * 300, "x = 1\0", "x = '\\ud800" + "\0'"])
def test_python_that_cannot_be_compiled(folder, text, capsys):
    STAGES[2].exercise.write_text(text)
    for command in ("test", "hint"):
        assert main([command, "--stage=3"]) == 1
        shown = capsys.readouterr()
        assert "stage03_attention.py" in shown.out and "Traceback" not in shown.err
    assert main(["generate", "--steps=1", "--out=x.png"]) == 1
    assert "stage03_attention.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        "", "null", "[1]", "[" * 100_000, '{"hints": {"3.1": "x"}}', '{"hints": {"3.1": null}}',
        '{"hints": {"3.1": -5}}', '{"hints": {"3.1": 1e999}}', '{"hints": 3}', '{"failing": {"3": null}}',
        '{"failing": {"3": [[]]}}', '{"failing": {"3": 7}}', '{"reading": [null, {}]}', '{"reading": "x"}',
    ],
    ids=lambda text: text[:30],
)
def test_a_memory_that_makes_no_sense_is_forgotten(folder, content, capsys):
    path = folder.parent / ".course" / "state.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    assert main(["hint", "--stage=3"]) == 0
    shown = capsys.readouterr()
    assert "level 1 of 3:" in shown.out and shown.err == ""
    assert json.loads(path.read_text())["hints"] == {"3.1": 1}


def test_solution_is_shown_beside_the_learners_file(folder, capsys):
    stage = STAGES[0]
    before = stage.exercise.read_bytes()
    assert main(["solution", "--stage", "1"]) == 0
    shown = capsys.readouterr().out
    assert stage.solution.read_text() in shown and stage.exercise.read_bytes() == before
    assert "\n-    raise NotImplementedError(" in shown and "\n+    batch, channels = x.shape[:2]\n" in shown
    assert shown.endswith("Nothing was changed. To take it over: make solution STAGE=1 COPY=1\n")
    solve(1)
    assert main(["solution", "--stage", "1"]) == 0
    assert capsys.readouterr().out.endswith(f"{stage.exercise} is the same.\n")


def backups(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.bak.py"), key=lambda path: path.stat().st_mtime_ns)


def test_stubs_check_lists_what_differs(folder, capsys):
    assert main(["stubs", "--check"]) == 0
    STAGES[6].exercise.write_text("")
    assert main(["stubs", "--check"]) == 1
    assert "stage07_unet.py" in (shown := capsys.readouterr().err) and "stage06" not in shown


def test_wrong_calls_get_one_sentence(folder, capsys, monkeypatch):
    assert main(["reset"]) == 2 and main(["test", "--stage", "42"]) == 2
    monkeypatch.setenv("STAGE", "nothing")
    assert main(["solution"]) == 2
    lines = capsys.readouterr().err.splitlines()
    wanted = ["STAGE=3", "There is no stage '42'", "There is no stage 'nothing'"]
    assert len(lines) == 3 and all(text in line for text, line in zip(wanted, lines))


def test_commands_start_without_torch(folder):
    code = "import sys; from course.cli import main; main(['test']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    "prompt", ['cost $$5 "x" `id` $(shell id) \U0001f388', "it's $HOME \\ # ; | %", "two\nlines $x"], ids=ascii
)
@pytest.mark.parametrize("given", ["argument", "environment"])
def test_make_hands_over_the_prompt_unchanged(tmp_path, prompt, given):
    python = tmp_path / "python"
    script = 'import os, sys; sys.argv[1] == "-c" or print(ascii(os.environ["PROMPT"]))'
    python.write_text(f"#!{sys.executable}\n{script}\n")
    python.chmod(0o755)
    command = ["make", "-s", "generate", "NO_VENV=1", f"PYTHON={python}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    if given == "argument":
        command.append(f"PROMPT={prompt}")
    else:
        environment["PROMPT"] = prompt
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.stdout == ascii(prompt) + "\n", result.stderr
