"""Video through PyAV (the extra `video`): files in and out, frames for loops, steady light, less noise."""

from fastllie.video.containers import is_video, suffix_of_result, suffixes_among
from fastllie.video.conversion import VideoResult, enhance_video, frames
from fastllie.video.steady import Steady
from fastllie.video.temporal import TemporalFilter
from fastllie.video.writing import SUFFIXES

__all__ = [
    "SUFFIXES",
    "Steady",
    "TemporalFilter",
    "VideoResult",
    "enhance_video",
    "frames",
    "is_video",
    "suffix_of_result",
    "suffixes_among",
]
