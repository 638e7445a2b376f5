"""Time SCI's inference: our kernel beside PyTorch, torch.compile, ONNX Runtime and OpenVINO, in one run.

    python benchmarks/sci.py                     # both sizes, on the GPU if there is one, else on the CPU
    python benchmarks/sci.py --sizes 600x400     # one size

The others run the published network with its batch norm folded, planar float32: the same three convolutions.
Those that are not installed are left out and named. Rounds take turns and the best of each contender counts;
on the CPU all run with the same allocator settings, as in benchmarks/ops.py. ONNX Runtime and OpenVINO get as
many threads as PyTorch. A contender whose result differs from the float64 reference is not reported.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import ops

# Seconds before each turn: the threads of ONNX Runtime and OpenVINO spin for a while after a call
REST = 0.1
SIZES = {"600x400": (1, 400, 600), "1920x1080": (1, 1080, 1920)}


def network(device: str):
    """Weights and biases under which no layer is dead; the time does not depend on them."""
    import torch

    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 3, 3, 3, 3, generator=generator) * 0.3
    return weights.to(device), (torch.randn(3, 3, generator=generator) * 0.2).to(device)


def module_of(weights, biases):
    """What a user writes: three convolutions and the division."""
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
            for layer, weight, bias in zip(self.layers, weights, biases, strict=True):
                layer.weight.data.copy_(weight)
                layer.bias.data.copy_(bias)

        def forward(self, x):
            f = torch.relu(self.layers[0](x))
            f = f + torch.relu(self.layers[1](f))
            illum = (torch.sigmoid(self.layers[2](f)) + x).clamp(1e-4, 1)
            return (x / illum).clamp(0, 1)

    return Network().eval().to(weights.device)


def onnx_file(module, x, folder: str) -> str:
    import torch

    path = str(Path(folder) / "sci.onnx")
    torch.onnx.export(module, (x,), path, input_names=["x"], output_names=["y"], dynamo=False)
    return path


def onnxruntime_call(module, x, folder: str) -> Callable:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    path = onnx_file(module, x, folder)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    array = x.numpy()
    return lambda: session.run(None, {"x": array})[0]


def openvino_call(module, x, folder: str, precision: str = "f32") -> Callable:
    import openvino
    import torch

    # told, because on some machines it would choose bfloat16
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    settings["PERFORMANCE_HINT"] = "LATENCY"
    compiled = openvino.compile_model(onnx_file(module, x, folder), "CPU", settings)
    request, array = compiled.create_infer_request(), x.numpy()
    return lambda: request.infer({0: array}, share_inputs=True, share_outputs=True)[0]


def contenders(x, device: str, folder: str) -> tuple[dict[str, Callable], dict[str, str]]:
    """What is timed by name, and what is not here with the reason."""
    import torch

    import fastllie
    from fastllie.ops import enhance_sci

    weights, biases = network(device)
    module = module_of(weights, biases)
    compiled = torch.compile(module, dynamic=False)
    calls: dict[str, Callable] = {"torch eager": lambda: module(x), "torch.compile": lambda: compiled(x)}
    absent = {}
    if device == "cpu":
        for name, make in (("ONNX Runtime", onnxruntime_call), ("OpenVINO", openvino_call)):
            try:
                calls[name] = make(module, x, folder)
            except ImportError as error:
                absent[name] = str(error)
    frame = (x * 255).round().to(torch.uint8)
    inputs = {
        "float32": x,
        "float32 interleaved": x.contiguous(memory_format=torch.channels_last),
        "float16": x.half(),
        "uint8": frame,
        "uint8 interleaved": frame.contiguous(memory_format=torch.channels_last),
    }
    for backend, found in fastllie.backends().items():
        if not found or (backend != device and not (backend == "triton" and device == "cuda")):
            continue
        for name, tensor in inputs.items():
            calls[f"fastllie {backend}, {name}"] = lambda tensor=tensor, backend=backend: enhance_sci(
                tensor, weights, biases, backend=backend
            )
    return calls, absent


def difference(result, x, weights, biases) -> float:
    """The largest difference from the float64 reference; a result in bytes or halves has theirs besides."""
    import torch

    from fastllie.ops import reference

    result = torch.as_tensor(result).to(x.device)
    expected = reference.sci(x.double(), weights.double(), biases.double(), True, "zeros")
    got = result.double() / (255 if result.dtype == torch.uint8 else 1)
    return float((got - expected).abs().max())


def run(device: str, sizes: list[str], rounds: int) -> tuple[list[dict], dict[str, str], int]:
    """The rows of the table, who is absent, and how many were refused because their results are wrong."""
    import torch

    rows, absent, refused = [], {}, 0
    for size in sizes:
        torch.compiler.reset()
        batch, height, width = SIZES[size]
        generator = torch.Generator().manual_seed(0)
        # whole bytes, so that every contender sees the same image
        x = torch.randint(0, 256, (batch, 3, height, width), generator=generator).float().div(255).to(device)
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            calls, absent = contenders(x, device, folder)
            differences = {}
            for name in list(calls):
                differences[name] = difference(calls[name](), x, *network(device))
                coarse = "uint8" in name or "float16" in name
                if differences[name] > (3e-3 if coarse else 1e-4):
                    print(f"{size}: {name} is off by {differences[name]:.1e}")
                    del calls[name]
                    refused += 1
            timings = ops.measure(calls, device, rounds, REST)
        best = {name: min(values) for name, values in timings.items()}
        fastest = min(value for name, value in best.items() if not name.startswith("fastllie"))
        for name, value in best.items():
            median = sorted(timings[name])[rounds // 2]
            row = {"size": size, "contender": name, "ms": value * 1e3, "median_ms": median * 1e3}
            row |= {"times_fastest_other": fastest / value, "difference": differences[name]}
            rows.append(row)
            print(line(row), flush=True)
    return rows, absent, refused


HEADER = "| size | contender | ms | median ms | x fastest other | difference |\n" + "|---" * 6 + "|"


def line(row: dict) -> str:
    return (
        f"| {row['size']} | {row['contender']} | {row['ms']:.3f} | {row['median_ms']:.3f} "
        f"| {row['times_fastest_other']:.2f} | {row['difference']:.1e} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--name", help="file name under benchmarks/results; default: sci--DEVICE")
    options = parser.parse_args()
    if any(os.environ.get(key) != value for key, value in ops.KEEP_HEAP.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ops.KEEP_HEAP)

    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    about = ops.machine(device)
    print(json.dumps(about, indent=1))
    print(HEADER)
    rows, absent, refused = run(device, options.sizes, options.rounds)
    for name, reason in absent.items():
        print(f"{name} is not here: {reason}")
    slug = re.sub(r"[^a-z0-9]+", "-", about["device"].lower()).strip("-")
    name = options.name or f"sci--{slug}"
    ops.RESULTS.mkdir(exist_ok=True)
    (ops.RESULTS / f"{name}.json").write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    about_lines = "".join(f"- {key}: {value}\n" for key, value in about.items())
    table = "\n".join([HEADER, *map(line, rows)])
    (ops.RESULTS / f"{name}.md").write_text(f"# SCI's inference\n\n{about_lines}\n{table}\n")
    print(f"written: benchmarks/results/{name}.json and .md")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
