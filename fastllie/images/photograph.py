"""The one type between a file and a batch: the pixels of a photograph, and everything that came with them."""

import io
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastllie.defaults import LUMA, PNG_LEVEL
from fastllie.images import colour, exif, xmp
from fastllie.images.tiff import BrokenError
from fastllie.images.writing import write

TOP = 65535
_PLAIN = ("L", "LA", "RGB", "RGBA")  # Pillow's modes of one to four channels of values as they are
_INTEGERS = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_EXIF_KEYS = ("exif", "Raw profile type exif")
# What else a TIFF keeps in the same table describes its own storage and would be wrong in a new file
_TAGS = {270, 271, 272, 282, 283, 296, 305, 306, 315, 33432, 34665, 34853}
_PREVIEW = 160  # pixels, the long side of what EXIF data show
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Stored:
    """How a photograph lay in its file.

    Attributes:
        format: Its name in `formats.FORMATS`; "" for none.
        coding: What the encoder of that format is told, so that it codes alike.
        parts: What came with the pixels in the format's own words: `jpeg.Came`, `png.Came`, `tiff.Directory`.
        left_out: What of the file is not here, in words.
    """

    format: str = ""
    coding: dict[str, Any] = field(default_factory=dict)
    parts: Any = None
    left_out: tuple[str, ...] = ()


