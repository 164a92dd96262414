"""Stage 3 against torch's attention and the attention blocks of diffusers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers, none

from course.feedback.compare import TOLERANCE, check, rand
from course.feedback.renaming import our_weights
from tests.stages.blocks import check_default_dtype, check_function, make_block, without
from tests.stages.counterparts import (
    check_counterpart,
    check_counterpart_in_turn,
    check_dtype,
    check_parameters,
    counterpart,
    rules_of,
)
from tests.stages.drawing import check_drawing, each_drawing
from tests.stages.in_turn import check_function_in_turn, each_way
from tests.stages.pretended import check_block_on_gpu, check_call_on_gpu

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


def causal(length):
    """0 on and below the diagonal, -inf above it."""
    return torch.full((length, length), -math.inf, dtype=torch.float64).triu(1)


def tensors(shapes, contiguous=True):
    """Random tensors of these shapes by name; not contiguous: laid out in memory with their dimensions reversed."""

    def tensor(shape, seed):
        reversed_dims = range(len(shape))[::-1]
        return rand(*shape, seed=seed) if contiguous else rand(*shape[::-1], seed=seed).permute(*reversed_dims)

    return {name: tensor(shape, seed) for seed, (name, shape) in enumerate(shapes.items())}


# --- scaled dot-product attention ------------------------------------------------------------------------------------

ATTENTION = "scaled_dot_product_attention(query, key, value)"
MASKED = "scaled_dot_product_attention(query, key, value, mask)"


def vectors(*leading, queries=3, keys=6, width=8, value_width=5, scale=1.0, seed=0):
    return {
        "query": rand(*leading, queries, width, seed=seed, scale=scale),
        "key": rand(*leading, keys, width, seed=seed + 1, scale=scale),
        "value": rand(*leading, keys, value_width, seed=seed + 2),
    }


@sdpa
def test_a_single_key_gets_all_attention(stage):
    check_function(
        stage, ATTENTION, about="with a single key", **vectors(2, keys=1),
        hint="a softmax over one number is 1, so each query gets that value. Does the softmax run over the keys?",
    )


@sdpa
def test_the_weights_of_a_query_sum_to_one(stage):
    check_function(
        stage, ATTENTION, about="with all values equal to 1",
        **vectors(2, keys=7) | {"value": torch.ones(2, 7, 5, dtype=torch.float64)},
        hint="does the softmax run over the keys, so that the weights of each query sum to 1?",
    )


@sdpa
def test_a_quarter_and_three_quarters(stage):
    query, key = torch.zeros(1, 1, 16, dtype=torch.float64), torch.zeros(1, 2, 16, dtype=torch.float64)
    query[..., 0], key[0, 1, 0] = 4.0, math.log(3)
    value = torch.tensor([[[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]]], dtype=torch.float64)
    check(
        stage, ATTENTION, torch.tensor([[[0.25, 0.75, 5.0]]], dtype=torch.float64),
        f"{ATTENTION}, d = 16, with q.k = 0 and q.k = 4 log 3", query=query, key=key, value=value,
        hint="the scores are q.k / sqrt(d), here 0 and log 3; their softmax is 1/4 and 3/4. Is it scaled, and once?",
    )


@sdpa
@pytest.mark.parametrize("width", [1, 4, 5, 9])
def test_the_scale_follows_the_width_of_the_query(stage, width):
    check_function(
        stage, ATTENTION, about=f"with queries of width d = {width} and values of width 7",
        **vectors(2, width=width, value_width=7),
        hint="d is the length of one query: the last dimension, not the number of queries or keys.",
    )


@sdpa
@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (2, 1, 3)], ids=str)
def test_any_leading_dimensions(stage, leading):
    check_function(
        stage, ATTENTION, about=f"with a query of shape {(*leading, 4, 8)}", **vectors(*leading, queries=4),
        hint="the last two dimensions are tokens and features; there may be none or several before them.",
    )


@sdpa
@pytest.mark.parametrize("factor", [1.0, 1e12], ids=["", "with a large score"])
def test_a_key_masked_with_minus_infinity_is_not_there(stage, factor):
    inputs, mask, seen = vectors(2, keys=5), torch.zeros(3, 5, dtype=torch.float64), [0, 1, 3, 4]
    mask[:, 2] = -math.inf
    inputs["key"][:, 2] *= factor
    query, key, value = inputs.values()
    check(
        stage, MASKED, torch.nn.functional.scaled_dot_product_attention(query, key[:, seen], value[:, seen]),
        f"{MASKED} with -inf for the third of five keys{'' if factor == 1.0 else ', which is very large'}",
        **inputs, mask=mask,
        hint="add the mask before the softmax: exp(-inf) is 0, and the other weights still sum to 1."
        if factor == 1.0 else "-inf outweighs any score; a finite number in its place does not.",
    )


@sdpa
def test_a_causal_mask_leaves_the_first_query_its_own_value(stage):
    check_function(
        stage, f"{MASKED}[:, 0]", about="with a causal mask", **vectors(2, queries=5, keys=5), mask=causal(5),
        hint="rows of the mask are queries, columns are keys: the first query sees the first key only.",
    )


@sdpa
@pytest.mark.parametrize("shape", [(4, 6), (2, 1, 1, 6), (3, 1, 6), (2, 3, 4, 6), (4, 1)], ids=str)
def test_the_mask_is_added_to_the_scaled_scores(stage, shape):
    inputs, mask = vectors(2, 3, queries=4), rand(*shape, seed=3)
    check(
        stage, "scaled_dot_product_attention(query, key, value, mask=mask)",
        torch.nn.functional.scaled_dot_product_attention(*inputs.values(), attn_mask=mask.expand(2, 3, 4, 6)),
        f"{MASKED} with a mask of ordinary numbers, of shape {shape}", **inputs, mask=mask,
        hint="softmax(q.k / sqrt(d) + mask): the mask itself is not scaled, and broadcasts by itself.",
    )


@sdpa
def test_large_scores(stage):
    check_function(
        stage, ATTENTION, about="with scores in the thousands", **vectors(2, scale=100.0),
        hint="exp(1000) is inf. A softmax subtracts the maximum first; torch.softmax does.",
    )


@sdpa
def test_half_precision_does_not_overflow(stage):
    value = rand(2, 4, 5, dtype=torch.float16)
    check(
        stage, ATTENTION, value.double().mean(1, keepdim=True).expand(2, 3, 5).half(),
        f"{ATTENTION} in float16, with equal keys and q.k = 131072",
        query=torch.full((2, 3, 64), 64.0, dtype=torch.float16),
        key=torch.full((2, 4, 64), 32.0, dtype=torch.float16), value=value,
        tolerance=2e-3,  # two units in the last place
        hint="float16 ends at 65504: divide the query by sqrt(d) before the product, not the scores after it.",
    )


@sdpa
@either_dtype
def test_attention_keeps_the_dtype(stage, dtype):
    inputs = vectors(2) | {"mask": rand(3, 6, seed=3)}
    check(
        stage, MASKED, torch.nn.functional.scaled_dot_product_attention(*inputs.values()).to(dtype),
        f"{MASKED} in {dtype}", **{name: tensor.to(dtype) for name, tensor in inputs.items()},
        tolerance=10 * torch.finfo(dtype).eps, hint=DTYPE,  # inputs, scores, weights and result are rounded
    )


@sdpa
def test_attention_not_contiguous(stage):
    inputs = tensors({"query": (2, 3, 8), "key": (2, 6, 8), "value": (2, 6, 5)}, contiguous=False)
    check_function(stage, ATTENTION, about="with transposed views", **inputs, hint=VIEW)


@sdpa
def test_attention_gradients(stage):
    check_function(stage, MASKED, gradients=True, **vectors(2), mask=rand(3, 6, seed=3), hint=CUT)


@sdpa
@given(integers(1, 3), integers(1, 6), integers(1, 6), integers(1, 6), integers(1, 6), integers(0, 2**31))
def test_the_order_of_the_keys_does_not_matter(stage, batch, queries, keys, width, value_width, seed):
    inputs = vectors(batch, queries=queries, keys=keys, width=width, value_width=value_width, seed=seed)
    text = "scaled_dot_product_attention(query, key[:, order], value[:, order])"
    check(
        stage, text, torch.nn.functional.scaled_dot_product_attention(*inputs.values()),
        f"{text} with queries, keys and values of shapes {', '.join(str(tuple(x.shape)) for x in inputs.values())}",
        **inputs, order=torch.randperm(keys, generator=torch.Generator().manual_seed(seed)),
    )


# --- what all blocks have in common, first part ----------------------------------------------------------------------


def row(exercise, text, **shapes):
    return pytest.param(text, shapes, id=text, marks=pytest.mark.exercise(exercise))


each_block = pytest.mark.parametrize(
    ("text", "shapes"),
    [
        row("3.2", "MultiHeadAttention(12, 3)", x=(2, 5, 12)),
        row("3.2", "MultiHeadAttention(12, 3, context_channels=10)", x=(2, 5, 12), context=(2, 7, 10)),
        row("3.2", "MultiHeadAttention(12, 3, qkv_bias=True)", x=(2, 5, 12)),
        row("3.2", "MultiHeadAttention(12, 3, context_channels=10, qkv_bias=True)", x=(2, 5, 12), context=(2, 7, 10)),
        row("3.3", "PixelAttention(12, num_groups=4)", x=(2, 12, 3, 5)),
        row("3.4", "GEGLU(6, 10)", x=(2, 3, 6)),
        row("3.5", "TransformerBlock(12, 3, 10)", x=(2, 5, 12), context=(2, 7, 10)),
        row("3.6", "SpatialTransformer(12, 3, 10, num_groups=4)", x=(2, 12, 3, 5), context=(2, 7, 10)),
    ],
)


@each_block
def test_parameters(stage, text, shapes):
    check_parameters(stage, text)


# --- several heads ---------------------------------------------------------------------------------------------------


@multi_head
@pytest.mark.parametrize("bias", [False, True], ids=["no qkv_bias", "qkv_bias"])
@pytest.mark.parametrize("heads", [1, 3])
def test_one_token_passes_through_value_and_out(stage, heads, bias):
    check_counterpart(
        stage, f"MultiHeadAttention(12, {heads}, qkv_bias={bias})", about="with a single token", x=rand(2, 1, 12),
        hint="with one key, attention is 1: what remains is to_out(to_v(x)), its channels in their old order.",
    )


@multi_head
def test_without_questions_every_token_gets_the_mean(stage):
    check_counterpart(
        stage, "MultiHeadAttention(12, 3)", without(counterpart("MultiHeadAttention(12, 3)"), "to_q"),
        about="with to_q at zero, so that each query sees all keys alike", x=rand(2, 5, 12),
        hint="each token then gets the mean of the values. Cut the channels up into (heads, d), then swap tokens and "
        "heads; swap them back before joining the heads.",
    )


@multi_head
def test_one_head(stage):
    check_counterpart(
        stage, "MultiHeadAttention(12, num_heads=1)", x=rand(2, 5, 12, scale=2.0),
        hint="queries from to_q, keys from to_k, values from to_v; the scale is in the attention already. num_heads is "
        "the number of heads, not their width.",
    )


@multi_head
@pytest.mark.parametrize(("channels", "heads"), [(12, 3), (12, 2), (12, 12), (40, 8)])
def test_several_heads(stage, channels, heads):
    check_counterpart(
        stage, f"MultiHeadAttention({channels}, num_heads={heads})", x=rand(2, 5, channels, scale=2.0),
        hint=f"{heads} heads of {channels // heads} neighbouring channels each. Cut the channels up first, "
        "(heads, d), then transpose; each head is scaled by its own width d.",
    )


@multi_head
@pytest.mark.parametrize(
    ("arguments", "keys", "width", "hint"),
    [
        pytest.param("", 5, 12, "queries from x, keys and values both from the context.", id="as many as x"),
        pytest.param("", 7, 12, "queries from x, keys and values both from the context.", id="more than x"),
        pytest.param(
            ", context_channels=10", 7, 10, "to_k and to_v take context_channels and give channels.", id="another width"
        ),
    ],
)
def test_keys_and_values_come_from_the_context(stage, arguments, keys, width, hint):
    check_counterpart(
        stage, f"MultiHeadAttention(12, 3{arguments})", about=f"with 5 tokens in x and {keys} in the context",
        x=rand(2, 5, 12, scale=2.0), context=rand(2, keys, width, seed=1, scale=2.0), hint=hint,
    )


@multi_head
def test_qkv_bias(stage):
    x, hint = rand(2, 5, 12, scale=2.0), "are the biases of to_q, to_k and to_v all used?"
    check_counterpart(stage, "MultiHeadAttention(12, 3, qkv_bias=True)", x=x, hint=hint)


@multi_head
def test_with_a_causal_mask_the_first_token_sees_only_itself(stage):
    text, x, mask = "MultiHeadAttention(12, 3)", rand(2, 5, 12, scale=2.0), causal(5)
    theirs = counterpart(text)
    check(
        stage, lambda m: make_block(m, text, our_weights(theirs, rules_of(text)))(x, context=None, mask=mask)[:, 0],
        theirs(x[:, :1])[:, 0].detach(), f"{text}(x, mask=causal_mask)[:, 0]",
        hint="is the mask passed on to the attention?", inputs={"x": x, "mask": mask},
    )


@multi_head
@pytest.mark.parametrize("keys", [5, 7], ids=["self", "cross"])
def test_the_mask_is_the_same_for_all_heads(stage, keys):
    check_counterpart(
        stage, "MultiHeadAttention(12, 3)", about=f"with a mask of shape (5, {keys}): (queries, keys)",
        x=rand(2, 5, 12, scale=2.0), context=None if keys == 5 else rand(2, keys, 12, seed=1),
        mask=rand(5, keys, seed=2), hint="the same mask is added to the scores of every head and every sample.",
    )


@multi_head
@given(
    integers(1, 3), integers(1, 6), integers(1, 4), integers(1, 4), none() | integers(1, 9), integers(1, 6),
    integers(0, 2**31),
)
def test_self_and_cross_attention_of_any_shape(stage, batch, tokens, heads, width, context_channels, keys, seed):
    text = f"MultiHeadAttention({heads * width}, {heads}, {context_channels})"
    context = None if context_channels is None else rand(batch, keys, context_channels, seed=seed + 1)
    check_counterpart(
        stage, text, counterpart(text, seed), x=rand(batch, tokens, heads * width, seed=seed), context=context,
        about=f"with {tokens} tokens in x, {tokens if context is None else keys} in the context",
    )


# --- attention between pixels ----------------------------------------------------------------------------------------


@pixels
def test_pixel_attention_of_zero_leaves_the_picture(stage):
    text, x = "PixelAttention(12, num_groups=4)", rand(2, 12, 3, 5, scale=2.0, shift=1.0)
    check_counterpart(
        stage, text, without(counterpart(text), "to_out.0"), about="with to_out at zero", x=x,
        hint="x itself is left: the shortcut leads around the norm and around to_out.",
    )


@pixels
def test_a_picture_of_one_pixel(stage):
    check_counterpart(
        stage, "PixelAttention(12, num_groups=4)", about="with a picture of a single pixel",
        x=rand(2, 12, 1, 1, scale=2.0, shift=1.0), tolerance=ROUGH,
        hint="x + attention(norm(x)): is the normalised picture what attention gets?",
    )


@pixels
@pytest.mark.parametrize("size", [(3, 5), (6, 2), (3, 4)], ids=str)
def test_pixels_become_tokens_and_pixels_again(stage, size):
    """The last size has as many pixels as there are channels, so that tokens and channels can be mistaken."""
    check_counterpart(
        stage, "PixelAttention(12, num_groups=4)", about=f"with x of shape {(2, 12, *size)}",
        x=rand(2, 12, *size, scale=2.0, shift=1.0), tolerance=ROUGH,
        hint="a token is one pixel with all its channels, (batch, height * width, channels); there is one head. "
        "image_to_tokens and tokens_to_image do it.",
    )


@pixels
@pytest.mark.parametrize("eps", ["", ", eps=1e-5"], ids=["default eps", "eps=1e-5"])
def test_eps_of_pixel_attention(stage, eps):
    check_counterpart(
        stage, f"PixelAttention(12, num_groups=4{eps})", about="with a nearly flat x", x=rand(2, 12, 3, 5, scale=0.003),
        hint="eps goes to the norm; its default is 1e-6 here, not GroupNorm's.",
    )


# --- the feed-forward layer ------------------------------------------------------------------------------------------


@gated
def test_the_second_half_is_the_gate(stage):
    theirs = counterpart("GEGLU(6, 10)")
    theirs.proj.weight.detach()[10:] = 0.0
    theirs.proj.bias.detach()[10:] = 20.0
    check_counterpart(
        stage, "GEGLU(6, 10)", theirs, about="with 20 in the second half of proj(x), where gelu(20) = 20",
        x=rand(2, 3, 6),
        hint="the first half of the features is the value, the second half is the gate that gelu acts on.",
    )


@gated
def test_the_gate_is_the_exact_gelu(stage):
    weights = {
        "proj.weight": torch.tensor([[0.0], [1.0]], dtype=torch.float64),
        "proj.bias": torch.tensor([1.0, 0.0], dtype=torch.float64),
    }
    x = torch.tensor([[-3.0], [-1.0], [0.0], [0.5], [1.0], [2.0]], dtype=torch.float64)
    check(
        stage, lambda m: make_block(m, "GEGLU(1, 1)", weights)(x), x * (1 + torch.erf(x / math.sqrt(2))) / 2,
        "GEGLU(1, 1)(x) with value 1 and gate x, so that it is gelu(x), for x = -3 ... 2",
        hint="is it the exact GELU? The tanh and the sigmoid formulas are approximations.", inputs={"x": x},
    )


@gated
@pytest.mark.parametrize("shape", [(6,), (2, 6), (2, 3, 6), (2, 3, 4, 6)], ids=str)
def test_geglu_values(stage, shape):
    check_counterpart(
        stage, "GEGLU(6, 10)", about=f"with x of shape {shape}", x=rand(*shape, scale=2.0),
        hint="cut the last dimension into halves: value * gelu(gate).",
    )


@gated
@pytest.mark.parametrize("text", ["FeedForward(6)", "FeedForward(6, 3)"])
def test_feed_forward(stage, text):
    check_counterpart(stage, text, x=rand(2, 3, 6, scale=2.0), hint="FeedForward is given: out(geglu(x)).")


# --- the transformer block -------------------------------------------------------------------------------------------

SUBLAYERS = {"self-attention": "attn1.to_out.0", "cross-attention": "attn2.to_out.0", "feed-forward": "ff.net.2"}
NORMS = {"self-attention": "norm1", "cross-attention": "norm2", "feed-forward": "norm3"}
BLOCK = "TransformerBlock(12, 3, 10)"
each_sublayer = pytest.mark.parametrize("sublayer", SUBLAYERS)


def only(sublayer, text=BLOCK):
    """The counterpart with the other two sublayers silenced: the last layer of each is zero."""
    return without(counterpart(text), *(last for name, last in SUBLAYERS.items() if name != sublayer))


@transformer
def test_three_corrections_of_zero_leave_the_tokens(stage):
    check_counterpart(
        stage, BLOCK, only(None), about="with the last layer of all three sublayers at zero",
        x=rand(2, 5, 12, scale=2.0, shift=1.0), context=rand(2, 7, 10, seed=1),
        hint="each line adds to x itself, not to the normalised x.",
    )


@transformer
@each_sublayer
def test_one_sublayer_alone(stage, sublayer):
    of_the_context = {
        "cross-attention": " The context is not normalised.", "self-attention": " It does not see the context.",
    }
    check_counterpart(
        stage, BLOCK, only(sublayer), about=f"with only the {sublayer} not silenced", tolerance=ROUGH,
        x=rand(2, 5, 12, scale=2.0, shift=1.0), context=rand(2, 7, 10, seed=1),
        hint=f"{NORMS[sublayer]} comes first, then the {sublayer}, then x is added.{of_the_context.get(sublayer, '')}",
    )


@transformer
def test_the_words_come_from_the_context(stage):
    text = "TransformerBlock(12, 3, 12)"
    check_counterpart(
        stage, text, only("cross-attention", text), about="with only the cross-attention not silenced", tolerance=ROUGH,
        x=rand(2, 5, 12), context=rand(2, 7, 12, seed=1), hint="is the context passed to cross_attention?",
    )


@transformer
@each_sublayer
def test_eps_of_the_layer_norms(stage, sublayer):
    check_counterpart(
        stage, BLOCK, only(sublayer), about=f"with a nearly flat x and only the {sublayer} not silenced",
        x=rand(2, 5, 12, scale=0.003), context=rand(2, 7, 10, seed=1),
        hint=f"the eps of {NORMS[sublayer]} is that of nn.LayerNorm, 1e-5.",
    )


@transformer
@pytest.mark.parametrize(
    ("channels", "heads", "context_channels"), [(12, 3, 10), (12, 2, 12), (8, 1, 10), (8, 8, 6)], ids=str
)
def test_transformer_block_values(stage, channels, heads, context_channels):
    check_counterpart(
        stage, f"TransformerBlock({channels}, {heads}, {context_channels})",
        x=rand(2, 5, channels, scale=2.0), context=rand(2, 7, context_channels, seed=1),
        hint="the picture first, then the prompt, then the feed-forward layer, each on the result of the one before.",
    )


# --- the transformer for pictures ------------------------------------------------------------------------------------

SPATIAL = "SpatialTransformer(12, 3, 10, num_groups=4)"


@spatial
@pytest.mark.parametrize(
    ("silenced", "tolerance", "about", "hint"),
    [
        (
            ["proj_out"], TOLERANCE, "with proj_out at zero",
            "x itself is left: the shortcut leads around the norm, the block and proj_out.",
        ),
        (
            [f"transformer_blocks.0.{last}" for last in SUBLAYERS.values()], ROUGH, "with a block that changes nothing",
            "x + proj_out(proj_in(norm(x))) remains. Do pixels come back to their place?",
        ),
    ],
    ids=["proj_out", "block"],
)
def test_what_remains_without(stage, silenced, tolerance, about, hint):
    check_counterpart(
        stage, SPATIAL, without(counterpart(SPATIAL), *silenced), about=about, hint=hint, tolerance=tolerance,
        x=rand(2, 12, 3, 5, scale=2.0, shift=1.0), context=rand(2, 7, 10, seed=1),
    )


@spatial
@pytest.mark.parametrize("size", [(3, 5), (6, 2), (1, 1), (3, 4)], ids=str)
def test_spatial_transformer_values(stage, size):
    check_counterpart(
        stage, SPATIAL, about=f"with x of shape {(2, 12, *size)}", tolerance=ROUGH,
        x=rand(2, 12, *size, scale=2.0, shift=1.0), context=rand(2, 7, 10, seed=1),
        hint="inside, a token is one pixel with all its channels; the block gets the tokens and the context.",
    )


@spatial
@pytest.mark.parametrize("heads", [1, 2, 6])
def test_heads_of_the_spatial_transformer(stage, heads):
    check_counterpart(
        stage, f"SpatialTransformer(12, {heads}, 10, num_groups=4)", tolerance=ROUGH,
        x=rand(2, 12, 3, 5, scale=2.0), context=rand(2, 7, 10, seed=1), hint="is num_heads passed on to the block?",
    )


@spatial
def test_eps_of_the_spatial_transformer(stage):
    check_counterpart(
        stage, SPATIAL, about="with a nearly flat x", x=rand(2, 12, 3, 5, scale=0.003), context=rand(2, 7, 10, seed=1),
        hint="this group norm has eps=1e-6, also in the U-Net.",
    )


@spatial
@given(
    integers(1, 3), integers(1, 3), integers(1, 3), integers(1, 9), integers(1, 5), integers(1, 4), integers(1, 4),
    integers(0, 2**31),
)
def test_spatial_transformer_of_any_shape(stage, batch, heads, groups, context_channels, words, height, width, seed):
    channels = 2 * heads * groups
    text = f"SpatialTransformer({channels}, {heads}, {context_channels}, {groups})"
    check_counterpart(
        stage, text, counterpart(text, seed), x=rand(batch, channels, height, width, seed=seed, scale=2.0),
        context=rand(batch, words, context_channels, seed=seed + 1),
        about=f"with x of shape {(batch, channels, height, width)} and {words} words",
        tolerance=1e-9,  # small pictures can be nearly flat, which magnifies rounding
    )


# --- what all blocks have in common, second part ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        row("3.3", "PixelAttention(64)", x=(2, 64, 2, 3)),
        row("3.6", "SpatialTransformer(64, 2, 10)", x=(2, 64, 2, 3), context=(2, 7, 10)),
    ],
)
def test_num_groups_is_32_if_not_given(stage, text, shapes):
    check_counterpart(stage, text, **tensors(shapes), hint="the norm has num_groups groups, 32 by default.")


@each_block
def test_not_contiguous(stage, text, shapes):
    about = f"with {' and '.join(shapes)} not contiguous in memory"
    check_counterpart(stage, text, about=about, **tensors(shapes, contiguous=False), hint=VIEW)


@each_block
@either_dtype
def test_the_dtype_stays(stage, text, shapes, dtype):
    check_dtype(stage, text, dtype, roundings=10, hint=DTYPE, **tensors(shapes))  # weights, inputs, layers' results


@each_block
def test_gradients(stage, text, shapes):
    check_counterpart(stage, text, gradients=True, **tensors(shapes), hint=CUT)


# --- one call after another ------------------------------------------------------------------------------------------


@sdpa
def test_attention_called_again(stage):
    masks = [rand(4, 6, seed=5), None, rand(4, 6, seed=6), None]
    calls = [vectors(2, queries=4, seed=10 * i) | {"mask": mask} for i, mask in enumerate(masks)]
    calls += [vectors(1, queries=3, width=5) | {"mask": None}]
    check_function_in_turn(stage, MASKED, torch.nn.functional, calls)


def changed_sizes(shapes, seed):
    """Other numbers of the same shapes, then fewer pixels or tokens and words, then more of all, then one sample."""

    def smaller(batch, size, *rest):
        return (batch, size, 2, 2) if len(rest) == 2 else (batch, max(1, size - 2), *rest)

    def larger(batch, size, *rest):
        return (3, size, 4, 2) if len(rest) == 2 else (3, size + 2, *rest)

    sizes = [lambda *shape: shape, lambda *shape: shape, smaller, larger, lambda _, *rest: (1, *rest)]
    return [{n: rand(*size(*s), seed=seed + i) for n, s in shapes.items()} for i, size in enumerate(sizes)]


@each_block
@each_way
def test_called_again(stage, text, shapes, way):
    check_counterpart_in_turn(stage, text, changed_sizes(shapes, seed=20), way)


@multi_head
def test_self_attention_after_cross_attention_and_masks(stage):
    words, x = rand(2, 7, 12, seed=1), [rand(2, 5, 12, seed=seed) for seed in range(2, 6)]
    contexts, masks = [words, None, words + 1.0, None], [rand(5, 7, seed=7), None, None, causal(5)]
    calls = [{"x": a, "context": b, "mask": c} for a, b, c in zip(x, contexts, masks)]
    check_counterpart_in_turn(stage, "MultiHeadAttention(12, 3)", calls, "eval")


SIGNS = torch.tensor([1.0, -1.0] * 32, dtype=torch.float16)


@pytest.mark.parametrize(
    ("text", "x"),
    [
        pytest.param("MultiHeadAttention(64, 1)", SIGNS.repeat(1, 4, 1), marks=multi_head, id="several heads"),
        pytest.param("PixelAttention(64)", SIGNS.reshape(1, 64, 1, 1).repeat(1, 1, 2, 2), marks=pixels, id="pixels"),
    ],
)
def test_blocks_do_not_overflow_in_half_precision(stage, text, x):
    """All tokens are equal, so that each gets its own value; queries times keys make 131072."""
    weights = {name: torch.zeros_like(w) for name, w in our_weights(counterpart(text), rules_of(text)).items()}
    for name, factor in {"to_q": 64.0, "to_k": 32.0, "to_v": 1.0, "to_out": 1.0}.items():
        weights[f"{name}.weight"] = factor * torch.eye(64, dtype=torch.float64)
    if "norm.weight" in weights:
        weights["norm.weight"] += 1.0
    check(
        stage, lambda m: make_block(m, text, weights).half()(x).detach(), x if x.ndim == 3 else 2.0 * x,
        f"{text}(x) in float16, with equal tokens and q.k = 131072", tolerance=2e-3, inputs={"x": x},
        hint="scaled_dot_product_attention divides the queries by sqrt(d) before the product; float16 ends at 65504.",
    )


# --- by name, and on a GPU ------------------------------------------------------------------------------------------


@sdpa
def test_attention_by_name(stage):
    inputs = vectors(2) | {"mask": rand(3, 6, seed=3)}
    check(
        stage, "scaled_dot_product_attention(query=query, key=key, value=value, mask=mask)",
        torch.nn.functional.scaled_dot_product_attention(*inputs.values()), **inputs,
    )


@multi_head
@pytest.mark.parametrize(
    "shape", [(5, 7), (1, 7), (5, 1), (1, 5, 7), (2, 1, 5, 7), (1, 1, 1, 7), (2, 1, 1, 7)], ids=str
)
def test_masks_of_any_shape(stage, shape):
    """One for all heads, with or without the dimensions of the batch and of the heads."""
    text, x, context, mask = "MultiHeadAttention(12, 3)", rand(2, 5, 12), rand(2, 7, 12, seed=1), rand(*shape, seed=2)
    theirs = counterpart(text)
    wanted = theirs(x, context, mask.expand(2, 1, 5, 7)[:, 0]).detach()

    def run(module):
        return make_block(module, text, our_weights(theirs, rules_of(text)))(x, context, mask)

    check(
        stage, run, wanted, f"{text}(x, context, mask) with 5 queries, 7 keys and a mask of shape {shape}",
        inputs={"x": x, "context": context, "mask": mask},
        hint="the mask is broadcast to (batch, heads, queries, keys) when it is added: hand it on as it is.",
    )


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        row(
            "3.2", "MultiHeadAttention(channels=12, num_heads=3, context_channels=10, qkv_bias=True)",
            x=(2, 5, 12), context=(2, 7, 10), mask=(5, 7),
        ),
        row("3.3", "PixelAttention(channels=12, num_groups=4, eps=0.5)", x=(2, 12, 3, 5)),
        row("3.4", "GEGLU(channels=6, hidden_channels=10)", x=(2, 3, 6)),
        row(
            "3.5", "TransformerBlock(channels=12, num_heads=3, context_channels=10)", x=(2, 5, 12), context=(2, 7, 10)
        ),
        row(
            "3.6", "SpatialTransformer(channels=12, num_heads=3, context_channels=10, num_groups=4)",
            x=(2, 12, 3, 5), context=(2, 7, 10),
        ),
    ],
)
def test_every_argument_by_its_name(stage, text, shapes):
    check_counterpart(stage, text, by_name=True, **tensors(shapes))


@sdpa
@pytest.mark.parametrize("names", [[], ["mask"]], ids=["no mask", "mask"])
def test_attention_on_a_gpu(stage, names):
    inputs = vectors(2) | {name: rand(3, 6, seed=3) for name in names}
    wanted = torch.nn.functional.scaled_dot_product_attention(*inputs.values())
    check_call_on_gpu(stage, MASKED if names else ATTENTION, wanted, **inputs)


@each_block
def test_default_dtype(stage, text, shapes):
    check_default_dtype(stage, text)


@each_block
def test_on_a_gpu(stage, text, shapes):
    check_block_on_gpu(stage, text, counterpart(text), rules_of(text), **tensors(shapes))


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("3.1", "3.2", "3.3", "3.4", "3.5", "3.6")
@each_drawing("text to image", "image to image", "into a mask")
def test_what_make_generate_draws(stage, checkpoint_folder, drawing):
    check_drawing(stage, drawing, checkpoint_folder)
