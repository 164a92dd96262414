"""`python -m tools.museum`: docs/mistakes.md, what pictures look like that were drawn with the known mistakes."""

import contextlib
import dataclasses
import io
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy
import torch
from numpy import ndarray
from PIL import Image, ImageDraw
from tqdm import tqdm

from course.core.assemble import Blocks, for_generating
from course.core.kernels import fused_functions
from course.core.limits import Stuck, limited
from course.core.stages import PIPELINE, ROOT, Stage, short_path
from course.core.writing import whole_file
from course.draw import checkpoint as ckpt
from course.draw.generate import blocks_for, draw_one, read_inputs
from course.draw.settings import Settings
from course.feedback.mistakes import Mistake, full_name, mistakes_of
from course.scenes.scenes import Scene, Thing, draw_scene
from course.studio.judge import Judge, load_judge

PAGE = ROOT / "docs" / "mistakes.md"
FOLDER = ROOT / "docs" / "mistakes"
INIT, MASK = FOLDER / "init.png", FOLDER / "mask.png"
SIZE = 128  # pixels
LIMIT = 30.0  # seconds of computing for one mistake
RIGHT = Settings(prompt="a red house in a green meadow by day", seed=2, steps=8, blocks="solutions", device="cpu")


@dataclass(frozen=True)
class Way:
    """A way of drawing, in which some mistakes show that do not show in another one.

    Attributes:
        name: for the page.
        settings: what differs from RIGHT.
        stages: whose mistakes are tried this way, if no way before showed a difference.
    """

    name: str
    settings: Mapping[str, Any]
    stages: tuple[int, ...]


WAYS = (
    Way("from text", {}, tuple(range(1, 11))),
    Way("capitals, digits and accents in the prompt", {"prompt": "A naïve RED house, 4k, by day"}, (6,)),
    Way("SAMPLER=ddpm", {"sampler": "ddpm"}, (8, 9)),
    Way("SAMPLER=euler", {"sampler": "euler"}, (8, 9)),
    Way("SAMPLER=dpm++2m", {"sampler": "dpm++2m"}, (8, 9)),
    Way("from a picture", {"init": short_path(INIT), "strength": 0.6}, (4, 5, 8, 9, 10)),
    Way("inside a mask", {"init": short_path(INIT), "mask": short_path(MASK)}, (5, 9)),
)


@dataclass
class Easel:
    """What draws: the checkpoint, opened once."""

    opened: ckpt.Checkpoint = field(default_factory=ckpt.open_checkpoint)
    _unfused: dict[tuple[int, str], ndarray] = field(default_factory=dict)

    def picture(self, blocks: Blocks, model, way: Way) -> ndarray:
        """The picture that `make generate` draws this way, (height, width, 3), uint8."""
        settings = dataclasses.replace(RIGHT, **way.settings, width=SIZE, height=SIZE)
        settings.scale = self.opened.config.guidance_scale
        images, mask = read_inputs(blocks, settings, SIZE, SIZE)
        with contextlib.redirect_stderr(io.StringIO()):  # the bar of every picture
            picture, _ = draw_one(blocks, model, settings, torch.device("cpu"), images, mask, film=False)
        return numpy.asarray(picture)

    def build(self, blocks: Blocks):
        return ckpt.build(blocks, self.opened)

    @cached_property
    def right(self) -> dict[str, ndarray]:
        """The name of each way -> the right picture."""
        blocks = for_generating("solutions", fused=True).load()
        model = self.build(blocks)
        return {way.name: self.picture(blocks, model, way) for way in WAYS}

    def right_beside(self, stage: Stage, way: Way) -> ndarray:
        """What a mistake of this stage is to be compared with: the right picture, with the formulas of the stage.

        A stage with a mistake has formulas, and torch's kernels in their place round in another way.
        """
        if not fused_functions(stage.number):
            return self.right[way.name]
        key = stage.number, way.name
        if key not in self._unfused:
            text = stage.solution.read_text(encoding="utf-8")
            blocks = for_generating("solutions", fused=True, overrides={stage.number: text}).load()
            self._unfused[key] = self.picture(blocks, self.build(blocks), way)
        return self._unfused[key]


@dataclass
class Exhibit:
    """A mistake, and the first way in which its picture is another one; None if there is none.

    Attributes:
        picture: drawn with it, (height, width, 3), uint8.
        error: why nothing is drawn; "" if something is.
    """

    stage: Stage
    mistake: Mistake
    way: Way | None = None
    picture: ndarray | None = None
    error: str = ""


