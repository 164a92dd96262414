"""Stage 11 against diffusers' KL divergence, signal-to-noise ratios and moving average, and transformers' CLIP loss."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from course.feedback.compare import check, evaluated, rand, randomised
from tests.stages.blocks import check_function
from tests.stages.light import without_compiler
from tests.stages.reference import SMALL_UNET

with without_compiler():
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
    from diffusers.training_utils import EMAModel, compute_snr
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

divergence = pytest.mark.exercise("11.1")
of_the_vae = pytest.mark.exercise("11.1", "11.2")
contrastive = pytest.mark.exercise("11.3")
spreading = pytest.mark.exercise("11.4")
dropping = pytest.mark.exercise("11.5")
weighting = pytest.mark.exercise("11.6")
predicting = pytest.mark.exercise("11.6", "11.7")
decaying = pytest.mark.exercise("11.8")
averaging = pytest.mark.exercise("11.9")
stepping = pytest.mark.exercise("11.9", "11.10")

SINGLE = 1e-5  # the tables of diffusers are float32


# --- the autoencoder -------------------------------------------------------------------------------------------------


@divergence
def test_divergence_of_the_standard_normal_distribution_is_zero(stage):
    check(
        stage, "kl_divergence(moments)", torch.zeros(2, 4, 3, 5, dtype=torch.float64), "kl_divergence(zeros)",
        moments=torch.zeros(2, 8, 3, 5, dtype=torch.float64),
        hint="one number per latent: the first half of the channels holds the means, the second the log variances.",
    )


@divergence
@pytest.mark.parametrize("half", ["means", "log variances"])
def test_divergence_of_one_half_alone(stage, half):
    values = rand(2, 4, 3, 5)
    zeros = torch.zeros_like(values)
    halves = (values, zeros) if half == "means" else (zeros, values)
    wanted = values**2 / 2 if half == "means" else (values.exp() - 1 - values) / 2
    check(
        stage, "kl_divergence(moments)", wanted, f"kl_divergence(moments) where only the {half} are not zero",
        moments=torch.cat(halves, dim=1), hint="exp(logvar) is the variance itself; all of it is halved.",
    )


@divergence
def test_divergence_of_diffusers_and_its_gradient(stage):
    theirs = SimpleNamespace(kl_divergence=lambda moments: DiagonalGaussianDistribution(moments).kl())
    check_function(
        stage, "kl_divergence(moments).sum(dim=(1, 2, 3))",
        SimpleNamespace(kl_divergence=lambda moments: theirs.kl_divergence(moments)[:, None, None, None]),
        gradients=True, moments=rand(3, 8, 5, 4, scale=2.0),
    )


@divergence
def test_divergence_of_extreme_variances(stage):
    moments = torch.tensor([0.0, 0.0, 500.0, -500.0], dtype=torch.float64).reshape(1, 4, 1, 1)
    theirs = DiagonalGaussianDistribution(moments)
    wanted = 0.5 * (theirs.var - 1.0 - theirs.logvar)
    check(
        stage, "kl_divergence(moments)", wanted, "kl_divergence(moments) with log variances of 500 and -500",
        moments=moments, hint="clamp logvar to [-30, 20] before anything else.",
    )


def formula_of_the_vae(outputs, images, moments, l2_weight=1.0, kl_weight=5e-4):
    """The loss written with torch's own functions."""
    dx = F.l1_loss(outputs.diff(dim=-1), images.diff(dim=-1))
    dy = F.l1_loss(outputs.diff(dim=-2), images.diff(dim=-2))
    colours = F.l1_loss(outputs, images) + l2_weight * F.mse_loss(outputs, images)
    shapes = F.l1_loss(F.avg_pool2d(outputs, 4), F.avg_pool2d(images, 4))
    kl = DiagonalGaussianDistribution(moments).kl().sum() / (moments.numel() / 2)
    return colours + dx + dy + 0.5 * shapes + kl_weight * kl


VAE_LOSS = SimpleNamespace(vae_loss=formula_of_the_vae)


def pictures(batch=2, height=8, width=12, seed=0, dtype=torch.float64):
    return rand(batch, 3, height, width, seed=seed, scale=0.5, dtype=dtype)


