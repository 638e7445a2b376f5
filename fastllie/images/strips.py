"""The pixels of a TIFF as they are stored: of 16 and 32 bits Pillow reads grey alone."""

import io
import math
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastllie.images import tiff
from fastllie.images.tiff import BrokenError, Directory, Page

NONE, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTD = 1, 5, 7, 8, 32773, 32946, 34925, 50000
#: what makes of bytes other bytes, in Pillow's words where zlib does not do it
BY_PILLOW = {LZW: "tiff_lzw", PACKBITS: "packbits", LZMA: "lzma", ZSTD: "zstd"}
_READ = {NONE, DEFLATE, OLD_DEFLATE, *BY_PILLOW}
# depth and sample format
_KINDS = {(8, 1): "u1", (16, 1): "u2", (16, 3): "f2", (32, 3): "f4", (64, 3): "f8"}
_KINDS |= {(32, 1): "u4", (64, 1): "u8", (8, 2): "i1", (16, 2): "i2", (32, 2): "i4", (64, 2): "i8"}
_MOST = 65535  # of integers of more bits, which are held to be of 16
_WIDTH, _HEIGHT, _DEPTHS, _COMPRESSION, _CHANNELS, _ROWS = 256, 257, 258, 259, 277, 278
_PLANES, _PREDICTOR, _FORMAT = 284, 317, 339
_TILE_WIDTH, _TILE_HEIGHT, _TILE_PLACES, _TILE_LENGTHS, _PLACES, _LENGTHS = 322, 323, 324, 325, 273, 279
_MOST_CHANNELS = 64


class UnfitError(ValueError):
    """Values whose meaning nobody knows."""


def size_of(page: Directory) -> tuple[int, int]:
    """Width and height."""
    return int(page.first(_WIDTH)), int(page.first(_HEIGHT))


def kind_of(page: Directory) -> str:
    """The dtype of the values that are read here, without byte order; "" for what is left to Pillow."""
    depths = set(page.all(_DEPTHS)) or {1}
    formats = set(page.all(_FORMAT)) or {1}
    if len(depths) != 1 or len(formats) != 1 or page.first(_COMPRESSION, 1) not in _READ:
        return ""
    if page.first(262, -1) not in (0, 1, 2, 5) or not 1 <= page.first(_CHANNELS, 1) <= _MOST_CHANNELS:
        return ""
    return _KINDS.get((depths.pop(), formats.pop()), "")


def read(file: BinaryIO, page: Directory) -> NDArray[Any]:
    """The values `[H, W, C]` as they are stored, in this machine's byte order.

    Raises:
        BrokenError: parts that are not there.
    """
    kind = np.dtype(page.order + kind_of(page))
    width, height = size_of(page)
    channels, planes = int(page.first(_CHANNELS, 1)), page.first(_PLANES, 1) == 2
    tiled = _TILE_PLACES in page.entries
    if tiled:
        across, down = int(page.first(_TILE_WIDTH)), int(page.first(_TILE_HEIGHT))
        places, lengths = page.all(_TILE_PLACES), page.all(_TILE_LENGTHS)
    else:
        across, down = width, min(height, int(page.first(_ROWS, height)))
        places, lengths = page.all(_PLACES), page.all(_LENGTHS)
    if min(width, height, across, down) < 1:
        raise BrokenError("a picture without pixels")
    columns, rows = math.ceil(width / across), math.ceil(height / down)
    layers, deep = (channels, 1) if planes else (1, channels)
    if (
        len(places) < layers * columns * rows
        or len(lengths) < layers * columns * rows
        or across * down > 2**31
    ):
        raise BrokenError("parts of the picture are missing")
    values = np.empty((height, width, channels), kind.newbyteorder("="))
    for place in range(layers * columns * rows):
        layer, rest = divmod(place, columns * rows)
        top, left = rest // columns * down, rest % columns * across
        tall = down if tiled else min(down, height - top)
        part = _part(file, page, places[place], lengths[place], (tall, across, deep), kind)
        target = values[top : top + tall, left : left + across, layer : layer + deep] if planes else None
        target = values[top : top + tall, left : left + across] if target is None else target
        target[...] = part[: target.shape[0], : target.shape[1]]
    return values


