"""LPIPS: distance of deep features, for whoever has the weights (Zhang et al. 2018)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from fastllie.metrics.planes import FilePath, pair_of

# of AlexNet in torchvision: layer, output channels, kernel, stride, padding, pooled before
_LAYERS = (
    (0, 64, 11, 4, 2, False),
    (3, 192, 5, 1, 2, True),
    (6, 384, 3, 1, 1, True),
    (8, 256, 3, 1, 1, False),
    (10, 256, 3, 1, 1, False),
)
_INPUTS = (3, 64, 192, 384, 256)
# of images in [-1, 1]
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
SMALLEST = 31  # pixels: a smaller side leaves nothing after the second pooling
HOW = (
    "LPIPS needs two files that fastllie does not ship: AlexNet's features (torchvision's"
    " alexnet-owt-7be5be79.pth, or its keys features.*) and the linear layers of LPIPS v0.1"
    " (lpips/weights/v0.1/alex.pth of github.com/richzhang/PerceptualSimilarity). Give both:"
    " lpips(..., weights=(FEATURES, LINEAR)), or `fastllie evaluate --lpips-weights FEATURES LINEAR`"
)


class LPIPS:
    """LPIPS v0.1 with AlexNet, its weights read once; call it as `lpips`.

    Args:
        features: AlexNet's convolutions, keys `features.{0,3,6,8,10}.{weight,bias}`; others are ignored.
        linear: The linear layers, keys `lin{0..4}.model.1.weight`. Both .pth, .pt or .safetensors.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read, a missing entry or one of another shape.
    """

    def __init__(self, features: FilePath, linear: FilePath):
        found, lines = _read(features), _read(linear)
        self._convolutions = []
        self._linear = []
        for place, (layer, channels, kernel, *_) in enumerate(_LAYERS):
            weight = _entry(
                found, f"features.{layer}.weight", (channels, _INPUTS[place], kernel, kernel), features
            )
            bias = _entry(found, f"features.{layer}.bias", (channels,), features)
            self._convolutions.append((weight, bias))
            self._linear.append(_entry(lines, f"lin{place}.model.1.weight", (1, channels, 1, 1), linear))

    def __call__(self, output: Any, reference: Any) -> Tensor:
        """Distance `[B]`, float64; 0 for equal images. Arguments and errors as for `lpips`."""
        x, y = (z.float() for z in pair_of(output, reference, "reference"))
        if min(x.shape[-2:]) < SMALLEST:
            raise ValueError(
                f"LPIPS wants at least {SMALLEST}x{SMALLEST} pixels;"
                f" the images have {x.shape[-1]}x{x.shape[-2]}"
            )
        with torch.no_grad():
            # image by image: the features of a batch of photographs would not fit
            return torch.stack([self._distance(a[None], b[None]) for a, b in zip(x, y, strict=True)])

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        shift, scale = (x.new_tensor(values)[:, None, None] for values in (_SHIFT, _SCALE))
        z = (2 * torch.cat([x, y]) - 1 - shift) / scale
        distance = x.new_zeros((), dtype=torch.float64)
        for (_, _, _, stride, padding, pooled), (weight, bias), linear in zip(
            _LAYERS, self._convolutions, self._linear, strict=True
        ):
            z = F.max_pool2d(z, 3, 2) if pooled else z
            z = F.relu(F.conv2d(z, weight.to(z.device), bias.to(z.device), stride, padding))
            a, b = (f / (f.square().sum(0, keepdim=True).sqrt() + 1e-10) for f in z)
            distance += ((a - b).square() * linear[0].to(z.device)).sum(0).mean()
        return distance


def lpips(output: Any, reference: Any, *, weights: LPIPS | tuple[FilePath, FilePath] | None = None) -> Tensor:
    """Learned perceptual image patch similarity, v0.1 with AlexNet, computed in float32; lower is nearer.

    Per layer: features normalised over the channels, squared differences weighted by the linear layer, the
    mean over the places; and their sum over the five layers.

    Args:
        output: An image or a batch, as `fastllie.enhance` takes it; at least 31x31 pixels.
        reference: The same number of images, of the same size.
        weights: The files of AlexNet's features and of the linear layers, or an `LPIPS` that has read them.

    Returns:
        float64 `[B]`, 0 for equal images.

    Raises:
        TypeError, ValueError, OSError: images that `fastllie.enhance` would refuse, different sizes, no
            weights, or weights that cannot be read or do not fit.
    """
    if weights is None:
        raise ValueError(HOW)
    return (weights if isinstance(weights, LPIPS) else LPIPS(*weights))(output, reference)


def _read(path: FilePath) -> Mapping[str, Any]:
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no such weight file: {os.fspath(path)!r}. {HOW}")
    try:
        if source.suffix.lower() == ".safetensors":
            return load_file(source)
        content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, safetensors and torch each raise their own kinds for damage
        first = str(error).strip().split("\n")[0]
        raise ValueError(f"{os.fspath(path)!r} is not a readable file of weights: {first}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{os.fspath(path)!r} holds a {type(content).__name__}; wanted names and tensors")
    return content


def _entry(found: Mapping[str, Any], key: str, shape: tuple[int, ...], path: FilePath) -> Tensor:
    value = found.get(key)
    if not isinstance(value, Tensor) or value.shape != shape:
        have = f"it has shape {tuple(value.shape)}" if isinstance(value, Tensor) else "it is not there"
        raise ValueError(f"{os.fspath(path)!r} does not fit LPIPS: wanted {key} of shape {shape}, {have}")
    return value.float()
