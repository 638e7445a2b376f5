"""EXIF data that go with other pixels than they came with, changed in place.

Nothing moves: the notes of camera makers hold offsets into the whole. What describes the pixels is set anew:
the orientation, the size, and the preview, which is made from the result.
"""

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

from fastllie.images import tiff

PREFIX = b"Exif\0\0"
ORIENTATION = 0x0112
_SIZES = (0xA002, 0xA003)  # of the picture, in the EXIF directory
_NOTES, _SHORT = 0x927C, 32
_OF_THEIR_OWN = (
    b"Nikon\0\2",
    b"Apple iOS\0",
    b"FUJIFILM",
    b"OLYMPUS\0",
    b"OM SYSTEM\0",
    b"SIGMA\0",
    b"Ricoh\0II",
)
_PREVIEW, _LENGTH = 0x0201, 0x0202
MOST = 65533 - len(PREFIX)  # bytes that a segment of a JPEG can hold


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
        for tag, kind, place in list(_entries(content, order, start)):
            if tag == ORIENTATION:
                _put(content, order, kind, place, 1)
            if tag == tiff.EXIF:
                below = struct.unpack_from(order + "I", content, place)[0]
                with suppress(struct.error):
                    _set_size(content, order, below, size)
        following = start + 2 + 12 * struct.unpack_from(order + "H", content, start)[0]
    except struct.error as error:
        raise tiff.BrokenError(f"damaged: {error}") from error
    if len(content) >= following + 4 and any(content[following : following + 4]):
        try:
            _renew(content, order, following, preview)
        except struct.error:
            # a preview that nobody can find is none
            content[following : following + 4] = bytes(4)
    return prefix + bytes(content)


def pointing_notes(exif: bytes) -> bool:
    """Whether there are notes of the camera's maker that may point to places outside of themselves."""
    try:
        directory = as_directory(exif)
    except tiff.BrokenError:
        return False
    below = directory.entries.get(tiff.EXIF)
    notes = None if below is None or below.below is None else below.below.entries.get(_NOTES)
    # these count from their own beginning; the short ones have no room for directories
    return notes is not None and len(notes.content) > _SHORT and not notes.content.startswith(_OF_THEIR_OWN)


def _entries(content: bytes | bytearray, order: str, start: int) -> Iterator[tuple[int, int, int]]:
    """Tag, type and the place of the value's four bytes."""
    for place in range(start + 2, start + 2 + 12 * struct.unpack_from(order + "H", content, start)[0], 12):
        tag, kind = struct.unpack_from(order + "HH", content, place)
        yield tag, kind, place + 8


def _set_size(content: bytearray, order: str, start: int, size: tuple[int, int]) -> None:
    for tag, kind, place in list(_entries(content, order, start)):
        if tag in _SIZES:
            _put(content, order, kind, place, size[_SIZES.index(tag)])


def _put(content: bytearray, order: str, kind: int, place: int, value: int) -> None:
    """Set a number where it stands, as far as its type can hold it."""
    if kind == tiff.LONG:
        struct.pack_into(order + "I", content, place, value)
    elif kind == tiff.SHORT and value < 1 << 16:
        struct.pack_into(order + "HH", content, place, value, 0)


def _renew(content: bytearray, order: str, pointer: int, preview: Callable[[], bytes]) -> None:
    """Put a new preview in the place of the old one, or behind all; or none, where it does not fit."""
    start = struct.unpack_from(order + "I", content, pointer)[0]
    found = {tag: (kind, place) for tag, kind, place in _entries(content, order, start)}
    places = {tag: place for tag, (_, place) in found.items()}
    if ORIENTATION in found:
        _put(content, order, *found[ORIENTATION], 1)
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
