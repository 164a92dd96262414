"""The sizes of the three models.

Each dataclass below describes one model; its defaults are those of Stable Diffusion 1.5. The JSON file beside a
checkpoint (`config.json`) holds the same names under "vae", "clip" and "unet" and needs to name only what differs.
"""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints


@dataclass(frozen=True)
class VAEConfig:
    image_channels: int = 3
    latent_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)  # one entry per level, from the picture down to the latents
    blocks_per_level: int = 2  # residual blocks in each encoder level; a decoder level has one more
    num_groups: int = 32
    scaling_factor: float = 0.18215  # latents are multiplied by it, so that their variance is about one

    @property
    def factor(self) -> int:
        """How many pixels (in each direction) one latent stands for: 8 with four levels."""
        return 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class CLIPConfig:
    vocab_size: int = 49408
    width: int = 768
    hidden_width: int = 3072
    num_layers: int = 12
    num_heads: int = 12
    max_length: int = 77  # tokens in every prompt, begin and end marks included


@dataclass(frozen=True)
class UNetConfig:
    in_channels: int = 4
    out_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)  # one entry per level
    attention: tuple[bool, ...] = (True, True, True, False)  # which levels have a spatial transformer after each block
    blocks_per_level: int = 2  # residual blocks in each level on the way down; a level on the way up has one more
    num_heads: int = 8
    context_channels: int = 768  # width of the text encoder
    num_groups: int = 32

    @property
    def factor(self) -> int:
        """Height and width of the latents must be multiples of this: the U-Net halves them once per level but the last."""
        return 2 ** (len(self.channels) - 1)


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
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(data, dict):
                raise ValueError("it holds no JSON object")
            unknown = set(data) - {f.name for f in fields(cls)}
            if unknown:
                raise ValueError(f"unknown entry {sorted(unknown)[0]!r}")
            size, scale = data.get("image_size", cls.image_size), data.get("guidance_scale", cls.guidance_scale)
            _check("image_size", size, int)
            _check("guidance_scale", scale, float)
            return cls(
                vae=_read(VAEConfig, data.get("vae", {})),
                clip=_read(CLIPConfig, data.get("clip", {})),
                unet=_read(UNetConfig, data.get("unet", {})),
                image_size=size,
                guidance_scale=scale,
            )
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a model config: {error}") from None

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def _check(name: str, value: Any, kind: Any) -> None:
    """ValueError unless the value is a positive whole number, a finite one, or a tuple of several, as the kind says."""
    if get_args(kind):
        if not isinstance(value, (list, tuple)) or not value:
            raise ValueError(f"{name} is {value!r}, not a list with an entry per level")
        for entry in value:
            _check(name, entry, get_args(kind)[0])
    elif kind is bool and type(value) is not bool:
        raise ValueError(f"{name} holds {value!r}, not true or false")
    elif kind is int and (type(value) is not int or value < 1):
        raise ValueError(f"{name} is {value!r}, not a positive whole number")
    elif kind is float and (type(value) not in (int, float) or not math.isfinite(value)):
        raise ValueError(f"{name} is {value!r}, not a number")


def _read(cls, data: Any):
    if not isinstance(data, dict):
        raise ValueError(f"what it holds for {cls.__name__} is no object")
    unknown = set(data) - {f.name for f in fields(cls)}
    if unknown:
        raise ValueError(f"{cls.__name__} has no entry {sorted(unknown)[0]!r}")
    for name, value in data.items():
        _check(name, value, get_type_hints(cls)[name])
    config = cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})
    if isinstance(config, UNetConfig) and len(config.attention) != len(config.channels):
        raise ValueError(f"attention has {len(config.attention)} entries and channels has {len(config.channels)}")
    return config


def tiny_config(vocab_size: int = 1024) -> ModelConfig:
    """The shipped model: Stable Diffusion 1's shape with a hundredth of its parameters, for 128x128 pictures."""
    return ModelConfig(
        vae=VAEConfig(channels=(16, 32, 64, 128), blocks_per_level=1, num_groups=8),
        clip=CLIPConfig(vocab_size=vocab_size, width=128, hidden_width=512, num_layers=4, num_heads=4),
        unet=UNetConfig(
            channels=(64, 96, 160), attention=(True, True, False), blocks_per_level=1, num_heads=2,
            context_channels=128, num_groups=16,
        ),
        image_size=128,
        guidance_scale=4.0,
    )
