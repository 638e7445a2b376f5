"""EnlightenGAN's generator on packed convolutions, against its modules and the published code's results."""

import copy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from serving import device_of

from fastllie import _native
from fastllie.models.enlightengan import EnlightenGAN, attention
from fastllie.ops.enlightengan import DTYPES, pack_enlightengan, run_enlightengan
from fastllie.ops.packing import can_run_packed

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "enlightengan"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden data of EnlightenGAN is not here")


@pytest.fixture(autouse=True)
def native():
    device_of("cpu")


def network(width=8, **options):
    """Weights that keep every layer alive, statistics that are not the identity."""
    torch.manual_seed(0)
    net = EnlightenGAN(width=width, **options).eval()
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return net


def photograph(batch=1, height=64, width=96):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(batch, 3, -(-height // 8), -(-width // 8), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bicubic")[..., :height, :width]
    return (smooth + 0.05 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)


def plain(net, x):
    """The modules' own result: gradients are wanted."""
    with torch.enable_grad():
        assert not can_run_packed((x, attention(x)), net.parameters(), DTYPES)
        return net(x).detach()


@pytest.mark.parametrize("align_corners", [False, True], ids=["halves", "corners"])
@pytest.mark.parametrize("width", [5, 8, 16])
def test_equals_the_modules(width, align_corners):
    net = network(width, align_corners=align_corners)
    for size in ((1, 64, 96), (2, 16, 16), (1, 75, 101), (1, 33, 7), (3, 1, 40)):
        x = photograph(*size)
        expected = plain(net, x)
        with torch.no_grad():
            got = net(x)
        torch.testing.assert_close(got, expected, rtol=0, atol=2e-5)
        with torch.inference_mode():
            assert torch.equal(net(x), got)


def test_networks_in_bfloat16_take_tiles():
    """Nearer to the exact result than pairs, which Winograd's algorithm rounds."""
    if "amx" not in _native.cpu.isas():
        pytest.skip("this machine has no tiles of bfloat16")
    net, v = network(16).bfloat16().requires_grad_(False), (2 * photograph(2, 75, 101) - 1).bfloat16()
    expected = copy.deepcopy(net).double().generate(v.double(), attention(v).double()).residual
    found = {}
    before = _native.cpu.isa()
    try:
        for isa in ("amx", "avx512_bf16"):
            _native.cpu.set_isa(isa)
            residual = net.generate(v, attention(v)).residual
            found[isa] = float((residual - expected).square().mean().sqrt() / expected.std())
    finally:
        _native.cpu.set_isa(before)
    assert found["amx"] < min(0.01, found["avx512_bf16"])


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "avx512_bf16", "amx"], indirect=True)
def test_every_instruction_set(isa):
    x = photograph()
    net = network(16)
    expected = plain(net, x)
    with torch.no_grad():
        torch.testing.assert_close(net(x), expected, rtol=0, atol=2e-5)
        got = net.bfloat16()(x.bfloat16()).float()
    psnr = float(-10 * (got - expected).square().mean().log10())
    assert psnr > 40, psnr


@needs_golden
@pytest.mark.parametrize("corners", ["", "_ac1"], ids=["halves", "corners"])
@pytest.mark.parametrize("image", ["a", "b"])
def test_golden(image, corners, monkeypatch):
    """The published code's output and residual with its own width, in float32; 40 dB in bfloat16."""
    monkeypatch.syspath_prepend(str(GOLDEN))
    import det_init

    net = EnlightenGAN(align_corners=bool(corners)).eval()
    state = {
        name: torch.from_numpy(det_init.tensor("G", name, value.shape))
        for name, value in net.state_dict().items()
    }
    net.load_state_dict(state)
    arrays = np.load(GOLDEN / "eg_generator.npz")
    x = torch.from_numpy(arrays[f"{image}_img_u8"]).permute(2, 0, 1)[None] / 255
    v = (x - 0.5) / 0.5
    with torch.no_grad():
        assert can_run_packed((v, attention(v)), net.parameters(), DTYPES)
        got = net.generate(v, attention(v))
    for name, value in zip(("out", "latent"), got, strict=True):
        expected = torch.from_numpy(arrays[f"{image}_{name}{corners}"]).reshape(value.shape)
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-4)
    with torch.no_grad():
        low = net.bfloat16()(x.bfloat16()).float()
    psnr = float(-10 * (low - ((got.image + 1) / 2).clamp(0, 1)).square().mean().log10())
    assert psnr > 40, psnr
    sys.modules.pop("det_init")


