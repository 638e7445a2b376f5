"""Images that a discriminator remembers: what it is shown instead of some of the new ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastllie.training.parallel import Parallel

# the share of the new images that an old one stands in for
SHARE = 0.5


class Pool:
    """The last images of a generator, of which a discriminator sees some again (Shrivastava et al., 2017).

    Until the pool is full each new image is kept and shown. From then on one in two is shown as it is; for
    each of the others an image of the pool is shown, and the new one takes its place. The images of one step
    know the pool as it was before the step, so that they may come in parts.

    Args:
        size: Images that it holds at most; 0 shows the new ones alone.
    """

    def __init__(self, size: int):
        self.size = size
        self.images: list[Tensor] = []

    def draws(self, random: np.random.Generator, count: int) -> list[int | None]:
        """For each of a step's images the place of the one to be shown instead; None: it is shown itself."""
        if not self.size or len(self.images) < self.size:
            return [None] * count
        old = random.random(count) < SHARE
        places = random.integers(self.size, size=count)
        return [int(place) if chosen else None for place, chosen in zip(places, old, strict=True)]

    def shown(self, images: Tensor, places: Sequence[int | None]) -> Tensor:
        """What to show for images `[B, C, H, W]`, the same tensor where it is they."""
        if all(place is None for place in places):
            return images
        chosen = [
            image if place is None else self.images[place].to(image)
            for image, place in zip(images, places, strict=True)
        ]
        return torch.stack(chosen).contiguous(memory_format=torch.channels_last)

    def keep(self, images: Tensor, places: Sequence[int | None]) -> None:
        """End a step: take in its images, as far as they fill the pool or stand for one of it."""
        for image, place in zip(images, places, strict=True):
            if place is not None:
                self.images[place] = image.detach().clone()
            elif len(self.images) < self.size:
                self.images.append(image.detach().clone())

    def keep_all(
        self, made: Sequence[Tensor], places: Sequence[int | None], shape: torch.Size, parallel: Parallel
    ) -> None:
        """`keep` the images of all processes.

        Args:
            made: Those of this process, part after part.
            places: Of all images of the step.
            shape: Of one image.
        """
        if not self.size:
            return
        if parallel.world == 1:
            self.keep(torch.cat(list(made)), places)
            return
        count = len(places)
        images = torch.zeros((count, *shape), device=parallel.device)
        if made:
            mine = torch.cat(list(made))
            first = count * parallel.rank // parallel.world
            images[first : first + len(mine)] = mine
        parallel.sum_([images])
        self.keep(images, places)

    def state_dict(self) -> list[Tensor]:
        return list(self.images)

    def load_state_dict(self, state: Any) -> None:
        self.images = [image.clone() for image in state]
