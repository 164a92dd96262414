"""`make evaluate PART=motion`: measures films: does every frame show what it should, and does the thing move?

- Attributes: prompts with one thing, half of them combinations that no training film shows. A judge that was trained on
  the illustrator's films reads every frame; a film is right if all four attributes are right in all of its frames.
- Motion: another network that has seen the illustrator's films only (things.py) marks the thing in every frame. The way
  of its centre is held against that of the illustrator's film of the same scene.
- Background: how much the pixels around the thing change from frame to frame, against the illustrator's films.

The illustrator's films, sent through the VAE, are measured in the same way: better than that, nothing can be drawn. So
are these films with their frames in reverse, and with the first frame alone, which the measure of motion has to refuse.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from course.core.assemble import for_generating
from course.core.stages import short_path
from course.draw.checkpoint import build, choose_device, open_checkpoint
from course.draw.motion import NEEDED_BY_FRAMES, motion_file, put_motion
from course.draw.pictures import write_clip
from course.draw.speed import speed_up
from course.scenes.captions import plain_prompt
from course.scenes.motion import WITH_FRONT
from course.scenes.scenes import Scene, draw_clip
from course.studio.judge import Judge, load_film_judge, sample_single, truth
from course.studio.things import ThingFinder, along, background_change, load_thing_finder, side_of, way
from course.training.evaluate import SEED, EvaluateOptions, reconstruct, to_tensor
from course.training.motion import FRAMES

STANDING = ("house", "castle")
ONE_WAY = (*WITH_FRONT, "balloon", "rocket")  # in reverse, these move wrongly; what sways or hops does not
LENGTH = 0.2  # by which share a way may be longer or shorter than the illustrator's
BESIDE = 0.5  # what else it may do, as a share of the way
WOBBLE = 0.015  # of the picture's width: what stands may seem to move so much (root mean square)
WANTED = {"attributes": 0.95, "motion": 0.90, "background": 2.0}
SHEET_COLUMNS, SHEET_ROWS = 6, 3


@dataclass
class Seen:
    """What is measured of a film.

    masks: (frames, 32, 32), how much of each place is the thing's.
    path: (frames, 2), the thing's centre, from 0 to 1: across, and from the top down.
    facing: above zero if the thing faces right.
    """

    masks: Tensor
    path: Tensor
    facing: float


def see(finder: ThingFinder, film: Tensor) -> Seen:
    """(frames, 3, height, width) in [-1, 1] -> what the finder sees."""
    masks, path, facing = finder.find(film)
    return Seen(masks, path, float(facing.mean()))


def moves_right(scene: Scene, seen: Seen, wanted: Tensor, side: int) -> bool:
    """Whether the thing moves as its kind does.

    Args:
        scene: with one thing.
        seen: what a film shows.
        wanted: the way in the illustrator's film of this scene (things.way).
        side: to which side the thing faces there (things.side_of).

    What faces the other way has to go the other way. What has no front may have either side in front.
    """
    if scene.things[0].object in STANDING:
        return float((seen.path - seen.path.mean(dim=0)).square().sum(dim=1).mean().sqrt()) <= WOBBLE
    mirrored = wanted * torch.tensor([-1.0, 1.0])
    ways = [wanted, mirrored] if side == 0 else [wanted if (seen.facing > 0) == (side > 0) else mirrored]
    return any(abs(share - 1.0) <= LENGTH and rest <= BESIDE for share, rest in (along(seen.path, w) for w in ways))


def keeps_all(judge: Judge, film: Tensor, scene: Scene) -> bool:
    """Whether every frame shows the scene's thing, colour, ground and time of day."""
    read, wanted = judge.read(film), truth([scene])
    return all(bool((read[name] == wanted[name]).all()) for name in wanted)


def films_to_draw(count: int) -> list[Scene]:
    """Scenes with one thing, as in training films; every second one is a held-out combination."""
    rng = random.Random(f"{SEED} films")
    return [replace(sample_single(rng, i % 2 == 1), size="medium", position="centre") for i in range(count)]


