"""Recordings of networks: when they are made, how many are kept, and that results stay as they came."""

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import refused, ship_random_weights

import fastllie
from fastllie.inference import cuda_graphs, runner
from fastllie.inference.cuda_graphs import Graph, Graphs


class Turns:
    """Of a device without streams; counts."""

    made = waited = finished = synchronized = 0

    def __init__(self, device):
        type(self).made += 1
        self.pool = object()

    def wait(self, device):
        type(self).waited += 1

    def finish(self, device):
        type(self).finished += 1

    def synchronize(self):
        type(self).synchronized += 1


class Recording:
    """As a CUDA graph works: one memory for what is given, one for the result of every replay."""

    made = 0

    def __init__(self, network, x, pool):
        type(self).made += 1
        assert pool is not None
        self.network, self.given, self.result = network, x.clone(), network(x).clone()

    def __call__(self, x):
        assert (self.given.shape, self.given.stride()) == (x.shape, x.stride())
        self.given.copy_(x)
        self.result.copy_(self.network(self.given))
        return self.result.clone()


@pytest.fixture
def recorder(monkeypatch):
    """Graphs on the CPU, and the class that counts what they record."""
    for name in ("made", "waited", "finished", "synchronized"):
        monkeypatch.setattr(Turns, name, 0)
    monkeypatch.setattr(Recording, "made", 0)
    return Graphs(Recording, Turns)


def frame(seed, *size):
    return torch.rand(1, 3, *(size or (4, 5)), generator=torch.Generator().manual_seed(seed))


def double(x):
    return 2 * x


def test_a_shape_is_recorded_when_it_comes_again(recorder):
    results = []
    for seed in range(4):
        results.append(recorder(double, "double", frame(seed)))
        assert Recording.made == (seed > 0)
    # results stay as they came
    for seed, result in enumerate(results):
        assert torch.equal(result, 2 * frame(seed))
    assert Turns.waited == Turns.finished == 3
    assert Turns.made == 1


def test_what_makes_a_recording_another(recorder):
    x = frame(0)
    calls = [(double, "double", x), (torch.neg, "negative", x), (double, "double", frame(0, 5, 4))]
    calls += [(double, "double", x.half()), (double, "double", x.to(memory_format=torch.channels_last))]
    for _ in range(3):
        for call in calls:
            assert torch.equal(recorder(*call), call[0](call[2]))
    assert Recording.made == len(calls)


def test_large_images_are_not_recorded(recorder, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MOST_PIXELS", 20)
    for _ in range(3):
        recorder(double, "double", frame(0, 4, 5))
        recorder(double, "double", frame(0, 3, 7))
        recorder(double, "double", frame(0, 2, 5).expand(3, 3, 2, 5))
    assert Recording.made == 1


def test_few_recordings_are_kept(recorder, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "KEPT", 2)
    sizes = [(1, 1), (2, 2), (3, 3)]
    for size in sizes:
        for seed in range(2):
            recorder(double, "double", frame(seed, *size))
    assert Recording.made == 3
    # no memory is given back that a replay still works in
    assert Turns.synchronized == 1
    recorder(double, "double", frame(2, 2, 2))
    assert Recording.made == 3
    # the one that was not used for longest has gone, and needs no second sight
    recorder(double, "double", frame(2, 1, 1))
    assert Recording.made == 4
    assert len(recorder._graphs) == 2


def test_shapes_are_forgotten(recorder, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "REMEMBERED", 2)
    for _ in range(3):
        for size in ((1, 1), (2, 2), (3, 3)):
            recorder(double, "double", frame(0, *size))
    assert Recording.made == 0
    assert len(recorder._seen) == 2


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("full"),
        RuntimeError("operation not permitted when stream is capturing\nCompile with ..."),
        AssertionError(),
    ],
    ids=["memory", "capture", "without words"],
)
def test_a_recording_that_fails(error):
    attempts = []

    def record(network, x, pool):
        attempts.append(x.shape)
        raise error

    plain = Graphs(record, Turns)
    with pytest.warns(RuntimeWarning, match="no CUDA graph could be recorded") as warned:
        results = [plain(double, "double", frame(0, *size)) for size in [(4, 5), (5, 4)] * 4]
    for result, size in zip(results, [(4, 5), (5, 4)] * 4, strict=True):
        assert torch.equal(result, 2 * frame(0, *size))
    # each shape once, and one warning for all
    assert len(attempts) == 2
    assert len(warned) == 1
    words = str(warned[0].message)
    assert type(error).__name__ in words
    assert "\n" not in words
    assert not plain._lock.locked()


