"""Losses between networks: what discriminators think of images, and how far features lie apart."""

import torch.nn.functional as F
from torch import Tensor

FEATURE_EPS = 1e-5  # of the instance norm


def least_squares(prediction: Tensor, target: float) -> Tensor:
    """Mean squared distance of a map of predictions from the label `target` (LSGAN)."""
    return (prediction - target).square().mean()


def relativistic(higher: Tensor, lower: Tensor) -> Tensor:
    """How far the one map does not lie one above the mean of the other, and the reverse (RaLSGAN).

    [mean((higher - m(lower) - 1)^2) + mean((lower - m(higher))^2)] / 2, m the mean over batch and map. With
    (real, fake) the discriminator's loss, with (fake, real) the generator's.
    """
    return (least_squares(higher - lower.mean(), 1.0) + least_squares(lower - higher.mean(), 0.0)) / 2


def feature_distance(features: Tensor, others: Tensor) -> Tensor:
    """Mean squared distance of two maps of features `[B, C, H, W]`, each instance-normalised first.

    The self feature preserving loss of EnlightenGAN, eq. 5, with the instance norm of its published code.
    """
    return F.mse_loss(F.instance_norm(features, eps=FEATURE_EPS), F.instance_norm(others, eps=FEATURE_EPS))
