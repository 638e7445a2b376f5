"""The data of a training run: photographs collected, decoded once, and given out in the recipe's batches."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastllie.terminal import Count
from fastllie.training.data.cache import open_cache
from fastllie.training.data.collection import Collection, Item, collect
from fastllie.training.data.layout import EXTENSIONS, Problem
from fastllie.training.data.pixels import Preparation
from fastllie.training.data.scene_source import SceneSquares
from fastllie.training.data.source import (
    Batch,
    Photographs,
    Source,
    Squares,
    SyntheticExposures,
    Unpaired,
    UnpairedExposures,
)
from fastllie.training.recipes import Adversarial, Recipe, Scenes, SCIRecipe, Synthesis

__all__ = [
    "Batch",
    "Collection",
    "Item",
    "Photograph",
    "Photographs",
    "Problem",
    "Source",
    "Squares",
    "SyntheticExposures",
    "collect",
    "list_photographs",
    "open_source",
]

# mean level of a photograph that stands for normal light
NORMAL_MEAN = (0.38, 0.68)


@dataclass(frozen=True)
class Photograph:
    """A file's attribution; empty strings where the folder's photos.csv does not say."""

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


def open_source(
    collection: Collection,
    recipe: Recipe | SCIRecipe | Adversarial,
    seed: int,
    *,
    cache: Path,
    device: torch.device,
    threads: int | None = None,
    progress: Count | None = None,
) -> Source:
    """The recipe's batches of photographs, which are decoded once into the folder `cache`.

    Args:
        device: Where the batches shall be; the photographs are kept there too where they take at most 40 % of
            the free memory of a GPU.
        threads: That decode.
        progress: Called with how many photographs are ready, and how many there are.

    Raises:
        ValueError: synthetic exposures without a size, or of photographs in two sides; whole photographs in
            batches of several; a file that has changed since it was collected.
        OSError: a cache that cannot be written.
    """
    if recipe.unpaired and not collection.high and recipe.synthesis is None:
        raise ValueError(
            f"{recipe.method} learns from dark photographs and from others in normal light: give both sides,"
            " or a folder of photographs in normal light and a recipe that makes dark frames of some of them"
        )
    how = Preparation(**recipe.kept())
    scenes = isinstance(recipe.synthesis, Scenes)
    one_side = scenes or (recipe.synthesis is not None and not recipe.unpaired)
    if one_side and collection.layout != "plain":
        raise ValueError(
            f"synthetic exposures are made of photographs of normal light, got {collection.layout} ones:"
            " give the folder of those alone, or synthesis=None to train on what is there"
        )
    items = [*collection.low, *collection.high]
    photographs = open_cache(items, how, cache, threads=threads, progress=progress).to(device)
    low, high = photographs[: len(collection.low)], photographs[len(collection.low) :]
    names = [item.name for item in collection.low]
    if isinstance(recipe.synthesis, Scenes) and recipe.size is not None:
        return SceneSquares(
            low,
            recipe.synthesis,
            recipe.size,
            recipe.batch,
            seed,
            meter=recipe.meter,
            names=names,
            device=device,
        )
    if isinstance(recipe, Adversarial):
        return _unpaired(recipe, low, high, seed, names, device)
    if isinstance(recipe.synthesis, Synthesis) and recipe.size is not None:
        return SyntheticExposures(
            low, recipe.synthesis, recipe.size, recipe.batch, seed, names=names, device=device
        )
    more: dict[str, Any] = {
        "target": high if collection.layout == "paired" else None,
        "normal": high if collection.layout == "unpaired" else None,
        "flips": recipe.flips,
        "meter": recipe.meter,
        "names": names,
        "device": device,
    }
    if how.square is not None:
        return Squares(low, recipe.batch, seed, **more)
    return Photographs(low, recipe.batch, seed, size=recipe.size, **more)


def _unpaired(
    recipe: Adversarial,
    low: Sequence[Tensor],
    high: Sequence[Tensor],
    seed: int,
    names: list[str],
    device: torch.device,
) -> Source:
    # these recipes refuse scenes
    if not isinstance(recipe.synthesis, Synthesis):
        return Unpaired(
            low,
            recipe.batch,
            seed,
            normal=high,
            meter=recipe.meter,
            names=names,
            device=device,
            **recipe.sides(),
        )
    if not len(high):
        normal = set(_normal_half(low))
        high = [low[index] for index in sorted(normal)]
        kept = [index for index in range(len(low)) if index not in normal]
        low, names = [low[index] for index in kept], [names[index] for index in kept]
    if not len(low) or not len(high):
        raise ValueError(
            f"{recipe.method} needs at least two photographs with a mean from {NORMAL_MEAN[0]} to"
            f" {NORMAL_MEAN[1]}, one for each side; found {len(high)} of {len(low) + len(high)}"
        )
    return UnpairedExposures(
        low, recipe.synthesis, recipe.size, recipe.batch, seed, normal=high, names=names, device=device
    )


def _normal_half(photographs: Sequence[Tensor]) -> list[int]:
    """Every second of the photographs in normal light: the others serve for dark frames."""
    # enough pixels for a mean
    means = [float(photo[::8, ::8].float().mean()) / 255 for photo in photographs]
    found = [index for index, mean in enumerate(means) if NORMAL_MEAN[0] <= mean <= NORMAL_MEAN[1]]
    return found[::2]
