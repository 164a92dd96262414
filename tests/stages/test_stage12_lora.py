"""Stage 12 against layers with changed weights, diffusers' models with their names, and peft where it is installed."""

import copy
import re
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course.core.config import CLIPConfig, UNetConfig
from course.feedback import renaming
from course.feedback.compare import check, describe, evaluated, rand, randomised, results_and_gradients
from course.feedback.divergence import CLIP_PARTS, UNET_PARTS
from course.feedback.renaming import our_name, our_weights
from tests.stages import reference
from tests.stages.blocks import divergence
from tests.stages.light import without_compiler

with without_compiler():
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers

# Small, so that the wrong versions of a call take no time: but with every kind of layer, and each kind of name.
SMALL_UNET = UNetConfig(
    channels=(8, 12), attention=(True, False), blocks_per_level=1, num_heads=2, context_channels=20, num_groups=4
)
SMALL_CLIP = CLIPConfig(vocab_size=20, width=24, hidden_width=40, num_layers=2, num_heads=4, max_length=77)

layer_beside = pytest.mark.exercise("12.1")
changes = pytest.mark.exercise("12.1", "12.2")
merging = pytest.mark.exercise("12.1", "12.2", "12.3")
putting = pytest.mark.exercise("12.1", "12.4")
taking = pytest.mark.exercise("12.1", "12.5")
tables = pytest.mark.exercise("12.6")
reading = pytest.mark.exercise("12.6", "12.7")
applying = pytest.mark.exercise("12.1", "12.8")
tuning = pytest.mark.exercise("12.9")

KINDS = {
    "linear": lambda: nn.Linear(6, 10),
    "3x3 convolution": lambda: nn.Conv2d(6, 10, 3, stride=2, padding=1),
    "1x1 convolution": lambda: nn.Conv2d(6, 10, 1),
}
INPUTS = {"linear": rand(2, 5, 6), "3x3 convolution": rand(2, 6, 8, 4), "1x1 convolution": rand(2, 6, 3, 4)}
SHAPES = {"linear": (10, 6), "3x3 convolution": (10, 6, 3, 3), "1x1 convolution": (10, 6, 1, 1)}
kinds = pytest.mark.parametrize("kind", KINDS)


def plain(kind, seed=0):
    return randomised(KINDS[kind](), seed)


def weights(kind, rank=3, seed=5):
    """Random down and up for a layer of this kind, (rank, in, ...) and (out, rank, ...)."""
    ones = (1,) * (len(SHAPES[kind]) - 2)
    return rand(rank, *SHAPES[kind][1:], seed=seed), rand(10, rank, *ones, seed=seed + 1)


def product(down, up):
    """up @ down, as a sum of outer products."""
    return torch.einsum("or,r...->o...", up.reshape(len(up), -1), down)


def filled(lora, down, up):
    """The LoRA with these weights; an AssertionError says if they do not fit."""
    for name, wanted in (("down", down), ("up", up)):
        layer = getattr(lora, name, None)
        if not isinstance(layer, nn.Module) or layer.weight.shape != wanted.shape:
            got = describe(layer.weight if isinstance(layer, nn.Module) else layer)
            raise AssertionError(f"LoRA.{name}.weight: got {got}, wanted the shape {tuple(wanted.shape)}")
        if [*layer.state_dict()] != ["weight"]:
            raise AssertionError(f"LoRA.{name} has {', '.join(layer.state_dict())}: it has no bias")
        layer.weight.data = wanted.clone()
    return lora


def changed(layer, delta):
    """The layer with other weights."""
    layer = copy.deepcopy(layer)
    layer.weight.data += delta
    return layer


# --- one layer -------------------------------------------------------------------------------------------------------


@layer_beside
@kinds
def test_shapes_of_down_and_up(stage, kind):
    def run(module):
        lora = module.LoRA(plain(kind), 3)
        return {name: tuple(parameter.shape) for name, parameter in lora.named_parameters()}

    down, up = weights(kind)
    wanted = {"layer.weight": SHAPES[kind], "layer.bias": (10,)}
    wanted |= {"down.weight": tuple(down.shape), "up.weight": tuple(up.shape)}
    call = f"the parameters of LoRA(layer, 3), around a {kind} layer"
    check(stage, run, wanted, call, hint="down and up have no bias.")


@layer_beside
@kinds
def test_it_begins_as_the_layer_that_it_is_around(stage, kind):
    layer, x = plain(kind), INPUTS[kind]
    check(
        stage, lambda m: m.LoRA(copy.deepcopy(layer), 3)(x), layer(x), f"LoRA(layer, 3)(x), around a {kind} layer",
        inputs={"x": x}, hint="up starts as zeros; the layer's own result comes unchanged.",
    )


