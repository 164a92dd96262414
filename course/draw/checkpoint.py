"""Opens a Stable Diffusion 1.x checkpoint and fills the assembled blocks with it.

A checkpoint is one file in the original CompVis v1 layout, .safetensors or .ckpt, of any width. Beside it, or in a
folder named separately, lie the tokenizer's vocab.json and merges.txt; a config.json beside it tells the sizes, and
without one they are those of Stable Diffusion 1.5. Tensors are mapped from the file, not read into memory, until they
are copied into a model: loading takes the memory of the models and little more. Code inside of a file is never run.
"""

import contextlib
import json
import pickle
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from course.core.assemble import Blocks
from course.core.config import ModelConfig
from course.core.messages import first_line
from course.core.options import expanded
from course.core.processor import has_bfloat16_units, multiplies_bfloat16_faster
from course.core.stages import ROOT, short_path
from course.draw.foreign import (
    as_published,
    file_in,
    refuse_by_beginning,
    refuse_kinds,
    refuse_odd_tensors,
    refuse_strangers,
)

TINY = ROOT / "checkpoints" / "tiny" / "model.safetensors"
TOKENIZER = "TOKENIZER names the folder with CLIP's vocab.json and merges.txt"


@dataclass
class Checkpoint:
    """An open checkpoint.

    Attributes:
        path: the file.
        tensors: all of its tensors under their names in the file.
        config: the sizes of the three models.
        vocab, merges: the tokenizer's.
        trained: False if the file says that its weights are random.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    config: ModelConfig
    vocab: dict[str, int]
    merges: list[tuple[str, str]]
    trained: bool = True

    @property
    def has_ema(self) -> bool:
        return any(name.startswith("model_ema.diffusion_model") for name in self.tensors)


def open_checkpoint(
    path: str | Path = TINY, tokenizer: str | Path | None = None, option: str = "CHECKPOINT"
) -> Checkpoint:
    """Opens a checkpoint file.

    Args:
        path: the file, or a folder with a model.safetensors in it.
        tokenizer: the folder with vocab.json and merges.txt; None: beside the file.
        option: the one that named the file, of WANTED in foreign.py; the messages name it.

    Raises:
        ValueError: in one sentence, if it is missing, damaged, unsafe, or not Stable Diffusion 1.x.
    """
    path = expanded(option, path)
    if path.is_dir():
        path = file_in(path, option)
    if not path.is_file():
        what = f"{short_path(path)} is not a file" if path.exists() else f"There is no checkpoint {short_path(path)}"
        raise ValueError(f"{what}: {option} names a .safetensors or .ckpt file.")
    tensors, metadata = read_tensors(path, option)
    tensors = as_published(tensors)
    refuse_strangers(path, tensors, option)
    refuse_odd_tensors(path, tensors)
    config_path = path.with_name("config.json")
    config = ModelConfig.from_json(config_path) if config_path.is_file() else ModelConfig()
    beside = "they belong beside the model file" if option == "CONTINUE" else TOKENIZER
    vocab, merges = read_tokenizer(expanded("tokenizer", tokenizer) if tokenizer else path.parent, beside)
    if len(vocab) != config.clip.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(vocab)} tokens, the checkpoint's text encoder {config.clip.vocab_size}: "
            f"they do not belong together ({beside})."
        )
    return Checkpoint(path, tensors, config, vocab, merges, metadata.get("trained", "yes") != "no")


def read_tensors(path: Path, option: str = "CHECKPOINT") -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a .safetensors or .ckpt file, mapped from the disk, and the file's metadata."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise ValueError(f"{short_path(path)} cannot be read: {error.strerror}.") from None
    if start[8:9] != b"{":  # there, after its length, the table of a .safetensors file begins
        refuse_by_beginning(path, start, option)
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_ckpt(path, option), {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()  # the file itself cannot be iterated over
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{short_path(path)} is truncated or damaged ({first_line(error, 120)}); get the file again."
        ) from None


class _Inert:
    """Stands in for training-framework objects in old checkpoints: accepts anything, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _read_ckpt(path: Path, option: str) -> dict[str, Tensor]:
    # PyTorch Lightning left the names of its own classes in the published files; they are replaced by _Inert. Any other
    # name that is not on torch's list of harmless ones makes torch refuse the file.
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:
        names = []  # a damaged file, or one from before torch 1.6, cannot be searched; torch.load still checks it
    harmless: list[Any] = [(_Inert, name) for name in names if name.split(".")[0] == "pytorch_lightning"]
    foreign = sorted(set(names) - {name for _, name in harmless})
    if foreign:
        raise ValueError(
            f"{short_path(path)} wants to run code when it is opened ({foreign[0]}); it was not opened. "
            "Look for the same weights as a .safetensors file."
        )
    try:
        with torch.serialization.safe_globals(harmless), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an odd protocol, in a file that is none
            try:
                data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap" not in str(error):
                    raise
                data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{short_path(path)} is no checkpoint, or wants to run code when it is opened; it was not opened. "
            "Look for the same weights as a .safetensors file."
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # torch's reader trips over a damaged file in many ways
        raise ValueError(
            f"{short_path(path)} is truncated, damaged or no checkpoint ({first_line(error, 120)})."
        ) from None
    for _ in range(3):  # not without end: a dictionary may contain itself
        if isinstance(data, dict) and isinstance(data.get("state_dict"), dict):
            data = data["state_dict"]
    entries = data.items() if isinstance(data, dict) else ()
    tensors = {name: tensor for name, tensor in entries if isinstance(name, str) and isinstance(tensor, Tensor)}
    if not tensors:
        refuse_kinds(path, [str(name) for name, _ in entries], option)
        raise ValueError(f"{short_path(path)} holds no tensors.")
    return tensors


