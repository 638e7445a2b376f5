"""The curve in Triton. Every tensor is read and written in place, whatever its strides."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastllie.kernels.access import load, locate, offset

# Pixels of a program: four a thread of four warps, so that a row of float32 is read by 16-byte loads
BLOCK = 512


@triton.jit
def _tanh(z):
    # exp overflows to infinity for large z, and the quotient to zero: the limits come out right
    return 1 - 2 / (tl.exp(2 * z) + 1)


@triton.jit
def load_map(alpha_ptr, at, mask, TANH: tl.constexpr):
    a = load(alpha_ptr, at, mask)
    if TANH:
        a = _tanh(a)
    return a


@triton.jit
def curve_forward_kernel(
    x_ptr, alpha_ptr, out_ptr, channels, pixels, width, blocks,
    x_b, x_c, x_h, x_w, alpha_b, alpha_c, alpha_h, alpha_w, out_b, out_c, out_h, out_w,
    STEPS: tl.constexpr, SHARED: tl.constexpr, TANH: tl.constexpr, ADJOIN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b, c, p, mask = locate(channels, pixels, blocks, BLOCK)
    x = load(x_ptr, offset(b, c, p, width, x_b, x_c, x_h, x_w, ADJOIN), mask)
    at = offset(b, c, p, width, alpha_b, alpha_c, alpha_h, alpha_w, ADJOIN)
    # 64 bits: the last maps of an image of 10^8 pixels lie beyond 2^31 elements
    map_step = tl.full((), channels, tl.int64) * alpha_c
    a = load_map(alpha_ptr, at, mask, TANH)
    x += a * (x - x * x)
    for k in tl.static_range(1, STEPS):
        if not SHARED:
            a = load_map(alpha_ptr, at + k * map_step, mask, TANH)
        x += a * (x - x * x)
    tl.store(out_ptr + offset(b, c, p, width, out_b, out_c, out_h, out_w, ADJOIN), x, mask=mask)


@triton.jit
def curve_backward_kernel(
    grad_ptr, x_ptr, alpha_ptr, grad_x_ptr, grad_alpha_ptr, channels, pixels, width, blocks,
    grad_b, grad_c, grad_h, grad_w, x_b, x_c, x_h, x_w, alpha_b, alpha_c, alpha_h, alpha_w,
    grad_x_b, grad_x_c, grad_x_h, grad_x_w, grad_alpha_b, grad_alpha_c, grad_alpha_h, grad_alpha_w,
    STEPS: tl.constexpr, SHARED: tl.constexpr, TANH: tl.constexpr, NEED_X: tl.constexpr,
    NEED_ALPHA: tl.constexpr, ADJOIN: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr = 8,
):  # fmt: skip
    b, c, p, mask = locate(channels, pixels, blocks, BLOCK)
    x = load(x_ptr, offset(b, c, p, width, x_b, x_c, x_h, x_w, ADJOIN), mask)
    grad = load(grad_ptr, offset(b, c, p, width, grad_b, grad_c, grad_h, grad_w, ADJOIN), mask)
    at = offset(b, c, p, width, alpha_b, alpha_c, alpha_h, alpha_w, ADJOIN)
    to = offset(b, c, p, width, grad_alpha_b, grad_alpha_c, grad_alpha_h, grad_alpha_w, ADJOIN)
    # 64 bits, as in the forward
    map_step = tl.full((), channels, tl.int64) * alpha_c
    grad_map_step = tl.full((), channels, tl.int64) * grad_alpha_c
    shared = load_map(alpha_ptr, at, mask, TANH)
    grad_shared = tl.zeros_like(grad)
    # a chunk's states are recomputed into registers; the state before it from the image, at no memory
    for chunk in tl.static_range((STEPS + CHUNK - 1) // CHUNK - 1, -1, -1):
        state = x
        for k in tl.static_range(0, chunk * CHUNK):
            a = shared
            if not SHARED:
                a = load_map(alpha_ptr, at + k * map_step, mask, TANH)
            state += a * (state - state * state)
        states = ()
        maps = ()
        for k in tl.static_range(chunk * CHUNK, chunk * CHUNK + CHUNK):
            if k < STEPS:
                a = shared
                if not SHARED:
                    a = load_map(alpha_ptr, at + k * map_step, mask, TANH)
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
                    if TANH:
                        grad_a *= 1 - a * a
                    tl.store(grad_alpha_ptr + to + k * grad_map_step, grad_a, mask=mask)
    if NEED_X:
        tl.store(
            grad_x_ptr + offset(b, c, p, width, grad_x_b, grad_x_c, grad_x_h, grad_x_w, ADJOIN),
            grad,
            mask=mask,
        )
    if SHARED and NEED_ALPHA:
        if TANH:
            grad_shared *= 1 - shared * shared
        tl.store(grad_alpha_ptr + to, grad_shared, mask=mask)


def _adjoin(*tensors: Tensor) -> bool:
    """Whether every tensor's next row starts where the one before it ends."""
    return all(t.stride(2) == t.shape[3] * t.stride(3) for t in tensors)


def _grid(sizes: Sequence[int]) -> tuple[tuple[int], tuple[int, int, int, int]]:
    """The grid, and what both kernels take: channels, pixels, width, programs a channel."""
    batch, channels, height, width = sizes
    blocks = triton.cdiv(height * width, BLOCK)
    return (batch * channels * blocks,), (channels, height * width, width, blocks)


def curve_forward(
    x: Tensor, alpha: Tensor, out: Tensor, sizes: Sequence[int], shared: bool, steps: int, tanh: bool
) -> None:
    """Fill `out` with the curve of `x`; shapes and meanings as for `fastllie.ops.apply_curve`."""
    grid, counts = _grid(sizes)
    with torch.cuda.device_of(x):
        curve_forward_kernel[grid](
            x, alpha, out, *counts, *x.stride(), *alpha.stride(), *out.stride(),
            STEPS=steps, SHARED=shared, TANH=tanh, ADJOIN=_adjoin(x, alpha, out), BLOCK=BLOCK,
        )  # fmt: skip


def curve_backward(
    grad: Tensor, x: Tensor, alpha: Tensor, grad_x: Tensor, grad_alpha: Tensor, sizes: Sequence[int],
    shared: bool, steps: int, tanh: bool, need_x: bool, need_alpha: bool,
) -> None:  # fmt: skip
    """Fill the gradients of the curve that are needed."""
    grid, counts = _grid(sizes)
    # a gradient that nobody needs is never touched: its pointer and strides are any
    tensors = (grad, x, alpha, grad_x if need_x else x, grad_alpha if need_alpha else alpha)
    with torch.cuda.device_of(x):
        curve_backward_kernel[grid](
            *tensors, *counts, *(stride for t in tensors for stride in t.stride()),
            STEPS=steps, SHARED=shared, TANH=tanh, NEED_X=need_x, NEED_ALPHA=need_alpha,
            ADJOIN=_adjoin(*tensors), BLOCK=BLOCK,
        )  # fmt: skip
