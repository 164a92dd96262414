"""When is it decided what a picture shows?

The prompt is exchanged for another one on the way. Two prompts differ in all four attributes: time of day, ground,
colour and thing. The first one is followed for k of n steps, the second one for the rest, from the same noise, and the
judge reads the result. If it still shows, say, the first prompt's time of day, that was decided in the first k steps.

All pictures that follow the first prompt for at least k steps are the same up to there, so they are computed once: in
each step one more branch leaves the common way.
"""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from course.experiments.lab import NAMES, Lab, Result
from course.scenes.captions import plain_prompt
from course.scenes.scenes import Scene, Thing
from course.studio.judge import ATTRIBUTES
from course.studio.page import grid, new_figure, stacked
from course.studio.question import Question

TITLE = "When is it decided what a picture shows?"
QUESTION = Question(
    "The prompt is exchanged for another one on the way. What can be changed for the shortest time?",
    ("the time of day", "the ground", "the colour of the thing", "the thing itself"),
)
EXAMPLE = (
    Scene((Thing("house", "red"),), "meadow", "day", "big", "centre"),
    Scene((Thing("rocket", "blue"),), "desert", "night", "big", "centre"),
)


@torch.no_grad()
def run(lab: Lab) -> Result:
    steps = lab.pick(12, 3)
    pairs = [EXAMPLE, *lab.different_pairs(lab.pick(8, 1))]
    branches = walk(lab, pairs, steps)
    images = lab.decoded(torch.cat(branches)).unflatten(0, (steps + 1, len(pairs)))  # (k, pair, 3, height, width)
    kept = {name: shares(lab, images, [first for first, _ in pairs], name) for name in NAMES}
    moment = {name: crossing(kept[name]) for name in NAMES}

    order = sorted(NAMES, key=lambda name: moment[name])
    listed = ", ".join(f"the {NAMES[name]} after {moment[name]:.1f}" for name in order)
    in_between = mean_of_neither(lab, images, pairs)
    text = (
        f"In {len(pairs)} pairs of prompts, half of the pictures keep what the first prompt said about {listed} of "
        f"{steps} steps. {100 * in_between:.0f} % of all answers of the judge are neither the first nor the second "
        "prompt's: what is exchanged in the middle can become a mixture."
    )
    figure = draw(lab, images[:, 0], kept, moment)
    return Result(figure, text, answer=list(NAMES).index(order[0]))


def walk(lab: Lab, pairs: list[tuple[Scene, Scene]], count: int) -> list[Tensor]:
    """The latents of all pairs, (pairs, channels, height, width), for an exchange after 0, 1 ... count steps."""
    sampler, schedule, unet = lab.blocks[9], lab.model.schedule, lab.model.unet
    first, second, none = (
        sampler.encode_prompts(lab.model, prompts)
        for prompts in ([plain_prompt(a) for a, _ in pairs], [plain_prompt(b) for _, b in pairs], [""] * len(pairs))
    )
    timesteps = schedule.inference_timesteps(count)
    common, left = lab.noise(20, len(pairs)), []
    for timestep, following in zip(timesteps, [*timesteps[1:], -1]):
        left.append(common)  # one more branch turns to the second prompt here
        latents = torch.cat([*left, common])
        contexts = torch.cat([second] * len(left) + [first])
        nothing = none.repeat(len(left) + 1, 1, 1)
        scale = lab.opened.config.guidance_scale
        noise = sampler.predict_noise(unet, latents, timestep, contexts, nothing, scale)
        latents = lab.blocks[8].ddim_step(schedule, latents, noise, timestep, following)
        *left, common = latents.split(len(pairs))
    return [*left, common]


def shares(lab: Lab, images: Tensor, firsts: list[Scene], name: str) -> list[float]:
    """For each k, the share of pictures that show the first prompt's value of an attribute."""
    return [lab.right(some, firsts)[name] for some in images]


def mean_of_neither(lab: Lab, images: Tensor, pairs: list[tuple[Scene, Scene]]) -> float:
    """How often the judge's answer is neither prompt's, over all k and attributes."""
    found = []
    for some in images:
        one, other = (lab.hits(some, [pair[i] for pair in pairs]) for i in (0, 1))
        found += [1 - one[name] - other[name] for name in ATTRIBUTES]
    return float(torch.stack(found).mean())


def crossing(values: list[float]) -> float:
    """After how many steps the share first reaches a half, by straight lines between the measured ones."""
    for k, value in enumerate(values):
        if value >= 0.5:
            before = values[k - 1] if k else value
            return float(k) if value == before else k - 1 + (0.5 - before) / (value - before)
    return float(len(values) - 1)


def draw(lab: Lab, images: Tensor, kept: dict[str, list[float]], moment: dict[str, float]) -> Figure:
    steps = len(images) - 1
    shown = range(0, steps + 1, 2 if steps > 6 else 1)
    figure = new_figure(height=5.4)
    above, below = stacked(figure, [1.9, 3.4])
    top, bottom = above.subplots(), below.subplots()
    grid(top, [[lab.arrays(images[k : k + 1])[0] for k in shown]], [], [f"after {k}" for k in shown])
    one, other = (plain_prompt(scene) for scene in EXAMPLE)
    top.tick_params(labelsize=10.5)
    top.set_title(f"'{one}', exchanged for '{other}'", fontsize=11)
    for name, style in zip(NAMES, ("-o", "-s", "-^", "-D")):
        bottom.plot(
            range(steps + 1),
            [100 * share for share in kept[name]],
            style,
            markersize=5,
            label=f"{moment[name]:.1f} steps: {NAMES[name]}",
        )
    bottom.axhline(50, color="0.6", linewidth=0.8, linestyle="--")
    bottom.set_xlabel(f"exchanged after so many of {steps} steps", fontsize=11)
    bottom.set_ylabel("still as in the\nfirst prompt (%)", fontsize=11)
    bottom.set_xticks(range(0, steps + 1))
    bottom.legend(
        fontsize=10.5, loc="center left", bbox_to_anchor=(1, 0.5), title="half keep it after", title_fontsize=11
    )
    bottom.grid(alpha=0.3)
    return figure
