class MotionModule(nn.Module):
    """One film after the other, one row of pixels after the other."""

    def __init__(self, channels, num_heads, num_groups=32):
        super().__init__()
        self.norm = GroupNorm(num_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.block = MotionBlock(channels, num_heads)
        self.proj_out = nn.Linear(channels, channels)
        self.proj_out.weight.data.zero_()
        self.proj_out.bias.data.zero_()

    def forward(self, x, num_frames):
        return torch.cat([film + self.correction(film) for film in x.split(num_frames)])

    def correction(self, film):
        normalised = self.norm(film.transpose(0, 1)[None])[0]  # (C, F, H, W)
        rows = []
        for row in normalised.unbind(dim=2):  # (C, F, W)
            rows.append(self.proj_out(self.block(self.proj_in(row.permute(2, 1, 0)))).permute(1, 2, 0))
        return torch.stack(rows, dim=2)


def remap_motion(state_dict):
    ours = {}
    for name, tensor in state_dict.items():
        if name.split(".")[-1] == "pe":
            continue
        plain = name.removeprefix("module.").replace(".temporal_transformer.", ".").replace(".ff_norm.", ".norm3.")
        for i in (0, 1):
            plain = plain.replace(f".norms.{i}.", f".norm{i + 1}.").replace(f".attention_blocks.{i}.", f".attn{i + 1}.")
        place, separator, inside = plain.partition(".motion_modules.")
        number, _, inside = inside.partition(".")
        parts = place.split("_blocks.")
        if separator and place == "mid_block" and number == "0":
            start = "mid"
        elif separator and len(parts) == 2 and parts[0] in ("down", "up") and parts[1].isdigit() and number.isdigit():
            start = f"{parts[0]}.{parts[1]}.{number}"
        else:
            raise ValueError(f"{name} belongs to no motion module")
        try:
            ours[f"{start}.{rename(inside, MOTION_RULES)}"] = tensor
        except ValueError:
            raise ValueError(f"{name} is no tensor of a motion module") from None
    return ours
