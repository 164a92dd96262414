"""Training of the text encoder, as CLIP's was trained: a picture and its caption shall point the same way.

A small convolutional network turns pictures into vectors, the text encoder turns captions into vectors, and in a batch
every caption has to find its picture, and every picture its caption (stage 11 has the loss). A batch rarely has two
captions of the same words, so nothing would teach the network which colour belongs to which thing. Hence every caption
of two things also comes with its colours swapped, as one more that the pictures must not choose. The picture network
and the projections are needed for training only. With several processes each compares within its own batch.

Source: Radford et al., 2021, arXiv:2103.00020, section 2.3 and figure 3.
"""

import math
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from course.core.config import CLIPConfig
from course.core.weights import fill
from course.scenes.captions import swapped
from course.training.data import Pictures
from course.training.loop import advice, save_weights
from course.training.tokenizer import tokenizer_of
from solutions import stage11_training
from solutions.stage05_vae import images_to_tensor
from solutions.stage06_clip import CLIPTextEncoder

PICTURE_SIZE = 64  # what the picture network sees
MAX_SCALE = 100.0


class PictureEncoder(nn.Sequential):
    """A picture to a vector: (batch, 3, 64, 64) -> (batch, width)."""

    def __init__(self, width: int):
        layers: list[nn.Module] = []
        channels = (3, 32, 64, 96, 128)
        for before, after in zip(channels, channels[1:]):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        super().__init__(*layers, nn.Flatten(), nn.Linear(channels[-1] * (PICTURE_SIZE // 16) ** 2, width))


class ContrastiveModel(nn.Module):
    """Text encoder, picture encoder, and the scale of their scores, one over a temperature."""

    def __init__(self, text_encoder: CLIPTextEncoder, width: int):
        super().__init__()
        self.text_encoder = text_encoder
        self.text_projection = nn.Linear(width, width, bias=False)
        self.picture_encoder = PictureEncoder(width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, tokens: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, length), (batch, 3, 64, 64) -> (batch, width) for both, and the scale of the scores."""
        ends = tokens.argmax(dim=1)  # the end mark has the highest id; argmax finds the first one
        vectors = self.text_encoder(tokens)[torch.arange(len(tokens), device=tokens.device), ends]
        texts, pictures = self.text_projection(vectors).float(), self.picture_encoder(images).float()
        return texts, pictures, self.log_scale.exp().clamp(max=MAX_SCALE)


@torch.no_grad()
def cosines(texts: Tensor, pictures: Tensor) -> Tensor:
    """How well each text agrees with each picture, from -1 to 1: (M, width), (N, width) -> (M, N)."""
    return F.normalize(texts, dim=-1) @ F.normalize(pictures, dim=-1).T


def initialise_text_encoder(encoder: CLIPTextEncoder) -> None:
    """Small embeddings and residual branches that start small, as in CLIP (section 2.5 and its published code)."""
    width, depth = encoder.token_embedding.embedding_dim, len(encoder.layers)
    nn.init.normal_(encoder.token_embedding.weight, std=0.02)
    nn.init.normal_(encoder.position_embedding.weight, std=0.01)
    for layer in encoder.layers:
        for linear in (layer.attention.to_q, layer.attention.to_k, layer.attention.to_v):
            nn.init.normal_(linear.weight, std=width**-0.5)
        nn.init.normal_(layer.fc1.weight, std=(2 * width) ** -0.5)
        for linear in (layer.attention.to_out, layer.fc2):
            nn.init.normal_(linear.weight, std=width**-0.5 * (2 * depth) ** -0.5)


def shortened(tokens: Tensor) -> Tensor:
    """Without the columns in which all rows have nothing but padding.

    The encoder reads from left to right, so this changes nothing at and before the first end mark.
    """
    return tokens[:, : int(tokens.argmax(dim=1).max()) + 1]


class CLIPPart:
    """The text encoder in training."""

    name = "clip"
    learning_rate = 1e-3
    betas = (0.9, 0.98)
    warmup = 30
    average = None

    def __init__(
        self,
        config: CLIPConfig,
        pictures: Pictures,
        out: Path,
        device: torch.device,
        batch: int | None = None,
        training: ModuleType = stage11_training,
    ):
        self.training = training
        self.pictures = pictures
        self.device = device
        self.tokenizer = tokenizer_of(out, config)
        self.tokenizer.bpe = lru_cache(maxsize=None)(self.tokenizer.bpe)
        encoder = CLIPTextEncoder(config)
        initialise_text_encoder(encoder)
        self.model = ContrastiveModel(encoder, config.width)
        self.batch = min(batch or (192 if device.type == "cpu" else 512), pictures.num_trained)

    def examples(self, chosen: np.ndarray, which: np.ndarray) -> tuple[Tensor, Tensor]:
        """Tokens of one caption each, then those of all swapped captions; the pictures at 64 pixels in [-1, 1]."""
        captions = [self.pictures.captions[i][k] for i, k in zip(chosen, which)]
        tokens = self.tokenizer(captions + [wrong for text in captions if (wrong := swapped(text))])
        images = torch.from_numpy(np.stack([self.pictures.images[i] for i in chosen])).to(self.device)
        images = F.interpolate(images_to_tensor(images), size=(PICTURE_SIZE, PICTURE_SIZE), mode="area")
        return shortened(tokens).to(self.device), images

    def loss(self, model: nn.Module, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of picking the right one among N, from captions to pictures and back."""
        rng = np.random.default_rng(generator.initial_seed())
        first = self.pictures.num_checked
        chosen = first + rng.choice(self.pictures.num_trained, size=self.batch, replace=False)
        which = rng.integers(0, len(self.pictures.captions[0]), size=self.batch)
        texts, pictures, scale = model(*self.examples(chosen, which))
        found = cosines(texts[: len(pictures)], pictures).argmax(dim=1)
        right = torch.arange(len(pictures), device=found.device)
        return self.training.contrastive_loss(texts, pictures, scale), {"found": (found == right).float().mean()}

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """How many captions of pictures that were not trained on find theirs among all of these."""
        chosen = np.arange(self.pictures.num_checked)
        texts, pictures, _ = self.model(*self.examples(chosen, np.zeros_like(chosen)))
        scores = cosines(texts, pictures).cpu()
        found = scores[: len(pictures)].argmax(dim=1) == torch.arange(len(pictures))
        numbers = {"found_of_unseen": float(found.float().mean())}
        with_wrong = [i for i in chosen if swapped(self.pictures.captions[i][0])]
        if with_wrong:
            better = scores[with_wrong, with_wrong] > scores[len(pictures) :, with_wrong].diagonal()
            numbers["better_than_swapped"] = float(better.float().mean())
        return numbers

    def write(self, out: Path) -> None:
        weights = self.model.state_dict()
        save_weights(out / "clip.safetensors", self.model.text_encoder.state_dict())
        companion = {name: w for name, w in weights.items() if not name.startswith("text_encoder.")}
        save_weights(out / "picture_encoder.safetensors", companion)

    def read(self, out: Path) -> None:
        fill(self.model.text_encoder, out / "clip.safetensors", advice(self.name))
        if (out / "picture_encoder.safetensors").exists():
            fill(self.model, out / "picture_encoder.safetensors", advice(self.name), others=self.model.state_dict())

    def sheet(self) -> Image.Image | None:
        return None


def load_text_encoder(config: CLIPConfig, out: Path) -> CLIPTextEncoder:
    """The trained text encoder, in evaluation mode."""
    encoder = CLIPTextEncoder(config)
    fill(encoder, out / "clip.safetensors", advice("clip"))
    return encoder.eval().requires_grad_(False)
