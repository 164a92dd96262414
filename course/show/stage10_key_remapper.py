"""Which names of a published checkpoint went where, and averaged weights beside raw ones."""

import re
from collections.abc import Callable, Mapping, Sequence

import matplotlib
import numpy
import torch
from matplotlib.axes import Axes
from torch import Tensor

from course.studio.page import Page, difference, grid_figure, new_figure
from course.studio.studio import Studio

PROMPTS = ("a red house in the snow at night", "a white boat on the sea at sunset", "a green tree in the desert by day")

GAIN = 8  # of the difference between two pictures

# The part of a name that makes a group: of their names, of ours.
GROUPS = {
    "vae": (r"(encoder|decoder)\.(down\.\d|up\.\d|\w+)|\w+", r"(encoder|decoder)\.(levels\.\d|\w+)|\w+"),
    "clip": (r"text_model\.(encoder\.layers\.\d+|embeddings|\w+)", r"layers\.\d+|\w+"),
    "unet": (r"(in|out)put_blocks\.\d+|\w+", r"(down|up)\.\d\.(residuals|transformers|\w+)|\w+"),
}
# Their groups in the order in which they run, but for the two convolutions around the latents.
ORDER = (
    "time_embed",
    "input_blocks",
    "middle_block",
    "output_blocks",
    "out",
    "encoder.conv_in",
    "encoder.down",
    "encoder.mid",
    "encoder.norm_out",
    "encoder.conv_out",
    "decoder.conv_in",
    "decoder.mid",
    "decoder.up",
    "decoder.norm_out",
    "decoder.conv_out",
    "quant_conv",
    "post_quant_conv",
    "text_model.embeddings",
    "text_model.encoder",
    "text_model.final",
)

Flows = Mapping[tuple[str, str], int]


def group(pattern: str, name: str) -> str:
    """The part of a name that says which group it belongs to."""
    found = re.match(pattern, name)
    return found[0] if found else name


def names(studio: Studio) -> Page:
    """Ribbons from groups of CompVis names to groups of ours, for each of the three models."""
    remap, model = studio.blocks[10], studio.model
    parts = remap.split_checkpoint(dict(studio.opened.tensors))
    models = {
        "vae": (model.vae, remap.remap_vae),
        "clip": (model.text_encoder, remap.remap_clip),
        "unet": (model.unet, remap.remap_unet),
    }
    figure = new_figure(height=6.6)
    count = 0
    for axes, (part, (network, remapper)) in zip(figure.subplots(1, 3), models.items()):
        theirs, ours = GROUPS[part]
        pairs = renamed(parts[part], remapper)
        count += len(pairs)
        flows: dict[tuple[str, str], int] = {}
        for old, new in pairs.items():
            key = group(theirs, old), group(ours, new)
            flows[key] = flows.get(key, 0) + parts[part][old].numel()
        order = list(dict.fromkeys(group(ours, name) for name in network.state_dict()))
        ribbons(axes, flows, sorted(dict.fromkeys(key[0] for key in flows), key=running_order), order)
        millions = sum(flows.values()) / 1e6
        axes.set_title(f"{part}: {len(pairs)} tensors, {millions:.1f} million numbers", fontsize=9)
    return Page(
        "Which tensor of the file went where?",
        "Left CompVis' names, right ours, from top to bottom; a ribbon's height grows with the root of "
        f"its size. All {count} tensors arrive. CompVis counts the decoder's levels from the other end, so these "
        "cross; it counts the U-Net's blocks through, where we count them by level.",
        figure,
    )


def renamed(tensors: Mapping[str, Tensor], remapper: Callable) -> dict[str, str]:
    """Their names -> ours, found by giving every tensor a number of its own for contents before it is renamed."""
    old = list(tensors)
    numbered = {name: torch.tensor(float(i)).expand(tensors[name].shape) for i, name in enumerate(old)}
    return {old[int(tensor.flatten()[0])]: name for name, tensor in remapper(numbered).items()}


def running_order(name: str) -> tuple[int, list[int]]:
    """Sorts groups of CompVis names as they run, and 2 before 10."""
    place = next((i for i, beginning in enumerate(ORDER) if name.startswith(beginning)), len(ORDER))
    return place, [int(number) for number in re.findall(r"\d+", name)]


def ribbons(axes: Axes, flows: Flows, left_names: Sequence[str], right_names: Sequence[str]) -> None:
    """Draws flows between two columns of names."""
    roots = {pair: size**0.5 for pair, size in flows.items()}
    heights = {pair: max(root, 0.022 * sum(roots.values())) for pair, root in roots.items()}
    left, right = places(heights, 0, left_names, right_names), places(heights, 1, right_names, left_names)
    curve = numpy.linspace(0, 1, 30)
    bend = curve * curve * (3 - 2 * curve)
    for pair, height in heights.items():
        top = left[pair] + (right[pair] - left[pair]) * bend
        colour = matplotlib.colormaps["turbo"](0.08 + 0.84 * left_names.index(pair[0]) / len(left_names))
        axes.fill_between(curve, top, top + height, color=colour, alpha=0.6, linewidth=0)
    for spots, column, x, side in ((left, 0, -0.02, "right"), (right, 1, 1.02, "left")):
        for name in dict.fromkeys(pair[column] for pair in heights):
            inside = [pair for pair in heights if pair[column] == name]
            middle = (min(spots[p] for p in inside) + max(spots[p] + heights[p] for p in inside)) / 2
            axes.text(x, middle, name, ha=side, va="center", fontsize=6.5)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.axis("off")


def places(
    heights: Mapping[tuple[str, str], float], column: int, names: Sequence[str], opposite: Sequence[str]
) -> dict[tuple[str, str], float]:
    """Where on the vertical axis each flow begins (column 0) or ends (1): name by name, from top to bottom."""
    found, top = {}, 0.0
    for name in names:
        inside = [pair for pair in heights if pair[column] == name]
        for pair in sorted(inside, key=lambda p: opposite.index(p[1 - column])):
            found[pair] = top
            top += heights[pair]
        top += 0.008 * sum(heights.values())
    return found


@torch.no_grad()
def averages(studio: Studio) -> Page:
    """The same prompts and noise with the averaged and with the raw weights of the U-Net."""
    models = {"averaged (EMA)": studio.model, "raw": studio.build(ema=False)}
    averaged, raw = (torch.cat([p.flatten() for p in model.unet.parameters()]) for model in models.values())
    change = float((averaged - raw).norm() / averaged.norm())
    rows = [studio.arrays(studio.draw(PROMPTS, seed=20, model=model)) for model in models.values()]
    moved = numpy.abs(numpy.stack(rows[0]).astype(float) - numpy.stack(rows[1])).mean() / 255
    rows.append([difference(a, b, GAIN) for a, b in zip(*rows)])
    return Page(
        "What is the difference between EMA and raw weights?",
        f"The two differ by {change:.1%} of their length: the raw ones are where training happened to stop, the "
        f"averaged ones the middle of where it had wandered. Pixels differ by {moved:.1%} on average: little, if the "
        "steps of training had become small at its end. Pictures are made with the average.",
        grid_figure(
            rows, [*models, f"difference\n(x{GAIN})"], [f"'{prompt}'" for prompt in PROMPTS], cell=192, largest=2.4
        ),
    )


PICTURES = (names, averages)
MORE = ()
