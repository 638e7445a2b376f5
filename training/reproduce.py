"""Train the weights that ship, from a folder of photographs and a seed, and write their card.

    python -m fastllie.training.reproduce sci --variant mild --photos PHOTOS -o OUT

writes OUT/sci-mild.safetensors and OUT/sci-mild.md. An interrupted run continues when the command is
repeated.
"""

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch

from fastllie.images.files import replacing
from fastllie.methods import info
from fastllie.training import data
from fastllie.training.recipes import SHIPPED, AnyRecipe, EnlightenGANRecipe
from fastllie.training.record.card import write_card
from fastllie.training.session import Settings, run


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
    PyTorch and kind of processor give the same weights. The run's own folder, `output/stem`, keeps its logs
    and its report.

    Args:
        every: Steps between checkpoints.
        scores: The JSON of benchmarks/quality.py, whose figures the card then shows.

    Raises:
        ValueError: no photographs, or one that cannot be read, by its name; a checkpoint of another recipe.
    """
    photographs = data.list_photographs(photos)
    collection = data.collect([photos / photo.file for photo in photographs])
    if len(collection.low) < len(photographs):
        # the card says what the weights were trained on
        raise ValueError("; ".join(f"{problem.file} {problem.what}" for problem in collection.problems))
    output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    settings = Settings(
        output / stem,
        seed,
        "cpu",
        None,
        every,
        log_every=50,
        progress=lambda line: print(line, flush=True),
    )
    made = run(recipe, collection, None, settings).weights
    weights = output / f"{stem}.safetensors"
    with replacing(weights) as temporary:
        shutil.copyfile(made, temporary)
    write_card(weights, photographs, scores)
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
    parser.add_argument("--vgg", help="weights of VGG-16, for EnlightenGAN; see fastllie.training.losses.vgg")
    parser.add_argument("--scores", type=Path, help="JSON of benchmarks/quality.py for the card")
    options = parser.parse_args(arguments)
    shipped = SHIPPED[options.method]
    name = options.variant or next(iter(shipped))
    if name not in shipped:
        parser.error(f"--variant must be one of {', '.join(shipped)}, not {name!r}")
    recipe = shipped[name]
    if options.steps is not None:
        recipe = replace(recipe, steps=options.steps, epochs=None)
    if options.vgg is not None:
        if not isinstance(recipe, EnlightenGANRecipe):
            parser.error(f"--vgg is for EnlightenGAN, not for {options.method}")
        recipe = replace(recipe, vgg=options.vgg)
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
