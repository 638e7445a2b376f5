"""Files: opening images, and writing anything so that no half-written file is ever left behind."""

import hashlib
import io
import math
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from fastllie.defaults import MOST_PIXELS
from fastllie.images import jpeg, tiff
from fastllie.images.formats import SUFFIXES as SUFFIXES

# Pixels times scans of a progressive JPEG, about half a minute; ten scans of 100 megapixels have a quarter
MOST_DECODED = 2**32
_PILLOWS_MOST = 89_478_485  # as long as nobody has set PIL.Image.MAX_IMAGE_PIXELS
# Seconds after which nobody is writing to a temporary file any more
ABANDONED = 3600
_REMAINS = re.compile(r"\..+\.\d+\.part")
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file beside `path` to write to; rename it on success, remove it on any error."""
    # through a link to the file that it names, as an ordinary write would
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {os.fspath(path)!r}: it is a directory")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {os.fspath(path)!r}: its folder does not exist")
    temporary = target.with_name(f".{_digest(target)}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _digest(target: Path) -> str:
    """A short word for a name: a temporary name may not be too long where the name itself is legal."""
    return hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]


class RefusedError(ValueError):
    """A file that may be an image but is not read; the message says all."""


Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


def name_of(source: Any) -> str:
    """What a source is called in messages, as its `repr` would: a path, or the kind of thing that it is."""
    if isinstance(source, (str, os.PathLike)):
        return repr(os.fspath(source))
    name = getattr(source, "name", None)
    return repr(name) if isinstance(name, str) else f"<{type(source).__name__}>"


def is_source(value: Any) -> bool:
    """Whether it is what an image file can be read from."""
    return isinstance(value, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(value, "read")


@contextmanager
def stream(source: Source) -> Iterator[BinaryIO]:
    """A file to read and seek in; a file that was given open stays open, and is read from where it stands.

    Raises:
        FileNotFoundError, IsADirectoryError, RefusedError: named with the path.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield io.BytesIO(source)
        return
    if not isinstance(source, (str, os.PathLike)):
        content = source.read()
        if not isinstance(content, bytes):
            raise TypeError(
                f"{name_of(source)} gives {type(content).__name__}; wanted a file opened for bytes"
            )
        yield io.BytesIO(content)
        return
    if os.path.isdir(source):
        raise IsADirectoryError(f"{name_of(source)} is a directory; wanted an image file")
    if not os.path.exists(source):
        raise FileNotFoundError(f"no such image file: {name_of(source)}")
    if not os.path.isfile(source):
        # opening a pipe would wait for a writer
        raise RefusedError(f"{name_of(source)} is no regular file; wanted an image file")
    with open(source, "rb") as file:
        yield file


@contextmanager
def opening(source: Source, max_pixels: int | None = None, name: str = "") -> Iterator[Any]:
    """The unread image of a file; what goes wrong in the block is told by the name of the file.

    Args:
        max_pixels: Of one picture; None is `defaults.MOST_PIXELS`, or what PIL.Image.MAX_IMAGE_PIXELS was
            set to.
        name: What it is called where the source does not say.
    """
    name = name or name_of(source)
    with (
        stream(source) as file,
        telling(name, file),
        _allowing(max_pixels) as most,
        Image.open(file) as image,
    ):
        refuse_more_than(most, image.size, name)
        _refuse_traps(image, file, name)
        yield image


@contextmanager
def telling(name: str, file: BinaryIO) -> Iterator[None]:
    """Name the file in whatever decoders raise."""
    try:
        yield
    except (PermissionError, RefusedError, ImportError):
        raise
    except UnidentifiedImageError as error:
        empty = " (it is empty)" if file.seek(0, os.SEEK_END) == 0 else ""
        raise ValueError(f"{name} is not an image that Pillow can read{empty}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name}: {error}; give a larger max_pixels if you trust it") from error
    except MemoryError as error:
        raise MemoryError(f"no memory to decode {name}") from error
    except Exception as error:
        # Pillow's decoders raise nearly anything for a damaged file, and it is told by name
        raise ValueError(f"the image {name} is damaged: {error or type(error).__name__}") from error


_lock = threading.Lock()
_allowed: list[float] = []
_theirs: list[int | None] = []


