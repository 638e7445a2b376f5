"""Illumination division in Triton. Every tensor is read and written in place, whatever its strides."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastllie.kernels.access import clamp, load, locate, offset

BLOCK = 512


@triton.jit
def _divide_backward(grad, x, illum):
    if x.dtype == tl.float64:
        quotient = x / illum
    else:
        # that of float32 is approximate: a quotient of 1 could come out as a little more, which is clamped
        quotient = tl.div_rn(x, illum)
    idle = (quotient >= 0) & (quotient <= 1)
    return tl.where(idle, grad / illum, 0.0), tl.where(idle, -(grad / illum) * quotient, 0.0)


@triton.jit
def _at(b, c, p, width, strides, ADJOIN: tl.constexpr):
    return offset(b, c, p, width, strides[0], strides[1], strides[2], strides[3], ADJOIN)


@triton.jit
def illumination_kernel(
    pointers, strides, channels, pixels, width, blocks,
    OP: tl.constexpr, NEED_0: tl.constexpr, NEED_1: tl.constexpr, NEED_2: tl.constexpr, ADJOIN: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    b, c, p, mask = locate(channels, pixels, blocks, BLOCK)
    first = load(pointers[0], _at(b, c, p, width, strides[0], ADJOIN), mask, 1)
    second = load(pointers[1], _at(b, c, p, width, strides[1], ADJOIN), mask, 1)
    if OP == "illumination_forward":
        out = clamp(first / second, 0.0, 1.0)
        tl.store(pointers[2] + _at(b, c, p, width, strides[2], ADJOIN), out, mask=mask)
    else:
        third = load(pointers[2], _at(b, c, p, width, strides[2], ADJOIN), mask, 1)
        if OP == "illumination_backward":
            grad_x, grad_illum = _divide_backward(first, second, third)
            if NEED_0:
                tl.store(pointers[3] + _at(b, c, p, width, strides[3], ADJOIN), grad_x, mask=mask)
            if NEED_1:
                tl.store(pointers[4] + _at(b, c, p, width, strides[4], ADJOIN), grad_illum, mask=mask)
        elif OP == "illuminate_forward":
            illum = clamp(1 / (1 + tl.exp(-first)) + second, 1e-4, 1.0)
            tl.store(pointers[3] + _at(b, c, p, width, strides[3], ADJOIN), illum, mask=mask)
            out = clamp(third / illum, 0.0, 1.0)
            tl.store(pointers[4] + _at(b, c, p, width, strides[4], ADJOIN), out, mask=mask)
        else:
            v = load(pointers[3], _at(b, c, p, width, strides[3], ADJOIN), mask, 1)
            y = load(pointers[4], _at(b, c, p, width, strides[4], ADJOIN), mask, 1)
            sigmoid = 1 / (1 + tl.exp(-third))
            total = sigmoid + v
            grad_y, through = _divide_backward(second, y, clamp(total, 1e-4, 1.0))
            grad_v = tl.where((total >= 1e-4) & (total <= 1), first + through, 0.0)
            if NEED_0:
                grad_raw = grad_v * sigmoid * (1 - sigmoid)
                tl.store(pointers[5] + _at(b, c, p, width, strides[5], ADJOIN), grad_raw, mask=mask)
            if NEED_1:
                tl.store(pointers[6] + _at(b, c, p, width, strides[6], ADJOIN), grad_v, mask=mask)
            if NEED_2:
                tl.store(pointers[7] + _at(b, c, p, width, strides[7], ADJOIN), grad_y, mask=mask)


def _run(op: str, inputs: Sequence[Tensor], outs: Sequence[Tensor], needs: Sequence[bool]) -> None:
    batch, channels, height, width = inputs[0].shape
    # an output that nobody needs is never touched: its pointer and strides are any
    tensors = (*inputs, *(out if needed else inputs[0] for out, needed in zip(outs, needs, strict=True)))
    adjoin = all(t.stride(2) == width * t.stride(3) for t in tensors)
    blocks = triton.cdiv(height * width, BLOCK)
    # one by one: Triton 3.3 cannot index a constant tuple
    constants = {f"NEED_{i}": i < len(needs) and needs[i] for i in range(3)}
    with torch.cuda.device_of(inputs[0]):
        illumination_kernel[(batch * channels * blocks,)](
            tensors, tuple(t.stride() for t in tensors), channels, height * width, width, blocks,
            OP=op, **constants, ADJOIN=adjoin, BLOCK=BLOCK,
        )  # fmt: skip


def illumination_forward(x: Tensor, illum: Tensor, out: Tensor, sizes: Sequence[int]) -> None:
    """Fill `out`; shapes and meanings as for `fastllie.ops.divide_illumination`."""
    _run("illumination_forward", (x, illum), (out,), (True,))


def illumination_backward(
    grad: Tensor, x: Tensor, illum: Tensor, grad_x: Tensor, grad_illum: Tensor, sizes: Sequence[int],
    needs: Sequence[bool],
) -> None:  # fmt: skip
    """Fill the gradients that are needed."""
    _run("illumination_backward", (grad, x, illum), (grad_x, grad_illum), needs)


def illuminate_forward(
    raw: Tensor, v: Tensor, y: Tensor, illum: Tensor, out: Tensor, sizes: Sequence[int]
) -> None:
    """Fill `illum` and `out`; shapes and meanings as for `fastllie.ops.illuminate`."""
    _run("illuminate_forward", (raw, v, y), (illum, out), (True, True))


def illuminate_backward(
    grad_illum: Tensor, grad_out: Tensor, raw: Tensor, v: Tensor, y: Tensor, grad_raw: Tensor, grad_v: Tensor,
    grad_y: Tensor, sizes: Sequence[int], needs: Sequence[bool],
) -> None:  # fmt: skip
    """Fill the gradients that are needed."""
    _run("illuminate_backward", (grad_illum, grad_out, raw, v, y), (grad_raw, grad_v, grad_y), needs)
