"""Score our weights, the published ones and what people use instead: pairs, colour, restraint, halos, noise.

    python benchmarks/quality.py --shared ../shared

writes benchmarks/results/quality.json, which benchmarks/page.py puts on docs/quality.md; what each column is
stands there. The photographs and the published weights are not part of the repository; two rows need the
extra `compare`.
"""

import argparse
import json
import multiprocessing
import platform
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import record
import torch
from instead import INSTEAD
from quality_scores import Enhance
from quality_sets import COLUMNS, Scores, enhancer, lol_pairs, read, score

import fastllie

PUBLISHED = {
    "zerodce": "weights/zerodce/zerodce_official.safetensors",
    "zerodce++": "weights/zerodce/zerodcepp_official.safetensors",
}
PUBLISHED_SCI = {name: f"weights/sci/{name}.safetensors" for name in ("easy", "medium", "difficult")}
SCALES = (1, 4, 12)  # of Zero-DCE++; 12 is the published test's
TIMED = 12  # pictures of LOL
KEPT = "others kept from commit"  # in the record's facts


@dataclass(frozen=True)
class Candidate:
    """A row of the table: a method with its weights (None: those that ship) and options.

    Without a method it is the row of that name in `instead.INSTEAD`.
    """

    name: str
    method: str | None
    weights: Path | str | None
    options: dict[str, int]


def candidates(shared: Path, ours: dict[str, Path | None]) -> list[Candidate]:
    """The weights to compare; `ours` replaces those that ship."""
    rows = []
    for name in ("published", "ours"):
        for method, title in (("zerodce", "Zero-DCE"), ("zerodce++", "Zero-DCE++")):
            weights = shared / PUBLISHED[method] if name == "published" else ours[method]
            for scale in SCALES if method == "zerodce++" else (None,):
                options = {} if scale is None else {"scale": scale}
                suffix = "" if scale is None else f", scale {scale}"
                rows.append(Candidate(f"{title} {name}{suffix}", method, weights, options))
            if name == "ours":
                rows.append(Candidate(f"{title} ours, metered", method, "metered", {}))
        if name == "published":
            rows += [
                Candidate(f"SCI published, {variant}", "sci", shared / path, {})
                for variant, path in PUBLISHED_SCI.items()
            ]
        else:
            rows += [
                Candidate(f"SCI ours, {variant.name}", "sci", ours.get(variant.name) or variant.name, {})
                for variant in fastllie.info("sci").weights
            ]
            # their published weights could not be had
            rows += [
                Candidate("EnlightenGAN ours", "enlightengan", ours["enlightengan"], {}),
                Candidate("NeRCo ours", "nerco", ours["nerco"], {}),
                Candidate("NeRCo ours, logits", "nerco", ours["logits"] or "logits", {}),
                # our own
                Candidate("dawn ours", "dawn", ours["dawn"], {}),
            ]
    return rows + [Candidate(name, None, None, {}) for name in INSTEAD]


def processor_ms(enhance: Enhance, shared: Path) -> float:
    """Least processor time of a picture of LOL, 600x400: other work on the machine only adds to it."""
    taken = []
    for low, _ in list(lol_pairs(shared))[: TIMED + 1]:
        image = read(low)
        start = time.process_time()
        enhance(image)
        taken.append(1e3 * (time.process_time() - start))
    # the first one prepares what the others find
    return min(taken[1:])


def measure(
    candidate: Candidate, shared: Path, every: int, wanted: Collection[str], timed: bool
) -> tuple[Scores, float | None]:
    """The wanted columns of a candidate, and its time or None, in a process of its own."""
    torch.set_num_threads(1)
    if candidate.method is None:
        enhance = INSTEAD[candidate.name]
    else:
        enhance = enhancer(fastllie.load(candidate.method, candidate.weights, **candidate.options))
    taken = processor_ms(enhance, shared) if timed else None
    return score(enhance, shared, every, wanted), taken


