"""Image files to photographs: every bit of them, every picture, and all that the files say of them."""

import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from fastllie.images import boxes, depths, exif, extras, jpeg, png, strips, tiff, tiffs, turbo, xmp
from fastllie.images.files import (
    PNG_END,
    RefusedError,
    Source,
    allowed_pixels,
    name_of,
    opening,
    refuse_more_than,
    stream,
    telling,
    whole,
)
from fastllie.images.formats import FORMATS
from fastllie.images.photograph import TOP, Photograph, Stored, turned, upright

# Pixels of all pictures of one file together: 1.6 GB as bytes
MOST_TOGETHER = 2**29
_KINDS = {"MPO": "JPEG", "DIB": "BMP"}  # Pillow's names of what is another format with a different head
_BEHIND = "what lies behind the picture"
_WHITES = (1023, 4095, 16383, TOP)  # of 10, 12, 14 and 16 bits
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read(
    source: Source,
    *,
    max_pixels: int | None = None,
    white_level: int | str | None = None,
    only_first: bool = False,
) -> Photograph:
    """Decode an image file, turned upright by its EXIF orientation, with what it holds beside the pixels.

    Args:
        source: A path, the bytes of a file, or a file opened for bytes.
        max_pixels: Of one picture; None is `defaults.MOST_PIXELS`.
        white_level: The value of white of 16-bit files: a number, "auto" (the least of 10, 12, 14 or 16 bits
            that holds all values), or None: what the file says, or 65535.
        only_first: Of a file of several pictures read the first alone; the others are named in `left_out`.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: named with the path.
        ImportError: a kind that an extra reads which is not installed; the message names it.
        ValueError: the file is not an image, is damaged, or wants more memory or time than any photograph.
    """
    name = name_of(source)
    with stream(source) as file:
        start = file.read(4)
        file.seek(0)
        reader = extras.reader_of(file, source)
        content = b"" if isinstance(source, (str, os.PathLike)) else whole(file)
        if reader is not None:
            with telling(name, file):
                return with_white(reader(content or whole(file), name, max_pixels), white_level, name)
        photo = None
        if start.startswith(_TIFFS):
            with telling(name, file):
                photo = _deep_tiff(file, name, max_pixels, only_first)
    if photo is None:
        try:
            photo = _by_pillow(content or source, name, max_pixels, only_first)
        except ValueError as error:
            if start.startswith(_TIFFS) and isinstance(error.__cause__, UnidentifiedImageError):
                with stream(content or source) as file:
                    raise ValueError(f"{name} is {tiffs.unread(file)}") from error
            raise
    return with_white(photo, white_level, name)


def glance(path: str | os.PathLike[str], max_pixels: int) -> tuple[tuple[int, int], str]:
    """Width, height and format of an image file; only what an extra reads is decoded for it.

    Args:
        max_pixels: Of what is decoded.

    Raises:
        As `read`; more pixels in a file that is not decoded are no error.
    """
    with stream(path) as file:
        reader = extras.reader_of(file, path)
    if reader is not None:
        photo = read(path, max_pixels=max_pixels)
        return photo.size, photo.stored.format
    with opening(path, 2**62) as image:
        return image.size, _KINDS.get(image.format, image.format)


def kind_of(source: Source) -> str:
    """The format of an image file by its content: a name of `formats.FORMATS`, or Pillow's; "" for no image.

    Raises:
        OSError: a file that cannot be opened.
    """
    with stream(source) as file:
        kind = extras.kind_of(file, source)
    try:
        if not kind:
            with opening(source, 2**62) as image:
                kind = _KINDS.get(image.format, image.format)
    except ValueError:
        return ""
    return kind


def suffix_of_content(content: bytes) -> str:
    """The suffix that a file of this content usually has; "" for what is no image."""
    kind = kind_of(content)
    if kind in FORMATS:
        return FORMATS[kind].suffixes[0]
    known = (suffix for suffix, name in Image.registered_extensions().items() if name == kind)
    return next(known, f".{kind.lower()}") if kind else ""


