"""Stage 8 against formulas in numpy, the schedulers of diffusers, and published sums."""

import functools
import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course.feedback.compare import TOLERANCE, check, evaluated, name_of, rand
from tests.stages import pretended
from tests.stages.drawing import check_drawing, each_drawing
from tests.stages.in_turn import check_in_turn
from tests.stages.light import without_compiler
from tests.stages.pretended import check_on_gpu, single

with without_compiler():
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

betas = pytest.mark.exercise("8.1")
products = pytest.mark.exercise("8.2")
noising = pytest.mark.exercise("8.3")
guessing = pytest.mark.exercise("8.4")
timesteps = pytest.mark.exercise("8.5")
ddim = pytest.mark.exercise("8.6")
ddpm = pytest.mark.exercise("8.7")
euler = pytest.mark.exercise("8.8")
dpm = pytest.mark.exercise("8.9")

of_ddim = functools.partial(pytest.param, "ddim_step", marks=ddim, id="ddim")
of_ddpm = functools.partial(pytest.param, "ddpm_step", marks=ddpm, id="ddpm")
of_euler = functools.partial(pytest.param, "euler_step", marks=euler, id="euler")
of_dpm = functools.partial(pytest.param, "dpm_solver_2m_step", marks=dpm, id="dpm")

BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2  # Stable Diffusion's
ABAR = np.cumprod(1.0 - BETAS)
LINEAR_BETAS = np.linspace(0.0001, 0.02, 1000)  # those of the DDPM paper

SD1 = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading", "steps_offset": 1,
}
SCHEDULERS = {
    "DDIM": functools.partial(DDIMScheduler, **SD1, clip_sample=False, set_alpha_to_one=False),
    "DDPM": functools.partial(DDPMScheduler, **SD1, clip_sample=False, variance_type="fixed_small"),
    "Euler": functools.partial(EulerDiscreteScheduler, **SD1),
    "DPM": functools.partial(DPMSolverMultistepScheduler, **SD1),
}
SINGLE = 1e-5  # the tables of diffusers are float32: products of up to 1000 rounded numbers


def schedule(module, betas=BETAS):
    """A NoiseSchedule with these betas, whatever exercises 8.1 and 8.2 return."""
    with (
        patch.object(module, "scaled_linear_betas", lambda *args, **kwargs: torch.from_numpy(betas)),
        patch.object(module, "alphas_cumprod", lambda betas: torch.from_numpy(np.cumprod(1.0 - betas.numpy()))),
    ):
        return module.NoiseSchedule(len(betas))


def check_call(stage, call, expected, about="", *, betas=BETAS, tolerance=TOLERANCE, hint="", **given):
    """`check` of a call that names a schedule with these betas, and given tensors. about: what else to say of it."""
    check(
        stage, lambda m: evaluated(call, {"schedule": schedule(m, betas), **given})(m), expected,
        f"{call} {about}".strip(), tolerance=tolerance, hint=hint, inputs=given,
    )


def abar(timestep):
    return ABAR[timestep] if timestep >= 0 else 1.0


def noisy_at(timestep, original, noise):
    return math.sqrt(abar(timestep)) * original + math.sqrt(1.0 - abar(timestep)) * noise


def noisy_at_each(timesteps, original, noise):
    """Every sample at its own timestep, computed in float64, in the dtype of the original."""
    samples = zip(timesteps.tolist(), original.double(), noise.double())
    return torch.stack([noisy_at(*sample) for sample in samples]).to(original.dtype)


def original_of(latents, noise, timestep):
    return (latents - math.sqrt(1.0 - abar(timestep)) * noise) / math.sqrt(abar(timestep))


# --- the tables ------------------------------------------------------------------------------------------------------


@betas
def test_first_and_last_beta(stage):
    def run(module):
        values = module.scaled_linear_betas()
        return {"length": len(values), "first": float(values[0]), "last": float(values[-1])}

    check(
        stage, run, {"length": 1000, "first": 0.00085, "last": 0.012}, "scaled_linear_betas()",
        hint="1000 betas from 0.00085 to 0.012, float64: square what linspace gives between the square roots.",
    )


@betas
def test_square_roots_of_the_betas_grow_evenly(stage):
    check(
        stage, "scaled_linear_betas().sqrt().diff()",
        torch.full((999,), (0.012**0.5 - 0.00085**0.5) / 999, dtype=torch.float64),
        hint="are the square roots of the betas evenly spaced, rather than the betas?",
        tolerance=1e-9,  # differences of 8e-5 between numbers of 0.1: three digits of float64 are lost
    )


