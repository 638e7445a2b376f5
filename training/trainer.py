"""The only training loop: steps, log lines, checkpoints that are never half-written, exact resume."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from fastllie.training.data import Batch


class Task(Protocol):
    """What the loop asks of a task."""

    steps_done: int

    def step(self, batch: Batch) -> dict[str, float]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Source(Protocol):
    """Where batches come from: a function of the step alone, so that resuming needs no state."""

    def batch(self, step: int) -> Batch: ...


def fit(
    task: Task,
    source: Source,
    steps: int,
    *,
    checkpoint: Path | None = None,
    every: int = 200,
    log: Callable[[str], None] | None = None,
) -> None:
    """Run `task` until it has done `steps` steps; an existing `checkpoint` is continued.

    On one machine, at one thread count, a continued run gives the same bits as an unbroken one.

    Args:
        checkpoint: Written every `every` steps and at the end, to a temporary file that is then renamed.
        log: Called with a line of losses at the same steps, averaged since the last.

    Raises:
        ValueError: the checkpoint is of another recipe.
        RuntimeError: a loss that is not finite; the last checkpoint stays as it was.
    """
    if checkpoint is not None and checkpoint.exists():
        task.load_state_dict(torch.load(checkpoint, weights_only=True))
    sums: dict[str, float] = {}
    count, began = 0, time.perf_counter()
    while task.steps_done < steps:
        losses = task.step(source.batch(task.steps_done))
        if not all(value == value and abs(value) != float("inf") for value in losses.values()):
            raise RuntimeError(f"step {task.steps_done}: a loss is not finite: {losses}")
        sums = {name: sums.get(name, 0.0) + value for name, value in losses.items()}
        count += 1
        if task.steps_done % every and task.steps_done != steps:
            continue
        if log is not None:
            means = "  ".join(f"{name} {value / count:.4f}" for name, value in sums.items())
            log(
                f"step {task.steps_done}/{steps}  {means}  {(time.perf_counter() - began) / count:.3f} s/step"
            )
        if checkpoint is not None:
            save(task.state_dict(), checkpoint)
        sums, count, began = {}, 0, time.perf_counter()


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    torch.save(state, temporary)
    os.replace(temporary, path)
