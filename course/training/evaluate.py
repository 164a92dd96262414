"""`make evaluate`: measures a checkpoint: does it draw what it is asked for, how sharp, and is it more than a copy?

- Attributes: single-object prompts, half of them combinations of object, colour and ground that no training picture
  shows. An independent network (judge.py) reads the four attributes off each picture.
- Reconstruction: peak signal-to-noise ratio of the VAE on fresh scenes.
- Retrieval: how often a fresh caption finds its picture among 64, by the text encoder's training companion.
- Novelty: how far generated pictures are from the nearest training picture, against fresh pictures of the illustrator.
"""

import json
import math
import os
import random
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from course.core.assemble import for_generating
from course.core.options import Options, like, option
from course.core.stages import short_path
from course.core.writing import whole_file
from course.draw.checkpoint import TINY, build, choose_device, open_checkpoint
from course.draw.pictures import contact_sheet, write_png
from course.draw.settings import Settings
from course.scenes.captions import caption, plain_prompt
from course.scenes.scenes import draw_scene, sample_scene
from course.training.data import draw_example
from course.training.judge import ATTRIBUTES, draw_single, load_judge, sample_single, truth

SEED = "evaluate"  # apart from every seed of the training
NEAR = 32  # pixels; at which size pictures are compared with the training set
WANTED = {"seen": 0.90, "held out": 0.80, "psnr": 27.0}


@dataclass
class EvaluateOptions(Options):
    checkpoint: Path = like(Settings, "checkpoint", TINY)
    prompts: int = option(400, "how many", least=2, most=100_000)
    steps: int = like(Settings, "steps", 15)
    scale: float = like(Settings, "scale", 4.0, "guidance scale")
    sampler: str = like(Settings, "sampler", "dpm++2m")
    device: str = like(Settings, "device", "auto")
    batch: int = option(20, "pictures drawn at once", least=1)
    fresh: int = option(200, "fresh scenes to reconstruct and to compare with", least=2)
    compared: int = option(5000, "training pictures to compare with", least=1)
    raw: bool = option(False, "the U-Net's raw weights instead of the averaged ones")
    sheet: Path | None = option(None, "PNG file for the first 60 pictures")
    json: Path | None = option(None, "file to write the figures to")


