"""`make page`: what it refuses, and what it does with a stage that cannot be recorded."""


import pytest
import torch
from torch import nn

from course import cli
from course.core.assemble import assemble
from course.core.messages import Refusal
from course.core.stages import STAGES
from course.draw.checkpoint import open_checkpoint
from course.page import build as building
from course.page import export, runtime

pytestmark = pytest.mark.limit(600)


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert cli.main(["page", f"--out={tmp_path}"]) == 2
    assert capsys.readouterr().err.endswith(" is there and holds no page: name a new folder.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_without_the_internet_one_sentence_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    monkeypatch.setattr(runtime, "REGISTRY", "http://127.0.0.1:9")
    assert cli.main(["page", "--blocks=solutions", f"--out={tmp_path / 'page'}"]) == 2
    assert "`make page` needs the internet the first time." in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_of_the_cache_is_not_used(tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(runtime, "CACHE", tmp_path)
    monkeypatch.setattr(runtime, "fetch", lambda: fetched.append(1))
    for name in runtime.FILES:
        (tmp_path / name).write_bytes(b"damaged")
    runtime.files()
    assert fetched == [1]


class Plain(nn.Module):
    def forward(self, x):
        return 2 * x


class Branching(nn.Module):
    def forward(self, x):
        return x if float(x.mean()) > 0 else -x


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


def test_what_cannot_be_recorded_is_noticed():
    x = {"x": torch.linspace(1, 2, 6)}
    export.record(export.Network(Plain(), x, ("y",)))
    with pytest.raises(export.NotRecorded):
        export.record(export.Network(Branching(), x, ("y",)))
    with pytest.raises(export.NotRecorded, match="another result"):
        export.record(export.Network(Frozen(), x, ("y",)))


def test_the_reference_stands_in_for_a_stage_that_cannot_be_recorded(tmp_path, monkeypatch, capsys):
    """Stage 2 decides by a number what to do, and stage 3 is all right; the networks are the stages' own parts."""
    texts = {number: STAGES[number - 1].solution.read_text(encoding="utf-8") for number in (2, 3)}
    texts[2] = texts[2].replace(
        "return x * torch.sigmoid(x)", "return x * torch.sigmoid(x) if float(x.max()) < 1e9 else x"
    )
    paths = {stage.number: stage.solution for stage in STAGES[:10]}
    for number, text in texts.items():
        paths[number] = tmp_path / f"{STAGES[number - 1].module}.py"
        paths[number].write_text(text, encoding="utf-8")

    def networks(blocks, model, config):
        block = blocks[2].ResidualBlock(8, 8, num_groups=2)
        inputs = {"x": torch.linspace(-1, 1, 8 * 16).reshape(1, 8, 4, 4)}
        attention = blocks[3].PixelAttention(8, num_groups=2)
        return {
            name: export.Network(attention if name == "text_encoder" else block, inputs, ("y",))
            for name in export.STAGES_OF
        }

    monkeypatch.setattr(export, "networks", networks)
    monkeypatch.setattr("course.draw.checkpoint.build", lambda *_: None)
    opened = open_checkpoint()
    blocks, refused, recorded = building.record_all(assemble(paths, fused=True), opened, only_theirs=False)
    assert list(refused) == [2] and blocks.origin[2] == "solutions" and blocks.origin[3] == "exercises"
    assert set(recorded) == set(export.STAGES_OF)
    said = capsys.readouterr().out
    assert said.startswith("stage 2 residual cannot be recorded for a browser (") and "the reference stands in" in said
    with pytest.raises(Refusal, match=r"^stage 2 residual cannot be recorded"):
        building.record_all(assemble(paths, fused=True), opened, only_theirs=True)
