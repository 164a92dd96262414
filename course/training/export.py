"""Puts the trained parts together into one file, laid out and named as the first Stable Diffusion was published.

Beside `model.safetensors` lie `config.json` (sizes), the tokenizer's two files, and `diffusers/`: a folder of small
config files with which diffusers opens the same checkpoint,

    StableDiffusionPipeline.from_single_file("model.safetensors", config="diffusers", local_files_only=True)

`SHA256SUMS` lists the hashes of them all, for `make doctor` and `sha256sum --check`.
"""

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from course.core.config import CLIPConfig, ModelConfig, UNetConfig, VAEConfig, tiny_config
from course.core.weights import read_weights
from course.core.writing import whole_file
from course.draw.checkpoint import read_tokenizer
from course.training.clip import initialise_text_encoder
from course.training.loop import advice, load_json
from course.training.motion import CONFIG as MOTION_CONFIG
from course.training.tokenizer import train_tokenizer, write_tokenizer
from course.training.vae import scaling_factor
from solutions import stage10_key_remapper as stage10
from solutions.stage05_vae import VAE
from solutions.stage06_clip import CLIPTextEncoder
from solutions.stage07_unet import UNet
from solutions.stage10_key_remapper import PREFIXES, rename
from solutions.stage13_motion import MotionConfig, frame_positions


def inverted(rules: Mapping[str, str]) -> dict[str, str]:
    """The rules of stage 10 read from right to left, so that there is one list of the names for both directions."""

    def turned(theirs: str, ours: str) -> tuple[str, str]:
        groups = re.findall(r"\(.*?\)", theirs)
        pattern = re.sub(r"\\(\d)", lambda found: groups[int(found[1]) - 1], ours.replace(".", r"\."))
        for number, group in enumerate(groups, start=1):
            theirs = theirs.replace(group, rf"\{number}", 1)
        return pattern, theirs.replace(r"\b", "").replace(r"\.", ".")

    return dict(turned(theirs, ours) for theirs, ours in rules.items())


# The number at which a part stands in a block of CompVis' U-Net, and its rules.
RESIDUAL, TRANSFORMER = (0, inverted(stage10.UNET_RESIDUAL)), (1, inverted(stage10.UNET_TRANSFORMER))
UNET_TOP, TEXT = inverted(stage10.UNET_TOP), inverted(stage10.CLIP_RULES)
VAE_BLOCK = {"residual1": "block_1", "residual2": "block_2", "attention": "attn_1"}
VAE_INSIDE = inverted(stage10.VAE_RESIDUAL | stage10.VAE_ATTENTION)


def compvis_unet(weights: Mapping[str, Tensor], config: UNetConfig) -> dict[str, Tensor]:
    """The U-Net's tensors under CompVis' names, which number the blocks through instead of by level."""
    per_level = config.blocks_per_level

    def new_name(name: str) -> str:
        side, *rest = name.split(".")
        if side == "mid":
            number = {"residual1": 0, "transformer": 1, "residual2": 2}[rest[0]]
            _, rules = TRANSFORMER if number == 1 else RESIDUAL
            return f"middle_block.{number}." + rename(".".join(rest[1:]), rules)
        if side not in ("down", "up"):
            return rename(name, UNET_TOP)
        level, kind, last = int(rest[0]), rest[1], rest[-1]
        first = level * (per_level + 1) + (side == "down")
        if kind == "downsample":
            return f"input_blocks.{first + per_level}.0.op.{last}"
        if kind == "upsample":
            return f"output_blocks.{first + per_level}.{2 if config.attention[-1 - level] else 1}.conv.{last}"
        position, rules = RESIDUAL if kind == "residuals" else TRANSFORMER
        blocks = "input_blocks" if side == "down" else "output_blocks"
        return f"{blocks}.{first + int(rest[2])}.{position}." + rename(".".join(rest[3:]), rules)

    return {new_name(name): tensor for name, tensor in weights.items()}


