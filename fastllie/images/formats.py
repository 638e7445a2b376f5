"""The table of file formats: what each is called, holds, and needs; docs/formats.md is made from it."""

import os
from dataclasses import dataclass

#: Kinds of metadata, in the order of the table
KINDS = ("EXIF", "XMP", "IPTC", "ICC profile", "resolution", "comment", "text", "gamma", "private tags")
_CAMERAS = (
    ".dng .nef .nrw .cr2 .cr3 .crw .arw .sr2 .srf .raf .rw2 .orf .pef .srw .erf .kdc .mrw .x3f .iiq .3fr .fff"
)


@dataclass(frozen=True)
class Format:
    """A kind of image file.

    Attributes:
        title: For people.
        suffixes: Of its files, the usual one first.
        holds: The kinds of metadata that its files have and keep; see `KINDS`.
        channels: Numbers of channels of 8 bits that can be written: 1 grey, 2 grey and alpha, 3 RGB, 4 both.
        deep: The same of 16 bits.
        modes: Pillow's other modes that can be written; "F" for floats of any number of channels in a TIFF.
        exact: "always" where pixels are kept; "as given" where either kind stays what it was; "never".
        many: Several pictures: "animation", "pages", or "".
        extra: The extra of fastllie that reads and writes it; "" for none.
        written: Whether it is written.
    """

    title: str
    suffixes: tuple[str, ...]
    holds: tuple[str, ...] = ()
    channels: tuple[int, ...] = (1, 3)
    deep: tuple[int, ...] = ()
    modes: tuple[str, ...] = ()
    exact: str = "always"
    many: str = ""
    extra: str = ""
    written: bool = True


#: Pillow's name of a format (ours for camera raw) -> the format
FORMATS = {
    "JPEG": Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), KINDS[:6], modes=("CMYK",), exact="never"),
    "PNG": Format("PNG", (".png", ".apng"), KINDS[:8], (1, 2, 3, 4), (1, 2, 3, 4), ("1",), many="animation"),
    "TIFF": Format(
        "TIFF, BigTIFF",
        (".tif", ".tiff"),
        (*KINDS[:6], "private tags"),
        (1, 2, 3, 4),
        (1, 2, 3, 4),
        ("1", "CMYK", "I", "F"),
        "as given",
        "pages",
    ),
    "WEBP": Format(
        "WebP", (".webp",), ("EXIF", "XMP", "ICC profile"), (3, 4), exact="as given", many="animation"
    ),
    "GIF": Format("GIF", (".gif",), ("comment",), (1, 3, 4), many="animation"),
    "BMP": Format("BMP", (".bmp",), ("resolution",), modes=("1",)),
    "PPM": Format(
        "PPM, PGM, PBM, PFM", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), deep=(1, 3), modes=("1", "F")
    ),
    "TGA": Format("TGA", (".tga",), (), (1, 2, 3, 4)),
    "JPEG2000": Format("JPEG 2000", (".jp2",), ("comment",), (1, 2, 3, 4), (1,)),
    "AVIF": Format(
        "AVIF", (".avif",), ("EXIF", "XMP", "ICC profile"), (1, 3, 4), exact="never", many="animation"
    ),
    "HEIF": Format(
        "HEIC, HEIF",
        (".heic", ".heif"),
        ("EXIF", "XMP", "ICC profile"),
        (1, 3, 4),
        (1, 3, 4),
        (),
        "never",
        "",
        "heif",
    ),
    "JXL": Format("JPEG XL", (".jxl",), ("EXIF", "XMP"), (1, 2, 3, 4), (1,), (), "as given", "", "jxl"),
    "RAW": Format("camera raw, DNG", tuple(_CAMERAS.split()), extra="raw", written=False),
}
#: suffix -> format, of what is written, and of what is taken from a folder
SUFFIXES = {suffix: name for name, format in FORMATS.items() if format.written for suffix in format.suffixes}
READ = SUFFIXES | dict.fromkeys(FORMATS["RAW"].suffixes, "RAW")
#: what becomes of a camera's file
DEVELOPED = ".tif"


def suffix_of(path: str | os.PathLike[str]) -> str:
    return os.path.splitext(os.fspath(path))[1].lower()


def format_of(path: str | os.PathLike[str]) -> str:
    """The format to write, by the suffix.

    Raises:
        ValueError: a suffix that is not written; the message lists those that are.
    """
    suffix = suffix_of(path)
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    why = " (it is read only)" if suffix in READ else ""
    raise ValueError(
        f"cannot write {os.fspath(path)!r}: wanted a suffix of {', '.join(SUFFIXES)}, got {suffix!r}{why}"
    )


def table() -> str:
    """The table for people, in Markdown."""
    head = ["format", "suffixes", "bits", "alpha", "pixels kept", "several pictures", *KINDS, "needs"]
    rows = [head, ["---"] * len(head)]
    for format in FORMATS.values():
        if not format.written:
            rows.append(
                [format.title, " ".join(format.suffixes), "", "", "read only", "", *[""] * len(KINDS)]
            )
            rows[-1].append(f"`{format.extra}`")
            continue
        bits = "8, 16" if format.deep else "8"
        bits += ", float" if "F" in format.modes else ""
        kinds = ["yes" if kind in format.holds else "" for kind in KINDS]
        alpha = "yes" if {2, 4} & set(format.channels) else ""
        needs = f"`{format.extra}`" if format.extra else ""
        suffixes = " ".join(format.suffixes)
        rows.append([format.title, suffixes, bits, alpha, format.exact, format.many, *kinds, needs])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
