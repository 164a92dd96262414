"""Stage 1 against torch's own group norm."""

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers

from course.feedback.compare import check, evaluated, rand, randomised
from tests.stages.blocks import check_block, check_default_dtype, check_function, make_block
from tests.stages.drawing import check_drawing, each_drawing
from tests.stages.in_turn import check_block_in_turn, check_function_in_turn, each_way
from tests.stages.pretended import check_block_on_gpu, check_call_on_gpu

functional = pytest.mark.exercise("1.1")
layer = pytest.mark.exercise("1.2")

GROUPS = "a group is C / num_groups neighbouring channels of one sample, at all positions."
HALF = "convert to float32 first and back at the end: float16 overflows, bfloat16 loses digits."


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
    ("shape", "num_groups", "hint"),
    [
        pytest.param((2, 6, 5, 7), 3, GROUPS, id="3 groups"),
        pytest.param((3, 8, 4, 2), 2, GROUPS, id="2 groups"),
        pytest.param((2, 6, 4, 4), 1, GROUPS, id="one group"),
        pytest.param((2, 6, 4, 4), 6, GROUPS, id="a group per channel"),
        pytest.param((2, 4, 2, 2), 4, "does the variance divide by n, or by n - 1?", id="4 numbers in a group"),
    ],
)
def test_values(stage, shape, num_groups, hint):
    x, about = rand(*shape, scale=3.0, shift=2.0), f"with x of shape {shape}"
    check_function(stage, f"group_norm(x, num_groups={num_groups})", about=about, hint=hint, x=x)


@functional
@pytest.mark.parametrize(
    ("eps", "scale"), [(", eps=1e-5", 0.01), (", eps=1e-6", 0.01), (", eps=1e-2", 0.01), ("", 0.001)],
    ids=["1e-5", "1e-6", "1e-2", "default"],
)
def test_eps_is_added_to_the_variance(stage, eps, scale):
    check_function(
        stage, f"group_norm(x, num_groups=3{eps})", about="with a nearly flat x", x=rand(2, 6, 5, 7, scale=scale),
        hint="eps belongs inside of the square root, beside the variance; its default is 1e-5.",
    )


@functional
def test_a_constant_picture_becomes_zero(stage):
    x = torch.full((2, 4, 3, 5), 7.0, dtype=torch.float64)
    check(stage, "group_norm(x, 2)", torch.zeros_like(x), "group_norm(x, num_groups=2) with all of x equal to 7", x=x)


@functional
@pytest.mark.parametrize("given_parts", [("weight",), ("bias",), ("weight", "bias")], ids="+".join)
def test_weight_and_bias_belong_to_channels(stage, given_parts):
    x = rand(2, 6, 3, 6, scale=2.0, shift=1.0)  # as wide as there are channels: broadcasting along the width would run
    check_function(
        stage, f"group_norm(x, 3, {', '.join(f'{name}={name}' for name in given_parts)})",
        x=x, weight=rand(6, seed=1), bias=rand(6, seed=2),
        hint="there is one weight and one bias per channel: give them the shape (1, C, 1, 1).",
    )


@functional
@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 9), (2, 6, 2, 3, 4)], ids=str)
def test_any_number_of_positions(stage, shape):
    check_function(
        stage, "group_norm(x, 2, weight, bias)", about=f"with x of shape {shape}",
        x=rand(*shape), weight=rand(6, seed=1), bias=rand(6, seed=2),
        hint="do not count on exactly two dimensions after the channels.",
    )


@functional
def test_not_contiguous(stage):
    x, hint = rand(2, 5, 7, 6).permute(0, 3, 1, 2), "reshape works where view refuses."
    check_function(stage, "group_norm(x, 3)", about="with x a permuted view", x=x, hint=hint)


