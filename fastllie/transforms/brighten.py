"""`Brighten` as a module of PyTorch: for torchvision's pipelines, `nn.Sequential`, loaders with workers."""

import sys
from collections.abc import Iterator, MutableMapping
from copy import copy
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from fastllie.api import Enhancer, Method
from fastllie.inference.loading import Device, Weights


class Brighten(nn.Module):
    """Brighten the images of a sample, and leave all else in it as it is.

    A sample is an image, or dictionaries, lists and tuples with images in them, as transforms of torchvision
    v2 take them, in one argument or several. Images are PIL images, `tv_tensors.Image` and `tv_tensors.Video`
    `[..., 3, H, W]`; in a sample without any of these the first plain tensor is the image. Boxes, masks, key
    points, labels and further plain tensors come back as they were, the same objects. Values are as for
    `enhance`: bytes, or floats in [0, 1], so it stands before `v2.Normalize`. Nothing is differentiated.

    Has no parameters: the network is shared, and computes where the image is. Pickled it is its arguments, so
    that each worker of a loader loads the network itself. Needs no torchvision.

    Args:
        method: One of `list_methods()`.
        weights, device, dtype, strength, **options: As for `enhance`.
        skip_bright: As for `Enhancer`.

    Raises:
        TypeError, ValueError, FileNotFoundError: as `enhance`; TypeError too for a sample without an image.
    """

    def __init__(
        self,
        method: Method = "dawn",
        *,
        weights: Weights = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
        strength: float = 1.0,
        skip_bright: float | None = None,
        **options: Any,
    ):
        super().__init__()
        self.enhancer = Enhancer(
            method,
            weights=weights,
            device=device,
            dtype=dtype,
            strength=strength,
            skip_bright=skip_bright,
            **options,
        )

    def extra_repr(self) -> str:
        return repr(self.enhancer)

    def forward(self, *sample: Any) -> Any:
        """The sample with its images brightened; of several arguments a tuple."""
        leaves = list(_leaves(sample))
        chosen = {id(leaf) for leaf in leaves if isinstance(leaf, Image.Image) or _kind(leaf) == "image"}
        if not chosen:
            plain = next((leaf for leaf in leaves if _kind(leaf) == "plain"), None)
            if plain is None:
                kinds = ", ".join(dict.fromkeys(type(leaf).__name__ for leaf in leaves)) or "nothing"
                raise TypeError(f"Brighten found no image (PIL image, tensor or tv_tensor) in: {kinds}")
            chosen = {id(plain)}
        result = self._replaced(sample, chosen)
        return result if len(sample) > 1 else result[0]

    def _replaced(self, part: Any, chosen: set[int]) -> Any:
        if id(part) in chosen:
            return self._brightened(part)
        if isinstance(part, MutableMapping):
            # a copy: a defaultdict and its like are made from more than their items
            replaced = copy(part)
            replaced.update({key: self._replaced(value, chosen) for key, value in part.items()})
            return replaced
        if isinstance(part, (list, tuple)):
            values = [self._replaced(value, chosen) for value in part]
            # a named tuple takes its fields one by one
            return type(part)(*values) if hasattr(part, "_fields") else type(part)(values)
        return part

    def _brightened(self, image: Any) -> Any:
        if not isinstance(image, Tensor):
            return self.enhancer(image)
        pixels = image.as_subclass(Tensor)
        frames = pixels if pixels.dim() <= 4 else pixels.flatten(0, -4)
        result = self.enhancer(frames).reshape(pixels.shape)
        return result if type(image) is Tensor else _tv_tensors().wrap(result, like=image)


def _leaves(part: Any) -> Iterator[Any]:
    if isinstance(part, MutableMapping):
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for value in part:
            yield from _leaves(value)
    else:
        yield part


def _tv_tensors() -> Any:
    """torchvision's kinds of tensors, where somebody has imported them: else no tensor is of their kind."""
    return sys.modules.get("torchvision.tv_tensors")


def _kind(leaf: Any) -> str:
    """ "image" of torchvision, "plain" tensor, or "other"."""
    if type(leaf) in (Tensor, nn.Parameter):
        return "plain"
    kinds = _tv_tensors()
    if kinds is not None and isinstance(leaf, (kinds.Image, kinds.Video)):
        return "image"
    return "other"
