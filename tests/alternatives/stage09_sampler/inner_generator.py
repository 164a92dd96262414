"""An inner generator, so that a wrong sampler is refused at once; contexts are kept by their texts."""


def denoise(model, latents, timesteps, context, negative_context=None, sampling=Sampling(), after_step=None):
    if sampling.sampler not in SAMPLERS:
        raise ValueError(f"{sampling.sampler} is none of {SAMPLERS}")

    def steps(x):
        last = ()
        for i, (t, following) in enumerate(zip(timesteps, [*timesteps[1:], -1])):
            with torch.no_grad():
                noise = predict_noise(model.unet, x, t, context, negative_context, sampling.guidance_scale)
                guess = model.schedule.predict_original(x, noise, t)
                here = model.schedule, x, noise, t, following
                match sampling.sampler:
                    case "ddpm":
                        x = ddpm_step(*here, draw_noise(x, sampling.generator))
                    case "dpm++2m":
                        x = dpm_solver_2m_step(*here, *last)
                    case "euler":
                        x = euler_step(*here)
                    case _:
                        x = ddim_step(*here)
                if after_step:
                    x = after_step(x, following)
            last = t, guess
            yield Step(i, len(timesteps), t, x, guess)

    return steps(latents)


@torch.no_grad()
def text_to_image(model, prompts, negative_prompts, noise, sampling=Sampling(), on_step=None):
    kept = model.__dict__.setdefault("kept", {})
    key = tuple(prompts), tuple(negative_prompts), sampling.guidance_scale
    if key not in kept:
        kept[key] = contexts_for(model, *key)
    steps = denoise(model, noise, timesteps_for(model.schedule, sampling), *kept[key], sampling)
    return finish(model, steps, on_step)
