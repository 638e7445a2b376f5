"""Whether a backend really computes on a GPU: a tiny launch, once for each device, whose result is checked.

A module may load and yet be unable to launch: a driver that is older than the CUDA runtime it was built with,
a GPU that it has no machine code for, a Triton without a C compiler. Built for an older GPU than the one that
is here, Zero-DCE's kernel is launched and computes nothing, for want of tensor cores in its code.
"""

import math

import torch
from torch import Tensor

from fastllie.ops.launch import kernels

# What Zero-DCE's kernels read: rows of the packed weights, and layers by features
MATRICES, BIASES, FEATURES = (2640, 32), (7, 32), 32

_failures: dict[tuple[str, str, int], str | None] = {}


def failure(backend: str, op: str | None, index: int) -> str | None:
    """Why "cuda" or "triton" cannot serve an operator on a device, or None; found out once.

    Args:
        op: The name of the torch op. "zerodce_forward", which needs tensor cores, is tried by itself; all
            others by the smallest of them.
        index: The device's.
    """
    network = op == "zerodce_forward"
    key = backend, "zerodce" if network else "illumination", index
    if key not in _failures:
        # a recording of the caller's would be spoilt by waiting for a result: the next call finds out
        if torch.cuda.is_current_stream_capturing():
            return None
        _failures[key] = _tried(backend, torch.device("cuda", index), network)
    return _failures[key]


def forget() -> None:
    """Find out anew, for another module or device in the place of the one that was tried."""
    _failures.clear()


def _tried(backend: str, device: torch.device, network: bool) -> str | None:
    try:
        with torch.no_grad():
            right = (_network if network else _division)(backend, device)
    # a driver, a compiler, an assembler or a linker, each with errors of its own; `choose` goes on without
    except Exception as error:
        lines = str(error).strip().splitlines()
        return f"a tiny launch failed: {lines[0] if lines else type(error).__name__}"
    return None if right else "a tiny launch computed nothing or wrong values: built for another GPU?"


def _division(backend: str, device: torch.device) -> bool:
    """1/4 by 1/2, into memory that holds NaN before."""
    x, illum, out = (torch.full((1, 1, 1, 8), value, device=device) for value in (0.25, 0.5, math.nan))
    module, handles, place = kernels(backend, "illumination", x)
    module.illumination_forward(*handles(x, illum, out), tuple(x.shape), *place)
    return bool((out == 0.5).all())


def _network(backend: str, device: torch.device) -> bool:
    """Zero-DCE with weights of zero, whose maps are zero: the image itself, into memory that holds NaN."""

    def filled(value: float, *shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
        return torch.full(shape, value, dtype=dtype, device=device)

    x, out = filled(0.25, 1, 3, 8, 8), filled(math.nan, 1, 3, 8, 8)
    matrices, biases = filled(0, *MATRICES), filled(0, *BIASES, dtype=torch.float32)
    # zeros around: features of the image's size
    features = [filled(math.nan, 1, 8, 8, FEATURES) for _ in range(5)]
    features.append(features[-2])
    module, handles, place = kernels(backend, "zerodce", x)
    given = [t if backend == "triton" else t.data_ptr() for t in (matrices, biases, *features)]
    module.zerodce_forward(*handles(x, out), tuple(x.shape), 0, True, *given[:2], given[2:], *place)
    return bool((out == x).all())
