"""What an attention looks at, as maps that lie over a picture."""

import math

import numpy
import torch
from torch import Tensor, nn

from course.studio.page import POSITIVE, colours, enlarge
from course.studio.studio import Studio

CELL = 128


def attention_weights(
    studio: Studio, module: nn.Module, x: Tensor, context: Tensor, heads: int | None = None
) -> Tensor:
    """The weights of one attention, (queries, keys), averaged over its heads; None: it has as many as the U-Net's.

    The attention of stage 3 mixes values by its weights; given the unit vectors as values, it returns the weights.
    """
    heads = heads or studio.opened.config.unet.num_heads
    query = module.to_q(x).unflatten(-1, (heads, -1)).transpose(1, 2)
    key = module.to_k(context).unflatten(-1, (heads, -1)).transpose(1, 2)
    unit_vectors = torch.eye(key.shape[2], device=key.device).expand(*key.shape[:3], key.shape[2])
    return studio.blocks[3].scaled_dot_product_attention(query, key, unit_vectors).mean((0, 1))


def to_size(weights: Tensor, size: int) -> Tensor:
    """(queries, tokens) to one map per token, (tokens, size, size)."""
    side = math.isqrt(len(weights))
    maps = weights.T.reshape(1, -1, side, side)
    return nn.functional.interpolate(maps, size=(size, size), mode="bilinear")[0]


def token_names(studio: Studio, prompt: str) -> list[str]:
    """The tokens of a prompt as they can be read, with both marks."""
    tokenizer = studio.model.tokenizer
    return ["begin mark", *(f"'{tokenizer.decode([i])}'" for i in tokenizer.tokenize(prompt)), "end mark"]


def overlay(picture: numpy.ndarray, weights: Tensor) -> numpy.ndarray:
    """A map in bright colours over the picture in grey."""
    heat = enlarge(colours(weights.numpy(), float(weights.min()), float(weights.max()), POSITIVE), CELL, smooth=True)
    grey = enlarge(picture, CELL).mean(-1, keepdims=True)
    return (0.72 * heat + 0.28 * grey).astype(numpy.uint8)
