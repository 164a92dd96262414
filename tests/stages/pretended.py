"""A GPU without one: its tensors say that they are on another device, and have their numbers on the processor.

Every operation is checked as a GPU would check it, and is then computed with the numbers. So the result can be compared
with the wanted one, and code may look at numbers, as on a GPU. What it must not do there: bring tensors of two devices
together, and make float64 tensors, which Apple's GPUs do not have.
"""

import functools
import linecache
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from course.core.stages import short_path
from course.feedback.compare import check, describe, evaluated
from course.feedback.renaming import Rules, our_weights
from tests.stages.blocks import make_block

SINGLE = 1e-5  # GPUs compute in float32
CPU = torch.device("cpu")
BETWEEN_DEVICES = ("_to_copy", "copy_")
INDEXING = ("index", "index_put", "index_put_")  # of a GPU's tensor, also with indices of the processor


@functools.cache
def gpu() -> torch.device:
    """The device that is pretended: none of torch's own."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend()
    return torch.device("privateuseone:0")


class WrongDevice(RuntimeError):
    """What would stop on a GPU, or come out on the wrong side of it."""


class OnGPU(Tensor):
    """A tensor on the pretended GPU."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor):
        made = Tensor._make_wrapper_subclass(
            cls, numbers.shape, numbers.stride(), numbers.storage_offset(), dtype=numbers.dtype, device=gpu()
        )
        made.numbers = numbers
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> Any:
        return self.numbers.tolist()

    def __repr__(self) -> str:
        return f"OnGPU({self.numbers})"


class PretendedGPU(TorchDispatchMode):
    """Sees every operation, also those that make a tensor, and remembers which line of a file made it."""

    def __init__(self, filename: str):
        super().__init__()
        self.filename = filename

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler here, which takes longer than the tests of stage 1

    def __enter__(self):
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) moves it where this mode sees it
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(False)
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = computed(function, args, kwargs or {})
        if isinstance(result, Tensor) and not isinstance(result, OnGPU):
            before = [x.made for x in tree_leaves((args, kwargs)) if hasattr(x, "made")]
            result.made = before[0] if before else (name(function), self.line())
        return result

    def line(self) -> tuple[str, int] | None:
        """Where the file is being run."""
        frame = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename != self.filename:
            frame = frame.f_back
        return frame and (self.filename, frame.f_lineno)


def computed(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The result of an operation that may take and give tensors of both devices."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [x for x in tensors if isinstance(x, OnGPU)]
    device = kwargs.get("device")
    to_gpu = bool(there) if device is None else torch.device(device).type == gpu().type
    check_devices(function, args, tensors, there)
    if to_gpu and kwargs.get("generator") is not None:
        raise WrongDevice(f"{name(function)} makes a tensor on the GPU, and its generator is one of the processor.")
    result = function(*tree_map(unwrapped, args), **tree_map(unwrapped, kwargs))
    if name(function).endswith("_") and args and isinstance(args[0], Tensor):
        return args[0]
    return tree_map(lambda x: wrapped(x, function) if isinstance(x, Tensor) else x, result) if to_gpu else result


def check_devices(function: Any, args: Any, tensors: list[Tensor], there: list[Tensor]) -> None:
    """WrongDevice if a GPU would refuse the operation. Numbers (no dimensions) of the processor go with everything."""
    here = [x for x in tensors if not isinstance(x, OnGPU) and (x.ndim or name(function) == "cat")]
    if not here or not there or name(function) in BETWEEN_DEVICES:
        return
    if name(function) in INDEXING and isinstance(args[0], OnGPU) and all(isinstance(x, OnGPU) for x in args[2:3]):
        return
    maker = f"{here[0].made[0]} has made" if hasattr(here[0], "made") else "is"
    error = WrongDevice(
        f"{name(function)} gets {describe(here[0])} that {maker} on the processor, and {describe(there[0])} that is on "
        "the GPU."
    )
    error.here = here[0]
    raise error


def name(function: Any) -> str:
    return function.overloadpacket.__name__


def unwrapped(x: Any) -> Any:
    return x.numbers if isinstance(x, OnGPU) else CPU if isinstance(x, torch.device) else x


def wrapped(numbers: Tensor, function: Any) -> Tensor:
    if numbers.dtype == torch.float64:
        raise WrongDevice(f"{name(function)} makes {describe(numbers)} on the GPU, and Apple's GPUs have no float64.")
    return OnGPU(numbers)


# --- for tests -------------------------------------------------------------------------------------------------------


def moved(x: Any) -> Any:
    """Tensors as float32, and modules, on the pretended GPU; whatever else as it is."""
    if isinstance(x, nn.Module):
        for part in x.float().modules():
            for own in (part._parameters, part._buffers):
                own.update({key: OnGPU(tensor.detach()) for key, tensor in own.items() if tensor is not None})
        return x
    return OnGPU(single(x)) if isinstance(x, Tensor) else x


def fetched(x: Any) -> Any:
    """The numbers of a result, all of which has to be on the GPU."""
    if isinstance(x, Tensor) and not isinstance(x, OnGPU):
        error = WrongDevice("the result is on the processor, wanted the GPU, where the input is.")
        error.here = x
        raise error
    return x.numbers if isinstance(x, OnGPU) else x


HINT = "make new tensors where the input is, with device=x.device or zeros_like(x), and none of float64."


def check_on_gpu(
    stage: ModuleType, run: Callable[[ModuleType], Any], expected: Any, call: str, hint: str = HINT,
    anywhere: bool = False,
) -> None:
    """Asserts that a call gives what is expected, on the GPU.

    Args:
        run: makes the call with what `moved` has made.
        expected: as for check, on the processor, float32.
        anywhere: whether the result may be on the processor as well.
    """

    def there(module: ModuleType) -> Any:
        try:
            with torch.no_grad(), PretendedGPU(getattr(module, "__file__", "")):
                return tree_map(unwrapped if anywhere else fetched, run(module))
        except WrongDevice as error:
            told = AssertionError(f"{call} on a GPU: {error}\n  Hint: {hint}")
            if place := getattr(getattr(error, "here", None), "made", (None, None))[1]:
                line = linecache.getline(*place).strip()
                told.add_note(f"What is on the processor was made here:\n{short_path(place[0])}:{place[1]}\n    {line}")
            raise told from error

    check(stage, there, expected, f"{call} on a GPU", tolerance=SINGLE, hint=hint)


def check_call_on_gpu(
    stage: ModuleType, call: str, expected: Tensor, hint: str = HINT, anywhere: bool = False, **given: Any
) -> None:
    """check_on_gpu of a call that is given as text."""

    def run(module: ModuleType) -> Any:
        return evaluated(call, {name: moved(value) for name, value in given.items()})(module)

    check_on_gpu(stage, run, single(expected), call, hint, anywhere)


def check_block_on_gpu(
    stage: ModuleType, text: str, theirs: nn.Module, rules: Rules, names: Mapping[str, Any] | None = None,
    **inputs: Tensor,
) -> None:
    """check_block, on the GPU and in float32."""

    def run(module: ModuleType) -> Any:
        block = moved(make_block(module, text, our_weights(theirs, rules), names))
        return block(*map(moved, inputs.values()))

    expected = theirs(*inputs.values())
    expected = getattr(expected, "sample", expected).detach()
    check_on_gpu(stage, run, single(expected), f"{text}({', '.join(inputs)})")


def single(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.float64 else x
