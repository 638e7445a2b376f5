"""The 16 bits of PNG and PPM, of which Pillow keeps 8 in colours.

It holds 16 bits in grey images only. But it can decode the upper byte of every channel and, told the other
byte order, the lower one: two decodings give all 16 bits without another library.
"""

import io
from typing import Any

import numpy as np
from PIL import Image

from fastllie.images import png
from fastllie.images.files import Source, opening, whole
from fastllie.images.photograph import TOP, Photograph, Stored, upright


def deep_png(file: Any, source: Source, raw: str, max_pixels: int | None, name: str) -> Photograph:
    clear = file.info.get("transparency")
    if raw == "LA;16B":
        with Image.open(io.BytesIO(png.disguised(whole(file.fp)))) as hidden:
            hidden.load()
            image = upright(hidden, own=True, name=name)
        return Photograph(np.asarray(image).view(">u2").astype(np.uint16), image.info)
    if raw == "I;16B":
        file.load()
        image = upright(file, own=True, name=name)
        values, mode = np.asarray(image).astype(np.uint16)[..., None], "I;16" if clear is None else ""
    else:
        image = _decoded(file, raw, name)
        with opening(source, max_pixels, name) as other:
            low = _decoded(other, raw.replace(";16B", ";16L"), name)
        values, mode = (np.asarray(image).astype(np.uint16) << 8) | np.asarray(low), ""
    info = {key: value for key, value in image.info.items() if key != "transparency"}
    if clear is not None:
        # one colour is transparent: alpha says so
        alpha = np.where((values == np.asarray(clear)).all(2, keepdims=True), 0, TOP).astype(np.uint16)
        values = np.concatenate((values, alpha), axis=2)
    return Photograph(values, info, mode)


def _decoded(file: Any, raw: str, name: str) -> Image.Image:
    tiles = []
    for tile in file.tile:
        stored = raw if isinstance(tile[3], str) else (raw, *tile[3][1:])
        # a plain tuple in older versions of Pillow
        tiles.append(tile._replace(args=stored) if hasattr(tile, "_replace") else (*tile[:3], stored))
    file.tile = tiles
    file.info.pop("transparency", None)
    file.load()
    return upright(file, own=True, name=name)


def is_deep_ppm(file: Any) -> bool:
    tile = file.tile[0]
    return file.mode in ("I", "RGB") and tile[0] in ("ppm", "ppm_plain") and tile[3][1] > 255


def deep_ppm(file: Any) -> Photograph:
    """Of any white above 255; white becomes 65535, and the file's own stays with the coding."""
    decoder, _, offset, (_, white) = file.tile[0][:4]
    width, height = file.size
    channels = 3 if file.mode == "RGB" else 1
    file.fp.seek(offset)
    content = file.fp.read()
    count = width * height * channels
    if decoder == "ppm":
        values = np.frombuffer(content, ">u2", count)
    else:
        words = b" ".join(line.split(b"#")[0] for line in content.splitlines()).split()[:count]
        values = np.array([int(word) for word in words], np.int64)
    if len(values) < count or (count and values.max() > white):
        raise ValueError(f"{len(values)} values up to {values.max()}; wanted {count} up to {white}")
    values = ((values.astype(np.uint32) * TOP + white // 2) // white).astype(np.uint16)
    mode = "I" if channels == 1 else ""
    return Photograph(
        values.reshape(height, width, channels), {}, mode, stored=Stored("PPM", {"white": white})
    )
