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
def _channels(ptr, b, y, x, strides, mask):
    first = _value(ptr, b, 0, y, x, strides, mask)
    second = _value(ptr, b, 1, y, x, strides, mask)
    third = _value(ptr, b, 2, y, x, strides, mask)
    return first, second, third


@triton.jit
def _metric(e0, e1, e2, CONVERT: tl.constexpr):
    """G e: for YCbCr the conversion's matrix times its transpose, so that nothing has to be converted."""
    if CONVERT:
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
def _share(batch, height, width, dy, dx, wide: tl.constexpr):
    """One over the number of pairs."""
    rows, columns = height - tl.abs(dy), width - tl.abs(dx)
    return 1.0 / (tl.full((), 1, tl.int64) * batch * rows * columns).to(wide)


@triton.jit
def smoothness_forward_kernel(
    illum_ptr, guide_ptr, parts_ptr, illum_strides, guide_strides, batch, height, width, blocks, kappa,
    kappa_rest,
    CONVERT: tl.constexpr, SCALAR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b, y, x, mask = _pixels(height, width, blocks, BLOCK)
    o0, o1, o2 = _channels(illum_ptr, b, y, x, illum_strides, mask)
    f0, f1, f2 = _channels(guide_ptr, b, y, x, guide_strides, mask)
    # two parts: a number that is passed has the precision of float32
    factor = tl.full((1,), kappa, f0.dtype) + tl.full((1,), kappa_rest, f0.dtype)
    program = tl.program_id(0).to(tl.int64)
    # of a pixel's pairs in the type of the arithmetic: the pixels' sum is double, once
    total = tl.zeros_like(f0)
    # a loop over rows: all partners one after the other take Triton 40 s to compile
    for dy in range(3):
        for column in tl.static_range(5):
            number = dy * 5 + column - 3
            r, s = y + dy, x + (column - 2)
            later = (r - y) * 5 + (s - x) > 0
            there = mask & later & (r < height) & (s >= 0) & (s < width)
            e0 = f0 - _value(guide_ptr, b, 0, r, s, guide_strides, there)
            e1 = f1 - _value(guide_ptr, b, 1, r, s, guide_strides, there)
            e2 = f2 - _value(guide_ptr, b, 2, r, s, guide_strides, there)
            g0, g1, g2 = _metric(e0, e1, e2, CONVERT)
            weight = tl.exp(-factor * (e0 * g0 + e1 * g1 + e2 * g2))
            size = tl.abs(o0 - _value(illum_ptr, b, 0, r, s, illum_strides, there))
            size += tl.abs(o1 - _value(illum_ptr, b, 1, r, s, illum_strides, there))
            size += tl.abs(o2 - _value(illum_ptr, b, 2, r, s, illum_strides, there))
            share = _share(batch, height, width, dy, column - 2, f0.dtype)
            if SCALAR:
                weights = tl.sum(tl.where(there, weight, 0.0)).to(tl.float64)
                sizes = tl.sum(tl.where(there, size, 0.0)).to(tl.float64)
                if number >= 0:
                    at = parts_ptr + program * 24 + number
                    tl.store(at, weights * share)
                    tl.store(at + 12, sizes * share / 3)
            else:
                total += tl.where(there, weight * size, 0.0) * share
    if not SCALAR:
        tl.store(parts_ptr + program, tl.sum(total.to(tl.float64)))


@triton.jit
def smoothness_backward_kernel(
    illum_ptr, guide_ptr, grad_illum_ptr, grad_guide_ptr, grad_ptr, means_ptr, illum_strides, guide_strides,
    grad_illum_strides, grad_guide_strides, batch, height, width, blocks, kappa, kappa_rest,
    CONVERT: tl.constexpr, SCALAR: tl.constexpr, NEED_ILLUM: tl.constexpr, NEED_GUIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    b, y, x, mask = _pixels(height, width, blocks, BLOCK)
    o0, o1, o2 = _channels(illum_ptr, b, y, x, illum_strides, mask)
    f0, f1, f2 = _channels(guide_ptr, b, y, x, guide_strides, mask)
    factor = tl.full((1,), kappa, f0.dtype) + tl.full((1,), kappa_rest, f0.dtype)
    twice = 2 * tl.load(grad_ptr).to(f0.dtype)
    slope_o0, slope_o1, slope_o2 = tl.zeros_like(o0), tl.zeros_like(o0), tl.zeros_like(o0)
    slope_f0, slope_f1, slope_f2 = tl.zeros_like(f0), tl.zeros_like(f0), tl.zeros_like(f0)
    for dy in range(-2, 3):
        for column in tl.static_range(5):
            # the pixel itself adds nothing: its differences are zero
            r, s = y + dy, x + (column - 2)
            there = mask & (r >= 0) & (r < height) & (s >= 0) & (s < width)
            e0 = f0 - _value(guide_ptr, b, 0, r, s, guide_strides, there)
            e1 = f1 - _value(guide_ptr, b, 1, r, s, guide_strides, there)
            e2 = f2 - _value(guide_ptr, b, 2, r, s, guide_strides, there)
            g0, g1, g2 = _metric(e0, e1, e2, CONVERT)
            weight = tl.exp(-factor * (e0 * g0 + e1 * g1 + e2 * g2))
            d0 = o0 - _value(illum_ptr, b, 0, r, s, illum_strides, there)
            d1 = o1 - _value(illum_ptr, b, 1, r, s, illum_strides, there)
            d2 = o2 - _value(illum_ptr, b, 2, r, s, illum_strides, there)
            scale = twice * _share(batch, height, width, dy, column - 2, f0.dtype)
            if SCALAR:
                # an unordered pair has one mean, from whichever of its ends it is seen
                pair = means_ptr + tl.maximum(tl.abs(dy * 5 + (column - 2)) - 1, 0)
                slope = tl.zeros_like(o0) + scale * tl.load(pair).to(o0.dtype) / 3
                steep = weight * (scale * tl.load(pair + 12).to(o0.dtype))
            else:
                slope = weight * scale
                steep = slope * (tl.abs(d0) + tl.abs(d1) + tl.abs(d2))
            slope = tl.where(there, slope, 0.0)
            slope_o0 += tl.where(d0 > 0, slope, tl.where(d0 < 0, -slope, 0.0))
            slope_o1 += tl.where(d1 > 0, slope, tl.where(d1 < 0, -slope, 0.0))
            slope_o2 += tl.where(d2 > 0, slope, tl.where(d2 < 0, -slope, 0.0))
            slope_f0 += tl.where(there, steep * g0, 0.0)
            slope_f1 += tl.where(there, steep * g1, 0.0)
            slope_f2 += tl.where(there, steep * g2, 0.0)
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
def memory_order_kernel(from_ptr, to_ptr, triples, BACKWARD: tl.constexpr, BLOCK: tl.constexpr):
    """Three consecutive values converted as if they were one pixel, as the published code does, or back."""
    k = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = k < triples
    v0, v1, v2 = load(from_ptr, 3 * k, mask), load(from_ptr, 3 * k + 1, mask), load(from_ptr, 3 * k + 2, mask)
    if BACKWARD:
        tl.store(to_ptr + 3 * k, 0.257 * v0 - 0.148 * v1 + 0.439 * v2, mask=mask)
        tl.store(to_ptr + 3 * k + 1, 0.564 * v0 - 0.291 * v1 - 0.368 * v2, mask=mask)
        tl.store(to_ptr + 3 * k + 2, 0.098 * v0 + 0.439 * v1 - 0.071 * v2, mask=mask)
    else:
        # unlike components meet in a difference, so that the bias counts
        tl.store(to_ptr + 3 * k, 0.257 * v0 + 0.564 * v1 + 0.098 * v2 + 16.0 / 255, mask=mask)
        tl.store(to_ptr + 3 * k + 1, 0.439 * v2 - 0.148 * v0 - 0.291 * v1 + 128.0 / 255, mask=mask)
        tl.store(to_ptr + 3 * k + 2, 0.439 * v0 - 0.368 * v1 - 0.071 * v2 + 128.0 / 255, mask=mask)


YCBCR, MEMORY = 0, 1  # of the colours in the order of fastllie.ops.smoothness


def _split(kappa: float) -> tuple[float, float]:
    first = float(torch.tensor(kappa, dtype=torch.float32))
    return first, kappa - first


def _colours(guide: Tensor, color: int) -> Tensor:
    """What the kernels take for the guide. In memory order a value's colour hangs on two others that lie
    anywhere: that conversion is a pass of its own here, and takes the memory of an image.
    """
    if color != MEMORY:
        return guide
    colours = torch.empty_like(guide, dtype=torch.promote_types(guide.dtype, torch.float32))
    triples = guide.numel() // 3
    memory_order_kernel[(triton.cdiv(triples, COLOURS),)](
        guide, colours, triples, BACKWARD=False, BLOCK=COLOURS
    )
    return colours


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
        colours = _colours(guide, color)
        smoothness_forward_kernel[(batch * blocks,)](
            illum, colours, parts, illum.stride(), colours.stride(), batch, height, width, blocks,
            *_split(kappa), CONVERT=color == YCBCR, SCALAR=scalar, BLOCK=BLOCK,
        )  # fmt: skip


def smoothness_backward(
    illum: Tensor, guide: Tensor, grad_illum: Tensor, grad_guide: Tensor, grad: Tensor, means: Tensor,
    sizes: tuple[int, ...], color: int, scalar: bool, kappa: float, needs: tuple[bool, bool],
) -> None:  # fmt: skip
    """Fill the gradients that are needed; arguments as of `smoothness_forward`."""
    batch, _, height, width = sizes
    blocks = triton.cdiv(height * width, BLOCK)
    # a gradient that nobody needs is never touched: its strides are any
    outs = zip((grad_illum, grad_guide), needs, strict=True)
    strides = [out.stride() if needed else illum.stride() for out, needed in outs]
    with torch.cuda.device_of(illum):
        colours = _colours(guide, color)
        smoothness_backward_kernel[(batch * blocks,)](
            illum, colours, grad_illum, grad_guide, grad, means, illum.stride(), colours.stride(), *strides,
            batch, height, width, blocks, *_split(kappa), CONVERT=color == YCBCR, SCALAR=scalar,
            NEED_ILLUM=needs[0], NEED_GUIDE=needs[1], BLOCK=BLOCK,
        )  # fmt: skip


def smoothness_colours(grad_colours: Tensor, grad_guide: Tensor, triples: int) -> None:
    """From the gradient of `triples` colours in memory order to that of three values each."""
    with torch.cuda.device_of(grad_colours):
        memory_order_kernel[(triton.cdiv(triples, COLOURS),)](
            grad_colours, grad_guide, triples, BACKWARD=True, BLOCK=COLOURS
        )
