"""Stage 13 against diffusers' AnimateDiffTransformer3D, UNetMotionModel and AnimateDiffPipeline."""

import dataclasses
import functools
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course.core.config import UNetConfig
from course.feedback import renaming
from course.feedback.compare import check, give_weights, rand, randomised, results_and_gradients
from course.feedback.renaming import our_names, our_weights
from tests.stages import reference
from tests.stages.blocks import check_block, divergence, make_block
from tests.stages.light import without_compiler
from tests.stages.small_model import NEGATIVE_PROMPTS, PROMPTS, TINY
from tests.stages.small_pipeline import our_parts, parts, scheduler, tokenizer, unit_range

with without_compiler():
    from diffusers import AnimateDiffPipeline, MotionAdapter

positions = pytest.mark.exercise("13.1")
block = pytest.mark.exercise("13.1", "13.2")
motion_module = pytest.mark.exercise("13.3")
unet = pytest.mark.exercise("13.4")
film = pytest.mark.exercise("13.5")
reading = pytest.mark.exercise("13.6")

SMALL = UNetConfig(
    channels=(8, 12), attention=(True, False), blocks_per_level=1, num_heads=2, context_channels=10, num_groups=4
)
DEEP = UNetConfig(
    channels=(8, 16, 16), attention=(False, True, True), blocks_per_level=2, num_heads=4, context_channels=12,
    num_groups=2,
)


# --- which frame it is -----------------------------------------------------------------------------------------------


def precise_positions(num_frames, channels, max_period=10000.0):
    """Number by number, in float64."""
    return torch.tensor([
        [wave(n / max_period ** (2 * i / channels)) for i in range(channels // 2) for wave in (math.sin, math.cos)]
        for n in range(num_frames)
    ], dtype=torch.float64)


@positions
def test_frame_zero_has_zeros_and_ones_by_turns(stage):
    check(
        stage, "frame_positions(1, 6)", torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0, 1.0]], dtype=torch.float64),
        hint="sine and cosine of each frequency are neighbours, the sine first.",
    )


@positions
def test_the_first_wave_turns_by_one_radian_a_frame(stage):
    n = torch.arange(4, dtype=torch.float64)
    check(
        stage, "frame_positions(4, 8)[:, :2]", torch.stack([n.sin(), n.cos()], dim=1),
        hint="frequency 0 is 1: sin(n) and cos(n), with frame numbers that begin with 0.",
    )


@positions
def test_the_frequencies_fall_by_the_same_factor(stage):
    check(
        stage, "angles(frame_positions(2, 8)[1])", torch.tensor([1.0, 0.1, 0.01, 0.001], dtype=torch.float64),
        "the angles in frame_positions(2, 8)[1]", angles=lambda row: torch.atan2(row[0::2], row[1::2]),
        hint="frequency i is 10000 ** (-2 * i / channels), i = 0 ... channels / 2 - 1.",
    )


@positions
@pytest.mark.parametrize(("num_frames", "channels", "max_period"), [(5, 2, 10000.0), (32, 64, 10000.0), (7, 6, 100.0)])
def test_frame_positions(stage, num_frames, channels, max_period):
    check(
        stage, "frame_positions(num_frames, channels, max_period)", precise_positions(num_frames, channels, max_period),
        num_frames=num_frames, channels=channels, max_period=max_period,
        hint="a row for each frame, in float64 throughout.",
    )


# --- the block -------------------------------------------------------------------------------------------------------


def check_motion_block(stage, channels=12, heads=3, theirs=None, **options):
    theirs = theirs or reference.motion_block(channels, heads)
    check_block(stage, f"MotionBlock({channels}, {heads})", theirs, renaming.MOTION_BLOCK, **options)


@block
def test_parameters_of_the_block(stage):
    wanted = our_weights(reference.motion_block(12, 3), renaming.MOTION_BLOCK)

    def run(module):
        return {name: tuple(p.shape) for name, p in make_block(module, "MotionBlock(12, 3)", wanted).named_parameters()}

    shapes = {name: tuple(weight.shape) for name, weight in wanted.items()}
    check(stage, run, shapes, "the parameters of MotionBlock(12, 3)")