@of_the_vae
def test_a_picture_given_back_costs_the_divergence_alone(stage):
    images = pictures()
    check_function(
        stage, "vae_loss(outputs, images, moments)", VAE_LOSS, outputs=images.clone(), images=images,
        moments=rand(2, 8, 1, 2), about="with equal pictures",
        hint="kl_weight times the mean of the divergence over all latents.",
    )


@of_the_vae
@pytest.mark.parametrize(
    ("error", "wanted", "hint"),
    [
        ("brighter", 0.5 + 3 * 0.25 + 0.25,
         "a difference of 0.5 everywhere: mean |error|, l2_weight * mean error^2, no edges, half of the coarse one."),
        ("chequered", 1 + 3 * 1 + 2 + 2,
         "errors of +1 and -1, each beside the other: there is none in the averages of 4x4 squares."),
        ("one edge", 0.5 + 3 * 0.5 + 1 / 11 + 0.25 * 4 / 3 * 0.75,
         "columns beyond the middle are off by 1: of 11 differences between columns one is 1; averages 0, 0.5 and 1."),
    ],
    ids=["brighter", "chequered", "one edge"],
)
def test_each_kind_of_error_has_its_price(stage, error, wanted, hint):
    images, (rows, columns) = pictures(), torch.meshgrid(torch.arange(8), torch.arange(12), indexing="ij")
    errors = {
        "brighter": torch.full((8, 12), 0.5), "chequered": 1.0 - 2.0 * ((rows + columns) % 2),
        "one edge": (columns >= 6).double(),
    }
    check(
        stage, "vae_loss(outputs, images, moments, l2_weight=3.0)", torch.tensor(wanted, dtype=torch.float64),
        f"vae_loss(outputs, images, moments, l2_weight=3.0) where the outputs are {error}",
        outputs=images + errors[error], images=images, moments=torch.zeros(2, 8, 1, 2, dtype=torch.float64), hint=hint,
    )


@of_the_vae
@pytest.mark.parametrize("weights", ["", ", 4.0", ", 0.5, 0.25", ", kl_weight=2.0"], ids=lambda text: text or "default")
def test_loss_of_the_vae_and_its_gradients(stage, weights):
    check_function(
        stage, f"vae_loss(outputs, images, moments{weights})[None]",
        SimpleNamespace(vae_loss=lambda *args, **kwargs: formula_of_the_vae(*args, **kwargs)),
        outputs=pictures(height=16), images=pictures(height=16, seed=1), moments=rand(2, 8, 2, 1), gradients=True,
        hint="the weights are arguments; every term is a mean over all of its numbers.",
    )


# --- texts and pictures ----------------------------------------------------------------------------------------------


def formula_of_clip(texts, pictures, scale):
    """transformers' loss of the captions that have a picture, and what more captions add to the pictures' choices."""
    texts, pictures = (x / x.norm(dim=-1, keepdim=True) for x in (texts, pictures))
    scores, count = scale * texts @ pictures.T, len(pictures)
    loss = image_text_contrastive_loss(scores[:count])
    more = scores.T.logsumexp(dim=1) - scores[:count].T.logsumexp(dim=1)
    return loss + 0.5 * more.mean()


CLIP = SimpleNamespace(contrastive_loss=formula_of_clip)


def unit(x):
    return F.normalize(x, dim=-1)


@contrastive
def test_perfect_pairs_cost_next_to_nothing(stage):
    vectors = torch.eye(4, 6, dtype=torch.float64)
    check_function(
        stage, "contrastive_loss(texts, pictures, 10.0)", CLIP, texts=vectors, pictures=vectors.clone(),
        about="where caption i and picture i agree", hint="number i of row i is the right one; scale the scores.",
    )


@contrastive
def test_both_directions_count(stage):
    texts = unit(rand(4, 6))
    pictures = texts[[0, 0, 0, 1]] + 0.1 * rand(4, 6, seed=1)  # three captions find nothing, all pictures a caption
    check_function(
        stage, "contrastive_loss(texts, pictures, 5.0)", CLIP, texts=texts, pictures=unit(pictures),
        about="where pictures are like each other",
        hint="the mean of two cross-entropies: over the rows of the scores, and over their columns.",
    )


