"""Tables of what is in benchmarks/results, in markdown: the blocks of the pages, by name."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gpu_tables
from cells import load, table
from charts import Bar, Panel

from fastllie import methods
from fastllie.benchmarking.baselines import BASELINES
from fastllie.benchmarking.bench import OURS, OURS_BYTES
from fastllie.benchmarking.timing import spelled

PUBLISHED = "as published"
OTHERS = (*BASELINES.values(), PUBLISHED)
CHARTED = 1920 * 1080
PUBLISHED_STEP = "published step in plain PyTorch"
# the sizes of the operators that are shown, where they were timed at one of them
SHOWN = ("600x400", "1920x1080")

GOOD_AT = {
    "zerodce": "a curve for each pixel; for GPUs, and the one most compared with",
    "zerodce++": "the same for less time; with `scale` for video",
    "sci": "the fastest, nearly a tone curve: cameras and previews",
    "enlightengan": "sees much of the image, takes some noise out",
    "nerco": "looks at the whole image at once; the slowest",
    "dawn": "the default, our own: exposure by the whole picture, noise taken out before",
}
# what its options make of a method in the table of the README
BESIDE = {"zerodce++": {"scale": 12}}

WITHOUT_METHODS = """\
Not recorded on any machine yet; `python benchmarks/methods.py` does it, and goes on where it was interrupted.
"""
WITHOUT_GPU = """\
No GPU has been measured yet. On a machine that has one, `make gpu` builds, tests and measures, and
`python benchmarks/page.py` puts the figures here.
"""


def newest(results: Path) -> tuple[Path, Any] | None:
    """The record of all methods that is shown: the newest complete one, or else the newest; None: none."""
    found = [(path, load(path)) for path in sorted(results.glob("methods--*.json"))]
    if not found:
        return None
    return max(found, key=lambda one: (one[1].get("complete", False), one[1]["machine"].get("date", "")))


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


def folded(summary: str, text: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{text.rstrip()}\n\n</details>\n"


def figure(value: float | None) -> str:
    """Three digits or more; nothing for None."""
    return "" if value is None else spelled(value)


# --- methods


def title_of(case: Mapping[str, Any]) -> str:
    named = "".join(f" {name}={value}" for name, value in case["options"].items())
    return f"{case['method']}{named}"


def kind_of(case: Mapping[str, Any]) -> str:
    """Precision and, where they do not ship, weights."""
    shipped = [variant.name for variant in methods.info(case["method"]).weights]
    return case["dtype"] if case["weights"] in shipped else f"{case['dtype']}, {case['weights']}"


def pixels_of(case: Mapping[str, Any]) -> int:
    return math.prod(map(int, case["size"].split("x")))


def method_parts(results: Path) -> tuple[str, list[Panel]]:
    """For each method a table with a row for each size, batch and precision; and the charts of them."""
    found = newest(results)
    if found is None:
        return WITHOUT_METHODS, []
    path, record = found
    parts = [source(path, record["machine"])]
    parts += [f"Not there: {name}: {reason}.\n" for name, reason in record["absent"].items()]
    panels: list[Panel] = []
    groups: dict[str, list[Any]] = {}
    for case in record["cases"]:
        groups.setdefault(title_of(case), []).append(case)
    for title, group in sorted(groups.items()):
        order = sorted(group, key=lambda case: (kind_of(case) != "float32", kind_of(case), case["batch"]))
        order.sort(key=pixels_of)
        order.sort(key=lambda case: (kind_of(case) != "float32", kind_of(case)))
        parts += [f"### {title}\n", *method_tables(order)]
        panels += method_panels(title, order)
    return "\n".join(parts), panels


def method_tables(group: Sequence[Any]) -> Iterator[str]:
    others = [name for name in OTHERS if any(name == row["contender"] for c in group for row in c["rows"])]
    head = ["size", "batch", "", "fastllie", "min..max", "images/s", "uint8", *others]
    yield table(
        [*head, "fastest other / fastllie", "difference"], [method_row(case, others) for case in group]
    )
    shown = shown_of(group)
    rows = [
        [
            f"{case['size']}, {kind_of(case)}",
            row["contender"],
            *(figure(row.get(key)) for key in ("ms", "cpu_ms", "peak_mb")),
            str(row["rounds"]),
        ]
        for case in shown
        for row in case["rows"]
        if row.get("cpu_ms") is not None
    ]
    if rows:
        head = ["", "contender", "ms", "processor ms", "peak MB", "rounds"]
        yield folded("processor time and memory", table(head, rows))
    missing = [
        f"- {case['size']}, batch {case['batch']}, {kind_of(case)}: {one['contender']} {one['reason']}"
        for case in group
        for one in case["left_out"]
    ]
    missing += [
        f"- {case['size']}, batch {case['batch']}, {kind_of(case)}: not compared, for {case['unchecked']}"
        for case in group
        if case["unchecked"]
    ]
    if missing:
        yield folded("left out, and why", "\n".join(missing))


def method_row(case: Mapping[str, Any], others: Sequence[str]) -> list[str]:
    rows = {row["contender"]: row for row in case["rows"]}
    ours, beside = rows.get(OURS), fastest_other(rows)
    spread = images = difference = times = ""
    if ours:
        spread = f"{spelled(ours['best_ms'])}..{spelled(ours['worst_ms'])}"
        images = spelled(ours["images_per_s"])
        difference = "" if ours["difference"] is None else f"{ours['difference']:.1e}"
        times = f"{beside / ours['ms']:.2f}" if beside else ""
    return [
        case["size"],
        str(case["batch"]),
        kind_of(case),
        f"**{spelled(ours['ms'])}**" if ours else "",
        spread,
        images,
        *(spelled(rows[name]["ms"]) if name in rows else "" for name in (OURS_BYTES, *others)),
        times,
        difference,
    ]


def fastest_other(rows: Mapping[str, Any]) -> float | None:
    return min((rows[name]["ms"] for name in OTHERS if name in rows), default=None)


def shown_of(group: Sequence[Any]) -> list[Any]:
    """One image of about CHARTED pixels in each precision, and with each kind of weights."""
    kinds: dict[str, list[Any]] = {}
    for case in group:
        if case["batch"] == 1 and case["rows"]:
            kinds.setdefault(kind_of(case), []).append(case)
    return [min(cases, key=lambda case: abs(pixels_of(case) - CHARTED)) for cases in kinds.values()]


def method_panels(title: str, group: Sequence[Any]) -> Iterator[Panel]:
    """A chart of each kind in which others have a time."""
    compared = [case for case in group if any(row["contender"] in OTHERS for row in case["rows"])]
    for case in shown_of(compared):
        bars = [Bar(row["contender"], row["ms"], row["best_ms"], row["worst_ms"]) for row in case["rows"]]
        kind = "" if kind_of(case) == "float32" else f", {kind_of(case)}"
        yield Panel(f"{title}, {case['size']}{kind}", bars)


def overview(results: Path) -> str:
    """The README's table: each method with what it is good at, its size, its time, its scores, its paper."""
    found = newest(results)
    cases = found[1]["cases"] if found else []
    scores = load(results / "quality.json")["rows"]
    rows = []
    for name in methods.METHODS:
        row = methods.info(name)
        for options in ({}, BESIDE[name]) if name in BESIDE else ({},):
            case = charted_case(cases, name, options)
            times = [["", ""]] if case is None else [overview_times(case)]
            named = "".join(f", `{key}={value}`" for key, value in options.items())
            title = f"{row.title} ours" + "".join(f", {key} {value}" for key, value in options.items())
            title = title if options or name not in BESIDE else f"{title}, scale 1"
            best = scores.get(title) or scores.get(f"{title}, {row.weights[0].name}") or {}
            quality = f"{best['lol_psnr']:.2f} / {best['lol_ssim']:.3f}" if best else ""
            small = row.weights[0].parameters
            parameters = f"{small or row.parameters:,}" + (f" of {row.parameters:,}" if small else "")
            link = f"[{row.paper.split(', arXiv ')[0].split(',')[0]}]({paper_link(row.paper)})"
            first = [f"`{name}`{named}", "" if options else GOOD_AT[name], "" if options else parameters]
            rows.append([*first, *times[0], quality, "" if options else link])
    head = ["method", "good at", "parameters", "ms", "the others", "LOL PSNR / SSIM", "paper"]
    text = table(head, rows)
    if found is None:
        return text
    about = found[1]["machine"]
    return (
        f"{text}\n<sub>Milliseconds for one image of {SHOWN[-1]} in float32 on {about['cores']} cores of an"
        f" {about['device']}, and those of the fastest other way to run the same weights there. Parameters of"
        " ours, and of the paper's where they differ.</sub>\n"
    )


