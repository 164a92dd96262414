"""Why does a picture need steps, and what becomes of a sampler that jumps?

From noisy latents and a prediction of their noise follows a guess of the clean picture at once. The best possible guess
is known: among all pictures that there are, the average, in which each counts as much as it is likely that just these
noisy latents came from it. For a set of pictures x_i that is

    sum of w_i x_i        w_i in proportion to exp(-|x_t - sqrt(abar_t) x_i|^2 / (2 (1 - abar_t)))

A network that is trained to predict the noise, with the squared error as its loss, learns to give this average. Here it
is computed for some thousand training pictures and laid beside what the U-Net guesses without a prompt.

Then a sampler that goes to the next timestep by jumping there from the guess,

    x_next = sqrt(abar_next) guess + sqrt(1 - abar_next) noise

with the predicted noise (as DDIM) or with fresh noise; and with betas as they belong, squares of evenly growing
numbers, or with these numbers themselves.
"""

import math
from typing import Any

import numpy
import torch
from matplotlib.figure import Figure
from torch import Tensor

from course.experiments.lab import Lab, Result
from course.studio.page import grid, new_figure
from course.studio.question import Question

TITLE = "Why does a picture need steps, and what goes wrong when one jumps?"
QUESTION = Question(
    "A sampler jumps from each guess to the next timestep. Which mistake destroys the picture?",
    ("fresh noise instead of the predicted noise", "betas that are not squared", "both alike"),
)
TIMESTEPS = (999, 970, 940, 900, 850, 800, 600, 300)
FAR = 100_000  # the number of an example that is not among those averaged over


@torch.no_grad()
def run(lab: Lab) -> Result:
    count = lab.pick(1000, 8)
    latents = lab.encoded(lab.examples(0, count)[0])
    rows, gaps, numbers = guesses(lab, latents)
    ways = jumping(lab)

    scaled, plain = lab.model.schedule.alphas_cumprod, not_squared(lab).alphas_cumprod
    half = {name: int((abar < 0.5).nonzero()[0]) for name, abar in (("scaled", scaled), ("plain", plain))}
    near, far = (min(TIMESTEPS, key=lambda t: abs(t - wanted)) for wanted in (900, 300))
    shares = {name: share for name, (_, share) in ways.items()}
    text = (
        f"At t = {near} the exact average over {count} training pictures is a blur of {numbers[near]:.0f} of them, and "
        f"the U-Net's guess is {gaps[near]:.2f} away from it (root mean square, in latents of deviation 1); at "
        f"t = {far} the average is made of {numbers[far]:.0f}, and the distance is {gaps[far]:.2f}: it copies one of "
        "its pictures, where the U-Net sees a new one. The judge finds all four attributes right in "
        f"{shares['predicted']:.0%} of the pictures with the predicted noise and in {shares['fresh']:.0%} with fresh "
        f"noise, but in {shares['predicted, not squared']:.0%} and "
        f"{shares['fresh, not squared']:.0%} if the betas are not squared: then half of the picture's variance is gone "
        f"after {half['plain']} training steps and not after {half['scaled']}. "
        + (
            "So a formula that jumps may well be right, and fail because of a square that is missing."
            if shares["predicted, not squared"] < 0.5 < shares["fresh"]
            else ""
        )
    )
    lost = [shares["predicted"] - shares[name] for name in ("fresh", "predicted, not squared")]
    answer = 2 if abs(lost[0] - lost[1]) < 0.1 else int(lost[1] > lost[0])
    return Result(draw(lab, rows, ways), text, answer)


def guesses(lab: Lab, latents: Tensor) -> tuple[list[Tensor], dict[int, float], dict[int, float]]:
    """Noisy latents, the U-Net's guesses and the exact averages; how far these two are apart; of how many pictures."""
    schedule, sampler = lab.model.schedule, lab.blocks[9]
    clean = lab.encoded(lab.examples(FAR, 1)[0])
    noise, context = lab.noise(3), lab.context("")
    rows: list[list[Tensor]] = [[], [], []]
    gaps, numbers = {}, {}
    for t in TIMESTEPS:
        noisy = schedule.add_noise(clean, noise, torch.tensor([t]))
        predicted = sampler.predict_noise(lab.model.unet, noisy, t, context, None, 1.0)
        guess = schedule.predict_original(noisy, predicted, t)
        average, numbers[t] = posterior_mean(noisy, latents, schedule.alpha_bar(t))
        gaps[t] = float((guess - average).square().mean().sqrt())
        for row, some in zip(rows, (noisy, guess, average)):
            row.append(some)
    return [torch.cat(row) for row in rows], gaps, numbers


