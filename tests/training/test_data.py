"""Photographs: what is found, refused and converted, the cache, and the batches that are made of them."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import attributed_photographs, picture, refused
from PIL import Image
from serving import HOME

from fastllie.models.metered import gain_of, taught
from fastllie.training import data
from fastllie.training.data import cache as cache_module
from fastllie.training.data import collection as collection_module
from fastllie.training.data.cache import Cache, Index, open_cache
from fastllie.training.data.pixels import Preparation, read
from fastllie.training.recipes import (
    ENLIGHTENGAN,
    ENLIGHTENGAN_PUBLISHED,
    SCI_OFFICIAL,
    ZERODCE,
    ZERODCE_PUBLISHED,
    Scenes,
    Synthesis,
)

CPU = torch.device("cpu")


def folder_of(folder, *names, size=(40, 30), first=0):
    for seed, name in enumerate(names, first):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed, size).save(folder / name)
    return folder


def names(items):
    return [item.name for item in items]


def opened(collection, recipe, tmp_path, seed=0, **changes):
    recipe = replace(recipe, **changes)
    return data.open_source(collection, recipe, seed, cache=tmp_path / "cache", device=CPU)


def problem(collection, name):
    (found,) = [one for one in collection.problems if Path(one.file).name == name]
    return found


# --- attribution


def test_cc0_photographs_are_held_out_and_attributed(tmp_path):
    photos = attributed_photographs(tmp_path / "photos")
    training = data.list_photographs(photos)
    assert [photo.file for photo in training] == ["0.png", "1.png", "2.png", "4.png"]
    assert training[1] == data.Photograph("1.png", "Author 1", "CC-BY-4.0")
    assert [photo.file for photo in data.list_photographs(photos, held_out=True)] == ["3.png"]
    (photos / "photos.csv").unlink()
    assert len(data.list_photographs(photos)) == 5


def test_folders_without_attribution_are_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        data.list_photographs(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no photographs to train on"):
        data.list_photographs(tmp_path / "empty")
    (tmp_path / "empty" / "photos.csv").write_text("file,rights\n")
    with pytest.raises(ValueError, match=r"photos\.csv has no column author, licence"):
        data.list_photographs(tmp_path / "empty")


# --- files that are not as they should be


def test_what_cannot_be_used_is_skipped_by_name(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "photos", "good.png", "also.jpg")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "words.png").write_text("this is no picture")
    for name, suffix in (("good.png", "png"), ("also.jpg", "jpg")):
        whole = (folder / name).read_bytes()
        (folder / f"short.{suffix}").write_bytes(whole[:-40])
    picture(size=(200, 12)).save(folder / "thin.bmp")
    picture(size=(500, 400)).save(folder / "huge.png")
    (folder / "._good.png").write_bytes(b"a system's notes")
    (folder / "notes.txt").write_text("no image")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    found = data.collect(folder)
    assert (found.layout, names(found.low), found.high) == ("plain", ["also.jpg", "good.png"], ())
    assert all(one.skipped for one in found.problems)
    told = {Path(one.file).name: one.what for one in found.problems}
    assert told.keys() == {
        *("empty.jpg", "words.png", "short.png", "short.jpg", "thin.bmp", "huge.png"),
        "photos",
    }
    assert told["photos"] == "holds 1 .txt, 1 hidden beside photographs"
    assert told["empty.jpg"] == "is empty"
    assert told["words.png"] == "is not an image that Pillow can read"
    assert told["short.png"].startswith("is damaged:")
    assert "truncated" in told["short.jpg"]
    assert told["thin.bmp"] == "is 200x12; the smallest side must be 16 or more"
    assert told["huge.png"].startswith("has 500x400 pixels, and 100000 are taken")


def test_other_kinds_are_converted_and_told(tmp_path):
    colours = picture(1)
    pixels = np.asarray(colours)
    made = {
        "grey.png": colours.convert("L"),
        "line.png": colours.convert("1"),
        "palette.png": colours.quantize(64),
        "cmyk.jpg": colours.convert("CMYK"),
        "alpha.png": Image.fromarray(np.dstack([pixels, np.full(pixels.shape[:2], 7, np.uint8)])),
        "plain.png": colours,
    }
    for name, image in made.items():
        image.save(tmp_path / name)
    found = data.collect(tmp_path)
    assert names(found.low) == sorted(made)
    told = {Path(one.file).name: one.what for one in found.problems}
    assert not any(one.skipped for one in found.problems)
    assert told.keys() == made.keys() - {"plain.png", "palette.png"}
    assert told["grey.png"] == told["line.png"] == "is grey; used as three equal channels"
    assert told["alpha.png"] == "is partly transparent; used without its transparency"
    assert "CMYK" in told["cmyk.jpg"]
    images = {item.name: np.asarray(item.image()) for item in found.low}
    assert all(image.shape == (30, 40, 3) for image in images.values())
    # the colours under a nearly clear alpha are those of the picture, not of a background
    assert np.array_equal(images["alpha.png"], pixels)
    assert np.array_equal(images["grey.png"][..., 0], np.asarray(made["grey.png"]))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, suffix):
    values = np.linspace(0, 65535, 32 * 24).astype(np.uint16).reshape(24, 32)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    found = data.collect(tmp_path)
    grey = "is grey; used as three equal channels"
    assert problem(found, f"deep.{suffix}").what == f"{grey}, and has 16 bits a channel; used with 8"
    got = np.asarray(found.low[0].image())
    assert np.array_equal(got[..., 0], np.rint(values / 257).astype(np.uint8))
    assert np.array_equal(got[..., 0], got[..., 2])


def test_sixteen_bits_in_colour_are_scaled(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (20, 24, 3)).astype(">u2")
    (tmp_path / "deep.png").write_bytes(colour_png(values))
    found = data.collect(tmp_path)
    assert problem(found, "deep.png").what == "has 16 bits a channel; used with 8"
    assert np.abs(np.asarray(found.low[0].image()) - values / 257).max() < 1


def colour_png(values):
    """A PNG of 16 bits a channel, which Pillow reads and does not write."""
    import struct
    import zlib

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def test_float_files_are_scaled_or_refused(tmp_path):
    values = np.linspace(0, 1, 32 * 24, dtype=np.float32).reshape(24, 32)
    Image.fromarray(values).save(tmp_path / "unit.tiff")
    Image.fromarray(values * 1000).save(tmp_path / "thousand.tiff")
    found = data.collect(tmp_path)
    assert "values from 0 to 1000" in problem(found, "thousand.tiff").what
    assert not problem(found, "unit.tiff").skipped
    assert np.array_equal(np.asarray(found.low[0].image())[..., 1], np.rint(values * 255).astype(np.uint8))


def test_the_orientation_is_kept(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = picture(2, (40, 20))
    upright.save(tmp_path / "turned.png", exif=exif)
    (item,) = data.collect(tmp_path).low
    assert item.size == (20, 40)
    assert np.array_equal(np.asarray(item.image()), np.rot90(np.asarray(upright), -1))


def test_nothing_usable_is_an_error_that_lists_what_was_found(tmp_path):
    (tmp_path / "empty").mkdir()
    with refused(ValueError, "empty holds no images; wanted files that end in .jpg, .jpeg, .jpe"):
        data.collect(tmp_path / "empty")
    with refused(ValueError, "nowhere is not a folder; wanted a folder of photographs, a pattern, or a list"):
        data.collect(tmp_path / "nowhere")
    with refused(ValueError, "the list holds no images"):
        data.collect([])
    with refused(ValueError, "the pattern", "*.png holds no images"):
        data.collect(str(tmp_path / "*.png"))
    with refused(FileNotFoundError, "no such image file", "gone.png"):
        data.collect([tmp_path / "gone.png"])
    for number in range(7):
        (tmp_path / "empty" / f"{number}.png").write_text("words")
    with refused(
        ValueError, "no images that can be used:", "4.png is not an image that Pillow can read", "and 2 more"
    ):
        data.collect(tmp_path / "empty")


# --- layouts


def test_folders_patterns_and_lists(tmp_path):
    folder = folder_of(tmp_path / "photos", "a.png", "below/b.JPG", "c.webp")
    assert names(data.collect(folder).low) == ["a.png", "below/b.JPG", "c.webp"]
    assert names(data.collect(str(folder / "*.*")).low) == ["a.png", "c.webp"]
    assert names(data.collect(str(folder / "**" / "*.*")).low) == ["a.png", "below/b.JPG", "c.webp"]
    assert names(data.collect([folder / "c.webp", str(folder / "a.png")]).low) == ["c.webp", "a.png"]
    # two files are a list, not two sides
    assert data.collect((folder / "c.webp", folder / "a.png")).layout == "plain"


@pytest.mark.parametrize(
    ("low", "high", "layout"),
    [
        (("low/1.png", "low/2.png"), ("high/1.png", "high/2.png"), "paired"),
        (("low/1.png", "low/2.png"), ("normal/1.jpg", "normal/2.jpg"), "paired"),
        (("input/x/1.png", "input/y/1.png"), ("gt/x/1.png", "gt/y/1.png"), "paired"),
        (("Low/low001.png", "Low/low002.png"), ("Normal/normal001.png", "Normal/normal002.png"), "paired"),
        (
            ("input/1_input.png", "input/2_input.png"),
            ("target/1_target.png", "target/2_target.png"),
            "paired",
        ),
        (("our485/low/1.png", "our485/low/2.png"), ("our485/high/1.png", "our485/high/2.png"), "paired"),
        (("low/1.png", "low/2.png"), ("high/3.png", "high/4.png", "high/5.png"), "unpaired"),
        (("trainA/1.png", "trainA/2.png"), ("trainB/1.png", "trainB/2.png"), "unpaired"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_two_sides_are_recognised(tmp_path, low, high, layout):
    folder_of(tmp_path, *low)
    folder_of(tmp_path, *high, first=10)
    found = data.collect(tmp_path)
    assert (found.layout, len(found.low), len(found.high)) == (layout, len(low), len(high))
    assert [item.origin for item in found.low] == [tmp_path / name for name in low]
    assert [item.origin for item in found.high] == [tmp_path / name for name in high]
    assert found.problems == ()


def test_a_side_may_be_forced(tmp_path):
    low = folder_of(tmp_path / "low", "1.png", "2.png", "3.png", "4.png", "5.png")
    high = folder_of(tmp_path / "high", "1.png", "8.png", "9.png", first=9)
    assert data.collect(tmp_path).layout == "unpaired"
    assert data.collect((low, str(high / "*.png"))).layout == "unpaired"
    found = data.collect((low, high), paired=True)
    assert (found.layout, names(found.low), names(found.high)) == ("paired", ["1.png"], ["1.png"])
    assert {Path(one.file).name for one in found.problems if one.what == "has no pair"} == {
        *("2.png", "3.png", "4.png", "5.png"),
        *("8.png", "9.png"),
    }
    # lists without names in common are paired by their order
    files = sorted(low.iterdir())[1:3], sorted(high.iterdir())[1:]
    assert [
        (a.name, b.name)
        for a, b in zip(*[getattr(data.collect(files, paired=True), s) for s in ("low", "high")], strict=True)
    ] == [("2.png", "8.png"), ("3.png", "9.png")]
    (high / "1.png").unlink()
    with refused(ValueError, "no file of the low side of", "has the name of one of the high side"):
        data.collect(tmp_path, paired=True)
    with refused(ValueError, "has no two sides to pair"):
        data.collect(low, paired=True)
    folder_of(tmp_path / "same/low", "1.png")
    folder_of(tmp_path / "same/high", "1.png")
    assert data.collect(tmp_path / "same", paired=False).layout == "unpaired"


def test_broken_and_unlike_pairs_are_left_out_together(tmp_path):
    folder_of(tmp_path / "low", "1.png", "2.png", "3.png", "4.png")
    folder_of(tmp_path / "high", "1.png", "2.png", "3.png", "4.png", first=9)
    (tmp_path / "high" / "2.png").write_bytes(b"")
    picture(size=(30, 40)).save(tmp_path / "high" / "3.png")
    found = data.collect(tmp_path)
    assert names(found.low) == names(found.high) == ["1.png", "4.png"]
    assert {(Path(one.file).name, one.what) for one in found.problems} == {
        ("2.png", "is empty"),
        ("3.png", "and its pair differ in size: 40x30 and 30x40"),
    }


def test_test_photographs_are_not_trained_on(tmp_path):
    for place in ("our485", "eval15"):
        folder_of(tmp_path / place / "low", "1.png", "2.png")
        folder_of(tmp_path / place / "high", "1.png", "2.png", first=9)
    found = data.collect(tmp_path)
    assert names(found.low) == ["our485/1.png", "our485/2.png"]
    assert found.problems == (
        data.Problem(str(tmp_path / "eval15"), "is for testing, by its name; left out", True),
    )
    folder_of(tmp_path, "one.png", "more/two.png", "more/.thumbnails/three.png")
    beside = data.collect(tmp_path).problems[1]
    assert beside.what == "holds 2 images beside its two sides; left out"
    # it may be asked for
    assert names(data.collect(tmp_path / "eval15").low) == ["1.png", "2.png"]


def test_sides_that_are_unclear_or_empty_are_errors(tmp_path):
    folder_of(tmp_path / "low", "1.png")
    (tmp_path / "high").mkdir()
    with refused(ValueError, "the high side of", "holds no images"):
        data.collect(tmp_path)
    folder_of(tmp_path / "gt", "1.png")
    with refused(ValueError, "holds low, high, gt: which are the two sides?"):
        data.collect(tmp_path)


class Images(torch.utils.data.Dataset):
    def __init__(self, *values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        value = self.values[index]
        if isinstance(value, Exception):
            raise value
        return value


def test_datasets_of_every_kind_of_image(tmp_path):
    pixels = np.asarray(picture(3))
    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    dataset = Images(
        OSError("the disk is gone"),
        picture(3),
        planes,
        planes / 255,
        pixels,
        pixels.astype(np.uint16) * 257,
        pixels / 255,
        pixels[..., 0],
        planes * 2.0,
        "a string",
        planes.permute(1, 2, 0),
    )
    found = data.collect(dataset)
    assert (found.layout, names(found.low)) == ("plain", ["1", "2", "3", "4", "5", "6", "7"])
    assert all(np.array_equal(np.asarray(item.image()), pixels) for item in found.low[:6])
    assert np.array_equal(np.asarray(found.low[6].image())[..., 2], pixels[..., 0])
    # the same picture in the same bytes is kept once
    assert len({item.digest for item in found.low}) == 2
    told = {one.file: one.what for one in found.problems}
    assert told["item 0 of the Images"] == "cannot be read: OSError: the disk is gone"
    assert "floats must lie in [0, 1]" in told["item 8 of the Images"]
    assert "is a str; wanted a PIL image, a tensor or an array" in told["item 9 of the Images"]
    assert "wanted (3, H, W)" in told["item 10 of the Images"]
    source = opened(found, ZERODCE_PUBLISHED, tmp_path, size=32, batch=7)
    assert source.batch(0).x.shape == (7, 3, 32, 32)


def test_datasets_of_pairs_and_of_labels():
    dark, bright = picture(1), picture(2)
    found = data.collect(Images((dark, bright), (bright, dark), (dark, picture(4, (20, 20)))))
    assert (found.layout, names(found.low), names(found.high)) == ("paired", ["0", "1"], ["0", "1"])
    assert np.array_equal(np.asarray(found.high[0].image()), np.asarray(bright))
    assert "differ in size" in found.problems[0].what
    assert data.collect(Images((dark, bright)), paired=False).layout == "unpaired"
    labelled = data.collect(Images((dark, 3), (bright, 1)))
    assert (labelled.layout, len(labelled.low)) == ("plain", 2)
    # a plain list is as good
    assert len(data.collect([np.asarray(dark), np.asarray(bright)]).low) == 2
    assert data.collect(([np.asarray(dark)], [np.asarray(bright)])).layout == "paired"


def test_what_is_no_data_is_refused():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(())

    with refused(TypeError, "IterableDataset", "give list(data)"):
        data.collect(Stream())
    for value in (3, {"low": "a"}, None, b"bytes"):
        with refused(TypeError, "data must be a folder, a pattern", type(value).__name__):
            data.collect(value)


# --- the split


def test_the_split_is_stable_when_photographs_are_added(tmp_path):
    folder = folder_of(tmp_path, *(f"{number}.png" for number in range(40)), size=(16, 16))
    train, out = data.collect(folder).split(0.25)
    assert 4 <= len(out.low) <= 16
    assert sorted(names(train.low) + names(out.low)) == sorted(f"{number}.png" for number in range(40))
    assert not set(names(train.low)) & set(names(out.low))
    folder_of(folder, *(f"new{number}.png" for number in range(10)), size=(16, 16))
    more, more_out = data.collect(folder).split(0.25)
    assert set(names(train.low)) <= set(names(more.low))
    assert set(names(out.low)) <= set(names(more_out.low))
    assert names(data.collect(folder).split(0.25, seed=1)[1].low) != names(more_out.low)


def test_the_split_holds_at_least_one_out_and_keeps_pairs(tmp_path):
    folder_of(tmp_path / "low", "1.png", "2.png", "3.png")
    folder_of(tmp_path / "high", "1.png", "2.png", "3.png", first=9)
    found = data.collect(tmp_path)
    for share, held in ((0.001, 1), (0.999, 2)):
        train, out = found.split(share)
        assert (len(train.low), len(out.low)) == (3 - held, held)
        for part in (train, out):
            assert names(part.low) == names(part.high)
            assert part.layout == "paired"
    train, out = found.split(0)
    assert (names(train.low), out.low, out.high) == (names(found.low), (), ())
    unpaired = data.collect(tmp_path, paired=False).split(0.001)
    assert [(len(part.low), len(part.high)) for part in unpaired] == [(2, 2), (1, 1)]
    with refused(ValueError, "share must lie in [0, 1), got 1"):
        found.split(1)
    with refused(ValueError, "a single photograph cannot be split"):
        data.collect([tmp_path / "low" / "1.png"]).split(0.1)


# --- the cache


@pytest.fixture
def photos(tmp_path):
    return data.collect(folder_of(tmp_path / "photos", *(f"{number}.png" for number in range(6))))


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded from now on."""
    seen = []

    def watched(content, *more):
        seen.append(content)
        return read(content, *more)

    monkeypatch.setattr(collection_module, "read", watched)
    return seen


