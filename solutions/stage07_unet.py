"""Stage 7: the U-Net, which predicts the noise in a noisy picture.

Its shape is that of the letter U. On the way down, on the left, the resolution is halved level by level, and the number
of channels usually grows: deep levels can tell what is in the picture, but only roughly where. On the way up, on the
right, the resolution is doubled level by level. To put an edge on the right pixel, the way up needs the finer results
of the way down. So each of them is kept (a skip), and each residual block on the way up gets one of them beside its own
input. The two are concatenated, not added: the block's convolution then has separate weights for the channels of both,
while of a sum it would see only the sum.

The timestep comes in through the residual blocks, and the prompt through the spatial transformers.

Sources: Ronneberger et al., "U-Net", 2015, arXiv:1505.04597, figure 1; Ho et al., 2020, arXiv:2006.11239, appendix B;
Rombach et al., 2022, arXiv:2112.10752, section 3.3; Vaswani et al., 2017, arXiv:1706.03762, section 3.5
(sinusoids).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .stage01_group_norm import GroupNorm
from .stage02_residual import ResidualBlock, silu
from .stage03_attention import SpatialTransformer
from .stage04_upsample import Downsample, Upsample

EPS = 1e-5  # of every group norm in the U-Net but those inside the spatial transformers


@dataclass(frozen=True)
class UNetConfig:
    """Given: the sizes of the U-Net; the defaults are those of Stable Diffusion 1.5."""

    in_channels: int = 4
    out_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)  # one entry per level
    attention: tuple[bool, ...] = (True, True, True, False)  # which levels have a spatial transformer after each block
    blocks_per_level: int = 2  # residual blocks in each level on the way down; a level on the way up has one more
    num_heads: int = 8
    context_channels: int = 768  # width of the text encoder
    num_groups: int = 32

    @property
    def factor(self) -> int:
        """Given: height and width of the latents must be multiples of this: all levels but the last halve them."""
        return 2 ** (len(self.channels) - 1)


def timestep_embedding(timesteps: Tensor, channels: int, max_period: float = 10000.0) -> Tensor:
    """Exercise 7.1: a timestep as a vector: cosines and sines of it, with frequencies from high to low.

    With half = channels / 2 and i = 0 ... half - 1:

        frequency_i = max_period ** (-i / half)
        embedding = [cos(t * frequency_0), cos(t * frequency_1), ..., sin(t * frequency_0), sin(t * frequency_1), ...]

    All cosines come first, then all sines. Everything is computed in float32, in float64 if the timesteps are float64:
    bfloat16 cannot tell 999 from 998, and float16 can, but rounds an angle of that size to a multiple of 0.5.

    Args:
        timesteps: (batch,), whole numbers 0 ... 999, any integer or floating dtype.
        channels: an even number.
        max_period: sets the lowest frequency, which is max_period ** (1 / half - 1); the highest is always 1.

    Returns:
        (batch, channels), float32 (float64 for float64 timesteps).
    """
    dtype = torch.float64 if timesteps.dtype == torch.float64 else torch.float32
    half = channels // 2
    exponents = torch.arange(half, dtype=dtype, device=timesteps.device) / half
    frequencies = max_period ** (-exponents)
    angles = timesteps.to(dtype)[:, None] * frequencies  # (batch, half)
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


class TimeEmbedding(nn.Module):
    """Given: two learned layers on top of the cosines and sines: linear2(silu(linear1(timestep_embedding(t)))).

    Parameters:
        linear1: Linear, channels -> 4 * channels; linear2: Linear, 4 * channels -> 4 * channels.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.linear1 = nn.Linear(channels, 4 * channels)
        self.linear2 = nn.Linear(4 * channels, 4 * channels)

    def forward(self, timesteps: Tensor) -> Tensor:
        """
        Args:
            timesteps: (batch,).

        Returns:
            (batch, 4 * channels), in the dtype of the parameters.
        """
        embedding = timestep_embedding(timesteps, self.channels).to(self.linear1.weight.dtype)
        return self.linear2(silu(self.linear1(embedding)))


class DownBlock(nn.Module):
    """Exercise 7.2: one level on the way down.

    config.blocks_per_level times: a residual block, and after it a spatial transformer if config.attention[level] says
    so. At the end a Downsample, but not on the last level. Every result is kept as a skip: one after each
    (residual block, transformer) pair and one after the Downsample.

    Parameters:
        residuals: nn.ModuleList of ResidualBlock with eps=EPS; the first takes the previous level's channels
            (level 0: channels[0]), all return channels[level].
        transformers: nn.ModuleList of SpatialTransformer, as many as residuals, or empty.
        downsample: Downsample, or None on the last level.
    """

    def __init__(self, config: UNetConfig, level: int):
        super().__init__()
        width = config.channels[level]
        previous = config.channels[max(level - 1, 0)]
        time_channels = 4 * config.channels[0]
        self.residuals = nn.ModuleList()
        self.transformers = nn.ModuleList()
        for i in range(config.blocks_per_level):
            in_channels = previous if i == 0 else width
            self.residuals.append(ResidualBlock(in_channels, width, time_channels, config.num_groups, EPS))
            if config.attention[level]:
                self.transformers.append(
                    SpatialTransformer(width, config.num_heads, config.context_channels, config.num_groups)
                )
        is_last = level == len(config.channels) - 1
        self.downsample = None if is_last else Downsample(width)

    def forward(self, x: Tensor, time_embedding: Tensor, context: Tensor) -> tuple[Tensor, list[Tensor]]:
        """
        Args:
            x: (batch, channels of the previous level, height, width).
            time_embedding: (batch, 4 * channels[0]).
            context: (batch, tokens, context_channels).

        Returns:
            The block's output and its skips, in the order in which they were made.
        """
        skips = []
        for i, residual in enumerate(self.residuals):
            x = residual(x, time_embedding)
            if self.transformers:
                x = self.transformers[i](x, context)
            skips.append(x)
        if self.downsample is not None:
            x = self.downsample(x)
            skips.append(x)
        return x, skips


