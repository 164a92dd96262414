"""Stage 9 with stand-ins that write down how they were asked, and against the pipelines of diffusers."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from course.feedback.compare import check, rand
from tests.stages.small_pipeline import (
    NEGATIVE_PROMPTS,
    PROMPTS,
    SAMPLERS,
    TINY,
    abar,
    drawn,
    latent_shape,
    our_parts,
    our_pipeline,
    pipeline,
    seeded,
    unit_range,
    walk_of_diffusers,
)

guidance = pytest.mark.exercise("9.1")
prediction = pytest.mark.exercise("9.2")
loop = pytest.mark.exercise("9.3")
text = pytest.mark.exercise("9.4")
image = pytest.mark.exercise("9.5")
painting = pytest.mark.exercise("9.6")

SINGLE = 1e-5  # latents are float32, and so are the tables of diffusers


# --- stand-ins -------------------------------------------------------------------------------------------------------


def answer(latents, timestep, context):
    """What FakeUNet says: depends on latents, timestep and context, differently for each sample and channel."""
    channels = torch.arange(1, latents.shape[1] + 1, dtype=latents.dtype)[:, None, None]
    heard = context.mean(dim=(1, 2)).reshape(-1, 1, 1, 1) * channels
    return torch.tanh(latents + heard) + timestep / 1000


class FakeUNet(nn.Module):
    """Notes each call."""

    def __init__(self):
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(()))
        self.calls = []

    def forward(self, latents, timesteps, context):
        self.calls.append(SimpleNamespace(latents=latents.detach(), timesteps=timesteps, context=context.detach()))
        noise = answer(latents, timesteps.reshape(-1, 1, 1, 1), context) + self.zero
        return noise.to(latents.dtype)


class FakeTextEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.token_embedding = nn.Embedding(64, 6)
        self.token_embedding.load_state_dict({"weight": rand(64, 6, seed=4, dtype=torch.float32)})

    def forward(self, tokens):
        return self.token_embedding(tokens)


def fake_tokenizer(prompts):
    return torch.tensor([[len(prompt), len(prompt) + 1, 3] for prompt in prompts])


def context_of(prompts):
    with torch.no_grad():
        return FakeTextEncoder()(fake_tokenizer(prompts))


class FakeVAE(nn.Module):
    """A latent is the top left pixel of a 2x2 square, with the colours mixed; the way back repeats it."""

    def __init__(self):
        super().__init__()
        self.factor = 2
        self.post_quant_conv = nn.Conv2d(4, 4, 1)
        self.encoder_noise = "not asked"

    def encode(self, images, noise=None):
        self.encoder_noise = noise
        return fake_encode(images) + self.zero() + (0.0 if noise is None else 0.1 * noise)

    def decode(self, latents):
        return fake_decode(latents) + self.zero()

    def zero(self):
        """Made of the weights, so that gradients would be kept here."""
        return 0.0 * self.post_quant_conv.bias[0]


def fake_encode(images):
    return torch.cat([images, images.mean(dim=1, keepdim=True)], dim=1)[:, :, ::2, ::2]


def fake_decode(latents):
    return 0.5 * latents[:, 1:].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


@pytest.fixture(scope="module")
def make(blocks):
    """A StableDiffusion of stand-ins, with the real noise schedule."""

    def make(module):
        schedule = blocks[8].NoiseSchedule()
        return module.StableDiffusion(fake_tokenizer, FakeTextEncoder(), FakeUNet(), FakeVAE(), schedule)

    return make


def single(*shape, **kwargs):
    return rand(*shape, dtype=torch.float32, **kwargs)


NOISE = single(2, 4, 3, 5)
IMAGES = single(2, 3, 6, 10, seed=8, scale=0.4)
CONTEXT, NEGATIVE_CONTEXT = single(2, 3, 6, seed=1), single(2, 3, 6, seed=2)
TEXTS = ["a house", "a red tree"], ["", "fog"]


def noisy(original, noise, timestep):
    return abar(timestep) ** 0.5 * original + (1.0 - abar(timestep)) ** 0.5 * noise


def guided(scale, context=CONTEXT, negative_context=NEGATIVE_CONTEXT):
    """The prediction that FakeUNet's answers make with guidance."""
    if negative_context is None:
        return lambda latents, t: answer(latents, t, context)
    return lambda latents, t: (
        (1.0 - scale) * answer(latents, t, negative_context) + scale * answer(latents, t, context)
    )


# --- guidance --------------------------------------------------------------------------------------------------------


