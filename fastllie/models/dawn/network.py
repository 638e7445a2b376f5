"""`dawn`, our own: exposure by the whole picture, noise taken out before it is brightened."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastllie.models.dawn.brain import GRID, PLANES, Brain, luma, see
from fastllie.models.dawn.denoiser import MULTIPLE, Denoiser
from fastllie.ops import reference

STEPS = 8  # of the curve
_BISECTIONS = 12
_BRIGHTEST = 0.995  # v of the brightest pixel after denoising: v = 1 would be infinitely bright


class Observed(NamedTuple):
    """What `Dawn.observe` finds out about whole pictures.

    Attributes:
        grid: `[B, 6, 8, 8, 12]`, see `Brain`.
        mean: Of the luma, `[B, 1, 1, 1]`.
        noise: `[B, 6]`, see `fastllie.models.dawn.brain.noise_levels`.
    """

    grid: Tensor
    mean: Tensor
    noise: Tensor


class Dawn(nn.Module):
    """A brain that looks at the whole picture, a denoiser, and a grid of curves that brightens.

    `forward` takes images `[B, 3, H, W]` in [0, 1], any size, and returns the enhanced images, as large.

    Tiles are exact once the whole has been looked at: with what `observe` says of a picture, `forward` gives
    of a part of it what it gives of the whole there, if the part begins at multiples of 16 and brings `halo`
    pixels more on each side where the picture has them.

    Args:
        denoise: How much of the noise is taken out, from 0 to 1.
        exposure: The mean luma that is aimed at, in (0, 1); None leaves it to the network.

    Raises:
        ValueError: options out of range.
    """

    #: pixels around an output pixel that its value depends on, beside what is observed: 54, in whole cells
    halo = 64
    #: what the places of tiles are multiples of
    multiple = MULTIPLE

    def __init__(self, *, denoise: float = 1.0, exposure: float | None = None):
        super().__init__()
        if not 0 <= denoise <= 1:
            raise ValueError(f"denoise must be from 0 to 1, got {denoise}")
        if exposure is not None and not 0 < exposure < 1:
            raise ValueError(f"exposure must be between 0 and 1, or None, got {exposure}")
        self.denoise = denoise
        self.exposure = exposure
        self.brain = Brain()
        self.denoiser = Denoiser()

    def forward(
        self,
        x: Tensor,
        *,
        observed: Observed | None = None,
        place: tuple[int, int] = (0, 0),
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Enhance whole pictures, or parts of what was observed.

        Args:
            x: `[B, 3, H, W]`.
            observed: What `observe` said of the whole pictures; None where `x` is the whole.
            place: Row and column of the first pixel of `x` in the whole picture.
            size: Of the whole picture; None where `x` is the whole.
        """
        if observed is None:
            observed = self.observe(x)
        v = self.denoised(x, observed)
        light = (v * observed.mean / (1 - v)).clamp(0, 1)
        y = reference.apply_grid_curve(light, observed.grid, luma(v), place=place, size=size, steps=STEPS)
        return y.to(x.dtype)

    def observe(self, x: Tensor) -> Observed:
        """What is to be known of whole pictures; float32 where they are in half precision."""
        seen = see(x)
        grid = self.brain(seen).to(seen.thumb.dtype)
        if self.exposure is not None:
            grid = _exposed(grid, seen.thumb, seen.mean, self.exposure)
        return Observed(grid, seen.mean, seen.noise)

    def denoised(self, x: Tensor, observed: Observed) -> Tensor:
        """`x` in v = x / (x + mean) without its noise; float32 where `x` is in half precision."""
        x = x.to(observed.mean.dtype)
        v = x / (x + observed.mean)
        if self.denoise == 0:
            return v
        height, width = v.shape[-2:]
        # gathered: exporters cannot follow a padding whose width depends on the size
        rows, columns = (
            torch.arange((side + MULTIPLE - 1) // MULTIPLE * MULTIPLE, device=v.device).clamp(max=side - 1)
            for side in (height, width)
        )
        padded = v.index_select(2, rows).index_select(3, columns)
        clean = self.denoiser(padded, observed.noise, self.denoise)[..., :height, :width]
        return clean.clamp(0.0, _BRIGHTEST)


def _exposed(grid: Tensor, thumb: Tensor, mean: Tensor, level: float) -> Tensor:
    """The grid with all alphas moved alike, in atanh, until the thumbnail's mean luma is `level`.

    Where the curve's range does not reach so far, the end of it.
    """
    guide = luma(thumb / (thumb + mean))
    alpha, black = grid[:, :3], grid[:, 3:]
    low = -torch.ones_like(mean)[..., None]
    high = -low
    for _ in range(_BISECTIONS):
        move = (low + high) / 2
        moved = torch.cat([_moved(alpha, move), black], 1)
        y = reference.apply_grid_curve(thumb, moved, guide, steps=STEPS)
        dark = luma(y).mean((2, 3), keepdim=True)[..., None] < level
        low, high = torch.where(dark, move, low), torch.where(dark, high, move)
    return torch.cat([_moved(alpha, (low + high) / 2), black], 1)


def _moved(alpha: Tensor, move: Tensor) -> Tensor:
    """tanh(atanh(alpha) + atanh(move))."""
    return (alpha + move) / (1 + alpha * move)


__all__ = ["GRID", "PLANES", "STEPS", "Dawn", "Observed"]
