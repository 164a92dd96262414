"""Stage 3 against torch's attention and the attention blocks of diffusers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import linear

from course.feedback import renaming
from course.feedback.compare import check, give_weights, rand, results_and_gradients
from tests.stages import reference

sdpa = pytest.mark.exercise("3.1")
multi_head = pytest.mark.exercise("3.2")
pixels = pytest.mark.exercise("3.3")
gated = pytest.mark.exercise("3.4")
transformer = pytest.mark.exercise("3.5")
spatial = pytest.mark.exercise("3.6")
either_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)

ROUGH = 1e-4  # where eps is not the question: 1e-5 instead of 1e-6 changes less than this, other mistakes more
CUT = "detach, .data and no_grad cut the gradient off."
DTYPE = "do you make a tensor of another dtype on the way?"
VIEW = "reshape works where view refuses."


def torch_attention(query, key, value, mask=None):
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def causal(length):
    """0 on and below the diagonal, -inf above it."""
    rows, columns = torch.arange(length)[:, None], torch.arange(length)[None]
    return torch.zeros(length, length, dtype=torch.float64).masked_fill(columns > rows, -math.inf)


def call_of(name, *args, **kwargs):
    return f"{name}({', '.join([*map(str, args), *(f'{key}={value}' for key, value in kwargs.items())])})"


def without(theirs, *layers):
    """The reference with all parameters of some of its layers at zero."""
    with torch.no_grad():
        for layer in layers:
            for parameter in theirs.get_submodule(layer).parameters():
                parameter.zero_()
    return theirs


def shapes(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


class Function(torch.nn.Module):
    """A function as a module, so that results_and_gradients takes it."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


# --- scaled dot-product attention ------------------------------------------------------------------------------------


@sdpa
def test_a_single_key_gets_all_attention(stage):
    query, key, value = rand(2, 3, 4), rand(2, 1, 4, seed=1), rand(2, 1, 5, seed=2)
    check(
        stage, lambda m: m.scaled_dot_product_attention(query, key, value), value.expand(2, 3, 5),
        "scaled_dot_product_attention(query, key, value) with a single key",
        hint="a softmax over one number is 1, so each query gets that value. Does the softmax run over the keys?",
        inputs={"query": query, "key": key, "value": value},
    )


@sdpa
def test_the_weights_of_a_query_sum_to_one(stage):
    query, key, value = rand(2, 3, 4), rand(2, 7, 4, seed=1), torch.ones(2, 7, 5, dtype=torch.float64)
    check(
        stage, lambda m: m.scaled_dot_product_attention(query, key, value), torch.ones(2, 3, 5, dtype=torch.float64),
        "scaled_dot_product_attention(query, key, value) with all values equal to 1",
        hint="does the softmax run over the keys, so that the weights of each query sum to 1?",
    )


@sdpa
def test_a_quarter_and_three_quarters(stage):
    query, key = torch.zeros(1, 1, 16, dtype=torch.float64), torch.zeros(1, 2, 16, dtype=torch.float64)
    query[..., 0], key[0, 1, 0] = 4.0, math.log(3)
    value = torch.tensor([[[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]]], dtype=torch.float64)
    check(
        stage, lambda m: m.scaled_dot_product_attention(query, key, value),
        torch.tensor([[[0.25, 0.75, 5.0]]], dtype=torch.float64),
        "scaled_dot_product_attention(query, key, value), d = 16, with q.k = 0 and q.k = 4 log 3",
        hint="the scores are q.k / sqrt(d), here 0 and log 3; their softmax is 1/4 and 3/4. Is it scaled, and once?",
    )


@sdpa
@pytest.mark.parametrize("width", [1, 4, 5, 9])
def test_the_scale_follows_the_width_of_the_query(stage, width):
    query, key, value = rand(2, 3, width), rand(2, 6, width, seed=1), rand(2, 6, 7, seed=2)
    check(
        stage, lambda m: m.scaled_dot_product_attention(query, key, value), torch_attention(query, key, value),
        f"scaled_dot_product_attention(query, key, value) with queries of width d = {width} and values of width 7",
        hint="d is the length of one query: the last dimension, not the number of queries or keys.",
        inputs={"query": query, "key": key, "value": value},
    )


@sdpa
@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (2, 1, 3)], ids=str)
def test_any_leading_dimensions(stage, leading):
    query, key, value = rand(*leading, 4, 8), rand(*leading, 6, 8, seed=1), rand(*leading, 6, 5, seed=2)
    check(
        stage, lambda m: m.scaled_dot_product_attention(query, key, value), torch_attention(query, key, value),
        f"scaled_dot_product_attention(query, key, value) with a query of shape {(*leading, 4, 8)}",
        hint="the last two dimensions are tokens and features; there may be none or several before them.",
    )


@sdpa
def test_a_key_masked_with_minus_infinity_is_not_there(stage):
    query, key, value = rand(2, 3, 4), rand(2, 5, 4, seed=1), rand(2, 5, 6, seed=2)
    mask = torch.zeros(3, 5, dtype=torch.float64)
    mask[:, 2] = -math.inf
    seen = [0, 1, 3, 4]
    check(
        stage, lambda m: m.scaled_dot_product_attention(query, key, value, mask),
        torch_attention(query, key[:, seen], value[:, seen]),
        "scaled_dot_product_attention(query, key, value, mask) with -inf for the third of five keys",
        hint="add the mask before the softmax: exp(-inf) is 0, and the other weights still sum to 1.",
        inputs={"query": query, "key": key, "value": value, "mask": mask},
    )


