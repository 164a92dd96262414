"""Writes down what experiments found: a page in outputs/, or an entry of docs/gallery.md.

An entry is a PNG file without words around its figure; its words are in the file's text entries. So the page can be
made of the pictures that are there, and an experiment that is run again replaces its own entry only.
"""

from pathlib import Path
from types import ModuleType

import numpy
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from course.core.stages import ROOT, STAGES, short_path
from course.core.writing import whole_file
from course.experiments.lab import Lab, Result
from course.studio.page import Page, write
from course.studio.question import verdict

FOLDER = ROOT / "docs" / "gallery"
COLOURS = 200  # of an entry's palette


def words(found: ModuleType, result: Result, guess: int | None) -> str:
    """What stands under the picture: what was measured, and the answer to the question that was asked before."""
    return f"{result.text} {verdict(found.QUESTION, guess, result.answer)}"


def notes(lab: Lab) -> list[str]:
    lines = [lab.whose, f"Weights: {short_path(lab.opened.path)}."]
    if not lab.opened.trained:
        lines[1] = f"{short_path(lab.opened.path)} is untrained: its weights are random, and so are its pictures."
    if lab.short:
        lines.append("Made with as little computing as possible: the figures mean nothing.")
    return lines


def write_page(lab: Lab, name: str, found: ModuleType, result: Result, guess: int | None, folder: Path) -> Path:
    """A picture with its words, and beside it the film if there is one; returns the picture's path."""
    path = folder / f"experiment-{name}.png"
    write(Page(found.TITLE, words(found, result, guess), result.figure), [" ".join(notes(lab))], path)
    write_film(result, path)
    return path


def write_entry(lab: Lab, name: str, found: ModuleType, result: Result, folder: Path) -> Path:
    """A figure with few colours, its words in text entries; returns its path."""
    canvas = FigureCanvasAgg(result.figure)
    canvas.draw()
    picture = Image.fromarray(numpy.asarray(canvas.buffer_rgba())).convert("RGB")
    info = PngInfo()
    for key, text in (
        ("Title", found.TITLE),
        ("Description", result.text),
        ("Question", found.QUESTION.text),
        ("Choices", " - ".join(found.QUESTION.choices)),
        ("Answer", found.QUESTION.choices[result.answer]),
        ("Comment", " ".join(notes(lab))),
    ):
        info.add_itxt(key, text)
    path = folder / f"{name}.png"
    with whole_file(path) as temporary:
        small = picture.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
        small.save(temporary, "PNG", optimize=True, pnginfo=info)
    write_film(result, path)
    return path


def write_film(result: Result, path: Path) -> None:
    """An animated WebP beside the picture."""
    if result.film is None:
        return
    first, *rest = result.film
    with whole_file(path.with_suffix(".webp")) as temporary:
        first.save(temporary, "WEBP", save_all=True, append_images=rest, duration=120, loop=0, quality=80, method=6)


def write_text(folder: Path) -> Path:
    """Writes the page of all entries beside their folder; returns its path."""
    page = folder.with_suffix(".md")
    with whole_file(page) as temporary:
        temporary.write_text(page_text(folder), encoding="utf-8")
    return page


def page_text(folder: Path) -> str:
    """The page of all entries that are in the folder, in the order of the stages."""
    from course.experiments import EXPERIMENTS

    lines = [
        "# Questions and answers",
        "",
        "What the model that comes with the course answers when it is asked. Each picture and each number is made by",
        "`make experiment NAME=...`, which uses your own blocks where they are finished. `make experiment NAME=all`",
        "makes this page anew. Each experiment is a short file in [course/experiments/](../course/experiments/).",
    ]
    last = 0
    for name, number in EXPERIMENTS.items():
        path = folder / f"{name}.png"
        if not path.is_file():
            continue
        with Image.open(path) as picture:
            text = {key: str(value) for key, value in picture.text.items()}  # pyrefly: ignore  # a PNG file has texts
        if number != last:
            lines += ["", f"## Stage {number}: {STAGES[number - 1].name}"]
            last = number
        lines += [
            "",
            f"### {text['Title']}",
            "",
            f"![{text['Title']}]({folder.name}/{path.name})",
            "",
            text["Description"],
        ]
        if path.with_suffix(".webp").is_file():
            lines += ["", f"![{text['Title']}, as a film]({folder.name}/{path.with_suffix('.webp').name})"]
        lines += ["", f"*{text['Question']}* {text['Choices']}. Here: **{text['Answer']}**."]
        lines += ["", f"<sub>`make experiment NAME={name}`. {text['Comment']}</sub>"]
    return "\n".join(lines) + "\n"
