"""SCI (Ma et al., CVPR 2022): a tiny illumination network, trained in a cascade of stages that share it."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastllie.models.contract import Contract
from fastllie.models.network import Built, Network, is_bare, standard_only
from fastllie.ops import reference
from fastllie.ops.checks import check_choice, check_count
from fastllie.ops.illumination import divide_illumination, illuminate
from fastllie.ops.packing import Packing
from fastllie.ops.reference import ILLUM_MIN
from fastllie.ops.sci import PADDINGS, enhance_sci
from fastllie.ops.tensors import wide

BLOCKS = ("basic", "plain", "ruas")
RUAS_ILLUM_MIN = 1e-3  # of RUAS's
CALIBRATE_BLOCKS, CALIBRATE_CHANNELS = 3, 16


class Stages(NamedTuple):
    """What each stage of the cascade took and gave, `[B, 3, H, W]` each; `corrections` may be one shorter."""

    inputs: list[Tensor]  # v_t
    illum: list[Tensor]  # x_t
    enhanced: list[Tensor]  # r_t
    corrections: list[Tensor]  # s_t in [-1, 1]; the published code returns their absolute values


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution that keeps the size, padding with zeros or by reflection."""

    def __init__(self, inputs: int, outputs: int, padding: str):
        check_choice("padding", padding, PADDINGS)
        super().__init__(inputs, outputs, 3, padding=1 if padding == "zeros" else 0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.padding == (1, 1) else _reflected(x))


def _reflected(x: Tensor) -> Tensor:
    """One more row and column on each side; a single row or column, which reflects nothing, is repeated."""
    if min(x.shape[-2:]) > 1:
        return F.pad(x, (1, 1, 1, 1), mode="reflect")
    x = F.pad(x, (1, 1, 0, 0), mode="reflect" if x.shape[-1] > 1 else "replicate")
    return F.pad(x, (0, 0, 1, 1), mode="reflect" if x.shape[-2] > 1 else "replicate")


class EnhanceNetwork(nn.Module):
    """SCI's basic block: illumination = clamp(sigmoid(convolutions(v)) + v, 1e-4, 1), `[B, 3, H, W]`.

    conv + ReLU; `blocks` times f <- f + ReLU(BN(conv(f))), all with the same weights and statistics; conv.

    Args:
        blocks: How often the middle convolution runs.
        channels: Features of the first and the middle convolution.
        residual: False drops the addition and the batch norm: a plain chain of convolutions, as in the paper.
        padding: "zeros" as published, or "reflect", which leaves no frame at the border.
    """

    def __init__(self, *, blocks: int = 1, channels: int = 3, residual: bool = True, padding: str = "zeros"):
        super().__init__()
        for name, value in (("blocks", blocks), ("channels", channels)):
            check_count(name, value)
        self.blocks = blocks
        self.residual = residual
        #: pixels around an output pixel that its value depends on
        self.halo = 2 + blocks
        middle = [Conv3x3(channels, channels, padding), *([nn.BatchNorm2d(channels)] if residual else [])]
        self._packing = Packing()
        self.in_conv = nn.Sequential(Conv3x3(3, channels, padding), nn.ReLU())
        self.conv = nn.Sequential(*middle, nn.ReLU())
        self.out_conv = nn.Sequential(Conv3x3(channels, 3, padding))

    def raw(self, v: Tensor) -> Tensor:
        """What comes before the sigmoid, `[B, 3, H, W]`."""
        features = self.in_conv(v)
        for _ in range(self.blocks):
            features = features + self.conv(features) if self.residual else self.conv(features)
        return self.out_conv(features)

    def forward(self, v: Tensor) -> Tensor:
        return (torch.sigmoid(self.raw(v)) + v).clamp(ILLUM_MIN, 1.0)

    def folded(self, bgr: bool = False) -> tuple[Tensor, Tensor]:
        """Weights `[3, 3, 3, 3, 3]` and biases `[3, 3]` of the convolutions in order, batch norm folded.

        Only with 3 channels; the batch norm is that of eval mode. In the parameters' dtype, at least float32.
        Folded anew only when a parameter or a statistic has changed: see `Packing`. With `bgr` for images in
        that order, whose results are in it too.
        """
        # a compiler traces the folding
        if torch.compiler.is_compiling():
            return _reversed(*self._fold()) if bgr else self._fold()

        def both() -> tuple[tuple[Tensor, Tensor], ...]:
            folded = self._fold()
            return folded, _reversed(*folded)

        # settled weights are not looked at
        weights = [] if self._packing.settled else [*self.parameters(), *self.buffers()]
        return self._packing.get(weights, None, both)[bgr]

    def _fold(self) -> tuple[Tensor, Tensor]:
        first: Any = self.in_conv[0]
        middle: Any = self.conv[0]
        last: Any = self.out_conv[0]
        dtype = torch.promote_types(first.weight.dtype, torch.float32)
        # float64: variances of 1e-7 make factors of several hundred
        weight, bias = middle.weight.double(), middle.bias.double()
        if self.residual:
            norm: Any = self.conv[1]
            factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            weight = weight * factor.view(-1, 1, 1, 1)
            bias = (bias - norm.running_mean.double()) * factor + norm.bias.double()
        weights = torch.stack([first.weight.to(dtype), weight.to(dtype), last.weight.to(dtype)])
        return weights, torch.stack([first.bias.to(dtype), bias.to(dtype), last.bias.to(dtype)])