@betas
def test_betas_with_other_arguments(stage):
    check(
        stage, "scaled_linear_betas(7, 0.01, 0.25)", torch.from_numpy(np.linspace(0.1, 0.5, 7) ** 2),
        hint="use the arguments, and float64.",
    )


@betas
def test_betas_of_diffusers(stage):
    theirs = SCHEDULERS["DDPM"]().betas
    check(stage, "scaled_linear_betas().float()", theirs, tolerance=1e-6)  # theirs are squares of float32 numbers


@products
def test_product_so_far(stage):
    check(
        stage, "alphas_cumprod(betas)", torch.tensor([0.5, 0.4, 0.36], dtype=torch.float64),
        "alphas_cumprod(torch.tensor([0.5, 0.2, 0.1]))", betas=torch.tensor([0.5, 0.2, 0.1], dtype=torch.float64),
        hint="each entry is the product of 1 - beta up to and including its own factor.",
    )


@products
def test_product_of_stable_diffusions_betas(stage):
    check(
        stage, "alphas_cumprod(betas)", torch.from_numpy(ABAR), betas=torch.from_numpy(BETAS),
        hint="a product that has been rounded to float32 on the way is off by 1e-6.",
    )
    theirs = SCHEDULERS["DDPM"]().alphas_cumprod
    check(stage, "alphas_cumprod(betas).float()", theirs, betas=torch.from_numpy(BETAS), tolerance=SINGLE)


@pytest.mark.exercise("8.1", "8.2")
def test_new_schedule(stage):
    wanted = {"num_train_timesteps": 1000, "betas": torch.from_numpy(BETAS), "alphas_cumprod": torch.from_numpy(ABAR)}
    check(
        stage, lambda m: {name: getattr(m.NoiseSchedule(), name) for name in wanted}, wanted, "NoiseSchedule()",
        hint="NoiseSchedule() takes its tables from scaled_linear_betas and alphas_cumprod.",
    )


# --- there and back --------------------------------------------------------------------------------------------------


@noising
@pytest.mark.parametrize(
    ("arguments", "factor", "hint"),
    [
        ("original, zeros", ABAR[400],
         "the picture's factor is the square root of alphas_cumprod at t (not of 1 - beta_t)."),
        ("zeros, noise", 1.0 - ABAR[400], "the noise's factor is sqrt(1 - abar): squares of both make 1."),
    ],
    ids=["picture alone", "noise alone"],
)
def test_the_factors_are_square_roots(stage, arguments, factor, hint):
    x = rand(2, 4, 3, 5)
    check_call(
        stage, f"schedule.add_noise({arguments}, timesteps)", math.sqrt(factor) * x, "with timesteps = [400, 400]",
        hint=hint, original=x, noise=x.clone(), zeros=torch.zeros_like(x), timesteps=torch.tensor([400, 400]),
    )


@noising
def test_every_sample_has_its_own_timestep(stage):
    # As wide as the batch: broadcasting along the width would run.
    original, noise, t = rand(4, 3, 4, 4), rand(4, 3, 4, 4, seed=1), torch.tensor([0, 999, 1, 500])
    check_call(
        stage, "schedule.add_noise(original, noise, timesteps)", noisy_at_each(t, original, noise),
        "with timesteps = [0, 999, 1, 500]", hint="one factor per sample: give them the shape (batch, 1, 1, 1).",
        original=original, noise=noise, timesteps=t,
    )


@noising
def test_noisy_latents_of_diffusers(stage):
    original, noise, t = rand(3, 4, 6, 5), rand(3, 4, 6, 5, seed=1), torch.tensor([981, 20, 333])
    check_call(
        stage, "schedule.add_noise(original, noise, timesteps)", SCHEDULERS["DDPM"]().add_noise(original, noise, t),
        "with timesteps = [981, 20, 333]", tolerance=SINGLE, original=original, noise=noise, timesteps=t,
    )


