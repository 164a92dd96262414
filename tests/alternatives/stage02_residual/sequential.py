"""Nearly everything in nn.Sequential; SiLU by the tanh."""


def silu(x):
    return x * (1 + torch.tanh(x / 2)) / 2


class Silu(nn.Module):
    def forward(self, x):
        return silu(x)


class ResidualBlock(nn.Module):
    def __init__(self, in_channels, out_channels, time_channels=None, num_groups=32, eps=1e-6):
        super().__init__()
        self.norm1 = GroupNorm(num_groups, in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_proj = None
        if time_channels:
            self.time_proj = nn.Linear(time_channels, out_channels)
        self.norm2 = GroupNorm(num_groups, out_channels, eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Sequential()

    def forward(self, x, time_embedding=None):
        first = nn.Sequential(self.norm1, Silu(), self.conv1)
        second = nn.Sequential(self.norm2, Silu(), self.conv2)
        h = first(x)
        if self.time_proj is not None:
            shift = nn.Sequential(Silu(), self.time_proj)(time_embedding)
            h = h + shift.reshape(*shift.shape, 1, 1)
        return second(h) + self.shortcut(x)
