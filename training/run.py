"""`fastllie.train` and `fastllie.finetune`: a recipe, photographs and a folder in; weights and a log out."""

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fastllie import checkpoint
from fastllie.methods import info, unknown
from fastllie.training import data as photographs
from fastllie.training.overrides import override
from fastllie.training.recipes import FINETUNES, OFFICIAL, RECIPES, AnyRecipe, SCIRecipe
from fastllie.training.sci import SCITask
from fastllie.training.task import NetworkTask
from fastllie.training.trainer import Source, fit
from fastllie.training.zerodce import CurveTask

WEIGHTS, LOG, STATE = "weights.safetensors", "log.txt", "state.ckpt"
Data = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class TrainResult:
    """What a training run left behind.

    Attributes:
        weights: The file of weights, for `fastllie.enhance(image, method, weights=...)`.
        log: The lines of losses.
        steps: Optimizer steps of the whole run, those before an interruption included.
        seconds: What this call took.
    """

    weights: Path
    log: Path
    steps: int
    seconds: float


def train(
    method: str,
    data: Data,
    *,
    output: str | os.PathLike[str],
    recipe: str = OFFICIAL,
    seed: int = 0,
    every: int = 200,
    progress: Progress | None = None,
    **overrides: Any,
) -> TrainResult:
    """Train a method from scratch on photographs; an interrupted run goes on when it is called again.

    Args:
        method: One of `fastllie.list_methods()`.
        data: A folder of photographs, searched with its folders, or a list of image files; of any sizes.
        output: The folder to write to: `weights.safetensors`, `log.txt`, and `state.ckpt` to go on from.
        recipe: "official" is what the published code does; the name of a variant in `fastllie.info(method)`
            is how that one was made; "sci" has "released" too, what its published files were made with.
        seed: Of the first weights and of the order and crops of the photographs. The same photographs, seed,
            thread count, PyTorch and kind of processor give the same weights.
        every: Steps between checkpoints, and between lines of the log.
        progress: Called with each line of the log.
        **overrides: Fields of the recipe, e.g. `epochs=10`; a part by a dict, `losses={"exposure": 10}`. See
            `fastllie.training.recipes`.

    Raises:
        TypeError: a field that the recipe does not have, or a value of the wrong type.
        ValueError: an unknown method or recipe, no photographs, one that cannot be read, values that make no
            network, or an output that another run began.
        RuntimeError: a loss that is not finite.
    """
    chosen = override(_recipe(RECIPES, method, recipe), _one_length(overrides))
    return _run(chosen, data, None, Path(output), seed, every, progress)


def finetune(
    method: str,
    data: Data,
    *,
    weights: str | os.PathLike[str],
    output: str | os.PathLike[str],
    recipe: str = OFFICIAL,
    seed: int = 0,
    every: int = 200,
    progress: Progress | None = None,
    **overrides: Any,
) -> TrainResult:
    """Go on training from given weights, say on a few photographs of one's own; otherwise as `train`.

    The network is that of the weights: what their file tells of it (how it pads, the block of SCI) stands
    over the recipe. Where a cascade of SCI's stages is asked for and the file has no calibration network,
    that one starts from scratch.

    Args:
        weights: A variant's name, or a path, ours or of the published repository, as for `fastllie.load`.

    Raises:
        TypeError, ValueError, RuntimeError: as `train`; a field that the weights decide.
        FileNotFoundError: no such weight file.
    """
    found = checkpoint.read(checkpoint.find(method, weights), method)
    chosen = _recipe(FINETUNES, method, recipe)
    decided = {name: value for name, value in found.options.items() if name in asdict(chosen)}
    for name, value in decided.items():
        if overrides.get(name, value) != value:
            raise ValueError(
                f"{name} is {value!r} in the weights {os.fspath(weights)}, got {overrides[name]!r}"
            )
    chosen = override(chosen, {**_one_length(overrides), **decided})
    return _run(chosen, data, found, Path(output), seed, every, progress)


