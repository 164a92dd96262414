"""Mistakes of stage 4."""

from course.feedback.mistakes import Mistake

REPEATED = "x.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)"

MISTAKES = [
    Mistake(
        "upsample-size-of-the-first-call",
        "        return self.conv(upsample_nearest(x))",
        """\
        if not hasattr(self, "size"):
            self.size = 2 * x.shape[-2], 2 * x.shape[-1]
        return self.conv(nn.functional.interpolate(x, size=self.size))""",
        "the size that Upsample aims at is computed once. Another picture has another size.",
    ),
    Mistake(
        "zeros-not-cleared",
        "            x = nn.functional.pad(x, (0, 1, 0, 1))  # left, right, top, bottom\n",
        """\
            height, width = x.shape[-2:]
            padded = getattr(self, "padded", x.new_zeros(0, 0, 0, 0)).detach().clone().to(x.dtype)
            if padded.shape[:2] != x.shape[:2] or padded.shape[2] <= height or padded.shape[3] <= width:
                padded = x.new_zeros(*x.shape[:2], height + 1, width + 1)
            padded[:, :, :height, :width] = x
            self.padded = padded
            x = padded[:, :, : height + 1, : width + 1]
""",
        "the padded picture is kept and filled again. A smaller picture then has numbers of the last one in the "
        "place of "
        "zeros.",
    ),
    Mistake(
        "upsample-with-dropout",
        "return self.conv(upsample_nearest(x))",
        "return nn.functional.dropout(self.conv(upsample_nearest(x)), 0.1, self.training)",
        "there is a dropout of 0.1 after Upsample's convolution. It acts in training mode only; there is none here.",
    ),
    Mistake(
        "tiled",
        REPEATED,
        "x.repeat(1, 1, scale, scale)",
        "the whole picture is repeated, side by side. Each pixel is to be repeated, beside itself.",
    ),
    Mistake(
        "bilinear",
        REPEATED,
        'nn.functional.interpolate(x, scale_factor=scale, mode="bilinear")',
        "the pixels between are interpolated. Nearest neighbour only repeats.",
    ),
    Mistake(
        "bicubic",
        REPEATED,
        'nn.functional.interpolate(x, scale_factor=scale, mode="bicubic")',
        "the pixels between are interpolated by cubic curves. Nearest neighbour only repeats.",
    ),
    Mistake(
        "rows-only",
        REPEATED,
        "x.repeat_interleave(scale, dim=-2)",
        "only the rows are repeated. The columns have to be, too.",
    ),
    Mistake(
        "columns-only",
        REPEATED,
        "x.repeat_interleave(scale, dim=-1)",
        "only the columns are repeated. The rows have to be, too.",
    ),
    Mistake(
        "rows-tiled",
        REPEATED,
        "x.repeat(1, 1, scale, 1).repeat_interleave(scale, dim=-1)",
        "the columns are repeated one by one, but the rows as a whole. Each row is to be repeated below itself.",
    ),
    Mistake(
        "columns-tiled",
        REPEATED,
        "x.repeat_interleave(scale, dim=-2).repeat(1, 1, 1, scale)",
        "the rows are repeated one by one, but the columns as a whole. Each column is to be repeated beside itself.",
    ),
    Mistake(
        "zeros-between",
        REPEATED,
        "nn.functional.pad(x[..., None, :, None], (0, scale - 1, 0, 0, 0, scale - 1))"
        ".permute(0, 1, 3, 2, 4, 5).flatten(4).flatten(2, 3)",
        "zeros fill the squares. Every pixel of a square has the value of the one it came from.",
    ),
    Mistake(
        "channels-repeated",
        REPEATED,
        "x.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=-1)",
        "channels are repeated in place of rows. The rows are the last dimension but one.",
    ),
    Mistake(
        "height-and-width-exchanged",
        REPEATED,
        "x.transpose(-2, -1).repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)",
        "the picture is transposed on the way. Rows stay rows.",
    ),
    Mistake(
        "always-twice",
        REPEATED,
        "x.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)",
        "the scale is always 2. 2 is only the default.",
    ),
    Mistake(
        "default-scale",
        "scale: int = 2",
        "scale: int = 4",
        "the default scale is 4. It is 2.",
    ),
    Mistake(
        "values-shared-out",
        REPEATED,
        REPEATED + " / scale**2",
        "each value is divided among the pixels of its square. Each of them gets the whole value.",
    ),
    Mistake(
        "convolution-before-the-resize",
        "return self.conv(upsample_nearest(x))",
        "return upsample_nearest(self.conv(x))",
        "the convolution comes before the resize. It comes after, to smooth the squares.",
    ),
    Mistake(
        "upsample-without-convolution",
        "return self.conv(upsample_nearest(x))",
        "return upsample_nearest(x)",
        "Upsample has no convolution. It comes after the resize, to smooth the squares.",
    ),
    Mistake(
        "upsample-without-resize",
        "return self.conv(upsample_nearest(x))",
        "return self.conv(x)",
        "Upsample does not resize.",
    ),
    Mistake(
        "upsampled-twice",
        "return self.conv(upsample_nearest(x))",
        "return self.conv(upsample_nearest(upsample_nearest(x)))",
        "Upsample resizes twice.",
    ),
    Mistake(
        "upsample-convolution-without-padding",
        "self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)",
        "self.conv = nn.Conv2d(channels, channels, kernel_size=3)",
        "Upsample's convolution has no padding. The picture loses a pixel on every side.",
    ),
    Mistake(
        "upsample-pads-by-repetition",
        "self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)",
        'self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1, padding_mode="replicate")',
        "Upsample's convolution pads by repeating the border. The padding is zeros.",
    ),
    Mistake(
        "upsample-convolution-without-bias",
        "self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)",
        "self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)",
        "Upsample's convolution has no bias.",
    ),
    Mistake(
        "upsample-convolution-of-1x1",
        "self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)",
        "self.conv = nn.Conv2d(channels, channels, kernel_size=1)",
        "Upsample's convolution is 1x1. It cannot smooth the squares; 3x3 can.",
    ),
    Mistake(
        "depthwise-convolution",
        "self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)",
        "self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels)",
        "Upsample's convolution treats every channel by itself. An ordinary convolution mixes all channels.",
    ),
    Mistake(
        "always-symmetric",
        "stride=2, padding=0 if asymmetric else 1)",
        "stride=2, padding=0 if asymmetric else 1)\n        self.asymmetric, self.conv.padding = False, (1, 1)",
        "Downsample pads all four sides even if it is to be asymmetric. The VAE pads the right and the bottom only.",
    ),
    Mistake(
        "always-asymmetric",
        "stride=2, padding=0 if asymmetric else 1)",
        "stride=2, padding=0)\n        self.asymmetric = True",
        "Downsample pads the right and the bottom only, even if it is to be symmetric. The U-Net pads all four sides.",
    ),
    Mistake(
        "asymmetric-by-default",
        "asymmetric: bool = False",
        "asymmetric: bool = True",
        "Downsample is asymmetric unless told otherwise. By default it pads all four sides.",
        like=("always-asymmetric",),
    ),
    Mistake(
        "padded-at-the-top-left",
        "(0, 1, 0, 1)",
        "(1, 0, 1, 0)",
        "the asymmetric Downsample pads the left and the top. It pads the right and the bottom.",
    ),
    Mistake(
        "padded-at-the-top-right",
        "(0, 1, 0, 1)",
        "(0, 1, 1, 0)",
        "the asymmetric Downsample pads the right and the top. pad counts left, right, top, bottom.",
    ),
    Mistake(
        "padded-at-the-bottom-left",
        "(0, 1, 0, 1)",
        "(1, 0, 0, 1)",
        "the asymmetric Downsample pads the left and the bottom. pad counts left, right, top, bottom.",
    ),
    Mistake(
        "padded-before-and-inside",
        "padding=0 if asymmetric else 1",
        "padding=1",
        "the asymmetric Downsample pads twice: right and bottom first, then all four sides in the convolution.",
    ),
    Mistake(
        "padded-by-repetition",
        "nn.functional.pad(x, (0, 1, 0, 1))",
        'nn.functional.pad(x, (0, 1, 0, 1), mode="replicate")',
        "the asymmetric Downsample pads by repeating the border. The padding is zeros.",
    ),
    Mistake(
        "not-padded",
        "            x = nn.functional.pad(x, (0, 1, 0, 1))  # left, right, top, bottom\n",
        "            pass\n",
        "the asymmetric Downsample does not pad. Then the last row and column of the result are missing.",
    ),
    Mistake(
        "stride-1",
        "stride=2,",
        "stride=1,",
        "Downsample's convolution has a stride of 1. A stride of 2 halves the resolution.",
    ),
    Mistake(
        "every-second-pixel",
        """\
            x = nn.functional.pad(x, (0, 1, 0, 1))  # left, right, top, bottom
        return self.conv(x)""",
        """\
            x = nn.functional.pad(x, (0, 1, 0, 1))  # left, right, top, bottom
        full = nn.functional.conv2d(x, self.conv.weight, self.conv.bias, padding=self.conv.padding)
        return full[:, :, 1::2, 1::2]""",
        "the convolution runs at full resolution and every second pixel is kept, starting with the wrong one.",
    ),
    Mistake(
        "average-pooling",
        """\
            x = nn.functional.pad(x, (0, 1, 0, 1))  # left, right, top, bottom
        return self.conv(x)""",
        """\
            return nn.functional.avg_pool2d(nn.functional.conv2d(x, self.conv.weight, self.conv.bias, padding=1), 2)
        return nn.functional.avg_pool2d(nn.functional.conv2d(x, self.conv.weight, self.conv.bias, padding=1), 2)""",
        "Downsample averages squares of four pixels. It is a convolution with stride 2.",
    ),
    Mistake(
        "downsample-without-bias",
        "kernel_size=3, stride=2, padding=0 if asymmetric else 1)",
        "kernel_size=3, stride=2, padding=0 if asymmetric else 1, bias=False)",
        "Downsample's convolution has no bias.",
    ),
    Mistake(
        "padding-on-the-processor",
        "            x = nn.functional.pad(x, (0, 1, 0, 1))  # left, right, top, bottom",
        """\
            import torch

            x = torch.cat([x, torch.zeros(*x.shape[:3], 1, dtype=x.dtype)], dim=3)
            x = torch.cat([x, torch.zeros(*x.shape[:2], 1, x.shape[3], dtype=x.dtype)], dim=2)""",
        "the zeros of the padding are made on the processor. On a GPU they do not go together with x.",
    ),
    Mistake(
        "repeated-on-the-processor",
        "    return x.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)",
        """\
    import torch

    y = torch.empty(*x.shape[:2], x.shape[2] * scale, x.shape[3] * scale, dtype=x.dtype)
    for i in range(scale):
        for j in range(scale):
            y[:, :, i::scale, j::scale] = x
    return y""",
        "the large picture is made on the processor, whatever the device of x is. torch.empty(..., device=x.device) "
        "makes it where x is.",
    ),
]
