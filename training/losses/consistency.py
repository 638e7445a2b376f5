"""Losses of our own: what an image keeps of its input, and how light it is."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie.models.logits import half_logits
from fastllie.training.losses.shapes import need

_DARKEST = 2 / 255
_LARGEST_RATIO = 6.0
_EXPONENTS = (0.35, 1.1)
_LAGS = (1, 4)
_NEARLY_WHITE = 0.98
_LIT = 0.43  # the mean grey that photographs in normal light have, about


def chroma_consistency(y: Tensor, x: Tensor) -> Tensor:
    """Keep the colours of `x` in the output `y`, as much more vivid as it is brighter: ours.

    Mean over cells of 4x4 pixels of |(y - grey(y)) - r (x - grey(x))|^2, r = grey(y) / grey(x), at most 6:
    beyond that the colours of dark pixels are noise. No gradient through r, or darkening would pay.

    Raises:
        ValueError: images smaller than one cell.
    """
    need(y, 4, "chroma_consistency")
    x, y = F.avg_pool2d(x, 4), F.avg_pool2d(y, 4)
    grey_x, grey_y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    ratio = (grey_y.detach() / grey_x.clamp(min=_DARKEST)).clamp(0, _LARGEST_RATIO)
    return ((y - grey_y) - ratio * (x - grey_x)).square().mean()


def contrast_consistency(y: Tensor, x: Tensor) -> Tensor:
    """Keep the ratios between neighbouring cells of `x` in the output `y`, up to one exponent an image: ours.

    A gain keeps the ratios of all pixels; haze does not, nor do patches of different gains. Mean over cells
    of 8x8 pixels, neighbours and those four cells apart, of (d(y) - k d(x))^2, d the difference of the
    logarithms of the greys; k is the image's best exponent, but at least 0.35 and at most 1.1.

    Raises:
        ValueError: images smaller than two cells.
    """
    need(y, 16, "contrast_consistency")
    grey_x, grey_y = (F.avg_pool2d(image.mean(1, keepdim=True), 8) for image in (x, y))
    # what is added against the logarithm of zero grows with the image, so that a gain changes nothing
    gain = (
        grey_y.mean((2, 3), keepdim=True) / grey_x.mean((2, 3), keepdim=True).clamp(min=_DARKEST)
    ).detach()
    log_x = (grey_x + _DARKEST).log()
    log_y = (grey_y.clamp(min=0) + _DARKEST * gain.clamp(min=1)).log()
    inputs, outputs = (
        torch.cat(
            [
                (log.roll(-lag, dim) - log).narrow(dim, 0, log.shape[dim] - lag).flatten(1)
                for dim in (2, 3)
                for lag in _LAGS
                if lag < log.shape[dim]
            ],
            1,
        )
        for log in (log_x, log_y)
    )
    slope = (inputs * outputs.detach()).sum(1, keepdim=True) / inputs.square().sum(1, keepdim=True).clamp(
        min=1e-6
    )
    return (outputs - slope.clamp(*_EXPONENTS) * inputs).square().mean()


def overshoot(y: Tensor, x: Tensor) -> Tensor:
    """How far the output is above 0.98, or above the input where that is brighter, on the mean: ours."""
    return (y - x.clamp(min=_NEARLY_WHITE)).clamp(min=0).mean()


def gain_smoothness(y: Tensor, x: Tensor) -> Tensor:
    """How much the change from `x` to `y` differs between neighbours: ours.

    Mean over neighbouring pixels, below and beside, of the squared difference of u(y) - u(x), with u(t) =
    logit(t) / 2 of images in [0, 1]: zero where all of an image gets one gain in its shadows.
    """
    gain = half_logits(y) - half_logits(x)
    return gain.diff(dim=2).square().mean() + gain.diff(dim=3).square().mean()


def dimness(y: Tensor) -> Tensor:
    """How far the mean grey of each image is below 0.43, squared, on the mean: ours.

    Discriminators judge most what most images have in common, and leave the darkest nearly as they are.
    """
    return (_LIT - y.mean((1, 2, 3))).clamp(min=0).square().mean()


def grey_illumination(illum: Tensor) -> Tensor:
    """Mean squared deviation of the channels of an illumination from their mean, relative to it.

    An illumination that is the same in all channels leaves the ratios of red, green and blue as they are.
    """
    return (illum / illum.mean(1, keepdim=True) - 1).square().mean()


# by their names in a recipe: what an enhanced image `y` keeps of its input `x`
CONSISTENCIES = {
    "chroma": chroma_consistency,
    "contrast": contrast_consistency,
    "overshoot": overshoot,
    "dimness": lambda y, x: dimness(y),
    "gain_smoothness": gain_smoothness,
}
