"""Weights: found, recognised by content, converted; written in our layout or in the published one."""

from fastllie.checkpoint.file import METER, SUFFIXES, Checkpoint, level_tensor, parted, write
from fastllie.checkpoint.loading import build, export_official, find, from_state, methods_of, read

__all__ = [
    "METER",
    "SUFFIXES",
    "Checkpoint",
    "build",
    "export_official",
    "find",
    "from_state",
    "level_tensor",
    "methods_of",
    "parted",
    "read",
    "write",
]
