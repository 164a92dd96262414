"""Stage 1: group normalisation.

Deep networks train well when the numbers inside them keep to one scale. A normalisation layer sees to that: it
subtracts the mean of a set of activations and divides by their standard deviation. What differs between the kinds is
the set. Batch norm takes one channel across all pictures of a batch, so a picture's result depends on its neighbours,
which hurts with the small batches that large models need. Layer norm takes all channels of one picture, instance norm
each channel alone. Group norm is the compromise: the channels of one picture are cut into groups of neighbours,
and each group is normalised on its own. One group is layer norm over (C, H, W); as many groups as channels is instance
norm. Stable Diffusion uses 32 groups everywhere.

Source: Wu and He, "Group Normalization", 2018, arXiv:1803.08494, equations 1, 2 and 7.
"""

import torch
from torch import Tensor, nn


def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Exercise 1.1: normalise each group of channels of each picture.

    With mean and variance taken over one group (C / num_groups neighbouring channels, all positions) of one sample:

        y = (x - mean) / sqrt(variance + eps) * weight + bias

    The variance divides by the number of elements n, not by n - 1. Half precision cannot hold the sum of many squares,
    so float16 and bfloat16 inputs are normalised in float32 and the result is converted back.

    Args:
        x: (batch, channels, ...), any floating dtype; any number of trailing dimensions.
        num_groups: how many groups; must divide the number of channels.
        weight: (channels,), one factor per channel, or None for no factor.
        bias: (channels,), one summand per channel, or None for no summand.
        eps: added to the variance, so that a flat picture does not divide by zero.

    Returns:
        A new tensor with the shape and dtype of x.

    Raises:
        ValueError: if num_groups does not divide the number of channels.
    """
    raise NotImplementedError("exercise 1.1: normalise each group of channels of each picture")


class GroupNorm(nn.Module):
    """Exercise 1.2: group normalisation as a layer with a learned scale and shift per channel.

    Parameters:
        weight: (num_channels,), starts as ones.
        bias: (num_channels,), starts as zeros.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        raise NotImplementedError(
            "exercise 1.2: group normalisation as a layer with a learned scale and shift per channel"
        )

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError(
            "exercise 1.2: group normalisation as a layer with a learned scale and shift per channel"
        )
