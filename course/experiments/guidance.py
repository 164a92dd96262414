"""What does guidance do, and what does it cost?

Scale 0 draws without the prompt, 1 as the model has learned it, and more goes further in the direction in which the
prompt changes the predicted noise. For each scale three things are counted on the same prompts and seeds: how many
pictures are right, how much the pictures of one prompt differ from each other, and how strong their colours are.
"""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from course.experiments.lab import Lab, Result
from course.studio.page import grid, new_figure, stacked
from course.studio.question import Question

TITLE = "What do guidance 0, 1, 2, 4, 7.5 and 15 look like?"
QUESTION = Question(
    "The guidance scale goes from 1 to 15. Where is the variety of the pictures of one prompt the smallest?",
    ("at 1", "in between", "at 15"),
)
SCALES = (0.0, 1.0, 2.0, 4.0, 7.5, 15.0)


@torch.no_grad()
def run(lab: Lab) -> Result:
    scenes = lab.scenes_to_draw(lab.pick(12, 1), seed=7)
    seeds = lab.pick(3, 2)
    wanted = [scene for scene in scenes for _ in range(seeds)]
    prompts = lab.prompts(wanted)
    steps = lab.pick(12, 2)
    images = {scale: lab.draw(prompts, seed=60, steps=steps, scale=scale, sampler="dpm++2m").cpu() for scale in SCALES}
    right = {scale: lab.right(some, wanted)["all four"] for scale, some in images.items()}
    variety = {scale: deviation(some, seeds) for scale, some in images.items()}
    colour = {scale: saturation(some) for scale, some in images.items()}
    clipped = {scale: float((some.abs() > 1).float().mean()) for scale, some in images.items()}

    best = max(SCALES, key=lambda scale: right[scale])
    text = (
        f"Of {len(wanted)} pictures the judge finds {right[0.0]:.0%} right at scale 0, {right[1.0]:.0%} at 1, "
        f"{right[4.0]:.0%} at 4 and {right[15.0]:.0%} at 15; the first of the scales with the most right is {best:g}. "
        f"The deviation between the pictures of one prompt is {variety[1.0]:.1%} of the range at scale 1, "
        f"{variety[4.0]:.1%} at 4 and {variety[15.0]:.1%} at 15. From 1 to 15 the "
        f"saturation goes from {colour[1.0]:.0%} to {colour[15.0]:.0%}, and the share of values that are outside of "
        f"what a picture can show, and are cut off, from {clipped[1.0]:.1%} to {clipped[15.0]:.1%}."
    )
    least = min(SCALES[1:], key=lambda scale: variety[scale])
    answer = 0 if least == 1.0 else 2 if least == 15.0 else 1
    return Result(draw(lab, images, right, variety, colour, clipped, seeds), text, answer)


def deviation(images: Tensor, seeds: int) -> float:
    """The standard deviation between the pictures of one prompt, as a share of the range, in the mean of all pixels."""
    return float(images.clamp(-1, 1).unflatten(0, (-1, seeds)).std(1).mean()) / 2


def saturation(images: Tensor) -> float:
    """How far the strongest of a pixel's three colours is from the weakest, in the mean: 0 (grey) ... 1."""
    shown = images.clamp(-1, 1)
    return float((shown.amax(1) - shown.amin(1)).mean()) / 2


def draw(
    lab: Lab,
    images: dict[float, Tensor],
    right: dict[float, float],
    variety: dict[float, float],
    colour: dict[float, float],
    clipped: dict[float, float],
    seeds: int,
) -> Figure:
    figure = new_figure(height=7.2)
    top, bottom = stacked(figure, [5.0, 2.2])
    picks = [i for i in (0, 1, seeds, seeds + 1) if i < len(images[0.0])][:3]
    columns = [[lab.arrays(some[i : i + 1])[0] for i in picks] for some in images.values()]
    axes = top.subplots()
    grid(axes, list(zip(*columns)), [], [f"scale {scale:g}" for scale in images])
    axes.tick_params(labelsize=11)
    plots = bottom.subplots(1, 3)
    series = {
        "all four right (%)": right,
        "variety (% of the range)": variety,
        "colours (%)": colour,
    }
    for axes, (name, values) in zip(plots, series.items()):
        axes.plot(range(len(values)), [100 * v for v in values.values()], "-o", color="C0", label="saturation")
        if values is colour:
            axes.plot(range(len(values)), [100 * v for v in clipped.values()], "--s", color="C3", label="cut off")
            axes.legend(fontsize=10, loc="center right")
        axes.set_title(name, fontsize=11)
        axes.set_xticks(range(len(values)), [f"{scale:g}" for scale in values])
        axes.set_xlabel("guidance scale", fontsize=10.5)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    return figure
