"""Networks recorded as CUDA graphs: one launch where there were dozens, once images of a shape come again."""

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

# A frame of 1920x1080. For larger ones a GPU takes longer than Python for its launches, and the memory that
# a network works in stays with its recording
MOST_PIXELS = 2**21
KEPT = 8
# Shapes that came once are remembered by name only
REMEMBERED = 256
# Libraries choose algorithms, and Triton compiles for what it is given, before anything can be recorded
WARMUP = 2

Network = Callable[[Tensor], Tensor]


class Graph:
    """A network recorded on one shape. Replays of all graphs of a pool have to follow one another.

    Args:
        network: Reads nothing but its image and weights that stay as they are, and waits for nothing.
        x: An image of the shape, on its GPU.
        pool: The memory that it works in, from `torch.cuda.graph_pool_handle`.
    """

    def __init__(self, network: Network, x: Tensor, pool: Any):
        # its weights have to stay where they are
        self._network = network
        with torch.cuda.device(x.device):
            current, own = torch.cuda.current_stream(), torch.cuda.Stream()
            own.wait_stream(current)
            with torch.cuda.stream(own):
                self._given = x.clone()
                for _ in range(WARMUP):
                    network(self._given)
            self._graph = torch.cuda.CUDAGraph()
            # what other threads do at the time, say reading the next image, is no business of this recording
            recording = torch.cuda.graph(
                self._graph, pool=pool, stream=own, capture_error_mode="thread_local"
            )
            # where a recording fails, its stream stays the current one: the outer of these puts back what was
            with torch.cuda.stream(own), recording:
                self._result = network(self._given)
            current.wait_stream(own)

    def __call__(self, x: Tensor) -> Tensor:
        """The result, in memory of its own, on the current stream."""
        with torch.cuda.device(x.device):
            self._given.copy_(x)
            self._graph.replay()
            return self._result.clone()


class Turns:
    """Puts what different streams do on one device one after the other; also its pool of memory."""

    def __init__(self, device: torch.device):
        self.pool = torch.cuda.graph_pool_handle()
        with torch.cuda.device(device):
            self._done = torch.cuda.Event()

    def wait(self, device: torch.device) -> None:
        torch.cuda.current_stream(device).wait_event(self._done)

    def finish(self, device: torch.device) -> None:
        self._done.record(torch.cuda.current_stream(device))

    def synchronize(self) -> None:
        self._done.synchronize()


class Graphs:
    """Runs networks, and records those that see a shape for the second time; safe from several threads.

    Results never share memory with each other. An image of more than 2^21 pixels is computed without a
    recording, and so is one whose recording fails, say for want of memory: with one warning.
    """

    def __init__(self, record: Callable[[Network, Tensor, Any], Network] = Graph, turns: Any = Turns):
        self._record, self._turns_on = record, turns
        self._lock = threading.Lock()
        self._turns: dict[torch.device, Any] = {}
        self._seen: OrderedDict[Hashable, bool] = OrderedDict()  # and whether it may be recorded
        self._graphs: OrderedDict[Hashable, Network] = OrderedDict()
        self._warned = False

    def __call__(self, network: Network, kind: Hashable, x: Tensor) -> Tensor:
        """`network(x)`.

        Args:
            network: As for `Graph`.
            kind: What the network computes, besides the shape, dtype, strides and device of `x`.
            x: Images, `[B, 3, H, W]` on a GPU.
        """
        batch, _, height, width = x.shape
        if batch * height * width > MOST_PIXELS:
            return network(x)
        key = kind, x.shape, x.stride(), x.dtype, x.device
        failed: Exception | None = None
        with self._lock:
            if key in self._graphs or self._comes_again(key):
                try:
                    graph = self._recorded(key, network, x)
                # libraries that cannot be recorded, drivers, want of memory
                except Exception as error:
                    self._seen[key], failed = False, error
                else:
                    y = graph(x)
                    self._turns[x.device].finish(x.device)
                    return y
        # what is wrong with the network or the image shows here too
        y = network(x)
        if failed is not None:
            self._warn(failed)
        return y

    def _comes_again(self, key: Hashable) -> bool:
        """Whether a shape that has no recording shall get one; remembers that it came."""
        known = key in self._seen
        self._seen.setdefault(key, True)
        self._seen.move_to_end(key)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return known and self._seen[key]

    def _recorded(self, key: Hashable, network: Network, x: Tensor) -> Network:
        """The recording, when it is its turn; made if it is missing."""
        if x.device not in self._turns:
            self._turns[x.device] = self._turns_on(x.device)
        turns = self._turns[x.device]
        turns.wait(x.device)
        if key not in self._graphs:
            while len(self._graphs) >= KEPT:
                # its memory may be in use until the last replay is through
                for other in self._turns.values():
                    other.synchronize()
                self._graphs.popitem(last=False)
            self._graphs[key] = self._record(network, x, turns.pool)
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _warn(self, error: Exception) -> None:
        """Say once why images are launched kernel by kernel."""
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            lines = str(error).strip().splitlines()
            reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
            message = f"no CUDA graph could be recorded ({reason}); such images are launched kernel by kernel"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
