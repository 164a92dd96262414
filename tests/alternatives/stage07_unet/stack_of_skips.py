"""Frequencies one by one, with math's power; the used skips taken off at once; a level's share handed over alone."""


def timestep_embedding(timesteps, channels, max_period=10000.0):
    t = timesteps.double() if timesteps.dtype == torch.float64 else timesteps.float()
    half = channels // 2
    frequencies = torch.tensor([max_period ** (-i / half) for i in range(half)], dtype=t.dtype, device=t.device)
    angles = torch.outer(t, frequencies)
    return torch.cat((angles.cos(), angles.sin()), -1)


class UpBlock(UpBlock):
    def forward(self, x, skips, time_embedding, context):
        used = [skips.pop() for _ in self.residuals]
        for i in range(len(self.residuals)):
            x = torch.cat((x, used[i]), 1)
            x = self.residuals[i](x, time_embedding)
            if len(self.transformers) > 0:
                x = self.transformers[i](x, context)
        return x if self.upsample is None else self.upsample(x)


class UNet(UNet):
    def forward(self, latents, timesteps, context):
        time = self.time_embedding(timesteps)
        x = self.conv_in(latents)
        stack = [x]
        for block in self.down:
            x, made = block(x, time, context)
            stack.extend(made)
        x = self.mid(x, time, context)
        for block in self.up:
            newest = [stack.pop() for _ in block.residuals]
            x = block(x, newest[::-1], time, context)
        return self.conv_out(silu(self.norm_out(x)))
