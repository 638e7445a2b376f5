"""Photographs to files: coded as their own file was, with all that came with them that the format holds."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from fastllie.defaults import PNG_LEVEL, QUALITY
from fastllie.images import animations, exif, extras, jpeg, photoshop, png, pngs, tiffs, turbo
from fastllie.images.files import replacing
from fastllie.images.formats import FORMATS, KINDS, format_of

if TYPE_CHECKING:
    from fastllie.images.photograph import Photograph

# Where the source was of another format; the later three lose about as little at it
NEW_QUALITY = {"JPEG": QUALITY, "WEBP": QUALITY, "AVIF": 90, "HEIF": 90, "JXL": 90}
_COLOUR_CHUNKS = {b"gAMA", b"cHRM", b"sRGB", b"cICP"}
_TEXT_CHUNKS = {b"tEXt", b"zTXt", b"iTXt"}
_USUAL = {(72, 72), (96, 96), (1, 1)}  # dots an inch that say nothing


def write(
    photo: "Photograph",
    path: str | os.PathLike[str],
    *,
    quality: int | None,
    png_level: int,
    format: str = "",
) -> list[str]:
    """Write a photograph with all its pictures and all that came with it. Atomic.

    Args:
        photo: What the format cannot hold of it (alpha, inks, bits) is reduced, and named.
        path: Where to.
        quality: Of lossy formats, 1 to 100; None is that of a JPEG that it was, and keeps a WebP lossless.
        png_level: 0 (large and fast) to 9 (small and slow).
        format: One of `formats.FORMATS`; "" is that of the suffix.

    Returns:
        What of the source is not in the file, in words.

    Raises:
        ValueError: an unknown suffix, or what the encoder cannot hold.
        OSError: a path that cannot be written.
        ImportError: an extra of the format that is not installed.
    """
    kind = format or format_of(path)
    left_out = list(photo.stored.left_out) + _without_a_place(photo, kind)
    fitting, reduced = _fitting(photo, kind)
    left_out += reduced
    with replacing(path) as temporary, told(path, kind):
        if kind == "TIFF":
            with open(temporary, "w+b") as file:
                tiffs.write(file, fitting)
        else:
            pieces, too_large = _encoded(fitting, kind, quality, png_level)
            left_out += too_large
            with open(temporary, "wb") as file:
                file.writelines(pieces)
    return list(dict.fromkeys(left_out))


@contextmanager
def told(path: str | os.PathLike[str], format: str) -> Iterator[None]:
    """Name the file and the format in the errors of an encoder."""
    name = os.fspath(path)
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, f"cannot write {name!r}: {error.strerror}") from error
        raise ValueError(f"cannot write {name!r} as {format}: {error}") from error


def _kinds_in(photo: "Photograph") -> set[str]:
    """The kinds of metadata that came with it; see `formats.KINDS`."""
    keys = {"EXIF": "exif", "XMP": "xmp", "IPTC": "iptc", "ICC profile": "icc_profile", "comment": "comment"}
    kinds = {kind for kind, key in keys.items() if photo.info.get(key)}
    dpi = photo.info.get("dpi")
    # EXIF data have the resolution too
    if dpi and "EXIF" not in kinds and tuple(round(float(value)) for value in dpi) not in _USUAL:
        kinds.add("resolution")
    if photo.stored.format == "PNG":
        kinds |= {"gamma"} if photo.stored.parts.names & _COLOUR_CHUNKS else set()
        kinds |= {"text"} if photo.stored.parts.names & _TEXT_CHUNKS else set()
    if photo.stored.format == "TIFF" and tiffs.has_private(photo.stored.parts):
        kinds.add("private tags")
    return kinds


def _without_a_place(photo: "Photograph", kind: str) -> list[str]:
    """What came with a photograph of another format and has no place in this one."""
    left_out = []
    if photo.stored.format != kind:
        missing = _kinds_in(photo) - set(FORMATS[kind].holds)
        left_out = [name for name in KINDS if name in missing]
    if kind == "TIFF" and exif.pointing_notes(photo.info.get("exif", b"")):
        # the tags of a TIFF are all anew, and the notes move
        left_out.append("the places that the notes of the camera's maker point to")
    if photo.later and FORMATS[kind].many != FORMATS[photo.stored.format].many:
        pages = FORMATS[kind].many == "pages"
        left_out.append(
            "the times of the pictures" if pages else f"all pictures but the first of {1 + len(photo.later)}"
        )
    return left_out


def _fitting(photo: "Photograph", kind: str) -> tuple["Photograph", list[str]]:
    """The photograph in values that the format can hold, and what that takes away."""
    format = FORMATS[kind]
    left_out = []
    later = []
    if photo.later and (format.many == "pages" or format.many == FORMATS[photo.stored.format].many):
        for other in photo.later:
            fitted, more = _fitting(replace(other, later=[]), kind)
            later.append(fitted)
            left_out += more
    if photo.native is not None and photo.mode not in format.modes:
        left_out.append(f"{photo.mode}, which becomes RGB")
        info = {key: value for key, value in photo.info.items() if key != "icc_profile"}
        photo = replace(photo, native=None, mode="", info=info)
    if photo.native is not None:
        return replace(photo, later=later), left_out
    values, mode = photo.values, photo.mode if photo.mode in format.modes else ""
    channels = values.shape[2]
    deep = channels in format.deep and not (later and kind == "PNG")
    if values.dtype == np.float32 and "F" in format.modes and (channels == 1 or kind == "TIFF"):
        mode = "F" if channels == 1 else ""
    elif values.dtype != np.uint8 and deep:
        if values.dtype == np.float32:
            values = (values.clip(0, 1) * 65535 + 0.5).astype(np.uint16)
        elif photo.white != 65535 and kind not in ("TIFF", "PNG"):
            values = (values.astype(np.uint32) * 65535 // photo.white).clip(0, 65535).astype(np.uint16)
            photo = replace(photo, white=65535)
    elif values.dtype != np.uint8:
        left_out.append(
            "floats, which become 8 bits" if values.dtype == np.float32 else "the lower 8 of 16 bits"
        )
        values = photo.eight_bits(values)
    if channels not in (format.deep if values.dtype == np.uint16 else format.channels):
        if channels in (2, 4) and not {2, 4} & set(format.channels):
            left_out.append("alpha")
            values = values[..., : channels - 1]
        elif channels in (1, 2):
            values = np.concatenate((np.repeat(values[..., :1], 3, axis=2), values[..., 1:]), axis=2)
    values = np.ascontiguousarray(values)
    return replace(photo, values=values, mode=mode, later=later), left_out


def _encoded(
    photo: "Photograph", kind: str, quality: int | None, png_level: int
) -> tuple[Iterable[bytes], list[str]]:
    """The pieces of the file, and what is too large for it."""
    described = photo.described()
    if kind == "JPEG":
        return _jpeg(photo, quality, described)
    if kind == "PNG":
        return _png(photo, png_level, described), []
    if kind in ("HEIF", "JXL"):
        coding = photo.stored.coding if photo.stored.format == kind else {}
        lossless = quality == 100 or (quality is None and coding.get("lossless", False))
        chosen = quality or NEW_QUALITY[kind]
        return [extras.encode(photo, kind, chosen, lossless, coding, described)], []
    settings: dict[str, Any] = {}
    if kind in ("WEBP", "AVIF"):
        settings = {key: described[key] for key in ("exif", "icc_profile", "xmp") if described.get(key)}
        settings["quality"] = quality or NEW_QUALITY[kind]
    if kind == "AVIF" and photo.stored.format == "AVIF" and photo.stored.coding.get("subsampling"):
        settings["subsampling"] = photo.stored.coding["subsampling"]
    if kind == "WEBP" and photo.stored.format == "WEBP" and quality is None:
        settings |= {
            key: photo.stored.coding[key] for key in ("lossless", "exact") if key in photo.stored.coding
        }
        # of lossless files, the effort: Pillow's own
        settings["quality"] = 80 if settings.get("lossless") else settings["quality"]
    if kind == "BMP" and described.get("dpi"):
        settings["dpi"] = described["dpi"]
    if kind in ("GIF", "JPEG2000") and isinstance(described.get("comment"), bytes):
        settings["comment"] = described["comment"]
    if kind == "TGA":
        settings["compression"] = (
            photo.stored.coding.get("compression") if photo.stored.format == "TGA" else None
        )
    if kind == "PPM" and photo.values.dtype == np.uint16:
        return [_ppm(photo)], []
    if photo.later or kind == "GIF":
        return [animations.encode(photo, kind, settings)], []
    return [_by_pillow(photo, kind, **settings)], []


def _by_pillow(photo: "Photograph", kind: str, **settings: Any) -> bytes:
    image = photo.as_pil()
    image.info = {}
    # into a file Pillow encodes beside the other threads, into memory while all of them wait
    with _unnamed_file() as file:
        image.save(file, kind, **settings)
        file.seek(0)
        return file.read()


def _unnamed_file() -> BinaryIO:
    """A file for a moment, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("fastllie"), "w+b")
    return tempfile.TemporaryFile()


