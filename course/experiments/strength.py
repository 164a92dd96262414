"""What does strength do in image to image?

The strength says how many of the last steps are walked, from the given picture with as much noise as belongs there.
What is decided in the steps that are left out stays the given picture's. So each attribute should follow the prompt
from a strength of its own on; the judge finds it, on pictures whose prompt differs from them in all four attributes.
"""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from course.experiments.lab import NAMES, Lab, Result
from course.scenes.captions import plain_prompt
from course.scenes.scenes import Scene, Thing
from course.studio.page import grid, new_figure, stacked
from course.studio.question import Question

TITLE = "What do strengths 0.1 to 1.0 do in image to image?"
QUESTION = Question(
    "A picture gets more and more strength, and a prompt that differs from it in everything. What stays the longest?",
    ("the time of day", "the ground", "the colour of the thing", "the thing itself"),
)
STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
EXAMPLES = (
    (
        Scene((Thing("house", "red"),), "meadow", "day", "big", "centre"),
        Scene((Thing("castle", "blue"),), "snow", "night", "big", "centre"),
    ),
    (
        Scene((Thing("car", "yellow"),), "city", "day", "big", "centre"),
        Scene((Thing("boat", "white"),), "sea", "sunset", "big", "centre"),
    ),
)


@torch.no_grad()
def run(lab: Lab) -> Result:
    pairs = [*EXAMPLES, *lab.different_pairs(lab.pick(10, 1))]
    given, wanted = [a for a, _ in pairs], [b for _, b in pairs]
    pictures = lab.illustrated(given).to(lab.torch_device)
    strengths = lab.pick(STRENGTHS, (0.5, 1.0))
    results = {amount: redrawn(lab, pictures, lab.prompts(wanted), amount) for amount in strengths}
    follows = {name: [lab.right(some, wanted)[name] for some in results.values()] for name in NAMES}
    keeps = {name: [lab.right(some, given)[name] for some in results.values()] for name in NAMES}
    turn = {name: next((s for s, v in zip(strengths, follows[name]) if v >= 0.5), 1.1) for name in NAMES}
    last = max(NAMES, key=lambda name: (turn[name], sum(keeps[name])))
    listed = ", ".join(
        f"the {NAMES[name]} from {turn[name]:g} on" if turn[name] <= 1 else f"the {NAMES[name]} never" for name in NAMES
    )
    low, high = strengths[0], strengths[-1]
    moved = {amount: float((results[amount] - pictures.cpu()).square().mean().sqrt()) / 2 for amount in (low, high)}
    text = (
        f"In {len(pairs)} pictures whose prompt differs from them in everything, at least half follow the prompt in "
        f"{listed}. The {NAMES[last]} stays the longest. At strength {low:g} the pixels have moved by "
        f"{moved[low]:.0%} of their range (root mean square), at {high:g} by {moved[high]:.0%}."
    )
    return Result(draw(lab, pictures, results, follows, keeps), text, answer=list(NAMES).index(last))


def redrawn(lab: Lab, pictures: Tensor, prompts: list[str], amount: float) -> Tensor:
    """Image to image at one strength; every picture has noise of its own."""
    steps = lab.pick(15, 2)
    sampling = lab.blocks[9].Sampling(steps, lab.opened.config.guidance_scale)
    none, noise = [""] * len(prompts), lab.noise(110, len(prompts))
    result = lab.blocks[9].image_to_image(lab.model, pictures, prompts, none, noise, amount, sampling)
    return result.cpu().clamp(-1, 1)


def draw(
    lab: Lab,
    pictures: Tensor,
    results: dict[float, Tensor],
    follows: dict[str, list[float]],
    keeps: dict[str, list[float]],
) -> Figure:
    figure = new_figure(height=5.3)
    top, bottom = stacked(figure, [2.3, 2.6])
    shown = [amount for amount in results if amount not in (0.2, 0.4)]
    rows = [
        [lab.arrays(some[k : k + 1])[0] for some in (pictures, *(results[amount] for amount in shown))]
        for k in range(2)
    ]
    axes = top.subplots()
    grid(axes, rows, [], ["given", *(f"{amount:g}" for amount in shown)])
    axes.tick_params(labelsize=11)
    axes.set_xlabel("; ".join(f"'{plain_prompt(b)}'" for _, b in EXAMPLES), fontsize=10.5)
    left, right = bottom.subplots(1, 2, sharey=True)
    for axes, values, title in ((left, keeps, "as in the given picture"), (right, follows, "as in the prompt")):
        for (name, shares), style in zip(values.items(), ("-o", "-s", "-^", "-D")):
            axes.plot(list(results), [100 * share for share in shares], style, label=NAMES[name], markersize=5)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("strength", fontsize=11)
        axes.grid(alpha=0.3)
    left.set_ylabel("of the pictures (%)", fontsize=11)
    right.legend(fontsize=10.5, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
