"""Mistakes of stage 10."""

from course.feedback.mistakes import Mistake

MISTAKES = [
    Mistake(
        "number-of-levels-from-the-first-name",
        "    last = max(int(",
        "    last = next(int(",
        "the highest level of the decoder is taken from the first name. Names may come in any order: take the largest.",
    ),
    Mistake(
        "levels-compared-as-texts",
        'max(int(found[1]) for name in state_dict if (found := re.match(r"decoder\\.up\\.(\\d+)\\.", name)))',
        'int(max(found[1] for name in state_dict if (found := re.match(r"decoder\\.up\\.(\\d+)\\.", name))))',
        "the levels' numbers are compared as texts, in which '10' comes before '9'. Make numbers of them first.",
    ),
    Mistake(
        "period-from-the-first-name",
        "    period = min(int(",
        "    period = next(int(",
        "the number of blocks per level is taken from the first downsampling in the file. Names may come in any "
        "order: take "
        "the one with the smallest number.",
    ),
    Mistake(
        "names-taken-off",
        "    return {new_name(name): tensor for name, tensor in state_dict.items()}",
        "    return {new_name(name): state_dict.pop(name) for name in list(state_dict)}",
        "remap_unet takes the tensors off the dictionary that it is given. It belongs to the caller.",
    ),
    Mistake(
        "square-weights-transposed",
        "            wanted[name].copy_(tensor)",
        "            wanted[name].copy_(tensor.T if tensor.ndim == 2 and tensor.shape[0] == tensor.shape[1] else "
        "tensor)",
        "square matrices are transposed. They fit either way, so no shape tells.",
    ),
    Mistake(
        "transposed-where-that-fits",
        """\
        if name in wanted and tensor.shape != wanted[name].shape
    ]
""",
        """\
        if name in wanted and tensor.shape not in (wanted[name].shape, wanted[name].shape[::-1])
    ]
    state_dict = {n: t.T if n in wanted and t.shape != wanted[n].shape else t for n, t in state_dict.items()}
""",
        "a matrix that fits only when it is transposed is transposed. It is a tensor of the wrong shape.",
    ),
    Mistake(
        "position-ids-let-through",
        '    problems += [f"unexpected {name}" for name in state_dict if name not in wanted]\n',
        """\
    state_dict = {name: tensor for name, tensor in state_dict.items() if not name.endswith("position_ids")}
    problems += [f"unexpected {name}" for name in state_dict if name not in wanted]
""",
        "load_weights passes over position_ids. split_checkpoint has left them out already; whatever else comes is "
        "unexpected.",
    ),
    Mistake(
        "loaded-only-once",
        "    wanted = model.state_dict()\n",
        """\
    if getattr(model, "loaded", False):
        return
    model.loaded = True
    wanted = model.state_dict()
""",
        "a model that has been loaded is passed over. A second checkpoint then has no effect.",
    ),
    Mistake(
        "raw-weights",
        "            selected[name] = state_dict[average]\n",
        "            pass\n",
        "the raw weights stay. Pictures are made with their average.",
    ),
    Mistake(
        "ema-names-with-dots",
        'name.removeprefix("model.").replace(".", "")',
        'name.removeprefix("model.")',
        "the average is looked up with dots in its name. It is stored without any.",
    ),
    Mistake(
        "ema-names-with-underscores",
        '.replace(".", "")',
        '.replace(".", "_")',
        "the average is looked up with underscores for the dots. The dots are simply left out.",
    ),
    Mistake(
        "ema-names-with-model",
        'name.removeprefix("model.").replace',
        "name.replace",
        "the average is looked up with the leading `model`. It is stored without it.",
    ),
    Mistake(
        "ema-names-without-diffusion-model",
        'name.removeprefix("model.").replace',
        'name.removeprefix("model.diffusion_model.").replace',
        "the average is looked up without `diffusion_model`. Only the leading `model.` is left out.",
    ),
    Mistake(
        "ema-names-by-lstrip",
        'name.removeprefix("model.")',
        'name.lstrip("model.")',
        'lstrip("model.") is called. It takes off all leading letters m, o, d, e, l and dots, also the d of '
        "diffusion_model: removeprefix takes off the word.",
    ),
    Mistake(
        "missing-average-ignored",
        """\
                raise ValueError(f"the checkpoint has no EMA weights: {average} (for {name}) is missing")
""",
        "                continue\n",
        "a missing average is ignored. Averaged and raw weights must not be mixed: it is a ValueError.",
    ),
    Mistake(
        "missing-average-is-a-key-error",
        """\
            if average not in state_dict:
                raise ValueError(f"the checkpoint has no EMA weights: {average} (for {name}) is missing")
""",
        "",
        "a missing average ends in a KeyError. It is a ValueError that names the tensor.",
    ),
    Mistake(
        "checkpoint-changed",
        "selected = dict(state_dict)",
        "selected = state_dict",
        "the checkpoint that was passed in is changed. A new dictionary is returned.",
    ),
    Mistake(
        "average-of-the-first-tensor-only",
        "            selected[name] = state_dict[average]\n    return selected",
        "            selected[name] = state_dict[average]\n            return selected\n    return selected",
        "the function returns after the first average: the return stands inside of the loop.",
    ),
    Mistake(
        "unet-only",
        "selected = dict(state_dict)",
        'selected = {name: tensor for name, tensor in state_dict.items() if name.startswith(PREFIXES["unet"])}',
        "only the U-Net's tensors are returned. The result has all names of the checkpoint.",
    ),
    Mistake(
        "averages-left-out",
        "    return selected\n",
        '    return {name: tensor for name, tensor in selected.items() if not name.startswith("model_ema.")}\n',
        "the averages themselves are left out of the result. It has the same names as the checkpoint.",
    ),
    Mistake(
        "average-for-every-tensor",
        '        if name.startswith(PREFIXES["unet"]):\n',
        '        if not name.startswith("model_ema."):\n',
        "an average is looked up for every tensor. Only the U-Net has averages.",
    ),
    Mistake(
        "decoder-levels-not-reversed",
        'f"decoder.levels.{last - int(found[1])}.residuals.{found[2]}."',
        'f"decoder.levels.{found[1]}.residuals.{found[2]}."',
        "the decoder's blocks keep their level's number. CompVis counts the levels from the picture down; "
        "ours are in the "
        "order in which they run.",
    ),
    Mistake(
        "decoder-upsamples-not-reversed",
        'f"decoder.levels.{last - int(found[1])}.resize.{found[2]}"',
        'f"decoder.levels.{found[1]}.resize.{found[2]}"',
        "the decoder's upsampling convolutions keep their level's number. CompVis counts the levels from the picture "
        "down.",
    ),
    Mistake(
        "decoder-levels-off-by-one",
        'f"decoder.levels.{last - int(found[1])}.residuals.{found[2]}."',
        'f"decoder.levels.{last + 1 - int(found[1])}.residuals.{found[2]}."',
        "the decoder's levels are numbered from 1. They are numbered from 0.",
    ),
    Mistake(
        "decoder-upsamples-off-by-one",
        'f"decoder.levels.{last - int(found[1])}.resize.{found[2]}"',
        'f"decoder.levels.{last - 1 - int(found[1])}.resize.{found[2]}"',
        "the decoder's upsampling convolutions are a level too early.",
    ),
    Mistake(
        "four-levels",
        'last = max(int(found[1]) for name in state_dict if (found := re.match(r"decoder\\.up\\.(\\d+)\\.", name)))',
        "last = 3",
        "the decoder is taken to have four levels. How many there are can be read from the names.",
    ),
    Mistake(
        "encoder-levels-reversed",
        'f"encoder.levels.{found[1]}.residuals.{found[2]}."',
        'f"encoder.levels.{last - int(found[1])}.residuals.{found[2]}."',
        "the encoder's levels are reversed too. Only the decoder's are.",
    ),
    Mistake(
        "encoder-downsamples-reversed",
        'f"encoder.levels.{found[1]}.resize.{found[2]}"',
        'f"encoder.levels.{last - int(found[1])}.resize.{found[2]}"',
        "the encoder's downsampling convolutions are reversed. Only the decoder's levels are.",
    ),
    Mistake(
        "decoder-blocks-reversed",
        'f"decoder.levels.{last - int(found[1])}.residuals.{found[2]}."',
        'f"decoder.levels.{last - int(found[1])}.residuals.{2 - int(found[2])}."',
        "the blocks of each decoder level are reversed. Only the levels are.",
    ),
    Mistake(
        "encoder-and-decoder-middles-exchanged",
        'f"{found[1]}.middle.residual{found[2]}."',
        "f\"{'decoder' if found[1] == 'encoder' else 'encoder'}.middle.residual{found[2]}.\"",
        "the encoder gets the decoder's middle blocks, and the other way round. Their shapes are the same, so nothing "
        "else notices.",
    ),
    Mistake(
        "encoder-and-decoder-attentions-exchanged",
        'f"{found[1]}.middle.attention."',
        "f\"{'decoder' if found[1] == 'encoder' else 'encoder'}.middle.attention.\"",
        "the encoder gets the decoder's attention, and the other way round. Their shapes are the same, so nothing else "
        "notices.",
    ),
    Mistake(
        "middle-blocks-exchanged",
        'f"{found[1]}.middle.residual{found[2]}."',
        'f"{found[1]}.middle.residual{3 - int(found[2])}."',
        "the two blocks of the VAE's middle change places. block_1 is residual1.",
    ),
    Mistake(
        "middle-blocks-from-zero",
        'f"{found[1]}.middle.residual{found[2]}."',
        'f"{found[1]}.middle.residual{int(found[2]) - 1}."',
        "the blocks of the VAE's middle are numbered from 0. Ours are residual1 and residual2.",
    ),
    Mistake(
        "norms-exchanged",
        'r"norm(\\d)": r"norm\\1"',
        'r"norm1": r"norm2", r"norm2": r"norm1"',
        "norm1 and norm2 of the VAE's blocks change places.",
    ),
    Mistake(
        "convolutions-exchanged",
        'r"conv(\\d)": r"conv\\1"',
        'r"conv1": r"conv2", r"conv2": r"conv1"',
        "conv1 and conv2 of the VAE's blocks change places.",
    ),
    Mistake(
        "shortcut-not-renamed",
        'r"nin_shortcut": r"shortcut"',
        'r"nin_shortcut": r"nin_shortcut"',
        "the VAE's nin_shortcut keeps its name. Ours is `shortcut`.",
    ),
    Mistake(
        "queries-and-keys-exchanged",
        'r"q\\b": r"to_q",\n    r"k\\b": r"to_k"',
        'r"q\\b": r"to_k",\n    r"k\\b": r"to_q"',
        "queries and keys of the VAE's attention change places.",
    ),
    Mistake(
        "keys-and-values-exchanged",
        'r"k\\b": r"to_k",\n    r"v\\b": r"to_v"',
        'r"k\\b": r"to_v",\n    r"v\\b": r"to_k"',
        "keys and values of the VAE's attention change places.",
    ),
    Mistake(
        "attention-still-convolutions",
        """\
        if ".attn_1." in name and tensor.ndim == 4:
            tensor = tensor[:, :, 0, 0]
""",
        "",
        "the VAE's attention keeps its shape of 1x1 convolutions, (C, C, 1, 1). Ours are linear layers, (C, C).",
    ),
    Mistake(
        "attention-squeezed",
        "tensor = tensor[:, :, 0, 0]",
        "tensor = tensor.squeeze()",
        "squeeze() takes off every dimension of size 1, with a single channel also those of the channels. Only the "
        "last two are to go.",
    ),
    Mistake(
        "attention-transposed",
        "tensor = tensor[:, :, 0, 0]",
        "tensor = tensor[:, :, 0, 0].T",
        "the weights of the VAE's attention are transposed. Convolutions and linear layers both have outputs first.",
    ),
    Mistake(
        "all-1x1-convolutions-flattened",
        'if ".attn_1." in name and tensor.ndim == 4:',
        "if tensor.ndim == 4 and tensor.shape[-2:] == (1, 1):",
        "every 1x1 convolution becomes a linear layer. Only those of the attention do; quant_conv and the shortcuts "
        "stay.",
    ),
    Mistake(
        "attention-bias-flattened",
        "tensor = tensor[:, :, 0, 0]",
        "tensor = tensor.flatten()",
        "the weights of the VAE's attention are flattened to one dimension.",
    ),
    Mistake(
        "unknown-vae-tensors-kept",
        '        raise ValueError(f"unknown tensor {name} in the VAE")',
        "        return name",
        "a name that no rule knows is kept. It is a ValueError: every tensor of the file is accounted for.",
    ),
    Mistake(
        "quant-convs-exchanged",
        """\
            return name
        raise ValueError(f"unknown tensor {name} in the VAE")""",
        """\
            if "quant_conv" in name:
                return name.removeprefix("post_") if name.startswith("post_") else "post_" + name
            return name
        raise ValueError(f"unknown tensor {name} in the VAE")""",
        "quant_conv and post_quant_conv change places. Both keep their names.",
    ),
    Mistake(
        "unet-norms-exchanged",
        'r"in_layers\\.0": r"norm1"',
        'r"out_layers\\.0": r"norm1", r"in_layers\\.0": r"norm2"',
        "norm1 and norm2 of the U-Net's residual blocks change places.",
    ),
    Mistake(
        "unet-convolutions-exchanged",
        'r"in_layers\\.2": r"conv1"',
        'r"out_layers\\.3": r"conv1", r"in_layers\\.2": r"conv2"',
        "conv1 and conv2 of the U-Net's residual blocks change places.",
    ),
    Mistake(
        "attentions-exchanged",
        'r"transformer_blocks\\.0\\.attn1\\.to_out\\.0": r"block.self_attention.to_out"',
        'r"transformer_blocks\\.0\\.attn2\\.to_out\\.0": r"block.self_attention.to_out", '
        'r"transformer_blocks\\.0\\.attn1\\.to_out\\.0": r"block.cross_attention.to_out"',
        "the output projections of self-attention and cross-attention change places. attn1 is self-attention.",
    ),
    Mistake(
        "transformer-norms-rotated",
        'r"transformer_blocks\\.0\\.norm(\\d)": r"block.norm\\1"',
        'r"transformer_blocks\\.0\\.norm1": r"block.norm3", r"transformer_blocks\\.0\\.norm3": r"block.norm1", '
        'r"transformer_blocks\\.0\\.norm(\\d)": r"block.norm\\1"',
        "norm1 and norm3 of the transformer blocks change places.",
    ),
    Mistake(
        "projections-exchanged",
        'r"proj_in": r"proj_in"',
        'r"proj_in": r"proj_out", r"proj_out": r"proj_in"',
        "proj_in and proj_out of the spatial transformers change places.",
    ),
    Mistake(
        "feed-forward-not-renamed",
        'r"transformer_blocks\\.0\\.ff\\.net\\.2": r"block.feed_forward.out"',
        'r"transformer_blocks\\.0\\.ff\\.net\\.2": r"block.feed_forward.net.2"',
        "the feed-forward network's second layer keeps its name. Ours is `out`.",
    ),
    Mistake(
        "time-layers-exchanged",
        'r"time_embed\\.0": r"time_embedding.linear1"',
        'r"time_embed\\.2": r"time_embedding.linear1", r"time_embed\\.0": r"time_embedding.linear2"',
        "the two linear layers of the time embedding change places.",
    ),
    Mistake(
        "two-blocks-per-level",
        "period = min(int(found[1]) for name in state_dict if (found := "
        're.match(r"input_blocks\\.(\\d+)\\.0\\.op\\.", name)))',
        "period = 3",
        "every level is taken to have two blocks. The first downsampling tells how many there are.",
    ),
    Mistake(
        "period-from-the-last-downsample",
        "period = min(int(found[1])",
        "period = max(int(found[1])",
        "the number of blocks is read from the last downsampling. The first one tells it.",
    ),
    Mistake(
        "period-without-the-downsample",
        'found := re.match(r"input_blocks\\.(\\d+)\\.0\\.op\\.", name)))',
        'found := re.match(r"input_blocks\\.(\\d+)\\.0\\.op\\.", name))) - 1',
        "a level is taken to be n blocks long. The downsampling makes it n + 1.",
    ),
    Mistake(
        "downsample-of-the-next-level",
        "(int(found[1]) - 1) // period",
        "int(found[1]) // period",
        "a downsampling is put on the next level. It is the last of its own: conv_in at 0 shifts all numbers by one.",
    ),
    Mistake(
        "input-blocks-from-zero",
        'int(found[2]) - (side == "down"), period',
        "int(found[2]), period",
        "the input blocks are counted from 0. Number 0 is conv_in, so the levels start at 1.",
    ),
    Mistake(
        "output-blocks-from-one",
        'int(found[2]) - (side == "down"), period',
        "int(found[2]) - 1, period",
        "the output blocks are counted from 1. Only the input blocks are: their number 0 is conv_in.",
    ),
    Mistake(
        "up-levels-reversed",
        'side = "down" if found[1] == "in" else "up"\n            level, index = divmod('
        'int(found[2]) - (side == "down"), period)',
        'side = "down" if found[1] == "in" else "up"\n            level, index = divmod('
        'int(found[2]) - (side == "down"), period)\n            '
        'last = max(int(m[1]) for key in state_dict if (m := re.match(r"output_blocks\\.(\\d+)", key))) // period\n'
        '            level = last - level if side == "up" else level',
        "the U-Net's levels on the way up are reversed. Both CompVis and we number them in the order in which "
        "they run.",
    ),
    Mistake(
        "level-and-index-exchanged",
        "level, index = divmod(",
        "index, level = divmod(",
        "level and block change places. The quotient is the level, the remainder the block.",
    ),
    Mistake(
        "upsample-only-at-one",
        'r"output_blocks\\.(\\d+)\\.[12]\\.conv\\.(.*)"',
        'r"output_blocks\\.(\\d+)\\.1\\.conv\\.(.*)"',
        "an upsampling is looked for at position 1 only. Behind a transformer it is at position 2.",
    ),
    Mistake(
        "upsample-only-at-two",
        'r"output_blocks\\.(\\d+)\\.[12]\\.conv\\.(.*)"',
        'r"output_blocks\\.(\\d+)\\.2\\.conv\\.(.*)"',
        "an upsampling is looked for at position 2 only. On levels without attention it is at position 1.",
    ),
    Mistake(
        "middle-of-the-unet-exchanged",
        "1 if found[1] == '0' else 2",
        "2 if found[1] == '0' else 1",
        "the two residual blocks of the U-Net's middle change places. Number 0 is residual1.",
    ),
    Mistake(
        "transformers-as-residuals",
        '            if found[3] == "0":\n',
        '            if found[3] == "1":\n',
        "residual blocks and transformers change places. Position 0 is the residual block.",
    ),
    Mistake(
        "unknown-unet-tensors-kept",
        "        return rename(name, UNET_TOP)\n",
        "        return rename(name, UNET_TOP) if any(re.match(p, name) for p in UNET_TOP) else name\n",
        "a name of the U-Net that no rule knows is kept. It is a ValueError: every tensor is accounted for.",
    ),
    Mistake(
        "norm-out-and-conv-out-exchanged",
        'r"out\\.0": r"norm_out"',
        'r"out\\.2": r"norm_out", r"out\\.0": r"conv_out"',
        "norm_out and conv_out of the U-Net change places.",
    ),
    Mistake(
        "missing-tensors-ignored",
        'problems = [f"missing {name}" for name in wanted if name not in state_dict]',
        "problems = []",
        "a parameter without a tensor is ignored. It keeps its random numbers, and the pictures are bad.",
    ),
    Mistake(
        "unexpected-tensors-ignored",
        '    problems += [f"unexpected {name}" for name in state_dict if name not in wanted]\n',
        "    state_dict = {name: tensor for name, tensor in state_dict.items() if name in wanted}\n",
        "a tensor without a parameter is ignored. It may be a weight under a wrong name.",
    ),
    Mistake(
        "nothing-checked",
        "    if problems:\n",
        "    state_dict = {name: tensor for name, tensor in state_dict.items() if name in wanted}\n    if False:\n",
        "what does not fit is ignored, as with strict=False.",
    ),
    Mistake(
        "shapes-not-checked",
        "if name in wanted and tensor.shape != wanted[name].shape",
        "if name in wanted and tensor.numel() != wanted[name].numel()",
        "only the number of elements is compared. Two shapes can have the same; all numbers then land in wrong places.",
    ),
    Mistake(
        "shapes-by-dimensions-only",
        "if name in wanted and tensor.shape != wanted[name].shape",
        "if name in wanted and tensor.ndim != wanted[name].ndim",
        "only the number of dimensions is compared.",
    ),
    Mistake(
        "loaded-before-the-check",
        "    if problems:\n",
        """\
    with torch.no_grad():
        for name, tensor in state_dict.items():
            if name in wanted and tensor.shape == wanted[name].shape:
                wanted[name].copy_(tensor)
    if problems:
""",
        "what fits is copied before the rest is checked. After an error the model should be as it was.",
    ),
    Mistake(
        "tensors-of-the-file-taken",
        "            wanted[name].copy_(tensor)",
        "            model.get_parameter(name).data = tensor",
        "the parameters become the tensors of the file themselves. Their numbers are to be copied: the model keeps its "
        "dtype, and what changes one does not change the other.",
    ),
    Mistake(
        "dtype-of-the-file",
        """\
        for name, tensor in state_dict.items():
            wanted[name].copy_(tensor)""",
        """\
        model.to(next(iter(state_dict.values())).dtype)
        for name, tensor in state_dict.items():
            model.state_dict()[name].copy_(tensor)""",
        "the model takes the file's dtype. It keeps its own.",
    ),
    Mistake(
        "copy-of-the-state-loaded",
        "wanted[name].copy_(tensor)",
        "wanted[name] = tensor",
        "the tensors are put into a dictionary, not into the model. The parameters stay as they were.",
    ),
    Mistake(
        "another-exception",
        '        raise ValueError(f"weights do not fit',
        '        raise RuntimeError(f"weights do not fit',
        "what does not fit ends in another exception. It is a ValueError.",
    ),
    Mistake(
        "missing-and-unexpected-exchanged",
        """\
    problems = [f"missing {name}" for name in wanted if name not in state_dict]
    problems += [f"unexpected {name}" for name in state_dict if name not in wanted]
""",
        """\
    problems = [f"unexpected {name}" for name in wanted if name not in state_dict]
    problems += [f"missing {name}" for name in state_dict if name not in wanted]
""",
        "missing and unexpected have changed places. A parameter without a tensor is missing.",
    ),
    Mistake(
        "problems-not-named",
        '"; ".join(problems[:5]) + more',
        '"see above"',
        "the error does not name the tensors.",
    ),
    Mistake(
        "shapes-not-named",
        'f"wrong shape {name}: the model has {tuple(wanted[name].shape)}, the checkpoint {tuple(tensor.shape)}"',
        'f"wrong shape {name}"',
        "the error names a tensor of the wrong shape, but not the two shapes.",
    ),
    Mistake(
        "averages-copied-as-a-dict",
        "selected = dict(state_dict)",
        "selected = state_dict.copy()",
        "select_ema calls state_dict.copy(). A Mapping need not have that; dict(state_dict) makes a copy of any.",
    ),
]