@layer_beside
def test_down_does_not_begin_at_zero(stage):
    def run(module):
        lora = module.LoRA(nn.Linear(200, 100), 50)
        return {"up is zero": not lora.up.weight.any(), "down is zero": not lora.down.weight.any()}

    check(
        stage, run, {"up is zero": True, "down is zero": False}, "LoRA(layer, 50)",
        hint="with both at zero, the gradient of each would be zero too, and nothing could be learned.",
    )


@layer_beside
@kinds
@pytest.mark.parametrize("alpha", [None, 3, 12.0, 0.5], ids=lambda alpha: f"alpha={alpha}")
def test_correction_beside_the_layer(stage, kind, alpha):
    layer, x, (down, up) = plain(kind), INPUTS[kind], weights(kind)
    scale = 1.0 if alpha is None else alpha / 3
    theirs = changed(layer, scale * product(down, up))
    check(
        stage, lambda m: filled(m.LoRA(copy.deepcopy(layer), 3, alpha), down, up)(x), theirs(x),
        f"LoRA(layer, 3, {alpha})(x), around a {kind} layer",
        hint="layer(x) + scale * up(down(x)), with scale = alpha / rank, and 1 if alpha is None.",
    )


@layer_beside
@kinds
def test_gradients_of_down_and_up(stage, kind):
    layer, x, (down, up) = plain(kind), INPUTS[kind], weights(kind)

    def gradients(scale, output, down, up, x):
        (output * rand(*output.shape, seed=9)).sum().backward()
        return {"the gradient of x": x.grad, "the gradient of down": down.grad, "the gradient of up": up.grad}

    def run(module):
        lora, inputs = filled(module.LoRA(copy.deepcopy(layer), 3, 6.0), down, up), x.clone().requires_grad_()
        return gradients(2.0, lora(inputs), lora.down.weight, lora.up.weight, inputs)

    own_down, own_up, inputs = (tensor.clone().requires_grad_() for tensor in (down, up, x))
    weight = layer.weight.detach() + 2.0 * product(own_down, own_up)
    if kind == "linear":
        output = F.linear(inputs, weight, layer.bias.detach())
    else:
        output = F.conv2d(inputs, weight, layer.bias.detach(), layer.stride, layer.padding)
    wanted = gradients(2.0, output, own_down, own_up, inputs)
    check(stage, run, wanted, f"the gradients of LoRA(layer, 3, 6.0)(x), around a {kind} layer")


@layer_beside
def test_the_layer_is_frozen(stage):
    def run(module):
        lora = module.LoRA(nn.Linear(6, 10), 3)
        return {name: parameter.requires_grad for name, parameter in lora.named_parameters()}

    wanted = {"layer.weight": False, "layer.bias": False, "down.weight": True, "up.weight": True}
    check(stage, run, wanted, "requires_grad of the parameters of LoRA(layer, 3)")


@layer_beside
def test_attributes_of_a_new_one(stage):
    def run(module):
        layer = nn.Linear(6, 10)
        lora = module.LoRA(layer, 4, 8)
        return {"scale": float(lora.scale), "merged": lora.merged, "the layer is the one given": lora.layer is layer}

    check(stage, run, {"scale": 2.0, "merged": False, "the layer is the one given": True}, "LoRA(layer, 4, 8)")


@layer_beside
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_dtype_of_the_layer(stage, dtype):
    def run(module):
        lora = module.LoRA(nn.Linear(6, 10).to(dtype), 3)
        return [str(part.weight.dtype) for part in (lora.down, lora.up)]

    check(stage, run, [str(dtype)] * 2, f"the dtypes of down and up, around a layer in {dtype}")


@layer_beside
@kinds
def test_two_around_one_layer(stage, kind):
    layer, x = plain(kind), INPUTS[kind]
    first, second = weights(kind, 3), weights(kind, 2, seed=8)

    def run(module):
        inner = filled(module.LoRA(copy.deepcopy(layer), 3), *first)
        return filled(module.LoRA(inner, 2, 1.0), *second)(x)

    theirs = changed(layer, product(*first) + 0.5 * product(*second))
    check(
        stage, run, theirs(x), f"LoRA(LoRA(layer, 3), 2, 1.0)(x), around a {kind} layer",
        hint="the sizes are those of innermost(layer); the result is that of the layer which was given.",
    )


@layer_beside
def test_layer_of_peft(stage):
    peft = pytest.importorskip("peft")
    layer, x, (down, up) = plain("linear"), INPUTS["linear"], weights("linear")
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["0"])
    theirs = peft.inject_adapter_in_model(config, nn.Sequential(copy.deepcopy(layer)))[0].double()
    theirs.lora_A["default"].weight.data, theirs.lora_B["default"].weight.data = down.clone(), up.clone()
    wanted = results_and_gradients(theirs, x)
    names = {"lora_A.default": "down", "lora_B.default": "up"}
    wanted = {
        re.sub("|".join(names), lambda found: names[found[0]], name): value
        for name, value in wanted.items() if "base_layer" not in name
    }

    def run(module):
        found = results_and_gradients(filled(module.LoRA(copy.deepcopy(layer), 3, 5), down, up), x)
        return {name: value for name, value in found.items() if "layer." not in name}

    check(stage, run, wanted, "LoRA(layer, 3, 5)(x) and its gradients, beside peft's")


