"""Zero-DCE++'s network over the image as it is, against its modules."""

import copy
import pickle

import numpy as np
import pytest
import torch
from serving import device_of

import fastllie
from fastllie.models.zerodce import ZeroDCEPlusPlus
from fastllie.ops.zerodcepp import PACKED, enhance_zerodcepp, pack_zerodcepp

PADDINGS = ("replicate", "zeros")
SCALES = (1, 2, 3, 12)
# strips of what the network sees are 132 columns wide at most, bands 192 rows high
SIZES = [(1, 1, 1), (2, 5, 7), (1, 1, 40), (1, 33, 1), (3, 18, 60), (1, 30, 135), (1, 197, 23), (1, 25, 290)]
TOLERANCE = 2e-5
FLOATS = ((torch.bfloat16, 50), (torch.float16, 65))


@pytest.fixture(autouse=True)
def native():
    device_of("cpu")


def network(padding="replicate", scale=1, seed=0):
    """Maps of both signs that leave few pixels as they are, and no layer dead."""
    torch.manual_seed(seed)
    net = ZeroDCEPlusPlus(scale=scale, padding=padding).eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        gain = 1 if "depth" in name else 2
        parameter.normal_(0, 0.1 if name.endswith("bias") else (gain / parameter[0].numel()) ** 0.5)
    return net


