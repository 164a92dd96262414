"""How much of the final picture is there after each step?

After each step there is a guess of the clean latents. It is compared with the latents at the end, coarse and fine parts
apart: averages over squares of 4 x 4 latents, what differs between squares of 2 x 2 within them, and the rest. A part
is there to 100 % when the guess has it as it will stay.

Beside it, how much noise is left in the latents themselves. "More noise is removed in early steps" is true of noise
measured against the picture, sqrt((1 - abar) / abar), and not of the noise as it stands in the latents, sqrt(1 - abar).
"""

import math

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from course.experiments.lab import Lab, Result
from course.studio.page import grid, new_figure, stacked
from course.studio.question import Question

TITLE = "How much of the final picture is there after each step?"
QUESTION = Question(
    "A picture takes 20 steps. After how many of them is half of its finest detail as it will stay?",
    ("fewer than 5", "5 to 9", "10 to 14", "15 or more"),
)
BANDS = ("coarse: squares of 4 x 4", "middle: of 2 x 2 in these", "fine: the rest")


@torch.no_grad()
def run(lab: Lab) -> Result:
    count = lab.pick(20, 4)
    scenes = lab.scenes_to_draw(lab.pick(12, 2), seed=9)
    steps: list = []
    lab.draw(lab.prompts(scenes), seed=90, steps=count, on_step=steps.append)
    shares = there([step.original for step in steps])
    half = [next(i + 1 for i, share in enumerate(band) if share >= 0.5) for band in shares]

    schedule = lab.model.schedule
    abars = [1 - 1e-9, *(schedule.alpha_bar(step.timestep) for step in reversed(steps))][::-1]
    standing = [math.sqrt(1 - abar) for abar in abars]
    against = [math.sqrt((1 - abar) / abar) for abar in abars]
    third = count // 3
    removed = [1 - some[third] / some[0] for some in (standing, against)]
    text = (
        f"Over {len(scenes)} pictures of {count} steps, half of the coarse part is as it will stay after "
        f"step {half[0]}, of the middle after step {half[1]} and of the fine after step {half[2]}. After the first "
        f"third of the steps {shares[0][third - 1]:.0%} of the coarse and {shares[2][third - 1]:.0%} of the fine "
        f"part are there. These {third} steps remove {removed[0]:.0%} of the noise that stands in the latents, and "
        f"{removed[1]:.0%} of it measured against the picture. "
        + (
            "So 'more noise is removed in early steps' is true of the latter only."
            if removed[0] < third / count < removed[1]
            else ""
        )
    )
    answer = 0 if half[2] < 5 else 1 if half[2] < 10 else 2 if half[2] < 15 else 3
    return Result(draw(lab, steps, shares, standing, against), text, answer)


def there(guesses: list[Tensor]) -> list[list[float]]:
    """For each band, after each step: 1 - |guess - end|^2 / |mean over pictures - end|^2, so 0 for the mean picture."""
    result = []
    for end, *parts in zip(bands(guesses[-1]), *(bands(guess) for guess in guesses)):
        nothing = (end - end.mean(0, keepdim=True)).square().sum()
        result.append([1 - float((part - end).square().sum() / nothing) for part in parts])
    return result


def bands(latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coarse, middle and fine parts, which add up to the latents."""
    wide, near = (
        nn.functional.avg_pool2d(latents, size).repeat_interleave(size, 2).repeat_interleave(size, 3) for size in (4, 2)
    )
    return wide, near - wide, latents - near


def draw(lab: Lab, steps: list, shares: list[list[float]], standing: list[float], against: list[float]) -> Figure:
    count = len(steps)
    shown = sorted({round(i * (count - 1) / 8) for i in range(9)})
    figure = new_figure(height=5.4)
    top, bottom = stacked(figure, [2.5, 2.7])
    rows = [lab.decode(torch.cat([steps[i].original[k : k + 1] for i in shown])) for k in range(2)]
    axes = top.subplots()
    grid(axes, rows, [], [f"step {i + 1}" for i in shown])
    axes.tick_params(labelsize=10.5)
    left, right = bottom.subplots(1, 2, width_ratios=[1.5, 1])
    for band, name, style in zip(shares, BANDS, ("-o", "-s", "-^")):
        left.plot(range(1, count + 1), [100 * max(share, -0.2) for share in band], style, label=name, markersize=5)
    left.set_ylabel("as it will stay (%)", fontsize=11)
    left.set_ylim(-10, 105)
    right.plot(range(count + 1), [100 * n / standing[0] for n in standing], "-", label="as it stands")
    right.plot(range(count + 1), [100 * n / against[0] for n in against], "--", label="against the picture")
    right.set_ylabel("noise left (%)", fontsize=11)
    for axes in (left, right):
        axes.set_xlabel("after step", fontsize=11)
        axes.legend(fontsize=10)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    return figure