@block
@pytest.mark.parametrize("part", ["attn1", "attn2", "ff"])
def test_one_part_of_the_block_alone(stage, part):
    theirs = reference.motion_block(12, 3)
    with torch.no_grad():
        for other in {"attn1", "attn2", "ff"} - {part}:
            last = theirs.get_submodule(f"{other}.net.2" if other == "ff" else f"{other}.to_out.0")
            last.weight.zero_()
            last.bias.zero_()
    own = {"attn1": "attention1", "attn2": "attention2", "ff": "feed_forward"}[part]
    check_motion_block(
        stage, theirs=theirs, x=rand(3, 5, 12), about=f"in which only {own} gives anything",
        hint="x plus the part's result; both attentions get norm(x) + positions, the feed-forward network norm3(x).",
    )


@block
def test_a_film_run_backwards_is_not_the_same(stage):
    """Attention alone would give the same frames in another order."""
    theirs = reference.motion_block(12, 3)
    x = rand(2, 6, 12)
    check_motion_block(
        stage, theirs=theirs, x=x.flip(1), about="with the frames in reverse order",
        hint="the positions are those of the places in the film: add them before both attentions.",
    )


@block
@pytest.mark.parametrize(("channels", "heads", "frames"), [(12, 3, 5), (8, 1, 1), (16, 8, 32)])
def test_block(stage, channels, heads, frames):
    check_motion_block(stage, channels, heads, x=rand(2, frames, channels, seed=frames))


@block
def test_block_with_other_lengths_one_after_the_other(stage):
    theirs = reference.motion_block(8, 2)
    films = [rand(2, frames, 8, seed=frames) for frames in (7, 3, 11)]

    def run(module):
        ours = make_block(module, "MotionBlock(8, 2)", our_weights(theirs, renaming.MOTION_BLOCK))
        return [ours(film) for film in films]

    check(
        stage, run, [theirs(film).detach() for film in films],
        "one MotionBlock(8, 2), with films of 7, 3 and 11 frames",
        hint="nothing may be kept from one film to the next.",
    )


@block
def test_block_keeps_the_dtype(stage):
    theirs = reference.motion_block(12, 3)
    x = rand(2, 5, 12)

    def run(module):
        ours = make_block(module, "MotionBlock(12, 3)", our_weights(theirs, renaming.MOTION_BLOCK)).to(torch.bfloat16)
        return ours(x.to(torch.bfloat16))

    check(
        stage, run, theirs(x).detach().to(torch.bfloat16), "MotionBlock(12, 3).to(torch.bfloat16)(x)", tolerance=0.05,
        hint="the positions are converted to the dtype and device of x.",
    )


@block
def test_block_gradients(stage):
    check_motion_block(stage, x=rand(2, 5, 12), gradients=True)


# --- the module ------------------------------------------------------------------------------------------------------