@noising
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=name_of)
@pytest.mark.parametrize(
    ("call", "scale", "t", "hint"),
    [
        ("schedule.add_noise(original, noise, timesteps)", 1.0, [3, 700],
         "take the roots in float64, then convert them to the dtype of original."),
        ("schedule.add_noise(zeros, noise, timesteps)", 0.0, [0, 3],
         "near 1, half precision rounds abar so that 1 - abar is wrong: take the roots in float64, then convert."),
    ],
    ids=["picture and noise", "a little noise"],
)
def test_noisy_latents_keep_the_dtype(stage, dtype, call, scale, t, hint):
    original, noise = rand(2, 4, 6, 5, scale=scale, dtype=dtype), rand(2, 4, 6, 5, seed=1, dtype=dtype)
    timesteps = torch.tensor(t)
    check_call(
        stage, call, noisy_at_each(timesteps, original, noise), f"with timesteps = {t} in {name_of(dtype)}", hint=hint,
        tolerance={torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}[dtype],  # a few roundings
        original=original, zeros=original, noise=noise, timesteps=timesteps,
    )


@guessing
def test_right_noise_gives_back_the_original(stage):
    original, noise = rand(2, 4, 3, 5, scale=3.0), rand(2, 4, 3, 5, seed=1)
    check_call(
        stage, "schedule.predict_original(noisy, noise, 800)", original, "with the noise that was added",
        hint="add_noise solved for the original: subtract the scaled noise, then divide by sqrt(abar). No clipping.",
        noisy=noisy_at(800, original, noise), noise=noise,
    )


@guessing
@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_guess_from_any_noise(stage, t):
    noisy, noise = rand(2, 4, 3, 5), rand(2, 4, 3, 5, seed=1)
    check_call(
        stage, f"schedule.predict_original(noisy, predicted_noise, {t})", original_of(noisy, noise, t),
        hint="use abar of this timestep.", noisy=noisy, predicted_noise=noise,
    )


@guessing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name_of)
def test_the_guess_has_precise_factors(stage, dtype):
    noise = rand(2, 4, 3, 5, dtype=dtype)
    check_call(
        stage, "schedule.predict_original(zeros, noise, 1)", original_of(0.0, noise.double(), 1).to(dtype),
        f"in {name_of(dtype)}", tolerance=5 * torch.finfo(dtype).eps, zeros=torch.zeros_like(noise), noise=noise,
        hint="compute the factors in float64, as alpha_bar gives them: near the end, 1 - abar is small.",
    )


# --- which timesteps -------------------------------------------------------------------------------------------------


@timesteps
@pytest.mark.parametrize(
    ("arguments", "wanted", "length", "hint"),
    [
        ("50", range(981, 0, -20), 1000, "981, 961, ..., 21, 1: falling, 20 apart, and the last one is 1."),
        ("50, intervals=51", range(951, 19, -19), 1000,
         "951, 932, ..., 39, 20: the stride comes from the intervals, and the 1 at the end is left out."),
        ("1", [1], 1000, "a single step is taken at timestep 1."),
        ("4", [76, 51, 26, 1], 100, "use num_train_timesteps, which need not be 1000."),
    ],
    ids=["fifty", "fifty with one interval more", "one", "of a short schedule"],
)
def test_timesteps(stage, arguments, wanted, length, hint):
    check_call(
        stage, f"list(schedule.inference_timesteps({arguments}))", list(wanted),
        "" if length == 1000 else f"with schedule = NoiseSchedule({length})", betas=BETAS[:length], hint=hint,
    )


@timesteps
@pytest.mark.parametrize(
    ("call", "wanted"), [("len({})", 50), ("list({}[47:])", [41, 21, 1]), ("{}[-1]", 1)], ids=["len", "cut", "last"]
)
def test_timesteps_are_a_sequence(stage, call, wanted):
    check_call(
        stage, call.format("schedule.inference_timesteps(50)"), wanted,
        hint="return a list: stage 9 counts the timesteps, leaves out the first ones, and looks the next one up.",
    )


@timesteps
@given(st.integers(1, 998))
def test_timesteps_of_diffusers(stage, num_steps):
    for name, make in SCHEDULERS.items():
        scheduler, intervals = make(), num_steps + 1 if name == "DPM" else None
        scheduler.set_timesteps(num_steps)
        check_call(
            stage, f"list(schedule.inference_timesteps({num_steps}, {intervals}))", list(map(int, scheduler.timesteps)),
            f"(of {name})", hint="whole numbers: the stride is rounded down.",
        )


@timesteps
@pytest.mark.parametrize(
    ("num_steps", "strength", "index"),
    [(50, 1.0, 0), (50, 0.8, 10), (50, 0.5, 25), (50, 0.58, 21), (50, 0.07, 47), (50, 0.001, 49), (1, 0.3, 0),
     (20, 0.14, 18)],
)
def test_start_index(stage, num_steps, strength, index):
    check_call(
        stage, f"schedule.start_index({num_steps}, {strength})", index,
        hint="int(num_steps * strength) steps are taken, at least one; 50 * 0.58 counts as 29.",
    )