def with_white(photo: Photograph, white_level: int | str | None, name: str) -> Photograph:
    """The photograph with another value of white, and the same for its other pictures; see `read`.

    Raises:
        ValueError: values above it.
    """
    if white_level is None or photo.values.dtype != np.uint16:
        return photo
    return replace(
        photo,
        white=white_of(photo.values, white_level, name),
        later=[with_white(other, white_level, name) for other in photo.later],
    )


def white_of(values: Any, white_level: int | str, name: str) -> int:
    """The value of white of uint16 values that are held to be of a white level.

    Raises:
        TypeError, ValueError: no such level, or values above it.
    """
    check_white(white_level)
    most = int(values.max())
    if white_level == "auto":
        return next(white for white in _WHITES if most <= white)
    if most > int(white_level):
        raise ValueError(f"{name} has values up to {most}, above white_level={white_level}")
    return int(white_level)


def check_white(white_level: Any) -> None:
    """Raise for what is neither None, nor "auto", nor the value of white of 16 bits."""
    if white_level is None or white_level == "auto":
        return
    if isinstance(white_level, bool) or not isinstance(white_level, int):
        raise TypeError(f'white_level must be an integer, "auto" or None, got {white_level!r}')
    if not 1 <= white_level <= TOP:
        raise ValueError(f"white_level must lie in 1..{TOP}, got {white_level}")


# --- TIFF of 16 and 32 bits


def _deep_tiff(file: BinaryIO, name: str, max_pixels: int | None, only_first: bool) -> Photograph | None:
    """A TIFF of deep pages; None where the first page is left to Pillow."""
    try:
        order, big, pages = tiffs.pages_of(file)
    except tiff.BrokenError:
        return None
    pages, left_out = _full_pages(pages, only_first)
    kinds = [strips.kind_of(page) for page in pages]
    # of 8 bits Pillow reads nearly all, but not every BigTIFF, and channels beyond the fourth in silence
    plain = set(kinds) == {"u1"} and all(page.first(277, 1) <= 4 for page in pages)
    plain = plain and not any(page.first(262, 1) == 0 and page.first(277, 1) > 1 for page in pages)
    if not all(kinds) or (plain and not (big and order == ">")):
        return None
    most = allowed_pixels(max_pixels)
    made: list[Photograph] = []
    together = 0
    for page in pages:
        width, height = strips.size_of(page)
        refuse_more_than(most, (width, height), name)
        together += width * height
        _refuse_together(together, len(pages), name)
        try:
            values, native, mode, beyond = tiffs.of_values(strips.read(file, page), page)
        except strips.UnfitError as error:
            raise RefusedError(f"{name}: {error}") from error
        stored, info = _tiff_stored(page, order, big, [*left_out, *beyond] if not made else beyond)
        orientation = int(page.first(exif.ORIENTATION, 1))
        if native is None:
            photo = Photograph(np.ascontiguousarray(turned(values, orientation)), info, mode, stored=stored)
        else:
            photo = Photograph.of_inks(turned(native, orientation), info, stored)
        made.append(replace(photo, white=_tiff_white(page, photo)))
    return replace(made[0], later=made[1:])


def _full_pages(pages: list[tiff.Directory], only_first: bool) -> tuple[list[tiff.Directory], list[str]]:
    full = [page for page in pages if not tiffs.is_reduced(page)] or pages[:1]
    left_out = ["smaller copies of the picture"] if len(full) < len(pages) else []
    if only_first and len(full) > 1:
        left_out.append(further(len(full)))
        full = full[:1]
    return full, left_out


def further(count: int) -> str:
    return "the other picture" if count == 2 else f"the other {count - 1} pictures"


def _tiff_stored(
    page: tiff.Directory, order: str, big: bool, left_out: list[str]
) -> tuple[Stored, dict[str, Any]]:
    tags, info, more = tiffs.described(page)
    coding = {
        "order": order,
        "big": big,
        "compression": int(page.first(tiffs.COMPRESSION, 1)),
        "photometric": int(page.first(tiffs.PHOTOMETRIC, 1)),
    }
    if tiffs.PREDICTOR in page.entries:
        coding["predictor"] = int(page.first(tiffs.PREDICTOR, 1))
    return Stored("TIFF", coding, tags, tuple(dict.fromkeys([*left_out, *more]))), info


