"""What the U-Net sees in noise, and what is missing when a part of it is switched off."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch

from course.studio.page import Page, grid_figure, labelled_figure
from course.studio.studio import PROMPT, Studio, cutting, hooked, switched_off

TIMESTEPS = (999, 900, 750, 600, 450, 300, 150, 50)
MOST_STEPS = 10


@torch.no_grad()
def estimates(studio: Studio) -> Page:
    """One picture under more and less noise, and what the U-Net takes the clean picture for."""
    model, images = studio.model, studio.scenes(1)
    clean, noise = model.vae.encode(images), studio.noise(3)
    prompt = "a red house in a green meadow by day"
    context = studio.context(prompt)
    noisy, guesses = [], []
    for timestep in TIMESTEPS:
        moment = torch.tensor([timestep], device=clean.device)
        noisy.append(model.schedule.add_noise(clean, noise, moment))
        predicted = model.unet(noisy[-1], moment, context)
        guesses.append(model.schedule.predict_original(noisy[-1], predicted, timestep))
    rows = [studio.decode(torch.cat(noisy)), studio.decode(torch.cat(guesses))]
    return Page(
        "What does the U-Net see in the noise?",
        "Top: the latents of one picture under less and less noise, decoded. Below: the clean picture that follows "
        f"from the noise that the U-Net predicts for '{prompt}'. "
        "Under strong noise that is blurred, an average of much "
        "that the prompt allows, and small errors of the noise become large ones of the picture; with less noise it "
        "settles on this one.",
        grid_figure(rows, ["noisy", "estimate"], [f"t = {t}" for t in TIMESTEPS]),
    )


@torch.no_grad()
def switched(studio: Studio) -> Page:
    """The same prompt and noise with one part of the U-Net switched off at a time."""
    unet, config = studio.model.unet, studio.opened.config.unet
    levels = len(config.channels)
    parts: dict[str, list[Any]] = {"everything on": []}
    for level in range(levels):
        parts[f"no skips, level {level}"] = ["skips", level]
    parts |= {"no middle block": ["middle"], "no cross-attention": ["cross_attention"]}
    parts |= {"no self-attention": ["self_attention"], "no timestep": ["time"]}
    pictures, whole = {}, None
    for name, part in parts.items():
        with without(studio, unet, *part):
            picture = studio.arrays(studio.draw(PROMPT, seed=1, steps=min(studio.steps, MOST_STEPS)))[0]
        whole = picture if whole is None else whole
        change = numpy.abs(picture.astype(float) - whole).mean() / 255
        pictures[f"{name}: {change:.0%}" if part else name] = picture
    return Page(
        "What does each skip connection carry, and what is missing when a part is switched off?",
        f"'{PROMPT}', always from the same noise; numbers: how far pixels move on average. Level 0 is the finest: its "
        "skips carry the noise itself, pixel by pixel. Without cross-attention the prompt is not heard; without the "
        "timestep the network does not know how much noise to look for. What moves little is hardly needed here.",
        labelled_figure(pictures, columns=4),
    )


@contextmanager
def without(studio: Studio, unet: Any, part: str = "", level: int = 0) -> Iterator[None]:
    """The U-Net with a part switched off by hooks, for as long as the block runs."""
    handles = []
    if part == "skips":
        block = unet.up[len(unet.up) - 1 - level]
        channels = studio.opened.config.unet.channels
        below, width = channels[min(level + 1, len(channels) - 1)], channels[level]
        for i, residual in enumerate(block.residuals):
            handles.append(residual.register_forward_pre_hook(cutting(below if i == 0 else width)))
    elif part == "middle":
        handles.append(unet.mid.register_forward_hook(lambda _, inputs, output: inputs[0]))
    elif part == "time":
        handles.append(switched_off(unet.time_embedding))
    elif part:
        blocks = [module for module in unet.modules() if isinstance(module, studio.blocks[3].TransformerBlock)]
        handles += [switched_off(getattr(block, part)) for block in blocks]
    with hooked(*handles):
        yield


PICTURES = (estimates, switched)
MORE = ()
