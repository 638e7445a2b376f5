"""The pictures of docs/papers.md, of what the rows made of three photographs in the public domain."""

from collections.abc import Collection, Iterator
from pathlib import Path

import methods_pictures
from papers_runs import Pictures, picture_of, strip
from papers_tables import SHEETS
from PIL import Image, ImageDraw, ImageFont

GAP = 4
LABEL = 170  # pixels for the names


def draw(pictures: Pictures, measured: Collection[str], folder: Path) -> Iterator[str]:
    """Write the sheets whose rows are all measured, with this folder of work; yields what became of each."""
    given = strip(pictures.shown())
    for name, rows in SHEETS.items():
        missing = [row for row in rows if row not in measured or not picture_of(pictures.work, row).exists()]
        if missing:
            yield f"left out: {name}, for there are no pictures of {', '.join(missing)}"
            continue
        strips = {"given": given} | {row: Image.open(picture_of(pictures.work, row)) for row in rows}
        sheet(strips).save(folder / name, quality=85)
        yield f"written: {name}"


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
