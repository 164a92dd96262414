"""What makes drawing faster without a word changed in the stages: packed weights, torch.compile."""

import platform
from typing import Any

import torch
from torch import Tensor, nn

from course.core.messages import Refusal
from course.core.processor import has_bfloat16_units

LEAST_PACKED = (
    4_000_000  # multiplications in a product of matrices; with fewer, to call oneDNN takes longer than it saves
)


def speed_up(model: Any, device: torch.device, dtype: torch.dtype, compiled: bool) -> None:
    """Makes a filled StableDiffusion (stage 9) draw faster; it cannot be trained afterwards.

    Args:
        model: changed in place; its U-Net and VAE keep their weights.
        device, dtype: where and in what it draws.
        compiled: U-Net and decoder are compiled when they first draw, and again for another size.
    """
    if compiled:
        model.unet = torch.compile(model.unet, mode=compile_mode(device))
        model.vae.decoder = torch.compile(model.vae.decoder, mode=compile_mode(device))
    elif device.type == "cpu" and can_pack(dtype):
        for part in (model.unet, model.vae):
            for module in part.modules():
                if type(module) is nn.Conv2d and isinstance(module.padding, tuple) and module.padding_mode == "zeros":
                    module.__class__ = PackedConv2d
                elif type(module) is nn.Linear:
                    module.__class__ = PackedLinear


def compile_mode(device: torch.device) -> str:
    """For torch.compile: on a GPU of NVIDIA all kernels of a call are started together, as one CUDA graph."""
    return "reduce-overhead" if device.type == "cuda" else "default"


def check_compile(compiled: bool, device: torch.device) -> None:
    """A Refusal, in one sentence, if the model is to be compiled where that does not pay.

    It does not on a processor. The small model takes as long as it does with packed weights, and that of the size of
    Stable Diffusion 1.5 hardly less than with packed convolutions, with twice the memory.
    """
    if compiled and device.type == "cpu":
        raise Refusal("COMPILE=1 is for a GPU: on a processor draw with COMPILE=0, or with ENGINE=openvino.")


def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN has kernels for this processor and dtype that read packed weights."""
    if not torch.backends.mkldnn.is_available() or platform.machine() not in ("x86_64", "AMD64"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and has_bfloat16_units())


class Packed(nn.Module):
    """A layer with its weights in the order in which the processor's kernel reads them.

    torch brings them into that order at every call. For a convolution of a small picture with many channels that takes
    longer than the convolution itself. For products of matrices in float32 torch takes another library, MKL, which on
    an AMD EPYC took 2.3 times as long as oneDNN, the library used here. Which order it is depends on the first input;
    for one of another size the result is the same, only later.
    """

    packed: Tensor | None = None

    def keep(self, packed: Tensor) -> None:
        """Takes the packed weights in the place of the others."""
        self.packed = packed
        del self.weight

    def __getattr__(self, name: str) -> Any:
        if name == "weight" and self.packed is not None:
            return self.packed.to_dense()
        return super().__getattr__(name)


class PackedConv2d(Packed, nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore  # nn.Conv2d calls it `input`
        weight = self.weight if self.packed is None else self.packed
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.dtype != weight.dtype:
            return super().forward(x)  # which says what is wrong with it
        arguments = (self.padding, self.stride, self.dilation, self.groups)
        if self.packed is None:
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            self.keep(reorder(weight.to_mkldnn(), *arguments, x.shape))
        return torch.ops.mkldnn._convolution_pointwise(x, self.packed, self.bias, *arguments, "none", [], "")


class PackedLinear(Packed, nn.Linear):
    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore  # nn.Linear calls it `input`
        weight = self.weight if self.packed is None else self.packed
        if x.ndim == 0 or x.shape[-1] != self.in_features or x.dtype != weight.dtype:
            return super().forward(x)  # which says what is wrong with it
        if self.packed is None:
            rows = x.numel() // self.in_features
            if rows * self.in_features * self.out_features < LEAST_PACKED:
                return super().forward(x)
            self.keep(torch.ops.mkldnn._reorder_linear_weight(weight, rows))
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
