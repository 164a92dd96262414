"""`make generate`: draws pictures with the learner's finished blocks, and the reference for the rest."""

import contextlib
import hashlib
import itertools
import os
import random
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType

from course.core.assemble import Blocks, for_generating
from course.core.messages import Refusal, printable
from course.core.options import expanded
from course.core.stages import ENCORE, PIPELINE, ROOT, short_path
from course.core.threads import waiting
from course.core.writing import check_writable
from course.draw.blame import explain
from course.draw.lora import NEEDED_BY_LORA, add_loras, wanted_loras
from course.draw.motion import NEEDED_BY_FRAMES, motion_file, put_motion
from course.draw.mp4 import ENDING, check_encoder
from course.draw.settings import Order, Settings, check_size
from course.feedback.mistakes import find_mistake, wrong_text

LONGEST_CUT = 200  # characters that are shown of what a prompt has too many


def generate(order: Order) -> int:
    """Runs the command; returns its exit code: 0 done, 1 the blocks failed, 130 stopped. A Refusal is the caller's."""
    with stoppable():
        try:
            os.environ.update(waiting())
            return run(order.settings(), order.out, order.film)
        except KeyboardInterrupt:
            print("\nStopped; nothing half-finished was written.", file=sys.stderr)
            return 130


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


def run(settings: Settings, out: Path | None, film: bool) -> int:
    endings = (".png",) if settings.frames is None else (".webp", ".gif", ENDING)
    if out is not None and out.suffix.lower() not in endings:
        what = "is an ending and no name" if out.name.lower() in endings else f"does not end in {' or '.join(endings)}"
        raise Refusal(f"OUT={out} {what}: name a file, such as picture{endings[0]}.")
    if film and settings.frames is not None:
        raise Refusal("FILM=1, a GIF of all steps, does not go with FRAMES: draw one of the frames as a picture.")
    if out is not None:
        check_encoder(out)
    check_targets(out or ROOT / "outputs" / f"picture{endings[0]}", settings.count, film)
    blocks = None
    try:
        blocks = blocks_for(settings)
        say_whose(blocks)
        say_mistake(settings.mistake)
        blocks.load()
        draw_all(blocks, settings, out, film)
        return 0
    except (Refusal, BrokenPipeError):
        raise
    except (Exception, SystemExit, GeneratorExit) as error:
        stop_if_asked()
        code = explain(error, blocks, settings.mistake is not None)
        if settings.mistake:
            print(f"MISTAKE={settings.mistake} may be the reason.", file=sys.stderr)
        return code


def blocks_for(settings: Settings) -> Blocks:
    """The blocks that are asked for, one of them with a mistake if that is asked for too."""
    overrides = {}
    if settings.mistake:
        stage, mistake = find_mistake(settings.mistake)
        overrides[stage.number] = wrong_text(stage.number, mistake)
    encore = {*(NEEDED_BY_LORA if settings.lora else ()), *(NEEDED_BY_FRAMES if settings.frames else ())}
    return for_generating(settings.blocks, fused=True, overrides=overrides, encore=encore)


def check_targets(out: Path, count: int, film: bool) -> None:
    """Refuses what could not be written in the end, before an hour of drawing."""
    for path in [out, *(numbered(out, i) for i in range(count if count > 1 else 0))]:
        check_writable(path)
        if film:
            check_writable(path.with_suffix(".gif"))


def numbered(out: Path, index: int) -> Path:
    """The file of one picture of several."""
    return out.with_name(f"{out.stem}-{index + 1}{out.suffix}")


def say_whose(blocks) -> None:
    mine = [stage for stage in PIPELINE if blocks.origin[stage.number] == "exercises"]
    total = len(PIPELINE)
    names = ": " + ", ".join(f"{stage.number} {stage.name}" for stage in mine) if 0 < len(mine) < total else ""
    rest = "" if len(mine) == total else "; the reference stands in for the rest"
    print(f"{len(mine)}/{total} blocks are yours{names}{rest}.")
    for stage in ENCORE:
        if stage.number in blocks.origin:
            whose = "yours" if blocks.origin[stage.number] == "exercises" else "the reference"
            print(f"Encore: stage {stage.number} {stage.name} is {whose}.")


def say_mistake(name: str | None) -> None:
    """The mistake that is drawn with, if there is one, and what it is."""
    if name:
        stage, mistake = find_mistake(name)
        print(f"Stage {stage.number} {stage.name} is the reference with a mistake in it, {name}:")
        print(textwrap.indent(textwrap.fill(f"{mistake.hint[0].upper()}{mistake.hint[1:]}", 110), "    "))


