"""What makes drawing faster gives the same numbers, and asks for what it needs in one sentence."""

import copy
import re
import shutil
from importlib import import_module
from inspect import signature

import pytest
import torch
from torch import nn

from course import cli
from course.core.assemble import for_generating
from course.core.config import CLIPConfig, ModelConfig, UNetConfig, VAEConfig
from course.core.kernels import attention_in_parts, fused_functions
from course.core.messages import Refusal
from course.core.stages import STAGES
from course.draw.checkpoint import TINY, build, open_checkpoint
from course.draw.speed import PackedConv2d, PackedLinear, can_pack, check_compile, speed_up
from course.training.export import write_untrained
from tools import bench

CPU = torch.device("cpu")
GREY_LEVEL = 2 / 255  # of a picture in [-1, 1]; measured: a fiftieth of one

pytestmark = pytest.mark.limit(60)
packs = pytest.mark.skipif(not can_pack(torch.float32), reason="convolutions are packed on x86 processors")
with_model = pytest.mark.skipif(not TINY.exists(), reason="the checkpoint is not here")


def packed(layer: nn.Conv2d | nn.Linear):
    other = copy.deepcopy(layer)
    other.__class__ = PackedConv2d if isinstance(layer, nn.Conv2d) else PackedLinear
    return other


@packs
@torch.inference_mode()
@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 1},
        {"kernel_size": 3, "stride": 2},
        {"kernel_size": (1, 5), "padding": (0, 2), "bias": False},
        {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 2},
    ],
    ids=str,
)
def test_a_packed_convolution_is_the_same(arguments):
    conv = nn.Conv2d(6, 40, **arguments)
    fast = packed(conv)
    for shape in ((2, 6, 8, 8), (1, 6, 33, 20), (2, 6, 8, 8)):  # the first one decides how it is packed
        x = torch.randn(shape)
        for given in (x, x.to(memory_format=torch.channels_last), x.transpose(2, 3)):
            torch.testing.assert_close(fast(given), conv(given), rtol=1e-5, atol=1e-5)
    assert fast.packed is not None and "weight" not in fast.state_dict()
    assert torch.equal(fast.weight, conv.weight)


@packs
@torch.inference_mode()
def test_a_packed_convolution_refuses_what_torch_refuses():
    conv = nn.Conv2d(6, 4, 3)
    for used in (False, True):
        fast = packed(conv)
        if used:
            fast(torch.randn(1, 6, 8, 8))
        assert fast(torch.randn(6, 6, 8)).shape == (4, 4, 6)
        for wrong in (torch.randn(1, 5, 8, 8), torch.randn(1, 6, 8, 8).double(), torch.randn(6, 8)):
            with pytest.raises(RuntimeError) as theirs:
                conv(wrong)
            with pytest.raises(RuntimeError) as ours:
                fast(wrong)
            assert str(ours.value) == str(theirs.value)


@packs
@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_product_is_the_same(monkeypatch, bias, dtype):
    if not can_pack(dtype):
        pytest.skip(f"this processor has no packed weights in {dtype}")
    monkeypatch.setattr("course.draw.speed.LEAST_PACKED", 2 * 9 * 30 * 50)
    linear = nn.Linear(30, 50, bias=bias, dtype=dtype)
    fast = packed(linear)
    few = torch.randn(17, 30, dtype=dtype)
    assert torch.equal(fast(few), linear(few)) and fast.packed is None and "weight" in fast.state_dict()
    rounding = 1e-5 if dtype == torch.float32 else 0.02
    for shape in ((2, 9, 30), (1, 40, 30), (2, 30), (30,), (2, 3, 5, 30), (0, 4, 30)):
        x = torch.randn(shape, dtype=dtype)
        turned = x.mT.contiguous().mT if x.ndim > 1 else x
        for given in (x, torch.cat([x, x], dim=-1)[..., :30], turned):
            torch.testing.assert_close(fast(given), linear(given), rtol=rounding, atol=rounding)
    assert fast.packed is not None and "weight" not in fast.state_dict()
    assert torch.equal(fast.weight, linear.weight)


@packs
@torch.inference_mode()
def test_a_packed_product_refuses_what_torch_refuses(monkeypatch):
    monkeypatch.setattr("course.draw.speed.LEAST_PACKED", 1)
    linear = nn.Linear(6, 4)
    for used in (False, True):
        fast = packed(linear)
        if used:
            fast(torch.randn(3, 6))
        for wrong in (torch.randn(3, 5), torch.randn(3, 6).double(), torch.tensor(1.0)):
            with pytest.raises(RuntimeError) as theirs:
                linear(wrong)
            with pytest.raises(RuntimeError) as ours:
                fast(wrong)
            assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("most", [1, 7, 20, 2**20])
