"""Four small U-Nets, trained from nothing for the same number of steps on the same pictures and the same noise.

They differ in one thing each. "deeper" has three residual blocks per level where the others have one, and is narrower,
so that one pass costs about as much. "no middle" goes from the deepest level straight up again. "added skips" adds each
skip to the block's input, after a 1x1 convolution where the numbers of channels differ, where the others concatenate.

The curves are in small_unets.json; `make experiment NAME=blocks TRAIN=1` trains again and writes that file anew.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from course.core.writing import whole_file
from course.experiments.lab import Lab

FILE = Path(__file__).with_name("small_unets.json")
PICTURES, CHECKED, BATCH, STEPS, EVERY, RATE = 3000, 64, 16, 1200, 50, 2e-3
WIDTHS = {"concatenated": (20, 32, 48), "deeper": (16, 20, 32), "no middle": (20, 32, 48), "added skips": (20, 32, 48)}


class AddedSkip(nn.Module):
    """Stands in for a residual block on the way up: it gets [x, skip] side by side and sees their sum instead."""

    def __init__(self, stage: Any, channels: int, skip_channels: int, out_channels: int, time_channels: int):
        super().__init__()
        self.channels = channels
        same = channels == skip_channels
        self.adapt = nn.Identity() if same else nn.Conv2d(skip_channels, channels, kernel_size=1)
        self.residual = stage.ResidualBlock(channels, out_channels, time_channels, 4, 1e-5)

    def forward(self, both: Tensor, time_embedding: Tensor) -> Tensor:
        x, skip = both[:, : self.channels], both[:, self.channels :]
        return self.residual(x + self.adapt(skip), time_embedding)


class Straight(nn.Module):
    """Stands in for the middle: hands its input on."""

    def forward(self, x: Tensor, time_embedding: Tensor, context: Tensor) -> Tensor:
        return x


def make(lab: Lab, name: str) -> nn.Module:
    """A fresh small U-Net of the learner's blocks; all of them start from the same seed."""
    torch.manual_seed(0)
    config = lab.blocks[7].UNetConfig(
        channels=WIDTHS[name],
        attention=(False, True, False),
        blocks_per_level=3 if name == "deeper" else 1,
        num_heads=2,
        context_channels=lab.opened.config.unet.context_channels,
        num_groups=4,
    )
    unet = lab.blocks[7].UNet(config)
    if name == "no middle":
        unet.mid = Straight()
    if name == "added skips":
        widths = config.channels
        for block, level in zip(unet.up, reversed(range(len(widths)))):
            for i in range(len(block.residuals)):
                channels = widths[min(level + 1, len(widths) - 1)] if i == 0 else widths[level]
                skip = widths[max(level - 1, 0)] if i == len(block.residuals) - 1 else widths[level]
                block.residuals[i] = AddedSkip(lab.blocks[2], channels, skip, widths[level], 4 * widths[0])
    for module in unet.modules():  # each branch starts at zero
        if isinstance(module, lab.blocks[2].ResidualBlock):
            nn.init.zeros_(module.conv2.weight)
    nn.init.zeros_(unet.conv_out.weight)
    return unet


def train(lab: Lab) -> dict[str, dict]:
    """Trains all of them, a few minutes each, and writes their curves.

    Returns:
        By name: "flops" (of one pass, millions), "parameters" (millions), "steps" and "errors" (the mean squared error
        of the predicted noise on 64 pictures that are not trained on, at evenly spread timesteps).
    """
    count, checked, steps = lab.pick(PICTURES, 8), lab.pick(CHECKED, 4), lab.pick(STEPS, 4)
    batch, every = lab.pick(BATCH, 2), lab.pick(EVERY, 2)
    with torch.no_grad():
        images, captions = lab.examples(0, count + checked)
        latents = lab.encoded(images)
        contexts = torch.cat([lab.context(caption) for caption in captions])
    schedule = lab.model.schedule
    noise = torch.randn(latents[:checked].shape, generator=torch.Generator().manual_seed(1)).to(latents.device)
    moments = torch.linspace(0, schedule.num_train_timesteps - 1, checked).long()
    known = schedule.add_noise(latents[:checked], noise, moments)
    curves: dict[str, dict] = {}
    for name in WIDTHS:
        unet = make(lab, name).to(lab.torch_device)
        optimizer = torch.optim.AdamW(unet.parameters(), lr=RATE, betas=(0.9, 0.99))
        generator = torch.Generator().manual_seed(0)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            unet(known[:1], moments[:1].to(known.device), contexts[:1])
        curve: dict[str, Any] = {
            "flops": round(counter.get_total_flops() / 1e6, 1),
            "parameters": round(sum(p.numel() for p in unet.parameters()) / 1e6, 3),
            "steps": [],
            "errors": [],
        }
        for step in tqdm(range(steps + 1), desc=f"training '{name}'", mininterval=1.0):
            if step % every == 0:
                with torch.no_grad():
                    error = (unet(known, moments.to(known.device), contexts[:checked]) - noise).square().mean()
                curve["steps"].append(step)
                curve["errors"].append(round(float(error), 5))
            for group in optimizer.param_groups:  # up in 30 steps, then down in a straight line
                group["lr"] = RATE * min((step + 1) / 30, 1.02 - step / steps)
            chosen = checked + torch.randint(count, (batch,), generator=generator)
            times = torch.randint(schedule.num_train_timesteps, (batch,), generator=generator)
            fresh = torch.randn(latents[chosen].shape, generator=generator).to(latents.device)
            noisy = schedule.add_noise(latents[chosen], fresh, times)
            loss = (unet(noisy, times.to(noisy.device), contexts[chosen]) - fresh).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        curves[name] = curve
    with whole_file(FILE) as temporary:
        temporary.write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
    return curves


def curves() -> dict[str, dict]:
    """The curves of the training that ships."""
    return json.loads(FILE.read_text(encoding="utf-8"))
