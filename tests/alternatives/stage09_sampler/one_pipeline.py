"""Text to image and image to image as two calls of one function; guidance by lerp."""


def classifier_free_guidance(unconditional, conditional, scale):
    return torch.lerp(unconditional, conditional, scale)


@torch.no_grad()
def pipeline(model, prompts, negatives, start, noise, strength, num_steps, scale, sampler, generator, on_step):
    context, negative = contexts_for(model, prompts, negatives, scale)
    timesteps = timesteps_for(model.schedule, sampler, num_steps)
    if start is not None:
        timesteps = timesteps[model.schedule.start_index(num_steps, strength) :]
        first = torch.tensor([timesteps[0]]).expand(len(noise))
        noise = model.schedule.add_noise(start(context.dtype).to(noise.dtype), noise, first)
    steps = denoise(model, noise, timesteps, context, negative, scale, sampler, generator)
    return finish(model, steps, on_step)


def text_to_image(
    model, prompts, negative_prompts, noise, num_steps=50, guidance_scale=7.5, sampler="ddim", generator=None,
    on_step=None,
):
    return pipeline(
        model, prompts, negative_prompts, None, noise, 1.0, num_steps, guidance_scale, sampler, generator, on_step
    )


def image_to_image(
    model, images, prompts, negative_prompts, noise, strength=0.8, num_steps=50, guidance_scale=7.5, sampler="ddim",
    generator=None, on_step=None, encoder_noise=None,
):
    def start(dtype):
        return model.vae.encode(images.to(dtype), encoder_noise)

    return pipeline(
        model, prompts, negative_prompts, start, noise, strength, num_steps, guidance_scale, sampler, generator, on_step
    )
