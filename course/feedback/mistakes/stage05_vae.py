"""Mistakes of stage 5."""

from course.feedback.mistakes import Mistake

MISTAKES = [
    Mistake(
        "encoder-with-dropout",
        "        x = self.middle(x)\n        return",
        "        x = nn.functional.dropout(self.middle(x), 0.1, self.training)\n        return",
        "there is a dropout of 0.1 after the encoder's middle. It acts in training mode only; there is none here.",
    ),
    Mistake(
        "deviation-overflows-in-float16",
        "std = torch.exp(0.5 * logvar.clamp(-30.0, 20.0))",
        "std = torch.exp(logvar.clamp(-30.0, 20.0)).sqrt()",
        "the root is taken after the exponential. exp(20) is more than float16 can hold, exp(20 / 2) is not.",
    ),
    Mistake(
        "sampling-in-training",
        "        latents = mean if noise is None else sample_latents(moments, noise)\n",
        """\
        if self.training and noise is None:
            noise = torch.randn_like(mean)
        latents = mean if noise is None else sample_latents(moments, noise)
""",
        "in training mode encode draws noise of its own. Without noise it gives the mean, in either mode.",
    ),
    Mistake(
        "mean-in-training",
        "latents = mean if noise is None else",
        "latents = mean if noise is None or self.training else",
        "in training mode encode gives the mean although there is noise.",
    ),
    Mistake(
        "noise-of-the-last-call",
        "        latents = mean if noise is None else sample_latents(moments, noise)\n",
        """\
        if noise is not None:
            self.noise = noise
        noise = getattr(self, "noise", None)
        latents = mean if noise is None else sample_latents(moments, noise)
""",
        "the noise of an earlier call is used when none is given. Without noise, encode gives the mean.",
    ),
    Mistake(
        "moments-of-the-first-call",
        "        moments = self.quant_conv(self.encoder(images))\n",
        """\
        if not hasattr(self, "kept") or self.kept[0] != images.shape:
            self.kept = images.shape, self.quant_conv(self.encoder(images))
        moments = self.kept[1]
""",
        "the moments are kept for the next pictures of the same shape. They are those of other pictures.",
    ),
    Mistake(
        "encoder-levels-all-downsampled",
        "resize = Downsample(width, asymmetric=True) if i < len(channels) - 1 else None",
        "resize = Downsample(width, asymmetric=True)",
        "every level of the encoder ends with a Downsample. The last one does not.",
    ),
    Mistake(
        "encoder-symmetric-padding",
        "Downsample(width, asymmetric=True)",
        "Downsample(width)",
        "the encoder pads all four sides when it halves the resolution. The VAE pads the right and the bottom only.",
    ),
    Mistake(
        "encoder-first-level-not-downsampled",
        "resize = Downsample(width, asymmetric=True) if i < len(channels) - 1 else None",
        "resize = Downsample(width, asymmetric=True) if i > 0 else None",
        "the encoder's first level has no Downsample but its last one has. It is the other way round.",
    ),
    Mistake(
        "encoder-blocks-off-by-one",
        "Level(previous, width, config.blocks_per_level, config.num_groups, resize)",
        "Level(previous, width, config.blocks_per_level + 1, config.num_groups, resize)",
        "the encoder's levels have one block too many. It is the decoder's that have one more.",
    ),
    Mistake(
        "encoder-width-too-early",
        """\
            resize = Downsample(width, asymmetric=True) if i < len(channels) - 1 else None
            self.levels.append(Level(previous, width,""",
        """\
            resize = Downsample(width, asymmetric=True) if i < len(channels) - 1 else None
            self.levels.append(Level(width, width,""",
        "a level of the encoder expects its own number of channels. What comes in has the number of the level before.",
    ),
    Mistake(
        "encoder-without-middle",
        "        x = self.middle(x)\n",
        "",
        "the encoder skips its middle. Residual block, attention and residual block follow the levels.",
    ),
    Mistake(
        "encoder-middle-twice",
        "        x = self.middle(x)\n",
        "        x = self.middle(self.middle(x))\n",
        "the encoder runs its middle twice.",
    ),
    Mistake(
        "encoder-without-attention",
        "        x = self.middle(x)\n",
        "        x = self.middle.residual2(self.middle.residual1(x))\n",
        "the encoder's middle leaves out the attention.",
    ),
    Mistake(
        "encoder-without-last-activation",
        """\
        x = self.middle(x)
        return self.conv_out(silu(self.norm_out(x)))""",
        """\
        x = self.middle(x)
        return self.conv_out(self.norm_out(x))""",
        "the encoder has no activation before conv_out. The end is norm, silu, convolution.",
    ),
    Mistake(
        "encoder-without-last-norm",
        """\
        x = self.middle(x)
        return self.conv_out(silu(self.norm_out(x)))""",
        """\
        x = self.middle(x)
        return self.conv_out(silu(x))""",
        "the encoder has no norm before conv_out. The end is norm, silu, convolution.",
    ),
    Mistake(
        "encoder-last-activation-before-the-norm",
        """\
        x = self.middle(x)
        return self.conv_out(silu(self.norm_out(x)))""",
        """\
        x = self.middle(x)
        return self.conv_out(self.norm_out(silu(x)))""",
        "the encoder's last activation comes before the norm. The end is norm, silu, convolution.",
    ),
    Mistake(
        "encoder-last-eps",
        """\
        self.norm_out = GroupNorm(config.num_groups, channels[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(channels[-1], 2 *""",
        """\
        self.norm_out = GroupNorm(config.num_groups, channels[-1])
        self.conv_out = nn.Conv2d(channels[-1], 2 *""",
        "the encoder's norm_out has GroupNorm's default eps. It has 1e-6.",
    ),
    Mistake(
        "encoder-mean-only",
        "self.conv_out = nn.Conv2d(channels[-1], 2 * config.latent_channels,",
        "self.conv_out = nn.Conv2d(channels[-1], config.latent_channels,",
        "the encoder returns latent_channels channels. It returns two moments for each: a mean and a log variance.",
    ),
    Mistake(
        "decoder-channels-not-reversed",
        "channels = config.channels[::-1]",
        "channels = config.channels",
        "the decoder goes through the channels in the encoder's order. It starts at the lowest resolution, with the "
        "last.",
    ),
    Mistake(
        "decoder-levels-all-upsampled",
        "resize = Upsample(width) if i < len(channels) - 1 else None",
        "resize = Upsample(width)",
        "every level of the decoder ends with an Upsample. The last one run does not.",
    ),
    Mistake(
        "decoder-first-level-not-upsampled",
        "resize = Upsample(width) if i < len(channels) - 1 else None",
        "resize = Upsample(width) if i > 0 else None",
        "the decoder's first level has no Upsample but its last one has. It is the other way round.",
    ),
    Mistake(
        "decoder-blocks-as-in-the-encoder",
        "config.blocks_per_level + 1, config.num_groups",
        "config.blocks_per_level, config.num_groups",
        "the decoder's levels have as many blocks as the encoder's. They have one more.",
    ),
    Mistake(
        "decoder-without-middle",
        "x = self.middle(self.conv_in(latents))",
        "x = self.conv_in(latents)",
        "the decoder skips its middle. Residual block, attention and residual block come right after conv_in.",
    ),
    Mistake(
        "decoder-without-attention",
        "x = self.middle(self.conv_in(latents))",
        "x = self.middle.residual2(self.middle.residual1(self.conv_in(latents)))",
        "the decoder's middle leaves out the attention.",
    ),
    Mistake(
        "decoder-middle-last",
        """\
        x = self.middle(self.conv_in(latents))
        for level in self.levels:
            x = level(x)
""",
        """\
        x = self.conv_in(latents)
        for level in self.levels:
            x = level(x)
        x = self.middle(x)
""",
        "the decoder's middle comes after the levels, as in the encoder. It comes before them: it belongs to the "
        "lowest resolution, with which the decoder begins.",
    ),
    Mistake(
        "decoder-middle-twice",
        "x = self.middle(self.conv_in(latents))",
        "x = self.middle(self.middle(self.conv_in(latents)))",
        "the decoder runs its middle twice.",
    ),
    Mistake(
        "decoder-levels-reversed",
        """\
        x = self.middle(self.conv_in(latents))
        for level in self.levels:
""",
        """\
        x = self.middle(self.conv_in(latents))
        for level in reversed(self.levels):
""",
        "the decoder runs its levels backwards. They are stored in the order in which they run.",
    ),
    Mistake(
        "decoder-without-last-activation",
        """\
            x = level(x)
        return self.conv_out(silu(self.norm_out(x)))""",
        """\
            x = level(x)
        return self.conv_out(self.norm_out(x))""",
        "the decoder has no activation before conv_out. The end is norm, silu, convolution.",
    ),
    Mistake(
        "decoder-without-last-norm",
        """\
            x = level(x)
        return self.conv_out(silu(self.norm_out(x)))""",
        """\
            x = level(x)
        return self.conv_out(silu(x))""",
        "the decoder has no norm before conv_out. The end is norm, silu, convolution.",
    ),
    Mistake(
        "decoder-clamped",
        """\
            x = level(x)
        return self.conv_out(silu(self.norm_out(x)))""",
        """\
            x = level(x)
        return self.conv_out(silu(self.norm_out(x))).clamp(-1.0, 1.0)""",
        "the decoder clamps its result to [-1, 1]. tensor_to_images does that; the decoder returns what it has.",
    ),
    Mistake(
        "decoder-with-tanh",
        """\
            x = level(x)
        return self.conv_out(silu(self.norm_out(x)))""",
        """\
            x = level(x)
        return torch.tanh(self.conv_out(silu(self.norm_out(x))))""",
        "the decoder ends with a tanh. It ends with the convolution.",
    ),
    Mistake(
        "decoder-last-eps",
        """\
        self.norm_out = GroupNorm(config.num_groups, channels[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(channels[-1], config.image_channels""",
        """\
        self.norm_out = GroupNorm(config.num_groups, channels[-1])
        self.conv_out = nn.Conv2d(channels[-1], config.image_channels""",
        "the decoder's norm_out has GroupNorm's default eps. It has 1e-6.",
    ),
    Mistake(
        "mean-and-log-variance-exchanged",
        "mean, logvar = moments.chunk(2, dim=1)",
        "logvar, mean = moments.chunk(2, dim=1)",
        "mean and log variance change places. The first half of the channels is the mean.",
    ),
    Mistake(
        "moments-interleaved",
        "mean, logvar = moments.chunk(2, dim=1)",
        "mean, logvar = moments[:, ::2], moments[:, 1::2]",
        "means and log variances take turns along the channels. The first half is the means, the second the log "
        "variances.",
    ),
    Mistake(
        "moments-cut-along-the-width",
        "mean, logvar = moments.chunk(2, dim=1)",
        "mean, logvar = moments.chunk(2, dim=-1)",
        "the moments are cut in two along the width. They are stacked along the channels.",
    ),
    Mistake(
        "variance-as-deviation",
        "torch.exp(0.5 * logvar.clamp(-30.0, 20.0))",
        "torch.exp(logvar.clamp(-30.0, 20.0))",
        "the noise is multiplied by the variance. The standard deviation is its square root: half of the logarithm.",
    ),
    Mistake(
        "log-variance-as-deviation",
        "torch.exp(0.5 * logvar.clamp(-30.0, 20.0))",
        "logvar.clamp(-30.0, 20.0)",
        "the noise is multiplied by the logarithm of the variance. It can be negative; take the exponential.",
    ),
    Mistake(
        "deviation-inverted",
        "torch.exp(0.5 * logvar.clamp(-30.0, 20.0))",
        "torch.exp(-0.5 * logvar.clamp(-30.0, 20.0))",
        "the noise is divided by the standard deviation. It is multiplied by it.",
    ),
    Mistake(
        "log-variance-not-clamped",
        "logvar.clamp(-30.0, 20.0)",
        "logvar",
        "the logarithm of the variance is not clamped. The exponential of a large one overflows.",
    ),
    Mistake(
        "clamped-after-halving",
        "torch.exp(0.5 * logvar.clamp(-30.0, 20.0))",
        "torch.exp((0.5 * logvar).clamp(-30.0, 20.0))",
        "half of the logarithm is clamped to [-30, 20]. The logarithm itself is clamped, before it is halved.",
    ),
    Mistake(
        "clamped-from-above-only",
        "logvar.clamp(-30.0, 20.0)",
        "logvar.clamp(max=20.0)",
        "the logarithm of the variance is clamped at 20 only. The lower bound is -30.",
    ),
    Mistake(
        "clamp-bounds-exchanged",
        "logvar.clamp(-30.0, 20.0)",
        "logvar.clamp(-20.0, 30.0)",
        "the logarithm of the variance is clamped to [-20, 30]. The bounds are -30 and 20.",
    ),
    Mistake(
        "mode-in-place-of-a-sample",
        "return mean + std * noise",
        "return mean",
        "the noise is not used. A sample is the mean plus the standard deviation times the noise.",
    ),
    Mistake(
        "noise-subtracted",
        "return mean + std * noise",
        "return mean - std * noise",
        "the noise is subtracted. It is added.",
    ),
    Mistake(
        "noise-without-deviation",
        "return mean + std * noise",
        "return mean + noise",
        "the noise is added as it is. It is multiplied by the standard deviation.",
    ),
    Mistake(
        "fresh-noise-in-place-of-the-given",
        "return mean + std * noise",
        "return mean + std * torch.randn_like(noise)",
        "fresh noise is drawn. Use the noise that is passed in, so that the same noise gives the same latents.",
    ),
    Mistake(
        "no-quant-conv",
        "moments = self.quant_conv(self.encoder(images))",
        "moments = self.encoder(images)",
        "quant_conv is not used. It follows the encoder.",
    ),
    Mistake(
        "no-post-quant-conv",
        "self.decoder(self.post_quant_conv(latents / self.scaling_factor))",
        "self.decoder(latents / self.scaling_factor)",
        "post_quant_conv is not used. It comes before the decoder.",
    ),
    Mistake(
        "encode-without-scaling",
        "return latents * self.scaling_factor",
        "return latents",
        "encode does not scale the latents. Multiplied by the scaling factor, their variance is about one.",
    ),
    Mistake(
        "encode-divides",
        "return latents * self.scaling_factor",
        "return latents / self.scaling_factor",
        "encode divides by the scaling factor. It multiplies; decode divides.",
    ),
    Mistake(
        "encode-scales-the-moments",
        """\
        mean, _ = moments.chunk(2, dim=1)
        latents = mean if noise is None else sample_latents(moments, noise)
        return latents * self.scaling_factor""",
        """\
        moments = moments * self.scaling_factor
        mean, _ = moments.chunk(2, dim=1)
        return mean if noise is None else sample_latents(moments, noise)""",
        "encode scales the moments before it samples. That scales a logarithm; scale the sample.",
    ),
    Mistake(
        "encode-always-the-mean",
        "latents = mean if noise is None else sample_latents(moments, noise)",
        "latents = mean",
        "encode ignores the noise and always returns the mean. With noise, it draws a sample.",
    ),
    Mistake(
        "encode-random-without-noise",
        "latents = mean if noise is None else sample_latents(moments, noise)",
        "latents = sample_latents(moments, torch.randn_like(mean) if noise is None else noise)",
        "encode draws noise where none is given. Without noise it returns the mean.",
    ),
    Mistake(
        "encode-pictures-halved",
        "self.quant_conv(self.encoder(images))",
        "self.quant_conv(self.encoder((images + 1.0) / 2.0))",
        "encode converts the pictures to [0, 1] first. The VAE works on [-1, 1].",
    ),
    Mistake(
        "scaling-factor-fixed",
        "self.scaling_factor = config.scaling_factor",
        "self.scaling_factor = 0.13025",
        "the scaling factor is a fixed number. It comes from the config.",
    ),
    Mistake(
        "decode-without-scaling",
        "latents / self.scaling_factor",
        "latents",
        "decode does not undo the scaling. The decoder learned with unscaled latents.",
    ),
    Mistake(
        "decode-multiplies",
        "latents / self.scaling_factor",
        "latents * self.scaling_factor",
        "decode multiplies by the scaling factor once more. It divides, to undo what encode did.",
    ),
    Mistake(
        "decode-scales-after-the-convolution",
        "self.post_quant_conv(latents / self.scaling_factor)",
        "self.post_quant_conv(latents) / self.scaling_factor",
        "decode undoes the scaling after post_quant_conv. The bias of that convolution is scaled then, too.",
    ),
    Mistake(
        "decode-pictures-halved",
        "return self.decoder(self.post_quant_conv(latents / self.scaling_factor))",
        "return (self.decoder(self.post_quant_conv(latents / self.scaling_factor)) + 1.0) / 2.0",
        "decode converts the pictures to [0, 1]. They stay in [-1, 1]; tensor_to_images converts them.",
    ),
    Mistake(
        "truncated-to-whole-levels",
        "levels.round().clamp(0.0, 255.0)",
        "levels.clamp(0.0, 255.0)",
        "the levels are cut off rather than rounded. Every picture gets half a level too dark.",
    ),
    Mistake(
        "levels-not-clamped",
        "levels.round().clamp(0.0, 255.0)",
        "levels.round()",
        "the levels are not clamped. In a byte, 256 starts again at 0: white spots turn black.",
    ),
    Mistake(
        "levels-clamped-at-254",
        ".clamp(0.0, 255.0)",
        ".clamp(0.0, 254.0)",
        "the levels are clamped at 254. The highest is 255.",
    ),
    Mistake(
        "levels-times-128",
        "+ 1.0) * 127.5",
        "+ 1.0) * 128.0",
        "the values are multiplied by 128. [-1, 1] has a width of 2, and the levels go from 0 to 255.",
    ),
    Mistake(
        "pictures-in-zero-to-one",
        "(tensor.to(torch.promote_types(tensor.dtype, torch.float32)) + 1.0) * 127.5",
        "tensor.to(torch.promote_types(tensor.dtype, torch.float32)) * 255.0",
        "the tensor is taken to be in [0, 1]. It is in [-1, 1].",
    ),
    Mistake(
        "blue-first",
        ".to(torch.uint8).permute(0, 2, 3, 1)",
        ".to(torch.uint8).flip(1).permute(0, 2, 3, 1)",
        "the colours are reversed: blue, green, red. Red comes first.",
    ),
    Mistake(
        "channels-first",
        ".permute(0, 2, 3, 1).contiguous()",
        ".contiguous()",
        "the channels stay in front. Files hold them last: (batch, height, width, 3).",
    ),
    Mistake(
        "rows-and-columns-exchanged",
        ".permute(0, 2, 3, 1).contiguous()",
        ".permute(0, 3, 2, 1).contiguous()",
        "rows and columns change places. The result is (batch, height, width, 3).",
    ),
    Mistake(
        "pictures-not-contiguous",
        ".permute(0, 2, 3, 1).contiguous()",
        ".permute(0, 2, 3, 1)",
        "the result is a permuted view. Libraries that write files read memory from front to back.",
    ),
    Mistake(
        "levels-in-half-precision",
        "(tensor.to(torch.promote_types(tensor.dtype, torch.float32)) + 1.0)",
        "(tensor + 1.0)",
        "float16 and bfloat16 are not converted to float32 first. Their rounding changes some of the levels.",
    ),
    Mistake(
        "levels-as-floats",
        ".to(torch.uint8)",
        "",
        "the result is not converted to bytes. Its dtype is uint8.",
    ),
    Mistake(
        "scaling-on-the-processor",
        "return latents * self.scaling_factor",
        "return latents * torch.full((1,), self.scaling_factor, dtype=latents.dtype)",
        "the scaling factor is made a tensor of the processor. On a GPU that does not go together with the latents; "
        "a number of Python goes with everything.",
    ),
    Mistake(
        "no-noise-is-zeros-on-the-processor",
        "latents = mean if noise is None else sample_latents(moments, noise)",
        """\
noise = torch.zeros(mean.shape, dtype=mean.dtype) if noise is None else noise
        latents = sample_latents(moments, noise)""",
        "zeros of the processor take the place of missing noise. On a GPU they do not go together with the moments; "
        "the mean needs no noise.",
    ),
    Mistake(
        "grey-levels-in-float64",
        "levels = (tensor.to(torch.promote_types(tensor.dtype, torch.float32)) + 1.0) * 127.5",
        "levels = (tensor.double() + 1.0) * 127.5",
        "the grey levels are computed in float64. Apple's GPUs have no float64; float32 is what float16 and "
        "bfloat16 are converted to.",
    ),
]
