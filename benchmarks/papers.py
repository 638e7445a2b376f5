"""Make the papers' own tables again, small: SCI's, Zero-DCE's, EnlightenGAN's and NeRCo's.

    python benchmarks/papers.py --shared ../shared

trains each row for about a minute on photographs that are dark by computation, measures it on 40 real pairs,
and writes benchmarks/results/papers.json after each, so that a run goes on where it was interrupted.
benchmarks/page.py puts the figures on docs/papers.md, `--draw` the pictures into docs/. The photographs are
not part of the repository.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import papers_curves
import papers_gans
import papers_pictures
import papers_sci
import record
import torch
from papers_runs import SEED, Pictures, Row, differs, measure

RECORD = "papers.json"


def plan(pictures: Pictures, only: str = "") -> list[Row]:
    """The rows with this in their name, in the order of the page."""
    found = [*papers_sci.rows(), *papers_curves.rows(), *papers_gans.rows(pictures)]
    return [row for row in found if only.lower() in row.name.lower()]


def begun(path: Path) -> dict[str, Any]:
    """What is measured already."""
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    return {"facts": {}, "rows": {}}


def fill(path: Path, rows: Sequence[Row], pictures: Pictures, *, again: bool = False) -> Iterable[str]:
    """Measure what the record lacks, or has with other settings; yields each name when it is kept."""
    for row in rows:
        content = begun(path)
        known = content["rows"].get(row.name)
        if known is not None and not again and not differs(known, pictures, row):
            continue
        found = measure(row, pictures)
        found["commit"] = record.git("describe", "--always", "--dirty")
        # another run may have kept rows meanwhile
        content = begun(path)
        content["rows"][row.name] = found
        content["facts"] = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "pictures": "all" if pictures.every == 1 else f"one in {pictures.every}",
            "seed": SEED,
        }
        record.write(path, content)
        yield row.name


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--shared",
        type=Path,
        default=record.ROOT.parent / "shared",
        help="the folder with data/ and weights/",
    )
    parser.add_argument("--only", default="", help="rows with this in their name")
    parser.add_argument(
        "--list", action="store_true", help="say which rows there are, and which are measured"
    )
    parser.add_argument("--again", action="store_true", help="measure also what the record has")
    parser.add_argument("--draw", action="store_true", help="train nothing: draw the pictures of the page")
    parser.add_argument("--steps", type=int, help="of every training, for a quick look")
    parser.add_argument("--every", type=int, default=1, help="take every n-th picture, for a quick look")
    parser.add_argument(
        "--work",
        type=Path,
        default=record.ROOT / "runs" / "papers",
        help="the folder for decoded photographs and for what the rows make of the page's",
    )
    parser.add_argument("-o", "--output", type=Path, default=record.RESULTS, help=f"the folder for {RECORD}")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    pictures = Pictures(options.shared, options.work, options.steps, options.every)
    path = options.output / RECORD
    rows = plan(pictures, options.only)
    if not rows:
        parser.error(f"no row has {options.only!r} in its name; --list names them")
    if options.list:
        known = begun(path)["rows"]
        for row in rows:
            print(f"{'measured' if row.name in known else 'missing ':8}  {row.name}")
        return 0
    if options.draw:
        for line in papers_pictures.draw(pictures, begun(path)["rows"], record.ROOT / "docs"):
            print(line)
        return 0
    start = time.monotonic()
    for name in fill(path, rows, pictures, again=options.again):
        scores = begun(path)["rows"][name]["scores"]
        print(
            f"{time.monotonic() - start:6.0f} s  {name}: PSNR {scores['lol_psnr']:.2f}"
            f" SSIM {scores['lol_ssim']:.3f} mean {scores['mean']:.3f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
