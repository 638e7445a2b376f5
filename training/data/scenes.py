"""Whole dark scenes made of photographs, with what they should become and what they are without noise.

Unlike `fastllie.training.data.synthesis`, which makes small squares by the batch, a frame here is a whole
scene of native pixels, made by itself: a network that judges a scene needs to see all of it.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie import defaults
from fastllie.training.data import camera
from fastllie.training.data.flats import flat_scene
from fastllie.training.data.synthesis import compress, linear, srgb
from fastllie.training.recipes import Scenes

LUMA = torch.tensor(defaults.LUMA).view(3, 1, 1)
CEILING = 0.95  # linear light that highlights of a target stay under
STOPS = torch.arange(-3, 2.01, 0.5)  # exposures that are tried for a photograph
# Where a photograph's exposure aims: its mean and its nearly brightest pixels, in sRGB. Of lol_val40's pairs
# no statistic of the dark picture tells how bright the photographer made the other, so the mean decides most
MEAN, WHITE, WHITE_RANK = 0.48, 0.83, 0.99
WHITE_SHARE = 0.1
LEAST_MEAN, LARGEST_MEAN = 0.42, 0.54
# stops that a photograph of such a mean is brightened by at most: night stays night
NIGHT, DUSK = (0.05, 0.8), (0.2, 2.2)
# lumas of a neighbourhood up to which shadows are lifted whole, and from which not at all
SHADOW, LIT = 0.08, 0.36
# means of a photograph at which it is a night, whose shadows stay, and at which it is none
NO_LIFT, LIFT = 0.08, 0.25
# means of a frame up to which it is nearly black, and from which its colours can be trusted: their mean, and
# their saturation
BALANCED, DULLED = (0.05, 0.15), (0.1, 0.25)


class Frame(NamedTuple):
    """A scene, each `[3, H, W]` in [0, 1].

    Attributes:
        x: As a camera gives it: dark, noisy, in 8 bits.
        target: What it should become.
        clean: `x` without noise, unrounded.
    """

    x: Tensor
    target: Tensor
    clean: Tensor


def window(photograph: Tensor, size: tuple[int, int], random: np.random.Generator) -> Tensor:
    """A random part of a photograph `[H, W, 3]` of uint8, of many shapes, reduced to `size`; `[3, *size]`."""
    height, width = photograph.shape[:2]
    aspect = math.exp(random.uniform(-0.6, 0.2))
    rows, columns = size[0] * aspect**-0.5, size[1] * aspect**0.5
    largest = min(height / rows, width / columns)
    scale = random.uniform(min(1.0, largest), largest)
    rows, columns = min(height, round(rows * scale)), min(width, round(columns * scale))
    top, left = (int(random.integers(room + 1)) for room in (height - rows, width - columns))
    part = photograph[top : top + rows, left : left + columns].permute(2, 0, 1)
    part = F.interpolate(part[None], size, mode="bicubic", antialias=True)[0]
    return part.flip(2) if random.random() < 0.5 else part


def exposure_of(light: Tensor) -> float:
    """The exposure in stops that a photograph `[3, H, W]`, in linear light, should have had.

    Between the one that brings its mean to 0.48 and the one that brings its whites to 0.83: a street at night
    is dark but for its lamps. At most 2.2 stops up, and less for what is a night already.
    """
    small = F.adaptive_avg_pool2d(light, (24, 36))
    tried = srgb(compress(small * STOPS.exp2().view(-1, 1, 1, 1), CEILING))
    levels = (tried * LUMA).sum(1).flatten(1)
    means = levels.mean(1)
    whites = levels.kthvalue(round(WHITE_RANK * levels.shape[1]), 1).values
    stops = (1 - WHITE_SHARE) * _reach(means, MEAN) + WHITE_SHARE * _reach(whites, WHITE)
    # a photograph that looks right by its mean is kept about there
    stops = min(max(stops, min(_reach(means, LEAST_MEAN), 0.0)), _reach(means, LARGEST_MEAN))
    own = float(np.interp(0.0, STOPS.numpy(), means.numpy()))
    return min(stops, float(np.interp(own, (NIGHT[0], DUSK[0]), (NIGHT[1], DUSK[1]))))


def _shown(light: Tensor) -> Tensor:
    """Light `[3, H, W]` as a picture, its highlights rolled off."""
    return srgb(compress(light[None], CEILING)[0])


def _reach(levels: Tensor, level: float) -> float:
    """Where rising `levels` at STOPS reach `level`; the end of the range where they do not."""
    return float(np.interp(level, levels.numpy(), STOPS.numpy()))


def make_frame(photograph: Tensor, scenes: Scenes, random: np.random.Generator) -> Frame:
    """A frame of a photograph `[H, W, 3]` of uint8."""
    flat = bool(scenes.flat_share) and random.random() < scenes.flat_share
    if flat:
        # shadows as they are: around what is lifted a rim would remain, if a faint one
        light, lift = flat_scene(scenes.size, random), 0.0
        if scenes.flat_clean_share is not None:
            scenes = replace(scenes, clean_share=scenes.flat_clean_share)
    else:
        light = linear(window(photograph, scenes.size, random))
        lift = _shadow_stops(light, scenes)
    right = exposure_of(light)
    light = light * 2**right
    target = lift_shadows(_shown(light), lift, scenes.shadow_edge)
    kind = random.random()
    if kind < scenes.bright_share:
        # as its photographer left it, as we would have it, or between
        stops = -right * random.uniform(0, 1) + random.uniform(*scenes.bright_exposures)
        shown, aim = _uniform(light, target, stops, scenes)
        return _finish(shown, aim, False, scenes, random, lift)
    if kind < scenes.bright_share + scenes.over_share:
        stops = random.uniform(*scenes.over_exposures)
        return _finish(light * 2**stops, target, False, scenes, random)
    stops = random.uniform(*scenes.exposures)
    there = light
    if random.random() < scenes.range_share:
        there = _ranged(light, random.uniform(*scenes.ranges))
    # a flat scene is lit by one light: there is no glow beside its edges to undo, which leaves rims
    mixed, backlit = (0.0, 0.0) if flat else (scenes.mixed_share, scenes.backlit_share)
    how = random.random()
    if how < mixed:
        shown, target = _mixed(light, there, target, stops, scenes, random)
    elif how < mixed + scenes.curved_share:
        # deep shadows below highlights that stay
        shown = light.pow(random.uniform(*scenes.curves)) * 2 ** (stops * random.uniform(0, 0.35))
    elif how < mixed + scenes.curved_share + backlit:
        bright = _bright(target, scenes.light_edge, random)
        shown = there * (random.uniform(*scenes.backlit) * (1 - bright)).exp2()
    else:
        shown, aim = _uniform(light, target, stops, scenes, there)
        return _finish(shown, aim, True, scenes, random, lift)
    return _finish(shown, target, True, scenes, random)


def _shadow_stops(light: Tensor, scenes: Scenes) -> float:
    """What the shadows of a photograph `[3, H, W]`, in linear light, are lifted by."""
    if not scenes.shadow_lift:
        return 0.0
    own = float((srgb(light) * LUMA).sum(0).mean())
    return scenes.shadow_lift * float(np.interp(own, (NO_LIFT, LIFT), (0, 1)))


def lift_shadows(shown: Tensor, stops: float, edge: float | None = None) -> Tensor:
    """A picture `[3, H, W]` whose darkest neighbourhoods have so many stops more light.

    Args:
        edge: `shadow_edge` of `Scenes`.
    """
    if not stops:
        return shown
    levels = (shown * LUMA).sum(0, keepdim=True)
    # of about the same size both; cells of pixels are what lets the first one run over edges
    base = neighbourhoods(levels, 5, 0.004, 4) if edge is None else neighbourhoods(levels, 17, edge)
    dark = ((LIT - base) / (LIT - SHADOW)).clamp(0, 1)
    gains = (stops * dark * dark * (3 - 2 * dark)).exp2()
    return srgb((_decode(shown) * gains).clamp(max=1))


def neighbourhoods(levels: Tensor, side: int, edge: float, cell: int = 1) -> Tensor:
    """What a guided filter leaves of luma `[1, H, W]` (He and Sun, 2015): edges, and no detail between them.

    So detail keeps its contrast where a neighbourhood decides on the light. Beside a step of c what is left
    is off by some 2 `edge` / c, and by more within a cell of several pixels: that much of a rim remains.

    Args:
        side: Of a neighbourhood, in cells, odd.
        edge: The variance in a neighbourhood of which half is kept.
        cell: Side in pixels.
    """
    values = levels[None]
    small = F.avg_pool2d(values, cell)

    def mean(plane: Tensor) -> Tensor:
        for across in ((side, 1), (1, side)):
            padding = across[0] // 2, across[1] // 2
            plane = F.avg_pool2d(plane, across, 1, padding, count_include_pad=False)
        return plane

    centre = mean(small)
    slope = mean(small * small) - centre * centre
    slope = slope / (slope + edge)
    offset = mean(centre - slope * centre)
    slope, offset = (
        F.interpolate(plane, levels.shape[-2:], mode="bilinear") for plane in (mean(slope), offset)
    )
    return (slope * values + offset)[0]


def _ranged(light: Tensor, share: float) -> Tensor:
    """Light as it was before the photograph's tone curve rolled its highlights off: skies, lamps, windows."""
    return light / (1 - share * light.amax(0).clamp(max=1).square())