# --- single steps ----------------------------------------------------------------------------------------------------

NAMES = "latents", "predicted_noise", "noise", "last_original"
TENSORS = {name: rand(2, 4, 3, 5, seed=seed) for seed, name in enumerate(NAMES)}
LATENTS, PREDICTED_NOISE, NOISE, LAST_ORIGINAL = TENSORS.values()


def check_step(stage, call, expected, **kwargs):
    """`check_call` of a sampler's step, which may name TENSORS, too."""
    check_call(stage, call, expected, **TENSORS | kwargs)


def moved(timestep, next_timestep, latents=LATENTS, noise=PREDICTED_NOISE):
    """What every sampler gives that follows the predicted noise and adds none of its own."""
    return noisy_at(next_timestep, original_of(latents, noise, timestep), noise)


def posterior(timestep, next_timestep, latents=LATENTS, noise=PREDICTED_NOISE):
    """Mean and variance of x_next given x_t and x_0: two Gaussians multiplied, so that their precisions add up."""
    alpha = abar(timestep) / abar(next_timestep)
    from_original = 1.0 / (1.0 - abar(next_timestep))
    from_latents = alpha / (1.0 - alpha)
    precision = from_original + from_latents
    means = math.sqrt(abar(next_timestep)) * original_of(latents, noise, timestep), latents / math.sqrt(alpha)
    return (from_original * means[0] + from_latents * means[1]) / precision, 1.0 / precision


def log_snr_half(timestep):
    return 0.5 * (math.log(abar(timestep)) - math.log(1.0 - abar(timestep)))


@pytest.mark.parametrize(
    ("stepper", "hint"),
    [
        of_ddim("add_noise at next_timestep, with the guess of the original and the same noise; not at timestep - 1."),
        of_euler("divide by sqrt(abar_t) before, multiply by sqrt(abar_next) after; sigma is sqrt((1 - abar) / abar)."),
        of_dpm("lambda is the natural logarithm of alpha / sigma; h = lambda_next - lambda_t is positive."),
    ],
)
def test_with_the_right_noise_there_is_less_of_it(stage, stepper, hint):
    original = rand(2, 4, 3, 5, seed=4, scale=3.0)
    check_step(
        stage, f"{stepper}(schedule, latents, noise, 801, 401)", noisy_at(401, original, NOISE),
        about="with the noise that is in the latents", hint=hint, latents=noisy_at(801, original, NOISE),
    )


@ddpm
@pytest.mark.parametrize(
    ("noise", "factor", "hint"),
    [
        ("zeros", 0.0,
         "with a stride, alpha is abar_t / abar_next and beta is 1 - alpha; neither is the table's entry at t."),
        ("noise", 1.0, "noise has to be scaled with the square root of the variance."),
    ],
    ids=["the mean", "the noise"],
)
def test_mean_and_noise_of_ddpm(stage, noise, factor, hint):
    mean, variance = posterior(501, 481)
    check_step(
        stage, f"ddpm_step(schedule, latents, predicted_noise, 501, 481, {noise})",
        mean + factor * math.sqrt(variance) * NOISE, hint=hint, zeros=torch.zeros_like(NOISE),
    )


@dpm
def test_second_step_of_dpm_solver_looks_back(stage):
    h, last_h = log_snr_half(401) - log_snr_half(801), log_snr_half(801) - log_snr_half(951)
    change = h / (2.0 * last_h) * (original_of(LATENTS, PREDICTED_NOISE, 801) - LAST_ORIGINAL)
    check_step(
        stage, "dpm_solver_2m_step(schedule, latents, predicted_noise, 801, 401, 951, last_original)",
        moved(801, 401) + math.sqrt(ABAR[401]) * (1.0 - math.exp(-h)) * change,
        hint="r is the last step's length in lambda over this one's; the guess goes on by 1 / (2 r) of its change.",
    )


DPM_END = "sigma is 0 at the end and lambda infinite: return the original as guessed now."


@pytest.mark.parametrize(
    ("stepper", "more", "hint"),
    [
        of_ddim("", "-1 counts as timestep 0 here: abar_0, not 1."),
        of_ddpm(", noise", "abar is 1 at the end (schedule.alpha_bar(-1)), so nothing of latents and noise is left."),
        of_euler("", "sigma_next is 0 at the end and abar_next 1."),
        of_dpm("", DPM_END, id="dpm, only step"),
        of_dpm(", 20, last_original", DPM_END, id="dpm, after another step"),
    ],
)
def test_the_last_step(stage, stepper, more, hint):
    wanted = moved(1, 0) if stepper == "ddim_step" else original_of(LATENTS, PREDICTED_NOISE, 1)
    check_step(stage, f"{stepper}(schedule, latents, predicted_noise, 1, -1{more})", wanted, hint=hint)


