"""What do the motion modules do to a film?

Without them every frame is a picture of its own, from noise of its own. What they add to the U-Net can be multiplied by
a strength: 0 takes them away, 1 is what they were trained for. And they can be told the frames in reverse order: drawn
from the noise of the last frame first, and shown from its end, a film has the same noise in the same frames, and only
the positions of the frames are in reverse.

A network that was trained on the illustrator's pictures finds the thing in each frame. The way of its centre is held
against that of the illustrator's film of the same scene: 100 % is as far and in the same direction, with the front
ahead; less than 0 is backwards. What rises can only go up; a boat or a fish may face either side.
"""

from collections.abc import Sequence

import numpy
import torch
from matplotlib.figure import Figure
from torch import Tensor

from course.draw.checkpoint import TINY
from course.experiments.lab import Lab, Result
from course.scenes.captions import plain_prompt
from course.scenes.motion import WITH_FRONT
from course.scenes.scenes import Scene, Thing, draw_clip
from course.studio.judge import as_tensor, load_film_judge, truth
from course.studio.page import grid, new_figure, stacked
from course.studio.question import Question
from course.studio.studio import FRAMES
from course.studio.things import along, background_change, load_thing_finder, side_of, way

TITLE = "What do the motion modules do to a film?"
QUESTION = Question(
    "The motion modules are told that the last frame comes first. What does a rocket do?",
    (
        "it sinks",
        "it rises as before",
        "it no longer moves in one direction",
    ),
)
STRENGTHS = (0.0, 0.5, 1.0, 1.5)
RISES, FRONT = "what rises", "what has a front"
SCENES = tuple(
    Scene((Thing(name, colour),), ground, time, "medium", "centre")
    for name, colour, ground, time in (
        ("rocket", "red", "meadow", "day"),
        ("balloon", "purple", "snow", "sunset"),
        ("boat", "red", "sea", "day"),
        ("fish", "orange", "meadow", "day"),
        ("boat", "yellow", "sea", "night"),
        ("fish", "blue", "sea", "sunset"),
    )
)


@torch.no_grad()
def run(lab: Lab) -> Result:
    scenes = lab.pick(SCENES, SCENES[1:3])
    strengths = lab.pick(STRENGTHS, (0.0, 1.0))
    films = {strength: drawn(lab, scenes, strength) for strength in strengths}
    reverse = drawn(lab, scenes, 1.0, reverse=True)
    usual = illustrated(lab, scenes)
    finder = load_thing_finder(TINY.with_name("things.safetensors"))

    def measured(some: list[Tensor]) -> tuple[dict[str, float], float]:
        """How far things go, those that rise and those with a front, and how much the background changes."""
        seen = [finder.find(film) for film in some]
        goes: dict[str, list[float]] = {RISES: [], FRONT: []}
        for scene, (_, centres, facing) in zip(scenes, seen):
            kind = FRONT if scene.things[0].object in WITH_FRONT else RISES
            goes[kind].append(goes_along(scene, centres, float(facing.mean())))
        changes = [background_change(film, masks) for film, (masks, *_) in zip(some, seen)]
        return {kind: float(numpy.mean(some)) for kind, some in goes.items()}, float(numpy.mean(changes))

    at = {strength: measured(some) for strength, some in films.items()}
    backwards, calm = measured(reverse)[0], measured(usual)[1]
    right = {strength: share_of_frames(some, scenes) for strength, some in films.items()}
    answer = 2 if abs(backwards[RISES]) < 0.5 else 0 if backwards[RISES] < 0 else 1
    low, high = strengths[0], strengths[-1]
    text = (
        f"In {len(scenes)} films of {FRAMES} frames, what rises goes {at[1.0][0][RISES]:.0%} of the illustrator's way, "
        f"and what has a front {at[1.0][0][FRONT]:.0%}: what goes backwards counts as less than 0. The background "
        f"changes from frame to frame {at[1.0][1] / calm:.1f} times as much as in films of the illustrator, "
        f"sent through the VAE, without the modules {at[low][1] / calm:.1f} times, and at strength {high:g} "
        f"{at[high][1] / calm:.1f} times. "
        f"A judge finds all four attributes in {right[low]:.0%} of the frames without modules, in {right[1.0]:.0%} "
        f"with them, and in {right[high]:.0%} at strength {high:g}. With the frames in reverse order, what rises goes "
        f"{backwards[RISES]:.0%} of its way and what has a front {backwards[FRONT]:.0%}."
    )
    return Result(draw(lab, scenes[0], films, reverse, at, calm, right), text, answer)