def _tiff_white(page: tiff.Directory, photo: Photograph) -> int:
    """What the file says of its white, where that can be true."""
    told = int(page.first(tiffs.MAX_SAMPLE, TOP))
    if photo.values.dtype != np.uint16 or not 255 < told < TOP or page.first(tiffs.PHOTOMETRIC, 1) == 0:
        return TOP
    return told if photo.values.size and int(photo.values.max()) <= told else TOP


# --- what Pillow decodes


def _by_pillow(source: Source, name: str, max_pixels: int | None, only_first: bool) -> Photograph:
    with opening(source, max_pixels, name) as file:
        kind = _KINDS.get(file.format, file.format)
        raw = _raw_mode(file)
        if kind == "PNG" and raw.endswith(";16B"):
            stored, info = _png_stored(file)
            photo = depths.deep_png(file, source, raw, max_pixels, name)
            return replace(photo, info={**photo.info, **info}, stored=stored)
        if kind == "PPM" and depths.is_deep_ppm(file):
            return depths.deep_ppm(file)
        frames = list(_frames(file, kind, name, only_first))
    first = frames[0]
    return replace(first, later=frames[1:])


def _frames(file: Any, kind: str, name: str, only_first: bool) -> Iterator[Photograph]:
    """All pictures of a file, each whole: what an animation leaves as it was is filled in."""
    stored, info = _stored(file, kind)
    count = getattr(file, "n_frames", 1) if kind in ("GIF", "WEBP", "PNG", "TIFF", "AVIF") else 1
    pages = tiffs.pages_of(file.fp)[2] if kind == "TIFF" and count > 1 else []
    kept = [place for place in range(count) if not pages[place:] or not tiffs.is_reduced(pages[place])] or [0]
    if len(kept) < count:
        stored = replace(stored, left_out=(*stored.left_out, "smaller copies of the picture"))
    if only_first and len(kept) > 1:
        stored = replace(stored, left_out=(*stored.left_out, further(len(kept))))
        kept = kept[:1]
    _refuse_together(len(kept) * file.width * file.height, len(kept), name)
    if kind == "JPEG" and (fast := turbo.photograph(file, stored, name)):
        fast.info.update(info)
        yield fast
        return
    for place in kept:
        if place or len(kept) > 1:
            file.seek(place)
        if kind == "TIFF" and place:
            order, big = stored.coding["order"], stored.coding["big"]
            stored, info = _tiff_stored(pages[place], order, big, [])
        file.load()
        image = upright(file if len(kept) == 1 else file.copy(), own=True, name=name)
        times = {key: file.info[key] for key in ("duration", "loop", "blend", "disposal") if key in file.info}
        if hasattr(file, "disposal_method"):
            times["disposal"] = file.disposal_method
        if len(kept) > 1 and image.mode in ("P", "PA"):
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        photo = Photograph.of(image, replace(stored, coding={**stored.coding, **times}) if times else stored)
        photo.info.update(info)
        if kind == "TIFF":
            photo = _as_deep_as_told(photo, file)
        yield photo


def _refuse_together(pixels: int, count: int, name: str) -> None:
    if count > 1 and pixels > MOST_TOGETHER:
        raise RefusedError(
            f"{name} holds {count} pictures of {pixels} pixels together; {MOST_TOGETHER} are taken"
        )


def _as_deep_as_told(photo: Photograph, file: Any) -> Photograph:
    """The white of grey of 12 bits, which Pillow leaves as they are; and what it takes off other bits."""
    bits = file.tag_v2.get(258, (1,))
    if bits == (12,):
        return replace(photo, white=4095)
    if len(bits) > 1 and max(bits) > 8:
        left_out = (*photo.stored.left_out, f"all but 8 of {max(bits)} bits")
        return replace(photo, stored=replace(photo.stored, left_out=left_out))
    return photo


