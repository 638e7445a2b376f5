"""Batches of whole scenes; see `fastllie.training.data.scenes`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastllie.models.metered import gain_of, taught
from fastllie.terminal import Count
from fastllie.training.data.cache import open_cache
from fastllie.training.data.collection import Collection
from fastllie.training.data.pixels import Preparation
from fastllie.training.data.scenes import Frame, make_frame
from fastllie.training.data.source import Batch, Passes, share_of
from fastllie.training.recipes import DawnRecipe, Scenes

# a stream of random numbers beside that of the frames
_SQUARE = 1


def open_scenes(
    collection: Collection,
    recipe: DawnRecipe,
    seed: int,
    *,
    cache: Path,
    device: torch.device,
    threads: int | None = None,
    progress: Count | None = None,
) -> "SyntheticScenes":
    """As `fastllie.training.data.open_source`.

    Raises:
        ValueError: photographs in two sides.
    """
    if collection.layout != "plain":
        raise ValueError(
            f"scenes are made of photographs of normal light, got {collection.layout} ones: give the"
            " folder of those alone"
        )
    how = Preparation(**recipe.kept())
    photographs = open_cache(collection.low, how, cache, threads=threads, progress=progress)
    names = [item.name for item in collection.low]
    return SyntheticScenes(photographs, recipe.scenes, recipe.batch, seed, names=names, device=device)


class SyntheticScenes:
    """Batches of scenes made of photographs, each photograph once a pass.

    Args:
        photographs: `[H, W, 3]` of uint8, of any sizes.
        names: Of the photographs; their numbers by default.
        device: Where the batches shall be; they are made on the CPU.
    """

    def __init__(
        self,
        photographs: Sequence[Tensor],
        scenes: Scenes,
        batch: int,
        seed: int,
        *,
        names: Sequence[str] | None = None,
        device: torch.device | None = None,
    ):
        self._pixels = photographs
        self._scenes = scenes
        self._seed = seed
        self._names = names
        self._device = device or torch.device("cpu")
        self._passes = Passes(len(photographs), batch, seed)
        self.photographs = len(photographs)
        self.steps_per_epoch = self._passes.steps_per_epoch

    def size(self, step: int) -> int:
        return len(self._passes.chosen(step))

    def names(self, step: int) -> list[str]:
        chosen = self._passes.chosen(step)
        return [str(index) if self._names is None else self._names[index] for index in chosen]

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        chosen = self._passes.chosen(step)
        mine = range(len(chosen))[share_of(len(chosen), part, parts)]
        frames = [self._frame(step, place, chosen[place]) for place in mine]
        if not frames:
            empty = torch.empty(0, 3, *self._sides(), device=self._device)
            return Batch(empty, empty, clean=empty)
        x, target, clean = (torch.stack(planes).to(self._device) for planes in zip(*frames, strict=True))
        return Batch(x, target, clean=clean)

    def _sides(self) -> tuple[int, int]:
        return self._scenes.size

    def _frame(self, step: int, place: int, photograph: int) -> Frame:
        # a generator of its own for each frame: it is the same in whatever part of the batch it comes
        random = np.random.default_rng((self._seed, step, place))
        return make_frame(self._pixels[photograph], self._scenes, random)


class SceneSquares(SyntheticScenes):
    """Batches of one square of each scene, for networks that see no more than a neighbourhood.

    The scene's exposure is judged by all of it, before the square is cut.

    Args:
        size: Side of the squares, at most the shorter side of the scenes.
        meter: The level that dark scenes are brought to before that, see `fastllie.models.Metered`; None
            leaves them as they are.
    """

    def __init__(
        self,
        photographs: Sequence[Tensor],
        scenes: Scenes,
        size: int,
        batch: int,
        seed: int,
        *,
        meter: float | None = None,
        **more: Any,
    ):
        super().__init__(photographs, scenes, batch, seed, **more)
        self._size = size
        self._meter = meter

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        # no method that is shown squares learns from clean frames
        return super().batch(step, part, parts)._replace(clean=None)

    def _sides(self) -> tuple[int, int]:
        return self._size, self._size

    def _frame(self, step: int, place: int, photograph: int) -> Frame:
        frame = super()._frame(step, place, photograph)
        if self._meter is not None:
            whole = frame.x[None]
            frame = frame._replace(x=taught(whole, gain_of(whole, self._meter))[0])
        random = np.random.default_rng((self._seed, step, place, _SQUARE))
        top, left = (int(random.integers(side - self._size + 1)) for side in self._scenes.size)
        rows, columns = slice(top, top + self._size), slice(left, left + self._size)
        return Frame(*(image[:, rows, columns] for image in frame))