@guidance
@pytest.mark.parametrize(("scale", "wanted"), [(0.0, 2.0), (1.0, 5.0), (3.0, 11.0), (-1.0, -1.0)])
def test_guidance_of_single_numbers(stage, scale, wanted):
    unconditional, conditional = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 5.0)
    check(
        stage, lambda m: m.classifier_free_guidance(unconditional, conditional, scale),
        torch.full((1, 1, 1, 1), wanted),
        f"classifier_free_guidance(unconditional=2, conditional=5, scale={scale:g})", tolerance=1e-6,
        hint="start from the unconditional prediction: scale 0 gives just that, scale 1 the conditional one.",
    )


@guidance
@given(st.floats(-5, 20), st.integers(0, 1000))
def test_guidance(stage, scale, seed):
    unconditional, conditional = rand(2, 4, 3, 5, seed=seed), rand(2, 4, 3, 5, seed=seed + 1)
    check(
        stage, "classifier_free_guidance(unconditional, conditional, scale)",
        (1.0 - scale) * unconditional + scale * conditional,
        unconditional=unconditional, conditional=conditional, scale=scale,
    )


# --- asking the U-Net ------------------------------------------------------------------------------------------------


def calls_of(ask):
    """Runs `ask(unet)` with a fresh FakeUNet; returns how that was called."""
    unet = FakeUNet()
    ask(unet)
    return unet.calls


@prediction
def test_without_a_negative_context_the_answer_is_the_unets(stage):
    check(
        stage, lambda m: m.predict_noise(FakeUNet(), NOISE, 501, CONTEXT, None, 7.5).detach(),
        answer(NOISE, 501, CONTEXT), "predict_noise(unet, latents, 501, context, negative_context=None, 7.5)",
        tolerance=SINGLE,
        hint="pass the timestep on as it is; the guidance scale plays no part without a negative context.",
        inputs={"latents": NOISE, "context": CONTEXT},
    )


@prediction
def test_without_a_negative_context_the_unet_sees_each_sample_once(stage):
    check(
        stage,
        lambda m: [len(c.latents) for c in calls_of(lambda u: m.predict_noise(u, NOISE, 501, CONTEXT, None, 7.5))],
        [2], "the batch sizes of the U-Net's calls in predict_noise(unet, latents of 2, 501, context, None, 7.5)",
    )


@prediction
def test_guided_answer(stage):
    check(
        stage, lambda m: m.predict_noise(FakeUNet(), NOISE, 501, CONTEXT, NEGATIVE_CONTEXT, 3.0).detach(),
        guided(3.0)(NOISE, 501), "predict_noise(unet, latents, 501, context, negative_context, guidance_scale=3)",
        tolerance=SINGLE, hint="which half of the answers belongs to which context?",
        inputs={"latents": NOISE, "context": CONTEXT, "negative_context": NEGATIVE_CONTEXT},
    )


@prediction
def test_guided_answer_for_three(stage):
    latents, context, negative_context = (single(3, *x.shape[1:], seed=5) for x in (NOISE, CONTEXT, NEGATIVE_CONTEXT))
    check(
        stage, lambda m: m.predict_noise(FakeUNet(), latents, 501, context, negative_context, 3.0).detach(),
        guided(3.0, context, negative_context)(latents, 501),
        "predict_noise(unet, latents, 501, context, negative_context, guidance_scale=3) of three samples",
        tolerance=SINGLE, hint="two halves, whatever the number of samples.",
    )


@prediction
def test_guided_pair_goes_through_the_unet_in_one_batch(stage):
    def run(module):
        calls = calls_of(lambda unet: module.predict_noise(unet, NOISE, 501, CONTEXT, NEGATIVE_CONTEXT, 3.0))
        return {
            "the number of calls": len(calls), "latents": calls[0].latents, "context": calls[0].context,
            "timesteps": calls[0].timesteps.tolist(),
        }

    wanted = {
        "the number of calls": 1, "latents": torch.cat([NOISE, NOISE]),
        "context": torch.cat([NEGATIVE_CONTEXT, CONTEXT]), "timesteps": [501] * 4,
    }
    check(
        stage, run, wanted,
        "what the U-Net is asked in predict_noise(unet, 2 latents, 501, context, negative_context, 3)",
        hint="one call with a batch of 4: the same latents twice, the negative context in the first half.",
    )


