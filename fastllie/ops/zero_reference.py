"""The losses that train Zero-DCE, fused with its curve: the enhanced image is never written."""

from typing import NamedTuple

import torch
from torch import Tensor

from fastllie.ops import backend as backends
from fastllie.ops import reference
from fastllie.ops.checks import check_number
from fastllie.ops.curve import check_curve, match_dtypes, sizes_of
from fastllie.ops.direct import Operator
from fastllie.ops.gradient import Gradient, where_needed
from fastllie.ops.launch import kernels
from fastllie.ops.tensors import (
    differentiate_formula,
    empty_gradients,
    fill,
    gradients_to_fill,
    wide,
    wide_dtype,
)

WELL_EXPOSED = 0.6  # E in Zero-DCE, sec. 3.3; the published code's value


class ZeroReferenceLosses(NamedTuple):
    """The four losses, scalars without weights."""

    map_smoothness: Tensor
    spatial_consistency: Tensor
    colour_constancy: Tensor
    exposure: Tensor


def zero_reference_losses(
    x: Tensor,
    alpha: Tensor,
    *,
    steps: int = 8,
    tanh: bool = False,
    level: float = WELL_EXPOSED,
    backend: str = "auto",
) -> ZeroReferenceLosses:
    """How good curve maps are for an image, without a reference  (Zero-DCE, eq. 4 to 7, as published code).

    With y = apply_curve(x, alpha): how much the maps change from pixel to pixel (squared differences of
    neighbours); how much y - x changes between neighbouring 4x4 cells; how far the means of the channels of y
    lie apart; and how far the grey of each 16x16 patch of y lies from `level`. Rows and columns beyond the
    last whole cell or patch do not count in these two. An image whose three means are equal has the gradient
    zero in the colour loss, where the published code has NaN.

    Differentiable in both images and maps, twice. One pass over them each way, which recomputes the curve:
    nothing of the size of an image is allocated but the gradients. Arithmetic is float32 (float64 for float64
    inputs), sums are float64 and of a fixed order. Any strides are read in place.

    Args:
        x: Images, `[B, 3, H, W]` in [0, 1], B at least 1, H and W at least 16; float64, float32, bfloat16 or
            float16.
        alpha: Curve maps in [-1, 1], `[B, 3 * steps, H, W]`, or `[B, 3, H, W]` reused by every step
            (Zero-DCE++). Maps of a float32 image may be bfloat16 or float16; where else the dtypes differ the
            promoted one counts.
        steps: How often the curve is applied.
        tanh: `alpha` is the raw output of the network's last layer; the kernel takes its tanh as the maps.
        level: The grey that a well-exposed patch has.
        backend: "auto", or one of `fastllie.backends()`.

    Returns:
        Four scalars: float64 for float64 inputs, float32 otherwise.

    Raises:
        TypeError: an argument that is not a floating-point tensor, `steps` that is not an integer, a level
            that is not a number.
        ValueError: shapes or devices that do not fit together, not three channels, H or W under 16, no
            images, fewer than one step, an unknown backend.
        RuntimeError: a backend asked for by name that cannot serve.
    """
    check_curve(x, alpha, steps)
    backends.check_name(backend)
    batch, channels, height, width = x.shape
    if batch == 0 or channels != 3 or height < reference.PATCH or width < reference.PATCH:
        raise ValueError(
            f"x must be [B, 3, H, W] with B at least 1, H and W at least {reference.PATCH},"
            f" got {tuple(x.shape)}"
        )
    check_number("level", level)
    # what else may stand for a bool the dispatcher knows
    found = _losses if isinstance(tanh, bool) else _losses.registered
    losses, *_ = found(*match_dtypes(x, alpha), steps, tanh, float(level), backend)
    return ZeroReferenceLosses(*losses.unbind())