def papers(results: Path) -> str:
    """Each method with the parameters of the paper's network and of ours, and the paper."""
    rows = []
    for name in methods.METHODS:
        row = methods.info(name)
        ours = ", ".join(f"`{one.name}` {one.parameters or row.parameters:,}" for one in row.weights)
        rows.append([f"`{name}`", f"{row.parameters:,}", ours, row.paper])
    return table(["method", "parameters of the paper's", "of the weights that ship", "paper"], rows)


def charted_case(cases: Sequence[Any], method: str, options: Mapping[str, Any]) -> Any:
    """The case of one large image in float32 with the weights that ship, or None."""
    for case in cases:
        alike = (case["method"], case["options"], case["batch"]) == (method, options, 1)
        if alike and kind_of(case) == "float32" and case["size"] == SHOWN[-1]:
            return case
    return None


def overview_times(case: Mapping[str, Any]) -> list[str]:
    """Milliseconds of ours and of the fastest other, which has a name."""
    rows = {row["contender"]: row for row in case["rows"]}
    others = [rows[name] for name in OTHERS if name in rows]
    best = min(others, key=lambda row: row["ms"], default=None)
    ours = figure(rows[OURS]["ms"]) if OURS in rows else ""
    return [ours, f"{spelled(best['ms'])}, {best['contender']}" if best else ""]


