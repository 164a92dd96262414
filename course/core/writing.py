"""Files that are never half written."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from course.core.messages import Refusal
from course.core.stages import short_path

FULL = 2**16  # bytes; a disk with less than that is full


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a new file beside `path` to write to, and renames it to `path` once all of it is on the disk.

    Raises:
        Refusal: if it cannot be written; `path` is then as it was before.
    """
    temporary = None
    try:
        _refuse_others(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part")
        temporary = Path(name)
        os.close(handle)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise Refusal(f"{short_path(path)} cannot be written: {error.strerror or error}.") from None
    except Exception as error:  # torch and safetensors have errors of their own for a full disk
        if "No space left" in str(error) or shutil.disk_usage(path.parent).free < FULL:
            raise Refusal(f"{short_path(path)} cannot be written: No space left on device.") from None
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """A Refusal if `whole_file` could not write this file now."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        _refuse_others(path)
        with contextlib.suppress(FileNotFoundError):
            path.lstat()  # is the name possible?
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Refusal(f"{short_path(path)} cannot be written: {error.strerror or error}.") from None


def _refuse_others(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(0, "it is a folder")
    if path.exists() and not path.is_file():
        raise OSError(0, "it is a pipe or a device")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
