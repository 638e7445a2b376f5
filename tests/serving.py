"""Which backends a test runs on, on which device, and which copy of fastllie a process of its own finds."""

from pathlib import Path

import pytest
import torch

import fastllie
from fastllie.ops import backend as backend_module

# A new process looks for modules in its working directory first: there the copy stands that is tested here
HOME = Path(fastllie.__file__).resolve().parents[1]


def on(backend):
    """The backend as a test parameter. Where there is a GPU, Triton runs on it and not in its interpreter."""
    gpu = backend == "cuda" or (backend == "triton" and torch.cuda.is_available())
    return pytest.param(backend, marks=pytest.mark.gpu) if gpu else backend


EVERY = [on(name) for name in ("cpu", "triton", "cuda", "torch")]


def device_of(backend):
    found = fastllie.backends()[backend]
    if not found:
        pytest.skip(found.detail)
    return (
        "cuda" if backend == "cuda" or (backend == "triton" and not backend_module.interpreting()) else "cpu"
    )
