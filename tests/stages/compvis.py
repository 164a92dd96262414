"""Checkpoints as CompVis published them: the names and shapes of Stable Diffusion 1.x, for any config.

The names follow the layout of their code: lists of blocks that are counted through. diffusers' conversion reads what is
made here (see test_stage10_key_remapper.py), which proves the names.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from torch import Tensor

from course.core.config import CLIPConfig, ModelConfig, UNetConfig, VAEConfig
from course.feedback import renaming

UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
Shape = tuple[int, ...]
Entries = Iterator[tuple[str, Shape]]


def affine(name: str, channels: int) -> Entries:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def conv(name: str, in_channels: int, out_channels: int, size: int) -> Entries:
    yield f"{name}.weight", (out_channels, in_channels, size, size)
    yield f"{name}.bias", (out_channels,)


def linear(name: str, in_channels: int, out_channels: int, bias: bool = True) -> Entries:
    yield f"{name}.weight", (out_channels, in_channels)
    if bias:
        yield f"{name}.bias", (out_channels,)


# --- the U-Net -------------------------------------------------------------------------------------------------------


def unet_residual(name: str, in_channels: int, out_channels: int, time_channels: int) -> Entries:
    yield from affine(f"{name}.in_layers.0", in_channels)
    yield from conv(f"{name}.in_layers.2", in_channels, out_channels, 3)
    yield from linear(f"{name}.emb_layers.1", time_channels, out_channels)
    yield from affine(f"{name}.out_layers.0", out_channels)
    yield from conv(f"{name}.out_layers.3", out_channels, out_channels, 3)
    if in_channels != out_channels:
        yield from conv(f"{name}.skip_connection", in_channels, out_channels, 1)


def unet_transformer(name: str, channels: int, context_channels: int) -> Entries:
    yield from affine(f"{name}.norm", channels)
    yield from conv(f"{name}.proj_in", channels, channels, 1)
    block = f"{name}.transformer_blocks.0"
    for attention, keys in (("attn1", channels), ("attn2", context_channels)):
        yield from linear(f"{block}.{attention}.to_q", channels, channels, bias=False)
        yield from linear(f"{block}.{attention}.to_k", keys, channels, bias=False)
        yield from linear(f"{block}.{attention}.to_v", keys, channels, bias=False)
        yield from linear(f"{block}.{attention}.to_out.0", channels, channels)
    yield from linear(f"{block}.ff.net.0.proj", channels, 8 * channels)
    yield from linear(f"{block}.ff.net.2", 4 * channels, channels)
    for i in (1, 2, 3):
        yield from affine(f"{block}.norm{i}", channels)
    yield from conv(f"{name}.proj_out", channels, channels, 1)


def unet_entries(config: UNetConfig) -> Entries:
    widths, context = config.channels, config.context_channels
    time = 4 * widths[0]
    yield from linear("time_embed.0", widths[0], time)
    yield from linear("time_embed.2", time, time)

    yield from conv("input_blocks.0.0", config.in_channels, widths[0], 3)
    skips, channels, i = [widths[0]], widths[0], 1
    for level, width in enumerate(widths):
        for _ in range(config.blocks_per_level):
            yield from unet_residual(f"input_blocks.{i}.0", channels, width, time)
            if config.attention[level]:
                yield from unet_transformer(f"input_blocks.{i}.1", width, context)
            channels, i = width, i + 1
            skips.append(channels)
        if level < len(widths) - 1:
            yield from conv(f"input_blocks.{i}.0.op", channels, channels, 3)
            i += 1
            skips.append(channels)

    yield from unet_residual("middle_block.0", channels, channels, time)
    yield from unet_transformer("middle_block.1", channels, context)
    yield from unet_residual("middle_block.2", channels, channels, time)

    i = 0
    for level, width in reversed(list(enumerate(widths))):
        for block in range(config.blocks_per_level + 1):
            yield from unet_residual(f"output_blocks.{i}.0", channels + skips.pop(), width, time)
            if config.attention[level]:
                yield from unet_transformer(f"output_blocks.{i}.1", width, context)
            if level > 0 and block == config.blocks_per_level:
                yield from conv(f"output_blocks.{i}.{2 if config.attention[level] else 1}.conv", width, width, 3)
            channels, i = width, i + 1

    yield from affine("out.0", channels)
    yield from conv("out.2", channels, config.out_channels, 3)


# --- the autoencoder -------------------------------------------------------------------------------------------------


def vae_residual(name: str, in_channels: int, out_channels: int) -> Entries:
    yield from affine(f"{name}.norm1", in_channels)
    yield from conv(f"{name}.conv1", in_channels, out_channels, 3)
    yield from affine(f"{name}.norm2", out_channels)
    yield from conv(f"{name}.conv2", out_channels, out_channels, 3)
    if in_channels != out_channels:
        yield from conv(f"{name}.nin_shortcut", in_channels, out_channels, 1)


def vae_middle(name: str, channels: int) -> Entries:
    yield from vae_residual(f"{name}.block_1", channels, channels)
    yield from affine(f"{name}.attn_1.norm", channels)
    for projection in ("q", "k", "v", "proj_out"):
        yield from conv(f"{name}.attn_1.{projection}", channels, channels, 1)
    yield from vae_residual(f"{name}.block_2", channels, channels)


def vae_entries(config: VAEConfig) -> Entries:
    widths, latents = config.channels, config.latent_channels
    last = len(widths) - 1

    yield from conv("encoder.conv_in", config.image_channels, widths[0], 3)
    channels = widths[0]
    for level, width in enumerate(widths):
        for block in range(config.blocks_per_level):
            yield from vae_residual(f"encoder.down.{level}.block.{block}", channels, width)
            channels = width
        if level < last:
            yield from conv(f"encoder.down.{level}.downsample.conv", width, width, 3)
    yield from vae_middle("encoder.mid", channels)
    yield from affine("encoder.norm_out", channels)
    yield from conv("encoder.conv_out", channels, 2 * latents, 3)

    yield from conv("decoder.conv_in", latents, channels, 3)
    yield from vae_middle("decoder.mid", channels)
    for level, width in reversed(list(enumerate(widths))):
        for block in range(config.blocks_per_level + 1):
            yield from vae_residual(f"decoder.up.{level}.block.{block}", channels, width)
            channels = width
        if level > 0:
            yield from conv(f"decoder.up.{level}.upsample.conv", width, width, 3)
    yield from affine("decoder.norm_out", channels)
    yield from conv("decoder.conv_out", channels, config.image_channels, 3)

    yield from conv("quant_conv", 2 * latents, 2 * latents, 1)
    yield from conv("post_quant_conv", latents, latents, 1)


# --- the text encoder ------------------------------------------------------------------------------------------------


def clip_entries(config: CLIPConfig) -> Entries:
    width = config.width
    yield "text_model.embeddings.token_embedding.weight", (config.vocab_size, width)
    yield "text_model.embeddings.position_embedding.weight", (config.max_length, width)
    for i in range(config.num_layers):
        layer = f"text_model.encoder.layers.{i}"
        for projection in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield from linear(f"{layer}.self_attn.{projection}", width, width)
        yield from affine(f"{layer}.layer_norm1", width)
        yield from linear(f"{layer}.mlp.fc1", width, config.hidden_width)
        yield from linear(f"{layer}.mlp.fc2", config.hidden_width, width)
        yield from affine(f"{layer}.layer_norm2", width)
    yield from affine("text_model.final_layer_norm", width)


# --- whole files -----------------------------------------------------------------------------------------------------


def filled(entries: Entries, seed: int) -> dict[str, Tensor]:
    """Random tensors, float32, of a size that keeps a network's activations near one."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in entries:
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            values /= float(torch.Size(shape[1:]).numel()) ** 0.5
        elif name.endswith("weight"):
            values = 1.0 + 0.3 * values
        else:
            values = 0.3 * values
        tensors[name] = values
    return tensors


