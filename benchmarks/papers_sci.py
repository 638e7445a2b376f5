"""The rows of SCI's tables, and RUAS, whose illumination module SCI's scheme trains in one of them."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from papers_runs import Pictures, Row, Scores, tensor
from torch import Tensor, nn

from fastllie.models import SCI
from fastllie.models.sci import IlluminationModule, Stages, largest_of_four
from fastllie.ops.illumination import divide_illumination
from fastllie.ops.smoothness import smoothness_loss
from fastllie.training.data import Batch
from fastllie.training.recipes import SCI_RELEASED, SCIRecipe, Synthesis
from fastllie.training.sci import SCITask
from fastllie.training.task import NetworkTask

BLOCKS, CHANNELS = (1, 2, 3), (3, 8, 16)
STAGES_SHOWN = 5
CALIBRATED = "SCI, 1 block, 3 channels"
UNCALIBRATED = "SCI without calibration"
RUAS_FIDELITY = 0.5  # of the published loss

# the loss and the frozen batch norm that made the published files; frames as a camera takes them in the dark
SMALL = replace(
    SCI_RELEASED,
    size=96,
    batch=4,
    epochs=None,
    steps=250,
    learning_rate=3e-3,
    freeze_bn_after=None,
    freeze_bn_after_steps=80,
    synthesis=Synthesis(exposures=(-6.0, -1.0), bright_share=0.1, mixed_share=0.3),
)
# SGD, weight decay and clip as published
RUAS = replace(SMALL, stages=1, learning_rate=0.015, weight_decay=3e-4, clip=5.0)


class Uncalibrated(SCI):
    """The cascade as it is before the calibration: each stage takes the illumination of the one before."""

    def stages(self, y: Tensor, count: int = 3, *, calibrate_last: bool = False) -> Stages:
        found = Stages([], [], [], [])
        v = y
        for _ in range(count):
            illum, enhanced = self.stage(v, y)
            found.inputs.append(v)
            found.illum.append(illum)
            found.enhanced.append(enhanced)
            v = illum
        return found


class UnrolledRUAS(nn.Module):
    """RUAS's unrolled illumination (Liu et al., CVPR 2021): blocks in a row, each with weights of its own.

    t_0 = F(P(y)), t_k = F_k(P(u) - (u - y) / 2) with u = clamp(y / t_(k-1), 0, 1) and P the largest of four
    neighbours; the result is y / t of the last. The cell F is the one that the published search found.
    """

    def __init__(self, blocks: int):
        super().__init__()
        self.blocks = nn.ModuleList(IlluminationModule() for _ in range(blocks))
        self.padding = "zeros"

    def illumination(self, y: Tensor) -> Tensor:
        guess = largest_of_four(y)
        illum = y
        for place, block in enumerate(self.blocks):
            if place:
                u = divide_illumination(y, illum)
                guess = largest_of_four(u) - 0.5 * (u - y)
            cell: Any = block
            illum = torch.sigmoid(cell.cell(guess)).clamp(1e-3, 1.0)
        return illum

    def forward(self, y: Tensor) -> Tensor:
        return divide_illumination(y, self.illumination(y))


class RUASTask(NetworkTask):
    """RUAS's own training: fidelity of the last illumination, and its smoothness."""

    def __init__(self, recipe: SCIRecipe, blocks: int):
        super().__init__(UnrolledRUAS(blocks), recipe, recipe.steps or 1)
        self.optimizer: Any = torch.optim.SGD(
            self.network.parameters(), recipe.learning_rate, momentum=0.9, weight_decay=recipe.weight_decay
        )

    def loss_names(self) -> list[str]:
        return ["fidelity", "smoothness"]

    def losses_of(self, batch: Batch) -> dict[str, Tensor]:
        illum = self.network.illumination(batch.x)
        return {
            "fidelity": RUAS_FIDELITY * F.mse_loss(illum, batch.x),
            "smoothness": smoothness_loss(illum, batch.x, color="memory", norm="scalar"),
        }


def _sci(recipe: Any, epoch: int) -> NetworkTask:
    return SCITask(recipe, recipe.steps, epoch)


def _uncalibrated(recipe: Any, epoch: int) -> NetworkTask:
    return SCITask(recipe, recipe.steps, epoch, _drawn(Uncalibrated(padding=recipe.padding)))


def _drawn(network: SCI) -> SCI:
    """First weights as of every row of SCI."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, cast(float, SMALL.normal_init))
            nn.init.zeros_(cast(Tensor, module.bias))
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, cast(float, SMALL.normal_init))
    return network


def stage_distances(network: nn.Module, pictures: Pictures) -> Scores:
    """How far the result of each stage lies from that of the first, picture by picture, in levels."""
    cascade: Any = network
    apart = []
    for low, _ in pictures.pairs():
        with torch.inference_mode():
            results = cascade.stages(tensor(low), STAGES_SHOWN).enhanced
        apart.append([round(float(255 * (one - results[0]).abs().mean()), 3) for one in results[1:]])
    return {"stages": apart, "stage_distance": float(np.mean(apart))}


def named(blocks: int, channels: int) -> str:
    return f"SCI, {blocks} block{'s' if blocks > 1 else ''}, {channels} channels"


def rows() -> list[Row]:
    found = []
    for blocks in BLOCKS:
        for channels in CHANNELS:
            name = named(blocks, channels)
            more = (stage_distances,) if name == CALIBRATED else ()
            found.append(Row(name, replace(SMALL, blocks=blocks, channels=channels), _sci, more))
    found.append(
        Row(
            UNCALIBRATED,
            SMALL,
            _uncalibrated,
            (stage_distances,),
            "each stage takes the illumination of the one before",
        )
    )
    for blocks in (1, 3):
        found.append(
            Row(
                f"RUAS({blocks})",
                RUAS,
                lambda recipe, epoch, blocks=blocks: RUASTask(recipe, blocks),
                what="its own loss, SGD",
            )
        )
    found.append(
        Row(
            "RUAS(1) + SCI",
            replace(SMALL, block="ruas"),
            _sci,
            what="one block of RUAS as the basic block of SCI's cascade",
        )
    )
    return found