def _reversed(weights: Tensor, biases: Tensor) -> tuple[Tensor, Tensor]:
    """Folded weights and biases for the other order of the colours, in and out."""
    first, middle, last = weights
    a, b, c = biases
    return torch.stack([first.flip(1), middle, last.flip(0)]), torch.stack([a, b, c.flip(0)])


class IlluminationModule(nn.Module):
    """The first illumination block of RUAS (Liu et al., CVPR 2021), to take the basic block's place in SCI.

    illumination = clamp(sigmoid(cell(P(v))), 1e-3, 1), P the largest of a pixel and its neighbours to the
    right, below and diagonally below. The cell is the one that the published search found.
    """

    halo = 3

    def __init__(self) -> None:
        super().__init__()
        self.cell = _SearchedCell()

    def forward(self, v: Tensor) -> Tensor:
        return torch.sigmoid(self.cell(largest_of_four(v))).clamp(RUAS_ILLUM_MIN, 1.0)


def largest_of_four(x: Tensor) -> Tensor:
    """The larger of each pixel, its right, lower and diagonal neighbour; zeros outside the image."""
    x = F.pad(x, (0, 1, 0, 1))
    # pairs, not a pooling: where values tie, the gradient is shared as in the published code
    x = torch.maximum(x[..., :-1, :], x[..., 1:, :])
    return torch.maximum(x[..., :-1], x[..., 1:])


class _SearchedCell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1_r = _Operation(nn.Conv2d(3, 3, 1))
        self.c2_d = _Operation(nn.Conv2d(3, 3, 3, padding=2, dilation=2))
        self.c2_r = _Operation(nn.Conv2d(3, 3, 3, padding=1))
        self.c3_d = _Operation(nn.Conv2d(3, 3, 3, padding=1))
        self.c4 = _Operation(nn.Conv2d(3, 3, 3, padding=1))
        self.c5 = nn.Conv2d(12, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        d1 = _leaky(x)
        r1 = _leaky(self.c1_r(x) + x + x)
        d2 = _leaky(self.c2_d(r1) + r1)
        r2 = _leaky(self.c2_r(r1) + r1)
        d3 = _leaky(self.c3_d(r2))
        r3 = _leaky(r2 + r2)
        d4 = _leaky(self.c4(r3))
        return self.c5(torch.cat([d1, d2, d3, d4], 1))


class _Operation(nn.Module):
    """A convolution under the name that RUAS's checkpoints give it."""

    def __init__(self, op: nn.Module):
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.05)


