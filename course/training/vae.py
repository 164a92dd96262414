"""Training of the VAE: pictures in, the same pictures out, through latents of an eighth of the width and height.

The loss asks for the right colours (L1 and L2), for the right edges (L1 between the gradients, which is what keeps
outlines crisp), for the right shapes (L1 at a quarter of the size), and with a light hand for latents that look like
standard normal noise (the KL divergence). Afterwards the decoder alone is trained further: latents stay what they are,
so that this can be done, or done again, at any time, even when a U-Net has been trained on them.

Sources: Kingma and Welling, 2013, arXiv:1312.6114, appendix B (the KL term); Rombach et al., 2022, arXiv:2112.10752,
appendix G (a KL weight far below 1, latents rescaled afterwards). There is no adversarial loss here: flat drawings have
no texture to invent.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from course.core.config import VAEConfig
from course.core.writing import whole_file
from course.training.data import Pictures
from course.training.loop import load_weights, memory_format, save_weights
from solutions.stage05_vae import VAE, images_to_tensor, sample_latents, tensor_to_images

KL_WEIGHT = 5e-4
CROP = 64  # pixels; the VAE is convolutional, so crops teach nearly the same for a quarter of the price


class Autoencoder(nn.Module):
    """Encoder, a sample of the latents, decoder."""

    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 3, H, W), (batch, latent channels, H / 8, W / 8) -> reconstructions, moments."""
        moments = self.vae.quant_conv(self.vae.encoder(images))
        latents = sample_latents(moments, noise)
        return self.vae.decoder(self.vae.post_quant_conv(latents)), moments


def gradient_l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference between the horizontal and vertical pixel-to-pixel changes of a and b."""
    difference = a - b
    horizontal = (difference[..., :, 1:] - difference[..., :, :-1]).abs().mean()
    vertical = (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
    return horizontal + vertical


def kl_divergence(moments: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)), averaged over all latents: (mean^2 + var - 1 - logvar) / 2."""
    mean, logvar = moments.float().chunk(2, dim=1)
    logvar = logvar.clamp(-30.0, 20.0)
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()


def reconstruction_loss(outputs: Tensor, images: Tensor, l2_weight: float = 1.0) -> Tensor:
    """L1 + weighted L2 + gradient L1 + half an L1 at a quarter of the size."""
    fine = F.l1_loss(outputs, images) + gradient_l1(outputs, images)
    coarse = F.l1_loss(F.avg_pool2d(outputs, 4), F.avg_pool2d(images, 4))
    return fine + 0.5 * coarse + l2_weight * F.mse_loss(outputs, images)


def detailed_crop(image: np.ndarray, rng: np.random.Generator, candidates: int = 3) -> np.ndarray:
    """The one of a few random crops in which most happens: (size, size, 3) -> (CROP, CROP, 3)."""
    best, most = image[:CROP, :CROP], -1.0
    for top, left in rng.integers(0, image.shape[0] - CROP + 1, size=(candidates, 2)):
        crop = image[top : top + CROP, left : left + CROP]
        detail = float(np.abs(np.diff(crop[::2, ::2].astype(np.int16), axis=0)).mean())
        if detail > most:
            best, most = crop, detail
    return best


