"""What the tasks of single networks share: the optimizer step, the schedule, the average, exact resume."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastllie.training.data import Batch


class Schedule(Protocol):
    """The part of a recipe that the step needs; see `fastllie.training.recipes.Recipe`."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup(self) -> int: ...
    @property
    def cosine(self) -> bool: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def clip(self) -> float: ...
    @property
    def average(self) -> float: ...


class NetworkTask(ABC):
    """Trains `network` by `recipe` with Adam; `total_steps` is where a cosine schedule ends.

    A task says what its losses are by `losses_of`.
    """

    def __init__(self, network: nn.Module, recipe: Schedule, total_steps: int):
        self.total_steps = total_steps
        self.steps_done = 0
        self._recipe = recipe
        self.network: Any = network
        # convolutions are 1.1 to 4 times faster in this format on the CPU, and never slower
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}

    @abstractmethod
    def losses_of(self, batch: Batch) -> dict[str, Tensor]:
        """Each loss of the batch by name, weighted, to be summed."""

    def step(self, batch: Batch) -> dict[str, float]:
        """One optimizer step; returns the total, each weighted loss and the gradient norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._recipe.learning_rate * self._schedule()
        parts = self.losses_of(batch)
        total = torch.stack(list(parts.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self._recipe.clip)
        self.optimizer.step()
        self.steps_done += 1
        self._update_average()
        values = {"total": total, **parts, "gradient": norm}
        return {name: value.item() for name, value in values.items()}

    def _schedule(self) -> float:
        factor = min(1.0, (self.steps_done + 1) / (self._recipe.warmup + 1))
        if self._recipe.cosine:
            factor *= 0.5 * (1 + math.cos(math.pi * self.steps_done / self.total_steps))
        return factor

    def _update_average(self) -> None:
        # a short memory at first, or the average would keep the random start
        decay = min(self._recipe.average, self.steps_done / (self.steps_done + 10))
        for name, value in self.network.state_dict().items():
            if self._recipe.average and value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def start_from(self, state: Mapping[str, Tensor]) -> None:
        """Take the network's first weights from `state`, in our layout, instead of drawing them."""
        self.network.load_state_dict(state)

    def result(self) -> dict[str, Tensor]:
        """The weights to keep: the moving average, or the last ones where the recipe has none."""
        return {name: value.contiguous() for name, value in self.average.items()}

    def metadata(self) -> dict[str, str]:
        """What a file of the result has to tell beside it."""
        return {"padding": self.network.padding}

    def state_dict(self) -> dict[str, Any]:
        """Everything that a continued run needs."""
        return {
            "recipe": repr(self._recipe),
            "total_steps": self.total_steps,
            "steps_done": self.steps_done,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`.

        Raises:
            ValueError: the state belongs to another recipe or another number of steps.
        """
        for name, mine in (("recipe", repr(self._recipe)), ("total_steps", self.total_steps)):
            if state[name] != mine:
                raise ValueError(f"the checkpoint was made with {name} {state[name]}, this run has {mine}")
        self.steps_done = state["steps_done"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)
