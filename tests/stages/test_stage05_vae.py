"""Stage 5 against diffusers' AutoencoderKL."""

import functools
from dataclasses import replace

import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course.core.config import VAEConfig
from course.feedback import renaming
from course.feedback.compare import check, give_weights, rand, results_and_gradients
from course.feedback.divergence import VAE_PARTS, first_divergence
from tests.stages import reference

encoder = pytest.mark.exercise("5.1")
decoder = pytest.mark.exercise("5.2")
sample = pytest.mark.exercise("5.3")
whole = pytest.mark.exercise("5.4")
to_images = pytest.mark.exercise("5.5")

ONE_LEVEL = VAEConfig(channels=(8,), blocks_per_level=1, num_groups=4, latent_channels=3)
TWO_LEVELS = VAEConfig(channels=(8, 12), blocks_per_level=1, num_groups=2, latent_channels=3)
SMALL = reference.SMALL_VAE
FOUR_LEVELS = VAEConfig(image_channels=2, channels=(6, 4, 8, 10), blocks_per_level=3, num_groups=2, latent_channels=5)
CONFIGS = {"one level": ONE_LEVEL, "two levels": TWO_LEVELS, "three levels": SMALL, "four levels": FOUR_LEVELS}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
ROUGH = 1e-3  # for tests of the order of things; an eps that is wrong is the matter of a test of its own
HALVES = {"encoder": "Encoder", "decoder": "Decoder"}


@functools.cache
def theirs(config):
    return reference.vae(config)


@functools.cache
def weights_of(config):
    return reference.our_weights(theirs(config), renaming.VAE)


def half_weights(config, half):
    names = (name for name in weights_of(config) if name.startswith(f"{half}."))
    return {name.removeprefix(f"{half}."): weights_of(config)[name] for name in names}


def make_half(module, half, config, weights=None):
    weights = half_weights(config, half) if weights is None else weights
    return give_weights(getattr(module, HALVES[half])(config), weights, f"{HALVES[half]}(config)")


def make_vae(module, config):
    return give_weights(module.VAE(config), weights_of(config), "VAE(config)")


def half_names(config, half):
    names = reference.our_names(theirs(config), renaming.VAE)
    return {
        name.removeprefix(f"{half}."): own.removeprefix(f"{half}.")
        for name, own in names.items() if name.startswith(f"{half}.")
    }


def pictures(config, batch=2, seed=0, **kwargs):
    """Higher than wide."""
    return rand(batch, config.image_channels, 3 * config.factor, 2 * config.factor, seed=seed, **kwargs)


def latents(config, batch=2, seed=0, **kwargs):
    """Wider than high."""
    return rand(batch, config.latent_channels, 2, 3, seed=seed, **kwargs)


def input_of(config, half, **kwargs):
    return pictures(config, **kwargs) if half == "encoder" else latents(config, **kwargs)


def explain_half(config, half, x):
    wanted = getattr(theirs(config), half)
    rules = {r"^": f"{half}."} | VAE_PARTS | {rf"^{half}\.": ""}

    def explain(module):
        ours = make_half(module, half, config)
        return first_divergence(wanted, lambda: wanted(x), ours, lambda: ours(x), rules)

    return explain