@pytest.mark.parametrize(
    ("query", "context"), [((2, 3, 4, 8), (2, 3, 4, 8)), ((2, 3, 4, 8), (2, 3, 7, 8)), ((3, 5, 8), (3, 6, 8))]
)
def test_attention_in_parts_is_the_formula(monkeypatch, most, query, context):
    monkeypatch.setattr("course.core.kernels.MOST_WEIGHTS", most)
    generator = torch.Generator().manual_seed(most)
    q, k, v = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in (query, context, (*context[:-1], 5))
    )
    formula = import_module("solutions.stage03_attention").scaled_dot_product_attention
    torch.testing.assert_close(attention_in_parts(q, k, v), formula(q, k, v), rtol=1e-12, atol=1e-12)
    half = [x.bfloat16() for x in (q, k, v)]
    fused = fused_functions(3)["scaled_dot_product_attention"](*half)
    torch.testing.assert_close(fused, formula(*half), rtol=0.03, atol=0.03)


X = torch.randn(2, 6, 4, 5)
FUSED = {
    "group_norm": [(X, 3), (X, 2, torch.randn(6), torch.randn(6), 1e-2)],
    "silu": [(X,)],
    "scaled_dot_product_attention": [
        (X, X + 1, X - 1), (X, X + 1, X - 1, torch.randn(4, 4)), (X[0], X[1], X[0] - 1),
        (X[0], X[1], X[0] - 1, torch.randn(6, 4, 4)),
    ],
    "image_to_tokens": [(X,), (X.to(memory_format=torch.channels_last),)],
    "upsample_nearest": [(X,), (X, 3), (X.to(memory_format=torch.channels_last), 2)],
}


def test_fused_functions_are_the_formulas():
    tried = set()
    for stage in STAGES:
        written_out = import_module(f"solutions.{stage.module}")
        for name, function in fused_functions(stage.number).items():
            formula = getattr(written_out, name)
            assert list(signature(function).parameters) == list(signature(formula).parameters)
            for arguments in FUSED[name]:
                torch.testing.assert_close(function(*arguments), formula(*arguments), rtol=1e-5, atol=1e-6)
            tried.add(name)
    assert tried == set(FUSED)


def draw(blocks, model) -> torch.Tensor:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return blocks[9].text_to_image(model, ["a red house"], [""], noise, blocks[9].Sampling(3, 4.0))


@packs
@with_model
def test_packing_draws_the_same_picture():
    blocks = for_generating("solutions").load()
    plain, fast = (build(blocks, open_checkpoint()) for _ in range(2))
    speed_up(fast, CPU, torch.float32, compiled=False)
    torch.testing.assert_close(draw(blocks, fast), draw(blocks, plain), rtol=0, atol=GREY_LEVEL / 8)
    layers = [m for part in (fast.unet, fast.vae.decoder) for m in part.modules()]
    convolutions = [m for m in layers if isinstance(m, nn.Conv2d)]
    assert len(convolutions) > 40 and all(m.packed is not None for m in convolutions)
    assert all(isinstance(m, PackedLinear) for m in layers if isinstance(m, nn.Linear))


@pytest.mark.slow
@pytest.mark.limit(900)
@with_model
def test_compiling_draws_the_same_picture():
    blocks = for_generating("solutions", fused=True).load()
    plain, fast = (build(blocks, open_checkpoint()) for _ in range(2))
    speed_up(fast, CPU, torch.float32, compiled=True)
    torch.testing.assert_close(draw(blocks, fast), draw(blocks, plain), rtol=0, atol=GREY_LEVEL / 8)


def run_bench(*flags):
    return bench.bench(bench.BenchOptions.parse(flags, "bench", ""))


@with_model
@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--steps=0", "STEPS=0 is not possible: choose 1 to 500."), ("--steps=x", "STEPS=x is not a whole number."),
        ("--rounds=0", "ROUNDS=0 is not possible"), ("--scale=abc", "SCALE=abc is not a number."),
        ("--scale=nan", "SCALE=nan is not possible"),
        ("--sampler=ddpm", "SAMPLER=ddpm is not possible: choose ddim, euler or dpm++2m."),
        ("--width=63", "WIDTH=63 is not possible"), ("--width=100000", "the nearest is 4096"),
        ("--dtype=float32,int8", "DTYPE=int8"), ("--dtype=float32,", "DTYPE="), ("--compile=2", "COMPILE=2"),
        ("--checkpoint=/etc/hostname", "hostname"), ("--checkpoint=nowhere", "nowhere"),
        ("--device=cuda:99", "DEVICE=cuda:99"),
    ],
)
def test_what_cannot_be_measured_is_refused(monkeypatch, flag, words):
    monkeypatch.setattr(bench, "measure", lambda *args: pytest.fail("it measured before it refused"))
    with pytest.raises(ValueError, match=re.escape(words)) as refused:
        run_bench(flag)
    assert len(str(refused.value).splitlines()) == 1


