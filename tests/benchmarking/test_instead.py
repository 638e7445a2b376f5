"""What people use instead of a network: the rows of the table of quality that need no weights."""

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import refused

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "benchmarks" / "instead.py").exists():
    pytest.skip("benchmarks/ is not here", allow_module_level=True)
if str(ROOT / "benchmarks") not in sys.path:
    sys.path.insert(0, str(ROOT / "benchmarks"))

import instead  # noqa: E402


def dark(height: int = 24, width: int = 36) -> np.ndarray:
    image = np.random.default_rng(0).random((height, width, 3)) * np.linspace(0.02, 0.3, width)[:, None]
    return np.rint(image * 255) / 255


def test_gamma_is_a_power():
    image = dark()
    assert np.allclose(instead.gamma(image), image ** (1 / 2.2), atol=0.5 / 255 + 1e-9)


def smoothed_densely(guess: np.ndarray) -> np.ndarray:
    """The minimum by its normal equations, pixel by pixel."""
    height, width = guess.shape
    offsets = np.arange(-2, 3)
    gaussian = np.exp(-(offsets**2) / 8)
    gaussian /= gaussian.sum()
    matrix = np.eye(guess.size)
    for down, across in ((0, 1), (1, 0)):
        step = np.zeros_like(guess)
        step[: height - down, : width - across] = (
            guess[down:, across:] - guess[: height - down, : width - across]
        )
        padded = np.pad(step, 2, mode="edge")
        for y in range(height - down):
            for x in range(width - across):
                around = gaussian @ padded[y : y + 5, x : x + 5] @ gaussian
                weight = 0.15 / ((abs(around) + 1e-3) * (abs(step[y, x]) + 1e-3))
                link = np.zeros(guess.size)
                link[y * width + x], link[(y + down) * width + x + across] = -1, 1
                matrix += weight * np.outer(link, link)
    return np.linalg.solve(matrix, guess.ravel()).reshape(guess.shape)


def test_lime_smooths_the_largest_channel_as_its_equation_says():
    pytest.importorskip("scipy")
    guess = dark(9, 11).max(-1)
    assert np.allclose(instead._smoothed(guess), smoothed_densely(guess), atol=2e-5)


def test_lime_divides_by_the_illumination():
    pytest.importorskip("scipy")
    flat = np.full((12, 400, 3), (0.2, 0.1, 0.05))
    assert np.allclose(instead.lime(flat), flat / 0.2**0.8, atol=0.5 / 255 + 1e-5)
    # an edge stays one: hardly any light of its one side reaches the other
    flat[:, 200:] *= 4
    assert np.allclose(instead.lime(flat)[:, :200], flat[:, :200] / 0.2**0.8, atol=0.03)
    assert instead.lime(np.zeros((8, 8, 3))).max() == 0


def test_opencv_equalises_lightness_and_keeps_grey_grey():
    pytest.importorskip("cv2")
    for name in ("clahe", "equalise"):
        image = np.repeat(dark(64, 64).max(-1, keepdims=True), 3, -1)
        made = getattr(instead, name)(image)
        assert made.shape == image.shape
        assert np.ptp(made, axis=-1).max() <= 2 / 255
        assert made.std() > image.std()
    assert instead.equalise(image).max() == 1


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with refused(ImportError, "fastllie[compare]"):
        instead.clahe(dark())
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with refused(ImportError, "fastllie[compare]"):
        instead.lime(dark())
