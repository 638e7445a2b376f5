"""EnlightenGAN (Jiang et al., TIP 2021): a U-Net guided by the image's darkness, and its discriminators."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastllie.defaults import LUMA
from fastllie.models.contract import Contract, Grid, Observed
from fastllie.models.logits import LARGEST, half_logits
from fastllie.models.network import Built, Network, standard_only
from fastllie.ops.checks import check_count
from fastllie.ops.enlightengan import (
    DTYPES,
    LEVELS,
    MULTIPLE,
    SLOPE,
    pack_enlightengan,
    run_enlightengan,
)
from fastllie.ops.launch import has_tiles
from fastllie.ops.packing import can_run_packed

WIDTH = 32
# of the five levels' 18 convolutions and 4 upsamplings: 137 pixels, rounded up to a multiple of 16
HALO = 144
# of the published code, which compares the width alone
WIDE = 2200
# for each channel of the first level: 620 bytes a pixel at a width of 32, 332 at 16 (torch 2.13 on a CPU,
# float32, channels last, 1280x1280, the convolutions' own memory included)
PIXEL_BYTES = 21


# images and their attention map, completed, to what is added
Residual = Callable[[Tensor, Tensor], Tensor]


class Generated(NamedTuple):
    """What the generator gives: the image in [-1, 1] with values beyond, and the residual that made it."""

    image: Tensor  # [B, 3, H, W]
    residual: Tensor  # [B, 3, H, W]


def attention(v: Tensor) -> Tensor:
    """How dark each pixel is: 1 - luma, `[B, 1, H, W]` in [0, 1], of images in [-1, 1]; not normalised."""
    red, green, blue = v.unbind(1)
    luma = (LUMA[0] * (red + 1) + LUMA[1] * (green + 1) + LUMA[2] * (blue + 1)) / 2
    return (1 - luma).unsqueeze(1)


def _sizes_are_unknown() -> bool:
    """Whether what runs is written down for images of any size."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or standard_only()


