"""Batches of dark photographs beside normal ones."""

from dataclasses import replace

import numpy as np
import torch
from helpers import refused
from PIL import Image
from test_enlightengan_training import TINY
from test_nerco_training import TINY as NERCO_TINY

from fastllie.training.data import collect, open_source
from fastllie.training.data.source import Unpaired, UnpairedExposures
from fastllie.training.recipes import Synthesis


def photographs(count, low, high, size=(48, 40)):
    """Each of one colour, so that a crop tells its photograph."""
    return [
        torch.full(
            (size[1], size[0], 3), round(low + (high - low) * index / max(1, count - 1)), dtype=torch.uint8
        )
        for index in range(count)
    ]


def source(low=3, normal=5, **settings):
    settings = {"size": 32, **settings}
    return Unpaired(photographs(low, 10, 60), 2, 0, normal=photographs(normal, 150, 250), **settings)


def shown(images):
    return [round(255 * float(image.mean())) for image in images]


def test_a_pass_shows_the_larger_side_once():
    made = source()
    assert made.steps_per_epoch == 3
    assert made.photographs == 8
    dark = [level for step in range(3) for level in shown(made.batch(step).x)]
    assert sorted(dark) == sorted([10, 35, 60, 10, 35])
    assert sum(made.size(step) for step in range(3)) == 5
    assert [len(made.names(step)) for step in range(3)] == [2, 2, 1]


def test_the_normal_side_is_drawn_or_goes_by_index():
    def pairs(made, passes=4):
        found = set()
        for step in range(3 * passes):
            given = made.batch(step)
            found |= set(zip(shown(given.x), shown(given.normal), strict=True))
        return found

    assert len(pairs(source(by_index=True))) == 5
    assert len(pairs(source())) > 8


def test_a_share_of_the_dark_side_is_darkened_further():
    made = source(low=5, normal=5, dark_share=0.5)
    factors = []
    for step in range(60):
        given = made.batch(step)
        before = given.x if given.undarkened is None else given.undarkened
        assert given.target is given.x
        factors += (before.mean((1, 2, 3)) / given.x.mean((1, 2, 3))).tolist()
    darker = [factor for factor in factors if factor > 1.001]
    assert 0.35 < len(darker) / len(factors) < 0.65
    assert min(darker) >= 1.99
    assert max(darker) <= 4.01
    assert source(dark_share=0.0).batch(0).undarkened is None