def compvis_vae(weights: Mapping[str, Tensor], config: VAEConfig) -> dict[str, Tensor]:
    """The VAE's tensors under CompVis' names. Attention's linear layers become 1x1 convolutions there."""
    last = len(config.channels) - 1

    def new_name(name: str) -> str:
        side, kind, *rest = name.split(".")
        if kind == "middle":
            return f"{side}.mid.{VAE_BLOCK[rest[0]]}." + rename(".".join(rest[1:]), VAE_INSIDE)
        if kind == "levels":
            down = side == "encoder"
            level = f"{side}.down.{rest[0]}" if down else f"{side}.up.{last - int(rest[0])}"
            if rest[1] == "resize":
                return f"{level}.{'downsample' if down else 'upsample'}." + ".".join(rest[2:])
            return f"{level}.block.{rest[2]}." + rename(".".join(rest[3:]), VAE_INSIDE)
        return name

    renamed = {}
    for name, tensor in weights.items():
        is_attention = ".middle.attention." in name and tensor.ndim == 2
        renamed[new_name(name)] = tensor[:, :, None, None] if is_attention else tensor
    return renamed


def compvis_clip(weights: Mapping[str, Tensor], config: CLIPConfig) -> dict[str, Tensor]:
    """The text encoder's tensors under CompVis' names."""
    return {rename(name, TEXT): tensor for name, tensor in weights.items()}


