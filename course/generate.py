"""`make generate`: draws pictures with the learner's finished blocks, and the reference for the rest."""

import argparse
import contextlib
import hashlib
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import FrameType
from typing import get_args, get_type_hints

from course.stages import ROOT, STAGES, short_path

PROMPT = "a red house on a green hill at night"
SAMPLERS = ("ddim", "ddpm", "euler", "dpm++2m")
MAX_SIZE = 4096


@dataclass
class Settings:
    """All that decides what a picture looks like. Defaults of None depend on the checkpoint or on other settings."""

    prompt: str = PROMPT
    negative: str = ""
    steps: int = 25
    scale: float | None = None  # None: what suits the checkpoint
    seed: int | None = None  # None: a new one every time
    sampler: str = "ddim"
    width: int | None = None  # None: as the checkpoint was trained
    height: int | None = None
    count: int = 1
    init: str | None = None
    strength: float | None = None  # None: 0.8 for image-to-image, 1 for inpainting
    mask: str | None = None
    ema: bool = True
    checkpoint: str | None = None  # None: the one that comes with the course
    tokenizer: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    blocks: str = "auto"
    compile: bool = False
    init_sha256: str | None = None  # of the files, so that FROM can tell whether they are still the same
    mask_sha256: str | None = None


HELP = {
    "prompt": "what to draw",
    "negative": "what to keep away from",
    "steps": "how many times the noise is predicted, 1 to 500 (default 25)",
    "scale": "guidance scale: 1 none (default: what suits the checkpoint, 7.5 for SD 1.5, 4 for the small one)",
    "seed": "number that picks the starting noise (default: a new one every time)",
    "sampler": f"one of {', '.join(SAMPLERS)}",
    "width": "of the picture, in pixels",
    "height": "of the picture, in pixels",
    "count": "how many pictures, with seeds counting up; more than one also gives a contact sheet",
    "init": "picture file to start from (image-to-image)",
    "strength": "with --init: above 0 (keep nearly all) up to 1 (keep nearly nothing)",
    "mask": "with --init: picture file of the same size, white where to paint anew",
    "ema": "1: the U-Net's averaged weights (default), 0: its raw ones",
    "checkpoint": "SD 1.x file, .safetensors or .ckpt (default: the small one that comes with the course)",
    "tokenizer": "folder with vocab.json and merges.txt (default: beside the checkpoint)",
    "device": "auto, cuda, mps or cpu",
    "dtype": "auto, float32, float16 or bfloat16",
    "blocks": "auto: your finished stages, exercises: only yours, solutions: only the reference",
    "compile": "1: compile U-Net and decoder first (takes minutes and memory, pays off for many pictures)",
}


class Refusal(ValueError):
    """Something that cannot be done; the message is one sentence for the person who asked."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code: 0 done, 1 the blocks failed, 2 refused, 130 stopped."""
    options = parse(arguments)
    with stoppable():
        try:
            settings = settings_from(options)
            out = Path(options.out).expanduser() if options.out else None
            # Two threads that wait for each other by spinning are slower than one; torch reads this when it is imported.
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            return run(settings, out, options.film)
        except KeyboardInterrupt:
            print("\nStopped; nothing half-finished was written.", file=sys.stderr)
            return 130
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2


