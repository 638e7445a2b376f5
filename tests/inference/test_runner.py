"""The runner and a network's contract: one that observes the whole picture, and then runs in exact tiles."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import same_levels
from torch import Tensor

import fastllie
from fastllie import checkpoint
from fastllie.inference import loading, tiles
from fastllie.models.contract import Contract, Grid, Observed, Window
from fastllie.models.network import Built, Network


class Toy(Network):
    """Exposes by the mean of the whole picture, darkens its lower right, and blurs over five pixels."""

    def __init__(self, cropping: bool = False, grid: bool = False):
        super().__init__()
        self.cropping, self.grid = cropping, grid
        self.level = torch.nn.Parameter(torch.tensor(0.5))
        self.seen: list[tuple[tuple[int, ...], torch.dtype]] = []
        self._built = Built.of(self, Toy)

    @property
    def contract(self) -> Contract:
        grid = Grid(4, self.completed, 1000.0) if self.grid else None
        # a multiple of the grid's
        halo = 4 if self.grid else 2
        return Contract(halo, crops=self.cropping, grid=grid, observes=True, located=True)

    @staticmethod
    def completed(side: int) -> Tensor:
        length = -(-side // 4) * 4
        return (torch.arange(length) - (length - side) // 2).clamp(0, side - 1)

    def observe(self, x: Tensor) -> Observed:
        self.seen.append((tuple(x.shape), x.dtype))
        x = x / 255 if x.dtype == torch.uint8 else x
        weights = torch.tensor([0.5, 0.3, 0.2]).to(x)
        return Observed({"mean": torch.einsum("bchw,c->b", x, weights) / x[0, 0].numel()})

    def forward(
        self, x: Tensor, cropped: bool = False, mean: Tensor | None = None, window: Window | None = None
    ) -> Tensor:
        if mean is None:
            mean, window = self.observe(x).keywords["mean"], Window(0, 0, *x.shape[-2:])
        assert len(mean) == len(x)
        assert window is not None
        # the last pixel goes on where the piece lies beyond the image
        rows, columns = (
            (first + torch.arange(count)).clamp(0, length - 1) / length
            for first, count, length in zip(window[:2], x.shape[-2:], window[2:], strict=True)
        )
        y = x * (self.level / mean.view(-1, 1, 1, 1)) * (1 - 0.3 * rows[:, None] * columns).to(x.dtype)
        padded = y if cropped else F.pad(y, (2, 2, 2, 2), mode="replicate")
        return F.avg_pool2d(padded, 5, 1).clamp(0, 1)


@pytest.fixture(params=["clipped", "cropping", "grid"])
def toy(request, monkeypatch):
    """The enhancers of "zerodce" run it."""
    network = Toy(cropping=request.param == "cropping", grid=request.param == "grid").requires_grad_(False)
    monkeypatch.setattr(loading, "_models", type(loading._models)())
    monkeypatch.setattr(checkpoint, "build", lambda *_: network)
    return network


X = torch.rand(3, 3, 37, 50, generator=torch.Generator().manual_seed(0)) * 0.5


@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize("tile", [5, 16, 40])
def test_tiles_know_what_the_whole_showed(toy, tile, strength):
    x = X.clone()
    # not of one brightness: each image is given its own
    x[1] *= 0.5
    whole = fastllie.enhance(x, tile=None, strength=strength)
    toy.seen.clear()
    got = fastllie.enhance(x, tile=tile, strength=strength)
    torch.testing.assert_close(got, whole, rtol=0, atol=1e-6)
    # the whole batch, once
    assert toy.seen == [((3, 3, 37, 50), torch.float32)]
    assert (whole - x).abs().max() > 0.1


def test_the_control_that_tiles_alone_would_differ(toy):
    with torch.no_grad():
        alone = toy(X[..., :20, :20])
        assert (toy(X)[..., :18, :18] - alone[..., :18, :18]).abs().max() > 0.01


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_bytes_in_tiles(toy, channels):
    frames = (X * 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    whole = fastllie.enhance(frames, tile=None, channels=channels)
    toy.seen.clear()
    enhancer = fastllie.Enhancer(tile=11, channels=channels)
    assert same_levels(enhancer(frames), whole.astype(np.int64))
    # bytes, as they are: no float image of the whole is made for it
    assert toy.seen == [((3, 3, 37, 50), torch.uint8)]
    assert same_levels(enhancer.preprocess(frames), whole.astype(np.int64))


def test_a_whole_image_observes_for_itself(toy):
    fastllie.enhance(X[:, :, :9, :9])
    assert {dtype for _, dtype in toy.seen} == {torch.float32}
    assert not fastllie.Enhancer(cuda_graph=True)._run.graphs


def test_automatic_tiles(toy, monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", 20)
    monkeypatch.setattr(tiles, "CPU_BYTES", 900_000)
    whole = fastllie.enhance(X, tile=None)
    torch.testing.assert_close(fastllie.enhance(X), whole, rtol=0, atol=1e-6)


def test_compiled(toy, monkeypatch):
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **how: real(model, backend="eager", **how))
    want = fastllie.enhance(X, tile=16)
    got = fastllie.Enhancer(compile=True, tile=16)(X)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
