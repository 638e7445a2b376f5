"""Dark frames made of photographs: their statistics, their targets, their noise, and JPEG beside Pillow's."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import picture
from PIL import Image

from fastllie.training import data
from fastllie.training.data import jpeg, synthesis
from fastllie.training.recipes import Synthesis

NOISELESS = {"read_noise": (1e-9, 1e-9), "shot_noise": (1e-14, 1e-14), "jpeg_share": 0.0}


def exposures(photographs, size=32, batch=4, seed=0, **changes):
    pixels = [torch.from_numpy(np.ascontiguousarray(photo)) for photo in photographs]
    return data.SyntheticExposures(pixels, replace(Synthesis(), **changes), size=size, batch=batch, seed=seed)


def grey(value, side=64):
    return [np.full((side, side, 3), value, np.uint8)]


@pytest.fixture
def smooth():
    return [np.asarray(picture(seed, (80, 64))) // 2 + 60 for seed in range(4)]


def test_dark_frames_are_8_bit_and_darker_than_their_targets(smooth):
    source = exposures(smooth, bright_share=0.0, exposures=(-4.0, -4.0), mixed_share=0.0)
    for batch in map(source.batch, range(3)):
        assert batch.x.shape == batch.target.shape == (4, 3, 32, 32)
        assert batch.x.dtype == batch.target.dtype == torch.float32
        assert batch.x.is_contiguous(memory_format=torch.channels_last)
        assert batch.target.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(batch.x * 255, (batch.x * 255).round(), rtol=0, atol=1e-4)
        assert batch.x.min() >= 0
        assert batch.x.max() <= 1
        assert batch.target.min() >= 0
        assert batch.target.max() < 0.99
        assert (batch.x.mean((1, 2, 3)) < 0.5 * batch.target.mean((1, 2, 3))).all()


def test_well_exposed_frames_are_their_own_targets(smooth):
    batch = exposures(smooth, bright_share=1.0, bright_exposures=(-0.5, 0.5), **NOISELESS).batch(0)
    assert (batch.x - batch.target).abs().max() < 0.5 / 255 + 1e-4


def test_mixed_frames_have_two_exposures_and_one_target():
    source = exposures(
        grey(128),
        64,
        8,
        bright_share=0.0,
        mixed_share=1.0,
        exposures=(-5.0, -5.0),
        target_mean=0.0,
        **NOISELESS,
    )
    frames = source.batch(0)
    spread = frames.x.amax((1, 2, 3)) - frames.x.amin((1, 2, 3))
    assert (spread > 0.1).sum() >= 4
    lifted = frames.target[frames.x < 0.15]
    torch.testing.assert_close(lifted, torch.full_like(lifted, 128 / 255), rtol=0, atol=1e-3)


def test_curved_frames_keep_highlights_above_deep_shadows():
    photo = np.repeat(np.linspace(20, 250, 64).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    settings = {"bright_share": 0.0, "mixed_share": 0.0, "target_mean": 0.0, "zoom": 1.0, **NOISELESS}

    def ratio(**changes):
        x = exposures([photo], 64, 8, exposures=(-2.0, -2.0), **settings, **changes).batch(0).x
        # of the light at two places of the ramp
        levels = (255 * x).round().flatten(2).sort(2).values
        shadow, highlight = (synthesis.linear(levels[..., place]).mean(1) for place in (1600, -1))
        return highlight / shadow, highlight

    plain, _ = ratio()
    curved, highlights = ratio(curved_share=1.0, curves=(2.0, 2.0))
    assert torch.allclose(curved, plain.square(), rtol=0.15), (curved, plain)
    # a quarter of two stops
    assert (highlights > 0.5).all()
    assert plain.max() > 4
    some, _ = ratio(curved_share=0.5, curves=(2.0, 2.0))
    assert 0 < (some > 2 * plain).sum() < 8


def test_patches_are_enlarged_as_by_pillow():
    for count, matrix in enumerate(synthesis._enlargements(64), 2):
        coarse = np.random.default_rng(count).standard_normal((count, count)).astype(np.float32)
        want = np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))
        part = matrix[:, :count].numpy()
        np.testing.assert_allclose(part @ coarse @ part.T, want, atol=1e-5)


def test_crops_are_reduced_as_by_pillow():
    photo = np.asarray(picture(0, (90, 70)))
    chances = synthesis.draw(6, 1).chances
    crops = synthesis.crop([torch.from_numpy(photo.copy())] * 6, 32, 2.0, chances)
    for i, crop in enumerate(crops):
        side = 32 + int(chances.side[i] * 33)
        top, left = int(chances.top[i] * (71 - side)), int(chances.left[i] * (91 - side))
        box = (left, top, left + side, top + side)
        want = np.asarray(Image.fromarray(photo).crop(box).resize((32, 32), Image.Resampling.BICUBIC))
        want = want[:, ::-1] if chances.flip[i] < 0.5 else want
        want = want.transpose(1, 0, 2) if chances.turn[i] < 0.25 else want
        assert np.abs(crop.permute(1, 2, 0).numpy().astype(int) - want).max() <= 1


def test_casts_colour_the_frame_and_its_target_alike():
    settings = {"bright_share": 0.0, "mixed_share": 0.0, "exposures": (-1.0, -1.0), "lift": (0.0, -0.5)}
    plain, cast = (
        exposures(grey(90), 64, 8, **settings, **NOISELESS, target_mean=0.0, cast=amount).batch(0)
        for amount in (0.0, 0.5)
    )
    assert (plain.target.amax(1) - plain.target.amin(1)).max() < 1e-6
    assert (cast.target.amax(1) - cast.target.amin(1)).mean() > 0.05
    frame, target = (((values + 0.055) / 1.055) ** 2.4 for values in (cast.x, cast.target))
    seen = cast.x > 0.1  # below, the encoding is another one, and 8 bits are coarse
    torch.testing.assert_close((2 * frame)[seen], target[seen], rtol=0.03, atol=0)
    assert seen.float().mean() > 0.5


def test_dark_photographs_are_exposed_up_first():
    means = [
        exposures(
            grey(value), 32, 2, target_mean=0.4, bright_share=0.0, exposures=(-5.0, -5.0), mixed_share=0.0
        )
        .batch(0)
        .target.mean()
        .item()
        for value in (40, 150)
    ]
    # 40 of 255 takes less than the two stops that are allowed
    assert 0.27 < means[0] <= 0.41
    assert means[1] == pytest.approx(150 / 255, abs=0.01)


def test_compression_keeps_ratios_and_stays_under_the_ceiling():
    light = torch.linspace(0, 3, 200)[None, None] * torch.tensor([1.0, 0.5, 0.25])[:, None]
    rolled = synthesis.compress(light, 0.95)[0]
    ratios = torch.tensor([1, 0.5, 0.25])[:, None].expand(3, 199)
    torch.testing.assert_close(rolled[:, 1:] / rolled[:1, 1:], ratios)
    assert rolled.max() < 0.95
    below = light[0, 0] <= 0.6
    torch.testing.assert_close(rolled[:, below], light[0][:, below], rtol=1e-6, atol=0)
    assert (rolled[0].diff() > 0).all()


def test_srgb_is_the_standard_one():
    values = np.arange(256, dtype=np.uint8)
    light = synthesis.linear(torch.from_numpy(values))
    unit = values / 255
    want = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(light.numpy(), want, rtol=1e-6)
    np.testing.assert_allclose(synthesis.srgb(light).numpy(), unit, atol=2e-7)
    assert synthesis.srgb(torch.tensor([-1.0, 0.0, 1.0, 7.0])).tolist() == pytest.approx(
        [0, 0, 1, 1], abs=1e-7
    )


@pytest.mark.parametrize("grain", [0.3001, 1.0])
def test_noise_has_the_deviation_that_the_formula_gives(grain):
    """In light, before anything is rounded: variance read^2 + shot * light, whatever the grain."""
    recipe = replace(Synthesis(), read_noise=(2e-3, 2e-3), shot_noise=(3e-4, 3e-4), grain=grain)
    drawn = synthesis.draw(32, 5)
    for level in (0.0, 0.02, 0.3):
        light = torch.full((32, 3, 64, 64), level)
        noise = synthesis._noisy(light, drawn, recipe) - light
        want = (2e-3**2 + 3e-4 * level) ** 0.5
        assert noise.std().item() == pytest.approx(want, rel=0.01)
        assert abs(noise.mean().item()) < 0.02 * want
        blurred = drawn.chances.blurred < 0.5
        neighbours = (noise[..., 1:] * noise[..., :-1]).mean((1, 2, 3)) / want**2
        assert neighbours[~blurred].abs().max() < 0.05
        expected = 0.0
        if grain == 1.0:
            # a Gaussian blur of sigma from 0.3 to 1
            sigma = 0.3 + 0.7 * drawn.chances.grain[blurred]
            weights = torch.exp(-0.5 * (torch.arange(-2, 3) / sigma[:, None]).square())
            expected = (weights[:, 1:] * weights[:, :-1]).sum(1) / weights.square().sum(1)
            assert (neighbours[blurred] - expected).abs().max() < 0.06


def test_frames_have_the_statistics_of_the_recipe():
    """The shares and ranges, drawn for many frames, and a frame's values by the formulas in numpy."""
    recipe = Synthesis()
    drawn = synthesis.draw(4000, 0)
    stops = synthesis._exposures(4, drawn, recipe, torch.device("cpu"))
    low, high = stops.amin((1, 2, 3)), stops.amax((1, 2, 3))
    bright = low >= recipe.bright_exposures[0]
    assert bright.float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert low.min() >= -6.6
    assert high.max() <= 0.7
    single = (low == high) & ~bright
    # half of the dark ones are mixed
    assert single.float().mean().item() == pytest.approx(0.4, abs=0.03)
    assert low[single].mean().item() == pytest.approx(-4.4, abs=0.1)
    assert low[single].std().item() == pytest.approx(4.4 / 12**0.5, abs=0.1)

    generator = np.random.default_rng(0)
    photo = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    settings = {
        "bright_share": 0.0,
        "mixed_share": 0.0,
        "jpeg_share": 0.0,
        "target_mean": 0.0,
        "grain": 0.3001,
    }
    fixed = {"exposures": (-3.0, -3.0), "read_noise": (1e-3, 1e-3), "shot_noise": (3e-4, 3e-4)}
    batch = exposures([photo], 64, 16, **settings, **fixed).batch(0)
    unit = photo / 255
    light = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)

    def encode(values):
        values = np.clip(values, 0, 1)
        return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)

    clean = light / 8
    frames = np.stack(
        [
            np.rint(
                255 * encode(clean + generator.standard_normal(clean.shape) * np.sqrt(1e-6 + 3e-4 * clean))
            )
            for _ in range(16)
        ]
    )
    got = batch.x.numpy() * 255
    assert got.mean() == pytest.approx(frames.mean(), rel=0.003)
    assert got.std() == pytest.approx(frames.std(), rel=0.005)
    assert (got == 0).mean() == pytest.approx((frames == 0).mean(), rel=0.05)
    assert np.quantile(got, 0.99) == pytest.approx(np.quantile(frames, 0.99), abs=1)
    peak = light.max(-1, keepdims=True)
    rolled = np.where(peak > 0.6, 0.6 + 0.3 * (1 - np.exp(-(peak - 0.6) / 0.3)), peak) / np.maximum(
        peak, 1e-9
    )
    assert batch.target.mean().item() == pytest.approx(encode(light * rolled).mean(), rel=1e-4)
    assert batch.target.std().item() == pytest.approx(encode(light * rolled).std(), rel=1e-3)


