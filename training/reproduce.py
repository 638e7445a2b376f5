"""Train the weights that ship, from a folder of photographs and a seed, and write their card.

    python -m fastllie.training.reproduce zerodce --photos PHOTOS -o OUT

writes OUT/zerodce.safetensors and OUT/zerodce.md. An interrupted run continues when the command is repeated.
"""

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save as to_bytes

from fastllie.training import data
from fastllie.training.card import write_card
from fastllie.training.recipes import PUBLISHED, SHIPPED, Recipe
from fastllie.training.trainer import Source, fit
from fastllie.training.zerodce import CurveTask

# method -> stem of the files: "+" needs quoting in shells and addresses
STEMS = {"zerodce": "zerodce", "zerodce++": "zerodcepp"}


def reproduce(
    recipe: Recipe,
    photos: Path,
    output: Path,
    *,
    seed: int = 0,
    threads: int = 2,
    every: int = 200,
    scores: Path | None = None,
) -> Path:
    """Train by `recipe` on the photographs of a folder; returns the path of the weights.

    Photographs under CC0 (by the folder's photos.csv) are held out. The same photographs, seed, thread count,
    PyTorch and kind of processor give the same weights.

    Args:
        every: Steps between checkpoints and log lines.
        scores: The JSON of benchmarks/quality.py, whose figures the card then shows.

    Raises:
        ValueError: no photographs, or one that cannot be read, by its name; a checkpoint of another recipe.
    """
    photographs = data.list_photographs(photos)
    output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    source, steps = _source(recipe, [photos / photo.file for photo in photographs], seed)
    torch.manual_seed(seed)
    task = CurveTask(recipe, steps)
    stem = STEMS[recipe.method]
    checkpoint = output / f"{stem}.ckpt"
    fit(task, source, steps, checkpoint=checkpoint, every=every, log=lambda line: print(line, flush=True))
    weights = output / f"{stem}.safetensors"
    metadata = {
        "format": "fastllie",
        "method": recipe.method,
        "padding": recipe.padding,
        "recipe": json.dumps(asdict(recipe)),
        "run": json.dumps(
            {
                "seed": seed,
                "steps": steps,
                "threads": threads,
                "photographs": len(photographs),
                "torch": torch.__version__,
                "machine": platform.machine(),
            }
        ),
    }
    temporary = weights.with_name(weights.name + ".part")
    # not save_file: what it writes only its owner may read
    temporary.write_bytes(to_bytes(task.result(), metadata=metadata))
    os.replace(temporary, weights)
    write_card(weights, photographs, scores)
    checkpoint.unlink()
    return weights


def _source(recipe: Recipe, paths: list[Path], seed: int) -> tuple[Source, int]:
    """The recipe's batches and how many of them it takes."""
    if recipe.synthesis is None:
        squares = data.Squares([data.decode(path, square=recipe.size) for path in paths], recipe.batch, seed)
        return squares, recipe.steps or (recipe.epochs or 0) * squares.steps_per_epoch
    if recipe.steps is None:
        raise ValueError("a recipe with synthetic exposures counts steps, not epochs")
    short_side = round(recipe.size * recipe.synthesis.zoom)
    pixels = [data.decode(path, short_side=short_side) for path in paths]
    return data.SyntheticExposures(pixels, recipe.synthesis, recipe.size, recipe.batch, seed), recipe.steps


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fastllie.training.reproduce", description=__doc__.split("\n")[0]
    )
    parser.add_argument("method", choices=sorted(SHIPPED))
    parser.add_argument(
        "--photos", type=Path, required=True, help="a folder of photographs, with photos.csv if any"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--published", action="store_true", help="the authors' recipe instead of ours")
    parser.add_argument("--steps", type=int, help="another number of steps than the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="2 made the weights that ship")
    parser.add_argument("--scores", type=Path, help="JSON of benchmarks/quality.py for the card")
    options = parser.parse_args(arguments)
    recipe = (PUBLISHED if options.published else SHIPPED)[options.method]
    if options.steps is not None:
        recipe = replace(recipe, steps=options.steps, epochs=None)
    try:
        weights = reproduce(
            recipe,
            options.photos,
            options.output,
            seed=options.seed,
            threads=options.threads,
            scores=options.scores,
        )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {weights} and {weights.with_suffix('.md').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
