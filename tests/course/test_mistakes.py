"""The catalogue of mistakes is in order; a few of each stage are caught. `make mutants` tries all of them."""

import sys

import numpy as np
import pytest
import torch

from course.core.assemble import for_testing
from course.core.stages import STAGES, find_stage
from course.feedback import diagnosis
from course.feedback.compare import check, difference, rand
from course.feedback.mistakes import changed, mistakes_of, wrong_text
from course.feedback.versions import wrong_version
from tools import mutants, mutation
from tools.mutants import good_enough, table

NUMBERS = [stage.number for stage in STAGES]
LEAST = 8  # entries of a stage


@pytest.mark.parametrize("number", NUMBERS)
def test_every_mistake_changes_the_solution_once(number):
    solution = STAGES[number - 1].solution.read_text(encoding="utf-8")
    texts = {}
    for mistake in mistakes_of(number):
        text = wrong_text(number, mistake)
        compile(text, mistake.name, "exec")
        assert text != solution, mistake.name
        assert text not in texts, f"{mistake.name} is the same as {texts.get(text)}"
        texts[text] = mistake.name
    assert len(texts) >= LEAST


@pytest.mark.parametrize("number", NUMBERS)
def test_names_and_hints(number):
    names = [mistake.name for mistake in mistakes_of(number)]
    hints = [mistake.hint for mistake in mistakes_of(number)]
    assert len(set(names)) == len(names) and len(set(hints)) == len(hints)
    for mistake in mistakes_of(number):
        assert mistake.name == mistake.name.lower() and " " not in mistake.name
        assert mistake.hint.endswith(".") and not mistake.hint.startswith("This"), mistake.name
        assert set(mistake.like) <= set(names) - {mistake.name}, mistake.name


def test_a_change_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match="eps-forgotten: its `find` occurs 2 times"):
        changed("eps eps", "eps", "0", "eps-forgotten")


def version(number, name):
    mistake = next(mistake for mistake in mistakes_of(number) if mistake.name == name)
    return wrong_version.__wrapped__(STAGES[number - 1], mistake)


def message(module, run, expected, **kwargs):
    with pytest.raises(Exception) as caught:  # noqa: PT011 (whatever it is)
        check(module, run, expected, "the call", **kwargs)
    return "\n".join([*diagnosis.sentences(diagnosis.finding(caught.value).mistakes), str(caught.value)])


def test_a_mistake_is_named_by_its_result():
    x = rand(2, 6, 3, 5)
    text = message(
        version(1, "one-group"), lambda m: m.group_norm(x, 3), torch.nn.functional.group_norm(x, 3)
    )
    assert text.startswith("This is exactly what you get when all channels are normalised together.")


def test_a_mistake_is_named_by_its_exception():
    x = rand(2, 6, 3, 5)
    text = message(version(2, "time-per-column"), lambda m: m.ResidualBlock(6, 6, 4, 3).double()(x, rand(2, 4)), x)
    assert "added with the shape (batch, channels)" in text


def test_a_change_in_place_is_named():
    x = rand(2, 6, 3, 5)
    text = message(
        version(1, "input-changed-in-place"), lambda m: m.group_norm(x, 3), torch.nn.functional.group_norm(x, 3),
        inputs={"x": x},
    )
    assert "subtracted in place" in text
    assert torch.equal(x, rand(2, 6, 3, 5))


def test_something_else_is_not_named():
    x = rand(2, 6, 3, 5)
    module = version(1, "one-group")
    module.group_norm = lambda x, *args: x * 1.2345
    assert message(module, lambda m: m.group_norm(x, 3), x).startswith("the call: the values differ")


def test_a_float_is_no_whole_number():
    assert difference([981, np.int64(1)], [981, 1], 0.0) == "" == difference((1.5, 2), (1.5, 2), 0.0)
    for got in ([981.0, 1.0], [981, 1.0], np.array([981.0, 1.0]).tolist()):
        assert "not whole numbers: got [981" in difference(got, [981, 1], 0.0)


@pytest.mark.parametrize("wanted", [torch.zeros(2), [1, 2], {"the output": torch.zeros(2)}], ids=["1", "2", "3"])
def test_a_missing_return_gets_no_hint_about_values(wanted):
    given = {"the output": None} if isinstance(wanted, dict) else None
    with pytest.raises(AssertionError, match=r"got None, wanted .*is there a return\?") as caught:
        check(version(1, "one-group"), lambda module: given, wanted, "the call", hint="x itself is added.")
    assert "Hint" not in str(caught.value)