class EnlightenGAN(Network):
    """EnlightenGAN's generator: y = x + residual(x, g) * g, with the attention map g = 1 - luma(x).

    `forward` takes images `[B, 3, H, W]` in [0, 1], any size, and returns the enhanced images, as large. A
    U-Net of five levels; g is an input, scales the features of the bottom and of every skip, and the
    residual. Batch norm comes after the activation. Sides that are not multiples of 16 are completed by
    reflection, half on each side, and cut again; a side too short to be reflected that far repeats its border
    pixel instead (the published code raises there).

    Args:
        width: Channels of the first level, doubled at each further one; the published network has 32.
        align_corners: Of the bilinear upsampling. PyTorch 0.3, which the published weights were made with,
            read the published code as True, every later one as False. True makes a pixel depend on the size
            of the image, so that tiles no longer give the untiled result.
        halve_wide: Reduce images wider than 2200 pixels to half before the network and enlarge the result,
            as the published code does: blurred, and an odd side loses a pixel, which is repeated here.
        in_logits: Ours, not the paper's: the residual changes the logits of the image,
            y = sigmoid(2 residual * g + logit(x)). A constant residual is a gain in the shadows then, where a
            sum would be haze, and nothing clips.
        sees_logits: Ours too: the network sees the logits of the image, in [-1, 1], where pictures of
            different darkness lie as far apart as they are to the eye. g stays as it is.

    Raises:
        ValueError: a width that is not a positive integer, a switch that is neither True nor False.
    """

    def __init__(
        self,
        *,
        width: int = WIDTH,
        align_corners: bool = False,
        halve_wide: bool = False,
        in_logits: bool = False,
        sees_logits: bool = False,
    ):
        super().__init__()
        check_count("width", width)
        for name, value in (
            ("align_corners", align_corners),
            ("halve_wide", halve_wide),
            ("in_logits", in_logits),
            ("sees_logits", sees_logits),
        ):
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be True or False, got {value!r}")
        self.width = width
        self.align_corners = align_corners
        self.in_logits = in_logits
        self.sees_logits = sees_logits
        self.halve_wide = halve_wide
        channels = [width * 2**level for level in range(LEVELS)]
        inputs = 4
        for level, outputs in enumerate(channels, 1):
            self._add_block(level, inputs, outputs)
            inputs = outputs
        for level, outputs in enumerate(reversed(channels[:-1]), LEVELS + 1):
            # the published name of a plain convolution after the upsampling
            self.add_module(f"deconv{level - 1}", nn.Conv2d(2 * outputs, outputs, 3, padding=1))
            self._add_block(level, 2 * outputs, outputs)
        del self.bn9_2
        self.conv10 = nn.Conv2d(width, 3, 1)
        self._built = Built.of(
            self, EnlightenGAN, ("align_corners", "halve_wide", "in_logits", "sees_logits")
        )

    def _add_block(self, block: int, inputs: int, outputs: int) -> None:
        self.add_module(f"conv{block}_1", nn.Conv2d(inputs, outputs, 3, padding=1))
        self.add_module(f"bn{block}_1", nn.BatchNorm2d(outputs))
        self.add_module(f"conv{block}_2", nn.Conv2d(outputs, outputs, 3, padding=1))
        self.add_module(f"bn{block}_2", nn.BatchNorm2d(outputs))

    @property
    def contract(self) -> Contract:
        halving = "halve_wide cannot be exported: halve wide images before the network"
        return Contract(
            None if self.align_corners or self.halve_wide else HALO,
            grid=Grid(MULTIPLE, self.completed, PIXEL_BYTES * self.width),
            observes=self.halve_wide,
            unexportable=halving if self.halve_wide else "",
            # exporters take a side that the network has reduced to one pixel for a constant
            least_side=MULTIPLE + 1,
        )

    @staticmethod
    def completed(side: int) -> Tensor:
        """Which pixel of a side stands at each place of the side completed to a multiple of 16, int64.

        Reflection without repeating the border, half before and half after, one more after where it is odd.
        Where it cannot reach, the border pixel is repeated on both sides.
        """
        # not -(-side // ...): ONNX divides integers towards zero
        length = (side + MULTIPLE - 1) // MULTIPLE * MULTIPLE
        place = torch.arange(length) - (length - side) // 2
        last = side - 1
        reflected = last - (last - place.abs()).abs()
        # no branch on the side: exporters and compilers see every size as one
        reached = ((place + last >= 0) & (place <= 2 * last)).all()
        return torch.where(reached, reflected, place.clamp(0, last))

    def observe(self, x: Tensor) -> Observed:
        # a tile of a wide image is halved as the whole is
        wide = self._is_wide(x)
        return Observed({"wide": wide}, PIXEL_BYTES * self.width / 4 if wide else None)

    def _is_wide(self, x: Tensor) -> bool:
        return self.halve_wide and x.shape[-1] > WIDE

    def forward(self, x: Tensor, wide: bool | None = None) -> Tensor:
        """`x` enhanced; `wide` tells a tile whether the whole image is wider than 2200, None asks `x`."""
        if standard_only():
            return self.standard(x)
        return self._enhanced(x, self._residual, self._is_wide(x) if wide is None else wide)

    def standard(self, x: Tensor) -> Tensor:
        return self._enhanced(x, self._by_layers, self._is_wide(x))

    def _enhanced(self, x: Tensor, network: Residual, wide: bool) -> Tensor:
        v = 2 * x - 1
        # a single row has no half
        if wide and x.shape[-2] > 1:
            v = self._halved(v, network)
        else:
            # of x itself: in 16 bits the shadows are coarse around -1
            logits = half_logits(x) if self.in_logits or self.sees_logits else None
            v = self._generate(v, attention(v), logits, network).image
        return ((v + 1) / 2).clamp(0, 1).to(x.dtype)

    def _halved(self, v: Tensor, network: Residual) -> Tensor:
        height, width = v.shape[-2:]
        small = F.avg_pool2d(v, 2)
        image = self._generate(small, F.avg_pool2d(attention(v), 2), None, network).image
        image = self._enlarged(image)
        return F.pad(image, (0, width % 2, 0, height % 2), mode="replicate")

    def generate(self, v: Tensor, g: Tensor, logits: Tensor | None = None) -> Generated:
        """The image and the residual for images `v` in [-1, 1] and their attention map `g`.

        Both of `[B, ., H, W]`; in training mode batch norm takes its statistics from the batch.

        Args:
            logits: For `in_logits` and `sees_logits`, `half_logits` of the images in [0, 1] where they are
                at hand.
        """
        return self._generate(v, g, logits, self._residual)

    def _generate(self, v: Tensor, g: Tensor, logits: Tensor | None, network: Residual) -> Generated:
        height, width = v.shape[-2:]
        given = v
        if logits is None and (self.in_logits or self.sees_logits):
            logits = half_logits((given + 1) / 2)
        if logits is not None and self.sees_logits:
            v = (logits / LARGEST).to(v.dtype)
        residual = network(*(self._complete(self._complete(image, 2), 3) for image in (v, g)))
        for dim, side in ((2, height), (3, width)):
            start = (residual.shape[dim] - side) // 2
            if _sizes_are_unknown():
                # gathered, because exporters want to know how a slice ends
                inner = torch.arange(side, device=v.device) + start
                residual = residual.index_select(dim, inner)
            else:
                residual = residual.narrow(dim, start, side)
        if logits is None or not self.in_logits:
            return Generated(given + residual, residual)
        return Generated(torch.tanh(residual + logits), residual)

    def _complete(self, image: Tensor, dim: int) -> Tensor:
        side = image.shape[dim]
        places = self.completed(side).to(image.device)
        if _sizes_are_unknown():
            return image.index_select(dim, places)
        if len(places) == side:
            return image
        start = (len(places) - side) // 2
        ends = places[:start], places[start + side :]
        # to copy the image as it is takes a tenth of the time that gathering its pixels does
        before, after = (image.index_select(dim, end) for end in ends)
        return torch.cat([before, image, after], dim)

    def _residual(self, v: Tensor, g: Tensor) -> Tensor:
        weights = [*self.parameters(), *self.buffers()]
        if not self.training and can_run_packed((v, g), weights, DTYPES) and self.as_built():
            packed = self._packing.get(
                weights, (v.dtype, has_tiles()), lambda: pack_enlightengan(self.state_dict(), dtype=v.dtype)
            )
            return run_enlightengan(v, g, packed, align_corners=self.align_corners)
        return self._by_layers(v, g)

    def _by_layers(self, v: Tensor, g: Tensor) -> Tensor:
        maps = [g]
        for _ in range(LEVELS - 1):
            maps.append(F.max_pool2d(maps[-1], 2))
        skips = []
        features = torch.cat([v, g], 1)
        for level in range(1, LEVELS):
            features = self._norm(f"{level}_2", self._norm(f"{level}_1", features))
            skips.append(features)
            features = F.max_pool2d(features, 2)
        features = self._norm("5_2", self._norm("5_1", features) * maps[-1])
        for block, darkness in enumerate(maps[-2::-1], LEVELS + 1):
            features = self.get_submodule(f"deconv{block - 1}")(self._enlarged(features))
            # nothing keeps what is used up: the last levels decide how large a tile may be
            features = torch.cat([features, skips.pop() * darkness], 1)
            features = self._norm(f"{block}_1", features)
            features = self._norm(f"{block}_2", features)
        return self.conv10(features) * g

    def _norm(self, name: str, x: Tensor) -> Tensor:
        """Convolution, LeakyReLU, and only then batch norm, which the very last one lacks."""
        x = F.leaky_relu(self.get_submodule(f"conv{name}")(x), SLOPE, inplace=True)
        return x if name == "9_2" else self.get_submodule(f"bn{name}")(x)

    def _enlarged(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=self.align_corners)


class Discriminator(nn.Module):
    """A chain of 4x4 convolutions to a map that says how real each part of an image is; for training.

    From images `[B, 3, H, W]` in [-1, 1] to a map `[B, 1, h, w]`, unbounded: no norm, no sigmoid, LeakyReLU
    but after the last. A stride of 2 makes a side n floor(n / 2) + 1, one of 1 makes it n + 1.

    Args:
        layers: Convolutions of stride 2; one of stride 1 and the last one follow. The published global
            discriminator has 5; the local one, for patches, has 4.
        width: Channels of the first, doubled up to eightfold.
    """

    def __init__(self, layers: int, *, width: int = 64):
        super().__init__()
        chain: list[nn.Module] = []
        inputs = 3
        for place in range(layers + 1):
            outputs = width * min(2**place, 8)
            stride = 2 if place < layers else 1
            chain += [nn.Conv2d(inputs, outputs, 4, stride, padding=2), nn.LeakyReLU(SLOPE)]
            inputs = outputs
        chain.append(nn.Conv2d(inputs, 1, 4, padding=2))
        self.model = nn.Sequential(*chain)

    def forward(self, v: Tensor) -> Tensor:
        return self.model(v)
