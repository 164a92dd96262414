"""Stage 3: attention, between pixels and from pixels to words.

A convolution sees a small neighbourhood; attention can see everything. Each position has a query, and each position
that it may look at has a key and a value, all of them vectors. The dot product of a query and a key says how well the
two agree. A softmax turns the dot products of one query with all keys into weights, and the result is the sum of the
values with these weights. (One can think of the query as a question, of the key as a title, and of the value as the
text under that title.) When queries, keys and values all come from the picture, it is self-attention: the left eye can
look at the right one. When keys and values come from the prompt, it is cross-attention: only through these layers do
words reach the picture.

Sources: Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762, equation 1 and section 3.2.2; Rombach et
al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022, arXiv:2112.10752, section 3.3 and appendix
E.2.1; Shazeer, "GLU Variants Improve Transformer", 2020, arXiv:2002.05202, equation 5 (GEGLU); Hendrycks and Gimpel,
2016, arXiv:1606.08415 (GELU).
"""

import math

import torch
from torch import Tensor, nn

from .stage01_group_norm import GroupNorm


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Exercise 3.1: mix the values, weighted by how well each query agrees with each key.

        attention(Q, K, V) = softmax(Q K^T / scale + mask) V

    The softmax runs over the keys, so each query's weights sum to one. The scale depends on d alone, the length of one
    query. To find it, draw queries and keys whose numbers are independent with mean zero and variance one, and print
    the variance of the products q.k for d = 4, 64 and 1024. Divided by the scale, it has to be one for every d: the
    larger the scores, the closer softmax comes to giving all the weight to a single key. Scale the queries before the
    product rather than the scores after it: in float16 the unscaled scores can overflow.

    Args:
        query: (..., queries, d).
        key: (..., keys, d).
        value: (..., keys, v).
        mask: added to the scores, broadcastable to (..., queries, keys): 0 where a query may look at a key and -inf
            where it may not. None: every query sees every key.

    Returns:
        (..., queries, v).
    """
    raise NotImplementedError("exercise 3.1: mix the values, weighted by how well each query agrees with each key")


class MultiHeadAttention(nn.Module):
    """Exercise 3.2: several attentions side by side, each on its own slice of the channels.

    Queries are projected from x, keys and values from the context (from x itself if no context is given). Each
    is cut into num_heads slices of d = channels / num_heads neighbouring channels, (batch, tokens, channels) ->
    (batch, heads, tokens, d); every head attends for itself; the results are joined again in the same order and
    projected once more.

    Parameters:
        to_q: Linear, channels -> channels; to_k, to_v: Linear, context_channels -> channels; a bias only if qkv_bias.
        to_out: Linear, channels -> channels, with bias.

    Args:
        channels: width of x and of the result; a multiple of num_heads.
        num_heads: the number of heads (not their width).
        context_channels: width of the context; None: the same as channels.
        qkv_bias: whether to_q, to_k and to_v have a bias. The U-Net's have none, CLIP's do.
    """

    def __init__(self, channels: int, num_heads: int, context_channels: int | None = None, qkv_bias: bool = False):
        raise NotImplementedError(
            "exercise 3.2: several attentions side by side, each on its own slice of the channels"
        )

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            x: (batch, tokens, channels).
            context: (batch, context tokens, context_channels), or None for self-attention.
            mask: as in scaled_dot_product_attention, broadcastable to (batch, 1, tokens, context tokens): the same for
                all heads.

        Returns:
            (batch, tokens, channels).
        """
        raise NotImplementedError(
            "exercise 3.2: several attentions side by side, each on its own slice of the channels"
        )


