"""Training of the U-Net: to see the noise in noisy latents, with the caption's help.

The pictures are encoded once; what is kept are the means and variances of their latents, so that every visit draws
fresh latents. The text encoder is frozen. One caption in ten is replaced by the empty prompt, so that the network also
learns what pictures look like in general: guidance needs both.

Sources: Ho et al., 2020, arXiv:2006.11239, equation 14 (predict the noise); Hang et al., "Efficient Diffusion Training
via Min-SNR Weighting Strategy", 2023, arXiv:2303.09556, section 3.4 (loss weights); Ho and Salimans, "Classifier-Free
Diffusion Guidance", 2022, arXiv:2207.12598, algorithm 1 (dropped captions); Karras et al., "Analyzing and Improving the
Training Dynamics of Diffusion Models", 2024, arXiv:2312.02696, section 3.1 (the averaging of weights).
"""

import copy
import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from course.core.config import ModelConfig
from course.core.writing import whole_file
from course.training.clip import load_text_encoder
from course.training.data import Pictures
from course.training.loop import load_weights, memory_format, save_weights
from course.training.tokenizer import tokenizer_of
from course.training.vae import load_vae, scaling_factor
from solutions.stage05_vae import VAE, images_to_tensor, sample_latents, tensor_to_images
from solutions.stage07_unet import UNet
from solutions.stage08_scheduler import NoiseSchedule
from solutions.stage09_sampler import Sampling, StableDiffusion, text_to_image

CAPTION_DROPOUT = 0.1
MAX_SNR = 5.0
EMA_POWER = 16.0  # weights of step s count in proportion to s ** EMA_POWER: mostly the last tenth of the training
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


def encode_pictures(vae: VAE, pictures: Pictures, out: Path, accelerator: Accelerator, batch: int) -> Tensor:
    """The moments of all pictures' latents, (count, 2 * channels, H / 8, W / 8), float16; kept in a file."""
    path = out / "latents.safetensors"
    digest = encoder_digest(vae)
    if not is_current(path, digest, len(pictures)) and accelerator.is_main_process:
        order = memory_format(accelerator.device)
        vae = vae.to(accelerator.device, memory_format=order)
        moments = []
        starts = range(0, len(pictures), batch)
        for start in tqdm(starts, desc="encoding pictures", unit="batch", mininterval=1.0):
            images = torch.from_numpy(np.array(pictures.images[start : start + batch]))
            images = images_to_tensor(images).to(accelerator.device, memory_format=order)
            with torch.inference_mode(), accelerator.autocast():
                moments.append(vae.quant_conv(vae.encoder(images)).to("cpu", torch.float16))
        with whole_file(path) as temporary:
            save_file({"moments": torch.cat(moments).contiguous()}, temporary, metadata={"vae": digest})
    accelerator.wait_for_everyone()
    with safe_open(path, "pt") as file:
        return file.get_slice("moments")[: len(pictures)]


def is_current(path: Path, digest: str, count: int) -> bool:
    """Whether the file holds enough latents, made by the encoder with this digest."""
    if not path.exists():
        return False
    with safe_open(path, "pt") as file:
        return file.metadata().get("vae") == digest and file.get_slice("moments").get_shape()[0] >= count


def min_snr_weights(alphas_cumprod: Tensor) -> Tensor:
    """min(SNR, 5) / SNR at each timestep: timesteps with so little noise that nobody sees it count less."""
    snr = alphas_cumprod / (1.0 - alphas_cumprod)
    return snr.clamp(max=MAX_SNR) / snr


def stratified_timesteps(batch: int, count: int, generator: torch.Generator) -> Tensor:
    """One random timestep out of each of `batch` equal ranges, so that each batch sees all noise levels: (batch,)."""
    spread = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    return (spread * count).long().clamp(max=count - 1)


