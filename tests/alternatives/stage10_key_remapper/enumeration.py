"""The U-Net's names enumerated from the structure of the checkpoint, not matched one by one."""


def remap_unet(state_dict):
    n = min(int(name.split(".")[1]) for name in state_dict if re.match(r"input_blocks\.\d+\.0\.op\.", name)) - 1
    inputs = 1 + max(int(name.split(".")[1]) for name in state_dict if name.startswith("input_blocks."))
    homes = {"input_blocks.0.0": "conv_in", "out.0": "norm_out", "out.2": "conv_out"}
    homes |= {"time_embed.0": "time_embedding.linear1", "time_embed.2": "time_embedding.linear2"}
    residuals = {"middle_block.0": "mid.residual1", "middle_block.2": "mid.residual2"}
    transformers = {"middle_block.1": "mid.transformer"}
    for number in range(1, inputs):
        level, j = divmod(number - 1, n + 1)
        if j == n:
            homes[f"input_blocks.{number}.0.op"] = f"down.{level}.downsample.conv"
        else:
            residuals[f"input_blocks.{number}.0"] = f"down.{level}.residuals.{j}"
            transformers[f"input_blocks.{number}.1"] = f"down.{level}.transformers.{j}"
    for number in range(inputs):
        level, j = divmod(number, n + 1)
        residuals[f"output_blocks.{number}.0"] = f"up.{level}.residuals.{j}"
        transformers[f"output_blocks.{number}.1"] = f"up.{level}.transformers.{j}"
        for position in (1, 2):
            homes[f"output_blocks.{number}.{position}.conv"] = f"up.{level}.upsample.conv"
    result = {}
    for name, tensor in state_dict.items():
        parts = name.split(".")
        keys = [".".join(parts[:i]) for i in range(len(parts), 0, -1)]
        home = next((key for key in keys if key in homes), None)
        block = next((key for key in keys if key in residuals or key in transformers), None)
        if home:
            result[homes[home] + name[len(home) :]] = tensor
        elif block in residuals:
            result[f"{residuals[block]}." + rename(name[len(block) + 1 :], UNET_RESIDUAL)] = tensor
        elif block in transformers:
            result[f"{transformers[block]}." + rename(name[len(block) + 1 :], UNET_TRANSFORMER)] = tensor
        else:
            raise ValueError(f"no place for {name}")
    return result