def schedule_tables() -> dict[str, Tensor]:
    """The noise schedule's buffers, which stand without a prefix in the published file."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    abar = torch.cumprod(1.0 - betas, dim=0)
    before = torch.cat([torch.ones(1), abar[:-1]])
    variance = betas * (1.0 - before) / (1.0 - abar)
    return {
        "betas": betas, "alphas_cumprod": abar, "alphas_cumprod_prev": before, "sqrt_alphas_cumprod": abar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1.0 - abar).sqrt(), "log_one_minus_alphas_cumprod": (1.0 - abar).log(),
        "sqrt_recip_alphas_cumprod": (1.0 / abar).sqrt(), "sqrt_recipm1_alphas_cumprod": (1.0 / abar - 1.0).sqrt(),
        "posterior_variance": variance, "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1.0 - abar),
        "posterior_mean_coef2": (1.0 - before) * (1.0 - betas).sqrt() / (1.0 - abar),
    }


def checkpoint(config: ModelConfig, ema: bool = True, seed: int = 0) -> dict[str, Tensor]:
    """A whole file: the three models, CLIP's table of positions, the noise schedule and, if wanted, EMA weights."""
    unet = filled(unet_entries(config.unet), seed)
    tensors = schedule_tables()
    tensors |= {UNET + name: tensor for name, tensor in unet.items()}
    tensors |= {VAE + name: tensor for name, tensor in filled(vae_entries(config.vae), seed + 1).items()}
    tensors |= {CLIP + name: tensor for name, tensor in filled(clip_entries(config.clip), seed + 2).items()}
    tensors[CLIP + "text_model.embeddings.position_ids"] = torch.arange(config.clip.max_length)[None]
    if ema:
        averages = filled(unet_entries(config.unet), seed + 3)
        tensors |= {"model_ema.diffusion_model" + name.replace(".", ""): tensor for name, tensor in averages.items()}
        tensors |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(470000)}
    return tensors


def converted_part(part: str, tensors: Mapping[str, Tensor], config: Any, ema: bool = False) -> dict[str, Tensor]:
    """One model's tensors ("unet", "vae" or "clip") under diffusers' names, by diffusers' own conversion of a file."""
    tensors = dict(tensors)
    if part == "unet":
        return convert_ldm_unet_checkpoint(tensors, {"layers_per_block": config.blocks_per_level}, extract_ema=ema)
    if part == "vae":
        blocks = dict.fromkeys(("down_block_types", "up_block_types"), config.channels)  # only their number counts
        return convert_ldm_vae_checkpoint(tensors, blocks)
    clip = convert_ldm_clip_checkpoint(tensors)
    return {name: tensor for name, tensor in clip.items() if not name.endswith("position_ids")}


def wanted(tensors: Mapping[str, Tensor], config: ModelConfig, ema: bool = False) -> dict[str, dict[str, Tensor]]:
    """The three models' tensors under our names, by way of diffusers' conversion."""
    rules = {"unet": renaming.UNET, "vae": renaming.VAE, "clip": renaming.CLIP}
    return {
        part: {
            renaming.our_name(name, rules[part]): tensor
            for name, tensor in converted_part(part, tensors, getattr(config, part), ema).items()
        }
        for part in rules
    }