@sdpa
def test_a_causal_mask_leaves_the_first_query_its_own_value(stage):
    query, key, value = rand(2, 5, 4), rand(2, 5, 4, seed=1), rand(2, 5, 6, seed=2)
    mask = causal(5)
    check(
        stage, lambda m: m.scaled_dot_product_attention(query, key, value, mask)[:, 0], value[:, 0],
        "scaled_dot_product_attention(query, key, value, causal_mask)[:, 0]",
        hint="rows of the mask are queries, columns are keys: the first query sees the first key only.",
    )


@sdpa
@pytest.mark.parametrize("shape", [(4, 6), (2, 1, 1, 6), (3, 1, 6), (2, 3, 4, 6), (4, 1)], ids=str)
def test_the_mask_is_added_to_the_scaled_scores(stage, shape):
    query, key, value = rand(2, 3, 4, 8), rand(2, 3, 6, 8, seed=1), rand(2, 3, 6, 5, seed=2)
    mask = rand(*shape, seed=3)
    check(
        stage, lambda m: m.scaled_dot_product_attention(query, key, value, mask=mask),
        torch_attention(query, key, value, mask.expand(2, 3, 4, 6)),
        f"scaled_dot_product_attention(query, key, value, mask) with a mask of ordinary numbers, of shape {shape}",
        hint="softmax(q.k / sqrt(d) + mask): the mask itself is not scaled, and broadcasts by itself.",
        inputs={"query": query, "key": key, "value": value, "mask": mask},
    )


@sdpa
def test_large_scores(stage):
    query, key, value = rand(2, 3, 8, scale=100.0), rand(2, 6, 8, seed=1, scale=100.0), rand(2, 6, 5, seed=2)
    check(
        stage, lambda m: m.scaled_dot_product_attention(query, key, value), torch_attention(query, key, value),
        "scaled_dot_product_attention(query, key, value) with scores in the thousands",
        hint="exp(1000) is inf. A softmax subtracts the maximum first; torch.softmax does.",
    )


@sdpa
def test_half_precision_does_not_overflow(stage):
    query = torch.full((2, 3, 64), 64.0, dtype=torch.float16)
    key = torch.full((2, 4, 64), 32.0, dtype=torch.float16)
    value = rand(2, 4, 5, dtype=torch.float16)
    check(
        stage, lambda m: m.scaled_dot_product_attention(query, key, value),
        value.double().mean(1, keepdim=True).expand(2, 3, 5).half(),
        "scaled_dot_product_attention(query, key, value) in float16, with equal keys and q.k = 131072",
        tolerance=2e-3,  # two units in the last place
        hint="float16 ends at 65504: divide the query by sqrt(d) before the product, not the scores after it.",
    )


@sdpa
@either_dtype
def test_attention_keeps_the_dtype(stage, dtype):
    query, key, value, mask = rand(2, 3, 8), rand(2, 6, 8, seed=1), rand(2, 6, 5, seed=2), rand(3, 6, seed=3)
    check(
        stage,
        lambda m: m.scaled_dot_product_attention(query.to(dtype), key.to(dtype), value.to(dtype), mask.to(dtype)),
        torch_attention(query, key, value, mask).to(dtype),
        f"scaled_dot_product_attention(query, key, value, mask) in {dtype}",
        tolerance=10 * torch.finfo(dtype).eps, hint=DTYPE,  # inputs, scores, weights and result are rounded
    )


@sdpa
def test_attention_not_contiguous(stage):
    query, key, value = (rand(2, n, 3, d, seed=n).transpose(1, 2) for n, d in ((4, 8), (6, 8), (6, 5)))
    check(
        stage, lambda m: m.scaled_dot_product_attention(query, key, value), torch_attention(query, key, value),
        "scaled_dot_product_attention(query, key, value) with transposed views", hint=VIEW,
    )


@sdpa
def test_attention_gradients(stage):
    inputs = rand(2, 3, 8), rand(2, 6, 8, seed=1), rand(2, 6, 5, seed=2), rand(3, 6, seed=3)
    check(
        stage, lambda m: results_and_gradients(Function(m.scaled_dot_product_attention), *inputs),
        results_and_gradients(Function(torch_attention), *inputs),
        "scaled_dot_product_attention(query, key, value, mask) and its gradients", hint=CUT,
    )


@sdpa
@given(
    st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31)
)
def test_the_order_of_the_keys_does_not_matter(stage, batch, queries, keys, width, value_width, seed):
    query, key = rand(batch, queries, width, seed=seed), rand(batch, keys, width, seed=seed + 1)
    value = rand(batch, keys, value_width, seed=seed + 2)
    order = torch.randperm(keys, generator=torch.Generator().manual_seed(seed))
    check(
        stage, lambda m: m.scaled_dot_product_attention(query, key[:, order], value[:, order]),
        torch_attention(query, key, value),
        f"scaled_dot_product_attention(query, key[:, order], value[:, order]) with queries {tuple(query.shape)}, "
        f"keys {tuple(key.shape)}, values {tuple(value.shape)}",
    )


# --- several heads ---------------------------------------------------------------------------------------------------


def make_heads(module, weights, *args, **kwargs):
    call = call_of("MultiHeadAttention", *args, **kwargs)
    return give_weights(module.MultiHeadAttention(*args, **kwargs), weights, call)


def heads_weights(theirs):
    return reference.our_weights(theirs, renaming.ATTENTION)