# --- all steps of a picture ------------------------------------------------------------------------------------------


def walk(step, num_steps, intervals):
    """The latents after each of num_steps steps, with random noise in place of the U-Net's prediction."""
    stride = 1000 // intervals
    visited = [1 + (intervals - num_steps + i) * stride for i in reversed(range(num_steps))]
    latents, results = rand(2, 4, 3, 5), []
    for i, (t, t_next) in enumerate(zip(visited, [*visited[1:], -1])):
        latents = step(latents, rand(2, 4, 3, 5, seed=10 + i), t, t_next)
        results.append(latents)
    return torch.stack(results)


@functools.cache
def walk_of_diffusers(name, num_steps, intervals, **options):
    """The same with a scheduler of diffusers, with precise tables."""
    scheduler = SCHEDULERS[name]()
    scheduler.alphas_cumprod = torch.from_numpy(ABAR)
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(num_steps)

    def step(latents, noise, t, t_next):
        here, there = (math.sqrt(abar(t)), math.sqrt(abar(t_next))) if name == "Euler" else (1.0, 1.0)
        at = next(x for x in scheduler.timesteps if x == t)
        generator = torch.Generator().manual_seed(t)
        return scheduler.step(noise, at, latents / here, generator=generator, **options).prev_sample.double() * there

    return walk(step, num_steps, intervals)


ETA = "the fresh noise comes in with sigma; that of the prediction then with sqrt(1 - abar_next - sigma^2)."


@pytest.mark.parametrize("num_steps", [1, 2, 7, 50])
@pytest.mark.parametrize(
    ("stepper", "more", "name", "options", "tolerance", "hint"),
    [
        of_ddim("", "DDIM", {}, TOLERANCE, ""),
        of_ddim(", 0.5, noise", "DDIM", {"eta": 0.5}, TOLERANCE, ETA, id="ddim, eta 0.5"),
        of_ddim(", 1.0, noise", "DDIM", {"eta": 1.0}, TOLERANCE, ETA, id="ddim, eta 1"),
        of_ddpm(", noise", "DDPM", {}, 1e-9, ""),  # in its last step, diffusers adds noise of 1e-10
        of_euler("", "Euler", {}, SINGLE, "the sign: sigma falls, so sigma_next - sigma is negative."),
        of_dpm(", *last", "DPM", {}, SINGLE, ""),
    ],
)
def test_steps_of_diffusers(stage, num_steps, stepper, more, name, options, tolerance, hint):
    intervals = num_steps + 1 if name == "DPM" else num_steps
    call = f"{stepper}(schedule, latents, predicted_noise, t, t_next{more})"

    def run(module):
        given = {"schedule": schedule(module), "last": ()}

        def step(latents, predicted_noise, t, t_next):
            noise = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
            given.update(latents=latents, predicted_noise=predicted_noise, t=t, t_next=t_next, noise=noise)
            result = evaluated(call, given)(module)
            given["last"] = t, original_of(latents, predicted_noise, t)
            return result

        return walk(step, num_steps, intervals)

    wanted = walk_of_diffusers(name, num_steps, intervals, **options)
    check(stage, run, wanted, f"{num_steps} step{'s' * (num_steps > 1)} of {call}", tolerance=tolerance, hint=hint)


def published_start():
    """The dummy sample of the scheduler tests in diffusers."""
    return (torch.arange(768, dtype=torch.float64).reshape(3, 8, 8, 4) / 768).permute(3, 0, 1, 2)


@ddim
def test_published_sum_of_ddim(stage):
    def run(module):
        linear, latents = schedule(module, LINEAR_BETAS), published_start()
        for t in range(900, 0, -100):
            latents = module.ddim_step(linear, latents, latents * t / (t + 1), t, t - 100)
        return float(latents.abs().sum())  # at timestep 0, where the dummy model predicts no noise

    check(
        stage, run, 172.0067 * float(np.sqrt(1.0 - LINEAR_BETAS[0])),  # diffusers then goes on to abar = 1
        "sum |x| after DDIM steps 900 -> 800 -> ... -> 0 of the model x * t / (t + 1), linear betas",
        tolerance=1e-5,  # seven published digits, computed in float32
    )


