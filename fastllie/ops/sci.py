"""SCI's whole enhancement network in one pass over the image, for inference."""

import torch
from torch import Tensor

from fastllie.ops import backend as backends
from fastllie.ops import reference
from fastllie.ops.checks import (
    FLOATS,
    check_choice,
    check_no_gradient,
    check_one_device,
    check_out,
    check_rgb,
    check_tensor,
)
from fastllie.ops.launch import kernels
from fastllie.ops.tensors import wide, wide_dtype

PADDINGS = ("zeros", "reflect")
WEIGHTS, BIASES = (3, 3, 3, 3, 3), (3, 3)


def enhance_sci(
    x: Tensor,
    weights: Tensor,
    biases: Tensor,
    *,
    residual: bool = True,
    padding: str = "zeros",
    backend: str = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """Enhance by SCI's network with one block, batch norm folded into its second convolution.

    f0 = relu(conv0(x)), f1 = f0 + relu(conv1(f0)), illum = clamp(sigmoid(conv2(f1)) + x, 1e-4, 1), and the
    result is clamp(x / illum, 0, 1)  (SCI, Retinex), in one pass over the image. Arithmetic
    is float32 (float64 for float64 images). Any strides are read in place: an interleaved (H, W, 3) frame is
    `frame.permute(2, 0, 1)[None]`. The result has the memory format of `x`.

    For inference: not differentiable. A side of one pixel has no mirror image: "reflect" replicates it.

    Args:
        x: Images, `[B, 3, H, W]`; float64, float32, bfloat16 or float16 in [0, 1], or uint8 in 0..255.
        weights: Of the three 3 x 3 convolutions, `[3, 3, 3, 3, 3]`: layer, output, input, row, column.
        biases: `[3, 3]`: layer, output.
        residual: Whether f0 is added to f1; False for a plain chain of convolutions.
        padding: What each convolution finds outside the image: "zeros" as in the published network, which
            colours a frame of one or two pixels, or "reflect", the mirror image, which leaves no frame.
        backend: "auto", or one of `fastllie.backends()`.
        out: Where the result goes, of the shape, dtype and device of `x` and apart from it (neighbours are
            read after a pixel is written); any strides. None makes a new tensor.

    Returns:
        The enhanced images in the dtype of `x`, in `out` if that was given; uint8 is rounded to nearest.

    Raises:
        TypeError: an argument that is no tensor, or of another dtype.
        ValueError: another shape, different devices, an unknown padding or backend, an `out` in the memory
            of `x`.
        RuntimeError: a gradient is wanted, or a backend asked for by name cannot serve.
    """
    check_rgb((*FLOATS, torch.uint8), x)
    for name, tensor, shape in (("weights", weights, WEIGHTS), ("biases", biases, BIASES)):
        check_tensor(name, tensor)
        if tensor.shape != shape:
            raise ValueError(f"{name} must be {list(shape)}, got shape {tuple(tensor.shape)}")
        check_one_device(**{"x": x, name: tensor})
    check_choice("padding", padding, PADDINGS)
    backends.check_name(backend)
    check_no_gradient(
        "enhance_sci", x, weights, biases,
        otherwise=" or with tensors that need none; to train, call the network of fastllie.models in training"
        " mode",
    )  # fmt: skip
    weights, biases = (tensor.to(wide_dtype(x)).contiguous() for tensor in (weights, biases))
    if out is None:
        return torch.ops.fastllie.sci_forward(x, weights, biases, residual, padding, backend)
    check_out(out, x, x.shape)
    torch.ops.fastllie.sci_forward_into(x, weights, biases, residual, padding, backend, out)
    return out


def _forward(
    x: Tensor, weights: Tensor, biases: Tensor, residual: bool, padding: str, backend: str
) -> Tensor:
    out = torch.empty_like(x)
    _forward_into(x, weights, biases, residual, padding, backend, out)
    return out


def _forward_into(
    x: Tensor, weights: Tensor, biases: Tensor, residual: bool, padding: str, backend: str, out: Tensor
) -> None:
    name = backends.choose(backend, x, "sci_forward")
    if x.numel() == 0:
        return
    if name == "torch":
        pixels = x.float() / 255 if x.dtype == torch.uint8 else wide(x)
        enhanced = reference.sci(pixels, weights, biases, residual, padding)
        out.copy_((enhanced * 255).round() if x.dtype == torch.uint8 else enhanced)
        return
    module, handles, place = kernels(name, "sci", x)
    module.sci_forward(
        *handles(x, weights, biases, out), tuple(x.shape), residual, padding == "reflect", *place
    )


_library = torch.library.Library("fastllie", "FRAGMENT")
_library.define(
    "sci_forward(Tensor x, Tensor weights, Tensor biases, bool residual, str padding, str backend) -> Tensor"
)
_library.define(
    "sci_forward_into(Tensor x, Tensor weights, Tensor biases, bool residual, str padding, str backend,"
    " Tensor(a!) out) -> ()"
)
_library.impl("sci_forward", _forward, "CompositeExplicitAutograd")
_library.impl("sci_forward_into", _forward_into, "CompositeExplicitAutograd")
torch.library.register_fake(
    "fastllie::sci_forward",
    lambda x, weights, biases, residual, padding, backend: torch.empty_like(x),
    lib=_library,
)
torch.library.register_fake(
    "fastllie::sci_forward_into",
    lambda x, weights, biases, residual, padding, backend, out: None,
    lib=_library,
)
