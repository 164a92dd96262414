"""`make gpu-report`, on the processor: what it checks, and that a failed check is told and counts."""

import pytest
import torch

from course.draw.checkpoint import TINY
from tools import gpu_report

pytestmark = [
    pytest.mark.limit(60),
    pytest.mark.skipif(not TINY.exists(), reason="the checkpoint is not here"),
]


@pytest.fixture
def report(monkeypatch, tmp_path):
    """report() -> (exit code, the file's text, the rows that it would have measured)."""
    rows = []
    monkeypatch.setattr(gpu_report, "STEPS", 2)
    monkeypatch.setattr(gpu_report, "measure", lambda row, device: rows.append(row) or {"how": row.way})

    def run(*flags: str):
        out = tmp_path / "report.md"
        arguments = ["--device=cpu", "--full=0", f"--out={out}", *flags]
        code = gpu_report.report(gpu_report.ReportOptions.parse(arguments, "gpu-report", ""))
        return code, out.read_text(), rows

    return run


def test_every_check_passes_on_the_processor(report):
    code, text, rows = report()
    assert code == 0 and text.count("| passed: ") == 6 and "failed" not in text
    for words in ("ddpm in float32", "dpm++2m in float32", "ddim in float16", "ddim in bfloat16", "| how"):
        assert words in text
    assert [(row.way, row.device) for row in rows] == [("eager", "cpu"), ("compiled", "cpu")]


def test_a_failed_check_is_told_and_counts(report, monkeypatch, capsys):
    drawn = []

    def draw(blocks, device, dtype, sampler):
        drawn.append(sampler)
        if len(drawn) == 5:
            raise RuntimeError("no kernel\nfor this GPU")
        return torch.full((1, 3, 4, 4), {"float16": 0.5, "bfloat16": float("nan")}.get(dtype, 0.0))

    monkeypatch.setattr(gpu_report, "draw", draw)
    code, text, _ = report()
    assert code == 1 and text.count("**failed**") == 3 and text.count("| passed: ") == 3
    assert "**failed**: RuntimeError: no kernel |" in text
    assert "**failed**: 63.750 grey levels in the mean, 1.0 allowed |" in text
    assert "**failed**: nan grey levels" in text and "FAILED: ddim in float16" in capsys.readouterr().out


@pytest.mark.parametrize("failing", ["eager", "compiled"])
def test_a_row_that_fails_is_told_and_the_others_are_kept(monkeypatch, tmp_path, capsys, failing):
    def measure(row, device):
        if row.way == failing:
            raise RuntimeError("out of memory\nTry less.")
        return {"how": "the other row"}

    monkeypatch.setattr(gpu_report, "all_checks", lambda device: [gpu_report.Check("draws", True, "it does")])
    monkeypatch.setattr(gpu_report, "measure", measure)
    out = tmp_path / "report.md"
    options = gpu_report.ReportOptions.parse(["--device=cpu", "--full=0", f"--out={out}"], "gpu-report", "")
    assert gpu_report.report(options) == 1
    text, said = out.read_text(encoding="utf-8"), capsys.readouterr().out
    assert "| the other row |" in text and "| draws | passed: it does |" in text
    assert f"| the row tiny, {failing} | **failed**: RuntimeError: out of memory |" in text
    assert f"FAILED: the row tiny, {failing}: RuntimeError: out of memory" in said
