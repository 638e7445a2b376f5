"""Packed convolutions against torch's in float64: every arithmetic and instruction set, all around them."""

import pytest
import torch
import torch.nn.functional as F
from serving import device_of

from fastllie import _native
from fastllie.ops.convolution import ARITHMETICS, Source, convolve, pack_convolution
from fastllie.ops.launch import has_tiles

# inputs, outputs, batch, height, width
SHAPES = {
    "first": (3, 32, 1, 13, 17),
    "few": (4, 8, 2, 5, 3),
    "square": (32, 32, 1, 37, 61),
    "last": (32, 24, 1, 9, 100),
    "batch": (64, 48, 3, 21, 30),
    "odd": (17, 19, 1, 8, 9),
    "row": (16, 64, 1, 1, 37),
    "column": (8, 3, 2, 29, 1),
    "pixel": (24, 16, 1, 1, 1),
    "deep": (512, 64, 1, 6, 5),
    "wide": (64, 512, 1, 5, 7),
    "uneven": (34, 33, 1, 7, 70),
}
# of the largest output: rounding of the factors to bfloat16, and what the transforms make of it
TOLERANCES = {"pairs": 1e-6, "tiles": 1e-6, "winograd2_pairs": 2e-2, "winograd4_pairs": 4e-2}
# of these what the rounding leaves is computed exactly
ROUNDED = ("pairs", "tiles")
each_arithmetic = pytest.mark.parametrize("arithmetic", ARITHMETICS, indirect=True)


@pytest.fixture
def arithmetic(request):
    if request.param == "tiles" and not has_tiles():
        pytest.skip("this machine has no tiles of bfloat16")
    return request.param


@pytest.fixture(autouse=True)
def native():
    device_of("cpu")


def draw(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


class Case:
    """A convolution with everything that comes after it, and its exact result."""

    def __init__(self, inputs, outputs, *, side=3, slope=0.2, affine=True):
        self.weight = draw(outputs, inputs, side, side, seed=1) / (side * inputs**0.5)
        self.bias, self.scale, self.shift = draw(3, outputs, seed=2)
        self.slope = slope
        if not affine:
            self.scale = self.shift = None

    def packed(self, arithmetic="auto", dtype=torch.float32):
        after = {"slope": self.slope, "scale": self.scale, "shift": self.shift}
        return pack_convolution(self.weight, self.bias, **after, arithmetic=arithmetic, dtype=dtype)

    def exact(self, x, padding, arithmetic="direct"):
        weight = self.weight
        if arithmetic in ROUNDED:
            x, weight = x.bfloat16(), weight.bfloat16()
        y = F.conv2d(x.double(), weight.double(), self.bias.double(), padding=padding)
        y = F.leaky_relu(y, self.slope)
        if self.scale is not None:
            y = y * self.scale.double().view(-1, 1, 1) + self.shift.double().view(-1, 1, 1)
        return y


def expect(got, exact, arithmetic):
    largest = float(exact.abs().max()) if exact.numel() else 0.0
    tolerance = TOLERANCES.get(arithmetic, 3e-6) * max(1.0, largest)
    if got.dtype == torch.bfloat16:
        tolerance += largest * 2**-8
    torch.testing.assert_close(got.double(), exact, rtol=0, atol=tolerance)


def using(isa):
    if isa not in _native.cpu.isas():
        pytest.skip(f"this machine cannot run {isa}")
    _native.cpu.set_isa(isa)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "avx512_bf16", "amx"], indirect=True)
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_every_instruction_set(isa, arithmetic):
    for inputs, outputs, batch, height, width in SHAPES.values():
        case = Case(inputs, outputs)
        x = draw(batch, inputs, height, width)
        for padding in (0, 1):
            if padding == 0 and min(height, width) < 3:
                continue
            exact = case.exact(x, padding, arithmetic)
            packed = case.packed(arithmetic)
            if arithmetic == "tiles" and isa != "amx":
                with pytest.raises(ValueError, match="this machine has no tiles of bfloat16"):
                    convolve(x, packed=packed, padding=padding)
                continue
            for dtype in (torch.float32, torch.bfloat16):
                if dtype == torch.bfloat16:
                    exact = case.exact(x.bfloat16(), padding, arithmetic)
                got = convolve(x.to(dtype), packed=packed, padding=padding)
                assert got.shape == exact.shape
                assert got.is_contiguous(memory_format=torch.channels_last)
                expect(got, exact, arithmetic)