def test_the_cache_holds_the_pixels_of_each_size(photos, tmp_path):
    for how in (
        Preparation(),
        Preparation(square=16),
        Preparation(short_side=20),
        Preparation(long_side=20),
        Preparation(long_side=20, least=18),
    ):
        kept = open_cache(photos.low, how, tmp_path / "cache")
        assert len(kept) == 6
        for photo, item in zip(kept, photos.low, strict=True):
            image = item.image()
            image = image.resize(how.size(*image.size), Image.Resampling.LANCZOS)
            assert photo.dtype == torch.uint8
            assert np.array_equal(photo.numpy(), np.asarray(image))
    assert Preparation(short_side=20).size(40, 30) == (27, 20)
    assert Preparation(long_side=20).size(40, 30) == (20, 15)
    assert Preparation(long_side=50).size(40, 30) == (40, 30)
    assert Preparation(long_side=20, least=18).size(40, 30) == (24, 18)


def test_nothing_is_decoded_twice(tmp_path, decoded):
    folder = folder_of(tmp_path / "photos", "a.png", "b.png")
    remember = tmp_path / "cache"

    def start():
        decoded.clear()
        found = data.collect(folder, cache=remember)
        looked = len(decoded)
        steps = []
        open_cache(found.low, Preparation(square=16), remember, progress=lambda *step: steps.append(step))
        assert steps[-1] == (len(found.low), len(found.low))
        return looked, len(decoded) - looked

    assert start() == (2, 2)
    assert start() == (0, 0)
    # one more: only that
    folder_of(folder, "0.png", first=7)
    assert start() == (1, 1)
    # a new time of change, the same content: looked at again, and found in the cache
    os.utime(folder / "a.png", ns=(1, 1))
    assert start() == (1, 0)
    # another content of the same length and name
    picture(8).save(folder / "b.png")
    assert start() == (1, 1)
    kept = open_cache(data.collect(folder).low, Preparation(), remember)
    assert np.array_equal(kept[2].numpy(), np.asarray(picture(8)))


