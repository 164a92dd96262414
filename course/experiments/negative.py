"""How can subtraction work in a negative prompt?

No texts and no pictures are subtracted, but two predictions of the noise in the same latents. From each follows a guess
of the clean picture, so their difference can be looked at as a picture: it shows what the one text would have and the
other would not.

Two tests of that. If the prompt is its own negative, there is no difference, and the guidance scale must not matter at
all. And as what is decided early is not decided again, a negative prompt that is there for a third of the steps should
work in the third in which its attribute is decided.
"""

import numpy
import torch
from matplotlib.figure import Figure
from torch import Tensor

from course.experiments.lab import Lab, Result
from course.studio.judge import ATTRIBUTES
from course.studio.page import grid, new_figure
from course.studio.question import Question

TITLE = "How can subtraction work in a negative prompt?"
QUESTION = Question(
    "A negative prompt about the time of day is there in only a third of the steps. In which third does it work best?",
    ("the first", "the middle", "the last"),
)
PROMPT, AWAY = "a red house in a green meadow", "by day"
MOMENTS = (940, 800, 600)
THINGS = ("house", "car", "tree", "castle", "cat", "robot")


@torch.no_grad()
def run(lab: Lab) -> Result:
    sheet = differences(lab)
    own = own_negative(lab)
    days = thirds(lab)
    names = list(days)
    text = (
        f"With the prompt as its own negative, pictures of scale 1 and of scale 15 differ by at most {own:.0e} of the "
        "range: the scale multiplies a difference that is zero. Of pictures whose prompt does not say the time of day, "
        f"{days['none'][1]:.0%} show the day; with the negative prompt '{AWAY}' in all steps it is "
        f"{days['all steps'][1]:.0%}, in the first third only {days['first third'][1]:.0%}, in the middle "
        f"{days['middle third'][1]:.0%}, in the last {days['last third'][1]:.0%}."
    )
    answer = min(range(3), key=lambda i: days[names[2 + i]][1])
    return Result(draw(lab, sheet, days), text, answer)


def differences(lab: Lab) -> list[list[numpy.ndarray]]:
    """At some moments: the guesses for the prompt and for the negative prompt, their difference, the guided guess."""
    schedule, sampler = lab.model.schedule, lab.blocks[9]
    _, steps = lab.walk(PROMPT, seed=3, steps=lab.pick(20, 4))
    texts = lab.context(PROMPT), lab.context(f"a red house {AWAY}")
    sheet = []
    for moment in MOMENTS:
        index = max(1, min(range(len(steps)), key=lambda i: abs(steps[i].timestep - moment)))
        latents, t = steps[index - 1].latents, steps[index].timestep
        guesses = []
        for context in texts:
            noise = sampler.predict_noise(lab.model.unet, latents, t, context, None, 1.0)
            guesses.append(schedule.predict_original(latents, noise, t))
        guided = sampler.classifier_free_guidance(guesses[1], guesses[0], lab.opened.config.guidance_scale)
        with_prompt, with_negative, result = lab.decode(torch.cat([*guesses, guided]))
        difference = 128.0 + (with_prompt.astype(float) - with_negative)
        sheet.append([with_prompt, with_negative, difference.clip(0, 255).astype(numpy.uint8), result])
    return sheet


def own_negative(lab: Lab) -> float:
    """The largest difference of two pictures whose negative prompt is the prompt itself, at two scales."""
    images = [lab.draw(PROMPT, seed=3, steps=lab.pick(10, 2), scale=scale, negative=PROMPT) for scale in (1.0, 15.0)]
    return float((images[0] - images[1]).abs().max()) / 2


def thirds(lab: Lab) -> dict[str, tuple[Tensor, float]]:
    """For each use of a negative: pictures of prompts without a time of day, and the share that show the day."""
    things = THINGS[: lab.pick(6, 2)]
    prompts = [f"a red {thing} in a green meadow" for thing in things for _ in range(2)]
    sampler, count = lab.blocks[9], lab.pick(12, 3)
    timesteps = lab.model.schedule.inference_timesteps(count)
    texts = (prompts, [""] * len(prompts), [AWAY] * len(prompts))
    context, none, away = (sampler.encode_prompts(lab.model, some) for some in texts)
    third = count // 3
    used = {
        "none": range(0),
        "all steps": range(count),
        "first third": range(third),
        "middle third": range(third, 2 * third),
        "last third": range(2 * third, count),
    }
    found = {}
    for name, steps in used.items():
        latents = lab.noise(80, len(prompts))
        for i, (t, following) in enumerate(zip(timesteps, [*timesteps[1:], -1])):
            other = away if i in steps else none
            scale = lab.opened.config.guidance_scale
            noise = sampler.predict_noise(lab.model.unet, latents, t, context, other, scale)
            latents = lab.blocks[8].ddim_step(lab.model.schedule, latents, noise, t, following)
        images = lab.decoded(latents)
        days = lab.read(images)["time"] == ATTRIBUTES["time"].index("day")
        found[name] = images, float(days.float().mean())
    return found


def draw(lab: Lab, sheet: list[list[numpy.ndarray]], days: dict[str, tuple[Tensor, float]]) -> Figure:
    figure = new_figure(height=7.4)
    top, bottom = figure.subplots(2, 1, height_ratios=[4.4, 2.7])
    names = ["guess for\nthe prompt", f"guess for 'a\nred house {AWAY}'", "first minus\nsecond", "guided\nguess"]
    grid(top, sheet, [f"t = {t}" for t in MOMENTS], names, cell=160)
    top.tick_params(labelsize=10.5)
    rows = list(zip(*(lab.arrays(images[:6:2]) for images, _ in days.values())))
    labels = [f"{name}\n{share:.0%} by day" for name, (_, share) in days.items()]
    labels[0] = labels[0].replace("none", "no negative prompt")
    grid(bottom, rows[:2], [], labels)
    bottom.tick_params(labelsize=10.5)
    return figure