def draw_all(blocks, settings: Settings, out: Path | None, film: bool) -> None:
    from course.draw import checkpoint as ckpt
    from course.draw import pictures
    from course.draw.engine import choose_engine
    from course.draw.speed import check_compile

    started = time.perf_counter()
    device = ckpt.choose_device(settings.device)
    ckpt.choose_dtype(settings.dtype, device)  # refuses an unknown one
    check_compile(settings.compile, device)
    opened = ckpt.open_checkpoint(settings.checkpoint or ckpt.TINY, settings.tokenizer)
    dtype = ckpt.choose_dtype(settings.dtype, device, opened.config)
    name, why = str(dtype).removeprefix("torch."), ""
    if settings.dtype == "auto" and device.type == "cpu":
        why = f" ({ckpt.why_dtype(dtype, opened.config)})"
        settings.dtype = name  # for FROM: on another processor it would be another one
    asked = settings.engine == "openvino"
    settings.engine = choose_engine(  # for FROM, which repeats one of the pictures
        settings.engine,
        settings.steps * settings.count,
        device,
        dtype,
        settings.compile,
        opened.config,
        film=settings.frames is not None,
    )
    if not opened.trained:
        print(f"Note: {short_path(opened.path)} is untrained, its weights are random: expect noise, not a picture.")
    multiple = opened.config.vae.factor * opened.config.unet.factor
    width = settings.width = opened.config.image_size if settings.width is None else settings.width
    height = settings.height = opened.config.image_size if settings.height is None else settings.height
    settings.scale = opened.config.guidance_scale if settings.scale is None else settings.scale
    check_size("WIDTH", width, multiple)
    check_size("HEIGHT", height, multiple)
    images, mask = read_inputs(blocks, settings, width, height)
    seed = settings.seed = random.SystemRandom().randrange(2**31) if settings.seed is None else settings.seed

    stop_if_asked()  # from here on nothing is imported in which a Ctrl-C gets lost
    model = build_model(blocks, opened, device, dtype, settings, asked)
    opened.tensors = {}  # the file is closed while it draws
    name += why
    if settings.engine == "openvino":
        name += " with OpenVINO" + ("" if asked else ", which is faster for so many steps")
    print(f"{short_path(opened.path)} on {device}, {name}, loaded in {time.perf_counter() - started:.1f} s")
    if settings.compile:
        print("U-Net and decoder are compiled when they are first used: that takes minutes.")
    if settings.engine == "openvino":
        print("U-Net and decoder are recorded when they are first used: that takes seconds.")

    target = out
    results = []
    for i in range(settings.count):
        one = replace(settings, seed=seed + i, count=1)
        started = time.perf_counter()
        picture, frames = draw_one(blocks, model, one, device, images, mask, film)
        seconds = time.perf_counter() - started
        words = settings.prompt if settings.mistake is None else f"{settings.mistake} {settings.prompt}"
        ending = ".png" if one.frames is None else ".webp"
        target = target or pictures.free_name(ROOT / "outputs", words, ending)  # now: another one may draw meanwhile
        path = target if settings.count == 1 else numbered(target, i)
        if one.frames is None:
            pictures.write_png(path, picture, asdict(one))
        else:
            pictures.write_clip(path, frames, asdict(one))
        size = f"{picture.width}x{picture.height}" + (f"  {one.frames} frames" if one.frames else "")
        print(f"{short_path(path)}  {size}  seed {one.seed}  {seconds:.1f} s")
        if film:
            pictures.write_film(path.with_suffix(".gif"), frames)
            print(f"{short_path(path.with_suffix('.gif'))}  {len(frames)} frames")
        results.append(picture)
    if target and len(results) > 1 and settings.frames is None:
        pictures.write_png(target, pictures.contact_sheet(results), asdict(settings))
        print(f"{short_path(target)}  all {len(results)}")


def build_model(blocks, opened, device, dtype, settings: Settings, asked: bool = True):
    """The open checkpoint as a StableDiffusion (stage 9) that draws fast; notes what it cannot do as asked for.

    Args:
        asked: whether its engine was asked for, so that it must be that one.
    """
    import torch

    from course.draw.checkpoint import build
    from course.draw.engine import use_openvino
    from course.draw.speed import speed_up

    engine = settings.engine == "openvino"
    model = build(blocks, opened, device, torch.float32 if engine else dtype, settings.ema)
    if settings.ema and not opened.has_ema:
        print("Note: the checkpoint has no EMA weights; its only U-Net weights are used.")
    if settings.lora:
        before = settings.lora_sha256.split(",") if settings.lora_sha256 else []
        paths = [str(path) for path, _ in wanted_loras(settings.lora)]
        hashes = [same_file("LORA", path, *one) for path, *one in itertools.zip_longest(paths, before[: len(paths)])]
        settings.lora_sha256 = ",".join(hashes)
        add_loras(blocks[12], model, settings.lora)
    if settings.frames:
        path = motion_file(settings.motion, opened.path)
        settings.motion_sha256 = same_file("MOTION", str(path), settings.motion_sha256)
        put_motion(blocks, model, opened.config, path, settings.frames, device)
    warn_if_cut(model.tokenizer, "PROMPT", settings.prompt)
    warn_if_cut(model.tokenizer, "NEGATIVE", settings.negative)
    if engine:
        use_openvino(model, dtype, asked)
    else:
        speed_up(model, device, dtype, settings.compile)
    return model