@multi_head
@pytest.mark.parametrize("bias", [False, True], ids=["no qkv_bias", "qkv_bias"])
@pytest.mark.parametrize("context_channels", [None, 10], ids=["self", "cross"])
def test_multi_head_parameters(stage, context_channels, bias):
    weights = heads_weights(reference.multi_head_attention(12, 3, context_channels, bias))
    kwargs = {"context_channels": context_channels, "qkv_bias": bias}

    def run(module):
        return shapes(dict(make_heads(module, weights, 12, 3, **kwargs).named_parameters()))

    check(stage, run, shapes(weights), f"the parameters of {call_of('MultiHeadAttention', 12, 3, **kwargs)}")


@multi_head
@pytest.mark.parametrize("bias", [False, True], ids=["no qkv_bias", "qkv_bias"])
@pytest.mark.parametrize("heads", [1, 3])
def test_one_token_passes_through_value_and_out(stage, heads, bias):
    weights = heads_weights(reference.multi_head_attention(12, heads, bias=bias))
    x = rand(2, 1, 12)
    value = linear(x, weights["to_v.weight"], weights.get("to_v.bias"))
    check(
        stage, lambda m: make_heads(m, weights, 12, heads, qkv_bias=bias)(x),
        linear(value, weights["to_out.weight"], weights["to_out.bias"]),
        f"MultiHeadAttention(12, {heads}, qkv_bias={bias})(x) with a single token",
        hint="with one key, attention is 1: what remains is to_out(to_v(x)), its channels in their old order.",
        inputs={"x": x},
    )


@multi_head
def test_without_questions_every_token_gets_the_mean(stage):
    weights = heads_weights(reference.multi_head_attention(12, 3))
    weights["to_q.weight"] = torch.zeros(12, 12, dtype=torch.float64)
    x = rand(2, 5, 12)
    value = linear(x, weights["to_v.weight"]).mean(1, keepdim=True).expand(2, 5, 12)
    check(
        stage, lambda m: make_heads(m, weights, 12, 3)(x),
        linear(value, weights["to_out.weight"], weights["to_out.bias"]),
        "MultiHeadAttention(12, 3)(x) with to_q at zero, so that each query sees all keys alike",
        hint="each token then gets the mean of the values. Cut the channels up into (heads, d), then swap tokens and "
        "heads; swap them back before joining the heads.",
    )


@multi_head
def test_one_head(stage):
    theirs = reference.multi_head_attention(12, 1)
    x = rand(2, 5, 12, scale=2.0)
    check(
        stage, lambda m: make_heads(m, heads_weights(theirs), 12, 1)(x), theirs(x).detach(),
        "MultiHeadAttention(12, num_heads=1)(x)",
        hint="queries from to_q, keys from to_k, values from to_v; the scale is in the attention already. num_heads is "
        "the number of heads, not their width.",
        inputs={"x": x},
    )


@multi_head
@pytest.mark.parametrize(("channels", "heads"), [(12, 3), (12, 2), (12, 12), (40, 8)])
def test_several_heads(stage, channels, heads):
    theirs = reference.multi_head_attention(channels, heads)
    x = rand(2, 5, channels, scale=2.0)
    check(
        stage, lambda m: make_heads(m, heads_weights(theirs), channels, heads)(x), theirs(x).detach(),
        f"MultiHeadAttention({channels}, num_heads={heads})(x)",
        hint=f"{heads} heads of {channels // heads} neighbouring channels each. Cut the channels up first, "
        "(heads, d), then transpose; each head is scaled by its own width d.",
        inputs={"x": x},
    )


@multi_head
@pytest.mark.parametrize("keys", [5, 7], ids=["as many as x", "more than x"])
def test_keys_and_values_come_from_the_context(stage, keys):
    theirs = reference.multi_head_attention(12, 3, 12)
    x, context = rand(2, 5, 12, scale=2.0), rand(2, keys, 12, seed=1, scale=2.0)
    check(
        stage, lambda m: make_heads(m, heads_weights(theirs), 12, 3)(x, context), theirs(x, context).detach(),
        f"MultiHeadAttention(12, 3)(x, context) with 5 tokens in x and {keys} in the context",
        hint="queries from x, keys and values both from the context.", inputs={"x": x, "context": context},
    )


@multi_head
def test_a_context_of_another_width(stage):
    theirs = reference.multi_head_attention(12, 3, 10)
    x, context = rand(2, 5, 12, scale=2.0), rand(2, 7, 10, seed=1, scale=2.0)
    check(
        stage, lambda m: make_heads(m, heads_weights(theirs), 12, 3, context_channels=10)(x, context=context),
        theirs(x, context).detach(),
        "MultiHeadAttention(12, 3, context_channels=10)(x, context)",
        hint="to_k and to_v take context_channels and give channels.", inputs={"x": x, "context": context},
    )


@multi_head
def test_qkv_bias(stage):
    theirs = reference.multi_head_attention(12, 3, bias=True)
    x = rand(2, 5, 12, scale=2.0)
    check(
        stage, lambda m: make_heads(m, heads_weights(theirs), 12, 3, qkv_bias=True)(x), theirs(x).detach(),
        "MultiHeadAttention(12, 3, qkv_bias=True)(x)", hint="are the biases of to_q, to_k and to_v all used?",
        inputs={"x": x},
    )


@multi_head
def test_with_a_causal_mask_the_first_token_sees_only_itself(stage):
    weights = heads_weights(reference.multi_head_attention(12, 3))
    x, mask = rand(2, 5, 12, scale=2.0), causal(5)
    value = linear(x[:, 0], weights["to_v.weight"])
    check(
        stage, lambda m: make_heads(m, weights, 12, 3)(x, mask=mask)[:, 0],
        linear(value, weights["to_out.weight"], weights["to_out.bias"]),
        "MultiHeadAttention(12, 3)(x, mask=causal_mask)[:, 0]", hint="is the mask passed on to the attention?",
        inputs={"x": x, "mask": mask},
    )


