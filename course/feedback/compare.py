"""What all stage tests share: run the learner's code, compare, and say in a few lines what is wrong."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from course.feedback import diagnosis, float32

LONG = 150  # characters of a list that is not shown in full
NO_RETURN = "(is there a return?)"
TOLERANCE = 1e-10  # relative error of float64 results; rounding alone stays below 1e-13 in every block


def rand(*shape: int, seed: int = 0, scale: float = 1.0, shift: float = 0.0, dtype=torch.float64) -> Tensor:
    """Normally distributed numbers that depend on nothing but the arguments."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale + shift).to(dtype)


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64, eval mode, every parameter random, so that none has a value that hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.ndim > 1:
                values = values / parameter[0].numel() ** 0.5
            elif name.endswith("weight"):
                values = 1.0 + 0.3 * values
            else:
                values = 0.3 * values
            parameter.copy_(values)
    return module


def check(
    stage: ModuleType,
    run: str | Callable[[ModuleType], Any],
    expected: Any,
    call: str = "",
    *,
    tolerance: float = TOLERANCE,
    hint: str = "",
    inputs: Mapping[str, Tensor] | None = None,
    explain: Callable[[ModuleType], str] | None = None,
    **given: Any,
) -> None:
    """Asserts that a call gives what is expected.

    Args:
        stage: the module under test.
        run: the call as a learner would write it, "group_norm(x, num_groups)", with the names of the module and those
            of `given`; or a function of the module. The same call can be made with another version of the module.
        expected: a tensor (compared within the tolerance), anything that compares with == (ints, strings, lists of
            them), or a dict, list or tuple of tensors.
        call: what the message names, unless `run` says it.
        tolerance: of the relative error ||got - wanted|| / ||wanted||.
        hint: what a difference here usually means.
        inputs: tensors that the call must not change.
        explain: takes the module; called only after one of a run's first failures, for more lines of the message.
        given: what the names in `run` mean. Tensors among them must not be changed either; numbers and texts are told.
    """
    if isinstance(run, str):
        told = [f"{name}={value!r}" for name, value in given.items() if isinstance(value, (int, float, str))]
        call = call or run + (f" with {', '.join(told)}" if told else "")
        inputs = dict(inputs or {}) | {name: value for name, value in given.items() if isinstance(value, Tensor)}
        run = evaluated(run, given)
    explain = explain if diagnosis.left > 0 else None
    trial = diagnosis.Trial(stage, run, inputs or {}, lambda value: difference(value, expected, tolerance))
    if diagnosis.comparison:
        diagnosis.comparison.see(trial)
        return
    result = trial.of(stage)
    if result.error is not None:
        if explain and type(result.error) is RuntimeError:  # as a rule, shapes that do not fit together
            result.error.add_note(explain(stage))
        raise diagnosis.attach(result.error, trial, result)
    if result.changed:
        message = (
            f"{call} changes its argument {result.changed} in place.\n"
            f"  The caller still needs {result.changed}: compute a new tensor (x = x + 1, not x += 1 or x.add_(1))."
        )
        raise diagnosis.attach(AssertionError(message), trial, result)
    if result.setting:
        message = (
            f"{call} changes a setting of the whole program: {result.setting}.\n"
            "  Whatever runs afterwards would go on with it. Say what you need where you need it."
        )
        raise diagnosis.attach(AssertionError(message), trial, result)
    problem = trial.problem(result.value)
    if problem:
        lines = [f"{call}: {problem}"]
        if diagnosis.left > 0 and float32.is_to_blame(lambda: trial.of(stage), trial.is_right):
            lines.append(float32.CAUSE)
        elif NO_RETURN not in problem:  # the hint is about wrong values, and here is none
            lines += [explain(stage) if explain else "", f"  Hint: {hint}" if hint else ""]
        raise diagnosis.attach(AssertionError("\n".join(filter(None, lines))), trial, result)


