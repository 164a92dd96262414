"""What `make bench` and tools/gpu_report.py measure: one row of a table, ours beside diffusers and OpenVINO.

All draw from the same file, prompt, noise, sampler, steps, device and dtype, by turns in one run, after a warm-up; so
whatever else the machine does hits them alike. What counts is the ratio of each neighbouring pair. Where OpenVINO is
installed, it runs the U-Net and the decoder of diffusers' pipeline, in each row of a processor that it has a dtype for.
"""

import contextlib
import gc
import importlib.util
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
from course.draw.checkpoint import TINY, build, choose_dtype, open_checkpoint
from course.draw.engine import ROUNDING, InOpenVINO, use_openvino
from course.draw.settings import Settings
from course.draw.speed import compile_mode, speed_up

PROMPT = "a red house in a green meadow at night"
WHO = ("ours", "diffusers", "openvino")
NAMES = {"ours": "ours", "diffusers": "diffusers", "openvino": "OpenVINO"}
WAYS = {  # of drawing with ours: what the table says; diffusers is compiled where ours is
    "eager": "eager", "compiled": "compiled", "openvino": "ours in OpenVINO", "formulas": "eager, with the formulas",
    "unpacked": "eager, weights not packed",
}  # fmt: skip
SAMPLERS = ("ddim", "euler", "dpm++2m")  # those without noise of their own


def load_ours(options, device, dtype) -> Callable:
    """draw(noise) -> (1, 3, height, width) in [-1, 1], by these blocks."""
    import torch

    from course.core.assemble import for_generating

    blocks = for_generating(options.blocks, fused=options.way != "formulas").load()
    opened = open_checkpoint(options.checkpoint, options.tokenizer)
    model = build(blocks, opened, device, torch.float32 if options.way == "openvino" else dtype)
    if options.way == "openvino":
        use_openvino(model, dtype)
    elif options.way != "unpacked":
        speed_up(model, device, dtype, options.way == "compiled")

    sampling = blocks[9].Sampling(options.steps, options.scale, options.sampler)

    def draw(noise):
        return blocks[9].text_to_image(model, [PROMPT], [""], noise, sampling)

    return draw


def load_diffusers(options, device, dtype) -> Callable:
    """The same by diffusers, with the fastest of its own settings."""
    import torch

    pipeline = diffusers_pipeline(options, dtype).to(device)
    if dtype != torch.float32:
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    if options.way == "compiled":
        pipeline.unet = torch.compile(pipeline.unet, mode=compile_mode(device))
        pipeline.vae.decoder = torch.compile(pipeline.vae.decoder, mode=compile_mode(device))
    return drawn_by(pipeline, options, dtype)


def load_openvino(options, device, dtype) -> Callable:
    """The same by diffusers' pipeline, whose U-Net and decoder OpenVINO runs."""
    import torch
    from torch import nn

    pipeline = diffusers_pipeline(options, torch.float32)
    unet = pipeline.unet

    class Noise(nn.Module):
        """diffusers' U-Net, which takes and returns tensors only."""

        def __init__(self):
            super().__init__()
            self.unet = unet

        def forward(self, latents, timesteps, context):
            return type(unet).forward(self.unet, latents, timesteps, context, return_dict=False)[0]

    fast = InOpenVINO(Noise(), dtype)
    unet.forward = lambda latents, t, encoder_hidden_states, **_: (
        fast(latents, t.expand(len(latents)), encoder_hidden_states),
    )
    pipeline.vae.decoder = InOpenVINO(pipeline.vae.decoder, dtype)
    return drawn_by(pipeline, options, torch.float32)


LOAD = {"ours": load_ours, "diffusers": load_diffusers, "openvino": load_openvino}


def diffusers_pipeline(options, dtype):
    import diffusers

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
    return pipeline


def drawn_by(pipeline, options, dtype) -> Callable:
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


def peak_memory(options, who: str) -> float:
    """Peak memory in GiB of a process of its own that loads and draws once."""
    own = {"memory": who, "all": 0, "compile": 0}  # `way` says how
    settings = {name: value for name in options.rules() if (value := own.get(name, getattr(options, name))) is not None}
    command = [sys.executable, "-m", "course", "bench", *(f"--{name}={value}" for name, value in settings.items())]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or "it was killed").splitlines()[-1]
        raise RuntimeError(f"measuring the memory of {who} failed: {last}")
    return float(done.stdout.split()[-1])