@dataclass
class Table:
    """Rows by name: scores, processor times, and what the record says of them."""

    rows: dict[str, Scores]
    times: dict[str, float]
    facts: dict[str, str]

    def keep(self, record_before: Mapping[str, Any]) -> None:
        """Take over what a record has of these rows."""
        self.rows |= {name: row for name, row in record_before["rows"].items() if name in self.rows}
        self.times |= {
            name: taken for name, taken in record_before["processor_ms"].items() if name in self.rows
        }
        facts = record_before["facts"]
        before = facts[KEPT].split(", ") if KEPT in facts else []
        # each once: rows are measured in several goes of one commit
        self.facts[KEPT] = ", ".join(dict.fromkeys([*before, facts["commit"]]))

    def add(self, name: str, row: Scores, taken: float | None) -> None:
        """Put what was measured in the place of what was kept."""
        merged = self.rows[name] | row
        self.rows[name] = {column: merged[column] for column in COLUMNS if column in merged}
        if taken is not None:
            self.times[name] = taken

    def lacking(self, measured: Collection[str], wanted: Collection[str], timed: bool) -> list[str]:
        """The rows that will not have every column and a time once those are measured."""
        found = []
        for name, row in self.rows.items():
            new = name in measured
            columns = {*row, *(wanted if new else ())}
            if columns != COLUMNS.keys() or not (name in self.times or (new and timed)):
                found.append(name)
        return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--shared",
        type=Path,
        default=record.ROOT.parent / "shared",
        help="the folder with data/ and weights/",
    )
    parser.add_argument("--zerodce", type=Path, help="weights to score instead of those that ship")
    parser.add_argument("--zerodcepp", type=Path, help="likewise for Zero-DCE++")
    parser.add_argument("--sci-strong", type=Path, help="likewise for SCI's strong variant")
    parser.add_argument("--sci-mild", type=Path, help="likewise for SCI's mild variant")
    parser.add_argument("--enlightengan", type=Path, help="likewise for EnlightenGAN")
    parser.add_argument("--nerco", type=Path, help="likewise for NeRCo")
    parser.add_argument("--nerco-logits", type=Path, help="likewise for NeRCo's logits variant")
    parser.add_argument("--dawn", type=Path, help="likewise for dawn")
    parser.add_argument("--jobs", type=int, default=2, help="rows measured at the same time, one thread each")
    parser.add_argument(
        "--only",
        nargs="+",
        default=(),
        metavar="PART",
        help="measure the rows with one of these in their names, and keep the others of the output",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--columns",
        nargs="+",
        choices=COLUMNS,
        metavar="COLUMN",
        help=f"measure these alone, and keep the others and all times: {', '.join(COLUMNS)}",
    )
    what.add_argument(
        "--times", action="store_true", help="measure the processor time alone, and keep all scores"
    )
    parser.add_argument("--every", type=int, default=1, help="take every n-th picture, for a quick look")
    parser.add_argument(
        "-o", "--output", type=Path, default=record.RESULTS, help="the folder for quality.json"
    )
    return parser.parse_args()


def main() -> None:
    options = parse()
    ours = {
        "zerodce": options.zerodce,
        "zerodce++": options.zerodcepp,
        "strong": options.sci_strong,
        "mild": options.sci_mild,
        "enlightengan": options.enlightengan,
        "nerco": options.nerco,
        "logits": options.nerco_logits,
        "dawn": options.dawn,
    }
    path = options.output / "quality.json"
    every_row = candidates(options.shared, ours)
    parts = options.only or ("",)
    compared = [candidate for candidate in every_row if any(part in candidate.name for part in parts)]
    wanted = () if options.times else tuple(options.columns or COLUMNS)
    timed = not options.columns
    table = Table({candidate.name: {} for candidate in every_row}, {}, {})
    if options.only or options.times or options.columns:
        table.keep(json.loads(path.read_text(encoding="utf-8")))
    lacking = table.lacking([candidate.name for candidate in compared], wanted, timed)
    if lacking:
        raise SystemExit(f"{path} has no row to keep with every column of {', '.join(lacking)}")
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        same = (options.shared, options.every, wanted, timed)
        results = pool.map(measure, compared, *map(repeat, same))
        for candidate, (row, taken) in zip(compared, results, strict=True):
            table.add(candidate.name, row, taken)
            told = [] if taken is None else [f"{taken:.1f} ms"]
            told += [f"{COLUMNS[key]} {value:.3f}" for key, value in row.items()]
            print(f"{candidate.name}: {'  '.join(told)}", flush=True)
    table.facts |= {
        "commit": record.git("describe", "--always", "--dirty"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "pictures": "all" if options.every == 1 else f"one in {options.every}",
    }
    record.write(
        path, {"facts": table.facts, "columns": COLUMNS, "rows": table.rows, "processor_ms": table.times}
    )


if __name__ == "__main__":
    main()