class Films(nn.Module):
    """Their module, called as ours: with the number of frames behind x."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x, num_frames):
        return self.module(x, num_frames=num_frames)


FILMS = {r"^module\.": ""} | renaming.MOTION_MODULE


def their_module(channels=12, heads=3, groups=4):
    return Films(reference.motion_module(channels, heads, groups))


def check_module(stage, channels=12, heads=3, groups=4, **options):
    check_block(
        stage, f"MotionModule({channels}, {heads}, {groups})", their_module(channels, heads, groups), FILMS, **options
    )


@motion_module
def test_parameters_of_the_module(stage):
    wanted = our_weights(their_module(), FILMS)

    def run(module):
        made = make_block(module, "MotionModule(12, 3, 4)", wanted)
        return {name: tuple(p.shape) for name, p in made.named_parameters()}

    shapes = {name: tuple(weight.shape) for name, weight in wanted.items()}
    check(stage, run, shapes, "the parameters of MotionModule(12, 3, 4)")


@motion_module
def test_a_new_module_changes_nothing(stage):
    x = rand(6, 12, 3, 5)
    check(
        stage, "MotionModule(12, 3, 4).double()(x, 3)", x, x=x, tolerance=0.0,
        hint="weight and bias of proj_out start as zeros.",
    )


@motion_module
def test_a_new_module_can_learn(stage):
    """Only what comes last is zero: a gradient reaches it at once, and through it the rest."""
    def run(module):
        made = module.MotionModule(12, 3, 4).double()
        made(rand(4, 12, 2, 3), 2).square().sum().backward()
        return [made.proj_out.weight.grad.abs().max().item() > 0, made.proj_in.weight.abs().max().item() > 0]

    check(
        stage, run, [True, True], "[does proj_out of a new module get a gradient, does proj_in hold other than zeros]",
        hint="only proj_out starts as zeros.",
    )


@motion_module
def test_one_film_of_one_pixel(stage):
    check_module(stage, x=rand(5, 12, 1, 1), num_frames=5, hint="the tokens of one pixel are its frames.")


@motion_module
def test_one_film_of_several_pixels(stage):
    check_module(
        stage, x=rand(5, 12, 2, 3), num_frames=5, hint="every pixel is a sequence of its own; its tokens are frames."
    )


@motion_module
def test_frames_of_a_film_are_neighbours_in_the_batch(stage):
    check_module(
        stage, x=rand(6, 12, 2, 3), num_frames=2,
        hint="samples 0 and 1 are the first film, 2 and 3 the second, 4 and 5 the third.",
    )


@motion_module
def test_the_norm_looks_at_all_frames_of_a_film_together(stage):
    x = rand(6, 12, 2, 3)
    x[1::3] *= 20.0  # one frame of each film that is much stronger than the others
    check_module(
        stage, x=x, num_frames=3, about="with one strong frame in each film",
        hint="mean and variance over all frames of the film: (films, channels, frames, height, width) into the norm.",
    )


@motion_module
def test_films_are_normalised_apart(stage):
    x = rand(6, 12, 2, 3)
    x[3:] = 50.0 + 20.0 * x[3:]
    check_module(stage, x=x, num_frames=3, about="with two films of different strength", hint="one film, one sample.")


@motion_module
def test_eps_of_the_norm(stage):
    check_module(stage, x=rand(6, 12, 2, 3, scale=0.001), num_frames=3, about="with very small numbers",
                 hint="GroupNorm with eps=1e-6 and num_groups.")


@motion_module
def test_module_gradients(stage):
    theirs = their_module()
    x = rand(6, 12, 2, 3)

    def gradients(made, names=None):
        return results_and_gradients(reference.called(made, lambda x: made(x, 3)), x, names=names)

    check(
        stage, lambda m: gradients(make_block(m, "MotionModule(12, 3, 4)", our_weights(theirs, FILMS))),
        gradients(theirs, our_names(theirs, FILMS)), "MotionModule(12, 3, 4)(x, 3) and its gradients",
    )


@motion_module
@settings(max_examples=10)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31))
def test_any_film(stage, films, frames, height, width, seed):
    x = rand(films * frames, 8, height, width, seed=seed)
    check_module(stage, 8, 2, 2, x=x, num_frames=frames, about=f"with x of shape {tuple(x.shape)}, num_frames={frames}")


# --- the U-Net -------------------------------------------------------------------------------------------------------

MOTIONS = {"middle": SimpleNamespace(num_heads=4, max_frames=9, middle=True),
           "no middle": SimpleNamespace(num_heads=2, max_frames=32, middle=False)}
UNETS = {"two levels": (SMALL, "middle"), "without a middle": (SMALL, "no middle"), "three levels": (DEEP, "middle")}
every_unet = pytest.mark.parametrize("which", UNETS)


class FilmUNet(nn.Module):
    """Their UNetMotionModel, called as ours: frames one after the other in the batch."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, latents, timesteps, context, num_frames):
        films = latents.unflatten(0, (-1, num_frames)).transpose(1, 2)
        noise = without_compiler()(self.model)(films, timesteps[::num_frames], context, return_dict=False)[0]
        return noise.transpose(1, 2).flatten(0, 1)


UNET_NAMES = {r"^model\.": ""} | renaming.MOTION_UNET


@functools.cache
def their_unet(which):
    config, motion = UNETS[which][0], MOTIONS[UNETS[which][1]]
    return FilmUNet(reference.motion_unet(config, motion.num_heads, motion.max_frames, motion.middle))


@functools.cache
def film_weights(which):
    return our_weights(their_unet(which), UNET_NAMES)


def make_motion_unet(module, blocks, which):
    config, motion = UNETS[which][0], MOTIONS[UNETS[which][1]]
    sizes = module.MotionConfig(motion.num_heads, motion.max_frames, motion.middle)
    made = module.MotionUNet(blocks[7].UNet(config), config, sizes)
    return give_weights(made, film_weights(which), f"MotionUNet(unet, sizes, {sizes})")


