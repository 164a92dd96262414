"""The museum of mistakes: its page is whole, and pictures hang in the room where one would look for them."""

import re
from dataclasses import replace

import numpy
import pytest
from PIL import Image

from course.core.stages import PIPELINE, ROOT
from course.feedback.mistakes import find_mistake, full_name, mistakes_of
from tools import museum

NAME = r"`(stage\d\d/[\w.-]+)`"


def text() -> str:
    return museum.PAGE.read_text(encoding="utf-8")


def test_the_page_names_mistakes_that_there_are_and_counts_all_of_them():
    named = re.findall(rf"^(?:\d+\.|-|or) (?:`[^`]*` )?{NAME}|<br>or {NAME}", text(), re.MULTILINE)
    named = [first or second for first, second in named]
    known = {full_name(stage, mistake) for stage in PIPELINE for mistake in mistakes_of(stage.number)}
    gone = set(named) - known
    assert not gone, f"{gone} are no mistakes any more: {museum.COMMAND}"
    assert len(named) == len(set(named)) >= 100
    assert re.search(rf"^{len(named)} of \d+ mistakes were tried: ", text(), re.MULTILINE)


def test_its_pictures_are_there_and_small():
    paths = [museum.PAGE.parent / path for path in re.findall(r"\]\((mistakes/\S+)\)", text())]
    assert len(paths) >= 6
    for path in paths:
        with Image.open(path) as picture:
            assert picture.width == museum.COLUMNS * (museum.CELL + museum.GAP) - museum.GAP
    files = [museum.PAGE, *museum.FOLDER.iterdir()]
    assert sum(file.stat().st_size for file in files) < 4_000_000
    assert {file.name for file in files[1:]} == {path.name for path in paths} | {"init.png", "mask.png"}
    assert ROOT / "docs" in museum.FOLDER.parents


def test_headings_and_the_links_to_them():
    headings = re.findall(r"^## (.+)$", text(), re.MULTILINE)
    assert re.findall(r"^- \[.+\]\(#(.+)\): \d+$", text(), re.MULTILINE) == [museum.anchor(title) for title in headings]
    assert re.findall(r"^(\d+)\. ", text(), re.MULTILINE) == [
        str(i + 1) for i in range(len(re.findall(r"^\d+\. ", text(), re.MULTILINE)))
    ]


# --- sorting ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def right() -> numpy.ndarray:
    """A smooth picture in colours: two wide waves and a box."""
    y, x = numpy.mgrid[0:128, 0:128] / 128
    picture = numpy.stack([0.5 + 0.4 * numpy.sin(4 * y + 2 * x), 0.3 + 0.5 * y, 0.8 - 0.5 * x], axis=-1)
    picture[40:100, 50:90] = (0.8, 0.1, 0.1)
    return (255 * picture).astype(numpy.uint8)


def changed(kind: str, right: numpy.ndarray) -> numpy.ndarray:
    rng = numpy.random.default_rng(0)
    small = Image.fromarray(right).resize((8, 8), Image.Resampling.BOX)
    floats = right.astype(float)
    return {
        "hardly": numpy.clip(floats + 1, 0, 255),
        "grey": numpy.full_like(floats, 128) + rng.normal(0, 4, (128, 128, 1)),
        "noise": rng.uniform(0, 255, floats.shape),
        "tiles": numpy.tile(numpy.asarray(Image.fromarray(right).resize((16, 16))), (8, 8, 1)),
        "blurred": numpy.asarray(small.resize((128, 128), Image.Resampling.BICUBIC)),
        "colours": floats[..., ::-1],
        "details": numpy.roll(floats, 2, axis=1),
        "damaged": numpy.roll(floats, 40, axis=1),
    }[kind].astype(numpy.uint8)


@pytest.mark.parametrize("kind", ["hardly", "grey", "noise", "tiles", "blurred", "colours", "details", "damaged"])
def test_pictures_are_sorted_by_what_one_sees(right, kind):
    assert museum.room_of(museum.measure(changed(kind, right), right), as_asked=True) == kind


def test_what_shows_something_else(right):
    measured = replace(museum.measure(changed("damaged", right), right), edges=1.0)
    assert museum.room_of(measured, as_asked=False) == "another"
    assert museum.room_of(replace(measured, edges=1.5), as_asked=False) == "damaged"
    assert museum.room_of(replace(measured, apart=0.001), as_asked=False) == "hardly"


# --- drawing ---------------------------------------------------------------------------------------------------------


@pytest.mark.limit(120)
@pytest.mark.skipif(not museum.ckpt.TINY.exists(), reason="the checkpoint is not here")
@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("stage04/tiled", "from text"),
        ("stage01/only-float16-converted", None),
        ("stage08/euler-sign", "SAMPLER=euler"),
        ("stage07/conv-in-not-among-the-skips", "error"),
    ],
)
def test_a_mistake_hangs_where_its_picture_is_another_one(name, way, monkeypatch):
    monkeypatch.setattr(museum, "RIGHT", replace(museum.RIGHT, steps=2))
    exhibit = museum.drawn_with(museum.Easel(), *find_mistake(name))
    assert ("error" if exhibit.error else exhibit.way and exhibit.way.name) == way
    assert (exhibit.picture is not None) == (way not in (None, "error"))
