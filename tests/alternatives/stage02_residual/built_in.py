"""torch's SiLU, and the block as steps with names of their own."""


def silu(x):
    return nn.functional.silu(x)


class ResidualBlock(nn.Module):
    def __init__(self, in_channels, out_channels, time_channels=None, num_groups=32, eps=1e-6):
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(num_groups, in_channels, eps), GroupNorm(num_groups, out_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding="same")
        if time_channels is not None:
            self.time_proj = nn.Linear(time_channels, out_channels)
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, (1, 1))

    def forward(self, x, time_embedding=None):
        residual = x
        x = self.norm1(x)
        x = silu(x)
        x = self.conv1(x)
        if hasattr(self, "time_proj"):
            bias = self.time_proj(silu(time_embedding))
            x = x + bias.unsqueeze(-1).unsqueeze(-1)
        x = self.norm2(x)
        x = silu(x)
        x = self.conv2(x)
        if hasattr(self, "shortcut"):
            residual = self.shortcut(residual)
        return x + residual
