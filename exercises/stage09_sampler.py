"""Stage 9: the sampler, which draws pictures with all the parts together.

Text to image: the prompt becomes 77 vectors, noise becomes latents step by step, latents become a picture. Image to
image: a given picture is encoded, noise is added to its latents, and only the last steps are taken; `strength` says how
many. Inpainting: after each step, everything outside of the mask is replaced by the given picture, with as much noise
as belongs to the next timestep.

With guidance, the U-Net predicts the noise twice in every step: for the prompt, and for another text, which is empty or
a negative prompt. The difference of the two predictions is a direction, from the other text towards the prompt, and
guidance goes further in this direction than the prediction for the prompt does by itself. What is subtracted are two
noise predictions for the same latents, not two texts.

Sources: Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022, arXiv:2207.12598, equation 6 (with w = scale - 1);
Meng et al., "SDEdit", 2022, arXiv:2108.01073, section 3 (image to image); Lugmayr et al., "RePaint", 2022,
arXiv:2201.09865, equation 8 (inpainting).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .stage05_vae import VAE
from .stage06_clip import CLIPTextEncoder, Tokenizer
from .stage07_unet import UNet
from .stage08_scheduler import NoiseSchedule, ddim_step, ddpm_step, dpm_solver_2m_step, euler_step

SAMPLERS = ("ddim", "ddpm", "euler", "dpm++2m")


@dataclass(frozen=True)
class Sampling:
    """Given: how a picture is drawn.

    Attributes:
        num_steps: the number of steps; image-to-image at a strength below 1 takes only the last of them.
        guidance_scale: 1 means no guidance.
        sampler: one of SAMPLERS.
        generator: source of DDPM's noise, on the CPU; None: torch's own.
    """

    num_steps: int = 50
    guidance_scale: float = 7.5
    sampler: str = "ddim"
    generator: torch.Generator | None = None


@dataclass
class StableDiffusion:
    """Given: the parts of the pipeline."""

    tokenizer: Tokenizer
    text_encoder: CLIPTextEncoder
    unet: UNet
    vae: VAE
    schedule: NoiseSchedule


@dataclass
class Step:
    """Given: what `denoise` reports after each step.

    Attributes:
        index, count: this step's number, from 0, and how many there are.
        timestep: at which the noise was predicted.
        latents: after the step, (batch, channels, height, width), float32.
        original: the clean latents as guessed in this step, the same shape.
    """

    index: int
    count: int
    timestep: int
    latents: Tensor
    original: Tensor


def classifier_free_guidance(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """Exercise 9.1: amplify what the prompt changes in the predicted noise.

    Find the formula: as the scale grows, the result moves along a straight line, by the same amount for each unit of
    the scale. Scale 0 ignores the prompt: the result is the unconditional prediction. Scale 1 gives the prediction for
    the prompt as it is. Stable Diffusion is usually run with 7.5, far beyond that. The paper's w is scale - 1, so its
    w = 0 is the prediction for the prompt.

    Args:
        unconditional: the noise predicted for the negative prompt (or none), (batch, channels, height, width).
        conditional: the noise predicted for the prompt, the same shape.
        scale: the guidance scale.

    Returns:
        The same shape.
    """
    raise NotImplementedError("exercise 9.1: amplify what the prompt changes in the predicted noise")


def encode_prompts(model: StableDiffusion, prompts: Sequence[str]) -> Tensor:
    """Given: prompts to contexts: (number of prompts, max_length, width), on the model's device."""
    tokens = model.tokenizer(prompts).to(model.text_encoder.token_embedding.weight.device)
    return model.text_encoder(tokens)


def predict_noise(
    unet: UNet, latents: Tensor, timestep: int, context: Tensor, negative_context: Tensor | None, guidance_scale: float
) -> Tensor:
    """Exercise 9.2: the noise that the U-Net predicts, with guidance.

    Without a negative_context: the prediction for the context. With one: the predictions for both, combined by
    classifier_free_guidance. Both go through the U-Net in one batch, the unconditional half first; on a GPU that is
    faster than two calls. The U-Net takes latents in the dtype of the context and one timestep per sample.

    Args:
        unet: the U-Net.
        latents: (batch, channels, height, width), float32.
        timestep: the same for all samples.
        context: (batch, tokens, width), of the prompts.
        negative_context: (batch, tokens, width), of the negative prompts, or None for no guidance.
        guidance_scale: used only with a negative_context.

    Returns:
        (batch, channels, height, width), in the dtype of latents.
    """
    raise NotImplementedError("exercise 9.2: the noise that the U-Net predicts, with guidance")


def timesteps_for(schedule: NoiseSchedule, sampling: Sampling) -> list[int]:
    """Given: the timesteps that a sampler visits: DPM-Solver++ divides the schedule into one interval more."""
    intervals = sampling.num_steps + 1 if sampling.sampler == "dpm++2m" else sampling.num_steps
    return schedule.inference_timesteps(sampling.num_steps, intervals)


