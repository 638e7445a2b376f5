"""Zero-DCE's network in one pass over the image, against its modules in float64."""

import copy
import pickle

import pytest
import torch
from serving import device_of

from fastllie import _native
from fastllie.models.zerodce import ZeroDCE
from fastllie.ops.packing import can_run_packed
from fastllie.ops.zerodce import DTYPES, enhance_zerodce, pack_zerodce

PADDINGS = ("replicate", "zeros")
# strips are 134 columns wide at most, 244 by tiles, and bands 192 rows high
SIZES = [(1, 1, 1), (2, 5, 7), (1, 1, 40), (1, 33, 1), (1, 13, 134), (1, 30, 135), (3, 18, 60), (1, 197, 23)]
TOLERANCE = 2e-6  # of a result in float32 to the one in float64: two such results may be twice as far apart


@pytest.fixture(autouse=True)
def native():
    device_of("cpu")


def network(padding="replicate", seed=0):
    """Maps of both signs up to about 0.8, and no layer dead."""
    torch.manual_seed(seed)
    net = ZeroDCE(padding=padding).eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        parameter.normal_(0, 0.1 if name.endswith("bias") else (2 / parameter[0].numel()) ** 0.5)
    return net


def photograph(batch, height, width, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def packed(net, dtype=torch.float32):
    parameters = list(net.parameters())
    return pack_zerodce(parameters[::2], parameters[1::2], dtype=dtype)


def exact(net, x, **how):
    return copy.deepcopy(net).double()(x.double(), **how)


def psnr(got, expected):
    return float(-10 * (got.double() - expected).square().mean().log10())


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "avx512_bf16", "amx"], indirect=True)
def test_every_instruction_set(isa, padding):
    net = network(padding)
    for size in SIZES:
        x = photograph(*size)
        expected = exact(net, x)
        got = enhance_zerodce(x, packed(net), padding=padding)
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=TOLERANCE)
        for dtype, least in ((torch.bfloat16, 35), (torch.float16, 55)):
            low = enhance_zerodce(x.to(dtype), packed(net, dtype), padding=padding)
            assert low.dtype == dtype
            assert psnr(low, exact(net, x.to(dtype))) > least, (size, dtype)


@pytest.mark.parametrize("size", [(1, 15, 15), (2, 27, 46), (1, 40, 160), (1, 14, 20)])
def test_cropped(size):
    """The pixels around are the image's own: nothing is padded."""
    net, x = network(), photograph(*size)
    for layout in (torch.contiguous_format, torch.channels_last):
        got = enhance_zerodce(x.contiguous(memory_format=layout), packed(net), cropped=True)
        assert got.shape == (size[0], 3, size[1] - 14, size[2] - 14)
        assert got.is_contiguous(memory_format=layout)
        if got.numel():
            torch.testing.assert_close(got.double(), exact(net, x, cropped=True), rtol=0, atol=TOLERANCE)


def test_layouts():
    net, x = network(), photograph(2, 20, 50)
    expected = enhance_zerodce(x, packed(net))
    interleaved = enhance_zerodce(x.contiguous(memory_format=torch.channels_last), packed(net))
    assert interleaved.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(interleaved, expected)
    framed = torch.full((2, 3, 26, 60), float("nan"))
    framed[..., 2:22, 4:54] = x
    assert torch.equal(enhance_zerodce(framed[..., 2:22, 4:54], packed(net)), expected)


def test_threads_do_not_change_the_bits():
    net, x = network(), photograph(2, 210, 290)
    before = torch.get_num_threads()
    try:
        for dtype in (torch.float32, torch.bfloat16):
            results = []
            for threads in (1, 2, 3, 1):
                torch.set_num_threads(threads)
                results.append(enhance_zerodce(x.to(dtype), packed(net, dtype)))
            results.append(torch.cat([enhance_zerodce(i.to(dtype), packed(net, dtype)) for i in x.split(1)]))
            assert all(torch.equal(result, results[0]) for result in results)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("padding", PADDINGS)
def test_networks_in_bfloat16_take_tiles(padding):
    """Of two strips and two bands; nearer to the exact result than pairs in Winograd's algorithm."""
    if "amx" not in _native.cpu.isas():
        pytest.skip("this machine has no tiles of bfloat16")
    net, x = network(padding), photograph(2, 200, 250).bfloat16()
    low = copy.deepcopy(net).bfloat16()
    expected = exact(low, x)
    found = {}
    before = _native.cpu.isa()
    try:
        for isa in ("amx", "avx512_bf16"):
            _native.cpu.set_isa(isa)
            found[isa] = psnr(low(x), expected)
    finally:
        _native.cpu.set_isa(before)
    assert found["amx"] > max(45, found["avx512_bf16"])


