"""The drawing tools of the illustrator and the twelve objects it can draw."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from course.scenes.motion import flicker

Rgb = tuple[int, int, int]
Point = tuple[float, float]

SUPERSAMPLING = 3

PALETTE: dict[str, Rgb] = {
    "red": (224, 46, 50),
    "orange": (250, 138, 28),
    "yellow": (255, 216, 56),
    "green": (58, 174, 84),
    "blue": (50, 116, 236),
    "purple": (142, 76, 206),
    "pink": (252, 138, 190),
    "white": (248, 247, 245),
}
# The same colours in shadow: each stays within its own name (a darker yellow must not turn brown).
SHADES: dict[str, Rgb] = {
    "red": (176, 30, 58),
    "orange": (226, 104, 20),
    "yellow": (242, 178, 38),
    "green": (38, 134, 78),
    "blue": (38, 76, 184),
    "purple": (108, 54, 168),
    "pink": (230, 104, 164),
    "white": (208, 211, 228),
}

# The light of each time of day: factors on red, green and blue, and an amount added to each.
SCENERY_LIGHT = {
    "day": ((1.0, 1.0, 1.0), (0, 0, 0)),
    "sunset": ((0.94, 0.75, 0.74), (8, 4, 10)),
    "night": ((0.38, 0.42, 0.60), (2, 4, 22)),
}
OBJECT_LIGHT = {
    "day": ((1.0, 1.0, 1.0), (0, 0, 0)),
    "sunset": ((0.99, 0.94, 0.91), (4, 0, 4)),
    "night": ((0.95, 0.93, 0.95), (2, 4, 10)),
}

WINDOW_LIGHT = {"sunset": (255, 234, 160), "night": (255, 228, 120)}
DIM_LIGHT = (170, 120, 70)
CREAM = (252, 246, 234)
SNOW = (248, 250, 255)
SLATE = (88, 80, 118)
INK = (46, 44, 62)


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """Blend two colours; share 0 gives the first, 1 the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second))
    return red, green, blue


@lru_cache(maxsize=4096)
def _lit(colour: Rgb, light: tuple[Point, Rgb]) -> Rgb:
    factors, offsets = light
    red, green, blue = (
        min(255, int(value * factor + offset)) for value, factor, offset in zip(colour, factors, offsets)
    )
    return red, green, blue


def scenery_tint(colour: Rgb, time: str) -> Rgb:
    """Return a colour of the landscape as it looks at this time of day."""
    return _lit(colour, SCENERY_LIGHT[time])


def object_tint(colour: Rgb, time: str) -> Rgb:
    """Return a colour of an object at this time of day: a milder change, so that its name still fits."""
    return _lit(colour, OBJECT_LIGHT[time])


@lru_cache(maxsize=256)
def _round_mask(width: int, height: int, strength: float, kind: str) -> Image.Image:
    """An elliptic mask that fades to its edge: a "glow" falls off from its middle, a "shadow" has a flat core."""
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    inside = np.clip(1 - np.sqrt(x * x + y * y), 0, 1)
    mask = inside**2 if kind == "glow" else np.clip(inside / 0.45, 0, 1)
    return Image.fromarray((mask * strength * 255).astype(np.uint8))


