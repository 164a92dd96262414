"""A small model, and files of random weights that belong to a model: motion modules, a LoRA."""

import dataclasses
from pathlib import Path

import torch
from safetensors.torch import save_file

from course.core.config import CLIPConfig, ModelConfig, UNetConfig, VAEConfig, tiny_config
from course.training.export import diffusers_motion
from course.training.motion import modules_of
from solutions.stage06_clip import CLIPTextEncoder
from solutions.stage07_unet import UNet
from solutions.stage12_lora import attention_layers, lora_state_dict, put_in
from solutions.stage13_motion import MotionConfig, MotionUNet

NARROW = dataclasses.replace(  # the layout of the shipped model, with fewer channels
    tiny_config(),
    vae=VAEConfig(channels=(8, 8, 8, 8), blocks_per_level=1, num_groups=4),
    clip=CLIPConfig(vocab_size=640, width=16, hidden_width=32, num_layers=2, num_heads=2),
    unet=UNetConfig(
        channels=(8, 16, 16), attention=(True, True, False), blocks_per_level=1, num_heads=2, context_channels=16,
        num_groups=4,
    ),
    image_size=32,
)


def write_modules(path: Path, config: ModelConfig, sizes: MotionConfig) -> Path:
    """Writes a file of them, in diffusers' names; none of their weights is zero. Returns the path."""
    unet = MotionUNet(UNet(config.unet), config.unet, sizes)
    weights = {name: 0.05 * torch.randn(w.shape) for name, w in modules_of(unet).items()}
    tensors = {name: weight.contiguous() for name, weight in diffusers_motion(weights, sizes).items()}
    save_file(tensors, path, {"num_heads": str(sizes.num_heads)})
    return path


def write_lora(path: Path, config: ModelConfig) -> None:
    """A LoRA file of random numbers, for the attention of a model of these sizes."""
    model = UNet(config.unet), CLIPTextEncoder(config.clip)
    for part in model:
        put_in(part, attention_layers(part), rank=2)
    generator = torch.Generator().manual_seed(0)
    tensors = lora_state_dict(*model)
    for name, tensor in tensors.items():
        if not name.endswith(".alpha"):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    save_file(tensors, path)
