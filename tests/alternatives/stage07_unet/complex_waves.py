"""Waves as the real and imaginary part of one exponential; pairs of layers zipped with None."""


def timestep_embedding(timesteps, channels, max_period=10000.0):
    dtype = torch.promote_types(torch.float32, timesteps.dtype) if timesteps.is_floating_point() else torch.float32
    steps = torch.linspace(0, 1, channels // 2 + 1, dtype=dtype)[:-1]
    angles = timesteps.to(dtype).unsqueeze(1) * torch.pow(max_period, -steps).to(timesteps.device)
    waves = torch.view_as_real(torch.polar(torch.ones_like(angles), angles))
    return waves.transpose(1, 2).flatten(1)


class DownBlock(DownBlock):
    def forward(self, x, time_embedding, context):
        skips = []
        for residual, transformer in zip(self.residuals, self.transformers or [None] * len(self.residuals)):
            x = residual(x, time_embedding)
            x = x if transformer is None else transformer(x, context)
            skips += [x]
        if self.downsample:
            skips += [self.downsample(x)]
        return skips[-1], skips
