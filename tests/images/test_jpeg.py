"""The scans of a JPEG, and encoders that write into a file in memory."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from fastllie.images import jpeg
from fastllie.images.formats import FORMATS
from fastllie.images.photograph import Photograph


def jpeg_of(image, **settings):
    content = io.BytesIO()
    image.save(content, "JPEG", **settings)
    return content.getvalue()


def test_scans_are_counted_where_a_decoder_reads_several():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))
    plain, progressive = jpeg_of(image), jpeg_of(image, progressive=True)
    assert jpeg.is_one_scan(plain)
    assert jpeg.is_one_scan(jpeg_of(image.convert("L")))
    assert jpeg.is_one_scan(jpeg_of(image.convert("CMYK")))
    assert not jpeg.is_one_scan(progressive)
    assert jpeg.count_scans(progressive) > 3
    # colours one after another: the first scan holds one of three
    apart = bytearray(plain)
    apart[apart.index(b"\xff\xda") + 4] = 1
    assert not jpeg.is_one_scan(bytes(apart))
    assert not jpeg.is_one_scan(plain[: plain.index(b"\xff\xda")])
    assert not jpeg.is_one_scan(b"")


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has no files in memory")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "JPEG2000", "BMP"])
def test_an_encoder_gives_the_same_with_and_without_files_in_memory(tmp_path, kind, monkeypatch):
    photo = Photograph(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))
    suffix = FORMATS[kind].suffixes[0]
    open_files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    photo.save(tmp_path / f"one{suffix}")
    if open_files:
        assert len(os.listdir("/proc/self/fd")) == open_files
    monkeypatch.delattr(os, "memfd_create")
    photo.save(tmp_path / f"two{suffix}")
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()
