"""Operators x shapes x dtypes: what the tests check and the benchmarks time."""

from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 8


@dataclass(frozen=True)
class Tolerance:
    """How far a backend may lie from the float64 reference; gradients relative to the largest of them."""

    value: float
    gradient: float


TOLERANCES = {
    torch.float64: Tolerance(1e-12, 1e-12),
    torch.float32: Tolerance(2e-6, 5e-6),
    # half a last place of the stored result, twice that in Triton's interpreter, which truncates to bfloat16
    torch.bfloat16: Tolerance(8e-3, 8e-3),
    torch.float16: Tolerance(1e-3, 1e-3),
}

# image and maps: each supported pair of storage types
DTYPES = [
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.float32, torch.bfloat16),
    (torch.float32, torch.float16),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
]

LAYOUTS = ("contiguous", "channels_last", "cropped", "mixed")

# batch, height, width
SHAPES = {"odd": (2, 5, 7), "row": (1, 1, 37), "column": (3, 19, 1), "pixel": (1, 1, 1), "wide": (1, 4, 160)}

# of losses on patches of 16x16 pixels: one patch, rows and columns beyond it, several strips each way
LOSS_SHAPES = {"patch": (1, 16, 16), "odd": (3, 19, 33), "wide": (1, 16, 210), "tall": (2, 131, 17)}
LOSS_SHAPES |= {"large": (1, 70, 274)}


@dataclass(frozen=True)
class CurveInputs:
    """Inputs of one call of the curve, and the gradient that comes back to it."""

    x: Tensor
    alpha: Tensor
    grad: Tensor


def curve_inputs(
    batch: int,
    height: int,
    width: int,
    *,
    steps: int = STEPS,
    shared: bool = False,
    dtypes: tuple[torch.dtype, torch.dtype] = (torch.float32, torch.float32),
    layout: str = "contiguous",
    device: str = "cpu",
    seed: int = 0,
) -> CurveInputs:
    """Random inputs, `x` in [0, 1] and |alpha| <= 0.5, laid out in memory as asked."""
    generator = torch.Generator().manual_seed(seed)

    def make(channels: int, low: float, high: float, dtype: torch.dtype, form: str) -> Tensor:
        values = torch.rand(batch, channels, *_around(height, width, form), generator=generator)
        return _lay_out(values * (high - low) + low, dtype, form, device)

    forms = (layout,) * 3 if layout != "mixed" else ("channels_last", "cropped", "contiguous")
    return CurveInputs(
        make(3, 0, 1, dtypes[0], forms[0]),
        make(3 if shared else 3 * steps, -0.5, 0.5, dtypes[1], forms[1]),
        make(3, -1, 1, dtypes[0], forms[2]),
    )


@dataclass(frozen=True)
class GridCurveInputs:
    """Inputs of one call of the curve in a bilateral grid, and the gradient that comes back to it."""

    x: Tensor
    grid: Tensor
    guide: Tensor
    grad: Tensor


def grid_curve_inputs(
    batch: int,
    height: int,
    width: int,
    cells: tuple[int, int, int] = (3, 2, 3),
    *,
    dtypes: tuple[torch.dtype, torch.dtype] = (torch.float32, torch.float32),
    layout: str = "contiguous",
    device: str = "cpu",
    seed: int = 0,
) -> GridCurveInputs:
    """Random inputs away from the bounds of the clamp, where rounding decides whether a gradient passes.

    `dtypes` are those of the images and of the grid; `cells` its lumas, rows and columns.
    """
    generator = torch.Generator().manual_seed(seed)

    def make(channels: int, low: float, high: float, form: str) -> Tensor:
        values = torch.rand(batch, channels, *_around(height, width, form), generator=generator)
        return _lay_out(values * (high - low) + low, dtypes[0], form, device)

    forms = (layout,) * 3 if layout != "mixed" else ("channels_last", "cropped", "contiguous")
    grid = torch.rand(batch, 6, *cells, generator=generator)
    grid[:, :3] -= 0.5
    grid[:, 3:] *= 0.1
    grid = grid.to(device, dtypes[1])
    if layout != "contiguous":
        grid = grid.transpose(1, 4).contiguous().transpose(1, 4)
    return GridCurveInputs(
        make(3, 0.2, 0.9, forms[0]), grid, make(1, 0, 1, forms[1]), make(3, -1, 1, forms[2])
    )


def images(
    ranges: list[tuple[float, float]],
    batch: int,
    height: int,
    width: int,
    *,
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    device: str = "cpu",
    seed: int = 0,
) -> list[Tensor]:
    """Random images `[B, 3, H, W]`, one for each range of values, laid out in memory as asked."""
    generator = torch.Generator().manual_seed(seed)
    forms = [layout if layout != "mixed" else LAYOUTS[i % 3] for i in range(len(ranges))]
    return [
        _lay_out(
            torch.rand(batch, 3, *_around(height, width, form), generator=generator) * (high - low) + low,
            dtype,
            form,
            device,
        )
        for (low, high), form in zip(ranges, forms, strict=True)
    ]


_MARGIN = 3


def _around(height: int, width: int, form: str) -> tuple[int, int]:
    margin = 2 * _MARGIN if form == "cropped" else 0
    return height + margin, width + margin


def _lay_out(values: Tensor, dtype: torch.dtype, form: str, device: str) -> Tensor:
    values = values.to(device, dtype)
    if form == "cropped":
        return values[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    if form == "channels_last":
        return values.contiguous(memory_format=torch.channels_last)
    return values
