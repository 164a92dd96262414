"""LoRA files: which are asked for, what is in them, and how a model is drawn with that has them in its weights."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from course.core.messages import Refusal, first_line
from course.core.options import expanded
from course.core.stages import short_path

if TYPE_CHECKING:
    from torch import Tensor

NEEDED_BY_LORA = (11, 12)  # the stages of the encore: 12 and what it imports


def wanted_loras(text: str) -> list[tuple[Path, float]]:
    """The files and their strengths: "a.safetensors:0.8,b.safetensors" asks for two.

    Raises:
        Refusal: in one sentence, if a file is missing or a strength is no usual number.
    """
    found = []
    for entry in text.split(","):
        name, _, strength = entry.strip().rpartition(":")
        try:
            number = float(strength)
        except ValueError:
            name, number = entry.strip(), 1.0
        path = expanded("LORA", name)
        if not name or not path.is_file():
            what = f"{name} is no file" if name and path.exists() else f"there is no file {name or '(no name)'}"
            raise Refusal(f"LORA={entry.strip()}: {what}; FILE or FILE:0.8 is wanted.")
        if not -100.0 <= number <= 100.0:
            raise Refusal(f"LORA={entry.strip()}: a strength from -100 to 100 is wanted (1 is usual).")
        found.append((path, number))
    return found


def read_file(path: Path) -> dict[str, "Tensor"]:
    """The tensors of a LoRA file, with the alphas that peft puts into the file's metadata among them.

    Raises:
        ValueError: in one sentence, if it cannot be read.
    """
    from course.draw.checkpoint import read_tensors

    tensors, metadata = read_tensors(path, "LORA")
    if text := metadata.get("lora_adapter_metadata"):
        try:
            tensors |= alphas_of(tensors, json.loads(text))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{short_path(path)}: its metadata cannot be read ({first_line(error, 80)}).") from None
    return tensors


def alphas_of(tensors: Mapping[str, "Tensor"], config: Mapping[str, Any]) -> dict[str, "Tensor"]:
    """One alpha for each layer, of what diffusers notes when it saves an adapter of peft."""
    import torch

    found = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"(unet|text_encoder)\.(.*)\.lora_A\.weight", name):
            part, layer = match.groups()
            alpha = (config.get(f"{part}.alpha_pattern") or {}).get(layer, config.get(f"{part}.lora_alpha"))
            if alpha is not None:
                by_root = config.get(f"{part}.use_rslora")  # then the scale is alpha / sqrt(rank)
                found[f"{part}.{layer}.alpha"] = torch.tensor(alpha * (math.sqrt(len(tensor)) if by_root else 1.0))
    return found


def add_loras(stage: ModuleType, model: Any, text: str) -> None:
    """Adds all files that are asked for to the weights of a StableDiffusion, by stage 12, and says so.

    Raises:
        ValueError: in one sentence, if a file is none that fits.
    """
    for path, strength in wanted_loras(text):
        try:
            updates = stage.read_lora(read_file(path), model.unet, model.text_encoder)
        except ValueError as error:
            beginning = "" if str(error).startswith(short_path(path)) else f"{short_path(path)}: "
            raise ValueError(f"{beginning}{error}") from None
        for lora in stage.apply_lora(model.unet, model.text_encoder, updates, strength):
            lora.merge()
        for part in (model.unet, model.text_encoder):
            stage.take_out(part)
            part.requires_grad_(False)
        print(f"{short_path(path)} changes {len(updates)} layers, strength {strength:g}")
