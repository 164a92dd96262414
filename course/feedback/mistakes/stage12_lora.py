"""Mistakes of stage 12."""

from course.feedback.mistakes import Mistake

SCALE = "self.scale = (rank if alpha is None else alpha) / rank"
FORWARD = "return self.layer(x) + self.scale * self.up(self.down(x))"
ZEROS = "nn.init.zeros_(self.up.weight)"
CONV_DOWN = "self.down = nn.Conv2d(plain.in_channels, rank, plain.kernel_size, plain.stride, plain.padding, bias=False)"
CONV_UP = "self.up = nn.Conv2d(rank, plain.out_channels, kernel_size=1, bias=False)"
LINEAR_DOWN = "self.down = nn.Linear(plain.in_features, rank, bias=False)"
LINEAR_UP = "self.up = nn.Linear(rank, plain.out_features, bias=False)"
PRODUCT = "product = self.up.weight.to(dtype).flatten(1) @ self.down.weight.to(dtype).flatten(1)"
DELTA = "return self.scale * product.reshape(self.weight.shape)"
MERGE = "self.weight.copy_(self.weight + self.delta())"
UNMERGE = "self.weight.copy_(self.weight - self.delta())"
PUT_LORA = "lora = LoRA(model.get_submodule(name), rank, alpha)"
TRAINED = "trained += [lora.down.weight, lora.up.weight]"
TAKEN = "            replace_layer(model, name, innermost(layer))"
DOTS = """table[f"{part}.{published}"] = (part, name)"""
FLAT = """table[f"lora_{short}_{published.replace('.', '_')}"] = (part, name)"""
PARTS = """(("unet", "unet", unet), ("text_encoder", "te", text_encoder))"""
CHECK = "if down.flatten(1).shape != (rank, columns) or up.flatten(1).shape != (rows, rank):"
ALPHA = """float(tensors.get("alpha", rank))"""
KNOWN = "        if layer not in table:\n            raise ValueError("
MISSING = "        if missing:\n            raise ValueError("
APPLIED = "lora = LoRA(models[part].get_submodule(name), len(update.down), update.alpha * strength)"
PLACED = "        replace_layer(models[part], name, lora)\n        loras.append(lora)"
COPIED = """            lora.down.weight.copy_(update.down.reshape(lora.down.weight.shape))
            lora.up.weight.copy_(update.up.reshape(lora.up.weight.shape))
"""
LOSS = "return losses[0] + prior_weight * losses[1]"

