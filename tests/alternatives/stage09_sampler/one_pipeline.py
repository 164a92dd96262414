"""Text to image and image to image as two calls of one function; guidance by lerp."""


def classifier_free_guidance(unconditional, conditional, scale):
    return torch.lerp(unconditional, conditional, scale)


@torch.no_grad()
def pipeline(model, prompts, negatives, start, noise, strength, sampling, on_step):
    context, negative = contexts_for(model, prompts, negatives, sampling.guidance_scale)
    timesteps = timesteps_for(model.schedule, sampling)
    if start is not None:
        timesteps = timesteps[model.schedule.start_index(sampling.num_steps, strength) :]
        first = torch.tensor([timesteps[0]]).expand(len(noise))
        noise = model.schedule.add_noise(start(context.dtype).to(noise.dtype), noise, first)
    steps = denoise(model, noise, timesteps, context, negative, sampling)
    return finish(model, steps, on_step)


def text_to_image(model, prompts, negative_prompts, noise, sampling=Sampling(), on_step=None):
    return pipeline(model, prompts, negative_prompts, None, noise, 1.0, sampling, on_step)


def image_to_image(
    model, images, prompts, negative_prompts, noise, strength=0.8, sampling=Sampling(), on_step=None,
    encoder_noise=None,
):
    def start(dtype):
        return model.vae.encode(images.to(dtype), encoder_noise)

    return pipeline(model, prompts, negative_prompts, start, noise, strength, sampling, on_step)
