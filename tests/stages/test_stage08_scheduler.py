"""Stage 8 against formulas in numpy, the schedulers of diffusers, and published sums."""

import functools
import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from course.feedback.compare import check, rand

betas = pytest.mark.exercise("8.1")
products = pytest.mark.exercise("8.2")
noising = pytest.mark.exercise("8.3")
guessing = pytest.mark.exercise("8.4")
timesteps = pytest.mark.exercise("8.5")
ddim = pytest.mark.exercise("8.6")
ddpm = pytest.mark.exercise("8.7")
euler = pytest.mark.exercise("8.8")
dpm = pytest.mark.exercise("8.9")

BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2  # Stable Diffusion's
ABAR = np.cumprod(1.0 - BETAS)
LINEAR_BETAS = np.linspace(0.0001, 0.02, 1000)  # those of the DDPM paper

SD1 = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading", "steps_offset": 1,
}
SINGLE = 1e-5  # the tables of diffusers are float32: products of up to 1000 rounded numbers


def ddim_scheduler():
    return DDIMScheduler(**SD1, clip_sample=False, set_alpha_to_one=False)


def ddpm_scheduler():
    return DDPMScheduler(**SD1, clip_sample=False, variance_type="fixed_small")


def euler_scheduler():
    return EulerDiscreteScheduler(**SD1)


def dpm_scheduler():
    return DPMSolverMultistepScheduler(**SD1)


def schedule(module, betas=BETAS):
    """A NoiseSchedule with these betas, whatever exercises 8.1 and 8.2 return."""
    with (
        patch.object(module, "scaled_linear_betas", lambda *args, **kwargs: torch.from_numpy(betas)),
        patch.object(module, "alphas_cumprod", lambda betas: torch.from_numpy(np.cumprod(1.0 - betas.numpy()))),
    ):
        return module.NoiseSchedule(len(betas))


def abar(timestep):
    return ABAR[timestep] if timestep >= 0 else 1.0


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
        stage, lambda m: torch.diff(torch.sqrt(m.scaled_linear_betas())),
        torch.full((999,), (0.012**0.5 - 0.00085**0.5) / 999, dtype=torch.float64),
        "the differences between neighbouring sqrt(scaled_linear_betas())",
        hint="are the square roots of the betas evenly spaced, rather than the betas?",
        tolerance=1e-9,  # differences of 8e-5 between numbers of 0.1: three digits of float64 are lost
    )


@betas
def test_betas_with_other_arguments(stage):
    check(
        stage, lambda m: m.scaled_linear_betas(7, 0.01, 0.25),
        torch.from_numpy(np.linspace(0.1, 0.5, 7) ** 2), "scaled_linear_betas(num_steps=7, start=0.01, end=0.25)",
        hint="use the arguments, and float64.",
    )


@betas
def test_betas_of_diffusers(stage):
    check(
        stage, lambda m: m.scaled_linear_betas().float(), ddpm_scheduler().betas, "scaled_linear_betas()",
        tolerance=1e-6,  # theirs are squares of float32 numbers
    )


@products
def test_product_so_far(stage):
    given_betas = torch.tensor([0.5, 0.2, 0.1], dtype=torch.float64)
    check(
        stage, lambda m: m.alphas_cumprod(given_betas), torch.tensor([0.5, 0.4, 0.36], dtype=torch.float64),
        "alphas_cumprod(torch.tensor([0.5, 0.2, 0.1]))",
        hint="multiply 1 - beta, not beta; each entry is the product up to and including its own factor.",
        inputs={"betas": given_betas},
    )


@products
def test_product_of_stable_diffusions_betas(stage):
    check(
        stage, lambda m: m.alphas_cumprod(torch.from_numpy(BETAS)), torch.from_numpy(ABAR), "alphas_cumprod(betas)",
        hint="a product that has been rounded to float32 on the way is off by 1e-6.",
    )
    check(
        stage, lambda m: m.alphas_cumprod(torch.from_numpy(BETAS)).float(), ddpm_scheduler().alphas_cumprod,
        "alphas_cumprod(betas)", tolerance=SINGLE,
    )


