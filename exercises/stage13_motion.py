"""Stage 13, encore: motion, which makes a film of frames that belong together.

A model of pictures knows nothing of time: sixteen pictures for one prompt show sixteen different houses. This stage
keeps its U-Net as it is and puts small networks into it, the motion modules, which are the only part that is trained on
films. A film goes through the U-Net as a batch, one sample per frame, so every layer that is there treats the frames as
separate pictures. Between these layers, a motion module lets each pixel look at the same pixel in all other frames:
self-attention whose tokens are frames. Frames get to know each other there, and nowhere else.

The last layer of a motion module starts at zero. So before its training the module changes nothing, and the U-Net draws
exactly the pictures that it drew without it; training then begins with pictures that are good already.

Attention does not know in which order its tokens come. For pixels that hardly matters; for frames it is the direction
of time. So before each attention, a vector that says which frame it is is added to every token.

Sources: Guo et al., "AnimateDiff: Animate Your Personalized Text-to-Image Diffusion Models without Specific Tuning",
2023, arXiv:2307.04725, section 4.2 (the motion module; its code and weights are at github.com/guoyww/AnimateDiff);
Vaswani et al., 2017, arXiv:1706.03762, section 3.5 (sinusoids for positions).
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .stage01_group_norm import GroupNorm
from .stage02_residual import silu
from .stage03_attention import FeedForward, MultiHeadAttention
from .stage07_unet import UNet, UNetConfig
from .stage09_sampler import Sampling, StableDiffusion, Step, contexts_for, denoise, finish, timesteps_for
from .stage10_key_remapper import rename


@dataclass(frozen=True)
class MotionConfig:
    """Given: the sizes of the motion modules; the defaults are those of AnimateDiff's second version for SD 1.5."""

    num_heads: int = 8
    max_frames: int = 32  # the longest film
    middle: bool = True  # whether there is a module in the middle of the U-Net too


def frame_positions(num_frames: int, channels: int, max_period: float = 10000.0) -> Tensor:
    """Exercise 13.1: a vector for each frame number, of sines and cosines with frequencies from high to low.

    With frame number n = 0 ... num_frames - 1 and i = 0 ... channels / 2 - 1:

        frequency_i = max_period ** (-2 * i / channels)
        positions[n] = [sin(n * frequency_0), cos(n * frequency_0), sin(n * frequency_1), cos(n * frequency_1), ...]

    These are the waves of timestep_embedding (stage 7) in another order: sine and cosine of a frequency are neighbours.

    Args:
        num_frames: how many frames.
        channels: an even number.
        max_period: sets the lowest frequency.

    Returns:
        (num_frames, channels), float64.
    """
    raise NotImplementedError(
        "exercise 13.1: a vector for each frame number, of sines and cosines with frequencies from high to low"
    )


