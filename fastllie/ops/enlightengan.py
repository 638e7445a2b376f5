"""EnlightenGAN's generator on the CPU, for inference: packed convolutions, nothing between them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fastllie.ops.checks import check_images, check_no_gradient, check_on_cpu
from fastllie.ops.convolution import (
    DTYPES,
    PackedConvolution,
    Source,
    fill_convolution,
    pack_convolution,
)
from fastllie.ops.launch import cpu_kernels

LEVELS = 5
MULTIPLE = 2 ** (LEVELS - 1)
SLOPE = 0.2
ENCODER = tuple(f"conv{level}_{place}" for level in range(1, LEVELS + 1) for place in (1, 2))
DECODER = tuple(
    name
    for level in range(LEVELS, 2 * LEVELS - 1)
    for name in (f"deconv{level}", f"conv{level + 1}_1", f"conv{level + 1}_2")
)
LAYERS = (*ENCODER, *DECODER, "conv10")
# Memory that is kept for the next call: fresh pages cost a fifth of the time at 600x400
KEPT_BYTES = 256 << 20


@dataclass(frozen=True)
class PackedEnlightenGAN:
    """The weights of the generator, packed for images of one dtype: see `pack_enlightengan`."""

    layers: tuple[PackedConvolution, ...]
    dtype: torch.dtype

    @property
    def width(self) -> int:
        return self.layers[0].outputs


def pack_enlightengan(
    state: Mapping[str, Tensor], *, dtype: torch.dtype = torch.float32, eps: float = 1e-5
) -> PackedEnlightenGAN:
    """Prepare the generator's weights, with the batch norm of eval mode, for `run_enlightengan`.

    Args:
        state: Its state dict, with the published names; any floating dtype, on the CPU.
        dtype: Of the images, float32 or bfloat16. bfloat16 is multiplied as such where the CPU has the
            instruction (AVX-512 BF16, AMX), elsewhere in float32.
        eps: Of the batch norm.

    Raises:
        TypeError: another dtype.
        KeyError: a weight that is not there.
    """
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be float32 or bfloat16, got {dtype}")
    layers = []
    for name in LAYERS:
        norm = name.replace("conv", "bn")
        scale = shift = None
        if f"{norm}.running_var" in state:
            found = [
                state[f"{norm}.{key}"].double() for key in ("weight", "bias", "running_mean", "running_var")
            ]
            scale = found[0] / (found[3] + eps).sqrt()
            shift = found[1] - found[2] * scale
        slope = SLOPE if "_" in name else 1.0
        layers.append(
            pack_convolution(
                state[f"{name}.weight"],
                state[f"{name}.bias"],
                slope=slope,
                scale=scale,
                shift=shift,
                dtype=dtype,
            )
        )
    return PackedEnlightenGAN(tuple(layers), dtype)


def run_enlightengan(
    v: Tensor, g: Tensor, packed: PackedEnlightenGAN, *, align_corners: bool = False
) -> Tensor:
    """The residual of EnlightenGAN's generator: conv10(features(v, g)) * g.

    Max-pooling, upsampling, concatenation and the scaling of the skips by the pyramid of `g` happen where a
    convolution reads its input; bias, leaky ReLU and batch norm where it writes its output.

    For inference on the CPU: not differentiable.

    Args:
        v: Images `[B, 3, H, W]` in [-1, 1], sides multiples of 16, in the dtype of `packed`.
        g: Their attention maps, `[B, 1, H, W]`, as above.
        packed: From `pack_enlightengan`.
        align_corners: Of the bilinear upsampling.

    Returns:
        `[B, 3, H, W]`, channels_last, unbounded.

    Raises:
        TypeError: another dtype than that of `packed`.
        ValueError: another shape.
        RuntimeError: `fastllie._cpu` was not built, tensors on another device, or a gradient is wanted.
    """
    check_images(DTYPES, v=v, g=g)
    if v.dtype != packed.dtype or g.dtype != packed.dtype:
        raise TypeError(f"v and g must be {packed.dtype}, as packed, got {v.dtype} and {g.dtype}")
    if v.shape[1] != 3 or v.shape[2] % MULTIPLE or v.shape[3] % MULTIPLE:
        raise ValueError(f"v must be [B, 3, H, W] with sides of multiples of 16, got {tuple(v.shape)}")
    if g.shape != (v.shape[0], 1, *v.shape[2:]):
        raise ValueError(f"g must be {[v.shape[0], 1, *v.shape[2:]]}, got {tuple(g.shape)}")
    check_on_cpu("run_enlightengan", v)
    check_no_gradient("run_enlightengan", v, g)
    return torch.ops.fastllie.enlightengan_forward(
        v,
        g,
        [layer.weights for layer in packed.layers],
        [layer.epilogue for layer in packed.layers],
        [layer.arithmetic for layer in packed.layers],
        packed.width,
        align_corners,
    )


def _channels(width: int) -> list[tuple[int, int]]:
    """Inputs and outputs of every layer."""
    found, inputs = [], 4
    for level in range(LEVELS):
        outputs = width * 2**level
        found += [(inputs, outputs), (outputs, outputs)]
        inputs = outputs
    for level in range(LEVELS - 2, -1, -1):
        outputs = width * 2**level
        found += [(2 * outputs, outputs), (2 * outputs, outputs), (outputs, outputs)]
    return [*found, (width, 3)]


def _pooled(x: Tensor) -> Tensor:
    """`F.max_pool2d(x, 2)` in a fraction of its time where there is one channel."""
    upper, lower = x[..., ::2, :], x[..., 1::2, :]
    rows = torch.maximum(upper, lower)
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


class _Workspace:
    """Two buffers that the layers write in turn, and the features that wait for their skip."""

    _kept: list[Tensor] = []  # noqa: RUF012  pop and append are atomic: a second thread finds it empty

    def __init__(self, v: Tensor, width: int):
        batch, _, height, width_ = v.shape
        self.batch, self.height, self.columns, self.width = batch, height, width_, width
        self.whole = width * batch * height * width_
        skips = sum(self.whole >> level for level in range(LEVELS - 1))
        count = 2 * self.whole + skips
        size = count * v.element_size()
        try:
            kept = self._kept.pop()
        except IndexError:
            kept = torch.empty(0, dtype=torch.uint8)
        if kept.numel() < size:
            kept = torch.empty(size, dtype=torch.uint8)
            cpu_kernels().module.expect_whole_pages(kept.data_ptr(), size)
        # bytes, which serve the next call whatever it computes in
        self._bytes = kept
        self.memory = kept[:size].view(v.dtype)

    def give_back(self) -> None:
        if self._bytes.numel() <= KEPT_BYTES and not self._kept:
            self._kept.append(self._bytes)

    def _features(self, start: int, level: int, channels: int) -> Tensor:
        height, columns = self.height >> level, self.columns >> level
        count = self.batch * height * columns * channels
        pixels = self.memory[start : start + count].view(self.batch, height, columns, channels)
        return pixels.permute(0, 3, 1, 2)

    def work(self, place: int, level: int) -> Tensor:
        return self._features(place * self.whole, level, self.width << level)

    def skip(self, level: int) -> Tensor:
        start = 2 * self.whole + sum(self.whole >> above for above in range(level))
        return self._features(start, level, self.width << level)


def _forward(
    v: Tensor,
    g: Tensor,
    weights: list[Tensor],
    epilogues: list[Tensor],
    arithmetics: list[str],
    width: int,
    align_corners: bool,
) -> Tensor:
    out = torch.empty_like(v, memory_format=torch.channels_last)
    if v.numel() == 0:
        return out
    layers = {
        name: PackedConvolution(
            weight,
            epilogue,
            *channels,
            side=1 if name == "conv10" else 3,
            arithmetic=arithmetic,
            slope=SLOPE if "_" in name else 1.0,
            affine="_" in name and name != "conv9_2",
        )
        for name, channels, weight, epilogue, arithmetic in zip(
            LAYERS, _channels(width), weights, epilogues, arithmetics, strict=True
        )
    }
    enlarged = "stretched" if align_corners else "enlarged"
    maps = [g.float().contiguous()]
    for _ in range(LEVELS - 1):
        maps.append(_pooled(maps[-1]))
    space = _Workspace(v, width)

    def run(name: str, sources: list[Source], to: Tensor) -> Tensor:
        fill_convolution(sources, layers[name], layers[name].side // 2, to)
        return to

    sources = [Source(v.contiguous(memory_format=torch.channels_last)), Source(g)]
    for level in range(LEVELS - 1):
        first = run(f"conv{level + 1}_1", sources, space.work(0, level))
        sources = [Source(run(f"conv{level + 1}_2", [Source(first)], space.skip(level)), "pooled")]
    first = run("conv5_1", sources, space.work(0, LEVELS - 1))
    place = 1
    features = run("conv5_2", [Source(first, "same", maps[-1])], space.work(place, LEVELS - 1))
    for level in range(LEVELS - 2, -1, -1):
        block = 2 * LEVELS - 1 - level
        up = run(f"deconv{block - 1}", [Source(features, enlarged)], space.work(1 - place, level))
        skip = Source(space.skip(level), "same", maps[level])
        first = run(f"conv{block}_1", [Source(up), skip], space.work(place, level))
        place = 1 - place
        features = run(f"conv{block}_2", [Source(first)], space.work(place, level))
    run("conv10", [Source(features)], out)
    space.give_back()
    return out.mul_(g)


_library = torch.library.Library("fastllie", "FRAGMENT")
_library.define(
    "enlightengan_forward(Tensor v, Tensor g, Tensor[] weights, Tensor[] epilogues, str[] arithmetics,"
    " int width, bool align_corners) -> Tensor"
)
_library.impl("enlightengan_forward", _forward, "CompositeExplicitAutograd")
torch.library.register_fake(
    "fastllie::enlightengan_forward",
    lambda v, *rest: torch.empty_like(v, memory_format=torch.channels_last),
    lib=_library,
)
