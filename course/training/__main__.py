"""The command `python -m course.training`, which `make train` runs: trains the small model, part by part."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait must not burn the other's time

SHARES = {"vae": 0.3, "decoder": 0.2, "clip": 0.05, "unet": 0.45}  # of the minutes for all; in this order
DEFAULT_MINUTES = 60.0
MOST_PICTURES = 48000
PICTURES_PER_MINUTE = 800  # drawing and encoding them takes time too


def positive(kind: Callable) -> Callable:
    """A type for argparse: numbers above zero."""

    def parse(text: str):
        number = kind(text)
        if not 0 < number < float("inf"):
            raise ValueError
        return number

    parse.__name__ = f"positive {'number' if kind is float else 'whole number'}"
    return parse


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; PART, MINUTES, OUT and CONTINUE of the environment where it says nothing."""
    number, count = positive(float), positive(int)
    parser = argparse.ArgumentParser(
        prog="python -m course train",
        description="Trains the small Stable Diffusion from nothing, or from a model file on: pictures, VAE, "
        "text encoder, U-Net, model file. Ctrl-C saves; the same command goes on. Several GPUs: accelerate launch -m course.training ...; "
        "several processes without a GPU: torchrun --nproc-per-node 2 -m course.training ...",
    )
    parser.add_argument("--part", default=os.environ.get("PART") or "all", help="vae, decoder, clip, unet, all (the default); "
                        "export: only write the model file; untrained: one with random weights")
    parser.add_argument("--minutes", type=number, default=os.environ.get("MINUTES") or None,
                        help=f"wall time for the part (all: for all of them together; default {DEFAULT_MINUTES:.0f})")
    parser.add_argument("--steps", type=count, help="steps of the optimiser for each part, instead of minutes")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "runs/tiny"),
                        help="folder of the run (runs/tiny)")
    parser.add_argument("--export", type=Path, help="folder for the model file and what belongs to it (OUT/model)")
    parser.add_argument("--continue-from", type=Path, default=os.environ.get("CONTINUE") or None,
                        help="model file (or its folder) whose weights the run begins with, instead of random ones")
    parser.add_argument("--full", action="store_true", help="with untrained: of Stable Diffusion 1.5's size (4 GB)")
    parser.add_argument("--pictures", type=count, help=f"to be drawn ({MOST_PICTURES}, fewer if time is short)")
    parser.add_argument("--batch", type=count, help="samples per step and process")
    parser.add_argument("--learning-rate", type=number, help="at its peak")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=count, help="CPU threads")
    options = parser.parse_args(arguments)
    if options.part not in (*SHARES, "all", "export", "untrained"):
        parser.error(f"there is no part {options.part!r}: choose {', '.join(SHARES)}, all, export or untrained")
    return options


def run(options: argparse.Namespace) -> None:
    """Does what the options say."""
    import torch
    from accelerate.utils import set_seed

    from course.core.config import ModelConfig, tiny_config
    from course.training.clip import CLIPPart
    from course.training.data import load_pictures
    from course.training.kernels import use_fused_kernels
    from course.training.loop import Settings, make_accelerator, train
    from course.training.unet import UNetPart
    from course.training.unpack import unpack
    from course.training.vae import DecoderPart, VAEPart

    if options.threads:
        torch.set_num_threads(options.threads)
    config, folder = tiny_config(), options.export or options.out / "model"
    if options.part == "untrained":
        from course.training.export import write_untrained

        write_untrained(ModelConfig() if options.full else config, folder, options.seed)
        return
    if options.part == "export":
        from course.training.export import export

        export(config, options.out, folder)
        return

    accelerator = make_accelerator()
    use_fused_kernels(attention=accelerator.device.type != "cpu" or accelerator.mixed_precision == "no")
    minutes = options.minutes or DEFAULT_MINUTES
    count = options.pictures or min(MOST_PICTURES, max(64, int(PICTURES_PER_MINUTE * minutes)))
    with accelerator.main_process_first():
        if options.continue_from:
            unpack(options.continue_from, config, options.out)
        pictures = load_pictures(options.out, count, config.image_size, options.seed, options.threads)
    for name in SHARES if options.part == "all" else (options.part,):
        set_seed(options.seed)  # of the first weights
        if name == "vae":
            part = VAEPart(config.vae, pictures, accelerator.device, options.batch)
        elif name == "decoder":
            part = DecoderPart(config.vae, pictures, options.out, accelerator.device, options.batch)
        elif name == "clip":
            part = CLIPPart(config.clip, pictures, accelerator.device, options.batch)
        else:
            part = UNetPart(config, pictures, options.out, accelerator, options.batch)
        if options.continue_from and not (options.out / f"{name}.state.pt").exists():
            part.read(options.out)
        share = SHARES[name] if options.part == "all" else 1.0
        settings = Settings(options.out, minutes * share, options.steps, options.seed, options.learning_rate)
        train(part, settings, accelerator)
    if options.part in ("all", "unet") and accelerator.is_main_process:
        from course.training.export import export

        export(config, options.out, folder)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    options = parse(arguments)
    from course.training.loop import Interrupted

    try:
        run(options)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
