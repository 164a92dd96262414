"""The widths of all blocks computed beforehand; a loop over one flat list of skips."""


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
        if self.upsample is not None:
            return self.upsample(x)
        return x