def shapes(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check_half(stage, half, config, x, call, weights=None, expected=None, **kwargs):
    with torch.no_grad():
        expected = getattr(theirs(config), half)(x) if expected is None else expected
        check(
            stage, lambda m: make_half(m, half, config, weights)(x), expected, call,
            **({"explain": explain_half(config, half, x)} if weights is None else {}) | kwargs,
        )


def text_of(config):
    fields = f"channels={config.channels}, blocks_per_level={config.blocks_per_level}"
    return f"VAEConfig({fields}, num_groups={config.num_groups})"


# --- the encoder -----------------------------------------------------------------------------------------------------


@encoder
@every_config
def test_encoder_parameters(stage, config):
    wanted = half_weights(config, "encoder")
    check(
        stage, lambda m: shapes(dict(make_half(m, "encoder", config).named_parameters())), shapes(wanted),
        f"the parameters of Encoder({text_of(config)})",
    )


@encoder
@every_config
def test_encoder_shape(stage, config):
    x = pictures(config)
    check(
        stage, lambda m: tuple(make_half(m, "encoder", config)(x).shape), (2, 2 * config.latent_channels, 3, 2),
        f"the shape of Encoder({text_of(config)})(images) with images of shape {tuple(x.shape)}",
        explain=explain_half(config, "encoder", x),
        hint="every level but the last halves height and width; the result has a mean and a logvar per latent channel.",
    )


@encoder
def test_encoder_of_one_level(stage):
    check_half(
        stage, "encoder", ONE_LEVEL, pictures(ONE_LEVEL), f"Encoder({text_of(ONE_LEVEL)})(images)",
        hint="conv_in, level, middle, norm_out, silu, conv_out, each once and in this order.", tolerance=ROUGH,
    )


@encoder
def test_encoder_halves_with_padding_at_the_right_and_at_the_bottom(stage):
    check_half(
        stage, "encoder", TWO_LEVELS, pictures(TWO_LEVELS), f"Encoder({text_of(TWO_LEVELS)})(images)",
        hint="is the Downsample asymmetric?", tolerance=ROUGH,
    )


@encoder
def test_encoder_eps(stage):
    weights = faint(half_weights(ONE_LEVEL, "encoder"))
    x = pictures(ONE_LEVEL)
    check_half(
        stage, "encoder", ONE_LEVEL, x, "Encoder(config)(images) with convolutions that give very small numbers",
        weights=weights, expected=with_weights(ONE_LEVEL, "encoder", weights)(x),
        hint="norm_out, too, has eps=1e-6, which is not GroupNorm's default.",
    )


@encoder
@every_config
def test_encoder(stage, config):
    x = pictures(config, seed=1)
    check_half(
        stage, "encoder", config, x, f"Encoder({text_of(config)})(images)", tolerance=1e-9, inputs={"images": x}
    )


@encoder
def test_encoder_not_contiguous(stage):
    x = rand(2, 8, 4, 3).permute(0, 3, 1, 2)
    check_half(stage, "encoder", TWO_LEVELS, x, "Encoder(config)(images) with images a permuted view")


@encoder
@pytest.mark.parametrize("config", [TWO_LEVELS, SMALL], ids=["two levels", "three levels"])
def test_encoder_gradients(stage, config):
    check_gradients(stage, "encoder", config)


@encoder
def test_encoder_keeps_float32(stage):
    check_float32(stage, "encoder")


@encoder
@settings(max_examples=6)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31))
def test_encoder_any_size(stage, batch, height, width, seed):
    x = rand(batch, 3, 4 * height, 4 * width, seed=seed)
    check_half(
        stage, "encoder", SMALL, x, f"Encoder({text_of(SMALL)})(images) with images of shape {tuple(x.shape)}",
        tolerance=1e-9,
    )


# --- the decoder -----------------------------------------------------------------------------------------------------


@decoder
@every_config
def test_decoder_parameters(stage, config):
    wanted = half_weights(config, "decoder")
    check(
        stage, lambda m: shapes(dict(make_half(m, "decoder", config).named_parameters())), shapes(wanted),
        f"the parameters of Decoder({text_of(config)})",
    )


@decoder
@every_config
def test_decoder_shape(stage, config):
    x = latents(config)
    wanted = (2, config.image_channels, 2 * config.factor, 3 * config.factor)
    check(
        stage, lambda m: tuple(make_half(m, "decoder", config)(x).shape), wanted,
        f"the shape of Decoder({text_of(config)})(latents) with latents of shape {tuple(x.shape)}",
        explain=explain_half(config, "decoder", x),
        hint="every level but the last one run doubles height and width.",
    )