@prediction
@pytest.mark.parametrize("negative", [None, NEGATIVE_CONTEXT], ids=["unguided", "guided"])
def test_unet_works_in_the_dtype_of_the_context(stage, negative):
    negative = negative if negative is None else negative.bfloat16()

    def run(module):
        unet = FakeUNet()
        result = module.predict_noise(unet, NOISE, 999, CONTEXT.bfloat16(), negative, 2.0)
        call = unet.calls[0]
        return [str(call.latents.dtype), int(call.timesteps[0]), len(call.timesteps), str(result.dtype)]

    check(
        stage, run, ["torch.bfloat16", 999, 2 if negative is None else 4, "torch.float32"],
        "[dtype of the U-Net's latents, first timestep, how many, dtype of the result], bfloat16 context at 999",
        hint="convert latents for the call and the answer back; not the timesteps: bfloat16 makes 1000 of 999.",
    )


# --- the loop --------------------------------------------------------------------------------------------------------

TIMESTEPS = dict.fromkeys(("ddim", "ddpm", "euler"), [751, 501, 251, 1]) | {"dpm++2m": [801, 601, 401, 201]}


def steps_of(module, model, sampler="ddim", timesteps=None, scale=7.5, generator=None, **kwargs):
    sampling = module.Sampling(guidance_scale=scale, sampler=sampler, generator=generator)
    return list(module.denoise(model, NOISE, timesteps or TIMESTEPS[sampler], CONTEXT, sampling=sampling, **kwargs))


@loop
def test_one_report_per_timestep(stage, make):
    check(
        stage, lambda m: [(s.index, s.count, s.timestep) for s in steps_of(m, make(m))],
        [(0, 4, 751), (1, 4, 501), (2, 4, 251), (3, 4, 1)],
        "(index, count, timestep) of the steps of denoise(model, latents, [751, 501, 251, 1], context)",
    )


@loop
def test_unet_is_asked_at_each_timestep(stage, make):
    def run(module):
        model = make(module)
        steps_of(module, model)
        return [call.timesteps.tolist() for call in model.unet.calls]

    check(
        stage, run, [[t, t] for t in TIMESTEPS["ddim"]],
        "the timesteps that the U-Net gets in denoise(model, latents, [751, 501, 251, 1], context)",
        hint="predict the noise once per step, with the timestep that the latents are at.",
    )


@loop
def test_latents_of_a_single_step(stage, make):
    def run(module):
        return [step.latents for step in steps_of(module, make(module), timesteps=[501])]

    noise = answer(NOISE, 501, CONTEXT)
    original = (NOISE - (1.0 - abar(501)) ** 0.5 * noise) / abar(501) ** 0.5
    check(
        stage, run, [noisy(original, noise, 0)], "the latents of denoise(model, latents, [501], context)",
        tolerance=SINGLE,
        hint="the last step goes to next_timestep -1. Without a negative context there is no guidance.",
        inputs={"latents": NOISE, "context": CONTEXT},
    )


@loop
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_latents_after_every_step(stage, make, sampler):
    def run(module):
        return [step.latents for step in steps_of(module, make(module), sampler, generator=seeded())]

    check(
        stage, run, walk_of_diffusers(sampler, guided(1.0, negative_context=None), NOISE, 4, generator=seeded()),
        f"the latents of every step of denoise(model, latents, ..., sampling=Sampling(sampler={sampler!r}))",
        tolerance=SINGLE,
        hint={
            "ddpm": "each step draws its own noise: draw_noise(latents, sampling.generator).",
            "dpm++2m": "last_timestep and last_original come from the step before; None in the first step.",
        }.get(sampler, "the next timestep is the next of the list; after the last it is -1."),
        inputs={"latents": NOISE},
    )


@loop
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guided_latents(stage, make, sampler):
    def run(module):
        extra = {"negative_context": NEGATIVE_CONTEXT, "scale": 4.0, "generator": seeded()}
        return [step.latents for step in steps_of(module, make(module), sampler, **extra)]

    check(
        stage, run, walk_of_diffusers(sampler, guided(4.0), NOISE, 4, generator=seeded()),
        f"the latents of every step of denoise(..., negative_context, Sampling(guidance_scale=4, sampler={sampler!r}))",
        tolerance=SINGLE, hint="pass negative_context and sampling.guidance_scale on to predict_noise.",
    )


@loop
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guess_in_every_step(stage, make, sampler):
    def run(module):
        steps = steps_of(module, make(module), sampler, generator=seeded())
        return [step.original for step in steps]

    predict = guided(1.0, negative_context=None)
    before = [NOISE, *walk_of_diffusers(sampler, predict, NOISE, 4, generator=seeded())]
    guesses = [
        (x - (1.0 - abar(t)) ** 0.5 * predict(x, t)) / abar(t) ** 0.5 for x, t in zip(before, TIMESTEPS[sampler])
    ]
    check(
        stage, run, guesses, f"the originals of every step of denoise(..., Sampling(sampler={sampler!r}))",
        tolerance=SINGLE,
        hint="predict_original with the latents from before the step and the noise predicted there.",
    )