def _empty(
    x: Tensor, alpha: Tensor, steps: int, tanh: bool, level: float, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The outputs of the forward operator, empty; also the operator on fake tensors."""
    batch, channels, height, width = x.shape
    dtype = wide_dtype(x)

    def regions(side: int) -> Tensor:
        return x.new_empty((batch, height // side, width // side), dtype=dtype)

    means = x.new_empty((batch, channels), dtype=torch.float64)
    return x.new_empty(4, dtype=dtype), regions(reference.CELL), regions(reference.PATCH), means


def _forward(
    x: Tensor, alpha: Tensor, steps: int, tanh: bool, level: float, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four losses, and the means that three of them are made of: see `reference.zero_reference_means`."""
    name = backends.choose(backend, x, "zero_reference_forward")
    losses, cells, patches, means = _empty(x, alpha, steps, tanh, level, backend)
    if name == "torch":
        losses.copy_(torch.stack(reference.zero_reference(wide(x), wide(alpha), steps, tanh, level)))
        # its backward computes the means anew
        return losses, cells.zero_(), patches.zero_(), means.zero_()
    module, handles, place = kernels(name, "zero_reference", x)
    workspace = means.new_empty(module.zero_reference_doubles(x.shape))
    module.zero_reference_losses(
        *handles(x, alpha, losses, cells, patches, means, workspace),
        *sizes_of(x, alpha), steps, tanh, level, *place,
    )  # fmt: skip
    return losses, cells, patches, means


def _backward(
    grad: Tensor, x: Tensor, alpha: Tensor, cells: Tensor, patches: Tensor, means: Tensor,
    steps: int, tanh: bool, level: float, need_x: bool, need_alpha: bool, backend: str,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    name = backends.choose(backend, x, "zero_reference_backward")
    needs = (need_x, need_alpha)
    outs = gradients_to_fill(name, (x, alpha), needs)
    if name == "torch":
        values = reference.zero_reference_backward(wide(grad), wide(x), wide(alpha), steps, tanh, level)
        fill(outs, values, needs)
        return outs
    module, handles, place = kernels(name, "zero_reference", x)
    module.zero_reference_slopes(
        *handles(x, alpha, cells, patches, means, grad.to(cells.dtype), *outs),
        *sizes_of(x, alpha), steps, tanh, level, needs, *place,
    )  # fmt: skip
    return outs


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, alpha, *ctx.settings = inputs
    _, *means = output
    ctx.mark_non_differentiable(*means)
    # of these no zeros are made that nobody reads
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, alpha, *means)


def _differentiate(ctx, grad, *_):  # type: ignore[no-untyped-def]
    if grad is None:
        return (None,) * 6
    *settings, backend = ctx.settings
    needs = ctx.needs_input_grad[:2]
    found = _gradient(grad, *ctx.saved_tensors, *settings, *needs, backend)
    return *where_needed(found, needs), *[None] * 4


def _save_twice(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    grad, x, alpha, _, _, _, *ctx.settings, need_x, need_alpha, _ = inputs
    ctx.needed = need_x, need_alpha
    ctx.save_for_backward(grad, x, alpha)


def _differentiate_twice(ctx, *cotangents):  # type: ignore[no-untyped-def]
    def formula(grad: Tensor, x: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        return reference.zero_reference_backward(grad, x, alpha, *ctx.settings)

    return *differentiate_formula(formula, ctx.saved_tensors, ctx.needed, cotangents), *[None] * 9


_library = torch.library.Library("fastllie", "FRAGMENT")
_losses = Operator(
    _library,
    "zero_reference_forward(Tensor x, Tensor alpha, int steps, bool tanh, float level, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _forward,
    _empty,
    _differentiate,
    _save,
)
_gradient = Gradient(
    _library,
    "zero_reference_backward(Tensor grad, Tensor x, Tensor alpha, Tensor cells, Tensor patches, Tensor means,"
    " int steps, bool tanh, float level, bool need_x, bool need_alpha, str backend) -> (Tensor, Tensor)",
    _backward,
    lambda grad, x, alpha, *rest: empty_gradients((x, alpha), rest[-3:-1]),
    _differentiate_twice,
    _save_twice,
)