def _jpeg(
    photo: "Photograph", quality: int | None, described: dict[Any, Any]
) -> tuple[list[bytes], list[str]]:
    same = photo.stored.format == "JPEG"
    coding = photo.stored.coding if same else {}
    settings = {key: coding[key] for key in ("progressive", "keep_rgb") if coding.get(key)}
    if "subsampling" in coding and photo.values.shape[2] == 3:
        settings["subsampling"] = coding["subsampling"]
    if quality is None and coding.get("qtables"):
        settings["qtables"] = coding["qtables"]
    else:
        settings["quality"] = quality or NEW_QUALITY["JPEG"]
    segments, density = [], None
    if same:
        segments, density = photo.stored.parts.segments, photo.stored.parts.density
    else:
        if described.get("iptc"):
            segments.append((jpeg.APP13, photoshop.PREFIX + photoshop.of_iptc(described["iptc"])))
        if isinstance(described.get("comment"), bytes):
            segments.append((jpeg.COM, described["comment"]))
        if described.get("dpi"):
            density = jpeg.density_of(described["dpi"])
    return jpeg.joined(
        turbo.encoded(photo, settings) or _by_pillow(photo, "JPEG", **settings),
        exif_data=described.get("exif", b""),
        xmp=described.get("xmp", b""),
        icc_profile=described.get("icc_profile", b""),
        segments=segments,
        density=density,
    )


