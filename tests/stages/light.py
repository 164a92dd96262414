"""diffusers and transformers in about half the time: without the parts of torch that no test of a stage uses."""

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.distributed


def as_it_is(function: Any = None, *args: Any, **kwargs: Any) -> Any:
    """A decorator without effect, with or without arguments of its own."""
    return as_it_is if function is None else function


class NotImported:
    """A class of torch's compiler of which there is no object, as long as nothing was compiled."""

    def __init__(self, *args: Any, **kwargs: Any):
        raise RuntimeError("This needs torch's compiler, and is done in a `with without_compiler()`.")


# What diffusers and transformers ask of the compiler where nothing is compiled: decorators that tell it how to treat a
# function or class, and whether a model was compiled. Anything else is an ImportError or AttributeError.
STAND_INS = {
    "torch._dynamo": {
        "allow_in_graph": as_it_is,
        "assume_constant_result": as_it_is,
        "disable": as_it_is,
        "eval_frame": SimpleNamespace(OptimizedModule=NotImported),
    },
    "torch._dynamo._trace_wrapped_higher_order_op": {"TransformGetItemToIndex": NotImported},
}


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """What is imported or made in this context goes without torch's compiler and without computing on several machines.

    diffusers and transformers import both whether they use them or not, which takes longer than the import of torch. In
    this context torch says that it was built without the second, as it is on some systems, and the first has a stand-in
    without effect. Afterwards both are there as ever. Not one line of what computes is another one, and code of a
    learner never runs in it.
    """
    modules = {} if "torch._dynamo" in sys.modules else {name: ModuleType(name) for name in STAND_INS}
    for name, module in modules.items():
        vars(module).update(STAND_INS[name], __path__=[])
        sys.modules[name] = module
    several_machines = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    try:
        yield
    finally:
        torch.distributed.is_available = several_machines
        for name in modules:
            del sys.modules[name]
