"""Enhance frames as they come: python examples/enhance_stream.py FRAME...

The next frames are read and enhanced while the loop works on the last one; frames keep their order.
"""

import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import fastllie

Frame = NDArray[np.uint8]


def frames(paths: list[str]) -> Iterator[Frame]:
    """Where a camera would stand: arrays of bytes, `[H, W, 3]`."""
    for path in paths:
        with Image.open(path) as image:
            yield np.asarray(image.convert("RGB"))


def main(*paths: str) -> None:
    # frames that are bright already go through unchanged
    enhancer = fastllie.Enhancer("sci", skip_bright=0.4)
    for brighter in enhancer.stream(frames(list(paths))):
        print(f"{brighter.shape[1]}x{brighter.shape[0]}, mean {brighter.mean():.0f} of 255")


if __name__ == "__main__":
    main(*sys.argv[1:])
