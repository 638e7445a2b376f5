"""`fastllie.train` and `fastllie.finetune`: a recipe and photographs in; weights, logs and a report out."""

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from fastllie import checkpoint
from fastllie.methods import Method, info, unknown
from fastllie.terminal import Say
from fastllie.training.losses.clip import Reader
from fastllie.training.parallel import join
from fastllie.training.recipes import OFFICIAL, AnyRecipe
from fastllie.training.recipes.overrides import override
from fastllie.training.session import Settings, TrainResult, collected, config_of, run
from fastllie.training.task import resolve_precision
from fastllie.training.trained import TRAINED
from fastllie.training.trainer import Pace

__all__ = ["TrainResult", "finetune", "train"]


def train(
    method: Method,
    data: Any = None,
    *,
    output: str | os.PathLike[str],
    recipe: str = OFFICIAL,
    seed: int = 0,
    device: str | torch.device | None = None,
    validation: Any = "auto",
    every: int = Pace.every,
    log_every: int = Pace.log_every,
    validate_every: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    max_pixels: int | None = None,
    paired: bool | None = None,
    low: Any = None,
    normal: Any = None,
    tensorboard: bool = False,
    bar: bool | None = None,
    progress: Say | None = None,
    reader: Reader | None = None,
    **overrides: Any,
) -> TrainResult:
    """Train a method from scratch on photographs; an interrupted run goes on when it is called again, and a
    finished one too where it is called with more steps.

    Under `torchrun` the processes share each batch, and the first one writes. SIGINT and SIGTERM stop the run
    after a step, with a checkpoint; after SIGKILL it goes on from the last one.

    Args:
        method: One of `fastllie.list_methods()`.
        data: A folder of photographs, searched with its folders; a glob pattern; a list of image files; a
            `torch.utils.data.Dataset` of images; or two of these, dark photographs and what they should
            become. Of any sizes and kinds; see `fastllie.training.data.collect`.
        output: The folder to write to: `weights.safetensors`, `best.safetensors` where photographs are held
            out, `state.ckpt` to go on from, `config.toml`, `log.csv`, `log.jsonl`, pictures, `report.html`.
        recipe: "official" is what the published code does; the name of a variant in `fastllie.info(method)`
            is how that one was made; "sci" has "released" too, what its published files were made with.
        seed: Of the first weights and of the order and crops of the photographs. The same photographs, seed,
            thread count, PyTorch and kind of processor give the same weights.
        device: "cpu", "cuda", "cuda:1"; None takes a GPU where there is one.
        validation: The share of the photographs to hold out, or photographs in one of the forms of `data`;
            None or 0 holds none out; "auto" is 0.05 from 40 photographs on.
        every: Steps between checkpoints.
        log_every: Steps between entries of the logs, which are means over them.
        validate_every: Steps between validations; None is `every`.
        cache: The folder for the decoded photographs, shared by all runs; None is `FASTLLIE_CACHE`, or
            fastllie in the user's cache folder.
        max_pixels: Of one photograph; None is the usual limit, as for `fastllie.enhance_folder`.
        paired: Whether two sides of `data` are pairs; None finds out from their names.
        low, normal: Instead of `data`: dark photographs, and others in normal light that are not pairs of
            them, each in one of its forms.
        tensorboard: Also write for TensorBoard (extra `train`).
        bar: Whether to draw a progress bar on stderr; None draws one on a terminal and in a notebook, unless
            there is a `progress`.
        progress: Called with each line that says how the run goes; None: nothing but the bar is shown.
        reader: For NeRCo's text loss, instead of the weights of CLIP: a module or function that gives images
            `[B, 3, H, W]` in [-1, 1] two logits each, dark and bright.
        **overrides: Fields of the recipe, e.g. `epochs=10`; a part by a dict, `losses={"exposure": 10}`. See
            `fastllie.training.recipes`.

    Raises:
        TypeError: a field that the recipe does not have, a value of the wrong type, or no data.
        FileNotFoundError: weights that a loss needs, see `fastllie.training.losses.vgg` and `...clip`.
        ValueError: an unknown method or recipe, no photographs that can be read, values that make no network,
            or an output that another run began.
        RuntimeError: a loss that is not finite or has exploded; its batch is saved in `output`.
        KeyboardInterrupt: a signal stopped the run (`fastllie.training.trainer.Interrupted`).
    """
    return _start(weights=None, **locals())


