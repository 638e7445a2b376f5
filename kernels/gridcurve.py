"""The curve in a bilateral grid in Triton: the pixels between the middles of four cells, band after band."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastllie.kernels.access import clamp, load

# Rows and columns of a program
ROWS, COLUMNS = 16, 64


@triton.jit
def _long(number):
    return tl.full((), 0, tl.int64) + number


@triton.jit
def _begin(gap, gaps, place, size, whole, cells):
    """The first pixel, of `size` from `place` on, in a gap or behind it."""
    first = ((2 * gap + 1) * whole + cells - 1) // (2 * cells) - place
    first = tl.minimum(tl.maximum(first, 0), size)
    return tl.where(gap <= 0, 0, tl.where(gap >= gaps, size, first))


@triton.jit
def _share(pixels, gap, whole, cells, wide: tl.constexpr):
    """Which share pixels have of the cells behind a gap, in whole numbers until the last moment."""
    from_middle = tl.minimum(tl.maximum((2 * pixels + 1) * cells - (2 * gap + 1) * whole, 0), 2 * whole)
    share = (from_middle.to(tl.float64) / (2 * whole).to(tl.float64)).to(wide)
    return tl.where(cells == 1, 0.0, share)


@triton.jit
def _value(grid_ptr, at, before, behind, left, right, down, across):
    """One value at each pixel, from the four cells around and the shares of the later ones."""
    upper_left, upper_right = tl.load(grid_ptr + before + left + at), tl.load(grid_ptr + before + right + at)
    lower_left, lower_right = tl.load(grid_ptr + behind + left + at), tl.load(grid_ptr + behind + right + at)
    upper = upper_left + across * (upper_right - upper_left)
    lower = lower_left + across * (lower_right - lower_left)
    return upper + down * (lower - upper)


@triton.jit
def _weight(place, luma):
    """Of a luma at each pixel; comparisons keep a NaN."""
    weight = 1 - tl.abs(place - luma)
    return tl.where(weight < 0, 0.0, weight)


@triton.jit
def _store_sums(ptr, column, values, down, across):
    """Sums over a program's pixels for the four cells around, `column` apart."""
    lower = tl.sum(values * down, 0, keep_dims=True)
    upper = tl.sum(values, 0, keep_dims=True) - lower
    lower_right, upper_right = tl.sum(lower * across), tl.sum(upper * across)
    tl.store(ptr, (tl.sum(upper) - upper_right).to(tl.float64))
    tl.store(ptr + column, upper_right.to(tl.float64))
    tl.store(ptr + 2 * column, (tl.sum(lower) - lower_right).to(tl.float64))
    tl.store(ptr + 3 * column, lower_right.to(tl.float64))


@triton.jit
def _at(strides, b, c, y, x):
    return b * strides[0] + c * strides[1] + y * strides[2] + x * strides[3]


