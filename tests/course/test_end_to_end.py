"""Whole pictures: the same weights, prompts and noise give the picture of diffusers' pipelines, in float32."""

import pytest

from course.core.assemble import for_testing
from course.feedback.compare import check
from tests.stages.small_pipeline import SAMPLERS, SMALL, Picture, our_parts

LARGEST_DIFFERENCE = 1e-4  # of a pixel, in [0, 1]; measured: 4e-6
TOLERANCE = 1e-5  # of the whole picture; measured: 2e-6

pytestmark = pytest.mark.limit(120)


@pytest.fixture(scope="module")
def parts(blocks):
    return our_parts(blocks)


def compare(module, picture, wanted, call):
    cut_off = ((wanted == 0) | (wanted == 1)).float().mean()
    assert wanted.std() > 0.05 and cut_off < 0.1, f"{call}: this picture would hide mistakes"
    check(module, lambda _: picture, wanted, call, tolerance=TOLERANCE)
    assert (picture - wanted).abs().max() < LARGEST_DIFFERENCE, call


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("kind", "strength", "scale", "batch", "height", "width", "steps"),
    [
        ("text", 1.0, 7.5, 1, 32, 64, 5), ("text", 1.0, 7.5, 3, 64, 32, 2),
        ("text", 1.0, 1.0, 1, 32, 96, 2), ("text", 1.0, 1.0, 3, 32, 32, 4),
        ("image", 0.25, 7.5, 3, 32, 64, 5), ("image", 0.8, 7.5, 1, 64, 32, 5), ("image", 1.0, 1.0, 1, 32, 64, 5),
        ("inpaint", 1.0, 7.5, 3, 32, 64, 5), ("inpaint", 0.6, 7.5, 1, 64, 32, 5), ("inpaint", 0.99, 1.0, 1, 32, 64, 5),
    ],
)
def test_picture_of_diffusers(blocks, parts, sampler, kind, strength, scale, batch, height, width, steps):
    picture = Picture(kind, sampler, scale, strength, steps, batch, height, width, SMALL)
    compare(blocks[9], picture.ours(blocks[9], parts), picture.theirs(), str(picture))


def test_fused_kernels_draw_the_same(blocks, parts):
    """What `make generate` puts in place of the written-out formulas."""
    fused = for_testing(1, "solutions", fused=True)
    picture = Picture("text", height=32, width=64, size=SMALL)
    ours = picture.ours(fused[9], our_parts(fused))
    compare(fused[9], ours, picture.ours(blocks[9], parts), "with fused kernels")
