"""Colour images of 16 bits a channel, of which Pillow keeps 8: read from and written to PNG and TIFF whole.

Pillow holds 16 bits in grey images only. But it can decode the upper byte of every channel and, told the
other byte order, the lower one: two decodings give all 16 bits without another library. Other formats with
more than 8 bits for colours are read as Pillow does, with 8.
"""

import io
import os
import struct
import sys
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastllie.images.files import (
    PNG_LEVEL,
    QUALITY,
    TIFF_TAGS,
    RefusedError,
    opening,
    replacing,
    save_image,
    told,
    upright,
)

TOP = 65535
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as for every grey image
_COLOURS = ("RGB", "RGBA", "RGBX", "RGBa")
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TYPES = {2: 4, 3: 2, 4: 6}  # channels -> colour type: grey and alpha, RGB, RGBA
_SUB = 1  # PNG's filter: the difference to the pixel on the left
_DEPTHS, _PLANES = 258, 284  # tags of a TIFF: bits of each channel; 2 where each has a plane of its own


@dataclass
class DeepImage:
    """An image of 16 bits a channel.

    Attributes:
        values: uint16 `[H, W, C]` in 0..65535: grey and alpha, RGB, or RGB and alpha.
        info: As a PIL image's: "exif" and "icc_profile", each where there is one.
    """

    values: NDArray[np.uint16]
    info: dict[Any, Any] = field(default_factory=dict)

    @property
    def colours(self) -> NDArray[np.uint16]:
        """RGB, `[H, W, 3]`; grey three times."""
        if self.values.shape[2] == 2:
            return np.repeat(self.values[..., :1], 3, axis=2)
        return np.ascontiguousarray(self.values[..., :3])

    def with_colours(self, colours: NDArray[np.uint16]) -> "DeepImage":
        """Other colours `[H, W, 3]` under the same alpha with the same metadata; grey becomes their luma."""
        channels = self.values.shape[2]
        if channels == 2:
            colours = np.floor(colours @ np.array(_LUMA) + 0.5).astype(np.uint16)[..., None]
        alpha = self.values[..., -1:] if channels != 3 else self.values[..., :0]
        return DeepImage(np.concatenate((colours, alpha), axis=2), self.info)

    def reduced(self) -> Image.Image:
        """As a PIL image with 8 bits a channel, rounded."""
        image = Image.fromarray(((self.values.astype(np.uint32) * 255 + TOP // 2) // TOP).astype(np.uint8))
        image.info = dict(self.info)
        return image

    def save(
        self, path: str | os.PathLike[str], *, quality: int = QUALITY, png_level: int = PNG_LEVEL
    ) -> None:
        """Write as `save_image` does: 16 bits a channel in PNG and TIFF, 8 in the other formats."""
        suffix = os.path.splitext(os.fspath(path))[1].lower()
        if suffix not in (".png", ".tif", ".tiff"):
            save_image(self.reduced(), path, quality=quality, png_level=png_level)
            return
        with replacing(path) as temporary, told(path, "PNG" if suffix == ".png" else "TIFF"):
            parts = _png(self, png_level) if suffix == ".png" else _tiff(self)
            with open(temporary, "wb") as file:
                file.writelines(parts)


def read_image(path: str | os.PathLike[str]) -> Image.Image | DeepImage:
    """Decode an image file as `open_image` does, but PNG and TIFF with 16-bit colours or alpha without loss.

    Raises:
        As `open_image`; ValueError also for a TIFF whose 16-bit channels lie in planes of their own.
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
        if ";16" not in raw or raw.split(";")[0] not in _COLOURS:
            file.load()
            return upright(file, own=True)
        # a division by alpha needs both bytes
        multiplied, raw = raw.startswith("RGBa"), raw.replace("RGBa", "RGBA")
        high = _decoded(file, raw)
    with opening(path) as file:
        low = _decoded(file, _other_byte(raw))
    values = (np.asarray(high).astype(np.uint16) << 8) | np.asarray(low)
    if multiplied:
        values = _divided(values)
    return DeepImage(values, high.info) if clear is None else _with_alpha(values, clear, high.info)


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


def _grey_and_alpha(path: str | os.PathLike[str]) -> DeepImage:
    """A PNG of two 16-bit channels, read as if it had four of 8 bits: the filters see the same bytes."""
    with open(path, "rb") as file:
        content = bytearray(file.read())
    header = content[12:29]  # "IHDR", width, height, depth, colour type, compression, filter, interlace
    header[12:14] = bytes((8, _PNG_TYPES[4]))
    content[12:33] = header + struct.pack(">I", zlib.crc32(header))
    with Image.open(io.BytesIO(content)) as disguised:
        disguised.load()
        image = upright(disguised)
    return DeepImage(np.asarray(image).view(">u2").astype(np.uint16), image.info)


def _with_alpha(values: np.ndarray, clear: Any, info: dict[Any, Any]) -> DeepImage:
    """One colour is transparent: alpha says so."""
    alpha = np.where((values == np.asarray(clear)).all(2, keepdims=True), 0, TOP).astype(np.uint16)
    info = {key: value for key, value in info.items() if key != "transparency"}
    return DeepImage(np.concatenate((values, alpha), axis=2), info)


def _divided(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Colours that were multiplied with alpha, without it."""
    alpha = values[..., 3:].astype(np.float64)
    colours = np.floor(values[..., :3] * (TOP / np.maximum(alpha, 1)) + 0.5)
    return np.concatenate((np.minimum(colours, TOP).astype(np.uint16), values[..., 3:]), axis=2)


def _png(image: DeepImage, level: int) -> Iterable[bytes]:
    height, width, channels = image.values.shape
    rows = image.values.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _SUB
    pixel = 2 * channels
    filtered[:, 1 : 1 + pixel] = rows[:, :pixel]
    np.subtract(rows[:, pixel:], rows[:, :-pixel], out=filtered[:, 1 + pixel :])
    yield _PNG
    yield _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _PNG_TYPES[channels], 0, 0, 0))
    if profile := image.info.get("icc_profile"):
        yield _chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
    if exif := image.info.get("exif"):
        yield _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    yield _chunk(b"IDAT", zlib.compress(filtered.data, level))
    yield _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _tiff(image: DeepImage) -> Iterable[bytes]:
    """Uncompressed, as Pillow writes TIFF."""
    values = image.values
    if values.shape[2] == 2:
        # grey with alpha is rare, and Pillow among others does not read it
        values = np.concatenate((image.colours, values[..., 1:]), axis=2)
    height, width, channels = values.shape
    # EXIF data are the header and the tags of a TIFF: with the tags of pixels they are a whole one
    tags = Image.Exif()
    if given := image.info.get("exif"):
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
    if profile := image.info.get("icc_profile"):
        tags[34675] = profile
    yield tags.tobytes().removeprefix(b"Exif\0\0")
    yield pixels
