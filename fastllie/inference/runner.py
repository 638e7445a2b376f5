"""One batch through one network, as the network's contract has it: whole, in tiles, recorded, compiled."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastllie import checkpoint
from fastllie.inference.cuda_graphs import Graphs
from fastllie.inference.levels import through_floats
from fastllie.inference.loading import Weights, exclusively, shared_network
from fastllie.inference.tiles import Model, aligned, blended, check_tile, most_pixels, on_grid, tiled
from fastllie.models.contract import Observed, Window
from fastllie.models.network import Network
from fastllie.ops.backend import choose

# Pixels over which tiles fade into each other where they can only be approximate
OVERLAP = 128


class Runner:
    """Runs batches `[B, 3, H, W]`, bytes or floats in [0, 1], and gives the like; safe from several threads.

    Args:
        method, weights, options: The network, on whatever device a batch comes from.
        device: Where it is loaded at once, so that what does not fit is reported now.
        dtype, tile, strength, compile, cuda_graph: As for `Enhancer`.

    Raises:
        TypeError, ValueError, FileNotFoundError: weights or a tile that do not fit.

    Attributes:
        path: The file of its weights.
        graphs: What is recorded for a GPU, if the network is of that kind.
    """

    def __init__(
        self,
        method: str,
        weights: Weights,
        options: dict[str, Any],
        *,
        device: torch.device,
        dtype: torch.dtype,
        tile: int | str | None,
        strength: float,
        compile: bool,
        cuda_graph: bool,
    ):
        self.path = checkpoint.find(method, weights)
        self._shared = partial(shared_network, method, self.path, dtype=dtype, options=options)
        self._dtype, self._strength, self._compile = dtype, strength, compile
        self._compiled: dict[torch.device, Callable[..., Tensor]] = {}
        contract = self._shared(device).contract
        check_tile(tile, contract.halo)
        self._tile, self._contract, self._grid = tile, contract, contract.grid
        if contract.grid is not None:
            self._grid = replace(contract.grid, pixel_bytes=self._taken(contract.grid.pixel_bytes))
        # one pass over the image needs no tiles, and takes a camera's bytes as they are
        self._at_once = contract.one_pass and strength == 1
        # one kernel is one launch as it is, and the others wait for their tiles' places
        launches = not (contract.one_pass or contract.observes) and self._grid is None
        self.graphs = Graphs() if cuda_graph and not compile and launches else None

    def __call__(self, x: Tensor, out: Tensor | None = None, *, bgr: bool = False) -> Tensor:
        """`x` enhanced, in `out` if that is given, apart from `x`; `bgr` is the order of colours in both."""
        # what is made here may not enter the user's own training; what goes back is copied from it. Compiled
        # code is made once more for tensors of inference mode, and tiles are, small images are not
        with torch.no_grad() if self._compile else torch.inference_mode():
            network, backend = self._shared(x.device), choose("auto", x)
            tile = self._tile_of(x, backend)
            if tile is None and self._takes_bytes(backend) and out is not None and not self._compile:
                return network.enhance_into(x, out, bgr=bgr)
            contract, run = self._contract, self._code(network, x.device)
            model: Model = partial(_mixed, run, self._strength)
            if self._grid is not None and contract.halo is None and tile == "auto":
                tile, model = self._faded(network, model, x)
            whole = self._around(model, network, x, backend, bgr)
            told = None
            if contract.observes and contract.halo is not None:
                told = _Pieces(network, x, bgr)
            if self._grid is not None and contract.halo is not None:
                return on_grid(whole, x, tile, contract.halo, self._grid, told=told, out=out)
            if contract.aligned > 1 and contract.halo is not None:
                return aligned(whole, x, tile, contract.halo, contract.aligned, told=told, out=out)
            cropping: Model | None = None
            if contract.crops and contract.halo is not None:
                cropping = self._around(partial(model, cropped=True), network, x, backend, bgr, "cropped")
            return tiled(whole, x, tile, contract.halo, cropping=cropping, told=told, out=out)

    def _takes_bytes(self, backend: str) -> bool:
        """Whether bytes go to the network as they are: the CPU's kernels need not round them to bfloat16."""
        if self._dtype == torch.bfloat16:
            return self._at_once and backend == "cpu" and not self._compile
        return self._at_once and self._dtype == torch.float32

    def _tile_of(self, x: Tensor, backend: str) -> int | str | None:
        if self._tile != "auto":
            return self._tile
        as_it_is = self._strength == 1 and (x.dtype != torch.uint8 or self._takes_bytes(backend))
        # plain PyTorch goes layer by layer, and wants tiles as any network does
        if self._contract.one_pass and as_it_is and backend != "torch":
            return None
        if self._compile or backend != "cpu":
            return "auto"
        return self._contract.cpu_tile or "auto"

    def _code(self, network: Network, device: torch.device) -> Callable[..., Tensor]:
        if not self._compile:
            return network
        with exclusively():
            if device not in self._compiled:
                # fullgraph: otherwise what it cannot compile would run uncompiled, and nobody would know
                self._compiled[device] = torch.compile(_alone(network), dynamic=True, fullgraph=True)
            return self._compiled[device]

    def _around(
        self, model: Model, network: Network, x: Tensor, backend: str, bgr: bool, kind: str = "whole"
    ) -> Model:
        """A model of floats of RGB as one of the batch's kind, recorded where it can be."""
        if x.dtype == torch.uint8 and not self._takes_bytes(backend):
            model = through_floats(model, self._dtype)
        if bgr:
            model = partial(_flipped, model)
        if self.graphs is not None and _can_record(x):
            # everything that a recording rests on and its image does not show
            rests = id(network), bgr, backend, torch.backends.cudnn.allow_tf32, kind
            model = partial(self.graphs, model, rests)
        return model

    def _faded(self, network: Network, model: Model, x: Tensor) -> tuple[int, Model]:
        """Where the result depends on the whole image: how many pixels square go at once, and how."""
        assert self._grid is not None
        observed = network.observe(x) if self._contract.observes else Observed({})
        taken = self._grid.pixel_bytes
        if observed.pixel_bytes is not None:
            taken = self._taken(observed.pixel_bytes)
        side = math.isqrt(most_pixels(x.device, taken))
        if x.shape[-2] * x.shape[-1] <= side**2:
            return side, model
        side = side // self._grid.multiple * self._grid.multiple

        def run(images: Tensor) -> Tensor:
            told = _Pieces(network, images, False) if self._contract.observes else None
            return blended(model, images, side, min(OVERLAP, side // 2), told=told)

        return side, run

    def _taken(self, pixel_bytes: float) -> float:
        """Memory in the dtype that is computed in, of that in float32."""
        return pixel_bytes * self._dtype.itemsize / 4


class _Pieces:
    """What a network that observes is given with each piece of a batch; it observes when first asked."""

    def __init__(self, network: Network, x: Tensor, bgr: bool):
        self._observe = partial(network.observe, x.flip(1) if bgr else x)
        self._located = network.contract.located
        self._keywords: dict[str, Any] | None = None

    def __call__(self, images: slice, window: Window) -> dict[str, Any]:
        if self._keywords is None:
            self._keywords = self._observe().keywords
        here = {
            name: value[images] if isinstance(value, Tensor) else value
            for name, value in self._keywords.items()
        }
        return {**here, "window": window} if self._located else here


def _alone(network: Network) -> Callable[..., Tensor]:
    """The network as a function of its own: torch.compile counts the versions of all of one class."""

    def run(x: Tensor, **how: Any) -> Tensor:
        return network(x, **how)

    run.__code__ = run.__code__.replace()
    return run


def _can_record(x: Tensor) -> bool:
    """Whether a network may be recorded on the device of `x`: not while the caller records, or autocasts."""
    return (
        x.is_cuda and not torch.cuda.is_current_stream_capturing() and not torch.is_autocast_enabled("cuda")
    )


def _mixed(model: Callable[..., Tensor], strength: float, x: Tensor, **how: Any) -> Tensor:
    """The model's result, mixed with the image itself where that is asked for."""
    y = model(x, **how)
    if strength == 1:
        return y
    margin = (x.shape[-1] - y.shape[-1]) // 2
    return torch.lerp(x[..., margin : x.shape[-2] - margin, margin : x.shape[-1] - margin], y, strength)


def _flipped(model: Model, x: Tensor, **how: Any) -> Tensor:
    return model(x.flip(1), **how).flip(1)
