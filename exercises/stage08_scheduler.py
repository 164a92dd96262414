"""Stage 8: the noise schedule, and four ways to go through it backwards.

For training, noise is added to a picture in 1000 small steps, x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) e, with new
noise e in each. A sum of independent Gaussian variables is Gaussian, so all steps up to t can be written as one:

    x_t = signal_t x_0 + sigma_t e

with two numbers that follow from the betas (exercises 8.2 and 8.3). Sampling solves this for x_0: a prediction of the
noise e gives a guess of the picture x_0, and from the guess one can jump to any other t. A single jump from nearly pure
noise to the end gives about the average of all pictures that the noise could have come from, which is blurred. So a
sampler takes many steps: predict, go a part of the way, predict again. DDIM mixes the guess with the predicted noise;
DDPM adds fresh noise; Euler takes a straight step along the slope of a differential equation; DPM-Solver++(2M) also
uses the guess of the step before, and needs fewer steps.

Stable Diffusion's betas are squares of evenly growing numbers. These numbers, sqrt(beta_t), are the standard deviations
of the noise that the steps add. Between the first and the last, such betas are smaller than evenly growing ones with
the same two ends, so the noise comes in more slowly.

All steppers have the same first five arguments and work on the same latents; what else a sampler needs, fresh noise or
the last guess, follows behind them. `next_timestep` is the one to arrive at, smaller than `timestep`; -1 stands for the
clean picture. The schedule is kept on the CPU in float64: it is read one number at a time.

Sources: Ho et al., "Denoising Diffusion Probabilistic Models", 2020, arXiv:2006.11239, equations 4, 6, 7 and 15; Song
et al., "Denoising Diffusion Implicit Models", 2021, arXiv:2010.02502, equations 12 and 16, section 4.2 and appendix D.2
(fewer timesteps); Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
arXiv:2206.00364, algorithm 1; Lu et al., "DPM-Solver++", 2022, arXiv:2211.01095, algorithm 2.
"""

import math

import torch
from torch import Tensor


