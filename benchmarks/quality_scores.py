"""What benchmarks/quality.py measures of images: border, noise, halos, colour, shadows.

docs/quality.md says what each figure is. Images are float64 `[H, W, 3]` in [0, 1]; what enhances them rounds
its results to 8 bits. Levels are those of 255.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from fastllie.defaults import LUMA
from fastllie.metrics.planes import cielab

Array = NDArray[np.float64]
Enhance = Callable[[Array], Array]

# grey before grey, as a figure before the sky is, a room before its window, and a street below a lamp
EDGE_LEVELS = ((0.04, 0.5), (0.08, 0.7), (0.15, 0.9))
EDGE_RISES = (1, 6)  # pixels that it takes from one to the other
EDGE_SIZE = (256, 384)
EDGE_MARGIN = 32  # along the border, which `frame` measures
EDGE_LEAST = 32  # pixels at one distance from the edge
BACKLIT_DARK, BACKLIT_BRIGHT = (0.01, 0.1), 0.6


def planes(image: Array) -> torch.Tensor:
    """The image as the metrics take a tensor."""
    return torch.from_numpy(image).permute(2, 0, 1)


def luma(image: Array) -> Array:
    """BT.601, `[H, W]` in [0, 1]."""
    return image @ np.array(LUMA)


def frame(enhance: Enhance, image: Array, margin: int = 7) -> float:
    """What the border does: mean |output - output with more picture around| in the outer ring, in levels.

    The same window is enhanced twice: cut out, and inside a larger one, where its edge is no border.
    """
    height, width = image.shape[:2]
    inner = np.s_[4 * margin : height - 4 * margin, 4 * margin : width - 4 * margin]
    difference = np.abs(enhance(image[inner]) - enhance(image)[inner]).mean(-1)
    ring = np.ones(difference.shape, bool)
    ring[margin:-margin, margin:-margin] = False
    return float(255 * difference[ring].mean())


def frame_flat(enhance: Enhance, size: int = 240) -> float:
    """Largest deviation in levels that the border makes on flat grey pictures, where there should be none."""
    deviations = []
    for level in (13, 64, 128):
        output = enhance(np.full((size, size, 3), level / 255)).mean(-1)
        deviations.append(np.abs(output - output[size // 2, size // 2]).max())
    return float(255 * np.mean(deviations))


def noise_flat(enhance: Enhance) -> float:
    """Standard deviation in levels that dark flat patches come out with, each brought to the same brightness.

    Grey 4 to 24 levels of 255 with noise of 1.5 levels; the output is scaled to a mean of 0.4, so that a
    darker rendering does not count as a cleaner one.
    """
    generator = np.random.default_rng(0)
    scores = []
    for level in (4, 8, 16, 24):
        patch = np.clip(np.rint(level + generator.normal(0, 1.5, (96, 96, 3))), 0, 255) / 255
        output = enhance(patch)
        scores.append(255 * 0.4 * output.std((0, 1)).mean() / output.mean())
    return float(np.mean(scores))


def noise_real(output: Array, target: Array) -> float:
    """Fine-grained deviation where the clean picture is flat, in percent of the output's brightness there.

    Flat: the 5 % of the 8x8 blocks in which the clean picture varies least. The mean plane of each block is
    removed by differencing neighbours, so shading does not count as noise.
    """
    height, width = (size // 8 * 8 for size in target.shape[:2])

    def blocks(image: Array) -> Array:
        grey = image[:height, :width].mean(-1).reshape(height // 8, 8, width // 8, 8)
        return grey.transpose(0, 2, 1, 3).reshape(-1, 8, 8)

    clean, noisy = blocks(target), blocks(output)
    flat = np.argsort(clean.std((1, 2)))[: max(1, len(clean) // 20)]
    fine = np.diff(np.diff(noisy[flat], axis=1), axis=2) / 2
    return float(100 * fine.std((1, 2)).mean() / max(noisy[flat].mean(), 1e-6))


def edges() -> Iterator[tuple[Array, Array]]:
    """Grey pictures of one strong edge, and how far each pixel lies on its bright side, in pixels, `[H, W]`.

    A third of the picture is dark before a bright ground, or bright before a dark one: a bar, a corner cut
    off diagonally, a disc.
    """
    height, width = EDGE_SIZE
    y, x = np.mgrid[:height, :width] + 0.5
    bar = x - width / 3
    corner = (x + y - math.sqrt(2 / 3 * height * width)) / math.sqrt(2)
    disc = np.hypot(x - width / 2, y - height / 2) - math.sqrt(height * width / 3 / math.pi)
    for shape in (bar, corner, disc):
        for distance in (shape, -shape):
            for dark, bright in EDGE_LEVELS:
                for rise in EDGE_RISES:
                    grey = dark + (bright - dark) * np.clip(0.5 + distance / rise, 0, 1)
                    yield np.repeat(np.rint(255 * grey)[..., None] / 255, 3, -1), distance


def reversal(output: Array, distance: Array) -> float:
    """How far luma falls, at most, on the way from the dark to the bright side of an edge, in levels.

    Luma is averaged along the edge, at each whole distance from it.
    """
    inner = np.s_[EDGE_MARGIN:-EDGE_MARGIN, EDGE_MARGIN:-EDGE_MARGIN]
    place = np.floor(distance[inner]).astype(int)
    place -= place.min()
    count = np.bincount(place.ravel())
    total = np.bincount(place.ravel(), luma(output)[inner].ravel())
    often = count >= EDGE_LEAST
    profile = total[often] / count[often]
    return float(255 * (np.maximum.accumulate(profile) - profile).max())


def halo(enhance: Enhance) -> float:
    """Mean over `edges` of the reversal, in levels: 0 where luma never turns back on its way."""
    return float(np.mean([reversal(enhance(image), distance) for image, distance in edges()]))


def mean_chroma(image: Array) -> float:
    """Mean chroma, of CIELAB."""
    _, a, b = cielab(planes(image)[None]).unbind(1)
    return float(torch.hypot(a, b).mean())


def darkest_third(image: Array) -> NDArray[np.bool_]:
    """The third of the pixels with the least luma, `[H, W]`."""
    grey = luma(image)
    found = np.zeros(grey.size, bool)
    # stable: the same pixels on every machine
    found[np.argsort(grey, axis=None, kind="stable")[: grey.size // 3]] = True
    return found.reshape(grey.shape)


def backlit(image: Array) -> bool:
    """Whether a picture has both: shadows, by its darkest third, and light, by its brightest tenth.

    Below a hundredth the third is the camera's black, and its factor would be that of rounding.
    """
    grey = luma(image)
    dark = grey[darkest_third(image)].mean()
    bright = np.sort(grey, axis=None)[-(grey.size // 10) :].mean()
    return bool(BACKLIT_DARK[0] < dark < BACKLIT_DARK[1] and bright > BACKLIT_BRIGHT)


def shadow_lift(output: Array, image: Array) -> float:
    """The factor by which the mean luma of the image's darkest third rises."""
    shadows = darkest_third(image)
    return float(luma(output)[shadows].mean() / luma(image)[shadows].mean())
