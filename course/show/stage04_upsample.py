"""Ways to make a picture larger: repeated pixels, smoothed ones, and a transposed convolution's checkerboard."""

import numpy
import torch
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from course.studio.page import Page, enlarge, grid_figure, new_figure
from course.studio.studio import Studio

CROP = 10  # pixels
CELL = 480  # pixels of each enlarged picture


@torch.no_grad()
def upsampling(studio: Studio) -> Page:
    """A crop of a picture and a flat grey one, each enlarged in four ways."""
    scene = studio.scenes(1, size=96)
    row, column = int(0.27 * scene.shape[-2]), int(0.37 * scene.shape[-1])
    crop = scene[..., row : row + CROP, column : column + CROP]
    flat = torch.zeros_like(crop)
    ways = {
        f"before\n{CROP} x {CROP} pixels": lambda x: x,
        f"nearest (4.1)\n{2 * CROP} x {2 * CROP} pixels": studio.blocks[4].upsample_nearest,
        "nearest, then a\nsmoothing conv (4.2)": smoothed(studio),
        "bilinear": lambda x: nn.functional.interpolate(x, scale_factor=2, mode="bilinear"),
        "transposed conv,\nkernel 3, stride 2": transposed,
    }
    rows = [[with_pixels(studio.arrays(way(picture))[0]) for way in ways.values()] for picture in (crop, flat)]
    return Page(
        "Why repeat pixels and then convolve, and not one transposed convolution?",
        "Nearest makes four equal pixels of each (lines: their borders). A transposed convolution with kernel 3 and "
        "stride 2 reaches some pixels once, some twice, some four times: flat grey becomes a checkerboard. Repeating "
        "pixels treats all places alike, and the convolution behind it can learn any smoothing: with a blurring kernel "
        "it comes close to bilinear.",
        grid_figure(rows, ["a crop", "flat grey"], list(ways), cell=CELL),
    )


def with_pixels(picture: numpy.ndarray) -> numpy.ndarray:
    """The picture enlarged, with lines between its pixels."""
    size = len(picture)
    large = enlarge(picture, CELL).copy()
    lines = [i * CELL // size for i in range(1, size)]
    for side in (large, large.swapaxes(0, 1)):
        side[lines] = (0.75 * side[lines]).astype(numpy.uint8)
    return large


def smoothed(studio: Studio) -> nn.Module:
    """The Upsample of stage 4, with a kernel that blurs each channel. Its zero padding darkens nothing but the rim."""
    upsample = studio.blocks[4].Upsample(3)
    blur = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = blur[:, None] * blur
    upsample.conv.weight.copy_(torch.eye(3)[:, :, None, None] * kernel)
    upsample.conv.bias.zero_()
    return upsample.to(studio.torch_device)


def transposed(x: Tensor) -> Tensor:
    """A transposed convolution that shares each pixel out evenly over a square of 3 x 3."""
    kernel = torch.eye(3, device=x.device)[:, :, None, None] * torch.full((3, 3), 4 / 9, device=x.device)
    return nn.functional.conv_transpose2d(x + 1, kernel, stride=2, padding=1, output_padding=1) - 1


@torch.no_grad()
def padding(studio: Studio) -> Page:
    """Where the nine weights of a strided convolution stand, with padding on all sides and on one side."""
    stage, size = studio.blocks[4], 8
    figure = new_figure(height=3.4)
    axes = figure.subplots(1, 2)
    for place, asymmetric in zip(axes, (False, True)):
        down = stage.Downsample(1, asymmetric)
        down.conv.weight.zero_()
        down.conv.weight[0, 0, 1, 1] = 1.0  # the middle of the kernel
        down.conv.bias.zero_()
        numbers = torch.arange(1.0, size * size + 1).reshape(1, 1, size, size)
        seen = torch.isin(numbers[0, 0], down(numbers))
        place.imshow(seen.numpy(), cmap="Blues", vmin=-0.5, vmax=2, extent=(0, size, size, 0))
        before, after = (0, 1) if asymmetric else (1, 1)
        padded = size + before + after
        place.add_patch(Rectangle((-before, -before), padded, padded, fill=False, linestyle="--", color="0.3"))
        place.set_xlim(-1.1, size + 1.1)
        place.set_ylim(size + 1.1, -1.1)
        title = "the VAE's: zeros right and below" if asymmetric else "the U-Net's: zeros on all sides"
        place.set_title(title, fontsize=9)
        place.set_xticks(range(-1, size + 2), [])
        place.set_yticks(range(-1, size + 2), [])
        place.tick_params(length=0)
        place.spines[:].set_visible(False)
        place.grid(color="0.8", linewidth=0.5)
    return Page(
        "What does it matter on which side zeros are padded?",
        "Dark: the pixels on which the kernel is centred; white: the padded zeros. With zeros on all sides these are "
        "the pixels in rows and columns 1, 3, 5, 7, with zeros right and below those in 2, 4, 6, 8: the whole grid "
        "moves by one pixel.",
        figure,
    )


PICTURES = (upsampling,)
MORE = (padding,)
