"""Stage 11, encore: training, which is how all those weights came about.

The three models are trained one after the other, each with a loss of its own; the later ones are trained on what the
earlier ones give. The VAE has to give back the pictures that it is shown, through latents that stay close to a standard
normal distribution. The text encoder is trained together with a picture encoder (which drawing does not need): among
many pictures, a caption has to find its own. The U-Net gets latents with noise in them, their timestep and their
caption, and has to say what the noise is. That is all: no step of sampling is taken while it learns.

Two things make the training of the U-Net steadier: every batch holds all levels of noise, from hardly any to nearly
nothing else; and the loss is weighted, so that timesteps with hardly any noise, at which the picture is right anyway,
count less. For some of the pictures the caption is left out, so that the U-Net also learns what pictures look like in
general: without that, guidance (stage 9) would have nothing to compare with.

Pictures are drawn with averaged weights. Every step moves the weights by what a few pictures ask for, so they sway; the
average of many steps sways less.

A mistake in training seldom raises an error. The loss mostly falls all the same, and only the pictures show it.

Sources: Kingma and Welling, "Auto-Encoding Variational Bayes", 2013, arXiv:1312.6114, appendix B (the KL divergence);
Rombach et al., 2022, arXiv:2112.10752, appendix G (the VAE's loss); Radford et al., 2021, arXiv:2103.00020, section 2.3
and figure 3 (the contrastive loss); Ho et al., 2020, arXiv:2006.11239, algorithm 1 and equation 14 (predict the noise);
Kingma et al., "Variational Diffusion Models", 2021, arXiv:2107.00630 (timesteps that are spread evenly); Hang et al.,
"Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023, arXiv:2303.09556, section 3.4 (the weights); Ho and
Salimans, 2022, arXiv:2207.12598, algorithm 1 (dropped captions); Karras et al., "Analyzing and Improving the Training
Dynamics of Diffusion Models", 2024, arXiv:2312.02696, section 3.1 (the averaging of weights); Pascanu et al., "On the
difficulty of training recurrent neural networks", 2013, arXiv:1211.5063, algorithm 1 (clipping).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .stage07_unet import UNet
from .stage08_scheduler import NoiseSchedule


def kl_divergence(moments: Tensor) -> Tensor:
    """Exercise 11.1: how far each latent's normal distribution is from the standard normal one.

        mean, logvar = the first and the second half of the channels of moments
        KL = (mean^2 + exp(logvar) - 1 - logvar) / 2

    It is zero for mean 0 and variance 1, and larger everywhere else. As in sample_latents (stage 5), logvar is clamped
    to [-30, 20] first.

    Args:
        moments: (batch, 2 * latent_channels, height, width), what the encoder and quant_conv return.

    Returns:
        (batch, latent_channels, height, width): one number per latent, not their mean.
    """
    raise NotImplementedError(
        "exercise 11.1: how far each latent's normal distribution is from the standard normal one"
    )


def neighbour_differences(images: Tensor) -> tuple[Tensor, Tensor]:
    """Given: how much each pixel differs from the one to its left, and from the one above it.

    Args:
        images: (batch, channels, height, width).

    Returns:
        (batch, channels, height, width - 1) and (batch, channels, height - 1, width).
    """
    return images[..., :, 1:] - images[..., :, :-1], images[..., 1:, :] - images[..., :-1, :]


def vae_loss(
    outputs: Tensor, images: Tensor, moments: Tensor, l2_weight: float = 1.0, kl_weight: float = 5e-4
) -> Tensor:
    """Exercise 11.2: give the picture back, through latents that look like standard normal noise.

        error = outputs - images
        dx, dy = neighbour_differences(error)
        loss = mean(|error|) + l2_weight * mean(error^2)         the right colours
             + mean(|dx|) + mean(|dy|)                           the right edges
             + mean(|error, averaged over squares of 4x4|) / 2   the right shapes
             + kl_weight * mean(kl_divergence(moments))

    Squares alone would forgive a little blur everywhere; absolute values and edges do not. The KL term has a weight far
    below 1: it only keeps the latents from growing and from drifting apart. With a large one the encoder would say less
    about the picture, and the decoder would blur. (Stable Diffusion's own VAE has a loss by a second network and one by
    an adversary in place of the terms for edges and shapes.)

    Args:
        outputs: (batch, 3, height, width), what the decoder made of the latents.
        images: the same shape, the pictures that went in, in [-1, 1]; height and width are multiples of 4.
        moments: (batch, 2 * latent_channels, height / 8, width / 8).
        l2_weight, kl_weight: as in the formula.

    Returns:
        A single number, as a tensor without dimensions.
    """
    raise NotImplementedError(
        "exercise 11.2: give the picture back, through latents that look like standard normal noise"
    )


def contrastive_loss(texts: Tensor, pictures: Tensor, scale: float | Tensor) -> Tensor:
    """Exercise 11.3: each caption has to find its picture in the batch, and each picture its caption.

    Divide every vector by its length. The score of a caption and a picture is then the cosine of the angle between
    them, times `scale`, which is one over a temperature:

        scores = scale * texts @ pictures^T              a row for each caption, a column for each picture

    Row i is a choice between N pictures of which number i is right, column i one between the captions. The loss is
    the mean of two cross-entropies: of the first N rows, and of the columns (torch's cross_entropy takes the mean over
    the choices of the logarithm of one over the softmax's probability of the right one).

    Args:
        texts: (M, width), the captions' vectors; row i belongs to picture i. Rows after the first N are captions that
            belong to no picture: no row's choice is about them, but every column may choose them by mistake.
        pictures: (N, width), N at most M.
        scale: a positive number, or a tensor that is learned.

    Returns:
        A single number, as a tensor without dimensions.
    """
    raise NotImplementedError(
        "exercise 11.3: each caption has to find its picture in the batch, and each picture its caption"
    )


def spread_timesteps(uniform: Tensor, num_train_timesteps: int = 1000) -> Tensor:
    """Exercise 11.4: random timesteps, one for each sample, of which every batch has all noise levels.

    The timesteps 0 ... 999 are cut into as many equal intervals as there are samples, and sample i gets a random one of
    interval i:

        t_i = (i + uniform_i) / batch * num_train_timesteps, rounded down

    Timesteps that are drawn independently would be right on average as well, but a batch would now and then have hardly
    any noise, and then the loss says more about the timesteps than about the U-Net. In float32, i + uniform_i can be
    rounded up to i + 1; so that it is still a timestep, no result is above num_train_timesteps - 1.

    Args:
        uniform: (batch,), random numbers from 0 to 1, 1 excluded.
        num_train_timesteps: how many timesteps there are.

    Returns:
        (batch,), int64, rising.
    """
    raise NotImplementedError(
        "exercise 11.4: random timesteps, one for each sample, of which every batch has all noise levels"
    )


def drop_captions(captions: Sequence[str], uniform: Tensor, share: float = 0.1) -> list[str]:
    """Exercise 11.5: captions of which a random share is empty.

    Caption i is replaced by "", the empty prompt, where uniform_i is below the share.

    Args:
        captions: one per picture.
        uniform: (batch,), random numbers from 0 to 1, 1 excluded.
        share: of the captions that are dropped: 0 none, 1 all.

    Returns:
        As many captions, in the same order.
    """
    raise NotImplementedError("exercise 11.5: captions of which a random share is empty")


def min_snr_weights(schedule: NoiseSchedule, timesteps: Tensor, max_snr: float = 5.0) -> Tensor:
    """Exercise 11.6: how much the error at each timestep counts.

    The signal-to-noise ratio is the picture's variance over that of the noise:

        SNR_t    = abar_t / (1 - abar_t)
        weight_t = min(SNR_t, max_snr) / SNR_t

    An error of the noise by e is an error of the guessed picture by e / sqrt(SNR). So at a high ratio (a low timestep)
    the picture is nearly right whatever the U-Net says, and its error there should not count in full. The weight is 1
    from the timestep on at which the ratio falls below max_snr.

    Args:
        schedule: its alphas_cumprod is used, a table in float64 on the CPU.
        timesteps: (batch,), int64, on any device.
        max_snr: the paper's gamma.

    Returns:
        (batch,), float64, on the CPU, above 0 and at most 1.
    """
    raise NotImplementedError("exercise 11.6: how much the error at each timestep counts")


def noise_loss(
    unet: UNet,
    schedule: NoiseSchedule,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    context: Tensor,
    max_snr: float = 5.0,
) -> Tensor:
    """Exercise 11.7: how well the U-Net sees the noise in noisy latents.

        predicted = unet(add_noise(latents, noise, timesteps), timesteps, context)
        error_i   = mean over channels and positions of (predicted_i - noise_i)^2          for each sample
        loss      = mean of weight_i * error_i                    with the min_snr_weights of the timesteps

    The U-Net may return another dtype than it is given, as it does where it computes in half precision: convert its
    prediction to the dtype of the noise before you compare.

    Args:
        unet: called with noisy latents, timesteps on their device, and context.
        schedule: adds the noise (schedule.add_noise), and gives the weights.
        latents: (batch, channels, height, width), clean.
        noise: the same shape, standard normal.
        timesteps: (batch,), int64, on any device.
        context: (batch, tokens, width).
        max_snr: as for min_snr_weights.

    Returns:
        A single number, as a tensor without dimensions.
    """
    raise NotImplementedError("exercise 11.7: how well the U-Net sees the noise in noisy latents")


def ema_decay(step: int, power: float = 2 / 3, gamma: float = 0.0, max_decay: float = 0.9999) -> float:
    """Exercise 11.8: how much of the average stays in each step: little at first, nearly all later.

        decay = min((1 - 1 / step^power)^(gamma + 1), max_decay)

    With a constant decay, the average would remember the random weights of the beginning for thousands of steps. This
    one is 0 in the first step. With power 1 and gamma 0, until max_decay is reached, the average is the plain mean of
    the weights after all steps so far. A power below 1 forgets the older ones. So does a gamma above 0, but in
    proportion to how long the training is: with power 1, the share of the weights after step s grows about as s^gamma.

    Args:
        step: 1 for the first.
        power, gamma: the shape of the warm-up. diffusers has a power only; Karras et al. have a gamma only.
        max_decay: the decay that it ends with.

    Returns:
        A number from 0 to max_decay.
    """
    raise NotImplementedError("exercise 11.8: how much of the average stays in each step")


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Exercise 11.9: move every averaged parameter a little towards the model's.

        average = decay * average + (1 - decay) * model

    Args:
        average: a copy of the model; its parameters are changed in place.
        model: the model in training; it stays as it is.
        decay: how much of the average stays.
    """
    raise NotImplementedError("exercise 11.9: move every averaged parameter a little towards the model's")


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[nn.Module], Tensor],
    max_norm: float = 1.0,
    average: nn.Module | None = None,
    decay: float = 0.0,
) -> Tensor:
    """Exercise 11.10: one step of training.

    1. Set the gradients to zero (optimizer.zero_grad): backward adds to what is there.
    2. Compute the loss: loss_of(model).
    3. Compute the gradients: loss.backward().
    4. Clip them: if the norm of all gradients together is above max_norm, multiply them by what makes it max_norm
       (torch.nn.utils.clip_grad_norm_ does this). A single strange batch then cannot throw the weights far off.
    5. Change the weights: optimizer.step().
    6. Update the average with the new weights, if there is one: update_average.

    Args:
        model: in training; its parameters are changed.
        optimizer: of the model's parameters.
        loss_of: takes the model and returns the loss of a batch, a tensor without dimensions.
        max_norm: the largest norm of the gradients.
        average: the model's average, or None.
        decay: for update_average.

    Returns:
        The loss, detached, as it was before the weights changed.
    """
    raise NotImplementedError("exercise 11.10: one step of training")
