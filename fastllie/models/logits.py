"""Images as logits: where a sum is a gain in the shadows, and never clips."""

import math

import torch
from torch import Tensor

# what an image is kept from 0 and 1: half a level of 8 bits
_NEARLY = 0.5 / 255
# the half logit of white
LARGEST = math.log(1 / _NEARLY - 1) / 2


def half_logits(image: Tensor) -> Tensor:
    """Half of the logits of images in [0, 1], float32 at least: tanh of them is 2 image - 1."""
    image = image.to(torch.promote_types(image.dtype, torch.float32)).clamp(_NEARLY, 1 - _NEARLY)
    return (image / (1 - image)).log() / 2
