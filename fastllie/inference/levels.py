"""Bytes and floats of a batch: in tiles, and for its mean brightness."""

from typing import Any

import torch
from torch import Tensor

from fastllie.defaults import LUMA
from fastllie.inference.tiles import Model

_BAND = 1 << 15  # pixels: 0.8 MB as int64, which a cache holds


def through_floats(model: Model, dtype: torch.dtype) -> Model:
    """A model of floats in [0, 1] as one of bytes: in tiles, no float image of the whole is ever made."""
    # divided in float32 at least: multiplying by 1/255 gives other values for half of the 256
    exact = torch.promote_types(dtype, torch.float32)

    def run(x: Tensor, **how: Any) -> Tensor:
        y = model(x.to(exact).div_(255).to(dtype), **how)
        return (y.to(exact) * 255).add_(0.5).clamp_(0, 255).to(torch.uint8)

    return run


def mean_luma(x: Tensor, bgr: bool = False) -> Tensor:
    """The mean of 0.299 R + 0.587 G + 0.114 B of each image of a batch `[B, 3, H, W]`, in [0, 1]: `[B]`.

    Of bytes, or of floats in [0, 1], `bgr` if in that order; the result is float64 on the CPU.
    """
    whole = x.dtype == torch.uint8
    # in bands: a sum is made through a copy in its own dtype
    bands = x.split(max(1, _BAND // x.shape[-1]), 2)
    dtype = torch.int64 if whole else torch.float32
    sums = torch.empty((len(bands), *x.shape[:2]), dtype=dtype, device=x.device)
    for band, result in zip(bands, sums, strict=True):
        torch.sum(band, (2, 3), dtype=dtype, out=result)
    means = sums.cpu().double().sum(0) / (x.shape[2] * x.shape[3] * (255 if whole else 1))
    return means @ torch.tensor(LUMA[::-1] if bgr else LUMA, dtype=torch.float64)
