"""The only training loop: steps, logs, checkpoints that are never half-written, exact resume."""

import math
import pickle
import signal
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from fastllie.images.files import replacing
from fastllie.ops.checks import is_int
from fastllie.training.data import Batch, Source
from fastllie.training.parallel import Parallel
from fastllie.training.record.journal import Journal

VERSION = 2  # of the state file
AHEAD = 2  # batches that are made while the device computes
# a total this many times the median of the last ones is an explosion: a warm-up or an unlucky batch stays far
# below, and a run that passes it does not come back
EXPLOSION, REMEMBERED, NEEDED = 1e3, 100, 20


class Task(Protocol):
    """What the loop asks of a task."""

    steps_done: int
    precision: str
    parallel: Parallel

    def step(self, parts: Sequence[Batch], images: int | None = None) -> dict[str, Tensor]: ...
    def learning_rate(self) -> float: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Pace:
    """How often things happen, in steps.

    Args:
        every: Between checkpoints.
        log_every: Between lines of the logs.
        validate_every: Between validations; None at every checkpoint.
    """

    every: int = 200
    log_every: int = 10
    validate_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("every", "log_every", "validate_every"):
            value = getattr(self, name)
            if value is not None and not is_int(value, 1):
                raise ValueError(f"{name} must be a positive number of steps, got {value!r}")


@dataclass(frozen=True)
class Hooks:
    """What the loop calls in the first process; by default nothing.

    Args:
        journal: For the logs.
        checkpoint: The state file, which is continued where it exists.
        seed: Of the run; a state file keeps it.
        photographs: What sets these photographs and their order apart from others; a state file keeps it.
        saved: Called after each checkpoint, say to write the weights.
        validate: Called with the step; returns the scores, and one number of which more is better (None:
            nothing was scored).
        best: Called when that number is the best so far.
        failed: The folder for a batch that broke the run.
    """

    journal: Journal | None = None
    checkpoint: Path | None = None
    seed: int = 0
    photographs: str = ""
    saved: Callable[[], object] | None = None
    validate: Callable[[int], tuple[dict[str, float], float | None]] | None = None
    best: Callable[[], object] | None = None
    failed: Path | None = None


