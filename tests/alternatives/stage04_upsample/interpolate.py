"""torch's resize; padding as a layer."""


def upsample_nearest(x, scale=2):
    return nn.functional.interpolate(x, scale_factor=float(scale), mode="nearest")


class Downsample(nn.Module):
    def __init__(self, channels, asymmetric=False):
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1) if asymmetric else 1)
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x):
        return self.conv(self.pad(x))