@ddpm
def test_published_sum_of_ddpm(stage):
    abar_linear = np.cumprod(1.0 - LINEAR_BETAS)

    def run(module):
        linear, latents = schedule(module, LINEAR_BETAS), published_start()
        generator = torch.Generator().manual_seed(0)
        for t in reversed(range(1000)):
            root, rest = math.sqrt(abar_linear[t]), math.sqrt(1.0 - abar_linear[t])
            original = ((latents - rest * latents * t / (t + 1)) / root).clamp(-1.0, 1.0)
            noise = torch.randn(4, 3, 8, 8, generator=generator).double() if t else torch.zeros_like(latents)
            latents = module.ddpm_step(linear, latents, (latents - root * original) / rest, t, t - 1, noise)
        return float(latents.abs().sum())

    check(
        stage, run, 258.9606, "sum |x| after 1000 steps of ddpm_step with the model x * t / (t + 1) and linear betas",
        tolerance=1e-5,  # seven published digits, computed in float32
    )


# --- what is easily overlooked ---------------------------------------------------------------------------------------


@ddim
def test_ddim_needs_no_noise_by_default(stage):
    check_step(
        stage, "ddim_step(schedule, latents, predicted_noise, 501, 481, noise=noise)", moved(501, 481),
        hint="eta is 0 if none is given.",
    )


@pytest.mark.parametrize(
    ("stepper", "more"), [of_ddim(""), of_ddpm(", noise"), of_euler(""), of_dpm(", 521, last_original")]
)
def test_float32_is_kept(stage, stepper, more):
    check_step(
        stage, f"{stepper}(schedule, latents, predicted_noise, 501, 481{more}).dtype", torch.float32,
        about="with float32 latents", hint="factors as Python numbers (float(...), math.sqrt) leave the dtype alone.",
        **{name: tensor.float() for name, tensor in TENSORS.items()},
    )


@pytest.mark.parametrize("stepper", [of_ddim(), of_euler(), of_dpm()])
def test_timestep_zero_is_not_yet_the_end(stage, stepper):
    check_step(
        stage, f"{stepper}(schedule, latents, predicted_noise, 21, 0)", moved(21, 0),
        hint="at timestep 0 there is a little noise left; -1 is the end.",
    )


@pytest.mark.parametrize(
    ("stepper", "more"),
    [of_ddim(""), of_ddim(", 1.0, noise", id="ddim, eta 1"), of_ddpm(", noise"), of_euler(""), of_dpm("")],
)
@given(st.integers(2, 999), st.data(), st.integers(0, 1000))
def test_any_single_step(stage, stepper, more, t, data, seed):
    t_next = data.draw(st.integers(1, t - 1))
    latents, noise = rand(2, 4, 3, 5, seed=2 * seed, scale=2.0), rand(2, 4, 3, 5, seed=2 * seed + 1)
    wanted = moved(t, t_next, latents, noise)
    if more:  # DDIM with an eta of 1 is DDPM
        mean, variance = posterior(t, t_next, latents, noise)
        wanted = mean + math.sqrt(variance) * NOISE
    check_step(
        stage, f"{stepper}(schedule, latents, predicted_noise, {t}, {t_next}{more})", wanted,
        latents=latents, predicted_noise=noise,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name_of)
@pytest.mark.parametrize(
    ("stepper", "more"), [of_ddim(""), of_ddpm(", noise"), of_euler(""), of_dpm(", 41, last_original")]
)
def test_factors_are_precise_whatever_the_latents_are(stage, stepper, more, dtype):
    """Near the end, where 1 - abar is small, a table in the dtype of the latents would give wrong factors.

    All but one of the tensors are zeros, so that nothing covers the one whose factor is small.
    """
    zero = torch.zeros_like(NOISE)
    given = dict.fromkeys(TENSORS, zero) | {"noise" if stepper == "ddpm_step" else "predicted_noise": NOISE}
    wanted = math.sqrt(posterior(21, 1)[1]) * NOISE if stepper == "ddpm_step" else moved(21, 1, zero, NOISE)
    if stepper == "dpm_solver_2m_step":
        h, last_h = log_snr_half(1) - log_snr_half(21), log_snr_half(21) - log_snr_half(41)
        wanted = wanted + math.sqrt(ABAR[1]) * (1.0 - math.exp(-h)) * h / (2.0 * last_h) * original_of(zero, NOISE, 21)
    given = {name: tensor.to(dtype) for name, tensor in given.items()}
    nothing = ", ".join(name for name, tensor in given.items() if not tensor.any() and name in NAMES)
    check_step(
        stage, f"{stepper}(schedule, latents, predicted_noise, 21, 1{more})", wanted.to(dtype),
        about=f"in {name_of(dtype)}, with zeros for {nothing}", tolerance=10 * torch.finfo(dtype).eps,
        hint="compute the factors in float64, as alpha_bar gives them; only their products with tensors are rounded.",
        **given,
    )