@multi_head
@pytest.mark.parametrize("keys", [5, 7], ids=["self", "cross"])
def test_the_mask_is_the_same_for_all_heads(stage, keys):
    theirs = reference.multi_head_attention(12, 3)
    x, mask = rand(2, 5, 12, scale=2.0), rand(5, keys, seed=2)
    context = None if keys == 5 else rand(2, keys, 12, seed=1)
    check(
        stage, lambda m: make_heads(m, heads_weights(theirs), 12, 3)(x, context, mask),
        theirs(x, context, attention_mask=mask.expand(2, 5, keys)).detach(),
        f"MultiHeadAttention(12, 3)(x, context, mask) with a mask of shape (5, {keys}): (queries, keys)",
        hint="the same mask is added to the scores of every head and every sample.",
        inputs={"x": x, "mask": mask} | ({} if context is None else {"context": context}),
    )


@multi_head
def test_multi_head_not_contiguous(stage):
    theirs = reference.multi_head_attention(12, 3, 10)
    x, context = rand(2, 12, 5).transpose(1, 2), rand(7, 2, 10, seed=1).transpose(0, 1)
    check(
        stage, lambda m: make_heads(m, heads_weights(theirs), 12, 3, 10)(x, context), theirs(x, context).detach(),
        "MultiHeadAttention(12, 3, 10)(x, context) with transposed views", hint=VIEW,
        inputs={"x": x, "context": context},
    )


@multi_head
@either_dtype
def test_multi_head_keeps_the_dtype(stage, dtype):
    theirs = reference.multi_head_attention(12, 3)
    x = rand(2, 5, 12)
    check(
        stage, lambda m: make_heads(m, heads_weights(theirs), 12, 3).to(dtype)(x.to(dtype)),
        theirs(x).detach().to(dtype), f"MultiHeadAttention(12, 3)(x) in {dtype}",
        tolerance=10 * torch.finfo(dtype).eps, hint=DTYPE,  # weights, inputs and each layer's result are rounded
    )


@multi_head
@pytest.mark.parametrize("bias", [False, True], ids=["no qkv_bias", "qkv_bias"])
@pytest.mark.parametrize("context_channels", [None, 10], ids=["self", "cross"])
def test_multi_head_gradients(stage, context_channels, bias):
    theirs = reference.multi_head_attention(12, 3, context_channels, bias)
    inputs = rand(2, 5, 12), None if context_channels is None else rand(2, 7, 10, seed=1)
    check(
        stage,
        lambda m: results_and_gradients(
            make_heads(m, heads_weights(theirs), 12, 3, context_channels, bias), *inputs
        ),
        results_and_gradients(theirs, *inputs, names=reference.our_names(theirs, renaming.ATTENTION)),
        f"{call_of('MultiHeadAttention', 12, 3, context_channels, bias)} and its gradients", hint=CUT,
    )


@multi_head
@given(
    st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.none() | st.integers(1, 9),
    st.integers(1, 6), st.integers(0, 2**31),
)
def test_self_and_cross_attention_of_any_shape(stage, batch, tokens, heads, width, context_channels, keys, seed):
    channels = heads * width
    theirs = reference.multi_head_attention(channels, heads, context_channels, seed=seed)
    x = rand(batch, tokens, channels, seed=seed)
    context = None if context_channels is None else rand(batch, keys, context_channels, seed=seed + 1)
    order = torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))
    check(
        stage,
        lambda m: make_heads(m, heads_weights(theirs), channels, heads, context_channels)(x[:, order], context),
        theirs(x, context).detach()[:, order],
        f"{call_of('MultiHeadAttention', channels, heads, context_channels)}(x, context) with {tokens} tokens in x, "
        f"{tokens if context is None else keys} in the context",
    )


# --- attention between pixels ----------------------------------------------------------------------------------------


def make_pixels(module, theirs, *args, **kwargs):
    weights = reference.our_weights(theirs, renaming.PIXEL_ATTENTION)
    return give_weights(module.PixelAttention(*args, **kwargs), weights, call_of("PixelAttention", *args, **kwargs))


@pixels
def test_pixel_attention_parameters(stage):
    theirs = reference.pixel_attention(12)
    check(
        stage, lambda m: shapes(dict(make_pixels(m, theirs, 12, num_groups=4).named_parameters())),
        shapes(reference.our_weights(theirs, renaming.PIXEL_ATTENTION)),
        "the parameters of PixelAttention(12, num_groups=4)",
    )


@pixels
def test_pixel_attention_of_zero_leaves_the_picture(stage):
    theirs = without(reference.pixel_attention(12), "to_out.0")
    x = rand(2, 12, 3, 5, scale=2.0, shift=1.0)
    check(
        stage, lambda m: make_pixels(m, theirs, 12, num_groups=4)(x), x,
        "PixelAttention(12, num_groups=4)(x) with to_out at zero",
        hint="the result is added to x itself, not to the normalised x.", inputs={"x": x},
    )


@pixels
def test_a_picture_of_one_pixel(stage):
    theirs = reference.pixel_attention(12)
    x = rand(2, 12, 1, 1, scale=2.0, shift=1.0)
    check(
        stage, lambda m: make_pixels(m, theirs, 12, num_groups=4)(x), theirs(x).detach(),
        "PixelAttention(12, num_groups=4)(x) with a picture of a single pixel",
        hint="x + attention(norm(x)): is the normalised picture what attention gets?", inputs={"x": x}, tolerance=ROUGH,
    )


