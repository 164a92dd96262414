"""The way back from a model file to a run's folder, so that training can be taken up where the file's ended.

What the file does not hold, the state of the optimiser, begins anew: the learning rate warms up again.
"""

import dataclasses
import json
from pathlib import Path

from course.core.config import ModelConfig
from course.core.weights import read_weights
from course.core.writing import whole_file
from course.draw.checkpoint import open_checkpoint, read_tokenizer
from course.training.loop import save_weights
from course.training.tokenizer import write_tokenizer
from solutions.stage10_key_remapper import remap_clip, remap_unet, remap_vae, select_ema, split_checkpoint
from solutions.stage13_motion import remap_motion

ADVICE = "get it again with the model file, or delete it"


def unpack(path: Path, config: ModelConfig, out: Path) -> None:
    """Writes the parts of a model file into a run's folder, as if they had been trained there.

    A part that the folder already holds stays: it has been trained further since. The tokenizer comes along.

    Args:
        path: the model file, or its folder; the picture encoder and motion modules are taken from beside it, if they
            are there.
        config: the sizes that the training wants.
        out: the run's folder.

    Raises:
        ValueError: if it is no model file, or one of another size.
    """
    checkpoint = open_checkpoint(path, option="CONTINUE")
    scaling = checkpoint.config.vae.scaling_factor
    if dataclasses.replace(config, vae=dataclasses.replace(config.vae, scaling_factor=scaling)) != checkpoint.config:
        raise ValueError(f"{checkpoint.path} is a model of another size: the training cannot go on from it")
    parts = split_checkpoint(checkpoint.tensors)
    averaged = split_checkpoint(select_ema(checkpoint.tensors) if checkpoint.has_ema else checkpoint.tensors)
    weights = {
        "vae": remap_vae(parts["vae"]),
        "clip": remap_clip(parts["clip"]),
        "unet": remap_unet(parts["unet"]),
        "unet_ema": remap_unet(averaged["unet"]),
    }
    beside = {name: checkpoint.path.with_name(f"{name}.safetensors") for name in ("picture_encoder", "motion")}
    found = {name: read_weights(file, ADVICE) for name, file in beside.items() if file.is_file()}
    if "motion" in found:
        found["motion"] = remap_motion(found["motion"])
    weights |= found
    for name, tensors in weights.items():
        if not (out / f"{name}.safetensors").exists():
            save_weights(out / f"{name}.safetensors", tensors)
    if not (out / "tokenizer").exists():
        write_tokenizer(out / "tokenizer", *read_tokenizer(checkpoint.path.parent))
    if not (out / "vae.json").exists():
        with whole_file(out / "vae.json") as temporary:
            temporary.write_text(json.dumps({"latent_std": 1.0 / scaling}), encoding="utf-8")
