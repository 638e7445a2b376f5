"""Frames of bytes as batches, and the buffers that their results go to."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def check_frames(name: str, frames: Any) -> None:
    """Raise unless `frames` are an array of bytes, `(H, W, 3)` or `(B, H, W, 3)`, with pixels."""
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        given = f"an array of {frames.dtype}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise TypeError(f"{name} must be a numpy.ndarray of uint8, got {given}")
    if frames.ndim not in (3, 4) or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"{name} must be (H, W, 3) or (B, H, W, 3), not empty, got shape {frames.shape}")


def buffer_for(frame: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """`out`, once it is known to be fit for the result of `frame`, or a new array.

    Raises:
        TypeError, ValueError: as `Enhancer.preprocess`.
    """
    if out is None:
        return np.empty(frame.shape, np.uint8)
    check_frames("out", out)
    if out.shape != frame.shape:
        raise ValueError(f"out must have the shape of frame, {frame.shape}, got {out.shape}")
    if not out.flags.writeable or min(out.strides) < 0:
        raise ValueError("out must be writeable and have positive strides")
    if np.shares_memory(frame, out):
        raise ValueError("out shares memory with frame; wanted a buffer of its own")
    return out


def planes(frames: np.ndarray) -> Tensor:
    """Frames as a batch `[B, 3, H, W]`: a view, or a copy where torch cannot have one."""
    usable = frames.flags.writeable and min(frames.strides) >= 0
    x = torch.from_numpy(frames if usable else frames.copy())
    return (x if x.dim() == 4 else x.unsqueeze(0)).permute(0, 3, 1, 2)
