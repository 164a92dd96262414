"""Does it matter whether the activation stands before or after the convolution?

A stack of forty residual blocks, once as stage 2 writes them (norm, activation, convolution, twice; then x + f(x), with
nothing on the way past), and once as the first residual networks had them (convolution, norm, activation, convolution,
norm; then x + f(x), and an activation on the sum). Both get the same pictures, and learn for the same number of steps
to tell what they show.

Source: He et al., "Identity Mappings in Deep Residual Networks", 2016, arXiv:1603.05027, figure 4 and section 4.2: with
the activation on the sum, the error of a network of 1001 layers falls very slowly at first, that of 164 layers hardly
more slowly than with the activation in front.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from course.experiments.lab import Lab, Result
from course.scenes.scenes import COLOURS
from course.studio.judge import truth
from course.studio.page import new_figure
from course.studio.question import Question

TITLE = "Activation before or after the convolution: does it matter?"
QUESTION = Question(
    "Forty residual blocks learn for the same number of steps. Which are better at the end?",
    ("activation before the convolution", "activation on the sum", "no difference of more than a tenth"),
)
DEPTH, CHANNELS, SIDE, GROUPS = 40, 12, 8, 4


class After(nn.Module):
    """A block with its activations behind: silu(x + norm(conv(silu(norm(conv(x))))))."""

    def __init__(self, lab: Lab):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(CHANNELS, CHANNELS, kernel_size=3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = (lab.blocks[1].GroupNorm(GROUPS, CHANNELS) for _ in range(2))
        self.silu = lab.blocks[2].silu

    def forward(self, x: Tensor) -> Tensor:
        h = self.silu(self.norm1(self.conv1(x)))
        return self.silu(x + self.norm2(self.conv2(h)))


class Stack(nn.Module):
    """A convolution, forty blocks, and scores for the colours."""

    def __init__(self, lab: Lab, make_block: Callable[[], nn.Module]):
        super().__init__()
        self.conv_in = nn.Conv2d(3, CHANNELS, kernel_size=3, padding=1)
        self.blocks = nn.ModuleList(make_block() for _ in range(DEPTH))
        self.norm = lab.blocks[1].GroupNorm(GROUPS, CHANNELS)
        self.head = nn.Linear(CHANNELS * SIDE * SIDE, len(COLOURS))

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(batch, 3, SIDE, SIDE) -> the scores, and what is in front of each block and behind the last."""
        places = [self.conv_in(images)]
        for block in self.blocks:
            places.append(block(places[-1]))
        return self.head(self.norm(places[-1]).flatten(1)), places


def run(lab: Lab) -> Result:
    count, steps = lab.pick(1200, 12), lab.pick(100, 3)
    scenes = lab.scenes_to_draw(count, seed=15)
    images = F.interpolate(lab.illustrated(scenes), size=(SIDE, SIDE), mode="area")
    labels = truth(scenes)["colour"]
    losses, gradients, right = {}, {}, {}
    kinds = {
        "before the convolution": lambda: lab.blocks[2].ResidualBlock(CHANNELS, CHANNELS, num_groups=GROUPS),
        "on the sum": lambda: After(lab),
    }
    for name, make_block in kinds.items():
        torch.manual_seed(0)
        stack = Stack(lab, make_block)
        gradients[name] = gradient_norms(stack, images[:16], labels[:16])
        losses[name], right[name] = learn(stack, images, labels, steps, held_out=count // 5)
    one, other = losses
    ends = {name: sum(values[-10:]) / len(values[-10:]) for name, values in losses.items()}
    spread = {name: values[-1] / values[0] for name, values in gradients.items()}
    text = (
        f"Through {DEPTH} fresh blocks the gradient becomes {spread[one]:.1f} times as large with the activation "
        f"before the convolution, and {spread[other]:.0f} times with it on the sum. After {steps} steps of training "
        f"the loss is {ends[one]:.2f} and {ends[other]:.2f}, and {right[one]:.0%} and {right[other]:.0%} of unseen "
        "pictures are named right. "
    )
    gap = ends[other] - ends[one]
    near = abs(gap) <= 0.1 * max(ends.values())
    if near:
        text += "So at this depth the order is a matter of taste; the paper's advantage is that of far deeper networks."
    elif gap > 0:
        text += "So the order pays at this depth already, where the paper finds its large advantage in deeper networks."
    else:
        text += "Against the paper's claim, the activation on the sum learns faster here."
    return Result(draw(gradients, losses), text, answer=2 if near else int(gap < 0))


def gradient_norms(stack: Stack, images: Tensor, labels: Tensor) -> list[float]:
    """The norm of the loss's gradient behind the last block and in front of each, from the last to the first."""
    scores, places = stack(images)
    found = torch.autograd.grad(F.cross_entropy(scores, labels), places)
    return [float(gradient.norm()) for gradient in reversed(found)]


def learn(stack: Stack, images: Tensor, labels: Tensor, steps: int, held_out: int) -> tuple[list[float], float]:
    """The loss in each step, and the share of held-out pictures that are named right."""
    optimizer = torch.optim.AdamW(stack.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(steps):
        chosen = held_out + torch.randint(len(images) - held_out, (32,), generator=generator)
        loss = F.cross_entropy(stack(images[chosen])[0], labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        hits = stack(images[:held_out])[0].argmax(1) == labels[:held_out]
    return losses, float(hits.float().mean())


def draw(gradients: dict[str, list[float]], losses: dict[str, list[float]]) -> Figure:
    figure = new_figure(height=3.7)
    left, right = figure.subplots(1, 2)
    for name, style in zip(losses, ("-", "--")):
        values = gradients[name]
        left.semilogy(range(len(values)), [value / values[0] for value in values], style, label=name, linewidth=2)
        smooth = [sum(losses[name][max(0, i - 9) : i + 1]) / min(10, i + 1) for i in range(len(losses[name]))]
        right.plot(range(1, len(smooth) + 1), smooth, style, label=name, linewidth=2)
    left.set_xlabel("blocks between here and the loss", fontsize=11)
    left.set_ylabel("gradient (behind the\nlast block: 1)", fontsize=11)
    right.set_xlabel("training step", fontsize=11)
    right.set_ylabel("loss (mean of 10 steps)", fontsize=11)
    for axes in (left, right):
        axes.legend(fontsize=10.5, title="the activation stands", title_fontsize=10.5)
        axes.grid(alpha=0.3)
    return figure