_stops: list[int] = []  # signals that have asked this process to stop


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C and kill raise KeyboardInterrupt, and are remembered: some libraries lose an exception while they load."""

    def stop(number: int, frame: FrameType | None) -> None:
        _stops.append(number)
        raise KeyboardInterrupt

    _stops.clear()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_if_asked() -> None:
    if _stops:
        raise KeyboardInterrupt


def parse(arguments: list[str]) -> argparse.Namespace:
    """Flags, each with the make variable of the same name as its default; nothing is converted yet."""
    parser = argparse.ArgumentParser(
        prog="python -m course generate",
        description="Draws pictures. Every option can also be given as a variable: make generate SEED=7.",
    )
    for name, text in HELP.items():
        parser.add_argument(f"--{name}", default=os.environ.get(name.upper()), help=text.replace("%", "%%"))
    parser.add_argument("--out", default=os.environ.get("OUT"), help="PNG file to write (default: a new one in outputs/)")
    parser.add_argument("--film", nargs="?", const="1", default=os.environ.get("FILM"), help="1: every step as a GIF too")
    parser.add_argument("--from", dest="from_", default=os.environ.get("FROM"), help="PNG of this command, to repeat it")
    return parser.parse_args(arguments)


def settings_from(options: argparse.Namespace) -> Settings:
    """Converted and checked as far as that needs no checkpoint."""
    values = {}
    if options.from_:
        from course.pictures import read_settings

        known = {field.name for field in fields(Settings)}
        values = {name: value for name, value in read_settings(options.from_).items() if name in known}
    for name in HELP:
        given = getattr(options, name)
        if given is not None and (given != "" or name in ("prompt", "negative")):
            values[name] = convert(name, given)
            values.pop(f"{name}_sha256", None)
    options.film = options.film is not None and on_or_off("film", options.film)
    try:
        settings = Settings(**values)
        check_settings(settings)
    except TypeError:
        raise Refusal(f"FROM={options.from_} holds settings that make no sense.") from None
    return settings


def convert(name: str, text: str):
    """A value from its text, by the kind of the setting."""
    if name in ("steps", "seed", "width", "height", "count"):
        return whole_number(name.upper(), text)
    if name in ("scale", "strength"):
        try:
            return float(text)
        except ValueError:
            raise Refusal(f"{name.upper()}={text} is not a number.") from None
    if name in ("ema", "compile"):
        return on_or_off(name, text)
    return text


def whole_number(name: str, text: str, least: int | None = None, most: int | None = None) -> int:
    """The number that the text is; a Refusal unless it is one, and within the bounds."""
    try:
        value = int(text)
    except ValueError:
        raise Refusal(f"{name}={text} is not a whole number.") from None
    if least is not None and not least <= value <= most:
        raise Refusal(f"{name}={value} is not possible: choose {least} to {most}.")
    return value


def on_or_off(name: str, text: str) -> bool:
    if text.lower() in ("1", "yes", "true", "on"):
        return True
    if text.lower() in ("0", "no", "false", "off", ""):
        return False
    raise Refusal(f"{name.upper()}={text} is neither 1 nor 0.")


def check_settings(s: Settings) -> None:
    for name, kind in get_type_hints(Settings).items():
        value, kinds = getattr(s, name), get_args(kind) or (kind,)
        if type(value) not in kinds and not (type(value) is int and float in kinds):
            raise TypeError
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise Refusal(f"{name.upper()} is not UTF-8: it holds bytes that are no characters.") from None
    if not 1 <= s.steps <= 500:
        raise Refusal(f"STEPS={s.steps} is not possible: choose 1 to 500.")
    if s.scale is not None and not abs(s.scale) <= 100:  # nor nan
        raise Refusal(f"SCALE={s.scale:g} is not possible: choose a number from -100 to 100 (7.5 is usual).")
    if s.sampler not in SAMPLERS:
        raise Refusal(f"SAMPLER={s.sampler} is not known: choose one of {', '.join(SAMPLERS)}.")
    if not 1 <= s.count <= 100:
        raise Refusal(f"COUNT={s.count} is not possible: choose 1 to 100.")
    if s.seed is not None and not 0 <= s.seed < 2**63 - s.count:
        raise Refusal(f"SEED={s.seed} is not possible: choose a whole number from 0 to 2^63 - {s.count + 1}.")
    if s.blocks not in ("auto", "exercises", "solutions"):
        raise Refusal(f"BLOCKS={s.blocks} is not possible: choose auto, exercises or solutions.")
    if s.init is None and s.mask is not None:
        raise Refusal(f"MASK={s.mask} needs INIT, the picture to be repainted.")
    if s.init is None and s.strength is not None:
        raise Refusal(f"STRENGTH={s.strength:g} needs INIT, the picture to start from.")
    if s.strength is not None and not 0.0 < s.strength <= 1.0:
        raise Refusal(f"STRENGTH={s.strength:g} is not possible: choose a number above 0, up to 1.")


def check_sampling(options: argparse.Namespace) -> None:
    """Converts the `steps` and the `scale` of another command, and checks them and its `sampler` as for a picture."""
    options.steps, options.scale = convert("steps", options.steps), convert("scale", options.scale)
    check_settings(Settings(steps=options.steps, scale=options.scale, sampler=options.sampler))


def check_size(name: str, value: int, multiple: int) -> None:
    if not multiple <= value <= MAX_SIZE or value % multiple:
        nearest = min(max(round(value / multiple), 1) * multiple, MAX_SIZE)
        raise Refusal(
            f"{name}={value} is not possible: this model draws multiples of {multiple} up to {MAX_SIZE}; "
            f"the nearest is {nearest}."
        )


def run(settings: Settings, out: Path | None, film: bool) -> int:
    from course.assemble import StageError, for_generating

    if out is not None and out.suffix.lower() != ".png":
        raise Refusal(f"OUT={out} does not end in .png.")
    check_targets(out or ROOT / "outputs" / "picture.png", settings.count, film)
    blocks = None
    try:
        blocks = for_generating(settings.blocks, fused=True)
        say_whose(blocks)
        blocks.load()
        draw_all(blocks, settings, out, film)
        return 0
    except StageError as error:
        stop_if_asked()
        print(error, file=sys.stderr)
        return 1
    except Refusal:
        raise
    except (Exception, SystemExit, GeneratorExit) as error:
        stop_if_asked()
        return explain(error, blocks)


def check_targets(out: Path, count: int, film: bool) -> None:
    """Refuses what could not be written in the end, before an hour of drawing."""
    from course.pictures import check_writable

    for path in [out, *(numbered(out, i) for i in range(count if count > 1 else 0))]:
        check_writable(path)
        if film:
            check_writable(path.with_suffix(".gif"))


def numbered(out: Path, index: int) -> Path:
    """The file of one picture of several."""
    return out.with_name(f"{out.stem}-{index + 1}{out.suffix}")


def say_whose(blocks) -> None:
    mine = [stage for stage in STAGES if blocks.origin[stage.number] == "exercises"]
    names = ": " + ", ".join(f"{stage.number} {stage.name}" for stage in mine) if 0 < len(mine) < len(STAGES) else ""
    rest = "" if len(mine) == len(STAGES) else "; the reference stands in for the rest"
    print(f"{len(mine)}/{len(STAGES)} blocks are yours{names}{rest}.")


def explain(error: BaseException, blocks) -> int:
    """What went wrong while drawing: out of memory, a mistake in a learner's file, or a refusal from deeper down.

    A mistake in a learner's file need not show there: what it hands over makes the reference fail, or torch, or us.
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error):
        print(
            "The GPU's memory is not enough: try a smaller WIDTH and HEIGHT, DTYPE=float16, or DEVICE=cpu.",
            file=sys.stderr,
        )
        return 2
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error):
        print("The memory is not enough: try a smaller WIDTH and HEIGHT, or DTYPE=bfloat16.", file=sys.stderr)
        return 2
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        reason = str(error).strip().splitlines()
        print(f"COMPILE=1 failed ({reason[0] if reason else type(error).__name__}): draw with COMPILE=0.", file=sys.stderr)
        return 2
    frames = traceback.extract_tb(error.__traceback__)
    yours = {str(blocks.paths[s.number]): s for s in STAGES if blocks.origin[s.number] == "exercises"} if blocks else {}
    reference = {str(path) for path in blocks.paths.values()} - set(yours) if blocks else set()
    in_yours = [frame for frame in frames if frame.filename in yours]
    in_reference = [frame for frame in frames if frame.filename in reference]
    reason = f"{type(error).__name__}: {first_line(error)}"
    if in_yours:
        place = in_yours[-1]
        advice = f"`make test STAGE={yours[place.filename].number}` tells more; BLOCKS=solutions draws without it."
    elif yours and not isinstance(error, (ValueError, OSError)) and (in_reference or not isinstance(error, RuntimeError)):
        place = in_reference[-1] if in_reference else frames[-1]
        advice = "One of your blocks hands over something wrong: `make test` finds it; BLOCKS=solutions draws without it."
    elif isinstance(error, (ValueError, RuntimeError, OSError)):
        print(str(error) if isinstance(error, ValueError) and str(error) else first_line(error), file=sys.stderr)
        return 2
    else:
        print(f"{short_path(frames[-1].filename)}:{frames[-1].lineno}: {reason}", file=sys.stderr)
        return 2
    print(f"{short_path(place.filename)}:{place.lineno}: {reason}\n    {place.line}\n{advice}", file=sys.stderr)
    return 1


