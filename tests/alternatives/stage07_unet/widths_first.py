"""The widths of all blocks computed beforehand; skips by index, deleted at the end; slices for each level."""


class UpBlock(nn.Module):
    def __init__(self, config, level):
        super().__init__()
        channels, n = config.channels, config.blocks_per_level
        width = channels[level]
        made = [channels[0]]  # the skips' channels, in the order in which they are made
        for i, c in enumerate(channels):
            made += [c] * n + ([c] if i < len(channels) - 1 else [])
        used = made[level * (n + 1) : (level + 1) * (n + 1)][::-1]
        comes_in = [channels[-1] if level == len(channels) - 1 else channels[level + 1]] + [width] * n
        time = channels[0] * 4
        self.residuals = nn.ModuleList(
            [ResidualBlock(a + b, width, time, config.num_groups, EPS) for a, b in zip(comes_in, used)]
        )
        count = n + 1 if config.attention[level] else 0
        self.transformers = nn.ModuleList(
            [
                SpatialTransformer(width, config.num_heads, config.context_channels, config.num_groups)
                for _ in range(count)
            ]
        )
        self.upsample = Upsample(width) if level > 0 else None

    def forward(self, x, skips, time_embedding, context):
        for i, residual in enumerate(self.residuals):
            x = residual(torch.cat([x, skips[-1 - i]], dim=1), time_embedding)
            if len(self.transformers):
                x = self.transformers[i](x, context)
        del skips[-len(self.residuals) :]
        if self.upsample is not None:
            return self.upsample(x)
        return x


class UNet(UNet):
    def forward(self, latents, timesteps, context):
        embedding = self.time_embedding(timesteps)
        x = self.conv_in(latents)
        skips = [x]
        for block in self.down:
            x, new_skips = block(x, embedding, context)
            skips = skips + new_skips
        x = self.mid(x, embedding, context)
        for block in self.up:
            count = len(block.residuals)
            x = block(x, skips[-count:], embedding, context)
            skips = skips[:-count]
        return self.conv_out(silu(self.norm_out(x)))
