"""Files that are damaged, cut, mislabelled or made to do harm: a named error or an image, nothing else."""

import gzip
import importlib.util
import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
from helpers import dng, write_weights
from PIL import Image, features
from serving import HOME

from fastllie.images import tiffs
from fastllie.images.files import is_complete
from fastllie.images.formats import READ
from fastllie.images.photograph import Photograph, Stored

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and links are POSIX's")

SECONDS = 10.0  # for one file; what is damaged takes milliseconds, on a machine that does nothing else
PEAK = 1 << 30  # bytes beyond those of the process before its first file
TOLD = 10  # warnings for one file
WORDS = 40_000  # bytes on stderr for all of them, where the libraries below Pillow write their own
# damaged copies of each sound file; FASTLLIE_HOSTILE=400 is `make hostile`, more than 10,000 files
COPIES = int(os.environ.get("FASTLLIE_HOSTILE", "28"))
MORE = max(1, COPIES / 28)

# a process of its own: a crash is seen, the memory is its own
CHILD = """
import json, os, resource, sys, time, warnings
import fastllie
folder, weights, out = sys.argv[1:]
enhancer = fastllie.Enhancer("zerodce", weights=weights)
enhancer(__import__("numpy").zeros((40, 52, 3), "uint8"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sorted(os.listdir(folder)):
    begin = time.monotonic()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        try:
            size = enhancer(os.path.join(folder, name)).size
            said = ("image", *size)
        except Exception as error:
            said = (type(error).__name__, isinstance(error, (ValueError, OSError)), str(error))
    print(json.dumps([name, time.monotonic() - begin, len(told), said]), flush=True)
begin = time.monotonic()
result = fastllie.enhance_folder(folder, out, enhancer)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
done, failed = map(str, result.done), [str(failure.source) for failure in result.failed]
print(json.dumps([time.monotonic() - begin, before, peak, list(done), failed]))
"""


def photograph(mode="RGB"):
    noise = np.random.default_rng(0).integers(0, 200, (5, 6, 4), dtype=np.uint8)
    image = Image.fromarray(noise).resize((52, 40), Image.Resampling.BICUBIC)
    return image.quantize(16) if mode == "P" else image.convert(mode)


def saved(image, format, **settings):
    buffer = io.BytesIO()
    image.save(buffer, format, **settings)
    return buffer.getvalue()


