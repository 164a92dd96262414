"""Stage 1: group normalisation.

Deep networks train well when the numbers inside them stay on one scale. A normalisation layer sees to that: it
subtracts the mean of a set of activations and divides by their standard deviation. The kinds of normalisation differ
in the choice of the set. Batch norm takes one channel of all pictures of a batch, so the result for a picture depends
on the other pictures; with the small batches that large models need, mean and deviation are then inaccurate. Layer norm
takes all channels of one picture, instance norm each channel of a picture by itself. Group norm lies between these two:
the channels of one picture are divided into groups of neighbouring channels, and each group is normalised by itself.
One group is layer norm over (C, H, W); as many groups as channels is instance norm. All group norms of Stable Diffusion
have 32 groups.

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

    The variance divides by the number of elements n, not by n - 1. float16 and bfloat16 inputs are normalised in
    float32, and the result is converted back: float16 ends at 65504, so the square of 256 already overflows; bfloat16
    has the range of float32 but only 8 significant bits, too few for the sum of many squares.

    Args:
        x: (batch, channels, ...), any floating dtype; any number of trailing dimensions.
        num_groups: how many groups; must divide the number of channels.
        weight: (channels,), one factor per channel, or None for no factor.
        bias: (channels,), one offset per channel, or None for no offset.
        eps: added to the variance, so that a group of equal numbers is not divided by zero.

    Returns:
        A new tensor with the shape and dtype of x.

    Raises:
        ValueError: if num_groups does not divide the number of channels.
    """
    batch, channels = x.shape[:2]
    if channels % num_groups != 0:
        raise ValueError(f"num_groups={num_groups} does not divide {channels} channels")

    precise = x.to(torch.promote_types(x.dtype, torch.float32))
    groups = precise.reshape(batch, num_groups, -1)  # (B, G, C/G * H * W)
    mean = groups.mean(dim=-1, keepdim=True)
    variance = groups.var(dim=-1, keepdim=True, unbiased=False)
    normalised = ((groups - mean) / torch.sqrt(variance + eps)).reshape(x.shape)

    per_channel = (1, channels) + (1,) * (x.ndim - 2)  # (1, C, 1, 1) for pictures
    if weight is not None:
        normalised = normalised * weight.reshape(per_channel)
    if bias is not None:
        normalised = normalised + bias.reshape(per_channel)
    return normalised.to(x.dtype)


class GroupNorm(nn.Module):
    """Exercise 1.2: group normalisation as a layer, with a learned factor and offset per channel.

    Parameters:
        weight: (num_channels,), starts as ones.
        bias: (num_channels,), starts as zeros.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        super().__init__()
        self.num_groups = num_groups
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
