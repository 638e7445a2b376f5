"""Which of the backends of a GPU is the faster one for an operator: by measurements, else by estimates."""

import json
from functools import cache
from pathlib import Path
from typing import Any

# Milliseconds of each operator by GPU and backend: `python benchmarks/gpu.py --keep` writes it
MEASURED = Path(__file__).with_name("measured.json")
# By machine code for sm_90, not measured: these issue at least 15 % fewer instructions in Triton than in CUDA
# C++ (benchmarks/results/triton-budget.json). All others are CUDA's, which needs no compiler where it runs
ESTIMATED = {
    "curve_backward": "triton",
    "illumination_backward": "triton",
    "illuminate_backward": "triton",
}


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


def faster(op: str | None, name: str, capability: tuple[int, int]) -> str:
    """`measured_faster`, and where nobody measured the backend that the estimates prefer."""
    return measured_faster(op, name, capability) or ESTIMATED.get(op or "", "cuda")
