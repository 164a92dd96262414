"""`make bench`: seconds per picture and peak memory of these blocks against diffusers' own pipeline.

Both draw from the same file, prompt, noise, sampler, steps, device and dtype, by turns in one run, after a warm-up; so
whatever else the machine does hits both alike. What counts is the ratio of each neighbouring pair.
"""

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.update(TRANSFORMERS_VERBOSITY="error", DIFFUSERS_VERBOSITY="error", HF_HUB_OFFLINE="1")

from course.checkpoint import TINY, build, choose_device, choose_dtype, open_checkpoint
from course.stages import short_path

PROMPT = "a red house in a green meadow at night"
WHO = ("ours", "diffusers")


def load_ours(options, device, dtype) -> Callable:
    """draw(noise) -> (1, 3, height, width) in [-1, 1], by these blocks."""
    import torch

    from course.assemble import for_generating

    blocks = for_generating(options.blocks, fused=True).load()
    model = build(blocks, open_checkpoint(options.checkpoint, options.tokenizer), device, dtype)
    if options.compile:
        model.unet = torch.compile(model.unet)
        model.vae.decoder = torch.compile(model.vae.decoder)

    def draw(noise):
        return blocks[9].text_to_image(model, [PROMPT], [""], noise, options.steps, options.scale, options.sampler)

    return draw


def load_diffusers(options, device, dtype) -> Callable:
    """The same by diffusers, with the fastest of its own settings."""
    import diffusers
    import torch

    config = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    leading = config | {"steps_offset": 1, "timestep_spacing": "leading"}
    scheduler = {
        "ddim": lambda: diffusers.DDIMScheduler(**leading, clip_sample=False, set_alpha_to_one=False),
        "euler": lambda: diffusers.EulerDiscreteScheduler(**leading),
        "dpm++2m": lambda: diffusers.DPMSolverMultistepScheduler(**leading),
    }[options.sampler]()
    checkpoint = Path(options.checkpoint)
    pipeline = diffusers.StableDiffusionPipeline.from_single_file(
        str(checkpoint), config=str(checkpoint.with_name("diffusers")), local_files_only=True, torch_dtype=dtype
    )
    pipeline.scheduler = scheduler
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet = diffusers.UNet2DConditionModel.from_single_file(
        str(checkpoint), config=str(checkpoint.with_name("diffusers")), subfolder="unet", extract_ema=True,
        local_files_only=True, torch_dtype=dtype,
    )
    pipeline = pipeline.to(device)
    if dtype != torch.float32:
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    if options.compile:
        pipeline.unet = torch.compile(pipeline.unet)
        pipeline.vae.decoder = torch.compile(pipeline.vae.decoder)

    def draw(noise):
        result = pipeline(
            PROMPT, latents=noise.to(dtype), num_inference_steps=options.steps, guidance_scale=options.scale,
            output_type="pt",
        )
        return result.images * 2.0 - 1.0

    return draw


def timed(draw: Callable, noise, device) -> tuple[float, object]:
    import torch

    synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronise()
    start = time.perf_counter()
    with torch.inference_mode():
        images = draw(noise)
    synchronise()
    return time.perf_counter() - start, images


def peak_memory(options, who: str) -> float:
    """Peak memory in GiB of a process of its own that loads and draws once: of the GPU, or of the process."""
    flags = [f"--{name}={getattr(options, name)}" for name in ("steps", "scale", "sampler", "device", "dtype", "size")]
    command = [sys.executable, "-m", "course", "bench", f"--memory={who}", f"--checkpoint={options.checkpoint}", *flags]
    command += [f"--tokenizer={options.tokenizer}"] if options.tokenizer else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {who} failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.split()[-1])


def report_memory(options, device, dtype, make_noise) -> None:
    """What the process of its own prints: GiB."""
    import torch

    draw = (load_ours if options.memory == "ours" else load_diffusers)(options, device, dtype)
    timed(draw, make_noise(0), device)
    if device.type == "cuda":
        print(torch.cuda.max_memory_allocated() / 2**30)
    else:
        import resource

        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(kilobytes / 2**20 if platform.system() != "Darwin" else kilobytes / 2**30)


def processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores"
    return platform.processor() or platform.machine()


def main(arguments: list[str] | None = None) -> int:
    env = os.environ.get
    parser = argparse.ArgumentParser(prog="python -m course bench", description="Speed and memory against diffusers.")
    parser.add_argument("--checkpoint", default=env("CHECKPOINT") or str(TINY))
    parser.add_argument("--tokenizer", default=env("TOKENIZER") or None)
    parser.add_argument("--steps", type=int, default=int(env("STEPS") or 25))
    parser.add_argument("--scale", type=float, default=float(env("SCALE") or 7.5))
    parser.add_argument("--sampler", choices=("ddim", "euler", "dpm++2m"), default=env("SAMPLER") or "ddim")
    parser.add_argument("--size", type=int, default=0, help="height and width in pixels (default: the checkpoint's)")
    parser.add_argument("--rounds", type=int, default=int(env("ROUNDS") or 7), help="timed pictures of each")
    parser.add_argument("--device", default=env("DEVICE") or "auto")
    parser.add_argument("--dtype", default=env("DTYPE") or "auto")
    parser.add_argument("--blocks", default=env("BLOCKS") or "solutions")
    parser.add_argument("--compile", action="store_true", default=(env("COMPILE") or "0") not in ("0", ""))
    parser.add_argument("--memory", choices=WHO, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)

    import torch

    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    config = open_checkpoint(options.checkpoint, options.tokenizer).config
    side = (options.size or config.image_size) // config.vae.factor

    def make_noise(seed: int):
        shape = (1, config.unet.in_channels, side, side)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)

    if options.memory:
        report_memory(options, device, dtype, make_noise)
        return 0

    draws = {"ours": load_ours(options, device, dtype), "diffusers": load_diffusers(options, device, dtype)}
    print("warming up ...", flush=True)
    pictures = {who: timed(draw, make_noise(0), device)[1] for who, draw in draws.items()}
    ours, theirs = (pictures[who].float().clamp(-1.0, 1.0) for who in WHO)
    difference = float((ours - theirs).abs().max()) / 2.0
    seconds = {who: [] for who in WHO}
    for i in range(options.rounds):
        for who in WHO if i % 2 == 0 else reversed(WHO):
            seconds[who].append(timed(draws[who], make_noise(i), device)[0])
    ratios = sorted(own / other for own, other in zip(seconds["ours"], seconds["diffusers"]))
    memory = {who: peak_memory(options, who) for who in WHO}

    where = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    print(f"{short_path(options.checkpoint)}, {side * config.vae.factor} px, {options.sampler}, {options.steps} steps, "
          f"{str(dtype).removeprefix('torch.')}{', compiled' if options.compile else ''}, on {where}")
    print(f"largest difference between the two pictures: {difference:.1e} (of 1)\n")
    print(f"{'':<12}{'s/picture':>10}{'steps/s':>10}{'peak GiB':>10}")
    for who in WHO:
        middle = statistics.median(seconds[who])
        print(f"{who:<12}{middle:>10.3f}{options.steps / middle:>10.2f}{memory[who]:>10.2f}")
    print(f"\nours / diffusers: median {statistics.median(ratios):.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}")
    return 0
