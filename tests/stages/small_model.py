"""The smallest Stable Diffusion that there can be: sizes, vocabulary, prompts, and a checkpoint file of random weights.

Nothing here imports diffusers or transformers, which takes longer than the tests of some stages.
"""

import json
import string
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from course.core.config import CLIPConfig, ModelConfig, UNetConfig, VAEConfig
from course.feedback.compare import randomised
from course.training.export import assemble
from solutions.stage05_vae import VAE
from solutions.stage06_clip import CLIPTextEncoder
from solutions.stage07_unet import UNet

# As few layers as a pipeline can have.
TINY = ModelConfig(
    unet=UNetConfig(
        channels=(8, 12), attention=(True, False), blocks_per_level=1, num_heads=2, context_channels=12, num_groups=4
    ),
    vae=VAEConfig(channels=(4, 8), blocks_per_level=1, num_groups=2),
    clip=CLIPConfig(vocab_size=60, width=12, hidden_width=20, num_layers=1, num_heads=2, max_length=77),
)

MERGES = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>"), ("o", "n</w>"), ("r", "e")]
PROMPTS = ["a red cat on a mat", "dog", "the dog on the road by the old tree"]
NEGATIVE_PROMPTS = ["dog", "", "ugly"]


def vocabulary() -> dict[str, int]:
    """Small letters within and at the end of a word, six merges and the two marks: 60 tokens."""
    tokens = [*string.ascii_lowercase, *(letter + "</w>" for letter in string.ascii_lowercase)]
    tokens += ["".join(pair) for pair in MERGES] + ["<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}


def random_checkpoint() -> dict[str, Tensor]:
    """A whole file of TINY's sizes; the averages are other numbers than the raw weights."""
    models = [VAE(TINY.vae), CLIPTextEncoder(TINY.clip), UNet(TINY.unet), UNet(TINY.unet)]
    weights = [randomised(model, seed).float().state_dict() for seed, model in enumerate(models)]
    weights[0]["decoder.conv_out.weight"] *= 0.5  # so that few pixels leave [-1, 1], where they are cut off
    return assemble(TINY, *weights, num_updates=1, dtype=torch.float32)


def write_checkpoint(folder: Path) -> None:
    """The file and what belongs beside it, and a picture and a mask to start from."""
    save_file(random_checkpoint(), folder / "model.safetensors")
    (folder / "config.json").write_text(TINY.to_json(), encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(vocabulary()), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(" ".join(pair) for pair in MERGES), encoding="utf-8")
    levels = torch.randint(0, 256, (16, 24, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(levels.numpy()).save(folder / "init.png")
    mask = torch.zeros(16, 24, dtype=torch.uint8)
    mask[3:10, 5:19] = 255
    Image.fromarray(mask.numpy()).save(folder / "mask.png")
