"""What users write: a type checker finds nothing wrong with it, and knows what comes back."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

import fastllie


def brighten(x: Tensor, frame: npt.NDArray[np.uint8], photo: Image.Image) -> None:
    tensor: Tensor = fastllie.enhance(x, "sci", strength=0.8)
    array: npt.NDArray[np.uint8] = fastllie.enhance(frame, channels="bgr")
    pictures: list[Image.Image] = [
        fastllie.enhance(photo),
        fastllie.enhance("night.jpg", "zerodce++", scale=12),
        fastllie.enhance(Path("night.jpg"), weights="own.safetensors", device="cpu"),
        fastllie.enhance(b"...", dtype=torch.float64),
    ]
    enhancer = fastllie.Enhancer("dawn", tile=None)
    again: Tensor = enhancer(tensor)
    frames: npt.NDArray[np.uint8] = enhancer.preprocess(enhancer(array))
    pictures.append(enhancer("night.jpg"))
    network: torch.nn.Module = fastllie.load("nerco")
    results: list[Any] = enhancer.batch([again, frames, *pictures])
    print(network, results, fastllie.info("sci").paper, fastllie.info(fastllie.list_methods()[0]).name)


def many() -> list[Path]:
    result = fastllie.enhance_folder("photos", "bright", "sci", quality=90)
    fastllie.enhance_folder("photos", "mine", lambda array: array)
    trained = fastllie.train("zerodce", "photos", output="run", epochs=3)
    fastllie.enhance("night.jpg", "zerodce", weights=trained.weights)
    return result.done + result.remade
