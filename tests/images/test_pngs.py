"""PNG as it is written here: the pixels by every filter, and which pictures are left to Pillow."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers import picture
from PIL import Image

import fastllie
from fastllie.images import pngs
from fastllie.images.photograph import Photograph
from fastllie.images.reading import read

PHOTOGRAPHS = Path(__file__).resolve().parents[3] / "shared" / "data" / "free_photos"


def decoded(content):
    return read(io.BytesIO(content)).values


@pytest.mark.parametrize("kind", [pngs._SUB, pngs._UP, pngs._AVERAGE])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_come_back(kind, dtype, channels, monkeypatch):
    monkeypatch.setattr(pngs, "_BAND", 300)  # bands of few rows, and of one row
    monkeypatch.setattr(pngs, "_chosen", lambda rows, pixel, level: (kind, 0.9 + 0.2 * (channels % 2)))
    values = np.random.default_rng(channels).integers(0, np.iinfo(dtype).max + 1, (41, 29, 4), dtype)
    for height, width in ((41, 29), (1, 29), (41, 1), (1, 1)):
        given = np.ascontiguousarray(values[:height, :width, :channels])
        made = decoded(pngs.encoded(given, 1))
        assert made.dtype == dtype
        assert np.array_equal(made, given)


def noisy(size, mode="RGB"):
    """A picture with the noise of a photograph."""
    rng = np.random.default_rng(0)
    smooth = np.asarray(picture(size=size, brightest=200).convert("RGB")).astype(float)
    values = (smooth + rng.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(values).convert(mode)).reshape(size[1], size[0], -1)


def by_pillow(values):
    content = io.BytesIO()
    Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(content, "PNG", compress_level=1)
    return content.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_noise_is_coded_by_runs(mode, monkeypatch):
    monkeypatch.setattr(pngs, "_SMALL", 0)
    values = noisy((700, 500), mode)
    made = pngs.encoded_by_runs(values, 1)
    assert np.array_equal(decoded(made), values)
    assert len(made) < 0.97 * len(by_pillow(values))


def test_drawings_and_small_pictures_are_left_to_pillow():
    letters = np.random.default_rng(1).integers(0, 2, (12, 12, 8, 1), dtype=np.uint8)
    text = np.random.default_rng(2).integers(0, 12, (100, 150))
    drawing = (255 * letters[text]).swapaxes(1, 2).reshape(1200, 1200, 1).repeat(3, 2)
    assert pngs.encoded_by_runs(np.ascontiguousarray(drawing), 1) is None
    assert pngs.encoded_by_runs(noisy((600, 400)), 1) is None


def chunks(content):
    place, found = 8, {}
    while place < len(content):
        length, name = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        body = content[place + 8 : place + 8 + length]
        assert zlib.crc32(name + body).to_bytes(4, "big") == content[place + 8 + length :][:4]
        found[name] = body
        place += 12 + length
    return found


def test_a_photograph_is_written_so_with_all_that_came_with_it(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "a night"
    photo = Photograph(noisy((1200, 800)), {"exif": exif.tobytes(), "dpi": (300, 300), "comment": b"mine"})
    photo.save(tmp_path / "a.png")
    # another level is Pillow's
    photo.save(tmp_path / "pillow.png", png_level=2)
    ours, pillows = (chunks((tmp_path / name).read_bytes()) for name in ("a.png", "pillow.png"))
    assert ours[b"IDAT"] == chunks(pngs.encoded_by_runs(photo.values, 1))[b"IDAT"]
    assert ours.keys() == pillows.keys() > {b"eXIf", b"pHYs", b"tEXt"}
    assert all(ours[name] == pillows[name] for name in ours.keys() - {b"IDAT"})
    for name in ("a.png", "pillow.png"):
        assert np.array_equal(read(tmp_path / name).values, photo.values)


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="shared/data is not here")
def test_no_file_is_much_larger_than_that_of_pillow():
    ratios = []
    for path in sorted(PHOTOGRAPHS.rglob("*.jpg"))[::45]:
        brightened = fastllie.enhance(np.asarray(Image.open(path).convert("RGB")), "sci")
        if made := pngs.encoded_by_runs(brightened, 1):
            ratios.append(len(made) / len(by_pillow(brightened)))
    assert len(ratios) >= 3
    assert max(ratios) <= 1.02
    assert np.mean(ratios) < 0.96
