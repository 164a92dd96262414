"""Stage 7 against diffusers' UNet2DConditionModel and its parts."""

import copy
import functools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course.core.config import UNetConfig
from course.feedback import renaming
from course.feedback.compare import check, name_of, rand, results_and_gradients
from course.feedback.divergence import UNET_PARTS
from tests.stages import reference
from tests.stages.blocks import check_block, check_default_dtype, divergence, make_block, text_of, without
from tests.stages.drawing import check_drawing, each_drawing
from tests.stages.in_turn import ALONE, IN_EVAL, WAYS, check_block_in_turn, check_in_turn, each_way
from tests.stages.light import without_compiler
from tests.stages.pretended import check_block_on_gpu, check_call_on_gpu, check_on_gpu, moved, single

with without_compiler():
    from diffusers.models.embeddings import get_timestep_embedding

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
TIMES = torch.tensor([0, 1, 17, 500, 981, 999])


@waves
def test_at_timestep_zero_all_cosines_are_one_and_come_first(stage):
    check(
        stage, "timestep_embedding(t, 6)", torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64),
        "timestep_embedding(torch.tensor([0.0]), 6) in float64", t=torch.zeros(1, dtype=torch.float64),
        hint="first all cosines, then all sines; not by turns.",
    )


@waves
def test_the_first_wave_is_the_fastest(stage):
    t = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    check(
        stage, "timestep_embedding(t, 8)[:, [0, 4]]", torch.stack([t.cos(), t.sin()], dim=1), t=t,
        hint="frequency 0 is 1: cos(t) and sin(t), with t as it is (not t / 1000).",
    )


@waves
def test_the_waves_get_slower_by_the_same_factor(stage):
    check(
        stage, "angles(timestep_embedding(t, 8))", torch.tensor([[1.0, 0.1, 0.01, 0.001]], dtype=torch.float64),
        "the angles in timestep_embedding(torch.tensor([1.0]), 8)", t=torch.tensor([1.0], dtype=torch.float64),
        angles=lambda embedding: torch.atan2(embedding[:, 4:], embedding[:, :4]),
        hint="frequency i is 10000 ** (-i / half) with half = 4: divide by half, not half - 1 or channels.",
    )


@waves
@pytest.mark.parametrize("channels", [2, 6, 64])
def test_timestep_embedding_in_float64(stage, channels):
    check(
        stage, "timestep_embedding(t, channels)", precise_waves(TIMES.double(), channels), t=TIMES.double(),
        channels=channels, hint="float64 timesteps are computed in float64 throughout, the frequencies included.",
    )


@waves
@pytest.mark.parametrize("max_period", [100.0, 1e6])
def test_max_period(stage, max_period):
    check(
        stage, "timestep_embedding(t, 8, max_period)", precise_waves(TIMES.double(), 8, max_period), t=TIMES.double(),
        max_period=max_period, hint="max_period takes the place of 10000.",
    )


@waves
@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.int32, torch.int16, torch.float32, torch.float16, torch.bfloat16], ids=name_of
)
def test_timestep_embedding_in_float32(stage, dtype):
    t = TIMES.to(dtype)
    check(
        stage, "timestep_embedding(t, 64)", their_waves(t.float(), 64), t=t, tolerance=FLOAT32_ANGLES,
        call=f"timestep_embedding(t, 64) with t in {name_of(dtype)}",
        hint="anything but float64 is computed in float32 and returned in float32.",
    )


@waves
def test_published_numbers(stage):
    wanted = torch.tensor([[0.3019, 0.2280, 0.1716], [0.3146, 0.2377, 0.1790], [0.3272, 0.2474, 0.1864]])
    check(
        stage, "timestep_embedding(t, 64)[23:26, 47:50]", wanted, t=torch.arange(128),
        call="timestep_embedding(torch.arange(128), 64)[23:26, 47:50], as published with diffusers",
        tolerance=3e-4,  # four digits were published
    )


