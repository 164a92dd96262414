"""Files that are not quite, or not at all, Stable Diffusion 1.x checkpoints under the names of CompVis.

What people share differs in a few names from what was published; `as_published` takes that away, so that stage 10
needs no rule for it. What is something else is told by name, with what to do instead.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from course.core.messages import Refusal
from course.core.stages import short_path

TEXT_ENCODER = "cond_stage_model.transformer."
WITHOUT_PREFIX = re.compile(re.escape(TEXT_ENCODER) + r"(embeddings|encoder|final_layer_norm)\.")
# The networks that judged pictures in the training of the VAE, an average of the VAE, and the last layer of CLIP, which
# Stable Diffusion does not use.
NOT_FOR_DRAWING = re.compile(
    r"first_stage_model\.(loss|model_ema|discriminator)\.|"
    + re.escape(TEXT_ENCODER)
    + r"(text_projection|logit_scale)\b"
)


def as_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of the published files, without those that no picture depends on.

    Text encoders that newer versions of transformers saved lack `text_model.` in their names.
    """
    published = {}
    for name, tensor in tensors.items():
        if not NOT_FOR_DRAWING.match(name):
            inserted = WITHOUT_PREFIX.match(name) is not None
            published[TEXT_ENCODER + "text_model." + name.removeprefix(TEXT_ENCODER) if inserted else name] = tensor
    return published


# --- what else a file can be -----------------------------------------------------------------------------------------

OTHER = "only Stable Diffusion 1.x can be drawn with, such as what `make weights` fetches"
WANTED = {  # an option -> what it names
    "CHECKPOINT": "a whole Stable Diffusion 1.x checkpoint",
    "CONTINUE": "a whole Stable Diffusion 1.x checkpoint",
    "LORA": "a LoRA file",
    "MOTION": "a file of motion modules",
}
ADDITION = "it goes on top of a checkpoint, which is not possible here; {option} names {wanted}"
PART = "{option} names one file that holds U-Net, VAE and text encoder"

# A pattern that is found in a name of the file -> what the file is, and what to do instead. The first one counts.
KINDS = (
    (r"^base_model\.model\.", "an adapter of the library PEFT", ADDITION),
    (r"\.(hada|lokr)_", "a LyCORIS adapter", ADDITION),
    (r"lora[_.]", "a LoRA", "`make generate LORA=` takes it, {option} a checkpoint"),
    (r"^(ip_adapter|image_proj)(\.|$)", "an IP-Adapter", ADDITION),
    (r"^(emb_params|string_to_param|string_to_token)$", "a textual inversion", ADDITION),
    (r"^control_model\.|^controlnet_", "a ControlNet", ADDITION),
    (r"motion_modules\.", "a file of motion modules", "`make generate MOTION=` takes it, {option} a checkpoint"),
    (r"\.time_(stack|mixer)\.", "a Stable Video Diffusion checkpoint", OTHER),
    (r"^conditioner\.embedders\.", "an SDXL checkpoint", OTHER),
    (r"^cond_stage_model\.model\.", "a Stable Diffusion 2.x checkpoint", OTHER),
    (r"(^|\.)joint_blocks\.", "a Stable Diffusion 3 checkpoint", OTHER),
    (r"(^|\.)double_blocks\.|^single_transformer_blocks\.", "a Flux checkpoint", OTHER),
    (r"^(concept|special_care)_embeds", "a safety checker", PART),
    (r"^vision_model\.", "a CLIP model", PART),
    (r"^(text_model|transformer\.text_model|embeddings)\.", "a text encoder alone", PART),
    (r"^(down_blocks|up_blocks|mid_block|unet|vae|text_encoder)\.", "a model in the layout of diffusers", PART),
    (r"^(encoder|decoder)\.", "a VAE alone", PART),
)
MODELS = {  # what all names of a model begin with -> what it is, and a pattern of a name that it must have
    "model.diffusion_model.": ("a U-Net", r"input_blocks\.\d+\.0\.op\."),
    "first_stage_model.": ("a VAE", r"decoder\.up\."),
    TEXT_ENCODER: ("a text encoder", r"text_model\."),
}


def advice(text: str, option: str) -> str:
    """What to do instead, for the option that named the file."""
    return text.format(option=option, wanted=WANTED[option])


