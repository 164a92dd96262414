"""Makes requirements.lock out of the ranges in pyproject.toml, and checks that the two agree.

    python -m tools.lock                    pins of what is new in pyproject.toml; all other pins stay
    python -m tools.lock --upgrade          the newest versions that the ranges allow, but for torch
    python -m tools.lock --torch 2.14.0     another torch
    python -m tools.lock --check            does the lock satisfy the ranges? Needs no network

What is pinned is what pip installs into a fresh environment. torch is installed first and alone, at its pin and from
TORCH_INDEX (without that variable: PyTorch's own index of builds for a processor). Asked for a range only, pip on Linux
takes the newest build, which is for CUDA and brings gigabytes of NVIDIA's packages; they have no place in a lock that
also serves macOS, Windows and machines without a GPU.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from course.core.stages import ROOT

PROJECT = ROOT / "pyproject.toml"
LOCK = ROOT / "requirements.lock"
OLDEST = (3, 11)  # the oldest Python that the course runs on: some packages need more with it than with a newer one
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
NOT_PINNED = {"pip", "wheel"}  # they come with every environment
GPU_ONLY = re.compile(r"nvidia|triton|cuda")
HEADER = """\
# Made by `python -m tools.lock` from pyproject.toml's ranges, with Python {python} on {system} and torch without CUDA:
# one version of each package. What another system needs besides, such as colorama on Windows, pip picks by itself.
# `python -m tools.lock --check` says whether this file and the ranges agree.
"""


def ranges(project: Mapping, extra: str = "") -> list[Requirement]:
    """What pyproject.toml asks for: its dependencies, and those of an extra, which may name other extras."""
    table = project["project"]
    texts = table["optional-dependencies"][extra] if extra else table["dependencies"]
    found = []
    for requirement in map(Requirement, texts):
        if canonicalize_name(requirement.name) == canonicalize_name(table["name"]):
            found += [r for name in sorted(requirement.extras) for r in ranges(project, name)]
        else:
            found.append(requirement)
    return found


def everything(project: Mapping) -> list[Requirement]:
    return ranges(project) + ranges(project, "all")


def pins(text: str) -> dict[str, str]:
    """Name -> version, of a lock's text; names in the one form that all spellings of a package have in common."""
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def disagreements(requirements: list[Requirement], pinned: Mapping[str, str]) -> Iterator[str]:
    """A line for each range that the lock does not satisfy."""
    for requirement in requirements:
        version = pinned.get(canonicalize_name(requirement.name))
        if requirement.marker and not requirement.marker.evaluate():
            continue
        if version is None:
            yield f"{requirement} is asked for and not pinned."
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement} is asked for and {version} is pinned."


def pinned_lines(listed: str) -> list[str]:
    """The lines of a lock out of what `pip list --format=freeze` says.

    Raises:
        ValueError: in one sentence, if there are packages among them that only a GPU needs.
    """
    lines = []
    for line in listed.split():
        name, version = line.split("==")
        if GPU_ONLY.match(canonicalize_name(name)):
            raise ValueError(f"{name} came along: set TORCH_INDEX to an index of builds for a processor.")
        if canonicalize_name(name) not in NOT_PINNED:
            lines.append(f"{name}=={version.split('+')[0]}")  # 2.13.0+cpu is one build of 2.13.0
    return sorted(lines, key=str.lower)


def resolved(requirements: list[Requirement], torch: str, constraints: str) -> list[str]:
    """The lines of a lock: what pip puts into a fresh environment."""
    with tempfile.TemporaryDirectory() as folder:
        limits = Path(folder) / "constraints.txt"
        limits.write_text(constraints, encoding="utf-8")
        venv.create(Path(folder) / "venv", with_pip=True)
        python = Path(folder) / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
        index = os.environ.get("TORCH_INDEX", CPU_BUILDS)
        # The venv of Python 3.11 brings an old setuptools, and pip would keep it.
        run([*pip, "uninstall", "--quiet", "--yes", "setuptools"])
        run([*pip, "install", "-c", str(limits), *(["--index-url", index] if index else []), f"torch=={torch}"])
        run([*pip, "install", "-c", str(limits), *map(str, requirements)])
        run([*pip, "check"])
        return pinned_lines(run([*pip, "list", "--format=freeze"], capture=True))


def run(command: list[str], capture: bool = False) -> str:
    """Runs a command; returns what it prints if that is captured. ValueError if it fails."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE if capture else None)
    if done.returncode:
        raise ValueError(f"This failed, and {LOCK.name} is as it was: {' '.join(command)}")
    return done.stdout or ""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.lock", description="Makes requirements.lock anew.")
    parser.add_argument("--check", action="store_true", help="only say whether the lock satisfies the ranges")
    parser.add_argument("--upgrade", action="store_true", help="give up today's pins, but for torch's")
    parser.add_argument("--torch", help="its version (default: as it is pinned)")
    options = parser.parse_args(arguments)

    before = LOCK.read_text(encoding="utf-8")
    requirements = everything(tomllib.loads(PROJECT.read_text(encoding="utf-8")))
    if options.check:
        problems = list(disagreements(requirements, pins(before)))
        print("\n".join(problems) or f"{LOCK.name} satisfies all {len(requirements)} ranges of {PROJECT.name}.")
        return int(bool(problems))

    if sys.version_info[:2] != OLDEST:
        raise ValueError(
            f"The lock is made with Python {'.'.join(map(str, OLDEST))}, the oldest that the course runs on."
        )
    torch = options.torch or pins(before)["torch"]
    for problem in disagreements([r for r in requirements if r.name == "torch"], {"torch": torch}):
        raise ValueError(problem)
    # Today's pins hold for the new lock as well, but for those that the ranges have left behind.
    moved = {"torch"} | {canonicalize_name(r.name) for r in requirements if list(disagreements([r], pins(before)))}
    kept = {} if options.upgrade else {name: v for name, v in pins(before).items() if name not in moved}
    constraints = "".join(f"{name}=={version}\n" for name, version in {**kept, "torch": torch}.items())

    lines = resolved(requirements, torch, constraints)
    header = HEADER.format(python=".".join(map(str, OLDEST)), system=platform.system())
    LOCK.write_text(header + "\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    after = pins("\n".join(lines))
    for name in sorted({*pins(before), *after}):
        old, new = pins(before).get(name, "-"), after.get(name, "-")
        if old != new:
            print(f"{name}: {old} -> {new}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ValueError as error:
        sys.exit(str(error))