@pixels
@pytest.mark.parametrize("size", [(3, 5), (6, 2), (3, 4)], ids=str)
def test_pixels_become_tokens_and_pixels_again(stage, size):
    """The last size has as many pixels as there are channels, so that tokens and channels can be mistaken."""
    theirs = reference.pixel_attention(12)
    x = rand(2, 12, *size, scale=2.0, shift=1.0)
    check(
        stage, lambda m: make_pixels(m, theirs, 12, num_groups=4)(x), theirs(x).detach(),
        f"PixelAttention(12, num_groups=4)(x) with x of shape {tuple(x.shape)}",
        hint="a token is one pixel with all its channels, (batch, height * width, channels); there is one head. "
        "image_to_tokens and tokens_to_image do it.",
        inputs={"x": x}, tolerance=ROUGH,
    )


@pixels
@pytest.mark.parametrize("eps", [None, 1e-5], ids=["default eps", "eps=1e-5"])
def test_eps_of_pixel_attention(stage, eps):
    kwargs = {} if eps is None else {"eps": eps}
    theirs = reference.pixel_attention(12, **kwargs)
    x = rand(2, 12, 3, 5, scale=0.003)
    check(
        stage, lambda m: make_pixels(m, theirs, 12, num_groups=4, **kwargs)(x), theirs(x).detach(),
        f"{call_of('PixelAttention', 12, num_groups=4, **kwargs)}(x) with a nearly flat x",
        hint="eps goes to the norm; its default is 1e-6 here, not GroupNorm's.", inputs={"x": x},
    )


@pixels
def test_num_groups_of_pixel_attention_is_32_if_not_given(stage):
    theirs = reference.pixel_attention(64, groups=32)
    x = rand(2, 64, 2, 3)
    check(
        stage, lambda m: make_pixels(m, theirs, 64)(x), theirs(x).detach(), "PixelAttention(64)(x)",
        hint="the norm has num_groups groups, 32 by default.", inputs={"x": x},
    )


@pixels
def test_pixel_attention_not_contiguous(stage):
    theirs = reference.pixel_attention(12)
    x = rand(2, 5, 3, 12).permute(0, 3, 2, 1)
    check(
        stage, lambda m: make_pixels(m, theirs, 12, num_groups=4)(x), theirs(x.contiguous()).detach(),
        "PixelAttention(12, num_groups=4)(x) with x a permuted view", hint=VIEW, inputs={"x": x},
    )


@pixels
@either_dtype
def test_pixel_attention_keeps_the_dtype(stage, dtype):
    theirs = reference.pixel_attention(12)
    x = rand(2, 12, 3, 5)
    check(
        stage, lambda m: make_pixels(m, theirs, 12, num_groups=4).to(dtype)(x.to(dtype)),
        theirs(x).detach().to(dtype), f"PixelAttention(12, num_groups=4)(x) in {dtype}",
        tolerance=10 * torch.finfo(dtype).eps, hint=DTYPE,  # weights, inputs and each layer's result are rounded
    )


@pixels
def test_pixel_attention_gradients(stage):
    theirs = reference.pixel_attention(12)
    x = rand(2, 12, 3, 5)
    check(
        stage, lambda m: results_and_gradients(make_pixels(m, theirs, 12, num_groups=4), x),
        results_and_gradients(theirs, x, names=reference.our_names(theirs, renaming.PIXEL_ATTENTION)),
        "PixelAttention(12, num_groups=4) and its gradients", hint=CUT,
    )


# --- the feed-forward layer ------------------------------------------------------------------------------------------


def make_geglu(module, weights, *args):
    return give_weights(module.GEGLU(*args), weights, call_of("GEGLU", *args))


@gated
def test_geglu_parameters(stage):
    weights = reference.our_weights(reference.geglu(6, 10))
    check(
        stage, lambda m: shapes(dict(make_geglu(m, weights, 6, 10).named_parameters())),
        {"proj.weight": (20, 6), "proj.bias": (20,)}, "the parameters of GEGLU(6, 10)",
    )


@gated
def test_the_second_half_is_the_gate(stage):
    weights = reference.our_weights(reference.geglu(6, 10))
    weights["proj.weight"][10:] = 0.0
    weights["proj.bias"][10:] = 20.0
    x = rand(2, 3, 6)
    check(
        stage, lambda m: make_geglu(m, weights, 6, 10)(x),
        20.0 * linear(x, weights["proj.weight"][:10], weights["proj.bias"][:10]),
        "GEGLU(6, 10)(x) with 20 in the second half of proj(x), where gelu(20) = 20",
        hint="the first half of the features is the value, the second half is the gate that gelu acts on.",
        inputs={"x": x},
    )


@gated
def test_the_gate_is_the_exact_gelu(stage):
    weights = {
        "proj.weight": torch.tensor([[0.0], [1.0]], dtype=torch.float64),
        "proj.bias": torch.tensor([1.0, 0.0], dtype=torch.float64),
    }
    x = torch.tensor([[-3.0], [-1.0], [0.0], [0.5], [1.0], [2.0]], dtype=torch.float64)
    check(
        stage, lambda m: make_geglu(m, weights, 1, 1)(x),
        torch.tensor([[z * (1 + math.erf(z / math.sqrt(2))) / 2] for z in x.flatten().tolist()], dtype=torch.float64),
        "GEGLU(1, 1)(x) with value 1 and gate x, so that it is gelu(x), for x = -3 ... 2",
        hint="is it the exact GELU? The tanh and the sigmoid formulas are approximations.", inputs={"x": x},
    )