@contrastive
def test_the_lengths_of_the_vectors_do_not_matter(stage):
    lengths = torch.tensor([0.1, 1.0, 3.0, 20.0], dtype=torch.float64)[:, None]
    texts, pictures = unit(rand(4, 6)), unit(rand(4, 6, seed=1))
    check(
        stage, "contrastive_loss(texts, pictures, 7.0)", formula_of_clip(texts, pictures, 7.0),
        "contrastive_loss(texts, pictures, 7.0) with vectors of different lengths",
        texts=lengths * texts, pictures=lengths.flip(0) * pictures,
        hint="divide each vector, of both kinds, by its length.",
    )


@contrastive
def test_loss_of_clip_and_its_gradients(stage):
    check_function(
        stage, "contrastive_loss(texts, pictures, scale)[None]",
        SimpleNamespace(contrastive_loss=lambda texts, pictures, scale: formula_of_clip(texts, pictures, scale)),
        texts=rand(5, 8), pictures=rand(5, 8, seed=1), scale=torch.tensor(3.0, dtype=torch.float64), gradients=True,
        hint="the scale is learned too: do not detach it.",
    )


@contrastive
def test_captions_without_a_picture_are_wrong_answers(stage):
    check_function(
        stage, "contrastive_loss(texts, pictures, scale)[None]",
        SimpleNamespace(contrastive_loss=lambda texts, pictures, scale: formula_of_clip(texts, pictures, scale)),
        texts=rand(7, 8), pictures=rand(4, 8, seed=1), scale=torch.tensor(3.0, dtype=torch.float64), gradients=True,
        about="with 7 captions and 4 pictures",
        hint="the first 4 rows choose a picture; each of the 4 columns chooses among all 7 captions.",
    )


# --- what the U-Net is trained on ------------------------------------------------------------------------------------


@spreading
@pytest.mark.parametrize(
    ("uniform", "count", "wanted"),
    [
        ([0.0, 0.0, 0.0, 0.0], 1000, [0, 250, 500, 750]),
        ([0.5, 0.5, 0.5, 0.5], 1000, [125, 375, 625, 875]),
        ([0.999, 0.91, 0.1, 0.998], 1000, [249, 477, 525, 999]),
        ([0.3], 1000, [300]),
        ([0.0, 0.99, 0.5], 90, [0, 59, 75]),
    ],
    ids=["lower ends", "middles", "anywhere", "one", "of a short schedule"],
)
def test_each_sample_has_an_interval_of_its_own(stage, uniform, count, wanted):
    check(
        stage, "spread_timesteps(uniform, count)", torch.tensor(wanted), uniform=torch.tensor(uniform), count=count,
        hint="int64, rounded down: (i + uniform_i) / batch of the way from 0 to num_train_timesteps.",
    )


@spreading
def test_timesteps_are_below_the_number_of_timesteps(stage):
    uniform = torch.full((4096,), 1.0 - 2.0**-24)  # the largest float32 below 1
    check(
        stage, "int(spread_timesteps(uniform).max())", 999, uniform=uniform,
        hint="4095 + 0.99999994 is 4096 in float32: limit the result to num_train_timesteps - 1.",
    )