def scaled_linear_betas(num_steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """Exercise 8.1: how much noise each training step adds: betas whose square roots grow evenly.

        sqrt(beta_t) runs in equal steps from sqrt(start) to sqrt(end)

    Args:
        num_steps: the number of training steps.
        start, end: the first and the last beta, between 0 and 1.

    Returns:
        (num_steps,), float64.
    """
    raise NotImplementedError("exercise 8.1: how much noise each training step adds")


def alphas_cumprod(betas: Tensor) -> Tensor:
    """Exercise 8.2: how much of the picture's variance is left after each training step.

        abar_t = (1 - beta_0) * (1 - beta_1) * ... * (1 - beta_t)

    Args:
        betas: (num_steps,).

    Returns:
        (num_steps,), falling, between 0 and 1.
    """
    raise NotImplementedError("exercise 8.2: how much of the picture's variance is left after each training step")


class NoiseSchedule:
    """Given: the betas, their running product, and what follows from them.

    Attributes:
        num_train_timesteps: 1000 in Stable Diffusion; timesteps run from 0 (hardly any noise) to 999 (nearly
            all noise).
        betas, alphas_cumprod: (num_train_timesteps,), float64, on the CPU.
    """

    def __init__(self, num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012):
        self.num_train_timesteps = num_train_timesteps
        self.betas = scaled_linear_betas(num_train_timesteps, beta_start, beta_end)
        self.alphas_cumprod = alphas_cumprod(self.betas)

    def alpha_bar(self, timestep: int) -> float:
        """Given: abar at a timestep; 1, no noise at all, at -1."""
        return 1.0 if timestep < 0 else float(self.alphas_cumprod[timestep])

    def add_noise(self, original: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Exercise 8.3: jump from clean latents to any timestep in one go.

            noisy = signal * original + sigma * noise          each sample with its own t, so with its own factors

        Which factors, both positive, are these? abar_t is the share of the original's variance that is left at t. The
        noise has variance one and is independent of the original. If the original's variance is one too, that of the
        noisy latents is one at every t.

        Args:
            original: (batch, channels, height, width), clean.
            noise: the same shape, standard normal.
            timesteps: (batch,), whole numbers 0 ... num_train_timesteps - 1, on any device.

        Returns:
            The noisy latents, with the shape, dtype and device of original.
        """
        raise NotImplementedError("exercise 8.3: jump from clean latents to any timestep in one go")

    def predict_original(self, noisy: Tensor, predicted_noise: Tensor, timestep: int) -> Tensor:
        """Exercise 8.4: what the clean latents are if the predicted noise is right.

        add_noise says how the noisy latents come from the original and the noise: solve that for the original.

        Args:
            noisy, predicted_noise: (batch, channels, height, width).
            timestep: the one of all samples.

        Returns:
            The same shape. Not clipped: latents, unlike pictures, have no fixed range.
        """
        raise NotImplementedError("exercise 8.4: what the clean latents are if the predicted noise is right")

    def inference_timesteps(self, num_steps: int, intervals: int | None = None) -> list[int]:
        """Exercise 8.5: which timesteps to visit, from noisy to clean.

        The schedule is cut into equal intervals, stride = num_train_timesteps // intervals, and each is visited at its
        second timestep: 1, 1 + stride, 1 + 2 * stride, ... DDIM, DDPM and Euler have as many intervals as steps:

            1 + (num_steps - 1) * stride, ..., 1 + stride, 1          for 50 steps: 981, 961, ..., 21, 1

        DPM-Solver++ has one interval more, and leaves out the 1. (Its paper does not ask for that; diffusers spaces
        its timesteps so, and the same pictures are wanted here.)

            1 + num_steps * stride, ..., 1 + 2 * stride, 1 + stride          for 50 steps: 951, 932, ..., 39, 20

        Args:
            num_steps: how many; at least 1.
            intervals: num_steps (the default, None) or num_steps + 1; less than num_train_timesteps.

        Returns:
            num_steps falling whole numbers.
        """
        raise NotImplementedError("exercise 8.5: which timesteps to visit, from noisy to clean")

    def start_index(self, num_steps: int, strength: float) -> int:
        """Given: at which of the inference timesteps image-to-image starts.

        num_steps * strength of them are taken, rounded down, and at least one: all for a strength of 1, the last half
        for 0.5. In floating point 50 * 0.58 is 28.999999999999996; a millionth is added, so that it counts as 29.

        Args:
            num_steps: the number of inference timesteps.
            strength: above 0, up to 1.

        Returns:
            An index 0 ... num_steps - 1.
        """
        return num_steps - max(1, int(num_steps * strength + 1e-6))


def ddim_step(
    schedule: NoiseSchedule,
    latents: Tensor,
    predicted_noise: Tensor,
    timestep: int,
    next_timestep: int,
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """Exercise 8.6: DDIM: guess the clean latents, then add the predicted noise again, but less of it.

    Write it for eta = 0 first, where nothing is drawn: guess the original (predict_original), and mix the guess with
    the predicted noise as add_noise does, but as at next_timestep.

    With eta > 0, a part of the noise in the result is fresh: sigma * noise is added, and the predicted noise gets a
    smaller factor, so that the variances of the two parts have the same sum as before. The guess keeps its factor.

        sigma = eta * sqrt((1 - abar_next) / (1 - abar_t)) * sqrt(1 - abar_t / abar_next)

    Stable Diffusion's own sampler never arrives at abar = 1: when next_timestep is negative it takes abar_0.

    Args:
        schedule: the noise schedule.
        latents: (batch, channels, height, width), at `timestep`.
        predicted_noise: the same shape.
        timestep, next_timestep: where we are and where to go; -1: to the end.
        eta: 0: no fresh noise, so that the result is determined. 1: as much as in DDPM.
        noise: standard normal, the shape of latents; needed only if eta > 0.

    Returns:
        The latents at next_timestep.
    """
    raise NotImplementedError("exercise 8.6: DDIM")


def ddpm_step(
    schedule: NoiseSchedule,
    latents: Tensor,
    predicted_noise: Tensor,
    timestep: int,
    next_timestep: int,
    noise: Tensor,
) -> Tensor:
    """Exercise 8.7: DDPM: draw from the distribution of the less noisy latents, given the noisy ones and the guess.

    Several training steps at once count as a single one with alpha = abar_t / abar_next and beta = 1 - alpha:

        original = predict_original(latents, predicted_noise, t)
        mean     = sqrt(abar_next) * beta / (1 - abar_t) * original
                 + sqrt(alpha) * (1 - abar_next) / (1 - abar_t) * latents
        variance = (1 - abar_next) / (1 - abar_t) * beta
        result   = mean + sqrt(variance) * noise

    On the last step abar_next is 1, the variance 0 and the result the guess itself.

    Args:
        schedule, latents, predicted_noise, timestep, next_timestep: as for ddim_step.
        noise: standard normal, the shape of latents.

    Returns:
        The latents at next_timestep.
    """
    raise NotImplementedError("exercise 8.7: DDPM")


def euler_step(
    schedule: NoiseSchedule, latents: Tensor, predicted_noise: Tensor, timestep: int, next_timestep: int
) -> Tensor:
    """Exercise 8.8: Euler: a straight step along the slope of a differential equation.

    Divide what add_noise gives by its factor of the original: that is original + sigma * noise. What is this sigma? Let
    it change while original and noise stay: what is the derivative of the sum with respect to sigma? Euler's method
    goes along this slope in a straight line, from the sigma of timestep to that of next_timestep, with the predicted
    noise for the noise. Multiplied by add_noise's factor at next_timestep, the sum becomes latents again.

    On the last step abar_next is 1 and sigma_next 0. On all other steps the result is that of DDIM with eta = 0. Why?

    Args and result: as for ddim_step.
    """
    raise NotImplementedError("exercise 8.8: Euler")


def dpm_solver_2m_step(
    schedule: NoiseSchedule,
    latents: Tensor,
    predicted_noise: Tensor,
    timestep: int,
    next_timestep: int,
    last_timestep: int | None = None,
    last_original: Tensor | None = None,
) -> Tensor:
    """Exercise 8.9: DPM-Solver++(2M): a step that also uses how the guess has changed since the step before.

    With the factors of add_noise, alpha of the original and sigma of the noise, and lambda = log(alpha / sigma):

        original = predict_original(latents, predicted_noise, t)
        h        = lambda_next - lambda_t
        r        = (lambda_t - lambda_last) / h
        guess    = original + (original - last_original) / (2 * r)
        result   = sigma_next / sigma_t * latents - alpha_next * (exp(-h) - 1) * guess

    lambda_last is lambda at last_timestep. On the first step there is none, and guess = original. On the last step
    (next_timestep is -1) the result is original.

    Args:
        schedule, latents, predicted_noise, timestep, next_timestep: as for ddim_step.
        last_timestep: the timestep of the step before (a larger number), or None on the first step.
        last_original: what predict_original gave there, or None.

    Returns:
        The latents at next_timestep.
    """
    raise NotImplementedError("exercise 8.9: DPM-Solver++(2M)")
