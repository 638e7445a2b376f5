"""What a run is worth while it runs: scores on photographs that it never saw, pictures of fixed ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from fastllie import metrics
from fastllie.models.metered import metered
from fastllie.training.data import Collection, Source
from fastllie.training.data.pixels import Pixels, Preparation
from fastllie.training.data.synthesis import linear, srgb
from fastllie.training.recipes import AnyRecipe
from fastllie.training.record.pictures import Row, contact_sheet
from fastllie.training.task import NetworkTask

LARGEST = 64  # images that a validation looks at
SHEETS = 12  # contact sheets over a run
SAMPLES, SAMPLE_SIDE = 6, 480  # photographs on a sheet, and their long side


@dataclass(frozen=True)
class Sample:
    """A photograph to draw: what the network gets, and what it should become where that is known."""

    name: str
    image: Pixels
    target: Pixels | None = None


def samples_of(collection: Collection, recipe: AnyRecipe) -> list[Sample]:
    """Some photographs, always the same ones; darkened where the recipe trains on such frames."""
    how = Preparation(long_side=SAMPLE_SIDE)
    samples = []
    for index, item in enumerate(collection.low[:SAMPLES]):
        image = how.apply(item.image())
        if recipe.synthesis is not None:
            stops = sum(recipe.synthesis.exposures) / 2
            dark = srgb(linear(torch.from_numpy(image.copy())) * 2**stops)
            samples.append(Sample(item.name, _seen(dark, recipe), image))
            continue
        seen = image if recipe.meter is None else _seen(torch.from_numpy(image.copy()) / 255, recipe)
        target = how.apply(collection.high[index].image()) if collection.layout == "paired" else None
        samples.append(Sample(item.name, seen, target))
    return samples


def _seen(image: Tensor, recipe: AnyRecipe) -> Pixels:
    """An image `[H, W, 3]` in [0, 1] as the network gets it."""
    if recipe.meter is not None:
        image = metered(image.permute(2, 0, 1)[None], recipe.meter)[0].permute(1, 2, 0)
    return (image * 255).round().byte().numpy()


class Validator:
    """Scores the weights that would be the result now, and draws what they do.

    Where the batches have targets (pairs, synthetic exposures), PSNR and SSIM of the outputs, of which the
    PSNR decides what is best; elsewhere the losses of the recipe, of which the total does, if the task's
    losses can be compared over time.

    Args:
        held: Batches of photographs that are not trained on; None scores nothing.
        samples: What to draw.
        done: The step that the run goes on from.
        picture: Called with the step, a name and a contact sheet.
    """

    def __init__(
        self,
        task: NetworkTask,
        held: Source | None,
        samples: Sequence[Sample],
        done: int,
        picture: Callable[[int, str, Image.Image], object],
    ):
        self._task = task
        self._held = held
        self._samples = samples
        self._picture = picture
        self._drawn = done * SHEETS // task.total_steps

    def __call__(self, step: int) -> tuple[dict[str, float], float | None]:
        """The scores, and one number of which more is better; None where nothing is held out."""
        due = step * SHEETS // self._task.total_steps
        with self._task.averaged() as network:
            if self._samples and due > self._drawn:
                self._drawn = due
                rows = [self._row(network, sample) for sample in self._samples]
                self._picture(step, "samples", contact_sheet(rows))
            return self._scores(network)

    def _row(self, network: torch.nn.Module, sample: Sample) -> Row:
        given = torch.from_numpy(sample.image.copy()).to(self._task.parallel.device)
        y = (network(given.permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0) * 255 + 0.5).clamp(
            0, 255
        )
        images = {"input": sample.image, "output": y.byte().cpu().numpy()}
        if sample.target is not None:
            images["target"] = sample.target
        captions = [f"{name}, mean {pixels.mean() / 255:.2f}" for name, pixels in images.items()]
        return Row(sample.name, list(images.values()), captions)

    def _scores(self, network: torch.nn.Module) -> tuple[dict[str, float], float | None]:
        if self._held is None:
            return {}, None
        sums: dict[str, float] = {}
        seen = 0
        for step in range(self._held.steps_per_epoch):
            batch = self._held.batch(step)
            if batch.target is batch.x:
                losses = self._task.losses_of(batch)
                found = {name: value.item() for name, value in losses.items()}
                found["total"] = sum(found.values())
            else:
                found = _fidelity(network(batch.x), batch.target)
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value * len(batch.x)
            seen += len(batch.x)
            if seen >= LARGEST:
                break
        scores = {name: value / seen for name, value in sums.items()}
        if "PSNR" in scores:
            return scores, scores["PSNR"]
        return scores, -scores["total"] if self._task.comparable else None


def _fidelity(output: Tensor, target: Tensor) -> dict[str, float]:
    output = output.float().clamp(0, 1)
    return {
        "PSNR": float(torch.as_tensor(metrics.psnr(output, target)).mean()),
        "SSIM": float(torch.as_tensor(metrics.ssim(output, target)).mean()),
    }
