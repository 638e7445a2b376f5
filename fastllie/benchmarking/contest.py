"""`benchmark`: how long methods take here beside what would be run without us; in turns, results compared."""

import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fastllie import methods
from fastllie.benchmarking import baselines
from fastllie.benchmarking.baselines import BASELINES, Call, Subject
from fastllie.benchmarking.bench import Bench, Effort
from fastllie.benchmarking.machine import describe
from fastllie.benchmarking.timing import Benchmark, Case
from fastllie.checks import check_positive, is_number
from fastllie.defaults import ROUNDS, SECONDS, SIZES
from fastllie.inference.loading import default_device, device_of

DTYPES = ("float32", "bfloat16", "float16")


def benchmark(
    method: methods.Method | Literal["all"] | Sequence[methods.Method] = "dawn",
    *,
    sizes: Sequence[str] = SIZES,
    batches: Sequence[int] = (1,),
    dtype: str = "float32",
    device: str | torch.device | None = None,
    weights: str | os.PathLike[str] | None = None,
    against: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    progress: Callable[[int, int, Case], None] | None = None,
    **options: Any,
) -> Benchmark:
    """Time methods on this machine: an `Enhancer` on a tensor of floats, and of bytes, beside other ways.

    The others run the same weights in PyTorch's own operators, eager (as it is, and channels last) and
    through `torch.compile`, and from the file that `export` writes in ONNX Runtime and OpenVINO, on the CPU,
    with as many threads as PyTorch.
    All take turns, so that they see the same machine; short calls are repeated within a turn. A contender
    whose result is not that of the plain network (1e-4 in float32; 40 dB in lower precision, and on a GPU,
    where float32 may be TF32) gets no row. Whoever would take too long or too much memory is left out and
    named: others when three calls take more than `seconds`, ours when they take three times that.

    Args:
        method: One of `list_methods()`, or several, or "all".
        sizes: "WIDTHxHEIGHT" each.
        batches: Images at once.
        dtype: "float32", "bfloat16" or "float16", of what computes; images are floats in float32, and bytes.
        device: None is CUDA where there is one, else the CPU.
        weights: As for `load`, for one method.
        against: Of "eager", "channels_last", "compile", "onnxruntime" and "openvino"; None: all that are
            here. One that is asked for has to be.
        rounds: Turns at most; fewer where `seconds` are over, but three.
        seconds: For the turns of each contender at each size.
        progress: Called after each size and batch with how many are done, of how many, and what was found.
        **options: The method's own, e.g. `scale=12` for "zerodce++".

    Raises:
        TypeError, ValueError, FileNotFoundError: as `load`; a size, batch, dtype, number or contender that
            cannot be meant; a contender that was asked for and is not here; several methods with weights.
    """
    names = _methods(method)
    if weights is not None and len(names) > 1:
        raise ValueError(f"weights are of one method, got {', '.join(names)}")
    shapes = [parse_size(size) for size in _listed("sizes", sizes)]
    batches = [check_positive("batch", batch) for batch in _listed("batches", batches)]
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {DTYPES}, got {dtype!r}")
    check_positive("rounds", rounds)
    if not is_number(seconds):
        raise TypeError(f"seconds must be a number, got {seconds!r}")
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds must be above 0 and finite, got {seconds}")
    place = _device(device)
    chosen = check_baselines(against, place, dtype)
    for name in names:
        methods.options_of(name, options)
    found: list[Case] = []
    wanted = [(*shape, batch) for shape in shapes for batch in batches]
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            for case in time_method(
                name,
                wanted,
                dtype=dtype,
                device=place,
                weights=weights,
                against=chosen,
                effort=Effort(rounds, seconds),
                options=options,
                folder=Path(folder),
            ):
                found.append(case)
                if progress:
                    progress(len(found), len(names) * len(wanted), case)
    return Benchmark(describe(place), tuple(found), absent(place, dtype))


def time_method(
    method: methods.Method,
    wanted: Sequence[tuple[int, int, int]],
    *,
    dtype: str,
    device: torch.device,
    weights: str | os.PathLike[str] | None = None,
    against: Sequence[str],
    further: Mapping[str, Callable[[Subject, Tensor], Call]] | None = None,
    effort: Effort,
    options: Mapping[str, Any],
    folder: Path,
) -> Iterator[Case]:
    """`benchmark` of one method, at each height, width and batch that is wanted; checks nothing.

    `further` contenders take part besides the baselines `against`, by the name that they have in tables. The
    folder keeps the exported network, for another call with the same weights and options.
    """
    subject = Subject(method, weights, options, dtype=dtype, device=device, folder=folder)
    bench = Bench(subject, against, effort, further)
    for height, width, batch in wanted:
        yield bench.time(height, width, batch)


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of "WIDTHxHEIGHT".

    Raises:
        TypeError, ValueError: anything else.
    """
    if not isinstance(text, str):
        raise TypeError(f"a size is a string such as '1920x1080', got {text!r}")
    match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", text)
    if match is None:
        raise ValueError(f"a size is WIDTHxHEIGHT such as 1920x1080, got {text!r}")
    return int(match[2]), int(match[1])


def check_baselines(against: Sequence[str] | None, device: torch.device, dtype: str) -> list[str]:
    """The baselines to run; None: all that are here. What is not here comes as an error only if asked for.

    Raises:
        ValueError: an unknown one, or one that is not here.
    """
    if against is None:
        return [name for name in BASELINES if baselines.why_absent(name, device, dtype) is None]
    if isinstance(against, str):
        raise TypeError(f"against must be a list of names, got {against!r}")
    for name in against:
        if name not in BASELINES:
            raise ValueError(methods.unknown("contender", str(name), BASELINES))
        reason = baselines.why_absent(name, device, dtype)
        if reason:
            raise ValueError(f"cannot compare with {name}: {reason}")
    return [name for name in BASELINES if name in against]


def absent(device: torch.device, dtype: str) -> dict[str, str]:
    """The baselines that cannot run here, by the name that they have in tables, and why."""
    reasons = {label: baselines.why_absent(name, device, dtype) for name, label in BASELINES.items()}
    return {label: reason for label, reason in reasons.items() if reason}


def _methods(method: methods.Method | Literal["all"] | Sequence[methods.Method]) -> list[methods.Method]:
    names = [method] if isinstance(method, str) else list(_listed("method", method))
    if "all" in names:
        return methods.list_methods()
    return list(dict.fromkeys(methods.info(name).name for name in names))


def _listed(name: str, values: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a list, got {values!r}")
    if not values:
        raise ValueError(f"{name} must not be empty")
    return list(dict.fromkeys(values))


def _device(device: str | torch.device | None) -> torch.device:
    found = device_of(device) or default_device()
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be the CPU or CUDA, got {device!r}")
    return found
