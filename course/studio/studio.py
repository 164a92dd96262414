"""What pictures are made with: the assembled blocks, a checkpoint, and a model built of both."""

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from course.core.assemble import Blocks
from course.core.stages import Stage, short_path
from course.draw import checkpoint as ckpt
from course.draw.motion import motion_file, put_motion

PROMPT = "a red house in the snow at night"
FRAMES = 8  # of a film; so many the shipped motion modules have seen


@dataclass
class Studio:
    """Opens the checkpoint and builds the model when a picture first needs them."""

    blocks: Blocks
    checkpoint: str | Path
    tokenizer: str | None = None
    device: str = "cpu"
    steps: int = 20  # of a generated picture
    walks: dict[tuple, tuple[Tensor, list[Any]]] = field(default_factory=dict)

    @cached_property
    def opened(self) -> ckpt.Checkpoint:
        return ckpt.open_checkpoint(self.checkpoint, self.tokenizer)

    @cached_property
    def model(self) -> Any:
        """The pipeline with the averaged weights."""
        return self.build(ema=True)

    def build(self, ema: bool) -> Any:
        return ckpt.build(self.blocks, self.opened, self.torch_device, torch.float32, ema)

    @cached_property
    def films(self) -> tuple[Any, Any]:
        """The pipeline with the motion modules that lie beside the checkpoint, and their sizes (MotionConfig).

        Raises:
            Refusal: in one sentence that says what to do, if there are none.
        """
        path, model = motion_file(None, self.opened.path), self.build(ema=True)
        return model, put_motion(self.blocks, model, self.opened.config, path, FRAMES, self.torch_device)

    def films_at(self, strength: float) -> Any:
        """The same pipeline with what the modules add multiplied by a number: 0 is the model of pictures."""
        model = replace(self.films[0])
        model.unet = copy.deepcopy(model.unet)
        for module in model.unet.modules():
            if isinstance(module, self.blocks[13].MotionModule):
                for weight in module.proj_out.parameters():
                    weight.mul_(strength)
        return model

    def film(
        self,
        prompt: str,
        seed: int = 0,
        model: Any = None,
        noise: Tensor | None = None,
        steps: int | None = None,
        sampler: str = "ddim",
    ) -> Tensor:
        """A film of FRAMES frames, (frames, 3, height, width) in about [-1, 1], by text_to_video of stage 13."""
        noise = self.noise(seed, FRAMES) if noise is None else noise
        sampling = self.blocks[9].Sampling(steps or self.steps, self.opened.config.guidance_scale, sampler)
        model = model or self.films[0]
        return self.blocks[13].text_to_video(model, [prompt], [""], noise[None], sampling)[0]

    @property
    def torch_device(self) -> torch.device:
        return ckpt.choose_device(self.device)

    @property
    def latent_size(self) -> int:
        return self.opened.config.image_size // self.opened.config.vae.factor

    def noise(self, seed: int = 0, count: int = 1) -> Tensor:
        """Starting noise; each of several pictures has its own seed, counting up."""
        shape = (1, self.opened.config.vae.latent_channels, self.latent_size, self.latent_size)
        each = [torch.randn(shape, generator=torch.Generator().manual_seed(seed + i)) for i in range(count)]
        return torch.cat(each).to(self.torch_device)

    def context(self, prompt: str) -> Tensor:
        return self.blocks[9].encode_prompts(self.model, [prompt])

    def draw(
        self,
        prompts: str | Sequence[str],
        seed: int = 0,
        steps: int | None = None,
        scale: float | None = None,
        sampler: str = "ddim",
        model: Any = None,
        **others: Any,
    ) -> Tensor:
        """Pictures in [-1, 1] for one prompt or several, by text_to_image of stage 9."""
        scale = self.opened.config.guidance_scale if scale is None else scale
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        noise = self.noise(seed, len(prompts))
        negative = others.pop("negative", "")
        generator = torch.Generator().manual_seed(seed)
        sampling = self.blocks[9].Sampling(steps or self.steps, scale, sampler, generator)
        return self.blocks[9].text_to_image(
            model or self.model, prompts, [negative] * len(prompts), noise, sampling, **others
        )

    def walk(self, prompt: str, **options: Any) -> tuple[Tensor, list[Any]]:
        """A picture, and what `denoise` reported after each step. Asked for again, it is not made again."""
        key = (prompt, *sorted(options.items()))
        if key not in self.walks:
            steps: list[Any] = []
            self.walks[key] = self.draw(prompt, on_step=steps.append, **options), steps
        return self.walks[key]

    def decode(self, latents: Tensor) -> list[numpy.ndarray]:
        """Latents to RGB pictures."""
        return self.arrays(self.model.vae.decode(latents))

    def arrays(self, images: Tensor) -> list[numpy.ndarray]:
        """Pictures in [-1, 1] to RGB pictures."""
        return list(self.blocks[5].tensor_to_images(images.float()).cpu().numpy())

    def scenes(self, count: int, size: int | None = None) -> Tensor:
        """Pictures that the model was not made of: new drawings by the illustrator of its training set."""
        from course.scenes.scenes import Scene, Thing, draw_scene

        plans = [
            Scene((Thing("house", "red"),), "meadow", "day", "big", "centre"),
            Scene((Thing("boat", "white"),), "sea", "sunset", "big", "centre"),
            Scene((Thing("castle", "purple"),), "snow", "night", "big", "centre"),
            Scene((Thing("car", "yellow"),), "city", "day", "big", "centre"),
        ][:count]
        size = size or self.opened.config.image_size
        pictures = [numpy.array(draw_scene(plan, random.Random(i), size)) for i, plan in enumerate(plans)]
        images = torch.from_numpy(numpy.stack(pictures))
        return self.blocks[5].images_to_tensor(images).to(self.torch_device)

    def notes(self, stage: Stage) -> list[str]:
        """Whose blocks a picture was made with, and whether its weights mean anything."""
        lines = [f"{whose(self.blocks, stage)}; {others(self.blocks, stage)}."]
        if "model" in self.__dict__ and not self.opened.trained:
            name = short_path(self.opened.path)
            lines.append(f"{name} is untrained: its weights are random, and so are its pictures.")
        return lines


def whose(blocks: Blocks, stage: Stage) -> str:
    """Whose file stands for a stage."""
    path = short_path(blocks.paths[stage.number])
    if blocks.origin[stage.number] == "exercises":
        return f"Stage {stage.number} {stage.name} is yours ({path})"
    return f"Stage {stage.number} {stage.name} is the reference ({path})"


def others(blocks: Blocks, stage: Stage) -> str:
    """Whose files stand for all other stages."""
    rest = [number for number in blocks.origin if number != stage.number]
    yours = [str(number) for number in rest if blocks.origin[number] == "exercises"]
    if len(yours) in (0, len(rest)):
        same = (blocks.origin[stage.number] == "exercises") == bool(yours)
        return "so are the others" if same else f"the others are {'yours' if yours else 'the reference'}"
    return f"of the others, {', '.join(yours)} {'is' if len(yours) == 1 else 'are'} yours"


@contextmanager
def hooked(*handles: Any) -> Iterator[None]:
    """Removes hooks afterwards."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def switched_off(module: nn.Module) -> Any:
    """A hook that makes a module return zeros: where its result is a correction, none is made."""
    return module.register_forward_hook(lambda _, inputs, output: torch.zeros_like(output))


def cutting(channels: int) -> Any:
    """A hook, before a block, that leaves the first channels of its input and puts zeros in the place of the others."""

    def cut(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0].clone()
        x[:, channels:] = 0.0
        return x, *inputs[1:]

    return cut
