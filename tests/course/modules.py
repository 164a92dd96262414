"""Motion modules with random weights, for tests of what draws films."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from course.core.config import ModelConfig
from course.training.export import diffusers_motion
from course.training.motion import modules_of
from solutions.stage07_unet import UNet
from solutions.stage13_motion import MotionConfig, MotionUNet


def write_modules(path: Path, config: ModelConfig, sizes: MotionConfig) -> Path:
    """Writes a file of them, in diffusers' names; none of their weights is zero. Returns the path."""
    unet = MotionUNet(UNet(config.unet), config.unet, sizes)
    weights = {name: 0.05 * torch.randn(w.shape) for name, w in modules_of(unet).items()}
    tensors = {name: weight.contiguous() for name, weight in diffusers_motion(weights, sizes).items()}
    save_file(tensors, path, {"num_heads": str(sizes.num_heads)})
    return path
