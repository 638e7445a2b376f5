"""Make docs/performance.md and its charts from the figures that are committed in benchmarks/results.

    python benchmarks/page.py           # writes them
    python benchmarks/page.py --check   # says whether they are what it would write

Every figure comes from there, the words before them from page.md beside this file. What was not recorded is
said to be missing.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"

# what the page says of itself, before any figure
INTRO = Path(__file__).with_name("page.md")

WITHOUT_METHODS = """\
Not recorded on any machine yet; `python benchmarks/methods.py` does it, and goes on where it was interrupted.
"""

WITHOUT_GPU = """\
No GPU has been measured yet. On a machine that has one, `make gpu` builds, tests and measures, and
`python benchmarks/page.py` puts the figures here.
"""

OURS, OURS_BYTES = "fastllie", "fastllie, uint8"
OTHERS = ("PyTorch eager", "torch.compile", "ONNX Runtime", "OpenVINO")
CHARTED = 1920 * 1080
INFERENCE = {
    "zerodce": "Zero-DCE",
    "sci": "SCI",
    "enlightengan": "EnlightenGAN",
    "nerco": "NeRCo",
}
PUBLISHED_STEP = "published step in plain PyTorch"


class Bar(NamedTuple):
    """A contender's milliseconds, and their range if it is known."""

    label: str
    ms: float
    low: float | None = None
    high: float | None = None


class Panel(NamedTuple):
    """One chart: whoever is in it ran in one run."""

    title: str
    bars: Sequence[Bar]


def pages(results: Path) -> dict[str, str]:
    """Name of each file in docs/ -> what it holds."""
    found: dict[str, str] = {}
    parts = [INTRO.read_text(encoding="utf-8"), "## Methods\n"]
    panels: list[Panel] = []
    records = [(path, load(path)) for path in sorted(results.glob("methods--*.json"))]
    for path, record in records:
        parts += [source(path, record["machine"]), *absences(record), *method_tables(record["cases"])]
        panels += method_panels(record["cases"])
    if not records:
        parts.append(WITHOUT_METHODS)
    if panels:
        found["performance-methods.svg"] = bars(panels, "Milliseconds for an image, by method")
        parts.insert(2, "![milliseconds for an image, by method](performance-methods.svg)\n")
    inference, more = inference_parts(results)
    if more:
        found["performance-inference.svg"] = bars(more, "Milliseconds for an image, methods one by one")
        inference.insert(1, "![milliseconds for an image](performance-inference.svg)\n")
    parts += inference + operator_parts(results) + training_parts(results) + folder_parts(results)
    parts += gpu_parts(results)
    found["performance.md"] = "\n".join(parts)
    return found


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def source(path: Path, about: Mapping[str, Any]) -> str:
    """Where figures come from, and what they were taken on."""
    words = [str(about["device"])]
    for key, form in (
        ("cores", "{} cores"),
        ("threads", "{} threads"),
        ("instruction_set", "kernels for {}"),
        ("torch", "torch {}"),
        ("onnxruntime", "ONNX Runtime {}"),
        ("openvino", "OpenVINO {}"),
        ("commit", "commit {}"),
        ("date", "{}"),
    ):
        if about.get(key) is not None:
            words.append(form.format(about[key]))
    return f"[{path.name}](../benchmarks/results/{path.name}): {', '.join(words)}.\n"


def absences(record: Mapping[str, Any]) -> list[str]:
    return [f"Not there: {name}: {reason}.\n" for name, reason in record.get("absent", {}).items()]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def spelled(value: float | None) -> str:
    """Three digits or more, never an exponent; nothing for None."""
    if value is None:
        return ""
    decimals = max(0, min(3, 2 - math.floor(math.log10(value)))) if value > 0 else 0
    return f"{value:.{decimals}f}"


def title_of(case: Mapping[str, Any]) -> str:
    named = "".join(f" {name}={value}" for name, value in case["options"].items())
    precision = "" if case["dtype"] == "float32" else f", {case['dtype']}"
    return f"{case['method']}{named}{precision}"