def evaluated(call: str, given: Mapping[str, Any]) -> Callable[[ModuleType], Any]:
    """A function of a module that makes the call with the names of the module and the given ones."""
    code = compile(call, f"<{call}>", "eval")

    def listed(values: Any) -> Any:
        """What `list` gives; but a text, or None, stays what it is, so that the message shows what came."""
        if values is None or isinstance(values, str):
            return values
        if not isinstance(values, Iterable):
            kind = type(values).__name__
            raise AssertionError(f"{call}: got a single {kind}, wanted several: is there a return inside of a loop?")
        return list(values)

    def call_it(module: ModuleType) -> Any:  # with new dictionaries each time, since a call may take things off them
        values = {name: dict(value) if type(value) is dict else value for name, value in given.items()}
        return eval(code, {"list": listed, **vars(module), **values})

    return call_it


def difference(actual: Any, expected: Any, tolerance: float) -> str:
    """What distinguishes the two, in a line or a few; "" if nothing does."""
    if actual is None and expected is not None:
        wanted = describe(expected)
        return f"got None, wanted {wanted if len(wanted) < LONG / 2 else type(expected).__name__} {NO_RETURN}"
    if isinstance(expected, Tensor):
        return tensor_difference(actual, expected, tolerance)
    if isinstance(expected, Mapping):
        if not isinstance(actual, Mapping):
            return f"got {describe(actual)}, wanted a dictionary"
        for name, value in expected.items():
            if isinstance(value, Tensor) and not isinstance(actual.get(name, value), Tensor):
                return f"{name}: {difference(actual[name], value, tolerance)}"
        for name in expected:
            if name not in actual:
                others = difflib.get_close_matches(str(name), [str(n) for n in actual if n not in expected], n=1)
                return f"no {name!r} in the result" + "".join(f", but {other!r}" for other in others)
        for name in actual:
            if name not in expected:
                return f"{name!r} should not be in the result"
        for name, value in expected.items():
            if problem := difference(actual[name], value, tolerance):
                return f"{name}: {problem}"
        return ""
    if isinstance(expected, (list, tuple)) and any(isinstance(value, Tensor) for value in expected):
        if not isinstance(actual, (list, tuple)):
            return f"got {describe(actual)}, wanted a {type(expected).__name__}"
        if len(actual) != len(expected):
            return f"got {len(actual)} results, wanted {len(expected)}"
        for i, (a, e) in enumerate(zip(actual, expected)):
            if problem := difference(a, e, tolerance):
                return f"result {i}: {problem}"
        return ""
    if isinstance(actual, Tensor):
        return f"got {describe(actual)}, wanted {describe(expected)}"
    if isinstance(expected, float) and isinstance(actual, (int, float)):
        return "" if abs(actual - expected) <= tolerance * abs(expected) else f"got {actual}, wanted {expected}"
    if actual != expected:
        return plain_difference(actual, expected)
    return f"the numbers are right, but not whole numbers: got {shortened(repr(actual))}" * floats(actual, expected)


def floats(actual: Any, expected: Any) -> bool:
    """Whether a float stands where an int is wanted: 981.0 == 981, but only the latter is an index."""
    if isinstance(expected, (list, tuple)):
        return any(map(floats, actual, expected))
    return type(expected) is int and isinstance(actual, Real) and not isinstance(actual, Integral)


def plain_difference(actual: Any, expected: Any) -> str:
    """Both values, or the first entries that differ where they are long lists."""
    if not isinstance(actual, list) or not isinstance(expected, list) or len(repr(expected)) < LONG:
        return f"got {actual!r}\n  wanted {expected!r}"
    if len(actual) != len(expected):
        return f"got a list of {len(actual)}, wanted one of {len(expected)}"
    i = next(i for i, (a, e) in enumerate(zip(actual, expected)) if a != e)
    got, wanted = (", ".join(map(repr, values[i : i + 5])) for values in (actual, expected))
    return f"the lists differ from entry {i} on\n  got {got}, ...\n  wanted {wanted}, ..."


