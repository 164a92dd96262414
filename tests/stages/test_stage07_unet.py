"""Stage 7 against diffusers' UNet2DConditionModel and its parts."""

import functools
import math
import re
from dataclasses import replace

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course.core.config import UNetConfig
from course.feedback import renaming
from course.feedback.compare import check, give_weights, rand, results_and_gradients
from course.feedback.divergence import UNET_PARTS, first_divergence
from tests.stages import reference

waves = pytest.mark.exercise("7.1")
down = pytest.mark.exercise("7.2")
up = pytest.mark.exercise("7.3")
whole = pytest.mark.exercise("7.4")

# --- the timestep ----------------------------------------------------------------------------------------------------


def precise_waves(timesteps, channels, max_period=10000.0):
    """Number by number, in float64."""
    half = channels // 2
    rows = []
    for t in timesteps.tolist():
        angles = [t / max_period ** (i / half) for i in range(half)]
        rows.append([*map(math.cos, angles), *map(math.sin, angles)])
    return torch.tensor(rows, dtype=torch.float64)


def their_waves(timesteps, channels):
    return get_timestep_embedding(timesteps, channels, flip_sin_to_cos=True, downscale_freq_shift=0)


FLOAT32_ANGLES = 2e-4  # an angle of 999 is rounded by up to 3e-5, and so is each frequency, relatively by 1e-7


@waves
def test_at_timestep_zero_all_cosines_are_one_and_come_first(stage):
    wanted = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    check(
        stage, lambda m: m.timestep_embedding(torch.zeros(1, dtype=torch.float64), 6), wanted,
        "timestep_embedding(torch.tensor([0.0]), 6) in float64",
        hint="first all cosines, then all sines; not by turns.",
    )


@waves
def test_the_first_wave_is_the_fastest(stage):
    t = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    wanted = torch.stack([t.cos(), t.sin()], dim=1)
    check(
        stage, lambda m: m.timestep_embedding(t, 8)[:, [0, 4]], wanted, "timestep_embedding(t, 8)[:, [0, 4]]",
        hint="frequency 0 is 1: cos(t) and sin(t), with t as it is (not t / 1000).",
    )


@waves
def test_the_waves_get_slower_by_the_same_factor(stage):
    t = torch.tensor([1.0], dtype=torch.float64)

    def run(module):
        embedding = module.timestep_embedding(t, 8)
        return torch.atan2(embedding[:, 4:], embedding[:, :4])

    check(
        stage, run, torch.tensor([[1.0, 0.1, 0.01, 0.001]], dtype=torch.float64),
        "the angles in timestep_embedding(torch.tensor([1.0]), 8)",
        hint="frequency i is 10000 ** (-i / half) with half = 4: divide by half, not half - 1 or channels.",
    )


@waves
@pytest.mark.parametrize("channels", [2, 6, 64])
def test_timestep_embedding_in_float64(stage, channels):
    t = torch.tensor([0, 1, 17, 500, 981, 999], dtype=torch.float64)
    check(
        stage, lambda m: m.timestep_embedding(t, channels), precise_waves(t, channels),
        f"timestep_embedding(t, {channels}) with t in float64", inputs={"t": t},
        hint="float64 timesteps are computed in float64 throughout, the frequencies included.",
    )


@waves
@pytest.mark.parametrize("max_period", [100.0, 1e6])
def test_max_period(stage, max_period):
    t = torch.tensor([0, 1, 17, 999], dtype=torch.float64)
    check(
        stage, lambda m: m.timestep_embedding(t, 8, max_period), precise_waves(t, 8, max_period),
        f"timestep_embedding(t, 8, max_period={max_period:g})", hint="max_period takes the place of 10000.",
    )


@waves
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32, torch.float16], ids=str)
def test_timestep_embedding_in_float32(stage, dtype):
    t = torch.tensor([0, 1, 17, 500, 981, 999])
    check(
        stage, lambda m: m.timestep_embedding(t.to(dtype), 64), their_waves(t, 64),
        f"timestep_embedding(t, 64) with t in {dtype}", tolerance=FLOAT32_ANGLES, inputs={"t": t},
        hint="anything but float64 is computed in float32 and returned in float32.",
    )