def illustrated(scene: Scene, seed: int | str, frames: int, size: int) -> Tensor:
    """The illustrator's film: (frames, 3, size, size) in [-1, 1]."""
    return to_tensor([np.asarray(frame) for frame in draw_clip(scene, seed, frames, size)])


def draw_films(blocks: Any, model: Any, scenes: Sequence[Scene], size: int, frames: int, options: Any) -> list[Tensor]:
    """A film for each scene, (frames, 3, size, size) in [-1, 1] on the CPU."""
    side, device = size // model.vae.factor, model.vae.post_quant_conv.weight.device
    at_once = max(1, options.batch // frames)
    films = []
    with tqdm(total=len(scenes), desc="drawing", unit="film") as bar:
        for first in range(0, len(scenes), at_once):
            prompts = [plain_prompt(scene) for scene in scenes[first : first + at_once]]
            seeds = range(first, first + len(prompts))
            shape = (frames, model.vae.post_quant_conv.in_channels, side, side)
            noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
            sampling = blocks[9].Sampling(
                options.steps, options.scale, options.sampler, torch.Generator().manual_seed(first)
            )
            drawn = blocks[13].text_to_video(model, prompts, [""] * len(prompts), noise.to(device), sampling)
            films += drawn.clamp(-1.0, 1.0).cpu()
            bar.update(len(prompts))
    return films


def shares_by_kind(scenes: Sequence[Scene], right: Sequence[bool]) -> dict[str, list[int]]:
    """Of each kind of thing: how many films are right, and how many there are."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for scene, hit in zip(scenes, right, strict=True):
        counts[scene.things[0].object][0] += hit
        counts[scene.things[0].object][1] += 1
    return dict(sorted(counts.items()))


def share(hits: Sequence[bool]) -> float | None:
    """The share of those that are true; None of none."""
    return sum(hits) / len(hits) if hits else None


def measure_films(options: EvaluateOptions) -> dict:
    """All figures of a checkpoint's motion modules."""
    checkpoint = open_checkpoint(options.checkpoint)
    path = motion_file(options.motion, checkpoint.path)
    blocks = for_generating("solutions", fused=True, encore=NEEDED_BY_FRAMES).load()
    device, size, frames = choose_device(options.device), checkpoint.config.image_size, options.frames or FRAMES
    model = build(blocks, checkpoint, device, torch.float32, not options.raw)
    reading = replace(model)  # for the illustrator's films: with the same VAE
    put_motion(blocks, model, checkpoint.config, path, frames, device)
    speed_up(model, device, torch.float32, compiled=False)
    folder = checkpoint.path.parent
    judge, finder = load_film_judge(folder / "film_judge.safetensors"), load_thing_finder(folder / "things.safetensors")
    scenes = films_to_draw(options.prompts or 100)
    ways = [
        (way(scene, f"{SEED} way {i}", frames), side_of(scene, f"{SEED} way {i}")) for i, scene in enumerate(scenes)
    ]

    drawn = draw_films(blocks, model, scenes, size, frames, options)
    if options.sheet:
        write_clip(options.sheet, film_sheet(blocks, drawn[: SHEET_COLUMNS * SHEET_ROWS]), {})
    theirs = [illustrated(scene, f"{SEED} film {i}", frames, size) for i, scene in enumerate(scenes)]
    through = [reconstruct(reading, film) for film in tqdm(theirs, "through the VAE", unit="film")]

    seen = {name: [see(finder, film) for film in films] for name, films in (("drawn", drawn), ("VAE", through))}
    backwards = [Seen(s.masks.flip(0), s.path.flip(0), s.facing) for s in seen["VAE"]]
    still = [Seen(s.masks[:1].expand_as(s.masks), s.path[:1].expand_as(s.path), s.facing) for s in seen["VAE"]]

    def right(films: list[Seen], kinds: Sequence[str] | None = None) -> list[bool]:
        every = zip(scenes, films, ways, strict=True)
        return [moves_right(s, film, *w) for s, film, w in every if kinds is None or s.things[0].object in kinds]

    moving = {scene.things[0].object for scene in scenes} - {*STANDING}
    kept = {
        name: [keeps_all(judge, film, scene) for film, scene in zip(films, scenes)]
        for name, films in (("drawn", drawn), ("illustrator", theirs), ("VAE", through))
    }
    change = {
        name: float(np.mean([background_change(film, s.masks) for film, s in zip(films, seen[name])]))
        for name, films in (("drawn", drawn), ("VAE", through))
    }
    moves = right(seen["drawn"])
    return {
        "films": len(scenes),
        "frames": frames,
        "motion modules": short_path(path),
        "sampler": f"{options.sampler}, {options.steps} steps, guidance {options.scale:g}",
        "all four attributes in every frame": {
            "drawn": share(kept["drawn"]),
            "drawn, seen": share(kept["drawn"][0::2]),
            "drawn, held out": share(kept["drawn"][1::2]),
            "illustrator": share(kept["illustrator"]),
            "through the VAE": share(kept["VAE"]),
        },
        "moves as its kind does": {
            "drawn": share(moves),
            "drawn, seen": share(moves[0::2]),
            "drawn, held out": share(moves[1::2]),
            "through the VAE": share(right(seen["VAE"])),
            "backwards": share(right(backwards, ONE_WAY)),
            "still": share(right(still, sorted(moving))),
        },
        "right of each kind": shares_by_kind(scenes, moves),
        "background change": {"drawn": change["drawn"], "through the VAE": change["VAE"]},
    }


def film_sheet(blocks: Any, films: Sequence[Tensor]) -> list[Image.Image]:
    """Several films side by side in one: its frames."""
    rows = [films[i : i + SHEET_COLUMNS] for i in range(0, len(films), SHEET_COLUMNS)]
    rows = [row for row in rows if len(row) == len(rows[0])]
    sheet = torch.cat([torch.cat(list(row), dim=3) for row in rows], dim=2)
    return [Image.fromarray(frame) for frame in blocks[5].tensor_to_images(sheet).numpy()]


def report_films(figures: dict) -> str:
    """The figures as a table."""
    kept, moves, change = (
        figures[name] for name in ("all four attributes in every frame", "moves as its kind does", "background change")
    )

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    lines = [f"{figures['films']} films of {figures['frames']} frames, {figures['sampler']}", ""]
    lines.append(f"{'right':<36}{'drawn':>8}{'seen':>8}{'held out':>10}{'illustrator through the VAE':>29}")
    for name, row in (("all four attributes in every frame", kept), ("moves as its kind does", moves)):
        shown = [percent(row[column]) for column in ("drawn", "drawn, seen", "drawn, held out", "through the VAE")]
        lines.append(f"{name:<36}{shown[0]:>8}{shown[1]:>8}{shown[2]:>10}{shown[3]:>29}")
    lines.append(
        f"(the measure itself: in reverse, {percent(moves['backwards'])} of the illustrator's films that go one way "
        f"count as right; standing still, {percent(moves['still'])} of those that move)"
    )
    of_kinds = ", ".join(f"{name} {right} of {count}" for name, (right, count) in figures["right of each kind"].items())
    lines += ["", f"moves right, by kind: {of_kinds}"]
    ratio = change["drawn"] / change["through the VAE"]
    lines.append(
        f"background change from frame to frame: {change['drawn']:.4f}, {ratio:.2f} times that of the illustrator's "
        f"films through the VAE ({change['through the VAE']:.4f})"
    )
    short = []
    if kept["drawn"] < WANTED["attributes"]:
        short.append(f"all four attributes in every frame: {kept['drawn']:.1%} of {WANTED['attributes']:.0%}")
    if moves["drawn"] < WANTED["motion"]:
        short.append(f"motion: {moves['drawn']:.1%} of {WANTED['motion']:.0%}")
    if ratio > WANTED["background"]:
        short.append(f"background change: {ratio:.2f} times the illustrator's, at most {WANTED['background']:g} wanted")
    lines += ["", "all goals reached" if not short else "short of the goal: " + "; ".join(short)]
    return "\n".join(lines)
