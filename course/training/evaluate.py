"""`make evaluate`: measures a checkpoint: does it draw what it is asked for, how sharp, and is it more than a copy?

- Attributes: single-object prompts, half of them combinations of object, colour and ground that no training picture
  shows. An independent network (judge.py) reads the four attributes off each picture.
- Pairs: prompts with two things, the first of which belongs on the left. A second such network reads each half.
- Lights: how many suns or moons there are (lights.py).
- Sharpness: the energy of the pixel-to-pixel changes, as a share of the illustrator's for the same scenes.
- Fréchet distance: how far the drawn pictures as a whole are from the illustrator's of the same scenes, in what the
  judge's last layer sees. Smaller is better; two sets by the illustrator himself are not at zero either.
- Reconstruction: peak signal-to-noise ratio of the VAE on fresh scenes.
- Retrieval: how often a fresh caption finds its picture among 64, by the text encoder's training companion.
- Novelty: how far generated pictures are from the nearest training picture, against fresh pictures of the illustrator.

`make evaluate PART=motion` measures films instead, see films.py.
"""

import itertools
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
from course.core.messages import Refusal
from course.core.options import Options, like, option
from course.core.stages import short_path
from course.core.writing import check_writable, whole_file
from course.draw.checkpoint import TINY, build, choose_device, open_checkpoint
from course.draw.lora import NEEDED_BY_LORA, add_loras, wanted_loras
from course.draw.pictures import contact_sheet, write_png
from course.draw.settings import Settings
from course.scenes.captions import BIG_WORDS, caption, plain_prompt
from course.scenes.examples import draw_example
from course.scenes.objects import UNKNOWN
from course.scenes.scenes import COLOURS, GROUNDS, TIMES, Scene, Thing, draw_scene, sample_scene
from course.studio.judge import (
    ATTRIBUTES,
    HALF_ATTRIBUTES,
    NEW_ATTRIBUTES,
    Judge,
    draw_single,
    halves,
    load_half_judge,
    load_judge,
    load_new_judge,
    sample_pair,
    sample_single,
    truth,
    truth_of_halves,
)
from course.training.lights import IN_VIEW, LightFinder, load_light_finder

SEED = "evaluate"  # apart from every seed of the training
LAST_SEED = 21  # of the last round of the shipped model's training
NEAR = 32  # pixels; at which size pictures are compared with the training set
PAIR_SHARE = 0.3  # of the prompts name two things
WANTED = {"seen": 0.99, "held out": 0.99, "pairs": 0.80, "one": 0.97, "psnr": 30.0}


@dataclass
class EvaluateOptions(Options):
    part: str = option("pictures", "what to measure; motion: films", choices=("pictures", "motion"))
    checkpoint: Path = like(Settings, "checkpoint", TINY)
    prompts: int | None = option(None, "how many (default 1000; of films 100)", least=2, most=100_000)
    steps: int = like(Settings, "steps", 15)
    scale: float = like(Settings, "scale", 4.0, "guidance scale")
    sampler: str = like(Settings, "sampler", "dpm++2m")
    device: str = like(Settings, "device", "auto")
    batch: int = option(20, "pictures drawn at once", least=1)
    fresh: int = option(200, "fresh scenes to reconstruct and to compare with", least=2)
    compared: int = option(5000, "training pictures to compare with", least=1)
    raw: bool = option(False, "the U-Net's raw weights instead of the averaged ones")
    lora: str | None = like(Settings, "lora", None)
    new: str | None = option(
        None, "a new thing that LORA has taught the model, to be measured too", choices=(*UNKNOWN,)
    )
    frames: int | None = option(None, "with PART=motion: of each film (default 8)", least=2, most=32)
    motion: str | None = like(
        Settings, "motion", None, "with PART=motion: file of the motion modules (default: beside it)"
    )
    sheet: Path | None = option(None, "PNG file for 60 pictures; with PART=motion a WebP or GIF of 18 films")
    json: Path | None = option(None, "file to write the figures to")

    def check(self) -> None:
        """A Refusal for options that do not go together."""
        film = self.part == "motion"
        for name in ("frames", "motion") if not film else ("new", "lora", "fresh", "compared"):
            if name in self.given:
                belongs = "needs PART=motion" if not film else "does not go with PART=motion"
                raise Refusal(f"{name.upper()}={self.given[name]} {belongs}.")
        if film and self.sheet and self.sheet.suffix.lower() not in (".webp", ".gif"):
            raise Refusal(f"SHEET={self.sheet} does not end in .webp or .gif: with PART=motion it is a film.")


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
            noise = torch.cat(
                [torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(s)) for s in seeds]
            )
            generator = torch.Generator().manual_seed(first)
            sampling = blocks[9].Sampling(options.steps, options.scale, options.sampler, generator)
            images = blocks[9].text_to_image(model, some, [""] * len(some), noise.to(device), sampling)
            results.append(images.clamp(-1.0, 1.0).cpu())
            bar.update(len(some))
    return torch.cat(results)