@loop
def test_default_guidance_and_sampler(stage, make):
    def run(module):
        steps = module.denoise(make(module), NOISE, TIMESTEPS["ddim"], CONTEXT, NEGATIVE_CONTEXT)
        return [step.latents for step in steps]

    check(
        stage, run, walk_of_diffusers("ddim", guided(7.5), NOISE, 4),
        "the latents of denoise(model, latents, timesteps, context, negative_context)", tolerance=SINGLE,
        hint="the default is Sampling(): guidance_scale=7.5, sampler='ddim'.",
    )


@loop
def test_after_step_changes_the_latents(stage, make):
    def run(module):
        told = []

        def after_step(latents, next_timestep):
            told.append(next_timestep)
            return latents * 0.5 + next_timestep / 1000

        model = make(module)
        steps = steps_of(module, model, after_step=after_step)
        return {
            "the timesteps that it is told": told, "the latents of the steps": [step.latents for step in steps],
            "the latents that the U-Net sees": [call.latents for call in model.unet.calls],
        }

    changed = walk_of_diffusers(
        "ddim", guided(1.0, negative_context=None), NOISE, 4, after_step=lambda x, following: x * 0.5 + following / 1000
    )
    wanted = {
        "the timesteps that it is told": [501, 251, 1, -1], "the latents of the steps": changed,
        "the latents that the U-Net sees": [NOISE, *changed[:-1]],
    }
    check(
        stage, run, wanted, "denoise(model, latents, [751, 501, 251, 1], context, after_step=after_step)",
        tolerance=SINGLE,
        hint="after_step(latents, next_timestep) comes after the sampler's step; go on with what it returns.",
    )


@loop
def test_steps_come_one_at_a_time(stage, make):
    def run(module):
        model = make(module)
        next(iter(module.denoise(model, NOISE, TIMESTEPS["ddim"], CONTEXT)))
        return len(model.unet.calls)

    check(
        stage, run, 1, "how often the U-Net has been asked when denoise yields its first step",
        hint="yield each step as soon as it is done, so that a progress bar can follow.",
    )


@loop
def test_no_gradients_are_kept(stage, make):
    check(
        stage, lambda m: [step.latents.requires_grad for step in steps_of(m, make(m))], [False] * 4,
        "requires_grad of each step's latents", hint="sampling runs under torch.no_grad(): it needs far less memory.",
    )


@loop
def test_three_hundred_steps(stage, make):
    check(
        stage, lambda m: len(steps_of(m, make(m), timesteps=list(range(300, 0, -1)))), 300,
        "the number of steps of denoise(model, latents, [300, 299, ..., 1], context)",
        hint="compare numbers with < or ==, not with `is`.",
    )


@loop
@pytest.mark.parametrize("sampler", ["dimm", "DDIM", "ddin", "dpm", "heun"])
def test_unknown_sampler(stage, make, sampler):
    def run(module):
        try:
            return len(steps_of(module, make(module), sampler, [501, 1]))
        except ValueError as error:
            named = all(name in str(error) for name in (sampler, *SAMPLERS))
            return "ValueError that names it and all samplers" if named else f"ValueError: {error}"

    check(stage, run, "ValueError that names it and all samplers", f"denoise(..., Sampling(sampler={sampler!r}))")


@loop
def test_an_unknown_sampler_is_noticed_before_the_unet_runs(stage, make):
    def run(module):
        model = make(module)
        with contextlib.suppress(ValueError):
            steps_of(module, model, "dimm", [501, 1])
        return len(model.unet.calls)

    check(
        stage, run, 0, "how often denoise(..., Sampling(sampler='dimm')) asks the U-Net",
        hint="compare the sampler with SAMPLERS before the first step: on a large model a step takes long.",
    )


@loop
@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "euler", "dpm++2m"])
def test_a_sampler_that_was_read_from_a_file(stage, make, sampler):
    read = sampler.encode().decode()  # equal, but another object
    check(
        stage, lambda m: len(steps_of(m, make(m), read, generator=seeded())), 4,
        f"the number of steps of denoise(..., Sampling(sampler={sampler!r}))",
        hint="compare texts with ==, not with `is`.",
    )


