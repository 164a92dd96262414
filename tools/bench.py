"""`make bench`: seconds per picture and peak memory of these blocks against diffusers' own pipeline, as a table.

Without options it takes the small model, as it is and compiled; CHECKPOINT names another one, DTYPE=float32,bfloat16
asks for two rows, COMPILE=1 for compiled ones only and COMPILE=0 for none.

Both draw from the same file, prompt, noise, sampler, steps, device and dtype, by turns in one run, after a warm-up; so
whatever else the machine does hits both alike. What counts is the ratio of each neighbouring pair.
"""

import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from course.core.threads import waiting

os.environ.update(waiting())
os.environ.update(TRANSFORMERS_VERBOSITY="error", DIFFUSERS_VERBOSITY="error", HF_HUB_OFFLINE="1")

from course.core.options import Options, like, option
from course.core.stages import short_path
from course.draw.checkpoint import TINY, build, choose_device, choose_dtype, open_checkpoint
from course.draw.settings import Settings, check_size
from course.draw.speed import check_compiler, speed_up

PROMPT = "a red house in a green meadow at night"
WHO = ("ours", "diffusers")
SAMPLERS = ("ddim", "euler", "dpm++2m")  # those without noise of their own


def load_ours(options, device, dtype) -> Callable:
    """draw(noise) -> (1, 3, height, width) in [-1, 1], by these blocks."""
    from course.core.assemble import for_generating

    blocks = for_generating(options.blocks, fused=True).load()
    opened = open_checkpoint(options.checkpoint, options.tokenizer)
    model = build(blocks, opened, device, dtype)
    speed_up(model, device, dtype, options.compile)

    sampling = blocks[9].Sampling(options.steps, options.scale, options.sampler)

    def draw(noise):
        return blocks[9].text_to_image(model, [PROMPT], [""], noise, sampling)

    return draw


def load_diffusers(options, device, dtype) -> Callable:
    """The same by diffusers, with the fastest of its own settings."""
    import diffusers
    import torch

    diffusers.utils.logging.disable_progress_bar()
    config = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    leading = config | {"steps_offset": 1, "timestep_spacing": "leading"}
    scheduler = {
        "ddim": lambda: diffusers.DDIMScheduler(**leading, clip_sample=False, set_alpha_to_one=False),
        "euler": lambda: diffusers.EulerDiscreteScheduler(**leading),
        "dpm++2m": lambda: diffusers.DPMSolverMultistepScheduler(**leading),
    }[options.sampler]()
    with tempfile.TemporaryDirectory() as folder:
        write_configs(options, Path(folder))
        common = {"config": folder, "local_files_only": True, "torch_dtype": dtype}
        unet = diffusers.UNet2DConditionModel.from_single_file(
            options.checkpoint, subfolder="unet", extract_ema=True, **common
        )
        pipeline = diffusers.StableDiffusionPipeline.from_single_file(
            options.checkpoint, unet=unet, scheduler=scheduler, **common
        )
    pipeline.set_progress_bar_config(disable=True)
    pipeline = pipeline.to(device)
    if dtype != torch.float32:
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    if options.compile:
        torch._inductor.config.freezing = False  # ours may have set it
        pipeline.unet = torch.compile(pipeline.unet)
        pipeline.vae.decoder = torch.compile(pipeline.vae.decoder)

    def draw(noise):
        result = pipeline(
            PROMPT,
            latents=noise.to(dtype),
            num_inference_steps=options.steps,
            guidance_scale=options.scale,
            output_type="pt",
        )
        return result.images * 2.0 - 1.0

    return draw


def write_configs(options, folder: Path) -> None:
    """The config files with which diffusers opens a single file, and the tokenizer's two."""
    from course.training.export import diffusers_configs

    for name, content in diffusers_configs(open_checkpoint(options.checkpoint, options.tokenizer).config).items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(Path(options.tokenizer or Path(options.checkpoint).parent) / name, folder / "tokenizer" / name)


def timed(draw: Callable, noise, device) -> tuple[float, object]:
    """(seconds, images); on CUDA between two events of the GPU itself."""
    import torch

    with torch.inference_mode():
        if device.type == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            images = draw(noise)
            end.record()
            end.synchronize()
            return start.elapsed_time(end) / 1000, images  # from milliseconds
        start = time.perf_counter()
        images = draw(noise)
        if device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter() - start, images


def peak_memory(options, who: str, dtype: str, compiled: bool) -> float:
    """Peak memory in GiB of a process of its own that loads and draws once: of the GPU, or of the process."""
    own = {"memory": who, "dtype": dtype, "compile": int(compiled)}
    settings = {name: value for name in options.rules() if (value := own.get(name, getattr(options, name))) is not None}
    command = [sys.executable, "-m", "course", "bench", *(f"--{name}={value}" for name, value in settings.items())]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or "it was killed").splitlines()[-1]
        raise RuntimeError(f"measuring the memory of {who} failed: {last}")
    return float(done.stdout.split()[-1])


