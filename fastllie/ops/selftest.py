"""Whether the kernels of this machine compute what the formulas say."""

from dataclasses import dataclass

import torch

from fastllie.ops import backend as backends
from fastllie.ops import reference
from fastllie.ops.curve import apply_curve

# float32 arithmetic against float64: eight steps with |alpha| <= 0.5 amplify rounding by at most 1.5^8 = 26
TOLERANCE = 1e-5


@dataclass(frozen=True)
class SelfTest:
    """One operator on one backend: whether it agrees with the reference, and how closely (or its error)."""

    op: str
    backend: str
    ok: bool
    detail: str


def default_backend(device: str | torch.device = "cpu") -> str:
    """Return the name of the backend that "auto" takes for tensors on `device`.

    Raises:
        RuntimeError: the environment variable FASTLLIE_BACKEND names one that cannot serve there.
        ValueError: it names none.
    """
    return backends.choose("auto", torch.empty(0, device=device))


def self_test() -> list[SelfTest]:
    """Compare every operator, forward and backward, on each available backend with the float64 reference."""
    return [
        _curve(
            name, "cuda" if name == "cuda" or (name == "triton" and not backends.interpreting()) else "cpu"
        )
        for name, found in backends.backends().items()
        if found and name != "torch"
    ]


def _curve(backend: str, device: str) -> SelfTest:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 17, 31, generator=generator)
    alpha = torch.rand(2, 24, 17, 31, generator=generator) - 0.5
    grad = torch.rand(2, 3, 17, 31, generator=generator)
    expected = (
        reference.curve(x.double(), alpha.double(), 8),
        *reference.curve_backward(grad.double(), x.double(), alpha.double(), 8),
    )
    inputs = (x.to(device).requires_grad_(), alpha.to(device).requires_grad_())
    try:
        out = apply_curve(*inputs, steps=8, backend=backend)
        got = (out, *torch.autograd.grad(out, inputs, grad.to(device)))
    except (RuntimeError, TypeError, ValueError) as error:
        return SelfTest("curve", backend, False, f"{type(error).__name__}: {error}")
    differences = [
        float((g.detach().cpu() - e).abs().max() / max(1.0, float(e.abs().max())))
        for g, e in zip(got, expected, strict=True)
    ]
    detail = "differs from the reference by at most {:.1e} (output), {:.1e}, {:.1e} (gradients)".format(
        *differences
    )
    return SelfTest("curve", backend, max(differences) <= TOLERANCE, detail)
