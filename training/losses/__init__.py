"""Every loss, one function each. Images are `[B, 3, H, W]` in [0, 1]; all return a scalar."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie.models.logits import half_logits
from fastllie.ops.zero_reference import WELL_EXPOSED

_SIMILARITY_WINDOW, _SIMILARITY_STRIDE = 7, 3
_DARKEST = 2 / 255
_LARGEST_RATIO = 6.0
_EXPONENTS = (0.35, 1.1)
_LAGS = (1, 4)
_NEARLY_WHITE = 0.98
_LIT = 0.43  # the mean grey that photographs in normal light have, about
_SIMILARITY_C1, _SIMILARITY_C2 = 0.01**2, 0.03**2  # Wang et al. 2004, data range 1


def spatial_consistency(y: Tensor, x: Tensor) -> Tensor:
    """Keep the differences between neighbouring 4x4 cells of `x` in the output `y` (Zero-DCE, eq. 4).

    As the published code: signed differences of the grey means to the four neighbours, squared, summed over
    the directions and averaged over the cells. Rows and columns beyond the last whole cell are ignored.

    Raises:
        ValueError: images smaller than one cell.
    """
    _need(y, 4, "spatial_consistency")
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
    _need(y, 16, "exposure")
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
    _need(alpha, 2, "map_smoothness")
    batch, _, height, width = alpha.shape
    vertical = alpha.diff(dim=2).square().sum() / ((height - 1) * width)
    horizontal = alpha.diff(dim=3).square().sum() / (height * (width - 1))
    return 2 * (vertical + horizontal) / batch


def reconstruction(y: Tensor, target: Tensor) -> Tensor:
    """Root of the mean squared difference of each image from its target, averaged over the batch.

    Where the local picture does not tell how dark the scene is, the best answer to a squared difference is
    the mean of what is possible, a smooth function of the input; to an absolute one the median, which jumps.
    """
    # 1e-4: a hundredth of full scale; keeps the gradient of a perfect image finite
    return ((y - target).square().mean((1, 2, 3)) + 1e-4).sqrt().mean()


def scaled_reconstruction(y: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference after each output is scaled to its target's mean.

    The factor is not differentiated, so this term moves contrast, colour and noise, never the brightness.
    """
    factor = (target.mean((1, 2, 3), keepdim=True) / y.mean((1, 2, 3), keepdim=True).clamp(min=1e-3)).detach()
    return (y * factor - target).abs().mean()


def dissimilarity(y: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM with a uniform 7x7 window at every third place: local contrast and structure.

    Raises:
        ValueError: images smaller than the window.
    """
    _need(y, _SIMILARITY_WINDOW, "dissimilarity")
    # a third of the places in each direction: the same expectation at a ninth of the cost;
    # contiguous because pooling channels-last memory is slow
    moments = torch.cat([y, target, y * y, target * target, y * target]).contiguous()
    means = F.avg_pool2d(moments, _SIMILARITY_WINDOW, _SIMILARITY_STRIDE)
    mean_y, mean_t, mean_yy, mean_tt, mean_yt = means.chunk(5)
    product = mean_y * mean_t
    squares = mean_y * mean_y + mean_t * mean_t
    luminance = (2 * product + _SIMILARITY_C1) / (squares + _SIMILARITY_C1)
    structure = (2 * (mean_yt - product) + _SIMILARITY_C2) / (mean_yy + mean_tt - squares + _SIMILARITY_C2)
    return 1 - (luminance * structure).mean()


def chroma_consistency(y: Tensor, x: Tensor) -> Tensor:
    """Keep the colours of `x` in the output `y`, as much more vivid as it is brighter: ours.

    Mean over cells of 4x4 pixels of |(y - grey(y)) - r (x - grey(x))|^2, r = grey(y) / grey(x), at most 6:
    beyond that the colours of dark pixels are noise. No gradient through r, or darkening would pay.

    Raises:
        ValueError: images smaller than one cell.
    """
    _need(y, 4, "chroma_consistency")
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
    _need(y, 16, "contrast_consistency")
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


def _need(images: Tensor, size: int, loss: str) -> None:
    if images.dim() != 4 or min(images.shape[-2:]) < size:
        raise ValueError(f"{loss} needs [B, C, H, W] with H, W >= {size}, got shape {tuple(images.shape)}")
