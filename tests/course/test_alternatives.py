"""Right is right, however it is written: the alternatives pass all tests of their stage."""

import pytest

from course.core.stages import STAGES
from course.feedback.mistakes import changed
from tests.alternatives import alternatives
from tools.versions import Version, run_versions

LEAST = 3  # alternatives for a stage


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.module)
def test_there_are_enough(stage):
    assert sum(number == stage.number for number, _ in alternatives().values()) >= LEAST


@pytest.mark.limit(600)
def test_every_alternative_passes():
    found = alternatives()
    outcomes = run_versions([Version(number, text) for number, text in found.values()])
    failures = [f"{name}, {o.test}:\n{o.failure}" for name, o in zip(found, outcomes) if o.failure or not o.passed]
    assert not failures, "\n\n".join(failures)


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


@pytest.mark.limit(600)
def test_what_only_looks_wrong_passes():
    versions = []
    for name, (number, find, replace) in HARMLESS.items():
        text = STAGES[number - 1].solution.read_text(encoding="utf-8")
        versions.append(Version(number, changed(text, find, replace, name)))
    for name, outcome in zip(HARMLESS, run_versions(versions)):
        assert outcome.passed and not outcome.failure, f"{name}, {outcome.test}:\n{outcome.failure}"
