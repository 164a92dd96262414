"""`make generate` as people use it: every option, every refusal, and nothing half-written."""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file

from course import cli
from course.core import workspace
from course.core.config import ModelConfig, tiny_config
from course.core.options import variable
from course.core.stages import ROOT, STAGES
from course.draw import checkpoint, generate, pictures
from course.draw.settings import SAMPLERS, Order, Settings
from course.training.export import write_untrained
from solutions.stage13_motion import MotionConfig
from tests.course.modules import write_modules

pytestmark = pytest.mark.limit(60)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A checkpoint of the shipped one's layout and size, with random weights."""
    folder = tmp_path_factory.mktemp("untrained")
    write_untrained(tiny_config(), folder, seed=0)
    return folder


@pytest.fixture
def draw(model_folder, tmp_path, capsys, monkeypatch):
    """draw(*flags) -> (exit code, output, errors); two steps, 32x32 pixels, tmp_path/out.png unless told otherwise."""
    for name in map(variable, Order.rules()):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*flags: str) -> tuple[int, str, str]:
        defaults = {
            "--checkpoint": model_folder / "model.safetensors", "--steps": 2, "--seed": 1, "--out": "out.png",
            "--width": 32, "--height": 32, "--device": "cpu", "--blocks": "solutions",
        }
        given_flags = {flag.split("=")[0] for flag in flags}
        arguments = [f"{flag}={value}" for flag, value in defaults.items() if flag not in given_flags]
        code = cli.main(["generate", *arguments, *flags])
        output = capsys.readouterr()
        return code, output.out, output.err.split("\r")[-1].strip()

    return run


def refusal(result: tuple[int, str, str], *words: str) -> None:
    """Asserts that the command refused in one sentence that holds these words, and wrote nothing."""
    code, _, errors = result
    assert code == 2, f"exit code {code}: {errors}"
    assert "Traceback" not in errors
    assert len(errors.splitlines()) == 1, errors
    for word in words:
        assert word in errors, f"{word!r} is not in: {errors}"
    left = [path for path in Path.cwd().iterdir() if path.suffix in (".part", ".gif") or path.name == "out.png"]
    assert not left, left


@pytest.fixture
def before_call(monkeypatch):
    """before_call(number, do): do() is called when the U-Net is asked for the so-manieth time."""

    def arrange(number: int, do) -> None:
        build, calls = checkpoint.build, []

        def hook(*args) -> None:
            calls.append(args)
            if len(calls) == number:
                do()

        def with_hook(*args, **kwargs):
            model = build(*args, **kwargs)
            model.unet.register_forward_pre_hook(hook)
            return model

        monkeypatch.setattr(checkpoint, "build", with_hook)

    return arrange


def pixels(path: str | Path) -> numpy.ndarray:
    with Image.open(path) as picture:
        return numpy.array(picture.convert("RGB"))


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


# --- pictures --------------------------------------------------------------------------------------------------------


