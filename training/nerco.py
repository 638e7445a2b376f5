"""The training task of NeRCo: two generators in a closed loop, four discriminators, and CLIP where asked."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastllie.models.logits import half_logits
from fastllie.models.nerco import Discriminator, Generator, NeRCo, edge_map
from fastllie.models.nerco.edges import random_colour
from fastllie.training.data import Batch
from fastllie.training.losses import (
    chroma_consistency,
    contrast_consistency,
    dimness,
    gain_smoothness,
    overshoot,
)
from fastllie.training.losses.adversarial import verdict
from fastllie.training.losses.clip import Reader, load_reader, text_loss
from fastllie.training.losses.pool import Pool
from fastllie.training.parallel import Parallel
from fastllie.training.recipes import NeRCoRecipe
from fastllie.training.task import ALONE, NetworkTask, make_optimizer

# discriminators of normal and of dark images, and of the edges of both
JUDGES = ("normal", "dark", "normal_edge", "dark_edge")
# what each pool holds: kinds of images, in the order of their random numbers
POOLS = ("enhanced", "darkened", "represented", "enhanced_edge", "darkened_edge")
# what the enhanced image keeps of its input, by our own losses
CONSISTENCIES = {
    "chroma": chroma_consistency,
    "contrast": contrast_consistency,
    "overshoot": overshoot,
    "dimness": lambda y, x: dimness(y),
    "gain_smoothness": gain_smoothness,
}
# the four calls that colour edges, in the order of their random numbers
_COLOURED = ("normal", "enhanced", "dark", "darkened")
_POOL_DRAWS, _COLOURS = 1, 2


class Scene(NamedTuple):
    """The images that the losses are made of, `[B, 3, H, W]` in [-1, 1], float32 at least."""

    dark: Tensor  # A
    normal: Tensor  # B
    represented: Tensor  # Pre(A), unbounded
    residual: Tensor  # of H(A)
    enhanced: Tensor  # G_A of A
    darkened: Tensor  # G_B of B


class Cut:
    """Where the backward pass waits: tensors, and leaves in float32 at least that stand for them.

    What hangs on the leaves goes backward into their gradients; `backward` sends those on.
    """

    def __init__(self, *made: Tensor):
        self._made = [_full(tensor) for tensor in made]
        self.leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in self._made]

    def backward(self, inputs: Sequence[Tensor]) -> None:
        pairs = [(made, leaf.grad) for made, leaf in zip(self._made, self.leaves, strict=True)]
        used = [(made, grad) for made, grad in pairs if grad is not None]
        if used:
            tensors, gradients = zip(*used, strict=True)
            torch.autograd.backward(tensors, gradients, inputs=inputs)


class Group(NamedTuple):
    """Losses that hang on passes of their own.

    Attributes:
        losses: The generators', weighted.
        judges: The discriminators' of the same images; they hang on passes that the generators' may share.
    """

    losses: dict[str, Tensor]
    judges: dict[str, Tensor]


class NeRCoTask(NetworkTask):
    """Trains NeRCo by a recipe.

    With A dark and B normal: pre = Pre(A); h, mask = H(A); the enhanced image G_A(cat(A, pre) * mask), the
    darkened one G_B(B * mask). Each goes back (the darkened one with a representation of its own), four
    discriminators look at them, and images that are as they should be are to stay so.

    The losses are the published ones, their passes are not kept together: pre, h, mask and both images are
    leaves, behind which each group of losses goes backward by itself and is forgotten. Where a discriminator
    is shown an image of this step both sides' losses share its pass.

    All first weights are drawn from PyTorch's global generator.

    Args:
        steps_per_epoch: Steps in a pass, which the schedule counts.
        reader: What reads images for the text loss, instead of what the recipe names.

    Raises:
        ValueError: losses that all have weight zero.
        FileNotFoundError, ImportError: a text loss without the weights that it needs, see `load_reader`.
    """

    def __init__(
        self,
        recipe: NeRCoRecipe,
        total_steps: int,
        steps_per_epoch: int,
        *,
        reader: Reader | None = None,
        parallel: Parallel = ALONE,
    ):
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        if not self._maker_names():
            raise ValueError(f"all losses of nerco have weight zero: {recipe.losses}")
        super().__init__(build(recipe), recipe, total_steps, parallel)
        layout: dict[str, Any] = {"device": parallel.device, "memory_format": torch.channels_last}
        self.darkener: Any = Generator(3, width=recipe.width, blocks=recipe.blocks).to(**layout)
        self.judges: Any = nn.ModuleDict({name: _judge(recipe) for name in JUDGES}).to(**layout)
        # one step for all that make images, one for all that judge them
        self._makers = nn.ModuleDict({"network": self.network, "darkener": self.darkener})
        self.optimizer = make_optimizer(recipe, self._makers, parallel.device)
        self.judges_optimizer = make_optimizer(recipe, self.judges, parallel.device)
        self.reader = reader if recipe.text_loss is not None else None
        if recipe.text_loss is not None and reader is None:
            self.reader = load_reader(
                recipe.clip_weights,
                preprocess=recipe.clip_preprocess,
                prompts=recipe.prompts,
                text_features=recipe.text_features,
            )
        if isinstance(self.reader, nn.Module):
            self.reader.to(parallel.device)
        asked = {name: self._judged("normal_edge" if name.endswith("edge") else "dark") for name in POOLS}
        self.pools = {name: Pool(recipe.pool if asked[name] else 0) for name in POOLS}
        # what a discriminator is shown and how its edges are coloured hang on this and the step alone, so
        # that a continued run repeats it
        self._seed = int(torch.randint(2**31, ()))

    @property
    def static(self) -> bool:
        # pools show other images in every step
        return False

    @property
    def comparable(self) -> bool:
        # a better discriminator makes the same images worth less
        return False

    def loss_names(self) -> list[str]:
        return [*self._maker_names(), *self._judge_names()]

    def _maker_names(self) -> list[str]:
        weights, text = self.recipe.losses, self.recipe.text_loss is not None
        found = []
        for name, wanted in (
            ("adversarial", weights.adversarial),
            ("edge", weights.edge),
            ("cycle", weights.cycle),
            ("identity", weights.identity),
            ("text", text and weights.text),
        ):
            found += [f"{name}_normal", f"{name}_dark"] if wanted else []
        if weights.representation or weights.adversarial_representation:
            found.append("representation")
        if weights.residual:
            found.append("residual")
        return [*found, *(name for name in CONSISTENCIES if getattr(weights, name))]

    def _judge_names(self) -> list[str]:
        return [f"{name}_discriminator" for name in JUDGES if self._judged(name)]

    def _judged(self, judge: str) -> bool:
        """Whether this discriminator is trained: a loss that goes with its own asks it."""
        weights = self.recipe.losses
        if judge.endswith("edge"):
            return bool(weights.edge)
        return bool(weights.adversarial or (judge == "dark" and weights.adversarial_representation))

    def optimizers(self) -> Sequence[torch.optim.Optimizer]:
        return [self.optimizer, self.judges_optimizer][: len(self.networks())]

    def rates(self) -> Sequence[float]:
        return [1.0, self.recipe.discriminator_rate][: len(self.networks())]

    def networks(self) -> Sequence[nn.Module]:
        return [self._makers, self.judges] if self._judge_names() else [self._makers]

    def learning_rate(self) -> float:
        recipe = self.recipe
        if recipe.decay == "schedule":
            return super().learning_rate()
        # by whole passes, as published: decay begins one early and ends at zero in the last; the first pass
        # of a short run is never slowed
        passes = self.total_steps / self.steps_per_epoch
        held = max(2.0, recipe.hold * passes)
        number = self.steps_done // self.steps_per_epoch + 1
        return recipe.learning_rate * max(0.0, 1 - max(0.0, number + 1 - held) / max(1.0, passes - held + 1))

    # --- the images

    def scene(self, dark: Tensor, normal: Tensor) -> tuple[Scene, list[Cut]]:
        """The images of a step, cut off from what made them, and the two cuts: the later one first."""
        with self.autocast():
            first = Cut(self.network.Pre(dark), *self.network.H(dark))
            represented, residual, mask = first.leaves
            enhanced = self.network.G_A(torch.cat([dark, represented], 1) * mask, self._logits(dark))
            # with the mask of the other image, as published
            second = Cut(enhanced, self.darkener(normal * mask, self._logits(normal)))
        return Scene(dark, normal, represented, residual, *second.leaves), [second, first]

    def _enhance(self, first: Tensor, second: Tensor) -> Tensor:
        """Without a mask."""
        with self.autocast():
            return _full(self.network.G_A(torch.cat([first, second], 1), self._logits(first)))

    def _darken(self, image: Tensor) -> Tensor:
        with self.autocast():
            return _full(self.darkener(image, self._logits(image)))

    def _logits(self, image: Tensor) -> Tensor | None:
        """What both generators start from; nothing as published."""
        return half_logits((image + 1) / 2) if self.recipe.in_logits else None

    def _judge(self, name: str, image: Tensor) -> Tensor:
        with self.autocast():
            return _full(self.judges[name](image))

    # --- the losses

    def groups(self, scene: Scene, places: Mapping[str, Sequence[int | None]] | None) -> Iterator[Group]:
        """All losses, group after group: what one hangs on may be gone when the next is made.

        Args:
            places: What the pools show, see `Pool.draws`; None leaves the discriminators' losses out.
        """
        weights = self.recipe.losses
        yield from self._identities(scene)
        yield from self._cycles(scene)
        if weights.residual:
            yield from self._residuals(scene)
        yield from self._consistencies(scene)
        yield from self._judgements(scene, places)
        if weights.edge:
            yield from self._edges(scene, places)

    def _identities(self, scene: Scene) -> Iterator[Group]:
        weight = self.recipe.losses.identity
        if weight:
            kept = self._enhance(scene.normal, scene.normal)
            yield Group({"identity_normal": weight * _distance(kept, scene.normal)}, {})
            del kept
            yield Group({"identity_dark": weight * _distance(self._darken(scene.dark), scene.dark)}, {})

    def _cycles(self, scene: Scene) -> Iterator[Group]:
        weights = self.recipe.losses
        reader = self.reader if weights.text else None
        if weights.cycle or reader is not None:
            back = self._darken(scene.enhanced)
            found = {"cycle_dark": weights.cycle * _distance(back, scene.dark)} if weights.cycle else {}
            if reader is not None:
                found["text_dark"] = self._read(back, reader, bright=False)
            yield Group(found, {})
            with self.autocast():
                represented = _full(self.network.Pre(scene.darkened))
            back = self._enhance(scene.darkened, represented)
            found = {"cycle_normal": weights.cycle * _distance(back, scene.normal)} if weights.cycle else {}
            if reader is not None:
                found["text_normal"] = self._read(back, reader, bright=True)
            yield Group(found, {})
        if reader is not None:
            yield Group({"text_normal": self._read(scene.enhanced, reader, bright=True)}, {})
            yield Group({"text_dark": self._read(scene.darkened, reader, bright=False)}, {})

    def _read(self, image: Tensor, reader: Reader, *, bright: bool) -> Tensor:
        trains = torch.is_grad_enabled() and self.recipe.text_loss == "clip"
        # small: nothing to gain from fewer bits
        with torch.set_grad_enabled(trains), torch.autocast(self.parallel.device.type, enabled=False):
            return self.recipe.losses.text * text_loss(reader(image), bright=bright)

    def _residuals(self, scene: Scene) -> Iterator[Group]:
        """The six terms of the mask extractor's residual h: A + h is to look enhanced, B - h darkened."""
        weight, gan = self.recipe.losses.residual, self.recipe.gan
        brighter, dimmer = scene.dark + scene.residual, scene.normal - scene.residual
        found = _distance(scene.enhanced, brighter) + _distance(scene.residual, scene.enhanced - scene.dark)
        yield Group({"residual": weight * found}, {})
        yield Group({"residual": weight * _distance(scene.normal, self._enhance(dimmer, dimmer))}, {})
        with self.autocast():
            features = self.network.H.features(scene.darkened)
            residual = _full(self.network.H.residual_of(features))
        del features
        yield Group({"residual": weight * _distance(scene.darkened, scene.normal - residual)}, {})
        del residual
        for name, image in (("normal", brighter), ("dark", dimmer)):
            if self._judged(name):
                yield Group({"residual": weight * verdict(self._judge(name, image), True, gan)}, {})

    def _consistencies(self, scene: Scene) -> Iterator[Group]:
        for name, loss in CONSISTENCIES.items():
            weight = getattr(self.recipe.losses, name)
            if weight:
                yield Group({name: weight * loss((scene.enhanced + 1) / 2, (scene.dark + 1) / 2)}, {})

    def _judgements(self, scene: Scene, places: Mapping[str, Sequence[int | None]] | None) -> Iterator[Group]:
        """Before the discriminators of images."""
        weights = self.recipe.losses
        for judge, kind, real in (
            ("normal", "enhanced", scene.normal),
            ("dark", "darkened", scene.dark),
            ("dark", "represented", scene.dark),
        ):
            image: Tensor = getattr(scene, kind)
            repeated = weights.adversarial_representation if kind == "represented" else 0.0
            if not weights.adversarial and not repeated:
                continue
            view = self._judge(judge, image)
            convincing = verdict(view, True, self.recipe.gan)
            losses = {f"adversarial_{judge}": weights.adversarial * convincing} if weights.adversarial else {}
            if repeated:
                losses["representation"] = repeated * convincing
            theirs = {}
            if places is not None:
                new = image.detach()
                shown = self.pools[kind].shown(new, places[kind])
                if shown is not new:
                    view = self._judge(judge, shown)
                theirs[f"{judge}_discriminator"] = self._unmasked(self._judge(judge, real), view)
            yield Group(losses, theirs)
        if weights.representation:
            apart = _distance(scene.represented, scene.dark)
            yield Group({"representation": weights.representation * apart}, {})

    def _unmasked(self, real: Tensor, fake: Tensor) -> Tensor:
        """What a discriminator got wrong."""
        gan = self.recipe.gan
        return (verdict(real, True, gan) + verdict(fake, False, gan)) / 2

    def _edges(self, scene: Scene, places: Mapping[str, Sequence[int | None]] | None) -> Iterator[Group]:
        """Before those of edges, which the generators' side gives the images themselves, as published."""
        weight, gan = self.recipe.losses.edge, self.recipe.gan
        for side, kind in (("normal", "enhanced"), ("dark", "darkened")):
            judge = f"{side}_edge"
            image: Tensor = getattr(scene, kind)
            losses = {f"edge_{side}": weight * verdict(self._judge(judge, image), True, gan)}
            yield Group(losses, {})
            if places is not None:
                fake = self.pools[f"{kind}_edge"].shown(self.edges(image, kind), places[f"{kind}_edge"])
                # one pass for both: no norm of theirs couples images
                both = self._judge(judge, torch.cat([self.edges(getattr(scene, side), side), fake]))
                yield Group({}, {f"{judge}_discriminator": self._unmasked(*both.chunk(2))})

    def edges(self, image: Tensor, kind: str) -> Tensor:
        """What a discriminator of edges is shown of images, without gradient."""
        colour = self.colour(image, kind) if self.recipe.official_random_color else None
        return edge_map(image.detach(), self.recipe.edge, colour)

    def colour(self, like: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        """This step's random colour of the edges of a kind of images, `[3]` each."""
        seed = np.random.SeedSequence((self._seed, self.steps_done, _COLOURS, _COLOURED.index(kind)))
        generator = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0]) >> 1)
        return random_colour(like, generator)

    def losses_of(self, batch: Batch) -> dict[str, Tensor]:
        """The generators' losses alone; the discriminators as they are."""
        dark, normal = _sides(batch)
        found: dict[str, Tensor] = {}
        for group in self.groups(self.scene(dark, normal)[0], None):
            _add(found, group.losses)
        return {name: found[name] for name in self._maker_names()}

    # --- the step

    def draws(self, count: int) -> dict[str, list[int | None]]:
        """What the pools show in this step for a batch of `count` images."""
        return {
            name: pool.draws(np.random.default_rng((self._seed, self.steps_done, _POOL_DRAWS, index)), count)
            for index, (name, pool) in enumerate(self.pools.items())
        }

    def backward(self, parts: Sequence[Batch], images: int | None = None) -> dict[str, Tensor]:
        """As of every task, for all networks: the discriminators are those of before the step."""
        count = sum(len(part.x) for part in parts) if images is None else images
        values: dict[str, Tensor] = {}
        draws = self.draws(count)
        first = count * self.parallel.rank // self.parallel.world
        made: dict[str, list[Tensor]] = {name: [] for name in POOLS}
        place = first
        for part in parts:
            if len(part.x) == 0:
                continue
            mine = {name: drawn[place : place + len(part.x)] for name, drawn in draws.items()}
            place += len(part.x)
            for name, value in self._backward_part(part, len(part.x) / count, mine, made).items():
                value = value.detach() * (len(part.x) / count)
                values[name] = values[name] + value if name in values else value
        self._remember(made, draws, first, count, parts)
        return self._over_processes(values)

    def _backward_part(
        self,
        batch: Batch,
        share: float,
        places: Mapping[str, Sequence[int | None]],
        made: dict[str, list[Tensor]],
    ) -> dict[str, Tensor]:
        # within one context weights are rounded once, not once for each of their passes
        with self.autocast():
            return self._backward_within(batch, share, places, made)

    def _backward_within(
        self,
        batch: Batch,
        share: float,
        places: Mapping[str, Sequence[int | None]],
        made: dict[str, list[Tensor]],
    ) -> dict[str, Tensor]:
        scene, cuts = self.scene(*_sides(batch))
        makers = [*self._makers.parameters(), *(leaf for cut in cuts for leaf in cut.leaves)]
        judges = list(self.judges.parameters())
        losses: dict[str, Tensor] = {}
        theirs: dict[str, Tensor] = {}
        for group in self.groups(scene, places):
            _add(losses, {name: value.detach() for name, value in group.losses.items()})
            _add(theirs, {name: value.detach() for name, value in group.judges.items()})
            # what the discriminators share with the generators' losses is used twice
            self._backward(group.losses, share, makers, keep=bool(group.judges))
            self._backward(group.judges, share, judges)
        for cut in cuts:
            cut.backward(makers)
        for name in POOLS:
            kind = name.removesuffix("_edge")
            image: Tensor = getattr(scene, kind).detach()
            made[name].append(self.edges(image, kind) if name.endswith("_edge") else image)
        losses = {name: losses[name] for name in self._maker_names()}
        total = torch.stack(list(losses.values())).sum()
        return {"total": total, **losses, **{name: theirs[name] for name in self._judge_names()}}

    def _backward(
        self, losses: Mapping[str, Tensor], share: float, inputs: list[Tensor], *, keep: bool = False
    ) -> None:
        wanted = [loss for loss in losses.values() if loss.requires_grad]
        if wanted:
            total = self.scaler.scale(torch.stack(wanted).sum() * share)
            total.backward(inputs=inputs, retain_graph=keep)

    def _remember(
        self,
        made: Mapping[str, list[Tensor]],
        draws: Mapping[str, Sequence[int | None]],
        first: int,
        count: int,
        parts: Sequence[Batch],
    ) -> None:
        """Fill the pools; those of all processes with the images of all."""
        for name, pool in self.pools.items():
            if not pool.size:
                continue
            if self.parallel.world == 1:
                pool.keep(torch.cat(made[name]), draws[name])
                continue
            size = parts[0].x.shape[1:]
            images = torch.zeros((count, *size), device=self.parallel.device)
            if made[name]:
                mine = torch.cat(made[name])
                images[first : first + len(mine)] = mine
            self.parallel.sum_([images])
            pool.keep(images, draws[name])

    def result(self) -> dict[str, Tensor]:
        """Pre, H and G_A: what inference needs; the rest is in the state."""
        state = super().result()
        if self.recipe.stored_as == "float16":
            return {name: value.half() for name, value in state.items()}
        return state

    def metadata(self) -> dict[str, str]:
        return {"coordinates": self.network.coordinates, "in_logits": str(self.network.in_logits)}

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "darkener": self.darkener.state_dict(),
            "judges": self.judges.state_dict(),
            "judges_optimizer": self.judges_optimizer.state_dict(),
            "pools": {name: pool.state_dict() for name, pool in self.pools.items()},
            "seed": self._seed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.darkener.load_state_dict(state["darkener"])
        self.judges.load_state_dict(state["judges"])
        self.judges_optimizer.load_state_dict(state["judges_optimizer"])
        for name, pool in self.pools.items():
            pool.load_state_dict(state["pools"][name])
        self._seed = state["seed"]


