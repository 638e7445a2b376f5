"""TIFF files as photographs: what their tags say, and how photographs become strips."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastllie.images import exif, photoshop, strips, tiff, xmp
from fastllie.images.strips import BY_PILLOW, DEFLATE, JPEG, LZMA, LZW, NONE, OLD_DEFLATE, ZSTD
from fastllie.images.tiff import BrokenError, Directory, Page

if TYPE_CHECKING:
    from fastllie.images.photograph import Photograph

PHOTOMETRIC, COMPRESSION, PREDICTOR, MAX_SAMPLE = 262, 259, 317, 281
WHITE_IS_ZERO, RGB, CMYK = 0, 2, 5
_DEPTHS, _CHANNELS, _ROWS, _PLANES, _EXTRA, _FORMAT, _SUBFILE = 258, 277, 278, 284, 338, 339, 254
_XMP, _IPTC, _ICC, _PHOTOSHOP, _ARTIST_LAYERS = 700, 33723, 34675, 34377, 37724
_RESOLUTION, _UNIT, _DESCRIPTION = (282, 283), 296, 270
# Descriptions of the picture and of its making that EXIF data have too
_SHARED = frozenset(
    [270, 271, 272, 282, 283, 296, 305, 306, 315, 33432, tiff.EXIF, tiff.GPS, 40091, 40092, 40093]
)
_SHARED |= frozenset([40094, 40095, 18246, 18249])
# The minimum and maximum of samples, where pixels are others than they were
_STATISTICS = frozenset([280, MAX_SAMPLE])
_FAX = {2: "tiff_ccitt", 3: "group3", 4: "group4"}
_STRIP = 1 << 18  # bytes, about, before they are compressed
_MOST_PAGES = 10_000


def pages_of(file: BinaryIO) -> tuple[str, bool, list[Directory]]:
    """Byte order, whether Big, and the tags of every page that is sound; the first one must be.

    Raises:
        BrokenError: damaged.
    """
    file.seek(0)
    order, big, offset = tiff.header(file.read(16))
    pages: list[Directory] = []
    seen: set[int] = set()
    while offset and offset not in seen and len(pages) < _MOST_PAGES:
        seen.add(offset)
        try:
            page, offset = tiff.read_directory(file, order, big, offset)
        except BrokenError:
            if not pages:
                raise
            break
        pages.append(page)
    return order, big, pages


def is_reduced(page: Directory) -> bool:
    """Whether it is a smaller picture of another one, or a mask."""
    return bool(int(page.first(_SUBFILE)) & 5)


def unread(file: BinaryIO) -> str:
    """What to say, after its name, of a TIFF whose pixels nobody here reads."""
    try:
        page = pages_of(file)[2][0]
    except BrokenError as error:
        return f"a damaged TIFF: {error}"
    told = {
        "bits": _DEPTHS,
        "sample format": _FORMAT,
        "compression": COMPRESSION,
        "photometric": PHOTOMETRIC,
    }
    values = {words: page.all(tag) for words, tag in told.items()}
    kind = ", ".join(f"{words} {_listed(found)}" for words, found in values.items() if found)
    return (
        f"a TIFF of a kind that is not read ({kind}); save it with 8 or 16 bits a channel or floats in"
        " [0, 1], without compression or with LZW or deflate"
    )


def _listed(values: Sequence[Any]) -> str:
    """The first of them, as many as a photograph has channels: a damaged file may have thousands."""
    return "/".join(map(str, values[:5])) + ("/..." if len(values) > 5 else "")


def described(page: Directory) -> tuple[Directory, dict[str, Any], list[str]]:
    """The tags that go to a new file, the same as a PIL image has them in `info`, and what is left out."""
    left_out = ["smaller copies of the picture"] if tiff.SUB_IMAGES in page.entries else []
    tags = page.without(tiff.STORAGE | {_ARTIST_LAYERS, 512})
    if _ARTIST_LAYERS in page.entries:
        left_out.append("Photoshop's layers")
    info: dict[str, Any] = {}
    if _XMP in tags.entries:
        made = xmp.adjusted(tags.entries[_XMP].content)
        info["xmp"] = made
        tags.put_bytes(_XMP, tiff.BYTE, made)
    if _PHOTOSHOP in tags.entries:
        kept, info["iptc"] = photoshop.without_previews(tags.entries[_PHOTOSHOP].content)
        tags.put_bytes(_PHOTOSHOP, tiff.BYTE, kept)
    if _IPTC in tags.entries:
        info["iptc"] = tags.entries[_IPTC].content
    if _ICC in tags.entries:
        info["icc_profile"] = tags.entries[_ICC].content
    if _DESCRIPTION in tags.entries:
        info["comment"] = tags.entries[_DESCRIPTION].content.rstrip(b"\0")
    shared = Directory(tags.order, {tag: entry for tag, entry in tags.entries.items() if tag in _SHARED})
    if set(shared.entries) - {*_RESOLUTION, _UNIT}:
        info["exif"] = exif.of_directory(shared)
    across, down = (tags.first(tag) for tag in _RESOLUTION)
    unit = {2: 1.0, 3: 2.54}.get(int(tags.first(_UNIT, 2)))
    if across and down and unit:
        info["dpi"] = (across * unit, down * unit)
    return tags, {key: value for key, value in info.items() if value}, left_out


def tags_for(info: dict[Any, Any], order: str) -> Directory:
    """What a PIL image has in `info`, as the tags of a TIFF of another origin."""
    tags = Directory(order)
    if data := info.get("exif"):
        tags = exif.as_directory(data)
        tags = tags.without(tiff.STORAGE)
    if dpi := info.get("dpi"):
        for tag, value in zip(_RESOLUTION, dpi, strict=True):
            tags.put(tag, tiff.RATIONAL, round(float(value) * 10000), 10000)
        tags.put(_UNIT, tiff.SHORT, 2)
    for key, tag, kind in (
        ("icc_profile", _ICC, tiff.UNDEFINED),
        ("xmp", _XMP, tiff.BYTE),
        ("iptc", _IPTC, tiff.UNDEFINED),
    ):
        if info.get(key):
            tags.put_bytes(tag, kind, info[key])
    comment = info.get("comment")
    if isinstance(comment, bytes) and _DESCRIPTION not in tags.entries:
        tags.put_bytes(_DESCRIPTION, tiff.ASCII, comment.rstrip(b"\0") + b"\0")
    return tags


def has_private(tags: Directory) -> bool:
    """Whether there is more than EXIF data, XMP, IPTC and an ICC profile can say."""
    return bool(set(tags.entries) - _SHARED - _STATISTICS - {_XMP, _IPTC, _ICC, _PHOTOSHOP, 285, 297})


def write(file: BinaryIO, photo: "Photograph") -> None:
    """Write a photograph with all its pages, each compressed as it was.

    Raises:
        BrokenError: more than 4 GB in a classic TIFF.
    """
    whole = photo.stored.format == "TIFF"
    big = whole and photo.stored.coding.get("big", False)
    order = "<"
    if whole:
        order = photo.stored.coding["order"]
    elif data := photo.info.get("exif"):
        order = tiff.header(data.removeprefix(exif.PREFIX)[:16])[0]
    pixels = sum(page.values.nbytes for page in (photo, *photo.later))
    pages = (_page(page, order) for page in (photo, *photo.later))
    tiff.write_file(file, pages, order, big or pixels > 2**32 - 2**24)


def _page(photo: "Photograph", order: str) -> Page:
    coding = photo.stored.coding if photo.stored.format == "TIFF" else {}
    tags = (
        Directory(order, dict(photo.stored.parts.entries)) if coding else tags_for(photo.described(), order)
    )
    chosen = coding.get("compression", NONE)
    if photo.mode == "1" or chosen in (JPEG, *_FAX):
        return Page(tags, _by_pillow(photo.as_pil(), tags, chosen))
    return Page(tags, _strips(photo, tags, chosen, coding))


def of_values(
    values: NDArray[Any], page: Directory
) -> tuple[NDArray[Any], NDArray[Any] | None, str, list[str]]:
    """The values of `strips.read` as those of a photograph, its inks, its mode, and what is left out."""
    photometric, channels = int(page.first(PHOTOMETRIC, 1)), values.shape[2]
    own = {RGB: 3, CMYK: 4}.get(photometric, 1)
    if channels < own:
        raise BrokenError(f"{channels} channels; wanted {own}")
    values, changed = strips.narrowed(values)
    # grey goes into the integers of 32 bits that Pillow knows
    integers = bool(changed) and values.dtype == np.uint16
    top = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
    if photometric == WHITE_IS_ZERO:
        values[..., :1] = top - values[..., :1]
    # 1 multiplied in, 2 not; nothing said of a fourth channel means alpha too
    extra = (*page.all(_EXTRA), *((2,) if channels == 4 and own == 3 and not page.all(_EXTRA) else ()), 0)[0]
    alpha = values[..., own : own + 1] if channels > own and extra in (1, 2) and own < 4 else values[..., :0]
    beyond = channels - own - alpha.shape[2]
    channels_are = "a channel that is" if beyond == 1 else f"{beyond} channels that are"
    left_out = [f"{channels_are} neither colour nor alpha"] if beyond else []
    colours = values[..., :own]
    if alpha.shape[2] and extra == 1:
        wide = colours * (top / np.maximum(alpha, 1 if top > 1 else 1e-9, dtype=np.float64))
        colours = np.minimum(np.floor(wide + 0.5) if top > 1 else wide, top).astype(values.dtype)
    if photometric == CMYK:
        left_out += [changed] if changed else []
        return colours[..., :0], np.ascontiguousarray(colours), "CMYK", left_out
    mode = ""
    if own + alpha.shape[2] == 1:
        deep = "I" if integers else "I;16B" if page.order == ">" else "I;16"
        mode = {"f4": "F", "u2": deep}.get(values.dtype.str[1:], "")
    left_out += [changed] if changed and mode != "I" else []
    return np.concatenate((colours, alpha), axis=2), None, mode, left_out


def _strips(photo: "Photograph", tags: Directory, compression: int, coding: dict[str, Any]) -> list[bytes]:
    values = photo.values if photo.native is None else photo.native
    height, width, channels = values.shape
    photometric = {1: 1, 2: 1}.get(channels, RGB)
    if photo.native is not None:
        photometric = CMYK
    if channels == 1 and coding.get("photometric") == WHITE_IS_ZERO:
        photometric = WHITE_IS_ZERO
        values = photo.top - values if photo.top else 1 - values
    if photo.mode == "I":
        values = values.astype(np.int32)
    size = values.dtype.itemsize
    predictor = coding.get("predictor", 2) if compression in (LZW, DEFLATE, OLD_DEFLATE, ZSTD, LZMA) else 1
    if predictor != 1:
        predictor = 1 if values.dtype.kind == "f" else 2
    values = values.astype(np.dtype(tags.order + values.dtype.str[1:]), copy=False)
    rows = max(1, _STRIP // max(1, width * channels * size))
    put = tags.put
    put(256, tiff.LONG, width)
    put(257, tiff.LONG, height)
    put(_DEPTHS, tiff.SHORT, *(8 * size,) * channels)
    put(COMPRESSION, tiff.SHORT, compression)
    put(PHOTOMETRIC, tiff.SHORT, photometric)
    put(_CHANNELS, tiff.SHORT, channels)
    put(_ROWS, tiff.LONG, min(rows, height))
    put(_PLANES, tiff.SHORT, 1)
    if channels in (2, 4) and photo.native is None:
        put(_EXTRA, tiff.SHORT, 0 if photo.mode == "RGBX" else 2)
    if values.dtype.kind in "fi":
        put(_FORMAT, tiff.SHORT, *(3 if values.dtype.kind == "f" else 2,) * channels)
    if predictor == 2:
        put(PREDICTOR, tiff.SHORT, 2)
    if photo.values.dtype == np.uint16 and photo.white != 65535:
        put(MAX_SAMPLE, tiff.SHORT, *(photo.white,) * channels)
    elif _STATISTICS & set(tags.entries):
        for tag in _STATISTICS:
            tags.entries.pop(tag, None)
    return [strips.packed(part, compression, predictor) for part in strips.in_strips(values, rows)]


def _by_pillow(image: Image.Image, tags: Directory, compression: int) -> list[bytes]:
    """Strips of what Pillow alone codes: one bit a pixel, and JPEG."""
    names: dict[int, str | None] = {
        JPEG: "jpeg",
        NONE: None,
        DEFLATE: "tiff_adobe_deflate",
        **BY_PILLOW,
        **_FAX,
    }
    settings: dict[str, Any] = {"quality": 95} if compression == JPEG else {}
    image.info = {}
    made = io.BytesIO()
    image.save(made, "TIFF", compression=names.get(compression), **settings)
    storage, parts = strips.strips_of(made)
    for tag, entry in storage.entries.items():
        if tag in tiff.STORAGE:
            if storage.order != tags.order and entry.kind in (3, 4):
                tags.put(tag, entry.kind, *(int(number) for number in entry.numbers(storage.order)))
            else:
                tags.entries[tag] = entry
    return parts
