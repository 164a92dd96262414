"""How the small networks that read pictures are trained, blurred now and then as a VAE's pictures are, and kept."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from course.core.weights import fill
from course.core.writing import whole_file

Network = TypeVar("Network", bound=nn.Module)


def learned(
    network: Network,
    pictures: int,
    loss_of: Callable[[Tensor, torch.Generator], Tensor],
    seed: int,
    epochs: int,
    batch: int,
    rate: float,
    what: str,
) -> Network:
    """Trains a network, with AdamW and a learning rate that goes up to `rate` and down again.

    Args:
        network: changed in place.
        pictures: how many there are.
        loss_of: takes the numbers of the pictures of a batch, and a generator for its noise.
        what: the network, for the progress bar.
    """
    steps = epochs * (pictures // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    with tqdm(total=steps, desc=f"training {what}") as bar:
        for _ in range(epochs):
            for chosen in torch.randperm(pictures, generator=generator).split(batch)[: pictures // batch]:
                loss = loss_of(chosen, generator)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
                bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    return network.eval()


def spoiled(
    images: Tensor, rng: random.Random, sizes: Sequence[int], noise: float, generator: torch.Generator
) -> Tensor:
    """Pictures with a little noise, half of the time as blurred as if they had come from smaller ones.

    Args:
        images: (batch, 3, height, width); the height is what `sizes` are compared with.
        sizes: smaller heights, one of which is chosen.
        noise: its standard deviation.
    """
    if rng.random() < 0.5:
        smaller = rng.choice(sizes) / images.shape[2]
        small = F.interpolate(images, [int(side * smaller) for side in images.shape[2:]], mode="area")
        images = F.interpolate(small, images.shape[2:], mode="bilinear")
    return images + noise * torch.randn(images.shape, generator=generator)


def kept(path: Path, network: Network, train: Callable[[], nn.Module]) -> Network:
    """The network in a file, in evaluation mode; it is trained now, and kept there, if there is none."""
    if not path.is_file():
        trained = train()
        with whole_file(path) as temporary:
            save_file({name: tensor.half() for name, tensor in trained.state_dict().items()}, temporary)
    fill(network, path, "delete it, and it is trained anew")
    return network.eval()
