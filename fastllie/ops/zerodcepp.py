"""Zero-DCE++'s whole network and its curve over the image as it is, for inference on the CPU."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastllie.ops.checks import (
    check_choice,
    check_count,
    check_no_gradient,
    check_on_cpu,
    check_out,
    check_rgb,
)
from fastllie.ops.launch import cpu_kernels
from fastllie.ops.zerodce import HALO, PADDINGS, empty_result, inner

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)
# inputs and outputs of each layer
CHANNELS = [(3, 32), (32, 32), (32, 32), (32, 32), (64, 32), (64, 32), (64, 3)]
# outputs whose weights lie side by side; floats that fill a line of the cache, or a vector
BLOCK, LINE = 32, 16
PACKED = sum(-(-9 * inputs // LINE) * LINE + inputs * BLOCK + BLOCK for inputs, _ in CHANNELS)


def pack_zerodcepp(weights: Sequence[Tensor], biases: Sequence[Tensor], *, bgr: bool = False) -> Tensor:
    """Prepare the weights of the seven depthwise and seven pointwise convolutions for `enhance_zerodcepp`.

    Args:
        weights: Of each layer the depthwise ones, `[C, 1, 3, 3]`, then the pointwise ones, `[K, C, 1, 1]`;
            C is 3, three times 32, three times 64, and K six times 32, then 3.
        biases: As many, `[C]` and `[K]`.
        bgr: For images in the order blue, green, red; the weights are those of a network of RGB.

    Returns:
        float32, one layer after the other: the taps of all inputs, the outputs of each input, the bias, which
        has taken in the depthwise one.

    Raises:
        ValueError: other shapes.
    """
    shapes = [shape for inputs, outputs in CHANNELS for shape in ((inputs, 1, 3, 3), (outputs, inputs, 1, 1))]
    for name, given, expected in (
        ("weights", weights, shapes),
        ("biases", biases, [shape[:1] for shape in shapes]),
    ):
        found = [tuple(tensor.shape) for tensor in given]
        if found != expected:
            raise ValueError(f"{name} must be {expected}, got {found}")
    wide = [tensor.detach().double() for tensor in (*weights, *biases)]
    parts = []
    for layer, (inputs, outputs) in enumerate(CHANNELS):
        depth, point = wide[2 * layer][:, 0], wide[2 * layer + 1][..., 0, 0]
        depth_bias, bias = wide[len(shapes) + 2 * layer], wide[len(shapes) + 2 * layer + 1]
        # nothing lies between the two, so that one bias does
        bias = bias + point @ depth_bias
        if bgr and inputs == 3:
            depth, point = depth.flip(0), point.flip(1)
        if bgr and outputs == 3:
            point, bias = point.flip(0), bias.flip(0)
        taps = depth.permute(1, 2, 0).flatten()
        parts += [taps, taps.new_zeros(-taps.numel() % LINE)]
        for rows in (point.T, bias[None]):
            parts.append(torch.nn.functional.pad(rows, (0, BLOCK - outputs)).flatten())
    return torch.cat(parts).float()


def enhance_zerodcepp(
    x: Tensor,
    packed: Tensor,
    *,
    scale: int = 1,
    padding: str = "replicate",
    cropped: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Enhance by Zero-DCE++: eight steps of the curve x <- x + alpha * x * (1 - x) with one alpha.

    alpha = tanh(network(reduced(x))), enlarged to the size of x: the reduction is bilinear with half-pixel
    centres after the image was completed to whole cells of `scale` x `scale` by its nearest pixels, and the
    enlargement bilinear with aligned corners. Features stay in the cache, a strip of columns at a time;
    nothing as large as the image is made but the result. Arithmetic is float32.

    For inference on the CPU: not differentiable. Any strides are read in place.

    Args:
        x: Images, `[B, 3, H, W]`; float32, bfloat16 or float16 in [0, 1], or uint8 in 0..255.
        packed: From `pack_zerodcepp`.
        scale: By what the network's image is smaller; 1 is the image itself.
        padding: What each layer finds outside of the image: "zeros" as published, or "replicate", the
            network of an image that goes on with its nearest pixel.
        cropped: Nothing is padded: `x` brings 7 pixels on each side that the result lacks. For scale 1.
        out: Where the result goes, of its shape and dtype and apart from `x`; any strides. None makes a new
            tensor.

    Returns:
        The enhanced images, in the dtype and the memory format of `x`, in `out` if that was given; uint8 is
        rounded to nearest.

    Raises:
        TypeError: an argument that is no tensor, or of another dtype.
        ValueError: another shape, a scale below 1, an unknown padding, an `out` in the memory of `x`.
        RuntimeError: `fastllie._cpu` was not built, a tensor on another device, or a gradient is wanted.
    """
    check_rgb(DTYPES, x)
    if not isinstance(packed, Tensor) or packed.shape != (PACKED,) or packed.dtype != torch.float32:
        found = (
            f"{packed.dtype} {list(packed.shape)}" if isinstance(packed, Tensor) else type(packed).__name__
        )
        raise ValueError(f"packed must come from pack_zerodcepp, float32 [{PACKED}], got {found}")
    check_count("scale", scale)
    check_choice("padding", padding, PADDINGS)
    if cropped and (padding == "zeros" or scale != 1):
        raise ValueError(f"cropped images need padding 'replicate' and scale 1, got {padding!r} and {scale}")
    if cropped and min(x.shape[-2:]) < 2 * HALO:
        raise ValueError(f"cropped images must bring {HALO} pixels on each side, got {tuple(x.shape)}")
    check_on_cpu("enhance_zerodcepp", x)
    check_no_gradient("enhance_zerodcepp", x)
    if out is None:
        return torch.ops.fastllie.zerodcepp_forward(x, packed, scale, padding, cropped)
    check_out(out, x, inner(x, cropped).shape)
    torch.ops.fastllie.zerodcepp_forward_into(x, packed, scale, padding, cropped, out)
    return out


