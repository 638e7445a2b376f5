"""The training task of SCI: the cascade of stages and its losses."""

from collections.abc import Mapping
from dataclasses import asdict

import torch.nn.functional as F
from torch import Tensor, nn

from fastllie.models.sci import SCI
from fastllie.ops.smoothness import smoothness_loss
from fastllie.training import losses
from fastllie.training.data import Batch
from fastllie.training.parallel import Parallel
from fastllie.training.recipes import SCIRecipe
from fastllie.training.task import ALONE, NetworkTask


class SCITask(NetworkTask):
    """Trains SCI by a recipe; `total_steps` is where a cosine schedule ends.

    The network's first weights are drawn from PyTorch's global generator.

    Args:
        steps_per_epoch: Steps in a pass over the photographs, which `freeze_bn_after` counts.
        network: To train instead of the recipe's own, say `SCI(block=module, calibrate=True)` with an
            illumination module of yours.
    """

    def __init__(
        self,
        recipe: SCIRecipe,
        total_steps: int,
        steps_per_epoch: int,
        network: SCI | None = None,
        parallel: Parallel = ALONE,
    ):
        self.recipe = recipe
        self._frozen_from = recipe.freeze_bn_after_steps
        if recipe.freeze_bn_after is not None:
            self._frozen_from = recipe.freeze_bn_after * steps_per_epoch
        super().__init__(build(recipe) if network is None else network, recipe, total_steps, parallel)

    @property
    def static(self) -> bool:
        return self._frozen_from is None

    def loss_names(self) -> list[str]:
        return [name for name, weight in asdict(self.recipe.losses).items() if weight]

    def losses_of(self, batch: Batch) -> dict[str, Tensor]:
        recipe = self.recipe
        # batch norm is all that the mode changes
        self.network.train(self._frozen_from is None or self.steps_done < self._frozen_from)
        with self.autocast():
            stages = self.network.stages(batch.x, recipe.stages, calibrate_last=recipe.calibrate_last)
        functions = {
            "fidelity": lambda v, illum, r: F.mse_loss(illum, v),
            "smoothness": lambda v, illum, r: smoothness_loss(
                illum, v, sigma=recipe.sigma, color=recipe.color, norm=recipe.norm
            ),
            "grey_illumination": lambda v, illum, r: losses.grey_illumination(illum),
            "exposure": lambda v, illum, r: losses.exposure(r, recipe.exposure_level),
            "reconstruction": lambda v, illum, r: losses.reconstruction(r, batch.target),
            "scaled_reconstruction": lambda v, illum, r: losses.scaled_reconstruction(r, batch.target),
            "dissimilarity": lambda v, illum, r: losses.dissimilarity(r, batch.target),
        }
        weights = asdict(recipe.losses)
        every_stage = list(zip(stages.inputs, stages.illum, stages.enhanced, strict=True))
        return {
            name: weights[name] * sum(loss(*stage) for stage in every_stage)
            for name, loss in functions.items()
            if weights[name]
        }

    def start_from(self, state: Mapping[str, Tensor]) -> None:
        """As of every task; the calibration is left out where it is not needed, and drawn where absent."""
        mine = self.network.state_dict()
        taken = {key: value for key, value in state.items() if key in mine or key.startswith("enhance.")}
        drawn = {key: value for key, value in mine.items() if key.startswith("calibrate.")}
        super().start_from({**drawn, **taken})

    def metadata(self) -> dict[str, str]:
        return {**super().metadata(), "blocks": str(self.network.blocks)}


def build(recipe: SCIRecipe) -> SCI:
    """The recipe's network with fresh weights, in training mode."""
    network = SCI(
        block=recipe.block,
        blocks=recipe.blocks,
        channels=recipe.channels,
        padding=recipe.padding,
        calibrate=recipe.stages > 1 or recipe.calibrate_last,
    )
    if recipe.normal_init is None:
        return network
    # in the published order, so that a seed draws the published start
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, recipe.normal_init)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, recipe.normal_init)
    return network
