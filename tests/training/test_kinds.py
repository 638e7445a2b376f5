"""Training reads what `fastllie.enhance` reads, in the same way, and names what it does not."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import picture
from PIL import Image, features

import fastllie
from fastllie.images.batches import to_batch
from fastllie.images.photograph import Photograph
from fastllie.training import data

PIXELS = np.asarray(picture(4, (40, 30)))
DEEP = np.random.default_rng(2).integers(0, 65536, (30, 40, 4), dtype=np.uint16)


def tiff(path, **settings):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(path, **settings)


def told(found):
    return {Path(one.file).name: one.what for one in found.problems}


MAKERS = {
    "white.tif": lambda path: tiff(path, data=PIXELS[..., 0], photometric="miniswhite"),
    "deep.tif": lambda path: tiff(path, data=DEEP[..., :3], photometric="rgb", compression="zlib"),
    "inks.tif": lambda path: tiff(path, data=(DEEP >> 8).astype(np.uint8), photometric="separated"),
    "floats.tif": lambda path: tiff(path, data=DEEP[..., :3] / np.float32(65535), photometric="rgb"),
    "clear.png": lambda path: Photograph(DEEP).save(path),
    "key.png": lambda path: Image.fromarray(DEEP[..., 0]).save(path, transparency=int(DEEP[3, 4, 0])),
    "a.gif": lambda path: Image.fromarray(PIXELS).quantize(90).save(path),
    "a.tga": lambda path: Image.fromarray(PIXELS).save(path),
    "a.jfif": lambda path: Image.fromarray(PIXELS).save(path, "JPEG"),
    "deep.pgm": lambda path: Image.fromarray(DEEP[..., 0]).save(path),
    "a.webp": lambda path: Image.fromarray(PIXELS).save(path, lossless=True),
    "a.avif": lambda path: (
        Image.fromarray(PIXELS).save(path) if features.check("avif") else pytest.skip("no")
    ),
    "a.heic": lambda path: pytest.importorskip("pillow_heif") and Photograph(PIXELS).save(path),
    "a.jxl": lambda path: pytest.importorskip("pillow_jxl") and Photograph(PIXELS).save(path),
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_pixels_are_those_that_enhance_sees(tmp_path, name):
    MAKERS[name](tmp_path / name)
    (item,) = data.collect(tmp_path).low
    seen = to_batch(tmp_path / name, dtype=torch.float64)[0][0].permute(1, 2, 0).numpy()
    got = np.asarray(item.image())
    assert got.dtype == np.uint8
    assert np.abs(got - seen * 255).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_ordinary_files_are_as_pillow_reads_them(tmp_path, suffix, mode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).convert(mode).save(path, exif=exif, quality=90)
    (item,) = data.collect(tmp_path).low
    want = np.asarray(Image.open(path).convert("RGB"))
    assert np.array_equal(np.asarray(item.image()), want if orientation == 1 else np.rot90(want, -1))


def test_every_kind_that_is_passed_over_is_counted(tmp_path):
    for place in ("photos", "photos/.thumbnails", "elsewhere"):
        (tmp_path / place).mkdir()
        picture(3).save(tmp_path / place / "a.png")
    for name in ("notes.txt", "clip.mp4", "more.mp4", "README"):
        (tmp_path / "photos" / name).write_text("no photograph")
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
    found = data.collect(tmp_path / "photos")
    assert [item.name for item in found.low] == ["a.png", "link/a.png"]
    counts = "holds 2 .mp4, 1 .txt, 1 hidden, 1 without a suffix beside photographs"
    assert told(found) == {"photos": counts}
    assert told(data.collect(str(tmp_path / "photos" / "*.*"))) == {
        "*.*": "holds 2 .mp4, 1 .txt beside photographs"
    }
    (tmp_path / "photos" / "a.png").unlink()
    (tmp_path / "photos" / "link").unlink()
    with pytest.raises(ValueError, match=r"holds no images; .*photos holds 2 \.mp4, 1 \.txt"):
        data.collect(tmp_path / "photos")


def test_what_is_not_used_of_a_file_is_named(tmp_path):
    frames = [Image.fromarray(np.roll(PIXELS, place, 1)) for place in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    found = data.collect(tmp_path)
    assert told(found) == {"a.webp": "is used without the other 2 pictures"}
    assert np.array_equal(np.asarray(found.low[0].image()), PIXELS)


@pytest.mark.parametrize(
    ("name", "start", "module", "extra"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic", "pillow_heif", "heif"),
        ("a.jxl", b"\xff\x0a", "pillow_jxl", "jxl"),
        ("a.nef", b"MM\0*", "rawpy", "raw"),
    ],
)
def test_an_absent_extra_is_named(tmp_path, monkeypatch, name, start, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    picture(3).save(tmp_path / "good.png")
    (tmp_path / name).write_bytes(start + bytes(100))
    found = data.collect(tmp_path)
    assert [item.name for item in found.low] == ["good.png"]
    assert told(found)[name].startswith("is ")
    assert f'pip install "fastllie[{extra}]"' in told(found)[name]
    picture(3).save(tmp_path / "truth.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for place in ("in", "out"):
        (tmp_path / place / name).write_bytes(start + bytes(100))
        picture(3).save(tmp_path / place / "good.png")
    scores = fastllie.evaluate(tmp_path / "in", tmp_path / "out", metrics=["psnr"])
    assert len(scores.failures) == 1
    assert f'pip install "fastllie[{extra}]"' in scores.failures[0]


def test_the_limit_on_pixels_is_an_argument(tmp_path):
    picture(3, (40, 30)).save(tmp_path / "small.png")
    picture(3, (60, 50)).save(tmp_path / "large.png")
    found = data.collect(tmp_path, max_pixels=2000)
    assert [item.name for item in found.low] == ["small.png"]
    assert told(found)["large.png"].startswith(
        "has 60x50 pixels, and 2000 are taken; give a larger max_pixels"
    )
    assert len(data.collect(tmp_path, max_pixels=3000).low) == 2


def test_a_trap_is_refused(tmp_path):
    content = io.BytesIO()
    Image.fromarray(np.zeros((4000, 4000, 3), np.uint8)).save(content, "JPEG", progressive=True)
    whole = content.getvalue()
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    picture(3).save(tmp_path / "good.png")
    (tmp_path / "trap.jpg").write_bytes(whole[:-2] + scan * 300 + b"\xff\xd9")
    assert "scans of 4000x4000 pixels" in told(data.collect(tmp_path))["trap.jpg"]
