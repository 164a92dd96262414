"""The networks of a StableDiffusion as files that a browser can run (ONNX).

Each is recorded for one picture of one size. The U-Net gets two things more than stage 7 asks for: an input that
switches parts of it off, and an output that says where the words look.
"""

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from course.core.assemble import Blocks
from course.core.config import ModelConfig
from course.core.messages import first_line
from course.core.writing import whole_file
from course.draw.engine import another
from course.studio.parts import parts, without_correction
from course.studio.studio import hooked

STAGES_OF = {  # which stages a network is made of
    "text_encoder": (3, 6),
    "unet": (1, 2, 3, 4, 7),
    "decoder": (1, 2, 3, 4, 5),
    "encoder": (1, 2, 3, 4, 5),
}
SMALLEST = 64  # numbers; a smaller tensor is stored as it is
ROUNDING = 1e-4  # of the largest value: how far what is recorded may be from what the block computes


@dataclass
class Network:
    """One network to be written.

    Attributes:
        module: takes and returns tensors.
        inputs: name -> an example, with a batch of one.
        outputs: the names of what it returns.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


class Call(nn.Module):
    """A function of a model's, as a module."""

    def __init__(self, owner: nn.Module, function: Callable[..., Any]):
        super().__init__()
        self.owner = owner
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


