"""`Brighten` for the pipelines of albumentations, which comes with the extra of its name."""

from typing import Any

import numpy as np

from fastllie.api import Enhancer, Method

try:
    from albumentations import ImageOnlyTransform
except ImportError as error:
    raise ImportError(
        f'fastllie.transforms.albumentations needs an extra: pip install "fastllie[albumentations]" ({error})'
    ) from error


class Brighten(ImageOnlyTransform):
    """Brighten the image of a sample; its masks, boxes and key points stay as they are.

    Images are `(H, W, 3)`, uint8 or floats in [0, 1], RGB as albumentations wants them: it stands before
    `Normalize`. With `A.save`, `A.to_dict` and `A.ReplayCompose` it is its arguments, a method's options in
    `options`. Each worker of a loader loads the network itself.

    Args:
        method: One of `list_methods()`.
        weights: A variant's name or a path, as for `enhance`; None is the default variant.
        device: As for `enhance`.
        strength: As for `enhance`; or a range to draw from for each image, such as (0.3, 1).
        options: The method's own, such as `{"scale": 12}` for "zerodce++".
        p: How probable it is that an image is brightened.

    Raises:
        TypeError, ValueError, FileNotFoundError: as `enhance`.
    """

    class InitSchema(ImageOnlyTransform.InitSchema):
        method: str
        weights: str | None
        device: str | None
        strength: float | tuple[float, float]
        options: dict[str, Any] | None

    def __init__(
        self,
        method: Method = "dawn",
        weights: str | None = None,
        device: str | None = None,
        strength: float | tuple[float, float] = 1.0,
        options: dict[str, Any] | None = None,
        p: float = 1.0,
    ):
        super().__init__(p=p)
        self.method, self.weights, self.device = method, weights, device
        self.strength = tuple(strength) if isinstance(strength, (list, tuple)) else strength
        self.options = options
        bounds = self.strength if isinstance(self.strength, tuple) else (self.strength, self.strength)
        if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1] <= 1:
            raise ValueError(f"strength must be a number in [0, 1], or two of them in order, got {strength}")
        self._bounds = bounds
        # at full strength where it varies, and blended afterwards: an Enhancer has one strength
        full = bounds[1] if bounds[0] == bounds[1] else 1.0
        self._enhancer = Enhancer(method, weights=weights, device=device, strength=full, **(options or {}))

    def get_params(self) -> dict[str, Any]:
        """The strength for this image."""
        low, high = self._bounds
        return {"strength": low if low == high else self.py_random.uniform(low, high)}

    def apply(self, img: np.ndarray, strength: float, **params: Any) -> np.ndarray:
        """One image, brightened."""
        brighter = self._enhancer(np.ascontiguousarray(img))
        if self._bounds[0] == self._bounds[1]:
            return brighter
        mixed = img + np.float32(strength) * (brighter.astype(np.float32) - img)
        return np.floor(mixed + 0.5).astype(np.uint8) if img.dtype == np.uint8 else mixed.astype(img.dtype)

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """What it is made anew from."""
        return "method", "weights", "device", "strength", "options"
