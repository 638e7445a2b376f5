"""Draw docs/methods.jpg: five photographs in the public domain through every method and variant.

    python benchmarks/methods_pictures.py --shared ../shared

Two are dark as they were taken, two are darkened and given noise as the training's frames are, one is well
exposed and should stay as it is. Nothing was trained on any of them; they are not part of the repository.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from dawn_pictures import ROOT, bytes_of, pixels, sheet
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from score_tables import OPTIONS, TAKE

import fastllie
from fastllie.training.data.scenes import make_frame
from fastllie.training.recipes import Scenes

SIZE = (640, 427)  # that the methods are given
SHOWN = (264, 176)
LABEL = 132  # pixels for the names
DARKENED = Scenes(
    size=(SIZE[1], SIZE[0]),
    bright_share=0,
    over_share=0,
    mixed_share=0,
    curved_share=0,
    shot_noise=(1e-4, 1e-4),
    cast_share=0,
    lamp_share=0,
    clean_share=0,
)


@dataclass(frozen=True)
class Chosen:
    """A photograph of data/free_photos, with the exposure in stops that it is darkened by; None: as it is."""

    file: str
    stops: float | None = None


PHOTOGRAPHS = (
    Chosen("053_matt_mcnulty_nyc_2nd_ave.jpg"),
    Chosen("051_brad_huchteman_stone_mountain.jpg"),
    Chosen("187_Untitled_by_Troy_Jarrell.jpg", -3.5),
    Chosen("021_London_Eye_by_Paul_Daniell.jpg", -5.5),
    Chosen("052_joshua_coleman_something_yellow.jpg"),
)


def shown_to_methods(folder: Path) -> list[NDArray[np.uint8]]:
    """The photographs, `[H, W, 3]`, of one size."""
    found = []
    for place, chosen in enumerate(PHOTOGRAPHS):
        if chosen.stops is None:
            with Image.open(folder / chosen.file) as image:
                found.append(np.asarray(ImageOps.fit(image.convert("RGB"), SIZE, Image.Resampling.LANCZOS)))
            continue
        dark = replace(DARKENED, exposures=(chosen.stops, chosen.stops))
        photograph = pixels(folder / chosen.file, 2 * SIZE[0])
        found.append(bytes_of(make_frame(photograph, dark, np.random.default_rng(place)).x))
    return found


def rows_of(photographs: list[NDArray[np.uint8]]) -> dict[str, list[NDArray[np.uint8]]]:
    """What was given, and what each method and variant makes of it, by name."""
    rows = {"given": photographs}
    for name in TAKE:
        method, _, variant = name.partition(", ")
        options = OPTIONS.get(name, {})
        enhancer = fastllie.Enhancer(method, weights=None if options else variant or None, **options)
        rows[name] = [enhancer(photograph) for photograph in photographs]
    return rows


def drawn(rows: dict[str, list[NDArray[np.uint8]]]) -> Image.Image:
    """The pictures reduced, in rows, each behind its name."""
    small = [
        [np.asarray(Image.fromarray(one).resize(SHOWN, Image.Resampling.LANCZOS)) for one in row]
        for row in rows.values()
    ]
    pictures = sheet(small)
    canvas = Image.new("RGB", (LABEL + pictures.width, pictures.height), "white")
    canvas.paste(pictures, (LABEL, 0))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for place, name in enumerate(rows):
        top = place * (pictures.height + 4) // len(rows)
        draw.text((4, top + SHOWN[1] // 2 - 16), name.replace(", ", "\n"), fill="black", font=font)
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared", help="the folder with data/free_photos/"
    )
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "methods.jpg")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = rows_of(shown_to_methods(options.shared / "data" / "free_photos"))
    drawn(rows).save(options.output, quality=85)


if __name__ == "__main__":
    main()
