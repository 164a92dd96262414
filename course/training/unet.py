"""Training of the U-Net: to see the noise in noisy latents, with the caption's help. Stage 11 says how.

The pictures are encoded once; what is kept are the means and variances of their latents, so that every visit draws
fresh latents. The text encoder is frozen.
"""

import contextlib
import copy
import hashlib
import math
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from course.core.config import ModelConfig
from course.core.weights import fill
from course.core.writing import whole_file
from course.training.clip import load_text_encoder
from course.training.data import Pictures
from course.training.loop import advice, generator_on, memory_format, save_weights
from course.training.tokenizer import tokenizer_of
from course.training.vae import load_vae, scaling_factor
from solutions import stage11_training
from solutions.stage05_vae import VAE, images_to_tensor, sample_latents, tensor_to_images
from solutions.stage07_unet import UNet
from solutions.stage08_scheduler import NoiseSchedule
from solutions.stage09_sampler import Sampling, StableDiffusion, text_to_image

SHEET_PROMPTS = (
    "a red house in a green meadow at night",
    "a blue castle on a snowy hill by day",
    "a yellow car in the city at sunset",
    "a white boat on the sea by day",
    "an orange cat in the desert at night",
    "a purple robot in the snow at sunset",
    "a pink flower in the meadow by day",
    "a green rocket in the desert at night",
)


def initialise_unet(unet: UNet) -> None:
    """Every branch starts at zero, so that at first only the shortcuts carry anything (as in the original code)."""
    for module in unet.modules():
        for name in ("conv2", "proj_out", "conv_out"):
            layer = getattr(module, name, None)
            if isinstance(layer, nn.Conv2d):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)  # pyrefly: ignore


def encoder_digest(vae: VAE) -> str:
    """Of all that latents depend on; the decoder may be trained further without encoding all pictures again."""
    weights = [weight for part in (vae.encoder, vae.quant_conv) for weight in part.state_dict().values()]
    return hashlib.sha256(b"".join(weight.cpu().numpy().tobytes() for weight in weights)).hexdigest()


def encode_pictures(vae: VAE, pictures: Pictures, path: Path, accelerator: Accelerator, batch: int) -> Tensor:
    """The moments of all pictures' latents, (count, 2 * channels, H / 8, W / 8), float16; kept in a file.

    Of films: those of all frames, film after film.
    """
    digest = encoder_digest(vae)
    count = math.prod(pictures.images.shape[:-3])
    if not is_current(path, digest, count) and accelerator.is_main_process:
        order = memory_format(accelerator.device)
        vae = vae.to(accelerator.device, memory_format=order)
        moments = []
        starts = range(0, len(pictures), batch)
        for start in tqdm(starts, desc="encoding pictures", unit="batch", mininterval=1.0):
            images = torch.from_numpy(np.array(pictures.images[start : start + batch])).flatten(0, -4)
            images = images_to_tensor(images).to(accelerator.device, memory_format=order)
            with torch.inference_mode(), accelerator.autocast():
                moments.append(vae.quant_conv(vae.encoder(images)).to("cpu", torch.float16))
        with whole_file(path) as temporary:
            save_file({"moments": torch.cat(moments).contiguous()}, temporary, metadata={"vae": digest})
    accelerator.wait_for_everyone()
    with safe_open(path, "pt") as file:
        return file.get_slice("moments")[:count]


def is_current(path: Path, digest: str, count: int) -> bool:
    """Whether the file is there and whole, and holds enough latents, made by the encoder with this digest."""
    with contextlib.suppress(SafetensorError, OSError), safe_open(path, "pt") as file:
        made_by = (file.metadata() or {}).get("vae")
        return made_by == digest and file.get_slice("moments").get_shape()[0] >= count
    return False


