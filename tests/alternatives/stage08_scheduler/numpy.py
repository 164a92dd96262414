"""The tables by numpy; the steps by their geometric meaning."""

import numpy as np


def scaled_linear_betas(num_steps=1000, start=0.00085, end=0.012):
    return torch.from_numpy(np.square(np.linspace(start**0.5, end**0.5, num_steps)))


def alphas_cumprod(betas):
    return torch.exp(torch.cumsum(torch.log1p(-betas), 0))


def ddim_step(schedule, latents, predicted_noise, timestep, next_timestep, eta=0.0, noise=None):
    here = schedule.alpha_bar(timestep)
    there = schedule.alpha_bar(next_timestep) if next_timestep >= 0 else schedule.alpha_bar(0)
    variance = (eta**2) * (1 - there) / (1 - here) * (1 - here / there)
    clean = (latents - (1 - here) ** 0.5 * predicted_noise) / here**0.5
    moved = there**0.5 * clean + (1 - there - variance) ** 0.5 * predicted_noise
    return moved if noise is None or eta == 0 else moved + variance**0.5 * noise


def euler_step(schedule, latents, predicted_noise, timestep, next_timestep):
    here, there = schedule.alpha_bar(timestep), schedule.alpha_bar(next_timestep)
    change = (1 / there - 1) ** 0.5 - (1 / here - 1) ** 0.5
    return (there / here) ** 0.5 * latents + there**0.5 * change * predicted_noise
