"""Why is group norm a compromise?

Two questions to a normalisation. How much does it leave of the differences between channels? One group keeps them all,
one group per channel none. And does a picture's result depend on the other pictures of its batch? That of batch norm
does, that of group norm never. The first is tried out in the VAE's decoder, whose weights were trained with one number
of groups and are now run with others; the second with the statistics of batch norm in the place of group norm's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from course.experiments.lab import Lab, Result
from course.studio.page import grid, new_figure
from course.studio.question import Question
from course.studio.studio import hooked

TITLE = "Why is group norm a compromise?"
QUESTION = Question(
    "The VAE's decoder is run with another number of groups than it was trained with. Which does it bear best?",
    ("one group, as layer norm", "half as many or twice as many groups", "one group per channel, as instance norm"),
)
EPS = 1e-6  # of the VAE's norms


@torch.no_grad()
def run(lab: Lab) -> Result:
    images = lab.scenes(4)
    latents = lab.model.vae.encode(images)
    own = lab.opened.config.vae.num_groups
    counts = {
        "1 group": 1,
        f"{own // 2} groups": own // 2,
        f"{own} groups,\nas trained": own,
        f"{2 * own} groups": 2 * own,
    }
    counts["one group\nper channel"] = 0
    results, psnr = {}, {}
    for name, count in counts.items():
        with replaced(lab, grouped(lab, count)):
            results[name] = lab.decoded(latents)
        psnr[name] = decibels(results[name], images.cpu())
    one, half, trained, twice, each = psnr.values()

    moved = {}
    for name, norm in (("group", grouped(lab, own)), ("batch", over_the_batch)):
        with replaced(lab, norm):
            together, alone = lab.decoded(latents), lab.decoded(latents[:1])
        moved[name] = float((together[:1] - alone).square().mean().sqrt()) / 2
    results["statistics of\nthe batch"] = together
    psnr["statistics of\nthe batch"] = decibels(together, images.cpu())
    text = (
        f"With its own {own} groups the decoder gives pictures back at {trained:.1f} dB, with one group at {one:.1f}, "
        f"with {own // 2} at {half:.1f}, with {2 * own} at {twice:.1f} and with one per channel at {each:.1f}: its "
        "weights expect just the differences between channels that their groups leave. With the statistics of the "
        f"batch, a picture changes by {moved['batch']:.1%} of the range (root mean square) when the others of its "
        f"batch are taken away; with group norm by {moved['group']:.4%}."
    )
    answer = max(range(3), key=lambda i: (one, max(half, twice), each)[i])
    return Result(draw(lab, images, results, psnr), text, answer)


Norm = Callable[[nn.Module, Tensor], Tensor]


def grouped(lab: Lab, count: int) -> Norm:
    """The group norm of stage 1 with another number of groups; 0: one per channel."""

    def norm(module: nn.Module, x: Tensor) -> Tensor:
        groups = min(count or x.shape[1], x.shape[1])
        return lab.blocks[1].group_norm(x, groups, module.weight, module.bias, EPS)

    return norm


def over_the_batch(module: nn.Module, x: Tensor) -> Tensor:
    """Batch norm as in training: the mean and variance of each channel over the whole batch."""
    variance, mean = torch.var_mean(x, dim=(0, 2, 3), keepdim=True, unbiased=False)
    scale, shift = module.weight.reshape(1, -1, 1, 1), module.bias.reshape(1, -1, 1, 1)
    return (x - mean) / torch.sqrt(variance + EPS) * scale + shift


@contextmanager
def replaced(lab: Lab, norm: Norm) -> Iterator[None]:
    """The VAE's decoder with another normalisation in the place of each of its group norms."""
    norms = [module for module in lab.model.vae.decoder.modules() if isinstance(module, lab.blocks[1].GroupNorm)]
    with hooked(*(module.register_forward_hook(lambda m, inputs, _: norm(m, inputs[0])) for module in norms)):
        yield


def decibels(images: Tensor, wanted: Tensor) -> float:
    """Peak signal-to-noise ratio."""
    error = ((images.clamp(-1, 1) - wanted) / 2).square().mean()
    return float(-10 * torch.log10(error))


def draw(lab: Lab, images: Tensor, results: dict[str, Tensor], psnr: dict[str, float]) -> Figure:
    names = ["picture", *(f"{name}\n{psnr[name]:.1f} dB" for name in results)]
    columns = [lab.arrays(images), *(lab.arrays(some) for some in results.values())]
    figure = new_figure(height=5.0)
    axes = figure.subplots()
    grid(axes, list(zip(*columns))[:3], [], names)
    axes.tick_params(labelsize=10.5)
    return figure