# --- in and out of the weights ---------------------------------------------------------------------------------------


@changes
@kinds
@pytest.mark.parametrize("alpha", [None, 12.0], ids=lambda alpha: f"alpha={alpha}")
def test_change_of_the_weight(stage, kind, alpha):
    down, up = weights(kind)
    check(
        stage, lambda m: filled(m.LoRA(plain(kind), 3, alpha), down, up).delta().detach(),
        product(down, up) * (1.0 if alpha is None else 4.0), f"LoRA(layer, 3, {alpha}).delta(), of a {kind} layer",
        hint="scale * (up @ down), in the shape of the layer's weight.",
    )


@changes
def test_change_of_a_layer_in_half_precision(stage):
    down, up = (tensor.to(torch.bfloat16) for tensor in weights("linear"))

    def run(module):
        lora = module.LoRA(nn.Linear(6, 10).to(torch.bfloat16), 3)
        return filled(lora, down, up).delta().detach()

    wanted = product(down.float(), up.float())
    check(stage, run, wanted, "LoRA(layer, 3).delta(), in bfloat16", tolerance=1e-6, hint="multiply in float32.")


@changes
def test_change_with_another_one_inside(stage):
    first, second = weights("3x3 convolution", 3), weights("3x3 convolution", 2, seed=8)

    def run(module):
        inner = filled(module.LoRA(plain("3x3 convolution"), 3), *first)
        return filled(module.LoRA(inner, 2), *second).delta().detach()

    check(stage, run, product(*second), "LoRA(LoRA(layer, 3), 2).delta()", hint="its own correction only.")


def merged(module, kind, action):
    """What a LoRA is and gives after an action."""
    lora = filled(module.LoRA(plain(kind), 3, 6.0), *weights(kind))
    action(lora)
    return {
        "the result": lora(INPUTS[kind]).detach(), "layer.weight": lora.layer.weight.detach(),
        "merged": torch.tensor(lora.merged),
    }


def wanted_after(kind, is_merged):
    layer = plain(kind)
    with_correction = changed(layer, 2.0 * product(*weights(kind)))
    weight, result = (with_correction if is_merged else layer).weight.detach(), with_correction(INPUTS[kind]).detach()
    return {"the result": result, "layer.weight": weight, "merged": torch.tensor(is_merged)}


@merging
@kinds
def test_merging_changes_the_weight_and_not_the_result(stage, kind):
    check(
        stage, lambda m: merged(m, kind, lambda lora: lora.merge()), wanted_after(kind, True),
        f"a LoRA around a {kind} layer after merge()", hint="weight + delta; forward then leaves the correction out.",
    )


@merging
def test_merging_twice_is_merging_once(stage):
    check(
        stage, lambda m: merged(m, "linear", lambda lora: [lora.merge(), lora.merge()]), wanted_after("linear", True),
        "a LoRA after merge() and merge()",
    )


@merging
@kinds
def test_unmerging_is_the_way_back(stage, kind):
    check(
        stage, lambda m: merged(m, kind, lambda lora: [lora.merge(), lora.unmerge()]), wanted_after(kind, False),
        f"a LoRA around a {kind} layer after merge() and unmerge()",
    )


@merging
def test_unmerging_what_is_not_merged_changes_nothing(stage):
    check(
        stage, lambda m: merged(m, "linear", lambda lora: lora.unmerge()), wanted_after("linear", False),
        "a LoRA after unmerge()",
    )


@merging
def test_the_weight_stays_a_plain_parameter(stage):
    def run(module):
        lora = filled(module.LoRA(plain("linear"), 3), *weights("linear"))
        states = []
        for action in (lora.merge, lora.unmerge):
            action()
            states.append([lora.weight.requires_grad, lora.weight.is_leaf])
        return states

    check(
        stage, run, [[False, True]] * 2, "[requires_grad, is_leaf] of weight after merge(), and after unmerge()",
        hint="the decorator @torch.no_grad() was given: without it the weight remembers how it was computed.",
    )


@merging
def test_merging_in_half_precision_rounds_once(stage):
    layer = nn.Linear(6, 10).to(torch.bfloat16)
    down, up = (tensor.to(torch.bfloat16) for tensor in weights("linear"))

    def run(module):
        lora = filled(module.LoRA(copy.deepcopy(layer), 3), down, up)
        lora.merge()
        return lora.layer.weight.detach()

    wanted = (layer.weight.float() + product(down.float(), up.float())).to(torch.bfloat16).detach()
    check(
        stage, run, wanted, "layer.weight in bfloat16 after merge()", tolerance=1e-6,
        hint="weight + delta in float32, then converted: delta by itself must not be rounded.",
    )


