"""MP4 files: written by ffmpeg where it is installed, and the settings that they remember."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from course.core.messages import Refusal, first_line
from course.core.stages import short_path
from course.core.writing import whole_file

if TYPE_CHECKING:
    from PIL import Image

ENDING = ".mp4"
COMMENT = (b"moov", b"udta", b"meta", b"ilst", b"\xa9cmt", b"data")  # the boxes, one in the other, around the comment
BEFORE = {b"meta": 4, b"data": 8}  # bytes at the beginning of a box that are not its content


def check_encoder(out: Path) -> None:
    """A Refusal, in one sentence, if an MP4 file is wanted and ffmpeg is not installed."""
    if out.suffix.lower() == ENDING and shutil.which("ffmpeg") is None:
        raise Refusal(f"OUT={out} needs ffmpeg, which is not installed: install it, or name a .webp or .gif file.")


def write_mp4(path: Path, frames: Sequence["Image.Image"], comment: str, rate: int = 8) -> None:
    """The frames, `rate` of them in a second, with a comment in the file's metadata.

    Raises:
        Refusal: in one sentence, if ffmpeg cannot do it.
    """
    width, height = frames[0].size
    read = f"-f rawvideo -pixel_format rgb24 -video_size {width}x{height} -framerate {rate} -i -"
    write = "-pix_fmt yuv420p -movflags +faststart -f mp4 -y"
    pixels = b"".join(frame.convert("RGB").tobytes() for frame in frames)
    with whole_file(path) as temporary:
        command = ["ffmpeg", "-v", "error", *read.split(), "-metadata", f"comment={comment}", *write.split()]
        done = subprocess.run([*command, str(temporary.absolute())], input=pixels, capture_output=True)
        if done.returncode:
            said = first_line(RuntimeError(done.stderr.decode(errors="replace")), 120)
            raise Refusal(f"ffmpeg could not write {short_path(path)} ({said}): name a .webp or .gif file.")


def boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes of an MP4 file, or of a box: four letters and a content each.

    Source: ISO/IEC 14496-12, section 4.2: the size comes first; 1 means that it stands behind the name, in eight bytes,
    and 0 that the box goes on to the end.
    """
    while len(content) >= 8:
        size, begin = int.from_bytes(content[:4], "big"), 8
        if size == 1:
            size, begin = int.from_bytes(content[8:16], "big"), 16
        size = len(content) if size == 0 else size
        if size < begin:
            return
        yield content[4:8], content[begin:size]
        content = content[size:]


def comment_of(path: Path) -> str | None:
    """The comment in an MP4 file's metadata, as ffmpeg writes it; None if there is none."""
    content: bytes | None = path.read_bytes()
    for name in COMMENT:
        content = next((inside for found, inside in boxes(content or b"") if found == name), None)
        content = content and content[BEFORE.get(name, 0) :]
    return None if content is None else content.decode(errors="replace")
