"""Mistakes of stage 13."""

from course.feedback.mistakes import Mistake

EXPONENTS = "exponents = torch.arange(0, channels, 2, dtype=torch.float64) / channels"
ANGLES = "angles = torch.arange(num_frames, dtype=torch.float64)[:, None] * max_period ** (-exponents)"
STACK = "return torch.stack([torch.sin(angles), torch.cos(angles)], dim=-1).flatten(1)"
POSITIONS = "positions = frame_positions(x.shape[1], x.shape[2]).to(x)"
FIRST = "x = x + self.attention1(self.norm1(x) + positions)"
SECOND = "x = x + self.attention2(self.norm2(x) + positions)"
FORWARD = "x = x + self.feed_forward(self.norm3(x))"
NORM = "self.norm = GroupNorm(num_groups, channels, eps=1e-6)"
FILMS = "films = x.unflatten(0, (-1, num_frames)).transpose(1, 2)  # (films, C, F, H, W)"
SEQUENCES = "sequences = self.norm(films).permute(0, 3, 4, 2, 1).flatten(0, 2)  # (films * H * W, F, C)"
COMPUTED = "sequences = self.proj_out(self.block(self.proj_in(sequences)))"
BACK = "films = sequences.unflatten(0, (-1, height, width)).permute(0, 3, 4, 1, 2)  # (films, F, C, H, W)"
RESULT = "return x + films.flatten(0, 1)"
ZEROS = """        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)
"""
TOO_MANY = "if num_frames > self.max_frames:"
DOWN = """                if block.transformers:
                    x = block.transformers[i](x, context)
                x = motions[i](x, num_frames)
                skips.append(x)
"""
DOWNSAMPLED = """                x = block.downsample(x)
                skips.append(x)
"""
MIDDLE = """        x = unet.mid.transformer(x, context)
        if self.mid is not None:
            x = self.mid(x, num_frames)
        x = unet.mid.residual2(x, time_embedding)
"""
UP = """                x = residual(torch.cat([x, skips.pop()], dim=1), time_embedding)
                if block.transformers:
                    x = block.transformers[i](x, context)
                x = motions[i](x, num_frames)
"""
END = "return unet.conv_out(silu(unet.norm_out(x)))"
REPEATED = "(c if c is None else c.repeat_interleave(num_frames, dim=0) for c in contexts)"
TOLD = "model = dataclasses.replace(model, unet=functools.partial(model.unet, num_frames=num_frames))"
STEPS = "steps = denoise(model, noise.flatten(0, 1), timesteps, context, negative_context, sampling)"
FINISHED = "return finish(model, steps, on_step).unflatten(0, (-1, num_frames))"
REMAPPED = 'return {new_name(name): tensor for name, tensor in state_dict.items() if not name.endswith(".pe")}'


