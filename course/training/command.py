"""`make train`: trains the small model, part by part."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from course.core.assemble import Blocks, for_training
from course.core.options import Options, like, option
from course.core.stages import short_path
from course.draw.settings import Settings
from course.training.ending import finished

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait must not burn the other's time

SHARES = {"vae": 0.3, "decoder": 0.2, "clip": 0.05, "unet": 0.45}  # of the minutes for all; in this order
MOST_PICTURES, MOST_FILMS = 48000, 6000
PICTURES_PER_MINUTE, FILMS_PER_MINUTE = 800, 80  # drawing and encoding them takes time too


@dataclass
class TrainOptions(Options):
    epilog: ClassVar[str] = (
        "Pictures, VAE, text encoder, U-Net, model file: from nothing, or from a model file on. "
        "Ctrl-C saves; the same command goes on. "
        "Several GPUs: accelerate launch -m course train ...; several processes without a GPU: "
        "torchrun --nproc-per-node 2 -m course train ..."
    )

    part: str = option(
        "all",
        "what to train (default all); motion: the modules for films, in a U-Net that is there; "
        "export: only write the model file; untrained: one with random weights",
        choices=(*SHARES, "all", "motion", "export", "untrained"),
    )
    minutes: float = option(60.0, "wall time for the part (all: for all of them together)", above=0)
    steps: int | None = option(None, "steps of the optimiser for each part, instead of minutes", least=1)
    out: Path = option(Path("runs/tiny"), "folder of the run")
    export: Path | None = option(None, "folder for the model file and what belongs to it (default: OUT/model)")
    continue_: Path | None = option(
        None, "model file, or its folder, whose weights the run begins with instead of random ones"
    )
    full: bool = option(False, "with untrained: of Stable Diffusion 1.5's size, 4 GB")
    pictures: int | None = option(
        None, f"or films, to be drawn (default {MOST_PICTURES} or {MOST_FILMS}, fewer if time is short)", least=1
    )
    batch: int | None = option(None, "samples per step and process", least=1)
    learning_rate: float | None = option(None, "at its peak", above=0)
    seed: int = option(0, "of everything that is random", least=0, most=2**32 - 1)
    threads: int | None = option(None, "of the processor", least=1)
    blocks: str = like(Settings, "blocks", "auto", "whose stage 11; auto: yours if it is finished")


TRAINING = 11  # the stage


def run(options: TrainOptions, blocks: Blocks) -> None:
    """Does what the options say, with stage 11 of the blocks."""
    import torch
    from accelerate.utils import set_seed

    from course.core.config import ModelConfig, tiny_config
    from course.core.kernels import use_fused_kernels
    from course.training import loop
    from course.training.clip import CLIPPart
    from course.training.data import load_pictures
    from course.training.motion import FRAMES, MotionPart
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
        from course.training.export import export, export_motion

        export(config, options.out, folder)
        if (options.out / "motion_ema.safetensors").exists():
            export_motion(options.out, folder)
        return

    accelerator = loop.make_accelerator()
    accelerator.print(whose(blocks))
    training = blocks[TRAINING]
    use_fused_kernels()
    film = options.part == "motion"
    most, per_minute = (MOST_FILMS, FILMS_PER_MINUTE) if film else (MOST_PICTURES, PICTURES_PER_MINUTE)
    count = options.pictures or min(most, max(64, int(per_minute * options.minutes)))
    with accelerator.main_process_first():
        if options.continue_:
            unpack(options.continue_, config, options.out)
        frames = FRAMES if film else None
        pictures = load_pictures(options.out, count, config.image_size, options.seed, options.threads, frames)
    for name in SHARES if options.part == "all" else (options.part,):
        set_seed(options.seed)  # of the first weights
        part: loop.Part
        if name == "vae":
            part = VAEPart(config.vae, pictures, accelerator.device, options.batch, training)
        elif name == "decoder":
            part = DecoderPart(config.vae, pictures, options.out, accelerator.device, options.batch, training)
        elif name == "clip":
            part = CLIPPart(  # pyrefly: ignore
                config.clip, pictures, options.out, accelerator.device, options.batch, training
            )
        elif name == "motion":
            part = MotionPart(config, pictures, options.out, accelerator, options.batch, training)
        else:
            part = UNetPart(config, pictures, options.out, accelerator, options.batch, training)
        if options.continue_ and not (options.out / f"{name}.state.pt").exists():
            part.read(options.out)
        share = SHARES[name] if options.part == "all" else 1.0
        settings = loop.Settings(
            options.out, options.minutes * share, options.steps, options.seed, options.learning_rate
        )
        loop.train(part, settings, accelerator, training)
    accelerator.end_training()  # otherwise a thread that speaks to the other processes may end this one with an error
    if not accelerator.is_main_process:
        return
    if options.part in ("all", "unet"):
        from course.training.export import export

        export(config, options.out, folder)
    if film:
        from course.training.export import export_motion

        export_motion(options.out, folder)


def train(options: TrainOptions) -> int:
    """Runs the command; returns its exit code: 0 done, 1 the stage failed, 2 refused, 130 stopped. Or raises."""
    blocks = for_training(options.blocks, TRAINING)
    return finished(lambda: run(options, blocks), blocks, TRAINING)


def whose(blocks: Blocks) -> str:
    """Whose stage 11 decides how the models learn."""
    owner = "yours" if blocks.origin[TRAINING] == "exercises" else "the reference's"
    return f"Losses and steps are {owner} ({short_path(blocks.paths[TRAINING])})."
