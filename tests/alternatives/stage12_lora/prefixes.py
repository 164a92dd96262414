def table_of_layers(unet, text_encoder):
    table = {}
    for name in layers_of(unet):
        table["unet." + published_name(name)] = table["lora_unet_" + published_name(name).replace(".", "_")] = (
            "unet", name
        )
    for name in layers_of(text_encoder):
        published = published_name(name)
        table["text_encoder." + published] = table["lora_te_" + published.replace(".", "_")] = ("text_encoder", name)
    return table


def take_out(model):
    loras = [name for name, module in model.named_modules() if isinstance(module, LoRA)]
    for name in loras:
        if not any(name.startswith(other + ".") for other in loras):
            layer = model.get_submodule(name)
            while isinstance(layer, LoRA):
                layer = layer.layer
            *path, last = name.split(".")
            model.get_submodule(".".join(path))._modules[last] = layer


def tuning_loss(unet, schedule, new, old, prior_weight=1.0):
    def loss(batch):
        return noise_loss(unet, schedule, **vars(batch))

    return loss(new) + loss(old) * prior_weight
