"""The networks of NeRCo (Yang et al., ICCV 2023), with the parameter names of the published checkpoints.

All take and give `[B, C, H, W]` in [-1, 1], any batch and layout, and behave the same in training and
evaluation mode. What is made between two convolutions is not kept for the backward pass, but made again.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastllie.models.nerco.layers import (
    activate,
    initialise,
    instance_norm,
    one_way,
    recomputed,
    reflect,
    whole,
)
from fastllie.models.network import Built, untouched

COORDINATES = ("published", "absolute")
FREQUENCIES = 8
# row and column, the sine and cosine of each, and two cell sizes
CODED = 2 * (1 + 2 * FREQUENCIES)
CELL = 2.0  # the cell size times the image size that the published code feeds, whatever the image
MASK_BLOCKS = 3
# Rows of features that the MLP widens to four times as many at once
ROWS = 32
LEAK = 0.2


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv x)))), 3x3, padded by reflection."""

    def __init__(self, width: int):
        super().__init__()
        self.conv_block = nn.ModuleDict({"1": nn.Conv2d(width, width, 3), "5": nn.Conv2d(width, width, 3)})

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.conv_block["1"], self.conv_block["5"]
        t = recomputed(lambda x: first(reflect(x, 1)), x)
        t = recomputed(lambda t: second(reflect(activate(t), 1)), t)
        return x + instance_norm(t)


class Trunk(nn.Module):
    """What the generators and the representation share: down by 4, residual blocks, up by 4.

    The output is as large as the input, each side rounded up to a multiple of 4; sides of 5 at least.

    Args:
        inputs: Channels of the image.
        width: Channels at full resolution; 2 and 4 times as many at half and quarter.
        blocks: Residual blocks at quarter resolution.

    Raises:
        ValueError: a number that is not an integer >= 1.
    """

    def __init__(self, inputs: int, width: int = 64, blocks: int = 9):
        super().__init__()
        self.inputs, self.width = whole("inputs", inputs), whole("width", width)
        self.blocks = whole("blocks", blocks)
        layers: dict[str, nn.Module] = {
            "1": nn.Conv2d(inputs, width, 7),
            "4": nn.Conv2d(width, 2 * width, 3, 2, 1),
            "7": nn.Conv2d(2 * width, 4 * width, 3, 2, 1),
        }
        layers |= {str(10 + place): ResidualBlock(4 * width) for place in range(blocks)}
        self.first_up = 10 + blocks
        for place, channels in ((self.first_up, 4 * width), (self.first_up + 3, 2 * width)):
            layers[str(place)] = nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, 1)
        # by their places in the published sequence, where layers without parameters stand between
        self.model = nn.ModuleDict(layers)

    def raw_features(self, x: Tensor) -> Tensor:
        """`[B, width, H', W']`, before the last norm and ReLU.

        Raises:
            ValueError: a side under 5, of which nothing can be mirrored at quarter resolution.
        """
        if min(x.shape[-2:]) < 5:
            raise ValueError(f"the image must have sides of 5 pixels at least, got {tuple(x.shape)}")
        layers = self.model
        half, quarter = layers["4"], layers["7"]
        x = layers["1"](reflect(x, 3))
        x = recomputed(lambda x: half(activate(x)), x)
        x = recomputed(lambda x: quarter(activate(x)), x)
        x = activate(x)
        for place in range(self.blocks):
            x = layers[str(10 + place)](x)
        up = layers[str(self.first_up + 3)]
        return recomputed(lambda x: up(activate(x)), layers[str(self.first_up)](x))


class Generator(Trunk):
    """G_A (6 channels: image and representation, both times the mask) or G_B (3): -> `[B, 3, H', W']`.

    Args:
        inputs, width, blocks: As for `Trunk`. The published option resnet_6blocks has 6.
    """

    def __init__(self, inputs: int = 3, *, width: int = 64, blocks: int = 9):
        super().__init__(inputs, width, blocks)
        self.model[self.last] = nn.Conv2d(width, 3, 7)
        initialise(self)

    @property
    def last(self) -> str:
        """Where the last convolution stands."""
        return str(self.first_up + 7)

    def raw(self, x: Tensor) -> Tensor:
        """What comes before the tanh."""
        last = self.model[self.last]
        return recomputed(lambda x: last(reflect(activate(x), 3)), self.raw_features(x))

    def forward(self, x: Tensor, logits: Tensor | None = None) -> Tensor:
        """The image in [-1, 1]; `logits` of the image that it shall start from are added before the tanh."""
        raw = self.raw(x)
        return torch.tanh(raw if logits is None else raw + logits)


