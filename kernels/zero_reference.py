"""The zero-reference losses in Triton: whole patches a program, read in place, whatever the strides."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastllie.kernels.access import load
from fastllie.kernels.curve import load_map

PATCH = 16
# Patches of a program of the forward, side by side; pixels of a program of the backward, or cells of one that
# adds them up; the most such programs for an image
PATCHES = 2
BLOCK = 256
MOST_PIECES = 32


@triton.jit
def _at(strides, b, c, y, x):
    return b * strides[0] + c * strides[1] + y * strides[2] + x * strides[3]


@triton.jit
def _sum(values, mask):
    """Of all that the mask keeps; float64."""
    return tl.sum(tl.where(mask, values, 0.0).to(tl.float64))


@triton.jit
def _store_means(ptr, values, b, row, column, height, width, SIDE: tl.constexpr, PATCHES: tl.constexpr):
    """Means of the whole regions among 16 rows from `row` on, three channels each."""
    DOWN: tl.constexpr = 16 // SIDE
    ACROSS: tl.constexpr = 16 * PATCHES // SIDE
    regions = tl.sum(tl.sum(tl.reshape(values, (DOWN, SIDE, ACROSS, SIDE)), 3), 1)
    down, across = height // SIDE, width // SIDE
    r = row // SIDE + tl.arange(0, DOWN)[:, None]
    s = column // SIDE + tl.arange(0, ACROSS)[None, :]
    means = regions / (3 * SIDE * SIDE)
    tl.store(ptr + (b * down + r) * across + s, means, mask=(r < down) & (s < across))


@triton.jit
def zero_reference_forward_kernel(
    x_ptr, alpha_ptr, cells_ptr, patches_ptr, parts_ptr, x_strides, alpha_strides, height, width, down,
    across, steps, SHARED: tl.constexpr, TANH: tl.constexpr, PATCHES: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    b = program // (down * across)
    row, column = program // across % down * 16, program % across * (16 * PATCHES)
    y = row + tl.arange(0, 16)[:, None]
    x = column + tl.arange(0, 16 * PATCHES)[None, :]
    mask = (y < height) & (x < width)
    # at the border of the image an element is its own neighbour
    up, left = tl.maximum(y - 1, 0), tl.maximum(x - 1, 0)
    wide: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    grey = tl.zeros((16, 16 * PATCHES), wide)
    change = tl.zeros((16, 16 * PATCHES), wide)
    vertical = tl.zeros((16, 16 * PATCHES), wide)
    horizontal = tl.zeros((16, 16 * PATCHES), wide)
    for c in tl.static_range(3):
        given = load(x_ptr, _at(x_strides, b, c, y, x), mask)
        value = given
        here = _at(alpha_strides, b, c, y, x)
        above = _at(alpha_strides, b, c, up, x)
        before = _at(alpha_strides, b, c, y, left)
        # 64 bits: the last maps of a large image lie beyond 2^31 elements
        map_step = tl.full((), 3, tl.int64) * alpha_strides[1]
        if SHARED:
            a = load_map(alpha_ptr, here, mask, TANH)
            vertical_step = a - load_map(alpha_ptr, above, mask, TANH)
            horizontal_step = a - load_map(alpha_ptr, before, mask, TANH)
            vertical += vertical_step * vertical_step
            horizontal += horizontal_step * horizontal_step
            for _ in range(steps):
                value += a * (value - value * value)
        else:
            for k in range(steps):
                a = load_map(alpha_ptr, here + k * map_step, mask, TANH)
                vertical_step = a - load_map(alpha_ptr, above + k * map_step, mask, TANH)
                horizontal_step = a - load_map(alpha_ptr, before + k * map_step, mask, TANH)
                vertical += vertical_step * vertical_step
                horizontal += horizontal_step * horizontal_step
                value += a * (value - value * value)
        tl.store(parts_ptr + program * 5 + c, _sum(value, mask))
        grey += value
        change += value - given
    tl.store(parts_ptr + program * 5 + 3, _sum(vertical, mask))
    tl.store(parts_ptr + program * 5 + 4, _sum(horizontal, mask))
    _store_means(cells_ptr, change, b, row, column, height, width, 4, PATCHES)
    _store_means(patches_ptr, grey, b, row, column, height, width, 16, PATCHES)


@triton.jit
def _number(count):
    """A count that Triton may have made a constant, as float64."""
    return (tl.full((), 1, tl.int64) * count).to(tl.float64)


@triton.jit
def _step(ptr, at, middle, there, beside):
    """Twice how far a cell lies from its neighbour; beyond the border of the image, once from zero."""
    return tl.where(beside, 2 * (middle - load(ptr, at, there & beside)), middle)


@triton.jit
def zero_reference_sums_kernel(
    cells_ptr, patches_ptr, parts_ptr, sums_ptr, cells_down, cells_across, patches, units, pieces, level,
    level_rest, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of a piece of an image the sums of its parts, and what its cells and patches add to their losses."""
    program = tl.program_id(0).to(tl.int64)
    b, first = program // pieces, program % pieces * BLOCK + tl.arange(0, BLOCK)
    for k in tl.static_range(5):
        total = tl.zeros((BLOCK,), tl.float64)
        for start in range(0, units, pieces * BLOCK):
            i = start + first
            total += tl.load(parts_ptr + (b * units + i) * 5 + k, mask=i < units, other=0.0)
        tl.store(sums_ptr + program * 7 + k, tl.sum(total))
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, cells_down * cells_across, pieces * BLOCK):
        cell = start + first
        there = cell < cells_down * cells_across
        i, j = cell // cells_across, cell % cells_across
        at = b * cells_down * cells_across + cell
        middle = load(cells_ptr, at, there)
        # a step between two cells counts twice, one at the border once
        up = middle - load(cells_ptr, at - cells_across, there & (i > 0))
        left = middle - load(cells_ptr, at - 1, there & (j > 0))
        found = tl.where(i > 0, 2.0, 1.0) * up * up + tl.where(j > 0, 2.0, 1.0) * left * left
        found += tl.where(i == cells_down - 1, middle * middle, 0.0)
        found += tl.where(j == cells_across - 1, middle * middle, 0.0)
        total += tl.where(there, found, 0.0).to(tl.float64)
    tl.store(sums_ptr + program * 7 + 5, tl.sum(total))
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, patches, pieces * BLOCK):
        i = start + first
        grey = load(patches_ptr, b * patches + i, i < patches)
        apart = grey - (tl.full((1,), level, grey.dtype) + tl.full((1,), level_rest, grey.dtype))
        total += tl.where(i < patches, apart * apart, 0.0).to(tl.float64)
    tl.store(sums_ptr + program * 7 + 6, tl.sum(total))


