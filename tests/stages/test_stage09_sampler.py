"""Stage 9 with stand-ins that write down how they were asked, and against the pipelines of diffusers."""

import itertools
import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from course.feedback.compare import check, evaluated, rand
from tests.stages.drawing import check_drawing, each_drawing
from tests.stages.in_turn import check_in_turn
from tests.stages.pretended import check_on_gpu, moved
from tests.stages.small_model import TINY
from tests.stages.small_pipeline import SAMPLERS, Picture, abar, our_parts, seeded, walk_of_diffusers

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
    channels = torch.arange(1, latents.shape[1] + 1, dtype=latents.dtype, device=latents.device)[:, None, None]
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
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.token_embedding = nn.Embedding(64, 6, _weight=rand(64, 6, seed=4, dtype=dtype))

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
        self.images = self.encoder_noise = "not asked"

    def encode(self, images, noise=None):
        self.images, self.encoder_noise = images, noise
        self.encoded = fake_encode(images) + self.zero() + (0.0 if noise is None else 0.1 * noise)
        return self.encoded

    def decode(self, latents):
        return fake_decode(latents) + self.zero()

    def zero(self):
        """Made of the weights, so that gradients would be kept here."""
        return 0.0 * self.post_quant_conv.bias[0]


def fake_encode(images):
    return torch.cat([images, images.mean(dim=1, keepdim=True)], dim=1)[:, :, ::2, ::2]


def fake_decode(latents):
    return 0.5 * latents[:, 1:].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


class FakeAfterStep:
    """Notes the timesteps that it is told."""

    def __init__(self):
        self.told = []

    def __call__(self, latents, next_timestep):
        self.told.append(next_timestep)
        return latents * 0.5 + next_timestep / 1000


def single(*shape, **kwargs):
    return rand(*shape, dtype=torch.float32, **kwargs)


NOISE = single(2, 4, 3, 5)
IMAGES = single(2, 3, 6, 10, seed=8, scale=0.4)
CONTEXT, NEGATIVE_CONTEXT = single(2, 3, 6, seed=1), single(2, 3, 6, seed=2)
TEXTS = ["a house", "a red tree"], ["", "fog"]
TIMESTEPS = {name: [751, 501, 251, 1] for name in ("ddim", "ddpm", "euler")} | {"dpm++2m": [801, 601, 401, 201]}
MASK = torch.zeros(2, 1, 6, 10)
MASK[0, :, :4, 4:] = 1.0
MASK[1, :, 1:, 3:8] = 1.0  # begins in the middle of squares: their top left pixels decide
LATENT_MASK = torch.zeros(2, 1, 3, 5)
LATENT_MASK[0, :, :2, 2:] = 1.0
LATENT_MASK[1, :, 1:, 2:4] = 1.0

# What the names in the calls below mean, besides those of new_stand_ins.
GIVEN = {
    "latents": NOISE, "noise": NOISE, "context": CONTEXT, "negative_context": NEGATIVE_CONTEXT, "images": IMAGES,
    "mask": MASK, "encoder_noise": single(2, 4, 3, 5, seed=6), "prompts": TEXTS[0], "negative_prompts": TEXTS[1],
}


def new_stand_ins(module, schedule, dtype):
    """A model of stand-ins, for one call; `steps` are those that on_step is told, each after so many `runs`."""
    unet, steps, runs = FakeUNet(), [], []

    def on_step(step):
        steps.append(step)
        runs.append(len(unet.calls))

    model = module.StableDiffusion(fake_tokenizer, FakeTextEncoder(dtype), unet, FakeVAE(), schedule)
    return {
        "model": model, "unet": unet, "generator": seeded(), "steps": steps, "runs": runs, "on_step": on_step,
        "after_step": FakeAfterStep(),
    }


@pytest.fixture
def check_call(stage, blocks):
    """`check` for a call with stand-ins, which is written as the text that the message shows.

    Args:
        seen: what to compare instead of the result: a function of the `result` and the stand-ins.
        what: what the message says before the call.
        raises: an exception that counts as a result.
        dtype: of the text encoder.
        given: what else names in the call mean, or mean instead.
    """

    def check_call(
        call, expected, seen=lambda after: after.result, what="", hint="", raises=(), dtype=torch.float32, **given
    ):
        given = {name: value for name, value in (GIVEN | given).items() if re.search(rf"\b{name}\b", call)}

        def run(module):
            stand_ins = new_stand_ins(module, blocks[8].NoiseSchedule(), dtype)
            try:
                result = evaluated(call, stand_ins | given)(module)
            except raises as error:
                result = error
            return seen(SimpleNamespace(**stand_ins, result=result))

        tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        check(stage, run, expected, f"{what} {call}".strip(), tolerance=SINGLE, hint=hint, inputs=tensors)

    return check_call


def batch_sizes(after):
    return [len(call.latents) for call in after.unet.calls]


def noisy(original, noise, timestep):
    return abar(timestep) ** 0.5 * original + (1.0 - abar(timestep)) ** 0.5 * noise


def guided(scale, context=CONTEXT, negative_context=NEGATIVE_CONTEXT):
    """The prediction that FakeUNet's answers make with guidance."""
    return lambda latents, t: (
        (1.0 - scale) * answer(latents, t, negative_context) + scale * answer(latents, t, context)
    )


def unguided(latents, timestep):
    return answer(latents, timestep, CONTEXT)


# --- guidance --------------------------------------------------------------------------------------------------------


