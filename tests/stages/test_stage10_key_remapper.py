"""Stage 10 against diffusers' own conversion of checkpoints with CompVis' names (tests/stages/compvis.py makes them)."""

import functools
import re

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from course.core.config import CLIPConfig, ModelConfig, UNetConfig, VAEConfig
from course.feedback.compare import check, rand
from tests.stages import compvis
from tests.stages.small_pipeline import (
    NEGATIVE_PROMPTS,
    PROMPTS,
    SMALL,
    TINY,
    drawn,
    latent_shape,
    our_parts,
    our_pipeline,
    pipeline,
    seeded,
    unit_range,
)

averages = pytest.mark.exercise("10.1")
autoencoder = pytest.mark.exercise("10.2")
unet = pytest.mark.exercise("10.3")
loading = pytest.mark.exercise("10.4")

# Levels, blocks per level and levels with attention other than Stable Diffusion's.
UNETS = {
    "four levels, two blocks": SMALL.unet,
    "two levels, one block": TINY.unet,
    "attention on the deep levels": UNetConfig(
        channels=(4, 8, 12), attention=(False, True, True), blocks_per_level=1, num_heads=2, context_channels=12,
        num_groups=2,
    ),
    "three blocks, wide then narrow": UNetConfig(
        channels=(8, 4, 4), attention=(True, False, True), blocks_per_level=3, num_heads=2, context_channels=12,
        num_groups=2,
    ),
}
VAES = {
    "three levels, two blocks": SMALL.vae,
    "two levels, one block": TINY.vae,
    "four levels, one block": VAEConfig(channels=(4, 8, 8, 12), blocks_per_level=1, num_groups=2),
    "levels of one width": VAEConfig(channels=(4, 4, 4), blocks_per_level=3, num_groups=2),
}


made = functools.cache(compvis.checkpoint)


def checkpoint(config=SMALL):
    """A new dictionary each time: a function under test may change the one that it gets."""
    return dict(made(config))


@functools.cache
def wanted(config=SMALL, ema=False):
    return compvis.wanted(checkpoint(config), config, ema)


def part(prefix, tensors):
    """The tensors of one model, without its prefix."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and "position_ids" not in name
    }


def vae_tensors(config=SMALL):
    return part(compvis.VAE, checkpoint(config))


def unet_tensors(config=SMALL):
    return part(compvis.UNET, checkpoint(config))


def only(pattern, tensors):
    return {name: tensor for name, tensor in tensors.items() if re.match(pattern, name)}


def error_of(call):
    """The message of the ValueError that `call()` raises."""
    try:
        call()
    except ValueError as error:
        return str(error) or "ValueError without a message"
    return "no ValueError"


def names(call, *wanted_names):
    """Which of the names and shapes the ValueError's message mentions; the message if none."""
    message = error_of(call)
    plain = message.replace("torch.Size", "").replace("([", "(").replace("])", ")").replace("[", "(").replace("]", ")")
    return [name for name in wanted_names if name in plain.replace("(1)", "(1,)").replace("(2)", "(2,)")] or message


# --- given: the three parts of a file --------------------------------------------------------------------------------


def test_split_checkpoint(stage):
    tensors = checkpoint()
    check(
        stage, lambda m: m.split_checkpoint(tensors),
        {"vae": part(compvis.VAE, tensors), "clip": part(compvis.CLIP, tensors), "unet": part(compvis.UNET, tensors)},
        "split_checkpoint(state_dict)", hint="this function was given: has it been changed?",
    )


@pytest.mark.parametrize("prefix", [compvis.VAE, compvis.CLIP, compvis.UNET])
def test_split_checkpoint_without_a_model(stage, prefix):
    rest = {name: tensor for name, tensor in checkpoint().items() if not name.startswith(prefix)}
    check(
        stage, lambda m: names(lambda: m.split_checkpoint(rest), prefix), [prefix],
        f"what the ValueError names in split_checkpoint(state_dict) without {prefix}*",
    )


@pytest.mark.parametrize("config", [SMALL, TINY], ids=["three layers", "one layer"])
def test_text_encoder(stage, config):
    tensors = part(compvis.CLIP, checkpoint(config))
    check(stage, lambda m: m.remap_clip(tensors), wanted(config)["clip"], "remap_clip(state_dict)")


# --- averages --------------------------------------------------------------------------------------------------------


