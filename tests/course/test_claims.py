"""What a message claims about a file: which exercise is wrong, and which mistake was made; only what is so."""

import ast
import random
from functools import cache

import pytest
import torch

from course.core.assemble import for_testing
from course.core.stages import STAGES
from course.core.stubs import stub_text
from course.feedback import compare, diagnosis
from course.feedback.mistakes import changed, exercise_of, mistakes_of, wrong_text
from course.learn.board import Verdict
from course.learn.runner import run_all
from tools import claims
from tools.versions import Version, run_versions

pytestmark = pytest.mark.limit(600)


def solution(number):
    return STAGES[number - 1].solution.read_text(encoding="utf-8")


def mistake(number, name):
    return next(mistake for mistake in mistakes_of(number) if mistake.name == name)


def edited(number, *edits):
    """The solution with some edits: (find, replace), or the name of a mistake."""
    text = solution(number)
    for edit in edits:
        found = mistake(number, edit) if isinstance(edit, str) else None
        text = changed(text, *((found.find, found.replace) if found else edit), str(edit))
    return text


N_MINUS_1 = "variance-divided-by-n-minus-1"
ONLY_WITHOUT_EPS = "unbiased=False", "unbiased=eps == 0.0"  # the first test of exercise 1.1 has eps=0
TWO_HEADS = "heads-without-transpose"

IN_PIECES = (  # the mistake N_MINUS_1, written in another way
    """\
    groups = precise.reshape(batch, num_groups, -1)  # (B, G, C/G * H * W)
    mean = groups.mean(dim=-1, keepdim=True)
    variance = groups.var(dim=-1, keepdim=True, unbiased=False)
    normalised = ((groups - mean) / torch.sqrt(variance + eps)).reshape(x.shape)
""",
    """\
    pieces = []
    for piece in precise.chunk(num_groups, dim=1):
        variance, mean = torch.var_mean(piece, dim=tuple(range(1, x.ndim)), keepdim=True)
        pieces.append((piece - mean) * torch.rsqrt(variance + eps))
    normalised = torch.cat(pieces, dim=1)
""",
)
EINSUM = (
    """\
    d = query.shape[-1]
    scores = (query / math.sqrt(d)) @ key.transpose(-2, -1)  # (..., queries, keys)
    if mask is not None:
        scores = scores + mask
    return torch.softmax(scores, dim=-1) @ value
""",
    """\
    scores = torch.einsum("...qd, ...kd -> ...qk", query, key) + (0.0 if mask is None else mask)
    return torch.einsum("...qk, ...kv -> ...qv", nn.functional.softmax(scores, -1), value)
""",
)
LIST_OF_BETAS = (
    "torch.linspace(math.sqrt(start), math.sqrt(end), num_steps, dtype=torch.float64) ** 2",
    "torch.tensor([start + (end - start) * t / (num_steps - 1) for t in range(num_steps)], dtype=torch.float64)",
)

