"""How fast should noise come in, and what if it never wins?

Four schedules: betas whose roots grow evenly (Stable Diffusion's), evenly growing betas, the cosine schedule, and the
roots themselves for betas, which is what is left if the square is forgotten.

At the last timestep Stable Diffusion's schedule still holds a trace of the picture. Noise in training therefore always
comes with a trace of the brightness of its picture, while sampling starts from noise without any. Lin et al. say that
this is why such models cannot draw very dark or very bright pictures. It can be tested: very dark and very bright
prompts are drawn from pure noise, and from noise that holds that trace of a fitting picture.

Sources: Nichol and Dhariwal, 2021, arXiv:2102.09672, equation 17 (cosine); Lin et al., "Common Diffusion Noise
Schedules and Sample Steps are Flawed", 2023, arXiv:2305.08891.
"""

import math

import torch
from matplotlib.figure import Figure
from torch import Tensor

from course.experiments.lab import Lab, Result
from course.scenes.scenes import Scene, Thing
from course.studio.page import grid, new_figure
from course.studio.question import Question

TITLE = "How fast should noise come in, and what if it never wins?"
QUESTION = Question(
    "In training a trace of the picture is left at the last timestep, in drawing it is not. How much darker do bright "
    "prompts come out than they should?",
    ("by less than 2 % of the range", "by 2 to 10 %", "by more than 10 %"),
)


@torch.no_grad()
def run(lab: Lab) -> Result:
    alphas = {name: lab.blocks[8].alphas_cumprod(betas) for name, betas in schedules(lab).items()}
    half = {name: int((abar < 0.5).nonzero()[0]) for name, abar in alphas.items()}
    own = alphas["scaled linear (ours)"]
    trace = math.sqrt(float(own[-1]))
    drawn, levels = brightness(lab)
    off = {kind: [level - levels[kind][0] for level in levels[kind][1:]] for kind in levels}
    text = (
        "Half of the picture's variance is gone at "
        + ", ".join(f"t = {t} ({name})" for name, t in half.items())
        + f". At the last timestep {trace:.3f} of the picture's amplitude is left with our schedule (signal "
        f"to noise 1 : {1 / (float(own[-1]) / (1 - float(own[-1]))):.0f}). Bright pictures drawn from pure noise are "
        f"{signed(off['bright'][0])} of the range from the illustrator's, dark ones {signed(off['dark'][0])}; with "
        f"that trace in the noise it is {signed(off['bright'][1])} and {signed(off['dark'][1])}. "
    )
    # The paper says: bright pictures come out too dark and dark ones too bright.
    towards_the_middle = off["bright"][0] < -0.01 and off["dark"][0] > 0.01
    text += "Lin et al. expect pictures nearer to the middle grey without the trace: " + (
        "so it is here." if towards_the_middle else "that does not show in this model, whose prompts say the time."
    )
    amount = -off["bright"][0]
    answer = 0 if amount < 0.02 else 1 if amount <= 0.1 else 2
    return Result(draw(lab, alphas, drawn, levels), text, answer)


def signed(share: float) -> str:
    return f"{100 * share:+.1f} %"


def schedules(lab: Lab) -> dict[str, Tensor]:
    """The betas of each schedule."""
    scaled = lab.blocks[8].scaled_linear_betas()
    count = len(scaled)
    angles = (torch.arange(count + 1, dtype=torch.float64) / count + 0.008) / 1.008 * math.pi / 2
    cosine = torch.cos(angles) ** 2
    return {
        "scaled linear (ours)": scaled,
        "linear": torch.linspace(float(scaled[0]), float(scaled[-1]), count, dtype=torch.float64),
        "cosine": (1 - cosine[1:] / cosine[:-1]).clamp(max=0.999),
        "not squared": scaled.sqrt(),
    }


def brightness(lab: Lab) -> tuple[dict[str, list[Tensor]], dict[str, list[float]]]:
    """For bright and dark scenes, pictures and their mean level (0 ... 1): illustrated, drawn, drawn with the trace."""
    things = ("house", "car", "boat", "cat")[: lab.pick(4, 2)]
    kinds = {"bright": ("white", "snow", "day"), "dark": ("blue", "city", "night")}
    schedule, drawn, levels = lab.model.schedule, {}, {}
    sampling = lab.blocks[9].Sampling(lab.pick(15, 2), lab.opened.config.guidance_scale)
    last = schedule.num_train_timesteps - 1
    timesteps = [last, *lab.blocks[9].timesteps_for(schedule, sampling)[1:]]
    for kind, (colour, ground, time) in kinds.items():
        scenes = [Scene((Thing(thing, colour),), ground, time, "medium", "centre") for thing in things for _ in (0, 1)]
        images = lab.illustrated(scenes)
        context, none = (lab.blocks[9].encode_prompts(lab.model, p) for p in (lab.prompts(scenes), [""] * len(scenes)))
        noise = lab.noise(150, len(scenes))
        # The trace of another picture of the same kind, so that its layout does not help.
        start = schedule.add_noise(lab.encoded(images.roll(1, 0)), noise, torch.full((len(scenes),), last))
        drawn[kind] = [images]
        for latents in (noise, start):
            for step in lab.blocks[9].denoise(lab.model, latents, timesteps, context, none, sampling):
                latents = step.latents
            drawn[kind].append(lab.decoded(latents).clamp(-1, 1))
        levels[kind] = [float(some.mean()) / 2 + 0.5 for some in drawn[kind]]
    return drawn, levels


def draw(lab: Lab, alphas: dict[str, Tensor], drawn: dict[str, list[Tensor]], levels: dict[str, list[float]]) -> Figure:
    figure = new_figure(height=4.4)
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    for (name, abar), style in zip(alphas.items(), ("-", "--", "-.", ":")):
        left.plot(abar.sqrt(), style, label=name, linewidth=2)
    left.set_xlabel("timestep", fontsize=11)
    left.set_ylabel("share of the picture's amplitude left", fontsize=11)
    left.legend(fontsize=10.5)
    left.grid(alpha=0.3)
    rows = [[lab.arrays(some[:1])[0] for some in drawn[kind]] for kind in drawn]
    cell, gap = 128, 24
    grid(right, rows, list(drawn), ["illustrator", "from pure\nnoise", "with the\ntrace"], cell, gap)
    for i, kind in enumerate(drawn):
        for j, level in enumerate(levels[kind]):
            across, down = j * (cell + gap) + cell / 2, i * (cell + gap) + cell + 2
            right.text(across, down, f"mean {level:.3f}", ha="center", va="top", fontsize=10)
    right.set_ylim(len(rows) * (cell + gap), 0)
    right.tick_params(labelsize=11)
    return figure