@averages
def test_name_of_an_average(stage):
    raw, average = torch.zeros(2), torch.ones(2)
    tensors = {"model.diffusion_model.out.0.weight": raw, "model_ema.diffusion_modelout0weight": average}
    check(
        stage, lambda m: m.select_ema(tensors)["model.diffusion_model.out.0.weight"], average,
        "select_ema(state_dict)['model.diffusion_model.out.0.weight']",
        hint="the average is called model_ema.diffusion_modelout0weight: only the dots after `model_ema.` are gone.",
    )


@averages
def test_all_averages_take_the_places_of_raw_weights(stage):
    tensors = checkpoint()
    check(
        stage, lambda m: part(compvis.UNET, m.select_ema(tensors)),
        {
            name: tensors["model_ema.diffusion_model" + name.replace(".", "")]
            for name in (name.removeprefix(compvis.UNET) for name in tensors if name.startswith(compvis.UNET))
        },
        "the U-Net's tensors in select_ema(state_dict)",
    )


@averages
def test_all_else_stays(stage):
    tensors = checkpoint()
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(compvis.UNET)}
    check(
        stage, lambda m: {n: t for n, t in m.select_ema(tensors).items() if not n.startswith(compvis.UNET)}, rest,
        "what is not the U-Net's in select_ema(state_dict)",
        hint="the result has the same names as the checkpoint; the averages themselves stay too.",
    )


@averages
def test_the_checkpoint_passed_in_is_not_changed(stage):
    tensors = checkpoint()

    def run(module):
        copy = dict(tensors)
        module.select_ema(copy)
        return [name for name in tensors if copy.get(name) is not tensors[name]] + [n for n in copy if n not in tensors]

    check(
        stage, run, [], "names whose tensors select_ema(state_dict) changes in state_dict",
        hint="work on a copy: dict(...).",
    )


@averages
@pytest.mark.parametrize(
    ("missing", "mentioned"),
    [
        ("model_ema.diffusion_modelout2bias", r"model(\.diffusion_model\.out\.2\.|_ema\.diffusion_modelout2)bias"),
        ("model_ema.", r"model(\.diffusion_model|_ema)\."),
    ],
    ids=["one", "all"],
)
def test_missing_averages(stage, missing, mentioned):
    tensors = {name: tensor for name, tensor in checkpoint().items() if not name.startswith(missing)}

    def run(module):
        message = error_of(lambda: module.select_ema(tensors))
        return "a ValueError that names it" if re.search(mentioned, message) else message

    check(
        stage, run, "a ValueError that names it",
        f"select_ema(state_dict) without {missing}{'*' if missing.endswith('.') else ''}",
        hint="never take a raw weight without saying so.",
    )


# --- the autoencoder -------------------------------------------------------------------------------------------------


def check_vae(stage, pattern, hint, config=SMALL):
    tensors = vae_tensors(config)
    check(
        stage, lambda m: only(pattern, m.remap_vae(tensors)), only(pattern, wanted(config)["vae"]),
        f"the part {pattern.replace(chr(92), '')}... of remap_vae(state_dict)", hint=hint,
    )


@autoencoder
@pytest.mark.parametrize(
    "name", ["quant_conv", "post_quant_conv", "encoder.conv_in", "decoder.norm_out", "encoder.conv_out"]
)
def test_names_that_stay(stage, name):
    check_vae(stage, re.escape(name), "this layer has the same name on both sides.")


@autoencoder
def test_levels_of_the_encoder(stage):
    check_vae(stage, r"encoder\.levels", "down.I.block.J is levels.I.residuals.J; nin_shortcut is shortcut.")


@autoencoder
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_residual_blocks_of_the_middle(stage, half):
    check_vae(stage, rf"{half}\.middle\.residual", "block_1 is residual1, block_2 is residual2.")


@autoencoder
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_attention_of_the_middle(stage, half):
    check_vae(
        stage, rf"{half}\.middle\.attention",
        "q, k, v and proj_out are to_q, to_k, to_v and to_out; their weights lose the last two dimensions, of size 1.",
    )


@autoencoder
def test_levels_of_the_decoder(stage):
    check_vae(
        stage, r"decoder\.levels",
        "up.0 is the level next to the picture and runs last; the number of levels follows from the names.",
    )


@autoencoder
@pytest.mark.parametrize("config", VAES.values(), ids=list(VAES))
def test_whole_autoencoder(stage, config):
    config = ModelConfig(vae=config, unet=TINY.unet, clip=TINY.clip)
    tensors = vae_tensors(config)
    check(
        stage, lambda m: m.remap_vae(tensors), wanted(config)["vae"],
        f"remap_vae(state_dict) of an autoencoder with {len(config.vae.channels)} levels",
        hint="take the number of levels from the names.", inputs=tensors,
    )