def own_peak() -> float:
    """GiB of the machine's memory that this process has had at most."""
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


def measure(options, device) -> dict[str, str]:
    """One row of the table: column -> cell."""
    import torch

    config = open_checkpoint(options.checkpoint, options.tokenizer).config
    dtype = choose_dtype(options.dtype, device, config)
    side = (options.width or config.image_size) // config.vae.factor

    def make_noise(seed: int):
        shape = (1, config.vae.latent_channels, side, side)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)

    if options.memory:
        timed(LOAD[options.memory](options, device, dtype), make_noise(0), device)
        return {}

    openvino = device.type == "cpu" and dtype in ROUNDING and is_installed("openvino")
    measured = WHO if openvino else WHO[:2]
    kind = f"{str(dtype).removeprefix('torch.')}, {WAYS[options.way]}"
    print(f"{short_path(options.checkpoint)}, {kind} ...", file=sys.stderr, flush=True)
    memory = {who: peak_memory(options, who) for who in measured} if device.type != "cuda" else {}
    torch.compiler.reset()
    seconds: dict[str, list[float]] = {who: [] for who in measured}
    ratios, difference = {}, {}

    def load(who: str) -> Callable:
        """draw(noise), once drawn with; on CUDA its memory is counted here: what it takes beside what is there."""
        if device.type != "cuda":
            return LOAD[who](options, device, dtype)
        there = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        draw = LOAD[who](options, device, dtype)
        timed(draw, make_noise(0), device)
        memory[who] = (torch.cuda.max_memory_allocated() - there) / 2**30
        return draw

    ours = load("ours")
    # Beside one of the others at a time, since three of full size need more memory than there may be.
    for who in measured[1:]:
        print(f"warming up ours and {NAMES[who]} ...", file=sys.stderr, flush=True)
        draws = {"ours": ours, who: load(who)}
        own, other = (timed(draw, make_noise(0), device)[1].float().clamp(-1.0, 1.0) for draw in draws.values())
        difference[who] = float((own - other).abs().max()) / 2.0
        print(f"{options.rounds} rounds ...", file=sys.stderr, flush=True)
        pairs = []
        for i in range(options.rounds):
            took = {name: timed(draws[name], make_noise(i), device)[0] for name in list(draws)[:: -1 if i % 2 else 1]}
            pairs.append(took["ours"] / took[who])
            for name, time_taken in took.items():
                seconds[name].append(time_taken)
        ratios[who] = sorted(pairs)
        del draws
        gc.collect()
    middle = {who: statistics.median(seconds[who]) for who in measured}
    pixels = side * config.vae.factor
    row = {
        "checkpoint": Path(options.checkpoint).resolve().parent.name,
        "steps": f"{options.steps} x {pixels} px",
        "how": kind,
        "s per picture": " / ".join(f"{middle[who]:.3g}" for who in measured),
        "steps per s": " / ".join(f"{options.steps / middle[who]:.3g}" for who in measured),
        "peak GiB": " / ".join(f"{memory[who]:.2f}" for who in measured),
    }
    for who, pairs in ratios.items():
        row[f"to {NAMES[who]}"] = f"{statistics.median(pairs):.2f} ({pairs[0]:.2f} to {pairs[-1]:.2f})"
    return row | {"max difference": " / ".join(f"{difference[who]:.0e}" for who in ratios)}


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def table(rows: list[dict[str, str]]) -> str:
    """Markdown, with columns of one width."""
    columns = list(max(rows, key=len))
    lines = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
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
        None, "on a GPU, 1: compiled, 0: as it is; by default both for the small model, as it is for others"
    )
    engine: str | None = like(Settings, "engine", None, "what runs ours; by default also openvino for the small model")
    all: bool = option(False, "every row of the README; CHECKPOINT: a file of full size (default: untrained)")
    way: str = option("eager", "of drawing with ours, in one row", choices=tuple(WAYS), hidden=True)
    memory: str | None = option(None, "only the peak of memory of one of them", choices=WHO, hidden=True)
