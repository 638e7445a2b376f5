"""Whether the kernels of this machine compute what the formulas say."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastllie.ops import backend as backends
from fastllie.ops import reference
from fastllie.ops.curve import apply_curve
from fastllie.ops.gridcurve import PLANES, apply_grid_curve
from fastllie.ops.illumination import divide_illumination, illuminate
from fastllie.ops.sci import enhance_sci
from fastllie.ops.smoothness import smoothness_loss
from fastllie.ops.zero_reference import zero_reference_losses
from fastllie.ops.zerodce import CAPABILITY, CHANNELS, enhance_zerodce, pack_zerodce

# float32 arithmetic against float64: eight steps with |alpha| <= 0.5 amplify rounding by at most 1.5^8 = 26
TOLERANCE = 1e-5
# of a network whose features are float16: two thousandths of an image's range were seen, a wrong weight moves
# more than a tenth
HALF_TOLERANCE = 1e-2


@dataclass(frozen=True)
class SelfTest:
    """One operator on one backend: whether it agrees with the reference, and how closely (or its error)."""

    op: str
    backend: str
    ok: bool
    detail: str


def default_backend(device: str | torch.device = "cpu", op: str | None = None) -> str:
    """Return the name of the backend that "auto" takes for tensors on `device`.

    Args:
        device: Where they are.
        op: For an operator by its torch name, e.g. "curve_backward": on a GPU it may be another than for the
            others. None for one of which nothing is known.

    Raises:
        RuntimeError: the environment variable FASTLLIE_BACKEND names one that cannot serve there.
        ValueError: it names none.
    """
    return backends.choose("auto", torch.empty(0, device=device), op)


def self_test(only: str | None = None) -> list[SelfTest]:
    """Compare every operator, and its gradients if it has any, on each backend with the float64 reference.

    Args:
        only: The name of the one backend that is compared; None compares all that can serve.
    """
    rows = []
    for backend, found in backends.backends().items():
        if found and backend != "torch" and only in (None, backend):
            on_gpu = backend == "cuda" or (backend == "triton" and not backends.interpreting())
            old = on_gpu and torch.cuda.get_device_capability() < CAPABILITY
            ops = [op for op, described in _OPS.items() if not (described.half and old)]
            rows += [_compare(op, backend, "cuda" if on_gpu else "cpu") for op in ops]
    return rows


@dataclass(frozen=True)
class _Op:
    """An operator, its formula, the formula of its gradients or None, and its inputs' channels and ranges.

    `half`: the backends "cuda" and "triton" have it for float16, and not for float32.
    """

    function: Callable[..., Tensor | tuple[Tensor, ...]]
    formula: Callable[..., Tensor | tuple[Tensor, ...]]
    backward: Callable[..., tuple[Tensor, ...]] | None
    inputs: tuple[tuple[int, float, float], ...]
    half: bool = False


_OPS = {
    "curve": _Op(
        apply_curve,
        lambda x, alpha: reference.curve(x, alpha, 8),
        lambda grad, x, alpha: reference.curve_backward(grad, x, alpha, 8),
        ((3, 0, 1), (24, -0.5, 0.5)),
    ),
    "gridcurve": _Op(
        lambda x, values, guide, backend: apply_grid_curve(x, _grid(values), guide, backend=backend),
        lambda x, values, guide: reference.apply_grid_curve(x, _grid(values), guide),
        lambda *tensors: _grid_curve_backward(*tensors),
        ((3, 0.4, 0.9), (2 * PLANES, -0.3, 0.3), (1, 0, 1)),
    ),
    # away from the bounds of the clamps, where rounding decides whether a gradient passes
    "illumination": _Op(
        divide_illumination,
        lambda x, illum: reference.divide_illumination(x, illum),
        lambda grad, x, illum: reference.divide_backward(grad, x, illum),
        ((3, 0.1, 0.4), (3, 0.5, 1)),
    ),
    "illuminate": _Op(
        illuminate,
        lambda raw, v, y: reference.illuminate(raw, v, y),
        lambda *tensors: reference.illuminate_backward(*tensors),
        ((3, -2, 0), (3, 0.1, 0.4), (3, 0.05, 0.2)),
    ),
    "sci": _Op(
        lambda x, backend: enhance_sci(x, *_sci_network(x), backend=backend),
        lambda x: reference.sci(x, *_sci_network(x), True, "zeros"),
        None,
        ((3, 0, 1),),
    ),
    "zerodce": _Op(
        lambda x, backend: enhance_zerodce(
            x, pack_zerodce(*_zerodce_network(x), dtype=x.dtype, backend=backend), backend=backend
        ),
        lambda x: reference.zerodce(x, *_zerodce_network(x), "replicate"),
        None,
        ((3, 0, 1),),
        half=True,
    ),
    "smoothness": _Op(
        lambda illum, guide, backend: smoothness_loss(illum, guide, sigma=0.3, backend=backend),
        lambda illum, guide: reference.smoothness(illum, guide, 0.3, "ycbcr", "pixel"),
        lambda grad, illum, guide: reference.smoothness_backward(grad, illum, guide, 0.3, "ycbcr", "pixel"),
        ((3, 0, 1), (3, 0, 1)),
    ),
    "zero_reference": _Op(
        zero_reference_losses,
        lambda x, alpha: reference.zero_reference(x, alpha, 8, False, 0.6),
        lambda a, b, c, d, x, alpha: reference.zero_reference_backward(
            torch.stack((a, b, c, d)), x, alpha, 8, False, 0.6
        ),
        ((3, 0, 1), (24, -0.5, 0.5)),
    ),
}


def _grid(values: Tensor) -> Tensor:
    """A grid of 2 lumas, 2 rows and 3 columns from an image of 12 channels."""
    return values[..., ::16, ::15].unflatten(1, (PLANES, 2))


def _grid_curve_backward(grad: Tensor, x: Tensor, values: Tensor, guide: Tensor) -> tuple[Tensor, ...]:
    grad_x, grad_grid, grad_guide = reference.grid_curve_backward(
        grad, x, _grid(values), guide, (0, 0), None, 8
    )
    grad_values = torch.zeros_like(values)
    grad_values[..., ::16, ::15] = grad_grid.flatten(1, 2)
    return grad_x, grad_values, grad_guide


def _sci_network(x: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of alternating signs and different sizes, and biases, that keep every layer alive."""
    taps = torch.arange(243, dtype=x.dtype, device=x.device).view(3, 3, 3, 3, 3)
    return torch.sin(taps * 2.4) * 0.3, torch.full((3, 3), 0.1, dtype=x.dtype, device=x.device)


