"""Writes down what experiments found: a page in outputs/, or an entry of docs/gallery.md.

An entry is a WebP file without words around its figure; its words are in the description that the file holds. So the
page can be made of the pictures that are there, and an experiment that is run again replaces its own entry only.
"""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from course.core.stages import ROOT, STAGES, short_path
from course.core.writing import whole_file
from course.experiments.lab import Lab, Result
from course.studio.page import Page, write
from course.studio.question import verdict

FOLDER = ROOT / "docs" / "gallery"
QUALITY = 88  # of an entry, of 100
DESCRIPTION = 0x010E  # the EXIF entry for it


def words(found: ModuleType, result: Result, guess: int | None) -> str:
    """What stands under the picture: what was measured, and the answer to the question that was asked before."""
    return f"{result.text}\n{verdict(found.QUESTION, guess, result.answer)}"


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
    write_film(result, film_of(path))
    return path


def write_entry(lab: Lab, name: str, found: ModuleType, result: Result, folder: Path) -> Path:
    """A figure, and its words in the file's description; returns its path."""
    result.figure.set_layout_engine("constrained", rect=(0.005, 0.01, 0.99, 0.98))
    canvas = FigureCanvasAgg(result.figure)
    canvas.draw()
    picture = Image.fromarray(numpy.asarray(canvas.buffer_rgba())).convert("RGB")
    exif = Image.Exif()
    exif[DESCRIPTION] = json.dumps(
        {
            "title": found.TITLE,
            "text": result.text,
            "question": found.QUESTION.text,
            "choices": found.QUESTION.choices,
            "answer": result.answer,
            "notes": notes(lab),
        }
    )
    path = folder / f"{name}.webp"
    with whole_file(path) as temporary:
        picture.save(temporary, "WEBP", quality=QUALITY, method=6, exif=exif)
    write_film(result, film_of(path))
    return path


def words_of(path: Path) -> dict[str, Any]:
    """What write_entry wrote into a picture's description."""
    with Image.open(path) as picture:
        return json.loads(picture.getexif()[DESCRIPTION])


def film_of(path: Path) -> Path:
    """Where the film of an entry is, if it has one."""
    return path.with_name(f"{path.stem}-film.webp")


def write_film(result: Result, path: Path) -> None:
    """An animated WebP file, if there is a film."""
    if result.film is None:
        return
    first, *rest = result.film
    with whole_file(path) as temporary:
        first.save(temporary, "WEBP", save_all=True, append_images=rest, duration=160, loop=0, quality=80, method=6)


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
    for stage in STAGES:
        names = [name for name, number in EXPERIMENTS.items() if number == stage.number]
        if stage.encore and not any((folder / f"{name}.webp").is_file() for name in names):
            continue
        lines += ["", f"## Stage {stage.number}: {stage.name}"]
        if not names:
            lines += ["", f"![what stage {stage.number} shows](stages/{stage.module}.png)"]
            lines += ["", f"<sub>`make show STAGE={stage.number}`</sub>"]
        for path in (folder / f"{name}.webp" for name in names):
            if path.is_file():
                lines += entry(path)
    return "\n".join(lines) + "\n"


def entry(path: Path) -> list[str]:
    """The lines of one experiment."""
    words, place = words_of(path), path.parent.name
    lines = ["", f"### {words['title']}", "", f"![{words['title']}]({place}/{path.name})", "", words["text"]]
    if film_of(path).is_file():
        lines += ["", f"![{words['title']} A film]({place}/{film_of(path).name})"]
    choices = "; ".join(words["choices"])
    lines += ["", f"*{words['question']}* {choices}? **{words['choices'][words['answer']].capitalize()}.**"]
    return [*lines, "", f"<sub>`make experiment NAME={path.stem}`. {' '.join(words['notes'])}</sub>"]