@gated
@pytest.mark.parametrize("shape", [(6,), (2, 6), (2, 3, 6), (2, 3, 4, 6)], ids=str)
def test_geglu_values(stage, shape):
    theirs = reference.geglu(6, 10)
    x = rand(*shape, scale=2.0)
    check(
        stage, lambda m: make_geglu(m, reference.our_weights(theirs), 6, 10)(x), theirs(x).detach(),
        f"GEGLU(6, 10)(x) with x of shape {shape}", hint="cut the last dimension into halves: value * gelu(gate).",
        inputs={"x": x},
    )


@gated
@either_dtype
def test_geglu_keeps_the_dtype(stage, dtype):
    theirs = reference.geglu(6, 10)
    x = rand(2, 3, 6)
    check(
        stage, lambda m: make_geglu(m, reference.our_weights(theirs), 6, 10).to(dtype)(x.to(dtype)),
        theirs(x).detach().to(dtype), f"GEGLU(6, 10)(x) in {dtype}",
        tolerance=10 * torch.finfo(dtype).eps, hint=DTYPE,  # weights, inputs and each step's result are rounded
    )


@gated
def test_geglu_gradients(stage):
    theirs = reference.geglu(6, 10)
    x = rand(2, 3, 6)
    check(
        stage, lambda m: results_and_gradients(make_geglu(m, reference.our_weights(theirs), 6, 10), x),
        results_and_gradients(theirs, x), "GEGLU(6, 10) and its gradients", hint=CUT,
    )


@gated
@pytest.mark.parametrize("args", [(6,), (6, 3)], ids=["default multiplier", "multiplier 3"])
def test_feed_forward(stage, args):
    theirs = reference.feed_forward(*args)
    weights = reference.our_weights(theirs, renaming.FEED_FORWARD)
    x = rand(2, 3, 6, scale=2.0)
    call = call_of("FeedForward", *args)
    check(
        stage, lambda m: give_weights(m.FeedForward(*args), weights, call)(x), theirs(x).detach(), f"{call}(x)",
        hint="FeedForward is given: out(geglu(x)).", inputs={"x": x},
    )


# --- the transformer block -------------------------------------------------------------------------------------------

SUBLAYERS = {"self-attention": "attn1.to_out.0", "cross-attention": "attn2.to_out.0", "feed-forward": "ff.net.2"}
NORMS = {"self-attention": "norm1", "cross-attention": "norm2", "feed-forward": "norm3"}
each_sublayer = pytest.mark.parametrize("sublayer", SUBLAYERS)


def make_transformer(module, theirs, *args):
    weights = reference.our_weights(theirs, renaming.TRANSFORMER_BLOCK)
    return give_weights(module.TransformerBlock(*args), weights, call_of("TransformerBlock", *args))


def only(theirs, sublayer):
    """The reference with the other two sublayers silenced: the last layer of each is zero."""
    return without(theirs, *(last for name, last in SUBLAYERS.items() if name != sublayer))


@transformer
def test_transformer_block_parameters(stage):
    theirs = reference.transformer_block(12, 3, 10)
    check(
        stage, lambda m: shapes(dict(make_transformer(m, theirs, 12, 3, 10).named_parameters())),
        shapes(reference.our_weights(theirs, renaming.TRANSFORMER_BLOCK)),
        "the parameters of TransformerBlock(12, 3, 10)",
    )


@transformer
def test_three_corrections_of_zero_leave_the_tokens(stage):
    theirs = without(reference.transformer_block(12, 3, 10), *SUBLAYERS.values())
    x, context = rand(2, 5, 12, scale=2.0, shift=1.0), rand(2, 7, 10, seed=1)
    check(
        stage, lambda m: make_transformer(m, theirs, 12, 3, 10)(x, context), x,
        "TransformerBlock(12, 3, 10)(x, context) with the last layer of all three sublayers at zero",
        hint="each line adds to x itself, not to the normalised x.", inputs={"x": x, "context": context},
    )


@transformer
@each_sublayer
def test_one_sublayer_alone(stage, sublayer):
    theirs = only(reference.transformer_block(12, 3, 10), sublayer)
    x, context = rand(2, 5, 12, scale=2.0, shift=1.0), rand(2, 7, 10, seed=1)
    norm = NORMS[sublayer]
    check(
        stage, lambda m: make_transformer(m, theirs, 12, 3, 10)(x, context), theirs(x, None, context).detach(),
        f"TransformerBlock(12, 3, 10)(x, context) with only the {sublayer} not silenced",
        hint=f"{norm} comes first, then the {sublayer}, then x is added."
        + {"cross-attention": " The context is not normalised.", "self-attention": " It does not see the context."}.get(
            sublayer, ""
        ),
        inputs={"x": x, "context": context}, tolerance=ROUGH,
    )


@transformer
def test_the_words_come_from_the_context(stage):
    theirs = only(reference.transformer_block(12, 3, 12), "cross-attention")
    x, context = rand(2, 5, 12), rand(2, 7, 12, seed=1)
    check(
        stage, lambda m: make_transformer(m, theirs, 12, 3, 12)(x, context), theirs(x, None, context).detach(),
        "TransformerBlock(12, 3, 12)(x, context) with only the cross-attention not silenced",
        hint="is the context passed to cross_attention?", inputs={"x": x, "context": context}, tolerance=ROUGH,
    )


