"""Losses between networks: what discriminators think of images, and how far features lie apart."""

import torch
import torch.nn.functional as F
from torch import Tensor

FEATURE_EPS = 1e-5  # of the instance norm


def least_squares(prediction: Tensor, target: float) -> Tensor:
    """Mean squared distance of a map of predictions from the label `target` (LSGAN)."""
    return (prediction - target).square().mean()


def verdict(prediction: Tensor, real: bool, gan: str) -> Tensor:
    """How far a discriminator's map is from calling its images real, or not real.

    Args:
        gan: "lsgan": `least_squares` from 1 or 0; "vanilla": cross-entropy of the logits; "wgangp": minus or
            plus their mean.
    """
    if gan == "lsgan":
        return least_squares(prediction, float(real))
    if gan == "vanilla":
        return F.binary_cross_entropy_with_logits(
            prediction, prediction.new_full((), float(real)).expand_as(prediction)
        )
    return -prediction.mean() if real else prediction.mean()


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


def full(x: Tensor) -> Tensor:
    """In at least float32: what the losses compute in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def distance(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference."""
    return (x - y).abs().mean()
