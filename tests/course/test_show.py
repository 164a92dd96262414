"""`make show`: every picture is written, says whose block made it, and bad input is refused. And the hints' files."""

import importlib
import re
import shutil
import tomllib
from pathlib import Path

import numpy
import pytest
from PIL import Image

from course import cli, show
from course.core import workspace
from course.core.stages import ROOT, STAGES, find_stage
from course.core.stubs import exercises
from course.show.questions import QUESTIONS
from course.studio.question import verdict
from tools.gallery import SIZE

pytestmark = pytest.mark.limit(60)

STAGE_IDS = [stage.name for stage in STAGES]


@pytest.fixture
def run(checkpoint, tmp_path, capsys, monkeypatch):
    """run(*flags) -> (exit code, output, errors); few steps; pictures go to tmp_path/picture.png and beside it."""
    for name in ("STAGE", "ALL", "OUT", "BLOCKS", "CHECKPOINT", "TOKENIZER", "DEVICE", "STEPS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COURSE_EXERCISES", str(tmp_path / "exercises"))
    monkeypatch.setattr("course.show.stage11_training.BY_HEART", 6)
    workspace.write_stubs()

    def run(*flags: str) -> tuple[int, str, str]:
        given = [f"--checkpoint={checkpoint}", f"--out={tmp_path / 'picture.png'}", "--steps=3", *flags]
        code = cli.main(["show", *given])
        output = capsys.readouterr()
        return code, output.out, output.err.strip()

    return run


def solve(name: str, old: str = "", new: str = "") -> Path:
    """Puts the solution, with one change, in place of the learner's file."""
    stage = find_stage(name)
    text = stage.solution.read_text(encoding="utf-8")
    assert old in text
    stage.exercise.write_text(text.replace(old, new, 1) if old else text, encoding="utf-8")
    return stage.exercise


def words_in(path: Path) -> str:
    with Image.open(path) as picture:
        return " ".join(picture.text.values())


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES, ids=STAGE_IDS)
def test_every_picture_is_drawn_and_says_whose_block_made_it(run, stage, tmp_path):
    code, output, errors = run(f"--stage={stage.number}", "--all")
    assert code == 0, errors
    module = importlib.import_module(f"course.show.{stage.module}")
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == len(module.PICTURES + module.MORE)
    for path in pictures:
        assert path.name in output
        with Image.open(path) as picture:
            assert picture.width == 1100 and 250 <= picture.height <= 1200, f"{path.name}: {picture.size}"
            drawn = numpy.asarray(picture.convert("L"))[40:-120]
            assert drawn.std() > 5, f"{path.name} is nearly blank"
            caption, *asked = picture.text["Description"].splitlines()
            assert "?" in picture.text["Title"] and 40 < len(caption) < 420, path.name
            questions = [QUESTIONS[stage.number]] if stage.number in QUESTIONS else []
            told = [verdict(question, None, answer) for question, answer in questions]
            assert asked == (told if path.name == "picture.png" else []), f"{path.name}: question and answer"
            assert f"Stage {stage.number} {stage.name} is the reference" in picture.text["Comment"]
    assert "is the reference" in output and stage.module in output


def test_each_of_the_ten_stages_has_a_question_before_its_picture():
    assert {stage.number for stage in STAGES if not stage.encore} <= set(QUESTIONS)
    for question, answer in QUESTIONS.values():
        assert question.text.endswith("?") and 3 <= len(question.choices) <= 4 and 0 <= answer < len(question.choices)


def test_without_all_the_slow_pictures_are_only_announced(run, tmp_path):
    _, output, _ = run("--stage=5")
    assert [path.name for path in tmp_path.glob("*.png")] == ["picture.png"]
    assert "ALL=1 draws 2 more: channels, cloud" in output


def test_pictures_that_need_a_missing_file_say_so(run, checkpoint, tmp_path):
    folder = tmp_path / "without"
    shutil.copytree(checkpoint.parent, folder)
    (folder / "motion.safetensors").unlink()
    code, output, errors = run("--stage=13", f"--checkpoint={folder}")
    assert code == 0 and not errors and [path.name for path in tmp_path.glob("*.png")] == ["picture.png"]
    for name in ("attention", "through-time"):
        assert f"No picture {name}: FRAMES needs motion modules" in output and "make train PART=motion" in output


def test_the_picture_of_a_lora_needs_its_file(run, checkpoint, tmp_path):
    folder = tmp_path / "without"
    shutil.copytree(checkpoint.parent, folder)
    (folder / "snowman.safetensors").unlink()
    code, output, errors = run("--stage=12", "--all", f"--checkpoint={folder}")
    assert code == 0 and not errors and [path.name for path in tmp_path.glob("*.png")] == ["picture.png"]
    assert "No picture strengths: " in output and "snowman.safetensors is missing" in output


def test_pictures_of_an_untrained_checkpoint_say_so(run, tmp_path):
    _, output, _ = run("--stage=5")
    assert "untrained" in words_in(tmp_path / "picture.png") and "untrained" in output


