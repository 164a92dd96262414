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
from course.scenes.captions import PLAIN_TIMES
from course.scenes.scenes import TIMES
from course.studio.page import grid, new_figure
from course.studio.question import Question

TITLE = "How can subtraction work in a negative prompt?"
QUESTION = Question(
    "A negative prompt about the time of day is there in only a third of the steps. In which third does it work best?",
    ("the first", "the middle", "the last"),
)
PROMPT = "a red house in a green meadow"
MOMENTS = (940, 800, 600)
THINGS = ("house", "car", "tree", "castle", "cat", "robot")


@torch.no_grad()
def run(lab: Lab) -> Result:
    time, shown = thirds(lab)
    away = PLAIN_TIMES[time]
    own = own_negative(lab)
    share = {name: share for name, (_, share) in shown.items()}
    text = (
        f"With the prompt as its own negative, pictures of scale 1 and of scale 15 differ by at most {own:.0e} of the "
        "range: the scale multiplies a difference that is zero. Of pictures whose prompt does not say the time of day, "
        f"{share['no negative']:.0%} show {time}; with the negative prompt '{away}' in all steps it is "
        f"{share['all steps']:.0%}, in the first third only {share['first third']:.0%}, in the middle "
        f"{share['middle third']:.0%}, in the last {share['last third']:.0%}."
    )
    answer = min(range(3), key=lambda i: list(share.values())[2 + i])
    return Result(draw(lab, away, differences(lab, away), shown, time), text, answer)


def differences(lab: Lab, away: str) -> list[list[numpy.ndarray]]:
    """At some moments: the guesses for the prompt and for the negative prompt, their difference, the guided guess."""
    schedule, sampler = lab.model.schedule, lab.blocks[9]
    _, steps = lab.walk(PROMPT, seed=3, steps=lab.pick(20, 4))
    texts = lab.context(PROMPT), lab.context(away)
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
        difference = 128.0 + 2.0 * (with_prompt.astype(float) - with_negative)
        sheet.append([with_prompt, with_negative, difference.clip(0, 255).astype(numpy.uint8), result])
    return sheet


def own_negative(lab: Lab) -> float:
    """The largest difference of two pictures whose negative prompt is the prompt itself, at two scales."""
    images = [lab.draw(PROMPT, seed=3, steps=lab.pick(10, 2), scale=scale, negative=PROMPT) for scale in (1.0, 15.0)]
    return float((images[0] - images[1]).abs().max()) / 2


def thirds(lab: Lab) -> tuple[str, dict[str, tuple[Tensor, float]]]:
    """The time of day that pictures show the most often if the prompt does not say it; and for each use of a negative
    prompt that names it: pictures, and the share of them that show it."""
    prompts = [f"a red {thing} in a green meadow" for thing in THINGS[: lab.pick(6, 2)] for _ in range(lab.pick(6, 2))]
    count = lab.pick(12, 3)
    third = count // 3
    images = walk(lab, prompts, "", range(0), count)
    times = lab.read(images)["time"]
    usual = int(times.bincount().argmax())
    away = PLAIN_TIMES[TIMES[usual]]
    found = {"no negative": (images, float((times == usual).float().mean()))}
    for name, steps in (
        ("all steps", range(count)),
        ("first third", range(third)),
        ("middle third", range(third, 2 * third)),
        ("last third", range(2 * third, count)),
    ):
        images = walk(lab, prompts, away, steps, count)
        found[name] = images, float((lab.read(images)["time"] == usual).float().mean())
    return TIMES[usual], found


def walk(lab: Lab, prompts: list[str], negative: str, used: range, count: int) -> Tensor:
    """Pictures whose negative prompt is there in some of the steps, and empty in the others."""
    sampler, schedule = lab.blocks[9], lab.model.schedule
    texts = (prompts, [""] * len(prompts), [negative] * len(prompts))
    context, none, away = (sampler.encode_prompts(lab.model, some) for some in texts)
    timesteps = schedule.inference_timesteps(count)
    latents = lab.noise(80, len(prompts))
    for i, (t, following) in enumerate(zip(timesteps, [*timesteps[1:], -1])):
        other = away if i in used else none
        scale = lab.opened.config.guidance_scale
        noise = sampler.predict_noise(lab.model.unet, latents, t, context, other, scale)
        latents = lab.blocks[8].ddim_step(schedule, latents, noise, t, following)
    return lab.decoded(latents)


def draw(
    lab: Lab, away: str, sheet: list[list[numpy.ndarray]], shown: dict[str, tuple[Tensor, float]], time: str
) -> Figure:
    figure = new_figure(height=7.6)
    top, bottom = figure.subplots(2, 1, height_ratios=[4.4, 2.9])
    names = ["guess for\nthe prompt", f"guess for\n'{away}'", "first minus\nsecond (x 2)", "guided\nguess"]
    grid(top, sheet, [f"t = {t}" for t in MOMENTS], names, cell=160)
    top.tick_params(labelsize=10.5)
    # First the pictures that the negative prompt changes the most.
    before, after = (shown[name][0] for name in ("no negative", "all steps"))
    order = (before - after).square().flatten(1).mean(1).argsort(descending=True)[:2]
    rows = list(zip(*(lab.arrays(images[order]) for images, _ in shown.values())))
    labels = [f"{name}\n{share:.0%} {time}" for name, (_, share) in shown.items()]
    grid(bottom, rows, [], labels)
    bottom.tick_params(labelsize=10.5)
    bottom.set_xlabel(f"the negative prompt '{away}' in some of the steps", fontsize=10.5)
    return figure
