"""The curve with black levels, looked up in a bilateral grid at each pixel's place and guide, fused."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastllie.ops import backend as backends
from fastllie.ops import reference
from fastllie.ops.checks import check_images, check_one_device, check_tensor, is_int
from fastllie.ops.curve import check_steps
from fastllie.ops.direct import Operator
from fastllie.ops.gradient import Gradient, where_needed
from fastllie.ops.launch import kernels
from fastllie.ops.tensors import (
    differentiate_formula,
    empty_gradients,
    fill,
    gradients_to_fill,
    wide,
    wide_dtype,
)

PLANES = 6  # of a grid: alpha of three channels, then their black levels


def apply_grid_curve(
    x: Tensor,
    grid: Tensor,
    guide: Tensor,
    *,
    place: tuple[int, int] = (0, 0),
    size: tuple[int, int] | None = None,
    steps: int = 8,
    backend: str = "auto",
) -> Tensor:
    """Take black levels off and brighten by the quadratic curve, both looked up in a bilateral grid.

    Pixel (i, j) of a picture of `size` lies at the middle of its place in [0, 1]^2, as the cells of the grid
    do; its guide from 0 to 1 goes from the middle of the first luma to that of the last. Between the middles
    the six values alpha, black are linear, beyond the outer ones constant. Then for each channel

        y = clamp((x - black) / (1 - black), 0, 1),   `steps` times: y <- y + alpha * y * (1 - y).

    Differentiable in x, grid and guide, twice, in one pass each way; gradients pass through the clamps where
    these are idle, their bounds included. Sums over pixels have an order that depends on the sizes alone.
    Arithmetic is float32 (float64 where an argument is) whatever the storage. Images are read in place with
    any strides; the result has the memory format of `x`.

    Args:
        x: Images, `[B, 3, H, W]` in [0, 1]; float64, float32, bfloat16 or float16.
        grid: `[B, 6, lumas, rows, columns]`, of any of these dtypes: alpha of the three channels in [-1, 1],
            then black, below 1.
        guide: `[B, 1, H, W]` in [0, 1]. Where its dtype and that of `x` differ the promoted one counts.
        place: Row and column of the first pixel of `x` in its picture.
        size: Height and width of the picture; None where `x` is all of it.
        steps: How often the curve is applied.
        backend: "auto", or one of `fastllie.backends()`.

    Raises:
        TypeError: a tensor that is not one of floating-point numbers, `steps` that is not an integer.
        ValueError: shapes or devices that do not fit together, an image that reaches beyond its picture,
            fewer than one step, an unknown backend.
        RuntimeError: a backend asked for by name that cannot serve.
    """
    _check(x, grid, guide)
    height, width = x.shape[2:]
    whole = (height, width) if size is None else size
    for name, pair in (("place", place), ("size", whole)):
        if len(pair) != 2 or not all(is_int(number, 0) for number in pair):
            raise ValueError(f"{name} must be two integers >= 0, got {pair!r}")
    if place[0] + height > whole[0] or place[1] + width > whole[1]:
        raise ValueError(
            f"size must be that of a picture around {height} x {width} pixels at {tuple(place)},"
            f" got {tuple(whole)}"
        )
    check_steps(steps)
    backends.check_name(backend)
    dtype = torch.promote_types(x.dtype, guide.dtype)
    if grid.dtype == torch.float64:
        dtype = torch.float64
    return _grid_curve(x.to(dtype), grid, guide.to(dtype), place, whole, steps, backend)


def _check(x: Tensor, grid: Tensor, guide: Tensor) -> None:
    check_images(x=x, guide=guide)
    check_tensor("grid", grid)
    check_one_device(x=x, grid=grid, guide=guide)
    batch, channels, height, width = x.shape
    if channels != 3:
        raise ValueError(f"x must have 3 channels, got shape {tuple(x.shape)}")
    if (guide.shape[0], guide.shape[1], guide.shape[2], guide.shape[3]) != (batch, 1, height, width):
        raise ValueError(
            f"guide must be {(batch, 1, height, width)} for x of shape {tuple(x.shape)},"
            f" got {tuple(guide.shape)}"
        )
    if grid.dim() != 5 or (grid.shape[0], grid.shape[1]) != (batch, PLANES) or 0 in grid.shape[2:]:
        raise ValueError(
            f"grid must be [{batch}, {PLANES}, lumas, rows, columns] for x of shape {tuple(x.shape)},"
            f" got shape {tuple(grid.shape)}"
        )


def _forward(
    x: Tensor,
    grid: Tensor,
    guide: Tensor,
    place: Sequence[int],
    size: Sequence[int],
    steps: int,
    backend: str,
) -> Tensor:
    name = backends.choose(backend, x, "gridcurve_forward")
    out = torch.empty_like(x)
    if not out.numel():
        return out
    if name == "torch":
        return out.copy_(
            reference.apply_grid_curve(
                wide(x),
                grid.to(wide_dtype(x)),
                wide(guide),
                place=_pair(place),
                size=_pair(size),
                steps=steps,
            )
        )
    module, handles, threads_or_stream = kernels(name, "gridcurve", x)
    packed = _packed(grid, x)
    module.gridcurve_forward(
        *handles(x, packed, guide, out), *_sizes(x, grid, place, size), steps, *threads_or_stream
    )
    return out


def _backward(
    grad: Tensor, x: Tensor, grid: Tensor, guide: Tensor, place: Sequence[int], size: Sequence[int],
    steps: int, need_x: bool, need_grid: bool, need_guide: bool, backend: str,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    name = backends.choose(backend, x, "gridcurve_backward")
    needs = (need_x, need_grid, need_guide)
    outs = gradients_to_fill(name, (x, grid, guide), needs)
    grad_x, grad_grid, grad_guide = outs
    if not x.numel():
        if grad_grid is not None:
            grad_grid.zero_()
        return outs
    if name == "torch":
        tensors = (wide(grad), wide(x), grid.to(wide_dtype(x)), wide(guide))
        fill(outs, reference.grid_curve_backward(*tensors, _pair(place), _pair(size), steps), needs)
        return outs
    module, handles, threads_or_stream = kernels(name, "gridcurve", x)
    sizes = _sizes(x, grid, place, size)
    gaps = [max(cells - 1, 1) for cells in grid.shape[3:]]
    bands, tiles = module.gridcurve_parts(*sizes)
    # each part adds up its own pixels: the same sums in the same order, whoever works on them
    shape = (x.shape[0], gaps[0], bands, gaps[1], tiles, 2, 2, grid.shape[2], PLANES)
    parts = torch.empty(shape if need_grid else 0, dtype=torch.float64, device=x.device)
    packed = _packed(grid, x)
    module.gridcurve_backward(
        *handles(grad, x, packed, guide, grad_x, grad_guide, parts), *sizes, steps, needs, *threads_or_stream
    )
    if need_grid and grad_grid is not None:
        before, behind = parts.sum(4).sum(2).unbind(3)
        before, behind = _joined(before, behind, grid.shape[3], 1).unbind(3)
        grad_grid.copy_(_joined(before, behind, grid.shape[4], 2).permute(0, 4, 3, 1, 2))
    return outs


def _joined(before: Tensor, behind: Tensor, cells: int, dim: int) -> Tensor:
    """From sums of the cells before and behind each gap to those of all cells."""
    shape = list(before.shape)
    gaps, shape[dim] = shape[dim], cells
    out = before.new_zeros(shape)
    out.narrow(dim, 0, gaps).add_(before)
    if cells > 1:
        out.narrow(dim, 1, gaps).add_(behind)
    return out


def _packed(grid: Tensor, x: Tensor) -> Tensor:
    """`[B, rows, columns, lumas, 6]` in the type of the arithmetic: what a pixel looks up lies together."""
    return grid.permute(0, 3, 4, 2, 1).to(wide_dtype(x)).contiguous()


def _pair(numbers: Sequence[int]) -> tuple[int, int]:
    return numbers[0], numbers[1]


def _sizes(
    x: Tensor, grid: Tensor, place: Sequence[int], size: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, int], tuple[int, int]]:
    """What kernels get to know: the sizes of the image, cells of the grid, the picture around the image."""
    return x.shape, grid.shape[2:], _pair(place), _pair(size)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, grid, guide, *ctx.settings = inputs
    # the inputs only: recomputing the states costs less than storing one image a step
    ctx.save_for_backward(x, grid, guide)


def _differentiate(ctx, grad):  # type: ignore[no-untyped-def]
    *settings, backend = ctx.settings
    needs = ctx.needs_input_grad[:3]
    found = _gradient(grad, *ctx.saved_tensors, *settings, *needs, backend)
    return *where_needed(found, needs), *[None] * 4


def _save_twice(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, place, size, ctx.steps, need_x, need_grid, need_guide, _ = inputs
    ctx.place, ctx.size, ctx.needed = _pair(place), _pair(size), (need_x, need_grid, need_guide)
    ctx.save_for_backward(*tensors)


def _differentiate_twice(ctx, *cotangents):  # type: ignore[no-untyped-def]
    def formula(grad: Tensor, x: Tensor, grid: Tensor, guide: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return reference.grid_curve_backward(grad, x, grid.to(x.dtype), guide, ctx.place, ctx.size, ctx.steps)

    return *differentiate_formula(formula, ctx.saved_tensors, ctx.needed, cotangents), *[None] * 7


_library = torch.library.Library("fastllie", "FRAGMENT")
_grid_curve = Operator(
    _library,
    "gridcurve_forward(Tensor x, Tensor grid, Tensor guide, SymInt[2] place, SymInt[2] size, int steps,"
    " str backend) -> Tensor",
    _forward,
    lambda x, *rest: torch.empty_like(x),
    _differentiate,
    _save,
)
_gradient = Gradient(
    _library,
    "gridcurve_backward(Tensor grad, Tensor x, Tensor grid, Tensor guide, SymInt[2] place, SymInt[2] size,"
    " int steps, bool need_x, bool need_grid, bool need_guide, str backend) -> (Tensor, Tensor, Tensor)",
    _backward,
    lambda grad, x, grid, guide, place, size, steps, *needs: empty_gradients((x, grid, guide), needs[:3]),
    _differentiate_twice,
    _save_twice,
)
