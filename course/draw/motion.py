"""Films: the file with the motion modules that are asked for, and a model that has them in its U-Net."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from course.core.messages import Refusal
from course.core.options import expanded
from course.core.stages import short_path

if TYPE_CHECKING:
    import torch

    from course.core.assemble import Blocks
    from course.core.config import ModelConfig

NEEDED_BY_FRAMES = (13,)  # the stage of the encore
BESIDE = "motion.safetensors"  # beside a checkpoint, unless MOTION names another file
USUAL_HEADS, USUAL_FRAMES = 8, 32  # of AnimateDiff's published modules, whose files do not name their heads


def motion_file(motion: str | None, checkpoint: Path) -> Path:
    """The file of the motion modules.

    Raises:
        Refusal: in one sentence, if there is none.
    """
    path = checkpoint.with_name(BESIDE) if motion is None else expanded("MOTION", motion)
    if path.is_file():
        return path
    if motion is not None:
        raise Refusal(f"MOTION={motion}: " + ("that is no file." if path.exists() else "there is no such file."))
    raise Refusal(
        f"FRAMES needs motion modules, and there is no {short_path(path)}: MOTION=FILE names another one, or "
        f"`make train PART=motion CONTINUE={short_path(checkpoint.parent)}` trains some."
    )


def put_motion(
    blocks: "Blocks", model: Any, sizes: "ModelConfig", path: Path, frames: int, device: "torch.device"
) -> Any:
    """Puts the motion modules of a file into the U-Net of a StableDiffusion; returns their sizes (MotionConfig).

    Raises:
        ValueError: in one sentence, if they are none, or do not fit, or are not made for so many frames.
    """
    from torch import nn

    from course.draw.checkpoint import read_tensors

    stage = blocks[13]
    tensors, metadata = read_tensors(path, "MOTION")
    tables = [tensor for name, tensor in tensors.items() if name.endswith(".pe") and tensor.ndim == 3]
    longest = tables[0].shape[1] if tables else USUAL_FRAMES
    if frames > longest:
        raise Refusal(f"FRAMES={frames} is not possible: {short_path(path)} knows {longest} frames at most.")
    heads = metadata.get("num_heads", str(USUAL_HEADS))
    try:
        weights = stage.remap_motion(tensors)
        if not heads.isdecimal() or int(heads) < 1 or any(width % int(heads) for width in sizes.unet.channels):
            raise ValueError(f"{heads} heads do not divide the U-Net's widths")
        config = stage.MotionConfig(int(heads), longest, any(name.startswith("mid.") for name in weights))
        unet = stage.MotionUNet(model.unet, sizes.unet, config)
        modules = nn.Module()
        modules.down, modules.mid, modules.up = unet.down, unet.mid, unet.up
        blocks[10].load_weights(modules, weights)
    except ValueError as error:
        raise ValueError(f"{short_path(path)} holds no motion modules for this model: {error}") from None
    model.unet = unet.to(device=device, dtype=model.unet.conv_in.weight.dtype).eval().requires_grad_(False)
    print(f"{short_path(path)} puts {sum(map(len, [*unet.down, *unet.up])) + (unet.mid is not None)} motion modules in")
    return config
