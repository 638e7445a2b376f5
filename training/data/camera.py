"""What a camera adds to the light of a scene: noise, a black level, a tone curve, 8 bits and JPEG."""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie.training.data.jpeg import code
from fastllie.training.data.synthesis import srgb
from fastllie.training.recipes import Scenes

# fitted to 6,555 public camera profiles: the variance of a signal x is a x + b, ln b = 1.24 ln a - 3.19 with
# a deviation of 1.07; a of red and of blue, after white balance, in units of green's
FLOOR_SLOPE, FLOOR_OFFSET, FLOOR_SPREAD = 1.24, -3.19, 1.07
NOISE_OF = (2.2, 1.0, 1.85)


class Tone(NamedTuple):
    """How a camera encodes light: sRGB, or a power where `gamma` is one; then contrast around the middle."""

    gamma: float | None
    contrast: float


def cast(deviation: float, random: np.random.Generator) -> Tensor:
    """Gains `[3, 1, 1]` of the colours, with a mean of one in stops."""
    stops = random.standard_normal(3) * deviation
    return torch.from_numpy(np.exp2(stops - stops.mean())).float().view(3, 1, 1)


def expose(light: Tensor, scenes: Scenes, random: np.random.Generator) -> Tensor:
    """Light `[3, H, W]` as a sensor measures it."""
    shot = math.exp(random.uniform(math.log(scenes.shot_noise[0]), math.log(scenes.shot_noise[1])))
    floor = math.exp(FLOOR_SLOPE * math.log(shot) + FLOOR_OFFSET + FLOOR_SPREAD * random.standard_normal())
    factors = torch.tensor([factor * math.exp(0.15 * random.standard_normal()) for factor in NOISE_OF])
    factors = factors.view(3, 1, 1)
    generator = torch.Generator().manual_seed(int(random.integers(2**62)))
    noise = _noise(light.shape, random, generator)
    noise.mul_((light * (shot * factors)).add_(floor * factors.square()).sqrt_())
    if random.random() < scenes.rows_share:
        rows = torch.randn(1, light.shape[1], 1, generator=generator)
        noise.add_(rows * factors * (math.sqrt(floor) * random.uniform(0.1, 0.5)))
    if random.random() < 0.5:
        # from the sensor's colours to sRGB's: each gets some of the others' noise
        noise = torch.einsum("oc,chw->ohw", _matrix(random), noise)
    black = scenes.black * random.uniform(0, 1) ** 2 * random.standard_normal(3)
    return noise.add_(light).add_(torch.from_numpy(black).float().view(3, 1, 1))


def _matrix(random: np.random.Generator) -> Tensor:
    others = -random.uniform(0, 0.45, (3, 3)) * (1 - np.eye(3))
    return torch.from_numpy(others + np.diag(1 - others.sum(1))).float()


def _noise(shape: torch.Size, random: np.random.Generator, generator: torch.Generator) -> Tensor:
    """Unit noise: white; blurred, as demosaicing leaves it; or with coarse colours, as denoising does."""
    noise = torch.randn(shape, generator=generator)
    kind = random.random()
    if kind < 0.5:
        return noise
    if kind < 0.8:
        sigma = random.uniform(0.35, 1.2)
        weights = torch.exp(-0.5 * (torch.arange(-2.0, 3.0) / sigma).square())
        weights = weights / weights.square().sum().sqrt()
        centre, near, far = weights[2:].tolist()
        for axis in (1, 2):
            # around the corner: noise has no border
            near_sum, far_sum = (noise.roll(n, axis).add_(noise.roll(-n, axis)) for n in (1, 2))
            noise = near_sum.mul_(near).add_(far_sum, alpha=far).add_(noise, alpha=centre)
        return noise
    scale = int(random.choice([2, 3, 4, 6]))
    height, width = shape[1:]
    coarse = torch.randn(1, 3, height // scale + 2, width // scale + 2, generator=generator)
    coarse = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0]
    coarse = coarse - 0.6 * coarse.mean(0)
    share = random.uniform(0.15, 0.9)
    return (noise + coarse * (share / coarse.std())) / math.hypot(1, share)


def draw_tone(dark: bool, random: np.random.Generator) -> Tone:
    """A tone curve: of well-exposed frames sRGB's own, or the network would have to undo the unknowable."""
    gamma = random.uniform(1.8, 2.6) if dark and random.random() < 0.3 else None
    contrast = random.uniform(-0.35, 0.7) if random.random() < 0.3 else 0.0
    return Tone(gamma, contrast)


def develop(light: Tensor, tone: Tone) -> Tensor:
    """Light, clamped to [0, 1], in the values of an image file."""
    values = srgb(light) if tone.gamma is None else light.clamp(1e-8, 1).pow_(1 / tone.gamma)
    if tone.contrast:
        values = values + tone.contrast * values * (1 - values) * (2 * values - 1)
    return values


def store(values: Tensor, scenes: Scenes, random: np.random.Generator) -> Tensor:
    """Values `[3, H, W]` after 8 bits, and in a share of the frames after JPEG."""
    levels = values.mul(255).round_()
    if random.random() < scenes.jpeg_share:
        lowest, highest = scenes.jpeg_quality
        levels = code(levels[None], torch.tensor([int(random.integers(lowest, highest + 1))]))[0]
    return levels.div_(255)
