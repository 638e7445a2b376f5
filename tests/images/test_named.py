"""Bits, pictures and parts that are lost on the way are named, and codings that can be kept are kept."""

import struct
import warnings

import numpy as np
import pytest
from PIL import Image, features
from test_formats import DEEP, PIXELS, SMOOTH, exif_data, through

import fastllie
from fastllie.images.photograph import Photograph
from fastllie.images.reading import kind_of, read

RGB16 = np.ascontiguousarray(DEEP[..., :3])
RGB8 = np.ascontiguousarray(SMOOTH[..., :3])


def made(path, encode, *arguments, **settings):
    codecs = pytest.importorskip("imagecodecs")
    path.write_bytes(getattr(codecs, encode)(*arguments, **settings))
    return path


@pytest.mark.parametrize(("bits", "named"), [(8, ()), (10, ("all but 8 of 10 bits",))])
def test_bits_of_avif(tmp_path, bits, named):
    if not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    values = RGB16 >> (16 - bits) if bits > 8 else RGB8
    path = made(tmp_path / "a.avif", "avif_encode", values, bitspersample=bits, level=90)
    assert read(path).stored.left_out == named
    assert tuple(through(path, tmp_path / "b.avif")) == named


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_subsampling_of_avif_and_heic(tmp_path, subsampling):
    image = Image.fromarray(RGB8)
    if features.check("avif"):
        image.save(tmp_path / "a.avif", subsampling=subsampling)
        through(tmp_path / "a.avif", tmp_path / "b.avif")
        assert read(tmp_path / "b.avif").stored.coding["subsampling"] == subsampling
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(image).save(tmp_path / "a.heic", chroma=int(subsampling.replace(":", "")))
    through(tmp_path / "a.heic", tmp_path / "b.heic")
    assert read(tmp_path / "b.heic").stored.coding["subsampling"] == subsampling


def test_several_pictures_in_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    file = heif.from_pillow(Image.fromarray(RGB8))
    for _ in range(2):
        file.add_from_pillow(Image.fromarray(RGB8[::-1].copy()))
    file.save(tmp_path / "a.heic")
    assert through(tmp_path / "a.heic", tmp_path / "b.heic") == ["2 further pictures"]
    with pytest.warns(UserWarning, match="left out: 2 further pictures"):
        fastllie.Enhancer(strength=0)(tmp_path / "a.heic")


def test_credentials_and_gain_maps_in_boxes(tmp_path):
    if not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    Image.fromarray(RGB8).save(tmp_path / "a.avif")
    body = bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + bytes(20)
    box = struct.pack(">I4s", 8 + len(body), b"uuid") + body
    (tmp_path / "a.avif").write_bytes((tmp_path / "a.avif").read_bytes() + box)
    assert through(tmp_path / "a.avif", tmp_path / "b.avif") == ["C2PA"]