class MotionBlock(nn.Module):
    """Exercise 13.2: two self-attentions over frames, each with the positions added to its input, and a feed-forward.

        x = x + attention1(norm1(x) + positions)
        x = x + attention2(norm2(x) + positions)
        x = x + feed_forward(norm3(x))

    Parameters:
        norm1, norm2, norm3: nn.LayerNorm over channels.
        attention1, attention2: MultiHeadAttention.
        feed_forward: FeedForward.
    """

    def __init__(self, channels: int, num_heads: int):
        raise NotImplementedError(
            "exercise 13.2: two self-attentions over frames, each with the positions added to its input, and a feed-forward"
        )

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: (sequences, frames, channels).

        Returns:
            (sequences, frames, channels).
        """
        raise NotImplementedError(
            "exercise 13.2: two self-attentions over frames, each with the positions added to its input, and a feed-forward"
        )


class MotionModule(nn.Module):
    """Exercise 13.3: each pixel looks at itself in the other frames of its film.

        y = x + proj_out(block(proj_in(norm(x))))          with one sequence of frames per film and pixel inside

    The group norm takes mean and variance over all frames of a film together: a frame that is darker than the others
    has to stay darker.

    Parameters:
        norm: GroupNorm over channels with eps=1e-6.
        proj_in, proj_out: Linear, channels -> channels; proj_out starts as zeros, weight and bias.
        block: MotionBlock.
    """

    def __init__(self, channels: int, num_heads: int, num_groups: int = 32):
        raise NotImplementedError("exercise 13.3: each pixel looks at itself in the other frames of its film")

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """
        Args:
            x: (films * num_frames, channels, height, width), all frames of the first film, then those of the second ...
            num_frames: of each film.

        Returns:
            The same shape.
        """
        raise NotImplementedError("exercise 13.3: each pixel looks at itself in the other frames of its film")


class MotionUNet(nn.Module):
    """Exercise 13.4: the U-Net with a motion module after each residual block and its spatial transformer.

    On the way down and on the way up, a module stands behind every residual block, or behind the spatial transformer
    that follows it; what is kept as a skip is the module's result. With config.middle there is one more, between the
    transformer and the second residual block of the middle.

    Parameters:
        unet: the U-Net of pictures, with its weights.
        down, up: nn.ModuleList with an nn.ModuleList of MotionModule for each level, in the order in which they run.
        mid: MotionModule, or None.
    """

    def __init__(self, unet: UNet, sizes: UNetConfig, config: MotionConfig):
        """Given: the modules, as many as the U-Net has residual blocks.

        Args:
            unet: kept, not copied.
            sizes: those of the U-Net.
            config: those of the modules.
        """
        super().__init__()
        self.unet = unet
        self.max_frames = config.max_frames

        def modules(width: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(MotionModule(width, config.num_heads, sizes.num_groups) for _ in range(count))

        self.down = nn.ModuleList(modules(width, sizes.blocks_per_level) for width in sizes.channels)
        self.mid = modules(sizes.channels[-1], 1)[0] if config.middle else None
        self.up = nn.ModuleList(modules(width, sizes.blocks_per_level + 1) for width in reversed(sizes.channels))

    def forward(self, latents: Tensor, timesteps: Tensor, context: Tensor, num_frames: int) -> Tensor:
        """
        Args:
            latents: (films * num_frames, in_channels, height, width).
            timesteps: (films * num_frames,), whole numbers 0 ... 999.
            context: (films * num_frames, tokens, context_channels).
            num_frames: of each film, at most max_frames.

        Returns:
            (films * num_frames, out_channels, height, width): the predicted noise.

        Raises:
            ValueError: if num_frames is above max_frames; it names both.
        """
        raise NotImplementedError(
            "exercise 13.4: the U-Net with a motion module after each residual block and its spatial transformer"
        )


@torch.no_grad()
def text_to_video(
    model: StableDiffusion,
    prompts: Sequence[str],
    negative_prompts: Sequence[str],
    noise: Tensor,
    sampling: Sampling = Sampling(),
    on_step: Callable[[Step], None] | None = None,
) -> Tensor:
    """Exercise 13.5: from prompts and noise to films.

    As text_to_image (stage 9), with a batch of all frames of all films. Every frame has noise of its own and the
    contexts of its film (torch.repeat_interleave), and the U-Net has to be told how many frames a film has.

    Args:
        model: the pipeline's parts; its unet is a MotionUNet.
        prompts, negative_prompts: one of each per film.
        noise: (films, frames, latent channels, height / 8, width / 8), float32, standard normal.
        sampling: how to draw.
        on_step: called with each Step, whose latents are (films * frames, ...).

    Returns:
        (films, frames, 3, height, width), float32, about [-1, 1].
    """
    raise NotImplementedError("exercise 13.5: from prompts and noise to films")


MOTION_RULES = {
    r"(norm|proj_in|proj_out)\b": r"\1",
    r"transformer_blocks\.0\.norm(\d)": r"block.norm\1",
    r"transformer_blocks\.0\.attn(\d)\.to_out\.0": r"block.attention\1.to_out",
    r"transformer_blocks\.0\.attn(\d)": r"block.attention\1",
    r"transformer_blocks\.0\.ff\.net\.0": r"block.feed_forward.geglu",
    r"transformer_blocks\.0\.ff\.net\.2": r"block.feed_forward.out",
}


def remap_motion(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Exercise 13.6: published motion modules, from their names to ours.

        down_blocks.L.motion_modules.J...               down.L.J...
        mid_block.motion_modules.0...                   mid...
        up_blocks.U.motion_modules.J...                 up.U.J...

    Inside of a module, MOTION_RULES give the names; they start from those of diffusers. AnimateDiff's own files differ
    from these in a few words, which are replaced first:

        module. at the beginning                        (nothing)
        temporal_transformer.                           (nothing)
        attention_blocks.0, attention_blocks.1          attn1, attn2
        norms.0, norms.1, ff_norm                       norm1, norm2, norm3

    Tensors whose name ends in `.pe` are left out: they are tables of frame_positions.

    Args:
        state_dict: all tensors of the file, under either kind of names.

    Returns:
        The same tensors, but for those tables, under the names that MotionUNet has for its modules.

    Raises:
        ValueError: for a name that no rule knows.
    """
    raise NotImplementedError("exercise 13.6: published motion modules, from their names to ours")