@merging
def test_merging_two_around_one_layer(stage):
    first, second = weights("linear", 3), weights("linear", 2, seed=8)

    def run(module):
        inner = filled(module.LoRA(plain("linear"), 3), *first)
        outer = filled(module.LoRA(inner, 2), *second)
        outer.merge()
        inner.merge()
        return {"the result": outer(INPUTS["linear"]).detach(), "the weight": inner.layer.weight.detach()}

    theirs = changed(plain("linear"), product(*first) + product(*second))
    wanted = {"the result": theirs(INPUTS["linear"]).detach(), "the weight": theirs.weight.detach()}
    check(stage, run, wanted, "LoRA(LoRA(layer, 3), 2) after both are merged", hint="the weight of innermost(layer).")


# --- into a model and out of it --------------------------------------------------------------------------------------


class Block(nn.Module):
    """A model with layers of several kinds, some of them further inside."""

    def __init__(self):
        super().__init__()
        self.to_q = nn.Linear(4, 4)
        self.inside = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 4)), nn.LayerNorm(4)])
        self.to_out = nn.Linear(4, 4)

    def forward(self, x):
        return self.to_out(self.inside[1](self.inside[0](self.to_q(x))))


NAMES = ["to_out", "inside.0.2"]
X = rand(3, 4)


@putting
def test_which_layers_become_a_lora(stage):
    def run(module):
        model = randomised(Block())
        module.put_in(model, NAMES, 2)
        return [name for name, part in model.named_modules() if isinstance(part, module.LoRA)]

    check(stage, run, ["inside.0.2", "to_out"], f"the LoRAs in a model after put_in(model, {NAMES}, 2)")


@putting
def test_what_is_trained(stage):
    def run(module):
        model = randomised(Block())
        trained = module.put_in(model, NAMES, 2)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        return {
            "returned": [names.get(id(parameter), "something else") for parameter in trained],
            "requires_grad": sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad),
        }

    returned = [f"{name}.{part}.weight" for name in NAMES for part in ("down", "up")]
    check(
        stage, run, {"returned": returned, "requires_grad": sorted(returned)}, f"put_in(model, {NAMES}, 2)",
        hint="freeze the whole model first; only the new down and up are trained, in the order of the names.",
    )


@putting
def test_rank_and_alpha_are_handed_on(stage):
    def run(module):
        model = randomised(Block())
        module.put_in(model, NAMES, 2, 6.0)
        return [float(model.to_out.scale), *model.to_out.down.weight.shape]

    check(stage, run, [3.0, 2, 4], f"scale, rank and width after put_in(model, {NAMES}, 2, 6.0)")


@putting
def test_a_model_with_loras_in_it_begins_as_it_was(stage):
    def run(module):
        model = randomised(Block())
        module.put_in(model, NAMES, 2)
        return model(X).detach()

    check(stage, run, randomised(Block())(X).detach(), f"model(x) after put_in(model, {NAMES}, 2)")


@taking
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_out_again(stage, times):
    def run(module):
        model = randomised(Block())
        before = list(model.modules())
        for _ in range(times):
            for name in NAMES:
                lora = module.LoRA(model.get_submodule(name), 2)
                lora.up.weight.data.fill_(1.0)
                module.replace_layer(model, name, lora)
        module.take_out(model)
        after = list(model.modules())
        same = [*map(id, before)] == [*map(id, after)]
        return {"names": [*model.state_dict()], "the layers are the same": same, "model(x)": model(X).detach().tolist()}

    wanted = {"names": [*Block().state_dict()], "the layers are the same": True}
    wanted["model(x)"] = randomised(Block())(X).detach().tolist()
    check(
        stage, run, wanted, f"take_out(model), with {'one LoRA' if times == 1 else 'two LoRAs'} around two layers",
        hint="the innermost layer itself, with its weight as it is, in the place of the outermost LoRA.",
    )


@taking
def test_what_is_merged_stays(stage):
    down, up = rand(2, 4, seed=5), rand(4, 2, seed=6)

    def run(module):
        model = randomised(Block())
        lora = module.LoRA(model.to_out, 2)
        lora.down.weight.data, lora.up.weight.data = down.clone(), up.clone()
        model.to_out = lora
        weight = lora.layer.weight
        weight.data.add_(product(down, up))
        lora.merged = True
        module.take_out(model)
        return model(X).detach()

    theirs = randomised(Block())
    theirs.to_out.weight.data += product(down, up)
    check(stage, run, theirs(X).detach(), "model(x) after take_out(model), with a merged LoRA")


# --- published files -------------------------------------------------------------------------------------------------


def models(blocks):
    """A small U-Net and text encoder, random numbers in them."""
    unet, text_encoder = blocks[7].UNet(SMALL_UNET), blocks[6].CLIPTextEncoder(SMALL_CLIP)
    return SimpleNamespace(unet=randomised(unet, 1), text_encoder=randomised(text_encoder, 2))


@pytest.fixture(scope="module")
def ours(blocks):
    return models(blocks)


