"""The names that diffusers and transformers give to parameters and submodules, and ours for the same."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor, nn

Rules = Mapping[str, str]

RESIDUAL = {r"time_emb_proj": "time_proj", r"conv_shortcut": "shortcut"}
ATTENTION = {r"to_out\.0": "to_out"}
PIXEL_ATTENTION = {r"group_norm": "norm", r"to_out\.0": "to_out"}
FEED_FORWARD = {r"net\.0\.": "geglu.", r"net\.2": "out"}
TRANSFORMER_BLOCK = {
    r"attn1\.to_out\.0": "self_attention.to_out",
    r"attn1": "self_attention",
    r"attn2\.to_out\.0": "cross_attention.to_out",
    r"attn2": "cross_attention",
    r"ff\.net\.0\.": "feed_forward.geglu.",
    r"ff\.net\.2": "feed_forward.out",
}
SPATIAL_TRANSFORMER = {r"transformer_blocks\.0\.": "block."} | TRANSFORMER_BLOCK
TIME_EMBEDDING = {r"linear_(\d)": r"linear\1"}
VAE = {
    r"(\w+)\.(?:down|up)_blocks\.(\d+)\.resnets\.(\d+)\.": r"\1.levels.\2.residuals.\3.",
    r"(\w+)\.(?:down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.": r"\1.levels.\2.resize.",
    r"mid_block\.resnets\.0": "middle.residual1",
    r"mid_block\.resnets\.1": "middle.residual2",
    r"mid_block\.attentions\.0\.group_norm": "middle.attention.norm",
    r"mid_block\.attentions\.0\.to_out\.0": "middle.attention.to_out",
    r"mid_block\.attentions\.0": "middle.attention",
    r"conv_norm_out": "norm_out",
    r"conv_shortcut": "shortcut",
}
UNET = (
    {
        r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)\.": r"\1.\2.residuals.\3.",
        r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.": r"\1.\2.transformers.\3.",
        r"(down|up)_blocks\.(\d+)\.(down|up)samplers\.0\.": r"\1.\2.\3sample.",
        r"mid_block\.resnets\.0": "mid.residual1",
        r"mid_block\.resnets\.1": "mid.residual2",
        r"mid_block\.attentions\.0": "mid.transformer",
        r"conv_norm_out": "norm_out",
    }
    | RESIDUAL
    | SPATIAL_TRANSFORMER
    | TIME_EMBEDDING
)
MOTION_BLOCK = {
    r"attn(\d)\.to_out\.0": r"attention\1.to_out",
    r"attn(\d)": r"attention\1",
    r"ff\.net\.0\.": "feed_forward.geglu.",
    r"ff\.net\.2": "feed_forward.out",
}
MOTION_MODULE = {r"transformer_blocks\.0\.": "block."} | MOTION_BLOCK
MOTION_UNET = (
    {
        r"(motion_modules\.\d+\.)transformer_blocks\.0\.attn(\d)\.to_out\.0": r"\1block.attention\2.to_out",
        r"(motion_modules\.\d+\.)transformer_blocks\.0\.attn(\d)": r"\1block.attention\2",
        r"(motion_modules\.\d+\.)transformer_blocks\.0\.": r"\1block.",
        r"(down|up)_blocks\.(\d+)\.motion_modules\.(\d+)\.": r"\1.\2.\3.",
        r"mid_block\.motion_modules\.0\.": "mid.",
    }
    | UNET
    | {r"^(?=(down|up)\.\d+\.[a-z]|mid\.(residual|transformer)|time_embedding|conv_|norm_out)": "unet."}
)
CLIP = {
    r"(text_model\.)?embeddings\.": "",
    r"(text_model\.)?encoder\.layers\.(\d+)\.": r"layers.\2.",
    r"self_attn\.(q|k|v|out)_proj": r"attention.to_\1",
    r"layer_norm(\d)": r"norm\1",
    r"mlp\.": "",
    r"(text_model\.)?final_layer_norm": "final_norm",
}


def our_name(name: str, rules: Rules) -> str:
    for pattern, replacement in rules.items():
        name = re.sub(pattern, replacement, name)
    return name


def our_names(module: nn.Module, rules: Rules) -> dict[str, str]:
    """Their parameter names -> ours."""
    return {name: our_name(name, rules) for name, _ in module.named_parameters()}


def our_weights(module: nn.Module, rules: Rules = MappingProxyType({})) -> dict[str, Tensor]:
    """Their parameters under our names."""
    return {our_name(name, rules): parameter.detach().clone() for name, parameter in module.named_parameters()}
