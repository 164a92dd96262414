"""Pages: a title that asks, a figure that shows, a caption that answers."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from course.core.writing import whole_file

WIDTH = 10.0  # inches
DOTS = 110  # pixels per inch
INK = "#222222"
SIGNED = "RdBu_r"  # colours for numbers around zero
POSITIVE = "inferno"  # colours for numbers from zero on


@dataclass
class Page:
    """A picture with words. The figure holds only the body; `write` adds the words around it."""

    title: str
    caption: str
    figure: Figure


def new_figure(height: float) -> Figure:
    """An empty body, so many inches high."""
    return Figure(figsize=(WIDTH, height), dpi=DOTS, layout="constrained")


def stacked(figure: Figure, heights: Sequence[float]) -> Any:
    """Parts of a figure one below the other, each with a layout of its own."""
    return figure.subfigures(len(heights), 1, height_ratios=list(heights))


def side_by_side(figure: Figure, widths: Sequence[float]) -> Any:
    """Parts of a figure beside each other, each with a layout of its own."""
    return figure.subfigures(1, len(widths), width_ratios=list(widths))


def write(page: Page, notes: Sequence[str], path: Path) -> None:
    """Draws the page into a PNG file, with its notes (whose blocks, which weights) in small print at the bottom."""
    title = textwrap.fill(page.title, 90)
    caption = "\n".join(textwrap.fill(line, 125) for line in page.caption.splitlines())
    small = "\n".join(textwrap.fill(note, 150) for note in notes)
    above = 0.15 + 0.25 * len(title.splitlines())
    small_height = 0.1 + 0.15 * len(small.splitlines())
    below = 0.15 + 0.19 * len(caption.splitlines()) + small_height
    body = page.figure.get_figheight()
    height = above + body + below
    page.figure.set_figheight(height)
    page.figure.set_layout_engine("constrained", rect=(0.01, below / height, 0.98, body / height))
    page.figure.text(0.02, 1 - 0.1 / height, title, va="top", fontsize=13, fontweight="bold", color=INK)
    page.figure.text(0.02, small_height / height, caption, va="bottom", fontsize=10.5, color=INK)
    page.figure.text(0.02, 0.07 / height, small, va="bottom", fontsize=8, color="#777777")

    canvas = FigureCanvasAgg(page.figure)
    canvas.draw()
    picture = Image.fromarray(numpy.asarray(canvas.buffer_rgba())).convert("RGB")
    info = PngInfo()
    for name, text in (("Title", page.title), ("Description", page.caption), ("Comment", "\n".join(notes))):
        info.add_itxt(name, text)
    with whole_file(path) as temporary:
        picture.save(temporary, "PNG", pnginfo=info)


def colours(values, low: float | None = None, high: float | None = None, name: str = SIGNED) -> numpy.ndarray:
    """A map of numbers as an RGB picture: (height, width) -> (height, width, 3), uint8. None: the values' own range."""
    values = numpy.nan_to_num(numpy.asarray(values, dtype=float))
    low = values.min() if low is None else low
    high = values.max() if high is None else high
    scaled = (values - low) / max(high - low, 1e-12)
    return (matplotlib.colormaps[name](scaled)[..., :3] * 255).astype(numpy.uint8)


def difference(a: numpy.ndarray, b: numpy.ndarray, gain: float) -> numpy.ndarray:
    """How far two RGB pictures are apart, so many times enhanced: black where they are the same, (..., 3), uint8."""
    apart = gain * numpy.abs(a.astype(float) - b).mean(-1, keepdims=True)
    return numpy.broadcast_to(apart.clip(0, 255).astype(numpy.uint8), a.shape)


def enlarge(picture, size: int, smooth: bool = False) -> numpy.ndarray:
    """An RGB picture at size x size, as squares or smoothly."""
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return numpy.asarray(Image.fromarray(numpy.ascontiguousarray(picture)).resize((size, size), method))


def grid(
    axes: Axes,
    rows: Sequence[Sequence[numpy.ndarray]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    cell: int = 128,
    gap: int = 6,
) -> None:
    """RGB pictures row by row on one pair of axes, all at the same size; the last row may be shorter."""
    columns = max(map(len, rows))
    step = cell + gap
    sheet = numpy.full((len(rows) * step - gap, columns * step - gap, 3), 255, dtype=numpy.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            sheet[i * step : i * step + cell, j * step : j * step + cell] = enlarge(picture, cell)
    axes.imshow(sheet)
    axes.set_xticks([j * step + cell / 2 for j in range(len(column_labels))], column_labels, fontsize=9)
    axes.set_yticks([i * step + cell / 2 for i in range(len(row_labels))], row_labels, fontsize=9)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)


def grid_figure(
    rows: Sequence[Sequence[numpy.ndarray]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    cell: int = 128,
    largest: float = 1.9,
) -> Figure:
    """A body that is one grid, as high as it needs to be; a picture is at most so many inches wide."""
    columns = max(map(len, rows))
    beside = 0.085 * max((len(line) for label in row_labels for line in label.split("\n")), default=0)
    above = 0.18 * max((1 + label.count("\n") for label in column_labels), default=0)
    figure = new_figure(len(rows) * min(largest, (0.96 * WIDTH - beside) / columns) + above + 0.1)
    grid(figure.subplots(), rows, row_labels, column_labels, cell)
    return figure


def labelled_figure(cells: Mapping[str, numpy.ndarray], columns: int, cell: int = 128) -> Figure:
    """A body of RGB pictures in rows, each under its own label."""
    gap, labels, pictures = 22, list(cells), list(cells.values())
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    side = min(2.1, 0.96 * WIDTH / columns)
    figure = new_figure(len(rows) * side * (cell + gap) / cell + 0.1)
    axes = figure.subplots()
    grid(axes, rows, cell=cell, gap=gap)
    for i, label in enumerate(labels):
        across, down = i % columns * (cell + gap) + cell / 2, i // columns * (cell + gap) - 4
        axes.text(across, down, label, ha="center", va="bottom", fontsize=9)
    return figure
