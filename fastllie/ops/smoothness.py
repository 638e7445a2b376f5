"""The 24-neighbour smoothness loss of SCI: one pass over twelve unordered pairs, forward and backward."""

import torch
from torch import Tensor

from fastllie.ops import backend as backends
from fastllie.ops import reference
from fastllie.ops.checks import check_choice, check_images, check_number
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

COLORS = ("ycbcr", "memory", "rgb")
NORMS = ("pixel", "scalar")
SIGMA_MIN = 1e-6  # its square still divides in float32


def smoothness_loss(
    illum: Tensor,
    guide: Tensor,
    *,
    sigma: float = 10.0,
    color: str = "ycbcr",
    norm: str = "pixel",
    backend: str = "auto",
) -> Tensor:
    """How far an illumination is from smooth, less so across the edges of a guide  (SCI, eq. 8).

    S = 2 sum_d mean_p w_d(p) |illum(p) - illum(p + d)|_1 over the twelve unordered pairs d of a 5x5 window,
    with w_d(p) = exp(-|c(p) - c(p + d)|^2 / (2 sigma^2)) and c the colours of the guide. Each mean is over
    the images and the pixels whose partner is inside; the norm is a sum over the channels.

    Differentiable in both arguments, twice. Arithmetic is float32 (float64 for float64 inputs), sums are
    float64 and of a fixed order. Nothing of the size of an image is allocated but the gradients.

    Args:
        illum: Illuminations, `[B, 3, H, W]`, H and W at least 3; float64, float32, bfloat16 or float16.
        guide: The images that steer the weights, of the same shape; where the dtypes differ the promoted one
            counts.
        sigma: Colour distance at which a weight has fallen to exp(-1/2). 10 in the published code, where
            every weight of an image in [0, 1] is above 0.98; 0.1 in the paper.
        color: "ycbcr" converts every pixel. "memory" converts three consecutive values of a plane as if they
            were one pixel, as the published code does: for reproducing its training. "rgb" converts nothing.
        norm: "pixel" is the formula above. "scalar" multiplies the mean weight by the mean of all absolute
            differences, channels included: the loss behind the published weights, with color="rgb".
        backend: "auto", or one of `fastllie.backends()`.

    Returns:
        A scalar: float64 for float64 inputs, float32 otherwise.

    Raises:
        TypeError: an argument that is not a floating-point tensor, a sigma that is not a number.
        ValueError: different shapes or devices, not three channels, H or W under 3, no images, a sigma that
            is not positive, an unknown color, norm or backend.
        RuntimeError: a backend asked for by name that cannot serve.
    """
    check_images(illum=illum, guide=guide)
    backends.check_name(backend)
    if illum.shape != guide.shape:
        raise ValueError(
            f"illum and guide must have one shape, got {tuple(illum.shape)} and {tuple(guide.shape)}"
        )
    batch, channels, height, width = illum.shape
    if batch == 0 or channels != 3 or height < 3 or width < 3:
        raise ValueError(
            f"illum must be [B, 3, H, W] with B at least 1, H and W at least 3, got {tuple(illum.shape)}"
        )
    check_number("sigma", sigma)
    if not sigma >= SIGMA_MIN:
        raise ValueError(f"sigma must be positive, at least {SIGMA_MIN}, got {sigma}")
    check_choice("color", color, COLORS)
    check_choice("norm", norm, NORMS)
    if illum.dtype != guide.dtype:
        dtype = torch.promote_types(illum.dtype, guide.dtype)
        illum, guide = illum.to(dtype), guide.to(dtype)
    loss, _ = _smoothness(illum, guide, float(sigma), color, norm, backend)
    return loss


def _in_order(guide: Tensor, color: str) -> Tensor:
    """The guide as the kernels take it: what is read in memory order has to lie in that order."""
    return guide.contiguous() if color == "memory" else guide


def _empty_loss(
    illum: Tensor, guide: Tensor, sigma: float, color: str, norm: str, backend: str
) -> tuple[Tensor, Tensor]:
    """Both outputs of the forward operator, empty; also the operator on fake tensors."""
    means = illum.new_empty(_shape_of_means(norm), dtype=torch.float64)
    return illum.new_empty((), dtype=wide_dtype(illum)), means


def _shape_of_means(norm: str) -> tuple[int, ...]:
    return (1,) if norm == "pixel" else (2, len(reference.PAIRS))


