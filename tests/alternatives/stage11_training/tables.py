def kl_divergence(moments):
    half = moments.shape[1] // 2
    mean, variance = moments[:, :half], moments[:, half:].clamp(-30.0, 20.0).exp()
    return (mean**2 + variance - torch.log(variance) - 1.0) / 2.0


def vae_loss(outputs, images, moments, l2_weight=1.0, kl_weight=5e-4):
    error = outputs - images
    coarse = error.unflatten(-1, (-1, 4)).unflatten(-3, (-1, 4)).mean(dim=(-3, -1))
    edges = sum(difference.abs().mean() for difference in neighbour_differences(error))
    pixels = (error.abs() + l2_weight * error**2).mean()
    return pixels + edges + coarse.abs().mean() / 2.0 + kl_weight * kl_divergence(moments).mean()


def spread_timesteps(uniform, num_train_timesteps=1000):
    starts = torch.linspace(0.0, 1.0, len(uniform) + 1, dtype=torch.float64, device=uniform.device)[:-1]
    timesteps = torch.floor((starts + uniform.double() / len(uniform)) * num_train_timesteps + 1e-9)
    return timesteps.to(torch.int64).clamp(0, num_train_timesteps - 1)


def min_snr_weights(schedule, timesteps, max_snr=5.0):
    snr = schedule.alphas_cumprod / (1.0 - schedule.alphas_cumprod)
    table = torch.where(snr > max_snr, max_snr / snr, torch.ones_like(snr))
    return table[timesteps.cpu()]


def drop_captions(captions, uniform, share=0.1):
    return [caption * bool(number >= share) for caption, number in zip(captions, uniform)]


def training_step(model, optimizer, loss_of, max_norm=1.0, average=None, decay=0.0):
    model.zero_grad(set_to_none=False)
    loss = loss_of(model)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(list(model.parameters()), max_norm)
    optimizer.step()
    if average is not None:
        update_average(average, model, decay)
    return torch.tensor(loss.item(), dtype=loss.dtype)
