"""Images of every kind to float batches `[B, 3, H, W]` in [0, 1] and back to the same kind."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastllie.defaults import LUMA
from fastllie.images.files import is_source, name_of
from fastllie.images.photograph import TOP, Photograph, upright
from fastllie.images.reading import read, white_of, with_white

CHANNELS = ("rgb", "bgr")
TENSOR_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
ARRAY_FLOATS = (np.float16, np.float32, np.float64)
# Resized or filtered floats leave [0, 1] by rounding; they are clamped, and anything further is an error
OVERSHOOT = 1e-3
_WANTED = (
    "wanted a torch.Tensor (3,H,W) or (B,3,H,W), a numpy.ndarray (H,W,3) or (B,H,W,3), a PIL.Image.Image,"
    " or an image file: its path, its bytes, or open"
)


@dataclass(frozen=True)
class Source:
    """What a batch was made from: enough to turn a result into the same kind.

    Attributes:
        restore: Enhanced float batch -> the kind that came.
        unchanged: The image as it came (upright, where it was a photograph with an orientation).
    """

    restore: Callable[[Tensor], Any]
    unchanged: Callable[[], Any]


def to_batch(
    image: Any,
    *,
    channels: str = "rgb",
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    white_level: int | str | None = None,
    max_pixels: int | None = None,
) -> tuple[Tensor, Source]:
    """Turn an image of any kind into a batch `[B, 3, H, W]`, RGB in [0, 1], and remember how to go back.

    Args:
        image: A tensor, an array, a `Photograph`, a PIL image, or a file: a path, its bytes, or open.
        channels: "rgb" or "bgr", the order in tensors and arrays; PIL images and files know theirs.
        device: Where the batch shall be; None leaves a tensor where it is and puts the rest on the CPU.
        dtype: The floating-point dtype of the batch. uint8 leaves the bytes of colour images as they are, and
            means float32 for all others.
        white_level: The value of white of uint16: a number, "auto" (the least of 10, 12, 14 or 16 bits
            that holds all values), or None: 65535, or what a file says.
        max_pixels: Of a file; None is `defaults.MOST_PIXELS`.

    Raises:
        TypeError: another kind of object, or of numbers.
        ValueError: a wrong shape or channel count, no pixels, NaN, infinite values, or values outside [0, 1].
    """
    if channels not in CHANNELS:
        raise ValueError(f"channels must be one of {CHANNELS}, got {channels!r}")
    if isinstance(image, Tensor):
        return _from_tensor(image, channels == "bgr", device, dtype, white_level)
    if isinstance(image, np.ndarray):
        return _from_array(image, channels == "bgr", device, dtype, white_level)
    if isinstance(image, Photograph):
        return _from_photograph(with_white(image, white_level, "the photograph"), device, dtype)
    if isinstance(image, Image.Image):
        photo = with_white(Photograph.of(upright(image)), white_level, "image")
        return _as_pil(_from_photograph(photo, device, dtype))
    if is_source(image):
        return _as_pil(_from_photograph(_read(image, white_level, max_pixels), device, dtype))
    raise TypeError(f"image is a {type(image).__name__}; {_WANTED}")


def from_batch(y: Tensor, source: Source) -> Any:
    """Turn an enhanced batch `[B, 3, H, W]` into the kind, dtype, device and layout that `to_batch` got."""
    return source.restore(y)


def _from_tensor(
    image: Tensor,
    bgr: bool,
    device: torch.device | None,
    dtype: torch.dtype,
    white_level: int | str | None,
) -> tuple[Tensor, Source]:
    if image.dtype not in (*TENSOR_FLOATS, torch.uint8, torch.uint16):
        raise TypeError(
            f"image is a tensor of {image.dtype}; wanted float16, bfloat16, float32 or float64 in [0, 1],"
            " uint8 in 0..255 or uint16 in 0..65535"
        )
    if image.layout != torch.strided:
        raise TypeError(f"image is a tensor of layout {image.layout}; wanted a dense one")
    if image.is_meta:
        raise ValueError("image is a tensor on the device 'meta', which holds no values")
    given = image.detach()
    shape = tuple(given.shape)
    if given.dim() not in (3, 4) or shape[-3] != 3:
        hint = _hint(shape, -3, -1) if given.dim() in (3, 4) else ""
        raise ValueError(f"image is a tensor of shape {shape}; wanted (3,H,W) or (B,3,H,W){hint}")
    _check_size(shape, shape[-2:])
    four = given if given.dim() == 4 else given.unsqueeze(0)
    white = 255 if image.dtype == torch.uint8 else 0
    if image.dtype == torch.uint16:
        white = TOP if white_level is None else white_of(given.to(torch.int32), white_level, "image")

    def restore(y: Tensor) -> Tensor:
        out = torch.empty_like(four)
        y = y.flip(1) if bgr else y
        out.copy_(_values(y, white))
        return out if given.dim() == 4 else out.squeeze(0)

    x = four if device is None else four.to(device)
    x = _of_sixteen_bits(x, white, dtype) if image.dtype == torch.uint16 else _unit(x, dtype)
    return x.flip(1) if bgr else x, Source(restore, given.clone)


def _hint(shape: tuple[int, ...], wanted: int, other: int) -> str:
    """What may have gone wrong with a shape whose axis `wanted` does not hold 3 channels."""
    if shape[other] == 3:
        return f"; its channels are on axis {other}, move them to {wanted}"
    if shape[wanted] in (1, 4):
        return (
            "; it is grey, expand it to 3 channels" if shape[wanted] == 1 else "; take the alpha channel off"
        )
    return ""


def _unit(x: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 or float values as floats of `dtype` in [0, 1], checked; for uint8 see `to_batch`."""
    if dtype == torch.uint8:
        if x.dtype == torch.uint8:
            return x
        dtype = torch.float32
    if x.dtype == torch.uint8:
        # divide in float32 at least: multiplying by 1/255 gives other values for half of the 256
        wide = torch.promote_types(dtype, torch.float32)
        return x.to(wide).div_(255).to(dtype)
    low, high = (float(bound) for bound in torch.aminmax(x))
    # aminmax carries NaN through, and NaN fails every comparison
    if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):
        bad = x.numel() - int(torch.isfinite(x).sum())
        if bad:
            raise ValueError(f"image holds {bad} values that are NaN or infinite, of {x.numel()}")
        hint = "; divide by 255" if high > 2 else "; clip it to [0, 1] if that is meant"
        raise ValueError(f"image has values from {low:g} to {high:g}; floats must lie in [0, 1]{hint}")
    return (x.clamp(0, 1) if low < 0 or high > 1 else x).to(dtype)


