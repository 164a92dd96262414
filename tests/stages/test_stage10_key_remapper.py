"""Stage 10 against diffusers' own conversion of checkpoints with CompVis' names (made by tests/stages/compvis.py)."""

import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from course.core.config import UNetConfig, VAEConfig
from course.feedback.compare import check, rand
from tests.stages import compvis
from tests.stages.compvis import PREFIXES
from tests.stages.drawing import check_drawing, each_drawing
from tests.stages.in_turn import check_in_turn
from tests.stages.light import without_compiler
from tests.stages.small_model import TINY
from tests.stages.small_pipeline import SMALL, Picture, our_parts, pipeline

with without_compiler():
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.loaders import single_file_utils

averages = pytest.mark.exercise("10.1")
autoencoder = pytest.mark.exercise("10.2")
unet = pytest.mark.exercise("10.3")
loading = pytest.mark.exercise("10.4")

# Levels, blocks per level and levels with attention other than Stable Diffusion's.
UNETS = {
    "four levels, two blocks": SMALL.unet,
    "two levels, one block": TINY.unet,
    "attention on the deep levels": UNetConfig(
        channels=(4, 8, 12), attention=(False, True, True), blocks_per_level=1, num_groups=2, num_heads=2,
        context_channels=12,
    ),
    "four levels, three blocks, wide then narrow": UNetConfig(  # its last upsampling is in output_blocks.11
        channels=(8, 4, 4, 4), attention=(True, False, True, False), blocks_per_level=3, num_heads=2,
        context_channels=12, num_groups=2,
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


def tensors_of(part, tensors):
    """Those of one model, without its prefix."""
    tensors = {name: tensor for name, tensor in tensors.items() if "position_ids" not in name}
    prefix = PREFIXES[part]
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@functools.cache
def wanted(part, config=SMALL, ema=False):
    return compvis.wanted(part, checkpoint(config), getattr(config, part), ema)


def check_remap(stage, part, start="", hint="", config=SMALL):
    """All tensors of one model, or those whose new names start in this way."""
    tensors = tensors_of(part, checkpoint(config))

    def only(renamed):
        return {name: tensor for name, tensor in renamed.items() if re.match(start, name)}

    size = getattr(config, part)
    call = f"remap_{part}(state_dict)"
    whole = f"{call} with {len(size.channels)} levels and blocks_per_level={size.blocks_per_level}"
    check(
        stage, lambda m: only(getattr(m, f"remap_{part}")(dict(tensors))), only(wanted(part, config)),
        f"the part {start}... of {call}" if start else whole, hint=hint, inputs=tensors,
    )


def error_of(call):
    """The message of the ValueError that `call()` raises."""
    try:
        call()
    except ValueError as error:
        return str(error) or "ValueError without a message"
    except AssertionError:
        return "AssertionError in place of ValueError"
    return "no ValueError"


NUMBERS = re.compile(r"(?<![\w.])\d+(?:\s*[,x\u00d7*]\s*\d+)*(?![\w.]\w)")


def names(call, *wanted):
    """Which of the names and shapes the ValueError's message mentions; the message if none.

    A shape may be written in any way that shows its numbers: (2,), (2), [2], torch.Size([2]), 2; (2, 3), 2x3, 2 x 3.
    """
    message = error_of(call)
    shapes = {tuple(map(int, re.findall(r"\d+", found))) for found in NUMBERS.findall(message)}
    return [part for part in wanted if (part in message if isinstance(part, str) else part in shapes)] or message


# --- given: the three parts of a file --------------------------------------------------------------------------------


def test_split_checkpoint(stage):
    tensors = checkpoint()
    check(
        stage, "split_checkpoint(state_dict)", {part: tensors_of(part, tensors) for part in PREFIXES},
        state_dict=tensors, hint="this function was given: has it been changed?",
    )


@pytest.mark.parametrize("prefix", PREFIXES.values())
def test_split_checkpoint_without_a_model(stage, prefix):
    rest = {name: tensor for name, tensor in checkpoint().items() if not name.startswith(prefix)}
    check(
        stage, lambda m: names(lambda: m.split_checkpoint(rest), prefix), [prefix],
        f"what the ValueError names in split_checkpoint(state_dict) without {prefix}*",
    )


@pytest.mark.parametrize("config", [SMALL, TINY], ids=["three layers", "one layer"])
def test_text_encoder(stage, config):
    tensors = tensors_of("clip", checkpoint(config))
    check(stage, "remap_clip(state_dict)", wanted("clip", config), state_dict=tensors)


# --- averages --------------------------------------------------------------------------------------------------------


@averages
def test_name_of_an_average(stage):
    raw, average = torch.zeros(2), torch.ones(2, dtype=torch.float16)
    tensors = {"model.diffusion_model.out.0.weight": raw, "model_ema.diffusion_modelout0weight": average}
    check(
        stage, "select_ema(state_dict)['model.diffusion_model.out.0.weight']", average, state_dict=tensors,
        hint="the average is called model_ema.diffusion_modelout0weight: only the dots after `model_ema.` are gone.",
    )


@averages
def test_averages_take_the_places_of_raw_weights_and_all_else_stays(stage):
    tensors = checkpoint()
    selected = {
        PREFIXES["unet"] + name: tensors["model_ema.diffusion_model" + name.replace(".", "")]
        for name in tensors_of("unet", tensors)
    }
    check(
        stage, "select_ema(state_dict)", tensors | selected, state_dict=tensors,
        hint="same names as in the checkpoint; an average for each U-Net tensor; all else as it was, averages too.",
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

MIDDLE = "block_1 is residual1, block_2 is residual2."
ATTENTION = "q, k, v, proj_out are to_q, to_k, to_v, to_out; their weights lose the last two dimensions, of size 1."
SAME_NAMES = ("quant_conv", "post_quant_conv", "encoder.conv_in", "decoder.norm_out", "encoder.conv_out")
VAE_PARTS = dict.fromkeys(SAME_NAMES, "this layer has the same name on both sides.") | {
    "encoder.levels": "down.I.block.J is levels.I.residuals.J, downsample is resize, nin_shortcut is shortcut.",
    "encoder.middle.residual": MIDDLE,
    "decoder.middle.residual": MIDDLE,
    "encoder.middle.attention": ATTENTION,
    "decoder.middle.attention": ATTENTION,
    "decoder.levels":
        "up.0 is the level next to the picture and runs last; the number of levels follows from the names.",
}


@autoencoder
@pytest.mark.parametrize("start", VAE_PARTS)
def test_part_of_the_autoencoder(stage, start):
    check_remap(stage, "vae", start, VAE_PARTS[start])


@autoencoder
@pytest.mark.parametrize("config", VAES.values(), ids=list(VAES))
def test_whole_autoencoder(stage, config):
    hint = "take the number of levels from the names."
    check_remap(stage, "vae", hint=hint, config=replace(TINY, vae=config))


@autoencoder
def test_autoencoder_of_a_single_channel(stage):
    check_remap(
        stage, "vae", "encoder.middle.attention",
        "with a single channel, q.weight has the shape (1, 1, 1, 1): only the last two dimensions go.",
        replace(TINY, vae=VAEConfig(channels=(1, 1), blocks_per_level=1, num_groups=1)),
    )


@autoencoder
def test_autoencoder_of_eleven_levels(stage):
    config = VAEConfig(channels=(2,) * 11, blocks_per_level=1, num_groups=1)  # diffusers would take up.10 for up.1
    tensors = compvis.filled(compvis.entries("vae", config), seed=0)
    ours = compvis.empty("vae", config).items()  # in the same order as the entries
    check(
        stage, "remap_vae(state_dict)",
        {name: tensor.reshape(empty.shape) for (name, empty), tensor in zip(ours, tensors.values(), strict=True)},
        "remap_vae(state_dict) with 11 levels", hint="compare levels as numbers: as texts, '10' comes before '9'.",
        state_dict=tensors,
    )


# --- the U-Net -------------------------------------------------------------------------------------------------------

DOWN = "with n blocks per level, a level takes n + 1 input_blocks (the last one downsamples); conv_in comes first."
UP = "each level takes n + 1 output_blocks, and both sides count from the deepest level."
UNET_PARTS = {
    **dict.fromkeys(("time_embedding", "conv_in", "norm_out", "conv_out"), "UNET_TOP tells these names."),
    "mid": "middle_block.0 is residual1, .1 the transformer, .2 residual2.",
    **dict.fromkeys((f"down.{level}.(residuals|transformers)" for level in range(4)), DOWN),
    "down.[0-3].downsample": "input_blocks.(n + 1).0.op is the first; the deepest level has none.",
    **dict.fromkeys((f"up.{level}.(residuals|transformers)" for level in range(4)), UP),
    "up.[0-3].upsample": "in a level's last output block: .1.conv without attention, else .2.conv.",
}


@unet
@pytest.mark.parametrize("start", UNET_PARTS)
def test_part_of_the_unet(stage, start):
    check_remap(stage, "unet", start, UNET_PARTS[start])


@unet
@pytest.mark.parametrize("config", UNETS.values(), ids=list(UNETS))
def test_whole_unet(stage, config):
    hint = "take the number of blocks per level from the names."
    check_remap(stage, "unet", hint=hint, config=replace(TINY, unet=config))


@pytest.mark.exercise("10.1", "10.3")
def test_unet_of_averages(stage):
    tensors = checkpoint()
    check(
        stage, lambda m: m.remap_unet(tensors_of("unet", m.select_ema(tensors))), wanted("unet", ema=True),
        "remap_unet of the U-Net in select_ema(state_dict)",
    )


# --- both ------------------------------------------------------------------------------------------------------------

UNKNOWN = {
    "vae": (
        "loss.logvar", "encoder.side.weight", "encoder.mid.block_1.conv_shortcut.weight",
        "decoder.up.0.block.0.norm.weight", "encoder.down.0.block.0.temb_proj.weight",
    ),
    "unet": (
        "label_emb.0.0.weight", "input_blocks.1.0.in_layers.1.weight",
        "middle_block.1.transformer_blocks.1.norm1.weight",
    ),
}
MARKS = {"vae": autoencoder, "unet": unet}
both = pytest.mark.parametrize("part", [pytest.param(part, marks=mark) for part, mark in MARKS.items()])


@pytest.mark.parametrize(
    ("part", "name"), [pytest.param(part, name, marks=MARKS[part]) for part in UNKNOWN for name in UNKNOWN[part]]
)
def test_unknown_name(stage, part, name):
    tensors = tensors_of(part, checkpoint()) | {name: torch.zeros(1)}
    check(
        stage, lambda m: error_of(lambda: getattr(m, f"remap_{part}")(dict(tensors))) != "no ValueError", True,
        f"whether remap_{part}(state_dict) raises a ValueError for {name}",
        hint="leave no tensor out without saying so.",
    )


SEVERAL_LEVELS = replace(TINY, unet=UNETS["attention on the deep levels"], vae=VAES["four levels, one block"])


@both
@settings(max_examples=3)
@given(random=st.randoms(use_true_random=False))
def test_order_of_the_names_does_not_matter(stage, part, random):
    """With more than one change of resolution, whose names may come in any order."""
    tensors = list(tensors_of(part, checkpoint(SEVERAL_LEVELS)).items())
    random.shuffle(tensors)
    check(
        stage, f"remap_{part}(state_dict)", wanted(part, SEVERAL_LEVELS),
        f"remap_{part}(state_dict) with names in another order", state_dict=dict(tensors),
        hint="look at all names for the smallest or largest number, not only at the first that fits.",
    )


@both
@pytest.mark.parametrize("order", ["backwards", "by alphabet"])
def test_names_in_order(stage, part, order):
    items = tensors_of(part, checkpoint(SEVERAL_LEVELS)).items()
    tensors = dict(sorted(items) if order == "by alphabet" else reversed(items))
    check(
        stage, f"remap_{part}(state_dict)", wanted(part, SEVERAL_LEVELS), f"remap_{part}(state_dict), names {order}",
        hint="look at all names for the smallest or largest number, not only at the first that fits.",
        state_dict=tensors,
    )


@both
def test_names_and_shapes_of_stable_diffusion(stage, part):
    """At full size, without any numbers."""
    config = {"vae": VAEConfig(), "unet": UNetConfig()}[part]
    tensors = {name: torch.empty(shape, device="meta") for name, shape in compvis.entries(part, config)}
    theirs = compvis.wanted(part, {PREFIXES[part] + name: tensor for name, tensor in tensors.items()}, config)
    assert len(theirs) == {"vae": 248, "unet": 686}[part]
    check(
        stage, lambda m: {name: tuple(t.shape) for name, t in getattr(m, f"remap_{part}")(dict(tensors)).items()},
        {name: tuple(tensor.shape) for name, tensor in theirs.items()},
        f"names and shapes of remap_{part}(state_dict) at the size of Stable Diffusion 1.5",
    )


# --- loading ---------------------------------------------------------------------------------------------------------


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 2)
        self.second = nn.Conv2d(2, 2, 1, bias=False)
        self.square = nn.Linear(3, 3, bias=False)


def pair_weights(dtype=torch.float64, without=""):
    weights = {"first.weight": rand(2, 3), "first.bias": rand(2, seed=1), "second.weight": rand(2, 2, 1, 1, seed=2)}
    weights["square.weight"] = rand(3, 3, seed=3)
    return {name: tensor.to(dtype) for name, tensor in weights.items() if name != without}


@loading
@pytest.mark.parametrize(
    ("model_dtype", "file_dtype"), [("float64", "float64"), ("float32", "float16"), ("bfloat16", "float32")]
)
def test_weights_are_copied(stage, model_dtype, file_dtype):
    weights, dtype = pair_weights(getattr(torch, file_dtype)), getattr(torch, model_dtype)

    def run(module):
        model, file = Pair().to(dtype), {name: tensor.clone() for name, tensor in weights.items()}
        module.load_weights(model, file)
        for tensor in file.values():
            tensor.zero_()
        return model.state_dict()

    check(
        stage, run, {name: tensor.to(dtype) for name, tensor in weights.items()},
        f"the parameters after load_weights(model in {model_dtype}, state_dict in {file_dtype})",
        hint="every tensor is copied into the parameter of its name; the model does not share memory with the file.",
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


PROBLEMS = {  # weights, and what the error has to mention
    "missing": (pair_weights(without="first.bias"), ["first.bias"]),
    "unexpected": (pair_weights() | {"third": rand(2)}, ["third"]),
    "wrong shape": (pair_weights() | {"second.weight": rand(2, 2)}, ["second.weight", (2, 2, 1, 1), (2, 2)]),
    "too large": (pair_weights() | {"first.bias": rand(3)}, ["first.bias", (2,), (3,)]),
    "a shape that would broadcast": (pair_weights() | {"first.bias": rand(1)}, ["first.bias", (2,), (1,)]),
    "transposed": (pair_weights() | {"first.weight": rand(3, 2)}, ["first.weight", (2, 3), (3, 2)]),
    "a table of positions": (pair_weights() | {"position_ids": torch.arange(3)}, ["position_ids"]),
    "under another name": (
        pair_weights(without="second.weight") | {"second.kernel": rand(2, 2, 1, 1)}, ["second.weight", "second.kernel"]
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
@pytest.mark.parametrize(("problem", "other"), [("missing", "unexpected"), ("unexpected", "missing")])
def test_missing_and_unexpected_are_told_apart(stage, problem, other):
    weights, _ = PROBLEMS[problem]

    def run(module):
        text = error_of(lambda: module.load_weights(Pair(), weights)).lower()
        return other if other in text and problem not in text else problem

    check(
        stage, run, problem, f"what the ValueError of load_weights(model, state_dict) calls a tensor that is {problem}",
        hint="missing: a parameter without a tensor; unexpected: a tensor without a parameter.",
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


# --- one checkpoint after another ------------------------------------------------------------------------------------


@both
def test_several_checkpoints_are_remapped(stage, part):
    _, two, three, four = {"vae": VAES, "unet": UNETS}[part].values()
    configs = [replace(TINY, **{part: size}) for size in (three, two, four, three)]
    levels = [f"remap_{part}(state_dict) with {len(getattr(config, part).channels)} levels" for config in configs]
    calls = [{"call": call, "config": config} for call, config in zip(levels, configs)]

    def answer(module):
        return lambda call, config: getattr(module, f"remap_{part}")(tensors_of(part, checkpoint(config)))

    text = f"remap_{part} for several checkpoints in turn"
    check_in_turn(stage, text, answer, lambda call, config: wanted(part, config), calls)


@averages
def test_averages_of_several_checkpoints(stage):
    files = {scale: {name: scale * tensor for name, tensor in checkpoint(TINY).items()} for scale in (1, 2, 3)}

    def averaged(scale):
        tensors = files[scale]
        return tensors | {
            name: tensors["model_ema." + name.removeprefix("model.").replace(".", "")]
            for name in tensors if name.startswith(PREFIXES["unet"])
        }

    calls = [{"scale": scale} for scale in (1, 2, 3, 1)]
    text = "select_ema for several checkpoints in turn"
    check_in_turn(stage, text, lambda m: lambda scale: m.select_ema(files[scale]), averaged, calls)


@loading
def test_a_model_is_loaded_again(stage):
    files = [{name: scale * tensor for name, tensor in pair_weights().items()} for scale in (1.0, -2.0, 3.0)]

    def run(module):
        model, other, results = Pair().double(), Pair().double(), {}
        for (name, _), target, file in zip(wanted.items(), [model, model, other], files):
            module.load_weights(target, file)
            results[name] = {name: tensor.clone() for name, tensor in target.state_dict().items()}
        return results | {"and then the model": model.state_dict()}

    wanted = dict(zip(["a model", "the same model, with other weights", "another model"], files))
    check(
        stage, run, wanted | {"and then the model": files[1]}, "load_weights(model, state_dict), called three times",
        hint="nothing may be kept from one call to the next.",
    )


@pytest.mark.parametrize("function", [
    pytest.param("remap_vae", marks=autoencoder), pytest.param("remap_unet", marks=unet),
    pytest.param("load_weights", marks=loading),
])
def test_the_dictionary_passed_in_is_not_changed(stage, function):
    part = function.removeprefix("remap_")
    tensors = pair_weights(torch.float16) if part == "load_weights" else tensors_of(part, checkpoint(TINY))

    def run(module):
        copy = dict(tensors)
        getattr(module, function)(*([Pair()] if part == "load_weights" else []), copy)
        changed = [name for name in tensors if copy.get(name) is not tensors[name]]
        return (changed + [name for name in copy if name not in tensors])[:3]

    check(
        stage, run, [], f"the first names whose tensors {function} changes in state_dict",
        hint="make a new dictionary; another model may want to read this one.",
    )


# --- one file, two libraries -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
@without_compiler()
def file(tmp_path_factory):
    """A safetensors file with CompVis' names, and how diffusers opens it: with a folder of configs beside it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    configs = folder / "diffusers"
    made = pipeline("text", "ddim", TINY)
    made.save_config(configs)
    for name in ("unet", "vae", "scheduler"):
        made.components[name].save_config(configs / name)
    made.text_encoder.config.save_pretrained(configs / "text_encoder")
    made.tokenizer.save_pretrained(configs / "tokenizer")
    save_file(checkpoint(TINY), folder / "model.safetensors")
    config = {"config": str(configs), "local_files_only": True}

    # Without: on the meta device torch makes an embedding with the help of sympy, whose import takes long.
    @mock.patch.object(single_file_utils, "is_accelerate_available", bool)  # False
    @without_compiler()
    def opened(kind, **kwargs):
        return kind.from_single_file(folder / "model.safetensors", **config, **kwargs)

    return opened


@pytest.mark.exercise("10.2", "10.3", "10.4")
@pytest.mark.limit(60)
def test_the_file_draws_the_picture_of_diffusers(stage, blocks, file):
    picture = Picture("text", steps=3)
    theirs = file(StableDiffusionPipeline)
    theirs.set_progress_bar_config(disable=True)

    def run(module):
        parts, tensors = our_parts(blocks, TINY), module.split_checkpoint(checkpoint(TINY))
        for name, part in (("vae", "vae"), ("text_encoder", "clip"), ("unet", "unet")):
            module.load_weights(parts[name], getattr(module, f"remap_{part}")(tensors[part]))
        return picture.ours(blocks[9], parts)

    check(
        stage, run, picture.theirs(theirs), "the picture with the weights of the file, beside diffusers' own",
        tolerance=1e-5,  # float32
    )


@pytest.mark.exercise("10.1", "10.3", "10.4")
@pytest.mark.limit(60)
@torch.no_grad()
def test_averages_of_the_file_predict_the_noise_of_diffusers(stage, blocks, file):
    latents, context = rand(2, 4, 6, 4, dtype=torch.float32), rand(2, 5, 12, seed=1, dtype=torch.float32)
    timesteps = torch.tensor([3, 981])
    noise = file(UNet2DConditionModel, subfolder="unet", extract_ema=True)(latents, timesteps, context).sample

    def run(module):
        model = blocks[7].UNet(TINY.unet)
        tensors = module.split_checkpoint(module.select_ema(checkpoint(TINY)))["unet"]
        module.load_weights(model, module.remap_unet(tensors))
        return model(latents, timesteps, context)

    check(
        stage, run, noise, "the noise predicted with averages, beside diffusers' from_single_file(extract_ema=True)",
        tolerance=1e-5,  # float32
    )


# --- by name, and of any mapping -------------------------------------------------------------------------------------


class Names(Mapping):
    """A Mapping that is no dict: as a file is that is opened but not read."""

    def __init__(self, tensors):
        self.tensors = tensors

    def __getitem__(self, name):
        return self.tensors[name]

    def __iter__(self):
        return iter(self.tensors)

    def __len__(self):
        return len(self.tensors)


MAPPING = "a Mapping has names and values; copy(), |, pop and the like are of dict alone."


@averages
def test_averages_of_any_mapping(stage):
    tensors = checkpoint(TINY)
    prefix = PREFIXES["unet"]
    check(
        stage, lambda m: tensors_of("unet", m.select_ema(state_dict=Names(tensors))),
        {n.removeprefix(prefix): tensors["model_ema." + n.removeprefix("model.").replace(".", "")]
         for n in tensors if n.startswith(prefix)},
        "the U-Net's tensors in select_ema(state_dict=state_dict), with a Mapping that is no dict", hint=MAPPING,
    )


@both
def test_names_of_any_mapping(stage, part):
    tensors = Names(tensors_of(part, checkpoint(TINY)))
    check(
        stage, lambda m: getattr(m, f"remap_{part}")(state_dict=tensors), wanted(part, TINY),
        f"remap_{part}(state_dict=state_dict) with a Mapping that is no dict", hint=MAPPING,
    )


@loading
def test_weights_of_any_mapping(stage):
    def run(module):
        model = Pair().double()
        module.load_weights(model=model, state_dict=Names(pair_weights()))
        return model.state_dict()

    call = "the parameters after load_weights(model=model, state_dict=state_dict), with a Mapping that is no dict"
    check(stage, run, pair_weights(), call, hint=MAPPING)


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("10.1", "10.2", "10.3", "10.4")
@each_drawing("text to image", "image to image", "into a mask")
def test_what_make_generate_draws(stage, checkpoint_folder, drawing):
    check_drawing(stage, drawing, checkpoint_folder)