@waves
@given(st.integers(1, 40), st.lists(st.integers(0, 999), min_size=1, max_size=5))
def test_any_timesteps(stage, half, timesteps):
    t, call = torch.tensor(timesteps), f"timestep_embedding(torch.tensor({timesteps}), {2 * half})"
    run = "timestep_embedding(t, channels)"
    check(stage, run, precise_waves(t, 2 * half), f"{call} in float64", t=t.double(), channels=2 * half)
    check(stage, run, their_waves(t, 2 * half), call, t=t, channels=2 * half, tolerance=FLOAT32_ANGLES)


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
LEVELS = [(name, level) for name, config in CONFIGS.items() for level in range(len(config.channels))]
ONE_BLOCK = replace(SAME_WIDTHS, blocks_per_level=1, attention=(False, False))
ROUGH = 1e-3  # for tests of the order of things; an eps that is wrong is the matter of a test of its own
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
every_level = pytest.mark.parametrize(
    ("config", "level"), [(CONFIGS[name], level) for name, level in LEVELS],
    ids=[f"{name}, level {level}" for name, level in LEVELS],
)
both_ways = pytest.mark.parametrize(
    "kind", [pytest.param("DownBlock", marks=down), pytest.param("UpBlock", marks=up)]
)


@functools.cache
def theirs(config):
    return reference.unet(config)


def context_of(config, batch=2, seed=12):
    return rand(batch, 5, config.context_channels, seed=seed)


def numbered(skips):
    return {f"skips[{i}]": skip for i, skip in enumerate(skips)}


def inputs_of_level(kind, config, level, batch=2, seed=0, scale=1.0, older=0):
    """What a level is called with, by name; skips in the order in which they were made, the older for other levels."""
    above, width, *deeper = (config.channels[0], *config.channels)[level:]
    below = (deeper or [width])[0]
    used = [above] + [width] * config.blocks_per_level if kind == "UpBlock" else []
    skips = [rand(batch, 3, 4, 6, seed=20 + i) for i in range(older)]
    skips += [rand(batch, channels, 4, 6, seed=seed + 1 + i, scale=scale) for i, channels in enumerate(used)]
    return {
        "x": rand(batch, above if kind == "DownBlock" else below, 4, 6, seed=seed, scale=scale), **numbered(skips),
        "time_embedding": rand(batch, 4 * config.channels[0], seed=11), "context": context_of(config, batch),
    }


@functools.cache
def their_level(kind, config, level, shrink=1.0):
    """Their block, called with all values of inputs_of_level, and the rules from its parameters' names to ours.

    The results by name: the output, and the skips that the block has made, or has left for later levels.
    """
    way, number = ("down", level) if kind == "DownBlock" else ("up", len(config.channels) - 1 - level)
    block = reference.faint(theirs(config).get_submodule(f"{way}_blocks.{number}"), shrink)

    def forward(x, *others):
        *skips, time, context = others
        keywords = {"temb": time} | ({"encoder_hidden_states": context} if config.attention[level] else {})
        if kind == "DownBlock":
            output, skips = block(hidden_states=x, **keywords)
        else:
            left = len(skips) - len(block.resnets)
            output = block(hidden_states=x, res_hidden_states_tuple=tuple(skips[left:]), **keywords)
            skips = skips[:left]
        return {"output": output} | numbered(skips)

    rules = {r"^": f"{way}_blocks.{number}."} | UNET_PARTS | {rf"^{way}\.{number}\.": ""}
    return reference.called(block, forward), rules


def make_level(module, kind, config, level, shrink=1.0, train=False):
    """Our block, called like theirs and with the same kind of result."""
    wanted, rules = their_level(kind, config, level, shrink)
    weights = renaming.our_weights(wanted, rules)
    block = make_block(module, f"{kind}(config, level={level})", weights, {"config": config}).train(train)

    def forward(x, *others):
        *skips, time, context = others
        if kind == "DownBlock":
            output, skips = block(x, time, context)
        else:
            has_older = len(skips) > len(block.residuals)
            output = block(x, skips, time, context)
            skips = skips if has_older else []  # whether the others are taken off is the matter of a test of its own
        return {"output": output} | numbered(skips)

    return reference.called(block, forward)


def side_by_side(block):
    """All results in one tensor."""
    return reference.called(block, lambda *x: torch.cat([part.flatten(1) for part in block(*x).values()], dim=1))


