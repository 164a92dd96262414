"""Proves that the messages name no mistake that was not made.

Handed in are pairs of mistakes of the catalogue, both made at once, and small changes of the solutions that nobody
listed: of an operator, a number, a condition. A message that names a mistake is right about a pair if it is one of the
two, or like one of them. About all else it is right if that mistake cannot be told from what was handed in: all tests
of the stage are run once more, with other random numbers and other examples than the diagnosis has seen, and in each of
their checks both have to give the same. Whatever differs there is a false claim.
"""

import ast
import contextlib
import copy
import io
import multiprocessing
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache

from course.core.stages import ROOT, STAGES, Stage, find_stage
from course.feedback.mistakes import changed, exercise_at, exercise_of, mistakes_of, wrong_text
from course.learn.board import Verdict
from tools.versions import Version, run_versions

SECONDS = (
    1.0  # of other tests for a diagnosis: half of what it has for a learner, so that it claims rather more than less
)
MOST_FALSE = 0.01  # the share of what is handed in
OTHER_NUMBERS = 1_000_000  # what is added to the seeds of the tests' random numbers

OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Pow: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or,
    ast.Or: ast.And,
}  # fmt: skip


@dataclass
class HandedIn:
    """A version of a stage that has something wrong with it.

    Attributes:
        what: in words, for the complaint about a false claim.
        made: the names of the mistakes that are in it, and of those that cannot be told from them.
    """

    version: Version
    what: str
    made: set[str] = field(default_factory=set)


# --- pairs -----------------------------------------------------------------------------------------------------------


def pairs(count: int, chance: random.Random) -> list[HandedIn]:
    """Two mistakes of one stage each, such that both can be made at once."""
    every = [(stage.number, mistake) for stage in STAGES for mistake in mistakes_of(stage.number)]
    found: dict[str, HandedIn] = {}
    while len(found) < count:
        number, first = chance.choice(every)
        second = chance.choice(mistakes_of(number))
        with contextlib.suppress(ValueError, SyntaxError):  # the first change leaves nothing to change for the second
            text = changed(wrong_text(number, first), second.find, second.replace, second.name)
            ast.parse(text)
            if text not in (wrong_text(number, first), wrong_text(number, second)):
                version = Version(number, text, min(exercise_of(number, first), exercise_of(number, second)))
                what = f"{find_stage(number).module}: {first.name} and {second.name}"
                found[text] = HandedIn(version, what, {first.name, second.name, *first.like, *second.like})
    return list(found.values())


# --- small changes ---------------------------------------------------------------------------------------------------


def small_changes(count: int, chance: random.Random) -> list[HandedIn]:
    """Solutions with one operator, number or condition of an exercise changed."""
    every = [(stage, *change) for stage in STAGES for change in changes(stage)]
    return [changed_solution(*one) for one in chance.sample(every, count)]


def changed_solution(stage: Stage, tree: ast.Module, old: ast.expr, new: ast.expr) -> HandedIn:
    """The solution with one expression in the place of another."""
    what = f"{stage.module}:{old.lineno}: {ast.unparse(old)} -> {ast.unparse(new)}"
    text = ast.unparse(Replacing(old, new).visit(copy.deepcopy(tree, {id(old): old, id(new): new})))
    same = {name for name, wrong in unparsed(stage).items() if wrong == text}
    return HandedIn(Version(stage.number, text, exercise_at(stage.number, old.lineno)), what, same)


@cache
def unparsed(stage: Stage) -> dict[str, str]:
    """The wrong versions of a stage, by the mistake's name, written as Python writes them."""
    return {m.name: ast.unparse(ast.parse(wrong_text(stage.number, m))) for m in mistakes_of(stage.number)}


class Replacing(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def changes(stage: Stage) -> Iterator[tuple[ast.Module, ast.expr, ast.expr]]:
    """All small changes of a stage's exercises: (the solution, an expression in it, what stands there instead)."""
    tree = ast.parse(stage.solution.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.expr) and exercise_at(stage.number, node.lineno):
            for new in instead_of(node):
                yield tree, node, ast.fix_missing_locations(ast.copy_location(new, node))
        if isinstance(node, ast.If | ast.While | ast.IfExp) and exercise_at(stage.number, node.lineno):
            yield tree, node.test, ast.fix_missing_locations(ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node))


def instead_of(node: ast.expr) -> Iterator[ast.expr]:
    """What may stand in the place of an expression."""
    new = copy.copy(node)
    match node:
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator) if type(operator) in OPERATORS:
            new.op = OPERATORS[type(operator)]()
            yield new
        case ast.Compare(ops=[operator]) if type(operator) in OPERATORS:
            new.ops = [OPERATORS[type(operator)]()]
            yield new
        case ast.UnaryOp(op=ast.USub() | ast.Not()):
            yield node.operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Constant(value=float(value)):
            yield from (ast.Constant(2.0 * value), ast.Constant(value + 1.0))


