"""What every loss checks of its images."""

from torch import Tensor


def need(images: Tensor, size: int, loss: str) -> None:
    if images.dim() != 4 or min(images.shape[-2:]) < size:
        raise ValueError(f"{loss} needs [B, C, H, W] with H, W >= {size}, got shape {tuple(images.shape)}")
