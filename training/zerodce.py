"""The training task of Zero-DCE and Zero-DCE++: the network and its losses."""

from dataclasses import asdict

from torch import Tensor, nn

from fastllie.models.zerodce import STEPS, ZeroDCE, ZeroDCEPlusPlus
from fastllie.ops.curve import apply_curve
from fastllie.ops.zero_reference import ZeroReferenceLosses, zero_reference_losses
from fastllie.training import losses
from fastllie.training.data import Batch
from fastllie.training.parallel import Parallel
from fastllie.training.recipes import Recipe
from fastllie.training.task import ALONE, NetworkTask

# by their names in a recipe
PAIRED = {
    "reconstruction": losses.reconstruction,
    "scaled_reconstruction": losses.scaled_reconstruction,
    "dissimilarity": losses.dissimilarity,
}


class CurveTask(NetworkTask):
    """Trains a curve network by a recipe; `total_steps` is where a cosine schedule ends.

    The network's first weights are drawn from PyTorch's global generator.

    Raises:
        ValueError: a recipe that is not for Zero-DCE or Zero-DCE++.
    """

    def __init__(self, recipe: Recipe, total_steps: int, parallel: Parallel = ALONE):
        self.recipe = recipe
        super().__init__(build(recipe), recipe, total_steps, parallel)

    @property
    def static(self) -> bool:
        return len(self.recipe.scales) == 1

    def loss_names(self) -> list[str]:
        return [name for name, weight in asdict(self.recipe.losses).items() if weight]

    def losses_of(self, batch: Batch) -> dict[str, Tensor]:
        recipe = self.recipe
        if isinstance(self.network, ZeroDCEPlusPlus):
            self.network.scale = recipe.scales[self.steps_done % len(recipe.scales)]
        with self.autocast():
            maps, tanh = self.network.maps(batch.x)
        weights = asdict(recipe.losses)
        found: dict[str, Tensor] = {}
        if any(weights[name] for name in ZeroReferenceLosses._fields):
            found = zero_reference_losses(
                batch.x, maps, steps=STEPS, tanh=tanh, level=recipe.exposure_level
            )._asdict()
        if any(weights[name] for name in PAIRED):
            y = apply_curve(batch.x, maps, steps=STEPS, tanh=tanh)
            found |= {name: loss(y, batch.target) for name, loss in PAIRED.items() if weights[name]}
        return {name: weights[name] * found[name] for name in self.loss_names()}


def build(recipe: Recipe) -> ZeroDCE | ZeroDCEPlusPlus:
    """The recipe's network with fresh weights, in training mode."""
    if recipe.method == "zerodce":
        network: ZeroDCE | ZeroDCEPlusPlus = ZeroDCE(padding=recipe.padding)
    elif recipe.method == "zerodce++":
        network = ZeroDCEPlusPlus(padding=recipe.padding)
    else:
        raise ValueError(f"method must be 'zerodce' or 'zerodce++', got {recipe.method!r}")
    if recipe.normal_init is not None:
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, recipe.normal_init)
    return network