@decoder
def test_decoder_of_one_level(stage):
    check_half(
        stage, "decoder", ONE_LEVEL, latents(ONE_LEVEL), f"Decoder({text_of(ONE_LEVEL)})(latents)",
        hint="conv_in, middle, level, norm_out, silu, conv_out, each once and in this order.", tolerance=ROUGH,
    )


@decoder
def test_decoder_of_two_levels(stage):
    check_half(
        stage, "decoder", TWO_LEVELS, latents(TWO_LEVELS), f"Decoder({text_of(TWO_LEVELS)})(latents)",
        hint="the widest channels come first, and the Upsample comes after a level's residual blocks.", tolerance=ROUGH,
    )


@decoder
def test_decoder_eps(stage):
    weights = faint(half_weights(ONE_LEVEL, "decoder"))
    x = latents(ONE_LEVEL)
    check_half(
        stage, "decoder", ONE_LEVEL, x, "Decoder(config)(latents) with convolutions that give very small numbers",
        weights=weights, expected=with_weights(ONE_LEVEL, "decoder", weights)(x),
        hint="norm_out, too, has eps=1e-6, which is not GroupNorm's default.",
    )


@decoder
@every_config
def test_decoder(stage, config):
    x = latents(config, seed=1)
    check_half(
        stage, "decoder", config, x, f"Decoder({text_of(config)})(latents)", tolerance=1e-9, inputs={"latents": x}
    )


@decoder
def test_decoder_not_contiguous(stage):
    x = rand(2, 2, 4, 3).permute(0, 3, 1, 2)
    check_half(stage, "decoder", TWO_LEVELS, x, "Decoder(config)(latents) with latents a permuted view")


@decoder
@pytest.mark.parametrize("config", [TWO_LEVELS, SMALL], ids=["two levels", "three levels"])
def test_decoder_gradients(stage, config):
    check_gradients(stage, "decoder", config)


@decoder
def test_decoder_keeps_float32(stage):
    check_float32(stage, "decoder")


@decoder
@settings(max_examples=6)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31))
def test_decoder_any_size(stage, batch, height, width, seed):
    x = rand(batch, 4, height, width, seed=seed)
    check_half(
        stage, "decoder", SMALL, x, f"Decoder({text_of(SMALL)})(latents) with latents of shape {tuple(x.shape)}",
        tolerance=1e-9,
    )


def faint(weights):
    """The same weights, but for convolutions that shrink everything, so that eps is not small beside the variance."""
    return {name: tensor * 0.02 if "conv" in name else tensor for name, tensor in weights.items()}


def with_weights(config, half, weights):
    """Their half with other weights, given under our names."""
    model = getattr(reference.vae(config), half)
    names = half_names(config, half)
    model.load_state_dict({name: weights[own] for name, own in names.items()})
    return model


def check_gradients(stage, half, config):
    x, wanted = input_of(config, half), getattr(theirs(config), half)
    check(
        stage, lambda m: results_and_gradients(make_half(m, half, config), x),
        results_and_gradients(wanted, x, names=half_names(config, half)),
        f"{HALVES[half]}({text_of(config)})(x) and its gradients", tolerance=1e-9,
        hint="is every part called, and does nothing cut the graph (no_grad, detach, .data)?",
    )


def check_float32(stage, half):
    x = input_of(TWO_LEVELS, half)
    with torch.no_grad():
        wanted = getattr(theirs(TWO_LEVELS), half)(x).float()
    check(
        stage, lambda m: make_half(m, half, TWO_LEVELS).float()(x.float()), wanted,
        f"{HALVES[half]}(config)(x) in float32", tolerance=2e-6,  # every layer's result is rounded at 6e-8
        hint="the result has the dtype of the input and the parameters.",
    )


# --- drawing latents -------------------------------------------------------------------------------------------------


def moments_of(mean, logvar):
    return torch.cat([mean, logvar], dim=1)


