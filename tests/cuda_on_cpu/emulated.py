"""Let backend "cuda" serve tensors of the CPU, by the kernels that build.py made."""

import ctypes
import importlib.util
import json
import os
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fastllie import _native
from fastllie.ops import backend as backends

from . import build


@dataclass
class Launch:
    """What the emulator saw of a launch; the counts are those of a meter that was on."""

    kernel: str
    blocks: int
    threads: int
    static_shared: int
    dynamic_shared: int
    barriers: int
    stream: int
    branches: int
    divergent: int
    misaligned: int
    races: list[int]
    sites: list[dict] = field(repr=False)

    def _sum(self, what: str, space: str, write: bool | None = None) -> int:
        chosen = (s for s in self.sites if s["space"] == space and write in (None, s["write"]))
        return sum(site[what] for site in chosen)

    def sectors(self, write: bool | None = None) -> float:
        """Sectors of 32 bytes of global memory, as a share of what the bytes asked for need."""
        return self._sum("cost", "global", write) / max(1, self._sum("ideal", "global", write))

    def conflicts(self) -> float:
        """Turns that shared memory takes, as a share of what they would be without bank conflicts."""
        return self._sum("cost", "shared") / max(1, self._sum("ideal", "shared"))

    def traffic(self) -> int:
        """Bytes that move between the multiprocessors and the memory behind them."""
        return 32 * self._sum("cost", "global")


class Library:
    """Compiled kernels, and how their launches run."""

    def __init__(self, path: Path):
        self.library = ctypes.CDLL(str(path))
        self.library.emulator_launches.restype = ctypes.c_char_p

    def seed(self, seed: int) -> None:
        """The order of blocks, warps and lanes; 0: as they are numbered."""
        self.library.emulator_seed(ctypes.c_uint64(seed))

    def meter(self, on: bool) -> None:
        """Count what memory would have to do, and look for races, from now on or no more."""
        self.library.emulator_meter(int(on))

    def launches(self) -> list[Launch]:
        """Those since this was last asked."""
        return [Launch(**launch) for launch in json.loads(self.library.emulator_launches())]


class Emulator(Library):
    """The module that stands in for fastllie._cuda."""

    def __init__(self, path: Path):
        super().__init__(path)
        spec = importlib.util.spec_from_file_location("_cuda", path)
        assert spec
        assert spec.loader
        self.module: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.device, self.stream = 0, 0  # where every launch is asked to run

    def current_device(self) -> int:
        return self.library.emulator_device()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Serve tensors of the CPU that ask for backend "cuda" by name."""
        patch.setattr(_native, "cuda", self.module)
        patch.setattr(backends, "_cuda", lambda *_: backends.Backend("cuda", True, "emulated"))
        choose = backends.choose

        def chosen(backend: str, *rest: object) -> str:
            asked = os.environ.get(backends.ENVIRONMENT) if backend == "auto" else backend
            return "cuda" if asked == "cuda" else choose(backend, *rest)

        patch.setattr(backends, "choose", chosen)
        for name, module in sys.modules.items():
            if name.startswith("fastllie.ops.") and hasattr(module, "cuda_place"):
                patch.setattr(module, "cuda_place", lambda x: (self.device, self.stream))


def absent() -> str | None:
    """Why the kernels cannot be emulated here, or None."""
    if torch.cuda.is_available():
        return "a GPU is here"
    if not sys.platform.startswith("linux"):
        return "the emulator is for Linux"
    if not build.CSRC.is_dir():
        return "the sources are not here"
    if importlib.util.find_spec("pybind11") is None:
        return "pybind11 is not here"
    return None if build.compiler() else "a C++ compiler is not here"


@cache
def emulator(kind: str = "metered") -> Emulator:
    """The one of this process."""
    return Emulator(build.build(kind))
