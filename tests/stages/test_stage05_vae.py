"""Stage 5 against diffusers' AutoencoderKL."""

import functools
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course.core.config import VAEConfig
from course.feedback import renaming
from course.feedback.compare import check, give_weights, name_of, rand, results_and_gradients
from course.feedback.divergence import VAE_PARTS
from tests.stages import reference
from tests.stages.blocks import check_block, check_default_dtype, divergence, make_block, text_of
from tests.stages.drawing import check_drawing, each_drawing
from tests.stages.in_turn import check_block_in_turn, check_function_in_turn, each_way
from tests.stages.light import without_compiler
from tests.stages.pretended import check_block_on_gpu, check_call_on_gpu, check_on_gpu, moved, single

with without_compiler():
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

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
NAMES = {"VAEConfig": VAEConfig}
ROUGH = 1e-3  # for tests of the order of things; an eps that is wrong is the matter of a test of its own

every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
both_halves = pytest.mark.parametrize(
    "half", [pytest.param("Encoder", marks=encoder), pytest.param("Decoder", marks=decoder)]
)


@functools.cache
def theirs(config):
    return reference.vae(config)


def images_of(config, batch=2, height=3, width=2, seed=0):
    """Higher than wide; height and width are those of the latents."""
    return rand(batch, config.image_channels, height * config.factor, width * config.factor, seed=seed)


def latents_of(config, batch=2, height=2, width=3, seed=0):
    """Wider than high."""
    return rand(batch, config.latent_channels, height, width, seed=seed)


# --- the encoder and the decoder -------------------------------------------------------------------------------------

RULES = {half: {r"^": f"{half}."} | VAE_PARTS | {rf"^{half}\.": ""} for half in ("encoder", "decoder")}


@functools.cache
def parts_of(half, config, shrink=1.0):
    """How our half is made, their half, and the rules from its parameters' names to ours."""
    wanted = reference.faint(getattr(theirs(config), half.lower()), shrink)
    return f"{half}({text_of(config)})", wanted, RULES[half.lower()]


def make_half(module, *half):
    text, wanted, rules = parts_of(*half)
    return make_block(module, text, renaming.our_weights(wanted, rules), NAMES)


def input_of(half, config, **kwargs):
    return {"images": images_of(config, **kwargs)} if half == "Encoder" else {"latents": latents_of(config, **kwargs)}


def check_half(stage, half, config, x=None, shrink=1.0, gradients=False, **kwargs):
    text, wanted, rules = parts_of(half, config, shrink)
    x = x or input_of(half, config)
    explain = divergence(lambda m: make_half(m, half, config, shrink), wanted, rules, *x.values())
    with torch.set_grad_enabled(gradients):
        check_block(stage, text, wanted, rules, names=NAMES, explain=explain, gradients=gradients, **x, **kwargs)


@both_halves
@every_config
def test_parameters_and_shape(stage, half, config):
    text, wanted, rules = parts_of(half, config)
    ((name, x),) = input_of(half, config).items()
    shape, hint = {
        "Encoder": (
            (2, 2 * config.latent_channels, 3, 2),
            "every level but the last halves height and width; the result has a mean and a logvar per latent channel.",
        ),
        "Decoder": (
            (2, config.image_channels, 2 * config.factor, 3 * config.factor),
            "every level but the last one run doubles height and width.",
        ),
    }[half]
    check(
        stage, lambda m: tuple(make_half(m, half, config)(x).shape), shape,
        f"the shape of {text}({name}) with {name} of shape {tuple(x.shape)}", hint=hint,
        explain=divergence(lambda m: make_half(m, half, config), wanted, rules, x),
    )


@pytest.mark.parametrize(("half", "config", "hint"), [
    pytest.param(
        "Encoder", ONE_LEVEL, "conv_in, level, middle, norm_out, silu, conv_out, each once and in this order.",
        marks=encoder, id="encoder of one level",
    ),
    pytest.param(
        "Encoder", TWO_LEVELS, "is the Downsample asymmetric? It pads at the right and at the bottom.",
        marks=encoder, id="encoder of two levels",
    ),
    pytest.param(
        "Decoder", ONE_LEVEL, "conv_in, middle, level, norm_out, silu, conv_out, each once and in this order.",
        marks=decoder, id="decoder of one level",
    ),
    pytest.param(
        "Decoder", TWO_LEVELS,
        "the widest channels come first, and the Upsample comes after a level's residual blocks.",
        marks=decoder, id="decoder of two levels",
    ),
])
def test_the_parts_in_their_order(stage, half, config, hint):
    check_half(stage, half, config, hint=hint, tolerance=ROUGH)


