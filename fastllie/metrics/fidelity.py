"""How near an image comes to a reference: PSNR, PSNR after scaling, SSIM."""

import math
from typing import Any

import torch
from torch import Tensor

from fastllie.defaults import LUMA
from fastllie.metrics.planes import in_colour, pair_of, weighted

SSIM_RADIUS, SSIM_SIGMA = 5, 1.5  # an 11x11 window
SSIM_K1, SSIM_K2 = 0.01, 0.03  # Wang et al. 2004, sec. III.B
SCALE_MEANS = ("luma", "rgb")
_TINY = 1e-12  # under any mean but that of a black image


def psnr(output: Any, reference: Any, *, colour: str = "rgb") -> Tensor:
    """Peak signal-to-noise ratio, -10 log10(mean((output - reference)²)) for a range of 1, in dB.

    Args:
        output: An image or a batch, as `fastllie.enhance` takes it; nothing is rounded here.
        reference: The same number of images, of the same size.
        colour: "rgb" averages over all values of all channels; "grey" compares BT.601 luma in 0..1; "y"
            BT.601 luma in 16/255..235/255, still for a range of 1.

    Returns:
        float64 `[B]`; infinity for equal images.

    Raises:
        TypeError, ValueError, OSError: images that `fastllie.enhance` would refuse, different sizes, a colour
            that there is not.
    """
    x, y = pair_of(output, reference, "reference")
    return _psnr(in_colour(x, colour), in_colour(y, colour))


def psnr_scaled(output: Any, reference: Any, *, mean: str = "luma") -> Tensor:
    """PSNR (RGB, dB) after `output` is multiplied by mean(reference) / mean(output), clipped and not rounded.

    It forgives a wrong exposure, so it is no PSNR to be compared with those of other tables; the mean of each
    image comes from the reference.

    Args:
        output, reference: As for `psnr`.
        mean: "luma", the ratio of the means of BT.601 luma; or "rgb", of all values of all channels.

    Returns:
        float64 `[B]`.

    Raises:
        TypeError, ValueError, OSError: as `psnr`, and for another `mean`.
    """
    if mean not in SCALE_MEANS:
        raise ValueError(f"mean must be one of {', '.join(SCALE_MEANS)}, got {mean!r}")
    x, y = pair_of(output, reference, "reference")
    before, after = (
        (weighted(z, LUMA) if mean == "luma" else z).mean((1, 2, 3), keepdim=True) for z in (x, y)
    )
    return _psnr((x * (after / before.clamp_min(_TINY))).clamp(0, 1), y)


def _psnr(x: Tensor, y: Tensor) -> Tensor:
    return -10 * (x - y).square().mean((1, 2, 3)).log10()


def ssim(output: Any, reference: Any, *, colour: str = "rgb") -> Tensor:
    """Structural similarity (Wang et al. 2004, eq. 13) for a range of 1.

    Means, variances and covariance in an 11x11 Gaussian window of sigma 1.5, normalised by the weights (the
    population's, not the sample's); averaged over the places where the whole window lies inside the image,
    and over the channels.

    Args:
        output, reference: As for `psnr`; at least 11x11 pixels.
        colour: As for `psnr`.

    Returns:
        float64 `[B]`, 1 for equal images.

    Raises:
        TypeError, ValueError, OSError: as `psnr`, and for smaller images.
    """
    x, y = pair_of(output, reference, "reference")
    window = 2 * SSIM_RADIUS + 1
    if min(x.shape[-2:]) < window:
        raise ValueError(
            f"SSIM has a window of {window}x{window} pixels; the images have {x.shape[-1]}x{x.shape[-2]}"
        )
    x, y = in_colour(x, colour), in_colour(y, colour)
    # plane by plane: the five maps of a photograph of 24 megapixels take a gigabyte
    planes = [[_ssim(a, b) for a, b in zip(*pair, strict=True)] for pair in zip(x, y, strict=True)]
    return torch.stack([torch.stack(channels).mean() for channels in planes])


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM of two planes `[H, W]`."""
    mean_x, mean_y, xx, yy, xy = gaussian_window(
        torch.stack([x, y, x * x, y * y, x * y]), SSIM_RADIUS, SSIM_SIGMA
    )
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    similarity = (2 * product + c1) * (2 * (xy - product) + c2)
    return (similarity / ((squares + c1) * (xx + yy - squares + c2))).mean()


def gaussian_window(x: Tensor, radius: int, sigma: float) -> Tensor:
    """Means of `[..., H, W]` weighted by a Gaussian window, where it lies inside: 2 * radius smaller."""
    taps = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)]
    total = sum(taps)
    # shifted sums: a float64 convolution would first copy every window out
    for dim in (-2, -1):
        length = x.shape[dim] - 2 * radius
        sums = x.narrow(dim, 0, length) * (taps[0] / total)
        for k, tap in enumerate(taps[1:], 1):
            sums.add_(x.narrow(dim, k, length), alpha=tap / total)
        x = sums
    return x
