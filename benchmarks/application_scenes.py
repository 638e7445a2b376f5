"""The pictures of benchmarks/applications.py: with faces, and with text.

There are hardly any photographs of either that may be used here: the astronaut and the page of scikit-image.
The others are composed, of her face or of signs in photographs that are in the public domain, and say so.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

Bytes = NDArray[np.uint8]

SIZE = (640, 424)
FACE = (140, 20, 320, 230)  # of the astronaut: left, top, right, bottom, with some of what is around
HEIGHTS = ((150, 96, 60), (120, 80, 48), (100, 64, 40))  # in pixels
# photographs in the public domain, which nothing was trained on
BACKGROUNDS = (
    "007_seeding_by_Clements_Engelhardt.jpg",
    "021_London_Eye_by_Paul_Daniell.jpg",
    "023_Voss_by_fortuneblues.jpg",
    "051_brad_huchteman_stone_mountain.jpg",
    "052_joshua_coleman_something_yellow.jpg",
    "187_Untitled_by_Troy_Jarrell.jpg",
)
# paper and ink of a sign, and what stands on it
SIGNS = (
    ((245, 243, 235), (25, 25, 30), "Platform 4\nTrains to Harbour Street"),
    ((20, 70, 150), (250, 250, 250), "Museum of Glass\nOpen 10 am to 6 pm"),
    ((250, 205, 40), (20, 20, 20), "Mind the step\nFloor wet after rain"),
    ((170, 30, 35), (255, 240, 230), "Fire exit\nKeep this door clear"),
    ((60, 60, 64), (190, 190, 195), "Reception\nPlease ring the bell"),
    ((225, 235, 225), (90, 120, 95), "Garden café\nSoup of the day 7.50"),
)


class Scene(NamedTuple):
    """A picture, `[H, W, 3]`; `composed` tells those that no camera took as they are."""

    name: str
    image: Bytes
    composed: bool


def photograph(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.fit(image.convert("RGB"), SIZE, Image.Resampling.LANCZOS)


def faces(folder: Path) -> list[Scene]:
    """The astronaut, and her face at several sizes in photographs.

    Raises:
        ImportError: scikit-image is not installed.
    """
    from skimage import data

    astronaut = Image.fromarray(data.astronaut())
    found = [Scene("astronaut", np.asarray(astronaut), False)]
    cut = astronaut.crop(FACE)
    for place, name in enumerate(BACKGROUNDS):
        canvas = photograph(folder / name)
        for column, height in enumerate(HEIGHTS[place % len(HEIGHTS)]):
            face = cut.resize((height * cut.width // cut.height, height), Image.Resampling.LANCZOS)
            # half of them look the other way
            face = ImageOps.mirror(face) if (place + column) % 2 else face
            left = 30 + column * 210 + 7 * place
            canvas.paste(face, (left, 40 + 60 * ((place + column) % 3)), _soft(face.size))
        found.append(Scene(f"faces in {name}", np.asarray(canvas), True))
    return found


def _soft(size: tuple[int, int]) -> Image.Image:
    """A mask without hard edges: an oval."""
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse((3, 3, size[0] - 4, size[1] - 4), fill=255)
    return mask.filter(ImageFilter.GaussianBlur(3))


def texts(folder: Path) -> list[Scene]:
    """The page, and signs in photographs.

    Raises:
        ImportError: scikit-image is not installed.
    """
    from skimage import data

    # twice its size: small letters are found or not by chance
    page = ImageOps.scale(Image.fromarray(data.page()).convert("RGB"), 2, Image.Resampling.BICUBIC)
    found = [Scene("page", np.asarray(page), False)]
    for place, (paper, ink, text) in enumerate(SIGNS):
        name = BACKGROUNDS[place]
        canvas = photograph(folder / name)
        draw = ImageDraw.Draw(canvas)
        left, top = 60 + 20 * place, 50 + 30 * (place % 4)
        font = ImageFont.load_default((26, 22, 18)[place % 3])
        box = draw.multiline_textbbox((left, top), text, font, spacing=8)
        draw.rectangle((box[0] - 18, box[1] - 16, box[2] + 18, box[3] + 16), fill=paper)
        draw.multiline_text((left, top), text, ink, font, spacing=8)
        # as sharp as a photograph is
        found.append(Scene(f"sign in {name}", np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.6))), True))
    return found


def scenes(shared: Path) -> Mapping[str, Sequence[Scene]]:
    """All pictures, by what is looked for in them."""
    folder = shared / "data" / "free_photos"
    return {"faces": faces(folder), "text": texts(folder)}
