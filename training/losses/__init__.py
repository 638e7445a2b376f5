"""Every loss of images, one function each. Images are `[B, 3, H, W]` in [0, 1]; all return a scalar."""

from fastllie.training.losses.consistency import (
    chroma_consistency,
    contrast_consistency,
    dimness,
    gain_smoothness,
    grey_illumination,
    overshoot,
)
from fastllie.training.losses.reference import (
    WELL_EXPOSED,
    colour_constancy,
    exposure,
    map_smoothness,
    spatial_consistency,
)
from fastllie.training.losses.target import dissimilarity, reconstruction, scaled_reconstruction

__all__ = [
    "WELL_EXPOSED",
    "chroma_consistency",
    "colour_constancy",
    "contrast_consistency",
    "dimness",
    "dissimilarity",
    "exposure",
    "gain_smoothness",
    "grey_illumination",
    "map_smoothness",
    "overshoot",
    "reconstruction",
    "scaled_reconstruction",
    "spatial_consistency",
]
