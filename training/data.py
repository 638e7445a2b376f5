"""Photographs, decoded once, and batches made of them: as they are, or as dark noisy frames with targets."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from fastllie.training.recipes import Synthesis

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
SMALLEST_SIDE = 3  # what the smoothness loss needs
LARGEST_GAIN = 4.0  # two stops: a night photograph is a good target only if it stays one

Pixels = NDArray[np.uint8]
Values = NDArray[np.float32]


class Batch(NamedTuple):
    """Images `[B, 3, S, S]` in [0, 1] and what they should become; the same tensor where nothing is known."""

    x: Tensor
    target: Tensor


@dataclass(frozen=True)
class Photograph:
    """A file's attribution; empty strings where the folder's photos.csv does not tell."""

    file: str
    author: str = ""
    licence: str = ""


def list_photographs(folder: str | PathLike[str], *, held_out: bool = False) -> list[Photograph]:
    """The photographs of a folder in name order, with authors and licences from its photos.csv if it has one.

    Files under CC0 are held out of training: they are free to be shown, so they are the examples and the test
    pictures. `held_out=True` gives those instead.

    Raises:
        ValueError: no folder, no photographs in it, or a photos.csv without the columns that are needed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    known: dict[str, Photograph] = {}
    table = folder / "photos.csv"
    if table.exists():
        with open(table, newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = {"file", "author", "licence"} - set(rows.fieldnames or ())
            if missing:
                raise ValueError(f"{table} has no column {', '.join(sorted(missing))}")
            known = {row["file"]: Photograph(row["file"], row["author"], row["licence"]) for row in rows}
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)
    photographs = [known.get(name, Photograph(name)) for name in names]
    photographs = [photo for photo in photographs if photo.licence.startswith("CC0") == held_out]
    if not photographs:
        kind = "CC0 photographs" if held_out else "photographs to train on"
        raise ValueError(f"{folder} holds no {kind}; wanted files that end in {', '.join(EXTENSIONS)}")
    return photographs


def find_images(data: str | PathLike[str] | Sequence[str | PathLike[str]]) -> list[Path]:
    """The image files of a folder and its folders, in order of their paths, or those of a list as they stand.

    Each is opened, to find out now and not in the middle of a run that one is no image.

    Raises:
        TypeError: neither a path nor a list of paths.
        ValueError: no folder, no images, or a file that is not a readable image, by its name.
        FileNotFoundError: a file of a list that is not there.
    """
    if isinstance(data, (str, PathLike)):
        folder = Path(data)
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder; wanted a folder of photographs, or a list of files")
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    elif isinstance(data, Sequence) and all(isinstance(path, (str, PathLike)) for path in data):
        folder = Path("the list")
        paths = [Path(path) for path in data]
    else:
        raise TypeError(f"data must be a folder or a list of image files, got {type(data).__name__}")
    if not paths:
        raise ValueError(f"{folder} holds no images; wanted files that end in {', '.join(EXTENSIONS)}")
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no such image file: {path}")
        try:
            with Image.open(path) as image:
                width, height = image.size
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} cannot be read as an image: {error}") from error
        if min(width, height) < SMALLEST_SIDE:
            raise ValueError(f"{path} is {width}x{height}; the smallest side must be {SMALLEST_SIDE} or more")
    return paths