def share_right(judge, images: Tensor, scenes: list, attributes=ATTRIBUTES) -> dict[str, float]:
    """How many pictures show what they should, for each attribute and for all four at once."""
    read, wanted = judge.read(images), truth(scenes, attributes)
    right = {name: read[name] == wanted[name] for name in ATTRIBUTES}
    shares = {name: float(hits.float().mean()) for name, hits in right.items()}
    return shares | {"all four": float(torch.stack(list(right.values())).all(dim=0).float().mean())}


def share_of_pairs(judge, images: Tensor, scenes: list[Scene]) -> dict[str, float]:
    """How many pictures of two things show both as they should, each on its side: by attribute, and in all of them."""
    read, wanted = judge.read(halves(images)), truth_of_halves(scenes)
    right = {name: (read[name] == wanted[name]).reshape(-1, 2).all(dim=1) for name in HALF_ATTRIBUTES}
    shares = {name: float(hits.float().mean()) for name, hits in right.items()}
    return shares | {"all four": float(torch.stack(list(right.values())).all(dim=0).float().mean())}


def new_thing(blocks, model, options: EvaluateOptions, size: int) -> dict[str, dict[str, float]]:
    """How many pictures of the new thing are right, in every colour, on every ground, at every time of day.

    The judge that knows the thing lies beside the LoRA file; it is trained now if there is none.
    """
    assert options.lora and options.new
    judge = load_new_judge(wanted_loras(options.lora)[0][0].with_name("new_judge.safetensors"))
    plans = itertools.product(COLOURS, GROUNDS, TIMES)
    scenes = [Scene((Thing(options.new, colour),), ground, time, "medium", "centre") for colour, ground, time in plans]
    drawn = generate(blocks, model, [plain_prompt(scene) for scene in scenes], size, options)
    shares = {"drawn": drawn, "illustrator": draw_all(scenes, random.Random(f"{SEED} {options.new}"), size)}
    return {who: share_right(judge, images, scenes, NEW_ATTRIBUTES) for who, images in shares.items()}


def lights(finder: LightFinder, images: Tensor, scenes: list[Scene]) -> dict[str, float]:
    """How many pictures by day and at night have exactly one sun or moon, and how many of all have more than one."""
    counts = torch.cat([finder.count(some) for some in images.split(50)])
    in_view = torch.tensor([scene.time in IN_VIEW for scene in scenes])
    return {"one": float((counts[in_view] == 1).float().mean()), "more": float((counts > 1).float().mean())}


def gradient_energy(images: Tensor) -> float:
    """The mean square of the horizontal and vertical changes from pixel to pixel."""
    return float(images.diff(dim=3).square().mean() + images.diff(dim=2).square().mean())


@torch.no_grad()
def features(judge: Judge, images: Tensor) -> Tensor:
    """What the judge's last convolution sees, averaged over the picture: (batch, 128), float64."""
    small = [F.interpolate(some, size=judge.shape, mode="area") for some in images.split(50)]
    return torch.cat([judge.body[:-1](some).mean(dim=(2, 3)) for some in small]).double()


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Between two sets of feature vectors, taken for normal distributions: twice (count, width) -> 0 ...

        |m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2))

    The eigenvalues of C1 C2 are real and not negative, and the trace of its root is the sum of their roots.

    Source: Heusel et al., 2017, arXiv:1706.08500, equation 6.
    """
    shift = (one.mean(dim=0) - other.mean(dim=0)).square().sum()
    first, second = one.T.cov(), other.T.cov()
    roots = torch.linalg.eigvals(first @ second).real.clamp(min=0.0).sqrt().sum()
    return float(shift + first.trace() + second.trace() - 2.0 * roots)


def draw_all(scenes: list[Scene], rng: random.Random, size: int) -> Tensor:
    """The illustrator's pictures of these scenes: (number of scenes, 3, size, size) in [-1, 1]."""
    return to_tensor([np.asarray(draw_scene(scene, rng, size)) for scene in scenes])


def sample_plain(rng: random.Random, held_out: bool) -> Scene:
    """A scene with one thing of which a caption, as the plain prompt, says neither size nor place.

    So the illustrator draws as many big things, and things on the left, as the prompts leave open.
    """
    while True:
        scene = sample_single(rng, held_out)
        text = caption(scene, rng)
        told = ["on the left", "on the right", *(f"{word} {scene.things[0].colour}" for word in BIG_WORDS)]
        if not any(phrase in text for phrase in told):
            return scene


