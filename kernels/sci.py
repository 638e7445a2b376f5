"""SCI's network in Triton, in one kernel: a program keeps a tile and takes neighbours from it by tl.gather.

Each of the three layers loses a pixel around the tile, so of SIZE x SIZE pixels the inner (SIZE - 6)^2 are
kept: two thirds of the arithmetic at 32. The margin is read again by the neighbours, out of the cache.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastllie.kernels.access import clamp, load

SIZE = 32
HALO = 3


@triton.jit
def _neighbour(at, shift, begin, size, SIZE: tl.constexpr, REFLECT: tl.constexpr):
    """Where in the tile the row or column beside `at` is found, its mirror image outside the image."""
    beside = at + shift
    if REFLECT:
        # a size of one has no mirror image: the pixel itself
        beside = tl.where(beside < 0, tl.minimum(1, size - 1), beside)
        beside = tl.where(beside >= size, tl.maximum(size - 2, 0), beside)
    # at the rim of the tile nothing is kept that needs the neighbour
    return tl.minimum(tl.maximum(beside - begin, 0), SIZE - 1).to(tl.int32)


@triton.jit
def _convolve(f0, f1, f2, up, down, before, after, weights_ptr, biases_ptr, LAYER: tl.constexpr):
    sum0 = tl.zeros_like(f0) + tl.load(biases_ptr + 3 * LAYER)
    sum1 = tl.zeros_like(f0) + tl.load(biases_ptr + 3 * LAYER + 1)
    sum2 = tl.zeros_like(f0) + tl.load(biases_ptr + 3 * LAYER + 2)
    for c in tl.static_range(3):
        if c == 0:
            f = f0
        elif c == 1:
            f = f1
        else:
            f = f2
        for ky in tl.static_range(3):
            if ky == 0:
                row = tl.gather(f, up, 0)
            elif ky == 1:
                row = f
            else:
                row = tl.gather(f, down, 0)
            for kx in tl.static_range(3):
                if kx == 0:
                    value = tl.gather(row, before, 1)
                elif kx == 1:
                    value = row
                else:
                    value = tl.gather(row, after, 1)
                at = weights_ptr + 81 * LAYER + 9 * c + 3 * ky + kx
                sum0 += value * tl.load(at)
                sum1 += value * tl.load(at + 27)
                sum2 += value * tl.load(at + 54)
    return sum0, sum1, sum2


@triton.jit
def _relu(value, inside, REFLECT: tl.constexpr):
    """The layer's output; where the next one shall find zeros outside the image, zero there."""
    value = tl.where(value < 0, 0.0, value)
    if not REFLECT:
        value = tl.where(inside, value, 0.0)
    return value


@triton.jit
def _read(x_ptr, at, inside, BYTES: tl.constexpr):
    value = load(x_ptr, at, inside)
    if BYTES:
        value = value / 255.0
    return value


@triton.jit
def _write(out_ptr, at, x, raw, mask, BYTES: tl.constexpr):
    illum = clamp(1 / (1 + tl.exp(-raw)) + x, 1e-4, 1.0)
    out = clamp(x / illum, 0.0, 1.0)
    if BYTES:
        # adding 2^23 rounds to nearest, which a cast to an integer does not
        out = ((out * 255.0 + 8388608.0) - 8388608.0).to(tl.uint8)
    tl.store(out_ptr + at, out, mask=mask)


@triton.jit
def sci_forward_kernel(
    x_ptr, weights_ptr, biases_ptr, out_ptr, height, width, tiles_y, tiles_x,
    x_b, x_c, x_h, x_w, out_b, out_c, out_h, out_w,
    RESIDUAL: tl.constexpr, REFLECT: tl.constexpr, BYTES: tl.constexpr, SIZE: tl.constexpr,
    HALO: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    b = program // (tiles_y * tiles_x)
    top = (program // tiles_x) % tiles_y * (SIZE - 2 * HALO) - HALO
    left = program % tiles_x * (SIZE - 2 * HALO) - HALO
    i = tl.arange(0, SIZE)[:, None] + tl.zeros((SIZE, SIZE), tl.int32)
    j = tl.arange(0, SIZE)[None, :] + tl.zeros((SIZE, SIZE), tl.int32)
    h = top + i
    w = left + j
    inside = (h >= 0) & (h < height) & (w >= 0) & (w < width)
    up = _neighbour(h, -1, top, height, SIZE, REFLECT)
    down = _neighbour(h, 1, top, height, SIZE, REFLECT)
    before = _neighbour(w, -1, left, width, SIZE, REFLECT)
    after = _neighbour(w, 1, left, width, SIZE, REFLECT)

    at = b * x_b + h * x_h + w * x_w
    x0 = _read(x_ptr, at, inside, BYTES)
    x1 = _read(x_ptr, at + x_c, inside, BYTES)
    x2 = _read(x_ptr, at + 2 * x_c, inside, BYTES)
    f0, f1, f2 = _convolve(x0, x1, x2, up, down, before, after, weights_ptr, biases_ptr, 0)
    f0 = _relu(f0, inside, REFLECT)
    f1 = _relu(f1, inside, REFLECT)
    f2 = _relu(f2, inside, REFLECT)
    g0, g1, g2 = _convolve(f0, f1, f2, up, down, before, after, weights_ptr, biases_ptr, 1)
    g0 = _relu(g0, inside, REFLECT)
    g1 = _relu(g1, inside, REFLECT)
    g2 = _relu(g2, inside, REFLECT)
    if RESIDUAL:
        g0 += f0
        g1 += f1
        g2 += f2
    z0, z1, z2 = _convolve(g0, g1, g2, up, down, before, after, weights_ptr, biases_ptr, 2)

    kept = inside & (i >= HALO) & (i < SIZE - HALO) & (j >= HALO) & (j < SIZE - HALO)
    to = b * out_b + h * out_h + w * out_w
    _write(out_ptr, to, x0, z0, kept, BYTES)
    _write(out_ptr, to + out_c, x1, z1, kept, BYTES)
    _write(out_ptr, to + 2 * out_c, x2, z2, kept, BYTES)


def sci_forward(
    x: Tensor,
    weights: Tensor,
    biases: Tensor,
    out: Tensor,
    sizes: Sequence[int],
    residual: bool,
    reflect: bool,
) -> None:
    """Fill `out` with the enhanced `x`; shapes and meanings as for `fastllie.ops.enhance_sci`."""
    batch, _, height, width = sizes
    tiles_y, tiles_x = triton.cdiv(height, SIZE - 2 * HALO), triton.cdiv(width, SIZE - 2 * HALO)
    with torch.cuda.device_of(x):
        sci_forward_kernel[(batch * tiles_y * tiles_x,)](
            x, weights, biases, out, height, width, tiles_y, tiles_x, *x.stride(), *out.stride(),
            RESIDUAL=residual, REFLECT=reflect, BYTES=x.dtype == torch.uint8, SIZE=SIZE, HALO=HALO,
        )  # fmt: skip
