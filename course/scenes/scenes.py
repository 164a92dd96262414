"""A procedural illustrator: small scenes with one or two objects, in five landscapes at three times of day."""

import hashlib
import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from course.scenes.motion import CLOUD_DRIFT, SNOW_FALL, Pose, pose
from course.scenes.objects import DRAWERS, PALETTE, SNOW, Canvas, Paint, Rgb, draw_object, mix, object_tint
from course.scenes.objects import scenery_tint as tint

OBJECTS = tuple(DRAWERS)
COLOURS = tuple(PALETTE)
GROUNDS = ("meadow", "sea", "desert", "snow", "city")
TIMES = ("day", "sunset", "night")

SIZES = {"medium": (0.52, 0.59), "big": (0.64, 0.71)}
PAIR_SIZE = (0.42, 0.46)
PAIR_SHARE = 0.35  # of the pictures show two things
PLACES = {"left": (0.32, 0.36), "centre": (0.47, 0.53), "right": (0.64, 0.68)}
OBJECT_SCALE = {"car": 1.1, "castle": 1.02, "robot": 0.96, "fish": 1.05}
FLYING = ("balloon", "rocket")

SKIES: dict[str, tuple[Rgb, ...]] = {
    "day": ((66, 150, 234), (134, 204, 246), (214, 240, 252)),
    "sunset": ((88, 66, 152), (214, 122, 146), (255, 190, 112)),
    "night": ((12, 16, 54), (30, 36, 96), (68, 74, 146)),
}
# The colours of the ground, far and near.
GROUND_COLOURS: dict[str, dict[str, tuple[Rgb, Rgb]]] = {
    "meadow": {
        "day": ((130, 204, 86), (62, 146, 68)),
        "sunset": ((158, 160, 72), (78, 102, 60)),
        "night": ((44, 96, 84), (18, 52, 56)),
    },
    "sea": {
        "day": ((96, 194, 226), (30, 110, 182)),
        "sunset": ((244, 158, 122), (86, 72, 142)),
        "night": ((48, 66, 132), (14, 26, 72)),
    },
    "desert": {
        "day": ((250, 218, 148), (222, 162, 96)),
        "sunset": ((246, 170, 98), (178, 100, 78)),
        "night": ((152, 122, 122), (90, 70, 92)),
    },
    "snow": {
        "day": ((248, 251, 255), (198, 214, 240)),
        "sunset": ((252, 216, 212), (196, 160, 198)),
        "night": ((140, 156, 212), (84, 98, 162)),
    },
    "city": {
        "day": ((118, 120, 134), (88, 90, 106)),
        "sunset": ((114, 94, 108), (80, 64, 86)),
        "night": ((56, 60, 98), (34, 36, 66)),
    },
}
GLINTS = {"day": (220, 244, 252), "sunset": (255, 224, 164), "night": (206, 208, 230)}
SUN = {"day": (255, 242, 156), "sunset": (255, 230, 140)}
CLOUDS = {"day": ((226, 240, 252), (255, 255, 255)), "sunset": ((222, 140, 150), (255, 190, 166))}


@dataclass(frozen=True)
class Thing:
    """One object of a scene and its colour."""

    object: str
    colour: str


@dataclass(frozen=True)
class Scene:
    """What a picture shows; of two things the first stands on the left."""

    things: tuple[Thing, ...]
    ground: str
    time: str
    size: str
    position: str


@dataclass(frozen=True)
class Setting:
    """What a drawn background leaves for the objects to fit to: its horizon and where its light comes from."""

    ground: str
    time: str
    horizon: float
    light_x: float