@sample
def test_without_noise_there_is_the_mean(stage):
    mean, logvar = rand(2, 3, 4, 5), rand(2, 3, 4, 5, seed=1)
    check(
        stage, lambda m: m.sample_latents(moments_of(mean, logvar), torch.zeros_like(mean)), mean,
        "sample_latents(moments, noise) with noise of zeros",
        hint="the mean is the first half of the channels.",
    )


@sample
def test_a_logvar_of_zero_is_a_standard_deviation_of_one(stage):
    noise = rand(2, 3, 4, 5)
    check(
        stage, lambda m: m.sample_latents(torch.zeros(2, 6, 4, 5, dtype=torch.float64), noise), noise,
        "sample_latents(moments, noise) with moments of zeros",
        hint="exp(0) is 1, and this times the noise is the noise.",
    )


@sample
def test_logvar_is_the_logarithm_of_the_variance(stage):
    logvar = torch.tensor([0.01, 0.25, 4.0, 9.0], dtype=torch.float64).log().reshape(1, 4, 1, 1).expand(2, 4, 3, 5)
    noise = rand(2, 4, 3, 5)
    std = torch.tensor([0.1, 0.5, 2.0, 3.0], dtype=torch.float64).reshape(1, 4, 1, 1)
    check(
        stage, lambda m: m.sample_latents(moments_of(torch.zeros_like(logvar), logvar), noise), std * noise,
        "sample_latents(moments, noise) with means of 0 and variances of 0.01, 0.25, 4 and 9",
        hint="noise is multiplied by the standard deviation, the root of the variance: exp(logvar / 2).",
    )


@sample
@pytest.mark.parametrize(
    ("logvar", "limit"), [(21.0, 20.0), (19.5, 19.5), (5000.0, 20.0), (-31.0, -30.0), (-29.5, -29.5), (-5000.0, -30.0)]
)
def test_logvar_is_clamped(stage, logvar, limit):
    noise = rand(2, 3, 4, 5)
    logvars = torch.full_like(noise, logvar)
    check(
        stage, lambda m: m.sample_latents(moments_of(torch.zeros_like(noise), logvars), noise),
        noise * torch.exp(torch.tensor(limit / 2, dtype=torch.float64)),
        f"sample_latents(moments, noise) with means of 0 and logvars of {logvar:g}",
        hint="logvar is clamped to [-30, 20] before the exponential; the mean is not.",
    )


@sample
def test_the_mean_is_not_clamped(stage):
    mean = rand(2, 3, 4, 5, scale=100.0)
    check(
        stage, lambda m: m.sample_latents(moments_of(mean, torch.zeros_like(mean)), torch.zeros_like(mean)), mean,
        "sample_latents(moments, noise) with means of about 100 and noise of zeros", hint="only logvar is clamped.",
    )


