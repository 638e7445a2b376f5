"""JPEG through simplejpeg, the extra `fast`: the pixels and bytes that Pillow gives, for less time.

Whatever it does not take, damaged files above all, is left to Pillow, which then has the word. It comes after
all that refuses a file, and sees its pixels alone.
"""

import importlib
import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastllie.images import exif
from fastllie.images.files import whole

if TYPE_CHECKING:
    from fastllie.images.photograph import Photograph, Stored

ACCURATE = 96  # below it simplejpeg 1.9 writes with the fast cosine transform, whatever it is asked for
_SUBSAMPLINGS = {0: "444", 1: "422", 2: "420"}  # Pillow's number -> simplejpeg's name


@lru_cache(maxsize=1)
def _library() -> Any:
    """simplejpeg; None where it is not there, or does not load."""
    try:
        return importlib.import_module("simplejpeg")
    except ImportError:
        return None


def photograph(file: Any, stored: "Stored", name: str) -> "Photograph | None":
    """The photograph in a JPEG that Pillow has opened and not decoded; None where Pillow shall decode it."""
    from fastllie.images.photograph import Photograph, turned, upright

    library = _library()
    if library is None or file.mode not in ("RGB", "L"):
        return None
    try:
        values = library.decode_jpeg(whole(file.fp), "RGB" if file.mode == "RGB" else "GRAY")
    except ValueError:
        return None
    if values.shape[1::-1] != file.size:
        return None
    # all that upright says of a picture, without its pixels
    head = Image.new(file.mode, (1, 1))
    head.info, head.format = dict(file.info), file.format
    info = upright(head, name=name).info
    try:
        orientation = int(head.getexif().get(exif.ORIENTATION, 1))
    except Exception:
        # upright has told of damaged EXIF data, for which Pillow raises nearly anything
        orientation = 1
    return Photograph(np.ascontiguousarray(turned(values, orientation)), info, stored=stored)


def encoded(photo: "Photograph", settings: dict[str, Any]) -> bytes | None:
    """A JPEG of the photograph with Pillow's settings; None where Pillow shall write it."""
    library = _library()
    values = photo.values
    if library is None or photo.native is not None or photo.mode or values.dtype != np.uint8:
        return None
    if values.shape[2] not in (1, 3) or not settings.keys() <= {"quality", "qtables", "subsampling"}:
        return None
    grey = values.shape[2] == 1
    subsampling = "Gray" if grey else _SUBSAMPLINGS.get(settings.get("subsampling", 2))
    quality = settings.get("quality") or _quality_of(_key(settings["qtables"]), grey)
    if subsampling is None or quality is None or quality < ACCURATE:
        return None
    pixels: NDArray[np.uint8] = np.ascontiguousarray(values)
    return bytes(library.encode_jpeg(pixels, quality, "GRAY" if grey else "RGB", subsampling, False))


def _key(tables: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(table) for table in tables)


@lru_cache(maxsize=64)
def _quality_of(tables: tuple[tuple[int, ...], ...], grey: bool) -> int | None:
    """The quality of at least 96 at which libjpeg has these tables; None where there is none."""
    for quality in range(100, ACCURATE - 1, -1):
        standard = _tables(quality)
        if tables == standard or (grey and tables[:1] == standard[:1]):
            return quality
    return None


@lru_cache(maxsize=8)
def _tables(quality: int) -> tuple[tuple[int, ...], ...]:
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "JPEG", quality=quality)
    with Image.open(content) as file:
        return _key(file.quantization.values())  # type: ignore[attr-defined]
