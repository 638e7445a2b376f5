"""What a terminal shows: a progress bar, drawn over itself, counts of what is done, and aligned tables."""

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence

SHORTEST, LONGEST = 8, 24  # characters of the bar itself
REDRAW = 0.1  # seconds
SPEAK = 5.0  # seconds between two lines where there is no bar

Say = Callable[[str], None]  # what gets a line
Count = Callable[[int, int], None]  # what gets how many are done, and how many there are


def on_terminal() -> bool:
    """Whether a bar on stderr can be seen drawn over itself: on a terminal, and in a notebook."""
    stream = sys.stderr
    return stream is not None and (stream.isatty() or type(stream).__module__.startswith("ipykernel."))


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


class Counting:
    """Says how many of some things are done: at once, then on a bar, or in a line every few seconds.

        with Counting("reading photographs", bar=on_terminal()) as count:
            count(3, 183)

    Args:
        what: What is done.
        bar: Whether a bar is drawn on stderr.
        say: Gets the lines where no bar is drawn; None: nothing is said there.
        after: Seconds before the first line: work that is done by then needs none.
    """

    def __init__(self, what: str, *, bar: bool, say: Say | None = None, after: float = 0.0):
        self._what = what
        self._bar = Bar() if bar else None
        self._say = say
        self._began = time.monotonic()
        self._said = self._began + after - SPEAK

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == 0:
            # what came before is not the pace
            self._began = now
        fields = [f"{self._what} {done}/{total}"]
        if 0 < done < total:
            fields.append(f"{spell_seconds((now - self._began) / done * (total - done))} left")
        if self._bar is not None:
            self._bar.draw(fields, done / max(total, 1))
        elif self._say is not None and now - self._said >= SPEAK and done < total:
            self._said = now
            self._say("  ".join(fields))

    def clear(self) -> None:
        """Take the bar away, say for a line of another's."""
        if self._bar is not None:
            self._bar.clear()

    def __enter__(self) -> "Counting":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()


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