@guidance
@pytest.mark.parametrize(("scale", "wanted"), [(0.0, 2.0), (1.0, 5.0), (3.0, 11.0), (-1.0, -1.0)])
def test_guidance_of_single_numbers(stage, scale, wanted):
    two, five, wanted = (torch.full((1, 1, 1, 1), number) for number in (2.0, 5.0, wanted))
    check(
        stage, "classifier_free_guidance(unconditional, conditional, scale)", wanted,
        f"classifier_free_guidance(unconditional=2, conditional=5, scale={scale:g})",
        unconditional=two, conditional=five, scale=scale, tolerance=1e-6,
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


@prediction
def test_without_a_negative_context_the_answer_is_the_unets(check_call):
    check_call(
        "predict_noise(unet, latents, 501, context, None, 7.5)",
        {"the result": unguided(NOISE, 501), "the batch sizes of the U-Net's calls": [2]},
        lambda after: {"the result": after.result, "the batch sizes of the U-Net's calls": batch_sizes(after)},
        "for 2 latents:",
        "pass the timestep on as it is; the guidance scale plays no part without a negative context.",
    )


@prediction
@pytest.mark.parametrize(
    ("samples", "hint"),
    [(2, "which half of the answers belongs to which context?"), (3, "two halves, whatever the number of samples.")],
    ids=["two samples", "three samples"],
)
def test_guided_answer(check_call, samples, hint):
    latents, context, negative_context = single(samples, 4, 3, 5), single(samples, 3, 6, seed=1), single(samples, 3, 6)
    check_call(
        "predict_noise(unet, latents, 501, context, negative_context, 3.0)",
        guided(3.0, context, negative_context)(latents, 501), what=f"for {samples} samples:", hint=hint,
        latents=latents, context=context, negative_context=negative_context,
    )


@prediction
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_guided_answer_at_small_scales(check_call, scale):
    check_call(
        "predict_noise(unet, latents, 501, context, negative_context, scale)",
        guided(scale, CONTEXT, NEGATIVE_CONTEXT)(NOISE, 501), what=f"at scale {scale}:",
        hint="with a negative_context, both predictions are combined, whatever the scale is.",
        latents=NOISE, context=CONTEXT, negative_context=NEGATIVE_CONTEXT, scale=scale,
    )


@prediction
def test_guided_pair_goes_through_the_unet_in_one_batch(check_call):
    def seen(after):
        first = after.unet.calls[0]
        return {
            "the number of calls": len(after.unet.calls), "latents": first.latents, "context": first.context,
            "timesteps": first.timesteps.tolist(),
        }

    wanted = {
        "the number of calls": 1, "latents": torch.cat([NOISE, NOISE]),
        "context": torch.cat([NEGATIVE_CONTEXT, CONTEXT]), "timesteps": [501] * 4,
    }
    check_call(
        "predict_noise(unet, latents, 501, context, negative_context, 3.0)", wanted, seen,
        "for 2 latents: what the U-Net is asked in",
        "one call with a batch of 4: the same latents twice, the negative context in the first half.",
    )


@prediction
@pytest.mark.parametrize("negative", [None, NEGATIVE_CONTEXT.bfloat16()], ids=["unguided", "guided"])
def test_unet_works_in_the_dtype_of_the_context(check_call, negative):
    def seen(after):
        asked = after.unet.calls[0]
        return [str(asked.latents.dtype), int(asked.timesteps[0]), len(asked.timesteps), str(after.result.dtype)]

    check_call(
        "predict_noise(unet, latents, 999, context, negative_context, 2.0)",
        ["torch.bfloat16", 999, 2 if negative is None else 4, "torch.float32"], seen,
        "with a bfloat16 context: [dtype of the U-Net's latents, first timestep, how many, dtype of the result] in",
        "convert latents for the call and the answer back; not the timesteps: bfloat16 makes 1000 of 999.",
        context=CONTEXT.bfloat16(), negative_context=negative,
    )


# --- the loop --------------------------------------------------------------------------------------------------------

DENOISE = "list(denoise(model, latents, [751, 501, 251, 1], context))"


def walk(sampler, more=""):
    """The call that takes four steps of a sampler."""
    return f"list(denoise(model, latents, {TIMESTEPS[sampler]}, context{more}))"


def latents_of(after):
    return [step.latents for step in after.result]


@loop
def test_one_report_per_timestep(check_call):
    check_call(
        DENOISE, [(0, 4, 751), (1, 4, 501), (2, 4, 251), (3, 4, 1)],
        lambda after: [(step.index, step.count, step.timestep) for step in after.result],
        "(index, count, timestep) of the steps of",
    )


@loop
def test_unet_is_asked_at_each_timestep(check_call):
    check_call(
        DENOISE, [[t, t] for t in TIMESTEPS["ddim"]],
        lambda after: [call.timesteps.tolist() for call in after.unet.calls], "the timesteps that the U-Net gets in",
        "predict the noise once per step, with the timestep that the latents are at.",
    )


@loop
def test_latents_of_a_single_step(check_call):
    noise = unguided(NOISE, 501)
    original = (NOISE - (1.0 - abar(501)) ** 0.5 * noise) / abar(501) ** 0.5
    check_call(
        "list(denoise(model, latents, [501], context, sampling=Sampling(sampler='ddim')))",
        [noisy(original, noise, 0)], latents_of, "the latents of",
        "the last step goes to next_timestep -1. Without a negative context there is no guidance.",
    )


@loop
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_latents_after_every_step(check_call, sampler):
    check_call(
        walk(sampler, f", sampling=Sampling(sampler={sampler!r}, generator=generator)"),
        walk_of_diffusers(sampler, unguided, NOISE, 4, generator=seeded()), latents_of, "the latents of every step of",
        {
            "ddpm": "each step draws its own noise: draw_noise(latents, sampling.generator).",
            "dpm++2m": "last_timestep and last_original come from the step before; None in the first step.",
        }.get(sampler, "the next timestep is the next of the list; after the last it is -1."),
    )


@loop
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guided_latents(check_call, sampler):
    check_call(
        walk(sampler, f", negative_context, Sampling(4, 4.0, {sampler!r}, generator)"),
        walk_of_diffusers(sampler, guided(4.0), NOISE, 4, generator=seeded()), latents_of,
        "the latents of every step of", "pass negative_context and sampling.guidance_scale on to predict_noise.",
    )


@loop
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guess_in_every_step(check_call, sampler):
    before = [NOISE, *walk_of_diffusers(sampler, unguided, NOISE, 4, generator=seeded())]
    guesses = [
        (x - (1.0 - abar(t)) ** 0.5 * unguided(x, t)) / abar(t) ** 0.5 for x, t in zip(before, TIMESTEPS[sampler])
    ]
    check_call(
        walk(sampler, f", sampling=Sampling(sampler={sampler!r}, generator=generator)"), guesses,
        lambda after: [step.original for step in after.result], "the originals of every step of",
        "predict_original with the latents from before the step and the noise predicted there.",
    )


@loop
def test_default_guidance_and_sampler(check_call):
    check_call(
        walk("ddim", ", negative_context"), walk_of_diffusers("ddim", guided(7.5), NOISE, 4), latents_of,
        "the latents of", "the default is Sampling(): guidance_scale=7.5, sampler='ddim'.",
    )


@loop
def test_after_step_changes_the_latents(check_call):
    def seen(after):
        return {
            "the timesteps that it is told": after.after_step.told, "the latents of the steps": latents_of(after),
            "the latents that the U-Net sees": [call.latents for call in after.unet.calls],
        }

    changed = walk_of_diffusers("ddim", unguided, NOISE, 4, after_step=FakeAfterStep())
    wanted = {
        "the timesteps that it is told": [501, 251, 1, -1], "the latents of the steps": changed,
        "the latents that the U-Net sees": [NOISE, *changed[:-1]],
    }
    check_call(
        walk("ddim", ", after_step=after_step"), wanted, seen,
        hint="after_step(latents, next_timestep) comes after the sampler's step; go on with what it returns.",
    )


@loop
def test_steps_come_one_at_a_time(check_call):
    check_call(
        "next(iter(denoise(model, latents, [751, 501, 251, 1], context)))", [2], batch_sizes,
        "the batch sizes of the U-Net's calls until",
        "yield each step as soon as it is done, so that a progress bar can follow.",
    )


@loop
def test_no_gradients_are_kept(check_call):
    check_call(
        DENOISE, [False] * 4, lambda after: [step.latents.requires_grad for step in after.result],
        "requires_grad of the latents of each step of",
        "sampling runs under torch.no_grad(): it needs far less memory.",
    )


@loop
def test_three_hundred_steps(check_call):
    check_call(
        "len(list(denoise(model, latents, list(range(300, 0, -1)), context)))", 300,
        hint="compare numbers with < or ==, not with `is`.",
    )


@loop
@pytest.mark.parametrize("sampler", ["dimm", "DDIM", "ddin", "dpm", "heun"])
def test_unknown_sampler(check_call, sampler):
    def seen(after):
        raised = isinstance(after.result, ValueError)
        named = raised and all(name in str(after.result) for name in (sampler, *SAMPLERS))
        error = str(after.result) if raised else f"no ValueError, but {len(after.result)} steps"
        return {"the error": "names it and all samplers" if named else error, "batch sizes": batch_sizes(after)}

    check_call(
        f"list(denoise(model, latents, [501, 1], context, sampling=Sampling(sampler={sampler!r})))",
        {"the error": "names it and all samplers", "batch sizes": []}, seen,
        "the ValueError, and the batch sizes of the U-Net's calls before it, in",
        "compare the sampler with SAMPLERS before the first step: on a large model a step takes long.",
        raises=ValueError,
    )


@loop
@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "euler", "dpm++2m"])
def test_a_sampler_that_was_read_from_a_file(check_call, sampler):
    check_call(
        "len(list(denoise(model, latents, [501, 1], context, sampling=Sampling(sampler=sampler))))", 2,
        what=f"with sampler = {sampler!r}:", hint="compare texts with ==, not with `is`.",
        sampler=sampler.encode().decode(),  # equal, but another object
    )


