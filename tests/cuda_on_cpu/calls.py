"""Every operator that has a CUDA kernel, called once: what the meter's tests count."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastllie.ops import enhance_sci
from fastllie.ops.zerodce import CHANNELS, enhance_zerodce, pack_zerodce

STEPS = 8
# One number of blocks that are whole, so that what is counted is what a large image costs
SIZE = (2, 32, 128)
LAYOUTS = {"planar": torch.contiguous_format, "interleaved": torch.channels_last}


@dataclass
class Inputs:
    """Random tensors of one dtype and memory format."""

    dtype: torch.dtype
    layout: torch.memory_format
    size: tuple[int, int, int] = SIZE

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(0)
        self.used: list[Tensor] = []

    def __call__(self, channels: int, low: float = 0, high: float = 1) -> Tensor:
        batch, height, width = self.size
        values = torch.rand(batch, channels, height, width, generator=self.random) * (high - low) + low
        self.used.append(values.to(self.dtype).contiguous(memory_format=self.layout))
        return self.used[-1]


def _weights(*shape: int, scale: float = 0.2) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) - 0.5) * 2 * scale


def _curve(inputs: Inputs, tanh: bool, shared: bool = False) -> tuple[Tensor, ...]:
    maps = inputs(3 if shared else 3 * STEPS, -0.5, 0.5)
    return (torch.ops.fastllie.curve_forward(inputs(3), maps, STEPS, tanh, "cuda"),)


def _curve_backward(inputs: Inputs, tanh: bool, shared: bool = False) -> tuple[Tensor, ...]:
    maps = inputs(3 if shared else 3 * STEPS, -0.5, 0.5)
    return torch.ops.fastllie.curve_backward(inputs(3), inputs(3), maps, STEPS, tanh, True, True, "cuda")


def _grid_curve(inputs: Inputs) -> tuple[Tensor, ...]:
    grid, size = _weights(inputs.size[0], 6, 8, 2, 2), inputs.size[1:]
    return (ops.gridcurve_forward(inputs(3), grid, inputs(1), (0, 0), size, STEPS, "cuda"),)


def _grid_curve_backward(inputs: Inputs) -> tuple[Tensor, ...]:
    grid, size = _weights(inputs.size[0], 6, 8, 2, 2), inputs.size[1:]
    grad, x, guide = inputs(3), inputs(3), inputs(1)
    return ops.gridcurve_backward(grad, x, grid, guide, (0, 0), size, STEPS, True, True, True, "cuda")


def _smoothness(inputs: Inputs, norm: str) -> tuple[Tensor, ...]:
    loss, _ = torch.ops.fastllie.smoothness_forward(inputs(3), inputs(3), 0.1, "ycbcr", norm, "cuda")
    return (loss,)


def _smoothness_backward(inputs: Inputs, norm: str) -> tuple[Tensor, ...]:
    means = torch.full((1,) if norm == "pixel" else (2, 12), 0.1, dtype=torch.float64)
    return torch.ops.fastllie.smoothness_backward(
        torch.tensor(1.0), inputs(3), inputs(3), means, 0.1, "ycbcr", norm, True, True, "cuda"
    )


def _zero_reference(inputs: Inputs) -> tuple[Tensor, ...]:
    maps = inputs(3 * STEPS, -0.5, 0.5)
    return torch.ops.fastllie.zero_reference_forward(inputs(3), maps, STEPS, True, 0.6, "cuda")[:1]


def _zero_reference_backward(inputs: Inputs) -> tuple[Tensor, ...]:
    x, maps = inputs(3), inputs(3 * STEPS, -0.5, 0.5)
    _, *means = torch.ops.fastllie.zero_reference_forward(x, maps, STEPS, True, 0.6, "torch")
    return torch.ops.fastllie.zero_reference_backward(
        torch.ones(4), x, maps, *means, STEPS, True, 0.6, True, True, "cuda"
    )


def _zerodce(inputs: Inputs) -> tuple[Tensor, ...]:
    weights = [_weights(outputs, given, 3, 3) for given, outputs in CHANNELS]
    biases = [_weights(outputs) for _, outputs in CHANNELS]
    packed = pack_zerodce(weights, biases, dtype=inputs.dtype, backend="cuda")
    return (enhance_zerodce(inputs(3), packed, padding="zeros", backend="cuda"),)


ops = torch.ops.fastllie
CALLS: dict[str, Callable[[Inputs], tuple[Tensor, ...]]] = {
    "curve_forward": lambda i: _curve(i, False),
    "curve_forward_tanh": lambda i: _curve(i, True),
    "curve_forward_shared": lambda i: _curve(i, True, shared=True),
    "curve_backward": lambda i: _curve_backward(i, False),
    "curve_backward_tanh": lambda i: _curve_backward(i, True),
    "curve_backward_shared": lambda i: _curve_backward(i, True, shared=True),
    "gridcurve_forward": _grid_curve,
    "gridcurve_backward": _grid_curve_backward,
    "illumination_forward": lambda i: (ops.illumination_forward(i(3), i(3, 0.3), "cuda"),),
    "illumination_backward": lambda i: ops.illumination_backward(i(3), i(3), i(3, 0.3), True, True, "cuda"),
    "illuminate_forward": lambda i: ops.illuminate_forward(i(3), i(3), i(3), "cuda"),
    "illuminate_backward": lambda i: ops.illuminate_backward(
        i(3), i(3), i(3), i(3), i(3), True, True, True, "cuda"
    ),
    "smoothness_forward": lambda i: _smoothness(i, "pixel"),
    "smoothness_forward_scalar": lambda i: _smoothness(i, "scalar"),
    "smoothness_backward": lambda i: _smoothness_backward(i, "pixel"),
    "smoothness_backward_scalar": lambda i: _smoothness_backward(i, "scalar"),
    "zero_reference_forward": _zero_reference,
    "zero_reference_backward": _zero_reference_backward,
    "sci": lambda i: (enhance_sci(i(3), _weights(3, 3, 3, 3, 3), _weights(3, 3), backend="cuda"),),
    "zerodce": _zerodce,
}
