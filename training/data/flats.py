"""Scenes of flat tones with edges between them: any rim in their result is the network's own."""

import math

import numpy as np
import torch
from torch import Tensor

SHAPES = 5  # at most, before the ground
TONES = (0.01, 1.0)  # of light, log-uniform
TINT = 0.25  # deviation of the logarithm of a tinted tone's colours
EDGES = (0.2, 3.0)  # pixels that an edge's slope takes, log-uniform


def flat_scene(size: tuple[int, int], random: np.random.Generator) -> Tensor:
    """Half planes, boxes and discs, each of one tone, in linear light `[3, *size]` in [0, 1]."""
    height, width = size
    light = _tone(random).expand(3, height, width)
    down = torch.arange(height)[:, None] + 0.5
    across = torch.arange(width) + 0.5
    for _ in range(int(random.integers(1, SHAPES + 1))):
        y, x = down - random.uniform(0, height), across - random.uniform(0, width)
        tall, wide = (side * random.uniform(0.08, 0.6) for side in size)
        kind = int(random.integers(3))
        if kind == 0:
            angle = random.uniform(0, 2 * math.pi)
            inside = math.cos(angle) * y + math.sin(angle) * x
        elif kind == 1:
            inside = torch.minimum(tall - y.abs(), wide - x.abs())
        else:
            inside = tall - torch.hypot(y, x)
        soft = _log_uniform(EDGES, random)
        light = torch.lerp(light, _tone(random), torch.sigmoid(inside / soft)[None])
    return light


def _tone(random: np.random.Generator) -> Tensor:
    """Grey or tinted, `[3, 1, 1]`."""
    grey = _log_uniform(TONES, random)
    tint = TINT * random.standard_normal(3) if random.random() < 0.5 else np.zeros(3)
    return torch.from_numpy(grey * np.exp(tint)).float().clamp(max=1).view(3, 1, 1)


def _log_uniform(ends: tuple[float, float], random: np.random.Generator) -> float:
    return math.exp(random.uniform(math.log(ends[0]), math.log(ends[1])))
