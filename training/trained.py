"""The table of what is trained and how: one row a method."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastllie.training.data import open_source
from fastllie.training.data.scene_source import open_scenes
from fastllie.training.data.source import Source
from fastllie.training.dawn import DawnTask
from fastllie.training.enlightengan import EnlightenGANTask
from fastllie.training.losses.clip import OPEN_CLIP, Reader, find_clip
from fastllie.training.losses.vgg import find_vgg
from fastllie.training.nerco import NeRCoTask
from fastllie.training.parallel import Parallel
from fastllie.training.recipes import (
    FINETUNES,
    RECIPES,
    AnyRecipe,
    DawnRecipe,
    EnlightenGANRecipe,
    NeRCoRecipe,
    Recipe,
    SCIRecipe,
)
from fastllie.training.sci import SCITask
from fastllie.training.task import ALONE, NetworkTask
from fastllie.training.zerodce import CurveTask


@dataclass(frozen=True)
class Length:
    """How long a run is, in steps.

    Attributes:
        steps: Of the run.
        epoch: Of a pass over the photographs.
    """

    steps: int
    epoch: int


def _without_reader(recipe: Any, reader: Reader | None) -> Any:
    if reader is not None:
        raise ValueError("a reader is for the text loss of nerco: give text_loss='clip' too")
    return recipe


@dataclass(frozen=True)
class Trained:
    """How a method is trained: what a new method adds to `TRAINED`.

    Attributes:
        task: From a recipe, its length, the processes and a reader: the task, whose first weights are drawn
            from PyTorch's global generator.
        recipes: By name; "official" is the default.
        finetunes: Those that go on from given weights.
        prepare: From a recipe and a reader: the recipe where the files that it needs are found, from whatever
            folder. It raises before a photograph is read.
        source: As `fastllie.training.data.open_source`: batches of a collection by the recipe.
    """

    task: Callable[[Any, Length, Parallel, Reader | None], NetworkTask]
    recipes: Mapping[str, AnyRecipe]
    finetunes: Mapping[str, AnyRecipe]
    prepare: Callable[[Any, Reader | None], Any] = _without_reader
    source: Callable[..., Source] = open_source


def task_of(
    recipe: AnyRecipe, steps_per_epoch: int, parallel: Parallel = ALONE, *, reader: Reader | None = None
) -> NetworkTask:
    """The task of a recipe; its first weights are drawn from PyTorch's global generator.

    Args:
        reader: As for `fastllie.train`.

    Raises:
        ValueError: a recipe that says neither how many steps nor how many epochs to take.
    """
    steps = recipe.steps if recipe.steps is not None else (recipe.epochs or 0) * steps_per_epoch
    if steps < 1:
        raise ValueError(f"a run needs at least one step, got steps={recipe.steps}, epochs={recipe.epochs}")
    return TRAINED[recipe.method].task(recipe, Length(steps, steps_per_epoch), parallel, reader)


def _curves(recipe: Recipe, length: Length, parallel: Parallel, reader: Reader | None) -> NetworkTask:
    return CurveTask(recipe, length.steps, parallel)


def _sci(recipe: SCIRecipe, length: Length, parallel: Parallel, reader: Reader | None) -> NetworkTask:
    return SCITask(recipe, length.steps, length.epoch, parallel=parallel)


def _enlightengan(
    recipe: EnlightenGANRecipe, length: Length, parallel: Parallel, reader: Reader | None
) -> NetworkTask:
    return EnlightenGANTask(recipe, length.steps, length.epoch, parallel=parallel)


def _nerco(recipe: NeRCoRecipe, length: Length, parallel: Parallel, reader: Reader | None) -> NetworkTask:
    return NeRCoTask(recipe, length.steps, length.epoch, reader=reader, parallel=parallel)


def _dawn(recipe: DawnRecipe, length: Length, parallel: Parallel, reader: Reader | None) -> NetworkTask:
    return DawnTask(recipe, length.steps, parallel)


def _with_vgg(recipe: EnlightenGANRecipe, reader: Reader | None) -> EnlightenGANRecipe:
    recipe = _without_reader(recipe, reader)
    found = find_vgg(recipe.vgg)
    # the same recipe from whatever folder, unless the file is an extra's
    return recipe if found is None or recipe.vgg is None else replace(recipe, vgg=os.path.abspath(found))


def _with_clip(recipe: NeRCoRecipe, reader: Reader | None) -> NeRCoRecipe:
    if recipe.text_loss is None:
        return _without_reader(recipe, reader)
    if reader is not None:
        return recipe
    if recipe.clip_weights != OPEN_CLIP:
        recipe = replace(recipe, clip_weights=os.path.abspath(find_clip(recipe.clip_weights)))
    if recipe.text_features is not None:
        recipe = replace(recipe, text_features=os.path.abspath(recipe.text_features))
    return recipe


TRAINED: dict[str, Trained] = {
    "zerodce": Trained(_curves, RECIPES["zerodce"], FINETUNES["zerodce"]),
    "zerodce++": Trained(_curves, RECIPES["zerodce++"], FINETUNES["zerodce++"]),
    "sci": Trained(_sci, RECIPES["sci"], FINETUNES["sci"]),
    "enlightengan": Trained(_enlightengan, RECIPES["enlightengan"], FINETUNES["enlightengan"], _with_vgg),
    "nerco": Trained(_nerco, RECIPES["nerco"], FINETUNES["nerco"], _with_clip),
    "dawn": Trained(_dawn, RECIPES["dawn"], FINETUNES["dawn"], source=open_scenes),
}