@both_halves
def test_eps(stage, half):
    check_half(
        stage, half, ONE_LEVEL, shrink=0.02, about="with convolutions that give very small numbers",
        hint="norm_out, too, has eps=1e-6, which is not GroupNorm's default.",
    )


@both_halves
@every_config
def test_values(stage, half, config):
    check_half(stage, half, config, input_of(half, config, batch=3, seed=1), tolerance=1e-9)


@both_halves
def test_not_contiguous(stage, half):
    x = {name: x.to(memory_format=torch.channels_last) for name, x in input_of(half, TWO_LEVELS).items()}
    check_half(stage, half, TWO_LEVELS, x, about="with a permuted view")


@both_halves
@pytest.mark.parametrize("config", [TWO_LEVELS, SMALL], ids=["two levels", "three levels"])
def test_gradients(stage, half, config):
    check_half(
        stage, half, config, gradients=True, tolerance=1e-9,
        hint="is every part called, and does nothing cut the graph (no_grad, detach, .data)?",
    )


@both_halves
def test_float32_is_kept(stage, half):
    ((name, x),) = input_of(half, TWO_LEVELS).items()
    _, wanted, _ = parts_of(half, TWO_LEVELS)
    check(
        stage, lambda m: make_half(m, half, TWO_LEVELS).float()(x.float()), wanted(x).float(),
        f"{half}(config)({name}) in float32", tolerance=2e-6,  # every layer's result is rounded at 6e-8
        hint="the result has the dtype of the input and the parameters.",
    )


@both_halves
@settings(max_examples=6)
@given(batch=st.integers(1, 3), height=st.integers(1, 4), width=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_any_size(stage, half, batch, height, width, seed):
    x = input_of(half, SMALL, batch=batch, height=height, width=width, seed=seed)
    shapes = [f"{name} of shape {tuple(tensor.shape)}" for name, tensor in x.items()]
    check_half(stage, half, SMALL, x, about=f"with {shapes[0]}", tolerance=1e-9)


# --- drawing latents -------------------------------------------------------------------------------------------------

NORMAL, NOISE = rand(2, 3, 4, 5), rand(2, 3, 4, 5, seed=1)
ZEROS = torch.zeros_like(NOISE)
DEVIATIONS = torch.tensor([0.1, 0.5, 3.0], dtype=torch.float64).reshape(1, 3, 1, 1).expand(2, 3, 4, 5)
LIMITS = {21.0: 20.0, 19.5: 19.5, 5000.0: 20.0, -31.0: -30.0, -29.5: -29.5, -5000.0: -30.0}


@sample
@pytest.mark.parametrize(("mean", "logvar", "noise", "wanted", "about", "hint"), [
    pytest.param(
        NORMAL, NOISE, ZEROS, NORMAL, "noise of zeros", "the mean is the first half of the channels.",
        id="without noise there is the mean",
    ),
    pytest.param(
        ZEROS, ZEROS, NOISE, NOISE, "moments of zeros", "exp(0) is 1, and this times the noise is the noise.",
        id="a logvar of zero is a standard deviation of one",
    ),
    pytest.param(
        ZEROS, 2 * DEVIATIONS.log(), NOISE, DEVIATIONS * NOISE, "means of 0 and variances of 0.01, 0.25 and 9",
        "noise is multiplied by the standard deviation, the root of the variance: exp(logvar / 2).",
        id="logvar is the logarithm of the variance",
    ),
    *[
        pytest.param(
            ZEROS, torch.full_like(NOISE, logvar), NOISE, math.exp(limit / 2) * NOISE,
            f"means of 0 and logvars of {logvar:g}",
            "logvar is clamped to [-30, 20] before the exponential; the mean is not.", id=f"a logvar of {logvar:g}",
        )
        for logvar, limit in LIMITS.items()
    ],
    pytest.param(
        100 * NORMAL, ZEROS, ZEROS, 100 * NORMAL, "means of about 100 and noise of zeros", "only logvar is clamped.",
        id="the mean is not clamped",
    ),
])
def test_a_draw(stage, mean, logvar, noise, wanted, about, hint):
    check(
        stage, "sample_latents(moments, noise)", wanted, f"sample_latents(moments, noise) with {about}", hint=hint,
        moments=torch.cat([mean, logvar], dim=1), noise=noise,
    )


def their_sample(moments, noise):
    distribution = DiagonalGaussianDistribution(moments)
    return distribution.mean + distribution.std * noise


@sample
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31))
def test_sample_latents(stage, batch, channels, height, width, seed):
    moments = rand(batch, 2 * channels, height, width, seed=seed, scale=20.0)
    noise = rand(batch, channels, height, width, seed=seed + 1)
    check(
        stage, "sample_latents(moments, noise)", their_sample(moments, noise),
        f"sample_latents(moments, noise) with moments of shape {tuple(moments.shape)}", moments=moments, noise=noise,
    )


