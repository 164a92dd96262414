"""The check that nothing is kept from one call to the next: the same block or function, called several times."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from course.feedback.compare import TOLERANCE, check, describe, difference, evaluated
from tests.stages.blocks import make_block

Inputs = Mapping[str, Any]
Answer = Callable[..., Any]

ALONE = (
    "  A single call gives the right result: something is kept from one call to the next. What a call returns\n"
    "  depends on nothing but its arguments and the parameters."
)
IN_EVAL = "  After .eval() the results are right. They are the same in training: no dropout, no sampling, no shortcut."
WAYS = {
    "eval": "called several times in turn",
    "train": "in training mode, after .train()",
    "float32": "in float32, after calls in float64",
}
each_way = pytest.mark.parametrize("way", WAYS)


def in_dtype(values: Iterable[Any], dtype: torch.dtype) -> list[Any]:
    """The values, with floating tensors in this dtype."""
    return [x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in values]


def told(index: int, inputs: Inputs) -> str:
    """Which call it is, as the message names it; a call that is given as text speaks for itself."""
    if "call" in inputs:
        return f"{index + 1}. {inputs['call']}"
    arguments = ", ".join(f"{name} = {describe(value)}" for name, value in inputs.items())
    return f"call {index + 1}, {arguments}"


def check_in_turn(
    stage: ModuleType,
    text: str,
    make: Callable[[ModuleType], Answer],
    wanted: Answer,
    calls: Sequence[Inputs],
    *,
    tolerance: float = TOLERANCE,
    alone: str = ALONE,
    fresh: Callable[[ModuleType], Answer] | None = None,
) -> None:
    """Asserts that what `make` makes gives the wanted result each time, when it is called with these inputs in turn.

    The results are compared when all calls have been made, so that a result which a later call overwrites is noticed.

    Args:
        text: what is called, for the message.
        make: takes the module; called once.
        wanted: the reference.
        calls: the inputs of each call, by name; they must not be changed.
        alone: what the message says if each of the calls gives the right result with what `fresh` makes (if None:
            what `make` makes) for that call alone.
    """
    with torch.no_grad():
        expected = {told(i, inputs): wanted(*inputs.values()) for i, inputs in enumerate(calls)}

    @torch.no_grad()
    def run(module: ModuleType) -> dict[str, Any]:
        answer = make(module)
        return {told(i, inputs): answer(*inputs.values()) for i, inputs in enumerate(calls)}

    @torch.no_grad()
    def explain(module: ModuleType) -> str:
        try:
            single = {told(i, inputs): (fresh or make)(module)(*inputs.values()) for i, inputs in enumerate(calls)}
        except Exception:
            return ""
        return "" if difference(single, expected, tolerance) else alone

    kept = {f"{n} of call {i + 1}": x for i, c in enumerate(calls) for n, x in c.items() if isinstance(x, Tensor)}
    check(stage, run, expected, text, tolerance=tolerance, inputs=kept, explain=explain)


def check_block_in_turn(
    stage: ModuleType,
    text: str,
    theirs: Answer,
    weights: Mapping[str, Tensor],
    calls: Sequence[Inputs],
    way: str,
    *,
    method: str = "__call__",
    names: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
    roundings: int = 30,
) -> None:
    """check_in_turn for one block, in one of three ways: WAYS.

    In eval mode, the block has before been called in bfloat16 and with other parameters. In training mode, the first
    two calls are repeated, since what happens by chance need not happen at once.

    Args:
        text: how a learner makes the block.
        theirs: the reference; returns a tensor.
        weights: of the block, by our names.
        method: of the block: what is called.
        names: what names in the text mean, besides those of the module.
        roundings: how many times the precision of float32 the relative error may be, in that way.
    """
    about = f"{text}{'' if method == '__call__' else '.' + method}, {WAYS[way]}"

    def new(module: ModuleType) -> Answer:
        """Calls a new block each time."""
        return lambda *values: getattr(make_block(module, text, weights, names), method)(*values)

    def used(module: ModuleType) -> Answer:
        block = make_block(module, text, weights, names)
        for dtype in (torch.bfloat16, torch.float64):
            for parameter in block.to(dtype).parameters():
                parameter.mul_(0.5)
            getattr(block, method)(*in_dtype(calls[0].values(), dtype))
        block.double().load_state_dict(dict(weights))
        return getattr(block, method)

    def training(module: ModuleType) -> Answer:
        return getattr(make_block(module, text, weights, names).train(), method)

    def narrow(module: ModuleType, before: Sequence[Inputs] = calls) -> Answer:
        block = make_block(module, text, weights, names)
        for inputs in before:
            getattr(block, method)(*inputs.values())
        return getattr(block.float(), method)

    if way == "eval":
        check_in_turn(stage, about, used, theirs, [*calls, calls[0]], tolerance=tolerance, fresh=new)
    elif way == "train":
        check_in_turn(stage, about, training, theirs, 4 * calls[:2], tolerance=tolerance, alone=IN_EVAL, fresh=new)
    else:
        check_in_turn(
            stage, about, narrow, lambda *values: theirs(*in_dtype(values, torch.float64)).float(),
            [dict(zip(inputs, in_dtype(inputs.values(), torch.float32))) for inputs in calls],
            tolerance=roundings * torch.finfo(torch.float32).eps,
            fresh=lambda m: lambda *values: narrow(m, before=[])(*values),
        )


def check_function_in_turn(
    stage: ModuleType, text: str, theirs: Any, calls: Sequence[Inputs], *, tolerance: float = TOLERANCE
) -> None:
    """check_in_turn for a function: the call "silu(x)", as it is with the function of this name among `theirs`."""

    def answer(module: Any) -> Answer:
        return lambda *values: evaluated(text, dict(zip(calls[0], values)))(module)

    check_in_turn(stage, f"{text}, {WAYS['eval']}", answer, answer(theirs), [*calls, calls[0]], tolerance=tolerance)
