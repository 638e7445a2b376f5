"""The chunks of a PNG file."""

import struct
import zlib
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type: grey, grey and alpha, RGB, RGBA
_MOST = 1 << 26  # bytes of a chunk that is no picture
# Of the coding; made anew; of an animation
_OWN = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"}
# Only true as long as the pixels are coded in the same way, and then only of colours without a palette
_OF_CODING = {b"bKGD", b"sBIT"}
_OF_PALETTE = {b"hIST", b"sPLT"}
_CONTENT_CREDENTIALS = b"caBX"
XMP = b"XML:com.adobe.xmp"
_IPTC = b"Raw profile type iptc\0"
_OLD_EXIF = (b"Raw profile type exif\0", b"Raw profile type APP1\0")


class Came(NamedTuple):
    """What a PNG file holds beside the pixels and EXIF data.

    Attributes:
        chunks: Name and content of those that go to a new PNG.
        kind: Colour type and depth.
        xmp: Without its head; b"" for none.
        left_out: What describes the coding or the picture that it was.
    """

    chunks: list[tuple[bytes, bytes]]
    kind: tuple[int, int]
    xmp: bytes
    left_out: list[str]

    @property
    def comment(self) -> bytes:
        """The text of that name; b"" for none."""
        head = b"Comment\0"
        found = [content for name, content in self.chunks if name == b"tEXt" and content.startswith(head)]
        return found[0].removeprefix(head) if found else b""

    @property
    def iptc(self) -> bytes:
        """As ImageMagick puts it into text, in the digits of its bytes; b"" for none, or damaged."""
        for name, content in self.chunks:
            if name == b"zTXt" and content.startswith(_IPTC):
                try:
                    words = zlib.decompressobj().decompress(content.removeprefix(_IPTC + b"\0"), _MOST)
                    return bytes.fromhex(b"".join(words.split(b"\n")[3:]).decode())
                except (zlib.error, ValueError):
                    return b""
        return b""

    @property
    def names(self) -> set[bytes]:
        return {name for name, _ in self.chunks}


def came_with(file: BinaryIO) -> Came:
    """The chunks that go to a new PNG, as far as they are whole."""
    came = Came([], (0, 0), b"", [])
    kind, xmp = (0, 0), b""
    file.seek(len(SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"IEND":
            break
        if name in _OWN - {b"IHDR"} or length > _MOST:
            file.seek(length + 4, 1)
            continue
        content = file.read(length)
        file.seek(4, 1)
        if len(content) < length:
            break
        if name == b"IHDR" and length == 13:
            kind = content[9], content[8]
        elif name == _CONTENT_CREDENTIALS:
            came.left_out.append("C2PA")
        elif name in _OF_PALETTE or (name in _OF_CODING and kind[0] == 3):
            came.left_out.append(f"the chunk {name.decode()}, of the palette")
        elif name == b"iTXt" and content.startswith(XMP + b"\0"):
            xmp = _international(content)
        elif not (name in (b"zTXt", b"tEXt") and content.startswith(_OLD_EXIF)):
            came.chunks.append((name, content))
    return came._replace(kind=kind, xmp=xmp)


def _international(content: bytes) -> bytes:
    """The text of an iTXt chunk; b"" where it is damaged."""
    packed = content[len(XMP) + 1 : len(XMP) + 2] == b"\1"
    text = content[len(XMP) + 3 :].split(b"\0", 2)[-1]
    try:
        return zlib.decompressobj().decompress(text, _MOST) if packed else text
    except zlib.error:
        return b""


def still_true(came: Came, kind: tuple[int, int]) -> list[tuple[bytes, bytes]]:
    """The chunks that a PNG of another colour type and depth may have too."""
    return [(name, content) for name, content in came.chunks if came.kind == kind or name not in _OF_CODING]


def described(
    exif: bytes, xmp: bytes, icc_profile: bytes, dpi: tuple[float, float] | None, comment: bytes, iptc: bytes
) -> list[tuple[bytes, bytes]]:
    """Chunks that hold this; empty is none."""
    chunks = []
    if icc_profile:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile)))
    if dpi:
        across, down = (int(value / 0.0254 + 0.5) for value in dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", across, down, 1)))
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    if xmp:
        chunks.append((b"iTXt", XMP + bytes(5) + xmp))
    if comment:
        chunks.append((b"tEXt", b"Comment\0" + comment.replace(b"\0", b" ")))
    if iptc:
        # as ImageMagick writes it, and ExifTool reads it
        words = f"\niptc\n{len(iptc):8}\n{iptc.hex()}\n".encode()
        chunks.append((b"zTXt", _IPTC + b"\0" + zlib.compress(words)))
    return chunks


def joined(encoded: bytes, chunks: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """An encoded PNG with these chunks behind its header, in pieces."""
    start = len(SIGNATURE) + 25
    return [encoded[:start], *(chunk(*each) for each in chunks), encoded[start:]]


def kind_of(encoded: bytes) -> tuple[int, int]:
    """Colour type and depth."""
    return encoded[25], encoded[24]


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def disguised(content: bytes) -> bytes:
    """A PNG of two 16-bit channels as if it had four of 8 bits: the filters see the same bytes."""
    header = bytearray(
        content[12:29]
    )  # "IHDR", width, height, depth, colour type, compression, filter, interlace
    header[12:14] = bytes((8, TYPES[4]))
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
