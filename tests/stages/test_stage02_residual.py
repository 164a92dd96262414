"""Stage 2 against torch's SiLU and the residual block of diffusers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers, none

from course.feedback.compare import check, rand
from tests.stages.blocks import check_default_dtype, check_function, without
from tests.stages.counterparts import (
    check_counterpart,
    check_counterpart_in_turn,
    check_dtype,
    check_parameters,
    counterpart,
    rules_of,
)
from tests.stages.drawing import check_drawing, each_drawing
from tests.stages.in_turn import check_function_in_turn, each_way
from tests.stages.pretended import check_block_on_gpu, check_call_on_gpu

activation = pytest.mark.exercise("2.1")
block = pytest.mark.exercise("2.2")

ROUGH = 1e-4  # where eps is not the question: 1e-5 instead of 1e-6 changes less than this, other mistakes more
CUT = "detach, .data, .item() and no_grad cut the gradient off."
DTYPE = "do you make a tensor of another dtype on the way?"
EPS = "eps belongs to both norms; its default is 1e-6 here, not GroupNorm's."

# --- silu ------------------------------------------------------------------------------------------------------------


@activation
def test_silu_at_a_few_points(stage):
    x = torch.tensor([-math.log(3), 0.0, math.log(3)], dtype=torch.float64)
    check(
        stage, "silu(x)", torch.tensor([-0.25, 0.0, 0.75], dtype=torch.float64) * math.log(3),
        "silu(x) for x = -log 3, 0, log 3, where the sigmoid is 1/4, 1/2, 3/4",
        hint="is it x times the sigmoid of x?", x=x,
    )


@activation
@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 4, 5)], ids=str)
def test_silu_of_any_shape(stage, shape):
    hint = "SiLU treats every number by itself; ReLU and GELU only look similar."
    check_function(stage, "silu(x)", about=f"with x of shape {shape}", x=rand(*shape, scale=3.0), hint=hint)


@activation
def test_silu_far_from_zero(stage):
    check_function(
        stage, "silu(x)", x=torch.tensor([-2000.0, -800.0, -40.0, 40.0, 800.0, 2000.0], dtype=torch.float64),
        about="for x from -2000 to 2000",
        hint="exp of a large number is inf, and inf / inf is nan; torch.sigmoid takes care of that.",
    )


@activation
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_silu_keeps_the_dtype(stage, dtype):
    x = rand(2, 3, 4, 5, scale=3.0).to(dtype)
    check(
        stage, "silu(x)", torch.nn.functional.silu(x.double()).to(dtype), f"silu(x) with x in {dtype}", x=x, hint=DTYPE,
        tolerance=2 * torch.finfo(dtype).eps,  # the sigmoid and the product are each rounded once
    )


@activation
def test_silu_gradient(stage):
    check_function(stage, "silu(x)", gradients=True, x=rand(3, 4, scale=3.0), hint=CUT)


# --- the residual block ----------------------------------------------------------------------------------------------

NO_TIME = "ResidualBlock(8, 12, num_groups=4)"
TIME = "ResidualBlock(8, 12, time_channels=10, num_groups=4)"
each_kind = pytest.mark.parametrize(
    "text", ["ResidualBlock(8, 8, num_groups=4)", NO_TIME, "ResidualBlock(8, 8, time_channels=10, num_groups=4)", TIME]
)


@block
@each_kind
def test_parameters(stage, text):
    check_parameters(stage, text)


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
@pytest.mark.parametrize(
    ("out_channels", "hint"),
    [
        (8, "the shortcut is x itself: not normalised, not activated, not scaled, neither before nor after the sum."),
        (12, "the shortcut convolves the block's input x, not the normalised or activated one."),
    ],
    ids=["equal channels", "more channels"],
)
def test_a_correction_of_zero_leaves_the_shortcut(stage, out_channels, hint):
    text, x = f"ResidualBlock(8, {out_channels}, num_groups=4)", rand(2, 8, 5, 7, scale=2.0, shift=1.0)
    check_counterpart(stage, text, without(counterpart(text), "conv2"), about="with conv2 at zero", x=x, hint=hint)


@block
def test_the_second_half(stage):
    theirs = counterpart("ResidualBlock(8, 8, num_groups=4)")
    theirs.conv1.weight.detach().zero_()
    theirs.conv1.bias.detach().mul_(10.0)
    check_counterpart(
        stage, "ResidualBlock(8, 8, num_groups=4)", theirs, about="with the weight (not the bias) of conv1 at zero",
        x=rand(2, 8, 5, 7), tolerance=ROUGH, hint="after conv1: norm2, then silu, then conv2, and x is added to that.",
    )


@block
@pytest.mark.parametrize("out_channels", [8, 12, 4], ids=["equal channels", "more channels", "fewer channels"])
def test_without_time(stage, out_channels):
    check_counterpart(
        stage, f"ResidualBlock(8, {out_channels}, num_groups=4)", x=rand(2, 8, 5, 7, scale=2.0, shift=1.0),
        tolerance=ROUGH, hint="before conv1: norm1, then silu; then norm2, silu, conv2.",
    )


@block
@pytest.mark.parametrize(
    ("times", "about", "hint"),
    [
        ([0, 0], "", "the time goes through silu, then time_proj, and is added between conv1 and norm2."),
        ([0, 1, 2], ", with three different times", "one time vector per sample of the batch."),
    ],
    ids=["one time", "three times"],
)
def test_time_alone(stage, times, about, hint):
    check_counterpart(
        stage, TIME, without(counterpart(TIME), "conv1", "conv_shortcut"), tolerance=ROUGH,
        about=f"with conv1 and shortcut at zero{about}", hint=hint,
        x=rand(len(times), 8, 5, 7), time_embedding=rand(3, 10, seed=1, scale=10.0)[times],
    )


@block
@pytest.mark.parametrize("shape", [(2, 8, 5, 7), (3, 8, 3, 12), (5, 8, 12, 5)], ids=str)
def test_with_time(stage, shape):
    """The second shape is (batch, in_channels, batch, out_channels): time of shape (batch, C) would broadcast there."""
    check_counterpart(
        stage, TIME, about=f"with x of shape {shape}", x=rand(*shape), time_embedding=rand(shape[0], 10, seed=1),
        hint="the projected time has the shape (batch, channels, 1, 1) when it is added, the same for all positions.",
        tolerance=ROUGH,
    )


@block
@pytest.mark.parametrize("text", [NO_TIME, "ResidualBlock(8, 12, num_groups=4, eps=1e-5)"])
@pytest.mark.parametrize(
    ("of_x", "of_conv1", "about"), [(0.003, 1.0, "with a nearly flat x"), (1.0, 0.003, "with small weights in conv1")],
    ids=["norm1", "norm2"],
)
def test_eps(stage, of_x, of_conv1, about, text):
    theirs = counterpart(text)
    for parameter in theirs.conv1.parameters():
        parameter.detach().mul_(of_conv1)
    check_counterpart(stage, text, theirs, about=about, x=rand(2, 8, 5, 7, scale=of_x), hint=EPS)


@block
def test_num_groups_is_32_if_not_given(stage):
    hint = "both norms have num_groups groups, 32 by default."
    check_counterpart(stage, "ResidualBlock(64, 96)", x=rand(2, 64, 3, 4), hint=hint)


@block
def test_not_contiguous(stage):
    check_counterpart(
        stage, TIME, about="with x and time_embedding permuted views", hint="reshape works where view refuses.",
        x=rand(2, 7, 5, 8).permute(0, 3, 2, 1), time_embedding=rand(10, 2, seed=1).T,
    )


@block
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_dtype_stays(stage, dtype):
    inputs = {"x": rand(2, 8, 5, 7), "time_embedding": rand(2, 10, seed=1)}
    check_dtype(stage, TIME, dtype, roundings=10, hint=DTYPE, **inputs)  # of weights, inputs and each layer's result


@block
@each_kind
def test_gradients(stage, text):
    time = {"time_embedding": rand(2, 10, seed=1)} if "time" in text else {}
    check_counterpart(stage, text, gradients=True, hint=CUT, x=rand(2, 8, 5, 7), **time)


@block
@given(
    integers(1, 3), integers(1, 3), integers(1, 3), integers(1, 3), none() | integers(1, 9),
    integers(1, 6), integers(2, 6), integers(0, 2**31),
)
def test_any_shape(stage, batch, groups, a, b, time_channels, height, width, seed):
    text = f"ResidualBlock({2 * groups * a}, {2 * groups * b}, {time_channels}, {groups})"
    x = rand(batch, 2 * groups * a, height, width, seed=seed, scale=2.0)
    check_counterpart(
        stage, text, counterpart(text, seed), about=f"with x of shape {tuple(x.shape)}",
        x=x, time_embedding=None if time_channels is None else rand(batch, time_channels, seed=seed),
        tolerance=1e-9,  # small pictures can be nearly flat, which magnifies rounding
    )


# --- one call after another ------------------------------------------------------------------------------------------


@activation
def test_silu_called_again(stage):
    shapes = [(2, 3), (2, 3), (3, 2), (4, 1, 2)]
    calls = [{"x": rand(*shape, seed=seed, scale=3.0)} for seed, shape in enumerate(shapes)]
    check_function_in_turn(stage, "silu(x)", torch.nn.functional, calls)


@block
@pytest.mark.parametrize("text", ["ResidualBlock(8, 8, num_groups=4)", TIME])
@each_way
def test_called_again(stage, text, way):
    shapes = [(2, 8, 5, 7), (2, 8, 5, 7), (2, 8, 3, 4), (3, 8, 4, 6), (1, 8, 5, 7)]
    calls = [{"x": rand(*shape, seed=seed)} for seed, shape in enumerate(shapes)]
    if "time" in text:
        calls = [x | {"time_embedding": rand(len(x["x"]), 10, seed=9 - i)} for i, x in enumerate(calls)]
    check_counterpart_in_turn(stage, text, calls, way)


# --- by name, and on a GPU ------------------------------------------------------------------------------------------


@activation
def test_silu_by_name(stage):
    x = rand(3, 4)
    check(stage, "silu(x=x)", torch.nn.functional.silu(x), x=x)


@block
def test_every_argument_by_its_name(stage):
    text = "ResidualBlock(in_channels=8, out_channels=12, time_channels=10, num_groups=4, eps=0.5)"
    check_counterpart(stage, text, by_name=True, x=rand(2, 8, 5, 7), time_embedding=rand(2, 10, seed=1))


@activation
def test_silu_on_a_gpu(stage):
    x = rand(3, 4)
    check_call_on_gpu(stage, "silu(x)", torch.nn.functional.silu(x), x=x)


@block
@each_kind
def test_default_dtype(stage, text):
    check_default_dtype(stage, text)


@block
@each_kind
def test_on_a_gpu(stage, text):
    time = {"time_embedding": rand(2, 10, seed=1)} if "time" in text else {}
    check_block_on_gpu(stage, text, counterpart(text), rules_of(text), x=rand(2, 8, 5, 7), **time)


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("2.1", "2.2")
@each_drawing("text to image", "into a mask")
def test_what_make_generate_draws(stage, checkpoint_folder, drawing):
    check_drawing(stage, drawing, checkpoint_folder)
