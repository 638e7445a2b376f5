"""Against flicker: the exposure of a video's frames, steadied over time before a network sees them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie.ops.curve import apply_curve
from fastllie.video.frame_filter import FrameFilter

# Enough pixels to tell the exposure of a frame of any size, and too few to cost anything
SAMPLES = 160 * 90
CELLS = (12, 16)
# Cells outside hold nothing but clipped values, whose changes say nothing about the light
DARKEST, BRIGHTEST = 2 / 255, 1 - 2 / 255
# A stronger correction is no flicker's: a lamp that is switched on is followed at once beyond this
STRONGEST = 0.4
# Half of the cells moved apart by this much: another scene. Pans and moving objects stay below 0.3
CUT = 0.5


class Steady(FrameFilter):
    """Holds the exposure of consecutive frames together: call it with each frame, in order.

    The light of a scene flickers as a whole, by a factor for each channel, and things move in a part of it.
    So the change between two frames is the median over a grid of cells of the change of logit(cell mean),
    which what moves does not reach. With the sum e of these changes and its exponential moving average
    m <- smooth m + (1 - smooth) e, each frame gets x + b x (1 - x), b = exp(m - e) - 1: a gain of exp(m - e)
    where it is dark, and white stays white. One number a channel and frame: nothing can leave a trail. At a
    cut, where the cells' changes have nothing in common, the average begins anew.

    Networks are deterministic, so steady frames give steady maps. Averaging the maps themselves doubles the
    flicker (benchmarks/results/flicker.json): they answer to a darker frame by brightening more, and averaged
    the answer comes in the wrong frame.

    Args:
        smooth: In [0, 1): 0 changes nothing, 0.8 averages over about five frames.

    Attributes:
        cuts: How many times the average began anew.
    """

    def __init__(self, smooth: float):
        super().__init__(smooth)
        self.cuts = 0
        self._before: Tensor | None = None
        self._shift = torch.zeros(3)

    def _follow(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            shift = self._gain(x)
            beta = torch.expm1(shift).to(x).view(1, 3, 1, 1)
            return apply_curve(x, beta.expand_as(x), steps=1)

    def _gain(self, x: Tensor) -> Tensor:
        """The logarithm of the gain of each channel for this frame, `[3]`."""
        step = max(1, math.isqrt(x.shape[-2] * x.shape[-1] // SAMPLES))
        sample = x[0, :, ::step, ::step].float()
        size = (min(CELLS[0], sample.shape[-2]), min(CELLS[1], sample.shape[-1]))
        cells = F.adaptive_avg_pool2d(sample, size).flatten(1).cpu()
        now = torch.where((cells > DARKEST) & (cells < BRIGHTEST), torch.logit(cells, 1e-4), math.nan)
        before, self._before = self._before, now
        if before is None:
            return self._shift
        if before.shape != now.shape:
            return self._begin()
        changes = now - before
        # zero where a channel holds no cell in both frames that tells
        change = changes.nanmedian(1).values.nan_to_num(0.0)
        apart = (changes - change[:, None]).abs().flatten().nanmedian()
        if apart > CUT:
            return self._begin()
        self._shift = (self.smooth * (self._shift - change)).clamp(-STRONGEST, STRONGEST)
        return self._shift

    def _begin(self) -> Tensor:
        self.cuts += 1
        self._shift = torch.zeros(3)
        return self._shift
