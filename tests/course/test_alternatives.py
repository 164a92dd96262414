"""Right is right, however it is written: the alternatives pass all tests of their stage."""

import ast
from functools import cache

import pytest

from course.core.stages import STAGES
from course.feedback.mistakes import changed
from tests.alternatives import alternatives
from tools.versions import Version, run_versions

LEAST = 3  # alternatives for a stage


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.module)
def test_there_are_enough(stage):
    assert sum(number == stage.number for number, _ in alternatives().values()) >= LEAST


# Changes of a solution that look like a mistake and are none: what it is, stage, find, replace.
HARMLESS = {
    "pixel attention over the transposed picture": (
        3,
        """\
        tokens = image_to_tokens(self.norm(x))
        mixed = scaled_dot_product_attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return x + tokens_to_image(self.to_out(mixed), height, width)""",
        """\
        tokens = image_to_tokens(self.norm(x).transpose(-2, -1))
        mixed = scaled_dot_product_attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return x + tokens_to_image(self.to_out(mixed), width, height).transpose(-2, -1)""",
    ),
    "resizing the transposed picture": (
        4,
        "x.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)",
        "x.transpose(-2, -1).repeat_interleave(scale, -2).repeat_interleave(scale, -1).transpose(-2, -1)",
    ),
    "a second zero that no window reaches": (4, "(0, 1, 0, 1)", "(0, 2, 0, 2)"),
}


def names_in(text: str) -> set[str]:
    """What a text defines: functions, classes, and names that are assigned or imported."""
    found = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        else:
            found |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            found |= {part.asname or part.name for part in ast.walk(node) if isinstance(part, ast.alias)}
    return found


def put_together() -> dict[str, Version]:
    """The alternatives. Those of a stage that write different parts of it are one version, to be tested in one go."""
    versions: dict[str, Version] = {}
    for name, (number, text) in alternatives().items():
        solution = STAGES[number - 1].solution.read_text(encoding="utf-8")
        own = text.removeprefix(solution)
        for other, version in versions.items():
            if version.stage == number and not names_in(own) & names_in(version.text.removeprefix(solution)):
                versions[f"{other} and {name}"] = Version(number, versions.pop(other).text + own)
                break
        else:
            versions[name] = Version(number, text)
    return versions


@cache
def failures() -> dict[str, str]:
    """What the tests say against each of them, and against what only looks wrong."""
    versions = put_together()
    for name, (number, find, replace) in HARMLESS.items():
        text = STAGES[number - 1].solution.read_text(encoding="utf-8")
        versions[name] = Version(number, changed(text, find, replace, name))
    found = zip(versions, run_versions(list(versions.values())), strict=True)
    return {name: f"{name}, {o.test}:\n{o.failure}" for name, o in found if o.failure or not o.passed}


def test_each_alternative_is_in_one_version():
    names = [name for joined in put_together() for name in joined.split(" and ")]
    assert sorted(names) == sorted(alternatives())


@pytest.mark.limit(600)
def test_every_alternative_passes():
    assert not failures().keys() - HARMLESS.keys(), "\n\n".join(failures().values())


@pytest.mark.limit(600)
def test_what_only_looks_wrong_passes():
    assert not failures().keys() & HARMLESS.keys(), "\n\n".join(failures().values())
