"""The same small Stable Diffusion twice, with the same random weights: as a pipeline of diffusers, and as ours."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course.core.assemble import Blocks
from course.core.config import ModelConfig
from course.feedback import renaming
from course.feedback.compare import rand
from tests.stages import reference
from tests.stages.light import without_compiler
from tests.stages.small_model import MERGES, NEGATIVE_PROMPTS, PROMPTS, TINY, vocabulary

with without_compiler():
    from diffusers import (
        DDIMScheduler,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        EulerDiscreteScheduler,
        StableDiffusionImg2ImgPipeline,
        StableDiffusionInpaintPipeline,
        StableDiffusionPipeline,
    )
    from transformers import CLIPTokenizer

# Stable Diffusion's four levels, small.
SMALL = ModelConfig(
    unet=reference.SMALL_UNET,
    vae=reference.SMALL_VAE,
    clip=dataclasses.replace(reference.SMALL_CLIP, width=reference.SMALL_UNET.context_channels),
)

SCHEDULE = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading", "steps_offset": 1,
}
SCHEDULERS = {
    "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "ddpm": (DDPMScheduler, {"clip_sample": False, "variance_type": "fixed_small"}),
    "euler": (EulerDiscreteScheduler, {}),
    "dpm++2m": (DPMSolverMultistepScheduler, {}),
}
SAMPLERS = tuple(SCHEDULERS)
PIPELINES = {
    "text": StableDiffusionPipeline, "image": StableDiffusionImg2ImgPipeline, "inpaint": StableDiffusionInpaintPipeline,
}
FUNCTIONS = {"text": "text_to_image", "image": "image_to_image", "inpaint": "inpaint"}  # ours


def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer(vocab=vocabulary(), merges=MERGES, model_max_length=77)


def scheduler(sampler: str) -> Any:
    kind, arguments = SCHEDULERS[sampler]
    return kind(**SCHEDULE, **arguments)


@functools.cache
def parts(size: ModelConfig = SMALL) -> Mapping[str, nn.Module]:
    """The three models of diffusers and transformers: float32, random weights."""
    unet = reference.unet(size.unet, 0, precise=False)
    unet.register_to_config(sample_size=64)  # some pipelines want one; it only counts where no height is given
    vae = reference.vae(size.vae, 1)
    with torch.no_grad():
        vae.decoder.conv_out.weight *= 0.5  # so that few pixels leave [-1, 1], where a pipeline cuts them off
    return {"unet": unet.float(), "vae": vae.float(), "text_encoder": reference.clip(size.clip, 2).float()}


@without_compiler()
def pipeline(kind: str, sampler: str, size: ModelConfig = SMALL) -> Any:
    """A pipeline of diffusers, of one of the three kinds in PIPELINES."""
    made = PIPELINES[kind](
        **parts(size), tokenizer=tokenizer(), scheduler=scheduler(sampler), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def our_parts(blocks: Blocks, size: ModelConfig = SMALL) -> dict[str, Any]:
    """What the fields of StableDiffusion want, in float32 and with the same weights."""
    made = {
        "unet": (blocks[7].UNet(size.unet), renaming.UNET),
        "vae": (blocks[5].VAE(size.vae), renaming.VAE),
        "text_encoder": (blocks[6].CLIPTextEncoder(size.clip), renaming.CLIP),
    }
    for name, (model, rules) in made.items():
        model.load_state_dict(renaming.our_weights(parts(size)[name], rules))
    models = {name: model.float().eval() for name, (model, _) in made.items()}
    return models | {"tokenizer": blocks[6].Tokenizer(vocabulary(), MERGES), "schedule": blocks[8].NoiseSchedule()}


def unit_range(images: Tensor) -> Tensor:
    """From about [-1, 1] to [0, 1], as pipelines of diffusers return pictures."""
    return (images / 2 + 0.5).clamp(0.0, 1.0)


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(count: int, shape: tuple[int, ...], seed: int = 5) -> tuple[list[Tensor], torch.Generator]:
    """The first noises that a generator gives, and the generator in the state after them."""
    generator = seeded(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)], generator


@dataclasses.dataclass(frozen=True)
class Picture:
    """What is drawn, by a pipeline of diffusers and by ours; all random numbers are those of one generator.

    Attributes:
        kind: one of the three in PIPELINES.
        batch, height, width: of the pictures.
        size: of the networks.
    """

    kind: str
    sampler: str = "ddim"
    scale: float = 7.5
    strength: float = 1.0
    steps: int = 4
    batch: int = 2
    height: int = 16
    width: int = 24
    size: ModelConfig = TINY

    def __str__(self) -> str:
        given = "" if self.kind == "text" else f"strength={self.strength:g}, "
        asked = f"Sampling({self.steps}, {self.scale:g}, {self.sampler!r}, generator)"
        return f"{FUNCTIONS[self.kind]}(..., {given}{asked}) of {self.batch} pictures {self.width}x{self.height}"

    @property
    def texts(self) -> tuple[list[str], list[str]]:
        return PROMPTS[: self.batch], NEGATIVE_PROMPTS[: self.batch]

    @property
    def images(self) -> Tensor:
        images = rand(self.batch, 3, self.height, self.width, seed=3, scale=0.4, dtype=torch.float32)
        return images.clamp(-1.0, 1.0)

    @property
    def mask(self) -> Tensor:
        """A rectangle to repaint, other than in the middle, and whose edges cut through the squares of the latents."""
        mask = torch.zeros(self.batch, 1, self.height, self.width)
        mask[:, :, 3 : self.height // 2 + 2, self.width // 4 + 1 : -2] = 1.0
        return mask

    @without_compiler()
    def theirs(self, made: Any = None) -> Tensor:
        """By this pipeline of diffusers, or else by one that is made for it."""
        size = {"height": self.height, "width": self.width}
        given = {
            "text": size,
            "image": {"image": self.images, "strength": self.strength},
            "inpaint": {"image": self.images, "mask_image": self.mask, "strength": self.strength} | size,
        }
        prompts, negative_prompts = self.texts
        return (made or pipeline(self.kind, self.sampler, self.size))(
            prompts, negative_prompt=negative_prompts, num_inference_steps=self.steps, guidance_scale=self.scale,
            generator=seeded(), output_type="pt", **given[self.kind],
        ).images

    def ours(self, module: ModuleType, our_parts: Mapping[str, Any]) -> Tensor:
        """By this module of stage 9 with these parts of a StableDiffusion."""
        model = module.StableDiffusion(**our_parts)
        # The third noise is what diffusers encodes the masked picture with, which only larger U-Nets look at.
        count = {"text": 1, "image": 2, "inpaint": 3}[self.kind]
        shape = (self.height // self.size.vae.factor, self.width // self.size.vae.factor)
        noises, generator = drawn(count, (self.batch, self.size.vae.latent_channels, *shape))
        sampling = module.Sampling(self.steps, self.scale, self.sampler, generator)
        if self.kind == "text":
            return unit_range(module.text_to_image(model, *self.texts, *noises, sampling))
        encoder_noise, noise, *_ = noises
        pictures = (self.images,) if self.kind == "image" else (self.images, self.mask)
        draw = getattr(module, FUNCTIONS[self.kind])
        images = draw(model, *pictures, *self.texts, noise, self.strength, sampling, encoder_noise=encoder_noise)
        return unit_range(images)


ABAR = np.cumprod(1.0 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def abar(timestep: int) -> float:
    """Stable Diffusion's; 1 for a negative timestep."""
    return float(ABAR[timestep]) if timestep >= 0 else 1.0


def walk_of_diffusers(
    sampler: str,
    predict: Callable[[Tensor, int], Tensor],
    latents: Tensor,
    num_steps: int,
    start: int = 0,
    generator: torch.Generator | None = None,
    after_step: Callable[[Tensor, int], Tensor] = lambda latents, _: latents,
) -> list[Tensor]:
    """The latents after each step of a scheduler of diffusers, with `predict` in place of the U-Net.

    Its Euler scheduler works on latents / sqrt(abar); they are scaled before and after.
    """
    stepper = scheduler(sampler)
    stepper.set_timesteps(num_steps)
    if sampler in ("euler", "dpm++2m"):
        stepper.set_begin_index(start)
    visited = stepper.timesteps[start:]
    extra = {"generator": generator} if sampler == "ddpm" else {}
    results = []
    for entry, following in zip(visited, [*map(int, visited[1:]), -1]):
        t = int(entry)
        here, there = (math.sqrt(abar(t)), math.sqrt(abar(following))) if sampler == "euler" else (1.0, 1.0)
        latents = stepper.step(predict(latents, t), entry, latents / here, **extra).prev_sample * there
        latents = after_step(latents, following)
        results.append(latents)
    return results
