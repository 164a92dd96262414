"""The training data: pictures or films of random scenes with their captions, drawn once and kept in a folder.

The folder holds `pictures.npy`, uint8, (count, size, size, 3), for films (count, frames, size, size, 3), which is
mapped rather than read, so that data larger than the memory is no problem, and `captions.json` with several captions
for each picture.
"""

import json
import multiprocessing
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from course.core.stages import short_path
from course.scenes.examples import draw_example, draw_film

MAX_CHECKED = 64


@dataclass(frozen=True)
class Pictures:
    """Pictures, or films, and what they show.

    images: (count, size, size, 3), for films (count, frames, size, size, 3), uint8, red first.
    captions: CAPTIONS_EACH for every picture.
    The first num_checked pictures are never trained on: they measure how good the training is.
    """

    images: np.ndarray
    captions: list[list[str]]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_checked(self) -> int:
        return min(MAX_CHECKED, len(self.images) // 2)

    @property
    def num_trained(self) -> int:
        return len(self.images) - self.num_checked


def _draw_chunk(job: tuple[str, int, int, int, tuple[int, ...]]) -> list[list[str]]:
    """Worker: draws pictures first ... last - 1 into the file and returns their captions."""
    path, first, last, seed, (*frames, size, _, _) = job
    images = np.load(path, mmap_mode="r+")
    captions = []
    for index in range(first, last):
        images[index], texts = draw_film(seed, index, size, *frames) if frames else draw_example(seed, index, size)
        captions.append(texts)
    images.flush()
    return captions


def draw_pictures(folder: Path, count: int, shape: tuple[int, ...], seed: int, workers: int) -> None:
    """Draws `count` pictures or films of this shape into a new folder, which gets its name when it is complete."""
    unfinished = folder.with_name(folder.name + f".unfinished-{os.getpid()}")
    unfinished.mkdir(parents=True)
    try:
        path = unfinished / "pictures.npy"
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, *shape)).flush()
        chunk = 64
        jobs = [(str(path), i, min(i + chunk, count), seed, shape) for i in range(0, count, chunk)]
        captions: list[list[str]] = []
        with tqdm(total=count, desc="drawing pictures", unit="", mininterval=1.0) as bar:
            if len(jobs) < 4:  # starting workers would take longer than drawing
                chunks = map(_draw_chunk, jobs)
                for texts in chunks:
                    captions += texts
                    bar.update(len(texts))
            else:
                with multiprocessing.get_context("spawn").Pool(min(workers, len(jobs))) as pool:
                    for texts in pool.imap(_draw_chunk, jobs):
                        captions += texts
                        bar.update(len(texts))
        (unfinished / "captions.json").write_text(json.dumps(captions), encoding="utf-8")
        if not folder.exists():
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def load_pictures(
    root: Path, count: int, size: int, seed: int = 0, workers: int | None = None, frames: int | None = None
) -> Pictures:
    """Returns the first `count` pictures of a cache folder below `root`, drawn now if no folder has as many.

    With `frames`: films of as many frames.
    """
    if count < 2:
        raise ValueError(f"PICTURES={count} is not possible: at least 2 are needed.")
    kind, shape = (f"films{frames}", (frames, size, size, 3)) if frames else ("pictures", (size, size, 3))
    names = re.compile(rf"{kind}-(\d+)-{size}px-seed{seed}")
    folders = {int(m[1]): folder for folder in root.glob(f"{kind}-*") if (m := names.fullmatch(folder.name))}
    enough = [number for number in sorted(folders) if number >= count]
    if enough:
        folder = folders[enough[0]]
    else:
        folder = root / f"{kind}-{count}-{size}px-seed{seed}"
        draw_pictures(folder, count, shape, seed, workers or os.cpu_count() or 1)
    try:
        images = np.load(folder / "pictures.npy", mmap_mode="r")[:count]
        captions = json.loads((folder / "captions.json").read_text(encoding="utf-8"))[:count]
        if images.shape[1:] != shape or images.dtype != np.uint8 or not len(images) == len(captions) == count:
            raise ValueError
    except (OSError, ValueError, TypeError, EOFError):
        raise ValueError(f"{short_path(folder)} is not complete: delete it, and it is drawn anew.") from None
    return Pictures(images, captions)
