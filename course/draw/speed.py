"""What makes drawing faster without a word changed in the stages: packed convolutions, torch.compile."""

import os
import platform
import shutil
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from course.core.processor import has_bfloat16_units

MOST_COMPILED = 200_000_000  # weights in a file; the small model has 16 million, Stable Diffusion 1.5 has 1,066 million


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
        model.unet = torch.compile(model.unet, mode=compile_mode(device))
        model.vae.decoder = torch.compile(model.vae.decoder, mode=compile_mode(device))
    elif device.type == "cpu" and can_pack(dtype):
        for part in (model.unet, model.vae):
            for module in part.modules():
                if type(module) is nn.Conv2d and isinstance(module.padding, tuple) and module.padding_mode == "zeros":
                    module.__class__ = PackedConv2d


def compile_mode(device: torch.device) -> str:
    """For torch.compile: on a GPU of NVIDIA all kernels of a call are started together, as one CUDA graph."""
    return "reduce-overhead" if device.type == "cuda" else "default"


def check_compiler(device: torch.device, tensors: Mapping[str, Tensor]) -> None:
    """ValueError, in one sentence, if the weights of a checkpoint cannot be compiled here, or not usefully.

    On a processor, torch.compile calls a C++ compiler. Compiled, the weights are constants of the program, in memory
    twice. The small model is so small that this does not matter. The U-Net of Stable Diffusion 1.5, on one thread of an
    AMD EPYC, took 9.3 GB at most, and 2.6 s for a call; with packed convolutions instead it took 3.9 GB and 2.8 s.
    """
    if device.type != "cpu":
        return
    name = os.environ.get("CXX") or ("clang++" if platform.system() == "Darwin" else "g++")
    if shutil.which(name) is None:
        raise ValueError(f"COMPILE=1 needs a C++ compiler, and {name} is not installed: draw with COMPILE=0.")
    if sum(tensor.numel() for tensor in tensors.values()) > MOST_COMPILED:
        raise ValueError(
            "COMPILE=1 does not pay for a model of this size on a processor, where it takes more than twice the memory "
            "and hardly less time: draw with COMPILE=0."
        )


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