def headers(folder):
    """Sound files of every format, to be damaged: name -> content."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    extras = {"exif": exif.tobytes(), "icc_profile": bytes(range(200))}
    rgb = photograph()
    deep = Photograph(np.asarray(rgb).astype(np.uint16) * 257, extras)
    for suffix in ("png", "tif"):
        deep.save(folder / f"deep.{suffix}")
    grey = Image.fromarray(np.asarray(rgb)[..., 0].astype(np.uint16) * 257)
    files = {f"deep.{suffix}": (folder / f"deep.{suffix}").read_bytes() for suffix in ("png", "tif")}
    for name in files:
        (folder / name).unlink()
    animation = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)], "duration": 50}
    for suffix, needs in (("heic", "pillow_heif"), ("jxl", "pillow_jxl"), ("avif", ""), ("jp2", "")):
        if needs and importlib.util.find_spec(needs) is None:
            continue
        if suffix == "avif" and not features.check("avif"):
            continue
        Photograph(np.asarray(rgb), extras).save(folder / f"rgb.{suffix}")
        files[f"rgb.{suffix}"] = (folder / f"rgb.{suffix}").read_bytes()
        (folder / f"rgb.{suffix}").unlink()
    for name, stored in {"deflate": 8, "lzw16": 5, "packbits16": 32773}.items():
        coding = {"order": ">", "big": name == "deflate", "compression": stored, "predictor": 2}
        parts = tiffs.tags_for(extras, ">")
        Photograph(deep.values, extras, stored=Stored("TIFF", coding, parts)).save(folder / "deep.tif")
        files[f"{name}.tif"] = (folder / "deep.tif").read_bytes()
    (folder / "deep.tif").unlink()
    if importlib.util.find_spec("rawpy") is not None:
        dng(folder / "a.dng", np.asarray(grey), 4000)
        files["camera.dng"] = (folder / "a.dng").read_bytes()
        (folder / "a.dng").unlink()
    return files | {
        "animation.png": saved(rgb, "PNG", **animation),
        "animation.webp": saved(rgb, "WEBP", **animation),
        "pages.tif": saved(rgb, "TIFF", **animation),
        "deep.ppm": b"P6 52 40 4095\n" + (deep.values >> 4).astype(">u2").tobytes(),
        "plain.pgm": b"P2 52 40 1023\n" + " ".join(map(str, np.asarray(grey).ravel() >> 6)).encode(),
        "plain.tga": saved(rgb, "TGA", compression="tga_rle"),
        "segments.jpg": segments(saved(rgb, "JPEG", **extras)),
        "rgb.png": saved(rgb, "PNG", **extras),
        "palette.png": saved(photograph("P"), "PNG", transparency=3),
        "alpha.png": saved(photograph("LA"), "PNG"),
        "grey16.png": saved(grey, "PNG"),
        "plain.jpg": saved(rgb, "JPEG", **extras),
        "progressive.jpg": saved(rgb, "JPEG", progressive=True),
        "cmyk.jpg": saved(photograph("CMYK"), "JPEG"),
        "plain.tif": saved(rgb, "TIFF", **extras),
        "lzw.tif": saved(photograph("RGBA"), "TIFF", compression="tiff_lzw"),
        "jpeg.tif": saved(rgb, "TIFF", compression="jpeg"),
        "bilevel.tif": saved(photograph("1"), "TIFF", compression="group4"),
        "lossy.webp": saved(rgb, "WEBP", **extras),
        "lossless.webp": saved(photograph("RGBA"), "WEBP", lossless=True),
        "plain.bmp": saved(rgb, "BMP"),
        "palette.bmp": saved(photograph("P"), "BMP"),
        "plain.ppm": saved(rgb, "PPM"),
        "palette.gif": saved(
            photograph("P"), "GIF", save_all=True, append_images=[photograph("P").rotate(90)]
        ),
    }


def segments(content):
    """A JPEG with all that our parsers look at."""
    resources = (
        b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x04\x1c\x02P\0" + b"8BIM\x04\x0c\0\0\0\0\0\x02ab"
    )
    parts = b""
    for marker, part in ((0xED, resources), (0xEB, b"JP\0\1c2pa"), (0xE2, b"MPF\0II*\0"), (0xFE, b"words")):
        parts += struct.pack(">BBH", 0xFF, marker, len(part) + 2) + part
    return content[:2] + parts + content[2:] + b"\0\0\0\x18ftypmp42" + bytes(50)


def damaged(content, random):
    """One of the ways in which files break."""
    content = bytearray(content)
    length = len(content)
    way = random.integers(7)
    place = int(random.integers(length))
    if way == 0:
        return content[:place]
    if way in (1, 2):
        # in the header twice as often as anywhere
        for _ in range(random.integers(1, 6)):
            content[random.integers(min(length, 120) if way == 1 else length)] = random.integers(256)
        return content
    run = int(random.integers(1, 64))
    if way == 3:
        return content[:place] + content[place : place + run] * int(random.integers(2, 9)) + content[place:]
    if way == 4:
        return content[:place] + content[place + run :]
    if way == 5:
        content[place : place + run] = bytes([random.choice([0, 255])]) * run
        return content
    # a number of the header becomes enormous
    place = int(random.integers(max(1, min(length, 120) - 4)))
    content[place : place + 4] = (
        random.choice([2**31, 2**31 - 1, 2**32 - 1, 0, 65535]).astype("<u4").tobytes()
    )
    return content


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, *chunks, depth=8, kind=2):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def idat(length):
    return chunk(b"IDAT", zlib.compress(bytes(length), 9))


def tiff(**tags):
    """A TIFF of one directory, followed by itself, with these tags: `t256=(type, count, value)`."""
    rows = b"".join(struct.pack("<HHII", int(tag[1:]), *tags[tag]) for tag in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + rows + struct.pack("<I", 8) + bytes(64)


def scans(times):
    """A progressive JPEG of 2000x2000 pixels whose last scan is repeated."""
    content = saved(Image.new("RGB", (2000, 2000), (9, 8, 7)), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * times + content[-2:]


def made(sound):
    """Files with an intent, or none at all: name -> content."""
    grey = {"t256": (3, 1, 52), "t257": (3, 1, 40), "t262": (3, 1, 1), "t273": (4, 1, 8), "t258": (3, 1, 8)}
    jpeg, bmp, gif = (bytearray(sound[name]) for name in ("plain.jpg", "plain.bmp", "palette.gif"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("photo.png", sound["rgb.png"])
    files = {
        "huge.jpg": bytes(jpeg),
        "huge.bmp": bytes(bmp[:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + bmp[26:]),
        "upside-down.bmp": bytes(bmp[:18] + struct.pack("<ii", 52, -(2**31)) + bmp[26:]),
        "left.bmp": bytes(bmp[:18] + struct.pack("<ii", -52, 40) + bmp[26:]),
        "huge.gif.png": bytes(gif[:6] + b"\xff\xff\xff\xff" + gif[10:]),
        "scans.jpg": scans(1500),
        "none.png": png(0, 0, idat(0)),
        "narrow.png": png(0, 40, idat(40)),
        "negative.png": png(2**32 - 1, 2**31, idat(99)),
        "bomb.png": png(2**31 - 1, 2**31 - 1, idat(99)),
        "bomb16.png": png(60000, 60000, idat(99), depth=16),
        "bomb-grey.png": png(16000, 16000, idat(16001 * 16000), kind=0),
        "large-but-empty.png": png(13000, 13000, idat(13000)),
        "large-but-empty16.png": png(13000, 13000, idat(13000), depth=16),
        "no-pixels.png": png(52, 40),
        "strange-depth.png": png(52, 40, idat(9000), depth=7),
        "text.png": png(9, 9, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2 << 26), 9)), idat(9 * 28)),
        "texts.png": png(9, 9, *[chunk(b"tEXt", b"key\0" + bytes(99))] * 2000, idat(9 * 28)),
        "profile.png": png(9, 9, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2 << 26), 9)), idat(9 * 28)),
        "no-palette.png": png(9, 9, idat(90), kind=3),
        "clear.png": png(9, 9, chunk(b"tRNS", b"\1"), idat(9 * 28)),
        "broken-exif.png": png(9, 9, chunk(b"eXIf", b"II*\0" + bytes(3)), idat(9 * 28)),
        "wild-exif.png": png(9, 9, chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + bytes(40)), idat(9 * 28)),
        "huge.tif": tiff(**grey | {"t256": (4, 1, 2**32 - 1), "t257": (4, 1, 2**31)}),
        "counts.tif": tiff(**grey | {"t273": (4, 2**31 - 1, 8), "t279": (4, 2**31 - 1, 8)}),
        "strings.tif": tiff(**grey | {"t270": (2, 2**32 - 1, 8)}),
        "strip.tif": tiff(**grey | {"t273": (4, 1, 2**32 - 1)}),
        "depth.tif": tiff(**grey | {"t258": (3, 1, 65535)}),
        "samples.tif": tiff(**grey | {"t277": (3, 1, 65535)}),
        "itself.tif": tiff(**grey | {"t34665": (4, 1, 8), "t34853": (4, 1, 8)}),
        "no-tags.tif": tiff(),
        "compression.tif": tiff(**grey | {"t259": (3, 1, 34925)}),
        "big.tif": b"II+\0\x08\0\0\0" + b"\xff" * 40,
        "digits.ppm": b"P6 " + b"9" * 5000 + b" 4 255\n" + bytes(99),
        "comment.ppm": b"P6 #" + b"a" * 500_000,
        "huge.ppm": b"P6 2147483647 2147483647 255\n" + bytes(99),
        "negative.ppm": b"P6 -5 5 255\n" + bytes(99),
        "white.ppm": b"P5 5 5 0\n" + bytes(99),
        "plain.ppm": b"P3 4 4 255\n" + b"1 " * 30,
        "deep.ppm": b"P6 4 4 65535\n" + bytes(range(96)),
        "float.ppm": b"PF 4 4 -1.0\n" + b"\xff" * 192,
        "canvas.webp": b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + b"\xff" * 6 + bytes(8),
        "length.webp": sound["lossy.webp"][:4] + b"\xff" * 4 + sound["lossy.webp"][8:],
        "pages.gif": bytes(gif[:6] + b"\xff\x3f\xff\x3f" + gif[10:]),
        "strips.tif": tiff(
            **grey | {"t258": (3, 1, 16), "t278": (4, 1, 0), "t273": (4, 2**20, 8), "t279": (4, 2**20, 8)}
        ),
        "tiles16.tif": tiff(
            **grey | {"t258": (3, 1, 16), "t322": (4, 1, 2**31), "t323": (4, 1, 1)},
            t324=(4, 1, 8),
            t325=(4, 1, 8),
        ),
        "wide16.tif": tiff(**grey | {"t258": (3, 1, 16), "t256": (4, 1, 2**31), "t279": (4, 1, 99)}),
        "hollow16.tif": tiff(**grey | {"t258": (3, 1, 16), "t256": (4, 1, 14000), "t257": (4, 1, 14000)}),
        "heads.heic": b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + b"\xff" * 300,
        "huge.jxl": b"\xff\x0a" + b"\xfe" * 40,
        "boxes.jxl": b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\0jxlc" * 9,
        "words.dng": b"these are no words of a camera",
        "archive.png": archive.getvalue(),
        "archive-inside.png": sound["rgb.png"] + archive.getvalue(),
        "photo.png.gz.png": gzip.compress(sound["rgb.png"]),
        "empty.png": b"",
        "one.png": b"\x89",
        "nothing.tif": bytes(5000),
        "words.jpg": b"these are not the bytes you are looking for\n" * 50,
        "page.png": b"<!doctype html><img src=photo.png>",
        "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n%%EOF\n",
        "paper.png": b"%PDF-1.7\n1 0 obj <<>> endobj\ntrailer <<>>\n%%EOF",
        "machine.png": b"\x7fELF" + bytes(range(256)),
        "film.jpg": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(400),
        "line\nbreak.png": b"no image",
        "\udcff\udcfe.png": b"no image",
        "x" * 240 + ".png": b"no image",
        "--overwrite.png": b"no image",
        "[glob]*.png": b"no image",
    }
    # sound files under names of other formats
    for place, name in enumerate(sound):
        files[f"as-{place}{('.png', '.jpg', '.tif', '.bmp')[place % 4]}"] = sound[name]
    return files


def special(folder):
    """Put there what is no file, or none that can be read."""
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "nowhere.png").symlink_to("gone.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "null.png").symlink_to("/dev/null")
    (folder / "round").symlink_to(".")
    (folder / "locked.png").write_bytes(b"no image")
    (folder / "locked.png").chmod(0)


def test_hostile_files(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    sound = headers(tmp_path)
    random = np.random.default_rng(5)
    count = 0
    for name, content in made(sound).items():
        (folder / name).write_bytes(content)
        count += 1
    for name, content in sound.items():
        (folder / f"sound-{name}").write_bytes(content)
        for place in range(COPIES):
            (folder / f"{place}-{name}").write_bytes(damaged(content, random))
            count += 1
    special(folder)
    assert count >= 500
    weights = write_weights(tmp_path / "w.safetensors", "zerodce")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(weights), str(out)],
        capture_output=True,
        env=environment,
        timeout=300 * MORE,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    *rows, last = map(json.loads, done.stdout.splitlines())
    outcomes = {name: said for name, _, _, said in rows}
    assert len(outcomes) == len(os.listdir(folder))
    for name, seconds, warned, said in rows:
        assert seconds < SECONDS, name
        assert warned <= TOLD, name
        if said[0] != "image":
            _, ours, message = said
            assert ours, (name, said)
            assert repr(str(folder / name))[1:-1] in message, (name, message)
            assert len(message) < 1000, name
    assert all(outcomes[f"sound-{name}"][0] == "image" for name in sound)
    kinds = [said[0] for said in outcomes.values()]
    assert kinds.count("image") > 50, "next to nothing was read"
    assert len(kinds) - kinds.count("image") > 200, "next to nothing was damaged"
    for name in (
        "bomb.png",
        "bomb16.png",
        "bomb-grey.png",
        "huge.jpg",
        "scans.jpg",
        "pipe.png",
        "zero.png",
        "program.png",
    ):
        assert outcomes[name][0] != "image", name
    assert "is no regular file" in outcomes["pipe.png"][2]
    assert "is PostScript" in outcomes["program.png"][2]
    assert " scans of 2000x2000 pixels" in outcomes["scans.jpg"][2]

    # the folder at once: the same files come out, all of them whole, and nothing else
    seconds, before, peak, written, failed = last
    read = {name for name, said in outcomes.items() if said[0] == "image"}
    candidates = {
        name for name in outcomes if os.path.splitext(name)[1] in READ and (folder / name).is_file()
    }
    # what cameras write becomes a TIFF
    developed = {os.path.splitext(name)[0] + ".tif": name for name in candidates if name.endswith(".dng")}
    done_of = {developed.get(os.path.basename(path), os.path.basename(path)) for path in written}
    assert done_of | {os.path.basename(path) for path in failed} == candidates
    assert done_of <= read
    assert sorted(os.listdir(out)) == sorted(os.path.basename(path) for path in written)
    assert all(is_complete(path) for path in written)
    assert seconds < 60 * MORE
    assert (peak - before) * (1 if sys.platform == "darwin" else 1024) < PEAK
    assert len(done.stderr) < WORDS * MORE, done.stderr.decode(errors="replace")[:2000]
