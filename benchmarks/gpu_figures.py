"""What benchmarks/gpu.py measures, a group at a time: operators, SCI, Zero-DCE, training steps.

    python benchmarks/gpu_figures.py zerodce --out zerodce.json --seconds 60

Contenders take turns; each turn lies between two events on the GPU and is long enough for them. Medians and
quartiles are reported. A contender whose result is wrong is named and not timed. torch.compile comes last, so
that the rest is written if its tuning takes too long. "copy" moves as many bytes as must be moved at least,
by torch's copy: the share says how close to that a contender comes.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ops
import published
import record
import torch
from torch import Tensor

import training

TURN = 2e-3  # seconds that a turn shall last at least
RECORDED = 20  # calls in a graph
ROUNDS = (3, 25)
# "curve, raw maps" as Zero-DCE's modules call it: the tanh inside
OPERATORS = {
    "curve, raw maps (tanh inside)": "curve",
    "divide_illumination": "divide",
    "illuminate": "illuminate",
    "smoothness_loss": "smoothness",
}
FRAME = (1080, 1920)
BATCH = 8
Call = Callable[[], Any]


def gpu_backends(device: str) -> list[str]:
    """Those that can serve; on a CPU, where only the tests run this, the one for it."""
    import fastllie

    names = ("cuda", "triton") if device == "cuda" else ("cpu",)
    return [name for name in names if fastllie.backends()[name]]


class Recorded:
    """So many calls as one CUDA graph: what the GPU takes, without what launching from Python does."""

    def __init__(self, call: Call):
        call()
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            for _ in range(RECORDED):
                call()

    def __call__(self) -> None:
        self.graph.replay()


def recorded(calls: dict[str, Call], device: str) -> dict[str, Call]:
    """The same calls, recorded; none where there are no graphs."""
    return {f"{name}, recorded": Recorded(call) for name, call in calls.items()} if device == "cuda" else {}


def turn(call: Call, repeats: int, device: str) -> float:
    """Seconds of a call, of so many one after the other."""
    if isinstance(call, Recorded):
        return turn(call.graph.replay, repeats, device) / RECORDED
    if device != "cuda":
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - begin) / repeats
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def timed(calls: dict[str, Call], device: str, seconds: float) -> dict[str, dict[str, float]]:
    """Median and quartiles of each call in milliseconds, of as many rounds as fit the time."""
    repeats = {}
    for name, call in calls.items():
        turn(call, 2, device)
        repeats[name] = max(1, min(200, round(TURN / max(1e-7, turn(call, 3, device)))))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    for done in range(ROUNDS[1]):
        if done >= ROUNDS[0] and time.perf_counter() - begin > seconds:
            break
        for name, call in calls.items():
            taken[name].append(1e3 * turn(call, repeats[name], device))
    figures = {}
    for name, times in taken.items():
        low, median, high = statistics.quantiles(times, n=4)
        figures[name] = {"ms": median, "ms_low": low, "ms_high": high, "rounds": len(times)}
    return figures


def operator_figures(device: str, seconds: float, frame: tuple[int, int] = FRAME) -> Iterator[dict[str, Any]]:
    """Each operator forward and with its gradients, 8 frames of float32, beside a copy of as many bytes."""
    rows: dict[str, Any] = {}
    times: dict[str, dict[str, float]] = {}
    small = {title: ops.OPS[title]((2, 37, 61), device) for title in OPERATORS}
    for title, op in OPERATORS.items():
        case = ops.OPS[title]((BATCH, *frame), device)
        backends = gpu_backends(device)
        # the reference in float64 takes the memory of many frames
        right = {name: difference(small[title], name) for name in backends}
        case_rows: dict[str, Any] = {"difference": right}
        backends = [name for name in backends if right[name] < 1e-4]
        for direction, moved in case.bytes_moved().items():
            calls = {name: call_of(case, name, direction) for name in backends}
            calls["copy"] = ops.copy_of(moved, device)
            found = timed(calls, device, seconds / len(OPERATORS) / 2)
            for row in found.values():
                row["gb_per_s"] = moved / row["ms"] / 1e6
                row["share_of_copy"] = found["copy"]["ms"] / row["ms"]
            case_rows[direction] = found
        rows[title] = case_rows
        forward, both = (
            {name: case_rows[direction][name]["ms"] for name in backends} for direction in case.bytes_moved()
        )
        times[f"{op}_forward"] = forward
        times[f"{op}_backward"] = {name: max(1e-6, both[name] - forward[name]) for name in backends}
        del case
        yield {"size": [BATCH, 3, *frame], "rows": rows, "operators": times}


def difference(case: ops.Case, backend: str) -> float:
    return ops.difference(call_of(case, backend, "forward+backward")(), case)


def call_of(case: ops.Case, backend: str, direction: str) -> Call:
    inputs = [tensor.requires_grad_() for tensor in case.inputs]

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return ops.as_tuple(case.ours(*inputs, backend=backend))

    def both() -> tuple[Tensor, ...]:
        outs = ops.as_tuple(case.ours(*inputs, backend=backend))
        return *outs, *torch.autograd.grad(outs, inputs, case.grads)

    return forward if direction == "forward" else both


def beside_others(
    ours: dict[str, Call], others: dict[str, Call], tuned: dict[str, Call], device: str, seconds: float
) -> Iterator[dict[str, dict[str, float]]]:
    """Ours and the others, then once more with what is tuned first, which may take longer than we have."""
    yield timed(ours | others, device, seconds / 4)
    if tuned:
        yield timed(ours | others | tuned, device, seconds / 4)


def compiled(module: torch.nn.Module, x: Tensor, mode: str | None) -> dict[str, Call]:
    """The module as torch.compile makes it for this one shape."""
    if mode is None:
        return {}
    fast = torch.compile(module, mode=mode, dynamic=False)
    return {f"torch.compile, {mode}, {str(x.dtype).removeprefix('torch.')}": lambda: fast(x)}


def sci_parameters(device: str) -> tuple[Tensor, Tensor]:
    """Weights and biases under which no layer is dead; the time does not depend on them."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 3, 3, 3, 3, generator=generator) * 0.3
    return weights.to(device), (torch.randn(3, 3, generator=generator) * 0.2).to(device)


