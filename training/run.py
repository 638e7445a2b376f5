"""`fastllie.train` and `fastllie.finetune`: a recipe and photographs in; weights, logs and a report out."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fastllie import checkpoint
from fastllie.methods import info, unknown
from fastllie.training.data import Collection, Item, Source, collect, open_source
from fastllie.training.dawn import DawnTask
from fastllie.training.enlightengan import EnlightenGANTask
from fastllie.training.losses.clip import OPEN_CLIP, Reader, find_clip
from fastllie.training.losses.vgg import find_vgg
from fastllie.training.nerco import NeRCoTask
from fastllie.training.parallel import Parallel, join
from fastllie.training.recipes import (
    FINETUNES,
    OFFICIAL,
    RECIPES,
    UNPAIRED,
    AnyRecipe,
    DawnRecipe,
    EnlightenGANRecipe,
    NeRCoRecipe,
    SCIRecipe,
)
from fastllie.training.recipes.config import write_config
from fastllie.training.recipes.overrides import override
from fastllie.training.record.journal import Journal
from fastllie.training.record.report import write_report
from fastllie.training.record.validation import Validator, samples_of
from fastllie.training.sci import SCITask
from fastllie.training.task import ALONE, NetworkTask, resolve_precision
from fastllie.training.trainer import Hooks, Interrupted, Pace, fit, resume_point
from fastllie.training.zerodce import CurveTask

WEIGHTS, BEST, STATE, CONFIG = "weights.safetensors", "best.safetensors", "state.ckpt", "config.toml"
LOG = "log.jsonl"
AUTO_SHARE, AUTO_FROM = 0.05, 40  # validation="auto": the share held out, from this many photographs on
Progress = Callable[[str], None]


@dataclass(frozen=True)
class TrainResult:
    """What a training run left behind.

    Attributes:
        weights: The file of weights, for `fastllie.enhance(image, method, weights=...)`.
        best: Those that scored best on the photographs that were held out; None where none were.
        log: A line of JSON for every few steps; `log.csv` beside it holds the same.
        report: The page with curves and pictures.
        steps: Optimizer steps of the whole run, those before an interruption included.
        seconds: What this call took.
    """

    weights: Path
    best: Path | None
    log: Path
    report: Path
    steps: int
    seconds: float


@dataclass(frozen=True)
class Settings:
    """What a run needs beside its recipe; see `train`."""

    output: Path
    seed: int = 0
    device: str | torch.device | None = None
    validation: Any = "auto"
    every: int = 200
    log_every: int = 10
    validate_every: int | None = None
    cache: str | os.PathLike[str] | None = None
    paired: bool | None = None
    tensorboard: bool = False
    bar: bool | None = False
    progress: Progress | None = None
    reader: Reader | None = None

    def pace(self) -> Pace:
        """How often things happen."""
        return Pace(self.every, self.log_every, self.validate_every)

    def place(self) -> Path:
        """The folder for decoded photographs."""
        if self.cache is not None:
            return Path(self.cache)
        given = os.environ.get("FASTLLIE_CACHE")
        if given:
            return Path(given)
        home = os.environ.get("XDG_CACHE_HOME")
        return (Path(home) if home else Path.home() / ".cache") / "fastllie" / "photographs"


def train(
    method: str,
    data: Any = None,
    *,
    output: str | os.PathLike[str],
    recipe: str = OFFICIAL,
    seed: int = 0,
    device: str | torch.device | None = None,
    validation: Any = "auto",
    every: int = 200,
    log_every: int = 10,
    validate_every: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    paired: bool | None = None,
    low: Any = None,
    normal: Any = None,
    tensorboard: bool = False,
    bar: bool | None = False,
    progress: Progress | None = None,
    reader: Reader | None = None,
    **overrides: Any,
) -> TrainResult:
    """Train a method from scratch on photographs; an interrupted run goes on when it is called again.

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
        paired: Whether two sides of `data` are pairs; None finds out from their names.
        low, normal: Instead of `data`: dark photographs, and others in normal light that are not pairs of
            them, each in one of its forms.
        tensorboard: Also write for TensorBoard (extra `train`).
        bar: Whether to draw a progress bar on stderr; None where it is a terminal.
        progress: Called with each line that tells how the run goes.
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
    data, paired = _sides(data, low, normal, paired)
    settings = Settings(
        Path(output), seed, device, validation, every, log_every, validate_every, cache, paired, tensorboard
    )
    settings = replace(settings, bar=bar, progress=progress, reader=reader)
    chosen = override(_recipe(RECIPES, method, recipe), _one_length(overrides))
    return _run(chosen, data, None, settings, {"method": method, "recipe": recipe})