def test_from_says_when_a_file_has_changed(draw, tmp_path):
    Image.new("RGB", (32, 32), "red").save("init.png")
    Image.new("L", (32, 32), 255).save("mask.png")
    assert draw("--init=init.png", "--mask=mask.png")[0] == 0
    flags = ["--from=out.png", "--out=again.png"]
    assert "is not the file that it was" not in draw(*flags)[1]
    Image.new("RGB", (32, 32), "blue").save("init.png")
    assert "INIT=init.png is not the file that it was" in draw(*flags)[1]
    assert "is not the file that it was" not in draw(*flags, "--init=init.png")[1]  # asked for


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", "x"), ("width", float("inf")), ("height", [1]), ("init", 5), ("checkpoint", [[1]]), ("tokenizer", {}),
        ("dtype", []), ("device", None), ("seed", 1.5), ("strength", "x"), ("prompt", "\ud800"), ("steps", True),
        ("scale", "7"), ("ema", 1), ("init_sha256", 3), ("compile", None),
    ],
    ids=str,
)
def test_a_picture_with_settings_that_make_no_sense(draw, name, value):
    settings_of = {field: value for field, value in dataclasses.asdict(Settings()).items() if field != "init"}
    info = PngInfo()
    info.add_itxt(pictures.SETTINGS, json.dumps(settings_of | {name: value}))
    Image.new("RGB", (8, 8)).save("odd.png", pnginfo=info)
    assert cli.main(["generate", "--from=odd.png", "--out=out.png"]) == 2
    assert not Path("out.png").exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("scale", 10**400, "SCALE=1000"), ("steps", 10**400, "STEPS=1000"), ("seed", 10**400, "SEED=1000"),
        ("width", 10**400, "WIDTH=1000"), ("height", -(10**400), "HEIGHT=-1000"), ("count", 10**400, "COUNT=1000"),
        ("strength", 10**400, "STRENGTH=1000"), ("prompt", "red " * 10_000, "PROMPT has 40,000 characters"),
        ("negative", "x" * 10_001, "NEGATIVE has 10,001"), ("checkpoint", "y" * 20_000, "CHECKPOINT has 20,000"),
        ("init", "~nobody-of-this-name/a.png", "INIT=~nobody"), ("tokenizer", "~nobody-of-this-name", "TOKENIZER=~"),
        ("checkpoint", "~nobody-of-this-name/a", "CHECKPOINT=~"), ("init", "a\0b", r"INIT=a\x00b is not there"),
        ("device", "\x1b[31m", r"DEVICE=\x1b[31m"), ("checkpoint", "\x1b[31m", r"There is no checkpoint \x1b[31m"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_picture_with_settings_that_go_too_far(capsys, monkeypatch, tmp_path, name, value, words):
    monkeypatch.chdir(tmp_path)
    info = PngInfo()
    values = {field: value for field, value in dataclasses.asdict(Settings()).items() if value is not None}
    info.add_itxt(pictures.SETTINGS, json.dumps(values | {name: value}))
    Image.new("RGB", (8, 8)).save("odd.png", pnginfo=info)
    assert cli.main(["generate", "--from=odd.png", "--out=out.png"]) == 2
    errors = capsys.readouterr().err
    assert words in errors and len(errors) < 300 and errors.count("\n") == 1 and "\x1b" not in errors
    assert not Path("out.png").exists()


def test_settings_that_are_nested_deeply(draw):
    info = PngInfo()
    info.add_itxt(pictures.SETTINGS, "[" * 100_000)
    Image.new("RGB", (8, 8)).save("odd.png", pnginfo=info)
    refusal(draw("--from=odd.png"), "FROM=odd.png does not say how it was made")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
@pytest.mark.parametrize("flag", ["--init", "--from"])
def test_what_is_no_file_is_not_waited_for(draw, flag):
    os.mkfifo("pipe.png")
    Path("folder.png").mkdir()
    for name in ("pipe.png", "folder.png", "/dev/null"):
        refusal(draw(f"{flag}={name}"), f"{flag[2:].upper()}={name} is not a file: it names a picture.")


def test_an_ending_is_no_name(draw, no_drawing):
    refusal(draw("--out=.png"), "OUT=.png is an ending and no name")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_not_replaced(draw, no_drawing):
    os.mkfifo("pipe.png")
    code, _, errors = draw("--out=pipe.png")
    assert code == 2 and errors == "pipe.png cannot be written: it is a pipe or a device."
    assert stat.S_ISFIFO(os.stat("pipe.png").st_mode)


def test_it_writes_a_picture_and_says_where(draw):
    code, output, _ = draw("--prompt=a blue cat")
    assert code == 0
    assert size_of("out.png") == (32, 32)
    assert "out.png" in output and "seed 1" in output and "32x32" in output and "0/10 blocks are yours" in output


def test_an_untrained_checkpoint_is_called_so(draw):
    assert "untrained" in draw()[1]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_another_picture(draw, sampler):
    assert draw(f"--sampler={sampler}", "--steps=4")[0] == 0
    assert draw("--sampler=ddim", "--steps=4", "--out=ddim.png")[0] == 0
    assert (pixels("out.png") == pixels("ddim.png")).all() == (sampler == "ddim")


def test_the_same_seed_gives_the_same_picture_and_another_one_another(draw):
    draw("--out=a.png"), draw("--out=b.png"), draw("--seed=2", "--out=c.png")
    assert (pixels("a.png") == pixels("b.png")).all()
    assert (pixels("a.png") != pixels("c.png")).any()


def test_without_a_seed_one_is_chosen_and_told(draw, monkeypatch):
    monkeypatch.setattr(generate.random.SystemRandom, "randrange", lambda self, stop: 4711)
    assert "seed 4711" in draw("--seed=")[1]


def test_without_out_files_are_numbered(draw, monkeypatch, tmp_path):
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    draw("--out=", "--prompt=A red house!"), draw("--out=", "--prompt=A cat")
    assert sorted(p.name for p in (tmp_path / "outputs").iterdir()) == ["0001-a-red-house.png", "0002-a-cat.png"]


def test_the_size_is_the_one_asked_for(draw):
    assert draw("--width=96", "--height=32")[0] == 0
    assert size_of("out.png") == (96, 32)


def test_several_pictures_and_a_contact_sheet(draw):
    code, output, _ = draw("--count=3")
    assert code == 0
    assert all(f"seed {seed}" in output for seed in (1, 2, 3))
    draw("--seed=2", "--out=alone.png")
    assert (pixels("out-2.png") == pixels("alone.png")).all()
    assert size_of("out.png")[0] > 32


def test_a_film_has_one_frame_per_step(draw):
    assert draw("--film", "--steps=5")[0] == 0
    with Image.open("out.gif") as film:
        assert film.n_frames == 5
        film.seek(4)
        last = numpy.array(film.convert("RGB")).astype(int)
    assert (abs(last - pixels("out.png")).mean()) < 12  # 256 colours only


@pytest.mark.parametrize("changed", ["--negative=a cat", "--scale=2"], ids=str)
def test_options_change_the_picture(draw, changed):
    draw("--out=a.png"), draw(changed, "--out=b.png")
    assert (pixels("a.png") != pixels("b.png")).any()


@pytest.fixture
def wide_with_units(monkeypatch):
    """As if the model were as wide as Stable Diffusion 1.5, and the processor had units for bfloat16."""
    monkeypatch.setattr(checkpoint, "WIDE", 1)
    monkeypatch.setattr(checkpoint, "multiplies_bfloat16_faster", lambda: True)


def test_bfloat16_where_it_pays(monkeypatch, wide_with_units):
    cpu = torch.device("cpu")
    assert checkpoint.choose_dtype("auto", cpu, tiny_config()) == torch.bfloat16
    assert checkpoint.choose_dtype("auto", cpu) == torch.float32
    assert checkpoint.choose_dtype("float32", cpu, tiny_config()) == torch.float32
    assert checkpoint.choose_dtype("auto", torch.device("cuda"), tiny_config()) == torch.float16
    monkeypatch.undo()
    monkeypatch.setattr(checkpoint, "multiplies_bfloat16_faster", lambda: True)
    assert checkpoint.choose_dtype("auto", cpu, tiny_config()) == torch.float32
    assert checkpoint.choose_dtype("auto", cpu, ModelConfig()) == torch.bfloat16
    monkeypatch.setattr(checkpoint, "multiplies_bfloat16_faster", lambda: False)
    assert checkpoint.choose_dtype("auto", cpu, ModelConfig()) == torch.float32


def test_the_dtype_and_its_reason_are_said(draw, monkeypatch):
    monkeypatch.setattr(checkpoint, "multiplies_bfloat16_faster", lambda: False)
    for units, wide, words in (
        (False, 1, "float32 (this processor has no units for bfloat16), "),
        (True, 320, "float32 (this model is small), "),
        (True, 1, "float32 (with which this processor is faster than with bfloat16), "),
    ):
        monkeypatch.setattr(checkpoint, "has_bfloat16_units", lambda units=units: units)
        monkeypatch.setattr(checkpoint, "WIDE", wide)
        assert words in draw()[1]
    assert "float32, loaded in" in draw("--dtype=float32")[1]  # no reason but that it was asked for


def test_from_draws_in_the_dtype_of_the_picture(draw, wide_with_units):
    assert "cpu, bfloat16 (with which this processor is faster" in draw("--out=a.png")[1]
    assert pictures.read_settings("a.png")["dtype"] == "bfloat16"
    assert "cpu, bfloat16, loaded" in draw("--from=a.png", "--out=b.png")[1]
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert "cpu, float32, loaded" in draw("--from=a.png", "--dtype=float32")[1]


def test_from_draws_an_old_picture_in_float32(draw, monkeypatch, wide_with_units):
    """They say "auto", which was float32 on every processor."""
    draw("--dtype=float32", "--out=a.png")
    settings_of = pictures.read_settings("a.png") | {"dtype": "auto"}
    with Image.open("a.png") as picture:
        pictures.write_png(Path("old.png"), picture, settings_of)
    assert "cpu, float32, loaded" in draw("--from=old.png", "--out=again.png")[1]
    assert (pixels("again.png") == pixels("a.png")).all()
    assert "cpu, bfloat16 (" in draw("--from=old.png", "--dtype=auto")[1]


@pytest.mark.parametrize(("dtype", "grey_levels"), [("bfloat16", 3.0), ("float16", 0.5)])
def test_half_precision_draws_nearly_the_same(draw, dtype, grey_levels):
    draw("--out=a.png"), draw(f"--dtype={dtype}", "--out=b.png")
    assert abs(pixels("a.png").astype(int) - pixels("b.png")).mean() < grey_levels


@pytest.mark.parametrize("kind", ["text", "image", "inpaint"])
def test_from_repeats_a_picture_to_the_bit(draw, kind, tmp_path):
    Image.effect_noise((64, 64), 90).convert("RGB").save("init.png")
    Image.new("L", (64, 64), 255).save("mask.png")
    init = "--init=init.png"
    flags = {"text": [], "image": [init, "--strength=0.6"], "inpaint": [init, "--mask=mask.png"]}
    prompt = "--prompt=quotes \" ' dollars $HOME `id`\nnew line 🎈"
    draw(prompt, "--sampler=ddpm", "--scale=3.5", "--negative=fog", *flags[kind])
    settings_of = pictures.read_settings("out.png")
    assert settings_of["prompt"] == prompt.removeprefix("--prompt=") and settings_of["seed"] == 1
    with Image.open("out.png") as picture:
        assert picture.text["prompt"] == settings_of["prompt"]
    assert cli.main(["generate", "--from=out.png", "--out=again.png"]) == 0
    assert (pixels("out.png") == pixels("again.png")).all()


def test_init_of_the_wrong_shape_is_cut_to_the_size(draw):
    Image.new("RGB", (300, 100), "red").save("init.png")
    assert draw("--init=init.png", "--strength=0.5")[0] == 0
    assert size_of("out.png") == (32, 32)


def test_inpainting_keeps_what_the_mask_leaves_out(draw):
    Image.effect_noise((32, 32), 90).convert("RGB").save("init.png")
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (0, 0, 8, 8))
    mask.save("mask.png")
    draw("--init=init.png", "--mask=mask.png", "--out=a.png")
    draw("--init=init.png", "--mask=mask.png", "--out=b.png", "--seed=2")
    different = (pixels("a.png") != pixels("b.png")).any(axis=2)
    assert different[:8, :8].mean() > 0.5  # the decoder's attention lets a trace of the change reach everywhere


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "CMYK", "P", "1", "I;16", "I;16 with a transparent grey"])
def test_pictures_of_any_kind_are_read(mode, tmp_path):
    grey = Image.linear_gradient("L")
    if mode in ("RGBA", "LA"):
        picture = grey.convert(mode)
        picture.putalpha(Image.new("L", grey.size, 0))
        wanted = 255
    elif mode.startswith("I;16"):
        picture = Image.fromarray(numpy.full((4, 4), 65535 // 2, numpy.uint16))
        wanted = 127
    else:
        picture = Image.new("RGB", (8, 8), "white").convert(mode)
        wanted = 255
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    picture.save(path, **({"transparency": 5} if "transparent" in mode else {}))
    result = pictures.read_picture(path, "INIT")
    assert result.mode == "RGB"
    assert abs(numpy.array(result).astype(int) - wanted).max() <= 1


def test_pictures_lying_on_their_side_are_turned(tmp_path):
    picture = Image.new("RGB", (8, 4), "red")
    exif = picture.getexif()
    exif[0x0112] = 6  # rotated by 90 degrees
    picture.save(tmp_path / "side.jpg", exif=exif)
    assert pictures.read_picture(tmp_path / "side.jpg", "INIT").size == (4, 8)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--steps=0"], ["STEPS=0"]),
        (["--steps=501"], ["STEPS=501", "500"]),
        (["--steps=many"], ["STEPS=many", "whole number"]),
        (["--scale=nan"], ["SCALE=nan"]),
        (["--scale=much"], ["SCALE=much"]),
        (["--seed=-1"], ["SEED=-1"]),
        (["--seed=1.5"], ["SEED=1.5"]),
        (["--sampler=plms"], ["plms", "ddim", "dpm++2m"]),
        (["--width=100"], ["WIDTH=100", "96"]),
        (["--height=50"], ["HEIGHT=50", "64"]),
        (["--width=0"], ["WIDTH=0", "32"]),
        (["--width=99999"], ["WIDTH=99999", "up to 4096", "nearest is 4096"]),
        (["--height=47"], ["HEIGHT=47", "nearest is 32"]),
        (["--count=0"], ["COUNT=0"]),
        (["--strength=0.5"], ["STRENGTH", "INIT"]),
        (["--mask=mask.png"], ["MASK", "INIT"]),
        (["--init=there-is-none.png"], ["INIT=there-is-none.png"]),
        (["--device=abacus"], ["DEVICE=abacus"]),
        (["--device=meta"], ["DEVICE=meta"]),
        (["--prompt=a\udcffb"], ["PROMPT is not UTF-8"]),
        (["--dtype=int8"], ["DTYPE=int8", "float16"]),
        (["--blocks=mine"], ["BLOCKS=mine"]),
        (["--ema=perhaps"], ["EMA=perhaps"]),
        (["--mistake=stage08/beta-not-square"], ["beta-not-square", "did you mean stage08/betas-not-squared"]),
        (["--mistake=stage99/no-scale"], ["MISTAKE='stage99/no-scale'", "no stage"]),
        (["--mistake=stage11/not-clipped"], ["MISTAKE='stage11/not-clipped'", "no picture is drawn with"]),
        (["--mistake=layer-norm-eps"], ["MISTAKE=layer-norm-eps", "stage03/layer-norm-eps or stage06/layer-norm-eps"]),
        (["--mistake=\x1b[31m"], ["MISTAKE='\\x1b[31m'"]),
        (["--mistake=8/linear-betas", "--blocks=exercises"], ["MISTAKE=stage08/linear-betas", "BLOCKS=exercises"]),
        (["--checkpoint=there-is-none.safetensors"], ["there-is-none.safetensors"]),
        (["--tokenizer=nowhere"], ["vocab.json", "TOKENIZER"]),
        (["--from=there-is-none.png"], ["FROM=there-is-none.png"]),
        (["--out=picture.gif"], ["OUT=picture.gif", ".png"]),
        ([f"--out={'x' * 300}.png"], ["x.png cannot be written", "too long"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_refusals(draw, flags, words):
    refusal(draw(*flags), *words)


@pytest.mark.parametrize("strength", ["0", "-0.1", "1.01", "nan"])
def test_impossible_strengths(draw, strength):
    Image.new("RGB", (32, 32)).save("init.png")
    refusal(draw("--init=init.png", f"--strength={strength}"), "STRENGTH")


def test_a_mask_of_another_size(draw):
    Image.new("RGB", (32, 32)).save("init.png")
    Image.new("L", (16, 32)).save("mask.png")
    refusal(draw("--init=init.png", "--mask=mask.png"), "16x32", "32x32")


def test_a_mask_without_white(draw):
    Image.new("RGB", (32, 32)).save("init.png")
    Image.new("L", (32, 32)).save("mask.png")
    refusal(draw("--init=init.png", "--mask=mask.png"), "MASK", "white")


def test_an_unreadable_picture(draw):
    Path("init.png").write_bytes(b"not a picture")
    refusal(draw("--init=init.png"), "INIT", "no picture")


def test_a_truncated_picture(draw):
    Image.effect_noise((64, 64), 90).save("whole.png")
    Path("init.png").write_bytes(Path("whole.png").read_bytes()[:1000])
    refusal(draw("--init=init.png"), "INIT")


@pytest.mark.parametrize("kind", ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TGA", "TIFF", "WEBP"])
def test_damaged_pictures_of_any_kind(kind, tmp_path):
    """Pillow's readers end in many kinds of exceptions."""
    path = tmp_path / "odd.bin"
    Image.effect_noise((24, 16), 90).convert("RGB").save(path, kind)
    whole, chance = path.read_bytes(), random.Random(0)
    refused = 0
    for number in range(40):
        content = bytearray(whole)
        for _ in range(1 + number % 8):
            content[chance.randrange(min(len(content), 300))] = chance.randrange(256)
        path.write_bytes(content if number % 2 else content[: chance.randrange(len(content))])
        try:
            assert pictures.read_picture(path, "INIT").mode == "RGB"
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"INIT={path} ") and len(str(error).splitlines()) == 1  # noqa: PT017
    assert refused > 5


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [(9000, 9000, "has 9000x9000 pixels, more than the 64 million"), (20000, 20000, "has more than the 64 million")],
)
def test_a_huge_picture_is_not_unpacked(draw, width, height, words):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    Path("init.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data + struct.pack(">I", 0) + b"IDAT")
    refusal(draw("--init=init.png"), "INIT", words)


def test_from_a_picture_without_settings(draw):
    Image.new("RGB", (8, 8)).save("plain.png")
    refusal(draw("--from=plain.png"), "FROM=plain.png")


def test_a_folder_that_cannot_be_written(draw):
    if os.geteuid() == 0:
        Path("file").write_text("a file where a folder should be")
        refusal(draw("--out=file/out.png"), "cannot be written")
    else:
        Path("locked").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
        refusal(draw("--out=locked/out.png"), "cannot be written")


def test_a_full_disk_leaves_nothing_and_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ValueError, match="No space left on device"):
        pictures.write_png(path, Image.new("RGB", (8, 8)))
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"] and path.read_bytes() == b"old"


def test_too_long_a_prompt_is_cut_with_a_note(draw):
    words = " ".join(["house"] * 75 + ["waterfall"])
    code, output, _ = draw(f"--prompt={words}")
    assert code == 0 and "PROMPT" in output and "waterfall" in output and "75" in output


def test_the_note_about_a_long_prompt_is_short(draw):
    code, output, _ = draw(f"--prompt={'house ' * 1600}")
    assert code == 0 and "PROMPT has 1600 tokens" in output and " and more\n" in output and len(output) < 1000


def test_nan_is_named(draw, monkeypatch):
    build = checkpoint.build

    def poisoned(*args, **kwargs):
        model = build(*args, **kwargs)
        model.unet.conv_out.bias.fill_(float("nan"))
        return model

    monkeypatch.setattr(checkpoint, "build", poisoned)
    refusal(draw(), "nan", "a weight of the file")
    refusal(draw("--dtype=bfloat16"), "nan", "DTYPE=bfloat16", "DTYPE=float32")


@pytest.fixture
def no_drawing(monkeypatch):
    monkeypatch.setattr(generate, "draw_all", lambda *args: pytest.fail("it drew before it refused"))


@pytest.mark.parametrize(
    ("taken", "flags"),
    [("out.png", []), ("out.gif", ["--film=1"]), ("out-2.png", ["--count=2"])],
    ids=["picture", "film", "one of two"],
)
def test_what_cannot_be_written_is_refused_before_drawing(draw, no_drawing, taken, flags):
    Path(taken).mkdir()
    code, _, errors = draw(*flags)
    assert code == 2 and errors == f"{taken} cannot be written: it is a folder."


def test_a_file_where_a_folder_should_be(draw, no_drawing):
    Path("file").write_text("")
    refusal(draw("--out=file/out.png"), "file/out.png cannot be written")
    assert [path.name for path in Path.cwd().iterdir()] == ["file"]


def test_files_have_the_usual_rights(tmp_path):
    before = os.umask(0o027)
    try:
        path = tmp_path / f"{'n' * 240}.png"
        pictures.write_png(path, Image.new("RGB", (8, 8)))
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o604)
        pictures.write_png(path, Image.new("RGB", (8, 8)))
        assert path.stat().st_mode & 0o777 == 0o604
    finally:
        os.umask(before)


def test_two_at_once_take_two_names(draw, monkeypatch, tmp_path):
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    inner = []
    draw_one = generate.draw_one

    def draws(*args):
        result = draw_one(*args)
        if not inner:
            inner.append(1)
            assert draw("--out=")[0] == 0
        return result

    monkeypatch.setattr(generate, "draw_one", draws)
    assert draw("--out=")[0] == 0
    assert sorted(path.name[:5] for path in (tmp_path / "outputs").iterdir()) == ["0001-", "0002-"]


def test_a_name_with_a_tilde_is_the_home_folder(draw, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Image.new("RGB", (32, 32)).save("init.png")
    (tmp_path / "home").mkdir()
    Path("init.png").rename(tmp_path / "home" / "init.png")
    assert draw("--init=~/init.png", "--out=~/out.png")[0] == 0
    assert (tmp_path / "home" / "out.png").is_file() and not Path("~").exists()
    assert cli.main(["generate", "--from=~/out.png", "--out=again.png"]) == 0


def too_much_for_cuda(*args, **kwargs):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of ...")


def too_much_for_mps(*args, **kwargs):
    raise RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: ...). Tried ...")


def too_much_for_torch(*args, **kwargs):
    torch.empty(10**16)


def too_much_for_python(*args, **kwargs):
    bytearray(10**16)


MEMORY = {
    too_much_for_cuda: "DTYPE=float16, or DEVICE=cpu.", too_much_for_mps: "DTYPE=float16, or DEVICE=cpu.",
    too_much_for_torch: "or DTYPE=bfloat16.", too_much_for_python: "or DTYPE=bfloat16.",
}


@pytest.mark.parametrize("out_of_memory", MEMORY)
def test_out_of_memory_while_loading_gives_advice(draw, monkeypatch, out_of_memory):
    monkeypatch.setattr(checkpoint, "build", out_of_memory)
    refusal(draw(), "memory is not enough", "WIDTH", MEMORY[out_of_memory])


@pytest.mark.parametrize("out_of_memory", MEMORY)
def test_out_of_memory_while_drawing_gives_advice(draw, before_call, out_of_memory):
    before_call(2, out_of_memory)
    refusal(draw(), "memory is not enough", "WIDTH", MEMORY[out_of_memory])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "kill"])
