"""Names that stood here before `fastllie.images`, for programs that import them."""

from fastllie.images.photograph import Photograph as DeepImage
from fastllie.images.reading import read as read_image

__all__ = ["DeepImage", "read_image"]