@sample
def test_sample_latents_gradients(stage):
    moments = rand(2, 6, 4, 5, scale=20.0)  # some logvars are outside of the limits

    def gradients(function):
        return results_and_gradients(reference.called(nn.Identity(), function), moments, NOISE)

    check(
        stage, lambda m: gradients(m.sample_latents), gradients(their_sample),
        "sample_latents(moments, noise) and its gradients",
        hint="the gradient flows through mean and logvar, and is 0 where logvar is clamped.",
    )


@sample
@pytest.mark.parametrize("logvar", [20.0, 80.0])
def test_the_largest_variance_does_not_overflow_in_float16(stage, logvar):
    noise = 0.5 * NOISE.sign().half()
    check(
        stage, "sample_latents(moments, noise)", math.exp(10.0) * noise,
        f"sample_latents(moments, noise) in float16 with means of 0 and logvars of {logvar:g}",
        moments=torch.cat([ZEROS, torch.full_like(NOISE, logvar)], dim=1).half(), noise=noise, tolerance=2e-3,
        hint="exp(20) is more than float16 can hold, exp(20 / 2) is not: halve before the exponential.",
    )


@sample
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name_of)
def test_sample_latents_keeps_the_dtype(stage, dtype):
    moments, noise = rand(2, 6, 4, 5).to(dtype), NOISE.to(dtype)
    check(
        stage, "sample_latents(moments, noise)", their_sample(moments.double(), noise.double()).to(dtype),
        f"sample_latents(moments, noise) in {name_of(dtype)}", moments=moments, noise=noise,
        tolerance=4 * torch.finfo(dtype).eps,  # four roundings
    )


# --- the whole -------------------------------------------------------------------------------------------------------


def their_encode(config, images, noise=None):
    distribution = theirs(config).encode(images).latent_dist
    drawn = distribution.mode() if noise is None else distribution.mean + distribution.std * noise
    return drawn * config.scaling_factor


def their_decode(config, latents):
    return theirs(config).decode(latents / config.scaling_factor).sample


THEIR = {"encode": their_encode, "decode": their_decode}


def make_vae(module, config):
    return give_weights(module.VAE(config), renaming.our_weights(theirs(config), VAE_PARTS), "VAE(config)")


def check_vae(stage, method, config, x, about="", hint="", gradients=False):
    """VAE(config).encode or .decode on x: names of arguments and their values."""
    values = tuple(x.values())
    wanted = reference.called(theirs(config), lambda *values: THEIR[method](config, *values))
    names = renaming.our_names(wanted, VAE_PARTS)

    def make(module):
        vae = make_vae(module, config)
        return reference.called(vae, getattr(vae, method))

    def result(vae, names=None):
        return results_and_gradients(vae, *values, names=names) if gradients else vae(*values)

    about = f"{' and its gradients' if gradients else ''}{about and ' ' + about}"
    explain = divergence(make, wanted, VAE_PARTS, *values)
    with torch.set_grad_enabled(gradients):
        check(
            stage, lambda m: result(make(m)), result(wanted, names),
            f"VAE({text_of(config)}).{method}({', '.join(x)}){about}",
            tolerance=1e-9, hint=hint, explain=explain, inputs=x,
        )


