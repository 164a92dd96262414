class MotionUNet(nn.Module):
    def __init__(self, unet, sizes, config):
        super().__init__()
        self.unet = unet
        self.max_frames = config.max_frames
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level in [*unet.down, *unet.up]:
            width = level.residuals[0].conv2.out_channels
            modules = [MotionModule(width, config.num_heads, sizes.num_groups) for _ in level.residuals]
            (self.down if len(self.down) < len(unet.down) else self.up).append(nn.ModuleList(modules))
        self.mid = MotionModule(sizes.channels[-1], config.num_heads, sizes.num_groups) if config.middle else None

    def through(self, level, motions, x, time_embedding, context, num_frames, skips, up):
        transformers = list(level.transformers) or [None] * len(motions)
        for residual, transformer, motion in zip(level.residuals, transformers, motions):
            if up:
                x = torch.cat([x, skips.pop()], dim=1)
            x = residual(x, time_embedding)
            x = x if transformer is None else transformer(x, context)
            x = motion(x, num_frames)
            if not up:
                skips.append(x)
        return x

    def forward(self, latents, timesteps, context, num_frames):
        if not num_frames <= self.max_frames:
            raise ValueError(f"num_frames={num_frames} is more than max_frames={self.max_frames}")
        emb = self.unet.time_embedding(timesteps)
        x = self.unet.conv_in(latents)
        skips = [x]
        for level, motions in zip(self.unet.down, self.down):
            x = self.through(level, motions, x, emb, context, num_frames, skips, up=False)
            if level.downsample:
                x = level.downsample(x)
                skips += [x]
        mid = self.unet.mid
        x = mid.transformer(mid.residual1(x, emb), context)
        x = mid.residual2(self.mid(x, num_frames) if self.mid else x, emb)
        for level, motions in zip(self.unet.up, self.up):
            x = self.through(level, motions, x, emb, context, num_frames, skips, up=True)
            x = level.upsample(x) if level.upsample else x
        return self.unet.conv_out(silu(self.unet.norm_out(x)))


class _Told:
    """A U-Net that knows how many frames a film has."""

    def __init__(self, unet, num_frames):
        self.unet, self.num_frames = unet, num_frames

    def __call__(self, latents, timesteps, context):
        return self.unet(latents, timesteps, context, self.num_frames)


@torch.no_grad()
def text_to_video(model, prompts, negative_prompts, noise, sampling=Sampling(), on_step=None):
    films, frames = noise.shape[:2]
    told = StableDiffusion(
        model.tokenizer, model.text_encoder, _Told(model.unet, frames), model.vae, model.schedule
    )

    def repeated(texts):
        return [text for text in texts for _ in range(frames)]

    context, negative = contexts_for(told, repeated(prompts), repeated(negative_prompts), sampling.guidance_scale)
    steps = denoise(
        told, noise.reshape(films * frames, *noise.shape[2:]), timesteps_for(model.schedule, sampling), context, negative,
        sampling,
    )
    pictures = finish(told, steps, on_step)
    return pictures.reshape(films, frames, *pictures.shape[1:])