# --- whole pictures, with stand-ins ----------------------------------------------------------------------------------

TEXT_TO_IMAGE = "text_to_image(model, prompts, negative_prompts, noise"
IMAGE_TO_IMAGE = "image_to_image(model, images, prompts, negative_prompts, noise"
INPAINT = "inpaint(model, images, mask, prompts, negative_prompts, noise"
ORIGINAL = fake_encode(IMAGES)


def last_of(sampler, scale, num_steps, latents=NOISE, start=0, texts=TEXTS, **kwargs):
    """The decoded picture that stand-ins must give."""
    predict = guided(scale, *map(context_of, texts))
    return fake_decode(walk_of_diffusers(sampler, predict, latents, num_steps, start, **kwargs)[-1])


def from_original(sampler, scale, **kwargs):
    """The one that they must give at a strength of 0.75."""
    return last_of(sampler, scale, 4, noisy(ORIGINAL, NOISE, TIMESTEPS[sampler][1]), start=1, **kwargs)


@text
@pytest.mark.parametrize(("sampler", "num_steps"), [*((sampler, 4) for sampler in SAMPLERS), ("dpm++2m", 5)])
def test_text_to_image_with_stand_ins(check_call, sampler, num_steps):
    check_call(
        f"{TEXT_TO_IMAGE}, Sampling({num_steps}, 3.0, {sampler!r}, generator))",
        last_of(sampler, 3.0, num_steps, generator=seeded()),
        hint="decode the last latents; timesteps_for knows the sampler's timesteps; pass sampling on.",
    )


@text
def test_negative_prompts_take_the_unconditional_half(check_call):
    contexts = torch.cat([context_of(TEXTS[1]), context_of(TEXTS[0])])
    check_call(
        f"{TEXT_TO_IMAGE}, Sampling(1, 3.0))", contexts, lambda after: after.unet.calls[0].context,
        "the context that the U-Net gets in",
    )


@text
def test_no_guidance_halves_the_work(check_call):
    check_call(
        f"{TEXT_TO_IMAGE}, Sampling(3, 1.0))", {"batch sizes": [2, 2, 2], "picture": last_of("ddim", 1.0, 3)},
        lambda after: {"batch sizes": batch_sizes(after), "picture": after.result},
        "for 2 prompts: the U-Net's batch sizes and the result of",
        "contexts_for returns None for the negative context at scale 1; leave it so.",
    )


@text
def test_at_scale_zero_the_negative_prompts_draw(check_call):
    check_call(
        f"{TEXT_TO_IMAGE}, Sampling(3, 0.0))", last_of("ddim", 0.0, 3),
        hint="only at scale 1 is the negative context left out.",
    )


