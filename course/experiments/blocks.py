"""Why so many blocks? What is missing when one is switched off?

Each part of the U-Net is switched off in turn: residual blocks keep only their shortcut, transformers hand their input
on, skips carry zeros, levels lose all their residual blocks and transformers. Three things are measured: the error of
the predicted noise on pictures that were not trained on, whether what is drawn still shows what the prompt says, and
the time that the part takes.

That a trained network misses a part does not say that a network without it would be worse: it would have been trained
without. So four small U-Nets were trained from nothing that differ in one thing each (small_unets.py).
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from course.experiments import small_unets
from course.experiments.lab import Lab, Result
from course.studio.page import grid, new_figure, side_by_side
from course.studio.parts import Part, parts, without_correction
from course.studio.question import Question
from course.studio.studio import cutting, hooked

TITLE = "Why so many blocks? What is missing when one is switched off?"
QUESTION = Question(
    "One single part of the U-Net is switched off. Without which does the error of the predicted noise grow the most?",
    ("a residual block", "a transformer, with the words", "a skip"),
)
FAR = 400_000  # the number of the first example that is measured with: no training picture

Found = tuple[float, Tensor, float]  # (error of the predicted noise, pictures, share of them that is right)


@torch.no_grad()
def run(lab: Lab) -> Result:
    images, captions = lab.examples(FAR, lab.pick(40, 2))
    clean, context = lab.encoded(images), lab.blocks[9].encode_prompts(lab.model, captions)
    scenes = lab.scenes_to_draw(lab.pick(16, 1), seed=17)
    switches = parts(lab.model.unet, lab.opened.config.unet.channels)
    times = milliseconds(lab, switches, clean, context)
    everything = measured(lab, clean, context, scenes)
    found = {}
    for name, part in switches.items():
        with switched_off(part):
            found[name] = measured(lab, clean, context, scenes)
    growth = {name: one[0] / everything[0] - 1 for name, one in found.items()}
    ranked = sorted((name for name in growth if not name.startswith("all of")), key=lambda name: -growth[name])
    idle = [name for name in ranked if found[name][2] >= everything[2]]

    curves = small_unets.curves()
    text = (
        f"Without '{ranked[0]}' the squared error of the noise grows by {growth[ranked[0]]:.0%}, without "
        f"'{ranked[-1]}' by {growth[ranked[-1]]:z.1%}; {len(idle)} of {len(ranked)} parts can be missing, one at a "
        f"time, without fewer of {len(scenes)} pictures being right. {comparison(curves)}"
    )
    kinds = [next(name for name in ranked if kind in name) for kind in ("residual", "transformer", "skip")]
    answer = kinds.index(ranked[0])
    # The three parts that are missed the most, one from the middle, and the one that is missed the least.
    chosen = [*ranked[:3], ranked[len(ranked) // 2], ranked[-1]]
    some = {"everything on": everything} | {name: found[name] for name in chosen}
    return Result(draw(lab, growth, found, times, some, curves), text, answer)


def comparison(curves: dict[str, dict]) -> str:
    """What the small U-Nets say, in a sentence or two."""
    ends = {name: curve["errors"][-1] for name, curve in curves.items()}
    base = ends.pop("concatenated")
    apart = [name for name, end in ends.items() if abs(end / base - 1) > 0.02]
    text = (
        f"Small U-Nets, trained from nothing for {curves['concatenated']['steps'][-1]} steps, end at an error of "
        f"{base:.3f}; "
        + ", ".join(f"'{name}' at {end:.3f} ({end / base - 1:+.0%})" for name, end in ends.items())
        + ". "
    )
    if "added skips" not in apart:
        text += "So at this size concatenation is not better than addition by more than 2 %."
    return text


@contextmanager
def switched_off(part: Part) -> Iterator[None]:
    """The U-Net without a part, for as long as the block runs."""
    with ExitStack() as stack:
        for kind, module, channels in part:
            if kind == "skip":
                handle = module.register_forward_pre_hook(cutting(channels))
            else:
                handle = module.register_forward_hook(without_correction, with_kwargs=True)
            stack.enter_context(hooked(handle))
        yield


def measured(lab: Lab, clean: Tensor, context: Tensor, scenes: list) -> Found:
    """The error of the predicted noise, pictures, and the share of them that is right."""
    schedule, noise = lab.model.schedule, lab.noise(170, len(clean))
    moments = torch.linspace(0, schedule.num_train_timesteps - 1, len(clean)).long()
    noisy = schedule.add_noise(clean, noise, moments)
    error = float((lab.model.unet(noisy, moments.to(noisy.device), context) - noise).square().mean())
    images = lab.draw(lab.prompts(scenes), seed=180, steps=lab.pick(6, 1), sampler="dpm++2m").cpu()
    return error, images, lab.right(images, scenes)["all four"]


def milliseconds(lab: Lab, switches: dict[str, Part], clean: Tensor, context: Tensor) -> dict[str, float]:
    """How many milliseconds per picture each part takes in one pass, the fastest of a few; 0 for a skip."""
    single = {name: part[0][1] for name, part in switches.items() if len(part) == 1 and part[0][0] != "skip"}
    spent, started = {name: float("inf") for name in single}, {}

    def begin(name: str) -> Any:
        return lambda module, inputs: started.update({name: time.perf_counter()})

    def end(name: str) -> Any:
        return lambda module, inputs, output: spent.update(
            {name: min(spent[name], time.perf_counter() - started[name])}
        )

    handles = [module.register_forward_pre_hook(begin(name)) for name, module in single.items()]
    handles += [module.register_forward_hook(end(name)) for name, module in single.items()]
    batch = clean[:8]
    with hooked(*handles):
        for _ in range(lab.pick(5, 1)):
            lab.model.unet(batch, torch.full((len(batch),), 500, device=batch.device), context[: len(batch)])
    by_module = {id(module): 1000 * spent[name] / len(batch) for name, module in single.items()}
    return {
        name: sum(by_module[id(module)] for kind, module, _ in part if kind != "skip")
        for name, part in switches.items()
    }


def draw(
    lab: Lab,
    growth: dict[str, float],
    found: dict[str, Found],
    times: dict[str, float],
    some: dict[str, Found],
    curves: dict[str, dict],
) -> Figure:
    figure = new_figure(height=7.6)
    left, right = side_by_side(figure, [1.05, 1])
    axes = left.subplots()
    names = list(growth)
    shown = [max(100 * growth[name], 0.1) for name in names]
    tones = {"all of": "0.5", "residual": "C0", "transformer": "C1", "skip": "C2"}
    axes.barh(range(len(names)), shown, color=[next(t for kind, t in tones.items() if kind in name) for name in names])
    axes.set_xscale("log")
    axes.set_xlim(0.1, 3e3 * max(shown))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names, fontsize=9.5)
    for i, name in enumerate(names):
        words = f"{max(100 * growth[name], 0):.0f} %   {found[name][2]:.0%} right   {times[name]:.1f} ms"
        axes.text(shown[i] * 1.2, i, words, va="center", fontsize=9.5)
    axes.set_xlabel("growth of the squared error of the noise (%)", fontsize=10.5)
    axes.spines[["top", "right"]].set_visible(False)

    top, bottom = right.subplots(2, 1, height_ratios=[1.5, 1])
    cells = [(name, lab.arrays(images[:1])[0]) for name, (_, images, _) in some.items()]
    cell, gap = 128, 44
    grid(top, [[picture for _, picture in cells[:3]], [picture for _, picture in cells[3:]]], cell=cell, gap=gap)
    for i, (name, _) in enumerate(cells):
        across, down = i % 3 * (cell + gap) + cell / 2, i // 3 * (cell + gap) - 3
        label = name if i == 0 else "no " + name.replace(", ", ",\n")
        top.text(across, down, label, ha="center", va="bottom", fontsize=9.5)
    for (name, curve), style in zip(curves.items(), ("-", "--", "-.", ":")):
        bottom.plot(curve["steps"], curve["errors"], style, label=name, linewidth=2)
    bottom.set_yscale("log")
    bottom.set_yticks([0.2, 0.3, 0.4, 0.6, 1.0], ["0.2", "0.3", "0.4", "0.6", "1"])
    bottom.minorticks_off()
    bottom.set_xlabel("training step", fontsize=10.5)
    bottom.set_ylabel("error on unseen pictures", fontsize=10.5)
    bottom.set_title("small U-Nets, trained from nothing", fontsize=11)
    bottom.legend(fontsize=10)
    bottom.grid(alpha=0.3)
    return figure
