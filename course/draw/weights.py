"""`make weights`: fetches the published Stable Diffusion 1.5 and its tokenizer from the Hugging Face hub.

A download that was cut off goes on where it stopped. What arrives is compared with the hash that the hub states, and
only then gets its final name.
"""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from course.core.messages import Refusal, first_line
from course.core.options import Options, option
from course.core.stages import ROOT, short_path

REPOSITORY = "stable-diffusion-v1-5/stable-diffusion-v1-5"
LICENCE = "CreativeML Open RAIL-M"
MODELS = {"ema": "v1-5-pruned-emaonly.safetensors", "full": "v1-5-pruned.safetensors"}
TOKENIZER = ("tokenizer/vocab.json", "tokenizer/merges.txt")
FOLDER = ROOT / "checkpoints" / "sd15"
SPARE = 200 * 2**20  # bytes that stay free on the disk


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(name: str, target: Path, repository: str) -> None:
    """Downloads one file of the repository to `target`, unless the very file is there already.

    Raises:
        Refusal: in one sentence, if the hub cannot be reached, the disk is too small or the hash is another.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HTTPError

    try:
        stated = get_hf_file_metadata(hf_hub_url(repository, name))
        expected = stated.etag if stated.etag and len(stated.etag) == 64 else None  # large files: their sha256
        if target.is_file() and target.stat().st_size == stated.size and expected in (None, sha256(target)):
            print(f"{short_path(target)} is there already.")
            return
        unfinished = target.parent / ".download"
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        arrived = sum(part.stat().st_size for part in unfinished.rglob("*.incomplete"))
        if stated.size and free < stated.size - arrived + SPARE:
            raise Refusal(
                f"{short_path(target)} needs {stated.size / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB left."
            )
        path = Path(hf_hub_download(repository, name, local_dir=unfinished))
    except (HTTPError, OSError) as error:
        raise Refusal(
            f"{name} could not be fetched from {repository}: {first_line(error)}. The same command goes on from here."
        ) from None
    if expected is not None and sha256(path) != expected:
        path.unlink()
        raise Refusal(f"{name} arrived damaged (its sha256 is not {expected}); it was deleted, try again.")
    path.replace(target)
    print(f"{short_path(target)}  {target.stat().st_size / 1e6:,.1f} MB" + ("  sha256 ok" if expected else ""))


@dataclass
class WeightsOptions(Options):
    which: str = option(
        "ema", "ema: 4 GB, averaged weights only (default); full: 8 GB, raw and averaged", choices=tuple(MODELS)
    )
    repository: str = option(REPOSITORY, "where on the hub")
    out: Path = option(FOLDER, "folder for the files (default: checkpoints/sd15)")


def weights(options: WeightsOptions) -> int:
    """Runs the command."""
    print(
        f"Stable Diffusion 1.5 from huggingface.co/{options.repository}, under the {LICENCE} licence:\n"
        "it lets you use and share the model, and names uses that are not allowed. Read it there before you go on."
    )
    for name in TOKENIZER:
        fetch(name, options.out / Path(name).name, options.repository)
    model = options.out / MODELS[options.which]
    fetch(MODELS[options.which], model, options.repository)
    shutil.rmtree(options.out / ".download", ignore_errors=True)
    print(f'\nDraw with it: make generate CHECKPOINT={short_path(model)} PROMPT="..."')
    return 0
