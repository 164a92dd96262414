"""How few numbers describe what a training changes, and what the strength of a LoRA does."""

from typing import Any

import torch
from torch import Tensor

from course.core.messages import Refusal
from course.core.stages import short_path
from course.draw.lora import read_file
from course.studio.page import Page, grid_figure, new_figure
from course.studio.studio import Studio

RANKS = (1, 2, 4, 8, 16, 32, 64)
ADAPTER = "snowman.safetensors"  # beside the model
ADAPTER_PROMPT = "a red snowman in the snow by day"
STRENGTHS = (-0.5, 0.0, 0.5, 1.0, 1.5)


def explained(change: Tensor) -> Tensor:
    """Which share of a matrix's squares the best matrix of each rank has: (ranks,)."""
    squares = torch.linalg.svdvals(change.double()).square().cumsum(0)
    return squares / squares[-1].clamp(min=1e-30)


@torch.no_grad()
def ranks(studio: Studio) -> Page:
    """The change from the raw to the averaged weights, which is one of a real training, by its best low ranks."""
    stage = studio.blocks[12]
    averaged, raw = studio.model.unet, studio.build(ema=False).unet
    shares, numbers = [], []
    for name in stage.attention_layers(averaged):
        new, old = (unet.get_submodule(name).weight.cpu() for unet in (averaged, raw))
        shares.append(explained(new - old))
        numbers.append([rank * sum(new.shape) / new.numel() for rank in RANKS])
    figure = new_figure(height=3.3)
    left, right = figure.subplots(1, 2)
    for share in shares:
        left.plot(range(1, len(share) + 1), share, color="0.6", linewidth=0.7)
    means = [float(torch.stack([share[min(rank, len(share)) - 1] for share in shares]).mean()) for rank in RANKS]
    sizes = [sum(column) / len(numbers) for column in zip(*numbers)]
    left.plot(RANKS, means, "o-", color="C3", label="mean")
    left.set_xscale("log", base=2)
    left.set_title("share of the change that a rank describes", fontsize=9)
    right.plot(RANKS, sizes, "o-", color="C3")
    right.axhline(1.0, color="0.6", linewidth=0.7)
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    right.set_title("numbers of down and up, as a share of the layer's", fontsize=9)
    left.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_xlabel("rank", fontsize=8)
    return Page(
        "How few numbers describe a change of the weights?",
        f"The change here leads from the raw to the averaged weights, in {len(shares)} attention projections. The best "
        f"matrices of rank 4 hold {means[2]:.0%} of its squares with {sizes[2]:.0%} of the numbers, those of rank 16 "
        f"{means[4]:.0%} with {sizes[4]:.0%}. Nobody asked this training for a low rank; LoRA looks for changes that "
        "have one.",
        figure,
    )


@torch.no_grad()
def strengths(studio: Studio) -> Page:
    """The same noise with the adapter that comes with the course, at several strengths."""
    stage = studio.blocks[12]
    path = studio.opened.path.with_name(ADAPTER)
    if not path.is_file():
        raise Refusal(f"{short_path(path)} is missing: only the model that comes with the course has such a LoRA file.")
    rows: list[list[Any]] = [[], []]
    for strength in STRENGTHS:
        model = studio.build(ema=True)
        updates = stage.read_lora(read_file(path), model.unet, model.text_encoder)
        stage.apply_lora(model.unet, model.text_encoder, updates, strength)
        for row, prompt in zip(rows, (ADAPTER_PROMPT, "a red house in a green meadow at night")):
            row += studio.arrays(studio.draw(prompt, seed=2, model=model))
    return Page(
        "What does the strength of a LoRA do?",
        "Strength 0 is the model as it was, 1 what the file was trained for; between them the correction is mixed in, "
        "and beyond 1 it is exaggerated. A prompt without the new word should change little.",
        grid_figure(rows, ["the new word", "an old one"], [f"strength {strength:g}" for strength in STRENGTHS]),
    )


PICTURES = (ranks,)
MORE = (strengths,)