# --- there and back --------------------------------------------------------------------------------------------------


@noising
def test_picture_alone_shrinks_by_the_square_root_of_abar(stage):
    original, t = rand(2, 4, 3, 5), torch.tensor([400, 400])
    check(
        stage, lambda m: schedule(m).add_noise(original, torch.zeros_like(original), t),
        math.sqrt(ABAR[400]) * original,
        "add_noise(original, zeros, [400, 400])",
        hint="the picture's factor is the square root of alphas_cumprod at t (not of 1 - beta_t).",
    )


@noising
def test_noise_alone_grows_by_the_square_root_of_the_rest(stage):
    noise, t = rand(2, 4, 3, 5), torch.tensor([400, 400])
    check(
        stage, lambda m: schedule(m).add_noise(torch.zeros_like(noise), noise, t), math.sqrt(1.0 - ABAR[400]) * noise,
        "add_noise(zeros, noise, [400, 400])", hint="the noise's factor is sqrt(1 - abar): squares of both make 1.",
    )


@noising
def test_every_sample_has_its_own_timestep(stage):
    original, noise, t = rand(4, 3, 4, 4), rand(4, 3, 4, 4, seed=1), torch.tensor([0, 999, 1, 500])
    a = torch.from_numpy(ABAR)[t].reshape(4, 1, 1, 1)  # as wide as the batch: broadcasting along the width would run
    check(
        stage, lambda m: schedule(m).add_noise(original, noise, t), a.sqrt() * original + (1 - a).sqrt() * noise,
        "add_noise(original, noise, timesteps) with timesteps = [0, 999, 1, 500]",
        hint="one factor per sample: give them the shape (batch, 1, 1, 1).",
        inputs={"original": original, "noise": noise, "timesteps": t},
    )


@noising
def test_noisy_latents_of_diffusers(stage):
    original, noise, t = rand(3, 4, 6, 5), rand(3, 4, 6, 5, seed=1), torch.tensor([981, 20, 333])
    check(
        stage, lambda m: schedule(m).add_noise(original, noise, t), ddpm_scheduler().add_noise(original, noise, t),
        "add_noise(original, noise, [981, 20, 333])", tolerance=SINGLE,
    )


@noising
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_noisy_latents_keep_the_dtype(stage, dtype):
    original, noise, t = rand(2, 4, 6, 5, dtype=dtype), rand(2, 4, 6, 5, seed=1, dtype=dtype), torch.tensor([3, 700])
    a = torch.from_numpy(ABAR)[t].reshape(2, 1, 1, 1)
    check(
        stage, lambda m: schedule(m).add_noise(original, noise, t),
        (a.sqrt() * original.double() + (1 - a).sqrt() * noise.double()).to(dtype),
        f"add_noise(original, noise, timesteps) in {str(dtype).removeprefix('torch.')}",
        tolerance={torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}[dtype],  # a few roundings
        hint="take the roots in float64, then convert them to the dtype of original.",
    )


@noising
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_little_noise_in_half_precision(stage, dtype):
    noise, t = rand(2, 4, 3, 5, seed=1, dtype=dtype), torch.tensor([0, 3])
    sigma = torch.from_numpy(1.0 - ABAR)[t].sqrt().reshape(2, 1, 1, 1)
    check(
        stage, lambda m: schedule(m).add_noise(torch.zeros_like(noise), noise, t), (sigma * noise.double()).to(dtype),
        f"add_noise(zeros, noise, [0, 3]) in {str(dtype).removeprefix('torch.')}",
        tolerance={torch.float16: 2e-3, torch.bfloat16: 1.5e-2}[dtype],  # a few roundings
        hint="near 1, half precision rounds abar so that 1 - abar is wrong: take the roots in float64, then convert.",
    )


@guessing
def test_right_noise_gives_back_the_original(stage):
    original, noise = rand(2, 4, 3, 5, scale=3.0), rand(2, 4, 3, 5, seed=1)
    noisy = math.sqrt(ABAR[800]) * original + math.sqrt(1.0 - ABAR[800]) * noise
    check(
        stage, lambda m: schedule(m).predict_original(noisy, noise, 800), original,
        "predict_original(noisy, noise, 800) with the noise that was added",
        hint="add_noise solved for the original: subtract the scaled noise, then divide by sqrt(abar). No clipping.",
        inputs={"noisy": noisy, "predicted_noise": noise},
    )