def narrowed(values: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """Values of any kind as uint8, uint16 or float32, and what that changes, in words; "" for nothing.

    Floats become single. Integers of 8 bits stay in 8, all others in 16; none are scaled, for nothing says
    up to where they are meant to reach.

    Raises:
        UnfitError: integers that do not fit.
    """
    kind = values.dtype.str[1:]
    if kind in ("u1", "u2", "f4"):
        return values, ""
    if kind in ("f2", "f8"):
        return values.astype(np.float32), "double precision, which becomes single" if kind == "f8" else ""
    bits = 8 * values.dtype.itemsize
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _MOST:
        raise UnfitError(
            f"it holds integers of {bits} bits from {low} to {high}, and nothing says which of them is white;"
            f" scale them to 0..{_MOST}, or to floats in [0, 1]"
        )
    if kind == "i1":
        return values.astype(np.uint8), "the sign of its integers"
    return values.astype(np.uint16), f"integers of {bits} bits with sign" if kind == "i2" else (
        f"integers of {bits} bits, which become 16"
    )


def _part(
    file: BinaryIO, page: Directory, place: int, length: int, shape: tuple[int, int, int], kind: np.dtype[Any]
) -> NDArray[Any]:
    """One strip or tile."""
    wanted = math.prod(shape) * kind.itemsize
    file.seek(place)
    content = _unpacked(file.read(length), int(page.first(_COMPRESSION, 1)), wanted, shape[0])
    if len(content) < wanted:
        raise BrokenError(f"a part of the picture has {len(content)} bytes; wanted {wanted}")
    predictor = page.first(_PREDICTOR, 1)
    if predictor == 3:
        # the bytes of a row: the upper ones of all values first, each as the difference to the one before
        rows = np.frombuffer(content, np.uint8, wanted).reshape(shape[0], -1, shape[2])
        rows = np.cumsum(rows, axis=1, dtype=np.uint8).reshape(shape[0], kind.itemsize, -1)
        return np.ascontiguousarray(rows.transpose(0, 2, 1)).view(f">f{kind.itemsize}").reshape(shape)
    values = np.frombuffer(content, kind, math.prod(shape)).reshape(shape)
    values = values.astype(kind.newbyteorder("="))
    return np.cumsum(values, axis=1, dtype=values.dtype) if predictor == 2 else values


def _unpacked(content: bytes, compression: int, wanted: int, rows: int) -> bytes:
    if compression == NONE:
        return content
    if compression in (DEFLATE, OLD_DEFLATE):
        try:
            return zlib.decompressobj().decompress(content, wanted)
        except zlib.error as error:
            raise BrokenError(f"a part of the picture: {error}") from error
    # as a picture of one byte a pixel, which Pillow unpacks
    tags = Directory()
    for tag, value in ((_WIDTH, wanted // rows), (_HEIGHT, rows), (_DEPTHS, 8), (_COMPRESSION, compression)):
        tags.put(tag, tiff.LONG, value)
    for tag, value in ((262, 1), (_CHANNELS, 1), (_ROWS, rows)):
        tags.put(tag, tiff.LONG, value)
    made = io.BytesIO()
    tiff.write_file(made, [Page(tags, [content])], "<", big=False)
    with Image.open(made) as image:
        return image.tobytes()


def packed(part: NDArray[Any], compression: int, predictor: int) -> bytes:
    """Rows `[H, W, C]` in the byte order that they are written in, as one strip."""
    if predictor == 2:
        native = part.astype(part.dtype.newbyteorder("="))
        steps = native.copy()
        np.subtract(native[:, 1:], native[:, :-1], out=steps[:, 1:])
        part = steps.astype(part.dtype)
    content = np.ascontiguousarray(part).tobytes()
    if compression == NONE:
        return content
    if compression in (DEFLATE, OLD_DEFLATE):
        return zlib.compress(content, 6)
    # the bytes of a row as a row of grey pixels: the compression sees no difference
    image = Image.frombytes("L", (len(content) // len(part), len(part)), content)
    made = io.BytesIO()
    image.save(made, "TIFF", compression=BY_PILLOW[compression], tiffinfo={_ROWS: len(part)})
    return b"".join(strips_of(made)[1])


def strips_of(made: io.BytesIO) -> tuple[Directory, list[bytes]]:
    """Tags and strips of a TIFF that Pillow wrote."""
    content = made.getvalue()
    order, big, start = tiff.header(content[:16])
    tags, _ = tiff.read_directory(made, order, big, start)
    pairs = zip(tags.all(_PLACES), tags.all(_LENGTHS), strict=True)
    return tags, [content[place : place + length] for place, length in pairs]


def in_strips(values: NDArray[Any], rows: int) -> Iterator[NDArray[Any]]:
    for start in range(0, len(values), rows):
        yield values[start : start + rows]
