"""Stage 2 against torch's SiLU and the residual block of diffusers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course.feedback import renaming
from course.feedback.compare import check, give_weights, rand, results_and_gradients
from tests.stages import reference

activation = pytest.mark.exercise("2.1")
block = pytest.mark.exercise("2.2")

ROUGH = 1e-4  # where eps is not the question: 1e-5 instead of 1e-6 changes less than this, other mistakes more


# --- silu ------------------------------------------------------------------------------------------------------------


@activation
def test_silu_at_a_few_points(stage):
    x = torch.tensor([-math.log(3), 0.0, math.log(3)], dtype=torch.float64)
    check(
        stage, lambda m: m.silu(x), torch.tensor([-0.25, 0.0, 0.75], dtype=torch.float64) * math.log(3),
        "silu(x) for x = -log 3, 0, log 3, where the sigmoid is 1/4, 1/2, 3/4",
        hint="is it x times the sigmoid of x?", inputs={"x": x},
    )


@activation
@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 4, 5)], ids=str)
def test_silu_of_any_shape(stage, shape):
    x = rand(*shape, scale=3.0)
    check(
        stage, lambda m: m.silu(x), torch.nn.functional.silu(x), f"silu(x) with x of shape {shape}",
        hint="SiLU treats every number by itself; ReLU and GELU only look similar.", inputs={"x": x},
    )


@activation
def test_silu_far_from_zero(stage):
    x = torch.tensor([-2000.0, -800.0, -40.0, 40.0, 800.0, 2000.0], dtype=torch.float64)
    check(
        stage, lambda m: m.silu(x), torch.nn.functional.silu(x), "silu(x) for x from -2000 to 2000",
        hint="exp of a large number is inf, and inf / inf is nan; torch.sigmoid takes care of that.",
    )


@activation
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_silu_keeps_the_dtype(stage, dtype):
    x = rand(2, 3, 4, 5, scale=3.0).to(dtype)
    check(
        stage, lambda m: m.silu(x), torch.nn.functional.silu(x.double()).to(dtype), f"silu(x) with x in {dtype}",
        tolerance=2 * torch.finfo(dtype).eps,  # the sigmoid and the product are each rounded once
        hint="do you make a tensor of another dtype on the way?", inputs={"x": x},
    )


class Silu(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@activation
def test_silu_gradient(stage):
    x = rand(3, 4, scale=3.0)
    check(
        stage, lambda m: results_and_gradients(Silu(m.silu), x),
        results_and_gradients(Silu(torch.nn.functional.silu), x), "silu(x) and its gradient",
        hint="detach, .data, .item() and no_grad cut the gradient off.",
    )


# --- the residual block ----------------------------------------------------------------------------------------------


def make(module, theirs, *args, **kwargs):
    return give_weights(
        module.ResidualBlock(*args, **kwargs), reference.our_weights(theirs, renaming.RESIDUAL),
        call_of(*args, **kwargs),
    )


def call_of(*args, **kwargs):
    return f"ResidualBlock({', '.join([*map(str, args), *(f'{name}={value}' for name, value in kwargs.items())])})"


def without(theirs, *layers):
    """The reference with all parameters of some of its layers at zero."""
    with torch.no_grad():
        for layer in layers:
            for parameter in theirs.get_submodule(layer).parameters():
                parameter.zero_()
    return theirs


@block
@pytest.mark.parametrize("time_channels", [None, 10], ids=["no time", "time"])
@pytest.mark.parametrize("out_channels", [8, 12], ids=["equal channels", "more channels"])
def test_parameters(stage, out_channels, time_channels):
    theirs = reference.residual_block(8, out_channels, time_channels)
    wanted = {name: tuple(w.shape) for name, w in reference.our_weights(theirs, renaming.RESIDUAL).items()}

    def run(module):
        ours = make(module, theirs, 8, out_channels, time_channels=time_channels, num_groups=4)
        return {name: tuple(parameter.shape) for name, parameter in ours.named_parameters()}

    check(stage, run, wanted, f"the parameters of {call_of(8, out_channels, time_channels, 4)}")


@block
def test_equal_channels_need_no_convolution(stage):
    def run(module):
        block = module.ResidualBlock(288, int("288"))  # equal, but not the same object
        return sorted(name for name, _ in block.named_parameters() if name.startswith("shortcut"))

    check(
        stage, run, [], "the shortcut's parameters in ResidualBlock(288, 288)",
        hint="x itself where the number of channels stays the same; compare with ==, `is` means the same object.",
    )


@block
def test_a_correction_of_zero_leaves_the_input(stage):
    theirs = without(reference.residual_block(8, 8), "conv2")
    x = rand(2, 8, 5, 7, scale=2.0, shift=1.0)
    check(
        stage, lambda m: make(m, theirs, 8, 8, num_groups=4)(x), x,
        "ResidualBlock(8, 8, num_groups=4)(x) with conv2 at zero",
        hint="the shortcut is x itself: not normalised, not activated, not scaled, neither before nor after the sum.",
        inputs={"x": x},
    )


@block
def test_a_correction_of_zero_leaves_the_shortcut(stage):
    theirs = without(reference.residual_block(8, 12), "conv2")
    weight, bias = theirs.conv_shortcut.weight.detach(), theirs.conv_shortcut.bias.detach()
    x = rand(2, 8, 5, 7, scale=2.0, shift=1.0)
    check(
        stage, lambda m: make(m, theirs, 8, 12, num_groups=4)(x),
        torch.einsum("oi,bihw->bohw", weight[:, :, 0, 0], x) + bias[:, None, None],
        "ResidualBlock(8, 12, num_groups=4)(x) with conv2 at zero",
        hint="the shortcut convolves the block's input x, not the normalised or activated one.", inputs={"x": x},
    )


@block
def test_the_second_half(stage):
    theirs = reference.residual_block(8, 8)
    with torch.no_grad():
        theirs.conv1.weight.zero_()
        theirs.conv1.bias.mul_(10.0)
    x = rand(2, 8, 5, 7)
    check(
        stage, lambda m: make(m, theirs, 8, 8, num_groups=4)(x), theirs(x, None).detach(),
        "ResidualBlock(8, 8, num_groups=4)(x) with the weight (not the bias) of conv1 at zero",
        hint="after conv1: norm2, then silu, then conv2, and x is added to that.", inputs={"x": x}, tolerance=ROUGH,
    )


@block
@pytest.mark.parametrize("out_channels", [8, 12, 4], ids=["equal channels", "more channels", "fewer channels"])
def test_without_time(stage, out_channels):
    theirs = reference.residual_block(8, out_channels)
    x = rand(2, 8, 5, 7, scale=2.0, shift=1.0)
    check(
        stage, lambda m: make(m, theirs, 8, out_channels, num_groups=4)(x), theirs(x, None).detach(),
        f"ResidualBlock(8, {out_channels}, num_groups=4)(x)",
        hint="before conv1: norm1, then silu; then norm2, silu, conv2.", inputs={"x": x}, tolerance=ROUGH,
    )


@block
def test_time_alone(stage):
    theirs = without(reference.residual_block(8, 12, 10), "conv1", "conv_shortcut")
    x, time = rand(2, 8, 5, 7), rand(2, 10, seed=1, scale=10.0)
    time[1] = time[0]
    check(
        stage, lambda m: make(m, theirs, 8, 12, 10, num_groups=4)(x, time), theirs(x, time).detach(),
        "ResidualBlock(8, 12, time_channels=10, num_groups=4)(x, time_embedding) with conv1 and shortcut at zero",
        hint="the time goes through silu, then time_proj, and is added between conv1 and norm2.",
        inputs={"x": x, "time_embedding": time}, tolerance=ROUGH,
    )


@block
def test_each_sample_has_its_own_time(stage):
    theirs = without(reference.residual_block(8, 12, 10), "conv1", "conv_shortcut")
    x, time = rand(3, 8, 5, 7), rand(3, 10, seed=1, scale=10.0)
    check(
        stage, lambda m: make(m, theirs, 8, 12, 10, num_groups=4)(x, time), theirs(x, time).detach(),
        "ResidualBlock(8, 12, time_channels=10, num_groups=4)(x, time_embedding) with three different times",
        hint="one time vector per sample of the batch.", inputs={"x": x, "time_embedding": time}, tolerance=ROUGH,
    )


@block
@pytest.mark.parametrize("shape", [(2, 8, 5, 7), (3, 8, 3, 12), (5, 8, 12, 5)], ids=str)
def test_with_time(stage, shape):
    """The second shape is (batch, in_channels, batch, out_channels): time of shape (batch, C) would broadcast there."""
    theirs = reference.residual_block(8, 12, 10)
    x, time = rand(*shape), rand(shape[0], 10, seed=1)
    check(
        stage, lambda m: make(m, theirs, 8, 12, 10, num_groups=4)(x, time), theirs(x, time).detach(),
        f"ResidualBlock(8, 12, time_channels=10, num_groups=4)(x, time_embedding) with x of shape {shape}",
        hint="the projected time has the shape (batch, channels, 1, 1) when it is added, the same for all positions.",
        inputs={"x": x, "time_embedding": time}, tolerance=ROUGH,
    )


@block
@pytest.mark.parametrize("eps", [None, 1e-5], ids=["default eps", "eps=1e-5"])
def test_eps_of_norm1(stage, eps):
    kwargs = {} if eps is None else {"eps": eps}
    theirs = reference.residual_block(8, 12, **kwargs)
    x = rand(2, 8, 5, 7, scale=0.003)
    check(
        stage, lambda m: make(m, theirs, 8, 12, num_groups=4, **kwargs)(x), theirs(x, None).detach(),
        f"{call_of(8, 12, num_groups=4, **kwargs)}(x) with a nearly flat x",
        hint="eps belongs to both norms; its default is 1e-6 here, not GroupNorm's.", inputs={"x": x},
    )


@block
@pytest.mark.parametrize("eps", [None, 1e-5], ids=["default eps", "eps=1e-5"])
def test_eps_of_norm2(stage, eps):
    kwargs = {} if eps is None else {"eps": eps}
    theirs = reference.residual_block(8, 12, **kwargs)
    with torch.no_grad():
        theirs.conv1.weight.mul_(0.003)
        theirs.conv1.bias.mul_(0.003)
    x = rand(2, 8, 5, 7)
    check(
        stage, lambda m: make(m, theirs, 8, 12, num_groups=4, **kwargs)(x), theirs(x, None).detach(),
        f"{call_of(8, 12, num_groups=4, **kwargs)}(x) with small weights in conv1",
        hint="eps belongs to both norms; its default is 1e-6 here, not GroupNorm's.", inputs={"x": x},
    )


@block
def test_num_groups_is_32_if_not_given(stage):
    theirs = reference.residual_block(64, 96, groups=32)
    x = rand(2, 64, 3, 4)
    check(
        stage, lambda m: make(m, theirs, 64, 96)(x), theirs(x, None).detach(), "ResidualBlock(64, 96)(x)",
        hint="both norms have num_groups groups, 32 by default.", inputs={"x": x},
    )


@block
def test_not_contiguous(stage):
    theirs = reference.residual_block(8, 12, 10)
    x, time = rand(2, 7, 5, 8).permute(0, 3, 2, 1), rand(10, 2, seed=1).T
    check(
        stage, lambda m: make(m, theirs, 8, 12, 10, num_groups=4)(x, time), theirs(x, time).detach(),
        "ResidualBlock(8, 12, 10, num_groups=4)(x, time_embedding) with x and time_embedding permuted views",
        hint="reshape works where view refuses.", inputs={"x": x, "time_embedding": time},
    )


@block
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_dtype_stays(stage, dtype):
    theirs = reference.residual_block(8, 12, 10)
    x, time = rand(2, 8, 5, 7), rand(2, 10, seed=1)
    check(
        stage, lambda m: make(m, theirs, 8, 12, 10, num_groups=4).to(dtype)(x.to(dtype), time.to(dtype)),
        theirs(x, time).detach().to(dtype), f"ResidualBlock(8, 12, 10, num_groups=4)(x, time_embedding) in {dtype}",
        tolerance=10 * torch.finfo(dtype).eps,  # weights, inputs and each layer's result are rounded
        hint="do you make a tensor of another dtype on the way?",
    )


@block
@pytest.mark.parametrize("time_channels", [None, 10], ids=["no time", "time"])
@pytest.mark.parametrize("out_channels", [8, 12], ids=["equal channels", "more channels"])
def test_gradients(stage, out_channels, time_channels):
    theirs = reference.residual_block(8, out_channels, time_channels)
    inputs = rand(2, 8, 5, 7), None if time_channels is None else rand(2, 10, seed=1)
    check(
        stage,
        lambda m: results_and_gradients(
            make(m, theirs, 8, out_channels, time_channels=time_channels, num_groups=4), *inputs
        ),
        results_and_gradients(theirs, *inputs, names=reference.our_names(theirs, renaming.RESIDUAL)),
        f"{call_of(8, out_channels, time_channels, 4)} and its gradients",
        hint="detach, .data and no_grad cut the gradient off.",
    )


@block
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.none() | st.integers(1, 9),
    st.integers(1, 6), st.integers(2, 6), st.integers(0, 2**31),
)
def test_any_shape(stage, batch, groups, a, b, time_channels, height, width, seed):
    channels = 2 * groups * a, 2 * groups * b
    theirs = reference.residual_block(*channels, time_channels, groups=groups, seed=seed)
    x = rand(batch, channels[0], height, width, seed=seed, scale=2.0)
    time = None if time_channels is None else rand(batch, time_channels, seed=seed)
    check(
        stage, lambda m: make(m, theirs, *channels, time_channels, groups)(x, time), theirs(x, time).detach(),
        f"{call_of(*channels, time_channels, groups)}(x, time_embedding) with x of shape {tuple(x.shape)}",
        tolerance=1e-9,  # small pictures can be nearly flat, which magnifies rounding
    )
