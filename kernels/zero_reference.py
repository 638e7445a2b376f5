"""The zero-reference losses in Triton: whole patches a program, read in place, whatever the strides."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastllie.kernels.access import load
from fastllie.kernels.curve import load_map

PATCH = 16
# Patches of a program of the forward, side by side; pixels of a program of the backward
PATCHES = 2
BLOCK = 256


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
def zero_reference_backward_kernel(
    x_ptr, alpha_ptr, slopes_ptr, channels_ptr, grad_ptr, grad_x_ptr, grad_alpha_ptr, x_strides,
    alpha_strides, grad_x_strides, grad_alpha_strides, batch, height, width, blocks,
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

    cells_down, cells_across = height // 4, width // 4
    whole = mask & (y // 4 < cells_down) & (x // 4 < cells_across)
    cell = (2 * b * cells_down + y // 4) * cells_across + x // 4
    grad = load(slopes_ptr, cell, whole) + tl.load(channels_ptr + b * 3 + c)
    share = 4 * tl.load(grad_ptr) / (tl.full((), 1, tl.int64) * batch).to(tl.float64)
    pixels = tl.full((), 1, tl.int64) * height * width
    vertical = (share / (pixels - width).to(tl.float64)).to(image.dtype)
    horizontal = (share / (pixels - height).to(tl.float64)).to(image.dtype)
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
        grad += load(slopes_ptr, cell + cells_down * cells_across, whole)
        tl.store(grad_x_ptr + _at(grad_x_strides, b, c, y, x), grad, mask=mask)
    if SHARED and NEED_ALPHA:
        grad_shared += vertical * (shared - load_map(alpha_ptr, up, mask, TANH))
        grad_shared += vertical * (shared - load_map(alpha_ptr, down, mask, TANH))
        grad_shared += horizontal * (shared - load_map(alpha_ptr, left, mask, TANH))
        grad_shared += horizontal * (shared - load_map(alpha_ptr, right, mask, TANH))
        if TANH:
            grad_shared *= 1 - shared * shared
        tl.store(grad_alpha_ptr + to, grad_shared, mask=mask)


def zero_reference_blocks(sizes: tuple[int, ...]) -> int:
    """Parts that the forward leaves to be added up, image after image."""
    return sizes[0] * triton.cdiv(sizes[2], PATCH) * triton.cdiv(sizes[3], PATCH * PATCHES)


def zero_reference_forward(
    x: Tensor, alpha: Tensor, cells: Tensor, patches: Tensor, parts: Tensor,
    sizes: tuple[int, ...], shared: bool, steps: int, tanh: bool,
) -> None:  # fmt: skip
    """Fill `cells`, `patches` and `parts`; arguments as of the native function, tensors for views."""
    _, _, height, width = sizes
    down, across = triton.cdiv(height, PATCH), triton.cdiv(width, PATCH * PATCHES)
    with torch.cuda.device_of(x):
        zero_reference_forward_kernel[(zero_reference_blocks(sizes),)](
            x, alpha, cells, patches, parts, x.stride(), alpha.stride(), height, width, down, across, steps,
            SHARED=shared, TANH=tanh, PATCHES=PATCHES,
        )  # fmt: skip


def zero_reference_backward(
    x: Tensor, alpha: Tensor, slopes: Tensor, channels: Tensor, grad: Tensor,
    grad_x: Tensor, grad_alpha: Tensor,
    sizes: tuple[int, ...], shared: bool, steps: int, tanh: bool, needs: tuple[bool, bool],
) -> None:  # fmt: skip
    """Fill the gradients that are needed; arguments as of the native function, tensors for views."""
    batch, _, height, width = sizes
    blocks = triton.cdiv(height * width, BLOCK)
    # a gradient that nobody needs is never touched: its strides are any
    outs = zip((grad_x, grad_alpha), (x, alpha), needs, strict=True)
    strides = [(out if needed else like).stride() for out, like, needed in outs]
    with torch.cuda.device_of(x):
        zero_reference_backward_kernel[(batch * 3 * blocks,)](
            x, alpha, slopes, channels, grad, grad_x, grad_alpha, x.stride(), alpha.stride(), *strides,
            batch, height, width, blocks, STEPS=steps, SHARED=shared, TANH=tanh, NEED_X=needs[0],
            NEED_ALPHA=needs[1], BLOCK=BLOCK,
        )  # fmt: skip
