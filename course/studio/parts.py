"""The parts of a U-Net that can be switched off, one by one or by level."""

from typing import Any

from torch import Tensor, nn

Part = list[tuple[str, Any, int]]  # (kind, module, channels in front of a skip)


def parts(unet: Any, widths: tuple[int, ...]) -> dict[str, Part]:
    """What is switched off under which name.

    Args:
        unet: a UNet (stage 7).
        widths: its config.channels.

    Returns:
        Name -> its pieces: of kind "residual" or "transformer", with the module; or of kind "skip", with the residual
        block that takes it and the number of channels that stand in front of it. Single parts come first, then "all of
        level 1", and so on.
    """
    found: dict[str, Part] = {}

    def add(name: str, block: Any) -> None:
        for kind, modules in (("residual", block.residuals), ("transformer", block.transformers)):
            for i, module in enumerate(modules):
                number = f" {i + 1}" if len(modules) > 1 else ""
                found[f"{name}, {kind}{number}"] = [(kind, module, 0)]

    for level, block in enumerate(unet.down):
        add(f"down {level + 1}", block)
    found["middle, residual 1"] = [("residual", unet.mid.residual1, 0)]
    found["middle, transformer"] = [("transformer", unet.mid.transformer, 0)]
    found["middle, residual 2"] = [("residual", unet.mid.residual2, 0)]
    for place, block in enumerate(unet.up):
        level = len(unet.up) - 1 - place
        add(f"up {level + 1}", block)
        for i, module in enumerate(block.residuals):
            channels = widths[min(level + 1, len(widths) - 1)] if i == 0 else widths[level]
            found[f"up {level + 1}, skip {i + 1}"] = [("skip", module, channels)]
    for level in range(1, len(widths) + 1):
        both = (f"down {level},", f"up {level},")
        names = [name for name in found if name.startswith(both) and "skip" not in name]
        found[f"all of level {level}"] = [piece for name in names for piece in found[name]]
    return found


def without_correction(
    module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor
) -> Tensor:
    """A hook, behind a residual block or a transformer: what it hands on if its correction is left out.

    That is its input, or the shortcut's convolution of it. It does not matter how the block computes its correction.
    """
    x = inputs[0] if inputs else named["x"]
    return x if x.shape == output.shape else module.shortcut(x)  # pyrefly: ignore
