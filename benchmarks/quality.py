"""Score our weights, the published ones and what people use instead: pairs, colour, restraint, border, noise.

    python benchmarks/quality.py --shared ../shared

writes benchmarks/results/quality.json, which benchmarks/page.py puts on docs/quality.md; what each column is
stands there. The photographs and the published weights are not part of the repository; two rows need the
extra `compare`.
"""

import argparse
import csv
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import record
import torch
from instead import INSTEAD
from numpy.typing import NDArray
from PIL import Image

import fastllie
from fastllie import metrics

Array = NDArray[np.float64]
Enhance = Callable[[Array], Array]
PUBLISHED = {
    "zerodce": "weights/zerodce/zerodce_official.safetensors",
    "zerodce++": "weights/zerodce/zerodcepp_official.safetensors",
}
PUBLISHED_SCI = {name: f"weights/sci/{name}.safetensors" for name in ("easy", "medium", "difficult")}
SCALES = (1, 4, 12)  # of Zero-DCE++; 12 is the published test's
TIMED = 5  # pictures of LOL
COLUMNS = {
    "lol_psnr": "LOL PSNR",
    "lol_ssim": "LOL SSIM",
    "lol_scaled_psnr": "LOL PSNR, mean scaled",
    "sice_psnr": "SICE PSNR",
    "sice_ssim": "SICE SSIM",
    "hue_shift": "hue shift °",
    "new_clipping": "new clipping %",
    "rise": "rise",
    "frame_flat": "frame, flat, levels",
    "frame": "frame, pictures, levels",
    "noise_flat": "noise, flat, levels",
    "noise_lol": "noise, LOL, %",
}


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


def planes(image: Array) -> torch.Tensor:
    """The image as the metrics take a tensor."""
    return torch.from_numpy(image).permute(2, 0, 1)


def frame(enhance: Enhance, image: Array, margin: int = 7) -> float:
    """What the border does: mean |output - output with more picture around| in the outer ring, in levels.

    The same window is enhanced twice: cut out, and inside a larger one, where its edge is no border.
    """
    height, width = image.shape[:2]
    inner = np.s_[4 * margin : height - 4 * margin, 4 * margin : width - 4 * margin]
    difference = np.abs(enhance(image[inner]) - enhance(image)[inner]).mean(-1)
    ring = np.ones(difference.shape, bool)
    ring[margin:-margin, margin:-margin] = False
    return float(255 * difference[ring].mean())


