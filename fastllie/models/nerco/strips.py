"""NeRCo's inference in strips of rows: the result of the whole, in bounded memory and near the cache.

An instance norm needs the mean and variance of the whole image before any pixel can go on. So each layer runs
over all strips, gathers exact statistics on the way, and the next layer applies them while it reads. Of a
generator the two maps at full resolution are never there as a whole: they are computed twice, once for the
statistics. Residual blocks hold two maps, and write in place what will not be read again.

One image at a time, channels last, no gradients.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie.models.nerco.layers import EPS
from fastllie.models.nerco.networks import (
    Generator,
    MaskExtractor,
    Representation,
    ResidualBlock,
    Trunk,
    mirrored,
    reflect,
)
from fastllie.ops.convolution import PackedConvolution, convolve, pack_convolution
from fastllie.ops.packing import can_run_packed
from fastllie.ops.working_set import bytes_at_once

LEAST_ROWS = 8
# Neighbouring pixels that the last convolution computes at once, see _packed
PACKED = 4

# rows `first` to `last` of a layer's input, activated, into the given tensor
Rows = Callable[[int, int, Tensor], object]
_LAYOUT = torch.channels_last


class Norm:
    """Mean and variance of each channel, gathered strip by strip in float64, and their use."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros(())
        self.factors: tuple[Tensor, Tensor] | None = None

    def add(self, rows: Tensor) -> Tensor:
        """Count these rows in, and return them."""
        # twenty times faster than var_mean channels last
        mean, variance = torch.batch_norm_update_stats(rows, None, None, 0.0)
        mean, variance = mean.double(), variance.double()
        count = rows.shape[-2] * rows.shape[-1]
        if not self.count:
            self.mean, self.squares = mean, variance * count
        else:
            # of the union, from the distance of the two means
            off, total = mean - self.mean, self.count + count
            self.squares = self.squares + variance * count + off.square() * (self.count * count / total)
            self.mean = self.mean + off * (count / total)
        self.count += count
        return rows

    def into(self, rows: Tensor, out: Tensor, *, relu: bool = True) -> Tensor:
        """The normalised rows into `out`, which may be `rows`."""
        if rows.dtype in (torch.float16, torch.bfloat16):
            # mean and variance stay in float32
            mean, variance = self.mean.float(), (self.squares / self.count).float()
            out.copy_(F.batch_norm(rows, mean, variance, eps=EPS))
        else:
            scale, shift = self._factors(rows.dtype)
            torch.addcmul(shift, rows, scale, out=out)
        return out.relu_() if relu else out

    def add_to(self, x: Tensor, rows: Tensor) -> Tensor:
        """x + the normalised rows, in `x`."""
        return x.add_(self.into(rows, torch.empty_like(rows), relu=False))

    def _factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if self.factors is None:
            scale = (self.squares / self.count + EPS).rsqrt()
            shift = -self.mean * scale
            self.factors = (scale.to(dtype).view(1, -1, 1, 1), shift.to(dtype).view(1, -1, 1, 1))
        return self.factors


def spans(height: int, step: int) -> Iterator[tuple[int, int]]:
    """Strips of `step` rows."""
    for top in range(0, height, step):
        yield top, min(top + step, height)