# --- judging ---------------------------------------------------------------------------------------------------------


@dataclass
class Claim:
    """What a message says of something that was handed in."""

    handed_in: HandedIn
    verdict: Verdict
    refuted: set[str] = field(default_factory=set)  # names of mistakes that it names and that are something else

    @property
    def named(self) -> set[str]:
        return {mistake["name"] for mistake in self.verdict.mistakes}

    @property
    def is_false(self) -> bool:
        """Whether the message names only mistakes that were not made."""
        return bool(self.named) and self.named <= self.refuted

    def complaint(self) -> str:
        return f"{self.handed_in.what}: a message names {' or '.join(sorted(self.named))}; by {self.verdict.test}"


def judge(handed_in: Sequence[HandedIn]) -> list[Claim]:
    """What the messages claim, and which claims are false."""
    verdicts = run_versions([one.version for one in handed_in], seconds=SECONDS)
    claims = [Claim(one, verdict) for one, verdict in zip(handed_in, verdicts, strict=True)]
    doubtful = [claim for claim in claims if claim.named and not claim.named & claim.handed_in.made]
    if doubtful:
        look_again(doubtful)
    return claims


def summary(claims: Sequence[Claim]) -> str:
    """In two lines: how much was handed in, noticed, named, and named falsely."""
    named, noticed = sum(bool(claim.named) for claim in claims), sum(bool(claim.verdict.failure) for claim in claims)
    made = sum(bool(claim.named & claim.handed_in.made) for claim in claims)
    false = sum(claim.is_false for claim in claims)
    return (
        f"Of {len(claims)} pairs of mistakes and small changes, {noticed} are noticed. {named} messages name a "
        f"mistake:\n{made} one that was made, {named - made - false} one that gives the same, {false} another."
    )


def good_enough(claims: Sequence[Claim]) -> bool:
    return sum(claim.is_false for claim in claims) <= MOST_FALSE * len(claims)


def look_again(claims: Sequence[Claim]) -> None:
    """Notes which mistakes give another result than what was handed in, in tests with other numbers and examples."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:  # one that has imported no tests
        asked = [(one.verdict.stage.number, one.handed_in.version.text, one.named) for one in claims]
        for claim, refuted in zip(claims, process.submit(refutations, asked).result(), strict=True):
            claim.refuted = refuted


def refutations(asked: Sequence[tuple[int, str, set[str]]]) -> list[set[str]]:
    """Of each (stage, text, names of mistakes): the names of those that give something else than the text.

    Raises:
        RuntimeError: if the tests could not be run.
    """
    import pytest

    from course.core.limits import Stuck
    from course.feedback import compare, diagnosis
    from course.feedback.versions import loaded
    from course.learn import plugin

    class OtherNumbers:
        """A pytest plugin; and what checks show their trials to, in the place of a diagnosis.Comparison."""

        def pytest_configure(self) -> None:
            rand, randomised = compare.rand, compare.randomised
            compare.rand = lambda *shape, seed=0, **how: rand(*shape, seed=seed + OTHER_NUMBERS, **how)
            compare.randomised = lambda module, seed=0: randomised(module, seed + OTHER_NUMBERS)

        def pytest_runtestloop(self) -> None:
            import hypothesis

            profile = hypothesis.settings(hypothesis.settings.get_profile("course"), derandomize=False)
            hypothesis.settings.register_profile("others", profile)
            hypothesis.settings.load_profile("others")
            plugin.LIMIT = 600.0
            diagnosis.comparison = self

        def see(self, trial: diagnosis.Trial) -> None:
            for look in looks:
                if look.mistakes and look.stage == diagnosis.stage_of(trial.stage):
                    with contextlib.suppress(Stuck):
                        look.see(trial)

    looks = []
    for number, text, names in asked:
        own = loaded(find_stage(number), text, "handed in")
        assert own is not None  # there is a message about what it does
        named = [mistake for mistake in mistakes_of(number) if mistake.name in names]
        looks.append(diagnosis.Comparison(own, find_stage(number), named, end=float("inf")))
    tests = [str(stage.test) for stage in STAGES if any(look.stage == stage for look in looks)]
    options = ["-q", "--blocks=solutions", "--hypothesis-seed=1", f"--rootdir={ROOT}"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = pytest.main([*options, f"--config-file={ROOT / 'pyproject.toml'}", *tests], plugins=[OtherNumbers()])
    if code > 1:
        raise RuntimeError(f"The tests could not be run once more:\n{said.getvalue()}")
    return [names - {mistake.name for mistake in look.mistakes} for (*_, names), look in zip(asked, looks, strict=True)]
