"""A network that is shown every dark picture at one exposure."""

from typing import Any

import torch
from torch import Tensor

from fastllie.checks import check_level
from fastllie.defaults import LUMA
from fastllie.models.contract import Contract, Observed
from fastllie.models.luma import luma
from fastllie.models.network import Built, Network, standard_only
from fastllie.ops.exposure import DTYPES, READ, expose, light_of
from fastllie.ops.packing import can_run_packed

# of what the meter reads: a picture of nothing but black has no exposure
_LEAST = 1 / 4096
# of bytes that become floats at once
_ROWS = 256


def gain_of(x: Tensor, level: float) -> Tensor:
    """The gains `[B, 1, 1, 1]` that pictures `[B, 3, H, W]` in [0, 1], or bytes, are metered by: at least 1.

    The meter reads the root m of the mean square of the luma: squares of values are about light, of which a
    lamp in the night has much. By the gain the odds m / (1 - m) become those of `level`; pictures that read
    `level` and more stay as they are. float32 where `x` is of bytes or in half precision.
    """
    if _is_fused(x):
        light = light_of(x, LUMA).float().view(-1, 1, 1, 1)
    elif x.is_floating_point():
        light = _light(x)
    else:
        # in strips: all of a photograph in float32 is four times its bytes
        strips = [_light(strip.float() / 255) * strip.shape[2] for strip in x.split(_ROWS, 2)]
        light = torch.stack(strips).sum(0) / x.shape[2]
    # before the root, whose slope is infinite at 0
    read = light.clamp(min=_LEAST**2).sqrt()
    return (level / (1 - level) * (1 - read) / read).clamp(min=1)


def _is_fused(x: Tensor) -> bool:
    return not standard_only() and can_run_packed((x,), (), READ)


def _light(x: Tensor) -> Tensor:
    """The mean square of the luma, `[B, 1, 1, 1]`."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return luma(wide).square().mean((2, 3), keepdim=True)


def exposed(x: Tensor, gain: Tensor, keep_hue: bool = True, dtype: torch.dtype | None = None) -> Tensor:
    """`x` in [0, 1], or bytes, with its odds multiplied, or nearly so: a gain in the shadows, nothing clips.

    gain x / (1 + (gain - 1) (x + most) / 2), in `dtype`, by default that of `x`, where `most` is the largest
    of a pixel's colours. Without `keep_hue` x has the place of `most`: then each colour has a curve of its
    own, which bends hues, and noise in the dark is less colourful. Were `most` alone there, all colours had
    one gain.
    """
    dtype = x.dtype if dtype is None else dtype
    if dtype in DTYPES and gain.dtype == torch.float32 and not gain.requires_grad and _is_fused(x):
        return expose(x, gain, keep_hue=keep_hue, dtype=dtype)
    wide = x.to(gain.dtype) if x.is_floating_point() else x.to(gain.dtype) / 255
    between = (wide + wide.amax(1, keepdim=True)) / 2 if keep_hue else wide
    return (gain * wide / (1 + (gain - 1) * between)).to(dtype)


def metered(x: Tensor, level: float) -> Tensor:
    """Pictures `[B, 3, H, W]` in [0, 1] as a network behind a meter sees them, see `Metered`."""
    return exposed(x, gain_of(x, level))


def taught(x: Tensor, gain: Tensor) -> Tensor:
    """Pictures as a network sees them while it learns: behind `exposed` without `keep_hue`.

    Of networks that learned with `keep_hue`, where noise is more colourful, EnlightenGAN left more of it, and
    Zero-DCE++ and SCI shifted hues more.
    """
    return exposed(x, gain, keep_hue=False)


class Metered(Network):
    """A network behind an exposure meter: dark pictures come to it at one level, whatever their own.

    The network sees x' = g x / (1 + (g - 1) (x + m) / 2) in the place of x, with the largest colour m of each
    pixel and one g of at least 1 for a picture: the odds of the root of its luma's mean square would become
    those of `level` were it grey. What is left to the network is what it can see in a neighbourhood. Ours, of
    none of the papers.

    `forward` takes what the network's takes, but floats alone; tiles are exact where the network's are, once
    the whole has been observed.

    Args:
        network: The one that is shown the pictures; its weights should be of a training with this meter.
        level: The root of the luma's mean square, in (0, 1), that the meter aims at.

    Raises:
        TypeError, ValueError: a level that is no number in (0, 1).

    Attributes:
        network, meter: As given.
    """

    def __init__(self, network: Network, level: float):
        super().__init__()
        self.meter = check_level("meter", level)
        self.network = network
        self._built = Built.of(self, Metered, ("meter",))

    @property
    def contract(self) -> Contract:
        inner = self.network.contract
        # bytes become floats before they are metered
        return Contract(
            inner.halo,
            crops=inner.crops,
            cpu_tile=inner.cpu_tile,
            grid=inner.grid,
            observes=True,
            located=inner.located,
            aligned=inner.aligned,
            unexportable=inner.unexportable,
            least_side=inner.least_side,
        )

    def observe(self, x: Tensor) -> Observed:
        seen = self.network.observe(x) if self.network.contract.observes else Observed({})
        return seen._replace(keywords={**seen.keywords, "gain": gain_of(x, self.meter)})

    def forward(self, x: Tensor, gain: Tensor | None = None, **how: Any) -> Tensor:
        """Enhance whole pictures, or parts of what was observed: then with their `gain`, see `gain_of`."""
        gain = gain_of(x, self.meter) if gain is None else gain
        if x.is_floating_point():
            return self.network(exposed(x, gain), **how)
        y = self.network(exposed(x, gain, dtype=next(self.parameters()).dtype), **how)
        return (y * 255).round().clamp(0, 255).to(torch.uint8)

    def standard(self, x: Tensor) -> Tensor:
        return self.network.standard(metered(x, self.meter))

    def settle(self) -> None:
        super().settle()
        self.network.settle()
