"""One photograph: any image as 8-bit RGB, what had to be changed for that, and the size it is kept at."""

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from fastllie.images.files import name_of, opening
from fastllie.images.photograph import Photograph, upright
from fastllie.images.reading import read as read_photograph

Pixels = NDArray[np.uint8]  # [H, W, 3]
_JPEG = b"\xff\xd8\xff"
OVERSHOOT = 1e-3  # resized floats leave [0, 1] by rounding
LEAST = 3  # what the smoothness loss needs of a side

_GREY = "is grey; used as three equal channels"
_ALPHA = "is partly transparent; used without its transparency"
_DEEP = "has 16 bits a channel; used with 8"
_FLOATS = "has floating-point values; used with 8 bits"
_CHANGED = {
    "1": _GREY,
    "L": _GREY,
    "LA": _GREY,
    "La": _GREY,
    "P": "has a palette; used in the colours that it names",
    "PA": _ALPHA,
    "RGBA": _ALPHA,
    "RGBa": _ALPHA,
    "I": _DEEP,
    "F": _FLOATS,
}
_PLAIN_ALPHA = {
    "RGBa": "RGBA",
    "La": "LA",
    "PA": "RGBA",
}  # what Pillow converts to RGB only by way of another


def read(content: bytes, path: Path, max_pixels: int | None = None) -> tuple[Image.Image, str]:
    """The image in a file: upright, 8-bit RGB; and what was changed for that, "" for nothing.

    Of every kind that `fastllie.enhance` reads, in the same way. All of it is decoded, of several pictures
    the first.

    Args:
        content: Of the file.
        path: Its name, which tells the files of some cameras.
        max_pixels: As for `fastllie.images.reading.read`.

    Raises:
        ValueError: what is wrong with the file, to be read after its name.
        ImportError: a kind that an extra reads which is not installed, likewise.
    """
    if not content:
        raise ValueError("is empty")
    file = io.BytesIO(content)
    file.name = os.fspath(path)
    try:
        if content.startswith(_JPEG) and (image := _plain_jpeg(file, max_pixels)) is not None:
            return image, ""
        photo = read_photograph(file, max_pixels=max_pixels, only_first=True)
    except (ImportError, ValueError) as error:
        kind = ImportError if isinstance(error, ImportError) else ValueError
        raise kind(_after_name(str(error), path)) from error
    values = photo.colours
    pixels = _bytes(values) if values.dtype == np.float32 else photo.eight_bits(values)
    return Image.fromarray(np.ascontiguousarray(pixels)), ", and ".join(_changes(photo))


def _plain_jpeg(file: BinaryIO, max_pixels: int | None) -> Image.Image | None:
    """A JPEG in colour: the same pixels, sooner, as they need not go through arrays."""
    with opening(file, max_pixels) as image:
        if image.format == "JPEG" and image.mode == "RGB":
            return upright(image, own=True, name=name_of(file))
    file.seek(0)
    return None


def _after_name(message: str, path: Path) -> str:
    """What is said of a file without its name at the beginning."""
    return re.sub(f"^(the image )?{re.escape(repr(os.fspath(path)))}[: ]*", "", message)


def _changes(photo: Photograph) -> Iterator[str]:
    """What 8-bit RGB takes from a photograph."""
    if photo.native is not None:
        yield f"is {photo.mode}; used as RGB"
    elif photo.grey:
        yield _GREY
    if photo.values.shape[2] in (2, 4) and photo.values[..., -1].min() < (photo.top or 1):
        yield _ALPHA
    if photo.values.dtype == np.uint16:
        yield _DEEP
    elif photo.values.dtype == np.float32:
        yield _FLOATS
    if photo.stored.left_out:
        yield f"is used without {', '.join(photo.stored.left_out)}"


def to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """An image of any mode as 8-bit RGB, its transparency dropped; and what was changed, "" for nothing.

    Raises:
        ValueError: a mode without a way to RGB, or values outside its range.
    """
    mode = image.mode
    if 0 in image.size:
        raise ValueError(f"has no pixels: {image.width}x{image.height}")
    if mode == "RGB":
        return image, ""
    changed = _CHANGED.get(mode, f"is {mode}; used as RGB")
    if mode.startswith("I") or mode == "F":
        return Image.fromarray(_bytes(np.asarray(image))).convert("RGB"), _DEEP if mode[0] == "I" else changed
    if mode == "P" and "transparency" in image.info:
        mode, changed = "PA", _ALPHA
    try:
        return image.convert(_PLAIN_ALPHA.get(mode, mode)).convert("RGB"), changed
    except ValueError as error:
        raise ValueError(f"is of mode {mode}, which cannot be turned into RGB: {error}") from error


