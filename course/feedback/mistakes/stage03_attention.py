"""Mistakes of stage 3."""

from course.feedback.mistakes import Mistake

PIXELS = "return x + tokens_to_image(self.to_out(mixed), height, width)"
PIXELS_MIXED = "mixed = scaled_dot_product_attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))"

MISTAKES = [
    Mistake(
        "minus-infinity-as-a-large-number",
        "scores = scores + mask",
        "scores = scores + torch.nan_to_num(mask, neginf=-1e9)",
        "-1e9 takes the place of -inf. A score can outweigh it.",
    ),
    Mistake(
        "attention-with-dropout",
        "return self.to_out(mixed.transpose(1, 2).flatten(2))",
        "return nn.functional.dropout(self.to_out(mixed.transpose(1, 2).flatten(2)), 0.1, self.training)",
        "there is a dropout of 0.1 after to_out. It acts in training mode only; there is none here.",
    ),
    Mistake(
        "keys-and-values-of-the-first-call",
        "        key = split_heads(self.to_k(context))\n        value = split_heads(self.to_v(context))\n",
        """\
        if not hasattr(self, "kept") or self.kept[0] != context.shape:
            self.kept = context.shape, split_heads(self.to_k(context)), split_heads(self.to_v(context))
        _, key, value = self.kept
""",
        "keys and values are kept for the next context of the same shape. Another prompt has others.",
    ),
    Mistake(
        "last-context-kept",
        "        if context is None:\n            context = x\n",
        """\
        if context is not None:
            self.context = context
        context = getattr(self, "context", x)
""",
        "the last context is used when none is given. Self-attention then looks at the words of an earlier call.",
    ),
    Mistake(
        "last-mask-kept",
        "        query = split_heads(self.to_q(x))\n",
        """\
        query = split_heads(self.to_q(x))
        if mask is not None:
            self.mask = mask
        mask = getattr(self, "mask", None)
""",
        "the mask of an earlier call is used when none is given.",
    ),
    Mistake(
        "scores-scaled-after-the-product",
        "        mixed = scaled_dot_product_attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))\n",
        """\
        scores = self.to_q(tokens) @ self.to_k(tokens).transpose(1, 2) / math.sqrt(x.shape[1])
        mixed = torch.softmax(scores, dim=-1) @ self.to_v(tokens)
""",
        "PixelAttention divides the scores by sqrt(d) after the product. In float16 the product can overflow before.",
    ),
    Mistake(
        "pixel-attention-size-of-the-first-call",
        """\
        height, width = x.shape[-2:]
        tokens = image_to_tokens(self.norm(x))
""",
        """\
        if not hasattr(self, "size"):
            self.size = x.shape[-2:]
        height, width = self.size
        tokens = image_to_tokens(self.norm(x))
""",
        "PixelAttention keeps height and width of its first picture.",
    ),
    Mistake(
        "feed-forward-with-dropout",
        "x = x + self.feed_forward(self.norm3(x))",
        "x = x + nn.functional.dropout(self.feed_forward(self.norm3(x)), 0.1, self.training)",
        "there is a dropout of 0.1 after the feed-forward network. It acts in training mode only; there is none here.",
    ),
    Mistake(
        "spatial-size-of-the-first-call",
        """\
        height, width = x.shape[-2:]
        tokens = image_to_tokens(self.proj_in(self.norm(x)))
""",
        """\
        if not hasattr(self, "size"):
            self.size = x.shape[-2:]
        height, width = self.size
        tokens = image_to_tokens(self.proj_in(self.norm(x)))
""",
        "SpatialTransformer keeps height and width of its first picture.",
    ),
    Mistake(
        "no-scale",
        "(query / math.sqrt(d)) @",
        "query @",
        "the scores are not divided by sqrt(d). The softmax then picks one key almost alone.",
    ),
    Mistake(
        "divided-by-d",
        "(query / math.sqrt(d)) @",
        "(query / d) @",
        "the scores are divided by d. The square root of d is what keeps their variance at one.",
    ),
    Mistake(
        "multiplied-by-root-d",
        "(query / math.sqrt(d)) @",
        "(query * math.sqrt(d)) @",
        "the scores are multiplied by sqrt(d). They are divided by it.",
    ),
    Mistake(
        "scaled-twice",
        "key.transpose(-2, -1)  # (..., queries, keys)",
        "(key / math.sqrt(d)).transpose(-2, -1)",
        "both queries and keys are divided by sqrt(d). Once is enough: only their product is to be scaled.",
        like=("divided-by-d",),
    ),
    Mistake(
        "scaled-by-the-number-of-keys",
        "d = query.shape[-1]",
        "d = key.shape[-2]",
        "the scale comes from the number of keys. d is the length of one query.",
    ),
    Mistake(
        "scaled-by-the-number-of-queries",
        "d = query.shape[-1]",
        "d = query.shape[-2]",
        "the scale comes from the number of queries. d is the length of one query.",
    ),
    Mistake(
        "scaled-by-the-length-of-values",
        "d = query.shape[-1]",
        "d = value.shape[-1]",
        "the scale comes from the length of a value. d is the length of a query, and of a key.",
    ),
    Mistake(
        "scaled-after-the-product",
        "scores = (query / math.sqrt(d)) @ key.transpose(-2, -1)",
        "scores = query @ key.transpose(-2, -1) / math.sqrt(d)",
        "the scores are scaled after the product. In float16 the product may have overflowed by then.",
    ),
    Mistake(
        "softmax-over-the-queries",
        "torch.softmax(scores, dim=-1)",
        "torch.softmax(scores, dim=-2)",
        "the softmax runs over the queries. It runs over the keys: the weights of one query sum to one.",
    ),
    Mistake(
        "weights-scaled-instead-of-scores",
        """\
    scores = (query / math.sqrt(d)) @ key.transpose(-2, -1)  # (..., queries, keys)
    if mask is not None:
        scores = scores + mask
    return torch.softmax(scores, dim=-1) @ value
""",
        """\
    scores = query @ key.transpose(-2, -1)
    if mask is not None:
        scores = scores + mask
    return torch.softmax(scores, dim=-1) / math.sqrt(d) @ value
""",
        "the weights are divided by sqrt(d), after the softmax. They then no longer sum to one.",
    ),
    Mistake(
        "softmax-forgotten",
        "torch.softmax(scores, dim=-1)",
        "scores",
        "the scores are used without a softmax. Weights are positive and sum to one.",
    ),
    Mistake(
        "sigmoid-for-softmax",
        "torch.softmax(scores, dim=-1)",
        "torch.sigmoid(scores)",
        "a sigmoid takes the place of the softmax. The weights of one query sum to one.",
    ),
    Mistake(
        "mask-forgotten",
        "        scores = scores + mask\n",
        "        pass\n",
        "the mask is not used. Every query then sees every key.",
    ),
    Mistake(
        "mask-subtracted",
        "scores = scores + mask",
        "scores = scores - mask",
        "the mask is subtracted. It is added: -inf gives a key the weight 0.",
    ),
    Mistake(
        "mask-multiplied",
        "scores = scores + mask",
        "scores = scores * mask",
        "the mask multiplies the scores. It is added to them.",
    ),
    Mistake(
        "mask-as-yes-or-no",
        "scores = scores + mask",
        'scores = scores.masked_fill(mask != 0, float("-inf"))',
        "every number other than 0 in the mask excludes a key. The mask is added, whatever its numbers are.",
    ),
    Mistake(
        "mask-zeros-excluded",
        "scores = scores + mask",
        "scores = scores.masked_fill(mask == 0, -math.inf)",
        "a key is excluded where the mask is 0. That is for masks of ones and zeros; this one is 0 where a query may "
        "look, and is added.",
    ),
    Mistake(
        "mask-after-the-softmax",
        """\
    if mask is not None:
        scores = scores + mask
    return torch.softmax(scores, dim=-1) @ value""",
        """\
    weights = torch.softmax(scores, dim=-1)
    if mask is not None:
        weights = weights * (mask == 0)
    return weights @ value""",
        "the mask sets weights to zero after the softmax. The weights that are left no longer sum to one.",
    ),
    Mistake(
        "mask-scaled-too",
        """\
    scores = (query / math.sqrt(d)) @ key.transpose(-2, -1)  # (..., queries, keys)
    if mask is not None:
        scores = scores + mask
""",
        """\
    scores = query @ key.transpose(-2, -1)
    if mask is not None:
        scores = scores + mask
    scores = scores / math.sqrt(d)
""",
        "the mask is divided by sqrt(d) together with the scores. It is added to the scaled scores.",
    ),
    Mistake(
        "weights-transposed",
        "return torch.softmax(scores, dim=-1) @ value",
        "return torch.softmax(scores, dim=-1).transpose(-2, -1) @ value if scores.shape[-1] == scores.shape[-2] "
        "else torch.softmax(scores, dim=-1) @ value",
        "the weights are transposed before they meet the values. Row i holds the weights of query i.",
    ),
    Mistake(
        "keys-and-values-exchanged",
        "mixed = scaled_dot_product_attention(query, key, value, mask)",
        "mixed = scaled_dot_product_attention(query, value, key, mask)",
        "keys and values change places. Keys are compared with the queries, values are mixed.",
    ),
    Mistake(
        "queries-and-keys-exchanged",
        "mixed = scaled_dot_product_attention(query, key, value, mask)",
        "mixed = scaled_dot_product_attention(key, query, value, mask)",
        "queries and keys change places. Row i of the scores belongs to query i.",
    ),
    Mistake(
        "layer-ignores-the-mask",
        "mixed = scaled_dot_product_attention(query, key, value, mask)",
        "mixed = scaled_dot_product_attention(query, key, value)",
        "MultiHeadAttention does not hand the mask on.",
    ),
    Mistake(
        "heads-without-transpose",
        "return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, T, C) -> (B, heads, T, d)",
        "return tokens.reshape(tokens.shape[0], self.num_heads, tokens.shape[1], -1)",
        "the tokens are reshaped straight to (batch, heads, tokens, d). That mixes tokens and heads: cut the channels "
        "first, to (batch, tokens, heads, d), then transpose.",
    ),
    Mistake(
        "heads-never-transposed",
        """\
            return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, T, C) -> (B, heads, T, d)

        query = split_heads(self.to_q(x))
        key = split_heads(self.to_k(context))
        value = split_heads(self.to_v(context))
        mixed = scaled_dot_product_attention(query, key, value, mask)
        return self.to_out(mixed.transpose(1, 2).flatten(2))""",
        """\
            return tokens.unflatten(-1, (self.num_heads, -1))

        query = split_heads(self.to_q(x))
        key = split_heads(self.to_k(context))
        value = split_heads(self.to_v(context))
        mixed = scaled_dot_product_attention(query, key, value, mask)
        return self.to_out(mixed.flatten(2))""",
        "the channels are cut into heads, and the heads are left where they are, in (batch, tokens, heads, d). The "
        "heads of one token then attend to each other: transpose to (batch, heads, tokens, d), and back before they "
        "are joined.",
    ),
    Mistake(
        "attention-without-init",
        "        super().__init__()\n        if context_channels is None:",
        "        if context_channels is None:",
        "MultiHeadAttention.__init__ does not call super().__init__() first. nn.Module cannot keep layers before that.",
    ),
    Mistake(
        "heads-take-every-nth-channel",
        "return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, T, C) -> (B, heads, T, d)",
        "return tokens.unflatten(-1, (-1, self.num_heads)).permute(0, 3, 1, 2)",
        "a head gets every num_heads-th channel. Its channels are neighbours.",
    ),
    Mistake(
        "num-heads-as-their-width",
        "tokens.unflatten(-1, (self.num_heads, -1))",
        "tokens.unflatten(-1, (-1, self.num_heads))",
        "num_heads is used as the width of a head. It is their number.",
    ),
    Mistake(
        "one-head",
        "tokens.unflatten(-1, (self.num_heads, -1))",
        "tokens.unflatten(-1, (1, -1))",
        "there is a single head, as wide as all channels. num_heads is not used.",
    ),
    Mistake(
        "heads-joined-without-transpose",
        "mixed.transpose(1, 2).flatten(2)",
        "mixed.reshape(x.shape)",
        "the heads are joined without transposing back. (batch, heads, tokens, d) has to become (batch, "
        "tokens, heads, d) "
        "before heads and d merge.",
    ),
    Mistake(
        "heads-joined-interleaved",
        "mixed.transpose(1, 2).flatten(2)",
        "mixed.permute(0, 2, 3, 1).flatten(2)",
        "the heads' channels are interleaved when they are joined. They come back one head after the other.",
    ),
    Mistake(
        "scaled-by-all-channels",
        "query = split_heads(self.to_q(x))",
        "query = split_heads(self.to_q(x) / math.sqrt(self.num_heads))",
        "the scale is the square root of all channels. Each head divides by the square root of its own width.",
    ),
    Mistake(
        "keys-from-x",
        "key = split_heads(self.to_k(context))",
        "key = split_heads(self.to_k(x if x.shape[-1] == context.shape[-1] and x.shape[1] == context.shape[1] "
        "else context))",
        "the keys come from x. In cross-attention, keys and values come from the context.",
    ),
    Mistake(
        "values-from-x",
        "value = split_heads(self.to_v(context))",
        "value = split_heads(self.to_v(x if x.shape[-1] == context.shape[-1] and x.shape[1] == context.shape[1] "
        "else context))",
        "the values come from x. In cross-attention, keys and values come from the context.",
    ),
    Mistake(
        "context-ignored",
        "        if context is None:\n            context = x\n",
        "        if context is None or context.shape[-1] == x.shape[-1]:\n            context = x\n",
        "the context is ignored and x attends to itself. In cross-attention, keys and values come from the context.",
    ),
    Mistake(
        "to-k-for-the-values",
        "value = split_heads(self.to_v(context))",
        "value = split_heads(self.to_k(context))",
        "the values are made by to_k. to_v makes them.",
    ),
    Mistake(
        "to-q-for-the-keys",
        "self.to_k = nn.Linear(context_channels, channels, bias=qkv_bias)",
        "self.to_k = self.to_q",
        "to_q and to_k are one layer. Each has weights of its own.",
    ),
    Mistake(
        "output-projection-forgotten",
        "return self.to_out(mixed.transpose(1, 2).flatten(2))",
        "return mixed.transpose(1, 2).flatten(2)",
        "to_out is not used. The joined heads are projected once more.",
    ),
    Mistake(
        "output-projection-without-bias",
        "bias=qkv_bias)\n        self.to_out = nn.Linear(channels, channels)",
        "bias=qkv_bias)\n        self.to_out = nn.Linear(channels, channels, bias=qkv_bias)",
        "to_out has a bias only if the other three have one. It always has one.",
    ),
    Mistake(
        "bias-always",
        "self.to_q = nn.Linear(channels, channels, bias=qkv_bias)",
        "self.to_q = nn.Linear(channels, channels)",
        "to_q always has a bias. It has one only with qkv_bias.",
    ),
    Mistake(
        "bias-by-default",
        "qkv_bias: bool = False",
        "qkv_bias: bool = True",
        "to_q, to_k and to_v have biases unless told otherwise. By default they have none.",
    ),
    Mistake(
        "context-channels-ignored",
        "self.to_k = nn.Linear(context_channels, channels, bias=qkv_bias)",
        "self.to_k = nn.Linear(channels, channels, bias=qkv_bias)",
        "to_k expects as many channels as x has. It reads the context, which is context_channels wide.",
    ),
    Mistake(
        "pixels-reshaped-to-tokens",
        "tokens = image_to_tokens(self.norm(x))",
        "tokens = self.norm(x).reshape(x.shape[0], -1, x.shape[1])",
        "the picture is reshaped straight to (batch, pixels, channels). A token is then a piece of a channel, not a "
        "pixel.",
    ),
    Mistake(
        "tokens-reshaped-to-pixels",
        PIXELS,
        "return x + self.to_out(mixed).reshape(x.shape)",
        "the tokens are reshaped straight to a picture. They have to be transposed first: a token is a pixel.",
    ),
    Mistake(
        "height-and-width-exchanged",
        PIXELS,
        "return x + tokens_to_image(self.to_out(mixed), width, height).transpose(-2, -1)",
        "height and width change places on the way back. In pictures that are not square, all rows break in the wrong "
        "place.",
    ),
    Mistake(
        "pixel-attention-without-shortcut",
        PIXELS,
        "return tokens_to_image(self.to_out(mixed), height, width)",
        "PixelAttention does not add x. Attention is a correction, like a residual block.",
    ),
    Mistake(
        "pixel-attention-shortcut-before-to-out",
        "return x + tokens_to_image(self.to_out(mixed), height, width)",
        "return tokens_to_image(self.to_out(mixed + image_to_tokens(x)), height, width)",
        "PixelAttention adds x before to_out. The shortcut leads around to_out as well.",
    ),
    Mistake(
        "pixel-attention-adds-the-normalised-input",
        PIXELS,
        "return tokens_to_image(tokens + self.to_out(mixed), height, width)",
        "PixelAttention adds its input after the norm. The direct path takes x as it came.",
    ),
    Mistake(
        "pixel-attention-without-norm",
        "tokens = image_to_tokens(self.norm(x))",
        "tokens = image_to_tokens(x)",
        "PixelAttention does not normalise what it reads.",
    ),
    Mistake(
        "pixel-attention-with-many-heads",
        PIXELS_MIXED,
        "heads = (len(x), height * width, -1, 8 if self.to_q.in_features % 8 == 0 else 1)\n"
        "        mixed = scaled_dot_product_attention(\n"
        "            *(layer(tokens).reshape(heads).transpose(1, 2) for layer in (self.to_q, self.to_k, self.to_v))\n"
        "        ).transpose(1, 2).flatten(2)",
        "PixelAttention has several heads. It has a single one, as wide as all channels.",
    ),
    Mistake(
        "pixel-attention-without-to-out",
        PIXELS,
        "return x + tokens_to_image(mixed, height, width)",
        "PixelAttention does not use to_out. What attention returns is projected once more.",
    ),
    Mistake(
        "pixel-attention-queries-and-keys-exchanged",
        PIXELS_MIXED,
        PIXELS_MIXED.replace("self.to_q(tokens), self.to_k(tokens)", "self.to_k(tokens), self.to_q(tokens)"),
        "PixelAttention makes its queries with to_k and its keys with to_q.",
    ),
    Mistake(
        "pixel-attention-keys-for-the-values",
        PIXELS_MIXED,
        PIXELS_MIXED.replace("self.to_v(tokens)", "self.to_k(tokens)"),
        "PixelAttention makes its values with to_k. to_v makes them.",
    ),
    Mistake(
        "pixel-attention-values-from-the-picture",
        PIXELS_MIXED,
        PIXELS_MIXED.replace("self.to_v(tokens)", "self.to_v(image_to_tokens(x))"),
        "PixelAttention makes its values from x as it came. Queries, keys and values all come from the normalised x.",
    ),
    Mistake(
        "pixel-attention-without-biases",
        "self.to_k = nn.Linear(channels, channels)",
        "self.to_k = nn.Linear(channels, channels, bias=False)",
        "PixelAttention's to_k has no bias. All its layers have one.",
    ),
    Mistake(
        "pixel-attention-default-eps",
        "num_groups: int = 32, eps: float = 1e-6",
        "num_groups: int = 32, eps: float = 1e-5",
        "PixelAttention's norm has eps=1e-5 where none is given. Its default is 1e-6.",
    ),
    Mistake(
        "pixel-attention-keeps-eps-to-itself",
        "self.norm = GroupNorm(num_groups, channels, eps)",
        "self.norm = GroupNorm(num_groups, channels)",
        "PixelAttention does not hand eps on to its norm.",
    ),
    Mistake(
        "geglu-halves-exchanged",
        "value, gate = self.proj(x).chunk(2, dim=-1)",
        "gate, value = self.proj(x).chunk(2, dim=-1)",
        "the first half of the features is the gate. It is the second.",
    ),
    Mistake(
        "geglu-interleaved",
        "value, gate = self.proj(x).chunk(2, dim=-1)",
        "value, gate = self.proj(x).unflatten(-1, (-1, 2)).unbind(-1)",
        "value and gate take turns along the features. The first half is the value, the second half the gate.",
    ),
    Mistake(
        "geglu-with-tanh-gelu",
        "nn.functional.gelu(gate)",
        'nn.functional.gelu(gate, approximate="tanh")',
        "the gate's GELU is the approximation by tanh. It is the exact one, by the error function.",
    ),
    Mistake(
        "geglu-with-quick-gelu",
        "nn.functional.gelu(gate)",
        "(gate * torch.sigmoid(1.702 * gate))",
        "the gate's GELU is CLIP's quick one. It is the exact one, by the error function.",
    ),
    Mistake(
        "geglu-with-silu",
        "nn.functional.gelu(gate)",
        "nn.functional.silu(gate)",
        "the gate's activation is SiLU. It is GELU.",
    ),
    Mistake(
        "geglu-with-sigmoid",
        "nn.functional.gelu(gate)",
        "torch.sigmoid(gate)",
        "the gate is a sigmoid. That is the original GLU; GEGLU has a GELU there.",
    ),
    Mistake(
        "geglu-without-activation",
        "value * nn.functional.gelu(gate)",
        "value * gate",
        "the gate has no activation.",
    ),
    Mistake(
        "geglu-adds",
        "value * nn.functional.gelu(gate)",
        "value + nn.functional.gelu(gate)",
        "value and gate are added. The gate multiplies.",
    ),
    Mistake(
        "geglu-gate-only",
        "value * nn.functional.gelu(gate)",
        "nn.functional.gelu(gate)",
        "the value is not used. The gate is a factor: it decides how much of the value gets through.",
    ),
    Mistake(
        "geglu-half-as-wide",
        "self.proj = nn.Linear(channels, 2 * hidden_channels)",
        "self.proj = nn.Linear(channels, hidden_channels)",
        "proj makes hidden_channels features. Value and gate are hidden_channels wide each.",
    ),
    Mistake(
        "block-without-self-attention-shortcut",
        "x = x + self.self_attention(self.norm1(x))",
        "x = self.self_attention(self.norm1(x))",
        "the block does not add x after self-attention. Each of its three parts is a correction.",
    ),
    Mistake(
        "block-without-cross-attention-shortcut",
        "x = x + self.cross_attention(self.norm2(x), context)",
        "x = self.cross_attention(self.norm2(x), context)",
        "the block does not add x after cross-attention. Each of its three parts is a correction.",
    ),
    Mistake(
        "block-without-feed-forward-shortcut",
        "x = x + self.feed_forward(self.norm3(x))",
        "x = self.feed_forward(self.norm3(x))",
        "the block does not add x after the feed-forward network. Each of its three parts is a correction.",
    ),
    Mistake(
        "block-without-norm1",
        "self.self_attention(self.norm1(x))",
        "self.self_attention(x)",
        "norm1 is not used. Each of the three parts reads a normalised x.",
    ),
    Mistake(
        "block-without-norm2",
        "self.cross_attention(self.norm2(x), context)",
        "self.cross_attention(x, context)",
        "norm2 is not used. Each of the three parts reads a normalised x.",
    ),
    Mistake(
        "block-without-norm3",
        "self.feed_forward(self.norm3(x))",
        "self.feed_forward(x)",
        "norm3 is not used. Each of the three parts reads a normalised x.",
    ),
    Mistake(
        "block-post-norm",
        """\
        x = x + self.self_attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x), context)
        x = x + self.feed_forward(self.norm3(x))
""",
        """\
        x = self.norm1(x + self.self_attention(x))
        x = self.norm2(x + self.cross_attention(x, context))
        x = self.norm3(x + self.feed_forward(x))
""",
        "the block normalises after each sum. That is the post-norm of the first transformers; here the norm comes "
        "before each part, and there is none on the direct path.",
    ),
    Mistake(
        "block-shortcut-after-the-norm",
        "x = x + self.self_attention(self.norm1(x))",
        "x = self.norm1(x)\n        x = x + self.self_attention(x)",
        "self-attention's correction is added to the normalised x. It is added to x as it came.",
    ),
    Mistake(
        "block-without-context",
        "self.cross_attention(self.norm2(x), context)",
        "self.cross_attention(self.norm2(x), context * 0)",
        "cross-attention sees nothing of the context. The prompt comes in there.",
    ),
    Mistake(
        "cross-attention-first",
        """\
        x = x + self.self_attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x), context)
""",
        """\
        x = x + self.cross_attention(self.norm2(x), context)
        x = x + self.self_attention(self.norm1(x))
""",
        "cross-attention comes before self-attention. Self-attention is first.",
    ),
    Mistake(
        "feed-forward-first",
        """\
        x = x + self.self_attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x), context)
        x = x + self.feed_forward(self.norm3(x))
""",
        """\
        x = x + self.feed_forward(self.norm3(x))
        x = x + self.self_attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x), context)
""",
        "the feed-forward network comes first. It works on what attention has collected, so it comes last.",
    ),
    Mistake(
        "block-feed-forward-result-dropped",
        "        x = x + self.feed_forward(self.norm3(x))\n        return x\n",
        "        y = x + self.feed_forward(self.norm3(x))\n        return x\n",
        "the block returns what it had before the feed-forward part.",
    ),
    Mistake(
        "block-parts-side-by-side",
        """\
        x = x + self.self_attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x), context)
        x = x + self.feed_forward(self.norm3(x))
        return x
""",
        """\
        a = self.self_attention(self.norm1(x))
        b = self.cross_attention(self.norm2(x), context)
        return x + a + b + self.feed_forward(self.norm3(x))
""",
        "all three parts read the same x. Each reads what the one before has made.",
    ),
    Mistake(
        "norm1-for-all",
        "self.cross_attention(self.norm2(x), context)",
        "self.cross_attention(self.norm1(x), context)",
        "cross-attention reads through norm1. Each part has a norm of its own.",
    ),
    Mistake(
        "block-heads-exchanged-with-their-width",
        "self.self_attention = MultiHeadAttention(channels, num_heads)",
        "self.self_attention = MultiHeadAttention(channels, channels // num_heads)",
        "self-attention gets the width of a head for their number.",
    ),
    Mistake(
        "layer-norm-eps",
        "self.norm1 = nn.LayerNorm(channels)",
        "self.norm1 = nn.LayerNorm(channels, eps=1e-6)",
        "the block's layer norm has eps=1e-6. Layer norms have 1e-5 here; only the group norm outside has 1e-6.",
    ),
    Mistake(
        "spatial-norm-default-eps",
        "self.norm = GroupNorm(num_groups, channels, eps=1e-6)",
        "self.norm = GroupNorm(num_groups, channels)",
        "the spatial transformer's group norm has GroupNorm's default eps. It has 1e-6.",
    ),
    Mistake(
        "spatial-without-norm",
        "self.proj_in(self.norm(x))",
        "self.proj_in(x)",
        "the spatial transformer does not normalise what it reads.",
    ),
    Mistake(
        "spatial-without-proj-in",
        "image_to_tokens(self.proj_in(self.norm(x)))",
        "image_to_tokens(self.norm(x))",
        "proj_in is not used.",
    ),
    Mistake(
        "spatial-without-proj-out",
        "return x + self.proj_out(tokens_to_image(tokens, height, width))",
        "return x + tokens_to_image(tokens, height, width)",
        "proj_out is not used.",
    ),
    Mistake(
        "spatial-without-shortcut",
        "return x + self.proj_out(tokens_to_image(tokens, height, width))",
        "return self.proj_out(tokens_to_image(tokens, height, width))",
        "the spatial transformer does not add x. The block inside has its own shortcuts, and there is one around it "
        "all.",
    ),
    Mistake(
        "spatial-shortcut-from-the-normalised-input",
        "return x + self.proj_out(tokens_to_image(tokens, height, width))",
        "return self.norm(x) + self.proj_out(tokens_to_image(tokens, height, width))",
        "the spatial transformer adds its input after the norm. The direct path takes x as it came.",
    ),
    Mistake(
        "spatial-tokens-added-again",
        "tokens = self.block(tokens, context)",
        "tokens = tokens + self.block(tokens, context)",
        "the spatial transformer adds the tokens to what the block gives. The block has its own shortcuts.",
    ),
    Mistake(
        "spatial-shortcut-before-proj-out",
        "return x + self.proj_out(tokens_to_image(tokens, height, width))",
        "return self.proj_out(x + tokens_to_image(tokens, height, width))",
        "the spatial transformer adds x before proj_out. The shortcut leads around proj_out as well.",
    ),
    Mistake(
        "norm-after-proj-in",
        "self.proj_in(self.norm(x))",
        "self.norm(self.proj_in(x))",
        "proj_in comes before the norm. The norm is first.",
    ),
    Mistake(
        "spatial-pixels-reshaped-to-tokens",
        "image_to_tokens(self.proj_in(self.norm(x)))",
        "self.proj_in(self.norm(x)).reshape(x.shape[0], -1, x.shape[1])",
        "the spatial transformer reshapes the picture straight to (batch, pixels, channels). A token is then a piece "
        "of a channel, not a pixel.",
    ),
    Mistake(
        "spatial-height-and-width-exchanged",
        "self.proj_out(tokens_to_image(tokens, height, width))",
        "self.proj_out(tokens_to_image(tokens, width, height).transpose(-2, -1))",
        "the spatial transformer exchanges height and width on the way back.",
    ),
    Mistake(
        "spatial-default-number-of-groups",
        "context_channels: int, num_groups: int = 32):",
        "context_channels: int, num_groups: int = 16):",
        "the spatial transformer's default number of groups is 16. It is 32 everywhere.",
    ),
    Mistake(
        "pixel-attention-default-number-of-groups",
        "num_groups: int = 32, eps: float = 1e-6",
        "num_groups: int = 16, eps: float = 1e-6",
        "PixelAttention's default number of groups is 16. It is 32 everywhere.",
    ),
    Mistake(
        "weights-without-gradient",
        "torch.softmax(scores, dim=-1) @ value",
        "torch.softmax(scores, dim=-1).detach() @ value",
        "the weights are treated as constants in the gradient. Queries and keys would learn nothing.",
    ),
    Mistake(
        "block-sum-in-place",
        "x = x + self.self_attention(self.norm1(x))",
        "x += self.self_attention(self.norm1(x))",
        "the block changes its input in place. x += writes into the caller's tensor; x = x + makes a new one.",
    ),
    Mistake(
        "scale-on-the-processor",
        "scores = (query / math.sqrt(d))",
        "scores = (query / torch.full((1,), d, dtype=query.dtype).sqrt())",
        "the scale is a tensor of the processor. On a GPU that does not go together with the query; math.sqrt gives "
        "a number of Python.",
    ),
    Mistake(
        "no-mask-is-zeros-on-the-processor",
        """\
    if mask is not None:
        scores = scores + mask""",
        """\
    mask = torch.zeros(1, dtype=scores.dtype) if mask is None else mask
    scores = scores + mask""",
        "zeros of the processor take the place of a missing mask. On a GPU they do not go together with the scores.",
    ),
    Mistake(
        "softmax-in-float64",
        "return torch.softmax(scores, dim=-1) @ value",
        "return torch.softmax(scores, dim=-1, dtype=torch.float64).to(value.dtype) @ value",
        "the softmax is computed in float64. Apple's GPUs have no float64.",
    ),
    Mistake(
        "mask-of-the-first-sample",
        "mixed = scaled_dot_product_attention(query, key, value, mask)",
        """\
mask = mask if mask is None or mask.ndim == 2 else mask[0]
        mixed = scaled_dot_product_attention(query, key, value, mask)""",
        "of a mask with a batch only the first sample's is used. Each sample has its own.",
    ),
    Mistake(
        "queries-in-float32",
        "self.to_q = nn.Linear(channels, channels, bias=qkv_bias)",
        "self.to_q = nn.Linear(channels, channels, bias=qkv_bias, dtype=torch.float32)",
        "to_q is made in float32, whatever the dtype of the model is. Without dtype=... it has that of the other "
        "layers.",
    ),
]
