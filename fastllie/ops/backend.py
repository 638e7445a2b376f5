"""Which backends there are, which one serves a call, and why the others do not."""

import importlib.metadata
import os
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from fastllie import _native
from fastllie.ops.measured import faster
from fastllie.ops.trial import failure

NAMES = ("cpu", "cuda", "triton", "torch")
ENVIRONMENT = "FASTLLIE_BACKEND"
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


def _cuda(op: str | None = None, index: int | None = None) -> Backend:
    if _native.cuda is None:
        return Backend("cuda", False, _native.reasons["cuda"])
    if not torch.cuda.is_available():
        return Backend("cuda", False, "fastllie._cuda is built, but torch sees no CUDA device")
    return _tried_on_gpu("cuda", "CUDA C++", op, index)


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


@cache
def _has_triton() -> bool:
    version = _triton_version()
    return version is not None and tuple(map(int, version.split(".")[:2])) >= TRITON_MINIMUM


def _triton(op: str | None = None, index: int | None = None) -> Backend:
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
    return _tried_on_gpu("triton", "Triton", op, index)


def _tried_on_gpu(name: str, title: str, op: str | None, index: int | None) -> Backend:
    """Index None: the current device."""
    index = torch.cuda.current_device() if index is None else index
    device = torch.cuda.get_device_name(index)
    reason = failure(name, op, index)
    return Backend(name, reason is None, f"{title} on {device}" if reason is None else f"{reason} ({device})")


def backends() -> dict[str, Backend]:
    """Every backend by name: whether it can serve on this machine, and the reason why not.

    Where torch sees a CUDA device, each backend for it is tried once by a tiny launch on the current one.
    """
    return {
        "cpu": _cpu(),
        "cuda": _cuda(),
        "triton": _triton(),
        "torch": _torch(),
    }


def _torch() -> Backend:
    return Backend("torch", True, f"PyTorch {torch.__version__}, the reference")


def _found(name: str, op: str | None, x: Tensor) -> Backend:
    """One of `backends()`, for an operator on the device of `x`."""
    index = x.device.index if x.is_cuda else None
    if name == "cuda":
        return _cuda(op, index)
    if name == "triton":
        return _triton(op, index)
    return _cpu() if name == "cpu" else _torch()


def check_name(backend: str) -> None:
    """Raise a ValueError unless `backend` is "auto" or a backend's name."""
    if backend != "auto" and backend not in NAMES:
        raise ValueError(f"backend must be 'auto' or one of {NAMES}, got {backend!r}")


@cache
def _preferred(op: str | None, index: int) -> str:
    capability = torch.cuda.get_device_capability(index)
    return faster(op, torch.cuda.get_device_name(index), capability)


def _on_gpu(op: str | None, index: int) -> str:
    """The faster backend of those that are here and compute on this device; PyTorch if none does."""
    here = [name for name, found in (("cuda", _native.cuda is not None), ("triton", _has_triton())) if found]
    # its interpreter is for debugging, which nobody wants where a kernel is
    if len(here) == 2 and not interpreting() and _preferred(op, index) == "triton":
        here.reverse()
    return next((name for name in here if failure(name, op, index) is None), "torch")


# What os.environ asks, where that is known: for what is not set os.environ makes and catches two exceptions,
# which takes as long as an operator's kernel on a small image
_ENVIRON = os.environ
_VARIABLES = getattr(_ENVIRON, "_data", None)
_KEY = None if _VARIABLES is None else _ENVIRON.encodekey(ENVIRONMENT)


def _asked_for() -> str:
    """FASTLLIE_BACKEND, or "auto"."""
    if os.environ is _ENVIRON and _VARIABLES is not None and _KEY not in _VARIABLES:
        return "auto"
    return os.environ.get(ENVIRONMENT, "auto")


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
    asked = _asked_for() if backend == "auto" else backend
    if asked == "auto":
        if x.is_cuda:
            return _on_gpu(op, x.device.index)
        return "cpu" if x.is_cpu and _native.cpu is not None else "torch"
    if backend == "auto" and asked not in NAMES:
        raise ValueError(f"{ENVIRONMENT} must be 'auto' or one of {NAMES}, got {asked!r}")
    found = _found(asked, op, x)
    if not found:
        raise RuntimeError(f"backend {asked!r} cannot serve: {found.detail}")
    wanted = "cuda" if asked == "cuda" or (asked == "triton" and not interpreting()) else asked
    if wanted in ("cpu", "cuda") and x.device.type != wanted:
        raise RuntimeError(f"backend {asked!r} needs tensors on {wanted!r}, got {x.device}")
    return asked