@spreading
@given(st.integers(1, 40), st.integers(0, 1000))
def test_every_batch_has_all_noise_levels(stage, batch, seed):
    uniform = torch.rand(batch, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    wanted = [int((i + u) / batch * 1000) for i, u in enumerate(uniform.tolist())]
    check(stage, "spread_timesteps(uniform).tolist()", wanted, uniform=uniform)


CAPTIONS = ["a red house", "a blue cat", "a car", "a boat at night"]


@dropping
@pytest.mark.parametrize(
    ("share", "wanted"),
    [
        ("", ["", "a blue cat", "a car", "a boat at night"]),
        (", share=0.25", ["", "a blue cat", "", "a boat at night"]),
        (", share=0.0", CAPTIONS),
        (", share=1.0", [""] * 4),
    ],
    ids=["default", "a quarter", "none", "all"],
)
def test_some_captions_are_empty(stage, share, wanted):
    check(
        stage, f"drop_captions(captions, uniform{share})", wanted, captions=list(CAPTIONS),
        uniform=torch.tensor([0.0, 0.25, 0.2, 0.99]),
        hint="empty where the random number is below the share; 0.25 is not below 0.25.",
    )


@dropping
def test_the_captions_themselves_stay(stage):
    def run(module):
        captions = list(CAPTIONS)
        module.drop_captions(captions, torch.zeros(4))
        return captions

    check(stage, run, CAPTIONS, "the list after drop_captions(captions, uniform)", hint="make a new list.")


BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
SCHEDULE = SimpleNamespace(num_train_timesteps=1000, alphas_cumprod=torch.cumprod(1.0 - BETAS, dim=0))
TIMESTEPS = torch.tensor([999, 0, 40, 300])


def add_noise(original, noise, timesteps):
    abar = SCHEDULE.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
    return (abar.sqrt() * original.double() + (1.0 - abar).sqrt() * noise.double()).to(original.dtype)


SCHEDULE.add_noise = add_noise


def snr_weights(timesteps, max_snr=5.0):
    abar = SCHEDULE.alphas_cumprod[timesteps]
    return (max_snr * (1.0 - abar) / abar).clamp(max=1.0)


@weighting
@pytest.mark.parametrize("more", ["", ", max_snr=1.0", ", 20.0"], ids=lambda text: text or "default")
def test_weights_of_the_timesteps(stage, more):
    max_snr = float(more.rpartition(" ")[2].removeprefix("max_snr=") or 5.0)
    check(
        stage, f"min_snr_weights(schedule, timesteps{more})", snr_weights(TIMESTEPS, max_snr),
        schedule=SCHEDULE, timesteps=TIMESTEPS,
        hint="SNR is abar / (1 - abar); the weight is min(SNR, max_snr) / SNR, which is never above 1.",
    )


@weighting
def test_weights_from_diffusers_ratios(stage):
    timesteps = torch.arange(1000)
    snr = compute_snr(SCHEDULE, timesteps)
    check(
        stage, "min_snr_weights(schedule, timesteps).float()", snr.clamp(max=5.0) / snr,
        schedule=SCHEDULE, timesteps=timesteps, tolerance=SINGLE,
    )


class FakeUNet:
    """Predicts what it is told to, and remembers what it was called with."""

    def __init__(self, predicted):
        self.predicted, self.calls = predicted, []

    def __call__(self, latents, timesteps, context):
        self.calls.append({"latents": latents, "timesteps": timesteps, "context": context})
        return self.predicted


LATENTS, NOISE, CONTEXT = rand(4, 4, 3, 5, scale=2.0), rand(4, 4, 3, 5, seed=1), rand(4, 7, 6, seed=2)
EXAMPLE = {"schedule": SCHEDULE, "latents": LATENTS, "noise": NOISE, "timesteps": TIMESTEPS, "context": CONTEXT}
LOSS = "noise_loss(unet, schedule, latents, noise, timesteps, context)"


def check_loss(stage, predicted, expected, about, call=LOSS, hint="", **changed):
    """`check` of the loss of a U-Net that predicts this."""
    values = EXAMPLE | changed
    check(
        stage, lambda m: evaluated(call, {"unet": FakeUNet(predicted), **values})(m), expected,
        f"{call} {about}", hint=hint, inputs=tensors_of(values),
    )


def tensors_of(values):
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


@predicting
@pytest.mark.parametrize(
    ("what", "wanted", "hint"),
    [
        ("latents", add_noise(LATENTS, NOISE, TIMESTEPS),
         "schedule.add_noise(latents, noise, timesteps): each sample with its own timestep."),
        ("timesteps", TIMESTEPS, "the timesteps at which the noise was added, as they are."),
        ("context", CONTEXT, "the context as it is."),
    ],
    ids=["latents", "timesteps", "context"],
)
def test_what_the_unet_gets(stage, what, wanted, hint):
    def run(module):
        unet = FakeUNet(NOISE)
        evaluated(LOSS, {"unet": unet, **EXAMPLE})(module)
        return [call[what] for call in unet.calls]

    call = f"the {what} that the U-Net is called with in {LOSS}"
    check(stage, run, [wanted], call, hint=hint, inputs=tensors_of(EXAMPLE))


@predicting
def test_the_right_noise_costs_nothing(stage):
    check_loss(
        stage, NOISE.clone(), torch.tensor(0.0, dtype=torch.float64), "where the U-Net predicts the noise",
        hint="the noise is what has to be predicted: not the clean latents, not the noisy ones.",
    )


@predicting
def test_squared_error_where_all_weights_are_one(stage):
    predicted = rand(4, 4, 3, 5, seed=3)
    timesteps = torch.tensor([999, 800, 700, 600])
    check_loss(
        stage, predicted, F.mse_loss(predicted, NOISE), "at timesteps from 600 on, where all weights are 1",
        timesteps=timesteps, hint="the mean of the squared differences over everything: not a sum, no absolute values.",
    )


@predicting
@pytest.mark.parametrize("wrong", range(4))
def test_each_sample_has_its_own_weight(stage, wrong):
    predicted = NOISE.clone()
    predicted[wrong] += 1.0
    check_loss(
        stage, predicted, snr_weights(TIMESTEPS)[wrong] / 4,
        f"where only sample {wrong}, at timestep {int(TIMESTEPS[wrong])}, is off by 1",
        hint="the mean error of each sample, times the weight of its own timestep; then the mean over the samples.",
    )


@predicting
def test_the_largest_ratio_is_handed_on(stage):
    predicted = rand(4, 4, 3, 5, seed=3)
    errors = (predicted - NOISE).square().mean(dim=(1, 2, 3))
    check_loss(
        stage, predicted, (snr_weights(TIMESTEPS, 1.0) * errors).mean(), "",
        call=LOSS.replace(")", ", max_snr=1.0)"), hint="max_snr goes to min_snr_weights.",
    )


@predicting
def test_a_prediction_in_half_precision(stage):
    noise = rand(4, 4, 3, 5, seed=1, dtype=torch.float32)
    predicted = rand(4, 4, 3, 5, seed=3).to(torch.bfloat16)
    errors = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
    wanted = (snr_weights(TIMESTEPS).float() * errors).mean()

    def run(module):
        values = EXAMPLE | {"noise": noise, "latents": LATENTS.float(), "unet": FakeUNet(predicted)}
        return evaluated(LOSS, values)(module)

    check(
        stage, run, wanted, f"{LOSS} in float32, where the U-Net returns bfloat16", tolerance=1e-6,
        hint="convert the prediction to the dtype of the noise, not the other way round; the result is float32.",
    )


@predicting
def test_gradients_of_a_whole_unet(stage, blocks):
    unet = randomised(blocks[7].UNet(SMALL_UNET))
    latents, noise, context = rand(3, 4, 8, 16), rand(3, 4, 8, 16, seed=1), rand(3, 5, 20, seed=2)
    timesteps = torch.tensor([20, 500, 900])

    def gradients(loss):
        unet.zero_grad()
        loss.backward()
        found = {f"the gradient of {name}": weight.grad.clone() for name, weight in unet.named_parameters()}
        return {"the loss": loss.detach()} | found

    def run(module):
        return gradients(module.noise_loss(unet, blocks[8].NoiseSchedule(), latents, noise, timesteps, context))

    errors = F.mse_loss(unet(add_noise(latents, noise, timesteps), timesteps, context), noise, reduction="none")
    wanted = gradients((errors.mean(dim=(1, 2, 3)) * snr_weights(timesteps)).mean())
    check(stage, run, wanted, "noise_loss(unet, ...) and its gradients, of a small U-Net", tolerance=1e-9)


# --- averaged weights ------------------------------------------------------------------------------------------------

STEPS = (1, 2, 3, 10, 100, 5000, 10**6, 10**8)


def decays(module, **options):
    return torch.tensor([module.ema_decay(step, **options) for step in STEPS], dtype=torch.float64)


@decaying
@pytest.mark.parametrize(
    "options", [{}, {"power": 0.75}, {"power": 1.0}, {"max_decay": 0.99}, {"power": 1.0, "max_decay": 1.0}], ids=str
)
def test_decay_of_diffusers(stage, options):
    theirs = {"decay": options.get("max_decay", 0.9999), "power": options.get("power", 2 / 3)}
    average = EMAModel([], use_ema_warmup=True, **theirs)
    check(
        stage, lambda m: decays(m, **options), torch.tensor([average.get_decay(s) for s in STEPS], dtype=torch.float64),
        f"ema_decay(step{''.join(f', {k}={v}' for k, v in options.items())}) for step in {STEPS}",
        hint="0 in the first step, which is step 1; never above max_decay.",
    )


@decaying
@pytest.mark.parametrize("gamma", [0.5, 16.0])
def test_decay_of_karras(stage, gamma):
    wanted = torch.tensor([(1.0 - 1.0 / step) ** (gamma + 1.0) for step in STEPS], dtype=torch.float64)
    check(
        stage, lambda m: decays(m, power=1.0, gamma=gamma, max_decay=1.0), wanted,
        f"ema_decay(step, power=1.0, gamma={gamma}, max_decay=1.0) for step in {STEPS}",
        hint="the exponent is gamma + 1, of the whole bracket.",
    )


def two_models():
    """A small model in float64, and another one of the same shape."""
    return randomised(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), 1), randomised(
        nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), 2
    )


