"""The smoothness loss in Triton: every pixel with its partners, read in place, whatever the strides."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastllie.kernels.access import load

BLOCK = 256
COLOURS = 1024


@triton.jit
def _value(ptr, b, c, y, x, strides, mask):
    return load(ptr, b * strides[0] + c * strides[1] + y * strides[2] + x * strides[3], mask)


@triton.jit
def _converted(ptr, start, m, mask):
    """Value `m` of an image in memory order, converted with the two beside it, as the published code does."""
    role = m % 3
    at = start + m - role
    red, green, blue = load(ptr, at, mask), load(ptr, at + 1, mask), load(ptr, at + 2, mask)
    luma = red * 0.257 + green * 0.564 + blue * 0.098 + 16.0 / 255.0
    blueness = -0.148 * red - green * 0.291 + blue * 0.439 + 128.0 / 255.0
    redness = red * 0.439 - green * 0.368 - blue * 0.071 + 128.0 / 255.0
    return tl.where(role == 0, luma, tl.where(role == 1, blueness, redness))


@triton.jit
def _colour(ptr, b, c, y, x, height, width, strides, mask, COLOR: tl.constexpr):
    if COLOR == "memory":
        value = _converted(ptr, b * 3 * height * width, (c * height + y) * width + x, mask)
    else:
        value = _value(ptr, b, c, y, x, strides, mask)
    return value


@triton.jit
def _metric(e0, e1, e2, COLOR: tl.constexpr):
    """G e: for YCbCr the conversion's matrix times its transpose, so that nothing has to be converted."""
    if COLOR == "ycbcr":
        g0 = 0.280674 * e0 + 0.026464 * e1 - 0.070955 * e2
        g1 = 0.026464 * e0 + 0.538201 * e1 - 0.046349 * e2
        g2 = 0.207366 * e2 - 0.046349 * e1 - 0.070955 * e0
    else:
        g0, g1, g2 = e0, e1, e2
    return g0, g1, g2


@triton.jit
def _pixels(height, width, blocks, BLOCK: tl.constexpr):
    """Image, rows and columns of this program's pixels, and which of these there are; all in 64 bits."""
    program = tl.program_id(0).to(tl.int64)
    p = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    return program // blocks, p // width, p % width, p < height * width


@triton.jit
def _share(batch, height, width, dy: tl.constexpr, dx: tl.constexpr):
    """One over the number of pairs; float64."""
    rows = height - dy
    if dy < 0:
        rows = height + dy
    columns = width - dx
    if dx < 0:
        columns = width + dx
    return 1.0 / (batch.to(tl.int64) * rows * columns).to(tl.float64)


