"""Fast kernels for training: the same mathematics as in solutions/, but with one kernel for each formula."""

import torch
import torch.nn.functional as F

from solutions import stage01_group_norm, stage02_residual, stage03_attention, stage05_vae, stage07_unet


def use_fused_kernels() -> None:
    """Puts torch's kernels in the place of the formulas written out in solutions/, for the whole process.

    The formulas make torch remember every intermediate result for the backward pass; the kernels do not. With group norm
    and SiLU replaced, a step of the VAE is 1.6 to 2 times as fast. Attention is left alone on a CPU, where its kernel's
    backward pass is slower than the formula at these sizes.
    """
    stage01_group_norm.group_norm = F.group_norm
    for user in (stage02_residual, stage05_vae, stage07_unet):
        user.silu = F.silu
    if torch.cuda.is_available():
        stage03_attention.scaled_dot_product_attention = F.scaled_dot_product_attention
