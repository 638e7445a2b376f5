"""Colours of 16 bits a channel: every bit of them is read, enhanced and written."""

import struct
import zlib

import numpy as np
import PIL
import pytest
from helpers import refused
from PIL import Image

import fastllie
from fastllie import cli
from fastllie.images.photograph import Photograph
from fastllie.images.reading import read

pytestmark = pytest.mark.usefixtures("random_weights")

TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def noise(channels, size=(11, 14)):
    return np.random.default_rng(channels).integers(0, 30000, (*size, channels), dtype=np.uint16)


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def paeth(left, up, corner):
    guess = left + up - corner
    by = [(abs(guess - value), place) for place, value in enumerate((left, up, corner))]
    return (left, up, corner)[min(by)[1]]


def write_png(path, values, *chunks):
    """By the words of the standard: the rows take its five filters in turn."""
    height, width, channels = values.shape
    pixel = 2 * channels
    above = [0] * (pixel * width)
    lines = b""
    for y, row in enumerate(values.astype(">u2")):
        here = list(row.tobytes())
        line = []
        for x, byte in enumerate(here):
            left, corner = (here[x - pixel], above[x - pixel]) if x >= pixel else (0, 0)
            guess = (0, left, above[x], (left + above[x]) // 2, paeth(left, above[x], corner))[y % 5]
            line.append((byte - guess) % 256)
        lines += bytes([y % 5, *line])
        above = here
    header = struct.pack(">IIBBBBB", width, height, 16, TYPES[channels], 0, 0, 0)
    body = b"".join(chunks) + chunk(b"IDAT", zlib.compress(lines))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b""))
    return path


def write_tiff(path, values, order="<", *, tags=()):
    """One strip, not compressed; `tags` are (tag, type, count, value), beside the plain ones or instead."""
    height, width, channels = values.shape
    pixels = values.astype(order + "u2").tobytes()
    depths = 8
    plain = {256: (4, 1, width), 257: (4, 1, height), 258: (3, channels, depths), 259: (3, 1, 1)}
    plain |= {262: (3, 1, 2), 273: (4, 1, depths + 8), 277: (3, 1, channels), 278: (4, 1, height)}
    plain |= {279: (4, 1, len(pixels)), **{tag: rest for tag, *rest in tags}}
    directory = struct.pack(order + "H", len(plain))
    for tag, (kind, count, value) in sorted(plain.items()):
        short = kind == 3 and count == 1
        packed = struct.pack(order + "HH", value, 0) if short else struct.pack(order + "I", value)
        directory += struct.pack(order + "HHI", tag, kind, count) + packed
    first = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", depths + 8 + len(pixels))
    content = first + struct.pack(order + "4H", 16, 16, 16, 16) + pixels + directory + bytes(4)
    path.write_bytes(content)
    return path