@each_arithmetic
def test_several_blocks(arithmetic):
    """Images beyond a block each way, and sides just around the tiles'; outputs of one tile, and of three."""
    for outputs in (16, 33):
        case = Case(16, outputs)
        for height, width in ((70, 203), (33, 95), (34, 96), (35, 97), (9, 49), (131, 4)):
            x = draw(1, 16, height, width)
            got = convolve(x, packed=case.packed(arithmetic), padding=1)
            expect(got, case.exact(x, 1, arithmetic), arithmetic)


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
def test_what_comes_after(slope, affine):
    x = draw(2, 20, 11, 23)
    for side in (1, 3):
        case = Case(20, 12, side=side, slope=slope, affine=affine)
        for arithmetic in ("direct", "pairs"):
            got = convolve(x, packed=case.packed(arithmetic))
            expect(got, case.exact(x, side // 2, arithmetic), arithmetic)


def test_without_bias():
    x, weight = draw(1, 8, 9, 9), draw(8, 8, 3, 3, seed=1)
    got = convolve(x, packed=pack_convolution(weight))
    expect(got, F.conv2d(x.double(), weight.double(), padding=1), "direct")


SAMPLED = {
    "same": lambda x: x,
    "pooled": lambda x: F.max_pool2d(x, 2),
    "enlarged": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False),
    "stretched": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
}


@each_arithmetic
@pytest.mark.parametrize("sampling", SAMPLED)
def test_two_sources(sampling, arithmetic):
    """A sampled source beside a plain one, either or both scaled by a map, of any layout."""
    height, width = {"same": (12, 22), "pooled": (25, 45)}.get(sampling, (6, 11))
    for channels in ((16, 32), (3, 1), (24, 20), (72, 8)):
        first = draw(2, channels[0], height, width)
        second = draw(2, channels[1], 12, 22, seed=3)
        scales = draw(2, 2, 12, 22, seed=4)
        case = Case(sum(channels), 20)
        for maps in ((None, None), (None, 0), (1, None), (0, 1)):
            grids = [None if place is None else scales[:, place : place + 1] for place in maps]
            parts = [Source(first.contiguous(memory_format=torch.channels_last), sampling, grids[0])]
            parts.append(Source(second, "same", grids[1]))
            got = convolve(*parts, packed=case.packed(arithmetic))
            inputs = [SAMPLED[sampling](first.double()), second.double()]
            inputs = [x if grid is None else x * grid for x, grid in zip(inputs, grids, strict=True)]
            exact = case.exact(torch.cat(inputs, 1), 1)
            expect(got, exact, "winograd2_pairs" if arithmetic in ROUNDED else arithmetic)


def test_stretched_pixels():
    """A side of one pixel has no corners to be aligned."""
    case = Case(4, 4)
    for height, width in ((1, 1), (1, 5), (3, 1)):
        for sampling in ("enlarged", "stretched"):
            x = draw(1, 4, height, width)
            got = convolve(Source(x, sampling), packed=case.packed("direct"))
            expect(got, case.exact(SAMPLED[sampling](x.double()), 1), "direct")


@each_arithmetic
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_into_channels_of_a_wider_tensor(arithmetic, dtype):
    case = Case(16, 24)
    x = draw(2, 16, 10, 14).to(dtype)
    wide = torch.full((2, 40, 10, 14), 7.0, dtype=dtype).contiguous(memory_format=torch.channels_last)
    got = convolve(x, packed=case.packed(arithmetic), out=wide[:, 8:32])
    assert got.data_ptr() == wide[:, 8:].data_ptr()
    assert torch.equal(got, convolve(x, packed=case.packed(arithmetic)))
    assert bool((wide[:, :8] == 7).all())
    assert bool((wide[:, 32:] == 7).all())


@each_arithmetic
def test_threads_do_not_change_the_bits(arithmetic):
    x = draw(2, 64, 45, 130)
    packed = Case(64, 96).packed(arithmetic)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(convolve(x, packed=packed))
            # an image of its own or one of a batch
            results.append(torch.cat([convolve(image, packed=packed) for image in x.split(1)]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


def test_nothing():
    packed = Case(8, 16).packed()
    for size in ((0, 8, 4, 5), (2, 8, 0, 5), (2, 8, 4, 0)):
        assert convolve(torch.empty(size), packed=packed).shape == (size[0], 16, *size[2:])
    assert convolve(torch.empty(1, 8, 2, 2), packed=packed, padding=0).shape == (1, 16, 0, 0)


def test_automatic_arithmetic():
    bf16 = {"dtype": torch.bfloat16}
    before = _native.cpu.isa()
    try:
        _native.cpu.set_isa("baseline")
        assert Case(32, 32).packed(**bf16).arithmetic == "winograd4"
        assert Case(3, 32).packed(**bf16).arithmetic == "direct"
        using("avx512_bf16")
        assert Case(32, 32).packed(**bf16).arithmetic == "winograd4_pairs"
        assert Case(3, 32).packed(**bf16).arithmetic == "pairs"
        assert Case(32, 32).packed().arithmetic == "winograd4"
        assert Case(32, 32, side=1).packed().arithmetic == "direct"
        using("amx")
        assert Case(3, 32, side=1).packed(**bf16).arithmetic == "tiles"
        assert Case(32, 32).packed().arithmetic == "winograd4"
    finally:
        _native.cpu.set_isa(before)


@pytest.mark.parametrize("arithmetic", ["direct", "tiles"], indirect=True)
def test_nan_spreads_no_further_than_it_should(arithmetic):
    for inputs in (4, 16, 34):
        x = draw(1, inputs, 12, 16)
        x[0, 3, 5, 6] = float("nan")
        got = convolve(x, packed=Case(inputs, 16).packed(arithmetic))
        expected = torch.zeros(12, 16, dtype=torch.bool)
        expected[4:7, 5:8] = True
        assert torch.equal(got.isnan(), expected.expand_as(got))


def test_bad_weights():
    weight = draw(4, 3, 3, 3)
    with pytest.raises(TypeError, match=r"weight must be a floating-point torch\.Tensor, got list"):
        pack_convolution([1.0])
    with pytest.raises(TypeError, match=r"bias must be a floating-point torch\.Tensor, got torch\.int64"):
        pack_convolution(weight, torch.ones(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"got shape \(4, 3, 5, 5\)"):
        pack_convolution(draw(4, 3, 5, 5))
    with pytest.raises(ValueError, match=r"scale must be \[4\], got shape \(3,\)"):
        pack_convolution(weight, scale=torch.ones(3))
    with pytest.raises(ValueError, match=r"slope must lie in \[0, 1\], got 1.5"):
        pack_convolution(weight, slope=1.5)
    with pytest.raises(ValueError, match=r"arithmetic must be 'auto' or one of .*, got 'fft'"):
        pack_convolution(weight, arithmetic="fft")
    with pytest.raises(ValueError, match=r"winograd2 needs a 3x3 convolution, got 1x1"):
        pack_convolution(draw(4, 3, 1, 1), arithmetic="winograd2")


def test_bad_sources():
    packed = Case(8, 4).packed()
    x = draw(1, 8, 6, 7)
    with pytest.raises(ValueError, match=r"wanted one or two sources, got 0"):
        convolve(packed=packed)
    with pytest.raises(TypeError, match=r"source 0 must be float32 or bfloat16, got torch\.float64"):
        convolve(x.double(), packed=packed)
    with pytest.raises(ValueError, match=r"the convolution takes 8 channels, got 7"):
        convolve(x[:, :7], packed=packed)
    with pytest.raises(
        ValueError, match=r"alike in batch, height and width, got \[\(1, 6, 7\), \(1, 3, 3\)\]"
    ):
        convolve(x[:, :4], Source(x[:, 4:], "pooled"), packed=packed)
    with pytest.raises(ValueError, match=r"sampling must be one of .*, got 'halved'"):
        convolve(Source(x, "halved"), packed=packed)
    with pytest.raises(ValueError, match=r"map must be \[1, 1, 6, 7\] in float32, got \(6, 7\)"):
        convolve(Source(x, "same", torch.ones(6, 7)), packed=packed)
    with pytest.raises(ValueError, match=r"padding must be 0 or 1, got 2"):
        convolve(x, packed=packed, padding=2)
    with pytest.raises(ValueError, match=r"nothing is left of \(6, 1\)"):
        convolve(x[..., :1], packed=packed, padding=0)
    with pytest.raises(ValueError, match=r"out must be \[1, 4, 6, 7\] on cpu, got \(1, 4, 6, 6\)"):
        convolve(x, packed=packed, out=torch.empty(1, 4, 6, 6))
    with pytest.raises(ValueError, match=r"out must have its channels side by side"):
        convolve(x, packed=packed, out=torch.empty(1, 4, 6, 7))
    with pytest.raises(RuntimeError, match=r"convolve needs tensors on 'cpu', got meta"):
        convolve(x.to("meta"), packed=packed)
    with pytest.raises(RuntimeError, match=r"has no gradient"):
        convolve(x.requires_grad_(), packed=packed)


def test_opcheck():
    packed = Case(8, 4).packed("direct")
    x, scales = draw(1, 8, 6, 7), torch.ones(1, 1, 3, 3)
    rest = (packed.weights, packed.epilogue, [8, 4, 3, 0], "direct", 0.2, True)
    forward, into = torch.ops.fastllie.convolution_forward, torch.ops.fastllie.convolution_forward_into
    torch.library.opcheck(forward.default, ([x], ["pooled"], [scales], *rest))
    torch.library.opcheck(forward.default, ([x[:, :3], x[:, 3:]], ["same", "same"], [None, None], *rest))
    out = torch.empty(1, 4, 4, 5).contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(into.default, ([x], ["same"], [None], *rest, out))