def film_inputs(which, films=2, frames=3, seed=0):
    """Latents, timesteps and contexts, the latter two the same for all frames of a film."""
    config = UNETS[which][0]
    latents = rand(films * frames, config.in_channels, config.factor, 2 * config.factor, seed=seed)
    timesteps = torch.randint(0, 1000, (films,), generator=torch.Generator().manual_seed(seed)).double()
    context = rand(films, 5, config.context_channels, seed=seed + 1)
    return latents, timesteps.repeat_interleave(frames), context.repeat_interleave(frames, dim=0), frames


def check_motion_unet(stage, blocks, which, inputs, about="", hint=""):
    theirs = their_unet(which)
    with torch.no_grad():
        check(
            stage, lambda m: make_motion_unet(m, blocks, which)(*inputs), theirs(*inputs).detach(),
            f"MotionUNet(unet, sizes, config)(latents, timesteps, context, {inputs[-1]}){about and ' ' + about}",
            tolerance=1e-9, hint=hint, inputs=dict(zip(("latents", "timesteps", "context"), inputs)),
            explain=divergence(lambda m: make_motion_unet(m, blocks, which), theirs, UNET_NAMES, *inputs,
                               arguments=with_frames(inputs[-1])),
        )


def with_frames(num_frames):
    """What a motion module of ours is called with: the recorded tensors, and the number of frames."""
    return lambda part, tensors: [*tensors, num_frames] if type(part).__name__ == "MotionModule" else tensors


@unet
@every_unet
def test_modules_of_the_unet(stage, blocks, which):
    shapes = {name: tuple(w.shape) for name, w in film_weights(which).items() if not name.startswith("unet.")}

    def run(module):
        own = make_motion_unet(module, blocks, which).named_parameters()
        return {name: tuple(p.shape) for name, p in own if not name.startswith("unet.")}

    check(stage, run, shapes, "the parameters of MotionUNet's modules", hint="__init__ was given: has it been changed?")


@unet
@every_unet
def test_without_training_the_frames_are_the_pictures(stage, blocks, which):
    """Bit for bit what the U-Net of pictures gives."""
    config, motion = UNETS[which][0], MOTIONS[UNETS[which][1]]
    *inputs, frames = film_inputs(which)
    plain = randomised(blocks[7].UNet(config), 3)
    with torch.no_grad():
        expected = plain(*inputs)

        def run(module):
            sizes = module.MotionConfig(motion.num_heads, motion.max_frames, motion.middle)
            return module.MotionUNet(plain, config, sizes).double()(*inputs, frames)

        check(
            stage, run, expected, "a new MotionUNet(unet, sizes, config)(latents, timesteps, context, 3)",
            tolerance=0.0, hint="a new module changes nothing: the U-Net's own layers, in the order of stage 7.",
        )


@unet
@every_unet
def test_motion_unet(stage, blocks, which):
    check_motion_unet(
        stage, blocks, which, film_inputs(which),
        hint="residual block, spatial transformer if there is one, motion module; then the result is kept as a skip.",
    )


@unet
def test_motion_unet_of_longer_and_of_single_films(stage, blocks):
    for films, frames in ((1, 9), (3, 1)):
        check_motion_unet(
            stage, blocks, "two levels", film_inputs("two levels", films, frames, seed=frames),
            about=f"with {films} films of {frames} frames", hint="the number of frames is an argument.",
        )


@unet
def test_films_do_not_see_each_other(stage, blocks):
    """The second film alone gives what it gives beside the first one."""
    latents, timesteps, context, frames = film_inputs("two levels")
    theirs = their_unet("two levels")
    with torch.no_grad():
        alone = theirs(latents[3:], timesteps[3:], context[3:], frames).detach()
        check(
            stage,
            lambda m: make_motion_unet(m, blocks, "two levels")(latents, timesteps, context, frames)[3:], alone,
            "the second half of MotionUNet(...)(two films), beside the second film alone", tolerance=1e-9,
        )


@unet
def test_too_many_frames(stage, blocks):
    def run(module):
        try:
            make_motion_unet(module, blocks, "two levels")(*film_inputs("two levels", 1, 10))
        except ValueError as error:
            return [number for number in ("10", "9") if number in str(error)] or str(error)
        return "no ValueError"

    check(
        stage, run, ["10", "9"], "which numbers the ValueError names for 10 frames with max_frames=9",
        hint="raise ValueError before anything is computed, and name both.",
    )


