"""The losses of Zero-DCE, which need no target: of an image, its input and the curve maps."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie.ops.zero_reference import WELL_EXPOSED
from fastllie.training.losses.shapes import need


def spatial_consistency(y: Tensor, x: Tensor) -> Tensor:
    """Keep the differences between neighbouring 4x4 cells of `x` in the output `y` (Zero-DCE, eq. 4).

    As the published code: signed differences of the grey means to the four neighbours, squared, summed over
    the directions and averaged over the cells. Rows and columns beyond the last whole cell are ignored.

    Raises:
        ValueError: images smaller than one cell.
    """
    need(y, 4, "spatial_consistency")
    change = F.avg_pool2d((y - x).mean(1, keepdim=True), 4)
    # the official loss pads with zeros, so a border cell is compared with "unchanged"; kept for its results
    padded = F.pad(change, (1, 1, 1, 1))
    total = change.new_zeros(())
    for rows, columns in ((slice(0, -2), slice(1, -1)), (slice(2, None), slice(1, -1))):
        total = total + (change - padded[..., rows, columns]).square().mean()
        total = total + (change - padded[..., columns, rows]).square().mean()
    return total


def exposure(y: Tensor, level: float = WELL_EXPOSED) -> Tensor:
    """Mean squared distance of the grey mean of each 16x16 patch from `level` (Zero-DCE, eq. 5).

    The paper has the absolute distance; the published code squares it, and so does this.

    Raises:
        ValueError: images smaller than one patch.
    """
    need(y, 16, "exposure")
    return (F.avg_pool2d(y.mean(1, keepdim=True), 16) - level).square().mean()


def colour_constancy(y: Tensor) -> Tensor:
    """Distance between the channel means of each image, the grey-world prior (Zero-DCE, eq. 6).

    As the published code: per image sqrt((R-G)^4 + (R-B)^4 + (G-B)^4), averaged over the batch. Where the
    three means are equal the gradient is zero; the published code's is NaN there and ends the
    training.
    """
    red, green, blue = y.mean((2, 3)).unbind(1)
    fourth = (red - green).pow(4) + (red - blue).pow(4) + (blue - green).pow(4)
    equal = fourth == 0
    # the square root never sees a zero, so that no inf * 0 reaches the weights
    return torch.where(equal, 0.0, fourth.masked_fill(equal, 1.0).sqrt()).mean()


def map_smoothness(alpha: Tensor) -> Tensor:
    """Squared forward differences of the curve maps, `[B, C, H, W]` (Zero-DCE, eq. 7).

    As the published code: summed over the channels, vertical and horizontal parts each averaged over their
    own number of differences, times 2.

    Raises:
        ValueError: maps with a single row or column.
    """
    need(alpha, 2, "map_smoothness")
    batch, _, height, width = alpha.shape
    vertical = alpha.diff(dim=2).square().sum() / ((height - 1) * width)
    horizontal = alpha.diff(dim=3).square().sum() / (height * (width - 1))
    return 2 * (vertical + horizontal) / batch
