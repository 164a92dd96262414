"""The check that most tests of stages 1 to 7 make: the learner's block with the reference's weights gives the same."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from course.feedback.compare import TOLERANCE, check, evaluated, give_weights, name_of, results_and_gradients
from course.feedback.divergence import first_divergence
from course.feedback.renaming import Rules, our_names, our_weights


def make_block(
    module: ModuleType, text: str, weights: Mapping[str, Tensor], names: Mapping[str, Any] | None = None
) -> nn.Module:
    """The block that the text makes, "MultiHeadAttention(12, 3)", filled with these weights."""
    return give_weights(evaluated(text, names or {})(module), weights, text)


def text_of(config: Any) -> str:
    """How the config of a model is made, without the fields that have their defaults."""
    given = [f"{f.name}={getattr(config, f.name)!r}" for f in fields(config) if getattr(config, f.name) != f.default]
    return f"{type(config).__name__}({', '.join(given)})"


def divergence(
    make: Callable[[ModuleType], nn.Module], theirs: nn.Module, rules: Rules, *values: Any, **options: Any
) -> Callable[[ModuleType], str]:
    """An `explain` for check: the first part of the block that `make` makes at which it departs from the reference."""

    def explain(module: ModuleType) -> str:
        ours = make(module)
        return first_divergence(theirs, lambda: theirs(*values), ours, lambda: ours(*values), rules, **options)

    return explain


def check_block(
    stage: ModuleType,
    text: str,
    theirs: nn.Module,
    rules: Rules,
    *,
    about: str = "",
    hint: str = "",
    gradients: bool = False,
    by_name: bool = False,
    tolerance: float = TOLERANCE,
    names: Mapping[str, Any] | None = None,
    explain: Callable[[ModuleType], str] | None = None,
    **inputs: Any,
) -> None:
    """Asserts that the block that the text makes equals the reference on these inputs.

    Args:
        text: how a learner makes the block, "MultiHeadAttention(12, 3)".
        theirs: the reference, with its weights.
        rules: from its parameters' names to ours.
        about: what else the message says of the call.
        gradients: whether the gradients of inputs and parameters are compared, too.
        by_name: whether ours gets its inputs by their names.
        names: what names in the text mean, besides those of the module.
        inputs: what both are called with, in this order; the block must not change them.
    """
    values = tuple(inputs.values())

    def run(module: ModuleType) -> Any:
        block = make_block(module, text, our_weights(theirs, rules), names)
        if by_name:
            return block(**inputs)
        return results_and_gradients(block, *values) if gradients else block(*values)

    if gradients:
        expected = results_and_gradients(theirs, *values, names=our_names(theirs, rules))
    else:
        expected = theirs(*values)
        expected = getattr(expected, "sample", expected).detach()
    given = (f"{name}={name}" if by_name else name for name in inputs)
    call = f"{text}({', '.join(given)}){' and its gradients' if gradients else ''}{about and ' ' + about}"
    kept = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    check(stage, run, expected, call, tolerance=tolerance, hint=hint, explain=explain, inputs=kept)


def check_default_dtype(stage: ModuleType, text: str, **names: Any) -> None:
    """Asserts that all parameters of what the text makes have torch's default dtype, when that is bfloat16."""

    def run(module: ModuleType) -> list[str]:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            parameters = evaluated(text, names)(module).named_parameters()
            return [f"{name} in {name_of(x.dtype)}" for name, x in parameters if x.dtype != torch.bfloat16]
        finally:
            torch.set_default_dtype(before)

    check(
        stage, run, [], f"parameters of {text} that do not have torch's default dtype when that is bfloat16",
        hint="make layers without dtype=...: `make generate` makes the model in the dtype that it draws in.",
    )


def without(module: nn.Module, *layers: str) -> nn.Module:
    """The module with all parameters of some of its layers at zero."""
    for layer in layers:
        for parameter in module.get_submodule(layer).parameters():
            parameter.detach().zero_()
    return module


class Call(nn.Module):
    """A call, given as text, as a module of some of its tensors: then results_and_gradients takes it."""

    def __init__(self, module: Any, text: str, names: tuple[str, ...]):
        super().__init__()
        self.call = lambda values: evaluated(text, dict(zip(names, values)))(module)

    def forward(self, *values: Tensor) -> Tensor:
        return self.call(values)


def check_function(
    stage: ModuleType, text: str, theirs: Any = nn.functional, *, about: str = "", gradients: bool = False,
    hint: str = "", tolerance: float = TOLERANCE, **given: Any,
) -> None:
    """Asserts that the call "silu(x)" gives what it gives with the function of this name among `theirs`.

    Args:
        about: what else the message says of the call.
        gradients: whether the gradients of what is given, all tensors then, are compared, too.
    """
    call = f"{text}{' and its gradients' if gradients else ''}{about and ' ' + about}"
    if not gradients:
        expected = evaluated(text, given)(theirs)
        check(stage, text, expected, call if about else "", hint=hint, tolerance=tolerance, **given)
        return

    def run(module: Any) -> Any:
        return results_and_gradients(Call(module, text, tuple(given)), *given.values())

    check(stage, run, run(theirs), call, hint=hint, tolerance=tolerance)
