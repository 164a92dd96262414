"""Mistakes of stage 2."""

from course.feedback.mistakes import Mistake

MISTAKES = [
    Mistake(
        "dropout-left-in",
        "h = self.conv2(silu(self.norm2(h)))",
        "h = self.conv2(nn.functional.dropout(silu(self.norm2(h)), 0.1, self.training))",
        "there is a dropout of 0.1 before conv2. It acts in training mode only; Stable Diffusion's blocks have none.",
    ),
    Mistake(
        "time-of-the-first-call",
        "            h = h + self.time_proj(silu(time_embedding))[:, :, None, None]\n",
        """\
            if not hasattr(self, "time") or len(self.time) != len(x):
                self.time = self.time_proj(silu(time_embedding))[:, :, None, None]
            h = h + self.time
""",
        "the projected time is kept for the next call. Every step of sampling has another timestep.",
    ),
    Mistake(
        "sigmoid-alone",
        "return x * torch.sigmoid(x)",
        "return torch.sigmoid(x)",
        "silu is the sigmoid alone. The sigmoid is the gate; x goes through it.",
    ),
    Mistake(
        "relu",
        "return x * torch.sigmoid(x)",
        "return nn.functional.relu(x)",
        "the activation is ReLU. SiLU is smooth, and slightly below zero for negative x.",
    ),
    Mistake(
        "gelu",
        "return x * torch.sigmoid(x)",
        "return nn.functional.gelu(x)",
        "the activation is GELU, x * Phi(x). SiLU is x * sigmoid(x).",
    ),
    Mistake(
        "quick-gelu",
        "torch.sigmoid(x)",
        "torch.sigmoid(1.702 * x)",
        "the sigmoid takes 1.702 * x. That is CLIP's quick GELU; SiLU takes x itself.",
    ),
    Mistake(
        "tanh-gate",
        "torch.sigmoid(x)",
        "torch.tanh(x)",
        "the gate is a tanh. The sigmoid runs from 0 to 1, the tanh from -1 to 1.",
    ),
    Mistake(
        "sigmoid-by-hand",
        "return x * torch.sigmoid(x)",
        "return x * x.exp() / (1 + x.exp())",
        "the sigmoid is written as exp(x) / (1 + exp(x)). For large x that is infinity divided by infinity, nan.",
    ),
    Mistake(
        "silu-in-place",
        "return x * torch.sigmoid(x)",
        "return x.mul_(torch.sigmoid(x))",
        "silu changes its argument in place. The block still needs the values from before.",
    ),
    Mistake(
        "silu-without-gradient",
        "return x * torch.sigmoid(x)",
        "return x * torch.sigmoid(x.detach())",
        "the gate is treated as a constant in the gradient. The sigmoid depends on x too.",
    ),
    Mistake(
        "activation-before-norm1",
        "h = self.conv1(silu(self.norm1(x)))",
        "h = self.conv1(self.norm1(silu(x)))",
        "the first activation comes before the norm. The order is norm, activation, convolution.",
    ),
    Mistake(
        "activation-before-norm2",
        "h = self.conv2(silu(self.norm2(h)))",
        "h = self.conv2(self.norm2(silu(h)))",
        "the second activation comes before the norm. The order is norm, activation, convolution.",
    ),
    Mistake(
        "no-first-activation",
        "h = self.conv1(silu(self.norm1(x)))",
        "h = self.conv1(self.norm1(x))",
        "there is no activation before conv1. The order is norm, activation, convolution, twice.",
    ),
    Mistake(
        "no-second-activation",
        "h = self.conv2(silu(self.norm2(h)))",
        "h = self.conv2(self.norm2(h))",
        "there is no activation before conv2.",
    ),
    Mistake(
        "no-first-norm",
        "h = self.conv1(silu(self.norm1(x)))",
        "h = self.conv1(silu(x))",
        "norm1 is not used. The block normalises before each of its two convolutions.",
    ),
    Mistake(
        "no-second-norm",
        "h = self.conv2(silu(self.norm2(h)))",
        "h = self.conv2(silu(h))",
        "norm2 is not used. The block normalises before each of the two convolutions.",
    ),
    Mistake(
        "post-activation-first",
        "h = self.conv1(silu(self.norm1(x)))",
        "h = silu(self.conv1(self.norm1(x)))",
        "the first activation comes after the convolution. In a pre-activated block it comes before.",
    ),
    Mistake(
        "post-activation-second",
        "h = self.conv2(silu(self.norm2(h)))",
        "h = silu(self.conv2(self.norm2(h)))",
        "the second activation comes after the convolution. SiLU is never below -0.28, so no correction could be.",
    ),
    Mistake(
        "norm1-twice",
        "self.conv2(silu(self.norm2(h)))",
        "self.conv2(silu(self.norm1(h)))",
        "the second half uses norm1 again. Each half has a norm of its own.",
    ),
    Mistake(
        "conv1-twice",
        "self.conv2(silu(self.norm2(h)))",
        "self.conv1(silu(self.norm2(h)))",
        "the second half uses conv1 again. Each half has a convolution of its own.",
    ),
    Mistake(
        "block-without-init",
        "        super().__init__()\n",
        "",
        "__init__ does not call super().__init__() first. nn.Module cannot keep layers before that.",
    ),
    Mistake(
        "shortcut-forgotten",
        "return self.shortcut(x) + h",
        "return h",
        "the input is not added at the end. A residual block computes a correction to its input.",
    ),
    Mistake(
        "input-added-without-the-shortcut",
        "return self.shortcut(x) + h",
        "return x + h if x.shape == h.shape else h",
        "the shortcut is left out where the number of channels changes. The 1x1 convolution is there to make x fit.",
    ),
    Mistake(
        "shortcut-from-the-normalised-input",
        "return self.shortcut(x) + h",
        "return self.shortcut(self.norm1(x)) + h",
        "the shortcut starts from the normalised input. The direct path takes x as it came.",
    ),
    Mistake(
        "shortcut-from-the-activated-input",
        "return self.shortcut(x) + h",
        "return self.shortcut(silu(self.norm1(x))) + h",
        "the shortcut starts from the normalised and activated input. The direct path takes x as it came.",
    ),
    Mistake(
        "activation-after-the-sum",
        "return self.shortcut(x) + h",
        "return silu(self.shortcut(x) + h)",
        "an activation follows the sum. In a pre-activated block there is none on the direct path.",
    ),
    Mistake(
        "sum-divided-by-root-2",
        "return self.shortcut(x) + h",
        "return (self.shortcut(x) + h) / 2**0.5",
        "the sum is divided by the square root of 2. Some networks do that; Stable Diffusion's does not.",
    ),
    Mistake(
        "correction-subtracted",
        "return self.shortcut(x) + h",
        "return self.shortcut(x) - h",
        "the correction is subtracted. It is added.",
    ),
    Mistake(
        "sum-in-place",
        "return self.shortcut(x) + h",
        "return self.shortcut(x).add_(h)",
        "the sum is made in place. Where the shortcut is x itself, the caller's x changes.",
    ),
    Mistake(
        "no-activation-on-the-time",
        "self.time_proj(silu(time_embedding))",
        "self.time_proj(time_embedding)",
        "the time embedding goes into time_proj without an activation. silu comes first.",
    ),
    Mistake(
        "activation-after-the-time-projection",
        "self.time_proj(silu(time_embedding))",
        "silu(self.time_proj(time_embedding))",
        "the activation follows time_proj. It comes before: silu, then the projection.",
    ),
    Mistake(
        "time-not-added",
        "            h = h + self.time_proj(silu(time_embedding))[:, :, None, None]\n",
        "            pass\n",
        "the time embedding is not used. The network would not know how noisy its input is.",
    ),
    Mistake(
        "time-after-conv2",
        """\
        if self.time_proj is not None:
            h = h + self.time_proj(silu(time_embedding))[:, :, None, None]
        h = self.conv2(silu(self.norm2(h)))
""",
        """\
        h = self.conv2(silu(self.norm2(h)))
        if self.time_proj is not None:
            h = h + self.time_proj(silu(time_embedding))[:, :, None, None]
""",
        "the time is added after conv2. It belongs between the two convolutions, so that the second can react to it.",
    ),
    Mistake(
        "time-after-norm2",
        """\
        if self.time_proj is not None:
            h = h + self.time_proj(silu(time_embedding))[:, :, None, None]
        h = self.conv2(silu(self.norm2(h)))
""",
        """\
        h = self.norm2(h)
        if self.time_proj is not None:
            h = h + self.time_proj(silu(time_embedding))[:, :, None, None]
        h = self.conv2(silu(h))
""",
        "the time is added after norm2. It comes before that norm, right after conv1.",
    ),
    Mistake(
        "time-multiplied",
        "h = h + self.time_proj(silu(time_embedding))[:, :, None, None]",
        "h = h * (1 + self.time_proj(silu(time_embedding))[:, :, None, None])",
        "the time scales the channels. In this block it is added to them.",
    ),
    Mistake(
        "first-time-for-the-whole-batch",
        "self.time_proj(silu(time_embedding))[:, :, None, None]",
        "self.time_proj(silu(time_embedding))[:1, :, None, None]",
        "every sample gets the time of the first one. Each sample of a batch has its own.",
    ),
    Mistake(
        "mean-time-for-the-whole-batch",
        "self.time_proj(silu(time_embedding))[:, :, None, None]",
        "self.time_proj(silu(time_embedding)).mean(dim=0)[None, :, None, None]",
        "every sample gets the mean time of the batch. Each sample has its own.",
    ),
    Mistake(
        "time-per-column",
        "self.time_proj(silu(time_embedding))[:, :, None, None]",
        "self.time_proj(silu(time_embedding))",
        "the projected time is added with the shape (batch, channels). Broadcasting lines it up with rows and columns.",
    ),
    Mistake(
        "norm1-with-the-default-eps",
        "self.norm1 = GroupNorm(num_groups, in_channels, eps)",
        "self.norm1 = GroupNorm(num_groups, in_channels)",
        "norm1 does not get eps. GroupNorm's default is another one.",
    ),
    Mistake(
        "norm2-with-the-default-eps",
        "self.norm2 = GroupNorm(num_groups, out_channels, eps)",
        "self.norm2 = GroupNorm(num_groups, out_channels)",
        "norm2 does not get eps. GroupNorm's default is another one.",
    ),
    Mistake(
        "default-eps",
        "eps: float = 1e-6,",
        "eps: float = 1e-5,",
        "the block's default eps is 1e-5. It is 1e-6 here.",
    ),
    Mistake(
        "norm2-over-the-input-channels",
        "self.norm2 = GroupNorm(num_groups, out_channels, eps)",
        "self.norm2 = GroupNorm(num_groups, in_channels, eps)",
        "norm2 is made for in_channels. It comes after conv1, where there are out_channels.",
    ),
    Mistake(
        "norms-with-one-group",
        "self.norm2 = GroupNorm(num_groups, out_channels, eps)",
        "self.norm2 = GroupNorm(1, out_channels, eps)",
        "norm2 has a single group. It gets num_groups like norm1.",
    ),
    Mistake(
        "norm1-with-one-group",
        "self.norm1 = GroupNorm(num_groups, in_channels, eps)",
        "self.norm1 = GroupNorm(1, in_channels, eps)",
        "norm1 has a single group. It gets num_groups.",
    ),
    Mistake(
        "default-number-of-groups",
        "num_groups: int = 32,",
        "num_groups: int = 16,",
        "the default number of groups is 16. Stable Diffusion has 32 everywhere.",
    ),
    Mistake(
        "conv1-without-padding",
        "self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)",
        "self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3)",
        "conv1 has no padding. Height and width shrink by two, and no longer fit those of the shortcut.",
    ),
    Mistake(
        "padding-by-repetition",
        "self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)",
        'self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, padding_mode="replicate")',
        "conv2 pads by repeating the border. The padding is zeros.",
    ),
    Mistake(
        "conv1-without-bias",
        "self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)",
        "self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)",
        "conv1 has no bias. All convolutions of the block have one.",
    ),
    Mistake(
        "shortcut-of-3x3",
        "self.shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1)",
        "self.shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)",
        "the shortcut is a 3x3 convolution. It is 1x1: it mixes channels, not positions.",
    ),
    Mistake(
        "shortcut-always-a-convolution",
        "        if in_channels == out_channels:",
        "        if False:",
        "the shortcut is a convolution even where the number of channels stays the same. x itself is added there.",
    ),
    Mistake(
        "time-projection-always-made",
        "nn.Linear(time_channels, out_channels) if time_channels is not None else None",
        "nn.Linear(time_channels or out_channels, out_channels)",
        "there is a time_proj without time_channels too. The VAE's blocks have none.",
    ),
    Mistake(
        "time-projection-without-bias",
        "nn.Linear(time_channels, out_channels) if",
        "nn.Linear(time_channels, out_channels, bias=False) if",
        "time_proj has no bias. It is an ordinary linear layer.",
    ),
    Mistake(
        "silu-in-float64",
        "return x * torch.sigmoid(x)",
        "return (x.double() * torch.sigmoid(x.double())).to(x.dtype)",
        "SiLU is computed in float64. Apple's GPUs have no float64.",
    ),
    Mistake(
        "zeros-for-no-time",
        "        h = self.conv2(silu(self.norm2(h)))",
        """\
        else:
            h = h + torch.zeros(1, h.shape[1], 1, 1, dtype=h.dtype)
        h = self.conv2(silu(self.norm2(h)))""",
        "zeros of the processor are added where there is no time embedding. On a GPU they do not go together with x.",
    ),
    Mistake(
        "time-projection-in-float32",
        "nn.Linear(time_channels, out_channels) if",
        "nn.Linear(time_channels, out_channels, dtype=torch.float32) if",
        "time_proj is made in float32, whatever the dtype of the model is. Without dtype=... it has that of the "
        "other layers.",
    ),
    Mistake(
        "first-convolution-in-float32",
        "self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)",
        "self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, dtype=torch.float32)",
        "conv1 is made in float32, whatever the dtype of the model is. Without dtype=... it has that of the other "
        "layers.",
    ),
]