@guessing
@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_guess_from_any_noise(stage, t):
    noisy, noise = rand(2, 4, 3, 5), rand(2, 4, 3, 5, seed=1)
    check(
        stage, lambda m: schedule(m).predict_original(noisy, noise, t), original_of(noisy, noise, t),
        f"predict_original(noisy, predicted_noise, {t})", hint="use abar of this timestep.",
    )


# --- which timesteps -------------------------------------------------------------------------------------------------


@timesteps
def test_fifty_timesteps(stage):
    check(
        stage, lambda m: list(schedule(m).inference_timesteps(50)), list(range(981, 0, -20)), "inference_timesteps(50)",
        hint="981, 961, ..., 21, 1: falling, 20 apart, and the last one is 1.",
    )


@timesteps
def test_fifty_timesteps_with_one_interval_more(stage):
    check(
        stage, lambda m: list(schedule(m).inference_timesteps(50, 51)), list(range(951, 19, -19)),
        "inference_timesteps(50, intervals=51)",
        hint="951, 932, ..., 39, 20: the stride comes from the intervals, and the 1 at the end is left out.",
    )


@timesteps
def test_one_timestep(stage):
    check(stage, lambda m: list(schedule(m).inference_timesteps(1)), [1], "inference_timesteps(1)")


@timesteps
def test_timesteps_of_a_short_schedule(stage):
    check(
        stage, lambda m: list(schedule(m, BETAS[:100]).inference_timesteps(4)), [76, 51, 26, 1],
        "NoiseSchedule(100).inference_timesteps(4)", hint="use num_train_timesteps, which need not be 1000.",
    )


@timesteps
@given(st.integers(1, 998))
def test_timesteps_of_diffusers(stage, num_steps):
    makers = {"DDIM": ddim_scheduler, "DDPM": ddpm_scheduler, "Euler": euler_scheduler, "DPM": dpm_scheduler}
    for name, make in makers.items():
        scheduler = make()
        intervals = num_steps + 1 if name == "DPM" else None
        scheduler.set_timesteps(num_steps)
        check(
            stage, lambda m: list(schedule(m).inference_timesteps(num_steps, intervals)),
            [int(t) for t in scheduler.timesteps], f"inference_timesteps({num_steps}, {intervals}) (of {name})",
            hint="whole numbers: the stride is rounded down.",
        )


@timesteps
@pytest.mark.parametrize(
    ("num_steps", "strength", "index"),
    [
        (50, 1.0, 0), (50, 0.8, 10), (50, 0.5, 25), (50, 0.58, 21), (50, 0.07, 47), (50, 0.001, 49), (1, 0.3, 0),
        (20, 0.14, 18),
    ],
)
def test_start_index(stage, num_steps, strength, index):
    check(
        stage, lambda m: schedule(m).start_index(num_steps, strength), index, f"start_index({num_steps}, {strength})",
        hint="int(num_steps * strength) steps are taken, at least one; 50 * 0.58 counts as 29.",
    )


# --- steps -----------------------------------------------------------------------------------------------------------


def latents_and_noise(seed=0):
    return rand(2, 4, 3, 5, seed=2 * seed, scale=2.0), rand(2, 4, 3, 5, seed=2 * seed + 1)


def with_precise_tables(scheduler):
    scheduler.alphas_cumprod = torch.from_numpy(ABAR)
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    return scheduler


def walk(step, num_steps, intervals=None):
    """The latents after each of num_steps steps, with random noise in place of the U-Net's prediction."""
    stride = 1000 // (intervals or num_steps)
    last = 1 if intervals is None else 1 + stride
    visited = [last + i * stride for i in reversed(range(num_steps))]
    latents, results = rand(2, 4, 3, 5), []
    for i, (t, following) in enumerate(zip(visited, [*visited[1:], -1])):
        latents = step(latents, rand(2, 4, 3, 5, seed=10 + i), t, following)
        results.append(latents)
    return torch.stack(results)


