"""NeRCo's inference in strips of rows: the result of the whole, in bounded memory and near the cache.

An instance norm needs the mean and variance of the whole image before any pixel can go on. So each layer runs
over all strips, gathers exact statistics on the way, and the next layer applies them while it reads. Of a
generator the two maps at full resolution are never there as a whole: they are computed twice, once for the
statistics. Residual blocks hold two maps, and write in place what will not be read again.

One image at a time, channels last, no gradients.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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

# What a strip and its result may take: a CPU's cache, or enough work to fill an accelerator
CPU_STRIP, ACCELERATOR_STRIP = 6 << 20, 512 << 20
LEAST_ROWS = 8
# Neighbouring pixels that the last convolution computes at once, see _packed
PACKED = 4

# rows `first` to `last` of a layer's input, activated, into the given tensor
Rows = Callable[[int, int, Tensor], None]
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
    strip = CPU_STRIP if like.is_cpu else ACCELERATOR_STRIP
    return max(LEAST_ROWS, strip // bytes_a_row)


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
    """What a convolution reads for its output rows `top` to `bottom`, padded on all sides: top, bottom, window.

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
    window = like.new_empty(1, channels, room, width + 2 * pad).to(memory_format=_LAYOUT)
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
    return like.new_empty(1, channels, height, width).to(memory_format=_LAYOUT)


class _Stem:
    """The first convolution of a network, 7x7, without its bias, which the norm behind it takes away."""

    def __init__(self, conv: nn.Module, x: Tensor):
        self.weight = conv.weight
        self.padded = reflect(x, 3)
        self.height, self.width = x.shape[-2:]
        self.channels: int = conv.weight.shape[0]  # type: ignore[union-attr, assignment, index]
        self.step = step_of(x, self.width, self.channels + x.shape[1])

    def rows(self, top: int, bottom: int) -> Tensor:
        return F.conv2d(self.padded[..., top : bottom + 6, :], self.weight)  # type: ignore[arg-type]


