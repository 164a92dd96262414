"""The references that are imported without torch's compiler compute what they compute with it."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from course.core.stages import ROOT
from tests.stages import light, reference
from tests.stages.small_pipeline import Picture

pytestmark = pytest.mark.limit(60)

WITH_COMPILER = """
import contextlib, sys
import torch
import torch._dynamo
from tests.stages import light
@contextlib.contextmanager
def as_ever():
    yield
light.without_compiler = as_ever
from tests.course.test_light import results
assert "torch.distributed.tensor" in sys.modules
torch.save(results(), sys.argv[1])
"""


@torch.no_grad()
def results() -> dict[str, Tensor]:
    """What the references of all stages give."""
    torch.set_num_threads(1)
    latents, images = (torch.linspace(-1, 1, n * 64).reshape(1, n, 8, 8).double() for n in (4, 3))
    tokens = torch.arange(20).reshape(2, 10)
    context = torch.linspace(-1, 1, 5 * 20).reshape(1, 5, 20).double()
    return {
        "unet": reference.unet(reference.SMALL_UNET)(latents, 7, context).sample,
        "vae": reference.vae(reference.SMALL_VAE)(images).sample,
        "clip": reference.clip(reference.SMALL_CLIP)(tokens).last_hidden_state,
        "pipeline": Picture("text", steps=2).theirs(),
    }


def test_the_references_compute_the_same_with_the_compiler(tmp_path):
    file = tmp_path / "results.pt"
    done = subprocess.run([sys.executable, "-c", WITH_COMPILER, file], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    wanted = torch.load(file)
    found = results()
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in wanted.items()}
    for name, tensor in found.items():
        assert torch.equal(tensor, wanted[name]) and tensor.isfinite().all(), name


WITHOUT_COMPILER = """
import importlib, sys
from pathlib import Path
import torch
from tests.course.test_light import results
for path in sorted(Path("tests/stages").glob("test_*.py")):
    importlib.import_module(f"tests.stages.{path.stem}")
    for heavy in ("torch._dynamo", "torch.distributed.tensor"):
        if heavy in sys.modules:
            sys.exit(f"{path} imports {heavy}: import diffusers and transformers in a `with without_compiler()`")
results()
assert "torch._dynamo" not in sys.modules and torch.distributed.is_available()
assert torch.compiler.disable(len) is not len and "torch._dynamo.eval_frame" in sys.modules
"""


def test_no_test_of_a_stage_imports_the_compiler_and_it_is_there_afterwards():
    done = subprocess.run(
        [sys.executable, "-c", "from course.learn import plugin\n" + WITHOUT_COMPILER],
        cwd=ROOT, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_needs_the_compiler_says_so():
    with pytest.raises(RuntimeError, match="needs torch's compiler"):
        light.NotImported()


AFTERWARDS = """
import inspect, sys
import torch
from course.learn import plugin
from tests.stages import light, reference
with light.without_compiler():
    from diffusers import StableDiffusionPipeline
    from diffusers.loaders import lora_base
    from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion
    assert inspect.getmodule(inspect.currentframe()) is sys.modules["__main__"]
assert not {"peft", "transformers.image_processing_base", "diffusers.models.unets.unet_1d"} & set(sys.modules)
layer, processor = lora_base.BaseTunerLayer, pipeline_stable_diffusion.CLIPImageProcessor
assert not isinstance(torch.nn.Linear(2, 2), layer) and not isinstance(None, processor)
import diffusers.models.unets, transformers
assert diffusers.models.unets.UNet1DModel is diffusers.UNet1DModel
assert transformers.BertModel.__module__ == "transformers.models.bert.modeling_bert"
assert transformers.CLIPTextModel is reference.CLIPTextModel
assert isinstance(transformers.CLIPImageProcessor(), processor) and isinstance(processor(), processor)
import peft
model = peft.inject_adapter_in_model(
    peft.LoraConfig(target_modules=["0"]), torch.nn.Sequential(torch.nn.Linear(2, 2))
)
assert isinstance(model[0], layer) and not isinstance(model, layer) and torch.distributed.is_available()
class Processor(processor):
    pass
assert issubclass(Processor, transformers.CLIPImageProcessor)
"""


def test_what_was_left_out_comes_when_it_is_asked_for():
    done = subprocess.run([sys.executable, "-c", AFTERWARDS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
