"""Zero-DCE (Guo et al., CVPR 2020) and Zero-DCE++ (Li et al., TPAMI 2021): networks of curve maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastllie.models.contract import Contract
from fastllie.models.network import Built, Network, standard_only
from fastllie.ops import backend as backends
from fastllie.ops import reference
from fastllie.ops.checks import check_choice, check_count
from fastllie.ops.curve import apply_curve
from fastllie.ops.launch import has_tiles
from fastllie.ops.packing import can_run_packed
from fastllie.ops.tensors import wide
from fastllie.ops.zerodce import (
    DTYPES,
    FEATURES,
    HALO,
    PADDINGS,
    STEPS,
    can_run_zerodce,
    enhance_zerodce,
    pack_zerodce,
)
from fastllie.ops.zerodcepp import enhance_zerodcepp, pack_zerodcepp

# 1920x1080 on one core: 776 ms in these tiles, 734 whole, 800 in those of 192 that plain layers want. Not
# whole: bytes become floats a tile at a time
PACKED_TILE = 1024
# A batch's pixels that go through the modules of Zero-DCE++ together where its image takes no tiles: those of
# an accelerator's tile
PIXELS_TOGETHER = 2048**2
# PyTorch before 2.7 does not tell an exporter from a compiler, which takes the same
_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


class SeparableConv(nn.Module):
    """A depthwise 3x3 convolution followed by a pointwise one, with no activation between them."""

    def __init__(self, inputs: int, outputs: int, padding: int):
        super().__init__()
        self.depth = nn.Conv2d(inputs, inputs, 3, padding=padding, groups=inputs)
        self.point = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.point(self.depth(x))


class _CurveNetwork(Network):
    """Seven convolutions with symmetric skips that end in the raw (before tanh) curve maps."""

    def __init__(self, maps: int, separable: bool, padding: str):
        super().__init__()
        check_choice("padding", padding, PADDINGS)
        self.padding = padding
        layer_padding = 1 if padding == "zeros" else 0

        def conv(inputs: int, outputs: int) -> nn.Module:
            if separable:
                return SeparableConv(inputs, outputs, layer_padding)
            return nn.Conv2d(inputs, outputs, 3, padding=layer_padding)

        self.conv1 = conv(3, FEATURES)
        self.conv2 = conv(FEATURES, FEATURES)
        self.conv3 = conv(FEATURES, FEATURES)
        self.conv4 = conv(FEATURES, FEATURES)
        self.conv5 = conv(2 * FEATURES, FEATURES)
        self.conv6 = conv(2 * FEATURES, FEATURES)
        self.conv7 = conv(2 * FEATURES, maps)

    @property
    def contract(self) -> Contract:
        packed = next(self.parameters()).dtype in DTYPES
        # no layer pads once the image is padded
        crops = self.padding == "replicate"
        return Contract(HALO, crops=crops, cpu_tile=PACKED_TILE if packed else None)

    def raw_maps(self, x: Tensor, cropped: bool = False) -> Tensor:
        """The maps at the size of `x`, before the tanh; `cropped` as for `forward`."""
        if self.padding == "replicate" and not cropped:
            # One padded image, then convolutions without padding: no layer sees an invented zero, so no frame
            x = F.pad(x, (HALO,) * 4, mode="replicate")
        # in place: half the memory traffic, and the convolutions' backward does not need what was there
        f1 = F.relu(self.conv1(x), inplace=True)
        f2 = F.relu(self.conv2(f1), inplace=True)
        f3 = F.relu(self.conv3(f2), inplace=True)
        f4 = F.relu(self.conv4(f3), inplace=True)
        f5 = F.relu(self.conv5(_join(f3, f4)), inplace=True)
        f6 = F.relu(self.conv6(_join(f2, f5)), inplace=True)
        return self.conv7(_join(f1, f6))

    def maps(self, x: Tensor) -> tuple[Tensor, bool]:
        """The curve maps for the operators, and whether these shall take the tanh."""
        return self.raw_maps(x), True

    def standard(self, x: Tensor, cropped: bool = False) -> Tensor:
        if cropped:
            maps, tanh = self.raw_maps(x, True), True
            x = _centre(x, HALO)
        else:
            maps, tanh = self.maps(x)
        # eight steps in half precision would lose what the convolutions keep
        return reference.curve(wide(x), wide(maps), STEPS, tanh).to(x.dtype)

    def by_layers(self, x: Tensor, cropped: bool) -> Tensor:
        """`forward` layer by layer, and the curve in one pass."""
        if cropped:
            return apply_curve(_centre(x, HALO), self.raw_maps(x, True), steps=STEPS, tanh=True)
        maps, tanh = self.maps(x)
        return apply_curve(x, maps, steps=STEPS, tanh=tanh).to(x.dtype)


def _centre(x: Tensor, margin: int) -> Tensor:
    height, width = x.shape[-2:]
    return x[..., margin : height - margin, margin : width - margin]


def _join(earlier: Tensor, later: Tensor) -> Tensor:
    """Concatenate along channels; the earlier feature is cut to the centre that the later one covers."""
    margin = (earlier.shape[-1] - later.shape[-1]) // 2
    if margin:
        earlier = earlier[..., margin:-margin, margin:-margin]
    return torch.cat([earlier, later], 1)


class ZeroDCE(_CurveNetwork):
    """Zero-DCE: eight curve maps per channel, estimated at full resolution by seven 3x3 convolutions.

    `forward` takes images `[B, 3, H, W]` in [0, 1], any size, and returns the enhanced images, as large.

    Args:
        padding: "zeros" pads every layer as the published network does; "replicate" pads the image once,
            which leaves no frame at the border.

    With `cropped`, which only padding "replicate" has, nothing is padded: the image brings `halo` pixels on
    each side that the result lacks, so that tiles see real pixels and none are computed in vain.
    """

    def __init__(self, *, padding: str = "replicate"):
        super().__init__(3 * STEPS, separable=False, padding=padding)
        self._built = Built.of(self, ZeroDCE)

    def forward(self, x: Tensor, cropped: bool = False) -> Tensor:
        if standard_only():
            return self.standard(x, cropped)
        weights = list(self.parameters())
        if can_run_zerodce(x, weights) and self.as_built():
            # parameters come in the order of the layers, each weight before its bias
            packed = self._packing.get(
                weights,
                (x.dtype, backends.choose("auto", x, "zerodce_forward"), has_tiles()),
                lambda: pack_zerodce(weights[::2], weights[1::2], dtype=x.dtype),
            )
            return enhance_zerodce(x, packed, padding=self.padding, cropped=cropped)
        return self.by_layers(x, cropped)

    def curve_maps(self, x: Tensor) -> Tensor:
        """The curve maps alpha in [-1, 1], `[B, 24, H, W]`: step k takes channels 3k to 3k+2; + brightens."""
        return torch.tanh(self.raw_maps(x))


class ZeroDCEPlusPlus(_CurveNetwork):
    """Zero-DCE++: one curve map per channel for all eight steps, depthwise-separable, also at low resolution.

    `forward` takes images `[B, 3, H, W]`, any size, floats in [0, 1] or uint8 in 0..255, and returns the
    enhanced images, as large and of the same dtype.

    Args:
        scale: The network sees the image reduced by this factor, and its map is enlarged again; the published
            test uses 12, the published training 1.
        padding: As for `ZeroDCE`, with the same `cropped`, if `scale` is 1.
    """

    def __init__(self, *, scale: int = 1, padding: str = "replicate"):
        super().__init__(3, separable=True, padding=padding)
        check_count("scale", scale)
        self.scale = scale
        self._built = Built.of(self, ZeroDCEPlusPlus, ("scale",))

    @property
    def contract(self) -> Contract:
        if self.scale == 1:
            return super().contract
        # the enlarged map is aligned with the corners of the whole image, so a tile would move it
        return Contract(None, one_pass=True, least_side=self.scale + 1)

    def forward(self, x: Tensor, cropped: bool = False) -> Tensor:
        plain = standard_only()
        packed = None if plain else self._packed(x)
        if packed is not None:
            return enhance_zerodcepp(x, packed[0], scale=self.scale, padding=self.padding, cropped=cropped)
        if self.scale > 1 and not (plain or torch.is_grad_enabled() or torch.compiler.is_compiling()):
            together = max(1, PIXELS_TOGETHER // max(1, x.shape[-2] * x.shape[-1]))
            if len(x) > together and not torch.jit.is_tracing():
                return torch.cat([self(images) for images in x.split(together)])
        if x.dtype == torch.uint8:
            y = self(x.to(next(self.parameters()).dtype) / 255, cropped=cropped)
            return (y * 255).round().clamp(0, 255).to(torch.uint8)
        return self.standard(x, cropped) if plain else self.by_layers(x, cropped)

    def enhance_into(self, x: Tensor, out: Tensor, *, bgr: bool = False) -> Tensor:
        # on the CPU nothing as large as an image is allocated
        packed = self._packed(x)
        if packed is not None:
            return enhance_zerodcepp(x, packed[bgr], scale=self.scale, padding=self.padding, out=out)
        return out.copy_(self(x.flip(1)).flip(1) if bgr else self(x))

    def _packed(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """The weights for images of RGB and of BGR; None where the network has to run module by module."""
        weights = list(self.parameters())
        # bytes go through the arithmetic of the weights
        images = weights[:1] if x.dtype == torch.uint8 and type(x) is Tensor else [x]
        if not can_run_packed(images, weights, DTYPES) or not self.as_built():
            return None
        # parameters come in the order of the layers, depthwise before pointwise, each weight before its bias
        return self._packing.get(
            weights,
            None,
            lambda: tuple(pack_zerodcepp(weights[::2], weights[1::2], bgr=bgr) for bgr in (False, True)),
        )

    def maps(self, x: Tensor) -> tuple[Tensor, bool]:
        if self.scale == 1:
            return super().maps(x)
        # tanh before the upsampling, as published: the two do not commute
        return self.curve_maps(x), False

    def curve_maps(self, x: Tensor) -> Tensor:
        """The curve maps alpha in [-1, 1], `[B, 3, H, W]`, used by every step; positive brightens."""
        height, width = x.shape[-2:]
        if self.scale == 1:
            return torch.tanh(self.raw_maps(x))
        if _exporting() or torch.onnx.is_in_onnx_export():
            return self._gathered_maps(x)
        # to whole cells at the bottom and the right; the published code crops them away instead
        # not -width % scale: torch.compile (2.13) fails on the remainder of a negative symbolic size
        rows, columns = (-(-side // self.scale) for side in (height, width))
        right, below = columns * self.scale - width, rows * self.scale - height
        x = F.pad(x, (0, right, 0, below), mode="replicate")
        # not scale_factor: 49 pixels times 1 / 49 is less than one
        low = F.interpolate(x, size=(rows, columns), mode="bilinear", align_corners=False)
        maps = torch.tanh(self.raw_maps(low))
        # the published geometry: half-pixel centres on the way down, aligned corners on the way up
        maps = F.interpolate(maps, size=x.shape[-2:], mode="bilinear", align_corners=True)
        return maps[..., :height, :width]

    def _gathered_maps(self, x: Tensor) -> Tensor:
        """`curve_maps` for exporters, which fail on a padding whose width depends on the size."""
        low = _reduced(_reduced(x, 2, self.scale), 3, self.scale)
        maps = torch.tanh(wide(self.raw_maps(low)))
        return _enlarged(_enlarged(maps, 2, self.scale, x.shape[2]), 3, self.scale, x.shape[3])


def _reduced(x: Tensor, dim: int, scale: int) -> Tensor:
    """Bilinear by a whole factor, with half-pixel centres: the one or two pixels amid each cell."""
    last = x.shape[dim] - 1
    cells = torch.arange((last + scale) // scale, device=x.device) * scale
    middle = x.index_select(dim, (cells + scale // 2).clamp(max=last))
    if scale % 2:
        return middle
    return (middle + x.index_select(dim, (cells + (scale // 2 - 1)).clamp(max=last))) / 2


def _enlarged(maps: Tensor, dim: int, scale: int, length: int) -> Tensor:
    """Bilinear with aligned corners to whole cells, and of that the first `length`."""
    count = (length - 1 + scale) // scale
    place = torch.arange(length, dtype=torch.float32, device=maps.device)
    place = place * ((count - 1) / (count * scale - 1))
    below = place.floor()
    share = (place - below).view((-1, 1) if dim == 2 else (1, -1))
    first = below.to(torch.int64)
    low = maps.index_select(dim, first)
    high = maps.index_select(dim, (first + 1).clamp(max=count - 1))
    return low + share * (high - low)
