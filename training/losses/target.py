"""Losses of an image beside the one that it should be."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie.training.losses.shapes import need

_SIMILARITY_WINDOW, _SIMILARITY_STRIDE = 7, 3
_SIMILARITY_C1, _SIMILARITY_C2 = 0.01**2, 0.03**2  # Wang et al. 2004, data range 1


def reconstruction(y: Tensor, target: Tensor) -> Tensor:
    """Root of the mean squared difference of each image from its target, averaged over the batch.

    Where the local picture does not show how dark the scene is, the best answer to a squared difference is
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
    need(y, _SIMILARITY_WINDOW, "dissimilarity")
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