def test_changed_weights_are_packed_anew():
    net, x = network(), photograph()
    with torch.no_grad():
        before = net(x)
        held = net._packing._held
        assert torch.equal(net(x), before)
        assert net._packing._held is held
        net.conv10.bias += 0.5
        got = net(x)
    torch.testing.assert_close(got, plain(net, x), rtol=0, atol=2e-5)
    assert not torch.allclose(got, before, atol=1e-2)


def test_left_to_the_modules(monkeypatch):
    """Training, float64, mixed dtypes and another backend."""
    net, x = network(), photograph()
    v, g = 2 * x - 1, attention(x)
    weights = list(net.parameters())
    with torch.no_grad():
        assert can_run_packed((v, g), weights, DTYPES)
        assert not can_run_packed((v.double(), g), weights, DTYPES)
        assert not can_run_packed((v.bfloat16(), g), weights, DTYPES)
        monkeypatch.setenv("FASTLLIE_BACKEND", "torch")
        assert not can_run_packed((v, g), weights, DTYPES)
        torch.testing.assert_close(net.double()(x.double()), plain(net, x.double()))
    with torch.inference_mode():
        assert not can_run_packed((v, g), [torch.zeros(3)], DTYPES)
    net = network().train()
    net(x).mean().backward()
    assert net.conv1_1.weight.grad is not None


def test_threads_do_not_change_the_bits():
    net, x = network(16), photograph(2, 48, 80)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with torch.no_grad():
                results.append(net(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


def test_several_calls_at_once():
    """Each has memory of its own."""
    net = network()
    xs = [photograph(1, 32 + 16 * place, 48) for place in range(4)]
    with torch.no_grad():
        expected = [net(x) for x in xs]

    def enhance(place):
        with torch.no_grad():
            return net(xs[place % 4])

    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(enhance, range(24)))
    assert all(torch.equal(y, expected[place % 4]) for place, y in enumerate(got))


def test_bad_input():
    net = network()
    packed = pack_enlightengan(net.state_dict())
    v, g = torch.zeros(1, 3, 32, 48), torch.zeros(1, 1, 32, 48)
    with pytest.raises(TypeError, match=r"dtype must be float32 or bfloat16, got torch\.float16"):
        pack_enlightengan(net.state_dict(), dtype=torch.float16)
    with pytest.raises(KeyError, match=r"conv1_1\.weight"):
        pack_enlightengan({})
    with pytest.raises(TypeError, match=r"v and g must be torch\.float32, as packed, got torch\.bfloat16"):
        run_enlightengan(v.bfloat16(), g.bfloat16(), packed)
    with pytest.raises(ValueError, match=r"sides of multiples of 16, got \(1, 3, 31, 48\)"):
        run_enlightengan(v[:, :, 1:], g[:, :, 1:], packed)
    with pytest.raises(ValueError, match=r"g must be \[1, 1, 32, 48\], got \(1, 1, 16, 48\)"):
        run_enlightengan(v, g[:, :, 16:], packed)
    with pytest.raises(RuntimeError, match=r"run_enlightengan needs tensors on 'cpu', got meta"):
        run_enlightengan(v.to("meta"), g.to("meta"), packed)
    with pytest.raises(RuntimeError, match=r"has no gradient"):
        run_enlightengan(v.requires_grad_(), g, packed)


def test_opcheck():
    packed = pack_enlightengan(network(4).state_dict())
    weights, epilogues = (
        [getattr(layer, name) for layer in packed.layers] for name in ("weights", "epilogue")
    )
    arithmetics = [layer.arithmetic for layer in packed.layers]
    v = 2 * photograph(1, 16, 32) - 1
    arguments = (v, attention(v), weights, epilogues, arithmetics, packed.width, False)
    torch.library.opcheck(torch.ops.fastllie.enlightengan_forward.default, arguments)