@waves
def test_published_numbers(stage):
    wanted = torch.tensor([[0.3019, 0.2280, 0.1716], [0.3146, 0.2377, 0.1790], [0.3272, 0.2474, 0.1864]])
    check(
        stage, lambda m: m.timestep_embedding(torch.arange(128), 64)[23:26, 47:50], wanted,
        "timestep_embedding(torch.arange(128), 64)[23:26, 47:50], as published with diffusers",
        tolerance=3e-4,  # four digits were published
    )


@waves
@given(st.integers(1, 40), st.lists(st.integers(0, 999), min_size=1, max_size=5))
def test_any_timesteps(stage, half, timesteps):
    t = torch.tensor(timesteps)
    check(
        stage, lambda m: m.timestep_embedding(t.double(), 2 * half), precise_waves(t, 2 * half),
        f"timestep_embedding(torch.tensor({timesteps}), {2 * half}) in float64",
    )
    check(
        stage, lambda m: m.timestep_embedding(t, 2 * half), their_waves(t, 2 * half),
        f"timestep_embedding(torch.tensor({timesteps}), {2 * half})", tolerance=FLOAT32_ANGLES,
    )


# --- levels of the U-Net ---------------------------------------------------------------------------------------------

SMALL = reference.SMALL_UNET
NO_ATTENTION = UNetConfig(
    in_channels=3, out_channels=3, channels=(4, 6, 8), attention=(False, False, False), blocks_per_level=1, num_heads=2,
    context_channels=10, num_groups=2,
)
MIXED = UNetConfig(
    in_channels=4, out_channels=5, channels=(8, 12, 16), attention=(False, True, True), blocks_per_level=1, num_heads=2,
    context_channels=10, num_groups=4,
)
SAME_WIDTHS = UNetConfig(
    in_channels=4, out_channels=4, channels=(8, 8), attention=(True, False), blocks_per_level=3, num_heads=4,
    context_channels=6, num_groups=2,
)
CONFIGS = {"small": SMALL, "no attention": NO_ATTENTION, "mixed": MIXED, "same widths": SAME_WIDTHS}
LEVELS = [(config, level) for config in CONFIGS.values() for level in range(len(config.channels))]
LEVEL_IDS = [f"{name}, level {level}" for name, config in CONFIGS.items() for level in range(len(config.channels))]
ROUGH = 1e-3  # for tests of the order of things; an eps that is wrong is the matter of a test of its own
every_level = pytest.mark.parametrize(("config", "level"), LEVELS, ids=LEVEL_IDS)
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


@functools.cache
def theirs(config):
    return reference.unet(config)


@functools.cache
def weights_of(config):
    return reference.our_weights(theirs(config), renaming.UNET)


def part_weights(config, part):
    """The weights of one part, such as "down.1"."""
    names = (name for name in weights_of(config) if name.startswith(f"{part}."))
    return {name.removeprefix(f"{part}."): weights_of(config)[name] for name in names}


def down_name(level):
    return f"down.{level}"


def up_name(config, level):
    """The levels on the way up are counted from the deepest."""
    return f"up.{len(config.channels) - 1 - level}"


def their_part(config, part):
    """(their block, what its parameters' names begin with)"""
    name = part.replace(".", "_blocks.")
    return theirs(config).get_submodule(name), f"{name}."


def make_level(module, kind, config, level, weights=None):
    part = down_name(level) if kind == "DownBlock" else up_name(config, level)
    weights = part_weights(config, part) if weights is None else weights
    return give_weights(getattr(module, kind)(config, level), weights, f"{kind}(config, level={level})")


def shapes(values):
    return {name: tuple(tensor.shape) for name, tensor in values.items()}


def text_of(config):
    fields = f"channels={config.channels}, attention={config.attention}, blocks_per_level={config.blocks_per_level}"
    return f"UNetConfig({fields})"


def level_text(kind, config, level):
    attention = "with" if config.attention[level] else "without"
    return f"{kind}(config, level={level}) for channels={config.channels}, {attention} attention there"


def time_of(config, batch=2, seed=11):
    return rand(batch, 4 * config.channels[0], seed=seed)


def context_of(config, batch=2, seed=12):
    return rand(batch, 5, config.context_channels, seed=seed)


def their_keywords(config, level, time, context):
    return {"temb": time} | ({"encoder_hidden_states": context} if config.attention[level] else {})