# Versions: stage, text, the exercise whose tests come first, the wanted exercise, the wanted names of mistakes.
VERSIONS = {
    "a mistake": (1, edited(1, N_MINUS_1), "1.1", "1.1", [N_MINUS_1]),
    "a mistake whose exercise is not tested first": (1, edited(1, N_MINUS_1), "1.2", "1.1", [N_MINUS_1]),
    "like a mistake in the first failed test only": (1, edited(1, ONLY_WITHOUT_EPS), "1.1", "1.1", []),
    "the same, when other tests come first": (1, edited(1, ONLY_WITHOUT_EPS), "1.2", "1.1", []),
    "two mistakes in two exercises": (1, edited(1, N_MINUS_1, "layer-keeps-eps-to-itself"), "1.1", "1.1", [N_MINUS_1]),
    "two mistakes in one exercise": (1, edited(1, N_MINUS_1, "weight-divides"), "1.1", "1.1", []),
    "a mistake in other words": (1, edited(1, IN_PIECES), "1.1", "1.1", [N_MINUS_1]),
    "another mistake in other words": (3, edited(3, EINSUM), "3.1", "3.1", ["no-scale"]),
    "a third mistake in other words": (8, edited(8, LIST_OF_BETAS), "8.1", "8.1", ["linear-betas"]),
    "a mistake beside stubs": (3, stub_text(edited(3, "no-scale"), ["3.1"]), "", "3.1", ["no-scale"]),
    "an assert, with words of its own": (
        1, edited(1, ('raise ValueError(f"num_groups', 'raise AssertionError(f"mine: num_groups')), "", "1.1",
        ["assert-for-the-exception"],
    ),
    "the order in the batch, undone by the order of the answers": (
        9, edited(9, "halves-exchanged", "answers-exchanged"), "9.2", "9.2", [],
    ),
    "noticed by a test of another exercise": (6, edited(6, "bpe-over-the-whole-text"), "6.3", "6.2", None),
    "noticed by a picture": (9, edited(9, "guidance-without-start"), "9.4", "9.1", ["guidance-without-start"]),
    "all steps, collected": (
        9,
        edited(
            9,
            ("    last_timestep, last_original = None, None\n",
             "    steps, last_timestep, last_original = [], None, None\n"),
            ("        yield Step(index, len(timesteps), timestep, latents, original)\n",
             "        steps.append(Step(index, len(timesteps), timestep, latents, original))\n    return steps\n"),
        ),
        "9.3", "9.3", ["steps-in-a-list"],
    ),
}  # fmt: skip


@cache
def verdicts() -> dict[str, Verdict]:
    found = run_versions([Version(number, text, first) for number, text, first, *_ in VERSIONS.values()])
    return dict(zip(VERSIONS, found, strict=True))


@pytest.mark.parametrize("what", VERSIONS)
def test_what_is_claimed(what):
    number, _, _, exercise, names = VERSIONS[what]
    verdict = verdicts()[what]
    shown = [found["name"] for found in verdict.mistakes]
    assert verdict.exercise == exercise and verdict.failing == {exercise}, verdict.failure
    assert verdict.failure.splitlines()[0].split("  ")[1] == f"exercise {exercise}"
    assert names is None or shown == names, verdict.failure
    assert bool(shown) == ("This is exactly what you get when" in verdict.failure)
    assert all(exercise_of(number, mistake(number, name)) == exercise for name in shown)


def test_a_failed_test_of_another_exercise_says_so():
    lines = verdicts()["noticed by a picture"].failure.splitlines()
    assert "This test is about exercise 9.4. It passes with the solution's 9.1: look there." in lines


def test_all_failures_are_filed_under_the_one_exercise(tmp_path):
    """Most tests of the stage fail, whatever exercise they are about."""
    stage = STAGES[2]
    (tmp_path / stage.exercise.name).write_text(edited(3, "no-scale"), encoding="utf-8")
    verdict, failed = Verdict(stage), set()
    for news in run_all([{"stage": 3, "whole": True, "folder": str(tmp_path)}], [stage]):
        verdict.add(news)
        failed |= {verdict.tests[news["test"]][0]} if news["event"] == "failed" else set()
    assert {"3.1", "3.2", "3.3", "3.5", "3.6"} <= failed
    assert verdict.failing == {"3.1"} and verdict.exercise == "3.1" and verdict.failed > 30
    assert verdict.solved == ["3.2", "3.3", "3.4", "3.5", "3.6"]


# --- which exercise --------------------------------------------------------------------------------------------------


def failed(number, text, run, expected, numbers=()):
    """What is known of a check that fails with this text."""
    stage = for_testing(number, "solutions", {number: text})[number]
    with pytest.raises(Exception) as caught:  # noqa: PT011 (whatever it is)
        compare.check(stage, run, expected)
    return diagnosis.finding(caught.value, numbers)


