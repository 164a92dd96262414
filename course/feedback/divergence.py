"""Finds the place in a large model where it departs from the reference."""

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from course.feedback.compare import difference
from course.feedback.renaming import CLIP, UNET, VAE, Rules, our_name

NO_EQUAL = "-"  # the name of their submodules that none of ours corresponds to

# The rules for parameters, and before them those for submodules that need another rule.
VAE_PARTS = {r"mid_block\.attentions\.0\.$": "middle.attention."} | VAE
UNET_PARTS = {
    r"^(down|up)_blocks\.(\d+)\.$": r"\1.\2.",
    r"^mid_block\.$": "mid.",
    r"\.ff\.$": ".feed_forward.",
    r"^time_embedding\.$": NO_EQUAL,  # theirs takes the waves, ours the timesteps
} | UNET
CLIP_PARTS = {
    r"\.self_attn\.$": ".attention.",
    r"mlp\.$": NO_EQUAL,
    r"position_embedding\.$": NO_EQUAL,  # ours need not be called: its rows can be taken as they are
} | CLIP


@dataclass
class Call:
    """The first call of a submodule: all tensors that went in, in the order of its signature, and all that came out."""

    inputs: list[Tensor]
    outputs: list[Tensor] = field(default_factory=list)
    finished: float = float("inf")  # a rank: which call came to its end first


def first_divergence(
    theirs: nn.Module,
    run_theirs: Callable[[], Any],
    ours: nn.Module,
    run_ours: Callable[[], Any],
    rules: Rules,
    arguments: Callable[[nn.Module, list[Tensor]], list[Any]] = lambda part, inputs: inputs,
    tolerance: float = 1e-9,
) -> str:
    """Names the first submodule, in the order in which the reference runs them, that departs from it.

    Every submodule of ours that corresponds to one of theirs is run on the input that theirs had. If all of them give
    what theirs gave, the mistake lies in how they are connected: then the first is named that gets another input when
    the whole of ours is run (which may end with an exception).

    Args:
        rules: their names, each with a full stop behind it -> ours.
        arguments: what a submodule of ours is to be called with, given the tensors that went into theirs.

    Returns:
        A few lines for the message of a failed test.
    """
    parts = dict(ours.named_modules())
    names = {name: our_name(f"{name}.", rules).removesuffix(".") for name, _ in theirs.named_modules() if name}
    pairs = {own: theirs.get_submodule(name) for name, own in names.items() if own and own in parts}
    with recorded(pairs) as wanted:
        run_theirs()
    given = {name: arguments(parts[name], call.inputs) for name, call in wanted.items()}
    labels = {name: f"{name} ({type(parts[name]).__name__})" for name in wanted}

    for name in sorted(wanted, key=lambda name: wanted[name].finished):
        if problem := departure(parts[name], given[name], wanted[name].outputs, tolerance):
            return (
                "  Part by part, each with the input that it has in the library's model, the first to differ is\n"
                f"  {labels[name]}: {problem}"
            )
    with recorded({name: parts[name] for name in wanted}) as got, suppress(Exception):
        run_ours()
    right: list[str] = []
    for name in wanted:
        if name.startswith(tuple(f"{outer}." for outer in right)):
            continue  # inside of a part that is right: it may do there what it likes
        if name not in got:
            return f"  Every part is right on its own, but {labels[name]} is never called."
        if problem := compare(used_inputs(parts[name], got[name].inputs), tensors(given[name]), tolerance, "input"):
            return (
                "  Every part is right on its own. The first to get another input than in the library's model is\n"
                f"  {labels[name]}: {problem}"
            )
        right.append(name)
    return "  Every part is right on its own and gets the right input: look at what is done with their results."


def used_inputs(part: Any, inputs: list[Tensor]) -> list[Tensor]:
    """Without what a part of ours may be given and does not look at: the older skips, of a level on the way up."""
    if type(part).__name__ != "UpBlock" or len(inputs) < 4:
        return inputs
    x, *skips, time_embedding, context = inputs
    return [x, *skips[-len(part.residuals) :], time_embedding, context]


def departure(part: nn.Module, given: list[Any], wanted: list[Tensor], tolerance: float) -> str:
    """What distinguishes the part's outputs from the wanted ones; "" if nothing does."""
    try:
        with torch.no_grad():
            outputs = tensors(part(*(list(value) if isinstance(value, list) else value for value in given)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return compare(outputs, wanted, tolerance, "output")


def compare(got: list[Tensor], wanted: list[Tensor], tolerance: float, what: str) -> str:
    if len(got) != len(wanted):
        return f"got {len(got)} {what}s, wanted {len(wanted)}"
    for i, (g, w) in enumerate(zip(got, wanted), 1):
        if problem := difference(g, w, tolerance):
            return problem if len(wanted) == 1 else f"{what} {i} of {len(wanted)}: {problem}"
    return ""


@contextmanager
def recorded(parts: Mapping[str, nn.Module]) -> Iterator[dict[str, Call]]:
    """Gives a dictionary that fills with name -> first call, in the order in which the calls begin."""
    calls: dict[str, Call] = {}
    clock = itertools.count()
    handles = []

    def hook(name: str, part: nn.Module) -> None:
        def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
            if name not in calls:
                bound = inspect.signature(module.forward).bind(*args, **kwargs)
                calls[name] = Call(tensors(bound.arguments))

        def after(module: nn.Module, args: tuple, output: Any) -> None:
            if calls[name].finished == float("inf"):
                calls[name].outputs, calls[name].finished = tensors(output), next(clock)

        handles.append(part.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(part.register_forward_hook(after))

    for name, part in parts.items():
        hook(name, part)
    try:
        with torch.no_grad():
            yield calls
    finally:
        for handle in handles:
            handle.remove()


def tensors(value: Any) -> list[Tensor]:
    """All tensors inside of a value, in order."""
    if isinstance(value, Tensor):
        return [value.detach().clone()]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for element in value for tensor in tensors(element)]
    return []