def read_tokenizer(folder: Path, beside: str = TOKENIZER) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """vocab.json and merges.txt, as CLIP's tokenizer stores them."""
    vocab_path, merges_path = folder / "vocab.json", folder / "merges.txt"
    for path in (vocab_path, merges_path):
        if not path.is_file():
            raise ValueError(f"There is no {path.name} in {short_path(folder)}: {beside}.")
    try:
        vocab = json.loads(vocab_path.read_text(encoding="utf-8"))
        lines = merges_path.read_text(encoding="utf-8").splitlines()
        pairs = [line.split() for line in lines if line.strip() and not line.startswith("#version")]
        if not isinstance(vocab, dict) or any(len(pair) != 2 for pair in pairs):
            raise ValueError("it has another layout")
        merges = [(first, second) for first, second in pairs]
        if {type(number) for number in vocab.values()} != {int} or sorted(vocab.values()) != list(range(len(vocab))):
            raise ValueError("the numbers of the tokens are not 0, 1, 2 and so on")
        if missing := {"<|startoftext|>", "<|endoftext|>"} - set(vocab):
            raise ValueError(f"{sorted(missing)[0]} is no token")
        if strange := next((pair for pair in merges if "".join(pair) not in vocab), None):
            raise ValueError(f"merges.txt joins {' and '.join(strange)}, and vocab.json does not know the result")
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"The tokenizer in {short_path(folder)} cannot be read: {first_line(error, 120)}.") from None
    return vocab, merges


@contextlib.contextmanager
def uninitialised(dtype: torch.dtype) -> Iterator[None]:
    """New layers are made in this dtype and without drawing random weights, which takes seconds for a large model."""
    functions = {name: f for name, f in vars(nn.init).items() if name.endswith("_") and not name.startswith("_")}
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        for name in functions:
            setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)
        yield
    finally:
        torch.set_default_dtype(default)
        for name, function in functions.items():
            setattr(nn.init, name, function)


