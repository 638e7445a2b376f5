"""Put the figures that are committed in benchmarks/results on the pages that show them, and draw their chart.

    python benchmarks/page.py           # writes them
    python benchmarks/page.py --check   # says whether they are what it would write

README.md and docs/*.md have blocks between `<!-- figures: NAME -->` and `<!-- /figures -->`: what stands
there is made by benchmarks/*tables.py, all else is written by people, without figures of speed or quality.
"""

import argparse
import re
import sys
from pathlib import Path

import record

# a checkout that is not installed; behind benchmarks/, whose training.py is another one
sys.path.append(str(record.ROOT))

import application_tables
import charts
import papers_tables
import score_tables
import tables

ROOT, RESULTS = record.ROOT, record.RESULTS
MARKED = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- /figures -->)", re.DOTALL)
BLOCKS = {**tables.BLOCKS, **score_tables.BLOCKS, **papers_tables.BLOCKS, **application_tables.BLOCKS}
CHART = "docs/performance-methods.svg"


def filled(text: str, results: Path) -> str:
    """The page with its blocks made anew.

    Raises:
        ValueError: a block that nothing makes.
    """

    def made(match: re.Match[str]) -> str:
        if match[2] not in BLOCKS:
            raise ValueError(f"nothing makes the block {match[2]!r}; known: {', '.join(BLOCKS)}")
        return f"{match[1]}{BLOCKS[match[2]](results)}{match[3]}"

    return MARKED.sub(made, text)


def pages(results: Path, root: Path = ROOT) -> dict[str, str]:
    """Name of each file with figures -> what it holds."""
    found = {}
    for path in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        if MARKED.search(text):
            found[path.relative_to(root).as_posix()] = filled(text, results)
    panels = tables.method_parts(results)[1]
    if panels:
        found[CHART] = charts.bars(panels, "Milliseconds for an image, by method")
    stages = papers_tables.stages_chart(results)
    if stages is not None:
        found[papers_tables.STAGES_CHART] = stages
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is stale")
    options = parser.parse_args()
    stale = 0
    for name, text in pages(RESULTS, ROOT).items():
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if options.check:
            print(f"{name} is stale: run python benchmarks/page.py", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"written: {name}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
