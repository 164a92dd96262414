"""How a frame knows which one it is, where its pixels look in the other frames, and what that does to a film."""

from typing import Any

import numpy
import torch
from torch import Tensor, nn

from course.studio.attention import attention_weights
from course.studio.page import POSITIVE, Page, enlarge, grid, new_figure, stacked
from course.studio.studio import FRAMES, Studio, hooked

LONG, CHANNELS = 16, 64  # of the table of positions that is shown
RISING, DRIVING = "a red balloon over the sea at sunset", "a green car in the city by day"
PLACES = {"upper": (0.15, 0.5), "lower": (0.9, 0.12)}  # pixels that are watched: down and across, of 1
CELL = 128
SLICE = 0.78  # how far down the pixels lie whose row is followed through time


@torch.no_grad()
def positions(studio: Studio) -> Page:
    """The positions of the frames, and how much alike any two of them are."""
    table = studio.blocks[13].frame_positions(LONG, CHANNELS)
    alike = table @ table.T / (CHANNELS / 2)  # sin^2 + cos^2 = 1 for each frequency
    figure = new_figure(height=3.4)
    left, right = figure.subplots(1, 2, width_ratios=[1.9, 1.0])
    left.imshow(table.numpy(), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    left.set_title("positions: a row for each frame", fontsize=9)
    left.set_xlabel("channel", fontsize=8)
    left.set_ylabel("frame", fontsize=8)
    shown = right.imshow(alike.numpy(), cmap="viridis", vmin=float(alike.min()), vmax=1.0)
    right.set_title("how much alike two frames are", fontsize=9)
    right.set_xlabel("frame", fontsize=8)
    figure.colorbar(shown, ax=right, shrink=0.8)
    last = int((table[1:] - table[:-1]).abs().max(dim=0).values.gt(0.1).nonzero().max()) + 1
    return Page(
        "How does a frame know which one it is?",
        "Every frame gets a row of sines and cosines. The first channels turn so fast that neighbouring frames differ "
        f"in them; from channel {last} on no frame differs from the next one by more than 0.1. Neighbours are alike "
        f"(scalar product {float(alike[0, 1]):.2f} of 1), frames far apart less so (first and last: "
        f"{float(alike[0, -1]):.2f}), so attention can tell near from far, and before from behind.",
        figure,
    )


@torch.no_grad()
def attention(studio: Studio) -> Page:
    """Where two pixels of a film look in the other frames."""
    film, weights = watch(studio)
    pictures = studio.arrays(film)
    figure = new_figure(height=4.6)
    top, bottom = stacked(figure, [1.3, 3.0])
    grid(top.subplots(), [[marked(studio, picture) for picture in pictures]], [], [f"frame {i}" for i in range(FRAMES)])
    axes = bottom.subplots(1, len(PLACES))
    for (name, _), table, one in zip(PLACES.items(), weights, axes):
        shown = one.imshow(table.numpy(), cmap=POSITIVE, vmin=0.0)
        one.set_title(f"the {name} pixel", fontsize=9)
        one.set_xlabel("frame that is looked at", fontsize=8)
        one.set_ylabel("frame that looks", fontsize=8)
        bottom.colorbar(shown, ax=one, shrink=0.8)
    own = [float(table.diagonal().mean()) for table in weights]
    largest = [float(table.max()) for table in weights]
    return Page(
        "Where does a pixel look in the other frames of its film?",
        f"'{RISING}', with two pixels marked. Each row of a table is a frame and says which share it takes from each "
        f"of the {FRAMES} frames at that pixel (an even share is {1 / FRAMES:.1%}): the mean over heads, steps and the "
        "modules at the latents' own resolution. From itself a frame takes "
        f"{own[0]:.0%} (upper) and {own[1]:.0%} (lower) on average; the largest shares are {largest[0]:.0%} and "
        f"{largest[1]:.0%}.",
        figure,
    )


def watch(studio: Studio) -> tuple[Tensor, list[Tensor]]:
    """A film, and for each of PLACES its weights, (frames, frames)."""
    model, sizes = studio.films
    side = studio.latent_size
    pixels = [int(down * side) * side + int(across * side) for down, across in PLACES.values()]
    seen: list[list[Tensor]] = [[] for _ in pixels]

    def remember(module: nn.Module, arguments: tuple, named: dict) -> None:
        x = arguments[0] if arguments else named["x"]
        if x.shape[0] % (side * side):
            return
        for table, pixel in zip(seen, pixels):
            one = x[pixel :: side * side]  # with the prompt and without it
            table.append(attention_weights(studio, module, one, one, sizes.num_heads).cpu())

    modules = [*model.unet.down[0], *model.unet.up[-1]]
    inside = [part for module in modules for part in (module.block.attention1, module.block.attention2)]
    with hooked(*(module.register_forward_pre_hook(remember, with_kwargs=True) for module in inside)):
        film = studio.film(RISING)
    return film, [torch.stack(table).mean(dim=0) for table in seen]


def marked(studio: Studio, picture: numpy.ndarray) -> numpy.ndarray:
    """The picture with a frame around the square of each pixel of the latents that is watched."""
    framed = enlarge(picture, CELL).copy()
    step = CELL / studio.latent_size
    for down, across in PLACES.values():
        top, left = (int(int(share * studio.latent_size) * step) for share in (down, across))
        bottom, right = top + round(step), left + round(step)
        for grow, colour in ((2, (255, 255, 255)), (1, (220, 0, 90))):
            square = framed[max(top - grow, 0) : bottom + grow, max(left - grow, 0) : right + grow]
            inner = square[grow:-grow, grow:-grow].copy()
            square[:] = colour
            square[grow:-grow, grow:-grow] = inner
    return framed


@torch.no_grad()
def through_time(studio: Studio) -> Page:
    """One row of pixels in all frames, with and without the modules."""
    rows: list[list[Any]] = []
    labels = ["with the\nmodules", "without"]
    for strength in (1.0, 0.0):
        model = studio.films_at(strength)
        rows.append(studio.arrays(studio.film(DRIVING, seed=4, model=model)))
    height = rows[0][0].shape[0]
    line = int(SLICE * height)
    slices = [numpy.stack([picture[line] for picture in row]) for row in rows]  # (frames, width, 3)
    changes = [float(numpy.abs(numpy.diff(numpy.stack(row).astype(float), axis=0)).mean() / 255) for row in rows]
    figure = new_figure(height=4.9)
    top, bottom = stacked(figure, [2.6, 2.2])
    for row in rows:
        for picture in row:
            picture[line] = (255, 255, 255)
    grid(top.subplots(), rows, labels, [f"frame {i}" for i in range(FRAMES)])
    for axes, part, label in zip(bottom.subplots(1, 2), slices, ("with the modules", "without")):
        axes.imshow(part, aspect="auto", interpolation="nearest", extent=(0, part.shape[1], FRAMES - 0.5, -0.5))
        axes.set_title(label, fontsize=9)
        axes.set_xlabel("pixel, from left to right", fontsize=8)
        axes.set_ylabel("frame", fontsize=8)
    return Page(
        "What does a slice through time show?",
        f"'{DRIVING}', each frame from noise of its own. Below: the white row of pixels of every frame, one frame "
        f"below the other. What stands still makes upright stripes, what drives makes slanted ones. From frame to "
        f"frame the pixels of the whole picture change by {changes[0]:.1%} of their range with the modules, and by "
        f"{changes[1]:.1%} without them.",
        figure,
    )


PICTURES = (positions, attention, through_time)
MORE = ()
