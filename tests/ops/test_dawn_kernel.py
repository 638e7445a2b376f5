"""dawn's CPU kernels against its modules: instruction sets, dtypes, layouts, odd sizes, parts of pictures."""

import pytest
import torch
from helpers import refused

from fastllie import _native
from fastllie.models.dawn import Dawn
from fastllie.models.dawn.brain import PLACES, Brain, Seen, noise_levels, see
from fastllie.models.dawn.brain import thumbnail as plain_thumbnail
from fastllie.ops import dawn
from fastllie.ops.launch import has_tiles

pytestmark = pytest.mark.skipif(_native.cpu is None, reason=f"fastllie._cpu: {_native.reasons.get('cpu')}")
SIZES = [(1, 1), (5, 3), (16, 16), (17, 50), (64, 96), (75, 131), (40, 333)]


def network(seed=0, denoise=1.0):
    """Random weights, as after some training: weights of the bands that vary, a grid that does."""
    torch.manual_seed(seed)
    made = Dawn(denoise=denoise).eval().requires_grad_(False)
    for name, tensor in made.state_dict().items():
        if name.endswith("last.weight"):
            tensor.copy_(0.3 * torch.randn_like(tensor))
        if name == "denoiser.gains":
            tensor.copy_(-1.5 + 0.2 * torch.randn_like(tensor))
    return made


def photograph(batch, height, width, seed=0):
    torch.manual_seed(seed)
    smooth = torch.nn.functional.interpolate(torch.rand(batch, 3, 5, 6), (height, width), mode="bilinear")
    return (0.4 * smooth**2 + 0.02 * torch.randn_like(smooth)).clamp(0, 1)


def parts_of(made, x):
    """What the kernel takes: the packed weights, and what was observed."""
    seen = made.look(x.double() if x.dtype == torch.float64 else x.float())
    gains, biases = made.denoiser.settings(seen.noise)
    flat = torch.cat([bias for level in biases for bias in level], 1)
    observed = dawn.Known(*(t.float().contiguous() for t in (seen.grid, seen.mean, gains, flat)))
    return dawn.pack_dawn(made.denoiser.state_dict()), observed


def exact(made, x, seen=None, **part):
    """The modules' result in float64, of what was observed in float32."""
    double = Dawn(denoise=made.denoise).double()
    double.load_state_dict({name: tensor.double() for name, tensor in made.state_dict().items()})
    seen = made.look(x.float()) if seen is None else seen
    with torch.no_grad():
        return double(x.double(), *(tensor.double() for tensor in seen), **part)


@pytest.fixture(params=_native.cpu.isas() if _native.cpu else [])
def isa(request):
    before = _native.cpu.isa()
    _native.cpu.set_isa(request.param)
    yield request.param
    _native.cpu.set_isa(before)


@pytest.mark.parametrize("denoise", [1.0, 0.4, 0.0])
@pytest.mark.parametrize("size", SIZES)
def test_matches_the_modules(size, denoise, isa):
    made, x = network(denoise=denoise), photograph(2, *size)
    packed, observed = parts_of(made, x)
    got = dawn.enhance_dawn(x, packed, observed, denoise=denoise)
    assert (got - x).abs().max() > 0.05
    torch.testing.assert_close(got.double(), exact(made, x), rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.uint8])
def test_stored_types(dtype):
    made, x = network(), photograph(1, 40, 70)
    stored = (x * 255).round().to(dtype) if dtype == torch.uint8 else x.to(dtype)
    given = stored.float() / 255 if dtype == torch.uint8 else stored.float()
    packed, observed = parts_of(made, given)
    got = dawn.enhance_dawn(stored, packed, observed)
    assert got.dtype == dtype
    expected = exact(made, given)
    if dtype == torch.uint8:
        assert ((got.double() / 255 - expected).abs() <= 0.5 / 255 + 2e-5).all()
    else:
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=4e-3)


def test_layouts_and_out():
    made, x = network(), photograph(2, 37, 60)
    packed, observed = parts_of(made, x)
    want = dawn.enhance_dawn(x, packed, observed)
    last = x.contiguous(memory_format=torch.channels_last)
    got = dawn.enhance_dawn(last, packed, observed)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(got, want)
    wide = torch.zeros(2, 3, 37, 120)
    out = wide[..., ::2]
    assert dawn.enhance_dawn(torch.flip(torch.flip(x, [3]), [3]), packed, observed, out=out) is out
    assert torch.equal(out, want)
    assert not wide[..., 1::2].any()


