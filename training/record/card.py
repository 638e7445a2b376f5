"""The card beside a file of weights: what it was trained on, how, how good it is, and under which licence.

    python -m fastllie.training.record.card WEIGHTS --photos PHOTOS --scores benchmarks/results/quality.json

writes the card anew, say after its scores were measured.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from fastllie.images.files import replacing
from fastllie.methods import info
from fastllie.training.data import Photograph, list_photographs

TITLES = {
    "zerodce": "Zero-DCE",
    "zerodce++": "Zero-DCE++",
    "sci": "SCI",
    "enlightengan": "EnlightenGAN",
    "nerco": "NeRCo",
    "dawn": "dawn",
}
CHOICE = {
    "sci": "The recipe was chosen among some thirty by the scores below on LOL, SICE, DICM, MEF and NPE, none"
    " of which was trained on, and by looking at the pictures.",
    "enlightengan": "The recipe was chosen among some thirty, most of them stopped early, by the scores below"
    " on LOL, SICE, DICM, MEF, NPE and the well-exposed photographs, and by looking at the pictures; none of"
    " the first five was trained on.",
    "nerco": "The recipe was chosen among four, three of them stopped early, by the scores below on LOL,"
    " SICE, DICM, MEF, NPE and the well-exposed photographs, and by looking at the pictures; none of the"
    " first five was trained on.",
    "nerco-logits": "The recipe was chosen among five by the scores below on LOL, DICM, MEF, NPE and the"
    " well-exposed photographs, and by looking at the pictures; none of the first four was trained on.",
}
CHOICE["sci-metered"] = (
    "The recipe was chosen among sixteen by the scores below on LOL, SICE, DICM, MEF and NPE, none of which"
    " was trained on, and by looking at the pictures."
)
CHOICE["dawn"] = (
    "The recipe was chosen among eight, three of them stopped early, by the scores below on LOL, SICE, DICM,"
    " MEF and NPE, none of which was trained on, and by looking at the pictures."
)
LIMITS = {
    "zerodce": "A curve maps black to black: what the sensor clipped stays dark, and noise is tamed, not"
    " removed.",
    "sci": "The network sees 7x7 pixels and has 258 parameters: nearly a tone curve. It brightens noise with"
    " the picture, makes strong colours stronger, does not correct casts, and treats a dark object as it"
    " treats a dark scene.",
}
LIMITS["enlightengan"] = (
    "Half the published width, trained for an hour and a quarter on two cores, behind a meter that the paper"
    " does not have. The meter of the whole picture decides on its brightness, so that shadows beside lamps"
    " and windows come up less than dark pictures do. What is nearly black gets a grey veil. Noise is taken"
    " out in part, and what remains is soft."
)
LIMITS["nerco"] = (
    "A quarter of the published width and two thirds of its blocks, trained for an hour on one core. It draws"
    " the image anew, as published: without its noise, and without its finest detail. Its instance norms"
    " forget the colour of the light; it comes back for a thirty-second of a side at a time, so that colours"
    " run a little over strong edges. Pictures with deep shadows beside lights come out hazy, and nights"
    " light."
)
LIMITS["nerco-logits"] = (
    "A quarter of the published width and two thirds of its blocks, trained for half an hour on one core, and"
    " not quite the published network: its generator changes the image's logits instead of drawing the image"
    " anew. It brightens noise with the picture; what is only somewhat dark it hardly changes, and a dark"
    " subject in front of a bright sky stays dark."
)
LIMITS["dawn"] = (
    "One brightness is aimed at for all scenes but nights, so that high and low keys come out alike. Fine"
    " lines within strong noise go with it; bands along rows, and noise that a camera or JPEG has smeared"
    " over more than a few pixels, stay for the most part."
)
LIMITS["zerodce++"] = LIMITS["zerodce"]
_METERED = (
    "The meter of the whole picture decides on its brightness, and the network sees none of it: nights come"
    " up as far as dusk. Noise is brightened with the picture."
)
LIMITS["sci-metered"] = _METERED
LIMITS |= dict.fromkeys(
    ("zerodce-metered", "zerodcepp-metered"),
    f"{_METERED} Pictures of very much noise come out darker than others.",
)
PHOTOGRAPHS = "photographs.md"


def write_photographs(folder: Path, photographs: Sequence[Photograph], stem: str) -> str:
    """Write the list of photographs with authors and licences; returns the name of its file in the folder.

    All cards of a folder share one list. If there is one of other photographs already, `stem` names another.
    """
    rows = [f"| {p.file} | {p.author or 'not stated'} | {p.licence or 'not stated'} |" for p in photographs]
    text = "\n".join(["# Photographs", "", "| file | author | licence |", "|---|---|---|", *rows]) + "\n"
    path = folder / PHOTOGRAPHS
    if path.exists() and path.read_text(encoding="utf-8") != text:
        path = folder / f"{stem}-{PHOTOGRAPHS}"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path.name


def write_card(weights: Path, photographs: Sequence[Photograph], scores: Path | None) -> Path:
    """Write the card of a safetensors file of `fastllie.training.reproduce` beside it; returns its path.

    The photographs stand in a file of their own, which the cards of a folder share.

    Args:
        scores: The JSON of benchmarks/quality.py; None writes a card without scores.

    Raises:
        ValueError: weights that another program made.
    """
    with safe_open(weights, "pt") as file:
        metadata = file.metadata() or {}
    if "recipe" not in metadata or "run" not in metadata:
        raise ValueError(f"{weights} was not written by fastllie.training.reproduce: it has no recipe in it")
    method, run, recipe = metadata["method"], json.loads(metadata["run"]), json.loads(metadata["recipe"])
    listed = write_photographs(weights.parent, photographs, weights.stem)
    lines = [
        f"# {TITLES[method]}: `{weights.name}`",
        "",
        f"Weights for the method `{method}`{_described(metadata)}, trained by this project from scratch; no"
        " published weights of it took part.",
        "",
        "## Licence",
        "Apache-2.0, as the rest of fastllie. The photographs keep their own licences; none of them is part"
        " of the weights or of this repository.",
        "",
        "## How it was made",
        "```",
        f"python -m fastllie.training.reproduce {method}{_variant(method, weights.name)}"
        f" --photos PHOTOS -o OUT --seed {run['seed']} --threads {run['threads']}"
        + (f" --vgg {recipe['vgg']}" if recipe.get("vgg") else ""),
        "```",
        f"{run['steps']} steps with PyTorch {run['torch']}, threads: {run['threads']}, {run['machine']}."
        " The same photographs, seed, thread count, PyTorch and kind of processor give the same weights;"
        " another processor or version gives weights that score alike.",
        *_commit_lines(run),
        *_choice(method, weights.stem),
        "",
        "The recipe (`fastllie.training.recipes` says what each entry means):",
        "",
        *_recipe_lines(recipe),
        "",
        "## Scores",
        *_score_lines(TITLES[method], scores),
        "",
        "## Limits",
        LIMITS[weights.stem if weights.stem in LIMITS else method]
        + " Trained on daylight photographs darkened by computation, not on faces or night scenes.",
        "",
        "## Photographs",
        f"{run['photographs']} photographs, {_use(method)}: [with authors and licences]({listed}).",
    ]
    path = weights.with_suffix(".md")
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _choice(method: str, stem: str) -> list[str]:
    """How the recipe of these weights, or else of the method's, was found."""
    name = stem if stem in CHOICE else method
    return [CHOICE[name]] if name in CHOICE else []


