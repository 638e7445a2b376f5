"""Tables of benchmarks/results/papers.json, in markdown: the blocks of docs/papers.md, with their claims."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import charts
import papers_curves as curves
import papers_gans as gans
import papers_sci as sci
from cells import load, table

STAGES_CHART = "docs/papers-stages.svg"
# what is less than this between two rows may be the seed's
MARGINS = {"lol_psnr": 0.1, "lol_ssim": 0.005, "over": 0.1, "over_lol": 0.1, "uneven": 0.5, "hue_shift": 0.2}
FORMS = {
    "parameters": ("parameters", "{:,}"),
    "gmacs": ("GMAC", "{:.4g}"),
    "ms": ("processor ms", "{:.3g}"),
    "lol_psnr": ("LOL PSNR", "{:.2f}"),
    "lol_ssim": ("LOL SSIM", "{:.3f}"),
    "lol_scaled_psnr": ("LOL PSNR, mean scaled", "{:.2f}"),
    "mean": ("mean", "{:.3f}"),
    "over_lol": ("over-exposed, LOL, %", "{:.2f}"),
    "over": ("over-exposed, DICM, MEF, NPE, %", "{:.2f}"),
    "uneven": ("burnt or unlit patches, %", "{:.1f}"),
    "hue_shift": ("hue shift °", "{:.2f}"),
    "spread": ("spread over exposures", "{:.3f}"),
    "spatial_consistency": ("spatial consistency", "{:.4f}"),
    "exposure": ("exposure", "{:.4f}"),
    "colour_constancy": ("colour", "{:.4f}"),
    "map_smoothness": ("smoothness", "{:.5f}"),
    "stage_distance": ("between stages, levels", "{:.2f}"),
}
Rows = Mapping[str, Mapping[str, Any]]


class Claim(NamedTuple):
    """What a paper says, and what there is here.

    Attributes:
        text: The claim.
        figures: What it is judged by.
        holds: None where the difference is too small to tell.
    """

    text: str
    figures: str
    holds: bool | None


# what each table shows: names of rows, and of figures
TABLES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "papers-blocks": (
        [sci.named(blocks, channels) for blocks in sci.BLOCKS for channels in sci.CHANNELS],
        ("parameters", "gmacs", "ms", "lol_psnr", "lol_ssim"),
    ),
    "papers-ruas": (
        ("RUAS(1)", "RUAS(3)", "RUAS(1) + SCI", sci.CALIBRATED),
        ("parameters", "ms", "lol_psnr", "lol_ssim", "mean", "over_lol", "over"),
    ),
    "papers-stages": (
        (sci.CALIBRATED, sci.UNCALIBRATED),
        ("stage_distance", "lol_psnr", "lol_ssim", "mean", "over"),
    ),
    "papers-losses": (
        (curves.FULL, *map(curves.without, curves.LOSSES)),
        ("lol_psnr", "lol_ssim", "mean", "hue_shift", *curves.LOSSES),
    ),
    "papers-iterations": (
        (
            *(curves.iterated(count) for count in range(1, curves.ITERATIONS + 1)),
            curves.SHARED,
            curves.SEPARABLE,
        ),
        ("parameters", "gmacs", "ms", "lol_psnr", "lol_ssim", "mean", "over"),
    ),
    "papers-enlightengan": (
        (gans.ENLIGHTEN, gans.UNATTENDED, gans.UNDISPUTED),
        ("parameters", "lol_psnr", "lol_ssim", "mean", "uneven", "hue_shift"),
    ),
    "papers-nerco": (
        (gans.REPRESENTED, gans.UNREPRESENTED, gans.UNMASKED, gans.UNREAD, *gans.EDGES.values()),
        ("parameters", "lol_psnr", "lol_ssim", "mean", "hue_shift", "spread"),
    ),
    # on docs/nerco.md: a choice of ours, of which the paper says nothing
    "nerco-width": (
        [gans.of_width(width) for width in gans.WIDTHS],
        ("parameters", "gmacs", "ms", "lol_psnr", "lol_ssim", "lol_scaled_psnr", "mean"),
    ),
}


# what each picture shows: names of rows; benchmarks/papers_pictures.py draws them
SHEETS: dict[str, Sequence[str]] = {
    "papers-sci.jpg": (
        sci.CALIBRATED,
        sci.UNCALIBRATED,
        "RUAS(1)",
        "RUAS(3)",
        "RUAS(1) + SCI",
    ),
    "papers-losses.jpg": (curves.FULL, *map(curves.without, curves.LOSSES)),
    "papers-iterations.jpg": (
        *(curves.iterated(count) for count in (1, 2, 4, curves.ITERATIONS)),
        curves.SHARED,
        curves.SEPARABLE,
    ),
    "papers-enlightengan.jpg": (gans.ENLIGHTEN, gans.UNATTENDED, gans.UNDISPUTED),
    "papers-nerco.jpg": (
        gans.REPRESENTED,
        gans.UNREPRESENTED,
        gans.UNMASKED,
        gans.UNREAD,
        *gans.EDGES.values(),
    ),
}
# the picture below each table, and what it is
PICTURES = {
    "papers-stages": ("papers-sci.jpg", "SCI and RUAS on three photographs"),
    "papers-losses": ("papers-losses.jpg", "Zero-DCE without each of its losses"),
    "papers-iterations": ("papers-iterations.jpg", "Zero-DCE by iterations"),
    "papers-enlightengan": ("papers-enlightengan.jpg", "EnlightenGAN without its parts"),
    "papers-nerco": ("papers-nerco.jpg", "NeRCo without its parts"),
}


def shown(name: str, value: Any) -> str:
    return FORMS[name][1].format(value)


def trained(row: Mapping[str, Any]) -> str:
    about = row["trained"]
    return "{steps} steps of {batch} × {size}², {processor_s:.0f} s".format(**about)


def block(name: str, results: Path) -> str:
    """A table with what each row was trained on, and the claims that are checked by it."""
    rows: Rows = load(results / "papers.json")["rows"]
    names, figures = TABLES[name]
    head = ["", "trained", *(FORMS[figure][0] for figure in figures)]
    lines = []
    for row in names:
        if row not in rows:
            continue
        found = rows[row]
        what = f"{row}: {found['what']}" if found["what"] else row
        lines.append([what, trained(found), *(shown(key, found["scores"][key]) for key in figures)])
    missing = missing_of(name, rows)
    told = f"Not measured yet: {'; '.join(missing)}.\n" if missing else ""
    if name in CLAIMS and not missing:
        told = judged(CLAIMS[name](rows))
    told += pictured(name, rows)
    return "\n".join(filter(None, (table(head, lines) if lines else "", told)))


def pictured(name: str, rows: Rows) -> str:
    """The picture of a table, once all that it shows is measured."""
    if name not in PICTURES or any(row not in rows for row in SHEETS[PICTURES[name][0]]):
        return ""
    file, what = PICTURES[name]
    chart = ""
    if name == "papers-stages":
        chart = f"\n![distances between the stages' results]({Path(STAGES_CHART).name})\n"
    return f"{chart}\n![{what}]({file})\n"


def missing_of(name: str, rows: Rows) -> list[str]:
    """The rows of a table that the record lacks: an interrupted run."""
    return [row for row in TABLES[name][0] if row not in rows]


def facts(results: Path) -> str:
    """What all rows have in common."""
    found = load(results / "papers.json")
    if not found["rows"]:
        return "Nothing is measured yet: `python benchmarks/papers.py` does it.\n"
    about = ", ".join(f"{key} {value}" for key, value in found["facts"].items())
    photographs = {row["trained"]["photographs"] for row in found["rows"].values()}
    commits = sorted({row["commit"] for row in found["rows"].values()})
    seconds = sum(row["trained"]["processor_s"] for row in found["rows"].values())
    number = " or ".join(str(one) for one in sorted(photographs))
    return (
        f"[papers.json](../benchmarks/results/papers.json): {len(found['rows'])} rows, {about}; commit"
        f" {', '.join(commits)}. Each row is trained on crops of {number} photographs, by one thread;"
        f" {seconds / 60:.0f} minutes of a processor in all, without the measuring.\n"
    )


def judged(claims: Iterable[Claim]) -> str:
    said = {True: "holds", False: "**does not hold**", None: "too close to tell"}
    lines = [[claim.text, claim.figures, said[claim.holds]] for claim in claims]
    return table(["the paper says", "figures here", "here"], lines)


# --- the claims


def higher(rows: Rows, text: str, key: str, more: str, less: str) -> Claim:
    """That one row has more of a figure than another."""
    ours, other = rows[more]["scores"][key], rows[less]["scores"][key]
    margin = MARGINS.get(key, 0.02 * max(abs(ours), abs(other)))
    label = FORMS[key][0]
    figures = f"{label}: {shown(key, ours)} against {shown(key, other)}"
    return Claim(text, figures, None if abs(ours - other) < margin else ours > other)


def of_blocks(rows: Rows) -> Iterable[Claim]:
    scores = {name: rows[name]["scores"] for name in TABLES["papers-blocks"][0]}
    psnr = {name: one["lol_psnr"] for name, one in scores.items()}
    spread = max(psnr.values()) - min(psnr.values())
    yield Claim(
        "the results hardly depend on blocks and channels (here: all within 1 dB)",
        f"{min(psnr.values()):.2f} to {max(psnr.values()):.2f} dB",
        spread <= 1,
    )
    best = max(psnr, key=lambda name: psnr[name])
    gain = psnr[best] - psnr[sci.CALIBRATED]
    yield Claim(
        "so the smallest is enough (here: none gains more than 0.5 dB over it)",
        f"{gain:+.2f} dB, {best}",
        gain < 0.5,
    )


def of_ruas(rows: Rows) -> Iterable[Claim]:
    for other in ("RUAS(1)", "RUAS(3)"):
        yield higher(
            rows, f"SCI's scheme makes RUAS(1) better than {other}", "lol_psnr", "RUAS(1) + SCI", other
        )
    for key in ("over_lol", "over"):
        yield higher(rows, "with fewer pixels over-exposed than RUAS(3)", key, "RUAS(3)", "RUAS(1) + SCI")


def of_stages(rows: Rows) -> Iterable[Claim]:
    yield higher(
        rows,
        "calibrated, the stages' results gather; without, they lie apart",
        "stage_distance",
        sci.UNCALIBRATED,
        sci.CALIBRATED,
    )
    apart = {
        name: rows[name]["scores"]["stage_distance"] / (255 * rows[name]["scores"]["mean"])
        for name in (sci.CALIBRATED, sci.UNCALIBRATED)
    }
    yield Claim(
        "the same, in units of the results' mean",
        f"{apart[sci.UNCALIBRATED]:.2f} without against {apart[sci.CALIBRATED]:.2f}",
        apart[sci.UNCALIBRATED] > apart[sci.CALIBRATED],
    )
    yield higher(
        rows, "calibrated, the one stage of the test is better", "lol_psnr", sci.CALIBRATED, sci.UNCALIBRATED
    )


def of_losses(rows: Rows) -> Iterable[Claim]:
    says = {
        "spatial_consistency": "without spatial consistency contrast between neighbours is lost",
        "exposure": "without the exposure loss dark regions stay dark",
        "colour_constancy": "without colour constancy there is a cast",
        "map_smoothness": "without smoothness neighbours no longer hang together",
    }
    for loss, text in says.items():
        yield higher(rows, text, loss, curves.without(loss), curves.FULL)
    yield higher(rows, "and so the picture is darker", "mean", curves.FULL, curves.without("exposure"))
    for loss in says:
        yield higher(
            rows,
            f"all four are better than all but {curves.LOSSES[loss]}",
            "lol_psnr",
            curves.FULL,
            curves.without(loss),
        )


def of_iterations(rows: Rows) -> Iterable[Claim]:
    psnr = {
        count: rows[curves.iterated(count)]["scores"]["lol_psnr"] for count in range(1, curves.ITERATIONS + 1)
    }
    yield higher(rows, "one iteration cannot brighten enough", "mean", curves.FULL, curves.iterated(1))
    yield higher(rows, "eight are better than one", "lol_psnr", curves.FULL, curves.iterated(1))
    yield Claim(
        "the last ones add little (here: from 4 to 8 less than from 1 to 4)",
        f"{psnr[4] - psnr[1]:+.2f} dB, then {psnr[8] - psnr[4]:+.2f} dB",
        psnr[8] - psnr[4] < psnr[4] - psnr[1],
    )
    full = rows[curves.FULL]["scores"]
    for name, text in (
        (curves.SHARED, "one map for all iterations is as good (here: within 0.5 dB)"),
        (curves.SEPARABLE, "Zero-DCE++, with so few parameters, too"),
    ):
        scores = rows[name]["scores"]
        lost = full["lol_psnr"] - scores["lol_psnr"]
        figures = f"{-lost:+.2f} dB with {scores['parameters'] / full['parameters']:.0%} of the parameters"
        yield Claim(text, figures, lost <= 0.5)


def of_enlightengan(rows: Rows) -> Iterable[Claim]:
    for name, part in ((gans.UNATTENDED, "attention map"), (gans.UNDISPUTED, "local discriminator")):
        yield higher(rows, f"the {part} makes it better", "lol_psnr", gans.ENLIGHTEN, name)
        yield higher(
            rows, f"without the {part} places are over- or under-exposed", "uneven", name, gans.ENLIGHTEN
        )


def of_nerco(rows: Rows) -> Iterable[Claim]:
    parts = {gans.UNREPRESENTED: "normalisation", gans.UNMASKED: "mask", gans.UNREAD: "text loss"}
    for name, part in parts.items():
        for key in ("lol_psnr", "lol_ssim"):
            yield higher(rows, f"the {part} makes it better", key, gans.REPRESENTED, name)
    yield higher(
        rows,
        "normalisation makes one scene at several exposures alike",
        "spread",
        gans.UNREPRESENTED,
        gans.REPRESENTED,
    )


CLAIMS: Mapping[str, Callable[[Rows], Iterable[Claim]]] = {
    "papers-blocks": of_blocks,
    "papers-ruas": of_ruas,
    "papers-stages": of_stages,
    "papers-losses": of_losses,
    "papers-iterations": of_iterations,
    "papers-enlightengan": of_enlightengan,
    "papers-nerco": of_nerco,
}


def summary(results: Path) -> str:
    """How many claims hold."""
    rows: Rows = load(results / "papers.json")["rows"]
    claims = [claim for name, make in CLAIMS.items() if not missing_of(name, rows) for claim in make(rows)]
    counted = [sum(claim.holds is kind for claim in claims) for kind in (True, None, False)]
    return (
        f"Of {len(claims)} claims {counted[0]} hold here, {counted[1]} are too close to tell and"
        f" {counted[2]} do not hold.\n"
    )


def stages_chart(results: Path) -> str | None:
    """SCI's Figure 3: how far the results of the stages lie from the first, a line for each picture.

    None where they are not measured.
    """
    rows: Rows = load(results / "papers.json")["rows"]
    if missing_of("papers-stages", rows):
        return None
    panels = [
        charts.Lines(title, [[0.0, *line] for line in rows[name]["scores"]["stages"]])
        for title, name in (("with calibration", sci.CALIBRATED), ("without", sci.UNCALIBRATED))
    ]
    return charts.lines(panels, "Distance from the first stage's result in levels, by stage")


def _block(name: str) -> Callable[[Path], str]:
    return lambda results: block(name, results)


#: the blocks by the name that stands in the page
BLOCKS: Mapping[str, Callable[[Path], str]] = {
    "papers-facts": facts,
    "papers-summary": summary,
    **{name: _block(name) for name in TABLES},
}
