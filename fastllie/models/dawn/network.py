"""`dawn`, our own: exposure by the whole picture, noise taken out before it is brightened."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fastllie.models.contract import Contract, Observed, Window
from fastllie.models.dawn.brain import PLACES, Brain, floats, noise_levels, see
from fastllie.models.dawn.denoiser import MULTIPLE, Denoiser
from fastllie.models.luma import luma
from fastllie.models.network import Built, Network, standard_only
from fastllie.ops import apply_grid_curve, dawn, reference
from fastllie.ops.launch import has_tiles
from fastllie.ops.packing import can_run_packed

STEPS = 8  # of the curve
HALO = 64  # pixels around an output pixel that its value depends on: 54, in whole cells
# A few hundred megabytes with all planes of the pyramid
TILE = 1024
_BISECTIONS = 12
_BRIGHTEST = 0.995  # v of the brightest pixel after denoising: v = 1 would be infinitely bright
_PACKED = (torch.float32, torch.bfloat16, torch.float16)


class Sight(NamedTuple):
    """What `Dawn.look` finds out about whole pictures; what `forward` takes besides their pixels.

    Attributes:
        grid: `[B, 6, 8, 8, 12]`, see `Brain`.
        mean: Of the luma, `[B, 1, 1, 1]`.
        noise: `[B, 6]`, see `fastllie.models.dawn.brain.noise_levels`.
    """

    grid: Tensor
    mean: Tensor
    noise: Tensor


class _Packed(NamedTuple):
    """The weights for the CPU's kernels."""

    denoiser: Tensor
    brain: Tensor


