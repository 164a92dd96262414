"""The blocks of stages 2 to 4: what makes one makes its counterpart of diffusers, too; and the checks that all get."""

from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from course.feedback import renaming
from course.feedback.compare import check, evaluated
from course.feedback.renaming import Rules, our_weights
from tests.stages import reference
from tests.stages.blocks import check_block, make_block
from tests.stages.in_turn import Inputs, check_block_in_turn


def residual_block(in_channels, out_channels, time_channels=None, num_groups=32, eps=1e-6, seed=0) -> nn.Module:
    block = reference.residual_block(in_channels, out_channels, time_channels, num_groups, eps, seed)
    return called_as_ours(block, lambda forward, x, time_embedding=None: forward(x, time_embedding))


def multi_head_attention(channels, num_heads, context_channels=None, qkv_bias=False, seed=0) -> nn.Module:
    attention = reference.multi_head_attention(channels, num_heads, context_channels, qkv_bias, seed)

    def call(forward, x, context=None, mask=None):
        return forward(x, context, None if mask is None else mask.expand(len(x), -1, -1))

    return called_as_ours(attention, call)


def pixel_attention(channels, num_groups=32, eps=1e-6, seed=0) -> nn.Module:
    attention = reference.pixel_attention(channels, num_groups, eps, seed)
    return called_as_ours(attention, lambda forward, x: forward(x.contiguous()))


def transformer_block(channels, num_heads, context_channels, seed=0) -> nn.Module:
    block = reference.transformer_block(channels, num_heads, context_channels, seed)
    return called_as_ours(block, lambda forward, x, context: forward(x, encoder_hidden_states=context))


def spatial_transformer(channels, num_heads, context_channels, num_groups=32, seed=0) -> nn.Module:
    return reference.spatial_transformer(channels, num_heads, context_channels, num_groups, seed)


COUNTERPARTS: dict[str, tuple[Callable[..., nn.Module], Rules]] = {
    "ResidualBlock": (residual_block, renaming.RESIDUAL),
    "MultiHeadAttention": (multi_head_attention, renaming.ATTENTION),
    "PixelAttention": (pixel_attention, renaming.PIXEL_ATTENTION),
    "GEGLU": (reference.geglu, {}),
    "FeedForward": (reference.feed_forward, renaming.FEED_FORWARD),
    "TransformerBlock": (transformer_block, renaming.TRANSFORMER_BLOCK),
    "SpatialTransformer": (spatial_transformer, renaming.SPATIAL_TRANSFORMER),
    "Upsample": (reference.upsample, {}),
    "Downsample": (reference.downsample, {}),
}


def called_as_ours(module: nn.Module, call: Callable[..., Tensor]) -> nn.Module:
    """The module, whose `forward` now takes our arguments: call(forward, ...) hands them on."""
    module.forward = partial(call, module.forward)
    return module


def counterpart(text: str, seed: int = 0) -> nn.Module:
    """The reference that equals the block that the text makes, "ResidualBlock(8, 12, num_groups=4)"; called like it."""
    makers = {name: partial(make, seed=seed) for name, (make, _) in COUNTERPARTS.items()}
    return evaluated(text, makers)(SimpleNamespace())


def rules_of(text: str) -> Rules:
    return COUNTERPARTS[text.partition("(")[0]][1]


def check_counterpart(stage: ModuleType, text: str, theirs: nn.Module | None = None, **options: Any) -> None:
    """check_block with the text's counterpart, or with `theirs`, which is that with a few weights changed."""
    check_block(stage, text, theirs or counterpart(text), rules_of(text), **options)


def check_parameters(stage: ModuleType, text: str) -> None:
    """Asserts that the block has parameters of the right names and shapes."""
    weights = our_weights(counterpart(text), rules_of(text))

    def run(module: ModuleType) -> dict[str, tuple[int, ...]]:
        return {name: tuple(own.shape) for name, own in make_block(module, text, weights).named_parameters()}

    wanted = {name: tuple(weight.shape) for name, weight in weights.items()}
    check(stage, run, wanted, f"the parameters of {text}")


def check_dtype(
    stage: ModuleType, text: str, dtype: torch.dtype, *, roundings: int, hint: str, **inputs: Tensor
) -> None:
    """Asserts that the block, its weights and inputs in this dtype, gives that dtype, and the values but for rounding.

    Args:
        roundings: how many times the dtype's precision the relative error may be.
    """
    theirs = counterpart(text)
    expected = theirs(*inputs.values())
    expected = getattr(expected, "sample", expected).detach().to(dtype)

    def run(module: ModuleType) -> Any:
        block = make_block(module, text, our_weights(theirs, rules_of(text))).to(dtype)
        return block(*(x.to(dtype) for x in inputs.values()))

    call = f"{text}({', '.join(inputs)}) in {dtype}"
    check(stage, run, expected, call, tolerance=roundings * torch.finfo(dtype).eps, hint=hint)


def check_counterpart_in_turn(stage: ModuleType, text: str, calls: Sequence[Inputs], way: str) -> None:
    """check_block_in_turn with the text's counterpart."""
    theirs = counterpart(text)

    def wanted(*values: Any) -> Tensor:
        result = theirs(*values)
        return getattr(result, "sample", result)

    check_block_in_turn(stage, text, wanted, our_weights(theirs, rules_of(text)), calls, way)
