"""Tables of scores in benchmarks/results, in markdown: the blocks of the pages, by name."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tables import charted_case, figure, load, newest, overview_times, table

from fastllie import methods

# when to take which, by method and variant
TAKE = {
    "zerodce": "a curve and nothing else: natural colours, noise stays",
    "zerodce++": "the same for less time, at one scale",
    "zerodce++, scale 4": "photographs of several megapixels; soft edges around what was lifted",
    "zerodce++, scale 12": "video and previews; sees most of the scene",
    "zerodce, metered": "one dark picture at a time: about the right brightness, and hardly a rim",
    "zerodce++, metered": "the same for less time",
    "sci, strong": "cameras and streams of dark frames, where nothing else is fast enough",
    "sci, metered": "the same where colours are to stay, one picture at a time",
    "sci, mild": "the same at dusk, or where bright frames come in between",
    "enlightengan": "dark pictures with some of their noise taken out",
    "nerco": "dark pictures without their noise, where time and the finest detail do not matter",
    "nerco, logits": "a mild lift of dark pictures as a whole",
    "dawn": "by default: the best picture, noise taken out",
}
# of those, the ones that are the method with an option
OPTIONS = {"zerodce++, scale 4": {"scale": 4}, "zerodce++, scale 12": {"scale": 12}}
# the columns of quality.json that the zoo shows
SHOWN_SCORES = (
    "lol_psnr",
    "lol_ssim",
    "sice_psnr",
    "sice_ssim",
    "shadows",
    "hue_shift",
    "saturation",
    "new_clipping",
    "rise",
    "halo",
    "noise_lol",
)


def quality(results: Path) -> str:
    found = load(results / "quality.json")
    facts = ", ".join(f"{key} {value}" for key, value in found["facts"].items())
    lines = [
        [
            f"**{name}**" if " ours" in name else name,
            *(f"{row[key]:.3f}" for key in found["columns"]),
            figure(found["processor_ms"].get(name)),
        ]
        for name, row in sorted(found["rows"].items(), key=lambda one: order_of(one[0]))
    ]
    head = ["", *found["columns"].values(), "processor ms"]
    return f"[quality.json](../benchmarks/results/quality.json): {facts}.\n\n{table(head, lines)}"


def order_of(name: str) -> tuple[str, bool]:
    """By method, and what is published first."""
    method, _, kind = name.replace(",", "").partition(" ")
    return method, "ours" in kind.split()


def flicker(results: Path) -> str:
    found = load(results / "flicker.json")
    lines = [
        [clip, f"`{method}`", *(f"{value['flicker']:.2f} ({value['mean']:.3f})" for value in row.values())]
        for clip, rows in found["clips"].items()
        for method, row in rows.items()
    ]
    lines += [
        ["steady light: noise", f"`{method}`", *(f"{value['noise']:.2f}" for value in row.values())]
        for method, row in found["clips"]["steady light"].items()
    ]
    first = next(iter(next(iter(found["clips"].values())).values()))
    smooth = [f"`smooth={found['smooth']}`" if name == "smooth" else name for name in first]
    return table(["clip", "method", *smooth], lines)


def zoo(results: Path) -> str:
    """Each method and variant: its scores, its time, its licence and what it is for."""
    scores = load(results / "quality.json")
    record = newest(results)
    cases = record[1]["cases"] if record else []
    columns = {key: scores["columns"][key] for key in SHOWN_SCORES}
    rows = []
    for name, what in TAKE.items():
        method, _, variant = name.partition(", ")
        about = methods.info(method)
        weights = next((one for one in about.weights if one.name == variant), about.weights[0])
        title = row_of(name, scores["rows"])
        case = charted_case(cases, method, OPTIONS.get(name, {}))
        # the record has the default variant of each method; one network takes the same time with any weights,
        # but for a meter before it
        time = "" if case is None or variant == "metered" else overview_times(case)[0]
        rows.append(
            [
                f"`{method}`" + (f", `{variant.replace(' ', '=')}`" if variant else ""),
                *(f"{scores['rows'][title][key]:.3f}" for key in columns),
                figure(scores["processor_ms"].get(title)),
                time,
                weights.licence,
                what,
            ]
        )
    head = ["", *columns.values(), "processor ms, 600x400", "ms, 1920x1080", "licence", "take it for"]
    return table(head, rows)


def row_of(name: str, rows: Mapping[str, object]) -> str:
    """The row of quality.json that has the scores of a method and variant of TAKE."""
    method, _, variant = name.partition(", ")
    title = f"{methods.info(method).title} ours"
    named = f"{title}, {variant}" if variant else title
    return named if named in rows else f"{title}, scale 1"


#: the blocks by the name that stands in the pages
BLOCKS: Mapping[str, Callable[[Path], str]] = {"quality": quality, "flicker": flicker, "zoo": zoo}
