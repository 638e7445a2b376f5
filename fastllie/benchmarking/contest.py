"""`benchmark`: how long methods take here beside what would be run without us; in turns, results compared."""

import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie import methods
from fastllie.api import Enhancer
from fastllie.benchmarking import baselines
from fastllie.benchmarking.baselines import RIVALS, Call, Peak, Subject
from fastllie.benchmarking.machine import describe, free_memory
from fastllie.benchmarking.timing import Benchmark, Case, LeftOut, interleave, row_of, seconds_of, spelled
from fastllie.defaults import ROUNDS, SECONDS, SIZES

OURS, OURS_BYTES = "fastllie", "fastllie, uint8"
DTYPES = ("float32", "bfloat16", "float16")
LEAST_ROUNDS = 3  # fewer say nothing about the spread
OURS_SHARE = 3  # of the time: ours is what the reader came for
LARGEST_DIFFERENCE = 1e-4  # from the plain network, in float32 on a CPU
BYTES_DIFFERENCE = LARGEST_DIFFERENCE + 0.5 / 255
# to the plain network in float32: of lower precision, and of a GPU, whose float32 may be TF32
LEAST_DB = 40.0
PROBE = (240, 320)  # pixels, for the first guess at time and memory
MEMORY_SHARE = 0.8  # of what is free; convolutions take some that nobody sees
IMAGE_BYTES = 40  # a pixel: the images in floats and bytes, the result, and what it is compared with
# Seconds before a turn: the threads of ONNX Runtime and OpenVINO spin for a while after a call
REST, SPINNING = 0.1, ("onnxruntime", "openvino")


class Check(NamedTuple):
    """How the first image of a result differs from the plain network's in float32."""

    difference: float
    decibels: float | None  # None: they are equal


def benchmark(
    method: str | Sequence[str] = "zerodce",
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

    The others run the same weights in PyTorch's own operators, eager and through `torch.compile`, and from
    the file that `export` writes in ONNX Runtime and OpenVINO, on the CPU, with as many threads as PyTorch.
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
        against: Of "eager", "compile", "onnxruntime" and "openvino"; None: all that are here. One that is
            asked for has to be.
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
    batches = [_whole("batch", batch) for batch in _listed("batches", batches)]
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {DTYPES}, got {dtype!r}")
    _whole("rounds", rounds)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"seconds must be a number, got {seconds!r}")
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds must be above 0 and finite, got {seconds}")
    place = _device(device)
    chosen = check_rivals(against, place, dtype)
    for name in names:
        methods.options_of(name, options)
    found: list[Case] = []
    wanted = [(*shape, batch) for shape in shapes for batch in batches]
    for name in names:
        for case in time_method(
            name,
            wanted,
            dtype=dtype,
            device=place,
            weights=weights,
            against=chosen,
            rounds=rounds,
            seconds=seconds,
            options=options,
        ):
            found.append(case)
            if progress:
                progress(len(found), len(names) * len(wanted), case)
    absent = {RIVALS[name]: reason for name in RIVALS if (reason := baselines.why_absent(name, place, dtype))}
    return Benchmark(describe(place), tuple(found), absent)


def time_method(
    method: str,
    wanted: Sequence[tuple[int, int, int]],
    *,
    dtype: str,
    device: torch.device,
    weights: str | os.PathLike[str] | None = None,
    against: Sequence[str],
    rounds: int,
    seconds: float,
    options: Mapping[str, Any],
) -> Iterator[Case]:
    """`benchmark` of one method, at each height, width and batch that is wanted; checks nothing."""
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(method, weights, options, dtype=dtype, device=device, folder=Path(folder))
        bench = _Bench(subject, against, rounds, seconds, options)
        for height, width, batch in wanted:
            yield bench.time(height, width, batch)


