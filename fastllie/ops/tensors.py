"""What the operators share between their kernels and autograd."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """The tensor in the dtype of the arithmetic: float64 as it is, everything else as float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype of the arithmetic."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def empty_gradients(inputs: Sequence[Tensor], needs: Sequence[bool]) -> tuple[Tensor, ...]:
    """A gradient for each input to be filled, with no elements where none is needed."""
    return tuple(
        [
            torch.empty_like(tensor) if needed else tensor.new_empty(0)
            for tensor, needed in zip(inputs, needs, strict=True)
        ]
    )


def gradients_to_fill(
    backend: str, inputs: Sequence[Tensor], needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """A gradient for each input as a backend takes it: native kernels want none where none is needed."""
    if backend not in ("cpu", "cuda"):
        return empty_gradients(inputs, needs)
    return tuple(
        [torch.empty_like(tensor) if needed else None for tensor, needed in zip(inputs, needs, strict=True)]
    )


def fill(outs: Sequence[Tensor | None], values: Sequence[Tensor], needs: Sequence[bool]) -> None:
    """Copy the values that are needed, whatever their dtype."""
    for out, value, needed in zip(outs, values, needs, strict=True):
        if needed and out is not None:
            out.copy_(value)


def differentiate_formula(
    formula: Callable[..., Sequence[Tensor]],
    saved: Sequence[Tensor],
    needed: Sequence[bool],
    cotangents: Sequence[Tensor],
) -> tuple[Tensor | None, ...]:
    """Second derivatives, through the formula of the first ones: gradient penalties ask for them.

    Args:
        saved: The inputs of the formula.
        needed: Which of its outputs count.
        cotangents: The gradients of all its outputs.
    """
    inputs = [tensor.detach().requires_grad_() for tensor in saved]
    with torch.enable_grad():
        outputs = formula(*map(wide, inputs))
        used = [
            (output, cotangent.to(output.dtype))
            for output, cotangent, wanted in zip(outputs, cotangents, needed, strict=True)
            if wanted
        ]
        return torch.autograd.grad([u[0] for u in used], inputs, [u[1] for u in used], allow_unused=True)
