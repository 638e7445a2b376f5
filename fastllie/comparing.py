"""Before and after, over each other: a picture with a slider, for notebooks and pages."""

import base64
import io
import os
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastllie.images.batches import to_batch
from fastllie.images.files import replacing

LONGEST = 1280  # pixels of a side: a notebook keeps what it shows
_QUALITY = 90

_ABOVE = "position:absolute;left:0;top:0;width:100%;height:100%;clip-path:inset(0 calc(100% - var(--at)) 0 0)"
_SLIDER = "position:absolute;left:0;bottom:2%;width:100%;margin:0"
# The input's own handler moves the cut, so that no script stands beside it; where it may not run, a half of
# each is seen
_PAGE = """<figure style="margin:0;max-width:{width}px">
<div style="--at:50%;position:relative;line-height:0">
<img src="data:image/jpeg;base64,{after}" alt="{after_label}" style="width:100%">
<img src="data:image/jpeg;base64,{before}" alt="{before_label}" style="{above}">
<input type="range" min="0" max="100" value="50" aria-label="{before_label} to {after_label}" style="{slider}"
 oninput="this.parentNode.style.setProperty('--at', this.value + '%')">
</div>
<figcaption style="display:flex;justify-content:space-between">
<span>{before_label}</span><span>{after_label}</span></figcaption>
</figure>"""


@dataclass(frozen=True)
class Comparison:
    """Two pictures of one size over each other; a notebook shows it with a slider.

    Attributes:
        before, after: As PIL images, the longer side at most 1280 pixels.
        labels: What stands below them.
    """

    before: Image.Image
    after: Image.Image
    labels: tuple[str, str]

    def to_html(self) -> str:
        """The picture with its slider: HTML that asks for nothing from elsewhere, and holds no script."""
        before, after = (base64.b64encode(_jpeg(image)).decode() for image in (self.before, self.after))
        first, second = (escape(label, quote=True) for label in self.labels)
        return _PAGE.format(
            width=self.after.width,
            before=before,
            after=after,
            before_label=first,
            after_label=second,
            above=_ABOVE,
            slider=_SLIDER,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a page of it. Atomic."""
        title = escape(" | ".join(self.labels))
        page = f'<!doctype html>\n<meta charset="utf-8">\n<title>{title}</title>\n{self.to_html()}\n'
        with replacing(path) as temporary:
            temporary.write_text(page, encoding="utf-8")

    def _repr_html_(self) -> str:
        return self.to_html()


def compare(before: Any, after: Any, *, labels: tuple[str, str] = ("before", "after")) -> Comparison:
    """Put two pictures over each other, with a slider between them; a notebook shows what comes back.

    Args:
        before, after: Images of any kind that `enhance` takes, of one size; one each, no batches.
        labels: What stands below them.

    Raises:
        TypeError, ValueError: as `enhance`; two sizes, or a batch of several.
    """
    first, second = _picture("before", before), _picture("after", after)
    if first.size != second.size:
        raise ValueError(
            f"before and after must have one size, got {first.width}x{first.height} and"
            f" {second.width}x{second.height}"
        )
    for image in (first, second):
        # in place, and the same for both; smaller ones stay as they are
        image.thumbnail((LONGEST, LONGEST))
    return Comparison(first, second, (str(labels[0]), str(labels[1])))


def _picture(name: str, image: Any) -> Image.Image:
    x, _ = to_batch(image, device=torch.device("cpu"), dtype=torch.uint8)
    if len(x) != 1:
        raise ValueError(f"{name} must be one image, got a batch of {len(x)}")
    values = x[0].permute(1, 2, 0).numpy()
    if values.dtype != np.uint8:
        values = (values * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(values))


def _jpeg(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()
