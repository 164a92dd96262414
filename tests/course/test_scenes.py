"""Tests of the illustrator and of its captions."""

import random

import numpy as np
import pytest

from course.scenes.captions import all_words, caption, plain_prompt, swapped
from course.scenes.examples import draw_film
from course.scenes.motion import WITH_FRONT, pose
from course.scenes.objects import PALETTE
from course.scenes.scenes import (
    COLOURS,
    GROUNDS,
    OBJECTS,
    TIMES,
    Scene,
    Thing,
    draw_clip,
    draw_scene,
    is_held_out,
    sample_scene,
)


def single(thing: Thing, ground: str = "meadow", time: str = "day") -> Scene:
    return Scene((thing,), ground, time, "big", "centre")


def test_same_seed_gives_the_same_picture():
    scene = sample_scene(random.Random(1))
    first, again, other = (draw_scene(scene, random.Random(seed)) for seed in (5, 5, 6))
    assert first.size == (128, 128) and first.mode == "RGB"
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_picture_size_can_be_chosen():
    assert draw_scene(single(Thing("cat", "blue")), random.Random(0), size=64).size == (64, 64)


def test_about_one_combination_in_twelve_is_held_out():
    held_out = [is_held_out(name, colour, ground) for name in OBJECTS for colour in COLOURS for ground in GROUNDS]
    assert 0.06 < np.mean(held_out) < 0.11


@pytest.mark.parametrize("held_out", [False, True])
def test_samples_respect_the_held_out_combinations(held_out):
    rng = random.Random(2)
    for scene in (sample_scene(rng, held_out) for _ in range(300)):
        assert all(is_held_out(thing.object, thing.colour, scene.ground) == held_out for thing in scene.things)
        assert len(scene.things) == 1 or not held_out


def test_samples_cover_everything():
    rng = random.Random(3)
    scenes = [sample_scene(rng) for _ in range(1000)]
    assert {thing.object for scene in scenes for thing in scene.things} == set(OBJECTS)
    assert {thing.colour for scene in scenes for thing in scene.things} == set(COLOURS)
    assert {scene.ground for scene in scenes} == set(GROUNDS) and {scene.time for scene in scenes} == set(TIMES)
    assert 0.25 < np.mean([len(scene.things) == 2 for scene in scenes]) < 0.4


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_is_mostly_of_its_colour(name, time):
    """Where pictures of one scene in two colours differ is the object: most of it must have the colour's name."""
    colours = {colour: np.array(PALETTE[colour], float) for colour in COLOURS}
    pictures = {}
    for colour in colours:
        picture = draw_scene(single(Thing(name, colour), time=time), random.Random(4))
        pictures[colour] = np.asarray(picture, float)
    for colour, picture in pictures.items():
        differs = np.max([np.abs(picture - other).max(axis=-1) for other in pictures.values()], axis=0) > 30
        assert 0.08 < differs.mean() < 0.5
        distances = np.stack([np.linalg.norm(picture[differs] - rgb, axis=-1) for rgb in colours.values()])
        votes = np.bincount(distances.argmin(axis=0), minlength=len(colours))
        assert list(colours)[votes.argmax()] == colour


def test_captions_vary_and_mention_the_object():
    rng = random.Random(5)
    captions = [caption(single(Thing("robot", "orange")), rng) for _ in range(50)]
    assert len(set(captions)) > 20
    assert all("orange robot" in text for text in captions)


def test_captions_have_a_comfortable_length():
    rng = random.Random(6)
    lengths = [len(caption(sample_scene(rng), rng).split()) for _ in range(500)]
    assert 9 <= np.mean(lengths) <= 13 and max(lengths) < 30


def test_all_words_cover_every_caption():
    rng = random.Random(7)
    known = set(" ".join(all_words()).replace(",", " ").split())
    for scene in (sample_scene(rng) for _ in range(500)):
        for text in (caption(scene, rng), plain_prompt(scene)):
            assert set(text.replace(",", " ").split()) <= known


@pytest.mark.parametrize("time", TIMES)
def test_without_its_light_a_picture_stays_the_same_but_for_one_disc(time):
    scene = single(Thing("cat", "blue"), "sea", time)
    lit, dark = (np.asarray(draw_scene(scene, random.Random(3), 128, light), float) for light in (True, False))
    rows, columns = np.nonzero(np.abs(lit - dark).max(axis=2) > 8)
    assert 50 < len(rows) < 900
    assert np.ptp(columns) < 0.2 * 128 and np.ptp(rows) < 0.2 * 128


