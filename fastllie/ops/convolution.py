"""Convolutions of the CPU for inference: weights packed ahead, everything around them in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie import _native
from fastllie.ops.checks import check_choice, check_images, check_no_gradient, check_on_cpu
from fastllie.ops.launch import cpu_kernels, has_tiles

DTYPES = (torch.float32, torch.bfloat16)
SAMPLINGS = ("same", "pooled", "enlarged", "stretched")
ARITHMETICS = ("direct", "pairs", "winograd2", "winograd2_pairs", "winograd4", "winograd4_pairs", "tiles")
BLOCK = 32  # output channels whose weights lie side by side
TILE = 16  # outputs of a tile, and pairs of inputs at most
# with fewer channels the transforms cost more than they save
WINOGRAD_CHANNELS = 16


class Source(NamedTuple):
    """A part of a convolution's input, and what is done to it on the way in.

    Attributes:
        x: `[B, C, h, w]`, float32 or bfloat16; any strides, but channels side by side are read in place.
        sampling: "same"; "pooled", the largest of each 2x2 pixels; "enlarged", twice the size, bilinear with
            half-pixel centres; "stretched", twice the size, bilinear with aligned corners.
        map: `[B, 1, H, W]`, float32, multiplies every channel after the sampling.
    """

    x: Tensor
    sampling: str = "same"
    map: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width after the sampling."""
        height, width = self.x.shape[-2:]
        if self.sampling == "same":
            return height, width
        return (height // 2, width // 2) if self.sampling == "pooled" else (2 * height, 2 * width)


@dataclass(frozen=True)
class PackedConvolution:
    """A convolution's weights as its arithmetic reads them: see `pack_convolution`."""

    weights: Tensor
    epilogue: Tensor  # bias, scale and shift: `[3, outputs]`, zeros up to whole blocks
    inputs: int
    outputs: int
    side: int
    arithmetic: str
    slope: float
    affine: bool


def pack_convolution(
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    slope: float = 1.0,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    arithmetic: str = "auto",
    dtype: torch.dtype = torch.float32,
) -> PackedConvolution:
    """Prepare y = leaky_relu(conv(x) + bias, slope) * scale + shift for `convolve`.

    Args:
        weight: `[outputs, inputs, 3, 3]` or `[outputs, inputs, 1, 1]`, on the CPU.
        bias, scale, shift: `[outputs]`; batch norm that comes after the activation is scale and shift.
        slope: Of the leaky ReLU, in [0, 1]: 0 is ReLU, 1 is none.
        arithmetic: "direct" sums in float32. "winograd2" and "winograd4" do so with 2.25 and 4 times fewer
            multiplications, for 3x3 only. "pairs", "winograd2_pairs" and "winograd4_pairs" round factors to
            bfloat16 and sum in float32: twice as fast where the CPU has the instruction for it (AVX-512
            BF16), slower elsewhere. "tiles" does so for processors with AMX alone, and is the fastest there.
            "auto" takes the fastest for `dtype`: pairs and tiles only for bfloat16.
        dtype: Of the images, for "auto".

    Raises:
        TypeError: an argument that is no floating-point tensor.
        ValueError: another shape, a slope outside of [0, 1], an unknown arithmetic.
    """
    for name, tensor in (("weight", weight), ("bias", bias), ("scale", scale), ("shift", shift)):
        if tensor is None and name != "weight":
            continue
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            found = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a floating-point torch.Tensor, got {found}")
        if name != "weight" and tensor.shape != weight.shape[:1]:
            raise ValueError(f"{name} must be [{weight.shape[0]}], got shape {tuple(tensor.shape)}")
        if name == "weight" and (tensor.dim() != 4 or tuple(tensor.shape[2:]) not in ((3, 3), (1, 1))):
            raise ValueError(
                f"weight must be [outputs, inputs, 3, 3] or [., ., 1, 1], got shape {tuple(tensor.shape)}"
            )
    if not 0 <= slope <= 1:
        raise ValueError(f"slope must lie in [0, 1], got {slope}")
    outputs, inputs, side, _ = weight.shape
    if min(outputs, inputs) < 1:
        raise ValueError(f"weight must have inputs and outputs, got shape {tuple(weight.shape)}")
    if arithmetic == "auto":
        arithmetic = _fastest(inputs, outputs, side, dtype)
    if arithmetic not in ARITHMETICS:
        raise ValueError(f"arithmetic must be 'auto' or one of {ARITHMETICS}, got {arithmetic!r}")
    if arithmetic.startswith("winograd") and side != 3:
        raise ValueError(f"{arithmetic} needs a 3x3 convolution, got {side}x{side}")
    columns = -(-outputs // BLOCK) * BLOCK
    epilogue = torch.zeros(3, columns)
    for row, (vector, neutral) in enumerate(((bias, 0.0), (scale, 1.0), (shift, 0.0))):
        epilogue[row, :outputs] = neutral if vector is None else vector.detach()
    affine = scale is not None or shift is not None
    packed = _pack(weight.detach().double(), columns, arithmetic)
    return PackedConvolution(packed, epilogue, inputs, outputs, side, arithmetic, float(slope), affine)


def _fastest(inputs: int, outputs: int, side: int, dtype: torch.dtype) -> str:
    if dtype == torch.bfloat16 and has_tiles():
        return "tiles"
    # the tiles of 4x4 are also no less exact than direct sums: fewer terms, and points that keep them small
    pairs = dtype == torch.bfloat16 and _native.cpu is not None and _native.cpu.has_bf16()
    if side == 3 and min(inputs, outputs) >= WINOGRAD_CHANNELS:
        return "winograd4_pairs" if pairs else "winograd4"
    return "pairs" if pairs else "direct"


def _pack(weight: Tensor, columns: int, arithmetic: str) -> Tensor:
    """Weights `[block of outputs, point or row, input, 32]`; of pairs two inputs after each output."""
    outputs, inputs, side, _ = weight.shape
    if arithmetic == "tiles":
        return _in_tiles(weight, columns)
    points = weight.permute(2, 3, 1, 0).reshape(side * side, inputs, outputs)
    if arithmetic.startswith("winograd"):
        kernel = kernel_transform(2 if arithmetic.startswith("winograd2") else 4)
        points = torch.tensordot(torch.kron(kernel, kernel), points, 1)
    if arithmetic.endswith("pairs") and inputs % 2:
        # a value that is multiplied by zero makes pairs of all
        points = torch.cat([points, torch.zeros_like(points[..., :1, :])], -2)
    points = torch.cat([points, points.new_zeros(*points.shape[:2], columns - outputs)], 2)
    blocks = points.unflatten(2, (-1, BLOCK)).permute(2, 0, 1, 3)
    if arithmetic.endswith("pairs"):
        blocks = blocks.unflatten(2, (-1, 2)).transpose(3, 4)
        return blocks.to(torch.bfloat16).contiguous()
    return blocks.float().contiguous()


def _in_tiles(weight: Tensor, columns: int) -> Tensor:
    """Weights `[block of outputs, row, tile, half of the block, pair, 16, 2]`.

    The inputs of a row's taps, one tap after the other, are cut into the fewest equal tiles of at most 16
    pairs.
    """
    outputs, inputs, side, _ = weight.shape
    even = F.pad(weight, (0, 0, 0, 0, 0, inputs % 2, 0, columns - outputs))
    pairs = side * even.shape[1] // 2
    most = max(count for count in range(1, TILE + 1) if pairs % count == 0)
    lines = even.permute(0, 2, 3, 1).reshape(-1, BLOCK // TILE, TILE, side, pairs // most, most, 2)
    return lines.permute(0, 3, 4, 1, 5, 2, 6).to(torch.bfloat16).contiguous()


def kernel_transform(tile: int) -> Tensor:
    """G of Winograd's convolution: a kernel's polynomial at 0, ±1, ∞ or at 0, ±√½, ±√2, ∞, scaled."""
    if tile == 2:
        return torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64)
    rows = [[1.0, 0.0, 0.0]]
    for square, other in ((0.5, 2.0), (2.0, 0.5)):
        for sign in (1, -1):
            divisor = 2 * square * (square - other)
            rows.append([1 / divisor, sign * square**0.5 / divisor, square / divisor])
    return torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64)


def convolve(
    *sources: Source | Tensor,
    packed: PackedConvolution,
    padding: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Convolve the concatenation of one or two sources with stride 1; nothing of it is materialised.

    For inference on the CPU: not differentiable.

    Args:
        sources: `[B, C, H, W]` each, alike in size after their sampling.
        packed: From `pack_convolution`, for as many channels.
        padding: Zeros around the input: 0, or 1 for 3x3 only; by default what keeps the size.
        out: Where the result goes, float32 or bfloat16, channels side by side (channels_last, or channels of
            such a tensor), apart from the sources. None makes a new one in the dtype of the first source.

    Returns:
        `[B, outputs, H, W]`, channels_last; without padding a 3x3 convolution takes two rows and columns.

    Raises:
        TypeError: a source that is no tensor of float32 or bfloat16.
        ValueError: shapes that do not fit, an unknown sampling.
        RuntimeError: `fastllie._cpu` was not built, tensors on another device, or a gradient is wanted.
    """
    if not 1 <= len(sources) <= 2:
        raise ValueError(f"wanted one or two sources, got {len(sources)}")
    parts = [source if isinstance(source, Source) else Source(source) for source in sources]
    padding = packed.side // 2 if padding is None else padding
    height, width = _check(parts, packed, padding)
    x = parts[0].x
    shape = (x.shape[0], packed.outputs, height, width)
    if out is not None:
        _check_out(out, shape)
    arguments = (
        [part.x for part in parts],
        [part.sampling for part in parts],
        [part.map for part in parts],
        packed.weights,
        packed.epilogue,
        [packed.inputs, packed.outputs, packed.side, padding],
        packed.arithmetic,
        packed.slope,
        packed.affine,
    )
    if out is None:
        return torch.ops.fastllie.convolution_forward(*arguments)
    torch.ops.fastllie.convolution_forward_into(*arguments, out)
    return out


def _check(parts: Sequence[Source], packed: PackedConvolution, padding: int) -> tuple[int, int]:
    """Raise unless the sources fit the convolution; the size of the output."""
    check_images(DTYPES, **{f"source {index}": part.x for index, part in enumerate(parts)})
    check_on_cpu("convolve", parts[0].x)
    check_no_gradient("convolve", *(part.x for part in parts))
    for part in parts:
        check_choice("sampling", part.sampling, SAMPLINGS)
        if part.x.shape[0] != parts[0].x.shape[0] or part.size != parts[0].size:
            sizes = [(p.x.shape[0], *p.size) for p in parts]
            raise ValueError(f"sources must be alike in batch, height and width, got {sizes}")
        shape = (part.x.shape[0], 1, *part.size)
        if part.map is not None and (part.map.shape != shape or part.map.dtype != torch.float32):
            raise ValueError(
                f"map must be {list(shape)} in float32, got {tuple(part.map.shape)} in {part.map.dtype}"
            )
    channels = sum(part.x.shape[1] for part in parts)
    if channels != packed.inputs:
        raise ValueError(f"the convolution takes {packed.inputs} channels, got {channels}")
    if padding not in (0, packed.side // 2):
        raise ValueError(f"padding must be 0 or {packed.side // 2}, got {padding!r}")
    height, width = (side + 2 * padding - packed.side + 1 for side in parts[0].size)
    if min(height, width) < 0:
        raise ValueError(f"nothing is left of {parts[0].size} by 3x3 without padding")
    return height, width


def _check_out(out: Tensor, shape: tuple[int, ...]) -> None:
    check_images(DTYPES, out=out)
    if out.shape != shape or out.device.type != "cpu":
        raise ValueError(f"out must be {list(shape)} on cpu, got {tuple(out.shape)} on {out.device}")
    if out.stride(1) != 1 and shape[1] > 1:
        raise ValueError(f"out must have its channels side by side, got strides {out.stride()}")


def fill_convolution(parts: Sequence[Source], packed: PackedConvolution, padding: int, out: Tensor) -> None:
    """`convolve` for what was checked: channels side by side, and room in `out`."""
    module, handles, place = cpu_kernels()
    sources = []
    for x, sampling, scales in parts:
        grid = (0, "float32", ()) if scales is None else handles(scales)[0]
        sources.append((*handles(x), tuple(x.shape), getattr(module.Sampling, sampling), grid))
    module.convolution_forward(
        sources,
        *handles(out),
        tuple(out.shape),
        packed.side,
        padding,
        getattr(module.Arithmetic, packed.arithmetic),
        packed.weights.data_ptr(),
        packed.epilogue.data_ptr(),
        packed.slope,
        packed.affine,
        *place,
    )


def interleaved(x: Tensor) -> Tensor:
    """`x` with its channels side by side."""
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous(memory_format=torch.channels_last)


def _forward_into(
    xs: list[Tensor],
    samplings: list[str],
    maps: list[Tensor | None],
    weights: Tensor,
    epilogue: Tensor,
    sizes: list[int],
    arithmetic: str,
    slope: float,
    affine: bool,
    out: Tensor,
) -> None:
    if out.numel() == 0:
        return
    inputs, outputs, side, padding = sizes
    packed = PackedConvolution(weights, epilogue, inputs, outputs, side, arithmetic, slope, affine)
    parts = [
        Source(interleaved(x), sampling, scales)
        for x, sampling, scales in zip(xs, samplings, maps, strict=True)
    ]
    fill_convolution(parts, packed, padding, out)


def _empty(xs: list[Tensor], samplings: list[str], sizes: list[int]) -> Tensor:
    _, outputs, side, padding = sizes
    height, width = (size + 2 * padding - side + 1 for size in Source(xs[0], samplings[0]).size)
    return (
        xs[0]
        .new_empty((xs[0].shape[0], outputs, height, width))
        .contiguous(memory_format=torch.channels_last)
    )


def _forward(
    xs: list[Tensor],
    samplings: list[str],
    maps: list[Tensor | None],
    weights: Tensor,
    epilogue: Tensor,
    sizes: list[int],
    arithmetic: str,
    slope: float,
    affine: bool,
) -> Tensor:
    out = _empty(xs, samplings, sizes)
    _forward_into(xs, samplings, maps, weights, epilogue, sizes, arithmetic, slope, affine, out)
    return out


_library = torch.library.Library("fastllie", "FRAGMENT")
_ARGUMENTS = (
    "Tensor[] xs, str[] samplings, Tensor?[] maps, Tensor weights, Tensor epilogue, int[] sizes,"
    " str arithmetic, float slope, bool affine"
)
_library.define(f"convolution_forward({_ARGUMENTS}) -> Tensor")
_library.define(f"convolution_forward_into({_ARGUMENTS}, Tensor(a!) out) -> ()")
_library.impl("convolution_forward", _forward, "CompositeExplicitAutograd")
_library.impl("convolution_forward_into", _forward_into, "CompositeExplicitAutograd")
torch.library.register_fake(
    "fastllie::convolution_forward",
    lambda xs, samplings, maps, weights, epilogue, sizes, *rest: _empty(xs, samplings, sizes),
    lib=_library,
)
torch.library.register_fake("fastllie::convolution_forward_into", lambda *arguments: None, lib=_library)
