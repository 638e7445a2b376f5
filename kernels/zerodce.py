"""Zero-DCE's network in Triton, for tensor cores: a kernel a layer, the curve in the last one's.

A layer is a matrix product: of 128 pixels, each with what its 3x3 neighbours hold, and the weights. Features
are stored pixel by pixel, 32 channels side by side, in the dtype of the image; sums are float32. Layer l is
computed 7 - l pixels beyond the image where that goes on with its nearest pixel, and else on the image alone:
that is its `margin`. Rows and columns are counted from the image's first pixel, so those of a margin are
negative.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastllie.kernels.curve import _tanh

FEATURES = 32
HALO = 7
# Pixels of a program, in rows and columns: two products of 64 rows on a Hopper's warp group
BLOCK_H, BLOCK_W = 8, 16
WARPS, STAGES = 4, 3
# Rows of the packed matrix where each layer begins: 32 of the first, 9 x 32 of each source of the others
FIRST_ROWS = (0, 32, 320, 608, 896, 1472, 2048)
# The features that a layer reads: the skip, if it has one, before the layer that precedes it
SOURCES = {2: (1,), 3: (2,), 4: (3,), 5: (3, 4), 6: (2, 5), 7: (1, 6)}


@triton.jit
def _patch(margin, tiles_y, tiles_x, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr):
    """Image, first row and column of this program, and of each of its pixels the place within them."""
    program = tl.program_id(0).to(tl.int64)
    b = program // (tiles_y * tiles_x)
    top = program // tiles_x % tiles_y * BLOCK_H - margin
    left = program % tiles_x * BLOCK_W - margin
    pixel = tl.arange(0, BLOCK_H * BLOCK_W)
    return b, top, left, pixel // BLOCK_W, pixel % BLOCK_W


@triton.jit
def _add_source(
    sums, from_ptr, weights_ptr, b, top, left, i, j, height, width, margin,
    FEATURES: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Add the product of one source's features, zero beyond its margin, with its nine matrices."""
    rows = height + 2 * margin
    columns = width + 2 * margin
    first_row = top + margin
    first_column = left + margin
    row = first_row.to(tl.int32) + i
    column = first_column.to(tl.int32) + j
    # 64 bits once a program: of an image of 2^26 pixels the features have more than 2^31 elements
    start = from_ptr + ((b * rows + first_row) * columns + first_column) * FEATURES
    k = tl.arange(0, FEATURES)
    within = (i * columns + j)[:, None] * FEATURES + k[None, :]
    square = k[:, None] * FEATURES + k[None, :]
    for tap in tl.range(9, num_stages=STAGES):
        down = tap // 3 - 1
        right = tap % 3 - 1
        inside = (row + down >= 0) & (row + down < rows) & (column + right >= 0) & (column + right < columns)
        f = tl.load(start + (down * columns + right) * FEATURES + within, mask=inside[:, None], other=0.0)
        w = tl.load(weights_ptr + tap * FEATURES * FEATURES + square)
        sums = tl.dot(f, w, sums)
    return sums


@triton.jit
def _store_features(to_ptr, sums, b, top, left, i, j, height, width, margin, FEATURES: tl.constexpr):
    rows = height + 2 * margin
    columns = width + 2 * margin
    first_row = top + margin
    first_column = left + margin
    inside = (first_row + i < rows) & (first_column + j < columns)
    start = to_ptr + ((b * rows + first_row) * columns + first_column) * FEATURES
    within = (i * columns + j)[:, None] * FEATURES + tl.arange(0, FEATURES)[None, :]
    sums = tl.where(sums < 0, 0.0, sums)
    tl.store(start + within, sums.to(to_ptr.dtype.element_ty), mask=inside[:, None])