@contextmanager
def _allowing(max_pixels: int | None) -> Iterator[float]:
    """Let Pillow, which has one limit for the process, take as many pixels as we do; how many that is."""
    with _lock:
        if not _allowed:
            _theirs[:] = [Image.MAX_IMAGE_PIXELS]
        given = _theirs[0]
        if max_pixels is not None:
            most: float = max_pixels
        elif given == _PILLOWS_MOST:
            most = MOST_PIXELS
        else:
            most = math.inf if given is None else 2 * given
        _allowed.append(most)
        Image.MAX_IMAGE_PIXELS = _pillows()
    try:
        yield most
    finally:
        with _lock:
            _allowed.remove(most)
            Image.MAX_IMAGE_PIXELS = _pillows() if _allowed else _theirs[0]


def allowed_pixels(max_pixels: int | None) -> float:
    """How many pixels a picture may have; `max_pixels` is as for `opening`."""
    with _allowing(max_pixels) as most:
        return most


def _pillows() -> int | None:
    most = max(*_allowed, _theirs[0] or math.inf)
    return None if most == math.inf else int(most)


def refuse_beyond(max_pixels: int | None, size: tuple[int, int], name: str) -> None:
    """Raise for more pixels than are taken; `max_pixels` is as for `opening`."""
    refuse_more_than(allowed_pixels(max_pixels), size, name)


def refuse_more_than(most: float, size: tuple[int, int], name: str) -> None:
    """Raise for more pixels than are taken."""
    if size[0] * size[1] > most:
        raise RefusedError(
            f"{name} has {size[0]}x{size[1]} pixels, and {most:.0f} are taken; give a larger max_pixels"
            " (--max-pixels) if you trust it"
        )


def _refuse_traps(image: Image.Image, file: BinaryIO, name: str) -> None:
    """Raise for what no photograph does, before it is decoded."""
    if image.format == "EPS":
        # a program, which Pillow gives to Ghostscript
        raise RefusedError(f"{name} is PostScript; wanted a photograph")
    if image.format in ("JPEG", "MPO"):
        content = whole(file)
        pixels = image.width * image.height
        # the fast count takes also what lies in segments and behind the end
        if not jpeg.is_one_scan(content) and content.count(b"\xff\xda") * pixels > MOST_DECODED:
            scans = jpeg.count_scans(content)
            if scans * pixels > MOST_DECODED:
                size = f"{image.width}x{image.height}"
                raise RefusedError(f"{name} has {scans} scans of {size} pixels, more than any photograph")


def whole(file: BinaryIO) -> bytes:
    """All bytes of a file, which stays where it stands."""
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return content


def is_complete(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an image that was written to its end, as far as its structure tells."""
    try:
        with open(path, "rb") as file:
            start, size = file.read(16), file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 12))
            tail = file.read()
            if start.startswith(b"\x89PNG\r\n\x1a\n"):
                return tail == PNG_END
            if start.startswith(b"\xff\xd8\xff"):
                return tail.endswith(b"\xff\xd9")
            if start.startswith(b"RIFF"):
                return int.from_bytes(start[4:8], "little") + 8 <= size
            if start.startswith(b"GIF8"):
                return tail.endswith(b";")
            if start[:2] in (b"II", b"MM"):
                return tiff.ends_within(file, size)
            if start[4:8] in (b"ftyp", b"JXL "):
                return _boxes_fill(file, size)
            if start.startswith(b"\xff\x0a"):
                return size > 16
            file.seek(0)
            with Image.open(file):
                return True
    except Exception:
        # Pillow raises nearly anything for a damaged file
        return False


def _boxes_fill(file: BinaryIO, size: int) -> bool:
    """Whether the boxes of HEIC, AVIF or JPEG XL end where the file ends."""
    place = 0
    while place + 8 <= size:
        file.seek(place)
        length = int.from_bytes(file.read(4), "big")
        if length == 1:
            file.seek(place + 8)
            length = int.from_bytes(file.read(8), "big")
        # 0 is as far as there is anything
        place = size if length == 0 else place + max(8, length)
    return place == size


def remove_remains(folder: str | os.PathLike[str]) -> None:
    """Delete what `replacing` left in a folder when its process was killed, an hour ago or more."""
    if not os.path.isdir(folder):
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if _REMAINS.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > ABANDONED:
                os.unlink(entry)


def remove_remains_of(path: str | os.PathLike[str]) -> None:
    """Delete what `replacing` left of one file when its process was killed; nobody may be writing it now."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        return
    left = re.compile(rf"\.{_digest(target)}\.\d+\.part")
    for entry in target.parent.iterdir():
        if left.fullmatch(entry.name):
            entry.unlink(missing_ok=True)
