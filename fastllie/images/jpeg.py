"""The segments of a JPEG file: what they hold beside the picture, and where the picture ends."""

import re
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fastllie.images import exif, photoshop

EOI, SOS, COM = 0xD9, 0xDA, 0xFE
_SEQUENTIAL = (0xC0, 0xC1, 0xC9)  # frames of one pass over their components
APP0, APP1, APP2, APP11, APP13, APP14 = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ICC = b"ICC_PROFILE\0"
_MORE_PICTURES = b"MPF\0"
_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
_MOST = 65533  # bytes of a segment's content
# In coded data FF is followed by 00, or by the number of a restart; anything else ends them
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class Came(NamedTuple):
    """What a JPEG file holds beside the pixels.

    Attributes:
        segments: Marker and content of what goes to a new JPEG as it is.
        density: The unit, and how many dots a unit, as JFIF has them; None without JFIF.
        iptc: The data sets of the IPTC; b"" for none.
        left_out: What describes the picture that it was, or is another picture.
    """

    segments: list[tuple[int, bytes]]
    density: bytes | None
    iptc: bytes
    left_out: list[str]


def _walk(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, begin and end of the content of each segment of the first picture, to its end or the file's."""
    place = 2
    while place + 4 <= len(content):
        if content[place] != 0xFF:
            return
        marker = content[place + 1]
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD8:
            place += 1 if marker == 0xFF else 2
            continue
        if marker == EOI:
            yield marker, place + 2, place + 2
            return
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        yield marker, place + 4, end
        place = end
        if marker == SOS:
            found = _MARKER.search(content, end)
            if found is None:
                return
            place = found.start()


def is_one_scan(content: bytes) -> bool:
    """Whether a decoder stops behind the first scan, because it holds all colours in full."""
    components = 0
    for marker, begin, stop in _walk(content):
        if marker in _SEQUENTIAL and stop - begin > 5:
            components = content[begin + 5]
        if marker == SOS:
            return components > 0 and content[begin : begin + 1] == bytes((components,))
    return False


def count_scans(content: bytes) -> int:
    """How often a decoder goes over the picture; what lies in segments and behind its end does not count."""
    return sum(marker == SOS for marker, _, _ in _walk(content))


def came_with(content: bytes) -> Came:
    """What the file holds beside the pixels, EXIF data, ICC profile and XMP, which Pillow reads."""
    came = Came([], None, b"", [])
    density, iptc = None, b""
    end = len(content)
    # a walk through the coded data costs a hundredth of their decoding: only where something follows them
    alone = content.endswith(b"\xff\xd9")
    for marker, begin, stop in _walk(content):
        part = content[begin:stop]
        if marker == SOS and alone:
            break
        if marker == EOI:
            end = stop
        elif marker == APP2 and part.startswith(_MORE_PICTURES):
            alone = False
        elif marker == APP0 and part.startswith(b"JFIF\0") and len(part) >= 12:
            density = part[7:12]
        elif marker == APP13 and part.startswith(photoshop.PREFIX):
            kept, found = photoshop.without_previews(part.removeprefix(photoshop.PREFIX))
            iptc = iptc or found
            if kept:
                came.segments.append((marker, photoshop.PREFIX + kept))
        elif marker == APP2 and part.startswith(_GAIN_MAP):
            came.left_out.append("a gain map")
        elif marker == APP11:
            came.left_out.append("C2PA" if b"c2pa" in part else "boxes of JPEG's APP11")
        elif _goes_on(marker, part):
            came.segments.append((marker, part))
    behind = content[end : end + (1 << 16)]
    if b"ftyp" in behind:
        came.left_out.append("the film behind the picture")
    elif behind.startswith(b"\xff\xd8") and "a gain map" not in came.left_out:
        gain = b"hdrgm:" in content[:end] or b"urn:iso:std:iso:ts:21496" in behind
        came.left_out.append("a gain map" if gain else "the pictures behind the first")
    return came._replace(density=density, iptc=iptc, left_out=list(dict.fromkeys(came.left_out)))


def _goes_on(marker: int, part: bytes) -> bool:
    """Whether a segment is put into the new file as it is."""
    if marker == COM:
        return True
    if not APP0 <= marker <= 0xEF or marker in (APP0, APP14):
        # of the coding, or JFIF's, which the encoder writes
        return False
    made_anew = (exif.PREFIX, _XMP, _ICC, _MORE_PICTURES, b"FPXR\0")
    return not part.startswith(made_anew)


def density_of(dpi: tuple[float, float]) -> bytes:
    """Dots an inch as JFIF has them."""
    return struct.pack(">BHH", 1, *(min(65535, max(1, round(float(value)))) for value in dpi))


def joined(
    encoded: bytes,
    *,
    exif_data: bytes,
    xmp: bytes,
    icc_profile: bytes,
    segments: Iterable[tuple[int, bytes]],
    density: bytes | None,
) -> tuple[list[bytes], list[str]]:
    """An encoded JPEG with all that goes with it, in pieces, and what of it is too large for a segment."""
    too_large = []
    first: list[tuple[int, bytes]] = []
    for name, marker, prefix, content in (
        ("EXIF", APP1, exif.PREFIX, exif_data.removeprefix(exif.PREFIX)),
        ("XMP", APP1, _XMP, xmp),
    ):
        if len(prefix + content) > _MOST:
            too_large.append(f"{name} of {len(content)} bytes")
        elif content:
            first.append((marker, prefix + content))
    room = _MOST - len(_ICC) - 2
    parts = [icc_profile[start : start + room] for start in range(0, len(icc_profile), room)]
    for place, part in enumerate(parts):
        first.append((APP2, _ICC + bytes((place + 1, len(parts))) + part))
    head, rest = encoded[:2], encoded[2:]
    if rest[:2] == bytes((0xFF, APP0)):
        length = 2 + struct.unpack(">H", rest[2:4])[0]
        jfif, rest = rest[:length], rest[length:]
        head += jfif[:11] + density + jfif[16:] if density is not None else jfif
    pieces = [head]
    for marker, content in (*first, *segments):
        pieces += [struct.pack(">BBH", 0xFF, marker, len(content) + 2), content]
    return [*pieces, rest], too_large
