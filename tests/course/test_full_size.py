"""The three models at the size of Stable Diffusion 1.5, with random weights, beside those of diffusers.

Both sides share one set of weights in memory, so that a machine with 8 GB is enough.
"""

import gc
import math
import weakref
from collections import Counter

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPTextConfig, CLIPTextModel

from course.core.assemble import for_generating, for_testing
from course.core.config import CLIPConfig, ModelConfig, UNetConfig, VAEConfig
from course.feedback import renaming
from course.feedback.compare import check, rand
from tests.course.test_device import schedule_of
from tests.stages import compvis, pretended
from tests.stages.small_model import MERGES, vocabulary

pytestmark = [pytest.mark.slow, pytest.mark.limit(600)]

TOLERANCE = 1e-5  # float32 through up to 60 blocks; measured: 3e-6
CONFIGS = {"unet": UNetConfig(), "vae": VAEConfig(), "clip": CLIPConfig()}
PREFIXES = {"unet": compvis.UNET, "vae": compvis.VAE, "clip": compvis.CLIP}
RULES = {"unet": renaming.UNET, "vae": renaming.VAE, "clip": renaming.CLIP}


def empty_model(blocks, part):
    """Ours, without memory for its parameters."""
    with torch.device("meta"):
        kind = {"unet": blocks[7].UNet, "vae": blocks[5].VAE, "clip": blocks[6].CLIPTextEncoder}[part]
        return kind(CONFIGS[part]).eval()


def model_of_diffusers(part):
    """Theirs, from the published configs. The text encoder has its memory: a table in it is no parameter."""
    if part == "clip":
        sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
        marks = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
        return CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_act="quick_gelu", **sizes, **marks)).eval()
    with torch.device("meta"):
        if part == "unet":
            return UNet2DConditionModel(cross_attention_dim=768, sample_size=64).eval()
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=512,
        ).eval()


def both(blocks, part):
    """Our model, filled by our remapper, and theirs, filled by their conversion of the same file."""
    tensors = compvis.filled(compvis.entries(part, CONFIGS[part]), seed=1)
    ours, theirs = empty_model(blocks, part), model_of_diffusers(part)
    remap = getattr(blocks[10], f"remap_{part}")
    ours.load_state_dict(remap(tensors), assign=True)
    converted = compvis.converted_part(part, {PREFIXES[part] + name: t for name, t in tensors.items()}, CONFIGS[part])
    names = {name.removeprefix("text_model."): name for name in converted}
    names = {name: names[name.removeprefix("text_model.")] for name in theirs.state_dict()}
    assert len(names) == len(converted)
    theirs.load_state_dict({name: converted[source] for name, source in names.items()}, assign=True)
    return ours, theirs


@pytest.mark.parametrize(
    ("part", "tensors", "millions"), [("unet", 686, 859.52), ("vae", 248, 83.65), ("clip", 196, 123.06)]
)
def test_names_and_shapes(blocks, part, tensors, millions):
    theirs = {
        renaming.our_name(name, RULES[part]): tuple(parameter.shape)
        for name, parameter in model_of_diffusers(part).named_parameters()
    }
    ours = {name: tuple(parameter.shape) for name, parameter in empty_model(blocks, part).named_parameters()}
    file = {name: torch.empty(shape, device="meta") for name, shape in compvis.entries(part, CONFIGS[part])}
    assert len(file) == tensors
    assert round(sum(math.prod(shape) for shape in ours.values()) / 1e6, 2) == millions
    check(blocks[10], lambda _: ours, theirs, f"names and shapes of the {part}'s parameters")
    check(
        blocks[10], lambda m: {name: tuple(t.shape) for name, t in getattr(m, f"remap_{part}")(file).items()}, theirs,
        f"names and shapes of remap_{part}(state_dict)",
    )


@torch.no_grad()
def test_unet(blocks):
    ours, theirs = both(blocks, "unet")
    latents, context = rand(2, 4, 16, 24, dtype=torch.float32), rand(2, 77, 768, seed=1, dtype=torch.float32)
    timesteps = torch.tensor([981, 20])
    wanted = theirs(latents, timesteps, context).sample
    check(blocks[7], lambda _: ours(latents, timesteps, context), wanted, "UNet()(...)", tolerance=TOLERANCE)


@torch.no_grad()
def test_autoencoder(blocks):
    ours, theirs = both(blocks, "vae")
    latents, images = rand(2, 4, 16, 24, dtype=torch.float32), rand(2, 3, 64, 128, seed=1, dtype=torch.float32)
    wanted = theirs.decode(latents / 0.18215).sample, theirs.encode(images).latent_dist.mean * 0.18215
    check(
        blocks[5], lambda _: (ours.decode(latents), ours.encode(images)), wanted, "decode, encode of VAE()",
        tolerance=TOLERANCE,
    )


@torch.no_grad()
def test_text_encoder(blocks):
    ours, theirs = both(blocks, "clip")
    tokens = torch.randint(49408, (2, 77), generator=torch.Generator().manual_seed(0))
    check(
        blocks[6], lambda _: ours(tokens), theirs(tokens).last_hidden_state, "CLIPTextEncoder()(tokens)",
        tolerance=TOLERANCE,
    )