@autoencoder
@pytest.mark.parametrize(
    "name",
    [
        "loss.logvar", "encoder.side.weight", "encoder.mid.block_1.conv_shortcut.weight",
        "decoder.up.0.block.0.norm.weight", "encoder.down.0.block.0.temb_proj.weight",
    ],
)
def test_unknown_name_in_the_autoencoder(stage, name):
    tensors = vae_tensors() | {name: torch.zeros(1)}
    check(
        stage, lambda m: error_of(lambda: m.remap_vae(tensors)) != "no ValueError", True,
        f"whether remap_vae(state_dict) raises a ValueError for {name}", hint="leave no tensor out without saying so.",
    )


# --- the U-Net -------------------------------------------------------------------------------------------------------


def check_unet(stage, pattern, hint, config=SMALL):
    tensors = unet_tensors(config)
    check(
        stage, lambda m: only(pattern, m.remap_unet(tensors)), only(pattern, wanted(config)["unet"]),
        f"the part {pattern.replace(chr(92), '')}... of remap_unet(state_dict)", hint=hint,
    )


@unet
@pytest.mark.parametrize("name", ["time_embedding", "conv_in", "norm_out", "conv_out"])
def test_names_at_the_top(stage, name):
    check_unet(stage, name, "UNET_TOP tells these names.")


@unet
def test_middle(stage):
    check_unet(stage, "mid", "middle_block.0 is residual1, .1 the transformer, .2 residual2.")


@unet
@pytest.mark.parametrize("level", range(4))
def test_level_on_the_way_down(stage, level):
    check_unet(
        stage, rf"down\.{level}\.(residuals|transformers)",
        "with n blocks per level, a level takes n + 1 input_blocks (the last one downsamples); conv_in comes first.",
    )


@unet
def test_downsampling(stage):
    check_unet(stage, r"down\.\d\.downsample", "input_blocks.(n + 1).0.op is the first; the deepest level has none.")


@unet
@pytest.mark.parametrize("level", range(4))
def test_level_on_the_way_up(stage, level):
    check_unet(
        stage, rf"up\.{level}\.(residuals|transformers)",
        "each level takes n + 1 output_blocks, and both sides count from the deepest level.",
    )


@unet
def test_upsampling(stage):
    check_unet(
        stage, r"up\.\d\.upsample", "in a level's last output block: .1.conv without attention, else .2.conv.",
    )


@unet
@pytest.mark.parametrize("config", UNETS.values(), ids=list(UNETS))
def test_whole_unet(stage, config):
    config = ModelConfig(unet=config, vae=TINY.vae, clip=TINY.clip)
    tensors = unet_tensors(config)
    check(
        stage, lambda m: m.remap_unet(tensors), wanted(config)["unet"],
        f"remap_unet(state_dict), {len(config.unet.channels)} levels of {config.unet.blocks_per_level} blocks",
        hint="take the number of blocks per level from the names.", inputs=tensors,
    )


@pytest.mark.exercise("10.1", "10.3")
def test_unet_of_averages(stage):
    tensors = checkpoint()
    check(
        stage, lambda m: m.remap_unet(part(compvis.UNET, m.select_ema(tensors))), wanted(ema=True)["unet"],
        "remap_unet of the U-Net in select_ema(state_dict)",
    )


@unet
@pytest.mark.parametrize(
    "name",
    [
        "label_emb.0.0.weight", "input_blocks.1.0.in_layers.1.weight",
        "middle_block.1.transformer_blocks.1.norm1.weight",
    ],
)
def test_unknown_name_in_the_unet(stage, name):
    tensors = unet_tensors() | {name: torch.zeros(1)}
    check(
        stage, lambda m: error_of(lambda: m.remap_unet(tensors)) != "no ValueError", True,
        f"whether remap_unet(state_dict) raises a ValueError for {name}", hint="leave no tensor out without saying so.",
    )


@pytest.mark.exercise("10.2", "10.3")
@settings(max_examples=5)
@given(st.randoms(use_true_random=False))
def test_order_of_the_names_does_not_matter(stage, random):
    for name, prefix in (("remap_vae", compvis.VAE), ("remap_unet", compvis.UNET)):
        tensors = list(part(prefix, checkpoint(TINY)).items())
        random.shuffle(tensors)
        check(
            stage, lambda m: getattr(m, name)(dict(tensors)), wanted(TINY)[name.removeprefix("remap_")],
            f"{name}(state_dict) with the names in another order",
        )


