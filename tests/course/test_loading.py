"""Model files: diffusers reads every tensor, and loading takes the memory of the models and little more."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from course.core.config import tiny_config
from course.core.stages import ROOT
from course.training.export import assemble, write_untrained
from tests.stages import compvis
from tests.stages.small_model import TINY
from tests.stages.small_pipeline import SMALL

pytestmark = pytest.mark.limit(120)

MARGIN = 50  # MB that may be left beside the weights

# Loads in a process of its own, and counts the memory that is the process's alone (RssAnon): pages of the mapped file
# (RssFile) are the system's cache, which it takes back when it needs to.
LOAD = """
import json, sys
import torch
from course.core.assemble import for_generating
from course.draw.checkpoint import build, open_checkpoint

def megabytes():
    line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024 / 1e6

torch.set_num_threads(1)
blocks = for_generating("solutions", fused=True).load()
build(blocks, open_checkpoint())
opened = open_checkpoint(sys.argv[1])
for name in ("float32", "bfloat16"):
    before = megabytes()
    model = build(blocks, opened, dtype=getattr(torch, name))
    taken = megabytes() - before
    parts = (model.text_encoder, model.vae, model.unet)
    weights = sum(t.nbytes for part in parts for t in part.state_dict().values()) / 1e6
    first = model.unet.state_dict()
    again = build(blocks, opened, dtype=getattr(torch, name)).unet.state_dict()
    same = all(torch.equal(again[name], tensor) for name, tensor in first.items())
    print(json.dumps({"dtype": name, "taken": taken, "weights": weights, "same": same}))
    del model, parts, first, again
"""


@pytest.mark.parametrize("config", [SMALL, TINY, tiny_config()], ids=["four levels", "two levels", "tiny_config"])
def test_diffusers_reads_what_is_exported(config):
    """Its conversion of the file gives all our weights back, under our names."""
    weights = compvis.weights(config)
    tensors = assemble(config, *weights, num_updates=7, dtype=torch.float32)
    for part, ema, ours in zip(("vae", "clip", "unet", "unet"), (False, False, False, True), weights):
        theirs = compvis.wanted(part, tensors, getattr(config, part), ema)
        assert theirs.keys() == ours.keys()
        assert [name for name in ours if not torch.equal(theirs[name], ours[name])] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint in float32, once as .safetensors and once as .ckpt: 206 MB; half of the U-Net's is not read."""
    folder = tmp_path_factory.mktemp("larger")
    config = tiny_config()
    config = dataclasses.replace(config, unet=dataclasses.replace(config.unet, channels=(128, 192, 320)))
    write_untrained(config, folder)
    tensors = {name: t.float() for name, t in load_file(folder / "model.safetensors").items()}
    torch.save({"state_dict": tensors}, folder / "model.ckpt")
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measured with Linux's /proc")
@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
def test_loading_takes_the_memory_of_the_models(folder, name):
    command = [sys.executable, "-c", LOAD, str(folder / name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["dtype"] for line in lines] == ["float32", "bfloat16"]
    for line in lines:
        assert line["same"], "the file gave other weights when it was read again"
        assert line["taken"] < line["weights"] + MARGIN, line