@functools.cache
def walk_of_diffusers(make_scheduler, num_steps, scaled=False, intervals=None, **kwargs):
    """The same with a scheduler of diffusers. scaled: it works on latents / sqrt(abar)."""
    scheduler = with_precise_tables(make_scheduler())
    scheduler.set_timesteps(num_steps)
    position = iter(range(num_steps))

    def step(latents, noise, t, following):
        here, there = (math.sqrt(abar(t)), math.sqrt(abar(following))) if scaled else (1.0, 1.0)
        extra = {"variance_noise": rand(2, 4, 3, 5, seed=100 + t)} if "eta" in kwargs else {}
        at = scheduler.timesteps[next(position)]
        return scheduler.step(noise, at, (latents / here), **kwargs, **extra).prev_sample.double() * there

    return walk(step, num_steps, intervals)


def our_walk(module, stepper, num_steps, **kwargs):
    noise_schedule = schedule(module)

    def step(latents, noise, t, following):
        extra = {"noise": rand(2, 4, 3, 5, seed=100 + t)} if kwargs.get("eta") else {}
        return getattr(module, stepper)(noise_schedule, latents, noise, t, following, **kwargs, **extra)

    return walk(step, num_steps)


def keeps_float32(stage, stepper, *rest):
    latents, noise = rand(2, 4, 3, 5, dtype=torch.float32), rand(2, 4, 3, 5, seed=1, dtype=torch.float32)

    def run(module):
        result = getattr(module, stepper)(schedule(module), latents, noise, 501, 481, *rest)
        return str(result.dtype)

    check(
        stage, run, "torch.float32", f"the dtype of {stepper}(...) with float32 latents",
        hint="factors as Python numbers (float(...), math.sqrt) leave the dtype alone.",
        inputs={"latents": latents, "predicted_noise": noise},
    )


@ddim
def test_ddim_with_the_right_noise_arrives_at_less_noise(stage):
    original, noise = rand(2, 4, 3, 5, scale=3.0), rand(2, 4, 3, 5, seed=1)
    latents = math.sqrt(ABAR[801]) * original + math.sqrt(1.0 - ABAR[801]) * noise
    check(
        stage, lambda m: m.ddim_step(schedule(m), latents, noise, 801, 401),
        math.sqrt(ABAR[401]) * original + math.sqrt(1.0 - ABAR[401]) * noise,
        "ddim_step(schedule, latents, noise, 801, 401) with the noise that is in the latents",
        hint="add_noise at next_timestep, with the guess of the original and the same noise; not at timestep - 1.",
        inputs={"latents": latents, "predicted_noise": noise},
    )


@ddim
def test_ddim_ends_at_the_first_training_timestep(stage):
    latents, noise = latents_and_noise()
    check(
        stage, lambda m: m.ddim_step(schedule(m), latents, noise, 1, -1),
        math.sqrt(ABAR[0]) * original_of(latents, noise, 1) + math.sqrt(1.0 - ABAR[0]) * noise,
        "ddim_step(schedule, latents, predicted_noise, 1, -1)", hint="-1 counts as timestep 0 here: abar_0, not 1.",
    )


@ddim
@pytest.mark.parametrize("num_steps", [1, 7, 50])
def test_ddim_of_diffusers(stage, num_steps):
    check(
        stage, lambda m: our_walk(m, "ddim_step", num_steps),
        walk_of_diffusers(ddim_scheduler, num_steps), f"{num_steps} steps of ddim_step",
    )


@ddim
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddim_with_fresh_noise(stage, eta):
    check(
        stage, lambda m: our_walk(m, "ddim_step", 7, eta=eta),
        walk_of_diffusers(ddim_scheduler, 7, eta=eta), f"7 steps of ddim_step with eta={eta}",
        hint="the fresh noise comes in with sigma; that of the prediction then with sqrt(1 - abar_next - sigma^2).",
    )


