"""Time NeRCo's inference: ours beside the published structure, in one run.

    python benchmarks/nerco.py                   # 600x400 at the published width, GPU if there is one
    python benchmarks/nerco.py --sizes 256x256   # another size

"as published" are plain modules with the published layers, of which only those run that an enhanced image
needs; "folded" is our network layer by layer, the way it is trained; "in strips" is what users get. All have
the same random weights, and run channels last on the CPU where that is faster for them. Rounds take turns and
the best of each contender counts. Peak memory is that of a process of its own: on the CPU of all of it,
with what Python, PyTorch and the weights take; on a GPU of its tensors. A contender in float32 whose result
differs from the published by more than 1e-3 is not reported.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ops

SIZES = {"600x400": (400, 600), "256x256": (256, 256), "1920x1080": (1080, 1920)}
LIMIT = 1e-3
PUBLISHED = "as published"


def contender(name: str, size: str, device: str, width: int) -> Callable:
    """A call that enhances one image in [-1, 1]."""
    import torch

    from fastllie.models import NeRCo

    ops.tests_cases()
    import published_nerco

    torch.manual_seed(0)
    model = NeRCo(width=width).to(device).requires_grad_(False)
    x = torch.rand(1, 3, *SIZES[size], generator=torch.Generator().manual_seed(1)).to(device) * 2 - 1
    if name == PUBLISHED:
        plain = published_nerco.NeRCo(width).to(device).requires_grad_(False)
        plain.load_state_dict(model.state_dict())
        return lambda: plain(x)
    if device == "cpu":
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    if name == "folded":
        return lambda: model.G_A(torch.cat([x, model.Pre(x)], 1) * model.H.mask(x))
    if name == "in strips, bfloat16":
        model, x = model.bfloat16(), x.bfloat16()
    return lambda: model.enhance_whole(x)


CONTENDERS = (PUBLISHED, "folded", "in strips", "in strips, bfloat16")


def peak(name: str, size: str, device: str, width: int) -> float:
    """Megabytes at the most, in a new process."""
    command = [sys.executable, __file__, "--peak", name, "--sizes", size, "--width", str(width)]
    done = subprocess.run([*command, "--device", device], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr}")
    return float(done.stdout)


def print_peak(name: str, size: str, device: str, width: int) -> None:
    import torch

    with torch.no_grad():
        call = contender(name, size, device, width)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        call()
    if device == "cuda":
        print(torch.cuda.max_memory_allocated() / 2**20)
        return
    status = Path("/proc/self/status")
    if status.is_file():
        # ru_maxrss would count what the parent had when it started this process
        print(int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 2**10)
        return
    import resource

    # bytes, on macOS
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def run(options: argparse.Namespace, device: str) -> tuple[list[dict], int]:
    """The rows of the table, and how many were refused because their results are wrong."""
    import torch

    rows, refused = [], 0
    for size in options.sizes:
        with torch.no_grad():
            calls = {name: contender(name, size, device, options.width) for name in CONTENDERS}
            expected, differences = calls[PUBLISHED](), {}
            for name in CONTENDERS:
                differences[name] = float((calls[name]().float() - expected).abs().max())
                if differences[name] > LIMIT and "bfloat16" not in name:
                    print(f"{size}: {name} is off by {differences[name]:.1e}")
                    del calls[name]
                    refused += 1
            timings = ops.measure(calls, device, options.rounds)
        best = {name: min(values) for name, values in timings.items()}
        for name, value in best.items():
            median = sorted(timings[name])[options.rounds // 2]
            row = {"size": size, "contender": name, "ms": value * 1e3, "median_ms": median * 1e3}
            row |= {"times_published": best[PUBLISHED] / value, "difference": differences[name]}
            row |= {"peak_mb": peak(name, size, device, options.width)}
            rows.append(row)
            print(line(row), flush=True)
    return rows, refused


HEADER = "| size | contender | ms | median ms | x published | difference | peak MB |\n" + "|---" * 7 + "|"


def line(row: dict) -> str:
    return (
        f"| {row['size']} | {row['contender']} | {row['ms']:.0f} | {row['median_ms']:.0f} "
        f"| {row['times_published']:.2f} | {row['difference']:.1e} | {row['peak_mb']:.0f} |"
    )


def main() -> int:
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["600x400"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=64, help="the published one is 64")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--name", help="file name under benchmarks/results; default: nerco--DEVICE")
    parser.add_argument("--peak", choices=CONTENDERS, help="print the peak memory of one contender in MB")
    options = parser.parse_args()
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if options.peak:
        print_peak(options.peak, options.sizes[0], device, options.width)
        return 0
    about = ops.machine(device)
    print(json.dumps(about, indent=1))
    print(HEADER)
    rows, refused = run(options, device)
    slug = re.sub(r"[^a-z0-9]+", "-", about["device"].lower()).strip("-")
    name = options.name or f"nerco--{slug}"
    ops.RESULTS.mkdir(exist_ok=True)
    (ops.RESULTS / f"{name}.json").write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    about_lines = "".join(f"- {key}: {value}\n" for key, value in about.items())
    table = "\n".join([HEADER, *map(line, rows)])
    (ops.RESULTS / f"{name}.md").write_text(f"# NeRCo's inference\n\n{about_lines}\n{table}\n")
    print(f"written: benchmarks/results/{name}.json and .md")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
