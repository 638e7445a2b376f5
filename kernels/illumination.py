"""Illumination division in Triton. Every tensor is read and written in place, whatever its strides."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512


@triton.jit
def _clamp(value, low, high):
    # comparisons keep a NaN, which tl.minimum would not
    value = tl.where(value < low, low, value)
    return tl.where(value > high, high, value)


@triton.jit
def _divide_backward(grad, x, illum):
    quotient = x / illum
    idle = (quotient >= 0) & (quotient <= 1)
    return tl.where(idle, grad / illum, 0.0), tl.where(idle, -(grad / illum) * quotient, 0.0)


@triton.jit
def _at(pixels, width, b, c, strides, ADJOIN: tl.constexpr):
    place = b * strides[0] + c * strides[1]
    if ADJOIN:
        return place + pixels * strides[3]
    return place + (pixels // width) * strides[2] + (pixels % width) * strides[3]


@triton.jit
def _load(ptr, offset, mask):
    # float64 is computed in float64, everything else in float32
    wide: tl.constexpr = tl.float64 if ptr.dtype.element_ty == tl.float64 else tl.float32
    return tl.load(ptr + offset, mask=mask, other=1).to(wide)


@triton.jit
def illumination_kernel(
    pointers, strides, channels, pixels, width, blocks,
    OP: tl.constexpr, NEEDS: tl.constexpr, ADJOIN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    plane = program // blocks
    b = plane // channels
    c = plane % channels
    p = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    mask = p < pixels
    first = _load(pointers[0], _at(p, width, b, c, strides[0], ADJOIN), mask)
    second = _load(pointers[1], _at(p, width, b, c, strides[1], ADJOIN), mask)
    if OP == "divide_forward":
        out = _clamp(first / second, 0.0, 1.0)
        tl.store(pointers[2] + _at(p, width, b, c, strides[2], ADJOIN), out, mask=mask)
    else:
        third = _load(pointers[2], _at(p, width, b, c, strides[2], ADJOIN), mask)
        if OP == "divide_backward":
            grad_x, grad_illum = _divide_backward(first, second, third)
            if NEEDS[0]:
                tl.store(pointers[3] + _at(p, width, b, c, strides[3], ADJOIN), grad_x, mask=mask)
            if NEEDS[1]:
                tl.store(pointers[4] + _at(p, width, b, c, strides[4], ADJOIN), grad_illum, mask=mask)
        elif OP == "illuminate_forward":
            illum = _clamp(1 / (1 + tl.exp(-first)) + second, 1e-4, 1.0)
            tl.store(pointers[3] + _at(p, width, b, c, strides[3], ADJOIN), illum, mask=mask)
            out = _clamp(third / illum, 0.0, 1.0)
            tl.store(pointers[4] + _at(p, width, b, c, strides[4], ADJOIN), out, mask=mask)
        else:
            v = _load(pointers[3], _at(p, width, b, c, strides[3], ADJOIN), mask)
            y = _load(pointers[4], _at(p, width, b, c, strides[4], ADJOIN), mask)
            sigmoid = 1 / (1 + tl.exp(-third))
            total = sigmoid + v
            grad_y, through = _divide_backward(second, y, _clamp(total, 1e-4, 1.0))
            grad_v = tl.where((total >= 1e-4) & (total <= 1), first + through, 0.0)
            if NEEDS[0]:
                grad_raw = grad_v * sigmoid * (1 - sigmoid)
                tl.store(pointers[5] + _at(p, width, b, c, strides[5], ADJOIN), grad_raw, mask=mask)
            if NEEDS[1]:
                tl.store(pointers[6] + _at(p, width, b, c, strides[6], ADJOIN), grad_v, mask=mask)
            if NEEDS[2]:
                tl.store(pointers[7] + _at(p, width, b, c, strides[7], ADJOIN), grad_y, mask=mask)


def run(op: str, inputs: Sequence[Tensor], outs: Sequence[Tensor | None]) -> None:
    """Fill the outputs of `op` that are not None; the operators and their order as in `fastllie.ops`."""
    batch, channels, height, width = inputs[0].shape
    # an output that nobody needs is never touched: its pointer and strides are any
    tensors = (*inputs, *(inputs[0] if out is None else out for out in outs))
    adjoin = all(t.stride(2) == width * t.stride(3) for t in tensors)
    blocks = triton.cdiv(height * width, BLOCK)
    with torch.cuda.device_of(inputs[0]):
        illumination_kernel[(batch * channels * blocks,)](
            tensors, tuple(t.stride() for t in tensors), channels, height * width, width, blocks,
            OP=op, NEEDS=tuple(out is not None for out in outs), ADJOIN=adjoin, BLOCK=BLOCK,
        )  # fmt: skip
