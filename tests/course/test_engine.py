"""ENGINE=openvino draws the same picture with the same blocks, or says in one sentence why it does not."""

import importlib.util
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from course import cli
from course.core.config import ModelConfig
from course.core.messages import Refusal
from course.draw import engine
from course.draw.checkpoint import TINY, open_checkpoint
from course.draw.engine import FEW_STEPS, InOpenVINO, check_engine, choose_engine
from course.draw.pictures import read_settings

CPU = torch.device("cpu")
pytestmark = pytest.mark.limit(60)


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: SimpleNamespace())


@pytest.mark.parametrize(
    ("device", "dtype", "compiled", "film", "words"),
    [
        ("cuda", torch.float32, False, False, "ENGINE=torch for DEVICE=cuda"),
        ("cpu", torch.float16, False, False, "DTYPE=float16 needs ENGINE=torch"),
        ("cpu", torch.float32, True, False, "ENGINE=openvino and COMPILE=1 do not go together"),
        ("cpu", torch.float32, False, True, "FRAMES, a film, needs ENGINE=torch"),
    ],
)
def test_what_it_cannot_do_is_refused(installed, device, dtype, compiled, film, words):
    check_engine("torch", torch.device(device), dtype, compiled, film)
    check_engine("openvino", CPU, torch.bfloat16, False)
    with pytest.raises(Refusal, match=re.escape(words)):
        check_engine("openvino", torch.device(device), dtype, compiled, film)


def test_where_it_is_not_installed_one_sentence_says_so(monkeypatch, capsys, tmp_path):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "openvino" else find_spec(name))
    flags = ["--engine=openvino", "--device=cpu", "--blocks=solutions", f"--out={tmp_path / 'out.png'}"]
    assert cli.main(["generate", *flags]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "ENGINE=openvino is not installed here: pip install openvino, or draw with ENGINE=torch."
    ]
    assert not (tmp_path / "out.png").exists()
    assert cli.main(["generate", "--engine=onnx"]) == 2
    assert "choose auto, torch or openvino" in capsys.readouterr().err


@pytest.mark.skipif(not TINY.exists(), reason="the checkpoint is not here")
def test_auto_is_what_takes_least_time(monkeypatch, installed):
    small, wide = open_checkpoint(TINY).config, ModelConfig()
    many = ("auto", FEW_STEPS, CPU, torch.float32, False)
    assert choose_engine(*many, small) == "openvino" and choose_engine(*many, wide) == "torch"
    assert choose_engine("auto", FEW_STEPS - 1, CPU, torch.float32, False, small) == "torch"
    assert choose_engine("auto", FEW_STEPS, torch.device("cuda"), torch.float32, False, small) == "torch"
    assert choose_engine("auto", FEW_STEPS, CPU, torch.float16, False, small) == "torch"
    assert choose_engine("auto", FEW_STEPS, CPU, torch.float32, True, small) == "torch"
    assert choose_engine(*many, small, film=True) == "torch"
    for asked in ("torch", "openvino"):
        assert choose_engine(asked, 1, CPU, torch.float32, False, wide) == asked
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose_engine(*many, small) == "torch"


@pytest.mark.skipif(not TINY.exists(), reason="the checkpoint is not here")
def test_many_pictures_are_drawn_by_openvino_and_a_picture_remembers_it(monkeypatch, capsys, tmp_path):
    Pretended(monkeypatch)
    find_spec = importlib.util.find_spec
    there = {"openvino": SimpleNamespace()}
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: there.get(name) or find_spec(name, *more))
    monkeypatch.setattr("course.draw.engine.FEW_STEPS", 4)
    out = tmp_path / "out.png"
    draw = ["generate", "--steps=2", "--device=cpu", "--blocks=solutions", "--seed=1", f"--out={out}"]
    assert cli.main(draw) == 0
    assert "OpenVINO" not in capsys.readouterr().out and read_settings(str(out))["engine"] == "torch"
    assert cli.main([*draw, "--count=2"]) == 0
    shown = capsys.readouterr().out
    assert "with OpenVINO, which is faster for so many steps, loaded" in shown and "recorded when" in shown
    film = [
        "generate",
        "--frames=2",
        "--steps=4",
        "--device=cpu",
        "--seed=1",
        "--blocks=solutions",
        f"--out={tmp_path / 'film.gif'}",
    ]
    assert cli.main(film) == 0 and "OpenVINO" not in capsys.readouterr().out
    assert cli.main([*film, "--engine=openvino"]) == 2
    assert capsys.readouterr().err == "ENGINE=openvino draws pictures: FRAMES, a film, needs ENGINE=torch.\n"
    second = tmp_path / "out-2.png"
    assert read_settings(str(second))["engine"] == "openvino"
    assert cli.main(["generate", f"--from={second}", f"--out={tmp_path / 'again.png'}"]) == 0
    assert "float32 with OpenVINO, loaded" in capsys.readouterr().out
    assert (tmp_path / "again.png").read_bytes() == second.read_bytes()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 5)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return torch.tanh(self.linear(x)) * timesteps[:, None]


