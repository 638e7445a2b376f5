"""The tables of what is known of a GPU without one."""

from pathlib import Path
from typing import Any

from cells import load, table

# operator -> rows of gpu_budget.py's table: the forms that it comes in
FORMS = {
    "curve_forward": ("curve", "curve, tanh inside"),
    "curve_backward": ("curve backward", "curve backward, tanh inside"),
    "illumination_forward": ("division",),
    "illumination_backward": ("division backward",),
    "illuminate_forward": ("illumination",),
    "illuminate_backward": ("illumination backward",),
}
# Triton compiles when a kernel is first used, and its launches take longer: it has to be better by that much
MARGIN = 0.85
UNITS = {"instructions": "instructions", "registers": "registers", "in_flight": "bytes in flight"}


def _by_backend(results: Path) -> dict[str, dict[str, Any]]:
    """Of CUDA C++ and of Triton: form -> what its machine code costs."""
    cuda = load(results / "gpu-budget.json")["estimates_h200"]
    return {
        "CUDA C++": {row["title"]: row for row in cuda},
        "Triton": load(results / "triton-budget.json")["kernels"],
    }


def preferred(results: Path) -> list[str]:
    """The operators of which Triton issues clearly fewer instructions, all forms together."""
    found = _by_backend(results)

    def issued(name: str, op: str) -> int:
        return sum(found[name][form]["instructions"] for form in FORMS[op])

    return [op for op in FORMS if issued("Triton", op) <= MARGIN * issued("CUDA C++", op)]


def estimates(results: Path) -> str:
    """Instructions of each operator in CUDA C++ and Triton, and which of them "auto" prefers by these."""
    found, better = _by_backend(results), preferred(results)
    about = load(results / "triton-budget.json")
    lines = [
        [
            form,
            *(str(rows[form][key]) for key in UNITS for rows in found.values()),
            "Triton" if op in better else "CUDA C++",
        ]
        for op, forms in FORMS.items()
        for form in forms
    ]
    head = ["", *(f"{unit}, {name}" for unit in UNITS.values() for name in found), "serves"]
    by = f"sm_{about['architecture']}, by Triton {about['triton']}"
    record = "[triton-budget.json](../benchmarks/results/triton-budget.json)"
    note = f"Of a thread with four pixels in float32, for {by}: {record}. None of this is measured.\n\n"
    return note + table(head, lines)


def launches(results: Path) -> str:
    """What each method's training step launches, and what operators take the host."""
    kept = load(results / "launches.json")
    found, before = kept["now"], kept["before"]["host_us"]
    steps = [
        [title, *(str(counts[name]) if name in counts else "" for name in ("published", "fastllie"))]
        for title, counts in found["launches"].items()
    ]
    host = [[call, f"{before[call]:.1f}", f"{taken:.1f}"] for call, taken in found["host_us"].items()]
    return (
        "Counted on the CPU, without a GPU: [launches.json](../benchmarks/results/launches.json).\n\n"
        + table(["launches of a training step", "published code", "fastllie"], steps)
        + "\n\n"
        + table(["host's time of an operator on 4 x 4 pixels", "before, µs", "now, µs"], host)
    )