def test_stopping_in_the_middle(draw, before_call, number):
    before_call(3, lambda: signal.raise_signal(number))
    code, _, errors = draw("--steps=4", "--film=1")
    assert code == 130 and "Stopped" in errors and "Traceback" not in errors
    assert not list(Path.cwd().iterdir())


def test_stopping_between_two_pictures_keeps_the_first(draw, before_call):
    before_call(3, lambda: signal.raise_signal(signal.SIGINT))
    code, output, _ = draw("--steps=2", "--count=2")
    assert code == 130 and "out-1.png" in output
    assert [path.name for path in Path.cwd().iterdir()] == ["out-1.png"] and pixels("out-1.png").shape == (32, 32, 3)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["Ctrl-C", "full"])
def test_failing_while_writing_leaves_what_was_there(draw, monkeypatch, error):
    def half(self, file, *args, **kwargs):
        Path(file).write_bytes(b"half of it")
        raise error

    Path("out.png").write_bytes(b"old")
    monkeypatch.setattr(Image.Image, "save", half)
    code, _, errors = draw()
    assert code == (130 if isinstance(error, KeyboardInterrupt) else 2) and "Traceback" not in errors
    assert [path.name for path in Path.cwd().iterdir()] == ["out.png"] and Path("out.png").read_bytes() == b"old"


