"""What a training asks for at each timestep, what the average of weights does, and a batch that is learned by heart."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from course.core.assemble import for_testing
from course.core.stages import find_stage
from course.studio.page import Page, grid, new_figure
from course.studio.studio import Studio

SHOWN = (20, 100, 200, 300, 400, 500, 600, 700, 800, 900)
BY_HEART = 60  # steps
WRONG = {
    "gradients never set to zero": ("optimizer.zero_grad()", "pass"),
    "the noise is what the U-Net gets": ("schedule.add_noise(latents, noise, timesteps)", "noise"),
}


@torch.no_grad()
def levels(studio: Studio) -> Page:
    """The error of the predicted noise at each timestep, plain and weighted; and what the U-Net guesses there."""
    model, stage = studio.model, studio.blocks[11]
    latents = model.vae.encode(studio.scenes(4))
    timesteps = torch.arange(10, 1000, 30)
    noise = studio.noise(5, len(latents))
    context = studio.context("").repeat(len(latents), 1, 1)

    def predict(timestep: int) -> tuple[Tensor, Tensor]:
        several = torch.full((len(latents),), timestep, device=latents.device)
        noisy = model.schedule.add_noise(latents, noise, several)
        return noisy, model.unet(noisy, several, context)

    errors = torch.tensor([float((predict(t)[1] - noise).square().mean()) for t in timesteps.tolist()])
    weights = stage.min_snr_weights(model.schedule, timesteps).float()
    figure = new_figure(height=5.0)
    subfigures: Any = figure.subfigures(2, 1, height_ratios=[2.4, 2.2])
    left, right = subfigures[0].subplots(1, 2)
    left.plot(timesteps, errors, label="squared error")
    left.plot(timesteps, weights * errors, "--", label="times its weight")
    left.set_ylim(0, float(errors.max()) * 1.1)
    left.set_title("error of the predicted noise", fontsize=9)
    left.legend(fontsize=8)
    right.plot(timesteps, weights, color="0.3")
    right.set_title("weight: min(SNR, 5) / SNR", fontsize=9)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_xlabel("timestep", fontsize=8)
    rows: list[list] = [[], []]
    for timestep in SHOWN:
        noisy, predicted = predict(timestep)
        guess = model.schedule.predict_original(noisy, predicted, timestep)
        rows[0] += studio.decode(noisy[:1])
        rows[1] += studio.decode(guess[:1])
    grid(subfigures[1].subplots(), rows, ["with noise", "guess"], [f"t = {t}" for t in SHOWN])
    full = int(timesteps[weights >= 1.0][0])
    return Page(
        "At which timestep is there something to learn?",
        "With little noise the noise is hard to see, and its error is large; but the guess of the picture is right all "
        f"the same, so that this error hardly matters. The weights take it back; from about t = {full} on they are 1. "
        "The errors are the model's for four new scenes, without captions.",
        figure,
    )


@torch.no_grad()
def average(studio: Studio) -> Page:
    """One weight that sways on its way, and three averages of it."""
    stage = studio.blocks[11]
    generator = torch.Generator().manual_seed(0)
    steps = 1500
    path = 1.0 - torch.exp(-torch.arange(steps) / 200.0) + 0.12 * torch.randn(steps, generator=generator)
    decays = {
        "warm-up, power 2/3": lambda step: stage.ema_decay(step),
        "warm-up, power 1 and gamma 16": lambda step: stage.ema_decay(step, power=1.0, gamma=16.0, max_decay=1.0),
        "no warm-up: always 0.999": lambda step: 0.999,
    }
    figure = new_figure(height=3.2)
    left, right = figure.subplots(1, 2, width_ratios=[2.2, 1.0])
    left.plot(path, color="0.85", label="the weight")
    for name, decay in decays.items():
        kept, model = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        kept.weight.zero_()
        line = []
        for step, value in enumerate(path.tolist(), start=1):
            model.weight.fill_(value)
            stage.update_average(kept, model, decay(step))
            line.append(float(kept.weight))
        left.plot(line, label=name)
        right.plot(range(1, steps + 1), [1.0 - decay(step) for step in range(1, steps + 1)], label=name)
    right.set_yscale("log")
    right.set_ylim(5e-4, 1.2)
    left.set_title("a weight, and its average", fontsize=9)
    right.set_title("1 - decay: the share of the newest", fontsize=9)
    left.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_xlabel("step", fontsize=8)
    return Page(
        "Why does the decay of the average begin at zero?",
        "With a decay of 0.999 from the start, the average remembers the first weights for thousands of steps. With a "
        "warm-up it follows at once while the weights still move far, and takes more and more steps into account "
        "later. The weight here is made up: it approaches 1 and sways.",
        figure,
    )


def by_heart(studio: Studio) -> Page:
    """A new, small U-Net learns one batch: with the stage as it is, and with two wrong versions of the reference."""
    text = find_stage(11).solution.read_text(encoding="utf-8")
    stages = {"stage 11 as it is": studio.blocks[11]}
    for name, (old, new) in WRONG.items():
        stages[name] = for_testing(11, "solutions", overrides={11: text.replace(old, new)})[11]
    unet_stage = studio.blocks[7]
    torch.manual_seed(0)
    config = unet_stage.UNetConfig(
        channels=(16, 32), attention=(True, False), blocks_per_level=1, num_heads=2, context_channels=8, num_groups=4
    )
    start = unet_stage.UNet(config)
    with torch.no_grad():
        latents = studio.model.vae.encode(studio.scenes(4)).cpu()
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    timesteps = torch.tensor([150, 400, 650, 900])
    schedule, context = studio.model.schedule, torch.zeros(len(latents), 3, 8)
    figure = new_figure(height=3.2)
    left, right = figure.subplots(1, 2)
    for name, stage in stages.items():
        unet = copy.deepcopy(start)
        optimizer = torch.optim.AdamW(unet.parameters(), lr=4e-3)
        shown, true = [], []
        for _ in range(BY_HEART):
            with torch.no_grad():
                loss = studio.blocks[11].noise_loss(unet, schedule, latents, noise, timesteps, context)
                true.append(float(loss))

            def loss_of(model: nn.Module, stage: Any = stage) -> Tensor:
                return stage.noise_loss(model, schedule, latents, noise, timesteps, context)

            shown.append(float(stage.training_step(unet, optimizer, loss_of)))
        left.plot(shown, label=name)
        right.plot(true, label=name)
    left.set_title("the loss that the training shows", fontsize=9)
    right.set_title("the loss that it should lower", fontsize=9)
    left.legend(fontsize=8)
    for axes in (left, right):
        axes.set_ylim(0, 1.6)
        axes.grid(alpha=0.3)
        axes.set_xlabel("step", fontsize=8)
    return Page(
        "Can it learn one batch by heart?",
        "The first test of a training: four samples, again and again. With a mistake, the loss that one sees may fall "
        "faster still, like that of the U-Net that gets the noise itself and only has to copy it. What it should have "
        "learned, it has not.",
        figure,
    )


PICTURES = (levels, average)
MORE = (by_heart,)
