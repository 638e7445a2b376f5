"""The losses of whole scenes, one function each. Images are `[B, 3, H, W]` in [0, 1]; all return a scalar."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie.defaults import LUMA
from fastllie.training.losses import dissimilarity
from fastllie.training.losses.shapes import need

_LUMA = torch.tensor(LUMA).view(1, 3, 1, 1)
_SOFT = 1e-6  # the square of what is small: keeps gradients finite
_QUIET = 1e-5  # 50 dB: better than that no frame needs to be
_NEARLY_WHITE = 0.85
_MATCH = (0.5, 2.0)
_CELLS = (1, 4, 16, 32)  # sides in pixels
_STEP = 0.5 / 255  # neighbours that differ by less are alike


def noise(v: Tensor, clean: Tensor) -> Tensor:
    """The logarithm of each image's mean squared error: a decibel counts the same in clean and noisy ones."""
    return ((v - clean).square().mean((1, 2, 3)) / _QUIET).log1p().mean()


def difference(y: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference, smooth at zero."""
    return ((y - target).square() + _SOFT).sqrt().mean()


def matched(y: Tensor, target: Tensor) -> Tensor:
    """`y` times what brings its mean to the target's, at most doubled; no gradient through the factor."""
    factor = target.mean((1, 2, 3), keepdim=True) / y.mean((1, 2, 3), keepdim=True).clamp(min=0.02)
    return y * factor.clamp(*_MATCH).detach()


def matched_difference(y: Tensor, target: Tensor) -> Tensor:
    """`difference` of the matched image: contrast and colour, whatever the exposure."""
    return difference(matched(y, target), target)


def structure(y: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM of the matched image: contrast and edges."""
    return dissimilarity(matched(y, target), target)


def local_contrast(y: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the steps from cell to cell, below and beside, of the matched image.

    Of cells of 4, 16 and 32 pixels on a side: tones that drift beside an edge, which is too slow for the
    windows of `structure`, and too little for `difference`. Of single pixels: rims that are as narrow as the
    edge, and noise, which the mean of a cell does not show.

    Raises:
        ValueError: images smaller than two of the larger cells.
    """
    need(y, 2 * _CELLS[-1], "local_contrast")
    error = matched(y, target) - target
    found = error.new_zeros(())
    for side in _CELLS:
        # of the error: steps are linear, so that its own are the difference of theirs
        cells = F.avg_pool2d(error, side)
        found = found + cells.diff(dim=2).abs().mean() + cells.diff(dim=3).abs().mean()
    return found


def flatness(y: Tensor, target: Tensor, x: Tensor) -> Tensor:
    """Mean absolute step between neighbours that are alike in target and input `x`: rims, and drifting tones.

    In `local_contrast` the noise and the detail of other scenes hide a rim of a level; here neither counts.
    """
    found = y.new_zeros(())
    for dim in (2, 3):
        still = [image.diff(dim=dim).abs().amax(1, keepdim=True) < _STEP for image in (target, x)]
        found = found + (y.diff(dim=dim).abs() * (still[0] & still[1])).mean()
    return found


def chroma(y: Tensor, target: Tensor) -> Tensor:
    """Difference of the colours, each less its luma."""
    luma = _LUMA.to(y)
    return difference(*(image - (image * luma).sum(1, keepdim=True) for image in (y, target)))


def overshoot(y: Tensor, target: Tensor) -> Tensor:
    """How far pixels are above their target where they are nearly white: faces that burn."""
    return ((y - target).clamp(min=0) * (y > _NEARLY_WHITE)).mean()


def mean(y: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the images' means."""
    return (y.mean((1, 2, 3)) - target.mean((1, 2, 3))).abs().mean()


def roughness(grid: Tensor) -> Tensor:
    """Squared differences of neighbours in a grid `[B, 6, lumas, rows, columns]`."""
    return sum((grid.diff(dim=dim).square().mean() for dim in (2, 3, 4)), grid.new_zeros(()))
