"""`make page`: a folder that any static host serves, with a page that draws with the blocks in it."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from course.core.assemble import Blocks, StageError, assemble, for_generating
from course.core.messages import Refusal
from course.core.options import Options, like, option
from course.core.stages import PIPELINE, ROOT, STAGES, short_path, source_of
from course.core.stubs import stub_text
from course.core.writing import check_writable, whole_file
from course.draw.generate import say_whose
from course.draw.settings import Settings
from course.feedback.mistakes import find_mistake
from course.page.runtime import put_runtime
from course.scenes.captions import GROUND_PHRASES, TIME_PHRASES
from course.scenes.scenes import COLOURS, OBJECTS

SITE = Path(__file__).with_name("site")
ABOUT = "page.json"  # what the page is and what it is made of
HEAVIEST = 60_000_000  # numbers in a checkpoint; a browser is too slow for more
MISTAKES = {  # those that the page can make: name -> what it says in a list, and the sampler that it shows with
    "stage09/guidance-backwards": ("the sign of guidance is wrong", None),
    "stage08/timesteps-rise": ("the steps begin at the wrong end", None),
    "stage08/ddim-without-predicted-noise": ("fresh noise in each step of DDIM", "ddim"),
    "stage08/betas-not-squared": ("the betas are not squared", None),
}
WORDS = {
    "things": list(OBJECTS),
    "colours": list(COLOURS),
    "grounds": [phrases[0] for phrases in GROUND_PHRASES.values()],
    "times": [phrases[0] for phrases in TIME_PHRASES.values()],
}


@dataclass
class PageOptions(Options):
    out: Path = option(ROOT / "outputs" / "page", "folder for the page (default: outputs/page)")
    blocks: str = like(Settings, "blocks", "auto")
    checkpoint: str | None = like(Settings, "checkpoint", None)


def page(options: PageOptions) -> int:
    """Runs the command; returns its exit code."""
    from course.draw.blame import explain
    from course.draw.checkpoint import TINY, open_checkpoint

    check_folder(options.out)
    blocks = None
    try:
        blocks = for_generating(options.blocks, fused=True)
        say_whose(blocks)
        blocks.load()
        opened = open_checkpoint(options.checkpoint or TINY)
        if sum(tensor.numel() for tensor in opened.tensors.values()) > HEAVIEST:
            raise Refusal(
                f"{short_path(opened.path)} is too large for a page, which is for models like checkpoints/tiny."
            )
        parent = options.out.absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=f".{options.out.name[:40]}.") as name:
            folder = Path(name) / "page"
            make(folder, blocks, opened, options)
            if options.out.exists():
                options.out.rename(Path(name) / "before")
            folder.rename(options.out)
    except (Refusal, BrokenPipeError):
        raise
    except (Exception, SystemExit, GeneratorExit) as error:
        return explain(error, blocks)
    total, weights, graphics = (sum(sizes(options.out / part).values()) / 1e6 for part in ("", "model", "webgpu"))
    print(
        f"{short_path(options.out)}  {total:.1f} MB: {weights:.1f} the model, {graphics:.1f} what a browser loads only "
        "where it tries a graphics card. `make play` shows it."
    )
    return 0


def check_folder(folder: Path) -> None:
    """A Refusal if the folder holds something else than a page, or cannot be written."""
    if folder.exists() and not (folder / ABOUT).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refusal(f"OUT={short_path(folder)} is there and holds no page: name a new folder.")
    check_writable(folder / ABOUT)


def make(folder: Path, blocks: Blocks, opened: Any, options: PageOptions) -> None:
    """Writes all files of the page into a new folder."""
    from course.page.export import write

    shutil.copytree(SITE, folder)
    put_runtime(folder)
    put_tokenizer(folder / "model", opened)
    for stage in PIPELINE:
        with whole_file(folder / "stages" / f"{stage.module}.txt") as temporary:
            temporary.write_text(stub_text(source_of(stage.solution)), encoding="utf-8", newline="\n")
    blocks, refused, recorded = record_all(blocks, opened, options.blocks == "exercises")
    for name, (network, program) in recorded.items():
        size = write(network, program, folder / "model" / f"{name}.onnx")
        print(f"{name.replace('_', ' ')}  {size / 1e6:.1f} MB", flush=True)
    config = opened.config
    about = {
        "blocks": [
            {
                "number": stage.number,
                "name": stage.name,
                "yours": blocks.origin[stage.number] == "exercises",
                "refused": refused.get(stage.number),
            }
            for stage in PIPELINE
        ],
        "image_size": config.image_size,
        "factor": config.vae.factor,
        "latent_channels": config.vae.latent_channels,
        "max_length": config.clip.max_length,
        "guidance_scale": config.guidance_scale,
        "switches": [name for name, _ in recorded["unet"][0].module.parts],
        "words": WORDS,
        "mistakes": [
            {"name": name, "title": title, "sampler": sampler, "hint": hint_of(name)}
            for name, (title, sampler) in MISTAKES.items()
        ],
        "settings": asdict(Settings(checkpoint=options.checkpoint, dtype="float32")),
        "files": sizes(folder),
        "made_of": fingerprint(options),
    }
    about["version"] = digest(folder / name for name in about["files"])
    with whole_file(folder / ABOUT) as temporary:
        temporary.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def hint_of(name: str) -> str:
    """What a mistake of the catalogue is, as a sentence."""
    hint = find_mistake(name)[1].hint
    return hint[0].upper() + hint[1:]


def put_tokenizer(folder: Path, opened: Any) -> None:
    """Writes vocab.json and merges.txt."""
    merges = "".join(f"{first} {second}\n" for first, second in opened.merges)
    for name, text in (("vocab.json", json.dumps(opened.vocab, ensure_ascii=False)), ("merges.txt", merges)):
        with whole_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")


def record_all(blocks: Blocks, opened: Any, only_theirs: bool) -> tuple[Blocks, dict[int, str], dict[str, tuple]]:
    """Records all networks; for a learner's stage that cannot be recorded, the reference stands in.

    Args:
        blocks: whose blocks.
        opened: whose weights.
        only_theirs: whether nothing may stand in.

    Returns:
        The blocks that were recorded; number of a stage that could not be -> the reason; name -> (network, record).
    """
    from course.draw.checkpoint import build
    from course.page.export import STAGES_OF, NotRecorded, networks, record

    def all_of(blocks: Blocks) -> dict[str, Any]:
        return networks(blocks, build(blocks, opened), opened.config)

    def with_reference(numbers: Mapping[int, str] | set[int]) -> Blocks:
        paths = {n: STAGES[n - 1].solution if n in numbers else path for n, path in blocks.paths.items()}
        return assemble(paths, fused=True).load()

    def reason(number: int, name: str) -> str | None:
        """Why a network cannot be recorded in which this stage alone is the learner's."""
        try:
            record(all_of(with_reference(theirs - {number}))[name])
        except NotRecorded as error:
            return str(error)
        return None

    refused: dict[int, str] = {}
    recorded: dict[str, tuple] = {}
    found = all_of(blocks)
    for name, numbers in STAGES_OF.items():
        try:
            recorded[name] = found[name], record(found[name])
            continue
        except NotRecorded as error:
            theirs = {number for number, origin in blocks.origin.items() if origin == "exercises"}
            suspects = sorted(theirs.intersection(numbers))
            reasons = {number: why for number in suspects if (why := reason(number, name))}
            reasons = reasons or dict.fromkeys(suspects, str(error))
            names = " and ".join(f"stage {number} {STAGES[number - 1].name}" for number in reasons) or name
            why = "; ".join(dict.fromkeys(reasons.values())) or str(error)
            if only_theirs or not reasons:
                raise Refusal(f"{names} cannot be recorded for a browser: {why}.") from error
            print(f"{names} cannot be recorded for a browser ({why}): the reference stands in.", flush=True)
            refused |= reasons
        blocks = with_reference(refused)
        found = all_of(blocks)
        recorded = {done: (found[done], record(found[done])) for done in [*recorded, name]}
    return blocks, refused, recorded


def sizes(folder: Path) -> dict[str, int]:
    """The files of a folder, by their path in it, and how many bytes they have."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}


def digest(paths: Iterator[Path]) -> str:
    """One hash of several files, in half its length."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:32]


def sources(options: PageOptions) -> Iterator[Path]:
    """What a page is made of: the site, what writes it, the stages and the checkpoint."""
    from course.draw.checkpoint import TINY

    folders = (SITE, SITE / "webgpu", SITE.parent)
    yield from (path for folder in folders for path in sorted(folder.iterdir()) if path.is_file())
    blocks = for_generating(options.blocks)
    yield from blocks.paths.values()
    checkpoint = Path(options.checkpoint or TINY)
    yield checkpoint / "model.safetensors" if checkpoint.is_dir() else checkpoint


def fingerprint(options: PageOptions) -> str:
    return digest(sources(options))


def is_up_to_date(options: PageOptions) -> bool:
    """Whether the folder holds a page that is made of what is here now."""
    try:
        about = json.loads((options.out / ABOUT).read_text(encoding="utf-8"))
        return about["made_of"] == fingerprint(options)
    except (OSError, ValueError, KeyError, TypeError, StageError):
        return False