# --- whole pictures, with stand-ins ----------------------------------------------------------------------------------


def record(draw):
    """What `draw(on_step)` returned, and the steps that it told about."""
    steps = []
    picture = draw(steps.append)
    return picture, steps


def last_of(sampler, scale, num_steps, latents=NOISE, start=0, texts=TEXTS, **kwargs):
    """The decoded picture that stand-ins must give."""
    predict = guided(scale, context_of(texts[0]), context_of(texts[1]))
    return fake_decode(walk_of_diffusers(sampler, predict, latents, num_steps, start, **kwargs)[-1])


@text
@pytest.mark.parametrize(("sampler", "num_steps"), [*((sampler, 4) for sampler in SAMPLERS), ("dpm++2m", 5)])
def test_text_to_image_with_stand_ins(stage, make, sampler, num_steps):
    check(
        stage, lambda m: m.text_to_image(make(m), *TEXTS, NOISE, m.Sampling(num_steps, 3.0, sampler, seeded())),
        last_of(sampler, 3.0, num_steps, generator=seeded()),
        f"text_to_image(model, prompts, negative_prompts, noise, Sampling({num_steps}, 3, {sampler!r}, generator))",
        tolerance=SINGLE,
        hint="decode the last latents; timesteps_for knows the sampler's timesteps; pass sampling on.",
        inputs={"noise": NOISE},
    )


@text
def test_negative_prompts_take_the_unconditional_half(stage, make):
    def run(module):
        model = make(module)
        module.text_to_image(model, *TEXTS, NOISE, module.Sampling(1, 3.0))
        return model.unet.calls[0].context

    check(
        stage, run, torch.cat([context_of(TEXTS[1]), context_of(TEXTS[0])]),
        "the context that the U-Net gets in text_to_image(model, prompts, negative_prompts, noise, Sampling(1, 3))",
    )


@text
def test_no_guidance_halves_the_work(stage, make):
    def run(module):
        model = make(module)
        picture = module.text_to_image(model, *TEXTS, NOISE, module.Sampling(3, 1.0))
        return {"batch sizes": [len(call.latents) for call in model.unet.calls], "picture": picture}

    check(
        stage, run, {"batch sizes": [2, 2, 2], "picture": last_of("ddim", 1.0, 3)},
        "the U-Net's batch sizes and the result of text_to_image(model, 2 prompts, ..., noise, Sampling(3, 1.0))",
        tolerance=SINGLE, hint="contexts_for returns None for the negative context at scale 1; leave it so.",
    )


@text
def test_at_scale_zero_the_negative_prompts_draw(stage, make):
    check(
        stage, lambda m: m.text_to_image(make(m), *TEXTS, NOISE, m.Sampling(3, 0.0)), last_of("ddim", 0.0, 3),
        "text_to_image(model, prompts, negative_prompts, noise, Sampling(3, 0.0))", tolerance=SINGLE,
        hint="only at scale 1 is the negative context left out.",
    )


@text
def test_on_step_is_told_every_step(stage, make):
    wanted = last_of("ddim", 7.5, 3)

    def run(module):
        sampling = module.Sampling(3)
        picture, steps = record(lambda told: module.text_to_image(make(module), *TEXTS, NOISE, sampling, on_step=told))
        decoded = [fake_decode(step.latents) for step in steps]
        last = decoded[-1] if decoded else None
        return {"timesteps": [step.timestep for step in steps], "the last one's picture": last, "the result": picture}

    check(
        stage, run,
        {"timesteps": [667, 334, 1], "the last one's picture": wanted, "the result": wanted},
        "the steps that on_step gets in text_to_image(model, prompts, negative_prompts, noise, Sampling(3), on_step)",
        tolerance=SINGLE,
    )


def visited_by(draw):
    """[number of steps, first and last timestep, batch size of the U-Net] of `draw(model, on_step)`."""

    def run(module, make):
        model = make(module)
        _, steps = record(lambda on_step: draw(module, model, on_step))
        return [len(steps), steps[0].timestep, steps[-1].timestep, len(model.unet.calls[0].latents)]

    return run


@text
def test_defaults_of_text_to_image(stage, make):
    run = visited_by(lambda m, model, on_step: m.text_to_image(model, *TEXTS, NOISE, on_step=on_step))
    check(
        stage, lambda m: run(m, make), [50, 981, 1, 4],
        "[steps, first timestep, last timestep, batch of the U-Net] of text_to_image(model, 2 prompts, ..., noise)",
    )


