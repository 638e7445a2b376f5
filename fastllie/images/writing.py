"""Photographs to files, in the format of the suffix."""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fastllie.images.files import SUFFIXES, TIFF_TAGS, replacing

if TYPE_CHECKING:
    from fastllie.images.photograph import Photograph

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TYPES = {2: 4, 3: 2, 4: 6}  # channels -> colour type: grey and alpha, RGB, RGBA
_SUB = 1  # PNG's filter: the difference to the pixel on the left
_DEPTHS, _PLANES = 258, 284  # tags of a TIFF: bits of each channel; 2 where each has a plane of its own


def write(photo: "Photograph", path: str | os.PathLike[str], *, quality: int, png_level: int) -> None:
    """Write a photograph in the format of the suffix, with its EXIF and ICC profile. Atomic.

    Args:
        photo: Of a mode that the format can hold; 16 bits a channel of colours become 8, but in PNG and TIFF.
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
    with replacing(path) as temporary, told(path, format):
        if photo.deep and format in ("PNG", "TIFF"):
            with open(temporary, "wb") as file:
                file.writelines(_png(photo, png_level) if format == "PNG" else _tiff(photo))
        else:
            _by_pillow(photo.as_pil(), temporary, format, quality, png_level)


def _by_pillow(image: Image.Image, path: Path, format: str, quality: int, png_level: int) -> None:
    extras: dict[str, Any] = {key: image.info[key] for key in ("exif", "icc_profile") if image.info.get(key)}
    if format in ("JPEG", "WEBP"):
        extras["quality"] = quality
    if format == "PNG":
        extras["compress_level"] = png_level
        # our values end at 65535, and newer versions of Pillow write no others
        image = image.convert("I;16") if image.mode == "I" else image
    image.save(path, format, **extras)


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


def _png(photo: "Photograph", level: int) -> Iterable[bytes]:
    height, width, channels = photo.values.shape
    rows = photo.values.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _SUB
    pixel = 2 * channels
    filtered[:, 1 : 1 + pixel] = rows[:, :pixel]
    np.subtract(rows[:, pixel:], rows[:, :-pixel], out=filtered[:, 1 + pixel :])
    yield _PNG
    yield _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _PNG_TYPES[channels], 0, 0, 0))
    if profile := photo.info.get("icc_profile"):
        yield _chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
    if exif := photo.info.get("exif"):
        yield _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    yield _chunk(b"IDAT", zlib.compress(filtered.data, level))
    yield _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _tiff(photo: "Photograph") -> Iterable[bytes]:
    """Uncompressed, as Pillow writes TIFF."""
    values = photo.values
    if values.shape[2] == 2:
        # grey with alpha is rare, and Pillow among others does not read it
        values = np.concatenate((photo.colours, values[..., 1:]), axis=2)
    height, width, channels = values.shape
    # EXIF data are the header and the tags of a TIFF: with the tags of pixels they are a whole one
    tags = Image.Exif()
    if given := photo.info.get("exif"):
        tags.load(given)
    for tag in set(tags) - TIFF_TAGS:
        del tags[tag]
    # as Pillow writes the header, where there was no EXIF too
    pixels = values.astype("<u2" if tags.endian == "<" else ">u2").tobytes()
    tags[256], tags[257] = width, height
    tags[_DEPTHS] = (16,) * channels
    tags[259] = 1  # not compressed
    tags[262] = 2  # RGB
    tags[273] = 0  # where the one strip begins: Pillow adds the length of what is before
    tags[277], tags[278], tags[279] = channels, height, len(pixels)
    tags[_PLANES] = 1
    if channels == 4:
        tags[338] = 2  # alpha, and colours that are not multiplied with it
    if profile := photo.info.get("icc_profile"):
        tags[34675] = profile
    yield tags.tobytes().removeprefix(b"Exif\0\0")
    yield pixels