class CalibrateNetwork(nn.Module):
    """The self-calibration, for training only: s = r - sigmoid(convolutions(r)), `[B, 3, H, W]` in [-1, 1].

    The paper writes s = K(r); the published code subtracts, and so does this. The three residual blocks share
    their weights and statistics.
    """

    def __init__(self, padding: str = "zeros"):
        super().__init__()
        width = CALIBRATE_CHANNELS
        self.in_conv = nn.Sequential(Conv3x3(3, width, padding), nn.BatchNorm2d(width), nn.ReLU())
        self.convs = nn.Sequential(
            Conv3x3(width, width, padding),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            Conv3x3(width, width, padding),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.out_conv = nn.Sequential(Conv3x3(width, 3, padding), nn.Sigmoid())

    def forward(self, r: Tensor) -> Tensor:
        features = self.in_conv(r)
        for _ in range(CALIBRATE_BLOCKS):
            features = features + self.convs(features)
        return r - self.out_conv(features)


class SCI(Network):
    """SCI: one stage at inference, a cascade of stages with the same weights in training.

    `forward` takes images `[B, 3, H, W]` in [0, 1], any size, and returns the enhanced images, as large:
    clamp(y / illumination, 0, 1), or uint8 in 0..255 to uint8. Where no gradient is wanted, a network of the
    default depth and width runs as one kernel (`fastllie.ops.enhance_sci`). In training mode batch
    norm takes its statistics from the batch, and the images differ; `fastllie.load` gives networks in eval
    mode.

    Args:
        block: What estimates the illumination. "basic" is `EnhanceNetwork` as published; "plain" the same
            without batch norm and residual; "ruas" one illumination module of RUAS; or any module of your own
            from images `[B, 3, H, W]` (beyond [0, 1] in the later stages) to illuminations in (0, 1].
        blocks, channels: Of the basic and the plain block, as for `EnhanceNetwork`.
        padding: Of every 3x3 convolution: "zeros" as published, or "reflect", which leaves no coloured frame.
        calibrate: Whether there is a calibration network, which a cascade of several stages needs.

    Raises:
        ValueError: an unknown block or padding, a size that does not fit the block.
    """

    def __init__(
        self,
        *,
        block: str | nn.Module = "basic",
        blocks: int = 1,
        channels: int = 3,
        padding: str = "zeros",
        calibrate: bool = False,
    ):
        super().__init__()
        check_choice("padding", padding, PADDINGS)
        self.block = block if isinstance(block, str) else type(block).__name__
        self.blocks = blocks
        self.channels = channels
        self.padding = padding
        self.enhance = _block(block, blocks, channels, padding)
        self.calibrate = CalibrateNetwork(padding) if calibrate else None
        self._built = Built.of(self, SCI)

    @property
    def contract(self) -> Contract:
        # a block of somebody else's may not tell
        return Contract(getattr(self.enhance, "halo", None), one_pass=self._shallow())

    def _shallow(self) -> bool:
        """Whether one kernel does it all."""
        network = self.enhance
        return isinstance(network, EnhanceNetwork) and (network.blocks, self.channels) == (1, 3)

    def settle(self) -> None:
        super().settle()
        if isinstance(self.enhance, EnhanceNetwork):
            self.enhance._packing.settled = True

    def forward(self, x: Tensor) -> Tensor:
        if standard_only():
            return self.standard(x)
        if self._fused(x):
            return self._in_one_pass(x)
        if x.dtype == torch.uint8:
            y = self(x.to(next(self.parameters()).dtype) / 255)
            return (y * 255).round().clamp(0, 255).to(torch.uint8)
        return self.stage(x, x)[1]

    def _fused(self, x: Tensor) -> bool:
        if self.training or not self._shallow():
            return False
        if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *self.enhance.parameters())):
            return False
        # a compiler cannot look at the layers, and fuses them itself
        return self._packing.settled if torch.compiler.is_compiling() else self.as_built()

    def standard(self, x: Tensor) -> Tensor:
        return reference.divide_illumination(wide(x), wide(self.enhance(x))).to(x.dtype)

    def enhance_into(self, x: Tensor, out: Tensor, *, bgr: bool = False) -> Tensor:
        if self._fused(x):
            # nothing as large as an image is allocated
            return self._in_one_pass(x, out, bgr)
        return out.copy_(self(x.flip(1)).flip(1) if bgr else self(x))

    def _in_one_pass(self, x: Tensor, out: Tensor | None = None, bgr: bool = False) -> Tensor:
        network: Any = self.enhance
        weights, biases = network.folded(bgr)
        return enhance_sci(x, weights, biases, residual=network.residual, padding=self.padding, out=out)

    def stage(self, v: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One stage: the illumination of `v`, and the low-light image `y` divided by it and clamped."""
        network: Any = self.enhance
        if is_bare(network, EnhanceNetwork):
            return illuminate(network.raw(v), v, y)
        illum = self.enhance(v)
        return illum, divide_illumination(y, illum)

    def stages(self, y: Tensor, count: int = 3, *, calibrate_last: bool = False) -> Stages:
        """The cascade: v_0 = y; x_t = F(v_t); r_t = clamp(y / x_t, 0, 1); v_(t+1) = y + r_t - K(r_t).

        Args:
            y: Low-light images `[B, 3, H, W]` in [0, 1].
            count: The number of stages.
            calibrate_last: Also calibrate the last result, as the published code does: it feeds no loss and
                changes nothing but the statistics in the calibration's batch norms.

        Raises:
            ValueError: fewer than one stage, or several without a calibration network.
        """
        check_count("count", count)
        if self.calibrate is None and (count > 1 or calibrate_last):
            raise ValueError("several stages need a calibration network: SCI(calibrate=True)")
        stages = Stages([], [], [], [])
        v = y
        for index in range(count):
            illum, enhanced = self.stage(v, y)
            stages.inputs.append(v)
            stages.illum.append(illum)
            stages.enhanced.append(enhanced)
            if self.calibrate is not None and (index + 1 < count or calibrate_last):
                correction = self.calibrate(enhanced)
                stages.corrections.append(correction)
                v = y + correction
        return stages


def _block(block: str | nn.Module, blocks: int, channels: int, padding: str) -> nn.Module:
    if isinstance(block, nn.Module):
        return block
    if block not in BLOCKS:
        raise ValueError(f"block must be a module or one of {BLOCKS}, got {block!r}")
    if block != "ruas":
        return EnhanceNetwork(blocks=blocks, channels=channels, residual=block == "basic", padding=padding)
    if (blocks, channels, padding) != (1, 3, "zeros"):
        raise ValueError(
            "the block 'ruas' has its own depth and width and pads with zeros; got"
            f" blocks={blocks}, channels={channels}, padding={padding!r}"
        )
    return IlluminationModule()
