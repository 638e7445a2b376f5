"""Names that stood here before `fastllie.images`, for programs that import them."""

import os

from PIL import Image

from fastllie.defaults import PNG_LEVEL, QUALITY
from fastllie.images.files import SUFFIXES, is_complete, replacing
from fastllie.images.photograph import Photograph
from fastllie.images.reading import read

__all__ = ["PNG_LEVEL", "QUALITY", "SUFFIXES", "is_complete", "open_image", "replacing", "save_image"]


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """The first picture of a file, upright; see `fastllie.images.reading.read`."""
    return read(path).as_pil()


def save_image(
    image: Image.Image,
    path: str | os.PathLike[str],
    *,
    quality: int | None = None,
    png_level: int = PNG_LEVEL,
) -> None:
    """Write a PIL image in the format of the suffix; see `fastllie.images.writing.write`."""
    Photograph.of(image).save(path, quality=quality, png_level=png_level)
