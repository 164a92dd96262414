def take_out(model):
    for name, child in list(model.named_children()):
        if isinstance(child, LoRA):
            setattr(model, name, innermost(child))
        else:
            take_out(child)


def table_of_layers(unet, text_encoder):
    ours = [("unet", name) for name in layers_of(unet)] + [("text_encoder", name) for name in layers_of(text_encoder)]
    dotted = {f"{part}.{published_name(name)}": (part, name) for part, name in ours}
    flat = {}
    for published, layer in dotted.items():
        part, rest = published.split(".", 1)
        flat["_".join(["lora", "te" if part == "text_encoder" else part, *rest.split(".")])] = layer
    return dotted | flat


def read_lora(state_dict, unet, text_encoder):
    table, parts = table_of_layers(unet, text_encoder), {}
    for name in state_dict:
        layer, kind = split_name(name)
        try:
            parts.setdefault(table[layer], {})[kind] = name
        except KeyError:
            raise ValueError(f"no layer for {name}") from None
    return {key: read_update(state_dict, key, names, unet, text_encoder) for key, names in parts.items()}


def read_update(state_dict, key, names, unet, text_encoder):
    part, layer = key
    for kind in ("down", "up"):
        if kind not in names:
            raise ValueError(f"{layer} of the {part} lacks its {kind}")
    down, up = state_dict[names["down"]], state_dict[names["up"]]
    weight = (unet if part == "unet" else text_encoder).get_submodule(layer).weight
    rank = down.shape[0]
    fits = down.numel() == rank * weight[0].numel() and up.shape[:2] == (len(weight), rank)
    if not fits or down.shape[1] != weight[0].numel() and down.shape[1] != weight.shape[1]:
        raise ValueError(f"{layer}: {list(down.shape)} and {list(up.shape)} do not fit {list(weight.shape)}")
    return Update(down, up, state_dict[names["alpha"]].item() if "alpha" in names else rank)


def apply_lora(unet, text_encoder, updates, strength=1.0):
    def place(part, name, update):
        model = {"unet": unet, "text_encoder": text_encoder}[part]
        layer = model.get_submodule(name)
        lora = LoRA(layer, len(update.down))
        lora.scale = strength * update.alpha / len(update.down)
        dtype = layer.weight.dtype
        lora.down.weight.data = update.down.reshape(lora.down.weight.shape).to(dtype)
        lora.up.weight.data = update.up.reshape(lora.up.weight.shape).to(dtype)
        replace_layer(model, name, lora)
        return lora

    return [place(part, name, update) for (part, name), update in updates.items()]