def read_inputs(blocks, settings: Settings, width: int, height: int):
    """INIT as a tensor in [-1, 1] and MASK as one of zeros and ones, both at the picture's size, or None."""
    import numpy
    import torch

    from course.draw import pictures

    if settings.init is None:
        return None, None
    init = pictures.read_picture(settings.init, "INIT")
    settings.init_sha256 = same_file("INIT", settings.init, settings.init_sha256)
    picture = pictures.fit(init, width, height)
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
    grey = pictures.fit(mask, width, height).convert("L")
    white = (torch.from_numpy(numpy.array(grey)) > 127).float()[None, None]
    if not white.any():
        where = " where the picture is" if mask.size != (width, height) else ""
        raise Refusal(f"MASK={settings.mask} has no white in it{where}: there is nothing to paint anew.")
    return images, white


def same_file(name: str, path: str, before: str | None) -> str:
    """The file's SHA-256; says so if it is another one than before."""
    with expanded(name, path).open("rb") as stream:
        now = hashlib.file_digest(stream, "sha256").hexdigest()
    if before not in (None, now):
        print(f"Note: {name}={printable(path)} is not the file that it was: the picture will not be the same.")
    return now


def warn_if_cut(tokenizer, name: str, text: str) -> None:
    """Says which words of a prompt do not fit into CLIP's 77 tokens."""
    ids = tokenizer.tokenize(text)
    room = tokenizer.max_length - 2
    if len(ids) > room:
        cut = tokenizer.decode(ids[room:])
        shown = repr(cut) if len(cut) <= LONGEST_CUT else f"{cut[:LONGEST_CUT]!r} and more"
        print(f"Note: {name} has {len(ids)} tokens and {room} are read; cut off: {shown}")


def draw_one(blocks, model, s: Settings, device, images, mask, film: bool):
    """The picture of these settings, all of them known by now; one frame per step if it is to be filmed.

    With FRAMES: the first frame, and all of them.
    """
    import torch
    from PIL import Image
    from tqdm import tqdm

    from course.draw.pictures import strength_of

    sampler, vae = blocks[9], blocks[5]
    assert s.seed is not None and s.height is not None and s.width is not None
    generator = torch.Generator().manual_seed(s.seed)
    size = (model.vae.post_quant_conv.in_channels, s.height // model.vae.factor, s.width // model.vae.factor)
    count = s.frames or 1
    noise = torch.randn((count, *size), generator=generator).to(device)
    frames = []

    def to_pictures(tensor: torch.Tensor) -> list[Image.Image]:
        return [Image.fromarray(image) for image in vae.tensor_to_images(tensor).cpu().numpy()]

    strength = strength_of(vars(s))
    total = s.steps - model.schedule.start_index(s.steps, strength) if images is not None else s.steps
    with tqdm(total=total, desc="drawing", unit="step", leave=False, dynamic_ncols=True) as bar:

        def on_step(step) -> None:
            bar.update()
            if film:
                decoded = model.vae.decode(step.original.to(model.vae.post_quant_conv.weight.dtype))
                frames.extend(to_pictures(decoded.float()))

        sampling = sampler.Sampling(s.steps, s.scale, s.sampler, generator)
        common = {"sampling": sampling, "on_step": on_step}
        if s.frames:
            tensor = blocks[13].text_to_video(model, [s.prompt], [s.negative], noise[None], **common)[0]
        elif images is None:
            tensor = sampler.text_to_image(model, [s.prompt], [s.negative], noise, **common)
        elif mask is None:
            tensor = sampler.image_to_image(
                model, images.to(device), [s.prompt], [s.negative], noise, strength=strength, **common
            )
        else:
            tensor = sampler.inpaint(
                model, images.to(device), mask.to(device), [s.prompt], [s.negative], noise, strength=strength, **common
            )
    wanted = (count, 3, s.height, s.width)
    if not isinstance(tensor, torch.Tensor) or tensor.shape != wanted:
        got = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise TypeError(f"the sampler gave {got}, and a tensor of {wanted} is wanted")
    if not torch.isfinite(tensor).all():
        dtype = str(next(model.unet.parameters()).dtype).removeprefix("torch.")
        advice = "a block or a weight of the file is wrong; try BLOCKS=solutions"
        if s.mistake:
            advice = f"MISTAKE={s.mistake} may be the reason"
        elif dtype != "float32":
            advice = f"numbers grew too large for DTYPE={dtype}, or a block is wrong; try DTYPE=float32"
        raise Refusal(f"The picture of seed {s.seed} came out as nan: {advice}.")
    pictures = to_pictures(tensor)
    return pictures[0], pictures if s.frames else frames