JXL = {
    "8 bits": (RGB8, ()),
    "16 bits": (RGB16, ("all but 8 of 16 bits",)),
    "floats": ((RGB16 / 65535).astype("f4"), ("all but 8 of 32 bits",)),
    "grey of 16 bits": (RGB16[..., 0], ()),
    "alpha": (np.ascontiguousarray(SMOOTH), ()),
    "an animation": (np.stack([RGB8, RGB8 // 2]), ("the other pictures of the animation",)),
}


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("kind", JXL)
def test_jpeg_xl(tmp_path, kind, lossless):
    pytest.importorskip("pillow_jxl")
    values, named = JXL[kind]
    settings = {"lossless": True} if lossless else {"distance": 2.0}
    path = made(tmp_path / "a.jxl", "jpegxl_encode", values, **settings)
    before = read(path)
    assert before.stored.left_out == named
    assert before.stored.coding.get("lossless", False) == lossless
    assert tuple(through(path, tmp_path / "b.jxl")) == named
    if lossless:
        assert np.array_equal(read(tmp_path / "b.jxl").values, before.values)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (RGB8, ()),
        (RGB16 >> 4, ("all but 8 of 12 bits",)),
        (RGB16, ("all but 8 of 16 bits",)),
        (RGB16[..., 0], ()),
    ],
    ids=["8 bits", "12 bits", "16 bits", "grey of 16 bits"],
)
def test_bits_of_jpeg_2000(tmp_path, values, named):
    if not features.check("jpg_2000"):
        pytest.skip("Pillow without JPEG 2000")
    bits = 8 if values.dtype == np.uint8 else 12 if values.max() < 4096 else 16
    path = made(tmp_path / "a.jp2", "jpeg2k_encode", values, codecformat="jp2", level=0, bitspersample=bits)
    assert read(path).stored.left_out == named


# --- numbers of TIFF


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("kind", ["f8", "f2", "u4", "i4", "i2", "u8", "i1"])
def test_numbers_of_every_kind(tmp_path, kind, channels, photometric):
    tifffile = pytest.importorskip("tifffile")
    if channels == 3 and photometric == "miniswhite":
        pytest.skip("grey alone")
    values = RGB16[..., :channels] / 65535
    top = {"i1": 127, "i2": 32767}.get(kind, 65535)
    values = values.astype(kind) if kind[0] == "f" else (values * top).astype(kind)
    stored = values[..., 0] if channels == 1 else values
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb" if channels == 3 else photometric)
    got = read(tmp_path / "a.tif")
    white = 1 if kind[0] == "f" else 255 if kind == "i1" else 65535
    want = white - values.astype("f8") if photometric == "miniswhite" else values
    assert np.allclose(got.values, want, atol=1e-3 if kind == "f2" else 1e-6)
    named = through(tmp_path / "a.tif", tmp_path / "b.tif")
    kept = kind == "f2" or (kind in ("u4", "i4", "i2", "u8") and channels == 1)
    assert bool(named) != kept, named
    assert np.array_equal(read(tmp_path / "b.tif").values, got.values)


def test_numbers_that_nobody_knows_the_white_of(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for values in (RGB16.astype("u4") << 8, RGB16.astype("i4") - 40_000):
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
        with pytest.raises(ValueError, match=r"a\.tif': it holds integers of 32 bits from .* scale them to"):
            read(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", RGB16[..., 0].astype("c8"))
    with pytest.raises(
        ValueError, match=r"a\.tif' is a TIFF of a kind that is not read \(bits 64, sample format 6"
    ):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_what_lies_behind_a_picture_is_named(tmp_path, suffix):
    Image.fromarray(RGB8).save(tmp_path / f"a.{suffix}")
    assert through(tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}") == []
    with open(tmp_path / f"a.{suffix}", "ab") as file:
        file.write(b"a film, say" * 9)
    assert through(tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}") == ["what lies behind the picture"]


# --- notes of the camera's maker


@pytest.mark.parametrize(
    ("notes", "moves"), [(b"Canon" + bytes(60), True), (b"Nikon\0\2" + bytes(60), False)]
)
def test_notes_that_point_to_places_are_named_where_they_move(tmp_path, notes, moves):
    data = exif_data()
    place = data.index(b"notes of the maker")
    # behind all others, where there is room
    where = len(data) - 6
    data = data.replace(
        struct.pack("<HHII", 0x927C, 7, 18, place - 6), struct.pack("<HHII", 0x927C, 7, 65, where)
    )
    Image.fromarray(RGB8).save(tmp_path / "a.jpg", exif=data + notes[:65].ljust(65, b"\0"))
    assert through(tmp_path / "a.jpg", tmp_path / "b.jpg") == []
    words = "the places that the notes of the camera's maker point to"
    assert through(tmp_path / "a.jpg", tmp_path / "b.tif") == ([words] if moves else [])
    with Image.open(tmp_path / "b.tif") as image:
        assert image.getexif().get_ifd(0x8769)[0x927C] == notes[:65].ljust(65, b"\0")


# --- files whose names say nothing


def test_kinds_by_content(tmp_path):
    Image.fromarray(RGB8).save(tmp_path / "a.ico")
    Image.fromarray(PIXELS).save(tmp_path / "b.png")
    (tmp_path / "b.png").rename(tmp_path / "b")
    (tmp_path / "c.xyz").write_text("no picture")
    assert [kind_of(tmp_path / name) for name in ("a.ico", "b", "c.xyz")] == ["ICO", "PNG", ""]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = fastllie.enhance_folder([tmp_path / "a.ico", tmp_path / "b"], tmp_path / "out", lambda x: x)
    assert sorted(path.name for path in result.done) == ["a.tif", "b"]
    assert kind_of(tmp_path / "out" / "b") == "PNG"
    assert np.array_equal(
        read(tmp_path / "out" / "a.tif").values, Photograph.of(Image.open(tmp_path / "a.ico")).values
    )
