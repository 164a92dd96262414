"""The modules of diffusers and transformers that each block must equal, and their parameters under our names."""

import re
from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention import GEGLU, BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from course.config import CLIPConfig, UNetConfig, VAEConfig
from support import randomised

Rules = Mapping[str, str]

RESIDUAL = {r"time_emb_proj": "time_proj", r"conv_shortcut": "shortcut"}
ATTENTION = {r"to_out\.0": "to_out"}
PIXEL_ATTENTION = {r"group_norm": "norm", r"to_out\.0": "to_out"}
FEED_FORWARD = {r"net\.0\.": "geglu.", r"net\.2": "out"}
TRANSFORMER_BLOCK = {
    r"attn1\.to_out\.0": "self_attention.to_out",
    r"attn1": "self_attention",
    r"attn2\.to_out\.0": "cross_attention.to_out",
    r"attn2": "cross_attention",
    r"ff\.net\.0\.": "feed_forward.geglu.",
    r"ff\.net\.2": "feed_forward.out",
}
SPATIAL_TRANSFORMER = {r"transformer_blocks\.0\.": "block."} | TRANSFORMER_BLOCK
TIME_EMBEDDING = {r"linear_(\d)": r"linear\1"}
VAE = {
    r"(\w+)\.(?:down|up)_blocks\.(\d+)\.resnets\.(\d+)\.": r"\1.levels.\2.residuals.\3.",
    r"(\w+)\.(?:down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.": r"\1.levels.\2.resize.",
    r"mid_block\.resnets\.0": "middle.residual1",
    r"mid_block\.resnets\.1": "middle.residual2",
    r"mid_block\.attentions\.0\.group_norm": "middle.attention.norm",
    r"mid_block\.attentions\.0\.to_out\.0": "middle.attention.to_out",
    r"mid_block\.attentions\.0": "middle.attention",
    r"conv_norm_out": "norm_out",
    r"conv_shortcut": "shortcut",
}
UNET = {
    r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)\.": r"\1.\2.residuals.\3.",
    r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.": r"\1.\2.transformers.\3.",
    r"(down|up)_blocks\.(\d+)\.(down|up)samplers\.0\.": r"\1.\2.\3sample.",
    r"mid_block\.resnets\.0": "mid.residual1",
    r"mid_block\.resnets\.1": "mid.residual2",
    r"mid_block\.attentions\.0": "mid.transformer",
    r"conv_norm_out": "norm_out",
} | RESIDUAL | SPATIAL_TRANSFORMER | TIME_EMBEDDING
CLIP = {
    r"(text_model\.)?embeddings\.": "",
    r"(text_model\.)?encoder\.layers\.(\d+)\.": r"layers.\2.",
    r"self_attn\.(q|k|v|out)_proj": r"attention.to_\1",
    r"layer_norm(\d)": r"norm\1",
    r"mlp\.": "",
    r"(text_model\.)?final_layer_norm": "final_norm",
}


def our_name(name: str, rules: Rules) -> str:
    for pattern, replacement in rules.items():
        name = re.sub(pattern, replacement, name)
    return name


def our_names(module: nn.Module, rules: Rules) -> dict[str, str]:
    """Their parameter names -> ours."""
    return {name: our_name(name, rules) for name, _ in module.named_parameters()}


def our_weights(module: nn.Module, rules: Rules = {}) -> dict[str, Tensor]:
    """Their parameters under our names."""
    return {our_name(name, rules): parameter.detach().clone() for name, parameter in module.named_parameters()}


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
        in_channels=config.image_channels,
        out_channels=config.image_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels,
        layers_per_block=config.blocks_per_level,
        latent_channels=config.latent_channels,
        norm_num_groups=config.num_groups,
        scaling_factor=config.scaling_factor,
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
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=config.channels,
        layers_per_block=config.blocks_per_level,
        attention_head_dim=config.num_heads,  # diffusers' name for the number of heads in SD 1.x configs
        cross_attention_dim=config.context_channels,
        norm_num_groups=config.num_groups,
    )
    if precise:
        model.time_proj = PreciseTimesteps(config.channels[0])
    return randomised(model, seed)


def clip(config: CLIPConfig, seed=0) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            intermediate_size=config.hidden_width,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            hidden_act="quick_gelu",
            layer_norm_eps=1e-5,
            max_position_embeddings=config.max_length,
            bos_token_id=config.vocab_size - 2,
            eos_token_id=config.vocab_size - 1,
            pad_token_id=config.vocab_size - 1,
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
