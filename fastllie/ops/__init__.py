"""The fused operators, on every device, in float64, float32, bfloat16 and float16.

Each is differentiable but `enhance_sci`, which is a whole network for inference and takes uint8 as well.
"""

from fastllie.ops.backend import Backend, backends
from fastllie.ops.curve import apply_curve
from fastllie.ops.gridcurve import apply_grid_curve
from fastllie.ops.illumination import divide_illumination, illuminate
from fastllie.ops.sci import enhance_sci
from fastllie.ops.selftest import SelfTest, default_backend, self_test
from fastllie.ops.smoothness import smoothness_loss
from fastllie.ops.zero_reference import ZeroReferenceLosses, zero_reference_losses

__all__ = [
    "Backend",
    "SelfTest",
    "ZeroReferenceLosses",
    "apply_curve",
    "apply_grid_curve",
    "backends",
    "default_backend",
    "divide_illumination",
    "enhance_sci",
    "illuminate",
    "self_test",
    "smoothness_loss",
    "zero_reference_losses",
]
