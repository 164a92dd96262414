"""Stage 2: the residual block, of which the VAE and the U-Net are mostly made.

A residual block does not compute its output from scratch: it computes a correction and adds it to its input, y = x +
f(x). The derivative of that sum is 1 + f'(x): the 1 passes the gradient on unchanged, beside what flows through f, so
that it reaches the first layer of a deep stack. Stable Diffusion's block is pre-activated: norm, activation,
convolution, in that order. The direct path from x to y then has no norm and no activation on it, only the addition,
and a 1x1 convolution where the number of channels changes.

In the U-Net the block also has to know how noisy its input is. The timestep arrives as a vector (stage 7), is projected
to one number per channel, and is added at every position between the two convolutions.

Sources: He et al., "Identity Mappings in Deep Residual Networks", 2016, arXiv:1603.05027, figure 4e (pre-activation);
Ho et al., "Denoising Diffusion Probabilistic Models", 2020, arXiv:2006.11239, appendix B (time in every block);
Elfwing et al., 2017, arXiv:1702.03118 (SiLU).
"""

import torch
from torch import Tensor, nn

from .stage01_group_norm import GroupNorm


def silu(x: Tensor) -> Tensor:
    """Exercise 2.1: the SiLU activation, also known as swish.

        silu(x) = x * sigmoid(x)

    Args:
        x: any shape, any floating dtype.

    Returns:
        A new tensor with the shape and dtype of x.
    """
    raise NotImplementedError("exercise 2.1: the SiLU activation, also known as swish")


class ResidualBlock(nn.Module):
    """Exercise 2.2: two convolutions around the time embedding, and a shortcut around them all.

        h = conv1(silu(norm1(x)))
        h = h + time_proj(silu(time_embedding))     one number per sample and channel, the same at every position
        h = conv2(silu(norm2(h)))
        y = shortcut(x) + h

    The second line is left out when there is no time embedding (the VAE has none). The shortcut is x itself where the
    number of channels stays the same, and a 1x1 convolution where it changes.

    Parameters:
        norm1: GroupNorm over in_channels; norm2: GroupNorm over out_channels.
        conv1, conv2: 3x3 convolutions, padding 1; in_channels -> out_channels and out_channels -> out_channels.
        time_proj: Linear, time_channels -> out_channels; only if time_channels is given.
        shortcut: 1x1 convolution; only if in_channels differs from out_channels.

    Args:
        in_channels, out_channels: multiples of num_groups.
        time_channels: width of the time embedding, or None for a block that takes none.
        num_groups, eps: for both norms. The VAE uses eps=1e-6, the U-Net 1e-5.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_channels: int | None = None,
        num_groups: int = 32,
        eps: float = 1e-6,
    ):
        raise NotImplementedError(
            "exercise 2.2: two convolutions around the time embedding, and a shortcut around them all"
        )

    def forward(self, x: Tensor, time_embedding: Tensor | None = None) -> Tensor:
        """
        Args:
            x: (batch, in_channels, height, width).
            time_embedding: (batch, time_channels), or None for a block without time_channels.

        Returns:
            (batch, out_channels, height, width).
        """
        raise NotImplementedError(
            "exercise 2.2: two convolutions around the time embedding, and a shortcut around them all"
        )