def _uniform(
    light: Tensor, target: Tensor, stops: float, scenes: Scenes, there: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Light and target of a frame of one exposure; none where it is to stay as it is.

    Args:
        target: Where it is lifted to.
        there: The light that was there, if more than the photograph shows.
    """
    shown = (light if there is None else there) * 2**stops
    nothing, full = scenes.lift
    lift = min((stops - nothing) / (full - nothing), 1.0)
    if lift <= 0:
        return compress(shown[None], 1.0, 0.8)[0], None
    return shown, target if lift == 1 else _shown(shown).lerp(target, lift)


def _mixed(
    light: Tensor, there: Tensor, target: Tensor, stops: float, scenes: Scenes, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Light and target of a frame that is lit in parts."""
    field = _field(target, scenes.light_edge, random)
    rise = -stops * random.uniform(0.4, 1.05)
    if random.random() < scenes.ground_share:
        # what light did not reach stays night: the ground of a lit subject, the street around a lamp
        target = _shown(light * (-random.uniform(0.5, 1.5) * (1 - field)).exp2())
    return there * (stops + rise * field).exp2(), target


def _field(target: Tensor, edge: float | None, random: np.random.Generator) -> Tensor:
    """Where a scene is lit, `[1, H, W]` from 0 to 1: by regions, by what is bright already, or by shapes."""
    kind = random.random()
    height, width = target.shape[-2:]
    if kind < 0.3:
        count = int(random.integers(2, 7))
        noise = torch.from_numpy(random.standard_normal((1, 1, count, count + 1), np.float32))
        noise = F.interpolate(noise, (height, width), mode="bicubic", align_corners=True)[0]
        return torch.sigmoid(noise * 2 ** random.uniform(1, 8))
    if kind < 0.75:
        return _bright(target, edge, random)
    down = torch.linspace(-1, 1, height)[:, None]
    across = torch.linspace(-1.5, 1.5, width)
    field = torch.zeros(1, height, width)
    for _ in range(int(random.integers(1, 4))):
        y, x = random.uniform(-0.9, 0.9), random.uniform(-1.4, 1.4)
        tall, wide = np.exp(random.uniform(math.log(0.06), math.log(0.8), 2))
        offsets = ((down - y) / tall).abs(), ((across - x) / wide).abs()
        # windows and doors, or lamps and people
        if random.random() < 0.5:
            distance = torch.maximum(*offsets)
        else:
            distance = (offsets[0].square() + offsets[1].square()).sqrt()
        field = torch.maximum(field, torch.sigmoid((1 - distance) * 2 ** random.uniform(1.5, 7)))
    return field


def _bright(target: Tensor, edge: float | None, random: np.random.Generator) -> Tensor:
    """Where a picture is bright, `[1, H, W]` from 0 to 1, by its pixels or by large parts.

    Args:
        edge: `light_edge` of `Scenes`.
    """
    height, width = target.shape[-2:]
    levels = (target * LUMA).sum(0, keepdim=True)
    coarse = 2 ** int(random.integers(0, 5))
    if edge is None:
        parts = F.adaptive_avg_pool2d(levels, (height // coarse, width // coarse))
        shown = F.interpolate(parts[None], (height, width), mode="bilinear", align_corners=False)[0]
    else:
        shown = parts = neighbourhoods(levels, 2 * coarse + 1, edge)
    rank = float(np.quantile(parts[:, ::2, ::2].numpy(), random.uniform(0.5, 0.97)))
    return torch.sigmoid((shown - rank) * 2 ** random.uniform(2, 6))


def _finish(
    light: Tensor,
    target: Tensor | None,
    dark: bool,
    scenes: Scenes,
    random: np.random.Generator,
    lift: float = 0.0,
) -> Frame:
    """What a camera makes of light.

    Args:
        target: None for the frame itself, free of noise and its shadows lifted.
        lift: By so many stops; of no other target.
    """
    if random.random() < scenes.lamp_share:
        # coloured light that belongs to the scene: a sunset, a lamp. It is not taken away
        gains = camera.cast(scenes.lamp, random)
        light = light * gains
        if target is not None:
            target = (_decode(target) * gains).clamp(0, 1)
            target = srgb(target)
    if target is not None and random.random() < scenes.cast_share:
        # a white balance that went wrong: it is
        light = light * camera.cast(scenes.cast, random)
    noisy = light
    if random.random() >= scenes.clean_share:
        noisy = camera.expose(light, scenes, random)
    tone = camera.draw_tone(dark, random)
    clean = camera.develop(light, tone)
    x = camera.store(camera.develop(noisy, tone), scenes, random)
    if target is None:
        target = lift_shadows(clean, lift, scenes.shadow_edge)
    else:
        target = _as_seen(target, float((clean * LUMA).sum(0).mean()), scenes)
    return Frame(x, target, clean)


def _as_seen(target: Tensor, mean: float, scenes: Scenes) -> Tensor:
    """The target of a frame of such a mean, its colours by what the dark leaves of them."""
    neutral = scenes.dark_neutral * float(np.interp(mean, BALANCED, (1, 0)))
    duller = (1 - scenes.dark_saturation) * float(np.interp(mean, DULLED, (1, 0)))
    if neutral:
        means = target.mean((1, 2), keepdim=True).clamp(min=1e-3)
        gains = (means.mean() / means) ** neutral
        target = (target * (gains * means.mean() / (gains * means).mean())).clamp(0, 1)
    if duller:
        target = torch.lerp(target, (target * LUMA).sum(0, keepdim=True), duller)
    return target


def _decode(values: Tensor) -> Tensor:
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055).pow(2.4))
