"""The training task of EnlightenGAN: a generator between two discriminators and its own input's features."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastllie.checkpoint.enlightengan import SAID
from fastllie.models.enlightengan import Discriminator, EnlightenGAN, Generated, attention
from fastllie.training.adversarial import AdversarialTask, signed
from fastllie.training.data import Batch
from fastllie.training.losses.adversarial import feature_distance, full, least_squares, relativistic
from fastllie.training.losses.consistency import CONSISTENCIES
from fastllie.training.losses.vgg import VGG16, load_vgg
from fastllie.training.parallel import Parallel
from fastllie.training.recipes import EnlightenGANRecipe
from fastllie.training.task import ALONE

TITLE = "EnlightenGAN"
GLOBAL_LAYERS, LOCAL_LAYERS = 5, 4
# standard deviation of the convolution and batch norm weights at the start
INITIAL = 0.02

GENERATOR_LOSSES = ("global", "local", "features", "patch_features")
CONSISTENT = ("chroma", "contrast", "overshoot", "dimness")
DISCRIMINATOR_LOSSES = ("global_discriminator", "local_discriminator")


class _Faces(NamedTuple):
    """What the losses of one part of a batch are made of; images in [-1, 1]."""

    fake: Tensor  # what the generator made of the dark images
    kept: Tensor | None  # and of the normal ones, where the recipe shows them to it
    real_map: Tensor
    fake_map: Tensor
    real_patch_map: Tensor
    fake_patch_map: Tensor


class EnlightenGANTask(AdversarialTask):
    """Trains EnlightenGAN by a recipe.

    Generator: relativistic average least squares against the global discriminator, least squares against the
    local one on patches, and the distance of the features of image and input (self feature preserving).
    Generator and discriminators see the same images: both losses depend on one pass through the
    discriminators, and all patches go through theirs as one batch.

    All first weights are drawn from PyTorch's global generator.

    Args:
        steps_per_epoch: Steps in a pass, which the schedule counts.
        vgg: Instead of the weights that the recipe names.
    """

    def __init__(
        self,
        recipe: EnlightenGANRecipe,
        total_steps: int,
        steps_per_epoch: int,
        *,
        vgg: VGG16 | None = None,
        parallel: Parallel = ALONE,
    ):
        self.recipe = recipe
        network = build(recipe)
        judges = {
            name: Discriminator(layers, width=recipe.discriminator_width)
            for name, layers in (("global", GLOBAL_LAYERS), ("local", LOCAL_LAYERS))
        }
        for judge in judges.values():
            judge.apply(_initialise)
        vgg = load_vgg(recipe.vgg) if vgg is None else vgg
        super().__init__(network, judges, recipe, total_steps, steps_per_epoch, parallel)
        self.vgg: Any = self.placed(vgg)

    def loss_names(self) -> list[str]:
        ours = [name for name in (*CONSISTENT, "identity") if getattr(self.recipe, name)]
        return [*GENERATOR_LOSSES, *ours, *self.pair_names(), *DISCRIMINATOR_LOSSES]

    def slowed(self, done: int, passes: float) -> float:
        held = self.recipe.hold * passes
        beyond = max(0.0, done - held)
        if self.recipe.decay == "halving":
            return 0.5**beyond
        return 1 - beyond / (passes - held) if beyond else 1.0

    def offsets(self, height: int, width: int) -> list[tuple[int, int]]:
        """Top and left of this step's patches: the same ones for every image of the batch, fake and real.

        As published, the last place that is possible is never drawn.
        """
        random = np.random.default_rng((self._seed, self.steps_done))
        size = self.recipe.patch
        limits = [max(1, side - size) for side in (height, width)]
        return [
            (int(random.integers(limits[0])), int(random.integers(limits[1])))
            for _ in range(self.recipe.patches)
        ]

    def generate(self, batch: Batch) -> Generated:
        """The generator's images of the batch, by the mode that it is in.

        Where the recipe shows it the normal ones too, theirs come last.
        """
        v = 2 * batch.x - 1
        if self.recipe.identity:
            v = torch.cat([v, signed(batch, TITLE)[1]])
        with self.autocast():
            return self.network.generate(v, attention(v))

    def losses_of(self, batch: Batch) -> dict[str, Tensor]:
        """The generator's losses alone; their discriminators as they are."""
        made = full(self.generate(batch).image)
        if not self.judging:
            return self._pairs(batch, made)
        return self._generator_losses(batch, self._faces(batch, made))

    def _pairs(self, batch: Batch, made: Tensor) -> dict[str, Tensor]:
        return self.pair_losses((made[: len(batch.x)] + 1) / 2, batch.target, batch.x)

    def _faces(self, batch: Batch, made: Tensor) -> _Faces:
        normal = signed(batch, TITLE)[1]
        fake, kept = made[: len(batch.x)], made[len(batch.x) :]
        places = self.offsets(*fake.shape[-2:])
        judge, local = self.judges["global"], self.judges["local"]
        with self.autocast():
            maps = [full(judge(image)) for image in (normal, fake)]
            # one call for all patches: the mean over the patches' losses is that over all predictions
            maps += [full(local(self._patches(image, places))) for image in (normal, fake)]
        return _Faces(fake, kept if len(kept) else None, *maps)

    def _patches(self, images: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
        """All patches of all images, `[P * B, 3, S, S]`."""
        size = self.recipe.patch
        return torch.cat([images[..., top : top + size, left : left + size] for top, left in places])

    def _generator_losses(self, batch: Batch, faces: _Faces) -> dict[str, Tensor]:
        recipe, fake = self.recipe, faces.fake
        places = self.offsets(*fake.shape[-2:])
        losses = {
            "global": relativistic(faces.fake_map, faces.real_map.detach()),
            "local": least_squares(faces.fake_patch_map, 1.0),
        }
        given = 2 * (batch.x if batch.undarkened is None else batch.undarkened) - 1
        for name, ours, theirs in (
            ("features", fake, given),
            ("patch_features", self._patches(fake, places), self._patches(given, places)),
        ):
            with torch.no_grad(), self.autocast():
                wanted = self.vgg(theirs)
            with self.autocast():
                found = self.vgg(ours)
            losses[name] = recipe.features * feature_distance(full(found), full(wanted))
        y = (fake + 1) / 2
        for name in CONSISTENT:
            if getattr(recipe, name):
                losses[name] = getattr(recipe, name) * CONSISTENCIES[name](y, batch.x)
        if faces.kept is not None:
            losses["identity"] = recipe.identity * (faces.kept - signed(batch, TITLE)[1]).abs().mean() / 2
        return losses | self._pairs(batch, fake)

    def discriminator_losses(self, faces: _Faces) -> dict[str, Tensor]:
        """What each discriminator got wrong."""
        real, fake = faces.real_patch_map, faces.fake_patch_map
        return {
            "global_discriminator": relativistic(faces.real_map, faces.fake_map),
            "local_discriminator": (least_squares(real, 1.0) + least_squares(fake, 0.0)) / 2,
        }

    def backward_part(self, batch: Batch, share: float, first: int) -> dict[str, Tensor]:
        """As of every task, for three networks: the discriminators are those of before the step."""
        self.network.train()
        made = full(self.generate(batch).image)
        if not self.judging:
            values = self.alone(self._pairs(batch, made))
            self.scaler.scale(values["total"] * share).backward()
            return values
        # a leaf between the networks: the generator's gradient ends here, the discriminators' begins here
        leaf = made.detach().requires_grad_()
        faces = self._faces(batch, leaf)
        losses = self._generator_losses(batch, faces)
        total = torch.stack(list(losses.values())).sum()
        scaled = self.scaler.scale(total * share)
        (gradient,) = torch.autograd.grad(scaled, leaf, retain_graph=True)
        made.backward(gradient)
        theirs = self.discriminator_losses(faces)
        wrong = self.scaler.scale(torch.stack(list(theirs.values())).sum() * share)
        wrong.backward(inputs=list(self.judges.parameters()))
        return {"total": total, **losses, **theirs}

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        with super().averaged() as network:
            _scale(network.state_dict(), self.recipe.residual)
            yield network

    def stored(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.recipe.residual != 1:
            # its own memory: the average goes on as it is
            state = _scale({name: value.clone() for name, value in state.items()}, self.recipe.residual)
        return super().stored(state)

    def metadata(self) -> dict[str, str]:
        return {name: str(getattr(self.network, name)) for name in SAID}


def build(recipe: EnlightenGANRecipe) -> EnlightenGAN:
    """The recipe's generator with fresh weights, in training mode."""
    network = EnlightenGAN(width=recipe.width, **{name: getattr(recipe, name) for name in SAID})
    return network.apply(_initialise)


def _initialise(module: nn.Module) -> None:
    """As published: convolution weights N(0, 0.02) with PyTorch's biases, batch norm weights N(1, 0.02)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, INITIAL)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, INITIAL)


def _scale(state: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """Scale the residual in place: the last convolution has no activation."""
    for name in ("conv10.weight", "conv10.bias"):
        state[name].mul_(factor)
    return state