def share_of_frames(films: list[Tensor], scenes: Sequence[Scene]) -> float:
    """Of all frames, those in which the judge of films reads all four attributes of their scene."""
    read = load_film_judge(TINY.with_name("film_judge.safetensors")).read(torch.cat(films))
    wanted = truth([scene for scene in scenes for _ in range(FRAMES)])
    return float(torch.stack([read[name] == wanted[name] for name in wanted]).all(dim=0).float().mean())


def drawn(lab: Lab, scenes: Sequence[Scene], strength: float, reverse: bool = False) -> list[Tensor]:
    """A film of each scene, (frames, 3, height, width), with noise of its own in every frame."""
    model, films = lab.films_at(strength), []
    for i, scene in enumerate(scenes):
        noise = lab.noise(100 * i, FRAMES)
        noise = noise.flip(0) if reverse else noise
        film = lab.film(plain_prompt(scene), model=model, noise=noise, steps=lab.pick(15, 2), sampler="dpm++2m")
        film = film.clamp(-1, 1).cpu()
        films.append(film.flip(0) if reverse else film)
    return films


def illustrated(lab: Lab, scenes: Sequence[Scene]) -> list[Tensor]:
    """The illustrator's films, sent through the VAE."""
    size = lab.opened.config.image_size
    clips = [draw_clip(scene, f"motion {i}", FRAMES, size) for i, scene in enumerate(scenes)]
    films = [as_tensor([numpy.asarray(frame) for frame in clip]) for clip in clips]
    return [lab.decoded(lab.encoded(film)).clamp(-1, 1) for film in films]


def goes_along(scene: Scene, path: Tensor, facing: float) -> float:
    """How far a thing goes along the illustrator's way, with its front ahead; 1: as far, -1: as far backwards."""
    wanted, side = way(scene, "way", FRAMES), side_of(scene, "way")
    mirrored = wanted * torch.tensor([-1.0, 1.0])
    if side == 0:  # no front: what goes up may lean to either side
        return max((along(path, one)[0] for one in (wanted, mirrored)), key=abs)
    return along(path, wanted if (facing > 0) == (side > 0) else mirrored)[0]


def draw(
    lab: Lab,
    scene: Scene,
    films: dict[float, list[Tensor]],
    reverse: list[Tensor],
    at: dict[float, tuple[dict[str, float], float]],
    calm: float,
    right: dict[float, float],
) -> Figure:
    figure = new_figure(height=8.6)
    top, bottom = stacked(figure, [5.9, 2.7])
    rows = [lab.arrays(some[0]) for some in films.values()] + [lab.arrays(reverse[0])]
    axes = top.subplots()
    grid(axes, rows, [*(f"strength {strength:g}" for strength in films), "in reverse"])
    axes.tick_params(labelsize=11)
    axes.set_xlabel(f"'{plain_prompt(scene)}'", fontsize=11)
    strengths = list(films)
    panels = bottom.subplots(1, 3)
    for axes, lines, title in (
        (panels[0], {kind: [100 * at[s][0][kind] for s in strengths] for kind in (RISES, FRONT)}, "way (%)"),
        (panels[1], {"": [at[s][1] / calm for s in strengths]}, "background change (illustrator: 1)"),
        (panels[2], {"": [100 * right[s] for s in strengths]}, "frames with all four right (%)"),
    ):
        for (name, values), style in zip(lines.items(), ("-o", "--s")):
            axes.plot(strengths, values, style, label=name, markersize=5)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("strength of the modules", fontsize=11)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=10)
    panels[1].set_ylim(bottom=0.0)
    panels[2].set_ylim(0.0, 105.0)
    return figure