def paper_link(paper: str) -> str:
    return f"https://arxiv.org/abs/{paper.split('arXiv ')[1]}" if "arXiv " in paper else "docs/methods.md"


# --- operators, training, folders, GPUs


def operators(results: Path) -> str:
    """Each operator at the sizes that are shown, or at the one that it was timed at."""
    parts: list[str] = []
    for path in sorted(results.glob("ops--*.json")):
        record = load(path)
        groups: dict[tuple[str, str, str], dict[str, Any]] = {}
        for row in record["rows"]:
            groups.setdefault((row["op"], row["direction"], row["size"]), {})[row["contender"]] = row
        ops = {op for op, _, size in groups if size in SHOWN}
        lines = []
        for (op, direction, size), rows in groups.items():
            if op in ops and size not in SHOWN:
                continue
            ours = min((r for n, r in rows.items() if n.startswith("fastllie ")), key=lambda row: row["ms"])
            beside = [rows.get(name, {}).get("ms") for name in ("torch eager", "torch.compile", PUBLISHED)]
            share = f"{ours['share_of_copy']:.0%}"
            lines.append([op, direction, size, *map(figure, (*beside, ours["ms"])), share])
        lines.sort(key=lambda line: (line[0], line[1]))
        head = ["operator", "", "size", "eager, ms", "torch.compile, ms", "as published, ms", "fastllie, ms"]
        parts += [source(path, record["machine"]), table([*head, "of a copy's speed"], lines)]
    return "\n".join(parts)


def training(results: Path) -> str:
    """Steps of training beside the published code's, and the time that a batch takes."""
    parts: list[str] = []
    for path in [*sorted(results.glob("training.json")), *sorted(results.glob("training--*.json"))]:
        record = load(path)
        lines = []
        for title, rows in record["rows"].items():
            published, data = rows[PUBLISHED_STEP]["wall_ms"], rows["data"]["wall_ms"]
            for name, row in rows.items():
                if name.startswith("fastllie"):
                    taken = row["wall_ms"]
                    times = f"{published / taken:.1f}"
                    lines.append([title, name, *map(figure, (published, taken)), times, figure(data)])
        head = [
            "step",
            "",
            "published code, ms",
            "fastllie, ms",
            "times faster",
            "a batch from the cache, ms",
        ]
        parts += [source(path, record["machine"]) + kept_heap(record["machine"]), table(head, lines)]
    return "\n".join(parts)


def kept_heap(about: Mapping[str, Any]) -> str:
    keeps = any(about.get("allocator", {}).values())
    return "The allocator keeps freed memory, for both.\n" if keeps else ""


def folders(results: Path) -> str:
    parts: list[str] = []
    for path in sorted(results.glob("folders--*.json")):
        found = load(path)
        lines = [
            [name, spelled(rate), spelled(1e3 * found["processor seconds an image"][name])]
            for name, rate in found["images a second"].items()
        ]
        extra = ", with the extra `fast`" if found.get("extra fast") else ""
        what = f"{found['photographs']} JPEGs of {found['size']}, {found['threads']} threads{extra}"
        share = f"decoding and encoding are {found['share of the files']:.0%} of the processor time"
        parts += [
            f"[{path.name}](../benchmarks/results/{path.name}): {what}; {share}.\n",
            table(["SCI on a folder", "images/s", "processor ms an image"], lines),
        ]
    return "\n".join(parts)


def gpus(results: Path) -> str:
    parts: list[str] = []
    for path in sorted(results.glob("gpu--*.json")):
        record = load(path)
        lines = []
        for names, row in timed_rows(record):
            share = f"{row['share_of_copy']:.0%}" if "share_of_copy" in row else ""
            lines.append([", ".join(names[:-1]), names[-1], spelled(row["ms"]), share])
        about = record.get("machine") or {"device": record["device"]}
        parts += [source(path, about), table(["", "contender", "ms", "of a copy's speed"], lines)]
    return "\n".join(parts) or WITHOUT_GPU


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


#: the blocks by the name that stands in the pages; benchmarks/score_tables.py has the others
BLOCKS: Mapping[str, Callable[[Path], str]] = {
    "overview": overview,
    "papers": papers,
    "methods": lambda results: method_parts(results)[0],
    "operators": operators,
    "training": training,
    "folders": folders,
    "gpus": gpus,
    "estimates": gpu_tables.estimates,
    "launches": gpu_tables.launches,
}
