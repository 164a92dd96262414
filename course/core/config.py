"""The sizes of the three models.

Stages 5, 6 and 7 define one dataclass each; the defaults are those of Stable Diffusion 1.5. The JSON file beside a
checkpoint (`config.json`) holds the same names under "vae", "clip" and "unet" and needs to name only what differs.
"""

import json
import math
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from solutions.stage05_vae import VAEConfig
from solutions.stage06_clip import CLIPConfig
from solutions.stage07_unet import UNetConfig


@dataclass(frozen=True)
class ModelConfig:
    """The three configs together, as one JSON file holds them."""

    vae: VAEConfig = field(default_factory=VAEConfig)
    clip: CLIPConfig = field(default_factory=CLIPConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    image_size: int = 512  # height and width, in pixels, of the pictures that the model was trained on
    guidance_scale: float = 7.5  # the one that suits the model if none is asked for

    @classmethod
    def from_json(cls, path: str | Path) -> "ModelConfig":
        """Reads a config file. ValueError, in one sentence, if it is not one."""
        try:
            config = _read("the file", json.loads(Path(path).read_text(encoding="utf-8")), cls)
            levels, marks = len(config.unet.channels), len(config.unet.attention)
            if marks != levels:
                raise ValueError(f"attention has {marks} entries and channels has {levels}")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a model config: {error}") from None
        return config

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def _read(name: str, value: Any, kind: Any) -> Any:
    """A value of this kind out of JSON: a dataclass, a tuple, a bool, a positive int, a finite float."""
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{name} is {value!r}, not an object")
        kinds = get_type_hints(kind)
        if unknown := sorted(set(value) - set(kinds)):
            raise ValueError(f"{name} has an unknown entry {unknown[0]!r}")
        return kind(**{entry: _read(entry, part, kinds[entry]) for entry, part in value.items()})
    if get_args(kind):
        if not isinstance(value, list) or not value:
            raise ValueError(f"{name} is {value!r}, not a list with an entry per level")
        return tuple(_read(name, entry, get_args(kind)[0]) for entry in value)
    if kind is bool and type(value) is not bool:
        raise ValueError(f"{name} holds {value!r}, not true or false")
    if kind is int and (type(value) is not int or value < 1):
        raise ValueError(f"{name} is {value!r}, not a positive whole number")
    if kind is float and (type(value) not in (int, float) or not math.isfinite(value)):
        raise ValueError(f"{name} is {value!r}, not a number")
    return value


def tiny_config(vocab_size: int = 1024) -> ModelConfig:
    """The shipped model: Stable Diffusion 1 with about a hundredth of the parameters, for 128x128 pictures."""
    return ModelConfig(
        vae=VAEConfig(channels=(16, 32, 64, 128), blocks_per_level=1, num_groups=8),
        clip=CLIPConfig(vocab_size=vocab_size, width=128, hidden_width=512, num_layers=4, num_heads=4),
        unet=UNetConfig(
            channels=(64, 96, 160),
            attention=(True, True, False),
            blocks_per_level=1,
            num_heads=2,
            context_channels=128,
            num_groups=16,
        ),
        image_size=128,
        guidance_scale=4.0,
    )
