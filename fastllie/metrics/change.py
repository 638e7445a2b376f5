"""What became of the input: hue, clipping, brightness, the order of lightness."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie.metrics.planes import cielab, pair_of

LEAST_CHROMA = 4.0  # of CIELAB: below it a hue is noise
CLIPPED = 0.99
LOE_RADIUS = 7  # the local maximum is taken over 15x15 pixels
LOE_SIDE = 50  # samples along the shorter side, at least
LEVELS = 256


def hue_shift(output: Any, input: Any) -> Tensor:
    """Mean absolute difference of the CIELAB hue angle between an image and its input, in degrees.

    Each pixel weighs as the smaller of its two chromas; a weight under 4 counts as 0. An image without colour
    has a shift of 0.

    Args:
        output: An image or a batch, as `fastllie.enhance` takes it; nothing is rounded here.
        input: The same number of images, of the same size.

    Returns:
        float64 `[B]`, 0 to 180.

    Raises:
        TypeError, ValueError, OSError: images that `fastllie.enhance` would refuse, different sizes.
    """
    x, y = pair_of(output, input, "input")
    (_, a1, b1), (_, a0, b0) = cielab(x).unbind(1), cielab(y).unbind(1)
    angle = torch.atan2(b1, a1) - torch.atan2(b0, a0)
    angle = (torch.remainder(angle + math.pi, 2 * math.pi) - math.pi).abs()
    weight = torch.minimum(torch.hypot(a1, b1), torch.hypot(a0, b0))
    weight = torch.where(weight < LEAST_CHROMA, 0.0, weight)
    return torch.rad2deg((angle * weight).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-12))


def new_clipping(output: Any, input: Any) -> Tensor:
    """Percentage of pixels with a channel above 0.99 in the output, minus the same of the input.

    Arguments, shape of the result and errors as for `hue_shift`.
    """
    after, before = ((z > CLIPPED).any(1).double().mean((1, 2)) for z in pair_of(output, input, "input"))
    return 100 * (after - before)


def rise(output: Any, input: Any) -> Tensor:
    """mean(output) - mean(input) over all values of all channels, for a range of 1.

    On photographs that are well exposed as they are (a mean of 0.40 to 0.65, say) it should be near 0.
    Arguments, shape of the result and errors as for `hue_shift`.
    """
    after, before = (z.mean((1, 2, 3)) for z in pair_of(output, input, "input"))
    return after - before


def loe(output: Any, input: Any) -> Tensor:
    """Lightness order error (Wang et al. 2013), as the code that is handed around computes it.

    Lightness is max(R, G, B) rounded to 8 bits, then its maximum over 15x15 pixels. Both maps are sampled at
    every s-th row and column, s = floor(min(H, W) / 50), starting with the s-th. For each sample the others
    are counted whose order to it (at least as light, or darker) is another in the output than in the input;
    the result is the mean count. Images with a side under 50 are taken pixel by pixel.

    The count grows with the number of samples, so only values of one size of image compare. Code that follows
    the text of the paper, without the local maximum or with a resized map, gives other values.

    Arguments, shape of the result and errors as for `hue_shift`.
    """
    x, y = pair_of(output, input, "input")
    step = max(1, min(x.shape[-2:]) // LOE_SIDE)
    after, before = (_lightness(z)[:, step - 1 :: step, step - 1 :: step].flatten(1) for z in (x, y))
    return torch.stack([_disorder(a, b) for a, b in zip(after, before, strict=True)])


def _lightness(x: Tensor) -> Tensor:
    """`[B, 3, H, W]` in [0, 1] to the local maximum of the lightness, `[B, H, W]` in 0..255."""
    top = (x.amax(1, keepdim=True) * 255).round()
    # the published code mirrors the border: that brings no value into a window which it does not have already
    return F.max_pool2d(top, 2 * LOE_RADIUS + 1, stride=1, padding=LOE_RADIUS).squeeze(1)


def _disorder(after: Tensor, before: Tensor) -> Tensor:
    # by a table of both levels: the comparisons of all pairs would be 10**8 for a small photograph
    pairs = after.long() * LEVELS + before.long()
    table = torch.bincount(pairs, minlength=LEVELS**2).view(LEVELS, LEVELS)
    # how many samples are no lighter in the output, in the input, and in both
    both = table.cumsum(0).cumsum(1)
    one_alone = both[:, -1:] + both[-1:] - 2 * both
    return (table * one_alone).sum().double() / len(after)
