"""Which backends there are, which one serves a call, and why the others do not."""

import importlib.metadata
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastllie import _native

NAMES = ("cpu", "cuda", "triton", "torch")
ENVIRONMENT = "FASTLLIE_BACKEND"
# Milliseconds of each operator by GPU and backend: `python benchmarks/gpu.py --keep` writes it
MEASURED = Path(__file__).with_name("measured.json")
TRITON_MINIMUM = (3, 3)  # older ones cannot compile our kernels: tried with 3.2 (no) and 3.3.1 (yes)


@dataclass(frozen=True)
class Backend:
    """A backend's name, whether it can serve here, and what it is or why it cannot."""

    name: str
    available: bool
    detail: str

    def __bool__(self) -> bool:
        return self.available


def _cpu() -> Backend:
    if _native.cpu is None:
        return Backend("cpu", False, _native.reasons["cpu"])
    return Backend("cpu", True, f"C++, instruction set {_native.cpu.isa()}")


def _cuda() -> Backend:
    if _native.cuda is None:
        return Backend("cuda", False, _native.reasons["cuda"])
    if not torch.cuda.is_available():
        return Backend("cuda", False, "fastllie._cuda is built, but torch sees no CUDA device")
    return Backend("cuda", True, f"CUDA C++ on {torch.cuda.get_device_name()}")


def interpreting() -> bool:
    """Whether Triton runs its kernels in its interpreter, on the CPU (a debugging mode, and our tests')."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _triton_version() -> str | None:
    """The installed version of triton, found without importing it; it comes with CUDA builds of torch."""
    for distribution in ("triton", "pytorch-triton"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _has_triton() -> bool:
    version = _triton_version()
    return version is not None and tuple(map(int, version.split(".")[:2])) >= TRITON_MINIMUM


def _triton() -> Backend:
    version = _triton_version()
    if version is None:
        return Backend("triton", False, "triton is not installed (it comes with CUDA builds of torch)")
    if not _has_triton():
        return Backend(
            "triton", False, f"triton {version} is older than {TRITON_MINIMUM[0]}.{TRITON_MINIMUM[1]}"
        )
    if interpreting():
        return Backend("triton", True, "Triton's interpreter (TRITON_INTERPRET=1): for debugging only")
    if not torch.cuda.is_available():
        return Backend("triton", False, "triton is installed, but torch sees no CUDA device")
    return Backend("triton", True, f"Triton on {torch.cuda.get_device_name()}")


def backends() -> dict[str, Backend]:
    """Every backend by name: whether it can serve on this machine, and the reason why not.

    Asks torch whether a CUDA device is there; starts no CUDA context.
    """
    return {
        "cpu": _cpu(),
        "cuda": _cuda(),
        "triton": _triton(),
        "torch": Backend("torch", True, f"PyTorch {torch.__version__}, the reference"),
    }


def check_name(backend: str) -> None:
    """Raise a ValueError unless `backend` is "auto" or a backend's name."""
    if backend != "auto" and backend not in NAMES:
        raise ValueError(f"backend must be 'auto' or one of {NAMES}, got {backend!r}")


@cache
def _measured() -> dict[str, dict[str, Any]]:
    devices: dict[str, dict[str, Any]] = json.loads(MEASURED.read_text(encoding="utf-8"))["devices"]
    return devices


def measured_faster(op: str | None, name: str, capability: tuple[int, int]) -> str | None:
    """Which of "cuda" and "triton" took less time for an operator on this GPU, or None where nobody measured.

    Args:
        op: The name of the torch op, e.g. "curve_forward"; None for nothing measured.
        name: The GPU's, as torch gives it. One that was not measured is taken for any of its compute
            capability that was.
        capability: Its compute capability.
    """
    devices = _measured()
    alike = (row for row in devices.values() if tuple(row["capability"]) == capability)
    row = devices.get(name) or next(alike, None)
    times = row["ms"].get(op, {}) if row else {}
    if not {"cuda", "triton"} <= set(times):
        return None
    return "triton" if times["triton"] < times["cuda"] else "cuda"


@cache
def _measured_on(op: str | None, index: int) -> str | None:
    capability = torch.cuda.get_device_capability(index)
    return measured_faster(op, torch.cuda.get_device_name(index), capability)


def _on_gpu(op: str | None, device: torch.device) -> str:
    if _native.cuda is None or not _has_triton():
        return "cuda" if _native.cuda is not None else "triton" if _has_triton() else "torch"
    # unmeasured: CUDA, whose kernels need no compiler and no warming up where they run
    return _measured_on(op, device.index) or "cuda"


def choose(backend: str, x: Tensor, op: str | None = None) -> str:
    """Return the name of the backend that serves `x`; "auto" asks FASTLLIE_BACKEND, then takes the fastest.

    Args:
        backend: "auto" or a backend's name.
        x: A tensor on the device in question.
        op: The operator that asks, by its torch name: on a GPU "auto" takes what was faster there for it.

    Raises:
        ValueError: an unknown name.
        RuntimeError: a backend asked for by name that cannot serve here, or not on the device of `x`.
    """
    asked = backend
    if asked == "auto":
        asked = os.environ.get(ENVIRONMENT, "auto")
        if asked != "auto" and asked not in NAMES:
            raise ValueError(f"{ENVIRONMENT} must be 'auto' or one of {NAMES}, got {asked!r}")
    if asked != "auto":
        found = backends()[asked]
        if not found:
            raise RuntimeError(f"backend {asked!r} cannot serve: {found.detail}")
        wanted = "cuda" if asked == "cuda" or (asked == "triton" and not interpreting()) else asked
        if wanted in ("cpu", "cuda") and x.device.type != wanted:
            raise RuntimeError(f"backend {asked!r} needs tensors on {wanted!r}, got {x.device}")
        return asked
    if x.is_cuda:
        return _on_gpu(op, x.device)
    return "cpu" if x.device.type == "cpu" and _native.cpu is not None else "torch"