MISTAKES = [
    # --- positions
    Mistake(
        "positions-cosine-first",
        STACK,
        STACK.replace("sin", "SIN").replace("cos", "sin").replace("SIN", "cos"),
        "the cosine comes before the sine. Published weights were trained with the sine first.",
    ),
    Mistake(
        "positions-sines-then-cosines",
        STACK,
        "return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)",
        "all sines come first, then all cosines. Here they come by turns, other than in stage 7.",
    ),
    Mistake(
        "positions-half-the-exponent",
        EXPONENTS,
        "exponents = torch.arange(0, channels // 2, dtype=torch.float64) / channels",
        "the exponent is -i / channels. It is -2 * i / channels.",
    ),
    Mistake(
        "positions-divided-by-half-minus-one",
        EXPONENTS,
        "exponents = torch.arange(0, channels // 2, dtype=torch.float64) / max(channels // 2 - 1, 1)",
        "i is divided by channels / 2 - 1. It is divided by channels / 2.",
    ),
    Mistake(
        "positions-from-one",
        ANGLES,
        ANGLES.replace("torch.arange(num_frames,", "torch.arange(1, num_frames + 1,"),
        "frames are counted from 1. The first frame is number 0.",
    ),
    Mistake(
        "positions-fixed-period",
        ANGLES,
        ANGLES.replace("max_period", "10000.0"),
        "10000 stands where max_period should.",
    ),
    Mistake(
        "positions-in-float32",
        STACK,
        STACK + ".float().double()",
        "the positions are computed in float32. float64 costs nothing here, and is rounded only where it is used.",
    ),
    # --- block
    Mistake(
        "no-positions",
        POSITIONS,
        "positions = 0.0",
        "no positions are added. Attention then gives the same for a film that runs backwards, backwards.",
    ),
    Mistake(
        "positions-once",
        SECOND,
        SECOND.replace(" + positions", ""),
        "positions are added before the first attention only. Both get them.",
    ),
    Mistake(
        "positions-not-before-the-first-attention",
        FIRST,
        FIRST.replace(" + positions", ""),
        "positions are added before the second attention only. Both get them.",
    ),
    Mistake(
        "positions-before-the-norm",
        FIRST,
        "x = x + self.attention1(self.norm1(x + positions))",
        "positions are added before norm1. They are added to what it returns.",
    ),
    Mistake(
        "positions-before-the-second-norm",
        SECOND,
        "x = x + self.attention2(self.norm2(x + positions))",
        "positions are added before norm2. They are added to what it returns.",
    ),
    Mistake(
        "positions-stay",
        FIRST,
        f"x = x + positions\n        {FIRST.replace(' + positions', '')}",
        "positions become a part of x. They are added only to what an attention gets.",
    ),
    Mistake(
        "positions-into-the-feed-forward",
        FORWARD,
        "x = x + self.feed_forward(self.norm3(x) + positions)",
        "positions are added before the feed-forward network too. Only the attentions get them.",
    ),
    Mistake(
        "positions-backwards",
        POSITIONS,
        POSITIONS.replace(".to(x)", ".flip(0).to(x)"),
        "the frames are numbered from the end.",
    ),
    Mistake(
        "positions-in-their-own-dtype",
        POSITIONS,
        POSITIONS.replace(".to(x)", ""),
        "the positions keep their dtype, float64. They are converted to that of x.",
    ),
    Mistake(
        "positions-by-the-batch",
        POSITIONS,
        "positions = frame_positions(x.shape[0], x.shape[2]).to(x)[:, None]",
        "the positions number the sequences. They number the frames, which are dimension 1.",
    ),
    Mistake(
        "first-attention-twice",
        SECOND,
        "x = x + self.attention1(self.norm2(x) + positions)",
        "attention1 runs twice and attention2 never.",
    ),
    Mistake(
        "second-norm-is-the-first",
        SECOND,
        "x = x + self.attention2(self.norm1(x) + positions)",
        "norm1 runs twice and norm2 never.",
    ),
    Mistake(
        "no-second-attention",
        f"        {SECOND}\n",
        "",
        "attention2 is left out.",
    ),
    Mistake(
        "no-feed-forward",
        f"        {FORWARD}\n",
        "",
        "the feed-forward network is left out.",
    ),
    Mistake(
        "attention-without-sum",
        FIRST,
        "x = self.attention1(self.norm1(x) + positions)",
        "the first attention's result takes the place of x. It is added to x.",
    ),
    Mistake(
        "second-attention-without-sum",
        SECOND,
        "x = self.attention2(self.norm2(x) + positions)",
        "the second attention's result takes the place of x. It is added to x.",
    ),
    Mistake(
        "feed-forward-without-sum",
        FORWARD,
        "x = self.feed_forward(self.norm3(x))",
        "the feed-forward network's result takes the place of x. It is added to x.",
    ),
    Mistake(
        "blocks-in-another-order",
        f"        {FIRST}\n        {SECOND}\n",
        f"        {SECOND}\n        {FIRST}\n",
        "attention2 runs before attention1.",
    ),
    # --- module
    Mistake(
        "norm-default-eps",
        NORM,
        NORM.replace(", eps=1e-6", ""),
        "the norm has GroupNorm's default eps, 1e-5. Here it is 1e-6.",
    ),
    Mistake(
        "norm-of-32-groups",
        NORM,
        NORM.replace("num_groups, ", "4 if channels % 4 == 0 and channels > 8 else 1, "),
        "the norm does not have num_groups groups.",
    ),
    Mistake(
        "norm-frame-by-frame",
        SEQUENCES,
        "normalised = self.norm(x).unflatten(0, (-1, num_frames))\n"
        "        sequences = normalised.permute(0, 3, 4, 1, 2).flatten(0, 2)",
        "every frame is normalised by itself. Then a frame that is darker than the others looks like them.",
    ),
    Mistake(
        "norm-over-all-films",
        SEQUENCES,
        "normalised = self.norm(x.transpose(0, 1)[None].flatten(2, 3)).unflatten(2, (-1, height))[0].transpose(0, 1)\n"
        "        sequences = normalised.unflatten(0, (-1, num_frames)).permute(0, 3, 4, 1, 2).flatten(0, 2)",
        "all films are normalised together. A film must not depend on the others in its batch.",
    ),
    Mistake(
        "norm-forgotten",
        SEQUENCES,
        SEQUENCES.replace("self.norm(films)", "films"),
        "the norm is left out.",
    ),
    Mistake(
        "pixels-as-tokens",
        SEQUENCES,
        "sequences = self.norm(films).permute(0, 2, 3, 4, 1).reshape(-1, num_frames, x.shape[1])",
        "pixels of one frame stand beside each other in a sequence. A sequence holds one pixel in all frames.",
    ),
    Mistake(
        "frames-far-apart",
        FILMS,
        "films = x.unflatten(0, (num_frames, -1)).permute(1, 2, 0, 3, 4)",
        "the batch is read as frames first, films second. The frames of a film are neighbours in it.",
    ),
    Mistake(
        "all-frames-in-one-film",
        FILMS,
        "num_frames = len(x)\n        " + FILMS,
        "all samples of the batch are taken for one film.",
    ),
    Mistake(
        "height-and-width-exchanged",
        SEQUENCES,
        SEQUENCES.replace("permute(0, 3, 4, 2, 1)", "permute(0, 4, 3, 2, 1)"),
        "height and width are exchanged on the way to sequences, but not on the way back.",
    ),
    Mistake(
        "back-in-another-order",
        BACK,
        BACK.replace("(-1, height, width)", "(-1, width, height)").replace(
            "permute(0, 3, 4, 1, 2)", "permute(0, 3, 4, 2, 1)"
        ),
        "height and width are exchanged on the way back to pictures.",
    ),
    Mistake(
        "no-proj-in",
        COMPUTED,
        "sequences = self.proj_out(self.block(sequences))",
        "proj_in is left out.",
    ),
    Mistake(
        "no-proj-out",
        COMPUTED,
        "sequences = self.block(self.proj_in(sequences))",
        "proj_out is left out.",
    ),
    Mistake(
        "no-outer-sum",
        RESULT,
        "return films.flatten(0, 1)",
        "x is not added. A new module would then give zeros, and the U-Net nothing.",
    ),
    Mistake(
        "sum-with-the-normalised",
        RESULT,
        "return self.norm(x) + films.flatten(0, 1)",
        "the result is added to norm(x). It is added to x.",
    ),
    Mistake(
        "proj-out-not-zero",
        ZEROS,
        "",
        "proj_out starts with random numbers. A new module would then spoil the pictures that the U-Net can draw.",
    ),
    Mistake(
        "proj-out-bias-not-zero",
        ZEROS,
        "        nn.init.zeros_(self.proj_out.weight)\n",
        "the bias of proj_out starts with random numbers.",
    ),
    Mistake(
        "proj-in-zero-too",
        ZEROS,
        ZEROS + "        nn.init.zeros_(self.proj_in.weight)\n",
        "proj_in starts as zeros too. Then all pixels look alike to the block.",
    ),
    # --- U-Net
    Mistake(
        "no-limit",
        TOO_MANY,
        "if False:",
        "a film that is too long is not refused. Nobody has trained the modules on frames with such numbers.",
    ),
    Mistake(
        "limit-too-low",
        TOO_MANY,
        "if num_frames >= self.max_frames:",
        "a film of max_frames frames is refused. That many are possible.",
    ),
    Mistake(
        "motion-before-the-transformer",
        DOWN,
        """                x = motions[i](x, num_frames)
                if block.transformers:
                    x = block.transformers[i](x, context)
                skips.append(x)
""",
        "on the way down, the motion module comes before the spatial transformer. It comes behind it.",
    ),
    Mistake(
        "skip-before-the-motion",
        DOWN,
        """                if block.transformers:
                    x = block.transformers[i](x, context)
                skips.append(x)
                x = motions[i](x, num_frames)
""",
        "a skip is kept before the motion module has run. The module's result is the skip.",
    ),
    Mistake(
        "motion-only-with-attention",
        DOWN,
        """                if block.transformers:
                    x = block.transformers[i](x, context)
                    x = motions[i](x, num_frames)
                skips.append(x)
""",
        "on the way down, levels without spatial transformers have no motion module. All levels have them.",
    ),
    Mistake(
        "first-module-for-all",
        DOWN,
        DOWN.replace("motions[i]", "motions[0]"),
        "the first module of a level runs behind all of its residual blocks. Each has its own.",
    ),
    Mistake(
        "no-skip-of-the-downsampling",
        DOWNSAMPLED,
        "                x = block.downsample(x)\n",
        "the result of the downsampling is not kept as a skip.",
    ),
    Mistake(
        "no-module-in-the-middle",
        MIDDLE,
        MIDDLE.replace("            x = self.mid(x, num_frames)\n", "            pass\n"),
        "the module in the middle never runs.",
    ),
    Mistake(
        "middle-module-at-the-end",
        MIDDLE,
        """        x = unet.mid.transformer(x, context)
        x = unet.mid.residual2(x, time_embedding)
        if self.mid is not None:
            x = self.mid(x, num_frames)
""",
        "the module in the middle comes behind the second residual block. It comes before it.",
    ),
    Mistake(
        "middle-module-before-the-transformer",
        MIDDLE,
        """        if self.mid is not None:
            x = self.mid(x, num_frames)
        x = unet.mid.transformer(x, context)
        x = unet.mid.residual2(x, time_embedding)
""",
        "the module in the middle comes before the spatial transformer. It comes behind it.",
    ),
    Mistake(
        "up-without-motion",
        UP,
        UP.replace("                x = motions[i](x, num_frames)\n", ""),
        "no motion module runs on the way up.",
    ),
    Mistake(
        "up-motion-before-the-transformer",
        UP,
        """                x = residual(torch.cat([x, skips.pop()], dim=1), time_embedding)
                x = motions[i](x, num_frames)
                if block.transformers:
                    x = block.transformers[i](x, context)
""",
        "on the way up, the motion module comes before the spatial transformer. It comes behind it.",
    ),
    Mistake(
        "skip-first",
        UP,
        UP.replace("[x, skips.pop()]", "[skips.pop(), x]"),
        "the skip comes before x in the concatenation. x comes first, as in stage 7.",
    ),
    Mistake(
        "oldest-skip",
        UP,
        UP.replace("skips.pop()", "skips.pop(0)"),
        "the oldest skip is taken. The newest one is, as in stage 7.",
    ),
    Mistake(
        "no-silu-at-the-end",
        END,
        "return unet.conv_out(unet.norm_out(x))",
        "the SiLU before conv_out is left out.",
    ),
    # --- film
    Mistake(
        "contexts-tiled",
        REPEATED,
        "(c if c is None else c.repeat(num_frames, 1, 1) for c in contexts)",
        "the contexts are repeated as a whole: A, B, A, B. The frames of film A come first, then those of B.",
    ),
    Mistake(
        "negative-prompts-forgotten",
        REPEATED,
        "(contexts[0].repeat_interleave(num_frames, dim=0), None)",
        "no negative contexts are handed on. Then there is no guidance.",
    ),
    Mistake(
        "one-noise-for-all-frames",
        STEPS,
        STEPS.replace("noise.flatten(0, 1)", "noise[:, :1].expand_as(noise).flatten(0, 1)"),
        "all frames begin with the noise of the first one.",
    ),
    Mistake(
        "frames-first",
        STEPS,
        STEPS.replace("noise.flatten(0, 1)", "noise.transpose(0, 1).flatten(0, 1)"),
        "the noise is put into the batch with frames first, films second.",
    ),
    Mistake(
        "one-film",
        TOLD,
        TOLD.replace("num_frames=num_frames", "num_frames=noise.shape[0] * num_frames"),
        "the U-Net is told that all frames are one film.",
    ),
    Mistake(
        "no-film-dimension",
        FINISHED,
        "return finish(model, steps, on_step)",
        "the frames are returned one after the other. They belong into a dimension of their own, behind the films.",
    ),
    Mistake(
        "film-dimension-exchanged",
        FINISHED,
        "return finish(model, steps, on_step).unflatten(0, (num_frames, -1))",
        "the result has frames first, films second.",
    ),
    Mistake(
        "nobody-is-told",
        FINISHED,
        FINISHED.replace("on_step", "None"),
        "on_step is not handed on.",
    ),
    Mistake(
        "model-changed",
        TOLD,
        "model.unet = functools.partial(model.unet, num_frames=num_frames)",
        "the caller's model is changed. Hand a changed copy on (dataclasses.replace).",
    ),
    # --- names
    Mistake(
        "tables-kept",
        REMAPPED,
        "return {new_name(name): tensor for name, tensor in state_dict.items()}",
        "the tables of positions are not left out.",
    ),
    Mistake(
        "attentions-exchanged",
        'r"transformer_blocks\\.0\\.attn(\\d)": r"block.attention\\1",',
        'r"transformer_blocks\\.0\\.attn1": r"block.attention2",\n'
        '    r"transformer_blocks\\.0\\.attn2": r"block.attention1",',
        "the weights of queries, keys and values of the two attentions are exchanged.",
    ),
    Mistake(
        "animatediff-attentions-exchanged",
        'r"attention_blocks\\.0": "attn1",\n        r"attention_blocks\\.1": "attn2",',
        'r"attention_blocks\\.0": "attn2",\n        r"attention_blocks\\.1": "attn1",',
        "AnimateDiff's attention_blocks.0 becomes attn2, and the other one attn1.",
    ),
    Mistake(
        "animatediff-last-norm",
        'r"ff_norm": "norm3",',
        'r"ff_norm": "norm1",',
        "AnimateDiff's ff_norm becomes norm1. It is norm3.",
    ),
    Mistake(
        "animatediff-norms-counted-from-one",
        'r"norms\\.0": "norm1",\n        r"norms\\.1": "norm2",',
        'r"norms\\.(\\d)": r"norm\\1",',
        "AnimateDiff's norms.0 becomes norm0. It counts from 0, diffusers from 1.",
    ),
    Mistake(
        "prefix-kept",
        'r"^module\\.": "",',
        'r"^no module\\.": "",',
        "the word module. at the beginning is not taken away. Some files have it.",
    ),
    Mistake(
        "unknown-names-left-out",
        'raise ValueError(f"unknown tensor {name} in the motion modules")',
        'return "unknown"',
        "a tensor that no rule knows is not refused.",
    ),
    Mistake(
        "names-anywhere",
        'if found := re.match(r"(down|up)_blocks',
        'if found := re.search(r"(down|up)_blocks',
        "the rule is looked for anywhere in the name. A name has to begin with it.",
    ),
]
