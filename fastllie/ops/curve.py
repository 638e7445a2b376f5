"""The light-enhancement curve of Zero-DCE, fused: every step in one pass, nothing stored but the result."""

import torch
from torch import Tensor

from fastllie.ops import backend as backends
from fastllie.ops import reference
from fastllie.ops.checks import check_images, is_int
from fastllie.ops.direct import Operator
from fastllie.ops.gradient import Gradient, where_needed
from fastllie.ops.launch import kernels
from fastllie.ops.tensors import differentiate_formula, empty_gradients, fill, gradients_to_fill, wide

# Maps may be stored narrower than the image, as under autocast: a cast would be a pass over 24 channels
_NARROW_MAPS = {torch.float32: (torch.bfloat16, torch.float16)}


def apply_curve(
    x: Tensor, alpha: Tensor, *, steps: int = 8, tanh: bool = False, backend: str = "auto"
) -> Tensor:
    """Brighten by the quadratic curve, `steps` times: x <- x + alpha * x * (1 - x)  (Zero-DCE, eq. 3).

    Differentiable in both arguments, twice; the backward recomputes the intermediate images and stores none.
    Arithmetic is float32 (float64 for float64 inputs) whatever the storage. Any strides are read in place;
    the result has the memory format of `x`.

    Args:
        x: Images, `[B, 3, H, W]` in [0, 1]; float64, float32, bfloat16 or float16.
        alpha: Curve maps in [-1, 1], `[B, 3 * steps, H, W]`, or `[B, 3, H, W]` reused by every step
            (Zero-DCE++). Where the dtypes differ the result has the promoted one, as in PyTorch.
        steps: How often the curve is applied.
        tanh: `alpha` is the raw output of the network's last layer; the kernel takes its tanh as the maps.
        backend: "auto", or one of `fastllie.backends()`.

    Raises:
        TypeError: an argument that is not a floating-point tensor, or `steps` that is not an integer.
        ValueError: shapes or devices that do not fit together, fewer than one step, an unknown backend.
        RuntimeError: a backend asked for by name that cannot serve.
    """
    check_curve(x, alpha, steps)
    backends.check_name(backend)
    x, alpha = match_dtypes(x, alpha)
    # what else may stand for a bool the dispatcher knows
    curve = _curve if isinstance(tanh, bool) else _curve.registered
    return curve(x, alpha, steps, tanh, backend)


def check_curve(x: Tensor, alpha: Tensor, steps: int) -> None:
    """Raise a TypeError or ValueError unless `alpha` holds the maps of so many steps on `x`."""
    check_images(x=x, alpha=alpha)
    check_steps(steps)
    batch, channels, height, width = x.shape
    images, maps, *size = alpha.shape
    # not `in`: for torch.compile a tuple of symbolic sizes does not contain their values
    fits = maps == channels * steps or maps == channels
    if not fits or images != batch or size != [height, width]:
        raise ValueError(
            f"alpha must be {(batch, channels * steps, height, width)} (a map a step) or {tuple(x.shape)} "
            f"(one shared map) for x of shape {tuple(x.shape)} and {steps} steps, got {tuple(alpha.shape)}"
        )


def check_steps(steps: int) -> None:
    """Raise a TypeError or ValueError unless it is an integer of at least 1."""
    if type(steps) is not int and not is_int(steps):
        raise TypeError(f"steps must be an int, got {type(steps).__name__}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")


def match_dtypes(x: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one of the pairs of dtypes that the kernels read: promoted, unless maps may stay narrower."""
    image, maps = x.dtype, alpha.dtype
    if image == maps or maps in _NARROW_MAPS.get(image, ()):
        return x, alpha
    dtype = torch.promote_types(image, maps)
    return x.to(dtype), alpha.to(dtype)


def _forward(x: Tensor, alpha: Tensor, steps: int, tanh: bool, backend: str) -> Tensor:
    name = backends.choose(backend, x, "curve_forward")
    out = torch.empty_like(x)
    if name == "torch":
        return out.copy_(reference.curve(wide(x), wide(alpha), steps, tanh))
    if out.numel():
        module, handles, place = kernels(name, "curve", x)
        module.curve_forward(*handles(x, alpha, out), *sizes_of(x, alpha), steps, tanh, *place)
    return out


def _backward(
    grad: Tensor,
    x: Tensor,
    alpha: Tensor,
    steps: int,
    tanh: bool,
    need_x: bool,
    need_alpha: bool,
    backend: str,
) -> tuple[Tensor | None, ...]:
    name = backends.choose(backend, x, "curve_backward")
    needs = (need_x, need_alpha)
    outs = gradients_to_fill(name, (x, alpha), needs)
    if name == "torch":
        fill(outs, reference.curve_backward(wide(grad), wide(x), wide(alpha), steps, tanh), needs)
    elif x.numel():
        module, handles, place = kernels(name, "curve", x)
        module.curve_backward(
            *handles(grad, x, alpha, *outs), *sizes_of(x, alpha), steps, tanh, *needs, *place
        )
    return outs


def sizes_of(x: Tensor, alpha: Tensor) -> tuple[tuple[int, ...], bool]:
    """What kernels get to know of the curve: the image's sizes, and whether one map serves every step."""
    shape = x.shape
    return shape, alpha.shape[1] == shape[1]


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, alpha, ctx.steps, ctx.tanh, ctx.backend = inputs
    # the inputs only: recomputing the states costs less than storing one image a step
    ctx.save_for_backward(x, alpha)


def _differentiate(ctx, grad):  # type: ignore[no-untyped-def]
    needs = ctx.needs_input_grad[:2]
    found = _gradient(grad, *ctx.saved_tensors, ctx.steps, ctx.tanh, *needs, ctx.backend)
    return *where_needed(found, needs), None, None, None


def _save_twice(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    grad, x, alpha, ctx.steps, ctx.tanh, *ctx.needed, _ = inputs
    ctx.save_for_backward(grad, x, alpha)


def _differentiate_twice(ctx, *cotangents):  # type: ignore[no-untyped-def]
    def formula(grad: Tensor, x: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        return reference.curve_backward(grad, x, alpha, ctx.steps, ctx.tanh)

    return *differentiate_formula(formula, ctx.saved_tensors, ctx.needed, cotangents), *[None] * 5


_library = torch.library.Library("fastllie", "FRAGMENT")
_curve = Operator(
    _library,
    "curve_forward(Tensor x, Tensor alpha, int steps, bool tanh, str backend) -> Tensor",
    _forward,
    lambda x, alpha, steps, tanh, backend: torch.empty_like(x),
    _differentiate,
    _save,
)
_gradient = Gradient(
    _library,
    "curve_backward(Tensor grad, Tensor x, Tensor alpha, int steps, bool tanh, bool need_x, bool need_alpha,"
    " str backend) -> (Tensor, Tensor)",
    _backward,
    lambda grad, x, alpha, steps, tanh, *needs: empty_gradients((x, alpha), needs[:2]),
    _differentiate_twice,
    _save_twice,
)