def step_of(like: Tensor, width: int, channels: int) -> int:
    """Rows of a strip with so many pixels a row and channels, of input and output together."""
    bytes_a_row = width * channels * like.element_size()
    return max(LEAST_ROWS, bytes_at_once(like) // bytes_a_row)


def windows(
    rows: Rows,
    like: Tensor,
    size: tuple[int, int, int],
    *,
    kernel: int,
    step: int,
    stride: int = 1,
    mirror: bool = True,
    multiple: int = 1,
) -> Iterator[tuple[int, int, Tensor]]:
    """What a convolution reads for its output rows `top` to `bottom`: top, bottom, padded window.

    Each input row is asked for once, in order; what windows share is moved.

    Args:
        rows: Gives the input.
        like: A tensor of its dtype and device.
        size: Channels, height and width of the input.
        kernel: Rows that one output row reads; half of it is padded.
        step: Output rows of a window; LEAST_ROWS at least.
        stride: Of the convolution.
        mirror: Pad by reflection; otherwise with zeros.
        multiple: Rows are asked for up to such a number, or to the end.
    """
    channels, height, width = size
    pad = kernel // 2
    outputs = (height + 2 * pad - kernel) // stride + 1
    room = (min(step, outputs) - 1) * stride + kernel + multiple - 1
    window = _empty(like, channels, room, width + 2 * pad)
    if not mirror:
        window.zero_()
    # the image's rows that lie in the window, from its first row on
    start, end = -pad, 0
    for top, bottom in spans(outputs, step):
        first, last = top * stride - pad, (bottom - 1) * stride - pad + kernel
        if first > start:
            shared = window[..., first - start : end - start, :]
            window[..., : end - first, :] = shared.clone() if shared.shape[-2] > first - start else shared
            start = first
        wanted = min(-(-last // multiple) * multiple, height)
        if wanted > end:
            place = window[..., end - start : wanted - start, :]
            rows(end, wanted, place[..., pad : pad + width])
            if mirror:
                for k in range(pad):
                    place[..., k] = place[..., 2 * pad - k]
                    place[..., -1 - k] = place[..., -1 - 2 * pad + k]
            end = wanted
        for k in range(1, pad + 1):
            if first < 0 and mirror and first + pad >= 0:
                window[..., pad - k, :] = window[..., pad + k, :]
            if height - 1 + k < last:
                below = window[..., height - 1 + k - start, :]
                if mirror:
                    below.copy_(window[..., height - 1 - k - start, :])
                else:
                    below.zero_()
        yield top, bottom, window[..., : last - start, :]


def _empty(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    size = (1, channels, height, width)
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=_LAYOUT)


def _reader(x: Tensor, norm: Norm) -> Rows:
    """Rows of relu(norm(x))."""
    return lambda top, bottom, out: norm.into(x[..., top:bottom, :], out)


class _Stem:
    """The first convolution of a network, 7x7, without its bias, which the norm behind it takes away."""

    def __init__(self, conv: Any, x: Tensor):
        self.weight: Tensor = conv.weight
        self.padded = reflect(x, 3)
        self.height, self.width = x.shape[-2:]
        self.channels = len(self.weight)
        self.step = step_of(x, self.width, self.channels + x.shape[1])

    def rows(self, top: int, bottom: int) -> Tensor:
        return F.conv2d(self.padded[..., top : bottom + 6, :], self.weight)


def _conv(
    rows: Rows,
    weight: Tensor,
    size: tuple[int, int, int],
    norm: Norm,
    *,
    stride: int = 1,
    out: Tensor | None = None,
) -> Tensor:
    """A 3x3 convolution without bias, its result's statistics into `norm`.

    As in these networks, it pads by reflection, or with zeros where it has a stride.
    """
    channels, height, width = size
    outputs = len(weight)
    if out is None:
        out = _empty(weight, outputs, -(-height // stride), -(-width // stride))
    step = step_of(weight, width, channels * stride + outputs // stride)
    mirror = stride == 1
    packed = _packed_here(weight) if stride == 1 else None
    for top, bottom, window in windows(rows, weight, size, kernel=3, step=step, stride=stride, mirror=mirror):
        to = out[..., top:bottom, :]
        if packed is None:
            to.copy_(norm.add(F.conv2d(window, weight, None, stride)))
        else:
            norm.add(convolve(window, packed=packed, padding=0, out=to))
    return out


def _packed_here(weight: Tensor) -> PackedConvolution | None:
    """For our own convolutions, where they are faster than PyTorch's: in float32, by Winograd's algorithm."""
    if weight.dtype != torch.float32 or not can_run_packed((weight,), (weight,), (torch.float32,)):
        return None
    return pack_convolution(weight)


def _residual(x: Tensor, norm: Norm, blocks: list[ResidualBlock]) -> Tensor:
    """The blocks on relu(norm(x)), in `x`."""
    size = x.shape[1], x.shape[2], x.shape[3]
    t = torch.empty_like(x, memory_format=_LAYOUT)

    def first(top: int, bottom: int, out: Tensor) -> None:
        rows = x[..., top:bottom, :]
        out.copy_(norm.into(rows, rows))

    def following(top: int, bottom: int, out: Tensor) -> None:
        out.copy_(norm.add_to(x[..., top:bottom, :], t[..., top:bottom, :]))

    for place, block in enumerate(blocks):
        layers: Any = block.conv_block
        between, after = Norm(), Norm()
        # into t: of its old rows those are read by then that lie under the new ones
        _conv(following if place else first, layers["1"].weight, size, between, out=t)
        _conv(_reader(t, between), layers["5"].weight, size, after, out=t)
        norm = after
    for top, bottom in spans(x.shape[-2], step_of(x, x.shape[-1], 2 * x.shape[1])):
        norm.add_to(x[..., top:bottom, :], t[..., top:bottom, :])
    return x


def _upsampled(x: Tensor, weight: Tensor, top: int, bottom: int) -> Tensor:
    """Rows 2 * top to 2 * bottom of the transposed convolution of `x`."""
    inside = bottom < x.shape[-2]
    # with the row below: of its two output rows only the first is complete, and only half of it ours
    rows = x[..., top : bottom + 1, :]
    y = F.conv_transpose2d(rows, weight, None, 2, 1, (0 if inside else 1, 1))
    return y[..., : 2 * (bottom - top), :]


def _lowest(trunk: Trunk, x: Tensor) -> tuple[Tensor, Norm]:
    """Down to quarter resolution, before the last norm."""
    layers: Any = trunk.model
    stem, norm, below, last = _Stem(layers["1"], x), Norm(), Norm(), Norm()
    for top, bottom in spans(stem.height, stem.step):
        norm.add(stem.rows(top, bottom))
    half = _conv(
        lambda top, bottom, out: norm.into(stem.rows(top, bottom), out),
        layers["4"].weight,
        (stem.channels, stem.height, stem.width),
        below,
        stride=2,
    )
    size = half.shape[1], half.shape[2], half.shape[3]
    return _conv(_reader(half, below), layers["7"].weight, size, last, stride=2), last


def _half(trunk: Trunk, x: Tensor) -> Tensor:
    """Through the residual blocks and up to half resolution, activated."""
    layers: Any = trunk.model
    quarter, norm = _lowest(trunk, x)
    quarter = _residual(quarter, norm, [layers[str(10 + place)] for place in range(trunk.blocks)])
    height, width = quarter.shape[-2:]
    weight, norm = layers[str(trunk.first_up)].weight, Norm()
    half = _empty(x, weight.shape[1], 2 * height, 2 * width)
    for top, bottom in spans(height, step_of(x, width, 3 * len(weight))):
        half[..., 2 * top : 2 * bottom, :] = norm.add(_upsampled(quarter, weight, top, bottom))
    return norm.into(half, half)


class _Features:
    """The features of a trunk: made from a half-resolution map, strip by strip, each time they are read."""

    def __init__(self, trunk: Trunk, x: Tensor):
        self.half = _half(trunk, x)
        up: Any = trunk.model[str(trunk.first_up + 3)]
        self.weight: Tensor = up.weight
        self.size = (self.weight.shape[1], 2 * self.half.shape[2], 2 * self.half.shape[3])
        self.norm = Norm()
        for top, bottom in spans(self.half.shape[2], step_of(x, self.half.shape[3], 3 * len(self.weight))):
            self.norm.add(_upsampled(self.half, self.weight, top, bottom))

    def rows(self, top: int, bottom: int, out: Tensor) -> None:
        """Activated rows of the features; `top` even, `bottom` even or the last."""
        self.norm.into(_upsampled(self.half, self.weight, top // 2, bottom // 2), out)


def represent(network: Representation, x: Tensor) -> Tensor:
    """What `network(x)` gives."""
    features, mlp = _Features(network, x), network.mlp
    layers = mlp.folded()
    layers[0] = (layers[0][0].contiguous(memory_format=_LAYOUT), layers[0][1])
    _, height, width = features.size
    out = _empty(x, 3, height, width)
    added = mlp.located(height, width)
    step = step_of(x, width, 2 * layers[0][0].shape[0])
    for top, bottom, window in windows(
        features.rows, x, features.size, kernel=3, step=step, mirror=False, multiple=2
    ):
        here = None if added is None else (added[0][:, top:bottom], added[1])
        out[..., top:bottom, :] = mlp.rows(window[..., 1:-1], layers, here)
    return out


def _packed(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The convolution of PACKED neighbours in one, with their colours as channels.

    Three output channels would leave most of a vector register empty.
    """
    outputs, inputs, rows, columns = weight.shape
    packed = weight.new_zeros(PACKED * outputs, inputs, rows, columns + PACKED - 1)
    for place in range(PACKED):
        packed[place * outputs : (place + 1) * outputs, ..., place : place + columns] = weight
    return packed.contiguous(memory_format=_LAYOUT), bias.repeat(PACKED)


def generate(network: Generator, x: Tensor, logits: Tensor | None = None) -> Tensor:
    """What `network(x, logits)` gives."""
    features = _Features(network, x)
    last: Any = network.model[network.last]
    weight, bias = _packed(last.weight, last.bias)
    _, height, width = features.size
    out = _empty(x if logits is None else logits, 3, height, width)
    step = step_of(x, width, 2 * features.size[0])
    for top, bottom, window in windows(features.rows, x, features.size, kernel=7, step=step, multiple=2):
        y = F.conv2d(window, weight, bias, (1, PACKED)).permute(0, 2, 3, 1)
        y = y.reshape(1, bottom - top, width, 3).permute(0, 3, 1, 2)
        rows = out[..., top:bottom, :]
        if logits is None:
            torch.tanh(y, out=rows)
        else:
            rows.copy_(torch.tanh(y + logits[..., top:bottom, :]))
    return out


def extract_mask(network: MaskExtractor, x: Tensor) -> Tensor:
    """What `network.mask(x)` gives."""
    layers: Any = network.model
    stem, norm = _Stem(layers["1"], x), Norm()
    f = _empty(x, stem.channels, stem.height, stem.width)
    for top, bottom in spans(stem.height, stem.step):
        f[..., top:bottom, :] = norm.add(stem.rows(top, bottom))
    f = _residual(f, norm, [layers[str(4 + place)] for place in range(network.blocks)])
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    by_row, by_column = (mirrored(side, f).to(wide) for side in f.shape[-2:])
    mean = torch.zeros(f.shape[1], dtype=torch.float64, device=f.device)
    largest = []
    for top, bottom in spans(stem.height, stem.step):
        rows = f[..., top:bottom, :]
        # [C], by a product of matrices: the pixels of these rows times what each counts
        counts = (by_row[top:bottom, None] * by_column).reshape(1, -1)
        pixels = rows.permute(0, 2, 3, 1).reshape(-1, rows.shape[1])
        mean += (counts @ pixels.to(wide))[0].double()
        # one dimension after the other takes a tenth of the time of both at once
        largest.append(rows.permute(0, 2, 3, 1).amax(1).amax(1).view(1, -1, 1, 1))
    factor = network.excited(mean.to(x.dtype).view(1, -1, 1, 1), torch.stack(largest).amax(0))
    summary = x.new_empty(1, 2, stem.height, stem.width)
    for top, bottom in spans(stem.height, stem.step):
        weighted = f[..., top:bottom, :] * factor
        torch.mean(weighted, 1, keepdim=True, out=summary[:, :1, top:bottom])
        torch.amax(weighted, 1, keepdim=True, out=summary[:, 1:, top:bottom])
    return torch.sigmoid(network.conv1(reflect(summary, 3)))
