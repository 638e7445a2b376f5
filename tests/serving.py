"""Which backends a test runs on, and on which device."""

import pytest
import torch

import fastllie
from fastllie.ops import backend as backend_module


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
