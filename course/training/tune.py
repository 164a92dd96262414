"""`make tune`: teaches a model a new thing from a few pictures, as a LoRA file (stage 12 says how).

A picture's caption stands in a text file of the same name beside it (house.png, house.txt); without one it is "a WORD".
Before the training the model draws old pictures, whose latents every batch holds as well as those of the new ones.
"""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait must not burn the other's time

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from course.core.assemble import Blocks, for_training
from course.core.messages import Refusal
from course.core.options import Options, like, option
from course.core.stages import short_path
from course.core.writing import check_writable, whole_file
from course.draw import checkpoint as ckpt
from course.draw.pictures import fit, read_picture
from course.draw.settings import Settings
from course.scenes.captions import caption
from course.scenes.scenes import sample_scene
from course.training import loop
from course.training.ending import finished

LORA = 12  # the stage
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LEAST, MOST = 2, 1000  # pictures
LONGEST_WORD = 40  # characters
EMPTY_SHARE = 0.1  # of the captions
OLD_STEPS = 12  # in which an old picture is drawn
SHEET_SEED = 1


@dataclass
class TuneOptions(Options):
    epilog: ClassVar[str] = "Ctrl-C saves; the same command goes on. To draw with it: make generate LORA=FILE"

    pictures: Path | None = option(None, "folder of 10 to 30 pictures of the new thing, with captions in text files")
    word: str | None = option(None, "the new thing's name, which the captions contain")
    minutes: float = option(10.0, "wall time of the training itself", above=0)
    steps: int | None = option(None, "steps of the optimiser, instead of minutes", least=1)
    out: Path | None = option(None, "folder of the run and of WORD.safetensors (default: runs/lora-WORD)")
    rank: int = option(8, "of the LoRA", least=1, most=1024)
    alpha: float | None = option(None, "its scale is alpha / rank (default: the rank)", above=0)
    layers: str = option(
        "attention", "around which layers: the attentions' projections, or all", choices=("attention", "all")
    )
    text: bool = option(True, "also around the attentions' projections of the text encoder, which learns the word")
    old: int = option(120, "pictures that the model draws first, so that it keeps them", least=1, most=10_000)
    old_prompts: Path | None = option(None, "text file with a prompt for them per line (default: the course's scenes)")
    prior_weight: float = option(1.0, "how much the old pictures count", least=0)
    batch: int = option(8, "new pictures per step, and as many old ones", least=1)
    learning_rate: float = option(1e-3, "at its peak", above=0)
    checkpoint: str | None = like(Settings, "checkpoint", None)
    tokenizer: str | None = like(Settings, "tokenizer", None)
    ema: bool = option(True, "begin with the averaged weights, or with the raw ones")
    seed: int = option(0, "of everything that is random", least=0, most=2**32 - 1)
    device: str = like(Settings, "device", "auto")
    threads: int | None = option(None, "of the processor", least=1)
    blocks: str = like(Settings, "blocks", "auto", "whose stage 12; auto: yours if it is finished")