def assemble(
    config: ModelConfig,
    vae: dict[str, Tensor],
    clip: dict[str, Tensor],
    unet: dict[str, Tensor],
    unet_ema: dict[str, Tensor],
    num_updates: int,
    dtype: torch.dtype = torch.float16,
) -> dict[str, Tensor]:
    """One checkpoint out of the parts' weights (our names): CompVis' names, and CLIP's table of positions."""
    tensors = {PREFIXES["vae"] + name: tensor for name, tensor in compvis_vae(vae, config.vae).items()}
    tensors |= {PREFIXES["clip"] + name: tensor for name, tensor in compvis_clip(clip, config.clip).items()}
    tensors |= {PREFIXES["unet"] + name: tensor for name, tensor in compvis_unet(unet, config.unet).items()}
    for name, tensor in compvis_unet(unet_ema, config.unet).items():
        tensors["model_ema." + f"diffusion_model.{name}".replace(".", "")] = tensor
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    positions = torch.arange(config.clip.max_length)[None]
    tensors[PREFIXES["clip"] + "text_model.embeddings.position_ids"] = positions
    tensors["model_ema.decay"] = torch.tensor(0.9999)
    tensors["model_ema.num_updates"] = torch.tensor(num_updates, dtype=torch.int32)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def diffusers_configs(config: ModelConfig) -> dict[str, dict]:
    """The JSON files that diffusers wants, by path."""
    vae, clip, unet = config.vae, config.clip, config.unet
    levels = len(unet.channels)
    return {
        "model_index.json": {
            "_class_name": "StableDiffusionPipeline",
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        "vae/config.json": {
            "_class_name": "AutoencoderKL",
            "act_fn": "silu",
            "block_out_channels": vae.channels,
            "down_block_types": ["DownEncoderBlock2D"] * len(vae.channels),
            "in_channels": vae.image_channels,
            "latent_channels": vae.latent_channels,
            "layers_per_block": vae.blocks_per_level,
            "norm_num_groups": vae.num_groups,
            "out_channels": vae.image_channels,
            "sample_size": config.image_size,
            "scaling_factor": vae.scaling_factor,
            "up_block_types": ["UpDecoderBlock2D"] * len(vae.channels),
        },
        "text_encoder/config.json": {
            "architectures": ["CLIPTextModel"],
            "attention_dropout": 0.0,
            "bos_token_id": clip.vocab_size - 2,
            "eos_token_id": clip.vocab_size - 1,
            "hidden_act": "quick_gelu",
            "hidden_size": clip.width,
            "intermediate_size": clip.hidden_width,
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": clip.max_length,
            "model_type": "clip_text_model",
            "num_attention_heads": clip.num_heads,
            "num_hidden_layers": clip.num_layers,
            "pad_token_id": clip.vocab_size - 1,
            "projection_dim": clip.width,
            "vocab_size": clip.vocab_size,
        },
        "unet/config.json": {
            "_class_name": "UNet2DConditionModel",
            "act_fn": "silu",
            "attention_head_dim": unet.num_heads,  # this entry's name misleads: it is the number of heads
            "block_out_channels": unet.channels,
            "center_input_sample": False,
            "cross_attention_dim": unet.context_channels,
            "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in unet.attention],
            "downsample_padding": 1,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            "in_channels": unet.in_channels,
            "layers_per_block": unet.blocks_per_level,
            "mid_block_scale_factor": 1,
            "norm_eps": 1e-5,
            "norm_num_groups": unet.num_groups,
            "out_channels": unet.out_channels,
            "sample_size": config.image_size // vae.factor,
            "up_block_types": [
                "CrossAttnUpBlock2D" if unet.attention[level] else "UpBlock2D" for level in reversed(range(levels))
            ],
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "DDIMScheduler",
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "clip_sample": False,
            "num_train_timesteps": 1000,
            "prediction_type": "epsilon",
            "set_alpha_to_one": False,
            "steps_offset": 1,
            "timestep_spacing": "leading",
        },
        "tokenizer/tokenizer_config.json": {
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "model_max_length": clip.max_length,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": "<|endoftext|>",
        },
    }


def write_model(
    folder: Path,
    config: ModelConfig,
    tensors: dict[str, Tensor],
    tokenizer: tuple[dict[str, int], list[tuple[str, str]]],
    trained: bool,
) -> None:
    """Writes the file, its config, its tokenizer (vocabulary and merges), and the folder for diffusers."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "model.safetensors") as temporary:
        # One entry alone: the order of several would be another one each time.
        save_file(tensors, temporary, metadata={"trained": "yes" if trained else "no"})
    with whole_file(folder / "config.json") as temporary:
        temporary.write_text(config.to_json(), encoding="utf-8")
    write_tokenizer(folder, *tokenizer)
    for path, content in diffusers_configs(config).items():
        path = folder / "diffusers" / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(folder / name, folder / "diffusers" / "tokenizer" / name)


def exported_files(folder: Path) -> list[Path]:
    """What an export consists of, apart from the list of hashes."""
    models = ("model.safetensors", "motion.safetensors", "snowman.safetensors", "picture_encoder.safetensors")
    names = (*models, "config.json", "vocab.json", "merges.txt")
    top = [folder / name for name in names if (folder / name).exists()]
    return top + sorted(path for path in (folder / "diffusers").rglob("*") if path.is_file())


def write_sums(folder: Path) -> None:
    """Writes the hashes of an export, as `sha256sum` does."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in exported_files(folder)
    ]
    with whole_file(folder / "SHA256SUMS") as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def export(config: ModelConfig, out: Path, folder: Path) -> None:
    """Writes the model of the run in `out`."""
    vae = read_weights(out / "vae.safetensors", advice("vae"))
    clip = read_weights(out / "clip.safetensors", advice("clip"))
    unet = read_weights(out / "unet.safetensors", advice("unet"))
    unet_ema = read_weights(out / "unet_ema.safetensors", advice("unet"))
    num_updates = int(load_json(out / "unet.log.jsonl", "step", made_by="unet"))
    scaled = dataclasses.replace(config.vae, scaling_factor=round(scaling_factor(out), 5))
    config = dataclasses.replace(config, vae=scaled)
    tensors = assemble(config, vae, clip, unet, unet_ema, num_updates)
    write_model(folder, config, tensors, read_tokenizer(out / "tokenizer"), trained=True)
    companion = read_weights(out / "picture_encoder.safetensors", advice("clip"))  # `make evaluate` asks it
    with whole_file(folder / "picture_encoder.safetensors") as temporary:
        save_file({name: tensor.half() for name, tensor in companion.items()}, temporary)
    write_sums(folder)
    print(f"written: {folder / 'model.safetensors'}")