def _use(method: str) -> str:
    if method in ("enlightengan", "nerco"):
        return "some cropped, reduced, darkened and given noise, others cropped and reduced, during training"
    return "each cropped, reduced, darkened and given noise during training"


def _described(metadata: dict[str, str]) -> str:
    """What the file says of its network."""
    return "".join(
        f", `{name}={metadata[name]}`"
        for name in ("padding", "align_corners", "in_logits", "sees_logits", "keep_cast", "coordinates")
        if name in metadata
    )


def _commit_lines(run: dict[str, Any]) -> list[str]:
    """For weights that were made before a change of what is drawn at random."""
    if "commit" not in run:
        return []
    return [
        f"Made with this repository at commit {run['commit']}: there the command gives these bits. Later"
        " versions draw other random numbers of the same distributions."
    ]


def _variant(method: str, file: str) -> str:
    """The flag that asks for this file where a method ships several."""
    variants = info(method).weights
    named = [f" --variant {variant.name}" for variant in variants if variant.file == file]
    return named[0] if named and len(variants) > 1 else ""


def _recipe_lines(recipe: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in recipe.items():
        if isinstance(value, dict):
            # a loss with weight zero takes no part
            value = ", ".join(f"{key} {entry}" for key, entry in value.items() if entry)
        lines.append(f"- {name}: {value}")
    return lines


def _score_lines(title: str, scores: Path | None) -> list[str]:
    if scores is None:
        return ["Not measured; `benchmarks/quality.py` does it."]
    measured = json.loads(scores.read_text(encoding="utf-8"))
    columns = measured["columns"]
    # "Zero-DCE" is a prefix of "Zero-DCE++", so the row's first word must be the title
    rows = {name: row for name, row in measured["rows"].items() if name.replace(",", " ").split()[0] == title}
    return [
        "Measured side by side by `benchmarks/quality.py`; docs/quality.md says what each column is.",
        "",
        "| | " + " | ".join(columns.values()) + " |",
        "|---|" + "---|" * len(columns),
        *(
            f"| {name} | " + " | ".join(f"{row[key]:.3f}" for key in columns) + " |"
            for name, row in rows.items()
        ),
    ]


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fastllie.training.record.card", description=__doc__.split("\n")[0]
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument(
        "--photos", type=Path, required=True, help="the folder that the weights were trained on"
    )
    parser.add_argument("--scores", type=Path, help="JSON of benchmarks/quality.py")
    options = parser.parse_args(arguments)
    try:
        path = write_card(options.weights, list_photographs(options.photos), options.scores)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
