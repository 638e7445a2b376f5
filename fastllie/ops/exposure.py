"""An exposure meter on the CPU, for inference: what it reads and its curve, each in one pass."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastllie.ops.checks import check_no_gradient, check_on_cpu, check_rgb
from fastllie.ops.launch import cpu_kernels

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
READ = (*DTYPES, torch.uint8)


def expose(x: Tensor, gain: Tensor, *, keep_hue: bool, dtype: torch.dtype) -> Tensor:
    """Multiply the odds of pictures, or nearly so: gain x / (1 + (gain - 1) (x + m) / 2).

    m is the largest of a pixel's colours; without `keep_hue` x has its place. See
    `fastllie.models.metered.exposed`. For inference on the CPU: not differentiable.

    Args:
        x: Pictures `[B, 3, H, W]`: float32, bfloat16 or float16 in [0, 1], or uint8. Any strides.
        gain: `[B, 1, 1, 1]`, float32, at least 1.
        keep_hue: As above.
        dtype: Of the result: float32, bfloat16 or float16. Arithmetic is float32.

    Returns:
        `[B, 3, H, W]` in the memory format of `x`.

    Raises:
        TypeError: another dtype.
        ValueError: another shape.
        RuntimeError: `fastllie._cpu` was not built, tensors on another device, or a gradient is wanted.
    """
    check_rgb(READ, x)
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be float32, bfloat16 or float16, got {dtype}")
    if gain.shape != (len(x), 1, 1, 1) or gain.dtype != torch.float32:
        raise ValueError(
            f"gain must be {[len(x), 1, 1, 1]} in float32, got {list(gain.shape)} in {gain.dtype}"
        )
    check_on_cpu("expose", x)
    check_on_cpu("expose", gain)
    check_no_gradient("expose", x, gain)
    return torch.ops.fastllie.exposure_forward(x, gain, keep_hue, dtype)


def light_of(x: Tensor, luma: Sequence[float]) -> Tensor:
    """The mean square of the luma of pictures, `[B]` in float64; of bytes as of floats in [0, 1].

    For inference on the CPU: not differentiable. The same bits for any number of threads.

    Args:
        x: `[B, 3, H, W]` as for `expose`.
        luma: What red, green and blue count in it.

    Raises:
        TypeError, ValueError, RuntimeError: as for `expose`.
    """
    check_rgb(READ, x)
    check_on_cpu("light_of", x)
    check_no_gradient("light_of", x)
    return torch.ops.fastllie.exposure_light(x, list(luma))


def _light(x: Tensor, luma: list[float]) -> Tensor:
    rows = torch.empty((len(x), x.shape[2]), dtype=torch.float64)
    if x.numel():
        module, handles, place = cpu_kernels()
        module.exposure_light(*handles(x), x.shape, luma, rows.data_ptr(), *place)
    return rows.mean(1)


def _forward(x: Tensor, gain: Tensor, keep_hue: bool, dtype: torch.dtype) -> Tensor:
    out = torch.empty_like(x, dtype=dtype)
    if out.numel():
        module, handles, place = cpu_kernels()
        gain = gain.contiguous()
        module.exposure_forward(*handles(x, out), x.shape, gain.data_ptr(), keep_hue, *place)
    return out


_library = torch.library.Library("fastllie", "FRAGMENT")
_library.define("exposure_light(Tensor x, float[] luma) -> Tensor")
_library.impl("exposure_light", _light, "CompositeExplicitAutograd")
torch.library.register_fake(
    "fastllie::exposure_light", lambda x, luma: x.new_empty(len(x), dtype=torch.float64), lib=_library
)
_library.define("exposure_forward(Tensor x, Tensor gain, bool keep_hue, ScalarType dtype) -> Tensor")
_library.impl("exposure_forward", _forward, "CompositeExplicitAutograd")
torch.library.register_fake(
    "fastllie::exposure_forward",
    lambda x, gain, keep_hue, dtype: torch.empty_like(x, dtype=dtype),
    lib=_library,
)
