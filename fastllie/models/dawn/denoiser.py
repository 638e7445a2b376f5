"""What `dawn` does about noise before anything is brightened: weights on the bands of a pyramid."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastllie.defaults import LUMA
from fastllie.models.dawn.brain import CHROMA, NOISES, noise_facts

LEVELS = 4  # of the pyramid; the last mean is at a sixteenth of the size
MULTIPLE = 2**LEVELS
WIDTH = 12  # channels of the networks
_TO_YCC = (LUMA, CHROMA[1], CHROMA[0])
# its inverse
_TO_RGB = (
    (1.000000000, -0.000036820, 1.401987577),
    (1.000000000, -0.344113281, -0.714103821),
    (1.000000000, 1.771978117, -0.000134583),
)
_SLOPE = 0.1  # of the leaky rectifiers
_LARGEST = 4.0  # a coefficient this many times the noise is no noise, however large it is
_LEAST_NOISE = 0.004  # in v: added to the measured one


def reduce(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels."""
    return F.avg_pool2d(x, 2)


def enlarge(x: Tensor) -> Tensor:
    """Twice as large, linear between the middles of pixels."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Conv(nn.Module):
    """A 3 x 3 convolution of a picture continued by its border."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """With a bias `[B, outputs]` of each image's own."""
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), self.weight) + bias[..., None, None]


class Level(nn.Module):
    """Weights in (0, 1) for the coefficients of one band, or of two for the finest network.

    Args:
        inputs: Planes of magnitudes and of the picture below.
        outputs: Weights a pixel.
        coarser: Whether it gets what the level below has found.
    """

    def __init__(self, inputs: int, outputs: int, coarser: bool):
        super().__init__()
        self.first = Conv(inputs, WIDTH)
        self.below = nn.Conv2d(WIDTH, WIDTH, 1, bias=False) if coarser else None
        self.second = Conv(WIDTH, WIDTH)
        self.last = Conv(WIDTH, outputs)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, found: Tensor | None, biases: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The weights, and what was found for the level above; computed in the type of the parameters."""
        h = self.first(x.to(self.last.weight.dtype), biases[0])
        if self.below is not None and found is not None:
            h = h + F.interpolate(self.below(found), scale_factor=2, mode="nearest")
        h = F.leaky_relu(h, _SLOPE)
        h = h + F.leaky_relu(self.second(h, biases[1]), _SLOPE)
        return torch.sigmoid(self.last(h, biases[2])), h


class Denoiser(nn.Module):
    """Weights on the bands of a pyramid of luma and chroma: with all weights one the picture itself.

    Works in the scale v = x / (x + mean) of any exposure. The finest two bands share a network at half size.
    """

    def __init__(self) -> None:
        super().__init__()
        # at half size the magnitudes of its band and of the finest, and the picture; below, of its own
        self.levels = nn.ModuleList(
            [Level(9, 6, True), *(Level(6, 3, level < LEVELS - 1) for level in range(2, LEVELS))]
        )
        self._biases = [(WIDTH, WIDTH, 6 if level == 1 else 3) for level in range(1, LEVELS)]
        self.noise1 = nn.Linear(NOISES, 32)
        self.noise2 = nn.Linear(32, sum(map(sum, self._biases)))
        self.gains = nn.Parameter(torch.zeros(LEVELS, 3))
        with torch.no_grad():
            self.noise2.weight.mul_(0.1)
            self.noise2.bias.zero_()
            # weights begin near one
            for last in self._split(self.noise2.bias):
                last[2].fill_(2.0)

    def forward(self, v: Tensor, noise: Tensor, amount: float = 1.0) -> Tensor:
        """Pictures `[B, 3, H, W]` in v without their noise; H and W multiples of 16.

        Args:
            noise: Of the whole pictures, `[B, 6]`, see `noise_levels`.
            amount: From 0, nothing is done, to 1.
        """
        gains, biases = self.settings(noise)
        bands, means = [], [_mix(v, _TO_YCC)]
        for _ in range(LEVELS):
            means.append(reduce(means[-1]))
            bands.append(means[-2] - enlarge(means[-1]))
        out, found, finest = means[-1], None, None
        for level in reversed(range(1, LEVELS)):
            parts = [_magnitude(bands[level], gains[:, level]), means[level]]
            if level == 1:
                parts.append(reduce(_magnitude(bands[0], gains[:, 0])))
            weights, found = self.levels[level - 1](torch.cat(parts, 1), found, biases[level - 1])
            weights = 1 - amount * (1 - weights.to(v.dtype))
            out = enlarge(out) + weights[:, :3] * bands[level]
            if level == 1:
                finest = enlarge(weights[:, 3:])
        assert finest is not None
        return _mix(enlarge(out) + finest * bands[0], _TO_RGB)

    def settings(self, noise: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        """What the noise decides: gains of the magnitudes `[B, 4, 3]`, and biases of the convolutions."""
        noise = noise.to(self.noise2.weight.dtype)
        # expected deviations fall with the size of a pixel: the finest two are measured
        measured = torch.stack([noise[:, :3], noise[:, 3:], noise[:, 3:], noise[:, 3:]], 1)
        gains = self.gains.exp() / (measured + _LEAST_NOISE)
        return gains, self._split(self.noise2(F.relu(self.noise1(noise_facts(noise)))))

    def _split(self, biases: Tensor) -> list[list[Tensor]]:
        found, start = [], 0
        for sizes in self._biases:
            parts = []
            for size in sizes:
                parts.append(biases[..., start : start + size])
                start += size
            found.append(parts)
        return found


def _magnitude(band: Tensor, gain: Tensor) -> Tensor:
    return (band.abs() * gain[..., None, None]).clamp(max=_LARGEST)


def _mix(x: Tensor, rows: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.cat([x[:, :1] * a + x[:, 1:2] * b + x[:, 2:] * c for a, b, c in rows], 1)