@triton.jit
def smoothness_forward_kernel(
    illum_ptr, guide_ptr, parts_ptr, illum_strides, guide_strides, batch, height, width, blocks, kappa,
    kappa_rest,
    COLOR: tl.constexpr, SCALAR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b, y, x, mask = _pixels(height, width, blocks, BLOCK)
    o0 = _value(illum_ptr, b, 0, y, x, illum_strides, mask)
    o1 = _value(illum_ptr, b, 1, y, x, illum_strides, mask)
    o2 = _value(illum_ptr, b, 2, y, x, illum_strides, mask)
    f0 = _colour(guide_ptr, b, 0, y, x, height, width, guide_strides, mask, COLOR)
    f1 = _colour(guide_ptr, b, 1, y, x, height, width, guide_strides, mask, COLOR)
    f2 = _colour(guide_ptr, b, 2, y, x, height, width, guide_strides, mask, COLOR)
    # two parts: a number that is passed has the precision of float32
    factor = tl.full((1,), kappa, f0.dtype) + tl.full((1,), kappa_rest, f0.dtype)
    program = tl.program_id(0).to(tl.int64)
    total = tl.zeros((), tl.float64)
    for dy in tl.static_range(3):
        for column in tl.static_range(5):
            if dy * 5 + column > 2:
                r, s = y + dy, x + (column - 2)
                there = mask & (r < height) & (s >= 0) & (s < width)
                e0 = f0 - _colour(guide_ptr, b, 0, r, s, height, width, guide_strides, there, COLOR)
                e1 = f1 - _colour(guide_ptr, b, 1, r, s, height, width, guide_strides, there, COLOR)
                e2 = f2 - _colour(guide_ptr, b, 2, r, s, height, width, guide_strides, there, COLOR)
                g0, g1, g2 = _metric(e0, e1, e2, COLOR)
                weight = tl.where(there, tl.exp(-factor * (e0 * g0 + e1 * g1 + e2 * g2)), 0.0)
                size = tl.abs(o0 - _value(illum_ptr, b, 0, r, s, illum_strides, there))
                size += tl.abs(o1 - _value(illum_ptr, b, 1, r, s, illum_strides, there))
                size += tl.abs(o2 - _value(illum_ptr, b, 2, r, s, illum_strides, there))
                share = _share(batch, height, width, dy, column - 2)
                if SCALAR:
                    at = parts_ptr + program * 24 + (dy * 5 + column - 3)
                    tl.store(at, tl.sum(weight.to(tl.float64)) * share)
                    size = tl.where(there, size, 0.0)
                    tl.store(at + 12, tl.sum(size.to(tl.float64)) * share / 3)
                else:
                    # 0 * NaN: a pixel outside must not count
                    total += tl.sum(tl.where(there, weight * size, 0.0).to(tl.float64)) * share
    if not SCALAR:
        tl.store(parts_ptr + program, total)


@triton.jit
def smoothness_backward_kernel(
    illum_ptr, guide_ptr, grad_illum_ptr, grad_guide_ptr, grad_ptr, means_ptr, illum_strides, guide_strides,
    grad_illum_strides, grad_guide_strides, batch, height, width, blocks, kappa, kappa_rest,
    COLOR: tl.constexpr, SCALAR: tl.constexpr, NEED_ILLUM: tl.constexpr, NEED_GUIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    b, y, x, mask = _pixels(height, width, blocks, BLOCK)
    o0 = _value(illum_ptr, b, 0, y, x, illum_strides, mask)
    o1 = _value(illum_ptr, b, 1, y, x, illum_strides, mask)
    o2 = _value(illum_ptr, b, 2, y, x, illum_strides, mask)
    f0 = _colour(guide_ptr, b, 0, y, x, height, width, guide_strides, mask, COLOR)
    f1 = _colour(guide_ptr, b, 1, y, x, height, width, guide_strides, mask, COLOR)
    f2 = _colour(guide_ptr, b, 2, y, x, height, width, guide_strides, mask, COLOR)
    factor = tl.full((1,), kappa, f0.dtype) + tl.full((1,), kappa_rest, f0.dtype)
    twice = 2 * tl.load(grad_ptr)
    slope_o0, slope_o1, slope_o2 = tl.zeros_like(o0), tl.zeros_like(o0), tl.zeros_like(o0)
    slope_f0, slope_f1, slope_f2 = tl.zeros_like(f0), tl.zeros_like(f0), tl.zeros_like(f0)
    for row in tl.static_range(5):
        for column in tl.static_range(5):
            if row * 5 + column != 12:
                r, s = y + (row - 2), x + (column - 2)
                there = mask & (r >= 0) & (r < height) & (s >= 0) & (s < width)
                e0 = f0 - _colour(guide_ptr, b, 0, r, s, height, width, guide_strides, there, COLOR)
                e1 = f1 - _colour(guide_ptr, b, 1, r, s, height, width, guide_strides, there, COLOR)
                e2 = f2 - _colour(guide_ptr, b, 2, r, s, height, width, guide_strides, there, COLOR)
                g0, g1, g2 = _metric(e0, e1, e2, COLOR)
                weight = tl.exp(-factor * (e0 * g0 + e1 * g1 + e2 * g2))
                d0 = o0 - _value(illum_ptr, b, 0, r, s, illum_strides, there)
                d1 = o1 - _value(illum_ptr, b, 1, r, s, illum_strides, there)
                d2 = o2 - _value(illum_ptr, b, 2, r, s, illum_strides, there)
                scale = twice * _share(batch, height, width, row - 2, column - 2)
                if SCALAR:
                    # number of the unordered pair
                    if row * 5 + column > 12:
                        pair = means_ptr + (row * 5 + column - 13)
                    else:
                        pair = means_ptr + (11 - row * 5 - column)
                    slope = there.to(o0.dtype) * (scale * tl.load(pair) / 3).to(o0.dtype)
                    height_of = weight * (scale * tl.load(pair + 12)).to(o0.dtype)
                else:
                    slope = weight * scale.to(o0.dtype)
                    height_of = slope * (tl.abs(d0) + tl.abs(d1) + tl.abs(d2))
                slope = tl.where(there, slope, 0.0)
                height_of = tl.where(there, height_of, 0.0)
                slope_o0 += tl.where(d0 > 0, slope, tl.where(d0 < 0, -slope, 0.0))
                slope_o1 += tl.where(d1 > 0, slope, tl.where(d1 < 0, -slope, 0.0))
                slope_o2 += tl.where(d2 > 0, slope, tl.where(d2 < 0, -slope, 0.0))
                slope_f0 += tl.where(there, height_of * g0, 0.0)
                slope_f1 += tl.where(there, height_of * g1, 0.0)
                slope_f2 += tl.where(there, height_of * g2, 0.0)
    if NEED_ILLUM:
        at = (
            grad_illum_ptr + b * grad_illum_strides[0] + y * grad_illum_strides[2] + x * grad_illum_strides[3]
        )
        tl.store(at, slope_o0, mask=mask)
        tl.store(at + grad_illum_strides[1], slope_o1, mask=mask)
        tl.store(at + 2 * grad_illum_strides[1], slope_o2, mask=mask)
    if NEED_GUIDE:
        at = (
            grad_guide_ptr + b * grad_guide_strides[0] + y * grad_guide_strides[2] + x * grad_guide_strides[3]
        )
        tl.store(at, -2 * factor * slope_f0, mask=mask)
        tl.store(at + grad_guide_strides[1], -2 * factor * slope_f1, mask=mask)
        tl.store(at + 2 * grad_guide_strides[1], -2 * factor * slope_f2, mask=mask)


@triton.jit
def smoothness_colours_kernel(from_ptr, to_ptr, triples, BLOCK: tl.constexpr):
    k = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = k < triples
    g0, g1, g2 = load(from_ptr, 3 * k, mask), load(from_ptr, 3 * k + 1, mask), load(from_ptr, 3 * k + 2, mask)
    tl.store(to_ptr + 3 * k, 0.257 * g0 - 0.148 * g1 + 0.439 * g2, mask=mask)
    tl.store(to_ptr + 3 * k + 1, 0.564 * g0 - 0.291 * g1 - 0.368 * g2, mask=mask)
    tl.store(to_ptr + 3 * k + 2, 0.098 * g0 + 0.439 * g1 - 0.071 * g2, mask=mask)


_COLORS = ("ycbcr", "memory", "rgb")


def _constants(color: int, scalar: bool) -> dict[str, object]:
    return {"COLOR": _COLORS[color], "SCALAR": scalar, "BLOCK": BLOCK}


def _split(kappa: float) -> tuple[float, float]:
    first = float(torch.tensor(kappa, dtype=torch.float32))
    return first, kappa - first


def smoothness_blocks(sizes: tuple[int, ...]) -> int:
    """Parts that the forward leaves to be added up."""
    return sizes[0] * triton.cdiv(sizes[2] * sizes[3], BLOCK)


def smoothness_forward(
    illum: Tensor,
    guide: Tensor,
    parts: Tensor,
    sizes: tuple[int, ...],
    color: int,
    scalar: bool,
    kappa: float,
) -> None:
    """Fill `parts`; arguments as of the native modules' function of this name, tensors for their views."""
    batch, _, height, width = sizes
    blocks = triton.cdiv(height * width, BLOCK)
    with torch.cuda.device_of(illum):
        smoothness_forward_kernel[(batch * blocks,)](
            illum, guide, parts, illum.stride(), guide.stride(), batch, height, width, blocks, *_split(kappa),
            **_constants(color, scalar),
        )  # fmt: skip


def smoothness_backward(
    illum: Tensor, guide: Tensor, grad_illum: Tensor, grad_guide: Tensor, grad: Tensor, means: Tensor,
    sizes: tuple[int, ...], color: int, scalar: bool, kappa: float, needs: tuple[bool, bool],
) -> None:  # fmt: skip
    """Fill the gradients that are needed; arguments as of `smoothness_forward`."""
    batch, _, height, width = sizes
    blocks = triton.cdiv(height * width, BLOCK)
    # a gradient that nobody needs is never touched: its strides are any
    strides = [
        g.stride() if needed else illum.stride()
        for g, needed in zip((grad_illum, grad_guide), needs, strict=True)
    ]
    with torch.cuda.device_of(illum):
        smoothness_backward_kernel[(batch * blocks,)](
            illum, guide, grad_illum, grad_guide, grad, means, illum.stride(), guide.stride(), *strides,
            batch, height, width, blocks, *_split(kappa),
            NEED_ILLUM=needs[0], NEED_GUIDE=needs[1], **_constants(color, scalar),
        )  # fmt: skip


def smoothness_colours(grad_colours: Tensor, grad_guide: Tensor, triples: int) -> None:
    """From the gradient of `triples` colours in memory order to that of three values each."""
    with torch.cuda.device_of(grad_colours):
        smoothness_colours_kernel[(triton.cdiv(triples, COLOURS),)](
            grad_colours, grad_guide, triples, BLOCK=COLOURS
        )
