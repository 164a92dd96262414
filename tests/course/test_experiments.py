"""`make experiment`: each one runs, says what it measured and whose blocks it used; and the gallery made of them."""

import json
import math
import re
import shutil

import numpy
import pytest
import torch
from PIL import Image

from course import cli
from course.core import workspace
from course.core.assemble import for_generating
from course.core.stages import ROOT, find_stage
from course.experiments import EXPERIMENTS, gallery, jump, module, small_unets, vae
from course.experiments.decided import crossing
from course.experiments.lab import Lab
from course.experiments.latents import on_the_circle
from course.studio import question
from course.studio.parts import parts
from course.studio.question import Question

pytestmark = pytest.mark.limit(60)


@pytest.fixture
def run(checkpoint, tmp_path, capsys, monkeypatch):
    """run(*flags) -> (exit code, output, errors), as short as possible; pictures go to tmp_path/docs."""
    for name in ("NAME", "GALLERY", "TRAIN", "OUT", "BLOCKS", "CHECKPOINT", "TOKENIZER", "DEVICE", "SHORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COURSE_EXERCISES", str(tmp_path / "exercises"))
    workspace.write_stubs()

    def run(*flags: str) -> tuple[int, str, str]:
        given = [f"--checkpoint={checkpoint}", f"--out={tmp_path / 'docs'}", "--short", *flags]
        code = cli.main(["experiment", *given])
        output = capsys.readouterr()
        return code, output.out, output.err.strip()

    return run


@pytest.fixture
def lab(checkpoint) -> Lab:
    return Lab(for_generating("solutions").load(), checkpoint, short=True)


# --- each experiment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_draws_and_says_what_it_measured(run, name, tmp_path):
    code, output, errors = run(f"--name={name}")
    assert code == 0, errors
    path = tmp_path / "docs" / f"experiment-{name}.png"
    with Image.open(path) as picture:
        words = picture.text["Description"]
        assert picture.width == 1100 and numpy.asarray(picture.convert("L"))[40:-200].std() > 5, picture.size
        assert "All blocks are the reference." in picture.text["Comment"] and "mean nothing" in picture.text["Comment"]
    assert " ".join(words.split()) in " ".join(output.split())
    told, asked = words.split("\nAsked before: ")
    assert len(re.findall(r"\d", told)) > 3, f"no numbers: {told}"
    assert 1 <= len(re.findall(r"\.(?= |$)", told)) <= 6 and len(told) < 1000, told
    assert asked.startswith(module(name).QUESTION.text)
    assert any(f"Answer: {choice}." in asked for choice in module(name).QUESTION.choices)
    assert gallery.film_of(path).is_file() == (name == "latents")


def test_without_motion_modules_one_sentence_says_what_to_do(run, checkpoint, tmp_path):
    folder = tmp_path / "without"
    shutil.copytree(checkpoint.parent, folder)
    (folder / "motion.safetensors").unlink()
    code, _, errors = run("--name=motion", f"--checkpoint={folder}")
    assert code == 2 and "motion.safetensors" in errors and "make train PART=motion" in errors
    assert len(errors.splitlines()) == 1 and not (tmp_path / "docs").exists()


def test_every_experiment_has_a_title_that_asks_and_three_or_four_choices():
    assert list(EXPERIMENTS.values()) == sorted(EXPERIMENTS.values()), "not in the order of the stages"
    files = {path.stem for path in (ROOT / "course" / "experiments").glob("*.py")}
    assert files == {*EXPERIMENTS, "__init__", "lab", "gallery", "small_unets"}
    for name in EXPERIMENTS:
        found = module(name)
        assert found.TITLE.endswith("?") and found.QUESTION.text.endswith("?"), name
        assert 3 <= len(found.QUESTION.choices) <= 4 and len(found.__doc__) > 200, name


def test_without_a_name_all_are_listed(run):
    code, output, _ = run()
    assert code == 0
    assert [line.split()[0] for line in output.splitlines() if line.startswith("  ")] == list(EXPERIMENTS)


