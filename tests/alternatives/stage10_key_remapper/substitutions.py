"""The VAE's names by a list of regular expressions, one after the other."""


def remap_vae(state_dict):
    top = max(int(name.split(".")[2]) for name in state_dict if name.startswith("decoder.up."))
    rules = [
        (r"^encoder\.down\.(\d+)\.block\.", lambda m: f"encoder.levels.{m[1]}.residuals."),
        (r"^encoder\.down\.(\d+)\.downsample\.conv", lambda m: f"encoder.levels.{m[1]}.resize.conv"),
        (r"^decoder\.up\.(\d+)\.block\.", lambda m: f"decoder.levels.{top - int(m[1])}.residuals."),
        (r"^decoder\.up\.(\d+)\.upsample\.conv", lambda m: f"decoder.levels.{top - int(m[1])}.resize.conv"),
        (r"\.mid\.block_(\d)\.", r".middle.residual\1."),
        (r"\.mid\.attn_1\.norm", ".middle.attention.norm"),
        (r"\.mid\.attn_1\.([qkv])\.", r".middle.attention.to_\1."),
        (r"\.mid\.attn_1\.proj_out", ".middle.attention.to_out"),
        (r"nin_shortcut", "shortcut"),
    ]
    block = r"(norm1|norm2|conv1|conv2|shortcut)"
    known = re.compile(
        r"(post_)?quant_conv\.|(encoder|decoder)\.(conv_in|conv_out|norm_out|"
        rf"middle\.residual[12]\.{block}|middle\.attention\.(norm|to_(q|k|v|out))|"
        rf"levels\.\d+\.residuals\.\d+\.{block}|levels\.\d+\.resize\.conv)\."
    )
    result = {}
    for old, tensor in state_dict.items():
        new = old
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if not known.match(new):
            raise ValueError(f"what is {old}?")
        square = "middle.attention" in new and tensor.dim() == 4
        result[new] = tensor.squeeze(-1).squeeze(-1) if square else tensor
    return result
