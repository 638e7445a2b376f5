"""What the operators share: checks of their tensors, and what native code gets to know of them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_images(dtypes: Sequence[torch.dtype] = FLOATS, /, **tensors: Tensor) -> None:
    """Raise a TypeError or ValueError unless all are `[B, C, H, W]` of one of the dtypes, on one device."""
    *others, last = (str(dtype).removeprefix("torch.") for dtype in dtypes)
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
        if tensor.dtype not in dtypes:
            raise TypeError(f"{name} must be {', '.join(others)} or {last}, got {tensor.dtype}")
        if tensor.dim() != 4:
            raise ValueError(f"{name} must be [B, C, H, W], got shape {tuple(tensor.shape)}")
    devices = [str(tensor.device) for tensor in tensors.values()]
    if len(set(devices)) > 1:
        raise ValueError(f"{' and '.join(tensors)} must be on one device, got {' and '.join(devices)}")


def wide(tensor: Tensor) -> Tensor:
    """The tensor in the dtype of the arithmetic: float64 as it is, everything else as float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def views(*tensors: Tensor) -> list[tuple[int, str, tuple[int, ...]]]:
    """What native code gets to know of a tensor: pointer, dtype, strides in elements."""
    return [(t.data_ptr(), str(t.dtype).removeprefix("torch."), t.stride()) for t in tensors]


def cuda_place(x: Tensor) -> tuple[int, int]:
    """The device and the current stream of a CUDA tensor."""
    return x.device.index, torch.cuda.current_stream(x.device).cuda_stream


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