class MidBlock(nn.Module):
    """Given: the turning point: residual block, spatial transformer, residual block.

    Parameters:
        residual1, residual2: ResidualBlock with channels[-1]; transformer: SpatialTransformer.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        width = config.channels[-1]
        time_channels = 4 * config.channels[0]
        self.residual1 = ResidualBlock(width, width, time_channels, config.num_groups, EPS)
        self.transformer = SpatialTransformer(width, config.num_heads, config.context_channels, config.num_groups)
        self.residual2 = ResidualBlock(width, width, time_channels, config.num_groups, EPS)

    def forward(self, x: Tensor, time_embedding: Tensor, context: Tensor) -> Tensor:
        x = self.residual1(x, time_embedding)
        x = self.transformer(x, context)
        return self.residual2(x, time_embedding)


class UpBlock(nn.Module):
    """Exercise 7.3: one level on the way up, with the skips of the way down.

    config.blocks_per_level + 1 times: take the newest skip off the end of the list, concatenate it behind x along the
    channels (x first), then a residual block, then a spatial transformer if config.attention[level] says so. At the end
    an Upsample, but not on level 0.

    The channels of the skips, in the order in which they are used: channels[level] for all but the last; the last one
    was made one level above, by its Downsample (or by conv_in): channels[level - 1], or channels[0] on level 0.

    Parameters:
        residuals: nn.ModuleList of ResidualBlock with eps=EPS; the first gets channels[level + 1] (on the deepest
            level: channels[-1]) plus its skip, the others channels[level] plus their skip; all return channels[level].
        transformers: nn.ModuleList of SpatialTransformer, as many as residuals, or empty.
        upsample: Upsample, or None on level 0.
    """

    def __init__(self, config: UNetConfig, level: int):
        super().__init__()
        width = config.channels[level]
        below = config.channels[min(level + 1, len(config.channels) - 1)]
        above = config.channels[max(level - 1, 0)]
        time_channels = 4 * config.channels[0]
        self.residuals = nn.ModuleList()
        self.transformers = nn.ModuleList()
        for i in range(config.blocks_per_level + 1):
            in_channels = below if i == 0 else width
            skip_channels = above if i == config.blocks_per_level else width
            self.residuals.append(
                ResidualBlock(in_channels + skip_channels, width, time_channels, config.num_groups, EPS)
            )
            if config.attention[level]:
                self.transformers.append(
                    SpatialTransformer(width, config.num_heads, config.context_channels, config.num_groups)
                )
        self.upsample = None if level == 0 else Upsample(width)

    def forward(self, x: Tensor, skips: list[Tensor], time_embedding: Tensor, context: Tensor) -> Tensor:
        """
        Args:
            x: (batch, channels of the level below, height, width).
            skips: all that are left, in the order in which they were made. The block takes as many off the end of the
                list as it has residual blocks, and leaves the others on it.
            time_embedding: (batch, 4 * channels[0]).
            context: (batch, tokens, context_channels).

        Returns:
            (batch, channels[level], 2 * height, 2 * width), on level 0 (batch, channels[0], height, width).
        """
        for i, residual in enumerate(self.residuals):
            x = torch.cat([x, skips.pop()], dim=1)
            x = residual(x, time_embedding)
            if self.transformers:
                x = self.transformers[i](x, context)
        if self.upsample is not None:
            x = self.upsample(x)
        return x


class UNet(nn.Module):
    """Exercise 7.4: the whole network: from noisy latents, timesteps and contexts to the predicted noise.

        conv_in -> down levels -> mid -> up levels -> conv_out(silu(norm_out(x)))

    conv_in's result is the first skip. Each up level takes the newest skips off the list, until none is left.

    Parameters:
        time_embedding: TimeEmbedding with channels[0].
        conv_in: 3x3 convolution, padding 1, in_channels -> channels[0].
        down: nn.ModuleList of DownBlock, level 0 first; mid: MidBlock; up: nn.ModuleList of UpBlock, deepest
            level first.
        norm_out: GroupNorm over channels[0] with eps=EPS.
        conv_out: 3x3 convolution, padding 1, channels[0] -> out_channels.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        channels = config.channels
        levels = range(len(channels))
        self.time_embedding = TimeEmbedding(channels[0])
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], kernel_size=3, padding=1)
        self.down = nn.ModuleList(DownBlock(config, level) for level in levels)
        self.mid = MidBlock(config)
        self.up = nn.ModuleList(UpBlock(config, level) for level in reversed(levels))
        self.norm_out = GroupNorm(config.num_groups, channels[0], EPS)
        self.conv_out = nn.Conv2d(channels[0], config.out_channels, kernel_size=3, padding=1)

    def forward(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """
        Args:
            latents: (batch, in_channels, height, width); height and width are multiples of 2 ** (number of levels - 1).
            timesteps: (batch,), whole numbers 0 ... 999.
            context: (batch, tokens, context_channels).

        Returns:
            (batch, out_channels, height, width): the predicted noise.
        """
        time_embedding = self.time_embedding(timesteps)
        x = self.conv_in(latents)
        skips = [x]
        for block in self.down:
            x, new_skips = block(x, time_embedding, context)
            skips.extend(new_skips)
        x = self.mid(x, time_embedding, context)
        for block in self.up:
            x = block(x, skips, time_embedding, context)
        return self.conv_out(silu(self.norm_out(x)))
