"""Several pictures in one file of GIF, WebP, PNG or AVIF: all of them, with their times and their loops."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from fastllie.images.photograph import Photograph

_CLEAR = 128  # alpha below which a GIF, which knows no other, is clear


def encode(photo: "Photograph", kind: str, settings: dict[str, Any]) -> bytes:
    """A photograph with its later pictures, as Pillow writes them."""
    pictures = [photo, *photo.later]
    alpha = any(picture.values.shape[2] in (2, 4) for picture in pictures)
    images = [
        _in_palette(picture.values) if kind == "GIF" else _of_mode(picture, alpha) for picture in pictures
    ]
    content = io.BytesIO()
    if len(images) == 1:
        images[0].save(content, kind, **settings)
        return content.getvalue()
    coding = [picture.stored.coding for picture in pictures]
    settings = {**settings, "save_all": True, "append_images": images[1:]}
    settings["duration"] = [each.get("duration", 100) for each in coding]
    # a GIF that does not say is shown once, where others say so
    loop = coding[0].get("loop", 1 if kind != "GIF" else None)
    if loop is not None:
        settings["loop"] = loop
    if kind == "PNG":
        # every picture is whole, and replaces all of the one before
        settings |= {"disposal": 0, "blend": 0, "default_image": False}
    if kind == "GIF":
        told = [each.get("disposal", 0) for each in coding]
        # what was before a picture is not there any more: all are whole
        settings["disposal"] = 2 if alpha else [way if way in (0, 1, 2) else 1 for way in told]
        settings["optimize"] = False
    images[0].save(content, kind, **settings)
    return content.getvalue()


def _of_mode(picture: "Photograph", alpha: bool) -> Image.Image:
    image = picture.as_pil().convert("RGBA" if alpha else "RGB")
    image.info = {}
    return image


def _in_palette(values: NDArray[np.uint8]) -> Image.Image:
    """Colours `[H, W, C]` by the palette of a GIF: exactly, where there are few enough, else the nearest."""
    channels = values.shape[2]
    colours = values[..., :1].repeat(3, axis=2) if channels <= 2 else values[..., :3]
    clear = values[..., -1] < _CLEAR if channels in (2, 4) else np.zeros(values.shape[:2], bool)
    room = 255 if clear.any() else 256
    codes = (colours.astype(np.int64) << np.array([16, 8, 0])).sum(axis=2)
    found, places = np.unique(codes[~clear], return_inverse=True)
    if len(found) <= room:
        palette = (found[:, None] >> np.array([16, 8, 0]) & 255).astype(np.uint8)
        indices = np.zeros(values.shape[:2], np.uint8)
        indices[~clear] = places
    else:
        image = Image.fromarray(np.ascontiguousarray(colours)).quantize(room)
        indices, palette = np.array(image), np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    if clear.any():
        indices[clear] = len(palette)
        palette = np.concatenate((palette, np.zeros((1, 3), np.uint8)))
    made = Image.fromarray(indices, "P")
    made.putpalette(palette.tobytes())
    if clear.any():
        made.info["transparency"] = len(palette) - 1
    return made
