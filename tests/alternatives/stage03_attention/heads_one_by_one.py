"""A loop over the heads, each with its own slice of the projections."""


class MultiHeadAttention(MultiHeadAttention):
    def forward(self, x, context=None, mask=None):
        context = x if context is None else context
        mask = mask[:, 0] if mask is not None and mask.ndim == 4 else mask
        size = self.to_q.out_features // self.num_heads
        heads = []
        for head in range(self.num_heads):
            part = slice(head * size, (head + 1) * size)
            q, k, v = (
                nn.functional.linear(source, layer.weight[part], None if layer.bias is None else layer.bias[part])
                for source, layer in ((x, self.to_q), (context, self.to_k), (context, self.to_v))
            )
            heads.append(scaled_dot_product_attention(q, k, v, mask))
        return self.to_out(torch.cat(heads, dim=-1))


class PixelAttention(PixelAttention):
    def forward(self, x):
        b, c, h, w = x.shape
        tokens = self.norm(x).reshape(b, c, h * w).mT
        weights = torch.softmax(self.to_q(tokens) / c**0.5 @ self.to_k(tokens).mT, dim=2)
        return self.to_out(weights @ self.to_v(tokens)).mT.reshape(b, c, h, w) + x


class TransformerBlock(TransformerBlock):
    def forward(self, x, context):
        seen = self.self_attention(self.norm1(x)) + x
        read = self.cross_attention(self.norm2(seen), context=context) + seen
        return self.feed_forward(self.norm3(read)) + read
