"""The exposure meter's kernels against its formulas in float64."""

import pytest
import torch
from helpers import refused
from serving import device_of

from fastllie.defaults import LUMA
from fastllie.models.metered import exposed, gain_of
from fastllie.ops.exposure import DTYPES, READ, expose, light_of

SIZES = [(1, 1, 1), (2, 5, 7), (1, 3, 256), (1, 2, 300), (3, 17, 33)]
each_isa = pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"], indirect=True)


@pytest.fixture(autouse=True)
def native():
    device_of("cpu")


def picture(batch, height, width, dtype=torch.float32):
    x = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0)) * 0.4
    return (x * 255).round().to(torch.uint8) if dtype == torch.uint8 else x.to(dtype)


def exact(x):
    return x.double() / (255 if x.dtype == torch.uint8 else 1)


def curve(x, gain, keep_hue=True):
    between = (x + x.amax(1, keepdim=True)) / 2 if keep_hue else x
    return gain * x / (1 + (gain - 1) * between)


@each_isa
@pytest.mark.parametrize("dtype", READ, ids=str)
def test_every_instruction_set(isa, dtype):
    for size in SIZES:
        x = picture(*size, dtype)
        gain = torch.linspace(1, 20, len(x)).view(-1, 1, 1, 1)
        weights = torch.tensor(LUMA, dtype=torch.float64).view(3, 1, 1)
        light = (exact(x) * weights).sum(1).square().mean((1, 2))
        torch.testing.assert_close(light_of(x, LUMA), light, rtol=1e-6, atol=0)
        for keep_hue in (True, False):
            for to in DTYPES:
                got = expose(x, gain, keep_hue=keep_hue, dtype=to)
                assert got.dtype == to
                tolerance = 1e-6 if to == torch.float32 else torch.finfo(to).eps
                expected = curve(exact(x), gain.double(), keep_hue)
                torch.testing.assert_close(got.double(), expected, rtol=0, atol=tolerance)


def test_layouts():
    x, gain = picture(2, 9, 300), torch.tensor([3.0, 8.0]).view(2, 1, 1, 1)
    expected = expose(x, gain, keep_hue=True, dtype=torch.float32)
    interleaved = x.contiguous(memory_format=torch.channels_last)
    got = expose(interleaved, gain, keep_hue=True, dtype=torch.float32)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(got, expected)
    assert torch.equal(light_of(interleaved, LUMA), light_of(x, LUMA))
    framed = torch.full((2, 3, 15, 310), float("nan"))
    framed[..., 3:12, 5:305] = x
    assert torch.equal(expose(framed[..., 3:12, 5:305], gain, keep_hue=True, dtype=torch.float32), expected)
    assert torch.equal(light_of(framed[..., 3:12, 5:305], LUMA), light_of(x, LUMA))
    assert torch.equal(light_of(x.flip(3).flip(3), LUMA), light_of(x, LUMA))


def test_threads_do_not_change_the_bits():
    x = picture(2, 700, 500)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(light_of(x, LUMA))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(light, found[0]) for light in found)


def test_the_meter_uses_them(monkeypatch):
    x = picture(1, 40, 50)
    gain = gain_of(x, 0.5)
    y = exposed(x, gain)
    assert torch.equal(y, expose(x, gain, keep_hue=True, dtype=torch.float32))
    # with gradients, and where the kernels are not wanted, the formulas
    watched = x.clone().requires_grad_()
    slope = torch.autograd.grad(exposed(watched, gain_of(watched, 0.5)).sum(), watched)[0]
    assert bool((slope.abs() > 0).any())
    monkeypatch.setenv("FASTLLIE_BACKEND", "torch")
    torch.testing.assert_close(gain_of(x, 0.5), gain, rtol=1e-5, atol=0)
    torch.testing.assert_close(exposed(x, gain), y, rtol=0, atol=1e-6)
    data = picture(1, 40, 50, torch.uint8)
    torch.testing.assert_close(exposed(data, gain, dtype=torch.float32), curve(exact(data).float(), gain))


def test_nothing():
    for size in ((0, 3, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)):
        x = torch.empty(size)
        assert expose(x, torch.ones(len(x), 1, 1, 1), keep_hue=True, dtype=torch.float32).shape == size
        assert light_of(x, LUMA).shape == (len(x),)


def test_what_is_refused():
    x, gain = picture(2, 4, 5), torch.ones(2, 1, 1, 1)
    how = {"keep_hue": True, "dtype": torch.float32}
    with refused(TypeError, "x must be float32, bfloat16, float16 or uint8, got torch.float64"):
        expose(x.double(), gain, **how)
    with refused(TypeError, "dtype must be float32, bfloat16 or float16, got torch.uint8"):
        expose(x, gain, keep_hue=True, dtype=torch.uint8)
    with refused(ValueError, "x must have 3 channels"):
        expose(x[:, :2], gain, **how)
    with refused(ValueError, "gain must be [2, 1, 1, 1] in float32, got [1, 1, 1, 1]"):
        expose(x, gain[:1], **how)
    with refused(ValueError, "gain must be [2, 1, 1, 1] in float32, got [2, 1, 1, 1] in torch.float64"):
        expose(x, gain.double(), **how)
    with refused(RuntimeError, "expose needs tensors on 'cpu', got meta"):
        expose(x.to("meta"), gain, **how)
    for run in (lambda: expose(x, gain, **how), lambda: light_of(x, LUMA)):
        x.requires_grad_()
        with refused(RuntimeError, "has no gradient"):
            run()


def test_opcheck():
    x, gain = picture(2, 4, 5), torch.full((2, 1, 1, 1), 3.0)
    ops = torch.ops.fastllie
    torch.library.opcheck(ops.exposure_forward.default, (x, gain, True, torch.bfloat16))
    data = picture(2, 4, 5, torch.uint8).contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(ops.exposure_forward.default, (data, gain, False, torch.float32))
    torch.library.opcheck(ops.exposure_light.default, (x, list(LUMA)))
