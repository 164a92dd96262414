"""The sizes of the three models.

Stages 5, 6 and 7 define one dataclass each; the defaults are those of Stable Diffusion 1.5. The JSON file beside a
checkpoint (`config.json`) holds the same names under "vae", "clip" and "unet" and needs to name only what differs.
"""

import json
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from course.core.options import shortened
from solutions.stage05_vae import VAEConfig
from solutions.stage06_clip import CLIPConfig
from solutions.stage07_unet import UNetConfig

LARGEST = {"num_layers": 100, "blocks_per_level": 100}  # without a bound, making a model might never end
LARGEST_OTHER = 1_000_000


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
            _check(config)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a model config: {error}") from None
        return config

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def _read(name: str, value: Any, kind: Any) -> Any:
    """A value of this kind out of JSON: a dataclass, a tuple, a bool, a positive int, a finite float."""
    shown = shortened(repr(value))
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{name} is {shown}, not an object")
        kinds = get_type_hints(kind)
        if unknown := sorted(set(value) - set(kinds)):
            raise ValueError(f"{name} has an unknown entry {shortened(repr(unknown[0]))}")
        return kind(**{entry: _read(entry, part, kinds[entry]) for entry, part in value.items()})
    if get_args(kind):
        if not isinstance(value, list) or not value:
            raise ValueError(f"{name} is {shown}, not a list with an entry per level")
        return tuple(_read(name, entry, get_args(kind)[0]) for entry in value)
    if kind is bool and type(value) is not bool:
        raise ValueError(f"{name} holds {shown}, not true or false")
    if kind is int and (type(value) is not int or not 1 <= value <= LARGEST.get(name, LARGEST_OTHER)):
        raise ValueError(f"{name} is {shown}, not a whole number from 1 to {LARGEST.get(name, LARGEST_OTHER)}")
    if kind is float and (type(value) not in (int, float) or not -LARGEST_OTHER <= value <= LARGEST_OTHER):
        raise ValueError(f"{name} is {shown}, not a number from -{LARGEST_OTHER} to {LARGEST_OTHER}")
    return value


def _check(config: ModelConfig) -> None:
    """A ValueError for numbers that do not go together."""
    vae, clip, unet = config.vae, config.clip, config.unet
    if len(unet.attention) != len(unet.channels):
        raise ValueError(f"attention has {len(unet.attention)} entries and channels has {len(unet.channels)}")
    attending = [width for width, attends in zip(unet.channels, unet.attention) if attends]
    shares = {
        "num_groups of the VAE": (vae.num_groups, vae.channels),
        "num_groups of the U-Net": (unet.num_groups, unet.channels),
        "num_heads of the U-Net": (unet.num_heads, (*attending, unet.channels[-1])),
        "num_heads of the text encoder": (clip.num_heads, (clip.width,)),
    }
    for name, (number, widths) in shares.items():
        for width in widths:
            if width % number:
                raise ValueError(f"{name} is {number}, which does not divide its width {width}")
    if vae.scaling_factor == 0:
        raise ValueError("scaling_factor is 0")


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
