def contrastive_loss(texts, pictures, scale):
    texts = texts / texts.norm(dim=1, keepdim=True)
    pictures = pictures / pictures.norm(dim=1, keepdim=True)
    losses = []
    for i, (text, picture) in enumerate(zip(texts, pictures)):
        of_text, of_picture = scale * pictures @ text, scale * texts @ picture
        losses.append(of_text.logsumexp(dim=0) - of_text[i])
        losses.append(of_picture.logsumexp(dim=0) - of_picture[i])
    return torch.stack(losses).mean()


def spread_timesteps(uniform, num_train_timesteps=1000):
    found = [int((i + float(u)) * num_train_timesteps / len(uniform)) for i, u in enumerate(uniform)]
    return torch.tensor([min(t, num_train_timesteps - 1) for t in found], device=uniform.device)


def drop_captions(captions, uniform, share=0.1):
    kept = []
    for caption, number in zip(captions, uniform):
        kept.append(caption if number >= share else "")
    return kept


def min_snr_weights(schedule, timesteps, max_snr=5.0):
    abar = schedule.alphas_cumprod.to(timesteps.device)[timesteps]
    return torch.minimum(torch.ones_like(abar), max_snr * (1.0 / abar - 1.0)).cpu()


def noise_loss(unet, schedule, latents, noise, timesteps, context, max_snr=5.0):
    predicted = unet(schedule.add_noise(latents, noise, timesteps), timesteps.to(latents.device), context)
    weights = min_snr_weights(schedule, timesteps, max_snr).tolist()
    errors = [(p.to(n.dtype) - n).pow(2).mean() for p, n in zip(predicted, noise)]
    return sum(weight * error for weight, error in zip(weights, errors)) / len(errors)


def ema_decay(step, power=2 / 3, gamma=0.0, max_decay=0.9999):
    if step == 1:
        return 0.0
    decay = (1.0 - step**-power) ** (1.0 + gamma)
    return decay if decay < max_decay else max_decay


def update_average(average, model, decay):
    for kept, new in zip(average.parameters(), model.parameters()):
        kept.data = decay * kept.data + (1.0 - decay) * new.data


def training_step(model, optimizer, loss_of, max_norm=1.0, average=None, decay=0.0):
    for parameter in model.parameters():
        parameter.grad = None
    loss = loss_of(model)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.sqrt(sum(gradient.square().sum() for gradient in gradients))
    for gradient in gradients:
        gradient.mul_(torch.clamp(max_norm / (norm + 1e-6), max=1.0))
    optimizer.step()
    if average:
        update_average(average, model, decay)
    return loss.detach()
