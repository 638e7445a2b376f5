"""What the tasks of single networks share: the optimizer step, the schedule, the average, exact resume."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from fastllie.ops.convolution_training import TrainableConvolutions
from fastllie.training.data import Batch
from fastllie.training.graph import RecordedStep
from fastllie.training.parallel import Parallel
from fastllie.training.recipes import Loop

ALONE = Parallel()
LENGTH = ("steps", "epochs")  # what a run that goes on may have otherwise
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_precision(precision: str, device: torch.device) -> str:
    """The precision that "auto" means on a device: bfloat16 where it computes in it, and not by emulation.

    Raises:
        ValueError: float16 on a CPU, which has no fast arithmetic for it.
    """
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision float16 needs a GPU; bfloat16 and float32 run on a CPU")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    # both are younger than the oldest torch that we take
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bfloat16" if known.get("avx512_bf16") or known.get("amx_bf16") else "float32"


class NetworkTask(ABC):
    """Trains `network` by `recipe`; `total_steps` is where a falling learning rate ends.

    A task says what its losses are by `losses_of`.

    Args:
        parallel: The processes that share each batch, and the device.
    """

    def __init__(self, network: nn.Module, recipe: Loop, total_steps: int, parallel: Parallel = ALONE):
        self.total_steps = total_steps
        self.steps_done = 0
        self.parallel = parallel
        self._recipe = recipe
        self.precision = resolve_precision(recipe.precision, parallel.device)
        self.network: Any = network
        # convolutions are 1.1 to 4 times faster in this format on the CPU, and never slower
        self.network.to(  # type: ignore[call-overload]
            device=parallel.device, memory_format=torch.channels_last
        )
        self.optimizer = make_optimizer(recipe, network, parallel.device)
        self.scaler = torch.amp.GradScaler(parallel.device.type, enabled=self.precision == "float16")
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self._losses = torch.compile(self.losses_of) if recipe.compile else self.losses_of
        self._recorded = self._recording() if recipe.cuda_graph else None

    def _recording(self) -> RecordedStep:
        recipe, device = self._recipe, self.parallel.device
        for problem, there in (
            ("the device is " + device.type, device.type != "cuda"),
            ("several processes share the batch", self.parallel.world > 1),
            ("a batch is taken in parts", recipe.accumulate > 1),
            ("float16 decides from step to step which gradients count", self.precision == "float16"),
            ("the recipe changes the network from step to step", not self.static),
        ):
            if there:
                raise ValueError(
                    f"cuda_graph needs a CUDA device and steps that are all alike, but {problem}"
                )
        return RecordedStep(self.compute)

    @property
    def static(self) -> bool:
        """Whether every step does the same, so that one recording stands for all."""
        return True

    @property
    def comparable(self) -> bool:
        """Whether a lower total later in the run means a better network."""
        return True

    @abstractmethod
    def losses_of(self, batch: Batch) -> dict[str, Tensor]:
        """Each loss of the batch by name, weighted, to be summed; each a mean over the images."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Where the layers of the network compute in the recipe's precision."""
        return torch.autocast(
            self.parallel.device.type, _DTYPES[self.precision], enabled=self.precision != "float32"
        )

    def convolutions(self) -> AbstractContextManager[Any]:
        """Where convolutions are our own: in float32 on the CPU, where nothing compiles the step."""
        ours = self.precision == "float32" and self.parallel.device.type == "cpu" and not self._recipe.compile
        return TrainableConvolutions() if ours else nullcontext()

    def step(self, parts: Sequence[Batch], images: int | None = None) -> dict[str, Tensor]:
        """One optimizer step.

        Args:
            parts: This process's parts of the batch, taken one after the other; empty ones too.
            images: Images in the whole batch, over all processes; None where the parts are the whole.

        Returns:
            The total, each weighted loss and the gradient's norm before clipping, for the whole batch,
            as tensors that have not been waited for.
        """
        self._set_learning_rate()
        values = self._recorded(parts) if self._recorded else self.compute(parts, images)
        self.steps_done += 1
        self._update_average()
        return values

    def compute(self, parts: Sequence[Batch], images: int | None = None) -> dict[str, Tensor]:
        """The part of a step that happens on the device alone; for the arguments see `step`.

        The gradient's norm is that of the first network.
        """
        for optimizer in self.optimizers():
            optimizer.zero_grad(set_to_none=True)
        with self.convolutions():
            values = self.backward(parts, images)
        norms = []
        for optimizer, network in zip(self.optimizers(), self.networks(), strict=True):
            self.scaler.unscale_(optimizer)
            parameters = [value for value in network.parameters() if value.grad is not None]
            norms.append(_clip(parameters, self._recipe.clip))
            self.scaler.step(optimizer)
        self.scaler.update()
        return {**values, "gradient": norms[0]}

    def optimizers(self) -> Sequence[torch.optim.Optimizer]:
        """One for each of `networks`."""
        return [self.optimizer]

    def rates(self) -> Sequence[float]:
        """The learning rate of each of `optimizers` in units of `learning_rate`."""
        return [1.0]

    def networks(self) -> Sequence[nn.Module]:
        """All that are trained, the one of the result first."""
        return [self.network]

    def backward(self, parts: Sequence[Batch], images: int | None = None) -> dict[str, Tensor]:
        """Add up the gradients and the losses of the whole batch, over the parts and the processes."""
        count = count_of(parts, images)
        first = count * self.parallel.rank // self.parallel.world
        values: dict[str, Tensor] = {}
        for part in parts:
            if len(part.x) == 0:
                continue
            # each loss is a mean over images, so parts weigh by their share of them
            share = len(part.x) / count
            losses = self.backward_part(part, share, first)
            add(values, {name: value.detach() * share for name, value in losses.items()})
            first += len(part.x)
        return self._over_processes(values)

    def backward_part(self, batch: Batch, share: float, first: int) -> dict[str, Tensor]:
        """Add up the gradients of a part of the batch; returns its total and its losses, each unweighted.

        Args:
            share: Of the images of the whole batch, which the gradients are weighted by.
            first: The place of the part's first image in the whole batch.
        """
        losses = self._losses(batch)
        total = torch.stack(list(losses.values())).sum()
        self.scaler.scale(total if share == 1 else total * share).backward()
        return {"total": total, **losses}

    def _over_processes(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.parallel.world == 1:
            return values
        device = self.parallel.device
        # a process whose part was empty knows neither gradients nor the names of the losses
        names = ["total", *self.loss_names()]
        values = {name: values.get(name, torch.zeros((), device=device)) for name in names}
        gradients = []
        for parameter in (value for network in self.networks() for value in network.parameters()):
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        self.parallel.sum_([*gradients, *values.values()])
        # each process's batch norm saw its own part: they go on from the mean of what they saw
        buffers = [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]
        self.parallel.sum_(buffers)
        for buffer in buffers:
            buffer.div_(self.parallel.world)
        return values

    @abstractmethod
    def loss_names(self) -> list[str]:
        """The names that `losses_of` gives."""

    def _set_learning_rate(self) -> None:
        rate = self.learning_rate()
        for factor, optimizer in zip(self.rates(), self.optimizers(), strict=True):
            for group in optimizer.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(factor * rate)
                else:
                    group["lr"] = factor * rate

    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        recipe = self._recipe
        factor = min(1.0, (self.steps_done + 1) / (recipe.warmup + 1))
        done = self.steps_done / self.total_steps
        if recipe.schedule == "cosine":
            factor *= 0.5 * (1 + math.cos(math.pi * done))
        elif recipe.schedule == "linear" and done > recipe.hold:
            factor *= (1 - done) / (1 - recipe.hold)
        return recipe.learning_rate * factor

    @torch.no_grad()
    def _update_average(self) -> None:
        # a short memory at first, or the average would keep the random start
        decay = min(self._recipe.average, self.steps_done / (self.steps_done + 10))
        state = self.network.state_dict()
        floats = [name for name, value in state.items() if value.is_floating_point()]
        mine, theirs = [self.average[name] for name in floats], [state[name] for name in floats]
        if self._recipe.average:
            torch._foreach_lerp_(mine, theirs, 1 - decay)
        else:
            torch._foreach_copy_(mine, theirs)
        for name, value in state.items():
            if not value.is_floating_point():
                self.average[name].copy_(value)

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The network with the weights that would be its result now, in eval mode, without gradients."""
        network: nn.Module = self.network
        training = network.training
        kept = {name: value.clone() for name, value in network.state_dict().items()}
        network.load_state_dict(self.average)
        network.eval()
        try:
            with torch.no_grad():
                yield network
        finally:
            network.load_state_dict(kept)
            network.train(training)

    def start_from(self, state: Mapping[str, Tensor]) -> None:
        """Take the network's first weights from `state`, in our layout, instead of drawing them."""
        self.network.load_state_dict(state)

    def result(self) -> dict[str, Tensor]:
        """The weights to keep: the moving average, or the last ones where the recipe has none."""
        return {name: value.contiguous().cpu() for name, value in self.average.items()}

    def metadata(self) -> dict[str, str]:
        """What a file of the result has to say beside it."""
        return {"padding": self.network.padding}

    def state_dict(self) -> dict[str, Any]:
        """Everything that a continued run needs."""
        return {
            "recipe": asdict(self._recipe),
            "precision": self.precision,
            "steps_done": self.steps_done,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, also towards another number of steps.

        Raises:
            ValueError: the state belongs to another recipe or precision, or has done more steps.
        """
        before = {**_flat(state["recipe"]), "precision": state["precision"]}
        now = {**_flat(asdict(self._recipe)), "precision": self.precision}
        changed = [
            f"{name} {before.get(name)!r}, not {now.get(name)!r}"
            for name in dict.fromkeys((*before, *now))
            if name not in LENGTH and before.get(name) != now.get(name)
        ]
        if changed:
            raise ValueError(f"its state was made with {' and '.join(changed)}")
        if state["steps_done"] > self.total_steps:
            raise ValueError(f"its state has done {state['steps_done']} steps, more than {self.total_steps}")
        self.steps_done = state["steps_done"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)


def make_optimizer(recipe: Loop, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimizer of a network's parameters."""
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    # a learning rate that a recorded step reads has to live on the device
    rate: Any = (
        torch.tensor(recipe.learning_rate, device=device) if recipe.cuda_graph else recipe.learning_rate
    )
    return kind(
        network.parameters(),
        lr=rate,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        fused=True,
        capturable=recipe.cuda_graph,
    )


def _clip(parameters: Sequence[nn.Parameter], largest: float | None) -> Tensor:
    """Scale the gradients to a norm of at most `largest`; returns the norm before."""
    if not parameters:
        raise RuntimeError("no parameter has a gradient: nothing can be trained")
    return nn.utils.clip_grad_norm_(parameters, math.inf if largest is None else largest, foreach=True)


def count_of(parts: Sequence[Batch], images: int | None) -> int:
    """Images in the whole batch of a step, see `NetworkTask.step`."""
    return sum(len(part.x) for part in parts) if images is None else images


def add(sums: dict[str, Tensor], losses: Mapping[str, Tensor]) -> None:
    """Add losses to sums by name, in place."""
    for name, value in losses.items():
        sums[name] = sums[name] + value if name in sums else value


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields of parts as `losses.exposure`."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found
