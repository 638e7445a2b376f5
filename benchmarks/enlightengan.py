"""Time EnlightenGAN's generator: plain eager modules beside `fastllie`, in one run.

    python benchmarks/enlightengan.py                    # 600x400 at the published width
    python benchmarks/enlightengan.py --width 16         # a narrower network
    python benchmarks/enlightengan.py --sizes 600x400 1920x1080

"torch eager" is what the published code runs: the modules one after the other, planar float32. `fastllie` is
an `Enhancer` on the same image as a float tensor, in float32 and in bfloat16, tiles as they come. Rounds take
turns and the best of each contender counts; CPU seconds (of all threads) stand beside the wall's, since on a
shared machine they are the steadier figure. On the CPU all run with the same allocator settings, as in
benchmarks/ops.py. A contender whose result is not that of the plain modules (float32: 1e-4; bfloat16: 40 dB)
is not reported.
"""

import argparse
import json
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ops

SIZES = {"600x400": (1, 400, 600), "256x256": (1, 256, 256), "1920x1080": (1, 1080, 1920)}
LARGEST_DIFFERENCE, LEAST_DB = 1e-4, 40.0


def network(width: int):
    """Weights as after some training: every layer is alive, no residual leaves the range."""
    import torch

    from fastllie.models import EnlightenGAN

    torch.manual_seed(0)
    model = EnlightenGAN(width=width).eval().requires_grad_(False)
    for name, tensor in model.state_dict().items():
        if tensor.dim() == 4:
            torch.nn.init.kaiming_normal_(tensor)
        elif name.startswith("bn") and tensor.is_floating_point():
            tensor.copy_(0.2 * torch.rand_like(tensor) + ("weight" in name or "var" in name))
    model.conv10.weight.mul_(0.05)
    model.conv10.bias.fill_(0.3)
    return model


class Plain:
    """The generator module by module, as the published code runs it."""

    def __init__(self, model, device: str):
        self.model = model.to(device)

    def __call__(self, x):
        import torch.nn.functional as F
        from torch import cat

        from fastllie.models.enlightengan import attention

        net = self.model

        def block(name, f):
            f = F.leaky_relu(getattr(net, f"conv{name}")(f), 0.2)
            return getattr(net, f"bn{name}")(f) if name != "9_2" else f

        height, width = x.shape[-2:]
        before = [(-side % 16) // 2 for side in (height, width)]
        after = [-side % 16 - first for side, first in zip((height, width), before, strict=True)]
        v = F.pad(2 * x - 1, (before[1], after[1], before[0], after[0]), mode="reflect")
        g = [attention(v)]
        skips, f = [], cat([v, g[0]], 1)
        for level in "1234":
            skips.append(block(f"{level}_2", block(f"{level}_1", f)))
            f = F.max_pool2d(skips[-1], 2)
            g.append(F.max_pool2d(g[-1], 2))
        f = block("5_2", g[4] * block("5_1", f))
        for level in (6, 7, 8, 9):
            up = F.interpolate(f, scale_factor=2, mode="bilinear", align_corners=False)
            up = getattr(net, f"deconv{level - 1}")(up)
            f = block(f"{level}_2", block(f"{level}_1", cat([up, skips[9 - level] * g[9 - level]], 1)))
        y = (v + net.conv10(f) * g[0] + 1) / 2
        return y.clamp(0, 1)[..., before[0] : before[0] + height, before[1] : before[1] + width]


def contenders(width: int, device: str, folder: str) -> dict[str, Callable]:
    import torch

    import fastllie
    from fastllie import checkpoint

    model = network(width)
    path = Path(folder) / "w.safetensors"
    checkpoint.write(path, model.state_dict(), {"align_corners": "False"})
    calls: dict[str, Callable] = {"torch eager": Plain(model, device)}
    for dtype in (torch.float32, torch.bfloat16):
        enhancer = fastllie.Enhancer("enlightengan", weights=path, device=device, dtype=dtype)
        calls[f"fastllie, {str(dtype).removeprefix('torch.')}"] = enhancer
    return calls


def difference(got, want) -> tuple[float, float]:
    """The largest difference, and the PSNR in dB."""
    error = (got.double() - want.double()).abs()
    mean = float(error.square().mean())
    return float(error.max()), -10 * math.log10(mean) if mean else math.inf


def measure(calls: dict[str, Callable], x, device: str, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds and CPU seconds of each call; the contenders take turns."""
    import torch

    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if device == "cuda":
                torch.cuda.synchronize()
            start, cpu = time.perf_counter(), time.process_time()
            call(x)
            if device == "cuda":
                torch.cuda.synchronize()
            found[name].append((time.perf_counter() - start, time.process_time() - cpu))
    return found


def run(device: str, width: int, sizes: list[str], rounds: int) -> tuple[list[dict], int]:
    """The rows of the table, and how many contenders were refused because their results are wrong."""
    import torch

    rows, refused = [], 0
    for size in sizes:
        batch, height, breadth = SIZES[size]
        x = (
            torch.rand(batch, 3, height, breadth, generator=torch.Generator().manual_seed(0))
            .mul(0.4)
            .to(device)
        )
        with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
            calls = contenders(width, device, folder)
            want = calls["torch eager"](x)
            differences = {}
            for name in list(calls):
                largest, decibels = differences[name] = difference(calls[name](x), want)
                if not (decibels >= LEAST_DB if "bfloat16" in name else largest <= LARGEST_DIFFERENCE):
                    print(f"{size}: {name} is off by {largest:.1e}, {decibels:.1f} dB")
                    del calls[name]
                    refused += 1
            timings = measure(calls, x, device, rounds)
        eager = [min(column) for column in zip(*timings["torch eager"], strict=True)]
        for name, values in timings.items():
            best = [min(column) for column in zip(*values, strict=True)]
            row = {
                "size": size,
                "width": width,
                "contender": name,
                "ms": best[0] * 1e3,
                "cpu_ms": best[1] * 1e3,
            }
            row |= {"times_eager": eager[0] / best[0], "times_eager_cpu": eager[1] / best[1]}
            row |= {"difference": differences[name][0]}
            rows.append(row)
            print(line(row), flush=True)
    return rows, refused


HEADER = (
    "| size | width | contender | ms | CPU ms | x eager | x eager CPU | difference |\n" + "|---" * 8 + "|"
)


def line(row: dict) -> str:
    return (
        f"| {row['size']} | {row['width']} | {row['contender']} | {row['ms']:.1f} | {row['cpu_ms']:.1f} "
        f"| {row['times_eager']:.2f} | {row['times_eager_cpu']:.2f} | {row['difference']:.1e} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["600x400"])
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--name", help="file name under benchmarks/results; default: enlightengan--DEVICE")
    options = parser.parse_args()
    if any(os.environ.get(key) != value for key, value in ops.KEEP_HEAP.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ops.KEEP_HEAP)

    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    about = ops.machine(device)
    print(json.dumps(about, indent=1))
    print(HEADER)
    rows, refused = run(device, options.width, options.sizes, options.rounds)
    slug = re.sub(r"[^a-z0-9]+", "-", about["device"].lower()).strip("-")
    name = options.name or f"enlightengan--{slug}"
    ops.RESULTS.mkdir(exist_ok=True)
    (ops.RESULTS / f"{name}.json").write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    about_lines = "".join(f"- {key}: {value}\n" for key, value in about.items())
    table = "\n".join([HEADER, *map(line, rows)])
    (ops.RESULTS / f"{name}.md").write_text(f"# EnlightenGAN's generator\n\n{about_lines}\n{table}\n")
    print(f"written: benchmarks/results/{name}.json and .md")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
