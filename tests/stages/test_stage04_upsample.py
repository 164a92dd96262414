"""Stage 4 against torch's interpolation and the resizing blocks of diffusers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course.feedback.compare import check, give_weights, rand, results_and_gradients
from tests.stages import reference

nearest = pytest.mark.exercise("4.1")
up = pytest.mark.exercise("4.2")
down = pytest.mark.exercise("4.3")
both_paddings = pytest.mark.parametrize("asymmetric", [False, True], ids=["symmetric", "asymmetric"])


def picture(*rows):
    return torch.tensor(rows, dtype=torch.float64)[None, None]


# --- upsample_nearest ------------------------------------------------------------------------------------------------


@nearest
def test_two_by_three_pixels(stage):
    x = picture([1, 2, 3], [4, 5, 6])
    wanted = picture([1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3, 3], [4, 4, 5, 5, 6, 6], [4, 4, 5, 5, 6, 6])
    check(
        stage, lambda m: m.upsample_nearest(x), wanted, "upsample_nearest(x) with x = [[1, 2, 3], [4, 5, 6]]",
        hint="equal pixels stand side by side, in squares; nothing is blended, and the picture is not tiled.",
        inputs={"x": x},
    )


@nearest
@pytest.mark.parametrize("scale", [None, 1, 2, 3, 4])
def test_scale(stage, scale):
    x = rand(2, 3, 4, 6)
    args = () if scale is None else (scale,)
    check(
        stage, lambda m: m.upsample_nearest(x, *args),
        torch.nn.functional.interpolate(x, scale_factor=scale or 2, mode="nearest"),
        f"upsample_nearest({', '.join(['x', *map(str, args)])}) with x of shape (2, 3, 4, 6)",
        hint="scale, 2 if not given, counts for the height and for the width.", inputs={"x": x},
    )


@nearest
def test_nearest_not_contiguous(stage):
    x = rand(2, 6, 4, 3).permute(0, 3, 2, 1)
    check(
        stage, lambda m: m.upsample_nearest(x, 3), torch.nn.functional.interpolate(x, scale_factor=3, mode="nearest"),
        "upsample_nearest(x, 3) with x a permuted view", hint="reshape works where view refuses.", inputs={"x": x},
    )


@nearest
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_nearest_keeps_the_dtype_and_every_bit(stage, dtype):
    x = rand(2, 3, 4, 6).to(dtype)
    check(
        stage, lambda m: m.upsample_nearest(x), torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest"),
        f"upsample_nearest(x) with x in {dtype}", tolerance=0.0,  # repeating computes nothing
        hint="do you make a tensor of another dtype on the way?", inputs={"x": x},
    )


class Nearest(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@nearest
def test_nearest_gradient(stage):
    x = rand(2, 3, 4, 6)
    theirs = Nearest(lambda x: torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest"))
    check(
        stage, lambda m: results_and_gradients(Nearest(m.upsample_nearest), x), results_and_gradients(theirs, x),
        "upsample_nearest(x) and its gradient",
        hint="the gradient of a pixel is the sum over its square; detach, .data and no_grad cut it off.",
    )


@nearest
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**31)
)
def test_nearest_any_shape(stage, batch, channels, height, width, scale, seed):
    x = rand(batch, channels, height, width, seed=seed)
    rows, columns = torch.arange(height * scale) // scale, torch.arange(width * scale) // scale
    check(
        stage, lambda m: m.upsample_nearest(x, scale), x[:, :, rows][..., columns],
        f"upsample_nearest(x, {scale}) with x of shape {tuple(x.shape)}",
        hint="y[..., i, j] = x[..., i // scale, j // scale]",
    )


# --- Upsample --------------------------------------------------------------------------------------------------------


def make_up(module, weights, channels):
    return give_weights(module.Upsample(channels), weights, f"Upsample({channels})")


def kernel(channels, taps, bias=0.0):
    """A convolution of each channel by itself: 3x3 taps, the same for all channels."""
    weight = torch.zeros(channels, channels, 3, 3, dtype=torch.float64)
    for channel in range(channels):
        weight[channel, channel] = torch.tensor(taps)
    return {"conv.weight": weight, "conv.bias": torch.full((channels,), bias, dtype=torch.float64)}


CENTRE = [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
CORNER = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
SUM = [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]


@up
def test_upsample_parameters(stage):
    wanted = {"conv.weight": (6, 6, 3, 3), "conv.bias": (6,)}

    def run(module):
        ours = make_up(module, reference.our_weights(reference.upsample(6)), 6)
        return {name: tuple(parameter.shape) for name, parameter in ours.named_parameters()}

    check(stage, run, wanted, "the parameters of Upsample(6)")


@up
def test_a_kernel_that_copies_leaves_the_squares(stage):
    x = rand(2, 3, 4, 5)
    check(
        stage, lambda m: make_up(m, kernel(3, CENTRE), 3)(x),
        torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest"),
        "Upsample(3)(x) with a conv that copies its input", hint="every pixel becomes 2x2 equal pixels.",
        inputs={"x": x},
    )


@up
def test_the_convolution_has_the_last_word(stage):
    x = rand(2, 3, 4, 5)
    check(
        stage, lambda m: make_up(m, kernel(3, [[0.0] * 3] * 3, bias=2.0), 3)(x),
        torch.full((2, 3, 8, 10), 2.0, dtype=torch.float64),
        "Upsample(3)(x) with a conv whose weight is 0 and whose bias is 2",
        hint="is the convolution applied, and is nothing added to its result?", inputs={"x": x},
    )


@up
def test_the_convolution_comes_after_the_resize(stage):
    x = picture([1, 0, 0])
    wanted = picture([4, 4, 2, 0, 0, 0], [4, 4, 2, 0, 0, 0])
    check(
        stage, lambda m: make_up(m, kernel(1, SUM), 1)(x), wanted,
        "Upsample(1)(x) with x = [[1, 0, 0]] and a conv that sums 3x3 pixels",
        hint="the sum is over the large picture: resize first, then convolve, with one zero around the picture.",
        inputs={"x": x},
    )


@up
@pytest.mark.parametrize("channels", [1, 6])
def test_upsample_values(stage, channels):
    theirs = reference.upsample(channels)
    x = rand(2, channels, 4, 7)
    check(
        stage, lambda m: make_up(m, reference.our_weights(theirs), channels)(x), theirs(x).detach(),
        f"Upsample({channels})(x) with x of shape {tuple(x.shape)}",
        hint="nearest neighbours, then a 3x3 convolution with padding 1.", inputs={"x": x},
    )


@up
def test_upsample_not_contiguous(stage):
    theirs = reference.upsample(6)
    x = rand(2, 7, 4, 6).permute(0, 3, 2, 1)
    check(
        stage, lambda m: make_up(m, reference.our_weights(theirs), 6)(x), theirs(x).detach(),
        "Upsample(6)(x) with x a permuted view", hint="reshape works where view refuses.", inputs={"x": x},
    )


@up
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_upsample_keeps_the_dtype(stage, dtype):
    theirs = reference.upsample(6)
    x = rand(2, 6, 4, 7)
    check(
        stage, lambda m: make_up(m, reference.our_weights(theirs), 6).to(dtype)(x.to(dtype)),
        theirs(x).detach().to(dtype), f"Upsample(6)(x) in {dtype}",
        tolerance=4 * torch.finfo(dtype).eps,  # weights, inputs and the result are rounded
        hint="do you make a tensor of another dtype on the way?",
    )


@up
def test_upsample_gradients(stage):
    theirs = reference.upsample(6)
    x = rand(2, 6, 4, 7)
    check(
        stage, lambda m: results_and_gradients(make_up(m, reference.our_weights(theirs), 6), x),
        results_and_gradients(theirs, x), "Upsample(6)(x) and its gradients",
        hint="detach, .data and no_grad cut the gradient off.",
    )


# --- Downsample ------------------------------------------------------------------------------------------------------


def down_call(channels, asymmetric):
    return f"Downsample({channels}, asymmetric=True)" if asymmetric else f"Downsample({channels})"


def make_down(module, weights, channels, asymmetric):
    layer = module.Downsample(channels, asymmetric=True) if asymmetric else module.Downsample(channels)
    return give_weights(layer, weights, down_call(channels, asymmetric))


@down
@both_paddings
def test_downsample_parameters(stage, asymmetric):
    wanted = {"conv.weight": (6, 6, 3, 3), "conv.bias": (6,)}

    def run(module):
        ours = make_down(module, reference.our_weights(reference.downsample(6, asymmetric)), 6, asymmetric)
        return {name: tuple(parameter.shape) for name, parameter in ours.named_parameters()}

    check(stage, run, wanted, f"the parameters of {down_call(6, asymmetric)}")


@down
def test_symmetric_grid(stage):
    x = rand(2, 3, 4, 6)
    check(
        stage, lambda m: make_down(m, kernel(3, CENTRE), 3, False)(x), x[:, :, ::2, ::2],
        "Downsample(3)(x) with a conv that copies the pixel under its centre",
        hint="asymmetric is False if not given: one zero on every side, so that the first 3x3 window has its centre on "
        "the first pixel; the stride is 2.",
        inputs={"x": x},
    )


@down
def test_symmetric_padding(stage):
    x = torch.ones(1, 1, 4, 6, dtype=torch.float64)
    check(
        stage, lambda m: make_down(m, kernel(1, SUM), 1, False)(x), picture([4, 6, 6], [6, 9, 9]),
        "Downsample(1)(x) with x all ones and a conv that counts the ones in its window",
        hint="one row or column of zeros on each of the four sides.", inputs={"x": x},
    )


@down
def test_asymmetric_grid(stage):
    x = rand(2, 3, 4, 6)
    check(
        stage, lambda m: make_down(m, kernel(3, CORNER), 3, True)(x), x[:, :, ::2, ::2],
        "Downsample(3, asymmetric=True)(x) with a conv that copies the pixel at the top left of its window",
        hint="there is no zero above and to the left: the first 3x3 window begins at the first pixel.", inputs={"x": x},
    )


@down
def test_asymmetric_padding(stage):
    x = torch.ones(1, 1, 4, 6, dtype=torch.float64)
    check(
        stage, lambda m: make_down(m, kernel(1, SUM), 1, True)(x), picture([9, 9, 6], [6, 6, 4]),
        "Downsample(1, asymmetric=True)(x) with x all ones and a conv that counts the ones in its window",
        hint="zeros, not copies of the border: one column at the right, one row at the bottom.", inputs={"x": x},
    )


@down
@both_paddings
@pytest.mark.parametrize("shape", [(2, 6, 4, 10), (3, 6, 8, 2), (2, 6, 2, 2)], ids=str)
def test_downsample_values(stage, shape, asymmetric):
    theirs = reference.downsample(6, asymmetric)
    x = rand(*shape)
    check(
        stage, lambda m: make_down(m, reference.our_weights(theirs), 6, asymmetric)(x), theirs(x).detach(),
        f"{down_call(6, asymmetric)}(x) with x of shape {shape}",
        hint="one 3x3 convolution with stride 2, and nothing after it.", inputs={"x": x},
    )


@down
@both_paddings
def test_downsample_not_contiguous(stage, asymmetric):
    theirs = reference.downsample(6, asymmetric)
    x = rand(2, 8, 4, 6).permute(0, 3, 2, 1)
    check(
        stage, lambda m: make_down(m, reference.our_weights(theirs), 6, asymmetric)(x), theirs(x).detach(),
        f"{down_call(6, asymmetric)}(x) with x a permuted view", hint="reshape works where view refuses.",
        inputs={"x": x},
    )


@down
@both_paddings
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_downsample_keeps_the_dtype(stage, asymmetric, dtype):
    theirs = reference.downsample(6, asymmetric)
    x = rand(2, 6, 4, 8)
    check(
        stage, lambda m: make_down(m, reference.our_weights(theirs), 6, asymmetric).to(dtype)(x.to(dtype)),
        theirs(x).detach().to(dtype), f"{down_call(6, asymmetric)}(x) in {dtype}",
        tolerance=4 * torch.finfo(dtype).eps,  # weights, inputs and the result are rounded
        hint="is what you pad with of the dtype of x?",
    )


@down
@both_paddings
def test_downsample_gradients(stage, asymmetric):
    theirs = reference.downsample(6, asymmetric)
    x = rand(2, 6, 4, 8)
    check(
        stage, lambda m: results_and_gradients(make_down(m, reference.our_weights(theirs), 6, asymmetric), x),
        results_and_gradients(theirs, x), f"{down_call(6, asymmetric)}(x) and its gradients",
        hint="detach, .data and no_grad cut the gradient off.",
    )


@pytest.mark.exercise("4.2", "4.3")
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(0, 2**31))
def test_any_shape(stage, batch, channels, height, width, asymmetric, seed):
    theirs_up, theirs_down = reference.upsample(channels, seed), reference.downsample(channels, asymmetric, seed)
    x = rand(batch, channels, 2 * height, 2 * width, seed=seed)

    def run(module):
        ours_up = make_up(module, reference.our_weights(theirs_up), channels)
        ours_down = make_down(module, reference.our_weights(theirs_down), channels, asymmetric)
        return {"up": ours_up(x), "down": ours_down(x)}

    check(
        stage, run, {"up": theirs_up(x).detach(), "down": theirs_down(x).detach()},
        f"Upsample({channels})(x) and {down_call(channels, asymmetric)}(x) with x of shape {tuple(x.shape)}",
    )
