"""How many steps does a picture need?

The same prompts and noise, in few and in many steps of each sampler. Where a sampler would arrive with steps without
number is approximated by 500 of DDIM: DDIM, Euler and DPM-Solver++ follow the same differential equation and differ
only in how they cut it into steps. DDPM adds fresh noise in each step, so it arrives somewhere else each time, and its
distance from that picture says nothing about its quality; the judge's score does.
"""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from course.experiments.lab import Lab, Result
from course.studio.page import grid, new_figure, stacked
from course.studio.question import Question

TITLE = "What do 1, 2, 5, 10, 20 and 50 steps look like?"
QUESTION = Question(
    "From how many steps on does DPM-Solver++ draw what the prompt says in at least nine of ten pictures?",
    ("1 or 2", "3 to 5", "10", "20 or more"),
)
COUNTS = (1, 2, 3, 5, 10, 20, 50)
MOST_JUDGED = 20


@torch.no_grad()
def run(lab: Lab) -> Result:
    samplers = lab.blocks[9].SAMPLERS
    counts = lab.pick(COUNTS, COUNTS[:3])
    scenes = lab.scenes_to_draw(lab.pick(20, 2), seed=5)
    compared = lab.pick(4, 1)
    prompts = lab.prompts(scenes)
    limit = lab.draw(prompts[:compared], seed=40, steps=lab.pick(500, 4)).cpu().clamp(-1, 1)

    examples: dict[str, list[Tensor]] = {sampler: [] for sampler in samplers}
    errors: dict[str, list[float]] = {sampler: [] for sampler in samplers}
    right: dict[str, list[float]] = {sampler: [] for sampler in samplers}
    for sampler in samplers:
        for count in counts:
            judged = count <= MOST_JUDGED
            some = prompts if judged else prompts[:compared]
            images = lab.draw(some, seed=40, steps=count, sampler=sampler).cpu().clamp(-1, 1)
            examples[sampler].append(images[:1])
            errors[sampler].append(float((images[:compared] - limit).square().mean().sqrt()) / 2)
            if judged:
                right[sampler].append(lab.right(images, scenes)["all four"])

    judged_counts = [count for count in counts if count <= MOST_JUDGED]
    enough = {name: next((c for c, s in zip(judged_counts, right[name]) if s >= 0.9), None) for name in samplers}
    last, middle = len(counts) - 1, max(i for i, c in enumerate(counts) if c <= 10)
    text = (
        f"At least nine of ten pictures, of {len(scenes)} prompts, are right from so many steps on: "
        + ", ".join(f"{enough[s] or 'more than ' + str(judged_counts[-1])} with {s}" for s in samplers)
        + f". After {counts[middle]} steps the pixels are {errors['ddim'][middle]:.1%} of their range (root mean "
        f"square) from the picture of 500 steps with ddim and {errors['dpm++2m'][middle]:.1%} with dpm++2m, after "
        f"{counts[last]} steps {errors['ddim'][last]:.1%} and {errors['dpm++2m'][last]:.1%}. A single step of ddim "
        "starts at t = 1, where hardly any noise is looked for, and so it leaves the noise as it is."
    )
    first = enough["dpm++2m"] or 100
    answer = 0 if first <= 2 else 1 if first <= 5 else 2 if first <= 10 else 3
    return Result(draw(lab, counts, examples, errors, right, limit), text, answer)


def draw(
    lab: Lab,
    counts: tuple[int, ...],
    examples: dict[str, list[Tensor]],
    errors: dict[str, list[float]],
    right: dict[str, list[float]],
    limit: Tensor,
) -> Figure:
    figure = new_figure(height=7.2)
    top, bottom = stacked(figure, [4.6, 2.6])
    rows = [[*lab.arrays(torch.cat(images)), lab.arrays(limit[:1])[0]] for images in examples.values()]
    axes = top.subplots()
    grid(axes, rows, list(examples), [*(f"{c} step{'s' * (c > 1)}" for c in counts), "500 of\nddim"])
    axes.tick_params(labelsize=11)
    left, middle = bottom.subplots(1, 2)
    judged = [count for count in counts if count <= MOST_JUDGED]
    for (name, values), style in zip(right.items(), ("-o", "-s", "-^", "-D")):
        left.plot(judged, [100 * v for v in values], style, label=name, markersize=5)
        if name != "ddpm":
            middle.plot(counts, [100 * v for v in errors[name]], style, label=name, markersize=5)
        else:
            middle.plot([], [])
    left.set_ylabel("all four right (%)", fontsize=11)
    middle.set_ylabel("distance from\n500 steps (%)", fontsize=11)
    middle.set_yscale("log")
    middle.set_yticks([0.5, 1, 2, 5, 10, 20, 40], ["0.5", "1", "2", "5", "10", "20", "40"])
    for axes in (left, middle):
        axes.set_xscale("log")
        axes.set_xticks(judged if axes is left else counts, [str(c) for c in (judged if axes is left else counts)])
        axes.minorticks_off()
        axes.set_xlabel("steps", fontsize=11)
        axes.legend(fontsize=10, loc="lower right" if axes is left else "upper right")
        axes.grid(alpha=0.3)
    return figure