def _conv(
    rows: Rows,
    weight: Tensor,
    size: tuple[int, int, int],
    norm: Norm,
    *,
    stride: int = 1,
    mirror: bool = True,
    out: Tensor | None = None,
) -> Tensor:
    """A 3x3 convolution without bias, its result's statistics into `norm`."""
    channels, height, width = size
    outputs = weight.shape[0]
    if out is None:
        out = _empty(weight, outputs, -(-height // stride), -(-width // stride))
    step = step_of(weight, width, channels * stride + outputs // stride)
    for top, bottom, window in windows(
        rows, weight, size, kernel=3, step=step, stride=stride, mirror=mirror
    ):
        out[..., top:bottom, :] = norm.add(F.conv2d(window, weight, None, stride))
    return out


def _residual(x: Tensor, norm: Norm, blocks: list[ResidualBlock]) -> Tensor:
    """The blocks on relu(norm(x)), in `x`."""
    size = x.shape[1:]
    t = torch.empty_like(x, memory_format=_LAYOUT)
    entered = False

    def given(top: int, bottom: int, out: Tensor) -> None:
        rows = x[..., top:bottom, :]
        if entered:
            norm.add_to(rows, t[..., top:bottom, :])
        else:
            norm.into(rows, rows)
        out.copy_(rows)

    for block in blocks:
        first, second = Norm(), Norm()
        # into t: of its old rows those are read by then that lie under the new ones
        _conv(given, block.conv_block["1"].weight, size, first, out=t)  # type: ignore[arg-type]
        _conv(
            lambda top, bottom, out, norm=first: norm.into(t[..., top:bottom, :], out),  # type: ignore[misc]
            block.conv_block["5"].weight,  # type: ignore[arg-type]
            size,  # type: ignore[arg-type]
            second,
            out=t,
        )
        norm, entered = second, True
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


class _Features:
    """The features of a trunk, from a half-resolution map that is held to strips at full resolution."""

    def __init__(self, trunk: Trunk, x: Tensor):
        layers = trunk.model
        stem, norm = _Stem(layers["1"], x), Norm()
        for top, bottom in spans(stem.height, stem.step):
            norm.add(stem.rows(top, bottom))
        size = (stem.channels, stem.height, stem.width)
        below = Norm()
        half = _conv(
            lambda top, bottom, out: norm.into(stem.rows(top, bottom), out),
            layers["4"].weight,
            size,
            below,
            stride=2,
            mirror=False,
        )
        lowest = Norm()
        quarter = _conv(
            lambda top, bottom, out: below.into(half[..., top:bottom, :], out),
            layers["7"].weight,
            half.shape[1:],
            lowest,
            stride=2,
            mirror=False,
        )
        del half
        quarter = _residual(quarter, lowest, [layers[str(10 + place)] for place in range(trunk.blocks)])
        height, width = quarter.shape[-2:]
        weight, norm = layers[str(trunk.first_up)].weight, Norm()
        self.half = _empty(x, weight.shape[1], 2 * height, 2 * width)
        for top, bottom in spans(height, step_of(x, width, 3 * weight.shape[0])):
            self.half[..., 2 * top : 2 * bottom, :] = norm.add(_upsampled(quarter, weight, top, bottom))
        del quarter
        self.weight, self.norm = layers[str(trunk.first_up + 3)].weight, Norm()
        self.size = (self.weight.shape[1], 4 * height, 4 * width)
        step = step_of(x, 2 * width, 3 * self.weight.shape[0])
        norm.into(self.half, self.half)
        for top, bottom in spans(2 * height, step):
            self.norm.add(_upsampled(self.half, self.weight, top, bottom))

    def rows(self, top: int, bottom: int, out: Tensor) -> None:
        """Activated rows of the features; `top` even, `bottom` even or the last."""
        self.norm.into(_upsampled(self.half, self.weight, top // 2, bottom // 2), out)


def represent(network: Representation, x: Tensor) -> Tensor:
    """What `network(x)` gives."""
    features, mlp = _Features(network, x), network.mlp
    layers = mlp.folded()
    layers[0] = (layers[0][0].contiguous(memory_format=_LAYOUT), layers[0][1])
    channels, height, width = features.size
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


def generate(network: Generator, x: Tensor) -> Tensor:
    """What `network(x)` gives."""
    features = _Features(network, x)
    last = network.model[network.last]
    weight, bias = _packed(last.weight, last.bias)  # type: ignore[arg-type]
    _, height, width = features.size
    out = _empty(x, 3, height, width)
    step = step_of(x, width, 2 * features.size[0])
    for top, bottom, window in windows(features.rows, x, features.size, kernel=7, step=step, multiple=2):
        y = F.conv2d(window, weight, bias, (1, PACKED)).permute(0, 2, 3, 1)
        y = y.reshape(1, bottom - top, width, 3).permute(0, 3, 1, 2)
        torch.tanh(y, out=out[..., top:bottom, :])
    return out


def extract_mask(network: MaskExtractor, x: Tensor) -> Tensor:
    """What `network.mask(x)` gives."""
    stem, norm = _Stem(network.model["1"], x), Norm()
    f = _empty(x, stem.channels, stem.height, stem.width)
    for top, bottom in spans(stem.height, stem.step):
        f[..., top:bottom, :] = norm.add(stem.rows(top, bottom))
    f = _residual(f, norm, [network.model[str(4 + place)] for place in range(network.blocks)])  # type: ignore[misc]
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
        largest.append(rows.amax((2, 3), keepdim=True))
    factor = network.excited(mean.to(x.dtype).view(1, -1, 1, 1), torch.stack(largest).amax(0))
    summary = x.new_empty(1, 2, stem.height, stem.width)
    for top, bottom in spans(stem.height, stem.step):
        weighted = f[..., top:bottom, :] * factor
        torch.mean(weighted, 1, keepdim=True, out=summary[:, :1, top:bottom])
        torch.amax(weighted, 1, keepdim=True, out=summary[:, 1:, top:bottom])
    return torch.sigmoid(network.conv1(reflect(summary, 3)))