def _forward(x: Tensor, packed: Tensor, scale: int, padding: str, cropped: bool) -> Tensor:
    out = empty_result(x, cropped)
    _forward_into(x, packed, scale, padding, cropped, out)
    return out


def _forward_into(x: Tensor, packed: Tensor, scale: int, padding: str, cropped: bool, out: Tensor) -> None:
    if out.numel() == 0:
        return
    batch, channels, height, width = out.shape
    maps = None
    if scale > 1:
        columns = -(-width // scale)
        maps = packed.new_empty(batch, channels, -(-height // scale), -(-columns // LINE) * LINE)
    module, handles, place = cpu_kernels()
    module.zerodcepp_forward(
        *handles(inner(x, cropped), out),
        tuple(out.shape),
        HALO if cropped else 0,
        padding == "zeros",
        scale,
        packed.data_ptr(),
        0 if maps is None else maps.data_ptr(),
        *place,
    )


_library = torch.library.Library("fastllie", "FRAGMENT")
_ARGUMENTS = "Tensor x, Tensor packed, int scale, str padding, bool cropped"
_library.define(f"zerodcepp_forward({_ARGUMENTS}) -> Tensor")
_library.define(f"zerodcepp_forward_into({_ARGUMENTS}, Tensor(a!) out) -> ()")
_library.impl("zerodcepp_forward", _forward, "CompositeExplicitAutograd")
_library.impl("zerodcepp_forward_into", _forward_into, "CompositeExplicitAutograd")
torch.library.register_fake(
    "fastllie::zerodcepp_forward",
    lambda x, packed, scale, padding, cropped: empty_result(x, cropped),
    lib=_library,
)
torch.library.register_fake("fastllie::zerodcepp_forward_into", lambda *arguments: None, lib=_library)
