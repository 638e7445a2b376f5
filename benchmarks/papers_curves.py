"""The rows of Zero-DCE's tables: losses left out, iterations of the curve, one map for all of them."""

from collections import defaultdict
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from papers_runs import Pictures, Row, Scores, tensor
from torch import Tensor, nn

from fastllie.models.zerodce import _CurveNetwork
from fastllie.ops.curve import apply_curve
from fastllie.ops.zero_reference import ZeroReferenceLosses, zero_reference_losses
from fastllie.training.data import Batch
from fastllie.training.recipes import ZERODCE_PUBLISHED, ZERODCEPP_PUBLISHED, LossWeights, Recipe, Synthesis
from fastllie.training.task import NetworkTask

ITERATIONS = 8
FULL = "Zero-DCE"
LOSSES = {
    "spatial_consistency": "spatial consistency",
    "exposure": "exposure",
    "colour_constancy": "colour constancy",
    "map_smoothness": "smoothness of the maps",
}
SHARED = "Zero-DCE, one map for all iterations"
SEPARABLE = "Zero-DCE++"

# published losses; exposures from deep night to what is over-exposed, as its stacks of exposures have them
SMALL = replace(
    ZERODCE_PUBLISHED,
    size=96,
    batch=4,
    epochs=None,
    steps=220,
    learning_rate=1e-3,
    precision="float32",
    synthesis=Synthesis(
        exposures=(-6.0, -0.5), bright_exposures=(-0.5, 1.0), bright_share=0.3, mixed_share=0.3
    ),
)


class Iterated(_CurveNetwork):
    """The curve network with so many iterations, and a map for each or one for all."""

    def __init__(self, iterations: int, *, shared: bool = False, separable: bool = False):
        super().__init__(3 if shared else 3 * iterations, separable, "zeros")
        self.iterations = iterations

    def forward(self, x: Tensor, cropped: bool = False) -> Tensor:
        return apply_curve(x, self.raw_maps(x), steps=self.iterations, tanh=True)


class CurvesTask(NetworkTask):
    """Trains a curve network of any number of iterations by the published losses."""

    def __init__(self, network: Iterated, recipe: Recipe):
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and recipe.normal_init is not None:
                nn.init.normal_(module.weight, 0.0, recipe.normal_init)
        self._weights = {name: value for name, value in asdict(recipe.losses).items() if value}
        self._level = recipe.exposure_level
        super().__init__(network, recipe, recipe.steps or 1)

    def loss_names(self) -> list[str]:
        return list(self._weights)

    def losses_of(self, batch: Batch) -> dict[str, Tensor]:
        found = judged(self.network, batch.x, self._level)._asdict()
        return {name: weight * found[name] for name, weight in self._weights.items()}


def judged(network: Any, x: Tensor, level: float) -> ZeroReferenceLosses:
    maps = network.raw_maps(x)
    return zero_reference_losses(x, maps, steps=network.iterations, tanh=True, level=level)


def own_losses(network: nn.Module, pictures: Pictures) -> Scores:
    """The four losses, unweighted, of every fourth dark picture of LOL."""
    sums: dict[str, list[float]] = defaultdict(list)
    for low, _ in list(pictures.pairs())[::4]:
        with torch.inference_mode():
            found = judged(network, tensor(low), SMALL.exposure_level)
        for name, value in found._asdict().items():
            sums[name].append(float(value))
    return {name: float(np.mean(values)) for name, values in sums.items()}


def _row(name: str, recipe: Recipe, what: str = "", **network: Any) -> Row:
    iterations = network.pop("iterations", ITERATIONS)

    def learner(recipe: Any, epoch: int) -> NetworkTask:
        return CurvesTask(Iterated(iterations, **network), recipe)

    return Row(name, recipe, learner, (own_losses,), what)


def without(loss: str) -> str:
    return f"Zero-DCE without {LOSSES[loss]}"


def iterated(count: int) -> str:
    return FULL if count == ITERATIONS else f"Zero-DCE, n = {count}"


def rows() -> list[Row]:
    found = [_row(FULL, SMALL)]
    for loss in LOSSES:
        weights: LossWeights = replace(SMALL.losses, **{loss: 0.0})
        found.append(_row(without(loss), replace(SMALL, losses=weights)))
    found += [_row(iterated(count), SMALL, iterations=count) for count in range(1, ITERATIONS)]
    found.append(_row(SHARED, SMALL, "the same convolutions, 3 maps instead of 24", shared=True))
    # its own weight of the smoothness, and PyTorch's first weights, as published
    separable = replace(SMALL, losses=ZERODCEPP_PUBLISHED.losses, normal_init=None)
    found.append(
        _row(SEPARABLE, separable, "depthwise separable convolutions too", shared=True, separable=True)
    )
    return found