def own_peak(device) -> float:
    """GiB that this process has had at most: of the GPU's memory, or of the machine's."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    with contextlib.suppress(OSError, StopIteration):  # getrusage counts what the parent process had before the start
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if platform.system() == "Darwin" else 2**20)


def processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores"
    return platform.processor() or platform.machine()


def measure(options, device, dtype_name: str, compiled: bool) -> list[str]:
    """One row of the table."""
    import torch

    options.compile = compiled
    dtype = choose_dtype(dtype_name, device)
    config = open_checkpoint(options.checkpoint, options.tokenizer).config
    side = (options.width or config.image_size) // config.vae.factor

    def make_noise(seed: int):
        shape = (1, config.vae.latent_channels, side, side)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)

    load = {"ours": load_ours, "diffusers": load_diffusers}
    if options.memory:
        timed(load[options.memory](options, device, dtype), make_noise(0), device)
        return []

    kind = f"{str(dtype).removeprefix('torch.')}, {'compiled' if compiled else 'eager'}"
    print(f"{short_path(options.checkpoint)}, {kind}: memory ...", file=sys.stderr, flush=True)
    memory = {who: peak_memory(options, who, dtype_name, compiled) for who in WHO}
    print("warming up ...", file=sys.stderr, flush=True)
    torch.compiler.reset()
    draws, pictures = {}, {}
    for who in WHO:  # one is loaded and warmed up before the other: settings of torch.compile are those of the process
        draws[who] = load[who](options, device, dtype)
        pictures[who] = timed(draws[who], make_noise(0), device)[1]
    ours, theirs = (pictures[who].float().clamp(-1.0, 1.0) for who in WHO)
    difference = float((ours - theirs).abs().max()) / 2.0
    print(f"{options.rounds} rounds ...", file=sys.stderr, flush=True)
    seconds = {who: [] for who in WHO}
    for i in range(options.rounds):
        for who in WHO if i % 2 == 0 else reversed(WHO):
            seconds[who].append(timed(draws[who], make_noise(i), device)[0])
    ratios = sorted(own / other for own, other in zip(seconds["ours"], seconds["diffusers"]))
    middle = {who: statistics.median(seconds[who]) for who in WHO}
    pixels = side * config.vae.factor
    return [
        Path(options.checkpoint).resolve().parent.name,
        f"{options.steps} x {pixels} px",
        kind,
        " / ".join(f"{middle[who]:.3g}" for who in WHO),
        " / ".join(f"{options.steps / middle[who]:.3g}" for who in WHO),
        " / ".join(f"{memory[who]:.2f}" for who in WHO),
        f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        f"{difference:.0e}",
    ]


def check(options, device) -> list[str]:
    """Refuses in one sentence what cannot be measured; the dtypes, one for each row."""
    dtypes = [name.strip() for name in options.dtype.split(",")]
    for name in dtypes:
        choose_dtype(name, device)
    if Path(options.checkpoint).is_dir():
        options.checkpoint = str(Path(options.checkpoint) / "model.safetensors")
    config = open_checkpoint(options.checkpoint, options.tokenizer).config
    if options.width is not None:
        check_size("WIDTH", options.width, config.vae.factor * config.unet.factor)
    return dtypes


COLUMNS = ("checkpoint", "steps", "how", "s per picture", "steps per s", "peak GiB", "ratio of times", "max difference")


def table(rows: list[list[str]]) -> str:
    """Markdown, with columns of one width."""
    lines = [list(COLUMNS), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(f"{cell:<{w}}" for cell, w in zip(line, widths)) + " |" for line in lines)


@dataclass
class BenchOptions(Options):
    checkpoint: str = like(Settings, "checkpoint", str(TINY))
    tokenizer: str | None = like(Settings, "tokenizer", None)
    steps: int = like(Settings, "steps", 25)
    scale: float = like(Settings, "scale", 7.5, "guidance scale")
    sampler: str = option("ddim", "one without noise of its own", choices=SAMPLERS)
    width: int | None = option(None, "width and height in pixels; by default the checkpoint's")
    rounds: int = option(7, "timed pictures of each", least=1, most=1000)
    device: str = like(Settings, "device", "auto")
    dtype: str = option("auto", "one, or several with commas between them")
    blocks: str = like(Settings, "blocks", "solutions")
    compile: bool | None = option(
        None, "1: compiled, 0: as it is; by default both for the small model, as it is for others"
    )
    memory: str | None = option(None, "only the peak of memory of one of the two", choices=WHO, hidden=True)


def bench(options: BenchOptions) -> int:
    """Runs the command."""
    import torch

    device = choose_device(options.device)
    dtypes = check(options, device)
    small = Path(options.checkpoint).resolve() == TINY.resolve()
    ways = [False, True] if options.compile is None and small else [bool(options.compile)]
    if True in ways:
        try:
            check_compiler(device)
        except ValueError as error:
            if False not in ways:
                raise
            print(error, file=sys.stderr)
            ways = [False]
    rows = [measure(options, device, dtype, way) for dtype in dtypes for way in ways]
    if options.memory:
        print(own_peak(device))
        return 0
    where = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    print(
        f"{where}, torch {torch.__version__}, {torch.get_num_threads()} threads; {options.sampler}; ours / diffusers\n"
    )
    print(table(rows))
    return 0