MOTION = {
    r"block\.norm(\d)": r"transformer_blocks.0.norm\1",
    r"block\.attention(\d)\.to_out": r"transformer_blocks.0.attn\1.to_out.0",
    r"block\.attention(\d)": r"transformer_blocks.0.attn\1",
    r"block\.feed_forward\.geglu": r"transformer_blocks.0.ff.net.0",
    r"block\.feed_forward\.out": r"transformer_blocks.0.ff.net.2",
    r"(norm|proj_in|proj_out)\b": r"\1",
}


def diffusers_motion(weights: Mapping[str, Tensor], config: MotionConfig) -> dict[str, Tensor]:
    """The motion modules under the names of diffusers' MotionAdapter, with its tables of positions."""
    tensors = {}
    for name, weight in weights.items():
        side, *rest = name.split(".")
        number, inside = ("0", rest) if side == "mid" else (rest[1], rest[2:])
        place = f"{'mid_block' if side == 'mid' else f'{side}_blocks.{rest[0]}'}.motion_modules.{number}."
        tensors[place + rename(".".join(inside), MOTION)] = weight
        if inside == ["proj_in", "bias"]:
            tensors[f"{place}transformer_blocks.0.pos_embed.pe"] = frame_positions(config.max_frames, len(weight))[None]
    return tensors


def motion_adapter(config: UNetConfig, motion: MotionConfig) -> dict:
    """The config with which diffusers makes a MotionAdapter of these sizes."""
    return {
        "_class_name": "MotionAdapter",
        "block_out_channels": list(config.channels),
        "motion_layers_per_block": config.blocks_per_level,
        "motion_num_attention_heads": motion.num_heads,
        "motion_norm_num_groups": config.num_groups,
        "motion_max_seq_length": motion.max_frames,
        "use_motion_mid_block": motion.middle,
    }


def export_motion(out: Path, folder: Path) -> None:
    """Writes the small model's averaged motion modules from the run in `out`, float16, with the number of their heads.

    Beside them comes the config with which diffusers opens them, and what is in the folder is listed in SHA256SUMS.
    """
    weights = read_weights(out / "motion_ema.safetensors", advice("motion"))
    tensors = {  # diffusers takes the tables of positions from the file: in float16 its films would not be ours
        name: (tensor.float() if name.endswith(".pe") else tensor.half()).contiguous()
        for name, tensor in diffusers_motion(weights, MOTION_CONFIG).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "motion.safetensors") as temporary:
        # One entry alone: the order of several would be another one each time.
        save_file(tensors, temporary, metadata={"num_heads": str(MOTION_CONFIG.num_heads)})
    path = folder / "diffusers" / "motion_adapter" / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(motion_adapter(tiny_config().unet, MOTION_CONFIG), indent=2) + "\n", encoding="utf-8")
    write_sums(folder)
    print(f"written: {folder / 'motion.safetensors'}")


def write_untrained(config: ModelConfig, folder: Path, seed: int = 0) -> None:
    """Writes a model of the same format with random weights."""
    torch.manual_seed(seed)
    encoder = CLIPTextEncoder(config.clip)
    initialise_text_encoder(encoder)
    models: list[nn.Module] = [VAE(config.vae), encoder, UNet(config.unet)]
    vae, clip, unet = (model.state_dict() for model in models)
    tensors = assemble(config, vae, clip, unet, unet, num_updates=0)
    write_model(folder, config, tensors, train_tokenizer(config.clip.vocab_size), trained=False)
    write_sums(folder)
    print(f"written: {folder / 'model.safetensors'} (random weights)")
