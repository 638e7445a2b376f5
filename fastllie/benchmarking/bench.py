"""One method at several sizes: who is tried, whose result is right, and how long each takes in turns."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie.api import Enhancer
from fastllie.benchmarking import baselines
from fastllie.benchmarking.baselines import BASELINES, Call, Subject
from fastllie.benchmarking.memory import Peak, free_memory, growth
from fastllie.benchmarking.timing import (
    LEAST_ROUNDS,
    Case,
    LeftOut,
    interleave,
    row_of,
    spelled,
    turn_of,
)

OURS, OURS_BYTES = "fastllie", "fastllie, uint8"
EAGER = BASELINES["eager"]
OURS_SHARE = 3  # of the time: ours is what the reader came for
LARGEST_DIFFERENCE = 1e-4  # from the plain network, in float32 on a CPU
BYTES_DIFFERENCE = LARGEST_DIFFERENCE + 0.5 / 255
# to the plain network in float32: of lower precision, and of a GPU, whose float32 may be TF32
LEAST_DB = 40.0
PROBE = (240, 320)  # pixels, for the first guess at time and memory
MEMORY_SHARE = 0.8  # of what is free; convolutions take some that nobody sees
IMAGE_BYTES = 40  # a pixel: the images in floats and bytes, the result, and what it is compared with
# Seconds before a turn: the threads of ONNX Runtime and OpenVINO spin for a while after a call
REST, SPINNING = 0.1, (BASELINES["onnxruntime"], BASELINES["openvino"])


class Check(NamedTuple):
    """How the first image of a result differs from the plain network's in float32."""

    difference: float
    decibels: float | None  # None: they are equal


@dataclass(frozen=True)
class Effort:
    """How long a contender is timed at one size.

    Attributes:
        rounds: Turns at most.
        seconds: For all its turns; who cannot do three in that is left out, ours in three times that.
        steady: Who has done three turns that differ by no more than this share of them is done.
    """

    rounds: int
    seconds: float
    steady: float = 0.0