@with_model
@pytest.mark.parametrize(
    ("flags", "installed", "wanted"),
    [
        (["--device=cpu"], True, ["float32 eager", "float32 openvino"]),
        (["--device=cpu"], False, ["float32 eager"]),
        (["--device=cpu", "--compile=0"], True, ["float32 eager"]),
        (["--device=cpu", "--engine=torch"], True, ["float32 eager"]),
        (
            ["--device=cpu", "--engine=openvino", "--dtype=float32,bfloat16"],
            True,
            ["float32 openvino", "bfloat16 openvino"],
        ),
        (["--device=mps", "--dtype=float32"], True, ["float32 eager", "float32 compiled"]),
        (
            ["--device=mps", "--compile=1", "--dtype=float32, float16"],
            True,
            ["float32 compiled", "float16 compiled"],
        ),
    ],
    ids=str,
)
def test_which_rows_there_are(monkeypatch, capsys, flags, installed, wanted):
    rows = []

    def measure(options, device):
        rows.append(f"{options.dtype.replace('auto', 'float32')} {options.way}")
        return {"how": rows[-1], "s per picture": "1 / 2"}

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "choose_device", torch.device)  # also one that is not here
    monkeypatch.setattr("importlib.util.find_spec", lambda name: installed or None)
    assert run_bench(*flags) == 0
    assert rows == wanted
    shown = capsys.readouterr().out
    assert "ours / diffusers\n" in shown and all(f"| {row}" in shown for row in wanted)


@with_model
@pytest.mark.limit(240)
def test_the_table(capsys):
    assert run_bench("--steps=1", "--rounds=1", "--compile=0", "--width=64", "--device=cpu") == 0
    shown = capsys.readouterr().out
    row = re.search(r"\| tiny +\| 1 x 64 px \| float32, eager \|.*\| (\S+) \((\S+) to (\S+)\) *\| +(\S+) +\|", shown)
    assert row and row[1] == row[2] == row[3] and 0 < float(row[1]) < 20 and float(row[4]) < 1e-4, shown


@with_model
def test_every_row_of_the_readme(monkeypatch, tmp_path, capsys):
    rows = []
    monkeypatch.setattr(bench, "measure", lambda options, device: rows.append(options) or {"s per picture": "1 / 2"})
    other = tmp_path / "model.safetensors"
    shutil.copy(TINY, other)
    for name in ("config.json", "vocab.json", "merges.txt"):
        (tmp_path / name).symlink_to(TINY.with_name(name))
    assert run_bench("--all=1", "--device=cpu", f"--checkpoint={other}", "--rounds=2") == 0
    named = {(row.checkpoint, row.steps, row.width, row.dtype, row.way) for row in rows}
    assert len(named) == len(rows) and all(row.rounds == 2 for row in rows)
    assert {(str(TINY), 25, None, "float32", "eager"), (str(other), 2, 512, "bfloat16", "eager")} <= named


@with_model
def test_on_a_processor_nothing_is_compiled(capsys, tmp_path):
    wanted = "COMPILE=1 is for a GPU: on a processor draw with COMPILE=0, or with ENGINE=openvino."
    out = tmp_path / "out.png"
    assert cli.main(["generate", "--compile=1", "--device=cpu", "--blocks=solutions", f"--out={out}"]) == 2
    assert capsys.readouterr().err.strip() == wanted and not out.exists()
    with pytest.raises(Refusal, match=re.escape(wanted)):
        run_bench("--compile=1", "--device=cpu")
    for compiled, device in ((False, "cpu"), (True, "cuda"), (True, "mps")):
        check_compile(compiled, torch.device(device))


def test_when_compiling_fails_it_says_so(monkeypatch, capsys, tmp_path):
    """A compiler that is there and does not work."""
    unet = UNetConfig(channels=(8, 8), attention=(False, False), blocks_per_level=1, num_groups=4, context_channels=8)
    clip = CLIPConfig(vocab_size=600, width=8, hidden_width=8, num_layers=1, num_heads=2)
    write_untrained(ModelConfig(VAEConfig(channels=(4, 4, 4, 4), num_groups=2), clip, unet, 32), tmp_path)
    monkeypatch.setattr("course.draw.speed.check_compile", lambda compiled, device: None)
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    out = tmp_path / "out.png"
    flags = ["--compile=1", "--device=cpu", "--blocks=solutions", "--steps=1", f"--checkpoint={tmp_path}"]
    assert cli.main(["generate", *flags, f"--out={out}"]) == 2
    last = capsys.readouterr().err.split("\r")[-1].strip()
    assert last.startswith("COMPILE=1 failed (") and last.endswith("): draw with COMPILE=0.") and not out.exists()
