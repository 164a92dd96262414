"""Mistakes of stage 7."""

from course.feedback.mistakes import Mistake

POP = "x = torch.cat([x, skips.pop()], dim=1)\n"

MISTAKES = [
    Mistake(
        "waves-in-bfloat16",
        "dtype = torch.float64 if timesteps.dtype == torch.float64 else torch.float32",
        "dtype = timesteps.dtype if timesteps.dtype in (torch.float64, torch.bfloat16) else torch.float32",
        "bfloat16 timesteps make waves in bfloat16. Their angles are then rounded to a multiple of 4.",
    ),
    Mistake(
        "down-skips-not-cleared",
        "        skips = []\n        for i, residual",
        '        skips = self.__dict__.setdefault("skips", [])\n        for i, residual',
        "the list of skips is an attribute of the block that is never emptied. A call then returns the skips of "
        "earlier "
        "calls, too.",
    ),
    Mistake(
        "down-with-dropout",
        "            skips.append(x)\n        if",
        "            x = nn.functional.dropout(x, 0.1, self.training)\n            skips.append(x)\n        if",
        "there is a dropout of 0.1 before each skip. It acts in training mode only; there is none here.",
    ),
    Mistake(
        "skips-with-dropout",
        "x = torch.cat([x, skips.pop()], dim=1)",
        "x = torch.cat([x, nn.functional.dropout(skips.pop(), 0.1, self.training)], dim=1)",
        "there is a dropout of 0.1 on the skips. It acts in training mode only; there is none here.",
    ),
    Mistake(
        "timesteps-in-the-dtype-of-the-latents",
        "        time_embedding = self.time_embedding(timesteps)\n",
        "        time_embedding = self.time_embedding(timesteps.to(latents.dtype))\n",
        "the timesteps are converted to the dtype of the latents. bfloat16 makes 1000 of 999.",
    ),
    Mistake(
        "time-of-the-first-call",
        "        time_embedding = self.time_embedding(timesteps)\n",
        """\
        if not hasattr(self, "time") or len(self.time) != len(latents):
            self.time = self.time_embedding(timesteps)
        time_embedding = self.time
""",
        "the time embedding is kept for the next call. Every step of sampling has another timestep.",
    ),
    Mistake(
        "context-of-the-first-call",
        "        time_embedding = self.time_embedding(timesteps)\n",
        """\
        time_embedding = self.time_embedding(timesteps)
        if not hasattr(self, "context") or self.context.shape != context.shape:
            self.context = context
        context = self.context
""",
        "the context is kept for the next call of the same shape. Another prompt has another one.",
    ),
    Mistake(
        "first-skip-of-the-first-call",
        "        skips = [x]\n",
        """\
        if not hasattr(self, "first") or self.first.shape != x.shape:
            self.first = x
        skips = [self.first]
""",
        "conv_in's result is kept as a skip for the next latents of the same shape. They have another one.",
    ),
    Mistake(
        "middle-with-dropout",
        "        x = self.mid(x, time_embedding, context)\n        for",
        "        x = nn.functional.dropout(self.mid(x, time_embedding, context), 0.1, self.training)\n        for",
        "there is a dropout of 0.1 after the middle. It acts in training mode only; there is none here.",
    ),
    Mistake(
        "sine-first",
        "torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)",
        "torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)",
        "the sines come first. Stable Diffusion puts the cosines first.",
    ),
    Mistake(
        "waves-interleaved",
        "torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)",
        "torch.stack([torch.cos(angles), torch.sin(angles)], dim=-1).flatten(-2)",
        "cosines and sines take turns. All cosines come first, then all sines.",
    ),
    Mistake(
        "half-minus-one",
        "device=timesteps.device) / half",
        "device=timesteps.device) / (half - 1)",
        "the exponents are divided by half - 1. Some networks do that; here they are divided by half.",
    ),
    Mistake(
        "exponents-over-all-channels",
        "device=timesteps.device) / half",
        "device=timesteps.device) / channels",
        "the exponents are divided by the number of channels. They are divided by half of it.",
    ),
    Mistake(
        "frequencies-rise",
        "max_period ** (-exponents)",
        "max_period**exponents",
        "the frequencies rise from 1 to max_period. They fall: the exponent is negative.",
    ),
    Mistake(
        "waves-from-slow-to-fast",
        "angles = timesteps.to(dtype)[:, None] * frequencies",
        "angles = timesteps.to(dtype)[:, None] * frequencies.flip(0)",
        "the lowest frequency comes first. The highest does.",
    ),
    Mistake(
        "angles-times-two-pi",
        "angles = timesteps.to(dtype)[:, None] * frequencies",
        "angles = 2 * torch.pi * timesteps.to(dtype)[:, None] * frequencies",
        "the angles are multiplied by 2 pi.",
    ),
    Mistake(
        "timesteps-divided-by-1000",
        "angles = timesteps.to(dtype)[:, None] * frequencies",
        "angles = timesteps.to(dtype)[:, None] / 1000 * frequencies",
        "the timesteps are divided by 1000. They go in as they are, 0 to 999.",
    ),
    Mistake(
        "timesteps-off-by-one",
        "angles = timesteps.to(dtype)[:, None] * frequencies",
        "angles = (timesteps.to(dtype)[:, None] + 1) * frequencies",
        "the timesteps are counted from 1. They go in as they are, 0 to 999.",
    ),
    Mistake(
        "max-period-fixed",
        "max_period ** (-exponents)",
        "10000.0 ** -exponents",
        "max_period is always 10000. That is only its default.",
    ),
    Mistake(
        "default-max-period",
        "max_period: float = 10000.0",
        "max_period: float = 1000.0",
        "the default max_period is 1000. It is 10000.",
    ),
    Mistake(
        "waves-in-half-precision",
        "dtype = torch.float64 if timesteps.dtype == torch.float64 else torch.float32",
        "dtype = timesteps.dtype if timesteps.dtype.is_floating_point else torch.float32",
        "float16 and bfloat16 timesteps give an embedding of that dtype. float16 rounds the angles, bfloat16 even the "
        "timesteps: use float32.",
    ),
    Mistake(
        "waves-always-float32",
        "dtype = torch.float64 if timesteps.dtype == torch.float64 else torch.float32",
        "dtype = torch.float32",
        "float64 timesteps give an embedding in float32. They give one in float64.",
    ),
    Mistake(
        "waves-always-float64",
        "dtype = torch.float64 if timesteps.dtype == torch.float64 else torch.float32",
        "dtype = torch.float64",
        "the embedding is always float64. It is float32 unless the timesteps are float64.",
    ),
    Mistake(
        "first-time-for-the-whole-batch",
        "angles = timesteps.to(dtype)[:, None] * frequencies  # (batch, half)",
        "angles = timesteps.to(dtype)[:1, None].expand(len(timesteps), 1) * frequencies",
        "all samples get the timestep of the first. Each has its own.",
    ),
    Mistake(
        "down-transformer-before-residual",
        """\
            x = residual(x, time_embedding)
            if self.transformers:
                x = self.transformers[i](x, context)
            skips.append(x)
""",
        """\
            if self.transformers and x.shape[1] == self.transformers[i].proj_in.in_channels:
                x = self.transformers[i](x, context)
                x = residual(x, time_embedding)
            else:
                x = residual(x, time_embedding)
                x = self.transformers[i](x, context) if self.transformers else x
            skips.append(x)
""",
        "on the way down the transformer comes before the residual block. It follows it.",
    ),
    Mistake(
        "skips-before-attention",
        """\
            if self.transformers:
                x = self.transformers[i](x, context)
            skips.append(x)
""",
        """\
            skips.append(x)
            if self.transformers:
                x = self.transformers[i](x, context)
""",
        "the skip is kept before the transformer. It is kept after it.",
    ),
    Mistake(
        "down-without-transformers",
        """\
            if self.transformers:
                x = self.transformers[i](x, context)
            skips.append(x)
""",
        "            skips.append(x)\n",
        "the transformers on the way down are not used.",
    ),
    Mistake(
        "one-down-transformer-for-all",
        """\
                x = self.transformers[i](x, context)
            skips.append(x)
""",
        """\
                x = self.transformers[0](x, context)
            skips.append(x)
""",
        "on the way down the first transformer follows every block. Each residual block has its own.",
    ),
    Mistake(
        "no-skip-of-the-downsample",
        """\
            x = self.downsample(x)
            skips.append(x)
""",
        "            x = self.downsample(x)\n",
        "the Downsample's result is not kept as a skip. It is one of them.",
    ),
    Mistake(
        "skip-before-the-downsample",
        """\
            x = self.downsample(x)
            skips.append(x)
""",
        """\
            skips.append(x)
            x = self.downsample(x)
""",
        "the skip is kept before the Downsample. It is kept after it.",
    ),
    Mistake(
        "skips-in-reverse",
        "        return x, skips\n",
        "        return x, skips[::-1]\n",
        "the block returns its skips with the newest first. They come in the order in which they were made.",
    ),
    Mistake(
        "only-the-skips",
        "        return x, skips\n",
        "        return skips\n",
        "the block returns only its skips. It returns its output and the skips.",
    ),
    Mistake(
        "down-always-downsampled",
        "self.downsample = None if is_last else Downsample(width)",
        "self.downsample = Downsample(width)",
        "the last level is downsampled too. Every level but the last one is.",
    ),
    Mistake(
        "down-first-level-not-downsampled",
        "is_last = level == len(config.channels) - 1",
        "is_last = level == 0",
        "level 0 is not downsampled, but the last one is. It is the other way round.",
    ),
    Mistake(
        "down-asymmetric-padding",
        "self.downsample = None if is_last else Downsample(width)",
        "self.downsample = None if is_last else Downsample(width, asymmetric=True)",
        "the U-Net pads like the VAE, right and bottom only. It pads all four sides.",
    ),
    Mistake(
        "down-eps-of-the-vae",
        "self.residuals.append(ResidualBlock(in_channels, width, time_channels, config.num_groups, EPS))",
        "self.residuals.append(ResidualBlock(in_channels, width, time_channels, config.num_groups))",
        "the residual blocks on the way down have the VAE's eps, 1e-6. The U-Net's have 1e-5.",
    ),
    Mistake(
        "up-eps-of-the-vae",
        "ResidualBlock(in_channels + skip_channels, width, time_channels, config.num_groups, EPS)",
        "ResidualBlock(in_channels + skip_channels, width, time_channels, config.num_groups)",
        "the residual blocks on the way up have the VAE's eps, 1e-6. The U-Net's have 1e-5.",
    ),
    Mistake(
        "eps-of-the-whole-network",
        "EPS = 1e-5",
        "EPS = 1e-6",
        "all norms of the U-Net have eps=1e-6. Only those inside of the spatial transformers do; the others have 1e-5.",
    ),
    Mistake(
        "one-down-block-too-many",
        "        for i in range(config.blocks_per_level):\n",
        "        for i in range(config.blocks_per_level + 1):\n",
        "a level on the way down has one residual block too many. It is the way up that has one more.",
    ),
    Mistake(
        "down-width-too-early",
        "in_channels = previous if i == 0 else width",
        "in_channels = width",
        "the first block on the way down expects the level's own channels. It gets those of the level before.",
    ),
    Mistake(
        "down-attention-everywhere",
        """\
            if config.attention[level]:
                self.transformers.append(
                    SpatialTransformer(width, config.num_heads, config.context_channels, config.num_groups)
                )
        is_last""",
        """\
            if True:
                self.transformers.append(
                    SpatialTransformer(width, config.num_heads, config.context_channels, config.num_groups)
                )
        is_last""",
        "every level on the way down has transformers. config.attention says which ones have.",
    ),
    Mistake(
        "down-heads-of-width-num-heads",
        """\
                    SpatialTransformer(width, config.num_heads, config.context_channels, config.num_groups)
                )
        is_last""",
        """\
                    SpatialTransformer(width, width // config.num_heads, config.context_channels, config.num_groups)
                )
        is_last""",
        "on the way down, num_heads is used as the width of a head. It is their number.",
    ),
    Mistake(
        "up-heads-of-width-num-heads",
        """\
                    SpatialTransformer(width, config.num_heads, config.context_channels, config.num_groups)
                )
        self.upsample""",
        """\
                    SpatialTransformer(width, width // config.num_heads, config.context_channels, config.num_groups)
                )
        self.upsample""",
        "on the way up, num_heads is used as the width of a head. It is their number.",
    ),
    Mistake(
        "skip-first",
        POP,
        "x = torch.cat([skips.pop(), x], dim=1)\n",
        "the skip comes before x. x comes first, then the skip.",
    ),
    Mistake(
        "skip-added",
        POP,
        "skip = skips.pop()\n            x = torch.cat([x + skip if x.shape == skip.shape else x, skip], dim=1)\n",
        "the skip is added to x where their shapes are equal. The two are only concatenated.",
    ),
    Mistake(
        "skips-not-reversed",
        POP,
        "x = torch.cat([x, skips.pop(0)], dim=1)\n",
        "the oldest skip is used first. The newest is, the last of the list.",
    ),
    Mistake(
        "skips-left-on-the-list",
        POP,
        "x = torch.cat([x, skips[-1 - i]], dim=1)\n",
        "the block leaves the skips that it has used on the list. The next level would get them again: take them off.",
    ),
    Mistake(
        "all-skips-taken-off",
        """\
        if self.upsample is not None:
            x = self.upsample(x)
        return x
""",
        """\
        if self.upsample is not None:
            x = self.upsample(x)
        skips.clear()
        return x
""",
        "the block empties the list of skips. Those that it does not use belong to the levels after it.",
    ),
    Mistake(
        "x-twice",
        POP,
        "skip = skips.pop()\n            x = torch.cat([x, x if x.shape == skip.shape else skip], dim=1)\n",
        "x is concatenated with itself. It is concatenated with the skip.",
    ),
    Mistake(
        "up-without-transformers",
        """\
            if self.transformers:
                x = self.transformers[i](x, context)
        if self.upsample""",
        "        if self.upsample",
        "the transformers on the way up are not used.",
    ),
    Mistake(
        "one-up-transformer-for-all",
        """\
                x = self.transformers[i](x, context)
        if self.upsample""",
        """\
                x = self.transformers[0](x, context)
        if self.upsample""",
        "on the way up the first transformer follows every block. Each residual block has its own.",
    ),
    Mistake(
        "up-transformers-only-at-the-end",
        """\
            if self.transformers:
                x = self.transformers[i](x, context)
        if self.upsample""",
        """\
        for transformer in self.transformers:
            x = transformer(x, context)
        if self.upsample""",
        "on the way up all transformers follow all residual blocks. They take turns.",
    ),
    Mistake(
        "up-without-upsample",
        """\
        if self.upsample is not None:
            x = self.upsample(x)
""",
        "",
        "the block on the way up does not use its Upsample.",
    ),
    Mistake(
        "up-always-upsampled",
        "self.upsample = None if level == 0 else Upsample(width)",
        "self.upsample = Upsample(width)",
        "level 0 is upsampled too. Every level but level 0 is.",
    ),
    Mistake(
        "up-deepest-level-not-upsampled",
        "self.upsample = None if level == 0 else Upsample(width)",
        "self.upsample = None if level == len(config.channels) - 1 else Upsample(width)",
        "the deepest level is not upsampled, but level 0 is. It is the other way round.",
    ),
    Mistake(
        "one-up-block-too-few",
        "for i in range(config.blocks_per_level + 1):",
        "for i in range(config.blocks_per_level):",
        "a level on the way up has as many residual blocks as on the way down. It has one more.",
    ),
    Mistake(
        "skip-channels-all-alike",
        "skip_channels = above if i == config.blocks_per_level else width",
        "skip_channels = width",
        "all skips are expected to have the level's own channels. The last one was made one level above.",
    ),
    Mistake(
        "first-skip-from-above",
        "skip_channels = above if i == config.blocks_per_level else width",
        "skip_channels = above if i == 0 else width",
        "the first skip is expected to come from the level above. The last one does: it is the oldest.",
    ),
    Mistake(
        "below-is-above",
        "below = config.channels[min(level + 1, len(config.channels) - 1)]",
        "below = config.channels[max(level - 1, 0)]",
        "the first block on the way up expects the channels of the level above. It gets those of the level below.",
    ),
    Mistake(
        "time-not-handed-on-down",
        """\
            x = residual(x, time_embedding)
            if self.transformers:
                x = self.transformers[i](x, context)
            skips""",
        """\
            x = residual(x, time_embedding * 0)
            if self.transformers:
                x = self.transformers[i](x, context)
            skips""",
        "the blocks on the way down get a time embedding of zeros.",
    ),
    Mistake(
        "time-not-handed-on-up",
        POP + "            x = residual(x, time_embedding)\n",
        POP + "            x = residual(x, time_embedding * 0)\n",
        "the blocks on the way up get a time embedding of zeros.",
    ),
    Mistake(
        "first-skip-of-zeros",
        "        skips = [x]\n",
        "        skips = [x * 0]\n",
        "the first skip is zeros. The first skip is what conv_in returns.",
    ),
    Mistake(
        "conv-in-not-among-the-skips",
        "        skips = [x]\n",
        "        skips = []\n",
        "conv_in's result is not among the skips. It is the first of them.",
    ),
    Mistake(
        "oldest-skips-first",
        "x = block(x, skips, time_embedding, context)",
        "x = block(x, [skips.pop(0) for _ in block.residuals], time_embedding, context)",
        "the way up takes the oldest skips first. Each level takes the newest that are left.",
    ),
    Mistake(
        "skips-not-used-up",
        "x = block(x, skips, time_embedding, context)",
        "x = block(x, list(skips), time_embedding, context)",
        "every level on the way up gets the same skips. Those that a level has used must be gone for the next.",
    ),
    Mistake(
        "skips-of-each-level-in-front",
        "skips.extend(new_skips)",
        "skips = new_skips + skips",
        "the skips of each level are put in front of the others. They go behind them.",
    ),
    Mistake(
        "middle-forgotten",
        "        x = self.mid(x, time_embedding, context)\n",
        "",
        "the middle is left out. It comes between the way down and the way up.",
    ),
    Mistake(
        "middle-kept-as-a-skip",
        "        x = self.mid(x, time_embedding, context)\n",
        "        x = self.mid(x, time_embedding, context)\n        skips[-1] = x\n",
        "the middle's result takes the place of the last skip. Skips are made on the way down only.",
    ),
    Mistake(
        "output-without-norm",
        "return self.conv_out(silu(self.norm_out(x)))",
        "return self.conv_out(silu(x))",
        "norm_out is not used. The end is norm, silu, convolution.",
    ),
    Mistake(
        "output-without-activation",
        "return self.conv_out(silu(self.norm_out(x)))",
        "return self.conv_out(self.norm_out(x))",
        "there is no activation before conv_out. The end is norm, silu, convolution.",
    ),
    Mistake(
        "output-activation-before-norm",
        "return self.conv_out(silu(self.norm_out(x)))",
        "return self.conv_out(self.norm_out(silu(x)))",
        "the last activation comes before the norm. The end is norm, silu, convolution.",
    ),
    Mistake(
        "output-added-to-the-latents",
        "return self.conv_out(silu(self.norm_out(x)))",
        "return latents + self.conv_out(silu(self.norm_out(x)))",
        "the latents are added to the result. The network returns the noise, not cleaner latents.",
    ),
    Mistake(
        "output-subtracted-from-the-latents",
        "return self.conv_out(silu(self.norm_out(x)))",
        "return latents - self.conv_out(silu(self.norm_out(x)))",
        "the result is subtracted from the latents. The network returns the noise itself.",
    ),
    Mistake(
        "norm-out-default-of-transformers",
        "self.norm_out = GroupNorm(config.num_groups, channels[0], EPS)",
        "self.norm_out = GroupNorm(config.num_groups, channels[0], 1e-6)",
        "norm_out has eps=1e-6. It has EPS.",
    ),
    Mistake(
        "up-levels-not-reversed",
        "UpBlock(config, level) for level in reversed(levels)",
        "UpBlock(config, level) for level in levels",
        "the way up starts at level 0. It starts at the deepest level.",
    ),
    Mistake(
        "no-context-for-the-middle",
        "x = self.mid(x, time_embedding, context)",
        "x = self.mid(x, time_embedding, context * 0)",
        "the middle gets a context of zeros.",
    ),
    Mistake(
        "waves-straight-to-the-blocks",
        "time_embedding = self.time_embedding(timesteps)",
        "time_embedding = timestep_embedding(timesteps, 4 * self.time_embedding.channels).to(latents.dtype)",
        "the cosines and sines go to the blocks as they are. TimeEmbedding's two linear layers come between.",
    ),
    Mistake(
        "frequencies-on-the-processor",
        "torch.arange(half, dtype=dtype, device=timesteps.device)",
        "torch.arange(half, dtype=dtype)",
        "the frequencies are made on the processor. On a GPU they do not go together with the timesteps.",
    ),
    Mistake(
        "waves-on-the-processor",
        "    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)",
        """\
    waves = torch.empty(len(timesteps), channels, dtype=dtype)
    waves[:, :half], waves[:, half:] = torch.cos(angles), torch.sin(angles)
    return waves""",
        "the waves are put into a tensor of the processor, whatever the device of the timesteps is.",
    ),
]