class _Bench:
    """Times one subject, and keeps what is known of how long its contenders take."""

    def __init__(
        self,
        subject: Subject,
        against: Sequence[str],
        rounds: int,
        seconds: float,
        options: Mapping[str, Any],
    ):
        self.subject, self.device = subject, subject.device
        self.against, self.rounds, self.seconds, self.options = against, rounds, seconds, dict(options)
        self.enhancer = Enhancer(
            subject.method,
            weights=subject.path,
            device=subject.device,
            dtype=getattr(torch, subject.dtype),
            **options,
        )
        # seconds, and bytes at the most, for each pixel
        self.rates: dict[str, float] = {}
        self.bytes: dict[str, float] = {}
        # the reference of the last size: batches follow each other
        self._expected: tuple[tuple[int, int], Tensor | None, str | None] | None = None
        self._probe()

    @torch.no_grad()
    def _probe(self) -> None:
        x = image(1, *PROBE).to(self.device)
        plain = baselines.call_of("eager", self.subject, x)
        for name, call in ((OURS, lambda: self.enhancer(x)), ("eager", plain)):
            call()
            self.bytes[name] = _peak(call, self.device) / (PROBE[0] * PROBE[1])
            self.rates[name] = seconds_of(call, 1, self.device) / (PROBE[0] * PROBE[1])

    def too_large(self, name: str, pixels: int, alone: int) -> str | None:
        """Why a contender has no memory for so many pixels, of which one image has `alone`; or None."""
        if name in RIVALS:
            taken = self.bytes["eager"] * pixels
        else:
            # in tiles; where the result hangs on the whole image, one image after the other
            taken = self.bytes[OURS] * alone if methods.info(self.subject.method).halo is None else 0.0
        taken += IMAGE_BYTES * pixels
        most = free_memory(self.device) * MEMORY_SHARE
        if taken <= most:
            return None
        return f"would take about {taken / 1e9:.1f} GB of memory, and {most / 1e9:.1f} GB may be taken"

    def too_slow(self, name: str, once: float) -> str | None:
        """Why there is no time for a contender that takes so many seconds a call; or None."""
        most = self.seconds * (1 if name in RIVALS else OURS_SHARE)
        least = min(LEAST_ROUNDS, self.rounds)
        if once * least <= most:
            return None
        return f"takes about {spelled(once)} s a call, and has {most:g} s for {least}"

    def guess(self, name: str) -> float:
        """About how many seconds a contender takes for a pixel."""
        return self.rates.get(name, self.rates["eager" if name in RIVALS else OURS])

    def expected(self, height: int, width: int) -> tuple[Tensor | None, str | None]:
        """The plain network's result for the first image, in float32; or None and why not."""
        if self._expected is None or self._expected[0] != (height, width):
            alone = height * width
            reason = self.too_large("eager", alone, alone)
            once = self.rates["eager"] * alone
            if reason is None and once > self.seconds:
                reason = f"takes about {spelled(once)} s"
            result = None
            if reason is None:
                # a GPU convolves float32 in TF32 by default
                with torch.backends.cudnn.flags(allow_tf32=False):
                    result = self.subject.plain("float32")(image(1, height, width).to(self.device)).cpu()
            self._expected = (height, width), result, reason and f"the plain network {reason}"
        return self._expected[1], self._expected[2]

    @torch.no_grad()
    def time(self, height: int, width: int, batch: int) -> Case:
        """One size and batch."""
        alone = height * width
        pixels = alone * batch
        left: list[LeftOut] = []
        tried = []
        for name in (OURS, OURS_BYTES, *self.against):
            reason = self.too_large(name, pixels, alone) or self.too_slow(name, self.guess(name) * pixels)
            if reason:
                left.append(LeftOut(RIVALS.get(name, name), reason))
            else:
                tried.append(name)
        unchecked = None
        calls: dict[str, Call] = {}
        once: dict[str, float] = {}
        checks: dict[str, Check] = {}
        if tried:
            want, unchecked = self.expected(height, width)
            x = image(batch, height, width).to(self.device)
        for name in tried:
            try:
                call = self._call(name, x)
                result = call()
                once[name] = seconds_of(call, 1, self.device)
            except Exception as error:
                # other people's compilers and runtimes raise what they like, and it is told by name
                if name not in RIVALS:
                    raise
                left.append(LeftOut(RIVALS[name], *_told(error)))
                continue
            self.rates[name] = once[name] / pixels
            wrong = None
            if want is not None:
                checks[name] = compare(result, want)
                wrong = why_wrong(name, checks[name], self.subject.dtype, self.device)
            reason = wrong or self.too_slow(name, once[name])
            if reason:
                left.append(LeftOut(RIVALS.get(name, name), reason, wrong is not None))
            else:
                calls[name] = call
        taken = interleave(
            calls,
            once,
            self._rounds(once[name] for name in calls),
            self.device,
            rest=REST if any(name in calls for name in SPINNING) else 0,
        )
        return Case(
            method=self.subject.method,
            options=self.options,
            weights=self.subject.weights,
            size=f"{width}x{height}",
            batch=batch,
            dtype=self.subject.dtype,
            rows=tuple(
                row_of(RIVALS.get(name, name), taken[name], batch, taken.get(OURS), checks.get(name))
                for name in calls
            ),
            left_out=tuple(left),
            unchecked=unchecked,
        )

    def _rounds(self, once: Iterable[float]) -> int:
        """As many as fit the time of the slowest, but enough to see a spread."""
        fitting = int(self.seconds / max(once, default=self.seconds))
        return min(self.rounds, max(LEAST_ROUNDS, fitting))

    def _call(self, name: str, x: Tensor) -> Call:
        if name in RIVALS:
            return baselines.call_of(name, self.subject, x)
        given = x if name == OURS else (x * 255).round().to(torch.uint8)
        return lambda: self.enhancer(given)