def finetune(
    method: str,
    data: Any = None,
    *,
    weights: str | os.PathLike[str],
    output: str | os.PathLike[str],
    recipe: str = OFFICIAL,
    seed: int = 0,
    device: str | torch.device | None = None,
    validation: Any = "auto",
    every: int = 200,
    log_every: int = 10,
    validate_every: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    paired: bool | None = None,
    low: Any = None,
    normal: Any = None,
    tensorboard: bool = False,
    bar: bool | None = False,
    progress: Progress | None = None,
    reader: Reader | None = None,
    **overrides: Any,
) -> TrainResult:
    """Go on training from given weights, say on a few photographs of one's own; otherwise as `train`.

    The network is that of the weights: what their file tells of it (how it pads, the block of SCI) stands
    over the recipe. Where a cascade of SCI's stages is asked for and the file has no calibration network,
    that one starts from scratch.

    Args:
        weights: A variant's name, or a path, ours or of the published repository, as for `fastllie.load`.

    Raises:
        TypeError, ValueError, RuntimeError, KeyboardInterrupt: as `train`; a field that the weights decide.
        FileNotFoundError: no such weight file.
    """
    data, paired = _sides(data, low, normal, paired)
    settings = Settings(
        Path(output), seed, device, validation, every, log_every, validate_every, cache, paired, tensorboard
    )
    settings = replace(settings, bar=bar, progress=progress, reader=reader)
    found = checkpoint.read(checkpoint.find(method, weights), method)
    chosen = _recipe(FINETUNES, method, recipe)
    decided = {name: value for name, value in found.options.items() if name in asdict(chosen)}
    for name, value in decided.items():
        if overrides.get(name, value) != value:
            raise ValueError(
                f"{name} is {value!r} in the weights {os.fspath(weights)}, got {overrides[name]!r}"
            )
    chosen = override(chosen, {**_one_length(overrides), **decided})
    named = os.path.abspath(weights) if os.path.exists(weights) else os.fspath(weights)
    told = {"method": method, "weights": named, "recipe": recipe}
    return _run(chosen, data, found, settings, told)


def _sides(data: Any, low: Any, normal: Any, paired: bool | None) -> tuple[Any, bool | None]:
    """The data, and whether it is pairs; given whole, or as two sides."""
    if (low is None) != (normal is None) or (data is None) == (low is None):
        raise TypeError("wanted data, or low and normal: photographs to train on")
    if data is not None:
        return data, paired
    if paired:
        raise TypeError("low and normal are no pairs: give two sides that are as data=(low, target)")
    return (low, normal), False


def _recipe(table: dict[str, dict[str, AnyRecipe]], method: str, name: str) -> AnyRecipe:
    recipes = table[info(method).name]
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
    told: dict[str, Any],
) -> TrainResult:
    # what can be wrong without a look at the photographs is told before it
    settings.pace()
    if isinstance(recipe, EnlightenGANRecipe):
        found = find_vgg(recipe.vgg)
        # the same recipe from whatever folder, unless the file is an extra's
        if found is not None and recipe.vgg is not None:
            recipe = replace(recipe, vgg=os.path.abspath(found))
    recipe = _with_clip(recipe, settings.reader)
    parallel = join(settings.device)
    try:
        recipe = replace(recipe, precision=resolve_precision(recipe.precision, parallel.device))
        if not parallel.first:
            # the first one looks at all photographs, the others find in the cache what it saw
            parallel.wait()
        collection, held = _collected(data, settings)
        if collection.layout == "unpaired" and not isinstance(recipe, UNPAIRED):
            raise ValueError(
                f"{recipe.method} has no use for photographs of normal light that are not pairs of the dark"
                " ones: give the dark ones alone, or paired=True (--paired) if the two sides are pairs"
            )
        if parallel.first:
            parallel.wait()
        config = _config(recipe, data, settings, told)
        return run(recipe, collection, held, settings, parallel, start=start, config=config)
    finally:
        parallel.close()


