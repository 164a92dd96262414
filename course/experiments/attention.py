"""When does the picture look at which word?

In each step, each place of the picture shares its attention out among all 77 tokens. Summed over places, layers and
heads, that gives each word's share in that step; seen place by place, it is a map of where the word is heard.
"""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from course.experiments.lab import Lab, Result
from course.studio.attention import attention_weights, overlay, to_size, token_names
from course.studio.page import grid, new_figure, side_by_side
from course.studio.question import Question
from course.studio.studio import PROMPT, hooked

TITLE = "When does the picture look at which word?"
QUESTION = Question(
    "Which tokens get most of the attention of the whole picture, over all steps?",
    ("the words", "the begin mark", "the end mark and the padding"),
)
MOMENTS = (0.05, 0.35, 0.65, 0.95)  # of the way


@torch.no_grad()
def run(lab: Lab) -> Result:
    images, steps = lab.walk(PROMPT, steps=lab.pick(20, 5))
    names = token_names(lab, PROMPT)
    maps = watch(lab, steps)  # (steps, 77, size, size)
    shares = maps.mean((2, 3))
    words = slice(1, len(names) - 1)
    groups = {
        "the begin mark": shares[:, 0],
        "the words": shares[:, words].sum(1),
        "the end mark and the padding": shares[:, len(names) - 1 :].sum(1),
    }
    means = {name: float(share.mean()) for name, share in groups.items()}
    first = {names[i]: int(shares[:, i].argmax()) for i in content(names)}
    focus = maps[:, words].amax((2, 3)) / maps[:, words].mean((2, 3))  # how much a map stands out
    early, late = float(focus[: len(steps) // 4].mean()), float(focus[-(len(steps) // 4) :].mean())
    listed = ", ".join(f"{name} at step {i + 1}" for name, i in first.items())
    text = (
        f"Over {len(steps)} steps the words get {means['the words']:.0%} of the attention, the begin mark "
        f"{means['the begin mark']:.0%}, the end mark and the padding {means['the end mark and the padding']:.0%}. "
        f"The share of a word is the largest for {listed}. The place that looks most at a word does so {early:.1f} "
        f"times as much as the mean place in the first quarter of the steps, and {late:.1f} times in the last."
    )
    order = ("the words", "the begin mark", "the end mark and the padding")
    answer = max(range(3), key=lambda i: means[order[i]])
    return Result(draw(lab, images, names, maps, groups), text, answer)


def content(names: list[str]) -> list[int]:
    """The positions of the words that say something."""
    return [i for i, name in enumerate(names) if name.strip("'") in ("red", "house", "snow", "night")]


def watch(lab: Lab, steps: list) -> Tensor:
    """The cross-attention in each step, averaged over layers and heads: (steps, tokens, size, size)."""
    kind = lab.blocks[3].TransformerBlock
    modules = [module.cross_attention for module in lab.model.unet.modules() if isinstance(module, kind)]
    seen: list[Tensor] = []

    def remember(module: nn.Module, arguments: tuple, named: dict) -> None:
        x = arguments[0] if arguments else named["x"]
        context = arguments[1] if len(arguments) > 1 else named["context"]
        seen.append(to_size(attention_weights(lab, module, x, context).cpu(), lab.latent_size))

    context, result = lab.context(PROMPT), []
    latents = lab.noise(0)
    with hooked(*(module.register_forward_pre_hook(remember, with_kwargs=True) for module in modules)):
        for step in steps:
            seen.clear()
            lab.model.unet(latents, torch.tensor([step.timestep], device=latents.device), context)
            result.append(torch.stack(seen).mean(0))
            latents = step.latents
    return torch.stack(result)


def draw(lab: Lab, images: Tensor, names: list[str], maps: Tensor, groups: dict[str, Tensor]) -> Figure:
    count = len(maps)
    picture = lab.arrays(images)[0]
    chosen = content(names)
    moments = sorted({min(int(moment * count), count - 1) for moment in MOMENTS})
    rows = [[overlay(picture, maps[step, i]) for i in chosen] for step in moments]
    figure = new_figure(height=5.6)
    left, right = side_by_side(figure, [1.15, 1])
    axes = left.subplots()
    grid(axes, rows, [f"step {step + 1}" for step in moments], [names[i] for i in chosen])
    axes.tick_params(labelsize=11)
    top, bottom = right.subplots(2, 1, sharex=True)
    for (name, share), style in zip(groups.items(), ("-", "--", "-.")):
        top.plot(range(1, count + 1), 100 * share, style, label=name, linewidth=2)
    for i, style in zip(chosen, ("-o", "-s", "-^", "-D")):
        bottom.plot(range(1, count + 1), 100 * maps[:, i].mean((1, 2)), style, label=names[i], markersize=4)
    for axes in (top, bottom):
        axes.set_ylabel("share of the\nattention (%)", fontsize=11)
        axes.set_ylim(0, 1.5 * axes.get_ylim()[1])
        axes.legend(fontsize=10, loc="upper right")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    bottom.set_xlabel("step", fontsize=11)
    return figure
