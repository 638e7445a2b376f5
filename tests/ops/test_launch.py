"""Every backend's kernels are called with the same arguments, also where no machine here can call them."""

import inspect
import re

import pytest
from serving import on

from fastllie import _native

OPERATORS = ("curve", "illumination", "sci", "smoothness", "zero_reference", "zerodce")
PLACES = {"cpu": 1, "cuda": 2}  # threads; a device and a stream


@pytest.mark.parametrize("backend", [on(name) for name in PLACES])
@pytest.mark.parametrize("operator", OPERATORS)
def test_triton_takes_what_native_code_takes(operator, backend):
    pytest.importorskip("triton")
    module = getattr(_native, backend)
    if module is None:
        pytest.skip(_native.reasons[backend])
    if (operator, backend) == ("zerodce", "cpu"):
        pytest.skip("weights are packed for the CPU in another way")
    kernels = pytest.importorskip(f"fastllie.kernels.{operator}")
    public = [f for name, f in vars(kernels).items() if inspect.isfunction(f) and not name.startswith("_")]
    shared = [f for f in public if f.__module__ == kernels.__name__ and hasattr(module, f.__name__)]
    assert shared
    for function in shared:
        # as pybind11 documents a function: NAME(arg0: type, arg1: type, ...)
        native = re.findall(r"\barg\d+: ", getattr(module, function.__name__).__doc__)
        # which run nothing
        place = 0 if function.__name__.endswith(("_blocks", "_doubles")) else PLACES[backend]
        assert len(inspect.signature(function).parameters) == len(native) - place, function
