"""A table of steppers; guidance as a weighted sum."""


def classifier_free_guidance(unconditional, conditional, scale):
    return scale * conditional + (1 - scale) * unconditional


@torch.no_grad()
def denoise(model, latents, timesteps, context, negative_context=None, sampling=Sampling(), after_step=None):
    sampler, guidance_scale, generator = sampling.sampler, sampling.guidance_scale, sampling.generator
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler}: there are {SAMPLERS}")
    memory = (None, None)
    steppers = {
        "ddim": lambda *here: ddim_step(*here),
        "ddpm": lambda *here: ddpm_step(*here, draw_noise(latents, generator)),
        "euler": lambda *here: euler_step(*here),
        "dpm++2m": lambda *here: dpm_solver_2m_step(*here, *memory),
    }
    timesteps = list(timesteps)
    for i, (t, following) in enumerate(zip(timesteps, timesteps[1:] + [-1])):
        noise = predict_noise(model.unet, latents, t, context, negative_context, guidance_scale)
        guess = model.schedule.predict_original(latents, noise, t)
        latents = steppers[sampler](model.schedule, latents, noise, t, following)
        memory = (t, guess)
        if after_step:
            latents = after_step(latents, following)
        yield Step(index=i, count=len(timesteps), timestep=t, latents=latents, original=guess)
