"""Where a learner's file has other functions or parameters than the stub: perhaps it was begun with an older one."""

import ast
from collections.abc import Iterator
from functools import cache

from course.core.stages import Stage, short_path, source_of

Function = ast.FunctionDef | ast.AsyncFunctionDef


def differences(stage: Stage) -> list[str]:
    """A sentence for each public function, method and class of the stub that is missing or takes other parameters.

    Only what the text of the file shows: names, order, kinds and defaults of parameters.
    """
    try:
        theirs = contract(source_of(stage.exercise))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return []
    where = short_path(stage.exercise)
    lines = []
    for name, (_, wanted) in contract(stage.solution.read_text(encoding="utf-8")).items():
        owner = name.rpartition(".")[0]
        line, found = theirs.get(name, (0, None))
        if wanted is None or "*" in theirs or theirs.get(owner, (0, ""))[1] is None:
            continue
        if not line and (owner in theirs or not owner):
            lines.append(f"{where} does not define {name}{wanted}; the stub does.")
        elif found and wanted and found != wanted:
            lines.append(f"{where}, line {line}: {name} takes {found}; the stub has {wanted}.")
    return lines


@cache
def contract(source: str) -> dict[str, tuple[int, str | None]]:
    """Public name, such as "GroupNorm.forward" -> its line, and its parameters.

    Of a class these are the fields of a dataclass, or "". They are None where the text does not tell what they are.
    """
    found = dict(definitions(ast.parse(source).body, ""))
    private = [name for name in found if name.split(".")[-1].startswith("_") and not name.endswith("__")]
    return {name: what for name, what in found.items() if name not in private}


def definitions(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, tuple[int, str | None]]]:
    for node in body:
        if isinstance(node, Function):
            yield prefix + node.name, (node.lineno, parameters(node))
        elif isinstance(node, ast.ClassDef):
            yield prefix + node.name, (node.lineno, fields(node))
            yield from definitions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "course":
            continue  # stages need nothing of the course; what older stubs took from there is gone
        else:  # an assignment, an import, or definitions under a condition
            for part in ast.walk(node):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    yield prefix + part.id, (node.lineno, None)
                elif isinstance(part, Function | ast.ClassDef | ast.alias):
                    name = (part.asname if isinstance(part, ast.alias) else None) or part.name
                    yield prefix + name, (node.lineno, None)


def parameters(function: Function) -> str:
    """The parameters without their annotations, such as "(self, x, eps=1e-05)"."""
    arguments = function.args
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return f"({ast.unparse(arguments)})"


def fields(node: ast.ClassDef) -> str:
    """The fields of a dataclass, as its parameters."""
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return ""
    parts = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    return "(" + ", ".join(ast.unparse(p.target) + (f"={ast.unparse(p.value)}" if p.value else "") for p in parts) + ")"
