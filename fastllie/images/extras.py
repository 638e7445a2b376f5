"""Formats that an extra of fastllie reads and writes: HEIC, JPEG XL, and camera raw, which is only read."""

import importlib
import io
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import features

from fastllie.images import boxes, exif, formats, tiff, xmp
from fastllie.images.files import Source, refuse_beyond

if TYPE_CHECKING:
    from fastllie.images.photograph import Photograph

_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_HEIF_CHROMA = {"4:2:0": 420, "4:2:2": 422, "4:4:4": 444}
_JXL_BOX = b"\0\0\0\x0cJXL \r\n\x87\n"
_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")
_CR3 = b"ftypcrx "
_DNG_VERSION, _PHOTOMETRIC, _MOSAIC = 50706, 262, 32803
_MOST_SUB_IMAGES = 16  # that are looked at
_JXL_MODES = {
    "L": (1, "u1"),
    "LA": (2, "u1"),
    "RGB": (3, "u1"),
    "RGBA": (4, "u1"),
    "I;16": (1, "u2"),
    "F": (1, "f4"),
}
_JXL_BESIDE = {b"jumb": "C2PA", b"brob": "metadata that are compressed"}
_SRGB = "sRGB".encode("utf-16-be")  # the name of the profile that libjxl makes where there is none
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # of a JPEG XL, width to height


def kind_of(file: BinaryIO, source: Source) -> str:
    """The format of a file that Pillow does not read; "" for others."""
    reader = reader_of(file, source)
    if reader is None:
        return ""
    return "HEIF" if reader is _heif else "JXL" if reader is _jxl else "RAW"


def reader_of(file: BinaryIO, source: Source) -> "Callable[[bytes, str, int | None], Photograph] | None":
    """What reads a file of this content, where Pillow does not; the file is left at its beginning."""
    start = file.read(32)
    file.seek(0)
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF and b"avif" not in start[8:32]:
        return _heif
    if start.startswith((_JXL_BOX, b"\xff\x0a")):
        return _jxl
    # an open file has a name too
    name = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", None)
    camera = (
        isinstance(name, (str, os.PathLike)) and formats.suffix_of(name) in formats.FORMATS["RAW"].suffixes
    )
    if camera or start.startswith(_RAW_STARTS) or start[4:12] == _CR3 or _is_camera_tiff(file, start):
        return _raw
    return None


def _is_camera_tiff(file: BinaryIO, start: bytes) -> bool:
    """Whether a TIFF holds a sensor's mosaic: DNG, NEF, CR2 and others, whatever its name says."""
    if not start.startswith((b"II*\0", b"MM\0*")):
        return False
    if start[8:10] == b"CR":
        return True
    try:
        order, _, offset = tiff.header(start)
        page, _ = tiff.read_directory(file, order, False, offset)
        if _DNG_VERSION in page.entries:
            return True
        for place in page.all(tiff.SUB_IMAGES)[:_MOST_SUB_IMAGES]:
            if tiff.read_directory(file, order, False, place)[0].first(_PHOTOMETRIC) == _MOSAIC:
                return True
        return page.first(_PHOTOMETRIC) == _MOSAIC
    except tiff.BrokenError:
        return False
    finally:
        file.seek(0)


def require(format: str) -> None:
    """Raise, and name the extra, where what writes a format is not installed."""
    module = {"HEIF": "pillow_heif", "JXL": "pillow_jxl"}.get(format)
    try:
        if module:
            importlib.import_module(module)
    except ImportError as error:
        told = formats.FORMATS[format]
        raise _missing("what is to be written", told.title, told.extra, error) from error
    if format == "AVIF" and not features.check("avif"):
        raise ImportError("AVIF needs Pillow 11.3 or newer, built with it: pip install --upgrade pillow")


def _missing(name: str, kind: str, extra: str, error: ImportError) -> ImportError:
    return ImportError(f'{name} is {kind}, which needs an extra: pip install "fastllie[{extra}]" ({error})')


