"""LoRA files in make generate: against diffusers' own loading, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from course import cli
from course.core.assemble import for_generating
from course.core.stages import ROOT
from course.draw import checkpoint as ckpt
from course.draw import lora, pictures

pytestmark = pytest.mark.limit(200)

PROMPT = "a red house in the snow at night"
STEPS = 3


@pytest.fixture(scope="module")
def blocks():
    return for_generating("solutions", encore=lora.NEEDED_BY_LORA).load()


@pytest.fixture(scope="module")
def layers(blocks):
    """Name of a file's layer without its prefix -> (part, weight), of the small model."""
    model = ckpt.build(blocks, ckpt.open_checkpoint())
    return {
        (part, blocks[12].published_name(name)): layer.weight
        for part in ("unet", "text_encoder")
        for name, layer in blocks[12].layers_of(getattr(model, part)).items()
    }


def write_lora(path: Path, layers, way: str, which: str, rank: int = 3, alpha: float | None = 2.0, seed: int = 0,
               metadata: dict[str, str] | None = None) -> Path:
    """A LoRA file of random numbers for the layers in whose names the pattern is found."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for (part, name), weight in layers.items():
        if not re.search(which, name):
            continue
        down = torch.randn(rank, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
        up = 0.2 * torch.randn(len(weight), rank, *(1,) * (weight.ndim - 2), generator=generator)
        if way == "kohya":
            stem = f"lora_{'te' if part == 'text_encoder' else part}_{name.replace('.', '_')}"
            tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
            if alpha is not None:
                tensors[f"{stem}.alpha"] = torch.tensor(alpha)
        else:
            tensors |= {f"{part}.{name}.lora_A.weight": down, f"{part}.{name}.lora_B.weight": up}
    save_file(tensors, path, metadata)
    return path


@pytest.fixture
def draw(tmp_path, monkeypatch, capsys):
    """make generate with a few steps, in an empty folder: exit code, screen, errors."""
    monkeypatch.setenv("COURSE_EXERCISES", str(ROOT / "exercises"))
    monkeypatch.chdir(tmp_path)

    def run(*flags, blocks="solutions"):
        fixed = ("--out=out.png", "--seed=3", f"--steps={STEPS}", "--device=cpu", f"--blocks={blocks}")
        fixed = [flag for flag in fixed if not any(f.startswith(flag.split("=")[0]) for f in flags)]
        code = cli.main(["generate", *([] if any("--from" in f for f in flags) else fixed), *flags])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def picture_of_diffusers(files: dict[Path, float]) -> np.ndarray:
    """The same picture, drawn by diffusers' pipeline with its own loading of LoRA files."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    folder = ckpt.TINY.parent
    pipeline = StableDiffusionPipeline.from_single_file(
        str(ckpt.TINY), config=str(folder / "diffusers"), local_files_only=True
    )
    pipeline.unet = type(pipeline.unet).from_single_file(
        str(ckpt.TINY), config=str(folder / "diffusers"), subfolder="unet", extract_ema=True, local_files_only=True
    )
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    for i, file in enumerate(files):
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=f"a{i}")
    pipeline.set_adapters([f"a{i}" for i in range(len(files))], [*files.values()])
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(3))
    drawn = pipeline(PROMPT, num_inference_steps=STEPS, guidance_scale=4.0, latents=noise, output_type="np")
    return (drawn.images[0] * 255).round().astype(int)


ATTENTION = r"attn\d?\.(to_[qkv]|to_out\.0|[qkv]_proj|out_proj)$"
ALL_OF_A_TRANSFORMER = r"transformer_blocks|attentions\.\d\.proj_|self_attn|mlp"
METADATA = {"lora_adapter_metadata": json.dumps({"unet.r": 3, "unet.lora_alpha": 6, "text_encoder.r": 3,
                                                 "text_encoder.lora_alpha": 1.5})}


@pytest.mark.parametrize(
    ("way", "which", "options", "strength"),
    [
        ("kohya", ATTENTION, {}, 1.0),
        ("kohya", ALL_OF_A_TRANSFORMER, {"alpha": None}, 0.6),
        ("peft", ATTENTION, {}, 1.0),
    ],
    ids=["kohya", "kohya without alphas", "peft"],
)
def test_picture_of_diffusers_with_the_same_file(draw, layers, tmp_path, way, which, options, strength):
    pytest.importorskip("peft")
    path = write_lora(tmp_path / "random.safetensors", layers, way, which, **options)
    code, shown, errors = draw(f"--lora={path}:{strength}", f"--prompt={PROMPT}")
    assert code == 0, errors
    assert f"changes {sum(bool(re.search(which, name)) for _, name in layers)} layers, strength {strength:g}" in shown
    assert "Encore: stage 12 lora is the reference." in shown
    ours, theirs = pixels("out.png"), picture_of_diffusers({path: strength})
    draw(f"--prompt={PROMPT}", "--out=without.png")
    assert np.abs(pixels("without.png") - ours).max() > 20, "the file changes nothing: this test tests nothing"
    assert np.abs(ours - theirs).max() <= 1


