"""Zero-DCE's network for tensor cores, against its modules in float64: interpreted, or on a GPU."""

import copy
import dataclasses

import pytest
import torch
from serving import device_of, on
from test_zerodce_kernel import exact, network, photograph, psnr

from fastllie.ops import backend as backends
from fastllie.ops import reference
from fastllie.ops.fragments import ROWS, pack_fragments
from fastllie.ops.packing import can_run_packed
from fastllie.ops.zerodce import CHANNELS, can_run_zerodce, enhance_zerodce, map_columns, pack_zerodce

BACKENDS = [on(name) for name in ("triton", "cuda")]
PADDINGS = ("replicate", "zeros")
TOLERANCE = 5e-3  # features are rounded to 11 bits; a neighbour taken for another moves far more


def packed(net, backend, dtype=torch.float16):
    parameters = [parameter.to(device_of(backend)) for parameter in net.parameters()]
    return pack_zerodce(parameters[::2], parameters[1::2], dtype=dtype, backend=backend)


def enhanced(net, x, backend, **how):
    x = x.to(device_of(backend))
    y = enhance_zerodce(x, packed(net, backend, x.dtype), backend=backend, **how)
    assert y.dtype == x.dtype
    return y.cpu()


# of programs of 8 x 16 pixels: less than one, several, and a last one that is cut
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 9, 18), (1, 3, 35)], ids=str)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_network(backend, padding, size):
    net, x = network(padding), photograph(*size).half()
    expected = exact(net, x)
    got = enhanced(net, x, backend, padding=padding)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=TOLERANCE)
    assert psnr(got, expected) > 55


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16(backend):
    if backends.interpreting() and backend == "triton":
        with pytest.raises(TypeError, match=r"dtype must be one of \(torch\.float16,\) for tensor cores"):
            packed(network(), backend, torch.bfloat16)
        return
    net, x = network(), photograph(2, 33, 50).bfloat16()
    assert psnr(enhanced(net, x, backend), exact(net, x)) > 35


