"""NIQE: how far the statistics of an image are from those of pristine photographs (Mittal et al. 2013)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fastllie.metrics.fidelity import gaussian_window
from fastllie.metrics.planes import FilePath, batch_of, grey_levels, in_colour

BLOCK = 96  # pixels; 48 at the second scale
FEATURES = 36  # 18 at each of two scales
RADIUS, SIGMA = 3, 7 / 6  # of the window that normalises: 7x7
SHARPEST = 0.75  # of the sharpest block of its photograph: what a pristine model is fitted on
LUMAS = ("grey", "y")
SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "niqe.safetensors"
SHIPPED_NAME = "fastllie"
_NOISE = 1e-9
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
_LEAST_SHAPE, _SHAPES = 0.2, 9801  # the fit looks at 0.2, 0.201, ..., 10


@dataclass(frozen=True)
class NIQEModel:
    """The Gaussian of the features of pristine photographs; values of NIQE compare only under the same one.

    Attributes:
        name: What labels call it.
        mean: float64 `[36]`.
        covariance: float64 `[36, 36]`.
    """

    name: str
    mean: Tensor
    covariance: Tensor


def read_niqe_model(path: FilePath | None = None) -> NIQEModel:
    """Read a pristine model; None is the one that ships, fitted on freely licensed photographs.

    Args:
        path: A .safetensors of `fastllie.training.niqe_model` (`mean`, `covariance`), or an .npz with
            `mu_pris_param` (1, 36) and `cov_pris_param` (36, 36), as the published model is handed around.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another kind, without these entries, or with other shapes.
    """
    source = SHIPPED if path is None else Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no such pristine model for NIQE: {os.fspath(source)!r}")
    suffix = source.suffix.lower()
    if suffix not in (".npz", ".safetensors"):
        raise ValueError(f"the pristine model {os.fspath(source)!r}: wanted an .npz or a .safetensors")
    names = ("mean", "covariance") if suffix == ".safetensors" else ("mu_pris_param", "cov_pris_param")
    try:
        mean, covariance = _tensors(source, suffix, names)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ValueError(
            f"{os.fspath(source)!r} holds no pristine model for NIQE ({' and '.join(names)}): {error}"
        ) from error
    if mean.numel() != FEATURES or covariance.shape != (FEATURES, FEATURES):
        raise ValueError(
            f"the pristine model {os.fspath(source)!r} has a mean of {tuple(mean.shape)} and a covariance"
            f" of {tuple(covariance.shape)}; wanted {FEATURES} and {FEATURES}x{FEATURES}"
        )
    return NIQEModel(SHIPPED_NAME if path is None else source.name, mean.reshape(FEATURES), covariance)


def _tensors(source: Path, suffix: str, names: tuple[str, str]) -> list[Tensor]:
    if suffix == ".safetensors":
        with safe_open(source, "pt") as file:
            return [file.get_tensor(name).double() for name in names]
    with np.load(source, allow_pickle=False) as content:
        return [torch.from_numpy(content[name].astype(np.float64)) for name in names]


@lru_cache(maxsize=1)
def _shipped() -> NIQEModel:
    return read_niqe_model()


def niqe(image: Any, *, model: NIQEModel | FilePath | None = None, luma: str = "grey") -> Tensor:
    """Natural image quality evaluator: distance of an image's statistics to a pristine model, in no unit.

    sqrt(d' ((C1 + C2) / 2)⁻¹ d), d the difference of the mean features, C1 and C2 the covariances of the
    model and of the image's whole 96x96 blocks (pixels right and below of them are left out). The features
    are those of the published code: generalised Gaussians fitted to the normalised luma and to the products
    of its neighbours, at full and at half size (bicubic, antialiased). Lower is better.

    Values depend on the pristine model, so only those of one model compare; and the model that ships is not
    the published one.

    Args:
        image: An image or a batch, as `fastllie.enhance` takes it; at least two blocks that are not flat.
        model: A pristine model, a path (see `read_niqe_model`), or None for the one that ships.
        luma: "grey", BT.601 in 0..255 as the authors' MATLAB code; "y", BT.601 in 16..235 as BasicSR and its
            kin. Both are rounded to whole levels.

    Returns:
        float64 `[B]`.

    Raises:
        TypeError, ValueError, OSError: images that `fastllie.enhance` would refuse, without two blocks to
            measure, a model that cannot be read, or another `luma`.
    """
    if luma not in LUMAS:
        raise ValueError(f"luma must be one of {', '.join(LUMAS)}, got {luma!r}")
    if not isinstance(model, NIQEModel):
        model = _shipped() if model is None else read_niqe_model(model)
    x = batch_of(image)
    levels = grey_levels(x) if luma == "grey" else (in_colour(x, "y")[:, 0] * 255).round()
    return torch.stack([_distance(block_features(plane)[0], model) for plane in levels])


def _distance(features: Tensor, model: NIQEModel) -> Tensor:
    mean, covariance = _gaussian(features, "the image")
    difference = mean - model.mean.to(mean.device)
    inverse = torch.linalg.pinv((covariance + model.covariance.to(mean.device)) / 2, hermitian=True)
    return (difference @ inverse @ difference).clamp_min(0).sqrt()


def fit_niqe_model(features: Sequence[Tensor], name: str) -> NIQEModel:
    """The pristine model of blocks, `[N, 36]` each, as `niqe_features` finds them in photographs.

    Raises:
        ValueError: fewer than two blocks.
    """
    mean, covariance = _gaussian(torch.cat(list(features)), "the photographs")
    return NIQEModel(name, mean, covariance)


def _gaussian(features: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Mean and covariance of `[N, 36]`; where a flat block has no fit it has NaN, which is left out."""
    whole = features[~features.isnan().any(1)]
    if len(whole) < 2:
        raise ValueError(
            f"NIQE wants two blocks of {BLOCK}x{BLOCK} pixels that are not flat;"
            f" {what} had {len(features)} blocks, {len(whole)} of them not flat"
        )
    return features.nanmean(0), whole.T.cov()


def niqe_features(image: Any) -> Tensor:
    """Features `[N, 36]` of the blocks of one photograph that are sharper than 0.75 of its sharpest.

    Raises:
        TypeError, ValueError, OSError: as `niqe`, and for a batch.
    """
    x = batch_of(image)
    if len(x) != 1:
        raise ValueError(f"wanted one photograph, got {len(x)}")
    features, sharpness = block_features(grey_levels(x)[0])
    return features[sharpness > SHARPEST * sharpness.max()]


def block_features(levels: Tensor) -> tuple[Tensor, Tensor]:
    """The 36 features of each whole block, row by row, and its sharpness (the mean local deviation).

    Args:
        levels: Luma `[H, W]` in 0..255, float64.

    Raises:
        ValueError: less than one block.
    """
    height, width = (size // BLOCK * BLOCK for size in levels.shape)
    if not height or not width:
        raise ValueError(
            f"NIQE has blocks of {BLOCK}x{BLOCK} pixels; the image has {levels.shape[1]}x{levels.shape[0]}"
        )
    plane = levels[:height, :width]
    normal, deviation = _normalised(plane)
    small, _ = _normalised(_halved(plane))
    features = torch.cat([_features(_blocks(normal, BLOCK)), _features(_blocks(small, BLOCK // 2))], dim=1)
    return features, _blocks(deviation, BLOCK).mean((1, 2))


def _blocks(plane: Tensor, size: int) -> Tensor:
    return plane.unfold(0, size, size).unfold(1, size, size).reshape(-1, size, size)


def _normalised(plane: Tensor) -> tuple[Tensor, Tensor]:
    """(I - mean) / (deviation + 1) in a Gaussian window, the border repeated; the deviation (eqs. 1-3)."""
    framed = F.pad(plane[None, None], (RADIUS,) * 4, mode="replicate")[0, 0]
    mean, square = gaussian_window(torch.stack([framed, framed * framed]), RADIUS, SIGMA)
    deviation = (square - mean * mean).abs().sqrt()
    normal = (plane - mean) / (deviation + 1)
    # 1e-4 is the least that one level makes in a flat place; what is below is the noise of the sums
    return torch.where(normal.abs() < _NOISE, 0.0, normal), deviation


def _halved(plane: Tensor) -> Tensor:
    """Half the size, as MATLAB's imresize does it: a bicubic kernel twice as wide, the border mirrored."""
    distance = [abs(k - 3.5) / 2 for k in range(8)]
    taps = [1.5 * d**3 - 2.5 * d**2 + 1 if d <= 1 else -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 for d in distance]
    for dim in (0, 1):
        size = plane.shape[dim]
        framed = torch.cat(
            [plane.narrow(dim, 0, 3).flip(dim), plane, plane.narrow(dim, size - 3, 3).flip(dim)], dim
        )
        windows = framed.unfold(dim, 8, 2)
        plane = windows @ windows.new_tensor(taps) / sum(taps)
    return plane


def _features(blocks: Tensor) -> Tensor:
    """The 18 features of each block `[N, S, S]`, `[N, 18]`: the shape of the luma, and of four products."""
    shape, left, right = _asymmetric_gaussian(blocks)
    found = [shape, (left + right) / 2]
    for shift in _NEIGHBOURS:
        shape, left, right = _asymmetric_gaussian(blocks * blocks.roll(shift, (1, 2)))
        mean = (right - left) * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()
        found += [shape, mean, left, right]
    return torch.stack(found, dim=1)


def _asymmetric_gaussian(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An asymmetric generalised Gaussian by its moments: shape, left and right scale, `[N]` each (eq. 7)."""
    square = values.square()
    left, right = (
        (torch.where(side, square, 0.0).sum((1, 2)) / side.sum((1, 2))).sqrt()
        for side in (values < 0, values > 0)
    )
    skew = left / right
    ratio = values.abs().mean((1, 2)).square() / square.mean((1, 2))
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1).square()
    shapes = _LEAST_SHAPE + 0.001 * torch.arange(_SHAPES, dtype=values.dtype, device=values.device)
    log_gamma = [torch.lgamma(k / shapes) for k in (1, 2, 3)]
    table = (2 * log_gamma[1] - log_gamma[0] - log_gamma[2]).exp()
    above = torch.searchsorted(table, ratio).clamp(1, _SHAPES - 1)
    nearer = (ratio - table[above - 1]).abs() <= (table[above] - ratio).abs()
    # without values on one side there is no ratio: the published code then takes the first shape
    shape = torch.where(ratio.isnan(), shapes[0], shapes[torch.where(nearer, above - 1, above)])
    scale = ((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2).exp()
    return shape, left * scale, right * scale