def is_held_out(object: str, colour: str, ground: str) -> bool:
    """Say whether this combination is kept out of the training data (about 8 % are)."""
    digest = hashlib.md5(f"{object} {colour} {ground}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 12 == 0


def sample_scene(rng: random.Random, held_out: bool = False) -> Scene:
    """Draw a random scene without held-out combinations, or a single-object scene with one."""
    while True:
        ground, time = rng.choice(GROUNDS), rng.choice(TIMES)
        count = 2 if not held_out and rng.random() < PAIR_SHARE else 1
        things = tuple(Thing(name, rng.choice(COLOURS)) for name in rng.sample(OBJECTS, count))
        if any(is_held_out(thing.object, thing.colour, ground) != held_out for thing in things):
            continue
        size, position = "medium", "centre"
        if count == 1:
            size = rng.choices(("medium", "big"), (0.6, 0.4))[0]
        if count == 1 and size == "medium":
            position = rng.choices(("left", "centre", "right"), (0.27, 0.46, 0.27))[0]
        return Scene(things, ground, time, size, position)


def _draw_cloud(canvas: Canvas, x: float, y: float, radius: float, time: str) -> None:
    shade, colour = CLOUDS[time]
    puffs = ((-1.15, 0.12, 0.65), (-0.45, -0.15, 0.85), (0.35, -0.3, 1.0), (1.15, 0.1, 0.7))
    for fill, lift in ((shade, 0.0), (colour, 0.14)):
        for across, down, share in puffs:
            size = radius * (share - lift * 0.3)
            canvas.ellipse(x + across * radius, y + (down - lift) * radius, size, size * 0.62, fill)


def _draw_stars(canvas: Canvas, horizon: float, rng: random.Random) -> None:
    for _ in range(18):
        x, y, radius = rng.random(), rng.uniform(0.02, horizon - 0.12), rng.choice((0.006, 0.007, 0.010))
        brightness = rng.randint(200, 255)
        canvas.circle(x, y, radius, (brightness, brightness, 255))


def _draw_moon(canvas: Canvas, x: float, y: float, light: bool) -> None:
    canvas.soft_ellipse(x, y, 0.25, 0.25, (184, 194, 250), 0.6)
    if not light:
        return
    canvas.circle(x, y, 0.075, (252, 246, 218))
    for across, down, radius in ((-0.024, -0.018, 0.016), (0.024, 0.014, 0.02), (-0.012, 0.034, 0.012)):
        canvas.circle(x + across, y + down, radius, (230, 222, 194))


def _draw_sky(
    canvas: Canvas, time: str, horizon: float, rng: random.Random, light: bool, moment: float | None
) -> float:
    """Paint the sky with its sun or moon (their glow only if not `light`) and return where on the x axis it stands."""
    canvas.gradient(0, horizon + 0.08, SKIES[time])
    light_x = rng.choice((rng.uniform(0.10, 0.2), rng.uniform(0.8, 0.9)))
    if time == "night":
        _draw_stars(canvas, horizon, rng)
        _draw_moon(canvas, light_x, rng.uniform(0.12, 0.18), light)
        return light_x
    low = time == "sunset"
    y = horizon - rng.uniform(0.08, 0.13) if low else rng.uniform(0.12, 0.18)
    canvas.soft_ellipse(light_x, y, 0.5 if low else 0.28, 0.42 if low else 0.28, (255, 240, 176), 0.85)
    if light:
        canvas.circle(light_x, y, 0.09 if low else 0.068, SUN[time])
    for x in rng.sample((0.08, 0.35, 0.65, 0.92), rng.randint(1, 2)):
        x += CLOUD_DRIFT * (moment or 0.0)
        _draw_cloud(canvas, x + rng.uniform(-0.06, 0.06), rng.uniform(0.1, 0.34), rng.uniform(0.06, 0.085), time)
    return light_x


def _hill(rng: random.Random, height: float, swing: float, waves: float) -> Callable[[float], float]:
    """Return the outline of a hill: its y for an x."""
    phase = rng.uniform(0, 2 * math.pi)
    return lambda x: height - swing * math.sin(phase + waves * 2 * math.pi * x)


def _hill_points(outline: Callable[[float], float]) -> list[tuple[float, float]]:
    return [(step / 24, outline(step / 24)) for step in range(25)] + [(1, 1), (0, 1)]


def _draw_foreground(canvas: Canvas, ground: str, time: str, height: float, rng: random.Random) -> None:
    """Paint the near, softly curved ground that objects stand on."""
    points = _hill_points(_hill(rng, height, 0.022, 0.6))
    canvas.gradient(height - 0.03, 1, GROUND_COLOURS[ground][time], points)


def _draw_meadow(canvas: Canvas, time: str, horizon: float, rng: random.Random) -> None:
    canvas.polygon(_hill_points(_hill(rng, horizon - 0.03, 0.035, 0.9)), tint((160, 208, 170), time))
    canvas.polygon(_hill_points(_hill(rng, horizon + 0.01, 0.03, 1.1)), tint((128, 196, 112), time))
    _draw_foreground(canvas, "meadow", time, horizon + 0.07, rng)
    far, near = GROUND_COLOURS["meadow"][time]
    for _ in range(12):
        x, y, size = rng.random(), rng.uniform(horizon + 0.14, 0.98), rng.uniform(0.014, 0.02)
        fill = mix(far, near, rng.choice((0.0, 0.9)))
        for lean in (-1.2, 0.0, 1.2):
            tip = x + lean * size, y - size * (2.4 - abs(lean) * 0.5)
            canvas.polygon([(x + (lean * 0.4 - 0.35) * size, y), tip, (x + (lean * 0.4 + 0.35) * size, y)], fill)
    for _ in range(7):
        fill = object_tint(rng.choice(((255, 255, 255), (255, 226, 120), (255, 184, 204))), time)
        canvas.circle(rng.random(), rng.uniform(horizon + 0.14, 0.97), 0.012, fill)


def _draw_sea(canvas: Canvas, time: str, horizon: float, light_x: float, rng: random.Random) -> None:
    far, near = GROUND_COLOURS["sea"][time]
    canvas.gradient(horizon, 1, (far, near))
    for step in range(9):
        y = horizon + 0.014 + 0.038 * step
        x, length = light_x + rng.uniform(-0.02, 0.02), rng.uniform(0.04, 0.07) + 0.004 * step
        fill = mix(GLINTS[time], near, 0.1 + step / 14)
        canvas.rectangle(x - length, y, x + length, y + 0.011, fill, 0.005)
    for _ in range(9):
        x, y = rng.random(), rng.uniform(horizon + 0.05, 0.97)
        depth = (y - horizon) / (1 - horizon)
        length, fill = 0.035 + 0.05 * depth, mix(GLINTS[time], mix(far, near, depth), 0.66)
        canvas.rectangle(x - length, y, x + length, y + 0.012, fill, 0.006)


def _draw_cactus(canvas: Canvas, x: float, base: float, time: str) -> None:
    fill, width = tint((72, 146, 88), time), 0.034
    canvas.line([(x - 0.05, base - 0.12), (x - 0.05, base - 0.075), (x, base - 0.075)], 0.024, fill)
    canvas.line([(x, base - 0.06), (x + 0.05, base - 0.06), (x + 0.05, base - 0.11)], 0.024, fill)
    canvas.rectangle(x - width / 2, base - 0.17, x + width / 2, base, fill, width / 2)


def _draw_desert(canvas: Canvas, time: str, horizon: float, light_x: float, rng: random.Random) -> None:
    foot = horizon + 0.03
    x, size = rng.uniform(0.1, 0.9), rng.uniform(0.14, 0.2)
    top = x, foot - size
    shaded = 1 if light_x < x else -1
    canvas.polygon([(x - size, foot), top, (x + size, foot)], tint((228, 184, 118), time))
    canvas.polygon([(x + shaded * size * 0.25, foot), top, (x + shaded * size, foot)], tint((194, 148, 96), time))
    canvas.polygon(_hill_points(_hill(rng, horizon + 0.02, 0.022, 1.1)), mix(*GROUND_COLOURS["desert"][time], 0.25))
    _draw_foreground(canvas, "desert", time, horizon + 0.08, rng)
    _draw_cactus(canvas, rng.choice((rng.uniform(0.07, 0.12), rng.uniform(0.88, 0.93))), horizon + 0.13, time)


def _draw_pine(canvas: Canvas, x: float, base: float, size: float, time: str) -> None:
    for level in range(3):
        width, low = size * (1 - level * 0.24), base - level * size * 0.8
        canvas.polygon([(x - width, low), (x, low - size * 1.4), (x + width, low)], tint((70, 124, 122), time))
    tip = base - size * 3
    low = tip + size * 0.8
    canvas.polygon([(x - size * 0.34, low), (x, tip), (x + size * 0.34, low)], tint(SNOW, time))


def _draw_snow(canvas: Canvas, time: str, horizon: float, rng: random.Random) -> None:
    for number in range(4):
        x, peak, width = number * 0.33 + rng.uniform(-0.06, 0.06), rng.uniform(0.12, 0.2), rng.uniform(0.2, 0.26)
        top, foot = horizon - peak, horizon + 0.05
        canvas.polygon([(x - width, foot), (x, top), (x + width, foot)], tint((172, 194, 226), time))
        cap, drop = width * 0.32, (peak + 0.05) * 0.32
        canvas.polygon([(x - cap, top + drop), (x, top), (x + cap, top + drop)], tint((236, 244, 255), time))
    outline = _hill(rng, horizon + 0.02, 0.02, 1.0)
    canvas.polygon(_hill_points(outline), mix(*GROUND_COLOURS["snow"][time], 0.4))
    for _ in range(4):
        x = rng.random()
        _draw_pine(canvas, x, outline(x) + 0.02, rng.uniform(0.035, 0.05), time)
    _draw_foreground(canvas, "snow", time, horizon + 0.08, rng)


def _draw_snowflakes(canvas: Canvas, time: str, rng: random.Random, moment: float | None) -> None:
    fill = (255, 255, 255) if time != "night" else (222, 226, 255)
    for _ in range(16):
        x, y = rng.random(), (rng.random() + SNOW_FALL * (moment or 0.0)) % 1
        canvas.circle(x, y, rng.uniform(0.007, 0.011), fill)


def _window_colour(time: str, rng: random.Random) -> Rgb:
    if time == "night":
        return (255, 224, 130) if rng.random() < 0.6 else (62, 70, 122)
    if time == "sunset":
        return (255, 212, 140) if rng.random() < 0.5 else (116, 96, 128)
    return (200, 222, 240)


def _draw_city(canvas: Canvas, time: str, horizon: float, rng: random.Random) -> None:
    street = horizon + 0.09
    for colour, lowest, highest, is_near in (((166, 186, 214), 0.2, 0.36, False), ((116, 134, 172), 0.08, 0.24, True)):
        x = rng.uniform(-0.08, 0.0)
        while x < 1:
            width, top = rng.choice((0.12, 0.16)), horizon - rng.uniform(lowest, highest)
            canvas.rectangle(x, top, x + width, street, tint(mix(colour, (255, 255, 255), rng.uniform(0, 0.14)), time))
            if is_near:
                for row in range(int((street - top - 0.04) / 0.06)):
                    for left in (x + 0.02 + 0.04 * column for column in range(int(width / 0.04) - 1)):
                        y = top + 0.025 + 0.06 * row
                        canvas.rectangle(left + 0.01, y, left + 0.03, y + 0.03, _window_colour(time, rng))
            x += width + rng.choice((0.0, 0.02))
    canvas.rectangle(0, street, 1, street + 0.05, tint((204, 202, 208), time))
    canvas.gradient(street + 0.045, 1, GROUND_COLOURS["city"][time])
    start = rng.uniform(-0.2, 0.0)
    for number in range(6):
        left = start + number * 0.22
        canvas.rectangle(left, 0.945, left + 0.12, 0.965, tint((244, 236, 206), time))


def _draw_background(
    canvas: Canvas, ground: str, time: str, rng: random.Random, light: bool, moment: float | None
) -> Setting:
    horizon = rng.uniform(0.60, 0.64)
    light_x = _draw_sky(canvas, time, horizon, rng, light, moment)
    if ground == "meadow":
        _draw_meadow(canvas, time, horizon, rng)
    elif ground == "sea":
        _draw_sea(canvas, time, horizon, light_x, rng)
    elif ground == "desert":
        _draw_desert(canvas, time, horizon, light_x, rng)
    elif ground == "snow":
        _draw_snow(canvas, time, horizon, rng)
        _draw_snowflakes(canvas, time, rng, moment)
    else:
        _draw_city(canvas, time, horizon, rng)
    return Setting(ground, time, horizon, light_x)


def _draw_island(canvas: Canvas, x: float, base: float, size: float, time: str) -> None:
    canvas.ellipse(x, base + 0.01, size * 0.72, size * 0.155, mix(GLINTS[time], GROUND_COLOURS["sea"][time][0], 0.4))
    canvas.ellipse(x, base, size * 0.66, size * 0.13, object_tint((246, 218, 152), time))


def _draw_ripples(canvas: Canvas, x: float, base: float, size: float, time: str) -> None:
    """Draw the rings in the water from which a fish has leapt."""
    far, near = GROUND_COLOURS["sea"][time]
    for radius, fill in ((0.46, mix(GLINTS[time], far, 0.3)), (0.41, mix(far, near, 0.45)), (0.27, GLINTS[time])):
        canvas.ellipse(x, base, radius * size, radius * 0.26 * size, fill)
    canvas.ellipse(x, base, 0.22 * size, 0.05 * size, near)


def _draw_waterline(canvas: Canvas, x: float, base: float, size: float, time: str) -> None:
    """Lay foam along the hull of a boat."""
    for shift in (-0.3, 0.02, 0.34):
        left, right = x + (shift - 0.16) * size, x + (shift + 0.16) * size
        canvas.rectangle(left, base + 0.004, right, base + 0.022, tint((226, 244, 252), time), 0.01)


def _draw_thing(
    canvas: Canvas,
    thing: Thing,
    setting: Setting,
    x: float,
    size: float,
    rng: random.Random,
    moment: float | None,
    paper: Rgb | None = None,
) -> None:
    """Put an object on, above or into the ground, with its shadow on the side away from the light."""
    name, ground, time = thing.object, setting.ground, setting.time
    base = min(0.93, setting.horizon + 0.10 + 0.26 * size + rng.uniform(-0.01, 0.015))
    side = 1 if setting.light_x < x else -1
    floats = name in FLYING or name == "fish"
    if ground == "sea" and name != "boat" and not floats:
        _draw_island(canvas, x, base, size, time)
    if ground == "sea" and name == "fish":
        _draw_ripples(canvas, x, base, size, time)
    at = Pose() if moment is None else pose(name, ground, moment)
    x += side * at.ahead
    shadow = 0.34 if time == "day" else 0.42
    shadow_x, width = x + side * 0.06 * size, (0.4 if floats else 0.58) * size
    canvas.soft_ellipse(shadow_x, base, width, 0.09 * size, (24, 24, 56), shadow * (0.7 if floats else 1), "shadow")
    foot = base
    if name in FLYING:
        foot = max(base - rng.uniform(0.16, 0.2), 1.04 * size + 0.02)
    elif name == "fish":
        foot = base - 0.22 * size
    scale = size * OBJECT_SCALE.get(name, 1.0)
    if paper:
        canvas.rectangle(0, 0, 1, 1, paper)
    draw_object(canvas, name, Paint(thing.colour, time, ground, moment), x, foot - at.up, scale, side, at.lean)
    if ground == "sea" and name == "boat" and not paper:
        _draw_waterline(canvas, x, base, size, time)


def draw_scene(
    scene: Scene,
    rng: random.Random,
    size: int = 128,
    light: bool = True,
    moment: float | None = None,
    paper: Rgb | None = None,
) -> Image.Image:
    """Illustrate a scene as an RGB picture; every free detail comes from `rng`.

    Without `light` the sun or moon is left out, and all else is the same. With a `moment` between 0 and 1 it is one
    picture of a film. With the colour of a `paper` it shows the last thing alone, on a sheet of that colour.
    """
    canvas = Canvas(size)
    setting = _draw_background(canvas, scene.ground, scene.time, rng, light, moment)
    if len(scene.things) == 2:
        for thing, x in zip(scene.things, (0.26, 0.74)):
            _draw_thing(
                canvas, thing, setting, x + rng.uniform(-0.01, 0.01), rng.uniform(*PAIR_SIZE), rng, moment, paper
            )
    else:
        x = rng.uniform(*PLACES[scene.position])
        _draw_thing(canvas, scene.things[0], setting, x, rng.uniform(*SIZES[scene.size]), rng, moment, paper)
    return canvas.finish()


def draw_clip(scene: Scene, seed: int | str, frames: int, size: int = 128) -> list[Image.Image]:
    """Illustrate a scene as a film of at least two pictures: all details from one seed, the moments from 0 to 1."""
    return [draw_scene(scene, random.Random(seed), size, moment=i / (frames - 1)) for i in range(frames)]


def draw_matte(scene: Scene, seed: int | str, size: int = 128, moment: float | None = None) -> np.ndarray:
    """How much of each pixel the one thing of a scene covers: (size, size), float32, from 0 to 1.

    On a black and on a white sheet, a pixel that is covered has the same colour.
    """
    black, white = (
        np.asarray(draw_scene(scene, random.Random(seed), size, moment=moment, paper=paper), np.float32)
        for paper in ((0, 0, 0), (255, 255, 255))
    )
    return 1.0 - (white - black).mean(axis=2) / 255.0


def contact_sheet(rng: random.Random, columns: int = 10, rows: int = 6, size: int = 128) -> Image.Image:
    """Return a sheet of random scenes."""
    step = size + 2
    sheet = Image.new("RGB", (columns * step, rows * step), "white")
    for number in range(columns * rows):
        row, column = divmod(number, columns)
        sheet.paste(draw_scene(sample_scene(rng), rng, size), (column * step, row * step))
    return sheet


if __name__ == "__main__":
    contact_sheet(random.Random(0)).save(sys.argv[1])