@dataclass(eq=False)
class Photograph:
    """A photograph as it was in its file, upright.

    Attributes:
        values: `[H, W, C]`: grey, grey and alpha, RGB, or RGB and alpha, by the number of channels. uint8,
            uint16, or float32 in [0, 1].
        info: What came with the pixels, as in a PIL image: "exif", "icc_profile", "xmp", "iptc", "dpi", ...
        mode: Pillow's mode that it had and gets again, where `values` do not tell: "CMYK", "I"; else "".
        native: `[H, W, C]`, the same in colours of its own, where they are neither grey nor RGB: CMYK, YCbCr.
        white: The value of white of uint16: 65535, or 4095 and the like of a camera's own bits.
        stored: How it lay in its file.
        later: The other pictures of its file, in their order.
    """

    values: NDArray[Any]
    info: dict[Any, Any] = field(default_factory=dict)
    mode: str = ""
    native: NDArray[Any] | None = None
    white: int = TOP
    stored: Stored = field(default_factory=Stored)
    later: list["Photograph"] = field(default_factory=list)

    @classmethod
    def of(cls, image: Image.Image, stored: Stored | None = None) -> "Photograph":
        """An upright PIL image of any mode; palettes become the colours that they name, alpha plain.

        Raises:
            ValueError: no pixels, or a mode whose values mean nothing in [0, 1].
        """
        if 0 in image.size:
            raise ValueError(f"image has no pixels: width {image.size[0]}, height {image.size[1]}")
        image = _resolved(image)
        mode, native = image.mode, None
        if mode in _PLAIN or mode == "RGBX":
            values = np.array(image)
        elif mode in _INTEGERS:
            values = _integers(image)
        elif mode == "F":
            values = np.array(image)
        elif mode == "1":
            values = np.array(image.convert("L"))
        else:
            native = np.array(image)
            if mode == "CMYK":
                return cls.of_inks(native, dict(image.info), stored or Stored())
            values = np.array(image.convert("RGB"))
        values = values if values.ndim == 3 else values[..., None]
        mode = "" if mode in _PLAIN else mode
        return cls(values, dict(image.info), mode, native, stored=stored or Stored())

    @classmethod
    def of_inks(cls, inks: NDArray[Any], info: dict[Any, Any], stored: Stored) -> "Photograph":
        """CMYK, `[H, W, 4]`."""
        inks = np.ascontiguousarray(inks)
        return cls(colour.to_rgb(inks, info), info, "CMYK", inks, stored=stored)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.values.shape[1], self.values.shape[0]

    @property
    def grey(self) -> bool:
        return self.values.shape[2] <= 2

    @property
    def deep(self) -> bool:
        """Whether it has more bits than a PIL image can hold: 16 or 32 for each of several channels."""
        held = self.values if self.native is None else self.native
        return held.dtype != np.uint8 and held.shape[2] > 1

    @property
    def top(self) -> int:
        """The value of white; 0 of floats."""
        return {"u1": 255, "u2": self.white}.get(self.values.dtype.str[1:], 0)

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
        if native is not None and self.mode == "CMYK":
            native = colour.to_inks(colours, self.values, native, self.info)
        elif native is not None:
            native = np.asarray(Image.fromarray(np.ascontiguousarray(colours)).convert(self.mode))
        alpha = self.values[..., colours.shape[2] :]
        values = np.concatenate((colours, alpha), axis=2) if alpha.shape[2] else colours
        return replace(self, values=np.ascontiguousarray(values), native=native)

    def each(self, change: Callable[["Photograph"], "Photograph"]) -> "Photograph":
        """The same change of all pictures of the file, one after another."""
        return replace(change(replace(self, later=[])), later=[change(other) for other in self.later])

    def beside(self, other: "Photograph") -> "Photograph":
        """This one at the left of another of the same kind, with what came with the other; all pictures."""
        native = None
        if self.native is not None and other.native is not None:
            native = np.concatenate((self.native, other.native), axis=1)
        values = np.concatenate((self.values, other.values), axis=1)
        later = [left.beside(right) for left, right in zip(self.later, other.later, strict=True)]
        return replace(other, values=values, native=native, later=later)

    def as_pil(self) -> Image.Image:
        """As a PIL image of the mode that it had; of `deep` ones 8 bits a channel, rounded."""
        values = self.values if self.native is None else self.native
        if self.deep:
            values = self.eight_bits(values)
        if values.shape[2] == 1:
            values = values[..., 0]
        if self.mode in _INTEGERS:
            order = np.int32 if self.mode == "I" else np.dtype(">u2" if self.mode == "I;16B" else "<u2")
            image = Image.frombytes(self.mode, self.size, values.astype(order).tobytes())
        elif self.mode == "1":
            image = Image.fromarray(np.where(values >= 128, 255, 0).astype(np.uint8)).convert("1")
        elif self.mode in ("", "F"):
            image = Image.fromarray(values)
        else:
            image = Image.frombytes(self.mode, self.size, np.ascontiguousarray(values).tobytes())
        image.info = self.described()
        return image

    def eight_bits(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Values of this photograph's kind, rounded to 0..255."""
        if values.dtype == np.uint8:
            return values
        if values.dtype.kind == "f":
            return (values.clip(0, 1) * 255 + 0.5).astype(np.uint8)
        return (
            ((values.astype(np.uint32) * 255 + self.white // 2) // self.white).clip(0, 255).astype(np.uint8)
        )

    def described(self) -> dict[Any, Any]:
        """`info` as it is true of these pixels: with their size, and with a preview made from them."""
        info = dict(self.info)
        if data := info.get("exif"):
            try:
                info["exif"] = exif.adjusted(data, self.size, self._preview)
            except BrokenError as error:
                warnings.warn(f"the EXIF data are damaged and left out: {error}", stacklevel=3)
                del info["exif"]
        return info

    def _preview(self) -> bytes:
        """A small JPEG of it."""
        step = max(1, max(self.size) // (4 * _PREVIEW))
        values = self.values[::step, ::step, : 1 if self.grey else 3]
        values = np.ascontiguousarray(self.eight_bits(values))
        image = Image.fromarray(values[..., 0] if self.grey else values)
        image.thumbnail((_PREVIEW, _PREVIEW))
        content = io.BytesIO()
        image.save(content, "JPEG", quality=80)
        return content.getvalue()

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        quality: int | None = None,
        png_level: int = PNG_LEVEL,
        format: str = "",
    ) -> list[str]:
        """Write it; atomic. See `fastllie.images.writing.write`."""
        return write(self, path, quality=quality, png_level=png_level, format=format)


def upright(image: Image.Image, *, own: bool = False, name: str = "an image") -> Image.Image:
    """The image with its EXIF orientation applied, and EXIF in `info` whatever format it came from.

    Args:
        image: Stays as it is.
        own: Where it is nobody else's, it may come back itself; a copy takes as long as decoding.
        name: What it is called where its EXIF data are damaged.
    """
    # a TIFF turns itself when its pixels are read
    image.load()
    damaged = False
    try:
        found = image.getexif()
        method = _UPRIGHT.get(found.get(exif.ORIENTATION, 1))
    except Exception as error:
        # Pillow raises nearly anything; the pixels are good, and no reason to lose a photograph
        warnings.warn(f"the EXIF data of {name} are damaged and left out: {error}", stacklevel=2)
        found, method, damaged = Image.Exif(), None, True
    result = image.copy() if method is None and not own else image
    result = result if method is None else result.transpose(method)
    info = {key: value for key, value in image.info.items() if not (damaged and key in _EXIF_KEYS)}
    # TIFF keeps its tags in the image object, and an old PNG has them as text
    if found and "exif" not in info:
        for tag in set(found) - (_TAGS if image.format == "TIFF" else set(found)):
            del found[tag]
        if found:
            info["exif"] = found.tobytes()
    info.pop("Raw profile type exif", None)
    for key in ("xmp", "XML:com.adobe.xmp"):
        if method is not None and info.get(key):
            text = isinstance(info[key], str)
            made = xmp.adjusted(info[key].encode() if text else info[key])
            info[key] = made.decode() if text else made
    result.info = info
    return result


def turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Values `[H, W, C]` of an EXIF orientation, upright."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values


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