def tensor_difference(actual: Any, expected: Tensor, tolerance: float) -> str:
    if not isinstance(actual, Tensor):
        return f"got {describe(actual)}, wanted {describe(expected)}"
    if actual.shape != expected.shape:
        return f"the shape is {tuple(actual.shape)}, wanted {tuple(expected.shape)}"
    if actual.dtype != expected.dtype:
        return f"the dtype is {name_of(actual.dtype)}, wanted {name_of(expected.dtype)}"
    if actual.device != expected.device:
        return f"the result is on {actual.device}, wanted {expected.device}"
    a, e = actual.detach(), expected.detach()
    if a.dtype.is_floating_point:
        a, e = a.double(), e.double()
        if a.isnan().any() and not e.isnan().any():
            return f"{int(a.isnan().sum())} of {a.numel()} numbers are nan"
        same_infinities = torch.equal(a.isinf(), e.isinf()) and torch.equal(a[a.isinf()], e[e.isinf()])
        if not same_infinities:
            return "the values differ\n" + elements(a, e, (a.isinf() | e.isinf()) & (a != e))
        error = relative_error(a.masked_fill(a.isinf(), 0), e.masked_fill(e.isinf(), 0))
        if error <= tolerance:
            return ""
        scale = float(e[~e.isinf()].abs().max()) if e.numel() else 0.0
        different = (a - e).abs() > tolerance * max(scale, 1e-300)
        return f"the values differ, relative error {error:.2g} (allowed {tolerance:.0e})\n" + elements(a, e, different)
    return "" if torch.equal(a, e) else "the values differ\n" + elements(a, e, a != e)


def elements(actual: Tensor, expected: Tensor, different: Tensor) -> str:
    """The first element that differs, and how many do."""
    if actual.ndim == 0:
        return f"  {both(actual.item(), expected.item())}"
    where = different.nonzero()
    index = tuple(where[0].tolist()) if len(where) else (0,) * actual.ndim
    share = f"{len(where)} of {actual.numel()} numbers of shape {tuple(actual.shape)} differ"
    return (
        f"  {share}; the first at [{', '.join(map(str, index))}]: {both(actual[index].item(), expected[index].item())}"
    )


def both(actual: float, expected: float) -> str:
    """The two numbers, with as many digits as it takes to tell them apart, six at least."""
    if isinstance(expected, int):
        return f"got {actual}, wanted {expected}"
    pairs = [(f"{actual:.{digits}g}", f"{expected:.{digits}g}") for digits in range(6, 18)]
    got, wanted = next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])
    return f"got {got}, wanted {wanted}"


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """||actual - expected|| / ||expected||, in float64; the numerator alone where rounded zeros are wanted."""
    a, e = actual.detach().double(), expected.detach().double()
    distance, size = float((a - e).norm()), float(e.norm())
    return distance / size if size > 1e-12 else distance


def describe(value: Any) -> str:
    if isinstance(value, Tensor):
        name = name_of(value.dtype)
        return f"a{'n' * name.startswith('i')} {name} tensor of shape {tuple(value.shape)}"
    if isinstance(value, (list, tuple)) and any(isinstance(part, (Tensor, list, tuple)) for part in value):
        return f"a {type(value).__name__} of {len(value)} ({shortened(', '.join(map(describe, value)))})"
    if isinstance(value, Mapping):
        return f"a dictionary with {shortened(', '.join(map(repr, value))) or 'nothing in it'}"
    return "None" if value is None else f"{type(value).__name__} {shortened(repr(value))}"