class Flat(nn.Module):
    """A block whose tensors, in and out, are all laid side by side, so that results_and_gradients takes it."""

    def __init__(self, block, call):
        super().__init__()
        self.block = block
        self.call = call

    def forward(self, *inputs):
        outputs = self.call(self.block, *inputs)
        return torch.cat([x.flatten(1) for x in all_tensors(outputs)], dim=1)


def all_tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for element in value for tensor in all_tensors(element)]


def flat_names(config, part):
    block, prefix = their_part(config, part)
    return {
        f"block.{name}": f"block.{renaming.our_name(prefix + name, renaming.UNET).removeprefix(f'{part}.')}"
        for name, _ in block.named_parameters()
    }


# --- down ------------------------------------------------------------------------------------------------------------


def input_of_down(config, level, batch=2, seed=0, **kwargs):
    return rand(batch, config.channels[max(level - 1, 0)], 4, 6, seed=seed, **kwargs)


def their_down(config, level, x, time, context, block=None):
    block = block or their_part(config, down_name(level))[0]
    output, skips = block(hidden_states=x, **their_keywords(config, level, time, context))
    return output, list(skips)


def run_down(config, level, x, time, context, weights=None):
    def run(module):
        return named_down(*make_level(module, "DownBlock", config, level, weights)(x, time, context))

    return run


def named_down(output, skips):
    return {"output": output} | skip_names(skips)


def explain_level(kind, config, level, run_theirs, *inputs):
    part = down_name(level) if kind == "DownBlock" else up_name(config, level)
    block, prefix = their_part(config, part)
    rules = {r"^": prefix} | UNET_PARTS | {rf"^{re.escape(part)}\.": ""}

    def explain(module):
        ours = make_level(module, kind, config, level)
        return first_divergence(block, run_theirs, ours, lambda: ours(*inputs), rules)

    return explain


def check_down(stage, config, level, call, hint="", x=None, **kwargs):
    x = input_of_down(config, level) if x is None else x
    time, context = time_of(config, len(x)), context_of(config, len(x))

    def run_theirs():
        return their_down(config, level, x, time, context)

    with torch.no_grad():
        check(
            stage, run_down(config, level, x, time, context), named_down(*run_theirs()), call, hint=hint,
            inputs={"x": x, "time_embedding": time, "context": context},
            explain=explain_level("DownBlock", config, level, run_theirs, x, time, context), **kwargs,
        )


@down
@every_level
def test_down_parameters(stage, config, level):
    check(
        stage, lambda m: shapes(dict(make_level(m, "DownBlock", config, level).named_parameters())),
        shapes(part_weights(config, down_name(level))), f"the parameters of {level_text('DownBlock', config, level)}",
    )


@down
def test_the_last_level_down_is_a_chain_of_residual_blocks(stage):
    check_down(
        stage, NO_ATTENTION, 2, "DownBlock(config, level=2)(x, time_embedding, context), the last level",
        hint="with one residual block and nothing else, the output is also the only skip.", tolerance=ROUGH,
    )


@down
def test_a_level_down_ends_with_a_downsample(stage):
    check_down(
        stage, NO_ATTENTION, 1, "DownBlock(config, level=1)(x, time_embedding, context) of three levels",
        hint="the Downsample's result is the output, and a skip as well. It pads on all sides.", tolerance=ROUGH,
    )


@down
def test_a_transformer_follows_each_residual_block(stage):
    check_down(
        stage, MIXED, 2, "DownBlock(config, level=2)(x, time_embedding, context) with attention",
        hint="the skip is taken after the transformer, not between the two.", tolerance=ROUGH,
    )


@down
def test_skips_come_in_the_order_in_which_they_are_made(stage):
    check_down(
        stage, SAME_WIDTHS, 0, "DownBlock(config, level=0)(x, time_embedding, context) with three residual blocks",
        hint="first block first, Downsample last.", tolerance=ROUGH,
    )


