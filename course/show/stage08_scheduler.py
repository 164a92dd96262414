"""How noise comes in, and how many steps it takes to get it out."""

from typing import Any

import torch

from course.studio.page import Page, grid, grid_figure, new_figure
from course.studio.studio import PROMPT, Studio

SHOWN = (0, 100, 200, 300, 400, 500, 600, 800, 999)
COUNTS = (1, 2, 5, 10, 25, 50)


@torch.no_grad()
def schedule(studio: Studio) -> Page:
    """Betas and their product, with evenly growing roots and with evenly growing betas; a picture being noised."""
    stage = studio.blocks[8]
    scaled = stage.scaled_linear_betas()
    linear = torch.linspace(float(scaled[0]), float(scaled[-1]), len(scaled), dtype=torch.float64)
    figure = new_figure(height=4.4)
    subfigures: Any = figure.subfigures(2, 1, height_ratios=[2.9, 1.4])
    top, bottom = subfigures
    left, right = top.subplots(1, 2)
    for betas, style, name in ((scaled, "-", "even steps in sqrt(beta)"), (linear, "--", "even steps in beta")):
        left.plot(betas, style, label=name)
        right.plot(stage.alphas_cumprod(betas), style, label=name)
    left.set_title("beta: the noise of each step", fontsize=9)
    right.set_title("abar: the picture's share of the variance", fontsize=9)
    for axes in (left, right):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
        axes.set_xlabel("timestep", fontsize=8)

    images, model = studio.scenes(1), studio.model
    moments = torch.tensor(SHOWN, device=images.device)
    latents = model.vae.encode(images).repeat(len(SHOWN), 1, 1, 1)
    noisy = model.schedule.add_noise(latents, studio.noise(3).repeat(len(SHOWN), 1, 1, 1), moments)
    middle = [float(stage.alphas_cumprod(betas)[500]) for betas in (scaled, linear)]
    grid(bottom.subplots(), [studio.decode(noisy)], [], [f"t = {t}" for t in SHOWN])
    return Page(
        "Why do the betas have evenly growing square roots?",
        "Because the noise then comes in more slowly at first: at t = 500, "
        f"{middle[0]:.0%} of the variance is still the picture's; with evenly growing betas it is {middle[1]:.0%}. So "
        "more of the 1000 timesteps show something that can be learned from.",
        figure,
    )


@torch.no_grad()
def steps(studio: Studio) -> Page:
    """The same noise in 1, 2, 5, 10, 25 and 50 steps, and how far the guess moves in each of the 50."""
    pictures, walks = [], {}
    for count in COUNTS:
        images, walks[count] = studio.walk(PROMPT, steps=count)
        pictures.extend(studio.arrays(images))
    longest = walks[COUNTS[-1]]
    pictures = studio.decode(longest[0].original) + pictures
    moves = [float((b.original - a.original).norm() / a.original.norm()) for a, b in zip(longest, longest[1:])]
    figure = new_figure(height=3.5)
    subfigures: Any = figure.subfigures(2, 1, height_ratios=[1.9, 1.5])
    top, bottom = subfigures
    names = [f"first guess\nof {COUNTS[-1]}"]
    names += [f"{count} step{'s' * (count > 1)}\nfrom t = {walks[count][0].timestep}" for count in COUNTS]
    grid(top.subplots(), [pictures], [], names)
    axes = bottom.subplots()
    axes.bar(range(2, len(moves) + 2), moves, color="0.5")
    axes.set_xlim(0, COUNTS[-1] + 1)
    axes.set_xlabel(f"step of {COUNTS[-1]}", fontsize=8)
    axes.set_ylabel("relative change\nof the guess", fontsize=8)
    early = sum(moves[: len(moves) // 3]) / max(sum(moves), 1e-12)
    return Page(
        "What do 1, 2, 5, 10, 25 and 50 steps look like, and where does the picture change most?",
        "A single guess from pure noise is an average of all that it could become; each step corrects the guess "
        f"before it. {early:.0%} of all change falls into the first third of {COUNTS[-1]} steps. One step alone "
        f"stands at t = 1, where hardly any noise is looked for (DDIM, '{PROMPT}').",
        figure,
    )


@torch.no_grad()
def jumping(studio: Studio) -> Page:
    """Each step mixes the guess with noise: with the predicted noise as DDIM does, or with fresh noise."""
    rows = [jump(studio, fresh, studio.steps) for fresh in (False, True)]
    shown = sorted({round(i * (studio.steps - 1) / 7) for i in range(8)})
    pictures = [[row[i] for i in shown] for row in rows]
    return Page(
        "What does jumping with fresh noise instead of the predicted noise give?",
        "The predicted noise leads back to the same path, so what a guess has found stays. With fresh noise the "
        "picture wanders and becomes smoother: detail that one guess made up is hidden from the next by noise that "
        "knows nothing of it.",
        grid_figure(pictures, ["predicted\nnoise", "fresh\nnoise"], [f"guess {i + 1}" for i in shown]),
    )


def jump(studio: Studio, fresh: bool, count: int) -> list:
    """The guesses on the way from noise to picture."""
    model, sampler = studio.model, studio.blocks[9]
    timesteps = model.schedule.inference_timesteps(count)
    contexts = studio.context(PROMPT), studio.context("")
    generator = torch.Generator().manual_seed(5)
    latents, guesses = studio.noise(0), []
    for timestep, following in zip(timesteps, [*timesteps[1:], 0]):
        noise = sampler.predict_noise(model.unet, latents, timestep, *contexts, studio.opened.config.guidance_scale)
        guesses.append(model.schedule.predict_original(latents, noise, timestep))
        if fresh:
            noise = sampler.draw_noise(latents, generator)
        latents = model.schedule.add_noise(guesses[-1], noise, torch.tensor([following]))
    return studio.decode(torch.cat(guesses))


PICTURES = (schedule,)
MORE = (steps, jumping)