class Frozen(Block):
    """What it does depends on a number that Python works out of the first input."""

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return super().forward(x, timesteps) * float(timesteps[0])


class Pretended:
    """In place of OpenVINO: it runs the recorded module, in which what Python works out stays as it was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.fails = False
        pretended = SimpleNamespace(convert_model=self.convert_model, Core=lambda: self)
        monkeypatch.setitem(sys.modules, "openvino", pretended)

    def convert_model(self, module: torch.jit.ScriptModule, example_input: tuple[Tensor, ...], input: list):
        if self.fails:
            raise ArithmeticError("an operation\nis not known")
        assert input == [tuple(tensor.shape) for tensor in example_input]
        return module

    def compile_model(self, model: torch.jit.ScriptModule, device: str, settings: dict):
        assert device == "CPU" and settings["INFERENCE_PRECISION_HINT"] in ("f32", "bf16")

        def infer(inputs: list, share_inputs: bool):
            return [model(*map(torch.from_numpy, inputs)).numpy()]

        return SimpleNamespace(create_infer_request=lambda: SimpleNamespace(infer=infer))


@pytest.fixture
def library(monkeypatch):
    """OpenVINO if it is installed, or else something that behaves like it."""
    try:
        import openvino

        return openvino
    except ImportError:
        return Pretended(monkeypatch)


X, T = torch.linspace(-1, 1, 12).reshape(2, 6), torch.tensor([3, 5])


@torch.inference_mode()
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_computes_what_the_module_computes(library):
    module = Block()
    fast = InOpenVINO(module, torch.float32)
    for x, t in ((X, T), (X.flip(0) * 2, T + 7), (X[:1], T[:1])):
        torch.testing.assert_close(fast(x, t), module(x, t), rtol=1e-5, atol=1e-6)
    assert len(fast.programs) == 2  # one for each shape
    assert fast.linear is module.linear
    with pytest.raises(AttributeError, match="nothing"):
        fast.nothing  # noqa: B018
    rough = InOpenVINO(module, torch.bfloat16)(X, T)
    torch.testing.assert_close(rough, module(X, T), rtol=0.05, atol=0.05)


@torch.inference_mode()
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_module_that_cannot_be_recorded_is_refused(library):
    with pytest.raises(Refusal, match="gives another result than the blocks themselves"):
        InOpenVINO(Frozen(), torch.float32)(X, T)


@torch.inference_mode()
def test_a_failure_of_the_engine_is_one_sentence_and_one_of_the_module_stays_what_it_is(monkeypatch, capsys):
    Pretended(monkeypatch).fails = True
    with pytest.raises(Refusal, match=r"^ENGINE=openvino failed \(.*an operation.*\): draw with ENGINE=torch\.$"):
        InOpenVINO(Block(), torch.float32)(X, T)
    kept, module = InOpenVINO(Block(), torch.float32, asked=False), Block()
    kept.module = module
    assert torch.equal(kept(X, T), module(X, T)) and torch.equal(kept(X + 1, T), module(X + 1, T))
    note = capsys.readouterr().out.splitlines()
    assert len(note) == 1 and note[0].startswith("Note: ENGINE=openvino failed (") and "goes on with torch" in note[0]
    monkeypatch.setitem(sys.modules, "openvino", None)  # installed, but it cannot be imported
    with pytest.raises(Refusal, match=r"^ENGINE=openvino failed \(.*openvino.*\): draw with ENGINE=torch\.$"):
        InOpenVINO(Block(), torch.float32)(X, T)
    assert torch.equal(InOpenVINO(module, torch.float32, asked=False)(X, T), module(X, T))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        InOpenVINO(Block(), torch.float32)(X[:, :3], T)


def test_other_values_are_of_the_same_kind():
    for tensor in (X, T):
        other = engine.another(tensor)
        assert other.shape == tensor.shape and other.dtype == tensor.dtype and not torch.equal(other, tensor)