def test_blue_green_red():
    made, x = network(), photograph(1, 37, 60)
    packed, observed = parts_of(made, x)
    want = dawn.enhance_dawn(x, packed, observed)
    turned = x.flip(1).contiguous(memory_format=torch.channels_last)
    assert torch.equal(dawn.enhance_dawn(turned, packed, observed, bgr=True).flip(1), want)
    out = torch.empty_like(turned)
    assert torch.allclose(made.enhance_into(turned, out, bgr=True).flip(1), made(x), atol=1e-6)


def test_parts_of_a_picture_are_those_of_the_whole():
    made, x = network(), photograph(1, 200, 230)
    packed, observed = parts_of(made, x)
    whole = dawn.enhance_dawn(x, packed, observed)
    halo = made.contract.halo
    for top, left in ((0, 0), (96, 112), (128, 160)):
        part = x[..., max(0, top - halo) : top + 16 + halo, max(0, left - halo) : left + 32 + halo]
        place = (max(0, top - halo), max(0, left - halo))
        got = dawn.enhance_dawn(part, packed, observed, place=place, size=(200, 230))
        inner = got[..., top - place[0] :, left - place[1] :][..., :16, :32]
        torch.testing.assert_close(inner, whole[..., top : top + 16, left : left + 32], rtol=0, atol=1e-6)


def test_threads_and_instruction_sets_agree():
    made, x = network(), photograph(1, 150, 260)
    packed, observed = parts_of(made, x)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(dawn.enhance_dawn(x, packed, observed))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.fixture
def tiles():
    before = _native.cpu.isa()
    if "amx" not in _native.cpu.isas():
        pytest.skip("this machine has no tiles of bfloat16")
    _native.cpu.set_isa("amx")
    yield
    _native.cpu.set_isa(before)


def rounded(made):
    """The network with the weights of its denoiser as bfloat16 holds them."""
    for name, tensor in made.state_dict().items():
        if name.startswith("denoiser.levels"):
            tensor.copy_(tensor.bfloat16())
    return made


@pytest.mark.parametrize("denoise", [1.0, 0.4])
@pytest.mark.parametrize("size", [*SIZES, (33, 512), (150, 700)])
def test_tiles_match_the_modules(size, denoise, tiles):
    made, x = rounded(network(denoise=denoise)), photograph(2, *size)
    _, observed = parts_of(made, x)
    packed = dawn.pack_dawn(made.denoiser.state_dict(), tiles=True)
    got = dawn.enhance_dawn(x, packed, observed, denoise=denoise)
    error = (got.double() - exact(made, x)).abs()
    # sums are exact, what lies between the layers is bfloat16
    assert error.max() < 0.02
    assert error.mean() < 5e-4
    plain = dawn.enhance_dawn(x, dawn.pack_dawn(made.denoiser.state_dict()), observed, denoise=denoise)
    # a single pixel has nothing in its bands
    assert size == (1, 1) or not torch.equal(got, plain)


def test_tiles_give_every_thread_and_part_the_same(tiles):
    made, x = rounded(network()), photograph(1, 200, 430)
    _, observed = parts_of(made, x)
    packed = dawn.pack_dawn(made.denoiser.state_dict(), tiles=True)
    whole = dawn.enhance_dawn(x, packed, observed)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert torch.equal(dawn.enhance_dawn(x, packed, observed), whole)
    finally:
        torch.set_num_threads(threads)
    halo = made.contract.halo
    part = x[..., 96 - halo : 112 + halo, 112 - halo : 144 + halo]
    got = dawn.enhance_dawn(part, packed, observed, place=(96 - halo, 112 - halo), size=(200, 430))
    inner = got[..., halo : halo + 16, halo : halo + 32]
    torch.testing.assert_close(inner, whole[..., 96:112, 112:144], rtol=0, atol=1e-6)


def test_networks_in_bfloat16_take_tiles(tiles):
    made, x = network().bfloat16(), photograph(1, 100, 150)
    for images in (x.bfloat16(), (x * 255).round().to(torch.uint8)):
        with_tiles = made(images)
        _native.cpu.set_isa("avx512")
        without = made(images)
        _native.cpu.set_isa("amx")
        assert with_tiles.dtype == images.dtype
        difference = (with_tiles.float() - without.float()).abs()
        assert 0 < difference.max() <= (1 if images.dtype == torch.uint8 else 0.02)


