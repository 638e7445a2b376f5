"""Dark, noisy frames made of photographs, with what to reach: a batch at once, on the device it is for."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie.training.data.jpeg import code
from fastllie.training.recipes import Synthesis

LARGEST_GAIN = 4.0  # two stops: a night photograph is a good target only if it stays one
SAMPLES = 32  # rows and columns that a photograph's brightness is measured on
FEWEST_PATCHES, MOST_PATCHES = 2, 6  # along each side of a frame with two exposures
_JOIN = 0.0031308  # linear light where the curve of sRGB begins
REACH = 2  # pixels to each side over which noise is blurred


class Chances(NamedTuple):
    """What decides a frame, each `[B]`, uniform in [0, 1)."""

    photograph: Tensor
    side: Tensor
    left: Tensor
    top: Tensor
    flip: Tensor
    turn: Tensor
    dark: Tensor
    exposure: Tensor
    mixed: Tensor
    brighter: Tensor
    patches: Tensor
    softness: Tensor
    blurred: Tensor
    grain: Tensor
    read: Tensor
    shot: Tensor
    encoded: Tensor
    quality: Tensor


class Draw(NamedTuple):
    """All that is random about some frames.

    Attributes:
        casts: Of the colours, `[B, 3]`, standard normal.
        patches: Of two exposures, `[B, 6, 6]`, standard normal; of smaller ones the first rows and columns.
        seeds: Of each frame's noise.
    """

    chances: Chances
    casts: Tensor
    patches: Tensor
    seeds: list[int]


def draw(count: int, seed: int, start: int = 0, stop: int | None = None) -> Draw:
    """The frames `start` to `stop` of a batch of `count`: the same ones whatever the part."""
    random = torch.Generator().manual_seed(seed)
    chances = torch.rand(len(Chances._fields), count, generator=random, dtype=torch.float64)
    casts = torch.randn(count, 3, generator=random, dtype=torch.float64)
    patches = torch.randn(count, MOST_PATCHES, MOST_PATCHES, generator=random)
    seeds = torch.randint(2**62, (count,), generator=random)
    part = slice(start, stop)
    return Draw(Chances(*chances[:, part]), casts[part], patches[part], seeds[part].tolist())


def crop(photographs: Sequence[Tensor], size: int, zoom: float, chances: Chances) -> Tensor:
    """Squares at random places, of a side from `size` to `zoom` times that, reduced, flipped and turned.

    Args:
        photographs: One for each frame, `[H, W, 3]` of uint8, with both sides at least `size`.

    Returns:
        `[B, 3, size, size]` of uint8, where the photographs are.
    """
    device = photographs[0].device if photographs else None
    crops = torch.empty(len(photographs), 3, size, size, dtype=torch.uint8, device=device)
    draws = (chances.side, chances.left, chances.top, chances.flip, chances.turn)
    for photo, frame, side, left, top, flip, turn in zip(
        photographs, crops, *(one.tolist() for one in draws), strict=True
    ):
        height, width = photo.shape[:2]
        largest = max(size, min(height, width, int(size * zoom)))
        side = size + int(side * (largest - size + 1))
        top, left = int(top * (height - side + 1)), int(left * (width - side + 1))
        window = photo[top : top + side, left : left + side].permute(2, 0, 1)
        if side > size:
            window = _reduce(window, size)
        if flip < 0.5:
            window = window.flip(2)
        frame.copy_(window.transpose(1, 2) if turn < 0.25 else window)
    return crops


def _reduce(image: Tensor, size: int) -> Tensor:
    # torch's own reduction of bytes is several times faster, but on the CPU only
    window = image[None] if image.device.type == "cpu" else image[None].float()
    window = F.interpolate(window, (size, size), mode="bicubic", antialias=True)[0]
    return window if image.device.type == "cpu" else window.round_().clamp_(0, 255)


def expose(crops: Tensor, gains: Tensor, drawn: Draw, synthesis: Synthesis) -> tuple[Tensor, Tensor]:
    """Dark and well-exposed frames of crops of photographs, and what they should become.

    The light of a crop is scaled by 2 to the power of an exposure, gets shot and read noise, is encoded in
    sRGB with 8 bits and, in a share of the frames, as JPEG. The target of a dark frame is the photograph,
    that of a well-exposed one is itself without noise, so that the network learns to leave it alone.

    Args:
        crops: `[B, 3, S, S]` of uint8.
        gains: `[B]`, factors on the light; see `brightening`.

    Returns:
        Frames and targets, float32 `[B, 3, S, S]` in [0, 1], in channels-last memory, where the crops are.
    """
    chances, device, size = drawn.chances, crops.device, crops.shape[-1]
    factors = gains.double()[:, None].expand(-1, 3)
    if synthesis.cast:
        casts = (drawn.casts * synthesis.cast).exp2()
        factors = factors * (casts / casts.mean(1, keepdim=True))
    light = linear(crops).mul_(factors.to(device, torch.float32)[..., None, None])
    stops = _exposures(size, drawn, synthesis, device)
    if synthesis.curved_share:
        powers, stops = _curved(stops, drawn, synthesis)
        clean = light.pow(powers) * stops.exp2()
    else:
        clean = light * stops.exp2()
    nothing, full = synthesis.lift
    lift = ((stops - nothing) / (full - nothing)).clamp_(0, 1)
    target = srgb(clean).lerp_(srgb(compress(light, synthesis.target_ceiling)), lift)
    levels = srgb(_noisy(clean, drawn, synthesis)).mul_(255).round_()
    coded = (chances.encoded < synthesis.jpeg_share).nonzero()[:, 0]
    if len(coded):
        lowest, highest = synthesis.jpeg_quality
        quality = lowest + (chances.quality[coded] * (highest - lowest + 1)).floor()
        where = coded.to(device)
        levels[where] = code(levels[where], quality)
    x = levels.div_(255)
    return (
        x.contiguous(memory_format=torch.channels_last),
        target.contiguous(memory_format=torch.channels_last),
    )


def _within(bounds: tuple[float, float], chance: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * chance


def _log_within(bounds: tuple[float, float], chance: Tensor) -> Tensor:
    return _within((math.log(bounds[0]), math.log(bounds[1])), chance).exp()


def _column(device: torch.device, *values: Tensor) -> list[Tensor]:
    """Values `[B]` each as `[B, 1, 1, 1]` of float32, in one transfer."""
    return list(torch.stack(values).to(device, torch.float32)[..., None, None, None])


def _exposures(size: int, drawn: Draw, synthesis: Synthesis, device: torch.device) -> Tensor:
    """The exposure of each pixel in stops, `[B, 1, S, S]`: one for all, or two in hard or soft patches."""
    chances = drawn.chances
    dark = chances.dark >= synthesis.bright_share
    stops = torch.where(
        dark,
        _within(synthesis.exposures, chances.exposure),
        _within(synthesis.bright_exposures, chances.exposure),
    )
    mixed = dark & (chances.mixed < synthesis.mixed_share)
    brighter = stops + (synthesis.bright_exposures[1] - stops) * chances.brighter
    sharpness = _within((-7, -1), chances.softness).neg_().exp2_()
    base, rise, sharpness = _column(device, stops, torch.where(mixed, brighter - stops, 0), sharpness)
    if not bool(mixed.any()):
        return base.expand(-1, 1, size, size)
    kinds = MOST_PATCHES - FEWEST_PATCHES + 1
    spread = _enlargements(size)[(chances.patches * kinds).long()]
    field = (spread @ drawn.patches @ spread.transpose(1, 2)).to(device)[:, None]
    return base + rise * torch.sigmoid(field.mul_(sharpness))


def _curved(stops: Tensor, drawn: Draw, synthesis: Synthesis) -> tuple[Tensor, Tensor]:
    """The power that the light of each frame is raised to, `[B, 1, 1, 1]`, and the exposures beside it."""
    chances = drawn.chances
    dark = chances.dark >= synthesis.bright_share
    # of a frame that is not mixed nothing else decides these two
    curved = dark & (chances.mixed >= synthesis.mixed_share) & (chances.patches < synthesis.curved_share)
    powers = torch.where(curved, _within(synthesis.curves, chances.brighter), 1.0)
    powers, share = _column(stops.device, powers, torch.where(curved, 0.25, 1.0))
    return powers, stops * share


@lru_cache
def _enlargements(size: int) -> Tensor:
    """Bicubic matrices `[kinds, size, 6]` from 2 to 6 values to `size`."""
    matrices = torch.zeros(MOST_PATCHES - FEWEST_PATCHES + 1, size, MOST_PATCHES)
    for matrix, count in zip(matrices, range(FEWEST_PATCHES, MOST_PATCHES + 1), strict=True):
        unit = torch.eye(count)[None, None]
        # the smoothing of a reduction, which an enlargement has not, comes with Pillow's bicubic weights
        matrix[:, :count] = F.interpolate(unit, (size, count), mode="bicubic", antialias=True)[0, 0]
    return matrices


def _noisy(light: Tensor, drawn: Draw, synthesis: Synthesis) -> Tensor:
    """Light `[B, 3, S, S]` with shot and read noise, in half the frames correlated between neighbours."""
    chances, device, size = drawn.chances, light.device, light.shape[-1]
    # a generator of its own for each frame: a frame is the same in whatever part of the batch it comes
    generator = torch.Generator(device)
    field = torch.empty(*light.shape[:2], size + 2 * REACH, size + 2 * REACH, device=device)
    for frame, seed in zip(field, drawn.seeds, strict=True):
        frame.normal_(generator=generator.manual_seed(seed))
    noise = field[..., REACH:-REACH, REACH:-REACH].contiguous()
    # demosaicing and denoising in the camera leave noise that neighbours share
    blurred = (chances.blurred < 0.5).nonzero()[:, 0]
    if len(blurred):
        sigma = _within((0.3, synthesis.grain), chances.grain[blurred])
        where = blurred.to(device)
        noise[where] = _blur(field[where], sigma)
    read = _log_within(synthesis.read_noise, chances.read)
    shot = _log_within(synthesis.shot_noise, chances.shot)
    floor, slope = _column(device, read.square(), shot)
    return (light * slope).add_(floor).sqrt_().mul_(noise).add_(light)


def _blur(noise: Tensor, sigma: Tensor) -> Tensor:
    """Blur rows and columns by `sigma` `[B]`, keeping the standard deviation; each side loses REACH."""
    size = noise.shape[-1] - 2 * REACH
    offsets = torch.arange(-REACH, REACH + 1, dtype=sigma.dtype)
    weights = torch.exp(-0.5 * (offsets / sigma[:, None]).square())
    weights = weights / weights.square().sum(1, keepdim=True).sqrt()
    centre, near, far = _column(noise.device, weights[:, REACH], weights[:, REACH + 1], weights[:, REACH + 2])
    for axis in (2, 3):
        at = [noise.narrow(axis, offset, size) for offset in range(2 * REACH + 1)]
        noise = (at[2] * centre).addcmul_(at[1] + at[3], near).addcmul_(at[0] + at[4], far)
    return noise


def srgb(light: Tensor) -> Tensor:
    """Encode linear light, clamped to [0, 1], as sRGB values."""
    # the straight part and the curve one after the other, each held where it ends: a choice for each value
    # takes longer than both
    straight = light.clamp(0, _JOIN).mul_(12.92)
    curve = light.clamp(_JOIN, 1).pow_(1 / 2.4).mul_(1.055)
    return straight.add_(curve).sub_(0.055 + 12.92 * _JOIN).clamp_(0, 1)


def linear(values: Tensor) -> Tensor:
    """Decode sRGB values of uint8 to linear light in [0, 1]."""
    table = _linear_table(values.device)
    return table.index_select(0, values.flatten().int()).view(values.shape)


@lru_cache
def _linear_table(device: torch.device) -> Tensor:
    values = torch.arange(256, dtype=torch.float64) / 255
    light = torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return light.to(device, torch.float32)


def compress(light: Tensor, ceiling: float, knee: float = 0.6) -> Tensor:
    """Roll linear light `[B, 3, ...]` off above `knee` towards `ceiling`; the ratios of the channels stay."""
    peak = light.amax(1, keepdim=True).clamp_(min=knee)
    room = ceiling - knee
    rolled = knee + room * (1 - torch.exp((knee - peak) / room))
    return light * (rolled / peak)


def brightening(photographs: Sequence[Tensor], synthesis: Synthesis) -> Tensor:
    """The factors `[B]` on the light that bring dark photographs to the target mean; 1 for the others.

    Args:
        photographs: `[H, W, 3]` of uint8, of any sizes.
    """
    samples = []
    for photo in photographs:
        rows, columns = (
            torch.linspace(0, side - 1, SAMPLES, device=photo.device).long() for side in photo.shape[:2]
        )
        samples.append(photo[rows][:, columns].permute(2, 0, 1))
    light = linear(torch.stack(samples))
    low = torch.ones(len(samples), 1, 1, 1, device=light.device)
    high = torch.full_like(low, LARGEST_GAIN)
    for _ in range(12):
        middle = (low * high).sqrt()
        means = srgb(compress(light * middle, synthesis.target_ceiling)).mean((1, 2, 3), keepdim=True)
        short = means < synthesis.target_mean
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return low.flatten().cpu()