IMAGES, LATENTS, FEW = images_of(ONE_LEVEL), latents_of(ONE_LEVEL), rand(2, 3, 3, 2, seed=1)


@whole
@pytest.mark.parametrize(("method", "factor", "x", "about", "hint"), [
    pytest.param(
        "encode", 1.0, {"images": IMAGES}, "",
        "encoder, then quant_conv, then the mean, which is the first half of the channels.", id="encode",
    ),
    pytest.param(
        "encode", 1.0, {"images": IMAGES, "noise": FEW}, "",
        "with noise, the latents are sample_latents(moments, noise).", id="encode with noise",
    ),
    pytest.param(
        "encode", 1.0, {"images": IMAGES, "noise": 0 * FEW}, "with noise of zeros",
        "ask whether noise is None, not whether it is true.", id="encode with noise of zeros",
    ),
    pytest.param(
        "encode", 0.4, {"images": IMAGES, "noise": FEW}, "",
        "the latents, noise included, are multiplied by self.scaling_factor at the very end.", id="encode scales",
    ),
    pytest.param("decode", 1.0, {"latents": LATENTS}, "", "post_quant_conv, then the decoder.", id="decode"),
    pytest.param(
        "decode", 0.4, {"latents": LATENTS}, "",
        "divide the latents by self.scaling_factor before post_quant_conv, whose bias is not to be scaled.",
        id="decode undoes the scaling",
    ),
    pytest.param(
        "decode", 1.0, {"latents": 50 * LATENTS}, "with large latents",
        "the pictures may leave [-1, 1]; tensor_to_images takes care of that.", id="decode does not clamp",
    ),
])
def test_vae_step_by_step(stage, method, factor, x, about, hint):
    check_vae(stage, method, replace(ONE_LEVEL, scaling_factor=factor), x, about, hint)


each_method = pytest.mark.parametrize(
    ("method", "names"), [("encode", ["images"]), ("encode", ["images", "noise"]), ("decode", ["latents"])],
    ids=["encode", "encode with noise", "decode"],
)


def inputs_of(config, names):
    noise = latents_of(config, height=3, width=2, seed=3)
    given = {"images": images_of(config, seed=2), "noise": noise, "latents": latents_of(config, seed=2)}
    return {name: given[name] for name in names}


@whole
@each_method
@every_config
def test_vae(stage, method, names, config):
    check_vae(stage, method, config, inputs_of(config, names))


@whole
@each_method
def test_vae_gradients(stage, method, names):
    check_vae(
        stage, method, TWO_LEVELS, inputs_of(TWO_LEVELS, names), gradients=True,
        hint="does anything cut the graph (no_grad, detach, .data)?",
    )


@whole
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name_of)
def test_the_vae_keeps_the_dtype(stage, dtype):
    def run(module):
        vae = make_vae(module, ONE_LEVEL).to(dtype)
        return vae.encode(IMAGES.to(dtype), FEW.to(dtype)), vae.decode(LATENTS.to(dtype))

    wanted = their_encode(ONE_LEVEL, IMAGES, FEW).to(dtype), their_decode(ONE_LEVEL, LATENTS).to(dtype)
    check(
        stage, run, wanted, f"VAE(config).encode(images, noise) and .decode(latents) in {name_of(dtype)}",
        tolerance=10 * torch.finfo(dtype).eps,  # weights and results of all layers are rounded: 1 to 2 in all
        hint="latents and pictures have the dtype of the parameters.",
    )


# --- pictures to look at ---------------------------------------------------------------------------------------------


