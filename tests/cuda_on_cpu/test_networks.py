"""The two networks of CUDA: what they do on GPUs of another size, and with several turns of a block."""

import pytest
import torch

from cuda_on_cpu.calls import CALLS, Inputs
from fastllie.ops import enhance_sci, reference
from fastllie.ops.zerodce import CHANNELS, enhance_zerodce, pack_zerodce

pytestmark = pytest.mark.emulated
KIB = 1 << 10


@pytest.fixture
def small(cuda_on_cpu):
    """The emulator as a GPU whose multiprocessors have 100 KiB of shared memory."""
    cuda_on_cpu.library.emulator_processor_shared(100 * KIB)
    yield cuda_on_cpu
    cuda_on_cpu.library.emulator_processor_shared(228 * KIB)


def random_zerodce(dtype):
    random = torch.Generator().manual_seed(0)
    weights = [
        torch.randn(outputs, given, 3, 3, generator=random) * (2 / (9 * given)) ** 0.5
        for given, outputs in CHANNELS
    ]
    biases = [torch.randn(outputs, generator=random) * 0.1 for _, outputs in CHANNELS]
    packed = pack_zerodce(weights, biases, dtype=dtype, backend="cuda")
    return packed, ([w.to(dtype).double() for w in weights], [b.double() for b in biases])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def test_zerodce_where_little_is_shared(small, dtype):
    packed, exact = random_zerodce(dtype)
    # several tiles of a block, and ones that are cut
    x = torch.rand(2, 3, 19, 70, generator=torch.Generator().manual_seed(1)).to(dtype)
    small.launches()
    got = enhance_zerodce(x, packed, backend="cuda")
    launches = small.launches()
    assert len(launches) == 7
    for launch in launches:
        assert launch.static_shared + launch.dynamic_shared <= 48 * KIB
    small.library.emulator_processor_shared(228 * KIB)
    assert torch.equal(enhance_zerodce(x, packed, backend="cuda"), got)
    assert max(launch.dynamic_shared for launch in small.launches()) > 48 * KIB
    expected = reference.zerodce(x.double(), *exact, "replicate")
    atol = 5e-3 if dtype == torch.float16 else 4e-2
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=atol)


def test_zerodce_shares_memory_without_conflicts(small):
    inputs = Inputs(torch.float16, torch.contiguous_format, (1, 8, 64))
    small.launches()
    small.meter(True)
    try:
        CALLS["zerodce"](inputs)
    finally:
        small.meter(False)
    for launch in small.launches():
        assert launch.conflicts() == 1
        assert launch.races == []
        assert launch.misaligned == 0


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_sci_walks_through_the_inside_of_an_image(cuda_on_cpu, padding):
    """Rows and strips that know of no edge, and more blocks than the GPU has places for."""
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 3, 3, 3, 3, generator=random) * 0.3
    biases = torch.randn(3, 3, generator=random) * 0.2
    for size in ((1, 230, 364), (9, 40, 244)):
        x = torch.rand(size[0], 3, *size[1:], generator=random)
        cuda_on_cpu.launches()
        got = enhance_sci(x, weights, biases, padding=padding, backend="cuda")
        (launch,) = cuda_on_cpu.launches()
        assert launch.blocks > 4 * 4 - 8
        expected = reference.sci(x.double(), weights.double(), biases.double(), True, padding)
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=4e-6)