@image
@pytest.mark.parametrize(("strength", "start"), [(1.0, 0), (0.75, 1), (0.5, 2), (0.01, 3)])
def test_first_latents_of_image_to_image(stage, make, strength, start):
    timestep = TIMESTEPS["ddim"][start]

    def run(module):
        model = make(module)
        module.image_to_image(model, IMAGES, *TEXTS, NOISE, strength, module.Sampling(4, 1.0))
        return {
            "timesteps": [int(call.timesteps[0]) for call in model.unet.calls],
            "first latents": model.unet.calls[0].latents,
        }

    check(
        stage, run,
        {"timesteps": TIMESTEPS["ddim"][start:], "first latents": noisy(fake_encode(IMAGES), NOISE, timestep)},
        f"what the U-Net sees in image_to_image(model, images, ..., noise, strength={strength}, Sampling(4, 1.0))",
        tolerance=SINGLE, hint="the noise belongs to the first timestep that is left after start_index.",
        inputs={"images": IMAGES, "noise": NOISE},
    )


@image
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_image_to_image_with_stand_ins(stage, make, sampler):
    first = TIMESTEPS[sampler][1]
    check(
        stage, lambda m: m.image_to_image(make(m), IMAGES, *TEXTS, NOISE, 0.75, m.Sampling(4, 3.0, sampler, seeded())),
        last_of(sampler, 3.0, 4, noisy(fake_encode(IMAGES), NOISE, first), start=1, generator=seeded()),
        f"image_to_image(model, images, ..., noise, 0.75, Sampling(4, 3.0, {sampler!r}, generator))",
        tolerance=SINGLE,
    )


@pytest.mark.parametrize(
    "name", [pytest.param("image_to_image", marks=image), pytest.param("inpaint", marks=painting)]
)
def test_encoder_noise_is_passed_on(stage, make, name):
    encoder_noise = single(2, 4, 3, 5, seed=6)
    mask = () if name == "image_to_image" else (torch.ones(2, 1, 6, 10),)

    def run(module):
        model = make(module)
        sampling = module.Sampling(1)
        getattr(module, name)(model, IMAGES, *mask, *TEXTS, NOISE, sampling=sampling, encoder_noise=encoder_noise)
        return model.vae.encoder_noise

    check(stage, run, encoder_noise, f"the noise that vae.encode gets in {name}(..., encoder_noise=encoder_noise)")


@pytest.mark.parametrize(
    "name", [pytest.param("image_to_image", marks=image), pytest.param("inpaint", marks=painting)]
)
def test_pictures_are_encoded_in_the_dtype_of_the_context(stage, make, name):
    mask = () if name == "image_to_image" else (torch.ones(2, 1, 6, 10),)

    def run(module):
        model, seen = make(module), []
        model.text_encoder.bfloat16()
        encode = model.vae.encode
        model.vae.encode = lambda images, noise=None: seen.append(str(images.dtype)) or encode(images, noise)
        picture = getattr(module, name)(model, IMAGES, *mask, *TEXTS, NOISE, sampling=module.Sampling(1))
        return [*seen, str(picture.dtype), str(model.unet.calls[0].latents.dtype)]

    check(
        stage, run, ["torch.bfloat16", "torch.float32", "torch.bfloat16"],
        f"dtypes in {name}(...) with bfloat16 networks: [what vae.encode gets, the result, what the U-Net gets]",
        hint="the networks work in the dtype of the context; the latents in that of the noise.",
    )


@image
def test_defaults_of_image_to_image(stage, make):
    run = visited_by(lambda m, model, on_step: m.image_to_image(model, IMAGES, *TEXTS, NOISE, on_step=on_step))
    check(
        stage, lambda m: run(m, make), [40, 781, 1, 4],
        "[steps, first timestep, last timestep, batch of the U-Net] of image_to_image(model, 2 images, ..., noise)",
        hint="strength is 0.8, and sampling is Sampling(): 50 steps.",
    )


@image
def test_default_guidance_of_image_to_image(stage, make):
    first = TIMESTEPS["ddim"][1]
    check(
        stage, lambda m: m.image_to_image(make(m), IMAGES, *TEXTS, NOISE, 0.75, m.Sampling(4)),
        last_of("ddim", 7.5, 4, noisy(fake_encode(IMAGES), NOISE, first), start=1),
        "image_to_image(model, images, prompts, negative_prompts, noise, 0.75, Sampling(4))",
        tolerance=SINGLE, hint="the guidance scale is 7.5, the sampler ddim.",
    )


