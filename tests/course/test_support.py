"""What the stage tests share says what it should: a message that hides the difference would help nobody."""

import pytest
import torch
from torch import nn

from course.feedback.compare import describe, difference, give_weights, rand


def test_random_numbers_of_any_shape():
    assert rand().shape == () and rand(2, 0, 3).shape == (2, 0, 3)
    assert torch.equal(rand(2, 3, seed=1), rand(2, 3, seed=1)) and not torch.equal(rand(3, seed=1), rand(3, seed=2))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (1.5, "float 1.5"),
        (torch.zeros(2, 3), "a float32 tensor of shape (2, 3)"),
        ((torch.zeros(2), None), "a tuple of 2 (a float32 tensor of shape (2,), None)"),
        ([(torch.zeros(1), 1)], "a list of 1 (a tuple of 2 (a float32 tensor of shape (1,), int 1))"),
        ((3, 4), "tuple (3, 4)"),
        ({"a": torch.zeros(9)}, "a dictionary with 'a'"),
        ({}, "a dictionary with nothing in it"),
    ],
    ids=str,
)
def test_values_are_described_without_their_numbers(value, text):
    assert describe(value) == text


def test_long_values_are_cut_short():
    for value in ["x" * 10_000, [torch.zeros(1)] * 1000, dict.fromkeys(range(1000)), nn.Sequential(*[nn.SiLU()] * 99)]:
        assert len(describe(value)) < 200 and "\n" not in describe(value)


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        (1 + 1e-9, 1.0, "got 1.000000001, wanted 1"),
        (1.25, 1.0, "got 1.25, wanted 1"),
        (1234567.25, 1234567.75, "got 1234567, wanted 1234568"),
    ],
)
@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_numbers_that_differ_do_not_print_alike(actual, expected, message, shape):
    a, e = (torch.tensor(value, dtype=torch.float64).reshape(shape) for value in (actual, expected))
    assert message in difference(a, e, 1e-12)


def test_whole_numbers_print_in_full():
    assert "got 12345678, wanted 12345679" in difference(torch.tensor([12345678]), torch.tensor([12345679]), 0)


def test_of_infinities_the_one_that_differs_is_shown():
    actual, expected = torch.tensor([1.001, -torch.inf, 2.0]), torch.tensor([1.0, -torch.inf, -torch.inf])
    assert "1 of 3 numbers of shape (3,) differ; the first at [2]: got 2, wanted -inf" in difference(
        actual, expected, 1e-6
    )


def test_a_layer_under_two_names_is_named():
    module = nn.Module()
    module.first = module.second = nn.Linear(2, 2)
    weights = {name: rand(*tensor.shape) for name, tensor in module.state_dict().items()}
    with pytest.raises(AssertionError, match=r"first.weight and second.weight are one and the same parameter"):
        give_weights(module, weights, "Block()")


def test_a_plain_tensor_is_named():
    module = nn.Module()
    module.register_buffer("weight", torch.ones(2))
    with pytest.raises(AssertionError, match=r"weight is a plain tensor; make it an nn.Parameter"):
        give_weights(module, {"weight": rand(2)}, "Block()")
