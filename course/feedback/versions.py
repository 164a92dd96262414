"""Versions of a stage that a failed test is tried with: wrong ones, and a learner's file mended in some exercises."""

import ast
from collections.abc import Collection
from functools import cache
from types import ModuleType

from course.core.assemble import Blocks, for_testing
from course.core.stages import Stage
from course.core.stubs import exercises
from course.feedback.mistakes import Mistake, wrong_text


@cache
def reference(stage_number: int) -> Blocks:
    """The package that these versions of a stage import the earlier stages from."""
    blocks = for_testing(stage_number, "solutions")
    if stage_number > 1:
        blocks[stage_number - 1]
    return blocks


@cache
def wrong_version(stage: Stage, mistake: Mistake) -> ModuleType | None:
    """The stage with this mistake in it; None if it cannot be loaded."""
    return loaded(stage, wrong_text(stage.number, mistake), mistake.name)


@cache
def mended(stage: Stage, source: str, numbers: Collection[str]) -> ModuleType | None:
    """A learner's file in which these exercises are written as in the solution; None if that cannot be loaded.

    What the solution imports is imported, too.
    """
    solution = ast.parse(stage.solution.read_text(encoding="utf-8"))
    imports = [node for node in solution.body if isinstance(node, ast.Import | ast.ImportFrom)]
    tree = ast.parse(source)
    for exercise in exercises(stage):
        for name in exercise.names if exercise.number in numbers else ():
            replace_definition(tree.body, solution.body, name.split("."))
    tree.body = [*filter(is_future, tree.body), *imports, *(node for node in tree.body if not is_future(node))]
    return loaded(stage, ast.unparse(tree), "mended")


def replace_definition(own: list[ast.stmt], theirs: list[ast.stmt], path: list[str]) -> None:
    """Puts their function or class of this name, ["ResidualBlock", "forward"], in the place of ours."""
    name, *rest = path
    definition = next(node for node in theirs if name_of(node) == name)
    place = next((i for i in reversed(range(len(own))) if name_of(own[i]) == name), None)
    if place is None:
        own.append(definition)
    elif rest and isinstance(own[place], ast.ClassDef):
        replace_definition(own[place].body, definition.body, rest)
    else:
        own[place] = definition


def name_of(node: ast.stmt) -> str | None:
    return node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else None


def is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def loaded(stage: Stage, text: str, what: str) -> ModuleType | None:
    """A module of the stage; None if running the text ends with an exception."""
    package = reference(stage.number).package
    module = ModuleType(f"{package}.{stage.module}")
    module.__package__, module.__source__ = package, text
    try:
        exec(compile(text, f"<{stage.module}, {what}>", "exec", dont_inherit=True), module.__dict__)
    except Exception:
        return None
    return module
