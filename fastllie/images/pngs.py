"""Pixels to PNG: by filters and a coding that a sample of the picture's rows chooses.

Of the noise in a photograph, matches of longer strings say little that the counts of bytes do not: runs alone
(zlib's RLE) are found in a third of the time, for a smaller file. Unlike Pillow's encoder, zlib holds no lock
of the interpreter, and a folder's photographs are encoded side by side.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fastllie.images.png import SIGNATURE, TYPES, chunk

# PNG's filters: the difference to the pixel on the left, to the one above, to the mean of both
_SUB, _UP, _AVERAGE = 1, 2, 3
_BAND = 1 << 20  # bytes that are filtered at once, and stay in a core's cache
# What is coded in trial: 16 pieces of 4 rows below a known one, 2 KiB wide. It finds fewer matches than the
# whole picture would, so runs have to be better by more than nothing
_PIECES, _TALL, _WIDE, _MARGIN = 16, 5, 2048, 0.95
_GOLDEN = 0.618034  # places across the picture that come near to none before
_SMALL = 1 << 21  # bytes of pixels, below which the trial takes much of what runs save


def encoded(values: NDArray[np.uint8] | NDArray[np.uint16], level: int) -> bytes:
    """Pixels `[H, W, C]` of 8 or 16 bits a channel."""
    kind, runs = _chosen(*_rows(values), level)
    return _encoded(values, level, kind, runs <= 1)


def encoded_by_runs(values: NDArray[np.uint8], level: int) -> bytes | None:
    """Pixels `[H, W, C]` of 8 bits a channel; None where matches serve better than runs, as in drawings."""
    if values.size < _SMALL:
        return None
    kind, runs = _chosen(*_rows(values), level)
    return _encoded(values, level, kind, True) if runs < _MARGIN else None


def _rows(values: NDArray[np.uint8] | NDArray[np.uint16]) -> tuple[NDArray[np.uint8], int]:
    """The bytes `[H, N]` that are filtered, and how many a pixel has."""
    height, _, channels = values.shape
    big_endian = values.astype(values.dtype.newbyteorder(">"), copy=False)
    return big_endian.view(np.uint8).reshape(height, -1), channels * values.itemsize


def _chosen(rows: NDArray[np.uint8], pixel: int, level: int) -> tuple[int, float]:
    """The filter that makes least of a picture by runs, and how much that is to what matches make of it."""
    tall, wide = min(_TALL, rows.shape[0]), min(_WIDE // pixel * pixel, rows.shape[1])
    tops = np.linspace(0, rows.shape[0] - tall, _PIECES).astype(int)
    lefts = (np.arange(_PIECES) * _GOLDEN % 1 * (rows.shape[1] - wide)).astype(int) // pixel * pixel
    sample = np.concatenate(
        [rows[top : top + tall, left : left + wide] for top, left in zip(tops, lefts, strict=True)]
    )
    bands = [(place * tall + 1, (place + 1) * tall) for place in range(_PIECES)]

    def size(kind: int, runs: bool) -> int:
        return sum(map(len, _compressed(sample, pixel, bands, kind, level, runs)))

    sizes = {kind: size(kind, True) for kind in (_SUB, _UP, _AVERAGE)}
    least = min(sizes, key=sizes.__getitem__)
    return least, sizes[least] / size(least, False)


def _encoded(values: NDArray[np.uint8] | NDArray[np.uint16], level: int, kind: int, runs: bool) -> bytes:
    height, width, channels = values.shape
    rows, pixel = _rows(values)
    step = max(1, _BAND // rows.shape[1])
    bands = [(first, min(first + step, height)) for first in range(0, height, step)]
    header = struct.pack(">IIBBBBB", width, height, 8 * values.itemsize, TYPES[channels], 0, 0, 0)
    body = b"".join(_compressed(rows, pixel, bands, kind, level, runs))
    return b"".join((SIGNATURE, chunk(b"IHDR", header), chunk(b"IDAT", body), chunk(b"IEND", b"")))


def _compressed(
    rows: NDArray[np.uint8], pixel: int, bands: list[tuple[int, int]], kind: int, level: int, runs: bool
) -> Iterator[bytes]:
    """Bands of rows, each from its first to before its last, filtered and compressed one after another."""
    most, length = max(last - first for first, last in bands), rows.shape[1]
    # zeros on the left of the first pixel, and above the first row
    framed = np.zeros((1 + most, pixel + length), np.uint8)
    filtered = np.full((most, 1 + length), kind, np.uint8)
    mean = np.empty((most, length), np.uint8) if kind == _AVERAGE else framed
    strategy = zlib.Z_RLE if runs else zlib.Z_DEFAULT_STRATEGY
    coder = zlib.compressobj(level, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1, strategy)
    for first, last in bands:
        count = last - first
        if first:
            framed[0, pixel:] = rows[first - 1]
        framed[1 : 1 + count, pixel:] = rows[first:last]
        here, left = framed[1 : 1 + count, pixel:], framed[1 : 1 + count, :-pixel]
        above, out = framed[:count, pixel:], filtered[:count, 1:]
        if kind == _AVERAGE:
            # without the carry that a sum of two bytes has
            np.bitwise_xor(left, above, out=mean[:count])
            np.right_shift(mean[:count], 1, out=mean[:count])
            np.bitwise_and(left, above, out=out)
            np.add(mean[:count], out, out=mean[:count])
            np.subtract(here, mean[:count], out=out)
        else:
            np.subtract(here, left if kind == _SUB else above, out=out)
        yield coder.compress(filtered[:count].data)
    yield coder.flush()
