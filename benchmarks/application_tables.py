"""Tables of benchmarks/results/applications.json, in markdown: the blocks of docs/detectors.md."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cells import load, table

from fastllie.benchmarking.timing import spelled

RECORD = "applications.json"
DARK = "dark, as it is"
# in points of percent: what is less may be chance
MARGIN = 2.0
WITHOUT = "Not measured yet: `python benchmarks/applications.py` does it.\n"

Row = Mapping[str, Any]


def share(kind: str, count: Mapping[str, int]) -> float:
    """Percent: F1 of the boxes of faces, found again of the characters of text."""
    if kind == "faces":
        together = count["wanted"] + count["found"]
        return 200 * count["right"] / together if together else 100.0
    return 100 * count["right"] / count["wanted"] if count["wanted"] else 100.0


def invented(count: Mapping[str, int]) -> float:
    """What was found and is not in the original, in percent of what is."""
    return 100 * (count["found"] - count["right"]) / max(count["wanted"], 1)


def _cell(kind: str, count: Mapping[str, int]) -> str:
    value = f"{share(kind, count):.0f}"
    return value if kind == "faces" else f"{value} ({invented(count):.0f})"


def _head(stops: Mapping[str, Any]) -> list[str]:
    return ["as it was taken" if float(one) == 0 else f"{one} stops" for one in stops]


def found_again(kind: str, results: Path) -> str:
    """Each method's row, and by exposure how it compares with leaving the picture dark."""
    record = _record(results)
    if record is None:
        return WITHOUT
    rows: Mapping[str, Row] = record["rows"]
    stops = rows[DARK][kind]
    lines = [
        [
            name,
            spelled(row["ms_per_megapixel"]) if name != DARK else "",
            *(_cell(kind, row[kind][one]) for one in stops),
        ]
        for name, row in rows.items()
    ]
    compared = [[title, *_compared(kind, rows, one)] for title, one in zip(_head(stops), stops, strict=True)]
    return "\n".join(
        [
            table(["", "ms a megapixel", *_head(stops)], lines),
            table(["", "dark", "best", "methods that help", "that harm"], compared),
        ]
    )


def _compared(kind: str, rows: Mapping[str, Row], stops: str) -> list[str]:
    values = {name: share(kind, row[kind][stops]) for name, row in rows.items()}
    dark = values.pop(DARK)
    best = max(values, key=lambda name: values[name])
    counts = [
        sum(value > dark + MARGIN for value in values.values()),
        sum(value < dark - MARGIN for value in values.values()),
    ]
    return [f"{dark:.0f}", f"{values[best]:.0f}, {best}", *(f"{one} of {len(values)}" for one in counts)]


def facts(results: Path) -> str:
    """What was looked at, and by what."""
    record = _record(results)
    if record is None:
        return WITHOUT
    about = ", ".join(f"{key} {value}" for key, value in record["facts"].items())
    parts = []
    for kind, pictures in record["pictures"].items():
        composed = sum(one["composed"] for one in pictures)
        count = next(iter(record["rows"][DARK][kind].values()))
        what = "faces" if kind == "faces" else "characters"
        parts.append(f"{count['wanted']} {what} in {len(pictures)} pictures, {composed} of them composed")
    return f"[{RECORD}](../benchmarks/results/{RECORD}): {about}; {'; '.join(parts)}.\n"


def _record(results: Path) -> Any:
    path = results / RECORD
    return load(path) if path.exists() else None


#: the blocks by the name that stands in the page
BLOCKS: Mapping[str, Callable[[Path], str]] = {
    "applications": facts,
    "applications-faces": lambda results: found_again("faces", results),
    "applications-text": lambda results: found_again("text", results),
}