def to_tensor(pictures: list[np.ndarray]) -> Tensor:
    """(height, width, 3) uint8 each -> (batch, 3, height, width) in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def generate(blocks, model, prompts: list[str], size: int, options) -> Tensor:
    """(number of prompts, 3, size, size) in [-1, 1], on the CPU."""
    side = size // model.vae.factor
    device = model.unet.conv_in.weight.device
    results = []
    with tqdm(total=len(prompts), desc="drawing", unit="picture") as bar:
        for first in range(0, len(prompts), options.batch):
            some = prompts[first : first + options.batch]
            seeds = range(first, first + len(some))
            noise = torch.cat([torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(s)) for s in seeds])
            generator = torch.Generator().manual_seed(first)
            sampling = blocks[9].Sampling(options.steps, options.scale, options.sampler, generator)
            images = blocks[9].text_to_image(model, some, [""] * len(some), noise.to(device), sampling)
            results.append(images.clamp(-1.0, 1.0).cpu())
            bar.update(len(some))
    return torch.cat(results)


def share_right(judge, images: Tensor, scenes: list) -> dict[str, float]:
    """How many pictures show what they should, for each attribute and for all four at once."""
    read, wanted = judge.read(images), truth(scenes)
    right = {name: read[name] == wanted[name] for name in ATTRIBUTES}
    shares = {name: float(hits.float().mean()) for name, hits in right.items()}
    return shares | {"all four": float(torch.stack(list(right.values())).all(dim=0).float().mean())}


@torch.no_grad()
def psnr(model, images: Tensor) -> float:
    """Peak signal-to-noise ratio of mean latents, decoded, in dB over all pictures together."""
    device = model.unet.conv_in.weight.device
    outputs = torch.cat([model.vae.decode(model.vae.encode(some.to(device))).cpu() for some in images.split(16)])
    error = ((outputs.clamp(-1.0, 1.0) - images) / 2.0).square().mean()
    return -10.0 * math.log10(float(error))


@torch.no_grad()
def retrieval(model, folder: Path, rng: random.Random, size: int, rounds: int = 8, among: int = 64) -> float | None:
    """How often a fresh caption's own picture is the nearest of `among`; None without the training's picture encoder."""
    from safetensors.torch import load_file

    from course.training.clip import PICTURE_SIZE, ContrastiveModel

    path = folder / "picture_encoder.safetensors"
    if not path.is_file():
        return None
    width = model.text_encoder.final_norm.weight.shape[0]
    companion = ContrastiveModel(model.text_encoder.cpu().float(), width)
    companion.load_state_dict({name: t.float() for name, t in load_file(path).items()}, strict=False)
    found = 0
    for _ in range(rounds):
        scenes = [sample_scene(rng) for _ in range(among)]
        images = to_tensor([np.asarray(draw_scene(scene, rng, size)) for scene in scenes])
        tokens = model.tokenizer([caption(scene, rng) for scene in scenes])
        texts, pictures, _ = companion(tokens, F.interpolate(images, (PICTURE_SIZE, PICTURE_SIZE), mode="area"))
        found += int(((texts @ pictures.T).argmax(dim=1) == torch.arange(among)).sum())
    return found / (rounds * among)


def nearest(images: Tensor, training: Tensor) -> Tensor:
    """Root mean square distance of each picture to its nearest training picture, both small: (batch,), 0 ... 2."""
    small = F.interpolate(images, (NEAR, NEAR), mode="area").flatten(1)
    return (torch.cdist(small, training.flatten(1)).min(dim=1).values) / small.shape[1] ** 0.5


def small_training_set(count: int, size: int, seed: int = 0) -> Tensor:
    """The first training pictures, drawn again: (count, 3, NEAR, NEAR)."""
    small = []
    for index in tqdm(range(count), desc="drawing training pictures"):
        image, _ = draw_example(seed, index, size)
        small.append(F.interpolate(to_tensor([image]), (NEAR, NEAR), mode="area"))
    return torch.cat(small)


def measure(options: EvaluateOptions) -> dict:
    """All figures of a checkpoint."""
    checkpoint = open_checkpoint(options.checkpoint)
    size = checkpoint.config.image_size
    blocks = for_generating("solutions", fused=True).load()
    model = build(blocks, checkpoint, choose_device(options.device), torch.float32, not options.raw)
    folder = checkpoint.path.parent
    judge = load_judge(folder / "judge.safetensors")
    rng = random.Random(SEED)

    scenes = [sample_single(rng, held_out=i % 2 == 1) for i in range(options.prompts)]
    prompts = [plain_prompt(scene) for scene in scenes]
    images = generate(blocks, model, prompts, size, options)
    if options.sheet:
        shown = [Image.fromarray(picture) for picture in blocks[5].tensor_to_images(images[:60]).numpy()]
        write_png(options.sheet, contact_sheet(shown, columns=10))

    fresh = [draw_single(rng, held_out=i % 2 == 1, size=size) for i in range(options.fresh)]
    fresh_images = to_tensor([picture for _, picture in fresh])
    training = small_training_set(options.compared, size)
    distances, usual = nearest(images, training), nearest(fresh_images, training)
    return {
        "prompts": options.prompts,
        "sampler": f"{options.sampler}, {options.steps} steps, guidance {options.scale:g}",
        "judge on the illustrator's pictures": share_right(judge, fresh_images, [scene for scene, _ in fresh]),
        "seen": share_right(judge, images[0::2], scenes[0::2]),
        "held out": share_right(judge, images[1::2], scenes[1::2]),
        "psnr": psnr(model, fresh_images),
        "retrieval among 64": retrieval(model, folder, rng, size),
        "distance to the nearest training picture": {
            "generated, median": float(distances.median()),
            "generated, smallest": float(distances.min()),
            "fresh from the illustrator, median": float(usual.median()),
            "fresh from the illustrator, smallest": float(usual.min()),
        },
        "training pictures compared": options.compared,
    }


def report(figures: dict) -> str:
    """The figures as a table."""
    columns = ("judge on the illustrator's pictures", "seen", "held out")
    lines = [f"{figures['prompts']} prompts, {figures['sampler']}", ""]
    lines.append(f"{'right':<12}{'seen':>8}{'held out':>10}{'(judge itself)':>16}")
    for name in (*ATTRIBUTES, "all four"):
        judge, seen, held_out = (figures[column][name] for column in columns)
        lines.append(f"{name:<12}{seen:>8.1%}{held_out:>10.1%}{judge:>16.1%}")
    lines += ["", f"reconstruction of fresh scenes: {figures['psnr']:.2f} dB"]
    if figures["retrieval among 64"] is not None:
        lines.append(f"fresh captions that find their picture among 64: {figures['retrieval among 64']:.1%}")
    lines.append("distance to the nearest training picture (0: a copy):")
    for name, value in figures["distance to the nearest training picture"].items():
        lines.append(f"  {name}: {value:.3f}")
    short = [
        f"{attribute} on {kind} combinations: {figures[kind][attribute]:.1%} of {WANTED[kind]:.0%}"
        for kind in ("seen", "held out")
        for attribute in ATTRIBUTES
        if figures[kind][attribute] < WANTED[kind]
    ]
    if figures["psnr"] < WANTED["psnr"]:
        short.append(f"reconstruction: {figures['psnr']:.2f} of {WANTED['psnr']:.0f} dB")
    lines += ["", "all goals reached" if not short else "short of the goal: " + "; ".join(short)]
    return "\n".join(lines)


def evaluate(options: EvaluateOptions) -> int:
    """Runs the command."""
    figures = measure(options)
    print(f"\n{short_path(options.checkpoint)}\n" + report(figures))
    if options.json:
        with whole_file(options.json) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0
