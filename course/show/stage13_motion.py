"""How a frame knows which one it is, and what a new motion module does to a picture."""

import torch

from course.studio.page import Page, new_figure
from course.studio.studio import Studio

FRAMES, CHANNELS = 16, 64


@torch.no_grad()
def positions(studio: Studio) -> Page:
    """The positions of the frames, and how much alike any two of them are."""
    table = studio.blocks[13].frame_positions(FRAMES, CHANNELS)
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


PICTURES = (positions,)
MORE = ()