@text
def test_on_step_is_told_every_step(check_call):
    def seen(after):
        last = fake_decode(after.steps[-1].latents) if after.steps else None
        timesteps = [step.timestep for step in after.steps]
        return {"timesteps": timesteps, "the last one's picture": last, "the result": after.result}

    wanted = last_of("ddim", 7.5, 3)
    check_call(
        f"{TEXT_TO_IMAGE}, Sampling(3), on_step)",
        {"timesteps": [667, 334, 1], "the last one's picture": wanted, "the result": wanted}, seen,
        "the steps that on_step gets in",
    )


@image
@pytest.mark.parametrize(("strength", "start"), [(1.0, 0), (0.75, 1), (0.5, 2), (0.01, 3)])
def test_first_latents_of_image_to_image(check_call, strength, start):
    timesteps = TIMESTEPS["ddim"][start:]
    check_call(
        f"{IMAGE_TO_IMAGE}, {strength}, Sampling(4, 1.0))",
        {"timesteps": timesteps, "first latents": noisy(ORIGINAL, NOISE, timesteps[0])},
        lambda after: {
            "timesteps": [int(call.timesteps[0]) for call in after.unet.calls],
            "first latents": after.unet.calls[0].latents,
        },
        "what the U-Net sees in", "the noise belongs to the first timestep that is left after start_index.",
    )


@image
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_image_to_image_with_stand_ins(check_call, sampler):
    check_call(
        f"{IMAGE_TO_IMAGE}, 0.75, Sampling(4, 3.0, {sampler!r}, generator))",
        from_original(sampler, 3.0, generator=seeded()),
    )


# Pictures of 8 x 8 pixels and their latents, 4 x 4. Every eighth pixel is a single one here, and fits any latents.
SQUARES = {"images": single(2, 3, 8, 8, seed=9, scale=0.4), "noise": single(2, 4, 4, 4, seed=10)}


@painting
def test_inpainting_keeps_what_is_not_masked(check_call):
    check_call(
        f"{INPAINT}, sampling=Sampling(4))", fake_decode(fake_encode(SQUARES["images"])), what="with a mask of zeros:",
        hint="after the last step the kept part is the encoded picture itself, without noise.",
        mask=torch.zeros(2, 1, 8, 8), **SQUARES,
    )


@painting
def test_inpainting_under_a_full_mask_draws_from_noise_alone(check_call):
    check_call(
        f"{INPAINT}, sampling=Sampling(4, 3.0))", last_of("ddim", 3.0, 4, SQUARES["noise"]),
        what="with a mask of ones:",
        hint="strength is 1 by default: start from the noise alone, and repaint where the mask is 1.",
        mask=torch.ones(2, 1, 8, 8), **SQUARES,
    )


@painting
def test_how_many_pixels_of_the_mask_belong_to_a_latent(check_call):
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, :, 4:] = 1.0
    check_call(
        f"{INPAINT}, sampling=Sampling(4), on_step=on_step)", fake_encode(SQUARES["images"])[..., :2],
        lambda after: after.steps[-1].latents[..., :2],
        "with model.vae.factor = 2 and a mask that keeps the left half: the left half of the last latents of",
        "a latent stands for model.vae.factor x model.vae.factor pixels, here 2 x 2; 8 x 8 is right only for "
        "Stable Diffusion's own VAE.", mask=mask, **SQUARES,
    )


@painting
@pytest.mark.parametrize("strength", [1.0, 0.75])
def test_kept_part_is_as_noisy_as_the_next_timestep(check_call, strength):
    visited, kept = TIMESTEPS["ddim"][0 if strength == 1.0 else 1 :], 1.0 - LATENT_MASK
    wanted = {
        "the first latents": NOISE if strength == 1.0 else noisy(ORIGINAL, NOISE, visited[0]),
        "the kept part of each step's latents": [kept * noisy(ORIGINAL, NOISE, t) for t in [*visited[1:], -1]],
    }
    check_call(
        f"{INPAINT}, {strength}, Sampling(4, 1.0), on_step)", wanted,
        lambda after: {
            "the first latents": after.unet.calls[0].latents,
            "the kept part of each step's latents": [kept * step.latents for step in after.steps],
        },
        hint="the same noise in every step, at the timestep to come; the top left pixel of a square decides.",
    )


@painting
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_inpainting_with_stand_ins(check_call, sampler):
    def keep(latents, following):
        return LATENT_MASK * latents + (1.0 - LATENT_MASK) * noisy(ORIGINAL, NOISE, following)

    check_call(
        f"{INPAINT}, 0.75, Sampling(4, 3.0, {sampler!r}, generator))",
        from_original(sampler, 3.0, generator=seeded(), after_step=keep),
    )


# --- what these functions have in common -----------------------------------------------------------------------------

OF_TEXT = pytest.param(TEXT_TO_IMAGE, marks=text, id="text to image")
OF_IMAGES = [
    pytest.param(IMAGE_TO_IMAGE, marks=image, id="image to image"), pytest.param(INPAINT, marks=painting, id="inpaint"),
]


@pytest.mark.parametrize("call", [OF_TEXT, *OF_IMAGES])
def test_on_step_is_told_at_once(check_call, call):
    check_call(
        f"{call}, sampling=Sampling(3, 1.0), on_step=on_step)", [1],
        lambda after: sorted({last - first for first, last in itertools.pairwise([0, *after.runs])}),
        "how many steps are taken before each call of on_step in",
        "finish takes the steps one by one, as denoise yields them: do not collect them before.",
    )


@pytest.mark.parametrize("call", OF_IMAGES)
def test_encoder_noise_is_passed_on(check_call, call):
    check_call(
        f"{call}, sampling=Sampling(1), encoder_noise=encoder_noise)", GIVEN["encoder_noise"],
        lambda after: after.model.vae.encoder_noise, "the noise that vae.encode gets in",
    )


