"""dawn's denoiser, black levels and curves over the image as it is, for inference on the CPU."""

import math
import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from fastllie.ops.checks import (
    check_no_gradient,
    check_on_cpu,
    check_out,
    check_rgb,
)
from fastllie.ops.convolution import kernel_transform
from fastllie.ops.launch import cpu_kernels, has_tiles

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)
WIDTH, LEVELS = 12, 4  # channels of the denoiser's networks; of its pyramid
INPUTS, OUTPUTS = (9, 6, 6), (6, 3, 3)  # of the network of each level, from half the size on
GRID = (6, 8, 8, 12)  # planes, lumas, rows, columns
THUMB = (64, 96)
NOISES, NOISE_PLACES = 6, 48 * 64  # what is measured of noise, and where
VECTOR = 16  # channels of the brain lie side by side in whole numbers of so many
BRAIN = (
    ("conv1", 6, 24),
    ("conv2", 24, 40),
    ("conv3", 40, 40),
    ("conv4", 40, 64),
    ("conv5", 64, 64),
    ("conv6", 64, 64),
    ("last", 64, 48),
)
DENSE = (("facts", 18, 32), ("whole1", 160, 96), ("whole2", 96, 64))
PACKED_BRAIN = sum(
    ((1 if name == "last" else 9) * inputs + 1) * -(-outputs // VECTOR) * VECTOR
    for name, inputs, outputs in BRAIN
) + sum((inputs + 1) * outputs for _, inputs, outputs in DENSE)
KERNEL = 6 * 3  # factors that a 3x3 kernel becomes by Winograd's algorithm along its columns
BIASES = sum(2 * WIDTH + outputs for outputs in OUTPUTS)
PACKED = sum(
    KERNEL * WIDTH * (inputs + WIDTH + outputs) + (WIDTH**2 if level + 1 < len(INPUTS) else 0)
    for level, (inputs, outputs) in enumerate(zip(INPUTS, OUTPUTS, strict=True))
)

TILE_LINES, TILE_ROW = 16, 32  # of a tile: pairs of inputs, and numbers of a line of weights


def _tiles(inputs: int, taps: int) -> int:
    """How many tiles the taps of a row of a kernel fill."""
    return -(-taps * -(-inputs // 2) // TILE_LINES)


PACKED_TILES = TILE_ROW * sum(
    3 * (_tiles(inputs, 3) * WIDTH + _tiles(WIDTH, 3) * (WIDTH + outputs))
    + (WIDTH if level + 1 < len(INPUTS) else 0)
    for level, (inputs, outputs) in enumerate(zip(INPUTS, OUTPUTS, strict=True))
)


KEPT = 16 << 20  # floats of a workspace that a thread keeps for its next picture
_kept = threading.local()


class Known(NamedTuple):
    """What is known of whole pictures before their pixels are touched: float32 and contiguous.

    Attributes:
        grid: Of alpha, then black, of red, green and blue: `[B, 6, 8, 8, 12]`.
        mean: Of the luma, `[B, 1, 1, 1]`.
        gains: By which magnitudes of the bands are multiplied, `[B, 4, 3]`; None where nothing is denoised.
        biases: Of all convolutions of the denoiser, `[B, 84]`; None where nothing is denoised.
    """

    grid: Tensor
    mean: Tensor
    gains: Tensor | None = None
    biases: Tensor | None = None


def pack_dawn(weights: Mapping[str, Tensor], tiles: bool = False) -> Tensor:
    """Prepare the weights of the denoiser's convolutions for `enhance_dawn`.

    Args:
        weights: Of each level 0 to 2 `levels.L.first.weight`, `second`, `last`, `[K, C, 3, 3]`, and but for
            the last level `below`, `[12, 12, 1, 1]`.
        tiles: For the products of tiles, see `fastllie.ops.launch.has_tiles`: the networks of the levels are
            computed in bfloat16 then, with sums in float32.

    Returns:
        float32, one level after the other: of each 3x3 convolution the six factors of Winograd's algorithm
        along its columns, each with three taps of every input, all outputs side by side. Or bfloat16: of each
        row of a kernel its taps from left to right, of each the pairs of inputs, all in one tile or half in
        each of two, of each output a line of 32.
    """
    transform = kernel_transform(4)
    parts = []
    for level in range(len(INPUTS)):
        kernels = [weights[f"levels.{level}.{name}.weight"] for name in ("first", "second", "last")]
        if level + 1 < len(INPUTS):
            kernels.insert(1, weights[f"levels.{level}.below.weight"])
        for kernel in kernels:
            if tiles:
                parts.append(_in_tiles(kernel.detach()))
                continue
            if kernel.shape[2] == 3:
                kernel = torch.einsum("fy,ocyx->ocfx", transform.to(kernel.device), kernel.detach().double())
            parts.append(kernel.detach().float().permute(2, 1, 3, 0).flatten())
    return torch.cat(parts)


def _in_tiles(kernel: Tensor) -> Tensor:
    outputs, inputs, rows, taps = kernel.shape
    even = torch.nn.functional.pad(kernel.float(), (0, 0, 0, 0, 0, inputs % 2))
    lines = even.permute(2, 0, 3, 1).reshape(rows, outputs, _tiles(inputs, taps), -1).transpose(1, 2)
    return torch.nn.functional.pad(lines, (0, TILE_ROW - lines.shape[-1])).flatten().bfloat16()


def pack_brain(weights: Mapping[str, Tensor]) -> Tensor:
    """Prepare the weights of the brain for `dawn_grid`.

    Args:
        weights: Of its layers, `conv1.weight`, `conv1.bias` and so on; see `fastllie.models.dawn.brain`.

    Returns:
        float32, one layer after the other: convolutions with all outputs of a tap and an input side by side,
        zeros up to whole vectors; then the dense ones; each with its bias behind it.
    """
    parts = []
    for name, _, outputs in BRAIN:
        kernel = weights[f"{name}.weight"].detach().float().permute(2, 3, 1, 0).reshape(-1, outputs)
        rows = torch.cat([kernel, weights[f"{name}.bias"].detach().float()[None]])
        parts.append(torch.nn.functional.pad(rows, (0, -outputs % VECTOR)))
    for name, *_ in DENSE:
        parts += [
            weights[f"{name}.weight"].detach().float().T,
            weights[f"{name}.bias"].detach().float()[None],
        ]
    return torch.cat([part.flatten() for part in parts])


def dawn_grid(thumb: Tensor, mean: Tensor, noise: Tensor, packed: Tensor, places: tuple[int, ...]) -> Tensor:
    """The brain's grid of curves from what is seen of pictures, float32 `[B, 6, 8, 8, 12]`; the CPU's kernel.

    Args:
        thumb: float32 `[B, 3, 64, 96]`.
        mean: Of the luma, and a little: float32 `[B, 1, 1, 1]`, above 0.
        noise: float32 `[B, 6]`, see `noise_levels`.
        packed: From `pack_brain`.
        places: Of eight percentiles among the thumbnail's lumas in order, rising.

    Raises:
        ValueError: another shape or dtype, places out of order.
        RuntimeError: `fastllie._cpu` was not built, a tensor on another device, or a gradient is wanted.
    """
    shapes = ((len(thumb), 3, *THUMB), (len(thumb), 1, 1, 1), (len(thumb), NOISES), (PACKED_BRAIN,))
    tensors = {"thumb": thumb, "mean": mean, "noise": noise, "packed": packed}
    for (name, tensor), shape in zip(tensors.items(), shapes, strict=True):
        if tensor.dtype != torch.float32 or tensor.shape != shape:
            raise ValueError(f"{name} must be float32 {list(shape)}, got {tensor.dtype} {list(tensor.shape)}")
    ordered = len(places) == 8 and all(a < b for a, b in pairwise((-1, *places, math.prod(THUMB))))
    if not ordered:
        raise ValueError(f"places must be eight rising numbers below {math.prod(THUMB)}, got {places}")
    for tensor in tensors.values():
        check_on_cpu("dawn_grid", tensor)
    check_no_gradient("dawn_grid", *tensors.values())
    return torch.ops.fastllie.dawn_grid(thumb, mean, noise, packed, places)


def enhance_dawn(
    x: Tensor,
    packed: Tensor,
    known: Known,
    *,
    denoise: float = 1.0,
    place: tuple[int, int] = (0, 0),
    size: tuple[int, int] | None = None,
    bgr: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Take the noise out of pictures in v = x / (x + mean), and brighten them by a grid of curves.

    The image is read twice and written once; beside it lie only means at half size and below, about three
    floats a pixel, in memory that a thread keeps for its next picture, up to 64 MB. Arithmetic is float32;
    that of the denoiser's networks is bfloat16 where `packed` is. For inference on the CPU: not
    differentiable. Any strides are read in place.

    Args:
        x: Images, `[B, 3, H, W]`; float32, bfloat16 or float16 in [0, 1], or uint8 in 0..255.
        packed: From `pack_dawn`.
        known: What is known of the pictures that `x` are, or are parts of.
        denoise: From 0 to 1: each weight w of a band becomes 1 - denoise (1 - w).
        place: Row and column of the first pixel of `x` in its picture, multiples of 16.
        size: Height and width of the picture; None where `x` is all of it.
        bgr: Whether the colours of `x` and of the result are blue, green, red; `known` is of RGB.
        out: Where the result goes, of the shape and dtype of `x` and apart from it; any strides. None makes a
            new tensor.

    Returns:
        The enhanced images, in the dtype and the memory format of `x`, in `out` if that was given; uint8 is
        rounded to nearest.

    Raises:
        TypeError: an argument that is no tensor, or of another dtype.
        ValueError: another shape, a share out of range, an `out` in the memory of `x`.
        RuntimeError: `fastllie._cpu` was not built, a tensor on another device, or a gradient is wanted.
    """
    check_rgb(DTYPES, x)
    expected = [(len(x), *GRID), (len(x), 1, 1, 1), (len(x), LEVELS, 3), (len(x), BIASES)]
    for name, tensor, shape in zip(
        ("packed", *Known._fields), (packed, *known), ((PACKED,), *expected), strict=True
    ):
        if tensor is None and denoise == 0:
            continue
        if name == "packed" and isinstance(tensor, Tensor) and tensor.dtype == torch.bfloat16:
            if tensor.shape == (PACKED_TILES,) and has_tiles():
                continue
            raise ValueError(
                f"packed in bfloat16 must be [{PACKED_TILES}], got {list(tensor.shape)}"
                if has_tiles()
                else "packed must be float32: this machine has no tiles of bfloat16"
            )
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.float32 or tensor.shape != shape:
            found = (
                f"{tensor.dtype} {list(tensor.shape)}"
                if isinstance(tensor, Tensor)
                else type(tensor).__name__
            )
            raise ValueError(f"{name} must be float32 {list(shape)}, got {found}")
    if not 0 <= denoise <= 1:
        raise ValueError(f"denoise must be from 0 to 1, got {denoise}")
    check_on_cpu("enhance_dawn", x)
    check_no_gradient("enhance_dawn", x)
    whole = tuple(x.shape[-2:]) if size is None else size
    parts = [packed, *(tensor for tensor in known if tensor is not None)]
    if out is None:
        return torch.ops.fastllie.dawn_forward(x, parts, denoise, place, whole, bgr)
    check_out(out, x, x.shape)
    torch.ops.fastllie.dawn_forward_into(x, parts, denoise, place, whole, bgr, out)
    return out


def thumbnail(x: Tensor) -> Tensor:
    """The exact means of pictures over 64 x 96 equal parts, float32 `[B, 3, 64, 96]`; the CPU's kernel.

    Args:
        x: Images, `[B, 3, H, W]`, H >= 64, W >= 96; float32, bfloat16, float16, or uint8, read as 0 to 1.

    Raises:
        TypeError, ValueError, RuntimeError: as `enhance_dawn`; smaller images.
    """
    check_rgb(DTYPES, x)
    if x.shape[-2] < THUMB[0] or x.shape[-1] < THUMB[1]:
        raise ValueError(f"x must have at least {THUMB[0]} x {THUMB[1]} pixels, got shape {tuple(x.shape)}")
    check_on_cpu("thumbnail", x)
    check_no_gradient("thumbnail", x)
    return torch.ops.fastllie.dawn_thumbnail(x)


def noise_levels(x: Tensor, mean: Tensor, bgr: bool = False) -> Tensor:
    """How much noise there is in v = x / (x + mean), float32 `[B, 6]`; the CPU's kernel.

    As `fastllie.models.dawn.brain.noise_levels`, which says what is measured.

    Args:
        x: Images, `[B, 3, H, W]`; float32, bfloat16, float16, or uint8, read as 0 to 1.
        mean: Of the luma, float32 `[B, 1, 1, 1]`.
        bgr: Whether the colours of `x` are blue, green, red.

    Raises:
        TypeError, ValueError, RuntimeError: as `enhance_dawn`.
    """
    check_rgb(DTYPES, x)
    if mean.dtype != torch.float32 or mean.shape != (len(x), 1, 1, 1):
        raise ValueError(f"mean must be float32 [{len(x)}, 1, 1, 1], got {mean.dtype} {list(mean.shape)}")
    check_on_cpu("noise_levels", x)
    check_no_gradient("noise_levels", x)
    return torch.ops.fastllie.dawn_noise(x, mean, bgr)


def _workspace(floats: int) -> Tensor:
    """Memory that belongs to this thread until it asks again: of each new page the system takes its time."""
    held: Tensor | None = getattr(_kept, "workspace", None)
    if held is None or held.numel() < floats:
        # whatever the defaults of the caller's program are
        held = torch.empty(floats, dtype=torch.float32, device="cpu")
        if floats <= KEPT:
            _kept.workspace = held
    return held


def _forward(
    x: Tensor, parts: Sequence[Tensor], denoise: float, place: Sequence[int], whole: Sequence[int], bgr: bool
) -> Tensor:
    out = torch.empty_like(x)
    _forward_into(x, parts, denoise, place, whole, bgr, out)
    return out


def _forward_into(
    x: Tensor,
    parts: Sequence[Tensor],
    denoise: float,
    place: Sequence[int],
    whole: Sequence[int],
    bgr: bool,
    out: Tensor,
) -> None:
    if out.numel() == 0:
        return
    module, handles, place_of_launch = cpu_kernels()
    shape = tuple(x.shape)
    packed, grid, mean, *noise = (tensor.contiguous() for tensor in parts)
    workspace = _workspace(module.dawn_floats(shape) if denoise else 0)
    pointers = [tensor.data_ptr() for tensor in (grid, mean, *noise)] + [0] * (2 - len(noise))
    module.dawn_forward(
        *handles(x, out),
        shape,
        tuple(place),
        tuple(whole),
        [*pointers, packed.data_ptr()],
        packed.dtype == torch.bfloat16,
        denoise,
        bgr,
        workspace.data_ptr(),
        *place_of_launch,
    )


def _thumbnail(x: Tensor) -> Tensor:
    out = x.new_empty((len(x), 3, *THUMB), dtype=torch.float32)
    if out.numel():
        module, handles, place = cpu_kernels()
        module.dawn_thumbnail(*handles(x), tuple(x.shape), out.data_ptr(), *place)
    return out


def _noise(x: Tensor, mean: Tensor, bgr: bool) -> Tensor:
    out = mean.new_empty(len(x), NOISES)
    if x.numel():
        module, handles, place = cpu_kernels()
        means, magnitudes = mean.contiguous(), mean.new_empty(len(x), NOISES, NOISE_PLACES)
        pointers = (means.data_ptr(), bgr, magnitudes.data_ptr(), out.data_ptr())
        module.dawn_noise(*handles(x), tuple(x.shape), *pointers, *place)
    return out


def _grid(thumb: Tensor, mean: Tensor, noise: Tensor, packed: Tensor, places: Sequence[int]) -> Tensor:
    out = thumb.new_empty(len(thumb), *GRID)
    if out.numel():
        module, _, place = cpu_kernels()
        known = [tensor.contiguous() for tensor in (thumb, mean, noise)]
        workspace = thumb.new_empty(module.dawn_brain_floats())
        module.dawn_brain(
            len(thumb),
            [tensor.data_ptr() for tensor in known],
            list(places),
            packed.contiguous().data_ptr(),
            workspace.data_ptr(),
            out.data_ptr(),
            *place,
        )
    return out


_library = torch.library.Library("fastllie", "FRAGMENT")
_ARGUMENTS = "Tensor x, Tensor[] parts, float denoise, int[] place, int[] whole, bool bgr"
_library.define(f"dawn_forward({_ARGUMENTS}) -> Tensor")
_library.define(f"dawn_forward_into({_ARGUMENTS}, Tensor(a!) out) -> ()")
_library.define("dawn_thumbnail(Tensor x) -> Tensor")
_library.define("dawn_noise(Tensor x, Tensor mean, bool bgr) -> Tensor")
_library.define("dawn_grid(Tensor thumb, Tensor mean, Tensor noise, Tensor packed, int[] places) -> Tensor")
_library.impl("dawn_grid", _grid, "CompositeExplicitAutograd")
_library.impl("dawn_forward", _forward, "CompositeExplicitAutograd")
_library.impl("dawn_forward_into", _forward_into, "CompositeExplicitAutograd")
_library.impl("dawn_thumbnail", _thumbnail, "CompositeExplicitAutograd")
_library.impl("dawn_noise", _noise, "CompositeExplicitAutograd")
torch.library.register_fake(
    "fastllie::dawn_noise", lambda x, mean, bgr: mean.new_empty(len(x), NOISES), lib=_library
)
torch.library.register_fake(
    "fastllie::dawn_grid", lambda thumb, *arguments: thumb.new_empty(len(thumb), *GRID), lib=_library
)
torch.library.register_fake("fastllie::dawn_forward", lambda x, *arguments: torch.empty_like(x), lib=_library)
torch.library.register_fake("fastllie::dawn_forward_into", lambda *arguments: None, lib=_library)
torch.library.register_fake(
    "fastllie::dawn_thumbnail", lambda x: x.new_empty((len(x), 3, *THUMB), dtype=torch.float32), lib=_library
)