@pytest.mark.parametrize("backend", BACKENDS)
def test_cropped(backend):
    net, x = network(), photograph(2, 16, 20).half()
    for layout in (torch.contiguous_format, torch.channels_last):
        got = enhanced(net, x.contiguous(memory_format=layout), backend, cropped=True)
        assert got.shape == (2, 3, 2, 6)
        assert got.is_contiguous(memory_format=layout)
        torch.testing.assert_close(got.double(), exact(net, x, cropped=True), rtol=0, atol=TOLERANCE)
    assert enhanced(net, x[..., :14], backend, cropped=True).shape == (2, 3, 2, 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_layouts(backend):
    net, x = network("zeros"), photograph(1, 6, 10).half().to(device_of(backend))
    weights = packed(net, backend)
    expected = enhance_zerodce(x, weights, padding="zeros", backend=backend)
    framed = torch.full((1, 3, 12, 20), float("nan"), dtype=x.dtype, device=x.device)
    framed[..., 2:8, 4:14] = x
    for view in (x.contiguous(memory_format=torch.channels_last), framed[..., 2:8, 4:14]):
        got = enhance_zerodce(view, weights, padding="zeros", backend=backend)
        assert torch.equal(got, expected)
        assert got.stride() == torch.empty_like(view).stride()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_spreads_no_further_than_it_must(backend):
    x = photograph(1, 17, 17).half()
    x[0, 1, 8, 8] = float("nan")
    got = enhanced(network(), x, backend).isnan()
    assert bool(got[..., 1:16, 1:16].all())
    assert not bool(got[..., 0, :].any() or got[..., :, 16].any())


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_module_uses_it(backend, monkeypatch):
    device = device_of(backend)
    net, x = network().to(device), photograph(1, 5, 9).to(device)
    monkeypatch.setenv("FASTLLIE_BACKEND", backend)
    assert not can_run_zerodce(x, list(net.parameters()))
    torch.testing.assert_close(net(x).double(), exact(net, x), rtol=0, atol=1e-4 if device == "cpu" else 5e-3)
    net, x = net.half(), x.half()
    assert can_run_zerodce(x, list(net.parameters()))
    expected = enhance_zerodce(x, packed(net, backend), backend=backend)
    assert torch.equal(net(x), expected)
    assert net._packing._held[1].matrices
    # changed weights are packed anew, and another backend packs for itself
    net.conv7.bias.add_(0.3)
    torch.testing.assert_close(net(x).double(), exact(net, x), rtol=0, atol=TOLERANCE)
    assert not torch.allclose(net(x), expected, atol=1e-2)
    if device == "cpu":
        monkeypatch.setenv("FASTLLIE_BACKEND", "auto")
        torch.testing.assert_close(net(x).double(), exact(net, x), rtol=0, atol=TOLERANCE)
        assert not net._packing._held[1].matrices


def test_the_module_is_left_alone(monkeypatch):
    """With gradients, among weights of another dtype, and while it is traced."""
    monkeypatch.setenv("FASTLLIE_BACKEND", "triton")
    device_of("triton")
    net, x = network().half(), photograph(1, 5, 9).half()
    serving = ("triton",)
    assert can_run_packed((x,), net.parameters(), (torch.float16,), serving) == (x.device.type == "cpu")
    assert not can_run_packed((x.float(),), net.parameters(), (torch.float16,), serving)
    assert not can_run_packed((x.to("meta"),), net.parameters(), (torch.float16,), serving)
    assert not can_run_packed((x,), net.requires_grad_(True).parameters(), (torch.float16,), serving)


def test_the_formula():
    for padding in PADDINGS:
        net, x = network(padding), photograph(1, 9, 11).double()
        parameters = [parameter.double() for parameter in net.parameters()]
        got = reference.zerodce(x, parameters[::2], parameters[1::2], padding)
        torch.testing.assert_close(got, exact(net, x), rtol=0, atol=1e-12)
    x = photograph(1, 15, 17).double()
    net = copy.deepcopy(network()).double()
    parameters = list(net.parameters())
    got = reference.zerodce(x, parameters[::2], parameters[1::2], "replicate", cropped=True)
    torch.testing.assert_close(got, net(x, cropped=True), rtol=0, atol=1e-12)


def test_every_weight_has_a_place_of_its_own():
    """In the order of lanes: each once, and zeros where the first and the last layer have none."""
    count = 0
    weights = []
    for given, outputs in CHANNELS:
        size = outputs * given * 9
        weights.append(torch.arange(count + 1, count + size + 1).float().view(outputs, given, 3, 3))
        count += size
    packed = pack_fragments(weights, torch.float32)
    assert packed.shape == (ROWS, 32)
    assert torch.equal(packed[packed > 0].sort().values, torch.arange(1, count + 1).float())
    # a lane's eight of the second layer, column 0 of the taps, inputs 0 to 15, row 0: outputs 0, 2 and inputs
    # 0, 1, 8, 9
    second = weights[1][:, :, 0, 0]
    lane = packed.flatten()[3 * 16 * 32 :][:8]
    assert lane.tolist() == [*second[0, [0, 1, 8, 9]].tolist(), *second[2, [0, 1, 8, 9]].tolist()]


def test_weights_for_another_backend_are_refused():
    x = photograph(1, 20, 20).half().to(device_of("triton"))
    other = dataclasses.replace(packed(network(), "triton"), backend="cuda")
    with pytest.raises(RuntimeError, match=r"packed for backend 'cuda', got backend 'triton'"):
        enhance_zerodce(x, other, backend="triton")


def test_every_map_has_a_column_of_its_own():
    columns = map_columns()
    assert len(columns) == len(set(columns)) == 24
    # steps of one channel differ in the bits that a thread of a matrix product holds: 1, 8 and 16
    for channel in range(3):
        assert {column & 0b00110 for column in columns[channel::3]} == {2 * channel}


def test_bad_input():
    device_of("triton")
    net, x = network(), photograph(1, 20, 20).half()
    if not backends.interpreting():
        x = x.cuda()
    weights = packed(net, "triton")
    with pytest.raises(TypeError, match=r"x must be torch\.float16, which .* got torch\.float32"):
        enhance_zerodce(x.float(), weights, backend="triton")
    with pytest.raises(RuntimeError, match=r"the weights are packed on .*, got x on meta"):
        enhance_zerodce(x.to("meta"), weights, backend="triton")
    with pytest.raises(ValueError, match=r"backend must be 'auto' or one of .* got 'gpu'"):
        enhance_zerodce(x, weights, backend="gpu")
    with pytest.raises(RuntimeError, match=r"has no gradient"):
        enhance_zerodce(x.requires_grad_(), weights, backend="triton")
    for_cpu = pack_zerodce(list(net.parameters())[::2], list(net.parameters())[1::2])
    if backends.interpreting():
        with pytest.raises(RuntimeError, match=r"packed for a GPU's tensor cores, got backend 'cpu'"):
            enhance_zerodce(x.detach(), weights, backend="cpu")
        with pytest.raises(RuntimeError, match=r"packed for the CPU, got backend 'triton'"):
            enhance_zerodce(x.detach(), for_cpu, backend="triton")


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend):
    weights = packed(network(), backend)
    x = photograph(1, 15, 16).half().to(device_of(backend)).contiguous(memory_format=torch.channels_last)
    arguments = (x, weights.weights[0], weights.epilogues[0])
    for how in (("zeros", False), ("replicate", True)):
        torch.library.opcheck(
            torch.ops.fastllie.zerodce_matrices_forward.default, (*arguments, *how, backend)
        )
