"""The pictures of docs/papers.md, of what the rows made of three photographs in the public domain."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import methods_pictures
import papers_curves
import papers_gans
import papers_sci
from papers_runs import Pictures, picture_of, strip
from PIL import Image, ImageDraw, ImageFont

GAP = 4
LABEL = 170  # pixels for the names
SHEETS: dict[str, Sequence[str]] = {
    "papers-sci.jpg": (
        papers_sci.CALIBRATED,
        papers_sci.UNCALIBRATED,
        "RUAS(1)",
        "RUAS(3)",
        "RUAS(1) + SCI",
    ),
    "papers-losses.jpg": (papers_curves.FULL, *map(papers_curves.without, papers_curves.LOSSES)),
    "papers-iterations.jpg": (
        *(papers_curves.iterated(count) for count in (1, 2, 4, papers_curves.ITERATIONS)),
        papers_curves.SHARED,
        papers_curves.SEPARABLE,
    ),
    "papers-enlightengan.jpg": (papers_gans.ENLIGHTEN, papers_gans.UNATTENDED, papers_gans.UNDISPUTED),
    "papers-nerco.jpg": (
        papers_gans.REPRESENTED,
        papers_gans.UNREPRESENTED,
        papers_gans.UNMASKED,
        papers_gans.UNREAD,
        *papers_gans.EDGES.values(),
    ),
}


def draw(pictures: Pictures, folder: Path) -> Iterator[str]:
    """Write the sheets; yields their names.

    Raises:
        FileNotFoundError: a row of which there is no picture, because it was trained elsewhere.
    """
    given = strip(pictures.shown())
    for name, rows in SHEETS.items():
        strips = {"given": given} | {row: Image.open(picture_of(pictures.work, row)) for row in rows}
        sheet(strips).save(folder / name, quality=85)
        yield name


def sheet(strips: dict[str, Image.Image]) -> Image.Image:
    """Strips below each other, each behind its name."""
    first = next(iter(strips.values()))
    height = methods_pictures.SHOWN[1] + GAP
    canvas = Image.new("RGB", (LABEL + first.width, height * len(strips) - GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for place, (name, image) in enumerate(strips.items()):
        canvas.paste(image, (LABEL, place * height))
        draw.text((4, place * height + height // 2 - 20), broken(name), fill="black", font=font)
    return canvas


def broken(name: str, room: int = 20) -> str:
    """The name in lines that fit beside a strip."""
    lines = [""]
    for word in name.split():
        if len(lines[-1]) + len(word) >= room:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
