"""The modules of diffusers and transformers that each block must equal, and their parameters under our names."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from course.core.config import CLIPConfig, UNetConfig, VAEConfig
from course.feedback.compare import randomised
from tests.stages.light import without_compiler

with without_compiler():
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.models.attention import GEGLU, BasicTransformerBlock, FeedForward
    from diffusers.models.attention_processor import Attention
    from diffusers.models.downsampling import Downsample2D
    from diffusers.models.embeddings import SinusoidalPositionalEmbedding, TimestepEmbedding
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers.transformer_2d import Transformer2DModel
    from diffusers.models.upsampling import Upsample2D
    from transformers import CLIPTextConfig, CLIPTextModel

UNet2DConditionModel.forward = without_compiler()(UNet2DConditionModel.forward)  # it asks peft at every call


def called(module: nn.Module, forward: Callable[..., Any]) -> nn.Module:
    """The same module, with the same parameters, but called in another way."""
    module = copy.copy(module)
    module.forward = forward
    return module


def faint(module: nn.Module, factor: float) -> nn.Module:
    """A copy whose convolutions and time embedding shrink everything, so that eps is not small beside the variance."""
    module = copy.deepcopy(module)
    with torch.no_grad():
        for name, part in module.named_modules():
            if isinstance(part, nn.Conv2d) or name.endswith("time_emb_proj"):
                part.weight *= factor
                part.bias *= factor
    return module


def residual_block(
    in_channels: int, out_channels: int, time_channels: int | None = None, groups: int = 4, eps: float = 1e-6, seed=0
) -> nn.Module:
    block = ResnetBlock2D(
        in_channels=in_channels, out_channels=out_channels, temb_channels=time_channels, groups=groups, eps=eps
    )
    return randomised(block, seed)


def multi_head_attention(channels: int, heads: int, context_channels: int | None = None, bias=False, seed=0):
    attention = Attention(
        query_dim=channels, cross_attention_dim=context_channels, heads=heads, dim_head=channels // heads, bias=bias
    )
    return randomised(attention, seed)


def pixel_attention(channels: int, groups: int = 4, eps: float = 1e-6, seed=0) -> nn.Module:
    attention = Attention(
        channels, heads=1, dim_head=channels, norm_num_groups=groups, eps=eps, residual_connection=True, bias=True,
        upcast_softmax=True,
    )
    return randomised(attention, seed)


def geglu(channels: int, hidden_channels: int, seed=0) -> nn.Module:
    return randomised(GEGLU(channels, hidden_channels), seed)


def feed_forward(channels: int, multiplier: int = 4, seed=0) -> nn.Module:
    return randomised(FeedForward(channels, mult=multiplier, activation_fn="geglu"), seed)


def transformer_block(channels: int, heads: int, context_channels: int, seed=0) -> nn.Module:
    block = BasicTransformerBlock(channels, heads, channels // heads, cross_attention_dim=context_channels)
    return randomised(block, seed)


def spatial_transformer(channels: int, heads: int, context_channels: int, groups: int = 4, seed=0) -> nn.Module:
    transformer = Transformer2DModel(
        num_attention_heads=heads, attention_head_dim=channels // heads, in_channels=channels, num_layers=1,
        cross_attention_dim=context_channels, norm_num_groups=groups,
    )
    return randomised(transformer, seed)


def upsample(channels: int, seed=0) -> nn.Module:
    return randomised(Upsample2D(channels, use_conv=True), seed)


def downsample(channels: int, asymmetric: bool = False, seed=0) -> nn.Module:
    return randomised(Downsample2D(channels, use_conv=True, padding=0 if asymmetric else 1, name="op"), seed)


def time_embedding(channels: int, seed=0) -> nn.Module:
    """Only the two linear layers: from waves to embedding."""
    return randomised(TimestepEmbedding(channels, 4 * channels), seed)


def vae(config: VAEConfig, seed=0) -> AutoencoderKL:
    levels = len(config.channels)
    model = AutoencoderKL(
        in_channels=config.image_channels, out_channels=config.image_channels, latent_channels=config.latent_channels,
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels, layers_per_block=config.blocks_per_level,
        norm_num_groups=config.num_groups, scaling_factor=config.scaling_factor,
    )
    return randomised(model, seed)


class PreciseTimesteps(nn.Module):
    """Sinusoids in float64; diffusers' own are float32, too coarse to compare with at 1e-9."""

    def __init__(self, channels: int):
        super().__init__()
        self.half = channels // 2

    def forward(self, timesteps: Tensor) -> Tensor:
        frequencies = torch.tensor([10000.0 ** (-i / self.half) for i in range(self.half)], dtype=torch.float64)
        angles = torch.outer(timesteps.double(), frequencies)
        return torch.cat([angles.cos(), angles.sin()], dim=1)