@dataclass
class _Window:
    """What has happened since the last line of the log."""

    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    images: int = 0
    seconds: float = 0.0

    def means(self) -> dict[str, float]:
        return {name: value / self.steps for name, value in self.sums.items()}


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop by a signal, and has saved itself.

    Attributes:
        signal: Its number.
    """

    def __init__(self, number: int, step: int):
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}")
        self.signal = number


def fit(
    task: Task,
    source: Source,
    steps: int,
    *,
    pace: Pace | None = None,
    hooks: Hooks | None = None,
    accumulate: int = 1,
) -> None:
    """Run `task` until it has done `steps` steps; an existing checkpoint is continued.

    On one machine, at one thread count, a continued run gives the same bits as an unbroken one. SIGINT and
    SIGTERM end the run after the step that they meet, with a checkpoint; a second one ends it at once.

    Args:
        accumulate: Parts that this process takes its share of each batch in.

    Raises:
        ValueError: the checkpoint is of another recipe or other photographs.
        RuntimeError: a loss that is not finite or has exploded; the batch is saved and named, the last
            checkpoint stays as it was.
        Interrupted: a signal asked the run to stop.
    """
    with _Stop() as stop:
        _Run(task, source, steps, pace or Pace(), hooks or Hooks(), accumulate, stop).go()


def resume_point(task: Task, hooks: Hooks) -> int:
    """The step that `fit` would go on from, 0 for a new run; `task` is left at it.

    Raises:
        ValueError: the checkpoint is of another recipe or other photographs.
    """
    if hooks.checkpoint is None or not hooks.checkpoint.exists():
        return 0
    _load(task, hooks)
    return task.steps_done


def _load(task: Task, hooks: Hooks) -> dict[str, Any]:
    path = hooks.checkpoint
    assert path is not None
    anew = f"give another output, or take {path} away to begin anew"
    try:
        state: Any = torch.load(path, map_location=task.parallel.device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is damaged, or no state of a run: {anew} ({error})") from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise ValueError(f"{path} is no state of a run of this version: {anew}")
    changed = [f"seed {state['seed']}, not {hooks.seed}"] if state["seed"] != hooks.seed else []
    changed += ["other photographs"] if state["photographs"] != hooks.photographs else []
    if changed:
        raise ValueError(f"the run in {path.parent} was made with {' and '.join(changed)}: {anew}")
    try:
        task.load_state_dict(state["task"])
    except ValueError as error:
        raise ValueError(f"the run in {path.parent} does not go on: {error}: {anew}") from error
    return state


class _Run:
    def __init__(
        self,
        task: Task,
        source: Source,
        steps: int,
        pace: Pace,
        hooks: Hooks,
        accumulate: int,
        stop: "_Stop",
    ):
        self.task, self.source, self.steps, self.pace = task, source, steps, pace
        self.accumulate, self.stop = accumulate, stop
        self.parallel = task.parallel
        # the others only compute
        mine = Hooks(checkpoint=hooks.checkpoint, seed=hooks.seed, photographs=hooks.photographs)
        self.hooks = hooks if self.parallel.first else mine
        self.window = _Window()
        self.best = -math.inf
        self.recent: deque[float] = deque(maxlen=REMEMBERED)
        self.pending: list[tuple[int, float, dict[str, Tensor]]] = []
        # on a GPU the host runs ahead: it looks at the losses only when it needs them
        self.patient = self.parallel.device.type == "cuda"

    def go(self) -> None:
        self._resume()
        task, pace = self.task, self.pace
        batches = self._batches()
        began = time.perf_counter()
        while task.steps_done < self.steps:
            images = self.source.size(task.steps_done)
            rate = task.learning_rate()
            values = task.step(next(batches), images)
            step = task.steps_done
            self.pending.append((step, rate, values))
            self.window.images += images
            last = step == self.steps
            stopped = self.parallel.any(self.stop.number is not None)
            saving = step % pace.every == 0 or last or stopped
            validating = self.hooks.validate and (step % (pace.validate_every or pace.every) == 0 or last)
            logging = step % pace.log_every == 0 or last
            showing = self.hooks.journal is not None and self.hooks.journal.due
            if saving or validating or logging or showing or not self.patient:
                self._look()
            self.window.seconds += time.perf_counter() - began
            if logging:
                self._log(step)
            elif showing:
                self._show(step)
            if validating:
                self._validate(step)
            if saving:
                self._save()
            if stopped:
                raise Interrupted(self.stop.number or signal.SIGTERM, step)
            began = time.perf_counter()

    def _batches(self) -> Iterator[list[Batch]]:
        parts = self.parallel.world * self.accumulate
        mine = range(self.parallel.rank * self.accumulate, (self.parallel.rank + 1) * self.accumulate)

        def made() -> Iterator[list[Batch]]:
            for step in range(self.task.steps_done, self.steps):
                yield [self.source.batch(step, part, parts) for part in mine]

        # on the CPU there is no idle core that could work ahead
        return ahead(made()) if self.patient else made()

    def _resume(self) -> None:
        if self.hooks.checkpoint is None or not self.hooks.checkpoint.exists():
            return
        state = _load(self.task, self.hooks)
        self.window = _Window(**state["window"])
        self.best = state["best"]

    def _save(self) -> None:
        if not self.parallel.first:
            return
        if self.hooks.saved is not None:
            self.hooks.saved()
        if self.hooks.checkpoint is not None:
            state = {
                "version": VERSION,
                "task": self.task.state_dict(),
                "seed": self.hooks.seed,
                "photographs": self.hooks.photographs,
                "window": vars(self.window),
                "best": self.best,
            }
            with replacing(self.hooks.checkpoint) as temporary:
                torch.save(state, temporary)

    def _look(self) -> None:
        """Wait for the losses of the last steps, and stop the run where one of them is wrong."""
        for step, rate, tensors in self.pending:
            # one message from the device
            numbers = torch.stack([value.detach().double() for value in tensors.values()]).tolist()
            values = {**dict(zip(tensors, numbers, strict=True)), "learning_rate": rate}
            # an infinite gradient is what a scaler for float16 waits for, and leaves out
            waited = ("gradient",) if self.task.precision == "float16" else ()
            wrong = [
                name for name, value in values.items() if name not in waited and not math.isfinite(value)
            ]
            if wrong:
                self._fail(
                    step, values, f"{' and '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} not finite"
                )
            total = abs(values["total"])
            if len(self.recent) >= NEEDED and total > EXPLOSION * statistics.median(self.recent) > 0:
                self._fail(step, values, "the loss has exploded")
            self.recent.append(total)
            self.window.steps += 1
            for name, value in values.items():
                self.window.sums[name] = self.window.sums.get(name, 0.0) + value
        self.pending.clear()

    def _fail(self, step: int, values: dict[str, float], what: str) -> None:
        names = self.source.names(step - 1)
        message = f"step {step}: {what}: {values}; the photographs are {', '.join(names)}"
        if self.hooks.failed is not None:
            batch = self.source.batch(step - 1)
            path = self.hooks.failed / f"failed-step-{step:07d}.safetensors"
            tensors = {"x": batch.x, "target": batch.target, "normal": batch.normal}
            with replacing(path) as temporary:
                save_file(
                    {
                        key: value.detach().cpu().contiguous().clone()
                        for key, value in tensors.items()
                        if value is not None
                    },
                    temporary,
                    {"photographs": "\n".join(names), "losses": repr(values)},
                )
            message += f"; the batch is in {path}"
        raise RuntimeError(message)

    def _log(self, step: int) -> None:
        window, self.window = self.window, _Window()
        if self.hooks.journal is not None and window.steps:
            self.hooks.journal.log(step, window.means(), images=window.images, seconds=window.seconds)

    def _show(self, step: int) -> None:
        window = self.window
        if self.hooks.journal is not None and window.steps:
            self.hooks.journal.show(step, window.means(), images=window.images, seconds=window.seconds)

    def _validate(self, step: int) -> None:
        assert self.hooks.validate is not None
        scores, criterion = self.hooks.validate(step)
        if criterion is None:
            return
        better = criterion > self.best
        if better:
            self.best = criterion
            if self.hooks.best is not None:
                self.hooks.best()
        if self.hooks.journal is not None:
            self.hooks.journal.validated(step, scores, better)


def ahead(batches: Iterator[list[Batch]], count: int = AHEAD) -> Iterator[list[Batch]]:
    """The same batches, of which `count` are made in a thread before they are asked for."""
    ready: deque[Any] = deque()
    changed = threading.Condition()
    ended = False

    def work() -> None:
        while True:
            try:
                with torch.no_grad():
                    item: Any = next(batches, None)
            except BaseException as error:  # handed to the thread that asks
                item = error
            with changed:
                ready.append(item)
                changed.notify_all()
                changed.wait_for(lambda: ended or len(ready) < count)
                if ended or item is None or isinstance(item, BaseException):
                    return

    worker = threading.Thread(target=work, name="fastllie batches", daemon=True)
    worker.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: bool(ready))
                item = ready.popleft()
                changed.notify_all()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                return
            yield item
    finally:
        with changed:
            ended = True
            changed.notify_all()
        worker.join()


class _Stop:
    """Remembers the first SIGINT or SIGTERM; the second is handled as if this were not here."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Stop":
        # Python lets the main thread alone handle signals
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: Any) -> None:
        self._restore()
        self.number = number

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def __exit__(self, *error: object) -> None:
        self._restore()