@to_images
@pytest.mark.parametrize(("values", "levels", "about", "hint"), [
    pytest.param(
        [-1.0, 1.0, 127 / 127.5 - 1], [0, 255, 127], "the values -1, 1 and 127 / 127.5 - 1",
        "[-1, 1] becomes [0, 255]: add one, times 127.5. The result is uint8, with the channels last.",
        id="black, white and grey",
    ),
    pytest.param(
        [level / 127.5 - 1 for level in range(256)], range(256), "the 256 grey levels", "1 becomes 255, not 256.",
        id="every grey level",
    ),
    pytest.param(
        [(level + offset) / 127.5 - 1 for level in range(1, 255) for offset in (-0.4, 0.4)],
        [level for level in range(1, 255) for _ in range(2)], "values 0.4 grey levels beside the 254 inner levels",
        "round before the conversion to uint8, which cuts off what comes after the point.",
        id="to the nearest grey level",
    ),
    pytest.param(
        [-1.01, 1.01, -1.6, 1.6, -7.0, 7.0, -1e9, 1e9], [0, 255] * 4, "values outside of [-1, 1]",
        "clamp first: uint8 goes round, 256 becomes 0 and -1 becomes 255.", id="values outside",
    ),
])
def test_grey_levels(stage, values, levels, about, hint):
    check(
        stage, "tensor_to_images(x)", torch.tensor(levels, dtype=torch.uint8).reshape(1, 1, -1, 1).repeat(1, 1, 1, 3),
        f"tensor_to_images(x) with {about}", hint=hint,
        x=torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1).repeat(1, 3, 1, 1),
    )


@to_images
def test_channels_come_last_and_keep_their_order(stage):
    levels = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5) * 2
    check(
        stage, "tensor_to_images(x)", torch.stack([levels[:, c] for c in range(3)], dim=-1).to(torch.uint8),
        "tensor_to_images(x) with x of shape (2, 3, 4, 5)", x=levels / 127.5 - 1,
        hint="permute the axes to (batch, height, width, 3); red stays first, and nothing is turned or mirrored.",
    )


@to_images
def test_images_are_contiguous(stage):
    check(
        stage, "tensor_to_images(x).is_contiguous()", True, x=rand(2, 3, 4, 5),
        hint="permute only gives another view: call contiguous() on it.",
    )


@to_images
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=name_of)
def test_tensor_to_images(stage, dtype):
    x = rand(2, 3, 16, 15, scale=0.5).to(dtype)
    check(
        stage, "tensor_to_images(x)", ((x.double() + 1) * 127.5).clamp(0, 255).round().byte().permute(0, 2, 3, 1),
        f"tensor_to_images(x) with x in {name_of(dtype)}", x=x,
        hint="float16 and bfloat16 are converted to float32 before anything else: rounded to half precision, sum and "
        "product give other levels.",
    )


@to_images
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_there_and_back(stage, batch, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, height, width, 3), generator=generator, dtype=torch.uint8)
    check(
        stage, "tensor_to_images(images_to_tensor(images))", images,
        f"tensor_to_images(images_to_tensor(images)) with images of shape {tuple(images.shape)}", images=images,
    )


# --- one call after another ------------------------------------------------------------------------------------------

SIZES = [(2, 3, 2), (2, 3, 2), (2, 1, 2), (3, 2, 2)]  # batch, and height and width of the latents


@both_halves
@each_way
def test_half_called_again(stage, half, way):
    text, wanted, rules = parts_of(half, TWO_LEVELS)
    calls = [input_of(half, TWO_LEVELS, batch=b, height=h, width=w, seed=i) for i, (b, h, w) in enumerate(SIZES)]
    weights = renaming.our_weights(wanted, rules)
    check_block_in_turn(stage, text, wanted, weights, calls, way, names=NAMES, tolerance=1e-9)


@whole
@pytest.mark.parametrize("method", ["encode", "decode"])
@each_way
def test_vae_called_again(stage, method, way):
    calls = []
    for i, (batch, height, width) in enumerate([*SIZES, (1, 2, 4)]):
        latents = latents_of(ONE_LEVEL, batch, height, width, seed=10 + i)
        images = images_of(ONE_LEVEL, batch, height, width, seed=i)
        noise = latents if i % 2 else None
        calls.append({"images": images, "noise": noise} if method == "encode" else {"latents": latents})
    check_block_in_turn(
        stage, f"VAE({text_of(ONE_LEVEL)})", functools.partial(THEIR[method], ONE_LEVEL),
        renaming.our_weights(theirs(ONE_LEVEL), VAE_PARTS), calls, way, method=method, names=NAMES, tolerance=1e-9,
    )