@pytest.mark.parametrize("call", OF_IMAGES)
def test_the_encoded_pictures_stay_as_they_are(check_call, call):
    check_call(
        f"{call}, 0.75, Sampling(4, 1.0))", ORIGINAL, lambda after: after.model.vae.encoded,
        "the tensor that vae.encode returned, after", "the VAE may still need it: write into a tensor of your own.",
    )


@pytest.mark.parametrize("call", OF_IMAGES)
def test_pictures_are_encoded_in_the_dtype_of_the_context(check_call, call):
    def seen(after):
        return [str(t.dtype) for t in (after.model.vae.images, after.result, after.unet.calls[0].latents)]

    check_call(
        f"{call}, sampling=Sampling(1))", ["torch.bfloat16", "torch.float32", "torch.bfloat16"], seen,
        "with bfloat16 networks: dtypes of [what vae.encode gets, the result, what the U-Net gets] in",
        "the networks work in the dtype of the context; the latents in that of the noise.", dtype=torch.bfloat16,
    )


@pytest.mark.parametrize(
    ("call", "steps", "first"),
    [
        pytest.param(TEXT_TO_IMAGE, 50, 981, marks=text), pytest.param(IMAGE_TO_IMAGE, 40, 781, marks=image),
        pytest.param(INPAINT, 50, 981, marks=painting),
    ],
    ids=["text to image", "image to image", "inpaint"],
)
def test_default_steps(check_call, call, steps, first):
    check_call(
        f"{call}, on_step=on_step)", [steps, first, 1, 4],
        lambda after: [
            len(after.steps), after.steps[0].timestep, after.steps[-1].timestep, len(after.unet.calls[0].latents)
        ],
        "for 2 pictures: [steps, first timestep, last timestep, batch of the U-Net] of",
        "strength is 0.8 in image_to_image and 1 in inpaint, and sampling is Sampling(): 50 steps.",
    )


@pytest.mark.parametrize("call", OF_IMAGES)
def test_default_guidance(check_call, call):
    check_call(
        f"{call}, 0.75, Sampling(4))", from_original("ddim", 7.5), hint="the guidance scale is 7.5, the sampler ddim.",
        what={INPAINT: "with a mask of ones:"}.get(call, ""), mask=torch.ones_like(MASK),
    )


@pytest.mark.parametrize("call", [OF_TEXT, *OF_IMAGES])
def test_pictures_keep_no_gradients(check_call, call):
    check_call(
        f"{call}, sampling=Sampling(2))", False, lambda after: after.result.requires_grad,
        "requires_grad of the result of", "drawing runs under torch.no_grad(): it needs far less memory.",
    )


# --- one picture after another ---------------------------------------------------------------------------------------

OTHER_TEXTS = ["two houses", "a lake at night"], ["grey", ""]
OTHER_NOISE, OTHER_IMAGES = single(2, 4, 3, 5, seed=20), single(2, 3, 6, 10, seed=21, scale=0.4)
OTHER_MASK, OTHER_LATENT_MASK = 1.0 - MASK, 1.0 - LATENT_MASK


def drawn_from(
    texts, sampler="ddim", scale=3.0, num_steps=4, noise=NOISE, images=None, mask=None, seed=5, start=1,
    encoder_noise=0.0,
):
    """The picture that stand-ins must give; start: the index of the first timestep where there are images."""
    predict, after_step, latents = guided(scale, *map(context_of, texts)), {}, noise
    if images is None:
        start = 0
    else:
        original = fake_encode(images) + 0.1 * encoder_noise
        latents = noisy(original, noise, TIMESTEPS[sampler][start])
    if mask is not None:
        after_step = {"after_step": lambda new, t: mask * new + (1.0 - mask) * noisy(original, noise, t)}
    steps = walk_of_diffusers(sampler, predict, latents, num_steps, start, seeded(seed), **after_step)
    return fake_decode(steps[-1])


def swapped(texts):
    return texts[0], OTHER_TEXTS[1]


IN_TURN = {  # calls with one model -> the pictures
    "text_to_image(model, *texts, noise, Sampling(4, 3.0))": drawn_from(TEXTS),
    "text_to_image(model, *other_texts, noise, Sampling(4, 3.0))": drawn_from(OTHER_TEXTS),
    "text_to_image(model, texts[0], other_texts[1], noise, Sampling(4, 3.0))": drawn_from(swapped(TEXTS)),
    "text_to_image(model, *texts, other_noise, Sampling(4, 1.0))": drawn_from(TEXTS, scale=1.0, noise=OTHER_NOISE),
    "text_to_image(model, *texts, noise, Sampling(2, 3.0))": drawn_from(TEXTS, num_steps=2),
    "text_to_image(model, *texts, noise, Sampling(4, 3.0, 'dpm++2m'))": drawn_from(TEXTS, "dpm++2m"),
    "text_to_image(model, *other_texts, noise, Sampling(4, 3.0, 'dpm++2m'))": drawn_from(OTHER_TEXTS, "dpm++2m"),
    "text_to_image(model, *texts, noise, Sampling(4, 3.0, 'ddpm', seeded(5)))": drawn_from(TEXTS, "ddpm"),
    "text_to_image(model, *texts, noise, Sampling(4, 3.0, 'ddpm', seeded(6)))": drawn_from(TEXTS, "ddpm", seed=6),
    "text_to_image(model, texts[0][:1], texts[1][:1], noise[:1], Sampling(4, 3.0))": drawn_from(TEXTS)[:1],
    "image_to_image(model, images, *texts, noise, 0.75, Sampling(4, 3.0), None, encoder_noise)":
        drawn_from(TEXTS, images=IMAGES, encoder_noise=GIVEN["encoder_noise"]),
    "image_to_image(model, images, *texts, noise, 0.75, Sampling(4, 3.0))": drawn_from(TEXTS, images=IMAGES),
    "image_to_image(model, other_images, *texts, noise, 0.75, Sampling(4, 3.0))":
        drawn_from(TEXTS, images=OTHER_IMAGES),
    "image_to_image(model, images, *other_texts, other_noise, 0.75, Sampling(4, 3.0))":
        drawn_from(OTHER_TEXTS, images=IMAGES, noise=OTHER_NOISE),
    "image_to_image(model, images, *texts, noise, 0.5, Sampling(4, 3.0))":
        drawn_from(TEXTS, images=IMAGES, start=2),
    "image_to_image(model, images, *texts, noise, 0.75, Sampling(4, 3.0, 'dpm++2m'))":
        drawn_from(TEXTS, "dpm++2m", images=IMAGES),
    "inpaint(model, images, mask, *texts, noise, 0.75, Sampling(4, 3.0), None, encoder_noise)":
        drawn_from(TEXTS, images=IMAGES, mask=LATENT_MASK, encoder_noise=GIVEN["encoder_noise"]),
    "inpaint(model, images, mask, *texts, noise, 0.75, Sampling(4, 3.0))":
        drawn_from(TEXTS, images=IMAGES, mask=LATENT_MASK),
    "inpaint(model, images, other_mask, *texts, noise, 0.75, Sampling(4, 3.0))":
        drawn_from(TEXTS, images=IMAGES, mask=OTHER_LATENT_MASK),
    "inpaint(model, images, mask, *texts, noise, 0.5, Sampling(4, 3.0))":
        drawn_from(TEXTS, images=IMAGES, mask=LATENT_MASK, start=2),
    "inpaint(model, other_images, mask, *other_texts, other_noise, 0.75, Sampling(4, 3.0))":
        drawn_from(OTHER_TEXTS, images=OTHER_IMAGES, mask=LATENT_MASK, noise=OTHER_NOISE),
}


