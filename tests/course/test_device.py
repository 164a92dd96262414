"""All of the pipeline on a GPU, without one: with tensors that have a device, a shape and a dtype, but no numbers.

torch checks them as it would check real ones: operands on two devices, or of two dtypes that do not go together, are
errors. What only numbers show (is the picture right?) is seen on the processor, in float16 and bfloat16 as well.
"""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from course.core.assemble import Blocks, for_generating
from course.draw.speed import speed_up
from solutions.stage09_sampler import SAMPLERS
from tests.stages.small_model import MERGES, TINY, vocabulary

pytestmark = pytest.mark.limit(60)


@pytest.fixture(scope="module")
def gpu() -> torch.device:
    """A device that is none of torch's own; only its name and its shapes are real."""
    _setup_privateuseone_for_python_backend()
    return torch.device("privateuseone:0")


class Watch(TorchDispatchMode):
    """Fails on what is slow or impossible on a GPU."""

    def __init__(self, gpu: torch.device):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        before, after = ([t.device for t in tree_leaves(tree) if isinstance(t, Tensor)] for tree in (args, result))
        assert not (self.gpu in before and torch.device("cpu") in after), f"{function} waits for the GPU"
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device == self.gpu:
                assert tensor.dtype != torch.float64, f"{function}: Apple's GPUs have no float64"
        return result


def schedule_of(blocks: Blocks):
    """A noise schedule: it is on the processor, and has numbers."""
    schedule = blocks[8].NoiseSchedule()
    abar = schedule.alphas_cumprod.tolist()
    schedule.alpha_bar = lambda t: 1.0 if t < 0 else abar[t]
    return schedule


def pretended(blocks: Blocks, gpu: torch.device, dtype: torch.dtype, schedule):
    """A StableDiffusion whose three models have no numbers; to be made where no tensors have any."""
    torch.set_default_dtype(dtype)
    try:
        with gpu:
            parts = {
                "unet": blocks[7].UNet(TINY.unet), "vae": blocks[5].VAE(TINY.vae),
                "text_encoder": blocks[6].CLIPTextEncoder(TINY.clip),
            }
    finally:
        torch.set_default_dtype(torch.float32)
    return blocks[9].StableDiffusion(**parts, tokenizer=blocks[6].Tokenizer(vocabulary(), MERGES), schedule=schedule)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("fused", [False, True], ids=["written out", "fused"])
def test_the_pipeline_stays_on_the_gpu(gpu, dtype, fused):
    blocks = for_generating("solutions", fused=fused).load()
    schedule = schedule_of(blocks)
    with FakeTensorMode(allow_non_fake_inputs=True), Watch(gpu):
        model = pretended(blocks, gpu, dtype, schedule)
        speed_up(model, torch.device("cuda"), dtype, compiled=False)
        noise, images, mask = (torch.empty(1, n, side, side, device=gpu) for n, side in ((4, 8), (3, 16), (1, 16)))
        for tensor in (
            blocks[9].text_to_image(model, ["a cat"], [""], noise, blocks[9].Sampling(1)),
            blocks[9].inpaint(model, images, mask, ["a cat"], [""], noise, sampling=blocks[9].Sampling(2)),
        ):
            assert tensor.shape == (1, 3, 16, 16) and tensor.device == gpu and tensor.dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_stay_on_the_gpu(gpu, sampler):
    blocks = for_generating("solutions").load()
    schedule = schedule_of(blocks)
    with FakeTensorMode(allow_non_fake_inputs=True), Watch(gpu):
        model = pretended(blocks, gpu, torch.float16, schedule)
        model.unet = lambda latents, timesteps, contexts: latents * timesteps.to(latents.dtype).reshape(-1, 1, 1, 1)
        noise, images = (torch.empty(1, n, side, side, device=gpu) for n, side in ((4, 8), (3, 16)))
        sampling = blocks[9].Sampling(5, sampler=sampler)
        tensor = blocks[9].image_to_image(model, images, ["a cat"], [""], noise, sampling=sampling)
        assert tensor.shape == (1, 3, 16, 16) and tensor.device == gpu and tensor.dtype == torch.float32
