"""The networks. Each takes and returns images `[B, 3, H, W]` in [0, 1]."""

from fastllie.models.zerodce import ZeroDCE, ZeroDCEPlusPlus

__all__ = ["ZeroDCE", "ZeroDCEPlusPlus"]
