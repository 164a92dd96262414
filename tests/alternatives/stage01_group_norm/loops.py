"""One sample and one group after the other."""


def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    size, rest = divmod(x.shape[1], num_groups)
    if rest:
        raise ValueError(f"{x.shape[1]} channels do not make {num_groups} groups")
    work = x.double() if x.dtype == torch.float64 else x.float()
    samples = []
    for sample in work:
        groups = []
        for chunk in sample.split(size):
            mean = chunk.sum() / chunk.numel()
            centred = chunk - mean
            groups.append(centred * (centred.pow(2).sum() / chunk.numel() + eps).rsqrt())
        samples.append(torch.cat(groups))
    y = torch.stack(samples).movedim(1, -1)  # channels last: weight and bias line up by themselves
    y = y if weight is None else y * weight
    y = y if bias is None else y + bias
    return y.movedim(-1, 1).to(x.dtype)
