"""Mistakes of stage 11. Of many of them a training shows nothing but worse pictures: the hints say which."""

from course.feedback.mistakes import Mistake

KL = "return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)"
COLOURS = "colours = error.abs().mean() + l2_weight * error.square().mean()"
EDGES = "edges = dx.abs().mean() + dy.abs().mean()"
SHAPES = "shapes = nn.functional.avg_pool2d(error, 4).abs().mean()"
TOTAL = "return colours + edges + 0.5 * shapes + kl_weight * kl_divergence(moments).mean()"
TEXTS = "texts = nn.functional.normalize(texts, dim=-1)"
PICTURES = "pictures = nn.functional.normalize(pictures, dim=-1)"
SCORES = "scores = scale * texts @ pictures.T  # (M, N)"
OF_CAPTIONS = "of_captions = nn.functional.cross_entropy(scores[: len(pictures)], right)"
OF_PICTURES = "of_pictures = nn.functional.cross_entropy(scores.T, right)"
SPREAD = "spread = (torch.arange(batch, device=uniform.device) + uniform) / batch"
ROUNDED = "return (spread * num_train_timesteps).long().clamp(max=num_train_timesteps - 1)"
DROPPED = "dropped = (uniform < share).tolist()"
SNR = "snr = abar / (1.0 - abar)"
WEIGHTS = "return snr.clamp(max=max_snr) / snr"
PREDICTED = "predicted = unet(noisy, timesteps.to(noisy.device), context).to(noise.dtype)"
ERRORS = "errors = (predicted - noise).square().mean(dim=(1, 2, 3))  # (batch,)"
OF_BATCH = "weights = min_snr_weights(schedule, timesteps, max_snr).to(errors)"
LOSS = "    return (weights * errors).mean()"
DECAY = "return min((1.0 - 1.0 / step**power) ** (gamma + 1.0), max_decay)"
MOVE = "kept.lerp_(new, 1.0 - decay)"
STEP = """    optimizer.zero_grad()
    loss = loss_of(model)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    if average is not None:
        update_average(average, model, decay)
    return loss.detach()
"""


def step(old: str, new: str) -> str:
    """The body of the training step with one change."""
    assert STEP.count(old) == 1
    return STEP.replace(old, new)


