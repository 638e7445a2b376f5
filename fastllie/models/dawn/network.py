"""`dawn`, our own: exposure by the whole picture, noise taken out before it is brightened."""

from typing import NamedTuple

import torch
from torch import Tensor

from fastllie.models.contract import Contract, Grid, Observed, Window
from fastllie.models.dawn.brain import GRID, PLANES, THUMB, Brain, Seen, luma, measure, samples, see
from fastllie.models.dawn.denoiser import MULTIPLE, Denoiser
from fastllie.models.network import Built, Network, standard_only
from fastllie.ops import dawn as kernel
from fastllie.ops import reference
from fastllie.ops.packing import can_run_packed

STEPS = 8  # of the curve
_BISECTIONS = 12
_BRIGHTEST = 0.995  # v of the brightest pixel after denoising: v = 1 would be infinitely bright
# of a tile in the modules: planes of the pyramid and twelve features at half size
_PIXEL_BYTES = 160.0
HALO = (
    64  # pixels around an output pixel that its value depends on, beside what is observed: 54, in whole cells
)


class Whole(NamedTuple):
    """What `Dawn` knows of whole pictures.

    Attributes:
        grid: `[B, 6, 8, 8, 12]`, see `Brain`.
        mean: Of the luma, `[B, 1, 1, 1]`.
        noise: `[B, 6]`, see `fastllie.models.dawn.brain.noise_levels`.
    """

    grid: Tensor
    mean: Tensor
    noise: Tensor


def _completed(length: int) -> Tensor:
    """A side in whole cells: its last pixel goes on."""
    return torch.arange((length + MULTIPLE - 1) // MULTIPLE * MULTIPLE).clamp(max=length - 1)


class Dawn(Network):
    """A brain that looks at the whole picture, a denoiser, and a grid of curves that brightens.

    `forward` takes images `[B, 3, H, W]` in [0, 1], any size, and returns the enhanced images, as large, or
    uint8 in 0..255 to uint8. Where no gradient is wanted, it runs on the CPU as `fastllie.ops.dawn` has it.

    Tiles are exact once the whole has been looked at: with what `whole` says of a picture, `forward` gives of
    a part of it what it gives of the whole there, if the part begins at multiples of 16 and brings `HALO`
    pixels more on each side where the picture has them.

    Args:
        denoise: How much of the noise is taken out, from 0 to 1.
        exposure: The mean luma that is aimed at, in (0, 1); None leaves it to the network.

    Raises:
        ValueError: options out of range.
    """

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
        self._built = Built.of(self, Dawn, ("denoise", "exposure"))

    @property
    def contract(self) -> Contract:
        grid = Grid(MULTIPLE, _completed, _PIXEL_BYTES, centred=False)
        return Contract(HALO, one_pass=True, grid=grid, observes=True, located=True)

    def observe(self, x: Tensor) -> Observed:
        return Observed(self.whole(x)._asdict())

    def forward(
        self,
        x: Tensor,
        grid: Tensor | None = None,
        mean: Tensor | None = None,
        noise: Tensor | None = None,
        window: Window | None = None,
    ) -> Tensor:
        """Enhance whole pictures, or parts of them.

        Args:
            x: `[B, 3, H, W]`.
            grid, mean, noise: What `whole` said of the pictures; None where `x` is the whole.
            window: Where the part lies in its picture; None where `x` is the whole.
        """
        whole = self.whole(x) if grid is None or mean is None or noise is None else Whole(grid, mean, noise)
        if self._fused(x):
            return self._in_one_pass(x, whole, window)
        if x.dtype == torch.uint8:
            y = self._enhanced(x.to(whole.mean.dtype) / 255, whole, window)
            return (y * 255).round().clamp(0, 255).to(torch.uint8)
        return self._enhanced(x, whole, window)

    def standard(self, x: Tensor) -> Tensor:
        return self._enhanced(x, self._decided(see(x)), None)

    def enhance_into(self, x: Tensor, out: Tensor, *, bgr: bool = False) -> Tensor:
        if not self._fused(x):
            return out.copy_(self(x.flip(1)).flip(1) if bgr else self(x))
        return self._in_one_pass(x, self.whole(x, bgr), None, out, bgr)

    def _enhanced(self, x: Tensor, whole: Whole, window: Window | None) -> Tensor:
        v = self.denoised(x, whole)
        light = (v * whole.mean / (1 - v)).clamp(0, 1)
        place, size = ((0, 0), None) if window is None else (window[:2], window[2:])
        y = reference.apply_grid_curve(light, whole.grid, luma(v), place=place, size=size, steps=STEPS)
        return y.to(x.dtype)

    def _fused(self, x: Tensor) -> bool:
        if standard_only() or torch.compiler.is_compiling() or self.training or x.dtype == torch.float64:
            return False
        # bytes and half precision are read as they are, and computed with in float32
        weights = [*self.parameters()]
        like = x if x.dtype == weights[0].dtype else x.new_empty(0, dtype=weights[0].dtype)
        return can_run_packed([like], weights, kernel.DTYPES) and self.as_built()

    def _in_one_pass(
        self, x: Tensor, whole: Whole, window: Window | None, out: Tensor | None = None, bgr: bool = False
    ) -> Tensor:
        parameters = dict(self.denoiser.named_parameters())
        packed = self._packing.get(
            list(parameters.values()), "denoiser", lambda: kernel.pack_dawn(parameters)
        )
        gains, biases = None, None
        if self.denoise:
            gains, split = self.denoiser.settings(whole.noise)
            gains, biases = gains.float(), torch.cat([part for level in split for part in level], 1).float()
        known = kernel.Known(whole.grid.float(), whole.mean.float(), gains, biases)
        place, size = ((0, 0), None) if window is None else (window[:2], window[2:])
        return kernel.enhance_dawn(
            x, packed, known, denoise=self.denoise, place=place, size=size, bgr=bgr, out=out
        )

    def whole(self, x: Tensor, bgr: bool = False) -> Whole:
        """What is to be known of whole pictures; float32 where they are bytes or in half precision."""
        if not self._fused(x) or x.shape[-2] < THUMB[0] or x.shape[-1] < THUMB[1]:
            return self._decided(see(x.flip(1) if bgr else x))
        # neither a float image nor a flipped one of the whole is made
        pixels = samples(x).float() / (255 if x.dtype == torch.uint8 else 1)
        parts = (kernel.thumbnail(x), pixels)
        return self._decided(measure(*(part.flip(1) if bgr else part for part in parts)))

    def _decided(self, seen: Seen) -> Whole:
        grid = self.brain(seen).to(seen.thumb.dtype)
        if self.exposure is not None:
            grid = _exposed(grid, seen.thumb, seen.mean, self.exposure)
        return Whole(grid, seen.mean, seen.noise)

    def denoised(self, x: Tensor, whole: Whole) -> Tensor:
        """`x` in v = x / (x + mean) without its noise; float32 where `x` is in half precision."""
        x = x.to(whole.mean.dtype)
        v = x / (x + whole.mean)
        if self.denoise == 0:
            return v
        for dim in (2, 3):
            # gathered: exporters cannot follow a padding whose width depends on the size
            side = v.shape[dim]
            places = torch.arange((side + MULTIPLE - 1) // MULTIPLE * MULTIPLE, device=v.device)
            v = v.index_select(dim, places.clamp(max=side - 1))
        clean = self.denoiser(v, whole.noise, self.denoise)
        for dim in (2, 3):
            clean = clean.index_select(dim, torch.arange(x.shape[dim], device=x.device))
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


__all__ = ["GRID", "HALO", "PLANES", "STEPS", "Dawn", "Whole"]
