"""What the CUDA kernels cost by their machine code, without a GPU: registers, widths, instructions.

    python benchmarks/gpu_budget.py                    # results/gpu-budget.json and docs/gpu.md's table
    python benchmarks/gpu_budget.py --architectures 90  # compiles for these alone
    python benchmarks/gpu_budget.py --page             # the table alone, from the committed figures

Needs nvcc, and cuobjdump and nvdisasm on the path or in an installed triton. Times that it writes are floors
by the number of instructions that an H200 can issue, not measurements.
"""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gpu_networks
import machine_code
from machine_code import COPIED, ISSUED

RESULT = machine_code.ROOT / "benchmarks" / "results" / "gpu-budget.json"
PAGE = machine_code.ROOT / "docs" / "gpu.md"
MARKS = "<!-- gpu_budget.py writes from here -->\n", "<!-- to here -->\n"


@dataclass(frozen=True)
class Row:
    """A kernel on 8 images of 1920 x 1080 in float32, whose threads do `pixels` of a channel.

    Attributes:
        tensors: Of the image's size, read and written.
        turns: How often a thread goes through each loop of the program each time that it comes to it, in the
            order of `Kernel.nest`; None where it goes through the largest once, and through no other.
    """

    title: str
    kernel: str
    tensors: float
    pixels: float
    channels: int = 3
    turns: tuple[float, ...] | None = None

    def issued(self, kernel: dict[str, Any]) -> float:
        """Instructions of a thread."""
        if self.turns is None:
            return float(kernel["path"])
        *loops, (_, count) = kernel["nest"]
        if len(loops) != len(self.turns):
            raise RuntimeError(f"{self.kernel} has {len(loops)} loops, and {len(self.turns)} are known")
        times: list[float] = []
        # a loop comes after the one around it
        for (around, own), turns in zip(loops, self.turns, strict=True):
            times.append(turns * (times[around] if around >= 0 else 1))
            count += own * times[-1]
        return float(count)


PIXELS = 8 * 1080 * 1920
# The grid of dawn, of 8 rows and 12 columns, makes 16 bands of rows, and gaps of 240 and 160 columns between
# its cells. Lanes that have a column, and those of blocks of 128 and of 64 threads
BAND = 1080 / 16
LANES, LANES_OF_128, LANES_OF_64 = (2 * 256 + 9 * lanes for lanes in (160, 256, 192))
LOSSES = "{}_kernel<float, float, false, {}, true>"
ROWS = (
    Row("curve", "curve_forward_kernel<float, float, false, false, 4>", 10, 4),
    Row("curve, tanh inside", "curve_forward_kernel<float, float, false, true, 4>", 10, 4),
    Row("curve backward", "curve_backward_kernel<float, float, false, false, 4>", 19, 4),
    Row("curve backward, tanh inside", "curve_backward_kernel<float, float, false, true, 4>", 19, 4),
    Row("division", "map_kernel<float, DivideForward, 4>", 3, 4),
    Row("division backward", "map_kernel<float, DivideBackward, 4>", 5, 4),
    Row("illumination", "map_kernel<float, IlluminateForward, 4>", 5, 4),
    Row("illumination backward", "map_kernel<float, IlluminateBackward, 4>", 8, 4),
    # a block of 256 threads holds 36 rows of 36 pixels: a warp has five rows of 32, and then what is beside
    Row("smoothness", "forward_kernel<float, 0, false>", 2, 4, 1, (36 * 4 / 256,)),
    Row("smoothness backward", "backward_kernel<float, 0, false>", 4, 4, 1, (36 * 4 / 256,)),
    # a lane has 16 rows of a column: loops over channels, cells, rows, the maps beside, and cells again. The
    # backward's first and last of 32 lanes only help the others
    Row("zero-reference", LOSSES.format("forward", "false"), 9, 16, 1, (3, 4, 4, 8, 4)),
    Row("zero-reference, tanh inside", LOSSES.format("forward", "true"), 9, 16, 1, (3, 4, 4, 8, 4)),
    Row("zero-reference backward", LOSSES.format("backward", "false"), 18, 16 * 30 / 32, 3, (4, 4)),
    Row(
        "zero-reference backward, tanh inside", LOSSES.format("backward", "true"), 18, 16 * 30 / 32, 3, (4, 4)
    ),
    # loops that take the cells, and over 16 rows at a time; in it one that mixes cells, a row a warp, and one
    # over rows of pixels. Backward a loop for blocks without pixels comes first, and at last one over sums
    Row(
        "grid curve", "gridcurve_forward_kernel<float, true>", 7 / 3, BAND * 1920 / LANES_OF_128, 1,
        (1, 5, BAND / 5 / 4, BAND / 5 * LANES / LANES_OF_128),
    ),
    Row(
        "grid curve backward", "gridcurve_backward_kernel<float, true>", 11 / 3, BAND * 1920 / LANES_OF_64, 1,
        (0, 2, 5, BAND / 5 / 2, BAND / 5 * LANES / LANES_OF_64, 1),
    ),
)  # fmt: skip