def test_load_weights(blocks):
    """The copying way, from half precision and with the table of positions beside the weights."""
    tensors = {name: t.half() for name, t in compvis.filled(compvis.entries("clip", CONFIGS["clip"]), seed=1).items()}
    file = {compvis.CLIP + name: tensor for name, tensor in tensors.items()}
    file[compvis.CLIP + "text_model.embeddings.position_ids"] = torch.arange(77)[None]
    file |= {compvis.VAE + "quant_conv.bias": torch.zeros(8), compvis.UNET + "out.2.bias": torch.zeros(4)}
    model = blocks[6].CLIPTextEncoder(CONFIGS["clip"])
    parts = blocks[10].split_checkpoint(file)
    blocks[10].load_weights(model, blocks[10].remap_clip(parts["clip"]))
    theirs = {renaming.our_name(name, renaming.CLIP): tensor.float() for name, tensor in tensors.items()}
    check(blocks[10], lambda _: dict(model.state_dict()), theirs, "the text encoder after load_weights", tolerance=0.0)


@torch.no_grad()
@pytest.mark.parametrize("way", ["kohya", "peft"])
def test_lora_file(way, tmp_path):
    """A file with random numbers for every layer of the transformers: diffusers' U-Net with it, and then ours.

    They share their weights, into which only ours puts the file in the end.
    """
    pytest.importorskip("peft")
    from diffusers.loaders import StableDiffusionLoraLoaderMixin
    from safetensors.torch import save_file

    blocks = for_testing(12, "solutions")
    ours, theirs = both(blocks, "unet")
    text_encoder = empty_model(blocks, "clip")
    generator, tensors, stage = torch.Generator().manual_seed(0), {}, blocks[12]
    for name, layer in stage.layers_of(ours).items():
        if ".block." in name or ".proj_" in name:
            published, weight = stage.published_name(name), layer.weight
            down = torch.randn(2, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
            up = 0.1 * torch.randn(len(weight), 2, *(1,) * (weight.ndim - 2), generator=generator)
            if way == "kohya":
                stem = "lora_unet_" + published.replace(".", "_")
                tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
                tensors[f"{stem}.alpha"] = torch.tensor(1.0)
            else:
                tensors |= {f"unet.{published}.lora_A.weight": down, f"unet.{published}.lora_B.weight": up}
    assert len(tensors) == (3 if way == "kohya" else 2) * 192
    latents, context = rand(1, 4, 16, 8, dtype=torch.float32), rand(1, 77, 768, seed=1, dtype=torch.float32)
    timesteps = torch.tensor([500])
    before = ours(latents, timesteps, context)

    save_file(tensors, tmp_path / "lora.safetensors")
    state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(str(tmp_path / "lora.safetensors"))
    StableDiffusionLoraLoaderMixin.load_lora_into_unet(state, alphas, theirs)
    wanted = theirs(latents, timesteps, context).sample
    for lora in stage.apply_lora(ours, text_encoder, stage.read_lora(tensors, ours, text_encoder)):
        lora.merge()
    stage.take_out(ours)
    got = ours(latents, timesteps, context)
    assert float((got - before).norm() / before.norm()) > 0.01, "the file changes nothing: this test tests nothing"
    check(stage, lambda _: got, wanted, f"UNet()(...) with a file in {way}'s way of writing", tolerance=TOLERANCE)


# --- the memory of a film --------------------------------------------------------------------------------------------


class Memory(TorchDispatchMode):
    """Counts the bytes of all tensors on a device, while they live."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.device, self.users, self.bytes, self.peak = device, Counter(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device == self.device:
                storage = tensor.untyped_storage()  # views have the same one
                if not self.users[storage._cdata]:
                    self.bytes += storage.nbytes()
                    self.peak = max(self.peak, self.bytes)
                self.users[storage._cdata] += 1
                weakref.finalize(tensor, self.leave, storage._cdata, storage.nbytes())
        return result

    def leave(self, storage: int, size: int) -> None:
        self.users[storage] -= 1
        self.bytes -= 0 if self.users[storage] else size


@torch.no_grad()
def test_the_memory_of_a_film_of_sixteen_frames(monkeypatch):
    """In float16 on a GPU, at 512 x 512 pixels, with AnimateDiff's modules: on tensors that have no numbers.

    Attention keeps what torch's kernel for GPUs keeps: its result, and one number for each query. What cuDNN takes for
    its convolutions while it computes, and what CUDA takes itself, is not counted.
    """

    def attention(query, key, value, attn_mask=None):
        query.new_empty(query.shape[:-1], dtype=torch.float32)
        return query.new_empty((*query.shape[:-1], value.shape[-1]))

    gpu, sizes = pretended.gpu(), ModelConfig()
    blocks = for_generating("solutions", fused=True, encore=(13,)).load()
    schedule = schedule_of(blocks)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    with FakeTensorMode(allow_non_fake_inputs=True), Memory(gpu) as memory:
        torch.set_default_dtype(torch.float16)
        try:
            with gpu:
                unet = blocks[13].MotionUNet(blocks[7].UNet(sizes.unet), sizes.unet, blocks[13].MotionConfig())
                vae, text_encoder = blocks[5].VAE(sizes.vae), blocks[6].CLIPTextEncoder(sizes.clip)
        finally:
            torch.set_default_dtype(torch.float32)
        tokenizer = blocks[6].Tokenizer(vocabulary(), MERGES)
        model = blocks[9].StableDiffusion(tokenizer, text_encoder, unet, vae, schedule)
        gc.collect()
        weights, steps = memory.bytes, []
        noise = torch.empty(1, 16, 4, 64, 64, device=gpu)
        film = blocks[13].text_to_video(
            model, ["a cat"], [""], noise, blocks[9].Sampling(2), lambda step: steps.append(memory.peak)
        )
    assert film.shape == (1, 16, 3, 512, 512)
    used = {"weights": weights, "at most in a step": steps[-1], "at most": memory.peak}
    told = {"weights": 3.0, "at most in a step": 5.0, "at most": 9.5}  # in the README
    assert {name: round(size / 1e9, 1) for name, size in used.items()} == told, "write the new figures into the README"
