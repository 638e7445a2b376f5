"""Networks from files of weights: one of the caller's own, or one that is loaded once and shared."""

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fastllie import checkpoint, methods
from fastllie.models.network import Network

logger = logging.getLogger("fastllie")
CACHED_MODELS = 8
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Weights = str | os.PathLike[str] | None
Device = str | torch.device | None

# of the cache, and of what is compiled
_lock = threading.Lock()
_forked = False
_models: OrderedDict[Any, Network] = OrderedDict()


def open_network(
    method: str, weights: Weights, device: Device, dtype: torch.dtype | None, options: Mapping[str, Any]
) -> Network:
    """A network that belongs to the caller: see `fastllie.load`."""
    path = checkpoint.find(method, weights)
    network = checkpoint.build(method, path, methods.options_of(method, options))
    return network.to(device=device_of(device) or torch.device("cpu"), dtype=dtype_of(dtype))


def shared_network(
    method: str, path: Path, device: torch.device, dtype: torch.dtype, options: Mapping[str, Any]
) -> Network:
    """The network for these settings, loaded once; the file's time and size are part of the key.

    Nobody changes it: it packs its weights once, and looks at them no more.
    """
    file, place = checkpoint.parted(path)
    state = file.stat()
    key = (
        method,
        file.resolve(),
        place,
        state.st_mtime_ns,
        state.st_size,
        device,
        dtype,
        tuple(options.items()),
    )
    with _lock:
        if key in _models:
            _models.move_to_end(key)
            return _models[key]
        # ordinary tensors, in whatever mode the caller is
        with torch.inference_mode(False):
            network = checkpoint.build(method, path, options).requires_grad_(False)
            network = network.to(device=device, dtype=dtype)
            if device.type == "cpu":
                # see tiles.CPU_TILE
                network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.settle()
        logger.info("%s: weights %s on %s in %s", method, path, device, str(dtype).removeprefix("torch."))
        _models[key] = network
        while len(_models) > CACHED_MODELS:
            _models.popitem(last=False)
        return network


def exclusively() -> threading.Lock:
    """The lock of what is loaded and compiled; a fork gets a new one."""
    return _lock


def device_of(device: Device) -> torch.device | None:
    """The device that was asked for, if any, with its index where it is CUDA.

    Raises:
        TypeError: something else.
        ValueError: an unknown device, or one that is not there.
    """
    if device is None:
        return None
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device must be a string, a torch.device or None, got {type(device).__name__}")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}; wanted 'cpu', 'cuda', 'cuda:0', ...") from error
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (found.index or 0) >= count:
            raise ValueError(f"device {device!r} is not there: torch sees {count} CUDA devices")
        return torch.device("cuda", torch.cuda.current_device() if found.index is None else found.index)
    if found.type == "meta":
        raise ValueError("device 'meta' holds no values: nothing can be computed there")
    if found.type != "cpu":
        _check_there(device, found)
    return found


def _check_there(device: str | torch.device, found: torch.device) -> None:
    """Of other devices (mps, xpu, ...) torch alone knows whether they are there, and says so in many ways."""
    try:
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        raise ValueError(f"device {str(device)!r} is not there: {reason}") from error


def default_device() -> torch.device:
    """Where images are enhanced that are on no device yet."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype_of(dtype: torch.dtype | None) -> torch.dtype:
    """The dtype that was asked for; None is float32.

    Raises:
        TypeError: something else.
    """
    if dtype is None:
        return torch.float32
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be one of {FLOATS} or None, got {dtype!r}")
    return dtype


def _after_a_fork() -> None:
    """In the child: a lock that another thread held would be held for ever."""
    global _lock, _forked
    _lock = threading.Lock()
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_a_fork)


def one_thread_after_a_fork() -> None:
    """GNU OpenMP waits for its threads, which a fork does not copy: PyTorch's convolutions would hang."""
    if _forked and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