def test_a_lost_index_costs_a_reading_only(tmp_path, decoded):
    folder = folder_of(tmp_path / "photos", "a.png")
    data.collect(folder, cache=tmp_path)
    (tmp_path / "index-2.json").write_text("{ no")
    data.collect(folder, cache=tmp_path)
    assert len(decoded) == 2
    # two processes keep what both have found
    indices = [Index(tmp_path), Index(tmp_path)]
    for index, name in zip(indices, ("x", "y"), strict=True):
        (tmp_path / name).write_text(name)
        index.add(tmp_path / name, Index.state(tmp_path / name), [name])
        index.save()
    assert [Index(tmp_path).find(tmp_path / name) for name in ("x", "y")] == [["x"], ["y"]]


@pytest.mark.parametrize("harm", ["short", "long", "magic", "header", "name", "empty"])
def test_a_damaged_shard_is_made_anew(photos, tmp_path, harm):
    open_cache(photos.low, Preparation(), tmp_path / "cache")
    (shard,) = (tmp_path / "cache").rglob("*.shard")
    whole = shard.read_bytes()
    content = {
        "short": whole[:-1],
        "long": whole + b"\0",
        "magic": b"x" + whole[1:],
        "header": whole[:30] + b"\xff" + whole[31:],
        "empty": b"",
    }.get(harm, whole)
    shard.unlink()
    (shard.with_stem("f" * 32) if harm == "name" else shard).write_bytes(content)
    kept = open_cache(photos.low, Preparation(), tmp_path / "cache")
    assert np.array_equal(kept[5].numpy(), np.asarray(picture(5)))
    assert [path.read_bytes() == whole for path in (tmp_path / "cache").rglob("*.shard")] == [True]