MASK = torch.zeros(2, 1, 6, 10)
MASK[0, :, :4, 4:] = 1.0
MASK[1, :, 1:, 3:8] = 1.0  # begins in the middle of squares: their top left pixels decide
LATENT_MASK = torch.zeros(2, 1, 3, 5)
LATENT_MASK[0, :, :2, 2:] = 1.0
LATENT_MASK[1, :, 1:, 2:4] = 1.0


@painting
def test_inpainting_keeps_what_is_not_masked(stage, make):
    nothing = torch.zeros(2, 1, 6, 10)
    check(
        stage, lambda m: m.inpaint(make(m), IMAGES, nothing, *TEXTS, NOISE, sampling=m.Sampling(4)),
        fake_decode(fake_encode(IMAGES)), "inpaint(model, images, mask of zeros, prompts, negative_prompts, noise)",
        tolerance=SINGLE, hint="after the last step the kept part is the encoded picture itself, without noise.",
        inputs={"images": IMAGES, "mask": nothing, "noise": NOISE},
    )


@painting
def test_inpainting_under_a_full_mask_draws_from_noise_alone(stage, make):
    everything = torch.ones(2, 1, 6, 10)
    check(
        stage, lambda m: m.inpaint(make(m), IMAGES, everything, *TEXTS, NOISE, sampling=m.Sampling(4, 3.0)),
        last_of("ddim", 3.0, 4), "inpaint(model, images, mask of ones, ..., noise, sampling=Sampling(4, 3.0))",
        tolerance=SINGLE, hint="strength is 1 by default: start from the noise alone, and repaint where the mask is 1.",
    )


@painting
@pytest.mark.parametrize("strength", [1.0, 0.75])
def test_kept_part_is_as_noisy_as_the_next_timestep(stage, make, strength):
    start = 0 if strength == 1.0 else 1
    visited, kept = TIMESTEPS["ddim"][start:], (1.0 - LATENT_MASK)
    original = fake_encode(IMAGES)

    def run(module):
        model = make(module)
        sampling = module.Sampling(4, 1.0)
        _, steps = record(
            lambda on_step: module.inpaint(model, IMAGES, MASK, *TEXTS, NOISE, strength, sampling, on_step=on_step)
        )
        return {
            "the first latents": model.unet.calls[0].latents,
            "the kept part of each step's latents": [kept * step.latents for step in steps],
        }

    wanted = {
        "the first latents": NOISE if start == 0 else noisy(original, NOISE, visited[0]),
        "the kept part of each step's latents": [kept * noisy(original, NOISE, t) for t in [*visited[1:], -1]],
    }
    check(
        stage, run, wanted, f"inpaint(model, images, mask, ..., noise, strength={strength}, Sampling(4, 1.0))",
        tolerance=SINGLE,
        hint="the same noise in every step, at the timestep to come; the top left pixel of a square decides.",
    )


@painting
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_inpainting_with_stand_ins(stage, make, sampler):
    original = fake_encode(IMAGES)

    def keep(latents, following):
        return LATENT_MASK * latents + (1.0 - LATENT_MASK) * noisy(original, NOISE, following)

    first = TIMESTEPS[sampler][1]
    check(
        stage, lambda m: m.inpaint(make(m), IMAGES, MASK, *TEXTS, NOISE, 0.75, m.Sampling(4, 3.0, sampler, seeded())),
        last_of(sampler, 3.0, 4, noisy(original, NOISE, first), start=1, generator=seeded(), after_step=keep),
        f"inpaint(model, images, mask, ..., noise, 0.75, Sampling(4, 3.0, {sampler!r}, generator))",
        tolerance=SINGLE, inputs={"images": IMAGES, "mask": MASK, "noise": NOISE},
    )


@painting
def test_default_guidance_of_inpaint(stage, make):
    full = torch.ones_like(MASK)
    check(
        stage, lambda m: m.inpaint(make(m), IMAGES, full, *TEXTS, NOISE, 1.0, m.Sampling(4)), last_of("ddim", 7.5, 4),
        "inpaint(model, images, a mask of ones, prompts, negative_prompts, noise, 1, Sampling(4))",
        tolerance=SINGLE, hint="the guidance scale is 7.5, the sampler ddim.",
    )


