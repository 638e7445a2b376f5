"""A name that stood here before `fastllie.training.data`, for programs that import it."""

from fastllie.training.data.collection import collect

__all__ = ["collect"]
