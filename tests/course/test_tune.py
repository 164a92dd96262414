"""make tune: what it reads, what it writes, and what it refuses."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from course import cli
from course.core.messages import Refusal
from course.core.stages import STAGES
from course.core.workspace import write_stubs
from course.draw import checkpoint as ckpt
from course.training import loop, tune
from tests.course.test_lora import picture_of_diffusers
from tools import unknown

pytestmark = pytest.mark.limit(300)

STAGE = STAGES[tune.LORA - 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Four snowmen with captions."""
    folder = tmp_path_factory.mktemp("snowmen")
    unknown.main(folder, count=4)
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch, capsys):
    """make tune with two steps in an empty folder and with stubs: exit code, screen, errors."""
    monkeypatch.setenv("COURSE_EXERCISES", str(tmp_path / "exercises"))
    monkeypatch.chdir(tmp_path)
    write_stubs()
    capsys.readouterr()

    def run(*flags, pictures=folder):
        given = (f"--pictures={pictures}", "--word=snowman", "--out=run", "--steps=2", "--old=2", "--batch=1")
        fixed = [flag for flag in given if not any(f.startswith(flag.split("=")[0] + "=") for f in flags)]
        code = cli.main(["tune", "--threads=1", "--device=cpu", *fixed, *flags])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_the_file_holds_the_attentions_and_draws_like_in_diffusers(run):
    code, shown, errors = run("--rank=12")
    path = Path("run/snowman.safetensors")
    assert code == 0, errors
    assert "LoRA and its loss are the reference's (solutions/stage12_lora.py)." in shown
    assert f'make generate LORA={path} PROMPT="a snowman"' in shown
    tensors = load_file(path)
    assert path.stat().st_size < 400_000 and len(tensors) == 3 * (56 + 16)
    assert sum(name.startswith("lora_unet_") and "_to_" in name for name in tensors) == 3 * 56
    assert sum(name.startswith("lora_te_") and "_proj." in name for name in tensors) == 3 * 16
    assert any(tensor.any() for name, tensor in tensors.items() if name.endswith("lora_up.weight"))
    with safe_open(path, "pt") as file:
        assert file.metadata()["word"] == "snowman"
    with Image.open("run/lora.png") as sheet:
        assert sheet.size == (4 * 128, 2 * 128)
    order = f"generate --lora {path} --seed 3 --steps 3 --device cpu --blocks solutions --out out.png --prompt".split()
    assert cli.main([*order, "a red house in the snow at night"]) == 0
    pytest.importorskip("peft")
    drawn = np.asarray(Image.open("out.png")).astype(int)
    assert np.abs(drawn - picture_of_diffusers({path.resolve(): 1.0})).max() <= 1


def test_the_learners_stage_is_taken_when_it_is_finished(run):
    run("--out=reference")
    shutil.copyfile(STAGE.solution, STAGE.exercise)
    code, shown, errors = run("--out=own")
    assert code == 0, errors
    assert "LoRA and its loss are yours (exercises/stage12_lora.py)." in shown
    reference, own = (load_file(f"{folder}/snowman.safetensors") for folder in ("reference", "own"))
    assert all(torch.equal(tensor, own[name]) for name, tensor in reference.items())
    code, shown, _ = run("--out=own", "--steps=3")
    assert code == 0 and "going on after step 2" in shown
    text = STAGE.solution.read_text(encoding="utf-8")
    STAGE.exercise.write_text(text.replace("return losses[0] + prior", "return loss[0] + prior"), encoding="utf-8")
    code, _, errors = run("--out=wrong")
    assert code == 1 and "exercises/stage12_lora.py:" in errors and "NameError" in errors
    assert "Traceback" not in errors


def test_the_model_itself_stays_as_it_is(run, folder):
    from course.core.assemble import for_training

    blocks = for_training("solutions", tune.LORA)
    options = tune.TuneOptions.parse([f"--pictures={folder}", "--word=snowman", "--old=2", "--batch=1"], "tune", "")
    opened = ckpt.open_checkpoint()
    model, before = ckpt.build(blocks, opened), ckpt.build(blocks, opened)
    part = tune.LoraPart(blocks, model, options, 128)
    loop.train(part, loop.Settings(Path(), steps=2), loop.make_accelerator(), blocks[11])
    changed = [name for name, weight in part.model.state_dict().items() if weight.any()]
    assert len(changed) == len(part.model.state_dict()) == 2 * (56 + 16)
    for ours, theirs in ((model.unet, before.unet), (model.text_encoder, before.text_encoder)):
        blocks[12].take_out(ours)
        for name, weight in theirs.state_dict().items():
            assert torch.equal(weight, ours.state_dict()[name]), name


def test_the_text_encoder_can_be_left_out_and_all_layers_taken(run):
    code, _, errors = run("--text=0", "--layers=all", "--rank=1", "--steps=1")
    assert code == 0, errors
    tensors = load_file("run/snowman.safetensors")
    assert all(name.startswith("lora_unet_") for name in tensors)
    assert "lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight" in tensors


def test_captions_of_files_and_of_the_word(tmp_path):
    for i in range(3):
        Image.new("RGB", (90 + i, 70), (200, i, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "1.txt").write_text("a blorb\n on a table \n", encoding="utf-8")
    pictures, captions = tune.read_pictures(tmp_path, "blorb", 64)
    assert captions == ["a blorb", "a blorb on a table", "a blorb"]
    assert all(picture.size == (64, 64) for picture in pictures)


def test_old_prompts(tmp_path):
    prompts = tune.old_prompts(None, 5, 0)
    assert len(set(prompts)) > 1 and prompts == tune.old_prompts(None, 5, 0) != tune.old_prompts(None, 5, 1)
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n\n a dog \n", encoding="utf-8")
    assert tune.old_prompts(path, 3, 0) == ["a cat", "a dog", "a cat"]
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(Refusal, match="has no line with a prompt"):
        tune.old_prompts(path, 3, 0)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--word="], "needs PICTURES, a folder, and WORD"),
        (["--pictures=nowhere"], "PICTURES=nowhere is no folder."),
        (["--pictures=exercises"], "PICTURES=exercises wants 2 to 1000 pictures (.png, "),
        (["--word=dragon"], "WORD=dragon is in none of the captions"),
        (["--word=../snowman"], "WORD=../snowman is not possible"),
        (["--old-prompts=nowhere.txt"], "OLD_PROMPTS=nowhere.txt: there is no such file."),
        (["--old-prompts=noise.txt"], "OLD_PROMPTS=noise.txt cannot be read as text."),
        (["--out=noise.txt"], "noise.txt/snowman.safetensors cannot be written: Not a directory."),
        (["--word=" + 41 * "a"], "aaa is not possible: letters, digits, spaces and hyphens will do, 40 at most."),
        (["--rank=0"], "RANK=0 is not possible"),
        (["--layers=some"], "LAYERS=some is not possible"),
        (["--checkpoint=nowhere"], "There is no checkpoint nowhere"),
        (["--blocks=exercises"], "BLOCKS=exercises needs stage12_lora, and 1 are to do, from exercise 12.1 on."),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(run, flags, words):
    Path("noise.txt").write_bytes(b"\xff\xfe\xfd")
    code, shown, errors = run(*flags)
    assert code == 2 and "LoRA and its loss" not in shown, "it is refused before anything is loaded"
    assert words in errors and len(errors.splitlines()) == 1, errors
    assert not list(Path().glob("run/*.safetensors"))
