"""Networks behind an exposure meter: what they are shown, and that all else is as without one."""

import numpy as np
import pytest
import torch
from helpers import random_network, refused, write_weights

import fastllie
from fastllie import checkpoint
from fastllie.checkpoint.pretrained import method_of, to_file
from fastllie.defaults import LUMA
from fastllie.models import Metered, ZeroDCE
from fastllie.models.metered import exposed, gain_of, metered, taught

METHODS = ["zerodce", "zerodce++", "sci", "enlightengan", "nerco"]
LEVEL = 0.4


def dark(*shape, seed=0, brightest=0.1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * brightest


def read(x):
    return (x * torch.tensor(LUMA, dtype=x.dtype).view(3, 1, 1)).sum(1).square().mean((1, 2)).sqrt()


def odds(value):
    return value / (1 - value)


@pytest.fixture
def weights(tmp_path):
    def write(method, **settings):
        return write_weights(tmp_path / f"{method}.safetensors", method, **settings)

    return write


# --- the meter


@pytest.mark.parametrize("level", [0.1, LEVEL])
def test_the_odds_of_what_it_reads_become_those_of_the_level(level):
    x = dark(3, 3, 11, 17).double() * torch.tensor([1.0, 0.3, 0.02]).view(3, 1, 1, 1)
    gain = gain_of(x, level)
    assert gain.shape == (3, 1, 1, 1)
    assert torch.allclose(gain.flatten() * odds(read(x)), torch.full((3,), odds(level)).double())
    y = exposed(x, gain)
    most = x.amax(1, keepdim=True)
    # a colour as bright as the brightest of its pixel, as all are in grey, gets the odds; the others less
    assert torch.allclose(odds(y.amax(1, keepdim=True)), gain * odds(most))
    assert torch.equal(y.argmax(1), x.argmax(1))
    assert bool((odds(y) <= gain * odds(x) * (1 + 1e-12)).all())
    assert bool((y / y.amax(1, keepdim=True) >= x / most * (1 - 1e-12)).all())
    assert torch.allclose(y, gain * x / (1 + (gain - 1) * (x + most) / 2))
    assert torch.equal(y, metered(x, level))
    assert y.max() < 1
    # while a network learns all colours get the odds
    assert torch.allclose(odds(taught(x, gain)), gain * odds(x))


def test_bright_pictures_stay_as_they_are_and_black_ones_black():
    x = torch.cat([dark(1, 3, 8, 8, brightest=1.0).clamp(min=0.35), torch.zeros(1, 3, 8, 8)])
    x[0, 0, 0, 0], x[0, 0, 0, 1] = 0, 1
    assert torch.equal(metered(x, LEVEL), x)
    assert gain_of(x, LEVEL)[0] == 1
    assert gain_of(x, LEVEL)[1].isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_metered_in_float32(dtype):
    x = dark(1, 3, 300, 300, brightest=0.02).to(dtype)
    assert gain_of(x, LEVEL).dtype == torch.float32
    assert torch.allclose(gain_of(x, LEVEL), gain_of(x.float(), LEVEL), rtol=1e-5)
    assert metered(x, LEVEL).dtype == dtype
    assert torch.allclose(metered(x, LEVEL).float(), metered(x.float(), LEVEL), atol=4e-3)


def test_bytes_are_metered_as_their_floats():
    pixels = (dark(2, 3, 40, 50) * 255).round().byte()
    assert torch.allclose(gain_of(pixels, LEVEL), gain_of(pixels.float() / 255, LEVEL), rtol=1e-5)


def test_a_lamp_in_the_night_holds_the_meter_back():
    night = torch.full((2, 3, 40, 40), 0.02)
    night[1, :, :3, :3] = 1.0
    plain, lit = gain_of(night, LEVEL).flatten()
    assert lit < plain / 3


def test_bytes_of_a_large_picture_are_read_in_strips():
    pixels = (dark(1, 3, 600, 9) * 255).byte()
    pixels[:, :, 500:] //= 3
    assert torch.allclose(gain_of(pixels, LEVEL), gain_of(pixels.float() / 255, LEVEL), rtol=1e-5)


def test_gradients_of_the_meter():
    x = dark(2, 3, 4, 5).double() + 0.01
    assert torch.autograd.gradcheck(lambda x: metered(x, LEVEL), x.requires_grad_())


# --- the networks behind it


@pytest.mark.parametrize("method", METHODS)
def test_a_network_sees_what_the_meter_shows(method, weights):
    network = fastllie.load(method, weights(method, meter=LEVEL))
    assert isinstance(network, Metered)
    assert network.meter == LEVEL
    x = dark(2, 3, 50, 66)
    x[1] *= 0.2
    wanted = random_network(method)(metered(x, LEVEL))
    for y in (network(x), network.standard(x), network.plain()(x), network(x, **network.observe(x).keywords)):
        assert torch.allclose(y, wanted, atol=2e-5)
    # each by its own light
    assert torch.allclose(network(x[1:]), wanted[1:], atol=2e-5)
    many = fastllie.enhance(
        x.to(memory_format=torch.channels_last), method, weights=weights(method, meter=LEVEL)
    )
    assert torch.allclose(many, wanted, atol=2e-5)


@pytest.mark.parametrize("method", METHODS)
def test_all_kinds_of_images_and_tiles(method, weights):
    path = weights(method, meter=LEVEL)
    pixels = (np.random.default_rng(0).random((70, 90, 3)) * 30).astype(np.uint8)
    # half of it darker: the pieces read otherwise than the whole
    pixels[:, 45:] //= 4
    wanted = random_network(method)(metered(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255, LEVEL))
    wanted = (wanted[0].permute(1, 2, 0) * 255).detach().numpy()
    for how in ({}, {"channels": "bgr"}, {"tile": None}):
        given = pixels[..., ::-1] if "channels" in how else pixels
        y = fastllie.enhance(given, method, weights=path, **how)
        assert y.dtype == np.uint8
        y = y[..., ::-1] if "channels" in how else y
        assert np.abs(y - wanted).max() < 0.51
    if fastllie.info(method).halo is not None and method != "enlightengan":
        tiled = fastllie.enhance(pixels, method, weights=path, tile=32)
        assert np.abs(tiled - wanted).max() < 0.51


def test_tiles_of_a_guided_network_are_exact(weights):
    path = weights("enlightengan", meter=LEVEL)
    x = dark(1, 3, 500, 330)
    x[..., 200:] *= 0.1
    whole, parts = (fastllie.enhance(x, "enlightengan", weights=path, tile=tile) for tile in (None, 320))
    assert torch.allclose(parts, whole, atol=1e-5)


def test_an_image_of_one_pixel_and_half_precision(weights):
    path = weights("zerodce", meter=LEVEL)
    x = torch.full((1, 3, 1, 1), 0.05)
    assert fastllie.enhance(x, "zerodce", weights=path).shape == x.shape
    y = fastllie.enhance(dark(1, 3, 30, 40), "zerodce", weights=path)
    half = fastllie.enhance(dark(1, 3, 30, 40), "zerodce", weights=path, dtype=torch.bfloat16)
    assert torch.allclose(half, y, atol=0.03)


def test_torch_func_and_gradients_pass_through(weights):
    network = fastllie.load("zerodce", weights("zerodce", meter=LEVEL))
    x = dark(3, 3, 12, 14)
    apart = torch.func.vmap(lambda image: network(image[None])[0])(x)
    assert torch.allclose(apart, network(x), atol=1e-5)
    x.requires_grad_()
    network(x).sum().backward()
    assert x.grad.abs().max() > 0


# --- files


def test_the_meter_is_in_the_file(tmp_path, weights):
    network = fastllie.load("sci", weights("sci", meter=LEVEL))
    (tmp_path / "again.safetensors").write_bytes(to_file("sci", network))
    again = fastllie.load("sci", tmp_path / "again.safetensors")
    assert again.meter == LEVEL
    x = dark(1, 3, 20, 20)
    assert torch.equal(again(x), network(x))
    with refused(ValueError, "the published code knows no meter"):
        checkpoint.export_official(network, tmp_path / "official.pt")
    assert not (tmp_path / "official.pt").exists()
    with refused(TypeError, "Metered is the network of no method"):
        method_of(Metered)


@pytest.mark.parametrize("given", [1.5, 0.0, float("nan"), [0.3, 0.4]])
def test_a_file_with_a_meter_that_is_none(given, weights):
    path = weights("zerodce", meter=given)
    with pytest.raises(ValueError, match="meter in the file must be a number between 0 and 1, got "):
        fastllie.load("zerodce", path)


def test_levels_that_are_none():
    with refused(ValueError, "meter must lie between 0 and 1, got 1"):
        Metered(ZeroDCE(), 1)
    with refused(TypeError, "meter must be a number, got str"):
        Metered(ZeroDCE(), "bright")