# --- other checkpoints -----------------------------------------------------------------------------------------------


@pytest.fixture
def stranger(model_folder, tmp_path):
    """stranger(change, name) -> a checkpoint file beside the tokenizer, with changed tensors."""
    for name in ("vocab.json", "merges.txt", "config.json"):
        (tmp_path / name).write_bytes((model_folder / name).read_bytes())

    def make(change, name="other.safetensors") -> str:
        tensors = change(load_file(model_folder / "model.safetensors"))
        if name.endswith(".safetensors"):
            save_file(tensors, tmp_path / name)
        else:
            torch.save(tensors, tmp_path / name)
        return f"--checkpoint={tmp_path / name}"

    return make


def keys(*names):
    return lambda tensors: {name: torch.zeros(2) for name in names}


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.x", "conditioner.embedders.0.y"], "SDXL"),
        (
            ["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.x", "cond_stage_model.model.ln.bias"],
            "Stable Diffusion 2",
        ),
        (["lora_unet_down_blocks_0.lora_up.weight"], "LoRA"),
        (["first_stage_model.decoder.conv_in.weight"], "VAE alone"),
        (["decoder.conv_in.weight", "encoder.conv_in.weight"], "VAE alone"),
        (["down_blocks.0.resnets.0.conv1.weight"], "diffusers"),
        (["double_blocks.0.x"], "Flux"),
        (["something"], "not a Stable Diffusion 1.x checkpoint"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_files_that_are_something_else_are_named(draw, stranger, names, what):
    refusal(draw(stranger(keys(*names))), what)


def test_an_inpainting_checkpoint(draw, stranger):
    def nine(tensors):
        name = "model.diffusion_model.input_blocks.0.0.weight"
        return tensors | {name: torch.zeros(64, 9, 3, 3)}

    refusal(draw(stranger(nine)), "inpainting", "9 channels")


def test_other_latents_than_four_channels(draw, tmp_path):
    config = tiny_config()
    config = dataclasses.replace(
        config,
        vae=dataclasses.replace(config.vae, latent_channels=6),
        unet=dataclasses.replace(config.unet, in_channels=6, out_channels=6),
    )
    write_untrained(config, tmp_path / "six")
    code, _, errors = draw(f"--checkpoint={tmp_path / 'six' / 'model.safetensors'}")
    assert code == 0, errors
    assert size_of("out.png") == (32, 32)


def test_a_missing_tensor(draw, stranger):
    def without(tensors):
        return {n: t for n, t in tensors.items() if "out.2.bias" not in n and "out2bias" not in n}

    refusal(draw(stranger(without)), "missing", "conv_out.bias")


def test_a_wrong_shape(draw, stranger):
    def widened(tensors):
        return tensors | {"first_stage_model.quant_conv.weight": torch.zeros(8, 9, 1, 1)}

    refusal(draw(stranger(widened)), "quant_conv.weight", "(8, 9, 1, 1)")


def test_a_truncated_checkpoint(draw, stranger, tmp_path):
    flag = stranger(lambda tensors: tensors)
    path = tmp_path / "other.safetensors"
    path.write_bytes(path.read_bytes()[:5_000_000])
    refusal(draw(flag), "truncated or damaged")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 100], ids=["empty", "text", "zeros"])
