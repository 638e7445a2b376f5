"""One photograph by every method, in files that a browser shows and takes: what the page of `demo` does."""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastllie.api import Enhancer
from fastllie.images.formats import DEVELOPED, FORMATS, READ
from fastllie.images.photograph import Photograph
from fastllie.images.reading import glance, read
from fastllie.methods import info, list_methods

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
MOST_SAMPLES = 12
MOST_PIXELS = 64 * 10**6  # of a photograph, which is decoded, enhanced and encoded in memory
MOST_BYTES = 200 * 10**6  # of a file
SHOWN = 1600  # pixels, the long side of what a browser shows; the download has the full size
COMPARED = 1024  # pixels, the long side of what all methods are run on
SHOWN_QUALITY = 90


@dataclass(frozen=True)
class Result:
    """One photograph, enhanced.

    Attributes:
        before: The photograph as a browser shows it, at most `SHOWN` pixels long.
        after: The result in the same size.
        file: The result in full size, of the photograph's kind where it can be written, else PNG.
        size: Width and height of `file`.
        seconds: What the enhancement took, without reading and writing.
    """

    before: Path
    after: Path
    file: Path
    size: tuple[int, int]
    seconds: float


def methods() -> list[str]:
    """The methods that can be chosen: those that have weights in the package."""
    return [name for name in list_methods() if info(name).weights]


def variants(method: str) -> list[str]:
    """The names of a method's weights, the default first."""
    return [variant.name for variant in info(method).weights]


def everything() -> list[tuple[str, str]]:
    """All methods with all of their weights, in the order of `compare`."""
    return [(method, variant) for method in methods() for variant in variants(method)]


def samples_of(folder: str | os.PathLike[str] | None = None) -> list[Path]:
    """The photographs to pick from: those in a folder, twelve at most, or the package's own.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it holds no images.
    """
    place = SAMPLES if folder is None else Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(f"no such folder of samples: {str(place)!r}")
    found = sorted(path for path in place.iterdir() if path.suffix.lower() in READ and path.is_file())
    if not found:
        raise ValueError(f"the folder {str(place)!r} holds no images ({', '.join(READ)})")
    return found[:MOST_SAMPLES]


def checked(path: Path) -> str:
    """The suffix that the result of a photograph gets.

    Raises:
        ValueError: no image, a damaged one, or one of more pixels or bytes than the page takes.
    """
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise ValueError(_too_large(path, "bytes", path.stat().st_size, MOST_BYTES))
    (width, height), kind = glance(path, MOST_PIXELS)
    if width * height > MOST_PIXELS:
        raise ValueError(_too_large(path, "pixels", width * height, MOST_PIXELS))
    if kind == "RAW":
        return DEVELOPED
    return FORMATS[kind].suffixes[0] if kind in FORMATS else ".png"


def _too_large(path: Path, what: str, given: int, most: int) -> str:
    return (
        f"{path.name} has {given / 1e6:.0f} million {what}, and this page takes {most / 1e6:.0f} million;"
        " `fastllie enhance` takes more"
    )


def brighten(path: Path, method: str, variant: str, strength: float, folder: Path) -> Result:
    """Enhance a photograph in full size, and write the result and what is shown of it below `folder`.

    Raises:
        ValueError: weights that the package does not have for the method (a path is none), and as `checked`.
        TypeError, ValueError, OSError, MemoryError, RuntimeError: as `fastllie.enhance`.
    """
    if variant not in variants(method):
        raise ValueError(f"{method} has no weights {variant!r}; known: {', '.join(variants(method))}")
    suffix = checked(path)
    enhancer = Enhancer(info(method).name, weights=variant, strength=strength)
    before = read(path)
    begin = time.perf_counter()
    after = before.each(enhancer)
    seconds = time.perf_counter() - begin
    place = Path(tempfile.mkdtemp(dir=folder))
    file = place / f"{path.stem}-{label(method, variant)}{suffix}"
    after.save(file)
    shown = displayable(before, SHOWN), displayable(after, SHOWN)
    return Result(
        before=_written(shown[0], place / "before"),
        after=_written(shown[1], place / "after"),
        file=file,
        size=after.size,
        seconds=seconds,
    )


def compare(path: Path, strength: float, folder: Path) -> Iterator[tuple[Path, str]]:
    """The photograph, then the result of every method with all of its weights, one after another.

    All are computed on a photograph reduced to `COMPARED` pixels on the long side, of 8 bits a channel.

    Yields:
        An image file below `folder`, and what it is, with the time that it took.

    Raises:
        As `brighten`.
    """
    checked(path)
    small = displayable(read(path, only_first=True), COMPARED)
    place = Path(tempfile.mkdtemp(dir=folder))
    width, height = small.size
    yield _written(small, place / "photograph"), f"photograph, {width} × {height}"
    for method, variant in everything():
        enhancer = Enhancer(info(method).name, weights=variant, strength=strength)
        begin = time.perf_counter()
        after = enhancer(small)
        seconds = time.perf_counter() - begin
        yield (
            _written(after, place / label(method, variant)),
            f"{title(method, variant)}, {duration(seconds)}",
        )


def title(method: str, variant: str) -> str:
    """For people: the method's title, with the weights where it has several."""
    return info(method).title + (f" {variant}" if len(variants(method)) > 1 else "")


def label(method: str, variant: str) -> str:
    """For the names of files: the method, with the weights where they are not the default."""
    return method if variant == variants(method)[0] else f"{method}.{variant}"


def duration(seconds: float) -> str:
    """For people: milliseconds below a second."""
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def displayable(given: Image.Image | Photograph, side: int) -> Image.Image:
    """An image of any mode as RGB or RGBA of 8 bits, at most `side` pixels long, with its colour profile."""
    image = given.as_pil() if isinstance(given, Photograph) else given
    # the profile of a grey image or of CMYK would be wrong for RGB
    profile = image.info.get("icc_profile") if image.mode in ("P", "RGB", "RGBA") else None
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image, np.float64) / (1 if image.mode == "F" else 65535)
        image = Image.fromarray((values.clip(0, 1) * 255 + 0.5).astype(np.uint8))
    shown = image.convert("RGBA" if image.has_transparency_data else "RGB")
    scale = side / max(shown.size)
    if scale < 1:
        size = [max(1, round(length * scale)) for length in shown.size]
        shown = shown.resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=2.0)
    shown.info = {"icc_profile": profile} if profile else {}
    return shown


def _written(image: Image.Image, path: Path) -> Path:
    target = path.with_name(path.name + (".png" if image.mode == "RGBA" else ".jpg"))
    Photograph.of(image).save(target, quality=SHOWN_QUALITY)
    return target