def test_noise_is_seen_in_the_frames():
    settings = {"exposures": (-4.0, -4.0), "bright_share": 0.0, "mixed_share": 0.0, "jpeg_share": 0.0}
    deviations = [
        exposures(grey(128), 64, 4, **settings, read_noise=(read, read), shot_noise=(shot, shot))
        .batch(0)
        .x.std((2, 3))
        .mean()
        .item()
        for read, shot in ((1e-9, 1e-14), (2e-3, 1e-14), (2e-3, 1e-3))
    ]
    assert deviations[0] < 0.5 / 255
    assert 2 / 255 < deviations[1] < deviations[2]


# --- JPEG


def textured(seed, width, height):
    generator = np.random.default_rng(seed)
    image = np.asarray(picture(seed, (width, height), 200)).astype(np.float64)
    image += 25 * np.sin(np.arange(width) / generator.uniform(1, 6))[None, :, None]
    image += generator.normal(0, 6, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("quality", [40, 70, 85, 98])
@pytest.mark.parametrize("size", [(64, 64), (52, 39)])
def test_jpeg_is_that_of_pillow(quality, size):
    for seed in range(3):
        image = textured(seed, *size)
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "jpeg", quality=quality)
        want = np.asarray(Image.open(buffer)).astype(np.float64)
        levels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        got = jpeg.code(levels, torch.tensor([quality]))[0].permute(1, 2, 0).double().numpy()
        assert np.array_equal(got, np.rint(got))
        assert np.abs(got - want).mean() < 0.6
        lost = np.abs(want - image).mean()
        assert np.abs(got - image).mean() == pytest.approx(lost, rel=0.03)


def test_jpeg_takes_a_quality_for_each_image():
    levels = torch.from_numpy(textured(0, 32, 32)).permute(2, 0, 1)[None].float().expand(2, -1, -1, -1)
    both = jpeg.code(levels, torch.tensor([40, 95]))
    assert torch.equal(both[0], jpeg.code(levels[:1], torch.tensor([40]))[0])
    assert torch.equal(both[1], jpeg.code(levels[:1], torch.tensor([95]))[0])
    error = (both - levels).abs().mean((1, 2, 3))
    assert error[0] > 1.5 * error[1]
