"""One run: a recipe and photographs to a task, batches and the loop; weights, logs and a report behind it."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fastllie import checkpoint
from fastllie.checks import is_number
from fastllie.terminal import Counting, Say, on_terminal
from fastllie.training.data import Collection, Item, Source, collect
from fastllie.training.losses.clip import Reader
from fastllie.training.parallel import Parallel
from fastllie.training.recipes import AnyRecipe
from fastllie.training.recipes.config import write_config
from fastllie.training.record.journal import Journal
from fastllie.training.record.report import write_report
from fastllie.training.record.validation import Validator, samples_of
from fastllie.training.task import ALONE, NetworkTask
from fastllie.training.trained import TRAINED, task_of
from fastllie.training.trainer import Hooks, Interrupted, Pace, fit, resume_point

WEIGHTS, BEST, STATE, CONFIG = "weights.safetensors", "best.safetensors", "state.ckpt", "config.toml"
LOG = "log.jsonl"
AUTO_SHARE, AUTO_FROM = 0.05, 40  # validation="auto": the share held out, from this many photographs on


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
    """What a run needs beside its recipe, see `fastllie.train`; and its pace."""

    output: Path
    seed: int = 0
    device: str | torch.device | None = None
    validation: Any = "auto"
    every: int = Pace.every
    log_every: int = Pace.log_every
    validate_every: int | None = Pace.validate_every
    cache: str | os.PathLike[str] | None = None
    max_pixels: int | None = None
    paired: bool | None = None
    tensorboard: bool = False
    bar: bool | None = None
    progress: Say | None = None
    reader: Reader | None = None

    def __post_init__(self) -> None:
        # raises for steps that are none
        self.pace()

    def pace(self) -> Pace:
        """How often things happen."""
        return Pace(self.every, self.log_every, self.validate_every)

    def draws(self) -> bool:
        """Whether a bar is drawn."""
        return self.progress is None and on_terminal() if self.bar is None else self.bar

    def cache_folder(self) -> Path:
        """The folder for decoded photographs."""
        if self.cache is not None:
            return Path(self.cache)
        given = os.environ.get("FASTLLIE_CACHE")
        if given:
            return Path(given)
        home = os.environ.get("XDG_CACHE_HOME")
        return (Path(home) if home else Path.home() / ".cache") / "fastllie" / "photographs"

    def counting(self, what: str, parallel: Parallel, after: float = 0.0) -> Counting:
        """Says how far reading is, in the process that speaks."""
        if not parallel.first:
            return Counting(what, bar=False)
        return Counting(what, bar=self.draws(), say=self.progress, after=after)


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
    hooks = Hooks(checkpoint=output / STATE, seed=settings.seed, photographs=_fingerprint(collection))
    journal = None
    if parallel.first:
        hooks, journal = _recorded(hooks, task, recipe, source, scored, held or collection, settings, config)
        problems = (*collection.problems, *(held.problems if held is not None else ()))
        for problem in problems:
            journal.note(f"{problem.file} {problem.what}{'; skipped' if problem.skipped else ''}")
        if task.steps_done:
            journal.note(f"goes on from step {task.steps_done}")
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


def _recorded(
    hooks: Hooks,
    task: NetworkTask,
    recipe: AnyRecipe,
    source: Source,
    scored: Source | None,
    shown: Collection,
    settings: Settings,
    config: Mapping[str, Any] | None,
) -> tuple[Hooks, Journal]:
    """What the first process calls in the loop, and its journal; the task is left where the run goes on."""
    output = settings.output
    resumed = resume_point(task, hooks)
    for part in output.glob("*.part"):
        # half-written when an earlier start was killed
        part.unlink()
    if config is not None:
        write_config(output / CONFIG, config)
    journal = Journal(
        output,
        total_steps=task.total_steps,
        done=resumed,
        progress=settings.progress,
        bar=settings.draws(),
        tensorboard=settings.tensorboard,
    )
    facts = {"seed": settings.seed, "photographs": source.photographs}
    hooks = replace(
        hooks,
        journal=journal,
        saved=lambda: write_weights(task, recipe, output / WEIGHTS, **facts),
        validate=Validator(task, scored, samples_of(shown, recipe), resumed, journal.picture),
        best=lambda: write_weights(task, recipe, output / BEST, **facts),
        failed=output,
    )
    return hooks, journal


def _source(collection: Collection, recipe: AnyRecipe, settings: Settings, parallel: Parallel) -> Source:
    with settings.counting("preparing photographs", parallel, after=1.0) as count:
        return TRAINED[recipe.method].source(
            collection,
            recipe,
            settings.seed,
            cache=settings.cache_folder(),
            device=parallel.device,
            progress=count,
        )


def _fingerprint(collection: Collection) -> str:
    digests = [item.digest for item in (*collection.low, *collection.high)]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


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
    """Write the task's result with all that is needed to load it and to say how it was made."""
    made_by = {
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
    metadata = {"recipe": json.dumps(made), "run": json.dumps(made_by)}
    state = task.result()
    if recipe.meter is not None:
        state[checkpoint.METER] = checkpoint.level_tensor(recipe.meter_after or recipe.meter)
    checkpoint.write(path, state, {"method": recipe.method, **task.metadata(), **metadata})
    return path


def collected(
    data: Any, settings: Settings, parallel: Parallel = ALONE
) -> tuple[Collection, Collection | None]:
    """The photographs to train on, and those that are held out."""
    share = settings.validation
    how: dict[str, Any] = {
        "paired": settings.paired,
        "cache": settings.cache_folder(),
        "max_pixels": settings.max_pixels,
    }
    with settings.counting("reading photographs", parallel) as count:
        found = collect(data, progress=count, **how)
    collection = _without(found, settings.output)
    if isinstance(share, str) and share == "auto":
        share = AUTO_SHARE if len(collection.low) >= AUTO_FROM else 0.0
    if share is None:
        return collection, None
    if is_number(share):
        if not 0 <= share < 1:
            raise ValueError(f"validation must be a share in [0, 1), or photographs; got {share}")
        return collection.split(share, settings.seed) if share else (collection, None)
    return collection, collect(share, **how)


def _without(collection: Collection, output: Path) -> Collection:
    """The collection without the pictures of an earlier start, where the run lies among its photographs."""
    folder = output.resolve()

    def ours(item: Item) -> bool:
        return isinstance(item.origin, Path) and folder in item.origin.resolve().parents

    if collection.layout != "plain" or not any(map(ours, collection.low)):
        return collection
    kept = tuple(item for item in collection.low if not ours(item))
    if not kept:
        raise ValueError(f"all photographs lie in the folder of the run, {output}: give another output")
    return replace(collection, low=kept)


def config_of(recipe: AnyRecipe, data: Any, settings: Settings, begun: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that make this run again, from any folder; data that is no path is named by its type."""
    return {
        **begun,
        "data": _spelled(data),
        "seed": settings.seed,
        "device": None if settings.device is None else str(settings.device),
        "validation": _spelled(settings.validation),
        "every": settings.every,
        "log_every": settings.log_every,
        "validate_every": settings.validate_every,
        "cache": None if settings.cache is None else os.fspath(settings.cache),
        "max_pixels": settings.max_pixels,
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