def unet(config: UNetConfig, seed=0, precise: bool = True) -> UNet2DConditionModel:
    down = tuple("CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in config.attention)
    up = tuple("CrossAttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(config.attention))
    model = UNet2DConditionModel(
        in_channels=config.in_channels, out_channels=config.out_channels,
        down_block_types=down, up_block_types=up,
        block_out_channels=config.channels, layers_per_block=config.blocks_per_level,
        attention_head_dim=config.num_heads,  # diffusers' name for the number of heads in SD 1.x configs
        cross_attention_dim=config.context_channels, norm_num_groups=config.num_groups,
    )
    if precise:
        model.time_proj = PreciseTimesteps(config.channels[0])
    return randomised(model, seed)


def precise_positions(module: nn.Module) -> nn.Module:
    """The module with its tables of positions in float64, number by number; diffusers computes them in float32."""
    for part in module.modules():
        if isinstance(part, SinusoidalPositionalEmbedding):
            _, frames, channels = part.pe.shape
            part.pe = torch.tensor([[
                [(math.sin, math.cos)[c % 2](n / 10000.0 ** ((c - c % 2) / channels)) for c in range(channels)]
                for n in range(frames)
            ]], dtype=torch.float64)
    return module


def motion_block(channels: int, heads: int, seed=0) -> nn.Module:
    block = BasicTransformerBlock(
        channels, heads, channels // heads, double_self_attention=True, positional_embeddings="sinusoidal",
        num_positional_embeddings=32,
    )
    return precise_positions(randomised(block, seed))


def motion_module(channels: int, heads: int, groups: int = 4, seed=0) -> nn.Module:
    from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

    module = AnimateDiffTransformer3D(
        heads, channels // heads, channels, norm_num_groups=groups, positional_embeddings="sinusoidal",
        num_positional_embeddings=32,
    )
    return precise_positions(randomised(module, seed))


def motion_unet(config: UNetConfig, heads: int, max_frames: int, middle: bool, seed=0) -> nn.Module:
    """A UNetMotionModel, and the MotionAdapter that its modules come from (as its attribute `adapter`)."""
    from diffusers import MotionAdapter, UNetMotionModel

    adapter = MotionAdapter(
        config.channels, config.blocks_per_level, motion_num_attention_heads=heads,
        motion_norm_num_groups=config.num_groups, motion_max_seq_length=max_frames, use_motion_mid_block=middle,
    )
    pictures = unet(config, seed, precise=False).float()
    model = UNetMotionModel.from_unet2d(pictures, randomised(adapter, seed + 1).float())
    model.time_proj = PreciseTimesteps(config.channels[0])
    return precise_positions(randomised(model, seed))


def clip(config: CLIPConfig, seed=0) -> nn.Module:
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=config.vocab_size, hidden_size=config.width, intermediate_size=config.hidden_width,
            num_hidden_layers=config.num_layers, num_attention_heads=config.num_heads,
            hidden_act="quick_gelu", layer_norm_eps=1e-5, max_position_embeddings=config.max_length,
            bos_token_id=config.vocab_size - 2, eos_token_id=config.vocab_size - 1, pad_token_id=config.vocab_size - 1,
        )
    )
    return randomised(model, seed)


# SD v1's shape, as small as it gets: widths that differ from each other, several groups and heads.
SMALL_VAE = VAEConfig(channels=(8, 12, 16), blocks_per_level=2, num_groups=4, latent_channels=4)
SMALL_UNET = UNetConfig(
    channels=(8, 16, 24, 24), attention=(True, True, True, False), blocks_per_level=2, num_heads=4,
    context_channels=20, num_groups=4,
)
SMALL_CLIP = CLIPConfig(vocab_size=60, width=24, hidden_width=40, num_layers=3, num_heads=4, max_length=77)
