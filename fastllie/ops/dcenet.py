"""Zero-DCE's whole network and its curve in one pass over the image, for inference on the CPU."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastllie import _native
from fastllie.ops.convolution import pack_convolution
from fastllie.ops.tensors import check_images, views

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PADDINGS = ("zeros", "replicate")
HALO = 7  # of seven 3x3 convolutions
LAYERS = 7
FEATURES = 32
# inputs and outputs of each layer
CHANNELS = [(3, 32), (32, 32), (32, 32), (32, 32), (64, 32), (64, 32), (64, 24)]


@dataclass(frozen=True)
class PackedDceNet:
    """The weights of Zero-DCE's network as its kernel reads them: see `pack_dcenet`."""

    weights: tuple[Tensor, ...]
    epilogues: tuple[Tensor, ...]
    pairs: bool


def pack_dcenet(
    weights: Sequence[Tensor], biases: Sequence[Tensor], *, dtype: torch.dtype = torch.float32
) -> PackedDceNet:
    """Prepare the weights of the seven convolutions for `enhance_dcenet`.

    Args:
        weights: `[32, 3, 3, 3]`, three of `[32, 32, 3, 3]`, two of `[32, 64, 3, 3]`, `[24, 64, 3, 3]`.
        biases: `[32]` six times, `[24]`.
        dtype: Of the images. The features of bfloat16 images are kept and multiplied as bfloat16 where the
            CPU has the instruction (AVX-512 BF16); everything else is float32.

    Raises:
        TypeError: a dtype that `enhance_dcenet` does not take.
        ValueError: other shapes.
    """
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be float32, bfloat16 or float16, got {dtype}")
    expected = [(outputs, inputs, 3, 3) for inputs, outputs in CHANNELS]
    if [tuple(weight.shape) for weight in weights] != expected:
        raise ValueError(f"weights must be {expected}, got {[tuple(weight.shape) for weight in weights]}")
    pairs = dtype == torch.bfloat16 and _native.cpu is not None and _native.cpu.has_bf16()
    packed = [
        pack_convolution(
            weight,
            bias,
            arithmetic="direct" if place == 0 else "winograd4_pairs" if pairs else "winograd4",
        )
        for place, (weight, bias) in enumerate(zip(weights, biases, strict=True))
    ]
    return PackedDceNet(
        tuple(layer.weights for layer in packed), tuple(layer.epilogue for layer in packed), pairs
    )


def enhance_dcenet(
    x: Tensor, packed: PackedDceNet, *, padding: str = "replicate", cropped: bool = False
) -> Tensor:
    """Enhance by Zero-DCE: eight steps of the curve x <- x + alpha * x * (1 - x), alpha = tanh(network(x)).

    Seven 3x3 convolutions with 32 channels and symmetric skips, in strips whose features stay in the cache,
    by Winograd's algorithm with tiles of 4x4. Sums are float32.

    For inference on the CPU: not differentiable. Any strides are read in place.

    Args:
        x: Images, `[B, 3, H, W]` in [0, 1]; float32, bfloat16 or float16.
        packed: From `pack_dcenet`, for the dtype of `x`.
        padding: What each layer finds outside of the image: "zeros" as published, or "replicate", the
            network of an image that goes on with its nearest pixel.
        cropped: Nothing is padded: `x` brings 7 pixels on each side that the result lacks.

    Returns:
        The enhanced images, in the dtype and the memory format of `x`.

    Raises:
        TypeError: an argument that is no tensor, or of another dtype.
        ValueError: another shape, an unknown padding.
        RuntimeError: `fastllie._cpu` was not built, a tensor on another device, or a gradient is wanted.
    """
    check_images(DTYPES, x=x)
    if x.shape[1] != 3:
        raise ValueError(f"x must have 3 channels, got shape {tuple(x.shape)}")
    if padding not in PADDINGS:
        raise ValueError(f"padding must be one of {PADDINGS}, got {padding!r}")
    if cropped and padding == "zeros":
        raise ValueError("cropped images need no padding, got 'zeros'")
    if cropped and min(x.shape[-2:]) < 2 * HALO:
        raise ValueError(f"cropped images must bring {HALO} pixels on each side, got {tuple(x.shape)}")
    if _native.cpu is None:
        raise RuntimeError(f"enhance_dcenet needs the compiled module: {_native.reasons['cpu']}")
    if x.device.type != "cpu":
        raise RuntimeError(f"enhance_dcenet needs tensors on 'cpu', got {x.device}")
    if torch.is_grad_enabled() and x.requires_grad:
        raise RuntimeError("enhance_dcenet is for inference and has no gradient: call it under no_grad()")
    return torch.ops.fastllie.dcenet_forward(
        x, list(packed.weights), list(packed.epilogues), packed.pairs, padding, cropped
    )


def _empty(x: Tensor, cropped: bool) -> Tensor:
    if not cropped:
        return torch.empty_like(x)
    inner = x[..., HALO : x.shape[-2] - HALO, HALO : x.shape[-1] - HALO]
    interleaved = x.stride(1) == 1 and x.stride(3) == 3
    layout = torch.channels_last if interleaved else torch.contiguous_format
    return torch.empty_like(inner, memory_format=layout)


def _forward(
    x: Tensor, weights: list[Tensor], epilogues: list[Tensor], pairs: bool, padding: str, cropped: bool
) -> Tensor:
    out = _empty(x, cropped)
    if out.numel() == 0:
        return out
    if cropped:
        x = x[..., HALO : x.shape[-2] - HALO, HALO : x.shape[-1] - HALO]
    assert _native.cpu is not None
    _native.cpu.dcenet_forward(
        *views(x, out),
        tuple(out.shape),
        HALO if cropped else 0,
        padding == "zeros",
        pairs,
        [weight.data_ptr() for weight in weights],
        [epilogue.data_ptr() for epilogue in epilogues],
        torch.get_num_threads(),
    )
    return out


_library = torch.library.Library("fastllie", "FRAGMENT")
_library.define(
    "dcenet_forward(Tensor x, Tensor[] weights, Tensor[] epilogues, bool pairs, str padding, bool cropped)"
    " -> Tensor"
)
_library.impl("dcenet_forward", _forward, "CompositeExplicitAutograd")
torch.library.register_fake(
    "fastllie::dcenet_forward",
    lambda x, weights, epilogues, pairs, padding, cropped: _empty(x, cropped),
    lib=_library,
)
