"""What frames carry besides their pixels: kept where the encoder writes it, counted and named where not."""

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np

_CAPTIONS, _TIMECODE = "A53_CC", "GOP_TIMECODE"
_MARKER = 1 << 12  # a bit of MPEG-2's timecodes that is always set
_MASTERING, _LIGHT = "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"
_NAMES = {
    _CAPTIONS: "closed captions",
    _MASTERING: "the mastering display's data (HDR10)",
    _LIGHT: "content light levels (HDR10)",
    "AFD": "active format descriptions",
    "AMBIENT_VIEWING_ENVIRONMENT": "the ambient viewing environment",
    "DOVI_METADATA": "Dolby Vision's data",
    "DOVI_RPU_BUFFER": "Dolby Vision's data as coded",
    "DYNAMIC_HDR_PLUS": "HDR10+ data",
    "DYNAMIC_HDR_VIVID": "HDR Vivid data",
    "FILM_GRAIN_PARAMS": "film grain, which the frames show without",
    _TIMECODE: "timecodes of groups of frames",
    "ICC_PROFILE": "an ICC profile",
    "S12M_TIMECODE": "timecodes of frames",
    "SEI_UNREGISTERED": "user data (SEI)",
    "SPHERICAL": "the spherical mapping",
    "STEREO3D": "the stereo layout",
}
# what is handled elsewhere, or was made by the decoder
_NONE = frozenset(
    (
        *("DISPLAYMATRIX", "MOTION_VECTORS", "PANSCAN", "REGIONS_OF_INTEREST"),
        *("VIDEO_ENC_PARAMS", "VIDEO_HINT"),
    )
)
_ENCODERS_NAMES = (b"x264", b"x265")  # how they sign, after 16 bytes that say what it is
# who writes the captions of a frame that it is given
_CAPTIONING = ("libx264", "libx265", "mpeg2video")
# encoder -> its option, what it calls the two, and the units of chromaticities and luminances (None: numbers)
_HDR10 = {
    "libx264": ("x264-params", "mastering-display", "cll", (50_000, 10_000)),
    "libx265": ("x265-params", "master-display", "max-cll", (50_000, 10_000)),
    "libsvtav1": ("svtav1-params", "mastering-display", "content-light", None),
}


class Extras:
    """Keeps account of what the frames of a video carry.

    Args:
        encoder: The name of the one that codes the result.
        first: The first frame, whose HDR10 data are those of the video.
        alike: Whether results have the format and the size of the frames, so that one can take the place of
            the pixels in a frame and leave it the rest.
    """

    def __init__(self, encoder: str, first: Any, alike: bool):
        self._encoder = encoder
        self._captions = alike and encoder in _CAPTIONING
        self._first = first
        self._seen: Counter[str] = Counter()
        code = self._data(_TIMECODE)
        # counted from zero, as they are anew
        self._ignored = _NONE | ({_TIMECODE} if code is not None and not code[0] & ~_MARKER else set())

    def options(self, given: dict[str, str]) -> dict[str, str]:
        """The options of the encoder, those for the HDR10 data among them."""
        found = dict(given)
        if self._captions and self._encoder == "libx265":
            found["a53cc"] = "1"
        option, *names = _HDR10.get(self._encoder, ("",))[:3]
        values = [value for value in (self._mastering(), self._light()) if option and value]
        if values:
            settings = [f"{names[kind]}={value}" for kind, value in values]
            found[option] = ":".join(filter(None, (found.get(option), *settings)))
        return found

    def take(self, frame: Any, result: Any) -> Any:
        """What is to be coded for a frame: the result, or the frame with its pixels."""
        names = {data.type.name for data in frame.side_data if not _signature(data)}
        self._seen.update(names)
        if not self._captions or _CAPTIONS not in names or result.format.name != frame.format.name:
            return result
        frame.make_writable()
        for into, plane in zip(frame.planes, result.planes, strict=True):
            rows = np.frombuffer(into, np.uint8).reshape(-1, into.line_size)
            new = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            width = min(into.line_size, plane.line_size)
            rows[:, :width] = new[: len(rows), :width]
        frame.colorspace, frame.color_range = result.colorspace, result.color_range
        # the encoder chooses where key frames are
        frame.pict_type = 0
        return frame

    def lines(self) -> tuple[list[str], list[str]]:
        """What was kept, and what was dropped, a line each."""
        kept, dropped = [], []
        static = [_MASTERING, _LIGHT] if self._encoder in _HDR10 else []
        for name, count in sorted(self._seen.items()):
            if name in self._ignored:
                continue
            what = f"{_NAMES.get(name, name)} of {count} frames"
            if name in static or (name == _CAPTIONS and self._captions):
                kept.append(what)
            else:
                dropped.append(f"{what}: not written by {self._encoder} here")
        return kept, dropped

    def _mastering(self) -> tuple[int, str] | None:
        data = self._data(_MASTERING)
        if data is None or len(data) < 22 or not (data[20] and data[21]):
            return None
        values = [Fraction(int(n), int(d)) if d else Fraction(0) for n, d in data[:20].reshape(10, 2)]
        units = _HDR10[self._encoder][3] if self._encoder in _HDR10 else None

        def pair(two: list[Fraction], unit: int) -> str:
            if units is None:
                return f"({float(two[0]):.5f},{float(two[1]):.5f})"
            return f"({round(two[0] * units[unit])},{round(two[1] * units[unit])})"

        red, green, blue, white = (values[place : place + 2] for place in (0, 2, 4, 6))
        least, most = values[8:]
        points = {"G": green, "B": blue, "R": red, "WP": white}
        colours = "".join(f"{name}{pair(point, 0)}" for name, point in points.items())
        return 0, f"{colours}L{pair([most, least], 1)}"

    def _light(self) -> tuple[int, str] | None:
        data = self._data(_LIGHT)
        return None if data is None else (1, f"{data[0]},{data[1]}")

    def _data(self, name: str) -> np.ndarray | None:
        """The 32-bit words of one kind, of the first frame."""
        found = [data for data in self._first.side_data if data.type.name == name]
        return np.frombuffer(bytes(found[0]), np.int32) if found else None


def _signature(data: Any) -> bool:
    """Whether user data only say which encoder made the source."""
    return data.type.name == "SEI_UNREGISTERED" and bytes(data)[16:].startswith(_ENCODERS_NAMES)
