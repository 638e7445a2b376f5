"""Where a backend's kernels are, what they get to know of tensors, and where they run."""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastllie import _native

Handle = tuple[int, str, tuple[int, ...]]


class Kernels(NamedTuple):
    """How an operator is launched: `module.NAME(*handles(tensor, ...), setting, ..., *place)`.

    Attributes:
        module: Of the backend; all have the same functions with the same arguments.
        handles: What its functions take in a tensor's place.
        place: Their last arguments: the number of threads, or a device and a stream.
    """

    module: Any
    handles: Callable[..., Sequence[Any]]
    place: tuple[int, ...]


def kernels(backend: str, operator: str, x: Tensor) -> Kernels:
    """The kernels of an operator on a backend that `choose` gave for `x`; "torch" has none."""
    if backend == "cpu":
        return cpu_kernels()
    if backend == "cuda":
        return Kernels(_native.cuda, views, cuda_place(x))
    return _triton_kernels(operator)


def cpu_kernels() -> Kernels:
    """The kernels of the operators that only the CPU has."""
    return _on_threads(_native.cpu, torch.get_num_threads())


def has_tiles() -> bool:
    """Whether this processor multiplies tiles of bfloat16 (AMX), and the system lets it."""
    return _native.cpu is not None and _native.cpu.has_tiles()


# an operator on a small image takes as long as a few such tuples do
@cache
def _on_threads(module: Any, threads: int) -> Kernels:
    return Kernels(module, views, (threads,))


@cache
def _triton_kernels(operator: str) -> Kernels:
    return Kernels(import_module(f"fastllie.kernels.{operator}"), lambda *tensors: tensors, ())


_NOWHERE: Handle = (0, "float32", ())


def views(*tensors: Tensor | None) -> list[Handle]:
    """What native code gets to know of a tensor, or of none: pointer, dtype, strides in elements."""
    return [_NOWHERE if t is None else (t.data_ptr(), _name_of(t.dtype), t.stride()) for t in tensors]


@cache
def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def cuda_place(x: Tensor) -> tuple[int, int]:
    """The device and the current stream of a CUDA tensor."""
    return x.device.index, torch.cuda.current_stream(x.device).cuda_stream