def drawn_with(easel: Easel, stage: Stage, mistake: Mistake) -> Exhibit:
    found = Exhibit(stage, mistake)
    try:
        with limited(LIMIT):
            blocks = blocks_for(dataclasses.replace(RIGHT, mistake=full_name(stage, mistake))).load()
            model = easel.build(blocks)
            for way in WAYS:
                if stage.number in way.stages:
                    picture = easel.picture(blocks, model, way)
                    if (picture != easel.right_beside(stage, way)).any():
                        found.way, found.picture = way, picture
                        break
    except (Exception, Stuck) as error:
        found.error = f"{type(error).__name__}: {error}"
    return found


def draw_inputs() -> None:
    """The picture and the mask that the ways from a picture begin with."""
    scene = Scene((Thing("house", "blue"),), "meadow", "day", "big", "centre")
    mask = Image.new("L", (SIZE, SIZE), 0)
    ImageDraw.Draw(mask).rectangle((SIZE // 2, 0, SIZE, SIZE), fill=255)
    for path, picture in ((INIT, draw_scene(scene, random.Random(3), SIZE)), (MASK, mask)):
        with whole_file(path) as temporary:
            picture.save(temporary, "PNG", optimize=True)


def draw_all(easel: Easel, stages: Sequence[Stage] = PIPELINE) -> Iterator[Exhibit]:
    entries = [(stage, mistake) for stage in stages for mistake in mistakes_of(stage.number)]
    for stage, mistake in tqdm(entries, desc="mistakes", smoothing=0):
        yield drawn_with(easel, stage, mistake)


# --- sorting ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Room:
    """What pictures look like, and how it is measured."""

    name: str
    title: str
    rule: str


ROOMS = (
    Room("noise", "Noise", "eight pixels further there is another picture: grey levels correlate by less than 0.35"),
    Room("grey", "Grey, black, white or one colour", "grey levels deviate by less than 0.05 (of 0 to 1)"),
    Room("tiles", "Tiles, grids and stripes", "it repeats itself after 4, 8 or 16 pixels more than after half as many"),
    Room("blurred", "Blurred or washed out", "like the right one, with under 0.6 of its edges or 0.8 of its contrast"),
    Room("colours", "Wrong colours, too much contrast", "the right shapes (correlation above 0.9; with contrast, 0.8)"),
    Room("damaged", "Damaged", "a small judge still sees what was asked for, or there are 1.4 times as many edges"),
    Room("another", "Something else", "a small judge sees another thing, colour, ground or time of day"),
    Room("details", "Right, but another one in detail", "right shapes (correlation above 0.9) and colours (to 0.05)"),
    Room("hardly", "Right: hardly a difference", "less than 0.008 apart, on average (of 0 to 1)"),
)


@dataclass(frozen=True)
class Measures:
    """What can be measured of a picture beside the right one; all levels are from 0 to 1.

    Attributes:
        apart: the mean difference.
        colours: that of the colours alone, without grey levels.
        alike: the correlation of the grey levels, of both pictures.
        deviation: of the grey levels; contrast: that, divided by the right picture's.
        edges: the mean square of differences between neighbours, divided by the right picture's.
        repeats: the correlation of the grey levels with those so many pixels further on.
    """

    apart: float
    colours: float
    alike: float
    deviation: float
    contrast: float
    edges: float
    repeats: Mapping[int, float]


def measure(picture: ndarray, right: ndarray) -> Measures:
    a, b = picture.astype(float) / 255, right.astype(float) / 255
    grey, other = a.mean(-1), b.mean(-1)

    def correlation(x: ndarray, y: ndarray) -> float:
        flat = x.std() < 1e-6 or y.std() < 1e-6
        return 0.0 if flat else float(numpy.corrcoef(x.ravel(), y.ravel())[0, 1])

    def edges(x: ndarray) -> float:
        return float(sum(numpy.square(numpy.diff(x, axis=axis)).mean() for axis in (0, 1)))

    return Measures(
        apart=float(abs(a - b).mean()),
        colours=float(abs((a - grey[..., None]) - (b - other[..., None])).mean()),
        alike=correlation(grey, other),
        deviation=float(grey.std()),
        contrast=float(grey.std() / other.std()),
        edges=edges(grey) / edges(other),
        repeats={
            step: max(correlation(grey[:, step:], grey[:, :-step]), correlation(grey[step:], grey[:-step]))
            for step in (2, 4, 8, 16)
        },
    )


def room_of(measured: Measures, as_asked: bool) -> str:
    """The name of the room in which a picture hangs. as_asked: whether the judge reads from it what was asked for."""
    repeats = measured.repeats
    if measured.apart < 0.008:
        return "hardly"
    if measured.deviation < 0.05:
        return "grey"
    if any(repeats[step] > max(repeats[step // 2] + 0.1, 0.4) for step in (4, 8, 16)):
        return "tiles"
    if repeats[8] < 0.35:
        return "noise"
    if measured.alike > 0.4 and (measured.edges < 0.6 or measured.contrast < 0.8):
        return "blurred"
    same = measured.alike > 0.9
    if (same and measured.colours > 0.05) or (measured.alike > 0.8 and measured.contrast > 1.25):
        return "colours"
    if same:
        return "details"
    return "damaged" if as_asked or measured.edges > 1.4 else "another"


# --- the page --------------------------------------------------------------------------------------------------------

CELL, GAP, COLUMNS = 112, 4, 8  # pixels of a picture on a sheet, between two, and how many stand side by side
QUALITY = 80  # of WebP
COMMAND = "python -m tools.museum"

INTRODUCTION = """\
# The museum of mistakes

*My pictures look like this: what did I do?* Each picture here was drawn with one of the mistakes that the course knows,
made in one stage of the reference; all else is right. Find a picture like yours, and read at its number when one gets
it.

The first picture of each row, in a green frame, is the right one, drawn in the same way. A number stands for several
mistakes if their pictures are the same. Pictures are sorted by what can be measured; each room says how. The model is
the small one that comes with the course. All pictures begin with the same noise:

    make generate PROMPT="{prompt}" SEED={seed} STEPS={steps} MISTAKE=stage08/betas-not-squared

Mistakes that change nothing there are tried in other ways as well:

{ways}

{all} of {known} mistakes were tried: {drawn} change a picture, {same} change none of these, {broken} end in an error.
`{command}` makes this page afresh.
"""


@dataclass
class Hanging:
    """A picture on the wall, and the mistakes that all draw it."""

    exhibits: list[Exhibit]
    number: int = 0

    @property
    def way(self) -> Way:
        assert self.exhibits[0].way
        return self.exhibits[0].way

    @property
    def picture(self) -> ndarray:
        assert self.exhibits[0].picture is not None
        return self.exhibits[0].picture


def arrange(easel: Easel, exhibits: Sequence[Exhibit]) -> dict[str, list[Hanging]]:
    """The name of each room -> what hangs there, way by way, the strongest difference first."""
    judge = load_judge(ckpt.TINY.with_name("judge.safetensors")).eval()
    right = {name: reading(judge, picture) for name, picture in easel.right.items()}
    found: dict[tuple[str, bytes], Hanging] = {}
    for exhibit in exhibits:
        if exhibit.way is not None and exhibit.picture is not None:
            key = exhibit.way.name, exhibit.picture.tobytes()
            found.setdefault(key, Hanging([])).exhibits.append(exhibit)
    rooms: dict[str, list[Hanging]] = {room.name: [] for room in ROOMS}
    strength: dict[int, float] = {}
    for hanging in found.values():
        name = hanging.way.name
        measured = measure(hanging.picture, easel.right[name])
        strength[id(hanging)] = measured.apart
        rooms[room_of(measured, reading(judge, hanging.picture) == right[name])].append(hanging)
    order = [way.name for way in WAYS]
    for hangings in rooms.values():
        hangings.sort(key=lambda hanging: (order.index(hanging.way.name), -strength[id(hanging)]))
    for number, hanging in enumerate((hanging for room in ROOMS for hanging in rooms[room.name]), start=1):
        hanging.number = number
    return rooms


def reading(judge: Judge, picture: ndarray) -> dict[str, int]:
    """What the judge sees in a picture."""
    images = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 127.5 - 1.0
    return {name: int(index) for name, index in judge.read(images).items()}


def sheet(easel: Easel, hangings: Sequence[Hanging]) -> Image.Image:
    """All pictures of a room, in rows that begin with the right one; another way begins another row."""
    rows: list[list[Hanging]] = []
    for hanging in hangings:
        if not rows or len(rows[-1]) == COLUMNS - 1 or rows[-1][0].way is not hanging.way:
            rows.append([])
        rows[-1].append(hanging)
    step, label = CELL + GAP, 15
    canvas = Image.new("RGB", (COLUMNS * step - GAP, len(rows) * (step + label) - GAP), "white")
    pen = ImageDraw.Draw(canvas)
    for i, row in enumerate(rows):
        top = i * (step + label) + label
        pen.text((1, top - label), f"right, {row[0].way.name}", fill="black", font_size=12)
        canvas.paste(thumbnail(easel.right[row[0].way.name]), (0, top))
        pen.rectangle((0, top, CELL - 1, top + CELL - 1), outline=(0, 150, 60), width=3)
        for j, hanging in enumerate(row, start=1):
            canvas.paste(thumbnail(hanging.picture), (j * step, top))
            end = pen.textlength(str(hanging.number), font_size=13)
            pen.rectangle((j * step, top, j * step + end + 5, top + 16), fill="white")
            pen.text((j * step + 2, top), str(hanging.number), fill="black", font_size=13)
    return canvas


def thumbnail(picture: ndarray) -> Image.Image:
    return Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.LANCZOS)


def variables(settings: Mapping[str, Any]) -> str:
    """Settings as variables of make."""
    quoted = {name.upper(): f'"{value}"' if " " in str(value) else str(value) for name, value in settings.items()}
    return " ".join(f"{name}={value}" for name, value in quoted.items())


def entry(exhibit: Exhibit) -> str:
    """Name and hint, in Markdown."""
    hint = re.sub(r"[\\*_<>|~\[\]]", r"\\\g<0>", exhibit.mistake.hint)
    return f"`{full_name(exhibit.stage, exhibit.mistake)}` {hint}"


def page(exhibits: Sequence[Exhibit], rooms: Mapping[str, Sequence[Hanging]]) -> str:
    """The text of docs/mistakes.md."""
    drawn = [exhibit for exhibit in exhibits if exhibit.way]
    broken = [exhibit for exhibit in exhibits if exhibit.error]
    same = [exhibit for exhibit in exhibits if not exhibit.way and not exhibit.error]
    known = sum(len(mistakes_of(stage.number)) for stage in PIPELINE)
    counts = {"known": known, "drawn": len(drawn), "all": len(exhibits), "same": len(same), "broken": len(broken)}
    ways = "\n".join(f"- {way.name}: `{variables(way.settings)}`" for way in WAYS if way.settings)
    settings = {"prompt": RIGHT.prompt, "seed": RIGHT.seed, "steps": RIGHT.steps, "command": COMMAND}
    lines = [INTRODUCTION.format(ways=ways, **counts, **settings)]
    shown = [room for room in ROOMS if rooms[room.name]]
    for room in shown:
        lines.append(f"- [{room.title}](#{anchor(room.title)}): {len(rooms[room.name])}")
    lines += [f"- [{SAME}](#{anchor(SAME)}): {len(same)}", f"- [{BROKEN}](#{anchor(BROKEN)}): {len(broken)}"]
    for room in shown:
        lines += ["", f"## {room.title}", "", f"Measured: {room.rule}.", ""]
        lines += [f"![{room.title}](mistakes/{room.name}.webp)", ""]
        for hanging in rooms[room.name]:
            lines += [f"{hanging.number}. {'<br>or '.join(map(entry, hanging.exhibits))}"]
    lines += [
        "",
        f"## {SAME}",
        "",
        "Tests find these, or other settings: another size, several pictures ...",
        "",
    ]
    lines += [f"- {entry(exhibit)}" for exhibit in same]
    lines += ["", f"## {BROKEN}", ""]
    lines += [f"- {code(exhibit.error)} {entry(exhibit)}" for exhibit in broken]
    return "\n".join(lines) + "\n"


SAME = "No difference at all"
BROKEN = "No picture, but an error"


def anchor(title: str) -> str:
    """GitHub's name for a heading."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")


def code(text: str) -> str:
    """The first line of an error, as code."""
    first = text.splitlines()[0].replace("`", "'").replace(f"{short_path(ckpt.TINY)}: ", "")
    return f"`{first if len(first) <= 110 else first[:106] + ' ...'}`"


def main() -> None:
    draw_inputs()
    easel = Easel()
    exhibits = list(draw_all(easel))
    rooms = arrange(easel, exhibits)
    for room in ROOMS:
        path = FOLDER / f"{room.name}.webp"
        if not rooms[room.name]:
            path.unlink(missing_ok=True)
            continue
        with whole_file(path) as temporary:
            sheet(easel, rooms[room.name]).save(temporary, "WEBP", quality=QUALITY, method=6)
        print(f"{short_path(path)}  {len(rooms[room.name])} pictures  {path.stat().st_size // 1000} kB")
    with whole_file(PAGE) as temporary:
        temporary.write_text(page(exhibits, rooms), encoding="utf-8")
    print(short_path(PAGE))


if __name__ == "__main__":
    main()