def test_the_shipped_file_draws_what_diffusers_draws_with_it(draw):
    pytest.importorskip("peft")
    path = ckpt.TINY.with_name("snowman.safetensors")
    assert path.stat().st_size < 400_000
    code, _, errors = draw(f"--lora={path}", f"--prompt={PROMPT}")
    assert code == 0, errors
    draw(f"--prompt={PROMPT}", "--out=without.png")
    ours, theirs, before = pixels("out.png"), picture_of_diffusers({path: 1.0}), pixels("without.png")
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - before).max() > 20


def test_several_files_like_diffusers(draw, layers, tmp_path):
    pytest.importorskip("peft")
    first = write_lora(tmp_path / "one.safetensors", layers, "kohya", ATTENTION, seed=1)
    second = write_lora(tmp_path / "two.safetensors", layers, "kohya", r"attn2\.to_[kv]$", rank=5, alpha=5.0, seed=2)
    assert draw(f"--lora={first}:0.5, {second}:-0.8", f"--prompt={PROMPT}")[0] == 0
    assert np.abs(pixels("out.png") - picture_of_diffusers({first: 0.5, second: -0.8})).max() <= 1


def test_alphas_in_the_metadata_count(layers, tmp_path):
    """diffusers notes peft's alpha there, and not among the tensors."""
    path = write_lora(tmp_path / "peft.safetensors", layers, "peft", ATTENTION, metadata=METADATA)
    alphas = {name: float(tensor) for name, tensor in lora.read_file(path).items() if name.endswith(".alpha")}
    assert set(alphas.values()) == {6.0, 1.5}
    assert {name.split(".")[0] for name, alpha in alphas.items() if alpha == 6.0} == {"unet"}
    config = {"unet.lora_alpha": 6, "unet.use_rslora": True, "unet.alpha_pattern": {"a": 4}}
    tensors = {f"unet.{name}.lora_A.weight": torch.zeros(9, 5) for name in ("a", "b")}
    assert {name: float(alpha) for name, alpha in lora.alphas_of(tensors, config).items()} == {
        "unet.a.alpha": 12.0, "unet.b.alpha": 18.0
    }


def test_strength_zero_changes_nothing_and_a_picture_is_repeated(draw, layers, tmp_path):
    path = write_lora(tmp_path / "random.safetensors", layers, "kohya", ATTENTION)
    assert draw("--out=without.png")[0] == 0 and draw(f"--lora={path}:0")[0] == 0
    assert (pixels("out.png") == pixels("without.png")).all()
    draw(f"--lora={path}:0.5", "--out=half.png")
    assert draw("--from=half.png", "--out=again.png")[0] == 0
    assert (pixels("half.png") == pixels("again.png")).all()
    assert pictures.read_settings("half.png")["lora"] == f"{path}:0.5"
    with Image.open("half.png") as picture:
        assert f"LoRA: {path}:0.5" in picture.text["parameters"].replace('"', "")
    write_lora(path, layers, "kohya", ATTENTION, seed=9)
    code, shown, _ = draw("--from=half.png", "--out=other.png")
    assert code == 0 and f"LORA={path} is not the file that it was" in shown


def test_a_file_in_half_precision(draw, layers, tmp_path):
    from safetensors.torch import load_file

    path = write_lora(tmp_path / "random.safetensors", layers, "kohya", ATTENTION)
    draw(f"--lora={path}", "--out=full.png")
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path)
    assert draw(f"--lora={path}")[0] == 0
    assert np.abs(pixels("out.png") - pixels("full.png")).max() <= 3


NAME = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 8)}, "for another one, such as SDXL?"),
        ({f"{NAME}.lora_down.weight": (4, 640), f"{NAME}.lora_up.weight": (640, 4)}, "not fit a weight of 160 x 160"),
        ({f"{NAME}.lora_down.weight": (4, 160)}, "the file has no up for it"),
        ({f"{NAME}.hada_w1_a": (4, 160)}, "is no part of a LoRA"),
        ({"model.diffusion_model.out.2.weight": (4, 160)}, "is no part of a LoRA"),
    ],
    ids=["SDXL", "other shapes", "half a layer", "another method", "a checkpoint"],
)
def test_a_file_that_does_not_fit_is_refused(draw, tmp_path, tensors, words):
    path = tmp_path / "wrong.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, path)
    code, _, errors = draw(f"--lora={path}")
    assert code == 2 and errors.startswith(path.name) and words in errors and len(errors.splitlines()) == 1, errors
    assert not Path("out.png").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nowhere.safetensors", "LORA=nowhere.safetensors: there is no file nowhere.safetensors"),
        ("nowhere.safetensors:0.5", "there is no file nowhere.safetensors"),
        ("here.safetensors,", "there is no file (no name)"),
        ("here.safetensors:nan", "a strength from -100 to 100"),
        ("here.safetensors:1e9", "a strength from -100 to 100"),
        ("here.safetensors:strong", "there is no file here.safetensors:strong"),
        ("here.safetensors", "is truncated or damaged"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(draw, text, words):
    Path("here.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    code, _, errors = draw(f"--lora={text}")
    assert code == 2 and words in errors and len(errors.splitlines()) == 1, errors
    assert not Path("out.png").exists()
