"""The training task of EnlightenGAN: a generator between two discriminators and its own input's features."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastllie.models.enlightengan import Discriminator, EnlightenGAN, Generated, attention
from fastllie.training.data import Batch
from fastllie.training.losses import chroma_consistency, contrast_consistency, dimness, overshoot
from fastllie.training.losses.adversarial import feature_distance, least_squares, relativistic
from fastllie.training.losses.vgg import VGG16, load_vgg
from fastllie.training.parallel import Parallel
from fastllie.training.recipes import EnlightenGANRecipe
from fastllie.training.task import ALONE, NetworkTask, make_optimizer

GLOBAL_LAYERS, LOCAL_LAYERS = 5, 4
# standard deviation of the convolution and batch norm weights at the start
INITIAL = 0.02

GENERATOR_LOSSES = ("global", "local", "features", "patch_features")
OUR_LOSSES = ("chroma", "contrast", "overshoot", "dimness", "identity")
DISCRIMINATOR_LOSSES = ("global_discriminator", "local_discriminator")


class _Faces(NamedTuple):
    """What the losses of one part of a batch are made of; images in [-1, 1]."""

    fake: Tensor  # what the generator made of the dark images
    kept: Tensor | None  # and of the normal ones, where the recipe shows them to it
    real_map: Tensor
    fake_map: Tensor
    real_patch_map: Tensor
    fake_patch_map: Tensor


class EnlightenGANTask(NetworkTask):
    """Trains EnlightenGAN by a recipe.

    Generator: relativistic average least squares against the global discriminator, least squares against the
    local one on patches, and the distance of the features of image and input (self feature preserving).
    Generator and discriminators see the same images: both losses hang on one pass through the
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
        self.steps_per_epoch = steps_per_epoch
        super().__init__(build(recipe), recipe, total_steps, parallel)
        layout: dict[str, Any] = {"device": parallel.device, "memory_format": torch.channels_last}
        self.judges: Any = nn.ModuleDict(
            {
                "global": Discriminator(GLOBAL_LAYERS, width=recipe.discriminator_width),
                "local": Discriminator(LOCAL_LAYERS, width=recipe.discriminator_width),
            }
        )
        self.judges.apply(_initialise)
        self.judges.to(**layout)
        self.vgg: Any = load_vgg(recipe.vgg) if vgg is None else vgg
        self.vgg.to(**layout)
        self.judges_optimizers = {
            name: make_optimizer(recipe, judge, parallel.device) for name, judge in self.judges.items()
        }
        # where the patches lie hangs on this and the step alone, so that a continued run repeats it
        self._seed = int(torch.randint(2**31, ()))

    @property
    def static(self) -> bool:
        # patches lie elsewhere in every step
        return False

    @property
    def comparable(self) -> bool:
        # a better discriminator makes the same images worth less
        return False

    def loss_names(self) -> list[str]:
        ours = [name for name in OUR_LOSSES if getattr(self.recipe, name)]
        return [*GENERATOR_LOSSES, *ours, *DISCRIMINATOR_LOSSES]

    def optimizers(self) -> Sequence[torch.optim.Optimizer]:
        return [self.optimizer, *self.judges_optimizers.values()]

    def rates(self) -> Sequence[float]:
        return [1.0, *(self.recipe.discriminator_rate for _ in self.judges_optimizers)]

    def networks(self) -> Sequence[nn.Module]:
        return [self.network, *self.judges.values()]

    def learning_rate(self) -> float:
        recipe = self.recipe
        if recipe.decay == "schedule":
            return super().learning_rate()
        # by whole passes, as published: the rate of a pass stays the same
        passes = self.total_steps / self.steps_per_epoch
        held = recipe.hold * passes
        beyond = max(0.0, self.steps_done // self.steps_per_epoch - held)
        if recipe.decay == "halving":
            return recipe.learning_rate * 0.5**beyond
        return recipe.learning_rate * (1 - beyond / (passes - held)) if beyond else recipe.learning_rate

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
            v = torch.cat([v, _normal(batch)])
        with self.autocast():
            return self.network.generate(v, attention(v))

    def losses_of(self, batch: Batch) -> dict[str, Tensor]:
        """The generator's losses alone; their discriminators as they are."""
        made = _full(self.generate(batch).image)
        return self._generator_losses(batch, self._faces(batch, made))

    def _faces(self, batch: Batch, made: Tensor) -> _Faces:
        normal = _normal(batch)
        fake, kept = made[: len(batch.x)], made[len(batch.x) :]
        if normal.shape != fake.shape:
            raise ValueError(
                f"dark and normal images must be of one shape, got {tuple(fake.shape)}, {tuple(normal.shape)}"
            )
        places = self.offsets(*fake.shape[-2:])
        judge, local = self.judges["global"], self.judges["local"]
        with self.autocast():
            maps = [_full(judge(image)) for image in (normal, fake)]
            # one call for all patches: the mean over the patches' losses is that over all predictions
            maps += [_full(local(self._patches(image, places))) for image in (normal, fake)]
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
            losses[name] = recipe.features * feature_distance(_full(found), _full(wanted))
        y = (fake + 1) / 2
        if recipe.chroma:
            losses["chroma"] = recipe.chroma * chroma_consistency(y, batch.x)
        if recipe.contrast:
            losses["contrast"] = recipe.contrast * contrast_consistency(y, batch.x)
        if recipe.overshoot:
            losses["overshoot"] = recipe.overshoot * overshoot(y, batch.x)
        if recipe.dimness:
            losses["dimness"] = recipe.dimness * dimness(y)
        if faces.kept is not None:
            losses["identity"] = recipe.identity * (faces.kept - _normal(batch)).abs().mean() / 2
        return losses

    def discriminator_losses(self, faces: _Faces) -> dict[str, Tensor]:
        """What each discriminator got wrong."""
        real, fake = faces.real_patch_map, faces.fake_patch_map
        return {
            "global_discriminator": relativistic(faces.real_map, faces.fake_map),
            "local_discriminator": (least_squares(real, 1.0) + least_squares(fake, 0.0)) / 2,
        }

    def backward(self, parts: Sequence[Batch], images: int | None = None) -> dict[str, Tensor]:
        """As of every task, for three networks: the discriminators are those of before the step."""
        count = sum(len(part.x) for part in parts) if images is None else images
        values: dict[str, Tensor] = {}
        self.network.train()
        for part in parts:
            if len(part.x) == 0:
                continue
            share = len(part.x) / count
            losses = self._backward_part(part, share)
            for name, value in losses.items():
                value = value.detach() * share
                values[name] = values[name] + value if name in values else value
        return self._over_processes(values)

    def _backward_part(self, batch: Batch, share: float) -> dict[str, Tensor]:
        made = _full(self.generate(batch).image)
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

    def result(self) -> dict[str, Tensor]:
        state = super().result()
        if self.recipe.residual != 1:
            # its own memory: the average goes on as it is
            state = _scale({name: value.clone() for name, value in state.items()}, self.recipe.residual)
        if self.recipe.stored_as == "float16":
            state = {
                name: value.half() if value.is_floating_point() else value for name, value in state.items()
            }
        return state

    def metadata(self) -> dict[str, str]:
        return {name: str(getattr(self.network, name)) for name in ("align_corners", "in_logits")}

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "judges": self.judges.state_dict(),
            "judges_optimizers": {
                name: optimizer.state_dict() for name, optimizer in self.judges_optimizers.items()
            },
            "seed": self._seed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.judges.load_state_dict(state["judges"])
        for name, optimizer in self.judges_optimizers.items():
            optimizer.load_state_dict(state["judges_optimizers"][name])
        self._seed = state["seed"]


def build(recipe: EnlightenGANRecipe) -> EnlightenGAN:
    """The recipe's generator with fresh weights, in training mode."""
    network = EnlightenGAN(width=recipe.width, align_corners=recipe.align_corners, in_logits=recipe.in_logits)
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


def _full(x: Tensor) -> Tensor:
    """In at least float32: what the losses compute in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _normal(batch: Batch) -> Tensor:
    if batch.normal is None:
        raise ValueError("EnlightenGAN needs photographs of normal light beside the dark ones")
    return 2 * batch.normal - 1
