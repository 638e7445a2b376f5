"""`dawn`: its parts, its options, exact tiles, and the files of its weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import random_network, write_weights
from torch import nn

import fastllie
from fastllie.models import Dawn
from fastllie.models.contract import Window
from fastllie.models.dawn.brain import CHROMA, noise_levels, see, thumbnail
from fastllie.models.dawn.denoiser import Denoiser
from fastllie.models.dawn.network import HALO
from fastllie.models.luma import luma
from fastllie.ops import reference


def network(dtype: torch.dtype = torch.float32, **options) -> Dawn:
    return random_network("dawn", **options).to(dtype)


def picture(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Dark, brighter to the right, noisy."""
    generator = torch.Generator().manual_seed(1)
    ramp = torch.linspace(0.02, 0.3, size[-1]).expand(size)
    return (ramp + 0.02 * torch.randn(size, generator=generator)).clamp(0, 1).to(dtype)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3), (16, 16), (33, 50), (120, 90)])
def test_any_size_comes_back_as_large_and_in_range(size):
    x = picture(2, 3, *size)
    y = network()(x)
    assert y.shape == x.shape
    assert y.min() >= 0
    assert y.max() <= 1


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 3e-2)]
)
def test_other_dtypes_give_about_the_same(dtype, tolerance):
    x = picture(1, 3, 50, 70)
    y = network(dtype)(x.to(dtype))
    assert y.dtype == dtype
    assert (y.float() - network()(x)).abs().max() < tolerance


def test_images_of_a_batch_do_not_know_each_other():
    first, second = picture(1, 3, 40, 60), 0.4 * picture(1, 3, 40, 60).flip(3)
    together = network()(torch.cat([first, second]))
    assert torch.allclose(together[1:], network()(second), atol=1e-6)


def test_the_thumbnail_is_the_mean_over_areas():
    x = picture(1, 3, 128, 288, dtype=torch.float64)
    assert torch.allclose(thumbnail(x), nn.functional.avg_pool2d(x, (2, 3)))
    # cells that begin and end within pixels: no light is lost
    odd = picture(1, 3, 101, 67, dtype=torch.float64)
    assert torch.allclose(thumbnail(odd).mean((2, 3)), odd.mean((2, 3)))


def test_noise_is_measured_by_colour_and_scale():
    generator = torch.Generator().manual_seed(0)
    flat = torch.full((1, 3, 300, 400), 0.2, dtype=torch.float64)
    mean = torch.full((1, 1, 1, 1), 0.2, dtype=torch.float64)
    assert noise_levels(flat, mean).abs().max() < 1e-12
    noise = 0.01 * torch.randn(1, 3, 300, 400, generator=generator, dtype=torch.float64)
    levels = noise_levels(flat + noise, mean)
    # v moves by 5/4 of what x does; the measure gives 0.57 of a deviation
    assert levels[0, 0].item() == pytest.approx(0.57 * 0.01 * 1.25 * luma_gain(), rel=0.05)
    assert torch.allclose(levels[:, :3], levels[:, 3:], rtol=0.1)
    coarse = 0.01 * torch.randn(1, 1, 75, 100, generator=generator, dtype=torch.float64)
    grey = flat + nn.functional.interpolate(coarse, (300, 400), mode="bilinear")
    levels = noise_levels(grey, mean)
    assert levels[0, 3] > 2 * levels[0, 0]
    assert levels[0, 1:3].max() < 1e-3 * levels[0, 0]


def luma_gain() -> float:
    return float(torch.tensor([0.299, 0.587, 0.114]).square().sum().sqrt())


def test_edges_are_hardly_taken_for_noise():
    generator = torch.Generator().manual_seed(0)
    flat = torch.full((1, 3, 300, 400), 0.1)
    noisy = flat + 0.01 * torch.randn(1, 3, 300, 400, generator=generator)
    stripes = noisy.clone()
    stripes[..., ::10] = 0.8
    mean = torch.full((1, 1, 1, 1), 0.1)
    assert noise_levels(stripes, mean)[0, 0] < 1.5 * noise_levels(noisy, mean)[0, 0]