@down
@pytest.mark.parametrize(
    ("config", "level", "wanted"), [(SMALL, 0, 3), (SMALL, 3, 2), (SAME_WIDTHS, 0, 4), (SAME_WIDTHS, 1, 3)],
    ids=["2 blocks", "2 blocks, last level", "3 blocks", "3 blocks, last level"],
)
def test_number_of_skips(stage, config, level, wanted):
    x, time, context = input_of_down(config, level), time_of(config), context_of(config)
    check(
        stage, lambda m: len(make_level(m, "DownBlock", config, level)(x, time, context)[1]), wanted,
        f"the number of skips of {level_text('DownBlock', config, level)}",
        hint="one per residual block (with its transformer), and one for the Downsample.",
    )


@down
def test_down_eps(stage):
    weights = faint(part_weights(NO_ATTENTION, "down.2"))
    x, time, context = input_of_down(NO_ATTENTION, 2, scale=0.01), time_of(NO_ATTENTION), context_of(NO_ATTENTION)
    block = with_weights(NO_ATTENTION, "down.2", weights)
    with torch.no_grad():
        check(
            stage, run_down(NO_ATTENTION, 2, x, time, context, weights),
            named_down(*their_down(NO_ATTENTION, 2, x, time, context, block)),
            "DownBlock(config, level=2)(x, time_embedding, context) with very small numbers",
            hint="the residual blocks of the U-Net have eps=1e-5 (EPS), which is not ResidualBlock's default.",
        )


@down
@every_level
def test_down(stage, config, level):
    check_down(
        stage, config, level, f"{level_text('DownBlock', config, level)}, called with (x, time_embedding, context)",
        x=input_of_down(config, level, batch=3, seed=1), tolerance=1e-9,
    )


@down
@pytest.mark.parametrize(("config", "level"), [(MIXED, 1), (NO_ATTENTION, 2)], ids=["attention", "last level"])
def test_down_gradients(stage, config, level):
    inputs = [input_of_down(config, level), time_of(config)] + [context_of(config)] * config.attention[level]
    context = context_of(config)

    def run(module):
        block = Flat(make_level(module, "DownBlock", config, level), lambda b, x, t, c=context: b(x, t, c))
        return results_and_gradients(block, *inputs)

    block, _ = their_part(config, down_name(level))
    wanted = Flat(block, lambda b, x, t, c=context: their_down(config, level, x, t, c, b))
    check(
        stage, run, results_and_gradients(wanted, *inputs, names=flat_names(config, down_name(level))),
        f"{level_text('DownBlock', config, level)}: output and skips side by side, and their gradients", tolerance=1e-9,
        hint="do not detach the skips: they are trained through, too.",
    )


def faint(weights):
    """The same weights, but for convolutions that shrink everything, so that eps is not small beside the variance."""
    shrinking = ("conv", "shortcut", "time_proj")
    return {
        name: tensor * 0.01 if any(word in name for word in shrinking) else tensor for name, tensor in weights.items()
    }


def with_weights(config, part, weights):
    """Their block with other weights, given under our names."""
    name = part.replace(".", "_blocks.")
    block = reference.unet(config).get_submodule(name)
    own = {theirs: ours.removeprefix("block.") for theirs, ours in flat_names(config, part).items()}
    block.load_state_dict({name.removeprefix("block."): weights[ours] for name, ours in own.items()})
    return block


# --- up --------------------------------------------------------------------------------------------------------------


def inputs_of_up(config, level, batch=2, seed=0, **kwargs):
    """x, and the skips in the order in which they were made."""
    widths = config.channels
    x = rand(batch, widths[min(level + 1, len(widths) - 1)], 4, 6, seed=seed, **kwargs)
    used = [widths[level]] * config.blocks_per_level + [widths[max(level - 1, 0)]]
    skips = [rand(batch, width, 4, 6, seed=seed + 1 + i, **kwargs) for i, width in enumerate(reversed(used))]
    return x, skips


def their_up(config, level, x, skips, time, context, block=None):
    block = block or their_part(config, up_name(config, level))[0]
    return block(hidden_states=x, res_hidden_states_tuple=tuple(skips), **their_keywords(config, level, time, context))


def skip_names(skips):
    return {f"skips[{i}]": skip for i, skip in enumerate(skips)}