def test_a_swapped_caption_has_its_colours_or_its_side_wrong():
    pair = "a picture of an orange cat next to a blue house in a green meadow"
    assert swapped(pair) == "a picture of a blue cat next to an orange house in a green meadow"
    assert swapped("red car, pink boat, sea") == "pink car, red boat, sea"
    assert swapped("a red car on the left in a green meadow") == "a red car on the right in a green meadow"
    two_of_a_colour = "a red car to the left of a red house at night"
    assert swapped(two_of_a_colour) == "a red car to the right of a red house at night"
    assert swapped("a red car on a green hill by day") is None
    assert swapped("a red car in a green meadow") is None and swapped("red car, red boat, sea") is None


def test_plain_prompt():
    assert plain_prompt(single(Thing("house", "red"), time="night")) == "a red house in a green meadow at night"
    assert plain_prompt(single(Thing("car", "orange"), "city", "sunset")) == "an orange car in the city at sunset"


def centre_of_the_thing(name, ground, moment, seed):
    """Where a picture changes with the thing's colour: the middle of that, as shares of the picture (x, y)."""
    pictures = [
        np.asarray(draw_scene(single(Thing(name, colour), ground), random.Random(seed), moment=moment), float)
        for colour in ("red", "blue")
    ]
    rows, columns = np.nonzero(np.abs(pictures[0] - pictures[1]).max(axis=-1) > 40)
    return columns.mean() / 128, rows.mean() / 128


@pytest.mark.parametrize("ground", ["meadow", "sea"])
@pytest.mark.parametrize("name", ["car", "boat", "balloon", "rocket", "fish", "cat"])
def test_a_thing_moves_as_its_kind_does(name, ground):
    moments = (0.1, 0.25, 0.8)
    for seed in range(3):
        where = [centre_of_the_thing(name, ground, moment, seed) for moment in moments]
        poses = [pose(name, ground, moment) for moment in moments]
        for i in (1, 2):
            across, up = where[i][0] - where[0][0], where[0][1] - where[i][1]
            assert abs(across) == pytest.approx(abs(poses[i].ahead - poses[0].ahead), abs=0.03)
            assert up == pytest.approx(poses[i].up - poses[0].up, abs=0.03)


def test_two_films_in_five_show_a_thing_with_a_front():
    captions = [draw_film(0, index, 8, 2)[1][0] for index in range(300)]
    with_front = [text for text in captions if any(name in text.split() for name in WITH_FRONT)]
    assert 0.3 < len(with_front) / len(captions) < 0.5


def test_a_car_drives_where_its_lamp_is():
    """Seeds 0 to 5 have the moon, and so the car's way, on either side."""
    ways = set()
    for seed in range(6):
        scene = single(Thing("car", "red"), "desert", "night")
        first, last = (
            np.asarray(draw_scene(scene, random.Random(seed), moment=moment), float)[75:].transpose(2, 0, 1)
            for moment in (0.0, 1.0)
        )
        lamp = np.nonzero((first[0] > 240) & (first[1] > 215) & (first[2] > 140))[1].mean()
        begins, ends = (np.nonzero((red > 180) & (green < 60))[1].mean() for red, green, _ in (first, last))
        way = np.sign(ends - begins)
        assert np.sign(lamp - begins) == way
        ways.add(way)
    assert ways == {-1.0, 1.0}


def test_the_moments_of_a_film_do_not_depend_on_how_many_there_are():
    scene = single(Thing("house", "green"), "snow", "night")
    few, many = draw_clip(scene, 5, 3), draw_clip(scene, 5, 9)
    assert [frame.tobytes() for frame in few] == [frame.tobytes() for frame in many[::4]]
    assert few[0].tobytes() != few[1].tobytes()


def test_the_ground_stands_still_while_a_balloon_rises():
    frames = [np.asarray(f) for f in draw_clip(single(Thing("balloon", "red"), "meadow", "night"), 2, 5)]
    assert all(np.array_equal(frames[0][126:], frame[126:]) for frame in frames)
