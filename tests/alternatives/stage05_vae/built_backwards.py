"""The decoder's levels collected in a plain list, from the last width to the first; bytes by way of numpy."""

import numpy as np


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths = list(config.channels)
        width = widths[-1]
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding="same")
        self.middle = Middle(width, config.num_groups)
        levels = []
        while widths:
            following = widths.pop()
            resize = Upsample(following) if widths else None
            levels.append(Level(width, following, 1 + config.blocks_per_level, config.num_groups, resize))
            width = following
        self.levels = nn.ModuleList(levels)
        self.norm_out = GroupNorm(config.num_groups, width, eps=1e-6)
        self.conv_out = nn.Conv2d(width, config.image_channels, 3, padding="same")

    def forward(self, latents):
        x = self.middle(self.conv_in(latents))
        x = nn.Sequential(*self.levels)(x)
        return self.conv_out(silu(self.norm_out(x)))


def tensor_to_images(tensor):
    values = tensor.detach().cpu()
    values = (values.float() if values.itemsize == 2 else values).numpy()
    levels = np.rint(np.clip((values + 1) * 127.5, 0, 255)).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(levels.transpose(0, 2, 3, 1)))