class UNetPart:
    """The U-Net in training."""

    name = "unet"
    learning_rate = 1e-3
    betas = (0.9, 0.99)
    warmup = 100

    def __init__(
        self, config: ModelConfig, pictures: Pictures, out: Path, accelerator: Accelerator, batch: int | None = None
    ):
        self.config = config
        self.pictures = pictures
        self.device = accelerator.device
        on_cpu = self.device.type == "cpu"
        self.batch = batch or (32 if on_cpu else 256)
        self.vae = load_vae(config.vae, out)
        self.text_encoder = load_text_encoder(config.clip, out).to(self.device)
        self.moments = encode_pictures(self.vae, pictures, out, accelerator, batch=32 if on_cpu else 256)
        self.vae.scaling_factor = scaling_factor(out)
        self.tokenizer = tokenizer_of(out, config.clip)
        self.tokenizer.bpe = lru_cache(maxsize=None)(self.tokenizer.bpe)
        self.schedule = NoiseSchedule()
        self.weights = min_snr_weights(self.schedule.alphas_cumprod).float()
        unet = UNet(config.unet)
        initialise_unet(unet)
        self.model = unet.to(memory_format=memory_format(self.device))
        self.average = copy.deepcopy(unet).eval().requires_grad_(False)
        self.num_averaged = 0

    def noisy_examples(self, chosen: Tensor, timesteps: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noisy latents of these pictures, and the noise in them: twice (batch, channels, H / 8, W / 8)."""
        moments = self.moments[chosen].float()
        shape = (len(chosen), moments.shape[1] // 2, *moments.shape[2:])
        latents = sample_latents(moments, torch.randn(shape, generator=generator)) * self.vae.scaling_factor
        noise = torch.randn(shape, generator=generator)
        return self.schedule.add_noise(latents, noise, timesteps).to(self.device), noise.to(self.device)

    def contexts(self, captions: list[str]) -> Tensor:
        """(batch, 77, width)."""
        with torch.no_grad():
            return self.text_encoder(self.tokenizer(captions).to(self.device))

    def loss(self, model: nn.Module, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of the predicted noise, weighted by timestep."""
        batch, pictures = self.batch, self.pictures
        chosen = pictures.num_checked + torch.randint(pictures.num_trained, (batch,), generator=generator)
        which = torch.randint(len(pictures.captions[0]), (batch,), generator=generator).tolist()
        dropped = (torch.rand(batch, generator=generator) < CAPTION_DROPOUT).tolist()
        captions = ["" if drop else pictures.captions[i][k] for i, k, drop in zip(chosen.tolist(), which, dropped)]
        timesteps = stratified_timesteps(batch, self.schedule.num_train_timesteps, generator)
        noisy, noise = self.noisy_examples(chosen, timesteps, generator)
        predicted = model(noisy, timesteps.to(self.device), self.contexts(captions)).float()
        errors = F.mse_loss(predicted, noise, reduction="none").mean(dim=(1, 2, 3))  # (batch,)
        loss = (self.weights[timesteps].to(self.device) * errors).mean()
        return loss, {"loss": loss.detach(), "mse": errors.detach().mean()}

    @property
    def ema_decay(self) -> float:
        return (1.0 - 1.0 / max(self.num_averaged, 1)) ** (EMA_POWER + 1.0)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Moves the average towards the new weights: average = decay * average + (1 - decay) * weights."""
        self.num_averaged = step
        if next(self.average.parameters()).device != self.device:
            self.average.to(self.device)
        torch._foreach_lerp_(
            list(self.average.parameters()), [p.detach() for p in self.model.parameters()], 1.0 - self.ema_decay
        )

    def extra_state(self) -> dict[str, Tensor]:
        return {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        self.average.load_state_dict({name.removeprefix("average."): tensor for name, tensor in state.items()})

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """Plain squared error of both sets of weights on pictures not trained on, at evenly spread timesteps."""
        count = self.pictures.num_checked
        generator = torch.Generator().manual_seed(0)
        timesteps = stratified_timesteps(count, self.schedule.num_train_timesteps, generator)
        noisy, noise = self.noisy_examples(torch.arange(count), timesteps, generator)
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
        self.model.load_state_dict(load_weights(out / "unet.safetensors", made_by=self.name))

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
