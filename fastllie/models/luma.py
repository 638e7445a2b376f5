"""How bright a pixel is, of the networks that ask."""

from torch import Tensor

from fastllie.defaults import LUMA


def luma(x: Tensor) -> Tensor:
    """`[B, 1, H, W]` of `[B, 3, H, W]`."""
    return x[:, :1] * LUMA[0] + x[:, 1:2] * LUMA[1] + x[:, 2:] * LUMA[2]