@functional
@pytest.mark.parametrize(
    ("dtype", "scale", "tolerance", "hint"),
    [
        # Rounded once, at the end: nearly all bits agree.
        pytest.param(torch.bfloat16, 4.0, 5e-4, HALF, id="bfloat16, the mean much larger than the deviation"),
        pytest.param(torch.bfloat16, 400.0, 5e-4, HALF, id="bfloat16"),
        pytest.param(torch.float16, 400.0, 1e-4, HALF, id="float16"),
        pytest.param(
            torch.float32, 1.0, 1e-4,  # rounding x - mean at 300 gives 2e-5
            "E[x^2] - E[x]^2 loses all digits here; subtract the mean before squaring.", id="float32",
        ),
    ],
)
def test_precision(stage, dtype, scale, tolerance, hint):
    x = rand(2, 6, 16, 16, scale=scale, shift=300.0).to(dtype)
    weight, bias = rand(6, seed=1).to(dtype), rand(6, seed=2).to(dtype)
    wanted = torch.nn.functional.group_norm(x.double(), 3, weight.double(), bias.double()).to(dtype)
    call = f"group_norm(x, 3, weight, bias) in {dtype} with a mean of 300 and a standard deviation of {scale:g}"
    check(
        stage, "group_norm(x, 3, weight, bias)", wanted, call, tolerance=tolerance, hint=hint,
        x=x, weight=weight, bias=bias,
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
@given(integers(1, 3), integers(1, 4), integers(1, 4), integers(1, 6), integers(2, 6), integers(0, 2**31))
def test_any_shape(stage, batch, groups, channels_per_group, height, width, seed):
    channels = groups * channels_per_group
    x = rand(batch, channels, height, width, seed=seed, scale=2.0, shift=-1.0)
    check_function(
        stage, f"group_norm(x, {groups}, weight, bias)", about=f"with x of shape {tuple(x.shape)}",
        x=x, weight=rand(channels, seed=seed + 1), bias=rand(channels, seed=seed + 2), tolerance=1e-9,
    )


@layer
def test_a_new_layer_changes_no_scale(stage):
    def run(module):
        make_block(module, "GroupNorm(3, 6)", {"weight": rand(6), "bias": rand(6)})
        return dict(module.GroupNorm(3, 6).state_dict())

    check(stage, run, {"weight": torch.ones(6), "bias": torch.zeros(6)}, "the parameters of a new GroupNorm(3, 6)")


@layer
@pytest.mark.parametrize("eps", ["", ", eps=1e-6"], ids=["default eps", "eps=1e-6"])
def test_layer_values_and_gradients(stage, eps):
    text = f"GroupNorm(3, 6{eps})"
    check_block(
        stage, text, randomised(evaluated(text, {})(torch.nn)), {}, about="with a nearly flat x", gradients=True,
        x=rand(2, 6, 5, 7, scale=0.01, shift=0.5), tolerance=1e-9,
        hint="the layer passes num_groups, weight, bias and eps on to group_norm.",
    )


# --- one call after another ------------------------------------------------------------------------------------------

SHAPES = [(2, 6, 5, 7), (2, 6, 5, 7), (3, 6, 4, 2), (1, 6, 9)]
PICTURES = [{"x": rand(*shape, seed=seed, scale=1.0 + seed, shift=seed)} for seed, shape in enumerate(SHAPES)]


@functional
def test_function_called_again(stage):
    settings = [(3, 1e-5), (2, 0.1), (6, 1e-5), (1, 1.0)]
    calls = [x | {"groups": groups, "eps": eps} for x, (groups, eps) in zip(PICTURES, settings)]
    check_function_in_turn(stage, "group_norm(x, groups, eps=eps)", torch.nn.functional, calls)


@layer
@each_way
def test_layer_called_again(stage, way):
    theirs = randomised(torch.nn.GroupNorm(3, 6))
    check_block_in_turn(stage, "GroupNorm(3, 6)", theirs, theirs.state_dict(), PICTURES, way)


# --- by name, and on a GPU ------------------------------------------------------------------------------------------

AFFINE = {"x": rand(2, 6, 5, 7), "weight": rand(6, seed=1), "bias": rand(6, seed=2)}


@functional
def test_every_argument_by_its_name(stage):
    call = "group_norm(x=x, num_groups=3, weight=weight, bias=bias, eps=0.5)"
    check(stage, call, torch.nn.functional.group_norm(AFFINE["x"], 3, AFFINE["weight"], AFFINE["bias"], 0.5), **AFFINE)


@layer
def test_every_argument_of_the_layer_by_its_name(stage):
    theirs = randomised(torch.nn.GroupNorm(3, 6, 0.5))
    check_block(stage, "GroupNorm(num_groups=3, num_channels=6, eps=0.5)", theirs, {}, by_name=True, x=AFFINE["x"])


@layer
def test_the_layer_has_the_default_dtype(stage):
    check_default_dtype(stage, "GroupNorm(3, 6)")


@functional
@pytest.mark.parametrize("names", [["x"], ["x", "weight", "bias"]], ids=", ".join)
def test_on_a_gpu(stage, names):
    call, given = f"group_norm(x, 3{''.join(f', {n}={n}' for n in names[1:])})", {n: AFFINE[n] for n in names}
    check_call_on_gpu(stage, call, evaluated(call, given)(torch.nn.functional), **given)


@layer
def test_the_layer_on_a_gpu(stage):
    check_block_on_gpu(stage, "GroupNorm(3, 6)", randomised(torch.nn.GroupNorm(3, 6)), {}, x=AFFINE["x"])


@layer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_layer_keeps_the_dtype(stage, dtype):
    theirs = randomised(torch.nn.GroupNorm(3, 6))

    def run(module):
        return make_block(module, "GroupNorm(3, 6)", theirs.state_dict()).to(dtype)(AFFINE["x"].to(dtype))

    check(
        stage, run, theirs(AFFINE["x"]).to(dtype), f"GroupNorm(3, 6)(x) in {dtype}",
        tolerance=4 * torch.finfo(dtype).eps, hint="the result has the dtype of x.",  # x, both parameters, the result
    )


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("1.1", "1.2")
@each_drawing("text to image", "into a mask")
def test_what_make_generate_draws(stage, checkpoint_folder, drawing):
    check_drawing(stage, drawing, checkpoint_folder)
