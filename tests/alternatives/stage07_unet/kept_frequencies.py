"""Frequencies are kept, under all that they depend on; the skips are an attribute that each call begins anew."""

import functools


@functools.lru_cache
def frequencies_of(half, max_period, dtype, device):
    return torch.tensor([max_period ** (-i / half) for i in range(half)], dtype=dtype, device=device)


def timestep_embedding(timesteps, channels, max_period=10000.0):
    dtype = timesteps.dtype if timesteps.dtype is torch.float64 else torch.float32
    angles = torch.outer(timesteps.to(dtype), frequencies_of(channels // 2, max_period, dtype, timesteps.device))
    return torch.hstack([angles.cos(), angles.sin()])


class DownBlock(DownBlock):
    def forward(self, x, time_embedding, context):
        results = [x]
        for i, residual in enumerate(self.residuals):
            h = residual(results[-1], time_embedding)
            results.append(self.transformers[i](h, context) if len(self.transformers) else h)
        if self.downsample:
            results.append(self.downsample(results[-1]))
        return results[-1], results[1:]


class UNet(UNet):
    def forward(self, latents, timesteps, context):
        time_embedding = self.time_embedding(timesteps)
        self.skips = [self.conv_in(latents)]
        x = self.skips[0]
        for block in self.down:
            x, more = block(x, time_embedding, context)
            self.skips += more
        x = self.mid(x, time_embedding, context)
        for block in self.up:
            x = block(x, self.skips, time_embedding, context)
        return self.conv_out(nn.functional.silu(self.norm_out(x)))
