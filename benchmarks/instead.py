"""What people use instead of a network, each by its usual settings.

All take a float image `[H, W, 3]` in [0, 1] and give the same, rounded to 8 bits. OpenCV and SciPy are wanted
by these alone: pip install "fastllie[compare]".
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

GAMMA = 2.2
CLIP, CELLS = 2.0, (8, 8)  # of the contrast-limited histograms, as in OpenCV's tutorial
# LIME as in its paper, with the third kind of weights and the solver that its authors call sped-up
LIME_ALPHA, LIME_GAMMA = 0.15, 0.8
LIME_SIGMA, LIME_WINDOW = 2.0, 5
LIME_EPSILON = 1e-3
DARKEST = 1e-3  # illumination that is divided by


def opencv() -> ModuleType:
    """OpenCV, on one thread.

    Raises:
        ImportError: it is not installed; the message names the extra.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            f'CLAHE and histogram equalisation are OpenCV\'s: pip install "fastllie[compare]" ({error})'
        ) from error
    cv2.setNumThreads(1)
    return cv2


def _bytes(image: Array) -> NDArray[np.uint8]:
    return np.rint(image * 255).astype(np.uint8)


def gamma(image: Array) -> Array:
    """Every value to the power of 1 / 2.2."""
    return np.rint(image ** (1 / GAMMA) * 255) / 255


def clahe(image: Array) -> Array:
    """Contrast-limited adaptive histogram equalisation of the lightness of CIELAB."""
    cv2 = opencv()
    lab = cv2.cvtColor(_bytes(image), cv2.COLOR_RGB2LAB)
    lightness = cv2.createCLAHE(clipLimit=CLIP, tileGridSize=CELLS).apply(lab[..., 0])
    return cv2.cvtColor(np.dstack([lightness, lab[..., 1:]]), cv2.COLOR_LAB2RGB) / 255.0


def equalise(image: Array) -> Array:
    """Histogram equalisation of the luma of YCrCb."""
    cv2 = opencv()
    luma = cv2.cvtColor(_bytes(image), cv2.COLOR_RGB2YCrCb)
    luma[..., 0] = cv2.equalizeHist(np.ascontiguousarray(luma[..., 0]))
    return cv2.cvtColor(luma, cv2.COLOR_YCrCb2RGB) / 255.0


def lime(image: Array) -> Array:
    """LIME (Guo, Li and Ling, 2017) without the denoising that its paper adds at the end.

    The largest channel is the first guess of the illumination; smoothed where it has no edges, to the power
    of 0.8, the image is divided by it.
    """
    guess = image.max(-1)
    illumination = np.clip(_smoothed(guess), DARKEST, 1) ** LIME_GAMMA
    return np.rint(np.clip(image / illumination[..., None], 0, 1) * 255) / 255


def _smoothed(guess: Array) -> Array:
    """The t with the least |t - guess|^2 + alpha sum w (dt)^2 / (|d guess| + epsilon), in both directions."""
    try:
        from scipy.ndimage import correlate1d
        from scipy.sparse import diags_array
        from scipy.sparse.linalg import splu
    except ImportError as error:
        raise ImportError(f'LIME solves by SciPy: pip install "fastllie[compare]" ({error})') from error
    offsets = np.arange(LIME_WINDOW) - LIME_WINDOW // 2
    window = np.exp(-0.5 * (offsets / LIME_SIGMA) ** 2)
    window /= window.sum()
    width, size = guess.shape[1], guess.size
    links = []
    for axis in (1, 0):
        # to the next pixel; the last has none
        step = np.diff(guess, axis=axis, append=np.take(guess, [-1], axis))
        around = correlate1d(correlate1d(step, window, 0, mode="nearest"), window, 1, mode="nearest")
        link = LIME_ALPHA / ((np.abs(around) + LIME_EPSILON) * (np.abs(step) + LIME_EPSILON))
        link[(slice(None), -1) if axis == 1 else (-1, slice(None))] = 0
        links.append(link.ravel())
    across, down = links
    middle = 1 + across + down
    middle[1:] += across[:-1]
    middle[width:] += down[:-width]
    bands: list[Any] = [middle, -across[:-1], -across[:-1], -down[:-width], -down[:-width]]
    matrix = diags_array(bands, offsets=[0, 1, -1, width, -width], shape=(size, size), format="csc")
    # float32 takes half the time; what it leaves over goes through it once more
    factors = splu(
        matrix.astype(np.float32),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0,
        options={"SymmetricMode": True},
    )
    found, left = np.zeros(size), guess.ravel()
    for _ in range(2):
        found += factors.solve(left.astype(np.float32))
        left = guess.ravel() - matrix @ found
    return found.reshape(guess.shape)


#: the rows of the table of quality
INSTEAD: dict[str, Callable[[Array], Array]] = {
    "without a network: gamma 2.2": gamma,
    "without a network: CLAHE on L": clahe,
    "without a network: histogram equalisation": equalise,
    "without a network: LIME": lime,
}
