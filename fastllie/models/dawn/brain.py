"""What `dawn` decides by a look at the whole picture: a grid of curves."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastllie.models.luma import luma

THUMB = (64, 96)  # rows and columns of the thumbnail
GRID = (8, 8, 12)  # lumas, rows and columns of the grid
PLANES = 6  # of the grid: a curve's alpha and a black level of red, green and blue each
LEAST_MEAN = 1 / 255  # of a picture's luma: added, so that black pictures divide by something
PERCENTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.995)
PLACES = tuple(round(share * (THUMB[0] * THUMB[1] - 1)) for share in PERCENTILES)  # among the thumbnail's
NOISES = 6  # luma, blueness and redness at full and at half size
SAMPLES = (48, 64)  # places at which noise is measured, along rows and columns
CUTS = (1.0, 1.5)  # of the mean magnitude, round after round
CHROMA = ((0.5, -0.4187, -0.0813), (-0.1687, -0.3313, 0.5))  # redness and blueness, JPEG's
_OFFSET = 0.5  # the largest black level, of the picture's mean


class Seen(NamedTuple):
    """What a picture says of itself as a whole.

    Attributes:
        thumb: `[B, 3, 64, 96]`.
        mean: Of the luma, and a little, `[B, 1, 1, 1]`.
        noise: Levels of the noise in v, `[B, 6]`.
    """

    thumb: Tensor
    mean: Tensor
    noise: Tensor


def areas(cells: int, size: int, like: Tensor) -> Tensor:
    """The share `[cells, size]` that each pixel of a row of `size` has in each of its `cells` equal parts."""
    edges = torch.arange(cells + 1, device=like.device, dtype=like.dtype) * (size / cells)
    pixels = torch.arange(size, device=like.device, dtype=like.dtype)
    # what lies of each pixel before an edge; between two edges is the difference
    before = (edges[:, None] - pixels).clamp(0, 1)
    return (before[1:] - before[:-1]) * (cells / size)


def thumbnail(x: Tensor) -> Tensor:
    """The exact means of a picture over 64 x 96 equal parts: also where these are smaller than pixels."""
    rows = areas(THUMB[0], x.shape[-2], x)
    columns = areas(THUMB[1], x.shape[-1], x)
    return rows @ x @ columns.T


def noise_levels(x: Tensor, mean: Tensor, bgr: bool = False) -> Tensor:
    """Measures `[B, 6]` of the noise in v = x / (x + mean), at full and at half size.

    At 48 x 64 places the diagonal Haar coefficient of 2 x 2 pixels, and of 2 x 2 means of them; of their
    magnitudes a mean that large ones count little in. White noise gives about half of its deviation.
    """
    height, width = x.shape[-2:]
    rows = (torch.arange(SAMPLES[0], device=x.device) * height // SAMPLES[0])[:, None]
    columns = (torch.arange(SAMPLES[1], device=x.device) * width // SAMPLES[1])[:, None]
    steps = torch.arange(4, device=x.device)
    rows = (rows + steps).clamp(max=height - 1).flatten()
    columns = (columns + steps).clamp(max=width - 1).flatten()
    v = floats(x[..., rows, :][..., columns])
    v = v.flip(1) if bgr else v
    v = v / (v + mean)
    redness, blueness = (v[:, :1] * red + v[:, 1:2] * green + v[:, 2:] * blue for red, green, blue in CHROMA)
    planes = torch.cat([luma(v), blueness, redness], 1)
    # 4 x 4 pixels at each place, of which the full size takes the first 2 x 2
    fine = _diagonal(planes, 4)
    coarse = _diagonal(F.avg_pool2d(planes, 2), 2)
    coefficients = torch.cat([fine, 2 * coarse], 1).flatten(2)
    # edges are few and large: each round cuts them to what the round before takes for noise
    level = coefficients.mean(-1, keepdim=True)
    for cut in CUTS:
        level = torch.minimum(coefficients, cut * level).mean(-1, keepdim=True)
    return level[..., 0]


def _diagonal(x: Tensor, step: int) -> Tensor:
    """Magnitudes of the diagonal Haar coefficients of the first 2 x 2 pixels of each cell of `step`."""
    a, b, c, d = (x[..., row::step, column::step] for row in (0, 1) for column in (0, 1))
    return (a - b - c + d).abs() / 2


def floats(x: Tensor) -> Tensor:
    """Bytes as floats in [0, 1], and halves in float32."""
    if x.dtype == torch.uint8:
        return x.float() / 255
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def see(
    x: Tensor,
    thumb: Tensor | None = None,
    bgr: bool = False,
    measure: Callable[[Tensor, Tensor, bool], Tensor] = noise_levels,
) -> Seen:
    """What is to be known of whole pictures `[B, 3, H, W]`.

    Args:
        thumb: Their thumbnail, where it is known.
        bgr: The order of the colours in both.
        measure: What computes `noise_levels`.
    """
    if thumb is None:
        thumb = thumbnail(floats(x))
    thumb = thumb.flip(1) if bgr else thumb
    mean = luma(thumb).mean((2, 3), keepdim=True) + LEAST_MEAN
    return Seen(thumb, mean, measure(x, mean, bgr))


class Brain(nn.Module):
    """A grid of curves `[B, 6, 8, 8, 12]` from what is seen of a picture.

    The first three planes are alpha of red, green and blue, in (-1, 1), the others their black levels. Along
    the third dimension lies the luma of v = x / (x + mean), then rows and columns of the picture.
    """

    def __init__(self, widths: tuple[int, int, int] = (24, 40, 64)):
        super().__init__()
        first, second, third = widths
        facts = 4 + len(PERCENTILES) + NOISES
        self.conv1 = _conv(6, first, 2)
        self.conv2 = _conv(first, second, 2)
        self.conv3 = _conv(second, second, 1)
        self.conv4 = _conv(second, third, 2)
        self.facts = nn.Linear(facts, 32)
        self.whole1 = nn.Linear(2 * third + 32, 96)
        self.whole2 = nn.Linear(96, third)
        self.conv5 = _conv(third, third, 1)
        self.conv6 = _conv(third, third, 1)
        self.last = nn.Conv2d(third, PLANES * GRID[0], 1)
        nn.init.normal_(self.last.weight, 0, 0.01)
        # dark pixels are lifted, bright ones less: a start, no bound
        lifts = torch.linspace(0.6, 0.1, GRID[0]).repeat(3)
        self.last.bias = nn.Parameter(torch.cat([lifts, torch.zeros(3 * GRID[0])]))

    def forward(self, seen: Seen) -> Tensor:
        thumb, mean, noise = (part.to(self.last.weight.dtype) for part in seen)
        facts = F.relu(self.facts(_facts(thumb, mean, noise)))
        # in both scales: how bright it is, and how bright beside the rest
        x = torch.cat([thumb.clamp(min=1e-4).sqrt(), thumb / (thumb + mean)], 1)
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = x + F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        whole = torch.cat([x.mean((2, 3)), x.amax((2, 3)), facts], 1)
        x = F.relu(x + self.whole2(F.relu(self.whole1(whole)))[..., None, None])
        x = x + F.relu(self.conv5(x))
        x = x + F.relu(self.conv6(x))
        planes = torch.tanh(self.last(x)).unflatten(1, (PLANES, GRID[0]))
        return torch.cat([planes[:, :3], planes[:, 3:] * (_OFFSET * mean[..., None])], 1)


def _conv(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    # a border of zeros would be a dark frame around every scene
    return nn.Conv2d(inputs, outputs, 3, stride, 1, padding_mode="replicate")


def _facts(thumb: Tensor, mean: Tensor, noise: Tensor) -> Tensor:
    """Numbers about the whole, each around one: mean, colours, percentiles, noise; `[B, 18]`."""
    values = luma(thumb).flatten(1).sort(1).values
    colours = thumb.mean((2, 3)) / mean.flatten(1)
    return torch.cat(
        [
            (mean.flatten(1).log() + 3) / 2,
            colours.clamp(max=3) - 1,
            (values[:, PLACES] + 0.004).log() / 2 + 1,
            noise_facts(noise),
        ],
        1,
    )


def noise_facts(noise: Tensor) -> Tensor:
    """Levels of noise `[B, 6]` as a network takes them."""
    return (noise + 1e-3).log() / 2 + 2