@ddim
def test_ddim_needs_no_noise_by_default(stage):
    latents, noise = latents_and_noise()
    fresh = rand(2, 4, 3, 5, seed=9)
    check(
        stage, lambda m: m.ddim_step(schedule(m), latents, noise, 501, 481, noise=fresh),
        math.sqrt(ABAR[481]) * original_of(latents, noise, 501) + math.sqrt(1.0 - ABAR[481]) * noise,
        "ddim_step(schedule, latents, predicted_noise, 501, 481, noise=noise)", hint="eta is 0 if none is given.",
    )


@ddim
def test_ddim_keeps_float32(stage):
    keeps_float32(stage, "ddim_step")


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

    wanted = 172.0067 * float(np.sqrt(1.0 - LINEAR_BETAS[0]))  # diffusers then goes on to abar = 1
    check(
        stage, run, wanted,
        "sum |x| after DDIM steps 900 -> 800 -> ... -> 0 of the model x * t / (t + 1), linear betas",
        tolerance=1e-5,  # seven published digits, computed in float32
    )


def posterior(original, latents, timestep, next_timestep):
    """Mean and variance of x_next given x_t and x_0: two Gaussians multiplied, so that their precisions add up."""
    alpha = abar(timestep) / abar(next_timestep)
    from_original = 1.0 / (1.0 - abar(next_timestep))
    from_latents = alpha / (1.0 - alpha)
    precision = from_original + from_latents
    means = math.sqrt(abar(next_timestep)) * original, latents / math.sqrt(alpha)
    return (from_original * means[0] + from_latents * means[1]) / precision, 1.0 / precision


@ddpm
def test_mean_of_ddpm(stage):
    latents, noise = latents_and_noise()
    check(
        stage, lambda m: m.ddpm_step(schedule(m), latents, noise, 501, 481, torch.zeros_like(latents)),
        posterior(original_of(latents, noise, 501), latents, 501, 481)[0],
        "ddpm_step(schedule, latents, predicted_noise, 501, 481, noise=zeros)",
        hint="with a stride, alpha is abar_t / abar_next and beta is 1 - alpha; neither is the table's entry at t.",
        inputs={"latents": latents, "predicted_noise": noise},
    )


@ddpm
def test_noise_of_ddpm(stage):
    latents, noise = latents_and_noise()
    fresh = rand(2, 4, 3, 5, seed=9)

    def run(module):
        with_noise, without = (
            module.ddpm_step(schedule(module), latents, noise, 501, 481, x) for x in (fresh, torch.zeros_like(fresh))
        )
        return with_noise - without

    check(
        stage, run, math.sqrt(posterior(latents, latents, 501, 481)[1]) * fresh,
        "what the noise adds to ddpm_step(schedule, latents, predicted_noise, 501, 481, noise)",
        hint="noise has to be scaled with the square root of the variance.", inputs={"noise": fresh},
    )


@ddpm
def test_last_step_of_ddpm_is_the_guess(stage):
    latents, noise = latents_and_noise()
    check(
        stage, lambda m: m.ddpm_step(schedule(m), latents, noise, 1, -1, rand(2, 4, 3, 5, seed=9)),
        original_of(latents, noise, 1), "ddpm_step(schedule, latents, predicted_noise, 1, -1, noise)",
        hint="abar is 1 at the end (schedule.alpha_bar(-1)), so nothing of latents and noise is left.",
    )


