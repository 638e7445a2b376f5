"""The training task of NeRCo: two generators in a closed loop, four discriminators, and CLIP where asked."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastllie.checkpoint.nerco import SAID, SHAPE
from fastllie.models.logits import half_logits
from fastllie.models.nerco import Discriminator, Generator, NeRCo, edge_map
from fastllie.models.nerco.edges import random_colour
from fastllie.training.adversarial import AdversarialTask, signed
from fastllie.training.data import Batch
from fastllie.training.losses.adversarial import distance, full, verdict
from fastllie.training.losses.clip import Reader, load_reader, text_loss
from fastllie.training.losses.consistency import CONSISTENCIES
from fastllie.training.losses.groups import Cut, Group, Scene
from fastllie.training.losses.pool import Pool
from fastllie.training.parallel import Parallel
from fastllie.training.recipes import NeRCoRecipe
from fastllie.training.task import ALONE, add, count_of, make_optimizer

# discriminators of normal and of dark images, and of the edges of both
JUDGES = ("normal", "dark", "normal_edge", "dark_edge")
# what each pool holds: kinds of images, in the order of their random numbers
POOLS = ("enhanced", "darkened", "represented", "enhanced_edge", "darkened_edge")
# the four calls that colour edges, in the order of their random numbers
_COLOURED = ("normal", "enhanced", "dark", "darkened")
_POOL_DRAWS, _COLOURS = 1, 2


class NeRCoTask(AdversarialTask):
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
        network = build(recipe)
        darkener = Generator(3, width=recipe.width, blocks=recipe.blocks)
        judges = {
            name: Discriminator(width=recipe.discriminator_width, layers=recipe.discriminator_layers)
            for name in JUDGES
        }
        self.reader = reader if recipe.text_loss is not None else None
        if recipe.text_loss is not None and reader is None:
            self.reader = load_reader(
                recipe.clip_weights,
                preprocess=recipe.clip_preprocess,
                prompts=recipe.prompts,
                text_features=recipe.text_features,
            )
        # one step for all that make images, one for all that judge them
        super().__init__(network, judges, recipe, total_steps, steps_per_epoch, parallel, together=True)
        if not self._maker_names():
            raise ValueError(f"all losses of nerco have weight zero: {recipe.losses}")
        self.darkener = self.placed(darkener)
        self._makers = nn.ModuleDict({"network": self.network, "darkener": self.darkener})
        self.optimizer = make_optimizer(recipe, self._makers, parallel.device)
        if isinstance(self.reader, nn.Module):
            self.reader.to(parallel.device)
        asked = {name: self._judged("normal_edge" if name.endswith("edge") else "dark") for name in POOLS}
        self.pools = {name: Pool(recipe.pool if asked[name] else 0) for name in POOLS}
        # what this step shows of the pools, and the images that it leaves to them
        self._drawn: dict[str, list[int | None]] = {}
        self._made: dict[str, list[Tensor]] = {}

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
        return [*found, *(name for name in CONSISTENCIES if getattr(weights, name)), *self.pair_names()]

    def _judge_names(self) -> list[str]:
        return [f"{name}_discriminator" for name in JUDGES if self._judged(name)]

    def _judged(self, judge: str) -> bool:
        """Whether this discriminator is trained: a loss that goes with its own asks it."""
        weights = self.recipe.losses
        if judge.endswith("edge"):
            return bool(weights.edge)
        return bool(weights.adversarial or (judge == "dark" and weights.adversarial_representation))

    def networks(self) -> Sequence[nn.Module]:
        return [self._makers, self.judges] if self._judge_names() and self.judging else [self._makers]

    def slowed(self, done: int, passes: float) -> float:
        # as published decay begins one pass early and ends at zero in the last; the first pass of a short run
        # is never slowed
        held = max(2.0, self.recipe.hold * passes)
        return max(0.0, 1 - max(0.0, done + 2 - held) / max(1.0, passes - held + 1))

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

    def _pairs(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of pairs alone."""
        dark = 2 * batch.x - 1
        with self.autocast():
            images = torch.cat([dark, self.network.Pre(dark)], 1) * self.network.H(dark)[1]
            enhanced = full(self.network.G_A(images, self._logits(dark)))
        return self.pair_losses((enhanced + 1) / 2, batch.target, batch.x)

    def _enhance(self, first: Tensor, second: Tensor) -> Tensor:
        """Without a mask."""
        with self.autocast():
            return full(self.network.G_A(torch.cat([first, second], 1), self._logits(first)))

    def _darken(self, image: Tensor) -> Tensor:
        with self.autocast():
            return full(self.darkener(image, self._logits(image)))

    def _logits(self, image: Tensor) -> Tensor | None:
        """What both generators start from; nothing as published."""
        return half_logits((image + 1) / 2) if self.recipe.in_logits else None

    def _judge(self, name: str, image: Tensor) -> Tensor:
        with self.autocast():
            return full(self.judges[name](image))

    # --- the losses

    def groups(
        self, scene: Scene, target: Tensor, places: Mapping[str, Sequence[int | None]] | None
    ) -> Iterator[Group]:
        """All losses, group after group: what one depends on may be gone when the next is made.

        Args:
            target: What the dark images should become, in [0, 1], for the losses of pairs.
            places: What the pools show, see `Pool.draws`; None leaves the discriminators' losses out.
        """
        weights = self.recipe.losses
        yield Group(self.pair_losses((scene.enhanced + 1) / 2, target, (scene.dark + 1) / 2), {})
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
            yield Group({"identity_normal": weight * distance(kept, scene.normal)}, {})
            del kept
            yield Group({"identity_dark": weight * distance(self._darken(scene.dark), scene.dark)}, {})

    def _cycles(self, scene: Scene) -> Iterator[Group]:
        weights = self.recipe.losses
        reader = self.reader if weights.text else None
        if weights.cycle or reader is not None:
            back = self._darken(scene.enhanced)
            found = {"cycle_dark": weights.cycle * distance(back, scene.dark)} if weights.cycle else {}
            if reader is not None:
                found["text_dark"] = self._read(back, reader, bright=False)
            yield Group(found, {})
            with self.autocast():
                represented = full(self.network.Pre(scene.darkened))
            back = self._enhance(scene.darkened, represented)
            found = {"cycle_normal": weights.cycle * distance(back, scene.normal)} if weights.cycle else {}
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
        found = distance(scene.enhanced, brighter) + distance(scene.residual, scene.enhanced - scene.dark)
        yield Group({"residual": weight * found}, {})
        yield Group({"residual": weight * distance(scene.normal, self._enhance(dimmer, dimmer))}, {})
        with self.autocast():
            features = self.network.H.features(scene.darkened)
            residual = full(self.network.H.residual_of(features))
        del features
        yield Group({"residual": weight * distance(scene.darkened, scene.normal - residual)}, {})
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
            apart = distance(scene.represented, scene.dark)
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
        if not self.judging:
            return self._pairs(batch)
        found: dict[str, Tensor] = {}
        for group in self.groups(self.scene(*signed(batch, "NeRCo"))[0], batch.target, None):
            add(found, group.losses)
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
        count = count_of(parts, images)
        self._drawn, self._made = self.draws(count), {name: [] for name in POOLS}
        values = super().backward(parts, images)
        if self.judging:
            for name, pool in self.pools.items():
                pool.keep_all(self._made[name], self._drawn[name], parts[0].x.shape[1:], self.parallel)
        return values

    def backward_part(self, batch: Batch, share: float, first: int) -> dict[str, Tensor]:
        if not self.judging:
            values = self.alone(self._pairs(batch))
            self.scaler.scale(values["total"] * share).backward()
            return values
        places = {name: drawn[first : first + len(batch.x)] for name, drawn in self._drawn.items()}
        # within one context weights are rounded once, not once for each of their passes
        with self.autocast():
            scene, cuts = self.scene(*signed(batch, "NeRCo"))
            makers = [*self._makers.parameters(), *(leaf for cut in cuts for leaf in cut.leaves)]
            judges = list(self.judges.parameters())
            losses: dict[str, Tensor] = {}
            theirs: dict[str, Tensor] = {}
            for group in self.groups(scene, batch.target, places):
                add(losses, {name: value.detach() for name, value in group.losses.items()})
                add(theirs, {name: value.detach() for name, value in group.judges.items()})
                # what the discriminators share with the generators' losses is used twice
                self._backward(group.losses, share, makers, keep=bool(group.judges))
                self._backward(group.judges, share, judges)
            for cut in cuts:
                cut.backward(makers)
            for name in POOLS:
                kind = name.removesuffix("_edge")
                image: Tensor = getattr(scene, kind).detach()
                self._made[name].append(self.edges(image, kind) if name.endswith("_edge") else image)
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

    def metadata(self) -> dict[str, str]:
        return {name: str(getattr(self.network, name)) for name in SAID}

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "darkener": self.darkener.state_dict(),
            "pools": {name: pool.state_dict() for name, pool in self.pools.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.darkener.load_state_dict(state["darkener"])
        for name, pool in self.pools.items():
            pool.load_state_dict(state["pools"][name])


def build(recipe: NeRCoRecipe) -> NeRCo:
    """The recipe's networks of inference with fresh weights."""
    return NeRCo(**{name: getattr(recipe, name) for name in (*SHAPE, *SAID)})
