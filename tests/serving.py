"""Which backends a test runs on, on which device, and which copy of fastllie a process of its own finds."""

from pathlib import Path

import pytest
import torch

import fastllie
from fastllie.ops import backend as backend_module

# A new process looks for modules in its working directory first: there the copy stands that is tested here
HOME = Path(fastllie.__file__).resolve().parents[1]


def on(backend):
    """The backend as a test parameter. Where there is no GPU, CUDA's kernels are emulated, and Triton's
    interpreted."""
    if torch.cuda.is_available():
        return pytest.param(backend, marks=pytest.mark.gpu) if backend in ("cuda", "triton") else backend
    return pytest.param(backend, marks=pytest.mark.emulated) if backend == "cuda" else backend


EVERY = [on(name) for name in ("cpu", "triton", "cuda", "torch")]


def device_of(backend):
    found = fastllie.backends()[backend]
    if not found:
        pytest.skip(found.detail)
    gpu = backend == "cuda" or (backend == "triton" and not backend_module.interpreting())
    return "cuda" if gpu and torch.cuda.is_available() else "cpu"
