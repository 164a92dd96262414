"""The way from noise to picture, and what guidance, a negative prompt and strength do to it."""

import torch

from course.studio.page import Page, grid_figure
from course.studio.studio import PROMPT, Studio

MOST_STEPS = 10
SCALES = (0.0, 1.0, 3.0, 7.5, 15.0)
STRENGTHS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


@torch.no_grad()
def film(studio: Studio) -> Page:
    """The guess of the picture after each step, for each sampler."""
    count = min(studio.steps, MOST_STEPS)
    samplers = studio.blocks[9].SAMPLERS
    rows = []
    for name in samplers:
        _, steps = studio.walk(PROMPT, seed=2, steps=count, sampler=name)
        rows.append(studio.decode(torch.cat([step.original for step in steps])))
    return Page(
        "How does noise become a picture, and what differs between samplers?",
        f"Each row shows what its sampler takes for the clean picture in each of {count} steps, from the same "
        "noise: first the layout, then detail. DDIM and Euler are one step written in two ways and differ only in "
        "their last one; DDPM puts in fresh noise, so its picture comes out differently; DPM-Solver++ also looks at "
        "where the guess is moving.",
        grid_figure(rows, samplers, [f"step {i + 1}" for i in range(count)]),
    )


@torch.no_grad()
def guidance(studio: Studio) -> Page:
    """Three seeds at five guidance scales."""
    columns = [studio.arrays(studio.draw([PROMPT] * 3, seed=10, scale=scale)) for scale in SCALES]
    names = [f"scale {scale:g}" for scale in SCALES]
    return Page(
        "What do guidance 0, 1, 3, 7.5 and 15 look like?",
        f"'{PROMPT}'. At 0 the prompt is ignored, at 1 it has the weight that the model has learned. Larger scales "
        "follow it more closely, with less variety between seeds; too large ones leave what the model has learned, and "
        "spoil colours and contrast.",
        grid_figure(list(zip(*columns)), ["seed 10", "seed 11", "seed 12"], names),
    )


@torch.no_grad()
def strength(studio: Studio) -> Page:
    """Image to image: one picture, another prompt, more and more strength."""
    images = studio.scenes(1)
    prompt = "a blue house in the snow at night"
    pictures = studio.arrays(images)
    for amount in STRENGTHS:
        result = studio.blocks[9].image_to_image(
            studio.model,
            images,
            [prompt],
            [""],
            studio.noise(4),
            strength=amount,
            sampling=studio.blocks[9].Sampling(studio.steps, studio.opened.config.guidance_scale),
        )
        pictures.extend(studio.arrays(result))
    return Page(
        "What do strengths 0.1 to 1.0 do in image to image?",
        f"The strength says how many of the last steps are walked, here towards '{prompt}'. Little of it changes only "
        "detail; then colours follow the prompt while the layout stays; at 1 hardly a trace of the given picture is "
        "left.",
        grid_figure([pictures], [], ["given", *(f"strength {amount:g}" for amount in STRENGTHS)]),
    )


@torch.no_grad()
def negative(studio: Studio) -> Page:
    """The same seeds with and without a negative prompt."""
    prompt = "a red house"
    words = ("", "by day", "at sunset", "in a green meadow")
    columns = [studio.arrays(studio.draw([prompt] * 3, seed=10, negative=text)) for text in words]
    names = [f"negative: '{text}'" if text else "none" for text in words]
    return Page(
        "How can subtraction work in a negative prompt?",
        f"'{prompt}', three seeds. What is subtracted are two predictions of the noise in the same latents, one for "
        "each text; their difference is a direction in the latents, away from what the negative prompt would draw. It "
        "pushes on everything: away from a green meadow, the colour of the house may change as well.",
        grid_figure(list(zip(*columns)), [], names),
    )


PICTURES = (film,)
MORE = (guidance, strength, negative)
