"""One row of the papers' tables: a small training, and what comes of it on pictures that it has not seen."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import methods_pictures
import numpy as np
import quality_sets
import record
import torch
from PIL import Image
from quality_scores import Array, planes
from torch import Tensor, nn

from fastllie import metrics
from fastllie.metrics.change import CLIPPED
from fastllie.training import data
from fastllie.training.recipes import AnyRecipe
from fastllie.training.task import NetworkTask
from fastllie.training.trainer import Pace, fit

SEED = 0
LONG_SIDE = 480  # of the unpaired pictures
PATCH = 32  # side in pixels of what counts as one place of a picture
BURNT, UNLIT = 0.9, 0.1  # means of patches
COST_SIZE = (400, 600)  # that parameters, operations and time are told for: a picture of LOL
# of methods_pictures.PHOTOGRAPHS: a street by night, and two photographs that were darkened
SHOWN = (0, 2, 3)

Scores = dict[str, Any]
Learner = Callable[[Any, int], NetworkTask]


@dataclass(frozen=True)
class Row:
    """A network to train and to measure.

    Attributes:
        name: In the record.
        recipe: How it is trained, `steps` of it.
        learner: From the recipe and the steps of a pass: what trains.
        more: Figures that this row has beside those of all.
        what: How it differs from what its name says by itself; for the page.
    """

    name: str
    recipe: AnyRecipe
    learner: Learner
    more: tuple[Callable[[nn.Module, "Pictures"], Scores], ...] = ()
    what: str = ""


@dataclass(frozen=True)
class Pictures:
    """Where photographs and pictures are, and how many of them are taken.

    Attributes:
        shared: The folder with data/.
        work: Where decoded photographs and what the rows make are kept.
        steps: Of every training, instead of the recipes'; None: theirs.
        every: One in how many pictures of each set is measured.
    """

    shared: Path
    work: Path
    steps: int | None = None
    every: int = 1
    _kept: dict[str, Any] = field(default_factory=dict, compare=False)

    def collection(self) -> data.Collection:
        """The photographs to train on: all but those in the public domain, which are shown."""
        if "collection" not in self._kept:
            folder = self.shared / "data" / "free_photos"
            files = [folder / photo.file for photo in data.list_photographs(folder)]
            self._kept["collection"] = data.collect(files, cache=self.work / "cache")
        return self._kept["collection"]

    def pairs(self) -> Iterator[tuple[Array, Array]]:
        for low, high in list(quality_sets.lol_pairs(self.shared))[:: self.every]:
            yield quality_sets.read(low), quality_sets.read(high)

    def unpaired(self) -> Iterator[Array]:
        for path in quality_sets.unpaired(self.shared)[::2][:: self.every]:
            yield quality_sets.read(path, LONG_SIDE)

    def shown(self) -> list[np.ndarray]:
        """The photographs of the pictures of a page."""
        made = methods_pictures.shown_to_methods(self.shared / "data" / "free_photos")
        return [made[place] for place in SHOWN]


def tensor(image: np.ndarray) -> Tensor:
    """A float image `[H, W, 3]` as the networks take it."""
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]


def measure(row: Row, pictures: Pictures) -> Scores:
    """Train a row and measure it."""
    recipe: Any = row.recipe
    steps = pictures.steps or recipe.steps
    torch.manual_seed(SEED)
    collection = pictures.collection()
    source = data.open_source(
        collection, recipe, SEED, cache=pictures.work / "cache", device=torch.device("cpu")
    )
    task = row.learner(recipe, source.steps_per_epoch)
    task.total_steps = steps
    start = time.process_time()
    fit(task, source, steps, pace=Pace(every=steps))
    trained = {
        "photographs": len(collection.low),
        "size": recipe.size,
        "batch": recipe.batch,
        "steps": steps,
        "processor_s": round(time.process_time() - start, 1),
    }
    with task.averaged() as network:
        keep_pictures(network, pictures, row.name)
        scores = {**cost(network), **common(network, pictures)}
        for more in row.more:
            scores |= more(network, pictures)
    return {"what": row.what, "trained": trained, "scores": scores}


def common(network: nn.Module, pictures: Pictures) -> Scores:
    """What every row is scored by."""
    enhance = quality_sets.enhancer(network)
    rows: dict[str, list[float]] = {}

    def add(name: str, value: Any) -> None:
        rows.setdefault(name, []).append(float(value))

    for place, (low, high) in enumerate(pictures.pairs()):
        start = time.process_time()
        output = enhance(low)
        # the first one prepares what the others find
        if place:
            add("ms", 1e3 * (time.process_time() - start))
        pair = planes(output), planes(high)
        add("lol_psnr", metrics.psnr(*pair))
        add("lol_ssim", metrics.ssim(*pair))
        add("lol_scaled_psnr", metrics.psnr_scaled(*pair, mean="rgb"))
        add("mean", output.mean())
        add("over_lol", 100 * (output > CLIPPED).any(-1).mean())
    for image in pictures.unpaired():
        output = enhance(image)
        add("over", 100 * (output > CLIPPED).any(-1).mean())
        add("hue_shift", metrics.hue_shift(planes(output), planes(image)))
        add("uneven", 100 * uneven(output))
    found = {name: float(np.mean(values)) for name, values in rows.items()}
    return found | {"ms": float(np.median(rows["ms"]))}


def uneven(image: np.ndarray) -> float:
    """Share of the patches that are burnt or unlit."""
    height, width = (side // PATCH * PATCH for side in image.shape[:2])
    grey = image[:height, :width].mean(-1).reshape(height // PATCH, PATCH, width // PATCH, PATCH)
    means = grey.mean((1, 3))
    return float(((means > BURNT) | (means < UNLIT)).mean())


def cost(network: nn.Module) -> Scores:
    """Parameters that an image takes, and multiplications for one of COST_SIZE."""
    used: dict[int, int] = {}
    multiplied = 0

    def count(module: Any, inputs: Any, output: Tensor) -> None:
        nonlocal multiplied
        used[id(module)] = sum(value.numel() for value in module.parameters(recurse=False))
        if isinstance(module, nn.Conv2d):
            each = module.weight.numel() // module.out_channels * output.numel()
        elif isinstance(module, nn.ConvTranspose2d):
            each = module.weight.numel() // module.in_channels * inputs[0].numel()
        elif isinstance(module, nn.Linear):
            each = module.in_features * output.numel()
        else:
            each = 0
        multiplied += each

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if list(module.parameters(recurse=False))
    ]
    try:
        # a network with hooks runs layer by layer; small, for the number goes by pixels
        side = 96
        with torch.inference_mode():
            network(torch.rand(1, 3, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    pixels = COST_SIZE[0] * COST_SIZE[1]
    return {"parameters": sum(used.values()), "gmacs": multiplied / side**2 * pixels / 1e9}


# --- what the rows make of the photographs of the page


@cache
def _given(pictures_shared: Path) -> list[np.ndarray]:
    return Pictures(pictures_shared, pictures_shared).shown()


def keep_pictures(network: nn.Module, pictures: Pictures, name: str) -> None:
    """Keep what the network makes of the photographs of the page, side by side, reduced."""
    enhance = quality_sets.enhancer(network)
    made = [np.rint(enhance(image / 255) * 255).astype(np.uint8) for image in _given(pictures.shared)]
    strip(made).save(picture_of(pictures.work, name))


def picture_of(work: Path, name: str) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    return work / f"{record.slug(name)}.png"


def strip(images: list[np.ndarray]) -> Image.Image:
    """Pictures of one size beside each other, as small as they are shown."""
    width, height = methods_pictures.SHOWN
    small = [Image.fromarray(one).resize((width, height), Image.Resampling.LANCZOS) for one in images]
    return methods_pictures.sheet([[np.asarray(one) for one in small]])


def differs(row: Mapping[str, Any], pictures: Pictures, planned: Row) -> bool:
    """Whether a row of the record was trained otherwise than is planned now."""
    recipe: Any = planned.recipe
    trained = row["trained"]
    wanted = (recipe.size, recipe.batch, pictures.steps or recipe.steps)
    return (trained["size"], trained["batch"], trained["steps"]) != wanted