def test_a_finished_stage_is_used_and_named(run, tmp_path):
    stage = find_stage("sampler")
    text = stage.solution.read_text(encoding="utf-8")
    line = "return unconditional + scale * (conditional - unconditional)"
    assert line in text
    stage.exercise.write_text(text.replace(line, 'raise RuntimeError("mine ran")'), encoding="utf-8")
    code, _, errors = run("--name=guidance")
    assert code == 1 and "mine ran" in errors and stage.exercise.name in errors
    stage.exercise.write_text(text, encoding="utf-8")
    assert run("--name=negative")[0] == 0
    with Image.open(tmp_path / "docs" / "experiment-negative.png") as picture:
        assert "Yours: 9 sampler. All other blocks are the reference." in picture.text["Comment"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--name=stpes"], "There is no experiment 'stpes'"),
        (["--name=steps", "--train"], "TRAIN=1 belongs to NAME=blocks"),
        (["--name=steps", "--gallery=maybe"], "GALLERY=maybe"),
        (["--name=steps", "--checkpoint=nowhere"], "checkpoint nowhere"),
        (["--name=steps", "--blocks=mine"], "BLOCKS=mine"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(run, tmp_path, flags, words):
    code, _, errors = run(*flags)
    assert code == 2 and words in errors and len(errors.splitlines()) == 1, errors
    assert not (tmp_path / "docs").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(run, tmp_path):
    (tmp_path / "docs").write_text("a file where the folder should be")
    code, output, errors = run("--name=steps")
    assert code == 2 and not output and errors.endswith("picture.png cannot be written: Not a directory.")


# --- what they compute with ------------------------------------------------------------------------------------------


def test_the_exact_average_of_two_pictures():
    """Half way between two pictures both count alike; near one of them, that one counts alone."""
    latents = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    abar = 0.5
    middle, number = jump.posterior_mean(torch.full((1, 1, 2, 2), math.sqrt(abar) / 2), latents, abar)
    assert torch.allclose(middle, torch.full_like(middle, 0.5)) and number == pytest.approx(2.0)
    # |x - x_1|^2 = 0, |x - x_0|^2 = 4 * abar: weights in the ratio exp(-4 abar / (2 (1 - abar))) = exp(-2)
    near, number = jump.posterior_mean(torch.full((1, 1, 2, 2), math.sqrt(abar)), latents, abar)
    assert float(near.mean()) == pytest.approx(1 / (1 + math.exp(-2)), rel=1e-6) and 1.0 < number < 2.0


def test_betas_that_are_not_squared_lose_half_of_the_variance_after_some_twenty_steps(lab):
    abar = jump.not_squared(lab).alphas_cumprod
    assert 20 <= int((abar < 0.5).nonzero()[0]) <= 25 and float(abar[-1]) < 1e-30
    assert float(lab.model.schedule.alphas_cumprod[-1]) > 1e-3, "the model's own schedule was changed"


def test_where_a_curve_crosses_the_half():
    assert crossing([0.0, 0.25, 0.75, 1.0]) == pytest.approx(1.5)
    assert crossing([0.5, 1.0]) == 0.0
    assert crossing([0.0, 0.1, 0.2]) == 2.0


def test_the_circle_keeps_the_length_of_noise():
    one, other = (torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.allclose(on_the_circle(one, other, 0.0), one, atol=1e-6)
    assert torch.allclose(on_the_circle(one, other, 1.0), other, atol=1e-6)
    middle = float(on_the_circle(one, other, 0.5).norm())
    assert middle == pytest.approx(float(one.norm() + other.norm()) / 2, rel=0.01)
    assert float(((one + other) / 2).norm()) < 0.8 * middle


def test_bands_of_a_picture_add_up_to_it():
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    total = sum(vae.bands(image)) + image.mean((2, 3), keepdim=True)
    assert torch.allclose(total, image, atol=1e-5)
    stripes = torch.tensor([1.0, -1.0]).repeat(16).expand(1, 3, 32, 32)
    assert [float(band.square().mean()) for band in vae.bands(stripes)] == [0.0, 0.0, 0.0, 1.0]


def test_different_pairs_have_nothing_in_common(lab):
    pairs = lab.different_pairs(5)
    assert len(pairs) == 5
    for one, other in pairs:
        assert one.ground != other.ground and one.time != other.time
        assert one.things[0].object != other.things[0].object and one.things[0].colour != other.things[0].colour


def test_a_part_that_is_switched_off_adds_nothing_and_comes_back(lab):
    blocks = module("blocks")
    switches = parts(lab.model.unet, lab.opened.config.unet.channels)
    x, t, context = lab.noise(), torch.tensor([500]), lab.context("")
    with torch.no_grad():
        before = lab.model.unet(x, t, context)
        moved = {}
        for name, part in switches.items():
            with blocks.switched_off(part):
                moved[name] = float((lab.model.unet(x, t, context) - before).norm())
        assert torch.equal(lab.model.unet(x, t, context), before), "a part stayed off"
    assert {name for name, change in moved.items() if change == 0.0} == set()
    residual = lab.model.unet.mid.residual1
    with blocks.switched_off(switches["middle, residual 1"]):
        wide = torch.randn(1, 16, 4, 4)
        assert torch.equal(residual(wide, lab.model.unet.time_embedding(t)), wide)


def test_a_part_is_switched_off_however_it_is_written(lab, monkeypatch):
    blocks, residual = module("blocks"), lab.model.unet.mid.residual1
    monkeypatch.setattr(type(residual), "forward", lambda self, x, time_embedding: x + 1.0)
    wide = torch.randn(1, 16, 4, 4)
    with blocks.switched_off([("residual", residual, 0)]):
        assert torch.equal(residual(wide, None), wide) and torch.equal(residual(x=wide, time_embedding=None), wide)
    assert torch.equal(residual(wide, None), wide + 1.0)


# --- the small U-Nets ------------------------------------------------------------------------------------------------


def test_the_small_unets_are_trained_by_a_flag_and_differ_in_one_thing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(small_unets, "FILE", tmp_path / "curves.json")
    code, _, errors = run("--name=blocks", "--train")
    assert code == 0, errors
    curves = json.loads((tmp_path / "curves.json").read_text())
    assert list(curves) == list(small_unets.WIDTHS) == list(json.loads((SHIPPED).read_text()))
    for curve in curves.values():
        assert curve["steps"] == [0, 2, 4] and all(error > 0 for error in curve["errors"])
        assert curve["errors"][0] != curve["errors"][-1]
    assert curves["no middle"]["parameters"] < curves["concatenated"]["parameters"]
    assert curves["added skips"]["parameters"] < curves["concatenated"]["parameters"]


SHIPPED = ROOT / "course" / "experiments" / "small_unets.json"


def test_the_curves_that_ship_go_down_and_cost_about_the_same():
    curves = json.loads(SHIPPED.read_text())
    base = curves["concatenated"]
    for name, curve in curves.items():
        assert curve["steps"] == base["steps"] and curve["errors"][-1] < 0.6 * curve["errors"][0], name
        assert 0.85 < curve["flops"] / base["flops"] < 1.05, name


# --- predict first ---------------------------------------------------------------------------------------------------

ASKED = Question("What comes?", ("this", "that", "neither"))


def test_nothing_is_asked_in_a_pipe(monkeypatch):
    monkeypatch.setattr("builtins.input", lambda text: pytest.fail("asked"))
    assert question.ask(ASKED) is None


@pytest.mark.parametrize(
    ("said", "guess"), [([""], None), (["b"], 1), ([" C) "], 2), (["d", "maybe", "a"], 0), ([EOFError], None)]
)
def test_an_answer_is_one_of_the_letters_or_enter(monkeypatch, capsys, said, guess):
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(getattr(question.sys, stream), "isatty", lambda: True, raising=False)

    def answer(text: str) -> str:
        line = said.pop(0)
        if line is EOFError:
            raise EOFError
        return line

    monkeypatch.setattr("builtins.input", answer)
    assert question.ask(ASKED) == guess and not said
    shown = capsys.readouterr().out
    assert "What comes?" in shown and "b) that" in shown


def test_the_answer_stands_below():
    assert question.verdict(ASKED, None, 1) == "Asked before: What comes? Answer: that."
    assert question.verdict(ASKED, 1, 1).endswith("Answer: that. That is what you said.")
    assert question.verdict(ASKED, 0, 1).endswith("Answer: that. You said: this.")


def test_a_guess_stands_under_the_picture(run, tmp_path, monkeypatch):
    monkeypatch.setattr(question, "ask", lambda asked: 0)
    run("--name=groups")
    with Image.open(tmp_path / "docs" / "experiment-groups.png") as picture:
        assert re.search("You said: |That is what you said", picture.text["Description"])


# --- the gallery -----------------------------------------------------------------------------------------------------


def test_the_gallery_is_made_of_the_pictures_that_are_there(run, tmp_path):
    for name in ("vae", "groups"):
        assert run(f"--name={name}", "--gallery")[0] == 0
    page = (tmp_path / "docs.md").read_text(encoding="utf-8")
    titles = re.findall("^### (.*)$", page, re.M)
    assert titles == [module("groups").TITLE, module("vae").TITLE], "not in the order of the stages"
    words = gallery.words_of(tmp_path / "docs" / "vae.webp")
    assert words["text"] in page and words["question"] in page
    assert f"**{words['choices'][words['answer']].capitalize()}.**" in page
    assert "(docs/vae.webp)" in page and "## Stage 5: vae" in page


def test_the_gallery_that_ships_says_what_its_pictures_say(tmp_path):
    page = ROOT / "docs" / "gallery.md"
    text = page.read_text(encoding="utf-8")
    pictures = sorted(gallery.FOLDER.iterdir())
    assert {path.name for path in pictures} == {f"{name}.webp" for name in EXPERIMENTS} | {"latents-film.webp"}
    assert sum(path.stat().st_size for path in pictures) < 6_000_000
    assert gallery.page_text(gallery.FOLDER) == text, "make experiment NAME=... GALLERY=1 writes the page anew"
    for name in (path.stem for path in pictures if not path.stem.endswith("-film")):
        notes = gallery.words_of(gallery.FOLDER / f"{name}.webp")["notes"]
        assert "Weights: checkpoints/tiny/model.safetensors." in notes, name
        assert not any("mean nothing" in note for note in notes), name
