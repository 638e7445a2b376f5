"""The whole table of formats: each in every mode and depth that it holds, with all metadata that it holds.

What is made of a file by an enhancer that changes nothing is the same file: equal pixels (or at most the
error of a lossy format), and equal metadata. The page of the documentation is this table (test_formats.py).
"""

from dataclasses import replace

import numpy as np
import pytest
from PIL import features
from test_formats import DEEP, IPTC, PIXELS, PROFILE, SMOOTH, XMP, exif_data, through

from fastllie.images.formats import FORMATS
from fastllie.images.photograph import Photograph, Stored
from fastllie.images.reading import read

KEYS = {
    "EXIF": "exif",
    "XMP": "xmp",
    "IPTC": "iptc",
    "ICC profile": "icc_profile",
    "resolution": "dpi",
    "comment": "comment",
}
INFO = {
    "exif": exif_data(),
    "xmp": XMP,
    "iptc": IPTC,
    "icc_profile": PROFILE,
    "dpi": (300, 200),
    "comment": b"a note",
}
NEEDED = {"heif": "pillow_heif", "jxl": "pillow_jxl"}
WRITTEN = {name: format for name, format in FORMATS.items() if format.written}


def of_channels(values, channels):
    """Grey, grey and alpha, RGB, or RGB and alpha."""
    return np.ascontiguousarray(values[..., [0, 3]] if channels == 2 else values[..., :channels])


def cells():
    """Every format, and a photograph of each kind that the table says it holds."""
    for name, format in WRITTEN.items():
        eight = SMOOTH if format.exact == "never" else PIXELS
        if name == "GIF":
            # as many colours as it holds, and alpha that is all or nothing
            eight = np.where(PIXELS > 127, 255, 0).astype(np.uint8)
        for channels in format.channels:
            yield name, f"8 bits, {channels}", Photograph(of_channels(eight, channels))
        for channels in format.deep:
            mode = "I;16" if channels == 1 else ""
            yield name, f"16 bits, {channels}", Photograph(of_channels(DEEP, channels), mode=mode)
        floats = (DEEP / 65535).astype(np.float32)
        for mode in format.modes:
            if mode == "CMYK":
                yield name, mode, Photograph.of_inks(eight, {}, Stored())
            elif mode == "1":
                yield name, mode, Photograph(np.where(eight[..., :1] > 99, 255, 0).astype("u1"), mode=mode)
            elif mode == "I":
                yield name, mode, Photograph(of_channels(DEEP, 1), mode=mode)
            else:
                for channels in (1, 2, 3, 4) if name == "TIFF" else (1,):
                    yield name, f"floats, {channels}", Photograph(of_channels(floats, channels), mode="F")


CELLS = {f"{name}: {kind}": (name, photo) for name, kind, photo in cells()}


def test_every_row_is_here():
    assert {name for name, _ in CELLS.values()} == set(WRITTEN)
    for name, format in WRITTEN.items():
        own = [photo for one, photo in CELLS.values() if one == name]
        assert {photo.values.shape[2] for photo in own if photo.top == 65535} >= set(format.deep)
        assert len(own) >= len(format.channels) + len(format.deep) + len(format.modes)
        assert set(format.holds) - set(KEYS) <= {"text", "gamma", "private tags"}, "tested with their formats"


@pytest.mark.parametrize("cell", CELLS)
def test_the_same_pixels_and_the_same_metadata(tmp_path, cell):
    name, photo = CELLS[cell]
    format = WRITTEN[name]
    if format.extra:
        pytest.importorskip(NEEDED[format.extra])
    if name in ("AVIF", "JPEG2000") and not features.check("avif" if name == "AVIF" else "jpg_2000"):
        pytest.skip("Pillow without it")
    photo.info = dict(INFO)
    suffix = ".pfm" if name == "PPM" and photo.mode == "F" else format.suffixes[0]
    first, second = (tmp_path / f"{place}{suffix}" for place in "ab")
    if name == "WEBP":
        photo.stored = Stored(name, {"lossless": True, "exact": True})
    photo.save(first, quality=100 if format.exact == "as given" and name != "WEBP" else None)
    before = read(first)
    assert through(first, second) == [], "nothing may be lost from a format to itself"
    after = read(second)
    if name == "GIF" and photo.grey:
        # three equal channels: a palette is one of colours
        photo = replace(photo, values=photo.colours)
    assert after.values.shape == before.values.shape == photo.values.shape
    assert after.values.dtype == before.values.dtype
    assert (after.mode, after.white) == (before.mode, before.white)
    if format.exact == "never":
        assert np.abs(after.values.astype(float) - before.values).mean() < 4 / 255 * (photo.top or 1)
    else:
        assert np.array_equal(after.values, before.values)
        shown = photo.values[..., -1:] > 0 if name == "GIF" and photo.values.shape[2] == 4 else True
        assert np.array_equal(before.values * shown, photo.values * shown), "the first writing kept them too"
    if before.native is not None and format.exact != "never":
        assert np.array_equal(after.native, before.native)
    for kind, key in KEYS.items():
        if kind not in format.holds:
            continue
        assert before.info.get(key), f"{kind} has a place"
        if key == "dpi":
            assert np.allclose(np.array(after.info[key], float), np.array(before.info[key], float), atol=0.1)
        elif key == "exif":
            # up to the place of the preview, which is made anew
            assert after.info[key][:98] == before.info[key][:98]
            assert b"notes of the maker" in after.info[key]
        else:
            assert after.info[key] == before.info[key], kind
