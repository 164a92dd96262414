"""The solutions need torch and Python's standard library, and nothing else: not the course, not numpy."""

import ast
import shutil
import subprocess
import sys
import textwrap

from course.core.stages import SOLUTIONS, STAGES

# What torch itself is made of and imports.
TORCH = {
    "torch", "functorch", "torchgen", "filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "sympy",
    "triton", "typing_extensions",
}

ALONE = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in sys.stdlib_module_names | {TORCH} | {{"solutions"}}:
            raise ModuleNotFoundError(f"{{name}} is neither torch nor in the standard library")

sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])

for other in ("course", "numpy", "regex"):
    try:
        __import__(other)
        sys.exit(f"{{other}} could be imported: this test tests nothing")
    except ImportError:
        pass
"""

DRAW = """
import torch
from solutions import stage10_key_remapper
from solutions.stage05_vae import VAE, VAEConfig, tensor_to_images
from solutions.stage06_clip import BEGIN, END, CLIPConfig, CLIPTextEncoder, Tokenizer
from solutions.stage07_unet import UNet, UNetConfig
from solutions.stage08_scheduler import NoiseSchedule
from solutions.stage09_sampler import Sampling, StableDiffusion, text_to_image

tokenizer = Tokenizer({"a</w>": 0, BEGIN: 1, END: 2}, [])
text_encoder = CLIPTextEncoder(CLIPConfig(vocab_size=3, width=8, hidden_width=8, num_layers=1, num_heads=2))
unet = UNet(UNetConfig(channels=(8, 8), attention=(True, False), num_heads=2, context_channels=8, num_groups=4))
vae = VAE(VAEConfig(channels=(8, 8, 8, 8), blocks_per_level=1, num_groups=4))
model = StableDiffusion(tokenizer, text_encoder, unet, vae, NoiseSchedule())
picture = text_to_image(model, ["a"], [""], torch.randn(1, 4, 4, 6), Sampling(num_steps=2))
print(tuple(tensor_to_images(picture).shape))
"""


def test_imports_of_the_solutions():
    for stage in STAGES:
        for node in ast.walk(ast.parse(stage.solution.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                root = name.split(".")[0]
                assert root == "torch" or root in sys.stdlib_module_names, f"{stage.module} imports {name}"


def test_a_copy_of_the_solutions_draws_by_itself(tmp_path):
    shutil.copytree(SOLUTIONS, tmp_path / "solutions", ignore=shutil.ignore_patterns("__pycache__"))
    program = textwrap.dedent(ALONE + DRAW)
    result = subprocess.run(
        [sys.executable, "-I", "-c", program, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path, timeout=100
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.strip() == "(1, 32, 48, 3)"
