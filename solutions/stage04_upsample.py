"""Stage 4: changing the resolution.

The VAE and the U-Net work at several resolutions. On the way down a convolution with stride 2 halves height and
width. On the way up every pixel is first repeated into a square of equal pixels, and then a convolution smooths the
squares. Repeating and then convolving avoids the checkerboard patterns that a transposed convolution can leave.

Source: Odena et al., "Deconvolution and Checkerboard Artifacts", Distill, 2016, doi:10.23915/distill.00003. The
one-sided padding of the VAE comes from the code that it was taken over from (Esser et al., "Taming Transformers", 2021,
arXiv:2012.09841).
"""

from torch import Tensor, nn


def upsample_nearest(x: Tensor, scale: int = 2) -> Tensor:
    """Exercise 4.1: repeat every pixel into a square of scale x scale equal pixels.

        y[..., i, j] = x[..., i // scale, j // scale]

    Args:
        x: (batch, channels, height, width).
        scale: a positive whole number.

    Returns:
        (batch, channels, scale * height, scale * width).
    """
    return x.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)


class Upsample(nn.Module):
    """Exercise 4.2: twice the resolution: nearest neighbours, then a convolution.

    Parameters:
        conv: 3x3 convolution, channels -> channels, padding 1.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, channels, 2 * height, 2 * width)."""
        return self.conv(upsample_nearest(x))


class Downsample(nn.Module):
    """Exercise 4.3: half the resolution, with a convolution of stride 2.

    The U-Net pads one zero on every side. The VAE's encoder (asymmetric=True) pads one zero on the right and one at the
    bottom only: its first window starts at the top left pixel of the picture.

    Parameters:
        conv: 3x3 convolution, channels -> channels, stride 2.

    Args:
        channels: of the input and of the result.
        asymmetric: False: padding 1 on all four sides. True: padding 1 at the right and at the bottom.
    """

    def __init__(self, channels: int, asymmetric: bool = False):
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width), both even -> (batch, channels, height / 2, width / 2)."""
        if self.asymmetric:
            x = nn.functional.pad(x, (0, 1, 0, 1))  # left, right, top, bottom
        return self.conv(x)
