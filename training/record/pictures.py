"""Contact sheets: a few photographs before and after, side by side, with their names and captions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

ROWS = 8
SIDE = 320  # pixels, the long side of a thumbnail
GAP = 8
FONT = 14
LINE = 20
# neutral: a coloured or a white ground would change how the pictures look
GROUND, TEXT, FAINT = (28, 28, 28), (235, 235, 235), (165, 165, 165)


class Row(NamedTuple):
    """One photograph: its name, and pictures of it with a caption each.

    The pictures are uint8, `[H, W, 3]` or `[H, W, 1]`, of any sizes.
    """

    name: str
    images: Sequence[NDArray[np.uint8]]
    captions: Sequence[str]


def contact_sheet(rows: Sequence[Row]) -> Image.Image:
    """One RGB image of the first eight rows, each picture at a long side of 320 pixels.

    Raises:
        TypeError: a picture that is no uint8 array.
        ValueError: no rows, a row without pictures, of an unfit shape, or with another number of captions.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row, got none")
    rows = rows[:ROWS]
    pictures = [_thumbnails(row) for row in rows]
    columns = max(map(len, pictures))
    cell = max(picture.width for row in pictures for picture in row)
    heights = [max(picture.height for picture in row) for row in pictures]
    width = GAP + columns * (cell + GAP)
    sheet = Image.new("RGB", (width, GAP + sum(height + 2 * LINE + 2 * GAP for height in heights)), GROUND)
    draw = ImageDraw.Draw(sheet)
    font: Any = ImageFont.load_default(FONT)
    top = GAP
    for row, shown, height in zip(rows, pictures, heights, strict=True):
        draw.text((GAP, top), _fitted(row.name, draw, font, width - 2 * GAP), TEXT, font)
        top += LINE
        for place, (picture, caption) in enumerate(zip(shown, row.captions, strict=True)):
            left = GAP + place * (cell + GAP)
            sheet.paste(picture, (left, top))
            draw.text((left, top + picture.height + 2), _fitted(caption, draw, font, cell), FAINT, font)
        top += height + LINE + 2 * GAP
    return sheet


def _thumbnails(row: Row) -> list[Image.Image]:
    images, captions = len(row.images), len(row.captions)
    if not images or images != captions:
        raise ValueError(f"{row.name}: wanted pictures with a caption each, got {images} and {captions}")
    return [_thumbnail(row.name, image) for image in row.images]


def _thumbnail(name: str, image: NDArray[np.uint8]) -> Image.Image:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise TypeError(f"{name}: wanted a uint8 array, got {getattr(image, 'dtype', type(image).__name__)}")
    if image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise ValueError(f"{name}: wanted a picture of shape [H, W, 3] or [H, W, 1], got {list(image.shape)}")
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else np.ascontiguousarray(image))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _fitted(text: str, draw: ImageDraw.ImageDraw, font: Any, width: int) -> str:
    """The text, without its middle where it is too long: names differ at their ends."""
    text = " ".join(text.splitlines())
    shown, kept = text, len(text)
    while kept and draw.textlength(shown, font) > width:
        kept -= 1
        shown = text[: (kept + 1) // 2] + "..." + text[len(text) - kept // 2 :]
    return shown
