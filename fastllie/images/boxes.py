"""What HEIC and AVIF files say of their coding in their boxes, and what lies in them beside the picture."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_SUBSAMPLINGS = ("4:0:0", "4:2:0", "4:2:2", "4:4:4")
_C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")


@dataclass(frozen=True)
class Facts:
    """What the boxes say.

    Attributes:
        bits: Of a channel.
        subsampling: Of the colours, "4:2:0" and the like; "" where nothing says.
        lossless: Whether no matrix stands between the pixels and what is coded, as it is without loss.
        beside: What lies beside the picture, in words.
    """

    bits: int = 8
    subsampling: str = ""
    lossless: bool = False
    beside: tuple[str, ...] = ()


def read(content: bytes) -> Facts:
    """The facts of a HEIC or AVIF file; those of any other bytes are none."""
    meta, beside = b"", []
    for kind, body in boxes_of(content):
        if kind == b"meta":
            meta = body
        elif kind == b"uuid" and body.startswith(_C2PA):
            beside.append("C2PA")
    if b"tmap" in meta:
        beside.append("a gain map")
    bits, subsampling = 8, ""
    for name in (b"av1C", b"hvcC"):
        place = meta.find(name)
        while place >= 0:
            found = _av1(meta[place + 4 :]) if name == b"av1C" else _hevc(meta[place + 4 :])
            # the mask of alpha has no colours; the picture is the deepest
            bits, subsampling = max(bits, found[0]), max(subsampling, found[1])
            place = meta.find(name, place + 4)
    matrix = meta.find(b"nclx")
    plain = matrix >= 0 and meta[matrix + 8 : matrix + 10] == b"\0\0"
    return Facts(bits, subsampling, plain and subsampling == "4:4:4", tuple(beside))


def bits_of_jpeg2000(content: bytes) -> int:
    """Bits of a channel, of a JPEG 2000, by the marker SIZ before its pixels."""
    place = content.find(b"\xff\x4f\xff\x51")
    depths = content[place + 42 : place + 42 + 3 * 4 : 3] if place >= 0 else b""
    return max((depth & 0x7F for depth in depths[:1]), default=7) + 1


def _av1(coding: bytes) -> tuple[int, str]:
    flags = coding[2] if len(coding) > 2 else 0
    bits = 12 if flags & 0x20 else 10 if flags & 0x40 else 8
    return bits, _SUBSAMPLINGS[0 if flags & 0x10 else 3 - (flags >> 3 & 1) - (flags >> 2 & 1)]


def _hevc(coding: bytes) -> tuple[int, str]:
    if len(coding) < 18:
        return 8, ""
    return 8 + (coding[17] & 7), _SUBSAMPLINGS[coding[16] & 3]


def boxes_of(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes of a file, one after the other: their kinds and what is in them."""
    place = 0
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        head = 8
        if length == 1 and place + 16 <= len(content):
            length, head = struct.unpack_from(">Q", content, place + 8)[0], 16
        end = len(content) if length == 0 else place + max(length, head)
        # the pixels are none of what is looked at here
        yield kind, b"" if kind == b"mdat" else content[place + head : end]
        place = end
