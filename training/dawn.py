"""The training task of `dawn`: the brain learns exposure, the denoiser noise, from the same scenes."""

from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor

from fastllie.models.dawn import Dawn, Sight
from fastllie.models.dawn.brain import thumbnail
from fastllie.models.dawn.network import STEPS
from fastllie.models.luma import luma
from fastllie.ops import apply_grid_curve
from fastllie.training.data import Batch
from fastllie.training.losses import scenes as scene_losses
from fastllie.training.parallel import Parallel
from fastllie.training.recipes import DawnRecipe
from fastllie.training.task import ALONE, NetworkTask

ALIGNED = 16  # what places of crops are multiples of, so that the pyramid of a crop is the scene's


class DawnTask(NetworkTask):
    """Trains `dawn` by a recipe; `total_steps` is where a cosine schedule ends.

    The network's first weights are drawn from PyTorch's global generator.
    """

    def __init__(self, recipe: DawnRecipe, total_steps: int, parallel: Parallel = ALONE):
        self.recipe = recipe
        super().__init__(Dawn(), recipe, total_steps, parallel)

    def loss_names(self) -> list[str]:
        return [name for name, weight in asdict(self.recipe.losses).items() if weight]

    def losses_of(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.clean is not None
        with self.autocast():
            sight = self.network.look(batch.x)
        thumb, small_target = thumbnail(batch.x), thumbnail(batch.target)
        guide = luma(thumb / (thumb + sight.mean))
        small = apply_grid_curve(thumb, sight.grid, guide, steps=STEPS)
        # native pixels cost most, so that some scenes of a batch have to do
        some = self.recipe.crops
        place = self._place(batch.x.shape[-2:])
        rows, columns = (slice(start, start + self.recipe.crop) for start in place)
        x, target, clean = (image[:some, :, rows, columns] for image in (batch.x, batch.target, batch.clean))
        some_sight = Sight(*(part[:some] for part in sight))
        grid, mean, _ = some_sight
        with self.autocast():
            v = self.network.denoised(x, some_sight)
        # apart from each other: the error of the exposure is ten times the noise's, and would drown it
        seen = v.detach()
        y = apply_grid_curve(
            (seen * mean / (1 - seen)).clamp(0, 1),
            grid,
            luma(seen),
            place=place,
            size=(batch.x.shape[-2], batch.x.shape[-1]),
            steps=STEPS,
        )

        def both(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Tensor]:
            return lambda: (loss(y, target) + loss(small, small_target)) / 2

        found: dict[str, Callable[[], Tensor]] = {
            "noise": lambda: scene_losses.noise(v, clean / (clean + mean)),
            "difference": both(scene_losses.difference),
            "matched_difference": both(scene_losses.matched_difference),
            "structure": both(scene_losses.structure),
            "chroma": both(scene_losses.chroma),
            "overshoot": both(scene_losses.overshoot),
            "mean": lambda: scene_losses.mean(small, small_target),
            "roughness": lambda: scene_losses.roughness(sight.grid),
        }
        weights = asdict(self.recipe.losses)
        return {name: weights[name] * found[name]() for name in self.loss_names()}

    def _place(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Where the step's crops lie: in all of its scenes at the same place."""
        random = torch.Generator().manual_seed(self.steps_done)
        rows, columns = (
            int(torch.randint((side - self.recipe.crop) // ALIGNED + 1, (), generator=random)) * ALIGNED
            for side in size
        )
        return rows, columns

    def metadata(self) -> dict[str, str]:
        return {}
