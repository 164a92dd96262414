"""Stage 4 against torch's interpolation and the resizing blocks of diffusers."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import booleans, integers

from course.feedback.compare import check, rand
from tests.stages.blocks import check_default_dtype, check_function, make_block
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

nearest = pytest.mark.exercise("4.1")
up = pytest.mark.exercise("4.2")
down = pytest.mark.exercise("4.3")

VIEW = "reshape works where view refuses."


def interpolated(x, scale=2):
    return torch.nn.functional.interpolate(x, scale_factor=scale, mode="nearest")


TORCH = SimpleNamespace(upsample_nearest=interpolated)


def picture(*rows):
    return torch.tensor(rows, dtype=torch.float64)[None, None]


# --- upsample_nearest ------------------------------------------------------------------------------------------------


@nearest
def test_two_by_three_pixels(stage):
    wanted = picture([1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3, 3], [4, 4, 5, 5, 6, 6], [4, 4, 5, 5, 6, 6])
    check(
        stage, "upsample_nearest(x)", wanted, "upsample_nearest(x) with x = [[1, 2, 3], [4, 5, 6]]",
        x=picture([1, 2, 3], [4, 5, 6]),
        hint="equal pixels stand side by side, in squares; nothing is blended, and the picture is not tiled.",
    )


@nearest
@pytest.mark.parametrize("scale", ["", ", 1", ", 2", ", 3", ", 4"], ids=["default", "1", "2", "3", "4"])
def test_scale(stage, scale):
    check_function(
        stage, f"upsample_nearest(x{scale})", TORCH, about="with x of shape (2, 3, 4, 6)", x=rand(2, 3, 4, 6),
        hint="scale, 2 if not given, counts for the height and for the width.",
    )


@nearest
def test_nearest_not_contiguous(stage):
    x = rand(2, 6, 4, 3).permute(0, 3, 2, 1)
    check_function(stage, "upsample_nearest(x, 3)", TORCH, about="with x a permuted view", x=x, hint=VIEW)


@nearest
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_nearest_keeps_the_dtype_and_every_bit(stage, dtype):
    check_function(
        stage, "upsample_nearest(x)", TORCH, about=f"with x in {dtype}", x=rand(2, 3, 4, 6).to(dtype),
        tolerance=0.0,  # repeating computes nothing
        hint="do you make a tensor of another dtype on the way?",
    )


@nearest
def test_nearest_gradient(stage):
    check_function(
        stage, "upsample_nearest(x)", TORCH, gradients=True, x=rand(2, 3, 4, 6),
        hint="the gradient of a pixel is the sum over its square; detach, .data and no_grad cut it off.",
    )


@nearest
@given(integers(1, 3), integers(1, 3), integers(1, 6), integers(1, 6), integers(1, 4), integers(0, 2**31))
def test_nearest_any_shape(stage, batch, channels, height, width, scale, seed):
    x = rand(batch, channels, height, width, seed=seed)
    rows, columns = torch.arange(height * scale) // scale, torch.arange(width * scale) // scale
    check(
        stage, f"upsample_nearest(x, {scale})", x[:, :, rows][..., columns],
        f"upsample_nearest(x, {scale}) with x of shape {tuple(x.shape)}",
        hint="y[..., i, j] = x[..., i // scale, j // scale]", x=x,
    )


# --- Upsample and Downsample -----------------------------------------------------------------------------------------

COPY = [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
CORNER = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
NOTHING = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
SUM = [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]

each_block = pytest.mark.parametrize(
    "text",
    [
        pytest.param("Upsample(6)", marks=up),
        pytest.param("Downsample(6)", marks=down),
        pytest.param("Downsample(6, asymmetric=True)", marks=down),
    ],
)


def check_kernel(stage, text, taps, x, expected, *, about, hint, bias=0.0):
    """The block with a convolution of each channel by itself: 3x3 taps, the same for all channels."""
    channels = x.shape[1]
    weight = torch.eye(channels, dtype=torch.float64)[:, :, None, None] * torch.tensor(taps, dtype=torch.float64)
    weights = {"conv.weight": weight, "conv.bias": torch.full((channels,), bias, dtype=torch.float64)}
    call = f"{text}(x) {about}"
    check(stage, lambda m: make_block(m, text, weights)(x), expected, call, hint=hint, inputs={"x": x})


@each_block
def test_parameters(stage, text):
    check_parameters(stage, text)


@up
def test_a_kernel_that_copies_leaves_the_squares(stage):
    x = rand(2, 3, 4, 5)
    check_kernel(
        stage, "Upsample(3)", COPY, x, interpolated(x), about="with a conv that copies its input",
        hint="every pixel becomes 2x2 equal pixels.",
    )


@up
def test_the_convolution_has_the_last_word(stage):
    check_kernel(
        stage, "Upsample(3)", NOTHING, rand(2, 3, 4, 5), torch.full((2, 3, 8, 10), 2.0, dtype=torch.float64), bias=2.0,
        about="with a conv whose weight is 0 and whose bias is 2",
        hint="is the convolution applied, and is nothing added to its result?",
    )


@up
def test_the_convolution_comes_after_the_resize(stage):
    check_kernel(
        stage, "Upsample(1)", SUM, picture([1, 0, 0]), picture([4, 4, 2, 0, 0, 0], [4, 4, 2, 0, 0, 0]),
        about="with x = [[1, 0, 0]] and a conv that sums 3x3 pixels",
        hint="the sum is over the large picture: resize first, then convolve, with one zero around the picture.",
    )


@up
@pytest.mark.parametrize("channels", [1, 6])
def test_upsample_values(stage, channels):
    check_counterpart(
        stage, f"Upsample({channels})", about=f"with x of shape {(2, channels, 4, 7)}", x=rand(2, channels, 4, 7),
        hint="nearest neighbours, then a 3x3 convolution with padding 1.",
    )


@down
@pytest.mark.parametrize(
    ("asymmetric", "taps", "of_conv", "hint"),
    [
        (
            "", COPY, "copies the pixel under its centre",
            "asymmetric is False if not given: one zero on every side, so that the first 3x3 window has its centre on "
            "the first pixel; the stride is 2.",
        ),
        (
            ", asymmetric=True", CORNER, "copies the pixel at the top left of its window",
            "there is no zero above and to the left: the first 3x3 window begins at the first pixel.",
        ),
    ],
    ids=["symmetric", "asymmetric"],
)
def test_grid(stage, asymmetric, taps, of_conv, hint):
    x = rand(2, 3, 4, 6)
    about = f"with a conv that {of_conv}"
    check_kernel(stage, f"Downsample(3{asymmetric})", taps, x, x[:, :, ::2, ::2], about=about, hint=hint)


@down
@pytest.mark.parametrize(
    ("asymmetric", "counts", "hint"),
    [
        ("", picture([4, 6, 6], [6, 9, 9]), "one row or column of zeros on each of the four sides."),
        (
            ", asymmetric=True", picture([9, 9, 6], [6, 6, 4]),
            "zeros, not copies of the border: one column at the right, one row at the bottom.",
        ),
    ],
    ids=["symmetric", "asymmetric"],
)
def test_padding(stage, asymmetric, counts, hint):
    x, about = torch.ones(1, 1, 4, 6).double(), "with x all ones and a conv that counts the ones in its window"
    check_kernel(stage, f"Downsample(1{asymmetric})", SUM, x, counts, about=about, hint=hint)


@down
@pytest.mark.parametrize("text", ["Downsample(6)", "Downsample(6, asymmetric=True)"])
@pytest.mark.parametrize("shape", [(2, 6, 4, 10), (3, 6, 8, 2), (2, 6, 2, 2)], ids=str)
def test_downsample_values(stage, shape, text):
    check_counterpart(
        stage, text, about=f"with x of shape {shape}", x=rand(*shape),
        hint="one 3x3 convolution with stride 2, and nothing after it.",
    )


@each_block
def test_not_contiguous(stage, text):
    check_counterpart(stage, text, about="with x a permuted view", x=rand(2, 8, 4, 6).permute(0, 3, 2, 1), hint=VIEW)


@each_block
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_dtype_stays(stage, text, dtype):
    check_dtype(
        stage, text, dtype, x=rand(2, 6, 4, 8), roundings=4,  # of weights, inputs and the result
        hint="do you make a tensor of another dtype on the way? Is what you pad with of the dtype of x?",
    )


@each_block
def test_gradients(stage, text):
    hint = "detach, .data and no_grad cut the gradient off."
    check_counterpart(stage, text, gradients=True, x=rand(2, 6, 4, 8), hint=hint)


@pytest.mark.exercise("4.2", "4.3")
@given(integers(1, 3), integers(1, 4), integers(1, 4), integers(1, 4), booleans(), integers(0, 2**31))
def test_any_shape(stage, batch, channels, height, width, asymmetric, seed):
    x = rand(batch, channels, 2 * height, 2 * width, seed=seed)
    for text in (f"Upsample({channels})", f"Downsample({channels}, asymmetric={asymmetric})"):
        check_counterpart(stage, text, counterpart(text, seed), about=f"with x of shape {tuple(x.shape)}", x=x)


# --- one call after another ------------------------------------------------------------------------------------------

SHAPES = [(2, 6, 4, 8), (2, 6, 4, 8), (2, 6, 2, 6), (3, 6, 4, 2), (1, 6, 8, 4)]


@nearest
def test_nearest_called_again(stage):
    scales = [2, 3, 2, 1, 4]
    calls = [{"x": rand(*shape, seed=scale), "scale": scale} for shape, scale in zip(SHAPES, scales)]
    check_function_in_turn(stage, "upsample_nearest(x, scale)", TORCH, calls)


@each_block
@each_way
def test_called_again(stage, text, way):
    check_counterpart_in_turn(stage, text, [{"x": rand(*shape, seed=i)} for i, shape in enumerate(SHAPES)], way)


# --- by name, and on a GPU ------------------------------------------------------------------------------------------


@nearest
def test_upsample_nearest_by_name(stage):
    x = rand(2, 3, 4, 6)
    check(stage, "upsample_nearest(x=x, scale=3)", interpolated(x, 3), x=x)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Upsample(channels=6)", marks=up),
        pytest.param("Downsample(channels=6, asymmetric=True)", marks=down),
        pytest.param("Downsample(6, True)", marks=down),
    ],
)
def test_every_argument_by_its_name(stage, text):
    check_counterpart(stage, text, by_name=True, x=rand(2, 6, 4, 8))


@nearest
def test_upsample_nearest_on_a_gpu(stage):
    x = rand(2, 3, 4, 6)
    check_call_on_gpu(stage, "upsample_nearest(x)", interpolated(x), x=x)


@each_block
def test_default_dtype(stage, text):
    check_default_dtype(stage, text)


@each_block
def test_on_a_gpu(stage, text):
    check_block_on_gpu(stage, text, counterpart(text), rules_of(text), x=rand(2, 6, 4, 8))


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("4.1", "4.2", "4.3")
@each_drawing("text to image", "into a mask")
def test_what_make_generate_draws(stage, checkpoint_folder, drawing):
    check_drawing(stage, drawing, checkpoint_folder)
