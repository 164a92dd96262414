"""How threads wait is settled once, before torch is imported, and what the user set is left as it is."""

import subprocess
import sys

import pytest

from course.core import threads
from course.core.stages import ROOT


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with two cores, of which nothing is set and on which as many threads run as it is told."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    looks = []
    monkeypatch.setattr("time.sleep", lambda seconds: load.write_text(f"1.3 1.1 1.0 {looks.pop()}/162 4711\n"))
    load, limit = tmp_path / "loadavg", tmp_path / "cpu.max"

    def free(*running: int, cpu_max: str | None = None) -> bool:
        looks[:] = reversed([*running[1:], 1])
        load.write_text(f"1.3 1.1 1.0 {running[0]}/162 4711\n")
        limit.unlink(missing_ok=True)
        if cpu_max:
            limit.write_text(cpu_max)
        return threads.cores_are_free(load, limit)

    return free


def test_cores_are_free_where_hardly_anything_runs(machine, monkeypatch):
    assert machine(1, 1, 1, 1, 1)
    assert machine(1, 3, 1, 2, 1)  # now and then something does
    assert not machine(2, 2, 2, 2, 2)
    assert not machine(1, 2, 2, 1, 2)
    assert machine(1, 1, 1, 1, 1, cpu_max="max 100000\n")
    assert machine(1, 1, 1, 1, 1, cpu_max="200000 100000\n")
    assert not machine(1, 1, 1, 1, 1, cpu_max="150000 100000\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert machine(2, 2, 2, 2, 2)
    assert not machine(3, 3, 3, 3, 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert not machine(2, 2, 2, 2, 2)


def test_where_nothing_is_known_threads_sleep(tmp_path):
    assert not threads.cores_are_free(tmp_path / "nowhere", tmp_path / "nowhere")
    (tmp_path / "loadavg").write_text("odd\n")
    assert not threads.cores_are_free(tmp_path / "loadavg", tmp_path / "nowhere")


@pytest.mark.parametrize("free", [True, False])
def test_what_is_set(machine, monkeypatch, free):
    monkeypatch.setattr(threads, "cores_are_free", lambda: free)
    assert threads.waiting() == {"OMP_WAIT_POLICY": "PASSIVE"} | ({"GOMP_SPINCOUNT": threads.SPINS} if free else {})
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):  # what the user sets counts
        with monkeypatch.context() as given:
            given.setenv(name, "7")
            assert threads.waiting() == {}


ASKED = """
import os, sys
from course import cli
from course.core import threads
def asked():
    assert "torch" not in sys.modules, "torch is there already"
    os.write(1, b"asked")
    os._exit(0)
threads.waiting = asked
cli.main(sys.argv[1:])
"""


@pytest.mark.parametrize("command", [["generate"], ["show", "--stage=1"], ["bench"]], ids=lambda words: words[0])
def test_it_is_asked_before_torch_is_imported(command):
    done = subprocess.run([sys.executable, "-c", ASKED, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "asked", done.stderr[-1000:]