def first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def draw_all(blocks, settings: Settings, out: Path | None, film: bool) -> None:
    import torch

    from course import checkpoint as ckpt
    from course import pictures
    from course.speed import check_compiler, speed_up

    started = time.perf_counter()
    device = ckpt.choose_device(settings.device)
    dtype = ckpt.choose_dtype(settings.dtype, device)
    if settings.compile:
        check_compiler(device)
    opened = ckpt.open_checkpoint(settings.checkpoint or ckpt.TINY, settings.tokenizer)
    if not opened.trained:
        print(f"Note: {short_path(opened.path)} is untrained, its weights are random: expect noise, not a picture.")
    multiple = opened.config.vae.factor * opened.config.unet.factor
    settings.width = opened.config.image_size if settings.width is None else settings.width
    settings.height = opened.config.image_size if settings.height is None else settings.height
    settings.scale = opened.config.guidance_scale if settings.scale is None else settings.scale
    check_size("WIDTH", settings.width, multiple)
    check_size("HEIGHT", settings.height, multiple)
    images, mask = read_inputs(blocks, settings)
    if settings.seed is None:
        settings.seed = random.SystemRandom().randrange(2**31)

    stop_if_asked()  # from here on nothing is imported in which a Ctrl-C gets lost
    model = ckpt.build(blocks, opened, device, dtype, settings.ema)
    if settings.ema and not opened.has_ema:
        print("Note: the checkpoint has no EMA weights; its only U-Net weights are used.")
    opened.tensors = {}  # the file is closed while it draws
    warn_if_cut(model.tokenizer, "PROMPT", settings.prompt)
    warn_if_cut(model.tokenizer, "NEGATIVE", settings.negative)
    speed_up(model, device, dtype, settings.compile)
    print(f"{short_path(opened.path)} on {device}, {str(dtype).removeprefix('torch.')}, "
          f"loaded in {time.perf_counter() - started:.1f} s")
    if settings.compile:
        print("U-Net and decoder are compiled when they are first used: that takes minutes.")

    target = out
    channels = opened.config.vae.latent_channels
    results = []
    for i in range(settings.count):
        one = Settings(**asdict(settings) | {"seed": settings.seed + i, "count": 1})
        started = time.perf_counter()
        size = (1, channels, one.height // model.vae.factor, one.width // model.vae.factor)
        picture, frames = draw_one(blocks, model, one, size, images, mask, device, film)
        seconds = time.perf_counter() - started
        target = target or pictures.free_name(ROOT / "outputs", settings.prompt)  # now: another one may draw meanwhile
        path = target if settings.count == 1 else numbered(target, i)
        pictures.write_png(path, picture, asdict(one))
        print(f"{short_path(path)}  {picture.width}x{picture.height}  seed {one.seed}  {seconds:.1f} s")
        if film:
            pictures.write_film(path.with_suffix(".gif"), frames)
            print(f"{short_path(path.with_suffix('.gif'))}  {len(frames)} frames")
        results.append(picture)
    if len(results) > 1:
        pictures.write_png(target, pictures.contact_sheet(results), asdict(settings))
        print(f"{short_path(target)}  all {len(results)}")


def read_inputs(blocks, settings: Settings):
    """INIT as a tensor in [-1, 1] and MASK as one of zeros and ones, both at the picture's size, or None."""
    import numpy
    import torch

    from course import pictures

    if settings.init is None:
        return None, None
    init = pictures.read_picture(settings.init, "INIT")
    settings.init_sha256 = same_file("INIT", settings.init, settings.init_sha256)
    picture = pictures.fit(init, settings.width, settings.height)
    images = blocks[5].images_to_tensor(torch.from_numpy(numpy.array(picture))[None])
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"images_to_tensor gave {type(images).__name__}, and a tensor is wanted")
    if settings.mask is None:
        return images, None
    mask = pictures.read_picture(settings.mask, "MASK")
    settings.mask_sha256 = same_file("MASK", settings.mask, settings.mask_sha256)
    if mask.size != init.size:
        raise Refusal(
            f"MASK={settings.mask} has {mask.width}x{mask.height} pixels and INIT={settings.init} "
            f"{init.width}x{init.height}: they must have the same size."
        )
    grey = pictures.fit(mask, settings.width, settings.height).convert("L")
    white = (torch.from_numpy(numpy.array(grey)) > 127).float()[None, None]
    if not white.any():
        where = " where the picture is" if mask.size != (settings.width, settings.height) else ""
        raise Refusal(f"MASK={settings.mask} has no white in it{where}: there is nothing to paint anew.")
    return images, white


