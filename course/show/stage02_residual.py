"""Gradients that go down through many blocks, with and without the residual connection."""

import math

import torch
from torch import nn

from course.studio.page import Page, new_figure
from course.studio.studio import Studio

DEPTH = 40
CHANNELS = 16


def gradients(studio: Studio) -> Page:
    """The gradient's norm in front of each block of three stacks, and the activation between the convolutions."""
    curves = {
        "x + f(x): the residual block": gradient_norms(studio, shortcut=True, norms=True),
        "f(x): the same block without its shortcut": gradient_norms(studio, shortcut=False, norms=True),
        "f(x) without the norms either": gradient_norms(studio, shortcut=False, norms=False),
    }
    figure = new_figure(height=3.9)
    left, right = figure.subplots(1, 2, width_ratios=[2.2, 1])
    for (label, norms), style in zip(curves.items(), ("-", "--", ":")):
        left.semilogy(range(DEPTH + 1), norms, style, label=label)
    left.set_xlabel("blocks between here and the loss")
    left.set_ylabel("norm of the gradient (at the loss: 1)")
    left.legend(fontsize=9)
    left.grid(alpha=0.3)

    x = torch.linspace(-6, 4, 200, requires_grad=True)
    y = studio.blocks[2].silu(x)
    slope = torch.autograd.grad(y.sum(), x)[0]
    right.plot(x.detach(), y.detach(), label="silu(x)")
    right.plot(x.detach(), slope, "--", label="its slope")
    right.plot(x.detach(), torch.relu(x).detach(), ":", color="0.5", label="relu(x)")
    right.set_xlabel("x")
    right.legend(fontsize=9)
    right.grid(alpha=0.3)
    left.set_ylim(1e-9, 1e6)
    kept, grown, shrunk = (norms[-1] for norms in curves.values())
    return Page(
        "What does a residual connection do to gradients with depth?",
        f"It gives them a way around every block: {DEPTH} blocks multiply the gradient by {kept:.1f} in all. Without "
        f"the shortcut every block puts in a factor of its own, and their product runs away: to {grown:.0f} with "
        f"norms, to {power_of_ten(shrunk)} without. Right: SiLU, which is smooth, and not flat below 0 as relu is.",
        figure,
    )


def gradient_norms(studio: Studio, shortcut: bool, norms: bool) -> list[float]:
    """The norm of the loss's gradient, from behind the last block of a fresh stack back to the front of the first."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = [studio.blocks[2].ResidualBlock(CHANNELS, CHANNELS, num_groups=4).double() for _ in range(DEPTH)]
        x = torch.randn(2, CHANNELS, 8, 8, dtype=torch.float64, requires_grad=True)
        direction = torch.randn(2, CHANNELS, 8, 8, dtype=torch.float64)
    if not norms:
        for block in blocks:
            block.norm1, block.norm2 = nn.Identity(), nn.Identity()
    places = [x]
    for block in blocks:
        result = block(places[-1])
        places.append(result if shortcut else result - places[-1])
    loss = (places[-1] * direction / direction.norm()).sum()
    return [float(gradient.norm()) for gradient in reversed(torch.autograd.grad(loss, places))]


def power_of_ten(number: float) -> str:
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return "10" + str(round(math.log10(number))).translate(raised) if number > 0 else "0"


PICTURES = (gradients,)
MORE = ()
