"""Mistakes of stage 9."""

from course.feedback.mistakes import Mistake

UNKNOWN = """\
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler {sampler!r} is not one of {', '.join(SAMPLERS)}")
"""
TEXT_STEPS = "steps = denoise(model, noise, timesteps, context, negative_context, sampling)"
IMAGE_STEPS = "steps = denoise(model, latents, timesteps, context, negative_context, sampling)"
GUIDANCE = "return unconditional + scale * (conditional - unconditional)"
I2I_NOISE = "latents = model.schedule.add_noise(original, noise, torch.full((len(noise),), timesteps[0]))"

MISTAKES = [
    Mistake(
        "latents-rounded-at-the-start",
        "    last_timestep, last_original = None, None\n",
        "    last_timestep, last_original = None, None\n    latents = latents.to(context.dtype).to(latents.dtype)\n",
        "the first latents are rounded to the dtype of the network. Only what the U-Net gets is to be converted.",
    ),
    Mistake(
        "contexts-of-the-first-call",
        """\
    context, negative_context = contexts_for(model, prompts, negative_prompts, sampling.guidance_scale)
    timesteps = timesteps_for(model.schedule, sampling)
    steps""",
        """\
    kept, key = model.__dict__.setdefault("contexts", {}), (len(prompts), sampling.guidance_scale)
    if key not in kept:
        kept[key] = contexts_for(model, prompts, negative_prompts, sampling.guidance_scale)
    context, negative_context = kept[key]
    timesteps = timesteps_for(model.schedule, sampling)
    steps""",
        "the contexts are kept for the next prompts. Other prompts have others.",
    ),
    Mistake(
        "negative-context-of-the-first-call",
        """\
    context, negative_context = contexts_for(model, prompts, negative_prompts, sampling.guidance_scale)
    timesteps = timesteps_for(model.schedule, sampling)
    steps""",
        """\
    kept, key = model.__dict__.setdefault("contexts", {}), (tuple(prompts), sampling.guidance_scale)
    if key not in kept:
        kept[key] = contexts_for(model, prompts, negative_prompts, sampling.guidance_scale)
    context, negative_context = kept[key]
    timesteps = timesteps_for(model.schedule, sampling)
    steps""",
        "the contexts are kept by the prompts alone. With other negative prompts they are others.",
    ),
    Mistake(
        "timesteps-of-the-first-call",
        "    timesteps = timesteps_for(model.schedule, sampling)\n    steps",
        """\
    kept = model.__dict__.setdefault("timesteps", {})
    timesteps = kept.setdefault(sampling.num_steps, timesteps_for(model.schedule, sampling))
    steps""",
        "text_to_image keeps its timesteps by their number. Another sampler has others.",
    ),
    Mistake(
        "memory-of-the-picture-before",
        "    last_timestep, last_original = None, None\n",
        """\
    last_timestep, last_original = None, None
    if sampling.sampler == "dpm++2m" and getattr(model, "guess", latents).shape == latents.shape:
        last_timestep, last_original = (999, model.guess) if hasattr(model, "guess") else (None, None)
    model.guess = latents
""",
        "DPM-Solver++ remembers something of the picture before. The first step of a picture has no step before it.",
    ),
    Mistake(
        "timesteps-used-up",
        "    for index, timestep in enumerate(timesteps):\n        next_timestep = timesteps[index + 1] if index + 1 < "
        "len(timesteps) else -1\n",
        """\
    queue, timesteps = timesteps, list(timesteps)
    for index in range(len(timesteps)):
        timestep = queue.pop(0)
        next_timestep = queue[0] if queue else -1
""",
        "denoise takes the timesteps off the list. The list belongs to the caller.",
    ),
    Mistake(
        "network-frozen",
        "    last_timestep, last_original = None, None\n",
        "    last_timestep, last_original = None, None\n    model.unet.requires_grad_(False)\n",
        "denoise switches off the gradients of the U-Net's parameters. torch.no_grad() is enough, and leaves them "
        "alone.",
    ),
    Mistake(
        "network-put-into-eval-mode",
        "    last_timestep, last_original = None, None\n",
        "    last_timestep, last_original = None, None\n    model.unet.eval()\n",
        "denoise puts the U-Net into eval mode. Who calls it may be in the middle of a training.",
    ),
    Mistake(
        "same-noise-without-a-generator",
        "fresh_noise = draw_noise(latents, sampling.generator)",
        "fresh_noise = draw_noise(latents, sampling.generator or torch.Generator().manual_seed(index))",
        "a generator with a fixed seed is made where none is given. Every picture then gets the same noise.",
    ),
    Mistake(
        "generator-of-the-first-call",
        "            fresh_noise = draw_noise(latents, sampling.generator)\n",
        """\
            model.generator = getattr(model, "generator", sampling.generator)
            fresh_noise = draw_noise(latents, model.generator)
""",
        "the generator of the first call is kept. A second picture with the same seed is another one then.",
    ),
    Mistake(
        "picture-of-the-first-call",
        "    original = model.vae.encode(images.to(context.dtype), encoder_noise).to(noise.dtype)\n    latents",
        """\
    kept = model.__dict__.setdefault("originals", {})
    if images.shape not in kept:
        kept[images.shape] = model.vae.encode(images.to(context.dtype), encoder_noise).to(noise.dtype)
    original = kept[images.shape]
    latents""",
        "image_to_image keeps the encoded pictures for the next ones of the same size.",
    ),
    Mistake(
        "noise-rounded-to-the-pictures-dtype",
        "    original = model.vae.encode(images.to(context.dtype), encoder_noise).to(noise.dtype)\n    latents",
        """\
    original = model.vae.encode(images.to(context.dtype), encoder_noise)
    noise = noise.to(original.dtype).float()
    original = original.float()
    latents""",
        "image_to_image rounds the noise to the dtype of the encoded picture.",
    ),
    Mistake(
        "mask-of-the-first-call",
        "    mask = mask[:, :, :: model.vae.factor, :: model.vae.factor].to(device=noise.device, dtype=noise.dtype)\n",
        """\
    kept = model.__dict__.setdefault("masks", {})
    small = mask[:, :, :: model.vae.factor, :: model.vae.factor].to(device=noise.device, dtype=noise.dtype)
    mask = kept.setdefault(mask.shape, small)
""",
        "inpaint keeps the mask for the next one of the same size.",
    ),
    Mistake(
        "kept-part-of-the-first-call",
        "        return schedule.add_noise(original, noise, torch.full((len(noise),), timestep))\n",
        """\
        kept, key = model.__dict__.setdefault("noisy", {}), (timestep, noise.shape)
        if key not in kept:
            kept[key] = schedule.add_noise(original, noise, torch.full((len(noise),), timestep))
        return kept[key]
""",
        "inpaint keeps the noisy pictures of its first call by their timestep.",
    ),
    Mistake(
        "guidance-from-the-conditional",
        GUIDANCE,
        "return conditional + scale * (conditional - unconditional)",
        "guidance starts from the prediction for the prompt. It starts from the other one, so that scale 1 gives the "
        "prediction for the prompt.",
    ),
    Mistake(
        "guidance-backwards",
        GUIDANCE,
        "return unconditional + scale * (unconditional - conditional)",
        "the difference has the wrong sign. It points from the negative prompt to the prompt.",
    ),
    Mistake(
        "guidance-arguments-exchanged",
        GUIDANCE,
        "return conditional + scale * (unconditional - conditional)",
        "the two predictions change places in the formula. The scale then leads away from the prompt.",
    ),
    Mistake(
        "guidance-without-start",
        GUIDANCE,
        "return scale * (conditional - unconditional)",
        "only the scaled difference is left. It is added to the unconditional prediction.",
    ),
    Mistake(
        "guidance-without-scale",
        GUIDANCE,
        "return conditional",
        "the scale is not used.",
    ),
    Mistake(
        "guidance-scale-off-by-one",
        GUIDANCE,
        "return unconditional + (scale + 1.0) * (conditional - unconditional)",
        "the scale counts from the prediction for the prompt. The paper's w does that; here that prediction has scale "
        "1.",
        like=("guidance-from-the-conditional",),
    ),
    Mistake(
        "guidance-rescaled",
        GUIDANCE,
        "return (unconditional + scale * (conditional - unconditional)) / scale",
        "the result is divided by the scale.",
    ),
    Mistake(
        "halves-exchanged",
        "contexts = torch.cat([negative_context, context]) if guided else context",
        "contexts = torch.cat([context, negative_context]) if guided else context",
        "the prompt goes into the first half of the batch but is read from the second. The guidance then "
        "leads away from "
        "the prompt.",
        like=("answers-exchanged",),
    ),
    Mistake(
        "answers-exchanged",
        "unconditional, conditional = noise.chunk(2)",
        "conditional, unconditional = noise.chunk(2)",
        "the two halves of the result change places. The first half belongs to the negative prompt.",
        like=("halves-exchanged",),
    ),
    Mistake(
        "answers-cut-along-the-channels",
        "unconditional, conditional = noise.chunk(2)",
        "unconditional, conditional = (half.repeat(2, 2, 1, 1)[: len(latents)] for half in noise.chunk(2, dim=1))",
        "the result is cut along the channels. The two halves are stacked along the batch.",
    ),
    Mistake(
        "answers-interleaved",
        "unconditional, conditional = noise.chunk(2)",
        "unconditional, conditional = noise[::2], noise[1::2]",
        "the predictions are taken alternately. The first half of the batch belongs to the negative prompts.",
    ),
    Mistake(
        "same-context-twice",
        "torch.cat([negative_context, context]) if guided",
        "torch.cat([context, context]) if guided",
        "the negative prompt is not used: both predictions are for the prompt.",
    ),
    Mistake(
        "negative-context-of-zeros",
        "torch.cat([negative_context, context]) if guided",
        "torch.cat([torch.zeros_like(context), context]) if guided",
        "the unconditional prediction has a context of zeros. It has that of the negative prompt, which may be empty.",
    ),
    Mistake(
        "context-subtracted",
        "torch.cat([negative_context, context]) if guided",
        "torch.cat([negative_context, context - negative_context]) if guided",
        "the texts' vectors are subtracted. It is the two predictions that are.",
    ),
    Mistake(
        "guidance-without-negative-context",
        "guided = negative_context is not None",
        "guided = False",
        "the U-Net predicts for the context only. With a negative_context there are two predictions.",
    ),
    Mistake(
        "guidance-scale-fixed",
        "classifier_free_guidance(unconditional, conditional, guidance_scale)",
        "classifier_free_guidance(unconditional, conditional, 7.5)",
        "the guidance scale is always 7.5. It is an argument.",
    ),
    Mistake(
        "one-timestep-for-two-halves",
        "timesteps = torch.full((len(batch),), timestep, device=latents.device)",
        "timesteps = torch.full((len(latents),), timestep, device=latents.device)",
        "there are as many timesteps as pictures. The U-Net takes one per sample, and the batch is twice as long.",
    ),
    Mistake(
        "timesteps-off-by-one",
        "timesteps = torch.full((len(batch),), timestep, device=latents.device)",
        "timesteps = torch.full((len(batch),), timestep - 1, device=latents.device)",
        "the U-Net is told timestep - 1.",
    ),
    Mistake(
        "noise-in-the-dtype-of-the-network",
        "timesteps, contexts).to(latents.dtype)",
        "timesteps, contexts)",
        "the result has the network's dtype. It has the dtype of the latents.",
    ),
    Mistake(
        "latents-not-converted",
        "unet(batch.to(context.dtype), timesteps",
        "unet(batch, timesteps",
        "the latents go into the U-Net in their own dtype. It takes them in the dtype of the context.",
    ),
    Mistake(
        "two-calls-of-the-network",
        """\
    batch = torch.cat([latents, latents]) if guided else latents
    contexts = torch.cat([negative_context, context]) if guided else context
    timesteps = torch.full((len(batch),), timestep, device=latents.device)
    noise = unet(batch.to(context.dtype), timesteps, contexts).to(latents.dtype)
    if guided:
        unconditional, conditional = noise.chunk(2)
""",
        """\
    timesteps = torch.full((len(latents),), timestep, device=latents.device)
    noise = unet(latents.to(context.dtype), timesteps, context).to(latents.dtype)
    if guided:
        unconditional = unet(latents.to(context.dtype), timesteps, negative_context).to(latents.dtype)
        conditional = noise
""",
        "the U-Net is called twice. The result is the same, but on a GPU one call with both in a batch is faster.",
    ),
    Mistake(
        "next-timestep-is-one-less",
        "next_timestep = timesteps[index + 1] if index + 1 < len(timesteps) else -1",
        "next_timestep = timestep - 1",
        "a step goes to timestep - 1. It goes to the next timestep of the list.",
    ),
    Mistake(
        "last-step-to-zero",
        "next_timestep = timesteps[index + 1] if index + 1 < len(timesteps) else -1",
        "next_timestep = timesteps[index + 1] if index + 1 < len(timesteps) else 0",
        "the last step goes to timestep 0. It goes to -1, the clean picture.",
    ),
    Mistake(
        "after-the-last-comes-the-first",
        "timesteps[index + 1] if index + 1 < len(timesteps) else -1",
        "timesteps[(index + 1) % len(timesteps)]",
        "the last step goes to the first timestep again. Behind the last timestep comes -1.",
    ),
    Mistake(
        "return-for-yield",
        "        yield Step(index, len(timesteps), timestep, latents, original)",
        "        return Step(index, len(timesteps), timestep, latents, original)",
        "denoise returns its first Step and so ends. `yield` hands over a Step and goes on.",
    ),
    Mistake(
        "last-step-left-out",
        "    for index, timestep in enumerate(timesteps):\n",
        "    for index, timestep in enumerate(timesteps[:-1]):\n",
        "the last step is not taken. There is one for every timestep; after the last one comes -1.",
    ),
    Mistake(
        "timesteps-reversed",
        "    for index, timestep in enumerate(timesteps):\n",
        "    timesteps = list(reversed(timesteps))\n    for index, timestep in enumerate(timesteps):\n",
        "the timesteps are visited from clean to noisy. The list begins with the noisiest.",
    ),
    Mistake(
        "guess-after-the-step",
        """\
        last_timestep, last_original = timestep, original
        yield Step(index, len(timesteps), timestep, latents, original)""",
        """\
        original = schedule.predict_original(latents, noise, timestep)
        last_timestep, last_original = timestep, original
        yield Step(index, len(timesteps), timestep, latents, original)""",
        "the original is guessed from the latents after the step. The noise was predicted for those before it.",
    ),
    Mistake(
        "guess-at-the-next-timestep",
        "original = schedule.predict_original(latents, noise, timestep)",
        "original = schedule.predict_original(latents, noise, next_timestep)",
        "the original is guessed as at the next timestep. The latents are still at this one.",
    ),
    Mistake(
        "ddim-guidance-forgotten",
        "timestep, context, negative_context, sampling.guidance_scale)\n        original",
        "timestep, context, None, sampling.guidance_scale)\n        original",
        "denoise does not hand the negative context on. There is no guidance then.",
    ),
    Mistake(
        "denoise-scale-fixed",
        "timestep, context, negative_context, sampling.guidance_scale)\n        original",
        "timestep, context, negative_context, 7.5)\n        original",
        "denoise always guides with 7.5. The scale is sampling.guidance_scale.",
    ),
    Mistake(
        "euler-by-ddim",
        "latents = euler_step(schedule, latents, noise, timestep, next_timestep)",
        "latents = ddim_step(schedule, latents, noise, timestep, next_timestep)",
        'the sampler "euler" takes steps of DDIM.',
    ),
    Mistake(
        "ddim-by-euler",
        "latents = ddim_step(schedule, latents, noise, timestep, next_timestep)",
        "latents = euler_step(schedule, latents, noise, timestep, next_timestep)",
        'the sampler "ddim" takes steps of Euler.',
    ),
    Mistake(
        "ddpm-same-noise-in-every-step",
        "            fresh_noise = draw_noise(latents, sampling.generator)\n",
        "            fresh_noise = draw_noise(latents, sampling.generator) if index == 0 else fresh_noise\n",
        "DDPM gets the same noise in every step. It draws anew each time.",
    ),
    Mistake(
        "ddpm-predicted-noise",
        "            fresh_noise = draw_noise(latents, sampling.generator)\n",
        "            fresh_noise = noise\n",
        "DDPM gets the predicted noise for the fresh one.",
    ),
    Mistake(
        "ddpm-without-generator",
        "fresh_noise = draw_noise(latents, sampling.generator)",
        "fresh_noise = draw_noise(latents, None)",
        "DDPM's noise does not come from the generator. The same seed then gives another picture every time.",
    ),
    Mistake(
        "noise-drawn-by-every-sampler",
        """\
        if sampler == "ddim":
            latents = ddim_step(schedule, latents, noise, timestep, next_timestep)
        elif sampler == "ddpm":
            fresh_noise = draw_noise(latents, sampling.generator)
""",
        """\
        fresh_noise = draw_noise(latents, sampling.generator)
        if sampler == "ddim":
            latents = ddim_step(schedule, latents, noise, timestep, next_timestep, 1.0, fresh_noise)
        elif sampler == "ddpm":
""",
        "DDIM adds fresh noise. As Stable Diffusion uses it, its way is determined.",
    ),
    Mistake(
        "dpm-without-memory",
        "schedule, latents, noise, timestep, next_timestep, last_timestep, last_original",
        "schedule, latents, noise, timestep, next_timestep",
        "DPM-Solver++ does not get the last timestep and the last original. Without its memory it is DDIM.",
    ),
    Mistake(
        "memory-of-the-first-step",
        "        last_timestep, last_original = timestep, original\n",
        "        if last_timestep is None:\n            last_timestep, last_original = timestep, original\n",
        "DPM-Solver++ always remembers the first step. It remembers the one before.",
    ),
    Mistake(
        "latents-remembered-for-originals",
        "last_timestep, last_original = timestep, original",
        "last_timestep, last_original = timestep, latents",
        "DPM-Solver++ remembers the latents. It remembers the guess of the original.",
    ),
    Mistake(
        "unknown-sampler-is-ddim",
        UNKNOWN,
        """\
    if sampler not in SAMPLERS:
        sampler = "ddim"
""",
        "an unknown sampler is taken for DDIM. It is an error, a ValueError.",
    ),
    Mistake(
        "unknown-sampler-takes-no-steps",
        UNKNOWN,
        "",
        "an unknown sampler is not noticed, and the latents stay as they are. It is an error, a ValueError.",
    ),
    Mistake(
        "assert-for-the-exception",
        "raise ValueError(f\"sampler {sampler!r} is not one of {', '.join(SAMPLERS)}\")",
        "raise AssertionError",
        "an assert refuses the unknown sampler. It has to be a ValueError: `python -O` skips asserts.",
    ),
    Mistake(
        "steps-in-a-list",
        "        yield Step(index, len(timesteps), timestep, latents, original)",
        """\
        steps = [*(steps if index else []), Step(index, len(timesteps), timestep, latents, original)]
    return iter(steps)""",
        "denoise takes all steps and returns them in one go. It has to `yield` each Step as soon as it is done, so "
        "that a progress bar can follow.",
    ),
    Mistake(
        "unknown-sampler-noticed-late",
        UNKNOWN,
        """\
    predict_noise(model.unet, latents, timesteps[0], context, negative_context, 1.0)
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler {sampler!r} is not one of {', '.join(SAMPLERS)}")
""",
        "an unknown sampler is noticed only after the U-Net has run. Look before the first step: on a large model each "
        "one takes long.",
    ),
    Mistake(
        "samplers-not-named",
        UNKNOWN,
        """\
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}")
""",
        "the error does not name the samplers that there are.",
    ),
    Mistake(
        "after-step-ignored",
        "            latents = after_step(latents, next_timestep)\n",
        "            after_step(latents, next_timestep)\n",
        "what after_step returns is not used. It takes the place of the latents.",
    ),
    Mistake(
        "after-step-with-this-timestep",
        "latents = after_step(latents, next_timestep)",
        "latents = after_step(latents, timestep)",
        "after_step is told this timestep. The latents are at the next one by then.",
    ),
    Mistake(
        "after-step-before-the-step",
        """\
        original = schedule.predict_original(latents, noise, timestep)

        if sampler""",
        """\
        original = schedule.predict_original(latents, noise, timestep)
        if after_step is not None:
            latents = after_step(latents, next_timestep)

        if sampler""",
        "after_step is called before the step too.",
    ),
    Mistake(
        "one-step-reported-only",
        "        yield Step(index, len(timesteps), timestep, latents, original)",
        "        if index == len(timesteps) - 1:\n"
        "            yield Step(index, len(timesteps), timestep, latents, original)",
        "only the last step is reported. Every step is.",
    ),
    Mistake(
        "steps-counted-from-one",
        "yield Step(index, len(timesteps)",
        "yield Step(index + 1, len(timesteps)",
        "the steps are counted from 1. They are counted from 0.",
    ),
    Mistake(
        "next-timestep-reported",
        "yield Step(index, len(timesteps), timestep,",
        "yield Step(index, len(timesteps), next_timestep,",
        "a Step names the timestep that it arrives at. It names the one at which the noise was predicted.",
    ),
    Mistake(
        "latents-and-original-exchanged",
        "timestep, latents, original)",
        "timestep, original, latents)",
        "latents and original change places in the Step.",
    ),
    Mistake(
        "noise-reported-for-the-original",
        "timestep, latents, original)",
        "timestep, latents, noise)",
        "a Step holds the predicted noise. It holds the guess of the original.",
    ),
    Mistake(
        "gradients-kept",
        "@torch.no_grad()\ndef denoise(",
        "def denoise(",
        "denoise records gradients. They fill the memory, and are not needed here.",
    ),
    Mistake(
        "text-to-image-scale-fixed",
        TEXT_STEPS,
        TEXT_STEPS.replace("sampling", "Sampling(sampling.num_steps, 7.5, sampling.sampler, sampling.generator)"),
        "text_to_image always guides with 7.5. The scale is sampling.guidance_scale.",
    ),
    Mistake(
        "text-to-image-sampler-fixed",
        TEXT_STEPS,
        TEXT_STEPS.replace(
            "sampling", 'Sampling(sampling.num_steps, sampling.guidance_scale, "ddim", sampling.generator)'
        ),
        "text_to_image always takes DDIM. The sampler is sampling.sampler.",
    ),
    Mistake(
        "text-to-image-without-generator",
        TEXT_STEPS,
        TEXT_STEPS.replace("sampling", "Sampling(sampling.num_steps, sampling.guidance_scale, sampling.sampler)"),
        "text_to_image does not hand the generator on. DDPM then draws different noise every time.",
    ),
    Mistake(
        "text-to-image-without-guidance",
        TEXT_STEPS,
        "steps = denoise(model, noise, timesteps, context, None, sampling)",
        "text_to_image does not hand the negative context on.",
    ),
    Mistake(
        "text-to-image-without-sampling",
        TEXT_STEPS,
        "steps = denoise(model, noise, timesteps, context, negative_context)",
        "text_to_image does not hand sampling on. denoise then takes its own defaults.",
    ),
    Mistake(
        "text-to-image-contexts-exchanged",
        TEXT_STEPS,
        "steps = denoise(model, noise, timesteps, context if negative_context is None else negative_context, "
        "None if negative_context is None else context, sampling)",
        "prompt and negative prompt change places. The picture shows what was to be avoided.",
    ),
    Mistake(
        "text-to-image-draws-its-own-noise",
        "steps = denoise(model, noise, timesteps, context, negative_context",
        "steps = denoise(model, torch.randn_like(noise), timesteps, context, negative_context",
        "text_to_image draws noise of its own. It starts from the noise that it is given.",
    ),
    Mistake(
        "text-to-image-noise-scaled",
        "steps = denoise(model, noise, timesteps, context, negative_context",
        "steps = denoise(model, model.schedule.add_noise(torch.zeros_like(noise), noise, "
        "torch.full((len(noise),), timesteps[0])), timesteps, context, negative_context",
        "text_to_image scales the noise by sqrt(1 - abar). It starts from the noise as it is.",
    ),
    Mistake(
        "text-to-image-steps-in-a-list",
        TEXT_STEPS,
        TEXT_STEPS.replace("denoise(", "list(denoise(") + ")",
        "text_to_image takes all steps before on_step hears of the first. Then nobody can watch.",
    ),
    Mistake(
        "text-to-image-callback-forgotten",
        TEXT_STEPS + "\n    return finish(model, steps, on_step)",
        TEXT_STEPS + "\n    return finish(model, steps, None)",
        "text_to_image does not hand on_step on.",
    ),
    Mistake(
        "image-to-image-all-steps",
        """\
    timesteps = timesteps[model.schedule.start_index(sampling.num_steps, strength) :]
""",
        "",
        "image_to_image takes all steps, whatever the strength. It leaves out those before start_index.",
    ),
    Mistake(
        "image-to-image-first-steps",
        "timesteps = timesteps[model.schedule.start_index(sampling.num_steps, strength) :]",
        "timesteps = timesteps[: max(1, sampling.num_steps - "
        "model.schedule.start_index(sampling.num_steps, strength))]",
        "image_to_image takes the first steps. It takes the last ones.",
    ),
    Mistake(
        "image-to-image-strength-inverted",
        "timesteps = timesteps[model.schedule.start_index(sampling.num_steps, strength) :]",
        "timesteps = timesteps[model.schedule.start_index(sampling.num_steps, max(1.0 - strength, 0.01)) :]",
        "strength is inverted. At a strength of 1 all steps are taken, and hardly a trace of the picture is left.",
    ),
    Mistake(
        "image-to-image-noise-at-the-wrong-timestep",
        I2I_NOISE,
        I2I_NOISE.replace("timesteps[0]", "timesteps[min(1, len(timesteps) - 1)] if len(timesteps) > 1 else 0"),
        "noise is added as at the second timestep that is visited. The first prediction is made at the first one.",
    ),
    Mistake(
        "image-to-image-noise-by-strength",
        I2I_NOISE,
        I2I_NOISE.replace("timesteps[0]", "int(strength * 999)"),
        "noise is added as at strength * 999. It is added as at the first timestep that is visited.",
    ),
    Mistake(
        "image-to-image-full-noise",
        I2I_NOISE,
        I2I_NOISE.replace("timesteps[0]", "999"),
        "noise is added as at timestep 999. It is added as at the first timestep that is visited.",
    ),
    Mistake(
        "image-to-image-without-noise",
        I2I_NOISE,
        "latents = original",
        "no noise is added to the encoded picture. The U-Net is told that there is some, and removes what it can find.",
    ),
    Mistake(
        "image-to-image-noise-simply-added",
        I2I_NOISE,
        "latents = original + strength * noise",
        "noise is added to the picture times the strength. add_noise knows how much of both there is at a timestep.",
    ),
    Mistake(
        "image-to-image-timestep-as-a-number",
        I2I_NOISE,
        "latents = model.schedule.add_noise(original, noise, timesteps[0])",
        "image_to_image gives add_noise one number. It takes a tensor with a timestep for each sample.",
    ),
    Mistake(
        "image-to-image-noise-and-original-exchanged",
        I2I_NOISE,
        I2I_NOISE.replace("(original, noise,", "(noise, original,"),
        "the noise and the picture's latents have changed places in image_to_image's call of add_noise.",
    ),
    Mistake(
        "image-to-image-steps-in-a-list",
        IMAGE_STEPS + "\n    return finish(model, steps, on_step)\n\n\n@torch.no_grad()\ndef inpaint(",
        IMAGE_STEPS.replace("denoise(", "list(denoise(")
        + ")\n    return finish(model, steps, on_step)\n\n\n@torch.no_grad()\ndef inpaint(",
        "image_to_image takes all steps before on_step hears of the first. Then nobody can watch.",
    ),
    Mistake(
        "image-to-image-noise-alone",
        I2I_NOISE,
        "latents = noise",
        "image_to_image starts from the noise alone. It starts from the picture with noise added.",
    ),
    Mistake(
        "image-to-image-encoder-noise-forgotten",
        """\
    original = model.vae.encode(images.to(context.dtype), encoder_noise).to(noise.dtype)
    latents =""",
        """\
    original = model.vae.encode(images.to(context.dtype)).to(noise.dtype)
    latents =""",
        "image_to_image does not hand encoder_noise to the encoder.",
    ),
    Mistake(
        "image-to-image-pictures-not-converted",
        """\
    original = model.vae.encode(images.to(context.dtype), encoder_noise).to(noise.dtype)
    latents =""",
        """\
    original = model.vae.encode(images, encoder_noise).to(noise.dtype)
    latents =""",
        "image_to_image encodes the pictures in their own dtype. The networks may have another one.",
    ),
    Mistake(
        "image-to-image-in-zero-to-one",
        """\
    original = model.vae.encode(images.to(context.dtype), encoder_noise).to(noise.dtype)
    latents =""",
        """\
    original = model.vae.encode((images.to(context.dtype) + 1.0) / 2.0, encoder_noise).to(noise.dtype)
    latents =""",
        "image_to_image converts the pictures to [0, 1]. They stay in [-1, 1].",
    ),
    Mistake(
        "image-to-image-scale-fixed",
        IMAGE_STEPS,
        IMAGE_STEPS.replace("sampling", "Sampling(sampling.num_steps, 7.5, sampling.sampler, sampling.generator)"),
        "image_to_image always guides with 7.5. The scale is sampling.guidance_scale.",
    ),
    Mistake(
        "image-to-image-sampler-fixed",
        IMAGE_STEPS,
        IMAGE_STEPS.replace(
            "sampling", 'Sampling(sampling.num_steps, sampling.guidance_scale, "ddim", sampling.generator)'
        ),
        "image_to_image always takes DDIM. The sampler is sampling.sampler.",
    ),
    Mistake(
        "inpaint-mask-inverted",
        "return mask * latents + (1.0 - mask) * noisy_original(next_timestep)",
        "return (1.0 - mask) * latents + mask * noisy_original(next_timestep)",
        "the mask is inverted: ones are kept and zeros repainted. Ones are to be repainted.",
    ),
    Mistake(
        "inpaint-without-mask",
        "return mask * latents + (1.0 - mask) * noisy_original(next_timestep)",
        "return latents",
        "nothing is put back outside of the mask.",
    ),
    Mistake(
        "inpaint-adds",
        "return mask * latents + (1.0 - mask) * noisy_original(next_timestep)",
        "return mask * latents + noisy_original(next_timestep)",
        "the picture is added everywhere. It comes back only where the mask is 0.",
    ),
    Mistake(
        "inpaint-clean-original",
        "(1.0 - mask) * noisy_original(next_timestep)",
        "(1.0 - mask) * original",
        "the clean picture is put back in every step. It has to be as noisy as the rest.",
    ),
    Mistake(
        "inpaint-at-the-first-timestep",
        "(1.0 - mask) * noisy_original(next_timestep)",
        "(1.0 - mask) * noisy_original(timesteps[0])",
        "the picture is put back as noisy as at the start. It has to be as noisy as at the next timestep.",
    ),
    Mistake(
        "inpaint-last-step-noisy",
        """\
        if timestep < 0:
            return original
        return schedule.add_noise""",
        """\
        timestep = max(timestep, 0)
        return schedule.add_noise""",
        "the picture that is put back after the last step has the noise of timestep 0. At -1 it is clean.",
    ),
    Mistake(
        "inpaint-last-step-at-999",
        """\
        if timestep < 0:
            return original
        return schedule.add_noise""",
        """\
        return schedule.add_noise""",
        "-1 is looked up in the table: Python takes the last entry. At -1 the picture is clean.",
    ),
    Mistake(
        "inpaint-fresh-noise",
        "return schedule.add_noise(original, noise, torch.full((len(noise),), timestep))",
        "fresh = draw_noise(noise, sampling.generator)\n"
        "        return schedule.add_noise(original, fresh, torch.full((len(noise),), timestep))",
        "the picture is put back with fresh noise in each step. It gets the noise that was passed in.",
    ),
    Mistake(
        "inpaint-always-from-noise",
        "latents = noise if strength == 1.0 else noisy_original(timesteps[0])",
        "latents = noise",
        "inpaint always starts from the noise alone. Below strength 1 it starts from the picture with noise added.",
    ),
    Mistake(
        "inpaint-never-from-noise",
        "latents = noise if strength == 1.0 else noisy_original(timesteps[0])",
        "latents = noisy_original(timesteps[0])",
        "inpaint starts from the noisy picture at strength 1 too. There it starts from the noise alone.",
    ),
    Mistake(
        "inpaint-ignores-strength",
        "timesteps = timesteps[schedule.start_index(sampling.num_steps, strength) :]",
        "pass",
        "inpaint takes all steps, whatever the strength.",
    ),
    Mistake(
        "inpaint-mask-averaged",
        "mask = mask[:, :, :: model.vae.factor, :: model.vae.factor].to(",
        "mask = torch.nn.functional.avg_pool2d(mask, model.vae.factor).to(",
        "the latents' mask is a mean of pixels, as pooling or interpolation gives it. It takes the top left pixel of "
        "each square.",
    ),
    Mistake(
        "inpaint-mask-by-maximum",
        "mask = mask[:, :, :: model.vae.factor, :: model.vae.factor].to(",
        "mask = torch.nn.functional.max_pool2d(mask, model.vae.factor).to(",
        "a square of pixels is repainted if any of its pixels is. The latents' mask takes the top left pixel of each.",
    ),
    Mistake(
        "inpaint-mask-from-the-middle",
        "mask = mask[:, :, :: model.vae.factor, :: model.vae.factor].to(",
        "mask = mask[:, :, model.vae.factor // 2 :: model.vae.factor, model.vae.factor // 2 :: model.vae.factor].to(",
        "the latents' mask takes a pixel from the middle of each square. It takes the top left one.",
    ),
    Mistake(
        "inpaint-factor-fixed",
        "mask = mask[:, :, :: model.vae.factor, :: model.vae.factor].to(",
        "mask = mask[:, :, ::8, ::8].to(",
        "the latents' mask takes every eighth pixel. How many pixels a latent stands for is model.vae.factor.",
    ),
    Mistake(
        "inpaint-into-the-encoded-picture",
        "        return mask * latents + (1.0 - mask) * noisy_original(next_timestep)\n",
        """\
        kept = noisy_original(next_timestep)
        repainted = (mask > 0).expand_as(kept)
        kept[repainted] = latents[repainted]
        return kept
""",
        "after the last step the new latents are written into the encoded picture itself. It may still be needed: make "
        "a new tensor.",
    ),
    Mistake(
        "inpaint-steps-in-a-list",
        IMAGE_STEPS.removesuffix(")") + ", keep_unmasked)",
        "steps = list(denoise(model, latents, timesteps, context, negative_context, sampling, keep_unmasked))",
        "inpaint takes all steps before on_step hears of the first. Then nobody can watch.",
    ),
    Mistake(
        "inpaint-keeps-at-the-end-only",
        "        return mask * latents + (1.0 - mask) * noisy_original(next_timestep)\n",
        """\
        if next_timestep >= 0:
            return latents
        return mask * latents + (1.0 - mask) * noisy_original(next_timestep)
""",
        "the rest of the picture is put back after the last step only. It belongs there after every step.",
    ),
    Mistake(
        "inpaint-starts-from-the-mask",
        "latents = noise if strength == 1.0 else noisy_original(timesteps[0])",
        "latents = noise if strength == 1.0 else mask * noise + (1.0 - mask) * noisy_original(timesteps[0])",
        "inpaint starts from noise alone inside of the mask, also at a strength below 1. It has to start "
        "from the noisy picture there, as image_to_image does.",
    ),
    Mistake(
        "inpaint-without-after-step",
        "sampling, keep_unmasked",
        "sampling",
        "denoise is not told to put the rest back after each step.",
        like=("inpaint-without-mask",),
    ),
    Mistake(
        "inpaint-encoder-noise-forgotten",
        """\
    original = model.vae.encode(images.to(context.dtype), encoder_noise).to(noise.dtype)
    mask =""",
        """\
    original = model.vae.encode(images.to(context.dtype)).to(noise.dtype)
    mask =""",
        "inpaint does not hand encoder_noise to the encoder.",
    ),
    Mistake(
        "inpaint-pictures-not-converted",
        """\
    original = model.vae.encode(images.to(context.dtype), encoder_noise).to(noise.dtype)
    mask =""",
        """\
    original = model.vae.encode(images, encoder_noise).to(noise.dtype)
    mask =""",
        "inpaint encodes the pictures in their own dtype. The networks may have another one.",
    ),
    Mistake(
        "empty-negative-prompts-are-none",
        """\
    context, negative_context = contexts_for(model, prompts, negative_prompts, sampling.guidance_scale)
    timesteps = timesteps_for(model.schedule, sampling)
    steps = denoise(model, noise,""",
        """\
    context, negative_context = contexts_for(model, prompts, negative_prompts, sampling.guidance_scale)
    negative_context = negative_context if any(negative_prompts) else None
    timesteps = timesteps_for(model.schedule, sampling)
    steps = denoise(model, noise,""",
        "text_to_image uses no guidance if all negative prompts are empty. An empty text has a context, too; most "
        "pictures are drawn with one.",
    ),
    Mistake(
        "image-to-image-empty-negative-prompts-are-none",
        """\
    context, negative_context = contexts_for(model, prompts, negative_prompts, sampling.guidance_scale)
    timesteps = timesteps_for(model.schedule, sampling)
    timesteps = timesteps[""",
        """\
    context, negative_context = contexts_for(model, prompts, negative_prompts, sampling.guidance_scale)
    negative_context = negative_context if any(negative_prompts) else None
    timesteps = timesteps_for(model.schedule, sampling)
    timesteps = timesteps[""",
        "image_to_image uses no guidance if all negative prompts are empty. An empty text has a context, too; most "
        "pictures are drawn with one.",
    ),
    Mistake(
        "inpaint-empty-negative-prompts-are-none",
        """\
    context, negative_context = contexts_for(model, prompts, negative_prompts, sampling.guidance_scale)
    timesteps = timesteps_for(schedule, sampling)""",
        """\
    context, negative_context = contexts_for(model, prompts, negative_prompts, sampling.guidance_scale)
    negative_context = negative_context if any(negative_prompts) else None
    timesteps = timesteps_for(schedule, sampling)""",
        "inpaint uses no guidance if all negative prompts are empty. An empty text has a context, too; most pictures "
        "are drawn with one.",
    ),
    Mistake(
        "guidance-above-scale-1-only",
        "guided = negative_context is not None",
        "guided = negative_context is not None and guidance_scale > 1.0",
        "predict_noise has guidance above a scale of 1 only. With a negative_context it has it at every scale.",
    ),
    Mistake(
        "scale-zero-is-no-guidance",
        "guided = negative_context is not None",
        "guided = negative_context is not None and bool(guidance_scale)",
        "there is no guidance at a scale of 0. At 0 the prediction is the one for the negative context.",
    ),
    Mistake(
        "start-cut-off-too-early",
        "timesteps = timesteps[model.schedule.start_index(sampling.num_steps, strength) :]",
        "timesteps = timesteps[sampling.num_steps - max(1, int(sampling.num_steps * strength)) :]",
        "image_to_image computes the first step by itself, and int cuts 28.999999999999996 off to 28. "
        "schedule.start_index takes care of that.",
    ),
    Mistake(
        "inpaint-start-cut-off-too-early",
        "timesteps = timesteps[schedule.start_index(sampling.num_steps, strength) :]",
        "timesteps = timesteps[sampling.num_steps - max(1, int(sampling.num_steps * strength)) :]",
        "inpaint computes the first step by itself, and int cuts 28.999999999999996 off to 28. schedule.start_index "
        "takes care of that.",
    ),
    Mistake(
        "pure-noise-when-all-steps-are-left",
        "latents = noise if strength == 1.0 else noisy_original(timesteps[0])",
        "latents = noise if len(timesteps) == sampling.num_steps else noisy_original(timesteps[0])",
        "inpaint starts from the noise alone whenever no step is left out. With one step that is so at every "
        "strength; only at 1 it should.",
    ),
    Mistake(
        "timesteps-must-be-a-list",
        "next_timestep = timesteps[index + 1] if index + 1 < len(timesteps) else -1",
        "next_timestep = (timesteps + [-1])[index + 1]",
        "a list is appended to the timesteps. They may be a tuple or a range, to which nothing can be added in this "
        "way.",
    ),
    Mistake(
        "latents-rounded-between-steps",
        """\
        if after_step is not None:
""",
        """\
        latents = latents.to(context.dtype).to(latents.dtype)
        if after_step is not None:
""",
        "the latents are rounded to the dtype of the context after each step. Only the U-Net works in it; the "
        "latents stay float32.",
    ),
    Mistake(
        "timesteps-on-the-processor",
        "timesteps = torch.full((len(batch),), timestep, device=latents.device)",
        "timesteps = torch.full((len(batch),), timestep)",
        "the timesteps that the U-Net gets are made on the processor. On a GPU they do not go together with its "
        "parameters.",
    ),
    Mistake(
        "fresh-noise-on-the-processor",
        "fresh_noise = draw_noise(latents, sampling.generator)",
        "fresh_noise = torch.randn(latents.shape, generator=sampling.generator)",
        "DDPM's fresh noise stays on the processor. draw_noise draws it there, and moves it to where the latents are.",
    ),
    Mistake(
        "fresh-noise-drawn-on-the-gpu",
        "fresh_noise = draw_noise(latents, sampling.generator)",
        "fresh_noise = torch.randn(latents.shape, generator=sampling.generator, device=latents.device)",
        "DDPM's fresh noise is drawn where the latents are. The generator is one of the processor; draw_noise draws "
        "there, so that a seed gives the same picture everywhere.",
    ),
]
