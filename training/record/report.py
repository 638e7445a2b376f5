"""The report of a run: one HTML file with its curves, scores and pictures, which needs no network.

    python -m fastllie.training.record.report RUN

makes it anew, also of a run that was stopped.
"""

import argparse
import base64
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from fastllie.images.files import replacing
from fastllie.training.record.charts import Curve, draw
from fastllie.training.record.journal import (
    LOG,
    NOT_LOSSES,
    NOTES,
    PICTURE,
    PICTURES,
    VALIDATION,
    read_lines,
    spell_seconds,
    spell_value,
)

REPORT, CONFIG = "report.html", "config.toml"
MOST_NOTES = 200


def write_report(folder: Path, facts: Mapping[str, str]) -> Path:
    """Write report.html of a run from the logs and pictures in its folder; returns its path.

    Args:
        facts: What stands at the top by name, such as method, recipe, machine and the paths of the weights;
            steps and time are added from the log where they are missing.

    Raises:
        NotADirectoryError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not the folder of a run")
    log, validation = read_lines(folder / LOG), read_lines(folder / VALIDATION)
    best = next((line["step"] for line in reversed(validation) if line["best"]), None)
    facts = dict(facts)
    if log:
        named = {name.lower() for name in facts}
        more = {"steps": f"{log[-1]['step']:,}", "time": spell_seconds(log[-1]["elapsed"])}
        facts |= {name: value for name, value in more.items() if name not in named}
    title = f"fastllie: training of {facts.get('method', folder.resolve().name)}"
    losses, others = _log_curves(log)
    body = [
        f"<h1>{escape(title)}</h1>",
        _table([], facts.items(), "facts"),
        _scores(validation, best),
        _section("Validation", _charts(_curves(validation, "scores", best=best))),
        _section("Losses", _charts(losses) or "<p>The log holds no lines yet.</p>"),
        _section("Training", _charts(others)),
        _section("Pictures", _pictures(folder / PICTURES, best)),
        _text("Configuration", folder / CONFIG),
        _text("Notes", folder / NOTES, last=MOST_NOTES),
    ]
    path = folder / REPORT
    with replacing(path) as temporary:
        # names of files may hold bytes that are no text
        temporary.write_text(
            PAGE.format(title=escape(title), body="\n".join(filter(None, body))), "utf-8", "backslashreplace"
        )
    return path


def facts_of(folder: Path) -> dict[str, str]:
    """What the weights in a run's folder say of it; of several files, the one of the most steps.

    Raises:
        ValueError: a file of weights that cannot be read.
    """
    paths = sorted(folder.glob("*.safetensors"))
    known: dict[str, Any] = {}
    for path in paths:
        try:
            with safe_open(path, "np") as file:
                metadata = file.metadata() or {}
            run = json.loads(metadata.get("run", "{}"))
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{path} is not a readable file of our weights: {error}") from error
        if run.get("steps", 0) >= known.get("steps", 0):
            known = {"method": metadata.get("method", "unknown"), **run}
    facts = {name: str(value) for name, value in known.items()}
    return {**facts, "weights": ", ".join(map(str, paths))} if paths else {}


def _log_curves(log: Sequence[Mapping[str, Any]]) -> tuple[list[Curve], list[Curve]]:
    """The total and each loss; the gradient, the learning rate and the speed."""
    speeds = [
        {"step": line["step"], "speed": {"images per second": line["images_per_second"]}} for line in log
    ]
    # a schedule is no noise to look through
    curves = [curve._replace(smooth=curve.title != "learning_rate") for curve in _curves(log, "values")]
    losses = [curve for curve in curves if curve.title not in NOT_LOSSES]
    others = [curve for curve in curves if curve.title in NOT_LOSSES]
    return losses, others + [curve._replace(smooth=True) for curve in _curves(speeds, "speed")]


def _curves(lines: Sequence[Mapping[str, Any]], key: str, best: int | None = None) -> list[Curve]:
    """A curve of each name below `key`, in the order in which the names appear."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in line[key].items():
            found.setdefault(name, []).append((line["step"], float(value)))
    pairs = {name: np.array(points, np.float64) for name, points in found.items()}
    return [Curve(name, points[:, 0], points[:, 1], best=best) for name, points in pairs.items()]


def _charts(curves: Sequence[Curve]) -> str:
    return f'<div class="charts">{"".join(map(draw, curves))}</div>' if curves else ""