def build(
    blocks: Blocks,
    checkpoint: Checkpoint,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    ema: bool = True,
) -> Any:
    """A StableDiffusion (stage 9) of assembled blocks, filled with a checkpoint's weights.

    Args:
        blocks: whose blocks.
        checkpoint: whose weights.
        device, dtype: of the three models.
        ema: the U-Net's averaged weights (if the checkpoint has them) or its raw ones.

    Raises:
        ValueError: if the weights do not fit.
    """
    vae_stage, clip_stage, unet_stage, schedule_stage, sampler_stage, remap = (blocks[n] for n in range(5, 11))
    config = checkpoint.config

    @contextlib.contextmanager
    def naming_the_file(advice: str = "") -> Iterator[None]:
        """The reference says what is wrong with the file; what a learner's stage 10 says may be wrong itself."""
        try:
            yield
        except ValueError as error:
            if blocks.origin[10] != "solutions":
                raise
            raise ValueError(f"{short_path(checkpoint.path)}: {error}{advice}") from None

    tensors = dict(checkpoint.tensors)
    if ema and checkpoint.has_ema:
        with naming_the_file(". EMA=0 draws with the raw weights."):
            tensors = remap.select_ema(tensors)
    with naming_the_file():
        parts = remap.split_checkpoint(tensors)
        weights = [remap.remap_clip(parts["clip"]), remap.remap_unet(parts["unet"]), remap.remap_vae(parts["vae"])]

    def fill(make, weights: dict[str, Tensor]) -> nn.Module:
        with uninitialised(dtype):
            model = make()
        with naming_the_file():
            remap.load_weights(model, weights)
        model = model.eval().requires_grad_(False).to(device)
        return model.to(memory_format=torch.channels_last) if prefers_channels_last(device, dtype) else model

    return sampler_stage.StableDiffusion(
        tokenizer=clip_stage.Tokenizer(checkpoint.vocab, checkpoint.merges, config.clip.max_length),
        text_encoder=fill(lambda: clip_stage.CLIPTextEncoder(config.clip), weights[0]),
        unet=fill(lambda: unet_stage.UNet(config.unet), weights[1]),
        vae=fill(lambda: vae_stage.VAE(config.vae), weights[2]),
        schedule=schedule_stage.NoiseSchedule(),
    )


def prefers_channels_last(device: torch.device | str, dtype: torch.dtype) -> bool:
    """Whether convolutions are faster with channels last: in half precision, on processors and CUDA GPUs."""
    return torch.device(device).type in ("cpu", "cuda") and dtype != torch.float32


def choose_device(wanted: str = "auto") -> torch.device:
    """ "auto": CUDA, else Apple's MPS, else the processor. ValueError if the one asked for is not there."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(wanted)
        if device.type not in ("cpu", "cuda", "mps"):
            raise NotImplementedError
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"DEVICE={wanted} is not available here: choose auto, cpu, cuda or mps.") from None
    return device


DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


WIDE = 256  # channels of a U-Net's first level; 320 in SD 1.5


def choose_dtype(wanted: str, device: torch.device, config: ModelConfig | None = None) -> torch.dtype:
    """What a model is to compute in.

    Args:
        wanted: a name of DTYPES, or "auto": float16 on a GPU, and on a processor float32, or bfloat16 where that pays,
            see `why_dtype`.
        device: where it computes.
        config: of the model; None: "auto" on a processor is float32, as it was when bfloat16 was not yet considered.

    Raises:
        ValueError: for an unknown name.
    """
    if wanted == "auto" and device.type == "cpu":
        wanted = "bfloat16" if config and is_wide(config) and multiplies_bfloat16_faster() else "float32"
    elif wanted == "auto":
        wanted = "float16"
    if wanted not in DTYPES:
        raise ValueError(f"DTYPE={wanted} is not possible: choose auto, {', '.join(DTYPES)}.")
    return DTYPES[wanted]


def why_dtype(dtype: torch.dtype, config: ModelConfig) -> str:
    """Why DTYPE=auto took this one on a processor. Where both are possible, measured times decided.

    On two threads of an AMD EPYC with AVX512-BF16, and at 512 px, the U-Net of SD 1.5 and the decoder take 0.49 times
    as long in bfloat16 as in float32, and their weights half the memory. The U-Net of the small model takes 0.8 times
    as long, which is no reason to draw less exactly.
    """
    if dtype == torch.bfloat16:
        return "with which this processor is faster, and which takes half the memory; DTYPE=float32 is more exact"
    if not has_bfloat16_units():
        return "this processor has no units for bfloat16"
    return "with which this processor is faster than with bfloat16" if is_wide(config) else "this model is small"


def is_wide(config: ModelConfig) -> bool:
    """Whether a model has layers as wide as those of Stable Diffusion 1.5."""
    return config.unet.channels[0] >= WIDE
