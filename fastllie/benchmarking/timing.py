"""Timings: taking turns, what comes of it, and how it is written down."""

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

from fastllie import markup
from fastllie.benchmarking.machine import in_words
from fastllie.images.files import replacing
from fastllie.terminal import aligned

RESOLVED = 0.02  # seconds: shorter calls are repeated until the clock can resolve them
LEAST_ROUNDS = 3  # fewer say nothing about the spread


class Turn(NamedTuple):
    """What one call took: seconds on the clock, and seconds of all processors together."""

    seconds: float
    cpu: float


@dataclass(frozen=True)
class Timed:
    """What one contender took, over `rounds` turns.

    Attributes:
        contender: Who.
        ms: Median of the milliseconds that the batch took.
        best_ms, worst_ms: The shortest and the longest.
        rounds: How many.
        images_per_s: Of the median.
        times_ours: The median, as a multiple of that of "fastllie"; None where that was not timed.
        difference: The largest from the plain network in float32, of the first image; None: not known.
        decibels: The PSNR to it; None where equal, or not known.
        cpu_ms: Median of the milliseconds of all processors together.
        peak_mb: MB that making it ready and calling it once took at the most, weights and results included;
            None where the system does not say.
    """

    contender: str
    ms: float
    best_ms: float
    worst_ms: float
    rounds: int
    images_per_s: float
    times_ours: float | None
    difference: float | None
    decibels: float | None
    cpu_ms: float | None = None
    peak_mb: float | None = None


@dataclass(frozen=True)
class LeftOut:
    """A contender without a time, and why; `wrong`: it ran, and failed or computed something else."""

    contender: str
    reason: str
    wrong: bool = False


@dataclass(frozen=True)
class Case:
    """One method at one size and batch: what was timed, and what was not.

    Attributes:
        method, options, weights: As for `load`.
        size: "WIDTHxHEIGHT".
        batch: Images at once.
        dtype: What was computed in.
        rows: The contenders.
        left_out: Those that have no row.
        unchecked: Why no result was compared with the plain network's; None: all were.
    """

    method: str
    options: dict[str, Any]
    weights: str
    size: str
    batch: int
    dtype: str
    rows: tuple[Timed, ...]
    left_out: tuple[LeftOut, ...]
    unchecked: str | None = None

    @property
    def title(self) -> str:
        """The case in words."""
        named = "".join(f" {name}={value}" for name, value in self.options.items())
        return f"{self.method}{named}, {self.size}, batch {self.batch}, {self.dtype}"

    def table(self) -> str:
        """The rows, aligned, and who was left out."""
        rows = [f"  {line}" for line in aligned(self._cells(), numbers=True)] if self.rows else []
        return "\n".join([self.title, *rows, *(f"  {note}" for note in self._notes())])

    def _repr_html_(self) -> str:
        return markup.table(self._cells() if self.rows else [], title=self.title, notes=self._notes())

    def _notes(self) -> list[str]:
        notes = [f"left out: {one.contender}: {one.reason}" for one in self.left_out]
        return [*notes, f"results not compared: {self.unchecked}"] if self.unchecked else notes

    def _cells(self) -> list[tuple[str, ...]]:
        cells: list[tuple[str, ...]] = [
            ("", "median ms", "min..max", "CPU ms", "images/s", "x fastllie", "peak MB", "difference")
        ]
        for row in self.rows:
            times = "-" if row.times_ours is None else f"{row.times_ours:.2f}"
            off = "-" if row.difference is None else f"{row.difference:.1e}"
            spread = f"{spelled(row.best_ms)}..{spelled(row.worst_ms)}"
            cpu, peak = ("-" if value is None else spelled(value) for value in (row.cpu_ms, row.peak_mb))
            rate = spelled(row.images_per_s)
            cells.append((row.contender, spelled(row.ms), spread, cpu, rate, times, peak, off))
        return cells