def check_level(stage, kind, config, level, about="", gradients=False, shrink=1.0, x=None, **kwargs):
    wanted, rules = their_level(kind, config, level, shrink)
    given = inputs_of_level(kind, config, level, **x or {})
    values = tuple(given.values())

    def make(module):
        return make_level(module, kind, config, level, shrink)

    def result(block, names=None):
        return results_and_gradients(side_by_side(block), *values, names=names) if gradients else block(*values)

    with torch.set_grad_enabled(gradients):
        check(
            stage, lambda m: result(make(m)), result(wanted, renaming.our_names(wanted, rules)),
            f"{text_of_level(kind, config, level)}{' and its gradients' if gradients else ''}{about and ', ' + about}",
            inputs=given, explain=divergence(make, wanted, rules, *values), **kwargs,
        )


def text_of_level(kind, config, level):
    skips, attention = "skips, " if kind == "UpBlock" else "", "with" if config.attention[level] else "without"
    config = f"channels={config.channels}, blocks_per_level={config.blocks_per_level}, {attention} attention there"
    return f"{kind}(config, level={level})(x, {skips}time_embedding, context) for {config}"


@both_ways
@every_level
def test_level_parameters(stage, kind, config, level):
    wanted, rules = their_level(kind, config, level)
    check(
        stage, lambda m: sorted(make_level(m, kind, config, level).state_dict()),
        sorted(renaming.our_weights(wanted, rules)), f"the parameters of {text_of_level(kind, config, level)}",
    )


@pytest.mark.parametrize(("kind", "config", "level", "x", "hint"), [
    pytest.param(
        "DownBlock", NO_ATTENTION, 2, {}, "with one residual block and nothing else, the output is also the only skip.",
        marks=down, id="the last level down is a chain of residual blocks",
    ),
    pytest.param(
        "DownBlock", NO_ATTENTION, 1, {},
        "the Downsample's result is the output, and a skip as well. It pads on all sides.",
        marks=down, id="a level down ends with a downsample",
    ),
    pytest.param(
        "DownBlock", MIXED, 2, {}, "the skip is taken after the transformer, not between the two.",
        marks=down, id="a transformer follows each residual block",
    ),
    pytest.param(
        "DownBlock", SAME_WIDTHS, 0, {},
        "skips: one per residual block (with its transformer), first block first, and the Downsample's last.",
        marks=down, id="skips come in the order in which they are made",
    ),
    pytest.param(
        "UpBlock", ONE_BLOCK, 0, {},
        "torch.cat([x, skip], dim=1): x first. And the newest skip, the last of the list, is used first.",
        marks=up, id="x comes before its skip",
    ),
    pytest.param(
        "UpBlock", replace(SAME_WIDTHS, attention=(False, False)), 0, {},
        "skips come in the order in which they were made: go through them from the last to the first.",
        marks=up, id="the newest skip is used first",
    ),
    pytest.param(
        "UpBlock", ONE_BLOCK, 0, {"older": 2},
        "take the newest off the end of the list (skips.pop()); the others are for the levels after this one.",
        marks=up, id="used skips are taken off the list",
    ),
    pytest.param(
        "UpBlock", ONE_BLOCK, 1, {}, "Upsample comes after the last residual block, on every level but level 0.",
        marks=up, id="a level up ends with an upsample",
    ),
    pytest.param(
        "UpBlock", MIXED, 2, {}, "each residual block has its own transformer, which is told the context.",
        marks=up, id="a transformer follows each residual block on the way up",
    ),
])
def test_level(stage, kind, config, level, x, hint):
    about = "and two skips more than it takes" if x else ""
    check_level(stage, kind, config, level, about, x=x, hint=hint, tolerance=ROUGH)


@pytest.mark.parametrize(
    ("kind", "level"), [pytest.param("DownBlock", 2, marks=down), pytest.param("UpBlock", 0, marks=up)]
)
def test_level_eps(stage, kind, level):
    check_level(
        stage, kind, NO_ATTENTION, level, "with very small numbers", shrink=0.01, x={"scale": 0.01},
        hint="the residual blocks of the U-Net have eps=1e-5 (EPS), which is not ResidualBlock's default.",
    )


@both_ways
@every_level
def test_every_level(stage, kind, config, level):
    check_level(stage, kind, config, level, x={"batch": 3, "seed": 5}, tolerance=1e-9)