def refuse_kinds(path: Path, names: Collection[str], option: str) -> None:
    """A Refusal, saying what the file is, if it is of a kind that its names give away, and not what is wanted.

    option: the one that named the file, of WANTED; here and below.
    """
    wanted = WANTED[option]
    for pattern, what, instead in KINDS:
        if what not in wanted and any(re.search(pattern, name) for name in names):
            raise Refusal(f"{short_path(path)} is {what}, not {wanted}: {advice(instead, option)}.")


def refuse_strangers(path: Path, names: Collection[str], option: str) -> None:
    """A Refusal, saying what the file is instead, unless names in it are those of all parts of Stable Diffusion 1.x."""
    there = [what for prefix, (what, _) in MODELS.items() if any(name.startswith(prefix) for name in names)]
    if len(there) < len(MODELS):
        refuse_kinds(path, names, option)
        if there:
            raise Refusal(
                f"{short_path(path)} is {' and '.join(there)} alone, not a whole Stable Diffusion 1.x checkpoint: "
                f"{advice(PART, option)}."
            )
    for prefix, (_, pattern) in MODELS.items():
        if not any(re.match(re.escape(prefix) + pattern, name) for name in names):
            missing = prefix + pattern.replace("\\d+", "1").replace("\\", "")
            raise Refusal(
                f"{short_path(path)} is not a Stable Diffusion 1.x checkpoint: nothing in it is called {missing}..."
            )


def refuse_odd_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A Refusal for checkpoints of related models, and for weights that are no floating-point numbers."""
    first = tensors.get("model.diffusion_model.input_blocks.0.0.weight")
    if first is not None and first.ndim == 4 and first.shape[1] in (8, 9):
        kind = {8: "an image-editing (InstructPix2Pix)", 9: "an inpainting"}[first.shape[1]]
        raise Refusal(
            f"{short_path(path)} is {kind} checkpoint, whose U-Net wants {first.shape[1]} channels instead of 4; "
            "MASK=... inpaints with an ordinary checkpoint."
        )
    for name, tensor in tensors.items():
        used = name.startswith((*MODELS, "model_ema.diffusion_model"))
        if used and not name.endswith("position_ids") and not tensor.is_floating_point():
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise Refusal(
                f"{short_path(path)} holds {name} as {dtype}, which is no floating-point number: "
                "get the file in float16 or float32."
            )


# How a file begins -> what it is, and what to do instead.
BEGINNINGS = (
    (rb"version https://git-lfs", "a pointer of Git LFS and not the file itself", "`git lfs pull` fetches that"),
    (rb"\s*<(!doctype|html|\?xml)", "a web page", "the download led to a page, perhaps to one that asks to log in"),
    (rb"\s*[{\[]\s*[\"\]}]", "JSON text", "{option} names the file with the weights"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP", "a picture", "INIT takes pictures, {option} weights"),
    (rb"GGUF", "a GGUF file", "get the model as a .safetensors file"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!", "a packed archive", "unpack it first"),
)


def refuse_by_beginning(path: Path, start: bytes, option: str) -> None:
    """A Refusal, saying what the file is instead, if its first bytes are those of no weights at all."""
    if path.suffix == ".safetensors" and start.startswith((b"PK\x03\x04", b"\x80\x02")):
        name = path.with_suffix(".ckpt").name
        raise Refusal(f"{short_path(path)} is a .ckpt file under another name: rename it to {name}.")
    if not start:
        raise Refusal(f"{short_path(path)} is empty: get the file again.")
    for pattern, what, instead in BEGINNINGS:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            raise Refusal(f"{short_path(path)} is {what}: {advice(instead, option)}.")


def file_in(folder: Path, option: str) -> Path:
    """The checkpoint in a folder: its model.safetensors.

    Raises:
        Refusal: if there is none, or if it is a part of a model.
    """
    if (folder / "model_index.json").exists() or (folder / "unet").is_dir():
        raise Refusal(
            f"{short_path(folder)} is a model in the layout of diffusers, with a file for each part: "
            f"{advice(PART, option)}, as many models are offered, and as diffusers' script "
            "convert_diffusers_to_original_stable_diffusion.py makes it."
        )
    path = folder / "model.safetensors"
    if not path.exists():
        there = sorted(p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".ckpt"))
        hint = f" (in it: {', '.join(there[:3])}{' ...' if len(there) > 3 else ''})" if there else ""
        raise Refusal(f"There is no model.safetensors in the folder {short_path(folder)}: {option} names a file{hint}.")
    return path