def sci_difference(result: Tensor, x: Tensor, weights: Tensor, biases: Tensor) -> float:
    """The largest difference from the float64 reference; a result in bytes or halves has theirs besides."""
    from fastllie.ops import reference

    expected = reference.sci(x.double(), weights.double(), biases.double(), True, "zeros")
    got = result.double() / (255 if result.dtype == torch.uint8 else 1)
    return float((got - expected).abs().max())


def sci_figures(
    device: str, seconds: float, frame: tuple[int, int] = FRAME, mode: str | None = "max-autotune"
) -> Iterator[dict[str, Any]]:
    """SCI's whole network on one frame."""
    from fastllie.ops import enhance_sci

    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (1, 3, *frame), generator=generator).float().div(255).to(device)
    weights, biases = sci_parameters(device)
    module = published.SCINetwork(weights, biases)
    inputs = {"float32": x, "float16": x.half(), "uint8": (x * 255).round().to(torch.uint8)}
    ours: dict[str, Call] = {}
    wrong = {}
    for backend in gpu_backends(device):
        for name, tensor in inputs.items():

            def call(tensor: Tensor = tensor, backend: str = backend) -> Tensor:
                return enhance_sci(tensor, weights, biases, backend=backend)

            off = sci_difference(call(), x, weights, biases)
            if off > (1e-4 if name == "float32" else 3e-3):
                wrong[f"{backend}, {name}"] = off
            else:
                ours[f"{backend}, {name}"] = call
    ours["copy, float32"] = ops.copy_of(2 * x.numel() * 4, device)
    others = {"torch eager": lambda: module(x)}
    with torch.no_grad():
        ours |= recorded(ours, device)
        for rows in beside_others(ours, others, compiled(module, x, mode), device, seconds):
            for name, row in rows.items():
                copy = "copy, float32" + ", recorded" * name.endswith("recorded")
                row["share_of_copy"] = rows[copy]["ms"] / row["ms"]
                row["times_eager"] = rows["torch eager"]["ms"] / row["ms"]
            times = {name: rows[f"{name}, float32"]["ms"] for name in served(rows, "float32")}
            yield {"size": [1, 3, *frame], "rows": rows, "wrong": wrong, "operators": {"sci_forward": times}}


def served(rows: dict[str, Any], dtype: str) -> list[str]:
    return [name for name in ("cuda", "triton", "cpu") if f"{name}, {dtype}" in rows]