def _raw_mode(file: Any) -> str:
    """How the pixels of an unread file are stored, in Pillow's words; "" for other formats."""
    if not file.tile:
        return ""
    stored = file.tile[0][3]
    return str(stored if isinstance(stored, str) else stored[0] if isinstance(stored, tuple) else "")


def _stored(file: Any, kind: str) -> tuple[Stored, dict[str, Any]]:
    """How an unread picture lies in its file, and what Pillow does not say of it."""
    if kind == "JPEG":
        return _jpeg_stored(file)
    if kind == "PNG":
        return _png_stored(file)
    if kind == "TIFF":
        order, big, pages = tiffs.pages_of(file.fp)
        return _tiff_stored(pages[0], order, big, [])
    if kind == "WEBP":
        return _webp_stored(file)
    if kind == "AVIF":
        return _avif_stored(file)
    if kind == "JPEG2000":
        return Stored(kind, left_out=_beyond_eight(boxes.bits_of_jpeg2000(whole(file.fp)), file.mode)), {}
    if kind == "TGA":
        return Stored(kind, {"compression": file.info.get("compression")}), {}
    return Stored(kind), {}


def _beyond_eight(bits: int, mode: str) -> tuple[str, ...]:
    """What is lost where Pillow makes 8 bits of more, which it does in all modes but deep grey."""
    return (f"all but 8 of {bits} bits",) if bits > 8 and not mode.startswith("I") else ()


def _avif_stored(file: Any) -> tuple[Stored, dict[str, Any]]:
    facts = boxes.read(whole(file.fp))
    left_out = (*facts.beside, *_beyond_eight(facts.bits, file.mode))
    info = {"xmp": xmp.adjusted(file.info["xmp"])} if file.info.get("xmp") else {}
    return Stored("AVIF", {"subsampling": facts.subsampling}, left_out=left_out), info


def _jpeg_stored(file: Any) -> tuple[Stored, dict[str, Any]]:
    came = jpeg.came_with(whole(file.fp))
    tables = [file.quantization[layer[3]] for layer in file.layer if layer[3] in file.quantization]
    while len(tables) > 1 and tables[-1] == tables[-2]:
        # the encoder takes one for each channel, and the last one for those that follow
        del tables[-1]
    coding: dict[str, Any] = {
        "qtables": tables,
        "progressive": bool(file.info.get("progressive")),
        "keep_rgb": file.mode == "RGB" and file.info.get("adobe_transform") == 0,
    }
    sampling = JpegImagePlugin.get_sampling(file)
    if sampling != -1:
        coding["subsampling"] = sampling
    info = {"iptc": came.iptc} if came.iptc else {}
    if file.info.get("xmp"):
        info["xmp"] = xmp.adjusted(file.info["xmp"])
    return Stored("JPEG", coding, came, tuple(came.left_out)), info


def _png_stored(file: Any) -> tuple[Stored, dict[str, Any]]:
    came = png.came_with(file.fp)
    info = {"xmp": xmp.adjusted(came.xmp)} if came.xmp else {}
    for key, value in (("comment", came.comment), ("iptc", came.iptc)):
        if value:
            info[key] = value
    content = whole(file.fp)
    behind = len(content) - content.rfind(PNG_END) > len(PNG_END) and PNG_END in content
    return Stored("PNG", {}, came, (*came.left_out, *([_BEHIND] if behind else []))), info


def _webp_stored(file: Any) -> tuple[Stored, dict[str, Any]]:
    content = whole(file.fp)
    kinds, place = [], 12
    while place + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, place)
        kinds.append(name)
        # a frame holds a head of 16 bytes, and then its own chunks
        place += 24 if name == b"ANMF" else 8 + length + length % 2
    lossless = b"VP8L" in kinds and b"VP8 " not in kinds
    coding = {"lossless": True, "exact": True} if lossless else {}
    info = {"xmp": xmp.adjusted(file.info["xmp"])} if file.info.get("xmp") else {}
    left_out = ["C2PA"] if b"C2PA" in kinds else []
    if len(content) > 8 + int.from_bytes(content[4:8], "little") + 1:
        left_out.append(_BEHIND)
    return Stored("WEBP", coding, None, tuple(left_out)), info
