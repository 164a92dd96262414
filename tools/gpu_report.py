"""`make gpu-report`: all that is to be seen on a new GPU, in one command and one file.

It checks that the small model draws on the GPU what it draws on the processor, with every sampler and in every
dtype, and that no step waits for the GPU. Then it measures as `make bench` does: the small model, and one of the size
of Stable Diffusion 1.5 with random weights, as they are and compiled. With DEVICE=cpu it does the same on the
processor, where there is nothing to wait for.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from course.core.assemble import Blocks, for_generating
from course.core.messages import first_line
from course.core.options import Options, like, option
from course.core.stages import ROOT, short_path
from course.core.writing import check_writable, whole_file
from course.draw.checkpoint import DTYPES, TINY, build, choose_device, choose_dtype, open_checkpoint
from course.draw.settings import SAMPLERS, Settings
from course.draw.speed import speed_up
from tools.measuring import SAMPLERS as WITHOUT_NOISE
from tools.measuring import WAYS, BenchOptions, measure, processor, table

PROMPT = "a red house in a green meadow at night"
GREY_LEVELS = {"float32": 0.25, "float16": 1.0, "bfloat16": 3.0}  # that a picture may differ, in the mean
STEPS = 10


@dataclass
class ReportOptions(Options):
    device: str = like(Settings, "device", "auto")
    out: Path = option(ROOT / "outputs" / "gpu-report.md", "Markdown file to write")
    rounds: int = option(7, "timed pictures of each", least=1, most=1000)
    full: bool = option(True, "also a model of full size with random weights, which takes 20 GB of disk for a while")


@dataclass
class Check:
    name: str
    passed: bool
    found: str


def report(options: ReportOptions) -> int:
    """Runs the command; returns its exit code: 1 if a check or a row failed. The file is written in any case."""
    device = choose_device(options.device)
    check_writable(options.out)
    checks = []
    for check in all_checks(device):
        print(f"{'passed' if check.passed else 'FAILED'}: {check.name}: {check.found}", flush=True)
        checks.append(check)
    rows: list[dict[str, str]] = []
    with contextlib.ExitStack() as stack:
        for row in bench_rows(options, stack):
            pixels = f", {row.width} px" if row.width else ""
            with failures_noted(f"the row {Path(row.checkpoint).parent.name}{pixels}, {WAYS[row.way]}") as check:
                rows.append(measure(row, device))
                check.passed = True
            if check.passed:
                print(table(rows[-1:]), flush=True)
            else:
                checks.append(check)
                print(f"FAILED: {check.name}: {check.found}", flush=True)
            with whole_file(options.out) as temporary:  # at once: a later row may end the process
                temporary.write_text(page(device, checks, rows), encoding="utf-8")
    print(f"\n{short_path(options.out)}" + (f"\n\n{table(rows)}" if rows else ""))
    return int(not all(check.passed for check in checks))


def all_checks(device: torch.device) -> Iterator[Check]:
    """The results of one check after the other; what a check raises is what it found."""
    blocks = for_generating("solutions", fused=True).load()
    wanted = {sampler: draw(blocks, torch.device("cpu"), "float32", sampler) for sampler in SAMPLERS}
    for dtype in DTYPES:
        for sampler in SAMPLERS if dtype == "float32" else SAMPLERS[:1]:
            with failures_noted(f"{sampler} in {dtype} draws the processor's picture") as check:
                found = draw(blocks, device, dtype, sampler)
                grey_levels = float((found - wanted[sampler]).abs().mean()) * 127.5
                check.found = f"{grey_levels:.3f} grey levels in the mean, {GREY_LEVELS[dtype]} allowed"
                check.passed = grey_levels <= GREY_LEVELS[dtype]  # also not if it is nan
            yield check
    if device.type == "cuda":
        for sampler in WITHOUT_NOISE:  # DDPM's noise comes from the processor, so that a seed draws the same everywhere
            with failures_noted(f"no step of {sampler} waits for the GPU") as check:
                draw(blocks, device, "float16", sampler, watched=True)
                check.passed, check.found = True, "none does"
            yield check


@contextlib.contextmanager
def failures_noted(name: str) -> Iterator[Check]:
    check = Check(name, False, "")
    try:
        yield check
    except Exception as error:
        check.passed, check.found = False, f"{type(error).__name__}: {first_line(error, 200)}"


@torch.inference_mode()
def draw(blocks: Blocks, device: torch.device, dtype: str, sampler: str, watched: bool = False) -> torch.Tensor:
    """A picture of the small model, (1, 3, 128, 128) in [-1, 1] on the processor.

    Args:
        watched: on a CUDA GPU, an error if a step after the first waits for it.
    """
    model = build(blocks, open_checkpoint(TINY), device, DTYPES[dtype])
    speed_up(model, device, DTYPES[dtype], compiled=False)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((1, 4, 16, 16), generator=generator).to(device)
    steps = 0

    def on_step(step) -> None:
        nonlocal steps
        steps += 1
        if watched:
            torch.cuda.set_sync_debug_mode("default" if steps == STEPS else "error")

    sampling = blocks[9].Sampling(STEPS, 4.0, sampler, generator)
    try:
        images = blocks[9].text_to_image(model, [PROMPT], [""], noise, sampling, on_step=on_step)
    finally:
        if watched:
            torch.cuda.set_sync_debug_mode("default")
    return images.float().clamp(-1.0, 1.0).cpu()


def bench_rows(options: ReportOptions, stack: contextlib.ExitStack) -> Iterator[BenchOptions]:
    """What is measured, as it is and compiled: the small model, and one of full size at two sizes of the picture."""
    small = BenchOptions(device=options.device, rounds=options.rounds, checkpoint=str(TINY))
    yield from (replace(small, way=way) for way in ("eager", "compiled"))
    if options.full:
        from course.core.config import ModelConfig
        from course.training.export import write_untrained

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()), "size of SD 1.5")
        write_untrained(ModelConfig(), folder)
        full = replace(small, checkpoint=str(folder / "model.safetensors"))
        yield from (replace(full, width=width, way=way) for width in (512, 768) for way in ("eager", "compiled"))


def page(device: torch.device, checks: list[Check], rows: list[dict[str, str]]) -> str:
    """The report, in Markdown."""
    auto = str(choose_dtype("auto", device, open_checkpoint(TINY).config)).removeprefix("torch.")
    lines = [f"# {name_of(device)}", "", f"torch {torch.__version__}; DTYPE=auto is {auto} with the small model.", ""]
    lines += ["| check | result |", "|---|---|"]
    lines += [f"| {check.name} | {'passed' if check.passed else '**failed**'}: {check.found} |" for check in checks]
    return "\n".join([*lines, "", *(["ours / diffusers:", "", table(rows), ""] if rows else [])])


def name_of(device: torch.device) -> str:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    return processor() if device.type == "cpu" else f"{device}, {processor()}"
