"""The PNG text entry that other Stable Diffusion programs read: they find in it what the picture was made with."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from course.draw import pictures
from course.draw.settings import SAMPLERS, Settings

ONE = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')  # name: value, name: "value"


def read(text):
    """prompt, negative prompt, {name: value}, as AUTOMATIC1111's program reads such a text."""
    *lines, last = text.strip().split("\n")
    assert len(ONE.findall(last)) >= 3, "the program would take the last line for a part of the prompt"
    prompt, negative = [], None
    for line in map(str.strip, lines):
        if line.startswith("Negative prompt:"):
            negative, line = [], line.removeprefix("Negative prompt:").strip()
        (prompt if negative is None else negative).append(line)
    found = {name: json.loads(value) if value[0] == value[-1] == '"' else value for name, value in ONE.findall(last)}
    return "\n".join(prompt), "\n".join(negative or []), found


def written(path, size=(64, 32), **settings):
    pictures.write_png(path, Image.new("RGB", size), asdict(Settings(**settings)))
    with Image.open(path) as picture:
        return picture.text["parameters"]


def test_the_text(tmp_path):
    text = written(
        tmp_path / "a.png", prompt="a red house", negative="night, rain", steps=30, scale=7.5, seed=7, width=512,
        height=384, sampler="dpm++2m", checkpoint="checkpoints/sd15/v1-5-pruned-emaonly.safetensors",
    )
    assert text == (
        "a red house\n"
        "Negative prompt: night, rain\n"
        "Steps: 30, Sampler: DPM++ 2M, CFG scale: 7.5, Seed: 7, Size: 512x384, Model: v1-5-pruned-emaonly"
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "a red house",
        "a red house, a green hill: at night",
        'the sign says "open", twice',
        "two\nlines, and a comma",
        "Steps: 3, Sampler: none, CFG scale: 1",
        "naïve café ☕ 家",
        "back\\slash",
    ],
)
def test_prompts_come_back(tmp_path, prompt):
    for negative in ("", prompt):
        got, got_negative, values = read(written(tmp_path / "a.png", prompt=prompt, negative=negative, seed=3))
        assert (got, got_negative) == (prompt, negative)
        assert values["Seed"] == "3" and values["Steps"] == "25" and values["Sampler"] == "DDIM"


WORDS = st.text(alphabet="aé ☕,:'\"\\{}\n", max_size=30).map(
    lambda text: "\n".join(line.strip() for line in text.strip().split("\n"))  # what the format cannot keep
)


@given(
    prompt=WORDS.filter(bool), negative=WORDS, seed=st.integers(0, 2**62), scale=st.floats(-100, 100),
    sampler=st.sampled_from(SAMPLERS), name=st.text(alphabet="a,: \"'\\é-", min_size=1, max_size=9),
)
def test_all_values_come_back(prompt, negative, seed, scale, sampler, name):
    name = f"v{name}1"
    s = Settings(prompt, negative, seed=seed, scale=scale, sampler=sampler, checkpoint=f"folder/{name}.ckpt")
    got, got_negative, values = read(pictures.parameters(asdict(s), (64, 32)))
    assert (got, got_negative) == (prompt, negative)
    assert int(values.pop("Seed")) == seed and float(values.pop("CFG scale")) == scale
    assert values == {
        "Steps": "25", "Sampler": pictures.SAMPLER_NAMES[sampler], "Size": "64x32", "Model": name,
    }


def test_every_sampler_has_a_name():
    assert set(pictures.SAMPLER_NAMES) == set(SAMPLERS)


@pytest.mark.parametrize(
    ('settings', 'strength'),
    [
        ({}, None),
        ({"init": "in.png"}, "0.8"),
        ({"init": "in.png", "strength": 0.25}, "0.25"),
        ({"init": "in.png", "mask": "mask.png"}, "1"),
        ({"init": "in.png", "mask": "mask.png", "strength": 0.5}, "0.5"),
    ],
)
def test_the_strength_of_image_to_image(settings, strength):
    values = read(pictures.parameters(asdict(Settings(**settings)), (64, 32)))[2]
    assert values.get("Denoising strength") == strength


@pytest.mark.parametrize(
    ('checkpoint', 'model'),
    [
        (None, "tiny"),
        ("checkpoints/tiny", "tiny"),
        ("checkpoints/tiny/model.safetensors", "tiny"),
        ("model.safetensors", "model"),
        ("my model, v2.ckpt", "my model, v2"),
        ('"mine".ckpt', '"mine"'),
    ],
)
def test_the_name_of_the_model(checkpoint, model):
    settings = {"prompt": "x", "checkpoint": checkpoint, "steps": 1}
    assert read(pictures.parameters(settings, (64, 32)))[2]["Model"] == model


def test_settings_that_are_missing_are_left_out():
    assert pictures.parameters({"prompt": "x"}, (64, 32)) == "x\nSize: 64x32, Model: tiny"


def test_a_picture_without_settings_says_nothing(tmp_path):
    pictures.write_png(tmp_path / "a.png", Image.new("RGB", (8, 8)))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.text == {}


def test_the_settings_as_json_are_still_there(tmp_path):
    written(Path(tmp_path / "a.png"), prompt="two\nlines", seed=5)
    assert pictures.read_settings(tmp_path / "a.png") == asdict(Settings(prompt="two\nlines", seed=5))
