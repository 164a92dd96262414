"""Captions for the scenes: a small grammar with several phrasings of the same picture."""

import random
from collections.abc import Iterator
from itertools import product

from course.scenes.scenes import COLOURS, OBJECTS, Scene, Thing

GROUND_PHRASES = {
    "meadow": ("in a green meadow", "on a grassy hill", "in the meadow", "on the grass", "on a green hill"),
    "sea": ("on the sea", "at sea", "on the ocean", "in the sea"),
    "desert": ("in the desert", "on a sand dune", "in the sandy desert", "on the desert sand"),
    "snow": ("in the snow", "in a snowy field", "on a snowy hill", "on fresh snow"),
    "city": ("in the city", "on a city street", "in the big city", "in a city"),
}
TIME_PHRASES = {
    "day": ("by day", "during the day", "on a sunny day", "in the sunshine"),
    "sunset": ("at sunset", "at dusk", "in the evening", "in the evening light"),
    "night": ("at night", "by night", "under the stars", "on a starry night"),
}
OBJECT_NAMES = {"balloon": ("balloon", "hot air balloon"), "boat": ("boat", "sailing boat")}
BIG_WORDS = ("big", "large", "huge")
OPENINGS = ("a picture of", "an illustration of", "a drawing of")
PLAIN_TIMES = {"day": "by day", "sunset": "at sunset", "night": "at night"}


def _with_article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _name(thing: Thing, rng: random.Random) -> str:
    return f"{thing.colour} {rng.choice(OBJECT_NAMES.get(thing.object, (thing.object,)))}"


def _pair(first: str, second: str, rng: random.Random) -> str:
    """Name two things; the first one stands on the left."""
    return rng.choice(
        (
            f"{first} and {second}",
            f"{first} and {second}",
            f"{first} next to {second}",
            f"{first} to the left of {second}",
            f"{second} to the right of {first}",
            f"{first} on the left and {second} on the right",
        )
    )


def _subject(scene: Scene, rng: random.Random) -> str:
    names = [_name(thing, rng) for thing in scene.things]
    if len(names) == 2:
        return _pair(_with_article(names[0]), _with_article(names[1]), rng)
    name = names[0]
    if scene.size == "big" and rng.random() < 0.6:
        name = f"{rng.choice(BIG_WORDS)} {name}"
    place = f" on the {scene.position}" if scene.position != "centre" and rng.random() < 0.8 else ""
    return _with_article(name) + place


def _tags(scene: Scene, ground: str, time: str, rng: random.Random) -> str:
    things = [_name(thing, rng) for thing in scene.things]
    return ", ".join(things + [scene.ground] * bool(ground) + [scene.time] * bool(time))


def caption(scene: Scene, rng: random.Random) -> str:
    """Describe a scene in one of many phrasings; the ground or the time of day is sometimes left out."""
    ground = rng.choice(GROUND_PHRASES[scene.ground]) if rng.random() < 0.93 else ""
    time = rng.choice(TIME_PHRASES[scene.time]) if rng.random() < 0.92 else ""
    style = rng.random()
    if style < 0.12:
        return _tags(scene, ground, time, rng)
    subject = _subject(scene, rng)
    if style < 0.22 and time:
        return f"{time}, {subject} {ground}".rstrip()
    opening = rng.choice(OPENINGS) if style > 0.85 else ""
    return " ".join(part for part in (opening, subject, ground, time) if part)


GREEN_THINGS = ("meadow", "hill")  # what is green in a caption without being one of its things


def swapped(text: str) -> str | None:
    """A caption that the same words make wrong: two things exchange their colours, or else left becomes right.

    None for a caption that has neither two colours nor a side.
    """
    words = text.split()
    bare = [word.strip(",") for word in words]
    first, *others = [i for i, word in enumerate(bare) if word in COLOURS and bare[i + 1] not in GREEN_THINGS]
    if not others or bare[first] == bare[others[0]]:
        sides = {"left": "right", "right": "left"}
        turned = " ".join(sides.get(word, word) for word in words)
        return turned if turned != text else None
    second = others[0]
    words[first], words[second] = words[second], words[first]
    for i in (first, second):
        if i > 0 and words[i - 1] in ("a", "an"):
            words[i - 1] = _with_article(words[i]).split()[0]
    return " ".join(words)


def plain_prompt(scene: Scene) -> str:
    """Return the one canonical phrase for a scene, such as "a red house in a green meadow at night"."""
    things = " and ".join(_with_article(f"{thing.colour} {thing.object}") for thing in scene.things)
    return f"{things} {GROUND_PHRASES[scene.ground][0]} {PLAIN_TIMES[scene.time]}"


def all_words() -> Iterator[str]:
    """Yield every phrase that captions are made of, for the training of a tokenizer."""
    for colour, thing in product(COLOURS, OBJECTS):
        for name in OBJECT_NAMES.get(thing, (thing,)):
            yield _with_article(f"{colour} {name}")
            yield from (f"a {word} {colour} {name}" for word in BIG_WORDS)
    for phrases in (GROUND_PHRASES, TIME_PHRASES):
        for name, variants in phrases.items():
            yield f", {name}"
            yield from variants
    yield from OPENINGS
    yield from ("on the left", "on the right", "and", "next to", "to the left of", "to the right of", ",")
