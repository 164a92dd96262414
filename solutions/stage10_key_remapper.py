"""Stage 10: from the names in a published checkpoint to ours.

A checkpoint is a dictionary from names to tensors. Stable Diffusion 1.x was published by the CompVis group as one
file with everything in it, under the names of their code, such as
`model.diffusion_model.input_blocks.4.1.proj_in.weight`. Ours are other names for the same tensors. Shapes do not tell
them apart (nearly all tensors of the U-Net share their shape with another one), so two exchanged names give a network
that runs and draws nonsense. Hence the two rules of this stage: every tensor of the file is accounted for by name, and
loading is strict.

Some of these files hold the U-Net twice, with raw and with averaged weights. In training, the weights move back and
forth around good values, because each step is computed from a few pictures only; their exponential moving average (EMA)
usually lies closer to those values than the weights of the last step. Pictures are made with the average, and training
would go on from the raw weights. Files made for drawing only, such as v1-5-pruned-emaonly, hold just the average, under
the names of the raw weights.

Each remapper is built from small rules: a pattern of their name, and a template of ours. Reading the rules side by
side is a good way to see that both networks are the same.

Sources: Rombach et al., 2022, arXiv:2112.10752 (the checkpoint's code is at github.com/CompVis/stable-diffusion);
Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992 (averaged weights).
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

PREFIXES = {
    "vae": "first_stage_model.",
    "clip": "cond_stage_model.transformer.",
    "unet": "model.diffusion_model.",
}


def split_checkpoint(state_dict: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Given: one dictionary per model, each with the names that follow the model's prefix (PREFIXES).

    What belongs to none of the three (the noise schedule's tables, EMA weights, ...) is left out. So is
    `text_model.embeddings.position_ids`, which is not a weight but a table of the numbers 0 ... 76.

    Args:
        state_dict: a whole checkpoint.

    Returns:
        {"vae": {...}, "clip": {...}, "unet": {...}}.

    Raises:
        ValueError: if there is not a single tensor for one of the three models; it names the prefix.
    """
    parts = {}
    for part, prefix in PREFIXES.items():
        parts[part] = {
            name.removeprefix(prefix): tensor
            for name, tensor in state_dict.items()
            if name.startswith(prefix) and not name.endswith("position_ids")
        }
        if not parts[part]:
            raise ValueError(f"no tensor's name begins with {prefix!r}: this is not a Stable Diffusion 1.x checkpoint")
    return parts