class VAEPart:
    """The VAE in training."""

    name = "vae"
    learning_rate = 1.5e-3
    betas = (0.9, 0.99)
    warmup = 100
    crop_share = 0.6  # of the training; the rest sees whole pictures
    l2_weight = 4.0

    def __init__(self, config: VAEConfig, pictures: Pictures, device: torch.device, batch: int | None = None):
        self.config = config
        self.pictures = pictures
        self.device = device
        self.batch = batch or (8 if device.type == "cpu" else 64)
        self.model = Autoencoder(VAE(config)).to(memory_format=memory_format(device))

    def batch_of_pictures(self, progress: float, rng: np.random.Generator) -> Tensor:
        """(batch, 3, CROP, CROP) for most of the training, then (batch / 2, 3, size, size); in [-1, 1]."""
        images = self.pictures.images
        crops = progress < self.crop_share and images.shape[1] > CROP
        count = self.batch if crops else max(self.batch // 2, 1)
        chosen = [images[i] for i in self.pictures.num_checked + rng.integers(0, self.pictures.num_trained, size=count)]
        if crops:
            chosen = [detailed_crop(image, rng) for image in chosen]
        images = images_to_tensor(torch.from_numpy(np.stack(chosen)))
        return images.contiguous(memory_format=memory_format(self.device))

    def loss(self, model: nn.Module, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        rng = np.random.default_rng(generator.initial_seed())
        images = self.batch_of_pictures(progress, rng)
        batch, _, height, width = images.shape
        factor = self.config.factor
        noise = torch.randn(batch, self.config.latent_channels, height // factor, width // factor, generator=generator)
        images, noise = images.to(self.device), noise.to(self.device)
        outputs, moments = model(images, noise)
        reconstruction = reconstruction_loss(outputs.float(), images, self.l2_weight)
        kl = kl_divergence(moments)
        return reconstruction + KL_WEIGHT * kl, {"loss": reconstruction.detach(), "kl": kl.detach()}

    def after_step(self, step: int) -> None:
        pass

    def extra_state(self) -> dict[str, Tensor]:
        return {}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        pass

    def checked_pictures(self, count: int) -> Tensor:
        """Pictures that are not trained on: (count, 3, size, size) in [-1, 1]."""
        chosen = np.array(self.pictures.images[:count])
        return images_to_tensor(torch.from_numpy(chosen)).to(self.device)

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """Peak signal-to-noise ratio (dB, of the whole set) with mean latents, and the spread of sampled latents."""
        images = self.checked_pictures(self.pictures.num_checked)
        squares, latents = [], []
        generator = torch.Generator().manual_seed(0)
        vae = self.model.vae
        for some in images.split(16):
            moments = vae.quant_conv(vae.encoder(some))
            mean, _ = moments.chunk(2, dim=1)
            outputs = vae.decoder(vae.post_quant_conv(mean)).clamp(-1.0, 1.0)
            squares.append(((outputs - some) / 2.0).square().mean(dim=(1, 2, 3)))
            latents.append(sample_latents(moments, torch.randn(mean.shape, generator=generator).to(self.device)))
        psnr = -10.0 * torch.log10(torch.cat(squares).mean())
        return {"psnr": float(psnr), "latent_std": float(torch.cat(latents).std())}

    def write(self, out: Path) -> None:
        save_weights(out / "vae.safetensors", self.model.vae.state_dict())
        with whole_file(out / "vae.json") as temporary:
            temporary.write_text(json.dumps(self.check()), encoding="utf-8")

    def read(self, out: Path) -> None:
        self.model.vae.load_state_dict(load_weights(out / "vae.safetensors", made_by=self.name))

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Pictures above their reconstructions."""
        images = self.checked_pictures(min(8, self.pictures.num_checked))
        vae = self.model.vae
        mean, _ = vae.quant_conv(vae.encoder(images)).chunk(2, dim=1)
        outputs = vae.decoder(vae.post_quant_conv(mean))
        rows = [torch.cat(list(tensor_to_images(some).cpu()), dim=1) for some in (images, outputs)]
        return Image.fromarray(torch.cat(rows, dim=0).numpy())


class DecoderPart(VAEPart):
    """The decoder alone, in training behind the encoder as it is."""

    name = "decoder"
    learning_rate = 1e-3
    crop_share = 0.5

    def __init__(
        self, config: VAEConfig, pictures: Pictures, out: Path, device: torch.device, batch: int | None = None
    ):
        super().__init__(config, pictures, device, batch)
        vae = self.model.vae
        vae.load_state_dict(load_weights(out / "vae.safetensors", made_by="vae"))
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)


def load_vae(config: VAEConfig, out: Path) -> VAE:
    """The trained VAE, in evaluation mode."""
    vae = VAE(config)
    vae.load_state_dict(load_weights(out / "vae.safetensors", made_by="vae"))
    return vae.eval().requires_grad_(False)


def scaling_factor(out: Path) -> float:
    """One over the spread of the trained VAE's latents: what makes their variance one."""
    return 1.0 / json.loads((out / "vae.json").read_text(encoding="utf-8"))["latent_std"]
