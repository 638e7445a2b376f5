"""JPEG through simplejpeg: the pixels, bytes, metadata and errors are those of Pillow."""

import io
import warnings

import numpy as np
import pytest
from helpers import picture
from PIL import Image

from fastllie.images import reading, turbo, writing

simplejpeg = pytest.importorskip("simplejpeg")
KINDS = [
    *({"quality": 90, "subsampling": subsampling} for subsampling in (0, 1, 2)),
    {"quality": 75, "progressive": True},
    {"quality": 96},
    {"quality": 100, "subsampling": 1},
    {"quality": 60, "keep_rgb": True},
    {"qtables": [[3] * 64, [5] * 64]},
    {"quality": 90, "restart_marker_blocks": 2},
]


def jpeg(mode="RGB", size=(83, 61), **settings):
    content = io.BytesIO()
    picture(3, size).convert(mode).save(content, "JPEG", **settings)
    return content.getvalue()


@pytest.fixture
def without(monkeypatch):
    """Switches simplejpeg off."""

    def off():
        monkeypatch.setattr(turbo, "_library", lambda: None)

    return off


def both(content, without, **how):
    """The photograph as it is read with simplejpeg and without."""
    fast = reading.read(content, **how)
    without()
    return fast, reading.read(content, **how)


def same(one, other):
    assert np.array_equal(one.values, other.values)
    assert one.values.flags.c_contiguous
    assert (one.info, one.mode, one.stored) == (other.info, other.mode, other.stored)


@pytest.mark.parametrize("settings", KINDS, ids=range(len(KINDS)))
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_those_of_pillow(mode, settings, without, monkeypatch):
    calls = []
    decode = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *given: calls.append(1) or decode(*given))
    same(*both(jpeg(mode, **settings), without))
    assert calls == [1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_came_with_them_too(orientation, without):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "a camera"
    content = jpeg(exif=exif, dpi=(300, 300), icc_profile=b"a profile", comment=b"night", xmp=b"<x/>")
    fast, pillow = both(content, without)
    same(fast, pillow)
    assert fast.size == ((83, 61) if orientation < 5 else (61, 83))
    assert fast.info["icc_profile"] == b"a profile"


def test_damaged_files_are_pillows(without):
    content = jpeg(size=(300, 200), quality=95)
    errors = []
    for part in (content[: len(content) // 2], content[:40], content[:300] + b"\xff\xd9"):
        for _ in range(2):
            with pytest.raises((ValueError, OSError)) as caught:
                reading.read(part)
            errors.append((type(caught.value), str(caught.value)))
            without()
    assert errors[::2] == errors[1::2]


def test_damage_that_pillow_reads_over_is_read_over(without):
    content = bytearray(jpeg(size=(300, 200), quality=95))
    content[-400:-390] = b"\x55" * 10
    same(*both(bytes(content), without))


def test_damaged_exif_is_told(without):
    content = jpeg(exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fast = reading.read(content)
        words = {str(one.message) for one in told}
    without()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        same(fast, reading.read(content))
        assert {str(one.message) for one in told} == words


def test_too_many_pixels_are_refused_before():
    with pytest.raises(ValueError, match="max_pixels"):
        reading.read(jpeg(), max_pixels=100)


def test_cmyk_and_others_are_left_to_pillow(without):
    same(*both(jpeg("CMYK"), without))


@pytest.mark.parametrize("settings", KINDS, ids=range(len(KINDS)))
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("quality", [None, 80, 97])
def test_written_bytes_are_those_of_pillow(mode, settings, quality, without, tmp_path):
    photo = reading.read(jpeg(mode, **settings))
    written = []
    for place in range(2):
        writing.write(photo, tmp_path / f"{place}.jpg", quality=quality, png_level=1)
        written.append((tmp_path / f"{place}.jpg").read_bytes())
        without()
    assert written[0] == written[1]


def test_which_are_written_by_it():
    photo = reading.read(jpeg(quality=97))
    settings = {"qtables": photo.stored.coding["qtables"], "subsampling": 2}
    assert turbo.encoded(photo, settings).startswith(b"\xff\xd8")
    assert turbo.encoded(photo, settings) == turbo.encoded(photo, {"quality": 97})
    assert turbo.encoded(photo, {"quality": 95}) is None
    assert turbo.encoded(photo, {**settings, "progressive": True}) is None
    assert turbo.encoded(photo, {"qtables": [[3] * 64, [5] * 64]}) is None
