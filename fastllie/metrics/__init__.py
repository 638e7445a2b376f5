"""Image quality, each value with the protocol that it holds for: `METRICS`, and docs/metrics.md.

Every function takes images of the kinds that `fastllie.enhance` takes (tensors in [0, 1] or uint8, arrays,
PIL images, paths), one or a batch, on any device, and gives one value an image: float64 `[B]`, `[1]` for a
single image, so that `float(psnr(a, b))` is a number. Nothing is rounded unless the label says so, and there
are no gradients.
"""

from fastllie.metrics.change import hue_shift, loe, new_clipping, rise
from fastllie.metrics.content import de, eme
from fastllie.metrics.fidelity import psnr, psnr_scaled, ssim
from fastllie.metrics.naturalness import NIQEModel, fit_niqe_model, niqe, niqe_features, read_niqe_model
from fastllie.metrics.perceptual import LPIPS, lpips
from fastllie.metrics.table import METRICS, Metric, choose

# what these were called before
Pristine, fit_pristine, pristine_features, read_pristine = (
    NIQEModel,
    fit_niqe_model,
    niqe_features,
    read_niqe_model,
)

__all__ = [
    "LPIPS",
    "METRICS",
    "Metric",
    "NIQEModel",
    "Pristine",
    "choose",
    "de",
    "eme",
    "fit_niqe_model",
    "fit_pristine",
    "hue_shift",
    "loe",
    "lpips",
    "new_clipping",
    "niqe",
    "niqe_features",
    "pristine_features",
    "psnr",
    "psnr_scaled",
    "read_niqe_model",
    "read_pristine",
    "rise",
    "ssim",
]