def _heif(content: bytes, name: str, max_pixels: int | None) -> "Photograph":
    from fastllie.images.photograph import Photograph, Stored

    try:
        import pillow_heif
    except ImportError as error:
        raise _missing(name, "HEIC", "heif", error) from error
    file = pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=False)
    refuse_beyond(max_pixels, file.size, name)
    picture = file[file.primary_index]
    told: dict[str, Any] = picture.info
    values = np.array(picture)
    values = values if values.ndim == 3 else values[..., None]
    if values.dtype == np.uint16:
        # the lower bits are none; white of 10 bits becomes white of 16
        bits = told.get("bit_depth", 16)
        values = _full(values >> (16 - bits), bits)
    facts = boxes.read(content)
    left_out = [f"{len(file) - 1} further pictures"] if len(file) > 1 else []
    left_out += facts.beside
    for key, words in (
        ("depth_images", "a map of depths"),
        ("aux", "a gain map or other pictures beside it"),
    ):
        if told.get(key):
            left_out.append(words)
    info = {key: told[key] for key in ("exif", "icc_profile") if told.get(key)}
    if told.get("xmp"):
        info["xmp"] = xmp.adjusted(told["xmp"])
    mode = "I;16" if values.dtype == np.uint16 and values.shape[2] == 1 else ""
    coding = {"subsampling": facts.subsampling, "lossless": facts.lossless}
    left_out = list(dict.fromkeys(left_out))
    return Photograph(values, info, mode, stored=Stored("HEIF", coding, left_out=tuple(left_out)))


