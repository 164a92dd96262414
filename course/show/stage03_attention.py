"""Where attention looks: from pixels to words, and from pixels to pixels; and what the root of d is for."""

import math

import numpy
import torch
from torch import Tensor, nn

from course.studio.attention import CELL, attention_weights, overlay, to_size, token_names
from course.studio.page import Page, enlarge, grid_figure, labelled_figure, new_figure
from course.studio.studio import PROMPT, Studio, hooked

MOMENTS = (0.3, 0.45, 0.6, 0.75)  # of the way from noise to picture
LARGEST = 1024  # pixels in self-attention, whose table of weights is that number squared
SWAPS = {"red": "blue", "house": "boat", "snow": "desert", "night": "sunset"}  # words of PROMPT -> others
WIDTHS = (4, 64, 1024)  # values of d
KEYS = 16


@torch.no_grad()
def words(studio: Studio) -> Page:
    """Where pixels look at a word, and where the predicted noise changes with it."""
    picture, maps = watch(studio, "cross_attention")
    merged = merge(studio, maps)
    names = token_names(studio, PROMPT)
    looks, changes, columns = [picture], [numpy.full_like(picture, 255)], ["the picture"]
    for word, other in SWAPS.items():
        place = next((i for i, name in enumerate(names) if name.strip("'") == word), 0)
        looks.append(overlay(picture, merged[place]))
        changes.append(overlay(picture, effect(studio, PROMPT.replace(word, other))))
        columns.append(f"'{word}'  {float(merged[place].mean()):.0%}\n({other})")
    rest = float(merged[len(names) :].sum(0).mean())
    return Page(
        "Which words do pixels attend to, and what does a word change?",
        f"'{PROMPT}'. Top: bright pixels take much from the word (the number is its share of all weight; padding has "
        f"{rest:.0%}). Bottom: where the predicted noise changes if the word in brackets stands in its place. The two "
        "differ: every token has seen the words before it, so the vector of 'snow' also tells of a red house, and what "
        "pixels take from it is not only snow.",
        grid_figure([looks, changes], ["where pixels\nlook at it", "what it\nchanges"], columns, cell=CELL),
    )


def merge(studio: Studio, maps: list[Tensor]) -> Tensor:
    """The average of several tables of weights: (tokens, size, size)."""
    return torch.stack([to_size(weights, studio.latent_size) for weights in maps]).mean(0)


def effect(studio: Studio, prompt: str) -> Tensor:
    """How much the noise that is predicted for PROMPT changes with another prompt: (size, size)."""
    _, steps = studio.walk(PROMPT)
    contexts = torch.cat([studio.context(PROMPT), studio.context(prompt)])
    total = torch.zeros(studio.latent_size, studio.latent_size, device=contexts.device)
    for before, step in moments(steps):
        latents = before.latents.repeat(2, 1, 1, 1)
        noise = studio.model.unet(latents, torch.full((2,), step.timestep, device=latents.device), contexts)
        total += (noise[1] - noise[0]).square().sum(0).sqrt()
    return total.cpu()


def moments(steps: list) -> list[tuple]:
    """Some steps of a walk, each behind the one before it."""
    indices = [max(int(moment * len(steps)), 1) for moment in MOMENTS]
    return [(steps[i - 1], steps[i]) for i in indices]


@torch.no_grad()
def tokens(studio: Studio) -> Page:
    """How much each place of a picture looks at each token, averaged over layers, heads and steps."""
    picture, maps = watch(studio, "cross_attention")
    tokens = token_names(studio, PROMPT)
    merged = merge(studio, maps)
    cells, share = {"the picture": picture}, ""
    for token, weights in zip([*tokens, "padding"], [*merged[: len(tokens)], merged[len(tokens) :].sum(0)]):
        share = f"{float(weights.mean()):.0%}"
        name = token if f"{token}  {share}" not in cells else f"{token} again"
        cells[f"{name}  {share}"] = overlay(picture, weights)
    return Page(
        "How much attention does each token get?",
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
        for before, step in moments(steps):
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


@torch.no_grad()
def root(studio: Studio) -> Page:
    """The weights that a softmax makes of products of random queries and keys, with and without the root of d."""
    figure = new_figure(height=2.9)
    generator = torch.Generator().manual_seed(0)
    largest = []
    for axes, d in zip(figure.subplots(1, len(WIDTHS), sharey=True), WIDTHS):
        query, key = (torch.randn(1000, 1, n, d, generator=generator, dtype=torch.float64) for n in (1, KEYS))
        variance = float((query @ key.transpose(-2, -1)).var())
        unit_vectors = torch.eye(KEYS, dtype=torch.float64).expand(1000, 1, KEYS, KEYS)
        for scale, label in ((1.0, "divided by sqrt(d)"), (math.sqrt(d), "not divided")):
            weights = studio.blocks[3].scaled_dot_product_attention(query * scale, key, unit_vectors)
            mean = weights[:, 0, 0].sort(descending=True).values.mean(0)
            axes.plot(range(1, KEYS + 1), mean, ".-" if scale == 1.0 else ".--", label=label)
            largest.append(f"{float(mean[0]):.2f}")
        axes.set_title(f"d = {d}: q.k has variance {variance:.4g}", fontsize=9)
        axes.set_xlabel(f"the {KEYS} keys of a query, by weight", fontsize=8)
        axes.set_xticks((1, 4, 8, 12, 16))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return Page(
        "Why is the product of query and key divided by sqrt(d)?",
        "The sum of d products of numbers with variance 1 has variance d (above, measured on 1000 queries). Not "
        "divided, the sums of wide heads lie so far apart that the softmax takes one key alone (its weight, on "
        f"average: {', '.join(largest[1::2])}), and hardly any gradient gets through. Divided by sqrt(d) they have "
        f"variance 1 for every d ({', '.join(largest[::2])}).",
        figure,
    )


PICTURES = (words, pixels, root)
MORE = (tokens,)