def test_weights_of_one_are_the_picture_itself():
    v = picture(1, 3, 64, 96, dtype=torch.float64)
    made = Denoiser().double()
    clean = made(v, see(v).noise, 0.0)
    assert torch.allclose(clean, v, atol=1e-7)
    assert not torch.allclose(made(v, see(v).noise, 1.0), v, atol=1e-3)


def test_denoise_blends():
    x = picture(1, 3, 64, 96)
    v = [network(denoise=amount) for amount in (0.0, 0.5, 1.0)]
    nothing, half, all_of_it = (one.denoised(x, one.look(x)) for one in v)
    assert torch.allclose(half, (nothing + all_of_it) / 2, atol=1e-5)


def test_exposure_reaches_its_level():
    x = picture(1, 3, 64, 96)
    for level in (0.2, 0.5):
        found = network(exposure=level, denoise=0)
        # of the thumbnail; that of the pixels is close to it
        assert luma(found(x)).mean().item() == pytest.approx(level, abs=0.05)


@pytest.mark.parametrize("options", [{"denoise": 1.1}, {"denoise": -1}, {"exposure": 0}, {"exposure": 1.0}])
def test_options_out_of_range_are_errors(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Dawn(**options)


def test_a_part_of_what_was_observed_is_that_part_of_the_whole():
    made = network(torch.float64)
    x = picture(2, 3, 230, 310, dtype=torch.float64)
    part = made(x[..., 32:, 48:], *made.look(x), window=Window(32, 48, 230, 310))
    whole = made(x)
    assert torch.allclose(part[..., 64:, 64:], whole[..., 96:, 112:], atol=1e-12)
    # the halo is needed: without it the border shows
    assert (part[..., :8, :] - whole[..., 32:40, 48:]).abs().max() > 1e-6


def test_nothing_further_than_the_halo_counts():
    made = network(torch.float64)
    x = picture(1, 3, 320, 320, dtype=torch.float64)
    sight = made.look(x)
    changed = x.clone()
    changed[..., 160:176, 160:176] = 0.9
    moved = (made(changed, *sight) - made(x, *sight)).abs().amax((0, 1)).amax(1)
    rows = (moved > 1e-12).nonzero()[:, 0]
    assert 160 - HALO < rows.min() < 150
    assert 185 < rows.max() < 176 + HALO


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "dawn.safetensors", "dawn")


@pytest.mark.parametrize("tile", [48, 100, "auto"])
@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_tiles_are_exact(weights, tile, kind):
    image = picture(1, 3, 230, 310)[0].permute(1, 2, 0).numpy()
    if kind == "bytes":
        image = np.rint(image * 255).astype(np.uint8)
    whole = fastllie.enhance(image, "dawn", weights=weights, tile=None).astype(np.float64)
    pieces = fastllie.enhance(image, "dawn", weights=weights, tile=tile).astype(np.float64)
    assert np.abs(pieces - whole).max() <= (1 if kind == "bytes" else 1e-5)


