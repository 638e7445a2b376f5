"""What the edge discriminators of NeRCo see: the strength of an image's edges."""

import torch
import torch.nn.functional as F
from torch import Tensor

EDGES = ("central", "sobel", "laplacian4", "laplacian8")
# BT.601 as published, without the offset: sums to 0.8588
LUMA = (65.738 / 256, 129.057 / 256, 25.064 / 256)
FLOOR = 1e-6
GAIN = 4.0
# correlated with the grey image: down and across, or one for all directions
_KERNELS = {
    "central": (((0, -1, 0), (0, 0, 0), (0, 1, 0)), ((0, 0, 0), (-1, 0, 1), (0, 0, 0))),
    "sobel": (((-1, -2, -1), (0, 0, 0), (1, 2, 1)), ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1))),
    "laplacian4": (((0, 1, 0), (1, -4, 1), (0, 1, 0)),),
    "laplacian8": (((1, 1, 1), (1, -8, 1), (1, 1, 1)),),
}


def gray(x: Tensor) -> Tensor:
    """The luma of images `[B, 3, H, W]` in [-1, 1], `[B, 1, H, W]` in [-0.86, 0.86]."""
    return (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def derivatives(x: Tensor, edge: str = "central") -> Tensor:
    """The filtered luma, `[B, 2, H, W]` (down, across) or `[B, 1, H, W]` (Laplacians); zeros outside.

    Raises:
        ValueError: an unknown filter.
    """
    if edge not in EDGES:
        raise ValueError(f"edge must be one of {EDGES}, got {edge!r}")
    return F.conv2d(gray(x), x.new_tensor(_KERNELS[edge])[:, None], padding=1)


def magnitude(x: Tensor, edge: str = "central") -> Tensor:
    """sqrt(the squares of the derivatives + 1e-6), `[B, 1, H, W]`; the image's frame counts as an edge."""
    return (derivatives(x, edge).square().sum(1, keepdim=True) + FLOOR).sqrt()


def edge_map(x: Tensor, edge: str = "central", colour: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """4 * (weight * magnitude + bias), `[B, 3, H, W]`: the input of an edge discriminator.

    Args:
        x: Images `[B, 3, H, W]` in [-1, 1].
        edge: "central", the published difference of the two neighbours; "sobel"; "laplacian4" and
            "laplacian8", whose absolute value takes the place of the gradient's length.
        colour: Weight and bias, `[3]` each; None is 1 and 0. The published code draws both anew from
            U(-1, 1) at each call.

    Raises:
        ValueError: an unknown filter.
    """
    strength = magnitude(x, edge)
    if colour is None:
        return GAIN * strength.expand(-1, 3, -1, -1)
    weight, bias = (part.view(1, 3, 1, 1) for part in colour)
    return GAIN * (weight * strength + bias)


def random_colour(like: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """A draw of the published random colour for `edge_map`: weight and bias `[3]` from U(-1, 1)."""
    drawn = torch.rand(2, 3, generator=generator).mul(2).sub(1).to(like)
    return drawn[0], drawn[1]