def weights_of(model, name="the average's"):
    return {f"{name} {key}": parameter.detach().clone() for key, parameter in model.named_parameters()}


@averaging
@pytest.mark.parametrize("decay", [0.0, 0.25, 0.9, 1.0])
def test_average_moves_towards_the_model(stage, decay):
    average, model = two_models()
    wanted = {
        f"the average's {name}": decay * old.detach() + (1.0 - decay) * new.detach()
        for (name, old), new in zip(average.named_parameters(), model.parameters())
    }

    def run(module):
        own = copy.deepcopy(average)
        module.update_average(own, copy.deepcopy(model), decay)
        return weights_of(own)

    check(
        stage, run, wanted, f"the average after update_average(average, model, {decay})",
        hint="in place, every parameter: decay is the share of the average that stays.",
    )


@averaging
def test_the_model_stays_as_it_is(stage):
    def run(module):
        average, model = two_models()
        module.update_average(average, model, 0.25)
        return weights_of(model, "the model's")

    wanted = weights_of(two_models()[1], "the model's")
    check(stage, run, wanted, "the model after update_average(average, model, 0.25)")


@averaging
def test_the_average_does_not_follow_a_later_change_by_itself(stage):
    def run(module):
        average, model = two_models()
        module.update_average(average, model, 0.0)
        for parameter in model.parameters():
            parameter.detach().add_(1.0)
        return weights_of(average)

    check(
        stage, run, weights_of(two_models()[1]), "the average, when the model changes after update_average",
        hint="copy numbers, not the tensors themselves: the average must not share its memory with the model.",
    )