def posterior_mean(noisy: Tensor, latents: Tensor, abar: float) -> tuple[Tensor, float]:
    """The average of latents, each weighted by how likely the noisy ones came from it; and of how many it is made.

    That number is the exponential of the weights' entropy: 1 if one of them has all the weight, all if they are equal.
    """
    distances = (noisy - math.sqrt(abar) * latents).double().square().flatten(1).sum(1)
    weights = torch.softmax(-distances / (2 * (1 - abar)), dim=0)
    number = float(torch.exp(torch.special.entr(weights).sum()))
    return (weights.to(latents.dtype)[:, None, None, None] * latents).sum(0, keepdim=True), number


def not_squared(lab: Lab) -> Any:
    """The schedule with evenly growing betas that are the square roots of what they should be."""
    schedule = lab.blocks[8].NoiseSchedule()
    schedule.betas = schedule.betas.sqrt()
    schedule.alphas_cumprod = lab.blocks[8].alphas_cumprod(schedule.betas)
    return schedule


def jumping(lab: Lab) -> dict[str, tuple[Tensor, float]]:
    """For each way of jumping: pictures, and the share of them that show what they should."""
    scenes = lab.scenes_to_draw(lab.pick(24, 2), seed=3)
    context, none = (lab.blocks[9].encode_prompts(lab.model, p) for p in (lab.prompts(scenes), [""] * len(scenes)))
    ways = {}
    for wrong in (False, True):
        for fresh in (False, True):
            schedule = not_squared(lab) if wrong else lab.model.schedule
            latents = walk(lab, schedule, fresh, context, none)
            images = lab.decoded(latents)
            name = ("fresh" if fresh else "predicted") + (", not squared" if wrong else "")
            ways[name] = images, lab.right(images, scenes)["all four"]
    return ways


def walk(lab: Lab, schedule: Any, fresh: bool, context: Tensor, none: Tensor) -> Tensor:
    """The latents at the end of a walk of jumps."""
    sampler, generator = lab.blocks[9], torch.Generator().manual_seed(5)
    latents = lab.noise(30, len(context))
    timesteps = schedule.inference_timesteps(lab.pick(16, 2))
    guess = latents
    for timestep, following in zip(timesteps, [*timesteps[1:], 0]):
        scale = lab.opened.config.guidance_scale
        noise = sampler.predict_noise(lab.model.unet, latents, timestep, context, none, scale)
        guess = schedule.predict_original(latents, noise, timestep)
        if fresh:
            noise = sampler.draw_noise(latents, generator)
        latents = schedule.add_noise(guess, noise, torch.full((len(latents),), following))
    return torch.nan_to_num(guess).clamp(-10, 10)


def draw(lab: Lab, rows: list[Tensor], ways: dict[str, tuple[Tensor, float]]) -> Figure:
    figure = new_figure(height=6.0)
    top, bottom = figure.subplots(2, 1, height_ratios=[3.2, 2.2])
    pictures = [lab.decode(row) for row in rows]
    names = ["noisy", "the U-Net's\nguess", "exact\naverage"]
    grid(top, pictures, names, [f"t = {t}" for t in TIMESTEPS])
    top.tick_params(labelsize=10.5)

    shown = 4
    blank = numpy.full_like(pictures[0][0], 255)
    sheet = []
    for some in (("predicted", "predicted, not squared"), ("fresh", "fresh, not squared")):
        left, right = (lab.arrays(torch.nan_to_num(ways[name][0][:shown]).clamp(-1, 1)) for name in some)
        sheet.append([*left, *[blank] * (shown - len(left)), *right])
    grid(bottom, sheet, ["predicted\nnoise", "fresh\nnoise"], [])
    bottom.tick_params(labelsize=10.5)
    bottom.set_xticks([])
    shares = [ways[name][1] for name in ("predicted", "fresh", "predicted, not squared", "fresh, not squared")]
    for x, name, pair in ((0.25, "betas as they belong", shares[:2]), (0.75, "betas not squared", shares[2:])):
        label = f"{name}: {pair[0]:.0%} / {pair[1]:.0%} right"
        bottom.text(x, 1.03, label, transform=bottom.transAxes, ha="center", va="bottom", fontsize=11)
    return figure
