def kl_divergence(moments):
    mean, logvar = moments.chunk(2, dim=1)
    normal = torch.distributions.Normal(mean, torch.exp(0.5 * logvar.clamp(-30.0, 20.0)))
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    return torch.distributions.kl_divergence(normal, standard)


def vae_loss(outputs, images, moments, l2_weight=1.0, kl_weight=5e-4):
    F = nn.functional
    edges = [
        F.l1_loss(theirs, ours) for theirs, ours in zip(neighbour_differences(outputs), neighbour_differences(images))
    ]
    small = F.interpolate(outputs, scale_factor=0.25, mode="area"), F.interpolate(images, scale_factor=0.25, mode="area")
    terms = [F.l1_loss(outputs, images), l2_weight * F.mse_loss(outputs, images), *edges, 0.5 * F.l1_loss(*small)]
    return torch.stack([*terms, kl_weight * kl_divergence(moments).mean()]).sum()


def contrastive_loss(texts, pictures, scale):
    count = len(pictures)
    cosines = nn.functional.cosine_similarity(texts[:, None], pictures[None], dim=-1)
    of_rows = torch.log_softmax(scale * cosines[:count], dim=1).diagonal()
    of_columns = torch.log_softmax(scale * cosines, dim=0).diagonal()
    return -(of_rows + of_columns).sum() / (2 * count)


def noise_loss(unet, schedule, latents, noise, timesteps, context, max_snr=5.0):
    predicted = unet(schedule.add_noise(latents, noise, timesteps), timesteps.to(latents.device), context)
    errors = nn.functional.mse_loss(predicted.to(noise.dtype), noise, reduction="none").flatten(1).mean(dim=1)
    return min_snr_weights(schedule, timesteps, max_snr).to(noise.device, noise.dtype) @ errors / len(noise)


@torch.no_grad()
def update_average(average, model, decay):
    weights = dict(model.named_parameters())
    for name, kept in average.named_parameters():
        kept.mul_(decay).add_(weights[name], alpha=1.0 - decay)
