"""All that decides what a picture looks like, and where it goes."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from course.core.messages import Refusal
from course.core.options import Options, option, shortened
from course.core.stages import STAGES
from course.core.stubs import constant
from course.draw.lora import wanted_loras
from course.feedback.mistakes import find_mistake, full_name

PROMPT = "a red house on a green hill at night"
MAX_SIZE = 4096
SAMPLERS = constant(STAGES[8], "SAMPLERS")


@dataclass
class Settings(Options):
    """What a PNG remembers. Where None is the default, it depends on the checkpoint or on other settings."""

    prompt: str = option(PROMPT, "what to draw", empty=True)
    negative: str = option("", "what to keep away from", empty=True)
    steps: int = option(25, "how many times the noise is predicted", least=1, most=500)
    scale: float | None = option(
        None,
        "guidance scale: 1 none; the default suits the checkpoint: 7.5 for SD 1.5, 4 for the small one",
        least=-100,
        most=100,
        usual="7.5",
    )
    seed: int | None = option(None, "number that picks the starting noise; by default a new one every time", least=0)
    sampler: str = option("ddim", "how noise is taken away", choices=SAMPLERS)
    width: int | None = option(None, "of the picture, in pixels")
    height: int | None = option(None, "of the picture, in pixels")
    count: int = option(1, "how many pictures, with seeds counting up; several also give a sheet", least=1, most=100)
    init: str | None = option(None, "picture file to start from (image-to-image)")
    strength: float | None = option(
        None, "with INIT: near 0 keeps nearly all of it, 1 nearly nothing; default 0.8, with MASK 1", above=0, most=1
    )
    mask: str | None = option(None, "with INIT: picture file of the same size, white where to paint anew")
    ema: bool = option(True, "the U-Net's averaged weights, or its raw ones")
    checkpoint: str | None = option(None, "SD 1.x file, .safetensors or .ckpt; by default the course's small one")
    tokenizer: str | None = option(None, "folder with vocab.json and merges.txt; by default beside the checkpoint")
    device: str = option("auto", "auto, cuda, mps or cpu")
    dtype: str = option("auto", "auto, float32, float16 or bfloat16")
    blocks: str = option(
        "auto",
        "auto: your finished stages; exercises: only yours; solutions: only the reference",
        choices=("auto", "exercises", "solutions"),
    )
    mistake: str | None = option(
        None, "draws with a mistake in one stage, such as stage08/betas-not-squared; docs/mistakes.md shows them"
    )
    engine: str = option(
        "auto",
        "what runs U-Net and decoder: torch; openvino, if installed: faster on a processor, but slow to start; "
        "auto: openvino for many pictures of a small model",
        choices=("auto", "torch", "openvino"),
    )
    lora: str | None = option(
        None, "LoRA file to draw with, or FILE:0.8 for that strength; several with commas between them"
    )
    frames: int | None = option(None, "draws a film of so many frames, by motion modules", least=2, most=128)
    motion: str | None = option(
        None, "with FRAMES: file of motion modules, of this course or of AnimateDiff; by default beside the checkpoint"
    )
    compile: bool = option(
        False, "on a GPU: compile U-Net and decoder first, which takes minutes and pays off for many pictures"
    )
    init_sha256: str | None = None  # of the files, so that FROM can tell whether they are still the same
    mask_sha256: str | None = None
    lora_sha256: str | None = None
    motion_sha256: str | None = None

    def check(self) -> None:
        """A Refusal for settings that do not go together; the mistake gets its full name."""
        if self.seed is not None and self.seed >= 2**63 - self.count:
            last = f"2^63 - {self.count + 1}"
            raise Refusal(f"SEED={shortened(self.seed)} is not possible: choose a whole number from 0 to {last}.")
        if self.init is None and self.mask is not None:
            raise Refusal(f"MASK={self.mask} needs INIT, the picture to be repainted.")
        if self.init is None and self.strength is not None:
            raise Refusal(f"STRENGTH={self.strength:g} needs INIT, the picture to start from.")
        if self.motion is not None and self.frames is None:
            raise Refusal(f"MOTION={self.motion} needs FRAMES, the length of the film.")
        if self.init is not None and self.frames is not None:
            raise Refusal(f"FRAMES={self.frames} does not go with INIT: films begin with noise alone.")
        if self.lora is not None:
            wanted_loras(self.lora)
        if self.mistake is not None:
            stage, mistake = find_mistake(self.mistake)
            self.mistake = full_name(stage, mistake)
            if self.blocks == "exercises":
                raise Refusal(f"MISTAKE={self.mistake} is made in the reference: it does not go with BLOCKS=exercises.")


@dataclass
class Order(Settings):
    """What `make generate` is asked for: settings, and where they come from and the picture goes to."""

    out: Path | None = option(None, "PNG file to write, for FRAMES WebP, GIF or MP4; by default a new one in outputs/")
    film: bool = option(False, "every step as a GIF too")
    from_: str | None = option(None, "picture or film of this command, to repeat it")

    def settings(self) -> Settings:
        """What was asked for, over what FROM's picture was made with, over the defaults.

        Raises:
            Refusal: if they make no sense.
        """
        known = [field.name for field in fields(Settings)]
        values: dict[str, Any] = {}
        if self.from_:
            from course.draw.pictures import read_settings

            values = {name: value for name, value in read_settings(self.from_).items() if name in known}
        asked = {name: value for name, value in self.given.items() if name in known}
        for name in asked:
            values.pop(f"{name}_sha256", None)
        if values.get("dtype") == "auto" and "dtype" not in asked:
            values["dtype"] = before_bfloat16(str((values | asked).get("device", "auto")))
        try:
            settings = Settings.from_values(values | asked)
        except TypeError:
            raise Refusal(f"FROM={self.from_} holds settings that make no sense.") from None
        settings.check()
        return settings


def before_bfloat16(device: str) -> str:
    """What "auto" means in a picture: that a GPU drew it, or that it is from when processors drew in float32 only."""
    from course.draw.checkpoint import choose_device

    return "float32" if choose_device(device).type == "cpu" else "auto"


def check_size(name: str, value: int, multiple: int) -> None:
    """A Refusal unless a model that draws multiples of so many pixels can draw this width or height."""
    if not multiple <= value <= MAX_SIZE or value % multiple:
        nearest = min(max((value + multiple // 2) // multiple, 1) * multiple, MAX_SIZE)
        raise Refusal(
            f"{name}={shortened(value)} is not possible: this model draws multiples of {multiple} up to {MAX_SIZE}; "
            f"the nearest is {nearest}."
        )
