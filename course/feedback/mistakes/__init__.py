"""The catalogue of mistakes: small changes that turn a solution into a wrong version of it, each with an explanation.

`make check` applies every one of them and sees to it that the tests of its stage notice. When a learner's test fails,
the wrong versions are run on the same input: the one that gives the same result explains it. `make generate
MISTAKE=...` draws with one.
"""

import ast
import difflib
import importlib
from dataclasses import dataclass
from functools import cache

from course.core.stages import PIPELINE, Stage, find_stage


@dataclass(frozen=True)
class Mistake:
    """One way to go wrong.

    Attributes:
        name: short, unique within its stage.
        find: a part of the solution's text that occurs there exactly once; it may span lines.
        replace: what stands there in the wrong version.
        hint: completes the sentence "This is exactly what you get when ..."; a second sentence may say why it matters.
        like: names of mistakes that give the same result on every input.
    """

    name: str
    find: str
    replace: str
    hint: str
    like: tuple[str, ...] = ()


@cache
def mistakes_of(stage_number: int) -> tuple[Mistake, ...]:
    """All mistakes of a stage."""
    return tuple(importlib.import_module(f"{__name__}.{find_stage(stage_number).module}").MISTAKES)


def full_name(stage: Stage, mistake: Mistake) -> str:
    """The name by which a mistake is asked for, such as "stage08/betas-not-squared"."""
    return f"stage{stage.number:02d}/{mistake.name}"


def find_mistake(text: str) -> tuple[Stage, Mistake]:
    """The mistake that a person means by "stage08/betas-not-squared", "8/betas-not-squared" or "betas-not-squared".

    Raises:
        ValueError: if there is none of this name, or several; the message is one sentence that lists close ones.
    """
    where, slash, name = text.strip().rpartition("/")
    number = where.strip().lower().removeprefix("stage").lstrip("0")
    try:
        stages = [find_stage(number or where)] if slash else PIPELINE
    except ValueError as error:
        raise ValueError(f"MISTAKE={text[:80]!r} is not possible. {error}") from None
    if stages[0].encore:
        raise ValueError(f"MISTAKE={text[:80]!r} is not possible: no picture is drawn with {stages[0].module}.")
    known = {full_name(stage, mistake): (stage, mistake) for stage in stages for mistake in mistakes_of(stage.number)}
    same = [full for full, (_, mistake) in known.items() if mistake.name == name]
    if len(same) == 1:
        return known[same[0]]
    if same:
        raise ValueError(f"MISTAKE={name} is in several stages: choose {' or '.join(same)}.")
    names = [mistake.name for _, mistake in known.values()]
    close = difflib.get_close_matches(name[:80], names, n=3, cutoff=0.5)
    close += [other for other in names if name and name in other and other not in close][: 4 - len(close)]
    meant = [full for other in dict.fromkeys(close) for full, (_, m) in known.items() if m.name == other]
    advice = f"did you mean {' or '.join(meant[:4])}?" if meant else f"one of {len(known)} is {next(iter(known))}."
    raise ValueError(f"MISTAKE={text[:80]!r} is not among the known ones: {advice}")


def changed(text: str, find: str, replace: str, name: str) -> str:
    """The text with one change.

    Raises:
        ValueError: unless `find` occurs exactly once; it names the change.
    """
    count = text.count(find)
    if count != 1:
        raise ValueError(f"{name}: its `find` occurs {count} times in the solution, not once:\n{find}")
    return text.replace(find, replace)


def wrong_text(stage_number: int, mistake: Mistake) -> str:
    """The solution's text with this mistake in it."""
    stage = find_stage(stage_number)
    text = stage.solution.read_text(encoding="utf-8")
    return changed(text, mistake.find, mistake.replace, f"{stage.module}/{mistake.name}")


def exercise_of(stage_number: int, mistake: Mistake) -> str:
    """The exercise that a mistake is made in, such as "3.2"; "" if it is made outside of all."""
    text = find_stage(stage_number).solution.read_text(encoding="utf-8")
    return exercise_at(stage_number, text[: text.index(mistake.find) + len(mistake.find.rstrip())].count("\n") + 1)


def exercise_at(stage_number: int, line: int) -> str:
    """The exercise that a line of a solution belongs to, such as "3.2"; "" if it belongs to none."""
    return next((number for number, lines in _exercise_lines(stage_number) if line in lines), "")


@cache
def _exercise_lines(stage_number: int) -> tuple[tuple[str, range], ...]:
    """(exercise, its lines) of each function and class that is marked as one; inner ones come before outer ones."""
    tree = ast.parse(find_stage(stage_number).solution.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):  # from outside in
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            docstring = ast.get_docstring(node) or ""
            if docstring.startswith("Exercise "):
                number = docstring.removeprefix("Exercise ").split(":")[0]
                found.append((number, range(node.lineno, (node.end_lineno or 0) + 1)))
    return tuple(reversed(found))
