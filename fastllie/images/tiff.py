"""Directories of a TIFF, classic and Big, as they stand in TIFF files and in EXIF data.

Values stay the bytes that they were, in the byte order that they had, so that private tags (GeoTIFF, ImageJ,
a scanner's own) come through without being understood.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_CODES = {
    1: "B",
    3: "H",
    4: "I",
    6: "b",
    8: "h",
    9: "i",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 1, 2, 3, 4, 5, 7, 16
EXIF, GPS, INTEROP = 34665, 34853, 40965  # tags whose value is a directory
_BELOW = (EXIF, GPS, INTEROP)
SUB_IMAGES = 330
# What tells how the pixels of this very file are stored, and would be wrong in another one
STORAGE = frozenset(
    (
        *(
            254,
            255,
            256,
            257,
            258,
            259,
            262,
            263,
            264,
            265,
            266,
            273,
            274,
            277,
            278,
            279,
            284,
            *range(288, 294),
        ),
        *(*range(317, 326), SUB_IMAGES, 332, 333, 334, 336, 338, 339, 340, 341, 342, 347),
        *(*range(512, 522), *range(529, 533), 559),
    )
)
_MOST_ENTRIES = 4096  # of one directory
_MOST_BYTES = 1 << 26  # of one value
_DEEPEST = 3
_CLASSIC = 2**32 - 2**20  # bytes of a classic file, whose offsets have 32 bits


class BrokenError(ValueError):
    """Bytes that are no directory."""


@dataclass
class Entry:
    """The value of one tag: its type, how many of it, and its bytes; or the directory that it points to."""

    kind: int
    count: int
    content: bytes
    below: "Directory | None" = None

    def numbers(self, order: str) -> tuple[float, ...]:
        """The values as numbers; rationals as their quotients, text as none."""
        if self.kind in (5, 10):
            parts = struct.unpack(f"{order}{2 * self.count}{'I' if self.kind == 5 else 'i'}", self.content)
            return tuple(
                top / bottom if bottom else 0.0 for top, bottom in zip(parts[::2], parts[1::2], strict=True)
            )
        code = _CODES.get(self.kind)
        return struct.unpack(f"{order}{self.count}{code}", self.content) if code else ()


@dataclass
class Directory:
    """The tags of one picture, in the byte order `order` ("<" or ">")."""

    order: str = "<"
    entries: dict[int, Entry] = field(default_factory=dict)

    def first(self, tag: int, default: float = 0) -> float:
        """The first number of a tag."""
        numbers = self.entries[tag].numbers(self.order) if tag in self.entries else ()
        return numbers[0] if numbers else default

    def put(self, tag: int, kind: int, *numbers: int) -> None:
        """Set a tag to numbers; of RATIONAL, pairs."""
        code = "I" if kind == RATIONAL else _CODES[kind]
        count = len(numbers) // 2 if kind == RATIONAL else len(numbers)
        self.entries[tag] = Entry(kind, count, struct.pack(f"{self.order}{len(numbers)}{code}", *numbers))

    def all(self, tag: int) -> tuple[int, ...]:
        """The numbers of a tag, whole."""
        return (
            tuple(int(number) for number in self.entries[tag].numbers(self.order))
            if tag in self.entries
            else ()
        )

    def put_bytes(self, tag: int, kind: int, content: bytes) -> None:
        self.entries[tag] = Entry(kind, len(content), content)

    def without(self, tags: Iterable[int]) -> "Directory":
        left_out = frozenset(tags)
        return Directory(
            self.order, {tag: entry for tag, entry in self.entries.items() if tag not in left_out}
        )


@dataclass
class Page:
    """A picture to be written: its tags without those of the strips, and the strips."""

    tags: Directory
    strips: Sequence[bytes | memoryview]


def header(start: bytes) -> tuple[str, bool, int]:
    """Byte order, whether Big, and where the first directory is, from the first 16 bytes.

    Raises:
        BrokenError: it is no TIFF.
    """
    order = {b"II": "<", b"MM": ">"}.get(bytes(start[:2]), "")
    try:
        version = struct.unpack_from(order + "H", start, 2)[0] if order else 0
        if version == 43:
            return order, True, struct.unpack_from(order + "Q", start, 8)[0]
        if version == 42:
            return order, False, struct.unpack_from(order + "I", start, 4)[0]
    except struct.error:
        pass
    raise BrokenError("no header of a TIFF")


def read_directory(
    file: BinaryIO, order: str, big: bool, offset: int, depth: int = 0
) -> tuple[Directory, int]:
    """The directory at `offset`, and where the next one is (0: none).

    Raises:
        BrokenError: damaged, or larger than any.
    """
    try:
        file.seek(offset)
        count = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))[0]
        if count > _MOST_ENTRIES:
            raise BrokenError(f"a directory of {count} tags")
        width = 20 if big else 12
        table = file.read(width * count + (8 if big else 4))
        following = struct.unpack_from(order + ("Q" if big else "I"), table, width * count)[0]
        found = Directory(order)
        for place in range(count):
            tag, kind, number = struct.unpack_from(order + ("HHQ" if big else "HHI"), table, width * place)
            if kind in SIZES:
                inline = table[width * place + (12 if big else 8) : width * (place + 1)]
                entry = _entry(file, order, big, tag, kind, number, inline, depth)
                if entry is not None:
                    found.entries[tag] = entry
    except (struct.error, OverflowError, OSError) as error:
        raise BrokenError(f"a damaged directory: {error}") from error
    return found, following


def _entry(
    file: BinaryIO, order: str, big: bool, tag: int, kind: int, number: int, inline: bytes, depth: int
) -> Entry | None:
    length = SIZES[kind] * number
    if length > _MOST_BYTES:
        return None
    place = struct.unpack(order + ("Q" if big else "I"), inline)[0]
    if tag in _BELOW:
        if depth >= _DEEPEST:
            return None
        try:
            return Entry(LONG, 1, b"", read_directory(file, order, big, place, depth + 1)[0])
        except BrokenError:
            return None
    if length <= len(inline):
        return Entry(kind, number, inline[:length])
    file.seek(place)
    content = file.read(length)
    return Entry(kind, number, content) if len(content) == length else None


def ends_within(file: BinaryIO, size: int) -> bool:
    """Whether the first picture and its tags lie within a file of `size` bytes.

    Raises:
        BrokenError: the tags do not.
    """
    file.seek(0)
    order, big, offset = header(file.read(16))
    page, _ = read_directory(file, order, big, offset)
    for places, lengths in ((273, 279), (324, 325)):
        for place, length in zip(page.all(places), page.all(lengths), strict=False):
            if place + length > size:
                return False
    return True


def write_file(file: BinaryIO, pages: Iterable[Page], order: str, big: bool) -> None:
    """Write pictures one after another; classic, or Big.

    Raises:
        BrokenError: more than a classic file can hold.
    """
    file.write(b"II" if order == "<" else b"MM")
    file.write(struct.pack(order + "HHHQ", 43, 8, 0, 0) if big else struct.pack(order + "HI", 42, 0))
    pointer = 8 if big else 4
    for page in pages:
        places = []
        for strip in page.strips:
            places.append(_aligned(file))
            file.write(strip)
        wide = LONG8 if big else LONG
        if not big and file.tell() > _CLASSIC:
            raise BrokenError("more than 4 GB, which wants a BigTIFF")
        page.tags.put(273, wide, *places)
        page.tags.put(279, wide, *(len(strip) for strip in page.strips))
        place, following = write_directory(file, page.tags, big)
        file.seek(pointer)
        file.write(struct.pack(order + ("Q" if big else "I"), place))
        file.seek(0, 2)
        pointer = following


def write_directory(file: BinaryIO, directory: Directory, big: bool) -> tuple[int, int]:
    """Write a directory and what it points to; where it is, and where the offset of a next one goes."""
    order, room = directory.order, 8 if big else 4
    rows = []
    for tag, entry in sorted(directory.entries.items()):
        content, kind, count = entry.content, entry.kind, entry.count
        if entry.below is not None:
            place, _ = write_directory(file, entry.below, big)
            kind, count, content = (
                (LONG8 if big else LONG),
                1,
                struct.pack(order + ("Q" if big else "I"), place),
            )
        elif not big and kind in (16, 17, 18):
            numbers = struct.unpack(f"{order}{count}{_CODES[kind]}", content)
            kind = 9 if kind == 17 else LONG
            content = struct.pack(f"{order}{count}{_CODES[kind]}", *numbers)
        if len(content) > room:
            place = _aligned(file)
            file.write(content)
            content = struct.pack(order + ("Q" if big else "I"), place)
        rows.append(
            struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, count) + content.ljust(room, b"\0")
        )
    place = _aligned(file)
    file.write(struct.pack(order + ("Q" if big else "H"), len(rows)) + b"".join(rows))
    following = file.tell()
    file.write(bytes(room))
    return place, following


def _aligned(file: BinaryIO) -> int:
    place = file.tell()
    if place % 2:
        file.write(b"\0")
    return place + place % 2