def grouped(cases: Sequence[Any]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for case in cases:
        groups.setdefault(title_of(case), []).append(case)
    return groups


def method_tables(cases: Sequence[Any]) -> Iterator[str]:
    """For each method a table with a row for each size and batch, and who is missing in it."""
    for title, group in grouped(cases).items():
        others = [
            name for name in OTHERS if any(name == row["contender"] for c in group for row in c["rows"])
        ]
        head = ["size", "batch", "fastllie", "min..max", "images/s", "uint8", *others]
        head += ["fastest other / fastllie", "difference"]
        yield f"### {title}\n"
        yield table(head, [method_row(case, others) for case in group])
        missing = [
            f"- {case['size']}, batch {case['batch']}: {one['contender']} {one['reason']}"
            for case in group
            for one in case["left_out"]
        ]
        missing += [
            f"- {case['size']}, batch {case['batch']}: not compared, for {case['unchecked']}"
            for case in group
            if case["unchecked"]
        ]
        if missing:
            lines = "\n".join(missing)
            yield f"<details><summary>left out, and why</summary>\n\n{lines}\n\n</details>\n"


def method_row(case: Mapping[str, Any], others: Sequence[str]) -> list[str]:
    rows = {row["contender"]: row for row in case["rows"]}
    ours, beside = rows.get(OURS), [rows[name]["ms"] for name in others if name in rows]
    spread = images = difference = times = ""
    if ours:
        spread = f"{spelled(ours['best_ms'])}..{spelled(ours['worst_ms'])}"
        images = spelled(ours["images_per_s"])
        difference = "" if ours["difference"] is None else f"{ours['difference']:.1e}"
        times = f"{min(beside) / ours['ms']:.2f}" if beside else ""
    return [
        case["size"],
        str(case["batch"]),
        f"**{spelled(ours['ms'])}**" if ours else "",
        spread,
        images,
        *(spelled(rows[name]["ms"]) if name in rows else "" for name in (OURS_BYTES, *others)),
        times,
        difference,
    ]


def method_panels(cases: Sequence[Any]) -> Iterator[Panel]:
    """For each method a chart of one image of about CHARTED pixels, where others have a time."""
    for title, group in grouped(cases).items():
        known = [
            case
            for case in group
            if case["batch"] == 1 and any(row["contender"] in OTHERS for row in case["rows"])
        ]
        if known:
            shown = min(known, key=lambda case: abs(math.prod(map(int, case["size"].split("x"))) - CHARTED))
            yield Panel(
                f"{title}, {shown['size']}",
                [Bar(row["contender"], row["ms"], row["best_ms"], row["worst_ms"]) for row in shown["rows"]],
            )


def inference_parts(results: Path) -> tuple[list[str], list[Panel]]:
    """Zero-DCE, SCI, EnlightenGAN and NeRCo as benchmarks of their own, each with its contenders."""
    parts: list[str] = []
    panels: list[Panel] = []
    for name, title in INFERENCE.items():
        for path in sorted(results.glob(f"{name}--*.json")):
            record = load(path)
            rows = record["rows"]
            sizes = list(dict.fromkeys(row["size"] for row in rows))
            contenders = list(dict.fromkeys(row["contender"] for row in rows))
            best = {(row["size"], row["contender"]): row["ms"] for row in rows}
            lines = [[one, *(spelled(best.get((size, one))) for size in sizes)] for one in contenders]
            parts += [f"### {title}\n", source(path, record["machine"]), table(["ms", *sizes], lines)]
            last = sizes[-1]
            present = [Bar(one, best[last, one]) for one in contenders if (last, one) in best]
            panels.append(Panel(f"{title}, {last}", present))
    if parts:
        parts.insert(0, "## Inference, each method with its own contenders\n\nBest of interleaved rounds.\n")
    return parts, panels


def operator_parts(results: Path) -> list[str]:
    """Each operator at 1920x1080, or at the size that it was timed at."""
    parts: list[str] = []
    for path in sorted(results.glob("ops--*.json")):
        record = load(path)
        groups: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        for row in record["rows"]:
            by_size = groups.setdefault((row["op"], row["direction"]), {})
            by_size.setdefault(row["size"], {})[row["contender"]] = row
        lines = []
        for (op, direction), by_size in groups.items():
            size = "1920x1080" if "1920x1080" in by_size else list(by_size)[-1]
            rows = by_size[size]
            ours = min((r for n, r in rows.items() if is_backend(n)), key=lambda row: row["ms"])
            eager, compiled = (rows.get(name, {}).get("ms") for name in ("torch eager", "torch.compile"))
            share = f"{ours['share_of_copy']:.0%}"
            lines.append([op, direction, size, *map(spelled, (eager, compiled, ours["ms"])), share])
        head = ["operator", "", "size", "eager, ms", "torch.compile, ms", "fastllie, ms", "of a copy's speed"]
        parts += [source(path, record["machine"]), table(head, lines)]
    if parts:
        parts.insert(0, "## Operators\n\nBest of interleaved rounds, float32.\n")
    return parts


def is_backend(contender: str) -> bool:
    """Whether this is an operator of ours on one of its backends, and no mixture that it is compared with."""
    return contender.startswith("fastllie ")


def training_parts(results: Path) -> list[str]:
    """Steps of training beside the published code's."""
    parts: list[str] = []
    for path in [*sorted(results.glob("training.json")), *sorted(results.glob("training--*.json"))]:
        record = load(path)
        lines = []
        for title, rows in record["rows"].items():
            published = rows[PUBLISHED_STEP]["wall_ms"]
            for name, row in rows.items():
                if name.startswith("fastllie"):
                    taken = row["wall_ms"]
                    lines.append([title, name, *map(spelled, (published, taken)), f"{published / taken:.1f}"])
        head = ["step", "", "published code, ms", "fastllie, ms", "times faster"]
        parts += [source(path, record["machine"]) + kept_heap(record["machine"]), table(head, lines)]
    if parts:
        parts.insert(0, "## Training\n\nBest of interleaved rounds.\n")
    return parts


def kept_heap(about: Mapping[str, Any]) -> str:
    keeps = any(about.get("allocator", {}).values())
    return "The allocator keeps freed memory, for both.\n" if keeps else ""


def folder_parts(results: Path) -> list[str]:
    parts: list[str] = []
    for path in sorted(results.glob("folders--*.json")):
        found = load(path)
        lines = [
            [name, spelled(rate), spelled(1e3 * found["processor seconds an image"][name])]
            for name, rate in found["images a second"].items()
        ]
        told = f"{found['photographs']} JPEGs of {found['size']}, {found['threads']} threads"
        parts += [
            f"[{path.name}](../benchmarks/results/{path.name}): {told}.\n",
            table(["SCI on a folder", "images/s", "processor ms an image"], lines),
        ]
    return ["## Folders\n", *parts] if parts else []


def gpu_parts(results: Path) -> list[str]:
    parts = ["## On a GPU\n"]
    for path in sorted(results.glob("gpu--*.json")):
        record = load(path)
        lines = []
        for names, row in timed_rows(record):
            share = f"{row['share_of_copy']:.0%}" if "share_of_copy" in row else ""
            lines.append([", ".join(names[:-1]), names[-1], spelled(row["ms"]), share])
        about = record.get("machine") or {"device": record["device"]}
        parts += [source(path, about), table(["", "contender", "ms", "of a copy's speed"], lines)]
    return parts if len(parts) > 1 else [*parts, WITHOUT_GPU]


def timed_rows(node: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Whatever has milliseconds, however deep, with the names on the way to it."""
    if isinstance(node, list):
        for one in node:
            yield from timed_rows(one, names)
    elif isinstance(node, dict):
        if isinstance(node.get("ms"), (int, float)):
            own = tuple(str(node[key]) for key in ("name", "shape", "contender") if key in node)
            yield names + own, node
            return
        for key, value in node.items():
            # what only holds the rest says nothing
            yield from timed_rows(value, names if key in ("results", "figures", "rows") else (*names, key))


# of charts, in pixels. The colours are read on white and on black
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
    most = max(bar.high or bar.ms for bar in panel.bars)
    yield f'<text class="t" x="{left}" y="{top + 14}">{escape(panel.title)}, ms</text>'
    for place, bar in enumerate(panel.bars):
        y = top + TITLE + place * LINE
        start = left + LABELS
        end = start + room * bar.ms / most
        ours = bar.label.startswith("fastllie") or bar.label.startswith("in strips")
        colour = OURS_COLOUR if ours else OTHER_COLOUR
        yield f'<text x="{start - 6}" y="{y + 10}" text-anchor="end">{escape(bar.label)}</text>'
        yield f'<rect x="{start}" y="{y}" width="{max(1, end - start):.1f}" height="{BAR}" fill="{colour}"/>'
        shown = end
        if bar.low is not None and bar.high is not None:
            low, high = (start + room * value / most for value in (bar.low, bar.high))
            middle = y + BAR / 2
            yield f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{RANGE}" stroke-width="2"/>'
            shown = max(end, high)
        yield f'<text x="{shown + 5:.1f}" y="{y + 10}">{spelled(bar.ms)}</text>'


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is stale")
    options = parser.parse_args()
    found = pages(RESULTS)
    stale = [
        name
        for name, text in found.items()
        if not (DOCS / name).exists() or (DOCS / name).read_text(encoding="utf-8") != text
    ]
    for name in stale:
        if options.check:
            print(f"docs/{name} is stale: run python benchmarks/page.py", file=sys.stderr)
        else:
            (DOCS / name).write_text(found[name], encoding="utf-8")
            print(f"written: docs/{name}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
