"""What makes drawing faster without a word changed in the stages: packed convolutions, torch.compile."""

import os
import platform
import shutil
from typing import Any

import torch
from torch import Tensor, nn

from course.draw.checkpoint import has_bfloat16_units


def speed_up(model: Any, device: torch.device, dtype: torch.dtype, compiled: bool) -> None:
    """Makes a filled StableDiffusion (stage 9) draw faster; it cannot be trained afterwards.

    Args:
        model: changed in place; its U-Net and VAE keep their weights.
        device, dtype: where and in what it draws.
        compiled: U-Net and decoder are compiled when they first draw, and again for another size.
    """
    if compiled:
        # The weights become constants of the program, which lays them out for the processor's kernels once and for all.
        torch._inductor.config.freezing = device.type == "cpu"
        model.unet = torch.compile(model.unet)
        model.vae.decoder = torch.compile(model.vae.decoder)
    elif device.type == "cpu" and can_pack(dtype):
        for part in (model.unet, model.vae):
            for module in part.modules():
                if type(module) is nn.Conv2d and isinstance(module.padding, tuple) and module.padding_mode == "zeros":
                    module.__class__ = PackedConv2d


def check_compiler(device: torch.device) -> None:
    """ValueError, in one sentence, unless the C++ compiler is there that torch.compile calls for a processor."""
    name = os.environ.get("CXX") or ("clang++" if platform.system() == "Darwin" else "g++")
    if device.type == "cpu" and shutil.which(name) is None:
        raise ValueError(f"COMPILE=1 needs a C++ compiler, and {name} is not installed: draw with COMPILE=0.")


def can_pack(dtype: torch.dtype) -> bool:
    """Whether the convolutions of this processor, in this dtype, are those of oneDNN."""
    if not torch.backends.mkldnn.is_available() or platform.machine() not in ("x86_64", "AMD64"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and has_bfloat16_units())


class PackedConv2d(nn.Conv2d):
    """A convolution with its weights in the order in which the processor's kernel reads them.

    nn.Conv2d brings them into that order at every call, which takes longer than the convolution itself where a picture
    is small and has many channels. Which order it is depends on the size of the picture: the first one decides, and
    for another one the result is the same, only later.
    """

    packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore  # nn.Conv2d calls it `input`
        weight = self.weight if self.packed is None else self.packed
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.dtype != weight.dtype:
            return super().forward(x)  # which says what is wrong with it
        arguments = (self.padding, self.stride, self.dilation, self.groups)
        if self.packed is None:
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            self.packed = reorder(weight.to_mkldnn(), *arguments, x.shape)
            del self.weight
        return torch.ops.mkldnn._convolution_pointwise(x, self.packed, self.bias, *arguments, "none", [], "")

    def __getattr__(self, name: str) -> Any:
        if name == "weight" and self.packed is not None:
            return self.packed.to_dense()
        return super().__getattr__(name)