def finetune(
    method: Method,
    data: Any = None,
    *,
    weights: str | os.PathLike[str],
    output: str | os.PathLike[str],
    recipe: str = OFFICIAL,
    seed: int = 0,
    device: str | torch.device | None = None,
    validation: Any = "auto",
    every: int = Pace.every,
    log_every: int = Pace.log_every,
    validate_every: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    max_pixels: int | None = None,
    paired: bool | None = None,
    low: Any = None,
    normal: Any = None,
    tensorboard: bool = False,
    bar: bool | None = None,
    progress: Say | None = None,
    reader: Reader | None = None,
    **overrides: Any,
) -> TrainResult:
    """Go on training from given weights, say on a few photographs of one's own; otherwise as `train`.

    The network is that of the weights: what their file says of it (how it pads, the block of SCI) stands
    over the recipe. Where a cascade of SCI's stages is asked for and the file has no calibration network,
    that one starts from scratch.

    Args:
        weights: A variant's name, or a path, ours or of the published repository, as for `fastllie.load`.

    Raises:
        TypeError, ValueError, RuntimeError, KeyboardInterrupt: as `train`; a field that the weights decide.
        FileNotFoundError: no such weight file.
    """
    return _start(**locals())


def _start(
    method: str,
    data: Any,
    weights: str | os.PathLike[str] | None,
    recipe: str,
    low: Any,
    normal: Any,
    overrides: dict[str, Any],
    **settings: Any,
) -> TrainResult:
    """What both do: from scratch, or from weights."""
    data, settings["paired"] = _sides(data, low, normal, settings["paired"])
    given = Settings(Path(settings.pop("output")), **settings)
    row = TRAINED[info(method).name]
    start, begun = None, {"method": method, "recipe": recipe}
    changes = _one_length(overrides)
    chosen = _named(row.recipes if weights is None else row.finetunes, method, recipe)
    if weights is not None:
        start = checkpoint.read(checkpoint.find(method, weights), method)
        changes |= _decided(start, chosen, overrides, weights)
        named = os.path.abspath(weights) if os.path.exists(weights) else os.fspath(weights)
        begun = {"method": method, "weights": named, "recipe": recipe}
    chosen = row.prepare(override(chosen, changes), given.reader)
    return _run(chosen, data, start, given, begun)


def _decided(
    start: checkpoint.Checkpoint,
    recipe: AnyRecipe,
    overrides: Mapping[str, Any],
    weights: str | os.PathLike[str],
) -> dict[str, Any]:
    """The fields of the recipe that the file of weights decides.

    Raises:
        ValueError: one of them was given another value.
    """
    decided = {name: value for name, value in start.options.items() if name in asdict(recipe)}
    for name, value in decided.items():
        if overrides.get(name, value) != value:
            raise ValueError(
                f"{name} is {value!r} in the weights {os.fspath(weights)}, got {overrides[name]!r}"
            )
    if checkpoint.METER in decided:
        # where the recipe would move the meter is of the recipe's own level
        decided["meter_after"] = overrides.get("meter_after")
    return decided


def _sides(data: Any, low: Any, normal: Any, paired: bool | None) -> tuple[Any, bool | None]:
    """The data, and whether it is pairs; given whole, or as two sides."""
    if (low is None) != (normal is None) or (data is None) == (low is None):
        raise TypeError("wanted data, or low and normal: photographs to train on")
    if data is not None:
        return data, paired
    if paired:
        raise TypeError("low and normal are no pairs: give two sides that are as data=(low, target)")
    return (low, normal), False


def _named(recipes: Mapping[str, AnyRecipe], method: str, name: str) -> AnyRecipe:
    if not isinstance(name, str) or name not in recipes:
        raise ValueError(unknown(f"recipe of {method}", str(name), recipes))
    return recipes[name]


def _one_length(overrides: dict[str, Any]) -> dict[str, Any]:
    """The overrides, where a number of steps replaces the recipe's number of epochs, and the reverse."""
    given = {name for name in ("steps", "epochs") if overrides.get(name) is not None}
    if len(given) != 1:
        return overrides
    return {**overrides, "epochs" if "steps" in given else "steps": None}


def _run(
    recipe: AnyRecipe,
    data: Any,
    start: checkpoint.Checkpoint | None,
    settings: Settings,
    begun: Mapping[str, Any],
) -> TrainResult:
    parallel = join(settings.device)
    try:
        recipe = replace(recipe, precision=resolve_precision(recipe.precision, parallel.device))
        if not parallel.first:
            # the first one looks at all photographs, the others find in the cache what it saw
            parallel.wait()
        collection, held = collected(data, settings, parallel)
        if collection.layout == "unpaired" and not recipe.unpaired:
            raise ValueError(
                f"{recipe.method} has no use for photographs of normal light that are not pairs of the dark"
                " ones: give the dark ones alone, or paired=True (--paired) if the two sides are pairs"
            )
        if parallel.first:
            parallel.wait()
        config = config_of(recipe, data, settings, begun)
        return run(recipe, collection, held, settings, parallel, start=start, config=config)
    finally:
        parallel.close()