def decode(
    path: Path,
    *,
    short_side: int | None = None,
    long_side: int | None = None,
    square: int | None = None,
) -> Pixels:
    """An image file as `[H, W, 3]`, at a short side, within a long side, or squeezed to a square.

    Raises:
        ValueError: a file that is not a readable image, by its name.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    size = image.size
    if square is not None:
        size = (square, square)
    elif short_side is not None:
        # smaller ones are enlarged: every crop must find its place
        size = (
            max(short_side, round(image.width * short_side / min(image.size))),
            max(short_side, round(image.height * short_side / min(image.size))),
        )
    elif long_side is not None and max(image.size) > long_side:
        size = (
            max(SMALLEST_SIDE, round(image.width * long_side / max(image.size))),
            max(SMALLEST_SIDE, round(image.height * long_side / max(image.size))),
        )
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


class Squares:
    """Batches of whole photographs squeezed to `size`, shuffled anew in each pass: the published way.

    The last batch of a pass may be smaller, as published.
    """

    def __init__(self, photographs: Sequence[Pixels], batch: int, seed: int):
        self._photographs = photographs
        self._batch = batch
        self._seed = seed
        self.steps_per_epoch = -(-len(photographs) // batch)

    def batch(self, step: int) -> Batch:
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._photographs))
        chosen = order[place * self._batch : (place + 1) * self._batch]
        x = _tensor(_floats(np.stack([self._photographs[i] for i in chosen])))
        return Batch(x, x)


class Photographs:
    """Batches of photographs as they are, of any sizes, decoded when their turn comes, shuffled in each pass.

    Args:
        size: Side of a square crop at a random place; photographs smaller than it are enlarged. None takes
            whole photographs, one a batch.
        long_side: Larger photographs are reduced to this long side.

    Raises:
        ValueError: whole photographs in batches of several; a file that cannot be read, by its name, when its
            turn comes.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        batch: int,
        seed: int,
        *,
        size: int | None = None,
        long_side: int | None = None,
    ):
        if batch > 1 and size is None:
            raise ValueError(f"whole photographs go one a batch, got batch={batch}: give a size to crop to")
        self._paths = paths
        self._batch = batch
        self._seed = seed
        self._size = size
        self._long_side = long_side
        self.steps_per_epoch = -(-len(paths) // batch)

    def batch(self, step: int) -> Batch:
        epoch, place = divmod(step, self.steps_per_epoch)
        random = np.random.default_rng((self._seed, epoch))
        order = random.permutation(len(self._paths))
        chosen = order[place * self._batch : (place + 1) * self._batch]
        random = np.random.default_rng((self._seed, epoch, place))
        pixels = [self._pixels(self._paths[index], random) for index in chosen]
        x = _tensor(_floats(np.stack(pixels)))
        return Batch(x, x)

    def _pixels(self, path: Path, random: np.random.Generator) -> Pixels:
        pixels = decode(path, long_side=self._long_side)
        size = self._size
        if size is None:
            return pixels
        if min(pixels.shape[:2]) < size:
            pixels = decode(path, short_side=size)
        top, left = (int(random.integers(side - size + 1)) for side in pixels.shape[:2])
        return pixels[top : top + size, left : left + size]


class SyntheticExposures:
    """Batches of dark and of well-exposed frames made from crops of photographs, with what to reach.

    The light of a crop is scaled by 2 to the power of an exposure, gets shot and read noise, is encoded in
    sRGB with 8 bits and, in a share of the frames, as JPEG. A photograph that is dark itself is exposed up
    first. The target of a dark frame is the photograph, that of a well-exposed one is itself without noise,
    so that the network learns to leave it alone. A batch depends on the seed and the step only.
    """

    def __init__(self, photographs: Sequence[Pixels], synthesis: Synthesis, size: int, batch: int, seed: int):
        self._photographs = photographs
        self._synthesis = synthesis
        self._size = size
        self._batch = batch
        self._seed = seed
        self._gains = [_gain(photo, synthesis) for photo in photographs]

    def batch(self, step: int) -> Batch:
        random = np.random.default_rng((self._seed, step))
        frames, targets = zip(*(self._frame(random) for _ in range(self._batch)), strict=True)
        return Batch(_tensor(np.stack(frames)), _tensor(np.stack(targets)))

    def _frame(self, random: np.random.Generator) -> tuple[Values, Values]:
        synthesis = self._synthesis
        index = int(random.integers(len(self._photographs)))
        light = _linear(_crop(self._photographs[index], self._size, synthesis.zoom, random))
        light = light * np.float32(self._gains[index])
        if synthesis.cast:
            gains = np.exp2(random.normal(0, synthesis.cast, 3))
            light = light * (gains / gains.mean()).astype(np.float32)
        stops = _exposures(self._size, synthesis, random)
        clean = light * np.exp2(stops)
        nothing, full = synthesis.lift
        lift = np.clip((stops - nothing) / (full - nothing), 0, 1)
        target = lift * srgb(compress(light, synthesis.target_ceiling)) + (1 - lift) * srgb(clean)
        frame = np.rint(srgb(clean + _noise(clean, synthesis, random)) * 255).astype(np.uint8)
        if random.random() < synthesis.jpeg_share:
            lowest, highest = synthesis.jpeg_quality
            frame = _jpeg(frame, int(random.integers(lowest, highest + 1)))
        return _floats(frame), target.astype(np.float32)


def _exposures(size: int, synthesis: Synthesis, random: np.random.Generator) -> Values:
    """The exposure of each pixel in stops, `[S, S, 1]`: one for all, or two in hard or soft patches."""
    dark = random.random() >= synthesis.bright_share
    stops = random.uniform(*(synthesis.exposures if dark else synthesis.bright_exposures))
    if not dark or random.random() >= synthesis.mixed_share:
        return np.full((size, size, 1), stops, np.float32)
    brighter = random.uniform(stops, synthesis.bright_exposures[1])
    coarse = random.standard_normal((int(random.integers(2, 7)),) * 2, dtype=np.float32)
    field = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    softness = 2.0 ** random.uniform(-7, -1)
    share = 1 / (1 + np.exp(-np.clip(field / softness, -30, 30)))
    return (stops + (brighter - stops) * share).astype(np.float32)[..., None]


def srgb(light: Values) -> Values:
    """Encode linear light, clamped to [0, 1], as sRGB values."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.power(light, 1 / 2.4) - 0.055).astype(
        np.float32
    )


def compress(light: Values, ceiling: float, knee: float = 0.6) -> Values:
    """Roll linear light `[..., 3]` off above `knee` towards `ceiling`; the ratios of the channels stay."""
    peak = light.max(-1, keepdims=True)
    room = ceiling - knee
    rolled = knee + room * (1 - np.exp(-(np.maximum(peak, knee) - knee) / room))
    return light * np.where(peak > knee, rolled / np.maximum(peak, knee), 1).astype(np.float32)


def _floats(pixels: Pixels) -> Values:
    return np.divide(pixels, 255, dtype=np.float32)


def _linear(pixels: Pixels) -> Values:
    return _LINEAR[pixels]


def _linear_table() -> Values:
    values = np.arange(256) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR = _linear_table()


def _gain(photo: Pixels, synthesis: Synthesis) -> float:
    """The factor on the light that brings a dark photograph's mean to the target mean; 1 for the others."""
    light = _linear(photo[::4, ::4])
    low, high = 1.0, LARGEST_GAIN
    for _ in range(12):
        middle = (low * high) ** 0.5
        mean = srgb(compress(light * np.float32(middle), synthesis.target_ceiling)).mean()
        low, high = (middle, high) if mean < synthesis.target_mean else (low, middle)
    return low


def _crop(photo: Pixels, size: int, zoom: float, random: np.random.Generator) -> Pixels:
    height, width = photo.shape[:2]
    side = random.uniform(size, max(size, min(height, width, size * zoom)))
    left, top = random.uniform(0, width - side), random.uniform(0, height - side)
    box = (left, top, left + side, top + side)
    crop = np.asarray(Image.fromarray(photo).resize((size, size), Image.Resampling.BICUBIC, box=box))
    if random.random() < 0.5:
        crop = crop[:, ::-1]
    return crop.transpose(1, 0, 2) if random.random() < 0.25 else crop


def _noise(light: Values, synthesis: Synthesis, random: np.random.Generator) -> Values:
    read = np.exp(random.uniform(*np.log(synthesis.read_noise)))
    shot = np.exp(random.uniform(*np.log(synthesis.shot_noise)))
    noise = random.standard_normal(light.shape, dtype=np.float32)
    if random.random() < 0.5:
        # demosaicing and denoising in the camera leave noise that neighbours share
        noise = _blur(noise, random.uniform(0.3, synthesis.grain))
    return noise * np.sqrt(np.float32(read**2) + np.float32(shot) * light)


def _blur(noise: Values, sigma: float) -> Values:
    """Blur over rows and columns, keeping the standard deviation."""
    weights = np.exp(-0.5 * (np.arange(-2, 3) / sigma) ** 2)
    weights = (weights / np.sqrt((weights**2).sum())).astype(np.float32)
    for axis in (0, 1):
        noise = sum(weight * np.roll(noise, shift, axis) for shift, weight in enumerate(weights, -2))
    return noise


def _jpeg(pixels: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=quality)
    return np.asarray(Image.open(buffer))


def _tensor(images: Values) -> Tensor:
    """`[B, H, W, 3]` to `[B, 3, H, W]`, in channels-last memory without a copy."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)