class UNetPart:
    """The U-Net in training."""

    name = "unet"
    latents_file = "latents.safetensors"  # in the folder of the run
    learning_rate = 1e-3
    betas = (0.9, 0.99)
    warmup = 100

    def __init__(
        self,
        config: ModelConfig,
        pictures: Pictures,
        out: Path,
        accelerator: Accelerator,
        batch: int | None = None,
        training: ModuleType = stage11_training,
    ):
        self.training = training
        self.config = config
        self.pictures = pictures
        self.device = accelerator.device
        on_cpu = self.device.type == "cpu"
        self.batch = batch or (32 if on_cpu else 256)
        self.vae = load_vae(config.vae, out)
        self.text_encoder = load_text_encoder(config.clip, out).to(self.device)
        self.moments = encode_pictures(self.vae, pictures, out / self.latents_file, accelerator, 32 if on_cpu else 256)
        self.vae.scaling_factor = scaling_factor(out)
        self.tokenizer = tokenizer_of(out, config.clip)
        self.tokenizer.tokenize = lru_cache(maxsize=None)(self.tokenizer.tokenize)  # pyrefly: ignore
        self.schedule = NoiseSchedule()
        unet = UNet(config.unet)
        initialise_unet(unet)
        self.model = unet.to(memory_format=memory_format(self.device))
        self.average = copy.deepcopy(unet).eval().requires_grad_(False)

    def latents_and_noise(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents of these pictures, and noise for them: twice (batch, channels, H / 8, W / 8)."""
        moments = self.moments[chosen].to(self.device).float()
        shape = (len(chosen), moments.shape[1] // 2, *moments.shape[2:])
        generator = generator_on(self.device, generator)
        noises = torch.randn((2, *shape), generator=generator, device=generator.device).to(self.device)
        return sample_latents(moments, noises[0]) * self.vae.scaling_factor, noises[1]

    def contexts(self, captions: list[str]) -> Tensor:
        """(batch, 77, width)."""
        with torch.no_grad():
            return self.text_encoder(self.tokenizer(captions).to(self.device))

    def loss(self, model: nn.Module, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of the predicted noise, weighted by timestep."""
        batch, pictures = self.batch, self.pictures
        chosen = pictures.num_checked + torch.randint(pictures.num_trained, (batch,), generator=generator)
        which = torch.randint(len(pictures.captions[0]), (batch,), generator=generator).tolist()
        captions = [pictures.captions[i][k] for i, k in zip(chosen.tolist(), which)]
        captions = self.training.drop_captions(captions, torch.rand(batch, generator=generator))
        uniform = torch.rand(batch, generator=generator)
        timesteps = self.training.spread_timesteps(uniform, self.schedule.num_train_timesteps)
        latents, noise = self.latents_and_noise(chosen, generator)
        context = self.contexts(captions)
        return self.training.noise_loss(model, self.schedule, latents, noise, timesteps, context), {}

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """Plain squared error of both sets of weights on pictures not trained on, at evenly spread timesteps."""
        count = self.pictures.num_checked
        generator = torch.Generator().manual_seed(0)
        uniform = torch.rand(count, generator=generator)
        timesteps = stage11_training.spread_timesteps(uniform, self.schedule.num_train_timesteps)
        latents, noise = self.latents_and_noise(torch.arange(count), generator)
        noisy = self.schedule.add_noise(latents, noise, timesteps)
        context = self.contexts([self.pictures.captions[i][0] for i in range(count)])
        models = {"mse_of_unseen": self.model, "mse_of_unseen_ema": self.average.to(self.device)}
        return {
            name: float(F.mse_loss(model(noisy, timesteps.to(self.device), context).float(), noise))
            for name, model in models.items()
        }

    def write(self, out: Path) -> None:
        save_weights(out / "unet.safetensors", self.model.state_dict())
        save_weights(out / "unet_ema.safetensors", self.average.state_dict())

    def read(self, out: Path) -> None:
        """The raw weights go on; their average begins with the first step."""
        fill(self.model, out / "unet.safetensors", advice(self.name))

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Pictures for fixed prompts and fixed noise, drawn by the averaged weights."""
        vae = self.vae.to(self.device)
        model = StableDiffusion(self.tokenizer, self.text_encoder, self.average, vae, self.schedule)
        size = self.config.image_size // self.config.vae.factor
        shape = (len(SHEET_PROMPTS), self.config.unet.in_channels, size, size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        none = [""] * len(SHEET_PROMPTS)
        images = text_to_image(model, SHEET_PROMPTS, none, noise, Sampling(num_steps=15, guidance_scale=4.0))
        images = tensor_to_images(images).cpu()
        rows = [torch.cat(list(images[i : i + 4]), dim=1) for i in range(0, len(images), 4)]
        return Image.fromarray(torch.cat(rows, dim=0).numpy())