@triton.jit
def zerodce_first_kernel(
    x_ptr, weights_ptr, biases_ptr, to_ptr, height, width, margin, around, tiles_y, tiles_x,
    x_b, x_c, x_h, x_w,
    ZEROS: tl.constexpr, FEATURES: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    b, top, left, i, j = _patch(margin, tiles_y, tiles_x, BLOCK_H, BLOCK_W)
    # 27 of the 32: row, column and channel of the neighbour
    k = tl.arange(0, FEATURES)
    h = (top + i)[:, None] + (k // 9 - 1)[None, :]
    w = (left + j)[:, None] + (k // 3 % 3 - 1)[None, :]
    mask = (k < 27)[None, :]
    if ZEROS:
        mask = mask & (h >= 0) & (h < height) & (w >= 0) & (w < width)
    else:
        h = tl.minimum(tl.maximum(h, -around), height - 1 + around)
        w = tl.minimum(tl.maximum(w, -around), width - 1 + around)
    at = b * x_b + h * x_h + w * x_w + (k % 3)[None, :] * x_c
    values = tl.load(x_ptr + at, mask=mask, other=0.0)
    weights = tl.load(weights_ptr + k[:, None] * FEATURES + k[None, :])
    sums = tl.dot(values, weights) + tl.load(biases_ptr + k)[None, :]
    _store_features(to_ptr, sums, b, top, left, i, j, height, width, margin, FEATURES)


@triton.jit
def zerodce_layer_kernel(
    skip_ptr, from_ptr, weights_ptr, biases_ptr, to_ptr, height, width, skip_margin, from_margin, margin,
    tiles_y, tiles_x,
    SKIP: tl.constexpr, FEATURES: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    b, top, left, i, j = _patch(margin, tiles_y, tiles_x, BLOCK_H, BLOCK_W)
    bias = tl.load(biases_ptr + tl.arange(0, FEATURES))
    sums = tl.zeros((BLOCK_H * BLOCK_W, FEATURES), tl.float32) + bias[None, :]
    if SKIP:
        sums = _add_source(
            sums, skip_ptr, weights_ptr, b, top, left, i, j, height, width, skip_margin, FEATURES, STAGES
        )
        weights_ptr += 9 * FEATURES * FEATURES
    sums = _add_source(
        sums, from_ptr, weights_ptr, b, top, left, i, j, height, width, from_margin, FEATURES, STAGES
    )
    _store_features(to_ptr, sums, b, top, left, i, j, height, width, margin, FEATURES)


@triton.jit
def zerodce_curve_kernel(
    skip_ptr, from_ptr, weights_ptr, biases_ptr, x_ptr, out_ptr, height, width, skip_margin, from_margin,
    tiles_y, tiles_x, x_b, x_c, x_h, x_w, out_b, out_c, out_h, out_w,
    FEATURES: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The last layer and the curve: its maps never leave the registers.

    Column 16 s2 + 8 s1 + 2 c + s0 of the product is step 4 s2 + 2 s1 + s0 of channel c: a thread of a matrix
    product holds all columns that differ in s0, s1 and s2, so no map has to move to another thread.
    """
    b, top, left, i, j = _patch(0, tiles_y, tiles_x, BLOCK_H, BLOCK_W)
    bias = tl.load(biases_ptr + tl.arange(0, FEATURES))
    sums = tl.zeros((BLOCK_H * BLOCK_W, FEATURES), tl.float32) + bias[None, :]
    sums = _add_source(
        sums, skip_ptr, weights_ptr, b, top, left, i, j, height, width, skip_margin, FEATURES, STAGES
    )
    weights_ptr += 9 * FEATURES * FEATURES
    sums = _add_source(
        sums, from_ptr, weights_ptr, b, top, left, i, j, height, width, from_margin, FEATURES, STAGES
    )
    maps = tl.reshape(_tanh(sums), (BLOCK_H * BLOCK_W, 2, 2, 4, 2))
    even, odd = tl.split(tl.permute(maps, (0, 3, 1, 2, 4)))
    a04, a26 = tl.split(even)
    a15, a37 = tl.split(odd)
    a0, a4 = tl.split(a04)
    a2, a6 = tl.split(a26)
    a1, a5 = tl.split(a15)
    a3, a7 = tl.split(a37)

    h = (top + i)[:, None]
    w = (left + j)[:, None]
    c = tl.arange(0, 4)[None, :]
    mask = (h < height) & (w < width) & (c < 3)
    x = tl.load(x_ptr + b * x_b + c * x_c + h * x_h + w * x_w, mask=mask, other=0.0).to(tl.float32)
    x += a0 * (x - x * x)
    x += a1 * (x - x * x)
    x += a2 * (x - x * x)
    x += a3 * (x - x * x)
    x += a4 * (x - x * x)
    x += a5 * (x - x * x)
    x += a6 * (x - x * x)
    x += a7 * (x - x * x)
    to = out_ptr + b * out_b + c * out_c + h * out_h + w * out_w
    tl.store(to, x.to(out_ptr.dtype.element_ty), mask=mask)


def zerodce_forward(
    x: Tensor,
    out: Tensor,
    sizes: Sequence[int],
    around: int,
    zeros: bool,
    matrices: Tensor,
    biases: Tensor,
    features: Sequence[Tensor],
) -> None:
    """Fill `out` with the enhanced `x`.

    Args:
        x: Images `[B, 3, H, W]` of these sizes, float16 or bfloat16, any strides.
        out: Like `x`.
        around: Pixels beyond `x` on each side that are readable.
        zeros: Each layer finds zeros outside of the image; else the nearest of the readable pixels goes on.
        matrices: `[2624, 32]` in the dtype of `x`; biases: `[7, 32]`, float32. See `pack_zerodce`.
        features: Six buffers of at least B (H + 2 m) (W + 2 m) 32 elements, m = 7 - l where not `zeros`, of
            layers l = 1 to 6; layers 4 and 6 may share one.
    """
    batch, _, height, width = sizes

    def margin(layer: int) -> int:
        return 0 if zeros else HALO - layer

    def grid(layer: int) -> tuple[tuple[int], tuple[int, int]]:
        tiles = (
            triton.cdiv(height + 2 * margin(layer), BLOCK_H),
            triton.cdiv(width + 2 * margin(layer), BLOCK_W),
        )
        return (batch * tiles[0] * tiles[1],), tiles

    blocks = {"FEATURES": FEATURES, "BLOCK_H": BLOCK_H, "BLOCK_W": BLOCK_W, "num_warps": WARPS}
    with torch.cuda.device_of(x):
        programs, tiles = grid(1)
        zerodce_first_kernel[programs](
            x, matrices, biases, features[0], height, width, margin(1), around, *tiles, *x.stride(),
            ZEROS=zeros, **blocks,
        )  # fmt: skip
        for layer in range(2, 8):
            programs, tiles = grid(layer)
            skip, source = SOURCES[layer][0], SOURCES[layer][-1]
            weights = (matrices[FIRST_ROWS[layer - 1] :], biases[layer - 1])
            given = (features[skip - 1], features[source - 1], *weights)
            margins = (margin(skip), margin(source))
            if layer < 7:
                zerodce_layer_kernel[programs](
                    *given, features[layer - 1], height, width, *margins, margin(layer), *tiles,
                    SKIP=skip != source, STAGES=STAGES, **blocks,
                )  # fmt: skip
            else:
                zerodce_curve_kernel[programs](
                    *given, x, out, height, width, *margins, *tiles, *x.stride(), *out.stride(),
                    STAGES=STAGES, **blocks,
                )  # fmt: skip