def test_without_out_the_picture_is_named_after_the_stage(run, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(show, "ROOT", tmp_path)
    assert cli.main(["show", "--stage=residual", f"--checkpoint={checkpoint}"]) == 0
    assert (tmp_path / "outputs" / "show-02-residual.png").is_file()


def test_the_readme_shows_a_picture_of_every_stage():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    paths = re.findall(r"\((docs/stages/\S+\.png)\)", text)
    assert paths == [f"docs/stages/{stage.module}.png" for stage in STAGES]
    assert sum((ROOT / path).stat().st_size for path in paths) < 1_000_000
    for path in paths:
        with Image.open(ROOT / path) as picture:
            assert picture.size == SIZE and numpy.asarray(picture.convert("L")).std() > 5, path


# --- the learner's blocks --------------------------------------------------------------------------------------------


def test_a_finished_stage_is_shown_in_place_of_the_reference(run, tmp_path):
    path = solve("upsample", "scale, dim=-1)", "scale, dim=-1).flip(-1)")
    code, output, errors = run("--stage=4")
    assert code == 0, errors
    assert "Stage 4 upsample is yours" in output and path.name in output and "Stage 4 upsample is yours" in words_in(
        tmp_path / "picture.png"
    )
    mine = numpy.asarray(Image.open(tmp_path / "picture.png"))
    run("--stage=4", "--blocks=solutions")
    reference = numpy.asarray(Image.open(tmp_path / "picture.png"))
    assert mine.shape != reference.shape or (mine[:-60] != reference[:-60]).any(), "the learner's block was not used"


def test_other_finished_stages_are_named(run, tmp_path):
    solve("group_norm")
    run("--stage=2")
    assert "of the others, 1 is yours" in words_in(tmp_path / "picture.png")


def test_an_error_in_a_block_names_its_file_and_draws_nothing(run, tmp_path):
    path = solve("residual", "return x * torch.sigmoid(x)", "return x * torch.sigmoid(y)")
    code, _, errors = run("--stage=2")
    assert code == 1
    assert path.name in errors and "NameError" in errors and "Traceback" not in errors
    assert not list(tmp_path.glob("*.png"))


def test_a_file_that_is_not_python_is_named(run):
    path = solve("attention", "import math", "import math(")
    code, _, errors = run("--stage=3")
    assert code == 1 and path.name in errors and "Traceback" not in errors


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "Which stage?"),
        (["--stage=99"], "There is no stage '99'"),
        (["--stage=1", "--out=picture.jpg"], "does not end in .png"),
        (["--stage=1", "--all=maybe"], "ALL=maybe"),
        (["--stage=1", "--steps=0"], "STEPS=0"),
        (["--stage=1", "--steps=many"], "STEPS=many"),
        (["--stage=1", "--blocks=mine"], "BLOCKS=mine"),
        (["--stage=1", "--checkpoint=nowhere"], "checkpoint nowhere"),
        (["--stage=1", "--device=toaster"], "DEVICE=toaster"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(run, tmp_path, flags, words):
    code, _, errors = run(*flags)
    assert code == 2
    assert words in errors and len(errors.splitlines()) == 1, errors
    assert not list(tmp_path.glob("*.png"))


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_asked(run, tmp_path):
    (tmp_path / "file").write_text("no folder")
    code, output, errors = run("--stage=1", f"--out={tmp_path / 'file' / 'a.png'}")
    assert code == 2 and not output and errors.endswith("a.png cannot be written: Not a directory.")


# --- hints -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES, ids=STAGE_IDS)
def test_every_exercise_has_three_hints(stage):
    texts = tomllib.loads((ROOT / "course" / "learn" / "hints" / f"{stage.module}.toml").read_text(encoding="utf-8"))
    assert [entry["number"] for entry in texts["exercise"]] == [exercise.number for exercise in exercises(stage)]
    for entry in texts["exercise"]:
        assert len(entry["hints"]) == 3, entry["number"]
        assert "?" in entry["hints"][0], f"the first hint of {entry['number']} asks no question"
        assert all(20 < len(hint) <= 330 for hint in entry["hints"]), f"{entry['number']}: a hint is too long"
    assert 2 <= len(texts["reading"]) <= 4
    assert texts["questions"] and all(set(pair) == {"question", "answer"} for pair in texts["questions"])


@pytest.mark.parametrize("stage", STAGES, ids=STAGE_IDS)
def test_no_hint_quotes_a_solution(stage):
    """No line of an exercise's body is in its hints; what the stub shows anyway may be."""
    squeezed = re.compile(r"\s+")
    stub = set(workspace.stub(stage).splitlines())
    lines = [line for line in stage.solution.read_text(encoding="utf-8").splitlines() if line not in stub]
    hints = squeezed.sub("", (ROOT / "course" / "learn" / "hints" / f"{stage.module}.toml").read_text(encoding="utf-8"))
    quoted = [line.strip() for line in lines if len(line.strip()) > 24 and squeezed.sub("", line) in hints]
    assert len(quoted) <= 2, f"the hints of stage {stage.number} hold these lines: {quoted}"
