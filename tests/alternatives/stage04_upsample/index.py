"""Rows and columns picked by index; every second result of a convolution at full resolution."""

import torch


def upsample_nearest(x, scale=2):
    rows, columns = (torch.arange(size * scale, device=x.device) // scale for size in x.shape[-2:])
    return x[:, :, rows][:, :, :, columns]


class Downsample(Downsample):
    def forward(self, x):
        full = nn.functional.conv2d(x, self.conv.weight, self.conv.bias, padding=1)
        start = 1 if self.asymmetric else 0
        return full[:, :, start::2, start::2]
