"""What a terminal shows: a progress bar, one line drawn over itself, and tables with aligned columns."""

import math
import os
import shutil
import sys
import time
from collections.abc import Sequence

SHORTEST, LONGEST = 8, 24  # characters of the bar itself
REDRAW = 0.1  # seconds


def on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


class Bar:
    """A line on stderr that is drawn over itself, ten times a second at most."""

    def __init__(self) -> None:
        self._fields: list[str] = []
        self._fraction = 0.0
        self._shown = 0  # characters
        self._drawn = -math.inf

    def draw(self, fields: list[str], fraction: float) -> None:
        self._fields, self._fraction = fields, fraction
        if time.monotonic() - self._drawn >= REDRAW or fraction >= 1:
            self.redraw()

    def redraw(self) -> None:
        if not self._fields:
            return
        text = compose(self._fields, self._fraction, _width())
        # one write, over all of the old line: nothing flickers
        self._write(f"\r{text:<{self._shown}}")
        self._shown, self._drawn = len(text), time.monotonic()

    def clear(self) -> None:
        if self._shown:
            self._write("\r" + " " * self._shown + "\r")
            self._shown = 0

    def leave(self) -> None:
        """Show the last state and go on below it."""
        if self._fields:
            self.redraw()
            self._write("\n")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def compose(fields: Sequence[str], fraction: float, width: int) -> str:
    """As many of the fields as fit, in their order, behind a bar where there is room for one."""
    text = fields[0]
    for field in fields[1:]:
        if len(text) + len(field) + 2 > width - SHORTEST - 3:
            break
        text += "  " + field
    length = min(width - len(text) - 3, LONGEST)
    if length >= SHORTEST:
        text = f"[{'#' * int(length * min(fraction, 1)):<{length}}] {text}"
    return text[:width]


def aligned(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> list[str]:
    """The lines of a table; with `numbers` all columns but the first end, and do not begin, together."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = (
            f"{cell:>{width}}" if numbers and place else f"{cell:<{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return lines


def spell_seconds(seconds: float) -> str:
    """A duration as two units at most: "3 h 12 min", "12 min", "45 s"."""
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _width() -> int:
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (AttributeError, OSError, ValueError):
        columns = shutil.get_terminal_size().columns
    # not the last column: some terminals begin a new line there
    return max((columns or 80) - 1, 1)
