"""The networks. Each takes and returns images `[B, 3, H, W]` in [0, 1]."""

from fastllie.models.dawn import Dawn
from fastllie.models.enlightengan import EnlightenGAN
from fastllie.models.metered import Metered
from fastllie.models.nerco import NeRCo
from fastllie.models.sci import SCI
from fastllie.models.zerodce import ZeroDCE, ZeroDCEPlusPlus

__all__ = ["SCI", "Dawn", "EnlightenGAN", "Metered", "NeRCo", "ZeroDCE", "ZeroDCEPlusPlus"]