@torch.no_grad()
def denoise(
    model: StableDiffusion,
    latents: Tensor,
    timesteps: Sequence[int],
    context: Tensor,
    negative_context: Tensor | None = None,
    sampling: Sampling = Sampling(),
    after_step: Callable[[Tensor, int], Tensor] | None = None,
) -> Iterator[Step]:
    """Exercise 9.3: from noisy latents to clean ones, reporting every step.

    First of all, raise a ValueError for an unknown sampler. Then for each timestep: predict the noise, guess the
    original (schedule.predict_original), take one step of the sampler towards the next timestep of the list (after the
    last one: -1), let after_step change the result if there is an after_step, and yield a Step. DDPM needs fresh noise
    in every step: draw_noise(latents, sampling.generator). DPM-Solver++ needs timestep and original of the step before.

    Args:
        model: its unet and its schedule are used.
        latents: (batch, channels, height, width), float32, noisy as at timesteps[0].
        timesteps: falling.
        context, negative_context: as for predict_noise.
        sampling: its guidance_scale, sampler and generator are used; the steps are those of `timesteps`.
        after_step: called with the new latents and the next timestep; what it returns takes the latents' place.

    Yields:
        One Step per timestep.

    Raises:
        ValueError: for an unknown sampler, before the U-Net has run; it names the samplers that there are.
    """
    raise NotImplementedError("exercise 9.3: from noisy latents to clean ones, reporting every step")


def draw_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Given: standard normal noise with the shape, dtype and device of `like`.

    It is always drawn in float32 on the CPU, so that a seed gives the same picture on every device.
    """
    return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(device=like.device, dtype=like.dtype)


def contexts_for(
    model: StableDiffusion, prompts: Sequence[str], negative_prompts: Sequence[str], guidance_scale: float
) -> tuple[Tensor, Tensor | None]:
    """Given: contexts of the prompts and of the negative prompts; for the latter None at scale 1, where they cancel."""
    context = encode_prompts(model, prompts)
    return context, None if guidance_scale == 1.0 else encode_prompts(model, negative_prompts)


def finish(model: StableDiffusion, steps: Iterator[Step], on_step: Callable[[Step], None] | None) -> Tensor:
    """Given: run all steps, telling on_step about each, and decode the last latents."""
    for step in steps:
        if on_step is not None:
            on_step(step)
    return model.vae.decode(step.latents.to(model.vae.post_quant_conv.weight.dtype)).float()


@torch.no_grad()
def text_to_image(
    model: StableDiffusion,
    prompts: Sequence[str],
    negative_prompts: Sequence[str],
    noise: Tensor,
    sampling: Sampling = Sampling(),
    on_step: Callable[[Step], None] | None = None,
) -> Tensor:
    """Exercise 9.4: from prompts and noise to pictures.

    Contexts (contexts_for) -> denoise the noise along all timesteps (timesteps_for) -> decode (finish).

    Args:
        model: the pipeline's parts.
        prompts, negative_prompts: one of each per picture; "" for no negative prompt.
        noise: (batch, latent channels, height / 8, width / 8), float32, standard normal.
        sampling: how to draw.
        on_step: called with each Step, before the next one begins.

    Returns:
        (batch, 3, height, width), float32, about [-1, 1].
    """
    raise NotImplementedError("exercise 9.4: from prompts and noise to pictures")


@torch.no_grad()
def image_to_image(
    model: StableDiffusion,
    images: Tensor,
    prompts: Sequence[str],
    negative_prompts: Sequence[str],
    noise: Tensor,
    strength: float = 0.8,
    sampling: Sampling = Sampling(),
    on_step: Callable[[Step], None] | None = None,
    encoder_noise: Tensor | None = None,
) -> Tensor:
    """Exercise 9.5: from pictures and prompts to new pictures.

    Encode the pictures, leave out the timesteps before schedule.start_index(sampling.num_steps, strength), add noise to
    the latents as at the first timestep that is left, and go on as in text_to_image. The VAE takes pictures in the
    dtype of its weights, which is that of the contexts; the latents go on in the dtype of `noise`, float32.

    Args:
        images: (batch, 3, height, width), float32, in [-1, 1].
        noise: (batch, latent channels, height / 8, width / 8), float32, standard normal.
        strength: above 0 (nearly the given picture) up to 1 (hardly a trace of it).
        encoder_noise: passed to vae.encode: None for the mean.
        The others: as for text_to_image.

    Returns:
        (batch, 3, height, width), float32, about [-1, 1].
    """
    raise NotImplementedError("exercise 9.5: from pictures and prompts to new pictures")


@torch.no_grad()
def inpaint(
    model: StableDiffusion,
    images: Tensor,
    mask: Tensor,
    prompts: Sequence[str],
    negative_prompts: Sequence[str],
    noise: Tensor,
    strength: float = 1.0,
    sampling: Sampling = Sampling(),
    on_step: Callable[[Step], None] | None = None,
    encoder_noise: Tensor | None = None,
) -> Tensor:
    """Exercise 9.6: repaint a part of the pictures and keep the rest.

    As image_to_image, with pictures and latents in the same dtypes, but at strength 1 start from the noise alone, and
    after every step keep the new latents only where the mask is 1; elsewhere take the encoded pictures with the same
    `noise` added as at the next timestep (none when that is -1). The latents' mask takes one pixel of the mask for each
    latent: of the square of pixels that belong to it, the top left one. model.vae.factor says how many pixels wide and
    high that square is: 8 in Stable Diffusion, but not in every VAE.

    Args:
        images: (batch, 3, height, width), float32, in [-1, 1].
        mask: (batch, 1, height, width) of zeros (keep) and ones (repaint).
        The others: as for image_to_image.

    Returns:
        (batch, 3, height, width), float32, about [-1, 1].
    """
    raise NotImplementedError("exercise 9.6: repaint a part of the pictures and keep the rest")
