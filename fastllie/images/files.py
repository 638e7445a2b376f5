"""Files: reading images, and writing anything so that no half-written file is ever left behind."""

import os
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from fastllie.defaults import PNG_LEVEL, QUALITY

#: what `save_image` writes, and what is taken from a folder
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


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Decode an image file (the first frame), turned upright by its EXIF orientation.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: named with the path.
        ValueError: the file is not an image, is damaged, or wants more memory or time than any photograph.
    """
    with opening(path) as file:
        file.load()
        return upright(file, own=True)


@contextmanager
def opening(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """The unread image of a file; what goes wrong in the block is told as by `open_image`."""
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


def upright(image: Image.Image, *, own: bool = False) -> Image.Image:
    """The image with its EXIF orientation applied, and EXIF in `info` whatever format it came from.

    Args:
        image: Stays as it is.
        own: Where it is nobody else's, it may be turned itself; a copy takes as long as decoding.
    """
    try:
        exif = image.getexif()
    except Exception as error:
        # see `opening`; the pixels are good, and no reason to lose a photograph
        name = getattr(image, "filename", "") or "an image"
        warnings.warn(f"the EXIF data of {name!r} are damaged and left out: {error}", stacklevel=2)
        image = image if own else image.copy()
        for key in ("exif", "Raw profile type exif"):
            image.info.pop(key, None)
        exif = image.getexif()
    # not a TIFF, which would be saved again with all its tags
    if own and image.format != "TIFF":
        ImageOps.exif_transpose(image, in_place=True)
        result = image
    else:
        result = ImageOps.exif_transpose(image)
    # TIFF keeps its tags in the image object, which copies lose
    if exif and "exif" not in image.info:
        for tag in list(exif):
            if tag not in TIFF_TAGS:
                del exif[tag]
        if exif:
            result.info["exif"] = exif.tobytes()
    return result


def save_image(
    image: Image.Image, path: str | os.PathLike[str], *, quality: int = QUALITY, png_level: int = PNG_LEVEL
) -> None:
    """Write an image in the format of the suffix, with its EXIF and ICC profile. Atomic.

    Args:
        image: Of a mode that the format can hold.
        path: Where to; `SUFFIXES` lists the suffixes.
        quality: Of JPEG and WebP, 1 to 100.
        png_level: 0 (large and fast) to 9 (small and slow).

    Raises:
        ValueError: an unknown suffix, or a mode that the format cannot hold.
        OSError: a path that cannot be written.
    """
    name = os.fspath(path)
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"cannot write {name!r}: wanted a suffix of {', '.join(SUFFIXES)}, got {suffix!r}")
    format = SUFFIXES[suffix]
    extras: dict[str, Any] = {key: image.info[key] for key in ("exif", "icc_profile") if image.info.get(key)}
    if format in ("JPEG", "WEBP"):
        extras["quality"] = quality
    if format == "PNG":
        extras["compress_level"] = png_level
        # our values end at 65535, and newer versions of Pillow write no others
        image = image.convert("I;16") if image.mode == "I" else image
    with replacing(path) as temporary, told(path, format):
        image.save(temporary, format, **extras)


@contextmanager
def told(path: str | os.PathLike[str], format: str) -> Iterator[None]:
    """Name the file and the format in the errors of an encoder."""
    name = os.fspath(path)
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, f"cannot write {name!r}: {error.strerror}") from error
        raise ValueError(f"cannot write {name!r} as {format}: {error}") from error
