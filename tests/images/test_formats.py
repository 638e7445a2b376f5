"""Every format in every mode and depth: the same pixels come out and the same metadata, or a word on it."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers import dng
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin, PngImagePlugin, features

import fastllie
from fastllie.images import formats, writing
from fastllie.images.formats import FORMATS, KINDS
from fastllie.images.photograph import Photograph
from fastllie.images.reading import read

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
IPTC = b"\x1c\x02\x50\x00\x07A Press"
RESOURCES = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RANDOM = np.random.default_rng(3)
PIXELS = RANDOM.integers(0, 256, (31, 44, 4), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(PIXELS[:5, :7]).resize((44, 31), Image.Resampling.BICUBIC))
DEEP = RANDOM.integers(0, 65536, (31, 44, 4), dtype=np.uint16)
ROOT = Path(__file__).resolve().parents[2]


def same(image):
    return image


def through(source, target, **settings):
    """What a folder makes of a file with an enhancer that changes nothing; the notes on it."""
    result = fastllie.enhance_folder(source, target, same, **settings)
    assert not result.failed, result.failed
    return [note for given in result.notes for note in given.left_out]


def exif_data(*, orientation=1, order="<"):
    """By hand: the maker and its notes, the size, and a preview in a directory of its own."""
    small = io.BytesIO()
    Image.new("RGB", (16, 11), (9, 8, 7)).save(small, "JPEG")
    preview = small.getvalue()

    def table(rows, following):
        content = struct.pack(order + "H", len(rows))
        for tag, kind, count, value in rows:
            packed = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
            content += struct.pack(order + "HHI", tag, kind, count) + packed
        return content + struct.pack(order + "I", following)

    content = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    content += table([(0x010F, 2, 6, 134), (0x0112, 3, 1, orientation), (0x8769, 4, 1, 50)], 92)
    content += table([(0x927C, 7, 18, 140), (0xA002, 4, 1, 44), (0xA003, 4, 1, 31)], 0)
    content += table([(0x0103, 3, 1, 6), (0x0201, 4, 1, 158), (0x0202, 4, 1, len(preview))], 0)
    return b"Exif\0\0" + content + b"Maker\0" + b"notes of the maker" + preview


def preview_of(exif):
    content = Image.Exif()
    content.load(exif)
    place, length = (content.get_ifd(ExifTags.IFD.IFD1)[tag] for tag in (0x0201, 0x0202))
    return Image.open(io.BytesIO(exif.removeprefix(b"Exif\0\0")[place : place + length]))


# --- pixels


def of_mode(mode, smooth):
    pixels = SMOOTH if smooth else PIXELS
    if mode in ("I;16", "I"):
        return Image.fromarray(DEEP[..., 0].astype(np.uint16 if mode == "I;16" else np.int32))
    if mode == "F":
        return Image.fromarray(DEEP[..., 0].astype(np.float32) / 65535)
    if mode == "P":
        return Image.fromarray(np.ascontiguousarray(pixels[..., :3])).quantize(200)
    if mode == "CMYK":
        return Image.fromarray(np.ascontiguousarray(pixels), "CMYK")
    image = Image.fromarray(np.ascontiguousarray(pixels[..., :3])).convert(mode.replace("A", ""))
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(np.ascontiguousarray(pixels[..., 3])))
    return image


# suffix -> modes that Pillow writes, and how, so that nothing is lost
LOSSLESS = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "tif": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"),
    "webp": ("RGB", "RGBA"),
    "gif": ("L", "P"),
    "bmp": ("1", "L", "P", "RGB"),
    "ppm": ("L", "RGB", "I;16"),
    "pgm": ("L", "I;16"),
    "pbm": ("1",),
    "pfm": ("F",),
    "tga": ("L", "LA", "RGB", "RGBA"),
    "jp2": ("L", "LA", "RGB", "RGBA", "I;16"),
}
HOW = {"webp": {"lossless": True, "exact": True}}


@pytest.mark.parametrize(
    ("suffix", "mode"), [(suffix, mode) for suffix in LOSSLESS for mode in LOSSLESS[suffix]]
)
def test_lossless_formats_keep_every_pixel(tmp_path, suffix, mode):
    if suffix == "jp2" and not features.check("jpg_2000"):
        pytest.skip("Pillow without JPEG 2000")
    source, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    of_mode(mode, smooth=False).save(source, **HOW.get(suffix, {}))
    assert through(source, target) == []
    with Image.open(source) as before, Image.open(target) as after:
        assert after.format == before.format
        plain = before.convert("RGB") if before.mode == "P" else before
        got = after.convert("RGB") if after.mode == "P" else after
        assert got.mode == plain.mode
        assert np.array_equal(np.asarray(got), np.asarray(plain))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, "cmyk"])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_tiffs_keep_every_pixel(tmp_path, order, compression, channels, kind):
    tifffile = pytest.importorskip("tifffile")
    if compression in ("lzw", "packbits"):
        pytest.importorskip("imagecodecs")
    if kind == "f4" and channels == "cmyk":
        pytest.skip("nobody's format")
    values = DEEP[..., : 4 if channels == "cmyk" else channels]
    values = {"u1": (values >> 8).astype("u1"), "u2": values, "f4": values.astype("f4") / 65535}[kind]
    photometric = "separated" if channels == "cmyk" else "rgb" if channels in (3, 4) else "minisblack"
    extra = {"extrasamples": ["unassalpha"]} if channels in (2, 4) else {}
    stored = values[..., 0] if channels == 1 else values
    planar = {"planarconfig": "contig"} if channels == 2 else {}
    settings = {"photometric": photometric, "compression": compression, "byteorder": order, **extra, **planar}
    if order == ">" and (kind, channels) == ("u1", 2):
        pytest.skip("tifffile and Pillow differ on what it is")
    tifffile.imwrite(tmp_path / "a.tif", stored, **settings)
    through(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        page = file.pages[0]
        assert np.array_equal(page.asarray().reshape(values.shape), values)
        assert file.byteorder == order
        before = tifffile.TiffFile(tmp_path / "a.tif").pages[0]
        assert page.compression == before.compression
        assert page.photometric == before.photometric
    if compression:
        assert (tmp_path / "b.tif").stat().st_size < 1.1 * (tmp_path / "a.tif").stat().st_size + 1000


@pytest.mark.parametrize("big", [False, True])
def test_a_gradient_stays_small_and_big_stays_big(tmp_path, big):
    tifffile = pytest.importorskip("tifffile")
    values = np.broadcast_to(np.linspace(0, 65535, 900).astype(np.uint16)[None, :, None], (600, 900, 3))
    settings = {"photometric": "rgb", "compression": "zlib", "predictor": True, "bigtiff": big}
    tifffile.imwrite(tmp_path / "a.tif", values, **settings)
    through(tmp_path / "a.tif", tmp_path / "b.tif")
    assert (tmp_path / "b.tif").stat().st_size < 3 * (tmp_path / "a.tif").stat().st_size
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.is_bigtiff == big
        assert np.array_equal(file.asarray(), values)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("quality", [60, 92])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_keeps_its_quality_and_its_subsampling(tmp_path, mode, quality, subsampling, progressive):
    settings = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
    of_mode(mode, smooth=True).save(tmp_path / "a.jpg", **settings)
    assert through(tmp_path / "a.jpg", tmp_path / "b.jpg") == []
    with Image.open(tmp_path / "a.jpg") as before, Image.open(tmp_path / "b.jpg") as after:
        assert after.mode == before.mode == mode
        assert after.quantization == before.quantization
        assert JpegImagePlugin.get_sampling(after) == JpegImagePlugin.get_sampling(before)
        assert after.info.get("progressive") == before.info.get("progressive")
        # a second time through the same tables
        assert np.abs(np.asarray(after, int) - np.asarray(before, int)).mean() < 4
    through(tmp_path / "a.jpg", tmp_path / "c.jpg", quality=30)
    assert (tmp_path / "c.jpg").stat().st_size < (tmp_path / "b.jpg").stat().st_size


@pytest.mark.parametrize(
    ("suffix", "mode"), [("webp", "RGB"), ("webp", "RGBA"), ("avif", "RGB"), ("avif", "RGBA")]
)
def test_lossy_formats_stay_near(tmp_path, suffix, mode):
    if not features.check(suffix):
        pytest.skip(f"Pillow without {suffix}")
    of_mode(mode, smooth=True).save(tmp_path / f"a.{suffix}", quality=90)
    assert through(tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}") == []
    with Image.open(tmp_path / f"a.{suffix}") as before, Image.open(tmp_path / f"b.{suffix}") as after:
        assert after.mode == before.mode == mode
        assert np.abs(np.asarray(after, int) - np.asarray(before, int)).mean() < 5


@pytest.mark.parametrize("white", [1000, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", [b"P2", b"P3", b"P5", b"P6"])
def test_deep_ppm_stays_deep_with_its_white(tmp_path, white, kind):
    values = np.minimum(DEEP[..., : 3 if kind in (b"P3", b"P6") else 1], white)
    head = kind + b"\n# a word\n44 31\n%d\n" % white
    plain = " ".join(map(str, values.ravel())).encode()
    body = plain if kind in (b"P2", b"P3") else values.astype(">u2").tobytes()
    suffix = "ppm" if kind in (b"P3", b"P6") else "pgm"
    (tmp_path / f"a.{suffix}").write_bytes(head + body)
    assert through(tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}") == []
    start, size, told, rest = (tmp_path / f"b.{suffix}").read_bytes().split(b"\n", 3)
    assert (start, size, told) == (b"P6" if suffix == "ppm" else b"P5", b"44 31", b"%d" % white)
    assert np.array_equal(np.frombuffer(rest, ">u2"), values.ravel())


# --- the meaning of numbers


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_white_is_zero(tmp_path, order, kind, compression):
    tifffile = pytest.importorskip("tifffile")
    top = {"u1": 255, "u2": 65535, "f4": 1}[kind]
    meant = (SMOOTH[..., 0].astype("f4") / 510 * top).astype(kind)
    made = {}
    for name, values in (("miniswhite", top - meant), ("minisblack", meant)):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(
            path, values.astype(kind), photometric=name, byteorder=order, compression=compression
        )
        fastllie.enhance_folder(
            path, tmp_path / "out.tif", lambda x: (x // 2 if kind != "f4" else x / 2).astype(kind)
        )
        with tifffile.TiffFile(tmp_path / "out.tif") as file:
            assert file.pages[0].photometric.name.lower() == name
            made[name] = file.asarray()
    assert np.allclose(top - made["miniswhite"], made["minisblack"], atol=1e-6)


def test_a_tiff_that_tells_its_white(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    values = DEEP[..., :3] >> 4
    extra = [(281, "H", 3, (4095, 4095, 4095), True)]
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extratags=extra)
    assert read(tmp_path / "a.tif").white == 4095
    through(tmp_path / "a.tif", tmp_path / "b.tif")
    assert read(tmp_path / "b.tif").white == 4095
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), values)
    through(tmp_path / "a.tif", tmp_path / "b.bmp")
    with Image.open(tmp_path / "b.bmp") as image:
        assert np.array_equal(np.asarray(image), (values.astype(int) * 255 + 2047) // 4095)
    # one that is not true is none
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric="rgb", extratags=[(281, "H", 3, (300,) * 3, True)]
    )
    assert read(tmp_path / "a.tif").white == 65535


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("profile", [False, True])
def test_black_ink_stays_black_ink(tmp_path, kind, profile):
    tifffile = pytest.importorskip("tifffile")
    inks = np.zeros((31, 44, 4), kind)
    top = np.iinfo(kind).max
    inks[..., 3] = (0.45 + 0.5 * SMOOTH[..., 0] / 255) * top
    inks[..., :3] = 0.2 * SMOOTH[..., :3] / 255 * top
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated")

    def brighter(image):
        bright = image + (top - image) // 4
        return np.where(np.arange(44)[None, :, None] < 22, image, bright).astype(image.dtype)

    fastllie.enhance_folder(tmp_path / "a.tif", tmp_path / "b.tif", brighter)
    got = tifffile.imread(tmp_path / "b.tif")
    assert np.array_equal(got[:, :22], inks[:, :22]), "what is not brightened keeps its inks"
    before, after = read(tmp_path / "a.tif"), read(tmp_path / "b.tif")
    want = brighter(before.values)
    assert np.abs(after.values.astype(float) - want).max() <= 0.006 * top
    # much the same share of black in what is dark
    share = got[:, 22:, 3] / np.maximum(1, top - want[:, 22:].max(axis=2))
    assert share.min() > 0.75


def test_a_grey_picture_with_a_transparent_value(tmp_path):
    values = DEEP[..., 0]
    image = Image.fromarray(values)
    image.save(tmp_path / "a.png", transparency=int(values[3, 4]))
    assert through(tmp_path / "a.png", tmp_path / "b.png") == []
    got = read(tmp_path / "b.png").values
    assert np.array_equal(got[..., 0], values)
    assert np.array_equal(got[..., 1] == 0, values == values[3, 4])


# --- metadata


def full_jpeg(path, orientation=1, order="<"):
    image = Image.fromarray(np.ascontiguousarray(SMOOTH[..., :3]))
    image.save(path, xmp=XMP, dpi=(300, 200), comment=b"a note", icc_profile=PROFILE, quality=90)
    content = path.read_bytes()
    parts = b""
    for marker, part in (
        (0xE1, exif_data(orientation=orientation, order=order)),
        (0xED, RESOURCES),
        (0xE5, b"own"),
    ):
        parts += struct.pack(">BBH", 0xFF, marker, len(part) + 2) + part
    path.write_bytes(content[:2] + parts + content[2:])


def full_png(path, depth=8):
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a workflow")
    text.add_itxt("Title", "Größe", "de", "Titel")
    text.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    for name, content in (
        (b"gAMA", struct.pack(">I", 45455)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        (b"tIME", struct.pack(">H5B", 2024, 2, 29, 12, 0, 1)),
        (b"prVt", b"private"),
    ):
        text.add(name, content)
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    image = Image.fromarray(np.ascontiguousarray(SMOOTH[..., :3]))
    image.save(path, pnginfo=text, dpi=(300, 200), exif=exif.tobytes(), icc_profile=PROFILE)
    if depth == 16:
        content = path.read_bytes()
        start = content.index(b"IDAT") - 4
        made = io.BytesIO()
        Photograph(np.ascontiguousarray(DEEP[..., :3])).save(path)
        made = path.read_bytes()
        path.write_bytes(made[:33] + content[33:start] + made[33:])


def chunks_of(path):
    content, found = path.read_bytes()[8:], []
    while content:
        length, name = struct.unpack(">I4s", content[:8])
        assert struct.unpack_from(">I", content, 8 + length)[0] == zlib.crc32(content[4 : 8 + length])
        if name != b"IDAT":
            found.append((name, content[8 : 8 + length]))
        content = content[12 + length :]
    return found


@pytest.mark.parametrize("depth", [8, 16])
def test_png_keeps_its_chunks(tmp_path, depth):
    full_png(tmp_path / "a.png", depth)
    assert through(tmp_path / "a.png", tmp_path / "b.png") == []
    before, after = (chunks_of(tmp_path / f"{name}.png") for name in "ab")
    plain = [(name, content) for name, content in before if name != b"iTXt" or not content.startswith(b"XML")]
    kept = [(name, content) for name, content in after if name != b"iTXt" or not content.startswith(b"XML")]
    assert sorted(kept) == sorted(plain)
    with Image.open(tmp_path / "b.png") as image:
        image.load()
        assert image.info["XML:com.adobe.xmp"].encode() == XMP
        assert image.text["parameters"] == "a workflow"
        assert image.text["Title"].tkey == "Titel"
        assert image.info["icc_profile"] == PROFILE
        assert image.getexif()[0x010F] == "Maker"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_jpeg_keeps_its_segments(tmp_path, orientation, order):
    full_jpeg(tmp_path / "a.jpg", orientation, order)
    assert through(tmp_path / "a.jpg", tmp_path / "b.jpg") == []
    with Image.open(tmp_path / "a.jpg") as before, Image.open(tmp_path / "b.jpg") as after:
        after.load()
        assert after.size == (before.size if orientation != 6 else before.size[::-1])
        assert after.info["xmp"] == XMP
        assert after.info["dpi"] == (300, 200)
        assert after.info["comment"] == b"a note"
        assert after.info["icc_profile"] == PROFILE
        assert after.info["photoshop"] == {0x0404: IPTC}
        assert ("APP5", b"own") in after.applist
        exif = after.getexif()
        assert exif[0x010F] == "Maker"
        assert exif.get(0x0112, 1) == 1
        below = exif.get_ifd(0x8769)
        assert below[0x927C] == b"notes of the maker"
        assert (below[0xA002], below[0xA003]) == after.size
        # nothing moved, so that what the maker's notes point to is where it was
        assert after.info["exif"].index(b"notes of the maker") == before.info["exif"].index(
            b"notes of the maker"
        )
        preview = preview_of(after.info["exif"])
        small = after.convert("RGB").resize(preview.size)
        assert np.abs(np.asarray(preview, int) - np.asarray(small, int)).mean() < 12
        assert preview.width / preview.height == pytest.approx(after.width / after.height, abs=0.1)


def test_the_preview_is_of_the_result(tmp_path):
    full_jpeg(tmp_path / "a.jpg")
    fastllie.enhance_folder(tmp_path / "a.jpg", tmp_path / "b.jpg", lambda x: np.full_like(x, 200))
    with Image.open(tmp_path / "b.jpg") as image:
        assert np.abs(np.asarray(preview_of(image.info["exif"]), int) - 200).max() < 4
    got = fastllie.Enhancer(strength=0)(tmp_path / "a.jpg")
    assert np.asarray(preview_of(got.info["exif"])).std() > 10
    # the preview of a large one is larger than the one that was there, and stands behind all
    large = Image.fromarray(RANDOM.integers(0, 256, (300, 400, 3), dtype=np.uint8))
    large.save(tmp_path / "c.jpg", exif=exif_data())
    through(tmp_path / "c.jpg", tmp_path / "d.jpg")
    with Image.open(tmp_path / "d.jpg") as image:
        assert preview_of(image.info["exif"]).size == (160, 120)


GEO = [
    (33550, "d", 3, (0.5, 0.5, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 440720.0, 3751320.0, 0.0), True),
    (34735, "H", 4, (1, 1, 0, 0), True),
    (34737, "s", 0, "UTM Zone 11N|", True),
    (42113, "s", 0, "-9999", True),
    (65000, "I", 2, (7, 8), True),
    (700, "B", len(XMP), XMP, True),
    (33723, "B", len(IPTC), IPTC, True),
    (315, "s", 0, "An Artist", True),
]


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_keeps_its_tags(tmp_path, kind, big, order):
    tifffile = pytest.importorskip("tifffile")
    values = {"u1": PIXELS[..., :3], "u2": DEEP[..., :3], "f4": DEEP[..., :3].astype("f4") / 65535}[kind]
    settings = {"photometric": "rgb", "extratags": GEO, "bigtiff": big, "byteorder": order}
    tifffile.imwrite(tmp_path / "a.tif", values, resolution=(300, 200), iccprofile=PROFILE, **settings)
    assert through(tmp_path / "a.tif", tmp_path / "b.tif") == []
    with tifffile.TiffFile(tmp_path / "a.tif") as before, tifffile.TiffFile(tmp_path / "b.tif") as after:
        assert after.is_bigtiff == big
        assert after.byteorder == order
        own = {273, 278, 279}  # where the strips are
        first, second = (
            {tag.code: (tag.dtype, tag.value) for tag in file.pages[0].tags} for file in (before, after)
        )
        for code in set(first) - own:
            assert code in second, code
            assert second[code][1] == first[code][1], code
            assert code < 300 or second[code][0] == first[code][0], code


def test_animations_and_pages(tmp_path):
    frames = [
        Image.fromarray(np.ascontiguousarray(np.roll(SMOOTH[..., :3], 3 * place, axis=1)))
        for place in range(4)
    ]
    times = [40, 120, 250, 80]
    for suffix, settings in {
        "gif": {"duration": times, "loop": 3},
        "webp": {"duration": times, "loop": 3, "lossless": True},
        "png": {"duration": times, "loop": 3},
        "tif": {},
        "avif": {"duration": times, "quality": 95},
    }.items():
        if suffix == "avif" and not features.check("avif"):
            continue
        path = tmp_path / f"a.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **settings)
        assert through(path, tmp_path / f"b.{suffix}") == []
        with Image.open(path) as before, Image.open(tmp_path / f"b.{suffix}") as after:
            assert after.n_frames == before.n_frames == 4
            assert after.info.get("loop") == before.info.get("loop")
            for place in range(4):
                before.seek(place)
                after.seek(place)
                after.load()
                before.load()
                assert after.info.get("duration") == before.info.get("duration"), (suffix, place)
                off = np.abs(np.asarray(after.convert("RGB"), int) - np.asarray(before.convert("RGB"), int))
                assert off.max() == 0 or (suffix == "avif" and off.mean() < 4), (suffix, place)
        with pytest.warns(UserWarning, match="left out: the other 3 pictures"):
            fastllie.Enhancer(strength=0)(path)
        left_out = through(path, tmp_path / "one.jpg")
        assert "all pictures but the first of 4" in left_out


def test_frames_that_are_patches_and_clear(tmp_path):
    first = Image.new("RGBA", (40, 30), (200, 10, 10, 255))
    second = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    second.paste((10, 200, 10, 255), (5, 5, 15, 15))
    for suffix in ("gif", "webp", "png"):
        path = tmp_path / f"a.{suffix}"
        first.save(
            path, save_all=True, append_images=[second, first], duration=100, disposal=2, lossless=True
        )
        through(path, tmp_path / f"b.{suffix}")
        with Image.open(path) as before, Image.open(tmp_path / f"b.{suffix}") as after:
            assert after.n_frames == before.n_frames
            for place in range(before.n_frames):
                before.seek(place)
                after.seek(place)
                shown = [np.array(image.convert("RGBA")) for image in (before, after)]
                for values in shown:
                    values[values[..., 3] == 0] = 0
                assert np.array_equal(*shown), (suffix, place)


WRITERS = {"JPEG": full_jpeg, "PNG": full_png}


def held(path):
    photo = read(path)
    return writing._kinds_in(photo), photo


@pytest.mark.parametrize("kind", [name for name in FORMATS if FORMATS[name].written])
@pytest.mark.parametrize("source", ["a.jpg", "a.png"])
def test_the_table_is_true(tmp_path, source, kind):
    """What the table says that a format holds is there afterwards, and the rest is named."""
    if FORMATS[kind].extra:
        pytest.importorskip({"heif": "pillow_heif", "jxl": "pillow_jxl"}[FORMATS[kind].extra])
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    WRITERS["JPEG" if source == "a.jpg" else "PNG"](tmp_path / source)
    target = tmp_path / f"b{FORMATS[kind].suffixes[0]}"
    left_out = through(tmp_path / source, target)
    before, first = held(tmp_path / source)
    assert before >= {"EXIF", "XMP", "ICC profile"}
    after, second = held(target)
    own = {"text", "gamma", "private tags"}
    for name in before - own if kind != first.stored.format else before:
        assert (name in FORMATS[kind].holds) == (name in after or name == "resolution"), name
        assert (name in FORMATS[kind].holds) != (name in left_out), name
    for name in before & own if kind != first.stored.format else ():
        assert name in left_out
    for key in ("icc_profile", "xmp", "iptc"):
        if key in second.info:
            assert second.info[key] == first.info[key], key
    if "EXIF" in after:
        exif = Image.Exif()
        exif.load(second.info["exif"])
        assert exif[0x010F] == "Maker"


def test_the_page_is_the_table():
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert formats.table() in page
    assert set(KINDS) >= {kind for format in FORMATS.values() for kind in format.holds}


# --- what is left out is named


def test_what_lies_behind_a_jpeg_is_named(tmp_path):
    full_jpeg(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    told = XMP.replace(
        b' xmp:Rating="5"', b' xmp:Rating="5" GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="99"'
    )
    segment = lambda marker, part: struct.pack(">BBH", 0xFF, marker, len(part) + 2) + part  # noqa: E731
    parts = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + told) + segment(0xEB, b"JP\0\1jumb c2pa")
    body = content.replace(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP), b"")
    (tmp_path / "b.jpg").write_bytes(body[:2] + parts + body[2:] + b"\0\0\0\x18ftypmp42" + bytes(99))
    assert through(tmp_path / "b.jpg", tmp_path / "c.jpg") == ["C2PA", "the film behind the picture"]
    with Image.open(tmp_path / "c.jpg") as image:
        assert image.info["xmp"] == XMP
    with pytest.warns(UserWarning, match=r"b\.jpg': left out: C2PA, the film behind the picture"):
        fastllie.Enhancer(strength=0)(tmp_path / "b.jpg")


def test_a_png_with_credentials(tmp_path):
    full_png(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    chunk = b"caBX" + b"jumb"
    part = struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(content[:33] + part + content[33:])
    assert through(tmp_path / "a.png", tmp_path / "b.png") == ["C2PA"]
    assert b"caBX" not in (tmp_path / "b.png").read_bytes()


def test_what_a_format_cannot_hold_is_named(tmp_path):
    of_mode("RGBA", smooth=True).save(tmp_path / "a.png")
    assert through(tmp_path / "a.png", tmp_path / "b.jpg") == ["alpha"]
    of_mode("CMYK", smooth=True).save(tmp_path / "c.tif")
    assert through(tmp_path / "c.tif", tmp_path / "d.png") == ["CMYK, which becomes RGB"]
    Photograph(DEEP).save(tmp_path / "e.png")
    assert through(tmp_path / "e.png", tmp_path / "f.webp") == ["the lower 8 of 16 bits"]


# --- formats of extras


def test_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    full_jpeg(tmp_path / "a.jpg")
    assert through(tmp_path / "a.jpg", tmp_path / "a.heic", quality=100) == ["IPTC", "comment"]
    before, after = read(tmp_path / "a.jpg"), read(tmp_path / "a.heic")
    assert np.abs(before.values.astype(int) - after.values).max() <= 1
    deep = np.ascontiguousarray(DEEP[..., :3]) >> 6 << 6
    file = heif.from_bytes("RGB;16", (44, 31), deep.tobytes())
    file.save(tmp_path / "b.heic", quality=-1, chroma=444, matrix_coefficients=0)
    got = read(tmp_path / "b.heic")
    assert got.values.dtype == np.uint16
    assert np.abs(got.values.astype(int) - np.rint((deep >> 6) / 1023 * 65535)).max() <= 65
    through(tmp_path / "b.heic", tmp_path / "c.heic")
    assert read(tmp_path / "c.heic").values.dtype == np.uint16


def test_jpeg_xl(tmp_path):
    pytest.importorskip("pillow_jxl")
    full_png(tmp_path / "a.png")
    assert through(tmp_path / "a.png", tmp_path / "a.jxl", quality=100) == ["ICC profile", "text", "gamma"]
    before, after = read(tmp_path / "a.png"), read(tmp_path / "a.jxl")
    assert np.array_equal(before.values, after.values)
    assert after.info["xmp"] == XMP


def test_camera_raw(tmp_path):
    pytest.importorskip("rawpy")
    linear = np.full((64, 96), 1000, np.uint16)
    dng(tmp_path / "a.dng", linear, 4000)
    got = read(tmp_path / "a.dng")
    assert got.values.shape == (64, 96, 3)
    share = got.values[20:-20, 20:-20].mean(axis=(0, 1)) / 65535
    # a quarter of the camera's white in linear light
    assert share.mean() == pytest.approx(0.25 ** (1 / 2.4) * 1.055 - 0.055, abs=0.06)
    dng(tmp_path / "b.dng", linear, 2000)
    assert read(tmp_path / "b.dng").values.mean() > 1.3 * got.values.mean()
    result = fastllie.enhance_folder(tmp_path, tmp_path / "out", same)
    assert sorted(path.name for path in result.done) == ["a.tif", "b.tif"]
    assert read(tmp_path / "out" / "a.tif").values.dtype == np.uint16


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("a.heic", "pillow_heif", "heif"), ("a.jxl", "pillow_jxl", "jxl"), ("a.dng", "rawpy", "raw")],
)
def test_an_absent_extra_is_named(tmp_path, monkeypatch, name, module, extra):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    start = {"a.heic": b"\0\0\0\x18ftypheic", "a.jxl": b"\xff\x0a", "a.dng": b"II*\0"}[name]
    (tmp_path / name).write_bytes(start + bytes(100))
    with pytest.raises(ImportError, match=rf'{name}.* pip install "fastllie\[{extra}\]"'):
        read(tmp_path / name)
    of_mode("RGB", smooth=True).save(tmp_path / "a.png")
    if extra != "raw":
        with pytest.raises(ImportError, match=rf"fastllie\[{extra}\]"):
            fastllie.enhance_folder(
                tmp_path / "a.png",
                tmp_path / f"b{FORMATS[{'heif': 'HEIF', 'jxl': 'JXL'}[extra]].suffixes[0]}",
                same,
            )


# --- other sources


def test_bytes_and_open_files(tmp_path):
    full_png(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    enhancer = fastllie.Enhancer(strength=0)
    want = np.asarray(enhancer(tmp_path / "a.png"))
    for source in (content, bytearray(content), memoryview(content), io.BytesIO(content)):
        assert np.array_equal(np.asarray(enhancer(source)), want)
    with open(tmp_path / "a.png", "rb") as file:
        assert np.array_equal(np.asarray(enhancer(file)), want)
        assert not file.closed
    with pytest.raises(TypeError, match="wanted a file opened for bytes"):
        enhancer(io.StringIO("text"))


# --- more that is left out by name, or kept where it stands


def test_a_gain_map_stays_behind(tmp_path):
    full_jpeg(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    plain = b"http://ns.adobe.com/xap/1.0/\0" + XMP
    gain = b' hdrgm:Version="1.0" xmp:Rating="5"><Container:Directory><rdf:Seq/></Container:Directory>'
    gain += b"</rdf:Description>"
    told = plain.replace(b' xmp:Rating="5"/>', gain)
    assert told != plain
    parts = b""
    for part in (b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0", b"MPF\0MM\0*\0\0\0\x08\0\0\0\0\0\0"):
        parts += struct.pack(">BBH", 0xFF, 0xE2, len(part) + 2) + part
    old, new = (struct.pack(">BBH", 0xFF, 0xE1, len(part) + 2) + part for part in (plain, told))
    assert old in content
    content = content.replace(old, new)
    (tmp_path / "b.jpg").write_bytes(content[:2] + parts + content[2:] + content)
    assert through(tmp_path / "b.jpg", tmp_path / "c.jpg") == ["a gain map"]
    made = (tmp_path / "c.jpg").read_bytes()
    assert b"hdrgm" not in made
    assert b"Container:Directory" not in made
    assert b"MPF\0" not in made
    assert b'xmp:Rating="5"></rdf:Description>' in made


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_channels_beyond_alpha_are_named(tmp_path, kind):
    tifffile = pytest.importorskip("tifffile")
    values = RANDOM.integers(0, 255, (9, 11, 5)).astype(kind)
    settings = {"photometric": "rgb", "extrasamples": ["unassalpha", "unspecified"]}
    tifffile.imwrite(tmp_path / "a.tif", values, **settings)
    assert through(tmp_path / "a.tif", tmp_path / "b.tif") == ["a channel that is neither colour nor alpha"]
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), values[..., :4])


def test_every_page_keeps_its_own_tags_and_depth(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    pages = [PIXELS[..., :3], DEEP[..., 0], PIXELS[..., 0]]
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for place, page in enumerate(pages):
            compression = (None, "zlib", None)[place]
            writer.write(page, description=f"page {place}", metadata=None, compression=compression)
        # a smaller copy of a page is none
        writer.write(PIXELS[::2, ::2, :3], subfiletype=1, metadata=None)
    assert through(tmp_path / "a.tif", tmp_path / "b.tif") == ["smaller copies of the picture"]
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert len(file.pages) == 3
        for place, page in enumerate(file.pages):
            assert page.description == f"page {place}"
            assert page.compression == (8 if place == 1 else 1)
            assert np.array_equal(page.asarray(), pages[place])


def test_exif_that_is_too_large_for_a_jpeg(tmp_path):
    image = of_mode("RGB", smooth=True)
    image.save(tmp_path / "a.png", exif=exif_data() + bytes(70_000))
    assert through(tmp_path / "a.png", tmp_path / "b.png") == []
    left_out = through(tmp_path / "a.png", tmp_path / "b.jpg")
    assert len(left_out) == 1
    assert left_out[0].startswith("EXIF of 7")


def test_a_photograph_of_another_format_under_tiffs_roof(tmp_path):
    """What JPEG says goes into the tags of a TIFF, and back."""
    full_jpeg(tmp_path / "a.jpg")
    assert through(tmp_path / "a.jpg", tmp_path / "b.tif") == []
    assert through(tmp_path / "b.tif", tmp_path / "c.jpg") == []
    with Image.open(tmp_path / "c.jpg") as image:
        assert image.info["xmp"] == XMP
        assert image.info["dpi"] == (300, 200)
        assert image.info["comment"] == b"a note"
        assert image.info["icc_profile"] == PROFILE
        assert image.info["photoshop"] == {0x0404: IPTC}
        assert image.getexif()[0x010F] == "Maker"
        assert image.getexif().get_ifd(0x8769)[0x927C] == b"notes of the maker"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("place", [44, 56])
def test_exif_of_which_a_part_is_lost(tmp_path, order, place):
    """Directories that point to nowhere: what is before them stays."""
    data = bytearray(exif_data(order=order))
    where = 6 + {44: 8 + 2 + 36, 56: 8 + 2 + 24 + 8}[place]
    data[where : where + 4] = b"\x7f\xff\xff\xf0"
    of_mode("RGB", smooth=True).save(tmp_path / "a.png", exif=bytes(data))
    assert through(tmp_path / "a.png", tmp_path / "b.png") == []
    with Image.open(tmp_path / "b.png") as image:
        assert image.getexif()[0x010F] == "Maker"