@pytest.mark.parametrize(("kind", "config", "level"), [
    pytest.param("DownBlock", MIXED, 1, marks=down, id="down, attention"),
    pytest.param("DownBlock", NO_ATTENTION, 2, marks=down, id="down, last level"),
    pytest.param("UpBlock", MIXED, 1, marks=up, id="up, attention"),
    pytest.param("UpBlock", NO_ATTENTION, 0, marks=up, id="up, level 0"),
])
def test_level_gradients(stage, kind, config, level):
    check_level(
        stage, kind, config, level, gradients=True, tolerance=1e-9,
        hint="do not detach the skips: they are trained through, too.",
    )


# --- the whole U-Net -------------------------------------------------------------------------------------------------


def inputs_of(config, batch=2, seed=0, height=1, width=2):
    """Latents, timesteps in float64 (so that the waves are exact), context."""
    latents = rand(batch, config.in_channels, height * config.factor, width * config.factor, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    timesteps = torch.randint(0, 1000, (batch,), generator=generator).double()
    return {"latents": latents, "timesteps": timesteps, "context": context_of(config, batch, seed + 1)}


def make_unet(module, config, wanted):
    return make_block(module, "UNet(config)", renaming.our_weights(wanted, UNET_PARTS), {"config": config})


def explain_unet(config, wanted, given):
    def arguments(part, tensors):
        """Our levels always take the context, theirs only where there is attention."""
        kind = type(part).__name__
        if kind == "DownBlock":
            return [*tensors[:2], given["context"]]
        if kind == "UpBlock":
            skips = [tensor for tensor in tensors[1:] if tensor.ndim == 4]
            return [tensors[0], skips, tensors[1 + len(skips)], given["context"]]
        return tensors

    return divergence(lambda m: make_unet(m, config, wanted), wanted, UNET_PARTS, *given.values(), arguments=arguments)


def check_unet(stage, config, given=None, wanted=None, about="", **kwargs):
    given, wanted = given or inputs_of(config), wanted or theirs(config)
    kwargs = {"tolerance": 1e-9, "explain": explain_unet(config, wanted, given), "names": {"config": config}} | kwargs
    about = f"with config={text_of(config)}{about and ', ' + about}"
    with torch.no_grad():
        check_block(stage, "UNet(config)", wanted, UNET_PARTS, about=about, **kwargs, **given)


@whole
@every_config
def test_unet_parameters_and_shape(stage, config):
    given = inputs_of(config)
    check(
        stage, lambda m: tuple(make_unet(m, config, theirs(config))(*given.values()).shape),
        (2, config.out_channels, config.factor, 2 * config.factor),
        f"the shape of UNet({text_of(config)})(latents, timesteps, context)",
        explain=explain_unet(config, theirs(config), given),
        hint="each level up takes as many of the newest skips as it has residual blocks, and then they are gone.",
    )


@whole
def test_unet_of_two_levels(stage):
    check_unet(
        stage, ONE_BLOCK, inputs_of(ONE_BLOCK, batch=1), tolerance=ROUGH,
        hint="conv_in's result is the first skip; mid is between down and up; silu(norm_out(x)) goes into conv_out.",
    )


@whole
def test_every_sample_has_its_own_timestep(stage):
    given = {name: x.expand(3, *x.shape[1:]).clone() for name, x in inputs_of(ONE_BLOCK, batch=1).items()}
    given["timesteps"] = torch.tensor([0.0, 500.0, 999.0], dtype=torch.float64)
    check_unet(
        stage, ONE_BLOCK, given, about="equal latents and timesteps 0, 500, 999", tolerance=ROUGH,
        hint="the time embedding has one row per sample.",
    )


@whole
def test_unet_eps(stage):
    check_unet(
        stage, NO_ATTENTION, wanted=reference.faint(theirs(NO_ATTENTION), 0.01), about="very small numbers",
        hint="norm_out has eps=EPS (1e-5), as have all norms outside of the spatial transformers.",
    )


@whole
@every_config
def test_unet(stage, config):
    check_unet(
        stage, config, inputs_of(config, batch=3, seed=7),
        hint="are the skips used from the last to the first, across levels, too?",
    )


@whole
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32], ids=name_of)
def test_ordinary_timesteps(stage, dtype):
    given = inputs_of(ONE_BLOCK)
    check_unet(
        stage, ONE_BLOCK, given | {"timesteps": given["timesteps"].to(dtype)}, reference.unet(ONE_BLOCK, precise=False),
        about=f"{name_of(dtype)} timesteps", tolerance=FLOAT32_ANGLES, explain=None,
    )


