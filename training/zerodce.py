"""The training task of Zero-DCE and Zero-DCE++: the network and its losses."""

from dataclasses import asdict

from torch import Tensor, nn

from fastllie.models.zerodce import STEPS, ZeroDCE, ZeroDCEPlusPlus
from fastllie.ops.curve import apply_curve
from fastllie.training import losses
from fastllie.training.data import Batch
from fastllie.training.recipes import Recipe
from fastllie.training.task import NetworkTask


class CurveTask(NetworkTask):
    """Trains a curve network by a recipe; `total_steps` is where a cosine schedule ends.

    The network's first weights are drawn from PyTorch's global generator.

    Raises:
        ValueError: a recipe that is not for Zero-DCE or Zero-DCE++.
    """

    def __init__(self, recipe: Recipe, total_steps: int):
        super().__init__(build(recipe), recipe, total_steps)
        self.recipe = recipe

    def losses_of(self, batch: Batch) -> dict[str, Tensor]:
        if isinstance(self.network, ZeroDCEPlusPlus):
            self.network.scale = self.recipe.scales[self.steps_done % len(self.recipe.scales)]
        alpha = self.network.curve_maps(batch.x)
        y = apply_curve(batch.x, alpha, steps=STEPS)
        level = self.recipe.exposure_level
        functions = {
            "map_smoothness": lambda: losses.map_smoothness(alpha),
            "spatial_consistency": lambda: losses.spatial_consistency(y, batch.x),
            "colour_constancy": lambda: losses.colour_constancy(y),
            "exposure": lambda: losses.exposure(y, level),
            "reconstruction": lambda: losses.reconstruction(y, batch.target),
            "scaled_reconstruction": lambda: losses.scaled_reconstruction(y, batch.target),
            "dissimilarity": lambda: losses.dissimilarity(y, batch.target),
        }
        weights = asdict(self.recipe.losses)
        return {name: weights[name] * loss() for name, loss in functions.items() if weights[name]}


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