def _forward(
    illum: Tensor, guide: Tensor, sigma: float, color: str, norm: str, backend: str
) -> tuple[Tensor, Tensor]:
    """The loss and the means that it is made of: of w |d|, or for each pair of pixels of w and of |d|."""
    name = backends.choose(backend, illum, "smoothness_forward")
    if name == "torch":
        _, means = _empty_loss(illum, guide, sigma, color, norm, backend)
        # its backward computes the means anew
        return reference.smoothness(wide(illum), wide(guide), sigma, color, norm), means.zero_()
    guide = _in_order(guide, color)
    module, handles, place = kernels(name, "smoothness", illum)
    sizes = illum.shape
    # each block of pixels adds up its own: the same sums in the same order, whoever works on it
    shape = module.smoothness_blocks(sizes), *_shape_of_means(norm)
    parts = illum.new_empty(shape, dtype=torch.float64)
    module.smoothness_forward(*handles(illum, guide, parts), sizes, *_settings(sigma, color, norm), *place)
    means = parts.sum(0)
    loss = illum.new_empty((), dtype=wide_dtype(illum))
    torch.mul(means[0] if norm == "pixel" else means[0] @ means[1], 2, out=loss)
    return loss, means


def _backward(
    grad: Tensor,
    illum: Tensor,
    guide: Tensor,
    means: Tensor,
    sigma: float,
    color: str,
    norm: str,
    need_illum: bool,
    need_guide: bool,
    backend: str,
) -> tuple[Tensor | None, ...]:
    name = backends.choose(backend, illum, "smoothness_backward")
    needs = (need_illum, need_guide)
    outs = gradients_to_fill(name, (illum, _in_order(guide, color)), needs)
    grad_illum, grad_guide = outs
    if name == "torch":
        values = reference.smoothness_backward(grad, wide(illum), wide(guide), sigma, color, norm)
        fill(outs, values, needs)
        return outs
    guide = _in_order(guide, color)
    # values that were converted together may lie in two rows or planes: the way back is a pass of its own
    apart = need_guide and color == "memory"
    dtype = wide_dtype(guide)
    grad_colours = torch.empty_like(guide, dtype=dtype) if apart and guide.dtype != dtype else grad_guide
    module, handles, place = kernels(name, "smoothness", illum)
    scale = grad.double()
    module.smoothness_backward(
        *handles(illum, guide, grad_illum, grad_colours, scale, means),
        illum.shape,
        *_settings(sigma, color, norm),
        needs,
        *place,
    )
    if apart:
        module.smoothness_colours(*handles(grad_colours, grad_guide), guide.numel() // 3, *place)
    return outs


def _settings(sigma: float, color: str, norm: str) -> tuple[int, bool, float]:
    return COLORS.index(color), norm == "scalar", reference.kappa(sigma)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    illum, guide, *ctx.settings = inputs
    _, means = output
    ctx.mark_non_differentiable(means)
    # of these no zeros are made that nobody reads
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(illum, guide, means)


def _differentiate(ctx, grad, _):  # type: ignore[no-untyped-def]
    if grad is None:
        return (None,) * 6
    *settings, backend = ctx.settings
    needs = ctx.needs_input_grad[:2]
    found = _gradient(grad, *ctx.saved_tensors, *settings, *needs, backend)
    return *where_needed(found, needs), None, None, None, None


def _save_twice(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    grad, illum, guide, _, *ctx.settings, need_illum, need_guide, _ = inputs
    ctx.needed = need_illum, need_guide
    ctx.save_for_backward(grad, illum, guide)


def _differentiate_twice(ctx, *cotangents):  # type: ignore[no-untyped-def]
    def formula(grad: Tensor, illum: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        return reference.smoothness_backward(grad, illum, guide, *ctx.settings)

    return *differentiate_formula(formula, ctx.saved_tensors, ctx.needed, cotangents), *[None] * 7


_library = torch.library.Library("fastllie", "FRAGMENT")
_smoothness = Operator(
    _library,
    "smoothness_forward(Tensor illum, Tensor guide, float sigma, str color, str norm, str backend)"
    " -> (Tensor, Tensor)",
    _forward,
    _empty_loss,
    _differentiate,
    _save,
)
_gradient = Gradient(
    _library,
    "smoothness_backward(Tensor grad, Tensor illum, Tensor guide, Tensor means, float sigma, str color,"
    " str norm, bool need_illum, bool need_guide, str backend) -> (Tensor, Tensor)",
    _backward,
    lambda grad, illum, guide, means, sigma, color, norm, *needs: empty_gradients(
        (illum, _in_order(guide, color)), needs[:2]
    ),
    _differentiate_twice,
    _save_twice,
)
