"""What lies between two noises, and between two prompts?

Every noise leads to a picture. Between two noises one can go along a circle, so that each point on the way has the
length that noise has (on the straight line between them it would be shorter: less noise than the U-Net expects).
Between the contexts of two prompts one goes along a straight line.
"""

import math

import numpy
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from course.experiments.lab import NAMES, Lab, Result
from course.scenes.captions import plain_prompt
from course.scenes.scenes import Scene, Thing
from course.studio.page import enlarge, grid, new_figure
from course.studio.question import Question

TITLE = "What lies between two noises, and between two prompts?"
QUESTION = Question(
    "Half way between two prompts, in the mean of their contexts, what is the colour of the thing?",
    ("the first prompt's", "the second prompt's", "another one, or neither clearly"),
)
FREE = "a red house"  # leaves ground and time to the noise
ONE = Scene((Thing("house", "red"),), "meadow", "day", "big", "centre")
OTHER = Scene((Thing("castle", "blue"),), "snow", "night", "big", "centre")
SHOWN = 9


@torch.no_grad()
def run(lab: Lab) -> Result:
    count = lab.pick(17, 5)
    places = numpy.linspace(0, 1, count)
    noises = lab.noise(7), lab.noise(11)
    free, first, second = (lab.context(text) for text in (FREE, plain_prompt(ONE), plain_prompt(OTHER)))
    between = torch.cat([on_the_circle(*noises, float(w)) for w in places])
    one_prompt = walk(lab, between, free.expand(count, -1, -1))
    mixed = torch.cat([(1 - float(w)) * first + float(w) * second for w in places])
    one_noise = walk(lab, noises[0].expand(count, -1, -1, -1), mixed)
    straight = walk(lab, (noises[0] + noises[1]) / 2, free)

    hits, read = lab.hits(one_prompt, [ONE] * count), lab.read(one_prompt)
    kept = float((hits["object"] * hits["colour"]).mean())
    changes = {name: int((read[name].diff() != 0).sum()) for name in ("ground", "time")}
    of_one, of_other = (lab.hits(one_noise, [scene] * count) for scene in (ONE, OTHER))
    last = {name: float(places[max(int(of_one[name].sum()) - 1, 0)]) for name in NAMES}
    steps = (one_noise[1:] - one_noise[:-1]).square().flatten(1).mean(1).sqrt() / 2
    jump = int(steps.argmax())
    contrast = float(straight.std() / one_prompt[count // 2].std())
    text = (
        f"On the circle between two noises {kept:.0%} of {count} pictures show '{FREE}'. The ground, of which this "
        f"prompt says nothing, changes {times(changes['ground'])} and the time of day {times(changes['time'])}. Half "
        f"way on the straight line the noise is shorter, and the picture has {contrast:.0%} of the contrast of "
        "the one on the circle. Between the prompts, the judge sees the first prompt's "
        + ", ".join(f"{NAMES[name]} up to {last[name]:.0%} of the way" for name in NAMES)
        + f". The largest of the {count - 1} steps, {float(steps[jump]) / float(steps.mean()):.1f} times the mean, is "
        f"at {float(places[jump + 1]):.0%}."
    )
    middle = count // 2
    answer = 0 if of_one["colour"][middle] else 1 if of_other["colour"][middle] else 2
    figure = draw(lab, one_prompt, one_noise)
    return Result(figure, text, answer, film(lab, one_prompt, one_noise))


def times(count: int) -> str:
    return f"{count} time{'s' * (count != 1)}"


def on_the_circle(one: Tensor, other: Tensor, w: float) -> Tensor:
    """From one noise (w = 0) to the other (w = 1), with the length of noise all the way."""
    cosine = float((one * other).sum() / (one.norm() * other.norm()))
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    return (math.sin((1 - w) * angle) * one + math.sin(w * angle) * other) / math.sin(angle)


def walk(lab: Lab, noise: Tensor, context: Tensor) -> Tensor:
    """Pictures from noises and contexts."""
    sampling = lab.blocks[9].Sampling(lab.pick(12, 2), lab.opened.config.guidance_scale, "dpm++2m")
    timesteps = lab.blocks[9].timesteps_for(lab.model.schedule, sampling)
    none = lab.context("").expand(len(noise), -1, -1)
    latents = noise
    for step in lab.blocks[9].denoise(lab.model, noise, timesteps, context, none, sampling):
        latents = step.latents
    return lab.decoded(latents)


def draw(lab: Lab, one_prompt: Tensor, one_noise: Tensor) -> Figure:
    picks = [round(i * (len(one_prompt) - 1) / (SHOWN - 1)) for i in range(SHOWN)]
    rows = [lab.arrays(images[picks]) for images in (one_prompt, one_noise)]
    figure = new_figure(height=2.9)
    axes = figure.subplots()
    labels = [f"{100 * i / (len(one_prompt) - 1):.0f} %" for i in picks]
    grid(axes, rows, ["between two\nnoises", "between two\nprompts"], labels)
    axes.tick_params(labelsize=11)
    one, other = plain_prompt(ONE), plain_prompt(OTHER)
    axes.set_xlabel(f"above: '{FREE}'; below: from '{one}' to '{other}'", fontsize=10.5)
    return figure


def film(lab: Lab, one_prompt: Tensor, one_noise: Tensor) -> list[Image.Image]:
    """Both ways side by side, there and back."""
    left, right = lab.arrays(one_prompt), lab.arrays(one_noise)
    gap = numpy.full((192, 8, 3), 255, dtype=numpy.uint8)
    frames = [
        Image.fromarray(numpy.concatenate([enlarge(a, 192, smooth=True), gap, enlarge(b, 192, smooth=True)], axis=1))
        for a, b in zip(left, right)
    ]
    return [*frames, *frames[-2:0:-1]]