@pytest.mark.parametrize("kind", [
    pytest.param("text_to_image", marks=text), pytest.param("image_to_image", marks=image),
    pytest.param("inpaint", marks=painting),
])
def test_one_model_draws_several_pictures(stage, blocks, kind):
    given = GIVEN | {
        "texts": TEXTS, "other_texts": OTHER_TEXTS, "other_noise": OTHER_NOISE, "other_images": OTHER_IMAGES,
        "other_mask": OTHER_MASK, "seeded": seeded,
    }

    def make(module):
        names = given | {"model": new_stand_ins(module, blocks[8].NoiseSchedule(), torch.float32)["model"]}
        return lambda call: evaluated(call, names)(module)

    first = [call for call in IN_TURN if call.startswith("text_to_image") and "dpm++2m" in call][:1]
    calls = [{"call": call} for call in [*first, *(call for call in IN_TURN if call.startswith(kind))]]
    check_in_turn(
        stage, "pictures drawn in turn by one model", make, IN_TURN.get, [*calls, *calls], tolerance=SINGLE,
        fresh=lambda m: lambda call: make(m)(call),
    )


@loop
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_denoise_called_again(stage, blocks, sampler):
    """Other contexts, other latents and a run that is left off, then a later start, as in image to image."""
    timesteps = TIMESTEPS[sampler]

    def make(module):
        model = new_stand_ins(module, blocks[8].NoiseSchedule(), torch.float32)["model"]

        def latents_of(latents, context, negative_context, start, count, seed):
            sampling = module.Sampling(4, 3.0, sampler, seeded(seed))
            steps = module.denoise(model, latents, timesteps[start:], context, negative_context, sampling)
            return {f"step {step.index}": step.latents for step in itertools.islice(steps, count)}

        return latents_of

    def wanted(latents, context, negative_context, start, count, seed):
        predict = unguided if negative_context is None else guided(3.0, context, negative_context)
        walked = walk_of_diffusers(sampler, predict, latents, 4, start, seeded(seed))
        return {f"step {index}": latents for index, latents in enumerate(walked[:count])}

    calls = [
        (NOISE, CONTEXT, NEGATIVE_CONTEXT, 0, 4, 5), (NOISE, NEGATIVE_CONTEXT, CONTEXT, 0, 4, 6),
        (OTHER_NOISE, CONTEXT, NEGATIVE_CONTEXT, 0, 2, 5), (NOISE, CONTEXT, None, 2, 2, 5),
        (NOISE[:1], CONTEXT[:1], NEGATIVE_CONTEXT[:1], 0, 4, 5),
    ]
    names = "latents", "context", "negative_context", "start", "steps taken", "seed"
    check_in_turn(
        stage, f"the latents of every step of denoise(...) with {sampler}, called several times in turn", make, wanted,
        [dict(zip(names, call)) for call in [*calls, calls[0]]], tolerance=SINGLE,
        fresh=lambda m: lambda *values: make(m)(*values),
    )


@loop
def test_without_a_generator_every_picture_has_its_own_noise(stage, blocks):
    def run(module):
        model = new_stand_ins(module, blocks[8].NoiseSchedule(), torch.float32)["model"]
        sampling = module.Sampling(sampler="ddpm")
        first, second = (list(module.denoise(model, NOISE, [501, 1], CONTEXT, None, sampling)) for _ in range(2))
        return torch.equal(first[-1].latents, second[-1].latents)

    check(
        stage, run, False, "whether two runs of denoise(...) with ddpm and without a generator give the same latents",
        hint="draw_noise(latents, None) draws from torch's own random numbers, which go on from run to run.",
    )


@pytest.mark.parametrize("call", [
    pytest.param("list(denoise(model, latents, [501, 1], context))", marks=loop),
    pytest.param(f"{TEXT_TO_IMAGE}, Sampling(2))", marks=text),
    pytest.param(f"{IMAGE_TO_IMAGE}, 1.0, Sampling(2))", marks=image),
    pytest.param(f"{INPAINT}, 1.0, Sampling(2))", marks=painting),
])
def test_the_network_stays_as_it_is(stage, blocks, call):
    def run(module):
        states = []
        for mode in (True, False):
            unet = FakeUNet().train(mode)
            parts = fake_tokenizer, FakeTextEncoder(), unet, FakeVAE(), blocks[8].NoiseSchedule()
            evaluated(call, GIVEN | {"model": module.StableDiffusion(*parts)})(module)
            states.append([unet.training, unet.zero.requires_grad])
        return states

    check(
        stage, run, [[True, True], [False, True]],
        f"[in training mode, parameters trainable] of a U-Net in training mode, and of one in eval mode, after {call}",
        hint="a training that draws a picture now and then goes on afterwards: leave the networks as they are.",
    )