def same_file(name: str, path: str, before: str | None) -> str:
    """The file's SHA-256; says so if it is another one than before."""
    with Path(path).expanduser().open("rb") as stream:
        now = hashlib.file_digest(stream, "sha256").hexdigest()
    if before not in (None, now):
        print(f"Note: {name}={path} is not the file that it was: the picture will not be the same.")
    return now


def warn_if_cut(tokenizer, name: str, text: str) -> None:
    """Says which words of a prompt do not fit into CLIP's 77 tokens."""
    ids = tokenizer.tokenize(text)
    room = tokenizer.max_length - 2
    if len(ids) > room:
        print(f"Note: {name} has {len(ids)} tokens and {room} are read; cut off: {tokenizer.decode(ids[room:])!r}")


def draw_one(blocks, model, s: Settings, size: tuple[int, ...], images, mask, device, film: bool):
    """One picture out of noise of this size, (1, channels, height, width); one frame per step if it is to be filmed."""
    import torch
    from PIL import Image
    from tqdm import tqdm

    sampler, vae = blocks[9], blocks[5]
    generator = torch.Generator().manual_seed(s.seed)
    noise = torch.randn(size, generator=generator).to(device)
    frames = []

    def to_picture(tensor: torch.Tensor) -> Image.Image:
        return Image.fromarray(vae.tensor_to_images(tensor)[0].cpu().numpy())

    strength = s.strength if s.strength is not None else 1.0 if mask is not None else 0.8
    total = s.steps - model.schedule.start_index(s.steps, strength) if images is not None else s.steps
    with tqdm(total=total, desc="drawing", unit="step", leave=False, dynamic_ncols=True) as bar:

        def on_step(step) -> None:
            bar.update()
            if film:
                decoded = model.vae.decode(step.original.to(model.vae.post_quant_conv.weight.dtype))
                frames.append(to_picture(decoded.float()))

        common = dict(sampling=sampler.Sampling(s.steps, s.scale, s.sampler, generator), on_step=on_step)
        if images is None:
            tensor = sampler.text_to_image(model, [s.prompt], [s.negative], noise, **common)
        elif mask is None:
            tensor = sampler.image_to_image(
                model, images.to(device), [s.prompt], [s.negative], noise, strength=strength, **common
            )
        else:
            tensor = sampler.inpaint(
                model, images.to(device), mask.to(device), [s.prompt], [s.negative], noise, strength=strength, **common
            )
    wanted = (1, 3, s.height, s.width)
    if not isinstance(tensor, torch.Tensor) or tensor.shape != wanted:
        got = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise TypeError(f"the sampler gave {got}, and a tensor of {wanted} is wanted")
    if not torch.isfinite(tensor).all():
        dtype = str(model.unet.conv_in.weight.dtype).removeprefix("torch.")
        advice = "a block or a weight of the file is wrong; try BLOCKS=solutions" if dtype == "float32" else (
            f"the numbers grew too large for DTYPE={dtype}, or a block is wrong; try DTYPE=float32, or BLOCKS=solutions"
        )
        raise Refusal(f"The picture of seed {s.seed} came out as nan: {advice}.")
    return to_picture(tensor), frames