@pytest.fixture(scope="module")
def theirs(ours):
    """The models of diffusers and transformers with the same weights, and their layers: name -> (part, our name)."""
    unet, text_encoder = reference.unet(SMALL_UNET, 1), reference.clip(SMALL_CLIP, 2)
    names = {}
    for part, model, rules in (("unet", unet, renaming.UNET), ("text_encoder", text_encoder, renaming.CLIP)):
        weights = our_weights(model, rules)
        getattr(ours, part).load_state_dict({name: weights[name] for name in getattr(ours, part).state_dict()})
        for name, layer in model.named_modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                own = our_name(f"{name}.weight", rules).removesuffix(".weight")
                full = name if part == "unet" or name.startswith("text_model.") else f"text_model.{name}"
                names[f"{part}.{full}"] = (part, own)
    return SimpleNamespace(unet=unet, text_encoder=text_encoder, names=names)


def kohya(name):
    part, _, rest = name.partition(".")
    return f"lora_{'te' if part == 'text_encoder' else 'unet'}_{rest.replace('.', '_')}"


WAYS = {"peft": ("lora_A.weight", "lora_B.weight"), "kohya": ("lora_down.weight", "lora_up.weight")}


def file_of(theirs, way, chosen=None, rank=lambda i: 2 + i % 3, alpha=lambda i: 1.0 + i % 4):
    """A file for all layers or some, and (part, layer) -> its change of the weight."""
    tensors, deltas = {}, {}
    down_name, up_name = WAYS[way]
    for i, (name, (part, own)) in enumerate(theirs.names.items()):
        if chosen is not None and name not in chosen:
            continue
        weight = layer_of(theirs, name).weight
        r, ones = rank(i), (1,) * (weight.ndim - 2)
        down, up = 0.3 * rand(r, *weight.shape[1:], seed=i), 0.3 * rand(len(weight), r, *ones, seed=1000 + i)
        stem = name if way == "peft" else kohya(name)
        tensors |= {f"{stem}.{down_name}": down, f"{stem}.{up_name}": up}
        a = alpha(i)
        if a is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(a)
        deltas[part, own] = (r if a is None else a) / r * product(down, up)
    return tensors, deltas


def layer_of(theirs, name):
    part, _, rest = name.partition(".")
    model = getattr(theirs, part)
    try:
        return model.get_submodule(rest)
    except AttributeError:
        return model.get_submodule(rest.removeprefix("text_model."))


@tables
@pytest.mark.parametrize("way", WAYS)
def test_every_layer_has_its_name_in_the_table(stage, ours, theirs, way):
    wanted = {(name if way == "peft" else kohya(name)): own for name, own in theirs.names.items()}
    starts = ("unet.", "text_encoder.") if way == "peft" else ("lora_unet_", "lora_te_")

    def run(module):
        table = module.table_of_layers(ours.unet, ours.text_encoder)
        return {name: table[name] for name in sorted(table) if name.startswith(starts)}

    check(
        stage, run, {name: wanted[name] for name in sorted(wanted)},
        f"the names in {way}'s way of writing in table_of_layers(unet, text_encoder)",
        hint="published_name of every layer of layers_of, behind the part's prefix; in kohya's way without dots.",
    )


@tables
def test_the_table_holds_nothing_else(stage, ours, theirs):
    check(
        stage, lambda m: len(m.table_of_layers(ours.unet, ours.text_encoder)), 2 * len(theirs.names),
        "len(table_of_layers(unet, text_encoder))", hint="two names for each layer.",
    )


@tables
def test_names_of_layers_that_have_a_lora_already(stage, blocks):
    def run(module):
        fresh = models(blocks)
        before = [*module.table_of_layers(fresh.unet, fresh.text_encoder)]
        fresh.unet.mid.transformer.proj_in = module.LoRA(fresh.unet.mid.transformer.proj_in, 2)
        return [*module.table_of_layers(fresh.unet, fresh.text_encoder)] == before

    call = "whether table_of_layers is the same with a LoRA in the U-Net"
    check(stage, run, True, call, hint="layers_of knows them.")


def as_tensors(updates):
    """Updates as a dictionary for comparing."""
    return {
        f"{part} {layer}: {what}": value if what != "alpha" else torch.tensor(value, dtype=torch.float64)
        for (part, layer), update in updates.items()
        for what, value in (("down", update.down), ("up", update.up), ("alpha", update.alpha))
    }


def check_reading(stage, ours, tensors, wanted, about, hint=""):
    check(
        stage, lambda m: as_tensors(m.read_lora(tensors, ours.unet, ours.text_encoder)), wanted,
        f"read_lora(state_dict, unet, text_encoder) {about}", hint=hint, inputs=tensors,
    )


