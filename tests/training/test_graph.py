"""Training steps recorded as CUDA graphs: when one is made, and what happens where that fails."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from helpers import refused

from fastllie.training.data import Batch
from fastllie.training.graph import WARMUP, RecordedStep, Recording

pytestmark = pytest.mark.filterwarnings("error")


class Device:
    """torch.cuda in as much as a recording asks for it. What is launched while one is made does nothing."""

    def __init__(self, patch, fails=None):
        self.stream, self.capturing, self.fails = "usual", False, fails
        cuda = torch.cuda
        patch.setattr(cuda, "stream", self._within)
        patch.setattr(cuda, "graph", lambda graph, stream: self._captured(stream))
        patch.setattr(cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
        patch.setattr(cuda, "Stream", lambda: SimpleNamespace(wait_stream=lambda other: None))
        patch.setattr(cuda, "current_stream", lambda: SimpleNamespace(wait_stream=lambda other: None))

    @contextmanager
    def _within(self, stream):
        self.stream, before = stream, self.stream
        try:
            yield
        finally:
            self.stream = before

    @contextmanager
    def _captured(self, stream):
        self.capturing, self.stream, before = True, stream, self.stream
        try:
            yield
        finally:
            self.capturing = False
        # as torch's: where its end fails, its stream stays
        if self.fails:
            raise self.fails
        self.stream = before


class Walk:
    """A step that adds the mean of each batch to a weight."""

    def __init__(self, device):
        self.device, self.weight, self.streams = device, 0.0, []

    def __call__(self, parts):
        (batch,) = parts
        self.streams.append(self.device.stream)
        if not self.device.capturing:
            self.weight += float(batch.x.mean())
        return {"total": torch.tensor(self.weight)}


def batches(count, size=4):
    images = [torch.full((1, 3, size, size), float(k + 1)) for k in range(count)]
    return [[Batch(x, x)] for x in images]


def test_a_step_is_recorded_once_it_is_warm(monkeypatch):
    walk = Walk(Device(monkeypatch))
    made = []

    def record(step, inputs):
        made.append(walk.weight)
        return lambda: step([inputs])

    recorded = RecordedStep(walk, record)
    given = batches(6)
    given[4:4] = batches(1, size=5)
    for parts in given:
        recorded(parts)
    assert made == [1 + 2 + 3]
    assert walk.weight == sum(range(1, 7)) + 1


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("full"),
        RuntimeError("operation not permitted when stream is capturing\nCompile with ..."),
        AssertionError(),
    ],
    ids=["memory", "capture", "without words"],
)
def test_a_recording_that_fails(monkeypatch, error):
    device = Device(monkeypatch, error)
    walk = Walk(device)
    recorded = RecordedStep(walk, Recording)
    values = []
    with pytest.warns(RuntimeWarning, match="launched kernel by kernel") as warned:
        values += [float(recorded(parts)["total"]) for parts in batches(6)]
    # every step counts once, the one that was to be recorded too
    assert values == [1, 3, 6, 10, 15, 21]
    assert len(warned) == 1
    words = str(warned[0].message)
    assert type(error).__name__ in words
    assert "\n" not in words
    # warm, the attempt, and each step from then on where everything else runs
    assert walk.streams[WARMUP + 1 :] == ["usual"] * 3
    assert device.stream == "usual"


def test_errors_of_the_step_come_through(monkeypatch):
    device = Device(monkeypatch)
    calls = []

    def step(parts):
        calls.append(parts)
        if len(calls) > WARMUP:
            raise ValueError("broken")
        return {}

    recorded = RecordedStep(step, Recording)
    *warm, last = batches(WARMUP + 1)
    for parts in warm:
        recorded(parts)
    # nobody is sent to look for the graph
    with refused(ValueError, "broken"):
        recorded(last)
    assert device.stream == "usual"
