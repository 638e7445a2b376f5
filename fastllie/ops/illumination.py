"""The illumination division of SCI, fused with the end of its network: one pass, forward and backward."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastllie.ops import backend as backends
from fastllie.ops import reference
from fastllie.ops.checks import check_images
from fastllie.ops.direct import Operator
from fastllie.ops.gradient import Gradient, where_needed
from fastllie.ops.launch import kernels
from fastllie.ops.tensors import differentiate_formula, empty_gradients, fill, gradients_to_fill, wide


def divide_illumination(x: Tensor, illum: Tensor, *, backend: str = "auto") -> Tensor:
    """Divide an image by its illumination: clamp(x / illum, 0, 1)  (Retinex, as in SCI).

    Differentiable in both arguments, twice; the gradient passes where the quotient lies in [0, 1], the bounds
    included. Arithmetic is float32 (float64 for float64 inputs). Any strides are read in place; the result
    has the memory format of `x`.

    Args:
        x: Images, `[B, C, H, W]`; float64, float32, bfloat16 or float16.
        illum: Illuminations of the same shape, positive. Where the dtypes differ the promoted one counts.
        backend: "auto", or one of `fastllie.backends()`.

    Raises:
        TypeError: an argument that is not a floating-point tensor.
        ValueError: different shapes or devices, an unknown backend.
        RuntimeError: a backend asked for by name that cannot serve.
    """
    x, illum = _checked(backend, x=x, illum=illum)
    return _divide(x, illum, backend)


def illuminate(raw: Tensor, v: Tensor, y: Tensor, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """From a network's raw output to illumination and enhanced image, the end of a stage of SCI, in one pass.

    illum = clamp(sigmoid(raw) + v, 1e-4, 1), out = clamp(y / illum, 0, 1). Differentiable as
    `divide_illumination`.

    Args:
        raw: The output of the last convolution, `[B, C, H, W]`, before the sigmoid.
        v: The input of the stage, which the network's output is added to.
        y: The low-light image.
        backend: "auto", or one of `fastllie.backends()`.

    Returns:
        The illumination and the enhanced image, both of the promoted dtype.

    Raises:
        TypeError, ValueError, RuntimeError: as `divide_illumination`.
    """
    raw, v, y = _checked(backend, raw=raw, v=v, y=y)
    return _illuminate(raw, v, y, backend)


def _checked(backend: str, **tensors: Tensor) -> list[Tensor]:
    """The tensors in their common dtype."""
    check_images(**tensors)
    backends.check_name(backend)
    first, *others = tensors.values()
    dtype = first.dtype
    for other in others:
        if other.shape != first.shape:
            listed = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
            raise ValueError(f"all must have one shape, got {listed}")
        if other.dtype != dtype:
            dtype = torch.promote_types(dtype, other.dtype)
    return [tensor if tensor.dtype == dtype else tensor.to(dtype) for tensor in tensors.values()]


def _run(
    op: str,
    formula: Callable[..., Any],
    inputs: Sequence[Tensor],
    outs: Sequence[Tensor | None],
    needs: Sequence[bool],
    name: str,
    *settings: Any,
) -> None:
    """Fill the outputs that are needed by the kernel for `op` of a backend, or by the formula."""
    x = inputs[0]
    if name == "torch":
        values = formula(*map(wide, inputs))
        fill(outs, (values,) if isinstance(values, Tensor) else values, needs)
    elif x.numel():
        module, handles, place = kernels(name, "illumination", x)
        getattr(module, op)(*handles(*inputs, *outs), x.shape, *settings, *place)


def _illumination_forward(x: Tensor, illum: Tensor, backend: str) -> Tensor:
    name = backends.choose(backend, x, "illumination_forward")
    out = torch.empty_like(x)
    _run("illumination_forward", reference.divide_illumination, (x, illum), (out,), (True,), name)
    return out


def _illumination_backward(
    grad: Tensor, x: Tensor, illum: Tensor, need_x: bool, need_illum: bool, backend: str
) -> tuple[Tensor | None, ...]:
    needs = (need_x, need_illum)
    name = backends.choose(backend, x, "illumination_backward")
    outs = gradients_to_fill(name, (x, illum), needs)
    _run("illumination_backward", reference.divide_backward, (grad, x, illum), outs, needs, name, needs)
    return outs


def _illuminate_forward(raw: Tensor, v: Tensor, y: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    name = backends.choose(backend, raw, "illuminate_forward")
    outs = torch.empty_like(v), torch.empty_like(y)
    _run("illuminate_forward", reference.illuminate, (raw, v, y), outs, (True, True), name)
    return outs


def _illuminate_backward(
    grad_illum: Tensor,
    grad_out: Tensor,
    raw: Tensor,
    v: Tensor,
    y: Tensor,
    need_raw: bool,
    need_v: bool,
    need_y: bool,
    backend: str,
) -> tuple[Tensor | None, ...]:
    needs = (need_raw, need_v, need_y)
    name = backends.choose(backend, raw, "illuminate_backward")
    outs = gradients_to_fill(name, (raw, v, y), needs)
    inputs = (grad_illum, grad_out, raw, v, y)
    _run("illuminate_backward", reference.illuminate_backward, inputs, outs, needs, name, needs)
    return outs


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, gradient, *grads):  # type: ignore[no-untyped-def]
    needs = ctx.needs_input_grad[:-1]
    found = gradient(*grads, *ctx.saved_tensors, *needs, ctx.backend)
    return *where_needed(found, needs), None


def _save_twice(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    ctx.needed = [value for value in inputs if isinstance(value, bool)]
    ctx.save_for_backward(*tensors)


def _differentiate_twice(ctx, formula, cotangents):  # type: ignore[no-untyped-def]
    grads = differentiate_formula(formula, ctx.saved_tensors, ctx.needed, cotangents)
    return *grads, *(None for _ in ctx.needed), None


_library = torch.library.Library("fastllie", "FRAGMENT")


def _register(
    name: str, inputs: str, grads: str, outputs: str, implementations: tuple, formula: Callable
) -> Operator:
    forward, empty, backward = implementations
    tensors = ", ".join(f"Tensor {word}" for word in inputs.split())
    cotangents = ", ".join(f"Tensor {word}" for word in grads.split())
    needs = ", ".join(f"bool need_{word}" for word in inputs.split())
    gradients = ", ".join("Tensor" for _ in inputs.split())
    first, count = len(grads.split()), len(inputs.split())

    def fake(*arguments: Any) -> tuple[Tensor, ...]:
        return empty_gradients(arguments[first : first + count], arguments[first + count : -1])

    gradient = Gradient(
        _library,
        f"{name}_backward({cotangents}, {tensors}, {needs}, str backend) -> ({gradients})",
        backward,
        fake,
        lambda ctx, *cotangents: _differentiate_twice(ctx, formula, cotangents),
        _save_twice,
    )
    return Operator(
        _library,
        f"{name}_forward({tensors}, str backend) -> {outputs}",
        forward,
        empty,
        lambda ctx, *grads: _differentiate(ctx, gradient, *grads),
        _save,
    )


_divide = _register(
    "illumination",
    "x illum",
    "grad",
    "Tensor",
    (_illumination_forward, lambda x, illum, backend: torch.empty_like(x), _illumination_backward),
    reference.divide_backward,
)
_illuminate = _register(
    "illuminate",
    "raw v y",
    "grad_illum grad_out",
    "(Tensor, Tensor)",
    (
        _illuminate_forward,
        lambda raw, v, y, backend: (torch.empty_like(v), torch.empty_like(y)),
        _illuminate_backward,
    ),
    reference.illuminate_backward,
)
