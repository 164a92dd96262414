"""The stages of the course, ten and an encore, and where their files are."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOLUTIONS = ROOT / "solutions"
LARGEST_SOURCE = 1_000_000  # bytes
TESTS = ROOT / "tests" / "stages"


@dataclass(frozen=True)
class Stage:
    """One stage. Its module name is that of its file in exercises/ and in solutions/, and part of its test's name.

    The ten stages that are no encore are all that it takes to draw a picture.
    """

    number: int
    name: str
    title: str
    summary: str
    encore: bool = False

    @property
    def module(self) -> str:
        return f"stage{self.number:02d}_{self.name}"

    @property
    def exercise(self) -> Path:
        return exercises_folder() / f"{self.module}.py"

    @property
    def solution(self) -> Path:
        return SOLUTIONS / f"{self.module}.py"

    @property
    def test(self) -> Path:
        return TESTS / f"test_{self.module}.py"


STAGES = (
    Stage(1, "group_norm", "Group normalisation", "keeps the numbers inside the network to one scale"),
    Stage(2, "residual", "The residual block", "two convolutions that compute a correction, told how noisy it is"),
    Stage(3, "attention", "Attention", "pixels look at pixels, and pixels look at words"),
    Stage(4, "upsample", "Changing the resolution", "half as many pixels, twice as many pixels"),
    Stage(5, "vae", "The autoencoder", "from pictures to latents and back"),
    Stage(6, "clip", "The text encoder", "from a prompt to 77 vectors"),
    Stage(7, "unet", "The U-Net", "predicts the noise in a noisy latent"),
    Stage(8, "scheduler", "The noise schedule", "how noise is added, and one step of taking it away"),
    Stage(9, "sampler", "The sampler", "the loop from noise to picture, with guidance"),
    Stage(10, "key_remapper", "Real weights", "loads published checkpoints into your model"),
    Stage(11, "training", "Training", "losses, noise levels, averaged weights, and one step of it all", encore=True),
    Stage(12, "lora", "LoRA", "teaches a trained model something new, with a small file", encore=True),
    Stage(13, "motion", "Motion", "frames look at each other, so that pictures become a film", encore=True),
)
PIPELINE = tuple(stage for stage in STAGES if not stage.encore)
ENCORE = tuple(stage for stage in STAGES if stage.encore)


def source_of(path: Path) -> str:
    """The text of a stage's file.

    Raises:
        OSError: if there is no such file, or something else is in its place: reading a pipe would never end, and
            parsing a huge file takes minutes.
        UnicodeDecodeError: if it is not UTF-8.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "Not a file", str(path))
    if path.stat().st_size > LARGEST_SOURCE:
        raise OSError(errno.EFBIG, "File too large", str(path))
    return path.read_text(encoding="utf-8-sig")


def exercises_folder() -> Path:
    """The learner's folder: exercises/, or the one that COURSE_EXERCISES names."""
    return Path(os.environ.get("COURSE_EXERCISES") or ROOT / "exercises").resolve()


def find_stage(text: str | int) -> Stage:
    """The stage that a person means by "3", "attention" or "stage03_attention".

    Raises:
        ValueError: if there is no such stage; the message is one sentence that lists the stages.
    """
    wanted = str(text).strip().removesuffix(".py").lower()
    for stage in STAGES:
        if wanted in (stage.name, stage.module) or (wanted.isdecimal() and int(wanted) == stage.number):
            return stage
    names = ", ".join(f"{stage.number} {stage.name}" for stage in STAGES)
    raise ValueError(f"There is no stage {str(text)!r}: choose one of {names}.")


def others(stage: Stage) -> list[Stage]:
    """All other stages, as one goes on after this one: those behind it, then those before it, the encore last."""
    rest = [other for other in STAGES if other is not stage]
    return sorted(rest, key=lambda other: (other.encore > stage.encore, other.number < stage.number))


def short_path(path: Path | str) -> str:
    """A path as a person would type it: relative to the repo or to the working folder, if it lies there."""
    for folder in (ROOT, Path.cwd()):
        try:
            return Path(path).resolve().relative_to(folder).as_posix()
        except (ValueError, RuntimeError):  # it lies elsewhere, or is a link to itself
            continue
    return str(path)