# --- one call after another ------------------------------------------------------------------------------------------

IN_TURN = {  # calls with one schedule -> what they give
    "schedule.add_noise(latents.half(), noise.half(), tensor([3, 700])).dtype": torch.float16,
    "schedule.add_noise(latents, noise, tensor([3, 700]))":
        noisy_at_each(torch.tensor([3, 700]), LATENTS, NOISE),
    "schedule.add_noise(noise, latents, tensor([500, 0]))":
        noisy_at_each(torch.tensor([500, 0]), NOISE, LATENTS),
    "schedule.add_noise(latents[:1], noise[:1], tensor([9]))":
        noisy_at_each(torch.tensor([9]), LATENTS[:1], NOISE[:1]),
    "schedule.predict_original(latents.half(), noise.half(), 500).dtype": torch.float16,
    "schedule.predict_original(latents, noise, 500)": original_of(LATENTS, NOISE, 500),
    "schedule.predict_original(noise, latents, 500)": original_of(NOISE, LATENTS, 500),
    "schedule.predict_original(noise, latents, 20)": original_of(NOISE, LATENTS, 20),
    "[list(t) for t in (schedule.inference_timesteps(4), schedule.inference_timesteps(2))]":
        [[751, 501, 251, 1], [501, 1]],
    "list(schedule.inference_timesteps(4, 5)[1:])": [601, 401, 201],
    "list(schedule.inference_timesteps(4))": [751, 501, 251, 1],
    "ddim_step(schedule, latents, predicted_noise, 501, 481, 1.0, noise)":
        posterior(501, 481)[0] + math.sqrt(posterior(501, 481)[1]) * NOISE,
    "ddim_step(schedule, latents, predicted_noise, 501, 481, 0.0, noise)": moved(501, 481),
    "ddim_step(schedule, predicted_noise, latents, 501, 21)": moved(501, 21, PREDICTED_NOISE, LATENTS),
    "ddpm_step(schedule, latents, predicted_noise, 501, 481, noise)":
        posterior(501, 481)[0] + math.sqrt(posterior(501, 481)[1]) * NOISE,
    "ddpm_step(schedule, latents, predicted_noise, 501, 481, 0 * noise)": posterior(501, 481)[0],
    "euler_step(schedule, latents, predicted_noise, 501, 481)": moved(501, 481),
    "euler_step(schedule, predicted_noise, latents, 501, 21)": moved(501, 21, PREDICTED_NOISE, LATENTS),
    "dpm_solver_2m_step(schedule, latents, predicted_noise, 951, 801)": moved(951, 801),
    "dpm_solver_2m_step(schedule, predicted_noise, latents, 801, 401)": moved(801, 401, PREDICTED_NOISE, LATENTS),
}


@pytest.mark.parametrize("name", [
    pytest.param("add_noise", marks=noising), pytest.param("predict_original", marks=guessing),
    pytest.param("inference_timesteps", marks=timesteps), pytest.param("ddim_step", marks=ddim),
    pytest.param("ddpm_step", marks=ddpm), pytest.param("euler_step", marks=euler),
    pytest.param("dpm_solver_2m_step", marks=dpm),
])
def test_one_schedule_is_used_again_and_again(stage, name):
    def make(module):
        given = {"schedule": schedule(module), "tensor": torch.tensor, **TENSORS}
        return lambda call: evaluated(call, given)(module)

    calls = [{"call": call} for call in IN_TURN if name in call]
    check_in_turn(
        stage, f"{name}, called several times in turn with one schedule", make, IN_TURN.get, [*calls, *calls],
        fresh=lambda m: lambda call: make(m)(call),
    )