@pytest.mark.exercise("11.8", "11.9")
def test_average_of_diffusers_over_ten_steps(stage):
    def run(module):
        average, model = two_models()
        for step in range(1, 11):
            for parameter in model.parameters():
                parameter.detach().add_(0.1 * step)
            module.update_average(average, model, module.ema_decay(step))
        return weights_of(average)

    average, model = two_models()
    theirs = EMAModel(average.parameters(), use_ema_warmup=True)
    for step in range(1, 11):
        for parameter in model.parameters():
            parameter.detach().add_(0.1 * step)
        theirs.step(model.parameters())
    theirs.copy_to(average.parameters())
    check(stage, run, weights_of(average), "the average after ten steps with ema_decay(step)")


# --- one step --------------------------------------------------------------------------------------------------------

INPUTS, TARGETS = rand(6, 3, seed=3), rand(6, 2, seed=4)


def loss_of(model):
    return F.mse_loss(model(INPUTS), TARGETS)


def optimizer_of(model):
    return torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)


def steps(step, count=1, make_optimizer=optimizer_of, loss=loss_of, stale=False, averaged=False, **options):
    """What a few steps give: the weights, those of the average, and the losses."""
    average, model = two_models()
    optimizer = make_optimizer(model)
    if stale:
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
    if averaged or "decay" in options:
        options["average"] = average
    losses = [step(model, optimizer, loss, **options) for _ in range(count)]
    return {
        **{f"loss {i + 1}": value for i, value in enumerate(losses)},
        **weights_of(model, "the model's"), **weights_of(average),
    }


def step_of_torch(model, optimizer, loss_of, max_norm=1.0, average=None, decay=0.0):
    """The same, with the gradients taken by torch.autograd.grad and clipped by hand."""
    parameters = list(model.parameters())
    loss = loss_of(model)
    gradients = torch.autograd.grad(loss, parameters)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient * min(1.0, float(max_norm / (norm + 1e-6)))
    optimizer.step()
    for kept, new in zip(average.parameters() if average else (), parameters):
        kept.detach().copy_(decay * kept.detach() + (1.0 - decay) * new.detach())
    return loss.detach()