@loop
def test_the_list_of_timesteps_stays_as_it_is(check_call):
    check_call(
        "(lambda timesteps: [len(list(denoise(model, latents, timesteps, context))), timesteps])([751, 501, 251, 1])",
        [4, [751, 501, 251, 1]], what="[the number of steps, the timesteps afterwards] in",
        hint="the list belongs to the caller: read it, take nothing off.",
    )


NARROW = torch.bfloat16


def narrow_answer(context):
    """What a FakeUNet in bfloat16 predicts, in float32."""

    def predict(latents, t):
        return answer(latents.to(NARROW), torch.full((len(latents), 1, 1, 1), t), context.to(NARROW)).to(NARROW).float()

    return predict


@loop
def test_latents_stay_float32_beside_a_bfloat16_network(check_call):
    check_call(
        DENOISE, walk_of_diffusers("ddim", narrow_answer(CONTEXT), NOISE, 4), latents_of,
        "with a bfloat16 context: the latents of every step of", context=CONTEXT.to(NARROW),
        hint="only what the U-Net gets is in the dtype of the context; the latents themselves are never rounded to it.",
    )


@image
def test_pictures_become_float32_latents_beside_bfloat16_networks(check_call):
    first = noisy(fake_encode(IMAGES.to(NARROW)).float(), NOISE, 501)
    check_call(
        f"{IMAGE_TO_IMAGE}, 0.75, Sampling(4, 1.0), on_step)",
        walk_of_diffusers("ddim", narrow_answer(context_of(TEXTS[0])), first, 4, start=1),
        lambda after: [step.latents for step in after.steps], "with bfloat16 networks: the latents of every step of",
        "the encoded picture is brought to the dtype of the noise, not the noise to that of the picture.", dtype=NARROW,
    )


# --- whole pictures, of real networks --------------------------------------------------------------------------------

PICTURES = [
    *(pytest.param(Picture("text", sampler, scale), marks=text) for scale in (1.0, 7.5) for sampler in SAMPLERS),
    *(pytest.param(Picture("image", sampler, strength=0.6), marks=image) for sampler in SAMPLERS),
    pytest.param(Picture("image", strength=1.0), marks=image),
    *(pytest.param(Picture("inpaint", sampler), marks=painting) for sampler in SAMPLERS),
    pytest.param(Picture("inpaint", strength=0.6), marks=painting),
]


@pytest.fixture(scope="module")
def parts(blocks):
    return our_parts(blocks, TINY)


@pytest.mark.parametrize("picture", PICTURES, ids=lambda p: f"{p.kind}-{p.sampler}-{p.scale:g}-{p.strength:g}")
def test_picture_of_diffusers(stage, parts, picture):
    check(
        stage, lambda m: picture.ours(m, parts), picture.theirs(), f"{picture} beside diffusers' pipeline",
        tolerance=1e-5,  # float32 rounding over four steps makes 1e-6
    )


# --- arguments that are easily overlooked ----------------------------------------------------------------------------

COMMON = "prompts=prompts, negative_prompts=negative_prompts, noise=noise, sampling=sampling, on_step=on_step"
ALL_BY_NAME = {
    "classifier_free_guidance": "unconditional=latents, conditional=noise, scale=0.5",
    "predict_noise":
        "unet=unet, latents=latents, timestep=501, context=context, negative_context=negative_context, "
        "guidance_scale=3.0",
    "denoise":
        "model=model, latents=latents, timesteps=timesteps, context=context, negative_context=negative_context, "
        "sampling=sampling, after_step=after_step",
    "text_to_image": f"model=model, {COMMON}",
    "image_to_image": f"model=model, images=images, {COMMON}, strength=0.75, encoder_noise=None",
    "inpaint": f"model=model, images=images, mask=mask, {COMMON}, strength=0.75, encoder_noise=None",
}
MARKS = dict(zip(ALL_BY_NAME, (guidance, prediction, loop, text, image, painting)))
each_function = pytest.mark.parametrize("name", [pytest.param(name, marks=mark) for name, mark in MARKS.items()])


def inpainted(sampler, scale, texts=TEXTS, mask=LATENT_MASK, **kwargs):
    """The picture of inpainting at a strength of 0.75."""

    def keep(latents, following):
        return mask * latents + (1.0 - mask) * noisy(ORIGINAL, NOISE, following)

    return from_original(sampler, scale, after_step=keep, texts=texts, **kwargs)


def wanted_of(name, sampler="ddim", scale=3.0, texts=TEXTS):
    """What a call of the function gives, with four steps; of `denoise` the latents of each."""
    drawn = {"generator": seeded()}
    return {
        "classifier_free_guidance": lambda: NOISE,
        "predict_noise": lambda: guided(scale)(NOISE, 501),
        "denoise": lambda: walk_of_diffusers(sampler, guided(scale), NOISE, 4, **drawn),
        "text_to_image": lambda: last_of(sampler, scale, 4, texts=texts, **drawn),
        "image_to_image": lambda: from_original(sampler, scale, texts=texts, **drawn),
        "inpaint": lambda: inpainted(sampler, scale, texts, **drawn),
    }[name]()


@each_function
def test_every_argument_by_its_name(check_call, name):
    arguments = ALL_BY_NAME[name].replace("=sampling", "=Sampling(4, 3.0)").replace("=after_step", "=None")
    check_call(
        f"{name}({arguments})", wanted_of(name), latents_of if name == "denoise" else lambda after: after.result,
        timesteps=TIMESTEPS["ddim"],
    )


DRAWING = {"text_to_image": TEXT_TO_IMAGE, "image_to_image": f"{IMAGE_TO_IMAGE}, 0.75", "inpaint": f"{INPAINT}, 0.75"}
each_drawing_function = pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS[name]) for name in DRAWING])


