"""The rows of EnlightenGAN's and NeRCo's tables: narrow networks, with parts left out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import quality_sets
import torch
import torch.nn.functional as F
from papers_runs import SEED, Pictures, Row, Scores
from torch import Tensor, nn

from fastllie.models.enlightengan import EnlightenGAN, Generated
from fastllie.models.logits import half_logits
from fastllie.training import data
from fastllie.training.data import Batch
from fastllie.training.data.synthesis import linear, srgb
from fastllie.training.enlightengan import EnlightenGANTask
from fastllie.training.nerco import NeRCoTask
from fastllie.training.recipes import (
    ENLIGHTENGAN_PUBLISHED,
    NERCO_PUBLISHED,
    NeRCoLossWeights,
    NeRCoRecipe,
    PairWeights,
    Scenes,
    Synthesis,
)
from fastllie.training.task import NetworkTask

ENLIGHTEN = "EnlightenGAN"
UNATTENDED = "EnlightenGAN without attention map"
UNDISPUTED = "EnlightenGAN without local discriminator"
REPRESENTED = "NeRCo"
UNREPRESENTED = "NeRCo without normalisation"
UNMASKED = "NeRCo without mask"
UNREAD = "NeRCo without text loss"
EDGES = {"sobel": "NeRCo, Sobel", "laplacian4": "NeRCo, Laplacian"}
WIDTHS = (4, 8, 16, 32)
READER_STEPS = 120
DARKER = (-2.0, -3.0, -4.0)  # stops

# narrow, and with losses of our own beside the published ones, as the weights that ship were made: in minutes
# the published ones alone brighten nothing
FRAMES = Synthesis(exposures=(-6.5, -0.7), bright_share=0.1, mixed_share=0.1, curved_share=0.5)
SHORT: dict[str, Any] = {
    "in_logits": True,
    "discriminator_width": 16,
    "discriminator_rate": 0.5,
    "size": 96,
    "epochs": None,
    "steps": 200,
    "decay": "schedule",
    "schedule": "linear",
    "warmup": 20,
    "average": 0.98,
    "learning_rate": 7e-4,
    "precision": "float32",
    "synthesis": FRAMES,
}
SMALL_ENLIGHTENGAN = replace(
    ENLIGHTENGAN_PUBLISHED,
    **SHORT,
    width=8,
    patches=3,
    batch=4,
    hold=0.2,
    features=0.2,
    chroma=60.0,
    contrast=10.0,
    overshoot=20.0,
    dimness=10.0,
    identity=0.5,
    dark_share=0.0,
)
SMALL_NERCO = replace(
    NERCO_PUBLISHED,
    **SHORT,
    width=8,
    blocks=3,
    pre_blocks=2,
    mask_blocks=1,
    squeeze=None,
    batch=2,
    hold=0.5,
    text_loss="clip",
    losses=NeRCoLossWeights(
        cycle=1.0,
        identity=1.0,
        chroma=60.0,
        contrast=10.0,
        overshoot=20.0,
        dimness=30.0,
        gain_smoothness=10.0,
    ),
)
# all widths alike, with the blocks of the weights that ship. By pairs alone: adversarial losses would take
# longer than a row is trained to tell widths apart
PAIRED_NERCO = replace(
    NERCO_PUBLISHED,
    **SHORT
    | {
        "schedule": "cosine",
        "average": 0.97,
        "learning_rate": 1e-3,
        "synthesis": Scenes(size=(192, 288)),
    },
    blocks=6,
    pre_blocks=3,
    mask_blocks=2,
    squeeze=None,
    batch=4,
    betas=(0.9, 0.99),
    clip=1.0,
    pairs=PairWeights(
        difference=1.5, matched_difference=0.6, structure=0.3, chroma=0.8, overshoot=1.5, mean=0.7
    ),
    judged_from=1.0,
)


def of_width(width: int) -> str:
    return f"NeRCo, width {width}"


# --- EnlightenGAN


class EvenlyAttentive(nn.Module):
    """The generator with an attention map that is one everywhere."""

    def __init__(self, network: EnlightenGAN):
        super().__init__()
        self.network = network

    def generate(self, v: Tensor, logits: Tensor | None = None) -> Generated:
        return self.network.generate(v, torch.ones_like(v[:, :1]), logits)

    def forward(self, x: Tensor) -> Tensor:
        logits = half_logits(x) if self.network.in_logits else None
        return ((self.generate(2 * x - 1, logits).image + 1) / 2).clamp(0, 1)


class UnattendedTask(EnlightenGANTask):
    """Trains without the attention map."""

    def generate(self, batch: Batch) -> Generated:
        v = 2 * batch.x - 1
        if self.recipe.identity and batch.normal is not None:
            v = torch.cat([v, 2 * batch.normal - 1])
        with self.autocast():
            return EvenlyAttentive(self.network).generate(v)

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        with super().averaged() as network:
            yield EvenlyAttentive(network)


class UndisputedTask(EnlightenGANTask):
    """Trains without what the local discriminator says; it learns, and nobody listens."""

    def _generator_losses(self, batch: Batch, faces: Any) -> dict[str, Tensor]:
        found = super()._generator_losses(batch, faces)
        return {**found, "local": torch.zeros(())}


def enlightengan_rows(vgg: Path) -> list[Row]:
    recipe = replace(SMALL_ENLIGHTENGAN, vgg=str(vgg))
    kinds: dict[str, type[EnlightenGANTask]] = {
        ENLIGHTEN: EnlightenGANTask,
        UNATTENDED: UnattendedTask,
        UNDISPUTED: UndisputedTask,
    }

    def learner(kind: type[EnlightenGANTask]) -> Any:
        return lambda recipe, epoch: kind(recipe, recipe.steps, epoch)

    return [Row(name, recipe, learner(kind)) for name, kind in kinds.items()]


# --- NeRCo


class Unrepresented(nn.Module):
    """In the place of the neural representation: the image itself."""

    def forward(self, v: Tensor) -> Tensor:
        return _leaf(v)


class Unmasked(nn.Module):
    """In the place of the mask extractor: no residual, and a mask of ones."""

    def forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return _leaf(torch.zeros_like(v)), _leaf(torch.ones_like(v[:, :1]))


def _leaf(v: Tensor) -> Tensor:
    """The same, where the losses' gradients may end."""
    return v.detach().requires_grad_() if torch.is_grad_enabled() else v