class UNetWithDials(nn.Module):
    """A U-Net (stage 7) with a switch for each of its parts, and a look at its cross-attentions.

    Args:
        unet: whose blocks carry the names that stage 7 gives them.
        attention: scaled_dot_product_attention of stage 3.
        config: the sizes of the model.
    """

    def __init__(self, unet: nn.Module, attention: Callable[..., Tensor], config: ModelConfig):
        super().__init__()
        self.unet = unet
        self.attention = attention
        self.heads = config.unet.num_heads
        found = parts(unet, config.unet.channels)
        self.parts = [(name, part[0]) for name, part in found.items() if not name.startswith("all of")]
        self.reached: set[int] | None = None  # while it is noted: the places of those parts that were called

    def forward(self, latents: Tensor, timesteps: Tensor, context: Tensor, switches: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            latents: (1, channels, height, width).
            timesteps: (1,), int64.
            context: (1, tokens, width).
            switches: (number of parts,): the factor of each part, 1 on and 0 off.

        Returns:
            The predicted noise, and (tokens, height, width): how much of a pixel's attention goes to a token, averaged
            over all cross-attentions and their heads. Those of smaller levels are enlarged to the size of the latents.
        """
        maps: list[Tensor] = []
        size = latents.shape[-2:]

        def note(place: int) -> None:
            if self.reached is not None:
                self.reached.add(place)

        def look(module: Any, inputs: tuple, named: dict) -> None:
            x = inputs[0] if inputs else named["x"]
            words = named["context"] if "context" in named else inputs[1]
            query = module.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            key = module.to_k(words).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            # The attention mixes values by its weights: of the unit vectors it makes the weights themselves.
            unit_vectors = torch.eye(key.shape[2]).expand(*key.shape[:3], key.shape[2])
            weights = self.attention(query, key, unit_vectors).mean((0, 1))  # (pixels, tokens)
            side = math.isqrt(len(weights))
            grown = nn.functional.interpolate(weights.T.reshape(1, -1, side, side), size=size, mode="nearest")
            maps.append(grown[0])

        def switch(place: int) -> Callable[..., Any]:
            def after(module: Any, inputs: tuple, named: dict, output: Tensor) -> Tensor:
                kept = without_correction(module, inputs, named, output)
                note(place)
                return kept + switches[place] * (output - kept)

            return after

        def fade(place: int, channels: int) -> Callable[..., Any]:
            def before(module: Any, inputs: tuple, named: dict) -> tuple[tuple, dict]:
                x = inputs[0] if inputs else named["x"]
                x = torch.cat([x[:, :channels], x[:, channels:] * switches[place]], dim=1)
                note(place)
                return (x, *inputs[1:]), {name: value for name, value in named.items() if name != "x"}

            return before

        handles = []
        for place, (_, (kind, module, channels)) in enumerate(self.parts):
            if kind == "skip":
                handles.append(module.register_forward_pre_hook(fade(place, channels), with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(switch(place), with_kwargs=True))
        for name, module in self.unet.named_modules():
            if name.endswith("cross_attention"):
                handles.append(module.register_forward_pre_hook(look, with_kwargs=True))
        with hooked(*handles):
            noise = self.unet(latents, timesteps, context)
        attention = torch.stack(maps).mean(0) if maps else torch.zeros(context.shape[1], *size)
        return noise, attention

    @torch.no_grad()
    def leave_out_what_has_no_effect(self, *inputs: Tensor) -> None:
        """Forgets the parts that the U-Net uses without calling them as a module: they cannot be switched off here."""
        self.reached = reached = set[int]()
        self(*inputs)
        self.parts = [part for place, part in enumerate(self.parts) if place in reached]
        self.reached = None


def networks(blocks: Blocks, model: Any, config: ModelConfig) -> dict[str, Network]:
    """What is written of a filled StableDiffusion (stage 9), in the order of STAGES_OF.

    Its weights are rounded to half precision, which changes nothing if they come from a file in half precision.
    """
    for part in (model.text_encoder, model.unet, model.vae):
        for parameter in part.parameters():
            parameter.data = parameter.data.half().float()
    side = config.image_size // config.vae.factor
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    latents = some(1, config.vae.latent_channels, side, side)
    context = some(1, config.clip.max_length, config.clip.width)
    unet = UNetWithDials(model.unet, blocks[3].scaled_dot_product_attention, config)
    tokens = torch.arange(config.clip.max_length)[None] % (config.clip.vocab_size - 1)
    images = some(1, 3, config.image_size, config.image_size)
    noisy = {"latents": latents, "timesteps": torch.tensor([500]), "context": context}
    unet.leave_out_what_has_no_effect(*noisy.values(), torch.ones(len(unet.parts)))
    return {
        "text_encoder": Network(model.text_encoder, {"tokens": tokens}, ("context",)),
        "unet": Network(unet, noisy | {"switches": torch.ones(len(unet.parts))}, ("noise", "attention")),
        "decoder": Network(Call(model.vae, model.vae.decode), {"latents": latents}, ("images",)),
        "encoder": Network(Call(model.vae, model.vae.encode), {"images": images}, ("latents",)),
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporter says about itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class NotRecorded(Exception):
    """A network cannot be recorded; the message is the reason, without a full stop."""


@torch.no_grad()
def record(network: Network) -> torch.export.ExportedProgram:
    """What the network does with its inputs.

    Raises:
        NotRecorded: if torch cannot tell that, or tells something that is not true of other inputs.
        Exception: what the network itself raises.
    """
    module = network.module.eval()
    others = [another(tensor) for tensor in network.inputs.values()]
    expected = _tensors(module(*others))
    with quiet():
        try:
            program = torch.export.export(module, tuple(network.inputs.values()), strict=False)
            results = _tensors(program.module()(*others))
        except MemoryError:
            raise
        except Exception as error:  # of whatever kind: torch.export has many
            raise NotRecorded(first_line(error, 160)) from error
    for found, wanted in zip(results, expected):
        if found.shape != wanted.shape or not torch.allclose(
            found, wanted, rtol=0.0, atol=ROUNDING * float(wanted.abs().max())
        ):
            raise NotRecorded("its record gives another result, so it does not do the same with every input")
    return program


def _tensors(result: Any) -> Sequence[Tensor]:
    return (result,) if isinstance(result, Tensor) else result


def write(network: Network, program: torch.export.ExportedProgram, path: Path) -> int:
    """Writes a recorded network as an ONNX file; returns its size in bytes.

    A weight that half precision holds exactly is stored in it, and becomes float32 when the file is read. Where the
    network's code stands on this machine is not written.
    """
    with quiet():
        names = {"input_names": list(network.inputs), "output_names": list(network.outputs)}
        exported = torch.onnx.export(program, dynamo=True, verbose=False, external_data=False, **names)
        assert exported is not None
        shrink(exported.model)
        with whole_file(path) as temporary:
            exported.save(temporary, external_data=False)
    return path.stat().st_size


def shrink(model: Any) -> None:
    """Half precision for the weights of an ONNX model where that loses nothing; notes about its origin are removed."""
    import onnx_ir as ir

    graph = model.graph
    model.metadata_props.clear()
    graph.metadata_props.clear()
    for node in graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()
    for name, value in list(graph.initializers.items()):
        array = value.const_value.numpy()
        if array.dtype != numpy.float32 or array.size < SMALLEST:
            continue
        with numpy.errstate(over="ignore"):
            half = array.astype(numpy.float16)
        if not numpy.array_equal(half.astype(numpy.float32), array):
            continue
        stored = ir.Value(
            name=f"{name}.half",
            shape=value.shape,
            type=ir.TensorType(ir.DataType.FLOAT16),
            const_value=ir.Tensor(half, name=f"{name}.half"),
        )
        cast = ir.Node("", "Cast", [stored], [ir.AttrInt64("to", ir.DataType.FLOAT.value)])
        cast.outputs[0].shape, cast.outputs[0].type = value.shape, value.type
        value.replace_all_uses_with(cast.outputs[0])
        del graph.initializers[name]
        cast.outputs[0].name = name
        graph.register_initializer(stored)
        graph.insert_before(graph[0], cast)