MISTAKES = [
    Mistake(
        "kl-not-halved",
        KL,
        "return mean.square() + logvar.exp() - 1.0 - logvar",
        "the divergence is not halved. Then it counts twice as much as its weight says.",
    ),
    Mistake(
        "kl-without-minus-one",
        KL,
        "return 0.5 * (mean.square() + logvar.exp() - logvar)",
        "the 1 is not subtracted. The divergence is zero for mean 0 and variance 1.",
    ),
    Mistake(
        "kl-sign-of-logvar",
        KL,
        "return 0.5 * (mean.square() + logvar.exp() - 1.0 + logvar)",
        "logvar is added. It is subtracted: else a variance of zero would be the best.",
    ),
    Mistake(
        "kl-negative",
        KL,
        "return -0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)",
        "the sign is turned around. The loss would then push the latents away from the standard normal distribution.",
    ),
    Mistake(
        "kl-of-the-standard-deviation",
        KL,
        "return 0.5 * (mean.square() + (0.5 * logvar).exp() - 1.0 - logvar)",
        "the standard deviation, exp(logvar / 2), stands where the variance belongs, exp(logvar).",
    ),
    Mistake(
        "kl-mean-not-squared",
        KL,
        "return 0.5 * (mean.abs() + logvar.exp() - 1.0 - logvar)",
        "the mean is not squared.",
    ),
    Mistake(
        "kl-halves-exchanged",
        """    mean, logvar = moments.chunk(2, dim=1)
    logvar = logvar.clamp(-30.0, 20.0)
    return 0.5""",
        """    logvar, mean = moments.chunk(2, dim=1)
    logvar = logvar.clamp(-30.0, 20.0)
    return 0.5""",
        "mean and log variance are exchanged. The means are the first half of the channels.",
    ),
    Mistake(
        "kl-not-clamped",
        "    logvar = logvar.clamp(-30.0, 20.0)\n    return 0.5",
        "    return 0.5",
        "logvar is not clamped. Its exponential can then overflow, and all weights become nan.",
    ),
    Mistake(
        "kl-averaged",
        KL,
        KL + ".mean()",
        "the mean over all latents is returned. One number per latent is wanted; vae_loss takes the mean.",
    ),
    Mistake(
        "kl-summed-per-sample",
        KL,
        KL + ".sum(dim=(1, 2, 3))",
        "the latents of each sample are summed up, as diffusers does it. One number per latent is wanted here.",
    ),
    Mistake(
        "vae-without-absolute-errors",
        COLOURS,
        "colours = l2_weight * error.square().mean()",
        "mean(|error|) is missing. Squares alone hardly count small errors, so that flat areas keep a haze.",
    ),
    Mistake(
        "vae-without-squares",
        COLOURS,
        "colours = error.abs().mean()",
        "the squared error is missing.",
    ),
    Mistake(
        "vae-l2-weight-ignored",
        COLOURS,
        "colours = error.abs().mean() + error.square().mean()",
        "l2_weight is not used.",
    ),
    Mistake(
        "vae-root-of-squares",
        COLOURS,
        "colours = error.abs().mean() + l2_weight * error.square().mean().sqrt()",
        "the square root of the squared error is taken. The squares themselves are averaged.",
    ),
    Mistake(
        "vae-squares-summed",
        COLOURS,
        "colours = error.abs().mean() + l2_weight * error.square().sum() / len(error)",
        "the squares are summed up over a picture. Every term is a mean, so that its weight fits pictures of any size.",
    ),
    Mistake(
        "vae-edges-in-one-direction",
        EDGES,
        "edges = dx.abs().mean()",
        "only the differences along the rows count. Edges that lie flat stay blurred.",
    ),
    Mistake(
        "vae-without-edges",
        EDGES,
        "edges = 0.0",
        "the edges are missing. The loss falls, and outlines stay blurred.",
    ),
    Mistake(
        "vae-edges-halved",
        EDGES,
        "edges = 0.5 * (dx.abs().mean() + dy.abs().mean())",
        "the two kinds of edges are averaged. They are added.",
    ),
    Mistake(
        "vae-edges-without-absolute-value",
        EDGES,
        "edges = dx.mean() + dy.mean()",
        "the differences are averaged with their signs. They cancel: take their absolute values first.",
    ),
    Mistake(
        "vae-edges-of-the-outputs",
        "    error = outputs - images\n    dx, dy = neighbour_differences(error)",
        "    error = outputs - images\n    dx, dy = neighbour_differences(outputs)",
        "the edges of the outputs are what costs. It is the edges of the error; else the smoothest picture "
        "is the best.",
    ),
    Mistake(
        "vae-absolute-value-before-the-average",
        SHAPES,
        "shapes = nn.functional.avg_pool2d(error.abs(), 4).mean()",
        "the absolute value is taken before the squares of 4x4 are averaged. Then it is mean(|error|) once more.",
    ),
    Mistake(
        "vae-without-shapes",
        TOTAL,
        "return colours + edges + kl_weight * kl_divergence(moments).mean()",
        "the error in averages of 4x4 squares is missing.",
    ),
    Mistake(
        "vae-shapes-not-halved",
        TOTAL,
        "return colours + edges + shapes + kl_weight * kl_divergence(moments).mean()",
        "the error in averages of 4x4 squares is not halved.",
    ),
    Mistake(
        "vae-without-kl",
        TOTAL,
        "return colours + edges + 0.5 * shapes",
        "the KL term is missing. The pictures come back even better, but the latents lie far apart, and what the U-Net "
        "draws between them decodes to nothing.",
    ),
    Mistake(
        "vae-kl-weight-one",
        TOTAL,
        "return colours + edges + 0.5 * shapes + kl_divergence(moments).mean()",
        "kl_weight is not used. With a weight of 1 the encoder says hardly anything, and all pictures come "
        "back blurred.",
    ),
    Mistake(
        "vae-kl-summed",
        TOTAL,
        "return colours + edges + 0.5 * shapes + kl_weight * kl_divergence(moments).sum() / len(moments)",
        "the divergence is summed up over the latents of a picture. Then it outweighs all else: take the mean.",
    ),
    Mistake(
        "texts-not-normalised",
        TEXTS,
        "texts = texts",
        "the captions' vectors keep their lengths. Then a long vector scores high with every picture.",
    ),
    Mistake(
        "pictures-not-normalised",
        PICTURES,
        "pictures = pictures",
        "the pictures' vectors keep their lengths. Then a long vector scores high with every caption.",
    ),
    Mistake(
        "normalised-over-the-batch",
        f"{TEXTS}\n    {PICTURES}",
        f"{TEXTS.replace('-1', '0')}\n    {PICTURES.replace('-1', '0')}",
        "the vectors are normalised across the batch. Each vector is divided by its own length, along the "
        "last dimension.",
    ),
    Mistake(
        "scores-not-scaled",
        SCORES,
        "scores = texts @ pictures.T",
        "the scores are not scaled. Cosines end at 1, so the softmax could never be sure of anything.",
    ),
    Mistake(
        "scores-divided",
        SCORES,
        "scores = texts @ pictures.T / scale",
        "the scores are divided by the scale. It is one over the temperature already: multiply.",
    ),
    Mistake(
        "scale-detached",
        SCORES,
        "scores = float(scale) * texts @ pictures.T",
        "the scale is made a plain number, so it gets no gradient. It is learned too.",
    ),
    Mistake(
        "only-captions-choose",
        "return 0.5 * (of_captions + of_pictures)",
        "return of_captions",
        "only the captions choose their pictures. The pictures choose their captions as well.",
    ),
    Mistake(
        "only-pictures-choose",
        "return 0.5 * (of_captions + of_pictures)",
        "return of_pictures",
        "only the pictures choose their captions. The captions choose their pictures as well.",
    ),
    Mistake(
        "directions-summed",
        "return 0.5 * (of_captions + of_pictures)",
        "return of_captions + of_pictures",
        "the two cross-entropies are added. Their mean is wanted.",
    ),
    Mistake(
        "wrong-captions-left-out",
        OF_PICTURES,
        "of_pictures = nn.functional.cross_entropy(scores[: len(pictures)].T, right)",
        "the pictures choose among the first captions only. Those without a picture are wrong answers to choose, too.",
    ),
    Mistake(
        "softmax-twice",
        OF_CAPTIONS,
        "of_captions = nn.functional.cross_entropy(scores[: len(pictures)].softmax(dim=1), right)",
        "a softmax is taken of the captions' scores first. cross_entropy takes the scores, and does the "
        "softmax itself.",
    ),
    Mistake(
        "timesteps-independent",
        SPREAD,
        "spread = uniform",
        "the timesteps are drawn independently. Each sample gets one out of an interval of its own.",
    ),
    Mistake(
        "timesteps-not-random",
        SPREAD,
        "spread = torch.arange(batch, device=uniform.device) / batch + 0.0 * uniform",
        "the random numbers are not used. Then the U-Net only ever sees as many noise levels as a batch has samples.",
    ),
    Mistake(
        "interval-not-divided",
        SPREAD,
        "spread = torch.arange(batch, device=uniform.device) / batch + uniform",
        "only the number of the interval is divided by the size of the batch. The random number is, too.",
    ),
    Mistake(
        "timesteps-rounded-to-nearest",
        ROUNDED,
        "return (spread * num_train_timesteps).round().long().clamp(max=num_train_timesteps - 1)",
        "timesteps are rounded to the nearest whole number. They are rounded down.",
    ),
    Mistake(
        "timesteps-as-floats",
        ROUNDED,
        "return (spread * num_train_timesteps).floor().clamp(max=num_train_timesteps - 1)",
        "the timesteps are floating-point numbers. They index a table: int64.",
    ),
    Mistake(
        "timesteps-from-one",
        ROUNDED,
        "return (spread * num_train_timesteps).long().clamp(max=num_train_timesteps - 1) + 1",
        "the timesteps run from 1 to 1000. They run from 0 to 999.",
    ),
    Mistake(
        "timesteps-beyond-the-table",
        ROUNDED,
        "return (spread * num_train_timesteps).long()",
        "a timestep can be 1000. In float32, i plus a number just below 1 can be rounded up to i + 1.",
    ),
    Mistake(
        "timesteps-of-999",
        ROUNDED,
        "return (spread * (num_train_timesteps - 1)).long()",
        "the numbers are multiplied by 999. There are 1000 timesteps; being rounded down, they end at 999.",
    ),
    Mistake(
        "timesteps-always-of-1000",
        ROUNDED,
        "return (spread * 1000).long().clamp(max=999)",
        "there are always 1000 timesteps. Their number is an argument.",
    ),
    Mistake(
        "captions-kept-instead-of-dropped",
        DROPPED,
        "dropped = (uniform >= share).tolist()",
        "the share is kept and the rest is dropped. The loss falls, but pictures do not come as they are asked for: "
        "the U-Net hardly ever sees a caption.",
    ),
    Mistake(
        "captions-never-dropped",
        DROPPED,
        "dropped = [False] * len(captions)",
        "no caption is dropped. The loss falls, but the U-Net never learns what an empty prompt means, and guidance "
        "subtracts something meaningless.",
    ),
    Mistake(
        "share-ignored",
        DROPPED,
        "dropped = (uniform < 0.1).tolist()",
        "always a tenth is dropped. The share is an argument.",
    ),
    Mistake(
        "share-included",
        DROPPED,
        "dropped = (uniform <= share).tolist()",
        "a caption is dropped where the random number equals the share. Below it, and only there: else a share of 0 "
        "can drop some.",
    ),
    Mistake(
        "captions-left-out",
        'return ["" if drop else caption for caption, drop in zip(captions, dropped)]',
        "return [caption for caption, drop in zip(captions, dropped) if not drop]",
        "dropped captions are left out of the list. They are replaced by the empty prompt, so that each "
        "picture has one.",
    ),
    Mistake(
        "all-or-nothing",
        DROPPED,
        "dropped = [bool(uniform[0] < share)] * len(captions)",
        "the first random number decides for the whole batch. Each caption has its own.",
    ),
    Mistake(
        "captions-dropped-in-place",
        'return ["" if drop else caption for caption, drop in zip(captions, dropped)]',
        'captions[:] = ["" if drop else caption for caption, drop in zip(captions, dropped)]\n    return captions',
        "the given list is changed. It is the training data: after some rounds all its captions would be empty.",
    ),
    Mistake(
        "snr-turned-over",
        SNR,
        "snr = (1.0 - abar) / abar",
        "noise is divided by signal. The ratio is abar / (1 - abar).",
    ),
    Mistake(
        "snr-of-amplitudes",
        SNR,
        "snr = torch.sqrt(abar / (1.0 - abar))",
        "the square root of the ratio is taken. The ratio is one of variances.",
    ),
    Mistake(
        "snr-is-abar",
        SNR,
        "snr = abar",
        "the picture's variance alone is taken. It is divided by that of the noise, 1 - abar.",
    ),
    Mistake(
        "weights-not-divided",
        WEIGHTS,
        "return snr.clamp(max=max_snr)",
        "the weight is min(SNR, max_snr). That is for a network that predicts the picture; for noise, divide by SNR.",
    ),
    Mistake(
        "weights-with-max",
        WEIGHTS,
        "return snr.clamp(min=max_snr) / snr",
        "the larger of SNR and max_snr is taken. It is the smaller one: no weight is above 1.",
    ),
    Mistake(
        "weights-turned-over",
        WEIGHTS,
        "return snr / snr.clamp(max=max_snr)",
        "the weight is turned over. Timesteps with hardly any noise then count a hundredfold, and layout is "
        "never learned.",
    ),
    Mistake(
        "max-snr-fixed",
        WEIGHTS,
        "return snr.clamp(max=5.0) / snr",
        "max_snr is always 5. It is an argument.",
    ),
    Mistake(
        "velocity-weights",
        WEIGHTS,
        "return snr.clamp(max=max_snr) / (snr + 1.0)",
        "the ratio is divided by SNR + 1. That is the weight for networks that predict the velocity.",
    ),
    Mistake(
        "weights-for-one-timestep",
        "abar = schedule.alphas_cumprod[timesteps.cpu()]\n    snr",
        "abar = schedule.alphas_cumprod[timesteps.cpu()][:1].expand(len(timesteps))\n    snr",
        "all samples have the weight of the first one. Each has its own timestep.",
    ),
    Mistake(
        "weights-in-float32",
        "abar = schedule.alphas_cumprod[timesteps.cpu()]\n    snr",
        "abar = schedule.alphas_cumprod[timesteps.cpu()].float()\n    snr",
        "the weights are computed in float32. The schedule's table is float64; keep it until the end.",
    ),
    Mistake(
        "unet-gets-clean-latents",
        "noisy = schedule.add_noise(latents, noise, timesteps)",
        "noisy = latents",
        "the U-Net gets the clean latents. Then there is no noise to be seen, and the loss stays near 1.",
    ),
    Mistake(
        "unet-gets-the-noise",
        "noisy = schedule.add_noise(latents, noise, timesteps)",
        "noisy = noise",
        "the U-Net gets the noise itself. The loss falls at once, since it only has to copy; pictures never come.",
    ),
    Mistake(
        "latents-and-noise-exchanged",
        "noisy = schedule.add_noise(latents, noise, timesteps)",
        "noisy = schedule.add_noise(noise, latents, timesteps)",
        "latents and noise change places in add_noise. The loss falls, but the U-Net learns the schedule "
        "turned around.",
    ),
    Mistake(
        "one-noise-level-for-all",
        "noisy = schedule.add_noise(latents, noise, timesteps)",
        "noisy = schedule.add_noise(latents, noise, timesteps[:1].expand(len(timesteps)))",
        "all samples get the noise level of the first one. The U-Net is told other timesteps than those in its "
        "latents: the loss falls, but it does not learn what a timestep means.",
    ),
    Mistake(
        "timesteps-shifted",
        PREDICTED,
        "predicted = unet(noisy, (timesteps + 1).to(noisy.device), context).to(noise.dtype)",
        "the U-Net is told the next timestep. Noise and timestep have to agree.",
    ),
    Mistake(
        "timesteps-as-fractions",
        PREDICTED,
        "predicted = unet(noisy, timesteps.to(noisy) / schedule.num_train_timesteps, context).to(noise.dtype)",
        "the U-Net is told the timestep as a fraction of 1000. It takes whole numbers from 0 to 999.",
    ),
    Mistake(
        "context-left-out",
        PREDICTED,
        "predicted = unet(noisy, timesteps.to(noisy.device), torch.zeros_like(context)).to(noise.dtype)",
        "the U-Net gets a context of zeros. The loss falls, and the prompt has no say in the pictures.",
    ),
    Mistake(
        "latents-predicted",
        ERRORS,
        "errors = (predicted - latents).square().mean(dim=(1, 2, 3))  # (batch,)",
        "the prediction is compared with the clean latents. The loss falls, but the samplers take the result "
        "for noise.",
    ),
    Mistake(
        "noisy-latents-predicted",
        ERRORS,
        "errors = (predicted - noisy).square().mean(dim=(1, 2, 3))  # (batch,)",
        "the prediction is compared with the U-Net's own input. It only has to copy: the loss falls, "
        "pictures never come.",
    ),
    Mistake(
        "absolute-errors",
        ERRORS,
        "errors = (predicted - noise).abs().mean(dim=(1, 2, 3))  # (batch,)",
        "absolute errors are taken. Their best prediction is a median, not the mean that the samplers need: squares.",
    ),
    Mistake(
        "errors-summed",
        ERRORS,
        "errors = (predicted - noise).square().sum(dim=(1, 2, 3))  # (batch,)",
        "the errors of a sample are summed up. With their mean, a learning rate fits latents of any size.",
    ),
    Mistake(
        "weights-left-out",
        LOSS,
        "    return errors.mean()",
        "the errors are not weighted. The loss falls, and goes mostly into noise that nobody would see.",
    ),
    Mistake(
        "loss-divided-by-the-weights",
        LOSS,
        "    return (weights * errors).sum() / weights.sum()",
        "the loss is divided by the sum of the weights. It is the plain mean over the samples.",
    ),
    Mistake(
        "weights-of-the-batch-averaged",
        LOSS,
        "    return weights.mean() * errors.mean()",
        "weights and errors are averaged separately. Each error has the weight of its own timestep.",
    ),
    Mistake(
        "loss-summed",
        LOSS,
        "    return (weights * errors).sum()",
        "the samples are summed up. It is their mean.",
    ),
    Mistake(
        "max-snr-not-handed-on",
        OF_BATCH,
        "weights = min_snr_weights(schedule, timesteps).to(errors)",
        "max_snr is not handed on to min_snr_weights.",
    ),
    Mistake(
        "noise-rounded-to-the-prediction",
        f"{PREDICTED}\n    {ERRORS}",
        "predicted = unet(noisy, timesteps.to(noisy.device), context)\n"
        "    errors = (predicted - noise.to(predicted.dtype)).square().mean(dim=(1, 2, 3))",
        "the noise is converted to the dtype of the prediction. In half precision, squares and their means "
        "lose digits.",
    ),
    Mistake(
        "loss-without-gradient",
        PREDICTED,
        "predicted = unet(noisy, timesteps.to(noisy.device), context).to(noise.dtype).detach()",
        "the prediction is detached. Then there is nothing to compute gradients of.",
    ),
    Mistake(
        "decay-is-its-complement",
        DECAY,
        "return 1.0 - min((1.0 - 1.0 / step**power) ** (gamma + 1.0), max_decay)",
        "what is returned is the share of the new weights. The decay is what stays of the average: 0 in the "
        "first step.",
    ),
    Mistake(
        "decay-constant",
        DECAY,
        "return max_decay",
        "the decay is constant. The loss falls, but the pictures of the average stay noise for thousands of steps, "
        "because it remembers the random weights of the beginning.",
    ),
    Mistake(
        "decay-counts-from-two",
        DECAY,
        "return min((1.0 - 1.0 / (step + 1) ** power) ** (gamma + 1.0), max_decay)",
        "the steps are counted from 0. The first one is step 1, and its decay is 0.",
    ),
    Mistake(
        "decay-without-limit",
        DECAY,
        "return (1.0 - 1.0 / step**power) ** (gamma + 1.0)",
        "max_decay is not used. The decay would come ever closer to 1, and the average would stand still.",
    ),
    Mistake(
        "decay-gamma-not-plus-one",
        DECAY,
        "return min((1.0 - 1.0 / step**power) ** max(gamma, 1.0), max_decay)",
        "the exponent is gamma. It is gamma + 1.",
    ),
    Mistake(
        "decay-power-outside",
        DECAY,
        "return min((1.0 - 1.0 / step) ** (power * (gamma + 1.0)), max_decay)",
        "the power is taken of the whole bracket. It belongs to the step.",
    ),
    Mistake(
        "decay-power-ignored",
        DECAY,
        "return min((1.0 - 1.0 / step ** (2 / 3)) ** (gamma + 1.0), max_decay)",
        "the power is always 2/3. It is an argument.",
    ),
    Mistake(
        "average-shares-exchanged",
        MOVE,
        "kept.lerp_(new, decay)",
        "the shares are exchanged. The decay is what stays of the average. At the end of a training, when the decay is "
        "nearly 1, the average is then just the last weights.",
    ),
    Mistake(
        "model-moved",
        MOVE,
        "new.lerp_(kept, 1.0 - decay)",
        "the model is moved towards the average. It is the average that follows the model.",
    ),
    Mistake(
        "average-added-up",
        MOVE,
        "kept.add_((1.0 - decay) * new)",
        "the average is not multiplied by the decay. It grows with every step.",
    ),
    Mistake(
        "average-not-changed",
        MOVE,
        "kept = torch.lerp(kept, new, 1.0 - decay)",
        "a new tensor is made, and the average stays as it is. The loss falls, and the pictures of the average "
        "stay noise: change its parameters in place.",
    ),
    Mistake(
        "average-is-a-copy",
        MOVE,
        "kept.copy_(new)",
        "the average becomes a copy of the model. Only a share of 1 - decay comes from it.",
    ),
    Mistake(
        "average-shares-memory",
        MOVE,
        "kept.data = torch.lerp(kept, new, 1.0 - decay) if decay else new.data",
        "the average takes over the model's own tensors when the decay is 0. From then on it is the model.",
    ),
    Mistake(
        "only-matrices-averaged",
        MOVE,
        "kept.ndim > 1 and kept.lerp_(new, 1.0 - decay)",
        "only weights with several dimensions are averaged. Biases and norms belong to the model as well.",
    ),
    Mistake(
        "gradients-not-zeroed",
        STEP,
        step("    optimizer.zero_grad()\n", ""),
        "the gradients are not set to zero. Each step then also goes along the gradients of all steps before it: the "
        "loss falls at first, then it swings ever wider.",
    ),
    Mistake(
        "gradients-zeroed-after-backward",
        STEP,
        step("    optimizer.zero_grad()\n", "").replace("backward()\n", "backward()\n    optimizer.zero_grad()\n"),
        "the gradients are set to zero after backward. The optimiser has nothing to go by, and the weights stay.",
    ),
    Mistake(
        "clipped-after-the-step",
        STEP,
        step(
            "    nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n    optimizer.step()\n",
            "    optimizer.step()\n    nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n",
        ),
        "the gradients are clipped after the weights have changed. That is too late: between backward and step.",
    ),
    Mistake(
        "not-clipped",
        STEP,
        step("    nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n", ""),
        "the gradients are not clipped.",
        like=("clipped-after-the-step",),
    ),
    Mistake(
        "each-gradient-clipped",
        STEP,
        step(
            "nn.utils.clip_grad_norm_(model.parameters(), max_norm)",
            "nn.utils.clip_grad_value_(model.parameters(), max_norm)",
        ),
        "every single number is clipped. That changes the direction: it is the norm of all gradients that is limited.",
    ),
    Mistake(
        "each-parameter-clipped",
        STEP,
        step(
            "    nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n",
            "    for parameter in model.parameters():\n        nn.utils.clip_grad_norm_(parameter, max_norm)\n",
        ),
        "each parameter's gradient is clipped by itself. It is the norm of all gradients together that is limited.",
    ),
    Mistake(
        "always-scaled-to-the-norm",
        STEP,
        step(
            "    nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n",
            "    norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm).clamp(max=max_norm)\n"
            "    for parameter in model.parameters():\n        parameter.grad *= max_norm / norm\n",
        ),
        "all gradients get the norm max_norm. Small ones stay as they are.",
    ),
    Mistake(
        "max-norm-fixed",
        STEP,
        step("max_norm)", "1.0)"),
        "gradients are always clipped to 1. max_norm is an argument.",
    ),
    Mistake(
        "no-optimizer-step",
        STEP,
        step("    optimizer.step()\n", ""),
        "optimizer.step() is missing. The weights stay as they are.",
    ),
    Mistake(
        "average-before-the-step",
        STEP,
        step(
            "    optimizer.step()\n    if average is not None:\n        update_average(average, model, decay)\n",
            "    if average is not None:\n        update_average(average, model, decay)\n    optimizer.step()\n",
        ),
        "the average is updated before the weights are. It is always one step behind.",
    ),
    Mistake(
        "average-forgotten",
        STEP,
        step("    if average is not None:\n        update_average(average, model, decay)\n", ""),
        "the average is not updated. The loss falls, but pictures do not come: they are drawn with the average.",
    ),
    Mistake(
        "decay-not-handed-on",
        STEP,
        step("update_average(average, model, decay)", "update_average(average, model, 0.9999)"),
        "the average is always updated with a decay of 0.9999. The decay is an argument.",
    ),
    Mistake(
        "loss-not-detached",
        STEP,
        step("return loss.detach()", "return loss"),
        "the loss is returned with its graph. Whoever keeps a list of losses keeps the memory of all steps.",
    ),
    Mistake(
        "loss-computed-twice",
        STEP,
        step("return loss.detach()", "return loss_of(model).detach()"),
        "the loss is computed again after the step. The one before the step is wanted, and a second pass "
        "costs as much.",
    ),
]
