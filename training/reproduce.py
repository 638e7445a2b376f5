"""Train the weights that ship, from a folder of photographs and a seed, and write their card.

    python -m fastllie.training.reproduce sci --variant mild --photos PHOTOS -o OUT

writes OUT/sci-mild.safetensors and OUT/sci-mild.md. An interrupted run continues when the command is
repeated.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from fastllie.methods import info
from fastllie.training import data
from fastllie.training.card import write_card
from fastllie.training.recipes import SHIPPED, AnyRecipe
from fastllie.training.run import source_of, task_of, write_weights
from fastllie.training.trainer import fit


def reproduce(
    recipe: AnyRecipe,
    photos: Path,
    output: Path,
    *,
    stem: str,
    seed: int = 0,
    threads: int = 2,
    every: int = 200,
    scores: Path | None = None,
) -> Path:
    """Train by `recipe` on the photographs of a folder; returns the path of the weights, `output/stem`.

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
    source, per_epoch = source_of(recipe, [photos / photo.file for photo in photographs], seed)
    torch.manual_seed(seed)
    task = task_of(recipe, per_epoch)
    state = output / f"{stem}.ckpt"
    fit(
        task,
        source,
        task.total_steps,
        checkpoint=state,
        every=every,
        log=lambda line: print(line, flush=True),
    )
    weights = output / f"{stem}.safetensors"
    write_weights(task, recipe, weights, seed=seed, photographs=len(photographs))
    write_card(weights, photographs, scores)
    state.unlink()
    return weights


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fastllie.training.reproduce", description=__doc__.split("\n")[0]
    )
    parser.add_argument("method", choices=sorted(SHIPPED))
    parser.add_argument("--variant", help="which of the weights that ship (default: the method's default)")
    parser.add_argument(
        "--photos", type=Path, required=True, help="a folder of photographs, with photos.csv if any"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--steps", type=int, help="another number of steps than the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads", type=int, default=2, help="the cards have those of the weights that ship"
    )
    parser.add_argument("--scores", type=Path, help="JSON of benchmarks/quality.py for the card")
    options = parser.parse_args(arguments)
    shipped = SHIPPED[options.method]
    name = options.variant or next(iter(shipped))
    if name not in shipped:
        parser.error(f"--variant must be one of {', '.join(shipped)}, not {name!r}")
    recipe = shipped[name]
    if options.steps is not None:
        recipe = replace(recipe, steps=options.steps, epochs=None)
    variant = next(variant for variant in info(options.method).weights if variant.name == name)
    try:
        weights = reproduce(
            recipe,
            options.photos,
            options.output,
            stem=Path(variant.file).stem,
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