def _zerodce_network(x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of which no two layers are alike, and maps of both signs."""
    weights, biases = [], []
    for layer, (inputs, outputs) in enumerate(CHANNELS):
        places = torch.arange(outputs * inputs * 9, dtype=torch.float64, device=x.device)
        weight = (
            torch.sin(places * (2.4 + 0.1 * layer)).view(outputs, inputs, 3, 3) * (4 / (9 * inputs)) ** 0.5
        )
        weights.append(weight.to(x.dtype))
        biases.append(torch.sin(torch.arange(outputs, dtype=x.dtype, device=x.device)) * 0.1)
    return weights, biases


def _tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else value


def _compare(name: str, backend: str, device: str) -> SelfTest:
    op = _OPS[name]
    generator = torch.Generator().manual_seed(0)

    def draw(channels: int, low: float, high: float) -> Tensor:
        return torch.rand(2, channels, 17, 31, generator=generator) * (high - low) + low

    half = op.half and backend != "cpu"
    tensors = [draw(*spec).to(torch.float16 if half else torch.float32) for spec in op.inputs]
    exact = [tensor.double() for tensor in tensors]
    expected = _tuple(op.formula(*exact))
    inputs = [tensor.to(device) for tensor in tensors]
    try:
        if op.backward is None:
            outs = got = _tuple(op.function(*inputs, backend=backend))
        else:
            grads = [draw(3, 0, 1) if value.dim() else torch.tensor(1.0) for value in expected]
            expected += op.backward(*(grad.double() for grad in grads), *exact)
            leaves = [tensor.requires_grad_() for tensor in inputs]
            outs = _tuple(op.function(*leaves, backend=backend))
            got = outs + torch.autograd.grad(outs, leaves, [grad.to(device) for grad in grads])
    except (RuntimeError, TypeError, ValueError) as error:
        return SelfTest(name, backend, False, f"{type(error).__name__}: {error}")
    differences = [
        float((g.detach().cpu() - e).abs().max() / max(1.0, float(e.abs().max())))
        for g, e in zip(got, expected, strict=True)
    ]
    values, gradients = differences[: len(outs)], differences[len(outs) :]
    detail = f"off the reference by at most {max(values):.1e}"
    if gradients:
        detail += f", its gradients by {max(gradients):.1e}"
    return SelfTest(name, backend, max(differences) <= (HALF_TOLERANCE if half else TOLERANCE), detail)