def test_tiles_are_refused_where_there_are_none():
    made, x = network(), photograph(1, 20, 20)
    _, observed = parts_of(made, x)
    packed = dawn.pack_dawn(made.denoiser.state_dict(), tiles=True)
    before = _native.cpu.isa()
    try:
        _native.cpu.set_isa("baseline")
        assert not has_tiles()
        with refused(ValueError, "packed must be float32", "no tiles of bfloat16"):
            dawn.enhance_dawn(x, packed, observed)
        if "amx" in _native.cpu.isas():
            _native.cpu.set_isa("amx")
            with refused(ValueError, f"packed in bfloat16 must be [{dawn.PACKED_TILES}]"):
                dawn.enhance_dawn(x, packed[:-1], observed)
    finally:
        _native.cpu.set_isa(before)


def test_the_workspace_is_no_matter_of_defaults():
    made, x = network(), photograph(1, 100, 150)
    packed, observed = parts_of(made, x)
    want = dawn.enhance_dawn(x, packed, observed)
    before, kept = torch.get_default_dtype(), dawn._kept.workspace
    try:
        del dawn._kept.workspace
        torch.set_default_dtype(torch.float16)
        with torch.device("meta"):
            got = dawn.enhance_dawn(x, packed, observed)
        made_then = dawn._kept.workspace
    finally:
        torch.set_default_dtype(before)
        dawn._kept.workspace = kept
    assert (made_then.dtype, made_then.device.type) == (torch.float32, "cpu")
    assert torch.equal(got, want)


def test_packed_tiles_hold_each_weight_once():
    made = network()
    packed = dawn.pack_dawn(made.denoiser.state_dict(), tiles=True)
    kernels = [t for name, t in made.denoiser.state_dict().items() if name.startswith("levels")]
    assert packed.shape == (dawn.PACKED_TILES,)
    held = packed[packed != 0].float().sort().values
    wanted = torch.cat([kernel.flatten() for kernel in kernels]).bfloat16().float()
    assert torch.equal(held, wanted[wanted != 0].sort().values)


@pytest.mark.parametrize("size", [(64, 96), (65, 100), (200, 333), (719, 96)])
def test_thumbnails_are_area_means(size, isa):
    x = photograph(2, *size)
    want = plain_thumbnail(x.double())
    torch.testing.assert_close(dawn.thumbnail(x).double(), want, rtol=0, atol=1e-6)
    bytes_ = (x * 255).round().to(torch.uint8)
    want = plain_thumbnail(bytes_.double() / 255)
    torch.testing.assert_close(dawn.thumbnail(bytes_).double(), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(3, 5), (48, 64), (200, 333)])
def test_noise_is_measured_as_by_the_formula(size, isa):
    x = photograph(2, *size) + 0.02 * torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([0.1, 0.4]).view(2, 1, 1, 1)
    for bgr in (False, True):
        want = noise_levels(x.double(), mean.double(), bgr)
        found = dawn.noise_levels(x, mean, bgr)
        torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=1e-7)
        turned = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        assert torch.equal(dawn.noise_levels(turned, mean, bgr), found)
    bytes_ = (x.clamp(0, 1) * 255).round().to(torch.uint8)
    want = noise_levels(bytes_, mean)
    torch.testing.assert_close(dawn.noise_levels(bytes_, mean), want, rtol=1e-5, atol=1e-7)


def test_operators_are_registered_whole():
    made, x = network(), photograph(1, 64, 96)
    packed, observed = parts_of(made, x)
    torch.library.opcheck(
        torch.ops.fastllie.dawn_forward.default, (x, [packed, *observed], 1.0, [0, 0], [64, 96], False)
    )
    torch.library.opcheck(torch.ops.fastllie.dawn_thumbnail.default, (x,))
    torch.library.opcheck(torch.ops.fastllie.dawn_noise.default, (x, observed.mean, False))
    assert dawn.enhance_dawn(x[:0], packed, dawn.Known(*(t[:0] for t in observed))).shape == (0, 3, 64, 96)