def _of_sixteen_bits(x: Tensor, white: int, dtype: torch.dtype) -> Tensor:
    """uint16 up to `white` as floats of `dtype`; uint8 means float32."""
    dtype = torch.float32 if dtype == torch.uint8 else dtype
    return x.to(torch.promote_types(dtype, torch.float32)).div_(white).to(dtype)


def _values(y: Tensor, top: int) -> Tensor:
    """[0, 1] to 0..top, rounded half up: bytes, or floats for a cast to uint16; 0 leaves floats alone.

    Bytes stay as they are.
    """
    if y.dtype == torch.uint8:
        return y
    y = y.to(torch.promote_types(y.dtype, torch.float32))
    if not top:
        return y
    y = (y * top).add_(0.5).clamp_(0, top)
    # narrow here: a quarter of the traffic from an accelerator
    return y.to(torch.uint8) if top == 255 else y


def _luma(y: Tensor) -> Tensor:
    return torch.einsum("chw,c->hw", y, y.new_tensor(LUMA))


def _check_size(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    if 0 in shape:
        raise ValueError(f"image has no pixels: shape {shape}, height {size[0]}, width {size[1]}")


def _from_array(
    image: np.ndarray,
    bgr: bool,
    device: torch.device | None,
    dtype: torch.dtype,
    white_level: int | str | None,
) -> tuple[Tensor, Source]:
    kind = image.dtype.type
    if kind not in (np.uint8, np.uint16, *ARRAY_FLOATS):
        raise TypeError(
            f"image is an array of {image.dtype}; wanted uint8, uint16, or floats of 16 to 64 bits in [0, 1]"
        )
    shape = image.shape
    if image.ndim not in (3, 4) or shape[-1] != 3:
        hint = _hint(shape, -1, -3) if image.ndim in (3, 4) else ""
        if image.ndim == 2:
            hint = "; it is grey, stack it three times along a last axis or give a PIL image"
        raise ValueError(f"image is an array of shape {shape}; wanted (H,W,3) or (B,H,W,3){hint}")
    _check_size(shape, shape[-3:-1])
    top = {np.uint8: 255, np.uint16: TOP}.get(kind, 0)
    if kind is np.uint16 and white_level is not None:
        top = white_of(image, white_level, "image")
    x = _plane(image, dtype, device, top)
    x = (x if image.ndim == 4 else x.unsqueeze(0)).permute(0, 3, 1, 2)

    def restore(y: Tensor) -> np.ndarray:
        y = _values(y.flip(1) if bgr else y, top).permute(0, 2, 3, 1)
        return np.ascontiguousarray(y.cpu().numpy().reshape(shape), dtype=image.dtype)

    return x.flip(1) if bgr else x, Source(restore, image.copy)


def _plane(values: np.ndarray, dtype: torch.dtype, device: torch.device | None, white: int) -> Tensor:
    """An array of any shape as a tensor in [0, 1], on the device; of uint16 with `white` as 1."""
    if values.dtype.type is np.uint16:
        dtype = torch.float32 if dtype == torch.uint8 else dtype
        wide = np.float64 if dtype == torch.float64 else np.float32
        return torch.from_numpy(np.divide(values, white, dtype=wide)).to(device=device, dtype=dtype)
    # a copy where torch cannot share the memory: negative strides, another byte order, read-only
    native = values.astype(values.dtype.newbyteorder("="), order="C", copy=not values.flags.writeable)
    return _unit(torch.from_numpy(np.ascontiguousarray(native)).to(device), dtype)


def _read(source: Any, white_level: int | str | None, max_pixels: int | None) -> Photograph:
    photo = read(source, white_level=white_level, max_pixels=max_pixels, only_first=True)
    name = name_of(source)
    if photo.deep:
        floats = photo.values.dtype == np.float32
        warnings.warn(
            f"{name} has {'floats' if floats else '16 bits a channel'}; the PIL image that comes back has 8"
            " bits. All are kept by fastllie.enhance_folder, by `fastllie enhance`, and in"
            f" {'float' if floats else 'uint16'} arrays",
            stacklevel=2,
        )
    if photo.stored.left_out:
        warnings.warn(f"{name}: left out: {', '.join(photo.stored.left_out)}", stacklevel=2)
    return photo


def _from_photograph(
    photo: Photograph, device: torch.device | None, dtype: torch.dtype
) -> tuple[Tensor, Source]:
    """Grey is enhanced as three equal channels and returns as their luma."""
    if photo.later:
        raise ValueError(
            f"the photograph holds {1 + len(photo.later)} pictures; wanted one: see Photograph.each"
        )
    values = photo.values
    if photo.grey:
        # the luma of three rounded channels would be rounded twice
        wide = torch.float32 if dtype == torch.uint8 else dtype
        grey = _plane(values[..., 0], wide, device, photo.white)
        x = grey.expand(1, 3, *grey.shape)
    else:
        x = _plane(photo.colours, dtype, device, photo.white).permute(2, 0, 1).unsqueeze(0)

    def restore(y: Tensor) -> Photograph:
        # the network treats the three channels differently, so a grey image is not grey any more
        y = _luma(y[0]).unsqueeze(2) if photo.grey else y[0].permute(1, 2, 0)
        return photo.with_colours(_values(y, photo.top).cpu().numpy())

    return x, Source(restore, lambda: photo)


def _as_pil(made: tuple[Tensor, Source]) -> tuple[Tensor, Source]:
    x, source = made
    return x, Source(lambda y: source.restore(y).as_pil(), lambda: source.unchanged().as_pil())