@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_files_that_are_no_checkpoint(draw, stranger, tmp_path, content, suffix):
    stranger(lambda tensors: tensors)
    path = tmp_path / f"odd.{suffix}"
    path.write_bytes(content)
    refusal(draw(f"--checkpoint={path}"), f"odd.{suffix}")


class Malicious:
    def __reduce__(self):
        return (os.system, ("touch pickle-was-run",))


def test_damaged_files_of_the_old_format(tmp_path):
    """torch's reader ends in many kinds of exceptions."""
    path = tmp_path / "old.ckpt"
    torch.save({"a": torch.zeros(3), "b": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    damaged = [whole[:size] for size in range(0, len(whole), 7)]
    damaged += [whole[:i] + bytes([byte]) + whole[i + 1 :] for i in range(0, len(whole), 11) for byte in b"q\x00}"]
    refused = 0
    for content in [*damaged, b"root:x:0:0", b"quite another file"]:
        path.write_bytes(content)
        try:
            checkpoint.read_tensors(path)
        except ValueError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1 and "old.ckpt" in str(error)  # noqa: PT017 (some do open)
    assert refused > len(damaged) / 2


def test_names_that_are_no_words(draw, tmp_path, stranger):
    stranger(lambda tensors: tensors)
    torch.save({1: torch.zeros(2)}, tmp_path / "numbers.ckpt")
    refusal(draw(f"--checkpoint={tmp_path / 'numbers.ckpt'}"), "numbers.ckpt holds no tensors")


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("vae", None, []), ("unet", "channels", []), ("unet", "channels", 5), ("unet", "channels", ["a"]),
        ("unet", "attention", [True]), ("unet", "attention", [1, 1, 1]), ("clip", "num_layers", "4"),
        ("clip", "vocab_size", "1024"), ("unet", "num_groups", 0), ("vae", "scaling_factor", None),
        ("vae", "num_groups", 3), ("unet", "num_groups", 1000), ("unet", "num_heads", 3), ("clip", "num_heads", 7),
        ("vae", "scaling_factor", 0), ("clip", "num_layers", 10**9), ("unet", "blocks_per_level", 10**9),
        ("clip", "width", "w" * 10**6), (None, "guidance_scale", 10**400), ("unet", "channels", [10**400]),
        (None, "guidance_scale", "4"), (None, "guidance_scale", float("nan")), (None, "image_size", -8),
        (None, "image_size", []),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_config_that_makes_no_sense(draw, stranger, tmp_path, part, name, value):
    flag = stranger(lambda tensors: tensors)
    path = tmp_path / "config.json"
    data = json.loads(path.read_text())
    if name is None:
        data[part] = value
    else:
        (data[part] if part else data)[name] = value
    path.write_text(json.dumps(data))
    result = draw(flag)
    refusal(result, "config.json is not a model config")
    assert len(result[2]) < 400


@pytest.mark.parametrize(
    "change",
    [
        lambda vocab: vocab | {"a": None}, lambda vocab: vocab | {"a": 5000}, lambda vocab: vocab | {"a": -1},
        lambda vocab: {name.replace("<|startoftext|>", "<|start|>"): number for name, number in vocab.items()},
    ],
    ids=["null", "too large", "negative", "no mark"],
)
def test_a_vocabulary_that_makes_no_sense(draw, stranger, tmp_path, change):
    flag = stranger(lambda tensors: tensors)
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    refusal(draw(flag), "The tokenizer in")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"#version: 0.2\nq z\n", "merges.txt joins q and z, and vocab.json does not know the result"),
        (b"a b c\n", "another layout"), (b"\xff\xfe", "cannot be read"),
    ],
)
def test_merges_that_make_no_sense(draw, stranger, tmp_path, content, says):
    flag = stranger(lambda tensors: tensors)
    (tmp_path / "merges.txt").write_bytes(content)
    refusal(draw(flag), "The tokenizer in", says)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_pickle_that_wants_to_run_code_is_not_opened(draw, stranger, tmp_path, legacy):
    stranger(lambda tensors: tensors)
    torch.save({"state_dict": Malicious()}, tmp_path / "evil.ckpt", _use_new_zipfile_serialization=not legacy)
    refusal(draw(f"--checkpoint={tmp_path / 'evil.ckpt'}"), "run code", "not opened")
    assert not Path("pickle-was-run").exists()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda t: {n: x.float() for n, x in t.items()}, "float32.safetensors"),
        (lambda t: {"state_dict": t, "epoch": 3}, "nested.ckpt"),
        (lambda t: {"state_dict": {"state_dict": t}}, "twice.ckpt"),
        (lambda t: t, "plain.ckpt"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_same_weights_in_another_wrapping_draw_the_same(draw, stranger, change, name):
    draw("--out=a.png")
    code, _, errors = draw(stranger(change, name), "--out=b.png")
    assert code == 0, errors
    assert (pixels("a.png") == pixels("b.png")).all()


def test_a_checkpoint_without_ema(draw, stranger):
    flag = stranger(lambda tensors: {n: t for n, t in tensors.items() if not n.startswith("model_ema.")})
    code, output, errors = draw(flag, "--out=a.png")
    assert code == 0 and "no EMA" in output, errors
    draw("--ema=0", "--out=b.png")
    assert (pixels("a.png") == pixels("b.png")).all()


def test_ema_and_raw_weights_draw_different_pictures(draw, stranger):
    def raw_turned_round(tensors):
        name = "model.diffusion_model.out.2.weight"
        return tensors | {name: -tensors[name]}

    flag = stranger(raw_turned_round)
    draw("--out=untouched.png")
    draw(flag, "--ema=1", "--out=average.png"), draw(flag, "--ema=0", "--out=raw.png")
    assert (pixels("average.png") == pixels("untouched.png")).all()
    assert (pixels("raw.png") != pixels("untouched.png")).any()


def test_a_lightning_checkpoint_is_opened_without_its_classes(model_folder, tmp_path):
    """Published .ckpt files hold names of classes that need not be installed; they are not needed for the tensors."""
    module = type(sys)("pytorch_lightning")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning"})
    sys.modules["pytorch_lightning"] = module
    try:
        tensors = {"weight": torch.arange(3.0)}
        torch.save({"callbacks": {module.ModelCheckpoint: 1}, "state_dict": tensors}, tmp_path / "old.ckpt")
    finally:
        del sys.modules["pytorch_lightning"]
    assert torch.equal(checkpoint.read_tensors(tmp_path / "old.ckpt")[0]["weight"], tensors["weight"])


# --- everything at once ----------------------------------------------------------------------------------------------

# --- a learner's blocks --------------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """mine(stage number, old, new): the learner's file is the solution with one change."""
    monkeypatch.setenv("COURSE_EXERCISES", str(tmp_path / "exercises"))
    workspace.write_stubs()

    def write(number: int, old: str, new: str) -> Path:
        stage = STAGES[number - 1]
        text = stage.solution.read_text(encoding="utf-8")
        assert not old or text.count(old) == 1
        stage.exercise.write_text(text.replace(old, new) if old else text, encoding="utf-8")
        return stage.exercise

    return write


@pytest.mark.parametrize(
    ("asked", "full"),
    [
        ("stage01/one-group", "stage01/one-group"),  # torch's kernels must not take its place
        ("scheduler/betas-not-squared", "stage08/betas-not-squared"),
        ("no-scale", "stage03/no-scale"),
    ],
)
def test_drawing_with_a_mistake(draw, mine, asked, full):
    number = int(full[5:7])
    paths = [mine(stage, "", "") for stage in (number, 2)]
    before = [path.read_bytes() for path in paths]
    draw("--blocks=auto", "--out=right.png")
    code, shown, _ = draw("--blocks=auto", f"--mistake={asked}", "--out=wrong.png")
    assert code == 0 and (pixels("right.png") != pixels("wrong.png")).any()
    assert "1/10 blocks are yours: 2 residual" in shown
    assert f"Stage {number} {STAGES[number - 1].name} is the reference with a mistake in it, {full}:" in shown
    with Image.open("wrong.png") as picture:
        assert picture.text["mistake"] == full and f"Mistake: {full}" in picture.text["parameters"]
    assert pictures.read_settings("wrong.png")["mistake"] == full
    code, shown, _ = draw("--blocks=auto", "--from=wrong.png", "--out=again.png")
    assert code == 0 and full in shown and (pixels("wrong.png") == pixels("again.png")).all()
    assert [path.read_bytes() for path in paths] == before
    with Image.open("right.png") as picture:
        assert "mistake" not in picture.text


@pytest.mark.parametrize("name", ["stage02/conv1-without-padding", "stage10/feed-forward-not-renamed"])
def test_a_mistake_that_draws_nothing_is_named(draw, mine, name):
    mine(1, "", "")
    code, _, errors = draw("--blocks=auto", f"--mistake={name}")
    assert code == 2 and not Path("out.png").exists()
    assert errors.splitlines()[-1] == f"MISTAKE={name} may be the reason."
    assert "One of your blocks" not in errors and "Traceback" not in errors


HANDED_OVER = "One of your blocks hands over something wrong: `make test` finds it; BLOCKS=solutions does without it."


@pytest.mark.parametrize(
    ("number", "old", "new"),
    [
        (1, "return group_norm(x, self.num_groups", "group_norm(x, self.num_groups"),
        (1, "return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)", "return x.double()"),
        (1, "return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)", "return x[:, :1]"),
        (1, "return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)", "return x.numpy()"),
        (9, "    context, negative_context = contexts_for(model, prompts, negative_prompts, sampling.guidance_scale)\n"
            "    timesteps = timesteps_for(model.schedule, sampling)\n    steps = ", "    return noise\n    steps = "),
    ],
    ids=["nothing", "float64", "another shape", "no tensor", "no picture"],
)
def test_a_block_that_hands_over_something_wrong(draw, mine, number, old, new):
    mine(number, old, new)
    code, _, errors = draw("--blocks=auto")
    assert code == 1 and not Path("out.png").exists()
    assert errors.splitlines()[-1] == HANDED_OVER and len(errors.splitlines()) == 3, errors


def test_pictures_that_come_back_as_nothing(draw, mine):
    mine(5, "    return images.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0\n", "    return None\n")
    Image.new("RGB", (32, 32)).save("init.png")
    Image.new("L", (32, 32), 255).save("mask.png")
    code, _, errors = draw("--blocks=auto", "--init=init.png", "--mask=mask.png")
    assert code == 1 and errors.endswith(HANDED_OVER) and "images_to_tensor gave NoneType" in errors


@pytest.mark.parametrize("where", ["at the top", "inside"])
@pytest.mark.parametrize("word", ["exit()", "raise SystemExit(0)", "raise GeneratorExit"])
def test_a_block_that_ends_the_program(draw, mine, where, word):
    line = "    return x * torch.sigmoid(x)"
    path = mine(2, line, f"    {word if where == 'inside' else ''}\n{line}")
    if where == "at the top":
        path.write_text(f"{path.read_text()}\n{word}\n")
    code, _, errors = draw("--blocks=auto")
    assert code == 1 and "stage02_residual.py:" in errors and "Exit" in errors.splitlines()[0]


def test_a_file_with_a_byte_order_mark(draw, mine):
    path = mine(1, "class GroupNorm", "class GroupNorm")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    code, output, errors = draw("--blocks=auto")
    assert code == 0 and "1/10 blocks are yours: 1 group_norm" in output, errors


def test_a_refusal_is_none_of_a_blocks_business(draw, mine):
    mine(1, "class GroupNorm", "class GroupNorm")
    refusal(draw("--blocks=auto", "--checkpoint=nowhere.safetensors"), "nowhere.safetensors")


def test_a_stop_that_gets_lost_while_loading_counts(draw, monkeypatch):
    """Libraries in C may swallow the exception that a Ctrl-C raises while they are imported."""
    open_checkpoint = checkpoint.open_checkpoint

    def swallowing(*args):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return open_checkpoint(*args)

    monkeypatch.setattr(checkpoint, "open_checkpoint", swallowing)
    code, _, errors = draw()
    assert code == 130 and errors.startswith("Stopped") and not Path("out.png").exists()


options = st.fixed_dictionaries(
    {},
    optional={
        "prompt": st.text(alphabet="aé ,'\"$`\n🎈<|>", max_size=30),
        "negative": st.text(alphabet="ab ", max_size=9),
        "steps": st.sampled_from(["1", "2", "3", "0", "-1", "x", ""]),
        "scale": st.sampled_from(["0", "1", "7.5", "-3", "inf", "1e3", "x"]),
        "seed": st.sampled_from(["0", "9223372036854775000", "99999999999999999999", "-1", "½"]),
        "sampler": st.sampled_from([*SAMPLERS, "DDIM", ""]),
        "width": st.sampled_from(["32", "64", "33", "8", "", "1e3"]),
        "count": st.sampled_from(["1", "2", "0", "x"]),
        "init": st.sampled_from(["init.png", "mask.png", "none.png", "."]),
        "strength": st.sampled_from(["0.01", "0.5", "1", "1.5", "0"]),
        "mask": st.sampled_from(["mask.png", "init.png", "none.png"]),
        "ema": st.sampled_from(["0", "1", "2"]),
        "dtype": st.sampled_from(["auto", "float32", "float16", "bfloat16", "float8"]),
        "film": st.sampled_from(["0", "1", "maybe"]),
        "mistake": st.sampled_from(["stage05/pictures-in-zero-to-one", "8/linear-betas", "8/", "none"]),
    },
)


@pytest.mark.limit(300)
@settings(max_examples=40)
@given(options)
def test_any_options_end_in_a_picture_or_a_sentence(model_folder, tmp_path_factory, chosen):
    folder = tmp_path_factory.mktemp("any")
    before = Path.cwd()
    os.chdir(folder)
    try:
        Image.new("RGB", (32, 32), "red").save("init.png")
        Image.new("L", (32, 32), 255).save("mask.png")
        flags = {"steps": "1", "width": "32", "height": "32", "device": "cpu", "blocks": "solutions"} | chosen
        given = [f"--{name}={value}" for name, value in flags.items()]
        code = cli.main(["generate", *given, f"--checkpoint={model_folder / 'model.safetensors'}", "--out=out.png"])
        assert code in (0, 2)
        assert Path("out.png").exists() == (code == 0)
        assert not list(folder.glob(".*.part"))
    finally:
        os.chdir(before)


def test_no_heavy_library_on_the_way_to_a_picture(model_folder, tmp_path):
    """diffusers and transformers take seconds to import, and nothing of them is needed."""
    command = [sys.executable, "-X", "importtime", "-m", "course", "generate", "--steps=1", "--width=32", "--height=32"]
    command += [f"--checkpoint={model_folder / 'model.safetensors'}", f"--out={tmp_path / 'out.png'}", "--device=cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if "import time:" in line]
    imported = {line.split("|")[-1].strip().split(".")[0] for line in lines}
    assert "torch" in imported
    assert not imported & {"diffusers", "transformers", "accelerate", "matplotlib", "hypothesis", "pytest", "pandas"}


def test_settings_survive_json():
    s = Settings(prompt="🎈", seed=3)
    assert Settings(**json.loads(json.dumps(dataclasses.asdict(s)))) == s


# --- films -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def motion_file(tmp_path_factory) -> Path:
    """Motion modules of the shipped U-Net's widths with random numbers everywhere, in diffusers' names."""
    config = MotionConfig(num_heads=4, max_frames=6, middle=False)
    return write_modules(tmp_path_factory.mktemp("motion") / "motion.safetensors", tiny_config(), config)


def frames_of(path: str) -> list[bytes]:
    with Image.open(path) as film:
        return [film.convert("RGB").tobytes() for i in range(film.n_frames) if film.seek(i) is None]


@pytest.mark.parametrize("name", ["out.webp", "out.gif"])
def test_a_film_and_the_same_film_again(draw, motion_file, name):
    code, said, errors = draw("--frames=3", f"--motion={motion_file}", f"--out={name}")
    assert code == 0, errors
    assert "3 frames" in said and "stage 13 motion is the reference" in said
    first = frames_of(name)
    assert len(set(first)) == len(first) == 3
    again = draw(f"--from={name}", f"--out=again{Path(name).suffix}")
    assert again[0] == 0 and "is not the file that it was" not in again[1]
    assert frames_of(f"again{Path(name).suffix}") == first


needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg, which writes MP4, is not installed")


@needs_ffmpeg
def test_an_mp4_and_the_same_film_again(draw, motion_file):
    prompt = 'a "red" house; 10 % = snow # \\ \n für alle'
    code, said, errors = draw("--frames=4", f"--motion={motion_file}", f"--prompt={prompt}", "--out=out.mp4")
    assert code == 0 and "out.mp4" in said, errors
    assert [path.name for path in Path().glob("*.mp4")] == ["out.mp4"] and not list(Path().glob(".*"))
    settings = pictures.read_settings("out.mp4")
    assert settings["prompt"] == prompt and settings["frames"] == 4
    for name in ("one.webp", "again.mp4"):
        assert draw("--from=out.mp4", f"--out={name}")[0] == 0
    assert draw("--from=one.webp", "--out=two.webp")[0] == 0 and frames_of("one.webp") == frames_of("two.webp")
    assert Path("again.mp4").read_bytes() == Path("out.mp4").read_bytes()


@needs_ffmpeg
def test_an_mp4_shows_the_frames(tmp_path):
    colours = ["red", "lime", "blue", "white"]
    pictures.write_clip(tmp_path / "film.mp4", [Image.new("RGB", (64, 32), colour) for colour in colours], {"seed": 1})
    read = f"ffmpeg -v error -i {tmp_path / 'film.mp4'} -f rawvideo -pix_fmt rgb24 -".split()
    shown = torch.frombuffer(bytearray(subprocess.run(read, capture_output=True, check=True).stdout), dtype=torch.uint8)
    middles = shown.reshape(-1, 32, 64, 3)[:, 16, 32].float()
    wanted = torch.tensor([ImageColor.getrgb(colour) for colour in colours]).float()
    assert middles.shape == wanted.shape and (middles - wanted).abs().max() < 30


def test_an_mp4_without_ffmpeg(draw, motion_file, monkeypatch):
    monkeypatch.setenv("PATH", "")
    refusal(draw("--frames=2", f"--motion={motion_file}", "--out=out.mp4"), "OUT=out.mp4 needs ffmpeg", ".webp or .gif")
    assert not list(Path().glob("*.mp4"))


@pytest.mark.skipif(os.name == "nt", reason="the program that stands in for ffmpeg is a shell script")
def test_an_ffmpeg_that_fails(draw, motion_file, tmp_path, monkeypatch):
    broken = tmp_path / "bin" / "ffmpeg"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'Unknown encoder' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}{os.pathsep}{os.environ['PATH']}")
    code, _, errors = draw("--frames=2", f"--motion={motion_file}", "--out=out.mp4")
    assert code != 0 and "ffmpeg could not write out.mp4 (Unknown encoder)" in errors and "Traceback" not in errors
    assert not list(Path().glob("*.mp4")) and not list(Path().glob(".*.part"))


@pytest.mark.parametrize("content", [b"", b"no film at all", b"\0\0\0\1moov" + bytes(7), b"\0\0\0\x08moov" * 3])
def test_an_mp4_that_holds_no_settings(draw, content):
    Path("odd.mp4").write_bytes(content)
    refusal(draw("--from=odd.mp4"), "FROM=odd.mp4 does not say how it was made")


def test_several_films(draw, motion_file):
    assert draw("--frames=2", f"--motion={motion_file}", "--count=2", "--out=out.webp")[0] == 0
    assert frames_of("out-1.webp") != frames_of("out-2.webp") and not Path("out.webp").exists()


def test_motion_modules_change_the_frames(draw, motion_file, tmp_path):
    zeros = {name: torch.zeros_like(w) if "proj_out" in name else w for name, w in load_file(motion_file).items()}
    save_file(zeros, tmp_path / "zeros.safetensors", {"num_heads": "4"})
    for modules, out in ((motion_file, "moved.webp"), (tmp_path / "zeros.safetensors", "still.webp")):
        assert draw("--frames=2", f"--motion={modules}", f"--out={out}")[0] == 0
    assert frames_of("moved.webp") != frames_of("still.webp")


@pytest.mark.parametrize(("flags", "words"), [
    (["--frames=1"], ["FRAMES=1"]), (["--frames=2", "--out=out.png"], ["OUT=out.png", ".webp"]),
    (["--frames=2", "--out=out.webp"], ["FRAMES needs motion modules", "MOTION=FILE"]),
    (["--frames=2", "--out=out.webp", "--motion=none"], ["MOTION=none"]), (["--motion=x"], ["MOTION=x needs FRAMES"]),
    (["--frames=2", "--out=out.webp", "--init=x.png"], ["does not go with INIT"]),
    (["--frames=2", "--out=out.webp", "--film=1"], ["FILM=1"]),
    (["--frames=7", "--out=out.webp", "--motion=MODULES"], ["FRAMES=7", "6 frames at most"]),
    (["--frames=2", "--out=out.webp", "--motion=CHECKPOINT"], ["holds no motion modules"]),
], ids=lambda value: value[-1] if isinstance(value, list) and value[0].startswith("--") else "")
def test_films_that_cannot_be(draw, motion_file, model_folder, flags, words):
    files = {"MODULES": str(motion_file), "CHECKPOINT": str(model_folder / "model.safetensors")}
    for name, path in files.items():
        flags = [flag.replace(name, path) for flag in flags]
    refusal(draw(*flags), *words)
    assert not Path("out.webp").exists()


@pytest.mark.parametrize(("change", "word"), [
    (lambda tensors, notes: tensors.popitem(), "missing"),
    (lambda tensors, notes: notes.update(num_heads="7"), "7 heads"),
    (lambda tensors, notes: notes.update(num_heads="-1"), "-1 heads"),
    (lambda tensors, notes: tensors.update({"down_blocks.0.motion_modules.0.norm.weight": torch.ones(3)}), "(3,)"),
], ids=["incomplete", "seven heads", "no heads", "another width"])
def test_motion_modules_that_do_not_fit(draw, motion_file, tmp_path, change, word):
    tensors, notes = load_file(motion_file), {"num_heads": "4"}
    change(tensors, notes)
    save_file(tensors, tmp_path / "odd.safetensors", notes)
    refusal(draw("--frames=2", "--out=out.webp", "--motion=odd.safetensors"), "odd.safetensors", word)