# --- the film --------------------------------------------------------------------------------------------------------

FRAMES = 3


@functools.cache
@without_compiler()
def film_parts():
    """diffusers' U-Net of TINY with modules, in float32, as modules of its pipeline."""
    torch.manual_seed(0)
    adapter = MotionAdapter(
        TINY.unet.channels, TINY.unet.blocks_per_level, motion_num_attention_heads=2,
        motion_norm_num_groups=TINY.unet.num_groups, use_motion_mid_block=False,
    )
    adapter = randomised(adapter, 4).float()
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if ".proj_out." in name:
                parameter *= 0.3  # random modules must not drown the pictures
    models = dict(parts(TINY))
    made = AnimateDiffPipeline(
        **models, tokenizer=tokenizer(), motion_adapter=adapter, scheduler=scheduler("ddim"),
    )
    made.set_progress_bar_config(disable=True)
    return made


def our_film_parts(module, blocks):
    """Our parts with a MotionUNet that holds diffusers' modules."""
    own = our_parts(blocks, TINY)
    unet = module.MotionUNet(own["unet"], TINY.unet, module.MotionConfig(num_heads=2, middle=False))
    unet.load_state_dict(our_weights(film_parts().unet, renaming.MOTION_UNET))
    return own | {"unet": unet.float().eval()}


def film_noise(films=2):
    return rand(films, FRAMES, TINY.vae.latent_channels, 8, 12, seed=6, dtype=torch.float32)


@film
@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpm++2m"])
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_film_of_diffusers(stage, blocks, sampler, scale):
    theirs, noise = film_parts(), film_noise()
    with without_compiler():
        theirs.scheduler = scheduler(sampler)
        expected = theirs(
            PROMPTS[:2], negative_prompt=NEGATIVE_PROMPTS[:2], num_frames=FRAMES, height=16, width=24,
            num_inference_steps=3, guidance_scale=scale, latents=noise.transpose(1, 2).clone(), output_type="pt",
        ).frames

    def run(module):
        sampling = blocks[9].Sampling(3, scale, sampler)
        model = blocks[9].StableDiffusion(**our_film_parts(module, blocks))
        return unit_range(module.text_to_video(model, PROMPTS[:2], NEGATIVE_PROMPTS[:2], noise, sampling))

    check(
        stage, run, expected,
        f"text_to_video(model, prompts, negative_prompts, noise, Sampling(3, {scale:g}, {sampler!r}))",
        tolerance=2e-5, hint="films come first, then frames; every frame has the context of its film.",
    )


@film
def test_a_film_without_training_is_its_pictures(stage, blocks):
    """With new modules, every frame is the picture that text_to_image draws from its noise."""
    own, noise = our_parts(blocks, TINY), film_noise()
    sampling = blocks[9].Sampling(2, 5.0)
    prompts, negative = ([text for text in texts[:2] for _ in range(FRAMES)] for texts in (PROMPTS, NEGATIVE_PROMPTS))
    pictures = blocks[9].text_to_image(
        blocks[9].StableDiffusion(**own), prompts, negative, noise.flatten(0, 1), sampling
    )

    def run(module):
        unet = module.MotionUNet(own["unet"], TINY.unet, module.MotionConfig(num_heads=2)).eval()
        model = blocks[9].StableDiffusion(**(own | {"unet": unet}))
        return module.text_to_video(model, PROMPTS[:2], NEGATIVE_PROMPTS[:2], noise, sampling)

    check(
        stage, run, pictures.unflatten(0, (2, FRAMES)),
        "text_to_video(model, prompts, negative_prompts, noise, sampling) with new motion modules", tolerance=1e-5,
        hint="every frame is then what text_to_image draws from its noise.",
    )


@film
def test_a_film_is_reported_step_by_step(stage, blocks):
    film_parts()  # whose random weights are drawn when it is first called

    def run(module):
        seen = []
        model = blocks[9].StableDiffusion(**our_film_parts(module, blocks))
        sampling = blocks[9].Sampling(2)
        module.text_to_video(
            model, PROMPTS[:1], [""], film_noise(1), sampling, lambda step: seen.append((step.index, step.count))
        )
        return [*seen, type(model.unet).__name__]

    check(
        stage, run, [(0, 2), (1, 2), "MotionUNet"],
        "the (index, count) of the steps that on_step gets, and the kind of model.unet afterwards",
        hint="hand on_step to finish; the caller's model stays as it is.",
    )


