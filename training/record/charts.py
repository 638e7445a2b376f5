"""Curves as figures of HTML: inline SVG with axes and values to hover over, without a script."""

import math
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastllie.training.record.journal import spell_value

MOST_POINTS = 2000  # of a curve
MOST_HOVERS = 60  # places of a curve that show their value
DECADES = 2  # a curve that spans as many is drawn on a logarithmic scale
SMOOTHED_FROM = 40  # points
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 190, 46, 10, 8, 22  # of a chart, and its margins

Floats = NDArray[np.float64]


class Curve(NamedTuple):
    """Values by steps, some of which may not be finite; `best` is the step to point out."""

    title: str
    steps: Floats
    values: Floats
    smooth: bool = False
    best: int | None = None


def draw(curve: Curve) -> str:
    """A curve as a figure: inline SVG with axes, on a logarithmic scale where it spans decades."""
    finite = np.isfinite(curve.values)
    steps, values = curve.steps[finite], curve.values[finite]
    title = escape(curve.title.replace("_", " "))
    lost = ""
    if not finite.all():
        lost = f"{(~finite).sum():,} not finite, the first at step {_label(curve.steps[~finite][0])}"
    if not len(values):
        return f"<figure><figcaption>{title} <small>{lost}</small></figcaption></figure>"
    # a quantile: one value near zero is no reason to draw the others close together
    log = values.min() > 0 and bool(values.max() >= 10**DECADES * np.quantile(values, 0.02))
    heights = np.log10(values) if log else values
    low, high = _padded(heights, log)
    first, end = float(steps.min()), float(steps.max())
    if first == end:
        first, end = first - 1, end + 1

    def across(step: Any) -> Any:
        return LEFT + (step - first) / (end - first) * (WIDTH - LEFT - RIGHT)

    def down(height: Any) -> Any:
        return HEIGHT - BOTTOM - (height - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def path(heights: Floats, kind: str) -> str:
        kept = thin(heights)
        points = zip(across(steps[kept]), down(heights[kept]), strict=True)
        return f'<path class="{kind}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'

    parts = []
    for tick in _log_ticks(low, high) if log else ticks(low, high):
        y, text = down(tick), _label(10**tick if log else tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>')
    for tick in filter(float.is_integer, ticks(first, end)):
        x = across(tick)
        parts.append(f'<path class="axis" d="M{x:.1f} {HEIGHT - BOTTOM}v4"/>')
        anchor = "end" if x > WIDTH - RIGHT - 12 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{_label(tick)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    smooth = curve.smooth and len(values) >= SMOOTHED_FROM
    if len(values) > 1:
        parts.append(path(heights, "raw" if smooth else "line"))
    if smooth:
        parts.append(path(running_mean(heights), "line"))
    parts += _dots(steps, values, across(steps), down(heights), curve.best)
    notes = ", ".join(filter(None, ["log scale" if log else "", f"last {spell_value(values[-1])}", lost]))
    return (
        f"<figure><figcaption>{title} <small>{notes}</small></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title} by step">{"".join(parts)}</svg>'
        "</figure>"
    )


def _dots(steps: Floats, values: Floats, xs: Floats, ys: Floats, best: int | None) -> list[str]:
    """Where a pointer rests, the nearest of some points shows its value; a few points are always seen."""
    chosen = np.unique(np.linspace(0, len(xs) - 1, min(len(xs), MOST_HOVERS)).round().astype(int))
    if best is not None:
        chosen = np.union1d(chosen, np.flatnonzero(steps == best))
    places = xs[chosen]
    edges = np.concatenate([[LEFT], (places[1:] + places[:-1]) / 2, [WIDTH - RIGHT]])
    parts = []
    for index, left, right in zip(chosen, edges[:-1], edges[1:], strict=True):
        kind = "best" if steps[index] == best else "dot" if len(xs) <= 30 else ""
        x, y, r = xs[index], ys[index], 4 if kind == "best" else 2.5
        text = f"step {steps[index]:,.0f}: {values[index]:.5g}{' (best)' if kind == 'best' else ''}"
        parts.append(
            f'<g class="at"><title>{text}</title>'
            f'<rect x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{HEIGHT - TOP - BOTTOM}"/>'
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/></g>'
        )
    return parts


def thin(values: Floats, most: int = MOST_POINTS) -> NDArray[np.intp]:
    """Indices of at most `most` of the values: both ends, and the extremes of stretches between them."""
    count = len(values)
    if count <= most:
        return np.arange(count)
    edges = np.linspace(1, count - 1, most // 2).astype(int)
    kept = {0, count - 1}
    for start, stop in pairwise(edges):
        stretch = values[start:stop]
        kept |= {start + int(stretch.argmin()), start + int(stretch.argmax())}
    return np.array(sorted(kept))


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values within [low, high], 1, 2 or 5 times a power of ten apart."""
    apart = (high - low) / most
    power = 10.0 ** math.floor(math.log10(apart))
    apart = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= apart * (1 - 1e-9))
    return [n * apart for n in range(math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Logarithms of powers of ten within [low, high], not more than six; of few, with 2 and 5 between."""
    powers = range(math.floor(low), math.floor(high) + 1)
    apart = 1 + (math.floor(high) - math.ceil(low)) // 6
    factors = (1, 2, 5) if len(powers) <= 3 else (1,)
    found = [power + math.log10(factor) for power in powers if power % apart == 0 for factor in factors]
    return [tick for tick in found if low <= tick <= high]


def _padded(heights: Floats, log: bool) -> tuple[float, float]:
    """The range of an axis: a little more than the values have, and something where they have none."""
    low, high = float(heights.min()), float(heights.max())
    # ticks are written with four digits, and are to differ
    least = 0.1 if log else 4e-3 * max(abs(low), abs(high)) or 1.0
    pad = max(0.05 * (high - low), (least - (high - low)) / 2)
    return (low - pad if log or low < 0 or low >= pad else 0.0), high + pad


def running_mean(values: Floats) -> Floats:
    """The mean of a twentieth of the curve around each point, of less of it at the ends."""
    half = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    start, stop = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (sums[stop] - sums[start]) / (stop - start)


def _label(value: float) -> str:
    """A tick in few characters: 0.25, 1500, 20k, 1e-5."""
    size = abs(value)
    if size >= 1e4:
        for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if size >= unit:
                return f"{value / unit:.4g}{name}"
    if size < 1e-12:
        return "0"
    return f"{value:.4g}" if size >= 1e-3 else f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")
