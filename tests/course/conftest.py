"""What tests of the course share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """The shipped layout at small widths, with motion modules and a LoRA file, for pictures of 32 x 32 pixels."""
    from course.training.export import write_untrained
    from solutions.stage13_motion import MotionConfig
    from tests.course.modules import NARROW, write_lora, write_modules

    folder = tmp_path_factory.mktemp("small")
    write_untrained(NARROW, folder)
    write_modules(folder / "motion.safetensors", NARROW, MotionConfig(num_heads=2, middle=False))
    write_lora(folder / "snowman.safetensors", NARROW)
    return folder / "model.safetensors"
