"""Stage 1 against torch's own group norm."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course.feedback.compare import check, give_weights, rand, results_and_gradients

functional = pytest.mark.exercise("1.1")
layer = pytest.mark.exercise("1.2")


def reference(x, groups, weight=None, bias=None, eps=1e-5):
    return torch.nn.functional.group_norm(x, groups, weight, bias, eps)


@functional
def test_each_group_gets_mean_zero_and_standard_deviation_one(stage):
    x = rand(2, 6, 5, 7, scale=3.0, shift=2.0)

    def run(module):
        groups = module.group_norm(x, 3, eps=0.0).reshape(2, 3, -1)
        return groups.mean(-1), groups.std(-1, unbiased=False)

    check(
        stage, run, (torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)),
        "mean and standard deviation of each group of group_norm(x, num_groups=3, eps=0)",
        hint="each sample and each group of neighbouring channels has its own mean and variance.",
    )


@functional
@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 6, 5, 7), 3), ((3, 8, 4, 2), 2), ((2, 6, 4, 4), 1), ((2, 6, 4, 4), 6)],
    ids=["3 groups", "2 groups", "one group", "a group per channel"],
)
def test_values(stage, shape, groups):
    x = rand(*shape, scale=3.0, shift=2.0)
    check(
        stage, lambda m: m.group_norm(x, groups), reference(x, groups),
        f"group_norm(x, num_groups={groups}) with x of shape {shape}",
        hint="a group is C / num_groups neighbouring channels of one sample, at all positions.", inputs={"x": x},
    )


@functional
def test_the_variance_divides_by_n(stage):
    x = rand(2, 4, 2, 2)
    check(
        stage, lambda m: m.group_norm(x, 4), reference(x, 4),
        "group_norm(x, num_groups=4) with 2x2 pictures", hint="does the variance divide by n, or by n - 1?",
    )


@functional
@pytest.mark.parametrize("eps", [1e-5, 1e-6, 1e-2])
def test_eps_is_added_to_the_variance(stage, eps):
    x = rand(2, 6, 5, 7, scale=0.01)
    check(
        stage, lambda m: m.group_norm(x, 3, eps=eps), reference(x, 3, eps=eps),
        f"group_norm(x, num_groups=3, eps={eps}) with a nearly flat x",
        hint="eps belongs inside of the square root, beside the variance; its default is 1e-5.",
    )


@functional
def test_default_eps(stage):
    x = rand(2, 6, 5, 7, scale=0.001)
    check(
        stage, lambda m: m.group_norm(x, 3), reference(x, 3),
        "group_norm(x, num_groups=3) with a nearly flat x", hint="is eps 1e-5 if none is given?",
    )


@functional
def test_a_constant_picture_becomes_zero(stage):
    x = torch.full((2, 4, 3, 5), 7.0, dtype=torch.float64)
    check(stage, lambda m: m.group_norm(x, 2), torch.zeros_like(x), "group_norm(x, num_groups=2) with all of x equal to 7")


@functional
@pytest.mark.parametrize("given_parts", [("weight",), ("bias",), ("weight", "bias")], ids="+".join)
def test_weight_and_bias_belong_to_channels(stage, given_parts):
    x = rand(2, 6, 3, 6, scale=2.0, shift=1.0)  # as wide as there are channels: broadcasting along the width would run
    affine = {name: rand(6, seed=seed) for seed, name in enumerate(given_parts, 1)}
    check(
        stage, lambda m: m.group_norm(x, 3, **affine), reference(x, 3, **affine),
        f"group_norm(x, 3, {', '.join(f'{name}={name}' for name in given_parts)})",
        hint="there is one weight and one bias per channel: give them the shape (1, C, 1, 1).",
        inputs={"x": x, **affine},
    )


@functional
@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 9), (2, 6, 2, 3, 4)], ids=str)
def test_any_number_of_positions(stage, shape):
    x, weight, bias = rand(*shape), rand(6, seed=1), rand(6, seed=2)
    check(
        stage, lambda m: m.group_norm(x, 2, weight, bias), reference(x, 2, weight, bias),
        f"group_norm(x, 2, weight, bias) with x of shape {shape}",
        hint="do not count on exactly two dimensions after the channels.",
    )


@functional
def test_not_contiguous(stage):
    x = rand(2, 5, 7, 6).permute(0, 3, 1, 2)
    check(
        stage, lambda m: m.group_norm(x, 3), reference(x, 3), "group_norm(x, 3) with x a permuted view",
        hint="reshape works where view refuses.",
    )


@functional
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_is_normalised_in_float32(stage, dtype):
    x = rand(2, 6, 16, 16, scale=400.0, shift=300.0).to(dtype)
    weight, bias = rand(6, seed=1).to(dtype), rand(6, seed=2).to(dtype)
    wanted = reference(x.double(), 3, weight.double(), bias.double()).to(dtype)
    check(
        stage, lambda m: m.group_norm(x, 3, weight, bias), wanted,
        f"group_norm(x, 3, weight, bias) in {str(dtype).removeprefix('torch.')} with a standard deviation of 400",
        tolerance={torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype],  # a unit in the last place
        hint="convert to float32 first and back at the end: float16 overflows, bfloat16 loses digits.",
    )


@functional
def test_float32_with_a_large_mean(stage):
    x = rand(2, 6, 16, 16, shift=300.0).float()
    wanted = reference(x.double(), 3).float()
    check(
        stage, lambda m: m.group_norm(x, 3), wanted, "group_norm(x, 3) in float32 with a mean of 300",
        tolerance=1e-4,  # rounding x - mean at 300 gives 2e-5
        hint="E[x^2] - E[x]^2 loses all digits here; subtract the mean before squaring.",
    )


@functional
def test_groups_that_do_not_divide_the_channels(stage):
    def run(module):
        try:
            return module.group_norm(rand(2, 6, 2, 2), 4)
        except ValueError:
            return "ValueError"

    check(stage, run, "ValueError", "group_norm(x, num_groups=4) with 6 channels", hint="it should raise a ValueError.")


@functional
@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(2, 6), st.integers(0, 2**31)
)
def test_any_shape(stage, batch, groups, channels_per_group, height, width, seed):
    channels = groups * channels_per_group
    x = rand(batch, channels, height, width, seed=seed, scale=2.0, shift=-1.0)
    weight, bias = rand(channels, seed=seed + 1), rand(channels, seed=seed + 2)
    check(
        stage, lambda m: m.group_norm(x, groups, weight, bias), reference(x, groups, weight, bias),
        f"group_norm(x, {groups}, weight, bias) with x of shape {tuple(x.shape)}", tolerance=1e-9,
    )


def make(module, weights, *args, **kwargs):
    return give_weights(module.GroupNorm(*args, **kwargs), weights, "GroupNorm(num_groups, num_channels)")


@layer
def test_a_new_layer_changes_no_scale(stage):
    def run(module):
        norm = module.GroupNorm(3, 6)
        give_weights(module.GroupNorm(3, 6), {"weight": rand(6), "bias": rand(6)}, "GroupNorm(3, 6)")
        return {"weight": norm.weight.detach(), "bias": norm.bias.detach()}

    check(stage, run, {"weight": torch.ones(6), "bias": torch.zeros(6)}, "the parameters of a new GroupNorm(3, 6)")


@layer
@pytest.mark.parametrize("eps", [None, 1e-6], ids=["default eps", "eps=1e-6"])
def test_layer_values_and_gradients(stage, eps):
    kwargs = {} if eps is None else {"eps": eps}
    theirs = torch.nn.GroupNorm(3, 6, **kwargs).double()
    weights = {"weight": rand(6, seed=1), "bias": rand(6, seed=2)}
    theirs.load_state_dict(weights)
    x = rand(2, 6, 5, 7, scale=0.01, shift=0.5)
    check(
        stage, lambda m: results_and_gradients(make(m, weights, 3, 6, **kwargs), x), results_and_gradients(theirs, x),
        f"GroupNorm(3, 6{'' if eps is None else f', eps={eps}'})(x) with a nearly flat x",
        hint="the layer passes num_groups, weight, bias and eps on to group_norm.", tolerance=1e-9,
    )