@ddpm
@pytest.mark.parametrize("num_steps", [1, 7, 50])
def test_ddpm_of_diffusers(stage, num_steps):
    def fresh(t):
        return torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(t), dtype=torch.float64)

    def run(module):
        noise_schedule = schedule(module)
        return walk(lambda x, e, t, after: module.ddpm_step(noise_schedule, x, e, t, after, fresh(t)), num_steps)

    scheduler = with_precise_tables(ddpm_scheduler())
    scheduler.set_timesteps(num_steps)
    wanted = walk(
        lambda x, e, t, _: scheduler.step(e, t, x, generator=torch.Generator().manual_seed(t)).prev_sample, num_steps
    )
    check(
        stage, run, wanted, f"{num_steps} steps of ddpm_step",
        tolerance=1e-9,  # in its last step, diffusers adds noise with a standard deviation of 1e-10
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


@ddpm
def test_ddpm_keeps_float32(stage):
    keeps_float32(stage, "ddpm_step", rand(2, 4, 3, 5, seed=9, dtype=torch.float32))


@euler
def test_euler_with_the_right_noise_stays_on_the_line(stage):
    original, noise = rand(2, 4, 3, 5, scale=3.0), rand(2, 4, 3, 5, seed=1)
    latents = math.sqrt(ABAR[801]) * original + math.sqrt(1.0 - ABAR[801]) * noise
    check(
        stage, lambda m: m.euler_step(schedule(m), latents, noise, 801, 401),
        math.sqrt(ABAR[401]) * original + math.sqrt(1.0 - ABAR[401]) * noise,
        "euler_step(schedule, latents, noise, 801, 401) with the noise that is in the latents",
        hint="divide by sqrt(abar_t) before, multiply by sqrt(abar_next) after; sigma is sqrt((1 - abar) / abar).",
        inputs={"latents": latents, "predicted_noise": noise},
    )


@euler
def test_last_step_of_euler_is_the_guess(stage):
    latents, noise = latents_and_noise()
    check(
        stage, lambda m: m.euler_step(schedule(m), latents, noise, 1, -1), original_of(latents, noise, 1),
        "euler_step(schedule, latents, predicted_noise, 1, -1)", hint="sigma_next is 0 at the end and abar_next 1.",
    )


@euler
@pytest.mark.parametrize("num_steps", [1, 7, 50])
def test_euler_of_diffusers(stage, num_steps):
    check(
        stage, lambda m: our_walk(m, "euler_step", num_steps),
        walk_of_diffusers(euler_scheduler, num_steps, scaled=True), f"{num_steps} steps of euler_step",
        tolerance=SINGLE, hint="the sign: sigma falls, so sigma_next - sigma is negative.",
    )


@euler
def test_euler_keeps_float32(stage):
    keeps_float32(stage, "euler_step")


def log_snr_half(timestep):
    return 0.5 * (math.log(abar(timestep)) - math.log(1.0 - abar(timestep)))


@dpm
def test_first_step_of_dpm_solver_with_the_right_noise(stage):
    original, noise = rand(2, 4, 3, 5, scale=3.0), rand(2, 4, 3, 5, seed=1)
    latents = math.sqrt(ABAR[801]) * original + math.sqrt(1.0 - ABAR[801]) * noise
    check(
        stage, lambda m: m.dpm_solver_2m_step(schedule(m), latents, noise, 801, 401),
        math.sqrt(ABAR[401]) * original + math.sqrt(1.0 - ABAR[401]) * noise,
        "dpm_solver_2m_step(schedule, latents, noise, 801, 401) with the noise that is in the latents",
        hint="h is lambda_next - lambda_t, which is positive; the signs of h and of the last term.",
        inputs={"latents": latents, "predicted_noise": noise},
    )


@dpm
def test_second_step_of_dpm_solver_looks_back(stage):
    latents, noise = latents_and_noise()
    last_original = rand(2, 4, 3, 5, seed=7)

    def run(module):
        arguments = schedule(module), latents, noise, 801, 401
        return module.dpm_solver_2m_step(*arguments, 951, last_original) - module.dpm_solver_2m_step(*arguments)

    h, last_h = log_snr_half(401) - log_snr_half(801), log_snr_half(801) - log_snr_half(951)
    change = h / (2.0 * last_h) * (original_of(latents, noise, 801) - last_original)
    check(
        stage, run, math.sqrt(ABAR[401]) * (1.0 - math.exp(-h)) * change,
        "what last_timestep=951 and last_original add to dpm_solver_2m_step(schedule, latents, noise, 801, 401)",
        hint="r is the last step's length in lambda over this one's; the guess goes on by 1 / (2 r) of its change.",
        inputs={"latents": latents, "predicted_noise": noise, "last_original": last_original},
    )


@dpm
@pytest.mark.parametrize("last", [(), (20, rand(2, 4, 3, 5, seed=7))], ids=["only step", "after another step"])
def test_last_step_of_dpm_solver_is_the_guess(stage, last):
    latents, noise = latents_and_noise()
    check(
        stage, lambda m: m.dpm_solver_2m_step(schedule(m), latents, noise, 1, -1, *last),
        original_of(latents, noise, 1),
        f"dpm_solver_2m_step(schedule, latents, predicted_noise, 1, -1{', 20, last_original' if last else ''})",
        hint="sigma is 0 at the end and lambda infinite: return the original as guessed now.",
    )


@dpm
@pytest.mark.parametrize("num_steps", [1, 2, 7, 50])
def test_dpm_solver_of_diffusers(stage, num_steps):
    def run(module):
        noise_schedule, last = schedule(module), []

        def step(latents, noise, t, following):
            result = module.dpm_solver_2m_step(noise_schedule, latents, noise, t, following, *last)
            last[:] = t, original_of(latents, noise, t)
            return result

        return walk(step, num_steps, num_steps + 1)

    check(
        stage, run, walk_of_diffusers(dpm_scheduler, num_steps, intervals=num_steps + 1),
        f"{num_steps} steps of dpm_solver_2m_step", tolerance=SINGLE,
    )


@dpm
def test_dpm_solver_keeps_float32(stage):
    keeps_float32(stage, "dpm_solver_2m_step", 521, rand(2, 4, 3, 5, seed=7, dtype=torch.float32))


# --- the samplers beside each other ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stepper",
    [
        pytest.param("ddim_step", marks=ddim),
        pytest.param("euler_step", marks=euler),
        pytest.param("dpm_solver_2m_step", marks=dpm),
    ],
)
def test_timestep_zero_is_not_yet_the_end(stage, stepper):
    latents, noise = latents_and_noise(9)
    check(
        stage, lambda m: getattr(m, stepper)(schedule(m), latents, noise, 21, 0),
        math.sqrt(ABAR[0]) * original_of(latents, noise, 21) + math.sqrt(1.0 - ABAR[0]) * noise,
        f"{stepper}(schedule, latents, predicted_noise, 21, 0)",
        hint="at timestep 0 there is a little noise left; -1 is the end.",
    )