@triton.jit
def _curve_backward(x, alpha, black, grad, STEPS: tl.constexpr, CHUNK: tl.constexpr):
    """Gradients of x, alpha and black from that of the result."""
    quotient = (x - black) / (1 - black)
    start = clamp(quotient, 0.0, 1.0)
    grad_alpha = tl.zeros_like(grad)
    # a chunk's states are recomputed into registers; the state before it from its start, at no memory
    for chunk in tl.static_range((STEPS + CHUNK - 1) // CHUNK - 1, -1, -1):
        state = start
        for _ in range(chunk * CHUNK):
            state += alpha * (state - state * state)
        states = ()
        for k in tl.static_range(chunk * CHUNK, chunk * CHUNK + CHUNK):
            if k < STEPS:
                states = states + (state,)
                state += alpha * (state - state * state)
        for k in tl.static_range(chunk * CHUNK + CHUNK - 1, chunk * CHUNK - 1, -1):
            if k < STEPS:
                state = states[k - chunk * CHUNK]
                grad_alpha += grad * (state - state * state)
                grad += grad * alpha * (1 - 2 * state)
    grad_x = tl.where((quotient >= 0) & (quotient <= 1), grad / (1 - black), 0.0)
    return grad_x, grad_alpha, grad_x * (quotient - 1)


@triton.jit
def gridcurve_kernel(
    grad_ptr, x_ptr, grid_ptr, guide_ptr, out_ptr, grad_guide_ptr, parts_ptr, grad_strides, x_strides,
    guide_strides, out_strides, grad_guide_strides, height, width, lumas, rows, columns, top, left, whole_h,
    whole_w, bands, tiles, BACKWARD: tl.constexpr, STEPS: tl.constexpr, NEED_X: tl.constexpr,
    NEED_GRID: tl.constexpr, NEED_GUIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr = 8,
):  # fmt: skip
    wide: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    program = tl.program_id(0).to(tl.int64)
    # 64 bits, and no constants where they are 1
    lumas, rows, columns = _long(lumas), _long(rows), _long(columns)
    top, left, whole_h, whole_w = _long(top), _long(left), _long(whole_h), _long(whole_w)
    row_gaps, column_gaps = tl.maximum(rows - 1, 1), tl.maximum(columns - 1, 1)
    tile = program % tiles
    column_gap = program // tiles % column_gaps
    band = program // (tiles * column_gaps) % bands
    row_gap = program // (tiles * column_gaps * bands) % row_gaps
    b = program // (tiles * column_gaps * bands * row_gaps)

    first = _begin(row_gap, row_gaps, top, height, whole_h, rows) + band * ROWS
    y = first + tl.arange(0, ROWS)[:, None]
    down = _share(top + y, row_gap, whole_h, rows, wide)
    there = y < _begin(row_gap + 1, row_gaps, top, height, whole_h, rows)
    first = _begin(column_gap, column_gaps, left, width, whole_w, columns) + tile * COLUMNS
    x = first + tl.arange(0, COLUMNS)[None, :]
    across = _share(left + x, column_gap, whole_w, columns, wide)
    mask = there & (x < _begin(column_gap + 1, column_gaps, left, width, whole_w, columns))

    # where the four cells lie; a single row or column is its own neighbour
    before = (b * rows + row_gap) * columns * lumas * 6
    behind = before + (tl.minimum(rows, 2) - 1) * columns * lumas * 6
    left_cell = column_gap * lumas * 6
    right_cell = left_cell + (tl.minimum(columns, 2) - 1) * lumas * 6

    guide = load(guide_ptr, _at(guide_strides, b, 0, y, x), mask)
    place = clamp(guide, 0.0, 1.0) * (lumas - 1)
    below = tl.minimum(tl.floor(place), tl.maximum(lumas - 2, 0).to(wide))
    grad_guide = tl.zeros((ROWS, COLUMNS), wide)
    for c in tl.static_range(3):
        alpha = tl.zeros((ROWS, COLUMNS), wide)
        black = tl.zeros((ROWS, COLUMNS), wide)
        alpha_slope = tl.zeros((ROWS, COLUMNS), wide)
        black_slope = tl.zeros((ROWS, COLUMNS), wide)
        for luma in range(lumas):
            at = luma * 6 + c
            alpha_here = _value(grid_ptr, at, before, behind, left_cell, right_cell, down, across)
            black_here = _value(grid_ptr, at + 3, before, behind, left_cell, right_cell, down, across)
            weight = _weight(place, luma)
            alpha += weight * alpha_here
            black += weight * black_here
            if BACKWARD:
                slope = (below == luma - 1).to(wide) - (below == luma).to(wide)
                alpha_slope += slope * alpha_here
                black_slope += slope * black_here
        value = load(x_ptr, _at(x_strides, b, c, y, x), mask)
        if BACKWARD:
            grad = load(grad_ptr, _at(grad_strides, b, c, y, x), mask)
            grad_x, grad_alpha, grad_black = _curve_backward(value, alpha, black, grad, STEPS, CHUNK)
            grad_guide += grad_alpha * alpha_slope + grad_black * black_slope
            if NEED_X:
                tl.store(out_ptr + _at(out_strides, b, c, y, x), grad_x, mask=mask)
            if NEED_GRID:
                grad_alpha = tl.where(mask, grad_alpha, 0.0)
                grad_black = tl.where(mask, grad_black, 0.0)
                for luma in range(lumas):
                    to = parts_ptr + program * (4 * lumas * 6) + luma * 6 + c
                    weight = _weight(place, luma)
                    _store_sums(to, lumas * 6, weight * grad_alpha, down, across)
                    _store_sums(to + 3, lumas * 6, weight * grad_black, down, across)
        else:
            value = clamp((value - black) / (1 - black), 0.0, 1.0)
            for _ in range(STEPS):
                value += alpha * (value - value * value)
            tl.store(out_ptr + _at(out_strides, b, c, y, x), value, mask=mask)
    if BACKWARD and NEED_GUIDE:
        grad_guide = tl.where((guide >= 0) & (guide <= 1), grad_guide * (lumas - 1), 0.0)
        tl.store(grad_guide_ptr + _at(grad_guide_strides, b, 0, y, x), grad_guide, mask=mask)


Sizes = tuple[int, ...]


def gridcurve_parts(sizes: Sizes, cells: Sizes, place: Sizes, whole: Sizes) -> tuple[int, int]:
    """In how many bands and tiles the pixels between the middles of four cells are summed up."""

    def most(length: int, axis: int) -> int:
        # a gap has the pixels of one cell, the first and the last one half a cell more
        gap = whole[axis] if cells[1 + axis] < 3 else -(-3 * whole[axis] // (2 * cells[1 + axis])) + 1
        return triton.cdiv(min(sizes[2 + axis], gap), length)

    return most(ROWS, 0), most(COLUMNS, 1)


def _launch(
    tensors: Sequence[Tensor], sizes: Sizes, cells: Sizes, place: Sizes, whole: Sizes, **constants: bool | int
) -> None:
    grad, x, _, guide, out, grad_guide, _ = tensors
    bands, tiles = gridcurve_parts(sizes, cells, place, whole)
    programs = sizes[0] * max(cells[1] - 1, 1) * bands * max(cells[2] - 1, 1) * tiles
    # a gradient that nobody needs is never touched: its strides are any
    strides = [(t if t.dim() == 4 else x).stride() for t in (grad, x, guide, out, grad_guide)]
    with torch.cuda.device_of(x):
        gridcurve_kernel[(programs,)](
            *tensors, *strides, *sizes[2:], *cells, *place, *whole, bands, tiles, **constants, ROWS=ROWS,
            COLUMNS=COLUMNS,
        )  # fmt: skip


def gridcurve_forward(
    x: Tensor, grid: Tensor, guide: Tensor, out: Tensor, sizes: Sizes, cells: Sizes, place: Sizes,
    whole: Sizes, steps: int,
) -> None:  # fmt: skip
    """Fill `out`; arguments as of the native function, tensors for views."""
    # no gradients: in their places stand tensors that are never touched
    _launch(
        (x, x, grid, guide, out, guide, grid), sizes, cells, place, whole, BACKWARD=False, STEPS=steps,
        NEED_X=False, NEED_GRID=False, NEED_GUIDE=False,
    )  # fmt: skip


def gridcurve_backward(
    grad: Tensor, x: Tensor, grid: Tensor, guide: Tensor, grad_x: Tensor, grad_guide: Tensor, parts: Tensor,
    sizes: Sizes, cells: Sizes, place: Sizes, whole: Sizes, steps: int, needs: tuple[bool, bool, bool],
) -> None:  # fmt: skip
    """Fill the gradients that are needed; arguments as of the native function, tensors for views."""
    _launch(
        (grad, x, grid, guide, grad_x, grad_guide, parts), sizes, cells, place, whole, BACKWARD=True,
        STEPS=steps, NEED_X=needs[0], NEED_GRID=needs[1], NEED_GUIDE=needs[2],
    )  # fmt: skip