def _told(error: Exception) -> tuple[str, bool]:
    """Why a contender has no time, and whether that is a failure."""
    told = str(error).strip().split("\n")[0]
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "ran out of memory", False
    if isinstance(error, baselines.Unexported):
        return told, False
    return f"failed: {type(error).__name__}: {told}", True


def _peak(call: Call, device: torch.device) -> int:
    """The most bytes that a call holds at one time."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with Peak() as peak:
        call()
    return peak.most


def compare(result: Any, want: Tensor) -> Check:
    """The first image of a result, bytes or floats, with the one that is wanted, `[1, 3, H, W]`."""
    got = torch.as_tensor(result)[:1].cpu()
    if got.shape != want.shape:
        return Check(math.inf, -math.inf)
    error = (got.float() / 255 if got.dtype == torch.uint8 else got.float()) - want
    mean = float(error.double().square().mean())
    return Check(float(error.abs().max()), -10 * math.log10(mean) if mean else None)


def why_wrong(name: str, check: Check, dtype: str, device: torch.device) -> str | None:
    """What is wrong with a contender's result; None: nothing."""
    if dtype == "float32" and device.type == "cpu":
        most = BYTES_DIFFERENCE if name == OURS_BYTES else LARGEST_DIFFERENCE
        # not >: NaN is no agreement
        if check.difference <= most:
            return None
        return f"differs from the plain network by {check.difference:.1e}, more than {most:.1e}"
    if check.decibels is None or check.decibels >= LEAST_DB:
        return None
    return f"has {check.decibels:.0f} dB to the plain network, less than {LEAST_DB:.0f}"


def image(batch: int, height: int, width: int) -> Tensor:
    """Dark images, smooth with a little noise: whole bytes, as float32; the first is always the same."""
    images = torch.empty(batch, 3, height, width)
    for seed, one in enumerate(images):
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(1, 3, 9, 13, generator=generator) * 0.4
        one.copy_(F.interpolate(coarse, (height, width), mode="bicubic")[0])
        one.add_(torch.randn(one.shape, generator=generator), alpha=0.02)
        one.clamp_(0, 1).mul_(255).round_().div_(255)
    return images


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


def check_rivals(against: Sequence[str] | None, device: torch.device, dtype: str) -> list[str]:
    """The rivals to run; None: all that are here. What is not here comes as an error only if asked for.

    Raises:
        ValueError: an unknown one, or one that is not here.
    """
    if against is None:
        return [name for name in RIVALS if baselines.why_absent(name, device, dtype) is None]
    if isinstance(against, str):
        raise TypeError(f"against must be a list of names, got {against!r}")
    for name in against:
        if name not in RIVALS:
            raise ValueError(methods.unknown("contender", str(name), RIVALS))
        reason = baselines.why_absent(name, device, dtype)
        if reason:
            raise ValueError(f"cannot compare with {name}: {reason}")
    return [name for name in RIVALS if name in against]


def _methods(method: str | Sequence[str]) -> list[str]:
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


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    # refuses what is no device, and what is not there
    Enhancer("sci", device=device)
    found = torch.device(device)
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be the CPU or CUDA, got {device!r}")
    if found.type == "cuda" and found.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return found