@torch.no_grad()
def reconstruct(model, images: Tensor) -> Tensor:
    """What comes out of the VAE: mean latents, decoded; (batch, 3, height, width) in [-1, 1]."""
    device = model.unet.conv_in.weight.device
    outputs = [model.vae.decode(model.vae.encode(some.to(device))).cpu() for some in images.split(16)]
    return torch.cat(outputs).clamp(-1.0, 1.0)


def psnr(model, images: Tensor) -> float:
    """Peak signal-to-noise ratio of mean latents, decoded, in dB over all pictures together."""
    error = ((reconstruct(model, images) - images) / 2.0).square().mean()
    return -10.0 * math.log10(float(error))


@torch.no_grad()
def retrieval(model, folder: Path, rng: random.Random, size: int, rounds: int = 8, among: int = 64) -> float | None:
    """How often a fresh caption's own picture is the nearest of `among`; None without the picture encoder."""
    from course.core.weights import fill
    from course.training.clip import PICTURE_SIZE, ContrastiveModel, cosines

    path = folder / "picture_encoder.safetensors"
    if not path.is_file():
        return None
    width = model.text_encoder.final_norm.weight.shape[0]
    companion = ContrastiveModel(model.text_encoder.cpu().float(), width)
    fill(companion, path, "it has to be the one that was exported with the model", others=companion.state_dict())
    found = 0
    for _ in range(rounds):
        scenes = [sample_scene(rng) for _ in range(among)]
        images = to_tensor([np.asarray(draw_scene(scene, rng, size)) for scene in scenes])
        tokens = model.tokenizer([caption(scene, rng) for scene in scenes])
        texts, pictures, _ = companion(tokens, F.interpolate(images, (PICTURE_SIZE, PICTURE_SIZE), mode="area"))
        found += int((cosines(texts, pictures).argmax(dim=1) == torch.arange(among)).sum())
    return found / (rounds * among)


def nearest(images: Tensor, training: Tensor) -> Tensor:
    """Root mean square distance of each picture to its nearest training picture, both small: (batch,), 0 ... 2."""
    small = F.interpolate(images, (NEAR, NEAR), mode="area").flatten(1)
    return (torch.cdist(small, training.flatten(1)).min(dim=1).values) / small.shape[1] ** 0.5


def small_training_set(count: int, size: int, seed: int = LAST_SEED) -> Tensor:
    """The first pictures that the shipped model was trained with, drawn again: (count, 3, NEAR, NEAR)."""
    small = []
    for index in tqdm(range(count), desc="drawing training pictures"):
        image, _ = draw_example(seed, index, size)
        small.append(F.interpolate(to_tensor([image]), (NEAR, NEAR), mode="area"))
    return torch.cat(small)