class Dawn(Network):
    """A brain that looks at the whole picture, a denoiser, and a grid of curves that brightens.

    `forward` takes images `[B, 3, H, W]`, any size, floats in [0, 1] or uint8 in 0..255, and returns the
    enhanced images, as large and of the same dtype.

    Tiles are exact once the whole has been looked at: with what `look` says of a picture, `forward` gives of
    a part of it what it gives of the whole there, if the part begins at multiples of 16 and brings 64 pixels
    more on each side where the picture has them.

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
        return Contract(
            HALO,
            one_pass=True,
            cpu_tile=TILE,
            observes=True,
            located=True,
            aligned=MULTIPLE,
            # a sixteenth of less would be one pixel, which exporters take for a constant
            least_side=MULTIPLE + 1,
        )

    def forward(
        self,
        x: Tensor,
        grid: Tensor | None = None,
        mean: Tensor | None = None,
        noise: Tensor | None = None,
        window: Window | None = None,
    ) -> Tensor:
        """Enhance whole pictures, or parts of what was looked at.

        Args:
            x: `[B, 3, H, W]`.
            grid, mean, noise: The `Sight` of the whole pictures; None where `x` is the whole.
            window: Where `x` lies in them; None where it is the whole.
        """
        sight = None
        if grid is not None and mean is not None and noise is not None:
            sight = Sight(grid, mean, noise)
        plain = standard_only()
        packed = None if plain else self._packed(x)
        if packed is None:
            curve = reference.apply_grid_curve if plain else apply_grid_curve
            return self._by_layers(x, sight, window, curve)
        return self._fused(x, packed, sight, window)

    def observe(self, x: Tensor) -> Observed:
        return Observed(self.look(x)._asdict())

    def look(self, x: Tensor, bgr: bool = False) -> Sight:
        """What is to be known of whole pictures; float32 where they are bytes or in half precision."""
        return self._look(x, bgr, None if standard_only() else self._packed(x))

    def _look(self, x: Tensor, bgr: bool, packed: _Packed | None) -> Sight:
        """By the CPU's kernels where there are weights for them."""
        fast = packed is not None
        # asked for last: an exporter takes a size that is compared with for a bound of all sizes
        large = fast and x.shape[-2] >= dawn.THUMB[0] and x.shape[-1] >= dawn.THUMB[1]
        thumb = dawn.thumbnail(x) if large else None
        seen = see(x, thumb, bgr, dawn.noise_levels if fast else noise_levels)
        if packed is None:
            grid = self.brain(seen).to(seen.thumb.dtype)
        else:
            grid = dawn.dawn_grid(*seen, packed.brain, PLACES)
        if self.exposure is not None:
            curve = apply_grid_curve if fast else reference.apply_grid_curve
            grid = _exposed(grid, seen.thumb, seen.mean, self.exposure, curve)
        return Sight(grid, seen.mean, seen.noise)

    def enhance_into(self, x: Tensor, out: Tensor, *, bgr: bool = False) -> Tensor:
        packed = self._packed(x)
        if packed is not None:
            return self._fused(x, packed, None, None, out, bgr)
        return out.copy_(self(x.flip(1)).flip(1) if bgr else self(x))

    def standard(self, x: Tensor) -> Tensor:
        return self._by_layers(x, None, None, reference.apply_grid_curve)

    def _by_layers(
        self, x: Tensor, sight: Sight | None, window: Window | None, curve: Callable[..., Tensor]
    ) -> Tensor:
        if x.dtype == torch.uint8:
            y = self._by_layers(floats(x), sight, window, curve)
            return (y * 255).round().clamp(0, 255).to(torch.uint8)
        if sight is None:
            sight = self._look(x, False, None)
        v = self.denoised(x, sight)
        light = (v * sight.mean / (1 - v)).clamp(0, 1)
        place, size = _placed(window)
        return curve(light, sight.grid, luma(v), place=place, size=size, steps=STEPS).to(x.dtype)

    def denoised(self, x: Tensor, sight: Sight) -> Tensor:
        """`x` in v = x / (x + mean) without its noise; float32 where `x` is in half precision."""
        x = x.to(sight.mean.dtype)
        v = x / (x + sight.mean)
        if self.denoise == 0:
            return v
        for dim in (2, 3):
            # gathered: exporters cannot follow a padding whose width depends on the size
            side = v.shape[dim]
            places = torch.arange((side + MULTIPLE - 1) // MULTIPLE * MULTIPLE, device=v.device)
            v = v.index_select(dim, places.clamp(max=side - 1))
        clean = self.denoiser(v, sight.noise, self.denoise)
        for dim in (2, 3):
            clean = clean.index_select(dim, torch.arange(x.shape[dim], device=x.device))
        return clean.clamp(0.0, _BRIGHTEST)

    def _packed(self, x: Tensor) -> _Packed | None:
        """The weights for the CPU's kernels; None where the network has to run layer by layer."""
        weights = list(self.parameters())
        # bytes go through the arithmetic of the weights
        images = weights[:1] if x.dtype == torch.uint8 and type(x) is Tensor else [x]
        if not can_run_packed(images, weights, _PACKED) or not self.as_built():
            return None
        tiles = weights[0].dtype == torch.bfloat16 and has_tiles()
        return self._packing.get(weights, tiles, lambda: self._pack(tiles))

    def _pack(self, tiles: bool) -> _Packed:
        denoiser, brain = self.denoiser.state_dict(), self.brain.state_dict()
        return _Packed(dawn.pack_dawn(denoiser, tiles), dawn.pack_brain(brain))

    def _fused(
        self,
        x: Tensor,
        packed: _Packed,
        sight: Sight | None,
        window: Window | None,
        out: Tensor | None = None,
        bgr: bool = False,
    ) -> Tensor:
        if sight is None:
            sight = self._look(x, bgr, packed)
        gains = biases = None
        if self.denoise:
            gains, levels = self.denoiser.settings(sight.noise)
            biases = torch.cat([bias for level in levels for bias in level], 1)
            gains, biases = (part.float().contiguous() for part in (gains, biases))
        grid, mean = (part.float().contiguous() for part in sight[:2])
        known = dawn.Known(grid, mean, gains, biases)
        place, size = _placed(window)
        return dawn.enhance_dawn(
            x, packed.denoiser, known, denoise=self.denoise, place=place, size=size, bgr=bgr, out=out
        )


def _placed(window: Window | None) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """The place of a part in its picture, and the picture's size."""
    if window is None:
        return (0, 0), None
    return (window.top, window.left), (window.height, window.width)


def _exposed(grid: Tensor, thumb: Tensor, mean: Tensor, level: float, curve: Callable[..., Tensor]) -> Tensor:
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
        y = curve(thumb, moved, guide, steps=STEPS)
        dark = luma(y).mean((2, 3), keepdim=True)[..., None] < level
        low, high = torch.where(dark, move, low), torch.where(dark, high, move)
    return torch.cat([_moved(alpha, (low + high) / 2), black], 1)


def _moved(alpha: Tensor, move: Tensor) -> Tensor:
    """tanh(atanh(alpha) + atanh(move))."""
    return (alpha + move) / (1 + alpha * move)