def wanted_updates(theirs, tensors, way, chosen=None):
    down_name, up_name = WAYS[way]
    wanted = {}
    for name, (part, own) in theirs.names.items():
        if chosen is None or name in chosen:
            stem = name if way == "peft" else kohya(name)
            down = tensors[f"{stem}.{down_name}"]
            wanted |= {
                f"{part} {own}: down": down, f"{part} {own}: up": tensors[f"{stem}.{up_name}"],
                f"{part} {own}: alpha": tensors.get(f"{stem}.alpha", torch.tensor(float(len(down)))).double(),
            }
    return wanted


@reading
@pytest.mark.parametrize("way", WAYS)
def test_reading_a_file_with_every_layer(stage, ours, theirs, way):
    tensors, _ = file_of(theirs, way)
    check_reading(stage, ours, tensors, wanted_updates(theirs, tensors, way), f"of a file in {way}'s way of writing")


@reading
@pytest.mark.parametrize("way", WAYS)
def test_without_alpha_it_is_the_rank(stage, ours, theirs, way):
    tensors, _ = file_of(theirs, way, alpha=lambda i: None if i % 2 else 5.0)
    check_reading(
        stage, ours, tensors, wanted_updates(theirs, tensors, way), "of a file that lacks every second alpha",
        hint="alpha is then the rank of this very layer, the length of its down.",
    )


@reading
def test_names_that_diffusers_converts(stage, ours, theirs):
    """What diffusers makes of kohya's names is read like the names themselves."""
    chosen = [name for name in theirs.names if "attentions" in name or "self_attn" in name]
    tensors, _ = file_of(theirs, "kohya", chosen)
    converted, alphas = _convert_non_diffusers_lora_to_diffusers(dict(tensors))
    wanted = wanted_updates(theirs, tensors, "kohya", chosen)
    wanted = {name: value for name, value in wanted.items() if not name.endswith("alpha")}

    def run(module):
        updates = as_tensors(module.read_lora(converted, ours.unet, ours.text_encoder))
        return {name: value for name, value in updates.items() if not name.endswith("alpha")}

    check(stage, run, wanted, "read_lora(...) of the names that diffusers makes of kohya's", inputs=converted)
    assert len(alphas) == len(chosen)


FIRST = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@reading
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lora_unet_input_blocks_4_1_proj_in.lora_down.weight": rand(2, 4)}, ["input_blocks_4_1_proj_in"]),
        ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": rand(2, 4)}, ["lora_te2_text_model"]),
        ({FIRST.replace("blocks.0.attn1", "blocks.1.attn1") + ".lora_A.weight": rand(2, 12)}, ["transformer_blocks.1"]),
        ({f"{FIRST}.lora_magnitude_vector": rand(12)}, ["lora_magnitude_vector"]),
        ({f"{kohya(FIRST)}.hada_w1_a": rand(12, 2)}, ["hada_w1_a"]),
        ({f"{FIRST}.lora_A.weight": rand(2, 12)}, ["mid.transformer.block.self_attention.to_q", "up"]),
        ({f"{FIRST}.lora_B.weight": rand(12, 2)}, ["mid.transformer.block.self_attention.to_q", "down"]),
        ({f"{FIRST}.lora_A.weight": rand(2, 20), f"{FIRST}.lora_B.weight": rand(12, 2)},
         ["mid.transformer.block.self_attention.to_q", "20"]),
        ({f"{FIRST}.lora_A.weight": rand(2, 12), f"{FIRST}.lora_B.weight": rand(20, 2)},
         ["mid.transformer.block.self_attention.to_q", "20"]),
        ({f"{FIRST}.lora_A.weight": rand(2, 12), f"{FIRST}.lora_B.weight": rand(12, 3)},
         ["mid.transformer.block.self_attention.to_q", "3"]),
        ({f"{FIRST}.lora_A.weight": rand(2, 7), f"{FIRST}.lora_B.weight": rand(12, 2)},
         ["mid.transformer.block.self_attention.to_q", "7"]),
        ({f"{FIRST}.lora_A.weight": rand(2, 12), f"{FIRST}.lora_B.weight": rand(7, 2)},
         ["mid.transformer.block.self_attention.to_q", "7"]),
    ],
    ids=["CompVis' names", "SDXL's second text encoder", "SDXL's second block", "DoRA", "LoHa", "no up", "no down",
         "another width", "another height", "two ranks", "narrower", "lower"],
)
def test_what_does_not_fit_is_refused(stage, ours, change, said):
    def run(module):
        try:
            module.read_lora(change, ours.unet, ours.text_encoder)
        except ValueError as error:
            return {"refused": True, "it says": [word for word in said if word in str(error)]}
        return {"refused": False}

    check(
        stage, run, {"refused": True, "it says": said}, f"whether read_lora refuses {', '.join(change)}",
        hint=f"a ValueError whose text names {' and '.join(said)}.",
    )


@reading
def test_a_convolution_written_as_a_matrix(stage, ours, theirs):
    name = "unet.mid_block.attentions.0.proj_in"
    tensors, _ = file_of(theirs, "kohya", [name])
    tensors = {key: tensor.flatten(1) if tensor.ndim == 4 else tensor for key, tensor in tensors.items()}
    wanted = wanted_updates(theirs, tensors, "kohya", [name])
    check_reading(stage, ours, tensors, wanted, "of a 1x1 convolution written as a matrix", "compare x.flatten(1).")