@pytest.mark.exercise("8.1", "8.2")
def test_tables_of_several_schedules(stage):
    def answer(module):
        return lambda *arguments: module.alphas_cumprod(module.scaled_linear_betas(*arguments))

    def wanted(steps, start, end):
        return torch.from_numpy(np.cumprod(1.0 - np.linspace(start**0.5, end**0.5, steps) ** 2))

    calls = [(1000, 0.00085, 0.012), (1000, 0.0001, 0.02), (50, 0.00085, 0.012), (1000, 0.00085, 0.012)]
    check_in_turn(
        stage, "alphas_cumprod(scaled_linear_betas(num_steps, start, end)), called several times in turn", answer,
        wanted, [dict(zip(("num_steps", "start", "end"), arguments)) for arguments in calls],
    )


# --- by name, and on a GPU ------------------------------------------------------------------------------------------

BY_NAME = "schedule=schedule, latents=latents, predicted_noise=predicted_noise, timestep=501, next_timestep=481"
TIMES = torch.tensor([981, 20])
NOISY = noisy_at_each(TIMES, LATENTS, NOISE)
HERE, GUESS = moved(501, 481), original_of(LATENTS, PREDICTED_NOISE, 501)
MEAN, VARIANCE = posterior(501, 481)
DRAWN = MEAN + math.sqrt(VARIANCE) * NOISE  # DDIM with an eta of 1 is DDPM

each_step = pytest.mark.parametrize(
    ("stepper", "more", "wanted"),
    [
        of_ddim("", HERE),
        of_ddim(", eta=0, noise=None", HERE, id="ddim, eta 0"),
        of_ddim(", eta=1, noise=noise", DRAWN, id="ddim, eta 1"),
        of_ddpm(", noise=noise", DRAWN),
        of_euler("", HERE),
        of_dpm(", last_timestep=None, last_original=None", HERE, id="dpm, first step"),
        of_dpm(", last_timestep=521, last_original=guess", HERE),
    ],
)


@betas
def test_betas_by_name(stage):
    wanted = torch.from_numpy(np.linspace(0.1, 0.5, 7) ** 2)
    check(stage, "scaled_linear_betas(num_steps=7, start=0.01, end=0.25)", wanted)


@products
def test_products_by_name(stage):
    check(stage, "alphas_cumprod(betas=betas)", torch.from_numpy(ABAR), betas=torch.from_numpy(BETAS))


@noising
def test_add_noise_by_name(stage):
    call = "schedule.add_noise(original=latents, noise=noise, timesteps=timesteps)"
    check_step(stage, call, NOISY, timesteps=TIMES)


@guessing
def test_predict_original_by_name(stage):
    call = "schedule.predict_original(noisy=latents, predicted_noise=predicted_noise, timestep=500)"
    check_step(stage, call, original_of(LATENTS, PREDICTED_NOISE, 500))


@timesteps
@pytest.mark.parametrize(("intervals", "wanted"), [(None, [501, 1]), (2, [501, 1]), (3, [667, 334])])
def test_timesteps_by_name(stage, intervals, wanted):
    check_call(stage, f"list(schedule.inference_timesteps(num_steps=2, intervals={intervals}))", wanted)


@each_step
def test_every_argument_of_a_step_by_its_name(stage, stepper, more, wanted):
    check_step(stage, f"{stepper}({BY_NAME}{more})", wanted, guess=GUESS)


def check_there(stage, call, expected, **given):
    """A call with TENSORS and given ones that are on a GPU; the schedule's tables are on the processor."""
    given = {name: pretended.moved(value) for name, value in (TENSORS | {"guess": GUESS} | given).items()}
    check_on_gpu(
        stage, lambda m: evaluated(call, {"schedule": schedule(m), **given})(m), single(expected), call,
        hint="the tables stay on the processor, in float64; what is taken from them has to go where the latents are.",
    )


@noising
@pytest.mark.parametrize("timesteps", ["timesteps", "timesteps.cpu()"])
def test_add_noise_on_a_gpu(stage, timesteps):
    check_there(stage, f"schedule.add_noise(latents, noise, {timesteps})", NOISY, timesteps=TIMES)


@guessing
def test_predict_original_on_a_gpu(stage):
    call = "schedule.predict_original(latents, predicted_noise, 500)"
    check_there(stage, call, original_of(LATENTS, PREDICTED_NOISE, 500))


@each_step
def test_a_step_on_a_gpu(stage, stepper, more, wanted):
    check_there(stage, f"{stepper}({BY_NAME}{more})", wanted)


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("8.1", "8.2", "8.3", "8.4", "8.5", "8.6", "8.7", "8.8", "8.9")
@each_drawing()
def test_what_make_generate_draws(stage, checkpoint_folder, drawing):
    check_drawing(stage, drawing, checkpoint_folder)