@dataclass(frozen=True)
class Benchmark:
    """What `benchmark` found; `print` it.

    Attributes:
        machine: What it ran on, with versions.
        cases: Each method, size and batch, in the order asked for.
        absent: Contenders that cannot run here -> why.
    """

    machine: dict[str, Any]
    cases: tuple[Case, ...]
    absent: dict[str, str]

    @property
    def about(self) -> str:
        """The machine, and who is not here."""
        absent = (f"not here: {name}: {why}" for name, why in self.absent.items())
        return "\n".join([in_words(self.machine), *absent])

    @property
    def wrong(self) -> tuple[str, ...]:
        """The contenders that failed or computed something else, each with its case and the reason."""
        return tuple(
            f"{case.title}: {one.contender}: {one.reason}"
            for case in self.cases
            for one in case.left_out
            if one.wrong
        )

    def __str__(self) -> str:
        return "\n\n".join([*(case.table() for case in self.cases), self.about])

    def _repr_html_(self) -> str:
        about = markup.table([], notes=self.about.split("\n"))
        return "".join([*(case._repr_html_() for case in self.cases), about])

    def write_json(self, path: str | os.PathLike[str]) -> None:
        """Write everything: `machine`, `cases` with `rows` and `left_out`, and `absent`. Atomic."""
        content = asdict(self)
        with replacing(path) as temporary:
            temporary.write_text(
                json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
            )


def turn_of(call: Callable[[], Any], repeats: int, device: torch.device) -> Turn:
    """What one of so many calls takes; on a GPU between two events on its stream."""
    cpu = time.process_time()
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        # named, for the current device may be another one
        stream = torch.cuda.current_stream(device)
        begin.record(stream)
        for _ in range(repeats):
            call()
        end.record(stream)
        end.synchronize()
        seconds = begin.elapsed_time(end) / 1e3
    else:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        seconds = time.perf_counter() - start
    return Turn(seconds / repeats, (time.process_time() - cpu) / repeats)


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    once: Mapping[str, float],
    rounds: Mapping[str, int],
    device: torch.device,
    *,
    rest: float = 0,
    steady: float = 0,
) -> dict[str, list[Turn]]:
    """What each call takes in each of its rounds, in which all take their turns.

    Args:
        calls: What is timed.
        once: About how many seconds each takes; short ones are repeated within a turn, after as many calls
            that do not count, for whoever was before has taken the cache.
        rounds: How many each has; who has fewer is done earlier.
        device: What they run on.
        rest: Seconds before each turn.
        steady: Who has done three rounds whose spread is no more than this share of them is done.
    """
    repeats = {name: max(1, min(100, int(RESOLVED / max(once[name], 1e-9)))) for name in calls}
    taken: dict[str, list[Turn]] = {name: [] for name in calls}
    for place in range(max(rounds.values(), default=0)):
        for name, call in calls.items():
            if place >= rounds[name] or is_steady(taken[name], steady):
                continue
            time.sleep(rest)
            if repeats[name] > 1:
                turn_of(call, repeats[name], device)
            taken[name].append(turn_of(call, repeats[name], device))
    return taken


def is_steady(turns: Sequence[Turn], share: float) -> bool:
    """Whether the turns differ by no more than a share of their median, and are enough to see it."""
    seconds = [turn.seconds for turn in turns]
    if len(seconds) < LEAST_ROUNDS:
        return False
    return max(seconds) - min(seconds) <= share * statistics.median(seconds)


def row_of(
    contender: str,
    turns: Sequence[Turn],
    batch: int,
    ours: Sequence[Turn] | None,
    check: tuple[float, float | None] | None,
    peak: float | None = None,
) -> Timed:
    """The row of a contender's turns, beside ours, with its difference, its dB and its peak in bytes."""
    seconds = [turn.seconds for turn in turns]
    median = statistics.median(seconds)
    difference, decibels = check or (None, None)
    return Timed(
        contender,
        1e3 * median,
        1e3 * min(seconds),
        1e3 * max(seconds),
        len(seconds),
        batch / median,
        median / statistics.median(turn.seconds for turn in ours) if ours else None,
        difference,
        decibels,
        1e3 * statistics.median(turn.cpu for turn in turns),
        None if peak is None else peak / 1e6,
    )


def spelled(value: float) -> str:
    """Three digits or more, never an exponent: 0.412, 4.12, 41.2, 412, 4123."""
    return f"{value:.{max(0, min(3, 2 - math.floor(math.log10(value))))}f}" if value > 0 else "0"
