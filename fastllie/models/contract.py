"""What a network declares of itself, so that nobody has to guess how to run it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """How a network sees an image that it reduces level by level.

    Attributes:
        multiple: Sides are completed to multiples of this; tiles have to lie on them.
        completed: Of a side: which pixel stands at each place of the completed side, int64. The image lies in
            the middle; of an odd number of further places one more comes after it.
        pixel_bytes: Memory that one pixel of a tile takes, in float32.
    """

    multiple: int
    completed: Callable[[int], Tensor]
    pixel_bytes: float


class Window(NamedTuple):
    """Where a piece lies in its image; `forward` of a located network is given it."""

    top: int  # of the piece's first pixel; negative where the piece brings pixels from outside
    left: int
    height: int  # of the whole image
    width: int


class Observed(NamedTuple):
    """What a network has seen of a whole batch: see `Contract.observes`."""

    #: for `forward`; tensors are `[B, ...]`, of which a piece is given those of its images
    keywords: dict[str, Any]
    #: as `Grid.pixel_bytes`, where this batch takes another amount
    pixel_bytes: float | None = None


@dataclass(frozen=True)
class Contract:
    """What a network needs and offers, with its weights and options.

    Attributes:
        halo: Pixels around an output pixel that its value depends on, beyond what is observed; None where
            that is the whole image.
        crops: Whether `forward` takes `cropped=True`: the image brings `halo` pixels on each side that the
            result lacks.
        one_pass: Whether inference is one pass over the whole image: fast and small without tiles. `forward`
            takes uint8 too, and `enhance_into(x, out, bgr=)` fills a given result.
        cpu_tile: The side of tiles that suits the network's own kernels on a CPU; None: that of any network.
        grid: For a network that completes images to whole cells; its tiles lie on them.
        observes: Whether `observe(x)` has to see a whole batch before its pieces run: floats in [0, 1], or
            bytes as they are. It returns `Observed`; `forward` of a whole batch observes for itself.
        located: Whether `forward` of an observed piece is also given its `window`.
        aligned: What the places of pieces have to be multiples of, for a network without a grid.
    unexportable: Why the exporters cannot follow it; empty where they can.
        least_side: The shortest side that an exported network takes.
    """

    halo: int | None
    crops: bool = False
    one_pass: bool = False
    cpu_tile: int | None = None
    grid: Grid | None = None
    observes: bool = False
    located: bool = False
    aligned: int = 1
    unexportable: str = ""
    # reflection has nothing to mirror at a side of one pixel
    least_side: int = 2

    @property
    def exportable(self) -> bool:
        return not self.unexportable