@whole
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name_of)
def test_unet_keeps_the_dtype(stage, dtype):
    latents, timesteps, context = inputs_of(ONE_BLOCK).values()

    def run(module):
        unet = make_unet(module, ONE_BLOCK, theirs(ONE_BLOCK)).to(dtype)
        return unet(latents.to(dtype), timesteps.long(), context.to(dtype))

    check(
        stage, run, theirs(ONE_BLOCK)(latents, timesteps, context).sample.to(dtype),
        f"UNet(config).to({dtype})(latents, timesteps, context) with int64 timesteps",
        tolerance=15 * torch.finfo(dtype).eps,  # weights and results of all layers are rounded: 1 to 3 in all
        hint="the result has the dtype of latents and parameters.",
    )


@whole
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32], ids=name_of)
def test_bfloat16_does_not_round_the_timesteps(stage, dtype):
    """With conv_in at zero, the latents play no part and the times a large one."""
    wanted = without(copy.deepcopy(theirs(ONE_BLOCK)), "conv_in")
    latents, _, context = inputs_of(ONE_BLOCK, batch=4).values()
    timesteps = torch.tensor([999, 997, 995, 301])

    def run(module):
        unet = make_unet(module, ONE_BLOCK, wanted).bfloat16()
        return unet(latents.bfloat16(), timesteps.to(dtype), context.bfloat16())

    check(
        stage, run, wanted(latents, timesteps.double(), context).sample.bfloat16(),
        f"UNet(config).bfloat16()(latents, timesteps, context), timesteps [999, 997, 995, 301] in {name_of(dtype)}",
        tolerance=8 * torch.finfo(torch.bfloat16).eps,  # 1.5 of rounding; timesteps in bfloat16 make 20
        hint="hand the timesteps on as they came: bfloat16 makes 1000 of 999 and 996 of 997.",
    )


@whole
def test_unet_not_contiguous(stage):
    given = inputs_of(ONE_BLOCK)
    given["latents"] = given["latents"].to(memory_format=torch.channels_last)
    given["context"] = given["context"].mT.contiguous().mT
    check_unet(stage, ONE_BLOCK, given, about="permuted views", hint="reshape works where view refuses.")


@whole
def test_unet_gradients(stage):
    latents, timesteps, context = inputs_of(MIXED).values()

    def gradients(unet, names=None):
        timed = reference.called(unet, lambda latents, context: unet(latents, timesteps, context))
        return results_and_gradients(timed, latents, context, names=names)

    check(
        stage, lambda m: gradients(make_unet(m, MIXED, theirs(MIXED))),
        gradients(theirs(MIXED), renaming.our_names(theirs(MIXED), UNET_PARTS)),
        f"UNet({text_of(MIXED)})(latents, timesteps, context) and its gradients", tolerance=1e-9,
        hint="every part is trained: does anything cut the graph (no_grad, detach, .data)?",
    )


@whole
@settings(max_examples=8)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31))
def test_any_size(stage, batch, height, width, seed):
    given = inputs_of(MIXED, batch, seed, height, width)
    check_unet(stage, MIXED, given, about=f"latents of shape {tuple(given['latents'].shape)}")


# --- one call after another ------------------------------------------------------------------------------------------

BRIEF = replace(SAME_WIDTHS, blocks_per_level=1)  # with a transformer on its first level


@waves
def test_timestep_embedding_called_again(stage):
    """First in float32, with a width that no other test asks for, then in float64, with other widths and periods."""
    times = TIMES.double()
    calls = [{"t": times, "channels": n, "max_period": p} for n, p in [(10, 1e4), (10, 1e4), (6, 1e4), (10, 100.0)]]
    calls[1] |= {"t": times.flip(0)[:4]}

    def answer(module):
        module.timestep_embedding(TIMES, 10)
        return module.timestep_embedding

    text = "timestep_embedding(t, channels, max_period) in float64, after timestep_embedding(t, 10) in float32"
    check_in_turn(stage, text, answer, precise_waves, calls)