def test_bgr_and_strength(weights):
    image = np.rint(picture(1, 3, 90, 70)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    image[..., 0] //= 2
    rgb = fastllie.enhance(image, "dawn", weights=weights)
    bgr = fastllie.enhance(image[..., ::-1], "dawn", weights=weights, channels="bgr", tile=48)
    assert np.abs(bgr[..., ::-1].astype(int) - rgb.astype(int)).max() <= 1
    half = fastllie.enhance(image, "dawn", weights=weights, strength=0.5)
    assert np.abs(half - (image.astype(float) + rgb) / 2).max() <= 1


def test_options_reach_the_network(weights):
    assert fastllie.load("dawn", weights, denoise=0.5, exposure=0.4).exposure == 0.4
    with pytest.raises(TypeError, match="denoise"):
        fastllie.load("dawn", weights, denoising=0.5)


class TestGridCurve:
    def test_a_flat_grid_is_the_curve(self):
        x = picture(2, 3, 20, 30, dtype=torch.float64)
        alpha = torch.tensor([0.5, -0.2, 0.9], dtype=torch.float64)
        grid = torch.zeros(2, 6, 8, 8, 12, dtype=torch.float64)
        grid[:, :3] = alpha.view(3, 1, 1, 1)
        y = reference.apply_grid_curve(x, grid, luma(x))
        assert torch.allclose(y, reference.curve(x, alpha.view(1, 3, 1, 1).expand_as(x), 8))

    def test_black_is_taken_off(self):
        x = picture(1, 3, 20, 30, dtype=torch.float64)
        grid = torch.zeros(1, 6, 8, 8, 12, dtype=torch.float64)
        grid[:, 3:] = 0.05
        assert torch.allclose(reference.apply_grid_curve(x, grid, luma(x)), ((x - 0.05) / 0.95).clamp(0, 1))

    def test_as_grid_sample_slices(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(2, 3, 21, 34, generator=generator, dtype=torch.float64)
        grid = 0.5 * torch.rand(2, 6, 8, 8, 12, generator=generator, dtype=torch.float64)
        guide = torch.rand(2, 1, 21, 34, generator=generator, dtype=torch.float64)
        down = ((torch.arange(21, dtype=torch.float64) + 0.5) / 21 * 2 - 1).view(1, 21, 1).expand(2, 21, 34)
        across = ((torch.arange(34, dtype=torch.float64) + 0.5) / 34 * 2 - 1).expand(2, 21, 34)
        # that counts lumas from the middle of the first cell to that of the last, as places are not
        deep = (guide[:, 0] * 7 + 0.5) / 8 * 2 - 1
        places = torch.stack([across, down, deep], -1)[:, None]
        sliced = nn.functional.grid_sample(grid, places, align_corners=False, padding_mode="border")[:, :, 0]
        y = ((x - sliced[:, 3:]) / (1 - sliced[:, 3:])).clamp(0, 1)
        want = reference.curve(y, sliced[:, :3], 8)
        assert torch.allclose(reference.apply_grid_curve(x, grid, guide), want)

    def test_gradients(self):
        generator = torch.Generator().manual_seed(0)
        x = 0.2 + 0.6 * torch.rand(1, 3, 3, 4, generator=generator, dtype=torch.float64)
        grid = 0.1 * torch.rand(1, 6, 3, 2, 2, generator=generator, dtype=torch.float64)
        guide = 0.1 + 0.8 * torch.rand(1, 1, 3, 4, generator=generator, dtype=torch.float64)
        inputs = [one.requires_grad_() for one in (x, grid, guide)]
        assert torch.autograd.gradcheck(lambda *args: reference.apply_grid_curve(*args, steps=3), inputs)


def test_the_chroma_of_grey_is_zero():
    assert [abs(sum(row)) < 1e-9 for row in CHROMA] == [True, True]


def test_gradients_come_from_the_fused_curve(monkeypatch):
    x, trained = picture(2, 3, 33, 50, dtype=torch.float64), network(torch.float64).requires_grad_()
    parameters, weights = list(trained.parameters()), picture(2, 3, 33, 50, dtype=torch.float64)
    plain = torch.autograd.grad((trained.standard(x) * weights).sum(), parameters)
    # from here on there is no formula to fall back to
    monkeypatch.setattr(reference, "apply_grid_curve", None)
    fused = torch.autograd.grad((trained(x) * weights).sum(), parameters)
    for a, b in zip(fused, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_whole_graphs_compile():
    made = network()
    x = picture(1, 3, 40, 70)
    compiled = torch.compile(lambda x: made(x), dynamic=True, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x), made(x), atol=1e-6)
