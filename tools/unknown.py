"""`python -m tools.unknown FOLDER`: pictures of a thing that the small model does not know, for `make tune`.

Beside each picture stands a text file with its caption.
"""

import random
import sys
from pathlib import Path

from course.core.stages import short_path
from course.scenes.captions import caption
from course.scenes.objects import UNKNOWN
from course.scenes.scenes import COLOURS, GROUNDS, TIMES, Scene, Thing, draw_scene

COUNT = 30


def main(folder: Path, name: str = next(iter(UNKNOWN)), count: int = COUNT, size: int = 128) -> None:
    """Draws so many pictures: colours, grounds and times of day in turn, sizes and places at random."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        rng = random.Random(f"{name} {i}")
        colour, ground, time = COLOURS[i % len(COLOURS)], GROUNDS[i % len(GROUNDS)], TIMES[i % len(TIMES)]
        size_of_thing = "big" if i % 3 == 0 else "medium"
        place = rng.choice(("left", "centre", "centre", "right")) if size_of_thing == "medium" else "centre"
        scene = Scene((Thing(name, colour),), ground, time, size_of_thing, place)
        draw_scene(scene, rng, size).save(folder / f"{name}-{i:02d}.png")
        (folder / f"{name}-{i:02d}.txt").write_text(caption(scene, rng) + "\n", encoding="utf-8")
    print(f"{count} pictures with captions in {short_path(folder)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