def check_up(stage, config, level, call, hint="", seed=0, batch=2, **kwargs):
    x, skips = inputs_of_up(config, level, batch=batch, seed=seed)
    time, context = time_of(config, batch), context_of(config, batch)

    def run(module):
        return make_level(module, "UpBlock", config, level)(x, list(skips), time, context)

    def run_theirs():
        return their_up(config, level, x, skips, time, context)

    def explain(module):
        return explain_level("UpBlock", config, level, run_theirs, x, list(skips), time, context)(module)

    with torch.no_grad():
        check(
            stage, run, run_theirs(), call, hint=hint, explain=explain,
            inputs={"x": x, "time_embedding": time, "context": context, **skip_names(skips)}, **kwargs,
        )


@up
@every_level
def test_up_parameters(stage, config, level):
    check(
        stage, lambda m: shapes(dict(make_level(m, "UpBlock", config, level).named_parameters())),
        shapes(part_weights(config, up_name(config, level))),
        f"the parameters of {level_text('UpBlock', config, level)}",
    )


ONE_BLOCK = replace(SAME_WIDTHS, blocks_per_level=1, attention=(False, False))


@up
def test_x_comes_before_its_skip(stage):
    check_up(
        stage, ONE_BLOCK, 0, "UpBlock(config, level=0)(x, skips, time_embedding, context) without attention",
        hint="torch.cat([x, skip], dim=1): x first. And the newest skip, the last of the list, is used first.",
        tolerance=ROUGH,
    )


@up
def test_the_newest_skip_is_used_first(stage):
    check_up(
        stage, replace(SAME_WIDTHS, attention=(False, False)), 0,
        "UpBlock(config, level=0)(x, skips, time_embedding, context) with four equally wide skips",
        hint="skips come in the order in which they were made: go through them from the last to the first.",
        tolerance=ROUGH,
    )


@up
def test_used_skips_are_taken_off_the_list(stage):
    x, skips = inputs_of_up(ONE_BLOCK, 0)
    older = [rand(2, 3, 4, 6, seed=20), rand(2, 3, 4, 6, seed=21)]
    time, context = time_of(ONE_BLOCK), context_of(ONE_BLOCK)

    def run(module):
        left = [*older, *skips]
        output = make_level(module, "UpBlock", ONE_BLOCK, 0)(x, left, time, context)
        return {"output": output, "skips left": len(left)} | skip_names(left)

    with torch.no_grad():
        wanted = {"output": their_up(ONE_BLOCK, 0, x, skips, time, context), "skips left": 2} | skip_names(older)
        check(
            stage, run, wanted, "UpBlock(config, level=0)(x, skips, time_embedding, context) with two skips too many",
            hint="take the newest off the end of the list (skips.pop()); the others are for the levels after this one.",
            tolerance=ROUGH,
        )


@up
def test_a_level_up_ends_with_an_upsample(stage):
    check_up(
        stage, ONE_BLOCK, 1, "UpBlock(config, level=1)(x, skips, time_embedding, context), the deepest level",
        hint="Upsample comes after the last residual block, on every level but level 0.", tolerance=ROUGH,
    )


@up
def test_a_transformer_follows_each_residual_block_on_the_way_up(stage):
    check_up(
        stage, MIXED, 2, "UpBlock(config, level=2)(x, skips, time_embedding, context) with attention",
        hint="each residual block has its own transformer, which is told the context.", tolerance=ROUGH,
    )


@up
def test_up_eps(stage):
    part = up_name(NO_ATTENTION, 0)
    weights = faint(part_weights(NO_ATTENTION, part))
    x, skips = inputs_of_up(NO_ATTENTION, 0, scale=0.01)
    time, context = time_of(NO_ATTENTION), context_of(NO_ATTENTION)
    block = with_weights(NO_ATTENTION, part, weights)
    with torch.no_grad():
        check(
            stage, lambda m: make_level(m, "UpBlock", NO_ATTENTION, 0, weights)(x, list(skips), time, context),
            their_up(NO_ATTENTION, 0, x, skips, time, context, block),
            "UpBlock(config, level=0)(x, skips, time_embedding, context) with very small numbers",
            hint="the residual blocks of the U-Net have eps=1e-5 (EPS), which is not ResidualBlock's default.",
        )


@up
@every_level
def test_up(stage, config, level):
    check_up(
        stage, config, level,
        f"{level_text('UpBlock', config, level)}, called with (x, skips, time_embedding, context)", seed=5, batch=3,
        tolerance=1e-9,
    )


