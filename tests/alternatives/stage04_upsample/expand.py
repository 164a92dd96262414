"""Two dimensions of size `scale`, broadcast and merged; padding by concatenation."""

import torch


def upsample_nearest(x, scale=2):
    b, c, h, w = x.shape
    return x.reshape(b, c, h, 1, w, 1).expand(b, c, h, scale, w, scale).reshape(b, c, h * scale, w * scale)


class Upsample(Upsample):
    def forward(self, x):
        y = upsample_nearest(x, scale=2)
        return nn.functional.conv2d(y, self.conv.weight, padding="same") + self.conv.bias[None, :, None, None]


class Downsample(Downsample):
    def forward(self, x):
        if not self.asymmetric:
            return nn.functional.conv2d(x, self.conv.weight, self.conv.bias, stride=(2, 2), padding=(1, 1))
        x = torch.cat([x, torch.zeros_like(x[:, :, :1])], dim=2)
        x = torch.cat([x, torch.zeros_like(x[:, :, :, :1])], dim=3)
        return nn.functional.conv2d(x, self.conv.weight, self.conv.bias, stride=2)