def read_pictures(folder: Path, word: str, size: int) -> tuple[list[Image.Image], list[str]]:
    """The pictures of a folder, square and of this size, and their captions.

    Raises:
        Refusal: in one sentence, if there are too few or too many, or if no caption contains the word.
    """
    if not folder.is_dir():
        raise Refusal(f"PICTURES={folder} is no folder.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not LEAST <= len(paths) <= MOST:
        raise Refusal(
            f"PICTURES={folder} wants {LEAST} to {MOST} pictures ({', '.join(SUFFIXES)}), and {len(paths)} are in it."
        )
    captions = []
    for path in paths:
        beside = path.with_suffix(".txt")
        try:
            text = " ".join(beside.read_text(encoding="utf-8").split()) if beside.is_file() else ""
        except (OSError, UnicodeDecodeError):
            raise Refusal(f"{short_path(beside)} cannot be read as text.") from None
        captions.append(text or f"a {word}")
    if not any(word.lower() in text.lower() for text in captions):
        raise Refusal(f"WORD={word} is in none of the captions in {folder}, such as {captions[0]!r}.")
    return [fit(read_picture(str(path), "PICTURES"), size, size) for path in paths], captions


def old_prompts(path: Path | None, count: int, seed: int) -> list[str]:
    """So many prompts of what the model knows: lines of the file, again and again, or captions of scenes."""
    if path is None:
        rng = random.Random(f"old {seed}")
        return [caption(sample_scene(rng), rng) for _ in range(count)]
    if not path.is_file():
        raise Refusal(f"OLD_PROMPTS={path}: there is no such file.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Refusal(f"OLD_PROMPTS={path} cannot be read as text.") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise Refusal(f"OLD_PROMPTS={path} has no line with a prompt in it.")
    return [lines[i % len(lines)] for i in range(count)]


class Correction(nn.Module):
    """The U-Net with LoRAs in it and in the text encoder, of which only these are its parameters and its state."""

    def __init__(self, unet: nn.Module, loras: Sequence[Any]):
        super().__init__()
        self.parts = nn.ModuleList(part for lora in loras for part in (lora.down, lora.up))
        self.__dict__["unet"] = unet  # no submodule: its weights are neither trained nor saved

    def forward(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        return self.unet(latents, timesteps, context)


class LoraPart:
    """A LoRA in training."""

    name = "lora"
    betas = (0.9, 0.99)
    warmup = 20
    average = None

    def __init__(self, blocks: Blocks, model: Any, options: TuneOptions, image_size: int):
        assert options.word and options.pictures
        self.blocks, self.diffusion, self.options = blocks, model, options
        self.stage: ModuleType = blocks[LORA]
        self.word, self.learning_rate = options.word, options.learning_rate
        self.device = model.unet.conv_in.weight.device
        pictures, self.captions = read_pictures(options.pictures, options.word, image_size)
        self.old_captions = old_prompts(options.old_prompts, options.old, options.seed)
        self.size = image_size // model.vae.factor
        self.moments = self.encode(pictures)
        self.old_latents = self.draw_old()
        torch.manual_seed(options.seed)  # of the first weights
        loras = []
        for part in (model.unet, model.text_encoder) if options.text else (model.unet,):
            every = options.layers == "all" and part is model.unet
            names = [*self.stage.layers_of(part)] if every else self.stage.attention_layers(part)
            self.stage.put_in(part, names, options.rank, options.alpha)
            loras += [part.get_submodule(name) for name in names]
        self.model: nn.Module = Correction(model.unet, loras)

    @torch.no_grad()
    def encode(self, pictures: list[Image.Image]) -> Tensor:
        """The moments of the pictures' latents, each picture as it is and mirrored."""
        vae = self.diffusion.vae
        moments = []
        for picture in pictures:
            both = torch.stack([pixels(picture), pixels(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))])
            images = self.blocks[5].images_to_tensor(both).to(self.device)
            moments.append(vae.quant_conv(vae.encoder(images)).cpu())
        return torch.cat(moments)

    @torch.no_grad()
    def draw_old(self) -> Tensor:
        """Latents that the model draws for the old prompts, before it is changed."""
        sampler, model = self.blocks[9], self.diffusion
        sampling = sampler.Sampling(OLD_STEPS, 4.0, "dpm++2m")
        timesteps, generator = sampler.timesteps_for(model.schedule, sampling), torch.Generator().manual_seed(0)
        drawn = []
        for start in tqdm(range(0, len(self.old_captions), 4), desc="drawing old pictures", unit="4", mininterval=1.0):
            prompts = self.old_captions[start : start + 4]
            contexts = sampler.contexts_for(model, prompts, [""] * len(prompts), sampling.guidance_scale)
            shape = (len(prompts), model.vae.post_quant_conv.in_channels, self.size, self.size)
            latents = torch.randn(shape, generator=generator).to(self.device)
            for step in sampler.denoise(model, latents, timesteps, *contexts, sampling):
                latents = step.latents
            drawn.append(latents.cpu())
        return torch.cat(drawn)

    def batch(self, latents: Tensor, captions: list[str], generator: torch.Generator) -> Any:
        """A Batch of stage 12: fresh noise at timesteps that are spread, and some captions left out."""
        training, schedule, count = self.blocks[11], self.diffusion.schedule, len(latents)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = training.spread_timesteps(torch.rand(count, generator=generator), schedule.num_train_timesteps)
        captions = training.drop_captions(captions, torch.rand(count, generator=generator), EMPTY_SHARE)
        context = self.blocks[9].encode_prompts(self.diffusion, captions)
        return self.stage.Batch(latents.to(self.device), noise.to(self.device), timesteps, context)

    def loss(self, model: nn.Module, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        count, vae = self.options.batch, self.diffusion.vae
        chosen = torch.randint(len(self.moments), (count,), generator=generator)
        moments = self.moments[chosen]
        noise = torch.randn(moments.shape[0], moments.shape[1] // 2, *moments.shape[2:], generator=generator)
        latents = self.blocks[5].sample_latents(moments, noise) * vae.scaling_factor
        new = self.batch(latents, [self.captions[i // 2] for i in chosen.tolist()], generator)
        chosen = torch.randint(len(self.old_latents), (count,), generator=generator)
        old = self.batch(self.old_latents[chosen], [self.old_captions[i] for i in chosen.tolist()], generator)
        return self.stage.tuning_loss(model, self.diffusion.schedule, new, old, self.options.prior_weight), {}

    def write(self, out: Path) -> None:
        """The file for make generate, in half precision."""
        tensors = {name: tensor.cpu().half().contiguous() for name, tensor in self.file_tensors().items()}
        with whole_file(out / f"{self.word}.safetensors") as temporary:
            save_file(tensors, temporary, metadata={"format": "pt", "word": self.word})

    def file_tensors(self) -> dict[str, Tensor]:
        return self.stage.lora_state_dict(self.diffusion.unet, self.diffusion.text_encoder)

    def read(self, out: Path) -> None:
        """Nothing to begin with."""

    def check(self) -> dict[str, float]:
        return {}

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Above, pictures for captions with the new word; below, for old prompts."""
        sampler, model = self.blocks[9], self.diffusion
        new = [f"a {self.word}", *self.captions]
        prompts = [some[i % len(some)] for some in (new, self.old_captions) for i in range(4)]
        shape = (len(prompts), model.vae.post_quant_conv.in_channels, self.size, self.size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(SHEET_SEED)).to(self.device)
        sampling = sampler.Sampling(OLD_STEPS, 4.0, "dpm++2m")
        images = sampler.text_to_image(model, prompts, [""] * len(prompts), noise, sampling)
        images = list(self.blocks[5].tensor_to_images(images).cpu())
        rows = [torch.cat(images[:4], dim=1), torch.cat(images[4:], dim=1)]
        return Image.fromarray(torch.cat(rows, dim=0).numpy())


def pixels(picture: Image.Image) -> Tensor:
    """A picture as (height, width, 3), uint8."""
    import numpy

    return torch.from_numpy(numpy.array(picture.convert("RGB")))


def run(options: TuneOptions, blocks: Blocks) -> None:
    """Does what the options say, with stage 12 of the blocks."""
    if options.threads:
        torch.set_num_threads(options.threads)
    if not options.pictures or not options.word:
        raise Refusal('make tune needs PICTURES, a folder, and WORD: make tune PICTURES=my-cat WORD="blorb" MINUTES=10')
    if not options.word.replace(" ", "").replace("-", "").isalnum() or len(options.word) > LONGEST_WORD:
        raise Refusal(
            f"WORD={options.word[: 2 * LONGEST_WORD]} is not possible: letters, digits, spaces and hyphens will do, "
            f"{LONGEST_WORD} at most."
        )
    opened = ckpt.open_checkpoint(options.checkpoint or ckpt.TINY, options.tokenizer)
    read_pictures(options.pictures, options.word, opened.config.image_size)  # refusals before the model is built
    old_prompts(options.old_prompts, options.old, options.seed)
    out = options.out or Path("runs") / f"lora-{options.word.replace(' ', '-')}"
    path = out / f"{options.word}.safetensors"
    check_writable(path)
    owner = "yours" if blocks.origin[LORA] == "exercises" else "the reference's"
    print(f"LoRA and its loss are {owner} ({short_path(blocks.paths[LORA])}).", flush=True)
    device = ckpt.choose_device(options.device)
    model = ckpt.build(blocks, opened, device, torch.float32, options.ema)
    opened.tensors = {}
    out.mkdir(parents=True, exist_ok=True)
    accelerator = loop.make_accelerator()
    part = LoraPart(blocks, model, options, opened.config.image_size)
    settings = loop.Settings(out, options.minutes, options.steps, options.seed, options.learning_rate)
    loop.train(part, settings, accelerator, blocks[11])
    print(f"written: {short_path(path)} ({path.stat().st_size / 1000:.0f} KB), {short_path(out / 'lora.png')}")
    print(f'make generate LORA={short_path(path)} PROMPT="a {options.word}"')


def tune(options: TuneOptions) -> int:
    """Runs the command; returns its exit code: 0 done, 1 the stage failed, 2 refused, 130 stopped. Or raises."""
    blocks = for_training(options.blocks, LORA, fused=True)
    return finished(lambda: run(options, blocks), blocks, LORA)
