"""NeRCo as a method: images in [0, 1] of any size, in and out."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie.models.contract import Contract
from fastllie.models.logits import half_logits
from fastllie.models.luma import luma
from fastllie.models.metered import metered
from fastllie.models.nerco import strips
from fastllie.models.nerco.networks import Generator, MaskExtractor, Representation
from fastllie.models.network import Built, Network, is_bare, standard_only

SIZE_MODES = ("reflect", "official")
MULTIPLE = 4
LEAST = 8
# of the colour of the light: parts of each side, the meter's level, lumas that it is taken from and may reach
_PARTS, _LEVEL, _DARKEST, _BRIGHTEST = 32, 0.5, 0.1, 0.98
_LEAST = 1e-6
# images in [-1, 1], and the logits to be changed, to enhanced images
Whole = Callable[[Tensor, Tensor | None], Tensor]


class NeRCo(Network):
    """NeRCo's inference: y = G_A(cat(x, Pre(x)) * mask), with the mask of H.

    `forward` takes images `[B, 3, H, W]` in [0, 1], any size, and returns the enhanced images, as large. The
    instance norms make all pixels depend on the whole image: there are no exact tiles. Without gradients an
    image is computed in strips of rows, which differs from the whole by float rounding; the memory is about
    512 bytes a pixel in float32.

    Args:
        width: Channels of all three networks at full resolution.
        blocks: Residual blocks of the generator. The published option resnet_6blocks has 6.
        pre_blocks: Those of the representation, always 9 in the published network; None is `blocks`.
        mask_blocks: Those of the mask extractor, always 3 in the published network.
        hidden: Width of the representation's MLP; None is four times `width`.
        coordinates: "published": coordinates that are all zero; or our "absolute", as the paper describes
            them. See `PixelMLP`.
        in_logits: Ours, not the paper's: the generator changes the logits of the image instead of drawing all
            of it anew, y = sigmoid(2 g + logit(x)) with g from before its tanh. A constant g is a gain in the
            shadows that never clips; details come from the image.
        keep_cast: Ours too: what is drawn gets the colour of the light in the image, which the instance norms
            forget, part by part; see `recast`.
        size_mode: "reflect" mirrors images at right and bottom up to a multiple of 4, and cuts that away
            again; sides under 5, which have not enough to mirror, repeat their last pixel up to 8. "official"
            resizes to the nearest multiple of 4 as the published test does, bicubic and rounded to bytes, and
            back; it takes sides from 7.

    Raises:
        ValueError: an unknown mode, a number that is not an integer >= 1, `keep_cast` beside `in_logits`.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        blocks: int = 9,
        pre_blocks: int | None = None,
        mask_blocks: int = 3,
        hidden: int | None = None,
        coordinates: str = "published",
        in_logits: bool = False,
        keep_cast: bool = False,
        size_mode: str = "reflect",
    ):
        super().__init__()
        if size_mode not in SIZE_MODES:
            raise ValueError(f"size_mode must be one of {SIZE_MODES}, got {size_mode!r}")
        if in_logits and keep_cast:
            raise ValueError("keep_cast is for what is drawn anew: in_logits changes what is there")
        self.size_mode, self.coordinates = size_mode, coordinates
        self.in_logits, self.keep_cast = in_logits, keep_cast
        self.Pre = Representation(
            width=width,
            blocks=blocks if pre_blocks is None else pre_blocks,
            hidden=hidden,
            coordinates=coordinates,
        )
        self.H = MaskExtractor(width=width, blocks=mask_blocks)
        self.G_A = Generator(6, width=width, blocks=blocks)
        self._built = Built.of(self, NeRCo, ("size_mode", "in_logits", "keep_cast"))

    @property
    def contract(self) -> Contract:
        # torch 2.13 cannot prove that what is padded to a multiple of 4 and convolved comes back as large
        return Contract(None, unexportable="nerco cannot be exported: the exporters cannot follow its sizes")

    def forward(self, x: Tensor) -> Tensor:
        return self._sized(x, self.enhance_whole)

    def standard(self, x: Tensor) -> Tensor:
        return self._sized(x, self._by_layers)

    def _sized(self, x: Tensor, network: Whole) -> Tensor:
        height, width = x.shape[-2:]
        if self.size_mode == "official":
            y = self._enhance(resized(x, *official_size(height, width)), network)
            if y.shape[-2:] == x.shape[-2:]:
                return y
            return F.interpolate(y, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
        return self._enhance(extended(x), network)[..., :height, :width]

    def _enhance(self, x: Tensor, network: Whole) -> Tensor:
        """Images in [0, 1]."""
        if not self.in_logits:
            y = (network(2 * x - 1, None) + 1) / 2
            return recast(y, x).to(x.dtype) if self.keep_cast else y
        # logits of these, and the result in float32: in 16 bits the shadows are coarse around -1
        return ((network(2 * x - 1, half_logits(x)) + 1) / 2).to(x.dtype)

    def enhance_whole(self, x: Tensor, logits: Tensor | None = None) -> Tensor:
        """Images `[B, 3, H, W]` in [-1, 1] to enhanced ones; sides are multiples of 4, and 8 at least.

        Args:
            logits: For `in_logits`, `half_logits` of the same images in [0, 1]; the result has their dtype.
        """
        tensors = (x, *self.parameters())
        wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        if wanted or torch.compiler.is_compiling() or standard_only() or not self.as_built():
            return self._by_layers(x, logits)
        with torch.no_grad():
            out = torch.empty_like(x if logits is None else logits, memory_format=torch.channels_last)
            for place in range(len(x)):
                image = x[place : place + 1].contiguous(memory_format=torch.channels_last)
                mine = None if logits is None else logits[place : place + 1]
                out[place : place + 1] = self._in_strips(image, mine)
        return out

    def _by_layers(self, x: Tensor, logits: Tensor | None) -> Tensor:
        mask = self.H.mask(x) if is_bare(self.H, MaskExtractor) else self.H(x)[1]
        return self.G_A(torch.cat([x, self.Pre(x)], 1) * mask, logits)

    def _in_strips(self, image: Tensor, logits: Tensor | None) -> Tensor:
        # first what takes most memory
        mask = strips.extract_mask(self.H, image)
        pre = strips.represent(self.Pre, image)
        masked = (torch.cat([image, pre], 1) * mask).contiguous(memory_format=torch.channels_last)
        return strips.generate(self.G_A, masked, logits)


def recast(drawn: Tensor, image: Tensor) -> Tensor:
    """`drawn` with the colour of the light in `image`, both `[B, 3, H, W]` in [0, 1], in float32 at least.

    Less their lumas, the means of `drawn` over 32 x 32 parts of the picture, bilinear between, become those
    of `image` as a meter shows it, see `fastllie.models.Metered`. Where `drawn` is darker they are smaller by
    the ratio of the lumas, and in what is nearly black in `image`, whose colour is noise, smaller still. Then
    colours beyond what can be shown are made paler, at their luma.
    """
    drawn = drawn.to(torch.promote_types(drawn.dtype, torch.float32))
    wanted, had = (_parts(picture) for picture in (metered(image.to(drawn.dtype), _LEVEL), drawn))
    light, dark = luma(had), luma(wanted)
    chroma = (wanted - dark) * (light / dark.clamp(min=_DARKEST)).clamp(max=1)
    made = drawn + chroma - (had - light)
    bright = luma(made).clamp(0, 1)
    colours = made - bright
    most, least = colours.amax(1, keepdim=True), -colours.amin(1, keepdim=True)
    # no further than the picture was drawn: what is white stays white, and no colour gets there
    above = (drawn.amax(1, keepdim=True).clamp(min=_BRIGHTEST) - bright).clamp(min=0)
    share = torch.minimum(above / most.clamp(min=_LEAST), bright / least.clamp(min=_LEAST)).clamp(max=1)
    return bright + share * colours


def _parts(picture: Tensor) -> Tensor:
    means = F.adaptive_avg_pool2d(picture, _PARTS)
    return F.interpolate(means, picture.shape[-2:], mode="bilinear", align_corners=False)


def extended(x: Tensor) -> Tensor:
    """Images with sides that are multiples of 4, 8 at least: more rows below, more columns at the right."""
    for dim in (2, 3):
        side = x.shape[dim]
        more = max(LEAST, (side + MULTIPLE - 1) // MULTIPLE * MULTIPLE) - side
        if more:
            # one dimension at a time, for each has its own way
            mode = "reflect" if side > more else "replicate"
            x = F.pad(x, (0, more, 0, 0) if dim == 3 else (0, 0, 0, more), mode=mode)
    return x


def official_size(height: int, width: int) -> tuple[int, int]:
    """The sides that the published test resizes to: the nearest multiples of 4, of two the even one.

    Raises:
        ValueError: a side that would become less than 8.
    """
    sides = tuple(round(side / MULTIPLE) * MULTIPLE for side in (height, width))
    if min(sides) < LEAST:
        raise ValueError(
            f"size_mode 'official' takes sides that round to {LEAST} at least, got {height} x {width};"
            " wanted size_mode 'reflect' for smaller images"
        )
    return sides[0], sides[1]


def resized(x: Tensor, height: int, width: int) -> Tensor:
    """Images in [0, 1] as Pillow resizes them, bicubic: rounded to 256 levels before, between and after."""
    if x.shape[-2:] == (height, width):
        return x
    y = x.float().mul(255).round()
    for size in ((x.shape[-2], width), (height, width)):
        if y.shape[-2:] != size:
            y = F.interpolate(y, size, mode="bicubic", antialias=True).add(0.5).floor().clamp(0, 255)
    return (y / 255).to(x.dtype)