def image_to_tokens(x: Tensor) -> Tensor:
    """Given: one token per pixel, whose features are the pixel's channels: (B, C, H, W) -> (B, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


def tokens_to_image(tokens: Tensor, height: int, width: int) -> Tensor:
    """Given: the way back: (B, H * W, C) -> (B, C, H, W)."""
    return tokens.transpose(1, 2).unflatten(2, (height, width))


class PixelAttention(nn.Module):
    """Exercise 3.3: self-attention between all pixels of a picture, with a single head. The VAE has it in its middle.

        tokens = the pixels of norm(x) as tokens
        y      = x + to_out(attention(to_q(tokens), to_k(tokens), to_v(tokens)))          as a picture again

    attention is scaled_dot_product_attention; with a single head, as wide as all channels, nothing has to be cut up.

    Parameters:
        norm: GroupNorm over channels.
        to_q, to_k, to_v, to_out: Linear, channels -> channels, with bias.
    """

    def __init__(self, channels: int, num_groups: int = 32, eps: float = 1e-6):
        raise NotImplementedError("exercise 3.3: self-attention between all pixels of a picture, with a single head")

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: (batch, channels, height, width).

        Returns:
            (batch, channels, height, width).
        """
        raise NotImplementedError("exercise 3.3: self-attention between all pixels of a picture, with a single head")


class GEGLU(nn.Module):
    """Exercise 3.4: a gated linear layer: one half of its features decides how much of the other half gets through.

        value, gate = proj(x)               the first and the second half of the features
        y = value * gelu(gate)              gelu(z) = z * Phi(z), Phi: the standard normal distribution function

    This is the exact GELU, not its approximation by tanh.

    Parameters:
        proj: Linear, channels -> 2 * hidden_channels.
    """

    def __init__(self, channels: int, hidden_channels: int):
        raise NotImplementedError("exercise 3.4: a gated linear layer")

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: (..., channels).

        Returns:
            (..., hidden_channels).
        """
        raise NotImplementedError("exercise 3.4: a gated linear layer")


class FeedForward(nn.Module):
    """Given: two layers that treat each token by itself, out(geglu(x)); the hidden one is `multiplier` times as wide.

    Parameters:
        geglu: GEGLU, channels -> multiplier * channels.
        out: Linear, multiplier * channels -> channels.
    """

    def __init__(self, channels: int, multiplier: int = 4):
        super().__init__()
        self.geglu = GEGLU(channels, multiplier * channels)
        self.out = nn.Linear(multiplier * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.geglu(x))


class TransformerBlock(nn.Module):
    """Exercise 3.5: the transformer block: self-attention, cross-attention, feed-forward network, each a correction.

        x = x + self_attention(norm1(x))
        x = x + cross_attention(norm2(x), context)
        x = x + feed_forward(norm3(x))

    Parameters:
        norm1, norm2, norm3: nn.LayerNorm over channels (its default eps, 1e-5).
        self_attention: MultiHeadAttention; cross_attention: MultiHeadAttention with context_channels.
        feed_forward: FeedForward.
    """

    def __init__(self, channels: int, num_heads: int, context_channels: int):
        raise NotImplementedError("exercise 3.5: the transformer block")

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """
        Args:
            x: (batch, tokens, channels).
            context: (batch, context tokens, context_channels).

        Returns:
            (batch, tokens, channels).
        """
        raise NotImplementedError("exercise 3.5: the transformer block")


class SpatialTransformer(nn.Module):
    """Exercise 3.6: a transformer block for pictures, with a 1x1 convolution before and after it, and a shortcut.

        y = x + proj_out(block(proj_in(norm(x)), context))          with the pixels as tokens inside

    Parameters:
        norm: GroupNorm over channels with eps=1e-6.
        proj_in, proj_out: 1x1 convolutions, channels -> channels.
        block: TransformerBlock.
    """

    def __init__(self, channels: int, num_heads: int, context_channels: int, num_groups: int = 32):
        raise NotImplementedError(
            "exercise 3.6: a transformer block for pictures, with a 1x1 convolution before and after it, and a shortcut"
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """
        Args:
            x: (batch, channels, height, width).
            context: (batch, context tokens, context_channels).

        Returns:
            (batch, channels, height, width).
        """
        raise NotImplementedError(
            "exercise 3.6: a transformer block for pictures, with a 1x1 convolution before and after it, and a shortcut"
        )
