"""Frames of a video to RGB arrays and back, by the matrix and the range that the video is coded with."""

from typing import Any

import numpy as np

# AVColorSpace and AVColorRange of FFmpeg
BT709, SMPTE170M = 1, 6
LIMITED, FULL = 1, 2
# The matrices that swscale knows, by AVColorSpace: its own number
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
# SWS_BICUBIC, FULL_CHR_H_INT, FULL_CHR_H_INP and ACCURATE_RND, for which PyAV 17 has no names: without
# them swscale takes the nearest chroma and is off by 2 to 3 of 255
_FLAGS = 0x4 | 0x2000 | 0x4000 | 0x40000
# Untagged video of more rows or columns is shown by BT.709, as players do
_SD = (1024, 576)


class Colours:
    """How a video codes its colours, read off a frame; turns frames into RGB arrays and arrays into frames.

    Arrays are `(H, W, 3)`, or `(H, W, 4)` where the format has an alpha channel: uint8 for formats of 8
    bits, uint16 over the whole 0..65535 for deeper ones. Video without a tag is taken as BT.709 if it is
    larger than 1024x576 and as BT.601 else, with limited range; the same both ways.

    Args:
        frame: Any frame of the video.
        target: The name of the pixel format that frames are made in.
    """

    def __init__(self, frame: Any, target: str):
        name = frame.format.name
        self.target = target
        self.alpha = has_alpha(frame.format)
        self.deep = depth(frame.format) > 8
        self._work = (
            ("rgba64le" if self.alpha else "rgb48le") if self.deep else "rgba" if self.alpha else "rgb24"
        )
        self._source_limits = self._limits = _limits(frame)
        #: AVColorSpace and AVColorRange of the result's tags: as they came, or what a new format means
        self.matrix, self.range = int(frame.colorspace), int(frame.color_range)
        large = frame.width > _SD[0] or frame.height > _SD[1]
        guess = BT709 if large else SMPTE170M
        if is_rgb(name) and not is_rgb(target):
            self.matrix, self._limits = guess, LIMITED
        if name != target:
            self.range = self._limits
        self._scaler_matrix = _MATRICES.get(self.matrix, _MATRICES[guess])
        from av.video.reformatter import VideoReformatter

        # one each: a reformatter prepares itself anew when its settings change, and serves one thread
        self._reader, self._writer = VideoReformatter(), VideoReformatter()
        self._top = self._white(frame) if self.deep else 255

    def to_array(self, frame: Any) -> np.ndarray:
        """The frame's pixels."""
        array = self._scaled(self._reader, frame, self._work, self._source_limits, FULL).to_ndarray()
        return _rescaled(array, self._top, 65535) if self.deep else array

    def to_frame(self, array: np.ndarray) -> Any:
        """A frame in the target format, tagged as the video is; without a time."""
        import av

        array = np.ascontiguousarray(_rescaled(array, 65535, self._top) if self.deep else array)
        rgb = av.VideoFrame.from_ndarray(array, format=self._work)
        if self.matrix in _MATRICES:
            # PyAV 17 hands BT.2020 on from the frame only
            rgb.colorspace = self.matrix
        frame = self._scaled(self._writer, rgb, self.target, FULL, self._limits)
        frame.colorspace, frame.color_range = self.matrix, self.range
        return frame

    def _scaled(self, scaler: Any, frame: Any, format: str, source: int, target: int) -> Any:
        return scaler.reformat(
            frame,
            format=format,
            src_colorspace=self._scaler_matrix,
            dst_colorspace=self._scaler_matrix,
            src_color_range=source,
            dst_color_range=target,
            interpolation=_FLAGS,
        )

    def _white(self, frame: Any) -> int:
        """What swscale makes of white: less than 65535, by 0.4 % from 10 bits of limited range."""
        import av

        white = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 255, np.uint8), format="rgb24")
        coded = self._scaled(self._writer, white, frame.format.name, FULL, self._source_limits)
        return int(self._scaled(self._reader, coded, "rgb48le", self._source_limits, FULL).to_ndarray().max())


def is_rgb(name: str) -> bool:
    """Whether a pixel format holds RGB, and no matrix lies between."""
    import av

    return bool(av.VideoFormat(name, 16, 16).is_rgb)


def depth(format: Any) -> int:
    """Bits of the deepest component."""
    return max(component.bits for component in format.components)


def has_alpha(format: Any) -> bool:
    return any(component.is_alpha for component in format.components)


def _limits(frame: Any) -> int:
    """AVColorRange, where the tag is missing the convention of the format."""
    name = frame.format.name
    if name.startswith("yuvj") or is_rgb(name):
        return FULL
    if int(frame.color_range) in (LIMITED, FULL):
        return int(frame.color_range)
    return FULL if name.startswith(("gray", "ya")) else LIMITED


def _rescaled(array: np.ndarray, top: int, new: int) -> np.ndarray:
    if top == new:
        return array
    scaled = array[..., :3] * np.float32(new / top)
    scaled += np.float32(0.5)
    result = array.copy()
    result[..., :3] = np.minimum(scaled, 65535, out=scaled)
    return result