@pytest.mark.parametrize("before", ["from __future__ import annotations\n", '"""Mine."""\n\nimport sys\n'], ids=repr)
def test_exercises_are_found_in_files_that_look_different(before):
    x = compare.rand(2, 6, 3, 5)
    lines = solution(1).splitlines(keepends=True)
    text = "".join(lines[ast.parse(solution(1)).body[0].end_lineno :]).replace("mean = groups", "mean = 2 * groups")
    text = before + text.replace("class GroupNorm(nn.Module):", "class GroupNorm(nn.Module):\n    mine = 3\n")
    layer = torch.nn.GroupNorm(3, 6).double()
    found = failed(1, text, lambda m: m.GroupNorm(3, 6).double()(x), layer(x).detach(), ["1.2"])
    assert found == diagnosis.Finding("1.1", [])


def test_nothing_is_claimed_where_no_single_exercise_is_wrong():
    text = edited(1, N_MINUS_1, "layer-keeps-eps-to-itself")
    x, layer = compare.rand(2, 6, 3, 5, scale=0.01), torch.nn.GroupNorm(3, 6, eps=1e-2).double()
    found = failed(1, text, lambda m: m.GroupNorm(3, 6, 1e-2).double()(x), layer(x).detach(), ["1.2"])
    assert found == diagnosis.Finding()


# --- what is missing in a module -------------------------------------------------------------------------------------


class Without(torch.nn.Module):
    """A module with something else in the place of a parameter."""

    def __init__(self, **attributes):
        super().__init__()
        self.kept = torch.nn.Linear(2, 2)
        vars(self).update(attributes)


@pytest.mark.parametrize(
    ("module", "name", "wanted"),
    [
        (Without(weight=torch.ones(2)), "weight", "weight is a plain tensor: make it an nn.Parameter"),
        (Without(weight=[1.0]), "weight", "weight is of type list: make it an nn.Parameter"),
        (Without(layers=[torch.nn.Linear(2, 2)]), "layers.0.bias", "layers is a plain list, whose layers are not"),
        (Without(act=torch.tanh), "act.bias", "act is of type builtin_function_or_method, which has no parameters"),
        (Without(), "kepd.weight", "should your 'kept.weight' have that name?"),
        (Without(), "gamma", "a layer counts once it is an attribute set in __init__"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_stands_in_the_place_of_a_parameter_is_named(module, name, wanted):
    with pytest.raises(AssertionError) as caught:
        compare.give_weights(module, {name: torch.ones(2)}, "Block()")
    assert f"Block() has no parameter {name!r}" in str(caught.value) and wanted in str(caught.value)


# --- the tool --------------------------------------------------------------------------------------------------------


def test_pairs_hold_two_mistakes():
    handed_in = claims.pairs(50, random.Random(0))
    assert [one.version for one in handed_in] == [one.version for one in claims.pairs(50, random.Random(0))]
    for one in handed_in:
        number = one.version.stage
        assert len(one.made) >= 2 and one.version.text not in [wrong_text(number, m) for m in mistakes_of(number)]
        assert all(name in one.what for name in one.what.partition(": ")[2].split(" and "))


def test_small_changes_change_one_line():
    for one in claims.small_changes(60, random.Random(0)):
        before = ast.unparse(ast.parse(solution(one.version.stage))).splitlines()
        after = one.version.text.splitlines()
        assert len(before) == len(after) and sum(a != b for a, b in zip(before, after)) == 1, one.what
        assert one.version.exercise


def test_a_false_claim_is_refuted_and_a_true_one_is_not():
    def claim(text, *names):
        verdict = Verdict(STAGES[0], mistakes=[{"name": name, "hint": ""} for name in names], failure="...")
        return claims.Claim(claims.HandedIn(Version(1, text), "what"), verdict)

    same = edited(1, ("(groups - mean) / torch.sqrt(variance + eps)", "(groups - mean) / (variance.sqrt() + eps)"))
    names = ["eps-outside-the-root"], ["eps-forgotten"], ["eps-squared", "eps-outside-the-root"]
    found = [claim(same, *some) for some in names]
    claims.look_again(found)
    assert [one.is_false for one in found] == [False, True, False]
    assert "what: a message names eps-forgotten" in found[1].complaint()
