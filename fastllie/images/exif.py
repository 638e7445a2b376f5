"""EXIF data that go with other pixels than they came with, changed in place.

Nothing moves: the notes of camera makers hold offsets into the whole. What describes the pixels is set anew:
the orientation, the size, and the preview, which is made from the result.
"""

import io
import struct
from collections.abc import Callable, Iterator

from fastllie.images import tiff

PREFIX = b"Exif\0\0"
ORIENTATION = 0x0112
_SIZES = (0xA002, 0xA003)  # of the picture, in the EXIF directory
_PREVIEW, _LENGTH = 0x0201, 0x0202
MOST = 65533 - len(PREFIX)  # bytes that a segment of a JPEG can hold


def orientation(exif: bytes) -> int:
    """1 to 8; 1 where it is not told, or the data are damaged."""
    content = exif.removeprefix(PREFIX)
    try:
        order, _, start = tiff.header(content[:16])
        for tag, _, place in _entries(content, order, start):
            if tag == ORIENTATION:
                value = struct.unpack_from(order + "H", content, place)[0]
                return value if 1 <= value <= 8 else 1
    except (tiff.BrokenError, struct.error):
        pass
    return 1


def adjusted(exif: bytes, size: tuple[int, int], preview: Callable[[], bytes]) -> bytes:
    """EXIF data, with their prefix or without, for upright pixels of this size.

    Args:
        preview: Makes the content of a small JPEG; called where there is one.

    Raises:
        BrokenError: damaged.
    """
    prefix = PREFIX if exif.startswith(PREFIX) else b""
    content = bytearray(exif[len(prefix) :])
    try:
        order, big, start = tiff.header(bytes(content[:16]))
        if big:
            raise tiff.BrokenError("no EXIF data: a BigTIFF")
        for tag, _, place in list(_entries(content, order, start)):
            if tag == ORIENTATION:
                struct.pack_into(order + "HH", content, place, 1, 0)
            if tag == tiff.EXIF:
                below = struct.unpack_from(order + "I", content, place)[0]
                _set_size(content, order, below, size)
        following = start + 2 + 12 * struct.unpack_from(order + "H", content, start)[0]
        if len(content) >= following + 4 and any(content[following : following + 4]):
            _renew(content, order, following, preview)
    except struct.error as error:
        raise tiff.BrokenError(f"damaged: {error}") from error
    return prefix + bytes(content)


def _entries(content: bytes | bytearray, order: str, start: int) -> Iterator[tuple[int, int, int]]:
    """Tag, type and the place of the value's four bytes."""
    for place in range(start + 2, start + 2 + 12 * struct.unpack_from(order + "H", content, start)[0], 12):
        tag, kind = struct.unpack_from(order + "HH", content, place)
        yield tag, kind, place + 8


def _set_size(content: bytearray, order: str, start: int, size: tuple[int, int]) -> None:
    for tag, kind, place in list(_entries(content, order, start)):
        if tag in _SIZES:
            value = size[_SIZES.index(tag)]
            if kind == tiff.LONG:
                struct.pack_into(order + "I", content, place, value)
            elif kind == tiff.SHORT and value < 1 << 16:
                struct.pack_into(order + "HH", content, place, value, 0)


def _renew(content: bytearray, order: str, pointer: int, preview: Callable[[], bytes]) -> None:
    """Put a new preview in the place of the old one, or behind all; or none, where it does not fit."""
    start = struct.unpack_from(order + "I", content, pointer)[0]
    places = {tag: place for tag, _, place in _entries(content, order, start)}
    if ORIENTATION in places:
        struct.pack_into(order + "HH", content, places[ORIENTATION], 1, 0)
    if _PREVIEW in places and _LENGTH in places:
        old, room = (struct.unpack_from(order + "I", content, places[tag])[0] for tag in (_PREVIEW, _LENGTH))
        made = preview()
        if old + room <= len(content):
            content[old : old + room] = made[:room].ljust(room, b"\0")
        if len(made) > room or old + room > len(content):
            old = len(content) + len(content) % 2
            if old + len(made) > MOST:
                old = 0
            else:
                content += bytes(len(content) % 2) + made
        if old:
            struct.pack_into(order + "I", content, places[_PREVIEW], old)
            struct.pack_into(order + "I", content, places[_LENGTH], len(made))
            return
    # the dark picture's own pixels, or no room
    struct.pack_into(order + "I", content, pointer, 0)


def of_directory(directory: tiff.Directory) -> bytes:
    """The tags of a TIFF as EXIF data."""
    file = io.BytesIO()
    file.write((b"II*\0" if directory.order == "<" else b"MM\0*") + bytes(4))
    place, _ = tiff.write_directory(file, directory, big=False)
    file.seek(4)
    file.write(struct.pack(directory.order + "I", place))
    return PREFIX + file.getvalue()


def as_directory(exif: bytes) -> tiff.Directory:
    """The tags of EXIF data, without the preview's.

    Raises:
        BrokenError: damaged.
    """
    content = exif.removeprefix(PREFIX)
    order, big, start = tiff.header(content[:16])
    return tiff.read_directory(io.BytesIO(content), order, big, start)[0]