def check_steps(stage, about, hint="", count=1, **options):
    call = f"training_step(model, optimizer, loss_of{'' if 'max_norm' not in options else ', max_norm=...'})"
    check(
        stage, lambda m: steps(m.training_step, count, **options), steps(step_of_torch, count, **options),
        f"{call} {about}", hint=hint,
    )


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.5)


@stepping
def test_one_step_down_the_gradient(stage):
    check_steps(
        stage, "with SGD and no clipping", make_optimizer=sgd, max_norm=1e9,
        hint="loss_of(model), backward, optimizer.step(); return the loss, detached.",
    )


@stepping
def test_gradients_from_before_do_not_count(stage):
    check_steps(
        stage, "where the parameters have gradients from before", make_optimizer=sgd, max_norm=1e9, stale=True,
        hint="backward adds to the gradients that are there: set them to zero first.",
    )


@stepping
@pytest.mark.parametrize("max_norm", [0.1, 1.0])
def test_large_gradients_are_clipped(stage, max_norm):
    check_steps(
        stage, f"with max_norm={max_norm} and a loss a hundred times as large", make_optimizer=sgd, max_norm=max_norm,
        loss=lambda model: 100.0 * loss_of(model),
        hint="clip the norm of all gradients together to max_norm, between backward and optimizer.step().",
    )


@stepping
def test_the_default_clips_at_one(stage):
    check_steps(
        stage, "with a loss a hundred times as large", make_optimizer=sgd, loss=lambda model: 100.0 * loss_of(model),
        hint="max_norm is 1 by default.",
    )


@stepping
def test_small_gradients_stay_as_they_are(stage):
    check_steps(
        stage, "with a loss a hundredth as large", make_optimizer=sgd, loss=lambda model: 0.01 * loss_of(model),
        hint="clipping makes gradients smaller, never larger.",
    )


@stepping
def test_the_loss_is_detached_and_asked_for_once(stage):
    def run(module):
        calls = []

        def counted(model):
            calls.append(1)
            return loss_of(model)

        model = two_models()[1]
        loss = module.training_step(model, optimizer_of(model), counted)
        return {"calls of loss_of": len(calls), "it remembers how it was computed": loss.requires_grad}

    check(
        stage, run, {"calls of loss_of": 1, "it remembers how it was computed": False},
        "the loss that training_step returns", hint="return loss.detach(): else its whole graph is kept.",
    )


@stepping
def test_the_average_gets_the_new_weights(stage):
    check_steps(
        stage, "with average=average, decay=0.75", decay=0.75,
        hint="update_average comes after optimizer.step(), with the decay that is given.",
    )


@stepping
def test_without_a_decay_the_average_becomes_the_model(stage):
    check_steps(
        stage, "with average=average and no decay", averaged=True, hint="the signature says which decay that is: 0.0.",
    )


@stepping
def test_several_steps(stage):
    check_steps(stage, "five times, with AdamW and an average", count=5, decay=0.5)


FEWER = {"blocks_per_level": 1, "num_heads": 2, "context_channels": 6, "num_groups": 4}


@pytest.mark.exercise("11.7", "11.10")
def test_one_batch_is_learned_by_heart(stage, blocks):
    """Whatever is wrong with a training, it shows here first: the same few samples again and again."""
    torch.manual_seed(0)
    unet = blocks[7].UNet(blocks[7].UNetConfig(channels=(8, 12), attention=(True, False), **FEWER))
    start = copy.deepcopy(unet.state_dict())
    latents, noise = (rand(2, 4, 8, 8, seed=seed, dtype=torch.float32) for seed in (0, 1))
    context = rand(2, 5, 6, seed=2, dtype=torch.float32)

    def run(module):
        unet.load_state_dict(start)
        optimizer, schedule = torch.optim.AdamW(unet.parameters(), lr=1e-2), blocks[8].NoiseSchedule()
        timesteps = torch.tensor([300, 700])

        def loss_of(model):
            return module.noise_loss(model, schedule, latents, noise, timesteps, context)

        losses = [float(module.training_step(unet, optimizer, loss_of)) for _ in range(30)]
        return losses[-1] < 0.5 * losses[0]

    check(
        stage, run, True, "whether 30 steps on one batch halve its loss",
        hint="are the gradients set to zero, computed and used in every step, in this order?",
    )
