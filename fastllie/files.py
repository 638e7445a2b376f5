"""Files: reading images, and writing anything so that no half-written file is ever left behind."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

#: what `save_image` writes, and what is taken from a folder
SUFFIXES = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".pgm": "PPM",
    ".png": "PNG",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
QUALITY = 95
# Pillow's decoders raise all of these for damaged files
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, OverflowError)
# What else a TIFF keeps in the same table describes its own storage and would be wrong in a new file
_TIFF_TAGS = {270, 271, 272, 282, 283, 296, 305, 306, 315, 33432, 34665, 34853}


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file beside `path` to write to; rename it on success, remove it on any error."""
    # through a link to the file that it names, as an ordinary write would
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {os.fspath(path)!r}: it is a directory")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {os.fspath(path)!r}: its folder does not exist")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Decode an image file (the first frame), turned upright by its EXIF orientation.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: named with the path.
        ValueError: the file is not an image, or is damaged.
    """
    name = os.fspath(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{name!r} is a directory; wanted an image file")
    if not os.path.exists(path):
        raise FileNotFoundError(f"no such image file: {name!r}")
    try:
        with Image.open(path) as file:
            file.load()
            return upright(file)
    except PermissionError:
        raise
    except UnidentifiedImageError as error:
        empty = " (it is empty)" if os.path.getsize(path) == 0 else ""
        raise ValueError(f"{name!r} is not an image that Pillow can read{empty}") from error
    except _DAMAGE as error:
        raise ValueError(f"the image {name!r} is damaged: {error}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name!r}: {error}; raise PIL.Image.MAX_IMAGE_PIXELS if you trust it") from error


def upright(image: Image.Image) -> Image.Image:
    """A copy with the EXIF orientation applied, and EXIF in `info` whatever format the image came from."""
    # TIFF keeps its tags in the image object, which copies lose
    exif = image.getexif() if "exif" not in image.info else None
    result = ImageOps.exif_transpose(image)
    if exif:
        for tag in list(exif):
            if tag not in _TIFF_TAGS:
                del exif[tag]
        if exif:
            result.info["exif"] = exif.tobytes()
    return result


def save_image(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write an image in the format of the suffix, with its EXIF and ICC profile. Atomic.

    JPEG and WebP are written at quality 95.

    Raises:
        ValueError: an unknown suffix, or a mode that the format cannot hold.
        OSError: a path that cannot be written.
    """
    name = os.fspath(path)
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"cannot write {name!r}: wanted a suffix of {', '.join(SUFFIXES)}, got {suffix!r}")
    format = SUFFIXES[suffix]
    extras = {key: image.info[key] for key in ("exif", "icc_profile") if image.info.get(key)}
    if format in ("JPEG", "WEBP"):
        extras["quality"] = QUALITY
    with replacing(path) as temporary:
        try:
            image.save(temporary, format, **extras)
        except (OSError, ValueError, KeyError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise OSError(error.errno, f"cannot write {name!r}: {error.strerror}") from error
            raise ValueError(f"cannot write {name!r} as {format}: {error}") from error
