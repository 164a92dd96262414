"""`make bench`: seconds per picture and peak memory of these blocks against diffusers and OpenVINO, as a table.

Without options it takes the small model: as it is, and then on a GPU compiled, on a processor in OpenVINO if that is
installed. CHECKPOINT names another one, DTYPE=float32,bfloat16 asks for two rows, COMPILE=1 for compiled ones only and
COMPILE=0 for none, and ENGINE=openvino for ours in OpenVINO. ALL=1 makes every row of a processor that the README has.
"""

import contextlib
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from course.core.threads import waiting

os.environ.update(waiting())
os.environ.update(TRANSFORMERS_VERBOSITY="error", DIFFUSERS_VERBOSITY="error", HF_HUB_OFFLINE="1")

from course.draw.checkpoint import TINY, choose_device, choose_dtype, open_checkpoint
from course.draw.engine import check_engine
from course.draw.settings import check_size
from course.draw.speed import check_compile
from tools.measuring import NAMES, WHO, BenchOptions, is_installed, measure, own_peak, processor, table


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


def bench(options: BenchOptions) -> int:
    """Runs the command."""
    import torch

    device = choose_device(options.device)
    dtypes = check(options, device)
    if options.memory:
        measure(options, device)
        print(own_peak())
        return 0
    with contextlib.ExitStack() as stack:
        if options.all:
            wanted = all_rows(options, stack)
        else:
            wanted = [replace(options, dtype=dtype, way=way) for dtype in dtypes for way in ways(options, device)]
        rows = [measure(row, device) for row in wanted]
    where = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    wait = "spin" if os.environ.get("GOMP_SPINCOUNT", "0") != "0" else "sleep"
    print(
        f"{where}, torch {torch.__version__}, {torch.get_num_threads()} threads, which {wait} while they wait; "
        f"{options.sampler}; {' / '.join(NAMES[who] for who in WHO[: len(rows[0]['s per picture'].split('/'))])}\n"
    )
    print(table(rows))
    return 0


def ways(options, device) -> list[str]:
    """How ours is to draw, from COMPILE and ENGINE. A ValueError if that is not possible here."""
    small = Path(options.checkpoint).resolve() == TINY.resolve()
    opened = open_checkpoint(options.checkpoint, options.tokenizer)
    if options.engine == "openvino":
        for dtype in options.dtype.split(","):
            check_engine("openvino", device, choose_dtype(dtype.strip(), device, opened.config), bool(options.compile))
        return ["openvino"]
    check_compile(bool(options.compile), device)
    asked = ["compiled"] if options.compile else ["eager"]
    if options.compile is None and small:
        if device.type != "cpu":
            asked.append("compiled")
        elif options.engine is None and is_installed("openvino"):
            asked.append("openvino")
    return asked


def all_rows(options, stack: contextlib.ExitStack) -> list:
    """Every row of the README: the small model's, and a few steps of one of the size of Stable Diffusion 1.5."""
    full = options.checkpoint
    if Path(full).resolve() == TINY.resolve():
        from course.core.config import ModelConfig
        from course.training.export import write_untrained

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()), "size of SD 1.5")
        with contextlib.redirect_stdout(sys.stderr):
            write_untrained(ModelConfig(), folder)
        full = str(folder / "model.safetensors")
    openvino = ["openvino"] if is_installed("openvino") else []
    rows = [(str(TINY), 25, None, "float32", way) for way in ("eager", "unpacked", "formulas", *openvino)]
    rows += [(full, 2, 256, "float32", way) for way in ("eager", "unpacked", "formulas", *openvino)]
    rows += [(full, 2, 256, "bfloat16", way) for way in ("eager", *openvino)]
    rows += [(full, 2, 512, dtype, "eager") for dtype in ("float32", "bfloat16")]
    return [
        replace(options, checkpoint=checkpoint, steps=steps, width=width, dtype=dtype, way=way)
        for checkpoint, steps, width, dtype, way in rows
    ]