def _scores(validation: Sequence[Mapping[str, Any]], best: int | None) -> str:
    """The scores of the first, the last and the best validation."""
    if not validation:
        return ""
    columns = {"first": validation[0], "last": validation[-1]}
    if best is not None:
        columns["best"] = next(line for line in reversed(validation) if line["step"] == best)
    head = ["score", *(f"{name}, step {line['step']:,}" for name, line in columns.items())]
    names = dict.fromkeys(name for line in columns.values() for name in line["scores"])
    rows = [
        [name.replace("_", " "), *(_score(line["scores"].get(name)) for line in columns.values())]
        for name in names
    ]
    return _table(head, rows, "scores")


def _score(value: float | str | None) -> str:
    return "" if value is None else spell_value(float(value))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)] if head else []
    for name, *cells in rows:
        lines.append(f"<th>{escape(name)}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells))
    inside = "".join(f"<tr>{line}</tr>" for line in lines)
    return inside and f'<div class="wide"><table class="{kind}">{inside}</table></div>'


def _pictures(folder: Path, best: int | None) -> str:
    """The first, the best and the last contact sheet."""
    found = sorted(
        (int(match[1]), path) for path in folder.glob("*.jpg") if (match := PICTURE.fullmatch(path.name))
    )
    if not found:
        return ""
    sheets = dict(found)
    names = {found[0][0]: ["first"]}
    if best in sheets:
        names.setdefault(best, []).append("best")
    names.setdefault(found[-1][0], []).append("last")
    return "".join(
        f"<figure><figcaption>step {step:,} <small>{' and '.join(names[step])}</small></figcaption>"
        f'<img alt="contact sheet of step {step}" src="data:image/jpeg;base64,'
        f'{base64.b64encode(sheets[step].read_bytes()).decode("ascii")}"/></figure>'
        for step in sorted(names)
    )


def _section(title: str, content: str) -> str:
    return content and f"<h2>{title}</h2>{content}"


def _text(title: str, path: Path, last: int | None = None) -> str:
    """A text file to unfold, or its last lines."""
    if not path.exists():
        return ""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    left_out = f"({len(lines) - last:,} lines before)\n" if last and len(lines) > last else ""
    shown = left_out + "\n".join(lines[-last:] if last else lines)
    return f"<details><summary>{title}</summary><pre>{escape(shown)}</pre></details>"


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'"/>
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ground: #fff; --card: #f6f7f9; --text: #1d2127; --faint: #667080;
  --rule: #dfe3e8; --line: #1769c2; --best: #c2410c; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ground: #15181c; --card: #1d2126; --text: #e4e7eb;
  --faint: #929ba8; --rule: #333a43; --line: #6cb2ff; --best: #ff9d57; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 1200px; padding: 1rem 1.25rem 3rem; background: var(--ground);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.45rem; margin: .4rem 0 1rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.1rem; margin: 1.8rem 0 .6rem; }}
.wide {{ overflow-x: auto; margin-bottom: 1rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid var(--rule); text-align: left;
  vertical-align: top; }}
th {{ font-weight: 500; color: var(--faint); white-space: nowrap; }}
.facts td {{ overflow-wrap: anywhere; }}
.scores th {{ white-space: normal; }}
.scores td, .scores th + th {{ text-align: right; }}
.charts {{ display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); }}
figure {{ margin: 0 0 1rem; }}
.charts figure {{ margin: 0; padding: .5rem .6rem .2rem; background: var(--card); border-radius: 8px; }}
figcaption {{ font-weight: 500; }}
small {{ color: var(--faint); font-weight: 400; font-size: .85em; margin-left: .4em; }}
svg {{ display: block; width: 100%; height: auto; }}
svg text {{ font-size: 10.5px; fill: var(--faint); }}
path {{ fill: none; stroke: var(--line); stroke-linejoin: round; vector-effect: non-scaling-stroke; }}
.line {{ stroke-width: 1.6; }}
.raw {{ stroke-width: 1; opacity: .35; }}
.grid {{ stroke: var(--rule); stroke-width: 1; }}
.axis {{ stroke: var(--faint); stroke-width: 1; }}
.at rect {{ fill: transparent; }}
.at circle {{ fill: var(--line); opacity: 0; }}
.at:hover circle, .at .dot, .at .best {{ opacity: 1; }}
.at .best {{ fill: var(--best); }}
img {{ max-width: 100%; height: auto; border-radius: 6px; margin-top: .3rem; }}
details {{ margin-top: 1.2rem; }}
summary {{ cursor: pointer; font-weight: 600; }}
pre {{ padding: .8rem; overflow-x: auto; background: var(--card); border-radius: 8px; font-size: 13px; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fastllie.training.record.report",
        description="Write the report of a training run anew.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder that a run has written to")
    options = parser.parse_args(arguments)
    try:
        path = write_report(options.run, facts_of(options.run))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
