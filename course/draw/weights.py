"""`make weights`: fetches the published Stable Diffusion 1.5 and its tokenizer from the Hugging Face hub.

What has arrived of a file lies in the folder `.download`, under a name that holds the hash that the hub states. A
download that was cut off or killed goes on there. The whole file is compared with that hash before it gets its name.
"""

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from course.core.messages import Refusal, first_line
from course.core.options import Options, option
from course.core.stages import ROOT, short_path
from course.core.writing import check_writable

REPOSITORY = "stable-diffusion-v1-5/stable-diffusion-v1-5"
LICENCE = "CreativeML Open RAIL-M"
MODELS = {"ema": "v1-5-pruned-emaonly.safetensors", "full": "v1-5-pruned.safetensors"}
TOKENIZER = ("tokenizer/vocab.json", "tokenizer/merges.txt")
FOLDER = ROOT / "checkpoints" / "sd15"
UNFINISHED = ".download"  # the folder, beside the files, for what is still on its way
SPARE = 200 * 2**20  # bytes that stay free on the disk


def hash_of(path: Path, like: str) -> str:
    """The hash of a file, of the same kind as this one of the hub: SHA-256, or SHA-1 as git computes it."""
    with path.open("rb") as file:
        if len(like) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest()
        started = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
        return hashlib.file_digest(file, started.copy).hexdigest()


def fetch(name: str, target: Path, repository: str) -> None:
    """Downloads one file of the repository to `target`, unless the very file is there already.

    Raises:
        Refusal: in one sentence, if the hub cannot be reached, the disk is too small or the hash is another.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    check_writable(target)
    url = hf_hub_url(repository, name)
    try:
        stated = get_hf_file_metadata(url)
        expected = stated.etag if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", stated.etag or "") else None
        if expected is None and name not in TOKENIZER:
            raise Refusal(
                f"{urlsplit(url).netloc} states no hash of {name}, as the Hugging Face hub does for large files: "
                "is there a login page in between? It was not fetched."
            )
        same_size = target.is_file() and target.stat().st_size == stated.size
        if same_size and (expected is None or hash_of(target, expected) == expected):
            print(f"{short_path(target)} is there already.")
            return
        part = target.parent / UNFINISHED / f"{target.name}.{expected or 'unknown'}.part"
        for old in part.parent.glob(f"{target.name}.*.part"):
            if old != part or expected is None or old.stat().st_size > (stated.size or 0):
                old.unlink()  # nothing says that it is the beginning of what is there now
        arrived = part.stat().st_size if part.exists() else 0
        free = shutil.disk_usage(part.parent).free
        if stated.size and free < stated.size - arrived + SPARE:
            raise Refusal(
                f"{short_path(target)} needs {(stated.size - arrived) / 1e9:.1f} GB more "
                f"and the disk has {free / 1e9:.1f} GB left."
            )
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        with part.open("ab") as file:
            http_get(
                url,
                file,
                resume_size=arrived,
                headers=headers,
                expected_size=stated.size,
                displayed_filename=target.name,
            )
    except (HTTPError, OSError) as error:
        raise Refusal(
            f"{name} could not be fetched from {repository}: {first_line(error)}. The same command goes on from here."
        ) from None
    if expected is not None and hash_of(part, expected) != expected:
        part.unlink()
        raise Refusal(f"{name} arrived damaged (its hash is not {expected}); it was deleted, try again.")
    part.replace(target)
    kind = "" if expected is None else "  sha256 ok" if len(expected) == 64 else "  sha1 ok"
    print(f"{short_path(target)}  {target.stat().st_size / 1e6:,.1f} MB{kind}")


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Makes the folder for what is unfinished, and removes it once the code below is done.

    Raises:
        Refusal: if another process is at work in it, or it cannot be made.
    """
    from huggingface_hub.utils import WeakFileLock

    check_writable(folder / "lock")
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(WeakFileLock(folder / "lock", timeout=0.5))
        except TimeoutError:
            raise Refusal(f"Another `make weights` is fetching to {short_path(folder.parent)}.") from None
        except OSError as error:
            raise Refusal(f"{short_path(folder)} cannot be written: {error.strerror or error}.") from None
        for old in folder.rglob("*.incomplete"):
            old.unlink(missing_ok=True)  # left by an earlier version of this command, and of no use to this one
        yield
    shutil.rmtree(folder, ignore_errors=True)


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
    model = options.out / MODELS[options.which]
    with alone(options.out / UNFINISHED):
        for name in TOKENIZER:
            fetch(name, options.out / Path(name).name, options.repository)
        fetch(MODELS[options.which], model, options.repository)
    print(f'\nDraw with it: make generate CHECKPOINT={short_path(model)} PROMPT="..."')
    return 0