def check_picture(check_call, name, wanted, what, hint, scale="3.0", **given):
    sampling = f"Sampling(4, {scale})" if name != "text_to_image" else f"sampling=Sampling(4, {scale})"
    check_call(f"{DRAWING[name]}, {sampling})", wanted, what=what, hint=hint, **given)


@each_drawing_function
def test_only_empty_negative_prompts(check_call, name):
    texts = TEXTS[0], ["", ""]
    check_picture(
        check_call, name, wanted_of(name, texts=texts), "with two empty negative prompts:",
        "an empty text is a prompt, too: it has a context, and there is guidance.", negative_prompts=texts[1],
    )


@each_drawing_function
def test_a_scale_of_zero(check_call, name):
    check_picture(
        check_call, name, wanted_of(name, scale=0.0), "",
        "contexts_for decides whether there is a negative context: None at scale 1, and only there.", scale="0.0",
    )


@each_drawing_function
def test_a_scale_that_is_a_whole_number(check_call, name):
    check_picture(check_call, name, wanted_of(name), "", "3 and 3.0 are the same scale.", scale="3")


@each_drawing_function
def test_tuples_of_prompts(check_call, name):
    check_picture(
        check_call, name, wanted_of(name), "with tuples of prompts:", "a tuple is a Sequence, as a list is.",
        prompts=tuple(TEXTS[0]), negative_prompts=tuple(TEXTS[1]),
    )


@prediction
def test_a_scale_of_zero_is_guidance(check_call):
    check_call(
        "predict_noise(unet, latents, 501, context, negative_context, 0.0)", guided(0.0)(NOISE, 501),
        hint="whether there is guidance depends on negative_context alone.",
    )


@loop
@pytest.mark.parametrize("timesteps", [(751, 501, 251, 1), range(751, 0, -250)], ids=["a tuple", "a range"])
def test_timesteps_of_another_kind(check_call, timesteps):
    check_call(
        "list(denoise(model, latents, timesteps, context))", walk_of_diffusers("ddim", unguided, NOISE, 4), latents_of,
        f"the latents of every step, with timesteps = {timesteps}, of", "a tuple or a range is a Sequence, too.",
        timesteps=timesteps,
    )


@text
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_single_step(check_call, sampler):
    check_call(
        f"{TEXT_TO_IMAGE}, Sampling(1, 3.0, {sampler!r}, generator))", last_of(sampler, 3.0, 1, generator=seeded()),
        hint="with one step the first one is also the last one.",
    )


@pytest.mark.parametrize(
    ("call", "strength"),
    [pytest.param(call, strength, marks=mark) for call, mark in ((IMAGE_TO_IMAGE, image), (INPAINT, painting))
     for strength in (0.58, 0.29, 0.001)],
)
def test_strengths_that_are_rounded(check_call, call, strength):
    taken = {0.58: 29, 0.29: 14, 0.001: 1}[strength]
    check_call(
        f"{call}, {strength}, Sampling(50, 1.0), on_step)", [1 + 20 * i for i in reversed(range(taken))],
        lambda after: [step.timestep for step in after.steps], "the timesteps of",
        "schedule.start_index knows how many steps are left out: 50 * 0.58 is 28.999999999999996, and counts as 29.",
    )


@painting
def test_a_single_step_into_a_mask(check_call):
    check_call(
        f"{INPAINT}, 0.5, Sampling(1, 1.0))", noisy(ORIGINAL, NOISE, 1), lambda after: after.unet.calls[0].latents,
        "the latents that the U-Net sees in", "from the noise alone only at a strength of 1, whatever steps are left.",
    )


HALF = {"context": CONTEXT.bfloat16(), "dtype": torch.bfloat16}


@loop
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_latents_keep_their_digits(check_call, sampler):
    def predict(latents, t):
        return answer(latents.bfloat16(), torch.full((2, 1, 1, 1), t), HALF["context"]).bfloat16().float()

    check_call(
        walk(sampler, f", sampling=Sampling(sampler={sampler!r}, generator=generator)"),
        walk_of_diffusers(sampler, predict, NOISE, 4, generator=seeded()), latents_of,
        "with a bfloat16 context: the latents of every step of",
        "only the U-Net works in the dtype of the context; from step to step the latents stay float32.", **HALF,
    )


@pytest.mark.parametrize("call", OF_IMAGES)
def test_the_first_latents_keep_their_digits(check_call, call):
    original = fake_encode(IMAGES.bfloat16()).float()
    check_call(
        f"{call}, 0.75, Sampling(4, 1.0), on_step)", noisy(original, NOISE, 501).bfloat16(),
        lambda after: after.unet.calls[0].latents, "with bfloat16 networks: the latents that the U-Net sees first in",
        "the encoded pictures get the dtype of the noise before noise is added.", dtype=torch.bfloat16,
    )


# --- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sampler"),
    [pytest.param(name, sampler, marks=MARKS[name])
     for name in MARKS for sampler in (SAMPLERS if name == "denoise" else ["ddpm"])],
)
def test_on_a_gpu(stage, blocks, name, sampler):
    asked = f"Sampling(4, 3.0, {sampler!r}, generator)"
    call = f"{name}({ALL_BY_NAME[name].replace('=sampling', f'={asked}').replace('=after_step', '=None')})"

    def run(module):
        stand_ins = new_stand_ins(module, blocks[8].NoiseSchedule(), torch.float32)
        for part in (stand_ins["unet"], stand_ins["model"].text_encoder, stand_ins["model"].vae):
            moved(part)
        given = {key: moved(value) for key, value in GIVEN.items()} | {"timesteps": TIMESTEPS[sampler]}
        result = evaluated(call, given | stand_ins)(module)
        return [step.latents for step in result] if name == "denoise" else result

    check_on_gpu(
        stage, run, wanted_of(name, sampler), call,
        "timesteps and masks go where the latents are; draw_noise draws on the processor, with the generator.",
    )


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("9.1", "9.2", "9.3", "9.4", "9.5", "9.6")
@each_drawing()
def test_what_make_generate_draws(stage, checkpoint_folder, drawing):
    check_drawing(stage, drawing, checkpoint_folder)