class Sampling(nn.Module):
    """A function of moments and noise as a module without parameters."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, moments, noise):
        return self.function(moments, noise)


def their_sample(moments, noise):
    distribution = DiagonalGaussianDistribution(moments)
    return distribution.mean + distribution.std * noise


@sample
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31))
def test_sample_latents(stage, batch, channels, height, width, seed):
    moments = rand(batch, 2 * channels, height, width, seed=seed, scale=20.0)
    noise = rand(batch, channels, height, width, seed=seed + 1)
    check(
        stage, lambda m: m.sample_latents(moments, noise), their_sample(moments, noise),
        f"sample_latents(moments, noise) with moments of shape {tuple(moments.shape)}",
        inputs={"moments": moments, "noise": noise},
    )


@sample
def test_sample_latents_gradients(stage):
    moments = rand(2, 6, 4, 5, scale=20.0)  # some logvars are outside of the limits
    noise = rand(2, 3, 4, 5, seed=1)
    check(
        stage, lambda m: results_and_gradients(Sampling(m.sample_latents), moments, noise),
        results_and_gradients(Sampling(their_sample), moments, noise),
        "sample_latents(moments, noise) and its gradients",
        hint="the gradient flows through mean and logvar, and is 0 where logvar is clamped.",
    )


@sample
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_sample_latents_keeps_the_dtype(stage, dtype):
    moments, noise = rand(2, 6, 4, 5).to(dtype), rand(2, 3, 4, 5, seed=1).to(dtype)
    check(
        stage, lambda m: m.sample_latents(moments, noise), their_sample(moments.double(), noise.double()).to(dtype),
        f"sample_latents(moments, noise) in {str(dtype).removeprefix('torch.')}",
        tolerance=4 * torch.finfo(dtype).eps,  # four roundings
    )


# --- the whole -------------------------------------------------------------------------------------------------------


def their_encode(config, x, noise=None):
    distribution = theirs(config).encode(x).latent_dist
    drawn = distribution.mode() if noise is None else distribution.mean + distribution.std * noise
    return drawn * config.scaling_factor


def their_decode(config, z):
    return theirs(config).decode(z / config.scaling_factor).sample


def explain_vae(config, method, run_theirs, *arguments):
    def explain(module):
        ours = make_vae(module, config)
        return first_divergence(
            theirs(config), run_theirs, ours, lambda: getattr(ours, method)(*arguments), VAE_PARTS
        )

    return explain


def check_encode(stage, config, call, x, noise=None, **kwargs):
    def run(module):
        vae = make_vae(module, config)
        return vae.encode(x) if noise is None else vae.encode(x, noise)

    def run_theirs():
        return their_encode(config, x, noise)

    with torch.no_grad():
        explain = explain_vae(config, "encode", run_theirs, x, *([] if noise is None else [noise]))
        check(stage, run, run_theirs(), call, tolerance=1e-9, explain=explain, **kwargs)


def check_decode(stage, config, call, z, **kwargs):
    def run_theirs():
        return their_decode(config, z)

    with torch.no_grad():
        check(
            stage, lambda m: make_vae(m, config).decode(z), run_theirs(), call, tolerance=1e-9,
            explain=explain_vae(config, "decode", run_theirs, z), **kwargs,
        )


PLAIN = replace(ONE_LEVEL, scaling_factor=1.0)


@whole
def test_vae_parameters(stage):
    check(
        stage, lambda m: shapes(dict(make_vae(m, SMALL).named_parameters())), shapes(weights_of(SMALL)),
        f"the parameters of VAE({text_of(SMALL)})",
    )


@whole
def test_encode_without_noise(stage):
    check_encode(
        stage, PLAIN, "VAE(config).encode(images) with a scaling factor of 1", pictures(PLAIN),
        hint="encoder, then quant_conv, then the mean, which is the first half of the channels.",
    )


@whole
def test_encode_with_noise(stage):
    check_encode(
        stage, PLAIN, "VAE(config).encode(images, noise) with a scaling factor of 1",
        pictures(PLAIN), rand(2, 3, 3, 2, seed=1), hint="with noise, the latents are sample_latents(moments, noise).",
    )


@whole
def test_encode_with_noise_of_zeros(stage):
    check_encode(
        stage, PLAIN, "VAE(config).encode(images, noise) with noise of zeros", pictures(PLAIN),
        torch.zeros(2, 3, 3, 2, dtype=torch.float64), hint="ask whether noise is None, not whether it is true.",
    )


@whole
def test_encode_scales_the_latents(stage):
    config = replace(ONE_LEVEL, scaling_factor=0.4)
    check_encode(
        stage, config, "VAE(config).encode(images, noise) with a scaling factor of 0.4",
        pictures(config), rand(2, 3, 3, 2, seed=1),
        hint="the latents, noise included, are multiplied by self.scaling_factor at the very end.",
    )


@whole
@pytest.mark.parametrize("with_noise", [False, True], ids=["mean", "noise"])
@every_config
def test_encode(stage, config, with_noise):
    x = pictures(config, seed=2)
    noise = rand(2, config.latent_channels, 3, 2, seed=3) if with_noise else None
    inputs = {"images": x} | ({"noise": noise} if with_noise else {})
    check_encode(
        stage, config, f"VAE({text_of(config)}).encode(images{', noise' if with_noise else ''})", x, noise,
        inputs=inputs,
    )


@whole
def test_decode(stage):
    check_decode(
        stage, PLAIN, "VAE(config).decode(latents) with a scaling factor of 1", latents(PLAIN),
        hint="post_quant_conv, then the decoder.",
    )


@whole
def test_decode_undoes_the_scaling(stage):
    config = replace(ONE_LEVEL, scaling_factor=0.4)
    check_decode(
        stage, config, "VAE(config).decode(latents) with a scaling factor of 0.4", latents(config),
        hint="divide the latents by self.scaling_factor before post_quant_conv, whose bias is not to be scaled.",
    )


@whole
def test_decode_does_not_clamp(stage):
    check_decode(
        stage, PLAIN, "VAE(config).decode(latents) with large latents", latents(PLAIN, scale=50.0),
        hint="the pictures may leave [-1, 1]; tensor_to_images takes care of that.",
    )


@whole
@every_config
def test_decode_whole(stage, config):
    z = latents(config, seed=2)
    check_decode(stage, config, f"VAE({text_of(config)}).decode(latents)", z, inputs={"latents": z})


class Method(nn.Module):
    """One method of a model as the forward of a module with the same parameters."""

    def __init__(self, model, method):
        super().__init__()
        self.model = model
        self.method = method

    def forward(self, *args):
        return self.method(*args)


@whole
def test_encode_gradients(stage):
    x, noise = pictures(TWO_LEVELS), rand(2, 3, 3, 2, seed=1)
    model = theirs(TWO_LEVELS)
    names = {f"model.{name}": f"model.{own}" for name, own in reference.our_names(model, renaming.VAE).items()}

    def run(module):
        vae = make_vae(module, TWO_LEVELS)
        return results_and_gradients(Method(vae, vae.encode), x, noise)

    wanted = Method(model, lambda *args: their_encode(TWO_LEVELS, *args))
    check(
        stage, run, results_and_gradients(wanted, x, noise, names=names),
        "VAE(config).encode(images, noise) and its gradients", tolerance=1e-9,
        hint="does anything cut the graph (no_grad, detach, .data)?",
    )


@whole
def test_decode_gradients(stage):
    z = latents(TWO_LEVELS)
    model = theirs(TWO_LEVELS)
    names = {f"model.{name}": f"model.{own}" for name, own in reference.our_names(model, renaming.VAE).items()}

    def run(module):
        vae = make_vae(module, TWO_LEVELS)
        return results_and_gradients(Method(vae, vae.decode), z)

    check(
        stage, run, results_and_gradients(Method(model, lambda z: their_decode(TWO_LEVELS, z)), z, names=names),
        "VAE(config).decode(latents) and its gradients", tolerance=1e-9,
        hint="does anything cut the graph (no_grad, detach, .data)?",
    )


@whole
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_the_vae_keeps_the_dtype(stage, dtype):
    x, noise, z = pictures(ONE_LEVEL), rand(2, 3, 3, 2, seed=1), latents(ONE_LEVEL)

    def run(module):
        vae = make_vae(module, ONE_LEVEL).to(dtype)
        return vae.encode(x.to(dtype), noise.to(dtype)), vae.decode(z.to(dtype))

    with torch.no_grad():
        wanted = their_encode(ONE_LEVEL, x, noise).to(dtype), their_decode(ONE_LEVEL, z).to(dtype)
        check(
            stage, run, wanted, f"VAE(config).encode(images, noise) and .decode(latents) in {dtype}",
            tolerance=10 * torch.finfo(dtype).eps,  # weights and results of all layers are rounded: 1 to 2 in all
            hint="latents and pictures have the dtype of the parameters.",
        )


# --- pictures to look at ---------------------------------------------------------------------------------------------


def as_picture(values, height=1):
    """The same values in all three channels: (1, 3, height, n)."""
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, height, -1).expand(1, 3, height, -1)


def as_image(levels, height=1):
    return torch.tensor(levels, dtype=torch.uint8).reshape(1, height, -1, 1).expand(1, height, -1, 3)


@to_images
def test_black_grey_and_white(stage):
    check(
        stage, lambda m: m.tensor_to_images(as_picture([-1.0, 1.0, 127 / 127.5 - 1])), as_image([0, 255, 127]),
        "tensor_to_images(x) with the values -1, 1 and 127 / 127.5 - 1",
        hint="[-1, 1] becomes [0, 255]: add one, times 127.5. The result is uint8, with the channels last.",
    )


@to_images
def test_every_grey_level(stage):
    x = as_picture([level / 127.5 - 1 for level in range(256)], height=8)
    check(
        stage, lambda m: m.tensor_to_images(x), as_image(range(256), height=8),
        "tensor_to_images(x) with the 256 grey levels", hint="1 becomes 255, not 256.",
    )


@to_images
def test_to_the_nearest_grey_level(stage):
    x = as_picture([(level + offset) / 127.5 - 1 for level in range(1, 255) for offset in (-0.4, 0.4)])
    check(
        stage, lambda m: m.tensor_to_images(x), as_image([level for level in range(1, 255) for _ in range(2)]),
        "tensor_to_images(x) with values 0.4 grey levels beside the 254 inner levels",
        hint="round before the conversion to uint8, which cuts off what comes after the point.",
    )


@to_images
def test_values_outside_become_black_and_white(stage):
    check(
        stage, lambda m: m.tensor_to_images(as_picture([-1.01, 1.01, -1.6, 1.6, -7.0, 7.0, -1e9, 1e9])),
        as_image([0, 255] * 4), "tensor_to_images(x) with values outside of [-1, 1]",
        hint="clamp first: uint8 goes round, 256 becomes 0 and -1 becomes 255.",
    )


@to_images
def test_channels_come_last_and_keep_their_order(stage):
    levels = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5) * 2
    wanted = torch.zeros(2, 4, 5, 3, dtype=torch.uint8)
    for channel in range(3):
        wanted[..., channel] = levels[:, channel]
    check(
        stage, lambda m: m.tensor_to_images(levels / 127.5 - 1), wanted,
        "tensor_to_images(x) with x of shape (2, 3, 4, 5)",
        hint="permute the axes to (batch, height, width, 3); red stays first, and nothing is turned or mirrored.",
    )


@to_images
def test_images_are_contiguous(stage):
    check(
        stage, lambda m: m.tensor_to_images(rand(2, 3, 4, 5)).is_contiguous(), True,
        "tensor_to_images(x).is_contiguous()", hint="permute only gives another view: call contiguous() on it.",
    )


@to_images
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_is_converted_in_float32(stage, dtype):
    x = rand(2, 3, 16, 16, scale=0.5).to(dtype)
    wanted = ((x.double() + 1) * 127.5).clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    check(
        stage, lambda m: m.tensor_to_images(x), wanted,
        f"tensor_to_images(x) with x in {str(dtype).removeprefix('torch.')}",
        hint="convert to float32 before anything else: rounded to half precision, sum and product give other levels.",
    )


@to_images
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_tensor_to_images(stage, dtype):
    x = rand(2, 3, 5, 7).to(dtype)
    wanted = (x.double() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)
    check(stage, lambda m: m.tensor_to_images(x), wanted, "tensor_to_images(x)", inputs={"x": x})


@to_images
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_there_and_back(stage, batch, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, height, width, 3), generator=generator, dtype=torch.uint8)
    check(
        stage, lambda m: m.tensor_to_images(m.images_to_tensor(images)), images,
        f"tensor_to_images(images_to_tensor(images)) with images of shape {tuple(images.shape)}",
    )