def unfiltered(path):
    """The values of a PNG of 16 bits as we write it, and its chunks."""
    content, chunks = path.read_bytes()[8:], {}
    while content:
        length, name = struct.unpack(">I", content[:4])[0], content[4:8]
        assert struct.unpack(">I", content[8 + length : 12 + length])[0] == zlib.crc32(
            content[4 : 8 + length]
        )
        chunks[name] = content[8 : 8 + length]
        content = content[12 + length :]
    width, height, depth, kind, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, rest) == (16, [0, 0, 0])
    channels = {kind: channels for channels, kind in TYPES.items()}[kind]
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    pixel = 2 * channels
    held = np.zeros((height + 1, pixel + lines.shape[1] - 1), int)
    for row, (kind, *steps) in enumerate(lines.tolist(), 1):
        for place, step in enumerate(steps, pixel):
            left, above = held[row, place - pixel], held[row - 1, place]
            held[row, place] = (step + {1: left, 2: above, 3: (left + above) // 2}[kind]) % 256
    whole = held[1:, pixel:].astype(np.uint8).reshape(height, width, pixel)
    return whole.view(">u2").astype(np.uint16), chunks


# --- the type


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I", "I;16", "I;16B", "F"]
)
def test_every_mode_goes_through(mode):
    """What is not changed comes back as it was; colours of its own kind are made anew for other ones."""
    values = noise(3)
    if mode[0] in "IF":
        grey = values[..., 0].astype({"I": np.int32, "F": np.float32, "I;16B": ">u2"}.get(mode, np.uint16))
        image = Image.frombytes(mode, (14, 11), (grey / 65535 if mode == "F" else grey).tobytes())
    else:
        image = (
            Image.fromarray((values // 256).astype(np.uint8))
            .convert(mode.replace("RGBX", "RGB"))
            .convert(mode)
        )
    image.info["comment"] = b"a note"
    photo = Photograph.of(image)
    assert photo.values.shape[:2] == (11, 14)
    assert photo.size == (14, 11)
    assert photo.grey == (mode in ("1", "L", "LA", "I", "I;16", "I;16B", "F"))
    back = photo.as_pil()
    assert (back.mode, back.tobytes(), back.info) == (mode, image.tobytes(), image.info)
    same = photo.with_colours(photo.values[..., : 1 if photo.grey else 3])
    assert np.array_equal(same.values, photo.values)
    assert same.as_pil().mode == mode
    both = photo.beside(same).as_pil()
    assert (both.mode, both.size) == (mode, (28, 11))
    assert both.crop((0, 0, 14, 11)).tobytes() == image.tobytes()


def test_grey_takes_the_luma_of_three_channels():
    colours = noise(3)
    got = Photograph(noise(1)).with_colours(colours)
    assert np.array_equal(got.values[..., 0], np.floor(colours @ (0.299, 0.587, 0.114) + 0.5))
    floats = Photograph(noise(1).astype(np.float32) / 65535)
    assert np.allclose(floats.with_colours(floats.colours).values, floats.values, atol=1e-7)


# --- reading


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_is_read_whole(tmp_path, channels):
    values = noise(channels)
    image = read(write_png(tmp_path / "a.png", values))
    assert isinstance(image, Photograph)
    assert np.array_equal(image.values, values)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_is_read_whole(tmp_path, channels, order):
    values = noise(channels)
    tags = [(338, 3, 1, 2)] if channels == 4 else []
    assert np.array_equal(read(write_tiff(tmp_path / "a.tif", values, order, tags=tags)).values, values)


@pytest.mark.parametrize("compression", ["zlib", "lzw"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_compressed_and_tiled_tiffs(tmp_path, compression, tile):
    tifffile = pytest.importorskip("tifffile")
    if compression == "lzw":
        pytest.importorskip("imagecodecs")
    if compression == "zstd" and int(PIL.__version__.split(".")[0]) < 12:
        pytest.skip("this Pillow's libtiff does not know Zstandard")
    values = noise(3, (37, 21))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb", compression=compression, tile=tile)
    assert np.array_equal(read(path).values, values)


def test_alpha_that_was_multiplied_in(tmp_path):
    values = noise(4)
    values[0, 0] = (100, 200, 300, 0)
    values[0, 1] = (100, 200, 300, 300)
    values[..., 3] = np.maximum(values[..., 3], values[..., :3].max(-1))
    values[0, 0, 3] = 0
    got = read(write_tiff(tmp_path / "a.tif", values, tags=[(338, 3, 1, 1)])).values
    assert np.array_equal(got[..., 3], values[..., 3])
    assert got[0, 1].tolist() == [21845, 43690, 65535, 300]
    back = got[..., :3].astype(float) * got[..., 3:] / 65535
    assert np.abs(back - values[..., :3])[1:].max() <= 0.5


def test_a_transparent_colour_becomes_alpha(tmp_path):
    values = noise(3)
    clear = chunk(b"tRNS", values[2, 3].astype(">u2").tobytes())
    got = read(write_png(tmp_path / "a.png", values, clear)).values
    assert np.array_equal(got[..., :3], values)
    assert np.argwhere(got[..., 3] == 0).tolist() == [[2, 3]]
    assert got[0, 0, 3] == 65535
    grey = noise(1)
    clear = chunk(b"tRNS", grey[2, 3].astype(">u2").tobytes())
    got = read(write_png(tmp_path / "grey.png", grey, clear)).values
    assert np.array_equal(got[..., :1], grey)
    assert np.array_equal(got[..., 1:] == 0, grey == grey[2, 3])


@pytest.mark.parametrize("channels", [2, 3])
def test_orientation_is_applied(tmp_path, channels):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker"
    values = noise(channels)
    path = write_png(tmp_path / "a.png", values, chunk(b"eXIf", exif.tobytes()[6:]))
    got = read(path)
    assert np.array_equal(got.values, np.rot90(values, -1))
    got.save(tmp_path / "out.png")
    assert np.array_equal(read(tmp_path / "out.png").values, got.values)
    with Image.open(tmp_path / "out.png") as image:
        assert image.getexif()[0x010F] == "Maker"
        assert image.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd"])
@pytest.mark.parametrize("layout", ["together", "planes", "tiles"])
def test_every_layout_of_a_tiff(tmp_path, compression, layout):
    tifffile = pytest.importorskip("tifffile")
    if compression in ("lzw", "packbits", "zstd"):
        pytest.importorskip("imagecodecs")
    if compression == "zstd" and int(PIL.__version__.split(".")[0]) < 12:
        pytest.skip("this Pillow's libtiff does not know Zstandard")
    values = noise(3, (37, 21))
    how = {"planes": {"planarconfig": "separate"}, "tiles": {"tile": (16, 16)}}.get(layout, {})
    stored = values.transpose(2, 0, 1) if layout == "planes" else values
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", compression=compression, **how)
    assert np.array_equal(read(tmp_path / "a.tif").values, values)


def test_eight_bits_stay_eight_bits(tmp_path):
    for mode, channels in {"RGB": 3, "RGBA": 4, "L": 1, "LA": 2, "P": 3}.items():
        Image.new(mode, (4, 5)).save(tmp_path / "a.png")
        got = read(tmp_path / "a.png")
        assert (got.values.dtype, got.values.shape) == (np.uint8, (5, 4, channels))
        assert got.as_pil().mode == {"P": "RGB"}.get(mode, mode)
    Image.new("I;16", (4, 5)).save(tmp_path / "a.tif")
    got = read(tmp_path / "a.tif")
    assert (got.values.dtype, got.values.shape, got.mode) == (np.uint16, (5, 4, 1), "I;16")


# --- writing


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_is_written_whole(tmp_path, channels):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    values = noise(channels)
    Photograph(values, {"exif": exif.tobytes(), "icc_profile": b"profile"}).save(tmp_path / "a.png")
    got, chunks = unfiltered(tmp_path / "a.png")
    assert np.array_equal(got, values)
    assert list(chunks) == [b"IHDR", b"iCCP", b"eXIf", b"IDAT", b"IEND"]
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.size == (14, 11)
        assert image.info["icc_profile"] == b"profile"
        assert image.getexif()[0x010F] == "Maker"


@pytest.mark.parametrize("endian", [b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_tiff_is_written_whole(tmp_path, channels, endian):
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + endian + bytes(6))
    exif[0x010F] = "Maker"
    exif[0x0100] = 7
    exif.get_ifd(0x8769)[0x9286] = "a comment"
    values = noise(channels)
    Photograph(values, {"exif": exif.tobytes(), "icc_profile": b"profile"}).save(tmp_path / "a.tif")
    got = read(tmp_path / "a.tif")
    assert np.array_equal(got.values, values)
    assert got.info["icc_profile"] == b"profile"
    tags = Image.Exif()
    tags.load(got.info["exif"])
    assert tags[0x010F] == "Maker"
    assert tags.get_ifd(0x8769)[0x9286] == "a comment"
    assert 0x0100 not in tags
    tifffile = pytest.importorskip("tifffile")
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), values)


def test_other_formats_get_eight_bits_rounded(tmp_path):
    values = np.array([[[0, 128, 129], [257, 385, 386], [65535, 65406, 65407]]], np.uint16)
    Photograph(values).save(tmp_path / "a.bmp")
    with Image.open(tmp_path / "a.bmp") as image:
        assert np.array(image).tolist() == [[[0, 0, 1], [1, 1, 2], [255, 254, 255]]]
    with refused(ValueError, "cannot write", "wanted a suffix of"):
        Photograph(values).save(tmp_path / "a.gift")


# --- the way through


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_in_sixteen_out(tmp_path, suffix, channels):
    values = noise(channels)
    path = write_png(tmp_path / "a.png", values)
    out = tmp_path / f"out.{suffix}"
    assert cli.main(["enhance", str(path), "-o", str(out)]) == 0
    got = read(out).values
    assert np.array_equal(got[..., :3], fastllie.enhance(np.ascontiguousarray(values[..., :3])))
    assert np.array_equal(got[..., 3:], values[..., 3:])
    assert len(np.unique(got[..., :3] % 256)) > 100, "the lower bits are empty"


def test_grey_with_alpha_stays_grey(tmp_path):
    values = noise(2)
    path = write_png(tmp_path / "a.png", values)
    assert cli.main(["enhance", str(path), "-o", str(tmp_path / "out.png")]) == 0
    got = read(tmp_path / "out.png").values
    assert np.array_equal(got[..., 1], values[..., 1])
    want = np.asarray(fastllie.enhance(Image.fromarray(values[..., 0])))
    assert np.array_equal(got[..., 0], want)


def test_before_and_after(tmp_path):
    values = noise(3)
    path = write_png(tmp_path / "a.png", values)
    assert cli.main(["enhance", str(path), "-o", str(tmp_path / "out.png"), "--compare"]) == 0
    got = read(tmp_path / "out.png").values
    assert np.array_equal(got[:, :14], values)
    assert np.array_equal(got[:, 14:], fastllie.enhance(values))


@pytest.mark.parametrize(("channels", "mode"), [(2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_a_path_gives_a_pil_image_and_says_what_is_lost(tmp_path, channels, mode):
    path = write_png(tmp_path / "a.png", noise(channels))
    with pytest.warns(
        UserWarning, match=r"a\.png' has 16 bits a channel; the PIL image that comes back has 8"
    ):
        got = fastllie.enhance(path)
    assert got.mode == mode
    # from all 16 bits, not from the upper 8
    values = Photograph(noise(channels))
    want = fastllie.enhance(values).as_pil()
    assert np.array_equal(np.asarray(got), np.asarray(want))
    with pytest.warns(UserWarning, match="16 bits"):
        unchanged = fastllie.enhance(path, strength=0)
    assert np.array_equal(np.asarray(unchanged), np.asarray(values.as_pil()))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_sixteen_bits(tmp_path, suffix):
    """Pillow's own way."""
    values = noise(1)[..., 0]
    Image.fromarray(values).save(tmp_path / f"a.{suffix}", icc_profile=b"profile")
    assert cli.main(["enhance", str(tmp_path / f"a.{suffix}"), "-o", str(tmp_path / f"out.{suffix}")]) == 0
    with Image.open(tmp_path / f"out.{suffix}") as image:
        assert image.info["icc_profile"] == b"profile"
        assert np.array_equal(np.array(image), np.asarray(fastllie.enhance(Image.fromarray(values))))