def test_nan_spreads_no_further_than_a_tile_more():
    x = photograph(1, 60, 60)
    x[0, 1, 30, 30] = float("nan")
    got = enhance_zerodce(x, packed(network())).isnan()
    assert bool(got[..., 23:38, 23:38].all())
    # seven pixels, and what shares a tile with them in one of the layers
    assert not bool(got[..., :10, :].any() or got[..., 51:, :].any() or got[..., :10].any())


def test_nothing():
    net = network()
    for size in ((0, 3, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)):
        assert enhance_zerodce(torch.empty(size), packed(net)).shape == size


@pytest.mark.parametrize("padding", PADDINGS)
def test_the_network_uses_it(padding, monkeypatch):
    net, x = network(padding), photograph(1, 40, 50)
    assert can_run_packed((x,), net.parameters(), DTYPES)
    got = net(x)
    assert torch.equal(got, enhance_zerodce(x, packed(net), padding=padding))
    monkeypatch.setenv("FASTLLIE_BACKEND", "torch")
    assert not can_run_packed((x,), net.parameters(), DTYPES)
    torch.testing.assert_close(net(x), got, rtol=0, atol=2 * TOLERANCE)


@pytest.mark.filterwarnings("ignore")  # of the tracer, about sizes
def test_the_network_is_left_alone():
    """With gradients, in float64, traced, and on another device."""
    net, x = network(), photograph(1, 20, 20)
    assert not can_run_packed((x,), net.double().parameters(), DTYPES)
    assert not can_run_packed((x.double(),), net.parameters(), DTYPES)
    assert not can_run_packed((x.to("meta"),), net.to("meta").float().parameters(), DTYPES)
    net = network().requires_grad_(True)
    assert not can_run_packed((x,), net.parameters(), DTYPES)
    net(x).mean().backward()
    assert net.conv1.weight.grad is not None
    net = network()
    traced = torch.jit.trace(net, x, check_trace=False)
    assert "fastllie::zerodce" not in str(traced.graph)
    torch.testing.assert_close(traced(x), net(x), rtol=0, atol=2 * TOLERANCE)


def test_changed_weights_are_packed_anew():
    net, x = network(), photograph(1, 20, 30)
    before = net(x)
    held = net._packing._held
    assert torch.equal(net(x), before)
    assert net._packing._held is held
    net.conv7.bias.add_(0.3)
    torch.testing.assert_close(net(x).double(), exact(net, x), rtol=0, atol=TOLERANCE)
    assert not torch.allclose(net(x), before, atol=1e-2)
    # copies pack for themselves
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin._packing._held is None
        assert torch.equal(twin(x), net(x))


def test_bad_input():
    net, x = network(), photograph(1, 20, 20)
    weights, biases = list(net.parameters())[::2], list(net.parameters())[1::2]
    with pytest.raises(TypeError, match=r"dtype must be float32, bfloat16 or float16, got torch\.float64"):
        pack_zerodce(weights, biases, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"weights must be \[\(32, 3, 3, 3\), .*got \[\]"):
        pack_zerodce([], [])
    whole = packed(net)
    with pytest.raises(TypeError, match=r"x must be float32, bfloat16 or float16, got torch\.float64"):
        enhance_zerodce(x.double(), whole)
    with pytest.raises(ValueError, match=r"x must have 3 channels, got shape \(1, 2, 20, 20\)"):
        enhance_zerodce(x[:, :2], whole)
    with pytest.raises(ValueError, match=r"padding must be one of \('zeros', 'replicate'\), got 'reflect'"):
        enhance_zerodce(x, whole, padding="reflect")
    with pytest.raises(ValueError, match=r"cropped images need no padding, got 'zeros'"):
        enhance_zerodce(x, whole, padding="zeros", cropped=True)
    with pytest.raises(ValueError, match=r"must bring 7 pixels on each side, got \(1, 3, 20, 13\)"):
        enhance_zerodce(x[..., :13], whole, cropped=True)
    with pytest.raises(RuntimeError, match=r"enhance_zerodce needs tensors on 'cpu', got meta"):
        enhance_zerodce(x.to("meta"), whole)
    with pytest.raises(RuntimeError, match=r"has no gradient"):
        enhance_zerodce(x.requires_grad_(), whole)


def test_opcheck():
    whole = packed(network())
    rest = (list(whole.weights), list(whole.epilogues), whole.arithmetic)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = photograph(1, 18, 20).contiguous(memory_format=layout)
        for how in (("zeros", False), ("replicate", True)):
            torch.library.opcheck(torch.ops.fastllie.zerodce_forward.default, (x, *rest, *how))
