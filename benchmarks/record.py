"""What every benchmark does besides measuring: the machine, the allocator, and the file of figures."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# glibc keeps freed memory: page faults of fresh memory would be timed otherwise
KEEP_HEAP = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


def keep_heap() -> None:
    """Start this process anew with an allocator that keeps freed memory, unless it has one already."""
    if any(os.environ.get(name) != value for name, value in KEEP_HEAP.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_HEAP)


def machine(device: str) -> dict[str, Any]:
    """What something was measured on, with versions, the commit and the allocator's settings."""
    import torch

    from fastllie import _native
    from fastllie.benchmarking.machine import describe

    return describe(torch.device(device)) | {
        "instruction_set": _native.cpu.isa() if _native.cpu else None,
        "commit": git("rev-parse", "--short", "HEAD"),
        "uncommitted_changes": bool(git("status", "--porcelain", "--", "fastllie", "kernels", "csrc")),
        "allocator": {name: os.environ.get(name) for name in KEEP_HEAP},
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def git(*words: str) -> str:
    """What git answers; nothing outside a checkout."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def slug(*words: str) -> str:
    """The words as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


def path_of(benchmark: str, *words: str) -> Path:
    """The file of a benchmark, with what the words say behind its name: mostly the machine."""
    return RESULTS / f"{'--'.join(filter(None, (benchmark, slug(*words))))}.json"


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON: the whole of it, or nothing."""
    from fastllie.images.files import replacing

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        Path(temporary).write_text(text, encoding="utf-8")


def of_tests(module: str) -> ModuleType:
    """A module that the tests and the benchmarks share."""
    if str(ROOT / "tests") not in sys.path:
        sys.path.insert(0, str(ROOT / "tests"))
    return importlib.import_module(module)