def update(module, seed=0, rank=2, alpha=1.0, shape=(12, 12)):
    return module.Update(rand(rank, shape[1], seed=seed), rand(shape[0], rank, seed=seed + 1), alpha)


KEY = ("unet", "mid.transformer.block.self_attention.to_q")


@applying
@pytest.mark.parametrize("strength", ["", ", 0.5", ", strength=-2.0"], ids=lambda text: text or "default")
def test_scale_of_an_update(stage, blocks, strength):
    factor = float(strength.replace("strength=", "").removeprefix(", ") or 1.0)

    def run(module):
        fresh = models(blocks)
        updates = {KEY: update(module, alpha=3.0)}
        names = {"unet": fresh.unet, "text_encoder": fresh.text_encoder, "updates": updates}
        loras = evaluated(f"apply_lora(unet, text_encoder, updates{strength})", names)(module)
        placed = fresh.unet.mid.transformer.block.self_attention.to_q
        return {
            "it is in its place": len(loras) == 1 and loras[0] is placed, "scale": float(placed.scale),
            "the rank": len(placed.down.weight),
        }

    wanted = {"it is in its place": True, "scale": 1.5 * factor, "the rank": 2}
    check(
        stage, run, wanted, f"apply_lora(unet, text_encoder, updates{strength}), with rank 2 and alpha 3",
        hint="alpha / rank * strength; the LoRA takes the place of the layer, and is returned.",
    )


def with_deltas(theirs, *several):
    """Their models with changed weights."""
    unet, text_encoder = copy.deepcopy(theirs.unet), copy.deepcopy(theirs.text_encoder)
    changed_models = SimpleNamespace(unet=unet, text_encoder=text_encoder)
    for factor, deltas in several:
        for name, key in theirs.names.items():
            if key in deltas:
                layer_of(changed_models, name).weight.data += factor * deltas[key]
    return changed_models


def updates_of(module, theirs, tensors, way):
    """Updates made of a file by the names of diffusers, whatever exercise 12.7 returns."""
    wanted = wanted_updates(theirs, tensors, way, [name for name in theirs.names if in_file(name, tensors, way)])
    updates = {}
    for key in dict.fromkeys(name.rpartition(":")[0] for name in wanted):
        part, _, layer = key.partition(" ")
        down, up, alpha = (wanted[f"{key}: {what}"] for what in ("down", "up", "alpha"))
        updates[part, layer] = module.Update(down, up, float(alpha))
    return updates


def in_file(name, tensors, way):
    return f"{name if way == 'peft' else kohya(name)}.{WAYS[way][0]}" in tensors


UNET_INPUT = rand(2, 4, 8, 16), torch.tensor([20.0, 900.0], dtype=torch.float64), rand(2, 5, 20, seed=2)
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])


@applying
@pytest.mark.parametrize("way", WAYS)
def test_unet_of_diffusers_with_changed_weights(stage, blocks, ours, theirs, way):
    tensors, deltas = file_of(theirs, way)
    wanted = with_deltas(theirs, (1.0, deltas)).unet

    def make(module):
        fresh = copy.deepcopy(ours)
        module.apply_lora(fresh.unet, fresh.text_encoder, updates_of(module, theirs, tensors, way))
        return fresh.unet

    check(
        stage, lambda m: make(m)(*UNET_INPUT).detach(), wanted(*UNET_INPUT).sample.detach(),
        f"unet(latents, timesteps, context) after apply_lora, from a file in {way}'s way of writing",
        explain=divergence(make, wanted, UNET_PARTS, *UNET_INPUT), tolerance=1e-9,
    )


@applying
def test_text_encoder_of_transformers_with_changed_weights(stage, ours, theirs):
    tensors, deltas = file_of(theirs, "kohya")
    wanted = with_deltas(theirs, (1.0, deltas)).text_encoder

    def make(module):
        fresh = copy.deepcopy(ours)
        module.apply_lora(fresh.unet, fresh.text_encoder, updates_of(module, theirs, tensors, "kohya"))
        return fresh.text_encoder

    check(
        stage, lambda m: make(m)(TOKENS).detach(), wanted(TOKENS).last_hidden_state.detach(),
        "text_encoder(tokens) after apply_lora", tolerance=1e-9,
        explain=divergence(make, wanted, CLIP_PARTS, TOKENS),
        hint="a file may hold updates of the text encoder, too.",
    )