def test_shards_are_small_and_need_no_file_descriptors(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "SHARD_COUNT", 4)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else None
    kept = open_cache(photos.low, Preparation(), tmp_path / "cache")
    assert len(list((tmp_path / "cache").rglob("*.shard"))) == 2
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before
    monkeypatch.setattr(cache_module, "SHARD_BYTES", 3 * 40 * 30)
    open_cache(photos.low, Preparation(long_side=41), tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "long41").glob("*.shard"))) == 6
    assert all(np.array_equal(photo, np.asarray(picture(i))) for i, photo in enumerate(kept))


BUILD = """
import sys
from pathlib import Path
from fastllie.training.data import cache
from fastllie.models.metered import gain_of, taught
from fastllie.training import data
from fastllie.training.data.pixels import Preparation
cache.SHARD_COUNT = 2
items = data.collect(Path(sys.argv[1])).low
print("ready", flush=True)
sys.stdin.readline()
if len(sys.argv) > 3:
    whole = Preparation.apply
    def slow(self, image):
        import time
        time.sleep(0.2)
        return whole(self, image)
    Preparation.apply = slow
kept = cache.open_cache(items, Preparation(square=24), Path(sys.argv[2]), threads=1)
print(sum(int(photo.sum()) for photo in kept))
"""


def builder(*arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HOME,
    )
    return process


