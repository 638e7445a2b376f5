"""Memory: how much is left, and how much a call takes at the most."""

import ctypes
import math
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GROUP = Path("/sys/fs/cgroup")
PROCESS = Path("/proc/self")


def free_memory(device: torch.device) -> float:
    """Bytes that may still be taken; infinity where the system does not say."""
    if device.type == "cuda":
        # what PyTorch keeps for later is free, too
        kept_for_later = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept_for_later)
    found = math.inf
    listed = Path("/proc/meminfo")
    if listed.exists():
        match = re.search(r"MemAvailable:\s+(\d+) kB", listed.read_text())
        found = float(match[1]) * 1024 if match else found
    try:
        most = (GROUP / "memory.max").read_text().strip()
        used = int((GROUP / "memory.current").read_text())
        # files that are kept because there is room
        kept = re.search(r"^inactive_file (\d+)", (GROUP / "memory.stat").read_text(), re.MULTILINE)
    except OSError:
        return found
    if most == "max":
        return found
    # a container may take less than the machine has
    return min(found, float(most) - used + (int(kept[1]) if kept else 0))


def growth(call: Callable[[], Any], device: torch.device) -> tuple[Any, float | None]:
    """What a call returns, and how many bytes it took at the most; None where the system does not say.

    On a GPU these are of its tensors, on a CPU of the whole process.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        return result, float(torch.cuda.max_memory_allocated(device) - before)
    held = _forget_peak()
    result = call()
    return result, None if held is None else float(max(0, _resident("VmHWM") - held))


def _forget_peak() -> int | None:
    """Give freed memory back and let the process's peak begin anew; the bytes that it holds then."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        (PROCESS / "clear_refs").write_text("5")
        return _resident("VmRSS")
    except (OSError, AttributeError):
        return None


def _resident(name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", (PROCESS / "status").read_text(), re.MULTILINE)
    if match is None:
        raise OSError(f"{PROCESS}/status does not say {name}")
    return 1024 * int(match[1])


class Peak(TorchDispatchMode):
    """The most bytes that the tensors made inside held at one time, in `most`; the CPU counts none."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._held = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._held += size
        self.most = max(self.most, self._held)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._held -= size