def measure(options: EvaluateOptions) -> dict:
    """All figures of a checkpoint."""
    if options.new and not options.lora:
        raise Refusal(f"NEW={options.new} needs LORA, the file that has taught it to the model.")
    checkpoint = open_checkpoint(options.checkpoint)
    size = checkpoint.config.image_size
    blocks = for_generating("solutions", fused=True, encore=NEEDED_BY_LORA if options.lora else ()).load()
    model = build(blocks, checkpoint, choose_device(options.device), torch.float32, not options.raw)
    if options.lora:
        add_loras(blocks[12], model, options.lora)
    folder = checkpoint.path.parent
    judge = load_judge(folder / "judge.safetensors")
    rng = random.Random(SEED)

    half_judge = load_half_judge(folder / "half_judge.safetensors")
    finder = load_light_finder(folder / "lights.safetensors")
    prompts = options.prompts or 1000
    num_pairs = max(1, round(PAIR_SHARE * prompts))
    scenes = [sample_plain(rng, held_out=i % 2 == 1) for i in range(max(2, prompts - num_pairs))]
    pair_scenes = [sample_pair(rng) for _ in range(num_pairs)]
    all_scenes = scenes + pair_scenes
    all_images = generate(blocks, model, [plain_prompt(scene) for scene in all_scenes], size, options)
    images, pair_images = all_images[: len(scenes)], all_images[len(scenes) :]
    illustrated, again = draw_all(all_scenes, rng, size), draw_all(all_scenes, rng, size)
    seen_by_judge = features(judge, illustrated)
    if options.sheet:
        chosen = torch.cat([images[:40], pair_images[:20]])
        shown = [Image.fromarray(picture) for picture in blocks[5].tensor_to_images(chosen).numpy()]
        write_png(options.sheet, contact_sheet(shown, columns=10))

    fresh = [draw_single(rng, held_out=i % 2 == 1, size=size) for i in range(options.fresh)]
    fresh_images = to_tensor([picture for _, picture in fresh])
    training = small_training_set(options.compared, size)
    distances, usual = nearest(images, training), nearest(fresh_images, training)
    return {
        "prompts": len(scenes),
        "prompts with two things": len(pair_scenes),
        "sampler": f"{options.sampler}, {options.steps} steps, guidance {options.scale:g}",
        "judge on the illustrator's pictures": share_right(judge, fresh_images, [scene for scene, _ in fresh]),
        "seen": share_right(judge, images[0::2], scenes[0::2]),
        "held out": share_right(judge, images[1::2], scenes[1::2]),
        "new": new_thing(blocks, model, options, size) if options.new else None,
        "pairs": {
            "illustrator": share_of_pairs(half_judge, illustrated[len(scenes) :], pair_scenes),
            "drawn": share_of_pairs(half_judge, pair_images, pair_scenes),
        },
        "suns and moons": {
            "illustrator": lights(finder, illustrated, all_scenes),
            "drawn": lights(finder, all_images, all_scenes),
        },
        "sharpness": {
            "through the VAE": gradient_energy(reconstruct(model, fresh_images)) / gradient_energy(fresh_images),
            "drawn": gradient_energy(all_images) / gradient_energy(illustrated),
        },
        "fréchet distance": {
            "illustrator": frechet_distance(features(judge, again), seen_by_judge),
            "through the VAE": frechet_distance(features(judge, reconstruct(model, again)), seen_by_judge),
            "drawn": frechet_distance(features(judge, all_images), seen_by_judge),
        },
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
    new = figures["new"]
    lines = [f"{figures['prompts']} prompts, {figures['sampler']}", ""]
    lines.append(f"{'right':<12}{'seen':>8}{'held out':>10}{'(judge itself)':>16}")
    for name in (*ATTRIBUTES, "all four"):
        judge, seen, held_out = (figures[column][name] for column in columns)
        lines.append(f"{name:<12}{seen:>8.1%}{held_out:>10.1%}{judge:>16.1%}")
    if new:
        lines += ["", f"{'new thing':<12}{'drawn':>8}{'(judge itself)':>16}"]
        lines += [f"{name:<12}{new['drawn'][name]:>8.1%}{new['illustrator'][name]:>16.1%}" for name in new["drawn"]]
    lines += ["", f"{figures['prompts with two things']} prompts with two things", ""]
    lines.append(f"{'both right':<12}{'drawn':>8}{'(judge itself)':>16}")
    for name in (*ATTRIBUTES, "all four"):
        lines.append(f"{name:<12}{figures['pairs']['drawn'][name]:>8.1%}{figures['pairs']['illustrator'][name]:>16.1%}")
    drawn, usual = (figures["suns and moons"][who] for who in ("drawn", "illustrator"))
    lines += ["", f"exactly one sun or moon by day and at night: {drawn['one']:.1%} (illustrator: {usual['one']:.1%})"]
    lines.append(f"more than one, at any time: {drawn['more']:.1%} (illustrator: {usual['more']:.1%})")
    sharpness, distance = figures["sharpness"], figures["fréchet distance"]
    lines.append(
        f"sharpness (illustrator: 1): {sharpness['drawn']:.2f}, through the VAE {sharpness['through the VAE']:.2f}"
    )
    lines.append(
        f"Fréchet distance: {distance['drawn']:.3f}, illustrator against himself {distance['illustrator']:.3f}, "
        f"through the VAE {distance['through the VAE']:.3f}"
    )
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
    pairs, one = figures["pairs"]["drawn"]["all four"], figures["suns and moons"]["drawn"]["one"]
    if pairs < WANTED["pairs"]:
        short.append(f"two things: {pairs:.1%} of {WANTED['pairs']:.0%}")
    if one < WANTED["one"]:
        short.append(f"exactly one sun or moon: {one:.1%} of {WANTED['one']:.0%}")
    if figures["psnr"] < WANTED["psnr"]:
        short.append(f"reconstruction: {figures['psnr']:.2f} of {WANTED['psnr']:.0f} dB")
    lines += ["", "all goals reached" if not short else "short of the goal: " + "; ".join(short)]
    return "\n".join(lines)


def evaluate(options: EvaluateOptions) -> int:
    """Runs the command."""
    options.check()
    for path in filter(None, (options.json, options.sheet)):
        check_writable(path)  # now, and not after all the drawing
    if options.part == "motion":
        from course.training.films import measure_films, report_films

        figures = measure_films(options)
        text = report_films(figures)
    else:
        figures = measure(options)
        text = report(figures)
    print(f"\n{short_path(options.checkpoint)}\n{text}")
    if options.json:
        with whole_file(options.json) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0