def test_two_processes_build_one_cache(photos, tmp_path):
    processes = [builder(tmp_path / "photos", tmp_path / "cache") for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    sums = {process.communicate("go\n", timeout=60)[0] for process in processes}
    expected = sum(
        int(np.asarray(picture(i).resize((24, 24), Image.Resampling.LANCZOS)).sum()) for i in range(6)
    )
    assert sums == {f"{expected}\n"}
    assert len(list((tmp_path / "cache").rglob("*.shard"))) == 3
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_killed_build_loses_one_shard_at_most(photos, tmp_path, monkeypatch, decoded):
    process = builder(tmp_path / "photos", tmp_path / "cache", "slow")
    process.stdout.readline()
    process.stdin.write("go\n")
    process.stdin.flush()
    place = tmp_path / "cache" / "square24"
    until = time.monotonic() + 60
    while len(list(place.glob("*.shard"))) < 1 and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    done = list(place.glob("*.shard"))
    assert 1 <= len(done) < 3
    # what it was writing is nobody's, and goes once it is old
    left = place / ".x.shard.1.part"
    left.write_bytes(b"half")
    young = place / ".y.shard.1.part"
    young.write_bytes(b"half")
    os.utime(left, (1, 1))
    monkeypatch.setattr(cache_module, "SHARD_COUNT", 2)
    open_cache(photos.low, Preparation(square=24), tmp_path / "cache")
    assert len(decoded) == 6 - 2 * len(done)
    assert not left.exists()
    assert young.exists()


def test_a_cache_that_cannot_be_written_is_named(photos, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"cannot write the cache of photographs in .*file.*: Not a directory"):
        open_cache(photos.low, Preparation(), tmp_path / "file")
    with pytest.raises(OSError, match=r"cannot write the cache of photographs in .*file"):
        data.collect(tmp_path / "photos", cache=tmp_path / "file")
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(OSError, match=r"needs 0.0 GB, 0.0 GB are free; make room there") as error:
        open_cache(photos.low, Preparation(), tmp_path / "cache")
    assert error.value.errno == 28
    monkeypatch.undo()

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device; make room there or choose another folder"):
        open_cache(photos.low, Preparation(), tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_file_that_changes_during_a_run_is_named(photos, tmp_path):
    picture(9).save(tmp_path / "photos" / "3.png")
    with refused(ValueError, "3.png has changed since the run began"):
        open_cache(photos.low, Preparation(), tmp_path / "cache")


def test_photographs_move_to_the_device_where_they_fit():
    kept = Cache([torch.zeros(10, 10, 3, dtype=torch.uint8)] * 2)
    meta = torch.device("meta")
    assert kept.to(CPU) is kept
    assert kept.to(meta, free=600 * 2) is kept
    moved = kept.to(meta, free=600 * 3)
    assert [photo.device for photo in moved] == [meta, meta]


# --- batches of photographs as they are


def test_squares_show_each_photograph_once_a_pass(photos, tmp_path):
    source = opened(photos, ZERODCE_PUBLISHED, tmp_path, size=16, batch=4)
    assert (source.steps_per_epoch, source.photographs) == (2, 6)
    assert [source.size(step) for step in range(3)] == [4, 2, 4]
    passes = [
        [name for step in (2 * epoch, 2 * epoch + 1) for name in source.names(step)] for epoch in (0, 1)
    ]
    assert passes[0] != passes[1]
    assert sorted(passes[0]) == sorted(passes[1]) == [f"{number}.png" for number in range(6)]
    for step in range(2):
        batch = source.batch(step)
        assert batch.target is batch.x
        assert batch.normal is None
        assert batch.x.dtype == torch.float32
        assert batch.x.is_contiguous(memory_format=torch.channels_last)
        for name, frame in zip(source.names(step), batch.x, strict=True):
            image = picture(int(name[0])).resize((16, 16), Image.Resampling.LANCZOS)
            assert np.array_equal((frame * 255).round().permute(1, 2, 0).numpy(), np.asarray(image))
    # the order that numpy's generator gives, as in earlier versions
    order = np.random.default_rng((0, 1)).permutation(6)
    assert source.names(2) == [f"{number}.png" for number in order[:4]]


def test_photographs_come_whole_each_once_a_pass(tmp_path):
    folder = tmp_path / "photos"
    sizes = [(40, 30), (31, 47), (36, 36)]
    for number, size in enumerate(sizes):
        folder_of(folder, f"{number}.png", size=size, first=number)
    source = opened(data.collect(folder), SCI_OFFICIAL, tmp_path)
    assert source.steps_per_epoch == 3
    for epoch in range(2):
        for step in range(3 * epoch, 3 * epoch + 3):
            number = int(source.names(step)[0][0])
            x = source.batch(step).x
            assert x.shape == (1, 3, *sizes[number][::-1])
            want = np.asarray(picture(number, sizes[number]))
            assert np.array_equal((x[0] * 255).round().permute(1, 2, 0).numpy(), want)
    reduced = opened(data.collect(folder), SCI_OFFICIAL, tmp_path, long_side=20)
    assert {max(reduced.batch(step).x.shape[-2:]) for step in range(3)} == {20}
    with refused(ValueError, "whole photographs go one a batch, got batch=4: give a size to crop to"):
        opened(data.collect(folder), SCI_OFFICIAL, tmp_path, batch=4)


def test_crops_lie_in_their_photographs(photos, tmp_path):
    # the photographs are 30 high: enlarged for this crop
    large = opened(photos, SCI_OFFICIAL, tmp_path, size=34, batch=4)
    assert [large.batch(step).x.shape for step in range(2)] == [(4, 3, 34, 34), (2, 3, 34, 34)]
    source = opened(photos, SCI_OFFICIAL, tmp_path, size=20, batch=4)
    places = set()
    for step in range(6):
        for name, frame in zip(source.names(step), source.batch(step).x, strict=True):
            whole = np.asarray(picture(int(name[0])))
            crop = (frame * 255).round().byte().permute(1, 2, 0).numpy()
            windows = np.lib.stride_tricks.sliding_window_view(whole, (20, 20, 3))[:, :, 0]
            places.update(zip(*np.nonzero((windows == crop).all((2, 3, 4))), strict=True))
    assert len(places) > 12
    assert not torch.equal(source.batch(0).x, opened(photos, SCI_OFFICIAL, tmp_path, 1, size=20).batch(0).x)


def two_sides(tmp_path, layout):
    """The high side is the low one, brighter by 30."""
    for number in range(5):
        low = np.asarray(picture(number)) // 2
        for side, values in (("low", low), ("high", low + 30)):
            (tmp_path / layout / side).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(tmp_path / layout / side / f"{number}.png")
    return data.collect(tmp_path / layout, paired=layout == "paired")


@pytest.mark.parametrize("recipe", [ZERODCE_PUBLISHED, SCI_OFFICIAL], ids=["squares", "crops"])
def test_targets_take_the_same_crops_and_flips(tmp_path, recipe):
    source = opened(two_sides(tmp_path, "paired"), replace(recipe, flips=True), tmp_path, size=20, batch=3)
    plain = opened(two_sides(tmp_path, "paired"), recipe, tmp_path, size=20, batch=3)
    flipped = []
    for step in range(8):
        batch, straight = source.batch(step), plain.batch(step)
        assert batch.normal is None
        # squares are resampled, each side rounded for itself
        torch.testing.assert_close(
            batch.target - batch.x, torch.full_like(batch.x, 30 / 255), rtol=0, atol=0.005
        )
        for frame, other in zip(batch.x, straight.x, strict=True):
            flipped.append(not torch.equal(frame, other))
            assert torch.equal(frame, other.flip(2) if flipped[-1] else other)
    assert 4 < sum(flipped) < 16


@pytest.mark.parametrize(
    ("layout", "recipe"),
    [("paired", ZERODCE_PUBLISHED), ("paired", SCI_OFFICIAL), ("unpaired", ENLIGHTENGAN_PUBLISHED)],
    ids=["squares", "crops", "two sides"],
)
def test_photographs_are_metered_as_wholes(tmp_path, layout, recipe):
    found = two_sides(tmp_path, layout)
    how = {"size": 20, "batch": 3, **({"patch": 8, "dark_share": 0} if layout == "unpaired" else {})}
    plain, behind = (opened(found, recipe, tmp_path, meter=level, **how) for level in (None, 0.6))
    wholes = {one.name: torch.from_numpy(np.array(one.image())).permute(2, 0, 1)[None] for one in found.low}
    kept = recipe.kept().get("square")
    for step in range(3):
        given, seen = plain.batch(step), behind.batch(step)
        if kept:
            # squeezed: the square is the whole
            gains = gain_of(given.x, 0.6)
        else:
            gains = torch.cat([gain_of(wholes[name], 0.6) for name in behind.names(step)])
        assert (gains > 1.2).all()
        torch.testing.assert_close(seen.x, taught(given.x, gains), atol=1e-6, rtol=0)
        assert seen.x.is_contiguous(memory_format=torch.channels_last)
        if layout == "paired":
            assert torch.equal(seen.target, given.target)
        else:
            assert torch.equal(seen.normal, given.normal)
        parts = [behind.batch(step, part, 2).x for part in range(2)]
        assert torch.equal(torch.cat(parts), seen.x)


def test_unpaired_photographs_come_beside(tmp_path):
    found = two_sides(tmp_path, "unpaired")
    found = replace(found, high=found.high[:2])
    source = opened(found, SCI_OFFICIAL, tmp_path, size=20, batch=3)
    assert source.steps_per_epoch == 2
    shown = []
    for step in range(4):
        batch = source.batch(step)
        assert batch.target is batch.x
        assert batch.normal.shape == batch.x.shape
        assert batch.normal.min() >= 30 / 255
        shown += [frame.sum().item() for frame in batch.normal]
    # independent of the others: of two photographs, in crops of their own
    assert len(set(shown)) == len(shown)
    assert not torch.equal(source.batch(0).normal, source.batch(2).normal)


def test_synthesis_wants_a_size_and_one_side(tmp_path, photos):
    with refused(ValueError, "synthetic exposures need a size"):
        opened(photos, SCI_OFFICIAL, tmp_path, synthesis=Synthesis())
    with refused(ValueError, "photographs of normal light, got paired ones", "synthesis=None"):
        opened(two_sides(tmp_path, "paired"), ZERODCE, tmp_path)
    with refused(ValueError, "squares of 64 do not fit into scenes of 48x96"):
        opened(photos, ZERODCE, tmp_path, synthesis=Scenes(size=(48, 96)))
    with refused(ValueError, "photographs of normal light, got unpaired ones"):
        opened(two_sides(tmp_path, "unpaired"), ENLIGHTENGAN, tmp_path, size=32, synthesis=Scenes())


# --- parts and purity


def every_source(tmp_path):
    plain = data.collect(folder_of(tmp_path / "plain", *(f"{number}.png" for number in range(7))))
    unpaired = two_sides(tmp_path, "unpaired")
    scenes = Scenes(size=(24, 32))
    return {
        "scenes": opened(plain, ZERODCE, tmp_path, size=16, batch=5, synthesis=scenes),
        "synthetic": opened(plain, ZERODCE, tmp_path, size=16, batch=5),
        "squares": opened(plain, replace(ZERODCE_PUBLISHED, flips=True), tmp_path, size=16, batch=5),
        "crops": opened(unpaired, replace(SCI_OFFICIAL, flips=True), tmp_path, size=20, batch=3),
        "pairs": opened(two_sides(tmp_path, "paired"), SCI_OFFICIAL, tmp_path, size=20, batch=3),
        "whole": opened(unpaired, SCI_OFFICIAL, tmp_path),
    }


@pytest.mark.parametrize("kind", ["scenes", "synthetic", "squares", "crops", "pairs", "whole"])
def test_parts_make_up_the_batch(tmp_path, kind):
    source = every_source(tmp_path)[kind]
    for step in range(3):
        whole = source.batch(step)
        assert len(whole.x) == source.size(step) == len(source.names(step))
        for parts in (1, 2, 3, 8):
            pieces = [source.batch(step, part, parts) for part in range(parts)]
            assert max(len(piece.x) for piece in pieces) == -(-len(whole.x) // parts)
            for name in ("x", "target", "normal"):
                values = [getattr(piece, name) for piece in pieces]
                if getattr(whole, name) is None:
                    assert values == [None] * parts
                else:
                    assert torch.equal(torch.cat(values), getattr(whole, name)), (name, parts)


def test_batches_depend_on_the_seed_and_the_step_alone(tmp_path):
    first, again = every_source(tmp_path / "a"), every_source(tmp_path / "b")
    state = torch.get_rng_state()
    for kind, source in first.items():
        again[kind].batch(7)
        np.random.seed(0)
        assert torch.equal(source.batch(1).x, again[kind].batch(1).x), kind
        assert torch.equal(source.batch(1).target, again[kind].batch(1).target), kind
        assert source.batch(0).x.shape != source.batch(1).x.shape or not torch.equal(
            source.batch(0).x, source.batch(1).x
        )
    assert torch.equal(torch.get_rng_state(), state)