@both_ways
@pytest.mark.parametrize("way", ["eval", "train"])
def test_level_called_again(stage, kind, way):
    calls = [inputs_of_level(kind, BRIEF, 0, batch, seed) for batch, seed in [(2, 0), (2, 5), (3, 9)]]
    wanted, _ = their_level(kind, BRIEF, 0)
    check_in_turn(
        stage, f"{text_of_level(kind, BRIEF, 0)}, {WAYS[way]}",
        lambda m: make_level(m, kind, BRIEF, 0, train=way == "train"), wanted, [*calls, calls[0]],
        alone=IN_EVAL if way == "train" else ALONE, tolerance=1e-9,
        fresh=lambda m: lambda *values: make_level(m, kind, BRIEF, 0)(*values),
    )


@whole
@each_way
def test_unet_called_again(stage, way):
    calls = [inputs_of(BRIEF, *more) for more in [(2, 0, 2, 2), (2, 5, 2, 2), (2, 3, 1, 1), (3, 9, 2, 1)]]
    wanted = theirs(BRIEF)
    check_block_in_turn(
        stage, "UNet(config)", lambda *values: wanted(*values).sample, renaming.our_weights(wanted, UNET_PARTS), calls,
        way, names={"config": BRIEF}, tolerance=1e-9, roundings=2000,  # angles of float32 timesteps: FLOAT32_ANGLES
    )


# --- by name, and on a GPU ------------------------------------------------------------------------------------------


@waves
def test_waves_by_name(stage):
    call = "timestep_embedding(timesteps=timesteps, channels=8, max_period=100.0)"
    check(stage, call, precise_waves(TIMES.double(), 8, 100.0), timesteps=TIMES.double())


@both_ways
def test_every_argument_of_a_level_by_its_name(stage, kind):
    given = inputs_of_level(kind, MIXED, 1)
    x, *skips, time, context = given.values()
    inputs = {"x": x} | ({"skips": skips} if skips else {}) | {"time_embedding": time, "context": context}
    wanted, rules = their_level(kind, MIXED, 1)

    def run(module):
        weights = renaming.our_weights(wanted, rules)
        block = make_block(module, f"{kind}(config=config, level=1)", weights, {"config": MIXED})
        result = block(**inputs | {"skips": list(skips)} if skips else inputs)
        return result[0] if kind == "DownBlock" else result

    with torch.no_grad():
        check(
            stage, run, wanted(*given.values())["output"], tolerance=1e-9, inputs=given,
            call=f"{kind}(config=config, level=1)({', '.join(f'{name}={name}' for name in inputs)})",
        )


@whole
def test_every_argument_by_its_name(stage):
    with torch.no_grad():
        check_block(
            stage, "UNet(config=config)", theirs(ONE_BLOCK), UNET_PARTS, names={"config": ONE_BLOCK}, by_name=True,
            tolerance=1e-9, **inputs_of(ONE_BLOCK),
        )


@both_ways
def test_default_dtype_of_a_level(stage, kind):
    check_default_dtype(stage, f"{kind}(config, 1)", config=MIXED)


@whole
def test_default_dtype(stage):
    check_default_dtype(stage, "UNet(config)", config=ONE_BLOCK)


@waves
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32], ids=name_of)
def test_waves_on_a_gpu(stage, dtype):
    t = torch.tensor([1, 17, 30])  # small angles: float32 rounds large ones
    check_call_on_gpu(stage, "timestep_embedding(t, 8)", precise_waves(t.double(), 8), t=t.to(dtype))


@both_ways
def test_a_level_on_a_gpu(stage, kind):
    given = inputs_of_level(kind, MIXED, 1)
    wanted, _ = their_level(kind, MIXED, 1)

    def run(module):
        block = moved(make_level(module, kind, MIXED, 1))
        return block(*map(moved, given.values()))["output"]

    check_on_gpu(stage, run, single(wanted(*given.values())["output"].detach()), text_of_level(kind, MIXED, 1))


@whole
def test_on_a_gpu(stage):
    given = inputs_of(ONE_BLOCK) | {"timesteps": torch.tensor([1, 30])}
    check_block_on_gpu(stage, "UNet(config)", theirs(ONE_BLOCK), UNET_PARTS, {"config": ONE_BLOCK}, **given)


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("7.1", "7.2", "7.3", "7.4")
@each_drawing("text to image", "image to image", "into a mask")
def test_what_make_generate_draws(stage, checkpoint_folder, drawing):
    check_drawing(stage, drawing, checkpoint_folder)