@pytest.mark.exercise("8.6", "8.8", "8.9")
@given(st.integers(2, 999), st.data(), st.integers(0, 1000))
def test_single_steps_of_the_deterministic_samplers_agree(stage, t, data, seed):
    following = data.draw(st.integers(1, t - 1))
    latents, noise = latents_and_noise(seed)
    wanted = math.sqrt(ABAR[following]) * original_of(latents, noise, t) + math.sqrt(1.0 - ABAR[following]) * noise
    for stepper in ("ddim_step", "euler_step", "dpm_solver_2m_step"):
        check(
            stage, lambda m: getattr(m, stepper)(schedule(m), latents, noise, t, following), wanted,
            f"{stepper}(schedule, latents, predicted_noise, {t}, {following})",
        )


@pytest.mark.exercise("8.7")
@given(st.integers(2, 999), st.data(), st.integers(0, 1000))
def test_ddpm_draws_from_the_product_of_two_gaussians(stage, t, data, seed):
    following = data.draw(st.integers(1, t - 1))
    latents, noise = latents_and_noise(seed)
    fresh = rand(2, 4, 3, 5, seed=9)
    mean, variance = posterior(original_of(latents, noise, t), latents, t, following)
    check(
        stage, lambda m: m.ddpm_step(schedule(m), latents, noise, t, following, fresh),
        mean + math.sqrt(variance) * fresh,
        f"ddpm_step(schedule, latents, predicted_noise, {t}, {following}, noise)", tolerance=1e-9,
    )


@pytest.mark.exercise("8.1", "8.2")
def test_new_schedule(stage):
    def run(module):
        new = module.NoiseSchedule()
        names = "num_train_timesteps", "betas", "alphas_cumprod"
        return {name: getattr(new, name) for name in names}

    check(
        stage, run,
        {"num_train_timesteps": 1000, "betas": torch.from_numpy(BETAS), "alphas_cumprod": torch.from_numpy(ABAR)},
        "NoiseSchedule()", hint="NoiseSchedule() takes its tables from scaled_linear_betas and alphas_cumprod.",
    )
