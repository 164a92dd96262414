"""Feature maps before and after group norm, with few and with many groups."""

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from torch import Tensor

from course.studio.page import SIGNED, Page, colours, grid, new_figure
from course.studio.studio import Studio

SHOWN = 8  # channels
CELL, GAP = 96, 6  # pixels of a map and between two
REACH = 3.0  # normalised values are drawn from -3 to 3


@torch.no_grad()
def groups(studio: Studio) -> Page:
    """The same channels under one group, the checkpoint's own number of groups, and as many groups as channels."""
    features = level_two_features(studio)
    channels = features.shape[1]
    own = studio.opened.config.vae.num_groups
    group_norm = studio.blocks[1].group_norm
    rows = {f"as it comes\n{channels} channels": (features, own)}
    for count, name in ((1, "layer norm"), (own, "group norm"), (channels, "instance norm")):
        rows[f"num_groups={count}\n{name}"] = (group_norm(features, count), count)

    figure = new_figure(height=4.6)
    axes = figure.subplots(len(rows), 2, width_ratios=[3.2, 1])
    for i, (label, (maps, count)) in enumerate(rows.items()):
        reach = REACH if i else float(maps[0, :SHOWN].abs().max())
        shown = [colours(channel, -reach, reach) for channel in maps[0, :SHOWN].cpu()]
        names = [f"channel {n}" for n in range(1, SHOWN + 1)] if i == 0 else []
        grid(axes[i, 0], [shown], [label], names, cell=CELL, gap=GAP)
        borders(axes[i, 0], channels // count if i else channels)
        bar = figure.colorbar(
            ScalarMappable(Normalize(-reach, reach), colormaps[SIGNED]), ax=axes[i, 0], aspect=8, pad=0.01
        )
        bar.ax.tick_params(labelsize=7)
        levels_plot(axes[i, 1], maps[0], count if i else None)
    axes[0, 1].set_title("each channel: mean and deviation", fontsize=8)
    return Page(
        "Why is group norm a compromise, and what do num_groups = 1 and num_groups = C give?",
        "One group keeps all differences between channels, also those of size: the strong ones stay strong. One "
        "group per channel makes all of them alike, and forgets which one was strong. Groups keep the difference "
        "between neighbours and even out the rest (black lines and bands: groups).",
        figure,
    )


def level_two_features(studio: Studio) -> Tensor:
    """What the second level of the VAE's encoder makes of a picture."""
    encoder = studio.model.vae.encoder
    return encoder.levels[1](encoder.levels[0](encoder.conv_in(studio.scenes(1))))


def borders(axes: Axes, size: int) -> None:
    """Lines between the maps of different groups of so many channels."""
    for channel in range(size, SHOWN, size):
        axes.axvline(channel * (CELL + GAP) - GAP / 2 - 0.5, color="black", linewidth=1.6)


def levels_plot(axes: Axes, maps: Tensor, groups: int | None) -> None:
    """Each channel's mean and standard deviation, on bands that are the groups."""
    maps = maps.cpu().flatten(1)
    size = len(maps) // groups if groups else len(maps)
    for start in range(0, len(maps), 2 * size):
        axes.axvspan(start + 0.5, start + size + 0.5, color="0.92", linewidth=0)
    axes.errorbar(range(1, len(maps) + 1), maps.mean(1), maps.std(1), fmt=".", markersize=3, linewidth=0.8)
    axes.axhline(0, color="0.5", linewidth=0.6)
    axes.set_xlim(0.5, len(maps) + 0.5)
    axes.tick_params(labelsize=7)


PICTURES = (groups,)
MORE = ()
