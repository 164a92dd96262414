"""The batch made by repetition; inpainting by torch.where."""


def predict_noise(unet, latents, timestep, context, negative_context, guidance_scale):
    if negative_context is None:
        times = torch.tensor([timestep] * latents.shape[0], device=latents.device)
        return unet(latents.to(context.dtype), times, context).to(latents.dtype)
    times = torch.tensor([timestep] * (2 * latents.shape[0]), device=latents.device)
    both = unet(latents.to(context.dtype).repeat(2, 1, 1, 1), times, torch.cat((negative_context, context), 0))
    both = both.to(latents.dtype)
    half = latents.shape[0]
    return classifier_free_guidance(both[:half], both[half:], guidance_scale)


@torch.no_grad()
def inpaint(
    model, images, mask, prompts, negative_prompts, noise, strength=1.0, sampling=None, on_step=None,
    encoder_noise=None,
):
    sampling = sampling or Sampling()
    contexts = contexts_for(model, prompts, negative_prompts, sampling.guidance_scale)
    start = model.schedule.start_index(sampling.num_steps, strength)
    timesteps = timesteps_for(model.schedule, sampling)[start:]
    clean = model.vae.encode(images.to(contexts[0].dtype), encoder_noise).to(noise.dtype)
    factor = model.vae.factor
    repaint = mask[..., ::factor, ::factor].to(noise.device) > 0.5

    def at(timestep):
        if timestep == -1:
            return clean
        return model.schedule.add_noise(clean, noise, torch.tensor([timestep] * len(noise)))

    latents = at(timesteps[0]) if strength < 1 else noise
    steps = denoise(
        model, latents, timesteps, *contexts, sampling,
        after_step=lambda new, following: torch.where(repaint, new, at(following)),
    )
    return finish(model, steps, on_step)
