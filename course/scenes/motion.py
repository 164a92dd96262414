"""How the things of a scene move: each kind in its own way, as a function of a moment between 0 and 1.

A clip is one scene drawn at several moments. What a thing does at a moment depends on nothing but its kind and its
ground, so the same motion can be drawn with any number of frames, and the way of a drawn thing can be compared with it.
"""

import math
from dataclasses import dataclass

WITH_FRONT = ("car", "boat", "fish")  # things that go to the side which they face
ON_ISLAND = 0.2  # an island is small: what drives or walks there takes this share of its usual way
CLOUD_DRIFT = 0.10  # of the picture's width, over a clip
SNOW_FALL = 0.45  # of the picture's height, over a clip


@dataclass(frozen=True)
class Pose:
    """Where a thing is, against the place at which it stands in a still picture.

    Attributes:
        ahead: in the direction that it faces, as a share of the picture's width.
        up: as a share of the picture's height.
        lean: how far its top has moved ahead, as a share of its own height.
    """

    ahead: float = 0.0
    up: float = 0.0
    lean: float = 0.0


def pose(name: str, ground: str, moment: float) -> Pose:
    """What a thing of this kind does at a moment: drive, rise, leap, hop, dance, sway or stand."""
    middle, wave = moment - 0.5, math.sin(2 * math.pi * moment)
    share = ON_ISLAND if ground == "sea" else 1.0
    if name == "car":
        return Pose(ahead=0.3 * middle * share)
    if name == "boat":
        rock = math.sin(4 * math.pi * moment)
        return Pose(ahead=0.24 * middle, up=0.012 * rock, lean=0.07 * rock)
    if name == "balloon":
        return Pose(ahead=0.05 * middle, up=0.26 * moment - 0.15)
    if name == "rocket":
        return Pose(up=0.3 * moment - 0.18)
    if name == "fish":
        return Pose(ahead=0.26 * middle, up=0.2 * math.sin(math.pi * moment) - 0.08)
    if name == "cat":
        return Pose(up=0.12 * abs(wave))
    if name == "robot":
        return Pose(ahead=0.05 * wave, up=0.05 * abs(math.sin(4 * math.pi * moment)), lean=0.08 * wave)
    return Pose(lean={"tree": 0.16, "flower": 0.16, "mushroom": 0.14}.get(name, 0.0) * wave)


def flicker(moment: float) -> float:
    """How bright a lamp shines, from 0.5 to 1."""
    return 0.75 + 0.25 * math.cos(6 * math.pi * moment)
