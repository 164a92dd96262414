"""Where attention looks: from pixels to words, and from pixels to pixels."""

import math

import numpy
import torch
from torch import Tensor, nn

from course.studio.attention import CELL, attention_weights, overlay, to_size, token_names
from course.studio.page import Page, enlarge, grid_figure, labelled_figure
from course.studio.studio import PROMPT, Studio, hooked

MOMENTS = (0.3, 0.45, 0.6, 0.75)  # of the way from noise to picture
LARGEST = 1024  # pixels in self-attention, whose table of weights is that number squared


@torch.no_grad()
def words(studio: Studio) -> Page:
    """How much each place of a picture looks at each token, averaged over layers, heads and steps."""
    picture, maps = watch(studio, "cross_attention")
    tokens = token_names(studio, PROMPT)
    size = studio.latent_size
    merged = torch.stack([to_size(weights, size) for weights in maps]).mean(0)  # (tokens, size, size)
    cells, share = {"the picture": picture}, ""
    for token, weights in zip([*tokens, "padding"], [*merged[: len(tokens)], merged[len(tokens) :].sum(0)]):
        share = f"{float(weights.mean()):.0%}"
        name = token if f"{token}  {share}" not in cells else f"{token} again"
        cells[f"{name}  {share}"] = overlay(picture, weights)
    return Page(
        "Which words do pixels attend to?",
        "Bright: pixels that take much from this token (each map has its own scale; the number is its share of all "
        "weight). The pixels of a thing look at the words that name it, and often at words behind those, whose vectors "
        f"have seen them. The {len(merged) - len(tokens)} tokens of padding have seen the whole prompt; all of them "
        f"together take {share}.",
        labelled_figure(cells, columns=4, cell=CELL),
    )


@torch.no_grad()
def pixels(studio: Studio) -> Page:
    """What a few chosen pixels look at, averaged over layers, heads and steps."""
    picture, maps = watch(studio, "self_attention")
    size = max(math.isqrt(len(weights)) for weights in maps)
    finest = torch.stack([weights for weights in maps if len(weights) == size * size]).mean(0)  # (queries, keys)
    places = {
        "the middle": (0.5, 0.5),
        "the sky": (0.12, 0.3),
        "the ground": (0.88, 0.75),
        "the left edge": (0.5, 0.06),
    }
    top, bottom = [], []
    for down, across in places.values():
        row, column = int(down * size), int(across * size)
        weights = finest[row * size + column].reshape(size, size)
        top.append(marked(picture, row, column, size))
        bottom.append(overlay(picture, weights))
    figure = grid_figure([top, bottom], ["a pixel", "where it\nlooks"], list(places), cell=192, largest=2.3)
    return Page(
        "Which pixels attend to which?",
        "Those whose keys agree with its query, near or far: nothing in the formula knows about distance. Red: the "
        f"pixel that looks; bright: what it takes most from (self-attention among {size} x {size} latents, each map "
        "with its own scale).",
        figure,
    )


def watch(studio: Studio, kind: str) -> tuple[numpy.ndarray, list[Tensor]]:
    """A generated picture and the weights of all attentions of a kind while it was made, each (queries, keys).

    The U-Net is asked again at some of the latents that the sampler went through, with the prompt alone.
    """
    images, steps = studio.walk(PROMPT)
    modules = [
        getattr(module, kind)
        for module in studio.model.unet.modules()
        if isinstance(module, studio.blocks[3].TransformerBlock)
    ]
    seen: list[Tensor] = []

    def remember(module: nn.Module, arguments: tuple, named: dict) -> None:
        x = arguments[0] if arguments else named["x"]
        context = arguments[1] if len(arguments) > 1 else named.get("context")
        if kind == "cross_attention" or x.shape[1] <= LARGEST:
            seen.append(attention_weights(studio, module, x, x if context is None else context).cpu())

    context = studio.context(PROMPT)
    with hooked(*(module.register_forward_pre_hook(remember, with_kwargs=True) for module in modules)):
        for moment in MOMENTS:
            index = max(int(moment * len(steps)), 1)
            before, step = steps[index - 1], steps[index]
            studio.model.unet(before.latents, torch.tensor([step.timestep], device=before.latents.device), context)
    return studio.arrays(images)[0], seen


def marked(picture: numpy.ndarray, row: int, column: int, size: int) -> numpy.ndarray:
    """The picture with a frame around one latent's square."""
    side = CELL // size if size < CELL else 1
    framed = enlarge(picture, side * size).copy()
    top, left = row * side, column * side
    framed[max(top - 3, 0) : top + side + 3, max(left - 3, 0) : left + side + 3] = (255, 255, 255)
    framed[max(top - 2, 0) : top + side + 2, max(left - 2, 0) : left + side + 2] = (220, 0, 90)
    return framed


PICTURES = (words, pixels)
MORE = ()
