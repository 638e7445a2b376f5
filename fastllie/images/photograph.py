"""The one type between a file and a batch: the pixels of a photograph, and everything that came with them."""

import os
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fastllie.defaults import PNG_LEVEL, QUALITY
from fastllie.images.files import TIFF_TAGS
from fastllie.images.writing import write

TOP = 65535
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow converts to grey
_PLAIN = ("L", "LA", "RGB", "RGBA")  # Pillow's modes of one to four channels of values as they are
_INTEGERS = ("I", "I;16", "I;16L", "I;16B", "I;16N")


@dataclass(eq=False)
class Photograph:
    """A photograph as it was in its file, upright.

    Attributes:
        values: `[H, W, C]`: grey, grey and alpha, RGB, or RGB and alpha, by the number of channels. uint8,
            uint16, or, for grey alone, float32 in [0, 1].
        info: What came with the pixels, as in a PIL image: "exif", "icc_profile" and more.
        mode: Pillow's mode that it had and gets again, where `values` do not tell: "CMYK", "I"; else "".
        native: `[H, W, C]`, the same in colours of its own, where they are neither grey nor RGB: CMYK, YCbCr.
    """

    values: NDArray[Any]
    info: dict[Any, Any] = field(default_factory=dict)
    mode: str = ""
    native: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, image: Image.Image) -> "Photograph":
        """An upright PIL image of any mode; palettes become the colours that they name, alpha plain.

        Raises:
            ValueError: no pixels, or a mode whose values mean nothing in [0, 1].
        """
        if 0 in image.size:
            raise ValueError(f"image has no pixels: width {image.size[0]}, height {image.size[1]}")
        image = _resolved(image)
        mode, info = image.mode, dict(image.info)
        if mode in _PLAIN:
            values = np.array(image)
            return cls(values if values.ndim == 3 else values[..., None], info)
        if mode in _INTEGERS:
            return cls(_integers(image)[..., None], info, mode)
        if mode == "F":
            return cls(np.array(image)[..., None], info, mode)
        if mode == "1":
            return cls(np.array(image.convert("L"))[..., None], info, mode)
        if mode == "RGBX":
            return cls(np.array(image), info, mode)
        return cls(np.array(image.convert("RGB")), info, mode, np.array(image))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.values.shape[1], self.values.shape[0]

    @property
    def grey(self) -> bool:
        return self.values.shape[2] <= 2

    @property
    def deep(self) -> bool:
        """Whether it has more bits than a PIL image can hold: 16 for each of several channels."""
        return self.values.dtype == np.uint16 and self.values.shape[2] > 1

    @property
    def colours(self) -> NDArray[Any]:
        """RGB, `[H, W, 3]`; grey three times."""
        return np.repeat(self.values[..., :1], 3, axis=2) if self.grey else self.values[..., :3]

    def with_colours(self, colours: NDArray[Any]) -> "Photograph":
        """Other colours under the same alpha, with all else that came.

        Args:
            colours: `[H, W, 3]` of the dtype of `values`; or of grey, `[H, W, 1]`.
        """
        if self.grey and colours.shape[2] == 3:
            luma = colours @ np.array(LUMA)
            colours = (np.floor(luma + 0.5) if self.values.dtype.kind == "u" else luma)[..., None]
        colours = colours.astype(self.values.dtype, copy=False)
        native = self.native
        if native is not None:
            native = np.asarray(Image.fromarray(np.ascontiguousarray(colours)).convert(self.mode))
        alpha = self.values[..., colours.shape[2] :]
        values = np.concatenate((colours, alpha), axis=2) if alpha.shape[2] else colours
        return replace(self, values=np.ascontiguousarray(values), native=native)

    def beside(self, other: "Photograph") -> "Photograph":
        """This one at the left of another of the same kind, with what came with the other."""
        native = None
        if self.native is not None and other.native is not None:
            native = np.concatenate((self.native, other.native), axis=1)
        values = np.concatenate((self.values, other.values), axis=1)
        return replace(other, values=values, native=native)

    def as_pil(self) -> Image.Image:
        """As a PIL image of the mode that it had; of `deep` ones 8 bits a channel, rounded."""
        values = self.values if self.native is None else self.native
        if self.deep:
            values = ((values.astype(np.uint32) * 255 + TOP // 2) // TOP).astype(np.uint8)
        if values.shape[2] == 1:
            values = values[..., 0]
        if self.mode in _INTEGERS:
            order = np.int32 if self.mode == "I" else np.dtype(">u2" if self.mode == "I;16B" else "<u2")
            image = Image.frombytes(self.mode, self.size, values.astype(order).tobytes())
        elif self.mode == "1":
            image = Image.fromarray(np.where(values >= 128, 255, 0).astype(np.uint8)).convert("1")
        elif self.mode in ("", "F") or self.deep:
            image = Image.fromarray(values)
        else:
            image = Image.frombytes(self.mode, self.size, np.ascontiguousarray(values).tobytes())
        image.info = dict(self.info)
        return image

    def save(
        self, path: str | os.PathLike[str], *, quality: int = QUALITY, png_level: int = PNG_LEVEL
    ) -> None:
        """Write it in the format of the suffix; atomic. See `fastllie.images.writing.write`."""
        write(self, path, quality=quality, png_level=png_level)


def upright(image: Image.Image, *, own: bool = False) -> Image.Image:
    """The image with its EXIF orientation applied, and EXIF in `info` whatever format it came from.

    Args:
        image: Stays as it is.
        own: Where it is nobody else's, it may be turned itself; a copy takes as long as decoding.
    """
    try:
        exif = image.getexif()
    except Exception as error:
        # see `opening`; the pixels are good, and no reason to lose a photograph
        name = getattr(image, "filename", "") or "an image"
        warnings.warn(f"the EXIF data of {name!r} are damaged and left out: {error}", stacklevel=2)
        image = image if own else image.copy()
        for key in ("exif", "Raw profile type exif"):
            image.info.pop(key, None)
        exif = image.getexif()
    # not a TIFF, which would be saved again with all its tags
    if own and image.format != "TIFF":
        ImageOps.exif_transpose(image, in_place=True)
        result = image
    else:
        result = ImageOps.exif_transpose(image)
    # TIFF keeps its tags in the image object, which copies lose
    if exif and "exif" not in image.info:
        for tag in list(exif):
            if tag not in TIFF_TAGS:
                del exif[tag]
        if exif:
            result.info["exif"] = exif.tobytes()
    return result


def _resolved(image: Image.Image) -> Image.Image:
    """Palettes to the colours that they name, a transparent colour to alpha, premultiplied alpha to plain."""
    clear = "transparency" in image.info
    mode = {"P": "RGBA" if clear else "RGB", "PA": "RGBA", "RGBa": "RGBA", "La": "LA"}.get(image.mode)
    if mode is None and clear:
        mode = {"L": "LA", "1": "LA", "RGB": "RGBA"}.get(image.mode)
    if mode is None:
        return image
    info = {key: value for key, value in image.info.items() if key != "transparency"}
    resolved = image.convert(mode)
    resolved.info = info
    return resolved


def _integers(image: Image.Image) -> NDArray[np.uint16]:
    values = np.array(image)
    if image.mode == "I" and (values.min() < 0 or values.max() > TOP):
        raise ValueError(f"image of mode I has values from {values.min()} to {values.max()}; wanted 0..65535")
    return values.astype(np.uint16)