@transformer
@each_sublayer
def test_eps_of_the_layer_norms(stage, sublayer):
    theirs = only(reference.transformer_block(12, 3, 10), sublayer)
    x, context = rand(2, 5, 12, scale=0.003), rand(2, 7, 10, seed=1)
    check(
        stage, lambda m: make_transformer(m, theirs, 12, 3, 10)(x, context), theirs(x, None, context).detach(),
        f"TransformerBlock(12, 3, 10)(x, context) with a nearly flat x and only the {sublayer} not silenced",
        hint=f"the eps of {NORMS[sublayer]} is that of nn.LayerNorm, 1e-5.", inputs={"x": x, "context": context},
    )


@transformer
@pytest.mark.parametrize("args", [(12, 3, 10), (12, 2, 12), (8, 1, 10), (8, 8, 6)], ids=str)
def test_transformer_block_values(stage, args):
    channels, _, context_channels = args
    theirs = reference.transformer_block(*args)
    x, context = rand(2, 5, channels, scale=2.0), rand(2, 7, context_channels, seed=1)
    check(
        stage, lambda m: make_transformer(m, theirs, *args)(x, context), theirs(x, None, context).detach(),
        f"{call_of('TransformerBlock', *args)}(x, context)",
        hint="the picture first, then the prompt, then the feed-forward layer, each on the result of the one before.",
        inputs={"x": x, "context": context},
    )


@transformer
def test_transformer_block_not_contiguous(stage):
    theirs = reference.transformer_block(12, 3, 10)
    x, context = rand(2, 12, 5).transpose(1, 2), rand(7, 2, 10, seed=1).transpose(0, 1)
    check(
        stage, lambda m: make_transformer(m, theirs, 12, 3, 10)(x, context), theirs(x, None, context).detach(),
        "TransformerBlock(12, 3, 10)(x, context) with transposed views", hint=VIEW, inputs={"x": x, "context": context},
    )


@transformer
@either_dtype
def test_transformer_block_keeps_the_dtype(stage, dtype):
    theirs = reference.transformer_block(12, 3, 10)
    x, context = rand(2, 5, 12), rand(2, 7, 10, seed=1)
    check(
        stage, lambda m: make_transformer(m, theirs, 12, 3, 10).to(dtype)(x.to(dtype), context.to(dtype)),
        theirs(x, None, context).detach().to(dtype), f"TransformerBlock(12, 3, 10)(x, context) in {dtype}",
        tolerance=10 * torch.finfo(dtype).eps, hint=DTYPE,  # weights, inputs and each layer's result are rounded
    )


class InOurOrder(torch.nn.Module):
    """diffusers' transformer block, called as ours is: (x, context)."""

    def __init__(self, theirs):
        super().__init__()
        self.theirs = theirs

    def forward(self, x, context):
        return self.theirs(x, encoder_hidden_states=context)

    def names(self, rules):
        return {f"theirs.{name}": own for name, own in reference.our_names(self.theirs, rules).items()}


@transformer
def test_transformer_block_gradients(stage):
    theirs = InOurOrder(reference.transformer_block(12, 3, 10))
    inputs = rand(2, 5, 12), rand(2, 7, 10, seed=1)
    check(
        stage, lambda m: results_and_gradients(make_transformer(m, theirs.theirs, 12, 3, 10), *inputs),
        results_and_gradients(theirs, *inputs, names=theirs.names(renaming.TRANSFORMER_BLOCK)),
        "TransformerBlock(12, 3, 10) and its gradients", hint=CUT,
    )


# --- the transformer for pictures ------------------------------------------------------------------------------------


def make_spatial(module, theirs, *args, **kwargs):
    weights = reference.our_weights(theirs, renaming.SPATIAL_TRANSFORMER)
    call = call_of("SpatialTransformer", *args, **kwargs)
    return give_weights(module.SpatialTransformer(*args, **kwargs), weights, call)


def expected_spatial(theirs, x, context):
    return theirs(x, encoder_hidden_states=context).sample.detach()


@spatial
def test_spatial_transformer_parameters(stage):
    theirs = reference.spatial_transformer(12, 3, 10)
    check(
        stage, lambda m: shapes(dict(make_spatial(m, theirs, 12, 3, 10, num_groups=4).named_parameters())),
        shapes(reference.our_weights(theirs, renaming.SPATIAL_TRANSFORMER)),
        "the parameters of SpatialTransformer(12, 3, 10, num_groups=4)",
    )


@spatial
def test_a_spatial_transformer_of_zero_leaves_the_picture(stage):
    theirs = without(reference.spatial_transformer(12, 3, 10), "proj_out")
    x, context = rand(2, 12, 3, 5, scale=2.0, shift=1.0), rand(2, 7, 10, seed=1)
    check(
        stage, lambda m: make_spatial(m, theirs, 12, 3, 10, num_groups=4)(x, context), x,
        "SpatialTransformer(12, 3, 10, num_groups=4)(x, context) with proj_out at zero",
        hint="the result is added to x itself: not left out, not after the norm.", inputs={"x": x, "context": context},
    )


@spatial
def test_with_a_silenced_block_in_and_out_remain(stage):
    theirs = without(
        reference.spatial_transformer(12, 3, 10), *(f"transformer_blocks.0.{last}" for last in SUBLAYERS.values())
    )
    x, context = rand(2, 12, 3, 5, scale=2.0, shift=1.0), rand(2, 7, 10, seed=1)
    check(
        stage, lambda m: make_spatial(m, theirs, 12, 3, 10, num_groups=4)(x, context),
        expected_spatial(theirs, x, context),
        "SpatialTransformer(12, 3, 10, num_groups=4)(x, context) with a block that changes nothing",
        hint="x + proj_out(proj_in(norm(x))) remains. Do pixels come back to their place?",
        inputs={"x": x, "context": context}, tolerance=ROUGH,
    )


