"""Pictures from and to files: reading what people have, and remembering how a picture was made."""

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from course.core.messages import first_line
from course.core.options import expanded
from course.core.writing import whole_file
from course.draw.mp4 import ENDING, comment_of, write_mp4

MAX_PIXELS = 64_000_000  # a larger file is refused before it is unpacked into memory
SETTINGS = "settings"  # the PNG text entry that holds all settings as JSON
PARAMETERS = "parameters"  # the one that other programs read
DESCRIPTION = 0x010E  # the Exif entry of a film that holds what SETTINGS holds
SAMPLER_NAMES = {
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "euler": "Euler",
    "dpm++2m": "DPM++ 2M",
}  # as those programs write them


def read_picture(path: str | Path, argument: str) -> Image.Image:
    """An RGB picture from any file that Pillow reads: upright, colours converted, transparency on white.

    Raises:
        ValueError: in one sentence that names the argument, if there is no readable picture.
    """
    path = expanded(argument, path)
    if not path.is_file():
        raise ValueError(f"{argument}={path} is {'not a file' if path.exists() else 'not there'}: it names a picture.")
    size = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, whose size is checked here, and of odd EXIF data
            with Image.open(path) as picture:
                width, height = picture.size
                size = f"{width}x{height} pixels, "
                if width * height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                picture = ImageOps.exif_transpose(picture)
                if picture.mode.startswith(("I", "F")):
                    picture = _sixteen_bits(picture)
                elif picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                    picture = picture.convert("RGBA")
                    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
                return picture.convert("RGB")
    except Image.DecompressionBombError:
        raise ValueError(
            f"{argument}={path} has {size}more than the {MAX_PIXELS // 1_000_000} million that are read: "
            "make it smaller first."
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers trip over a damaged file in many ways
        what = "is no picture" if isinstance(error, UnidentifiedImageError) else f"cannot be read ({first_line(error)})"
        raise ValueError(f"{argument}={path} {what}.") from None


def _sixteen_bits(picture: Image.Image) -> Image.Image:
    """Grey levels 0 ... 65535 (or floats 0 ... 1) to 0 ... 255."""
    high: Any = picture.getextrema()[1]
    scale = 255.0 if picture.mode == "F" and high <= 1.0 else 255.0 / 65535.0 if high > 255 else 1.0
    return picture.convert("F").point(lambda level: level * scale).convert("L")


def fit(picture: Image.Image, width: int, height: int, method: Image.Resampling = Image.Resampling.LANCZOS):
    """The middle of the picture, scaled to width x height."""
    return ImageOps.fit(picture, (width, height), method)


def write_png(path: Path, picture: Image.Image, settings: dict | None = None) -> None:
    """A PNG that remembers its settings: prompt, seed and mistake in plain text entries, all of them as JSON.

    The entry "parameters" says what other Stable Diffusion programs can read of them.
    """
    info = PngInfo()
    for name, value in (settings or {}).items():
        if name in ("prompt", "negative", "seed", "mistake") and value is not None:
            info.add_itxt(name, str(value))
    if settings:
        info.add_itxt(SETTINGS, json.dumps(settings, ensure_ascii=False))
        info.add_text(PARAMETERS, parameters(settings, picture.size))
    with whole_file(path) as temporary:
        picture.save(temporary, "PNG", pnginfo=info)


def parameters(settings: dict, size: tuple[int, int]) -> str:
    """The settings in the text format of AUTOMATIC1111's web interface, which other programs read as well.

    First come the lines of the prompt, then those of the negative prompt if there is one, then the rest in one line.
    The format has no way to say that a line which begins "Negative prompt:" belongs to the prompt, nor that a line
    begins or ends with blanks: for drawing the same picture again, the entry "settings" is exact.

    Args:
        settings: of `make generate`, by name; those that are missing or None are left out.
        size: width and height, in pixels, where the settings name none.
    """
    checkpoint = Path(settings.get("checkpoint") or "checkpoints/tiny")
    generic = checkpoint.stem == "model" and checkpoint.parent.name  # of a folder, the name says more
    sampler = settings.get("sampler")
    values = {
        "Steps": settings.get("steps"),
        "Sampler": SAMPLER_NAMES.get(sampler, sampler) if sampler else None,
        "CFG scale": settings.get("scale"),
        "Seed": settings.get("seed"),
        "Size": f"{settings.get('width') or size[0]}x{settings.get('height') or size[1]}",
        "Model": generic or checkpoint.stem,
        "Denoising strength": strength_of(settings),
        "Mistake": settings.get("mistake"),
        "LoRA": settings.get("lora"),
    }
    lines = [str(settings.get("prompt") or "")]
    if settings.get("negative"):
        lines.append(f"Negative prompt: {settings['negative']}")
    lines.append(", ".join(f"{name}: {quoted(value)}" for name, value in values.items() if value is not None))
    return "\n".join(lines)


def quoted(value: str | int | float) -> str:
    """A value as it stands in the line of parameters: in JSON's quotes where it would end too early without them."""
    text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if set(',:\n"').intersection(text) else text


def strength_of(settings: dict) -> float | None:
    """The strength of image to image (0.8 unless given) or inpainting (1 unless given); None without INIT."""
    if settings.get("init") is None:
        return None
    if settings.get("strength") is not None:
        return settings["strength"]
    return 0.8 if settings.get("mask") is None else 1.0


def read_settings(path: str | Path) -> dict:
    """The settings that write_png put into a picture.

    Raises:
        ValueError: in one sentence, if there are none.
    """
    path = expanded("FROM", path)
    if path.suffix.lower() == ENDING and path.is_file():
        text = comment_of(path)
    else:
        read_picture(path, "FROM")
        with Image.open(path) as picture:
            comment = picture.info.get("comment", b"") if picture.format == "GIF" else b""
            text = getattr(picture, "text", {}).get(SETTINGS) or picture.getexif().get(DESCRIPTION) or comment.decode()
    try:
        settings = json.loads(text or "")
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise ValueError(f"FROM={path} does not say how it was made: only pictures of `make generate` do.")
    return settings


def write_clip(path: Path, frames: Sequence[Image.Image], settings: dict) -> None:
    """A film, eight frames a second, that remembers its settings: WebP or GIF, which begins again and again, or MP4."""
    text = json.dumps(settings)
    if path.suffix.lower() == ENDING:
        write_mp4(path, frames, text)
        return
    exif = Image.Exif()
    exif[DESCRIPTION] = text
    kind = {"save_all": True, "append_images": list(frames[1:]), "duration": 125, "loop": 0}
    kind |= {"comment": text} if path.suffix.lower() == ".gif" else {"exif": exif, "quality": 90, "method": 4}
    with whole_file(path) as temporary:
        frames[0].save(temporary, path.suffix[1:].upper(), **kind)


def write_film(path: Path, frames: Sequence[Image.Image], seconds: float = 4.0) -> None:
    """A GIF that shows the frames one after the other, in so many seconds, and rests on the last one."""
    each = max(20, int(1000 * seconds / len(frames)))
    durations = [each] * (len(frames) - 1) + [1500]
    with whole_file(path) as temporary:
        frames[0].save(temporary, "GIF", save_all=True, append_images=list(frames[1:]), duration=durations, loop=0)


def contact_sheet(pictures: Sequence[Image.Image], columns: int = 0, gap: int = 2, labels: Sequence[str] = ()):
    """All pictures in one, row by row, each with its label (if there are labels) below it."""
    columns = columns or min(len(pictures), max(1, round(len(pictures) ** 0.5 * 1.2)))
    rows = -(-len(pictures) // columns)
    width, height = pictures[0].size
    below = 14 if labels else 0
    size = (columns * (width + gap) - gap, rows * (height + below + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for i, picture in enumerate(pictures):
        left, top = i % columns * (width + gap), i // columns * (height + below + gap)
        sheet.paste(picture, (left, top))
        if labels:
            pen.text((left + 2, top + height + 1), labels[i], fill="black")
    return sheet


def free_name(folder: Path, prompt: str, suffix: str = ".png") -> Path:
    """A new file name that begins with a number and the first words of the prompt: 0007-a-red-house.png."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40].rstrip("-") or "picture"
    taken = [int(m[1]) for p in folder.glob("*") if (m := re.match(r"(\d{4,})-", p.name))] if folder.is_dir() else []
    return folder / f"{max(taken, default=0) + 1:04d}-{words}{suffix}"