class LightReader(nn.Module):
    """In the place of CLIP: tells images of dark from those of normal light."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 12, 5, 2, 2), nn.ReLU(), nn.Conv2d(12, 24, 5, 2, 2), nn.ReLU(), nn.Flatten(2)
        )
        self.last = nn.Linear(24, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.layers(images).mean(2))


@cache
def trained_reader(shared: Path, work: Path) -> LightReader:
    """A reader that has learned from the frames that the networks learn from."""
    pictures = Pictures(shared, work)
    source = data.open_source(
        pictures.collection(), SMALL_NERCO, SEED + 1, cache=work / "cache", device=torch.device("cpu")
    )
    torch.manual_seed(SEED)
    reader = LightReader()
    optimizer = torch.optim.Adam(reader.parameters(), 3e-3)
    for step in range(READER_STEPS):
        batch = source.batch(step)
        assert batch.normal is not None
        images = torch.cat([batch.x, batch.normal]) * 2 - 1
        labels = torch.arange(2).repeat_interleave(len(batch.x))
        optimizer.zero_grad()
        F.cross_entropy(reader(images), labels).backward()
        optimizer.step()
    return reader.requires_grad_(False)


def exposure_spread(network: nn.Module, pictures: Pictures) -> Scores:
    """How far the results of one scene at several exposures differ in brightness."""
    enhance = quality_sets.enhancer(network)
    spreads = []
    for _, high in list(pictures.pairs())[::4]:
        light = linear(torch.from_numpy(np.rint(high * 255).astype(np.uint8)))
        means = []
        for stops in DARKER:
            dark = srgb(light * 2**stops)
            means.append(enhance(quality_sets.rounded(dark.double().numpy())).mean())
        spreads.append(np.std(means))
    return {"spread": float(np.mean(spreads))}


def fitted(task: NeRCoTask) -> NeRCoTask:
    """The task after parts of its network were replaced: its average has no others."""
    kept = task.network.state_dict()
    task.average = {name: value for name, value in task.average.items() if name in kept}
    return task


def nerco_rows(pictures: Pictures) -> list[Row]:
    def task(recipe: NeRCoRecipe, epoch: int) -> NeRCoTask:
        reader = trained_reader(pictures.shared, pictures.work) if recipe.text_loss else None
        # the reader must not decide which weights are drawn
        torch.manual_seed(SEED)
        return NeRCoTask(recipe, recipe.steps or 1, epoch, reader=reader)

    def unrepresented(recipe: NeRCoRecipe, epoch: int) -> NetworkTask:
        made = task(recipe, epoch)
        made.network.Pre = Unrepresented()
        return fitted(made)

    def unmasked(recipe: NeRCoRecipe, epoch: int) -> NetworkTask:
        made = task(recipe, epoch)
        made.network.H = Unmasked()
        return fitted(made)

    small = SMALL_NERCO
    weights = small.losses
    unrepresentative = replace(weights, representation=0.0, adversarial_representation=0.0)
    found = [
        Row(REPRESENTED, small, task),
        Row(
            UNREPRESENTED,
            replace(small, losses=unrepresentative),
            unrepresented,
            what="the image itself in the representation's place",
        ),
        Row(UNMASKED, replace(small, losses=replace(weights, residual=0.0)), unmasked, what="a mask of ones"),
        Row(UNREAD, replace(small, text_loss=None), task),
        *(Row(name, replace(small, edge=edge), task) for edge, name in EDGES.items()),
    ]
    return [replace(row, more=(exposure_spread,)) for row in found]


def width_rows() -> list[Row]:
    def learner(recipe: NeRCoRecipe, epoch: int) -> NeRCoTask:
        return NeRCoTask(recipe, recipe.steps or 1, epoch)

    return [Row(of_width(width), replace(PAIRED_NERCO, width=width), learner) for width in WIDTHS]


def rows(pictures: Pictures) -> list[Row]:
    vgg = pictures.shared / "weights" / "vgg16" / "vgg16_features_fp16.npz"
    return enlightengan_rows(vgg) + nerco_rows(pictures) + width_rows()
