"""Stage 12, encore: LoRA, a small file that teaches a trained model something new.

To fine-tune a model is to train it a little further, on pictures of something that it does not know. Doing so with all
its weights takes much memory, gives a file as large as the model itself, and forgets what the model knew before. LoRA
(low-rank adaptation) leaves the weights as they are and learns a correction to some of the layers, with few numbers: a
matrix of 320 x 320 has 102,400 numbers, while the product of one of 320 x 4 and one of 4 x 320 has a rank of 4 at most
and is described by 2,560.

The correction is zero at first, so that a training begins with the model as it was. Afterwards it can stay beside the
layer, be added to the layer's weights (then drawing costs nothing more), or be taken away again; and several of them
can be used at once, each with a strength of its own.

Published files name the layers as diffusers does, in one of two ways of writing:

    unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight            peft: lora_A, lora_B
    lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight    kohya: lora_down, lora_up

Here both are looked up in one table, made of the layers that our models have. What is not in it is refused.

A model that is trained on pictures of one new thing soon draws that thing whatever it is asked for. So half of every
batch are old pictures, drawn by the model itself before the training: what it did right with them it should go on
doing (prior preservation).

Sources: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv:2106.09685, section 4.1 and
equation 3; Ruiz et al., "DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation", 2022,
arXiv:2208.12242, section 3.3 and equation 2 (prior preservation); the names are those of
github.com/huggingface/diffusers and github.com/kohya-ss/sd-scripts.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .stage06_clip import CLIPTextEncoder
from .stage07_unet import UNet
from .stage08_scheduler import NoiseSchedule
from .stage11_training import noise_loss


def innermost(layer: nn.Module) -> nn.Module:
    """Given: the layer inside of all LoRAs that are around it; the layer itself if there is none."""
    while isinstance(layer, LoRA):
        layer = layer.layer
    return layer


class LoRA(nn.Module):
    """Exercise 12.1: a layer with a correction of low rank beside it.

        y = layer(x) + scale * up(down(x))          scale = alpha / rank;  once it is merged (12.3): y = layer(x)

    For a linear layer from m to n features, down is linear from m to rank and up from rank to n. For a convolution,
    down is one with its kernel size, stride and padding, to rank channels, and up is a 1x1 convolution. Neither has a
    bias.
    up starts as zeros, so that y is layer(x) at first; down starts as torch starts any layer. (Were both zero, the
    gradients of both would be zero as well.)

    Dividing by the rank keeps the size of the correction about the same when another rank is tried.

    Parameters:
        layer: the layer that was given. Its parameters are frozen: requires_grad is False.
        down, up: nn.Linear or nn.Conv2d, on the device and in the dtype of the layer's weight.

    Attributes:
        scale: alpha / rank.
        merged: whether the correction is in the layer's weight; False at first.

    Args:
        layer: nn.Linear, nn.Conv2d, or another LoRA around one of them (innermost(layer) is that one).
        rank: a positive whole number.
        alpha: any number; None: the rank, so that scale is 1.
    """

    def __init__(self, layer: nn.Module, rank: int, alpha: float | None = None):
        raise NotImplementedError("exercise 12.1: a layer with a correction of low rank beside it")

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: whatever the layer takes.

        Returns:
            The shape and dtype that the layer returns.
        """
        raise NotImplementedError("exercise 12.1: a layer with a correction of low rank beside it")

    @property
    def weight(self) -> Tensor:
        """Given: the layer's weight, also for code that asks a layer for its dtype or device."""
        return innermost(self.layer).get_parameter("weight")

    def delta(self) -> Tensor:
        """Exercise 12.2: the correction as a change of the layer's weight.

            delta = scale * (up.weight @ down.weight)

        Of convolutions, take the weights as matrices, (rank, in * height * width of the kernel) and (out, rank), and
        give the product the shape of the layer's weight. In float16 and bfloat16 compute in float32.

        Returns:
            The shape of self.weight; float32, or float64 for a layer in float64.
        """
        raise NotImplementedError("exercise 12.2: the correction as a change of the layer's weight")

    @torch.no_grad()
    def merge(self) -> None:
        """Exercise 12.3: add delta to the weight, or take it off: here it is added.

        Change self.weight in place, and set merged. Do nothing if it is merged already. The sum is taken in the dtype
        of delta, and converted to that of the weight afterwards.
        """
        raise NotImplementedError("exercise 12.3: add delta to the weight, or take it off")

    @torch.no_grad()
    def unmerge(self) -> None:
        """Exercise 12.3: add delta to the weight, or take it off: here it is taken off again.

        Subtract delta from self.weight in the same way, and clear merged. Do nothing if it is not merged.
        """
        raise NotImplementedError("exercise 12.3: add delta to the weight, or take it off")


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Given: the names and layers of a model that a LoRA can be put around: linear ones and convolutions.

    A layer that has LoRAs around it already is there once, under its own name, with all of them.
    """
    found: dict[str, nn.Module] = {}
    outer = "none"
    for name, module in model.named_modules():  # what is inside of a module comes right behind it
        if isinstance(module, (nn.Linear, nn.Conv2d, LoRA)) and not name.startswith(f"{outer}."):
            found[name] = module
            outer = name
    return found


def attention_layers(model: nn.Module) -> list[str]:
    """Given: the names of all projections of the attentions: to_q, to_k, to_v and to_out."""
    return [name for name in layers_of(model) if name.rpartition(".")[2] in ("to_q", "to_k", "to_v", "to_out")]


def replace_layer(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Given: puts a layer in the place of the one with this name, "mid.transformer.proj_in"."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)


def put_in(model: nn.Module, names: Iterable[str], rank: int, alpha: float | None = None) -> list[nn.Parameter]:
    """Exercise 12.4: put a LoRA around each of these layers of a model, and freeze everything else.

    Afterwards requires_grad is True for the new down and up, and False for all other parameters of the model.

    Args:
        model: changed in place.
        names: of the layers, as layers_of gives them.
        rank, alpha: of every LoRA.

    Returns:
        The parameters to train: of each new LoRA, in the order of the names, down.weight and up.weight.
    """
    raise NotImplementedError(
        "exercise 12.4: put a LoRA around each of these layers of a model, and freeze everything else"
    )


def take_out(model: nn.Module) -> None:
    """Exercise 12.5: put the layers back in the place of all LoRAs around them.

    A model whose LoRAs are not merged is then what it was before; one whose LoRAs are merged keeps what they added.

    Args:
        model: changed in place. It may have several LoRAs around one layer.
    """
    raise NotImplementedError("exercise 12.5: put the layers back in the place of all LoRAs around them")


# Our names to those of diffusers and transformers: all substitutions, one after the other.
PUBLISHED = {
    r"^(down|up)\.(\d+)\.transformers\.": r"\1_blocks.\2.attentions.",
    r"^(down|up)\.(\d+)\.residuals\.": r"\1_blocks.\2.resnets.",
    r"^(down|up)\.(\d+)\.(down|up)sample\.": r"\1_blocks.\2.\3samplers.0.",
    r"^mid\.transformer\.": r"mid_block.attentions.0.",
    r"^mid\.residual1\.": r"mid_block.resnets.0.",
    r"^mid\.residual2\.": r"mid_block.resnets.1.",
    r"\.time_proj$": r".time_emb_proj",
    r"\.shortcut$": r".conv_shortcut",
    r"^time_embedding\.linear(\d)$": r"time_embedding.linear_\1",
    r"\.block\.self_attention\.": r".transformer_blocks.0.attn1.",
    r"\.block\.cross_attention\.": r".transformer_blocks.0.attn2.",
    r"\.block\.feed_forward\.geglu\.proj$": r".transformer_blocks.0.ff.net.0.proj",
    r"\.block\.feed_forward\.out$": r".transformer_blocks.0.ff.net.2",
    r"\.(attn\d)\.to_out$": r".\1.to_out.0",
    r"^layers\.(\d+)\.attention\.to_(q|k|v|out)$": r"text_model.encoder.layers.\1.self_attn.\2_proj",
    r"^layers\.(\d+)\.(fc\d)$": r"text_model.encoder.layers.\1.mlp.\2",
}


def published_name(name: str) -> str:
    """Given: the name that diffusers or transformers give to one of our layers."""
    for pattern, replacement in PUBLISHED.items():
        name = re.sub(pattern, replacement, name)
    return name


# What the last part of a name in a file says. diffusers has had several forms; split_name knows the older ones, too.
KINDS = {
    r"\.lora_A\.weight|\.lora_down\.weight|[._]lora\.down\.weight|\.lora_linear_layer\.down\.weight": "down",
    r"\.lora_B\.weight|\.lora_up\.weight|[._]lora\.up\.weight|\.lora_linear_layer\.up\.weight": "up",
    r"\.alpha": "alpha",
}


def split_name(name: str) -> tuple[str, str]:
    """Given: a tensor's name in a file as the name of the layer, and what it is of it: "down", "up" or "alpha".

    Raises:
        ValueError: if it is nothing that LoRA has, such as the tensors of other methods.
    """
    for pattern, kind in KINDS.items():
        if found := re.fullmatch(f"(.*)({pattern})", name):
            layer = found[1].replace(".processor.", ".")
            layer = re.sub(r"\.(attn\d)\.to_out$", r".\1.to_out.0", layer)
            return re.sub(r"\.self_attn\.to_(q|k|v|out)$", r".self_attn.\1_proj", layer), kind
    raise ValueError(f"{name} is no part of a LoRA: only the plain form, with down, up and alpha, can be read")


@dataclass
class Update:
    """Given: the correction of one layer, as a file holds it.

    Attributes:
        down: (rank, in) or (rank, in, height, width).
        up: (out, rank) or (out, rank, 1, 1).
        alpha: what is divided by the rank.
    """

    down: Tensor
    up: Tensor
    alpha: float


Updates = dict[tuple[str, str], Update]  # ("unet" or "text_encoder", our name of the layer) -> its update


def table_of_layers(unet: nn.Module, text_encoder: nn.Module) -> dict[str, tuple[str, str]]:
    """Exercise 12.6: every name under which a file may hold one of our layers.

    The layer "mid.transformer.proj_in" of the U-Net is called mid_block.attentions.0.proj_in (published_name), and
    stands in the table twice:

        "unet.mid_block.attentions.0.proj_in"           ("unet", "mid.transformer.proj_in")
        "lora_unet_mid_block_attentions_0_proj_in"      ("unet", "mid.transformer.proj_in")

    In the second way of writing, all dots have become underscores. The layers of the text encoder begin with
    "text_encoder." and "lora_te_".

    Args:
        unet, text_encoder: their layers (layers_of) are what the table is made of.

    Returns:
        Name in a file -> ("unet" or "text_encoder", our name of the layer).
    """
    raise NotImplementedError("exercise 12.6: every name under which a file may hold one of our layers")


def read_lora(state_dict: Mapping[str, Tensor], unet: nn.Module, text_encoder: nn.Module) -> Updates:
    """Exercise 12.7: from the tensors of a published file to one update for each layer.

    split_name cuts each name; table_of_layers says which layer it is about. The rank of a layer is the length of its
    down; it may differ from layer to layer. Without an alpha, alpha is the rank.

    Args:
        state_dict: all tensors of the file. An alpha is a tensor of one number.
        unet, text_encoder: the models that the file is to be used with; they are not changed.

    Returns:
        Updates, in the order in which the layers first occur in the file.

    Raises:
        ValueError: naming the tensor or the layer, if a name is not in the table, if a layer has no down or no up, or
            if their shapes do not fit: seen as matrices (x.flatten(1)), down must be (rank, n) and up (m, rank), where
            the layer's weight seen as a matrix is (m, n).
    """
    raise NotImplementedError("exercise 12.7: from the tensors of a published file to one update for each layer")


def apply_lora(unet: UNet, text_encoder: CLIPTextEncoder, updates: Updates, strength: float = 1.0) -> list[LoRA]:
    """Exercise 12.8: put the updates of a file around the layers of both models.

    Each becomes a LoRA of its own rank, whose scale is its alpha / rank * strength, with its down and up as weights. A
    second file goes around what the first one left.

    Args:
        unet, text_encoder: changed in place.
        updates: what read_lora gives for these models.
        strength: 0 no change, 1 as it was trained; also above 1 or below 0.

    Returns:
        The new LoRAs, in the order of the updates.
    """
    raise NotImplementedError("exercise 12.8: put the updates of a file around the layers of both models")


def lora_state_dict(unet: nn.Module, text_encoder: nn.Module) -> dict[str, Tensor]:
    """Given: the LoRAs of both models as a file holds them, in kohya's way of writing, which most programs read.

    Args:
        unet, text_encoder: with one LoRA around some of their layers, not merged.

    Returns:
        For each of them lora_down.weight, lora_up.weight and alpha (its scale times its rank).
    """
    tensors = {}
    for prefix, model in (("lora_unet_", unet), ("lora_te_", text_encoder)):
        for name, lora in layers_of(model).items():
            if isinstance(lora, LoRA):
                stem = prefix + published_name(name).replace(".", "_")
                tensors[f"{stem}.lora_down.weight"] = lora.down.weight.detach()
                tensors[f"{stem}.lora_up.weight"] = lora.up.weight.detach()
                tensors[f"{stem}.alpha"] = torch.tensor(lora.scale * len(lora.down.weight))
    return tensors


@dataclass
class Batch:
    """Given: what noise_loss of stage 11 takes besides U-Net and schedule; each field has one entry per sample."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    context: Tensor


def tuning_loss(unet: UNet, schedule: NoiseSchedule, new: Batch, old: Batch, prior_weight: float = 1.0) -> Tensor:
    """Exercise 12.9: learn the new pictures, and keep the old ones.

        loss = noise_loss of the new batch + prior_weight * noise_loss of the old batch

    Args:
        unet: with LoRAs in it.
        schedule: the noise schedule.
        new: pictures of the new thing, with captions that have its word in them.
        old: pictures that the model drew before it was tuned, with the prompts that it drew them for.
        prior_weight: how much the old pictures count.

    Returns:
        A single number, as a tensor without dimensions.
    """
    raise NotImplementedError("exercise 12.9: learn the new pictures, and keep the old ones")
