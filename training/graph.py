"""A training step recorded as a CUDA graph: one launch where there were hundreds."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastllie.training.data import Batch

# torch asks for a few steps before a recording: libraries choose algorithms and the optimizer makes its state
WARMUP = 3

Step = Callable[[Sequence[Batch]], dict[str, Tensor]]


class Recording:
    """A step recorded on the batch that lies in `inputs`; computes nothing yet."""

    def __init__(self, step: Step, inputs: Batch):
        self._graph = torch.cuda.CUDAGraph()
        own = torch.cuda.Stream()
        # where a recording fails, its stream stays the current one: the outer of these puts back what was
        with torch.cuda.stream(own), torch.cuda.graph(self._graph, stream=own):
            self._values = step([inputs])

    def __call__(self) -> dict[str, Tensor]:
        """The step on what lies in the inputs now; its values in memory of their own."""
        self._graph.replay()
        return {name: value.clone() for name, value in self._values.items()}


class RecordedStep:
    """Calls `step` until it is warm, records it, and replays the recording from then on.

    Batches of another size than the first (the last of a pass) are computed without the recording. Where the
    recording fails, so are all: with one warning.
    """

    def __init__(
        self, step: Step, record: Callable[[Step, Batch], Callable[[], dict[str, Tensor]]] = Recording
    ):
        self._step, self._record = step, record
        self._calls = 0
        self._replay: Callable[[], dict[str, Tensor]] | None = None
        self._inputs: Batch | None = None
        self._failed = False

    def __call__(self, parts: Sequence[Batch]) -> dict[str, Tensor]:
        (batch,) = parts
        if self._failed:
            return self._step(parts)
        if self._inputs is None:
            x = batch.x.clone()
            self._inputs = Batch(x, x if batch.target is batch.x else batch.target.clone())
        if batch.x.shape != self._inputs.x.shape:
            return self._step(parts)
        self._calls += 1
        if self._calls <= WARMUP:
            return self._beside(parts)
        self._inputs.x.copy_(batch.x)
        if self._inputs.target is not self._inputs.x:
            self._inputs.target.copy_(batch.target)
        if self._replay is None:
            try:
                self._replay = self._record(self._step, self._inputs)
            # layers that cannot be recorded, drivers, want of memory
            except Exception as error:
                return self._without(parts, error)
        return self._replay()

    def _without(self, parts: Sequence[Batch], error: Exception) -> dict[str, Tensor]:
        """The step kernel by kernel, now and from now on: a recording that failed has computed nothing."""
        self._failed, self._inputs = True, None
        # what is wrong with the step itself shows here too
        values = self._step(parts)
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        warnings.warn(
            f"the training step could not be recorded as a CUDA graph ({reason});"
            " it is launched kernel by kernel",
            RuntimeWarning,
            stacklevel=4,
        )
        return values

    def _beside(self, parts: Sequence[Batch]) -> dict[str, Tensor]:
        """The step on a stream of its own, as a recording will be."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            values = self._step(parts)
        torch.cuda.current_stream().wait_stream(stream)
        return values