def estimates(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The table's rows: milliseconds of a copy and of issuing the instructions on an H200."""
    rows = []
    for row in ROWS:
        kernel = found[row.kernel]
        threads = PIXELS * row.channels / row.pixels
        copy = PIXELS * 3 * 4 * row.tensors / COPIED
        instructions = row.issued(kernel)
        floor = instructions * threads / machine_code.WARP / ISSUED
        rows.append(
            {
                "title": row.title,
                "copy_ms": round(copy * 1e3, 3),
                "floor_ms": round(floor * 1e3, 3),
                "share": round(floor / copy, 2),
                "instructions": round(instructions),
                "registers": kernel["registers"],
                "in_flight": kernel["in_flight"],
            }
        )
    return rows


def record(architectures: Sequence[int]) -> dict[str, Any]:
    by_architecture = {
        str(architecture): {kernel.name: asdict(kernel) for kernel in machine_code.kernels(architecture)}
        for architecture in architectures
    }
    for found in by_architecture.values():
        for kernel in found.values():
            del kernel["name"]
    release = re.search(r"release (\S+),", machine_code.run("nvcc", "--version"))
    return {
        "nvcc": release[1] if release else "unknown",
        "estimates_h200": estimates(by_architecture["90"]),
        "networks_h200": gpu_networks.estimates(),
        "architectures": by_architecture,
    }


def page(found: dict[str, Any]) -> str:
    """The table of docs/gpu.md."""
    lines = [
        "Estimates from the machine code for sm_90, none of them measured: how long an H200 needs to copy",
        "as much as the operator reads and writes (at 4.3 TB/s), and how long to issue its instructions;",
        "8 images of 1920 x 1080 in float32. All instantiations for "
        f"{', '.join(f'sm_{name}' for name in found['architectures'])}, by nvcc {found['nvcc']}, are in",
        "[gpu-budget.json](../benchmarks/results/gpu-budget.json).",
        "",
        "| | copy, ms | instructions, ms | share | instructions a thread | registers | bytes in flight |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["estimates_h200"]:
        cells = [row["title"], f"{row['copy_ms']:.3f}", f"{row['floor_ms']:.3f}", f"{row['share']:.2f}"]
        cells += [str(row[key]) for key in ("instructions", "registers", "in_flight")]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "The networks, one frame of 1920 x 1080, in microseconds: to issue their instructions, to take turns",
        "at shared memory and the first cache (as if no two lanes asked for the same), to multiply on tensor",
        "cores at the rate of the data sheet, and to move what they read and write. The largest binds.",
        "",
        "| | instructions | shared memory | tensor cores | memory |",
        "|---|---|---|---|---|",
    ]
    for row in found["networks_h200"]:
        times = (row.get(f"{kind}_us") for kind in ("issue", "requests", "tensor", "memory"))
        cells = [row["title"], *("" if time is None else f"{time:.1f}" for time in times)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def with_table(text: str, found: dict[str, Any]) -> str:
    begin, end = (text.index(mark) for mark in MARKS)
    return text[: begin + len(MARKS[0])] + page(found) + text[end:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--page", action="store_true", help="only write the table, from the committed figures"
    )
    parser.add_argument(
        "--architectures", type=int, nargs="+", choices=machine_code.CHIPS, default=list(machine_code.CHIPS)
    )
    arguments = parser.parse_args()
    if not arguments.page:
        found = record(sorted({90, *arguments.architectures}))
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
