"""What the tests of operators have."""

import pytest
from serving import device_of

from fastllie import _native


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request):
    """The C++ kernels of one instruction set serve, where this machine can run them."""
    device_of("cpu")
    if request.param not in _native.cpu.isas():
        pytest.skip(f"this machine cannot run {request.param}")
    before = _native.cpu.isa()
    _native.cpu.set_isa(request.param)
    assert _native.cpu.isa() == request.param
    yield request.param
    _native.cpu.set_isa(before)
