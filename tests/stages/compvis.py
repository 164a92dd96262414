"""Checkpoints as CompVis published them, for any config, and what diffusers' own conversion makes of them.

The names are those under which course/training/export.py writes a model; tests/course/test_loading.py proves that
diffusers reads them all.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from course.core.config import ModelConfig
from course.draw.checkpoint import uninitialised
from course.feedback import renaming
from course.training.export import assemble, compvis_clip, compvis_unet, compvis_vae
from solutions import stage05_vae, stage06_clip, stage07_unet
from solutions.stage10_key_remapper import PREFIXES
from tests.stages.light import without_compiler

with without_compiler():
    from diffusers.loaders.single_file_utils import (
        convert_ldm_clip_checkpoint,
        convert_ldm_unet_checkpoint,
        convert_ldm_vae_checkpoint,
    )

VAE, CLIP, UNET = (PREFIXES[part] for part in ("vae", "clip", "unet"))
MODELS = {"vae": stage05_vae.VAE, "clip": stage06_clip.CLIPTextEncoder, "unet": stage07_unet.UNet}
RENAMED = {"vae": compvis_vae, "clip": compvis_clip, "unet": compvis_unet}
RULES = {"vae": renaming.VAE, "clip": renaming.CLIP, "unet": renaming.UNET}
Entries = Iterable[tuple[str, tuple[int, ...]]]


@functools.cache
def empty(part: str, config: Any) -> Mapping[str, Tensor]:
    """The tensors of one model ("unet", "vae" or "clip") under our names, without numbers."""
    with torch.device("meta"), uninitialised(torch.float32):
        return MODELS[part](config).state_dict()


def entries(part: str, config: Any) -> Entries:
    """CompVis' names of one model's tensors, without the model's prefix, and their shapes."""
    return [(name, tuple(tensor.shape)) for name, tensor in RENAMED[part](empty(part, config), config).items()]


def filled(entries: Entries, seed: int) -> dict[str, Tensor]:
    """Random tensors, float32, of a size that keeps a network's activations near one."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in entries:
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            values /= float(torch.Size(shape[1:]).numel()) ** 0.5
        else:
            values = 0.3 * values + name.endswith("weight")
        tensors[name] = values
    return tensors


def weights(config: ModelConfig) -> list[dict[str, Tensor]]:
    """Random weights under our names: of the VAE, the text encoder, the U-Net, and averages for the latter."""
    models = [empty(part, getattr(config, part)) for part in ("vae", "clip", "unet", "unet")]
    return [filled(((name, t.shape) for name, t in tensors.items()), seed) for seed, tensors in enumerate(models)]


def checkpoint(config: ModelConfig) -> dict[str, Tensor]:
    """A whole file: the three models, CLIP's table of positions, EMA weights, two of the noise schedule's tables."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    tables = {"betas": betas, "alphas_cumprod": torch.cumprod(1.0 - betas, dim=0)}  # without a prefix
    return tables | assemble(config, *weights(config), num_updates=470000, dtype=torch.float32)


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


def wanted(part: str, tensors: Mapping[str, Tensor], config: Any, ema: bool = False) -> dict[str, Tensor]:
    """One model's tensors under our names, by way of diffusers' conversion of a file."""
    converted = converted_part(part, tensors, config, ema)
    return {renaming.our_name(name, RULES[part]): tensor for name, tensor in converted.items()}