def build(recipe: NeRCoRecipe) -> NeRCo:
    """The recipe's networks of inference with fresh weights."""
    return NeRCo(
        width=recipe.width,
        blocks=recipe.blocks,
        pre_blocks=recipe.pre_blocks,
        mask_blocks=recipe.mask_blocks,
        hidden=recipe.hidden,
        coordinates=recipe.coordinates,
        in_logits=recipe.in_logits,
    )


def _judge(recipe: NeRCoRecipe) -> Discriminator:
    return Discriminator(width=recipe.discriminator_width, layers=recipe.discriminator_layers)


def _distance(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference."""
    return (x - y).abs().mean()


def _add(sums: dict[str, Tensor], losses: Mapping[str, Tensor]) -> None:
    for name, value in losses.items():
        sums[name] = sums[name] + value if name in sums else value


def _full(x: Tensor) -> Tensor:
    """In at least float32: what the losses compute in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _sides(batch: Batch) -> tuple[Tensor, Tensor]:
    """Dark and normal images in [-1, 1]."""
    if batch.normal is None:
        raise ValueError("NeRCo needs photographs of normal light beside the dark ones")
    if batch.normal.shape != batch.x.shape:
        raise ValueError(
            "dark and normal images must be of one shape,"
            f" got {tuple(batch.x.shape)} and {tuple(batch.normal.shape)}"
        )
    return 2 * batch.x - 1, 2 * batch.normal - 1