MISTAKES = [
    Mistake(
        "not-divided-by-the-rank",
        SCALE,
        "self.scale = 1.0 if alpha is None else alpha",
        "alpha itself is the scale. It is divided by the rank.",
    ),
    Mistake(
        "scale-turned-over",
        SCALE,
        "self.scale = rank / (rank if alpha is None else alpha)",
        "the rank is divided by alpha. The scale is alpha / rank.",
    ),
    Mistake(
        "alpha-ignored",
        SCALE,
        "self.scale = 1.0",
        "alpha is not used. The scale is alpha / rank.",
    ),
    Mistake(
        "scale-by-the-root",
        SCALE,
        "self.scale = (rank if alpha is None else alpha) / rank**0.5",
        "alpha is divided by the square root of the rank. That is another method (rsLoRA); here it is the rank.",
    ),
    Mistake(
        "alpha-one-by-default",
        SCALE,
        "self.scale = (1.0 if alpha is None else alpha) / rank",
        "alpha is 1 where none is given. It is the rank then, so that the scale is 1.",
    ),
    Mistake(
        "scale-as-whole-number",
        SCALE,
        "self.scale = (rank if alpha is None else alpha) // rank",
        "alpha is divided by the rank as whole numbers. 1 / 4 is 0.25.",
    ),
    Mistake(
        "correction-not-scaled",
        FORWARD,
        "return self.layer(x) + self.up(self.down(x))",
        "the correction is not scaled in forward.",
    ),
    Mistake(
        "layer-scaled-too",
        FORWARD,
        "return self.scale * (self.layer(x) + self.up(self.down(x)))",
        "the layer's own result is scaled as well. Only the correction is.",
    ),
    Mistake(
        "layer-left-out",
        FORWARD,
        "return self.scale * self.up(self.down(x))",
        "the layer's own result is missing. The correction is added to it.",
    ),
    Mistake(
        "correction-subtracted",
        FORWARD,
        "return self.layer(x) - self.scale * self.up(self.down(x))",
        "the correction is subtracted. It is added.",
    ),
    Mistake(
        "correction-of-the-result",
        FORWARD,
        "y = self.layer(x)\n        return y + self.scale * self.up(self.down(y))",
        "down gets the layer's result. It gets x, as the layer does.",
    ),
    Mistake(
        "activation-inside",
        FORWARD,
        "return self.layer(x) + self.scale * self.up(nn.functional.silu(self.down(x)))",
        "there is an activation between down and up. With one, the correction could not be merged into a weight.",
    ),
    Mistake(
        "merged-and-added",
        "        if self.merged:\n            return self.layer(x)\n        return self.layer(x) +",
        "        return self.layer(x) +",
        "forward adds the correction although it is in the weight already. Then it counts twice.",
    ),
    Mistake(
        "both-random",
        ZEROS,
        "pass",
        "up starts with random numbers. The model then starts as a damaged one; up starts as zeros.",
    ),
    Mistake(
        "both-zero",
        ZEROS,
        "nn.init.zeros_(self.up.weight)\n        nn.init.zeros_(self.down.weight)",
        "down starts as zeros as well. Then the gradients of both are zero, and nothing is ever learned.",
    ),
    Mistake(
        "down-zero-instead",
        ZEROS,
        "nn.init.zeros_(self.down.weight)",
        "down starts as zeros and up with random numbers. That would do as well, but files and peft have it the other "
        "way round.",
    ),
    Mistake(
        "layer-not-frozen",
        "self.layer = layer.requires_grad_(False)",
        "self.layer = layer",
        "the layer's own parameters are not frozen. Then all of it is trained, and the small file does not hold it.",
    ),
    Mistake(
        "layer-copied",
        "self.layer = layer.requires_grad_(False)",
        "import copy\n\n        self.layer = copy.deepcopy(layer).requires_grad_(False)",
        "the layer is copied. It is that layer itself that is kept, so that it can be taken out again.",
    ),
    Mistake(
        "biases",
        f"{LINEAR_DOWN}\n            {LINEAR_UP}",
        "self.down = nn.Linear(plain.in_features, rank)\n            self.up = nn.Linear(rank, plain.out_features)",
        "down and up of a linear layer have biases. Then the correction is not zero at first, and is no change of a "
        "weight.",
    ),
    Mistake(
        "width-and-rank-exchanged",
        LINEAR_DOWN,
        "self.down = nn.Linear(rank, plain.in_features, bias=False)",
        "down goes from the rank to the layer's width. It goes from the width to the rank.",
    ),
    Mistake(
        "in-and-out-exchanged",
        f"{LINEAR_DOWN}\n            {LINEAR_UP}",
        "self.down = nn.Linear(plain.out_features, rank, bias=False)\n"
        "            self.up = nn.Linear(rank, plain.in_features, bias=False)",
        "the features that go in and those that come out are exchanged.",
    ),
    Mistake(
        "stride-forgotten",
        CONV_DOWN,
        "self.down = nn.Conv2d(plain.in_channels, rank, plain.kernel_size, padding=plain.padding, bias=False)",
        "down has not the stride of the convolution. Its result has another size then.",
    ),
    Mistake(
        "padding-forgotten",
        CONV_DOWN,
        "self.down = nn.Conv2d(plain.in_channels, rank, plain.kernel_size, plain.stride, bias=False)",
        "down has not the padding of the convolution.",
    ),
    Mistake(
        "kernel-on-the-wrong-side",
        f"{CONV_DOWN}\n            {CONV_UP}",
        "self.down = nn.Conv2d(plain.in_channels, rank, kernel_size=1, bias=False)\n            self.up = nn.Conv2d("
        "rank, plain.out_channels, plain.kernel_size, plain.stride, plain.padding, bias=False)",
        "up has the kernel of the convolution, and down is the 1x1 one. It is the other way round in all files.",
    ),
    Mistake(
        "dtype-of-torch",
        "        self.down.to(plain.weight)\n        self.up.to(plain.weight)",
        "        self.down.to(plain.weight.device)\n        self.up.to(plain.weight.device)",
        "down and up have torch's default dtype. They have that of the layer's weight.",
    ),
    Mistake(
        "inner-lora-left-out",
        "self.layer = layer.requires_grad_(False)",
        "self.layer = plain.requires_grad_(False)",
        "the LoRA that was around the layer is left out. The layer that was given is kept, with all that is around it.",
    ),
    Mistake(
        "delta-not-scaled",
        DELTA,
        "return product.reshape(self.weight.shape)",
        "delta is not scaled.",
    ),
    Mistake(
        "delta-transposed",
        PRODUCT,
        "product = (self.up.weight.to(dtype).flatten(1) @ self.down.weight.to(dtype).flatten(1)).T",
        "the product is transposed. up @ down has a row for each feature that comes out, as torch's weights do.",
    ),
    Mistake(
        "delta-not-reshaped",
        DELTA,
        "return self.scale * product",
        "the change of a convolution's weight stays a matrix. It takes the shape of the weight.",
    ),
    Mistake(
        "delta-in-half-precision",
        "dtype = torch.promote_types(self.up.weight.dtype, torch.float32)",
        "dtype = self.up.weight.dtype",
        "the product of half-precision weights is computed in half precision. Compute it in float32.",
    ),
    Mistake(
        "delta-rounded-before-adding",
        MERGE,
        "self.weight.add_(self.delta().to(self.weight.dtype))",
        "delta is rounded to the weight's dtype before it is added. Add first, then convert: once rounded is enough.",
    ),
    Mistake(
        "merge-subtracts",
        MERGE,
        "self.weight.copy_(self.weight - self.delta())",
        "merge subtracts the change. It adds it.",
    ),
    Mistake(
        "merge-replaces-the-weight",
        MERGE,
        "self.weight.copy_(self.delta())",
        "merge puts the change in the place of the weight. It is added to it.",
    ),
    Mistake(
        "merged-again",
        f"        if not self.merged:\n            {MERGE}\n            self.merged = True",
        f"        {MERGE}\n        self.merged = True",
        "a second merge adds the change once more. It does nothing.",
    ),
    Mistake(
        "merged-not-noted",
        f"{MERGE}\n            self.merged = True",
        MERGE,
        "merge does not set merged. forward then adds the correction on top.",
    ),
    Mistake(
        "unmerge-without-merge",
        f"        if self.merged:\n            {UNMERGE}\n            self.merged = False",
        f"        {UNMERGE}\n        self.merged = False",
        "unmerge subtracts although nothing was merged.",
    ),
    Mistake(
        "unmerge-adds",
        UNMERGE,
        "self.weight.copy_(self.weight + self.delta())",
        "unmerge adds the change once more. It subtracts it.",
    ),
    Mistake(
        "unmerged-not-noted",
        f"{UNMERGE}\n            self.merged = False",
        UNMERGE,
        "unmerge does not clear merged. forward then leaves the correction out.",
    ),
    Mistake(
        "merge-into-the-outer-layer",
        MERGE,
        "self.layer.weight.copy_(self.layer.weight + self.delta()) if not isinstance(self.layer, LoRA) else None",
        "nothing is added where there is another LoRA right inside. self.weight is that of the innermost layer.",
    ),
    Mistake(
        "rest-not-frozen",
        "    model.requires_grad_(False)\n    trained = []",
        "    trained = []",
        "the rest of the model is not frozen. Then everything is trained.",
    ),
    Mistake(
        "everything-frozen",
        "        replace_layer(model, name, lora)\n        trained +=",
        "        replace_layer(model, name, lora)\n        model.requires_grad_(False)\n        trained +=",
        "the model is frozen after a LoRA is in it, and with it that LoRA.",
    ),
    Mistake(
        "put-in-rank-only",
        PUT_LORA,
        "lora = LoRA(model.get_submodule(name), rank)",
        "alpha is not handed on to the LoRAs.",
    ),
    Mistake(
        "not-put-in",
        "        replace_layer(model, name, lora)\n        trained +=",
        "        trained +=",
        "the LoRAs are made, but not put in the place of the layers. The loss stays where it is.",
    ),
    Mistake(
        "only-up-trained",
        TRAINED,
        "trained += [lora.up.weight]",
        "only up is returned. down is trained, too.",
    ),
    Mistake(
        "up-before-down",
        TRAINED,
        "trained += [lora.up.weight, lora.down.weight]",
        "up stands before down. The order is down, up.",
    ),
    Mistake(
        "whole-layers-trained",
        TRAINED,
        "trained += [*lora.parameters()]",
        "the layers' own parameters are returned as well. Only down and up are trained.",
    ),
    Mistake(
        "nothing-taken-out",
        TAKEN,
        "            layer = innermost(layer)",
        "the layers are found, but not put back.",
    ),
    Mistake(
        "one-layer-of-lora-taken-out",
        TAKEN,
        "            replace_layer(model, name, layer.layer)",
        "only the outermost LoRA is taken out. There may be several around a layer.",
    ),
    Mistake(
        "unmerged-when-taken-out",
        TAKEN,
        "            layer.unmerge()\n            replace_layer(model, name, innermost(layer))",
        "what is merged is taken out of the weights. It stays: that is how a merged model is made.",
    ),
    Mistake(
        "merged-when-taken-out",
        TAKEN,
        "            layer.merge()\n            replace_layer(model, name, innermost(layer))",
        "the LoRAs are merged first. The model is to be what it was before.",
    ),
    Mistake(
        "table-of-our-names",
        "published = published_name(name)",
        "published = name",
        "the table holds our own names. Files hold those that published_name gives.",
    ),
    Mistake(
        "only-dots",
        f"            {DOTS}\n            {FLAT}\n",
        f"            {DOTS}\n",
        "only the names with dots are in the table. kohya's are missing.",
    ),
    Mistake(
        "only-underscores",
        f"            {DOTS}\n            {FLAT}\n",
        f"            {FLAT}\n",
        "only kohya's names are in the table. Those with dots are missing.",
    ),
    Mistake(
        "dots-kept",
        FLAT,
        """table[f"lora_{short}_{published}"] = (part, name)""",
        "the dots stay in kohya's names. They become underscores.",
    ),
    Mistake(
        "text-encoder-left-out",
        PARTS,
        """(("unet", "unet", unet),)""",
        "the text encoder's layers are left out. Files may change them as well.",
    ),
    Mistake(
        "parts-named-alike",
        FLAT,
        """table[f"lora_{part}_{published.replace('.', '_')}"] = (part, name)""",
        "kohya's names of the text encoder begin with lora_text_encoder_. It is lora_te_.",
    ),
    Mistake(
        "text-encoder-as-unet",
        DOTS,
        """table[f"{part}.{published}"] = ("unet", name)""",
        "everything is said to belong to the U-Net.",
    ),
    Mistake(
        "alpha-one-in-files",
        ALPHA,
        """float(tensors.get("alpha", 1.0))""",
        "a missing alpha counts as 1. It is the rank then, so that the scale is 1.",
    ),
    Mistake(
        "alpha-of-files-ignored",
        ALPHA,
        "float(rank)",
        "the file's alpha is not used.",
    ),
    Mistake(
        "rank-of-the-first-layer",
        "        rank = len(down)\n",
        """        rank = len(next(iter(found.values()))["down"])\n""",
        "all layers are taken to have the rank of the first one. Each has its own.",
    ),
    Mistake(
        "rank-is-the-width",
        "        rank = len(down)\n",
        "        rank = down.shape[1]\n",
        "the rank is taken from the second dimension of down. It is the first.",
    ),
    Mistake(
        "unknown-names-skipped",
        f'{KNOWN}f"{{name}} belongs to no layer of this model: is the file for another one, such as SDXL?")',
        "        if layer not in table:\n            continue",
        "names that are not in the table are skipped. A file for another model then changes nothing, or half of it, "
        "without a word.",
    ),
    Mistake(
        "incomplete-layers-skipped",
        f'{MISSING}f"{{part}} {{layer}}: the file has no {{missing[0]}} for it")',
        "        if missing:\n            continue",
        "a layer without down or up is skipped without a word.",
    ),
    Mistake(
        "shapes-not-checked",
        CHECK,
        "if False:",
        "the shapes are not compared with the layer's weight.",
    ),
    Mistake(
        "shape-of-down-alone",
        CHECK,
        "if down.flatten(1).shape != (rank, columns):",
        "only the shape of down is checked.",
    ),
    Mistake(
        "shape-of-up-alone",
        CHECK,
        "if up.flatten(1).shape != (rows, rank):",
        "only the shape of up is checked.",
    ),
    Mistake(
        "convolutions-compared-as-they-are",
        CHECK,
        "if down.shape[1:] != models[part].get_submodule(layer).weight.shape[1:] or up.flatten(1).shape != ("
        "\n            rows,\n            rank,\n        ):",
        "down is compared with the weight as it is. Files also hold 1x1 convolutions as matrices: compare "
        "x.flatten(1).",
    ),
    Mistake(
        "down-and-up-of-files-exchanged",
        """updates[part, layer] = Update(down, up,""",
        """updates[part, layer] = Update(up, down,""",
        "down and up are exchanged.",
    ),
    Mistake(
        "strength-ignored",
        APPLIED,
        "lora = LoRA(models[part].get_submodule(name), len(update.down), update.alpha)",
        "the strength is not used.",
    ),
    Mistake(
        "alpha-of-updates-ignored",
        APPLIED,
        "lora = LoRA(models[part].get_submodule(name), len(update.down), len(update.down) * strength)",
        "the update's alpha is not used.",
    ),
    Mistake(
        "strength-in-place-of-alpha",
        APPLIED,
        "lora = LoRA(models[part].get_submodule(name), len(update.down), strength)",
        "the strength takes the place of alpha. The two are multiplied.",
    ),
    Mistake(
        "first-file-replaced",
        APPLIED,
        "lora = LoRA(innermost(models[part].get_submodule(name)), len(update.down), update.alpha * strength)",
        "a second file takes the place of the first. It goes around what the first one left.",
    ),
    Mistake(
        "everything-into-the-unet",
        "    for (part, name), update in updates.items():\n        lora",
        "    for (part, name), update in updates.items():\n"
        "        if part != 'unet':\n            continue\n        lora",
        "the updates of the text encoder are left out.",
    ),
    Mistake(
        "up-not-loaded",
        COPIED,
        COPIED.splitlines(keepends=True)[0],
        "up keeps the zeros that it starts with, so that nothing changes.",
    ),
    Mistake(
        "down-not-loaded",
        COPIED,
        COPIED.splitlines(keepends=True)[1],
        "down keeps the random numbers that it starts with.",
    ),
    Mistake(
        "applied-but-not-placed",
        PLACED,
        "        loras.append(lora)",
        "the LoRAs are made, but not put in the place of the layers.",
    ),
    Mistake(
        "prior-weight-ignored",
        LOSS,
        "return losses[0] + losses[1]",
        "prior_weight is not used.",
    ),
    Mistake(
        "prior-left-out",
        LOSS,
        "return losses[0]",
        "the old pictures do not count. After some minutes, everything that is asked for becomes the new thing.",
    ),
    Mistake(
        "new-weighted-instead",
        LOSS,
        "return prior_weight * losses[0] + losses[1]",
        "it is the new pictures that are weighted. prior_weight says how much the old ones count.",
    ),
    Mistake(
        "tuning-loss-averaged",
        LOSS,
        "return (losses[0] + prior_weight * losses[1]) / (1.0 + prior_weight)",
        "the sum is divided by the weights. It is the plain sum.",
    ),
]
