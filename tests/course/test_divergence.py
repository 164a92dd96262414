"""The search for the first departure from the reference names the right part."""

import re

import pytest
import torch

from course.core.assemble import for_testing
from course.core.config import UNetConfig
from course.core.stages import STAGES
from course.feedback import renaming
from course.feedback.compare import give_weights, rand
from course.feedback.divergence import UNET_PARTS, VAE_PARTS, first_divergence
from tests.stages import reference

UNET = UNetConfig(
    channels=(4, 8), attention=(True, False), blocks_per_level=1, num_heads=2, context_channels=6, num_groups=2
)


def changed(number, find, replacement):
    """The stage with one change."""
    source = STAGES[number - 1].solution.read_text(encoding="utf-8")
    assert source.count(find) == 1, find
    return for_testing(number, "solutions", {number: source.replace(find, replacement)})[number]


def in_the_vae(module):
    theirs = reference.vae(reference.SMALL_VAE)
    ours = give_weights(module.VAE(reference.SMALL_VAE), renaming.our_weights(theirs, renaming.VAE), "VAE(config)")
    images = rand(2, 3, 12, 8)
    return first_divergence(theirs, lambda: theirs.encode(images), ours, lambda: ours.encode(images), VAE_PARTS)


def in_the_unet(module):
    theirs = reference.unet(UNET)
    ours = give_weights(module.UNet(UNET), renaming.our_weights(theirs, renaming.UNET), "UNet(config)")
    inputs = rand(2, 4, 4, 6), torch.tensor([7.0, 500.0]).double(), rand(2, 5, 6, seed=1)

    def arguments(part, given):
        match type(part).__name__:
            case "DownBlock":
                return [*given[:2], inputs[2]]
            case "UpBlock":
                return [given[0], given[1:3], given[3], inputs[2]]
        return given

    return first_divergence(theirs, lambda: theirs(*inputs), ours, lambda: ours(*inputs), UNET_PARTS, arguments)


@pytest.mark.parametrize(("number", "search"), [(5, in_the_vae), (7, in_the_unet)], ids=["vae", "unet"])
def test_nothing_to_find(number, search):
    assert search(for_testing(number, "solutions")[number]) == (
        "  Every part is right on its own and gets the right input: look at what is done with their results."
    )


@pytest.mark.parametrize(
    ("number", "search", "find", "replacement", "wanted"),
    [
        (5, in_the_vae, "asymmetric=True)", "asymmetric=False)", "first to differ is encoder.levels.0.resize"),
        (5, in_the_vae, "self.quant_conv(self.encoder(images))", "self.encoder(images)", "quant_conv .* never called"),
        (5, in_the_vae, "self.encoder(images)", "self.encoder(2 * images)", "another input .* encoder .*error 1 "),
        (7, in_the_unet, "EPS = 1e-5", "EPS = 1e-6", "first to differ is down.0.residuals.0.norm1 "),
        (7, in_the_unet, "[x, skips.pop()]", "[skips.pop(), x]", "first to differ is up.0 "),
        (7, in_the_unet, "block(x, skips, time", "block(x, list(skips), time", "another input .* up.1 .*input 2 of 5"),
        (7, in_the_unet, "x = self.mid(x, time_embedding, context)", "pass", "mid .* is never called"),
        (7, in_the_unet, "conv_out(silu(self.norm_out(x)))", "conv_out(self.norm_out(x))", "input .* conv_out "),
    ],
)
def test_the_part_is_named(number, search, find, replacement, wanted):
    found = search(changed(number, find, replacement))
    assert re.search(wanted, " ".join(found.split())), found