@pytest.mark.parametrize(
    "name, given",
    [
        pytest.param("text_to_image", (), marks=text),
        pytest.param("image_to_image", (IMAGES,), marks=image),
        pytest.param("inpaint", (IMAGES, MASK), marks=painting),
    ],
    ids=["text to image", "image to image", "inpaint"],
)
def test_pictures_keep_no_gradients(stage, make, name, given):
    check(
        stage, lambda m: getattr(m, name)(make(m), *given, *TEXTS, NOISE, sampling=m.Sampling(2)).requires_grad, False,
        f"requires_grad of the result of {name}", hint="drawing runs under torch.no_grad(): it needs far less memory.",
    )


@painting
def test_defaults_of_inpaint(stage, make):
    run = visited_by(lambda m, model, on_step: m.inpaint(model, IMAGES, MASK, *TEXTS, NOISE, on_step=on_step))
    check(
        stage, lambda m: run(m, make), [50, 981, 1, 4],
        "[steps, first timestep, last timestep, batch of the U-Net] of inpaint(model, 2 images, mask, ..., noise)",
    )


# --- whole pictures, of real networks --------------------------------------------------------------------------------

HEIGHT, WIDTH = 16, 24
REAL = single(2, 3, HEIGHT, WIDTH, seed=3, scale=0.4).clamp(-1, 1)
REAL_MASK = torch.zeros(2, 1, HEIGHT, WIDTH)
REAL_MASK[:, :, 3:9, 5:] = 1.0
ROUNDING = 1e-5  # float32 rounding over four steps makes 1e-6


@pytest.fixture(scope="module")
def parts(blocks):
    return our_parts(blocks, TINY)


def of_diffusers(kind, sampler, scale, **kwargs):
    return pipeline(kind, sampler, TINY)(
        PROMPTS[:2], negative_prompt=NEGATIVE_PROMPTS[:2], num_inference_steps=4, guidance_scale=scale,
        generator=seeded(),
        output_type="pt", **kwargs,
    ).images


@text
@pytest.mark.parametrize("scale", [1.0, 7.5])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_text_to_image_of_diffusers(stage, parts, sampler, scale):
    def run(module):
        (noise,), generator = drawn(1, latent_shape(2, HEIGHT, WIDTH, TINY))
        model = our_pipeline(module, parts)
        return unit_range(
            module.text_to_image(
                model, PROMPTS[:2], NEGATIVE_PROMPTS[:2], noise, module.Sampling(4, scale, sampler, generator)
            )
        )

    check(
        stage, run, of_diffusers("text", sampler, scale, height=HEIGHT, width=WIDTH),
        f"text_to_image(..., 4 steps, guidance_scale={scale:g}, sampler={sampler!r}) beside diffusers' pipeline",
        tolerance=ROUNDING,
    )


@image
@pytest.mark.parametrize(("sampler", "strength"), [*((sampler, 0.6) for sampler in SAMPLERS), ("ddim", 1.0)])
def test_image_to_image_of_diffusers(stage, parts, sampler, strength):
    def run(module):
        (encoder_noise, noise), generator = drawn(2, latent_shape(2, HEIGHT, WIDTH, TINY))
        pictures = module.image_to_image(
            our_pipeline(module, parts), REAL, PROMPTS[:2], NEGATIVE_PROMPTS[:2], noise, strength,
            module.Sampling(4, 7.5, sampler, generator), encoder_noise=encoder_noise,
        )
        return unit_range(pictures)

    check(
        stage, run, of_diffusers("image", sampler, 7.5, image=REAL, strength=strength),
        f"image_to_image(..., strength={strength}, sampler={sampler!r}) beside diffusers' pipeline", tolerance=ROUNDING,
    )


@painting
@pytest.mark.parametrize(("sampler", "strength"), [*((sampler, 1.0) for sampler in SAMPLERS), ("ddim", 0.6)])
def test_inpainting_of_diffusers(stage, parts, sampler, strength):
    def run(module):
        # The third is what diffusers encodes the masked picture with, which only larger U-Nets look at.
        (encoder_noise, noise, _), generator = drawn(3, latent_shape(2, HEIGHT, WIDTH, TINY))
        pictures = module.inpaint(
            our_pipeline(module, parts), REAL, REAL_MASK, PROMPTS[:2], NEGATIVE_PROMPTS[:2], noise, strength,
            module.Sampling(4, 7.5, sampler, generator), encoder_noise=encoder_noise,
        )
        return unit_range(pictures)

    wanted = of_diffusers(
        "inpaint", sampler, 7.5, image=REAL, mask_image=REAL_MASK, strength=strength, height=HEIGHT, width=WIDTH
    )
    check(
        stage, run, wanted, f"inpaint(..., strength={strength}, sampler={sampler!r}) beside diffusers' pipeline",
        tolerance=ROUNDING,
    )
