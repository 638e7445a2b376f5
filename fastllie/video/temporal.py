"""Against noise: an average over time where nothing moves, before a network sees a frame."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie.defaults import LUMA
from fastllie.video.frame_filter import FrameFilter

CELL = 4  # pixels, along rows and columns, that are judged together
# Means over 3 x 3 cells of what has changed, in deviations of the noise: what is nearer has not moved, what
# is farther has, and between the two the average counts in part
STILL, MOVED = 3.0, 5.0
SAMPLES = 20_000  # places that the noise is estimated from
LEAST_NOISE = 0.25 / 255  # of pixels: a black or frozen frame has none
COARSE = 2.5  # times what white noise would have is the most that means of cells may deviate by


class TemporalFilter(FrameFilter):
    """Averages consecutive frames where nothing moves: call it with each frame, in order.

    Each pixel has an average a and the number n of frames in it; a frame x makes it a + (x - a) / n. What
    moves is seen by means over 12 x 12 pixels of x - a: where these are larger than noise makes them, n is
    one again, and the pixel is the frame's. How large that is, is the median over the frame, but no more than
    its finest detail allows, since all may move; that noise is nearly the same in all tones of sRGB. Still
    regions keep 1 / sqrt(2 / (1 - smooth) - 1) of theirs, a third at 0.8. The light has to be steady, so
    `Steady` goes before.

    Args:
        smooth: In [0, 1): 0 changes nothing, 0.8 averages over about five frames.

    Raises:
        TypeError, ValueError: another `smooth`.
    """

    def __init__(self, smooth: float):
        super().__init__(smooth)
        self._average: Tensor | None = None
        self._count = torch.zeros(())

    def _follow(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            before = self._average
            if before is None or before.shape != x.shape or before.device != x.device:
                self._average, self._count = x.clone(), x.new_ones(1, 1, *self._cells(x)[2:])
                return x
            change = x - before
            still = self._still(x, change)
            self._count = (self._count * still + 1).clamp(max=1 / (1 - self.smooth))
            share = F.interpolate(1 / self._count, scale_factor=CELL, mode="nearest")
            share = share[..., : x.shape[-2], : x.shape[-1]]
            self._average = before.addcmul(change, share.to(x.dtype))
            return self._average

    @staticmethod
    def _cells(x: Tensor) -> tuple[int, ...]:
        return (1, 1, -(-x.shape[-2] // CELL), -(-x.shape[-1] // CELL))

    def _still(self, x: Tensor, change: Tensor) -> Tensor:
        """How surely each cell has not moved, `[1, 1, H / 4, W / 4]` from 0 to 1."""
        means = F.avg_pool2d(_luma(change), CELL, ceil_mode=True)
        # noise moves a mean of nine cells by a third of what it moves each
        blurred = F.avg_pool2d(means, 3, 1, 1, count_include_pad=False) * 3
        most = _detail(x) * (2**0.5 * COARSE / CELL)
        deviation = torch.minimum(_deviation(means), most).clamp(min=LEAST_NOISE / CELL)
        moved = torch.maximum(means.abs() / 1.5, blurred.abs()) / deviation
        # what moves is larger than where it is seen to
        moved = F.max_pool2d(moved, 3, 1, 1)
        return ((MOVED - moved) / (MOVED - STILL)).clamp(0, 1)


def _luma(x: Tensor) -> Tensor:
    x = x.float()
    return x[:, :1] * LUMA[0] + x[:, 1:2] * LUMA[1] + x[:, 2:] * LUMA[2]


def _deviation(values: Tensor) -> Tensor:
    flat = values.flatten().abs()
    return flat[:: max(1, flat.numel() // SAMPLES)].median() * 1.4826


def _detail(x: Tensor) -> Tensor:
    """The deviation of diagonal Haar coefficients of 2 x 2 pixels: of white noise its own."""
    height, width = (side // 2 * 2 for side in x.shape[-2:])
    if not height or not width:
        return x.new_zeros((), dtype=torch.float32)
    step = 2 * max(1, int((height * width / (4 * SAMPLES)) ** 0.5))
    parts = (x[..., row:height:step, column:width:step] for row in (0, 1) for column in (0, 1))
    a, b, c, d = (_luma(part) for part in parts)
    return _deviation((a - b - c + d) / 2)
