"""Brighten raw frames between two programs: python examples/pipe_frames.py WIDTH HEIGHT [METHOD]

    ffmpeg -i night.mp4 -f rawvideo -pix_fmt rgb24 - \\
        | python examples/pipe_frames.py 1280 720 sci \\
        | ffmpeg -f rawvideo -pix_fmt rgb24 -s 1280x720 -r 25 -i - bright.mp4

For whole files `fastllie enhance night.mp4` keeps sound and metadata too.
"""

import sys
from typing import BinaryIO

import numpy as np

import fastllie


def main(
    width: str,
    height: str,
    method: str = "sci",
    source: BinaryIO = sys.stdin.buffer,
    sink: BinaryIO = sys.stdout.buffer,
) -> None:
    enhancer = fastllie.Enhancer(method)
    shape = int(height), int(width), 3
    frame, out = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    while filled := _fill(source, frame):
        if filled < frame.nbytes:
            sys.exit(f"the stream ends within a frame: {filled} of {frame.nbytes} bytes")
        sink.write(enhancer.preprocess(frame, out=out).data)
    sink.flush()


def _fill(source: BinaryIO, frame: np.ndarray) -> int:
    """How much of a frame came: a pipe gives what it has, and nothing only at its end."""
    view, filled = memoryview(frame).cast("B"), 0
    while filled < len(view) and (count := source.readinto(view[filled:])):  # type: ignore[attr-defined]
        filled += count
    return filled


if __name__ == "__main__":
    main(*sys.argv[1:4])
