"""Whole pictures: the same weights, prompts and noise give the picture of diffusers' pipelines, in float32."""

import pytest
import torch

from course.core.assemble import for_testing
from course.feedback.compare import check, rand
from tests.stages.small_pipeline import (
    NEGATIVE_PROMPTS,
    PROMPTS,
    SAMPLERS,
    drawn,
    latent_shape,
    our_parts,
    our_pipeline,
    pipeline,
    seeded,
    unit_range,
)

LARGEST_DIFFERENCE = 1e-4  # of a pixel, in [0, 1]; measured: 4e-6
TOLERANCE = 1e-5  # of the whole picture; measured: 2e-6

pytestmark = pytest.mark.limit(120)


@pytest.fixture(scope="module")
def parts(blocks):
    return our_parts(blocks)


def compare(sampling, draw, wanted, call):
    cut_off = ((wanted == 0) | (wanted == 1)).float().mean()
    assert wanted.std() > 0.05 and cut_off < 0.1, f"{call}: this picture would hide mistakes"
    picture = draw(sampling)
    check(sampling, lambda _: picture, wanted, call, tolerance=TOLERANCE)
    assert (picture - wanted).abs().max() < LARGEST_DIFFERENCE, call


def pictures(batch, height, width):
    return rand(batch, 3, height, width, seed=3, scale=0.4, dtype=torch.float32).clamp(-1, 1)


def masks(batch, height, width):
    """A rectangle to repaint, other than in the middle, and whose edges cut through the squares of the latents."""
    mask = torch.zeros(batch, 1, height, width)
    mask[:, :, 3 : height // 2 + 2, width // 4 + 1 : -2] = 1.0
    return mask


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("scale", "batch", "height", "width", "steps"),
    [(7.5, 1, 32, 64, 5), (7.5, 3, 64, 32, 2), (1.0, 1, 32, 96, 2), (1.0, 3, 32, 32, 4)],
)
def test_text_to_image(blocks, parts, sampler, scale, batch, height, width, steps):
    prompts, negative = PROMPTS[:batch], NEGATIVE_PROMPTS[:batch]
    wanted = pipeline("text", sampler)(
        prompts, negative_prompt=negative, height=height, width=width, num_inference_steps=steps, guidance_scale=scale,
        generator=seeded(), output_type="pt",
    ).images

    def draw(module):
        (noise,), generator = drawn(1, latent_shape(batch, height, width))
        model = our_pipeline(module, parts)
        sampling = module.Sampling(steps, scale, sampler, generator)
        return unit_range(module.text_to_image(model, prompts, negative, noise, sampling))

    compare(blocks[9], draw, wanted, f"{steps} steps of {sampler}, guidance {scale}, {batch} pictures {width}x{height}")


def test_fused_kernels_draw_the_same(blocks, parts):
    """What `make generate` puts in place of the written-out formulas."""
    fused = for_testing(1, "solutions", fused=True)
    noise = rand(*latent_shape(2, 32, 64), dtype=torch.float32)

    def draw(these, parts):
        model = our_pipeline(these[9], parts)
        return unit_range(these[9].text_to_image(model, PROMPTS[:2], NEGATIVE_PROMPTS[:2], noise, these[9].Sampling(4)))

    compare(fused[9], lambda _: draw(fused, our_parts(fused)), draw(blocks, parts), "with fused kernels")


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("strength", "scale", "batch", "height", "width"),
    [(0.25, 7.5, 3, 32, 64), (0.8, 7.5, 1, 64, 32), (1.0, 1.0, 1, 32, 64)],
)
def test_image_to_image(blocks, parts, sampler, strength, scale, batch, height, width):
    prompts, negative, images = PROMPTS[:batch], NEGATIVE_PROMPTS[:batch], pictures(batch, height, width)
    wanted = pipeline("image", sampler)(
        prompts, image=images, strength=strength, negative_prompt=negative, num_inference_steps=5, guidance_scale=scale,
        generator=seeded(), output_type="pt",
    ).images

    def draw(module):
        (encoder_noise, noise), generator = drawn(2, latent_shape(batch, height, width))
        return unit_range(
            module.image_to_image(
                our_pipeline(module, parts), images, prompts, negative, noise, strength,
                module.Sampling(5, scale, sampler, generator), encoder_noise=encoder_noise,
            )
        )

    compare(blocks[9], draw, wanted, f"image to image, strength {strength}, {sampler}, guidance {scale}")


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("strength", "scale", "batch", "height", "width"),
    [(1.0, 7.5, 3, 32, 64), (0.6, 7.5, 1, 64, 32), (0.99, 1.0, 1, 32, 64)],
)
def test_inpaint(blocks, parts, sampler, strength, scale, batch, height, width):
    prompts, negative = PROMPTS[:batch], NEGATIVE_PROMPTS[:batch]
    images, mask = pictures(batch, height, width), masks(batch, height, width)
    wanted = pipeline("inpaint", sampler)(
        prompts, image=images, mask_image=mask, strength=strength, height=height, width=width, negative_prompt=negative,
        num_inference_steps=5, guidance_scale=scale, generator=seeded(), output_type="pt",
    ).images

    def draw(module):
        # The third is what diffusers encodes the masked picture with, which only larger U-Nets look at.
        (encoder_noise, noise, _), generator = drawn(3, latent_shape(batch, height, width))
        return unit_range(
            module.inpaint(
                our_pipeline(module, parts), images, mask, prompts, negative, noise, strength,
                module.Sampling(5, scale, sampler, generator), encoder_noise=encoder_noise,
            )
        )

    compare(blocks[9], draw, wanted, f"inpainting, strength {strength}, {sampler}, guidance {scale}, {batch} pictures")
