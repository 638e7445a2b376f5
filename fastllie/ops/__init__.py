"""The fused operators. Each is differentiable, on every device, in float64, float32, bfloat16 and float16."""

from fastllie.ops.backend import backends
from fastllie.ops.curve import apply_curve

__all__ = ["apply_curve", "backends"]
