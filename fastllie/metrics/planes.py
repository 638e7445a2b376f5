"""What the metrics read: images of every kind as float64 batches, grey levels, and CIELAB."""

import os
from typing import Any

import torch
from torch import Tensor

from fastllie.defaults import LUMA
from fastllie.images.batches import to_batch

FilePath = str | os.PathLike[str]
COLOURS = ("rgb", "y", "grey")
# ITU-R 601 in 16..235, as MATLAB's rgb2ycbcr and most code for super-resolution have it
_STUDIO_LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
_STUDIO_BLACK = 16 / 255
# IEC 61966-2-1 (sRGB, D65)
_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)


def batch_of(image: Any, name: str = "image") -> Tensor:
    """An image as `fastllie.enhance` takes it, as float64 `[B, 3, H, W]` in [0, 1].

    Tensors stay on their device, but for mps, which has no float64: those are measured on the CPU.

    Raises:
        TypeError, ValueError, OSError: what `fastllie.enhance` raises, with `name` in front.
    """
    try:
        if isinstance(image, Tensor) and image.device.type == "mps":
            image = image.cpu()
        return to_batch(image, dtype=torch.float64)[0]
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error


def pair_of(output: Any, other: Any, name: str) -> tuple[Tensor, Tensor]:
    """`output` and what it is compared with, as batches of one shape on the device of `output`.

    Raises:
        TypeError, ValueError, OSError: as `batch_of`.
        ValueError: different sizes or numbers of images.
    """
    x, y = batch_of(output, "output"), batch_of(other, name)
    if x.shape != y.shape:
        raise ValueError(
            f"output has {_size(x)} and {name} {_size(y)}; wanted the same number of images of the same size"
        )
    return x, y.to(x.device)


def _size(x: Tensor) -> str:
    count, _, height, width = x.shape
    return f"{count} of {width}x{height}" if count != 1 else f"{width}x{height} pixels"


def weighted(x: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Sum over the channels: `[B, 3, H, W]` to `[B, 1, H, W]`."""
    red, green, blue = weights
    return (x[:, 0] * red + x[:, 1] * green + x[:, 2] * blue).unsqueeze(1)


def in_colour(x: Tensor, colour: str) -> Tensor:
    """The planes that a metric compares: RGB as it is, or one plane of luma, all for a range of 1.

    Args:
        x: `[B, 3, H, W]` in [0, 1].
        colour: "rgb"; "grey", BT.601 luma in 0..1; "y", BT.601 luma in 16/255..235/255. None is rounded.

    Raises:
        ValueError: another name.
    """
    if colour not in COLOURS:
        raise ValueError(f"colour must be one of {', '.join(COLOURS)}, got {colour!r}")
    if colour == "rgb":
        return x
    return weighted(x, LUMA) if colour == "grey" else weighted(x, _STUDIO_LUMA) + _STUDIO_BLACK


def grey_levels(x: Tensor) -> Tensor:
    """BT.601 luma in whole levels, half a level going up: `[B, 3, H, W]` in [0, 1] to `[B, H, W]`."""
    # one colour in a thousand lies on half a level, where the noise of the sum would decide
    return (weighted(x * 255, LUMA).squeeze(1) + (0.5 + 1e-9)).floor()


def cielab(x: Tensor) -> Tensor:
    """sRGB `[B, 3, H, W]` in [0, 1] to CIELAB (D65, 2 degrees): L* in 0..100, a*, b*."""
    linear = torch.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)
    planes = [weighted(linear, row) / white for row, white in zip(_XYZ, _WHITE, strict=True)]
    f = [torch.where(t > 0.008856, t.pow(1 / 3), 7.787 * t + 16 / 116) for t in planes]
    return torch.cat([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])], dim=1)
