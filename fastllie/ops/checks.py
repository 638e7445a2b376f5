"""What is checked of an operator's arguments at the door, each with one wording: images, devices, outputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastllie import _native, checks
from fastllie.checks import check_number as check_number
from fastllie.checks import is_number as is_number

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def is_int(value: Any, least: int | None = None) -> bool:
    """Whether `value` is an integer (one of torch.compile's symbols, too), no bool, and not below `least`."""
    if isinstance(value, torch.SymInt):
        return least is None or bool(value >= least)
    return checks.is_int(value, least)


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise a ValueError unless `value` is an integer of at least `least`."""
    if not is_int(value, least):
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raise a ValueError unless `value` is one of those."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")


def check_tensor(name: str, tensor: Any, dtypes: Sequence[torch.dtype] = FLOATS) -> None:
    """Raise a TypeError unless it is a tensor of one of the dtypes."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.dtype not in dtypes:
        *others, last = (str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name} must be {', '.join(others)} or {last}, got {tensor.dtype}")


def check_images(dtypes: Sequence[torch.dtype] = FLOATS, /, **tensors: Tensor) -> None:
    """Raise a TypeError or ValueError unless all are `[B, C, H, W]` of one of the dtypes, on one device."""
    for name, tensor in tensors.items():
        # asked here too: of a small image a call that finds nothing is a share of the time
        if not isinstance(tensor, Tensor) or tensor.dtype not in dtypes:
            check_tensor(name, tensor, dtypes)
        if tensor.dim() != 4:
            raise ValueError(f"{name} must be [B, C, H, W], got shape {tuple(tensor.shape)}")
    check_one_device(**tensors)


def check_one_device(**tensors: Tensor) -> None:
    """Raise a ValueError unless all are on one device."""
    first, *others = tensors.values()
    for other in others:
        if other.device != first.device:
            devices = (str(tensor.device) for tensor in tensors.values())
            raise ValueError(f"{' and '.join(tensors)} must be on one device, got {' and '.join(devices)}")


def check_rgb(dtypes: Sequence[torch.dtype], x: Tensor) -> None:
    """`check_images` of one `x`, which must have three channels."""
    check_images(dtypes, x=x)
    if x.shape[1] != 3:
        raise ValueError(f"x must have 3 channels, got shape {tuple(x.shape)}")


def check_on_cpu(operator: str, x: Tensor) -> None:
    """Raise a RuntimeError unless `fastllie._cpu` was built and `x` is on the CPU."""
    if _native.cpu is None:
        raise RuntimeError(f"{operator} needs the compiled module: {_native.reasons['cpu']}")
    if x.device.type != "cpu":
        raise RuntimeError(f"{operator} needs tensors on 'cpu', got {x.device}")


def check_no_gradient(operator: str, *tensors: Tensor, otherwise: str = "") -> None:
    """Raise a RuntimeError if autograd would record the call; the message may say what to do otherwise."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise RuntimeError(
            f"{operator} is for inference and has no gradient: call it under torch.no_grad(){otherwise}"
        )


def check_out(out: Tensor, x: Tensor, shape: Sequence[int]) -> None:
    """Raise a TypeError or ValueError unless `out` is of that shape, and of the dtype and device of `x`."""
    if not isinstance(out, Tensor):
        raise TypeError(f"out must be a torch.Tensor, got {type(out).__name__}")
    if out.dtype != x.dtype:
        raise TypeError(f"out must be {x.dtype}, as x, got {out.dtype}")
    if tuple(out.shape) != tuple(shape) or out.device != x.device:
        like = ", as x" if tuple(shape) == tuple(x.shape) else ""
        given = f"{list(out.shape)} on {out.device}"
        raise ValueError(f"out must be {list(shape)} on {x.device}{like}, got {given}")
    # what is plain to see; overlaps of other views are the caller's care, as for PyTorch's own `out`
    if out.data_ptr() == x.data_ptr() and x.numel():
        raise ValueError("out is the memory of x; wanted another tensor")
