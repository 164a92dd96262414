"""Training of the motion modules, in the U-Net of pictures as it is: films in which every thing moves as its kind does.

The U-Net, the text encoder and the VAE stay what they are; only the modules are trained, with the loss of stage 11. A
batch is a few films. All frames of a film have one timestep and one caption, and each has noise of its own. The U-Net
that the modules are put into is the averaged one, with which pictures are drawn.
"""

import copy
import functools
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from course.core.config import ModelConfig
from course.core.weights import fill
from course.training.data import Pictures
from course.training.loop import advice, save_weights
from course.training.unet import UNetPart
from solutions import stage11_training
from solutions.stage05_vae import tensor_to_images
from solutions.stage09_sampler import Sampling, StableDiffusion
from solutions.stage13_motion import MotionConfig, MotionUNet, text_to_video

CONFIG = MotionConfig(num_heads=4, middle=False)  # of the small model
FRAMES = 8
MOVED = 0.75  # of all batches have timesteps with more noise; the others reach every timestep
CHECKED = 16  # films; 128 frames cost as much as all pictures that the U-Net is checked with
SHEET_PROMPTS = (
    "a red balloon on the sea at sunset",
    "a green car in the city by day",
    "an orange cat in the snow by day",
    "a white rocket in the desert at night",
)


class MotionPart(UNetPart):
    """The motion modules in training."""

    name = "motion"
    latents_file = "film_latents.safetensors"

    def __init__(
        self,
        config: ModelConfig,
        films: Pictures,
        out: Path,
        accelerator: Accelerator,
        batch: int | None = None,
        training: ModuleType = stage11_training,
    ):
        on_cpu = accelerator.device.type == "cpu"
        super().__init__(config, films, out, accelerator, batch or (4 if on_cpu else 64), training)
        unet = self.model
        fill(unet, out / "unet_ema.safetensors", advice("unet"))
        self.model = MotionUNet(unet.requires_grad_(False), config.unet, CONFIG)  # pyrefly: ignore
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)  # pyrefly: ignore

    def frames_of(self, films: Tensor) -> Tensor:
        """The places of all frames of these films among the latents."""
        return (films[:, None] * FRAMES + torch.arange(FRAMES)).flatten()

    def loss(self, model: nn.Module, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of the noise predicted for all frames, weighted by timestep."""
        batch, films = self.batch, self.pictures
        chosen = films.num_checked + torch.randint(films.num_trained, (batch,), generator=generator)
        which = torch.randint(len(films.captions[0]), (batch,), generator=generator).tolist()
        captions = [films.captions[i][k] for i, k in zip(chosen.tolist(), which)]
        captions = self.training.drop_captions(captions, torch.rand(batch, generator=generator))
        uniform = torch.rand(batch, generator=generator)
        timesteps = self.training.spread_timesteps(uniform, self.schedule.num_train_timesteps)
        if torch.rand(1, generator=generator) < MOVED:
            timesteps = with_more_noise(timesteps, self.schedule.num_train_timesteps)
        latents, noise = self.latents_and_noise(self.frames_of(chosen), generator)
        context = self.contexts(captions).repeat_interleave(FRAMES, dim=0)
        unet = functools.partial(model, num_frames=FRAMES)
        timesteps = timesteps.repeat_interleave(FRAMES)
        return self.training.noise_loss(unet, self.schedule, latents, noise, timesteps, context), {}

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """Plain squared error on films not trained on: of both sets of weights, and of the U-Net without modules."""
        count = min(CHECKED, self.pictures.num_checked)
        generator = torch.Generator().manual_seed(0)
        uniform = torch.rand(count, generator=generator)
        timesteps = stage11_training.spread_timesteps(uniform, self.schedule.num_train_timesteps)
        timesteps = timesteps.repeat_interleave(FRAMES)
        latents, noise = self.latents_and_noise(self.frames_of(torch.arange(count)), generator)
        noisy, timesteps = self.schedule.add_noise(latents, noise, timesteps), timesteps.to(self.device)
        context = self.contexts([self.pictures.captions[i][0] for i in range(count)]).repeat_interleave(FRAMES, dim=0)
        predictions = {
            "mse_of_unseen": self.model(noisy, timesteps, context, FRAMES),
            "mse_of_unseen_ema": self.average.to(self.device)(noisy, timesteps, context, FRAMES),
            "mse_without": self.model.unet(noisy, timesteps, context),
        }
        return {name: float(F.mse_loss(predicted.float(), noise)) for name, predicted in predictions.items()}

    def write(self, out: Path) -> None:
        save_weights(out / "motion.safetensors", modules_of(self.model))  # pyrefly: ignore
        save_weights(out / "motion_ema.safetensors", modules_of(self.average))  # pyrefly: ignore

    def read(self, out: Path) -> None:
        """The raw weights go on; their average begins with the first step."""
        if (out / "motion.safetensors").exists():
            fill(self.model, out / "motion.safetensors", advice(self.name), self.model.state_dict())

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """A film for each of fixed prompts, a row of frames each, drawn by the averaged weights."""
        vae = self.vae.to(self.device)
        model = StableDiffusion(self.tokenizer, self.text_encoder, self.average, vae, self.schedule)  # pyrefly: ignore
        size = self.config.image_size // self.config.vae.factor
        shape = (len(SHEET_PROMPTS), FRAMES, self.config.unet.in_channels, size, size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        sampling = Sampling(num_steps=15, guidance_scale=4.0)
        films = text_to_video(model, SHEET_PROMPTS, [""] * len(SHEET_PROMPTS), noise, sampling)
        rows = [torch.cat(list(tensor_to_images(film).cpu()), dim=1) for film in films]
        return Image.fromarray(torch.cat(rows, dim=0).numpy())


def with_more_noise(timesteps: Tensor, num_train_timesteps: int = 1000) -> Tensor:
    """Evenly spread timesteps, most of them made larger: six in ten are then between 500 and 850.

    With evenly spread timesteps most of the loss comes from those below 500, at which the frames still show which way a
    thing goes and faces. Where they hardly show it, the modules have to find both together. So the timesteps follow a
    logit-normal distribution:

        t = 1000 * sigmoid(0.5 + z),    z standard normal

    Source: Esser et al., Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (2024),
    arXiv:2403.03206, section 3.1, about another kind of diffusion model; the number 0.5 is ours.

    Args:
        timesteps: (batch,), int64, evenly spread from 0 to num_train_timesteps - 1.

    Returns:
        (batch,), int64, in the same order.
    """
    z = torch.special.ndtri((timesteps + 0.5) / num_train_timesteps)
    return (num_train_timesteps * torch.sigmoid(0.5 + z)).long()


def modules_of(unet: MotionUNet) -> dict[str, Tensor]:
    """The weights of the motion modules alone."""
    return {name: weight for name, weight in unet.state_dict().items() if not name.startswith("unet.")}
