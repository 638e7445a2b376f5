"""3x3 convolutions of the CPU that can be trained: Winograd's algorithm both ways, in float32."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from fastllie.ops import backend as backends
from fastllie.ops.checks import check_images, check_on_cpu
from fastllie.ops.convolution import BLOCK, PackedConvolution, Source, fill_convolution, interleaved
from fastllie.ops.launch import cpu_kernels
from fastllie.ops.tensors import differentiate_formula, fill

DTYPES = (torch.float64, torch.float32)
POINTS = {"winograd2": 16, "winograd4": 36}
TILE = 4
# Beside PyTorch 2.13 (oneDNN) with AVX-512 and one thread, 32 channels on both sides take as long forwards,
# 64 are 1.3 times faster and 128 twice; the gradient of the weights is two to three times as fast with all
LEAST_CHANNELS = 32
# Weights that fill the caches are read once for each block of an image: where an image has no more tiles than
# this, fewer weights win over fewer products
LARGE_WEIGHTS, FEW_TILES = 100_000, 12
# What was packed of weights that take no gradient
_kept: Any = WeakIdKeyDictionary()


def convolve_trainable(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, padding: int = 1) -> Tensor:
    """conv2d(x, weight, bias, padding=padding) with stride 1, differentiable in all three, twice.

    Sums are made by Winograd's algorithm on tiles of 4x4 (or 2x2) outputs, in float32, and are off by up to
    3e-6 of the largest one (PyTorch's by 6e-7). float64 goes through PyTorch's. Weights that take no gradient
    are packed once, which keeps eight times their memory for as long as they live; others at each call.

    Args:
        x: `[B, C, H, W]`, float32 or float64, on the CPU; channels side by side are read in place.
        weight: `[outputs, C, 3, 3]`, of the same dtype.
        bias: `[outputs]`.
        padding: Zeros around the input, 0 to 2.

    Returns:
        `[B, outputs, H + 2 * padding - 2, W + 2 * padding - 2]`, channels_last.

    Raises:
        TypeError: tensors of another or of different dtypes.
        ValueError: shapes that do not fit, another padding.
        RuntimeError: `fastllie._cpu` was not built, or tensors on another device.
    """
    _check(x, weight, bias, padding)
    if torch.compiler.is_compiling():
        return torch.ops.fastllie.convolution_trainable(x, weight, bias, padding)
    if not torch.is_grad_enabled() or not any(t is not None and t.requires_grad for t in (x, weight, bias)):
        return _forward(x, weight, bias, padding)
    out = _Remember.apply(x, weight, bias, padding)
    with torch.no_grad():
        _into(x, weight, bias, padding, out.detach())
    return out


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> None:
    check_images(DTYPES, x=x, weight=weight)
    check_on_cpu("convolve_trainable", x)
    if weight.dtype != x.dtype or (bias is not None and bias.dtype != x.dtype):
        found = [t.dtype for t in (x, weight, bias) if t is not None]
        raise TypeError(f"x, weight and bias must be of one dtype, got {found}")
    if weight.shape[1:] != (x.shape[1], 3, 3) or 0 in weight.shape:
        raise ValueError(f"weight must be [outputs, {x.shape[1]}, 3, 3], got shape {tuple(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be [{weight.shape[0]}], got shape {tuple(bias.shape)}")
    if isinstance(padding, bool) or padding not in (0, 1, 2):
        raise ValueError(f"padding must be 0, 1 or 2, got {padding!r}")
    if min(x.shape[2:]) + 2 * padding < 3:
        raise ValueError(f"nothing is left of {tuple(x.shape[2:])} by 3x3 with padding {padding}")


class _Remember(torch.autograd.Function):
    """Room for the result, before there is one.

    A checkpoint ends its second pass at the last tensor that is saved: saved by now, the convolution that
    would come next is not run again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.padding = padding
        ctx.save_for_backward(x, weight)
        return _empty(x, weight, bias, padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _differentiate(ctx, grad)


def _empty(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    height, width = (side + 2 * padding - 2 for side in x.shape[2:])
    size = (x.shape[0], weight.shape[0], height, width)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _arithmetic(inputs: int, outputs: int, height: int, width: int) -> str:
    tiles = -(-height // TILE) * -(-width // TILE)
    return "winograd2" if tiles < FEW_TILES and inputs * outputs > LARGE_WEIGHTS else "winograd4"


def _packed(weight: Tensor, arithmetic: str, *, turned: bool) -> Tensor:
    """The weights as `arithmetic` reads them; `turned` those that take gradients back."""
    if weight.requires_grad or weight.is_inference():
        return _pack(weight, arithmetic, turned)
    kept = _kept.setdefault(weight, {})
    state, packed = kept.get((arithmetic, turned), (None, None))
    if state != (weight.data_ptr(), weight._version):
        packed = _pack(weight, arithmetic, turned)
        kept[arithmetic, turned] = (weight.data_ptr(), weight._version), packed
    return packed


def _pack(weight: Tensor, arithmetic: str, turned: bool) -> Tensor:
    module, handles, place = cpu_kernels()
    weight = weight.transpose(0, 1) if turned else weight
    outputs, inputs = weight.shape[:2]
    packed = torch.empty(-(-outputs // BLOCK), POINTS[arithmetic], inputs, BLOCK)
    module.convolution_pack(
        *handles(weight),
        outputs,
        inputs,
        turned,
        getattr(module.Arithmetic, arithmetic),
        packed.data_ptr(),
        *place,
    )
    return packed


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, out: Tensor, *, turned: bool) -> None:
    """conv2d of `x`, or with the weights `turned` its transposed one, into `out`."""
    outputs, inputs = weight.shape[:2]
    if turned:
        outputs, inputs = inputs, outputs
    arithmetic = _arithmetic(inputs, outputs, *out.shape[2:])
    epilogue = torch.zeros(3, -(-outputs // BLOCK) * BLOCK)
    if bias is not None:
        epilogue[0, :outputs] = bias
    weights = _packed(weight, arithmetic, turned=turned)
    packed = PackedConvolution(weights, epilogue, inputs, outputs, 3, arithmetic, 1.0, False)
    fill_convolution([Source(interleaved(x))], packed, padding, out)


def _into(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, out: Tensor) -> Tensor:
    if out.numel() == 0:
        return out
    if x.dtype == torch.float64:
        return out.copy_(torch.conv2d(x, weight, bias, padding=padding))
    _run(x, weight, bias, padding, out, turned=False)
    return out


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    return _into(x, weight, bias, padding, _empty(x, weight, bias, padding))


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, padding: int, need_x: bool, need_weight: bool
) -> tuple[Tensor, Tensor]:
    grad_x, grad_weight = _gradients(grad, x, weight, padding, need_x, need_weight)
    if grad.numel() == 0:
        return grad_x.zero_(), grad_weight.zero_()
    if x.dtype == torch.float64:
        fill((grad_x, grad_weight), _formula(grad, x, weight, padding), (need_x, need_weight))
        return grad_x, grad_weight
    grad = interleaved(grad)
    if need_x:
        _run(grad, weight, None, 2 - padding, grad_x, turned=True)
    if need_weight:
        _sum_up(grad, interleaved(x), padding, grad_weight)
    return grad_x, grad_weight


def _sum_up(grad: Tensor, x: Tensor, padding: int, out: Tensor) -> None:
    module, handles, place = cpu_kernels()
    arguments = (*handles(x), tuple(x.shape), *handles(grad), tuple(grad.shape), padding, *handles(out))
    workspace = torch.empty(module.convolution_gradient_floats(*arguments))
    module.convolution_gradient(*arguments, workspace.data_ptr(), *place)


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, padding: int, need_x: bool, need_weight: bool
) -> tuple[Tensor, Tensor]:
    """Empty gradients, with no elements where none is needed; also the operator on fake tensors."""
    return (
        torch.empty_like(x, memory_format=torch.channels_last) if need_x else x.new_empty(0),
        torch.empty_like(weight) if need_weight else weight.new_empty(0),
    )


def _formula(grad: Tensor, x: Tensor, weight: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], [padding] * 2, [1, 1], False, [0, 0], 1, [True, True, False]
    )
    return found[0], found[1]


_library = torch.library.Library("fastllie", "FRAGMENT")
_library.define("convolution_trainable(Tensor x, Tensor weight, Tensor? bias, int padding) -> Tensor")
_library.define(
    "convolution_trainable_backward(Tensor grad, Tensor x, Tensor weight, int padding, bool need_x,"
    " bool need_weight) -> (Tensor, Tensor)"
)
_library.impl("convolution_trainable", _forward, "CompositeExplicitAutograd")
_library.impl("convolution_trainable_backward", _backward, "CompositeExplicitAutograd")
torch.library.register_fake("fastllie::convolution_trainable", _empty, lib=_library)
torch.library.register_fake("fastllie::convolution_trainable_backward", _gradients, lib=_library)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, _, ctx.padding = inputs
    ctx.save_for_backward(x, weight)


def _differentiate(ctx, grad):  # type: ignore[no-untyped-def]
    x, weight = ctx.saved_tensors
    need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
    grad_x = grad_weight = None
    if need_x or need_weight:
        grad_x, grad_weight = torch.ops.fastllie.convolution_trainable_backward(
            grad, x, weight, ctx.padding, need_x, need_weight
        )
    return (
        grad_x if need_x else None,
        grad_weight if need_weight else None,
        grad.sum((0, 2, 3)) if need_bias else None,
        None,
    )


def _save_twice(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    grad, x, weight, ctx.padding, *ctx.needed = inputs
    ctx.save_for_backward(grad, x, weight)


def _differentiate_twice(ctx, *cotangents):  # type: ignore[no-untyped-def]
    def formula(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return _formula(grad, x, weight, ctx.padding)

    return *differentiate_formula(formula, ctx.saved_tensors, ctx.needed, cotangents), *[None] * 3


torch.library.register_autograd(
    "fastllie::convolution_trainable", _differentiate, setup_context=_save, lib=_library
)
torch.library.register_autograd(
    "fastllie::convolution_trainable_backward", _differentiate_twice, setup_context=_save_twice, lib=_library
)


# whether a TrainableConvolutions is around, of this thread
_within: ContextVar[bool] = ContextVar("_within", default=False)


class TrainableConvolutions(TorchFunctionMode):
    """Within it PyTorch's conv2d is `convolve_trainable` wherever that is faster; networks stay as they are.

    That is on the CPU, outside of autocast, with float32 tensors whose channels lie side by side
    (channels_last), for 3x3 convolutions of stride 1 with enough channels. A checkpoint of layers takes
    `checkpoint_contexts`, or its second pass would have other ones than the first.
    """

    def __enter__(self) -> "TrainableConvolutions":
        self._tokens = [*getattr(self, "_tokens", []), _within.set(True)]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _within.reset(self._tokens.pop())

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is torch.conv2d:
            found = _convolve(*args, **(kwargs or {}))
            if found is not None:
                return found
        return function(*args, **(kwargs or {}))


def checkpoint_contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """`context_fn` of PyTorch's checkpoint: the second pass has the convolutions of the first.

    The backward pass alone would not: PyTorch leaves its modes where a tensor's `backward` begins.
    """
    return nullcontext(), TrainableConvolutions() if _within.get() else nullcontext()


def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """The convolution as PyTorch calls it, or None where its own is the better one."""
    around = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * 2
    if groups != 1 or any(value not in (1, (1, 1), [1, 1]) for value in (stride, dilation)):
        return None
    if around not in ((0, 0), (1, 1), (0, 1)) or not _is_faster(input, weight, bias):
        return None
    if around == (0, 1):
        input, around = torch.nn.functional.pad(input, (1, 1)), (0, 0)
    return convolve_trainable(input, weight, bias, padding=around[0])


def _is_faster(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    tensors = [x, weight] if bias is None else [x, weight, bias]
    if any(type(t) not in (Tensor, torch.nn.Parameter) or t.dtype != torch.float32 for t in tensors):
        return False
    if x.dim() != 4 or weight.dim() != 4 or tuple(weight.shape[2:]) != (3, 3) or 0 in x.shape:
        return False
    outputs, inputs = weight.shape[:2]
    if min(inputs, outputs) < LEAST_CHANNELS or inputs != x.shape[1]:
        return False
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if not x.is_contiguous(memory_format=torch.channels_last) or min(x.shape[2:]) < 3:
        return False
    return backends.choose("auto", x) == "cpu"
