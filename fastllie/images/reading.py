"""Image files to photographs, every bit of them.

Pillow holds 16 bits in grey images only. But it can decode the upper byte of every channel and, told the
other byte order, the lower one: two decodings give all 16 bits without another library. Other formats with
more than 8 bits for colours are read as Pillow does, with 8.
"""

import io
import os
import struct
import sys
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastllie.images.files import RefusedError, opening
from fastllie.images.photograph import TOP, Photograph, upright

_COLOURS = ("RGB", "RGBA", "RGBX", "RGBa")
_RGBA = 6  # PNG's colour type
_DEPTHS, _PLANES = 258, 284  # tags of a TIFF: bits of each channel; 2 where each has a plane of its own


def read(path: str | os.PathLike[str]) -> Photograph:
    """Decode an image file (the first frame), turned upright by its EXIF orientation.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: named with the path.
        ValueError: the file is not an image, is damaged, wants more memory or time than any photograph, or is
            a TIFF whose 16-bit channels lie in planes of their own.
    """
    with opening(path) as file:
        raw = _raw_mode(file)
        clear = file.info.get("transparency")
        if raw == "LA;16B":
            return _grey_and_alpha(path)
        if raw == "I;16B" and clear is not None:
            file.load()
            grey = upright(file)
            return _with_alpha(np.asarray(grey).astype(np.uint16)[..., None], clear, grey.info)
        if _in_planes(file):
            name = os.fspath(path)
            raise RefusedError(f"{name!r} holds its 16-bit channels in planes of their own; wanted RGBRGB...")
        deep = ";16" in raw and raw.split(";")[0] in _COLOURS
        # a division by alpha needs both bytes
        multiplied, raw = raw.startswith("RGBa"), raw.replace("RGBa", "RGBA")
        if deep:
            high = _decoded(file, raw)
        else:
            file.load()
            whole = upright(file, own=True)
    if not deep:
        return Photograph.of(whole)
    with opening(path) as file:
        low = _decoded(file, _other_byte(raw))
    values = (np.asarray(high).astype(np.uint16) << 8) | np.asarray(low)
    if multiplied:
        values = _divided(values)
    return Photograph(values, high.info) if clear is None else _with_alpha(values, clear, high.info)


def _raw_mode(file: Any) -> str:
    """How the pixels of an unread PNG or TIFF are stored, in Pillow's words; "" for other formats."""
    if file.format not in ("PNG", "TIFF") or not file.tile:
        return ""
    stored = file.tile[0][3]
    return str(stored if isinstance(stored, str) else stored[0])


def _in_planes(file: Any) -> bool:
    """Whether it is a TIFF of which Pillow decodes the upper bytes at best, and else noise."""
    return (
        file.format == "TIFF"
        and file.mode in _COLOURS
        and file.tag_v2.get(_PLANES) == 2
        and 16 in file.tag_v2.get(_DEPTHS, ())
    )


def _other_byte(raw: str) -> str:
    """The raw mode that takes the byte which this one leaves out."""
    mode, order = raw.split(";16")
    if order == "N":
        order = "L" if sys.byteorder == "little" else "B"
    return f"{mode};16{'B' if order == 'L' else 'L'}"


def _decoded(file: Any, raw: str) -> Image.Image:
    tiles = []
    for tile in file.tile:
        stored = raw if isinstance(tile[3], str) else (raw, *tile[3][1:])
        # a plain tuple in older versions of Pillow
        tiles.append(tile._replace(args=stored) if hasattr(tile, "_replace") else (*tile[:3], stored))
    file.tile = tiles
    file.info.pop("transparency", None)
    file.load()
    return upright(file)


def _grey_and_alpha(path: str | os.PathLike[str]) -> Photograph:
    """A PNG of two 16-bit channels, read as if it had four of 8 bits: the filters see the same bytes."""
    with open(path, "rb") as file:
        content = bytearray(file.read())
    header = content[12:29]  # "IHDR", width, height, depth, colour type, compression, filter, interlace
    header[12:14] = bytes((8, _RGBA))
    content[12:33] = header + struct.pack(">I", zlib.crc32(header))
    with Image.open(io.BytesIO(content)) as disguised:
        disguised.load()
        image = upright(disguised)
    return Photograph(np.asarray(image).view(">u2").astype(np.uint16), image.info)


def _with_alpha(values: np.ndarray, clear: Any, info: dict[Any, Any]) -> Photograph:
    """One colour is transparent: alpha says so."""
    alpha = np.where((values == np.asarray(clear)).all(2, keepdims=True), 0, TOP).astype(np.uint16)
    info = {key: value for key, value in info.items() if key != "transparency"}
    return Photograph(np.concatenate((values, alpha), axis=2), info)


def _divided(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Colours that were multiplied with alpha, without it."""
    alpha = values[..., 3:].astype(np.float64)
    colours = np.floor(values[..., :3] * (TOP / np.maximum(alpha, 1)) + 0.5)
    return np.concatenate((np.minimum(colours, TOP).astype(np.uint16), values[..., 3:]), axis=2)
