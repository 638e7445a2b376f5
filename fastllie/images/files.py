"""Files: reading images, and writing anything so that no half-written file is ever left behind."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

#: what is written, and what is taken from a folder
SUFFIXES = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".pgm": "PPM",
    ".png": "PNG",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
# Pixels times scans of a progressive JPEG, about half a minute; ten scans of 100 megapixels have a quarter
MOST_DECODED = 2**32
# Seconds after which nobody is writing to a temporary file any more
ABANDONED = 3600
_REMAINS = re.compile(r"\..+\.\d+\.part")
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
# What else a TIFF keeps in the same table describes its own storage and would be wrong in a new file
TIFF_TAGS = {270, 271, 272, 282, 283, 296, 305, 306, 315, 33432, 34665, 34853}


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file beside `path` to write to; rename it on success, remove it on any error."""
    # through a link to the file that it names, as an ordinary write would
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {os.fspath(path)!r}: it is a directory")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {os.fspath(path)!r}: its folder does not exist")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


class RefusedError(ValueError):
    """A file that may be an image but is not read; the message says all."""


@contextmanager
def opening(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """The unread image of a file; what goes wrong in the block is told by the name of the file."""
    name = os.fspath(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{name!r} is a directory; wanted an image file")
    if not os.path.exists(path):
        raise FileNotFoundError(f"no such image file: {name!r}")
    if not os.path.isfile(path):
        # opening a pipe would wait for a writer
        raise RefusedError(f"{name!r} is no regular file; wanted an image file")
    try:
        with Image.open(path) as file:
            _refuse_traps(file, name)
            yield file
    except (PermissionError, RefusedError):
        raise
    except UnidentifiedImageError as error:
        empty = " (it is empty)" if os.path.getsize(path) == 0 else ""
        raise ValueError(f"{name!r} is not an image that Pillow can read{empty}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name!r}: {error}; raise PIL.Image.MAX_IMAGE_PIXELS if you trust it") from error
    except MemoryError as error:
        raise MemoryError(f"no memory to decode {name!r}") from error
    except Exception as error:
        # Pillow's decoders raise nearly anything for a damaged file, and it is told by name
        raise ValueError(f"the image {name!r} is damaged: {error or type(error).__name__}") from error


def _refuse_traps(file: Image.Image, name: str) -> None:
    """Raise for what no photograph does, before it is decoded."""
    if file.format == "EPS":
        # a program, which Pillow gives to Ghostscript
        raise RefusedError(f"{name!r} is PostScript; wanted a photograph")
    if file.format in ("JPEG", "MPO"):
        with open(name, "rb") as raw:
            scans = raw.read().count(b"\xff\xda")
        if scans * file.width * file.height > MOST_DECODED:
            raise RefusedError(
                f"{name!r} has {scans} scans of {file.width}x{file.height} pixels, more than any photograph"
            )


def is_complete(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an image that was written to its end, as far as its first and last bytes tell."""
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            format, size = image.format, file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 12))
            tail = file.read()
            file.seek(4)
            length = int.from_bytes(file.read(4), "little")
    except Exception:
        # see `opening`
        return False
    if format == "PNG":
        return tail == _PNG_END
    if format == "JPEG":
        return tail.endswith(b"\xff\xd9")
    return format != "WEBP" or length + 8 <= size


def remove_remains(folder: str | os.PathLike[str]) -> None:
    """Delete what `replacing` left in a folder when its process was killed, an hour ago or more."""
    if not os.path.isdir(folder):
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if _REMAINS.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > ABANDONED:
                os.unlink(entry)


def remove_remains_of(path: str | os.PathLike[str]) -> None:
    """Delete what `replacing` left of one file when its process was killed; nobody may be writing it now."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        return
    left = re.compile(rf"\.{re.escape(target.name)}\.\d+\.part")
    for entry in target.parent.iterdir():
        if left.fullmatch(entry.name):
            entry.unlink(missing_ok=True)
