"""What filters of consecutive frames have in common."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from fastllie.checks import is_number
from fastllie.images.batches import from_batch, to_batch


class FrameFilter(ABC):
    """Changes frames by those before them: call it with each frame, in order.

    Args:
        smooth: In [0, 1): 0 changes nothing, 0.8 averages over about five frames.

    Raises:
        TypeError, ValueError: another `smooth`.
    """

    def __init__(self, smooth: float):
        if not is_number(smooth):
            raise TypeError(f"smooth must be a number, got {type(smooth).__name__}")
        if not 0 <= smooth < 1:
            raise ValueError(f"smooth must lie in [0, 1), got {smooth}")
        self.smooth = float(smooth)

    def __call__(self, image: Any) -> Any:
        """The filtered frame; of any kind that `fastllie.enhance` takes, and of the same kind.

        Bytes are rounded to bytes; floats lose nothing.
        """
        x, source = to_batch(image)
        return from_batch(self.follow(x), source)

    def follow(self, x: Tensor) -> Tensor:
        """The same for a float batch of one frame, `[1, 3, H, W]` in [0, 1].

        Raises:
            ValueError: not one frame.
        """
        if x.dim() != 4 or x.shape[:2] != (1, 3):
            raise ValueError(f"wanted one frame, (1,3,H,W), got shape {tuple(x.shape)}")
        return x if self.smooth == 0 else self._follow(x)

    @abstractmethod
    def _follow(self, x: Tensor) -> Tensor:
        """`follow` where something is to be changed."""