@applying
def test_several_files_at_once(stage, ours, theirs):
    first, first_deltas = file_of(theirs, "kohya")
    second, second_deltas = file_of(theirs, "peft", [n for n in theirs.names if "attn" in n], rank=lambda i: 1)
    wanted = with_deltas(theirs, (0.5, first_deltas), (2.0, second_deltas)).unet

    def run(module):
        fresh = copy.deepcopy(ours)
        for tensors, way, strength in ((first, "kohya", 0.5), (second, "peft", 2.0)):
            updates = updates_of(module, theirs, tensors, way)
            module.apply_lora(fresh.unet, fresh.text_encoder, updates, strength)
        return fresh.unet(*UNET_INPUT).detach()

    check(
        stage, run, wanted(*UNET_INPUT).sample.detach(), "the U-Net with two files, of strengths 0.5 and 2",
        tolerance=1e-9, hint="the second LoRA goes around the first one.",
    )


@pytest.mark.exercise("12.1", "12.2", "12.3", "12.5", "12.8")
def test_applied_merged_and_taken_out(stage, ours, theirs):
    tensors, deltas = file_of(theirs, "kohya")
    wanted = with_deltas(theirs, (1.0, deltas)).unet

    def run(module):
        fresh = copy.deepcopy(ours)
        for lora in module.apply_lora(fresh.unet, fresh.text_encoder, updates_of(module, theirs, tensors, "kohya")):
            lora.merge()
        module.take_out(fresh.unet)
        return fresh.unet(*UNET_INPUT).detach()

    output = wanted(*UNET_INPUT).sample.detach()
    check(stage, run, output, "the U-Net after apply_lora, merge and take_out", tolerance=1e-9)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_layers_that_are_tuned(stage, ours, theirs, part):
    wanted = [own for where, own in theirs.names.values() if where == part and re.search(r"\.to_(q|k|v|out)$", own)]
    check(
        stage, lambda m: sorted(m.attention_layers(getattr(ours, part))), sorted(wanted), f"attention_layers({part})",
        hint="this function was given: has it been changed?",
    )


@layer_beside
def test_what_goes_into_a_file(stage, ours):
    """lora_state_dict, which is given."""
    chosen = {  # part, our name -> the name in the file, rank, alpha
        ("unet", "mid.transformer.proj_in"): ("lora_unet_mid_block_attentions_0_proj_in", 3, 12.0),
        ("text_encoder", "layers.1.fc2"): ("lora_te_text_model_encoder_layers_1_mlp_fc2", 2, 1.0),
    }
    wanted = {}
    for i, ((part, name), (stem, rank, alpha)) in enumerate(chosen.items()):
        weight = getattr(ours, part).get_submodule(name).weight
        ones = (1,) * (weight.ndim - 2)
        wanted[f"{stem}.lora_down.weight"] = rand(rank, *weight.shape[1:], seed=i)
        wanted[f"{stem}.lora_up.weight"] = rand(len(weight), rank, *ones, seed=10 + i)
        wanted[f"{stem}.alpha"] = torch.tensor(alpha)

    def run(module):
        fresh = copy.deepcopy(ours)
        for (part, name), (stem, rank, alpha) in chosen.items():
            model = getattr(fresh, part)
            lora = module.LoRA(model.get_submodule(name), rank, alpha)
            ends = (f"{stem}.lora_{end}.weight" for end in ("down", "up"))
            module.replace_layer(model, name, filled(lora, *(wanted[end] for end in ends)))
        return module.lora_state_dict(fresh.unet, fresh.text_encoder)

    check(
        stage, run, wanted, "lora_state_dict(unet, text_encoder) with two LoRAs",
        hint="scale is alpha / rank; this function was given.",
    )


# --- tuning ----------------------------------------------------------------------------------------------------------


def batch(module, seed):
    latents, noise = rand(2, 4, 3, 5, seed=seed), rand(2, 4, 3, 5, seed=seed + 1)
    return module.Batch(latents, noise, torch.tensor([600 + seed, 800]), rand(2, 7, 6, seed=seed + 2))


class Guess:
    """A U-Net that returns what it is given, times a number: its error differs from batch to batch."""

    def __call__(self, latents, timesteps, context):
        return 0.3 * latents + context.mean()


@tuning
@pytest.mark.parametrize("weight", ["", ", 0.25", ", prior_weight=0.0"], ids=lambda text: text or "default")
def test_loss_of_new_and_old_pictures(stage, blocks, weight):
    factor = float(weight.replace("prior_weight=", "").removeprefix(", ") or 1.0)
    schedule = blocks[8].NoiseSchedule()

    def error(b):
        noisy = schedule.add_noise(b.latents, b.noise, b.timesteps)
        return F.mse_loss(Guess()(noisy, b.timesteps, b.context), b.noise)  # at these timesteps all weights are 1

    def run(module):
        names = {"schedule": schedule, "unet": Guess(), "new": batch(module, 0), "old": batch(module, 50)}
        return evaluated(f"tuning_loss(unet, schedule, new, old{weight})", names)(module)

    wanted = error(batch(stage, 0)) + factor * error(batch(stage, 50))
    check(
        stage, run, wanted, f"tuning_loss(unet, schedule, new, old{weight})",
        hint="noise_loss of both batches; only that of the old one is weighted.",
    )