@sample
def test_sample_latents_called_again(stage):
    sizes = [(2, 3, 4, 5), (2, 3, 4, 5), (1, 2, 3, 4)]
    calls = [
        {"moments": rand(b, 2 * c, h, w, seed=i, scale=5.0), "noise": rand(b, c, h, w, seed=9 - i)}
        for i, (b, c, h, w) in enumerate(sizes)
    ]
    theirs = SimpleNamespace(sample_latents=their_sample)
    check_function_in_turn(stage, "sample_latents(moments, noise)", theirs, calls)


@to_images
def test_tensor_to_images_called_again(stage):
    def theirs(x):
        return ((x + 1) * 127.5).clamp(0, 255).round().byte().permute(0, 2, 3, 1)

    calls = [{"x": rand(*shape, seed=i)} for i, shape in enumerate([(2, 3, 4, 5), (2, 3, 4, 5), (1, 3, 5, 4)])]
    check_function_in_turn(stage, "tensor_to_images(x)", SimpleNamespace(tensor_to_images=theirs), calls)


# --- by name, and on a GPU ------------------------------------------------------------------------------------------


@both_halves
def test_every_argument_of_a_half_by_its_name(stage, half):
    _, wanted, rules = parts_of(half, ONE_LEVEL)
    with torch.no_grad():
        check_block(
            stage, f"{half}(config=config)", wanted, rules, names={"config": ONE_LEVEL}, by_name=True,
            **input_of(half, ONE_LEVEL),
        )


@sample
def test_sample_latents_by_name(stage):
    moments = rand(2, 6, 4, 5)
    check(
        stage, "sample_latents(moments=moments, noise=noise)", their_sample(moments, NOISE), moments=moments,
        noise=NOISE,
    )


@whole
@each_method
def test_every_argument_by_its_name(stage, method, names):
    x = inputs_of(ONE_LEVEL, names)
    with torch.no_grad():
        check(
            stage, lambda m: getattr(make_vae(m, ONE_LEVEL), method)(**x), THEIR[method](ONE_LEVEL, *x.values()),
            f"VAE(config).{method}({', '.join(f'{name}={name}' for name in x)})", tolerance=1e-9, inputs=x,
        )


@to_images
def test_tensor_to_images_by_name(stage):
    tensor = rand(2, 3, 4, 5)
    wanted = ((tensor + 1) * 127.5).clamp(0, 255).round().byte().permute(0, 2, 3, 1)
    check(stage, "tensor_to_images(tensor=tensor)", wanted, tensor=tensor)


@both_halves
def test_default_dtype(stage, half):
    check_default_dtype(stage, f"{half}(config)", config=ONE_LEVEL)


@both_halves
def test_a_half_on_a_gpu(stage, half):
    text, wanted, rules = parts_of(half, TWO_LEVELS)
    check_block_on_gpu(stage, text, wanted, rules, NAMES, **input_of(half, TWO_LEVELS))


@sample
def test_sample_latents_on_a_gpu(stage):
    moments = rand(2, 6, 4, 5)
    check_call_on_gpu(
        stage, "sample_latents(moments, noise)", their_sample(moments, NOISE), moments=moments, noise=NOISE
    )


@whole
@each_method
def test_on_a_gpu(stage, method, names):
    x = inputs_of(ONE_LEVEL, names)
    check_on_gpu(
        stage, lambda m: getattr(moved(make_vae(m, ONE_LEVEL)), method)(*map(moved, x.values())),
        single(THEIR[method](ONE_LEVEL, *x.values()).detach()), f"VAE(config).{method}({', '.join(names)})",
    )


@to_images
def test_tensor_to_images_on_a_gpu(stage):
    tensor = rand(2, 3, 4, 5)
    wanted = ((tensor.float() + 1) * 127.5).clamp(0, 255).round().byte().permute(0, 2, 3, 1)
    check_call_on_gpu(stage, "tensor_to_images(tensor).cpu()", wanted, anywhere=True, tensor=tensor)


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("5.1", "5.2", "5.3", "5.4", "5.5")
@each_drawing("text to image", "image to image", "into a mask")
def test_what_make_generate_draws(stage, checkpoint_folder, drawing):
    check_drawing(stage, drawing, checkpoint_folder)
