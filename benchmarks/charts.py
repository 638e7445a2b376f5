"""Charts of figures, as files of SVG."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from fastllie.benchmarking.timing import spelled


class Bar(NamedTuple):
    """A contender's milliseconds, and their range."""

    label: str
    ms: float
    low: float
    high: float


class Panel(NamedTuple):
    """One chart: whoever is in it ran in one run."""

    title: str
    bars: Sequence[Bar]


class Lines(NamedTuple):
    """One chart of lines over 1, 2, ...; their mean is drawn over them."""

    title: str
    lines: Sequence[Sequence[float]]


# in pixels. The colours are read on white and on black
COLUMNS, COLUMN, GAP, LABELS, LINE, BAR, TITLE = 2, 430, 20, 180, 19, 12, 26
TEXT, OURS_COLOUR, OTHER_COLOUR, RANGE = "#76828e", "#1f9d6b", "#7f9dbd", "#c0793a"
VALUES = 58  # for the number at a bar's end
PLOT, AXIS = 200, 44  # height of lines, and room for the numbers beside them


def bars(panels: Sequence[Panel], label: str) -> str:
    """Panels of horizontal bars, each on a scale of its own, as a file of SVG."""
    width = COLUMNS * COLUMN + (COLUMNS - 1) * GAP
    parts: list[str] = []
    top = 0
    for first in range(0, len(panels), COLUMNS):
        row = panels[first : first + COLUMNS]
        for place, panel in enumerate(row):
            parts += _panel(panel, place * (COLUMN + GAP), top)
        top += TITLE + LINE * max(len(panel.bars) for panel in row) + 18
    return _file(parts, width, top, label)


def lines(panels: Sequence[Lines], label: str) -> str:
    """Panels of lines beside each other, all on one scale, as a file of SVG."""
    most = max(value for panel in panels for line in panel.lines for value in line)
    parts = [part for place, panel in enumerate(panels) for part in _lines(panel, place, most)]
    return _file(parts, len(panels) * (COLUMN + GAP) - GAP, TITLE + PLOT + LINE, label)


def _lines(panel: Lines, place: int, most: float) -> Iterator[str]:
    left, right = place * (COLUMN + GAP) + AXIS, place * (COLUMN + GAP) + COLUMN - AXIS
    count = len(panel.lines[0])

    def path(values: Sequence[float], style: str) -> str:
        points = [
            f"{left + (right - left) * step / (count - 1):.1f} {TITLE + PLOT * (1 - value / most):.1f}"
            for step, value in enumerate(values)
        ]
        return f'<path d="M{" L".join(points)}" fill="none" {style}/>'

    yield f'<text class="t" x="{left}" y="14">{escape(panel.title)}</text>'
    for share in (0, 0.5, 1):
        y = TITLE + PLOT * (1 - share)
        yield f'<path d="M{left} {y}H{right}" stroke="{TEXT}" stroke-opacity=".3"/>'
        yield f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{most * share:.3g}</text>'
    for step in range(count):
        x = left + (right - left) * step / (count - 1)
        yield f'<text x="{x:.1f}" y="{TITLE + PLOT + 16}" text-anchor="middle">{step + 1}</text>'
    for line in panel.lines:
        yield path(line, f'stroke="{OTHER_COLOUR}" stroke-opacity=".45"')
    means = [sum(values) / len(values) for values in zip(*panel.lines, strict=True)]
    yield path(means, f'stroke="{OURS_COLOUR}" stroke-width="3"')


def _file(parts: Sequence[str], width: int, height: int, label: str) -> str:
    style = f"text{{font:12px sans-serif;fill:{TEXT}}}.t{{font-weight:bold}}"
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}'
        f' role="img" aria-label="{escape(label)}"><title>{escape(label)}</title><style>{style}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _panel(panel: Panel, left: int, top: int) -> Iterator[str]:
    room = COLUMN - LABELS - VALUES
    most = max(bar.high for bar in panel.bars)
    yield f'<text class="t" x="{left}" y="{top + 14}">{escape(panel.title)}, ms</text>'
    for place, bar in enumerate(panel.bars):
        y = top + TITLE + place * LINE
        start = left + LABELS
        end = start + room * bar.ms / most
        colour = OURS_COLOUR if bar.label.startswith("fastllie") else OTHER_COLOUR
        yield f'<text x="{start - 6}" y="{y + 10}" text-anchor="end">{escape(bar.label)}</text>'
        yield f'<rect x="{start}" y="{y}" width="{max(1, end - start):.1f}" height="{BAR}" fill="{colour}"/>'
        low, high = (start + room * value / most for value in (bar.low, bar.high))
        middle = y + BAR / 2
        yield f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{RANGE}" stroke-width="2"/>'
        yield f'<text x="{max(end, high) + 5:.1f}" y="{y + 10}">{spelled(bar.ms)}</text>'