def _png(photo: "Photograph", level: int, described: dict[Any, Any]) -> list[bytes]:
    if photo.later:
        content = animations.encode(photo, "PNG", {"compress_level": level})
    elif photo.native is None and photo.values.dtype == np.uint16:
        content = pngs.encoded(photo.values, level)
    else:
        plain = photo.native is None and not photo.mode and level == PNG_LEVEL
        content = (plain and pngs.encoded_by_runs(photo.values, level)) or _by_pillow(
            photo, "PNG", compress_level=level
        )
    came = photo.stored.parts if photo.stored.format == "PNG" else None
    chunks = png.still_true(came, png.kind_of(content)) if came else []
    names = {name for name, _ in chunks}
    comment = described.get("comment")
    chunks = chunks + png.described(
        exif=described.get("exif", b""),
        xmp=described.get("xmp", b""),
        icc_profile=b"" if b"iCCP" in names else described.get("icc_profile", b""),
        dpi=None if came else described.get("dpi"),
        comment=b"" if came or not isinstance(comment, bytes) else comment,
        iptc=b"" if came else described.get("iptc", b""),
    )
    return png.joined(content, chunks)


def _ppm(photo: "Photograph") -> bytes:
    """Of 16 bits, up to the white that the file had."""
    white = photo.stored.coding.get("white", 65535) if photo.stored.format == "PPM" else 65535
    height, width, channels = photo.values.shape
    values = (photo.values.astype(np.uint32) * white + 32767) // 65535
    return (
        b"P%d\n%d %d\n%d\n" % (6 if channels == 3 else 5, width, height, white)
        + values.astype(">u2").tobytes()
    )