@spatial
@pytest.mark.parametrize("size", [(3, 5), (6, 2), (1, 1), (3, 4)], ids=str)
def test_spatial_transformer_values(stage, size):
    theirs = reference.spatial_transformer(12, 3, 10)
    x, context = rand(2, 12, *size, scale=2.0, shift=1.0), rand(2, 7, 10, seed=1)
    check(
        stage, lambda m: make_spatial(m, theirs, 12, 3, 10, num_groups=4)(x, context),
        expected_spatial(theirs, x, context),
        f"SpatialTransformer(12, 3, 10, num_groups=4)(x, context) with x of shape {tuple(x.shape)}",
        hint="inside, a token is one pixel with all its channels; the block gets the tokens and the context.",
        inputs={"x": x, "context": context}, tolerance=ROUGH,
    )


@spatial
@pytest.mark.parametrize("heads", [1, 2, 6])
def test_heads_of_the_spatial_transformer(stage, heads):
    theirs = reference.spatial_transformer(12, heads, 10)
    x, context = rand(2, 12, 3, 5, scale=2.0), rand(2, 7, 10, seed=1)
    check(
        stage, lambda m: make_spatial(m, theirs, 12, heads, 10, num_groups=4)(x, context),
        expected_spatial(theirs, x, context), f"SpatialTransformer(12, {heads}, 10, num_groups=4)(x, context)",
        hint="is num_heads passed on to the block?", inputs={"x": x, "context": context}, tolerance=ROUGH,
    )


@spatial
def test_eps_of_the_spatial_transformer(stage):
    theirs = reference.spatial_transformer(12, 3, 10)
    x, context = rand(2, 12, 3, 5, scale=0.003), rand(2, 7, 10, seed=1)
    check(
        stage, lambda m: make_spatial(m, theirs, 12, 3, 10, num_groups=4)(x, context),
        expected_spatial(theirs, x, context),
        "SpatialTransformer(12, 3, 10, num_groups=4)(x, context) with a nearly flat x",
        hint="this group norm has eps=1e-6, also in the U-Net.", inputs={"x": x, "context": context},
    )


@spatial
def test_num_groups_of_the_spatial_transformer_is_32_if_not_given(stage):
    theirs = reference.spatial_transformer(64, 2, 10, groups=32)
    x, context = rand(2, 64, 2, 3), rand(2, 7, 10, seed=1)
    check(
        stage, lambda m: make_spatial(m, theirs, 64, 2, 10)(x, context),
        expected_spatial(theirs, x, context),
        "SpatialTransformer(64, 2, 10)(x, context)", hint="the norm has num_groups groups, 32 by default.",
        inputs={"x": x, "context": context},
    )


@spatial
def test_spatial_transformer_not_contiguous(stage):
    theirs = reference.spatial_transformer(12, 3, 10)
    x, context = rand(2, 5, 3, 12).permute(0, 3, 2, 1), rand(7, 2, 10, seed=1).transpose(0, 1)
    check(
        stage, lambda m: make_spatial(m, theirs, 12, 3, 10, num_groups=4)(x, context),
        expected_spatial(theirs, x, context),
        "SpatialTransformer(12, 3, 10, num_groups=4)(x, context) with permuted views", hint=VIEW,
        inputs={"x": x, "context": context},
    )


@spatial
@either_dtype
def test_spatial_transformer_keeps_the_dtype(stage, dtype):
    theirs = reference.spatial_transformer(12, 3, 10)
    x, context = rand(2, 12, 3, 5), rand(2, 7, 10, seed=1)
    check(
        stage, lambda m: make_spatial(m, theirs, 12, 3, 10, num_groups=4).to(dtype)(x.to(dtype), context.to(dtype)),
        expected_spatial(theirs, x, context).to(dtype),
        f"SpatialTransformer(12, 3, 10, num_groups=4)(x, context) in {dtype}",
        tolerance=10 * torch.finfo(dtype).eps, hint=DTYPE,  # weights, inputs and each layer's result are rounded
    )


@spatial
def test_spatial_transformer_gradients(stage):
    theirs = reference.spatial_transformer(12, 3, 10)
    inputs = rand(2, 12, 3, 5), rand(2, 7, 10, seed=1)
    check(
        stage, lambda m: results_and_gradients(make_spatial(m, theirs, 12, 3, 10, num_groups=4), *inputs),
        results_and_gradients(theirs, *inputs, names=reference.our_names(theirs, renaming.SPATIAL_TRANSFORMER)),
        "SpatialTransformer(12, 3, 10, num_groups=4) and its gradients", hint=CUT,
    )


@spatial
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 5),
    st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31),
)
def test_spatial_transformer_of_any_shape(stage, batch, heads, groups, context_channels, words, height, width, seed):
    channels = 2 * heads * groups
    theirs = reference.spatial_transformer(channels, heads, context_channels, groups=groups, seed=seed)
    x = rand(batch, channels, height, width, seed=seed, scale=2.0)
    context = rand(batch, words, context_channels, seed=seed + 1)
    args = channels, heads, context_channels, groups
    check(
        stage, lambda m: make_spatial(m, theirs, *args)(x, context),
        expected_spatial(theirs, x, context),
        f"{call_of('SpatialTransformer', *args)}(x, context) with x of shape {tuple(x.shape)} and {words} words",
        tolerance=1e-9,  # small pictures can be nearly flat, which magnifies rounding
    )