def test_streams_that_cannot_be_made():
    def turns(device):
        raise RuntimeError("CUDA graphs are not supported on this driver")

    plain = Graphs(Recording, turns)
    with pytest.warns(RuntimeWarning, match="not supported on this driver"):
        results = [plain(double, "double", frame(seed)) for seed in range(3)]
    assert all(torch.equal(result, 2 * frame(seed)) for seed, result in enumerate(results))


def test_errors_of_the_network_come_through(recorder, recwarn):
    def broken(x):
        raise ValueError("broken")

    for _ in range(3):
        with refused(ValueError, "broken"):
            recorder(broken, "broken", frame(0))
    assert not recorder._lock.locked()
    # nobody is sent to look for the graph
    assert not recwarn.list


class Device:
    """torch.cuda in as much as a recording asks for it; what is current is seen."""

    def __init__(self, patch, fails):
        self.device, self.stream = 0, "usual"
        self.fails = fails
        cuda = torch.cuda
        patch.setattr(cuda, "device", lambda device: self._within("device", torch.device(device).index or 0))
        patch.setattr(cuda, "stream", lambda stream: self._within("stream", stream))
        patch.setattr(cuda, "graph", lambda graph, pool, stream, capture_error_mode: self._captured(stream))
        patch.setattr(cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
        patch.setattr(cuda, "Stream", lambda: SimpleNamespace(wait_stream=lambda other: None))
        patch.setattr(cuda, "current_stream", lambda: SimpleNamespace(wait_stream=lambda other: None))

    @contextmanager
    def _within(self, name, value):
        before = getattr(self, name)
        setattr(self, name, value)
        try:
            yield
        finally:
            setattr(self, name, before)

    @contextmanager
    def _captured(self, stream):
        # as torch's: where its end fails, its stream stays
        self.stream, before = stream, self.stream
        yield
        if self.fails:
            raise RuntimeError("capture failed")
        self.stream = before


class Placed(torch.Tensor):
    """An image of the CPU that says it is on the second GPU."""

    device = torch.device("cuda", 1)


@pytest.mark.parametrize("fails", [False, True], ids=["recorded", "failed"])
def test_device_and_stream_are_what_they_were(fails, monkeypatch):
    seen = []
    torch_cuda = Device(monkeypatch, fails)

    def network(x):
        seen.append((torch_cuda.device, torch_cuda.stream == "usual"))
        return x.clone()

    x = frame(0).as_subclass(Placed)
    if fails:
        with refused(RuntimeError, "capture failed"):
            Graph(network, x, object())
    else:
        Graph(network, x, object())(x)
    assert seen == [(1, False)] * 3
    assert (torch_cuda.device, torch_cuda.stream) == (0, "usual")


def test_threads(recorder):
    wrong = []

    def work(seed):
        for place in range(50):
            x = frame(100 * seed + place, 3 + place % 2, 4)
            if not torch.equal(recorder(double, "double", x), 2 * x):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert Recording.made == 2


@pytest.fixture
def weights(tmp_path, monkeypatch):
    ship_random_weights(tmp_path, monkeypatch)


@pytest.mark.parametrize("method", ["zerodce", "zerodce++"])
def test_the_enhancer_records(method, recorder, monkeypatch, weights):
    """As on a GPU, with recordings that the CPU can make."""
    monkeypatch.setattr(runner, "Graphs", lambda: recorder)
    monkeypatch.setattr(runner, "_can_record", lambda x: True)
    random = np.random.default_rng(0)
    frames = [random.integers(0, 90, (21, 30, 3), dtype=np.uint8) for _ in range(4)]
    for settings in ({}, {"strength": 0.5}, {"channels": "bgr"}, {"tile": 16}):
        plain = fastllie.Enhancer(method, cuda_graph=False, **settings)
        assert plain._run.graphs is None
        expected = [plain(image) for image in frames]
        enhancer = fastllie.Enhancer(method, **settings)
        recorder.__init__(Recording, Turns)
        monkeypatch.setattr(Recording, "made", 0)
        got = [enhancer(image) for image in frames]
        assert Recording.made == 1
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        # a frame in OpenCV's order is no image in the other
        assert np.array_equal(enhancer.preprocess(frames[0]), plain.preprocess(frames[0]))


def test_what_is_not_recorded(weights):
    for settings in ({"cuda_graph": False}, {"compile": True}):
        assert fastllie.Enhancer("zerodce", **settings)._run.graphs is None
    # one kernel is one launch
    assert fastllie.Enhancer("sci")._run.graphs is None
    enhancer = fastllie.Enhancer("zerodce")
    for _ in range(3):
        enhancer(torch.rand(3, 8, 9))
    assert not enhancer._run.graphs._seen
    with refused(TypeError, "cuda_graph must be True or False, got 1"):
        fastllie.Enhancer("zerodce", cuda_graph=1)