def zerodce_figures(
    device: str, seconds: float, frame: tuple[int, int] = FRAME, mode: str | None = "max-autotune"
) -> Iterator[dict[str, Any]]:
    """Zero-DCE's whole network on one frame, in float16 and as users run it in float32."""
    import fastllie
    from fastllie.ops.zerodce import enhance_zerodce, pack_zerodce

    class Plain(torch.nn.Module):
        """The network as a user writes it: convolutions, tanh, eight steps of the curve."""

        def __init__(self, dtype: torch.dtype):
            super().__init__()
            self.network = fastllie.load("zerodce", device=device, dtype=dtype).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            y = x
            for alpha in torch.tanh(self.network.raw_maps(x)).split(3, 1):
                y = y + alpha * y * (1 - y)
            return y

    x = training.dark(1, *(-(-side // 16) * 16 for side in frame))[..., : frame[0], : frame[1]].to(device)
    half = x.half()
    plain = Plain(torch.float32)
    last = Plain(torch.float16).to(memory_format=torch.channels_last)
    half_last = half.contiguous(memory_format=torch.channels_last)
    parameters = [parameter.half() for parameter in plain.network.parameters()]
    ours: dict[str, Call] = {}
    for backend in gpu_backends(device):
        packed = pack_zerodce(parameters[::2], parameters[1::2], dtype=torch.float16, backend=backend)

        def call(packed: Any = packed, backend: str = backend) -> Tensor:
            return enhance_zerodce(half, packed, backend=backend)

        ours[f"{backend}, float16"] = call
    for name, options in (("Enhancer", {}), ("Enhancer, no graph", {"cuda_graph": False})):
        for dtype, image in ((torch.float16, half), (torch.float32, x)):
            enhancer = fastllie.Enhancer("zerodce", device=device, dtype=dtype, **options)
            key = f"{name}, {str(dtype).removeprefix('torch.')}"
            ours[key] = lambda enhancer=enhancer, image=image: enhancer(image)
    others: dict[str, Call] = {
        "torch eager, float32": lambda: plain(x),
        "torch eager, float16 channels last": lambda: last(half_last),
    }
    with torch.no_grad():
        expected = plain(x)
        decibels, wrong = {}, {}
        for name, contender in list(ours.items()):
            error = (contender().float() - expected).square().mean()
            decibels[name] = float(-10 * torch.log10(error.clamp_min(1e-12)))
            if decibels[name] < 50:
                wrong[name] = decibels[name]
                del ours[name]
        for rows in beside_others(ours, others, compiled(last, half_last, mode), device, seconds):
            for row in rows.values():
                row["times_eager_float32"] = rows["torch eager, float32"]["ms"] / row["ms"]
            times = {name: rows[f"{name}, float16"]["ms"] for name in served(rows, "float16")}
            yield {
                "size": [1, 3, *frame], "rows": rows, "decibels": decibels, "wrong": wrong,
                "operators": {"zerodce_forward": times},
            }  # fmt: skip


def training_figures(device: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Steps of SCI and Zero-DCE beside the published ones, and the losses that Zero-DCE's step is made of."""
    rows: dict[str, Any] = {}
    operator = {}
    case = ops.OPS["zero_reference_losses"]((BATCH, 256, 256), device)
    taken = {}
    for direction in ("forward", "forward+backward"):
        calls = {name: call_of(case, name, direction) for name in gpu_backends(device)}
        taken[direction] = timed(calls, device, 2)
    rows["zero_reference_losses"] = taken
    forward, both = ({name: row["ms"] for name, row in taken[d].items()} for d in taken)
    operator["zero_reference_forward"] = forward
    operator["zero_reference_backward"] = {n: max(1e-6, both[n] - forward[n]) for n in both}
    yield {"rows": rows, "operators": operator}
    for make, shape in ((training.sci, (1, 400, 600)), (training.zerodce, (8, 256, 256))):
        with tempfile.TemporaryDirectory() as folder:
            step = make(training.dark(*shape).to(device), Path(folder))
            rows[step.title] = training.measure(step, 9 if device == "cuda" else 1)
        yield {"rows": rows, "operators": operator}


GROUPS = {
    "ops": operator_figures,
    "sci": sci_figures,
    "zerodce": zerodce_figures,
    "training": training_figures,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for found in GROUPS[options.group]("cuda", options.seconds):
        record.write(options.out, found)
    print(json.dumps(found, indent=1))
    return 1 if found.get("wrong") else 0


if __name__ == "__main__":
    sys.exit(main())
