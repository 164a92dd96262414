"""A second opinion on the tests: cosmic-ray changes the solutions everywhere, one small change at a time.

Another operator, another number, a condition turned around, a loop that never begins: the stage's tests must notice
each of them. What cannot be noticed is listed in mutation_equivalents.toml with the reason, and counts neither way. The
results of the last whole run are kept in mutation.md.

Usage: python -m course mutation [--stage 3]. It takes a while, and needs the package in REQUIREMENT.
"""

import ast
import inspect
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tqdm import tqdm

from course.core.options import OneStage
from course.core.stages import STAGES, Stage
from course.feedback.mistakes import exercise_at
from course.learn.board import Verdict
from tools.versions import Version, run_versions

REQUIREMENT = "cosmic-ray==8.7.0"
EQUIVALENTS = Path(__file__).with_name("mutation_equivalents.toml")
WANTED = 0.95  # the share of all mutants, those that are equivalent left out, that the tests notice


@dataclass(frozen=True)
class Mutant:
    """A solution with one change: the line as it is and as it was made, and the whole text."""

    stage: Stage
    line: int
    before: str
    after: str
    text: str

    @property
    def reason(self) -> str:
        """Why nobody could notice; "" if somebody could."""
        known = equivalents()
        whole_line = known.get((self.stage.module, self.before, "*"), "")
        return known.get((self.stage.module, self.before, self.after), whole_line)

    def __str__(self) -> str:
        return f"{self.stage.module}.py:{self.line}\n  - {self.before}\n  + {self.after}"


@cache
def equivalents() -> dict[tuple[str, str, str], str]:
    """(module, line as it is, line as changed or "*" for any way) -> the reason."""
    entries = tomllib.loads(EQUIVALENTS.read_text(encoding="utf-8"))["mutant"]
    return {(e["stage"], e["before"], after): e["reason"] for e in entries for after in e["after"]}


def annotations(text: str) -> set[tuple[int, int]]:
    """(line, column) of all that stands in type annotations, which nothing evaluates in a way that matters."""
    places = set()
    for node in ast.walk(ast.parse(text)):
        for noted in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            for part in ast.walk(noted) if noted else ():
                if hasattr(part, "lineno"):
                    places |= {(part.lineno, column) for column in range(part.col_offset, part.end_col_offset)}
    return places


def mutants_of(stage: Stage) -> Iterator[Mutant]:
    """All mutants of a solution that are valid Python and not the same program.

    Raises:
        ValueError: if the package that makes them is not installed.
    """
    try:
        from cosmic_ray.ast import ast_nodes, get_ast
        from cosmic_ray.mutating import mutate_code
        from cosmic_ray.plugins import get_operator, operator_names
    except ImportError:
        raise ValueError(f"This needs {REQUIREMENT}: {sys.executable} -m pip install {REQUIREMENT}") from None
    source = stage.solution.read_text(encoding="utf-8")
    noted, program = annotations(source), ast.dump(ast.parse(source))
    nodes = list(ast_nodes(get_ast(source)))
    for name in operator_names():
        if inspect.signature(get_operator(name)).parameters:  # these want names of variables
            continue
        operator = get_operator(name)()
        positions = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, position in enumerate(positions):
            if position in noted:
                continue
            text = mutate_code(source, operator, occurrence)
            try:
                if ast.dump(ast.parse(text)) == program:
                    continue
            except SyntaxError:
                continue
            pairs = zip(source.splitlines(), text.splitlines())
            line, before, after = next((i, a, b) for i, (a, b) in enumerate(pairs, 1) if a != b)
            yield Mutant(stage, line, before.strip(), after.strip(), text)


def mutation(options: OneStage) -> int:
    lines = [f"{'stage':16s}{'mutants':>10s}{'equivalent':>12s}{'noticed':>10s}{'not':>6s}"]
    total, noticed = 0, 0
    for stage in [options.stage] if options.stage else STAGES:
        mutants = list(mutants_of(stage))
        fair = [mutant for mutant in mutants if not mutant.reason]
        versions = [Version(stage.number, mutant.text, exercise_at(stage.number, mutant.line)) for mutant in fair]
        with tqdm(total=len(fair), desc=f"{stage.number:2d} {stage.name}", unit="mutant", mininterval=2.0) as bar:

            def report(index: int, verdict: Verdict) -> None:
                bar.update()
                if verdict.failure is None:
                    bar.write(f"survives: {fair[index]}", file=sys.stdout)  # noqa: B023 (called in this round)

            verdicts = run_versions(versions, report, diagnose=False)
        caught = sum(verdict.failure is not None for verdict in verdicts)
        total, noticed = total + len(fair), noticed + caught
        numbers = f"{len(mutants):10d}{len(mutants) - len(fair):12d}{caught:10d}{len(fair) - caught:6d}"
        lines.append(f"{stage.number:2d} {stage.name:13s}{numbers}")
    print("\n".join(lines), f"The tests notice {noticed / total:.1%} of {total} mutants.", sep="\n")
    return int(noticed < WANTED * total)