def _with_clip(recipe: AnyRecipe, reader: Reader | None) -> AnyRecipe:
    """The recipe, where it reads images with the files that it means, from whatever folder."""
    reads = isinstance(recipe, NeRCoRecipe) and recipe.text_loss is not None
    if reader is not None and not reads:
        raise ValueError("a reader is for the text loss of nerco: give text_loss='clip' too")
    if not isinstance(recipe, NeRCoRecipe) or not reads or reader is not None:
        return recipe
    if recipe.clip_weights != OPEN_CLIP:
        recipe = replace(recipe, clip_weights=os.path.abspath(find_clip(recipe.clip_weights)))
    if recipe.text_features is not None:
        recipe = replace(recipe, text_features=os.path.abspath(recipe.text_features))
    return recipe


def _collected(data: Any, settings: Settings) -> tuple[Collection, Collection | None]:
    """The photographs to train on, and those that are held out."""
    cache, paired, share = settings.place(), settings.paired, settings.validation
    collection = _without(collect(data, paired=paired, cache=cache), settings.output)
    if isinstance(share, str) and share == "auto":
        share = AUTO_SHARE if len(collection.low) >= AUTO_FROM else 0.0
    if share is None:
        return collection, None
    if isinstance(share, (int, float)) and not isinstance(share, bool):
        if not 0 <= share < 1:
            raise ValueError(f"validation must be a share in [0, 1), or photographs; got {share}")
        return collection.split(share, settings.seed) if share else (collection, None)
    return collection, collect(share, paired=paired, cache=cache)


def _without(collection: Collection, output: Path) -> Collection:
    """The collection without the pictures of an earlier start, where the run lies among its photographs."""
    place = output.resolve()

    def ours(item: Item) -> bool:
        return isinstance(item.origin, Path) and place in item.origin.resolve().parents

    if collection.layout != "plain" or not any(map(ours, collection.low)):
        return collection
    kept = tuple(item for item in collection.low if not ours(item))
    if not kept:
        raise ValueError(f"all photographs lie in the folder of the run, {output}: give another output")
    return replace(collection, low=kept)


def _config(recipe: AnyRecipe, data: Any, settings: Settings, told: dict[str, Any]) -> dict[str, Any]:
    """The keywords that make this run again, from any folder; data that is no path is told by its type."""
    return {
        **told,
        "data": _spelled(data),
        "seed": settings.seed,
        "device": None if settings.device is None else str(settings.device),
        "validation": _spelled(settings.validation),
        "every": settings.every,
        "log_every": settings.log_every,
        "validate_every": settings.validate_every,
        "cache": None if settings.cache is None else os.fspath(settings.cache),
        "paired": settings.paired,
        "tensorboard": settings.tensorboard,
        **{name: value for name, value in asdict(recipe).items() if name != "method"},
    }


def _spelled(data: Any) -> Any:
    if data is None or data == "auto" or isinstance(data, (int, float)):
        return data
    if isinstance(data, (str, os.PathLike)):
        return os.path.abspath(data)
    if isinstance(data, (list, tuple)):
        return [_spelled(part) for part in data]
    return f"<{type(data).__module__}.{type(data).__qualname__}>"