class Canvas:
    """A square picture drawn at a multiple of its final size; coordinates run from 0 to 1, y downwards."""

    def __init__(self, size: int):
        self.width = size * SUPERSAMPLING
        self.image = Image.new("RGB", (self.width, self.width))
        self.draw = ImageDraw.Draw(self.image)

    def _pixels(self, points: list[Point]) -> list[Point]:
        return [(x * self.width, y * self.width) for x, y in points]

    def polygon(self, points: list[Point], fill: Rgb) -> None:
        self.draw.polygon(self._pixels(points), fill=fill)

    def line(self, points: list[Point], width: float, fill: Rgb) -> None:
        self.draw.line(self._pixels(points), fill=fill, width=max(1, round(width * self.width)), joint="curve")

    def ellipse(self, x: float, y: float, radius_x: float, radius_y: float, fill: Rgb) -> None:
        self.draw.ellipse(self._pixels([(x - radius_x, y - radius_y), (x + radius_x, y + radius_y)]), fill=fill)

    def circle(self, x: float, y: float, radius: float, fill: Rgb) -> None:
        self.ellipse(x, y, radius, radius, fill)

    def rectangle(self, left: float, top: float, right: float, bottom: float, fill: Rgb, corner: float = 0) -> None:
        box = self._pixels([(left, top), (right, bottom)])
        if corner:
            self.draw.rounded_rectangle(box, radius=corner * self.width, fill=fill)
        else:
            self.draw.rectangle(box, fill=fill)

    def gradient(self, top: float, bottom: float, colours: tuple[Rgb, ...], outline: list[Point] | None = None) -> None:
        """Fill the rows from top to bottom, or the polygon `outline` in them, with evenly spaced colours."""
        first, last = max(0, int(top * self.width)), min(self.width, math.ceil(bottom * self.width))
        places = np.linspace(0, len(colours) - 1, last - first)
        channels = [np.interp(places, range(len(colours)), channel) for channel in zip(*colours)]
        column = Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)[:, None])
        stripes = column.resize((self.width, last - first), Image.Resampling.NEAREST)
        mask = None
        if outline is not None:
            mask = Image.new("L", stripes.size, 0)
            ImageDraw.Draw(mask).polygon([(x, y - first) for x, y in self._pixels(outline)], fill=255)
        self.image.paste(stripes, (0, first), mask)

    def soft_ellipse(
        self, x: float, y: float, radius_x: float, radius_y: float, fill: Rgb, strength: float, kind: str = "glow"
    ) -> None:
        """Lay a soft glow or shadow on the picture."""
        half_width, half_height = (max(1, round(radius * 32)) * self.width // 64 for radius in (radius_x, radius_y))
        half_width, half_height = max(2, half_width * 2), max(2, half_height * 2)
        left, top = round(x * self.width) - half_width, round(y * self.width) - half_height
        mask = _round_mask(2 * half_width, 2 * half_height, strength, kind)
        self.image.paste(fill, (left, top, left + mask.width, top + mask.height), mask)

    def finish(self) -> Image.Image:
        """Average the picture down to its final size."""
        return self.image.reduce(SUPERSAMPLING)


class Brush:
    """Draws in the coordinates of one object: u to the right, v upwards, the middle of its base at (0, 0).

    A negative `side` mirrors the object, and a `lean` moves its upper parts ahead. With a `rim` colour the brush draws
    every shape a little larger and in that colour: an outline, when the object is painted over it afterwards.
    """

    def __init__(
        self,
        canvas: Canvas,
        x: float,
        base: float,
        scale: float,
        side: int = 1,
        rim: Rgb | None = None,
        lean: float = 0.0,
    ):
        self.canvas, self.x, self.base, self.scale, self.side, self.rim = canvas, x, base, scale, side, rim
        self.lean = lean
        self.grow = 0.010 if rim else 0.0

    def _place(self, u: float, v: float) -> Point:
        return self.x + self.side * (u + self.lean * v) * self.scale, self.base - v * self.scale

    def polygon(self, points: list[Point], fill: Rgb) -> None:
        placed = [self._place(u, v) for u, v in points]
        self.canvas.polygon(placed, self.rim or fill)
        if self.rim:
            self.canvas.line(placed + placed[:2], 2 * self.grow, self.rim)

    def line(self, points: list[Point], width: float, fill: Rgb) -> None:
        placed = [self._place(u, v) for u, v in points]
        self.canvas.line(placed, width * self.scale + 2 * self.grow, self.rim or fill)

    def ellipse(self, u: float, v: float, radius_u: float, radius_v: float, fill: Rgb) -> None:
        x, y = self._place(u, v)
        radii = radius_u * self.scale + self.grow, radius_v * self.scale + self.grow
        self.canvas.ellipse(x, y, *radii, self.rim or fill)

    def circle(self, u: float, v: float, radius: float, fill: Rgb) -> None:
        self.ellipse(u, v, radius, radius, fill)

    def sector(self, u: float, v: float, radius_u: float, radius_v: float, degrees: Point, fill: Rgb) -> None:
        """Fill the part of an ellipse between two angles, cut off by a straight line (0 is right, 90 up)."""
        angles = [math.radians(degrees[0] + (degrees[1] - degrees[0]) * step / 20) for step in range(21)]
        self.polygon([(u + radius_u * math.cos(angle), v + radius_v * math.sin(angle)) for angle in angles], fill)

    def rectangle(self, left: float, low: float, right: float, high: float, fill: Rgb, corner: float = 0) -> None:
        middle = (low + high) / 2  # a leaning rectangle is moved, not slanted
        (x0, y0), (x1, y1) = self._place(left, middle), self._place(right, middle)
        y0, y1 = self.base - low * self.scale, self.base - high * self.scale
        x0, x1 = min(x0, x1) - self.grow, max(x0, x1) + self.grow
        self.canvas.rectangle(x0, y1 - self.grow, x1, y0 + self.grow, self.rim or fill, corner * self.scale)

    def glow(self, u: float, v: float, radius_u: float, radius_v: float, fill: Rgb, strength: float) -> None:
        if not self.rim:
            radii = radius_u * self.scale, radius_v * self.scale
            self.canvas.soft_ellipse(*self._place(u, v), *radii, fill, strength)


@dataclass(frozen=True)
class Paint:
    """The colours of one object: its own in three shades, and those of its parts at this time of day.

    In a film `moment` goes from 0 to 1: lamps flicker, smoke rises, a flag waves. In a still picture it is None.
    """

    name: str
    time: str
    ground: str
    moment: float | None = None

    @property
    def base(self) -> Rgb:
        return object_tint(PALETTE[self.name], self.time)

    @property
    def dark(self) -> Rgb:
        return object_tint(SHADES[self.name], self.time)

    @property
    def light(self) -> Rgb:
        share = 1.0 if self.name == "white" else 0.34
        return object_tint(mix(PALETTE[self.name], (255, 255, 255), share), self.time)

    @property
    def rim(self) -> Rgb:
        """The outline: a deep shade of the object's own colour, for white a bluish grey."""
        shade = (140, 146, 182) if self.name == "white" else mix(SHADES[self.name], (52, 20, 60), 0.5)
        return object_tint(shade, self.time)

    def part(self, colour: Rgb) -> Rgb:
        return object_tint(colour, self.time)

    def lamp(self, by_day: Rgb) -> Rgb:
        """A window or an eye: lit in the evening and at night."""
        light = WINDOW_LIGHT.get(self.time, by_day)
        return light if self.moment is None or light == by_day else mix(DIM_LIGHT, light, flicker(self.moment))


def draw_house(brush: Brush, paint: Paint) -> None:
    brush.rectangle(0.17, 0.6, 0.31, 0.98, paint.part((156, 100, 88)))
    brush.rectangle(0.15, 0.94, 0.33, 1.0, paint.part((122, 78, 74)))
    brush.rectangle(-0.42, 0, 0.42, 0.6, paint.base)
    brush.rectangle(0.26, 0, 0.42, 0.6, paint.dark)
    roof = paint.part((98, 74, 88))
    brush.polygon([(-0.52, 0.56), (0, 0.94), (0.52, 0.56)], roof)
    brush.polygon([(0, 0.94), (0.52, 0.56), (0.26, 0.56)], mix(roof, (20, 10, 40), 0.25))
    if paint.ground == "snow":
        brush.polygon([(-0.52, 0.57), (0, 0.96), (0.52, 0.57), (0.4, 0.57), (0, 0.84), (-0.4, 0.57)], paint.part(SNOW))
    for left in (-0.34, 0.13):
        brush.rectangle(left - 0.02, 0.22, left + 0.2, 0.46, paint.part(CREAM))
        brush.rectangle(left + 0.01, 0.25, left + 0.17, 0.43, paint.lamp((160, 212, 242)))
    brush.rectangle(-0.09, 0, 0.08, 0.3, paint.part((112, 72, 62)), 0.03)
    brush.circle(0.04, 0.14, 0.02, paint.part((252, 212, 92)))
    if paint.moment is not None and not brush.rim:
        for number in range(3):
            age = (2 * paint.moment + number / 3) % 1
            brush.circle(0.24 + 0.16 * age, 1.03 + 0.3 * age, 0.04 + 0.05 * age, paint.part((222, 222, 230)))


def draw_tree(brush: Brush, paint: Paint) -> None:
    brush.polygon([(-0.1, 0), (0.1, 0), (0.06, 0.5), (-0.06, 0.5)], paint.part((130, 86, 62)))
    brush.polygon([(0.03, 0), (0.1, 0), (0.06, 0.5), (0.02, 0.5)], paint.part((102, 64, 52)))
    for u, v, radius in ((-0.22, 0.5, 0.23), (0.23, 0.5, 0.23), (0.02, 0.7, 0.3)):
        brush.circle(u, v, radius, paint.dark)
    for u, v, radius in ((-0.23, 0.53, 0.21), (0.17, 0.54, 0.2), (-0.03, 0.73, 0.26)):
        brush.circle(u, v, radius, paint.base)
    for u, v, radius in ((-0.28, 0.59, 0.09), (-0.1, 0.83, 0.11)):
        brush.ellipse(u, v, radius, radius * 0.85, paint.light)
    if paint.ground == "snow":
        brush.sector(0.0, 0.76, 0.24, 0.25, (25, 155), paint.part(SNOW))


def draw_car(brush: Brush, paint: Paint) -> None:
    brush.polygon([(-0.36, 0.32), (-0.23, 0.58), (0.17, 0.58), (0.34, 0.32)], paint.base)
    glass = paint.part((184, 226, 248))
    brush.polygon([(-0.26, 0.35), (-0.18, 0.52), (-0.04, 0.52), (-0.04, 0.35)], glass)
    brush.polygon([(0.02, 0.35), (0.02, 0.52), (0.14, 0.52), (0.25, 0.35)], glass)
    brush.rectangle(-0.54, 0.11, 0.54, 0.36, paint.base, 0.1)
    brush.rectangle(-0.53, 0.11, 0.53, 0.19, paint.dark, 0.04)
    brush.ellipse(0.49, 0.26, 0.045, 0.05, (255, 242, 176))
    brush.rectangle(-0.54, 0.22, -0.49, 0.3, paint.part((236, 84, 74)))
    for u in (-0.3, 0.3):
        brush.circle(u, 0.13, 0.135, paint.part(INK))
        brush.circle(u, 0.13, 0.065, paint.part((210, 214, 224)))
    if paint.time == "night":
        brush.glow(0.62, 0.24, 0.22, 0.14, (255, 244, 180), 0.75)


def draw_boat(brush: Brush, paint: Paint) -> None:
    brush.rectangle(-0.025, 0.2, 0.02, 0.98, paint.part((124, 84, 66)))
    sail = CREAM if paint.name != "white" else (255, 255, 255)
    brush.polygon([(0.05, 0.33), (0.05, 0.96), (0.48, 0.33)], paint.part(sail))
    brush.polygon([(0.05, 0.42), (0.05, 0.68), (0.241, 0.68), (0.419, 0.42)], paint.base)
    brush.polygon([(-0.06, 0.33), (-0.06, 0.86), (-0.38, 0.33)], paint.light)
    brush.polygon([(-0.025, 0.98), (-0.025, 1.08), (-0.2, 1.03)], paint.base)
    brush.polygon([(-0.53, 0.29), (0.56, 0.29), (0.4, 0), (-0.38, 0)], paint.base)
    brush.polygon([(-0.44, 0.11), (0.46, 0.11), (0.4, 0), (-0.38, 0)], paint.dark)


def draw_balloon(brush: Brush, paint: Paint) -> None:
    rope = paint.part((112, 82, 68))
    for u in (-1, 1):
        brush.line([(u * 0.2, 0.4), (u * 0.09, 0.17)], 0.02, rope)
    brush.polygon([(-0.32, 0.47), (0.32, 0.47), (0.1, 0.25), (-0.1, 0.25)], paint.base)
    brush.polygon([(0.12, 0.47), (0.32, 0.47), (0.1, 0.25), (0.05, 0.25)], paint.dark)
    brush.circle(0, 0.63, 0.38, paint.dark)
    brush.sector(0, 0.63, 0.38, 0.38, (90, 270), paint.base)
    brush.ellipse(0, 0.63, 0.25, 0.38, paint.base)
    brush.polygon([(-0.2, 0.47), (0.2, 0.47), (0.06, 0.25), (-0.06, 0.25)], paint.base)
    brush.ellipse(0, 0.63, 0.1, 0.38, paint.light)
    brush.polygon([(-0.09, 0.47), (0.09, 0.47), (0.03, 0.25), (-0.03, 0.25)], paint.light)
    brush.rectangle(-0.11, 0.0, 0.11, 0.17, paint.part((170, 114, 68)), 0.03)
    brush.rectangle(-0.12, 0.13, 0.12, 0.18, paint.part((128, 82, 54)), 0.02)
    if paint.time == "night":
        brush.glow(0, 0.3, 0.22, 0.16, (255, 222, 130), 0.7)


def draw_rocket(brush: Brush, paint: Paint) -> None:
    brush.glow(0, 0.06, 0.36, 0.32, (255, 214, 130), 0.75)
    brush.polygon([(-0.14, 0.2), (0.14, 0.2), (0, -0.12)], (255, 156, 52))
    brush.polygon([(-0.08, 0.2), (0.08, 0.2), (0, 0.0)], (255, 236, 140))
    for side in (-1, 1):
        brush.polygon([(side * 0.18, 0.5), (side * 0.4, 0.1), (side * 0.14, 0.22)], paint.dark)
    body = [(-0.17, 0.18), (0.17, 0.18), (0.24, 0.48), (0.19, 0.74), (0, 1.02), (-0.19, 0.74), (-0.24, 0.48)]
    brush.polygon(body, paint.base)
    brush.polygon([(0.1, 0.18), (0.17, 0.18), (0.24, 0.48), (0.19, 0.74), (0, 1.02), (0.15, 0.56)], paint.dark)
    nose = (150, 160, 194) if paint.name == "white" else (240, 240, 247)
    brush.polygon([(-0.136, 0.82), (0, 1.02), (0.136, 0.82)], paint.part(nose))
    brush.circle(-0.01, 0.57, 0.12, paint.part((240, 243, 248)))
    brush.circle(-0.01, 0.57, 0.08, paint.lamp((110, 184, 232)))


def draw_flower(brush: Brush, paint: Paint) -> None:
    leaf = paint.part((56, 128, 66))
    brush.rectangle(-0.035, 0, 0.035, 0.5, leaf)
    brush.ellipse(0.16, 0.13, 0.15, 0.07, leaf)
    brush.ellipse(-0.16, 0.18, 0.15, 0.07, paint.part((78, 156, 78)))
    petals = [math.radians(90 + 72 * number) for number in range(5)]
    for angle in petals:
        brush.circle(0.225 * math.cos(angle) + 0.015, 0.65 + 0.225 * math.sin(angle) - 0.015, 0.17, paint.dark)
    for angle in petals:
        brush.circle(0.225 * math.cos(angle), 0.65 + 0.225 * math.sin(angle), 0.155, paint.base)
    for angle in petals:
        brush.circle(0.16 * math.cos(angle), 0.65 + 0.16 * math.sin(angle), 0.07, paint.light)
    heart = (150, 92, 54) if paint.name in ("yellow", "orange") else (254, 208, 70)
    brush.circle(0, 0.65, 0.125, paint.part(heart))


def draw_mushroom(brush: Brush, paint: Paint) -> None:
    brush.rectangle(-0.17, 0, 0.17, 0.5, paint.part((247, 236, 214)), 0.08)
    brush.rectangle(0.06, 0.01, 0.17, 0.48, paint.part((224, 207, 188)), 0.05)
    brush.ellipse(0, 0.42, 0.46, 0.08, paint.part((216, 194, 176)))
    brush.sector(0, 0.42, 0.5, 0.52, (0, 180), paint.dark)
    brush.sector(-0.05, 0.42, 0.45, 0.49, (0, 180), paint.base)
    dot = (198, 204, 226) if paint.name == "white" else (255, 252, 244)
    for u, v, radius in ((-0.26, 0.57, 0.08), (0.02, 0.72, 0.1), (0.28, 0.55, 0.075)):
        brush.ellipse(u, v, radius, radius * 0.9, paint.part(dot))


def draw_cat(brush: Brush, paint: Paint) -> None:
    brush.line([(0.22, 0.08), (0.42, 0.12), (0.46, 0.3), (0.4, 0.42)], 0.1, paint.dark)
    brush.circle(0.4, 0.42, 0.05, paint.dark)
    brush.circle(0, 0.28, 0.3, paint.base)
    brush.rectangle(-0.3, 0, 0.3, 0.26, paint.base, 0.1)
    brush.ellipse(0, 0.2, 0.15, 0.18, paint.light)
    inner_ear = paint.part((226, 96, 146) if paint.name == "pink" else (250, 172, 184))
    for side in (-1, 1):
        brush.ellipse(side * 0.13, 0.04, 0.1, 0.06, paint.light)
        brush.polygon([(side * 0.31, 0.62), (side * 0.29, 1.0), (side * 0.04, 0.85)], paint.base)
        brush.polygon([(side * 0.25, 0.76), (side * 0.24, 0.91), (side * 0.12, 0.83)], inner_ear)
    brush.ellipse(0, 0.64, 0.34, 0.27, paint.base)
    brush.ellipse(0, 0.55, 0.14, 0.09, paint.light)
    for side in (-1, 1):
        brush.ellipse(side * 0.14, 0.68, 0.06, 0.075, paint.part(INK))
        brush.circle(side * 0.14 - 0.02, 0.71, 0.024, (255, 255, 255))
    brush.polygon([(-0.045, 0.605), (0.045, 0.605), (0, 0.55)], paint.part((234, 110, 132)))


def draw_fish(brush: Brush, paint: Paint) -> None:
    brush.polygon([(-0.26, 0.34), (-0.54, 0.6), (-0.47, 0.34), (-0.54, 0.08)], paint.dark)
    brush.polygon([(-0.14, 0.52), (0.0, 0.76), (0.24, 0.54)], paint.dark)
    brush.polygon([(-0.06, 0.12), (-0.04, -0.03), (0.16, 0.12)], paint.dark)
    brush.ellipse(0.06, 0.34, 0.42, 0.29, paint.dark)
    brush.ellipse(0.06, 0.365, 0.415, 0.255, paint.base)
    brush.ellipse(0.12, 0.25, 0.24, 0.11, paint.light)
    brush.line([(-0.02, 0.5), (-0.07, 0.37), (-0.02, 0.24)], 0.03, paint.dark)
    brush.circle(0.28, 0.43, 0.08, (255, 255, 255))
    brush.circle(0.3, 0.43, 0.046, (36, 34, 50))


def draw_castle(brush: Brush, paint: Paint) -> None:
    roof = paint.part((238, 242, 252) if paint.ground == "snow" and paint.name != "white" else SLATE)
    window = paint.lamp((74, 70, 98))
    brush.rectangle(-0.16, 0.2, 0.16, 0.74, paint.dark)
    brush.polygon([(-0.21, 0.73), (0.21, 0.73), (0, 1.04)], roof)
    brush.rectangle(-0.05, 0.52, 0.05, 0.66, window, 0.03)
    for left in (-0.23, -0.06, 0.11):
        brush.rectangle(left, 0.4, left + 0.12, 0.49, paint.base)
    brush.rectangle(-0.4, 0, 0.4, 0.43, paint.base)
    for side in (-1, 1):
        middle = side * 0.38
        brush.rectangle(middle - 0.14, 0, middle + 0.14, 0.6, paint.base)
        brush.rectangle(middle + 0.05, 0, middle + 0.14, 0.6, paint.dark)
        brush.polygon([(middle - 0.19, 0.58), (middle + 0.19, 0.58), (middle, 0.88)], roof)
        brush.rectangle(middle - 0.05, 0.34, middle + 0.05, 0.48, window, 0.03)
    gate = paint.part((96, 64, 60))
    brush.rectangle(-0.12, 0, 0.12, 0.19, gate)
    brush.sector(0, 0.18, 0.12, 0.12, (0, 180), gate)
    if paint.moment is not None:
        wave = 0.04 * math.sin(4 * math.pi * paint.moment)
        brush.line([(0, 1.0), (0, 1.24)], 0.025, paint.part(SLATE))
        brush.polygon([(0, 1.24), (0.13, 1.21 + wave), (0.24, 1.2 - wave), (0.13, 1.12 + wave), (0, 1.12)], paint.base)


def draw_robot(brush: Brush, paint: Paint) -> None:
    for side in (-1, 1):
        brush.rectangle(side * 0.17 - 0.1, 0, side * 0.17 + 0.1, 0.2, paint.dark, 0.03)
        brush.rectangle(side * 0.4 - 0.075, 0.2, side * 0.4 + 0.075, 0.5, paint.dark, 0.07)
    brush.rectangle(-0.32, 0.12, 0.32, 0.54, paint.base, 0.06)
    brush.rectangle(-0.17, 0.22, 0.17, 0.42, paint.part((240, 241, 248)), 0.03)
    brush.circle(-0.075, 0.32, 0.05, paint.part((234, 84, 74)))
    brush.circle(0.075, 0.32, 0.05, paint.part((84, 192, 124)))
    metal = paint.part((152, 158, 176))
    brush.rectangle(-0.1, 0.52, 0.1, 0.6, metal)
    brush.rectangle(-0.025, 0.9, 0.025, 1.02, metal)
    brush.circle(0, 1.02, 0.055, paint.part((252, 204, 80)))
    brush.rectangle(-0.36, 0.56, 0.36, 0.93, paint.base, 0.08)
    brush.rectangle(-0.26, 0.63, 0.26, 0.86, paint.part((48, 50, 74)), 0.08)
    for u in (-0.12, 0.12):
        brush.circle(u, 0.745, 0.075, paint.lamp((150, 242, 252)))


def draw_snowman(brush: Brush, paint: Paint) -> None:
    for side in (-1, 1):
        brush.line([(side * 0.2, 0.5), (side * 0.38, 0.6), (side * 0.46, 0.72)], 0.04, paint.part((112, 78, 60)))
        brush.line([(side * 0.38, 0.6), (side * 0.5, 0.6)], 0.03, paint.part((112, 78, 60)))
    for v, radius in ((0.24, 0.3), (0.56, 0.22)):
        brush.circle(0.02, v - 0.01, radius, paint.dark)
        brush.circle(-0.015, v + 0.01, radius * 0.93, paint.base)
    brush.circle(0.01, 0.8, 0.17, paint.dark)
    brush.circle(-0.01, 0.81, 0.155, paint.base)
    for v in (0.3, 0.44, 0.57):
        brush.circle(0, v, 0.035, paint.part(INK))
    for u in (-0.07, 0.07):
        brush.circle(u, 0.85, 0.03, paint.part(INK))
    brush.polygon([(-0.02, 0.82), (-0.02, 0.76), (0.2, 0.77)], paint.part((246, 132, 40)))
    hat = paint.part((60, 52, 84))
    brush.rectangle(-0.2, 0.92, 0.2, 0.97, hat, 0.02)
    brush.rectangle(-0.12, 0.95, 0.12, 1.14, hat, 0.02)
    brush.rectangle(-0.12, 0.97, 0.12, 1.02, paint.part((214, 70, 74)))


DRAWERS = {
    "house": draw_house,
    "tree": draw_tree,
    "car": draw_car,
    "boat": draw_boat,
    "balloon": draw_balloon,
    "rocket": draw_rocket,
    "flower": draw_flower,
    "mushroom": draw_mushroom,
    "cat": draw_cat,
    "fish": draw_fish,
    "castle": draw_castle,
    "robot": draw_robot,
}
UNKNOWN = {"snowman": draw_snowman}  # what the small model was not trained on, and can be taught with `make tune`


def draw_object(
    canvas: Canvas, name: str, paint: Paint, x: float, base: float, scale: float, side: int, lean: float = 0.0
) -> None:
    """Draw one object with a thin outline; (x, base) is the middle of its foot, scale about its height."""
    for rim in (paint.rim, None):
        (DRAWERS | UNKNOWN)[name](Brush(canvas, x, base, scale, side, rim, lean), paint)