@film
def test_films_keep_no_gradients(stage, blocks):
    noise, _ = film_noise(1), film_parts()  # whose random weights are drawn when it is first called

    def run(module):
        model = blocks[9].StableDiffusion(**our_film_parts(module, blocks))
        return module.text_to_video(model, PROMPTS[:1], [""], noise, blocks[9].Sampling(2)).requires_grad

    check(
        stage, run, False, "requires_grad of the result of text_to_video",
        hint="drawing runs under torch.no_grad(): it needs far less memory.",
    )


@unet
def test_sizes_of_the_published_modules(stage):
    check(
        stage, lambda module: dataclasses.astuple(module.MotionConfig()), (8, 32, True),
        "the defaults of MotionConfig: heads, the longest film, whether there is a module in the middle",
    )


# --- published files -------------------------------------------------------------------------------------------------


def adapter_tensors(which="two levels"):
    """The tensors of a MotionAdapter of diffusers, under its names, tables of positions included."""
    state = their_unet(which).model.state_dict()
    return {name: tensor for name, tensor in state.items() if ".motion_modules." in name} | {
        name.replace("attn1.to_q.weight", "pos_embed.pe"): torch.zeros(1, 9, 8)
        for name in state if name.endswith("motion_modules.0.transformer_blocks.0.attn1.to_q.weight")
    }


def of_animatediff(tensors, prefix=""):
    """The same tensors under the names of AnimateDiff's own files."""
    renamed = {}
    for name, tensor in tensors.items():
        head, tail = name.split(".motion_modules.")
        number, tail = tail.split(".", 1)
        for theirs, its in (
            ("norm1.", "norms.0."), ("norm2.", "norms.1."), ("norm3.", "ff_norm."), ("attn1.", "attention_blocks.0."),
            ("attn2.", "attention_blocks.1."), ("pos_embed.pe", "attention_blocks.0.pos_encoder.pe"),
        ):
            tail = tail.replace(f"transformer_blocks.0.{theirs}", f"transformer_blocks.0.{its}")
        renamed[f"{prefix}{head}.motion_modules.{number}.temporal_transformer.{tail}"] = tensor
    return renamed


def wanted_tensors(which="two levels"):
    return {name: tensor for name, tensor in film_weights(which).items() if not name.startswith("unet.")}


@reading
@pytest.mark.parametrize("which", ["two levels", "without a middle", "three levels"])
def test_names_of_diffusers(stage, which):
    tensors = adapter_tensors(which)
    check(
        stage, "remap_motion(state_dict)", wanted_tensors(which), "remap_motion(state_dict) with diffusers' names",
        inputs=tensors, state_dict=tensors, hint="names that end in .pe are left out.",
    )


@reading
@pytest.mark.parametrize("prefix", ["", "module."], ids=["plain", "with module."])
@pytest.mark.parametrize("which", ["two levels", "three levels"])
def test_names_of_animatediff(stage, which, prefix):
    tensors = of_animatediff(adapter_tensors(which), prefix)
    check(
        stage, "remap_motion(state_dict)", wanted_tensors(which),
        f"remap_motion(state_dict) with AnimateDiff's names{' behind module.' if prefix else ''}", inputs=tensors,
        state_dict=tensors, hint="replace its words first, then the names are those of diffusers.",
    )


@reading
@pytest.mark.parametrize("name", [
    "down_blocks.0.motion_modules.0.something.weight", "model.diffusion_model.out.0.weight",
    "encoder.down_blocks.0.motion_modules.0.norm.weight",
])
def test_an_unknown_name(stage, name):
    def run(module):
        try:
            module.remap_motion({name: torch.zeros(1)})
        except ValueError as error:
            return "named" if name.rpartition("motion_modules.0.")[2] in str(error) else str(error)
        return "no ValueError"

    check(stage, run, "named", f"remap_motion({{{name!r}: ...}}): whether its ValueError names the tensor",
          hint="every tensor is accounted for by name, or refused.")
