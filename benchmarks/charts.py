"""Charts of milliseconds, as files of SVG."""

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


# in pixels. The colours are read on white and on black
COLUMNS, COLUMN, GAP, LABELS, LINE, BAR, TITLE = 2, 430, 20, 180, 19, 12, 26
TEXT, OURS_COLOUR, OTHER_COLOUR, RANGE = "#76828e", "#1f9d6b", "#7f9dbd", "#c0793a"
VALUES = 58  # for the number at a bar's end


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
    style = f"text{{font:12px sans-serif;fill:{TEXT}}}.t{{font-weight:bold}}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}"'
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
