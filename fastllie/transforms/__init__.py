"""Brightening as a step of others' pipelines; that for albumentations is in the module of this name."""

from fastllie.transforms.brighten import Brighten

__all__ = ["Brighten"]
