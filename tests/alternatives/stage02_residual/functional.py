"""Convolutions by F.conv2d; the time is added with the channels last."""

F = nn.functional


def silu(x):
    return torch.sigmoid(x).mul(x)


class ResidualBlock(ResidualBlock):
    def forward(self, x, time_embedding=None):
        skip = x
        if isinstance(self.shortcut, nn.Conv2d):
            skip = F.conv2d(x, self.shortcut.weight, self.shortcut.bias)
        h = F.conv2d(silu(self.norm1(x)), self.conv1.weight, padding=1)
        shift = self.conv1.bias
        if self.time_proj is not None:
            shift = shift + F.linear(silu(time_embedding), self.time_proj.weight, self.time_proj.bias)[:, None, None]
        h = (h.permute(0, 2, 3, 1) + shift).permute(0, 3, 1, 2)
        return torch.add(F.conv2d(silu(self.norm2(h)), self.conv2.weight, self.conv2.bias, padding="same"), skip)
