"""What an image holds by itself: entropy, local contrast."""

import math
from typing import Any

import torch
from torch import Tensor

from fastllie.checks import check_positive
from fastllie.metrics.planes import batch_of, grey_levels


def de(image: Any) -> Tensor:
    """Discrete entropy: Shannon's, in bits, of the histogram of BT.601 luma rounded to 256 levels.

    Args:
        image: An image or a batch, as `fastllie.enhance` takes it.

    Returns:
        float64 `[B]`, 0 to 8.

    Raises:
        TypeError, ValueError, OSError: images that `fastllie.enhance` would refuse.
    """
    levels = grey_levels(batch_of(image)).long().flatten(1)
    share = torch.stack([torch.bincount(row, minlength=256) for row in levels]).double() / levels.shape[1]
    return torch.special.entr(share).sum(1) / math.log(2)


def eme(image: Any, *, block: int = 8) -> Tensor:
    """Measure of enhancement (Agaian et al. 2001): mean over blocks of 20 ln(max / min) of the grey levels.

    Grey is BT.601 luma rounded to 256 levels. The blocks do not overlap, pixels right and below of the last
    whole block are left out, and a block whose minimum is 0 counts as 0, as in the code that goes around.

    Args:
        image: An image or a batch, as `fastllie.enhance` takes it.
        block: Side of the blocks in pixels.

    Returns:
        float64 `[B]`, from 0 (flat) to 110.8.

    Raises:
        TypeError, ValueError, OSError: images that `fastllie.enhance` would refuse, a block that is larger
            than the image or no whole number of at least 1.
    """
    check_positive("block", block)
    levels = grey_levels(batch_of(image))
    _, height, width = levels.shape
    if min(height, width) < block:
        raise ValueError(f"EME has blocks of {block}x{block} pixels; the image has {width}x{height}")
    tiles = levels.unfold(1, block, block).unfold(2, block, block)
    low, high = tiles.amin((-2, -1)), tiles.amax((-2, -1))
    contrast = torch.where(low > 0, 20 * (high / low.clamp_min(1)).log(), 0.0)
    return contrast.mean((1, 2))