class Bench:
    """Times one subject, and keeps what is known of how long its contenders take.

    Args:
        subject: The method with its weights.
        against: The baselines, of `BASELINES`.
        effort: How long each is timed.
        further: What else takes part, by the name that it has in tables.
    """

    def __init__(
        self,
        subject: Subject,
        against: Sequence[str],
        effort: Effort,
        further: Mapping[str, Callable[[Subject, Tensor], Call]] | None = None,
    ):
        self.subject, self.device, self.effort = subject, subject.device, effort
        self.others: dict[str, Callable[[Subject, Tensor], Call]] = {
            BASELINES[name]: partial(baselines.call_of, name) for name in against
        }
        self.others |= further or {}
        self.enhancer = Enhancer(
            subject.method,
            weights=subject.path,
            device=subject.device,
            dtype=getattr(torch, subject.dtype),
            **subject.given,
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
        pixels = PROBE[0] * PROBE[1]
        plain = baselines.call_of("eager", self.subject, x)
        for name, call in ((OURS, lambda: self.enhancer(x)), (EAGER, plain)):
            call()
            self.bytes[name] = _tensors(call, self.device) / pixels
            self.rates[name] = turn_of(call, 1, self.device).seconds / pixels

    def too_large(self, name: str, pixels: int, alone: int) -> str | None:
        """Why a contender has no memory for so many pixels, of which one image has `alone`; or None."""
        if name in self.others or name == EAGER:
            taken = self.bytes[EAGER] * pixels
        else:
            # in tiles; where the result depends on the whole image, one image after the other
            taken = self.bytes[OURS] * alone if self.subject.halo is None else 0.0
        taken += IMAGE_BYTES * pixels
        most = free_memory(self.device) * MEMORY_SHARE
        if taken <= most:
            return None
        return f"would take about {taken / 1e9:.1f} GB of memory, and {most / 1e9:.1f} GB may be taken"

    def too_slow(self, name: str, once: float) -> str | None:
        """Why there is no time for a contender that takes so many seconds a call; or None."""
        most = self.effort.seconds * (1 if name in self.others else OURS_SHARE)
        least = min(LEAST_ROUNDS, self.effort.rounds)
        if once * least <= most:
            return None
        return f"takes about {spelled(once)} s a call, and has {most:g} s for {least}"

    def guess(self, name: str) -> float:
        """About how many seconds a contender takes for a pixel."""
        return self.rates.get(name, self.rates[EAGER if name in self.others else OURS])

    def expected(self, height: int, width: int) -> tuple[Tensor | None, str | None]:
        """The plain network's result for the first image, in float32; or None and why not."""
        if self._expected is None or self._expected[0] != (height, width):
            alone = height * width
            reason = self.too_large(EAGER, alone, alone)
            once = self.rates[EAGER] * alone
            if reason is None and once > self.effort.seconds:
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
        entry = _Entry(batch * height * width)
        tried = []
        for name in (OURS, OURS_BYTES, *self.others):
            reason = self.too_large(name, entry.pixels, height * width)
            reason = reason or self.too_slow(name, self.guess(name) * entry.pixels)
            if reason:
                entry.left.append(LeftOut(name, reason))
            else:
                tried.append(name)
        unchecked = None
        if tried:
            want, unchecked = self.expected(height, width)
            x = image(batch, height, width).to(self.device)
            for name in tried:
                self._try(entry, name, x, want)
        self._drop_slow(entry)
        taken = interleave(
            entry.calls,
            entry.once,
            {name: self._rounds(seconds) for name, seconds in entry.once.items()},
            self.device,
            rest=REST if any(name in entry.calls for name in SPINNING) else 0,
            steady=self.effort.steady,
        )
        return Case(
            method=self.subject.method,
            options=dict(self.subject.given),
            weights=self.subject.weights,
            size=f"{width}x{height}",
            batch=batch,
            dtype=self.subject.dtype,
            rows=tuple(
                row_of(name, taken[name], batch, taken.get(OURS), entry.checks.get(name), entry.peaks[name])
                for name in entry.calls
            ),
            left_out=tuple(entry.left),
            unchecked=unchecked,
        )

    def _try(self, entry: "_Entry", name: str, x: Tensor, want: Tensor | None) -> None:
        """Make a contender ready, call it once, and keep it if its result is right."""

        def first() -> Any:
            call = self._call(name, x)
            return call, call()

        try:
            (call, result), peak = growth(first, self.device)
        except Exception as error:
            # other people's compilers and runtimes raise what they like, and it is reported by name
            if name not in self.others:
                raise
            entry.left.append(LeftOut(name, *_described(error)))
            return
        if want is not None:
            entry.checks[name] = compare(result, want)
            wrong = why_wrong(name, entry.checks[name], self.subject.dtype, self.device)
            if wrong:
                entry.left.append(LeftOut(name, wrong, True))
                return
        if peak is not None and name not in self.others:
            # our weights were there before
            peak += self.subject.weight_bytes
        entry.calls[name], entry.peaks[name] = call, peak

    def _drop_slow(self, entry: "_Entry") -> None:
        """Measure what one call takes, now that all of them are warm, and leave out who is too slow."""
        for name, call in list(entry.calls.items()):
            entry.once[name] = turn_of(call, 1, self.device).seconds
            self.rates[name] = entry.once[name] / entry.pixels
            reason = self.too_slow(name, entry.once[name])
            if reason:
                entry.left.append(LeftOut(name, reason))
                del entry.calls[name], entry.once[name]

    def _rounds(self, once: float) -> int:
        """As many as fit the time, but enough to see a spread."""
        fitting = int(self.effort.seconds / max(once, 1e-9))
        return min(self.effort.rounds, max(LEAST_ROUNDS, fitting))

    def _call(self, name: str, x: Tensor) -> Call:
        if name in self.others:
            return self.others[name](self.subject, x)
        given = x if name == OURS else (x * 255).round().to(torch.uint8)
        return lambda: self.enhancer(given)


@dataclass
class _Entry:
    """What is known of the contenders at one size and batch, of so many pixels."""

    pixels: int
    left: list[LeftOut] = field(default_factory=list)
    calls: dict[str, Call] = field(default_factory=dict)
    once: dict[str, float] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    peaks: dict[str, float | None] = field(default_factory=dict)


def _described(error: Exception) -> tuple[str, bool]:
    """Why a contender has no time, and whether that is a failure."""
    words = str(error).strip().split("\n")[0]
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "ran out of memory", False
    if isinstance(error, baselines.Unexported):
        return words, False
    return f"failed: {type(error).__name__}: {words}", True


def _tensors(call: Call, device: torch.device) -> float:
    """The most bytes that the tensors of a call hold at one time."""
    if device.type == "cuda":
        return growth(call, device)[1] or 0.0
    with Peak() as peak:
        call()
    return float(peak.most)


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
