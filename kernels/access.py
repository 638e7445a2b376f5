"""What the Triton kernels share: which pixels a program works on, where they lie, and how they are read."""

import triton
import triton.language as tl


@triton.jit
def locate(channels, pixels, blocks, BLOCK: tl.constexpr):
    """Image, channel and pixels of this program, and which of these pixels there are; all in 64 bits."""
    program = tl.program_id(0).to(tl.int64)
    plane = program // blocks
    p = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    return plane // channels, plane % channels, p, p < pixels


@triton.jit
def offset(b, c, p, width, stride_b, stride_c, stride_h, stride_w, ADJOIN: tl.constexpr):
    """Where pixels `p` of channel `c` of image `b` lie; ADJOIN: each row starts where the one before ends."""
    start = b * stride_b + c * stride_c
    if ADJOIN:
        at = start + p * stride_w
    else:
        at = start + (p // width) * stride_h + (p % width) * stride_w
    return at


@triton.jit
def load(ptr, at, mask, OTHER: tl.constexpr = 0):
    """float64 as it is, everything else as float32: the dtype of the arithmetic."""
    wide: tl.constexpr = tl.float64 if ptr.dtype.element_ty == tl.float64 else tl.float32
    return tl.load(ptr + at, mask=mask, other=OTHER).to(wide)


@triton.jit
def clamp(value, low, high):
    """The value cut to [low, high]; comparisons keep a NaN, which tl.minimum would not."""
    value = tl.where(value < low, low, value)
    return tl.where(value > high, high, value)
