"""SCI's whole enhancement network in one pass over the image, for inference."""

import torch
from torch import Tensor

from fastllie import _native
from fastllie.ops import backend as backends
from fastllie.ops import reference
from fastllie.ops.tensors import FLOATS, check_images, cuda_place, views, wide

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
    check_images((*FLOATS, torch.uint8), x=x)
    if x.shape[1] != 3:
        raise ValueError(f"x must have 3 channels, got shape {tuple(x.shape)}")
    for name, tensor, shape in (("weights", weights, WEIGHTS), ("biases", biases, BIASES)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
        if tensor.dtype not in FLOATS:
            raise TypeError(f"{name} must be float64, float32, bfloat16 or float16, got {tensor.dtype}")
        if tensor.shape != shape:
            raise ValueError(f"{name} must be {list(shape)}, got shape {tuple(tensor.shape)}")
        if tensor.device != x.device:
            raise ValueError(f"x and {name} must be on one device, got {x.device} and {tensor.device}")
    if padding not in PADDINGS:
        raise ValueError(f"padding must be one of {PADDINGS}, got {padding!r}")
    backends.check_name(backend)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, weights, biases)):
        raise RuntimeError(
            "enhance_sci is for inference and has no gradient: call it under torch.no_grad() or with tensors"
            " that need none; to train, call the network of fastllie.models in training mode"
        )
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    weights, biases = weights.to(dtype).contiguous(), biases.to(dtype).contiguous()
    if out is None:
        return torch.ops.fastllie.sci_forward(x, weights, biases, residual, padding, backend)
    _check_out(out, x)
    torch.ops.fastllie.sci_forward_into(x, weights, biases, residual, padding, backend, out)
    return out


def _check_out(out: Tensor, x: Tensor) -> None:
    if not isinstance(out, Tensor):
        raise TypeError(f"out must be a torch.Tensor, got {type(out).__name__}")
    if out.dtype != x.dtype:
        raise TypeError(f"out must be {x.dtype}, as x, got {out.dtype}")
    if (out.shape, out.device) != (x.shape, x.device):
        raise ValueError(
            f"out must be {list(x.shape)} on {x.device}, as x, got {list(out.shape)} on {out.device}"
        )
    # what is plain to see; overlaps of other views are the caller's care, as for PyTorch's own `out`
    if out.data_ptr() == x.data_ptr() and x.numel():
        raise ValueError("out is the memory of x; wanted another tensor")


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
    if name == "triton":
        from fastllie.kernels import sci

        sci.sci_forward(x, weights, biases, out, residual, padding == "reflect")
        return
    arguments = (*views(x, weights, biases, out), tuple(x.shape), residual, padding == "reflect")
    if name == "cuda":
        assert _native.cuda is not None
        _native.cuda.sci_forward(*arguments, *cuda_place(x))
    else:
        assert _native.cpu is not None
        _native.cpu.sci_forward(*arguments, torch.get_num_threads())


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