def shortened(text: str) -> str:
    """The text in one line that is not too long."""
    text = " ".join(text.split())
    return text if len(text) <= LONG else f"{text[:LONG]}..."


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def give_weights(module: nn.Module, weights: Mapping[str, Tensor], call: str) -> nn.Module:
    """Puts the weights into the module, in float64; an AssertionError names the first parameter that does not fit."""
    if not isinstance(module, nn.Module):
        raise AssertionError(f"{call}: got {describe(module)}, wanted an nn.Module")
    module = module.double().eval()
    own = module.state_dict()
    missing = [name for name in weights if name not in own]
    unexpected = [name for name in own if name not in weights]
    if missing:
        raise AssertionError(
            f"{call} has no parameter {missing[0]!r} (wanted, of shape {tuple(weights[missing[0]].shape)})"
            + why_missing(module, missing[0], unexpected)
            + ("" if len(missing) == 1 else f"\n  {len(missing)} parameters are missing in all.")
        )
    if unexpected:
        raise AssertionError(
            f"{call} has a parameter {unexpected[0]!r} of shape {tuple(own[unexpected[0]].shape)} too many: "
            "the block of diffusers or transformers that yours is compared with has none there."
        )
    for name, tensor in weights.items():
        if own[name].shape != tensor.shape:
            raise AssertionError(
                f"{call}: {name} has the shape {tuple(own[name].shape)}, wanted {tuple(tensor.shape)}."
            )
    trainable = dict(module.named_parameters(remove_duplicate=False))
    first_names: dict[int, str] = {}
    for name in weights:
        if name not in trainable:
            raise AssertionError(
                f"{call}: {name} is a plain tensor; make it an nn.Parameter, so that it can be trained."
            )
        first = first_names.setdefault(id(trainable[name]), name)
        if first != name:
            raise AssertionError(
                f"{call}: {first} and {name} are one and the same parameter. Build a layer of its own for each; "
                "[layer] * 2 holds the same layer twice."
            )
    module.load_state_dict({name: tensor.double() for name, tensor in weights.items()})
    return module


def why_missing(module: nn.Module, name: str, unexpected: Sequence[str]) -> str:
    """Why a module has no parameter of this name: what is there instead, or a parameter of another name."""
    value, path, rest = module, "", name.split(".")
    while rest and isinstance(value, nn.Module):
        value, path = getattr(value, rest[0], None), f"{path}.{rest.pop(0)}".lstrip(".")
    kind = "a plain tensor" if isinstance(value, Tensor) else f"of type {type(value).__name__}"
    if value is not None and not rest:
        return f"; {path} is {kind}: make it an nn.Parameter, so that it can be trained."
    if isinstance(value, (list, tuple, dict)):
        right = "nn.ModuleDict" if isinstance(value, dict) else "nn.ModuleList"
        return f"; {path} is a plain {type(value).__name__}, whose layers are not counted: make it an {right}."
    if value is not None:
        return f"; {path} is {kind}, which has no parameters."
    if close := difflib.get_close_matches(name, unexpected, n=1, cutoff=0.5):
        return f"; should your {close[0]!r} have that name?\n  The docstring lists the names."
    return ".\n  The docstring lists the names; a layer counts once it is an attribute set in __init__."


def results_and_gradients(
    module: nn.Module, *inputs: Tensor | None, names: Mapping[str, str] | None = None, seed: int = 1
) -> dict[str, Tensor]:
    """The module's output, and the gradients of a random weighting of it with respect to inputs and parameters.

    Args:
        inputs: positional arguments; floating tensors among them get a gradient.
        names: the parameters' names in the result (theirs -> ours); None: as they are.
    """
    inputs = tuple(
        x.detach().clone().requires_grad_() if isinstance(x, Tensor) and x.dtype.is_floating_point else x
        for x in inputs
    )
    module.zero_grad(set_to_none=True)
    output = module(*inputs)
    output = getattr(output, "sample", output)
    if not isinstance(output, Tensor):
        return {"the output": output}
    (output * rand(*output.shape, seed=seed, dtype=output.dtype)).sum().backward()
    results = {"the output": output.detach()}
    for i, x in enumerate(x for x in inputs if isinstance(x, Tensor) and x.requires_grad):
        results[f"the gradient of input {i + 1}"] = torch.zeros_like(x) if x.grad is None else x.grad
    for name, parameter in module.named_parameters():
        own = names[name] if names is not None else name
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        results[f"the gradient of {own}"] = gradient
    return results