@pytest.mark.exercise("10.2", "10.3")
def test_names_and_shapes_of_stable_diffusion(stage):
    """At full size, without any numbers."""
    config = ModelConfig(VAEConfig(), CLIPConfig(), UNetConfig())

    def empty(entries):
        return {name: torch.empty(shape, device="meta") for name, shape in entries}

    tensors = {"vae": empty(compvis.vae_entries(config.vae)), "unet": empty(compvis.unet_entries(config.unet))}
    prefixed = {compvis.VAE + name: tensor for name, tensor in tensors["vae"].items()}
    prefixed |= {compvis.UNET + name: tensor for name, tensor in tensors["unet"].items()}
    theirs = compvis.wanted(prefixed, config)
    for name, count in (("vae", 248), ("unet", 686)):

        def run(module):
            remapped = getattr(module, f"remap_{name}")(tensors[name])
            return {"how many": len(remapped)} | {n: tuple(t.shape) for n, t in remapped.items()}

        check(
            stage, run, {"how many": count} | {n: tuple(t.shape) for n, t in theirs[name].items()},
            f"names and shapes of remap_{name}(state_dict) at the size of Stable Diffusion 1.5",
        )


# --- loading ---------------------------------------------------------------------------------------------------------


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 2)
        self.second = nn.Conv2d(2, 2, 1, bias=False)


def pair_weights():
    return {"first.weight": rand(2, 3), "first.bias": rand(2, seed=1), "second.weight": rand(2, 2, 1, 1, seed=2)}


@loading
def test_weights_are_copied(stage):
    def run(module):
        model, weights = Pair().double(), pair_weights()
        module.load_weights(model, weights)
        for tensor in weights.values():
            tensor.zero_()
        return model.state_dict()

    check(
        stage, run, pair_weights(), "the parameters after load_weights(model, state_dict)",
        hint="every tensor is copied into the parameter of its name; the model does not share memory with the file.",
    )


@loading
@pytest.mark.parametrize(("model_dtype", "file_dtype"), [("float32", "float16"), ("bfloat16", "float32")])
def test_model_keeps_its_dtype(stage, model_dtype, file_dtype):
    weights = {name: tensor.to(getattr(torch, file_dtype)) for name, tensor in pair_weights().items()}

    def run(module):
        model = Pair().to(getattr(torch, model_dtype))
        module.load_weights(model, weights)
        return model.state_dict()

    check(
        stage, run, {name: tensor.to(getattr(torch, model_dtype)) for name, tensor in weights.items()},
        f"load_weights(model in {model_dtype}, state_dict in {file_dtype})",
    )


@loading
def test_parameters_stay_the_same_and_trainable(stage):
    def run(module):
        model = Pair()
        before = list(model.parameters())
        module.load_weights(model, pair_weights())
        after = list(model.parameters())
        return [all(a is b for a, b in zip(before, after)), all(p.requires_grad and p.is_leaf for p in after)]

    check(
        stage, run, [True, True],
        "[parameters are the same objects, and trainable] after load_weights(model, state_dict)",
        hint="copy under torch.no_grad() into what is there.",
    )


def broken(change):
    weights = pair_weights()
    change(weights)
    return weights


PROBLEMS = {
    "missing": (broken(lambda w: w.pop("first.bias")), ["first.bias"]),
    "unexpected": (broken(lambda w: w.update(third=rand(2))), ["third"]),
    "wrong shape": (
        broken(lambda w: w.update({"second.weight": rand(2, 2)})), ["second.weight", "(2, 2, 1, 1)", "(2, 2)"]
    ),
    "too large": (broken(lambda w: w.update({"first.bias": rand(3)})), ["first.bias", "(2,)", "(3,)"]),
    "a shape that would broadcast": (
        broken(lambda w: w.update({"first.bias": rand(1)})), ["first.bias", "(2,)", "(1,)"]
    ),
    "under another name": (
        broken(lambda w: w.update({"second.kernel": w.pop("second.weight")})), ["second.weight", "second.kernel"]
    ),
}


@loading
@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_does_not_fit_is_named(stage, problem):
    weights, mentioned = PROBLEMS[problem]
    check(
        stage, lambda m: names(lambda: m.load_weights(Pair(), weights), *mentioned), mentioned,
        f"what the ValueError names in load_weights(model, state_dict) with a tensor {problem}",
        hint="compare both sets of names and all shapes; raise a ValueError that names what is wrong.",
    )