def test_parts_are_the_whole_and_mirrors_are_seen():
    ramp = torch.arange(48, dtype=torch.uint8)[None, :, None].expand(40, 48, 3).contiguous()
    steep = (3 * torch.arange(40, dtype=torch.uint8))[:, None, None].expand(40, 48, 3).contiguous()
    made = Unpaired([ramp] * 4, 4, 0, normal=[steep] * 4, size=32, flips=True, dark_share=0.5)
    mirrored, upside = set(), set()
    for step in range(8):
        whole = made.batch(step)
        parts = [made.batch(step, part, 3) for part in range(3)]
        for name in ("x", "target", "normal"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
        mirrored |= {bool(row[0] > row[-1]) for row in whole.x[:, 0, 0]}
        upside |= {bool(column[0] > column[-1]) for column in whole.normal[:, 0, :, 0]}
    assert mirrored == upside == {True, False}


def test_dark_frames_are_made_of_others_than_the_normal_ones():
    made = UnpairedExposures(
        photographs(3, 100, 110), Synthesis(bright_share=0.0), 16, 4, 0, normal=photographs(2, 150, 160)
    )
    given = made.batch(0)
    assert given.normal.shape == given.x.shape == (4, 3, 16, 16)
    assert set(shown(given.normal)) <= {150, 160}
    assert given.x.mean() < 0.3
    # what the dark frames should become is known, and scores the run
    assert given.target.mean() > given.x.mean()
    halves = [made.batch(0, part, 2) for part in range(2)]
    assert torch.equal(torch.cat([half.normal for half in halves]), given.normal)
    assert made.photographs == 5


def test_every_second_step_may_be_wide():
    synthesis = Synthesis(bright_share=0.0, zoom=2.0, wide_steps=True)
    ramps = [torch.arange(64, dtype=torch.uint8)[None, :, None].expand(70, 64, 3).contiguous()] * 3
    made = UnpairedExposures(ramps, synthesis, 32, 8, 0, normal=ramps)
    for step, (count, side) in enumerate(((8, 32), (2, 64), (8, 32), (2, 64))):
        given = made.batch(step)
        assert given.x.shape == given.target.shape == given.normal.shape == (count, 3, side, side)
        assert made.size(step) == len(made.names(step)) == count
        # as many pixels of the photograph as the frame is wide, at least
        spread = (given.normal.amax((2, 3)) - given.normal.amin((2, 3)))[:, 0] * 255
        assert (spread >= side - 1.5).all()
        halves = [made.batch(step, part, 2) for part in range(2)]
        assert torch.equal(torch.cat([half.x for half in halves]), given.x)
    assert UnpairedExposures(ramps, synthesis, 32, 2, 0, normal=ramps).size(1) == 1
    with refused(ValueError, "wide_steps needs a zoom of at least 2", "1.5"):
        Synthesis(zoom=1.5, wide_steps=True)


def test_a_folder_alone_is_divided(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, level in enumerate((20, 120, 130, 140, 150, 250)):
        Image.new("RGB", (40, 36), (level,) * 3).save(folder / f"{index}.png")
    recipe = replace(TINY, synthesis=Synthesis())
    made = open_source(collect(folder), recipe, 0, cache=tmp_path / "cache", device=torch.device("cpu"))
    levels = {level for step in range(20) for level in shown(made.batch(step).normal)}
    assert levels == {120, 140}
    names = {name for step in range(20) for name in made.names(step)}
    assert names == {"0.png", "2.png", "4.png", "5.png"}
    with refused(ValueError, "both sides"):
        open_source(collect(folder), TINY, 0, cache=tmp_path / "cache", device=torch.device("cpu"))
    for name in ("1", "2", "3", "4"):
        (folder / f"{name}.png").unlink()
    with refused(ValueError, "at least two photographs", "found 0 of 2"):
        open_source(collect(folder), recipe, 0, cache=tmp_path / "cache", device=torch.device("cpu"))


def test_photographs_are_squeezed_mirrored_and_never_turned(tmp_path):
    for side, levels in (("low", (10, 20, 30)), ("normal", (150, 160, 170, 180, 190))):
        (tmp_path / side).mkdir()
        for level in levels:
            # brighter to the right and to the bottom
            across = np.linspace(0, 20, 60)[None] + np.linspace(0, 40, 36)[:, None] + level
            picture_of(across).save(tmp_path / side / f"{level}.png")
    recipe = replace(NERCO_TINY, size=32)
    pairs = collect((tmp_path / "low", tmp_path / "normal"), paired=False)
    made = open_source(pairs, recipe, 0, cache=tmp_path / "cache", device=torch.device("cpu"))
    assert isinstance(made, Unpaired)
    assert made.steps_per_epoch == 3
    found = [made.batch(step) for step in range(24)]
    assert {tuple(given.x.shape[1:]) for given in found} == {(3, 32, 32)}
    rows = torch.cat([given.normal[:, 0] for given in found])
    assert (rows[:, -1].mean(1) > rows[:, 0].mean(1)).all()
    mirrored = rows[:, :, 0].mean(1) > rows[:, :, -1].mean(1)
    assert 0.2 < float(mirrored.float().mean()) < 0.8
    beside = {
        (round(float(x) * 255), round(float(n) * 255))
        for given in found
        for x, n in zip(given.x.mean((1, 2, 3)), given.normal.mean((1, 2, 3)), strict=True)
    }
    assert len(beside) > 8
    # the published filter, not that of the other methods
    whole = collect(tmp_path / "low").low[0].image()
    straight = np.asarray(whole.resize((32, 32), 3))
    dark = [given.x[i] for given in found for i in range(len(given.x))]
    assert any(
        torch.equal((image.permute(1, 2, 0) * 255).round().byte(), torch.from_numpy(straight.copy()))
        for image in dark
    )


def picture_of(levels):
    return Image.fromarray(np.repeat(levels.round().astype(np.uint8)[..., None], 3, 2))
