class LoRA(nn.Module):
    def __init__(self, layer, rank, alpha=None):
        super().__init__()
        self.layer, self.merged = layer, False
        self.scale = 1.0 if alpha is None else alpha / rank
        for parameter in layer.parameters():
            parameter.requires_grad = False
        weight = innermost(layer).weight
        rows, columns, *kernel = weight.shape
        of_layer = innermost(layer)
        if kernel:
            options = {"stride": of_layer.stride, "padding": of_layer.padding, "bias": False}
            self.down = nn.Conv2d(columns, rank, tuple(kernel), **options)
            self.up = nn.Conv2d(rank, rows, 1, bias=False)
        else:
            self.down, self.up = nn.Linear(columns, rank, bias=False), nn.Linear(rank, rows, bias=False)
        self.up.weight.data.zero_()
        self.to(device=weight.device, dtype=weight.dtype)

    @property
    def weight(self):
        return innermost(self.layer).weight

    def forward(self, x):
        y = self.layer(x)
        return y if self.merged else y + self.up(self.down(x)) * self.scale

    def delta(self):
        down, up = self.down.weight, self.up.weight
        if down.dtype in (torch.float16, torch.bfloat16):
            down, up = down.float(), up.float()
        if down.ndim == 2:
            return self.scale * up @ down
        return self.scale * torch.einsum("or,rihw->oihw", up[:, :, 0, 0], down)

    def add(self, factor):
        changed = self.weight.data + factor * self.delta().detach()
        self.weight.data.copy_(changed)
        self.merged = factor > 0

    def merge(self):
        if not self.merged:
            self.add(1)

    def unmerge(self):
        if self.merged:
            self.add(-1)


def put_in(model, names, rank, alpha=None):
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    loras = [LoRA(model.get_submodule(name), rank, alpha) for name in names]
    for name, lora in zip(names, loras):
        replace_layer(model, name, lora)
    return [layer.weight for lora in loras for layer in (lora.down, lora.up)]
