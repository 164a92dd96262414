"""Reads weights from .safetensors files that the course has written itself, and says what to do if they are no good."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from course.core.stages import short_path


def read_weights(path: Path, instead: str) -> dict[str, Tensor]:
    """The tensors of a file.

    Args:
        path: the file.
        instead: what to do if it is no good, the end of a sentence.

    Raises:
        ValueError: in one sentence, if it is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ValueError(f"{short_path(path)} is missing: {instead}.") from None
    except (SafetensorError, OSError, ValueError):
        raise ValueError(f"{short_path(path)} is damaged: {instead}.") from None


def fill(model: nn.Module, path: Path, instead: str, others: dict[str, Tensor] | None = None) -> None:
    """Fills a model with the tensors of a file, and with `others` where it has none. Raises as `read_weights` does."""
    tensors = read_weights(path, instead)
    try:
        model.load_state_dict((others or {}) | {name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError:
        raise ValueError(f"{short_path(path)} belongs to another model: {instead}.") from None
