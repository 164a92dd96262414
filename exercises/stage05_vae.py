"""Stage 5: the variational autoencoder, from pictures to latents and back.

A 512x512 picture is 786,432 numbers, most of which describe fine texture. The encoder turns a picture into latents:
four channels at an eighth of its height and width, 48 times fewer numbers. The decoder turns latents back into a
picture. Diffusion then takes place on the latents, where a step costs a fraction of what it would cost on pixels.

The encoder does not return the latents themselves, but a normal distribution for each of them: its mean and the
logarithm of its variance. The decoder is trained on samples from these distributions, so it learns to decode latents
that lie close together to similar pictures, and small errors of the U-Net stay small in the picture.

Both halves are stacks of residual blocks at several resolutions (four in Stable Diffusion), with one attention block in
the middle, at the lowest resolution, where there are few enough pixels for each to look at every other. The shapes
below are those of four levels; with another number, config.factor takes the place of 8.

Sources: Kingma and Welling, "Auto-Encoding Variational Bayes", 2013, arXiv:1312.6114, section 2.4 (the
reparametrisation trick); Rombach et al., 2022, arXiv:2112.10752, sections 3.1 and 4.1, appendix G (the scaling of the
latents).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .stage01_group_norm import GroupNorm
from .stage02_residual import ResidualBlock, silu
from .stage03_attention import PixelAttention
from .stage04_upsample import Downsample, Upsample


@dataclass(frozen=True)
class VAEConfig:
    """Given: the sizes of the VAE; the defaults are those of Stable Diffusion 1.5."""

    image_channels: int = 3
    latent_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)  # one entry per level, from the picture down to the latents
    blocks_per_level: int = 2  # residual blocks in each encoder level; a decoder level has one more
    num_groups: int = 32
    scaling_factor: float = 0.18215  # latents are multiplied by it, so that their variance is about one

    @property
    def factor(self) -> int:
        """Given: how many pixels (in each direction) one latent stands for: 8 with four levels."""
        return 2 ** (len(self.channels) - 1)


class Middle(nn.Module):
    """Given: residual block, attention, residual block, all at the lowest resolution."""

    def __init__(self, channels: int, num_groups: int):
        super().__init__()
        self.residual1 = ResidualBlock(channels, channels, num_groups=num_groups)
        self.attention = PixelAttention(channels, num_groups)
        self.residual2 = ResidualBlock(channels, channels, num_groups=num_groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.residual2(self.attention(self.residual1(x)))


class Level(nn.Module):
    """Given: the blocks of one resolution and, if there is a next one, the way there (`resize`: Down- or Upsample)."""

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, num_groups: int, resize: nn.Module | None):
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        self.residuals = nn.ModuleList(
            ResidualBlock(before, after, num_groups=num_groups) for before, after in zip(widths, widths[1:])
        )
        self.resize = resize if resize is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for residual in self.residuals:
            x = residual(x)
        return self.resize(x)


class Encoder(nn.Module):
    """Exercise 5.1: from a picture to the moments of its latents, their means and log variances.

        conv_in -> levels, highest resolution first -> middle -> silu(norm_out) -> conv_out

    Level i has config.blocks_per_level residual blocks that end with config.channels[i] channels (the first block takes
    the previous level's channels; level 0 takes channels[0]), and every level but the last ends with an asymmetric
    Downsample. Group norms use config.num_groups and eps 1e-6.

    Parameters:
        conv_in: 3x3 convolution, padding 1, config.image_channels -> channels[0].
        levels: nn.ModuleList of Level.
        middle: Middle with channels[-1].
        norm_out: GroupNorm over channels[-1].
        conv_out: 3x3 convolution, padding 1, channels[-1] -> 2 * config.latent_channels.
    """

    def __init__(self, config: VAEConfig):
        raise NotImplementedError(
            "exercise 5.1: from a picture to the moments of its latents, their means and log variances"
        )

    def forward(self, images: Tensor) -> Tensor:
        """
        Args:
            images: (batch, image_channels, height, width) in [-1, 1].

        Returns:
            (batch, 2 * latent_channels, height / 8, width / 8): the moments before quant_conv.
        """
        raise NotImplementedError(
            "exercise 5.1: from a picture to the moments of its latents, their means and log variances"
        )


class Decoder(nn.Module):
    """Exercise 5.2: from latents to a picture: the encoder's mirror image.

        conv_in -> middle -> levels, lowest resolution first -> silu(norm_out) -> conv_out

    Levels go through config.channels from the last to the first. Each has config.blocks_per_level + 1 residual blocks
    (one more than in the encoder), and every level but the last one run ends with an Upsample.

    Parameters:
        conv_in: 3x3 convolution, padding 1, config.latent_channels -> channels[-1].
        middle: Middle with channels[-1].
        levels: nn.ModuleList of Level, in the order in which they run.
        norm_out: GroupNorm over channels[0], eps 1e-6.
        conv_out: 3x3 convolution, padding 1, channels[0] -> config.image_channels.
    """

    def __init__(self, config: VAEConfig):
        raise NotImplementedError("exercise 5.2: from latents to a picture")

    def forward(self, latents: Tensor) -> Tensor:
        """
        Args:
            latents: (batch, latent_channels, height, width), after post_quant_conv.

        Returns:
            (batch, image_channels, 8 * height, 8 * width), about [-1, 1].
        """
        raise NotImplementedError("exercise 5.2: from latents to a picture")


def sample_latents(moments: Tensor, noise: Tensor) -> Tensor:
    """Exercise 5.3: draw latents from the normal distribution that the moments describe (reparametrisation trick).

        mean, logvar = the first and the second half of the channels of moments
        latents = mean + exp(logvar / 2) * noise

    logvar is the logarithm of the variance. Clamp it to [-30, 20] first, so that the exponential is at most exp(10) =
    22026: even float16, which ends at 65504, can hold that.

    Args:
        moments: (batch, 2 * latent_channels, height, width).
        noise: (batch, latent_channels, height, width), drawn from a standard normal distribution.

    Returns:
        (batch, latent_channels, height, width).
    """
    raise NotImplementedError("exercise 5.3: draw latents from the normal distribution that the moments describe")


class VAE(nn.Module):
    """Exercise 5.4: encoder and decoder together, each with a 1x1 convolution on the side of the latents.

    Parameters:
        encoder, decoder: Encoder and Decoder.
        quant_conv: 1x1 convolution, 2 * latent_channels -> 2 * latent_channels, after the encoder.
        post_quant_conv: 1x1 convolution, latent_channels -> latent_channels, before the decoder.
    """

    def __init__(self, config: VAEConfig):
        """Given: the layers."""
        super().__init__()
        self.scaling_factor = config.scaling_factor
        self.factor = config.factor
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, kernel_size=1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, kernel_size=1)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """From pictures to scaled latents: encoder, quant_conv, a sample (the mean if noise is None), the scaling.

        Scaling here means to multiply by self.scaling_factor.

        Args:
            images: (batch, image_channels, height, width) in [-1, 1].
            noise: (batch, latent_channels, height / 8, width / 8), standard normal, or None for the mean.

        Returns:
            (batch, latent_channels, height / 8, width / 8), with a variance of about one.
        """
        raise NotImplementedError(
            "exercise 5.4: encoder and decoder together, each with a 1x1 convolution on the side of the latents"
        )

    def decode(self, latents: Tensor) -> Tensor:
        """From scaled latents to pictures: undo the scaling, then post_quant_conv, then the decoder.

        Args:
            latents: (batch, latent_channels, height, width), scaled as `encode` returns them.

        Returns:
            (batch, image_channels, 8 * height, 8 * width), about [-1, 1], not clamped.
        """
        raise NotImplementedError(
            "exercise 5.4: encoder and decoder together, each with a 1x1 convolution on the side of the latents"
        )


def images_to_tensor(images: Tensor) -> Tensor:
    """Given: pictures as files hold them to pictures as networks want them.

    Args:
        images: (batch, height, width, 3), uint8, red first.

    Returns:
        (batch, 3, height, width), float32: 0 becomes -1 and 255 becomes 1.
    """
    return images.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0


def tensor_to_images(tensor: Tensor) -> Tensor:
    """Exercise 5.5: the way back, from [-1, 1] to the nearest of the whole numbers 0 ... 255.

    Values outside of [-1, 1] become 0 or 255. float16 and bfloat16 are converted to float32 first.

    Args:
        tensor: (batch, 3, height, width), any floating dtype.

    Returns:
        (batch, height, width, 3), uint8, contiguous.
    """
    raise NotImplementedError("exercise 5.5: the way back, from [-1, 1] to the nearest of the whole numbers 0 ... 255")