def _full(values: np.ndarray, bits: int) -> np.ndarray:
    """Values of some bits as values of 16, white as white."""
    top = 2**bits - 1
    return ((values.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)


def _jxl(content: bytes, name: str, max_pixels: int | None) -> "Photograph":
    from fastllie.images.photograph import Photograph, Stored

    try:
        import pillow_jxl
    except ImportError as error:
        raise _missing(name, "JPEG XL", "jxl", error) from error
    size, bits, moving, lossless = _jxl_header(content)
    refuse_beyond(max_pixels, size, name)
    was_jpeg, told, data, icc_profile, beside = pillow_jxl.Decoder(num_threads=1)(content)
    if was_jpeg:
        from fastllie.images.reading import read

        photo = read(data, max_pixels=max_pixels)
        return replace(photo, stored=Stored("JXL", left_out=photo.stored.left_out))
    if told.mode not in _JXL_MODES:
        raise ValueError(f"pixels of the mode {told.mode}")
    channels, kind = _JXL_MODES[told.mode]
    values = np.frombuffer(data, kind).reshape(told.height, told.width, channels).copy()
    # the plugin keeps more than 8 bits of grey alone, and of an animation one picture
    left_out = ["the other pictures of the animation"] if moving else []
    if bits > 8 and values.dtype == np.uint8:
        left_out.append(f"all but 8 of {bits} bits")
    info: dict[str, Any] = {}
    if icc_profile and not (icc_profile[4:8] == b"jxl " and _SRGB in icc_profile):
        info["icc_profile"] = icc_profile
    for box in beside:
        if box.box_type == b"Exif" and len(box.data) > 12:
            # where the data begin; the plugin itself does not write it. Their orientation is none: that of a
            # JPEG XL stands beside its pixels, and is applied
            named = box.data[:4] not in (b"II*\0", b"MM\0*")
            start = 4 + struct.unpack(">I", box.data[:4])[0] if named else 0
            info["exif"] = exif.PREFIX + box.data[start:]
        elif box.box_type == b"xml ":
            info["xmp"] = xmp.adjusted(box.data)
        elif box.box_type in _JXL_BESIDE:
            left_out.append(_JXL_BESIDE[box.box_type])
    mode = {"I;16": "I;16", "F": "F"}.get(told.mode, "")
    coding = {"lossless": True} if lossless else {}
    return Photograph(values, info, mode, stored=Stored("JXL", coding, left_out=tuple(left_out)))


class _Bits:
    """The fields of a JPEG XL's header: little-endian numbers of some bits each."""

    def __init__(self, content: bytes) -> None:
        self._bits, self._place = int.from_bytes(content, "little"), 0

    def take(self, count: int) -> int:
        value = (self._bits >> self._place) & ((1 << count) - 1)
        self._place += count
        return value

    def choose(self, *ways: tuple[int, int]) -> int:
        """A number in one of four ways, each an offset and a number of bits."""
        offset, count = ways[self.take(2)]
        return offset + self.take(count)

    def size(self) -> tuple[int, int]:
        small = bool(self.take(1))

        def length() -> int:
            return 8 * (self.take(5) + 1) if small else self.take((9, 13, 18, 30)[self.take(2)]) + 1

        height = length()
        ratio = self.take(3)
        if ratio == 0:
            return length(), height
        across, down = _RATIOS[ratio - 1]
        return height * across // down, height

    def preview(self) -> None:
        whole = bool(self.take(1))
        ways = ((16, 0), (32, 0), (1, 5), (33, 9)) if whole else ((1, 6), (65, 8), (321, 10), (1345, 12))
        self.choose(*ways)
        if self.take(3) == 0:
            self.choose(*ways)


def _jxl_header(content: bytes) -> tuple[tuple[int, int], int, bool, bool]:
    """Width and height, the bits of a channel, whether it moves, whether it is lossless: by the header."""
    bits = _Bits(next(_codestreams(content), b"")[2:])
    size = bits.size()
    if bits.take(1):
        return size, 8, False, False
    moving = False
    if bits.take(1):
        bits.take(3)
        if bits.take(1):
            bits.size()
        if bits.take(1):
            bits.preview()
        moving = bool(bits.take(1))
        if moving:
            bits.choose((100, 0), (1000, 0), (1, 10), (1, 30))
            bits.choose((1, 0), (1001, 0), (1, 8), (1, 10))
            bits.choose((0, 0), (0, 3), (0, 16), (0, 32))
            bits.take(1)
    floats = bits.take(1)
    usual = ((32, 0), (16, 0), (24, 0)) if floats else ((8, 0), (10, 0), (12, 0))
    depth = bits.choose(*usual, (1, 6))
    bits.take(5 if floats else 1)
    channels = bits.choose((0, 0), (1, 0), (2, 4), (1, 12))
    # of the channels beside colour alpha as it usually is; then, whether colours are those that lose
    plain = all(bits.take(1) for _ in range(channels))
    return size, depth, moving, plain and not bits.take(1)


def _codestreams(content: bytes) -> Iterator[bytes]:
    """The first bytes of what a JPEG XL holds as its pixels, in a container or bare."""
    if not content.startswith(_JXL_BOX):
        yield content[:64]
        return
    for kind, body in boxes.boxes_of(content):
        if kind in (b"jxlc", b"jxlp"):
            # the parts of a divided one are numbered
            yield body[4:68] if kind == b"jxlp" else body[:64]


def _raw(content: bytes, name: str, max_pixels: int | None) -> "Photograph":
    """A camera's file: developed in linear light up to the camera's white, and then coded as sRGB is."""
    from fastllie.images.photograph import Photograph, Stored

    try:
        import rawpy
    except ImportError as error:
        raise _missing(name, "camera raw", "raw", error) from error
    with rawpy.imread(io.BytesIO(content)) as file:
        refuse_beyond(max_pixels, (file.sizes.raw_width, file.sizes.raw_height), name)
        # no brightening of its own, no white but the camera's; the power and slope are those of sRGB
        values = file.postprocess(
            use_camera_wb=True, no_auto_bright=True, adjust_maximum_thr=0.0, output_bps=16, gamma=(2.4, 12.92)
        )
    values = values if values.ndim == 3 else values[..., None]
    return Photograph(values, _camera_info(content), stored=Stored("RAW"))


def _camera_info(content: bytes) -> dict[str, Any]:
    """EXIF data of a camera's file that is a TIFF, as most are."""
    from fastllie.images import tiffs

    try:
        _, _, pages = tiffs.pages_of(io.BytesIO(content))
        _, info, _ = tiffs.described(pages[0])
    except tiff.BrokenError:
        return {}
    return {key: value for key, value in info.items() if key != "icc_profile"}


def encode(
    photo: "Photograph",
    format: str,
    quality: int,
    lossless: bool,
    coding: dict[str, Any],
    described: dict[Any, Any],
) -> bytes:
    """A photograph as HEIC or JPEG XL.

    Args:
        coding: How it was coded, where it was of the same format.
        described: What goes out with it, as in a PIL image.

    Raises:
        ImportError: the extra is not installed; the message names it.
    """
    require(format)
    content = io.BytesIO()
    if format == "JXL":
        image = photo.as_pil()
        image.info = {}
        data = described.get("exif", b"").removeprefix(exif.PREFIX)
        told = {"exif": bytes(4) + data if data else None, "xmp": described.get("xmp")}
        image.save(content, "JXL", quality=quality, lossless=lossless, use_container=True, **told)
        return content.getvalue()
    import pillow_heif

    channels = photo.values.shape[2]
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels] + (
        ";16" if photo.values.dtype == np.uint16 else ""
    )
    file = pillow_heif.from_bytes(mode, photo.size, np.ascontiguousarray(photo.values).tobytes())
    told = {key: described[key] for key in ("exif", "xmp", "icc_profile") if described.get(key)}
    if coding.get("subsampling") in _HEIF_CHROMA:
        told["chroma"] = _HEIF_CHROMA[coding["subsampling"]]
    if lossless:
        # without loss, as it is without a matrix and with all of the colours
        told |= {"quality": -1, "chroma": 444, "matrix_coefficients": 0}
    file.save(content, **{"quality": quality, **told})
    return content.getvalue()