@up
@pytest.mark.parametrize(("config", "level"), [(MIXED, 1), (NO_ATTENTION, 0)], ids=["attention", "level 0"])
def test_up_gradients(stage, config, level):
    x, skips = inputs_of_up(config, level)
    count, context = len(skips), context_of(config)
    inputs = [x, *skips, time_of(config)] + [context] * config.attention[level]

    def run(module):
        def call(block, x, *others):
            time, c = others[count], others[count + 1] if len(others) > count + 1 else context
            return block(x, list(others[:count]), time, c)

        return results_and_gradients(Flat(make_level(module, "UpBlock", config, level), call), *inputs)

    def their_call(block, x, *others):
        return their_up(config, level, x, others[:count], others[count], others[-1], block)

    part = up_name(config, level)
    wanted = Flat(their_part(config, part)[0], their_call)
    check(
        stage, run, results_and_gradients(wanted, *inputs, names=flat_names(config, part)),
        f"{level_text('UpBlock', config, level)} and its gradients", tolerance=1e-9,
        hint="do not detach the skips: they are trained through, too.",
    )


# --- the whole U-Net -------------------------------------------------------------------------------------------------


def make_unet(module, config, weights=None):
    return give_weights(module.UNet(config), weights or weights_of(config), "UNet(config)")


def inputs_of(config, batch=2, seed=0, height=1, width=2, **kwargs):
    """Latents, timesteps in float64 (so that the waves are exact), context."""
    latents = rand(batch, config.in_channels, height * config.factor, width * config.factor, seed=seed, **kwargs)
    generator = torch.Generator().manual_seed(seed)
    timesteps = torch.randint(0, 1000, (batch,), generator=generator).double()
    return latents, timesteps, context_of(config, batch, seed + 1)


def their_unet(config, latents, timesteps, context):
    return theirs(config)(latents, timesteps, context).sample


def explain_unet(config, inputs):
    latents, timesteps, context = inputs

    def arguments(part, given):
        """Our levels always take the context, theirs only where there is attention."""
        kind = type(part).__name__
        if kind == "DownBlock":
            return [given[0], given[1], context]
        if kind == "UpBlock":
            skips = [tensor for tensor in given[1:] if tensor.ndim == 4]
            return [given[0], skips, given[1 + len(skips)], context]
        return given

    def explain(module):
        ours = make_unet(module, config)
        return first_divergence(
            theirs(config), lambda: their_unet(config, *inputs), ours, lambda: ours(*inputs), UNET_PARTS, arguments
        )

    return explain


def check_unet(stage, config, inputs, call, **kwargs):
    with torch.no_grad():
        check(
            stage, lambda m: make_unet(m, config)(*inputs), their_unet(config, *inputs), call,
            inputs=dict(zip(("latents", "timesteps", "context"), inputs)), explain=explain_unet(config, inputs),
            **{"tolerance": 1e-9} | kwargs,
        )


@whole
@every_config
def test_unet_parameters(stage, config):
    check(
        stage, lambda m: shapes(dict(make_unet(m, config).named_parameters())), shapes(weights_of(config)),
        f"the parameters of UNet({text_of(config)})",
    )


@whole
@every_config
def test_unet_shape(stage, config):
    inputs = inputs_of(config)
    wanted = (2, config.out_channels, config.factor, 2 * config.factor)
    check(
        stage, lambda m: tuple(make_unet(m, config)(*inputs).shape), wanted,
        f"the shape of UNet({text_of(config)})(latents, timesteps, context)",
        explain=explain_unet(config, inputs),
        hint="each level up takes as many of the newest skips as it has residual blocks, and then they are gone.",
    )


@whole
def test_unet_of_two_levels(stage):
    check_unet(
        stage, ONE_BLOCK, inputs_of(ONE_BLOCK, batch=1),
        "UNet(config)(latents, timesteps, context) with two small levels",
        hint="conv_in's result is the first skip; mid is between down and up; silu(norm_out(x)) goes into conv_out.",
        tolerance=ROUGH,
    )