def from_value(value: Any) -> tuple[Image.Image, str]:
    """An item of a dataset as 8-bit RGB, and what was changed for that, "" for nothing.

    Args:
        value: A PIL image; a tensor `[C, H, W]`; an array `[H, W]` or `[H, W, C]`; with 1, 3 or 4 channels,
            of uint8, uint16 or floats in [0, 1].

    Raises:
        ValueError: anything else, values outside the range.
    """
    if isinstance(value, Image.Image):
        return to_rgb(ImageOps.exif_transpose(value))
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        if value.dim() != 3 or value.shape[0] not in (1, 3, 4):
            raise ValueError(f"is a tensor of shape {tuple(value.shape)}; wanted (3, H, W)")
        value = (value.float() if value.is_floating_point() else value).permute(1, 2, 0).numpy()
    if not isinstance(value, np.ndarray):
        raise ValueError(f"is a {type(value).__name__}; wanted a PIL image, a tensor or an array")
    if value.ndim == 2:
        value = value[..., None]
    if value.ndim != 3 or value.shape[2] not in (1, 3, 4):
        raise ValueError(f"is an array of shape {value.shape}; wanted (H, W, 3)")
    if 0 in value.shape:
        raise ValueError(f"has no pixels: shape {value.shape}")
    if value.dtype != np.uint8 and value.dtype != np.uint16 and not np.issubdtype(value.dtype, np.floating):
        raise ValueError(f"has values of {value.dtype}; wanted uint8, uint16 or floats in [0, 1]")
    changed = {1: _GREY, 4: _ALPHA}.get(value.shape[2], "")
    pixels = _bytes(value[..., :3])
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))), changed


def _bytes(values: np.ndarray) -> Pixels:
    """uint8 as it is, other integers from 0..65535 and floats from [0, 1], rounded."""
    if values.dtype == np.uint8:
        return values
    low, high = values.min(), values.max()
    if np.issubdtype(values.dtype, np.floating):
        # NaN fails every comparison
        if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):
            raise ValueError(f"has values from {low:g} to {high:g}; floats must lie in [0, 1]")
        return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    if low < 0 or high > 65535:
        raise ValueError(f"has values from {low} to {high}; wanted 0 to 65535")
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


@dataclass(frozen=True)
class Preparation:
    """The size at which a photograph is kept; with nothing given it stays as it is.

    Args:
        square: Squeezed to a square of this side.
        bicubic: By a cubic filter, where PIL's Lanczos is the default.
        short_side: Reduced or enlarged to this short side.
        long_side: Reduced to this long side where it is larger.
        least: Then enlarged to this short side where it is smaller.
    """

    square: int | None = None
    bicubic: bool = False
    short_side: int | None = None
    long_side: int | None = None
    least: int | None = None

    @property
    def name(self) -> str:
        """What sets this preparation apart from others, fit for a folder's name."""
        square = "cubic" if self.bicubic else "square"
        sides = {square: self.square, "short": self.short_side, "long": self.long_side, "least": self.least}
        return "-".join(f"{name}{side}" for name, side in sides.items() if side is not None) or "whole"

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of what becomes of an image of this width and height."""
        if self.square is not None:
            return self.square, self.square
        short = self.short_side
        if short is None and self.long_side is not None and max(width, height) > self.long_side:
            factor = self.long_side / max(width, height)
            reduced = max(LEAST, round(width * factor)), max(LEAST, round(height * factor))
        else:
            reduced = width, height
        if self.least is not None and min(reduced) < self.least:
            short = self.least
        if short is None:
            return reduced
        # never smaller than asked: every crop must find its place
        factor = short / min(width, height)
        return max(short, round(width * factor)), max(short, round(height * factor))

    def apply(self, image: Image.Image) -> Pixels:
        """The pixels of an RGB image at that size."""
        size = self.size(*image.size)
        how = Image.Resampling.BICUBIC if self.bicubic else Image.Resampling.LANCZOS
        return np.asarray(image if size == image.size else image.resize(size, how))