@loading
@pytest.mark.parametrize("problem", PROBLEMS)
def test_nothing_is_loaded_unless_all_fits(stage, problem):
    weights, _ = PROBLEMS[problem]

    def run(module):
        model = Pair().double()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        error_of(lambda: module.load_weights(model, weights))
        return [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]

    check(
        stage, run, [], f"parameters that load_weights(model, state_dict) changed although a tensor was {problem}",
        hint="look for problems first, copy afterwards.",
    )


@loading
def test_long_lists_of_problems_stay_short(stage):
    weights = {f"stranger{i}": rand(1) for i in range(500)}
    check(
        stage, lambda m: 0 < len(error_of(lambda: m.load_weights(Pair(), weights))) < 1500, True,
        "whether the ValueError of load_weights(model, 500 strange names) has less than 1500 characters",
        hint="name the first few.",
    )


# --- one file, two libraries -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A safetensors file with CompVis' names, and beside it the folder of configs that diffusers wants."""
    folder = tmp_path_factory.mktemp("checkpoint")
    made = pipeline("text", "ddim", TINY)
    made.save_config(folder / "diffusers")
    for name in ("unet", "vae"):
        getattr(made, name).save_config(folder / "diffusers" / name)
    made.text_encoder.config.save_pretrained(folder / "diffusers" / "text_encoder")
    made.scheduler.save_pretrained(folder / "diffusers" / "scheduler")
    made.tokenizer.save_pretrained(folder / "diffusers" / "tokenizer")
    path = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in checkpoint(TINY).items()}, path)
    return path


def loaded(module, blocks, config, tensors):
    """The three models, filled by the functions under test."""
    parts = module.split_checkpoint(tensors)
    models = {
        "vae": blocks[5].VAE(config.vae), "text_encoder": blocks[6].CLIPTextEncoder(config.clip),
        "unet": blocks[7].UNet(config.unet),
    }
    module.load_weights(models["vae"], module.remap_vae(parts["vae"]))
    module.load_weights(models["text_encoder"], module.remap_clip(parts["clip"]))
    module.load_weights(models["unet"], module.remap_unet(parts["unet"]))
    return models


@pytest.mark.exercise("10.2", "10.3", "10.4")
@pytest.mark.limit(60)
def test_the_file_draws_the_picture_of_diffusers(stage, blocks, file):
    configs = str(file.parent / "diffusers")
    theirs = StableDiffusionPipeline.from_single_file(file, config=configs, local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    picture = theirs(
        PROMPTS[:2], negative_prompt=NEGATIVE_PROMPTS[:2], height=16, width=24, num_inference_steps=3,
        generator=seeded(),
        output_type="pt",
    ).images

    def run(module):
        parts = our_parts(blocks, TINY) | loaded(module, blocks, TINY, checkpoint(TINY))
        (noise,), _ = drawn(1, latent_shape(2, 16, 24, TINY))
        model = our_pipeline(blocks[9], parts)
        sampling = blocks[9].Sampling(num_steps=3)
        return unit_range(blocks[9].text_to_image(model, PROMPTS[:2], NEGATIVE_PROMPTS[:2], noise, sampling))

    check(
        stage, run, picture, "a picture with the weights of the file, beside diffusers' from_single_file",
        tolerance=1e-5,  # float32
    )


@pytest.mark.exercise("10.1", "10.3", "10.4")
@pytest.mark.limit(60)
def test_averages_of_the_file_predict_the_noise_of_diffusers(stage, blocks, file):
    theirs = UNet2DConditionModel.from_single_file(
        file, config=str(file.parent / "diffusers"), subfolder="unet", extract_ema=True, local_files_only=True
    )
    latents, context = rand(2, 4, 6, 4, dtype=torch.float32), rand(2, 5, 12, seed=1, dtype=torch.float32)
    timesteps = torch.tensor([3, 981])
    with torch.no_grad():
        noise = theirs(latents, timesteps, context).sample

    def run(module):
        model = blocks[7].UNet(TINY.unet)
        tensors = module.split_checkpoint(module.select_ema(checkpoint(TINY)))["unet"]
        module.load_weights(model, module.remap_unet(tensors))
        with torch.no_grad():
            return model(latents, timesteps, context)

    check(
        stage, run, noise, "the noise predicted with averages, beside diffusers' from_single_file(extract_ema=True)",
        tolerance=1e-5,  # float32
    )
