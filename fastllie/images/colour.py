"""Inks to light and back: CMYK that keeps its black, by its profile or by each pixel's own share of it."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms


def to_rgb(inks: NDArray[Any], info: dict[Any, Any]) -> NDArray[Any]:
    """The colours of CMYK `[H, W, 4]` in sRGB, `[H, W, 3]`: by the profile where there is one that works.

    Of 16 bits the profile gives 8; without one they are 16 too.
    """
    seen = _by_profile(_eight_bits(inks), "CMYK", info)
    if seen is not None:
        return seen
    if inks.dtype == np.uint8:
        return np.array(Image.fromarray(inks, "CMYK").convert("RGB"))
    light = (65535 - inks.astype(np.float64)) / 65535
    return np.rint(light[..., :3] * light[..., 3:] * 65535).astype(inks.dtype)


def to_inks(
    colours: NDArray[Any], before: NDArray[Any], inks: NDArray[Any], info: dict[Any, Any]
) -> NDArray[Any]:
    """CMYK for new colours `[H, W, 3]`, from the colours and inks `[H, W, 4]` that were there before.

    Pixels whose colours are the same keep their inks. Others are separated by the profile; without one, each
    keeps its share of the black that its darkness allows, and the other inks make up for it.
    """
    made = None if colours.dtype != np.uint8 else _by_profile(colours, "RGB", info)
    if made is None:
        new = _separated(colours, before, inks)
    else:
        new = made if inks.dtype == np.uint8 else made.astype(inks.dtype) * 257
    same = (colours == before).all(axis=2, keepdims=True)
    return np.where(same, inks, new)


def _separated(colours: NDArray[Any], before: NDArray[Any], inks: NDArray[Any]) -> NDArray[Any]:
    top = np.float32(np.iinfo(inks.dtype).max)
    most_before = top - before.max(axis=2)
    share = np.divide(inks[..., 3], most_before, out=np.ones_like(most_before), where=most_before > 0)
    black = np.rint(np.minimum(share, 1) * (top - colours.max(axis=2)))
    light = np.maximum(top - black, 1)[..., None]
    others = np.rint(top - top * colours / light).clip(0, top)
    return np.concatenate((others, black[..., None]), axis=2).astype(inks.dtype)


def _eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    return (
        values
        if values.dtype == np.uint8
        else ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    )


def _by_profile(values: NDArray[np.uint8], mode: str, info: dict[Any, Any]) -> NDArray[np.uint8] | None:
    """CMYK to sRGB, or back, by the profile of CMYK; None where there is none that works both ways."""
    content = info.get("icc_profile")
    # the space of a profile's colours stands in its header
    if not content or content[16:20] != b"CMYK":
        return None
    srgb = ImageCms.createProfile("sRGB")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        there = ImageCms.buildTransform(profile, srgb, "CMYK", "RGB")
        back = ImageCms.buildTransform(srgb, profile, "RGB", "CMYK")
    except (OSError, ImageCms.PyCMSError):
        return None
    image = Image.fromarray(np.ascontiguousarray(values), mode)
    return np.array(ImageCms.applyTransform(image, there if mode == "CMYK" else back))
