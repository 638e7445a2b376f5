"""Why `tile="auto"` takes the side it takes on a CPU: time and peak memory of one image, whole and in tiles.

    python benchmarks/tiles.py [--method zerodce++] [--size 1920x1080] [--rounds 3]

Every case runs in a process of its own, so that its peak is its own. Rounds are interleaved and the minimum
counts, because other work on the machine only adds; on a shared one CPU seconds are the steadier figure.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from functools import partial

import torch

import fastllie
from fastllie.inference.tiles import CPU_TILE, tiled

SIDES = (96, 128, 192, 256, 320, 384)
CASES = [("NCHW", None), ("NHWC", None), *(("NHWC", side) for side in SIDES)]


def measure(method: str, width: int, height: int, layout: str, tile: int | None) -> dict[str, float]:
    """One case: seconds, CPU seconds, and MB that the process grew by at its peak."""
    memory = torch.channels_last if layout == "NHWC" else torch.contiguous_format
    model = fastllie.load(method).to(memory_format=memory)
    x = torch.rand(1, 3, height, width).contiguous(memory_format=memory)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    with torch.no_grad():
        # the first run too: its page faults are part of what a large image costs
        cropping = partial(model, cropped=True) if model.contract.crops else None
        tiled(model, x, tile, model.contract.halo, cropping=cropping)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "cpu": cpu, "MB": (peak - before) / 1024}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", default="zerodce")
    parser.add_argument("--size", default="1920x1080", help="width x height")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    if arguments.case:
        print(json.dumps(measure(arguments.method, width, height, *json.loads(arguments.case))))
        return 0
    found: dict[int, list[dict[str, float]]] = {place: [] for place in range(len(CASES))}
    command = [sys.executable, __file__, "--method", arguments.method, "--size", arguments.size]
    for _ in range(arguments.rounds):
        for place, case in enumerate(CASES):
            done = subprocess.run([*command, "--case", json.dumps(case)], capture_output=True, check=True)
            found[place].append(json.loads(done.stdout))
    print(
        f"{arguments.method}, {arguments.size}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    for place, (layout, tile) in enumerate(CASES):
        best = {key: min(run[key] for run in found[place]) for key in ("seconds", "cpu", "MB")}
        auto = '  <- "auto"' if tile == CPU_TILE else ""
        name = f"{layout} {f'tiles of {tile}' if tile else 'untiled'}"
        print(f"{name:20} {best['seconds']:6.2f} s {best['cpu']:6.2f} CPU s {best['MB']:6.0f} MB{auto}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
