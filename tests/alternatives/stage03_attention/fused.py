"""torch's fused kernel, with its own names for things."""


def scaled_dot_product_attention(query, key, value, mask=None):
    return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


class MultiHeadAttention(MultiHeadAttention):
    def forward(self, x, context=None, mask=None):
        source = x if context is None else context
        (b, n, c), m, h = x.shape, source.shape[1], self.num_heads
        q = self.to_q(x).reshape(b, n, h, c // h).permute(0, 2, 1, 3)
        k = self.to_k(source).reshape(b, m, h, c // h).permute(0, 2, 1, 3)
        v = self.to_v(source).reshape(b, m, h, c // h).permute(0, 2, 1, 3)
        return self.to_out(scaled_dot_product_attention(q, k, v, mask).permute(0, 2, 1, 3).reshape(b, n, c))


class PixelAttention(MultiHeadAttention):
    def __init__(self, channels, num_groups=32, eps=1e-6):
        super().__init__(channels, num_heads=1, qkv_bias=True)
        self.norm = GroupNorm(num_groups, channels, eps)

    def forward(self, x):
        return x + tokens_to_image(super().forward(image_to_tokens(self.norm(x))), *x.shape[-2:])


class GEGLU(GEGLU):
    def forward(self, x):
        both = self.proj(x)
        half = both.shape[-1] // 2
        return nn.functional.gelu(both[..., half:]) * both[..., :half]


class SpatialTransformer(SpatialTransformer):
    def forward(self, x, context):
        b, c, h, w = x.shape
        y = self.proj_in(self.norm(x)).permute(0, 2, 3, 1).reshape(b, h * w, c)
        y = self.block(y, context).reshape(b, h, w, c).permute(0, 3, 1, 2)
        return self.proj_out(y) + x