def run(
    recipe: AnyRecipe,
    collection: Collection,
    held: Collection | None,
    settings: Settings,
    parallel: Parallel = ALONE,
    *,
    start: checkpoint.Checkpoint | None = None,
    config: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train by `recipe` on `collection`, scoring on `held`; what `train` does once it knows them."""
    began = time.perf_counter()
    output = settings.output
    if not parallel.first:
        # the first one decodes, the others find it done
        parallel.wait()
    source = _source(collection, recipe, settings, parallel)
    scored = None if held is None else _source(held, recipe, settings, parallel)
    if parallel.first:
        parallel.wait()
    # drawn from a generator of its own: the caller's random state stays
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        task = task_of(recipe, source.steps_per_epoch, parallel, reader=settings.reader)
    if start is not None:
        task.start_from(start.state)
    output.mkdir(parents=True, exist_ok=True)
    hooks = Hooks(checkpoint=output / STATE, photographs=_fingerprint(collection, settings.seed))
    journal = None
    if parallel.first:
        resumed = resume_point(task, hooks)
        for part in output.glob("*.part"):
            # half-written when an earlier start was killed
            part.unlink()
        if config is not None and not resumed:
            write_config(output / CONFIG, config)
        journal = Journal(
            output,
            total_steps=task.total_steps,
            done=resumed,
            progress=settings.progress,
            bar=settings.bar,
            tensorboard=settings.tensorboard,
        )
        for problem in (*collection.problems, *(held.problems if held is not None else ())):
            journal.note(f"{problem.file} {problem.what}{'; skipped' if problem.skipped else ''}")
        if resumed:
            journal.note(f"goes on from step {resumed}")
        told = {"seed": settings.seed, "photographs": source.photographs}
        hooks = replace(
            hooks,
            journal=journal,
            saved=lambda: write_weights(task, recipe, output / WEIGHTS, **told),
            validate=Validator(
                task, scored, samples_of(held or collection, recipe), resumed, journal.picture
            ),
            best=lambda: write_weights(task, recipe, output / BEST, **told),
            failed=output,
        )
    try:
        fit(task, source, task.total_steps, pace=settings.pace(), hooks=hooks, accumulate=recipe.accumulate)
    except (Interrupted, RuntimeError) as error:
        if journal is not None:
            journal.note(str(error))
        raise
    finally:
        if journal is not None:
            journal.close()
    seconds = time.perf_counter() - began
    parallel.wait()
    report = output / "report.html"
    if parallel.first:
        report = write_report(output, _facts(recipe, task, source, seconds))
    best = output / BEST
    return TrainResult(
        output / WEIGHTS, best if best.exists() else None, output / LOG, report, task.steps_done, seconds
    )


def _source(collection: Collection, recipe: AnyRecipe, settings: Settings, parallel: Parallel) -> Source:
    return open_source(collection, recipe, settings.seed, cache=settings.place(), device=parallel.device)


def _fingerprint(collection: Collection, seed: int) -> str:
    digests = [item.digest for item in (*collection.low, *collection.high)]
    return hashlib.sha256(f"{seed} {' '.join(digests)}".encode()).hexdigest()


def task_of(
    recipe: AnyRecipe, steps_per_epoch: int, parallel: Parallel = ALONE, *, reader: Reader | None = None
) -> NetworkTask:
    """The task of a recipe; its first weights are drawn from PyTorch's global generator.

    Args:
        reader: As for `train`.

    Raises:
        ValueError: a recipe that says neither how many steps nor how many epochs to take.
    """
    steps = recipe.steps if recipe.steps is not None else (recipe.epochs or 0) * steps_per_epoch
    if steps < 1:
        raise ValueError(f"a run needs at least one step, got steps={recipe.steps}, epochs={recipe.epochs}")
    if isinstance(recipe, SCIRecipe):
        return SCITask(recipe, steps, steps_per_epoch, parallel=parallel)
    if isinstance(recipe, EnlightenGANRecipe):
        return EnlightenGANTask(recipe, steps, steps_per_epoch, parallel=parallel)
    if isinstance(recipe, NeRCoRecipe):
        return NeRCoTask(recipe, steps, steps_per_epoch, reader=reader, parallel=parallel)
    if isinstance(recipe, DawnRecipe):
        return DawnTask(recipe, steps, parallel)
    return CurveTask(recipe, steps, parallel)


def _facts(recipe: AnyRecipe, task: NetworkTask, source: Source, seconds: float) -> dict[str, str]:
    device = task.parallel.device
    return {
        "method": recipe.method,
        "photographs": str(source.photographs),
        "steps": str(task.steps_done),
        "precision": task.precision,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or "CPU",
        "processes": str(task.parallel.world),
        "torch": torch.__version__,
        "time of the last call": f"{seconds:.0f} s",
    }


def write_weights(task: NetworkTask, recipe: AnyRecipe, path: Path, *, seed: int, photographs: int) -> Path:
    """Write the task's result with all that is needed to load it and to tell how it was made."""
    told = {
        "seed": seed,
        "steps": task.steps_done,
        "threads": torch.get_num_threads(),
        "photographs": photographs,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    made = asdict(recipe)
    for name in ("vgg", "clip_weights", "text_features"):
        if made.get(name):
            # not where it lay on this machine
            made[name] = Path(made[name]).name
    metadata = {"recipe": json.dumps(made), "run": json.dumps(told)}
    checkpoint.write(path, task.result(), {"method": recipe.method, **task.metadata(), **metadata})
    return path
