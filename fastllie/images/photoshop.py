"""Photoshop's image resources, in which JPEG and TIFF carry IPTC."""

import struct
from collections.abc import Iterator

PREFIX = b"Photoshop 3.0\0"
IPTC = 0x0404
_PREVIEWS = (0x0409, 0x040C)


def _resources(content: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, value and the whole of each, as far as they are sound."""
    place = 0
    while content[place : place + 4] in (b"8BIM", b"MeSa", b"AgHg", b"PHUT", b"DCSR"):
        if place + 12 > len(content):
            return
        number = struct.unpack_from(">H", content, place + 4)[0]
        name = 1 + content[place + 6]
        begin = place + 6 + name + name % 2
        if begin + 4 > len(content):
            return
        length = struct.unpack_from(">I", content, begin)[0]
        end = begin + 4 + length + length % 2
        yield number, content[begin + 4 : begin + 4 + length], content[place:end]
        place = end


def without_previews(content: bytes) -> tuple[bytes, bytes]:
    """The resources without small pictures of what the picture was, and the IPTC among them."""
    found = list(_resources(content))
    iptc = b"".join(value for number, value, _ in found if number == IPTC)
    if not any(number in _PREVIEWS for number, _, _ in found):
        return content, iptc
    return b"".join(whole for number, _, whole in found if number not in _PREVIEWS), iptc


def of_iptc(iptc: bytes) -> bytes:
    """Resources that hold this IPTC."""
    return struct.pack(">4sHHI", b"8BIM", IPTC, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