def photograph(batch, height, width, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def packed(net, **how):
    parameters = list(net.parameters())
    return pack_zerodcepp(parameters[::2], parameters[1::2], **how)


def plain(net, x, **how):
    """What the modules give: with gradients at hand they run one by one."""
    with torch.enable_grad():
        return copy.deepcopy(net).requires_grad_(True)(x, **how).detach()


def psnr(got, expected):
    return float(-10 * (got.double() - expected.double()).square().mean().log10())


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("scale", SCALES)
def test_every_instruction_set(isa, scale, padding):
    net = network(padding, scale)
    how = {"scale": scale, "padding": padding}
    for size in SIZES:
        x = photograph(*size)
        expected = plain(net, x)
        assert (expected - x).abs().mean() > 0.05
        got = enhance_zerodcepp(x, packed(net), **how)
        torch.testing.assert_close(got, expected, rtol=0, atol=TOLERANCE)
        for layout in (torch.contiguous_format, torch.channels_last):
            laid = x.contiguous(memory_format=layout)
            again = enhance_zerodcepp(laid, packed(net), **how)
            assert torch.equal(again, got)
            assert again.is_contiguous(memory_format=layout)
            for dtype, least in FLOATS:
                low = enhance_zerodcepp(laid.to(dtype), packed(net), **how)
                assert low.dtype == dtype
                assert psnr(low, plain(net, laid.to(dtype).float())) > least, (size, dtype)
            given = (laid * 255).byte()
            shown = enhance_zerodcepp(given, packed(net), **how)
            assert shown.dtype == torch.uint8
            off = shown - 255 * plain(net, given.float() / 255)
            assert off.abs().max() < 0.51


def test_the_reduced_image_is_exact():
    """In float64 the modules differ by the rounding of where the corners lie; here that is none."""
    for scale, size in ((2, (10, 18)), (4, (20, 36)), (12, (60, 108))):
        net, x = network(scale=scale), photograph(1, *size)
        got = enhance_zerodcepp(x, packed(net), scale=scale)
        torch.testing.assert_close(got.double(), net.double()(x.double()), rtol=0, atol=5e-6)


@pytest.mark.parametrize("scale", [49, 103])
def test_scales_whose_inverse_is_rounded_down(scale):
    """Times as many pixels as a cell has, 1 / 49 is less than one cell."""
    net = network(scale=scale)
    for size in ((1, scale, scale), (1, scale + 1, 3 * scale)):
        x = photograph(*size)
        got = enhance_zerodcepp(x, packed(net), scale=scale)
        torch.testing.assert_close(got, plain(net, x), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("size", [(1, 15, 15), (2, 27, 46), (1, 40, 160), (1, 14, 20)])
def test_cropped(size):
    """The pixels around are the image's own: nothing is padded."""
    net, x = network(), photograph(*size)
    for layout in (torch.contiguous_format, torch.channels_last):
        got = enhance_zerodcepp(x.contiguous(memory_format=layout), packed(net), cropped=True)
        assert got.shape == (size[0], 3, size[1] - 14, size[2] - 14)
        assert got.is_contiguous(memory_format=layout)
        if got.numel():
            torch.testing.assert_close(got, plain(net, x, cropped=True), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("scale", [1, 4])
def test_strides_and_out(scale):
    net, x = network(scale=scale), photograph(2, 20, 50)
    weights = packed(net)
    expected = enhance_zerodcepp(x, weights, scale=scale)
    framed = torch.full((2, 3, 26, 60), float("nan"))
    framed[..., 2:22, 4:54] = x
    assert torch.equal(enhance_zerodcepp(framed[..., 2:22, 4:54], weights, scale=scale), expected)
    for other in (x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().mT):
        for out in (torch.empty_like(x), torch.empty(2, 50, 20, 3).permute(0, 3, 2, 1)):
            assert enhance_zerodcepp(other, weights, scale=scale, out=out) is out
            assert torch.equal(out, expected)
    # only what is asked for is written
    framed = torch.full((2, 26, 60, 3), 7.0)
    enhance_zerodcepp(x, weights, scale=scale, out=framed[:, 2:22, 4:54].permute(0, 3, 1, 2))
    assert torch.equal(framed[:, 2:22, 4:54].permute(0, 3, 1, 2), expected)
    framed[:, 2:22, 4:54] = 7
    assert (framed == 7).all()
    grey = x[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(
        enhance_zerodcepp(grey, weights, scale=scale),
        enhance_zerodcepp(grey.contiguous(), weights, scale=scale),
    )


def test_large_results_go_past_the_caches():
    """Of eight megabytes and more they are stored so, where their rows allow it."""
    net = network(scale=12)
    for width in (1024, 1021):
        x = photograph(1, 700, width)
        expected = plain(net, x)
        for layout in (torch.contiguous_format, torch.channels_last):
            got = enhance_zerodcepp(x.contiguous(memory_format=layout), packed(net), scale=12)
            torch.testing.assert_close(got, expected, rtol=0, atol=TOLERANCE)


def test_threads_do_not_change_the_bits():
    before = torch.get_num_threads()
    try:
        for scale, x in ((1, photograph(2, 210, 290)), (3, photograph(2, 310, 290))):
            net = network(scale=scale)
            results = []
            for threads in (1, 2, 3, 1):
                torch.set_num_threads(threads)
                results.append(enhance_zerodcepp(x, packed(net), scale=scale))
            results.append(torch.cat([enhance_zerodcepp(i, packed(net), scale=scale) for i in x.split(1)]))
            assert all(torch.equal(result, results[0]) for result in results)
    finally:
        torch.set_num_threads(before)


def test_nan_spreads_no_further_than_it_must():
    x = photograph(1, 60, 60)
    x[0, 1, 30, 30] = float("nan")
    got = enhance_zerodcepp(x, packed(network())).isnan()
    assert bool(got[..., 23:38, 23:38].all())
    got[..., 23:38, 23:38] = False
    assert not bool(got.any())


def test_nothing():
    for size in ((0, 3, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)):
        for scale in (1, 12):
            assert enhance_zerodcepp(torch.empty(size), packed(network()), scale=scale).shape == size


@pytest.mark.parametrize("scale", [1, 5])
@pytest.mark.parametrize("padding", PADDINGS)
def test_the_network_uses_it(padding, scale, monkeypatch):
    net, x = network(padding, scale), photograph(1, 40, 50)
    how = {"scale": scale, "padding": padding}
    got = net(x)
    assert torch.equal(got, enhance_zerodcepp(x, packed(net), **how))
    given = (x * 255).byte()
    shown = net(given)
    assert torch.equal(shown, enhance_zerodcepp(given, packed(net), **how))
    flipped = given.flip(1)
    out = torch.empty_like(given)
    assert net.enhance_into(flipped, out, bgr=True) is out
    assert (out.flip(1).int() - shown.int()).abs().max() <= 1
    monkeypatch.setenv("FASTLLIE_BACKEND", "torch")
    assert net._packed(x) is None
    torch.testing.assert_close(net(x), got, rtol=0, atol=TOLERANCE)
    assert (net(given).int() - shown.int()).abs().max() <= 1
    assert net(given).dtype == torch.uint8
    assert (net.enhance_into(flipped, out, bgr=True).flip(1).int() - shown.int()).abs().max() <= 1


@pytest.mark.filterwarnings("ignore")  # of the tracer, about sizes
def test_the_network_is_left_alone():
    """With gradients, in float64, traced, and on another device."""
    net, x = network(scale=3), photograph(1, 20, 20)
    traced = torch.jit.trace(net, x, check_trace=False)
    assert "zerodcepp" not in str(traced.graph)
    torch.testing.assert_close(traced(x), net(x), rtol=0, atol=TOLERANCE)
    assert net._packed(x.double()) is None
    assert net._packed(x.to("meta")) is None
    assert net.double()._packed(x.double()) is None
    assert net._packed((x * 255).byte()) is None
    assert net((x * 255).byte()).dtype == torch.uint8
    net = network(scale=3).requires_grad_(True)
    assert net._packed(x) is None
    net(x).mean().backward()
    assert net.conv1.depth.weight.grad is not None


def test_batches_go_through_the_modules_in_parts(monkeypatch):
    """Where the image takes no tiles, and its features are many times as large."""
    net, x = network(scale=3).double(), photograph(5, 20, 30).double()
    seen = []
    net.conv1.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    with torch.no_grad():
        whole = net(x)
        monkeypatch.setattr("fastllie.models.zerodce.PIXELS_TOGETHER", 2 * 20 * 30)
        torch.testing.assert_close(net(x), whole)
        shown = net((x * 255).byte())
    assert seen == [5, 2, 2, 1, 2, 2, 1]
    assert shown.shape == x.shape
    net(x)
    assert seen[-1] == 5


def test_changed_weights_are_packed_anew():
    net, x = network(scale=2), photograph(1, 20, 30)
    before = net(x)
    held = net._packing._held
    assert torch.equal(net(x), before)
    assert net._packing._held is held
    net.conv7.point.bias.add_(0.3)
    torch.testing.assert_close(net(x), plain(net, x), rtol=0, atol=TOLERANCE)
    assert not torch.allclose(net(x), before, atol=1e-2)
    # copies pack for themselves
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin._packing._held is None
        assert torch.equal(twin(x), net(x))


@pytest.mark.parametrize("options", [{}, {"scale": 6}], ids=str)
def test_enhance_gives_what_the_modules_give(options, monkeypatch):
    """Whatever way the image takes: whole or in tiles, as bytes or floats, in either order of colours."""
    image = np.random.default_rng(0).integers(0, 200, (90, 110, 3), np.uint8)
    frame = image.astype(np.float32) / 255
    results = {}
    for backend in ("auto", "torch"):
        monkeypatch.setenv("FASTLLIE_BACKEND", backend)
        for tile in ("auto", None) + (() if options else (33,)):
            enhancer = fastllie.Enhancer("zerodce++", tile=tile, device="cpu", **options)
            turned = fastllie.Enhancer("zerodce++", tile=tile, device="cpu", channels="bgr", **options)
            results[backend, tile] = np.stack(
                [
                    enhancer(image),
                    enhancer.preprocess(image, out=np.empty_like(image)),
                    turned(image[..., ::-1])[..., ::-1],
                    turned.preprocess(image[..., ::-1], out=np.empty_like(image))[..., ::-1],
                    (enhancer(frame) * 255).round(),
                ]
            ).astype(int)
    expected = results["torch", None][0]
    assert np.abs(expected - image).mean() > 5
    for which, result in results.items():
        assert np.abs(result - expected).max() <= 1, which
        assert (result != expected).mean() < 0.01, which


def test_bad_input():
    for scale in (0, True, 2.0):
        with pytest.raises(ValueError, match=f"scale must be an integer >= 1, got {scale}"):
            ZeroDCEPlusPlus(scale=scale)
    net, x = network(), photograph(1, 20, 20)
    weights, biases = list(net.parameters())[::2], list(net.parameters())[1::2]
    with pytest.raises(ValueError, match=r"weights must be \[\(3, 1, 3, 3\), \(32, 3, 1, 1\), .*got \[\]"):
        pack_zerodcepp([], [])
    with pytest.raises(ValueError, match=r"biases must be \[\(3,\), \(32,\), .*got \[\(32,\), "):
        pack_zerodcepp(weights, biases[1:])
    whole = packed(net)
    with pytest.raises(TypeError, match=r"x must be float32, bfloat16, float16 or uint8, got torch\.float64"):
        enhance_zerodcepp(x.double(), whole)
    with pytest.raises(ValueError, match=r"x must have 3 channels, got shape \(1, 2, 20, 20\)"):
        enhance_zerodcepp(x[:, :2], whole)
    with pytest.raises(ValueError, match=rf"float32 \[{PACKED}\], got torch\.float32 \[5\]"):
        enhance_zerodcepp(x, torch.ones(5))
    for scale in (0, True, 2.0):
        with pytest.raises(ValueError, match=f"scale must be an integer >= 1, got {scale}"):
            enhance_zerodcepp(x, whole, scale=scale)
    with pytest.raises(ValueError, match=r"padding must be one of \('zeros', 'replicate'\), got 'reflect'"):
        enhance_zerodcepp(x, whole, padding="reflect")
    for how in ({"padding": "zeros"}, {"scale": 2}):
        with pytest.raises(ValueError, match=r"cropped images need padding 'replicate' and scale 1, got"):
            enhance_zerodcepp(x, whole, cropped=True, **how)
    with pytest.raises(ValueError, match=r"must bring 7 pixels on each side, got \(1, 3, 20, 13\)"):
        enhance_zerodcepp(x[..., :13], whole, cropped=True)
    with pytest.raises(RuntimeError, match=r"enhance_zerodcepp needs tensors on 'cpu', got meta"):
        enhance_zerodcepp(x.to("meta"), whole)
    with pytest.raises(TypeError, match=r"out must be a torch.Tensor, got list"):
        enhance_zerodcepp(x, whole, out=[])
    with pytest.raises(TypeError, match=r"out must be torch\.float32, as x, got torch\.float64"):
        enhance_zerodcepp(x, whole, out=x.double())
    with pytest.raises(ValueError, match=r"out must be \[1, 3, 6, 6\] on cpu, got \[1, 3, 20, 20\]"):
        enhance_zerodcepp(x, whole, cropped=True, out=x.clone())
    with pytest.raises(ValueError, match=r"out is the memory of x"):
        enhance_zerodcepp(x, whole, out=x)
    with pytest.raises(RuntimeError, match=r"has no gradient"):
        enhance_zerodcepp(x.requires_grad_(), whole)


def test_opcheck():
    whole = packed(network())
    for layout in (torch.contiguous_format, torch.channels_last):
        x = photograph(1, 18, 20).contiguous(memory_format=layout)
        for how in ((3, "zeros", False), (1, "replicate", True)):
            torch.library.opcheck(torch.ops.fastllie.zerodcepp_forward.default, (x, whole, *how))
        out = torch.empty_like(x)
        torch.library.opcheck(
            torch.ops.fastllie.zerodcepp_forward_into.default, (x, whole, 3, "zeros", False, out)
        )