@triton.jit
def _sum_of_pieces(sums_ptr, b, pieces, k: tl.constexpr, MOST_PIECES: tl.constexpr):
    piece = tl.arange(0, MOST_PIECES)
    return tl.sum(tl.load(sums_ptr + (b * pieces + piece) * 7 + k, mask=piece < pieces, other=0.0))


@triton.jit
def zero_reference_losses_kernel(
    sums_ptr, means_ptr, losses_ptr, batch, height, width, pieces, MOST_PIECES: tl.constexpr
):
    """The means of the channels, and the four losses."""
    pixels = _number(height) * _number(width)
    smoothness = tl.zeros((), tl.float64)
    spatial = tl.zeros((), tl.float64)
    colour = tl.zeros((), tl.float64)
    exposure = tl.zeros((), tl.float64)
    for image in range(batch):
        b = tl.full((), 1, tl.int64) * image
        red = _sum_of_pieces(sums_ptr, b, pieces, 0, MOST_PIECES) / pixels
        green = _sum_of_pieces(sums_ptr, b, pieces, 1, MOST_PIECES) / pixels
        blue = _sum_of_pieces(sums_ptr, b, pieces, 2, MOST_PIECES) / pixels
        tl.store(means_ptr + b * 3, red)
        tl.store(means_ptr + b * 3 + 1, green)
        tl.store(means_ptr + b * 3 + 2, blue)
        first, second, third = (red - green), (red - blue), (green - blue)
        first, second, third = first * first, second * second, third * third
        colour += tl.sqrt(first * first + second * second + third * third)
        vertical = _sum_of_pieces(sums_ptr, b, pieces, 3, MOST_PIECES)
        horizontal = _sum_of_pieces(sums_ptr, b, pieces, 4, MOST_PIECES)
        smoothness += vertical / (pixels - _number(width)) + horizontal / (pixels - _number(height))
        spatial += _sum_of_pieces(sums_ptr, b, pieces, 5, MOST_PIECES)
        exposure += _sum_of_pieces(sums_ptr, b, pieces, 6, MOST_PIECES)
    images = _number(batch)
    tl.store(losses_ptr, 2 * smoothness / images)
    tl.store(losses_ptr + 1, spatial / (images * _number(height // 4) * _number(width // 4)))
    tl.store(losses_ptr + 2, colour / images)
    tl.store(losses_ptr + 3, exposure / (images * _number(height // 16) * _number(width // 16)))


@triton.jit
def _colour_slope(means_ptr, b, c, like):
    """Half of what the colour loss of an image, times the number of images, grows by with a mean."""
    mean = tl.load(means_ptr + b * 3 + c)
    first = (mean - tl.load(means_ptr + b * 3 + (c + 1) % 3)).to(like)
    second = (mean - tl.load(means_ptr + b * 3 + (c + 2) % 3)).to(like)
    rest = second - first
    largest = tl.where(first * first > second * second, first, second)
    largest = tl.where(rest * rest > largest * largest, rest, largest)
    # as shares of the largest, of whose powers float32 may not be able to hold any
    by = tl.where(largest == 0, 1.0, largest)
    first, second, rest = first / by, second / by, rest / by
    fourth = first * first * first * first + second * second * second * second + rest * rest * rest * rest
    root = tl.sqrt(tl.where(largest == 0, 1.0, fourth))
    return largest * (first * first * first + second * second * second) / root


@triton.jit
def _variation(grad_ptr, batch, height, width, wide):
    """What the differences of neighbouring maps are multiplied by."""
    pixels = _number(height) * _number(width)
    share = 4 * tl.load(grad_ptr).to(tl.float64) / _number(batch)
    return (share / (pixels - _number(width))).to(wide), (share / (pixels - _number(height))).to(wide)


@triton.jit
def _slopes(
    cells_ptr, patches_ptr, means_ptr, grad_ptr, grad_stride, b, c, y, x, mask, batch, height, width, level,
    level_rest, wide,
):  # fmt: skip
    """The enhanced image's slopes by the losses of the means: by cells, which the given one loses; others."""
    images = _number(batch)
    cells_down, cells_across = height // 4, width // 4
    i, j = y // 4, x // 4
    whole = mask & (i < cells_down) & (j < cells_across)
    cell = (b * cells_down + i) * cells_across + j
    middle = load(cells_ptr, cell, whole)
    direct = _step(cells_ptr, cell - cells_across, middle, whole, i > 0)
    direct += _step(cells_ptr, cell + cells_across, middle, whole, i < cells_down - 1)
    direct += _step(cells_ptr, cell - 1, middle, whole, j > 0)
    direct += _step(cells_ptr, cell + 1, middle, whole, j < cells_across - 1)
    share = 2 / (images * _number(cells_down) * _number(cells_across) * 48)
    direct *= (share * tl.load(grad_ptr + grad_stride).to(tl.float64)).to(wide)
    patches_down, patches_across = height // 16, width // 16
    exposed = mask & (y // 16 < patches_down) & (x // 16 < patches_across)
    patch = load(patches_ptr, (b * patches_down + y // 16) * patches_across + x // 16, exposed)
    apart = patch - (tl.full((1,), level, wide) + tl.full((1,), level_rest, wide))
    share = 2 / (images * _number(patches_down) * _number(patches_across) * 768)
    share *= tl.load(grad_ptr + 3 * grad_stride).to(tl.float64)
    pixels = _number(height) * _number(width)
    colour = 2 / (images * pixels) * tl.load(grad_ptr + 2 * grad_stride).to(tl.float64)
    rest = tl.where(exposed, apart * share.to(wide), 0.0)
    rest += colour.to(wide) * _colour_slope(means_ptr, b, c, wide)
    return direct, rest


@triton.jit
def zero_reference_backward_kernel(
    x_ptr, alpha_ptr, cells_ptr, patches_ptr, means_ptr, grad_ptr, grad_x_ptr, grad_alpha_ptr, x_strides,
    alpha_strides, grad_stride, grad_x_strides, grad_alpha_strides, batch, height, width, blocks, level,
    level_rest,
    STEPS: tl.constexpr, SHARED: tl.constexpr, TANH: tl.constexpr, NEED_X: tl.constexpr,
    NEED_ALPHA: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr = 8,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    plane = program // blocks
    b, c = plane // 3, plane % 3
    p = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    mask = p < height * width
    y, x = p // width, p % width
    here = _at(alpha_strides, b, c, y, x)
    # at the border of the image an element is its own neighbour
    up = _at(alpha_strides, b, c, tl.maximum(y - 1, 0), x)
    down = _at(alpha_strides, b, c, tl.minimum(y + 1, height - 1), x)
    left = _at(alpha_strides, b, c, y, tl.maximum(x - 1, 0))
    right = _at(alpha_strides, b, c, y, tl.minimum(x + 1, width - 1))
    to = _at(grad_alpha_strides, b, c, y, x)
    # 64 bits, as in the forward
    map_step = tl.full((), 3, tl.int64) * alpha_strides[1]
    grad_map_step = tl.full((), 3, tl.int64) * grad_alpha_strides[1]
    image = load(x_ptr, _at(x_strides, b, c, y, x), mask)

    wide = image.dtype
    direct, rest = _slopes(
        cells_ptr, patches_ptr, means_ptr, grad_ptr, grad_stride, b, c, y, x, mask, batch, height, width,
        level, level_rest, wide,
    )  # fmt: skip
    grad = direct + rest
    vertical, horizontal = _variation(grad_ptr, batch, height, width, wide)
    shared = load_map(alpha_ptr, here, mask, TANH)
    grad_shared = tl.zeros_like(grad)
    # a chunk's states are recomputed into registers; the state before it from the image, at no memory
    for chunk in tl.static_range((STEPS + CHUNK - 1) // CHUNK - 1, -1, -1):
        state = image
        for k in range(chunk * CHUNK):
            a = shared
            if not SHARED:
                a = load_map(alpha_ptr, here + k * map_step, mask, TANH)
            state += a * (state - state * state)
        states = ()
        maps = ()
        for k in tl.static_range(chunk * CHUNK, chunk * CHUNK + CHUNK):
            if k < STEPS:
                a = shared
                if not SHARED:
                    a = load_map(alpha_ptr, here + k * map_step, mask, TANH)
                states = states + (state,)
                maps = maps + (a,)
                state += a * (state - state * state)
        for k in tl.static_range(chunk * CHUNK + CHUNK - 1, chunk * CHUNK - 1, -1):
            if k < STEPS:
                state = states[k - chunk * CHUNK]
                a = maps[k - chunk * CHUNK]
                grad_a = grad * (state - state * state)
                grad += grad * a * (1 - 2 * state)
                if SHARED:
                    grad_shared += grad_a
                elif NEED_ALPHA:
                    at = k * map_step
                    grad_a += vertical * (a - load_map(alpha_ptr, up + at, mask, TANH))
                    grad_a += vertical * (a - load_map(alpha_ptr, down + at, mask, TANH))
                    grad_a += horizontal * (a - load_map(alpha_ptr, left + at, mask, TANH))
                    grad_a += horizontal * (a - load_map(alpha_ptr, right + at, mask, TANH))
                    if TANH:
                        grad_a *= 1 - a * a
                    tl.store(grad_alpha_ptr + to + k * grad_map_step, grad_a, mask=mask)
    if NEED_X:
        tl.store(grad_x_ptr + _at(grad_x_strides, b, c, y, x), grad - direct, mask=mask)
    if SHARED and NEED_ALPHA:
        grad_shared += vertical * (shared - load_map(alpha_ptr, up, mask, TANH))
        grad_shared += vertical * (shared - load_map(alpha_ptr, down, mask, TANH))
        grad_shared += horizontal * (shared - load_map(alpha_ptr, left, mask, TANH))
        grad_shared += horizontal * (shared - load_map(alpha_ptr, right, mask, TANH))
        if TANH:
            grad_shared *= 1 - shared * shared
        tl.store(grad_alpha_ptr + to, grad_shared, mask=mask)


def _units(sizes: tuple[int, ...]) -> int:
    """Parts that the forward leaves of an image."""
    return triton.cdiv(sizes[2], PATCH) * triton.cdiv(sizes[3], PATCH * PATCHES)


def _pieces(sizes: tuple[int, ...]) -> int:
    """In how many the parts, cells and patches of an image are added up."""
    return min(triton.cdiv(sizes[2] // 4 * (sizes[3] // 4), 16 * BLOCK), MOST_PIECES)


def _split(level: float) -> tuple[float, float]:
    """Two parts: a number that is passed has the precision of float32."""
    first = float(torch.tensor(level, dtype=torch.float32))
    return first, level - first


def zero_reference_doubles(sizes: tuple[int, ...]) -> int:
    """Numbers of the forward's workspace."""
    return sizes[0] * (5 * _units(sizes) + 7 * _pieces(sizes))


def zero_reference_losses(
    x: Tensor, alpha: Tensor, losses: Tensor, cells: Tensor, patches: Tensor, means: Tensor,
    workspace: Tensor, sizes: tuple[int, ...], shared: bool, steps: int, tanh: bool, level: float,
) -> None:  # fmt: skip
    """Fill all but the inputs; arguments as of the native function, tensors for views."""
    batch, _, height, width = sizes
    down, across = triton.cdiv(height, PATCH), triton.cdiv(width, PATCH * PATCHES)
    units, pieces = _units(sizes), _pieces(sizes)
    parts, sums = workspace[: 5 * batch * units], workspace[5 * batch * units :]
    with torch.cuda.device_of(x):
        zero_reference_forward_kernel[(batch * units,)](
            x, alpha, cells, patches, parts, x.stride(), alpha.stride(), height, width, down, across, steps,
            SHARED=shared, TANH=tanh, PATCHES=PATCHES,
        )  # fmt: skip
        zero_reference_sums_kernel[(batch * pieces,)](
            cells, patches, parts, sums, height // 4, width // 4, (height // 16) * (width // 16), units,
            pieces, *_split(level), BLOCK=BLOCK,
        )  # fmt: skip
        zero_reference_losses_kernel[(1,)](
            sums, means, losses, batch, height, width, pieces, MOST_PIECES=MOST_PIECES
        )


def zero_reference_slopes(
    x: Tensor, alpha: Tensor, cells: Tensor, patches: Tensor, means: Tensor, grad: Tensor,
    grad_x: Tensor, grad_alpha: Tensor, sizes: tuple[int, ...], shared: bool, steps: int, tanh: bool,
    level: float, needs: tuple[bool, bool],
) -> None:  # fmt: skip
    """Fill the gradients that are needed; arguments as of the native function, tensors for views."""
    batch, _, height, width = sizes
    blocks = triton.cdiv(height * width, BLOCK)
    # a gradient that nobody needs is never touched: its strides are any
    outs = zip((grad_x, grad_alpha), (x, alpha), needs, strict=True)
    strides = [(out if needed else like).stride() for out, like, needed in outs]
    with torch.cuda.device_of(x):
        zero_reference_backward_kernel[(batch * 3 * blocks,)](
            x, alpha, cells, patches, means, grad, grad_x, grad_alpha, x.stride(), alpha.stride(),
            grad.stride(0), *strides, batch, height, width, blocks, *_split(level), STEPS=steps,
            SHARED=shared, TANH=tanh, NEED_X=needs[0], NEED_ALPHA=needs[1], BLOCK=BLOCK,
        )  # fmt: skip