@whole
def test_every_sample_has_its_own_timestep(stage):
    latents, _, context = inputs_of(ONE_BLOCK, batch=1)
    inputs = latents.expand(3, -1, -1, -1), torch.tensor([0.0, 500.0, 999.0]).double(), context.expand(3, -1, -1)
    check_unet(
        stage, ONE_BLOCK, inputs,
        "UNet(config)(latents, timesteps, context) with equal latents and timesteps 0, 500, 999",
        hint="the time embedding has one row per sample.", tolerance=ROUGH,
    )


@whole
def test_unet_eps(stage):
    weights = faint(weights_of(NO_ATTENTION))
    inputs = inputs_of(NO_ATTENTION)
    model = reference.unet(NO_ATTENTION)
    model.load_state_dict({
        name: weights[own] for name, own in reference.our_names(model, renaming.UNET).items()
    })
    with torch.no_grad():
        check(
            stage, lambda m: make_unet(m, NO_ATTENTION, weights)(*inputs), model(*inputs).sample,
            "UNet(config)(latents, timesteps, context) with very small numbers", tolerance=1e-9,
            hint="norm_out has eps=EPS (1e-5), as have all norms outside of the spatial transformers.",
        )


@whole
@every_config
def test_unet(stage, config):
    check_unet(
        stage, config, inputs_of(config, batch=3, seed=7), f"UNet({text_of(config)})(latents, timesteps, context)",
        hint="are the skips used from the last to the first, across levels, too?",
    )


@whole
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32], ids=str)
def test_ordinary_timesteps(stage, dtype):
    latents, timesteps, context = inputs_of(ONE_BLOCK)
    model = reference.unet(ONE_BLOCK, precise=False)
    with torch.no_grad():
        check(
            stage, lambda m: make_unet(m, ONE_BLOCK)(latents, timesteps.to(dtype), context),
            model(latents, timesteps.to(dtype), context).sample,
            f"UNet(config)(latents, timesteps, context) with {dtype} timesteps",
            tolerance=FLOAT32_ANGLES,
        )


@whole
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_unet_keeps_the_dtype(stage, dtype):
    latents, timesteps, context = inputs_of(ONE_BLOCK)
    with torch.no_grad():
        check(
            stage,
            lambda m: make_unet(m, ONE_BLOCK).to(dtype)(latents.to(dtype), timesteps.long(), context.to(dtype)),
            their_unet(ONE_BLOCK, latents, timesteps, context).to(dtype),
            f"UNet(config).to({dtype})(latents, timesteps, context) with int64 timesteps",
            tolerance=15 * torch.finfo(dtype).eps,  # weights and results of all layers are rounded: 1 to 3 in all
            hint="the result has the dtype of latents and parameters.",
        )


@whole
def test_unet_not_contiguous(stage):
    latents, timesteps, context = inputs_of(ONE_BLOCK)
    inputs = (
        latents.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), timesteps,
        context.transpose(1, 2).contiguous().transpose(1, 2),
    )
    check_unet(
        stage, ONE_BLOCK, inputs, "UNet(config)(latents, timesteps, context) with permuted views",
        hint="reshape works where view refuses.",
    )


class Untimed(nn.Module):
    """Keeps the timesteps out of the gradients."""

    def __init__(self, model, timesteps):
        super().__init__()
        self.model = model
        self.timesteps = timesteps

    def forward(self, latents, context):
        output = self.model(latents, self.timesteps, context)
        return getattr(output, "sample", output)


@whole
def test_unet_gradients(stage):
    config = MIXED
    latents, timesteps, context = inputs_of(config)
    own_names = reference.our_names(theirs(config), renaming.UNET)
    names = {f"model.{name}": f"model.{own}" for name, own in own_names.items()}
    check(
        stage, lambda m: results_and_gradients(Untimed(make_unet(m, config), timesteps), latents, context),
        results_and_gradients(Untimed(theirs(config), timesteps), latents, context, names=names),
        f"UNet({text_of(config)})(latents, timesteps, context) and its gradients", tolerance=1e-9,
        hint="every part is trained: does anything cut the graph (no_grad, detach, .data)?",
    )


@whole
@settings(max_examples=8)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31))
def test_any_size(stage, batch, height, width, seed):
    inputs = inputs_of(MIXED, batch, seed, height, width)
    check_unet(
        stage, MIXED, inputs,
        f"UNet({text_of(MIXED)})(latents, timesteps, context) with latents of shape {tuple(inputs[0].shape)}",
    )
