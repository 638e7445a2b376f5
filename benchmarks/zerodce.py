"""Time Zero-DCE on the CPU: ours beside PyTorch, torch.compile, ONNX Runtime and OpenVINO, in one run.

    python benchmarks/zerodce.py                          # 600x400 and 1920x1080
    python benchmarks/zerodce.py --sizes 600x400          # one size
    python benchmarks/zerodce.py --method zerodce++       # at its published scale of 12

The others run the same network, padded with zeros as published, with the weights that ship; "fastllie" is an
`Enhancer` on the same float tensor, tiles as they come. Those that are not installed are left out and named.
Rounds take turns and the best of each contender counts; all run with the same allocator settings, as in
benchmarks/ops.py, and as many threads as PyTorch. A contender that is off by more than 2e-5 in float32, or by
50 dB in bfloat16 (OpenVINO's by 40), is not reported.
"""

import argparse
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable

import ops
from sci import REST, onnxruntime_call, openvino_call

SIZES = {"600x400": (400, 600), "1920x1080": (1080, 1920)}
LARGEST_DIFFERENCE = 2e-5
TITLES = {"zerodce": "Zero-DCE", "zerodce++": "Zero-DCE++"}
LEAST_DB = {"fastllie, bfloat16": 50.0, "OpenVINO, bfloat16": 40.0}


def contenders(
    x, folder: str, method: str, options: dict
) -> tuple[dict[str, Callable], dict[str, str], Callable]:
    """What is timed by name, what is not here with the reason, and the reference."""
    import torch

    import fastllie
    from fastllie import methods
    from fastllie.models.zerodce import STEPS

    os.environ["FASTLLIE_BACKEND"] = "torch"
    module = methods.model_class(method)(padding="zeros", **options).eval().requires_grad_(False)
    module.load_state_dict(fastllie.load(method).state_dict())

    class Plain(torch.nn.Module):
        """The network as a user writes it: convolutions, tanh, eight steps of the curve."""

        def forward(self, x):
            y = x
            maps = module.curve_maps(x).split(3, 1)
            for step in range(STEPS):
                alpha = maps[step % len(maps)]
                y = y + alpha * y * (1 - y)
            return y

    plain = Plain()
    compiled = torch.compile(plain, dynamic=False)
    last = x.contiguous(memory_format=torch.channels_last)
    calls: dict[str, Callable] = {
        "torch eager": lambda: plain(x),
        "torch eager, channels last": lambda: plain(last),
        "torch.compile": lambda: compiled(x),
    }
    absent = {}
    for name, make in (
        ("ONNX Runtime", lambda: onnxruntime_call(plain, x, folder)),
        ("OpenVINO", lambda: openvino_call(plain, x, folder)),
        ("OpenVINO, bfloat16", lambda: openvino_call(plain, x, folder, "bf16")),
    ):
        try:
            calls[name] = make()
        except ImportError as error:
            absent[name] = str(error)
    from safetensors.torch import save_file

    path = f"{folder}/zeros.safetensors"
    save_file(module.state_dict(), path, {"padding": "zeros"})
    for dtype in (torch.float32, torch.bfloat16):
        enhancer = fastllie.Enhancer(method, weights=path, device="cpu", dtype=dtype, **options)
        calls[f"fastllie, {str(dtype).removeprefix('torch.')}"] = lambda enhancer=enhancer: enhancer(x)
    return calls, absent, lambda: plain(x)


def run(method: str, options: dict, sizes: list[str], rounds: int) -> tuple[list[dict], dict[str, str], int]:
    """The rows of the table, who is absent, and how many were refused because their results are wrong."""
    import torch

    rows, absent, refused = [], {}, 0
    for size in sizes:
        torch.compiler.reset()
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(1, 3, 9, 13, generator=generator) * 0.4
        x = torch.nn.functional.interpolate(coarse, SIZES[size], mode="bicubic").clamp(0, 1)
        x = (x + 0.02 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            calls, absent, reference = contenders(x, folder, method, options)
            wanted = reference()
            differences, decibels = {}, {}
            for name in list(calls):
                os.environ["FASTLLIE_BACKEND"] = "auto" if name.startswith("fastllie") else "torch"
                error = torch.as_tensor(calls[name]()).float() - wanted
                differences[name] = float(error.abs().max())
                decibels[name] = -10 * math.log10(max(1e-20, float(error.square().mean())))
                least = LEAST_DB.get(name)
                wrong = differences[name] > LARGEST_DIFFERENCE if least is None else decibels[name] < least
                if wrong:
                    print(f"{size}: {name} is off by {differences[name]:.1e}, {decibels[name]:.0f} dB")
                    del calls[name]
                    refused += 1
            os.environ["FASTLLIE_BACKEND"] = "auto"
            timings = ops.measure(calls, "cpu", rounds, REST)
        best = {name: min(values) for name, values in timings.items()}
        for name, value in best.items():
            low = "bfloat16" in name
            others = [
                time
                for other, time in best.items()
                if not other.startswith("fastllie") and ("bfloat16" in other) == low
            ]
            row = {"size": size, "contender": name, "ms": 1e3 * value}
            row["median_ms"] = 1e3 * sorted(timings[name])[rounds // 2]
            # of the same precision
            row["times_fastest_other"] = min(others) / value if others else None
            row |= {"difference": differences[name], "decibels": decibels[name]}
            rows.append(row)
            print(line(row), flush=True)
    return rows, absent, refused


HEADER = (
    "| size | contender | ms | median ms | x fastest other of its precision | difference | dB |\n"
    + "|---" * 7
    + "|"
)


def line(row: dict) -> str:
    times = "" if row["times_fastest_other"] is None else f"{row['times_fastest_other']:.2f}"
    return (
        f"| {row['size']} | {row['contender']} | {row['ms']:.1f} | {row['median_ms']:.1f} "
        f"| {times} | {row['difference']:.1e} | {row['decibels']:.0f} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", choices=TITLES, default="zerodce")
    parser.add_argument(
        "--scale", type=int, default=12, help="of Zero-DCE++; default: %(default)s, as published"
    )
    parser.add_argument(
        "--sizes", nargs="+", choices=SIZES, help="default: all that are whole cells of Zero-DCE++'s scale"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--name", help="file name under benchmarks/results; default: the method and the CPU")
    given = parser.parse_args()
    options = {"scale": given.scale} if given.method == "zerodce++" else {}
    # a traced network fixes what completes the others to whole cells
    whole = [
        name for name, sides in SIZES.items() if not any(side % options.get("scale", 1) for side in sides)
    ]
    sizes = given.sizes or whole
    if any(os.environ.get(key) != value for key, value in ops.KEEP_HEAP.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ops.KEEP_HEAP)
    about = ops.machine("cpu") | options
    print(json.dumps(about, indent=1))
    print(HEADER)
    rows, absent, refused = run(given.method, options, sizes, given.rounds)
    for name, reason in absent.items():
        print(f"{name} is not here: {reason}")
    slug = re.sub(r"[^a-z0-9]+", "-", about["device"].lower()).strip("-")
    name = given.name or f"{given.method.replace('+', 'p')}--{slug}"
    ops.RESULTS.mkdir(exist_ok=True)
    (ops.RESULTS / f"{name}.json").write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    about_lines = "".join(f"- {key}: {value}\n" for key, value in about.items())
    table = "\n".join([HEADER, *map(line, rows)])
    title = f"# {TITLES[given.method]}'s inference"
    (ops.RESULTS / f"{name}.md").write_text(f"{title}\n\n{about_lines}\n{table}\n")
    print(f"written: benchmarks/results/{name}.json and .md")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