@pytest.mark.parametrize(("gives", "told"), [("'ab'", r"got 'ab'"), ("None", r"got None.*is there a return\?")])
def test_a_text_is_not_shown_as_a_list_of_letters(gives, told):
    with pytest.raises(AssertionError, match=told):
        check(version(1, "one-group"), f"list({gives})", ["a", "b"], "the call")


def test_right_results_are_not_diagnosed(monkeypatch):
    monkeypatch.setattr(diagnosis, "finding", lambda *args: pytest.fail("a right result was diagnosed"))
    x = rand(2, 6, 3, 5)
    module = version(1, "default-eps-of-the-layer")
    check(module, lambda m: m.group_norm(x, 3), torch.nn.functional.group_norm(x, 3), "group_norm(x, 3)")


def of_stage_1(find, replace):
    text = changed(STAGES[0].solution.read_text(encoding="utf-8"), find, replace, "a wrong version")
    return for_testing(1, "solutions", {1: text})[1]


FLOAT32 = "Something on the way is computed in float32"


@pytest.mark.parametrize("eps", ["torch.tensor([1e-5])", "eps * torch.ones(1, dtype=torch.float32)"])
def test_float32_on_the_way_is_proven(eps):
    x = rand(2, 6, 3, 5, scale=0.01)
    text = message(
        of_stage_1("torch.sqrt(variance + eps)", f"torch.sqrt(variance + {eps})"), "group_norm(x, 3)",
        torch.nn.functional.group_norm(x, 3), x=x, hint="a hint about something else",
    )
    assert FLOAT32 in text and "something else" not in text
    assert torch.get_default_dtype() == torch.float32


def test_a_small_error_for_another_reason_keeps_its_hint():
    x = rand(2, 6, 3, 5)
    text = message(
        of_stage_1("torch.sqrt(variance + eps)", "torch.sqrt(variance + 1.1 * eps)"), "group_norm(x, 3)",
        torch.nn.functional.group_norm(x, 3), x=x, hint="a hint about eps",
    )
    assert FLOAT32 not in text and "Hint: a hint about eps" in text


@pytest.mark.parametrize(
    ("line", "setting"),
    [
        ("torch.set_default_dtype(torch.float64)", "torch.set_default_dtype"),
        ("torch.set_grad_enabled(False)", "torch.set_grad_enabled"), ("torch.manual_seed(0)", "torch.manual_seed"),
    ],
)
def test_a_changed_setting_is_named_and_brought_back(line, setting):
    x, before = rand(2, 6, 3, 5), (torch.get_default_dtype(), torch.is_grad_enabled())
    module = of_stage_1("    batch, channels = x.shape[:2]\n", f"    {line}\n    batch, channels = x.shape[:2]\n")
    text = message(module, "group_norm(x, 3)", torch.nn.functional.group_norm(x, 3), x=x)
    assert f"changes a setting of the whole program: {setting}." in text
    assert before == (torch.get_default_dtype(), torch.is_grad_enabled())


@pytest.mark.limit(600)
def test_some_mistakes_of_a_stage_are_caught_and_named(monkeypatch):
    monkeypatch.setattr(mutants, "mistakes_of", lambda number: mistakes_of(number)[::4])
    monkeypatch.setattr(mutants, "SECONDS", 2 * mutants.SECONDS)  # other tests run beside this one
    cases = mutants.judge([STAGES[3]])
    assert good_enough(cases), "\n".join([*(case.complaint() for case in cases), table(cases)])


# --- small changes everywhere ----------------------------------------------------------------------------------------


def test_what_nobody_can_notice_is_still_there():
    assert mutation.equivalents()
    for (module, before, after), reason in mutation.equivalents().items():
        lines = [line.strip() for line in find_stage(module).solution.read_text(encoding="utf-8").splitlines()]
        assert before in lines and after not in lines and reason, (module, before)


def test_mutation_names_the_package_that_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "cosmic_ray.ast", None)
    with pytest.raises(ValueError, match=r"This needs cosmic-ray==\S+: \S+ -m pip install cosmic-ray=="):
        next(mutation.mutants_of(STAGES[0]))


def test_annotations_are_left_alone():
    places = mutation.annotations("def f(x: int | None = 1 | 2) -> int | None: ...")
    assert (1, 13) in places and (1, 37) in places and (1, 25) not in places
