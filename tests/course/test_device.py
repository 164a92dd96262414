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

from course.core.assemble import Blocks, for_generating
from course.draw.speed import speed_up
from solutions.stage09_sampler import SAMPLERS
from tests.stages import pretended
from tests.stages.small_model import MERGES, TINY, vocabulary

pytestmark = pytest.mark.limit(60)


@pytest.fixture(scope="module")
def gpu() -> torch.device:
    """A device that is none of torch's own; only its name and its shapes are real."""
    return pretended.gpu()


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


def pretended_model(blocks: Blocks, gpu: torch.device, dtype: torch.dtype, schedule):
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
        model = pretended_model(blocks, gpu, dtype, schedule)
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
        model = pretended_model(blocks, gpu, torch.float16, schedule)
        model.unet = lambda latents, timesteps, contexts: latents * timesteps.to(latents.dtype).reshape(-1, 1, 1, 1)
        noise, images = (torch.empty(1, n, side, side, device=gpu) for n, side in ((4, 8), (3, 16)))
        sampling = blocks[9].Sampling(5, sampler=sampler)
        tensor = blocks[9].image_to_image(model, images, ["a cat"], [""], noise, sampling=sampling)
        assert tensor.shape == (1, 3, 16, 16) and tensor.device == gpu and tensor.dtype == torch.float32


# --- the GPU of the stages' tests, which computes --------------------------------------------------------------------

X = torch.randn(2, 4, 3, 3)


def on_gpu(call):
    with torch.no_grad(), pretended.PretendedGPU(__file__):
        return call(pretended.moved(X))


@pytest.mark.parametrize("call", [
    lambda x: torch.nn.functional.group_norm(x, 2) + torch.arange(3, device=x.device),
    lambda x: torch.nn.functional.scaled_dot_product_attention(x, x, x + torch.full((3, 3), -1.0).triu(1).to(x.device)),
    lambda x: torch.cat([x, x.new_zeros(2, 1, 3, 3)], dim=1) * torch.tensor(2.0) * torch.tensor([1.0], device=x.device),
    lambda x: torch.tensor([2 * number for number in x.flatten().tolist()], device=x.device),
    lambda x: x * float(x.max()) if (x == x).all() else -x,
    lambda x: torch.nn.functional.interpolate(x, scale_factor=2).to(memory_format=torch.channels_last).half().float(),
    lambda x: x[torch.tensor([1, 0])].clone().add_(1).cpu().to(x.device),
    lambda x: torch.empty(2, 4, 3, 3, device=x.device).copy_(x.cpu()),
    lambda x: torch.randn(3, generator=torch.Generator().manual_seed(1)).to(x.device),
], ids=range(9))
def test_what_goes_on_a_gpu_gives_the_same_numbers(call):
    result = on_gpu(call)
    assert result.device == pretended.gpu() and not result.is_cpu
    torch.testing.assert_close(pretended.fetched(result), call(X))


@pytest.mark.parametrize(("call", "message"), [
    (lambda x: x + torch.zeros(3), r"add gets .* \(3,\) that zeros has made on the processor, and .* \(2, 4, 3, 3\)"),
    (lambda x: torch.cat([x, torch.zeros(2, 1, 3, 3)], dim=1), "cat gets"),
    (lambda x: torch.zeros(3)[torch.tensor([0]).to(x.device)], "index gets"),
    (lambda x: torch.nn.functional.embedding(torch.tensor([1]), x[0, 0]), "embedding gets"),
    (lambda x: x.double(), r"makes a float64 tensor of shape \(.*\) on the GPU"),
    (lambda x: torch.arange(3.0, device=x.device).new_zeros(2, dtype=torch.float64), "makes a float64 tensor of shape"),
    (lambda x: torch.randn(3, device=x.device, generator=torch.Generator()), "its generator is one of the processor"),
    (lambda x: pretended.fetched(x.cpu()), "the result is on the processor"),
], ids=range(8))
def test_what_a_gpu_refuses_is_refused(call, message):
    with pytest.raises(pretended.WrongDevice, match=message):
        on_gpu(call)
