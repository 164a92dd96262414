"""The command `python -m course.training`."""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait must not burn the other's time

PARTS = ("vae", "clip", "unet")
SHARES = {"vae": 0.45, "clip": 0.05, "unet": 0.5}  # of the minutes for all


def parse(arguments: list[str] | None) -> argparse.Namespace:
    environment = os.environ
    parser = argparse.ArgumentParser(prog="python -m course.training", description="Trains the small model.")
    parser.add_argument("--part", choices=(*PARTS, "all", "export", "untrained"), default=environment.get("PART") or "all")
    parser.add_argument("--minutes", type=float, default=environment.get("MINUTES") or None,
                        help="wall time for the part, or for all three")
    parser.add_argument("--steps", type=int, help="steps of the optimiser for each part, instead of minutes")
    parser.add_argument("--out", type=Path, default=Path(environment.get("OUT") or "runs/tiny"))
    parser.add_argument("--pictures", type=int, default=48000, help="how many pictures to draw")
    parser.add_argument("--batch", type=int, help="samples per step and process")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    import torch

    from course.config import tiny_config
    from course.training.data import load_pictures
    from course.training.kernels import use_fused_kernels
    from course.training.loop import Interrupted, Settings, make_accelerator, train
    from course.training.vae import VAEPart

    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        config = tiny_config()
        use_fused_kernels()
        accelerator = make_accelerator()
        torch.manual_seed(options.seed)
        with accelerator.main_process_first():
            pictures = load_pictures(options.out, options.pictures, config.image_size, options.seed)
        minutes = options.minutes or 60.0
        settings = Settings(out=options.out, minutes=minutes, steps=options.steps, seed=options.seed,
                            learning_rate=options.learning_rate)
        train(VAEPart(config.vae, pictures, accelerator.device, options.batch), settings, accelerator)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
