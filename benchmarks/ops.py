"""Time the operators: every backend that is here beside eager PyTorch and torch.compile, in one run.

    python benchmarks/ops.py                     # all sizes, on the GPU if there is one, else on the CPU
    python benchmarks/ops.py --sizes 1920x1080   # one size

Each figure is the best of several rounds that take turns, so that all see the same machine. On the CPU
every contender runs with the same allocator settings: glibc keeps freed memory (--allocator default leaves
it alone), because page faults of fresh memory would be timed otherwise. "copy" moves as many bytes as the
operator must, by torch's copy: the share says how close to that a contender comes. A backend whose results
differ from the float64 reference is not reported.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

import record

SIZES = {"256x256 batch 8": (8, 256, 256), "600x400": (1, 400, 600)}
SIZES |= {"1920x1080": (1, 1080, 1920), "3840x2160": (1, 2160, 3840)}
STEPS = 8
# torch 2.13's Inductor writes the backward of a reused map out exponentially: not done after ten minutes
NOT_COMPILED = ("curve, shared map", "forward+backward")


def contenders(device: str) -> dict[str, str]:
    """Name to backend; eager and compiled PyTorch run the reference, not our operator."""
    import fastllie

    def serves(name: str) -> bool:
        return name == device or (name == "triton" and device == "cuda")

    ours = {f"fastllie {n}": n for n, found in fastllie.backends().items() if found and serves(n)}
    return {"torch eager": "eager", "torch.compile": "compile", **ours}


@dataclass(frozen=True)
class Case:
    """An operator with inputs: ours by backend, the formula, its gradients, what comes back to it, others."""

    ours: Callable
    formula: Callable
    backward: Callable
    inputs: list
    grads: list
    others: dict[str, Callable] = field(default_factory=dict)

    def bytes_moved(self) -> dict[str, int]:
        """What each direction has to read and write at least: every input and output once."""
        inputs = sum(t.numel() * t.element_size() for t in self.inputs)
        outputs = sum(t.numel() * t.element_size() for t in self.grads)
        return {"forward": inputs + outputs, "forward+backward": 3 * inputs + 2 * outputs}


def curve_case(shared: bool, tanh: bool) -> Callable[..., Case]:
    def case(size: tuple[int, int, int], device: str) -> Case:
        from fastllie.ops import apply_curve, reference

        cases = tests_cases()
        inputs = cases.curve_inputs(*size, shared=shared, device=device)
        return Case(
            lambda x, alpha, backend: apply_curve(x, alpha, steps=STEPS, tanh=tanh, backend=backend),
            lambda x, alpha: reference.curve(x, alpha, STEPS, tanh),
            lambda grad, x, alpha: reference.curve_backward(grad, x, alpha, STEPS, tanh),
            [inputs.x, inputs.alpha],
            [inputs.grad],
        )

    return case


def grid_curve_case(size: tuple[int, int, int], device: str) -> Case:
    from fastllie.ops import apply_grid_curve, reference

    # cells as of dawn
    inputs = tests_cases().grid_curve_inputs(*size, (8, 8, 12), device=device)
    return Case(
        lambda x, grid, guide, backend: apply_grid_curve(x, grid, guide, steps=STEPS, backend=backend),
        lambda x, grid, guide: reference.apply_grid_curve(x, grid, guide, steps=STEPS),
        lambda grad, x, grid, guide: reference.grid_curve_backward(grad, x, grid, guide, (0, 0), None, STEPS),
        [inputs.x, inputs.grid, inputs.guide],
        [inputs.grad],
    )


def divide_case(size: tuple[int, int, int], device: str) -> Case:
    from fastllie.ops import divide_illumination, reference

    # a quotient away from 1, where rounding decides whether a gradient passes
    x, illum, grad = tests_cases().images([(0.1, 0.4), (0.5, 1), (-1, 1)], *size, device=device)
    formula, backward = reference.divide_illumination, reference.divide_backward
    return Case(divide_illumination, formula, backward, [x, illum], [grad])


def illuminate_case(size: tuple[int, int, int], device: str) -> Case:
    from fastllie.ops import illuminate, reference

    ranges = [(-2, 0), (0.1, 0.4), (0.05, 0.2), (-1, 1), (-1, 1)]
    *inputs, grad_illum, grad_out = tests_cases().images(ranges, *size, device=device)
    formula, backward = reference.illuminate, reference.illuminate_backward
    return Case(illuminate, formula, backward, inputs, [grad_illum, grad_out])


def smoothness_case(size: tuple[int, int, int], device: str) -> Case:
    import published
    import torch

    from fastllie.ops import reference, smoothness_loss

    illum, guide = tests_cases().images([(0.1, 0.9), (0, 0.5)], *size, device=device)
    return Case(
        lambda illum, guide, backend: smoothness_loss(illum, guide, color="memory", backend=backend),
        lambda illum, guide: reference.smoothness(illum, guide, 10.0, "memory", "pixel"),
        lambda grad, illum, guide: reference.smoothness_backward(grad, illum, guide, 10.0, "memory", "pixel"),
        [illum, guide],
        [torch.ones((), device=device)],
        {"as published": published.sci_smoothness},
    )


def zero_reference_case(layout: str) -> Callable[..., Case]:
    def case(size: tuple[int, int, int], device: str) -> Case:
        import torch

        from fastllie.ops import apply_curve, reference, zero_reference_losses
        from fastllie.training import losses

        def unfused(x, alpha):
            maps = torch.tanh(alpha)
            y = apply_curve(x, maps, steps=STEPS)
            return (
                losses.map_smoothness(maps),
                losses.spatial_consistency(y, x),
                losses.colour_constancy(y),
                losses.exposure(y),
            )

        inputs = tests_cases().curve_inputs(*size, layout=layout, device=device)
        level = losses.WELL_EXPOSED
        # weights as in Zero-DCE's recipe
        grads = [torch.tensor(weight, device=device) for weight in (200.0, 1.0, 5.0, 10.0)]
        return Case(
            lambda x, alpha, backend: zero_reference_losses(
                x, alpha, steps=STEPS, tanh=True, level=level, backend=backend
            ),
            lambda x, alpha: reference.zero_reference(x, alpha, STEPS, True, level),
            lambda *tensors: reference.zero_reference_backward(
                torch.stack(tensors[:4]), *tensors[4:], STEPS, True, level
            ),
            [inputs.x, inputs.alpha],
            grads,
            {"fastllie's curve, losses one by one": unfused},
        )

    return case


OPS = {
    "curve": curve_case(shared=False, tanh=False),
    "curve, raw maps (tanh inside)": curve_case(shared=False, tanh=True),
    "curve, shared map": curve_case(shared=True, tanh=False),
    "apply_grid_curve": grid_curve_case,
    "divide_illumination": divide_case,
    "illuminate": illuminate_case,
    "smoothness_loss": smoothness_case,
    "zero_reference_losses": zero_reference_case("contiguous"),
    "zero_reference_losses, channels-last": zero_reference_case("channels_last"),
}


def tests_cases() -> ModuleType:
    return record.of_tests("cases")


def as_tuple(value) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def calls_of(case: Case, device: str) -> dict[str, dict[str, Callable]]:
    """What is timed, by direction and contender."""
    import torch

    inputs = [tensor.requires_grad_() for tensor in case.inputs]

    def function_of(backend: str) -> Callable:
        if backend == "eager":
            return case.formula
        if backend == "compile":
            return torch.compile(case.formula, dynamic=False)
        return lambda *tensors: case.ours(*tensors, backend=backend)

    def forward_of(function: Callable) -> Callable:
        def forward():
            with torch.no_grad():
                return as_tuple(function(*inputs))

        return forward

    def both_of(function: Callable) -> Callable:
        def both():
            outs = as_tuple(function(*inputs))
            return *outs, *torch.autograd.grad(outs, inputs, case.grads)

        return both

    functions = case.others | {name: function_of(backend) for name, backend in contenders(device).items()}
    return {
        "forward": {name: forward_of(function) for name, function in functions.items()},
        "forward+backward": {name: both_of(function) for name, function in functions.items()},
    }


def copy_of(bytes_moved: int, device: str) -> Callable:
    import torch

    source = torch.rand(bytes_moved // 8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def difference(results: tuple, case: Case) -> float:
    """The largest difference from the float64 reference, relative to the largest value of each tensor."""
    inputs = [tensor.detach().double() for tensor in case.inputs]
    expected = as_tuple(case.formula(*inputs))
    if len(results) > len(expected):
        expected += case.backward(*(grad.double() for grad in case.grads), *inputs)
    return max(
        float((got.detach().double() - value).abs().max() / value.abs().max())
        for got, value in zip(results, expected, strict=True)
    )


def allocated(call: Callable, device: str) -> int:
    """Bytes that one call allocates: on a GPU the peak above what was there, on the CPU the sum of all."""
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        results = call()
        peak = torch.cuda.max_memory_allocated() - before
        del results
        return peak
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        results = call()
        del results
    return sum(e.self_cpu_memory_usage for e in profile.events() if e.self_cpu_memory_usage > 0)


def measure(calls: dict[str, Callable], device: str, rounds: int, rest: float = 0) -> dict[str, list[float]]:
    """Seconds of each call in each round; the calls take turns, after `rest` seconds and calls not timed."""
    import torch

    def seconds(call: Callable, repeats: int) -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / repeats

    repeats = {}
    for name, call in calls.items():
        call()
        # short calls are repeated until the clock can resolve them
        repeats[name] = max(1, min(100, int(0.02 / seconds(call, 1))))
    timings: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if rest:
                time.sleep(rest)
                seconds(call, repeats[name])
            timings[name].append(seconds(call, repeats[name]))
    return timings


def run(device: str, sizes: list[str], ops: list[str], rounds: int) -> tuple[list[dict], int]:
    """The rows of the table, and how many contenders were refused because their results are wrong."""
    import torch

    rows, refused = [], 0
    for size in sizes:
        for op in ops:
            torch.compiler.reset()
            case = OPS[op](SIZES[size], device)
            moved = case.bytes_moved()
            for direction, by_name in calls_of(case, device).items():
                if (op, direction) == NOT_COMPILED:
                    del by_name["torch.compile"]
                differences, memory = {}, {}
                for name, call in list(by_name.items()):
                    results = call()
                    differences[name] = difference(results, case)
                    if differences[name] > 1e-4:
                        print(f"{size} {op} {direction}: {name} is off by {differences[name]:.1e}")
                        del by_name[name]
                        refused += 1
                        continue
                    memory[name] = allocated(call, device)
                    outputs = sum(t.numel() * t.element_size() for t in results)
                    del results
                timings = measure(by_name | {"copy": copy_of(moved[direction], device)}, device, rounds)
                best = {name: min(values) for name, values in timings.items()}
                for name in by_name:
                    median = sorted(timings[name])[rounds // 2]
                    rows.append(
                        {
                            "size": size,
                            "op": op,
                            "direction": direction,
                            "contender": name,
                            "ms": best[name] * 1e3,
                            "median_ms": median * 1e3,
                            "bytes_moved": moved[direction],
                            "gb_per_s": moved[direction] / best[name] / 1e9,
                            "share_of_copy": best["copy"] / best[name],
                            "times_eager": best.get("torch eager", math.nan) / best[name],
                            "times_compile": best.get("torch.compile", math.nan) / best[name],
                            "allocated_bytes": memory[name],
                            "allocated_over_outputs": memory[name] / outputs,
                            "difference": differences[name],
                        }
                    )
                    print(line(rows[-1]), flush=True)
    return rows, refused


COLUMNS = ("size", "operator", "direction", "contender", "ms", "MB", "GB/s", "of copy")
COLUMNS += ("x eager", "x compile", "allocated / outputs")
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def ratio(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def line(row: dict) -> str:
    return (
        f"| {row['size']} | {row['op']} | {row['direction']} | {row['contender']} | {row['ms']:.2f} "
        f"| {row['bytes_moved'] / 1e6:.0f} | {row['gb_per_s']:.1f} | {row['share_of_copy']:.0%} "
        f"| {ratio(row['times_eager'])} | {ratio(row['times_compile'])} "
        f"| {row['allocated_over_outputs']:.2f} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--ops", nargs="+", choices=OPS, default=list(OPS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--allocator", choices=("keep-heap", "default"), default="keep-heap")
    parser.add_argument("--name", help="of the benchmark, in the name of its file; default: ops")
    options = parser.parse_args()
    if options.allocator == "keep-heap":
        record.keep_heap()

    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    about = record.machine(device)
    print(json.dumps(about, indent=1))
    print(HEADER)
    rows, refused = run(device, options.sizes, options.ops, options.rounds)
    path = record.path_of(options.name or "ops", about["device"], options.allocator)
    record.write(path, {"machine": about, "rows": rows})
    print(f"written: {path.relative_to(record.ROOT)}; python benchmarks/page.py makes the page of it")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
