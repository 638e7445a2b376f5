"""The scenes that `dawn` learns from: what is made of photographs, and what it should become."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import attributed_photographs, refused

import fastllie
from fastllie.models.metered import gain_of, taught
from fastllie.training.data import camera, scenes
from fastllie.training.data.flats import flat_scene
from fastllie.training.data.scene_source import SceneSquares, SyntheticScenes
from fastllie.training.data.synthesis import srgb
from fastllie.training.recipes import ZERODCE, DawnRecipe, Scenes

PLAIN = Scenes(
    bright_share=0,
    over_share=0,
    mixed_share=0,
    range_share=0,
    curved_share=0,
    lamp_share=0,
    cast_share=0,
    clean_share=1,
    jpeg_share=0,
)


def photograph(height: int = 300, width: int = 420, level: float = 0.5) -> torch.Tensor:
    """A landscape: bright above, dark below, texture all over."""
    random = np.random.default_rng(0)
    shape = np.linspace(1.5, 0.5, height)[:, None, None] * np.array([1.0, 0.95, 0.85])
    values = level * shape * (1 + 0.2 * random.standard_normal((height, width, 1)))
    return torch.from_numpy((values.clip(0, 1) * 255).astype(np.uint8))


def frames(recipe: Scenes, count: int = 12) -> list[scenes.Frame]:
    return [scenes.make_frame(photograph(), recipe, np.random.default_rng(seed)) for seed in range(count)]


def mean(image: torch.Tensor) -> float:
    return float(image.mean())


def test_a_window_is_as_large_as_asked_of_any_photograph():
    for size in ((300, 420), (420, 300), (90, 80), (1000, 64)):
        part = scenes.window(photograph(*size), (192, 288), np.random.default_rng(0))
        assert part.shape == (3, 192, 288)
        assert part.dtype == torch.uint8


def test_frames_are_images_and_repeat():
    for one, again in zip(frames(Scenes()), frames(Scenes()), strict=True):
        for plane, same in zip(one, again, strict=True):
            assert plane.shape == (3, 192, 288)
            assert plane.min() >= 0
            assert plane.max() <= 1
            assert torch.equal(plane, same)
        # as a file holds it
        assert torch.equal(one.x, (one.x * 255).round() / 255)


def test_dark_frames_have_one_target_whatever_their_exposure():
    dark = [
        scenes.make_frame(photograph(), replace(PLAIN, exposures=(stops, stops)), np.random.default_rng(3))
        for stops in (-6.0, -3.0)
    ]
    assert torch.equal(dark[0].target, dark[1].target)
    assert mean(dark[0].x) < mean(dark[1].x) < 0.6 * mean(dark[1].target)
    assert 0.4 < mean(dark[0].target) < 0.53


def test_well_exposed_frames_are_to_stay():
    for frame in frames(replace(PLAIN, bright_share=1, bright_exposures=(-0.1, 0.1))):
        assert torch.equal(frame.target, frame.clean)


def test_overexposed_frames_come_down():
    for frame in frames(replace(PLAIN, over_share=1)):
        assert mean(frame.target) < mean(frame.x) - 0.05


def test_lit_parts_are_as_bright_as_they_should_be():
    lit = frames(replace(PLAIN, mixed_share=1, ground_share=0, exposures=(-5, -5)), 20)
    spread = [float((frame.clean.mean(0) - frame.target.mean(0)).abs().quantile(0.02)) for frame in lit]
    # somewhere there is nothing to do, elsewhere much
    assert np.median(spread) < 0.25
    assert all(float((frame.target - frame.clean).amax()) > 0.2 for frame in lit)


def test_backlit_frames_keep_what_is_bright():
    backlit = replace(PLAIN, backlit_share=1, backlit=(-3, -3))
    for frame in frames(backlit):
        ratios = frame.clean.mean(0) / frame.target.mean(0)
        assert ratios.quantile(0.999) > 0.6
        # the softest of borders are as wide as the picture
        assert ratios.quantile(0.02) < 0.65
    # the target is the one of every other frame
    [frame], [other] = frames(backlit, 1), frames(replace(PLAIN, exposures=(-3, -3)), 1)
    assert torch.equal(frame.target, other.target)


def test_flat_scenes_are_tones_with_edges_between():
    for seed in range(20):
        light = flat_scene((192, 288), np.random.default_rng(seed))
        assert light.shape == (3, 192, 288)
        assert 0 < light.min() <= light.max() <= 1
        # most pixels are of a tone, as their neighbours are
        assert (light.diff(dim=2).abs() < 0.002).all(0).float().mean() > 0.75
        assert torch.equal(light, flat_scene((192, 288), np.random.default_rng(seed)))
    scenes_of_all_kinds = [flat_scene((8, 8), np.random.default_rng(seed)) for seed in range(40)]
    greys = [bool((light == light[:1]).all()) for light in scenes_of_all_kinds]
    assert 0 < sum(greys) < 40


def test_flat_scenes_take_the_place_of_photographs():
    random = np.random.default_rng
    flat = replace(PLAIN, flat_share=1.0, shadow_lift=1.0)
    made = [scenes.make_frame(photograph(level=level), flat, random(3)) for level in (0.2, 0.6)]
    assert torch.equal(made[0].x, made[1].x)
    # shadows are not lifted by neighbourhoods, which would leave rims
    assert torch.equal(
        made[0].target, scenes.make_frame(photograph(), replace(flat, shadow_lift=0.0), random(3)).target
    )
    some = replace(PLAIN, flat_share=0.5)
    alike = sum(
        torch.equal(*(scenes.make_frame(photograph(level=level), some, random(s)).x for level in (0.2, 0.6)))
        for s in range(30)
    )
    assert 5 < alike < 25


def test_flat_scenes_have_a_share_without_noise_of_their_own():
    def clean(recipe: Scenes) -> int:
        return sum(torch.equal(frame.x, (frame.clean * 255).round() / 255) for frame in frames(recipe))

    noisy = replace(PLAIN, clean_share=0.0)
    assert clean(replace(noisy, flat_share=1.0)) == 0
    assert clean(replace(noisy, flat_share=1.0, flat_clean_share=1.0)) == 12
    assert clean(replace(noisy, flat_clean_share=1.0)) == 0
    assert clean(replace(PLAIN, flat_share=1.0, flat_clean_share=0.0)) == 0


def test_flat_scenes_are_lit_by_one_light():
    in_parts = replace(PLAIN, mixed_share=0.6, backlit_share=0.4)
    for flat_share, alike in ((1.0, 12), (0.0, 0)):
        by_parts = replace(in_parts, flat_share=flat_share)
        kinds = by_parts, replace(by_parts, mixed_share=0.0, backlit_share=0.0)
        made = (
            [scenes.make_frame(photograph(), kind, np.random.default_rng(seed)) for kind in kinds]
            for seed in range(12)
        )
        assert sum(all(map(torch.equal, *pair)) for pair in made) == alike


def test_shadows_are_lifted_by_neighbourhoods_and_without_a_rim():
    random = np.random.default_rng(0)
    picture = torch.full((3, 96, 144), 0.6)
    picture[:, :, :72] = 0.06 + 0.01 * torch.from_numpy(random.standard_normal((96, 72))).float()
    lifted = scenes.lift_shadows(picture, 1.0)
    assert torch.equal(scenes.lift_shadows(picture, 0.0), picture)
    # a stop is a factor of two in light
    lights = [(image[:, :, :60].double() + 0.055).div(1.055).pow(2.4).mean() for image in (lifted, picture)]
    assert 1.9 < lights[0] / lights[1] < 2.1
    assert torch.allclose(lifted[:, :, 76:], picture[:, :, 76:], atol=2e-3)
    # what varies within the shadow varies as much as the light
    assert lifted[0, :, :60].std() > 1.3 * picture[0, :, :60].std()


def bars() -> torch.Tensor:
    """Dark bars before a bright ground, with texture, as a photograph `[H, W, 3]` of uint8."""
    noise = 4 * torch.from_numpy(np.random.default_rng(0).standard_normal((240, 360, 1)))
    ground = torch.full((240, 360, 3), 215.0)
    ground[:, 60:150] = ground[:, 230:300] = 45.0
    return (ground + noise).clamp(0, 255).to(torch.uint8)


def turns_back(image: torch.Tensor, levels: torch.Tensor) -> float:
    """How far dark columns lie below their own median, within 12 pixels of what is bright, in levels."""
    columns, shown = (plane.mean((0, 1)) for plane in (levels, image))
    dark = columns < 0.3
    near = dark & (torch.nn.functional.max_pool1d((~dark).float()[None], 25, 1, 12)[0] > 0)
    return 255 * float(shown[dark].median() - shown[near].min())


def test_neighbourhoods_are_edges_without_detail():
    generator = torch.Generator().manual_seed(0)
    detail = 0.02 * torch.randn((1, 60, 90), generator=generator)
    step = torch.full((1, 60, 90), 0.1)
    step[:, :, 45:] = 0.8
    left = scenes.neighbourhoods(step + detail, 9, 0.004)
    # beside the edge its texture stays, too
    assert (left - step - detail)[:, :, 43:47].abs().mean() < 0.015
    assert left[:, :, :35].std() < 0.2 * detail.std()
    assert torch.allclose(scenes.neighbourhoods(step, 9, 1e-4), step, atol=2e-3)
    constant = torch.full((1, 8, 12), 0.3)
    assert torch.allclose(scenes.neighbourhoods(constant, 17, 0.001), constant, atol=1e-6)


def test_lifted_shadows_have_a_rim_as_faint_as_asked():
    picture = bars().permute(2, 0, 1) / 255
    runs_over, faint, none = (scenes.lift_shadows(picture, 1.0, edge) for edge in (None, 0.001, 1e-5))
    assert turns_back(runs_over, picture) > 3
    assert turns_back(faint, picture) < 1.5
    assert turns_back(none, picture) < 0.75
    # they are lifted all the same
    assert mean(faint) == pytest.approx(mean(runs_over), rel=0.02)


def test_light_on_what_is_bright_runs_over_edges_or_does_not():
    def glow(edge: float | None) -> float:
        """How much brighter than most of a dark bar its brightest column is, on the mean."""
        found = []
        for seed in range(12):
            backlit = replace(PLAIN, backlit_share=1, backlit=(-3, -3), light_edge=edge)
            frame = scenes.make_frame(bars(), backlit, np.random.default_rng(seed))
            level = frame.target.mean((0, 1))
            # without the columns that the reduction mixed
            columns = frame.clean.mean((0, 1))[(level - level[level < 0.3].median()).abs() < 0.01]
            found.append(float(columns.max() / columns.median()))
        return float(np.mean(found))

    assert glow(None) > 1.25
    assert glow(0.006) < 1.1


def test_what_is_lifted_is_no_night():
    def rise(level: float) -> float:
        targets = [
            scenes.make_frame(
                photograph(level=level), replace(PLAIN, shadow_lift=stops), np.random.default_rng(0)
            ).target
            for stops in (1.0, 0.0)
        ]
        return mean(targets[0]) - mean(targets[1])

    assert rise(0.3) > 1e-4
    assert rise(0.04) == 0


def test_targets_of_what_is_nearly_black_have_less_colour():
    def chroma(image: torch.Tensor) -> float:
        return float((image - image.mean(0)).abs().mean())

    black = replace(PLAIN, exposures=(-6, -6))
    [plain] = frames(black, 1)
    [dull] = frames(replace(black, dark_saturation=0.5), 1)
    [grey] = frames(replace(black, dark_neutral=1.0), 1)
    assert chroma(dull.target) == pytest.approx(0.5 * chroma(plain.target), rel=0.02)
    spreads = [np.ptp(frame.target.mean((1, 2)).numpy()) for frame in (grey, plain)]
    # highlights stay white
    assert spreads[0] < 0.35 * spreads[1]
    assert mean(grey.target) == pytest.approx(mean(plain.target), abs=0.005)
    # a frame that shows its colours keeps them
    light = replace(PLAIN, exposures=(-1.3, -1.3), dark_saturation=0.5, dark_neutral=1.0)
    [kept], [same] = frames(light, 1), frames(replace(PLAIN, exposures=(-1.3, -1.3)), 1)
    assert torch.equal(kept.target, same.target)


def test_a_night_stays_one():
    day, night = (
        srgb(torch.full((3, 40, 60), light) * torch.linspace(0.3, 1.7, 60)) for light in (0.3, 0.008)
    )
    lights = [(image.pow(2.4)) for image in (day, night)]
    assert abs(scenes.exposure_of(lights[0])) < 1
    assert 0 < scenes.exposure_of(lights[1]) <= 2


def test_casts_go_and_coloured_light_stays():
    def ratio(image: torch.Tensor) -> float:
        return mean(image[0]) / mean(image[2])

    random = np.random.default_rng
    plain = scenes.make_frame(photograph(), PLAIN, random(5))
    cast = scenes.make_frame(photograph(), replace(PLAIN, cast_share=1, cast=0.5), random(5))
    lamp = scenes.make_frame(photograph(), replace(PLAIN, lamp_share=1, lamp=0.5), random(5))
    assert torch.equal(cast.target, plain.target)
    assert abs(ratio(cast.clean) / ratio(plain.clean) - 1) > 0.05
    assert abs(ratio(lamp.target) / ratio(plain.target) - 1) > 0.05


def test_noise_grows_with_light_and_is_strongest_in_red_and_blue():
    recipe = replace(Scenes(), shot_noise=(1e-4, 1e-4), rows_share=0, black=0)
    deviations = []
    for level in (0.01, 0.16):
        light = torch.full((3, 192, 288), level)
        noise = [camera.expose(light, recipe, np.random.default_rng(seed)) - light for seed in range(30)]
        deviations.append(torch.stack([one.std((1, 2)) for one in noise]).median(0).values)
    assert (deviations[1] > 2 * deviations[0]).all()
    assert deviations[1][0] > 1.2 * deviations[1][1] < 1.2 * deviations[1][2]


@pytest.mark.parametrize("contrast", [-0.35, 0.0, 0.7])
@pytest.mark.parametrize("gamma", [None, 1.8, 2.6])
def test_tone_curves_rise(gamma, contrast):
    light = torch.linspace(0, 1, 500).expand(3, 1, 500)
    values = camera.develop(light, camera.Tone(gamma, contrast))
    assert (values.diff() >= 0).all()
    assert values.min() >= 0
    assert values[0, 0, -1].item() == pytest.approx(1)


def test_parts_of_a_batch_are_the_batch():
    photographs = [photograph(level=level) for level in (0.3, 0.4, 0.5, 0.6, 0.7)]
    source = SyntheticScenes(photographs, Scenes(), 3, 0)
    whole = source.batch(4)
    parts = [source.batch(4, part, 5) for part in range(5)]
    for name in ("x", "target", "clean"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert source.steps_per_epoch == 2
    assert source.size(0) == 3
    assert source.size(1) == 2
    assert not torch.equal(source.batch(0).x, source.batch(2).x)


def test_squares_are_cut_of_the_whole_scenes():
    photographs = [photograph(level=level) for level in (0.3, 0.5, 0.7)]
    recipe = Scenes(size=(40, 56))
    whole = SyntheticScenes(photographs, recipe, 3, 0).batch(1)
    squares = SceneSquares(photographs, recipe, 24, 3, 0).batch(1)
    assert squares.clean is None
    places = set()
    for index in range(3):
        x, target = whole.x[index], whole.target[index]
        found = [
            (top, left)
            for top in range(40 - 24 + 1)
            for left in range(56 - 24 + 1)
            if torch.equal(x[:, top : top + 24, left : left + 24], squares.x[index])
        ]
        assert len(found) == 1
        top, left = found[0]
        assert torch.equal(target[:, top : top + 24, left : left + 24], squares.target[index])
        places.add((top, left))
    assert len(places) > 1


@pytest.mark.parametrize(
    "field", [{"compile": True}, {"cuda_graph": True}, {"padding": "zeros"}, {"normal_init": 0.02}], ids=str
)
def test_what_a_run_of_dawn_has_no_use_for_is_an_error(field):
    with pytest.raises(ValueError, match=f"{next(iter(field))} is not for dawn"):
        DawnRecipe(**field)


@pytest.mark.parametrize("crop", [100, 16, 208])
def test_crops_that_do_not_fit_are_errors(crop):
    with pytest.raises(ValueError, match="crop must be"):
        DawnRecipe(crop=crop)


def test_squares_are_metered_by_their_whole_scene():
    wide = Scenes(size=(48, 64))
    pictures = [photograph(64, 96) for _ in range(3)]
    plain = SyntheticScenes(pictures, wide, 3, 0).batch(0)
    shown = SceneSquares(pictures, wide, 24, 3, 0).batch(0)
    behind = SceneSquares(pictures, wide, 24, 3, 0, meter=0.4).batch(0)
    assert torch.equal(shown.target, behind.target)
    gains = gain_of(plain.x, 0.4)
    assert gains.max() > 2
    assert torch.allclose(behind.x, taught(shown.x, gains), atol=1e-6)
    # in the part of a process that takes some of a batch, too
    parts = [SceneSquares(pictures, wide, 24, 3, 0, meter=0.4).batch(0, part, 2).x for part in range(2)]
    assert torch.equal(torch.cat(parts), behind.x)


def test_a_meter_needs_wholes():
    with refused(ValueError, "meter=0.4 needs whole scenes", "synthesis=Synthesis(...) makes squares"):
        replace(ZERODCE, meter=0.4)
    with refused(ValueError, "meter must lie between 0 and 1, got 2"):
        replace(ZERODCE, meter=2, synthesis=Scenes())
    with refused(ValueError, "meter"):
        DawnRecipe(meter=0.4)
    with refused(ValueError, "meter_after needs meter"):
        replace(ZERODCE, meter_after=0.4, synthesis=Scenes())
    with refused(ValueError, "meter_after must lie between 0 and 1, got 1"):
        replace(ZERODCE, meter=0.4, meter_after=1, synthesis=Scenes())


def test_a_run_behind_a_meter_says_so_in_its_weights(tmp_path):
    photos = attributed_photographs(tmp_path / "photos")
    changes = {"size": 32, "batch": 2, "synthesis": Scenes(size=(48, 64)), "steps": 2}
    settings = {"device": "cpu", "cache": tmp_path / "cache", "validation": 0.4}
    made = fastllie.train("zerodce", photos, output=tmp_path / "run", meter=0.3, **changes, **settings)
    assert fastllie.load("zerodce", made.weights).meter == 0.3
    how = {"weights": made.weights, "output": tmp_path / "more", **changes, **settings}
    # the weights decide
    more = fastllie.finetune("zerodce", photos, **how)
    assert fastllie.load("zerodce", more.weights).meter == 0.3
    with refused(ValueError, "meter is 0.3 in the weights", "got 0.5"):
        fastllie.finetune("zerodce", photos, meter=0.5, **how)
    moved = fastllie.finetune("zerodce", photos, meter_after=0.4, **{**how, "output": tmp_path / "moved"})
    assert fastllie.load("zerodce", moved.weights).meter == 0.4
    # the level that the recipe ends at is of its own beginning
    named = {**how, "output": tmp_path / "named", "recipe": "metered"}
    assert fastllie.load("zerodce", fastllie.finetune("zerodce", photos, **named).weights).meter == 0.3
    # on photographs as they are
    asis = {**how, "output": tmp_path / "published", "synthesis": None}
    assert fastllie.load("zerodce", fastllie.finetune("zerodce", photos, **asis).weights).meter == 0.3