def _recipe(table: dict[str, dict[str, AnyRecipe]], method: str, name: str) -> AnyRecipe:
    recipes = table[info(method).name]
    if not isinstance(name, str) or name not in recipes:
        raise ValueError(unknown(f"recipe of {method}", str(name), recipes))
    return recipes[name]


def _one_length(overrides: dict[str, Any]) -> dict[str, Any]:
    """The overrides, where a number of steps replaces the recipe's number of epochs, and the reverse."""
    if ("steps" in overrides) == ("epochs" in overrides):
        return overrides
    return {**overrides, "epochs" if "steps" in overrides else "steps": None}


def _run(
    recipe: AnyRecipe,
    data: Data,
    start: checkpoint.Checkpoint | None,
    output: Path,
    seed: int,
    every: int,
    progress: Progress | None,
) -> TrainResult:
    began = time.perf_counter()
    paths = photographs.find_images(data)
    source, per_epoch = source_of(recipe, paths, seed)
    # drawn from a generator of its own: the caller's random state stays
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        task = task_of(recipe, per_epoch)
    if start is not None:
        task.start_from(start.state)
    output.mkdir(parents=True, exist_ok=True)
    with open(output / LOG, "a", encoding="utf-8") as log:

        def tell(line: str) -> None:
            print(line, file=log, flush=True)
            if progress is not None:
                progress(line)

        fit(task, source, task.total_steps, checkpoint=output / STATE, every=every, log=tell)
    weights = write_weights(task, recipe, output / WEIGHTS, seed=seed, photographs=len(paths))
    return TrainResult(weights, output / LOG, task.steps_done, time.perf_counter() - began)


def task_of(recipe: AnyRecipe, steps_per_epoch: int) -> NetworkTask:
    """The task of a recipe; its first weights are drawn from PyTorch's global generator.

    Raises:
        ValueError: a recipe that says neither how many steps nor how many epochs to take.
    """
    steps = recipe.steps if recipe.steps is not None else (recipe.epochs or 0) * steps_per_epoch
    if steps < 1:
        raise ValueError(f"a run needs at least one step, got steps={recipe.steps}, epochs={recipe.epochs}")
    if isinstance(recipe, SCIRecipe):
        return SCITask(recipe, steps, steps_per_epoch)
    return CurveTask(recipe, steps)


def source_of(recipe: AnyRecipe, paths: Sequence[Path], seed: int) -> tuple[Source, int]:
    """The recipe's batches, and how many of them show as many photographs as there are."""
    if recipe.synthesis is not None:
        if recipe.size is None:
            raise ValueError("synthetic exposures need a size")
        short_side = round(recipe.size * recipe.synthesis.zoom)
        pixels = [photographs.decode(path, short_side=short_side) for path in paths]
        synthetic = photographs.SyntheticExposures(pixels, recipe.synthesis, recipe.size, recipe.batch, seed)
        return synthetic, -(-len(paths) // recipe.batch)
    if isinstance(recipe, SCIRecipe):
        whole = photographs.Photographs(
            paths, recipe.batch, seed, size=recipe.size, long_side=recipe.long_side
        )
        return whole, whole.steps_per_epoch
    squares = photographs.Squares(
        [photographs.decode(path, square=recipe.size) for path in paths], recipe.batch, seed
    )
    return squares, squares.steps_per_epoch


def write_weights(task: NetworkTask, recipe: AnyRecipe, path: Path, *, seed: int, photographs: int) -> Path:
    """Write the task's result with all that is needed to load it and to tell how it was made."""
    run = {
        "seed": seed,
        "steps": task.steps_done,
        "threads": torch.get_num_threads(),
        "photographs": photographs,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    metadata = {"recipe": json.dumps(asdict(recipe)), "run": json.dumps(run)}
    checkpoint.write(path, task.result(), {"method": recipe.method, **task.metadata(), **metadata})
    return path