class PixelMLP(nn.Module):
    """Four linear layers for each pixel, on the 3x3 features around it: `[B, width, H, W]` -> 3 channels.

    The published code also feeds each pixel's coordinates, but as differences of two equal grids: 34 columns
    of zeros, and two cell sizes that are always 2. Of the first layer there remain a 3x3 convolution and a
    bias, which is what runs here; the parameters keep the published shapes.

    Args:
        width: Channels of the features.
        hidden: Of the three hidden layers.
        coordinates: "published", or our "absolute", which feeds what the paper describes: row and column of
            the pixel in [-1, 1] and their sines and cosines with frequencies pi, 2 pi, ... 128 pi.

    Raises:
        ValueError: unknown coordinates, a number that is not an integer >= 1.
    """

    def __init__(self, width: int, hidden: int, coordinates: str = "published"):
        super().__init__()
        if coordinates not in COORDINATES:
            raise ValueError(f"coordinates must be one of {COORDINATES}, got {coordinates!r}")
        whole("hidden", hidden)
        self.width, self.coordinates = width, coordinates
        sizes = (9 * width + CODED + 2, hidden, hidden, hidden, 3)
        layers = {str(2 * i): nn.Linear(sizes[i], sizes[i + 1]) for i in range(4)}
        # the published names
        self.imnet = nn.Module()
        self.imnet.layers = nn.ModuleDict(layers)
        self._built = Built.of(self, PixelMLP)

    def folded(self) -> list[tuple[Tensor, Tensor]]:
        """Kernels `[out, in, 3, 3]` or `[out, in, 1, 1]` and biases of the four layers as convolutions."""
        layers = self._layers()
        first, count = layers[0].weight, 9 * self.width
        kernel = first[:, :count].reshape(-1, self.width, 3, 3)
        bias = layers[0].bias + CELL * first[:, count + CODED :].sum(1)
        return [(kernel, bias), *((layer.weight[:, :, None, None], layer.bias) for layer in layers[1:])]

    def _layers(self) -> list[Any]:
        layers: Any = self.imnet.layers
        return list(layers.values())

    def located(self, height: int, width: int) -> tuple[Tensor, Tensor] | None:
        """What coordinates add to the first layer: by row `[hidden, H, 1]`, by column `[hidden, 1, W]`."""
        if self.coordinates == "published":
            return None
        first = self._layers()[0].weight[:, 9 * self.width : 9 * self.width + CODED]
        rows, columns = _coded(height, first), _coded(width, first)
        # the published order: both coordinates, then all waves of the row, then all of the column
        split = 2 + 2 * FREQUENCIES
        by_row = torch.cat([first[:, :1], first[:, 2:split]], 1) @ rows
        by_column = torch.cat([first[:, 1:2], first[:, split:]], 1) @ columns
        return by_row[:, :, None], by_column[:, None]

    def rows(
        self, x: Tensor, layers: list[tuple[Tensor, Tensor]], added: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """The MLP on features with one more row on each side; `added` is of these rows."""
        y = F.conv2d(x, *layers[0], padding=(0, 1))
        if added is not None:
            y = y + added[0] + added[1]
        for weight, bias in layers[1:]:
            y = pointwise(F.relu(y, inplace=True), weight, bias)
        return y

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[-2]
        if not torch.compiler.is_compiling() and not untouched(self, self._built):
            return self._in_rows(x, lambda top, bottom: partial(self._by_layers, top=top, height=height))
        layers, added = self.folded(), self.located(*x.shape[-2:])
        if one_way():
            return self.rows(F.pad(x, (0, 0, 1, 1)), layers, added)

        def rows(top: int, bottom: int) -> Callable[[Tensor], Tensor]:
            here = None if added is None else (added[0][:, top:bottom], added[1])
            return partial(self.rows, layers=layers, added=here)

        return self._in_rows(x, rows)

    def _in_rows(self, x: Tensor, rows: Callable[[int, int], Callable[[Tensor], Tensor]]) -> Tensor:
        """ROWS of features at a time, each with one more on each side."""
        height = x.shape[-2]
        x = F.pad(x, (0, 0, 1, 1))
        pieces = []
        for top in range(0, height, ROWS):
            bottom = min(top + ROWS, height)
            pieces.append(recomputed(rows(top, bottom), x[..., top : bottom + 2, :]))
        return torch.cat(pieces, 2)

    def _by_layers(self, x: Tensor, top: int, height: int) -> Tensor:
        """`rows` through the linear layers themselves, as published: they are not as they were built."""
        batch, _, count, width = x.shape
        count -= 2
        y = F.unfold(x, 3, padding=(0, 1)).transpose(1, 2)
        coded = x.new_zeros(CODED, count, width)
        if self.coordinates != "published":
            row = _coded(height, x)[:, top : top + count, None].expand(-1, -1, width)
            column = _coded(width, x)[:, None].expand(-1, count, -1)
            coded = torch.cat([row[:1], column[:1], row[1:], column[1:]])
        cell = x.new_full((2, count, width), CELL)
        y = torch.cat([y, torch.cat([coded, cell]).flatten(1).T.expand(batch, -1, -1)], 2)
        for place, layer in enumerate(self._layers()):
            y = layer(F.relu(y) if place else y)
        return y.transpose(1, 2).reshape(batch, 3, count, width)


def _coded(length: int, like: Tensor) -> Tensor:
    """The centres of the pixels in [-1, 1], their sines and cosines, `[1 + 2 * FREQUENCIES, length]`."""
    # in float64 until the end: the last wave turns 128 times
    places, powers = (
        torch.arange(count, dtype=torch.float64, device=like.device) for count in (length, FREQUENCIES)
    )
    centres = (places * 2 + 1) / length - 1
    waves = centres * (math.pi * 2**powers)[:, None]
    return torch.cat([centres[None], waves.sin(), waves.cos()]).to(like.dtype)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 1x1 convolution."""
    batch, channels, height, width = x.shape
    if one_way() or width % 4 or height < 4 or not x.is_contiguous(memory_format=torch.channels_last):
        return F.conv2d(x, weight, bias)
    # as many small images: with one image and one thread PyTorch takes another library, slower on many CPUs
    x = x.permute(0, 2, 3, 1).reshape(batch * height * 4, 1, width // 4, channels).permute(0, 3, 1, 2)
    y = F.conv2d(x, weight, bias).permute(0, 2, 3, 1)
    return y.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


class Representation(Trunk):
    """Pre, the neural representation: an image -> its normalised form `[B, 3, H', W']`, unbounded.

    Args:
        width, blocks: As for `Trunk`; the published one has 9 blocks whatever the generators have.
        hidden: Width of the MLP; None is four times `width`.
        coordinates: As for `PixelMLP`.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        blocks: int = 9,
        hidden: int | None = None,
        coordinates: str = "published",
    ):
        super().__init__(3, width, blocks)
        self.mlp = PixelMLP(width, 4 * width if hidden is None else hidden, coordinates)
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """What the MLP reads, `[B, width, H', W']`."""
        return activate(self.raw_features(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.features(x))


class MaskExtractor(nn.Module):
    """H: an image of any size from 4 -> residual `[B, 3, H, W]` in (-1, 1) and mask `[B, 1, H, W]` in (0, 1).

    Args:
        width: Channels, all at full resolution.
        blocks: Residual blocks; always 3 in the published network.
    """

    def __init__(self, *, width: int = 64, blocks: int = MASK_BLOCKS):
        super().__init__()
        self.width, self.blocks = whole("width", width), whole("blocks", blocks)
        layers: dict[str, nn.Module] = {"1": nn.Conv2d(3, width, 7)}
        layers |= {str(4 + place): ResidualBlock(width) for place in range(blocks)}
        self.model = nn.ModuleDict(layers)
        squeezed = max(1, width // 16)
        self.fc1 = nn.Conv2d(2 * width, squeezed, 1, bias=False)
        self.fc2 = nn.Conv2d(squeezed, 2 * width, 1, bias=False)
        self.conv_ca = nn.Conv2d(2 * width, width, 1, bias=False)
        self.conv1 = nn.Conv2d(2, 1, 7, bias=False)
        self.output = nn.Conv2d(width, 3, 7)
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """`[B, width, H, W]`, which mask and residual are both made of.

        Raises:
            ValueError: a side under 4, which cannot be mirrored by 3.
        """
        if min(x.shape[-2:]) < 4:
            raise ValueError(f"the image must have sides of 4 pixels at least, got {tuple(x.shape)}")
        x = activate(self.model["1"](reflect(x, 3)))
        for place in range(self.blocks):
            x = self.model[str(4 + place)](x)
        return x

    def attention(self, f: Tensor) -> Tensor:
        """The factor of each channel, `[B, width, 1, 1]`, of any sign.

        From mean and largest value of the features padded by reflection, as published: pixels near the border
        count two or four times in the mean.
        """
        rows, columns = (mirrored(side, f) for side in f.shape[-2:])
        mean = torch.einsum("bchw,h,w->bc", f, rows, columns)[:, :, None, None]
        return self.excited(mean, f.amax((2, 3), keepdim=True))

    def excited(self, mean: Tensor, largest: Tensor) -> Tensor:
        """The attention of given statistics, `[B, width, 1, 1]` each."""
        return self.conv_ca(self.fc2(F.relu(self.fc1(torch.cat([mean, largest], 1)))))

    def mask_of(self, f: Tensor) -> Tensor:
        """The mask of features, `[B, 1, H, W]`."""
        factor = self.attention(f)

        def summarised(f: Tensor) -> Tensor:
            weighted = f * factor
            return torch.cat([weighted.mean(1, keepdim=True), weighted.amax(1, keepdim=True)], 1)

        return torch.sigmoid(self.conv1(reflect(recomputed(summarised, f), 3)))

    def residual_of(self, f: Tensor) -> Tensor:
        """The residual of features, `[B, 3, H, W]`; for training only."""
        return torch.tanh(recomputed(lambda f: self.output(reflect(f, 3)), f))

    def mask(self, x: Tensor) -> Tensor:
        """The mask alone, `[B, 1, H, W]`: what inference needs."""
        return self.mask_of(self.features(x))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f = self.features(x)
        return self.residual_of(f), self.mask_of(f)


def mirrored(side: int, like: Tensor, margin: int = 3) -> Tensor:
    """The share of each row in the mean over the rows padded by reflection, `[side]`; sums to 1."""
    index = torch.arange(side, device=like.device)
    times = 1.0 + ((index > 0) & (index <= margin)).double()
    times += ((index < side - 1) & (index >= side - 1 - margin)).double()
    return (times / (side + 2 * margin)).to(like.dtype)


class Discriminator(nn.Module):
    """D_A, D_B and those of the edges: PatchGAN, an image -> one linear value for each patch, `[B, 1, h, w]`.

    With 3 layers a patch has 70x70 pixels, and h is H / 8 - 2, rounded down at each layer.

    Args:
        width: Channels after the first convolution; doubled by each layer, up to 8 times.
        layers: Convolutions with stride 2.
    """

    def __init__(self, *, width: int = 64, layers: int = 3):
        super().__init__()
        self.width, self.layers = whole("width", width), whole("layers", layers)
        found: dict[str, nn.Module] = {"0": nn.Conv2d(3, width, 4, 2, 1)}
        channels = width
        for place in range(1, layers + 1):
            wider = width * min(2**place, 8)
            found[str(3 * place - 1)] = nn.Conv2d(channels, wider, 4, 2 if place < layers else 1, 1)
            channels = wider
        found[str(3 * layers + 2)] = nn.Conv2d(channels, 1, 4, 1, 1)
        self.model = nn.ModuleDict(found)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        first, *between, last = self.model.values()
        x = F.leaky_relu(first(x), LEAK, inplace=True)
        for layer in between:
            x = F.leaky_relu(instance_norm(layer(x)), LEAK, inplace=True)
        return last(x)