def frame_flat(enhance: Enhance, size: int = 240) -> float:
    """Largest deviation in levels that the border makes on flat grey pictures, where there should be none."""
    deviations = []
    for level in (13, 64, 128):
        output = enhance(np.full((size, size, 3), level / 255)).mean(-1)
        deviations.append(np.abs(output - output[size // 2, size // 2]).max())
    return float(255 * np.mean(deviations))


def noise_flat(enhance: Enhance) -> float:
    """Standard deviation in levels that dark flat patches come out with, each brought to the same brightness.

    Grey 4 to 24 levels of 255 with noise of 1.5 levels; the output is scaled to a mean of 0.4, so that a
    darker rendering does not count as a cleaner one.
    """
    generator = np.random.default_rng(0)
    scores = []
    for level in (4, 8, 16, 24):
        patch = np.clip(np.rint(level + generator.normal(0, 1.5, (96, 96, 3))), 0, 255) / 255
        output = enhance(patch)
        scores.append(255 * 0.4 * output.std((0, 1)).mean() / output.mean())
    return float(np.mean(scores))


def noise_real(output: Array, target: Array) -> float:
    """Fine-grained deviation where the clean picture is flat, in percent of the output's brightness there.

    Flat: the 5 % of the 8x8 blocks in which the clean picture varies least. The mean plane of each block is
    removed by differencing neighbours, so shading does not count as noise.
    """
    height, width = (size // 8 * 8 for size in target.shape[:2])

    def blocks(image: Array) -> Array:
        grey = image[:height, :width].mean(-1).reshape(height // 8, 8, width // 8, 8)
        return grey.transpose(0, 2, 1, 3).reshape(-1, 8, 8)

    clean, noisy = blocks(target), blocks(output)
    flat = np.argsort(clean.std((1, 2)))[: max(1, len(clean) // 20)]
    fine = np.diff(np.diff(noisy[flat], axis=1), axis=2) / 2
    return float(100 * fine.std((1, 2)).mean() / max(noisy[flat].mean(), 1e-6))


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


def score(enhance: Enhance, shared: Path, every: int = 1) -> dict[str, float]:
    """All figures of one set of weights; `every` > 1 takes every n-th picture of each set, for a quick look.

    Raises:
        FileNotFoundError: a data set that is not there.
    """
    rows: dict[str, list[float]] = {name: [] for name in COLUMNS}
    for low, high in list(lol_pairs(shared))[::every]:
        target, output = read(high), enhance(read(low))
        pair = planes(output), planes(target)
        rows["lol_psnr"].append(float(metrics.psnr(*pair)))
        rows["lol_ssim"].append(float(metrics.ssim(*pair)))
        rows["lol_scaled_psnr"].append(float(metrics.psnr_scaled(*pair, mean="rgb")))
        rows["noise_lol"].append(noise_real(output, target))
    for dark, normal in list(sice_pairs(shared))[::every]:
        target, output = read(normal), enhance(read(dark))
        pair = planes(output), planes(target)
        rows["sice_psnr"].append(float(metrics.psnr(*pair)))
        rows["sice_ssim"].append(float(metrics.ssim(*pair)))
    for path in unpaired(shared)[::every]:
        image = read(path, 480)
        output = enhance(image)
        pair = planes(output), planes(image)
        rows["hue_shift"].append(float(metrics.hue_shift(*pair)))
        rows["new_clipping"].append(float(metrics.new_clipping(*pair)))
        rows["frame"].append(frame(enhance, image))
    for path in well_exposed(shared)[::every]:
        image = read(path, 480)
        rows["rise"].append(float(metrics.rise(planes(enhance(image)), planes(image))))
    rows["frame_flat"].append(frame_flat(enhance))
    rows["noise_flat"].append(noise_flat(enhance))
    return {name: float(np.mean(values)) for name, values in rows.items()}


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
                # our own
                Candidate("dawn ours", "dawn", ours["dawn"], {}),
            ]
    return rows + [Candidate(name, None, None, {}) for name in INSTEAD]


def processor_ms(enhance: Enhance, shared: Path) -> float:
    """Median processor time of one picture of LOL, 600x400: other work on the machine hardly changes it."""
    taken = []
    for low, _ in list(lol_pairs(shared))[: TIMED + 1]:
        image = read(low)
        start = time.process_time()
        enhance(image)
        taken.append(1e3 * (time.process_time() - start))
    # the first one prepares what the others find
    return statistics.median(taken[1:])


def measure(candidate: Candidate, shared: Path, every: int | None) -> tuple[dict[str, float] | None, float]:
    """`score` of a candidate, unless `every` is None, and its time, in a process of its own."""
    torch.set_num_threads(1)
    if candidate.method is None:
        enhance = INSTEAD[candidate.name]
    else:
        enhance = enhancer(fastllie.load(candidate.method, candidate.weights, **candidate.options))
    taken = processor_ms(enhance, shared)
    return None if every is None else score(enhance, shared, every), taken


def main() -> None:
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
    parser.add_argument("--dawn", type=Path, help="likewise for dawn")
    parser.add_argument("--jobs", type=int, default=2, help="rows measured at the same time, one thread each")
    parser.add_argument(
        "--only",
        default="",
        help="measure the rows with this in their name, and keep the others of the output",
    )
    parser.add_argument(
        "--times", action="store_true", help="measure the processor time alone, and keep all scores"
    )
    parser.add_argument("--every", type=int, default=1, help="take every n-th picture, for a quick look")
    parser.add_argument(
        "-o", "--output", type=Path, default=record.RESULTS, help="the folder for quality.json"
    )
    options = parser.parse_args()
    ours = {
        "zerodce": options.zerodce,
        "zerodce++": options.zerodcepp,
        "strong": options.sci_strong,
        "mild": options.sci_mild,
        "enlightengan": options.enlightengan,
        "nerco": options.nerco,
        "dawn": options.dawn,
    }
    compared = candidates(options.shared, ours)
    rows = dict.fromkeys(candidate.name for candidate in compared)
    times: dict[str, float] = {}
    facts = {}
    if options.only or options.times:
        before = json.loads((options.output / "quality.json").read_text(encoding="utf-8"))
        facts["rows kept from commit"] = before["facts"]["commit"]
        compared = [candidate for candidate in compared if options.only in candidate.name]
        rows |= {name: row for name, row in before["rows"].items() if name in rows}
        times = {name: taken for name, taken in before["processor_ms"].items() if name in rows}
    every = None if options.times else options.every
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        results = pool.map(measure, compared, repeat(options.shared), repeat(every))
        for candidate, (row, taken) in zip(compared, results, strict=True):
            rows[candidate.name] = row or rows[candidate.name]
            times[candidate.name] = taken
            scores = "".join(f"  {COLUMNS[key]} {value:.3f}" for key, value in (row or {}).items())
            print(f"{candidate.name}: {taken:.1f} ms{scores}", flush=True)
    missing = [name for name, row in rows.items() if row is None]
    if missing:
        parser.error(f"quality.json has no row to keep of {', '.join(missing)}")
    facts |= {
        "commit": record.git("describe", "--always", "--dirty"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "pictures": "all" if options.every == 1 else f"one in {options.every}",
    }
    record.write(
        options.output / "quality.json",
        {"facts": facts, "columns": COLUMNS, "rows": rows, "processor_ms": times},
    )


if __name__ == "__main__":
    main()
