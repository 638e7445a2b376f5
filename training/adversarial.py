"""What the tasks of EnlightenGAN and NeRCo share: discriminators that learn beside the result."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from fastllie.training.data import Batch
from fastllie.training.losses import scenes
from fastllie.training.parallel import Parallel
from fastllie.training.recipes import Adversarial
from fastllie.training.task import ALONE, NetworkTask, make_optimizer

# by their names in a recipe: of the result and its target
PAIRED = {
    "difference": scenes.difference,
    "matched_difference": scenes.matched_difference,
    "structure": scenes.structure,
    "chroma": scenes.chroma,
    "overshoot": scenes.overshoot,
    "mean": scenes.mean,
    "local_contrast": scenes.local_contrast,
}
# and of the input beside them
COMPARED = {"flatness": scenes.flatness}


class AdversarialTask(NetworkTask):
    """Trains a network and `judges`, its discriminators, by a recipe.

    Args:
        steps_per_epoch: Steps in a pass, which the schedule counts.
        judges: The discriminators with their first weights.
        together: Whether one optimizer takes the steps of all of them; False: each has its own.
    """

    def __init__(
        self,
        network: nn.Module,
        judges: Mapping[str, nn.Module],
        recipe: Adversarial,
        total_steps: int,
        steps_per_epoch: int,
        parallel: Parallel = ALONE,
        *,
        together: bool = False,
    ):
        self.steps_per_epoch = steps_per_epoch
        self._adversarial = recipe
        super().__init__(network, recipe, total_steps, parallel)
        self.judges: Any = self.placed(nn.ModuleDict(judges))
        learning = {"all": self.judges} if together else dict(self.judges.items())
        self._learning: dict[str, nn.Module] = learning
        self.judges_optimizers = {
            name: make_optimizer(recipe, judge, parallel.device) for name, judge in learning.items()
        }
        # whatever is drawn in a step depends on this and the step alone, so that a continued run repeats it
        self._seed = int(torch.randint(2**31, ()))

    def placed(self, module: nn.Module) -> Any:
        """The module on the task's device, in the format that its convolutions are fast in."""
        return module.to(  # type: ignore[call-overload]
            device=self.parallel.device, memory_format=torch.channels_last
        )

    @property
    def static(self) -> bool:
        # each step draws anew what the discriminators are shown
        return False

    @property
    def comparable(self) -> bool:
        # a better discriminator makes the same images worth less
        return False

    @property
    def judging(self) -> bool:
        """Whether all losses teach in this step, or the pairs alone."""
        return self.steps_done >= self._adversarial.judged_from * self.total_steps

    def networks(self) -> Sequence[nn.Module]:
        return [self.network, *self._learning.values()] if self.judging else [self.network]

    def pair_names(self) -> list[str]:
        return [name for name, weight in asdict(self._adversarial.pairs).items() if weight]

    def pair_losses(self, y: Tensor, target: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Of images in [0, 1], what they should become and what they were made of, weighted."""
        weights = asdict(self._adversarial.pairs)
        return {
            name: weights[name]
            * (PAIRED[name](y, target) if name in PAIRED else COMPARED[name](y, target, x))
            for name in self.pair_names()
        }

    def alone(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Their total and all losses, where these are the only ones."""
        nothing = dict.fromkeys(self.loss_names(), torch.zeros((), device=self.parallel.device))
        return {"total": torch.stack(list(losses.values())).sum(), **nothing, **losses}

    def optimizers(self) -> Sequence[torch.optim.Optimizer]:
        return [self.optimizer, *self.judges_optimizers.values()][: len(self.networks())]

    def rates(self) -> Sequence[float]:
        rates = [1.0, *(self._adversarial.discriminator_rate for _ in self.judges_optimizers)]
        return rates[: len(self.networks())]

    def learning_rate(self) -> float:
        recipe = self._adversarial
        if recipe.decay == "schedule":
            return super().learning_rate()
        # by whole passes, as published: the rate of a pass stays the same
        done = self.steps_done // self.steps_per_epoch
        return recipe.learning_rate * self.slowed(done, self.total_steps / self.steps_per_epoch)

    @abstractmethod
    def slowed(self, done: int, passes: float) -> float:
        """The factor on the learning rate after `done` of `passes` passes, where these decide it."""

    def result(self) -> dict[str, Tensor]:
        return self.stored(super().result())

    def stored(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights in the recipe's type of numbers; variances may be more than float16 holds."""
        if self._adversarial.stored_as == "float32":
            return state
        return {
            name: value.half() if value.is_floating_point() and not name.endswith("running_var") else value
            for name, value in state.items()
        }

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


def signed(batch: Batch, title: str) -> tuple[Tensor, Tensor]:
    """The dark and the normal images of a batch in [-1, 1].

    Of whole scenes the normal image beside each is the target of the one before.

    Raises:
        ValueError: a batch without normal images, or with such of another shape; `title` names the method.
    """
    if batch.normal is None and batch.target is not batch.x:
        batch = batch._replace(normal=batch.target.roll(1, 0))
    if batch.normal is None:
        raise ValueError(f"{title} needs photographs of normal light beside the dark ones")
    if batch.normal.shape != batch.x.shape:
        raise ValueError(
            "dark and normal images must be of one shape,"
            f" got {tuple(batch.x.shape)} and {tuple(batch.normal.shape)}"
        )
    return 2 * batch.x - 1, 2 * batch.normal - 1