def test_what_does_not_fit_is_refused():
    made, x = network(), photograph(1, 20, 20)
    packed, observed = parts_of(made, x)
    with refused(ValueError, "packed must be float32"):
        dawn.enhance_dawn(x, packed[:-1], observed)
    with refused(ValueError, "gains must be float32", "NoneType"):
        dawn.enhance_dawn(x, packed, dawn.Known(observed.grid, observed.mean))
    with refused(ValueError, "denoise must be from 0 to 1, got 1.5"):
        dawn.enhance_dawn(x, packed, observed, denoise=1.5)
    with refused(ValueError, "at least 64 x 96 pixels"):
        dawn.thumbnail(x)
    with refused(ValueError, "mean must be float32 [1, 1, 1, 1]", "[2]"):
        dawn.noise_levels(x, torch.ones(2))
    with refused(RuntimeError, "no gradient"):
        dawn.enhance_dawn(x.clone().requires_grad_(), packed, observed)


# --- the brain


def exact_grid(made, seen):
    """The module's result in float64."""
    double = Brain().double()
    double.load_state_dict({name: tensor.double() for name, tensor in made.brain.state_dict().items()})
    return double(Seen(*(part.double() for part in seen)))


@pytest.mark.parametrize("size", [(5, 3), (64, 96), (75, 131)])
def test_the_brain_matches_its_module(size, isa):
    made = network(seed=3)
    x = photograph(3, *size)
    x[1] *= 0.02  # nearly black
    x[2] = 0  # and altogether
    seen = see(x)
    got = dawn.dawn_grid(*seen, dawn.pack_brain(made.brain.state_dict()), PLACES)
    expected = exact_grid(made, seen)
    assert expected[:, :3].std() > 0.05
    torch.testing.assert_close(got[:, :3].double(), expected[:, :3], rtol=0, atol=5e-6)
    # black levels are shares of the mean
    limit = 5e-6 * seen.mean[..., None].double().expand_as(expected[:, 3:])
    assert ((got[:, 3:].double() - expected[:, 3:]).abs() <= limit).all()
    assert dawn.dawn_grid(
        *(part[:0] for part in seen), dawn.pack_brain(made.brain.state_dict()), PLACES
    ).shape == (
        0,
        *dawn.GRID,
    )


def test_the_brain_takes_any_strides_and_threads():
    made, seen = network(seed=4), see(photograph(2, 80, 120))
    packed = dawn.pack_brain(made.brain.state_dict())
    got = dawn.dawn_grid(*seen, packed, PLACES)
    strided = (
        seen.thumb.contiguous(memory_format=torch.channels_last),
        seen.mean,
        seen.noise.T.contiguous().T,
    )
    assert torch.equal(dawn.dawn_grid(*strided, packed, PLACES), got)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert torch.equal(dawn.dawn_grid(*seen, packed, PLACES), got)
    finally:
        torch.set_num_threads(threads)


def test_the_network_looks_by_the_kernel():
    made, x = network(seed=5), photograph(1, 90, 140)
    torch.testing.assert_close(made.look(x).grid, made.brain(see(x)), rtol=0, atol=5e-6)
    half = network(seed=5).bfloat16()
    # its weights are rounded, its sums are not
    torch.testing.assert_close(half.look(x.bfloat16()).grid, made.look(x.bfloat16()).grid, rtol=0, atol=0.02)


def test_the_brain_refuses_what_does_not_fit():
    made, seen = network(), see(photograph(1, 70, 100))
    packed = dawn.pack_brain(made.brain.state_dict())
    with refused(ValueError, "thumb must be float32 [1, 3, 64, 96], got torch.float64"):
        dawn.dawn_grid(seen.thumb.double(), seen.mean, seen.noise, packed, PLACES)
    with refused(ValueError, "noise must be float32 [1, 6]"):
        dawn.dawn_grid(seen.thumb, seen.mean, seen.noise[:, :3], packed, PLACES)
    with refused(ValueError, "places must be eight rising numbers below 6144"):
        dawn.dawn_grid(*seen, packed, (*PLACES[:7], 6144))
    with refused(RuntimeError, "dawn_grid"):
        dawn.dawn_grid(seen.thumb.requires_grad_(), seen.mean, seen.noise, packed, PLACES)


def test_the_grid_is_an_operator():
    made, seen = network(seed=6), see(photograph(2, 70, 100))
    packed = dawn.pack_brain(made.brain.state_dict())
    torch.library.opcheck(torch.ops.fastllie.dawn_grid, (*seen, packed, list(PLACES)))
