def frame_positions(num_frames, channels, max_period=10000.0):
    positions = torch.zeros(num_frames, channels, dtype=torch.float64)
    rates = torch.exp(torch.arange(0, channels, 2, dtype=torch.float64) * (-float(torch.tensor(max_period, dtype=torch.float64).log()) / channels))
    angles = torch.einsum("n,i->ni", torch.arange(num_frames, dtype=torch.float64), rates)
    positions[:, 0::2], positions[:, 1::2] = angles.sin(), angles.cos()
    return positions


class MotionModule(nn.Module):
    def __init__(self, channels, num_heads, num_groups=32):
        super().__init__()
        self.norm = nn.GroupNorm(num_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.block = MotionBlock(channels, num_heads)
        self.proj_out = nn.Linear(channels, channels)
        with torch.no_grad():
            self.proj_out.weight.fill_(0.0)
            self.proj_out.bias.fill_(0.0)

    def forward(self, x, num_frames):
        total, channels, height, width = x.shape
        films = total // num_frames
        tall = x.reshape(films, num_frames, channels, height * width).permute(0, 2, 1, 3)
        y = self.norm(tall.reshape(films, channels, num_frames * height, width)).reshape(tall.shape)
        y = torch.einsum("bcfp->bpfc", y).reshape(-1, num_frames, channels)
        y = self.proj_out(self.block(self.proj_in(y)))
        y = torch.einsum("bpfc->bfcp", y.reshape(films, height * width, num_frames, channels))
        return x + y.reshape(x.shape)
