"""What JPEG makes of images, computed on the device that holds them: baseline, 4:2:0, libjpeg's tables."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie.defaults import LUMA

BLOCK = 8
# ITU-T T.81, annex K.1, rows of a block
_LUMINANCE = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
_CHROMINANCE = (
    """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
"""
    + " 99" * 32
)


def code(levels: Tensor, quality: Tensor) -> Tensor:
    """Images as they are after being written as JPEG and read again.

    As libjpeg does it in Pillow's default settings, but for its integer arithmetic: the chroma halved both
    ways, means of 2x2 pixels, and enlarged linearly; every stage rounded to whole levels where libjpeg's is.

    Args:
        levels: `[B, 3, H, W]`, whole numbers in 0..255 as floats.
        quality: `[B]`, whole numbers in 1..100.

    Returns:
        The same shape, whole numbers.
    """
    height, width = levels.shape[-2:]
    # whole blocks of the halved chroma; libjpeg repeats the last column and row as well
    more = [-side % (2 * BLOCK) for side in (width, height)]
    if any(more):
        levels = F.pad(levels, (0, more[0], 0, more[1]), mode="replicate")
    red, green, blue = levels.unbind(1)
    luma = red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]
    chroma = torch.stack([(blue - luma) * 0.564334, (red - luma) * 0.713267], 1).round_()
    luma = luma.round_()[:, None].sub_(128)
    # 2x2 means of whole numbers end in quarters: libjpeg rounds halves down and up in turn
    chroma = F.avg_pool2d(chroma, 2)
    chroma = chroma.add_(_BIAS.to(chroma.device).repeat(chroma.shape[-1] // 2)).floor_()
    luma, chroma = _quantised(luma, chroma, _tables(quality).to(levels.device, torch.float32))
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False).round_()
    luma = luma[:, 0].add_(128)
    blueness, redness = chroma.unbind(1)
    decoded = torch.stack(
        [
            redness * 1.402 + luma,
            luma - blueness * 0.344136 - redness * 0.714136,
            blueness * 1.772 + luma,
        ],
        1,
    )
    return decoded.round_().clamp_(0, 255)[..., :height, :width]


_BIAS = torch.tensor([0.25, 0.5])


def _quantised(luma: Tensor, chroma: Tensor, tables: Tensor) -> tuple[Tensor, Tensor]:
    """Planes `[B, C, H, W]` around 0 through the quantised cosine transform; `tables` `[B, 2, 64]`."""
    batch = len(luma)
    blocks = [_blocks(luma), _blocks(chroma)]
    split = [one.shape[1] for one in blocks]
    transform = _transform(luma.device).expand(batch, -1, -1)
    # one product for each image, so that it is the same in whatever batch it comes
    coefficients = torch.bmm(torch.cat(blocks, 1), transform)
    for part, table in zip(coefficients.split(split, 1), tables.unbind(1), strict=True):
        part.div_(table[:, None]).round_().mul_(table[:, None])
    # a decoder cuts to the range of the levels
    pixels = torch.bmm(coefficients, transform.transpose(1, 2)).round_().clamp_(-128, 127)
    first, second = pixels.split(split, 1)
    return _planes(first, luma.shape), _planes(second, chroma.shape)


def _blocks(planes: Tensor) -> Tensor:
    batch, count, height, width = planes.shape
    tiles = planes.view(batch, count, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return tiles.transpose(3, 4).reshape(batch, -1, BLOCK * BLOCK)


def _planes(blocks: Tensor, shape: torch.Size) -> Tensor:
    batch, count, height, width = shape
    tiles = blocks.view(batch, count, height // BLOCK, width // BLOCK, BLOCK, BLOCK)
    return tiles.transpose(3, 4).reshape(shape)


@lru_cache
def _transform(device: torch.device) -> Tensor:
    """The cosine transform of a block as a matrix `[64, 64]` from pixels to coefficients, orthonormal."""
    k = torch.arange(BLOCK, dtype=torch.float64)
    basis = torch.cos(math.pi * (k[None] + 0.5) * k[:, None] / BLOCK) * math.sqrt(2 / BLOCK)
    basis[0] /= math.sqrt(2)
    return torch.kron(basis, basis).T.contiguous().to(device, torch.float32)


def _tables(quality: Tensor) -> Tensor:
    """libjpeg's quantisation tables of luminance and chrominance `[B, 2, 64]` for qualities `[B]`."""
    quality = quality.long()[:, None, None]
    scale = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return ((_BASE * scale + 50) // 100).clamp(1, 255)


_BASE = torch.tensor([[int(value) for value in text.split()] for text in (_LUMINANCE, _CHROMINANCE)])
