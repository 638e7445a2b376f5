"""The pictures of benchmarks/quality.py, and the columns that are measured on them."""

import csv
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from quality_scores import (
    Array,
    Enhance,
    backlit,
    frame,
    frame_flat,
    halo,
    mean_chroma,
    noise_flat,
    noise_real,
    planes,
    shadow_lift,
)

from fastllie import metrics

Scores = dict[str, float]
COLUMNS = {
    "lol_psnr": "LOL PSNR",
    "lol_ssim": "LOL SSIM",
    "lol_scaled_psnr": "LOL PSNR, mean scaled",
    "sice_psnr": "SICE PSNR",
    "sice_ssim": "SICE SSIM",
    "shadows": "shadows, times",
    "hue_shift": "hue shift °",
    "saturation": "saturation, %",
    "new_clipping": "new clipping %",
    "rise": "rise",
    "halo": "halo, levels",
    "frame_flat": "frame, flat, levels",
    "frame": "frame, pictures, levels",
    "noise_flat": "noise, flat, levels",
    "noise_lol": "noise, LOL, %",
}
SHOWN = 480  # longer side of the pictures without pairs


def read(path: Path, long_side: int | None = None) -> Array:
    """An image as float64 `[H, W, 3]` in [0, 1], reduced to `long_side` where it is larger."""
    image = Image.open(path).convert("RGB")
    if long_side is not None and max(image.size) > long_side:
        ratio = long_side / max(image.size)
        image = image.resize(
            (round(image.width * ratio), round(image.height * ratio)), Image.Resampling.LANCZOS
        )
    return np.asarray(image) / 255.0


def rounded(image: Array) -> Array:
    """The image as a file would hold it: clamped and rounded to 8 bits."""
    return np.rint(np.clip(image, 0, 1) * 255) / 255


def enhancer(network: torch.nn.Module) -> Enhance:
    """The network as a function of a float image `[H, W, 3]`, its output rounded to 8 bits."""

    def enhance(image: Array) -> Array:
        x = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            return rounded(network(x)[0].permute(1, 2, 0).double().numpy())

    return enhance


def lol_pairs(shared: Path) -> Iterator[tuple[Path, Path]]:
    folder = shared / "data" / "lol_val40"
    for low in sorted((folder / "low").iterdir()):
        yield low, folder / "high" / low.name


def sice_pairs(shared: Path) -> Iterator[tuple[Path, Path]]:
    folder = shared / "data" / "sice_part1_256"
    images = {path.name: path for path in folder.rglob("*.jpg")}
    with open(folder / "pseudo_pairs.csv", newline="") as file:
        for row in csv.DictReader(file):
            yield images[row["dark"]], images[row["normal"]]


def unpaired(shared: Path) -> list[Path]:
    folder = shared / "data" / "unpaired"
    return [path for name in ("DICM", "MEF", "NPE") for path in sorted((folder / name).iterdir())[::2]]


def well_exposed(shared: Path) -> list[Path]:
    folder = shared / "data" / "free_photos"
    with open(folder / "photos.csv", newline="") as file:
        return [
            folder / row["file"] for row in csv.DictReader(file) if 0.40 <= float(row["mean_luma"]) <= 0.65
        ]


def backlit_pictures(shared: Path) -> list[Path]:
    """The backlit scenes and streets of DICM and NPE."""
    folder = shared / "data" / "unpaired"
    found = [path for name in ("DICM", "NPE") for path in sorted((folder / name).iterdir())]
    return [path for path in found if backlit(read(path, SHOWN))]


# --- the columns, by the pictures that they are measured on


def of_lol(enhance: Enhance, shared: Path, every: int) -> Scores:
    rows: dict[str, list[float]] = {}
    for low, high in list(lol_pairs(shared))[::every]:
        target, output = read(high), enhance(read(low))
        pair = planes(output), planes(target)
        add(rows, "lol_psnr", metrics.psnr(*pair))
        add(rows, "lol_ssim", metrics.ssim(*pair))
        add(rows, "lol_scaled_psnr", metrics.psnr_scaled(*pair, mean="rgb"))
        add(rows, "noise_lol", noise_real(output, target))
    return means(rows)


def of_sice(enhance: Enhance, shared: Path, every: int) -> Scores:
    rows: dict[str, list[float]] = {}
    for dark, normal in list(sice_pairs(shared))[::every]:
        target, output = read(normal), enhance(read(dark))
        pair = planes(output), planes(target)
        add(rows, "sice_psnr", metrics.psnr(*pair))
        add(rows, "sice_ssim", metrics.ssim(*pair))
    return means(rows)


def of_unpaired(enhance: Enhance, shared: Path, every: int) -> Scores:
    rows: dict[str, list[float]] = {}
    for path in unpaired(shared)[::every]:
        image = read(path, SHOWN)
        output = enhance(image)
        pair = planes(output), planes(image)
        add(rows, "hue_shift", metrics.hue_shift(*pair))
        add(rows, "new_clipping", metrics.new_clipping(*pair))
        add(rows, "frame", frame(enhance, image))
    return means(rows)


def of_backlit(enhance: Enhance, shared: Path, every: int) -> Scores:
    lifts = []
    for path in backlit_pictures(shared)[::every]:
        image = read(path, SHOWN)
        lifts.append(shadow_lift(enhance(image), image))
    return {"shadows": statistics.geometric_mean(lifts)}


def of_well_exposed(enhance: Enhance, shared: Path, every: int) -> Scores:
    rows: dict[str, list[float]] = {}
    for path in well_exposed(shared)[::every]:
        image = read(path, SHOWN)
        output = enhance(image)
        add(rows, "rise", metrics.rise(planes(output), planes(image)))
        add(rows, "before", mean_chroma(image))
        add(rows, "after", mean_chroma(output))
    found = means(rows)
    return {"rise": found["rise"], "saturation": 100 * (found["after"] / found["before"] - 1)}


def of_synthetic(enhance: Enhance, shared: Path, every: int) -> Scores:
    return {"halo": halo(enhance), "frame_flat": frame_flat(enhance), "noise_flat": noise_flat(enhance)}


SETS: Mapping[Callable[[Enhance, Path, int], Scores], Collection[str]] = {
    of_lol: ("lol_psnr", "lol_ssim", "lol_scaled_psnr", "noise_lol"),
    of_sice: ("sice_psnr", "sice_ssim"),
    of_unpaired: ("hue_shift", "new_clipping", "frame"),
    of_backlit: ("shadows",),
    of_well_exposed: ("rise", "saturation"),
    of_synthetic: ("halo", "frame_flat", "noise_flat"),
}


def add(rows: dict[str, list[float]], name: str, value: Any) -> None:
    rows.setdefault(name, []).append(float(value))


def means(rows: Mapping[str, Sequence[float]]) -> Scores:
    return {name: float(np.mean(values)) for name, values in rows.items()}


def score(enhance: Enhance, shared: Path, every: int = 1, wanted: Collection[str] = tuple(COLUMNS)) -> Scores:
    """The wanted columns of one set of weights.

    Args:
        every: Take every n-th picture of each set, for a quick look.

    Raises:
        FileNotFoundError: a data set that is not there.
    """
    found: Scores = {}
    for measure_set, columns in SETS.items():
        if any(name in wanted for name in columns):
            found |= measure_set(enhance, shared, every)
    return {name: found[name] for name in COLUMNS if name in wanted}
