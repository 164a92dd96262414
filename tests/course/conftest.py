"""What tests of the course share."""

import dataclasses
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """The shipped layout at small widths, with motion modules and a LoRA file, for pictures of 32 x 32 pixels."""
    from course.core.config import CLIPConfig, UNetConfig, VAEConfig, tiny_config
    from course.training.export import write_untrained
    from solutions.stage13_motion import MotionConfig
    from tests.course.modules import write_lora, write_modules

    config = dataclasses.replace(
        tiny_config(),
        vae=VAEConfig(channels=(8, 8, 8, 8), blocks_per_level=1, num_groups=4),
        clip=CLIPConfig(vocab_size=640, width=16, hidden_width=32, num_layers=2, num_heads=2),
        unet=UNetConfig(
            channels=(8, 16, 16), attention=(True, True, False), blocks_per_level=1, num_heads=2, context_channels=16,
            num_groups=4,
        ),
        image_size=32,
    )
    folder = tmp_path_factory.mktemp("small")
    write_untrained(config, folder)
    write_modules(folder / "motion.safetensors", config, MotionConfig(num_heads=2, middle=False))
    write_lora(folder / "snowman.safetensors", config)
    return folder / "model.safetensors"
