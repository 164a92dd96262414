"""What does each channel of the latents hold, and what does a factor of 8 lose?

For the first, each channel is compared with what a small copy of the picture says about the same place: how bright it
is, how red against green, how blue against yellow, and how much detail there is. The square of the correlation says
how much of the one follows from the other. For the second, pictures go through the VAE, and through the simplest way to
have as few numbers: they are made smaller until they have as many, and enlarged again.
"""

import numpy
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from course.experiments.lab import Lab, Result
from course.studio.page import colours, grid, new_figure, stacked
from course.studio.question import Question

TITLE = "What does each channel of the latents hold, and what does a factor of 8 lose?"
QUESTION = Question(
    "Of which size of detail does the VAE lose the most?",
    ("large areas", "middle sizes", "the finest detail"),
)
FAR = 300_000
BANDS = ("8 pixels and more", "4 to 8 pixels", "2 to 4 pixels", "below 2 pixels")


@torch.no_grad()
def run(lab: Lab) -> Result:
    images = torch.cat([lab.scenes(3).cpu(), lab.examples(FAR, lab.pick(60, 3))[0]])
    latents = lab.encoded(images)
    returned = lab.decoded(latents).clamp(-1, 1)
    held = meanings(images, latents.cpu(), lab.model.vae.factor)
    small = shrunk(images, latents)
    losses = {name: lost(images, some) for name, some in (("VAE", returned), ("made smaller", small))}
    psnr = {name: decibels(images, some) for name, some in (("VAE", returned), ("made smaller", small))}

    best = {name: int(row.argmax()) for name, row in held.items()}
    strongest = ", ".join(
        f"{name} in latent {best[name] + 1} ({float(row.max()):.0%} of its variance)" for name, row in held.items()
    )
    worst = max(range(len(BANDS)), key=lambda i: losses["VAE"][i])
    text = (
        f"In {len(images)} pictures one sees {strongest} the best. Pictures come back from the VAE at "
        f"{psnr['VAE']:.1f} dB; made smaller until they have as few numbers, and enlarged again, at "
        f"{psnr['made smaller']:.1f} dB. The VAE loses "
        + ", ".join(f"{losses['VAE'][i]:.0%} of the energy of detail of {name}" for i, name in enumerate(BANDS))
        + "."
    )
    answer = 0 if worst == 0 else 2 if worst == len(BANDS) - 1 else 1
    return Result(draw(lab, images, latents, returned, small, held, losses), text, answer)


def meanings(images: Tensor, latents: Tensor, factor: int) -> dict[str, Tensor]:
    """For each meaning the squared correlation with each channel of the latents: (channels,)."""
    small = nn.functional.avg_pool2d(images, factor)
    grey = images.mean(1, keepdim=True)
    detail = nn.functional.avg_pool2d(grey.square(), factor) - nn.functional.avg_pool2d(grey, factor).square()
    red, green, blue = small.unbind(1)
    found = {
        "brightness": (red + green + blue) / 3,
        "red against green": red - green,
        "blue against yellow": blue - (red + green) / 2,
        "detail": detail[:, 0].clamp(min=0).sqrt(),
    }
    channels = latents.transpose(0, 1).flatten(1)
    return {
        name: torch.stack([torch.corrcoef(torch.stack([value.flatten(), c]))[0, 1] for c in channels]).square()
        for name, value in found.items()
    }


def shrunk(images: Tensor, latents: Tensor) -> Tensor:
    """Pictures made smaller until they have about as many numbers as their latents, and enlarged again."""
    side = max(1, round((latents[0].numel() / images.shape[1]) ** 0.5))
    small = nn.functional.interpolate(images, size=(side, side), mode="area")
    return nn.functional.interpolate(small, size=images.shape[2:], mode="bicubic").clamp(-1, 1)


def lost(images: Tensor, returned: Tensor) -> list[float]:
    """The energy of the error as a share of the picture's own, for detail of each size."""
    shares = []
    for whole, error in zip(bands(images), bands(returned - images)):
        shares.append(float(error.square().sum() / whole.square().sum().clamp(min=1e-9)))
    return shares


def bands(images: Tensor) -> list[Tensor]:
    """What is left of a picture at 8 pixels, and what is added at 4, 2 and 1: they add up to the picture."""
    levels = [
        nn.functional.avg_pool2d(images, size).repeat_interleave(size, 2).repeat_interleave(size, 3)
        for size in (8, 4, 2, 1)
    ]
    levels[0] = levels[0] - images.mean((2, 3), keepdim=True)
    base = images.mean((2, 3), keepdim=True)
    return [levels[0], levels[1] - levels[0] - base, *(b - a for a, b in zip(levels[1:], levels[2:]))]


def decibels(images: Tensor, returned: Tensor) -> float:
    """Peak signal-to-noise ratio."""
    return float(-10 * torch.log10(((images - returned) / 2).square().mean()))


def draw(
    lab: Lab,
    images: Tensor,
    latents: Tensor,
    returned: Tensor,
    small: Tensor,
    held: dict[str, Tensor],
    losses: dict[str, list[float]],
) -> Figure:
    figure = new_figure(height=6.8)
    top, bottom = stacked(figure, [4.2, 2.5])
    rows = []
    for k in range(3):
        one, back, less = (lab.arrays(some[k : k + 1])[0] for some in (images, returned, small))
        error = numpy.abs(one.astype(float) - back).mean(-1)
        rows.append([one, *(colours(c, -3, 3) for c in latents[k].cpu()), back, colours(error, 0, 64, "gray"), less])
    names = ["picture", *(f"latent {i + 1}" for i in range(latents.shape[1]))]
    names += ["from the\nVAE", "its error\n(x 4)", "made\nsmaller"]
    axes = top.subplots()
    grid(axes, rows, [], names)
    axes.tick_params(labelsize=10.5)
    left, right = bottom.subplots(1, 2)
    table = torch.stack(list(held.values())).numpy()
    left.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i in range(table.shape[0]):
        for j in range(table.shape[1]):
            left.text(
                j,
                i,
                f"{100 * table[i, j]:.0f} %",
                ha="center",
                va="center",
                fontsize=10.5,
                color="black" if table[i, j] < 0.6 else "white",
            )
    left.set_xticks(range(table.shape[1]), [f"latent {i + 1}" for i in range(table.shape[1])], fontsize=10.5)
    left.set_yticks(range(len(held)), list(held), fontsize=10.5)
    left.set_title("how much of it a channel says", fontsize=11)
    for offset, (name, values) in zip((-0.2, 0.2), losses.items()):
        right.bar([i + offset for i in range(len(BANDS))], [100 * v for v in values], width=0.4, label=name)
    right.set_xticks(range(len(BANDS)), [name.replace(" pixels", "\npixels") for name in BANDS], fontsize=10)
    right.set_ylabel("energy lost (%)", fontsize=11)
    right.legend(fontsize=10.5)
    return figure
