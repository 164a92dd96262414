"""Training of the VAE: pictures in, the same pictures out, through latents of an eighth of the width and height.

Stage 11 has the loss. There is no adversarial one: flat drawings have no texture to invent. Afterwards the decoder
alone is trained further: latents stay what they are, so that this can be done, or done again, at any time, even when a
U-Net has been trained on them.
"""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from course.core.config import VAEConfig
from course.core.weights import fill
from course.core.writing import whole_file
from course.training.data import Pictures
from course.training.loop import advice, generator_on, load_json, memory_format, save_weights
from solutions import stage11_training
from solutions.stage05_vae import VAE, images_to_tensor, sample_latents, tensor_to_images

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


def detailed_crops(images: Tensor, generator: torch.Generator, candidates: int = 3) -> Tensor:
    """Of each picture, the one of a few random crops in which most happens.

    (N, size, size, 3) -> (N, CROP, CROP, 3).
    """
    count, size = images.shape[:2]
    corners = torch.randint(size - CROP + 1, (2, candidates, count, 1), generator=generator)
    rows, columns = (corners + torch.arange(CROP)).to(images.device)  # (candidates, N, CROP) each
    each = torch.arange(count, device=images.device)
    crops = images[each[:, None, None], rows[..., :, None], columns[..., None, :]]
    changes = crops[:, :, ::2, ::2].float().diff(dim=2).abs().mean(dim=(2, 3, 4))  # (candidates, N)
    return crops[changes.argmax(dim=0), each]


class VAEPart:
    """The VAE in training."""

    name = "vae"
    learning_rate = 1.5e-3
    betas = (0.9, 0.99)
    warmup = 100
    average = None
    crop_share = 0.6  # of the training; the rest sees whole pictures
    l2_weight = 4.0

    def __init__(
        self,
        config: VAEConfig,
        pictures: Pictures,
        device: torch.device,
        batch: int | None = None,
        training: ModuleType = stage11_training,
    ):
        self.training = training
        self.config = config
        self.pictures = pictures
        self.device = device
        self.batch = batch or (8 if device.type == "cpu" else 64)
        self.model = Autoencoder(VAE(config)).to(memory_format=memory_format(device))

    def batch_of_pictures(self, progress: float, generator: torch.Generator) -> Tensor:
        """(batch, 3, CROP, CROP) for most of the training, then (batch / 2, 3, size, size); in [-1, 1]."""
        pictures = self.pictures
        crops = progress < self.crop_share and pictures.images.shape[1] > CROP
        count = self.batch if crops else max(self.batch // 2, 1)
        chosen = pictures.num_checked + torch.randint(pictures.num_trained, (count,), generator=generator)
        images = torch.from_numpy(pictures.images[chosen.numpy()]).to(self.device)
        if crops:
            images = detailed_crops(images, generator)
        return images_to_tensor(images).contiguous(memory_format=memory_format(self.device))

    def loss(self, model: nn.Module, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        images = self.batch_of_pictures(progress, generator)
        batch, _, height, width = images.shape
        shape = (batch, self.config.latent_channels, height // self.config.factor, width // self.config.factor)
        generator = generator_on(self.device, generator)
        noise = torch.randn(shape, generator=generator, device=generator.device).to(self.device)
        outputs, moments = model(images, noise)
        moments = moments.float()
        loss = self.training.vae_loss(outputs.float(), images, moments, self.l2_weight)
        return loss, {"kl": stage11_training.kl_divergence(moments.detach()).mean()}

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
        fill(self.model.vae, out / "vae.safetensors", advice(self.name))

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
    """The decoder alone, in training behind the encoder as it is, on whole pictures.

    On crops the decoder of the small model's fifth version fell from 29.5 dB to 28.4 within 12 minutes; 13 minutes of
    whole pictures brought it back to 29.5, and 16 more to 29.7.
    """

    name = "decoder"
    learning_rate = 1e-3
    crop_share = 0.0

    def __init__(
        self,
        config: VAEConfig,
        pictures: Pictures,
        out: Path,
        device: torch.device,
        batch: int | None = None,
        training: ModuleType = stage11_training,
    ):
        super().__init__(config, pictures, device, batch, training)
        vae = self.model.vae
        fill(vae, out / "vae.safetensors", advice("vae"))
        self.latent_std = 1.0 / scaling_factor(out)
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)

    def check(self) -> dict[str, float]:
        """The ratio of now, and the spread as it is: a U-Net may be trained on latents that were divided by it."""
        return super().check() | {"latent_std": self.latent_std}


def load_vae(config: VAEConfig, out: Path) -> VAE:
    """The trained VAE, in evaluation mode."""
    vae = VAE(config)
    fill(vae, out / "vae.safetensors", advice("vae"))
    return vae.eval().requires_grad_(False)


def scaling_factor(out: Path) -> float:
    """One over the spread of the trained VAE's latents: what makes their variance one."""
    return 1.0 / load_json(out / "vae.json", "latent_std", made_by="vae")
