"""Proves that a float64 result is inaccurate because something on the way to it is computed in float32."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CAUSE = (
    "  Something on the way is computed in float32: with float64 everywhere, your code gives the right result.\n"
    "  torch.tensor(0.5), torch.ones(3) and torch.linspace(0, 1, 3) are float32 unless they are told a dtype, such\n"
    "  as dtype=x.dtype; .float() is float32 always."
)


class Float64Everywhere(TorchFunctionMode):
    """Within it, whoever asks for float32 gets float64."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        func = Tensor.double if func is Tensor.float else func
        given = {name: _wide(value) for name, value in (kwargs or {}).items()}
        return func(*map(_wide, args), **given)


def _wide(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def is_to_blame(run: Callable[[], Any], is_right: Callable[[Any], bool]) -> bool:
    """Whether a call that gives a wrong result gives a right one when float64 takes the place of float32."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # for those who name no dtype
    try:
        with Float64Everywhere():
            return is_right(run())
    except Exception:
        return False
    finally:
        torch.set_default_dtype(default)
