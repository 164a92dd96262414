"""Levels made from zipped widths; loops written out; the distribution by torch.distributions."""


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths, last = config.channels, config.channels[-1]
        self.conv_in = nn.Conv2d(config.image_channels, widths[0], 3, padding=1)
        resizes = [Downsample(width, True) for width in widths[:-1]] + [None]
        self.levels = nn.ModuleList(
            Level(before, after, config.blocks_per_level, config.num_groups, resize)
            for before, after, resize in zip((widths[0], *widths), widths, resizes)
        )
        self.middle = Middle(last, config.num_groups)
        self.norm_out = GroupNorm(config.num_groups, last, 1e-6)
        self.conv_out = nn.Conv2d(last, config.latent_channels * 2, 3, padding=1)

    def forward(self, images):
        h = nn.Sequential(self.conv_in, *self.levels, self.middle, self.norm_out)(images)
        return self.conv_out(h * torch.sigmoid(h))


def sample_latents(moments, noise):
    half = moments.shape[1] // 2
    logvar = torch.clamp(moments[:, half:], min=-30, max=20)
    return torch.addcmul(moments[:, :half], logvar.div(2).exp(), noise)


def tensor_to_images(tensor):
    pictures = tensor.float() if tensor.dtype != torch.float64 else tensor
    pictures = pictures.clamp(-1, 1).movedim(1, -1)
    return ((pictures + 1) * 127.5).round().byte().contiguous()