def select_ema(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Exercise 10.1: the same checkpoint with the U-Net's averaged weights in place of its raw ones.

    For `model.diffusion_model.out.0.weight` the average is stored as `model_ema.diffusion_modelout0weight`: without
    the leading `model.`, and without any dots.

    Args:
        state_dict: a whole checkpoint.

    Returns:
        A new dictionary with the same names; the one passed in is not changed.

    Raises:
        ValueError: if the average of a U-Net tensor is missing; it names the tensor.
    """
    selected = dict(state_dict)
    for name in state_dict:
        if name.startswith(PREFIXES["unet"]):
            average = "model_ema." + name.removeprefix("model.").replace(".", "")
            if average not in state_dict:
                raise ValueError(f"the checkpoint has no EMA weights: {average} (for {name}) is missing")
            selected[name] = state_dict[average]
    return selected


def rename(name: str, rules: Mapping[str, str]) -> str:
    """Given: the first rule whose pattern matches the beginning of the name is applied; the rest of the name stays.

    Raises:
        ValueError: if no rule matches.
    """
    for pattern, replacement in rules.items():
        match = re.match(pattern, name)
        if match:
            return match.expand(replacement) + name[match.end() :]
    raise ValueError(f"unknown tensor {name}")


VAE_RESIDUAL = {
    r"norm(\d)": r"norm\1",
    r"conv(\d)": r"conv\1",
    r"nin_shortcut": r"shortcut",
}

VAE_ATTENTION = {
    r"norm": r"norm",
    r"q\b": r"to_q",
    r"k\b": r"to_k",
    r"v\b": r"to_v",
    r"proj_out": r"to_out",
}


def remap_vae(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Exercise 10.2: the VAE's tensors, from CompVis' names to ours.

        quant_conv, post_quant_conv                     the same
        encoder.conv_in, norm_out, conv_out             the same; so in the decoder
        encoder.down.I.block.J...                       encoder.levels.I.residuals.J...
        encoder.down.I.downsample.conv                  encoder.levels.I.resize.conv
        decoder.up.I.block.J...                         decoder.levels.(last - I).residuals.J...
        decoder.up.I.upsample.conv                      decoder.levels.(last - I).resize.conv
        encoder.mid.block_1, attn_1, block_2            encoder.middle.residual1, attention, residual2 (decoder too)

    Inside of a block, VAE_RESIDUAL and VAE_ATTENTION give the names. CompVis numbers the decoder's levels from the
    highest resolution on, so the one that runs first has the highest number; ours are numbered in the order in which
    they run.
    The attention's q, k, v and proj_out are 1x1 convolutions in the file, of shape (C, C, 1, 1), and linear layers,
    (C, C), in ours.

    Args:
        state_dict: what split_checkpoint returns as "vae".

    Returns:
        The same tensors under the names of our VAE.

    Raises:
        ValueError: for a name that no rule knows.
    """
    last = max(int(found[1]) for name in state_dict if (found := re.match(r"decoder\.up\.(\d+)\.", name)))

    def new_name(name: str) -> str:
        if found := re.match(r"encoder\.down\.(\d+)\.block\.(\d+)\.(.*)", name):
            return f"encoder.levels.{found[1]}.residuals.{found[2]}." + rename(found[3], VAE_RESIDUAL)
        if found := re.match(r"decoder\.up\.(\d+)\.block\.(\d+)\.(.*)", name):
            return f"decoder.levels.{last - int(found[1])}.residuals.{found[2]}." + rename(found[3], VAE_RESIDUAL)
        if found := re.match(r"encoder\.down\.(\d+)\.downsample\.(.*)", name):
            return f"encoder.levels.{found[1]}.resize.{found[2]}"
        if found := re.match(r"decoder\.up\.(\d+)\.upsample\.(.*)", name):
            return f"decoder.levels.{last - int(found[1])}.resize.{found[2]}"
        if found := re.match(r"(encoder|decoder)\.mid\.block_(\d)\.(.*)", name):
            return f"{found[1]}.middle.residual{found[2]}." + rename(found[3], VAE_RESIDUAL)
        if found := re.match(r"(encoder|decoder)\.mid\.attn_1\.(.*)", name):
            return f"{found[1]}.middle.attention." + rename(found[2], VAE_ATTENTION)
        if re.match(r"((encoder|decoder)\.(conv_in|norm_out|conv_out)|quant_conv|post_quant_conv)\.", name):
            return name
        raise ValueError(f"unknown tensor {name} in the VAE")

    remapped = {}
    for name, tensor in state_dict.items():
        if ".attn_1." in name and tensor.ndim == 4:
            tensor = tensor[:, :, 0, 0]
        remapped[new_name(name)] = tensor
    return remapped


CLIP_RULES = {
    r"text_model\.embeddings\.token_embedding": r"token_embedding",
    r"text_model\.embeddings\.position_embedding": r"position_embedding",
    r"text_model\.encoder\.layers\.(\d+)\.layer_norm(\d)": r"layers.\1.norm\2",
    r"text_model\.encoder\.layers\.(\d+)\.self_attn\.(q|k|v|out)_proj": r"layers.\1.attention.to_\2",
    r"text_model\.encoder\.layers\.(\d+)\.mlp\.(fc1|fc2)": r"layers.\1.\2",
    r"text_model\.final_layer_norm": r"final_norm",
}


def remap_clip(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Given: the text encoder's tensors, by CLIP_RULES alone: an example of how the rules work.

    Args:
        state_dict: what split_checkpoint returns as "clip".

    Returns:
        The same tensors under the names of our CLIPTextEncoder.

    Raises:
        ValueError: for a name that no rule knows.
    """
    return {rename(name, CLIP_RULES): tensor for name, tensor in state_dict.items()}


UNET_RESIDUAL = {
    r"in_layers\.0": r"norm1",
    r"in_layers\.2": r"conv1",
    r"emb_layers\.1": r"time_proj",
    r"out_layers\.0": r"norm2",
    r"out_layers\.3": r"conv2",
    r"skip_connection": r"shortcut",
}

UNET_TRANSFORMER = {
    r"norm\b": r"norm",
    r"proj_in": r"proj_in",
    r"proj_out": r"proj_out",
    r"transformer_blocks\.0\.norm(\d)": r"block.norm\1",
    r"transformer_blocks\.0\.attn1\.to_out\.0": r"block.self_attention.to_out",
    r"transformer_blocks\.0\.attn1": r"block.self_attention",
    r"transformer_blocks\.0\.attn2\.to_out\.0": r"block.cross_attention.to_out",
    r"transformer_blocks\.0\.attn2": r"block.cross_attention",
    r"transformer_blocks\.0\.ff\.net\.0": r"block.feed_forward.geglu",
    r"transformer_blocks\.0\.ff\.net\.2": r"block.feed_forward.out",
}

UNET_TOP = {
    r"time_embed\.0": r"time_embedding.linear1",
    r"time_embed\.2": r"time_embedding.linear2",
    r"input_blocks\.0\.0": r"conv_in",
    r"out\.0": r"norm_out",
    r"out\.2": r"conv_out",
}


def remap_unet(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Exercise 10.3: the U-Net's tensors, from CompVis' names to ours.

    CompVis numbers the blocks of all levels in one sequence: input_blocks.0 is conv_in, then come, level by level, n
    residual blocks and a downsampling; on the way up each level has n + 1 output_blocks. With n = blocks per level:

        input_blocks.(1 + L * (n + 1) + J).0...         down.L.residuals.J...
        input_blocks.(1 + L * (n + 1) + J).1...         down.L.transformers.J...
        input_blocks.(1 + L * (n + 1) + n).0.op         down.L.downsample.conv
        middle_block.0, .1, .2                          mid.residual1, mid.transformer, mid.residual2
        output_blocks.(U * (n + 1) + J).0...            up.U.residuals.J...
        output_blocks.(U * (n + 1) + J).1...            up.U.transformers.J...
        output_blocks.(U * (n + 1) + n).(1 or 2).conv   up.U.upsample.conv         (1 on levels without attention)

    Inside of a block, UNET_RESIDUAL and UNET_TRANSFORMER give the names; UNET_TOP gives the rest. n follows from the
    number of the first downsampling, which is input_blocks.(n + 1).

    Args:
        state_dict: what split_checkpoint returns as "unet".

    Returns:
        The same tensors under the names of our UNet.

    Raises:
        ValueError: for a name that no rule knows.
    """
    period = min(int(found[1]) for name in state_dict if (found := re.match(r"input_blocks\.(\d+)\.0\.op\.", name)))

    def new_name(name: str) -> str:
        if found := re.match(r"input_blocks\.(\d+)\.0\.op\.(.*)", name):
            return f"down.{(int(found[1]) - 1) // period}.downsample.conv.{found[2]}"
        if found := re.match(r"output_blocks\.(\d+)\.[12]\.conv\.(.*)", name):
            return f"up.{int(found[1]) // period}.upsample.conv.{found[2]}"
        if found := re.match(r"middle_block\.([02])\.(.*)", name):
            return f"mid.residual{1 if found[1] == '0' else 2}." + rename(found[2], UNET_RESIDUAL)
        if found := re.match(r"middle_block\.1\.(.*)", name):
            return "mid.transformer." + rename(found[1], UNET_TRANSFORMER)
        if found := re.match(r"(in|out)put_blocks\.(\d+)\.([01])\.(?!weight|bias)(.*)", name):
            side = "down" if found[1] == "in" else "up"
            level, index = divmod(int(found[2]) - (side == "down"), period)
            if found[3] == "0":
                return f"{side}.{level}.residuals.{index}." + rename(found[4], UNET_RESIDUAL)
            return f"{side}.{level}.transformers.{index}." + rename(found[4], UNET_TRANSFORMER)
        return rename(name, UNET_TOP)

    return {new_name(name): tensor for name, tensor in state_dict.items()}


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Exercise 10.4: copy the tensors into the model's parameters, all of them or none.

    A model that misses one tensor keeps random numbers there, and draws bad pictures without any error. So nothing is
    loaded unless every parameter gets a tensor of its shape and every tensor finds its parameter. The model keeps its
    own dtype.

    Args:
        model: to be filled.
        state_dict: our names to tensors.

    Raises:
        ValueError: naming the first few tensors that are missing (a parameter without a tensor), unexpected (a
            tensor without a parameter) or of the wrong shape (with both shapes). The model is unchanged then.
    """
    wanted = model.state_dict()
    problems = [f"missing {name}" for name in wanted if name not in state_dict]
    problems += [f"unexpected {name}" for name in state_dict if name not in wanted]
    problems += [
        f"wrong shape {name}: the model has {tuple(wanted[name].shape)}, the checkpoint {tuple(tensor.shape)}"
        for name, tensor in state_dict.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"weights do not fit {type(model).__name__}: " + "; ".join(problems[:5]) + more)
    with torch.no_grad():
        for name, tensor in state_dict.items():
            wanted[name].copy_(tensor)
