"""Draw the pictures of docs/dawn.md and of the README, of photographs that nothing was trained on.

    python benchmarks/dawn_pictures.py --shared ../shared

writes docs/dawn-scenes.jpg, what `dawn` learns from, docs/dawn.jpg, what it does, and docs/before-after.jpg,
the photographs of docs/photos. All are in the public domain; the others are not part of the repository.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import fastllie
from fastllie.training.data import list_photographs
from fastllie.training.data.scenes import make_frame
from fastllie.training.recipes import DAWN, Scenes

ROOT = Path(__file__).resolve().parents[1]
GAP = 4  # pixels between pictures
DARK = replace(DAWN.scenes, bright_share=0, over_share=0, mixed_share=0, curved_share=0, backlit_share=0)
KINDS = {
    "exposures": DARK,
    "lit in parts": replace(DARK, mixed_share=1, exposures=(-6, -4)),
    "deep shadows": replace(DARK, curved_share=1),
    "backlit": replace(DARK, backlit_share=1),
    "well exposed": replace(DARK, bright_share=1),
    "over-exposed": replace(DARK, over_share=1),
}
WIDTH = 640  # of a picture in the README
METHODS = ("zerodce", "sci", "enlightengan", "dawn")
EXPOSURES = (-3.5, -5.5)  # stops of the dark frames that the methods are shown


def pixels(path: Path, long_side: int) -> Tensor:
    """`[H, W, 3]` of uint8."""
    with Image.open(path) as image:
        image = image.convert("RGB")
        image.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.asarray(image).copy())


def bytes_of(image: Tensor) -> np.ndarray:
    """`[3, H, W]` in [0, 1] as an array of bytes."""
    return (image.permute(1, 2, 0) * 255).round().clamp(0, 255).byte().numpy()


def sheet(rows: list[list[np.ndarray]]) -> Image.Image:
    """Pictures of one size in rows, with gaps."""
    height, width = rows[0][0].shape[:2]
    canvas = np.full((len(rows) * (height + GAP) - GAP, len(rows[0]) * (width + GAP) - GAP, 3), 255, np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top, left = row * (height + GAP), column * (width + GAP)
            canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas)


def scenes_sheet(photographs: list[Tensor]) -> Image.Image:
    """For each kind two frames, each with what it should become and with what it is without noise."""
    rows = []
    for place, scenes in enumerate(KINDS.values()):
        row = []
        for column in range(2):
            random = np.random.default_rng((place, column))
            frame = make_frame(photographs[(2 * place + column) % len(photographs)], scenes, random)
            row += [bytes_of(frame.x), bytes_of(frame.target), bytes_of(frame.clean)]
        rows.append(row)
    return sheet(rows)


def methods_sheet(photographs: list[Tensor]) -> Image.Image:
    """Dark frames, what the methods make of them, and what they were made of."""
    rows = []
    for place, (photograph, stops) in enumerate(zip(photographs, EXPOSURES * len(photographs), strict=False)):
        scenes = Scenes(
            size=(256, 384),
            bright_share=0,
            over_share=0,
            mixed_share=0,
            curved_share=0,
            exposures=(stops, stops),
            shot_noise=(1e-4, 1e-4),
            cast_share=0,
            lamp_share=0,
            clean_share=0,
        )
        frame = make_frame(photograph, scenes, np.random.default_rng(place))
        dark = bytes_of(frame.x)
        enhanced = [fastllie.enhance(dark, method) for method in METHODS]
        rows.append([dark, *enhanced, bytes_of(frame.target)])
    return sheet(rows)


def before_after() -> Image.Image:
    """The photographs of docs/photos as they are, and as `enhance` makes them."""
    rows = []
    for path in sorted((ROOT / "docs" / "photos").glob("*.jpg")):
        with Image.open(path) as photograph:
            size = (WIDTH, round(photograph.height * WIDTH / photograph.width))
            pair = photograph.convert("RGB"), fastllie.enhance(photograph).convert("RGB")
        rows.append([np.asarray(image.resize(size, Image.Resampling.LANCZOS)) for image in pair])
    return sheet(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared", help="the folder with data/free_photos/"
    )
    folder = parser.parse_args().shared / "data" / "free_photos"
    files = [folder / photo.file for photo in list_photographs(folder, held_out=True)]
    photographs = [pixels(path, DAWN.long_side) for path in files]
    scenes_sheet(photographs).save(ROOT / "docs" / "dawn-scenes.jpg", quality=88)
    methods_sheet(photographs[1::3]).save(ROOT / "docs" / "dawn.jpg", quality=88)
    before_after().save(ROOT / "docs" / "before-after.jpg", quality=88)


if __name__ == "__main__":
    main()
