"""Makes the learner's files out of the solutions, and tells which of their exercises are still to do.

An exercise is any function, method or class whose docstring begins "Exercise 3.2:". In the learner's file its body,
after the docstring, is one `raise NotImplementedError("exercise 3.2: ...")`. Of a class marked that way it is the body
of `__init__` and of every method, except those whose docstring begins "Given:".
"""

import ast
import functools
import io
import json
import re
import tokenize
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course.core.stages import Stage, source_of

HEADING = re.compile(r"Exercise (\d+\.\d+):\s*(.*)")
TO_DO = re.compile(r"exercise (\d+\.\d+)")
LINE_LENGTH = 120

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Exercise:
    """One exercise of a stage.

    Attributes:
        number: "3.2".
        title: the docstring's first line, up to the first colon, semicolon, full stop or bracket.
        names: the functions and methods to write, such as "MultiHeadAttention.forward".
    """

    number: str
    title: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Body:
    """One function to be written: its exercise, and where its body is in the source (1-based, both included)."""

    number: str
    title: str
    name: str
    first: int
    last: int
    indent: int


def stub_text(source: str, solved: Collection[str] = ()) -> str:
    """The learner's version of a solution's source text, in which the exercises of these numbers are solved."""
    lines = source.splitlines()
    for body in reversed([body for body in _bodies(source) if body.number not in solved]):
        lines[body.first - 1 : body.last] = _raise_lines(body)
    return "\n".join(lines) + "\n"


def exercises(stage: Stage) -> list[Exercise]:
    """The exercises of a stage, in the order of the file."""
    return list(_exercises_in(stage.solution.read_text(encoding="utf-8")))


@functools.cache
def _exercises_in(source: str) -> tuple[Exercise, ...]:
    found: dict[str, Exercise] = {}
    for body in _bodies(source):
        before = found.get(body.number, Exercise(body.number, body.title, ()))
        found[body.number] = Exercise(body.number, before.title, (*before.names, body.name))
    return tuple(found.values())


def to_do_lines(path: Path) -> dict[str, int]:
    """Exercise number -> line of its first `raise NotImplementedError("exercise ...")` in a learner's file.

    Raises:
        SyntaxError: if the file is not Python; it names file and line.
        OSError: if the file cannot be read.
    """
    return dict(_to_do_lines_in(source_of(path), str(path)))


@functools.lru_cache(maxsize=100)
def _to_do_lines_in(source: str, filename: str) -> dict[str, int]:
    found: dict[str, int] = {}
    tree = ast.parse(source, filename=filename)
    raises = (node for node in ast.walk(tree) if isinstance(node, ast.Raise))
    for node in sorted(raises, key=lambda node: node.lineno):
        match node.exc:
            case ast.Call(func=ast.Name(id="NotImplementedError"), args=[ast.Constant(value=str(message)), *_]):
                if number := TO_DO.match(message):
                    found.setdefault(number[1], node.lineno)
    return found


def constant(stage: Stage, name: str) -> Any:
    """The value of a constant of a stage's solution, read without running it, which would take the import of torch."""
    tree = ast.parse(stage.solution.read_text(encoding="utf-8"))
    found = (node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name)
    return ast.literal_eval(next(found).value)


def exercise_numbers(item: Any) -> list[str]:
    """The exercises that a test, an item of pytest, is about."""
    return [number for marker in item.iter_markers("exercise") for number in marker.args]


def todo(path: Path) -> list[str]:
    """The numbers of the exercises that are still stubs in a learner's file. Raises as `to_do_lines` does."""
    return list(to_do_lines(path))


@functools.lru_cache(maxsize=100)
def _bodies(source: str) -> tuple[_Body, ...]:
    """The functions to be written, in the order of the source."""
    return tuple(_find_bodies(source))


def _find_bodies(source: str) -> Iterator[_Body]:
    lines = source.splitlines()
    ends_of_logical_lines = [
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.NEWLINE
    ]
    for name, function, heading in _marked_functions(ast.parse(source), prefix="", inherited=None):
        has_docstring = ast.get_docstring(function) is not None
        if has_docstring:
            first = (function.body[0].end_lineno or 0) + 1
        else:
            first = next(line for line in ends_of_logical_lines if line >= _signature_end(function)) + 1
        indent = function.col_offset + 4
        yield _Body(heading[1], _title(heading[2]), name, first, _body_end(lines, function, indent), indent)


def _signature_end(function: Function) -> int:
    """The last line on which a part of the signature stands; the colon is there or below."""
    arguments = function.args
    parts = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    parts += [function.returns, *arguments.defaults, *arguments.kw_defaults]
    return max([function.lineno, *(part.end_lineno or 0 for part in parts if part is not None)])


def _marked_functions(
    node: ast.AST, prefix: str, inherited: re.Match | None
) -> Iterator[tuple[str, Function, re.Match]]:
    """(qualified name, function, its exercise's heading) of all that is to be written below `node`."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.ClassDef):
            continue
        docstring = ast.get_docstring(child) or ""
        heading = HEADING.match(docstring) or (None if docstring.startswith("Given:") else inherited)
        if isinstance(child, ast.ClassDef):
            yield from _marked_functions(child, f"{prefix}{child.name}.", heading)
        elif heading:
            yield f"{prefix}{child.name}", child, heading


def _body_end(lines: list[str], function: Function, indent: int) -> int:
    """The last line of a body, with the comments that trail it."""
    end = function.end_lineno or 0
    for number in range(end + 1, len(lines) + 1):
        line = lines[number - 1]
        if line.startswith(" " * indent + "#"):
            end = number
        elif line.strip():
            break
    return end


def _title(text: str) -> str:
    return re.split(r"(?:(?<!\.)[:;.](?:\s|$))|\s\(", text.strip(), maxsplit=1)[0]


def _raise_lines(body: _Body) -> list[str]:
    space = " " * body.indent
    message = json.dumps(f"exercise {body.number}: {body.title}", ensure_ascii=False)
    line = f"{space}raise NotImplementedError({message})"
    if len(line) <= LINE_LENGTH:
        return [line]
    return [f"{space}raise NotImplementedError(", f"{space}    {message}", f"{space})"]
